"""What each peer does to weights and predictions, on a small model; and what all of them promise."""

import dataclasses
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from amnesiac.errors import InputError
from amnesiac.evaluation import kl
from amnesiac.settings import TrainingSettings
from amnesiac.training import RunSpec
from amnesiac.unlearning.peers import PEERS, diagonal_fisher
from amnesiac.unlearning.peers.random_labels import drawn
from amnesiac.unlearning.peers.salun import KEPT, salient

FORGET_ONLY = {"gradient-ascent", "ssd", "influence"}
TRAINING = [
    "gradient-ascent",
    "fine-tune",
    "neggrad-plus",
    "random-labels",
    "salun",
    "scrub",
    "bad-teacher",
    "l1-sparse",
]


def middle(name):
    strengths = PEERS[name].strengths
    return strengths[len(strengths) // 2] if strengths else 1.0


def logits(start, weights, rows=None):
    model = start.factory().eval()
    model.load_state_dict(weights)
    inputs = start.data.inputs if rows is None else start.data.inputs[list(rows)]
    return model(inputs).detach()


def loss(start, weights, rows):
    return float(F.cross_entropy(logits(start, weights, rows), start.data.labels[list(rows)]))


def stay(start):
    return [row for row in range(len(start.data.labels)) if row not in start.forget]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def size(weights):
    return sum(float(value.abs().sum()) for value in weights.values())


def test_the_methods_of_the_issue_are_there_with_equal_budgets():
    assert set(PEERS) == {*TRAINING, "ssd", "influence", "r2d", "retrained"}
    assert {name for name, peer in PEERS.items() if not peer.uses_retain_data} == FORGET_ONLY
    assert {len(peer.strengths) for name, peer in PEERS.items() if name != "retrained"} == {5}
    for peer in PEERS.values():
        assert list(peer.strengths) == sorted(set(peer.strengths)) and peer.meaning and peer.summary
        assert "arXiv" in peer.paper


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("kind", ["start", "conv_start"])
def test_it_changes_the_weights_says_the_same_twice_and_leaves_the_start_alone(name, kind, request):
    start = request.getfixturevalue(kind)
    before = {key: value.clone() for key, value in start.original.items()}
    found = PEERS[name].run(start, middle(name) if name != "ssd" else 0.5)
    assert same(PEERS[name].run(start, middle(name) if name != "ssd" else 0.5), found)
    assert not same(found, before) and same(start.original, before)
    assert all(value.isfinite().all() and value.dtype == before[key].dtype for key, value in found.items())


@pytest.mark.parametrize("name", PEERS)
def test_nothing_to_forget_leaves_every_bit(name, start, changed):
    found = PEERS[name].run(changed(forget=()), middle(name))
    assert same(found, start.original)
    assert all(found[key].data_ptr() != value.data_ptr() for key, value in start.original.items()), "a copy"


@pytest.mark.parametrize("name", TRAINING)
def test_another_seed_draws_otherwise_and_a_greater_strength_goes_further(name, start, changed):
    peer = PEERS[name]
    if name != "gradient-ascent":  # six samples are one mini-batch, in any order
        assert not same(peer.run(start, middle(name)), peer.run(changed(seed=3), middle(name)))
    way = [sum(float((peer.run(start, s)[k] - v).square().sum()) for k, v in start.original.items())
           for s in (peer.strengths[0], peer.strengths[-1])]  # fmt: skip
    assert way[0] < way[1] or name == "l1-sparse", "whose penalties barely matter to so small a model"


@pytest.mark.parametrize("strength", [0.0, -1.0, float("nan"), float("inf")])
def test_a_strength_is_a_positive_number(strength, start):
    with pytest.raises(InputError, match=r"fine-tune: strength .* isn't a positive number: learning rate"):
        PEERS["fine-tune"].run(start, strength)


@pytest.mark.parametrize(
    ("forget", "message"),
    [((1, 60), "names position 60, and the split has 60 samples"), ((-1,), "names position -1"), ((4, 4), "one twice")],
)
def test_a_forget_set_that_cannot_be_is_refused(forget, message, changed):
    with pytest.raises(InputError, match=message):
        PEERS["ssd"].run(changed(forget=forget), 1.0)


@pytest.mark.parametrize(
    ("name", "lacks", "value"),
    [("r2d", "checkpoints", {}), ("influence", "curvature", None), ("ssd", "importances", None)],
)
def test_what_was_not_kept_is_named(name, lacks, value, changed):
    with pytest.raises(InputError, match=f"{name} needs {lacks}, and the start has none: keep them in training"):
        PEERS[name].run(changed(**{lacks: value}), 1.0)


def test_fine_tuning_lowers_the_retained_loss_and_never_sees_the_forget_set(start, changed):
    found = PEERS["fine-tune"].run(start, 0.1)
    assert loss(start, found, stay(start)) < loss(start, start.original, stay(start))
    assert same(PEERS["fine-tune"].run(changed(data=spoilt(start)), 0.1), found)


def spoilt(start):
    """The data with the forget set's inputs replaced."""
    inputs = start.data.inputs.clone()
    inputs[list(start.forget)] = 1e6
    return dataclasses.replace(start.data, inputs=inputs)


@pytest.mark.parametrize("name", ["l1-sparse", "r2d", "retrained"])
def test_methods_that_use_no_forget_data_do_not_read_it(name, start, changed):
    assert "forget data" not in PEERS[name].uses
    assert same(PEERS[name].run(changed(data=spoilt(start)), middle(name)), PEERS[name].run(start, middle(name)))


@pytest.mark.parametrize("name", sorted(FORGET_ONLY))
def test_methods_that_use_no_retained_data_do_not_read_it(name, start, changed):
    inputs = torch.full_like(start.data.inputs, 1e6)
    inputs[list(start.forget)] = start.data.inputs[list(start.forget)]
    found = PEERS[name].run(changed(data=dataclasses.replace(start.data, inputs=inputs)), middle(name))
    assert same(found, PEERS[name].run(start, middle(name)))


@pytest.mark.parametrize("name", ["gradient-ascent", "neggrad-plus", "scrub", "random-labels", "salun", "influence"])
def test_the_forget_set_is_less_probable_afterwards(name, start):
    strengths = PEERS[name].strengths
    found = PEERS[name].run(start, strengths[0] if name == "influence" else strengths[-1])
    assert loss(start, found, start.forget) > loss(start, start.original, start.forget)


def test_gradient_ascent_climbs_more_with_each_strength(start):
    found = [loss(start, PEERS["gradient-ascent"].run(start, s), start.forget) for s in (0.03, 0.1, 0.3)]
    assert loss(start, start.original, start.forget) < found[0] < found[1] < found[2]


def test_neg_grad_plus_holds_the_retained_loss_where_ascent_does_not(start):
    ascent, both = PEERS["gradient-ascent"].run(start, 1.0), PEERS["neggrad-plus"].run(start, 0.1)
    assert loss(start, both, stay(start)) < 0.5 * loss(start, ascent, stay(start))


def test_random_labels_are_other_labels_of_the_forget_set_alone(start):
    labels, forget = drawn(start, 0), list(start.forget)
    assert (labels[forget] != start.data.labels[forget]).all() and labels.min() >= 0 and labels.max() <= 2
    assert torch.equal(labels[stay(start)], start.data.labels[stay(start)])
    assert not torch.equal(drawn(start, 1), labels), "drawn anew each epoch"


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_salun_changes_the_salient_half_of_the_weights_only(decay, start, changed):
    optimizer = start.spec.training.optimizer.model_copy(update={"weight_decay": decay})
    training = start.spec.training.model_copy(update={"optimizer": optimizer})
    own = changed(spec=dataclasses.replace(start.spec, training=training))
    mask, found = salient(own), PEERS["salun"].run(own, 1.0)
    assert sum(int(m.sum()) for m in mask.values()) == round(KEPT * sum(m.numel() for m in mask.values()))
    for name, chosen in mask.items():
        assert torch.equal(found[name][~chosen], start.original[name][~chosen])
    assert any(not torch.equal(found[name][chosen], start.original[name][chosen]) for name, chosen in mask.items())


def test_the_salient_weights_have_the_largest_gradients(start):
    model = start.factory().eval()
    model.load_state_dict(start.original)
    rows = list(start.forget)
    F.cross_entropy(model(start.data.inputs[rows]), start.data.labels[rows]).backward()
    mask = salient(start)
    inside = torch.cat([p.grad.abs()[mask[name]] for name, p in model.named_parameters()])
    outside = torch.cat([p.grad.abs()[~mask[name]] for name, p in model.named_parameters()])
    assert inside.min() >= outside.max() - 1e-6


def test_scrub_leaves_its_teacher_on_the_forget_set_more_than_elsewhere(start):
    def away(weights, rows):
        return kl(logits(start, start.original, rows), logits(start, weights, rows))

    found, tuned = PEERS["scrub"].run(start, 0.3), PEERS["fine-tune"].run(start, 0.3)
    assert away(found, start.forget) > 1.3 * away(found, stay(start))
    assert away(found, start.forget) > 5 * away(tuned, start.forget)


def test_bad_teaching_moves_the_forget_set_toward_the_untrained_network_and_keeps_the_rest(start):
    found = PEERS["bad-teacher"].run(start, 3.0)

    def from_teacher(weights, rows, teacher):
        return kl(logits(start, teacher, rows), logits(start, weights, rows))

    assert from_teacher(found, start.forget, start.initial) < 0.8 * from_teacher(
        start.original, start.forget, start.initial
    )
    assert from_teacher(found, stay(start), start.original) < from_teacher(found, start.forget, start.original)


def test_dampening_leaves_what_is_unimportant_to_the_forget_set_bit_for_bit(start):
    found, alpha = PEERS["ssd"].run(start, 1.5), 1.5
    own = diagonal_fisher(start.factory, start.original, start.data, start.forget)
    touched = 0
    for name, importance in own.items():
        chosen = importance > alpha * start.importances[name]
        assert torch.equal(found[name][~chosen], start.original[name][~chosen])
        expected = start.original[name][chosen] * (start.importances[name][chosen] / importance[chosen])
        torch.testing.assert_close(found[name][chosen], expected)
        touched += int(chosen.sum())
    assert 0 < touched < sum(value.numel() for value in own.values())


@pytest.mark.parametrize("kind", ["start", "conv_start"])
def test_importances_are_the_mean_squares_of_one_by_one_gradients(kind, request):
    start = request.getfixturevalue(kind)
    model = start.factory().eval()
    model.load_state_dict(start.original)
    sums = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for row in start.forget:
        model.zero_grad()
        F.cross_entropy(model(start.data.inputs[row : row + 1]), start.data.labels[row : row + 1]).backward()
        for name, p in model.named_parameters():
            sums[name] += p.grad.square() / len(start.forget)
    found = diagonal_fisher(start.factory, start.original, start.data, start.forget)
    assert found.keys() == sums.keys()
    for name, value in sums.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-8)


def test_l1_sparse_drives_weights_to_zero(start):
    sizes = [size(PEERS["l1-sparse"].run(start, gamma)) for gamma in (1e-6, 1e-2, 1e-1)]
    assert sizes[0] > sizes[1] > sizes[2]
    near = [sum(int((v.abs() < 0.01).sum()) for v in PEERS["l1-sparse"].run(start, g).values()) for g in (1e-6, 1e-1)]
    assert near[1] > 2 * near[0]


def test_the_newton_step_is_the_solution_of_the_damped_system(start):
    """Against a dense solve of one layer: H = B diag(lambda) B^T, with B the Kronecker product of the two bases."""
    strength, found = 0.1, PEERS["influence"].run(start, 0.1)
    model = start.factory().eval()
    model.load_state_dict(start.original)
    rows = list(start.forget)
    F.cross_entropy(model(start.data.inputs[rows]), start.data.labels[rows], reduction="sum").backward()
    layer = start.curvature.layers[1]
    basis = torch.kron(layer.basis.left, layer.basis.right).double()
    eigenvalues = layer.total[0].flatten().double()
    matrix = basis @ torch.diag(eigenvalues + strength * eigenvalues.mean()) @ basis.T
    gradient = torch.cat([model[3].weight.grad, model[3].bias.grad[:, None]], 1).flatten().double()
    step = torch.linalg.solve(54 * matrix, gradient).reshape(3, 13)
    moved = found["3.weight"] - start.original["3.weight"]
    torch.testing.assert_close(moved.double(), step[:, :-1], rtol=1e-3, atol=1e-5)
    assert moved.norm() > (PEERS["influence"].run(start, 10.0)["3.weight"] - start.original["3.weight"]).norm()


def test_rewinding_all_the_way_is_retraining_and_less_of_it_is_nearer_to_the_original(start, changed, retrained):
    assert same(PEERS["r2d"].run(start, 1.0), retrained)
    last = PEERS["r2d"].run(start, 0.01)
    resumed = PEERS["r2d"].run(changed(checkpoints={4: start.checkpoints[4], 5: start.checkpoints[5]}), 0.2)
    assert same(last, resumed), "one epoch, from the checkpoint before it"
    only = PEERS["r2d"].run(changed(checkpoints={1: start.checkpoints[1]}), 0.2)
    assert same(only, PEERS["r2d"].run(start, 0.8)), "the newest one that is old enough"


def test_retraining_is_retrain_without_bit_for_bit(start, retrained):
    assert same(PEERS["retrained"].run(start, 1.0), retrained)
    assert same(PEERS["retrained"].run(start, 7.0), retrained)


def test_clipping_and_augmentation_of_the_run_hold_for_peers(start, changed):
    training = TrainingSettings.model_validate(start.spec.training.model_dump() | {"clip_norm": 1e-3})
    shifted = TrainingSettings.model_validate(start.spec.training.model_dump() | {"augment": {"shift": 1}})
    plain, clipped, moved = (
        PEERS["fine-tune"].run(changed(spec=RunSpec(1, start.spec.model, own, "data")), 1.0)
        for own in (start.spec.training, training, shifted)
    )
    way = [sum(float((w[k] - v).square().sum()) for k, v in start.original.items()) for w in (plain, clipped)]
    assert way[1] < 0.01 * way[0] and not same(moved, plain)


def test_the_documentation_has_every_method_with_what_is_tried():
    text = (Path(__file__).parents[3] / "docs/peers.md").read_text()
    for peer in PEERS.values():
        tried = ", ".join(f"{strength:g}" for strength in peer.strengths) or "–"
        (line,) = (one for one in text.splitlines() if one.startswith(f"| `{peer.name}` | {peer.summary}"))
        assert peer.paper in line and ", ".join(peer.uses) in line and line.endswith(f"| {tried} |")
