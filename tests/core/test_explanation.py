"""Why a peer has its standing, and what would change it."""

from __future__ import annotations

import pytest

from p2pfed.core.reputation.explanation import explain
from p2pfed.core.reputation.peer_record import Assessment, PeerRecord
from tests.core.test_reputation import BAD, OWN, PARAMS, Bank


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
def test_what_clean_models_do_is_told_as_they_do_it(record: PeerRecord, takes: float, needed: int) -> None:
    why = explain(record, PARAMS, 10)
    assert (why.clean_takes, why.clean_needed) == (pytest.approx(takes), needed)
    bank = Bank()
    for count in range(needed + 1):
        assert (record.suspicion < PARAMS.threshold / 2) == (count == needed)
        bank.reputation.peers[BAD] = record
        record.newest = Assessment(evidence=-PARAMS.forgiven)
        bank.reputation._count(BAD)
    assert record.standing == "trusted"


def test_a_quarantine_that_its_models_since_would_not_ask_for_is_doubtful() -> None:
    bank = Bank()
    assert bank.until_quarantined(-OWN) and not bank.reputation.explain(BAD).doubtful
    bank.round()
    why = bank.reputation.explain(BAD)
    assert why.doubtful and why.standing == "quarantined" and why.clean_needed is None
    bank.reputation.convict(BAD)
    assert not bank.reputation.explain(BAD).doubtful, "a lie is no matter of its models"
