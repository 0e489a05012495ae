"""Fraud quality of gossip against its rivals at equal budget, over seeds: real daemons, real payments.

    scripts/bench_quality.py [--sets ulb,handbook] [--seeds 5] [--nodes 10] [--out DIR]

Reads `ulb_creditcard.parquet` and `handbook_cards.parquet` from $P2PFED_TEST_DATA or ../shared/data. Keeps one run file
a seed in --out and uses those already there, so that an interrupted benchmark goes on where it was.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from p2pfed import configfile, results
from p2pfed.cluster.options import ClusterOptions
from p2pfed.cluster.progress import Screen
from p2pfed.core.consortium import parse_signed
from p2pfed.data.features import load_bank
from p2pfed.experiment import comparison
from p2pfed.experiment.boosted import boosted_trees
from p2pfed.experiment.intervals import paired_interval
from p2pfed.results import RunFile

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("P2PFED_TEST_DATA", HERE.parent.parent / "shared" / "data"))

SETS: dict[str, dict[str, Any]] = {
    "ulb": {
        "data": DATA / "ulb_creditcard.parquet",
        "label": "Class",
        "drop": ("Time",),
        "split": "stratified",
        "partition": "dirichlet:0.5",
        "rounds": 80,
        "local_steps": 30,
    },
    "handbook": {
        "data": DATA / "handbook_cards.parquet",
        "label": "TX_FRAUD",
        "drop": (
            "TRANSACTION_ID",
            "TX_DATETIME",
            "CUSTOMER_ID",
            "TERMINAL_ID",
            "TX_TIME_DAYS",
            "TX_FRAUD_SCENARIO",
        ),
        "time": "TX_TIME_SECONDS",
        "split": "time",
        # the newest two weeks, after one left out
        "test_share": 0.2257,
        "gap_days": 7,
        "partition": "by:BANK",
        "rounds": 60,
        "local_steps": 100,
        # chosen on validation rows; every method is given them
        "learning_rate": 1e-2,
        "dropout": 0.1,
        "imbalance": "none",
        # measuring 120,000 test rows takes longer than a round
        "evaluate_every": 20,
    },
}
CENTRALISED_SHARE = {"ulb": 0.98, "handbook": 0.94}


def main() -> None:
    arguments = _arguments()
    arguments.out.mkdir(parents=True, exist_ok=True)
    console = Console()
    for name in arguments.sets.split(","):
        runs = [_run(name, seed, arguments) for seed in range(arguments.seeds)]
        console.print(_table(name, runs))
        for line in _verdicts(name, runs):
            console.print(line, highlight=False)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sets", default="ulb,handbook")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--nodes", type=int, default=10)
    parser.add_argument("--rounds", type=int, help="other than the set's own")
    parser.add_argument("--out", type=Path, default=Path("bench-quality"))
    parser.add_argument(
        "--set", action="append", default=[], metavar="OPTION=VALUE", help="another cluster option, JSON"
    )
    return parser.parse_args()


def _run(name: str, seed: int, arguments: argparse.Namespace) -> tuple[RunFile, dict[str, Any]]:
    """The run of one seed, from its file if it was made before, and its boosted trees."""
    path = arguments.out / f"{name}-{seed}.json"
    trees = path.with_suffix(".trees.json")
    if path.exists() and trees.exists():
        return results.read(path), json.loads(trees.read_text())
    asked = SETS[name] | {key: json.loads(value) for key, value in (pair.split("=", 1) for pair in arguments.set)}
    if arguments.rounds:
        asked["rounds"] = arguments.rounds
    folder = Path(tempfile.mkdtemp(prefix="p2pfed-bench-"))
    options = ClusterOptions(
        nodes=arguments.nodes,
        seed=seed,
        baselines=("alone", "centralised", "fedavg"),
        directory=folder,
        json=path,
        **asked,
    )
    try:
        screen = Screen()
        screen.step(f"--- {name}, seed {seed}")
        run = comparison.run(options, screen)
        path.with_suffix(".trees.json").write_text(json.dumps(_trees(folder)))
    finally:
        shutil.rmtree(folder)
    return run, json.loads(trees.read_text())


def _trees(folder: Path) -> dict[str, Any]:
    configurations = sorted(folder.glob("bank-*/node.yaml"))
    manifest = parse_signed(next(folder.glob("bank-1/state/manifests/1.json")).read_bytes()).manifest
    banks = [load_bank(configfile.load(p).data, manifest.contract, time.time()).rows for p in configurations]
    return dataclasses.asdict(boosted_trees(banks))


def _figures(run: RunFile, trees: dict[str, Any]) -> dict[str, float]:
    """AUPRC on the pooled test, by method."""
    together = run.auprc()
    alone = [node.alone.test["auprc"] for node in run.nodes if node.alone and node.alone.test]
    assert run.baselines.centralised is not None
    assert run.baselines.fedavg is not None
    return {
        "gossip, mean bank": statistics.fmean(together),
        "gossip, worst bank": min(together),
        "centralised": run.baselines.centralised["auprc"],
        "FedAvg": run.baselines.fedavg["auprc"],
        "alone, mean bank": statistics.fmean(alone),
        "alone, worst bank": min(alone),
        "boosted trees, pooled": trees["pooled"],
        "boosted trees alone, mean bank": statistics.fmean(trees["alone"]),
        "boosted trees alone, worst bank": min(trees["alone"]),
    }


def _table(name: str, runs: Sequence[tuple[RunFile, dict[str, Any]]]) -> Table:
    figures = [_figures(*run) for run in runs]
    first = runs[0][0]
    table = Table(title=f"{name}: {len(first.nodes)} banks, {first.rounds} rounds, AUPRC on the pooled test")
    table.add_column("method")
    for run, _ in runs:
        table.add_column(f"seed {run.seed}", justify="right")
    table.add_column("mean", justify="right")
    table.add_column("gossip's mean bank minus this, 95 %", justify="right")
    ours = [f["gossip, mean bank"] for f in figures]
    for method in figures[0]:
        theirs = [f[method] for f in figures]
        gap = "" if method.startswith("gossip") else str(paired_interval(ours, theirs))
        table.add_row(method, *(f"{value:.3f}" for value in theirs), f"{statistics.fmean(theirs):.3f}", gap)
    table.add_row("wall seconds", *(f"{run.wall_seconds:.0f}" for run, _ in runs))
    return table


def _verdicts(name: str, runs: Sequence[tuple[RunFile, dict[str, Any]]]) -> list[str]:
    """The bars of the design, each with what was reached."""
    figures = [_figures(*run) for run in runs]
    gossip = statistics.fmean(f["gossip, mean bank"] for f in figures)
    fedavg = statistics.fmean(f["FedAvg"] for f in figures)
    share = gossip / statistics.fmean(f["centralised"] for f in figures)
    lost = min(
        node.test["auprc"] - node.alone.test["auprc"]
        for run, _ in runs
        for node in run.nodes
        if node.test and node.alone and node.alone.test
    )
    bars = [
        (gossip >= fedavg - 0.005, f"mean bank {gossip:.4f}, FedAvg {fedavg:.4f} (bar: no more than 0.005 below)"),
        (share >= CENTRALISED_SHARE[name], f"{share:.4f} of centralised (bar: {CENTRALISED_SHARE[name]})"),
        (lost >= -0.01, f"the bank that gains least beside being alone: {lost:+.4f} (bar: -0.01)"),
    ]
    return [f"{'reached' if reached else 'MISSED '}  {text}" for reached, text in bars]


if __name__ == "__main__":
    main()
