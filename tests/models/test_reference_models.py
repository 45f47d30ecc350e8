from functools import partial

import pytest
import torch
from torch import nn
from torchvision.models import resnet18 as torchvision_resnet18

from amnesiac.models import REFERENCE_MODELS, build_model, count_parameters
from amnesiac.settings import ModelSettings

GREY, COLOUR = (1, 28, 28), (3, 32, 32)
CASES = [(name, shape, n) for name in REFERENCE_MODELS for shape, n in ((GREY, 10), (COLOUR, 100))]


def built(name, shape=GREY, num_classes=10, seed=0, **options):
    return build_model(ModelSettings(factory=name, options=options), shape, num_classes, seed)


def test_the_names_are_those_of_the_documentation():
    assert list(REFERENCE_MODELS) == ["mlp", "cnn", "paper-cnn", "small-resnet", "resnet18", "resnet18-32"]


@pytest.mark.parametrize(
    ("name", "shape", "num_classes", "count"),
    [
        ("mlp", GREY, 10, 784 * 128 + 128 + 128 * 10 + 10),
        ("cnn", GREY, 10, 106_122),
        ("paper-cnn", GREY, 10, 95_110),
        ("paper-cnn", COLOUR, 100, 133_000),
        ("small-resnet", GREY, 10, 77_754),
        # torchvision's 11,689,512 are for 3 channels and 1,000 classes
        ("resnet18", COLOUR, 1000, 11_689_512),
        ("resnet18-32", COLOUR, 1000, 11_689_512 - 64 * 3 * (7 * 7 - 3 * 3)),
    ],
)
def test_parameter_counts(name, shape, num_classes, count):
    assert count_parameters(built(name, shape, num_classes)) == count


@pytest.mark.parametrize(("name", "shape", "num_classes"), CASES)
def test_every_parameter_gets_a_gradient_and_samples_do_not_mix(name, shape, num_classes):
    model = built(name, shape, num_classes)
    inputs = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
    logits = model(inputs)
    assert logits.shape == (3, num_classes)
    torch.testing.assert_close(logits[:1], model(inputs[:1]), rtol=1e-4, atol=1e-5)
    nn.functional.cross_entropy(logits, torch.arange(3)).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize("name", REFERENCE_MODELS)
def test_layers_can_carry_hooks(name):
    """No BatchNorm (it mixes samples), nothing in place, and no module that is called twice."""
    model = built(name)
    calls = dict.fromkeys(model.modules(), 0)

    def count(module, *_):
        calls[module] += 1

    for module in model.modules():
        assert not isinstance(module, nn.modules.batchnorm._BatchNorm)
        assert not getattr(module, "inplace", False)
        module.register_forward_hook(count)
    model(torch.zeros(1, *GREY))
    assert set(calls.values()) == {1}


def test_resnet18_computes_what_torchvision_computes():
    ours = built("resnet18", COLOUR, 7, seed=3)
    theirs = torchvision_resnet18(num_classes=7, norm_layer=partial(nn.GroupNorm, 1))
    with torch.no_grad():
        for mine, its in zip(ours.parameters(), theirs.parameters(), strict=True):
            its.copy_(mine)
    inputs = torch.randn(2, 3, 64, 48, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(inputs), theirs(inputs), rtol=1e-4, atol=1e-5)


def test_paper_cnn_is_two_strided_convolutions_pooled_to_two_by_two():
    model = built("paper-cnn").double()
    first, _, second, _, _, _, linear = model
    x = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for layer in (first, second):
        x = nn.functional.leaky_relu(nn.functional.conv2d(x, layer.weight, layer.bias, stride=2), 0.1)
    assert x.shape == (2, 100, 6, 6)
    pooled = torch.stack([x[:, :, r : r + 3, c : c + 3].amax((2, 3)) for r in (0, 3) for c in (0, 3)], 2)
    expected = pooled.reshape(2, 400) @ linear.weight.T + linear.bias
    torch.testing.assert_close(
        expected,
        model(torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0), dtype=torch.float64)),
    )


def test_options_reach_the_factory():
    assert count_parameters(built("mlp", hidden=[20, 10])) == 784 * 20 + 20 + 20 * 10 + 10 + 10 * 10 + 10
    assert count_parameters(built("mlp", hidden=[])) == 784 * 10 + 10
    assert count_parameters(built("small-resnet", blocks=2)) == 174_970
    assert built("paper-cnn", padding=1)[0].padding == (1, 1)


@pytest.mark.parametrize(("name", "target"), [("mlp", 0.95), ("cnn", 0.95), ("paper-cnn", 0.95), ("small-resnet", 0.9)])
def test_small_models_learn(name, target):
    """A few steps on separable data: which quadrant holds the bright square."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (256,), generator=generator)
    inputs = 0.3 * torch.randn(256, 1, 12, 12, generator=generator)
    for k, label in enumerate(labels.tolist()):
        row, column = 6 * (label // 2), 6 * (label % 2)
        inputs[k, :, row : row + 6, column : column + 6] += 1
    model = built(name, (1, 12, 12), 4)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    assert (model(inputs).argmax(1) == labels).float().mean() >= target
