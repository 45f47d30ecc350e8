"""The seed-to-seed band: what two retrainings differ by that both never saw the forget set, and only have other seeds.

No unlearning can be asked to come nearer to one retrained model than another retrained model comes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

AUC = "membership_auc"
ACCURACIES = ("forget_accuracy", "retain_accuracy", "test_accuracy")
DISTANCES = ("kl_forget", "kl_test", "margin_forget", "margin_retain", "margin_test", "relative_verification_error")


def band(retrained: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """The largest distance from the retrained model that another seed's has, by figure, and how "models" there are.

    Each argument holds a model's figures as `compare` measures them. Accuracies and AUC: |difference|, in [0, 1].
    Divergences are distances from the retrained model already. None where a figure isn't defined.
    """
    accuracies = {
        name: [abs(o[name] - retrained[name]) for o in others if o[name] is not None] for name in (*ACCURACIES, AUC)
    }
    distances = {name: [o[name] for o in others if o[name] is not None] for name in DISTANCES}
    found = {name: max(values) if values else None for name, values in (accuracies | distances).items()}
    return {"models": len(others) + 1, **found}


def distance(metrics: Mapping[str, Any], role: str, name: str) -> float | None:
    """How far a model's figure is from the retrained model's, in what `compare` returned."""
    own, wanted = metrics[role][name], metrics["retrained"][name]
    if own is None:
        return None
    return abs(float(own) - float(wanted)) if name in (*ACCURACIES, AUC) else float(own)


def within(metrics: Mapping[str, Any], role: str, name: str) -> bool | None:
    """Whether it is no farther than another seed's; None where there is no band or no figure."""
    limit, own = metrics.get("band", {}).get(name), distance(metrics, role, name)
    # 1e-9: a distance of exactly the band's width counts as within it, whatever the rounding
    return None if limit is None or own is None else own <= limit + 1e-9


def band_sentence(metrics: Mapping[str, Any], role: str) -> str:
    """In words, for what matters most: the divergence on the forget set and on the test set; empty without a band."""
    found = {name: within(metrics, role, f"kl_{name}") for name in ("forget", "test")}
    said = [f"{_times(metrics, role, name)} on the {name} set" for name, known in found.items() if known is not None]
    return f"Its divergence from retraining is {' and '.join(said)}." if said else ""


def _times(metrics: Mapping[str, Any], role: str, name: str) -> str:
    own, limit = metrics[role][f"kl_{name}"], metrics["band"][f"kl_{name}"]
    if own <= limit + 1e-9:
        return "within the seed-to-seed band"
    return f"{own / limit:.2g} times the seed-to-seed band" if limit else "beyond the seed-to-seed band"
