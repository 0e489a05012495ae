#!/usr/bin/env python3
"""What attackers cost, and whom they are told from: attacks x rules x seeds on real payments, in the simulator.

    scripts/bench_poisoning.py [--sets ulb,handbook] [--attacks none,signflip,...] [--rules reputation,mean,...]
                               [--partitions dirichlet:1.0,...] [--share 0.3] [--nodes 16] [--seeds 5] [--rounds N]
                               [--out FILE] [--png FILE]

A cell is one simulation; each is kept as a line of --out, and a benchmark that was interrupted goes on where it was.
Attackers are a share of the banks that publish, drawn anew with every seed, small banks and large. What counts is the
mean AUPRC of the honest banks on the pooled test, as a ratio to `honest`: the plain average of the same honest banks
on the same rows, without anybody else. Reads `ulb_creditcard.parquet` and `handbook_cards.parquet` from
$P2PFED_TEST_DATA or ../shared/data. Rule `reputation` is the default rule with reputation; all others are memoryless.
`oracle_nna` is told how many attackers each merge has.

How rows are dealt: ULB has hardly any frauds, and each class is dealt by a Dirichlet distribution, as the field does
(some banks have none). The handbook's rows dealt so, Dirichlet 1.0, make banks of which up to 95 % of the rows are
fraud, and five to seven of 16 with more than 2 %: no bank is like that. Its `BANK` column, customers by region, is
how a consortium would look; for more than its ten banks the largest is halved, by what its customers usually pay,
until there are enough (`MEMBER`; the windows of a terminal are still those of the whole bank's payments). Of 16, the
smallest has 5,400 rows and the largest 38,000, 0.5 to 1.6 % of them fraud, and the frauds of large amounts are at 10
banks alone. That deal has nothing to do with the seed. Its other one draws sizes alone, lognormal 0.8: 1,700 to
190,000 rows.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import bench_quality
import numpy as np
import pandas as pd
import poisoning_tables
from kept_cells import complete, key
from poisoning_cells import HONEST, NAMES, Cell, caught, place, wronged
from rich.console import Console

from p2pfed.adversary.poisoning import trigger_success
from p2pfed.core.aggregation import code_allowed
from p2pfed.core.reputation.params import STANDARD, ReputationParams
from p2pfed.data.banks import LoadedBanks
from p2pfed.sim.engine import Engine
from p2pfed.sim.history import History
from p2pfed.sim.population import Population, load, populate
from p2pfed.sim.scenario import Scenario, scenario_from

HANDBOOK = bench_quality.SETS["handbook"]
MEMBER = "MEMBER"

SETS: dict[str, dict[str, Any]] = {
    "ulb": {
        "rounds": 60,
        "data": {"file": str(bench_quality.DATA / "ulb_creditcard.parquet"), "label": "Class", "drop": ["Time"]},
        "training": {"local_steps": 20},
    },
    "handbook": {
        "rounds": 60,
        "data": {
            "label": HANDBOOK["label"],
            "drop": [*HANDBOOK["drop"], "BANK", MEMBER],
            "time": HANDBOOK["time"],
            "split": HANDBOOK["split"],
            "test_share": HANDBOOK["test_share"],
            "gap_days": HANDBOOK["gap_days"],
        },
        # as in bench_quality.py, where they were chosen on validation rows
        "model": {"dropout": HANDBOOK["dropout"]},
        "training": {"local_steps": 50, **{name: HANDBOOK[name] for name in ("learning_rate", "imbalance")}},
    },
}
PARTITIONS = {"ulb": ["dirichlet:1.0", "dirichlet:10"], "handbook": [f"by:{MEMBER}", "lognormal:0.8"]}
RULES: dict[str, dict[str, Any]] = {
    "reputation": {},
    "oracle_nna": {"rule": "p2pfed.adversary.oracle:InformedNeighbours", "reputation": False},
}
"""Those that are more than a rule's name."""
STANDING = ("none", "signflip", "gaussian", "ipm", "labelflip", "fraudblind", "dissensus", "drip", "stale")
STANDING_RULES = ("reputation", "clip", "mean", "median", "krum", "balance", "ubar", "oracle_nna")


def main() -> None:
    """Run the cells that are not there yet, then print the tables."""
    asked = _arguments()
    cells = _cells(asked)
    done = complete(asked.out, cells, NAMES, measure, _said)
    places = list(dict.fromkeys(map(place, cells)))
    tables = [[done[key(cell, NAMES)] for cell in cells if place(cell) == where] for where in places]
    console = Console(width=None if sys.stdout.isatty() else 180)
    for found in tables:
        console.print(poisoning_tables.table(found))
    if asked.png is not None:
        poisoning_tables.draw(tables, asked.png)


def _arguments() -> argparse.Namespace:
    def listed(text: str) -> list[str]:
        return text.split(",")

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=listed, default=["ulb"])
    parser.add_argument("--attacks", type=listed, default=list(STANDING))
    parser.add_argument("--rules", type=listed, default=list(STANDING_RULES))
    parser.add_argument("--partitions", type=listed, help="in the place of each set's own two")
    parser.add_argument("--share", type=float, default=0.3, help="of the publishing banks that attack")
    parser.add_argument("--nodes", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, help="other than the set's own")
    parser.add_argument("--out", type=Path, default=Path("bench-poisoning.jsonl"))
    parser.add_argument("--png", type=Path, help="draw the tables, too")
    return parser.parse_args()


def _cells(asked: argparse.Namespace) -> list[Cell]:
    """Every cell asked for, and the honest-only run of each seed that the others are measured by."""
    cells = []
    for name in asked.sets:
        for partition in asked.partitions or PARTITIONS[name]:
            common = {"set": name, "partition": partition, "nodes": asked.nodes, "share": asked.share}
            common["rounds"] = asked.rounds or SETS[name]["rounds"]
            for seed in range(asked.seeds):
                one = common | {"seed": seed}
                cells.append(one | {"rule": "mean", "attack": HONEST})
                cells += [one | {"rule": rule, "attack": a} for rule in asked.rules for a in asked.attacks]
    return cells


# --- one cell ---------------------------------------------------------------------------------------------------------


@code_allowed()  # the oracle's
def measure(cell: Cell, folder: Path, judging: ReputationParams = STANDARD) -> Cell:
    """One simulation: AUPRC of the honest banks, and who was quarantined when; `folder` is for files on the way.

    Reputation goes by `judging`.
    """
    values = _values(cell, folder)
    kind = "signflip" if cell["attack"] in ("none", HONEST) else cell["attack"]
    attack = {name: cell[name] for name in ("share", "scale") if cell.get(name) is not None}
    attacked = scenario_from(values | {"attackers": [{"kind": kind} | attack]})
    loaded = load(attacked)
    population = populate(attacked, loaded)
    attackers = set(population.roles.attackers)
    if cell["attack"] == HONEST:
        attacked, loaded = _without(values, loaded, attackers)
        population = populate(attacked, loaded)
    elif cell["attack"] == "none":
        attacked = scenario_from(values)
        population = populate(attacked, loaded)
    engine = stacked_engine(attacked, dataclasses.replace(population, judging=judging))
    history = engine.run()
    test, spec = loaded.banks[0].pooled_test, population.manifest.model
    passed = [share for model in engine.honest_models() if not math.isnan(share := trigger_success(spec, model, test))]
    found = {
        "auprc": statistics.fmean(history.run.auprc()),
        "worst": min(history.run.auprc()),
        "attackers": len(population.roles.attackers),
        "trigger": statistics.fmean(passed) if passed else None,
    }
    return found | quarantines(history, population)


def _values(cell: Cell, folder: Path) -> dict[str, Any]:
    """The cell's scenario, without attackers."""
    rule = RULES.get(cell["rule"], {"rule": cell["rule"], "reputation": False})
    values = SETS[cell["set"]] | {
        "version": 1,
        "name": "poisoning",
        "seed": cell["seed"],
        "nodes": cell["nodes"],
        "rounds": cell["rounds"],
        "partition": cell["partition"],
        "gossip": {"heartbeat_seconds": 1.0, **rule},
        "compute": {"seconds_per_step": 0.006, "jitter": 0.2},
        "network": {"delay_seconds": 0.005},
    }
    file = {"file": str(handbook_file(folder, cell["nodes"]))} if cell["set"] == "handbook" else {}
    values["data"] = values["data"] | file | {"own_test_share": 0.0}
    return values


def handbook_file(folder: Path, nodes: int) -> Path:
    """The handbook's payments with a column `MEMBER`: its banks, the largest halved until there are enough."""
    path = folder / f"handbook-{nodes}.parquet"
    if not path.exists():
        frame = pd.read_parquet(HANDBOOK["data"])
        usual = frame.groupby("CUSTOMER_ID")["TX_AMOUNT"].transform("median").to_numpy()
        members = frame["BANK"].to_numpy(np.int64)
        while (count := members.max() + 1) < nodes:
            largest = members == np.bincount(members).argmax()
            members = np.where(largest & (usual > np.median(usual[largest])), count, members)
        frame.assign(**{MEMBER: members}).to_parquet(path)
    return path


def _without(values: dict[str, Any], loaded: LoadedBanks, attackers: set[int]) -> tuple[Scenario, LoadedBanks]:
    honest = tuple(bank for i, bank in enumerate(loaded.banks) if i not in attackers)
    return scenario_from(values | {"nodes": len(honest)}), dataclasses.replace(loaded, banks=honest)


def stacked_engine(scenario: Scenario, population: Population) -> Engine:
    """A simulation whose banks train side by side."""
    from p2pfed.learning.batched import StackedLearner

    learner = StackedLearner(population.manifest.model, population.manifest.training, population.banks)
    return Engine(population, scenario, learner)


def quarantines(history: History, population: Population) -> Cell:
    """Who quarantined whom, of the pairs of an honest observer and a publishing subject; without reputation, nobody."""
    gossip, attackers = population.manifest.gossip, set(population.roles.attackers)
    publishers = [i for i, frauds in enumerate(population.train_frauds) if frauds >= gossip.publish_min_frauds]
    honest = [i for i in range(len(population.banks)) if i not in attackers]
    pairs = [(o, s) for o in honest for s in publishers if o != s]
    bad = [pair for pair in pairs if pair[1] in attackers]
    names = [population.manifest.members[i].name for i in honest]
    return {
        "pairs": caught(history.standing, history.since_attack, bad) if gossip.reputation else None,
        "honest_pairs": len(pairs) - len(bad),
        "wrongs": wronged(history.run.quarantines, names),
    }


def _said(cell: Cell) -> str:
    pairs: Sequence[Any] = cell["pairs"] or ()
    return (
        f"{cell['set']} {cell['partition']} seed {cell['seed']} {cell['attack']} {cell['rule']}: {cell['auprc']:.4f}"
        f" (worst {cell['worst']:.4f}), caught {sum(at is not None for at, _ in pairs)}/{len(pairs)}"
        f", wronged {len(cell['wrongs'])}"
    )


if __name__ == "__main__":
    main()
