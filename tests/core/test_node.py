"""Scenarios of whole nodes under virtual time: no port, no sleep, no clock."""

from __future__ import annotations

import dataclasses
from collections import defaultdict

import numpy as np

from p2pfed.core.effects import Publish, Save, StartTraining
from p2pfed.core.events import (
    Listening,
    ModelAdopted,
    RoundCompleted,
    RunFinished,
    TrainingAlone,
    UpdateAccepted,
)
from p2pfed.core.inputs import (
    HelloReceived,
    Started,
    StopRequested,
    TimerFired,
    TrainingFinished,
    UpdateReceived,
)
from p2pfed.core.node import GossipNode
from p2pfed.core.phase import Phase
from p2pfed.core.settings import Memory, NodeSettings
from p2pfed.core.types import PeerState
from tests.core.heap import Network, identity, make_manifest, spread, started, updates_of


def of_kind(network: Network, i: int, kind: type) -> list:
    return [event for event in network.events[network.ids[i]] if isinstance(event, kind)]


def test_twenty_nodes_learn_together() -> None:
    network = started(20, rounds=20)
    network.run(60)
    alone = np.stack([network.optimum(i) for i in range(20)])
    assert all(node.rounds.phase is Phase.FINISHED for node in network.nodes.values())
    assert spread(network) < 0.3 * float(np.linalg.norm(alone - alone.mean(0), axis=1).mean())
    assert all(len(of_kind(network, i, RoundCompleted)) == 20 for i in range(20))
    assert all(len(of_kind(network, i, RunFinished)) == 1 for i in range(20))


def test_same_seed_same_run_and_other_seed_another() -> None:
    hashes = []
    for seed in (1, 1, 2):
        network = started(20, rounds=6, seed=seed, loss=0.1)
        network.run(40)
        hashes.append(network.hash())
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_replayed_journal_gives_the_same_state() -> None:
    network = started(8, rounds=6, seed=3, loss=0.1)
    network.run(40)
    me = network.ids[4]
    rng = np.random.default_rng([3, 4, 1])
    again = GossipNode(
        identity(4), network.manifest, NodeSettings(6, 1, network.manifest.members[4].endpoints, "test"),
        Memory(1, f"{4:032x}"), rng,
    )  # fmt: skip
    for given, now in network.journals[me]:
        again.handle(given, now)
    assert again.rounds.vector.tobytes() == network.nodes[me].rounds.vector.tobytes()
    assert again.rounds.statement_digest == network.nodes[me].rounds.statement_digest


def test_a_save_with_the_new_sequence_number_precedes_its_publication() -> None:
    network = started(3, rounds=3)
    network.run(1.5)
    for node in network.nodes.values():
        done = TrainingFinished(1, node.rounds.vector + 1, b"adam", 0.1, 10, 1.0)
        effects = node.handle(done, 1.6)
        kinds = [type(x) for x in effects]
        assert kinds.index(Save) < kinds.index(Publish) < kinds.index(StartTraining)
        save = next(x for x in effects if isinstance(x, Save))
        assert save.checkpoint is not None and save.checkpoint.seq == 1
        assert save.checkpoint.published == next(x for x in effects if isinstance(x, Publish)).frame


def test_crashes_never_reuse_a_sequence_number_for_other_weights() -> None:
    network = started(6, rounds=0, seed=5)
    seen: dict[tuple[str, int], set[str]] = defaultdict(set)
    rng = np.random.default_rng(0)
    for step in range(1, 80):
        network.run(step * 1.3)
        for member in network.ids:
            for update in updates_of(network, member):
                seen[(member, update.statement.seq)].add(update.digest)
        victim = int(rng.integers(6))
        network.crash(victim)
        network.start(victim)
    assert max(len(digests) for digests in seen.values()) == 1
    assert len(seen) > 50


def test_a_restart_goes_on_from_the_checkpoint_and_publishes_the_same_bytes() -> None:
    network = started(4, rounds=0)
    network.run(10)
    before = network.nodes[network.ids[0]].rounds
    network.crash(0)
    node = network.start(0)
    assert (node.rounds.round, node.rounds.seq) == (before.round, before.seq)
    effects = node.handle(Started(), network.now)
    assert not any(isinstance(x, Publish) and x.member == node.me for x in effects), "others may hold newer ones"
    for i in (1, 2, 3):
        assert not any(isinstance(x, Publish) and x.member == node.me for x in effects)
        hello = network.nodes[network.ids[i]].hello(node.me, network.now)
        effects = node.handle(HelloReceived(hello), network.now)
    assert Publish(node.me, before.seq, before.frame) in effects


def test_a_node_that_was_away_merges_before_it_publishes() -> None:
    network = started(4, rounds=0)
    network.run(10)
    node = network.nodes[network.ids[0]]
    seq = node.rounds.seq
    node.handle(TimerFired("heartbeat"), network.now + 100)
    effects = node.handle(
        TrainingFinished(node.rounds.round + 1, node.rounds.vector, b"", 0.1, 10, 1.0), network.now + 101
    )
    assert node.rounds.seq == seq and not any(isinstance(x, Publish) for x in effects)
    assert node.rounds.phase is Phase.CATCHING_UP


def test_nobody_waits_for_a_stopped_node_and_it_catches_up() -> None:
    network = started(4, rounds=0)
    network.run(20)
    network.cut.add(network.ids[3])
    rounds = [n.rounds.round for n in network.nodes.values()]
    network.run(80)
    gained = [n.rounds.round - r for n, r in zip(network.nodes.values(), rounds, strict=True)]
    assert min(gained) >= 58
    network.cut.clear()
    network.run(160)
    assert network.nodes[network.ids[0]].peers.state(network.ids[3]) is PeerState.ALIVE
    assert spread(network) < 1.0


def test_two_that_can_only_dial_out_learn_from_each_other_through_a_third() -> None:
    network = Network(make_manifest(3, dial_out=frozenset({0, 1})), rounds=0)
    for i in range(3):
        network.start(i)
    network.run(90)  # nobody can ask them what they hold: a minute passes
    for a, b in ((0, 1), (1, 0)):
        accepted = {(x.member, x.via) for x in of_kind(network, a, UpdateAccepted)}
        assert (network.ids[b], network.ids[2]) in accepted


def test_a_model_that_is_merged_no_more_is_served_no_more() -> None:
    network = started(6, rounds=0)
    network.run(10)
    gone, *others = network.ids
    seqs = {i: network.nodes[i].updates.inbox.newest_seq(gone) for i in others}
    network.crash(0)
    network.run(12)
    assert any(gone in network.shelves[i] for i in others), "it is merged for a while yet"
    network.run(25)
    assert not any(gone in network.shelves[i] for i in others)
    for i in others:
        assert network.nodes[i].updates.inbox.newest_seq(gone) >= seqs[i], "its sequence numbers stay known"
        assert network.disks[i].marks[gone][0] >= seqs[i]
        held = {m for m in network.ids if network.nodes[i].updates.inbox.slot(m)}
        assert set(network.shelves[i]) == {i, *held}
    network.start(0)
    network.run(40)
    assert any(gone in network.shelves[i] for i in others)


def test_an_acknowledged_push_is_durable_though_it_is_served_no_more() -> None:
    network = Network(make_manifest(3, dial_out=frozenset({0})), rounds=0)
    for i in range(3):
        network.start(i)
    network.run(10)
    pusher, relay, _ = network.ids
    network.crash(0)
    network.run(25)
    assert pusher not in network.shelves[relay]
    mark, frame = network.disks[relay].marks[pusher], network.disks[relay].frames[pusher]
    network.crash(1)
    effects = network.start(1).handle(Started(), network.now)
    assert network.nodes[relay].updates.inbox.marks[pusher] == mark
    assert Publish(pusher, mark[0], frame) in effects


def test_a_bank_without_fraud_listens() -> None:
    network = Network(make_manifest(4), rounds=5)
    network.frauds[2] = 2
    for i in range(4):
        network.start(i)
    network.run(30)
    node = network.nodes[network.ids[2]]
    assert node.rounds.listener and node.rounds.seq == 0 and node.rounds.round == 5
    assert of_kind(network, 2, Listening) == [Listening(2, 5)]
    assert all(network.ids[2] not in shelf for shelf in network.shelves.values())
    assert any(x.merged for x in of_kind(network, 2, RoundCompleted))


def test_a_bank_with_no_peer_trains_alone_and_says_so() -> None:
    network = Network(make_manifest(3), rounds=0)
    network.start(0)
    network.run(9)
    assert network.nodes[network.ids[0]].rounds.round == 0, "it first waits for members to adopt from"
    network.run(20)
    assert network.nodes[network.ids[0]].rounds.round >= 5
    assert len(of_kind(network, 0, TrainingAlone)) == 1
    assert "ALONE" in network.nodes[network.ids[0]].problems
    network.start(1)
    network.run(40)
    assert "ALONE" not in network.nodes[network.ids[0]].problems


def test_a_late_joiner_adopts_the_median_of_those_who_are_further() -> None:
    network = Network(make_manifest(6), rounds=0)
    for i in range(5):
        network.start(i)
    network.run(30)
    network.start(5)
    network.run(33)
    [adopted] = of_kind(network, 5, ModelAdopted)
    assert adopted.sources >= 3
    network.run(60)
    assert spread(network) < 1.0


def test_a_late_joiner_keeps_the_initial_weights_if_the_median_is_worse() -> None:
    network = Network(make_manifest(6), rounds=0)
    for i in range(5):
        network.start(i)
    network.run(30)
    network.optimum = lambda i: network.manifest.model.initial_weights(7).vector  # type: ignore[method-assign]
    network.start(5)
    network.run(40)
    assert not of_kind(network, 5, ModelAdopted)
    assert network.nodes[network.ids[5]].rounds.round > 0


def test_a_restored_backup_jumps_above_what_others_have_seen() -> None:
    network = started(4, rounds=0)
    network.run(5)
    old = dataclasses.replace(network.disks[network.ids[0]])
    network.run(15)
    newest = max(network.nodes[i].updates.inbox.newest_seq(network.ids[0]) for i in network.ids[1:])
    network.crash(0)
    network.disks[network.ids[0]] = old
    network.start(0)
    network.run(16.9)
    node = network.nodes[network.ids[0]]
    assert node.rounds.seq >= newest and "STATE_ROLLED_BACK" in node.problems


def test_another_generation_starts_anew_but_never_reuses_a_sequence_number() -> None:
    network = started(3, rounds=0)
    network.run(8)
    checkpoint = network.disks[network.ids[0]].checkpoint
    assert checkpoint is not None and checkpoint.seq > 3
    model = dataclasses.replace(network.manifest.model, hidden=(8,))
    manifest = dataclasses.replace(
        network.manifest, generation=2, model=model, initial_sha256=model.initial_weights(7).digest
    )
    settings = NodeSettings(0, 1, ("10.0.0.1:7443",), "test")
    node = GossipNode(identity(0), manifest, settings, Memory(2, "0" * 32, checkpoint), np.random.default_rng(0))
    assert (node.rounds.round, node.rounds.seq) == (0, checkpoint.seq)
    assert node.rounds.vector.size == model.schema().size


def test_after_a_slow_round_models_are_pulled_again_at_once() -> None:
    network = started(3, rounds=0)
    network.training_seconds = 30.0
    network.run(20)
    network.training_seconds = 1.0
    network.run(37)
    pulled = [when for given, when in network.journals[network.ids[0]] if isinstance(given, UpdateReceived)]
    assert pulled and 31 < pulled[0] < 35


def test_who_is_done_first_merges_on_until_the_slowest_is_done() -> None:
    network = Network(make_manifest(4), rounds=8)
    for i in range(3):
        network.start(i)
    network.run(4.5)
    network.start(3)
    network.run(60)
    first, last = network.nodes[network.ids[0]], network.nodes[network.ids[3]]
    assert first.updates.inbox.newest_seq(network.ids[3]) == last.rounds.seq == 8
    assert all(c.waited > 0 for c in first.updates.candidates(first.rounds.merging.count)), (
        "the last one has been merged"
    )
    assert first.rounds.round == 8
    assert all(len(of_kind(network, i, RunFinished)) == 1 for i in range(4))


def test_the_round_interval_is_kept() -> None:
    network = Network(make_manifest(3, round_interval_seconds=10.0), rounds=0)
    for i in range(3):
        network.start(i)
    network.run(65)
    assert all(5 <= node.rounds.round <= 7 for node in network.nodes.values())


def test_stopping_says_good_bye() -> None:
    network = started(3, rounds=0)
    network.run(5)
    network.push(network.ids[0], 0.0, StopRequested())
    network.run(10)
    assert network.ids[0] not in network.nodes
    assert network.nodes[network.ids[1]].peers.state(network.ids[0]) is PeerState.LEFT
