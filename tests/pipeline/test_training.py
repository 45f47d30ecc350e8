"""`amnesiac train`: killed and resumed, and with a model of the user's own."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pandas as pd
import pytest

from tests.pipeline.conftest import Cycled
from tests.pipeline.project import Done, Project, finish, kill

MARK = 0.123456
MY_MODEL = """
import math
from torch import nn

def build(input_shape, num_classes, width=4):
    inputs = math.prod(input_shape)
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, num_classes))
"""


def kill_after_an_epoch(project: Project) -> None:
    """Start a training run and kill it, without a word, once its first checkpoint stands."""
    checkpoint = project.data / "scratch/checkpoint.json"
    training = project.amnesiac("train").start()
    try:
        deadline = time.monotonic() + 300
        while not checkpoint.exists():
            assert training.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        kill(training)


@pytest.fixture(scope="module")
def projects(cycled: Cycled, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Project]:
    folder = tmp_path_factory.mktemp("training")
    found = {name: cycled.project.copy(folder / name, cycled.project.server) for name in ("killed", "whole", "own")}
    for name in ("killed", "whole"):
        found[name].edit("epochs: 2,", "epochs: 25,")
    (found["own"].root / "my_model.py").write_text(MY_MODEL)
    found["own"].edit("{factory: mlp, options: {hidden: [16]}}", '{factory: "my_model:build", options: {width: 5}}')
    return found


@pytest.fixture(scope="module")
def own(projects: dict[str, Project]) -> Iterator[Future[list[Done]]]:
    """Training of the user's own model, meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(finish, projects["own"].amnesiac("train", "--json"))


def test_a_killed_run_goes_on_where_it_was_and_ends_with_the_same_bits(
    projects: dict[str, Project], own: Future[list[Done]]
) -> None:
    killed, whole = projects["killed"], projects["whole"]
    old = killed.weights()
    kill_after_an_epoch(killed)
    assert killed.weights() == old, "a run that isn't over replaces nothing"
    checkpoint = killed.data / "scratch/checkpoint.json"
    state = json.loads(checkpoint.read_text())
    assert 1 <= state["epochs"] < 25
    state["history"][0]["accuracy"] = MARK  # decides nothing; shows that the first epoch wasn't trained again
    checkpoint.write_text(json.dumps(state))

    resumed, uninterrupted = finish(killed.amnesiac("train", "--resume", "--json"), whole.amnesiac("train", "--json"))
    assert resumed.json() == uninterrupted.json()
    assert resumed.json()["summary"]["epochs"] == 25
    assert killed.weights()["model/model.safetensors"] == whole.weights()["model/model.safetensors"]
    assert killed.weights()["model/model.safetensors"] != old["model/model.safetensors"]
    assert pd.read_csv(killed.data / "model/history.csv")["accuracy"][0] == MARK
    assert not (killed.data / "scratch").exists()


def test_a_model_of_the_users_own_is_found_in_the_projects_folder(own: Future[list[Done]]) -> None:
    [trained] = own.result()
    assert trained.json()["summary"]["parameters"] == 28 * 28 * 5 + 5 + 5 * 10 + 10
