"""Rules that admit the models they find good enough, and average these with the node's own, half and half."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from p2pfed.core.aggregation.combined import Combined, Counting, Indices, equal_shares
from p2pfed.core.aggregation.geometry import Doubles, norm
from p2pfed.core.aggregation.rule import Candidate, Loss, Merged, memory_of, with_memory
from p2pfed.core.weights import Vector

ALPHA = 0.5
"""Share of the node's own model in both papers' experiments."""


@dataclass(frozen=True)
class _BalanceState:
    merges: int


class Balance(Combined):
    """The node's own model and, with half of the weight, the mean of those that are near it by a shrinking measure.

    BALANCE (Fang et al. 2024, arXiv 2406.10416): x_j is accepted if ||x_i - x_j|| <= gamma * exp(-kappa * t / T) *
    ||x_i||, and the result is alpha * x_i + (1 - alpha) * mean of the accepted; nobody accepted leaves x_i. t counts
    this node's own merges; the measure stays as it is once there were T. Needs no number of attackers, but a horizon T,
    which gossip does not have. Its weak point: the length of a model says nothing about how far honest ones are, so
    early on it takes everybody and later, perhaps, nobody. It is the one rule here that is not the same in shifted
    coordinates.
    """

    name = "balance"

    GAMMA, KAPPA = 0.3, 1.0

    def __init__(self, horizon: int = 100) -> None:
        """`horizon`: the paper's T in own merges; raises ValueError below 1."""
        if horizon < 1:
            raise ValueError(f"the horizon must be at least 1 merge, not {horizon}")
        self.horizon = horizon
        self._merges = 0

    def merge(self, own: Vector, rows: int, candidates: Sequence[Candidate]) -> Merged:
        """Average of own and accepted models; counts the merge."""
        merged = super().merge(own, rows, candidates)
        self._merges += bool(candidates)
        return merged

    def _weigh(self, models: Doubles, candidates: Sequence[Candidate]) -> Doubles:
        """Half for the own model, half shared by the accepted."""
        passed = min(self._merges / self.horizon, 1.0)
        radius = self.GAMMA * math.exp(-self.KAPPA * passed) * norm(models[0])
        apart = models[1:] - models[0]
        return _half(len(models), 1 + np.flatnonzero(np.sqrt(np.vecdot(apart, apart)) <= radius))

    def state(self) -> bytes:
        """The number of merges, as JSON."""
        return with_memory(self.name, _BalanceState(self._merges))

    def restore(self, state: bytes) -> None:
        """Go on from `state()`, unless another rule wrote it; raises StateCorrupt."""
        if (memory := memory_of(self.name, _BalanceState, state)) is not None:
            self._merges = memory.merges


class Ubar(Counting):
    """The node's own model and, with half of the weight, the mean of the near ones that do no worse on its own rows.

    UBAR (Guo et al. 2022, arXiv 2002.08569, where it is called MOZI): of the k - f nearest models those stay whose loss
    on this node's rows is at most its own model's, or the one with the least loss if none is; the result is alpha * x_i
    + (1 - alpha) * their mean. The paper's rho is 1 - f / k. Needs the number f of attackers, and rows with labels:
    without any, every loss is 0 and distance alone decides. Its weak point: a node's own model fits its rows best, so
    honest banks with other customers are refused, and the least bad one is admitted whoever sent it.
    """

    name = "ubar"

    def __init__(self, attackers: int | None = None) -> None:
        super().__init__(attackers)
        self.loss: Loss = _unknown

    def see(self, loss: Loss) -> None:
        """Judge models by `loss` from now on."""
        self.loss = loss

    def _weigh(self, models: Doubles, candidates: Sequence[Candidate]) -> Doubles:
        """Half for the own model, half shared by those that pass both stages."""
        apart = models[1:] - models[0]
        keep = max(len(candidates) - self.attackers(candidates), 1)
        near = np.vecdot(apart, apart).argsort(kind="stable")[:keep]
        losses = np.array([self.loss(candidates[j].vector) for j in near])
        passed = losses <= self.loss(models[0].astype(np.float32))
        return _half(len(models), 1 + (near[passed] if passed.any() else near[losses.argmin()][None]))


def _half(count: int, accepted: Indices) -> Doubles:
    """Weights [count]: `ALPHA` for the first, the rest for the `accepted` indices, or all for the first without any."""
    if len(accepted) == 0:
        return equal_shares(count, np.zeros(1, np.intp))
    weights = (1 - ALPHA) * equal_shares(count, accepted)
    weights[0] = ALPHA
    return weights


def _unknown(vector: Vector) -> float:
    return 0.0
