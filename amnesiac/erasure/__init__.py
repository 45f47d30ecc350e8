"""Erasing what can be reached, looking whether anything is left, and never taking the erased in again."""

from amnesiac.erasure.fingerprints import Mark, Marked, marks
from amnesiac.erasure.needles import MIN_BYTES, Needle, byte_needles, id_needles, too_short
from amnesiac.erasure.purge import Purge, PurgedPlace, Target
from amnesiac.erasure.scan import Gap, Hit, ScanReport, scan
from amnesiac.erasure.tombstones import Tombstones, pseudonym

__all__ = [
    "MIN_BYTES",
    "Gap",
    "Hit",
    "Mark",
    "Marked",
    "Needle",
    "Purge",
    "PurgedPlace",
    "ScanReport",
    "Target",
    "Tombstones",
    "byte_needles",
    "id_needles",
    "marks",
    "pseudonym",
    "scan",
    "too_short",
]
