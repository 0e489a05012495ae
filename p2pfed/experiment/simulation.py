"""A scenario in virtual time, from a file or a mapping to a history, and that as files, pictures and a table."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import statistics
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from p2pfed import results
from p2pfed.core.aggregation import code_allowed
from p2pfed.errors import DataError, DiskFault, Interrupted, LocalFault, UsageError
from p2pfed.experiment.progress import Screen
from p2pfed.experiment.stopping import Stop, stoppable
from p2pfed.results import RunFile, Simulated
from p2pfed.sim import feasibility
from p2pfed.sim import run as sim
from p2pfed.sim.history import DONE, STOPPED, History, Progress
from p2pfed.sim.scenario import Scenario, load_scenario, scenario_from

RESULTS, ROUNDS, SPREAD = "results.json", "history.parquet", "spread.parquet"
EXTRAS = (
    # module, what is not written without it, extra that brings it
    ("pyarrow", f"{ROUNDS} and {SPREAD}", "parquet"),
    ("matplotlib", "pictures", "research"),
)
LEGEND = """AUPRC: of the honest banks' last models, on the pooled test; spread: standard deviation;
received: everything, a round and honest bank; inputs: messages, timers, results of training"""


def simulate(
    scenario: Scenario | Mapping[str, Any] | Path | str,
    out: Path | str | None = None,
    *,
    settings: Sequence[str] = (),
    watch: Callable[[Progress], None] | None = None,
    transcript: bool = False,
    allow_code: bool = False,
) -> History:
    """Run a scenario, which is a file's path, nested mappings with the same keys, or a Scenario; returns its history.

    With `out`, that folder gets what `p2pfed simulate` writes. `settings` lie over a file like `--set key=value`,
    `watch` is told the progress now and then, `transcript` asks for readable lines of what happened, and `allow_code`
    lets a merge rule be `module:Class`. Ctrl-C ends the run and returns what there is. Raises ConfigError, UsageError
    and DataError for what cannot be run, before anything starts, and DiskFault.
    """
    with code_allowed(allow_code):
        if isinstance(scenario, Scenario | Mapping):
            if settings:
                raise UsageError("settings lie over a file: change the mapping itself")
            made = scenario if isinstance(scenario, Scenario) else scenario_from(scenario)
        else:
            made = load_scenario(Path(scenario), settings)
        if out is not None:
            claim(Path(out), made)
        history = sim.simulate(made, watch, transcript=transcript)
    if out is not None:
        write(history, Path(out))
    return history


def run(
    scenario: Scenario, folder: Path, screen: Screen, *, pictures: bool = True, json: Path | None = None
) -> History:
    """What `p2pfed simulate` does: the same shown on `screen`, and stopped by Ctrl-C, SIGTERM and a closed terminal.

    `json` gets the run file, too. Raises UsageError and DataError for what cannot be run, before anything is said to
    start, DiskFault, and Interrupted if it was stopped before it began or while results, now whole, were written.
    """
    claim(folder, scenario)
    feasibility.check(scenario, None, feasibility.available_memory())
    for module, what, extra in EXTRAS:
        if not _installed(module) and (pictures or module != "matplotlib"):
            screen.step(f"{module} is not installed: no {what} will be written (pip install 'p2pfed[{extra}]')")
    with stoppable(screen) as stop:
        with _before_it_began(stop):
            stop.engine = sim.prepare(scenario, screen.show, screen.step)
        begins = f"simulating {scenario.nodes:,} banks for {scenario.rounds:,} rounds"
        screen.step(f"{begins}; Ctrl-C ends it and keeps results")
        with screen:
            history = stop.engine.run()
        stop.writing = True
        screen.step(f"writing results to {folder}")
        write(history, folder, pictures=pictures, say=screen.step)
        if json is not None:
            results.write(run_file(history), json)
    if stop.asked and history.ended != STOPPED:
        raise Interrupted(f"stopped by the operator, after all rounds: the results in {folder} are complete")
    return history


@contextlib.contextmanager
def _before_it_began(stop: Stop) -> Iterator[None]:
    """Raise Interrupted if somebody stops the block, whatever became of the KeyboardInterrupt on its way."""
    try:
        yield
    except BaseException:
        if not stop.asked:
            raise
    if stop.asked:
        raise Interrupted("stopped by the operator before the simulation began: there are no results")


def write(history: History, folder: Path, *, pictures: bool = True, say: Callable[[str], None] = warnings.warn) -> None:
    """Write the run file, the tables of rounds and of spread, and the pictures into `folder`; raises DiskFault.

    What needs a package that is not installed is left out, and `say` is told of one that is broken.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DiskFault(f"{folder} cannot be made: {error.strerror}") from None
    results.write(run_file(history), folder / RESULTS)
    if _installed("pyarrow"):
        with _said_if_broken("pyarrow", f"{ROUNDS} and {SPREAD} could not be written", say):
            from p2pfed.data import files
            from p2pfed.experiment import tables

            files.write(tables.rounds(history), folder / ROUNDS)
            files.write(tables.spread(history), folder / SPREAD)
    if pictures and _installed("matplotlib"):
        with _said_if_broken("matplotlib", "the pictures could not be drawn", say):
            from p2pfed.experiment import plots

            plots.draw(history, folder)


@contextlib.contextmanager
def _said_if_broken(module: str, lost: str, say: Callable[[str], None]) -> Iterator[None]:
    """Tell of whatever a broken package raises: what needs none of it is worth having without."""
    try:
        yield
    except DiskFault:
        raise
    except Exception as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())
        say(f"{lost} ({why}); the other results are whole, so look whether {module} is installed well")


def claim(folder: Path, scenario: Scenario) -> None:
    """Raise UsageError unless results may go into `folder`: new, empty, or with older results of the same scenario."""
    if folder.is_dir() and any(folder.iterdir()):
        older = _scenario_of(folder / RESULTS)
        if older is None:
            raise UsageError(f"{folder} holds other files than a simulation's results; name a new folder with --out")
        if differing := _differing(older, scenario.model_dump(mode="json")):
            what = ", ".join(differing[:5]) + (" and more" if len(differing) > 5 else "")
            raise UsageError(
                f"{folder} holds results of another scenario, which differs in {what}; name a new folder with --out, "
                "or remove that one"
            )
    nearest = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise UsageError(f"--out {folder}: {nearest} cannot be written to")


def _scenario_of(path: Path) -> dict[str, Any] | None:
    """The scenario that a run file has results of; None if it is none of a simulation."""
    try:
        run = results.read(path)
    except (OSError, DataError):
        return None
    return run.options if run.kind == "simulate" else None


def _differing(one: Any, other: Any, place: str = "") -> list[str]:
    """Where two scenarios differ, as keys with dots."""
    if isinstance(one, dict) and isinstance(other, dict):
        return [
            found
            for key in dict.fromkeys((*one, *other))
            for found in _differing(one.get(key), other.get(key), f"{place}.{key}" if place else key)
        ]
    return [] if one == other else [place]


def run_file(history: History) -> RunFile:
    """The run file of a simulation."""
    interrupted = history.ended == STOPPED
    ended = f"stopped by the operator after rounds {_rounds(history)}" if interrupted else history.ended
    simulated = Simulated(history.virtual_seconds, history.inputs_handled, history.digest, ended, interrupted)
    return replace(history.run, simulated=simulated)


def check_ended(history: History) -> None:
    """Raise Interrupted if somebody stopped the simulation, LocalFault if it came to no end by itself."""
    ended = run_file(history).simulated
    assert ended is not None
    if ended.interrupted:
        raise Interrupted(ended.ended)
    if history.ended != DONE:
        raise LocalFault(ended.ended)


def closing_table(history: History) -> str:
    """What came out, a line each, and a legend."""
    run, seconds = history.run, max(history.run.wall_seconds, 1e-9)
    honest = [node for node in run.nodes if node.role == "honest"]
    attackers = len(run.nodes) - len(honest)
    reached = {n.name: n.test["auprc"] for n in honest if n.test and n.test["auprc"] is not None}
    received = sum(n.bytes_received for n in honest) / max(sum(n.rounds for n in honest), 1)
    rows = [
        ("banks", f"{len(run.nodes):,}", f"{attackers:,} of them attackers" if attackers else ""),
        ("rounds", _rounds(history), ""),
        *_auprc_rows(reached, any(n.test for n in honest)),
        ("received", f"{received / 1e3:,.1f} kB", ""),
        ("virtual time", f"{history.virtual_seconds:,.0f} s", ""),
        ("wall time", f"{seconds:,.1f} s", ""),
        ("inputs", f"{history.inputs_handled:,}", f"{history.inputs_handled / seconds:,.0f} a second"),
        ("result hash", history.digest[:16], ""),
    ]
    widths = [max(len(row[i]) for row in rows) for i in (0, 1)]
    lines = [f"{name:<{widths[0]}}  {value:>{widths[1]}}  {more}".rstrip() for name, value, more in rows]
    return "\n".join([f"{run.options['name']}, seed {run.seed}", "", *lines, "", LEGEND])


def _auprc_rows(reached: dict[str, float], measured: bool) -> list[tuple[str, str, str]]:
    if not reached:
        return [("AUPRC", "-", "no fraud in the pooled test" if measured else "no model was measured")]
    worst = min(reached, key=reached.__getitem__)
    return [
        ("AUPRC mean", f"{statistics.fmean(reached.values()):.3f}", ""),
        ("AUPRC worst", f"{reached[worst]:.3f}", worst),
        ("AUPRC spread", f"{statistics.pstdev(reached.values()):.3f}", ""),
    ]


def _rounds(history: History) -> str:
    """`20 of 20`, `3 to 7 of 20`."""
    done = [node.rounds for node in history.run.nodes]
    few, many = min(done), max(done)
    return f"{few}{'' if few == many else f' to {many}'} of {history.run.rounds}"


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
