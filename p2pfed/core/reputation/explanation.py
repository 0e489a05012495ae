"""Why a peer has its standing, and what would change it: made here, only rendered elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, replace

from p2pfed.core.reputation.params import ReputationParams
from p2pfed.core.reputation.peer_record import Assessment, PeerRecord
from p2pfed.core.types import Standing

MOST_MODELS = 1000
"""Of what more clean models would do nothing is said."""


@dataclass(frozen=True)
class Explanation:
    """What a node thinks of one member, and the numbers behind it."""

    standing: Standing
    suspicion: float
    """The largest of the next three, in points."""
    models: float
    """Evidence of its models added up."""
    bursts: float
    """Gross models alone."""
    faults: float
    """Broken rules of the protocol."""
    suspect_at: float
    quarantine_at: float
    newest: Assessment
    """Of its newest model."""
    looks: int
    """Models judged."""
    idle: int
    """Models in a row that brought nothing."""
    idle_at: int
    """So many in a row weigh nothing."""
    strikes: int
    """How often it was quarantined."""
    clean: int
    """Clean models in a row."""
    release_after: int
    """So many end a quarantine."""
    clean_takes: float
    """Points that a clean model takes off at most."""
    clean_needed: int | None
    """The least number of them until a suspect is trusted, 0 of who is; None in quarantine, or if that is very many."""
    doubtful: bool
    """It is in quarantine, and with its models since its score has fallen below what makes suspect."""


def explain(record: PeerRecord, params: ReputationParams, release_after: int) -> Explanation:
    """What follows of a peer's `record`, and what clean models would do to it."""
    after = replace(record)
    after.add(-params.forgiven, params)
    held = record.standing == "quarantined"
    return Explanation(
        standing=record.standing,
        suspicion=record.suspicion,
        models=record.score,
        bursts=record.bursts,
        faults=record.faults_points,
        suspect_at=params.threshold / 2,
        quarantine_at=params.threshold,
        newest=record.newest,
        looks=record.looks,
        idle=record.idle,
        idle_at=params.idle,
        strikes=record.strikes,
        clean=record.clean,
        release_after=release_after,
        clean_takes=record.suspicion - after.suspicion,
        clean_needed=None if held else _clean_needed(record, params),
        doubtful=held and not record.proven and record.suspicion < params.threshold / 2,
    )


def _clean_needed(record: PeerRecord, params: ReputationParams) -> int | None:
    after = replace(record)
    for count in range(MOST_MODELS):
        if after.suspicion < params.threshold / 2:
            return count
        after.add(-params.forgiven, params)
    return None
