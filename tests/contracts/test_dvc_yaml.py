"""dvc.yaml, params.yaml, the catalog and the settings name the same things."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from amnesiac.errors import SettingsError
from amnesiac.operation import RecurrenceSettings
from amnesiac.settings import Params, load_params
from tasks.catalog import PARAMS, READS, STAGES, WRITES, Catalog

ROOT = Path(__file__).parents[2]
PIPELINE: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())
CATALOG = Catalog(ROOT)
# Not DVC's: params.yaml is git's, ensembles are a cache, an audit is no stage,
# the journal holds ids, timings differ from run to run, scratch is unfinished; no
# checkout may take back what is published, a tombstone or a receipt; keys go nowhere, least of all to a cache or remote
NOT_DVCS = {
    "params_file", "journal", "published", "keys", "timings", "scratch", "tombstones", "receipts", "signing",
    "reports", "ensembles", "audit",
}  # fmt: skip


def places() -> dict[str, str]:
    """Every path of the catalog by its name, as dvc.yaml would write it."""
    names = [name for name, member in vars(Catalog).items() if isinstance(member, property)]
    return {name: str(getattr(CATALOG, name).relative_to(ROOT)) for name in names}


def listed(stage: str, *keys: str) -> set[str]:
    """The paths that a stage of dvc.yaml lists under these keys; an entry with options is a one-key mapping."""
    entries = [entry for key in keys for entry in PIPELINE["stages"][stage].get(key, [])]
    return {path for entry in entries for path in (entry if isinstance(entry, dict) else [entry])}


def test_the_key_store_may_lie_elsewhere_and_dvc_never_looks_into_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert CATALOG.keys == ROOT / "pipeline_data/keys"
    assert "pipeline_data/keys" in (ROOT / ".dvcignore").read_text().splitlines()
    assert "/pipeline_data/keys/" in (ROOT / ".gitignore").read_text().splitlines()
    monkeypatch.setenv("AMNESIAC_KEYS", str(tmp_path / "elsewhere"))
    assert CATALOG.keys == tmp_path / "elsewhere" == CATALOG.key_store().folder


def test_the_stages_are_the_catalogs_in_its_order() -> None:
    assert tuple(PIPELINE["stages"]) == STAGES == tuple(READS) == tuple(WRITES) == tuple(PARAMS)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_reads_and_writes_what_the_catalog_says(stage: str) -> None:
    assert listed(stage, "deps") == {places()[name] for name in READS[stage]}
    assert listed(stage, "outs", "metrics", "plots") == {places()[name] for name in WRITES[stage]}


def test_every_path_of_the_catalog_is_in_dvc_yaml_or_has_a_reason_not_to_be() -> None:
    in_dvc = set().union(*(listed(stage, "deps", "outs", "metrics", "plots") for stage in STAGES))
    assert in_dvc == {path for name, path in places().items() if name not in NOT_DVCS}
    assert set(places()) >= NOT_DVCS


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_lists_the_params_that_decide_its_result(stage: str) -> None:
    assert set(PIPELINE["stages"][stage]["params"]) == set(PARAMS[stage])
    assert set(PARAMS[stage]) <= set(Params.model_fields) - {"recurrence"}


def test_what_a_stage_computes_from_its_settings_is_stale_when_they_change() -> None:
    needed = {"prepare": {"data"}, "train": {"model", "training", "capture"}, "unlearn": {"unlearning"}}
    assert all(needed[stage] <= set(PARAMS[stage]) for stage in needed)
    assert all("seed" in names for names in PARAMS.values())


def test_plots_are_drawn_from_files_of_the_outs() -> None:
    outs = [path for stage in STAGES for path in listed(stage, "outs")]
    drawn = [path for plot in PIPELINE["plots"] for entry in plot.values() for path in entry["y"]]
    assert drawn
    assert all(any(Path(path).is_relative_to(out) for out in outs) for path in drawn)


def test_params_yaml_writes_every_section_down_and_is_read() -> None:
    text = (ROOT / "params.yaml").read_text()
    assert set(yaml.safe_load(text)) == set(Params.model_fields)
    assert CATALOG.params() == load_params(ROOT / "params.yaml") == Params.model_validate(yaml.safe_load(text))


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("")
    assert load_params(tmp_path / "empty.yaml") == Params()
    assert Params().recurrence == RecurrenceSettings(cron=None, interval_seconds=86400.0, evaluate=True)
    assert Params().unlearning.method in Params().capture.methods


@pytest.mark.parametrize("section", sorted({name for names in PARAMS.values() for name in names}))
def test_a_section_that_dvc_would_miss_is_named_before_anything_runs(section: str, tmp_path: Path) -> None:
    content = {name: 0 if name == "seed" else {} for name in Params.model_fields if name != section}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(SettingsError, match=rf"params\.yaml lacks {section}, .* `{section}: (0|{{}})`"):
        Catalog(tmp_path).params()
    remedy = {section: 0 if section == "seed" else {}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content | remedy))
    assert Catalog(tmp_path).params()
