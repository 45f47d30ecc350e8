"""Published versions of the model: staged from the last one, kept by content, named by HEAD, swapped in one rename."""

from typing import TYPE_CHECKING, Any

from amnesiac.publication.head import Head, head_of, read_head, swap_head
from amnesiac.publication.mirror import fetch_published, mirror
from amnesiac.publication.publish import Recovery, groups_of, publish, published_facts, recover, roll_back
from amnesiac.publication.store import VersionStore, read_staged, restore_candidate
from amnesiac.publication.version import Version, read_positions
from amnesiac.publication.withdrawn import Withdrawn, read_withdrawn, withdraw

if TYPE_CHECKING:
    from amnesiac.publication.candidate import (
        Origin,
        Subtraction,
        continues,
        origin,
        rounded,
        state_of,
        subtract,
        write_candidate,
    )

__all__ = [
    "Head",
    "Origin",
    "Recovery",
    "Subtraction",
    "Version",
    "VersionStore",
    "Withdrawn",
    "continues",
    "fetch_published",
    "groups_of",
    "head_of",
    "mirror",
    "origin",
    "publish",
    "published_facts",
    "read_head",
    "read_positions",
    "read_staged",
    "read_withdrawn",
    "recover",
    "restore_candidate",
    "roll_back",
    "rounded",
    "state_of",
    "subtract",
    "swap_head",
    "withdraw",
    "write_candidate",
]


def __getattr__(name: str) -> Any:
    """What stages and computes is imported when it is asked for: it takes torch, and who reads HEAD doesn't wait for it
    (PEP 562).
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from amnesiac.publication import candidate

    return getattr(candidate, name)
