import pytest
from torch import nn

from amnesiac.models import evaluating


def partly_frozen():
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout(), nn.Dropout()))
    model[1][0].eval()
    return model


def modes(model):
    return [module.training for module in model.modules()]


def test_every_module_evaluates_and_then_has_its_former_mode():
    model = partly_frozen()
    before = modes(model)
    with evaluating(model):
        assert modes(model) == [False] * 5
    assert modes(model) == before == [True, True, True, False, True]


def test_an_error_inside_restores_the_modes_too():
    model = partly_frozen()
    before = modes(model)
    with pytest.raises(RuntimeError, match="inside"), evaluating(model):
        raise RuntimeError("inside")
    assert modes(model) == before
