"""A scenario from its first virtual second to its last: who is there, what is recorded, when it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any, ClassVar

import numpy as np
from threadpoolctl import threadpool_limits

from p2pfed import __version__
from p2pfed.adversary.coalition import Coalition
from p2pfed.adversary.node import AttackingNode
from p2pfed.adversary.oracle import InformedNeighbours
from p2pfed.core.events import (
    Event,
    ModelEvaluated,
    ModelHeld,
    ModelPromoted,
    ProblemCleared,
    ProblemRaised,
    RoundCompleted,
    RunFinished,
    StandingChanged,
    UpdateAccepted,
)
from p2pfed.core.inputs import ManifestChanged
from p2pfed.core.node import GossipNode
from p2pfed.core.probe import Probe
from p2pfed.core.settings import Memory, NodeSettings
from p2pfed.core.succession import InForce
from p2pfed.core.weights import Vector
from p2pfed.errors import P2PFedError
from p2pfed.learning.learner import EvaluateJob, ManyLearner, ReadsAnew
from p2pfed.results import NodeRun, RunFile, versions
from p2pfed.sim.churn import Churn, clocks, timetable
from p2pfed.sim.durations import AFTER_ROUNDS, longest, usual_seconds
from p2pfed.sim.history import (
    DONE,
    STOPPED,
    Encounters,
    History,
    Progress,
    Recorder,
    Spread,
    SpreadLog,
    Standing,
    consensus_distance,
    digest,
    quarantines,
)
from p2pfed.sim.host import Host
from p2pfed.sim.interpreter import Interpreter
from p2pfed.sim.network import Link, Network, uniform
from p2pfed.sim.population import Population
from p2pfed.sim.process import few_collections, peak_rss
from p2pfed.sim.scenario import Scenario
from p2pfed.sim.training import Trainers, evaluate_each
from p2pfed.sim.transcript import line, sentence

NETWORK, DURATIONS, CHURN, CLOCKS, SAMPLE, NODE = range(6)
"""Streams of the scenario's seed."""


class Engine:
    """Runs one scenario, once."""

    def __init__(
        self,
        population: Population,
        scenario: Scenario,
        learner: ManyLearner,
        watch: Callable[[Progress], None] | None = None,
        *,
        transcript: bool = False,
    ) -> None:
        """`watch` is told the progress now and then; `transcript` asks for readable lines."""
        self._population, self._scenario, self._learner, self._watch = population, scenario, learner, watch
        self._hosts = self._machines()
        self._names = {host.id: host.name for host in self._hosts}
        self._numbers = {host.id: host.index for host in self._hosts}
        self._recorder = Recorder(self._numbers, scenario.names)
        self._standing: list[Standing] = []
        self._honest = [host for host in self._hosts if host.index not in population.roles.attackers]
        self._spread = SpreadLog(frozenset(h.index for h in self._honest), scenario.evaluation_period)
        coalitions = {id(section): Coalition() for section in population.roles.attackers.values()}
        self._attackers = {
            node: (section.campaign(), coalitions[id(section)]) for node, section in population.roles.attackers.items()
        }
        self._encounters = Encounters({node: campaign.start for node, (campaign, _) in self._attackers.items()})
        self._lines: list[str] | None = [] if transcript else None
        self._sample = self._drawn_sample()
        self._open = {host.index for host in self._hosts}
        """Nodes whose rounds are waited for."""
        self._problems: dict[int, dict[tuple[str, str], ProblemRaised]] = {}
        """Each node's open ones, by code and subject."""
        self._up = self._honest_up = 0
        self.computing = False
        """Whether a KeyboardInterrupt ends the run well."""
        self._ended = ""
        self._round_seconds = usual_seconds(population, scenario)
        self._limit = longest(scenario, population.roles, max(self._round_seconds))
        network = Network(scenario.nodes, *self._links(), self._stream(NETWORK))
        jitter, draw = scenario.compute.jitter, uniform(self._stream(DURATIONS)).__next__
        trainers = Trainers(learner, self._round_seconds, lambda: 1.0 + jitter * (2.0 * draw() - 1.0))
        churn = Churn(scenario.churn, population.roles.churning, self._stream(CHURN))
        self._network = network
        self._interpreter = Interpreter(
            self._hosts,
            self._make_node,
            population.manifest,
            network,
            trainers,
            churn,
            self,
            load_seconds=scenario.compute.load_seconds,
            read=self._read,
        )
        for at, node, happening in timetable(scenario, population.roles):
            self._interpreter.at(at, self._hosts[node], happening)
        if scenario.change is not None and population.successor is not None:
            for node in population.roles.change:
                self._interpreter.at(scenario.change.at, self._hosts[node], ManifestChanged(population.successor))

    # --- set-up -------------------------------------------------------------------------------------------------------

    def _stream(self, *key: int) -> np.random.Generator:
        return np.random.default_rng([self._scenario.seed, *key])

    def _machines(self) -> list[Host]:
        p, s = self._population, self._scenario
        shown = clocks(s.clock_skew, s.nodes, p.manifest.issued, self._stream(CLOCKS))
        refusals = list(zip(s.refusals, p.roles.refusals, strict=True))
        refused = [frozenset(r.cycle for r, chosen in refusals if i in chosen) for i in range(s.nodes)]
        return [
            Host(
                i,
                identity.node_id,
                name,
                identity,
                shown[i],
                p.train_rows[i],
                p.train_frauds[i],
                p.probes[i],
                refused[i],
            )
            for i, (identity, name) in enumerate(zip(p.identities, s.names, strict=True))
        ]

    def _drawn_sample(self) -> frozenset[int]:
        """The nodes that are measured during the run."""
        nodes, most = self._scenario.nodes, self._scenario.evaluate.sample
        chosen = self._stream(SAMPLE).choice(nodes, most, replace=False) if nodes > most else range(nodes)
        return frozenset(int(node) for node in chosen)

    def _links(self) -> tuple[Link, dict[tuple[int, int], Link]]:
        n = self._scenario.network
        usual = Link(n.delay_seconds, n.jitter, n.loss, n.megabits)
        number = {name: i for i, name in enumerate(self._scenario.names)}
        links = {}
        for link in n.links:
            one, other = sorted(number[name] for name in link.between)
            delay = n.delay_seconds if link.delay_seconds is None else link.delay_seconds
            loss = n.loss if link.loss is None else link.loss
            links[one, other] = Link(delay, n.jitter, loss, n.megabits if link.megabits is None else link.megabits)
        return usual, links

    def _make_node(self, host: Host, memory: Memory, force: InForce) -> GossipNode:
        s, manifest = self._scenario, force.manifest
        settings = NodeSettings(
            rounds=s.rounds,
            # the last model is always measured
            evaluate_every=s.evaluation_period if host.index in self._sample else s.rounds + 1,
            endpoints=manifest.members[host.index].endpoints,
            software=__version__,
            judging=self._population.judging,
        )
        rng = self._stream(NODE, host.index, host.starts)
        if host.index not in self._attackers:
            node = GossipNode(host.identity, manifest, settings, memory, rng, force)
            if isinstance(oracle := node.rounds.merging.rule, InformedNeighbours):
                oracle.known = frozenset(self._hosts[i].id for i in self._attackers)
            return node
        return AttackingNode(host.identity, manifest, settings, memory, rng, *self._attackers[host.index], force)

    def _read(self, host: Host, cycle: int) -> None:
        read = self._population.reading(host.index, cycle)
        if read is None:
            return
        rows, bank = read
        assert isinstance(self._learner, ReadsAnew)
        self._learner.read(host.index, bank)
        host.train_rows, host.train_frauds = len(rows.train), rows.train.frauds
        host.probe = Probe.of(rows)

    # --- running ------------------------------------------------------------------------------------------------------

    def run(self) -> History:
        """Go on to the end, or until `stop` or Ctrl-C; returns what there is, all nodes measured at the end only."""
        begin = time.monotonic()
        # small products only lose by being shared between threads, and are rounded by how they are shared
        with few_collections(), threadpool_limits(1, "blas"):
            try:
                self.computing = True
                self._interpreter.run()
                if not self._ended:
                    self._end(f"nothing more could happen: {self._unfinished()}")
                if self._ended != STOPPED:
                    self._measure_the_rest()
                self.computing = False
            except KeyboardInterrupt:
                self.computing = False
                self.stop()
            self.look(self._interpreter.now)
            return self._history(time.monotonic() - begin)

    def stop(self) -> None:
        """End as soon as possible."""
        self._end(STOPPED)

    def _end(self, why: str) -> None:
        self._ended = why
        self._interpreter.ended = True

    def look(self, time: float) -> None:
        """See `Watcher`."""
        if time > self._limit and not self._ended:
            self._end(f"given up after {time:.0f} virtual seconds: {self._unfinished()}")
        if self._watch is not None:
            rounds = self._recorder.rounds
            known = [auprc for auprc in self._recorder.auprc if auprc is not None]
            mean = sum(known) / len(known) if known else None
            mean_rounds = sum(rounds) / len(rounds)
            share = self._share_done(mean_rounds)
            self._watch(Progress(time, min(rounds), mean_rounds, self._scenario.rounds, self._up, mean, share))

    def _share_done(self, mean_rounds: float) -> float:
        finished = 1 - len(self._open) / len(self._hosts)
        return (mean_rounds + AFTER_ROUNDS * finished) / (self._scenario.rounds + AFTER_ROUNDS) if self._open else 1.0

    def emitted(self, time: float, host: Host, event: Event) -> None:
        """See `Watcher`."""
        if (take := self._TAKES.get(type(event))) is not None:
            take(self, time, host, event)
        if self._lines is not None and (said := sentence(event, self._names.__getitem__)):
            self._lines.append(line(time, f"{host.name} {said}"))

    def _update_accepted(self, time: float, host: Host, event: UpdateAccepted) -> None:
        self._recorder.accepted(host.index, event)
        if (number := self._numbers[event.member]) in self._attackers and host.node is not None:
            trained = host.node.updates.age(event.member) or 0
            self._encounters.accepted(host.index, number, trained, host.judged(event.member))

    def _round_completed(self, time: float, host: Host, event: RoundCompleted) -> None:
        self._recorder.completed(time, host.index, event)
        if self._spread.completed(host.index, event.round, self._honest_up):
            self._spread.take(time, event.round, self.honest_models())

    def _model_evaluated(self, time: float, host: Host, event: ModelEvaluated) -> None:
        self._recorder.evaluated(host.index, event.round, event.metrics)

    def _model_decided(self, time: float, host: Host, event: ModelPromoted | ModelHeld) -> None:
        self._recorder.evaluated(host.index, event.round, event.metrics)

    def _run_finished(self, time: float, host: Host, event: RunFinished) -> None:
        self._no_more_waiting(host)

    def _standing_changed(self, time: float, host: Host, event: StandingChanged) -> None:
        me, subject, judged = host.index, self._numbers[event.member], host.judged(event.member)
        since, number = self._encounters.since(me, subject, judged), self._recorder.rounds[me] + 1
        self._standing.append(Standing(time, me, subject, event.after, judged, number, since))

    def _problem_raised(self, time: float, host: Host, event: ProblemRaised) -> None:
        self._problems.setdefault(host.index, {})[event.code, event.subject] = event

    def _problem_cleared(self, time: float, host: Host, event: ProblemCleared) -> None:
        self._problems.get(host.index, {}).pop((event.code, event.subject), None)

    _TAKES: ClassVar[dict[type[Event], Callable[[Engine, float, Host, Any], None]]] = {
        UpdateAccepted: _update_accepted,
        RoundCompleted: _round_completed,
        ModelEvaluated: _model_evaluated,
        ModelPromoted: _model_decided,
        ModelHeld: _model_decided,
        RunFinished: _run_finished,
        StandingChanged: _standing_changed,
        ProblemRaised: _problem_raised,
        ProblemCleared: _problem_cleared,
    }

    def happened(self, time: float, what: str, host: Host | None = None) -> None:
        """See `Watcher`."""
        if host is not None and host.gone:
            self._no_more_waiting(host)
        if self._lines is not None:
            self._lines.append(line(time, f"{host.name} {what}" if host else what))

    def changed(self, host: Host) -> None:
        """See `Watcher`."""
        self._problems.pop(host.index, None)
        step = 1 if host.node is not None else -1
        self._up += step
        self._honest_up += step * (host.index not in self._population.roles.attackers)

    def _no_more_waiting(self, host: Host) -> None:
        self._open.discard(host.index)
        if not self._open:
            self._end(DONE)

    # --- the end ------------------------------------------------------------------------------------------------------

    def _unfinished(self) -> str:
        """Who has not done its rounds, and what they say of it."""
        said = f"{self._listed(self._open)} had not done their rounds"
        found: dict[tuple[str, str], list[int]] = {}
        for node in sorted(self._open):
            for problem in self._problems.get(node, {}).values():
                if problem.severity == "error":
                    found.setdefault((problem.code, problem.hint), []).append(node)
        return said + "".join(f"; {self._listed(of)}: {code}, {hint}" for (code, hint), of in found.items())

    def _listed(self, nodes: Collection[int]) -> str:
        everybody = self._scenario.names
        names = [everybody[node] for node in sorted(nodes)]
        return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

    def _measure_the_rest(self) -> None:
        """Measure every node that did not do so itself as its last deed; by the calendar what serves there."""
        free = self._scenario.calendar is None
        left = [
            (host, host.kept if free else host.disk.champion or host.kept)
            for host in self._hosts
            if not free or host.index in self._open or host.gone
        ]
        known = [(host, kept) for host, kept in left if kept is not None]
        jobs = [EvaluateJob(host.index, kept.vector) for host, kept in known]
        for (host, kept), result in zip(known, evaluate_each(self._learner, jobs), strict=True):
            if not isinstance(result, P2PFedError):
                self._recorder.evaluated(host.index, kept.round, result.metrics)

    def honest_models(self) -> list[Vector]:
        """Of those that learn together: who has left or is down, or has trained nothing yet, says nothing of that.

        While a change of the model comes to one after the other, those of the newest model.
        """
        done = self._recorder.rounds
        there = [h.node.rounds for h in self._honest if h.node is not None and done[h.index]]
        newest = max((rounds.manifest.generation for rounds in there), default=0)
        return [rounds.vector for rounds in there if rounds.manifest.generation == newest]

    def _last_spread(self, at: float) -> Spread:
        known = [self._recorder.auprc[host.index] for host in self._honest]
        reached = [auprc for auprc in known if auprc is not None]
        mean = sum(reached) / len(reached) if reached else None
        rounds = max(self._recorder.rounds)
        return Spread(at, rounds, consensus_distance(self.honest_models()), mean, min(reached, default=None))

    def _history(self, wall_seconds: float) -> History:
        points, end = self._recorder.points(), self._interpreter.now
        return History(
            run=RunFile(
                kind="simulate",
                seed=self._scenario.seed,
                rounds=self._scenario.rounds,
                wall_seconds=wall_seconds,
                versions=versions(),
                options=self._scenario.model_dump(mode="json"),
                nodes=tuple(self._node_run(host) for host in self._hosts),
                quarantines=tuple(quarantines(self._standing, self._scenario.names, self._attackers)),
                history=tuple(self._recorder.run_points()),
            ),
            points=points,
            spread=[*self._spread.rows(points), self._last_spread(end)],
            pulls=self._recorder.pulls(),
            standing=self._standing,
            since_attack=self._encounters.all(lambda who, whom: self._hosts[who].judged(self._hosts[whom].id)),
            transcript=self._lines or [],
            digest=digest(self._hosts),
            inputs_handled=self._interpreter.inputs,
            virtual_seconds=end,
            ended=self._ended,
        )

    def _node_run(self, host: Host) -> NodeRun:
        measured = self._recorder.measured[host.index] or {}
        return NodeRun(
            name=host.name,
            id=host.id,
            role="attacker" if host.index in self._population.roles.attackers else "honest",
            train_rows=host.train_rows,
            train_frauds=host.train_frauds,
            rounds=self._recorder.rounds[host.index],
            test=measured.get("test"),
            own_test=measured.get("own_test"),
            alone=None,
            bytes_sent=self._network.sent[host.index],
            bytes_received=self._network.received[host.index],
            peak_rss_bytes=peak_rss(),
        )
