"""Random scenarios by the calendar, each drawn from one seed: all that happens to honest banks, in short days."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

from p2pfed.core.events import CaughtUp, Event, FellBehind, ModelPromoted, StandingChanged
from p2pfed.core.gossip.cycles import Cycles
from p2pfed.sim.engine import Engine
from p2pfed.sim.history import DONE
from p2pfed.sim.host import Host
from p2pfed.sim.scenario import Scenario
from tests.sim.consortium import learner, population, scenario

DAY, ROUNDS, ROUND_SECONDS, FIRST = 600.0, 20, 18.0, 60.0
"""A day of the swarm has 600 s, and its cycle takes 360; the default has three times as many rounds."""
FALLEN = 0.011
"""AUPRC on the same validation rows by which what serves may be worse than the best that ever served there."""


def drawn(seed: int, most_banks: int = 20, most_days: int = 30) -> Scenario:
    """Scenario number `seed`."""
    rng = np.random.default_rng([2026, seed])
    nodes, days = int(rng.integers(5, most_banks + 1)), int(rng.integers(6, most_days + 1))
    end = FIRST + days * DAY
    names = [f"bank-{i + 1}" for i in range(nodes)]

    def some(most: int) -> list[str]:
        return [str(name) for name in rng.choice(names, int(rng.integers(1, most + 1)), replace=False)]

    def when(last: float) -> float:
        return round(float(rng.uniform(FIRST, end - last)), 1)

    faults: dict[str, Any] = defaultdict(list)
    for _ in range(rng.integers(0, 4)):
        start, side = when(2 * DAY), set(some(nodes - 1))
        length = float(rng.choice([20, 100, DAY, 2 * DAY])) * float(rng.uniform(0.5, 1))
        groups = [sorted(side), sorted(set(names) - side)]
        faults["partitions"].append({"groups": groups, "start": start, "end": round(start + length, 1)})
    for _ in range(rng.integers(0, 4)):
        start, who = when(2 * DAY), some(2)
        step = float(rng.choice([-7200, -100, -30, 30, 100, 7200]))
        steps = [{"nodes": who, "at": start, "seconds": step}]
        steps.append({"nodes": who, "at": round(start + rng.uniform(5, DAY), 1), "seconds": -step})
        faults["clock_steps"] += steps
    for _ in range(rng.integers(0, 3)):
        start = when(2 * DAY)
        at = round(float(rng.uniform(start + 1, end - DAY)), 1)
        faults["restores"].append({"nodes": some(1), "backup": start, "at": at})
    for _ in range(rng.integers(0, 3)):
        faults["refusals"].append({"nodes": some(2), "cycle": int(rng.integers(1, days))})
    for _ in range(rng.integers(0, 3)):
        start = when(2 * DAY)
        faults["outages"].append({"nodes": some(2), "start": start, "end": round(start + rng.uniform(5, 7 * DAY), 1)})
    if rng.random() < 0.5:
        faults["stragglers"].append({"nodes": int(rng.integers(1, 3)), "slower": float(rng.choice([5, 12, 25, 45]))})
    if rng.random() < 0.3:
        faults["joiners"].append({"nodes": 1, "at": when(3 * DAY)})
    if rng.random() < 0.3:
        faults["dial_out"] = int(rng.integers(1, 3))
    return scenario(
        nodes=nodes,
        seed=seed,
        calendar={"every_seconds": int(DAY), "rounds": ROUNDS, "round_seconds": ROUND_SECONDS, "cycles": days + 1},
        training={"local_steps": 3, "batch": 32, "learning_rate": 0.03},
        gossip={"heartbeat_seconds": 10.0, "topology": str(rng.choice(["random:6", "full"]))},
        network={"loss": float(rng.choice([0, 0.01, 0.05]))},
        churn={"share": 1.0, "mean_up": 7 * DAY, "mean_down": float(rng.choice([15, 100, 500]))},
        **faults,
    )


class Swarm(Engine):
    """A scenario that notes what must not happen."""

    def __init__(self, s: Scenario) -> None:
        people = population(s)
        super().__init__(people, s, learner(people), transcript=True)
        self.wrong: list[str] = []
        """What went wrong, one line each."""
        self._behind: dict[int, float] = {}
        """How long each node that is behind has been so although it could not have been."""
        self._best: dict[int, float] = {}
        self._looked = 0.0

    def outcome(self) -> list[str]:
        """Run it; returns what went wrong."""
        history = self.run()
        if history.ended != DONE:
            self.wrong.append(history.ended)
        return self.wrong

    def emitted(self, time: float, host: Host, event: Event) -> None:
        """See `Watcher`."""
        super().emitted(time, host, event)
        self._count(time)
        if isinstance(event, StandingChanged) and event.after == "quarantined":
            subject = next(h.name for h in self._hosts if h.id == event.member)
            self.wrong.append(f"{time:.0f}s {host.name} quarantines {subject}: {event.reason} {event.numbers}")
        elif isinstance(event, FellBehind):
            self._behind.setdefault(host.index, 0.0)
        elif isinstance(event, CaughtUp):
            self._behind.pop(host.index, None)
        elif isinstance(event, ModelPromoted):
            self._served(time, host, event)

    def happened(self, time: float, what: str, host: Host | None = None) -> None:
        """See `Watcher`."""
        super().happened(time, what, host)
        self._count(time)
        if host is not None and ("killed" in what or "backup" in what):
            self._behind.pop(host.index, None)
        if host is not None and "backup" in what:
            self._best.pop(host.index, None)

    def _served(self, time: float, host: Host, event: ModelPromoted) -> None:
        auprc = event.metrics["validation"]["auprc"]
        best = self._best.get(host.index, 0.0)
        if auprc < best - FALLEN:
            self.wrong.append(f"{time:.0f}s {host.name} serves {auprc:.4f} after {best:.4f}")
        self._best[host.index] = max(best, auprc)

    def _count(self, time: float) -> None:
        """Add the time since the last look to those who are behind though they could be with the others."""
        since, self._looked = time - self._looked, time
        for node in list(self._behind):
            if not self._could_be_in_step(self._hosts[node]):
                self._behind[node] = 0.0
                continue
            self._behind[node] += since
            if self._behind[node] > DAY:
                self.wrong.append(f"{time:.0f}s {self._hosts[node].name} has been behind for a day")
                del self._behind[node]

    def _could_be_in_step(self, host: Host) -> bool:
        if host.node is None or host.node.rounds.finished or host.stepped or time_off(host) or too_slow(host):
            return False
        up = [h for h in self._hosts if h.node is not None and not h.stepped]
        reachable = [h for h in up if h is not host and not self._network.apart(h.index, host.index)]
        return 2 * (len(reachable) + 1) >= len(self._hosts)


def too_slow(host: Host) -> bool:
    """Whether a node has been told that it cannot keep the rounds: it listens."""
    rounds = host.node.rounds if host.node is not None else None
    return isinstance(rounds, Cycles) and rounds.too_slow


def time_off(host: Host) -> bool:
    """Whether a node knows that its clock is wrong, or takes it for wrong still."""
    return host.node is not None and host.node.rounds.clock_off
