"""Settled rows against a slow twin: one sample and one visit at a time in float64, equation (2) written out."""

import shutil
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from safetensors.torch import load, load_file
from torch import nn

from amnesiac.capture.attribution import rate_weights
from amnesiac.capture.blocks import offsets, to_dense
from amnesiac.capture.layers import Factors
from amnesiac.capture.spool import read_spool
from amnesiac.curvature import Choice, Kappa, Probe, damping, measure
from amnesiac.curvature.matrices import to_matrix
from amnesiac.curvature.thin import TOLERANCE
from amnesiac.errors import SettingsError, StoreError
from amnesiac.ledger import Run, SealedLedger, open_ledger, seal
from amnesiac.ledger.base import BASE
from amnesiac.ledger.protection import row_place
from amnesiac.ledger.settled_parts import settle_span
from amnesiac.ledger.settled_rows import SettledWriting, write_settled
from amnesiac.ledger.settling import Finish, Settling, Weights
from amnesiac.ledger.visits import StepWeights, visit_table
from amnesiac.models.files import load_weights
from amnesiac.progress import silent
from amnesiac.settings import (
    CaptureSettings,
    CurvatureSettings,
    OptimizerSettings,
    SettledSettings,
    UnlearningSettings,
)
from amnesiac.unlearning.unlearn import ledgers_for, unlearn

N, EPOCHS = 26, 4
FEW, WHOLE = Kappa(output=2.0, hidden=1.4), Kappa(output=0.5, hidden=4.0)
OPTIMIZERS = {
    "momentum": OptimizerSettings(lr=0.05, momentum=0.9, weight_decay=0.01),
    "adam": OptimizerSettings(name="adam", lr=0.01),
}
DENSE = SettledSettings(rows="dense", bits=32)
SPECS = ledgers_for(CaptureSettings(methods=("settled",)))


def factory():
    """A convolution, a norm layer and two linear maps, the first of them wide enough for outer products."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first = nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.Tanh(), nn.Flatten()
        return nn.Sequential(*first, nn.Linear(64, 12), nn.Tanh(), nn.Linear(12, 3))


@dataclass(frozen=True)
class Setup:
    """A trained run whose spool is still there, and what its rows are settled with."""

    run: object
    settling: Settling

    def spec(self, **changes):
        labels = self.run.data.labels.numpy()
        ids = [f"s{i}" for i in range(N)]
        values = {"initial": self.run.initial, "final": self.run.weights, "labels": labels, "settling": self.settling}
        return Run("run", {}, ids, ids, **(values | changes))

    def seal(self, folder, form=DENSE, **changes) -> SealedLedger:
        specs = ledgers_for(CaptureSettings(methods=("settled",), settled=form))
        seal(self.run.scratch / "spool", folder, self.spec(**changes), specs)
        return open_ledger(folder)


@pytest.fixture(scope="module", params=OPTIMIZERS)
def setup(request, small_run, small_data, tmp_path_factory):
    capture = CaptureSettings(methods=("settled",), curvature=CurvatureSettings(smallest_sample=20))
    data, optimizer = small_data(N), OPTIMIZERS[request.param]
    run = small_run(tmp_path_factory.mktemp("run"), factory, data, capture, optimizer=optimizer, epochs=EPOCHS)
    steps = -(-N // 8)
    snapshots = [load_weights(run.scratch / "snapshots" / f"epoch-{epoch}.safetensors") for epoch in range(EPOCHS)]
    probe = Probe(factory, snapshots, data.inputs, data.labels, 3, 20, 2048, 0)
    bounds = range(0, EPOCHS * steps + 1, steps)
    curvature = measure(run.scratch / "spool", probe, bounds, 0.5, optimizer.weight_decay)
    return Setup(run, Settling(curvature, Choice(FEW, 0.1, 0.1), Choice(WHOLE, 0.1, 0.1), 1.0))


@pytest.fixture(scope="module")
def twin(setup):
    """Rows `[samples, P]` of both forms, and the first in the eigenbasis, a list of layers."""
    with read_spool(setup.run.scratch / "spool") as spool:
        return _twin(spool, setup.settling.curvature, setup.run.data.labels.tolist())


def _twin(spool, curvature, labels):
    rates, blocks = rate_weights(spool.layout.rule, spool.steps), spool.layout.blocks
    rows = {form: [[] for _ in range(N)] for form in ("settled", "settled-class")}
    insides = [[] for _ in blocks]
    for sample in range(N):
        visits = [(int(step), int(slot)) for owner, step, slot in spool.index if owner == sample]
        assert len(visits) == EPOCHS
        for k, (block, place) in enumerate(zip(blocks, offsets(blocks), strict=True)):
            basis = curvature.layers[k].basis
            for form in rows:
                inside = torch.zeros(block.matrix or (block.numel,), dtype=torch.float64)
                for step, slot in visits:
                    share = spool.layout.decode(np.array(spool.visits[slot : slot + 1]))[:, place]
                    gradient = rates[step] * to_matrix(block, to_dense(block, share.double())[0])
                    segment = max(s for s in range(EPOCHS) if curvature.bounds[s] <= step)
                    left_out = labels[sample] if form == "settled-class" else None
                    own = basis.left.double().T @ gradient @ basis.right.double() if block.matrix else gradient
                    own = own if block.matrix else basis.root.double() * own
                    inside += weight(curvature, k, segment, left_out) * own
                if form == "settled":
                    insides[k].append(inside)
                if block.matrix:
                    whole = basis.left.double() @ inside @ basis.right.double().T
                    flat = torch.cat([whole[:, :-1].flatten(), whole[:, -1]]) if len(block.shapes) == 2 else whole
                else:
                    flat = basis.root.double() * inside
                rows[form][sample].append(flat.flatten())
    return {form: torch.stack([torch.cat(parts) for parts in own]) for form, own in rows.items()}, insides


def weight(curvature, k, segment, left_out):
    """W_s = pace_s (1 - exp(-z_s)) / z_s prod_{r > s} exp(-z_r), float64."""
    layer, kappa = curvature.layers[k], FEW if left_out is None else WHOLE
    factor = kappa.output if k == curvature.output_layer else kappa.hidden

    def z(s):
        value = layer.total[s].double()
        if left_out is not None:
            value = (value - layer.by_class[s, left_out].double()).clamp_min(0.0)
        return (factor * curvature.rates[s] * layer.pace[s] * value + curvature.decays[k][s]).clamp_min(1e-12)

    found = layer.pace[segment] * -torch.expm1(-z(segment)) / z(segment)
    for later in range(segment + 1, EPOCHS):
        found = found * torch.exp(-z(later))
    return found


def rows_of(ledger, name):
    totals = [ledger.total(name, [row]) for row in range(N)]
    return torch.stack([torch.cat([v.flatten() for v in total.values()]) for total in totals])


def errors(found, expected):
    """Relative error of each row."""
    return (found - expected).norm(dim=1) / expected.norm(dim=1)


@pytest.fixture(scope="module")
def dense(setup, tmp_path_factory):
    return setup.seal(tmp_path_factory.mktemp("dense") / "ledger")


@pytest.mark.parametrize("form", ["settled", "settled-class"])
def test_rows_are_the_twins(setup, twin, dense, form):
    assert float(errors(rows_of(dense, form), twin[0][form]).max()) < 1e-4
    other = twin[0]["settled-class" if form == "settled" else "settled"]
    assert float(errors(rows_of(dense, form), other).min()) > 0.01


def test_every_layer_is_the_twins_on_its_own(setup, twin, dense):
    """So that a small layer's mistakes don't hide behind a large one's numbers."""
    found, start = rows_of(dense, "settled"), 0
    for block in setup.settling.curvature.blocks:
        place = slice(start, start + block.numel)
        start += block.numel
        assert float(errors(found[:, place], twin[0]["settled"][:, place]).max()) < 1e-4, block.layer


def inside(setup, rank, wide):
    """Of both forms the layers' settled deltas in the eigenbasis, `[N, d_out, d_in]` or weights; rank None: whole."""
    curvature = setup.settling.curvature
    bases = tuple(layer.basis for layer in curvature.layers)
    blocks = [replace(b, rank=rank and b.matrix and min(rank, *b.matrix)) for b in curvature.blocks]
    finish = Finish(tuple(blocks) if rank else None, bases)
    with read_spool(setup.run.scratch / "spool") as spool:
        return writing(setup, spool, wide).rows(SPECS, np.arange(N), [finish] * 2)


def writing(setup, spool, wide):
    steps, labels = StepWeights(rate_weights(spool.layout.rule, spool.steps)), setup.run.data.labels.numpy()
    return SettledWriting(spool, visit_table(spool.index), steps, setup.settling, labels, Weights(setup.settling), wide)


def test_a_wide_models_rows_are_written_as_they_were_settled(setup, tmp_path):
    """Rank 10 of 12 and 16 bits: sums over all rows are those of whole deltas, within the tolerance of the weights."""
    sums, form = {}, SettledSettings(rank=10, class_rank=10, bits=16)
    specs = ledgers_for(CaptureSettings(methods=("settled",), settled=form))
    for wide in (0, 1 << 40):
        with read_spool(setup.run.scratch / "spool") as spool:
            folder = tmp_path / str(wide)
            own = writing(setup, spool, wide)
            place = row_place(folder, "run", None, own.table.samples)
            sums[wide] = write_settled(folder, place, specs, own, silent)
    for name, (entry, total) in sums[0].items():
        assert entry.rows == N
        whole = sums[1 << 40][name][1]
        assert 1e-7 < np.linalg.norm(total - whole) / np.linalg.norm(whole) < 3 * TOLERANCE


FORMS = {
    "low-rank": SettledSettings(),
    "exact": DENSE,
    "masked": SettledSettings(rows="masked", fraction=0.5, bits=16),
}


@pytest.mark.parametrize("form", FORMS)
def test_rows_settled_elsewhere_are_those_of_one_process_bit_for_bit(setup, tmp_path, monkeypatch, form):
    """From files alone, a few samples a span; `seal` writes the spans' rows in order."""
    monkeypatch.setattr("amnesiac.ledger.visits.CHUNK_BYTES", 1 << 16)
    spans = []

    def spread(folder, asked):
        spans.extend(asked)
        return [settle_span(folder, span) for span in asked]

    here = setup.seal(tmp_path / "1", FORMS[form])
    there = setup.seal(tmp_path / "2", FORMS[form], spread=spread)
    assert [span.start for span in spans] == [0, *(span.stop for span in spans[:-1])] and spans[-1].stop >= N
    assert len(spans) > 3 and len({span.stop - span.start for span in spans}) == 1
    for name in here.manifest.entries:
        assert here.manifest.entries[name] == there.manifest.entries[name], "with the hash of the array's content"
        for at, sums in there.total(name, range(N)).items():
            assert torch.equal(sums, here.total(name, range(N))[at])
    assert (tmp_path / "1" / BASE).read_bytes() == (tmp_path / "2" / BASE).read_bytes()


@pytest.mark.parametrize("form", [0, 1])
def test_a_wide_model_is_settled_without_whole_deltas(setup, form):
    """Within the tolerance of the weights' outer products (curvature/thin.py), here at full rank, of the whole ones;
    contributions aren't distributed exactly as it supposes, hence the factor of 3.
    """
    whole, found = inside(setup, None, 1 << 40)[form], inside(setup, 12, 0)[form]
    by_products = 0
    for block, captured, exact, own in zip(
        setup.settling.curvature.blocks, layout_blocks(setup), whole, found, strict=True
    ):
        if block.matrix is None or captured.rank is None:
            continue
        error = (own.dense() - exact).norm(dim=(1, 2)) / exact.norm(dim=(1, 2))
        assert float(error.max()) < 3 * TOLERANCE, block.layer
        by_products += float(error.max()) > 1e-6
    assert by_products  # the weights really were approximated


def layout_blocks(setup):
    with read_spool(setup.run.scratch / "spool") as spool:
        return spool.layout.blocks


def test_a_wide_models_rows_are_as_good_as_a_small_ones(setup):
    """Rank 2 of both: the same part of the whole deltas is kept."""
    whole, small, wide = inside(setup, None, 1 << 40), inside(setup, 2, 1 << 40), inside(setup, 2, 0)
    for exact, one, other in zip(whole[0], small[0], wide[0], strict=True):
        if isinstance(one, Factors):
            errors_of = [((own.dense() - exact).norm() / exact.norm()).item() for own in (one, other)]
            assert errors_of[1] < 1.05 * errors_of[0] + 0.01


@pytest.mark.parametrize(("bits", "rank"), [(8, 10), (16, 10), (16, 2)])
def test_low_rank_rows_are_close_to_the_twins(setup, twin, bits, rank, tmp_path):
    """Rank 10 of 12 loses next to nothing: what is left is rounding."""
    ledger = setup.seal(tmp_path / "ledger", SettledSettings(rank=rank, class_rank=rank, bits=bits))
    few = rank if rank == 2 else None  # the small layers are stored dense where that is smaller
    codec = ledger.manifest.entries["settled"].codec
    assert [block["rank"] for block in codec["blocks"]] == [few, None, rank, few]
    limit = {(8, 10): 0.03, (16, 10): 6e-3, (16, 2): 0.6}[bits, rank]
    for form in ("settled", "settled-class"):
        assert float(errors(rows_of(ledger, form), twin[0][form]).max()) < limit


def test_rows_for_whole_classes_have_a_rank_of_their_own(setup, twin, tmp_path):
    ledger = setup.seal(tmp_path / "ledger", SettledSettings(rank=4, class_rank=2))
    ranks = {name: entry.codec["blocks"][2]["rank"] for name, entry in ledger.manifest.entries.items()}
    assert ranks == {"settled": 4, "settled-class": 2}
    assert ledger.row_bytes("settled") > ledger.row_bytes("settled-class")
    assert float(errors(rows_of(ledger, "settled-class"), twin[0]["settled-class"]).max()) < 0.6


@pytest.mark.parametrize("bits", [8, 16])
def test_dense_integers_are_rounded_by_half_a_step_of_their_layer(setup, twin, dense, bits, tmp_path):
    found = rows_of(setup.seal(tmp_path / "ledger", SettledSettings(rows="dense", bits=bits)), "settled")
    exact, start = rows_of(dense, "settled"), 0
    for block in setup.settling.curvature.blocks:
        place = slice(start, start + block.numel)
        start += block.numel
        step = exact[:, place].abs().amax(1) / (2 ** (bits - 1) - 1)
        error = (found[:, place] - exact[:, place]).abs().amax(1)
        assert (error <= 1.001 * step).all()
        assert (error > 0.05 * step).any()


def test_masked_rows_keep_the_largest_coordinates(setup, twin, tmp_path):
    ledger = setup.seal(tmp_path / "ledger", SettledSettings(rows="masked", fraction=0.25, bits=16))
    kept = load_file(ledger.folder / ledger.manifest.entries["settled"].codec["file"])
    for k, block in enumerate(setup.settling.curvature.blocks):
        sizes = torch.stack(twin[1][k]).square().flatten(1).mean(0)
        own = kept[f"{k}.kept"]
        assert len(own) == max(1, int(0.25 * block.numel))
        left_out = np.setdiff1d(np.arange(block.numel), own.numpy())
        assert float(sizes[own].min()) > 0.999 * float(sizes[left_out].max())
    assert 1e-3 < float(errors(rows_of(ledger, "settled"), twin[0]["settled"]).mean()) < 0.6


def test_a_mask_of_everything_loses_nothing_but_rounding(setup, twin, tmp_path):
    ledger = setup.seal(tmp_path / "ledger", SettledSettings(rows="masked", fraction=1.0, bits=16))
    assert float(errors(rows_of(ledger, "settled"), twin[0]["settled"]).max()) < 2e-3


@pytest.mark.parametrize(
    "form", [DENSE, SettledSettings(), SettledSettings(rows="masked"), SettledSettings(rank=4, bits=16)]
)
def test_published_weights_come_back_from_the_base_and_the_surviving_rows(setup, form, tmp_path):
    """Invariant 4 of method.md §8, bit for bit, however the deletion was cut into batches."""
    ledger = setup.seal(tmp_path / "ledger", form)
    base, method = load(ledger.attachment(BASE)), UnlearningSettings(method="settled")
    first, second = [0, 7, 12], [3, 4, 25]
    one = unlearn(method, ledger, setup.run.weights, first)
    two = unlearn(method, ledger, setup.run.weights, second, before=first, master=one.master)
    for forget, found in ((first, one), (first + second, two)):
        surviving = ledger.total("settled", ledger.sample_rows([i for i in range(N) if i not in forget]))
        for name in surviving:
            assert torch.equal((base[name] - surviving[name]).float(), found.weights[name]), name
        assert not torch.equal(found.weights["4.weight"], setup.run.weights["4.weight"])


def test_a_class_comes_back_with_its_correction(setup, tmp_path):
    ledger = setup.seal(tmp_path / "ledger", SettledSettings())
    forget = [i for i in range(N) if i % 3 == 1]
    found = unlearn(UnlearningSettings(method="settled"), ledger, setup.run.weights, forget)
    surviving = ledger.total("settled", ledger.sample_rows([i for i in range(N) if i % 3 != 1]))
    base = load(ledger.attachment(BASE))
    for name, correction in found.correction.items():
        assert torch.equal((base[name] - surviving[name] + correction).float(), found.weights[name]), name


def test_sealing_twice_gives_the_same_bits(setup, tmp_path):
    one, two = (setup.seal(tmp_path / name, SettledSettings()).manifest for name in "ab")
    assert one == two


def altered(folder, tmp_path, change):
    """A copy of a spool with other numbers in its visits."""
    copy = shutil.copytree(folder, tmp_path / "spool")
    visits = np.fromfile(copy / "visits.bin", np.float32)
    change(visits).astype(np.float32).tofile(copy / "visits.bin")
    return copy


@pytest.mark.parametrize(
    "form", [DENSE, SettledSettings(), SettledSettings(rows="masked"), SettledSettings(rows="dense", bits=16)]
)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e9])
def test_a_diverged_run_is_not_sealed(setup, form, value, tmp_path):
    """Whatever the rows look like: sums of numbers that large aren't exact any more, and there are none of NaN."""

    def change(visits):
        visits[100:104] = value
        return visits

    spool = altered(setup.run.scratch / "spool", tmp_path, change)
    specs = ledgers_for(CaptureSettings(methods=("settled",), settled=form))
    with pytest.raises(StoreError, match=r"settled deltas are .*the run has diverged; lower the learning rate"):
        seal(spool, tmp_path / "ledger", setup.spec(), specs)
    assert not (tmp_path / "ledger").exists()


def test_class_rows_need_labels(setup, tmp_path):
    with pytest.raises(SettingsError, match=r"need labels: set capture\.settled\.class_rows to false"):
        setup.seal(tmp_path / "ledger", labels=None)
    ledger = setup.seal(tmp_path / "ledger", SettledSettings(rows="dense", bits=32, class_rows=False), labels=None)
    assert set(ledger.manifest.entries) == {"settled"}


def test_rows_of_captured_classes_only(small_run, small_data, tmp_path):
    """The others' rows don't exist; rows, base and deletion are about the captured ones."""
    capture = CaptureSettings(methods=("settled",), classes=(1,), curvature=CurvatureSettings(smallest_sample=20))
    run = small_run(tmp_path, factory, small_data(N), capture, epochs=2)
    ones = [i for i in range(N) if i % 3 == 1]
    assert run.manifest.entries["settled"].rows == len(ones)
    found = unlearn(UnlearningSettings(method="settled"), run.ledger, run.weights, ones[:2])
    surviving = run.ledger.total("settled", run.ledger.sample_rows(ones[2:]))
    base = load(run.ledger.attachment(BASE))
    for name in surviving:
        assert torch.equal((base[name] - surviving[name]).float(), found.weights[name]), name


def test_a_run_whose_weights_are_not_finite_is_not_measured(small_run, small_data, tmp_path):
    capture, data = CaptureSettings(methods=("settled",)), small_data(N)
    with pytest.raises(StoreError, match="diverged: its weights are not finite; lower the learning rate"):
        small_run(tmp_path, factory, data, capture, optimizer=OptimizerSettings(lr=1e30))
    assert not (tmp_path / "ledger").exists()


def test_layers_too_wide_for_eigenvalues_by_class_have_the_same_weights_for_all_classes(setup):
    known = setup.settling.curvature
    wide = replace(known, layers=tuple(replace(layer, by_class=None) for layer in known.layers))
    weights = Weights(replace(setup.settling, curvature=wide))
    assert weights.of(0, 1) is weights.of(0, 2)
    assert torch.equal(weights.of(0, 1), damping(wide, 0, WHOLE))
    assert torch.equal(weights.of(0, None), damping(wide, 0, FEW))
    assert not torch.equal(Weights(setup.settling).of(0, 1), weights.of(0, 1))
