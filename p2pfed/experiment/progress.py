"""What a simulation shows while it goes on: a bar on a terminal, a line now and then anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from p2pfed.cluster.progress import LINE_SECONDS, Pace, minutes
from p2pfed.sim.history import Progress


class Screen:
    """Shows steps and progress on `console`, by default standard error: data goes to standard output."""

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console or Console(stderr=True)
        self._clock, self._pace = clock, Pace(clock)
        self._last_line = float("-inf")
        self._said = ""
        columns = TextColumn("{task.description}"), BarColumn(None), TextColumn("{task.fields[rest]}")
        self._bar = Bar(*columns, console=self._console, refresh_per_second=4, transient=True, expand=True)
        self._task = self._bar.add_task("", total=1.0, rest="", visible=False)

    def step(self, text: str) -> None:
        """Say what happens now."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def show(self, progress: Progress) -> None:
        """Show how far the simulation is."""
        left = self._pace.seconds_left(progress.share_done, 1.0)
        rounds, rest = _rounds(progress), _rest(progress, left)
        if self._console.is_terminal:
            self._bar.update(self._task, description=rounds, completed=progress.share_done, rest=rest, visible=True)
        elif self._clock() - self._last_line >= LINE_SECONDS and rounds + rest != self._said:
            self._last_line, self._said = self._clock(), rounds + rest
            self.step(f"{rounds} · {rest}")

    def __enter__(self) -> Screen:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._bar.stop()


def _rounds(progress: Progress) -> str:
    mean = int(progress.mean_rounds)
    slowest = f" (slowest {progress.fewest_rounds})" if progress.fewest_rounds < mean else ""
    return f"round {mean} of {progress.rounds}{slowest}"


def _rest(progress: Progress, left: float | None) -> str:
    auprc = "-" if progress.auprc is None else f"{progress.auprc:.3f}"
    up = f"{progress.nodes_up:,} node{'' if progress.nodes_up == 1 else 's'} up"
    return f"mean AUPRC {auprc} · {up} · {progress.virtual_seconds:,.0f} s virtual · time left {minutes(left)}"
