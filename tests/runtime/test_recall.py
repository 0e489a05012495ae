"""What a restarted daemon remembers of its peers, by way of the real store."""

from __future__ import annotations

import dataclasses
from contextlib import closing

import numpy as np
import pytest

from p2pfed.core.aggregation import Candidate
from p2pfed.core.effects import Checkpoint, Emit, KeptModel, Save
from p2pfed.core.events import StandingChanged
from p2pfed.core.identity import node_id
from p2pfed.core.inputs import Started
from p2pfed.core.node import GossipNode
from p2pfed.core.reputation.peer_record import PeerRecord
from p2pfed.core.settings import NodeSettings
from p2pfed.core.types import NodeId, Reason
from p2pfed.errors import StateCorrupt
from p2pfed.runtime.recall import recall
from p2pfed.store.sqlite import SqliteStore
from p2pfed.store.state_dir import StateDir
from tests.consortia import consortium

BANKS = consortium(5)
CHAIN = [BANKS.signed(0, 1)]
PEERS = [NodeId(node_id(identity.public_key)) for identity in BANKS.members[1:]]


def started(store: SqliteStore) -> GossipNode:
    memory = recall(store.restore(), CHAIN)
    return GossipNode(BANKS.members[0], BANKS.manifest, NodeSettings(), memory, np.random.default_rng(0))


def judge(node: GossipNode, rng: np.random.Generator) -> None:
    """One round of a node whose first peer sends the opposite of its model, and whose last one breaks a rule."""
    own = node.rounds.vector
    trained = own + np.float32(0.01) * rng.standard_normal(own.size, np.float32)
    node.reputation.yardstick.note_training(own, trained)
    models = {peer: trained + np.float32(0.01) * rng.standard_normal(own.size, np.float32) for peer in PEERS}
    models[PEERS[0]] = -10 * trained
    for peer, vector in models.items():
        node.reputation.arrived(peer, vector)
    node.reputation.judge(trained, 100, [Candidate(peer, vector, 100, 0) for peer, vector in models.items()])
    node.reputation.offended(PEERS[-1], Reason.NOT_FINITE)


async def test_weights_that_are_no_numbers_are_not_gone_on_from(tmp_path):
    store = SqliteStore(StateDir(tmp_path).create())
    vector = BANKS.manifest.initial.vector.copy()
    vector[3] = np.nan
    await store.save(Save(Checkpoint(1, 1, "d1", vector, b"", b"{}", b"", None, BANKS.manifest.model_digest)))
    store.close()
    with closing(SqliteStore(StateDir(tmp_path))) as again, pytest.raises(StateCorrupt, match="not finite numbers"):
        recall(again.restore(), CHAIN)


def saved(node: GossipNode) -> Save:
    return Save(peers=node.reputation.changed_records(), scales=node.reputation.yardstick.scales)


def test_who_was_pardoned_by_the_migration_is_told_at_the_start(tmp_path):
    store = SqliteStore(StateDir(tmp_path))
    restored = dataclasses.replace(store.restore(), pardoned=(PEERS[0],))
    memory = recall(restored, CHAIN)
    node = GossipNode(BANKS.members[0], BANKS.manifest, NodeSettings(), memory, np.random.default_rng(0))
    told = [e.event for e in node.handle(Started(), 1.0) if isinstance(e, Emit)]
    why = "judged before there was a calendar"
    assert [e for e in told if isinstance(e, StandingChanged)] == [
        StandingChanged(PEERS[0], "quarantined", "trusted", why, {})
    ]
    store.close()


def test_champion_and_bests_come_back(tmp_path):
    store = SqliteStore(StateDir(tmp_path))
    kept = KeptModel(80, BANKS.manifest.initial.vector, 0.5, {}, 1_800_000_000.0, 1)
    memory = recall(store.restore(), CHAIN, kept, (kept,))
    assert memory.champion is kept and memory.bests == (kept,) and memory.pardoned == ()
    store.close()


async def test_what_is_thought_of_peers_survives_a_restart_byte_for_byte(tmp_path):
    state, rng = StateDir(tmp_path), np.random.default_rng(1)
    store = SqliteStore(state)
    node = started(store)
    written: dict[NodeId, PeerRecord] = {}
    for _ in range(6):
        judge(node, rng)
        save = saved(node)
        written |= save.peers
        await store.save(save)
    store.close()
    assert node.reputation.quarantined(PEERS[0])

    store = SqliteStore(state)
    again = started(store)
    assert store.restore().peers == written and store.restore().scales == node.reputation.yardstick.scales
    assert again.reputation.yardstick.scales == node.reputation.yardstick.scales
    assert again.reputation.peers == node.reputation.peers
    assert again.reputation.quarantine == node.reputation.quarantine
    for one in (node, again):  # and both go on alike, but for the echoes of models trained before the restart
        judge(one, np.random.default_rng(2))
    assert saved(again) == saved(node)
    store.close()
