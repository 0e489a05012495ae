"""The default rule's own promises, the registry, and the late joiner's median."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from p2pfed.core.aggregation import (
    Candidate,
    Clip,
    Mean,
    Merged,
    code_allowed,
    coordinate_median,
    rule_from_name,
    rule_problem,
)
from p2pfed.core.aggregation.geometry import FEW, copies
from p2pfed.core.training_scale import REACH, TrainingScale
from p2pfed.core.types import NodeId
from p2pfed.core.weights import Vector
from p2pfed.errors import ConfigError, StateCorrupt

SIZE = 40
ZERO = np.zeros(SIZE, np.float32)
any_vector = arrays(np.float32, SIZE, elements=st.floats(width=32, allow_nan=False, allow_infinity=False))


def at(distance: float, axis: int) -> Vector:
    """A vector `distance` away from zero along one axis."""
    vector = ZERO.copy()
    vector[axis] = distance
    return vector


def clip(own_scale: float = 1.0) -> Clip:
    return measuring(ZERO, at(own_scale, 0))[0]


def measuring(before: Vector, after: Vector) -> tuple[Clip, TrainingScale]:
    """A rule whose node has trained once, and its scale."""
    rule, training = Clip(), TrainingScale()
    rule.measure_by(training)
    training.note(before, after)
    return rule, training


def peer(name: str, vector: Vector, rows: int = 100, waited: int = 0) -> Candidate:
    return Candidate(NodeId(name), vector, rows, waited)


def around(count: int, distance: float = 1.5) -> list[Candidate]:
    return [peer(f"P{i}", at(distance, i + 1)) for i in range(count)]


def norm(merged: Merged) -> float:
    return float(np.linalg.norm(merged.vector.astype(np.float64)))


# --- the bound --------------------------------------------------------------------------------------------------------


@given(
    vectors=st.lists(any_vector, min_size=1, max_size=8),
    scale=st.floats(0.01, 100),
    rows=st.integers(0, 2**62),
    waited=st.integers(0, 100),
)
def test_no_peers_whatever_move_the_model_beyond_six_own_scales(
    vectors: list[Vector], scale: float, rows: int, waited: int
) -> None:
    rule = clip(scale)
    for _ in range(3):  # the remembered distances must not loosen the bound either
        merged = rule.merge(ZERO, 100, [peer(f"P{i}", v, rows, waited) for i, v in enumerate(vectors)])
        assert norm(merged) <= 6 * scale * (1 - merged.own_weight) * (1 + 1e-5)


def test_one_peer_scaled_by_a_million_moves_no_further_than_its_share_of_the_radius() -> None:
    honest = around(5)
    for factor in (1e6, 1e30):
        rule, rule_without = clip(), clip()
        attacked = rule.merge(ZERO, 100, [*honest, peer("X", at(1.5 * factor, 20))])
        assert attacked.vector[20] == pytest.approx(3.0 * attacked.weights[NodeId("X")], rel=1e-5)
        assert attacked.weights[NodeId("X")] <= 2 / 7
        quiet = rule_without.merge(ZERO, 100, honest)
        assert np.all(attacked.vector[1:6] <= quiet.vector[1:6])
        assert np.all(attacked.vector[1:6] >= 0.5 * quiet.vector[1:6])


def test_the_radius_never_shrinks_below_three_own_scales_however_many_near_copies_arrive() -> None:
    rule = clip()
    echoes = [peer(f"E{i}", at(0.31, i + 2)) for i in range(8)]
    for _ in range(10):
        rule.merge(ZERO, 100, echoes)
    merged = rule.merge(ZERO, 100, [*echoes, peer("HONEST", at(3.0, 1))])
    assert merged.vector[1] == pytest.approx(3.0 * merged.weights[NodeId("HONEST")], rel=1e-6)


def test_near_echo_attackers_do_not_stop_honest_nodes_from_mixing() -> None:
    """Half of the answers are near echoes. Under a pure median radius, or limits of 1.5 to 3, the spread reaches 33."""
    rng = np.random.default_rng(2)
    nodes, attackers, size = 8, 4, 200
    models = np.zeros((nodes, size), np.float32)
    drift = rng.standard_normal((nodes, size)).astype(np.float32) / math.sqrt(size)  # each bank pulls its own way
    rules = [measuring(model, model + way) for model, way in zip(models, drift, strict=True)]
    for _ in range(60):
        trained = models + drift
        for i, (rule, training) in enumerate(rules):
            training.note(models[i], trained[i])
            noise = rng.standard_normal((attackers, size)).astype(np.float32) * 0.4 / math.sqrt(size)
            listened = rng.choice([j for j in range(nodes) if j != i], 4, replace=False)
            candidates = [peer(f"H{j}", trained[j]) for j in listened]
            candidates += [peer(f"E{j}", trained[i] + noise[j]) for j in range(attackers)]
            models[i] = rule.merge(trained[i], 100, candidates).vector
    spread = np.linalg.norm(models - models.mean(axis=0), axis=1)
    assert spread.max() < 12  # own scale is 1; unmixed it would be 60


# --- the own scale ----------------------------------------------------------------------------------------------------


def test_the_own_scale_is_a_moving_average_of_local_training() -> None:
    rule, training = measuring(ZERO, at(1.0, 0))
    training.note(ZERO, at(6.0, 3))
    far = rule.merge(ZERO, 100, [peer("P", at(1e6, 1))])
    assert norm(far) == pytest.approx(3 * (0.8 * 1 + 0.2 * 6) * far.weights[NodeId("P")], rel=1e-6)


def test_an_exploded_local_round_still_gives_a_finite_scale() -> None:
    rule = clip(1e30)  # its square is beyond float32
    merged = rule.merge(ZERO, 100, [peer("P", at(1e35, 1))])
    assert norm(merged) == pytest.approx(REACH * merged.weights[NodeId("P")], rel=1e-6)
    Clip().restore(rule.state())


def test_before_any_training_peers_do_not_set_the_scale() -> None:
    own = at(100.0, 0)
    merged = Clip().merge(own, 100, [peer(f"FLIPPED{i}", -own) for i in range(5)])
    assert merged.displacement <= 6 * 1e-3 * 100
    assert merged.vector[0] > 99


def test_the_radius_follows_the_median_of_eight_merges_up_to_six() -> None:
    rule = clip()
    many = [peer(f"P{i:02}", at(5.0, i)) for i in range(20)]
    for _ in range(3):
        merged = rule.merge(ZERO, 100, many)
    assert merged.vector[0] == pytest.approx(5 * merged.weights[NodeId("P00")], rel=1e-6)  # radius 5: not shortened
    for _ in range(8):
        merged = rule.merge(ZERO, 100, [peer(f"P{i:02}", at(50.0, i)) for i in range(20)])
    assert merged.vector[19] == pytest.approx(6 * merged.weights[NodeId("P19")], rel=1e-6)  # never beyond 6
    for _ in range(8):
        merged = rule.merge(ZERO, 100, around(20, 1.5))
    merged = rule.merge(ZERO, 100, [peer("P", at(50.0, 0))])
    assert norm(merged) == pytest.approx(3 * merged.weights[NodeId("P")], rel=1e-6)  # the far merges are forgotten


def test_a_version_that_waits_in_its_slot_counts_once_as_a_distance() -> None:
    rule = clip()
    for waited in range(7):
        rule.merge(ZERO, 100, [peer(f"P{i:02}", at(5.0, i), waited=waited) for i in range(6)])
    # six distances of 5 against six pseudo-distances of 1.6: the median is 3.3, not 5
    merged = rule.merge(ZERO, 100, [peer("P", at(50.0, 0), waited=1)])
    assert norm(merged) == pytest.approx((1.6 + 5) / 2 * merged.weights[NodeId("P")], rel=1e-6)


# --- the weights ------------------------------------------------------------------------------------------------------


def test_equal_peers_share_equally() -> None:
    merged = clip().merge(ZERO, 100, around(3))
    assert list(merged.weights.values()) == pytest.approx([1 / 4] * 3)
    assert merged.own_weight == pytest.approx(1 / 4)


def test_a_claim_of_endless_rows_gains_at_most_a_factor_two_and_none_loses_at_most_half() -> None:
    honest = around(4)
    fair = clip().merge(ZERO, 100, [*honest, peer("X", at(1.5, 9))]).weights[NodeId("X")]
    greedy = clip().merge(ZERO, 100, [*honest, peer("X", at(1.5, 9), rows=2**60)])
    modest = clip().merge(ZERO, 100, [*honest, peer("X", at(1.5, 9), rows=0)]).weights[NodeId("X")]
    assert greedy.weights[NodeId("X")] <= 2 * fair + 1e-12
    assert greedy.weights[NodeId("X")] == pytest.approx(2 * greedy.weights[NodeId("P0")])
    assert modest == pytest.approx(fair / 2)


def test_rows_count_by_their_square_root_against_the_median() -> None:
    weights = clip().merge(ZERO, 100, [*around(4), peer("X", at(1.5, 9), rows=225)]).weights
    assert weights[NodeId("X")] == pytest.approx(1.5 * weights[NodeId("P0")])


def test_waiting_in_the_slot_lowers_a_weight() -> None:
    weights = clip().merge(ZERO, 100, [*around(3), peer("OLD", at(1.5, 9), waited=3)]).weights
    assert weights[NodeId("OLD")] == pytest.approx(weights[NodeId("P0")] / 2)


def test_the_farthest_of_six_has_a_third_of_its_weight_and_of_five_all() -> None:
    six = clip().merge(ZERO, 100, [*around(5), peer("FAR", at(2.5, 9))]).weights
    five = clip().merge(ZERO, 100, [*around(4), peer("FAR", at(2.5, 9))]).weights
    assert six[NodeId("FAR")] == pytest.approx(six[NodeId("P0")] / 3)
    assert five[NodeId("FAR")] == pytest.approx(five[NodeId("P0")])


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e6, 1e12, 1e18])
@pytest.mark.parametrize("groups", [2, 5])
def test_copies_are_counted_as_exactly_far_from_home_as_near_it(offset: float, groups: int) -> None:
    """Products give all distances, but round: what they leave open must still be decided rightly."""
    rng = np.random.default_rng(0)
    centres = offset + rng.normal(0, 1, (groups, 40))
    centres[0] += 1e3  # some are far from home, and some of those far from the others
    centres[1] *= 2
    moves = np.repeat(centres, 4, axis=0).astype(np.float32)
    moves[::2] += rng.normal(0, 0.05, (2 * groups, 40)).astype(np.float32)
    doubles = moves.astype(np.float64)
    distances = np.linalg.norm(doubles, axis=1)
    assert (len(moves) > FEW) == (groups == 5), "both ways to make products are tested"
    for radius in (0.2, 0.5, 5.0, 9.0):
        pairs = np.linalg.norm(doubles[:, None] - doubles, axis=2)
        np.testing.assert_array_equal(copies(moves, distances, radius), (pairs <= radius).sum(axis=1))


def test_copies_have_one_vote_together() -> None:
    copies = [peer(f"C{i}", at(1.5, 9) + at(0.05, 10 + i)) for i in range(5)]
    merged = clip().merge(ZERO, 100, [*around(1), *copies])
    together = sum(merged.weights[c.member] for c in copies)
    assert together <= merged.weights[NodeId("P0")] + 1e-12
    assert merged.own_weight > 1 / 2  # lost trust goes to the node itself


# --- state and registry -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "state",
    [
        b"",
        b"{}",
        b"\xff",
        b'{"rule":"clip","memory":""}',
        b'{"rule":"clip","memory":"{\\"own\\":\\"1\\",\\"ratios\\":[]}"}',
        b'{"rule":"clip","memory":"{\\"own\\":1.0}"}',
    ],
)
def test_a_corrupt_state_is_told(state: bytes) -> None:
    with pytest.raises(StateCorrupt, match="'clip'"):
        Clip().restore(state)


@code_allowed()
def test_the_registry_takes_names_and_classes() -> None:
    assert isinstance(rule_from_name("clip"), Clip)
    assert isinstance(rule_from_name("p2pfed.core.aggregation:Mean"), Mean)
    assert rule_from_name("clip") is not rule_from_name("clip")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("trimed_mean", "choose balance, clip, clipped, .* or ubar"),
        ("", "choose balance, clip, clipped, .* or ubar"),
        ("no_such_module:Rule", "no_such_module"),
        ("p2pfed.core.aggregation:NoRule", "NoRule"),
        (":Rule", "cannot be loaded"),
        ("p2pfed.core.aggregation:Candidate", "cannot be loaded"),  # needs arguments
        ("collections:OrderedDict", "lacks name, merge"),
        ("os:abort", "abort is no class"),
        ("signal:pause", "pause is no class"),
    ],
)
@code_allowed()
def test_a_rule_that_cannot_be_had_is_a_configuration_error(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        rule_from_name(name)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("name", ["os:abort", "signal:pause", "p2pfed.core.aggregation:Mean", ":Rule", "NNA:1"])
def test_code_is_not_even_imported_where_nobody_allowed_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.import_module", lambda module: pytest.fail(f"{module} was imported"))
    for allowed in (False, True):
        with code_allowed(allowed):
            assert ("names code" in rule_problem(name)) is not allowed
    with pytest.raises(ConfigError, match="names code, which only runs where .* say --allow-code"):
        rule_from_name(name)


def test_mean_of_the_largest_numbers_is_finite() -> None:
    largest = np.full(SIZE, np.finfo(np.float32).max)
    for others in ([largest] * 6, [largest, -largest], [-largest] * 2):
        merged = Mean().merge(largest, 5, [peer(f"P{i}", v) for i, v in enumerate(others)])
        np.testing.assert_allclose(merged.vector, np.mean([largest, *others], axis=0, dtype=np.float64), rtol=1e-6)
        assert math.isfinite(merged.displacement)


def test_mean_is_the_mean() -> None:
    merged = Mean().merge(at(1.0, 0), 5, [peer("A", at(4.0, 1), rows=10**9), peer("B", ZERO, rows=1, waited=7)])
    np.testing.assert_allclose(merged.vector[:3], [1 / 3, 4 / 3, 0], rtol=1e-6)


# --- the late joiner --------------------------------------------------------------------------------------------------


def test_coordinate_median() -> None:
    vectors = [np.array(v, np.float32) for v in ([1, 9, 0], [2, 8, 1e38], [3, -7, -1e38])]
    median = coordinate_median(vectors)
    assert median.dtype == np.float32
    assert median.tolist() == [2, 8, 0]
    with pytest.raises(ValueError, match="no vectors"):
        coordinate_median([])


few_numbers = arrays(np.float32, 4, elements=st.floats(width=32, allow_nan=False, allow_infinity=False))


@given(honest=st.lists(few_numbers, min_size=3, max_size=7), evil=few_numbers)
def test_a_minority_cannot_drag_the_median_outside_the_honest_range(honest: list[Vector], evil: Vector) -> None:
    minority = [evil] * ((len(honest) - 1) // 2)
    median = coordinate_median([*honest, *minority])
    assert np.all(np.min(honest, axis=0) <= median)
    assert np.all(median <= np.max(honest, axis=0))


@pytest.mark.parametrize("apart", [0.5, 1.0, 2.0])
def test_near_copies_as_far_away_as_can_be_are_counted_without_overflow(apart: float) -> None:
    moves = np.array([[REACH, 0], [-REACH, 0], [REACH, 0]], np.float32)
    near = copies(moves, np.full(3, REACH), apart * REACH)
    assert near.tolist() == ([3, 3, 3] if apart == 2.0 else [2, 1, 2])
