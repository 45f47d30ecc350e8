"""The reference models, models of the user's own by import path, and weights on disk."""

from amnesiac.models.files import StateDict, load_metadata, load_weights, save_weights
from amnesiac.models.modes import evaluating
from amnesiac.models.registry import REFERENCE_MODELS, build_model, count_parameters

__all__ = [
    "REFERENCE_MODELS",
    "StateDict",
    "build_model",
    "count_parameters",
    "evaluating",
    "load_metadata",
    "load_weights",
    "save_weights",
]
