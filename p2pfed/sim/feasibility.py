"""Whether a scenario can be run at all, said before anything starts, with the number that would fit."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from p2pfed.core.model import ModelSpec
from p2pfed.core.sampling import topology_problem
from p2pfed.data.synthetic import PAYMENTS_A_BANK
from p2pfed.errors import DataError, UsageError

if TYPE_CHECKING:
    from p2pfed.sim.scenario import Scenario
    from p2pfed.sim.sections import Selection

USUAL_INPUTS = 40
"""Model inputs assumed until the feature contract is known."""
# Measured: the growth of a run's memory from 200 to 1,000 nodes, and from 3,800 to 11,800 parameters.
WEIGHT_COPIES = 18
"""Vectors of weights a node costs: its model and checkpoint, Adam's two means, and the versions of its update that
others still hold, each as bytes and as numbers."""
NODE_BYTES = 80_000
"""What a node costs besides: its object, what it knows of others, its place in the heap."""
ROW_BYTES = 400
"""A payment while it is read and dealt, whatever the model's inputs."""
PROCESS_BYTES = 850 * 2**20
"""Python with TensorFlow and a compiled model, before there is a node."""

_TOPOLOGY = re.compile(r"random:[1-9][0-9]{0,4}|full|ring|regular:([1-9][0-9]{0,3})|file:.+")

Place = tuple[str | int, ...]
"""Where in the scenario, as keys and list positions."""


def contradictions(scenario: Scenario) -> Iterator[tuple[Place, str]]:
    """What the scenario cannot mean, whatever its data: impossible graphs, unknown nodes, more of them than there are.

    Each with its place.
    """
    yield from _graph_problems(scenario)
    yield from _unknown_nodes(scenario)
    for name, pool in pools(scenario).items():
        yield from _pool_problems(scenario, "attackers" if name == "attackers" else "nodes", pool)
    if scenario.churn is not None and round(scenario.churn.share * scenario.nodes) == 0:
        one = 1 / scenario.nodes
        yield ("churn", "share"), f"{scenario.churn.share:g} of {scenario.nodes} nodes is none; {one:.2g} is one"


def check(scenario: Scenario, rows: int | None, memory_bytes: int, inputs: int = USUAL_INPUTS) -> None:
    """Raise UsageError on a contradiction or where memory would not do, DataError where the rows are too few.

    `rows` are the payments in all, None while a file was not read; `inputs` those of the model.
    """
    if found := [f"{'.'.join(map(str, place))}: {said}" for place, said in contradictions(scenario)]:
        raise UsageError("\n".join(found))
    if rows is None and scenario.data.file is None:
        rows = scenario.data.rows or PAYMENTS_A_BANK * scenario.nodes
    if rows is not None:
        _check_rows(scenario, rows)
    _check_memory(scenario, rows or 0, memory_bytes, inputs)
    edges_of(scenario)


def edges_of(scenario: Scenario) -> tuple[tuple[str, str], ...]:
    """The links of a `file:PATH` topology, two names a line, `#` before comments; none of other topologies.

    Raises UsageError, where a line is wrong with its number, and where not every node can be reached from every other.
    """
    path = scenario.edge_file
    if path is None:
        return ()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"gossip.topology: {path} cannot be read: {error}") from None
    edges, known = [], set(scenario.names)
    for number, line in enumerate(lines, 1):
        names = line.partition("#")[0].split()
        if not names:
            continue
        if len(names) != 2:
            raise UsageError(f"{path}:{number}: expected two names, such as bank-1 bank-2")
        if unknown := [name for name in names if name not in known]:
            raise UsageError(f"{path}:{number}: {_unknown(scenario, unknown[0])}")
        edges.append((names[0], names[1]))
    if problem := topology_problem("edges", scenario.names, edges):
        raise UsageError(f"{path}: {problem}")
    return tuple(edges)


def _check_rows(scenario: Scenario, rows: int) -> None:
    dealt = round(rows * (1 - scenario.data.test_share))
    banks = dealt // scenario.min_rows
    if banks < scenario.nodes:
        raise DataError(
            f"data: {dealt:,} rows (of {rows:,}, without the pooled test) give {banks:,} banks of at least "
            f"{scenario.min_rows} rows, not {scenario.nodes:,}"
        )


def _check_memory(scenario: Scenario, rows: int, memory_bytes: int, inputs: int) -> None:
    size = ModelSpec(scenario.model.kind, inputs, scenario.layers, scenario.model.dropout).schema().size
    node = 4 * size * WEIGHT_COPIES + NODE_BYTES
    data = rows * (ROW_BYTES + 4 * inputs)
    if scenario.data.file is None and not scenario.data.rows:  # payments come with banks
        node, data = node + data // scenario.nodes, 0
    needed = PROCESS_BYTES + data + node * scenario.nodes
    if needed <= memory_bytes:
        return
    fitting = (memory_bytes - PROCESS_BYTES - data) // node
    advice = f"about {_rounded(fitting):,} nodes would fit" if fitting >= 2 else "take fewer rows or a smaller model"
    raise UsageError(f"needs about {_gigabytes(needed)} GB, {_gigabytes(memory_bytes)} GB are free: {advice}")


def _gigabytes(size: int) -> str:
    return f"{size / 2**30:.0f}" if size >= 10 * 2**30 else f"{size / 2**30:.1f}"


def _rounded(number: int) -> int:
    """Down to two digits."""
    unit: int = 10 ** max(0, len(str(number)) - 2)
    return number // unit * unit


def available_memory(root: Path = Path("/")) -> int:
    """Bytes this process may still take: what the machine has free, or less where a control group limits it."""
    meminfo = (root / "proc/meminfo").read_text()
    free = int(re.findall(r"MemAvailable:\s+(\d+) kB", meminfo)[0]) * 1024
    version_2 = ("memory.max", "memory.current", "inactive_file")
    version_1 = ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file")
    for limit_name, usage_name, cache_name in (version_2, version_1):
        limit, usage = root / "sys/fs/cgroup" / limit_name, root / "sys/fs/cgroup" / usage_name
        if not limit.is_file() or not usage.is_file() or not (text := limit.read_text().strip()).isdigit():
            continue
        cache = re.findall(rf"^{cache_name} (\d+)$", (limit.parent / "memory.stat").read_text(), re.MULTILINE)
        free = min(free, int(text) - int(usage.read_text()) + sum(map(int, cache)))
    return free


# --- contradictions ---------------------------------------------------------------------------------------------------


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
    for field in ("stragglers", "outages", "joiners", "leavers", "attackers"):
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
            yield place, _unknown(scenario, unknown)
        if len(set(names)) < len(names):
            yield place, f"{Counter(names).most_common(1)[0][0]!r} stands there twice"


def _unknown(scenario: Scenario, name: str) -> str:
    return f"there is no node {name!r}; they are bank-1 to bank-{scenario.nodes}"


def pools(scenario: Scenario) -> dict[str, list[tuple[Place, Selection]]]:
    """Choices of which no node may be in two: those of each list, who comes or goes, each partition's groups.

    Their names are part of the seed that draws them.
    """
    found: dict[str, list[tuple[Place, Selection]]] = defaultdict(list)
    for place, nodes in _selections(scenario):
        name = str(place[0])
        if name in ("outages", "partitions"):
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
