"""Many banks trained one after the other by Learners of their own: the ManyLearner that needs no TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from p2pfed.learning.learner import (
    AdamState,
    EvaluateJob,
    Evaluation,
    Learner,
    StackedBank,
    TrainJob,
    TrainResult,
    refuse_two_of_one_bank,
)


class OneByOne:
    """ManyLearner over one Learner a bank, in the banks' order."""

    def __init__(self, learners: Sequence[Learner], make: Callable[[StackedBank], Learner] | None = None) -> None:
        """`make` is needed to `read`."""
        self._learners, self._make = list(learners), make
        self._forgotten: set[int] = set()

    def train(self, jobs: Sequence[TrainJob]) -> list[TrainResult]:
        """See `ManyLearner.train`."""
        refuse_two_of_one_bank(jobs)
        return [self._train(job) for job in jobs]

    def evaluate(self, jobs: Sequence[EvaluateJob]) -> list[Evaluation]:
        """See `ManyLearner.evaluate`."""
        return [self._learners[job.bank].evaluate(job.vector) for job in jobs]

    def forget(self, bank: int) -> None:
        """See `ManyLearner.forget`."""
        self._forgotten.add(bank)

    def read(self, bank: int, rows: StackedBank) -> None:
        """See `ReadsAnew.read`."""
        assert self._make is not None
        self._learners[bank] = self._make(rows)

    def _train(self, job: TrainJob) -> TrainResult:
        optimiser = job.optimiser
        if job.bank in self._forgotten and not optimiser:
            optimiser = AdamState.fresh(job.vector.size).to_bytes()
        result = self._learners[job.bank].train(job.vector, optimiser, job.round)
        self._forgotten.discard(job.bank)
        return result
