"""A node of a consortium of thousands costs what it knows and does, not what there is."""

from __future__ import annotations

import dataclasses
import hashlib
import tracemalloc
from collections import Counter

import numpy as np
import pytest

from p2pfed.core.consortium import Manifest, Member
from p2pfed.core.effects import ExchangeHeartbeats, Pull, SayHello
from p2pfed.core.inputs import HeartbeatsReceived, Started, TimerFired, TrainerReady, UpdateReceived
from p2pfed.core.membership import FAILED_PERIODS, MAX_WATCHED, SUSPECT_PERIODS, PeerTable
from p2pfed.core.messages import HeartbeatTable, SignedHeartbeat
from p2pfed.core.node import GossipNode
from p2pfed.core.settings import Memory, NodeSettings
from p2pfed.core.types import NodeId, PeerState
from p2pfed.core.wire import MAX_TABLE_ROWS, seal_update
from tests.core.heap import identity, make_manifest
from tests.core.heartbeats import PERIOD, beat, rng, roster

MANY = 11_000


@pytest.fixture(scope="module")
def large() -> Manifest:
    """Ten real banks among thousands of which only the keys are made up."""
    small = make_manifest(10)
    crowd = tuple(
        Member(f"crowd-{i}", hashlib.sha256(f"{i}".encode()).hexdigest(), (), (f"10.1.{i // 256}.{i % 256}:7443",))
        for i in range(MANY - 10)
    )
    return dataclasses.replace(small, members=(*small.members, *crowd))


def node_of(manifest: Manifest, i: int) -> GossipNode:
    settings = NodeSettings(0, 1, manifest.members[i].endpoints, "test")
    return GossipNode(identity(i), manifest, settings, Memory(1, f"{i:032x}"), np.random.default_rng(i))


def begin(node: GossipNode) -> list[object]:
    """Start it, and let it pull for its first round."""
    effects = [*node.handle(Started(), 0.0), *node.handle(TrainerReady(1000, 50), 1.0)]
    return [*effects, *node.handle(TimerFired("adoption"), 10.0), *node.handle(TimerFired("heartbeat"), 10.0)]


@pytest.mark.parametrize("topology", ["random", "ring"])
def test_a_node_among_thousands_takes_kilobytes(large: Manifest, topology: str) -> None:
    manifest = dataclasses.replace(large, gossip=dataclasses.replace(large.gossip, topology=topology))
    first = node_of(manifest, 0)  # works out what all nodes of this manifest share
    begin(first)
    tracemalloc.start()
    try:
        nodes = [node_of(manifest, i) for i in range(1, 10)]
        for node in nodes:
            begin(node)
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used < len(nodes) * 20_000
    assert all(n.members is first.members and n.rounds.vector is first.rounds.vector for n in nodes)
    assert not first.rounds.vector.flags.writeable


def test_a_node_among_thousands_looks_at_few_of_them(large: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: Counter[NodeId] = Counter()
    dialable = PeerTable.dialable

    def counted(table: PeerTable, peer: NodeId, now: float) -> bool:
        looked[peer] += 1
        return dialable(table, peer, now)

    monkeypatch.setattr(PeerTable, "dialable", counted)
    node = node_of(large, 0)
    kinds = Counter(type(effect) for effect in begin(node))
    assert (kinds[SayHello], kinds[Pull]) == (2 * 5, 6), "nobody has answered: others are asked"
    assert kinds[ExchangeHeartbeats] > 1
    assert looked.total() < 50


def test_an_update_among_thousands_costs_no_look_at_all(large: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    node = node_of(large, 0)
    begin(node)
    vector = node.rounds.vector + np.float32(1)
    update = seal_update(
        identity(1), manifest=large, instance="00", seq=1, previous="", round=1, rows=8, vector=vector
    )  # fmt: skip
    monkeypatch.setattr(PeerTable, "members", property(lambda table: pytest.fail("all members were looked at")))
    node.handle(UpdateReceived(update, update.statement.sender), 11.0)
    assert [c.member for c in node.updates.candidates(0)] == [update.statement.sender]


def test_a_node_watches_so_many_members_and_no_more() -> None:
    members = [NodeId(f"BANK{i:05}") for i in range(MAX_WATCHED + 500)]
    table = PeerTable(NodeId("ME"), roster(NodeId("ME"), *members), PERIOD)
    for start in range(0, len(members), 100):
        table.observe(HeartbeatTable(tuple(beat(m, 1) for m in members[start : start + 100])), start, None)
    watched = [m for m in members if table.state(m) is PeerState.ALIVE]
    assert watched == members[:MAX_WATCHED]
    assert table.observe(HeartbeatTable((beat(members[0], 2), beat(members[-1], 2))), 5000, None) == []
    assert (table.last_heard(members[0]), table.last_heard(members[-1])) == (5000, None)
    table.follow(roster(*members[1:]))  # one left: there is room for another
    assert len(table.observe(HeartbeatTable((beat(members[-1], 2), beat(members[-2], 2))), 5001, None)) == 1


def test_the_places_of_those_who_departed_go_to_others_and_old_news_of_them_is_none() -> None:
    members = [NodeId(f"BANK{i:05}") for i in range(MAX_WATCHED + 500)]
    table = PeerTable(NodeId("ME"), roster(NodeId("ME"), *members), PERIOD)
    gone, stay, new = members[:2], members[2:MAX_WATCHED], members[MAX_WATCHED:]
    table.observe(HeartbeatTable((beat(gone[0], 1), beat(gone[1], 1, leaving=True))), 0, None)
    tick = 0
    while table.state(gone[0]) is not PeerState.FAILED:
        tick += 1
        table.observe(HeartbeatTable(tuple(beat(m, tick) for m in stay)), tick * PERIOD, None)
        table.tick(tick * PERIOD)
    taken = table.observe(HeartbeatTable((beat(new[0], 1, leaving=True), *(beat(m, 1) for m in new[1:]))), 1e5, None)
    assert [change.member for change in taken] == new[1:3]
    assert [table.state(m) for m in gone] == [PeerState.UNKNOWN] * 2
    stale = table.observe(HeartbeatTable((beat(gone[0], 1), beat(gone[1], 1, leaving=True))), 1e5, None)
    assert stale == [] and len(table.known()) == MAX_WATCHED
    table.follow(roster(NodeId("ME"), *members[:-500]))  # the two who took the places are no members: there is room
    assert table.observe(HeartbeatTable((beat(gone[0], 1),)), 1e5, None) == []
    assert len(table.observe(HeartbeatTable((beat(gone[0], 1, epoch=2), beat(gone[1], 2))), 1e5, None)) == 2


@pytest.mark.parametrize(("n", "longer"), [(MAX_TABLE_ROWS, 1), (5 * MAX_TABLE_ROWS, 5)])
def test_where_the_table_travels_in_parts_silence_may_last_longer(n: int, longer: int) -> None:
    members = [NodeId(f"BANK{i:05}") for i in range(n)]
    table = PeerTable(members[0], roster(*members), PERIOD)
    table.observe(HeartbeatTable((beat(members[1], 1),)), 0, None)
    changed = [(i, c.after) for i in range(1, 200) for c in table.tick(i * PERIOD)]
    assert changed == [(longer * SUSPECT_PERIODS, PeerState.SUSPECT), (longer * FAILED_PERIODS, PeerState.FAILED)]


def test_in_a_large_consortium_live_members_are_not_suspected() -> None:
    """Of 1000 members each table has 200: a row that is missing in four of five tables is often 15 periods old."""
    names = [NodeId(f"BANK{i:05}") for i in range(1000)]
    everybody = roster(*names)
    table, draws = PeerTable(names[0], everybody, PERIOD), rng(1)
    suspected = []
    for period in range(1, 120):
        rows = tuple(beat(names[i], period) for i in draws.choice(1000, MAX_TABLE_ROWS, replace=False))
        suspected += [c for c in table.tick(period * PERIOD) if c.after is PeerState.SUSPECT]
        table.observe(HeartbeatTable(rows), period * PERIOD, None)
    assert suspected == []


def test_a_late_joiner_asks_few_of_many_mature_members() -> None:
    manifest = make_manifest(60)
    node = node_of(manifest, 0)
    begin_effects = [*node.handle(Started(), 0.0), *node.handle(TrainerReady(1000, 50), 1.0)]
    assert not any(isinstance(e, Pull) for e in begin_effects)
    others = [m for m in manifest.roster.ids if m != node.me]
    mature = HeartbeatTable(tuple(_at_sequence(m, 20) for m in others))
    effects = node.handle(HeartbeatsReceived(mature, others[0], answered=True), 2.0)
    pulls = [e for e in effects if isinstance(e, Pull)]
    assert len(pulls) == len({p.peer for p in pulls}) == 15
    assert sorted(p.peer for p in pulls) != others[:15]


def _at_sequence(member: NodeId, seq: int) -> SignedHeartbeat:
    row = beat(member, 1)
    return dataclasses.replace(row, heartbeat=dataclasses.replace(row.heartbeat, seq=seq))
