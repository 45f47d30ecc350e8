import sys

import pytest
import torch
from torch import nn

from amnesiac.errors import InputError, SettingsError
from amnesiac.hashing import hash_tensors
from amnesiac.models import build_model, count_parameters
from amnesiac.settings import ModelSettings

SHAPE = (1, 6, 5)

USER_MODULE = """
import torch
from torch import nn

not_a_function = 3

def good(input_shape, num_classes, width=4):
    c, h, w = input_shape
    first, last = nn.Linear(c * h * w, width), nn.Linear(width, num_classes)
    return nn.Sequential(nn.Flatten(), first, nn.BatchNorm1d(width), last)

def lazy(input_shape, num_classes):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))

def frozen_part(input_shape, num_classes):
    model = good(input_shape, num_classes)
    model[2].eval()
    model[1].weight.requires_grad_(False)
    return model

def tuple_result(input_shape, num_classes):
    return 1, 2

def too_wide(input_shape, num_classes):
    return good(input_shape, num_classes + 1)

def wrong_input(input_shape, num_classes):
    return nn.Linear(3, num_classes)

class Pair(nn.Module):
    def forward(self, x):
        return x, x

def pair(input_shape, num_classes):
    return Pair()

def failing(input_shape, num_classes):
    raise ValueError("no such backbone")
"""


@pytest.fixture
def user_module(tmp_path, monkeypatch):
    (tmp_path / "their_models.py").write_text(USER_MODULE)
    (tmp_path / "broken_module.py").write_text("import a_package_that_is_not_there")
    monkeypatch.syspath_prepend(tmp_path)
    yield "their_models"
    for name in ("their_models", "broken_module"):
        sys.modules.pop(name, None)


def build(factory, seed=0, **options):
    return build_model(ModelSettings(factory=factory, options=options), SHAPE, 3, seed)


def test_the_same_seed_gives_the_same_bits_whatever_was_drawn_before():
    first = hash_tensors(build("mlp", seed=5).state_dict())
    torch.rand(17)
    assert hash_tensors(build("mlp", seed=5).state_dict()) == first
    assert hash_tensors(build("mlp", seed=6).state_dict()) != first


@pytest.mark.parametrize("factory", ["mlp", "their_models:lazy", "their_models:failing"])
def test_the_global_random_state_is_untouched(user_module, factory):
    before = torch.get_rng_state()
    if factory.endswith("failing"):
        with pytest.raises(InputError):
            build(factory)
    else:
        build(factory)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_users_factory_gets_shape_classes_and_options(user_module):
    model = build("their_models:good", width=7)
    assert model[1].weight.shape == (7, 30)
    assert model(torch.zeros(2, *SHAPE)).shape == (2, 3)


def test_lazy_layers_are_initialised_from_the_seed(user_module):
    assert hash_tensors(build("their_models:lazy", seed=1).state_dict()) == hash_tensors(
        build("their_models:lazy", seed=1).state_dict()
    )
    assert all(p.requires_grad and not p.is_inference() for p in build("their_models:lazy").parameters())


def test_the_check_leaves_modes_and_running_statistics_alone(user_module):
    model = build("their_models:frozen_part")
    assert model.training and model[1].training and not model[2].training
    assert model[2].num_batches_tracked == 0
    assert count_parameters(model) == count_parameters(build("their_models:good")) - 30 * 4


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(
        SettingsError,
        match=r"'resnet' isn't a reference model: choose one of mlp, cnn, paper-cnn, .*resnet18-32",
    ):
        build("resnet")


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (
            "no_such_package:make",
            r"'no_such_package:make' can't be imported \(ModuleNotFoundError: .*PYTHONPATH",
        ),
        ("broken_module:make", "broken_module:make' can't be imported .*a_package_that_is_not_there"),
        (":make", "':make' can't be imported .*'package.module:factory'"),
        ("their_models:missing", "their_models' has no attribute 'missing': write the name of a function"),
        ("their_models:not_a_function", "'their_models:not_a_function' is a int, not a function"),
    ],
)
def test_import_failures_name_the_path(user_module, factory, message):
    with pytest.raises(SettingsError, match=message):
        build(factory)


def test_wrong_options_name_what_the_factory_takes():
    with pytest.raises(SettingsError, match=r"\{'hiden': \[3\]\} don't suit 'mlp'.*'hiden'.*hidden: .*= \(128,\)"):
        build("mlp", hiden=[3])


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (
            "their_models:failing",
            r"\(1, 6, 5\), 3 classes and options \{\} fails \(ValueError: no such backbone\)",
        ),
        ("their_models:tuple_result", "returns a tuple: it must return a torch.nn.Module"),
        (
            "their_models:too_wide",
            r"maps two samples to \[2, 4\]: it must map \[n, 1, 6, 5\] to logits \[n, 3\]",
        ),
        ("their_models:wrong_input", r"fails on two zero samples \(RuntimeError: .*logits \[n, 3\]"),
        ("their_models:pair", "maps two samples to tuple: it must map"),
        ("paper-cnn", "fails on two zero samples"),
    ],
)
def test_unusable_models_are_refused(user_module, factory, message):
    with pytest.raises(InputError, match=message):
        build(factory)


def test_options_of_the_wrong_kind_are_refused():
    with pytest.raises(InputError, match=r"'mlp' .* options \{'hidden': 64\} fails \(TypeError"):
        build("mlp", hidden=64)


def test_count_parameters_counts_what_is_trained():
    layer = nn.Linear(3, 2)
    layer.bias.requires_grad_(False)
    assert count_parameters(layer) == 6
