"""The learning cycle of one node: adopt or restore a model, then train, publish, merge and measure, round after round.

A *round* is H local steps, publishing the trained model, and one merge of what others published. Nobody is waited for.
"""

from __future__ import annotations

from enum import Enum

import numpy as np

from p2pfed.core.adoption import Adoption, Stage
from p2pfed.core.consortium import Manifest
from p2pfed.core.effects import (
    Checkpoint,
    Effect,
    Emit,
    KeepModel,
    Publish,
    Save,
    SetTimer,
    StartEvaluation,
    StartTraining,
)
from p2pfed.core.events import Listening, ModelAdopted, ModelEvaluated, RoundCompleted, RunFinished, TrainingAlone
from p2pfed.core.identity import Signer, node_id
from p2pfed.core.inbox import SLOT_EXPIRY
from p2pfed.core.inputs import EvaluationFinished, TrainerLost, TrainerReady, TrainingFinished
from p2pfed.core.membership import PeerTable
from p2pfed.core.merging import Merging
from p2pfed.core.messages import ModelUpdate
from p2pfed.core.problems import Problems
from p2pfed.core.reputation import Reputation
from p2pfed.core.settings import Memory, NodeSettings
from p2pfed.core.updates import Updates
from p2pfed.core.weights import Vector
from p2pfed.core.wire import seal_update

CATCH_UP_SECONDS = 5.0
"""How long a node that was away waits for pulls before it trains on."""
PULL_AT = 0.7
"""Share of a round's usual time after which others' updates are pulled: late, so that they are fresh when merged, and
early enough to arrive. Models one round old cost a point or two of AUPRC."""
CLOSING_QUIET, CLOSING_SECONDS = 3, 0.2
"""A node that has done its rounds merges on until so many pulls brought nothing new; least time between two."""
RETRY_SECONDS = 10.0
"""Pause after a round that diverged."""


class Phase(Enum):
    """What the node is waiting for."""

    LOADING = "loading"  # the trainer is not ready
    MEETING = "meeting"  # a late joiner looks for a model to adopt
    CATCHING_UP = "catching_up"  # merging before publishing, after an absence
    PAUSED = "paused"  # the round interval is not over
    TRAINING = "training"
    CLOSING = "closing"  # the configured rounds are done; merging what slower members still publish
    FINISHED = "finished"  # the configured rounds are done
    STOPPED = "stopped"


class Rounds:
    """Model, round and sequence number of one node, and what it is waiting for."""

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
        self._trainer_ready = self._absent = self._hand_over = self._announced = False
        self._round_started = self._round_completed = float("-inf")
        self._quiet_pulls = self._closing_merges = 0
        self._usual_seconds = 0.0
        """How long training takes from StartTraining to TrainingFinished; 0 before the first."""
        self._evaluating: dict[str, tuple[int, Vector]] = {}
        self._restore(memory.checkpoint)

    def _restore(self, checkpoint: Checkpoint | None) -> None:
        initial = self.manifest.initial.vector
        same_model = checkpoint is not None and checkpoint.model == self.manifest.model_digest
        self.adoption = Adoption(initial, len(self._peers), decided=same_model)
        self.round, self.seq, self.statement_digest = 0, 0, ""
        self.vector, self.optimiser, self.frame = initial, b"", b""
        self.threshold: float | None = None
        if checkpoint is None:
            return
        # whatever is trained now, a sequence number stays used
        self.seq, self.statement_digest = checkpoint.seq, checkpoint.statement_digest
        if not same_model:
            return
        self.round, self.vector, self.optimiser = checkpoint.round, checkpoint.vector, checkpoint.optimiser
        self.frame, self.threshold = checkpoint.published, checkpoint.threshold
        self.merging.rule.restore(checkpoint.aggregation)
        self._absent = self._hand_over = True

    @property
    def listener(self) -> bool:
        """Whether this bank has too few frauds to publish. An autoencoder learns from legitimate rows: it never has."""
        return self.manifest.model.kind == "mlp" and self.train_frauds < self.manifest.gossip.publish_min_frauds

    def started(self, now: float) -> list[Effect]:
        """Publish what was published before, and give a late joiner's decision its deadline."""
        effects: list[Effect] = [Publish(self._me, self.seq, self.frame)] if self.frame else []
        if self.adoption.stage is Stage.MEETING:
            effects.append(SetTimer("adoption", now + self.manifest.gossip.adoption_seconds))
        return effects

    def timer_fired(self, name: str, now: float) -> list[Effect]:
        """`pull`: training is nearly done; `round`: the interval is over; `close`: what slower members published
        may be here; `catch_up` and `adoption`: enough waited.
        """
        if name == "pull":
            return self._updates.pull(now) if self.phase is Phase.TRAINING else []
        if name == "close":
            return self._close(now) if self.phase is Phase.CLOSING else []
        if name == "round":
            return self._begin_round(now) if self.phase is Phase.PAUSED else []
        if name == "catch_up":
            return self._caught_up(now) if self.phase is Phase.CATCHING_UP else []
        if name == "adoption":
            return self.adopt(now, waited=True)
        raise ValueError(f"no timer is called {name!r}")

    def note_absence(self) -> None:
        """This node was stopped or asleep: it merges before it publishes again."""
        self._absent = True

    def pulls_ended(self, now: float) -> list[Effect]:
        """Go on where only pulls were waited for; a round never waits for them."""
        if not self._updates.idle:
            return []
        if self.phase is Phase.CATCHING_UP:
            return self._caught_up(now)
        if self.phase is Phase.MEETING and self.adoption.stage is Stage.COLLECTING:
            return self._judge_adoption(now)
        return []

    def trainer_ready(self, got: TrainerReady, now: float) -> list[Effect]:
        """The bank's rows are loaded: begin, or go on after a trainer was lost."""
        self.train_rows, self.train_frauds = got.train_rows, got.train_frauds
        if got.probe is not None:
            self._reputation.yardstick.probe = got.probe
        restarted, self._trainer_ready = self._trainer_ready, True
        self._hand_over = bool(self.optimiser)
        self._evaluating.clear()  # whatever was asked of the trainer before is lost
        effects = self._problems.clear("TRAINER_LOST")
        if self.listener and not restarted:
            effects.append(Emit(Listening(self.train_frauds, self.manifest.gossip.publish_min_frauds)))
        if self.phase is Phase.FINISHED:
            return effects if self._announced else [*effects, self._evaluate()]
        if self.adoption.stage is Stage.JUDGING:  # a model of others may be what the trainer died of: not again
            self.adoption.stage = Stage.DECIDED
        if self.phase is Phase.TRAINING or (restarted and self.phase is Phase.LOADING):
            return [*effects, *self._begin_round(now)]
        if self.adoption.stage is Stage.DECIDED:
            return [*effects, *self._catch_up(now)]
        self.phase = Phase.MEETING
        return [*effects, *self.adopt(now)]

    def adopt(self, now: float, waited: bool = False) -> list[Effect]:
        """Go on with the late joiner's decision, if the node is at it."""
        if self.phase is not Phase.MEETING:
            return []
        stage = self.adoption.stage
        if stage is Stage.COLLECTING and waited:
            return self._judge_adoption(now)
        if stage is not Stage.MEETING:
            return []
        if self.adoption.can_collect(self._peers):
            self.adoption.stage = Stage.COLLECTING
            deadline = SetTimer("adoption", now + 2 * CATCH_UP_SECONDS)
            return [deadline, *self._updates.collect(self.adoption.mature(self._peers), now)]
        if waited or self.adoption.met_enough(self._peers):
            self.adoption.stage = Stage.DECIDED
            return self._begin_round(now)
        return []

    def _judge_adoption(self, now: float) -> list[Effect]:
        effects = self.adoption.judge(self._updates.slots())
        return effects or self._begin_round(now)

    def _catch_up(self, now: float) -> list[Effect]:
        """After an absence: pull first, merge, and only then train and publish."""
        if not self._absent:
            return self._begin_round(now)
        pulls = self._updates.pull(now)
        if self._updates.idle:
            return self._begin_round(now)
        self.phase = Phase.CATCHING_UP
        return [*pulls, SetTimer("catch_up", now + CATCH_UP_SECONDS)]

    def _caught_up(self, now: float) -> list[Effect]:
        effects = self._merge_only()
        self.merging.rest()
        return [*effects, *self._begin_round(now)]

    def _begin_round(self, now: float) -> list[Effect]:
        if self._done:
            self.phase = Phase.CLOSING
            return self._pull_to_close(now)
        due = self._round_started + self.manifest.gossip.round_interval_seconds
        if now < due:
            self.phase = Phase.PAUSED
            return [SetTimer("round", due)]
        if not self._trainer_ready:
            self.phase = Phase.LOADING
            return []
        effects: list[Effect] = []
        if self._peers.alone and len(self._peers):
            if "ALONE" not in self._problems:
                effects.append(Emit(TrainingAlone(self.round)))
            effects += self._problems.raise_(
                "ALONE",
                "warning",
                "no other member has been met; this node trains on its own rows only",
                "check peers.seeds, the manifest's endpoints and the firewall",
            )
        self.phase, self._absent, self._round_started = Phase.TRAINING, False, now
        optimiser = self.optimiser if self._hand_over else b""
        self._hand_over = False
        effects.append(StartTraining(self.round + 1, self.vector, optimiser))
        if self._usual_seconds == 0:
            return [*effects, *self._updates.pull(now)]
        return [*effects, SetTimer("pull", now + PULL_AT * self._usual_seconds)]

    def training_finished(self, done: TrainingFinished, now: float) -> list[Effect]:
        """Publish the trained model, merge what others published, begin the next round."""
        if self.phase is not Phase.TRAINING or done.round != self.round + 1:
            return []
        if not (np.isfinite(done.loss) and np.isfinite(done.vector).all()):
            return self._diverged(now)
        took = now - self._round_started
        # falls at once and rises slowly: after one slow round, as the first is, pulls must not come too late for many
        self._usual_seconds = min(took, 0.5 * (self._usual_seconds + took)) if self._usual_seconds else took
        begun = self.vector
        self.merging.note_training(begun, done.vector)
        self.round, self.vector, self.optimiser = done.round, done.vector, done.optimiser
        if self._absent:
            return self._catch_up(now)
        update = None if self.listener else self._seal_update()
        merge = self.merging.end_round(begun, self.vector, self.train_rows)
        self.vector = merge.vector
        effects: list[Effect] = [self._save(), *merge.effects]
        effects += self._problems.clear("TRAINING_DIVERGED")
        if update is not None:
            effects.append(Publish(self._me, self.seq, update.frame))
            if not self._settings.endpoints:
                effects += self._updates.push(update.frame, now)
        seconds = now - max(self._round_started, self._round_completed)
        self._round_completed = now
        completed = RoundCompleted(
            self.round, self.seq, done.loss, done.steps, seconds, done.seconds, merge.members, merge.displacement
        )
        effects.append(Emit(completed))
        if self.round % self._settings.evaluate_every == 0 and not self._done:
            effects.append(self._evaluate())
        return [*effects, *self._begin_round(now)]

    def _diverged(self, now: float) -> list[Effect]:
        self.optimiser, self._hand_over = b"", False
        self.phase, self._round_started = Phase.PAUSED, now
        problem = self._problems.raise_(
            "TRAINING_DIVERGED",
            "error",
            f"round {self.round + 1} ended in NaN or infinity; it is tried again",
            "lower the learning rate in the manifest, and look for extreme values in the data",
        )
        return [*problem, SetTimer("round", now + RETRY_SECONDS)]

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
        return update

    def _merge_only(self) -> list[Effect]:
        """Merge what arrived outside a round."""
        merge = self.merging.outside_rounds(self.vector, self.train_rows)
        self.vector = merge.vector
        if not any(isinstance(effect, Emit) for effect in merge.effects):
            return merge.effects
        reputation = self._reputation
        return [Save(peers=reputation.changed_records(), scales=reputation.yardstick.scales), *merge.effects]

    def _save(self) -> Save:
        reputation = self._reputation
        marks = self._updates.inbox.risen_marks()
        return Save(self._checkpoint(), marks, peers=reputation.changed_records(), scales=reputation.yardstick.scales)

    def _checkpoint(self) -> Checkpoint:
        return Checkpoint(
            round=self.round,
            seq=self.seq,
            statement_digest=self.statement_digest,
            vector=self.vector,
            optimiser=self.optimiser,
            aggregation=self.merging.rule.state(),
            published=self.frame,
            threshold=self.threshold,
            model=self.manifest.model_digest,
        )

    def _evaluate(self) -> StartEvaluation:
        purpose = f"round:{self.round}"
        self._evaluating[purpose] = (self.round, self.vector)
        return StartEvaluation(purpose, self.vector)

    def evaluation_finished(self, done: EvaluationFinished, now: float) -> list[Effect]:
        """Keep the measured model for scoring; the last one ends the run."""
        if done.purpose.startswith("adoption:"):
            return self._adoption_judged(done, now)
        found = self._evaluating.pop(done.purpose, None)
        if found is None:
            return []
        round_number, vector = found
        self.threshold = done.threshold
        effects: list[Effect] = [
            KeepModel(round_number, vector, done.threshold, done.metrics),
            Emit(ModelEvaluated(round_number, done.metrics, done.threshold)),
        ]
        if self.phase is Phase.FINISHED and not self._evaluating and not self._announced:
            self._announced = True
            effects += [self._save(), Emit(RunFinished(self.round))]
        return effects

    def _adoption_judged(self, done: EvaluationFinished, now: float) -> list[Effect]:
        adopted = self.adoption.judged(done)
        if self.adoption.stage is not Stage.DECIDED or self.phase is not Phase.MEETING:
            return []
        effects: list[Effect] = []
        if adopted is not None:
            self.vector, auprc = adopted
            effects = [Save(self._checkpoint()), Emit(ModelAdopted(len(self.adoption.sources), auprc))]
        return [*effects, *self._begin_round(now)]

    @property
    def _done(self) -> bool:
        return 0 < self._settings.rounds <= self.round

    def _pull_to_close(self, now: float) -> list[Effect]:
        wait = max(CLOSING_SECONDS, self._usual_seconds)
        return [*self._updates.pull(now), SetTimer("close", now + wait)]

    def _close(self, now: float) -> list[Effect]:
        """Merge without training while others still publish: who is done first must not end with the least learned.

        At most as many merges as a slot lasts: in a small consortium every member's last model is in the last of them.
        """
        effects: list[Effect] = []
        if self.merging.something_new:
            effects = self._merge_only()
            self._quiet_pulls, self._closing_merges = 0, self._closing_merges + 1
        else:
            self._quiet_pulls += 1
        if self._quiet_pulls < CLOSING_QUIET and self._closing_merges < SLOT_EXPIRY:
            return [*effects, *self._pull_to_close(now)]
        self.phase = Phase.FINISHED
        return [*effects, self._evaluate()]

    def trainer_lost(self, got: TrainerLost) -> list[Effect]:
        """The node goes on without training until TrainerReady comes again."""
        if self.phase in (Phase.TRAINING, Phase.PAUSED, Phase.CATCHING_UP):
            self.phase = Phase.LOADING
        return self._problems.raise_(
            "TRAINER_LOST",
            "error",
            f"the trainer stopped: {got.error}; this node goes on exchanging and answering",
            "it is restarted by itself; if it keeps dying look at memory and at the log above",
        )
