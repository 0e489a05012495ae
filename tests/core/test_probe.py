"""A bank's own rows as the measure of a model."""

from __future__ import annotations

import math
from unittest.mock import Mock

import numpy as np
import pytest

from p2pfed.core.aggregation import Ubar
from p2pfed.core.merging import Merging
from p2pfed.core.model import ModelSpec
from p2pfed.core.probe import HELD_OUT, Probe
from p2pfed.core.reputation import Reputation
from p2pfed.core.rows import BankRows, Rows
from tests.core.heap import make_manifest

SPEC = ModelSpec("mlp", 1, (1,), 0.0)


def probe(labels: list[float]) -> Probe:
    """Held-out rows 1, 2 and 3, one fraud of 4."""
    return Probe(np.array([1, 2, 3], np.float32), np.array([4], np.float32), np.array(labels, np.float32))


def model(slope: float, offset: float) -> np.ndarray:
    """Says sigmoid(slope * relu(x) + offset)."""
    return np.array([1, 0, slope, offset], np.float32)


def test_the_loss_is_the_log_loss_with_both_kinds_counting_alike() -> None:
    said = [1 / (1 + math.exp(-(2 * x - 5))) for x in (1, 2, 3, 4)]
    fraud, legitimate = [said[2], said[3]], [said[0], said[1]]
    expected = (np.mean([-math.log(p) for p in fraud]) + np.mean([-math.log(1 - p) for p in legitimate])) / 2
    assert probe([0, 0, 1]).loss(SPEC, model(2, -5)) == pytest.approx(expected, rel=1e-5)


def test_no_model_has_an_endless_loss_for_one_sure_mistake_but_for_overflowing() -> None:
    assert probe([0, 0, 1]).loss(SPEC, model(0, 1e6)) == pytest.approx(-math.log(1e-7) / 2)
    assert probe([0, 0, 1]).loss(SPEC, np.array([3e38, 0, 0, 0], np.float32)) == math.inf


def test_without_labels_all_models_are_alike() -> None:
    assert probe([]).loss(SPEC, model(0, 1e6)) == probe([]).loss(SPEC, model(2, -5)) == 0.0


def test_an_autoencoder_is_measured_by_its_error_on_legitimate_rows() -> None:
    spec = ModelSpec("autoencoder", 1, (1,), 0.0)
    identity_but_one = model(1, 1)
    assert probe([0, 1, 0]).loss(spec, identity_but_one) == pytest.approx(1)
    assert probe([1, 1, 1]).loss(spec, identity_but_one) == 0.0


def disagreement(of: Probe, own: np.ndarray, other: np.ndarray, times: float = 1.0) -> float:
    """Where the other bank told that it has so many times as many frauds."""
    mine, theirs = of.scores(SPEC, np.stack([own, other])).reshape(2, 1, -1)
    alike = of.at_own_rate(SPEC, mine[0], theirs, np.log([times]))
    return float(of.disagreements(SPEC, mine[0], alike)[0])


@pytest.mark.parametrize("times", [1 / 11, 1 / 3, 3, 8, 11])
def test_a_model_of_a_bank_with_another_share_of_frauds_disagrees_with_nobody(times: float) -> None:
    own, other = model(2, -5), model(2, -5 + math.log(times))
    assert disagreement(probe([0, 0, 1]), own, other, times) == pytest.approx(0, abs=1e-6)
    told_less = disagreement(probe([0, 0, 1]), own, other, math.sqrt(times))
    assert disagreement(probe([0, 0, 1]), own, other) > told_less > 0.02, "no more is taken off than was told"
    other_way = disagreement(probe([0, 0, 1]), own, other, 1 / times)
    assert other_way == pytest.approx(disagreement(probe([0, 0, 1]), own, other))
    assert disagreement(probe([0, 0, 1]), own, own) == pytest.approx(0, abs=1e-6)


def test_what_another_share_of_frauds_does_not_explain_stays() -> None:
    own, reversed_, huge = model(2, -5), model(-2, 5), np.array([3e38, 0, 0, 0], np.float32)
    assert disagreement(probe([0, 0, 1]), own, reversed_, 11) > 0.3
    assert disagreement(probe([0, 0, 1]), own, huge, 11) == 1.0


def test_autoencoders_and_banks_without_held_out_rows_know_no_share_of_frauds() -> None:
    spec, said = ModelSpec("autoencoder", 1, (1,), 0.0), np.array([[0.5, 2.0, 3.0, 9.0]])
    assert probe([0, 0, 1]).at_own_rate(spec, said[0] / 2, said, np.ones(1)) is said
    nothing = Probe(np.zeros(0, np.float32), np.array([4], np.float32))
    assert nothing.at_own_rate(SPEC, said[0, :1], said[:, :1], np.ones(1)).tolist() == [[0.5]]


def test_labels_stay_with_their_rows_when_a_bank_has_many() -> None:
    values = np.arange(1000, dtype=np.float32)
    held_out = Rows(values[:, None], (values % 7 == 0).astype(np.float32))
    of = Probe.of(BankRows(held_out, held_out, held_out, held_out, 0.0))
    assert len(of.labels) == len(of.held_out) == HELD_OUT
    np.testing.assert_array_equal(of.labels, of.held_out % 7 == 0)


def test_a_rule_that_asks_for_losses_sees_those_of_the_rows_that_the_trainer_sent() -> None:
    manifest, reputation = make_manifest(3, rule="ubar"), Reputation(make_manifest(3).model, 3, 0)
    merging = Merging(manifest, Mock(), reputation, Mock())
    assert isinstance(merging.rule, Ubar)
    rng, width = np.random.default_rng(0), manifest.model.inputs
    vector = manifest.model.initial_weights(0).vector
    before = merging.rule.loss(vector)
    reputation.yardstick.probe = Probe(*rng.normal(0, 1, (2, 8 * width)).astype(np.float32), np.ones(8, np.float32))
    assert before == 0.0
    assert merging.rule.loss(vector) == reputation.yardstick.probe.loss(manifest.model, vector) > 0


@pytest.mark.parametrize("kind", ["mlp", "autoencoder"])
def test_an_own_model_that_overflows_is_as_odd_as_can_be_and_gives_no_nan(kind: str) -> None:
    spec, broken = ModelSpec(kind, 1, (1,), 0.0), np.array([3e38, 0, 0, 0], np.float32)
    mine, fine = probe([]).scores(spec, np.stack([broken, model(2, -5)]))
    assert np.isinf(mine).any() and np.isfinite(fine).all()
    most = 1.0 if kind == "mlp" else 1e6
    assert probe([]).disagreements(spec, mine, np.stack([mine, fine])).tolist() == [most, most]
    recognised, recognitions = probe([]).recognitions(spec, mine, np.stack([mine, fine]))
    assert 0 <= recognised <= 1 and ((recognitions >= 0) & (recognitions <= 1)).all()
