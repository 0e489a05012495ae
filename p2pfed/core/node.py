"""One member's protocol as a function: `handle(input, now) -> effects`, and nothing else.

No await, clock, socket, file, logger or global randomness: the daemon and the simulator interpret the same effects, so
what is simulated is what runs, and a journal of inputs replays to the same state.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from p2pfed.core.consortium import Manifest
from p2pfed.core.effects import Effect, Emit, Halt, Pull, Save
from p2pfed.core.events import NodeStarted, UpdateRefused
from p2pfed.core.identity import Signer, node_id
from p2pfed.core.inputs import (
    BlocklistChanged,
    EndpointFound,
    EvaluationFinished,
    ExchangeFailed,
    HeartbeatsReceived,
    HelloReceived,
    Input,
    LoopLagged,
    ManifestChanged,
    Offended,
    Pardoned,
    PullEnded,
    Started,
    StopRequested,
    TimerFired,
    TrainerLost,
    TrainerReady,
    TrainingFinished,
    TroubleOver,
    TroubleSeen,
    UpdateReceived,
)
from p2pfed.core.membership import PeerTable
from p2pfed.core.messages import HeartbeatTable, Hello
from p2pfed.core.presence import Presence
from p2pfed.core.problems import Problems
from p2pfed.core.reputation import Reputation
from p2pfed.core.rounds import Phase, Rounds
from p2pfed.core.settings import Memory, NodeSettings
from p2pfed.core.types import NodeId, Reason, Verdict, short
from p2pfed.core.updates import Updates
from p2pfed.core.witness import Witness

HELLO_JUMP = 2**32
"""By so much one hello may raise the sequence number: a member may lie, and sequence numbers must never run out."""

SKIPS_KEPT = 64
"""Runs of skipped sequence numbers that are remembered; whoever named the last of them is asked for proof at once."""


class GossipNode:
    """All decisions of one member. Attributes are for reading; only `handle` changes them."""

    def __init__(
        self, signer: Signer, manifest: Manifest, settings: NodeSettings, memory: Memory, rng: np.random.Generator
    ) -> None:
        self.me = node_id(signer.public_key)
        self.manifest = manifest
        self.members = manifest.by_id
        self.problems = Problems()
        self.peers = PeerTable(self.me, manifest.roster, manifest.gossip.heartbeat_seconds)
        self.peers.block(settings.blocked)
        self._rng = rng
        self.reputation = Reputation(
            manifest.model,
            len(manifest.members),
            int(rng.spawn(1)[0].integers(2**63)),
            epochs=manifest.training.local_steps == 0,
        )
        self.reputation.restore(memory.scales, memory.peers)
        self.reputation.follow(manifest.roster.ids)
        self.witness = Witness(self.me, manifest, memory.proofs, self.reputation, self.problems)
        self.presence = Presence(signer, manifest, settings, memory.epoch, self.peers, self.problems, self.witness, rng)
        self.updates = Updates(self.me, manifest, memory, self.peers, self.reputation, rng)
        self.rounds = Rounds(
            signer, manifest, settings, memory, self.peers, self.updates, self.reputation, self.problems
        )
        self._skipped: deque[range] = deque(maxlen=SKIPS_KEPT)
        """Sequence numbers that others named before this node came to sign them: it never will."""
        self._answered = 0

    # --- what an interpreter may ask without an input -----------------------------------------------------------------

    @cached_property
    def _answers_rng(self) -> np.random.Generator:
        """Questions stand in no journal, so they must not move the generator that decisions are drawn from."""
        return self._rng.spawn(1)[0]

    def heartbeats(self) -> HeartbeatTable:
        """The table to answer an exchange with."""
        self._answered += 1
        return self.presence.testify(self._answers_rng, self._answered)

    def hello(self, asking: NodeId) -> Hello:
        """The answer to `asking`'s hello."""
        return self.presence.hello(self.updates.inbox.newest_seq(asking))

    def serve(self, asking: NodeId, member: NodeId, frame: bytes) -> bytes:
        """The answer to `asking`'s pull for an update of `member`, whose newest frame is `frame`: just that."""
        return frame

    def name_of(self, member: NodeId) -> str:
        """A member's name; the short id of who has left the manifest."""
        entry = self.members.get(member)
        return entry.name if entry else short(member)

    def may_merge(self, given: Input) -> bool:
        """Whether `handle(given)` may combine models: with large ones that takes long enough to keep others waiting."""
        match given:
            case TrainingFinished():
                return True
            case TimerFired("close"):
                return self.rounds.phase is Phase.CLOSING
            case TimerFired("catch_up" | "adoption") | UpdateReceived() | PullEnded() | Offended():
                return self.rounds.phase in (Phase.CATCHING_UP, Phase.MEETING)
        return False

    # --- the function -------------------------------------------------------------------------------------------------

    def handle(self, given: Input, now: float) -> list[Effect]:
        """Take one input at time `now` (seconds, never falling) and say what to do, in order."""
        if self.rounds.phase is Phase.STOPPED:
            return []
        return self._HANDLERS[type(given)](self, given, now)

    def _started(self, _: Started, now: float) -> list[Effect]:
        effects: list[Effect] = [Emit(NodeStarted(self.rounds.round, len(self.members)))]
        effects += self.rounds.started(now)
        effects += [*self.updates.published(), *self.witness.started()]
        return [*effects, *self.presence.greet(now), *self._beat(now)]

    def _timer_fired(self, timer: TimerFired, now: float) -> list[Effect]:
        return self._beat(now) if timer.name == "heartbeat" else self.rounds.timer_fired(timer.name, now)

    def _beat(self, now: float) -> list[Effect]:
        if self.presence.absent(now):
            self.rounds.note_absence()
        return self.presence.beat(self.rounds.seq, now)

    def _heartbeats_received(self, got: HeartbeatsReceived, now: float) -> list[Effect]:
        effects = [*self.presence.heard(got, now), *self.witness.heard(got.table)]
        for head in got.table.heads:
            if head.statement.sender == self.me:
                effects += self._own_update(head.statement.seq, got.via)
        return [*effects, *self.rounds.adopt(now)] if got.answered else effects

    def _hello_received(self, got: HelloReceived, now: float) -> list[Effect]:
        witness, seq = got.hello.member, got.hello.your_newest_seq
        if seq > self.rounds.seq + HELLO_JUMP:
            return self._offended(Offended(witness, Reason.MALFORMED, f"it claims to hold update {seq} of us"), now)
        self.peers.succeeded(witness, now)
        newest = self.rounds.seq
        if seq <= newest:
            return []
        # a mere claim costs numbers, of which there are enough; whether it is true our own signature must say
        self._skip_to(seq)
        return [Pull(witness, self.peers.endpoints(witness), self.me, newest)]

    def _skip_to(self, seq: int) -> None:
        """Never sign a sequence number again that somebody may have seen."""
        first = self.rounds.seq + 1
        if self._skipped and self._skipped[-1].stop == first:  # nothing was signed since
            first = self._skipped.pop().start
        self._skipped.append(range(first, seq + 1))
        self.rounds.seq = seq

    def _own_update(self, seq: int, witness: NodeId) -> list[Effect]:
        """An update that this node has signed, in this life or in one that its state has forgotten."""
        if seq > self.rounds.seq:
            self._skip_to(seq)
        skipped = next((r for r in self._skipped if seq in r), None)
        if skipped is None:
            return []
        known = f"the newest here is {skipped.start - 1}"
        return self.presence.forgotten_past(f"update {seq} (shown by {short(witness)}), {known}")

    def _update_received(self, got: UpdateReceived, now: float) -> list[Effect]:
        statement = got.update.statement
        self.updates.ended(got.via, statement.sender)
        if not got.pushed:
            self.peers.succeeded(got.via, now)
        if statement.sender == self.me:
            effects = self._own_update(statement.seq, got.via)
        else:
            effects = self.witness.given(got.update)
            effects += self.updates.offer(got, self.rounds.merging.count, now)
        return [*effects, *self.rounds.pulls_ended(now)]

    def _pull_ended(self, got: PullEnded, now: float) -> list[Effect]:
        self.updates.ended(got.peer, got.member)
        effects: list[Effect] = []
        if got.error:
            effects = self.presence.failed(got.peer, got.error, now)
        else:
            self.peers.succeeded(got.peer, now)
        return [*effects, *self.rounds.pulls_ended(now)]

    def _exchange_failed(self, got: ExchangeFailed, now: float) -> list[Effect]:
        return self.presence.failed(got.peer, got.error, now)

    def _offended(self, got: Offended, now: float) -> list[Effect]:
        blamed = got.signer or got.peer
        effects: list[Effect] = [Emit(UpdateRefused(got.pulled or blamed, blamed, got.reason, got.detail))]
        if got.reason.verdict is Verdict.REJECT:
            effects += self.updates.blame(blamed, got.reason)
        if blamed == got.peer and got.reason.verdict is Verdict.REJECT:
            effects += self.presence.failed(got.peer, got.reason.sentence, now)
        if got.pulled is not None:
            self.updates.ended(got.peer, got.pulled)
            effects += self.rounds.pulls_ended(now)
        return effects

    def _endpoint_found(self, got: EndpointFound, now: float) -> list[Effect]:
        if got.member == self.me or got.member not in self.members:
            return []
        return self.presence.found(got.member, got.endpoint, now)

    def _trainer_ready(self, got: TrainerReady, now: float) -> list[Effect]:
        return self.rounds.trainer_ready(got, now)

    def _training_finished(self, got: TrainingFinished, now: float) -> list[Effect]:
        return self.rounds.training_finished(got, now)

    def _evaluation_finished(self, got: EvaluationFinished, now: float) -> list[Effect]:
        return self.rounds.evaluation_finished(got, now)

    def _trainer_lost(self, got: TrainerLost, now: float) -> list[Effect]:
        return self.rounds.trainer_lost(got)

    def _loop_lagged(self, got: LoopLagged, now: float) -> list[Effect]:
        self.peers.lagged(got.seconds, now)
        return []

    def _blocklist_changed(self, got: BlocklistChanged, now: float) -> list[Effect]:
        self.peers.block(got.blocked)
        return []

    def _pardoned(self, got: Pardoned, now: float) -> list[Effect]:
        changes = self.reputation.pardon(got.member)
        cleared = self.witness.pardoned(got.member, self.updates.inbox.newest_seq(got.member))
        return [Save(peers=self.reputation.changed_records()), *cleared, *map(Emit, changes)]

    def _manifest_changed(self, got: ManifestChanged, now: float) -> list[Effect]:
        new, old = got.manifest, self.manifest
        self.manifest, self.members = new, new.by_id
        self.presence.follow(new)
        self.updates.follow(new)
        self.reputation.follow(new.roster.ids)
        effects = [*self.witness.follow(new), *self.problems.clear("MANIFEST_REFUSED")]
        if (new.model_digest, new.gossip.rule) == (old.model_digest, old.gossip.rule):
            self.rounds.manifest = new
            return effects
        return effects + self.problems.raise_(
            "RESTART_NEEDED",
            "error",
            f"manifest {new.version} changes the model or the merge rule",
            "restart the daemon to train under the new version",
        )

    def _trouble_seen(self, got: TroubleSeen, now: float) -> list[Effect]:
        return self.problems.raise_(got.code, "warning", got.message, got.hint, got.subject)

    def _trouble_over(self, got: TroubleOver, now: float) -> list[Effect]:
        return self.problems.clear(got.code)

    def _stop(self, _: StopRequested, now: float) -> list[Effect]:
        self.rounds.phase = Phase.STOPPED
        return [*self.presence.leave(self.rounds.seq, now), Halt()]

    _HANDLERS: ClassVar[dict[type, Callable[[GossipNode, Any, float], list[Effect]]]] = {
        Started: _started,
        TrainerReady: _trainer_ready,
        TimerFired: _timer_fired,
        UpdateReceived: _update_received,
        PullEnded: _pull_ended,
        HeartbeatsReceived: _heartbeats_received,
        ExchangeFailed: _exchange_failed,
        HelloReceived: _hello_received,
        Offended: _offended,
        EndpointFound: _endpoint_found,
        TrainingFinished: _training_finished,
        EvaluationFinished: _evaluation_finished,
        TrainerLost: _trainer_lost,
        LoopLagged: _loop_lagged,
        BlocklistChanged: _blocklist_changed,
        Pardoned: _pardoned,
        ManifestChanged: _manifest_changed,
        TroubleSeen: _trouble_seen,
        TroubleOver: _trouble_over,
        StopRequested: _stop,
    }
