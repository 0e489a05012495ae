#!/usr/bin/env python3
"""What the calendar's cycles make of a model: the first one against free running, and sixty on unchanging rows.

    scripts/bench_cycles.py [--only first,endure] [--sets ...] [--seeds 0,1,...] [--rounds N] [--cycles N] [--out FILE]

first   ULB and handbook, ten banks as in bench_quality.py: AUPRC on the pooled test of the banks' models after one
        cycle, and of what serves then, against as many rounds of free running with the same policy
endure  three banks with generated payments as README makes them, and a consortium of three of the handbook's smaller
        banks: after every cycle the own-test AUPRC of what serves and of the merged model, and the latter of free
        running for as many rounds at a constant rate. Moving averages over 5 % of the series, last against best

Every run is a simulation, and a line of --out; a benchmark that was interrupted goes on where it was. Reads
`ulb_creditcard.parquet` and `handbook_cards.parquet` from $P2PFED_TEST_DATA or ../shared/data. The exit code is 1 if a
bar is missed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import bench_quality
import numpy as np
import pandas as pd
from bench_instruments import Bar
from kept_cells import Cell, complete, key
from rich.console import Console
from rich.table import Table

from p2pfed.core.events import Event, Metrics, ModelEvaluated, ModelHeld, ModelPromoted
from p2pfed.core.model import DEFAULT_TRAINING
from p2pfed.core.rows import BankRows
from p2pfed.experiment.intervals import paired_interval
from p2pfed.learning.learner import EvaluateJob, ManyLearner
from p2pfed.sim.engine import Engine
from p2pfed.sim.host import Host
from p2pfed.sim.population import Population, load, populate
from p2pfed.sim.scenario import Scenario, scenario_from

ROUND_SECONDS = 10.0
TRAINING_SECONDS = 2.5
"""Of a round, whatever its steps: less than a third."""
MEMBER = "MEMBER"
FEW = (2, 8, 9)
"""Of the handbook's banks those that `endure` takes: 16,000 to 33,000 payments, some 230 frauds each."""
ENDURE_OWN_TEST = 0.15
"""As a bank's configuration has it by default."""
ENDURE_POOLED = 0.02
"""Nobody is measured on the pooled test there, but one is always held out."""

NAMES = ("part", "set", "seed", "kind", "rounds", "cycles")
"""What tells a run from others."""

HANDBOOK = bench_quality.SETS["handbook"]
TIMED = {name: HANDBOOK[name] for name in ("label", "time", "split")}
CHOSEN = {name: HANDBOOK[name] for name in ("learning_rate", "imbalance", "local_steps")}

FIRST: dict[str, dict[str, Any]] = {
    "ulb": {
        "nodes": 10,
        "data": {"file": str(bench_quality.SETS["ulb"]["data"]), "label": "Class", "drop": ["Time"]},
        "partition": bench_quality.SETS["ulb"]["partition"],
        "training": {"local_steps": bench_quality.SETS["ulb"]["local_steps"]},
    },
    "handbook": {
        "nodes": 10,
        "data": {
            **TIMED,
            "file": str(HANDBOOK["data"]),
            "drop": list(HANDBOOK["drop"]),
            "test_share": HANDBOOK["test_share"],
            "gap_days": HANDBOOK["gap_days"],
        },
        "partition": HANDBOOK["partition"],
        "model": {"dropout": HANDBOOK["dropout"]},
        "training": CHOSEN,
    },
}
ENDURE: dict[str, dict[str, Any]] = {
    "readme": {
        "nodes": 3,
        "data": {"rows": 60_000},
        "training": {
            "local_steps": DEFAULT_TRAINING.local_steps,
            "learning_rate": DEFAULT_TRAINING.learning_rate,
            "imbalance": DEFAULT_TRAINING.imbalance,
        },
    },
    "handbook-3": {
        "nodes": 3,
        "data": {**TIMED, "drop": [*HANDBOOK["drop"], "BANK"]},
        "partition": f"by:{MEMBER}",
        "model": {"dropout": HANDBOOK["dropout"]},
        "training": CHOSEN,
    },
}


def main() -> int:
    """Run what is not there yet, then print the tables; 1 if a bar is missed."""
    asked = _arguments()
    cells = [cell for part in asked.only for cell in _cells(part, asked)]
    done = complete(asked.out, cells, NAMES, _measure, _said)
    console = Console(width=None if sys.stdout.isatty() else 140)
    bars: list[Bar] = []
    for part, name in dict.fromkeys((cell["part"], cell["set"]) for cell in cells):
        runs = [done[key(cell, NAMES)] for cell in cells if (cell["part"], cell["set"]) == (part, name)]
        table, reached = (_first_table if part == "first" else _endure_table)(name, runs)
        console.print(table)
        bars += reached
    for bar in bars:
        print(bar)
    return 0 if all(bar.reached for bar in bars) else 1


def _arguments() -> argparse.Namespace:
    def listed(text: str) -> list[str]:
        return text.split(",")

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=listed, default=["first", "endure"], help="parts, separated by commas")
    parser.add_argument("--sets", type=listed, help=f"{', '.join(FIRST)} of first; {', '.join(ENDURE)} of endure")
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=list(range(5)))
    parser.add_argument("--rounds", type=int, default=60, help="of a cycle")
    parser.add_argument("--cycles", type=int, default=60, help="of endure")
    parser.add_argument("--no-free", action="store_true", help="endure without free running beside it")
    parser.add_argument("--out", type=Path, default=Path("bench-cycles.jsonl"))
    return parser.parse_args()


def _cells(part: str, asked: argparse.Namespace) -> Iterable[Cell]:
    known = FIRST if part == "first" else ENDURE
    kinds = ("calendar",) if part == "endure" and asked.no_free else ("calendar", "free")
    cycles = 1 if part == "first" else asked.cycles
    for name in known if asked.sets is None else [name for name in asked.sets if name in known]:
        for seed in asked.seeds:
            for kind in kinds:
                values = (part, name, seed, kind, asked.rounds, cycles)
                yield dict(zip(NAMES, values, strict=True))


# --- one run ----------------------------------------------------------------------------------------------------------


class Watched(Engine):
    """An engine that notes what each node measured after a cycle, or as many free rounds, and what serves then."""

    def __init__(self, population: Population, scenario: Scenario, learner: ManyLearner) -> None:
        super().__init__(population, scenario, learner)
        self.hosts: dict[int, Host] = {}
        self.measured: list[list[Cell]] = [[] for _ in population.banks]
        """Of each node, in order; the metrics by row set, and of what serves those on the bank's own test."""

    def emitted(self, time: float, host: Host, event: Event) -> None:
        """See `Watcher`."""
        super().emitted(time, host, event)
        self.hosts[host.index] = host
        if isinstance(event, ModelPromoted | ModelHeld | ModelEvaluated):
            serves = host.disk.champion
            known = {name: _figures(metrics) for name, metrics in event.metrics.items()}
            self.measured[host.index].append(
                {
                    "round": event.round,
                    "decided": not isinstance(event, ModelEvaluated),
                    "promoted": isinstance(event, ModelPromoted),
                    "merged": known,
                    "serves": None if serves is None else serves.metrics["own_test"]["auprc"],
                }
            )


def _figures(metrics: Metrics) -> Cell:
    wanted = ("auprc", "loss", "frauds", "borrowed", "alert_rate")
    return {name: metrics[name] for name in wanted if name in metrics}


def _measure(cell: Cell, folder: Path) -> Cell:
    from p2pfed.learning.batched import StackedLearner

    begin = time.monotonic()
    scenario = scenario_from(_scenario(cell, folder))
    population = populate(scenario, load(scenario))
    learner = StackedLearner(population.manifest.model, population.manifest.training, population.banks)
    engine = Watched(population, scenario, learner)
    history = engine.run()
    found: Cell = {"ended": history.ended, "quarantines": len(history.run.quarantines)}
    hosts = [engine.hosts[i] for i in range(scenario.nodes)]
    if cell["part"] == "first":
        kept = [host.kept for host in hosts]
        served = [host.disk.champion for host in hosts]
        found["merged"] = _pooled(learner, [k.vector for k in kept if k is not None])
        found["serves"] = _pooled(learner, [s.vector for s in served if s is not None])
    found["frauds"] = [_frauds(bank.rows) for bank in population.banks]
    found["banks"] = engine.measured
    return found | {"seconds": round(time.monotonic() - begin, 1)}


def _frauds(rows: BankRows) -> list[int]:
    return [rows.train.frauds, rows.validation.frauds, rows.own_test.frauds]


def _pooled(learner: ManyLearner, vectors: Sequence[Any]) -> list[float]:
    """AUPRC on the pooled test, which is the same for all banks."""
    jobs = [EvaluateJob(i, vector) for i, vector in enumerate(vectors)]
    return [float(result.metrics["test"]["auprc"]) for result in learner.evaluate(jobs)]


def _scenario(cell: Cell, folder: Path) -> dict[str, Any]:
    first = cell["part"] == "first"
    values = dict((FIRST if first else ENDURE)[cell["set"]])
    training, data = dict(values["training"]), dict(values["data"])
    if not first:
        data |= {"test_share": ENDURE_POOLED, "own_test_share": ENDURE_OWN_TEST}
        values["evaluate"] = {"every": cell["rounds"]}
    if cell["set"] == "handbook-3":
        data["file"] = str(_few(folder))
    if cell["kind"] == "calendar":
        length = cell["rounds"] * ROUND_SECONDS
        # so short a rest that no cycles follow each other without any at the beginning
        every = int(1.5 * length)
        values["calendar"] = {
            "every_seconds": every,
            "rounds": cell["rounds"],
            "round_seconds": ROUND_SECONDS,
            "cycles": cell["cycles"],
        }
    else:
        values |= {"rounds": cell["rounds"] * cell["cycles"], "gossip": {"heartbeat_seconds": 1.0}}
        if not first:
            training["decay_rounds"] = []
    return values | {
        "version": 1,
        "name": "cycles",
        "seed": cell["seed"],
        "data": data,
        "training": training,
        "compute": {"seconds_per_step": TRAINING_SECONDS / training["local_steps"]},
    }


def _few(folder: Path) -> Path:
    """The payments of some of the handbook's banks, with a column `MEMBER`."""
    path = folder / "handbook-few.parquet"
    if not path.exists():
        frame = pd.read_parquet(HANDBOOK["data"])
        frame = frame[frame["BANK"].isin(FEW)]
        frame.assign(**{MEMBER: frame["BANK"].map(FEW.index)}).to_parquet(path)
    return path


# --- tables -----------------------------------------------------------------------------------------------------------


def _said(cell: Cell) -> str:
    where = f"{cell['part']} {cell['set']} seed {cell['seed']} {cell['kind']}, {cell['seconds']:.0f} s: "
    if cell["part"] == "first":
        means = (statistics.fmean(cell[what]) for what in ("merged", "serves"))
        return where + "mean AUPRC of the merged {:.4f}, of what serves {:.4f}".format(*means)
    each = [", ".join(f"{ratio:.3f}" for ratio in _ratios(cell, what)) for what in _told(cell)]
    return where + "; ".join(f"{what} {ratios}" for what, ratios in zip(_told(cell), each, strict=True))


def _first_table(name: str, cells: Sequence[Cell]) -> tuple[Table, list[Bar]]:
    runs = {(cell["kind"], cell["seed"]): cell for cell in cells}
    seeds = sorted({cell["seed"] for cell in cells})
    table = Table(title=f"{name}: one cycle of {cells[0]['rounds']} rounds, AUPRC on the pooled test")
    for column in ("models", *(f"seed {seed}" for seed in seeds), "mean", "minus free running's, 95 %"):
        table.add_column(column, justify="left" if column == "models" else "right")
    rows = [("calendar", "merged"), ("calendar", "serves"), ("free", "merged")]
    bars = []
    for measure, of in (("mean", statistics.fmean), ("worst", min)):
        free = [of(runs["free", seed]["merged"]) for seed in seeds]
        for kind, what in rows:
            mine = [of(runs[kind, seed][what]) for seed in seeds]
            gap = "" if kind == "free" or len(seeds) < 2 else str(paired_interval(mine, free))
            table.add_row(
                f"{kind}, {what}, {measure} bank", *(f"{x:.4f}" for x in mine), f"{statistics.fmean(mine):.4f}", gap
            )
            if kind == "calendar":
                lost = statistics.fmean(free) - statistics.fmean(mine)
                bars.append(Bar(f"{name}: {measure} bank, {what}, below free running", lost, 0.003))
    took = [[runs[kind, seed]["seconds"] for kind in ("calendar", "free")] for seed in seeds]
    table.add_row("seconds, calendar + free", *("{:.0f} + {:.0f}".format(*both) for both in took))
    return table, bars


def _endure_table(name: str, cells: Sequence[Cell]) -> tuple[Table, list[Bar]]:
    first = cells[0]
    table = Table(
        title=f"{name}: {first['cycles']} cycles of {first['rounds']} rounds, own-test AUPRC, moving averages"
    )
    for column in ("run", "bank", "frauds: train, validation, test", "first", "best", "last", "last / best"):
        table.add_column(column, justify="left" if column == "run" else "right")
    worst: dict[str, list[float]] = {}
    for cell in cells:
        for what in _told(cell):
            for bank, series in enumerate(_series(cell, what)):
                smooth = _moving(series)
                figures = (smooth[0], smooth.max(), smooth[-1], smooth[-1] / smooth.max())
                run, frauds = f"seed {cell['seed']}, {cell['kind']}, {what}", "/".join(map(str, cell["frauds"][bank]))
                table.add_row(run, str(bank + 1), frauds, *(f"{figure:.4f}" for figure in figures))
            worst.setdefault(f"{cell['kind']}, {what}", []).extend(_ratios(cell, what))
    for what, found in worst.items():
        table.add_row(f"all, {what}", "mean", "", "", "", "", f"{statistics.fmean(found):.4f}")
        table.add_row(f"all, {what}", "worst", "", "", "", "", f"{min(found):.4f}")
    served = worst["calendar, serves"]
    return table, [
        Bar(f"{name}: what serves, share lost of its best, mean bank", 1 - statistics.fmean(served), 0.01),
        Bar(f"{name}: the same, worst bank", 1 - min(served), 0.03),
    ]


def _told(cell: Cell) -> tuple[str, ...]:
    return ("serves", "merged") if cell["kind"] == "calendar" else ("merged",)


def _series(cell: Cell, what: str) -> list[list[float]]:
    """Each bank's own-test AUPRC, after every cycle or as many free rounds."""
    decided = [[m for m in bank if m["decided"] or cell["kind"] == "free"] for bank in cell["banks"]]
    if what == "serves":
        return [[m["serves"] for m in bank] for bank in decided]
    return [[m["merged"]["own_test"]["auprc"] for m in bank] for bank in decided]


def _moving(series: Sequence[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Means over 5 % of the series."""
    window = max(1, round(len(series) * 0.05))
    return np.convolve(np.asarray(series, np.float64), np.full(window, 1 / window), "valid")


def _ratios(cell: Cell, what: str) -> list[float]:
    return [float(smooth[-1] / smooth.max()) for smooth in map(_moving, _series(cell, what))]


if __name__ == "__main__":
    sys.exit(main())
