"""What protecting rows costs: encrypted against checksums against a plain NumPy file, in one run.

    amnesiac bench store [--json]

Claim:     encryption costs at most 25 % of the store's writing and 15 % of its reading, and nothing once rows are long;
           the store as a whole has two fifths of a plain file's throughput.
Measured:  writing all rows front to back, reading all of them, reading a tenth at random; rows of 3,072 (an image of
           CIFAR), 6,000 and 40,000 bytes (settled deltas of the CNN, contributions); a key for every row.
Variants:  plain      a NumPy file: tofile, fromfile, rows of a memory map
           checksum   the row store, rows in clear with BLAKE2b checksums: what it is without a key store
           encrypted  the row store with AES-256-GCM and synthetic nonces, keys from a LocalKeyStore in the same folder
Order:     every round takes the variants in turn, beginning with another one; medians over rounds. The store
           syncs each shard (tensorstore does), the plain file doesn't; files are as warm as writing has left them.
Rows:      one a measurement, row length and variant. seconds: wall clock, median; spread: smallest and largest;
           cpu_seconds: of this process (all threads), median; ratio: seconds / plain's; over_checksum: median over
           rounds of this variant's CPU seconds over the checksum's in the same round, None for plain (wall clock of
           shared machines differs more from round to round than the variants do).
Hardware, versions: in the result's `environment`, measured where it ran.
"""

import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from amnesiac.keys import Encrypted, LocalKeyStore
from amnesiac.page_digests import Bytes2D
from amnesiac.rowstore import Checksum, RowArray, RowReader, RowSeal, RowWriter
from benchmarks.forgetting import Options, environment

ROW_BYTES = (3072, 6000, 40000)
VARIANTS = ("plain", "checksum", "encrypted")
MEASURED = ("write", "read", "random read")
LIMITS = {"write": 1.25, "read": 1.15, "random read": 1.15}
THROUGHPUT = 0.4
APPENDED = 1 << 20
Index = npt.NDArray[np.int64]
Row = dict[str, Any]
OnRound = Callable[[str, int, int], None]
"""Called with what was measured, how many rounds are finished and how many there are."""


@dataclass(frozen=True)
class Timing:
    """Seconds of one measurement: wall clock, and CPU of all threads."""

    wall: float
    cpu: float


def benchmark(megabytes: int, rounds: int, folder: Path | None, on_round: OnRound) -> dict[str, Any]:
    """Run it; {"rows", "targets", "environment"} as JSON can hold it.

    megabytes: of each row length and variant;  folder: where to write, a temporary one if None
    """
    rows = list[Row]()
    with TemporaryDirectory(dir=folder) as place:
        for k, row_bytes in enumerate(ROW_BYTES):
            content, seals = _content(Path(place), row_bytes, megabytes)
            found = {name: list[Timing]() for name in (f"{w}|{v}" for w in MEASURED for v in VARIANTS)}
            for turn in range(rounds):
                for name, timing in _round(Path(place), content, seals, turn):
                    found[name].append(timing)
                on_round(f"rows of {row_bytes} bytes, round {turn + 1}", k * rounds + turn + 1, rounds * len(ROW_BYTES))
            rows += [_row(what, variant, row_bytes, len(content), found) for what in MEASURED for variant in VARIANTS]
    facts = environment(Options(workers=1)) | {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    return {"rows": rows, "targets": targets(rows), "environment": facts | {"rounds": rounds}}


def targets(rows: Sequence[Row]) -> list[Row]:
    """What encryption may cost, and how quick the encrypted store has to be beside a plain file."""
    measured = [row for row in rows if row["variant"] == "encrypted"]
    found = []
    for row in measured:
        limit, cost = LIMITS[row["what"]], row["over_checksum"]
        found.append(_target(row, "over checksums", cost, limit, cost <= limit))
    for row in measured:
        if row["what"] != "read":
            share = 1 / row["ratio"]
            found.append(_target(row, "of a plain file's bytes a second", share, THROUGHPUT, share >= THROUGHPUT))
    return found


def _target(row: Row, of: str, measured: float, target: float, met: bool) -> Row:
    what = f"{row['what']}, {of}"
    return {"what": what, "model": row["model"], "measured": measured, "target": target, "met": met}


def _content(folder: Path, row_bytes: int, megabytes: int) -> tuple[Bytes2D, Mapping[str, RowSeal]]:
    """Random rows `[n, row_bytes]`, and how each variant of the store protects them."""
    n = max(2, (megabytes << 20) // row_bytes)
    rows = np.random.default_rng(0).integers(0, 256, (n, row_bytes), np.uint8)
    store = LocalKeyStore(folder / "keys", create=True)
    numbers = store.ensure([f"sample:{k}" for k in range(n)])
    return rows, {"checksum": Checksum(), "encrypted": Encrypted(store, numbers)}


def _round(folder: Path, rows: Bytes2D, seals: Mapping[str, RowSeal], turn: int) -> list[tuple[str, Timing]]:
    """Every variant once; raises ValueError when one doesn't give the rows back."""
    drawn = np.sort(np.random.default_rng(turn).choice(len(rows), max(1, len(rows) // 10), replace=False))
    found = list[tuple[str, Timing]]()
    for k in range(len(VARIANTS)):
        variant = VARIANTS[(k + turn) % len(VARIANTS)]
        write, read = _plain(folder) if variant == "plain" else _stored(folder, variant, seals[variant])
        found.append((f"write|{variant}", _timed(partial(write, rows))[0]))
        for what, index in (("read", np.arange(len(rows))), ("random read", drawn)):
            timing, values = _timed(partial(read, index, rows.shape))
            if not np.array_equal(values, rows[index]):
                raise ValueError(f"{variant} gave back other rows of {rows.shape[1]} bytes than were written")
            found.append((f"{what}|{variant}", timing))
    return found


def _plain(folder: Path) -> tuple[Callable[[Bytes2D], None], Callable[[Index, tuple[int, ...]], Bytes2D]]:
    path = folder / "plain.bin"

    def read(index: Index, shape: tuple[int, ...]) -> Bytes2D:
        if len(index) == shape[0]:
            return np.fromfile(path, np.uint8).reshape(shape)
        return np.asarray(np.memmap(path, np.uint8, "r", shape=shape)[index])

    return lambda rows: rows.tofile(path), read


def _stored(
    folder: Path, variant: str, seal: RowSeal
) -> tuple[Callable[[Bytes2D], None], Callable[[Index, tuple[int, ...]], Bytes2D]]:
    array = RowArray(folder / "store.zarr", variant, "benchmark", seal)

    def write(rows: Bytes2D) -> None:
        writer, size = RowWriter(array, *rows.shape), max(1, APPENDED // rows.shape[1])
        for start in range(0, len(rows), size):
            writer.append(rows[start : start + size])
        writer.close()

    return write, lambda index, shape: RowReader(array).read(index)


def _timed(run: Callable[[], Any]) -> tuple[Timing, Any]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = run()
    return Timing(time.perf_counter() - wall, time.process_time() - cpu), result


def _row(what: str, variant: str, row_bytes: int, n: int, found: Mapping[str, Sequence[Timing]]) -> Row:
    own, plain, checksum = (found[f"{what}|{name}"] for name in (variant, "plain", "checksum"))
    walls, tag = [t.wall for t in own], {"plain": 0, "checksum": Checksum.tag_bytes, "encrypted": Encrypted.tag_bytes}
    paired = [ours.cpu / max(theirs.cpu, 1e-9) for ours, theirs in zip(own, checksum, strict=True)]
    return {
        "what": what,
        "model": f"rows of {row_bytes} bytes",
        "variant": variant,
        "seconds": median(walls),
        "spread": [min(walls), max(walls)],
        "cpu_seconds": median(t.cpu for t in own),
        "ratio": median(walls) / median(t.wall for t in plain),
        "over_checksum": None if variant == "plain" else median(paired),
        "bytes_per_sample": row_bytes + tag[variant],
        "n": n,
    }
