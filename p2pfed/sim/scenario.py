"""What a simulation is asked for, as `node_config/scenarios/*.yaml` write it. Times are seconds of virtual time.

Nodes are called bank-1 to bank-N. Where a scenario chooses some of them it names them, or says how many and leaves the
choice to its seed.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PrivateAttr, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from p2pfed import configfile
from p2pfed.config import Section
from p2pfed.core.consortium import MAX_MEMBERS
from p2pfed.core.gossip.calendar import FREE, Calendar
from p2pfed.core.model import DEFAULT_HIDDEN, POSITIVE_WEIGHT_CAP, TrainingPolicy
from p2pfed.data.partition import dealing
from p2pfed.errors import UsageError
from p2pfed.sim.faults import (
    ChurnSection,
    ClockSkewSection,
    ClockStepsSection,
    JoinersSection,
    LeaversSection,
    OutageSection,
    PartitionSection,
    RefusalsSection,
    RestoresSection,
)
from p2pfed.sim.sections import (
    AttackersSection,
    CalendarSection,
    ChangeSection,
    ComputeSection,
    EvaluateSection,
    GossipSection,
    ModelSection,
    NetworkSection,
    OddSection,
    PaymentsSection,
    Selection,
    StragglersSection,
    TrainingSection,
)

PARTITION_OF_FILE = "dirichlet:0.5"

BY_THEMSELVES = ("outages", "clock_steps", "restores", "refusals")
"""Lists of which two entries may choose the same node."""

_TOPOLOGY = re.compile(r"random:[1-9][0-9]{0,4}|full|ring|regular:([1-9][0-9]{0,3})|file:.+")

Place = tuple[str | int, ...]
"""Where in the scenario, as keys and list positions."""


class Scenario(Section):
    """The whole file."""

    version: Literal[1]
    """Version of this file's format."""
    name: str = Field(default="simulation", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
    """Up to 63 letters, digits, dots, dashes and underscores; results are labelled with it."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Draws everything: payments, their dealing, keys, initial weights, delays, who attacks."""
    nodes: int = Field(ge=2, le=MAX_MEMBERS)
    """Banks, called bank-1, bank-2 and so on."""
    calendar: CalendarSection | None = None
    """Cycles of rounds on the clock; `null` lets each node's rounds follow each other at its own pace."""
    rounds: int = Field(ge=1, le=10**9)
    """Training rounds of each node; a calendar's, which need not be said, are those of all its cycles."""
    data: PaymentsSection = PaymentsSection()
    partition: str | None = None
    """How rows are dealt to banks: `iid`, `dirichlet:ALPHA`, `lognormal:SIGMA` (sizes) or `by:COL`. `null` leaves
    generated payments at the banks they were made for and deals those of a file `dirichlet:0.5`."""
    min_rows: int = Field(default=300, ge=10)
    """Rows that each bank has at least, before its split."""
    odd: OddSection | None = None
    """One deliberately odd, small and honest bank."""
    model: ModelSection = ModelSection()
    change: ChangeSection | None = None
    """Another model from some cycle on; only with a calendar."""
    training: TrainingSection = TrainingSection()
    gossip: GossipSection = GossipSection()
    compute: ComputeSection = ComputeSection()
    stragglers: tuple[StragglersSection, ...] = ()
    """Slow nodes."""
    network: NetworkSection = NetworkSection()
    dial_out: Selection = 0
    """Nodes that nobody can dial."""
    outages: tuple[OutageSection, ...] = ()
    """Nodes that are killed and restarted from their saved state."""
    churn: ChurnSection | None = None
    """Nodes that come and go."""
    joiners: tuple[JoinersSection, ...] = ()
    """Members that start late."""
    leavers: tuple[LeaversSection, ...] = ()
    """Members that say good-bye."""
    partitions: tuple[PartitionSection, ...] = ()
    """Times in which groups cannot talk to each other."""
    clock_skew: ClockSkewSection = ClockSkewSection()
    clock_steps: tuple[ClockStepsSection, ...] = ()
    """Clocks that are set."""
    restores: tuple[RestoresSection, ...] = ()
    """Nodes that start from an old backup."""
    refusals: tuple[RefusalsSection, ...] = ()
    """Readings of payments that look wrong; only with a calendar."""
    attackers: tuple[AttackersSection, ...] = ()
    """Nodes that publish poisoned models."""
    evaluate: EvaluateSection = EvaluateSection()
    _places: configfile.Places = PrivateAttr(default=configfile.Places())

    @model_validator(mode="before")
    @classmethod
    def _with_rounds(cls, values: Any) -> Any:
        """Add the calendar's rounds where none are named."""
        if not isinstance(values, Mapping) or values.get("calendar") is None or "rounds" in values:
            return values
        calendar = values["calendar"]
        said = calendar if isinstance(calendar, Mapping) else {}
        cycles, rounds = said.get("cycles"), said.get("rounds")
        # of a calendar that is none its own errors tell enough
        total = cycles * rounds if isinstance(cycles, int) and isinstance(rounds, int) else 1
        return {**values, "rounds": max(1, total)}

    @model_validator(mode="after")
    def _no_contradiction(self) -> Scenario:
        """Raise every contradiction at its own place in the file."""
        found = [
            InitErrorDetails(type=PydanticCustomError("value_error", "{said}", {"said": said}), loc=place, input=None)
            for place, said in [*self._dealing_problems(), *contradictions(self)]
        ]
        if found:
            raise ValidationError.from_exception_data("Scenario", found)
        return self

    def _dealing_problems(self) -> list[tuple[tuple[str], str]]:
        try:
            dealing(self.dealing)
        except UsageError as error:
            return [(("partition",), str(error))]
        return []

    def at(self, *keys: str | int) -> str:
        """What an error about a value begins with: `file:line:col: section.key`, or the key alone without a file."""
        return self._places.at(*keys)

    @property
    def names(self) -> tuple[str, ...]:
        """The nodes' names, in order."""
        return tuple(f"bank-{i + 1}" for i in range(self.nodes))

    @property
    def dealing(self) -> str:
        """How rows are dealt to banks."""
        return self.partition or ("by:bank" if self.data.file is None else PARTITION_OF_FILE)

    @property
    def split(self) -> Literal["stratified", "time"]:
        """How test and validation rows are held out."""
        timed = self.data.file is None or self.data.time is not None
        return self.data.split or ("time" if timed else "stratified")

    @property
    def graph(self) -> tuple[str, int]:
        """The manifest's topology and fanout; the topology of a file is `edges`."""
        kind, _, argument = self.gossip.topology.partition(":")
        if kind == "random":
            return "random", min(int(argument), self.nodes - 1)
        if kind == "regular":
            return self.gossip.topology, int(argument)
        return "edges" if kind == "file" else kind, self.nodes - 1

    @property
    def edge_file(self) -> Path | None:
        """The file of links of a `file:PATH` topology."""
        kind, _, path = self.gossip.topology.partition(":")
        return Path(path) if kind == "file" else None

    @property
    def layers(self) -> tuple[int, ...]:
        """Sizes of the hidden layers."""
        return self.model.hidden or DEFAULT_HIDDEN[self.model.kind]

    @property
    def models(self) -> tuple[tuple[int, ...], ...]:
        """Sizes of the hidden layers of every model that is trained, in order."""
        return (self.layers,) if self.change is None else (self.layers, self.change.hidden)

    @property
    def evaluation_period(self) -> int:
        """Rounds between two evaluations of a node, at least 1; a cycle's end is measured besides."""
        return self.evaluate.every or max(1, self.rounds // 10)

    @property
    def agreed_calendar(self) -> Calendar:
        """The manifest's; nodes' clocks that are right show what `sim.churn.clocks` says."""
        return FREE if self.calendar is None else self.calendar.calendar(self.clock_skew.offset_seconds)

    @property
    def policy(self) -> TrainingPolicy:
        """The manifest's training policy."""
        t = self.training
        first = self.rounds if self.calendar is None else self.calendar.rounds
        decay = (max(1, first * 3 // 4),) if t.decay_rounds is None else t.decay_rounds
        return TrainingPolicy(t.local_steps, t.batch, t.learning_rate, decay, t.imbalance, POSITIVE_WEIGHT_CAP)


def load_scenario(path: Path, settings: Sequence[str] = ()) -> Scenario:
    """Read a scenario, with `--set` texts laid over it; raises ConfigError with every problem, and UsageError."""
    absent = "examples are in node_config/scenarios/"
    scenario, places = configfile.load_document(Scenario, path, None, settings, absent=absent)
    scenario._places = places
    return scenario if scenario.edge_file is None else _absolute_edges(scenario, path.resolve().parent)


def scenario_from(values: Mapping[str, Any]) -> Scenario:
    """The scenario that a program wrote as nested mappings; raises ConfigError with every problem."""
    return configfile.from_mapping(Scenario, values)


def _absolute_edges(scenario: Scenario, folder: Path) -> Scenario:
    assert scenario.edge_file is not None
    gossip = scenario.gossip.model_copy(update={"topology": f"file:{folder / scenario.edge_file}"})
    return scenario.model_copy(update={"gossip": gossip})


# --- contradictions ---------------------------------------------------------------------------------------------------


def contradictions(scenario: Scenario) -> Iterator[tuple[Place, str]]:
    """What the scenario cannot mean, whatever its data: impossible graphs, unknown nodes, more of them than there are.

    Each with its place.
    """
    yield from _graph_problems(scenario)
    yield from _calendar_problems(scenario)
    yield from _unknown_nodes(scenario)
    for name, pool in pools(scenario).items():
        yield from _pool_problems(scenario, "attackers" if name == "attackers" else "nodes", pool)
    if scenario.change is not None and scenario.attackers:
        yield ("change",), "attacks remember models, and know nothing of one that takes their place"
    for i, entry in enumerate(scenario.attackers):
        if scenario.model.kind == "autoencoder" and entry.campaign().attack.poisons_rows:
            yield ("attackers", i, "kind"), f"{entry.kind} poisons labels, from which an autoencoder learns nothing"
    if scenario.churn is not None and round(scenario.churn.share * scenario.nodes) == 0:
        one = 1 / scenario.nodes
        yield ("churn", "share"), f"{scenario.churn.share:g} of {scenario.nodes} nodes is none; {one:.2g} is one"


def _calendar_problems(scenario: Scenario) -> Iterator[tuple[Place, str]]:
    calendar = scenario.calendar
    if calendar is None:
        if scenario.refusals:
            yield ("refusals",), "without a calendar payments are read once, and nothing is refused"
        if scenario.change is not None:
            yield ("change",), "without a calendar no cycle begins from which another model could be trained"
        return
    if scenario.rounds != calendar.total:
        said = f"{calendar.cycles} cycles of {calendar.rounds} rounds are {calendar.total}, not {scenario.rounds}"
        yield ("rounds",), f"{said}; with a calendar leave it out"
    if scenario.training.local_steps == 0:
        yield ("training", "local_steps"), "an epoch has no fixed length; with a calendar say how many steps"
    if scenario.gossip.round_interval_seconds:
        yield ("gossip", "round_interval_seconds"), "the calendar says when rounds begin"


def _graph_problems(scenario: Scenario) -> Iterator[tuple[Place, str]]:
    place, topology, n = ("gossip", "topology"), scenario.gossip.topology, scenario.nodes
    match = _TOPOLOGY.fullmatch(topology)
    if match is None:
        yield place, f"should be random:COUNT, full, ring, regular:K or file:PATH, got {topology!r}"
    elif match[1] and int(match[1]) < 2:
        yield place, f"{topology} of {n} nodes is not possible; {'regular:2' if n > 2 else 'full'} is"
    elif match[1] and int(match[1]) >= n:
        fits = f"regular:{n - 1} fits" if n > 2 else "full fits"
        yield place, f"{topology} of {n} nodes: a node has {n - 1} others; {fits}"
    elif match[1] and int(match[1]) * n % 2:
        yield (
            place,
            (
                f"{topology} of {n} nodes: the product of both must be even; {n - 1} or {n + 1} nodes fit, "
                f"or regular:{int(match[1]) - 1}"
            ),
        )


def _selections(scenario: Scenario) -> Iterator[tuple[Place, Selection]]:
    """Every choice of nodes, and where it stands."""
    yield ("dial_out",), scenario.dial_out
    if scenario.change is not None:
        yield ("change", "nodes"), scenario.change.nodes
    for field in ("stragglers", "joiners", "leavers", "attackers", *BY_THEMSELVES):
        for i, entry in enumerate(getattr(scenario, field)):
            yield (field, i, "nodes"), entry.nodes
    for i, partition in enumerate(scenario.partitions):
        for j, group in enumerate(partition.groups):
            yield ("partitions", i, "groups", j), group


def _unknown_nodes(scenario: Scenario) -> Iterator[tuple[Place, str]]:
    named: list[tuple[Place, Sequence[str]]] = [
        (place, chosen) for place, chosen in _selections(scenario) if not isinstance(chosen, int)
    ]
    named += [(("network", "links", i, "between"), link.between) for i, link in enumerate(scenario.network.links)]
    if scenario.odd is not None:
        named.append((("odd", "bank"), (scenario.odd.bank,)))
    known = set(scenario.names)
    for place, names in named:
        if unknown := next((name for name in names if name not in known), None):
            yield place, unknown_node(scenario, unknown)
        if len(set(names)) < len(names):
            yield place, f"{Counter(names).most_common(1)[0][0]!r} stands there twice"


def unknown_node(scenario: Scenario, name: str) -> str:
    """What is said of a name that no node has."""
    return f"there is no node {name!r}; they are bank-1 to bank-{scenario.nodes}"


def pools(scenario: Scenario) -> dict[str, list[tuple[Place, Selection]]]:
    """Choices of which no node may be in two: those of each list, who comes or goes, each partition's groups.

    Their names are part of the seed that draws them.
    """
    found: dict[str, list[tuple[Place, Selection]]] = defaultdict(list)
    for place, nodes in _selections(scenario):
        name = str(place[0])
        if name in (*BY_THEMSELVES, "partitions"):
            name += f" {place[1]}"
        found["joiners" if name == "leavers" else name].append((place, nodes))
    return found


def _pool_problems(
    scenario: Scenario, what: str, pool: Sequence[tuple[Place, Selection]]
) -> Iterator[tuple[Place, str]]:
    most = scenario.nodes - (what == "attackers")
    total, seen = 0, set()
    if what == "attackers" and scenario.odd is not None:
        seen.add(scenario.odd.bank)
    for place, nodes in pool:
        total += nodes if isinstance(nodes, int) else len(nodes)
        if total > most:
            honest = ", for one must stay honest" if what == "attackers" else ""
            yield place, f"{total} {what} of {scenario.nodes} nodes; at most {most} fit{honest}"
            return
        names = () if isinstance(nodes, int) else nodes
        if twice := seen.intersection(names):
            name = min(twice)
            odd = scenario.odd is not None and what == "attackers" and name == scenario.odd.bank
            yield place, f"{name!r} is the odd bank, which is honest" if odd else f"{name!r} is chosen before already"
        seen.update(names)
