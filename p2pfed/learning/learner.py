"""The Learner seam: what a trainer child can do with a bank's rows. Learners get arrays, never a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from p2pfed.config import ThresholdSection
from p2pfed.core import forward
from p2pfed.core.events import Metrics
from p2pfed.core.model import ModelSpec, TrainingPolicy
from p2pfed.core.rows import BankRows, Rows
from p2pfed.core.weights import Vector
from p2pfed.errors import P2PFedError
from p2pfed.learning import metrics
from p2pfed.learning.threshold import choose, settle

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-7
"""Adam's constants, as Keras has them."""


@dataclass(frozen=True)
class TrainResult:
    """One round's local training."""

    vector: Vector
    optimiser: bytes
    """`AdamState.to_bytes`."""
    loss: float
    """Mean training loss over the round's steps, weighted like the training itself."""
    steps: int
    seconds: float


@dataclass(frozen=True)
class Evaluation:
    """Metrics by row set (`validation`, `own_test`, `test`, `gate`; absent where empty) and their alert threshold.

    `gate` also says `frauds`, how many of them are `borrowed` from training, and the `alert_rate`.
    """

    metrics: dict[str, Metrics]
    threshold: float


class Learner(Protocol):
    """Trains and measures one model on one bank's rows."""

    def train(self, vector: Vector, optimiser: bytes, round_number: int) -> TrainResult:
        """One round of local steps from `vector` float32 [schema.size]; the same arguments give the same result.

        Empty `optimiser` goes on with the state the round before left (none at first). Where the weights
        do not stay finite the result says so and the state begins anew. Raises ValueError if the vector or the state
        does not fit the model.
        """
        ...

    def evaluate(self, vector: Vector) -> Evaluation:
        """Choose the threshold on validation rows and measure on every row set.

        Raises P2PFedError if scores are not finite.
        """
        ...


@dataclass(frozen=True)
class StackedBank:
    """One of the banks that a ManyLearner trains; the fields are what a Learner is made from."""

    rows: BankRows
    """`train` comes resampled."""
    positive_weight: float
    seed: int
    threshold: ThresholdSection


@dataclass(frozen=True)
class TrainJob:
    """`Learner.train` of bank number `bank`."""

    bank: int
    vector: Vector
    optimiser: bytes
    round: int


@dataclass(frozen=True)
class EvaluateJob:
    """`Learner.evaluate` of bank number `bank`."""

    bank: int
    vector: Vector


class ManyLearner(Protocol):
    """The Learners of many banks, asked together. What a job gives does not depend on the jobs beside it."""

    def train(self, jobs: Sequence[TrainJob]) -> list[TrainResult]:
        """`Learner.train` for each job, in their order; raises ValueError if a bank has two, and trains none then."""
        ...

    def evaluate(self, jobs: Sequence[EvaluateJob]) -> list[Evaluation]:
        """`Learner.evaluate` for each job, in their order."""
        ...

    def forget(self, bank: int) -> None:
        """The bank's trainer was restarted: without an optimiser handed over its next round starts with none."""
        ...


@runtime_checkable
class ReadsAnew(Protocol):
    """A ManyLearner whose banks' rows may change."""

    def read(self, bank: int, rows: StackedBank) -> None:
        """From now on train and measure a bank on other rows; its optimiser's state has to be handed over."""
        ...


@dataclass(frozen=True)
class AdamState:
    """Adam's step count and its two running means float32 [size] (Kingma and Ba 2015, algorithm 1)."""

    step: int
    mean: Vector
    square: Vector

    @classmethod
    def fresh(cls, size: int) -> AdamState:
        """The state before the first step."""
        return cls(0, np.zeros(size, np.float32), np.zeros(size, np.float32))

    @classmethod
    def from_bytes(cls, data: bytes, size: int) -> AdamState:
        """Read what `to_bytes` wrote for a model of `size` weights; raises ValueError on another length."""
        if len(data) != 8 + 8 * size:
            raise ValueError(f"an optimiser state for {size} weights has {8 + 8 * size} bytes, not {len(data)}")
        moments = np.frombuffer(data, "<f4", offset=8)
        return cls(int.from_bytes(data[:8], "little"), moments[:size], moments[size:])

    def to_bytes(self) -> bytes:
        """Step count (8 bytes), then both means, little endian."""
        return self.step.to_bytes(8, "little") + self.mean.astype("<f4").tobytes() + self.square.astype("<f4").tobytes()


def refuse_two_of_one_bank(jobs: Sequence[TrainJob]) -> None:
    """Raise ValueError if a bank has two of `jobs`: the second would depend on what the first left behind."""
    banks = [job.bank for job in jobs]
    if len(set(banks)) < len(banks):
        twice = next(bank for bank in banks if banks.count(bank) > 1)
        raise ValueError(f"bank {twice} has two training jobs at once")


def training_rows(spec: ModelSpec, rows: BankRows) -> Rows:
    """What a model learns from: every training row, or for the autoencoder the legitimate ones."""
    if spec.kind == "mlp":
        return rows.train
    legitimate = rows.train.labels < 0.5
    return Rows(rows.train.features[legitimate], rows.train.labels[legitimate])


def batches(policy: TrainingPolicy, rows: int, seed: int, round_number: int) -> NDArray[np.int32]:
    """Row numbers int32 [steps, batch] of a round: whole shuffles one after the other, the last cut short.

    So no row is seen twice before every row was seen once. With `policy.local_steps` 0 a round is one epoch, its last
    batch filled up from a second shuffle.
    """
    steps = policy.local_steps or -(-rows // policy.batch)
    generator = np.random.Generator(np.random.PCG64([seed, round_number]))
    shuffles, rest = divmod(steps * policy.batch, rows)
    drawn = [generator.permutation(rows) for _ in range(shuffles)] + [generator.choice(rows, rest, replace=False)]
    return np.concatenate(drawn).astype(np.int32).reshape(steps, policy.batch)


def mask_seed(seed: int, round_number: int) -> np.int32:
    """First half of the seed of a round's dropout masks; the second half is the step, from 0."""
    return np.int32(np.random.SeedSequence([seed, round_number]).generate_state(1)[0] >> 1)


def measure(spec: ModelSpec, vector: Vector, rows: BankRows, section: ThresholdSection) -> Evaluation:
    """What `Learner.evaluate` answers, by the numpy forward pass; training rows choose where validation is empty."""
    settled = settle(section, spec.kind, rows.legitimate_per_day)
    assert settled.kind is not None
    chooser = rows.validation if len(rows.validation) else rows.train
    chosen_on = _scores(spec, vector, chooser)
    threshold = choose(settled.kind, settled.value, chosen_on, chooser.labels, rows.legitimate_per_day)
    result: dict[str, Metrics] = {}
    for name, part in (("validation", rows.validation), ("own_test", rows.own_test), ("test", rows.pooled_test)):
        if len(part):
            values = chosen_on if part is chooser else _scores(spec, vector, part)
            result[name] = metrics.evaluate(values, part.labels, threshold, spec.kind)
    if len(rows.gate):
        result["gate"] = _at_the_gate(spec, vector, rows, chosen_on, threshold)
    return Evaluation(result, threshold)


def _at_the_gate(
    spec: ModelSpec, vector: Vector, rows: BankRows, validated: NDArray[np.float32], threshold: float
) -> Metrics:
    """Metrics of `rows.gate`, the loss calibrated: its first rows are those of validation, whose scores are known."""
    known, gate = len(rows.validation), rows.gate
    borrowed = Rows(gate.features[known:], gate.labels[known:])
    scores = np.concatenate([validated[:known], _scores(spec, vector, borrowed)])
    measured = metrics.evaluate(scores, gate.labels, threshold, spec.kind)
    if spec.kind == "mlp" and 0 < gate.frauds < len(gate):
        measured["loss"] = metrics.calibrated_log_loss(scores, gate.labels)
    return {
        **measured,
        "frauds": gate.frauds,
        "borrowed": len(borrowed),
        "alert_rate": float(metrics.alerts(scores, threshold).mean()),
    }


def _scores(spec: ModelSpec, vector: Vector, rows: Rows) -> NDArray[np.float32]:
    values = forward.scores(spec, vector, rows.features)
    if not np.isfinite(values).all():
        raise P2PFedError("the model's scores are not finite numbers: its weights have grown beyond float32")
    return values
