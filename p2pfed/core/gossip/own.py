"""A node's own model: what it has learned, what it published of that, and how both survive a crash."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

import numpy as np

from p2pfed.core.consortium import Manifest
from p2pfed.core.effects import Checkpoint, Effect, Publish, Save
from p2pfed.core.gossip.gate import Gate
from p2pfed.core.gossip.health import Health
from p2pfed.core.gossip.trained import TrainedRounds
from p2pfed.core.identity import Signer, node_id
from p2pfed.core.inputs import (
    EvaluationFinished,
    ReadingFailed,
    ReadingRefused,
    RefreshAsked,
    TrainerLost,
    TrainerReady,
    TrainingFinished,
)
from p2pfed.core.membership import PeerTable
from p2pfed.core.merging import Merging
from p2pfed.core.messages import ModelUpdate
from p2pfed.core.misfit import tell_columns
from p2pfed.core.phase import Phase
from p2pfed.core.probe import Probe
from p2pfed.core.problems import Problems
from p2pfed.core.reputation import Reputation
from p2pfed.core.settings import Memory, NodeSettings
from p2pfed.core.updates import Updates
from p2pfed.core.wire import own_statement, seal_update

TOO_SLOW = 3
"""Rounds that a round's training may take. Who needs more publishes nothing: its models would come too late."""


class OwnModel(ABC):
    """Model, round and sequence number of one node; who inherits says when it trains and merges."""

    def __init__(
        self,
        signer: Signer,
        manifest: Manifest,
        settings: NodeSettings,
        memory: Memory,
        peers: PeerTable,
        updates: Updates,
        reputation: Reputation,
        problems: Problems,
    ) -> None:
        self.manifest = manifest
        self._me, self._signer, self._instance = node_id(signer.public_key), signer, memory.instance
        self._settings = settings
        self._peers, self._updates, self._problems = peers, updates, problems
        self._reputation = reputation
        self.merging = Merging(manifest, updates, reputation, problems)
        self.phase = Phase.LOADING
        self.train_rows = self.train_frauds = 0
        self.mute = True
        """Whether nothing may be published yet, for others may hold more of this node than it remembers."""
        self.clock_off = False
        """Whether this node's clock is so wrong that it does not know which round it is."""
        self._usual_seconds = 0.0
        """How long training takes from StartTraining to TrainingFinished; 0 before the first."""
        self._hand_over = False
        """Whether the next training is given the optimiser's state: the trainer has none of its own."""
        self.gate = Gate(manifest.model.kind, memory.champion, memory.bests, manifest.model_digest)
        self.health = Health(problems)
        self.health.held = set(reputation.quarantine)
        self._trained = TrainedRounds(manifest.calendar)
        self._recall(memory.checkpoint)

    def _recall(self, checkpoint: Checkpoint | None) -> None:
        initial = self.manifest.initial.vector
        self.remembers = checkpoint is not None and checkpoint.model == self.manifest.model_digest
        """Whether the model goes on from a checkpoint, and not from the initial weights."""
        # everybody has the initial weights: who joins before the generation's first round is with the others
        self.round = self.merged = max(self._generation_begun, 0)
        self.seq, self.statement_digest = 0, ""
        self.vector, self.optimiser, self.frame = initial, b"", b""
        self._published = 0, 0, 0
        """Sequence number, cycle and round of the newest own update. The present ones say nothing of it: who is silent
        trains on, and who forgot what others remember skips numbers."""
        self._threshold: float | None = None
        if checkpoint is None:
            return
        # whatever is trained now, a sequence number stays used
        self.seq, self.statement_digest = checkpoint.seq, checkpoint.statement_digest
        self.health.restore(checkpoint.health, of_model=self.remembers)
        if not self.remembers:
            return
        self.round, self.merged = checkpoint.round, checkpoint.merged
        self.vector, self.optimiser = checkpoint.vector, checkpoint.optimiser
        self.frame, self._threshold = checkpoint.published, checkpoint.threshold
        if self.frame:
            statement = own_statement(self.frame)
            self._published = statement.seq, statement.cycle, statement.round
        self.gate.decided = checkpoint.decided
        self.merging.rule.restore(checkpoint.aggregation)
        self.merging.momentum.restore(checkpoint.momentum)
        self._trained.restore(checkpoint.trained)
        self._hand_over = True

    def _successor(self, manifest: Manifest) -> Self:
        """The same node under another manifest, as if it had been restarted with it."""
        gate = self.gate
        memory = Memory(0, self._instance, self._checkpoint(), champion=gate.champion, bests=gate.bests)
        return type(self)(
            self._signer, manifest, self._settings, memory, self._peers, self._updates, self._reputation, self._problems
        )

    @property
    def _generation_begun(self) -> int:
        """The number from which rounds of this generation of the model count: its learning rate follows them."""
        return self.manifest.calendar.number(self.manifest.generation_cycle, 0)

    # --- what others ask ----------------------------------------------------------------------------------------------

    @property
    def threshold(self) -> float | None:
        """Of what serves."""
        return self._threshold

    @property
    @abstractmethod
    def listener(self) -> bool:
        """Whether this bank has too few frauds to publish. An autoencoder learns from legitimate rows: it never has."""

    @property
    def behind(self) -> bool:
        """Whether this node was away, and is not with the others again yet."""
        return False

    @property
    @abstractmethod
    def catching_up(self) -> bool:
        """Whether a model, a heartbeat or a trainer that comes next may make it merge or take a median."""

    @property
    def published(self) -> tuple[int, int]:
        """Cycle and round of the newest own update; (0, 0) is none."""
        return self._published[1:]

    @property
    def too_slow(self) -> bool:
        """Whether training takes more than `TOO_SLOW` rounds."""
        return self._usual_seconds > TOO_SLOW * self.manifest.calendar.round_seconds

    # --- what happens to it -------------------------------------------------------------------------------------------

    @abstractmethod
    def started(self, now: float, wall: float) -> list[Effect]:
        """The interpreter is ready."""

    def speak(self) -> list[Effect]:
        """From now on publish: others have said what they hold of this node, or nobody answers."""
        self.mute = False
        return [Publish(self._me, self._published[0], self.frame)] if self.frame else []

    @abstractmethod
    def timer_fired(self, name: str, now: float, wall: float) -> list[Effect]:
        """A timer of this node's rounds is due; raises ValueError if there is none of that name."""

    @abstractmethod
    def beaten(self, now: float, wall: float) -> list[Effect]:
        """A heartbeat was sent: look whether the time has come for anything."""

    @abstractmethod
    def note_absence(self) -> None:
        """This node was stopped or asleep."""

    @abstractmethod
    def met(self, now: float, wall: float) -> list[Effect]:
        """A member answered: go on where others were waited for."""

    @abstractmethod
    def pulls_ended(self, now: float, wall: float) -> list[Effect]:
        """No pull is under way, or one ended: go on where only pulls were waited for."""

    @abstractmethod
    def trainer_ready(self, got: TrainerReady, now: float, wall: float) -> list[Effect]:
        """The bank's rows are loaded: begin, or go on after a trainer was lost."""

    def _look_with(self, probe: Probe | None) -> list[Effect]:
        """Judge others by the rows of a new reading, and say where these do not fit; None keeps the ones before."""
        if probe is None:
            return []
        self._reputation.yardstick.probe = probe
        return tell_columns(self._problems, self.manifest.contract, probe)

    @abstractmethod
    def training_finished(self, done: TrainingFinished, now: float, wall: float) -> list[Effect]:
        """A round of local training is done."""

    @abstractmethod
    def evaluation_finished(self, done: EvaluationFinished, now: float, wall: float) -> list[Effect]:
        """A model was measured."""

    @abstractmethod
    def trainer_lost(self, got: TrainerLost, now: float) -> list[Effect]:
        """The node goes on without training until TrainerReady comes again."""

    def reading_refused(self, got: ReadingRefused) -> list[Effect]:
        """The payments look wrong: this node does not train on them."""
        serves = "and serves on" if self.gate.champion else "and has nothing to serve yet"
        return self._problems.raise_(
            "READING_REFUSED",
            "error",
            f"the payments read for cycle {got.cycle} look wrong, so this bank sits the cycle out {serves}: {got.why}",
            "mend the source: the next cycle reads it anew, `p2pfed data refresh` at once; if the payments are right, "
            "as after labels were corrected, `p2pfed data refresh --accept` takes them",
        )

    def reading_failed(self, got: ReadingFailed, now: float) -> list[Effect]:
        """The source does not answer: it is asked again and again."""
        return self._problems.raise_(
            "DATA_UNREADABLE",
            "error",
            f"the payments cannot be read: {got.why}",
            "mend the source: reading is tried again by itself, after a minute at most; meanwhile this node serves, "
            "exchanges and merges",
        )

    @abstractmethod
    def expect(self, coming: Manifest | None) -> None:
        """A version waits for its cycle, or none does any more."""

    @abstractmethod
    def switch(self, manifest: Manifest, now: float, wall: float) -> tuple[OwnModel, list[Effect]]:
        """What takes this object's place under a manifest that trains something else, or otherwise, from now on."""

    @abstractmethod
    def refresh_asked(self, got: RefreshAsked, now: float, wall: float) -> list[Effect]:
        """The operator wants the payments read anew."""

    # --- publishing and saving ----------------------------------------------------------------------------------------

    def _seal_update(self) -> ModelUpdate:
        update = seal_update(
            self._signer,
            manifest=self.manifest,
            instance=self._instance,
            seq=self.seq + 1,
            previous=self.statement_digest,
            round=self.round,
            rows=self.train_rows,
            vector=self.vector,
        )
        self.seq, self.statement_digest, self.frame = self.seq + 1, update.digest, update.frame
        self._published = self.seq, update.statement.cycle, update.statement.round
        return update

    def _announce(self, update: ModelUpdate, now: float) -> list[Effect]:
        """Let others have an update that has been saved."""
        effects: list[Effect] = [Publish(self._me, self.seq, update.frame)]
        if not self._settings.endpoints:
            effects += self._updates.push(update.frame, now)
        return effects

    def _save(self) -> Save:
        reputation = self._reputation
        marks = self._updates.inbox.risen_marks()
        return Save(self._checkpoint(), marks, peers=reputation.changed_records(), scales=reputation.yardstick.scales)

    def _checkpoint(self) -> Checkpoint:
        return Checkpoint(
            round=self.round,
            merged=self.merged,
            seq=self.seq,
            statement_digest=self.statement_digest,
            vector=self.vector,
            optimiser=self.optimiser,
            aggregation=self.merging.rule.state(),
            published=self.frame,
            threshold=self.threshold,
            model=self.manifest.model_digest,
            decided=self.gate.decided,
            momentum=self.merging.momentum.state(),
            health=self.health.state(),
            trained=self._trained.state(),
        )

    # --- training -----------------------------------------------------------------------------------------------------

    def _note_duration(self, took: float) -> None:
        # falls at once and rises slowly: after one slow round, as the first is, pulls must not come too late for many,
        # and a machine that stood still for a minute is no slow one
        usual = self._usual_seconds
        self._usual_seconds = min(took, 0.5 * (usual + took), 2 * usual) if usual else took

    def _finite(self, done: TrainingFinished) -> bool:
        return bool(np.isfinite(done.loss) and np.isfinite(done.vector).all())

    def _diverged(self, number: int) -> list[Effect]:
        self.optimiser, self._hand_over = b"", False
        self.phase = Phase.PAUSED
        return self._problems.raise_(
            "TRAINING_DIVERGED",
            "error",
            f"round {number} ended in NaN or infinity; it is tried again",
            "lower the learning rate in the manifest, and look for extreme values in the data",
        )

    def _warn_slow(self) -> list[Effect]:
        if not self.too_slow:
            return self._problems.clear("TOO_SLOW")
        rounds = self.manifest.calendar.round_seconds
        return self._problems.raise_(
            "TOO_SLOW",
            "warning",
            f"a round of training takes {self._usual_seconds:.0f} s here, the calendar gives it {rounds:g} s: this "
            f"bank trains once a cycle, merges and scores, and publishes nothing while it needs more than {TOO_SLOW}",
            "give this machine more processors, or ask the admins for longer rounds",
        )

    def _warn_alone(self, effects: list[Effect]) -> list[Effect]:
        return effects + self._problems.raise_(
            "ALONE",
            "warning",
            "no other member has been met; this node trains on its own rows only",
            "check peers.seeds, the manifest's endpoints and the firewall",
        )

    def _trainer_gone(self, got: TrainerLost) -> list[Effect]:
        return self._problems.raise_(
            "TRAINER_LOST",
            "error",
            f"the trainer stopped: {got.error}; this node goes on exchanging and answering",
            "it is restarted by itself; if it keeps dying look at memory and at the log above",
        )
