"""One calendar month after receipt; an alarm before."""

from datetime import UTC, datetime, timedelta

import pytest

from amnesiac.requests import DeletionRequest, deadlines, due


@pytest.mark.parametrize(
    ("received", "expected"),
    [
        ("2026-03-15T09:30:00Z", "2026-04-15T09:30:00"),
        ("2026-01-31T00:00:00Z", "2026-02-28T00:00:00"),
        ("2028-01-31T00:00:00Z", "2028-02-29T00:00:00"),
        ("2026-12-31T23:59:59Z", "2027-01-31T23:59:59"),
        ("2026-02-28T12:00:00Z", "2026-03-28T12:00:00"),
        ("2026-05-31T12:00:00Z", "2026-06-30T12:00:00"),
    ],
)
def test_the_same_day_of_the_next_month_or_its_last(received, expected):
    assert due(received) == datetime.fromisoformat(expected).replace(tzinfo=UTC)


def of(name):
    return DeletionRequest(name, "samples", ("s1",), "2026-03-15T12:00:00Z")


@pytest.mark.parametrize(
    ("before", "alarm", "days"),
    [
        (timedelta(days=31), "open", 31),
        (timedelta(days=7, seconds=1), "open", 7),
        (timedelta(days=7), "due soon", 7),
        (timedelta(0), "due soon", 0),
        (timedelta(seconds=-1), "overdue", -1),
        (timedelta(days=-40), "overdue", -40),
    ],
)
def test_alarms(before, alarm, days):
    [found] = deadlines([of("r")], {}, "RECEIPTED", datetime(2026, 4, 15, 12, tzinfo=UTC) - before, 7)
    assert (found.alarm, found.days_left, found.state, found.due) == (alarm, days, "RECEIVED", "2026-04-15T12:00:00Z")


def test_what_is_answered_is_never_late_and_what_is_only_published_is():
    late, states = datetime(2027, 1, 1, tzinfo=UTC), {"a": "RECEIPTED", "b": "PUBLISHED"}
    requests = [of("a"), of("b"), of("c")]
    assert [d.alarm for d in deadlines(requests, states, "RECEIPTED", late, 7)] == ["answered", "overdue", "overdue"]
    assert [d.alarm for d in deadlines(requests, states, "PUBLISHED", late, 7)] == ["answered", "answered", "overdue"]
