"""Which member's model moved this node's in a merge, and by how much: what the history says of each."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from p2pfed.core.aggregation import Merged
from p2pfed.core.aggregation.geometry import moves_to
from p2pfed.core.events import Source
from p2pfed.core.messages import ModelUpdate
from p2pfed.core.reputation.peer_record import PeerRecord
from p2pfed.core.types import NodeId
from p2pfed.core.weights import Vector


def traced(
    own: Vector,
    merge: Merged,
    models: Mapping[NodeId, Vector],
    updates: Mapping[NodeId, ModelUpdate],
    records: Mapping[NodeId, PeerRecord],
) -> tuple[Source, ...]:
    """The sources of a `merge` of `models`, which came with `updates`, into `own`; vectors are float32 [d].

    The step towards a model is weight * kept * (model - own), and its share <step, move> / |move|^2, which adds up to 1
    over all models where the whole move is the sum of the steps. `records` are what is thought of the members.
    """
    moves, distances = moves_to(own, list(models.values()))
    length = max(float(merge.displacement), 1e-30)
    along = (moves @ ((merge.vector - own) / np.float32(length))).astype(np.float64) / length
    found = []
    for member, distance, part in zip(models, distances.tolist(), along.tolist(), strict=True):
        weight, kept = merge.weights.get(member, 0.0), merge.kept.get(member, 1.0)
        update, record = updates[member], records.get(member, PeerRecord())
        found.append(
            Source(
                member=member,
                seq=update.statement.seq,
                digest=update.digest,
                weight=weight,
                kept=kept,
                moved=weight * kept * distance,
                share=weight * kept * part,
                score=record.suspicion,
                evidence=record.newest.evidence,
                bytes=len(update.frame),
            )
        )
    return tuple(found)
