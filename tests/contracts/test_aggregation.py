"""What every merge rule of the registry promises, whatever arrives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from p2pfed.core.aggregation import RULES, AggregationRule, Candidate, rule_from_name
from p2pfed.core.types import NodeId
from p2pfed.core.weights import Vector

SIZE = 6
every_rule = pytest.mark.parametrize("name", sorted(RULES))

# Multiples of 1/64 below 8: adding them, and whole numbers, is exact in float32, so that a shift really is one.
tame = st.integers(-512, 512).map(lambda i: i / 64)
any_float = st.floats(width=32, allow_nan=False, allow_infinity=False)


def vectors(elements: st.SearchStrategy[float]) -> st.SearchStrategy[Vector]:
    return arrays(np.float32, SIZE, elements=elements)


def candidates(elements: st.SearchStrategy[float]) -> st.SearchStrategy[list[Candidate]]:
    one = st.tuples(vectors(elements), st.integers(0, 2**40), st.integers(0, 7))
    return st.lists(one, min_size=1, max_size=7).map(
        lambda peers: [Candidate(NodeId(f"PEER{i}"), v, rows, age) for i, (v, rows, age) in enumerate(peers)]
    )


def trained(name: str, moved: float = 4.0) -> AggregationRule:
    """A rule whose node has seen one local round move it by `moved`."""
    rule = rule_from_name(name)
    step = np.zeros(SIZE, np.float32)
    step[0] = moved
    rule.note_training(np.zeros(SIZE, np.float32), step)
    return rule


@every_rule
def test_without_candidates_the_model_stays(name: str) -> None:
    own = np.arange(SIZE, dtype=np.float32)
    merged = trained(name).merge(own, 100, [])
    assert merged.vector is own
    assert (merged.weights, merged.displacement, merged.own_weight) == ({}, 0.0, 1.0)


@every_rule
@given(own=vectors(any_float), k=st.integers(1, 8))
def test_identical_inputs_give_the_identity(name: str, own: Vector, k: int) -> None:
    merged = trained(name).merge(own, 100, [Candidate(NodeId(f"PEER{i}"), own.copy(), 100, 0) for i in range(k)])
    assert np.array_equal(merged.vector, own)
    assert merged.displacement == 0
    assert merged.vector.dtype == np.float32


@every_rule
@given(own=vectors(tame), peers=candidates(tame), shift=arrays(np.float32, SIZE, elements=st.integers(-8, 8)))
def test_a_shift_of_all_models_shifts_the_result(name: str, own: Vector, peers: list[Candidate], shift: Vector) -> None:
    here = trained(name).merge(own, 100, peers)
    moved = [Candidate(c.member, c.vector + shift, c.rows, c.waited) for c in peers]
    there = trained(name).merge(own + shift, 100, moved)
    np.testing.assert_allclose(there.vector, here.vector + shift, atol=1e-5)
    assert there.weights == pytest.approx(here.weights)


@every_rule
@given(own=vectors(tame), peers=candidates(st.floats(-8, 8, width=32)), order=st.randoms(use_true_random=False))
def test_the_order_of_the_candidates_does_not_matter(
    name: str, own: Vector, peers: list[Candidate], order: object
) -> None:
    shuffled = list(peers)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    first, second = trained(name), trained(name)
    one, other = first.merge(own, 100, peers), second.merge(own, 100, shuffled)
    assert one.vector.tobytes() == other.vector.tobytes()
    assert one.weights == other.weights
    assert first.state() == second.state()


@every_rule
@given(own=vectors(tame), peers=candidates(any_float))
def test_weights_are_shares_and_the_node_keeps_at_least_an_equal_one(
    name: str, own: Vector, peers: list[Candidate]
) -> None:
    merged = trained(name).merge(own, 100, peers)
    assert set(merged.weights) == {c.member for c in peers}
    assert all(w >= 0 for w in merged.weights.values())
    assert merged.own_weight >= 1 / (1 + len(peers)) - 1e-9


@every_rule
@given(own=vectors(tame), peers=candidates(any_float))
def test_a_merge_moves_no_further_than_the_weights_allow(name: str, own: Vector, peers: list[Candidate]) -> None:
    merged = trained(name).merge(own, 100, peers)
    assert np.isfinite(merged.vector).all()
    distance = {c.member: float(np.linalg.norm(c.vector.astype(np.float64) - own)) for c in peers}
    bound = sum(w * distance[m] for m, w in merged.weights.items())
    moved = float(np.linalg.norm(merged.vector.astype(np.float64) - own))
    assert moved <= bound * (1 + 1e-5) + 1e-5
    assert merged.displacement == pytest.approx(moved, rel=1e-4, abs=1e-4)


@every_rule
@given(own=vectors(tame), peers=candidates(tame))
def test_inputs_are_not_written_to(name: str, own: Vector, peers: list[Candidate]) -> None:
    before = [own.tobytes(), *(c.vector.tobytes() for c in peers)]
    for vector in (own, *(c.vector for c in peers)):
        vector.setflags(write=False)
    merged = trained(name).merge(own, 100, peers)
    assert before == [own.tobytes(), *(c.vector.tobytes() for c in peers)]
    assert not any(np.shares_memory(merged.vector, c.vector) for c in peers)


@every_rule
@pytest.mark.parametrize("merges", [0, 1, 5, 12])
def test_a_restored_rule_goes_on_bit_for_bit(name: str, merges: int) -> None:
    rng = np.random.default_rng(merges)

    def peers() -> list[Candidate]:
        models = rng.normal(0, 3, (6, SIZE)).astype(np.float32)
        return [Candidate(NodeId(f"PEER{i}"), m, int(rng.integers(1000)), int(i % 3)) for i, m in enumerate(models)]

    old, own = trained(name), np.zeros(SIZE, np.float32)
    for _ in range(merges):
        merged = old.merge(own, 100, peers())
        old.note_training(own, merged.vector)
        own = merged.vector
    new = rule_from_name(name)
    new.restore(old.state())
    assert new.state() == old.state()
    last = peers()
    one, other = old.merge(own, 100, last), new.merge(own, 100, last)
    assert one.vector.tobytes() == other.vector.tobytes()
    assert one.weights == other.weights
    assert new.state() == old.state()


@every_rule
@pytest.mark.parametrize("other", sorted(RULES))
def test_a_rule_begins_anew_where_the_checkpoint_is_another_rules(name: str, other: str) -> None:
    rule = rule_from_name(name)
    rule.restore(trained(other).state())
    assert rule.state() == (trained(name) if other == name else rule_from_name(name)).state()


@every_rule
def test_a_rule_knows_its_registry_name(name: str) -> None:
    assert rule_from_name(name).name == name
    assert isinstance(rule_from_name(name), AggregationRule)
