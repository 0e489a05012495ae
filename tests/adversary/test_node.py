"""A member that signs poisoned models, and is otherwise like any other."""

from dataclasses import replace

import numpy as np
import pytest

from p2pfed.adversary.attacks import Campaign
from p2pfed.adversary.models import Backtrack
from p2pfed.adversary.node import AttackingNode
from p2pfed.core import wire
from p2pfed.core.effects import Checkpoint, Effect, Publish, Push, Save
from p2pfed.core.inputs import HeartbeatsReceived, Started, TimerFired, TrainerReady, TrainingFinished
from p2pfed.core.messages import HeartbeatTable
from p2pfed.core.node import GossipNode
from p2pfed.core.settings import Memory, NodeSettings
from tests.sim.consortium import population, scenario

POPULATION = population(scenario(nodes=3, dial_out=["bank-1"]))
MANIFEST, IDENTITY = POPULATION.manifest, POPULATION.identities[0]
TRUST = wire.trust_of(MANIFEST)
SETTINGS = NodeSettings(rounds=10)
CAMPAIGN = Campaign(Backtrack(2.0), start=2, stop=4)


def attacking(campaign: Campaign = CAMPAIGN, memory: Memory | None = None) -> AttackingNode:
    memory = memory or Memory(1, "00" * 16)
    return AttackingNode(IDENTITY, MANIFEST, SETTINGS, memory, np.random.default_rng(0), campaign)


def honest() -> GossipNode:
    return GossipNode(IDENTITY, MANIFEST, SETTINGS, Memory(1, "00" * 16), np.random.default_rng(0))


def begin(node: GossipNode) -> None:
    """Start, meet bank-2, and train."""
    node.handle(Started(), 0.0)
    other = GossipNode(
        POPULATION.identities[1],
        MANIFEST,
        replace(SETTINGS, endpoints=MANIFEST.members[1].endpoints),
        Memory(1, "11" * 16),
        np.random.default_rng(1),
    )
    node.handle(HeartbeatsReceived(HeartbeatTable((other.presence.row,)), other.me, answered=True), 0.5)
    node.handle(TrainerReady(100, 10), 1.0)
    node.handle(TimerFired("adoption"), 12.0)
    node.handle(TimerFired("restored"), 60.0)


def trained(node: GossipNode, step: float = 0.25) -> list[Effect]:
    """One round that adds `step` to every weight."""
    number = node.rounds.round + 1
    vector = node.rounds.vector + np.float32(step)
    return node.handle(TrainingFinished(number, vector, b"adam", 0.5, 3, 1.0), 60.0 + number)


def only(effects: list[Effect], kind: type) -> Effect:
    (found,) = [effect for effect in effects if isinstance(effect, kind)]
    return found


def test_it_poisons_what_it_publishes_in_the_rounds_of_its_campaign():
    node = attacking()
    begin(node)
    for number in range(1, 6):
        begun = node.rounds.vector
        effects = trained(node)
        frame = only(effects, Publish).frame
        moved = wire.open_update(frame, TRUST).vector - begun
        assert moved == pytest.approx(np.full(moved.size, -0.5 if number in (2, 3) else 0.25), abs=1e-5)
        assert only(effects, Save).checkpoint.published == frame
        assert all(effect.frame == frame for effect in effects if isinstance(effect, Push))


def test_bank_1_cannot_be_dialled_so_its_poison_is_pushed_too():
    node = attacking()
    begin(node)
    trained(node)
    pushed = [effect.frame for effect in trained(node) if isinstance(effect, Push)]
    assert pushed and all(frame == node.rounds.frame for frame in pushed)


def test_it_keeps_its_own_model_clean():
    one, other = attacking(), honest()
    for node in (one, other):
        begin(node)
        for _ in range(4):
            trained(node)
    assert np.array_equal(one.rounds.vector, other.rounds.vector)
    assert one.rounds.seq == other.rounds.seq == 4


def test_its_statements_are_a_chain_like_everybodys():
    node, previous = attacking(), ""
    begin(node)
    for seq in range(1, 6):
        update = wire.open_update(only(trained(node), Publish).frame, TRUST)
        assert update.statement.seq == seq and update.statement.previous == previous
        assert update.statement.round == seq
        previous = update.digest


def test_a_restart_convicts_it_of_nothing():
    node = attacking()
    begin(node)
    trained(node)
    effects = trained(node)
    saved: Checkpoint = only(effects, Save).checkpoint
    again = attacking(memory=Memory(2, "00" * 16, saved))
    again.handle(Started(), 100.0)
    assert only(again.handle(TimerFired("restored"), 160.0), Publish).frame == only(effects, Publish).frame
    assert again.rounds.statement_digest == wire.open_update(saved.published, TRUST).digest


def test_a_campaign_without_end_goes_on():
    campaign = Campaign(Backtrack(1.0), start=3)
    assert [campaign.on(number) for number in (1, 2, 3, 1000)] == [False, False, True, True]
