"""How a node that was away comes back: it is silent, takes the median of the others once, or merges until it is near.

The declared exceptions to trusting only one's own model, and the steps that no clip bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from statistics import median

from p2pfed.core.aggregation import coordinate_median
from p2pfed.core.consortium import Manifest
from p2pfed.core.effects import Effect, StartEvaluation
from p2pfed.core.events import Metrics
from p2pfed.core.gossip.champion import TOLERANCE, worse
from p2pfed.core.inbox import Slot
from p2pfed.core.inputs import EvaluationFinished
from p2pfed.core.membership import PeerTable
from p2pfed.core.reputation.yardstick import Yardstick
from p2pfed.core.types import NodeId, PeerState
from p2pfed.core.updates import NEAR_ROUNDS, Updates
from p2pfed.core.weights import Vector

ENOUGH = 3
"""Members whose newer statements show that it is this node that was away; fewer where fewer are there."""
MOST_SOURCES, FEWEST_SOURCES = 15, 2
"""Models that the median is taken of besides the own one. With one it would be their mean: two banks never adopt."""
NEAR_SPREADS = 2.0
"""Times as far from the middle of the others' models as they usually are, an own model is still one of them."""
FAR_SPREADS = 6.0
"""Times as far, and it is not: from four times on others begin to hold the distance against it.

The lower, the sooner groups that were apart meet; but with 3 and 4 a bank with other customers is quarantined, and with
5 taken for one that was apart (scripts/bench_year.py, seed 2), and of fourteen scenarios of tests/sim/swarm.py that are
hard 7 go wrong with 8, 4 with 5 and 3 with 6.
"""
FEW = 3
"""Of so many others one and its copy are most."""
MANY = 3
"""If more than one in so many members are lost at once, they may train together elsewhere.

Were more of them required, attackers could feign it less easily; but where only more than half of the others count, two
of four hard large scenarios of tests/sim/swarm.py go wrong.
"""
SILENT_ROUNDS = 6
"""Who says nothing newer for so many rounds has published nothing: heartbeats take some rounds to come round."""
PROVING_ROUNDS = 4
"""After so many rounds a bank that is near only before it trains is taken for one that differs: it publishes again."""
OWN, MEDIAN = "catch_up:own", "catch_up:median"


class Stage(Enum):
    """How far catching up has come."""

    WITH_THE_OTHERS = "with the others"
    BEHIND = "behind"
    MEASURING = "measuring"  # own model and median on own validation rows
    PROVING = "proving"  # near the others; silent until what it trains is near them as well


class CatchUp:
    """Whether this node is behind, and what it does about it."""

    def __init__(self, manifest: Manifest, peers: PeerTable, updates: Updates, yardstick: Yardstick) -> None:
        self._calendar, self._kind = manifest.calendar, manifest.model.kind
        self._peers, self._updates, self._yardstick = peers, updates, yardstick
        self.stage = Stage.WITH_THE_OTHERS
        self.tried_in: int | None = None
        """The cycle in which a median was measured last: once in each."""
        self.sources: tuple[NodeId, ...] = ()
        self.reference = 0
        """The round of the sources' models."""
        self._median: Vector | None = None
        self._trainer = 0
        """The cycle whose trainer measures it."""
        self._own_metrics: Metrics | None = None
        self._lost_since: int | None = None
        self._reached_since: int | None = None
        """The rounds in which most members were lost, and in which they were there again."""

    @property
    def behind(self) -> bool:
        """Whether this node publishes nothing and judges nobody."""
        return self.stage is not Stage.WITH_THE_OTHERS

    def left_behind(self, merged: int, number: int) -> bool:
        """Whether the others are ahead of `merged`, the newest round that this node took models of, in round `number`.

        Statements of rounds that have not come yet are somebody's wrong clock, or a lie.
        """
        return self.lost_most(number) or self._ahead(merged, number, self._updates.merges)

    def outdated(self, number: int) -> bool:
        """Whether enough members say that they have published newer models than those that `trusted` found."""
        return self._ahead(self.reference, number, self._updates.trusts)

    def _ahead(self, than: int, number: int, whom: Callable[[NodeId], bool]) -> bool:
        ahead = sum(than + NEAR_ROUNDS < self._number(m) <= number + 1 for m in self._peers.members if whom(m))
        return ahead >= self._enough(number)

    def _enough(self, number: int) -> int:
        """So many members must agree; fewer where fewer that are trusted are there and have published lately.

        Who published earlier only, and is behind itself, must not make others follow models as old as its own.
        """
        return max(1, min(ENOUGH, self._publishing(number) or len(self._there)))

    @property
    def _there(self) -> list[NodeId]:
        """The trusted members that can be reached."""
        alive = (m for m in self._peers.members if self._peers.state(m) is PeerState.ALIVE)
        return [m for m in alive if self._updates.trusts(m)]

    def _publishing(self, number: int) -> int:
        """How many of them have published lately."""
        return sum(number - SILENT_ROUNDS - NEAR_ROUNDS < self._number(m) <= number + 1 for m in self._there)

    def _number(self, member: NodeId) -> int:
        """The round of the newest update that `member` says it has published; of what is here if it had no such one."""
        if self._updates.had_nothing(member):
            return self._updates.age(member) or 0
        heartbeat = self._peers.heartbeat(member)
        return self._calendar.number(heartbeat.cycle, heartbeat.round) if heartbeat and heartbeat.seq else 0

    def lost_most(self, number: int) -> bool:
        """Whether more than half of the members have been lost for more than two rounds.

        Until they are back this node is silent, for of two parts of a consortium only the larger one goes on together.
        Of two halves neither has lost more than half: both do.
        """
        if not self._few_there:
            self._lost_since = None
            if self._reached_since is None or self._reached_since > number:
                self._reached_since = number
            return False
        self._reached_since = None
        self._lost_since = number if self._lost_since is None else min(self._lost_since, number)
        return number - self._lost_since > NEAR_ROUNDS

    @property
    def _few_there(self) -> bool:
        # who fails with nearly everybody takes nobody for failed
        return self._peers.cut_off or 2 * len(self._lost) > len(self._peers) + 1

    @property
    def _lost(self) -> list[NodeId]:
        return [m for m in self._peers.members if self._peers.state(m) in (PeerState.SUSPECT, PeerState.FAILED)]

    def apart(self, number: int) -> list[NodeId]:
        """Who is lost, if that is more than a third of the consortium: they may be together somewhere else.

        Not who still hands over models that it has just trained.
        """
        lost = [m for m in self._lost if (self._updates.age(m) or 0) < number - NEAR_ROUNDS]
        return lost if len(lost) > (len(self._peers) + 1) / MANY else []

    def collect(self, number: int, now: float) -> list[Effect]:
        """Ask those who published lately for their models."""
        newest = sorted(self._peers.members, key=lambda m: (-self._number(m), m))
        return self._updates.collect([m for m in newest if 0 < self._number(m) <= number + 1], now)

    def trusted(self, number: int) -> list[Slot]:
        """The newest models here of members that are trusted, all of about one round; none where too few are.

        That round is the one that enough of them have reached: a single one could name any.
        """
        slots = [s for s in self._updates.trusted() if self._updates.number(s) <= number + 1]
        numbers = sorted((self._updates.number(s) for s in slots), reverse=True)
        needed = self._enough(number)
        if len(numbers) < needed:
            return []
        self.reference = numbers[needed - 1]
        return [s for s in slots if abs(self._updates.number(s) - self.reference) <= NEAR_ROUNDS][:MOST_SOURCES]

    def approached(self, number: int) -> list[Slot]:
        """The models that this node moves to while it is behind: it trains nothing, which would take it away from them.

        None of two banks, nor while most members are lost: then it trains, by itself.
        """
        if self.stage is not Stage.BEHIND or self._few_there or len(self._peers) < FEWEST_SOURCES:
            return []
        return self.trusted(number)

    def far_from(self, own: Vector, number: int) -> list[Slot]:
        """The models that this node moves to although it is not behind: they agree, and `own` is far from them.

        Of two groups that trained apart the smaller one so joins the larger one, and two halves meet. Clipped merges
        take many rounds for that, in which each would take the other for one that poisons. Copies of one model agree
        however near all are: so far it is by what half of the others are apart as well, or where they are few by what
        training moves it. As for the evidence of reputation, most of those who publish must be honest.
        """
        if self.stage not in (Stage.WITH_THE_OTHERS, Stage.PROVING) or self._few_there:
            return []
        slots = self.trusted(number)
        if len(slots) < FEWEST_SOURCES or self.outdated(number) or number - self.reference > NEAR_ROUNDS + 1:
            return []
        return slots if self.far(own, slots) else []

    def far(self, own: Vector, slots: Sequence[Slot]) -> bool:
        """Whether `own` is far from the models in `slots`, of two or more members, which agree."""
        mine, theirs = self._from_the_middle(own, [s.update.vector for s in slots])
        tolerated = self._yardstick.fine[0]
        if len(theirs) > FEW:
            tolerated = min(tolerated, FAR_SPREADS * theirs[len(theirs) // 2])
        return mine > max(tolerated, FAR_SPREADS * _near_ones(theirs))

    def _from_the_middle(self, own: Vector, vectors: Sequence[Vector]) -> tuple[float, list[float]]:
        """How far `own` is from the coordinate median of the others' `vectors`, and these are, nearest first."""
        mine, *theirs = self._yardstick.distances(coordinate_median(vectors), [own, *vectors])
        return mine, sorted(theirs)

    def near(self, own: Vector, slots: Sequence[Slot]) -> bool:
        """Whether `own` is hardly farther from the middle of the models in `slots` than these are.

        Not only by what training moved this node: that was when it trained last, and models move less as they converge.
        """
        if len(self._peers) < FEWEST_SOURCES:
            return True  # of two banks neither is the one that others agree with, and neither quarantines the other
        mine, theirs = self._from_the_middle(own, [s.update.vector for s in slots])
        trained, tolerated = self._yardstick.training.moved is not None, self._yardstick.fine[0]
        if len(slots) < FEWEST_SOURCES:
            return trained and mine <= tolerated / 2
        return mine <= NEAR_SPREADS * _near_ones(theirs) and (mine <= tolerated or not trained)

    def proven(self, trained: Vector, number: int) -> bool:
        """Whether a model that was just `trained` is as far from the others' as peers tolerate, by half."""
        if not (slots := self.trusted(number)) or self.outdated(number):
            return False
        mine, _ = self._from_the_middle(trained, [s.update.vector for s in slots])
        return mine <= self._yardstick.fine[0] / 2

    def nobody(self, number: int) -> bool:
        """Whether no member that is trusted says that it has published lately: there is nobody to be behind of.

        Only after they could be heard for some rounds, or once a cycle has begun since they could.
        """
        if self._reached_since is None or self._publishing(number):
            return False
        begun = self._calendar.place(self._reached_since)[0] < self._calendar.place(number)[0]
        return begun or number - self._reached_since >= SILENT_ROUNDS

    def measure(self, own: Vector, slots: Sequence[Slot], trainer: int, cycle: int) -> list[Effect]:
        """Measure the median of `own` and the models in `slots`, if they agree; otherwise nothing.

        Once in a `cycle`, by the trainer of the cycle `trainer`.
        """
        self.tried_in, self._trainer = cycle, trainer
        vectors = [s.update.vector for s in slots]
        if len(vectors) < FEWEST_SOURCES or len(self._peers) < FEWEST_SOURCES or not self._agree(own, vectors):
            return []
        self.stage, self._own_metrics = Stage.MEASURING, None
        self.sources = tuple(s.update.statement.sender for s in slots)
        self._median = coordinate_median([own, *vectors])
        return self.again(own, trainer)

    def again(self, own: Vector, trainer: int) -> list[Effect]:
        """What `measure` asked for, once more: the trainer was lost."""
        if self.stage is not Stage.MEASURING or self._median is None:
            return []
        return [StartEvaluation(OWN, own, trainer), StartEvaluation(MEDIAN, self._median, trainer)]

    def _agree(self, own: Vector, vectors: Sequence[Vector]) -> bool:
        """Whether the models are no farther from their middle than members usually are from this node."""
        if self._yardstick.training.moved is None:
            return True  # nothing is known of what is usual: who joins has never trained
        middle = coordinate_median(vectors)
        spread = [self._yardstick.distances(own, [v - middle + own])[0] for v in vectors]
        return median(spread) <= self._yardstick.fine[0]

    def trainer_closed(self, cycle: int) -> None:
        """The trainers of `cycle` and before have ended: what they were to measure is not known."""
        if self.stage is Stage.MEASURING and self._trainer <= cycle:
            self.stage, self.tried_in = Stage.BEHIND, None

    def measured(self, done: EvaluationFinished) -> Vector | None:
        """After both measurements: the median, if it is not worse than the own model; None otherwise, or not yet."""
        if self.stage is not Stage.MEASURING:
            return None
        metrics = done.metrics.get("validation", {})
        if done.purpose == OWN:
            self._own_metrics = metrics
            return None
        self.stage = Stage.BEHIND
        found, self._median = self._median, None
        if self._own_metrics is None or worse(self._kind, metrics, self._own_metrics, TOLERANCE):
            return None
        return found


def _near_ones(distances: Sequence[float]) -> float:
    """The largest of the nearest third of two or more `distances` in order, of few the second: it tells what is usual.

    Some of the others may have been away themselves.
    """
    return distances[max(1, (len(distances) - 1) // 3)]
