"""What a ledger costs before anything is trained: bytes, requests to an object store, processor seconds, money.

Arithmetic of the formats (exact, tested against real ledgers) and constants that were measured on small models
(`Constants`, `benchmarks.constants` reads them from benchmarks/results): times are estimates to a factor of three.
"""

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from amnesiac.errors import InputError
from amnesiac.rowstore import SHARD_BYTES

Rows = Literal["low-rank", "dense", "masked"]
SEGMENTS = 6
CURVATURE_SAMPLES = 1000
_SCALE = 2  # bytes of an outer product's scale
_SEALED = 28  # bytes of nonce and tag that encryption adds to a row


@dataclass(frozen=True)
class Layer:
    """Linear maps `[d_out, d_in]` (a convolution: its output channels x inputs of a patch), `count` of them.

    positions: places of a sample at which the map is applied (a convolution's pixels, a text's tokens)
    """

    d_out: int
    d_in: int
    count: int = 1
    positions: int = 1

    @property
    def parameters(self) -> int:
        """With a bias."""
        return self.count * self.d_out * (self.d_in + 1)

    @property
    def factor(self) -> int:
        """Numbers of one outer product."""
        return self.count * (self.d_out + self.d_in + 1)


@dataclass(frozen=True)
class Constants:
    """Measured; pairs are the lowest and the highest of the models measured (one thread of an AMD EPYC, 2026).

    training, curvature, settling: processor seconds a parameter and visit (curvature: and drawn sample)
    capture:     training with capture over plain training, processor time
    write, read: seconds a row and seconds a byte of encrypted rows, written front to back and read at random
    """

    training: tuple[float, float] = (1.4e-10, 1.8e-9)
    capture: tuple[float, float] = (1.6, 2.1)
    curvature: tuple[float, float] = (6.6e-10, 5.5e-9)
    settling: tuple[float, float] = (4.5e-10, 2.3e-9)
    write: tuple[float, float] = (1.3e-5, 3.1e-9)
    read: tuple[float, float] = (6.4e-6, 8.1e-10)


@dataclass(frozen=True)
class Prices:
    """Of your provider; 0: not counted. storage: a GB and month;  put, get: a request;  hour: of a core."""

    storage: float = 0.0
    put: float = 0.0
    get: float = 0.0
    hour: float = 0.0


@dataclass(frozen=True)
class Sizing:
    """What is asked.

    captured:     the layers that are captured;  parameters: of the whole model
    spool_rank:   outer products a visit (`capture.rank`), None for exact rows;  spool_bytes: 4 (float32) or 2 (float16)
    rank, class_rank, bits, fraction: of `capture.settled`;  copies: of the ledger (DVC's cache and one remote: 3)
    deletions:    samples deleted a month;  batches: a month;  references: retrainings a batch is compared with
    """

    samples: int
    parameters: int
    captured: tuple[Layer, ...]
    epochs: int = 10
    rows: Rows = "low-rank"
    rank: int = 2
    class_rank: int = 1
    bits: int = 8
    fraction: float = 0.1
    spool_rank: int | None = None
    spool_bytes: int = 4
    copies: int = 3
    deletions: int = 1000
    batches: int = 4
    references: int = 2
    training_hours: float | None = None
    constants: Constants = field(default_factory=Constants)
    prices: Prices = Prices()

    @property
    def captured_parameters(self) -> int:
        """Of the captured layers."""
        return sum(layer.parameters for layer in self.captured)

    @property
    def visits(self) -> int:
        """Samples in steps, over the whole run."""
        return self.samples * self.epochs


def square_layers(parameters: int, maps: int) -> tuple[Layer, ...]:
    """So many equal square maps with so many parameters, where the real shapes aren't known; raises InputError."""
    side = round(math.sqrt(parameters / maps)) if maps > 0 else 0
    if side < 1:
        raise InputError(f"{parameters} parameters in {maps} linear maps: name at least one of each")
    return (Layer(side, max(1, side - 1), maps),)


def parse_layer(text: str) -> Layer:
    """`OUTxIN`, `OUTxINxCOUNT` or `OUTxINxCOUNT@POSITIONS`; raises InputError."""
    shape, _, positions = text.partition("@")
    try:
        found = Layer(*map(int, shape.split("x")), **({"positions": int(positions)} if positions else {}))
    except (ValueError, TypeError) as error:
        raise InputError(f"layer {text!r}: write OUTxIN, OUTxINxCOUNT or OUTxINxCOUNT@POSITIONS") from error
    if min(found.d_out, found.d_in, found.count, found.positions) < 1:
        raise InputError(f"layer {text!r}: all numbers must be above 0")
    return found


def last_layers(layers: tuple[Layer, ...], count: int) -> tuple[Layer, ...]:
    """The last `count` maps, as `capture.layers: count` captures them; raises InputError."""
    kept: list[Layer] = []
    left = count
    for layer in reversed(layers):
        if left > 0:
            kept.insert(0, Layer(layer.d_out, layer.d_in, min(left, layer.count), layer.positions))
            left -= layer.count
    if count < 1 or left > 0:
        raise InputError(
            f"the last {count} of {sum(layer.count for layer in layers)} layers: choose fewer, and at least 1"
        )
    return tuple(kept)


def row_bytes(size: Sizing) -> int:
    """Of a sample's rows, without what encryption adds."""
    numbers, outer = size.captured_parameters, sum(layer.factor for layer in size.captured)
    forms = (size.rank, size.class_rank) if size.class_rank else (size.rank,)
    kept: dict[Rows, float] = {
        "low-rank": sum(forms) * outer,
        "dense": len(forms) * numbers,
        "masked": len(forms) * size.fraction * numbers,
    }
    scales = _SCALE * sum(forms) * sum(layer.count for layer in size.captured) if size.rows == "low-rank" else 0
    return round(kept[size.rows] * size.bits / 8) + scales


def visit_bytes(size: Sizing) -> int:
    """Of the spool, a visit: outer products where they are exact and smaller, or `spool_rank` of them; else dense."""
    return sum(_visit_numbers(layer, size.spool_rank) for layer in size.captured) * size.spool_bytes


def _visit_numbers(layer: Layer, rank: int | None) -> int:
    dense = layer.parameters
    if rank is None and layer.positions > 1:
        return dense  # exact rows of a map that is applied at many places
    kept = layer.positions if rank is None else min(rank, layer.positions)
    return min(dense, kept * layer.factor)


def estimate(size: Sizing) -> dict[str, Any]:
    """Everything, as JSON: `bytes`, `requests`, `core_seconds` (low, high), `month`, `money`, `asked`."""
    stored, seconds = _bytes(size), _seconds(size)
    requests = {
        "put_at_seal": size.copies * math.ceil(stored["rows"] / SHARD_BYTES),
        "get_a_deleted_sample": 2 if size.class_rank else 1,
    }
    month = _month(size, stored, seconds)
    asked = asdict(size) | {"captured_parameters": size.captured_parameters}
    found = {"bytes": stored, "requests": requests, "core_seconds": seconds, "month": month}
    return found | {"money": _money(size, found), "asked": asked}


def _bytes(size: Sizing) -> dict[str, int]:
    sample, visit, forms = row_bytes(size), visit_bytes(size), 2 if size.class_rank else 1
    rows = size.samples * (sample + forms * _SEALED)
    version = 12 * size.parameters  # weights in float32, master in float64
    return {
        "row_of_a_sample": sample,
        "rows": rows,
        "base": 8 * size.captured_parameters,
        "rows_and_copies": size.copies * rows,
        "spool_of_a_visit": visit,
        "spool_while_training": size.visits * visit,
        "version": version,
    }


def _seconds(size: Sizing) -> dict[str, tuple[float, float]]:
    """Processor seconds of one thread, lowest and highest; `capture` is what it adds to training."""
    known, work = size.constants, float(size.visits) * size.captured_parameters
    training = _times(known.training, float(size.visits) * size.parameters)
    if size.training_hours is not None:
        training = (3600.0 * size.training_hours,) * 2
    drawn = float(min(size.samples, CURVATURE_SAMPLES) * min(SEGMENTS, size.epochs))
    rows = 2 * size.samples if size.class_rank else size.samples
    written = rows * known.write[0] + size.samples * row_bytes(size) * known.write[1]
    return {
        "training": training,
        "capture": ((known.capture[0] - 1) * training[0], (known.capture[1] - 1) * training[1]),
        "curvature": _times(known.curvature, drawn * size.captured_parameters),
        "settling": _times(known.settling, work),
        "writing_rows": (written, written),
        "retraining": training,
    }


def _times(pair: tuple[float, float], by: float) -> tuple[float, float]:
    return pair[0] * by, pair[1] * by


def _month(size: Sizing, stored: dict[str, int], seconds: dict[str, tuple[float, float]]) -> dict[str, Any]:
    """What deletion costs a month: reading rows is little, comparing with retraining is nearly all of it."""
    rows = 2 if size.class_rank else 1
    read = size.deletions * (size.constants.read[0] + row_bytes(size) / rows * size.constants.read[1])
    references = size.batches * size.references
    return {
        "deletion_seconds": read,
        "deletion_gets": size.deletions,
        "retraining_core_seconds": _times(seconds["retraining"], references),
        "bytes_of_versions": size.batches * stored["version"],
        "verification_bytes_read": size.samples * row_bytes(size),
    }


def _money(size: Sizing, found: dict[str, Any]) -> dict[str, float]:
    """Once and a month, by `Prices`; processor time by the higher estimate."""
    price, gigabyte = size.prices, 1e9
    hours = {name: own[1] / 3600 for name, own in found["core_seconds"].items()}
    sealing = sum(hours[name] for name in ("capture", "curvature", "settling", "writing_rows"))
    kept = found["bytes"]["rows_and_copies"] + found["month"]["bytes_of_versions"]
    return {
        "capture_and_sealing_once": price.hour * sealing + price.put * found["requests"]["put_at_seal"],
        "storage_a_month": price.storage * kept / gigabyte,
        "deletion_a_month": price.get * found["month"]["deletion_gets"]
        + price.hour * found["month"]["deletion_seconds"] / 3600,
        "comparison_a_month": price.hour * found["month"]["retraining_core_seconds"][1] / 3600,
    }
