"""Is the audit itself sound, and what does it say of the method?

Sound: on every set a held-out retraining passes (or the audit accuses the innocent), and on the set where forgetting
matters most an untouched original fails (or the audit is blind). A held-out retraining lies outside of its 95 %
interval by chance once in twenty, and there are several sets, so for this check the interval reaches twice as far.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from amnesiac.auditing.reading import HELD_OUT
from amnesiac.auditing.strata import MISLABELLED, MOST, RANDOM, STRATA

MATTERS = (MOST, MISLABELLED, RANDOM)
"""Where an untouched original must be found out: on the first of these sets that was audited."""
Sets = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class AuditVerdict:
    """sound: whether the audit can be trusted, and why (not);  passes: whether the method does on all sets with power.

    with_power: sets on which the original is told from retraining: the others prove nothing about a method
    told_apart: of those, the ones on which the method is told from retraining as well
    """

    sound: bool
    check: str
    passes: bool
    sentence: str
    with_power: tuple[str, ...]
    told_apart: tuple[str, ...]

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self) | {"with_power": list(self.with_power), "told_apart": list(self.told_apart)}


def judge_audit(sets: Sets, method: str) -> AuditVerdict:
    """Judge figures by set (`figures.set_figures`) and the method that is audited."""
    attacks = {
        name: {model: own.get("ulira") for model, own in figures["models"].items()} for name, figures in sets.items()
    }
    power = tuple(name for name in sets if not attacks[name]["original"]["passes"])
    told = tuple(name for name in power if not attacks[name][method]["passes"])
    problems = _problems(sets, attacks, power)
    check = " ".join(problems) or (
        "The audit passes its own check: held-out retrainings pass on every set, and the untouched original is found "
        f"out ({', '.join(power)})."
    )
    return AuditVerdict(not problems, check, not told, _sentence(attacks, method, power, told), power, told)


def _problems(sets: Sets, attacks: Mapping[str, Mapping[str, Any]], power: tuple[str, ...]) -> list[str]:
    found = []
    for name in sets:
        own = attacks[name][HELD_OUT]
        if not own["nearly_passes"]:
            found.append(
                f"The audit fails its own check: held-out retrainings are told from other retrainings on the set "
                f"{name!r} ({_shown(own)}), so what it says of a method means nothing. Remove the ensembles' folder "
                "and run it again; if it stays so, the two sides aren't trained alike."
            )
    matters = next(name for name in (*MATTERS, *STRATA) if name in sets)
    if matters not in power:
        found.append(
            f"The audit fails its own check: untouched original models pass for retrained ones on the set {matters!r} "
            f"({_shown(attacks[matters]['original'])}), so it couldn't find out a method that does nothing. Train more "
            "models a side (--models), or forget a larger share (--share)."
        )
    return found


def _sentence(
    attacks: Mapping[str, Mapping[str, Any]], method: str, power: tuple[str, ...], told: tuple[str, ...]
) -> str:
    if not power:
        return "No set tells even the untouched original from retraining: nothing can be said of the method."
    if not told:
        shown = "; ".join(f"{name}: {_shown(attacks[name][method])}" for name in power)
        return f"Models unlearned by {method} can't be told from retrained ones where the original can ({shown})."
    shown = "; ".join(
        f"{name}: {_shown(attacks[name][method])}, original {attacks[name]['original']['auc']:.3f}" for name in told
    )
    return f"Models unlearned by {method} can be told from retrained ones ({shown})."


def _shown(own: Mapping[str, Any]) -> str:
    return f"U-LiRA AUC {own['auc']:.3f} [{own['auc_low']:.3f}, {own['auc_high']:.3f}]"
