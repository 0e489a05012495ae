"""Drivers under asyncio on an in-memory network: order of effects, durability, faults, manifests that spread."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from p2pfed.core import succession, wire
from p2pfed.core.consortium import ManifestError, SignedManifest
from p2pfed.core.effects import Effect, FetchManifest, KeepModel, Save, StartEvaluation, StartTraining
from p2pfed.core.events import CycleBegun, Event, PeerBenched, ProblemRaised, RoundCompleted, RunFinished, UpdateRefused
from p2pfed.core.gossip.calendar import Calendar
from p2pfed.core.inputs import (
    EvaluationFinished,
    HelloReceived,
    Input,
    LoopLagged,
    PullEnded,
    TimerFired,
    TrainerReady,
    TrainingFinished,
)
from p2pfed.core.messages import HeartbeatTable
from p2pfed.core.node import GossipNode
from p2pfed.core.phase import Phase
from p2pfed.core.settings import Memory, NodeSettings
from p2pfed.core.succession import open_successor
from p2pfed.core.types import DAY, Address, NodeId, Reason
from p2pfed.errors import DiskFault, RemoteFault, Unavailable
from p2pfed.net.memory import MemoryNetwork, MemoryTransport
from p2pfed.net.transport import Unreachable
from p2pfed.runtime import driver as module
from p2pfed.runtime.driver import BACKLOG, Driver, SteadyClock
from p2pfed.store.base import MemoryDisk, MemoryStore
from tests.consortia import GOSSIP, Consortium, consortium, next_version, sign


@dataclass
class EchoTrainer:
    """Trainers that answer every job on the next turn of the loop; can be held up, or wait until they are opened."""

    put: Callable[[Input], None]
    held: bool = False
    jobs: list[Effect] = field(default_factory=list)
    opens: bool = False
    """Whether a trainer is ready as soon as it is opened; else the test says so."""
    opened: list[int] = field(default_factory=list)
    closed: list[int] = field(default_factory=list)

    def open(self, cycle: int, accept: bool) -> None:
        self.opened.append(cycle)
        if self.opens:
            asyncio.get_running_loop().call_later(0.005, self.put, TrainerReady(1000, 50, cycle=cycle))

    def close(self, cycle: int) -> None:
        self.closed.append(cycle)

    def submit(self, job: StartTraining | StartEvaluation) -> None:
        self.jobs.append(job)
        if not self.held:
            asyncio.get_running_loop().call_later(0.005, self.put, self.answer(job))

    @staticmethod
    def answer(job: StartTraining | StartEvaluation) -> Input:
        if isinstance(job, StartEvaluation):
            return EvaluationFinished(job.purpose, {"validation": {"auprc": 0.5, "loss": 1.0}}, 0.5)
        return TrainingFinished(job.round, job.vector + np.float32(0.1), b"adam", 0.5, 10, 0.005)


class SlowStore(MemoryStore):
    """Every save waits until `release` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.release = asyncio.Event()
        self.asked = asyncio.Event()

    async def save(self, save: Save) -> None:
        self.asked.set()
        await self.release.wait()
        await super().save(save)


class FullDisk(MemoryStore):
    async def save(self, save: Save) -> None:
        raise DiskFault("cannot write node.sqlite: no space left on device; free some space")


class Bank:
    """A driver with fakes around it."""

    def __init__(self, members: Consortium, i: int, network: MemoryNetwork, store: MemoryStore, rounds: int) -> None:
        signed = members.signed(0, 1)
        address = Address.parse(members.manifest.members[i].endpoints[0])
        restored = store.restore()
        settings = NodeSettings(rounds, 1, (str(address),), "test")
        memory = Memory(restored.epoch, restored.instance, restored.checkpoint, restored.marks)
        node = GossipNode(members.members[i], members.manifest, settings, memory, np.random.default_rng(i))
        self.told: list[Event] = []
        self.kept: list[KeepModel] = []
        self.store = store
        self.driver = Driver(node, [signed], store, self.told.append, self.keep, SteadyClock())
        self.transport = MemoryTransport(node.me, network, self.driver.trust())
        self.driver.transport = self.transport
        self.trainer = EchoTrainer(self.driver.put)
        self.driver.trainers = self.trainer
        self.driver.on_trust = self.transport.use
        network.serve(address, node.me, self.driver)
        self.id = node.me

    async def keep(self, model: KeepModel) -> None:
        self.kept.append(model)

    async def until(self, done: Callable[[], bool], seconds: float = 10.0) -> None:
        async with asyncio.timeout(seconds):
            while not done():
                await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def running(
    members: Consortium, *stores: MemoryStore, rounds: int = 0, opens: bool = False
) -> AsyncIterator[tuple[list[Bank], MemoryNetwork]]:
    network = MemoryNetwork()
    banks = [Bank(members, i, network, store, rounds) for i, store in enumerate(stores)]
    for bank in banks:
        bank.trainer.opens = opens
    tasks = [asyncio.create_task(b.driver.run()) for b in banks]
    for bank in [] if opens else banks:
        bank.driver.put(TrainerReady(1000, 50))
    try:
        yield banks, network
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def quick(n: int) -> Consortium:
    return consortium(n, gossip=replace(GOSSIP, heartbeat_seconds=0.1, adoption_seconds=0.5))


async def test_banks_learn_from_each_other_and_keep_their_models() -> None:
    async with running(quick(4), *(MemoryStore() for _ in range(4)), rounds=40) as (banks, _):
        for bank in banks:
            await bank.until(lambda b=bank: any(isinstance(x, RunFinished) for x in b.told))
        for bank in banks:
            merged = {m for x in bank.told if isinstance(x, RoundCompleted) for m in x.merged}
            assert merged == {b.id for b in banks} - {bank.id}
            assert bank.kept[-1].model.round == 40 and bank.trainer.opened == [0]
            assert bank.store.restore() is not None


async def test_rounds_follow_the_wall_clock_and_hellos_tell_it() -> None:
    calendar = Calendar(int(time.time()) + 1, 60, 20, 1.0)
    members = consortium(2, gossip=replace(GOSSIP, heartbeat_seconds=0.1), calendar=calendar)
    async with running(members, MemoryStore(), MemoryStore(), opens=True) as (banks, _):
        for bank in banks:
            await bank.until(lambda b=bank: any(isinstance(x, RoundCompleted) and x.merged for x in b.told), 20)
            assert any(isinstance(x, CycleBegun) and x.cycle == 0 for x in bank.told)
            assert bank.trainer.opened == [0] and {job.cycle for job in bank.trainer.jobs} == {0}
            assert bank.driver.node.rounds.round <= (time.time() - calendar.anchor) / calendar.round_seconds + 1
            assert bank.driver.hello(banks[0].id).wall == pytest.approx(time.time(), abs=1.0)


async def test_a_wall_clock_that_is_off_is_noticed_by_the_round_trips_of_hellos(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calendar = Calendar(int(time.time()) + 3600, DAY, 20, 10.0)
    members = consortium(4, gossip=replace(GOSSIP, heartbeat_seconds=0.1), calendar=calendar)
    given: list[Input] = []
    async with running(members, *(MemoryStore() for _ in range(4)), opens=True) as (banks, _):
        handle = banks[0].driver.node.handle

        def note(one: Input, now: float, wall: float) -> list[Effect]:
            given.append(one)
            return handle(one, now, wall)

        monkeypatch.setattr(banks[0].driver.node, "handle", note)
        banks[0].driver.wall = lambda: time.time() + 600
        await banks[0].until(lambda: banks[0].driver.node.rounds.clock_off, 20)
        assert any(isinstance(x, ProblemRaised) and x.code == "CLOCK_OFF" for x in banks[0].told)
        assert not any(b.driver.node.rounds.clock_off for b in banks[1:])
        trips = [x.round_trip for x in given if isinstance(x, HelloReceived)]
        assert trips and all(0 < trip < 5 for trip in trips)


async def test_nothing_is_served_before_it_is_durable() -> None:
    slow = SlowStore()
    async with running(quick(2), slow, MemoryStore()) as (banks, _):
        await asyncio.wait_for(slow.asked.wait(), 10)
        await asyncio.sleep(0.05)
        assert banks[0].driver.update(banks[1].id, banks[0].id, 0) is None
        slow.release.set()
        await banks[0].until(lambda: banks[0].driver.update(banks[1].id, banks[0].id, 0) is not None)


async def test_a_full_disk_ends_the_driver_before_anything_leaves_the_node() -> None:
    members = quick(2)
    bank = Bank(members, 0, MemoryNetwork(), FullDisk(), 0)
    bank.driver.put(TrainerReady(1000, 50))
    with pytest.raises(DiskFault, match="no space left"):
        await asyncio.wait_for(bank.driver.run(), 10)
    assert bank.driver.update(bank.id, bank.id, 0) is None


async def test_a_push_is_answered_only_when_it_is_durable() -> None:
    slow = SlowStore()
    members = quick(3)
    first, pusher, third = members.manifest.members
    only_dials_out = replace(pusher, endpoints=())  # who can be asked may not push
    members = replace(members, manifest=replace(members.manifest, members=(first, only_dials_out, third)))
    async with running(members, slow) as (banks, _):
        banks[0].trainer.held = True
        frame = wire.seal_update(
            members.members[1], manifest=members.manifest, instance="00" * 16, seq=1, previous="", round=1, rows=9,
            vector=np.zeros(members.manifest.model.schema().size, np.float32),
        ).frame  # fmt: skip
        push = asyncio.create_task(banks[0].driver.pushed(members.members[1].node_id, frame))
        await asyncio.wait_for(slow.asked.wait(), 10)
        await asyncio.sleep(0.02)
        assert not push.done()
        slow.release.set()
        await asyncio.wait_for(push, 10)
        assert banks[0].driver.update(banks[0].id, members.members[1].node_id, 0) == frame


async def test_a_forged_push_raises_and_an_overfull_queue_sends_peers_away() -> None:
    members = quick(2)
    bank = Bank(members, 0, MemoryNetwork(), MemoryStore(), 0)
    with pytest.raises(RemoteFault) as caught:
        await bank.driver.pushed(members.members[1].node_id, b"P2F1" + bytes(100))
    assert caught.value.reason is Reason.MALFORMED
    for _ in range(BACKLOG + 1):
        bank.driver.put(LoopLagged(0.0))
    with pytest.raises(Unavailable):
        await bank.driver.heartbeats(members.members[1].node_id, wire.encode_table(HeartbeatTable(())))


async def test_an_unexpected_error_in_a_request_ends_the_driver_instead_of_vanishing() -> None:
    members = quick(2)
    bank = Bank(members, 0, MemoryNetwork(), MemoryStore(), 0)

    async def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    bank.transport.exchange = broken  # type: ignore[method-assign, assignment]
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(bank.driver.run(), 10)


@pytest.mark.parametrize(
    ("phase", "given", "aside"),
    [
        (Phase.TRAINING, TrainingFinished(7, np.zeros(1, np.float32), b"", 0.5, 1, 1.0), True),
        (Phase.CLOSING, TimerFired("close"), True),
        (Phase.CATCHING_UP, TimerFired("catch_up"), True),
        (Phase.CATCHING_UP, PullEnded(NodeId("A"), NodeId("A")), True),
        (Phase.TRAINING, PullEnded(NodeId("A"), NodeId("A")), False),
        (Phase.CATCHING_UP, TimerFired("heartbeat"), False),
    ],
)
@pytest.mark.parametrize("large", [True, False])
async def test_merges_of_large_models_leave_the_loop_free(
    phase: Phase, given: Input, aside: bool, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LARGE_MODEL", 0 if large else 10**6)
    bank = Bank(quick(2), 0, MemoryNetwork(), MemoryStore(), 0)
    bank.driver.node.rounds.phase = phase
    threads = []

    def handle(given: Input, now: float, wall: float) -> list[Effect]:
        threads.append(threading.current_thread())
        return []

    monkeypatch.setattr(bank.driver.node, "handle", handle)
    await bank.driver._decide(given)
    assert (threads[0] is not threading.main_thread()) == (aside and large)


async def test_stopping_halts_the_node_and_tells_the_others() -> None:
    async with running(quick(2), MemoryStore(), MemoryStore()) as (banks, _):
        await banks[1].until(lambda: not banks[1].driver.node.peers.alone)
        await asyncio.wait_for(banks[0].driver.stop(), 10)
        assert banks[0].driver.node.rounds.phase is Phase.STOPPED
        await banks[1].until(lambda: banks[1].driver.node.peers.state(banks[0].id).value == "left")


async def test_a_newer_manifest_spreads_from_one_member_to_the_others() -> None:
    members = quick(3)
    async with running(members, *(MemoryStore() for _ in range(3))) as (banks, _):
        successor = sign(next_version(members.manifest, name="pilot two"), *members.admins[:2])
        coded = next_version(members.manifest, gossip=replace(members.manifest.gossip, rule="os:abort"))
        with pytest.raises(ManifestError, match="names code, .* say --allow-code"):
            await banks[0].driver.follow(sign(coded, *members.admins[:2]))
        changed = await banks[0].driver.follow(successor)
        assert changed is not None
        banks[0].driver.put(changed)
        for bank in banks:
            await bank.until(lambda b=bank: b.driver.node.manifest.version == 2)
        assert banks[2].driver.manifest(2) == successor.to_bytes()


async def test_a_manifest_that_is_not_a_successor_is_refused_and_reported() -> None:
    members = quick(2)
    async with running(members, MemoryStore(), MemoryStore()) as (banks, _):
        rogue: SignedManifest = sign(next_version(members.manifest), members.admins[0])
        banks[1].driver._signed[2] = rogue
        banks[0].driver._request(
            banks[0].driver._fetch_manifest(
                FetchManifest(banks[1].id, banks[0].driver.node.peers.endpoints(banks[1].id), 2)
            ),
            "fetch",
        )
        await banks[0].until(lambda: any(getattr(x, "code", "") == "MANIFEST_REFUSED" for x in banks[0].told))
        assert [x.subject for x in banks[0].told if isinstance(x, ProblemRaised)] == [banks[1].id]
        assert banks[0].driver.node.manifest.version == 1


@pytest.mark.parametrize("offer", ["no admin's", "no manifest"])
async def test_a_manifest_that_no_admin_signed_costs_only_who_offers_it(
    offer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = quick(2)
    bank = Bank(members, 0, MemoryNetwork(), MemoryStore(), 0)
    forged = sign(next_version(members.manifest), members.members[1])
    liar = members.members[1].node_id

    async def manifest(*_: object) -> bytes:
        return forged.to_bytes() if offer == "no admin's" else b'{"body":'

    monkeypatch.setattr(bank.transport, "manifest", manifest)
    running = asyncio.create_task(bank.driver.run())
    bank.driver._request(bank.driver._fetch_manifest(FetchManifest(liar, (), 2)), "fetch")
    await bank.until(lambda: any(isinstance(x, UpdateRefused) for x in bank.told))
    assert [x.blamed for x in bank.told if isinstance(x, UpdateRefused)] == [liar]
    assert any(isinstance(x, PeerBenched) and x.peer == liar for x in bank.told)
    await bank.driver.stop()
    await running
    assert not any(isinstance(x, ProblemRaised) and x.code == "MANIFEST_REFUSED" for x in bank.told)


async def test_what_no_admin_signed_is_not_even_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    members = quick(2)
    forged = sign(next_version(members.manifest), members.members[1]).to_bytes()
    monkeypatch.setattr(succession, "parse_signed", lambda data: pytest.fail("parsed"))
    with pytest.raises(ManifestError, match="no admin"):
        open_successor(members.manifest, forged)
    with pytest.raises(ManifestError, match="at most"):
        open_successor(members.manifest, forged + b" " * members.manifest.longest_successor)


async def test_who_says_that_we_were_removed_is_asked_why_less_often_each_time() -> None:
    members = quick(2)
    bank = Bank(members, 0, MemoryNetwork(), MemoryStore(), 0)
    liar, now = members.members[1].node_id, 0.0
    bank.driver.clock = lambda: now
    asked = []
    for _ in range(2000):
        if bank.driver._fetcher.why(liar, Unreachable("removed", "410")):
            asked.append(now)
        now += 1.0
    assert asked == [0.0, 60.0, 180.0, 420.0, 900.0, 1860.0]


async def test_a_removed_bank_hears_why_nobody_talks_to_it_any_more() -> None:
    members = quick(3)
    without = next_version(members.manifest, members=members.manifest.members[1:])
    successor = sign(without, *members.admins[:2])
    disk = MemoryDisk()
    async with running(members, MemoryStore(disk), rounds=0) as ([bank], _):
        asked: list[int] = []

        async def refuses(*_: object) -> None:
            raise Unreachable("removed", "it answered 410: the admins removed this bank in version 2")

        async def manifest(peer: NodeId, addresses: object, version: int) -> bytes:
            asked.append(version)
            return successor.to_bytes()

        bank.transport.manifest = manifest
        bank.transport.exchange = bank.transport.hello = bank.transport.pull = refuses
        await bank.until(lambda: any(isinstance(e, ProblemRaised) and e.code == "REMOVED" for e in bank.told))
        assert asked[0] == 2
        assert disk.manifests[2] == successor.to_bytes()
        count = len(bank.trainer.jobs)
        await asyncio.sleep(0.3)
        assert len(bank.trainer.jobs) == count
        await bank.driver.stop()
