"""`training.precision`: a whole run under autocast, sealed, settled, deleted from."""

from functools import partial

import pytest
import torch
from torch import nn

from amnesiac.capture.spool import read_spool
from amnesiac.ledger.sealed import open_ledger
from amnesiac.ledger.visits import dense_rows, optimizer_weights, visit_table
from amnesiac.settings import CaptureSettings, CurvatureSettings, TrainingSettings, UnlearningSettings
from amnesiac.training import CapturePlan, retrain_without, train_with_capture
from amnesiac.unlearning import unlearn
from amnesiac.unlearning.unlearn import ledgers_for

TOLERANCE = 0.01
"""As in tests/capture/test_precision.py: relative to the way that the weights went."""
KINDS = {
    "mlp": lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 3)),
    "cnn": lambda: nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)
    ),
}  # fmt: skip


def built(kind):
    torch.manual_seed(3)
    return KINDS[kind]()


@pytest.fixture(params=sorted(KINDS))
def kind(request):
    return request.param


def trained(spec_of, folder, data, kind, **training):
    capture = CaptureSettings(
        methods=("settled", "per-sample-delta"), curvature=CurvatureSettings(smallest_sample=16, segments=2)
    )
    ids = [f"s{i}" for i in range(len(data.labels))]
    plan = CapturePlan(capture, ledgers_for(capture), ids, ids, folder / "ledger", folder / "scratch")
    spec = spec_of(**training)
    return spec, train_with_capture(spec, partial(built, kind), data, plan)[0]


def test_a_run_in_bfloat16_adds_up_and_is_deleted_from(spec_of, small_data, tmp_path, kind):
    data, found = small_data(40), {}
    for precision in ("float32", "bfloat16"):
        folder = tmp_path / precision
        spec, result = trained(spec_of, folder, data, kind, precision=precision, batch_size=8)
        names = [name for name, _ in built(kind).named_parameters()]
        way = torch.cat([(result.weights[k] - result.initial[k]).flatten() for k in names])
        with read_spool(folder / "scratch" / "spool") as spool:
            table = visit_table(spool.index)
            rows = torch.cat(dense_rows(spool, table, optimizer_weights(spool), slice(0, len(data.labels))), 1)
        assert float((way + rows.sum(0)).norm()) < TOLERANCE * float(way.norm())
        ledger = open_ledger(folder / "ledger")
        for method in ("settled", "per-sample-delta"):
            left = unlearn(UnlearningSettings(method=method), ledger, result.weights, [1, 5, 20]).weights
            assert all(bool(left[k].isfinite().all()) and left[k].dtype == torch.float32 for k in names)
            found[precision, method] = torch.cat([(left[k] - result.weights[k]).flatten() for k in names])
        again = retrain_without(spec, partial(built, kind), data, [])
        found[precision] = torch.cat([again.weights[k].flatten() for k in names])
        end = torch.cat([result.weights[k].flatten() for k in names])
        assert float((found[precision] - end).norm()) < 1e-4 * float(way.norm())  # trained in the same precision
    assert not torch.equal(found["float32"], found["bfloat16"])  # the setting does something, also to retraining
    for method in ("settled", "per-sample-delta"):
        low, full = found["bfloat16", method], found["float32", method]
        assert float((low - full).norm()) < 0.1 * float(full.norm())


def test_runs_in_float32_keep_their_id():
    assert "precision" not in TrainingSettings().facts()
    assert TrainingSettings(precision="bfloat16").facts()["precision"] == "bfloat16"
    with pytest.raises(ValueError, match="bfloat16"):
        TrainingSettings(precision="float16")
