"""What a learner measures for the decision which model serves, where validation has few frauds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from p2pfed.config import ThresholdSection
from p2pfed.core import forward
from p2pfed.core.model import ModelSpec, TrainingPolicy
from p2pfed.core.rows import BankRows, Rows
from p2pfed.learning.learner import EvaluateJob, StackedBank, measure
from p2pfed.learning.metrics import calibrated_log_loss, evaluate
from p2pfed.learning.numpy_learner import NumpyLearner
from p2pfed.learning.one_by_one import OneByOne
from tests.learning.rows import bank_rows

MLP = ModelSpec("mlp", 6, (8,), 0.0)
POLICY = TrainingPolicy(0, 64, 2e-3, (3,), "none", 10.0)
VECTOR = MLP.initial_weights(1).vector


def with_gate(borrowed: int) -> BankRows:
    rows = bank_rows()
    frauds = np.flatnonzero(rows.train.labels == 1)[:borrowed]
    features = np.concatenate([rows.validation.features, rows.train.features[frauds]])
    return replace(rows, gate=Rows(features, np.concatenate([rows.validation.labels, rows.train.labels[frauds]])))


def test_without_gate_rows_there_are_no_metrics_of_them() -> None:
    assert "gate" not in measure(MLP, VECTOR, bank_rows(), ThresholdSection()).metrics


@pytest.mark.parametrize("borrowed", [0, 7])
def test_the_gate_is_measured_with_what_was_borrowed(borrowed: int) -> None:
    rows = with_gate(borrowed)
    found = measure(MLP, VECTOR, rows, ThresholdSection())
    gate = found.metrics["gate"]

    scores = forward.scores(MLP, VECTOR, rows.gate.features)
    assert gate["auprc"] == pytest.approx(evaluate(scores, rows.gate.labels, found.threshold)["auprc"])
    assert (gate["frauds"], gate["borrowed"]) == (rows.validation.frauds + borrowed, borrowed)
    assert gate["alert_rate"] == (scores > found.threshold).mean()
    if not borrowed:
        shared = found.metrics["validation"]
        assert {name: gate[name] for name in shared} == shared | {"loss": gate["loss"]}
    # threshold and the other sets do not know of it
    plain = measure(MLP, VECTOR, replace(rows, gate=bank_rows().gate), ThresholdSection())
    assert plain.threshold == found.threshold
    assert plain.metrics == {name: m for name, m in found.metrics.items() if name != "gate"}


def test_the_loss_at_the_gate_is_calibrated() -> None:
    """What weighing frauds by their rarity does to all scores alike is no loss; what ranks worse is."""
    rng = np.random.default_rng(4)
    labels = np.repeat([1, 0], (6, 300))
    odds = rng.standard_normal(306) + 3 * labels - 4

    def loss(said: np.ndarray) -> float:
        return calibrated_log_loss(1 / (1 + np.exp(-said)), labels)

    assert loss(odds + 3) == pytest.approx(loss(odds), rel=0.01)
    assert loss(3 * odds) == pytest.approx(loss(odds), rel=0.02)
    assert loss(-odds) == pytest.approx(loss(0 * odds)), "turned around it would be a good one"
    assert loss(-odds) > 1.5 * loss(odds)
    assert loss(rng.permuted(odds)) > 1.5 * loss(odds)
    assert loss(np.where(labels == 1, 90.0, -90.0)) > 0, "also where all rows are told apart"


def test_an_autoencoders_gate_is_its_loss_on_legitimate_rows() -> None:
    spec = ModelSpec("autoencoder", 6, (4, 2, 4), 0.0)
    found = measure(spec, spec.initial_weights(0).vector, with_gate(5), ThresholdSection())
    assert found.metrics["gate"]["loss"] == pytest.approx(found.metrics["validation"]["loss"])


def test_one_by_one_gives_the_same() -> None:
    rows = with_gate(5)
    learner = NumpyLearner(MLP, POLICY, rows, ThresholdSection())
    (many,) = OneByOne([learner]).evaluate([EvaluateJob(0, VECTOR)])
    assert many == measure(MLP, VECTOR, rows, ThresholdSection())


@pytest.mark.tf
def test_a_stack_gives_the_same() -> None:
    from p2pfed.learning.batched import StackedLearner

    banks: list[Any] = [StackedBank(with_gate(5), 1.0, 0, ThresholdSection())] * 2
    many = StackedLearner(MLP, POLICY, banks, width=2).evaluate([EvaluateJob(b, VECTOR) for b in (0, 1)])
    assert many == [measure(MLP, VECTOR, banks[0].rows, ThresholdSection())] * 2
