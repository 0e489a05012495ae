"""What every merge rule of the registry promises, whatever arrives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from p2pfed.core.aggregation import RULES, AggregationRule, Candidate, KnowsTraining, rule_from_name
from p2pfed.core.training_scale import TrainingScale
from p2pfed.core.types import NodeId
from p2pfed.core.weights import Vector

SIZE = 6
every_rule = pytest.mark.parametrize("name", sorted(RULES))
but_balance = pytest.mark.parametrize("name", sorted(RULES.keys() - {"balance"}))
self_centred = pytest.mark.parametrize("name", ["balance", "clip", "clipped", "mean", "nna", "ubar"])
whole_models = pytest.mark.parametrize("name", sorted(RULES.keys() - {"median", "trimmed_mean"}))
robust = pytest.mark.parametrize("name", sorted(RULES.keys() - {"mean"}))

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


def measuring(name: str, training: TrainingScale) -> AggregationRule:
    """A rule of a node with that scale."""
    rule = rule_from_name(name)
    if isinstance(rule, KnowsTraining):
        rule.measure_by(training)
    return rule


def trained(name: str, moved: float = 4.0, training: TrainingScale | None = None) -> AggregationRule:
    """A rule whose node has seen one local round move it by `moved`."""
    training = training or TrainingScale()
    rule = measuring(name, training)
    step = np.zeros(SIZE, np.float32)
    step[0] = moved
    training.note(np.zeros(SIZE, np.float32), step)
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


@but_balance
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


def test_balance_measures_models_by_their_length_so_a_shift_changes_whom_it_accepts() -> None:
    own, far = np.ones(SIZE, np.float32), np.full(SIZE, 10, np.float32)
    peer = Candidate(NodeId("PEER"), own + 1, 100, 0)
    assert trained("balance").merge(own, 100, [peer]).own_weight == 1
    assert trained("balance").merge(own + far, 100, [peer._replace(vector=peer.vector + far)]).own_weight == 0.5


@every_rule
@given(own=vectors(tame), peers=candidates(any_float))
def test_weights_are_shares_that_with_the_own_one_sum_to_one(name: str, own: Vector, peers: list[Candidate]) -> None:
    merged = trained(name).merge(own, 100, peers)
    assert set(merged.weights) == {c.member for c in peers}
    assert all(w >= 0 for w in merged.weights.values())
    assert -1e-9 <= merged.own_weight <= 1 + 1e-9


@self_centred
@given(own=vectors(tame), peers=candidates(any_float))
def test_a_node_keeps_at_least_an_equal_share(name: str, own: Vector, peers: list[Candidate]) -> None:
    assert trained(name).merge(own, 100, peers).own_weight >= 1 / (1 + len(peers)) - 1e-9


@whole_models
@given(own=vectors(tame), peers=candidates(any_float))
def test_a_merge_moves_no_further_than_the_weights_allow(name: str, own: Vector, peers: list[Candidate]) -> None:
    merged = trained(name).merge(own, 100, peers)
    distance = {c.member: float(np.linalg.norm(c.vector.astype(np.float64) - own)) for c in peers}
    bound = sum(w * distance[m] for m, w in merged.weights.items())
    assert merged.displacement <= bound * (1 + 1e-5) + 1e-5


@every_rule
@given(own=vectors(any_float), peers=candidates(any_float))
def test_whatever_is_finite_gives_a_finite_model_between_the_others(
    name: str, own: Vector, peers: list[Candidate]
) -> None:
    merged = trained(name).merge(own, 100, peers)
    models = np.array([own, *(c.vector for c in peers)], np.float64)
    slack = 1e-5 * np.abs(models).max(axis=0) + 1e-5
    assert np.all(models.min(axis=0) - slack <= merged.vector)
    assert np.all(merged.vector <= models.max(axis=0) + slack)
    assert all(np.isfinite(w) for w in merged.weights.values())
    moved = float(np.linalg.norm(merged.vector.astype(np.float64) - own))
    rounded = 1e-6 * float(np.linalg.norm(own.astype(np.float64)))  # what adding to large numbers loses
    assert merged.displacement == pytest.approx(moved, rel=1e-4, abs=1e-4 + rounded)


@robust
@pytest.mark.parametrize("factor", [1e6, 1e30])
def test_one_model_scaled_up_among_six_throws_nobody(name: str, factor: float) -> None:
    rng = np.random.default_rng(0)
    own, *others = rng.normal(0, 1, (7, SIZE)).astype(np.float32)
    peers = [Candidate(NodeId(f"PEER{i}"), v, 100, 0) for i, v in enumerate(others)]
    peers[3] = peers[3]._replace(vector=peers[3].vector * np.float32(factor))
    merged = trained(name, 1.0).merge(own, 100, peers)
    farthest = max(float(np.linalg.norm(v - own)) for v in others)
    assert merged.displacement <= farthest
    assert trained("mean").merge(own, 100, peers).displacement > 1e4  # the test can fail


@every_rule
@given(own=vectors(tame), other=vectors(tame), k=st.integers(1, 8))
def test_between_two_places_the_result_is_on_the_line(name: str, own: Vector, other: Vector, k: int) -> None:
    """Copies of one model pull towards it, by whatever weight, and nowhere else."""
    merged = trained(name).merge(own, 100, [Candidate(NodeId(f"PEER{i}"), other, 100, 0) for i in range(k)])
    way, move = other.astype(np.float64) - own, merged.vector.astype(np.float64) - own
    share = float(move @ way) / max(float(way @ way), 1e-12)
    assert -1e-6 <= share <= 1 + 1e-6
    np.testing.assert_allclose(move, share * way, atol=1e-5)


@every_rule
@given(own=vectors(tame), k=st.integers(1, 8), trust=st.floats(0.01, 1))
def test_trust_scales_weights_and_never_parameters(name: str, own: Vector, k: int, trust: float) -> None:
    peers = [Candidate(NodeId(f"PEER{i}"), own.copy(), 100, 0, trust) for i in range(k)]
    np.testing.assert_allclose(trained(name).merge(own, 100, peers).vector, own, rtol=1e-6)


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

    training = TrainingScale()
    old, own = trained(name, training=training), np.zeros(SIZE, np.float32)
    for _ in range(merges):
        merged = old.merge(own, 100, peers())
        training.note(own, merged.vector)
        old.note_training(own, merged.vector)
        own = merged.vector
    new = measuring(name, training)
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
    assert rule_from_name(name).name == RULES[name]().name == name
    assert isinstance(rule_from_name(name), AggregationRule)
