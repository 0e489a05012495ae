"""What the history says of each model in a merge."""

from __future__ import annotations

import numpy as np
import pytest

from p2pfed.core.aggregation import Candidate, rule_from_name
from p2pfed.core.reputation.peer_record import Assessment, PeerRecord
from p2pfed.core.sources import traced
from p2pfed.core.training_scale import TrainingScale
from p2pfed.core.types import NodeId
from tests.core.test_inbox import update

A, B = NodeId("A" * 56), NodeId("B" * 56)


@pytest.mark.parametrize("rule", ["clip", "mean", "clipped:1.5"])
def test_steps_towards_the_models_add_up_to_the_movement(rule: str) -> None:
    own = np.zeros(4, np.float32)
    models = {A: np.array([1, 0, 0, 0], np.float32), B: np.array([-30, 40, 0, 0], np.float32)}
    merging = rule_from_name(rule)
    if rule == "clip":
        training = TrainingScale()
        training.note(own, np.array([0, 0, 1, 0], np.float32))
        merging.measure_by(training)
    merge = merging.merge(own, 100, [Candidate(member, vector, 100, 0) for member, vector in models.items()])
    records = {B: PeerRecord(score=2.5, newest=Assessment(evidence=0.5))}
    updates = {member: update(member, 3) for member in models}
    near, far = traced(own, merge, models, updates, records)
    assert (near.member, far.member) == (A, B)
    assert near.share + far.share == pytest.approx(1)
    for source, distance in ((near, 1.0), (far, 50.0)):
        assert source.moved == pytest.approx(source.weight * source.kept * distance)
    assert near.kept == 1.0 and (far.kept < 0.2) == (rule != "mean")
    if rule == "mean":
        assert near.share < 0 < far.share, "the far model drew the other way"
    assert (near.score, near.evidence, far.score, far.evidence) == (0.0, 0.0, 2.5, 0.5)
    assert (far.seq, far.digest, far.bytes) == (3, updates[B].digest, len(updates[B].frame))
