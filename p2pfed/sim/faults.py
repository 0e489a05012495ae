"""What goes wrong in a scenario: who is down, cut off, or has a wrong clock. Times are seconds of virtual time."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from p2pfed.config import Section
from p2pfed.sim.sections import LONGEST, Seconds, Selection


class OutageSection(Section):
    """Nodes that are killed, and later restart from their saved state."""

    nodes: Selection
    """Their names, or how many are drawn."""
    start: Seconds
    """When they are killed."""
    end: Seconds
    """When they start again."""

    @model_validator(mode="after")
    def _in_order(self) -> OutageSection:
        return _ordered(self)


class ChurnSection(Section):
    """Nodes that are killed and restarted again and again; times up and down are exponentially distributed."""

    share: float = Field(gt=0, le=1)
    """Share of the nodes that come and go."""
    mean_up: float = Field(ge=0.01, le=LONGEST)
    """Seconds from a start to the next kill, on average."""
    mean_down: float = Field(ge=0.01, le=LONGEST)
    """Seconds from a kill to the next start, on average."""


class JoinersSection(Section):
    """Members that start late."""

    nodes: Selection
    """Their names, or how many are drawn."""
    at: Seconds
    """When they start."""


class LeaversSection(Section):
    """Members that say good-bye and do not come back."""

    nodes: Selection
    """Their names, or how many are drawn; none of the joiners."""
    at: Seconds
    """When they leave."""


class PartitionSection(Section):
    """Groups that cannot talk to each other for a while; who is in no group talks to all."""

    groups: tuple[Selection, ...] = Field(min_length=2)
    """Names, or how many nodes are drawn for each group."""
    start: Seconds
    """When they lose each other."""
    end: Seconds
    """When they can talk again."""

    @model_validator(mode="after")
    def _in_order(self) -> PartitionSection:
        return _ordered(self)


class ClockSkewSection(Section):
    """How wrong the nodes' clocks are: drawn for each uniformly from minus to plus these."""

    offset_seconds: Seconds = 0.0
    """How far a clock is off at the start."""
    drift: float = Field(default=0.0, ge=0, le=0.5)
    """By how many seconds a second it goes wrong."""


class ClockStepsSection(Section):
    """Clocks that are set while their nodes run."""

    nodes: Selection
    """Their names, or how many are drawn."""
    at: Seconds
    """When they are set."""
    seconds: float = Field(ge=-LONGEST, le=LONGEST)
    """By how much: below 0 is back."""


class RestoresSection(Section):
    """Nodes whose disk is put back to a backup, and that start again from it at once."""

    nodes: Selection
    """Their names, or how many are drawn."""
    backup: Seconds
    """When the backup was made."""
    at: Seconds
    """When it is put back."""

    @model_validator(mode="after")
    def _in_order(self) -> RestoresSection:
        if self.at <= self.backup:
            raise ValueError(f"at is {self.at:g}, not after backup, {self.backup:g}")
        return self


class RefusalsSection(Section):
    """Banks whose payments of a cycle look wrong, so that they train on none of them."""

    nodes: Selection
    """Their names, or how many are drawn."""
    cycle: int = Field(ge=0)
    """Of the calendar, from 0."""


def _ordered(section: Any) -> Any:
    if section.end <= section.start:
        raise ValueError(f"end is {section.end:g}, not after start, {section.start:g}")
    return section
