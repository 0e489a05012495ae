"""One member's protocol as a function: `handle(input, now) -> effects`, and nothing else.

No await, clock, socket, file, logger or global randomness: the daemon and the simulator interpret the same effects, so
what is simulated is what runs, and a journal of inputs replays to the same state.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from p2pfed.core.consortium import Manifest
from p2pfed.core.effects import CloseTrainer, Effect, Emit, Halt, Pull, Save, SetTimer
from p2pfed.core.events import NodeStarted, StandingChanged, UpdateRefused
from p2pfed.core.gossip.calendar import MOST_CYCLES
from p2pfed.core.gossip.clocks import Clocks
from p2pfed.core.gossip.cycles import Cycles
from p2pfed.core.gossip.own import OwnModel
from p2pfed.core.gossip.restoring import Restoring, Skipped
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
    ReadingFailed,
    ReadingRefused,
    RefreshAsked,
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
from p2pfed.core.phase import Phase
from p2pfed.core.presence import Presence
from p2pfed.core.problems import Problems, removed, restart_needed
from p2pfed.core.reputation import Reputation
from p2pfed.core.rounds import Rounds
from p2pfed.core.settings import Memory, NodeSettings
from p2pfed.core.succession import InForce, changes_training
from p2pfed.core.types import NodeId, Reason, Verdict, short
from p2pfed.core.updates import Updates
from p2pfed.core.witness import Witness

SEQ_JUMP = 2**32
"""By so much one claim may raise the sequence number: a member may lie, and sequence numbers must never run out."""

CLOCK_PERIODS = 6
"""Heartbeats between two looks at a member's clock."""


class GossipNode:
    """All decisions of one member. Attributes are for reading; only `handle` changes them."""

    def __init__(
        self,
        signer: Signer,
        manifest: Manifest,
        settings: NodeSettings,
        memory: Memory,
        rng: np.random.Generator,
        force: InForce | None = None,
    ) -> None:
        """`force` is what `manifest` was taken from, where other versions wait for their cycle or have just ended."""
        self.me = node_id(signer.public_key)
        self.force = InForce(manifest) if force is None else force
        self.manifest = manifest
        self.members = manifest.by_id
        self.problems = Problems()
        self.peers = PeerTable(self.me, manifest.roster, manifest.gossip.heartbeat_seconds)
        self.peers.block(settings.blocked)
        self._rng = rng
        self.reputation = Reputation(
            manifest.model, len(manifest.members), int(rng.spawn(1)[0].integers(2**63)),
            epochs=manifest.training.local_steps == 0, params=settings.judging, me=self.me,
        )  # fmt: skip
        self.reputation.restore(memory.scales, memory.peers, memory.checkpoint.merged if memory.checkpoint else 0)
        self._renewed = self.reputation.begin_anew(manifest.model) if memory.outdated(manifest.model_digest) else []
        self._renewed += self.reputation.follow(manifest.roster.ids, manifest.declared)
        self.witness = Witness(self.me, manifest, memory.proofs, self.reputation, self.problems)
        self.updates = Updates(self.me, manifest, memory, self.peers, self.reputation, rng)
        self.presence = Presence(
            signer, manifest, settings, memory.epoch, self.peers, self.problems, self.witness,
            self.updates.inbox.newest_seq, rng,
        )  # fmt: skip
        learns = Rounds if manifest.calendar.free else Cycles
        self.rounds: OwnModel = learns(
            signer, manifest, settings, memory, self.peers, self.updates, self.reputation, self.problems
        )
        self.rounds.expect(self.force.coming)
        self.restoring, self.clocks, self._skipped = Restoring(), Clocks(), Skipped()
        self._forgiven = memory.pardoned
        self._answered = 0
        self._wall = 0.0
        """What the machine's clock showed with the newest input."""
        self.removed = False
        """Whether the newest manifest lists this node no more."""

    # --- what an interpreter may ask without an input -----------------------------------------------------------------

    @cached_property
    def _answers_rng(self) -> np.random.Generator:
        """Questions stand in no journal, so they must not move the generator that decisions are drawn from."""
        return self._rng.spawn(1)[0]

    def heartbeats(self, asking: NodeId) -> HeartbeatTable:
        """The table to answer `asking`'s exchange with."""
        self._answered += 1
        return self.presence.testify(asking, self._answers_rng, self._answered)

    def hello(self, asking: NodeId, wall: float) -> Hello:
        """The answer to `asking`'s hello; `wall` is what this node's clock shows."""
        return self.presence.hello(asking, wall)

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
            case TimerFired("round"):
                return not self.manifest.calendar.free
            case TimerFired("catch_up" | "adoption") | UpdateReceived() | PullEnded() | Offended():
                return self.rounds.catching_up
            case HeartbeatsReceived() | TrainerReady():
                return not self.manifest.calendar.free and self.rounds.catching_up
        return False

    # --- the function -------------------------------------------------------------------------------------------------

    def handle(self, given: Input, now: float, wall: float | None = None) -> list[Effect]:
        """Take one input at time `now` (seconds, never falling) and say what to do, in order.

        Timers follow `now`. `wall` is what the machine's clock shows (Unix seconds), which may be set at any time:
        rounds of the calendar follow it. Without it the clock shows `now`.
        """
        if self.rounds.phase is Phase.STOPPED:
            return []
        self._wall = now if wall is None else wall
        if self.removed:
            return self._stop(given, now) if isinstance(given, StopRequested) else []
        force = self.force if self.rounds.clock_off else self.force.at(self._wall)
        effects = self._use(force, now) if force is not self.force else []
        return effects + self._HANDLERS[type(given)](self, given, now)

    def _started(self, _: Started, now: float) -> list[Effect]:
        effects: list[Effect] = [Emit(NodeStarted(self.rounds.round, len(self.members)))]
        why = "judged before there was a calendar"
        effects += [Emit(StandingChanged(m, "quarantined", "trusted", why, {})) for m in self._forgiven]
        effects += [Save(peers=self.reputation.changed_records()), *map(Emit, self._renewed)] if self._renewed else []
        effects += self.rounds.started(now, self._wall)
        effects += [*self.updates.published(), *self.witness.started()]
        look_again = SetTimer("restored", self.restoring.begin(now))
        return [*effects, *self._restored(now), look_again, *self._beat(now)]

    def _timer_fired(self, timer: TimerFired, now: float) -> list[Effect]:
        if timer.name == "heartbeat":
            return self._beat(now)
        if timer.name == "restored":
            return self._restored(now)
        return self.rounds.timer_fired(timer.name, now, self._wall)

    def _restored(self, now: float) -> list[Effect]:
        """Begin to publish, once others have said what they hold of this node."""
        if not self.rounds.mute:
            return []
        others = filter(self.peers.welcome, self.manifest.roster.ids)
        return [] if self.restoring.waiting(others, now) else self.rounds.speak()

    def _beat(self, now: float) -> list[Effect]:
        if self.presence.absent(now):
            self.rounds.note_absence()
        effects = [] if self.manifest.calendar.free else self._watch_clocks(now)
        effects += self.presence.beat(self.rounds.seq, self.rounds.published, now, self._wall)
        effects += self.rounds.beaten(now, self._wall)
        if self.rounds.mute:
            effects += [*self._restored(now), *self.presence.greet(self.restoring.answerers, now)]
        return effects

    def _watch_clocks(self, now: float) -> list[Effect]:
        """Compare this node's clock with the others', and ask one what it shows now."""
        most = self.manifest.calendar.round_seconds
        self.rounds.clock_off, effects = self.clocks.watch(most, self.problems, now, self._wall)
        asked = [] if self.presence.beats % CLOCK_PERIODS else self.presence.ask_time(now)
        return [*asked, *effects]

    def _heartbeats_received(self, got: HeartbeatsReceived, now: float) -> list[Effect]:
        effects = [*self.presence.heard(got, now), *self.witness.heard(got.table)]
        for head in got.table.heads:
            if head.statement.sender == self.me:
                effects += self._own_update(head.statement.seq, got.via)
        seq, known = got.table.your_newest_seq, got.via in self.restoring.answerers
        # who can be dialled is asked by hello; and a liar, who is heard once, cannot use up the numbers
        if not known and not self.peers.dialable(got.via, now) and seq <= self.rounds.seq + SEQ_JUMP:
            effects += self._told_seq(got.via, seq, now)
        return [*effects, *self.rounds.met(now, self._wall)] if got.answered else effects

    def _hello_received(self, got: HelloReceived, now: float) -> list[Effect]:
        witness, seq, newest = got.hello.member, got.hello.your_newest_seq, self.rounds.seq
        far = seq > newest + SEQ_JUMP
        if far and not self.rounds.mute:  # else this state may be a backup from before liars had numbers skipped
            return self._offended(Offended(witness, Reason.MALFORMED, f"it claims to hold update {seq} of us"), now)
        self.peers.succeeded(witness, now)
        self.clocks.read(witness, got.hello.wall, got.round_trip, now, self._wall)
        # a mere claim costs numbers, of which there are enough; whether it is true our own signature must say
        asked = [Pull(witness, self.peers.endpoints(witness), self.me, newest)] if seq > newest else []
        return [*asked, *([] if far else self._told_seq(witness, seq, now))]

    def _told_seq(self, witness: NodeId, seq: int, now: float) -> list[Effect]:
        """`witness` says that `seq` is the newest update of this node that it holds."""
        self.restoring.answered(witness, now)
        if seq > self.rounds.seq:
            self._skip_to(seq)
        return self._restored(now)

    def _skip_to(self, seq: int) -> None:
        """Never sign a sequence number again that somebody may have seen."""
        self._skipped.add(self.rounds.seq, seq)
        self.rounds.seq = seq

    def _own_update(self, seq: int, witness: NodeId) -> list[Effect]:
        """An update that this node has signed, in this life or in one that its state has forgotten."""
        if seq > self.rounds.seq:
            self._skip_to(seq)
        newest = self._skipped.shown(seq, "STATE_ROLLED_BACK" in self.problems)
        if newest is None:
            return []
        return self.presence.forgotten_past(f"update {seq} (shown by {short(witness)}), the newest here is {newest}")

    def _update_received(self, got: UpdateReceived, now: float) -> list[Effect]:
        statement = got.update.statement
        self.updates.ended(got.via, statement.sender)
        if not got.pushed:
            self.peers.succeeded(got.via, now)
        if statement.sender == self.me:
            effects = self._own_update(statement.seq, got.via)
        elif statement.model != self.manifest.model_digest:  # it was opened before the model changed
            effects = [Emit(UpdateRefused(statement.sender, got.via, Reason.OTHER_GENERATION, ""))]
        else:
            effects = self.witness.given(got.update)
            effects += self.updates.offer(got, self.rounds.merging.count, now)
        return [*effects, *self.rounds.pulls_ended(now, self._wall)]

    def _pull_ended(self, got: PullEnded, now: float) -> list[Effect]:
        self.updates.ended(got.peer, got.member, empty=True)
        if not got.error:
            self.peers.succeeded(got.peer, now)
        benched = self.presence.failed(got.peer, got.error, now) if got.error else []
        return [*benched, *self.rounds.pulls_ended(now, self._wall)]

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
            effects += self.rounds.pulls_ended(now, self._wall)
        return effects

    def _endpoint_found(self, got: EndpointFound, now: float) -> list[Effect]:
        if got.member == self.me or got.member not in self.members:
            return []
        return self.presence.found(got.member, got.endpoint, now)

    def _trainer_ready(self, got: TrainerReady, now: float) -> list[Effect]:
        return self.rounds.trainer_ready(got, now, self._wall)

    def _training_finished(self, got: TrainingFinished, now: float) -> list[Effect]:
        return self.rounds.training_finished(got, now, self._wall)

    def _evaluation_finished(self, got: EvaluationFinished, now: float) -> list[Effect]:
        return self.rounds.evaluation_finished(got, now, self._wall)

    def _trainer_lost(self, got: TrainerLost, now: float) -> list[Effect]:
        return self.rounds.trainer_lost(got, now)

    def _reading_refused(self, got: ReadingRefused, now: float) -> list[Effect]:
        return self.rounds.reading_refused(got)

    def _reading_failed(self, got: ReadingFailed, now: float) -> list[Effect]:
        return self.rounds.reading_failed(got, now)

    def _refresh_asked(self, got: RefreshAsked, now: float) -> list[Effect]:
        return self.rounds.refresh_asked(got, now, self._wall)

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
        if self.me not in got.manifest.by_id:
            return self._leave(got.manifest)
        effects = self._use(self.force.followed(got.manifest).at(self._wall), now)
        return [*effects, *self.problems.clear("MANIFEST_REFUSED")]

    def _use(self, force: InForce, now: float) -> list[Effect]:
        """Follow the newest version's members; train otherwise if its cycle has begun."""
        old, new, self.force = self.manifest, force.manifest, force
        self.manifest, self.members = new, new.by_id
        self.presence.follow(new)
        self.updates.follow(new)
        released = self.reputation.follow(new.roster.ids, new.declared)
        saved = [Save(peers=self.reputation.changed_records())] if released else []
        effects: list[Effect] = [*saved, *map(Emit, released), *self.witness.follow(new)]
        if changes_training(old, new):
            self.rounds, switched = self.rounds.switch(new, now, self._wall)
            effects += switched
        self.rounds.manifest = new
        self.rounds.expect(force.coming)
        waits = new.calendar.free and force.coming is not None
        return effects + (restart_needed(self.problems, new.version) if waits else [])

    def _leave(self, new: Manifest) -> list[Effect]:
        """The admins removed this bank: it trains and asks no more, and the daemon says so until it is stopped."""
        self.removed, self.rounds.phase = True, Phase.FINISHED
        return [CloseTrainer(MOST_CYCLES), *removed(self.problems, new.version)]

    def _trouble_seen(self, got: TroubleSeen, now: float) -> list[Effect]:
        return self.problems.raise_(got.code, "warning", got.message, got.hint, got.subject)

    def _trouble_over(self, got: TroubleOver, now: float) -> list[Effect]:
        return self.problems.clear(got.code)

    def _stop(self, _: StopRequested, now: float) -> list[Effect]:
        self.rounds.phase = Phase.STOPPED
        if self.removed:  # nobody would listen to a good-bye
            return [Halt()]
        return [*self.presence.leave(self.rounds.seq, self.rounds.published, now), Halt()]

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
        ReadingRefused: _reading_refused,
        ReadingFailed: _reading_failed,
        RefreshAsked: _refresh_asked,
        LoopLagged: _loop_lagged,
        BlocklistChanged: _blocklist_changed,
        Pardoned: _pardoned,
        ManifestChanged: _manifest_changed,
        TroubleSeen: _trouble_seen,
        TroubleOver: _trouble_over,
        StopRequested: _stop,
    }
