"""What comes of a question: the answer, a refusal, silence, or an offence."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from p2pfed.core import wire
from p2pfed.core.effects import ExchangeHeartbeats, Pull, Push, SayHello
from p2pfed.core.inputs import (
    ExchangeFailed,
    HeartbeatsReceived,
    HelloReceived,
    Input,
    Offended,
    PullEnded,
    UpdateReceived,
)
from p2pfed.core.messages import HeartbeatTable, ModelUpdate
from p2pfed.core.node import GossipNode
from p2pfed.core.probe import Probe
from p2pfed.core.settings import Memory, NodeSettings
from p2pfed.core.succession import InForce
from p2pfed.core.types import Reason
from p2pfed.errors import RemoteFault
from p2pfed.sim.exchanges import Exchanges, Question
from p2pfed.sim.host import Clock, Host
from p2pfed.sim.network import Link, Network, Partition
from tests.sim.consortium import population, scenario

CUT = Partition((0, 1, -1))
NOTHING = Probe(np.zeros(0, np.float32), np.zeros(0, np.float32))


class Wires:
    """Three machines, bank-1 to bank-3, and what the exchanges between them put off or hand over."""

    def __init__(self) -> None:
        p = population(scenario(nodes=3))
        self.manifest = p.manifest
        self.hosts = [
            Host(i, key.node_id, f"bank-{i + 1}", key, Clock(), 9, 9, NOTHING) for i, key in enumerate(p.identities)
        ]
        for host in self.hosts:
            memory = Memory(1, f"{host.index:032x}")
            host.node = GossipNode(host.identity, p.manifest, NodeSettings(), memory, np.random.default_rng(0))
        self.network = Network(3, Link(delay_seconds=0.5, megabits=8.0), {}, np.random.default_rng(0))
        self.later: list[tuple[float, Host, int | None, Any]] = []
        self.handed: list[tuple[Host, Input]] = []
        self.exchanges = Exchanges(
            self.hosts,
            self.network,
            p.manifest,
            lambda *entry: self.later.append(entry),
            lambda host, given: self.handed.append((host, given)),
            lambda host: 7.0,
        )

    def update(self, of: int, seq: int = 1, value: float = 0.5) -> ModelUpdate:
        vector = np.full(self.manifest.model.schema().size, value, np.float32)
        words = {"instance": "00" * 16, "seq": seq, "previous": "" if seq == 1 else "00" * 32, "round": seq, "rows": 9}
        return wire.seal_update(self.hosts[of].identity, manifest=self.manifest, vector=vector, **words)

    def ask(self, request: Any) -> tuple[float, Any]:
        """What bank-1 gets for a request, and after how long; nothing for no answer at all."""
        self.exchanges.ask(self.hosts[0], request)
        took, host, epoch, given = self.later.pop()
        if isinstance(given, Question):
            assert epoch is None
            self.exchanges.arrive(host, given)
            if not self.later:
                return took, None
            back, host, epoch, given = self.later.pop()
            took += back
        assert host is self.hosts[0] and epoch == 0
        return took, given

    def pull(self, peer: int, member: int, after: int = 0) -> tuple[float, Any]:
        return self.ask(Pull(self.hosts[peer].id, (), self.hosts[member].id, after))


@pytest.fixture
def wires() -> Wires:
    return Wires()


def test_a_pull_is_answered_with_the_newest_frame_of_whom_it_asks_for(wires):
    update = wires.update(2)
    wires.hosts[1].shelf[wires.hosts[2].id] = (1, update.frame)
    took, got = wires.pull(1, 2)
    assert got == UpdateReceived(update, wires.hosts[1].id)
    assert took == pytest.approx(1.0 + len(update.frame) * 1e-6)
    assert wires.pull(1, 2, after=1)[1] == PullEnded(wires.hosts[1].id, wires.hosts[2].id)
    assert wires.network.sent == [0, len(update.frame), 0] and wires.network.received == [len(update.frame), 0, 0]


def test_a_frame_is_opened_once_for_all_who_hold_it(wires):
    frame = wires.update(1).frame
    force = InForce(wires.manifest)
    first = wires.exchanges.open(frame, force)
    assert wires.exchanges.open(bytes(bytearray(frame)), force) is first


def test_who_trains_another_model_by_now_refuses_a_frame_that_others_hold(wires):
    frame = wires.update(1).frame
    wires.exchanges.open(frame, InForce(wires.manifest))
    model = replace(wires.manifest.model, hidden=(7,))
    new = replace(wires.manifest, version=2, model=model, generation=2)
    with pytest.raises(RemoteFault) as caught:
        wires.exchanges.open(frame, InForce(new, before=wires.manifest))
    assert caught.value.reason is Reason.OTHER_GENERATION
    assert list(wires.exchanges.opened([frame], InForce(new, before=wires.manifest))) == []


def test_who_is_down_refuses_after_a_round_trip(wires):
    wires.hosts[1].node = None
    took, got = wires.pull(1, 2)
    assert took == 1.0 and got == PullEnded(wires.hosts[1].id, wires.hosts[2].id, "connection refused")
    assert wires.ask(SayHello(wires.hosts[1].id, ()))[1] == ExchangeFailed(wires.hosts[1].id, "connection refused")


def test_who_cannot_be_reached_does_not_answer(wires):
    wires.network.turn(CUT)
    took, got = wires.pull(1, 2)
    assert took == 5.0 and got == PullEnded(wires.hosts[1].id, wires.hosts[2].id, "no answer")
    assert wires.pull(2, 1)[1] == PullEnded(wires.hosts[2].id, wires.hosts[1].id)


def test_an_answer_can_be_lost_too(wires):
    wires.exchanges.ask(wires.hosts[0], SayHello(wires.hosts[1].id, ()))
    wires.network.turn(CUT)
    wires.exchanges.arrive(wires.hosts[1], wires.later.pop()[3])
    assert wires.later.pop() == (5.0, wires.hosts[0], 0, ExchangeFailed(wires.hosts[1].id, "no answer"))


def test_a_push_hands_over_a_verified_update_and_its_sender_hears_nothing(wires):
    update = wires.update(0)
    took, got = wires.ask(Push(wires.hosts[1].id, (), update.frame))
    assert got is None and took == pytest.approx(0.5 + len(update.frame) * 1e-6)
    assert wires.handed == [(wires.hosts[1], UpdateReceived(update, wires.hosts[0].id, pushed=True))]


def test_forged_frames_are_held_against_who_hands_them_over(wires):
    good = wires.update(2).frame
    forged = good[:-4] + b"\0\0\0\1"
    wires.hosts[1].shelf[wires.hosts[2].id] = (1, forged)
    one, two, three = (host.id for host in wires.hosts)
    assert wires.pull(1, 2)[1] == Offended(two, Reason.WRONG_HASH, "", three)
    assert isinstance(wires.ask(Push(two, (), forged))[1], ExchangeFailed)
    assert wires.handed == [(wires.hosts[1], Offended(one, Reason.WRONG_HASH))]


def test_models_without_numbers_are_held_against_their_signer(wires):
    wires.hosts[1].shelf[wires.hosts[2].id] = (1, wires.update(2, value=np.nan).frame)
    _, two, three = (host.id for host in wires.hosts)
    assert wires.pull(1, 2)[1] == Offended(two, Reason.NOT_FINITE, "", three, signer=three)


def test_an_answer_to_another_question_is_an_offence(wires):
    wires.hosts[1].shelf[wires.hosts[2].id] = (5, wires.update(1).frame)
    got = wires.pull(1, 2)[1]
    assert (got.peer, got.reason, got.pulled) == (wires.hosts[1].id, Reason.UNRELATED_ANSWER, wires.hosts[2].id)


def test_tables_are_swapped_and_counted_as_they_are_written(wires):
    own, other = (host.node.heartbeats(host.id) for host in wires.hosts[:2])
    table = HeartbeatTable((*own.rows, *wires.hosts[2].node.heartbeats(wires.hosts[0].id).rows))
    got = wires.ask(ExchangeHeartbeats(wires.hosts[1].id, (), table))[1]
    assert got == HeartbeatsReceived(other, wires.hosts[1].id, answered=True)
    assert wires.handed == [(wires.hosts[1], HeartbeatsReceived(table, wires.hosts[0].id, answered=False))]
    sizes = len(wire.encode_table(table)), len(wire.encode_table(other))
    assert (wires.network.sent[0], wires.network.sent[1]) == sizes


def test_a_hello_is_answered_by_the_node_itself(wires):
    got = wires.ask(SayHello(wires.hosts[1].id, ()))[1]
    hello = wires.hosts[1].node.hello(wires.hosts[0].id, 7.0)
    assert isinstance(got, HelloReceived) and got.hello == hello and 0.8 <= got.round_trip <= 1.2
