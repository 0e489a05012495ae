"""The parts of a scenario but for what goes wrong. Times are seconds of virtual time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from p2pfed.adversary.attacks import Campaign, attack_from_name, campaign_from_name
from p2pfed.config import Section
from p2pfed.core.aggregation import rule_from_name
from p2pfed.core.gossip.calendar import Calendar, calendar_problems
from p2pfed.core.payload import Encoding
from p2pfed.errors import ConfigError

LONGEST = 1e9
"""Seconds, some thirty years."""
SLOWEST, FASTEST = 1e-6, 1e9
"""Megabits a second."""
STRONGEST = 1e9
"""Scale of an attack: float32 can still multiply weights by that."""


def _megabits(value: float) -> float:
    if value != 0 and not SLOWEST <= value <= FASTEST:
        raise ValueError(f"should be 0, for unlimited, or from {SLOWEST:g} to {FASTEST:g}, got {value:g}")
    return value


def _selection(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
        return tuple(value)
    raise ValueError("should be how many nodes, or a list of names such as [bank-1, bank-2]")


def _rule(name: str) -> str:
    try:
        rule_from_name(name)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    return name


def _attack(kind: str) -> str:
    try:
        attack_from_name(kind)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    return kind


Selection = Annotated[int | tuple[str, ...], BeforeValidator(_selection)]
"""So many nodes, drawn from the scenario's seed, or those of these names."""
Seconds = Annotated[float, Field(ge=0, le=LONGEST)]
Megabits = Annotated[float, AfterValidator(_megabits)]
Share = Annotated[float, Field(ge=0, lt=1)]


class PaymentsSection(Section):
    """The payments that all banks have together, and what of them is held out."""

    file: Path | None = None
    """CSV or Parquet file of payments; relative paths start at the scenario. `null` generates some."""
    rows: int = Field(default=0, ge=0, le=10**9)
    """Payments to generate, all banks together; 0 is 25,000 a bank. Nothing for a `file`."""
    unusual: bool = False
    """Of generated payments: five of eleven banks or more differ, by frauds, amounts, size or season."""
    label: str = "is_fraud"
    """The file's fraud column; 0/1, true/false or yes/no."""
    drop: tuple[str, ...] = ()
    """The file's columns that are no features: identifiers, and whatever gives the label away."""
    time: str | None = None
    """The file's payment-time column: orders a `time` split, and is no feature."""
    split: Literal["stratified", "time"] | None = None
    """`null` is `time` where there is a payment time, as generated payments have, else `stratified`."""
    test_share: float = Field(default=0.3, gt=0, lt=0.9)
    """Share of all rows held out as the pooled test; of a `time` split, the newest."""
    gap_days: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Days left out before the pooled test of a `time` split."""
    own_test_share: float = Field(default=0.1, ge=0, lt=0.8)
    """Share of its own rows on which a bank measures itself."""
    test_rows: int = Field(default=0, ge=0)
    """The pooled test is cut to so many rows, drawn within each class; 0 keeps all. Every evaluation reads them."""

    @model_validator(mode="after")
    def _fits_source(self) -> PaymentsSection:
        fields = type(self).model_fields
        of_files = [name for name in ("label", "drop", "time") if getattr(self, name) != fields[name].default]
        if self.file is None and of_files:
            raise ValueError(f"{of_files[0]} is for a file: generated payments have columns of their own")
        if self.file is not None and self.rows:
            raise ValueError("rows counts generated payments; a file is read whole")
        if self.file is not None and self.unusual:
            raise ValueError("unusual is for generated payments; a file has the banks that it has")
        if self.split == "time" and self.file is not None and self.time is None:
            raise ValueError("split: time needs time, the column that orders the payments")
        return self


class OddSection(Section):
    """One deliberately odd, small and honest bank: what a reputation must not mistake for an attacker."""

    bank: str
    """Its name."""
    rows: int = Field(ge=20)
    """How many of the rows it was dealt it keeps, its frauds first (a quarter of the rows at most)."""
    shift: float = Field(default=2.0, allow_inf_nan=False)
    """Its legitimate rows are moved by so many deviations a numeric feature, along one fixed random direction."""


class ModelSection(Section):
    """The model that everybody trains."""

    kind: Literal["mlp", "autoencoder"] = "mlp"
    """The MLP learns from labels, the autoencoder what legitimate payments look like."""
    hidden: tuple[Annotated[int, Field(ge=1, le=100_000)], ...] = Field(default=(), max_length=32)
    """Sizes of the hidden layers; empty takes 64-32 (MLP) or 16-8-4-8-16 (autoencoder)."""
    dropout: Share = 0.2
    """Share of hidden units dropped while training; 0 is none."""


class TrainingSection(Section):
    """How everybody trains between two merges."""

    local_steps: int = Field(default=30, ge=0, le=10**6)
    """Optimiser steps a round; 0 is one epoch of the bank's rows, which a calendar does not allow."""
    batch: int = Field(default=256, ge=1, le=2**16)
    """Rows of a step."""
    learning_rate: float = Field(default=2e-3, gt=0, allow_inf_nan=False)
    """Adam's."""
    decay_rounds: tuple[int, ...] | None = None
    """Rounds after which the rate is divided by 5; `null` is once, after three quarters of the rounds, or of those of
    the first cycle."""
    imbalance: Literal["none", "class_weight", "smote", "adasyn", "undersample"] = "class_weight"
    """What is done about frauds being rare."""

    @model_validator(mode="after")
    def _rising(self) -> TrainingSection:
        if self.decay_rounds is not None and list(self.decay_rounds) != sorted(set(self.decay_rounds)):
            raise ValueError("decay_rounds must rise")
        return self


class GossipSection(Section):
    """How the nodes exchange and merge: the manifest's gossip policy."""

    rule: Annotated[str, AfterValidator(_rule)] = "clip"
    """Merge rule: a name of the table below, `name:parameter`, or with `--allow-code` `module:Class`."""
    topology: str = "random:6"
    """Whom a node pulls from in a round: `random:COUNT` members, `full` (all), neighbours of `ring`, `regular:K` or
    `file:PATH`, a file of links, two names a line."""
    heartbeat_seconds: float = Field(default=10.0, ge=0.01, le=300)
    """Time between two heartbeats of a node."""
    round_interval_seconds: Seconds = 0.0
    """From the start of one round to that of the next, at least; 0 is as fast as training goes."""
    encoding: Encoding = "float32"
    """Numbers in an update: fewer bytes, less exact."""
    publish_min_frauds: int = Field(default=5, ge=0)
    """A bank with fewer training frauds publishes nothing. With few rows a bank, 0, or hardly anybody publishes."""
    reputation: bool = True
    """Whether nodes judge each other's models and quarantine whose look poisoned."""
    adoption_seconds: Seconds = 60.0
    """How long a node without checkpoint waits to meet members it could adopt a model from."""


class ComputeSection(Section):
    """How long work takes at a node."""

    seconds_per_step: float = Field(default=0.1, gt=0, le=1e6)
    """One optimiser step."""
    jitter: Share = 0.1
    """Each duration is drawn uniformly from as much more or less."""
    load_seconds: Seconds = 5.0
    """From a node's start until its rows are loaded and it trains."""


class CalendarSection(Section):
    """Training in cycles of rounds on the clock, in the place of rounds that follow each other at each node's pace."""

    every_hours: Annotated[float, Field(gt=0, le=LONGEST)] | None = None
    """From the beginning of one cycle to that of the next; in the first such period cycles follow without rest."""
    every_seconds: Annotated[int, Field(ge=1, le=LONGEST)] | None = None
    """The same in seconds; one of the two."""
    rounds: int = Field(ge=1, le=10**6)
    """Rounds of a cycle."""
    round_seconds: float = Field(ge=0.1, le=86400)
    """How long a round takes on the clock."""
    cycles: int = Field(ge=1, le=10**6)
    """Cycles in all; the run ends with the last."""
    first_seconds: Seconds = 60.0
    """When the first cycle begins."""

    @property
    def every(self) -> int:
        """Whole seconds from the beginning of one cycle to that of the next."""
        return self.every_seconds or max(1, round(3600 * (self.every_hours or 0.0)))

    @property
    def total(self) -> int:
        """Rounds of all cycles."""
        return self.cycles * self.rounds

    def calendar(self, start: float) -> Calendar:
        """What the manifest says, where clocks show `start` when virtual time begins."""
        return Calendar(round(start + self.first_seconds), self.every, self.rounds, self.round_seconds)

    @model_validator(mode="after")
    def _possible(self) -> CalendarSection:
        if (self.every_hours is None) == (self.every_seconds is None):
            raise ValueError("say how often: either every_hours or every_seconds")
        for problem in calendar_problems(self.calendar(0.0)):
            raise ValueError(problem)
        return self


class ChangeSection(Section):
    """A version 2 of the manifest, with which the admins change the model."""

    nodes: Selection = 1
    """Who is given it, by name or drawn; the others get it from them."""
    at: Seconds
    """When."""
    cycle: int = Field(ge=1)
    """From which cycle on the other model is trained; it begins a period after that at least."""
    hidden: tuple[Annotated[int, Field(ge=1, le=100_000)], ...] = Field(min_length=1, max_length=32)
    """Sizes of its hidden layers."""


class StragglersSection(Section):
    """Slow nodes."""

    nodes: Selection
    """Their names, or how many are drawn."""
    slower: float = Field(gt=0, le=1e6)
    """How many times longer their training takes."""


class LinkSection(Section):
    """What is different between two nodes, both ways."""

    between: tuple[str, str]
    """The two names."""
    delay_seconds: Seconds | None = None
    """One way; `null` is that of all links, here and below."""
    loss: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of the exchanges that fail; 1 cuts the link."""
    megabits: Megabits | None = None
    """Megabits a second; 0 is unlimited."""


class NetworkSection(Section):
    """What happens to messages on their way, the same on every link that `links` does not name."""

    delay_seconds: Seconds = 0.05
    """One way."""
    jitter: Share = 0.2
    """Each delay is drawn uniformly from as much more or less."""
    loss: float = Field(default=0.0, ge=0, le=1)
    """Share of the exchanges that fail."""
    megabits: Megabits = 0.0
    """Megabits a second on each link; 0 is unlimited."""
    links: tuple[LinkSection, ...] = ()
    """Links that differ."""


class AttackersSection(Section):
    """Nodes that attack, and collude: each knows what all of this entry know. Drawn ones are never the odd bank."""

    kind: Annotated[str, AfterValidator(_attack)]
    """What they do: an attack of the table below, such as `signflip` or `duty:1:2`."""
    nodes: Selection = ()
    """Their names, or how many are drawn."""
    share: Annotated[float, Field(gt=0, lt=1)] | None = None
    """In the place of `nodes`: so many of the banks that publish are drawn, as studies of attacks count them."""
    scale: Annotated[float, Field(gt=0, le=STRONGEST)] | None = None
    """Strength, the `scale` of the attack's formula; `null` is its usual one."""
    start: int | None = Field(default=None, ge=1)
    """The attacker's first poisoned round; `null` is 1, `drip`'s 30."""
    stop: int | None = Field(default=None, ge=1)
    """Its first honest round after that; `null` goes on to the end."""
    duty: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=0)]] | None = None
    """Poisoned rounds and honest ones by turns, such as `[1, 2]`; `null` is the attack's, most often always."""

    def campaign(self) -> Campaign:
        """A new one, for one attacker."""
        return campaign_from_name(self.kind, self.scale, self.start, self.stop, self.duty)

    @model_validator(mode="after")
    def _possible(self) -> AttackersSection:
        if (self.nodes == ()) == (self.share is None):
            raise ValueError("say who: either nodes (names, or how many) or share (of the banks that publish)")
        try:
            self.campaign()
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return self


class EvaluateSection(Section):
    """When models are measured, on the pooled test and on each bank's own."""

    every: int = Field(default=0, ge=0)
    """Rounds between two evaluations of a node; 0 makes about ten in the run."""
    sample: int = Field(default=200, ge=1)
    """Nodes measured during the run; at its end all are."""
