"""One value of what training moves a node by, which clip and reputation share; and one answer to what is too far."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from p2pfed.core.aggregation import AggregationRule, Candidate, Clip, KnowsTraining, Merged, code_allowed
from p2pfed.core.aggregation.geometry import moves_to
from p2pfed.core.merging import Merging
from p2pfed.core.problems import Problems
from p2pfed.core.reputation import Reputation
from p2pfed.core.reputation.peer_record import Scales
from p2pfed.core.training_scale import LEAST, REACH, TrainingScale, distances, lengths
from p2pfed.core.types import NodeId
from p2pfed.core.updates import Updates
from p2pfed.core.weights import Vector
from tests.core.heap import make_manifest

MANIFEST = make_manifest(3)
SIZE = MANIFEST.model.schema().size
ZERO = np.zeros(SIZE, np.float32)
any_vector = arrays(np.float32, 5, elements=st.floats(width=32, allow_nan=False, allow_infinity=False))


def at(distance: float, axis: int = 0) -> Vector:
    vector = ZERO.copy()
    vector[axis] = distance
    return vector


class Watching:
    """An operator's rule that knows of no scale."""

    name = "watching"

    def __init__(self) -> None:
        self.moved = 0.0

    def note_training(self, before: Vector, after: Vector) -> None:
        self.moved += float(np.linalg.norm(after - before))

    def merge(self, own: Vector, rows: int, candidates: Sequence[Candidate]) -> Merged:
        return Merged(own, {}, 0.0)

    def state(self) -> bytes:
        return b"{}"

    def restore(self, state: bytes) -> None: ...


def node(judging: bool = True, rule: str = "clip", scales: Scales | None = None) -> tuple[Merging, Reputation]:
    """What merges in a node that remembers `scales`, and what judges."""
    manifest = replace(MANIFEST, gossip=replace(MANIFEST.gossip, rule=rule, reputation=judging))
    reputation = Reputation(manifest.model, 3, 0)
    reputation.restore(scales, {})
    return Merging(manifest, cast("Updates", None), reputation, Problems()), reputation


def units(merging: Merging, reputation: Reputation) -> tuple[float, float]:
    """What the clip and what the reputation measures in, each seen from outside; no training shows in the first."""
    merged = merging.rule.merge(ZERO, 100, [Candidate(NodeId("P"), at(1e9), 100, 1)])
    return merged.displacement / (3 * merged.weights[NodeId("P")]), 1 / reputation.yardstick.distances(ZERO, [at(1.0)])[
        0
    ]


# --- the scale --------------------------------------------------------------------------------------------------------


def test_it_is_a_moving_average_of_how_far_training_moves() -> None:
    scale = TrainingScale()
    assert scale.moved is None
    scale.note(at(1.0), at(2.0))
    scale.note(ZERO, at(6.0, 3))
    assert scale.moved == pytest.approx(0.8 * 1 + 0.2 * 6)
    assert scale.unit(ZERO) == scale.moved and not scale.renewed


def test_a_unit_is_at_least_a_share_of_the_model_and_never_nothing() -> None:
    scale = TrainingScale()
    assert (scale.unit(ZERO), scale.unit(at(100.0))) == (1e-12, LEAST * 100)
    scale.note(ZERO, at(0.01))
    assert (scale.unit(at(1.0)), scale.unit(at(100.0))) == (pytest.approx(0.01), LEAST * 100)


def test_what_is_forgotten_counts_until_the_next_training_and_then_no_more() -> None:
    scale = TrainingScale()
    scale.note(ZERO, at(5.0))
    scale.forget()
    assert scale.moved == 5.0 and not scale.renewed
    scale.note(ZERO, at(1.0))
    assert scale.moved == 1.0 and scale.renewed
    scale.note(ZERO, at(2.0))
    assert scale.moved == pytest.approx(1.2) and not scale.renewed


def test_who_has_never_trained_forgets_nothing() -> None:
    scale = TrainingScale()
    scale.forget()
    scale.note(ZERO, at(2.0))
    assert scale.moved == 2.0


# --- too far ----------------------------------------------------------------------------------------------------------


@given(one=any_vector, other=any_vector)
def test_whatever_is_farther_counts_as_reach_away_and_in_its_direction(one: Vector, other: Vector) -> None:
    wide = one.astype(np.float64) - other
    far = min(math.sqrt(wide.dot(wide)), REACH)
    assert float(distances(one, other)) == pytest.approx(far, rel=1e-5, abs=1e-18)
    (move,), (distance,) = moves_to(other, [one])
    assert distance == distances(one, other) and np.isfinite(move).all()
    if far == REACH:
        np.testing.assert_allclose(move, wide * (REACH / math.sqrt(wide.dot(wide))), rtol=1e-5, atol=REACH * 1e-6)


def test_of_many_models_only_those_that_are_too_far_count_as_nearer() -> None:
    models = np.array([[3, 4], [3e38, 0], [np.inf, -np.inf], [REACH, 0]], np.float32)
    assert lengths(models).tolist() == [5.0, REACH, REACH, REACH]
    assert lengths(models[0].astype(np.float64)) == 5.0


def test_the_scale_reaches_no_farther() -> None:
    scale = TrainingScale()
    scale.note(at(-3e38), at(3e38))
    assert scale.moved == REACH
    assert TrainingScale().unit(at(3e38)) == LEAST * REACH


# --- one value for all ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("judging", [True, False])
def test_clip_and_reputation_measure_in_the_same_unit(judging: bool) -> None:
    merging, reputation = node(judging)
    for step, moved in ((2.0, 2.0), (4.0, 2.4)):
        merging.note_training(ZERO, at(step))
        assert units(merging, reputation) == pytest.approx((moved, moved), rel=1e-6)
    merging.rest()
    assert units(merging, reputation) == pytest.approx((2.4, 2.4), rel=1e-6)
    merging.note_training(ZERO, at(7.0))
    assert units(merging, reputation) == pytest.approx((7.0, 7.0), rel=1e-6)
    again, judge = node(judging, scales=reputation.yardstick.scales)
    again.rule.restore(merging.rule.state())
    assert units(again, judge) == units(merging, reputation)
    assert b"own" not in merging.rule.state(), "it is kept once"


def test_a_new_model_has_a_new_scale() -> None:
    merging, reputation = node()
    merging.note_training(ZERO, at(2.0))
    reputation.begin_anew(MANIFEST.model)
    assert reputation.yardstick.training.moved is None


def test_after_an_absence_distances_in_the_old_unit_are_forgotten_with_it() -> None:
    merging, reputation = node()
    merging.note_training(ZERO, at(1.0))
    for _ in range(8):
        merging.rule.merge(ZERO, 100, [Candidate(NodeId(f"P{i}"), at(5.0, i), 100, 0) for i in range(9)])
    assert units(merging, reputation)[0] == pytest.approx(5 / 3, rel=1e-6), "the radius has grown"
    merging.rest()
    assert units(merging, reputation)[0] == pytest.approx(5 / 3, rel=1e-6)
    merging.note_training(ZERO, at(1.0))
    assert units(merging, reputation)[0] == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize(("scales", "moved"), [(None, 2.5), (Scales(), 2.5), (Scales(4.0), 4.0)])
def test_a_scale_that_the_rule_once_kept_itself_counts_where_there_is_no_other(
    scales: Scales | None, moved: float
) -> None:
    merging, reputation = node(scales=scales)
    merging.rule.restore(b'{"memory":"{\\"own\\":2.5,\\"ratios\\":[[1.5,2.0]]}","rule":"clip"}')
    assert units(merging, reputation) == pytest.approx((moved, moved), rel=1e-6)
    alone = Clip()
    alone.restore(b'{"memory":"{\\"own\\":null,\\"ratios\\":[]}","rule":"clip"}')
    assert alone.state() == Clip().state(), "a rule alone is its own node"


def test_a_rule_that_knows_of_no_scale_is_told_of_training_as_ever() -> None:
    with code_allowed():
        merging, reputation = node(rule="tests.core.test_training_scale:Watching")
    assert isinstance(merging.rule, AggregationRule) and not isinstance(merging.rule, KnowsTraining)
    merging.note_training(ZERO, at(2.0))
    merging.rest()
    merging.note_training(ZERO, at(3.0))
    assert cast("Watching", merging.rule).moved == 5.0
    assert reputation.yardstick.training.moved == 3.0
