#!/usr/bin/env python3
"""Whether honest banks that differ are quarantined: kinds of difference x data sets x seeds, without any attacker.

    scripts/bench_differences.py [--sets ulb,handbook,...] [--differences iid,rate:8,...] [--nodes 12] [--seeds 5]
                                 [--rounds 60] [--out FILE]

A cell is one simulation; each is kept as a line of --out, and a benchmark that was interrupted goes on where it was.
What counts are pairs of an honest observer and an honest subject that publishes: how many were ever in quarantine, how
many at the end, and by how many others the bank was that most quarantined. Reads `ulb_creditcard.parquet`,
`handbook_cards.parquet` and `paysim.parquet` from $P2PFED_TEST_DATA or ../shared/data; the others need no file.

Sets: `weak` is made up so that fraud hardly shows (AUROC .75, 3.7 % of the rows), as in applications for credit; there
the base rate decides most of what a model says. `weak2` is another draw, with more columns and fewer frauds. Constants
are chosen on ulb, handbook and weak, and confirmed on paysim, generated and weak2.

Differences: `iid` is none; `rate:F` leaves bank-1 one in F of its legitimate rows, so that it has about F times the
others' share of frauds; `rates:F` does so at every third bank, by F down to 1; `tiny` leaves it some 220 rows, 15 of
them fraud, and `odd` moves the legitimate ones of these by a deviation a column, in one direction. `units:F` has
bank-1's amounts F times as large, as if nobody had seen that they are in another unit; what the others lose by that is
the last column against that of `iid`. `unusual` has five banks that differ at once, as `p2pfed data make --unusual`
makes them. All else deals the rows as `partition` of a scenario does: `dirichlet:0.1`, `lognormal:2` (sizes over three
orders of magnitude), `by:COLUMN`. Some deals leave a bank nothing but frauds: these cells say so.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import bench_poisoning
import bench_quality
import numpy as np
import pandas as pd
from kept_cells import Cell, complete, key
from rich.console import Console
from rich.table import Table

from p2pfed.core.contract import FeatureContract
from p2pfed.core.reputation.params import STANDARD, ReputationParams
from p2pfed.core.rows import BankRows, Rows
from p2pfed.data.banks import LoadedBanks
from p2pfed.errors import DataError
from p2pfed.sim.population import load, populate
from p2pfed.sim.scenario import scenario_from

NAMES = ("set", "difference", "nodes", "rounds", "seed")
TINY, TINY_FRAUDS = {"bank": "bank-1", "rows": 270}, 15
"""A quarter of the rows are fraud at first, and of these so many stay."""
SETS: dict[str, dict[str, Any]] = {
    "ulb": bench_poisoning.SETS["ulb"],
    "handbook": bench_poisoning.SETS["handbook"],
    "paysim": {
        "data": {
            "label": "isFraud",
            # what a balance is after the payment gives frauds of this simulation away
            "drop": ["step", "nameOrig", "nameDest", "isFlaggedFraud", "newbalanceOrig", "newbalanceDest"],
        },
        "training": {"local_steps": 20},
    },
    "generated": {"data": {"rows": 120_000}, "training": {"local_steps": 20}},
    "weak": {"data": {"label": "fraud"}, "training": {"local_steps": 20}},
    "weak2": {"data": {"label": "fraud"}, "training": {"local_steps": 20}},
}
WEAK = {"weak": (12, 1.1, -3.9), "weak2": (24, 0.9, -4.6)}
"""Columns, how much they tell, and the log odds of fraud of a usual row."""
DIFFERENCES = (
    "iid",
    "rate:3",
    "rate:8",
    "rate:12",
    "rates:12",
    "tiny",
    "odd",
    "units:100",
    "lognormal:2",
    "dirichlet:0.1",
    "dirichlet:0.3",
    "dirichlet:1",
)
AMOUNTS = {"ulb": "Amount", "handbook": "TX_AMOUNT", "weak": "x0", "weak2": "x0"}
"""The column that `units:F` is about; of the other sets `amount`."""
GROUPS = {"handbook": (f"by:{bench_poisoning.MEMBER}",), "generated": ("by:bank", "unusual")}


def main() -> None:
    """Run the cells that are not there yet, then print the table."""
    asked = _arguments()
    cells = [
        {"set": name, "difference": difference, "nodes": asked.nodes, "rounds": asked.rounds, "seed": seed}
        for name in asked.sets
        for difference in asked.differences or (*DIFFERENCES, *GROUPS.get(name, ()))
        if name == "generated" or difference != "unusual"  # only these can be made so
        for seed in range(asked.seeds)
    ]
    done = complete(asked.out, cells, NAMES, measure, _said)
    Console(width=None if sys.stdout.isatty() else 120).print(table([done[key(cell, NAMES)] for cell in cells]))


def _arguments() -> argparse.Namespace:
    def listed(text: str) -> list[str]:
        return text.split(",")

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=listed, default=list(SETS))
    parser.add_argument("--differences", type=listed, help="in the place of each set's own")
    parser.add_argument("--nodes", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path("bench-differences.jsonl"))
    return parser.parse_args()


def measure(cell: Cell, folder: Path, judging: ReputationParams = STANDARD) -> Cell:
    """One simulation: who quarantined whom, and AUPRC on the pooled test; `folder` is for files on the way.

    Reputation goes by `judging`.
    """
    scenario = scenario_from(_values(cell, folder))
    try:
        loaded = load(scenario)
    except DataError as error:  # a deal may leave a bank nothing but frauds
        return {"auprc": None, "worst": None, "others": None, "pairs": 0, "wrongs": [], "error": str(error)}
    loaded = _different(loaded, cell)
    population = dataclasses.replace(populate(scenario, loaded), judging=judging)
    history = bench_poisoning.stacked_engine(scenario, population).run()
    wrongs = [[q.observer, q.subject, q.round, q.released_round] for q in history.run.quarantines]
    least = population.manifest.gossip.publish_min_frauds
    publishers = sum(frauds >= least for frauds in population.train_frauds)
    return {
        "auprc": statistics.fmean(history.run.auprc()),
        "worst": min(history.run.auprc()),
        "others": statistics.fmean(history.run.auprc()[1:]),
        "pairs": publishers * (cell["nodes"] - 1),
        "wrongs": wrongs,
    }


def _different(loaded: LoadedBanks, cell: Cell) -> LoadedBanks:
    """The banks as the cell's difference has them, where dealing the rows has not done so."""
    kind, _, factor = cell["difference"].partition(":")
    banks = list(loaded.banks)
    if kind in ("rate", "rates"):
        rng = np.random.default_rng(cell["seed"])
        different = range(1) if kind == "rate" else range(0, cell["nodes"], 3)
        factors = np.geomspace(float(factor), 1, len(different) + (kind == "rates"))
        for bank, times in zip(different, factors, strict=False):
            banks[bank] = _with_rate(banks[bank], times, rng)
    elif kind in ("tiny", "odd"):
        banks[0] = _with_frauds(banks[0], TINY_FRAUDS)
    elif kind == "units":
        banks[0] = _in_units(banks[0], loaded.contract, AMOUNTS.get(cell["set"], "amount"), float(factor))
    return dataclasses.replace(loaded, banks=tuple(banks))


def _values(cell: Cell, folder: Path) -> dict[str, Any]:
    name, difference = cell["set"], cell["difference"]
    kind = difference.partition(":")[0]
    values = {k: v for k, v in SETS[name].items() if k != "rounds"} | {
        "version": 1,
        "name": "differences",
        "seed": cell["seed"],
        "nodes": cell["nodes"],
        "rounds": cell["rounds"],
        "partition": _partition(kind, difference),
        "min_rows": 200,
        "gossip": {"heartbeat_seconds": 1.0},
        "compute": {"seconds_per_step": 0.006, "jitter": 0.2},
        "network": {"delay_seconds": 0.005},
    }
    if kind in ("tiny", "odd"):
        values["odd"] = {**TINY, "shift": 0.0 if kind == "tiny" else 1.0}
    file = {}
    if name == "handbook":
        file = {"file": str(bench_poisoning.handbook_file(folder, cell["nodes"]))}
    elif name == "paysim":
        file = {"file": str(_paysim(folder))}
    elif name in WEAK:
        file = {"file": str(_weak(folder, name))}
    if kind == "unusual":
        file = {"unusual": True, "rows": 50_000 * cell["nodes"]}
    values["data"] = values["data"] | file | {"own_test_share": 0.0}
    return values


def _partition(kind: str, difference: str) -> str:
    if kind == "unusual":
        return "by:bank"
    return "iid" if kind in ("rate", "rates", "tiny", "odd", "units") else difference


def _with_rate(bank: BankRows, times: float, rng: np.random.Generator) -> BankRows:
    """The bank with one in so many of its legitimate rows."""

    def thinned(rows: Rows) -> Rows:
        kept = (rows.labels == 1) | (rng.random(len(rows)) < 1 / times)
        return Rows(rows.features[kept], rows.labels[kept])

    return dataclasses.replace(
        bank, train=thinned(bank.train), validation=thinned(bank.validation), own_test=thinned(bank.own_test)
    )


def _in_units(bank: BankRows, contract: FeatureContract, name: str, times: float) -> BankRows:
    """The bank with that column's values so many times as large, before they are transformed and scaled."""
    names = [column.name for column in contract.columns]
    at = sum(column.width for column in contract.columns[: names.index(name)])
    number = [column.name for column in contract.numeric].index(name)
    mean, deviation = contract.moments.means[number], contract.moments.deviations[number]
    log = contract.numeric[number].transform == "log"

    def measured(rows: Rows) -> Rows:
        values = rows.features[:, at].astype(np.float64) * deviation + mean
        if log:
            values = np.sign(values) * np.expm1(np.abs(values))
        values *= times
        if log:
            values = np.sign(values) * np.log1p(np.abs(values))
        features = rows.features.copy()
        features[:, at] = np.clip((values - mean) / deviation, -contract.clip, contract.clip)
        return Rows(features, rows.labels)

    return dataclasses.replace(
        bank, train=measured(bank.train), validation=measured(bank.validation), own_test=measured(bank.own_test)
    )


def _paysim(folder: Path) -> Path:
    """PaySim's payments with one in ten of the frauds: the file has all of them, and few of the legitimate ones."""
    path = folder / "paysim.parquet"
    if not path.exists():
        frame = pd.read_parquet(bench_quality.DATA / "paysim.parquet")
        left_out = (frame["isFraud"] == 1) & (np.random.default_rng(0).random(len(frame)) >= 0.1)
        frame[~left_out].to_parquet(path)
    return path


def _with_frauds(bank: BankRows, frauds: int) -> BankRows:
    """The bank with so many frauds in all, those of validation in proportion."""
    share = frauds / (bank.train.frauds + bank.validation.frauds)

    def thinned(rows: Rows) -> Rows:
        kept = rows.labels == 0
        kept[np.flatnonzero(~kept)[: round(share * rows.frauds)]] = True
        return Rows(rows.features[kept], rows.labels[kept])

    return dataclasses.replace(bank, train=thinned(bank.train), validation=thinned(bank.validation))


def _weak(folder: Path, name: str) -> Path:
    path = folder / f"{name}.parquet"
    if not path.exists():
        width, strength, usual = WEAK[name]
        rng = np.random.default_rng(width)
        rows = rng.standard_normal((120_000, width))
        direction = rng.standard_normal(width)
        direction /= np.linalg.norm(direction)
        odds = strength * (rows @ direction) + 0.4 * rows[:, 0] * rows[:, 1] + usual
        fraud = rng.random(len(rows)) < 1 / (1 + np.exp(-odds))
        frame = pd.DataFrame(rows.round(5), columns=[f"x{i}" for i in range(width)])
        frame.assign(fraud=fraud.astype(int)).to_parquet(path)
    return path


def table(cells: Sequence[Cell]) -> Table:
    """A row for each set and difference, over the seeds."""
    made = Table("set", "difference", title="honest pairs in quarantine")
    for column in ("ever", "at the end", "of", "most of one bank", "AUPRC", "worst bank", "without bank-1"):
        made.add_column(column, justify="right")
    for name, difference in dict.fromkeys((cell["set"], cell["difference"]) for cell in cells):
        found = [cell for cell in cells if (cell["set"], cell["difference"]) == (name, difference)]
        ever = [{(o, s) for o, s, _, _ in cell["wrongs"]} for cell in found]
        last = sum(released is None for cell in found for *_, released in cell["wrongs"])
        most = max((max(Counter(s for _, s in pairs).values(), default=0) for pairs in ever), default=0)
        dealt = [cell for cell in found if cell["auprc"] is not None]
        auprc = f"{statistics.fmean(cell['auprc'] for cell in dealt):.4f}" if dealt else "not dealt"
        worst = f"{min(cell['worst'] for cell in dealt):.4f}" if dealt else ""
        kept = [cell["others"] for cell in dealt if "others" in cell]  # older files have none
        others = f"{statistics.fmean(kept):.4f}" if kept else ""
        pairs = sum(cell["pairs"] for cell in found)
        made.add_row(name, difference, str(sum(map(len, ever))), str(last), str(pairs), str(most), auprc, worst, others)
    return made


def _said(cell: Cell) -> str:
    where = f"{cell['set']} {cell['difference']} seed {cell['seed']}"
    if cell["auprc"] is None:
        return f"{where}: {cell['error']}"
    last = sum(released is None for *_, released in cell["wrongs"])
    return f"{where}: AUPRC {cell['auprc']:.4f}, {len(cell['wrongs'])} quarantines, {last} at the end"


if __name__ == "__main__":
    main()
