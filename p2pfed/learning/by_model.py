"""Banks that come to train another model: the ManyLearner which hands each job to the learner of its model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from p2pfed.learning.learner import (
    EvaluateJob,
    Evaluation,
    ManyLearner,
    TrainJob,
    TrainResult,
    refuse_two_of_one_bank,
)

Job = TypeVar("Job", TrainJob, EvaluateJob)
Result = TypeVar("Result")


class ByModel:
    """ManyLearner over one ManyLearner a model, told apart by their numbers of weights."""

    def __init__(self, learners: Mapping[int, ManyLearner]) -> None:
        self._learners = learners

    def train(self, jobs: Sequence[TrainJob]) -> list[TrainResult]:
        """See `ManyLearner.train`."""
        refuse_two_of_one_bank(jobs)
        return self._shared(jobs, lambda learner, mine: learner.train(mine))

    def evaluate(self, jobs: Sequence[EvaluateJob]) -> list[Evaluation]:
        """See `ManyLearner.evaluate`."""
        return self._shared(jobs, lambda learner, mine: learner.evaluate(mine))

    def forget(self, bank: int) -> None:
        """See `ManyLearner.forget`."""
        for learner in self._learners.values():
            learner.forget(bank)

    def _shared(self, jobs: Sequence[Job], work: Callable[[ManyLearner, list[Job]], list[Result]]) -> list[Result]:
        """What each job gives, in their order."""
        results: dict[int, Result] = {}
        for size, learner in self._learners.items():
            mine = [i for i, job in enumerate(jobs) if job.vector.size == size]
            if mine:
                results.update(zip(mine, work(learner, [jobs[i] for i in mine]), strict=True))
        return [results[i] for i in range(len(jobs))]
