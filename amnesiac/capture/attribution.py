"""Which share of the final weights each step's gradients have: everything an optimiser does that is linear in them
(method.md §6).

For step t the gradient g_t enters the final weights as  theta_T = ... - R_t * g_t ,  with R_t known once all
learning rates are:

    SGD, momentum mu        R_t = c_t sum_{u>=t} lr_u mu^(u-t)
    Nesterov                R_t = c_t (lr_t + mu sum_{u>=t} lr_u mu^(u-t))
    Adam, AdamW             R_t = c_t (1-b1) sum_{u>=t} b1^(u-t) lr_u / (1-b1^(k_u)) P_u
                            with P_u = 1 / (sqrt(vhat_u) + eps)

c_t is the factor by which gradients were clipped, k_u the optimiser's own step count. P_u is taken as it was (its
dependence on the
samples is ignored). Weight decay is no sample's doing: it stays in the residual.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from amnesiac.errors import UnsupportedOptimizer

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Rule:
    """What stays the same over the run."""

    kind: str
    momentum: float = 0.0
    nesterov: bool = False
    beta1: float = 0.0
    beta2: float = 0.0
    eps: float = 0.0

    @property
    def preconditioned(self) -> bool:
        """Whether R_t is a vector over parameters (Adam) or a number (SGD)."""
        return self.kind != "sgd"


@dataclass(frozen=True)
class Step:
    """What changes from step to step: learning rate, clipping factor, the optimiser's step count (from 1)."""

    lr: float
    clip: float
    count: int


def read_rule(optimizer: torch.optim.Optimizer) -> Rule:
    """The attribution rule of an optimiser; raises UnsupportedOptimizer naming what can't be attributed."""
    kinds = {torch.optim.SGD: "sgd", torch.optim.Adam: "adam", torch.optim.AdamW: "adamw"}
    kind = kinds.get(type(optimizer))
    if kind is None:
        raise UnsupportedOptimizer(f"{type(optimizer).__name__} isn't supported: use SGD, Adam or AdamW of torch.optim")
    group = _common_group(optimizer)
    for flag in ("amsgrad", "maximize"):
        if group.get(flag):
            raise UnsupportedOptimizer(f"{type(optimizer).__name__}({flag}=True) can't be attributed: switch it off")
    if kind == "sgd":
        if group["dampening"]:
            raise UnsupportedOptimizer("SGD(dampening=...) can't be attributed: set it to 0")
        return Rule("sgd", float(group["momentum"]), bool(group["nesterov"]))
    beta1, beta2 = (float(b) for b in group["betas"])
    return Rule(kind, beta1=beta1, beta2=beta2, eps=float(group["eps"]))


def read_lr(optimizer: torch.optim.Optimizer) -> float:
    """The learning rate of the step at hand, the same in all parameter groups."""
    return float(_common_group(optimizer)["lr"])


def preconditioner(optimizer: torch.optim.Optimizer, parameters: Sequence[torch.nn.Parameter], rule: Rule) -> Tensor:
    """P_u as one vector `[P]`, right after the step that used it."""
    return torch.cat([_preconditioner(optimizer.state[p], p, rule) for p in parameters])


def step_count(optimizer: torch.optim.Optimizer, parameter: torch.nn.Parameter) -> int:
    """The optimiser's own count of steps for a parameter, 0 before the first."""
    return int(optimizer.state.get(parameter, {}).get("step", 0))


def scalar_weights(rule: Rule, steps: Sequence[Step]) -> Vector:
    """R_t of SGD, `[T]`."""
    weights, carry = np.zeros(len(steps)), 0.0
    for t in range(len(steps) - 1, -1, -1):
        carry = steps[t].lr + rule.momentum * carry
        share = steps[t].lr + rule.momentum * carry if rule.nesterov else carry
        weights[t] = steps[t].clip * share
    return weights


def rate_weights(rule: Rule, steps: Sequence[Step]) -> Vector:
    """R_t without Adam's preconditioner, `[T]`: what is left where P is taken as the mean of its segment."""
    if not rule.preconditioned:
        return scalar_weights(rule, steps)
    weights, carry = np.zeros(len(steps)), 0.0
    for t in range(len(steps) - 1, -1, -1):
        carry = rule.beta1 * carry + steps[t].lr / (1.0 - rule.beta1 ** steps[t].count)
        weights[t] = steps[t].clip * (1.0 - rule.beta1) * carry
    return weights


def vector_weights(
    rule: Rule, steps: Sequence[Step], preconditioners: npt.NDArray[np.float32], out: npt.NDArray[np.float32]
) -> None:
    """R_t of Adam and AdamW from P_t, both `[T, P]`, in one backward sweep over the steps."""
    carry = np.zeros(preconditioners.shape[1], np.float64)
    for t in range(len(steps) - 1, -1, -1):
        step = steps[t]
        carry *= rule.beta1
        carry += (step.lr / (1.0 - rule.beta1**step.count)) * preconditioners[t].astype(np.float64)
        out[t] = (step.clip * (1.0 - rule.beta1)) * carry


def _preconditioner(state: dict[str, Any], parameter: torch.nn.Parameter, rule: Rule) -> Tensor:
    corrected: Tensor = state["exp_avg_sq"] / (1.0 - rule.beta2 ** int(state["step"]))
    return (corrected.sqrt() + rule.eps).reciprocal().flatten()


def _common_group(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The parameter groups' common settings; only weight decay may differ (it is attributed to nobody)."""
    first = optimizer.param_groups[0]
    for key in ("lr", "momentum", "nesterov", "betas", "eps"):
        if any(group.get(key) != first.get(key) for group in optimizer.param_groups):
            raise UnsupportedOptimizer(f"parameter groups differ in {key!r}: give them the same value, or one group")
    return first
