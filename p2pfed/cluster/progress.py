"""What a run shows while it goes on: a live table on a terminal, a line now and then anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from p2pfed.cluster.running import NodeProgress

LINE_SECONDS = 5.0
"""Between two plain lines."""
STILL_SECONDS = 30.0
"""A node that has not come further for so long is named."""
NAMED = 5
"""Nodes that are named at most."""


class Pace:
    """How long something takes, by how fast it has gone since its first piece was seen."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._first: tuple[float, float] | None = None

    def seconds_left(self, done: float, total: float) -> float | None:
        """None before the pace is known."""
        now = self._clock()
        if done == 0:
            return None
        if self._first is None:
            self._first = (now, done)
        begin, at_first = self._first
        if done <= at_first:
            return None
        return (total - done) * (now - begin) / (done - at_first)


class Stillness:
    """Which nodes have not come further for `STILL_SECONDS`, and so may keep a run from its end."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._moved: dict[str, tuple[tuple[str, int], float]] = {}

    def said(self, progress: Sequence[NodeProgress]) -> str:
        """` · waits for bank-2, bank-3`; empty where all come further."""
        now, still = self._clock(), []
        for node in progress:
            at = node.state, node.round
            if node.finished or self._moved.get(node.name, (None, now))[0] != at:
                self._moved[node.name] = at, now
            elif now - self._moved[node.name][1] >= STILL_SECONDS:
                still.append(node.name)
        more = [f"{len(still) - NAMED} more"] if len(still) > NAMED else []
        return f" · waits for {', '.join(still[:NAMED] + more)}" if still else ""


class Screen:
    """Shows steps and the nodes' progress on `console`; everything goes to standard error, data to standard output."""

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console or Console(stderr=True)
        self._clock = clock
        self._live: Live | None = None
        self._last_line = float("-inf")
        self._pace, self._stillness = Pace(clock), Stillness(clock)
        self._addressed = False
        self._said = ""

    def step(self, text: str) -> None:
        """Say what happens now."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def nodes(self, progress: Sequence[NodeProgress], rounds: int, per_cycle: int = 0) -> None:
        """Show how far the nodes are of their `rounds` in all, `per_cycle` of them a cycle; 0 is no cycles."""
        if not self._addressed and all(node.address for node in progress):
            self._addressed = True
            self.step(
                "\n".join(f"{node.name} says how it is at http://{node.address}/api/v1/status" for node in progress)
            )
        left = self._pace.seconds_left(sum(node.round for node in progress), rounds * len(progress))
        waits = self._stillness.said(progress)
        if self._live is not None:
            self._live.update(_table(progress, rounds, f"{minutes(left)}{waits}", per_cycle), refresh=True)
        elif self._clock() - self._last_line >= LINE_SECONDS:
            line = _line(progress, rounds, left, per_cycle) + waits
            if line != self._said:
                self._last_line, self._said = self._clock(), line
                self.step(line)

    def __enter__(self) -> Screen:
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


def _table(progress: Sequence[NodeProgress], rounds: int, left: str, per_cycle: int) -> Table:
    table = Table(caption=f"time left {left} · Ctrl-C stops every process", caption_justify="left")
    for name in ("bank", "state"):
        table.add_column(name)
    for name in ("round", "AUPRC", "exchanges"):
        table.add_column(name, justify="right")
    for node in progress:
        table.add_row(
            node.name,
            node.state,
            place(node.round, per_cycle) if per_cycle else f"{node.round}/{rounds}",
            "-" if node.auprc is None else f"{node.auprc:.3f}",
            str(node.exchanged),
        )
    return table


def _line(progress: Sequence[NodeProgress], rounds: int, left: float | None, per_cycle: int) -> str:
    if not any(node.round for node in progress):
        up = sum(node.state != "starting" for node in progress)
        return f"{up} of {len(progress)} daemons are up and wait for their trainers, which import TensorFlow first"
    slowest, fastest = min(node.round for node in progress), max(node.round for node in progress)
    known = [node.auprc for node in progress if node.auprc is not None]
    auprc = f"{sum(known) / len(known):.3f}" if known else "-"
    exchanged = sum(node.exchanged for node in progress)
    done = place(slowest, per_cycle)
    if fastest != slowest:
        done += f" to {place(fastest, per_cycle)}"
    done = f"{done} of {rounds // per_cycle} cycles" if per_cycle else f"round {done} of {rounds}"
    return f"{done} · mean AUPRC {auprc} · {exchanged} exchanges · time left {minutes(left)}"


def place(number: int, per_cycle: int) -> str:
    """Where the round `number` of all is: the number itself, or cycle (from 1) and round where there are cycles."""
    if not per_cycle:
        return str(number)
    cycle, before = divmod(max(number - 1, 0), per_cycle)
    return f"cycle {cycle + 1} round {before + (number > 0)}"


def minutes(seconds: float | None) -> str:
    """`1:15`; `unknown` for None."""
    if seconds is None:
        return "unknown"
    whole, rest = divmod(round(seconds), 60)
    return f"{whole}:{rest:02d}"
