"""Free running: rounds that follow each other as fast as training goes, for experiments of a bounded number of them.

A *round* is H local steps, publishing the trained model, and one merge of what others published. Nobody is waited for.
Banks train by the calendar instead: see `core.gossip.cycles`.
"""

from __future__ import annotations

from typing import Any

from p2pfed.core.adoption import Adoption, Stage
from p2pfed.core.consortium import Manifest
from p2pfed.core.effects import (
    CloseTrainer,
    Effect,
    Emit,
    KeepModel,
    KeptModel,
    OpenTrainer,
    Save,
    SetTimer,
    StartEvaluation,
    StartTraining,
)
from p2pfed.core.events import Listening, ModelAdopted, ModelEvaluated, RoundCompleted, RunFinished, TrainingAlone
from p2pfed.core.gossip.own import OwnModel
from p2pfed.core.inbox import SLOT_EXPIRY
from p2pfed.core.inputs import (
    EvaluationFinished,
    ReadingRefused,
    RefreshAsked,
    TrainerLost,
    TrainerReady,
    TrainingFinished,
)
from p2pfed.core.phase import Phase
from p2pfed.core.weights import Vector

CATCH_UP_SECONDS = 5.0
"""How long a node that was away waits for pulls before it trains on."""
PULL_AT = 0.7
"""Share of a round's usual time after which others' updates are pulled: late, so that they are fresh when merged, and
early enough to arrive. Models one round old cost a point or two of AUPRC."""
CLOSING_QUIET, CLOSING_SECONDS = 3, 0.2
"""A node that has done its rounds merges on until so many pulls brought nothing new; least time between two."""
RETRY_SECONDS = 10.0
"""Pause after a round that diverged."""


class Rounds(OwnModel):
    """A node that begins a round when the one before is over."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.adoption = Adoption(self.manifest.initial.vector, len(self._peers), decided=self.remembers)
        self._trainer_ready = self._announced = self._accepting = False
        self._absent = self.remembers
        self._round_started = self._round_completed = float("-inf")
        self._quiet_pulls = self._closing_merges = 0
        self._evaluating: dict[str, tuple[int, Vector]] = {}

    @property
    def listener(self) -> bool:
        """See `OwnModel`."""
        return self.manifest.model.kind == "mlp" and self.train_frauds < self.manifest.gossip.publish_min_frauds

    @property
    def catching_up(self) -> bool:
        """See `OwnModel`."""
        return self.phase in (Phase.CATCHING_UP, Phase.MEETING)

    def started(self, now: float, wall: float) -> list[Effect]:
        """Read the rows, and give a late joiner's decision its deadline."""
        effects: list[Effect] = [OpenTrainer(0)]
        if self.adoption.stage is Stage.MEETING:
            effects.append(SetTimer("adoption", now + self.manifest.gossip.adoption_seconds))
        return effects

    def beaten(self, now: float, wall: float) -> list[Effect]:
        """See `OwnModel`: these rounds follow no clock."""
        return []

    def met(self, now: float, wall: float) -> list[Effect]:
        """See `OwnModel`."""
        return self.adopt(now)

    def expect(self, coming: Manifest | None) -> None:
        """See `OwnModel`: what is coming waits for a restart."""

    def switch(self, manifest: Manifest, now: float, wall: float) -> tuple[OwnModel, list[Effect]]:
        """See `OwnModel`: there is no cycle from which a change could hold."""
        return self, []

    def refresh_asked(self, got: RefreshAsked, now: float, wall: float) -> list[Effect]:
        """See `OwnModel`: rows are read once, and once more where they were refused."""
        if "READING_REFUSED" not in self._problems:
            return []
        self._accepting |= got.accept  # asked twice, it was still said
        return [CloseTrainer(0), OpenTrainer(0, self._accepting)]

    def reading_refused(self, got: ReadingRefused) -> list[Effect]:
        """See `OwnModel`: there is no cycle that reads them anew."""
        return self._problems.raise_(
            "READING_REFUSED",
            "error",
            f"the payments look wrong, so this bank does not train on them: {got.why}",
            "mend the source, then `p2pfed data refresh` reads it anew; if the payments are right, as after labels "
            "were corrected, `p2pfed data refresh --accept` takes them",
        )

    def timer_fired(self, name: str, now: float, wall: float) -> list[Effect]:
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

    def pulls_ended(self, now: float, wall: float) -> list[Effect]:
        """Go on where only pulls were waited for; a round never waits for them."""
        if not self._updates.idle:
            return []
        if self.phase is Phase.CATCHING_UP:
            return self._caught_up(now)
        if self.phase is Phase.MEETING and self.adoption.stage is Stage.COLLECTING:
            return self._judge_adoption(now)
        return []

    def trainer_ready(self, got: TrainerReady, now: float, wall: float) -> list[Effect]:
        """The bank's rows are loaded: begin, or go on after a trainer was lost."""
        self.train_rows, self.train_frauds = got.train_rows, got.train_frauds
        restarted, self._trainer_ready, self._accepting = self._trainer_ready, True, False
        self._hand_over = bool(self.optimiser)
        self._evaluating.clear()  # whatever was asked of the trainer before is lost
        effects = self._problems.clear("TRAINER_LOST") + self._problems.clear("DATA_UNREADABLE")
        effects += self._problems.clear("READING_REFUSED") + self._look_with(got.probe)
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
            effects = self._warn_alone(effects)
        self.phase, self._absent, self._round_started = Phase.TRAINING, False, now
        optimiser = self.optimiser if self._hand_over else b""
        self._hand_over = False
        effects.append(StartTraining(self.round + 1, self.vector, optimiser))
        if self._usual_seconds == 0:
            return [*effects, *self._updates.pull(now)]
        return [*effects, SetTimer("pull", now + PULL_AT * self._usual_seconds)]

    def training_finished(self, done: TrainingFinished, now: float, wall: float) -> list[Effect]:
        """Publish the trained model, merge what others published, begin the next round."""
        if self.phase is not Phase.TRAINING or done.round != self.round + 1:
            return []
        if not self._finite(done):
            self._round_started = now
            return [*self._diverged(done.round), SetTimer("round", now + RETRY_SECONDS)]
        self._note_duration(now - self._round_started)
        begun = self.vector
        self.merging.note_training(begun, done.vector)
        self.round = self.merged = done.round
        self.vector, self.optimiser = done.vector, done.optimiser
        if self._absent:
            return self._catch_up(now)
        update = None if self.listener or self.mute else self._seal_update()
        merge = self.merging.end_round(begun, self.vector, self.train_rows)
        self.vector = merge.vector
        effects: list[Effect] = [self._save(), *merge.effects]
        effects += self._problems.clear("TRAINING_DIVERGED")
        if update is not None:
            effects += self._announce(update, now)
        seconds = now - max(self._round_started, self._round_completed)
        self._round_completed = now
        completed = RoundCompleted(
            self.round, self.seq, done.loss, done.steps, seconds, done.seconds, merge.sources, merge.displacement
        )
        effects.append(Emit(completed))
        if self.round % self._settings.evaluate_every == 0 and not self._done:
            effects.append(self._evaluate())
        return [*effects, *self._begin_round(now)]

    def _merge_only(self) -> list[Effect]:
        """Merge what arrived outside a round."""
        merge = self.merging.outside_rounds(self.vector, self.train_rows)
        self.vector = merge.vector
        if not any(isinstance(effect, Emit) for effect in merge.effects):
            return merge.effects
        reputation = self._reputation
        return [Save(peers=reputation.changed_records(), scales=reputation.yardstick.scales), *merge.effects]

    def _evaluate(self) -> StartEvaluation:
        purpose = f"round:{self.round}"
        self._evaluating[purpose] = (self.round, self.vector)
        return StartEvaluation(purpose, self.vector)

    def evaluation_finished(self, done: EvaluationFinished, now: float, wall: float) -> list[Effect]:
        """Keep the measured model for scoring; the last one ends the run."""
        if done.purpose.startswith("adoption:"):
            return self._adoption_judged(done, now)
        found = self._evaluating.pop(done.purpose, None)
        if found is None:
            return []
        number, vector = found
        kept = KeepModel(KeptModel(number, vector, done.threshold, done.metrics, wall))
        self._threshold = done.threshold
        effects: list[Effect] = [kept, Emit(ModelEvaluated(number, done.metrics, done.threshold))]
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

    def trainer_lost(self, got: TrainerLost, now: float) -> list[Effect]:
        """The node goes on without training until TrainerReady comes again."""
        if self.phase in (Phase.TRAINING, Phase.PAUSED, Phase.CATCHING_UP):
            self.phase = Phase.LOADING
        return self._trainer_gone(got)
