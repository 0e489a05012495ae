"""A started node is silent until others have said what they hold of it: for how long, where few can be asked."""

from __future__ import annotations

from p2pfed.core.events import UpdateAccepted
from p2pfed.core.gossip.restoring import SILENT_SECONDS, Restoring
from tests.core.heap import Network, make_manifest


def test_who_answers_again_and_again_does_not_keep_a_node_silent():
    restoring = Restoring()
    restoring.begin(0.0)
    for second in range(int(SILENT_SECONDS) + 1):
        restoring.answered("one", float(second))
    assert restoring.waiting(["one", "two", "three"], SILENT_SECONDS - 1)
    assert not restoring.waiting(["one", "two", "three"], SILENT_SECONDS)


def test_members_that_cannot_be_dialled_are_not_waited_for():
    """Of five two can be dialled: their answers are all that a node can get."""
    net = Network(make_manifest(5, dial_out=frozenset({2, 3, 4})), rounds=8)
    for i in range(5):
        net.start(i)
    net.run(30.0)
    senders = {e.member for e in net.events[net.ids[0]] if isinstance(e, UpdateAccepted)}
    assert senders == set(net.ids) - {net.ids[0]}
