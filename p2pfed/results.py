"""The run file: what an experiment measured, in the one shape that `cluster run`, simulator and benchmarks write."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from p2pfed import __version__, newfile
from p2pfed.errors import DataError, DiskFault, UsageError

SCHEMA = "p2pfed.run/1"

Measures = dict[str, Any]
"""One evaluation: `auprc`, `auroc`, `precision`, `recall`, `f1`, `recall_at_fpr_0.001`, `confusion`
[[tn, fp], [fn, tp]] and `loss`; `None` where one class is missing."""


@dataclass(frozen=True)
class Alone:
    """What a bank reaches by itself with the same number of steps; `None` where it has no such rows."""

    test: Measures | None
    own_test: Measures | None


@dataclass(frozen=True)
class NodeRun:
    """One node of a run: its rows, the model it ended with on the pooled and on its own test rows, and what it cost."""

    name: str
    id: str
    role: Literal["honest", "attacker"]
    train_rows: int
    train_frauds: int
    rounds: int
    test: Measures | None
    own_test: Measures | None
    alone: Alone | None
    bytes_sent: int
    bytes_received: int
    peak_rss_bytes: int
    """Of the node's daemon; of a simulation, the whole process's."""


@dataclass(frozen=True)
class Baselines:
    """Rival methods at equal budget, measured on the pooled test rows; `None` where not asked for."""

    centralised: Measures | None = None
    fedavg: Measures | None = None


@dataclass(frozen=True)
class Quarantine:
    """`observer` stopped listening to `subject` after `exchange` exchanges with it, in its round `round`."""

    observer: str
    subject: str
    round: int
    exchange: int
    released_round: int | None


@dataclass(frozen=True)
class HistoryPoint:
    """One round of one node; `auprc` is the pooled test's, `bytes` those of the accepted updates."""

    round: int
    node: str
    auprc: float | None
    loss: float | None
    bytes: int
    seconds: float


@dataclass(frozen=True)
class Simulated:
    """What only a simulation can tell."""

    virtual_seconds: float
    inputs: int
    """Given to all nodes together."""
    digest: str
    """Of all models and statements; equal for runs of the same seed on one machine."""
    ended: str
    """Why, in a sentence."""
    interrupted: bool
    """Whether somebody ended it before its end; each node's `rounds` say how far it came."""


class NodeHistory:
    """One node's rounds, told as they happen: updates count for the round in which they arrived.

    What is merged after the last round, while others still publish, counts for the last one.
    """

    def __init__(self, node: str) -> None:
        self._node = node
        self._points: dict[int, HistoryPoint] = {}
        self._received = 0

    def accepted(self, size: int) -> None:
        """An update of `size` bytes went into its slot."""
        self._received += size

    def completed(self, round_number: int, loss: float, seconds: float) -> None:
        """A round ended."""
        point = HistoryPoint(round_number, self._node, None, loss, self._received, seconds)
        self._points[round_number], self._received = point, 0

    def evaluated(self, round_number: int, auprc: float | None) -> None:
        """The model after a round was measured on the pooled test rows."""
        if (point := self._points.get(round_number)) is not None:
            self._points[round_number] = replace(point, auprc=auprc)

    def points(self) -> list[HistoryPoint]:
        """The rounds so far, in order."""
        points = list(self._points.values())
        if points:
            points[-1] = replace(points[-1], bytes=points[-1].bytes + self._received)
        return points


class Quarantines:
    """One observer's quarantines, told as its standings change."""

    def __init__(self, observer: str) -> None:
        self._observer = observer
        self._told: list[Quarantine] = []

    def changed(self, subject: str, after: str, round_number: int, exchange: int) -> None:
        """The standing of `subject` became `after` in the observer's round `round_number`, at that exchange with it."""
        held = next((q for q in self._told if q.subject == subject and q.released_round is None), None)
        if after == "quarantined":
            self._told.append(Quarantine(self._observer, subject, round_number, exchange, None))
        elif held is not None:
            self._told[self._told.index(held)] = replace(held, released_round=round_number)

    def told(self) -> list[Quarantine]:
        """All so far, oldest first."""
        return list(self._told)


@dataclass(frozen=True)
class RunFile:
    """A whole run; `options` repeats how it was started, `versions` with what."""

    kind: Literal["cluster", "simulate", "bench"]
    seed: int
    rounds: int
    wall_seconds: float
    versions: dict[str, str]
    options: dict[str, Any]
    nodes: tuple[NodeRun, ...]
    baselines: Baselines = Baselines()
    quarantines: tuple[Quarantine, ...] = ()
    history: tuple[HistoryPoint, ...] = field(default=())
    simulated: Simulated | None = None
    """`None` of real daemons."""

    def auprc(self) -> tuple[float, ...]:
        """Pooled-test AUPRC of each honest node that has one."""
        tests = [node.test for node in self.nodes if node.role == "honest" and node.test]
        return tuple(test["auprc"] for test in tests if test["auprc"] is not None)


def versions() -> dict[str, str]:
    """Of this program and what its numbers depend on."""
    found = {"p2pfed": __version__, "python": platform.python_version()}
    return found | {name: importlib.metadata.version(name) for name in ("tensorflow", "keras", "numpy")}


def to_json(run: RunFile) -> dict[str, Any]:
    """The run as plain JSON values, `schema` first."""
    return {"schema": SCHEMA, **asdict(run)}


def from_json(value: Any) -> RunFile:
    """The run that `to_json` described; raises ValueError, KeyError or TypeError on anything else."""
    if not isinstance(value, dict) or value.get("schema") != SCHEMA:
        raise ValueError(f"expected a run file of schema {SCHEMA}")
    parts = {name: part for name, part in value.items() if name != "schema"}
    parts["nodes"] = tuple(_node(node) for node in value["nodes"])
    parts["baselines"] = Baselines(**value["baselines"])
    parts["quarantines"] = tuple(Quarantine(**quarantine) for quarantine in value["quarantines"])
    parts["history"] = tuple(HistoryPoint(**point) for point in value["history"])
    if parts.get("simulated") is not None:
        parts["simulated"] = Simulated(**parts["simulated"])
    return RunFile(**parts)


def _node(value: dict[str, Any]) -> NodeRun:
    alone = value["alone"]
    return NodeRun(**{**value, "alone": None if alone is None else Alone(**alone)})


def check_writable(path: Path) -> None:
    """Raise UsageError where the run file could not be written: hours later it would be too late to say so."""
    folder = path.absolute().parent
    if not folder.is_dir():
        raise UsageError(f"--json {path}: there is no directory {folder}; make it first")
    if path.is_dir() or not os.access(path if path.exists() else folder, os.W_OK):
        raise UsageError(f"--json {path} cannot be written; choose another file")


def write(run: RunFile, path: Path) -> None:
    """Write the run as JSON, a node and a round of a node a line; raises DiskFault.

    A regular file appears under its name when it is whole: what was there before is not lost to a full disk.
    """
    special = path.exists() and not path.is_file()
    try:
        with path.open("wb") if special else newfile.replacing(path) as file:
            file.writelines(piece.encode() for piece in _pieces(run))
    except OSError as error:
        raise DiskFault(f"the run file {path} cannot be written: {error.strerror}") from None


def _pieces(run: RunFile) -> Iterator[str]:
    """`to_json` as text. A long history is never there as a whole: it has hundreds of thousands of points."""
    yield f'{{"schema": {_text(SCHEMA)}'
    for part in fields(run):
        value = getattr(run, part.name)
        yield f",\n{_text(part.name)}: "
        if isinstance(value, tuple):
            yield "["
            for i, entry in enumerate(value):
                yield f"{',' if i else ''}\n {_text(entry)}"
            yield "]"
        else:
            yield _text(value)
    yield "}\n"


# a constant, for an encoder is made anew for each call of json.dumps with options
_text = json.JSONEncoder(allow_nan=False, default=vars).encode
"""A value, or a dataclass of values, in one line."""


def read(path: Path) -> RunFile:
    """Read a run file; raises DataError that names the file if it is not one."""
    try:
        return from_json(json.loads(path.read_text()))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not a run file of this version: {error}") from error
