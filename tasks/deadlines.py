"""By when requests must be answered."""

from datetime import UTC, datetime

from amnesiac.requests import Deadline, deadlines
from tasks.catalog import LAST_STATE, catalog
from tasks.requesting import request_states


def current_deadlines() -> tuple[Deadline, ...]:
    """The deadlines of all requests as of now."""
    at = catalog()
    days = at.params().recurrence.alarm_days
    return deadlines(at.open_journal().requests(), request_states(), LAST_STATE, datetime.now(UTC), days)
