"""Lag is measured along the own movement, and whatever others send moves a candidate by a bounded amount."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pfed.core.aggregation import Candidate, KnowsTraining, rule_from_name
from p2pfed.core.momentum import Momentum
from p2pfed.core.training_scale import REACH, TrainingScale
from p2pfed.core.types import NodeId

SIZE = 50


def candidate(vector: np.ndarray, waited: int = 0, name: str = "A") -> Candidate:
    return Candidate(NodeId(name), vector.astype(np.float32), 100, waited)


def moving(step: np.ndarray, rounds: int = 60) -> tuple[Momentum, np.ndarray]:
    """A node that moves by `step` every round, and where it is."""
    momentum, at = Momentum(), np.zeros(SIZE, np.float32)
    for _ in range(rounds):
        momentum.push(at, at + step, merged=False)
        at = at + step
    return momentum, at


def step() -> np.ndarray:
    return np.random.default_rng(0).normal(size=SIZE).astype(np.float32)


def test_at_rest_nothing_is_changed() -> None:
    momentum, own = Momentum(), np.ones(SIZE, np.float32)
    given_ = [candidate(np.zeros(SIZE)), candidate(own, 3)]
    assert momentum.ahead(own, given_) == given_
    assert momentum.push(own, own, merged=True) is not None
    np.testing.assert_array_equal(momentum.push(own, own, merged=True), own)


@pytest.mark.parametrize("lag", [0.0, 0.5, 1.5])
def test_candidates_that_lag_are_moved_to_where_they_would_be_now(lag: float) -> None:
    momentum, own = moving(step())
    for _ in range(40):
        [moved] = momentum.ahead(own, [candidate(own - lag * step())])
    np.testing.assert_allclose(moved.vector, own, atol=0.02)


def test_one_that_has_waited_is_moved_further() -> None:
    momentum, own = moving(step())
    behind = own - np.float32(1.0) * step()
    [moved] = momentum.ahead(own, [candidate(behind, waited=1)])
    np.testing.assert_allclose(moved.vector, own, atol=0.02)


def test_a_merged_round_goes_on_by_half_the_movement_and_a_lonely_one_does_not() -> None:
    momentum, own = moving(step())
    np.testing.assert_allclose(momentum.push(own, own, merged=True), own + 0.5 * step(), atol=0.02)
    momentum, own = moving(step())
    np.testing.assert_array_equal(momentum.push(own, own, merged=False), own)


@given(st.floats(-(2.0**127), 2.0**127, width=32), st.integers(0, 100))
def test_the_lead_is_bounded_whatever_is_sent(scale: float, waited: int) -> None:
    momentum, own = moving(step())
    sent = candidate(np.full(SIZE, scale, np.float32), waited)
    for _ in range(5):
        [moved] = momentum.ahead(own, [sent])
    assert np.isfinite(moved.vector).all()
    lead = np.linalg.norm(moved.vector.astype(np.float64) - sent.vector)
    assert lead <= Momentum.MOST * np.linalg.norm(step()) * 1.01 + 1e-6 * abs(scale) * SIZE
    [honest] = momentum.ahead(own, [candidate(own)])
    assert np.isfinite(honest.vector).all(), "one that sends such things must not spoil what follows"


@pytest.mark.parametrize("size", [REACH, np.finfo(np.float32).max])
def test_after_a_movement_beyond_reach_the_node_is_at_rest(size: float) -> None:
    momentum, own = moving(step())
    largest = np.full(SIZE, size, np.float32)
    for model in (largest, -largest):  # a rule without bounds follows whoever sends them
        assert momentum.push(own, model, merged=True) is model
        others = [candidate(-largest), candidate(largest, waited=2)]
        assert momentum.ahead(model, others) == others
        own = model
    at_rest = np.ones(SIZE, np.float32)
    np.testing.assert_array_equal(momentum.push(at_rest, at_rest, merged=True), at_rest)


@pytest.mark.parametrize("name", ["mean", "clip"])
@pytest.mark.parametrize("size", [1e10, 1e18, 1e19, 1e30, 3e38])
def test_whole_merges_with_huge_peers_warn_of_nothing(name: str, size: float) -> None:
    momentum, own = moving(step(), 5)
    rule = rule_from_name(name)
    if isinstance(rule, KnowsTraining):
        training = TrainingScale()
        rule.measure_by(training)
        training.note(own - step(), own)
    for round_number in range(6):
        sent = np.full(SIZE, size, np.float32) * (-1) ** round_number
        ahead = momentum.ahead(
            own, [candidate(sent), candidate(-sent, 1, "B"), candidate(sent * np.sign(step()), 2, "C")]
        )
        merged = rule.merge(own, 100, ahead).vector
        own = momentum.push(own, merged, merged=True)
        assert np.isfinite(own).all()


def test_nothing_that_is_given_is_written_to() -> None:
    momentum, own = moving(step())
    vector = np.zeros(SIZE, np.float32)
    for array in (own, vector):
        array.setflags(write=False)
    momentum.ahead(own, [candidate(vector)])
    momentum.push(own, own, merged=True)
    assert not vector.any()


def test_a_restart_goes_on_with_the_movement() -> None:
    momentum, own = moving(step())
    again = Momentum()
    again.restore(momentum.state())
    begun, sent = own - np.float32(1), [candidate(own - np.float32(0.5))]
    for before, after in zip(momentum.ahead(own, sent), again.ahead(own, sent), strict=True):
        np.testing.assert_array_equal(before.vector, after.vector)
    np.testing.assert_array_equal(momentum.push(begun, own, True), again.push(begun, own, True))
    fresh = Momentum()
    fresh.restore(Momentum().state())
    assert fresh.state() == b""
