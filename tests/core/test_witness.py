"""A member that tells different members different things is convicted by all of them, and nobody else ever is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from p2pfed.core import evidence, wire
from p2pfed.core.effects import Effect, Emit, KeptProof, Pull, Save
from p2pfed.core.events import EquivocationProven, Event, ProblemCleared, ProblemRaised, RoundCompleted, StandingChanged
from p2pfed.core.inputs import HeartbeatsReceived, Input, ManifestChanged, Pardoned, TrainerReady, UpdateReceived
from p2pfed.core.membership import MAX_WATCHED
from p2pfed.core.messages import Equivocation, HeartbeatTable, ModelUpdate, SignedStatement
from p2pfed.core.node import GossipNode
from p2pfed.core.problems import Problems
from p2pfed.core.reputation import Reputation
from p2pfed.core.types import NodeId
from p2pfed.core.witness import HEADS_KEPT, MOST_PROOFS, Witness
from p2pfed.errors import StateCorrupt
from tests.core.heap import MODEL, Network, identity, make_manifest, started

LIAR = 1
HONEST = 0


class TwoFaced(Network):
    """A network in which one member answers the pulls of `others` with another model under the same number."""

    others: frozenset[NodeId] = frozenset()
    lied_at: float | None = None

    def carry_out(self, me: NodeId, effect: Effect) -> None:
        liar = self.ids[LIAR]
        told = self.shelves[liar].get(liar)
        if isinstance(effect, Pull) and effect.peer == effect.member == liar and me in self.others and told:
            seq, frame = told
            other = another(wire.open_update(frame, self.trust), self)
            self.shelves[liar][liar] = (seq, other.frame)
            if seq > effect.after and self.lied_at is None:
                self.lied_at = self.now
            super().carry_out(me, effect)
            self.shelves[liar][liar] = (seq, frame)
        else:
            super().carry_out(me, effect)


def another(update: ModelUpdate, network: Network, shift: float = 1.0, by: int = LIAR) -> ModelUpdate:
    """What the liar signs besides `update`."""
    return sealed(network, update.statement.seq, update.vector + np.float32(shift), by)


def sealed(network: Network, seq: int, vector: np.ndarray | float, by: int = LIAR) -> ModelUpdate:
    size = network.manifest.model.schema().size
    return wire.seal_update(
        identity(by), manifest=network.manifest, instance="ab", seq=seq, previous="", round=seq, rows=1000,
        vector=np.broadcast_to(np.asarray(vector, np.float32), size).copy(),
    )  # fmt: skip


def lie(network: Network, seq: int, by: int = LIAR, values: tuple[float, float] = (1, 2)) -> Equivocation:
    found = evidence.contradiction(*(sealed(network, seq, v, by).head for v in values))
    assert found is not None
    return found


def emitted(effects: list[Effect], kind: type) -> list[Event]:
    return [e.event for e in effects if isinstance(e, Emit) and isinstance(e.event, kind)]


def heard(*proofs: Equivocation, heads: tuple[SignedStatement, ...] = (), via: NodeId) -> HeartbeatsReceived:
    return HeartbeatsReceived(HeartbeatTable((), heads, proofs), via, answered=False)


def quiet(n: int = 4) -> tuple[Network, GossipNode]:
    """A network that has learned for a while, and its node 0."""
    network = started(n, rounds=0)
    network.run(4)
    return network, network.nodes[network.ids[HONEST]]


# --- the whole network ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "fooled"), [(3, 1), (6, 1), (10, 5), (24, 3)])
def test_every_honest_node_convicts_an_equivocator_within_a_few_periods(n: int, fooled: int) -> None:
    network = TwoFaced(make_manifest(n), rounds=0)
    network.others = frozenset(network.ids[-fooled:])
    for i in range(n):
        network.start(i)
    honest = [m for i, m in enumerate(network.ids) if i != LIAR]
    period = network.manifest.gossip.heartbeat_seconds
    while not all(network.nodes[m].reputation.proven(network.ids[LIAR]) for m in honest):
        network.run(network.now + 0.1)
        assert network.lied_at is None or network.now < network.lied_at + 8 * period
    network.run(network.now + 5)
    for member in honest:
        node, events = network.nodes[member], network.events[member]
        told = [e for e in events if isinstance(e, EquivocationProven)]
        assert 1 <= len(told) <= MOST_PROOFS and {e.member for e in told} == {network.ids[LIAR]}
        changed = [e for e in events if isinstance(e, StandingChanged) and e.member == network.ids[LIAR]]
        assert changed[-1].after == "quarantined" and "proven" in changed[-1].reason
        assert node.reputation.quarantine == [network.ids[LIAR]]
        since = [e for e in events if isinstance(e, RoundCompleted)][-2:]
        assert since and all(network.ids[LIAR] not in e.merged for e in since)
        for proof, _ in node.witness.proofs.values():
            assert evidence.open_proof(evidence.encode_proof(proof), network.manifest) == proof


class Untrained(Network):
    """A network whose members only exchange heartbeats."""

    def push(self, node: NodeId, delay: float, given: Input) -> None:
        if not isinstance(given, TrainerReady):
            super().push(node, delay, given)


@pytest.mark.parametrize(("n", "convicted"), [(16, 0), (80, 0), (80, 24)])
def test_a_proof_reaches_everybody_within_ten_periods_however_many_stand_convicted(n: int, convicted: int) -> None:
    network = Untrained(make_manifest(n), rounds=0)
    for i in range(n):
        network.start(i)
    network.run(8)

    def show(member: NodeId, proof: Equivocation) -> None:
        for effect in network.nodes[member].handle(heard(proof, via=network.ids[2]), network.now):
            network.carry_out(member, effect)

    known = [lie(network, 1, by=i) for i in range(n - convicted, n)]
    for member in network.ids:
        for proof in known:
            show(member, proof)
    show(network.ids[HONEST], lie(network, 1))
    network.run(network.now + 10 * network.manifest.gossip.heartbeat_seconds)
    liar = network.ids[LIAR]
    assert all(node.reputation.proven(liar) for member, node in network.nodes.items() if member != liar)


def test_an_honest_network_with_restarts_convicts_nobody() -> None:
    network = started(5, rounds=0, loss=0.2)
    for step in range(1, 8):
        network.run(4 * step)
        network.crash(step % 5)
        network.run(4 * step + 1)
        network.start(step % 5)
    network.run(40)
    assert not [e for told in network.events.values() for e in told if isinstance(e, EquivocationProven)]
    assert not any(disk.proofs for disk in network.disks.values())


def test_a_restored_backup_that_hears_of_its_own_statement_jumps_over_it() -> None:
    network, node = quiet()
    own = sealed(network, node.rounds.seq + 5, 1.0, by=HONEST)
    effects = node.handle(heard(heads=(own.head,), via=network.ids[2]), network.now)
    assert node.rounds.seq == own.statement.seq
    assert [e.code for e in emitted(effects, ProblemRaised)] == ["STATE_ROLLED_BACK"]  # type: ignore[attr-defined]
    assert not node.witness.proofs


# --- one node ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["pulled", "relayed", "pushed", "told", "proven"])
def test_the_second_statement_convicts_whichever_way_it_comes(way: str) -> None:
    network, node = quiet()
    liar, other = network.ids[LIAR], network.ids[2]
    first, second = sealed(network, 50, 1.0), sealed(network, 50, 2.0)
    node.handle(UpdateReceived(first, liar), network.now)
    given = {
        "pulled": UpdateReceived(second, liar),
        "relayed": UpdateReceived(second, other),
        "pushed": UpdateReceived(second, liar, pushed=True),
        "told": heard(heads=(second.head,), via=other),
        "proven": heard(lie(network, 50), via=other),
    }[way]
    effects = node.handle(given, network.now)
    assert [e.member for e in emitted(effects, EquivocationProven)] == [liar]  # type: ignore[attr-defined]
    saved = next(i for i, e in enumerate(effects) if isinstance(e, Save))
    assert saved < next(
        i for i, e in enumerate(effects) if isinstance(e, Emit) and isinstance(e.event, EquivocationProven)
    )
    assert node.reputation.proven(liar) and not node.reputation.proven(other)
    assert all(s.update.statement.sender != liar for s in node.updates.slots())
    assert node.heartbeats(node.me).proofs == (lie(network, 50),)
    again = node.handle(given, network.now)
    assert not emitted(again, EquivocationProven) and not [e for e in again if isinstance(e, Save) and e.proofs]


def test_nothing_but_a_proof_changes_anything() -> None:
    network, node = quiet()
    before = dict(node.reputation.peers)
    heads = tuple(sealed(network, 60 + i, 3.0, by=i).head for i in (1, 2, 3))
    effects = node.handle(heard(heads=heads, via=network.ids[2]), network.now)
    effects += node.handle(heard(heads=heads, via=network.ids[3]), network.now)
    assert not [e for e in effects if isinstance(e, (Save, Emit))]
    assert node.reputation.peers == before and not node.witness.proofs
    for seq, head in zip((60, 61, 62), heads, strict=True):
        assert not node.witness.holds(head), f"what others tell is not kept ({seq})"


def test_a_flood_of_proofs_fills_nothing() -> None:
    network, node = quiet()
    saved = 0
    for seq in range(100, 400):
        effects = node.handle(heard(lie(network, seq), via=network.ids[2]), network.now)
        saved += sum(len(e.proofs) for e in effects if isinstance(e, Save))
    assert saved == len(node.witness.proofs) == MOST_PROOFS
    assert node.heartbeats(node.me).proofs == (lie(network, 100),)


def test_what_is_kept_of_statements_is_bounded_and_only_their_signer_can_push_them_out() -> None:
    network, node = quiet()
    kept = sealed(network, 1_000, 1.0, by=2)
    node.handle(UpdateReceived(kept, network.ids[2]), network.now)
    for seq in range(1_000, 1_050):
        node.handle(UpdateReceived(sealed(network, seq, 1.0), network.ids[LIAR]), network.now)
        node.handle(heard(heads=(sealed(network, seq + 1, 2.0, by=2).head,), via=network.ids[LIAR]), network.now)
    assert node.witness.holds(kept.head)
    assert sum(node.witness.holds(sealed(network, seq, 1.0).head) for seq in range(1_000, 1_050)) == HEADS_KEPT
    witness = Witness(node.me, network.manifest, {}, node.reputation, Problems())
    for i in range(MAX_WATCHED + 5):
        head = replace(kept.head, statement=replace(kept.head.statement, sender=NodeId(f"{i}")), digest=str(i))
        witness.given(type("Update", (), {"head": head, "statement": head.statement})())  # type: ignore[arg-type]
    assert len(witness._heads) == MAX_WATCHED


def test_the_statements_of_all_members_are_told_in_turn() -> None:
    network = started(24, rounds=0)
    network.run(20)
    node = network.nodes[network.ids[0]]
    turns = [[head.statement.sender for head in node.witness.told(turn)[0]] for turn in range(9)]
    assert {len(told) for told in turns} == {wire.MAX_TABLE_HEADS}
    assert {member for told in turns for member in told} == set(network.ids[1:])
    last = sealed(network, 900, 1.0, by=5)
    node.handle(UpdateReceived(last, network.ids[2]), network.now)
    assert all(last.head in node.witness.told(turn)[0] for turn in range(9)), "what was given last is always told"


def test_proven_ones_take_no_place_in_quarantine_and_never_mend() -> None:
    reputation = Reputation(MODEL, 3, 0)
    a, b = NodeId("A"), NodeId("B")
    assert [c.after for c in reputation.convict(a)] == ["quarantined"] and reputation.convict(a) == []
    reputation.peers[a].clean = 10_000
    assert reputation._settle(a, "") == [] and reputation.quarantined(a) and reputation.trust(a) == 0
    reputation._record(b).score = 8.0
    assert [c.after for c in reputation._settle(b, "its models")] == ["quarantined"]
    assert reputation.quarantine == [a, b] and reputation.releasable == [b]
    restored = Reputation(MODEL, 3, 0)
    restored.restore(b"", reputation.changed_records())
    assert restored.proven(a)
    assert [c.after for c in reputation.pardon(a)] == ["trusted"] and not reputation.proven(a)


# --- over restarts, and after the operator's word ---------------------------------------------------------------------


def test_a_conviction_survives_a_restart_even_without_the_reputation_and_is_told_again() -> None:
    network, node = quiet()
    effects = node.handle(heard(lie(network, 50), via=network.ids[2]), network.now)
    for effect in effects:
        network.carry_out(node.me, effect)
    network.crash(HONEST)
    network.disks[node.me].peers.clear()
    again = network.start(HONEST)
    assert again.reputation.proven(network.ids[LIAR])
    network.run(network.now + 2)
    problems = [e for e in network.events[again.me] if isinstance(e, ProblemRaised) and e.code == "EQUIVOCATION"]
    assert [p.subject for p in problems] == [network.ids[LIAR]] * 2
    proven_events = [e for e in network.events[again.me] if isinstance(e, EquivocationProven)]
    assert len(proven_events) == 1 and again.heartbeats(node.me).proofs == (lie(network, 50),)


def test_a_cleared_proof_convicts_no_more_but_a_new_lie_does() -> None:
    network, node = quiet()
    liar, via = network.ids[LIAR], network.ids[2]
    node.handle(UpdateReceived(sealed(network, 60, 1.0), liar), network.now)
    node.handle(heard(lie(network, 90), via=via), network.now)
    cleared = node.handle(Pardoned(liar), network.now)
    for effect in cleared:
        network.carry_out(node.me, effect)
    assert [e.subject for e in emitted(cleared, ProblemCleared)] == [liar]  # type: ignore[attr-defined]
    assert not node.reputation.quarantined(liar) and node.heartbeats(node.me).proofs == ()
    network.crash(HONEST)
    node = network.start(HONEST)
    assert not node.reputation.proven(liar)
    old = (lie(network, 90), lie(network, 90, values=(1, 3)), lie(network, 60), lie(network, 7))
    for proof in old:
        assert node.handle(heard(proof, via=via), network.now) == [], f"of number {proof.seq}"
    effects = node.handle(heard(lie(network, 91), via=via), network.now)
    assert emitted(effects, EquivocationProven) and node.reputation.proven(liar)


def test_a_pardon_of_one_who_was_never_convicted_clears_nothing() -> None:
    network, node = quiet()
    effects = node.handle(Pardoned(network.ids[LIAR]), network.now)
    assert not [e for e in effects if isinstance(e, Save) and e.proofs]
    node.handle(heard(lie(network, 3), via=network.ids[2]), network.now)
    assert node.reputation.proven(network.ids[LIAR])


def test_a_node_that_is_shown_a_proof_against_itself_says_so_and_goes_on() -> None:
    network, node = quiet()
    effects = node.handle(heard(lie(network, 3, by=HONEST), via=network.ids[2]), network.now)
    [problem] = emitted(effects, ProblemRaised)
    assert problem.severity == "error" and "second daemon" in problem.hint  # type: ignore[attr-defined]
    assert node.me not in node.reputation.peers and node.heartbeats(node.me).proofs == (lie(network, 3, by=HONEST),)


def test_a_remembered_proof_must_be_one_unless_its_member_was_expelled() -> None:
    network, node = quiet()
    proof = lie(network, 50)
    kept = {proof.digest: KeptProof(evidence.encode_proof(proof))}
    gone = replace(network.manifest, members=tuple(m for i, m in enumerate(network.manifest.members) if i != LIAR))
    reputation = Reputation(MODEL, 4, 0)
    without = Witness(node.me, gone, kept, reputation, Problems())
    assert not without.proofs and not reputation.peers
    assert without.follow(gone) == [] and not without.proofs
    assert without.follow(network.manifest) and reputation.proven(network.ids[LIAR]), "let in again, it is as guilty"
    damaged = {proof.digest: KeptProof(kept[proof.digest].proof[:-1])}
    with pytest.raises(StateCorrupt, match="the remembered proof"):
        Witness(node.me, network.manifest, damaged, reputation, Problems())


def test_who_leaves_with_a_proof_against_it_troubles_nobody_and_is_convicted_when_it_comes_back() -> None:
    network, node = quiet()
    liar, whole = network.ids[LIAR], network.manifest
    node.handle(heard(lie(network, 1), via=network.ids[2]), 0.0)
    assert node.reputation.proven(liar) and "EQUIVOCATION" in node.problems
    others = tuple(m for i, m in enumerate(whole.members) if i != LIAR)
    node.handle(ManifestChanged(replace(whole, version=2, members=others)), 1.0)
    assert not node.reputation.quarantined(liar) and "EQUIVOCATION" not in node.problems
    effects = node.handle(ManifestChanged(replace(whole, version=3)), 2.0)
    assert node.reputation.proven(liar) and "EQUIVOCATION" in node.problems
    [save] = [x for x in effects if isinstance(x, Save)]
    [told] = emitted(effects, StandingChanged)
    assert save.peers[liar].proven and (told.member, told.after) == (liar, "quarantined")
    assert not emitted(node.handle(ManifestChanged(replace(whole, version=4)), 3.0), StandingChanged)
