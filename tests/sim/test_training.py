"""Jobs of many trainers: computed together, lost with their trainer."""

from collections.abc import Sequence

import numpy as np
import pytest

from p2pfed.core.effects import StartEvaluation, StartTraining
from p2pfed.core.inputs import EvaluationFinished, TrainerLost
from p2pfed.errors import P2PFedError
from p2pfed.learning.learner import EvaluateJob, Evaluation, TrainJob, TrainResult
from p2pfed.sim.training import Trainers


class Counting:
    """A ManyLearner that adds one, remembers how many were asked together, and cannot measure a negative model."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.forgotten: list[int] = []

    def train(self, jobs: Sequence[TrainJob]) -> list[TrainResult]:
        self.calls.append([job.bank for job in jobs])
        return [TrainResult(job.vector + np.float32(1), b"adam", 0.5, 3, 9.9) for job in jobs]

    def evaluate(self, jobs: Sequence[EvaluateJob]) -> list[Evaluation]:
        self.calls.append([job.bank for job in jobs])
        if any(job.vector[0] < 0 for job in jobs):
            raise P2PFedError("no numbers")
        return [Evaluation({"test": {"auprc": float(job.vector[0])}}, 0.5) for job in jobs]

    def forget(self, bank: int) -> None:
        self.forgotten.append(bank)


@pytest.fixture
def learner() -> Counting:
    return Counting()


@pytest.fixture
def trainers(learner: Counting) -> Trainers:
    return Trainers(learner, [2.0, 4.0, 6.0], lambda: 1.5)


def model(value: float) -> np.ndarray:
    return np.full(2, value, np.float32)


def test_all_that_wait_are_trained_when_the_first_is_due(trainers, learner):
    jobs = [trainers.train(node, StartTraining(1, model(node), b"")) for node in (0, 1, 2)]
    assert [job.seconds for job in jobs] == [3.0, 6.0, 9.0] and not learner.calls
    done = trainers.trained(jobs[0])
    later = trainers.train(0, StartTraining(2, done.vector, b""))
    assert done.round == 1 and done.vector[0] == 1 and done.seconds == 3.0 and done.optimiser == b"adam"
    assert trainers.trained(jobs[1]).vector[0] == 2 and trainers.trained(jobs[2]).vector[0] == 3
    assert learner.calls == [[0, 1, 2]]
    assert trainers.trained(later).vector[0] == 2 and learner.calls[1:] == [[0]]


def test_evaluations_are_gathered_too_and_keep_their_purpose(trainers, learner):
    jobs = [trainers.measure(1, StartEvaluation(purpose, model(i))) for i, purpose in enumerate(("a", "b"))]
    assert trainers.measured(jobs[1]) == EvaluationFinished("b", {"test": {"auprc": 1.0}}, 0.5)
    assert trainers.measured(jobs[0]).purpose == "a" and learner.calls == [[1, 1]]


def test_what_is_lost_never_comes_whether_it_was_computed_or_not(trainers, learner):
    first, other = (trainers.train(node, StartTraining(1, model(0), b"")) for node in (0, 1))
    trainers.trained(other)
    waiting = trainers.measure(0, StartEvaluation("a", model(0)))
    trainers.lose(0)
    assert trainers.trained(first) is None and trainers.measured(waiting) is None
    assert learner.forgotten == [0]


def test_one_trainer_that_dies_of_its_model_takes_no_other_with_it(trainers, learner):
    bad, good = (trainers.measure(i, StartEvaluation("a", model(v))) for i, v in enumerate((-1.0, 1.0)))
    training = trainers.train(0, StartTraining(1, model(0), b""))
    assert trainers.measured(bad) == TrainerLost("no numbers")
    assert trainers.measured(good).threshold == 0.5
    assert trainers.trained(training) is None and learner.forgotten == [0]


def test_a_new_training_takes_the_place_of_one_that_is_still_under_way(trainers, learner):
    """As when a cycle ends, and the next begins at once, while a slow bank trains its last round."""
    late, next_one = (trainers.train(0, StartTraining(number, model(number), b"", number)) for number in (1, 2))
    assert trainers.trained(late) is None
    assert trainers.trained(next_one).round == 2 and learner.calls == [[0]]


def test_a_closed_trainer_measures_nothing_any_more(trainers, learner):
    old, new = (trainers.measure(0, StartEvaluation("a", model(1), cycle)) for cycle in (1, 2))
    other = trainers.measure(1, StartEvaluation("a", model(1), 1))
    trainers.close(0, 1)
    assert trainers.measured(old) is None
    assert trainers.measured(new).threshold == trainers.measured(other).threshold == 0.5
