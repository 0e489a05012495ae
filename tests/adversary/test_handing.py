"""What attackers hand to those who ask, as honest members open it."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from p2pfed.adversary.attacks import campaign_from_name
from p2pfed.adversary.coalition import Coalition
from p2pfed.adversary.node import SPARE, AttackingNode
from p2pfed.core import wire
from p2pfed.core.effects import Checkpoint, Effect, Publish, Push, Save, SetTimer
from p2pfed.core.inbox import Inbox
from p2pfed.core.inputs import (
    HeartbeatsReceived,
    Offended,
    Started,
    StopRequested,
    TimerFired,
    TrainerReady,
    TrainingFinished,
    UpdateReceived,
)
from p2pfed.core.messages import HeartbeatTable, ModelUpdate
from p2pfed.core.node import GossipNode
from p2pfed.core.settings import Memory, NodeSettings
from p2pfed.core.types import NodeId, Reason, Verdict
from p2pfed.core.updates import NEAR_ROUNDS
from p2pfed.core.weights import Vector
from p2pfed.errors import RemoteFault
from tests.sim.consortium import population, scenario

POPULATION = population(scenario(nodes=5))
MANIFEST = POPULATION.manifest
TRUST = wire.trust_of(MANIFEST)
IDS = [identity.node_id for identity in POPULATION.identities]
ME, BOB, EVE = IDS[0], IDS[1], IDS[2]


@dataclass
class Member:
    """A node, and the shelf that its interpreter answers pulls from."""

    node: GossipNode
    now: float = 0.0
    shelf: tuple[int, bytes] = (0, b"")
    effects: list[Effect] = field(default_factory=list)

    def give(self, given: object) -> list[Effect]:
        self.now += 1.0
        self.effects = self.node.handle(given, self.now)
        for effect in self.effects:
            if isinstance(effect, Publish) and effect.member == self.node.me:
                self.shelf = effect.seq, effect.frame
        return self.effects

    def train(self, step: float = 0.25) -> Vector:
        vector = self.node.rounds.vector + np.float32(step)
        self.give(TrainingFinished(self.node.rounds.round + 1, vector, b"adam", 0.5, 3, 1.0))
        return vector

    def asked(self, by: NodeId) -> bytes:
        return self.node.serve(by, self.node.me, self.shelf[1])


def member(kind: str = "", index: int = 0, memory: Memory | None = None, coalition: Coalition | None = None) -> Member:
    """A member that attacks, or an honest one, about to train; it has met everybody."""
    settings = NodeSettings(rounds=20, endpoints=MANIFEST.members[index].endpoints)
    arguments = (POPULATION.identities[index], MANIFEST, settings, memory or Memory(1, f"{index:032x}"))
    rng = np.random.default_rng(index)
    node = AttackingNode(*arguments, rng, campaign_from_name(kind), coalition) if kind else GossipNode(*arguments, rng)
    made = Member(node)
    made.give(Started())
    rows = []
    for other in set(range(5)) - {index}:
        whole = NodeSettings(rounds=20, endpoints=MANIFEST.members[other].endpoints)
        memory = Memory(1, f"{other:032x}")
        rows.append(GossipNode(POPULATION.identities[other], MANIFEST, whole, memory, rng).presence.row)
    made.give(HeartbeatsReceived(HeartbeatTable(tuple(rows)), IDS[index - 1], answered=True))
    made.give(TrainerReady(100, 10))
    made.give(TimerFired("adoption"))
    made.now += 60.0  # nobody says what it holds of this node, so it begins to publish after a minute
    made.give(TimerFired("restored"))
    return made


def opened(frame: bytes) -> ModelUpdate:
    return wire.open_update(frame, TRUST)


def from_member(index: int, step: float = 1.0) -> ModelUpdate:
    """An honest member's first update."""
    honest = member(index=index)
    honest.train(step)
    return opened(honest.shelf[1])


def test_an_honest_node_answers_with_the_frame_itself():
    honest = member()
    honest.train()
    assert honest.asked(BOB) is honest.shelf[1]


@pytest.mark.parametrize("kind", ["echo", "near_echo", "dissensus"])
def test_tailored_models_are_one_chain_in_which_no_number_is_used_twice(kind):
    attacker, inbox = member(kind), Inbox(BOB)
    statements = []
    for _ in range(3):
        attacker.train()
        for asking in (BOB, EVE):
            attacker.give(UpdateReceived(from_member(IDS.index(asking)), asking))
        attacker.train()
        for asking in (BOB, EVE):
            update = opened(attacker.asked(asking))
            statements.append(update)
            if asking == BOB:
                assert inbox.offer(update, 0)[0] is Verdict.ACCEPT
    seqs = [update.statement.seq for update in statements]
    assert seqs == sorted(set(seqs))
    assert statements[1].statement.previous == statements[0].digest


def test_an_echo_hands_each_asker_its_own_model_back():
    attacker = member("echo")
    attacker.train()
    theirs = [from_member(1, 1.0), from_member(2, 2.0)]
    for update in theirs:
        attacker.give(UpdateReceived(update, update.statement.sender))
    trained = attacker.train()
    for update in theirs:
        echo = opened(attacker.asked(update.statement.sender))
        assert echo.statement.sender == ME and np.array_equal(echo.vector, update.vector)
    assert np.array_equal(opened(attacker.asked(IDS[3])).vector, trained)  # of whom it knows nothing


def test_who_waits_for_a_return_is_honest_to_everybody_else():
    attacker, bob = member("waiting"), member(index=1)
    bob.train()
    bob.give(TimerFired("heartbeat"))  # says what it has published
    attacker.give(HeartbeatsReceived(HeartbeatTable((bob.node.presence.row,)), BOB, answered=True))
    for _ in range(1 + NEAR_ROUNDS):
        attacker.train()
        assert attacker.asked(BOB) is attacker.shelf[1]
    trained = attacker.train()
    handed = opened(attacker.asked(BOB))
    assert np.array_equal(handed.vector, -trained) and handed.statement.seq > attacker.shelf[0]
    assert attacker.asked(EVE) is attacker.shelf[1]  # has published nothing yet


def test_colluders_need_not_have_received_it_themselves():
    coalition = Coalition()
    one, other = member("echo", 0, coalition=coalition), member("echo", 3, coalition=coalition)
    update = from_member(1)
    other.give(UpdateReceived(update, BOB))
    for attacker in (one, other):
        attacker.train()
    assert np.array_equal(opened(one.asked(BOB)).vector, update.vector)
    assert opened(one.asked(IDS[3])).vector.tolist() == opened(one.shelf[1]).vector.tolist()  # no need to fool a friend


def test_after_a_restart_no_number_handed_to_one_asker_is_used_again():
    attacker = member("echo")
    attacker.train()
    attacker.give(UpdateReceived(from_member(1), BOB))
    attacker.train()
    saved: Checkpoint = next(e.checkpoint for e in attacker.effects if isinstance(e, Save) and e.checkpoint)
    newest = opened(attacker.asked(BOB)).statement.seq
    again = member("echo", memory=Memory(2, f"{0:032x}", saved))
    assert again.shelf == (saved.seq, saved.published)
    again.give(TimerFired("catch_up"))
    again.train()
    assert again.shelf[0] == saved.seq + SPARE + 1 > newest


def test_equivocation_signs_two_models_with_one_number():
    attacker = member("equivocation")
    attacker.train(0.5)
    begun = attacker.node.rounds.vector
    attacker.train(0.25)
    answers = [opened(attacker.asked(asking)) for asking in IDS[1:]]
    assert {update.statement.seq for update in answers} == {2}
    assert len({update.digest for update in answers}) == 2
    moved = sorted({float(round(float((update.vector - begun)[0]), 4)) for update in answers})
    assert moved == [-0.25, 0.25]
    assert [opened(attacker.asked(asking)).digest for asking in IDS[1:]] == [update.digest for update in answers]
    one, other = {update.digest: update for update in answers}.values()
    inbox = Inbox(BOB)
    assert inbox.offer(one, 0) == (Verdict.ACCEPT, None)
    assert inbox.offer(other, 0) == (Verdict.REJECT, Reason.EQUIVOCATION)


def test_a_replay_is_an_old_statement_that_still_verifies():
    attacker = member("replay")
    attacker.train()
    first = attacker.asked(BOB)
    assert first == attacker.shelf[1]
    attacker.train()
    assert attacker.asked(BOB) == attacker.asked(EVE) == first != attacker.shelf[1]
    assert opened(first).statement.seq == 1
    assert attacker.node.serve(BOB, EVE, b"another's") == b"another's"


def test_a_forged_sender_is_found_out_by_the_signature():
    attacker = member("forged")
    attacker.train()
    for asked_for in (ME, EVE):
        frame = attacker.node.serve(BOB, asked_for, attacker.shelf[1])
        with pytest.raises(RemoteFault) as caught:
            opened(frame)
        assert caught.value.reason is Reason.FORGED_SIGNATURE and caught.value.signer is None
        assert b'"sender":"' + ME.encode() not in frame
    assert b'"sender":"' + EVE.encode() in frame


def test_another_schema_is_signed_by_the_attacker_and_quarantines_it_at_once():
    attacker, honest = member("wrong_schema"), member(index=1)
    attacker.train()
    with pytest.raises(RemoteFault) as caught:
        opened(attacker.asked(BOB))
    fault = caught.value
    assert (fault.reason, fault.signer) == (Reason.WRONG_SCHEMA, ME)
    honest.give(Offended(ME, fault.reason, fault.detail, ME, fault.signer))
    assert honest.node.reputation.quarantined(ME)


def test_a_flood_pushes_to_everybody_and_is_not_let_in():
    attacker, honest = member("flooding"), member(index=1)
    attacker.train()
    for number in range(1, 4):
        attacker.give(TimerFired("flood"))
        assert [e.at for e in attacker.effects if isinstance(e, SetTimer)] == [attacker.now + 0.05]
        pushed = [effect for effect in attacker.effects if isinstance(effect, Push)]
        assert {effect.peer for effect in pushed} == set(IDS[1:])
        update = opened(pushed[0].frame)
        assert update.statement.seq == 1 + number
        effects = honest.give(UpdateReceived(update, ME, pushed=True))
        assert not any(isinstance(effect, Save | Publish) for effect in effects)
    attacker.give(StopRequested())
    assert attacker.give(TimerFired("flood")) == []


def test_outside_its_campaign_an_attacker_answers_like_anybody():
    attacker = member("equivocation")
    attacker.node._campaign = campaign_from_name("equivocation", start=2)
    attacker.train()
    assert attacker.asked(BOB) is attacker.shelf[1]
    attacker.train()
    assert {attacker.asked(asking) for asking in IDS[1:]} != {attacker.shelf[1]}
