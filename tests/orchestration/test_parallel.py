"""Members and retrainings on Dask's processes: the files are those of this process, bit for bit."""

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import torch
from prefect import flow, task
from prefect.task_runners import ThreadPoolTaskRunner

from amnesiac.auditing import draw_sets, ensemble_members, keep_member
from amnesiac.errors import AmnesiacError, SettingsError, StoreError
from amnesiac.ledger import SealedLedger, open_ledger
from amnesiac.operation import OrchestrationSettings
from amnesiac.settings import Params
from amnesiac.training.loop import threads
from flows.prepare import prepare
from tasks.catalog import Catalog, catalog
from tasks.ensembles import AuditPlan, ensembles, load_setup, plan_ensembles, train_members
from tasks.locking import WriterBusy, single_writer
from tasks.parallel import ConfiguredTaskRunner, at_once, dask_runner, in_order, on_dask, shared_files
from tasks.stages import writing
from tasks.training import reference_paths, retrained_references, train_original

FORGET = (3, 11, 30)
PLAN = AuditPlan(models=4, sets=("mislabelled",), share=0.1)
SETTINGS = {
    "seed": 0,
    "data": {"source": "mnist-5k", "limit": 60},
    "model": {"factory": "mlp", "options": {"hidden": [8]}},
    "training": {"epochs": 2, "batch_size": 16, "optimizer": {"lr": 0.1, "momentum": 0.9}},
    "capture": {"methods": ["per-sample-delta", "settled"], "curvature": {"smallest_sample": 20}},
    "unlearning": {"method": "per-sample-delta"},
    "evaluation": {"other_seeds": 2},
    "orchestration": {"task_runner": "dask", "workers": 2},
}


@pytest.fixture(scope="module")
def project(api_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Prepared (encrypted) data, nothing trained; runs on Dask."""
    root = tmp_path_factory.mktemp("parallel")
    (root / "params.yaml").write_text(json.dumps(SETTINGS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AMNESIAC_PROJECT", str(root))
        patch.setenv("DVC_STAGE", "prepare")  # as DVC runs it: nothing is recorded
        prepare()
        patch.delenv("DVC_STAGE")
        yield root


@flow(task_runner=ConfiguredTaskRunner(max_workers=4), persist_result=False)
def parallel_work() -> tuple[int, list[str]]:
    """Under the project's lock, as the flows of the pipeline: a worker that took it too would wait for ever."""
    with writing("test"), ensembles(PLAN):
        train_original(resume=False)
        trained = train_members(PLAN, plan_ensembles(PLAN, []))
        with pytest.raises(WriterBusy), single_writer(catalog().scratch.parent):
            pass
        return os.getpid(), [*trained, *(path.name for path in retrained_references(FORGET))]


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.safetensors")}


def test_what_dask_trains_is_what_this_process_trains_bit_for_bit(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert on_dask()
    monkeypatch.setattr("amnesiac.ledger.visits.CHUNK_BYTES", 1 << 19)  # several spans of rows to settle
    _, labels = parallel_work()
    at, setup = catalog(), load_setup(str(project))
    members = ensemble_members(setup, draw_sets(setup, PLAN.sets, PLAN.share, None), PLAN.models)
    assert labels == [*(one.label for one in members), *(path.name for path in reference_paths(FORGET))]
    with threads(setup.training.threads):
        for member in members:
            keep_member(tmp_path / "members", setup, member, tmp_path / "scratch")
    assert hashes(at.ensembles) == hashes(tmp_path / "members") and len(members) == 12
    on_dasks, settled = hashes(at.retrained), open_ledger(at.ledger, keys=at.key_store())
    for path in reference_paths(FORGET):
        path.unlink()
    other = SETTINGS | {"orchestration": {}}
    (project / "params.yaml").write_text(json.dumps(other))
    try:
        retrained_references(FORGET)
        train_original(resume=False)
    finally:
        (project / "params.yaml").write_text(json.dumps(SETTINGS))
    assert hashes(at.retrained) == on_dasks and len(set(on_dasks.values())) == 3
    assert_same_rows(settled, open_ledger(at.ledger, keys=at.key_store()))
    assert not list((at.scratch / "audit").glob("*")) and not list(at.ensembles.glob(".*"))
    left = [path for path in (project / ".prefect/dask").rglob("*") if path.is_file()]
    assert not [path for path in left if path.suffix not in (".lock", ".dirlock")], "nothing is spilled to disk"
    assert_no_id_reached_prefect(at)


def assert_same_rows(dasks: SealedLedger, own: SealedLedger) -> None:
    """Rows are encrypted anew, so it's what they say that is compared."""
    assert dasks.manifest.final_sha256 == own.manifest.final_sha256
    assert dasks.manifest.attachments == own.manifest.attachments, "the base: what is left without anyone's rows"
    for name in own.manifest.entries:
        for row in range(len(own)):
            for values, others in zip(dasks.total(name, [row]).values(), own.total(name, [row]).values(), strict=True):
                assert torch.equal(values, others)


def assert_no_id_reached_prefect(at: Catalog) -> None:
    ids = {id.encode() for split in ("train", "test") for id in at.dataset().split(split).sample_ids}
    with closing(sqlite3.connect(Path(os.environ["PREFECT_HOME"]) / "prefect.db")) as database:
        held = "\n".join(database.iterdump()).encode()
    assert b"retrain with another seed" in held and b"settle rows 0 to" in held, "these runs are in that database"
    assert not [one for one in ids if one in held]


def test_a_failing_task_fails_the_work_after_the_others_have_ended(api_url: str) -> None:
    ended = []

    @task
    def work(number: int) -> int:
        if number == 0:
            raise AmnesiacError("on purpose")
        ended.append(number)
        return number

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=2))
    def several(first: int) -> list[int]:
        return at_once([(work, (k,)) for k in range(first, 4)], lambda: ended.append(-1))

    assert several(1) == [1, 2, 3] and ended.count(-1) == 3
    ended.clear()
    with pytest.raises(AmnesiacError, match="on purpose"):
        several(0)
    assert sorted(ended) == [-1] * 4 + [1, 2, 3]


def test_results_come_in_order_and_few_wait_at_a_time(api_url: str) -> None:
    begun, ended = [], []

    @task
    def work(number: int) -> int:
        begun.append(number)
        if number == 4:
            raise AmnesiacError("on purpose")
        ended.append(number)
        return number

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=3))
    def several(last: int) -> list[int]:
        found = []
        for number in in_order([(work, (k,)) for k in range(last)], 2):
            assert max(begun) <= number + 2, "the third waits until the first is taken"
            found.append(number)
        return found

    assert several(4) == [0, 1, 2, 3]
    begun.clear()
    ended.clear()
    with pytest.raises(AmnesiacError, match="on purpose"):
        several(9)
    assert sorted(ended) in ([0, 1, 2, 3], [0, 1, 2, 3, 5]), "what was submitted has ended, nothing else was begun"


def test_the_settings_choose_the_runner() -> None:
    assert Params().orchestration == OrchestrationSettings(task_runner="threads")
    standing = dask_runner(OrchestrationSettings(task_runner="dask", address="tcp://10.0.0.5:8786"))
    assert standing.address == "tcp://10.0.0.5:8786" and not standing.cluster_kwargs
    with pytest.raises(ValueError, match=r"orchestration\.address is for task_runner dask"):
        OrchestrationSettings(address="tcp://10.0.0.5:8786")


def test_without_settings_threads_run_and_the_run_itself_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMNESIAC_PROJECT", str(tmp_path))
    assert isinstance(ConfiguredTaskRunner(max_workers=3).duplicate(), ThreadPoolTaskRunner)


def test_a_cluster_that_does_not_share_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    assert shared_files([tmp_path / "there"]) == (tmp_path / "there",)
    with pytest.raises(StoreError, match="missing isn't there, though its task has ended: Dask's workers must see"):
        shared_files([tmp_path / "there", tmp_path / "missing"])


def test_dask_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "params.yaml").write_text(json.dumps(SETTINGS))
    monkeypatch.setenv("AMNESIAC_PROJECT", str(tmp_path))
    monkeypatch.setitem(__import__("sys").modules, "prefect_dask.task_runners", None)
    with pytest.raises(SettingsError, match=r"isn't installed: pip install 'amnesiac\[dask\]'"):
        dask_runner(OrchestrationSettings(task_runner="dask"))
