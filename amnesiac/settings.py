"""Every number of the pipeline, typed. `params.yaml` is the only place where they are chosen."""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from amnesiac.errors import SettingsError
from amnesiac.operation import ErasureSettings, OrchestrationSettings, RecurrenceSettings, RequestSettings
from amnesiac.section import Fraction, Positive, Settings
from amnesiac.storage.settings import StorageSettings, storage_url

Decay = Annotated[float, Field(ge=0.0, lt=1.0)]
SourceName = Literal[
    "mnist-5k", "mnist", "fashion-mnist", "cifar10", "cifar100", "image-parquet", "image-folder", "npz"
]
MethodName = Literal["settled", "per-sample-delta", "per-sample-subset", "amnesiac-batch", "layerwise-partial"]

_UNLESS_SET = (("micro_batch", None), ("processes", 1), ("precision", "float32"))


class DataSettings(Settings):
    """Where samples come from and how they are split."""

    source: SourceName = "mnist-5k"
    path: Path | None = Field(None, description="file or folder of image-parquet, image-folder and npz sources")
    url: str | None = Field(None, description="the same below s3://, fetched for the time that prepare needs it")
    label_column: str = "label"
    subject_column: str | None = Field(None, description="column of the source that names the subject")
    subjects_file: Path | None = Field(None, description="CSV or parquet with columns sample_id, subject_id")
    test_fraction: Fraction = Field(0.2, description="used where the source has no test split of its own")
    validation_fraction: Fraction = Field(0.0, description="of the training samples")
    limit: int | None = Field(
        None, gt=0, description="keep this many samples a split (class-balanced), for experiments"
    )
    mean: tuple[float, ...] = (0.0,)
    std: tuple[Positive, ...] = (1.0,)

    @model_validator(mode="after")
    def _path_where_needed(self) -> "DataSettings":
        own = self.source in ("image-parquet", "image-folder", "npz")
        if own and self.path is None and self.url is None:
            raise ValueError(f"source {self.source!r} needs data.path")
        if self.url is not None and (self.path is not None or not own):
            raise ValueError(
                "data.url stands for data.path, in an object store: give one of them, and a source of files"
            )
        return self

    @field_validator("url")
    @classmethod
    def _url_without_secrets(cls, url: str | None) -> str | None:
        return storage_url(url)


class ModelSettings(Settings):
    """A reference model by name, or the user's own as `package.module:factory`."""

    factory: str = "mlp"
    options: dict[str, Any] = Field(default_factory=dict)


class OptimizerSettings(Settings):
    """SGD, Adam or AdamW, as torch.optim names their arguments."""

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: Positive = 0.05
    momentum: Decay = 0.0
    nesterov: bool = False
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    eps: Positive = 1e-8

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> "OptimizerSettings":
        if self.nesterov and self.momentum == 0.0:
            raise ValueError("nesterov needs a momentum above 0: set momentum, or nesterov to false")
        return self


class ScheduleSettings(Settings):
    """Learning rate by epoch-fraction: constant, step (x `gamma` every `every` epochs) or cosine to 0."""

    name: Literal["constant", "step", "cosine"] = "constant"
    every: Annotated[int, Field(gt=0)] = 5
    gamma: Positive = 0.1
    warmup_epochs: Annotated[float, Field(ge=0.0)] = 0.0


class AugmentSettings(Settings):
    """Random shift by up to `shift` pixels (zero padded) and horizontal flip."""

    shift: Annotated[int, Field(ge=0)] = 0
    flip: bool = False


class TrainingSettings(Settings):
    """The training run."""

    epochs: Annotated[int, Field(gt=0)] = 10
    batch_size: Annotated[int, Field(gt=0)] = 64
    optimizer: OptimizerSettings = OptimizerSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    augment: AugmentSettings = AugmentSettings()
    clip_norm: Positive | None = None
    threads: Annotated[int, Field(gt=0)] = Field(1, description="of each process; part of the result")
    device: str = "cpu"
    micro_batch: Annotated[int, Field(gt=0)] | None = Field(
        None, description="samples that go through the model at once: a mini-batch is computed in such parts, and "
        "their gradients are added up before the one step; null: all at once",
    )  # fmt: skip
    processes: Annotated[int, Field(gt=0)] = Field(
        1, description="that train together, each on its slice of every mini-batch; part of the result, as threads are"
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="bfloat16: the forward pass under autocast; weights, gradients, rows stay float32"
    )

    @model_validator(mode="after")
    def _work_for_every_process(self) -> "TrainingSettings":
        if self.processes > self.batch_size:
            raise ValueError(
                f"training.processes {self.processes} is above batch_size {self.batch_size}: each needs a sample of "
                "every mini-batch; take fewer processes, or larger mini-batches"
            )
        if self.processes > 1 and self.device not in ("cpu", "cuda"):
            raise ValueError(
                f"training.device {self.device!r} names one device for {self.processes} processes: "
                "set it to cpu, or to cuda (a GPU each)"
            )
        return self

    def facts(self) -> dict[str, Any]:
        """What decides the bits, as JSON; what came later than the first runs only where it is set, so that they keep
        their id.
        """
        found = self.model_dump(mode="json")
        return {key: value for key, value in found.items() if (key, value) not in _UNLESS_SET}


class CurvatureSettings(Settings):
    """How curvature is measured for settled deltas."""

    fraction: Annotated[float, Field(gt=0.0, le=1.0)] = Field(0.125, description="of the training samples, a segment")
    smallest_sample: Annotated[int, Field(gt=0)] = Field(250, description="samples a segment, at least")
    largest_sample: Annotated[int, Field(gt=0)] = Field(1000, description="samples a segment, at most")
    segments: Annotated[int, Field(gt=0)] = Field(6, description="at most; a segment is one epoch or several")
    largest_factor: Annotated[int, Field(gt=0)] = Field(2048, description="wider Kronecker factors are cut into blocks")
    clip_quantile: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.5, description="Adam's preconditioner is clipped at this quantile of each layer"
    )

    @model_validator(mode="after")
    def _sample_sizes_ordered(self) -> "CurvatureSettings":
        if self.largest_sample < self.smallest_sample:
            raise ValueError("curvature.largest_sample is below smallest_sample: raise it, or lower smallest_sample")
        return self


class SettledSettings(Settings):
    """The rows of settled deltas: bytes against fidelity, see docs/methods.md."""

    rows: Literal["low-rank", "dense", "masked", "unsettled"] = "low-rank"
    rank: Annotated[int, Field(gt=0)] = Field(2, description="low-rank: outer products a layer and sample")
    class_rank: Annotated[int, Field(gt=0)] = Field(1, description="the same, of the row for deleting a whole class")
    bits: Literal[8, 16, 32] = Field(8, description="of a stored number; 32 only for dense rows")
    fraction: Annotated[float, Field(gt=0.0, le=1.0)] = Field(0.1, description="masked: of each layer's coordinates")
    class_rows: bool = Field(True, description="a second row a sample, used where its whole class is deleted")
    kappa: Positive | None = Field(None, description="factor on the curvature; null: chosen by a rule at sealing")

    @model_validator(mode="after")
    def _bits_of_dense_rows(self) -> "SettledSettings":
        if self.bits == 32 and self.rows != "dense":
            raise ValueError(f"settled.bits 32 is for dense rows, not {self.rows!r}: set 8 or 16, or rows to dense")
        return self


class CaptureSettings(Settings):
    """What the ledger keeps. Every list entry of `ledgers` costs disk space: see docs/methods.md."""

    methods: tuple[MethodName, ...] = Field(("per-sample-delta",), min_length=1)
    subset_fraction: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1
    rank: Annotated[int, Field(gt=0)] | None = Field(
        None, description="low rank for convolutions; null keeps them exact"
    )
    dtype: Literal["float32", "float16"] = "float32"
    settled: SettledSettings = SettledSettings()
    curvature: CurvatureSettings = CurvatureSettings()
    classes: tuple[int, ...] | None = Field(None, description="capture only these classes (as the 2024 paper does)")
    layers: Annotated[int, Field(gt=0)] | Annotated[tuple[str, ...], Field(min_length=1)] | None = Field(
        None, description="capture only the last so many layers, or those whose names fit a pattern (`head.*`); what "
        "isn't captured, a deletion leaves as it is (docs/sizing.md)",
    )  # fmt: skip

    @model_serializer(mode="wrap")
    def _as_before(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without `layers` where all are captured: runs from before it could be chosen keep their id."""
        found: dict[str, Any] = serialize(self)
        return {name: value for name, value in found.items() if name != "layers" or value is not None}

    @model_validator(mode="after")
    def _methods_once(self) -> "CaptureSettings":
        if len(set(self.methods)) < len(self.methods):
            raise ValueError(f"capture.methods {list(self.methods)} names a method twice: name each once")
        return self


class RepairSettings(Settings):
    """Fine-tuning on retained data after the subtraction, reported beside the result without it."""

    epochs: Annotated[float, Field(ge=0.0)] = 0.0
    lr: Positive | None = Field(None, description="null: the rate at which training's last epoch began")


class ConfidenceSettings(Settings):
    """When a deletion batch isn't good enough as it is, and what is done then (docs/methods.md has the calibration)."""

    repair_above: Positive = Field(0.03, description="predicted KL from retraining, nats: needs_repair")
    retrain_above: Positive = Field(0.15, description="predicted KL from retraining, nats: needs_retraining")
    drift_budget: Positive = Field(1.0, description="all that was subtracted, relative to the training's path")
    act: Literal["report", "repair", "retrain"] = Field(
        "repair", description="report only flags; repair fine-tunes what is flagged; retrain retrains what needs it"
    )

    @model_validator(mode="after")
    def _ordered(self) -> "ConfidenceSettings":
        if self.retrain_above < self.repair_above:
            raise ValueError("confidence.retrain_above is below repair_above: raise it, or lower repair_above")
        return self


class UnlearningSettings(Settings):
    """How a deletion batch is carried out."""

    method: MethodName = "per-sample-delta"
    scale: Literal["lr", "one"] = Field(
        "lr", description="per-sample-subset: scaled by the learning rate, or as described"
    )
    repair: RepairSettings = RepairSettings()
    confidence: ConfidenceSettings = ConfidenceSettings()


class EvaluationSettings(Settings):
    """What a deletion batch is compared with, beside the model retrained without its samples."""

    other_seeds: Annotated[int, Field(ge=0, le=8)] = Field(
        1, description="further retrainings with other seeds, a training each, once a forget set: the seed-to-seed band"
    )


class Params(Settings):
    """The whole of params.yaml."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    training: TrainingSettings = TrainingSettings()
    capture: CaptureSettings = CaptureSettings()
    unlearning: UnlearningSettings = UnlearningSettings()
    requests: RequestSettings = RequestSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    recurrence: RecurrenceSettings = RecurrenceSettings()
    erasure: ErasureSettings = ErasureSettings()
    storage: StorageSettings = StorageSettings()
    orchestration: OrchestrationSettings = OrchestrationSettings()

    @model_validator(mode="after")
    def _method_is_captured(self) -> "Params":
        if self.unlearning.method not in self.capture.methods:
            raise ValueError(
                f"unlearning.method {self.unlearning.method!r} isn't among capture.methods "
                f"{list(self.capture.methods)}: add it there and train again, or choose one that was captured"
            )
        return self


def load_params(path: Path) -> Params:
    """Read params.yaml; raises SettingsError naming file, field and reason."""
    try:
        return Params.model_validate(yaml.safe_load(path.read_text()) or {})
    except FileNotFoundError:
        raise SettingsError(f"{path} doesn't exist: run in the project's folder, or name the file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} can't be read: {error}. Name a text file in YAML") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"{path} isn't valid YAML: {error}") from error
    except ValidationError as error:
        raise SettingsError(f"{path}: {_explain(error)}") from error


def _explain(error: ValidationError) -> str:
    unknown = "isn't a setting: mend the spelling, or remove it"
    return "; ".join(
        f"{'.'.join(map(str, e['loc'])) or 'params'}: {unknown if e['type'] == 'extra_forbidden' else e['msg']}"
        for e in error.errors()
    )
