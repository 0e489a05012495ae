"""What every ManyLearner must do: the stacked one, and loops over the Keras and the numpy Learner."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from p2pfed.config import ThresholdSection
from p2pfed.core.model import ModelSpec, TrainingPolicy
from p2pfed.core.rows import Rows
from p2pfed.learning.learner import EvaluateJob, ManyLearner, StackedBank, TrainJob, measure
from p2pfed.learning.numpy_learner import NumpyLearner
from p2pfed.learning.one_by_one import OneByOne
from tests.learning.rows import bank_rows, draw

MLP = ModelSpec("mlp", 6, (8, 4), 0.0)
DROPPING = replace(MLP, dropout=0.25)
AUTOENCODER = ModelSpec("autoencoder", 6, (4, 2, 4), 0.0)
SPECS = pytest.mark.parametrize("spec", [MLP, DROPPING, AUTOENCODER], ids=["mlp", "dropout", "autoencoder"])
EPOCH = TrainingPolicy(0, 64, 5e-3, (2,), "none", 10.0)
SIZES = (300, 20, 1000)
"""Training rows by bank: 5, 1 and 16 steps an epoch, with a batch that is longer than a bank among them."""

Make = Callable[..., ManyLearner]


def banks(sizes: Sequence[int] = SIZES) -> list[StackedBank]:
    return [
        StackedBank(bank_rows(10 * i, n), 1.0 + i, 7 + i, ThresholdSection(kind="percentile", value=90.0 + i))
        for i, n in enumerate(sizes)
    ]


def one_by_one(implementation: Any, spec: ModelSpec, policy: TrainingPolicy, many: Sequence[StackedBank]) -> OneByOne:
    return OneByOne(
        [
            implementation(spec, policy, b.rows, b.threshold, positive_weight=b.positive_weight, seed=b.seed)
            for b in many
        ]
    )


@pytest.fixture(
    params=["numpy", pytest.param("keras", marks=pytest.mark.tf), pytest.param("stacked", marks=pytest.mark.tf)]
)
def make(request: pytest.FixtureRequest) -> Make:
    def made(spec: ModelSpec = MLP, policy: TrainingPolicy = EPOCH, many: Any = None) -> ManyLearner:
        many = banks() if many is None else many
        if request.param == "numpy":
            return one_by_one(NumpyLearner, spec, policy, many)
        if request.param == "keras":
            from p2pfed.learning.keras_learner import KerasLearner

            return one_by_one(KerasLearner, spec, policy, many)
        from p2pfed.learning.batched import StackedLearner

        return StackedLearner(spec, policy, many, width=2)

    return made


def start(spec: ModelSpec, bank: int = 0) -> np.ndarray:
    return spec.initial_weights(bank).vector


def jobs(spec: ModelSpec = MLP, count: int = len(SIZES), round_number: int = 1) -> list[TrainJob]:
    return [TrainJob(bank, start(spec, bank), b"", round_number) for bank in range(count)]


def test_answers_come_in_the_order_of_the_jobs(make: Make) -> None:
    results = make().train([jobs()[bank] for bank in (1, 0, 2)])
    assert [r.steps for r in results] == [1, 5, 16]
    assert make().train([]) == [] and make().evaluate([]) == []


@pytest.mark.parametrize("spec", [MLP, AUTOENCODER], ids=["mlp", "autoencoder"])
def test_every_bank_is_trained_as_by_a_learner_of_its_own(make: Make, spec: ModelSpec) -> None:
    many, alone = make(spec), one_by_one(NumpyLearner, spec, EPOCH, banks())
    begun, expected = jobs(spec), jobs(spec)
    for round_number in (1, 2, 3):
        results, references = many.train(begun), alone.train(expected)
        for result, reference, job in zip(results, references, expected, strict=True):
            assert result.steps == reference.steps and result.loss == pytest.approx(reference.loss, rel=1e-3)
            # a norm: where a gradient is next to nothing, Adam makes of its rounding a step of full length
            apart, moved = (np.linalg.norm(reference.vector - v) for v in (result.vector, job.vector))
            assert apart < 2e-2 * moved
            assert result.optimiser[:8] == reference.optimiser[:8]
        begun, expected = (
            [TrainJob(bank, r.vector, b"", round_number + 1) for bank, r in enumerate(trained)]
            for trained in (results, references)
        )


@SPECS
def test_a_job_does_not_depend_on_the_jobs_beside_it(make: Make, spec: ModelSpec) -> None:
    together, shuffled, apart = make(spec), make(spec), make(spec)
    for round_number in (1, 2):
        asked = jobs(spec, round_number=round_number)
        first = together.train(asked)
        order = [2, 0, 1]
        second = dict(zip(order, shuffled.train([asked[bank] for bank in order]), strict=True))
        for bank, result in enumerate(first):
            alone = apart.train([asked[bank]])[0]
            for other in (second[bank], alone):
                assert np.array_equal(result.vector, other.vector)
                assert result.optimiser == other.optimiser and result.loss == other.loss


def test_the_optimiser_goes_on_is_handed_over_or_forgotten(make: Make) -> None:
    goes_on, restored, forgetful, fresh = make(), make(), make(), make()
    first = goes_on.train(jobs())
    forgetful.train(jobs())
    forgetful.forget(1)
    then = [TrainJob(bank, r.vector, b"", 2) for bank, r in enumerate(first)]
    with_states = [replace(job, optimiser=r.optimiser) for job, r in zip(then, first, strict=True)]
    by_itself, handed, forgot, anew = (
        many.train(asked)
        for many, asked in ((goes_on, then), (restored, with_states), (forgetful, then), (fresh, then))
    )
    for bank in range(len(SIZES)):
        assert np.array_equal(by_itself[bank].vector, handed[bank].vector)
        assert np.array_equal(forgot[bank].vector, (anew if bank == 1 else by_itself)[bank].vector)
        assert not np.array_equal(anew[bank].vector, by_itself[bank].vector)
    # the bank that forgot goes on from what it has learnt since, and one handed over counts for more than none
    last = [replace(job, round=3) for job in then]
    assert np.array_equal(forgetful.train(last)[1].vector, fresh.train(last)[1].vector)
    forgetful.forget(0)
    assert np.array_equal(forgetful.train(with_states)[0].vector, handed[0].vector)


def test_vectors_are_not_written_to_and_results_stay(make: Make) -> None:
    many, asked = make(), jobs()
    kept = [job.vector.copy() for job in asked]
    results = many.train(asked)
    copies = [r.vector.copy() for r in results]
    many.train([replace(job, round=2) for job in asked])
    assert all(np.array_equal(job.vector, before) for job, before in zip(asked, kept, strict=True))
    assert all(np.array_equal(r.vector, before) for r, before in zip(results, copies, strict=True))
    assert {r.vector.dtype for r in results} == {np.dtype(np.float32)}


@pytest.mark.parametrize(("local_steps", "steps"), [(7, [7, 7, 7]), (0, [5, 1, 16])])
def test_a_round_is_local_steps_or_one_epoch_of_each_bank(make: Make, local_steps: int, steps: list[int]) -> None:
    many = make(policy=replace(EPOCH, local_steps=local_steps))
    assert [r.steps for r in many.train(jobs())] == steps


def test_one_bank_that_diverges_leaves_the_others_alone(make: Make) -> None:
    features = draw(300, 0).features * np.float32(1e30)
    odd = replace(banks()[0], rows=replace(banks()[0].rows, train=Rows(features, draw(300, 0).labels)))
    wild, tame = make(many=[odd, *banks()[1:]]), make()
    diverged, expected = wild.train(jobs()), tame.train(jobs())
    assert not np.isfinite(diverged[0].vector).all()
    assert not np.frombuffer(diverged[0].optimiser, np.uint8).any()
    again = [replace(job, round=2) for job in jobs()]
    for bank in (1, 2):
        assert np.array_equal(diverged[bank].vector, expected[bank].vector)
    assert np.array_equal(wild.train(again)[2].vector, tame.train(again)[2].vector)


def test_what_does_not_fit_is_refused_before_anything_is_trained(make: Make) -> None:
    many, untouched = make(), make()
    good = jobs()
    for bad, message in (
        (TrainJob(1, start(MLP)[:-1], b"", 1), "expected a vector"),
        (TrainJob(1, start(MLP), b"12345678", 1), "optimiser state"),
        (good[0], "bank 0 has two"),
    ):
        with pytest.raises(ValueError, match=message):
            many.train([bad, good[0]])
    assert np.array_equal(many.train(good)[0].vector, untouched.train(good)[0].vector)
    with pytest.raises(ValueError, match="at least one row"):
        make(many=banks((64, 0)))


@SPECS
def test_evaluations_are_those_of_measure(make: Make, spec: ModelSpec) -> None:
    shared, odd = draw(5000, 99), draw(100, 98)
    many = [replace(bank, rows=replace(bank.rows, pooled_test=shared)) for bank in banks()]
    many[1] = replace(many[1], rows=replace(many[1].rows, pooled_test=odd))
    many[2] = replace(many[2], rows=replace(many[2].rows, pooled_test=draw(0, 0), validation=draw(0, 0)))
    answers = make(spec, many=many).evaluate([EvaluateJob(bank, start(spec, bank)) for bank in (2, 0, 1)])
    for answer, bank in zip(answers, (2, 0, 1), strict=True):
        expected = measure(spec, start(spec, bank), many[bank].rows, many[bank].threshold)
        assert answer.threshold == pytest.approx(expected.threshold, rel=1e-5)
        assert answer.metrics.keys() == expected.metrics.keys()
        for name, metrics in expected.metrics.items():
            for key in ("auprc", "auroc", "loss", "recall"):
                assert answer.metrics[name][key] == pytest.approx(metrics[key], rel=1e-4)
