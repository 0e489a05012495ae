"""A started node is silent until others have said what they hold of it: for how long, where few can be asked."""

from __future__ import annotations

from dataclasses import replace

from p2pfed.core.events import UpdateAccepted
from p2pfed.core.gossip.restoring import SILENT_SECONDS, Restoring
from p2pfed.core.types import NodeId
from tests.core.heap import Network, make_manifest


def test_who_answers_again_and_again_does_not_keep_a_node_silent():
    restoring = Restoring()
    restoring.begin(0.0)
    for second in range(int(SILENT_SECONDS) + 1):
        restoring.answered("one", float(second))
    assert restoring.waiting(["one", "two", "three"], SILENT_SECONDS - 1)
    assert not restoring.waiting(["one", "two", "three"], SILENT_SECONDS)


def heard_by(net: Network, i: int) -> set[NodeId]:
    return {e.member for e in net.events[net.ids[i]] if isinstance(e, UpdateAccepted)}


def test_who_cannot_be_dialled_says_with_its_heartbeats_what_it_holds():
    """One of four can be dialled, so that it can ask nobody, and the others it alone."""
    net = Network(make_manifest(4, dial_out=frozenset({1, 2, 3})), rounds=0)
    for i in range(4):
        net.start(i)
    net.run(10.0)
    assert [net.nodes[member].rounds.mute for member in net.ids] == [False, True, True, True]
    net.run(SILENT_SECONDS + 30)
    assert heard_by(net, 1) == set(net.ids) - {net.ids[1]}


def test_where_nobody_can_be_dialled_or_dials_a_minute_passes():
    net = Network(make_manifest(3, dial_out=frozenset({0, 1, 2})), rounds=0)
    node = net.start(0)
    net.run(SILENT_SECONDS - 1)
    assert node.rounds.mute
    net.run(SILENT_SECONDS + 1)
    assert not node.rounds.mute


def test_a_restored_backup_signs_nothing_twice_where_it_can_dial_nobody():
    net = Network(make_manifest(5, dial_out=frozenset({1, 2, 3, 4})), rounds=0)
    for i in range(5):
        net.start(i)
    net.run(100.0)
    backup = replace(net.disks[net.ids[0]])
    net.run(160.0)
    newest = net.nodes[net.ids[0]].rounds.seq
    net.crash(0)
    net.disks[net.ids[0]] = backup
    node = net.start(0)
    assert node.rounds.mute and node.rounds.seq < newest
    net.run(190.0)
    assert not node.rounds.mute and node.rounds.seq > newest
    assert not any(other.witness.standing(net.ids[0]) for other in net.nodes.values())
