"""The codec that a manifest entry describes."""

from collections.abc import Callable
from typing import Any

from amnesiac.capture.blocks import Block
from amnesiac.errors import StoreError
from amnesiac.ledger.codecs import RowBlock, SampleRows, SegmentRows, SubsetRows
from amnesiac.ledger.settled_codec import MaskedRows, QuantisedRows
from amnesiac.ledger.settled_rows import masked_from

Codec = SampleRows | SegmentRows | SubsetRows | QuantisedRows | MaskedRows


def codec_of(entry: dict[str, Any], attachment: Callable[[str], bytes]) -> Codec:
    """From a manifest entry's `codec`; `attachment` reads a further file of the ledger.

    Raises StoreError for a codec that this version doesn't know.
    """
    kind = entry["codec"]
    if kind == "subset":
        return SubsetRows(tuple(tuple(s) for s in entry["shapes"]), entry["fraction"], entry["shared"])
    if kind == "segments":
        return SegmentRows(_sample_rows(entry["part"]), entry["segments"])
    if kind == "factors":
        return _sample_rows(entry)
    if kind == "quantised":
        return QuantisedRows(tuple(Block.from_json(block) for block in entry["blocks"]), entry["bits"])
    if kind == "masked":
        return masked_from(entry, attachment(entry["file"]))
    raise StoreError(f"unknown row codec {kind!r}: the store was written by another version of amnesiac")


def _sample_rows(entry: dict[str, Any]) -> SampleRows:
    return SampleRows(tuple(RowBlock(Block.from_json(b), *b["grid"]) for b in entry["blocks"]))
