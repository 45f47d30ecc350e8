import pytest
import torch
from torch import nn

from amnesiac.evaluation import predict


def model_with_noise():
    """Without evaluation mode its logits are random and its running statistics move."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Dropout(), nn.Linear(6, 3))


@pytest.mark.parametrize("batch_size", [1, 3, 7, 1024])
def test_batches_give_the_logits_of_evaluation_mode(batch_size):
    model = model_with_noise()
    model[3].eval()
    inputs = torch.randn(7, 2, 2, 2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    logits = predict(model, inputs, batch_size)
    assert [m.training for m in model] == [True, True, True, False, True]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    torch.testing.assert_close(logits, model.eval()(inputs).detach())
    assert logits.dtype == torch.float32


def test_the_result_is_an_ordinary_tensor_without_gradient():
    logits = predict(model_with_noise(), torch.zeros(2, 2, 2, 2))
    assert not logits.requires_grad and not logits.is_inference()


def test_no_samples_give_no_rows_and_all_classes():
    assert predict(model_with_noise(), torch.zeros(0, 2, 2, 2)).shape == (0, 3)
