"""What goes wrong around a node under virtual time: lies, lost trainers, crashes, blocked members, new manifests."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from p2pfed.core.effects import CloseTrainer, Emit, Halt, OpenTrainer, Publish, Pull, Save, StartTraining
from p2pfed.core.events import (
    PeerBenched,
    ProblemCleared,
    ProblemRaised,
    RoundCompleted,
    StandingChanged,
    UpdateRefused,
)
from p2pfed.core.inputs import (
    BlocklistChanged,
    ManifestChanged,
    Offended,
    PullEnded,
    RefreshAsked,
    Started,
    StopRequested,
    TimerFired,
    TrainerLost,
    TrainerReady,
    TrainingFinished,
    TroubleSeen,
    UpdateReceived,
)
from p2pfed.core.messages import ModelUpdate
from p2pfed.core.phase import Phase
from p2pfed.core.reputation.peer_record import PeerRecord
from p2pfed.core.types import NodeId, Reason
from p2pfed.core.wire import seal_update
from tests.core.heap import Network, identity, make_manifest, started


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_round_that_diverged_is_not_published(value: float) -> None:
    network = started(3, rounds=0)
    network.run(5.5)
    node = network.nodes[network.ids[0]]
    good = node.rounds.vector
    vector = np.full_like(good, value)
    effects = node.handle(TrainingFinished(node.rounds.round + 1, vector, b"", 0.1, 10, 1.0), network.now)
    assert not any(isinstance(x, Publish) for x in effects)
    assert "TRAINING_DIVERGED" in node.problems and node.rounds.vector is good
    node.handle(TimerFired("round"), network.now + 10)
    node.handle(TrainingFinished(node.rounds.round + 1, good, b"", 0.1, 10, 1.0), network.now + 11)
    assert "TRAINING_DIVERGED" not in node.problems, "a round that went well ends the problem"


def test_a_lost_trainer_is_a_problem_and_the_node_goes_on_answering() -> None:
    network = started(3, rounds=0)
    network.run(6)
    node = network.nodes[network.ids[0]]
    node.handle(TrainerLost("killed by signal 9"), network.now)
    assert "TRAINER_LOST" in node.problems and node.rounds.phase is Phase.LOADING
    network.run(9)
    assert len(node.heartbeats(node.me).rows) == 3
    effects = node.handle(TrainerReady(1000, 50), network.now)
    [training] = [x for x in effects if isinstance(x, StartTraining)]
    assert training.optimiser == b"adam", "the fresh trainer is handed the optimiser's state"
    assert "TRAINER_LOST" not in node.problems


def test_without_a_calendar_payments_that_were_refused_are_read_once_more_and_others_are_not() -> None:
    network = Network(make_manifest(3), rounds=0)
    network.refuse.add((network.ids[0], 0))
    for i in range(3):
        network.start(i)
    network.run(6)
    node = network.nodes[network.ids[0]]
    assert "READING_REFUSED" in node.problems and not node.rounds.merged
    assert node.handle(RefreshAsked(accept=True), network.now) == [CloseTrainer(0), OpenTrainer(0, True)]
    again = node.handle(RefreshAsked(accept=False), network.now)
    assert again == [CloseTrainer(0), OpenTrainer(0, True)], "what is under way was said already"
    node.handle(TrainerReady(1000, 50), network.now)
    assert "READING_REFUSED" not in node.problems
    assert node.handle(RefreshAsked(accept=True), network.now) == []


def forged(network: Network, i: int, seq: int, vector: np.ndarray) -> ModelUpdate:
    return seal_update(
        identity(i),
        manifest=network.manifest,
        instance="f" * 32,
        seq=seq,
        previous="",
        round=seq,
        rows=100,
        vector=vector,
    )


def test_equivocation_is_blamed_on_the_signer_and_not_on_the_relay() -> None:
    network = started(3, rounds=0)
    network.run(5)
    node = network.nodes[network.ids[0]]
    seq = node.updates.inbox.newest_seq(network.ids[1])
    other = forged(network, 1, seq, np.zeros_like(node.rounds.vector))
    effects = node.handle(UpdateReceived(other, network.ids[2]), network.now)
    [refused] = [x.event for x in effects if isinstance(x, Emit) and isinstance(x.event, UpdateRefused)]
    assert (refused.reason, refused.blamed) == (Reason.EQUIVOCATION, network.ids[1])
    assert not any(isinstance(x, Publish) for x in effects)


def test_bad_content_is_blamed_on_its_signer_and_bad_bytes_on_who_handed_them_over() -> None:
    network = started(3, rounds=0)
    network.run(5)
    node = network.nodes[network.ids[0]]
    relay, signer = network.ids[1], network.ids[2]
    offence = Offended(relay, Reason.NOT_FINITE, "", pulled=signer, signer=signer)
    told = [x.event for x in node.handle(offence, network.now) if isinstance(x, Emit)]
    [refused] = [event for event in told if isinstance(event, UpdateRefused)]
    assert refused.blamed == signer and node.peers.dialable(relay, network.now)
    node.handle(Offended(relay, Reason.MALFORMED), network.now)
    assert node.peers.benched(relay, network.now)


def test_who_is_quarantined_for_breaking_the_protocol_still_is_after_a_crash() -> None:
    network = started(4, rounds=0)
    network.run(5)
    node, liar = network.nodes[network.ids[0]], network.ids[1]
    offence = Offended(network.ids[2], Reason.NOT_FINITE, "", signer=liar)
    effects = node.handle(offence, network.now)
    kinds = [type(x) if isinstance(x, Save) else type(x.event) for x in effects if isinstance(x, Save | Emit)]
    assert kinds[kinds.index(Save) :] == [Save, StandingChanged], "durable first, then told"
    assert node.reputation.quarantine == [liar]
    for effect in effects:
        network.carry_out(node.me, effect)
    network.crash(0)
    again = network.start(0)
    assert again.reputation.quarantine == [liar]
    assert again.reputation.peers[liar] == node.reputation.peers[liar]


def test_who_is_found_out_by_a_merge_after_the_last_round_still_is_after_a_crash() -> None:
    network = started(4, rounds=0)
    network.run(5)
    node, liar = network.nodes[network.ids[0]], network.ids[1]
    node.reputation.peers[liar].score = 3.5
    update = forged(network, 1, 10**6, np.full_like(node.rounds.vector, 1e6))
    node.handle(UpdateReceived(update, liar), network.now)
    node.rounds.phase = Phase.CLOSING
    for effect in node.handle(TimerFired("close"), network.now):
        network.carry_out(node.me, effect)
    assert [x.after for x in network.events[node.me] if isinstance(x, StandingChanged)] == ["quarantined"]
    network.crash(0)
    assert network.start(0).reputation.quarantine == [liar]


def test_an_offence_that_changes_no_standing_waits_for_the_rounds_commit() -> None:
    network = started(4, rounds=0)
    network.run(5)
    node, peer = network.nodes[network.ids[0]], network.ids[1]
    effects = node.handle(Offended(peer, Reason.MALFORMED), network.now)
    assert not any(isinstance(x, Save) for x in effects) and node.reputation.peers[peer].faults == 1
    effects = node.handle(TrainingFinished(node.rounds.round + 1, node.rounds.vector, b"", 0, 1, 1.0), network.now)
    [save] = [x for x in effects if isinstance(x, Save)]
    assert save.peers[peer].faults > 0


def test_nobody_is_blamed_who_is_no_member_and_no_node_blames_itself() -> None:
    network = started(3, rounds=0)
    network.run(5)
    node = network.nodes[network.ids[0]]
    strangers = [node.me, NodeId("f" * 64)]
    for stranger in strangers:
        node.handle(Offended(network.ids[1], Reason.NOT_FINITE, "", signer=stranger), network.now)
    assert not node.reputation.quarantine and not set(strangers) & set(node.reputation.peers)


def test_what_was_held_against_a_member_leaves_with_it() -> None:
    network = started(4, rounds=0)
    network.run(5)
    node, left = network.nodes[network.ids[0]], network.ids[3]
    for effect in node.handle(Offended(left, Reason.NOT_FINITE), network.now):
        network.carry_out(node.me, effect)
    assert network.disks[node.me].peers[left].standing == "quarantined"
    whole = network.manifest
    smaller = dataclasses.replace(whole, version=2, members=whole.members[:3])
    node.handle(ManifestChanged(smaller), network.now)
    assert left not in node.reputation.peers and not node.reputation.quarantine
    node.handle(Offended(network.ids[1], Reason.NOT_FINITE), network.now)
    assert node.reputation.quarantine == [network.ids[1]], "its place is free"
    network.manifest = smaller
    network.crash(0)
    again = network.start(0)
    assert left not in again.reputation.peers and again.reputation.members == 3, "a restart finds nothing of it either"
    for effect in again.handle(Offended(network.ids[1], Reason.NOT_FINITE), network.now):
        network.carry_out(again.me, effect)
    assert network.disks[node.me].peers[left] == PeerRecord()
    network.manifest = dataclasses.replace(whole, version=3)
    network.crash(0)
    assert left not in network.start(0).reputation.quarantine, "who is let in again begins anew"


def test_one_huge_update_moves_the_model_no_further_than_the_clip() -> None:
    network = started(3, rounds=0)
    network.run(8)
    node = network.nodes[network.ids[0]]
    huge = forged(network, 1, 10**6, np.full_like(node.rounds.vector, 1e6))
    node.handle(UpdateReceived(huge, network.ids[1]), network.now)
    before = node.rounds.vector
    trained = before + np.float32(0.01)
    node.handle(TrainingFinished(node.rounds.round + 1, trained, b"", 0.1, 10, 1.0), network.now)
    assert float(np.linalg.norm(node.rounds.vector - trained)) < 100


def test_a_pushed_update_is_saved_before_it_is_relayed_and_survives_a_crash() -> None:
    network = started(3, rounds=0, dial_out=frozenset({1}))
    network.run(5)
    node = network.nodes[network.ids[0]]
    update = forged(network, 1, 500, np.zeros_like(node.rounds.vector))
    effects = node.handle(UpdateReceived(update, network.ids[1], pushed=True), network.now)
    kinds = [type(x) for x in effects]
    assert kinds.index(Save) < kinds.index(Publish)
    for effect in effects:
        network.carry_out(node.me, effect)
    network.crash(0)
    again = network.start(0)
    assert Publish(network.ids[1], 500, update.frame) in again.handle(Started(), network.now)


def test_who_can_be_asked_may_not_push() -> None:
    network = started(3, rounds=0)
    network.run(5)
    node, pusher = network.nodes[network.ids[0]], network.ids[1]
    update = forged(network, 1, 500, np.zeros_like(node.rounds.vector))
    effects = node.handle(UpdateReceived(update, pusher, pushed=True), network.now)
    assert effects == [Emit(UpdateRefused(pusher, pusher, Reason.NOT_ASKED, "sequence 500"))]
    assert node.updates.inbox.newest_seq(pusher) < 500


def test_what_fails_with_a_benched_member_is_not_told_again() -> None:
    network = started(4, rounds=0)
    network.run(5)
    node, (_, peer, *others) = network.nodes[network.ids[0]], network.ids
    told = []
    for member in (peer, *others):  # three pulls from one peer, all lost
        effects = node.handle(PullEnded(peer, member, "no answer"), network.now)
        told += [x.event for x in effects if isinstance(x, Emit) and isinstance(x.event, PeerBenched)]
    [benched] = told
    assert (benched.peer, benched.error) == (peer, "no answer")
    assert benched.benched_until > network.now
    [again] = node.handle(PullEnded(peer, peer, "no answer"), benched.benched_until)
    assert isinstance(again, Emit) and isinstance(again.event, PeerBenched)
    assert again.event.benched_until > benched.benched_until


def test_others_are_asked_in_place_of_who_does_not_answer() -> None:
    network = Network(make_manifest(8, fanout=3), rounds=0)
    for i in range(8):
        network.start(i)
    network.run(5)
    updates, now = network.nodes[network.ids[0]].updates, network.now
    assert updates.idle
    first, second, third = ([x.member for x in updates.pull(now) if isinstance(x, Pull)] for _ in range(3))
    assert sorted(first + second + third) == sorted(network.ids[1:]) and (len(first), len(second)) == (3, 3)
    assert updates.pull(now) == []
    updates.ended(second[0], second[0])
    assert [x.member for x in updates.pull(now) if isinstance(x, Pull)] == second[:1]


def test_a_blocked_member_is_neither_pulled_nor_merged() -> None:
    network = started(3, rounds=0)
    network.run(5)
    node = network.nodes[network.ids[0]]
    node.handle(BlocklistChanged(frozenset({network.ids[1]})), network.now)
    effects = node.handle(TrainingFinished(node.rounds.round + 1, node.rounds.vector, b"", 0, 1, 1.0), network.now)
    assert network.ids[1] not in {x.peer for x in effects if isinstance(x, Pull)}
    [completed] = [x.event for x in effects if isinstance(x, Emit) and isinstance(x.event, RoundCompleted)]
    assert network.ids[1] not in completed.merged


def test_a_new_manifest_drops_who_left_and_asks_for_a_restart_if_the_model_changes() -> None:
    network = started(4, rounds=0)
    network.run(5)
    node = network.nodes[network.ids[0]]
    smaller = dataclasses.replace(network.manifest, version=2, members=network.manifest.members[:3])
    assert node.handle(ManifestChanged(smaller), network.now) == []
    assert network.ids[3] not in node.peers.members
    other = dataclasses.replace(smaller, version=3, generation=2)
    node.handle(ManifestChanged(other), network.now)
    assert "RESTART_NEEDED" in node.problems


def test_a_bank_that_the_admins_removed_says_so_and_does_nothing_more() -> None:
    network = started(4, rounds=0)
    network.run(5)
    node = network.nodes[network.ids[0]]
    without = dataclasses.replace(network.manifest, version=3, members=network.manifest.members[1:])
    [closed, told] = node.handle(ManifestChanged(without), network.now)
    assert isinstance(closed, CloseTrainer) and isinstance(told, Emit) and isinstance(told.event, ProblemRaised)
    assert (told.event.code, told.event.severity) == ("REMOVED", "error")
    assert told.event.message == "the admins removed this bank in version 3"
    trained = TrainingFinished(node.rounds.round + 1, node.rounds.vector, b"", 0, 1, 1.0)
    for given in (TimerFired("heartbeat"), trained, TrainerReady(100, 5), ManifestChanged(network.manifest)):
        assert node.handle(given, network.now + 1) == []
    assert node.handle(StopRequested(), network.now + 2) == [Halt()]


def test_an_operator_hears_a_month_ahead_that_the_manifest_expires() -> None:
    network = started(2, rounds=0)
    node = network.nodes[network.ids[0]]
    month = 30 * 86400
    for expires, told in ((month + 100, None), (month - 100, "MANIFEST_EXPIRING"), (-100, "MANIFEST_EXPIRED")):
        manifest = dataclasses.replace(
            node.manifest, version=node.manifest.version + 1, expires=int(network.now) + expires
        )
        node.handle(ManifestChanged(manifest), network.now)
        effects = node.handle(TimerFired("heartbeat"), network.now)
        events = [x.event for x in effects if isinstance(x, Emit) and isinstance(x.event, ProblemRaised)]
        assert [e.code for e in events if e.code.startswith("MANIFEST")] == ([told] if told else [])
        assert {c for c in ("MANIFEST_EXPIRING", "MANIFEST_EXPIRED") if c in node.problems} == (
            {told} if told else set()
        )


def test_a_newer_manifest_ends_what_was_wrong_with_the_one_before() -> None:
    network = Network(dataclasses.replace(make_manifest(3), expires=3), rounds=0)
    for i in range(3):
        network.start(i)
    network.run(10)
    node = network.nodes[network.ids[0]]
    for member in network.ids[1:]:
        seen = TroubleSeen("MANIFEST_REFUSED", "another version 1", "compare fingerprints", member)
        effects = node.handle(seen, network.now)
        assert effects == [Emit(ProblemRaised(seen.code, "warning", seen.message, seen.hint, member))]
    assert "MANIFEST_EXPIRED" in node.problems and "MANIFEST_REFUSED" in node.problems
    effects = node.handle(ManifestChanged(dataclasses.replace(network.manifest, version=2, expires=10**9)), network.now)
    assert effects == [Emit(ProblemCleared("MANIFEST_REFUSED", m)) for m in network.ids[1:]], "for each who offered it"
    node.handle(TimerFired("heartbeat"), network.now)
    assert "MANIFEST_EXPIRED" not in node.problems and "MANIFEST_REFUSED" not in node.problems


def test_whom_a_smaller_consortium_releases_is_released_on_disk_before_it_is_told() -> None:
    network = started(3, rounds=0)
    network.run(5.5)
    me, bad, gone = network.ids
    node = network.nodes[me]
    node.reputation._record(bad).score = 6.0
    node.reputation._settle(bad, "its models")
    members = [m for m in node.manifest.members if m != node.manifest.by_id[gone]]
    smaller = dataclasses.replace(node.manifest, version=node.manifest.version + 1, members=tuple(members))
    effects = node.handle(ManifestChanged(smaller), network.now)
    told = next(i for i, x in enumerate(effects) if isinstance(x, Emit) and isinstance(x.event, StandingChanged))
    saved = [x for x in effects[:told] if isinstance(x, Save)]
    assert saved and saved[-1].peers[bad].standing == "suspect"
