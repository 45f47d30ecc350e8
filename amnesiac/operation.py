"""The sections of params.yaml that say how deletions are operated: when, what is refused, where work runs."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from amnesiac.section import Positive, Settings

Unknown = Literal["refuse", "go_on"]


class RequestSettings(Settings):
    """How deletion requests are read."""

    unknown: Unknown = Field(
        "refuse", description="a pending request names what the prepared data doesn't hold: stop the batch before "
        "anything is done, or go on with all that is held and list the rest as not held",
    )  # fmt: skip


class RecurrenceSettings(Settings):
    """When `amnesiac serve` runs the deletion batch (`cron` if given, else the interval), and whom it tells."""

    cron: str | None = None
    interval_seconds: Positive = 86400.0
    evaluate: bool = True
    minimum_requests: Annotated[int, Field(gt=0)] = Field(1, description="a scheduled run waits for so many requests")
    maximum_wait_seconds: Positive = Field(7 * 86400.0, description="a request older than this doesn't wait for others")
    alarm_days: Annotated[float, Field(ge=0.0)] = Field(7.0, description="before its deadline a request is due soon")
    notify_command: tuple[str, ...] | None = Field(
        None, min_length=1, description="program and arguments, no shell; gets JSON on stdin when a run fails or a "
        "deadline is near",
    )  # fmt: skip
    notify_block: str | None = Field(
        None, pattern=r"^[a-z0-9-]+/[a-z0-9-]+$", description="a notification or webhook block of the Prefect server, "
        "TYPE/NAME: its automations send there what the serving process may not live to tell",
    )  # fmt: skip


class ErasureSettings(Settings):
    """What happens to a published deletion batch: keys destroyed, copies purged, residues searched for, receipts."""

    grace_days: Annotated[float, Field(ge=0.0)] = Field(
        0.0, description="a published batch can be rolled back for so long; then its keys are destroyed"
    )
    sharing: tuple[Path, ...] = Field(
        (), description="other projects that use the same DVC cache or remotes: what they name there stays"
    )


class OrchestrationSettings(Settings):
    """Where parallel work runs: members of audits, retrainings of the evaluation. No result depends on it."""

    task_runner: Literal["threads", "dask"] = Field("threads", description="dask: needs the extra amnesiac[dask]")
    workers: Annotated[int, Field(gt=0)] = Field(2, description="dask: processes of a cluster on this machine")
    address: str | None = Field(
        None, description="dask: a standing scheduler, tcp://HOST:PORT, in place of that cluster"
    )

    @model_validator(mode="after")
    def _address_of_dask(self) -> "OrchestrationSettings":
        if self.address is not None and self.task_runner != "dask":
            raise ValueError("orchestration.address is for task_runner dask: set that too, or remove the address")
        return self
