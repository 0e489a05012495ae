"""Training by the calendar: rounds begin and end with the wall clock, cycles with a decision about what serves.

In a round a node trains from its merged model, publishes what it trained at once, asks for others' models late, and
merges at the round's end. Nobody is waited for: who is not done in time publishes late and skips a round. Without a
trainer, or silent, a node merges all the same: so it stays with the others.
"""

from __future__ import annotations

from typing import Any

from p2pfed.core.effects import CloseTrainer, Effect, Emit, SetTimer, StartEvaluation, StartTraining
from p2pfed.core.events import (
    CycleBegun,
    CycleEnded,
    Listening,
    ModelEvaluated,
    RoundCompleted,
    RunFinished,
    TrainingAlone,
)
from p2pfed.core.gossip.calendar import Moment
from p2pfed.core.gossip.catch_up import Stage
from p2pfed.core.gossip.switching import Switching
from p2pfed.core.inputs import (
    EvaluationFinished,
    ReadingFailed,
    ReadingRefused,
    RefreshAsked,
    TrainerLost,
    TrainerReady,
    TrainingFinished,
)
from p2pfed.core.phase import Phase
from p2pfed.core.weights import Vector

PULL_AT = 0.7
"""Share of a round after which others' models are asked for: by then those are trained that will be, and can arrive."""
KEEP_PUBLISHING = 3
"""Frauds that a bank which publishes needs at a cycle's beginning to go on; who does not, `publish_min_frauds`."""


class Cycles(Switching):
    """A node that trains when the calendar says so."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.phase = Phase.RESTING
        self._listening = self.health.listening if self.health.listening is not None else not self.frame
        self._due: dict[str, float] = {}
        self._done: TrainingFinished | None = None
        self._began_at = 0.0
        self._training = 0
        """The round that is being trained."""
        self._trained_from = self.vector
        """The model that its training began with."""
        self._measuring: dict[str, tuple[int, int, Vector]] = {}

    # --- what others ask ----------------------------------------------------------------------------------------------

    @property
    def listener(self) -> bool:
        """See `OwnModel`; decided at a cycle's beginning, and who is too slow for the rounds listens as well."""
        return (self.manifest.model.kind == "mlp" and self._listening) or self.too_slow

    @property
    def threshold(self) -> float | None:
        """Of what serves."""
        return self.gate.champion.threshold if self.gate.champion else None

    @property
    def finished(self) -> bool:
        """Whether the rounds are done that this node was asked for."""
        over = self.manifest.calendar.number(self.moment.cycle + self.moment.resting, 0)
        return 0 < self._settings.rounds <= over

    # --- the clock ----------------------------------------------------------------------------------------------------

    def started(self, now: float, wall: float) -> list[Effect]:
        """Look what time it is; the payments are read at once in a cycle, and where there is nothing to serve yet."""
        self.moment = self.manifest.calendar.at(wall)
        self.phase = Phase.RESTING if self.moment.resting else Phase.PAUSED
        self._forget_the_future()
        effects = [*self.health.started(self.moment, self.manifest.calendar), *self._watch_clock(now, wall)]
        if self.finished:
            self.phase = Phase.FINISHED
            effects.append(Emit(RunFinished(self.round)))
        elif not self.moment.resting:
            effects += self.readings.open(self.moment.cycle, now)
            effects += self._pull_later(now, wall)
        elif self._undecided(self.moment.cycle):
            effects += self.readings.open(self.moment.cycle, now)
            # what it asks for is asked once the trainer is ready
            self.gate.begin(self.moment.cycle, max(self.round, self.merged), self.vector, wall)
        elif self.moment.cycle >= 0 and self.gate.champion is None:
            effects += self.readings.open(self.moment.cycle + 1, now)
        return effects

    def _undecided(self, cycle: int) -> bool:
        """Whether this node trained in `cycle`, perhaps before it was killed, and what then serves is not decided."""
        return self.gate.decided < cycle == self.manifest.calendar.place(self.round)[0]

    def note_absence(self) -> None:
        """See `OwnModel`: the calendar tells how long it was."""

    def beaten(self, now: float, wall: float) -> list[Effect]:
        """Set the timers anew: the wall clock may have been set."""
        return self._watch_clock(now, wall)

    def _watch_clock(self, now: float, wall: float) -> list[Effect]:
        """The timers of the round's end and of the next reading."""
        calendar = self.manifest.calendar
        at = calendar.at(wall)
        here = (at.cycle, at.round) == (self.moment.cycle, self.moment.round)
        # a timer that is due a float's last bit too early must not be set for the same time again
        effects = self._timer("round", now + (max(at.ends - wall, 0.001) if here else 0.0))
        if not self.readings.opened(at.cycle + 1) and not self.finished:
            due = self.readings.due(at, calendar.begins(at.cycle + 1))
            effects += self._timer("reading", now + max(due - wall, 0.0))
        elif at.resting and self.catch_up.stage is not Stage.MEASURING and self.gate.deciding is None:
            early = self.readings.due(at, calendar.begins(at.cycle + 1)) - wall
            effects += self.readings.close(at.cycle + 1) if self.readings.idles(at.cycle + 1, early, now) else []
        return effects

    def _timer(self, name: str, at: float) -> list[Effect]:
        if abs(self._due.get(name, float("-inf")) - at) < 1e-3:
            return []
        self._due[name] = at
        return [SetTimer(name, at)]

    def _pull_later(self, now: float, wall: float) -> list[Effect]:
        late = self.moment.begins + PULL_AT * self.manifest.calendar.round_seconds
        return self._timer("pull", now + max(late - wall, 0.0))

    def timer_fired(self, name: str, now: float, wall: float) -> list[Effect]:
        """`round`: a round or a rest is over; `pull`: a round nearly is; `reading`: the next payments are due."""
        self._due.pop(name, None)
        if name == "round":
            return self._look(now, wall)
        if name == "pull":
            return [] if self.moment.resting or self.clock_off else self._updates.pull(now)
        if name == "reading":
            return self.readings.open(self.manifest.calendar.at(wall).cycle + 1, now)
        raise ValueError(f"no timer is called {name!r}")

    def _look(self, now: float, wall: float) -> list[Effect]:
        """Go on with what the clock says, if that is another round, or rest, than before."""
        before, at = self.moment, self.manifest.calendar.at(wall)
        if (at.cycle, at.round) == (before.cycle, before.round):
            return self._watch_clock(now, wall)
        self.moment = at
        effects: list[Effect] = []
        if at.number < before.number:
            self.phase = Phase.PAUSED
        self._forget_the_future()
        if not (self.clock_off or before.resting and at.resting):
            # first of all: who has trained by itself for long must not judge the others by that
            effects += self._look_behind(now)
            if at.number >= before.number and not before.resting:
                effects += self._end_round(before, now)
        if at.resting or at.cycle != before.cycle:
            effects += self._end_cycle(before, now, wall)
        if at.resting:
            self.phase = Phase.FINISHED if self.finished else Phase.RESTING
        elif not self.finished:
            effects += self._begin_round(before, now, wall)
        return [*effects, *self._watch_clock(now, wall)]

    def _forget_the_future(self) -> None:
        """Rounds that have not come yet are of a clock that was wrong: nobody knows how far this node's model is."""
        if max(self.round, self.merged) > self.moment.number:
            self.round = self.merged = 0

    # --- a round ------------------------------------------------------------------------------------------------------

    def _begin_round(self, before: Moment, now: float, wall: float) -> list[Effect]:
        at = self.moment
        effects: list[Effect] = []
        if at.cycle != before.cycle:
            effects += self._begin_cycle(now)
        effects += self._pull_later(now, wall)
        if self.phase is Phase.TRAINING:
            return effects  # slower than a round
        self.phase, self._begun, self._done = Phase.PAUSED, None, None
        if self._may_train(at):
            effects += self._train(now)
        return effects

    def _begin_cycle(self, now: float) -> list[Effect]:
        at, calendar = self.moment, self.manifest.calendar
        self.health.cycle_begun(at.cycle)
        self.gate.sources.clear()
        ends = calendar.begins(at.cycle) + calendar.length
        effects: list[Effect] = [Emit(CycleBegun(at.cycle, calendar.rounds, ends))]
        effects += self.readings.open(at.cycle, now)
        return effects + self._use_reading()

    def _may_train(self, at: Moment) -> bool:
        ready = self.readings.of(at.cycle) is not None and self.readings.refused != at.cycle
        begun = at.cycle >= self.manifest.from_cycle  # else the clock was set back to before the change
        if self.catch_up.stage is Stage.MEASURING or self.catch_up.approached(at.number):
            return False
        if self.too_slow and at.round > 1:  # in the first round of a cycle it may show that it is fast again
            return False
        return ready and begun and not self.clock_off and at.number not in self._trained

    def _train(self, now: float) -> list[Effect]:
        at = self.moment
        effects: list[Effect] = []
        if self._peers.alone and len(self._peers):
            if "ALONE" not in self._problems:
                effects.append(Emit(TrainingAlone(at.number)))
            effects = self._warn_alone(effects)
        self.phase, self._training, self._began_at = Phase.TRAINING, at.number, now
        self._trained_from = self.vector
        optimiser = self.optimiser if self._hand_over else b""
        self._hand_over = False
        return [*effects, StartTraining(at.number - self._generation_begun, self.vector, optimiser, at.cycle)]

    def training_finished(self, done: TrainingFinished, now: float, wall: float) -> list[Effect]:
        """Publish what was trained; it belongs to the round in which training began."""
        expected = self._training - self._generation_begun
        if self.phase is not Phase.TRAINING or done.round != expected:
            return []
        if not self._finite(done):
            return self._diverged(self._training)
        self._note_duration(now - self._began_at)
        self.phase, self._begun, self._done = Phase.PAUSED, self.vector, done
        self.merging.note_training(self._trained_from, done.vector)
        self.round, self.optimiser = self._training, done.optimiser
        if self.vector is self._trained_from:
            self.vector = done.vector
        else:  # slower than a round: what was merged meanwhile stays
            self.vector = self.vector + (done.vector - self._trained_from)
        self._trained.add(self.round)
        self.health.trained += 1
        silent = self.listener or self.mute or self.catch_up.behind or self.clock_off
        update = None if silent else self._seal_update()
        effects: list[Effect] = [self._save(), *self._problems.clear("TRAINING_DIVERGED"), *self._warn_slow()]
        if update is not None:
            effects += self._announce(update, now)
        return effects

    def _end_round(self, over: Moment, now: float) -> list[Effect]:
        """Merge what the round brought, also while training still goes on: who is slow stays with the others."""
        effects = self._proven()
        merge = self._merge(over.number)
        self.gate.sources.update(merge.members)
        if merge.members and self.catch_up.stage in (Stage.WITH_THE_OTHERS, Stage.PROVING):
            newest = max(self._updates.age(member) or 0 for member in merge.members)
            self.merged = max(self.merged, min(newest, over.number))
            effects += self._problems.clear("NO_SOURCES")
        problems = self.health.merged(len(merge.members), len(self._peers), self._reputation.quarantine)
        if merge.members or merge.effects:
            effects += [self._save(), *merge.effects]
        effects += problems
        done, self._done, self._begun = self._done, None, None
        if done is not None:
            seconds = now - self._began_at
            effects.append(
                Emit(
                    RoundCompleted(
                        self.round, self.seq, done.loss, done.steps, seconds, done.seconds, merge.sources,
                        merge.displacement,
                    )
                )
            )  # fmt: skip
            if self.round % self._settings.evaluate_every == 0 and over.round != self.manifest.calendar.rounds:
                effects.append(self._evaluate(over.number, over.cycle))
        return effects

    def _evaluate(self, number: int, cycle: int) -> Effect:
        """Measure the model of round `number` on the rows that were read for `cycle`."""
        purpose = f"round:{number}"
        self._measuring[purpose] = number, cycle, self.vector
        return StartEvaluation(purpose, self.vector, cycle)

    # --- a cycle's end ------------------------------------------------------------------------------------------------

    def _end_cycle(self, before: Moment, now: float, wall: float) -> list[Effect]:
        """Measure what it ended with; then its trainer is not needed any more."""
        if before.cycle < 0 or before.resting:
            return []
        calendar, slow = self.manifest.calendar, list[Effect]()
        if self.phase is Phase.TRAINING:  # too late: nobody is in that cycle any more
            self.phase = Phase.PAUSED
            self._note_duration(now - self._began_at)
            slow = self._warn_slow()
        ended = CycleEnded(before.cycle, self.health.trained, calendar.begins(before.cycle + 1))
        problems = self.health.cycle_ended(before.cycle, len(self._peers), wall)
        effects: list[Effect] = [self._save(), Emit(ended), *problems, *slow]
        if self._undecided(before.cycle) and self.readings.opened(before.cycle):
            asked = self.gate.begin(before.cycle, before.number, self.vector, wall)
            # a trainer that is not ready yet is asked once it is
            return effects if self.readings.of(before.cycle) is None else [*effects, *asked]
        return [*effects, *self._close(before.cycle)]

    def _close(self, cycle: int) -> list[Effect]:
        effects = self.readings.close(cycle)
        self.catch_up.trainer_closed(cycle)
        if self.finished:
            effects += [*self.readings.close(cycle + 1), self._save(), Emit(RunFinished(self.round))]
        return effects

    def evaluation_finished(self, done: EvaluationFinished, now: float, wall: float) -> list[Effect]:
        """A model of a round, of the cycle's end, or to be adopted was measured."""
        if done.purpose.startswith("catch_up:"):
            return self._measured_median(done, wall)
        if done.purpose.startswith("gate:"):
            cycle = self.gate.deciding
            effects = self.gate.measured(done, wall)
            if cycle is None or self.gate.deciding is not None:
                return effects
            return [*effects, *self.health.decided(effects), self._save(), *self._close(cycle)]
        found = self._measuring.pop(done.purpose, None)
        if found is None:
            return []
        number, cycle, vector = found
        told = Emit(ModelEvaluated(number, done.metrics, done.threshold))
        return [told, *self.gate.first(cycle, number, vector, done, wall)]

    # --- the trainer --------------------------------------------------------------------------------------------------

    def trainer_ready(self, got: TrainerReady, now: float, wall: float) -> list[Effect]:
        """The payments for a cycle are read."""
        known = self.readings.of(got.cycle) is not None
        if not self.readings.ready(got, now):
            return [CloseTrainer(got.cycle)]
        effects = self._problems.clear("TRAINER_LOST") + self._problems.clear("DATA_UNREADABLE")
        effects += self._problems.clear("READING_REFUSED") + self.health.served(got.served)
        effects += [self._save()] if got.served else []
        if not known:
            effects.append(self.readings.told(got, self.manifest.calendar, self._settings.rounds, wall))
        self._measuring = {}  # whatever was asked of the trainer before is lost
        if self.phase is Phase.TRAINING and got.cycle == self.moment.cycle:
            self.phase = Phase.PAUSED
        if self.gate.deciding == got.cycle:
            effects += self.gate.again()
        if got.cycle == self.moment.cycle or self.moment.resting:
            effects += self._use_reading(got.cycle)
        if self.readings.asked == got.cycle:
            self.readings.asked = None
            newest = max(self.round, self.merged)
            if self.moment.resting and newest and not self.readings.held(got.cycle):
                # else what is told of the model were of the old rows until the next cycle
                effects.append(self._evaluate(newest, got.cycle))
        if self.catch_up.stage is Stage.MEASURING and self.readings.of(got.cycle):
            effects += self.catch_up.again(self.vector, got.cycle)
        return effects + (self._rest_catch_up(now) if self.moment.resting else [])

    def _use_reading(self, cycle: int | None = None) -> list[Effect]:
        """Train and judge with the payments of a cycle, and decide whether this bank publishes in it."""
        got = self.readings.of(self.moment.cycle if cycle is None else cycle)
        if got is None:
            return []
        self.train_rows, self.train_frauds = got.train_rows, got.train_frauds
        effects = self._look_with(got.probe)
        self._hand_over = bool(self.optimiser)
        needed = self.manifest.gossip.publish_min_frauds
        before = self._listening
        self._listening = self.train_frauds < (needed if before else min(KEEP_PUBLISHING, needed))
        self.health.listening = self._listening
        if self._listening and self.manifest.model.kind == "mlp":
            effects.append(Emit(Listening(self.train_frauds, needed)))
        return effects

    def trainer_lost(self, got: TrainerLost, now: float) -> list[Effect]:
        """See `OwnModel`."""
        self.readings.lost(got.cycle, now)
        if self.phase is Phase.TRAINING and got.cycle == self.moment.cycle:
            self.phase = Phase.PAUSED
        return self._trainer_gone(got)

    def reading_failed(self, got: ReadingFailed, now: float) -> list[Effect]:
        """See `OwnModel`; how long the source was away is not how long reading takes."""
        self.readings.lost(got.cycle, now)
        return super().reading_failed(got, now)

    def reading_refused(self, got: ReadingRefused) -> list[Effect]:
        """See `OwnModel`."""
        self.readings.refused, self.readings.asked = got.cycle, None
        self.readings.forget(got.cycle)
        if self.gate.deciding == got.cycle:
            self.gate.drop()
        return super().reading_refused(got)

    def refresh_asked(self, got: RefreshAsked, now: float, wall: float) -> list[Effect]:
        """Read the payments of the cycle that is under way, or of the next one, anew."""
        cycle = self.moment.cycle + self.moment.resting
        if self.phase is Phase.TRAINING:
            self.phase = Phase.PAUSED
        if self.readings.refused == cycle:
            self.readings.refused = None
        self.readings.asked = cycle
        accept = got.accept or self.readings.accepting(cycle)  # asked twice, it was still said
        effects = [*self.readings.close(cycle), *self.readings.open(cycle, now, accept)]
        deciding = self.gate.deciding  # its trainer was closed as well, if it is of the cycle before
        return effects if deciding is None else [*effects, *self.readings.open(deciding, now)]
