"""Why a peer has its standing, and what would change it."""

from __future__ import annotations

import pytest

from p2pfed.core.reputation.explanation import explain
from p2pfed.core.reputation.peer_record import Assessment, PeerRecord
from tests.core.test_reputation import BAD, PARAMS, Bank


@pytest.mark.parametrize(
    ("record", "takes", "needed"),
    [
        (PeerRecord("suspect", score=2.5), 0.5, 2),
        (PeerRecord("suspect", score=2.5, bursts=2.95), 0.1, 10),
        (PeerRecord("suspect", faults=3.0), 0.19 * 2.25, 1),
        (PeerRecord(score=0.3), 0.3, 0),
        (PeerRecord(), 0.0, 0),
    ],
)
def test_what_the_cleanest_models_do_is_told_as_they_do_it(record: PeerRecord, takes: float, needed: int) -> None:
    why = explain(record, PARAMS, 10)
    assert (why.clean_takes, why.clean_needed) == (pytest.approx(takes), needed)
    bank = Bank()
    for count in range(needed + 1):
        assert (record.suspicion < PARAMS.threshold / 2) == (count == needed)
        bank.reputation.peers[BAD] = record
        record.newest = Assessment(evidence=-PARAMS.forgiven)
        bank.reputation._count(BAD)
    assert record.standing == "trusted"


@pytest.mark.parametrize(
    ("record", "doubtful"),
    [
        (PeerRecord("quarantined", score=1.9), True),
        (PeerRecord("quarantined", score=3.7), False),
        (PeerRecord("quarantined", score=1.0, bursts=3.9), False),
        (PeerRecord("quarantined", faults=4.0), False),
        (PeerRecord("quarantined", score=1.9, proven=True), False),
        (PeerRecord("suspect", score=1.9), False),
    ],
)
def test_a_quarantine_that_its_models_since_would_not_ask_for_is_doubtful(record: PeerRecord, doubtful: bool) -> None:
    """To behave once is no proof, and a lie is no matter of models."""
    assert explain(record, PARAMS, 10).doubtful is doubtful
