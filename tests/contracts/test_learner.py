"""What every Learner must do, run over the Keras one and the numpy one."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from p2pfed.config import ThresholdSection
from p2pfed.core.model import ModelSpec, TrainingPolicy
from p2pfed.core.rows import BankRows, Rows
from p2pfed.errors import DataError
from p2pfed.learning.learner import Learner
from tests.learning.rows import bank_rows

MLP = ModelSpec("mlp", 6, (8, 4), 0.0)
DROPPING = ModelSpec("mlp", 6, (8, 4), 0.25)
AUTOENCODER = ModelSpec("autoencoder", 6, (4, 2, 4), 0.0)
POLICY = TrainingPolicy(30, 64, 5e-3, (2,), "none", 10.0)

Make = Callable[..., Learner]


@pytest.fixture(params=["numpy", pytest.param("keras", marks=pytest.mark.tf)])
def make(request: pytest.FixtureRequest) -> Make:
    if request.param == "numpy":
        from p2pfed.learning.numpy_learner import NumpyLearner as Implementation
    else:
        from p2pfed.learning.keras_learner import KerasLearner as Implementation

    def made(spec: ModelSpec = MLP, rows: BankRows | None = None, **changes: Any) -> Learner:
        policy, section = changes.pop("policy", POLICY), changes.pop("threshold", ThresholdSection())
        return Implementation(spec, policy, rows or bank_rows(), section, **changes)

    return made


def start(spec: ModelSpec) -> np.ndarray:
    return spec.initial_weights(1).vector


@pytest.mark.parametrize("spec", [MLP, DROPPING, AUTOENCODER], ids=["mlp", "dropout", "autoencoder"])
def test_the_same_arguments_give_the_same_result(make: Make, spec: ModelSpec) -> None:
    learner = make(spec, seed=3)
    first = learner.train(start(spec), b"", 1)
    second = learner.train(first.vector, first.optimiser, 2)
    other = make(spec, seed=3).train(first.vector, first.optimiser, 2)
    assert np.array_equal(second.vector, other.vector)
    assert second.optimiser == other.optimiser and second.loss == other.loss
    assert not np.array_equal(make(spec, seed=4).train(start(spec), b"", 1).vector, first.vector)


def test_an_empty_optimiser_goes_on_with_the_state_before(make: Make) -> None:
    goes_on, restored, forgetful = make(), make(), make()
    first = goes_on.train(start(MLP), b"", 1)
    by_itself = goes_on.train(first.vector, b"", 2)
    assert np.array_equal(by_itself.vector, restored.train(first.vector, first.optimiser, 2).vector)
    assert not np.array_equal(by_itself.vector, forgetful.train(first.vector, b"", 2).vector)


def test_training_lowers_the_loss_and_finds_frauds(make: Make) -> None:
    learner = make(DROPPING, policy=replace(POLICY, decay_rounds=()))
    before = learner.evaluate(start(DROPPING)).metrics["own_test"]
    vector, losses = start(DROPPING), []
    for round_number in range(1, 7):
        result = learner.train(vector, b"", round_number)
        vector, losses = result.vector, [*losses, result.loss]
    after = learner.evaluate(vector).metrics["own_test"]
    assert losses[-1] < 0.6 * losses[0]
    assert after["auprc"] > 0.8 > before["auprc"] and after["loss"] < before["loss"]


def test_the_vector_handed_in_is_not_written_to(make: Make) -> None:
    vector = start(MLP)
    assert not vector.flags.writeable
    kept = vector.copy()
    result = make().train(vector, b"", 1)
    assert np.array_equal(vector, kept) and result.vector.dtype == np.float32


def test_results_stay_what_they_were_after_the_next_round(make: Make) -> None:
    learner = make()
    first = learner.train(start(MLP), b"", 1)
    kept = first.vector.copy()
    learner.train(first.vector, b"", 2)
    assert np.array_equal(first.vector, kept)


@pytest.mark.parametrize(("local_steps", "rows", "steps"), [(30, 1000, 30), (0, 1000, 16), (0, 64, 1), (5, 10, 5)])
def test_a_round_is_local_steps_or_one_epoch(make: Make, local_steps: int, rows: int, steps: int) -> None:
    policy = replace(POLICY, local_steps=local_steps)
    assert make(rows=bank_rows(train=rows), policy=policy).train(start(MLP), b"", 1).steps == steps


def test_the_rate_falls_by_five_after_a_decay_round(make: Make) -> None:
    # one first step of Adam moves every weight by the rate, whatever the gradient
    policy = replace(POLICY, local_steps=1)
    moved = [np.abs(make(policy=policy).train(start(MLP), b"", r).vector - start(MLP)).max() for r in (2, 3)]
    assert moved == pytest.approx([5e-3, 1e-3], rel=0.01)


def test_a_positive_weight_raises_the_scores(make: Make) -> None:
    plain, weighted = (make(positive_weight=w).train(start(MLP), b"", 1) for w in (1.0, 10.0))
    assert weighted.loss > plain.loss
    assert weighted.vector[-1] > plain.vector[-1]  # the output's bias


def test_an_autoencoder_learns_from_legitimate_rows_only(make: Make) -> None:
    rows = bank_rows()
    fraud = rows.train.labels > 0.5
    changed = rows.train.features.copy()
    changed[fraud] = 1e6
    other = replace(rows, train=Rows(changed, rows.train.labels))
    vectors = [make(AUTOENCODER, r).train(start(AUTOENCODER), b"", 1).vector for r in (rows, other)]
    assert np.array_equal(*vectors)


def test_an_autoencoder_flags_two_percent_of_legitimate_payments(make: Make) -> None:
    evaluation = make(AUTOENCODER).evaluate(start(AUTOENCODER))
    (tn, fp), _ = evaluation.metrics["validation"]["confusion"]
    assert 0 < fp <= 0.02 * (tn + fp) + 1


def test_row_sets_without_rows_are_absent(make: Make) -> None:
    assert set(make().evaluate(start(MLP)).metrics) == {"validation", "own_test"}
    full = replace(bank_rows(), pooled_test=bank_rows(9).own_test)
    assert set(make(rows=full).evaluate(start(MLP)).metrics) == {"validation", "own_test", "test"}


def test_a_bank_without_a_fraud_still_trains_and_measures(make: Make) -> None:
    rows = bank_rows()

    def only_legitimate(part: Rows) -> Rows:
        keep = part.labels < 0.5
        return Rows(part.features[keep], part.labels[keep])

    learner = make(rows=replace(rows, train=only_legitimate(rows.train), validation=only_legitimate(rows.validation)))
    evaluation = learner.evaluate(learner.train(start(MLP), b"", 1).vector)
    assert evaluation.metrics["validation"]["auprc"] is None
    assert evaluation.metrics["own_test"]["auprc"] is not None


def test_what_does_not_fit_the_model_is_refused(make: Make) -> None:
    with pytest.raises(ValueError, match="expected a vector"):
        make().train(start(MLP)[:-1], b"", 1)
    with pytest.raises(ValueError, match="optimiser state"):
        make().train(start(MLP), b"12345678", 1)
    with pytest.raises(ValueError, match="at least one row"):
        make(rows=bank_rows(train=0))


def test_a_training_that_diverges_begins_anew_with_the_next_round(make: Make) -> None:
    learner = make(policy=replace(POLICY, learning_rate=1e30, decay_rounds=tuple(range(1, 50))))
    diverged = learner.train(start(MLP), b"", 1)
    assert not np.isfinite(diverged.vector).all()
    assert np.isfinite(learner.train(start(MLP), b"", 50).vector).all(), "a NaN in Adam's means would stay for ever"
    assert np.isfinite(np.frombuffer(diverged.optimiser[8:], np.float32)).all()


def test_an_alert_budget_needs_a_time(make: Make) -> None:
    budget = ThresholdSection(kind="alerts_per_day", value=5)
    assert make(threshold=budget).evaluate(start(MLP)).metrics["validation"]["confusion"][0][1] <= 5 / 50 * 400
    with pytest.raises(DataError, match="event_time"):
        make(rows=replace(bank_rows(), legitimate_per_day=0.0), threshold=budget).evaluate(start(MLP))
