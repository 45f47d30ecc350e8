"""When a request must have been answered: one calendar month after receipt (GDPR Art. 12(3))."""

import calendar
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from amnesiac.requests.request import DeletionRequest, timestamp
from amnesiac.requests.states import STATES, State

Alarm = Literal["answered", "open", "due soon", "overdue"]


@dataclass(frozen=True)
class Deadline:
    """state: of the request's batch;  days_left: whole days until `due`, negative once it is over"""

    request_id: str
    state: State
    received: str
    due: str
    days_left: int
    alarm: Alarm


def due(received: str) -> datetime:
    """The same day and time a calendar month later; the last day of that month where it has no such day.

    received: ISO-8601 UTC, as journalled. Holidays and weekends, which Regulation 1182/71 adds, are not added: the
    date is never too late.
    """
    start = datetime.fromisoformat(received)
    year, month = (start.year + 1, 1) if start.month == 12 else (start.year, start.month + 1)
    return start.replace(year=year, month=month, day=min(start.day, calendar.monthrange(year, month)[1]))


def deadlines(
    requests: Iterable[DeletionRequest], states: Mapping[str, State], last: State, now: datetime, alarm_days: float
) -> tuple[Deadline, ...]:
    """A deadline a request, in journal order.

    states: of requests that are in a batch;  last: the state in which a request is answered;  alarm_days: how long
    before the end a request is due soon
    """
    return tuple(
        _deadline(request, states.get(request.request_id, "RECEIVED"), last, now.astimezone(UTC), alarm_days)
        for request in requests
    )


def _deadline(request: DeletionRequest, state: State, last: State, now: datetime, alarm_days: float) -> Deadline:
    end = due(request.received)
    left = end - now
    answered = STATES.index(state) >= STATES.index(last)
    alarm: Alarm = "answered" if answered else _alarm(left, alarm_days)
    return Deadline(request.request_id, state, request.received, timestamp(end), left // timedelta(days=1), alarm)


def _alarm(left: timedelta, alarm_days: float) -> Alarm:
    if left < timedelta(0):
        return "overdue"
    return "due soon" if left <= timedelta(days=alarm_days) else "open"
