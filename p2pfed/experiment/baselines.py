"""What gossip is compared with, by the same learner at equal budget: each bank alone, pooled rows, and FedAvg.

Equal budget: the same initial weights, scaling and schedule, and the same number of gradient steps summed over banks.
Every rival keeps the round that is best on validation rows; the banks' nodes keep the one they end with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from p2pfed.config import ThresholdSection
from p2pfed.core import forward
from p2pfed.core.events import Metrics
from p2pfed.core.model import ModelSpec, TrainingPolicy
from p2pfed.core.rows import BankRows, Rows
from p2pfed.core.weights import Vector
from p2pfed.data.imbalance import learning_rows
from p2pfed.learning.learner import Learner, measure
from p2pfed.learning.metrics import average_precision, curve

CHECKPOINTS = 20
"""How many times a run is looked at on validation rows."""

Progress = Callable[[int], None]
"""Told the number of each finished round."""


@dataclass(frozen=True)
class LearningBank:
    """One bank as its trainer has it."""

    rows: BankRows
    """As loaded; `train` is before resampling."""
    learning_rows: BankRows
    """The same with the rows that are trained on."""
    positive_weight: float
    threshold: ThresholdSection
    seed: int
    """Draws its batches."""


def learning_bank(
    rows: BankRows, spec: ModelSpec, policy: TrainingPolicy, threshold: ThresholdSection, seed: int
) -> LearningBank:
    """A bank whose training rows are resampled and whose frauds are weighed as the policy says."""
    return LearningBank(rows, *learning_rows(rows, spec, policy, seed), threshold, seed)


MakeLearner = Callable[[ModelSpec, TrainingPolicy, LearningBank], Learner]


@dataclass(frozen=True)
class Budget:
    """What every method gets."""

    spec: ModelSpec
    policy: TrainingPolicy
    rounds: int
    initial: Vector
    make_learner: MakeLearner

    def steps(self, bank: LearningBank) -> int:
        """Optimiser steps of one bank in one round."""
        return self.policy.local_steps or -(-len(bank.learning_rows.train) // self.policy.batch)


def train_alone(budget: Budget, bank: LearningBank, progress: Progress) -> dict[str, Metrics]:
    """A bank that never hears of the others; metrics by row set."""
    learner = budget.make_learner(budget.spec, budget.policy, bank)
    best = _Best(budget, bank)
    vector = budget.initial
    for number in range(1, budget.rounds + 1):
        vector = learner.train(vector, b"", number).vector
        best.look(number, vector)
        progress(number)
    return best.measured()


def train_centralised(budget: Budget, banks: Sequence[LearningBank], progress: Progress) -> dict[str, Metrics]:
    """All rows in one place, which secrecy forbids: one model with as many steps as the banks take together."""
    steps = sum(budget.steps(bank) for bank in banks)
    together = replace(budget, policy=replace(budget.policy, local_steps=steps))
    return train_alone(together, pool(budget, banks), progress)


def train_fedavg(budget: Budget, banks: Sequence[LearningBank], progress: Progress) -> dict[str, Metrics]:
    """Federated averaging (McMahan et al. 2017, algorithm 1): a trusted server, and every bank in every round."""
    learners = [budget.make_learner(budget.spec, budget.policy, bank) for bank in banks]
    shares = np.array([len(bank.rows.train) for bank in banks], np.float64)
    shares /= shares.sum()
    best = _Best(budget, pool(budget, banks))
    vector = budget.initial
    for number in range(1, budget.rounds + 1):
        trained = np.stack([learner.train(vector, b"", number).vector for learner in learners])
        vector = np.einsum("i,ij->j", shares, trained).astype(np.float32)
        best.look(number, vector)
        progress(number)
    return best.measured()


def pool(budget: Budget, banks: Sequence[LearningBank]) -> LearningBank:
    """The banks' rows as those of one; the pooled test is the same at each of them already."""
    rows = [bank.rows for bank in banks]
    joined = BankRows(
        train=_joined([r.train for r in rows]),
        validation=_joined([r.validation for r in rows]),
        own_test=_joined([r.own_test for r in rows]),
        pooled_test=rows[0].pooled_test,
        legitimate_per_day=sum(r.legitimate_per_day for r in rows),
    )
    return learning_bank(joined, budget.spec, budget.policy, banks[0].threshold, banks[0].seed)


def _joined(parts: Sequence[Rows]) -> Rows:
    return Rows(np.concatenate([p.features for p in parts]), np.concatenate([p.labels for p in parts]))


class _Best:
    """The weights with the highest AUPRC on validation rows so far; without a fraud there, the newest."""

    def __init__(self, budget: Budget, bank: LearningBank) -> None:
        self._budget, self._bank = budget, bank
        self._period = max(1, budget.rounds // CHECKPOINTS)
        self._vector = budget.initial
        self._auprc = -1.0

    def look(self, round_number: int, vector: Vector) -> None:
        """Measure the weights, unless it is too soon after the last time."""
        if round_number % self._period and round_number != self._budget.rounds:
            return
        validation = self._bank.rows.validation
        scores = forward.scores(self._budget.spec, vector, validation.features)
        auprc = average_precision(curve(scores, validation.labels))
        if auprc is None or auprc >= self._auprc:
            self._vector, self._auprc = vector, -1.0 if auprc is None else auprc

    def measured(self) -> dict[str, Metrics]:
        """The best weights' metrics by row set."""
        return measure(self._budget.spec, self._vector, self._bank.rows, self._bank.threshold).metrics
