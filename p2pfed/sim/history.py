"""What a simulation tells: every round of every node, how far apart the models are, and how it ended."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from p2pfed.core.events import Metrics, RoundCompleted, UpdateAccepted
from p2pfed.core.types import NodeId
from p2pfed.core.weights import Vector
from p2pfed.results import NodeHistory, Quarantine, Quarantines, RunFile
from p2pfed.sim.host import Host

CHUNK = 256
"""Models that are stacked at once."""
DONE = "every node that was up had done its rounds"
STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a simulation is."""

    virtual_seconds: float
    fewest_rounds: int
    mean_rounds: float
    rounds: int
    """Each node's, in all."""
    nodes_up: int
    auprc: float | None
    """Mean over the nodes of what each was last measured at, on the pooled test rows."""
    share_done: float
    """Of the work, from 0 to 1: rounds, and what follows them."""


@dataclass(frozen=True, slots=True)
class Point:
    """One round of one node (its number in the manifest); `auprc` is the pooled test's."""

    time: float
    """Virtual seconds at which the round ended."""
    node: int
    round: int
    loss: float
    auprc: float | None
    bytes_in: int
    """Of accepted updates."""
    seconds: float
    """On the node's clock, since the round before ended."""
    displacement: float
    """How far the merge moved the model."""
    merged: int
    """Models of others in it."""


@dataclass(frozen=True, slots=True)
class Spread:
    """The models side by side of the honest nodes that are up and have completed a round."""

    time: float
    round: int
    """Half of those that were up had completed it; in the last row, at the end, the furthest that any node came."""
    consensus_distance: float
    """Root mean squared distance of the models to their mean."""
    mean_auprc: float | None
    """After that round, of the nodes that were measured."""
    worst_auprc: float | None


@dataclass(frozen=True, slots=True)
class Standing:
    """`observer` changed its mind about `subject`."""

    time: float
    observer: int
    subject: int
    what: str
    exchange: int
    """How many of the subject's models it had judged by then."""
    round: int
    """The observer's, from 1."""
    since_attack: int = 0
    """How many of the models it had judged by then came since the subject's attack began; 0 before, and of others."""


def quarantines(told: Iterable[Standing], names: Sequence[str], attackers: Container[int]) -> Iterator[Quarantine]:
    """What honest observers told, as the run file has it; `names` of all nodes."""
    each: dict[int, Quarantines] = {}
    for standing in told:
        if standing.observer not in attackers:
            observer = each.setdefault(standing.observer, Quarantines(names[standing.observer]))
            observer.changed(names[standing.subject], standing.what, standing.round, standing.exchange)
    for _, observer in sorted(each.items()):
        yield from observer.told()


@dataclass(frozen=True)
class History:
    """A whole simulation."""

    run: RunFile
    points: list[Point]
    """Node after node, round after round."""
    spread: list[Spread]
    pulls: dict[tuple[int, int], int]
    """How many updates the first node got of the second."""
    standing: list[Standing]
    since_attack: dict[tuple[int, int], int]
    """How many models of the second node, an attacker, the first has judged since that one's attack began."""
    transcript: list[str]
    """Readable lines, if they were asked for."""
    digest: str
    """SHA-256 (hex) over every node's model, round, sequence number and newest statement."""
    inputs_handled: int
    virtual_seconds: float
    ended: str
    """Why: `DONE`, `STOPPED`, or in a sentence what went wrong."""


class Recorder:
    """Gathers what nodes emit."""

    def __init__(self, ids: dict[NodeId, int], names: Sequence[str]) -> None:
        """`ids` are the numbers of the nodes, by their ids."""
        self._ids = ids
        self._nodes = [NodeHistory(name) for name in names]
        self._moves: list[dict[int, tuple[float, float, int]]] = [{} for _ in names]
        self._pulls: Counter[int] = Counter()
        self.rounds = [0] * len(names)
        """Completed rounds of each node."""
        self.auprc: list[float | None] = [None] * len(names)
        """What each was last measured at on the pooled test rows."""
        self.measured: list[dict[str, Metrics] | None] = [None] * len(names)
        """Each node's newest metrics."""

    def accepted(self, node: int, event: UpdateAccepted) -> None:
        """A node got another's update."""
        self._nodes[node].accepted(event.bytes)
        self._pulls[node * len(self._nodes) + self._ids[event.member]] += 1

    def completed(self, time: float, node: int, event: RoundCompleted) -> None:
        """A node completed a round at `time` (virtual seconds)."""
        self._nodes[node].completed(event.round, event.loss, event.seconds)
        self._moves[node][event.round] = (time, event.displacement, len(event.merged))
        self.rounds[node] = event.round

    def evaluated(self, node: int, round_number: int, metrics: dict[str, Metrics]) -> None:
        """A node was measured after a round."""
        self.auprc[node] = metrics.get("test", {}).get("auprc")
        self.measured[node] = metrics
        self._nodes[node].evaluated(round_number, self.auprc[node])

    def points(self) -> list[Point]:
        """Every round so far."""
        found = []
        for node, (history, moves) in enumerate(zip(self._nodes, self._moves, strict=True)):
            for p in history.points():
                time, displacement, merged = moves[p.round]
                assert p.loss is not None
                point = Point(time, node, p.round, p.loss, p.auprc, p.bytes, p.seconds, displacement, merged)
                found.append(point)
        return found

    def run_points(self) -> list[Any]:
        """The same for the run file."""
        return [point for history in self._nodes for point in history.points()]

    def pulls(self) -> dict[tuple[int, int], int]:
        """How many updates each node got of each other."""
        return {divmod(pair, len(self._nodes)): count for pair, count in self._pulls.items()}


class Encounters:
    """How many models of each attacker every node has judged since the attack began, not since the two met.

    An attack begins with the first accepted update of the campaign's first round or later; honest rounds after that
    count like poisoned ones. A node that merges on the arrival of that very update, as one that was away does when it
    catches up, does not count it.
    """

    def __init__(self, starts: Mapping[int, int]) -> None:
        """`starts` are the attackers' first poisoned rounds."""
        self._starts = starts
        self._before: dict[tuple[int, int], int] = {}
        """Judged when the first update of the attack came, which no merge had seen."""

    def accepted(self, observer: int, subject: int, round_number: int, judged: int) -> None:
        """`observer` got the model of the subject's round; `judged` are those that it had judged before."""
        if subject in self._starts and round_number >= self._starts[subject]:
            self._before.setdefault((observer, subject), judged)

    def since(self, observer: int, subject: int, judged: int) -> int:
        """How many of all `judged` models came since the attack began."""
        return max(judged - self._before.get((observer, subject), judged), 0)  # a crash forgets the newest

    def all(self, judged: Callable[[int, int], int]) -> dict[tuple[int, int], int]:
        """The same for every pair that an attack has begun for; `judged` tells of a pair how many it has had in all."""
        return {pair: self.since(*pair, judged(*pair)) for pair in sorted(self._before)}


@dataclass
class SpreadLog:
    """Measures how far apart the honest models are, once half of those up have completed a round of the schedule."""

    honest: frozenset[int]
    period: int
    taken: list[tuple[float, int, float]] = field(default_factory=list)
    """Virtual seconds, round, consensus distance."""
    _completed: Counter[int] = field(default_factory=Counter)

    def completed(self, node: int, round_number: int, up: int) -> bool:
        """Note that a node has completed a round; whether to `take` the distance now. `up` counts honest nodes."""
        if round_number % self.period or node not in self.honest:
            return False
        self._completed[round_number] += 1
        return 2 * self._completed[round_number] >= up and all(round_number > r for _, r, _ in self.taken)

    def take(self, time: float, round_number: int, vectors: Iterable[Vector]) -> None:
        """Measure the honest models."""
        self.taken.append((time, round_number, consensus_distance(list(vectors))))

    def rows(self, points: Sequence[Point]) -> list[Spread]:
        """The measurements, with what the nodes reached in those rounds."""
        reached: dict[int, list[float]] = {}
        for point in points:
            if point.auprc is not None and point.node in self.honest:
                reached.setdefault(point.round, []).append(point.auprc)
        return [
            Spread(
                time,
                number,
                distance,
                math.fsum(reached[number]) / len(reached[number]) if number in reached else None,
                min(reached[number], default=None) if number in reached else None,
            )
            for time, number, distance in self.taken
        ]


def consensus_distance(vectors: Sequence[Vector]) -> float:
    """Root mean squared Euclidean distance of models float32 [d] to their mean; 0 without models."""
    if not vectors:
        return 0.0
    mean = sum(np.sum(chunk, axis=0, dtype=np.float64) for chunk in _chunks(vectors)) / len(vectors)
    total = sum(float(np.square(chunk - mean).sum()) for chunk in _chunks(vectors))
    return math.sqrt(total / len(vectors))


def _chunks(vectors: Sequence[Vector]) -> Iterable[np.ndarray[Any, np.dtype[np.float32]]]:
    return (np.stack(vectors[i : i + CHUNK]) for i in range(0, len(vectors), CHUNK))


def digest(hosts: Iterable[Host]) -> str:
    """SHA-256 (hex) over every node's model, round, sequence number and newest statement."""
    state = hashlib.sha256()
    for host in hosts:
        if (kept := host.kept) is not None:
            state.update(kept.vector.tobytes() + f"{host.id} {kept.round} {kept.seq} {kept.statement_digest}".encode())
    return state.hexdigest()
