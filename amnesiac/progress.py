"""How the core tells that it is alive, without knowing who listens (terminal, Prefect, nobody)."""

from typing import Protocol


class Progress(Protocol):
    """Called with the name of what is going on and how much of it is done."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """`done` of `total` steps of `stage` are finished."""
        ...


def silent(stage: str, done: int, total: int) -> None:
    """Listen to nothing."""
