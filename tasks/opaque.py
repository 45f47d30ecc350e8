"""Errors that may name people reach Prefect's database without their message; the command line shows it whole."""

import re
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

from amnesiac.errors import AmnesiacError

P = ParamSpec("P")
R = TypeVar("R")
_REFERENCE = re.compile(r"\[error ([0-9a-f]{8})\]")
_whole: dict[str, AmnesiacError] = {}
_shown_by = {"command line": False}


class HiddenError(AmnesiacError):
    """Stands for an error whose message may name samples or people."""


def opaque(work: Callable[P, R]) -> Callable[P, R]:
    """Let `work`, the body of a task, raise HiddenError in the place of errors that may name samples.

    Prefect keeps a failed task's exception and traceback. Where no command line will show the error (a scheduled run),
    its message goes to this process's stderr, which Prefect doesn't keep.
    """

    @wraps(work)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return work(*args, **kwargs)
        except AmnesiacError as error:
            if not error.names_samples:
                raise
            hidden = _hide(error)
        raise hidden  # outside of the except block: no context that a traceback could print

    return guarded


@contextmanager
def shown_whole() -> Iterator[None]:
    """For a command line: hidden errors leave the block as what they were."""
    _shown_by["command line"] = True
    try:
        yield
    except AmnesiacError as error:
        found = _REFERENCE.search(str(error))
        whole = _whole.get(found[1]) if found else None
        raise (whole or error) from error
    finally:
        _shown_by["command line"] = False


def _hide(error: AmnesiacError) -> HiddenError:
    reference = secrets.token_hex(4)
    _whole[reference] = error
    if not _shown_by["command line"]:
        print(f"error {reference}: {error}", file=sys.stderr, flush=True)
    return HiddenError(
        f"{type(error).__name__}: the message may name samples, so it isn't kept here. It was printed where this run's "
        f"process runs, and `amnesiac publish` prints it again [error {reference}]"
    )
