"""alarm: what the automations of `amnesiac serve` run to tell somebody by the user's command."""

from prefect import flow

from tasks.notification import Alarming, RunResource, tell_of_alarm


@flow(name="alarm", flow_run_name="alarm: {event}", persist_result=False)
def alarm(event: Alarming, run: RunResource = "") -> bool:
    """Run `recurrence.notify_command`, unless it has taken the same already. Returns whether it was told now."""
    return tell_of_alarm(event, run)
