"""Two models of the same banks: each job goes to the learner of its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from p2pfed.learning.by_model import ByModel
from p2pfed.learning.learner import EvaluateJob, Evaluation, TrainJob, TrainResult


class Noting:
    """Answers with its own number and the bank's."""

    def __init__(self, number: int) -> None:
        self.number, self.asked, self.forgotten = number, 0, []

    def train(self, jobs: Sequence[TrainJob]) -> list[TrainResult]:
        self.asked += 1
        return [TrainResult(job.vector, b"", self.number, job.bank, 0.0) for job in jobs]

    def evaluate(self, jobs: Sequence[EvaluateJob]) -> list[Evaluation]:
        self.asked += 1
        return [Evaluation({}, 10 * self.number + job.bank) for job in jobs]

    def forget(self, bank: int) -> None:
        self.forgotten.append(bank)


def vector(size: int) -> np.ndarray:
    return np.zeros(size, np.float32)


def test_every_job_is_done_by_the_learner_of_its_model_and_answers_keep_their_order() -> None:
    old, new = Noting(1), Noting(2)
    both = ByModel({3: old, 5: new})
    trained = both.train([TrainJob(bank, vector(size), b"", 1) for bank, size in enumerate((5, 3, 5))])
    assert [(result.loss, result.steps) for result in trained] == [(2, 0), (1, 1), (2, 2)]
    measured = both.evaluate([EvaluateJob(bank, vector(size)) for bank, size in ((1, 3), (0, 5), (1, 5))])
    assert [result.threshold for result in measured] == [11, 20, 21]
    both.evaluate([EvaluateJob(0, vector(3))])
    assert (old.asked, new.asked) == (3, 2), "who has nothing to do is not asked"
    both.forget(2)
    assert old.forgotten == new.forgotten == [2]


def test_two_jobs_of_one_bank_are_refused_whatever_their_models() -> None:
    both = ByModel({3: Noting(1), 5: Noting(2)})
    with pytest.raises(ValueError, match="bank 0 has two"):
        both.train([TrainJob(0, vector(3), b"", 1), TrainJob(0, vector(5), b"", 1)])
