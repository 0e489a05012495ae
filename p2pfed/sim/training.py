"""The trainers of all simulated nodes: jobs wait until the first of them is due, then all are done in one call.

What a job gives depends on nothing but what was submitted, so it does not matter when it is computed: the work of many
nodes can be stacked, and virtual time is none the wiser.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from p2pfed.core.effects import StartEvaluation, StartTraining
from p2pfed.core.inputs import EvaluationFinished, TrainerLost, TrainingFinished
from p2pfed.errors import P2PFedError
from p2pfed.learning.learner import EvaluateJob, Evaluation, ManyLearner, TrainJob, TrainResult


@dataclass(frozen=True, eq=False, slots=True)
class Training:
    """One round of one node under way."""

    job: TrainJob
    seconds: float
    """How long it takes in virtual time."""


@dataclass(frozen=True, eq=False, slots=True)
class Measuring:
    """One evaluation of one node under way."""

    job: EvaluateJob
    purpose: str
    seconds: float
    cycle: int


Job = TypeVar("Job", Training, Measuring)
Value = TypeVar("Value")


class Trainers:
    """Every node's trainer child."""

    def __init__(self, learner: ManyLearner, round_seconds: Sequence[float], vary: Callable[[], float]) -> None:
        """`round_seconds` is each node's usual time for a round; `vary` draws the factor it differs by."""
        self._learner, self._round_seconds, self._vary = learner, round_seconds, vary
        self._to_train: dict[Training, None] = {}
        self._to_measure: dict[Measuring, None] = {}
        self._trained: dict[Training, TrainResult] = {}
        self._measured: dict[Measuring, Evaluation | P2PFedError] = {}

    def train(self, node: int, asked: StartTraining) -> Training:
        """Submit a round of training. Of one that is still under way nobody wants the result any more."""
        self._to_train, self._trained = _without(node, self._to_train), _without(node, self._trained)
        job = TrainJob(node, asked.vector, asked.optimiser, asked.round)
        training = Training(job, self._round_seconds[node] * self._vary())
        self._to_train[training] = None
        return training

    def trained(self, training: Training) -> TrainingFinished | None:
        """The result of a job that is due, computed with all that wait if it is not there yet; None if it was lost."""
        if training in self._to_train:
            results = self._learner.train([t.job for t in self._to_train])
            self._trained.update(zip(self._to_train, results, strict=True))
            self._to_train.clear()
        result = self._trained.pop(training, None)
        if result is None:
            return None
        return TrainingFinished(
            training.job.round, result.vector, result.optimiser, result.loss, result.steps, training.seconds
        )

    def measure(self, node: int, asked: StartEvaluation) -> Measuring:
        """Submit an evaluation. It is done beside the training, and takes as long as a round of that."""
        measuring = Measuring(EvaluateJob(node, asked.vector), asked.purpose, self._round_seconds[node], asked.cycle)
        self._to_measure[measuring] = None
        return measuring

    def measured(self, measuring: Measuring) -> EvaluationFinished | TrainerLost | None:
        """As `trained`; TrainerLost where the trainer dies of it, as a child does of scores that are no numbers."""
        if measuring in self._to_measure:
            results = evaluate_each(self._learner, [m.job for m in self._to_measure])
            self._measured.update(zip(self._to_measure, results, strict=True))
            self._to_measure.clear()
        result = self._measured.pop(measuring, None)
        if isinstance(result, P2PFedError):
            self.lose(measuring.job.bank)
            return TrainerLost(str(result), measuring.cycle)
        if result is None:
            return None
        return EvaluationFinished(measuring.purpose, result.metrics, result.threshold)

    def close(self, node: int, cycle: int) -> None:
        """The trainers of `cycle` and of those before end: of what they measure nobody hears."""
        self._to_measure = _after(node, cycle, self._to_measure)
        self._measured = _after(node, cycle, self._measured)

    def lose(self, node: int) -> None:
        """The node's trainer dies, and with it all its jobs."""
        self._to_train = _without(node, self._to_train)
        self._trained = _without(node, self._trained)
        self._to_measure = _without(node, self._to_measure)
        self._measured = _without(node, self._measured)
        self._learner.forget(node)


def evaluate_each(learner: ManyLearner, jobs: Sequence[EvaluateJob]) -> list[Evaluation | P2PFedError]:
    """What each of the jobs gives: together if that is possible, one by one if one of them fails."""
    try:
        return list(learner.evaluate(jobs))
    except P2PFedError as error:
        return [error] if len(jobs) == 1 else [result for job in jobs for result in evaluate_each(learner, [job])]


def _without(node: int, jobs: dict[Job, Value]) -> dict[Job, Value]:
    return {job: value for job, value in jobs.items() if job.job.bank != node}


def _after(node: int, cycle: int, jobs: dict[Measuring, Value]) -> dict[Measuring, Value]:
    return {job: value for job, value in jobs.items() if job.job.bank != node or job.cycle > cycle}
