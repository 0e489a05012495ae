"""Who is up when: starts, kills with restart from the saved state, good-byes, partitions; and what each clock shows."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from p2pfed.core.inputs import ManifestChanged
from p2pfed.sim.faults import ChurnSection, ClockSkewSection
from p2pfed.sim.host import Clock
from p2pfed.sim.network import Partition
from p2pfed.sim.population import Roles
from p2pfed.sim.scenario import Scenario


@dataclass(frozen=True, slots=True)
class Start:
    """The node's machine comes up."""


@dataclass(frozen=True, slots=True)
class Kill:
    """`kill -9`; it comes up again at `until` (virtual seconds), or when its churn says so."""

    until: float | None = None


@dataclass(frozen=True, slots=True)
class Leave:
    """The operator stops the node for good."""


@dataclass(frozen=True, slots=True)
class Step:
    """Somebody sets the machine's clock, by so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class BackUp:
    """The node's disk is copied."""


@dataclass(frozen=True, slots=True)
class Restore:
    """The newest copy takes the place of the node's disk, and the node starts from it at once."""


Happening = Start | Kill | Leave | Step | BackUp | Restore | Partition | ManifestChanged


def timetable(scenario: Scenario, roles: Roles) -> list[tuple[float, int, Happening]]:
    """All that a scenario fixes beforehand: virtual seconds, node (0 for partitions), and what happens to it."""
    fixed: list[tuple[float, int, Happening]] = [
        (roles.joiners.get(node, 0.0), node, Start()) for node in range(scenario.nodes)
    ]
    for outage, chosen in zip(scenario.outages, roles.outages, strict=True):
        fixed += [(outage.start, node, Kill(outage.end)) for node in chosen]
    fixed += [(time, node, Leave()) for node, time in roles.leavers.items()]
    for step, chosen in zip(scenario.clock_steps, roles.clock_steps, strict=True):
        fixed += [(step.at, node, Step(step.seconds)) for node in chosen]
    for restore, chosen in zip(scenario.restores, roles.restores, strict=True):
        fixed += [(restore.backup, node, BackUp()) for node in chosen]
        fixed += [(restore.at, node, Restore()) for node in chosen]
    for section, groups in zip(scenario.partitions, roles.partitions, strict=True):
        sides = {node: side for side, group in enumerate(groups) for node in group}
        partition = Partition(tuple(sides.get(node, -1) for node in range(scenario.nodes)))
        fixed += [(section.start, 0, partition), (section.end, 0, partition)]
    return fixed


class Churn:
    """Times up and down of the nodes that come and go, exponentially distributed."""

    def __init__(self, section: ChurnSection | None, nodes: Collection[int], rng: np.random.Generator) -> None:
        self._section, self._nodes, self._rng = section, nodes, rng

    def seconds_up(self, node: int) -> float | None:
        """How long a node that has just come up stays; None if it never goes."""
        return self._rng.exponential(self._section.mean_up) if self._section and node in self._nodes else None

    def seconds_down(self) -> float:
        """How long a node that has just gone stays away."""
        assert self._section is not None
        return self._rng.exponential(self._section.mean_down)


def clocks(section: ClockSkewSection, nodes: int, issued: float, rng: np.random.Generator) -> list[Clock]:
    """Every node's clock; all show a time after `issued`, when the manifest was."""
    offsets = rng.uniform(-section.offset_seconds, section.offset_seconds, nodes)
    rates = 1.0 + rng.uniform(-section.drift, section.drift, nodes)
    begin = issued + section.offset_seconds
    return [Clock(begin + float(offset), float(rate)) for offset, rate in zip(offsets, rates, strict=True)]
