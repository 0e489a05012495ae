"""Interpreters move merges of large models aside: the node must say beforehand which inputs may merge."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from p2pfed.core import adoption
from p2pfed.core.adoption import Stage
from p2pfed.core.aggregation import rule_from_name
from p2pfed.core.effects import Effect
from p2pfed.core.gossip import catch_up
from p2pfed.core.gossip.calendar import Calendar
from p2pfed.core.inputs import Input, LoopLagged, Started, TimerFired, TrainerReady, TrainingFinished, UpdateReceived
from p2pfed.core.node import GossipNode
from p2pfed.core.phase import Phase
from tests.core.heap import Network, make_manifest, started, updates_of


@pytest.fixture
def merging(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, bool]]:
    """How often inputs, by their kind, merged; a merge that `may_merge` did not announce fails the test."""
    merges, seen = [0], Counter[tuple[str, bool]]()
    rule, handle, median = type(rule_from_name("clip")), GossipNode.handle, adoption.coordinate_median
    merge = rule.merge

    def counted_merge(*arguments: object) -> object:
        merges[0] += 1
        return merge(*arguments)

    def counted_median(*arguments: object) -> object:
        merges[0] += 1
        return median(*arguments)

    def watched(node: GossipNode, given: Input, now: float, wall: float | None = None) -> list[Effect]:
        may, before = node.may_merge(given), merges[0]
        effects = handle(node, given, now, wall)
        merged = merges[0] > before
        assert may or not merged, f"{given} merged in phase {node.rounds.phase}"
        name = given.name if isinstance(given, TimerFired) else type(given).__name__
        seen[name, merged] += 1
        return effects

    monkeypatch.setattr(rule, "merge", counted_merge)
    monkeypatch.setattr(adoption, "coordinate_median", counted_median)
    monkeypatch.setattr(catch_up, "coordinate_median", counted_median)
    monkeypatch.setattr(GossipNode, "handle", watched)
    return seen


@pytest.mark.parametrize("loss", [0.0, 0.3])
def test_every_merge_is_announced(merging: Counter[tuple[str, bool]], loss: float) -> None:
    network = Network(make_manifest(6), rounds=25, loss=loss)
    for i in range(5):
        network.start(i)
    network.run(15)
    network.start(5)  # adopts
    network.crash(0)
    network.run(20)
    network.start(0)  # catches up
    network.run(120)
    merged = {name for name, did in merging if did}
    assert {"TrainingFinished", "close"} < merged
    assert merged & {"UpdateReceived", "PullEnded", "catch_up"}


def test_every_merge_by_the_calendar_is_announced(merging: Counter[tuple[str, bool]]) -> None:
    network = Network(replace(make_manifest(5), calendar=Calendar(20, 500, 10, 10.0)), rounds=0)
    network.training_seconds, network.drift = 3.0, 0.02
    for i in range(4):
        network.start(i)
    network.run(100)
    network.crash(0)
    network.run(300)
    network.start(0)  # was away
    network.run(720)
    network.start(4)  # joins in rest
    network.run(1200)
    merged = {name for name, did in merging if did}
    assert "round" in merged and merged & {"UpdateReceived", "PullEnded"}, "at a round's end, and catching up"


def test_a_merge_after_waiting_long_enough_is_announced(merging: Counter[tuple[str, bool]]) -> None:
    network = started(3, rounds=0)
    network.run(8.5)
    node = network.nodes[network.ids[0]]
    node.rounds.note_absence()
    node.handle(TrainingFinished(node.rounds.round + 1, node.rounds.vector, b"", 0.1, 10, 1.0), network.now)
    assert node.rounds.phase is Phase.CATCHING_UP
    node.handle(TimerFired("catch_up"), network.now + 5)
    assert merging["catch_up", True]


def test_an_adoption_that_waits_no_longer_is_announced(merging: Counter[tuple[str, bool]]) -> None:
    network = Network(make_manifest(6), rounds=0)
    for i in range(5):
        network.start(i)
    network.run(20)
    node = network.start(5)
    while node.rounds.adoption.stage is not Stage.COLLECTING:
        network.run(network.now + 0.05)
    for member in network.ids[1:4]:
        node.handle(UpdateReceived(updates_of(network, member)[-1], member), network.now)
    node.handle(TimerFired("adoption"), network.now + 60)
    assert merging["adoption", True]


def test_what_never_merges_stays_on_the_loop() -> None:
    node = Network(make_manifest(3)).start(0)
    quick = (Started(), TimerFired("heartbeat"), TimerFired("round"), LoopLagged(1.0), TrainerReady(10, 5))
    assert not any(node.may_merge(given) for given in quick)


def test_a_merge_takes_what_arrived_last_and_no_more_than_twice_the_fanout() -> None:
    network = Network(make_manifest(8, fanout=2), rounds=0)
    for i in range(8):
        network.start(i)
    network.run(20)
    node = network.nodes[network.ids[0]]
    arrived = [slot.update.statement.sender for slot in node.updates.slots()]
    assert len(arrived) > 4
    merged = node.updates.candidates(node.rounds.merging.count)
    assert [c.member for c in merged] == arrived[:4]
    assert [c.waited for c in merged] == sorted(c.waited for c in merged)
