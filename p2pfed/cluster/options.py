"""What a local cluster run is asked for: the command line of `p2pfed cluster run` as one frozen value."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from p2pfed import results
from p2pfed.core.aggregation import rule_problem
from p2pfed.core.gossip.calendar import FREE, Calendar, calendar_problems
from p2pfed.core.model import DEFAULT_HIDDEN, POSITIVE_WEIGHT_CAP, TrainingPolicy
from p2pfed.errors import ConfigError, UsageError

BASELINES = ("alone", "centralised", "fedavg")
FIRST_CYCLE_SECONDS = 30.0
"""From the founding to the first cycle, and a second more a bank: trainers import TensorFlow first."""


@dataclass(frozen=True)
class ClusterOptions:
    """Every option has the default of the command line; a wrong one raises UsageError."""

    nodes: int = 4
    """Banks, each one a daemon of its own."""
    rounds: int = 40
    """Of each cycle, where there are cycles."""
    cycles: int = 0
    """Cycles of the calendar that banks run; 0 lets rounds follow each other as fast as training goes."""
    round_seconds: float = 10.0
    """How long a round of the calendar takes."""
    data: Path | None = None
    """CSV or Parquet file of payments; `None` generates some."""
    label: str = "is_fraud"
    drop: tuple[str, ...] = ()
    """Columns that are no features: identifiers, and whatever gives the label away."""
    time: str | None = None
    """Payment-time column: orders a `time` split, and is no feature."""
    split: Literal["stratified", "time"] = "stratified"
    test_share: float = 0.3
    """Share of all rows held out as the pooled test; of a `time` split, the newest."""
    gap_days: float = 0
    """Days left out before the pooled test of a `time` split."""
    own_test_share: float = 0.1
    """Share of its own rows on which a bank measures itself."""
    partition: str = "dirichlet:0.5"
    """How rows of `data` are dealt to banks: `iid`, `dirichlet:ALPHA`, `lognormal:SIGMA` (sizes) or `by:COL`.

    Generated payments belong to their banks already.
    """
    topology: str = "random:6"
    """Whom a node pulls from in a round: `random:COUNT` members, `full` (all), neighbours of `ring` or `regular:K`."""
    model: Literal["mlp", "autoencoder"] = "mlp"
    hidden: tuple[int, ...] = ()
    """Sizes of the hidden layers; empty takes 64-32 (MLP) or 16-8-4-8-16 (autoencoder)."""
    dropout: float = 0.2
    local_steps: int = 30
    """Optimiser steps a round; 0 is one epoch of the bank's rows."""
    batch: int = 256
    learning_rate: float = 2e-3
    decay_rounds: tuple[int, ...] | None = None
    """Rounds after which the rate is divided by 5; `None` is once, after three quarters of the rounds."""
    imbalance: Literal["none", "class_weight", "smote", "adasyn", "undersample"] = "class_weight"
    rule: str = "clip"
    """Aggregation rule, a name from the registry, or where that is allowed `module:Class`."""
    reputation: bool = True
    """Whether banks judge each other's models and quarantine; without, the merge rule is alone."""
    attacks: tuple[tuple[str, int], ...] = ()
    """Kinds of attack (`adversary.attacks`) and how many banks are attackers of that kind."""
    round_interval: float = 0
    """Seconds from the start of one round to that of the next, at least; 0 is as fast as training goes."""
    evaluate_every: int = 0
    """Rounds between evaluations of each node; 0 makes about ten in the run."""
    seed: int = 0
    baselines: tuple[str, ...] = ("alone",)
    """Of `alone`, `centralised` and `fedavg`: rivals trained afterwards at equal budget."""
    keep: bool = False
    """Leave the directory, with keys, data, state and logs, where it is."""
    directory: Path | None = None
    """Where the cluster lives; `None` makes a temporary directory."""
    json: Path | None = None
    """Where the run file is written."""

    def __post_init__(self) -> None:
        if self.nodes < 2 or self.rounds < 1:
            raise UsageError("a cluster needs --nodes of at least 2 and --rounds of at least 1")
        if unknown := sorted(set(self.baselines) - set(BASELINES)):
            raise UsageError(f"--baselines knows {', '.join(BASELINES)}, not {unknown[0]!r}")
        if self.split == "time" and self.time is None and self.data is not None:
            raise UsageError("--split time needs --time COL, the column that orders the payments")
        if self.data is not None and not self.data.is_file():
            raise UsageError(f"--data {self.data}: there is no such file")
        if not 0 < self.test_share < 0.9:
            raise UsageError("--test-share lies between 0 and 0.9")
        if problem := rule_problem(self.rule):
            raise UsageError(f"--rule: {problem}")
        self._check_calendar()
        _ = self.graph, self.policy()
        self._check_attacks()
        self._check_partition()
        if self.json is not None:
            results.check_writable(self.json)

    def _check_calendar(self) -> None:
        if self.cycles < 0:
            raise UsageError("--cycles is how many cycles of the calendar; 0 is none")
        if not self.cycles:
            return
        if self.local_steps == 0:
            raise UsageError("--local-steps 0, an epoch, has no fixed length; with --cycles say how many steps")
        if self.round_interval:
            raise UsageError("--round-interval is for rounds without a calendar; with --cycles say --round-seconds")
        for problem in calendar_problems(self.calendar(0.0)):
            raise UsageError(f"--cycles, --rounds, --round-seconds: {problem}")

    def calendar(self, now: float) -> Calendar:
        """The manifest's, founded at `now` (Unix seconds): cycles one after the other, or none."""
        if not self.cycles:
            return FREE
        every = math.ceil(self.rounds * self.round_seconds)
        return Calendar(math.ceil(now + FIRST_CYCLE_SECONDS + self.nodes), every, self.rounds, self.round_seconds)

    @property
    def total_rounds(self) -> int:
        """Rounds of each bank in all."""
        return self.rounds * max(self.cycles, 1)

    def _check_attacks(self) -> None:
        for kind, count in self.attacks:
            if count < 1:
                raise UsageError(f"--attack {kind}:{count}: expected KIND:COUNT with a COUNT of at least 1")
            poisons_rows(kind or "?")
        if sum(count for _, count in self.attacks) > self.nodes - 2:
            raise UsageError("--attack leaves fewer than two honest banks; choose more --nodes or fewer attackers")

    def _check_partition(self) -> None:
        # imports pandas, for which `--help` need not wait
        from p2pfed.data.partition import dealing

        try:
            dealing(self.partition)
        except UsageError as error:
            raise UsageError(f"--partition: {error}") from None

    @property
    def graph(self) -> tuple[str, int]:
        """The manifest's topology and fanout; raises UsageError on an unknown topology."""
        kind, _, count = self.topology.partition(":")
        if self.topology in ("full", "ring"):
            return self.topology, self.nodes - 1
        if kind in ("random", "regular") and count.isdecimal() and int(count) >= 1:
            fanout = min(int(count), self.nodes - 1)
            return ("random" if kind == "random" else f"regular:{fanout}"), fanout
        raise UsageError(f"--topology is random:COUNT, full, ring or regular:K, not {self.topology!r}")

    @property
    def layers(self) -> tuple[int, ...]:
        """Sizes of the hidden layers."""
        return self.hidden or DEFAULT_HIDDEN[self.model]

    @property
    def evaluation_period(self) -> int:
        """Rounds between two evaluations of a node, at least 1."""
        return self.evaluate_every or max(1, self.total_rounds // 10)

    def policy(self) -> TrainingPolicy:
        """The training policy of the manifest; raises UsageError where its numbers make no sense."""
        decay = (max(1, self.rounds * 3 // 4),) if self.decay_rounds is None else self.decay_rounds
        try:
            return TrainingPolicy(
                self.local_steps, self.batch, self.learning_rate, decay, self.imbalance, POSITIVE_WEIGHT_CAP
            )
        except ValueError as error:
            raise UsageError(str(error)) from error


def poisons_rows(kind: str) -> bool:
    """Whether an attack of that kind, if any, is one on training rows; raises UsageError if there is none."""
    if not kind:
        return False
    # imported only for runs that have attackers
    from p2pfed.adversary.attacks import attack_from_name

    try:
        return attack_from_name(kind).poisons_rows
    except ConfigError as error:
        raise UsageError(f"--attack: {error}") from None
