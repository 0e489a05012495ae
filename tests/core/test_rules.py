"""The literature's rules: what attackers they withstand can do to them, what others got wrong, how they are named."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from p2pfed.core.aggregation import (
    PARAMETERS,
    RULES,
    Balance,
    Candidate,
    Clipped,
    GeometricMedian,
    Krum,
    Median,
    MultiKrum,
    NearestNeighbours,
    SeesLoss,
    TrimmedMean,
    Ubar,
    rule_from_name,
)
from p2pfed.core.types import NodeId
from p2pfed.core.weights import Vector
from p2pfed.errors import ConfigError, StateCorrupt

SIZE = 4
tame = arrays(np.float32, SIZE, elements=st.integers(-512, 512).map(lambda i: i / 64))
hostile = arrays(np.float32, SIZE, elements=st.floats(width=32, allow_nan=False, allow_infinity=False))


def peers(*vectors: Sequence[float] | Vector) -> list[Candidate]:
    return [Candidate(NodeId(f"P{i}"), np.array(v, np.float32), 100, 0) for i, v in enumerate(vectors)]


def line(*places: float) -> list[Candidate]:
    """Models of one parameter."""
    return peers(*([place] for place in places))


def zero(size: int = 1) -> Vector:
    return np.zeros(size, np.float32)


def length(vector: Vector | np.ndarray) -> float:
    return float(np.linalg.norm(vector.astype(np.float64)))


# --- what as many attackers as a rule expects can do -----------------------------------------------------------------

coalition = {
    "own": tame,
    "honest": st.lists(tame, min_size=4, max_size=6),
    "evil": st.lists(hostile, min_size=1, max_size=2),
}


@pytest.mark.parametrize("rule", [TrimmedMean, Median])
@given(**coalition)
def test_coordinate_rules_stay_between_honest_values(
    rule: type[TrimmedMean], own: Vector, honest: list[Vector], evil: list[Vector]
) -> None:
    made = Median() if rule is Median else rule(len(evil))
    merged = made.merge(own, 100, peers(*evil, *honest)).vector
    assert np.all(np.min([own, *honest], axis=0) <= merged)
    assert np.all(merged <= np.max([own, *honest], axis=0))


@pytest.mark.parametrize("name", ["clipped", "geometric_median", "krum", "multi_krum", "nna", "balance", "ubar"])
@given(**coalition)
def test_attackers_move_a_node_by_a_bounded_multiple_of_what_honest_models_span(
    name: str, own: Vector, honest: list[Vector], evil: list[Vector]
) -> None:
    told = f"{name}:{len(evil)}" if "attackers" in str(PARAMETERS.get(name)) else name
    merged = rule_from_name(told).merge(own, 100, peers(*evil, *honest))
    n, f = 1 + len(honest) + len(evil), len(evil)
    reach = max(length(v - own) for v in honest)
    span = max(length(v - w) for v in [own, *honest] for w in honest)
    bound = {
        "clipped": 1.0 - merged.own_weight,  # radius 1
        "geometric_median": 2 * (n - f) / (n - 2 * f) * reach,  # Lopuhaä and Rousseeuw 1991
        # who is chosen has an honest model among its n - f - 2 nearest, and no larger score than the honest ones
        "krum": reach + math.sqrt(n - f - 2) * span,
        "multi_krum": reach + math.sqrt(n - f - 2) * span,
        "nna": reach,  # whoever is nearer than an honest one that was dropped
        "balance": 0.5 * 0.3 * length(own),
        "ubar": 0.5 * reach,
    }[name]
    assert merged.displacement <= bound * (1 + 1e-5) + 1e-5


# --- what each is ----------------------------------------------------------------------------------------------------


def test_without_being_told_a_third_of_the_candidates_is_taken_for_attackers() -> None:
    assert TrimmedMean().merge(zero(), 100, line(1, 2, -900)).vector == 0.5
    assert TrimmedMean().merge(zero(), 100, line(1, 2)).vector == 1.0
    assert TrimmedMean(0).merge(zero(), 100, line(1, 2, -900)).vector == pytest.approx(-897 / 4)
    assert TrimmedMean(99).merge(zero(), 100, line(1, 2, -900)).vector == 0.5  # the middle is always left


def test_nearest_neighbours_are_the_nodes_own() -> None:
    merged = NearestNeighbours(2).merge(zero(), 100, line(1, -2, 30, 31))
    assert merged.vector == pytest.approx(-1 / 3)
    assert [merged.weights[NodeId(f"P{i}")] for i in (2, 3)] == [0, 0]
    assert NearestNeighbours(9).merge(zero(), 100, line(1, 2)).vector == 0


def test_who_knows_the_attackers_of_a_merge_can_tell_it() -> None:
    class Told(NearestNeighbours):
        def attackers(self, candidates: Sequence[Candidate]) -> int:
            return sum(c.member == "P2" for c in candidates)

    assert Told().merge(zero(), 100, line(1, 2, 900)).vector == 1
    assert Told().merge(zero(), 100, line(1, 2)).vector == 1


@pytest.mark.parametrize(("f", "chosen"), [(1, 33), (2, 45), (3, 5)])
def test_krum_sums_over_all_but_f_and_two_others(f: int, chosen: float) -> None:
    """With one neighbour fewer or more it would choose another of these models, and the mean would be another."""
    models = [0, 5, 10, 30, 33, 45, 49]
    own, others = zero(), line(*models[1:])
    scores = [sum(sorted((a - b) ** 2 for b in models)[1 : 1 + len(models) - f - 2]) for a in models]
    order = np.argsort(scores, kind="stable")
    assert Krum(f).merge(own, 100, others).vector == models[order[0]] == chosen
    best = np.mean([models[i] for i in order[: len(models) - f]])
    assert MultiKrum(f).merge(own, 100, others).vector == pytest.approx(best)


def test_the_geometric_median_minimises_the_sum_of_distances() -> None:
    rng = np.random.default_rng(0)
    models = rng.normal(5, 1, (9, 20)).astype(np.float32)
    models[5:8] *= 1e20
    found = GeometricMedian().merge(models[0], 100, peers(*models[1:])).vector.astype(np.float64)
    units = [(found - m) / length(found - m) for m in models]
    assert length(np.sum(units, axis=0)) < 1e-3  # its gradient


@pytest.mark.parametrize("where", [0.0, 1e4])
def test_a_model_is_clipped_where_the_node_is_and_not_at_zero(where: float) -> None:
    """Clipping the peer's weights themselves to the radius is another rule, and a bad one."""
    own = np.array([where, where], np.float32)
    near, far = peers(own + np.float32(0.5), own + np.array([30, 40], np.float32))
    np.testing.assert_allclose(Clipped(2).merge(own, 100, [near]).vector, own + np.float32(0.25))
    np.testing.assert_allclose(Clipped(2).merge(own, 100, [far]).vector - own, [0.6, 0.8], atol=1e-3)


def test_balance_gives_the_accepted_half_of_the_weight_and_the_model_does_not_shrink() -> None:
    own = np.array([10.0], np.float32)
    merged = Balance().merge(own, 100, line(12, 13, 90))
    assert merged.vector == pytest.approx(0.5 * 10 + 0.5 * 12.5)
    assert list(merged.weights.values()) == [0.25, 0.25, 0]
    assert Balance().merge(own, 100, line(14)).vector == 10


def test_balance_accepts_less_with_every_merge_and_remembers_across_a_restart() -> None:
    own, rule = np.array([10.0], np.float32), Balance(horizon=4)
    accepted = []
    for _ in range(6):
        accepted.append(max((d for d in np.arange(0, 4, 0.01) if _weighs(rule, own, d)), default=0))
        rule.merge(own, 100, line(90))
        again = Balance(horizon=4)
        again.restore(rule.state())
        rule = again
    assert accepted == pytest.approx([3 * math.exp(-min(t, 4) / 4) for t in range(6)], abs=0.02)
    with pytest.raises(StateCorrupt, match="'balance'"):
        Balance().restore(b'{"rule":"balance","memory":"7"}')


def _weighs(rule: Balance, own: Vector, distance: float) -> bool:
    copy = Balance(rule.horizon)
    copy.restore(rule.state())
    return copy.merge(own, 100, line(10 + distance)).own_weight < 1


def test_ubar_takes_the_near_ones_that_do_no_worse_on_own_rows() -> None:
    rule = Ubar(1)
    assert isinstance(rule, SeesLoss)
    rule.see(lambda vector: abs(float(vector[0]) - 4))  # own loss 4
    assert rule.merge(zero(), 100, line(2, -1, 3, 5)).vector == pytest.approx(0.5 * 2.5)  # 5 is farthest, -1 worse
    assert rule.merge(zero(), 100, line(-1, -2, -3)).vector == -0.5  # the least bad
    assert rule.merge(zero(), 100, line(2)).vector == 1  # somebody is always looked at


def test_ubar_measures_from_itself_and_not_among_the_others() -> None:
    """Three who agree with each other are far all the same."""
    merged = Ubar(3).merge(zero(), 100, line(50, 50, 50, 2, -3, 4))
    assert merged.vector == pytest.approx(0.5 * 1)


def test_ubar_without_labels_looks_at_distances_alone_and_infinite_losses_never_win() -> None:
    assert Ubar(1).merge(zero(), 100, line(1, 3, 9)).vector == 1
    rule = Ubar(0)
    rule.see(lambda vector: math.inf if vector[0] > 100 else float(vector[0]))
    assert rule.merge(zero(), 100, line(1000, 2)).vector == 1


@pytest.mark.parametrize("name", sorted(RULES.keys() - {"clip"}))
def test_nothing_a_sender_claims_counts(name: str) -> None:
    """Adopting the model of whoever claims the most updates would hand him every node at once."""
    others = peers([1, 2], [3, 1], [2, 2], [-1, 4])
    modest = rule_from_name(name).merge(zero(2), 100, others)
    boasting = rule_from_name(name).merge(zero(2), 100, [others[0]._replace(rows=2**62, waited=99), *others[1:]])
    assert modest.vector.tolist() == boasting.vector.tolist()


# --- their names -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_a_parameter_stands_behind_a_colon(name: str) -> None:
    example = f"{name}:{PARAMETERS[name].example}"
    rule = rule_from_name(example)
    assert rule.name == name
    told = {v for k, v in vars(rule).items() if k in ("told", "radius", "horizon")}
    assert told == {PARAMETERS[name].convert(PARAMETERS[name].example)}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("clip:6", "'clip' takes no parameter"),
        ("median:", "'median' takes no parameter"),
        ("nna:", "the number of attackers in a merge, a whole number, such as nna:2; '' is none"),
        ("nna:-1", "'-1' is none"),
        ("krum:1.5", "'1.5' is none"),
        ("ubar:two", "'two' is none"),
        ("nna:Class", "'Class' is none"),
        ("trimmed_mean:1_0", "'1_0' is none"),
        ("multi_krum: 1", "' 1' is none"),
        ("nna:٢", "is none"),
        ("nna:" + "9" * 5000, "is none"),
        ("clipped:nan", "a number above 0, such as clipped:1.5; 'nan' is none"),
        ("clipped:0", "the radius must be above 0"),
        ("clipped:1e3", "'1e3' is none"),
        ("balance:0", "the horizon must be at least 1 merge"),
        ("nna:1:2", "'1:2' is none"),
        ("NNA:1", "names code"),
        ("nearest", "choose balance, clip, .* or ubar"),
    ],
)
def test_a_name_that_means_nothing_is_a_configuration_error(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        rule_from_name(name)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("make", [lambda: Krum(-1), lambda: Clipped(math.nan), lambda: Clipped(0), lambda: Balance(0)])
def test_impossible_parameters_are_refused(make: object) -> None:
    with pytest.raises(ValueError, match=r"cannot be|must be"):
        make()  # type: ignore[operator]
