"""What members told of their rows when they joined, and what a node allows them for it."""

from __future__ import annotations

import pytest

from p2pfed.core.aggregation import Candidate
from p2pfed.core.consortium import Declared
from p2pfed.core.types import NodeId
from tests.core.test_reputation import BAD, OWN, PEERS, Bank


def test_what_members_told_of_their_base_rates_is_heeded() -> None:
    bank = Bank()
    bank.reputation._me = NodeId("me")
    rates = {NodeId("me"): 256.0, BAD: 1.0, PEERS[1]: 256.0}
    bank.reputation.follow([*PEERS, NodeId("me")], {member: Declared(rate) for member, rate in rates.items()})
    bank.round()
    told, usual = (bank.reputation.peers[member].newest for member in (BAD, PEERS[1]))
    assert told.disagreement_fine == pytest.approx(8 * usual.disagreement_fine)


@pytest.mark.parametrize(
    ("told", "claimed", "allowed"),
    [(16_384, 1, 1), (None, 1, 4), (4096, 1, 4), (4096, 16_384, 1), (1, 4096, 4), (2**40, 1, 1)],
)
def test_who_told_many_rows_is_allowed_no_more_by_claiming_few(told: int | None, claimed: int, allowed: int) -> None:
    bank = Bank()
    bank.reputation.follow([*PEERS, NodeId("me")], {BAD: Declared(None, told)})
    rows = {member: claimed if member == BAD else 16_384 for member in PEERS}
    bank.reputation.judge(OWN, 16_384, [Candidate(member, OWN, rows[member], 0) for member in PEERS])
    found = bank.reputation.peers[BAD]
    assert found.newest.distance_fine == pytest.approx(allowed * bank.reputation.yardstick.fine[0])
    assert found.rows == claimed, "what is kept of it is what it claimed"
