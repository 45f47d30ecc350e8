import pytest
import torch
from torch import nn
from torch.nn import functional

from amnesiac.errors import InputError
from amnesiac.evaluation.attacks import cosine, input_of_row, inputs_of_sum
from amnesiac.settings import CaptureSettings, CurvatureSettings
from tests.conftest import made_data, train


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(36, 6), nn.ReLU(), nn.Linear(6, 3))


def gradient(inputs, label):
    model = network()
    functional.cross_entropy(model(inputs), torch.tensor([label])).backward()
    return {name: p.grad for name, p in model.named_parameters()}


def test_a_gradient_is_its_input():
    inputs = torch.randn(1, 1, 6, 6, generator=torch.Generator().manual_seed(1)) - 1.0
    delta = gradient(inputs, 2)
    recovered = input_of_row(delta, "1.weight", "1.bias")
    torch.testing.assert_close(recovered.float(), inputs.flatten(), rtol=1e-3, atol=1e-4)
    # without the bias the scale is lost, and the sign is a guess: here, with a dark picture, the wrong one
    assert cosine(input_of_row(delta, "1.weight"), inputs) == pytest.approx(-1.0, abs=1e-5)


def test_a_sum_spans_its_inputs():
    inputs = torch.randn(2, 1, 6, 6, generator=torch.Generator().manual_seed(2))
    a, b = gradient(inputs[:1], 0), gradient(inputs[1:], 1)
    basis = inputs_of_sum({name: a[name] + 0.5 * b[name] for name in a}, "1.weight", 2)
    flat = inputs.flatten(1).double()
    torch.testing.assert_close(flat @ basis.T @ basis, flat, rtol=1e-3, atol=1e-3)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    capture = CaptureSettings(methods=("per-sample-delta", "settled"), curvature=CurvatureSettings(smallest_sample=16))
    return train(tmp_path_factory.mktemp("run"), network, made_data(48), capture, batch=16, epochs=3)


@pytest.mark.parametrize("rows", ["delta", "settled"])
def test_rows_of_a_ledger_give_their_inputs_away(run, rows):
    found = [run.ledger.total(rows, [k]) for k in range(16)]
    cosines = [abs(cosine(input_of_row(d, "1.weight"), run.data.inputs[k])) for k, d in enumerate(found)]
    assert sorted(cosines)[8] > 0.9


def test_what_cannot_be_inverted_is_refused():
    delta = gradient(torch.randn(1, 1, 6, 6), 0)
    with pytest.raises(InputError, match=r"no '2\.weight': it has \['1\.bias', '1\.weight', '3\.bias', '3\.weight'\]"):
        input_of_row(delta, "2.weight")
    with pytest.raises(InputError, match=r"'1\.bias' has shape \[6\]: name the weight of a linear layer"):
        input_of_row(delta, "1.bias")
    with pytest.raises(InputError, match="the sample left nothing there to invert"):
        input_of_row({"w": torch.zeros(2, 3)}, "w")
    with pytest.raises(InputError, match="at most 6 directions are in it"):
        inputs_of_sum(delta, "1.weight", 7)
