"""What one lying member says must never stop, wedge or lastingly harm a node that believes in the protocol."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest

from p2pfed.core import record, wire
from p2pfed.core.adoption import Stage
from p2pfed.core.consortium import parse_signed
from p2pfed.core.effects import Effect, Emit, FetchManifest, Publish, Pull, SayHello, StartEvaluation, StartTraining
from p2pfed.core.events import ProblemRaised, UpdateRefused
from p2pfed.core.fields import MAX_NUMBER
from p2pfed.core.gossip.restoring import SKIPS_KEPT
from p2pfed.core.inputs import (
    EvaluationFinished,
    HeartbeatsReceived,
    HelloReceived,
    Offended,
    TrainerLost,
    TrainerReady,
    TrainingFinished,
    UpdateReceived,
)
from p2pfed.core.messages import Heartbeat, HeartbeatTable, Hello, ModelUpdate
from p2pfed.core.node import SEQ_JUMP, GossipNode
from p2pfed.core.phase import Phase
from p2pfed.core.presence import MANIFEST_PERIODS
from p2pfed.core.succession import verify_succession
from p2pfed.core.types import Reason
from p2pfed.core.wire import seal_heartbeat
from p2pfed.errors import RemoteFault
from tests.consortia import consortium, next_version, sign
from tests.core.heap import Network, identity, make_manifest

LIAR = 1


def learning(n: int = 3) -> tuple[Network, GossipNode]:
    """A network that has learned for some rounds, and its node 0."""
    network = Network(make_manifest(n), rounds=0)
    for i in range(n):
        network.start(i)
    network.run(6)
    return network, network.nodes[network.ids[0]]


def hello(network: Network, seq: int) -> HelloReceived:
    m = network.manifest
    return HelloReceived(Hello(m.consortium, network.ids[LIAR], 1, 1, m.version, m.model_digest, "liar", seq))


def row(network: Network, **changes: object) -> HeartbeatTable:
    """The liar's own, validly signed heartbeat."""
    fields = Heartbeat(
        network.manifest.consortium, network.ids[LIAR], MAX_NUMBER, 1, 1, 5, ("10.0.0.2:7443",), False, 1, 1, "liar"
    )
    return HeartbeatTable((seal_heartbeat(identity(LIAR), dataclasses.replace(fields, **changes)),))  # type: ignore[arg-type]


def trained(node: GossipNode, now: float) -> list[Effect]:
    vector = node.rounds.vector + np.float32(0.01)
    return node.handle(TrainingFinished(node.rounds.round + 1, vector, b"", 0.1, 10, 1.0), now)


def seal(network: Network, seq: int) -> ModelUpdate:
    """An update of node 0's own."""
    return wire.seal_update(
        identity(0), manifest=network.manifest, instance="00", seq=seq, previous="", round=9, rows=8,
        vector=network.nodes[network.ids[0]].rounds.vector,
    )  # fmt: skip


@pytest.mark.parametrize("claim", [MAX_NUMBER, 2**62, SEQ_JUMP + 1_000])
def test_a_hello_cannot_use_up_the_sequence_numbers(claim: int) -> None:
    network, node = learning()
    before = node.rounds.seq
    effects = node.handle(hello(network, claim), network.now)
    [refused] = [x.event for x in effects if isinstance(x, Emit) and isinstance(x.event, UpdateRefused)]
    assert (refused.blamed, refused.reason) == (network.ids[LIAR], Reason.MALFORMED)
    assert node.rounds.seq == before and "STATE_ROLLED_BACK" not in node.problems
    assert any(isinstance(x, Publish) for x in trained(node, network.now))


def test_hellos_at_every_start_for_a_thousand_years_leave_sequence_numbers() -> None:
    assert 1_000 * 366 * 24 * SEQ_JUMP < MAX_NUMBER // 100, "five hellos at a start, a start an hour"
    network, node = learning()
    claimed = node.rounds.seq + SEQ_JUMP
    [asked] = node.handle(hello(network, claimed), network.now)
    assert asked == Pull(network.ids[LIAR], node.peers.endpoints(network.ids[LIAR]), node.me, claimed - SEQ_JUMP)
    assert any(isinstance(x, Publish) for x in trained(node, network.now))
    assert not any(isinstance(x, SayHello) for x in node.handle(hello(network, 0), network.now))


def test_a_heartbeat_says_once_a_start_what_its_sender_holds_and_only_where_hellos_cannot_ask() -> None:
    network, node = learning()
    before = node.rounds.seq
    told = HeartbeatTable((), your_newest_seq=before + SEQ_JUMP)
    node.handle(HeartbeatsReceived(told, network.ids[LIAR], answered=False), network.now)
    assert node.rounds.seq == before, "it can be dialled"
    network = Network(make_manifest(4, dial_out=frozenset({LIAR})))
    node = network.start(0)
    for claim in (SEQ_JUMP, 2 * SEQ_JUMP):
        told = HeartbeatTable((), your_newest_seq=claim)
        node.handle(HeartbeatsReceived(told, network.ids[LIAR], answered=False), network.now)
        assert node.rounds.seq == SEQ_JUMP


def test_a_restored_backup_blames_nobody_for_numbers_that_liars_had_it_skip() -> None:
    """Two lies took it beyond what one may claim; then a backup from before them was restored."""
    network = Network(make_manifest(3))
    node = network.start(0)
    honest = hello(network, 2 * SEQ_JUMP)
    effects = node.handle(honest, network.now)
    assert effects == [Pull(network.ids[LIAR], node.peers.endpoints(network.ids[LIAR]), node.me, 0)]
    own = UpdateReceived(seal(network, 2 * SEQ_JUMP), network.ids[LIAR])
    node.handle(own, network.now)
    assert node.rounds.seq == 2 * SEQ_JUMP and node.rounds.mute
    node.handle(honest, network.now)
    assert node.restoring.answerers == {network.ids[LIAR]}


def test_only_what_this_node_has_signed_tells_that_its_state_was_rolled_back() -> None:
    network, node = learning()
    before = node.rounds.seq
    node.handle(hello(network, before + 5), network.now)
    [published] = [x for x in trained(node, network.now) if isinstance(x, Publish)]
    assert published.seq == before + 6
    shown = wire.open_update(published.frame, network.trust)
    node.handle(UpdateReceived(shown, network.ids[LIAR]), network.now)  # what it made us sign proves nothing
    assert "STATE_ROLLED_BACK" not in node.problems
    forgotten = seal(network, before + 3)
    effects = node.handle(UpdateReceived(forgotten, network.ids[LIAR]), network.now)
    [raised] = [x.event for x in effects if isinstance(x, Emit) and isinstance(x.event, ProblemRaised)]
    assert raised.code == "STATE_ROLLED_BACK" and f"update {before + 3} (shown by" in raised.message
    assert f"the newest here is {before}" in raised.message and node.rounds.seq == before + 6


def test_a_state_that_was_rolled_back_is_told_once_unless_the_number_grows() -> None:
    network, node = learning()
    before = node.rounds.seq
    node.handle(hello(network, before + 9), network.now)

    def told(seq: int, witness: int) -> list[str]:
        effects = node.handle(UpdateReceived(seal(network, seq), network.ids[witness]), network.now)
        events = [x.event for x in effects if isinstance(x, Emit)]
        return [event.message for event in events if isinstance(event, ProblemRaised)]

    assert len(told(before + 5, LIAR)) == 1
    assert told(before + 5, LIAR) == told(before + 5, LIAR + 1) == told(before + 3, LIAR + 1) == []
    [message] = told(before + 7, LIAR)
    assert f"update {before + 7} (shown by" in message and f"the newest here is {before}" in message


def test_rising_claims_take_no_more_memory_and_hide_no_proof() -> None:
    network, node = learning()
    before = node.rounds.seq
    for i in range(1, 500):
        node.handle(hello(network, before + 10 * i), network.now)
    assert list(node._skipped.runs) == [range(before + 1, before + 4991)], "nothing was signed between the claims"
    node.handle(UpdateReceived(seal(network, before + 3), network.ids[LIAR]), network.now)
    assert "STATE_ROLLED_BACK" in node.problems
    for _ in range(2 * SKIPS_KEPT):
        trained(node, network.now)
        node.handle(hello(network, node.rounds.seq + 10), network.now)
    assert len(node._skipped.runs) == SKIPS_KEPT and node._skipped.runs[-1].stop == node.rounds.seq + 1


def test_a_lying_epoch_and_sequence_of_its_own_row_harm_nobody_else() -> None:
    network, node = learning()
    table = row(network, seq=MAX_NUMBER, counter=MAX_NUMBER, manifest_version=MAX_NUMBER)
    node.handle(HeartbeatsReceived(table, network.ids[LIAR], answered=False), network.now)
    epoch = node.presence.epoch
    network.crash(LIAR)  # the honest code under its name would believe its own words
    network.run(20)
    assert node.presence.epoch == epoch and node.rounds.phase is Phase.TRAINING
    assert wire.decode_table(wire.encode_table(node.heartbeats(node.me)), network.trust, {})


def test_a_manifest_that_never_comes_is_not_asked_for_at_every_word_of_it() -> None:
    network, node = learning()
    period = network.manifest.gossip.heartbeat_seconds
    asked = []
    for i in range(1000):
        table = row(network, counter=i + 1, manifest_version=MAX_NUMBER)
        effects = node.handle(HeartbeatsReceived(table, network.ids[LIAR], answered=False), network.now + i * 0.01)
        asked += [x for x in effects if isinstance(x, FetchManifest)]
    spans = MANIFEST_PERIODS * period * 2.0 ** np.arange(20)
    assert len(asked) == 1 + np.searchsorted(spans.cumsum(), 10)
    assert all(x.version == network.manifest.version + 1 for x in asked), "whatever number is claimed"


def test_one_that_offends_again_and_again_does_not_make_a_node_doubt_itself() -> None:
    network, node = learning(4)
    for _ in range(100):
        node.handle(Offended(network.ids[LIAR], Reason.MALFORMED), network.now)
    assert not node.peers.self_doubt(network.now)


def test_a_model_that_kills_the_trainer_is_judged_once() -> None:
    """Of two or three members one decides what the median is; its weights may be finite and their scores not."""
    network = Network(make_manifest(2), rounds=0)
    network.start(LIAR)
    network.run(90)  # alone, it says nothing for a minute
    node = network.start(0)
    while node.rounds.adoption.stage is not Stage.JUDGING:
        network.run(network.now + 0.05)
    node.handle(TrainerLost("the model's scores are not finite numbers"), network.now)
    effects = node.handle(TrainerReady(1000, 50), network.now)
    assert not any(isinstance(x, StartEvaluation) for x in effects)
    [training] = [x for x in effects if isinstance(x, StartTraining)]
    np.testing.assert_array_equal(training.vector, network.manifest.model.initial_weights(7).vector)


@pytest.mark.parametrize("lie", [{"auprc": float("nan")}, {"auprc": 0.0, "loss": float("nan")}])
def test_a_model_without_measurable_quality_is_not_adopted(lie: dict[str, float]) -> None:
    network = Network(make_manifest(2), rounds=0)
    network.start(LIAR)
    network.run(90)  # alone, it says nothing for a minute
    node = network.start(0)
    while node.rounds.adoption.stage is not Stage.JUDGING:
        network.run(network.now + 0.05)
    node.handle(EvaluationFinished("adoption:initial", {"validation": {"auprc": 0.0, "loss": 0.7}}, 0.5), network.now)
    effects = node.handle(EvaluationFinished("adoption:median", {"validation": lie}, 0.5), network.now)
    [training] = [x for x in effects if isinstance(x, StartTraining)]
    np.testing.assert_array_equal(training.vector, network.manifest.model.initial_weights(7).vector)


def test_a_manifest_with_a_repeated_key_among_many_is_refused_quickly() -> None:
    """Two megabytes of keys: a search for the repeated one that looks at every pair takes minutes."""
    keys = ",".join(f'"{i:06d}":0' for i in range(150_000))
    data = f'{{{keys},"149999":1}}'.encode()
    begin = time.process_time()
    with pytest.raises(record.RecordError, match="149999"):
        record.load(data)
    assert time.process_time() - begin < 5


def test_an_unsigned_manifest_is_refused_before_its_model_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    house = consortium(3)
    monkeypatch.setattr("p2pfed.core.succession.check_manifest", lambda manifest: pytest.fail("its model was built"))
    forged = sign(next_version(house.manifest, name="mine now"), house.members[0], house.members[1])
    with pytest.raises(ValueError, match="signed by 0 of 2"):
        verify_succession(house.manifest, parse_signed(forged.to_bytes()))


def test_words_of_another_consortium_are_blamed_on_who_brings_them_here() -> None:
    """A bank may belong to two consortia with one key: what it says there is no offence of its own here."""
    network, _ = learning()
    elsewhere = dataclasses.replace(network.manifest, consortium="ff" * 16)
    update = wire.seal_update(
        identity(2), manifest=elsewhere, instance="00", seq=9, previous="", round=9, rows=8,
        vector=np.zeros(elsewhere.model.schema().size, np.float32),
    )  # fmt: skip
    with pytest.raises(RemoteFault) as caught:
        wire.open_update(update.frame, network.trust)
    assert (caught.value.reason, caught.value.signer) == (Reason.OTHER_CONSORTIUM, None)
    beat = seal_heartbeat(
        identity(2),
        Heartbeat("ff" * 16, network.ids[2], 1, 1, 1, 0, (), False, 1, 1, "honest"),
    )
    with pytest.raises(RemoteFault) as caught:
        wire.decode_table(wire.encode_table(HeartbeatTable((beat,))), network.trust, {})
    assert (caught.value.reason, caught.value.signer) == (Reason.OTHER_CONSORTIUM, None)
