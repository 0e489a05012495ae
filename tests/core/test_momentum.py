"""Lag is measured along the own movement, and whatever others send moves a candidate by a bounded amount."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pfed.core.aggregation import Candidate
from p2pfed.core.momentum import Momentum
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


def test_nothing_that_is_given_is_written_to() -> None:
    momentum, own = moving(step())
    vector = np.zeros(SIZE, np.float32)
    for array in (own, vector):
        array.setflags(write=False)
    momentum.ahead(own, [candidate(vector)])
    momentum.push(own, own, merged=True)
    assert not vector.any()
