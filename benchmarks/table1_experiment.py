"""One run behind `table1.py`: train with capture, delete a class with every method, repair, compare with retraining."""

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from amnesiac.data import Samples, Split
from amnesiac.data.prepared import content_hash
from amnesiac.data.samples import Rows
from amnesiac.errors import SettingsError
from amnesiac.evaluation import accuracy, kl, predict
from amnesiac.hashing import hash_tensors
from amnesiac.ledger import LedgerSpec, SealedLedger, open_ledger
from amnesiac.models import build_model
from amnesiac.seeding import numpy_generator
from amnesiac.settings import CaptureSettings, ModelSettings, RepairSettings, TrainingSettings
from amnesiac.training import CapturePlan, RunSpec, discard_scratch, repair, retrain_without, train_with_capture
from amnesiac.training.loop import weights_of

MODEL = ModelSettings(factory="paper-cnn")
PARAMETERS = 95_110
BATCH = 256  # when predicting; larger ones are slower here, their activations leave the cache
Weights = Mapping[str, Tensor]
Seconds = dict[str, float]
Measure = Callable[[Weights], dict[str, Any]]
Log = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """A line of the table; the rows of `ledger` are added to the weights, nothing where it is None."""

    key: str
    label: str
    ledger: LedgerSpec | None


def _subset(weights: Any, fraction: float, label: str) -> Row:
    key = f"subset-{weights}-{fraction:g}"
    return Row(key, label, LedgerSpec(key, "sample", weights, fraction))


ROWS = (
    Row("original", "original (nothing deleted)", None),
    _subset("one", 0.1, "per-sample, as described, p=.1"),
    _subset("one", 0.05, "per-sample, as described, p=.05"),
    _subset("one", 0.01, "per-sample, as described, p=.01"),
    _subset("lr", 0.1, "per-sample x lr, p=.1"),
    _subset("lr", 1.0, "per-sample x lr, p=1"),
    Row("updates", "original amnesiac (batch updates)", LedgerSpec("updates", "step")),
    Row("updates-partial", "layer-wise partial, p=.1", LedgerSpec("updates-partial", "step", fraction=0.1)),
    Row("delta", "plain per-sample delta", LedgerSpec("delta", "sample")),
)
LEDGERS = tuple(row.ledger for row in ROWS if row.ledger)


@dataclass(frozen=True)
class Setting:
    """class_samples: training samples of the class that are kept, all if None;  repairs: epochs on retained data."""

    name: str
    summary: str
    class_samples: int | None
    repairs: tuple[float, ...]


@dataclass(frozen=True)
class Job:
    """Everything one run needs; `forget` are positions in `train`."""

    spec: RunSpec
    train: Split
    test: Split
    forget: tuple[int, ...]
    label: int
    repairs: tuple[float, ...]
    work: Path | None
    log: Log

    def factory(self) -> nn.Module:
        """The paper's small CNN, freshly initialised."""
        shape = (int(self.train.inputs.shape[1]), int(self.train.inputs.shape[2]), int(self.train.inputs.shape[3]))
        return build_model(MODEL, shape, int(self.test.labels.max()) + 1, self.spec.seed)


def make_job(
    samples: Samples, splits: Mapping[str, Rows], setting: Setting, seed: int, training: TrainingSettings, label: int,
    work: Path | None, log: Log,
) -> Job:  # fmt: skip
    """Cut the class to the setting's size; pixels are scaled to 0..1, nothing else."""
    kept = _kept(samples.labels, splits["train"], label, setting.class_samples, seed)
    chosen = {"train": kept, "test": splits["test"]}
    data_hash = content_hash(samples, chosen, (0.0,), (1.0,))
    train, test = (_split(samples, name, rows) for name, rows in chosen.items())
    forget = tuple(torch.nonzero(train.labels == label).flatten().tolist())
    return Job(RunSpec(seed, MODEL, training, data_hash), train, test, forget, label, setting.repairs, work, log)


def run(job: Job) -> dict[str, Any]:
    """Train, retrain, delete with every row's ledger, repair; the result is what JSON can hold."""
    check_disk(job)
    with tempfile.TemporaryDirectory(prefix="table1-", dir=job.work) as folder:
        return _run(job, Path(folder))


def needed_bytes(job: Job) -> int:
    """Disk space at the widest moment: the spool (float16 visits, updates, Adam's P_t and R_t) and all ledgers."""
    steps = job.spec.training.epochs * -(-len(job.train) // job.spec.training.batch_size)
    by_step = sum(spec.fraction for spec in LEDGERS if spec.per == "step")
    by_sample = sum(spec.fraction for spec in LEDGERS if spec.per == "sample")
    adam = 0 if job.spec.training.optimizer.name == "sgd" else 2
    numbers = steps * (2 * by_step + adam) + len(job.forget) * (by_sample + job.spec.training.epochs / 2)
    return int(4 * PARAMETERS * numbers)


def check_disk(job: Job) -> None:
    """Raise SettingsError where the work folder's disk is too small."""
    folder = job.work or Path(tempfile.gettempdir())
    free, needed = shutil.disk_usage(folder).free, needed_bytes(job)
    job.log(f"needs {needed / 1e9:.1f} GB in {folder} for a while, {free / 1e9:.1f} GB are free")
    if free < 1.1 * needed:
        raise SettingsError(
            f"{folder} has {free / 1e9:.1f} GB free, the run needs {needed / 1e9:.1f} GB for a while: name another "
            "folder with --work, or run `--settings paper` alone, which captures 100 samples"
        )


def _run(job: Job, folder: Path) -> dict[str, Any]:
    plain = timed(job, "training, plain", lambda: retrain_without(job.spec, job.factory, job.train, ()).weights)
    retrained = timed(job, "retraining", lambda: retrain_without(job.spec, job.factory, job.train, job.forget).weights)
    weights, ledger, seconds, sizes = _captured(job, folder)
    measure = _measurer(job, retrained[0])
    rows = [_row(job, row, ledger, weights, measure) for row in ROWS]
    rows.insert(1, {"key": "retrained", "label": "retrained", "repairs": {"0": measure(retrained[0])}})
    return {
        "seed": job.spec.seed,
        "samples": _counts(job),
        "seconds": {"training_plain": plain[1], "retraining": retrained[1], **seconds},
        "bytes": sizes,
        "same_bits_as_plain_training": hash_tensors(plain[0]) == hash_tensors(weights),
        "rows": rows,
    }


def _counts(job: Job) -> dict[str, int]:
    own = int((job.test.labels == job.label).sum())
    return {
        "train": len(job.train),
        "forget": len(job.forget),
        "test_forget": own,
        "test_rest": len(job.test) - own,
    }


def _captured(job: Job, folder: Path) -> tuple[Weights, SealedLedger, dict[str, Seconds], dict[str, int]]:
    """Train with capture of the forgotten class alone, as the paper does, and open the sealed ledger."""
    capture = CaptureSettings(classes=(job.label,), dtype="float16")
    ids, scratch = job.train.sample_ids, folder / "scratch"
    plan = CapturePlan(capture, LEDGERS, ids, job.train.subject_ids, folder / "ledger", scratch)
    started, trained = now(), {}

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "train" and done == total:
            trained["at"] = now()

    result, manifest = train_with_capture(job.spec, job.factory, job.train, plan, progress=progress)
    seconds = {"training_with_capture": since(started, trained["at"]), "seal": since(trained["at"], now())}
    for what, spent in seconds.items():
        job.log(f"{what}: {spent['wall']:.1f} s")
    sizes = {"spool": _size(scratch / "spool"), "ledger": _size(folder / "ledger")}
    discard_scratch(scratch)
    ledger = open_ledger(folder / "ledger", run_id=manifest.run_id, weights_sha256=hash_tensors(result.weights))
    return result.weights, ledger, seconds, sizes


def _row(job: Job, row: Row, ledger: SealedLedger, weights: Weights, measure: Measure) -> dict[str, Any]:
    """Delete, measure, repair, measure."""
    unlearned, spent = timed(job, f"{row.label}: deletion", lambda: _subtract(job, row, ledger, weights))
    repairs = {"0": measure(unlearned) | {"seconds": spent}}
    if job.repairs:
        snapshots, _ = timed(job, f"{row.label}: repair", lambda: repaired(job, unlearned, job.repairs))
        repairs |= {f"{e:g}": measure(snapshots[e][0]) | {"seconds": snapshots[e][1]} for e in job.repairs}
    return {"key": row.key, "label": row.label, "repairs": repairs, **_cost(job, row, ledger)}


def repaired(job: Job, weights: Weights, epochs: Sequence[float]) -> dict[float, tuple[Weights, Seconds]]:
    """Weights after each of these repairs, and the seconds until then.

    One repair of the longest duration passes through the state that each shorter one ends with (same mini-batches,
    constant rate), so its model is looked at on the way.
    """
    steps = -(-len(job.train) // job.spec.training.batch_size)
    wanted = {int(e) * steps + round((e - int(e)) * steps): e for e in epochs}
    models: list[nn.Module] = []
    found: dict[float, tuple[Weights, Seconds]] = {}
    started = now()

    def factory() -> nn.Module:
        models.append(job.factory())
        return models[0]

    def progress(stage: str, done: int, total: int) -> None:
        if done in wanted:
            found[wanted[done]] = weights_of(models[0]), since(started, now())

    repair(job.spec, factory, weights, job.train, job.forget, RepairSettings(epochs=max(epochs)), progress=progress)
    return found


def _subtract(job: Job, row: Row, ledger: SealedLedger, weights: Weights) -> Weights:
    """theta' = theta + sum of rows, as `amnesiac.unlearning.unlearn` does it, for a ledger of our own."""
    if row.ledger is None:
        return weights
    rows = ledger.steps_of(job.forget) if row.ledger.per == "step" else ledger.sample_rows(job.forget)
    total = ledger.total(row.ledger.name, rows)
    return {name: (value.double() + total[name]).to(value.dtype) for name, value in weights.items()}


def _cost(job: Job, row: Row, ledger: SealedLedger) -> dict[str, float]:
    """Bytes on disk for each sample that could be forgotten: any training sample where rows belong to steps."""
    if row.ledger is None:
        return {}
    entry = ledger.manifest.entries[row.ledger.name]
    covered = len(job.train) if row.ledger.per == "step" else entry.rows
    used = len(ledger.steps_of(job.forget)) if row.ledger.per == "step" else len(job.forget)
    return {"bytes_per_sample": entry.rows * entry.row_bytes / covered, "rows": entry.rows, "rows_added": used}


def _measurer(job: Job, retrained: Weights) -> Measure:
    """Accuracies on test samples of the class and of the others, on the forgotten training samples, and KL."""
    forgotten = job.train.take(job.forget)
    model, own = job.factory(), job.test.labels == job.label

    def logits(weights: Weights) -> tuple[Tensor, Tensor]:
        model.load_state_dict(dict(weights))
        return predict(model, forgotten.inputs, BATCH), predict(model, job.test.inputs, BATCH)

    reference = logits(retrained)

    def measure(weights: Weights) -> dict[str, Any]:
        on_forgotten, on_test = logits(weights)
        return {
            "forget_test_accuracy": accuracy(on_test[own], job.test.labels[own]),
            "rest_test_accuracy": accuracy(on_test[~own], job.test.labels[~own]),
            "forget_train_accuracy": accuracy(on_forgotten, forgotten.labels),
            "kl_forget": kl(reference[0], on_forgotten),
            "kl_test": kl(reference[1], on_test),
        }

    return measure


def timed(job: Job, what: str, work: Callable[[], Any]) -> tuple[Any, Seconds]:
    """The result of `work`, and its seconds, which are logged as well."""
    started = now()
    result = work()
    spent = since(started, now())
    job.log(f"{what}: {spent['wall']:.1f} s")
    return result, spent


def now() -> tuple[float, float]:
    """Wall clock, and the CPU time of this process: the latter hardly depends on what else the machine does."""
    return time.perf_counter(), time.process_time()


def since(start: tuple[float, float], end: tuple[float, float]) -> Seconds:
    """What passed between two `now()`."""
    return {"wall": end[0] - start[0], "cpu": end[1] - start[1]}


def _kept(labels: Rows, rows: Rows, label: int, count: int | None, seed: int) -> Rows:
    """The training rows, with a seeded draw of `count` of the class."""
    own = rows[labels[rows] == label]
    if count is None or count >= len(own):
        return rows
    drawn = numpy_generator(seed, "table1", "class samples").choice(own, count, replace=False)
    return np.sort(np.concatenate([rows[labels[rows] != label], drawn]))


def _split(samples: Samples, name: str, rows: Rows) -> Split:
    def ids(values: Sequence[str]) -> tuple[str, ...]:
        return tuple(values[row] for row in rows.tolist())

    inputs = torch.from_numpy(samples.images[rows]).float().div_(255)
    labels = torch.from_numpy(samples.labels[rows])
    return Split(name, inputs, labels, ids(samples.sample_ids), ids(samples.subject_ids))


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
