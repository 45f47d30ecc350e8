"""From the settings to a model: a reference model by name, or the user's own by import path."""

import importlib
import inspect
from collections.abc import Callable, Mapping

import torch
from torch import nn

from amnesiac.errors import InputError, SettingsError
from amnesiac.models.cnn import cnn
from amnesiac.models.mlp import mlp
from amnesiac.models.modes import evaluating
from amnesiac.models.paper_cnn import paper_cnn
from amnesiac.models.resnet18 import resnet18
from amnesiac.models.resnet18_32 import resnet18_32
from amnesiac.models.small_resnet import small_resnet
from amnesiac.seeding import derive_seed
from amnesiac.settings import ModelSettings

Shape = tuple[int, int, int]
Factory = Callable[..., nn.Module]

REFERENCE_MODELS: Mapping[str, Factory] = {
    "mlp": mlp,
    "cnn": cnn,
    "paper-cnn": paper_cnn,
    "small-resnet": small_resnet,
    "resnet18": resnet18,
    "resnet18-32": resnet18_32,
}


def build_model(settings: ModelSettings, input_shape: Shape, num_classes: int, seed: int) -> nn.Module:
    """Build and initialise the model: the same seed gives the same bits.

    Calls `factory(input_shape, num_classes, **settings.options)`; `input_shape` is (channels, height, width).
    The result must map `[n, *input_shape]` to logits `[n, num_classes]`, which two zero samples check. The
    global random state of torch stays as it was.

    Raises SettingsError for an unknown name, a failing import or wrong options, and InputError for a factory
    that fails or whose result isn't such a model.
    """
    factory = _find(settings.factory)
    _check_options(factory, settings, input_shape, num_classes)
    # The check runs inside the fork too: lazy modules draw their weights at their first call.
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(derive_seed(seed, "init"))
        model = _call(factory, settings, input_shape, num_classes)
        _check_output(model, settings, input_shape, num_classes)
    return model


def count_parameters(model: nn.Module) -> int:
    """Number of trained parameters (those that require a gradient)."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _find(name: str) -> Factory:
    if ":" in name:
        return _import(name)
    try:
        return REFERENCE_MODELS[name]
    except KeyError:
        known = ", ".join(REFERENCE_MODELS)
        raise SettingsError(
            f"model.factory {name!r} isn't a reference model: choose one of {known}, "
            "or your own as 'package.module:factory'"
        ) from None


def _import(path: str) -> Factory:
    module_name, _, attribute = path.partition(":")
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except AttributeError as error:
        raise SettingsError(f"model.factory {path!r}: {error}: write the name of a function in that module") from error
    # Importing runs the user's code, so anything can be raised.
    except Exception as error:
        raise SettingsError(
            f"model.factory {path!r} can't be imported ({type(error).__name__}: {error}): "
            "the form is 'package.module:factory', and the package must be installed or on PYTHONPATH"
        ) from error
    if not callable(factory):
        raise SettingsError(
            f"model.factory {path!r} is a {type(factory).__name__}, not a function that returns a model"
        )
    return factory  # type: ignore[no-any-return]


def _check_options(factory: Factory, settings: ModelSettings, input_shape: Shape, num_classes: int) -> None:
    signature = inspect.signature(factory)
    try:
        signature.bind(input_shape, num_classes, **settings.options)
    except TypeError as error:
        raise SettingsError(
            f"model.options {settings.options} don't suit {settings.factory!r} ({error}): "
            f"it is called as factory(input_shape, num_classes, **options) and takes {signature}"
        ) from error


def _call(factory: Factory, settings: ModelSettings, input_shape: Shape, num_classes: int) -> nn.Module:
    called = f"model.factory {settings.factory!r} with input shape {input_shape}, {num_classes} classes"
    try:
        model = factory(input_shape, num_classes, **settings.options)
    except Exception as error:
        raise InputError(
            f"{called} and options {settings.options} fails "
            f"({type(error).__name__}: {error}): mend model.options or the factory"
        ) from error
    if not isinstance(model, nn.Module):
        raise InputError(f"{called} returns a {type(model).__name__}: it must return a torch.nn.Module")
    return model


def _check_output(model: nn.Module, settings: ModelSettings, input_shape: Shape, num_classes: int) -> None:
    wanted = f"it must map [n, {', '.join(map(str, input_shape))}] to logits [n, {num_classes}]"
    try:
        with torch.no_grad(), evaluating(model):
            logits = model(torch.zeros(2, *input_shape))
    except Exception as error:
        raise InputError(
            f"the model of {settings.factory!r} fails on two zero samples ({type(error).__name__}: {error}): {wanted}"
        ) from error
    got = list(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if got != [2, num_classes]:
        raise InputError(f"the model of {settings.factory!r} maps two samples to {got}: {wanted}")
