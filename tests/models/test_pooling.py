"""The quick max pooling gives torch's bits, with and without gradients."""

import pytest
import torch
from torch import nn

from amnesiac.models.pooling import MaxPool2


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (2, 3)])
def test_same_bits_as_torch_with_and_without_gradients(size):
    x = torch.randn(3, 4, *size).relu()  # ties at zero too
    expected = nn.MaxPool2d(2)(x)
    with torch.no_grad():
        assert torch.equal(MaxPool2()(x), expected)
    own, other = (x.clone().requires_grad_() for _ in range(2))
    MaxPool2()(own).sum().backward()
    nn.MaxPool2d(2)(other).sum().backward()
    assert torch.equal(own.grad, other.grad)
