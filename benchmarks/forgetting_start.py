"""What a job of the benchmarks on settled deltas begins with: prepared data, a model, and where its ledger will lie."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from torch import Tensor, nn

from amnesiac.data import Samples, Split, load_samples, open_dataset, prepare_dataset
from amnesiac.models import build_model
from amnesiac.settings import DataSettings, ModelSettings
from amnesiac.training import CapturePlan, RunSpec
from amnesiac.unlearning import ledgers_for
from benchmarks.forgetting_baselines import published_ledgers
from benchmarks.forgetting_cases import MISLABELLED, Job, draw, mislabel

DATA_SEED = 0


@dataclass(frozen=True)
class Start:
    """What a job's training run needs; `truth` are the training labels before any were swapped."""

    spec: RunSpec
    factory: Callable[[], nn.Module]
    train: Split
    test: Split
    truth: Tensor
    classes: int
    plan: CapturePlan

    def factory_of(self, seed: int) -> Callable[[], nn.Module]:
        """The same model initialised by another seed."""
        channels, height, width = (int(k) for k in self.train.inputs.shape[1:])
        return partial(build_model, self.spec.model, (channels, height, width), self.classes, seed)


def begin(job: Job, folder: Path) -> Start:
    """Prepare a job's data in `folder`, where ledger and spool will lie too; the same split for every seed."""
    prepare_dataset(_samples(job.config.data, job.data_root), job.config.data, DATA_SEED, folder / "data")
    dataset = open_dataset(folder / "data")
    true, test, classes = dataset.split("train"), dataset.split("test"), len(dataset.class_names)
    swapped = job.cases == (MISLABELLED,)
    train = mislabel(true, draw(MISLABELLED, true.labels, job.seed)) if swapped else true
    data_hash = f"{dataset.content_hash}{'-mislabelled' if swapped else ''}"
    spec = RunSpec(job.seed, ModelSettings(factory=job.config.model), job.config.training, data_hash)
    factory = partial(build_model, spec.model, dataset.image_shape, classes, job.seed)
    return Start(spec, factory, train, test, true.labels, classes, _plan(job, train, folder))


@lru_cache(maxsize=1)
def _samples(data: DataSettings, data_root: Path | None) -> Samples:
    """Read once a process: the embedded digits are a text file that takes seconds."""
    return load_samples(data, data_root, DATA_SEED)


def _plan(job: Job, train: Split, folder: Path) -> CapturePlan:
    capture, published = job.config.capture, tuple(published_ledgers().values()) if job.config.published else ()
    ledgers, scratch = ledgers_for(capture) + published, folder / "scratch"
    return CapturePlan(capture, ledgers, train.sample_ids, train.subject_ids, folder / "ledger", scratch)
