"""params.yaml: every mistake is one line that names file and field, and says what to do."""

import pytest
from pydantic import ValidationError

from amnesiac.errors import SettingsError
from amnesiac.settings import CurvatureSettings, Params, load_params


@pytest.fixture
def params(tmp_path):
    def write(text):
        (tmp_path / "params.yaml").write_text(text)
        return load_params(tmp_path / "params.yaml")

    return write


def test_an_empty_file_means_the_defaults(params):
    assert params("") == params("# nothing\n") == Params()


def test_values_are_typed(params):
    read = params("seed: 3\ntraining: {optimizer: {name: adam, betas: [0.8, 0.9]}}\ncapture: {classes: [3]}\n")
    assert read.seed == 3
    assert read.training.optimizer.betas == (0.8, 0.9)
    assert read.capture.classes == (3,)


def test_settled_rows_are_chosen_with_their_numbers(params):
    read = params("capture: {settled: {rows: dense, bits: 32, kappa: 1.5}, curvature: {segments: 4}}").capture
    assert (read.settled.rows, read.settled.bits, read.settled.kappa) == ("dense", 32, 1.5)
    assert read.curvature.segments == 4
    assert Params().capture.settled.kappa is None


def test_the_limits_of_confidence_may_be_equal(params):
    chosen = params("unlearning: {confidence: {repair_above: 0.1, retrain_above: 0.1, act: report}}").unlearning
    assert (chosen.confidence.repair_above, chosen.confidence.retrain_above) == (0.1, 0.1)
    assert (chosen.confidence.act, chosen.confidence.drift_budget) == ("report", 1.0)


def test_settings_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        Params().seed = 1


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("training: {epoch: 3}", r"training\.epoch: isn't a setting: mend the spelling, or remove it"),
        ("sead: 3", r"params\.yaml: sead: isn't a setting"),
        ("training: {epochs: 0}", r"training\.epochs: Input should be greater than 0"),
        ("training: {epochs: many}", r"training\.epochs: Input should be a valid integer"),
        ("seed: -1", r"seed: Input should be greater than or equal to 0"),
        ("training: {optimizer: {name: lion}}", r"training\.optimizer\.name: Input should be 'sgd', 'adam' or 'adamw'"),
        ("training: {optimizer: {betas: [1.0, 0.9]}}", r"optimizer\.betas\.0: Input should be less than 1"),
        ("training: {optimizer: {nesterov: true}}", r"training\.optimizer: .*set momentum, or nesterov to false"),
        ("training: 3", r"training: Input should be a valid dictionary"),
        ("- a\n- b", r"params: Input should be a valid dictionary"),
        ("data: {source: npz}", r"data: .*needs data\.path"),
        (
            "unlearning: {method: sisa}",
            r"unlearning\.method: Input should be 'settled', .* 'layerwise-partial'",
        ),
        ("capture: {methods: [sisa]}", r"capture\.methods\.0: Input should be 'settled'"),
        ("capture: {methods: []}", r"capture\.methods: .*at least 1 item"),
        (
            "capture: {methods: [amnesiac-batch, amnesiac-batch]}\nunlearning: {method: amnesiac-batch}",
            r"capture: .*names a method twice: name each once",
        ),
        (
            "unlearning: {method: amnesiac-batch}",
            r"unlearning\.method 'amnesiac-batch' isn't among capture\.methods .*add it there and train again, or",
        ),
        ("capture: {subset_fraction: 0}", r"capture\.subset_fraction: Input should be greater than 0"),
        (
            "capture: {settled: {rows: sparse}}",
            r"capture\.settled\.rows: Input should be 'low-rank', 'dense', 'masked'",
        ),
        ("capture: {settled: {bits: 12}}", r"capture\.settled\.bits: Input should be 8, 16 or 32"),
        (
            "capture: {settled: {bits: 32}}",
            r"capture\.settled: .*32 is for dense rows, not 'low-rank': set 8 or 16, or",
        ),
        ("capture: {settled: {rank: 0}}", r"capture\.settled\.rank: Input should be greater than 0"),
        ("capture: {settled: {class_rank: 0}}", r"capture\.settled\.class_rank: Input should be greater than 0"),
        ("capture: {settled: {kappa: 0}}", r"capture\.settled\.kappa: Input should be greater than 0"),
        ("capture: {settled: {fraction: 1.5}}", r"capture\.settled\.fraction: Input should be less than or equal to 1"),
        ("capture: {curvature: {samples: 600}}", r"capture\.curvature\.samples: isn't a setting"),
        ("capture: {curvature: {segments: 0}}", r"capture\.curvature\.segments: Input should be greater than 0"),
        ("capture: {curvature: {clip_quantile: 0}}", r"capture\.curvature\.clip_quantile: .*greater than 0"),
        ("unlearning: {repair: {epochs: -0.5}}", r"unlearning\.repair\.epochs: .*greater than or equal to 0"),
        (
            "unlearning: {confidence: {repair_above: 0.2, retrain_above: 0.1}}",
            r"unlearning\.confidence: .*retrain_above is below repair_above: raise it, or lower repair_above",
        ),
        (
            "unlearning: {confidence: {repair_above: 0.2}}",  # above the default of the other one
            r"unlearning\.confidence: .*retrain_above is below repair_above",
        ),
        ("unlearning: {confidence: {drift_budget: 0}}", r"confidence\.drift_budget: Input should be greater than 0"),
        (
            "unlearning: {confidence: {act: ignore}}",
            r"confidence\.act: Input should be 'report', 'repair' or 'retrain'",
        ),
        ("seed: [", r"isn't valid YAML: .*line 1"),
        ("seed: x\ntraining: {epochs: 0}", r"seed: .*; training\.epochs: "),
    ],
)
def test_mistakes_name_file_field_and_remedy(text, named, params):
    with pytest.raises(SettingsError, match=r"(?s)params\.yaml.*" + named.removeprefix(r"params\.yaml: ")):
        params(text)


def test_a_missing_file(tmp_path):
    with pytest.raises(
        SettingsError, match=r"params\.yaml doesn't exist: run in the project's folder, or name the file"
    ):
        load_params(tmp_path / "params.yaml")


def test_a_folder_or_a_binary_file(tmp_path):
    with pytest.raises(SettingsError, match="can't be read: .*text file in YAML"):
        load_params(tmp_path)
    (tmp_path / "params.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match=r"params\.yaml can't be read"):
        load_params(tmp_path / "params.yaml")


def test_sample_sizes_of_curvature_are_ordered() -> None:
    with pytest.raises(ValidationError, match="largest_sample is below smallest_sample: raise it"):
        CurvatureSettings(smallest_sample=300, largest_sample=200)


def test_when_a_scheduled_batch_starts_and_whom_it_tells(params):
    read = params("recurrence: {minimum_requests: 5, notify_command: [mail, -s, 'a b']}").recurrence
    assert (read.minimum_requests, read.maximum_wait_seconds, read.alarm_days) == (5, 7 * 86400.0, 7.0)
    assert read.notify_command == ("mail", "-s", "a b")
    for text, field in [("minimum_requests: 0", "minimum_requests"), ("notify_command: []", "notify_command")]:
        with pytest.raises(SettingsError, match=rf"recurrence\.{field}"):
            params(f"recurrence: {{{text}}}")
