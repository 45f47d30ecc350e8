"""How time, memory, bytes and files grow with the number of samples, N, and of parameters, P.

    amnesiac bench scaling [--json] [--plot docs/scaling.png]

Claim:     a deletion of F samples costs the same whether 10^3 or 10^6 are held (exponent over N at most .1); what is
           written grows in proportion to N, and to the square root of P.
Runs:      synthetic ledgers (`scaling_ledger`): real keys, encryption, row store, ids and manifest, rows drawn. N =
           10^3 to 10^6 at P = 10^5; P = 10^5 to 10^7 at N = 4,000. Training isn't part of it.
Measured:  write   keys, rows (encoding, encryption, writing), ids, manifest
           delete  1, 100 and 1,000 random samples: open, read, check, decrypt, decode, add, write the model; each
                   forget set twice, the second time is the one measured: its rows lie in the system's memory
           erase   the keys of 100 random samples destroyed, durably
           A process of its own for each of the three at each size; CPU seconds of all its threads beside the clock's.
Rows:      what, model, variant ("over N" or "over P"), samples, parameters, deleted, ratio (to the smallest size of
           its series, CPU seconds), seconds, cpu_seconds (medians), bytes_per_sample, bytes, files (of the ledger;
           erase: of the key store), peak_mb (largest resident memory of the process while it ran), n (repeats), parts
           (write: CPU seconds by part), first_seconds (delete: by the clock, of the first time).
Exponents: slopes of logarithms over log N and log P, by least squares; none below three sizes.
Hardware, versions: in the result's `environment`, with the machine's load before the run.
"""

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from amnesiac.keys import LocalKeyStore
from amnesiac.ledger import open_ledger
from amnesiac.models.files import save_weights
from amnesiac.settings import UnlearningSettings
from amnesiac.unlearning import unlearn
from benchmarks.deleting import DELETED
from benchmarks.forgetting import Options, environment
from benchmarks.forgetting_run import Row
from benchmarks.memory import forget_peak, peak_mb
from benchmarks.scaling_ledger import KEYS, LEDGER, RUN, blocks, weights_of, write_ledger

SIZES, MODELS = (1_000, 10_000, 100_000, 1_000_000), (100_000, 1_000_000, 10_000_000)
FIXED_N, FLAT, ERASED, ERASURES, LONG = 4_000, 0.1, 100, 3, 15.0
FORGET = DELETED[:3]
OVER = {"over N": "samples", "over P": "parameters"}
GROWING = ("cpu_seconds", "seconds", "bytes", "files", "peak_mb")
SETTLED = UnlearningSettings(method="settled")
OnStep = Callable[[str, int, int], None]


def scaling_benchmark(
    sizes: Sequence[int], models: Sequence[int], repeats: int, folder: Path | None, on_step: OnStep
) -> dict[str, Any]:
    """{"rows", "targets", "exponents", "environment"}.

    sizes: N at the smallest of `models`;  models: P at FIXED_N samples;  folder: where ledgers go, for a while
    """
    facts = environment(Options(workers=1)) | {"load": os.getloadavg()[0], "repeats": repeats}
    series = [("over N", n, min(models)) for n in sorted(sizes)] + [("over P", FIXED_N, p) for p in sorted(models)]
    rows = list[Row]()
    for k, (variant, n, p) in enumerate(series):
        on_step(f"{n:,} samples, {p:,} parameters", k, len(series))
        with tempfile.TemporaryDirectory(prefix="scaling-", dir=folder) as place:
            for work in (written, deleted, erased):
                rows += [row | {"variant": variant} for row in _alone(work, Path(place), n, p, repeats)]
    on_step("done", len(series), len(series))
    _set_ratios(rows)
    found = exponents(rows)
    return {"rows": rows, "targets": targets(found), "exponents": found, "environment": facts}


def _alone(work: Callable[[Path, int, int, int], list[Row]], *arguments: Any) -> list[Row]:
    """In a process of its own, so that memory is its own too."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def written(folder: Path, samples: int, parameters: int, repeats: int) -> list[Row]:
    """Write the ledger that the others read; once."""
    torch.set_num_threads(1)
    forget_peak()
    phases = write_ledger(folder, samples, parameters)
    peak, wall, cpu = peak_mb(), sum(phases.wall.values()), sum(phases.cpu.values())
    return [_row("write", samples, parameters, 0, [(wall, cpu)], folder / LEDGER, peak) | {"parts": phases.cpu}]


def deleted(folder: Path, samples: int, parameters: int, repeats: int) -> list[Row]:
    """Deletions of FORGET samples; `repeats` of each, or as many as take LONG seconds, three at least."""
    torch.set_num_threads(1)
    weights = weights_of(blocks(parameters))
    return [_deletions(folder, samples, parameters, count, repeats, weights) for count in FORGET if count < samples]


def _deletions(
    folder: Path, samples: int, parameters: int, count: int, repeats: int, weights: dict[str, torch.Tensor]
) -> Row:
    first, taken = list[tuple[float, float]](), list[tuple[float, float]]()
    forget_peak()
    for turn in range(repeats + 1):
        forget = np.random.default_rng(turn).choice(samples, count, replace=False).tolist()
        for again in (first, taken):
            with _timed(again):
                ledger = open_ledger(folder / LEDGER, run_id=RUN, keys=LocalKeyStore(folder / KEYS))
                save_weights(folder / "unlearned.safetensors", unlearn(SETTLED, ledger, weights, forget).weights)
        if turn > 2 and sum(wall for wall, _ in taken) > LONG:
            break
    row = _row("delete", samples, parameters, count, taken[1:], folder / LEDGER, peak_mb())  # the first warms up
    return row | {"first_seconds": median(wall for wall, _ in first[1:])}


def erased(folder: Path, samples: int, parameters: int, repeats: int) -> list[Row]:
    """ERASURES times the keys of ERASED samples; changes the store."""
    chosen = np.random.default_rng(0).choice(samples, ERASURES * ERASED, replace=False).reshape(ERASURES, ERASED)
    taken = list[tuple[float, float]]()
    forget_peak()
    for numbers in chosen:
        with _timed(taken):
            LocalKeyStore(folder / KEYS).destroy(numbers)
    return [_row("erase", samples, parameters, ERASED, taken, folder / KEYS, peak_mb())]


class _timed:  # noqa: N801 - reads as a function
    """Add wall-clock and CPU seconds of the block to a list."""

    def __init__(self, taken: list[tuple[float, float]]) -> None:
        self._taken, self._began = taken, (0.0, 0.0)

    def __enter__(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        wall, cpu = self._began
        self._taken.append((time.perf_counter() - wall, time.process_time() - cpu))


def _row(
    what: str, samples: int, parameters: int, count: int, taken: Sequence[tuple[float, float]], folder: Path,
    peak: float | None,
) -> Row:  # fmt: skip
    sizes = list(_sizes(folder))
    return {
        "what": what, "model": f"{len(blocks(parameters))} square maps", "variant": "", "samples": samples,
        "parameters": sum(block.numel for block in blocks(parameters)), "deleted": count, "ratio": 1.0,
        "seconds": median(wall for wall, _ in taken), "cpu_seconds": median(cpu for _, cpu in taken),
        "bytes_per_sample": sum(sizes) / samples, "bytes": sum(sizes), "files": len(sizes), "peak_mb": peak,
        "n": len(taken), "parts": {}, "first_seconds": None,
    }  # fmt: skip


def _sizes(folder: Path) -> Iterator[int]:
    return (path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _series(rows: Sequence[Row]) -> dict[tuple[str, str, int], list[Row]]:
    """Rows by variant, what and number deleted, by growing size."""
    found: dict[tuple[str, str, int], list[Row]] = {}
    for row in rows:
        found.setdefault((row["variant"], row["what"], row["deleted"]), []).append(row)
    return found


def _set_ratios(rows: Sequence[Row]) -> None:
    for own in _series(rows).values():
        for row in own:
            row["ratio"] = row["cpu_seconds"] / own[0]["cpu_seconds"]


def exponents(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Slopes by series ("delete 100 over N"), of each quantity that grows."""
    found = dict[str, dict[str, float]]()
    for (variant, what, count), own in _series(rows).items():
        if len(own) > 2:
            name = f"{what} {count:,} {variant}" if what == "delete" else f"{what} {variant}"
            found[name] = {q: slope([(r[OVER[variant]], r[q]) for r in own]) for q in GROWING if own[0][q] is not None}
    return found


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Of log y over log x, by least squares."""
    x, y = np.log(np.array(points, float)).T
    return float(np.polyfit(x, y, 1)[0])


def targets(found: dict[str, dict[str, float]]) -> list[Row]:
    """Deletions are to be flat in N, in CPU seconds and by the clock."""
    named = [(name, own[q], q) for name, own in found.items() for q in ("cpu_seconds", "seconds")
             if name.startswith("delete") and name.endswith("over N")]  # fmt: skip
    return [
        {"what": f"exponent, {name}, {q.replace('_', ' ')}", "measured": value, "target": FLAT, "met": value <= FLAT}
        for name, value, q in named
    ]
