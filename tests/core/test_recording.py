"""Capture in a loop of the user's own: what README.md shows, with everything a loop tends to have."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from amnesiac.errors import (
    IncompleteStore,
    KeyDestroyed,
    SettingsError,
    UnsealedStore,
    UnsupportedModel,
    UnsupportedOptimizer,
)
from amnesiac.hashing import hash_tensors
from amnesiac.keys import LocalKeyStore, sample_name
from amnesiac.ledger.sealed import open_ledger
from amnesiac.recording import record
from amnesiac.settings import CaptureSettings, UnlearningSettings
from amnesiac.unlearning.unlearn import unlearn

N, IDS = 20, [f"s{i}" for i in range(20)]


class Net(nn.Module):
    """A model of the user's own, with statistics over the mini-batch and in-place activations."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(1, 4, 3, bias=False)
        self.batch_norm = nn.BatchNorm2d(4)
        self.hidden = nn.Linear(64, 10)
        self.layer_norm = nn.LayerNorm(10)
        self.out = nn.Linear(10, 3)

    def forward(self, x):
        x = F.relu_(self.batch_norm(self.convolution(x)))
        return self.out(torch.tanh(self.layer_norm(self.hidden(x.flatten(1)))))


@pytest.fixture
def dataset():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(N) % 3
    inputs = torch.randn(N, 1, 6, 6, generator=generator) + labels[:, None, None, None]
    return TensorDataset(inputs, labels, torch.arange(N))


@pytest.fixture
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net()


def train(model, optimizer, dataset, ledger, epochs=2, **options):
    """Gradient accumulation of two mini-batches, a scheduler, clipping, and the last mini-batches smaller."""
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
    loader = DataLoader(dataset, batch_size=6, shuffle=True, generator=torch.Generator().manual_seed(0))
    with record(model, optimizer, ledger, sample_ids=IDS, **options) as recorder:
        for _ in range(epochs):
            for k, (inputs, labels, rows) in enumerate(loader):
                with recorder.batch(rows):
                    loss = F.cross_entropy(model(inputs), labels, reduction="sum") / 12
                    loss.backward()
                if k % 2:
                    nn.utils.clip_grad_norm_(model.parameters(), 0.5)
                    optimizer.step()
                    optimizer.zero_grad()
                    scheduler.step()


def sgd(model, **options):
    return torch.optim.SGD(model.parameters(), **{"lr": 0.1, "momentum": 0.9} | options)


@pytest.mark.parametrize("make", [sgd, lambda m: torch.optim.Adam(m.parameters(), lr=0.01)])
def test_a_loop_of_ones_own(make, model, dataset, tmp_path):
    before = {k: v.clone() for k, v in model.named_parameters()}
    subjects = [f"person-{i // 4}" for i in range(N)]
    train(model, make(model), dataset, tmp_path / "run.ledger", subject_ids=subjects, expected_visits=2)
    assert [p.name for p in tmp_path.iterdir()] == ["run.ledger"]
    weights = model.state_dict()
    ledger = open_ledger(tmp_path / "run.ledger", weights_sha256=hash_tensors(weights))
    assert ledger.manifest.visits["steps"] == 4
    assert ledger.manifest.residual["delta"] < 1e-5
    assert ledger.samples["sample_id"].tolist() == IDS
    assert ledger.samples["subject_id"].tolist() == subjects
    assert set(ledger.samples["visits"]) == {2}
    ledger.check_rows("delta")
    everything = unlearn(UnlearningSettings(), ledger, weights, range(N)).weights
    for name, value in before.items():
        torch.testing.assert_close(everything[name], value, rtol=0, atol=1e-5)
    one = unlearn(UnlearningSettings(), ledger, weights, ledger.positions(["s7"])).weights
    moved = float((one["out.weight"] - weights["out.weight"]).norm())
    assert 0 < moved < float((everything["out.weight"] - weights["out.weight"]).norm())
    assert torch.equal(one["batch_norm.running_mean"], weights["batch_norm.running_mean"])


def test_recording_changes_nothing(model, dataset, tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = Net()
    train(model, sgd(model), dataset, tmp_path / "run.ledger")
    optimizer = sgd(plain)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
    loader = DataLoader(dataset, batch_size=6, shuffle=True, generator=torch.Generator().manual_seed(0))
    for _ in range(2):
        for k, (inputs, labels, _rows) in enumerate(loader):
            (F.cross_entropy(plain(inputs), labels, reduction="sum") / 12).backward()
            if k % 2:
                nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
                optimizer.step()
                optimizer.zero_grad()
                scheduler.step()
    for name, value in plain.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


def test_every_method_can_be_captured(model, dataset, tmp_path):
    methods = ("per-sample-delta", "per-sample-subset", "amnesiac-batch", "layerwise-partial")
    before = {k: v.clone() for k, v in model.named_parameters()}
    train(model, sgd(model), dataset, str(tmp_path / "run.ledger"), capture=CaptureSettings(methods=methods))
    ledger = open_ledger(tmp_path / "run.ledger")
    assert set(ledger.manifest.entries) == {"delta", "subset-one", "subset-lr", "updates", "updates-partial"}
    undone = unlearn(UnlearningSettings(method="amnesiac-batch"), ledger, model.state_dict(), range(N))
    for name, value in before.items():
        torch.testing.assert_close(undone.weights[name], value, rtol=0, atol=1e-6)


def test_hooks_go_and_those_of_the_user_stay(model, dataset, tmp_path):
    seen = []
    model.out.register_forward_hook(lambda *_: seen.append("forward"))
    optimizer = sgd(model)
    optimizer.register_step_post_hook(lambda *_: seen.append("step"))
    train(model, optimizer, dataset, tmp_path / "run.ledger", epochs=1)
    assert seen.count("forward") == 4
    assert seen.count("step") == 2
    assert sum(len(layer._forward_hooks) for layer in model.modules()) == 1
    assert len(optimizer._optimizer_step_post_hooks) == 1
    assert len(optimizer._optimizer_step_pre_hooks) == 0
    optimizer.step()


def test_an_error_inside_leaves_no_ledger_and_no_hooks(model, dataset, tmp_path):
    optimizer = sgd(model)
    with (
        pytest.raises(RuntimeError, match="of my own"),
        record(model, optimizer, tmp_path / "run.ledger", sample_ids=IDS) as recorder,
    ):
        inputs, labels, rows = dataset[:6]
        with recorder.batch(rows):
            F.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
        raise RuntimeError("of my own")
    assert list(tmp_path.iterdir()) == []
    assert not any(layer._forward_hooks for layer in model.modules())
    assert not optimizer._optimizer_step_pre_hooks


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_an_error_inside_keeps_an_existing_ledger_and_success_replaces_it(model, dataset, tmp_path):
    train(model, sgd(model), dataset, tmp_path / "run.ledger")
    before = contents(tmp_path)
    with (
        pytest.raises(KeyboardInterrupt),
        record(model, sgd(model), tmp_path / "run.ledger", sample_ids=IDS),
    ):
        raise KeyboardInterrupt
    assert contents(tmp_path) == before
    train(model, sgd(model), dataset, tmp_path / "run.ledger")
    assert open_ledger(tmp_path / "run.ledger", weights_sha256=hash_tensors(model.state_dict()))
    assert contents(tmp_path) != before


def test_a_spool_that_a_killed_run_left_is_not_taken_over(model, dataset, tmp_path):
    spool = tmp_path / ".run.ledger.spool"
    spool.mkdir()
    (spool / "visits.idx").write_bytes(b"\0" * 24)
    train(model, sgd(model), dataset, tmp_path / "run.ledger", expected_visits=2)
    assert not spool.exists()


def test_a_refused_model_or_optimizer_leaves_nothing(model, tmp_path):
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    with pytest.raises(UnsupportedModel, match="shared"), record(tied, sgd(tied), tmp_path / "a", sample_ids=IDS):
        pytest.fail("the block was entered")
    rmsprop = torch.optim.RMSprop(model.parameters())
    with pytest.raises(UnsupportedOptimizer), record(model, rmsprop, tmp_path / "a", sample_ids=IDS):
        pytest.fail("the block was entered")
    assert list(tmp_path.iterdir()) == []


def test_a_layer_that_can_not_be_captured_is_refused_before_a_step(tmp_path):
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.spare = nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, x):
            return self.used(x)

    model = Unused()
    before = hash_tensors(model.state_dict())
    with (
        pytest.raises(UnsupportedModel, match="'spare'"),
        record(model, sgd(model), tmp_path / "a", sample_ids=["a", "b"]) as recorder,
    ):
        with recorder.batch([0, 1]):
            model(torch.ones(2, 4)).sum().backward()
        pytest.fail("went on")
    assert hash_tensors(model.state_dict()) == before
    assert list(tmp_path.iterdir()) == []


def test_missing_visits_are_noticed_where_they_are_expected(model, dataset, tmp_path):
    with pytest.raises(IncompleteStore, match="20 samples don't have the 3 visits"):
        train(model, sgd(model), dataset, tmp_path / "run.ledger", expected_visits=3)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_block_is_no_ledger(model, tmp_path):
    with (
        pytest.raises(UnsealedStore, match="no captured mini-batch"),
        record(model, sgd(model), tmp_path / "run.ledger", sample_ids=IDS),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_classes_can_not_be_chosen_here(model, tmp_path):
    capture = CaptureSettings(classes=(1,))
    with (
        pytest.raises(SettingsError, match=r"capture\.classes needs labels"),
        record(model, sgd(model), tmp_path / "a", sample_ids=IDS, capture=capture),
    ):
        pytest.fail("the block was entered")


def test_with_keys_rows_and_ids_are_encrypted_and_forgetting_is_the_same(model, dataset, tmp_path):
    twin, subjects = copy.deepcopy(model), [f"person-{i // 4}" for i in range(N)]
    keys = LocalKeyStore(tmp_path / "keys", create=True)
    train(model, sgd(model), dataset, tmp_path / "sealed", subject_ids=subjects, keys=keys)
    train(twin, sgd(twin), dataset, tmp_path / "clear", subject_ids=subjects)
    files = [path.read_bytes() for path in (tmp_path / "sealed").rglob("*") if path.is_file()]
    assert not any(b"person-" in content for content in files)
    sealed, clear = open_ledger(tmp_path / "sealed", keys=keys), open_ledger(tmp_path / "clear")
    assert sealed.samples["subject_id"].tolist() == subjects
    found = [unlearn(UnlearningSettings(), ledger, model.state_dict(), [1, 7]).master for ledger in (sealed, clear)]
    assert hash_tensors(found[0]) == hash_tensors(found[1]) != hash_tensors(model.state_dict())
    keys.destroy(keys.find([sample_name(IDS[7])]))
    with pytest.raises(KeyDestroyed):
        unlearn(UnlearningSettings(), sealed, model.state_dict(), [1, 7])
    assert unlearn(UnlearningSettings(), sealed, model.state_dict(), [1, 8]).rows == 2
