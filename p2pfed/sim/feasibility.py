"""Whether a scenario can be run at all, said before anything starts, with the number that would fit."""

from __future__ import annotations

import math
import re
from pathlib import Path

from p2pfed.core.model import ModelSpec
from p2pfed.core.sampling import topology_problem
from p2pfed.data.synthetic import PAYMENTS_A_BANK
from p2pfed.errors import DataError, UsageError
from p2pfed.sim.scenario import Scenario, contradictions, unknown_node

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


def check(scenario: Scenario, rows: int | None, memory_bytes: int, inputs: int = USUAL_INPUTS) -> None:
    """Raise UsageError on a contradiction or where memory would not do, DataError where the rows are too few.

    `rows` are the payments in all, None while a file was not read; `inputs` those of the model.
    """
    if found := [f"{scenario.at(*place)}: {said}" for place, said in contradictions(scenario)]:
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
        raise UsageError(f"{scenario.at('gossip', 'topology')}: {path} cannot be read: {error}") from None
    edges, known = [], set(scenario.names)
    for number, line in enumerate(lines, 1):
        names = line.partition("#")[0].split()
        if not names:
            continue
        if len(names) != 2:
            raise UsageError(f"{path}:{number}: expected two names, such as bank-1 bank-2")
        if unknown := [name for name in names if name not in known]:
            raise UsageError(f"{path}:{number}: {unknown_node(scenario, unknown[0])}")
        edges.append((names[0], names[1]))
    if problem := topology_problem("edges", scenario.names, edges):
        raise UsageError(f"{path}: {problem}")
    return tuple(edges)


def _check_rows(scenario: Scenario, rows: int) -> None:
    share = 1 - scenario.data.test_share
    dealt = round(rows * share)
    banks, each = dealt // scenario.min_rows, dealt // scenario.nodes
    if banks >= scenario.nodes:
        return
    fits = [f"nodes: {banks}"] if banks >= 2 else []
    fits += [f"min_rows: {each}"] if each >= 10 else []
    fits += [f"data.rows: {math.ceil(scenario.min_rows * scenario.nodes / share)}"] if not scenario.data.file else []
    raise DataError(
        f"{scenario.at('nodes')}: {dealt:,} rows (of {rows:,}, without the pooled test) give {banks:,} banks of at "
        f"least {scenario.min_rows} rows, not {scenario.nodes:,}; {' or '.join(fits) or 'more rows'} would do"
    )


def _check_memory(scenario: Scenario, rows: int, memory_bytes: int, inputs: int) -> None:
    kind, dropout = scenario.model.kind, scenario.model.dropout
    size = max(ModelSpec(kind, inputs, hidden, dropout).schema().size for hidden in scenario.models)
    node = 4 * size * WEIGHT_COPIES + NODE_BYTES
    data = rows * (ROW_BYTES + 4 * inputs)
    if scenario.data.file is None and not scenario.data.rows:  # payments come with banks
        node, data = node + data // scenario.nodes, 0
    needed = PROCESS_BYTES + data + node * scenario.nodes
    if needed <= memory_bytes:
        return
    fitting = (memory_bytes - PROCESS_BYTES - data) // node
    advice = f"about {_rounded(fitting):,} nodes would fit" if fitting >= 2 else "take fewer rows or a smaller model"
    place = scenario.at("nodes")
    raise UsageError(f"{place}: needs about {_gigabytes(needed)} GB, {_gigabytes(memory_bytes)} GB are free: {advice}")


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
