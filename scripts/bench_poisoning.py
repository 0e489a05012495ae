#!/usr/bin/env python3
"""What attackers cost, and whom they are told from: attacks x rules x seeds on real payments, in the simulator.

    scripts/bench_poisoning.py [--sets ulb,handbook] [--attacks none,signflip,...] [--rules reputation,mean,...]
                               [--alphas 1.0] [--share 0.3] [--nodes 16] [--seeds 5] [--rounds N] [--out FILE]

A cell is one simulation; each is kept as a line of --out, and a benchmark that was interrupted goes on where it was.
Attackers are a share of the banks that publish, drawn anew with every seed, small banks and large. What counts is the
mean AUPRC of the honest banks on the pooled test, as a ratio to `honest`: the plain average of the same honest banks
on the same rows, without anybody else. Reads `ulb_creditcard.parquet` and `handbook_cards.parquet` from
$P2PFED_TEST_DATA or ../shared/data. Rule `reputation` is the default rule with reputation; all others are memoryless.
`oracle_nna` is told how many attackers each merge has.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import bench_quality
from rich.console import Console
from rich.table import Table

from p2pfed.data.banks import LoadedBanks
from p2pfed.sim.engine import Engine
from p2pfed.sim.history import History
from p2pfed.sim.population import Population, load, populate
from p2pfed.sim.scenario import Scenario, scenario_from

HANDBOOK = bench_quality.SETS["handbook"]

SETS: dict[str, dict[str, Any]] = {
    "ulb": {
        "rounds": 60,
        "data": {"file": str(bench_quality.DATA / "ulb_creditcard.parquet"), "label": "Class", "drop": ["Time"]},
        "training": {"local_steps": 20},
    },
    "handbook": {
        "rounds": 60,
        "data": {
            "file": str(HANDBOOK["data"]),
            "label": HANDBOOK["label"],
            "drop": list(HANDBOOK["drop"]),
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
RULES: dict[str, dict[str, Any]] = {
    "reputation": {},
    "oracle_nna": {"rule": "p2pfed.adversary.oracle:InformedNeighbours", "reputation": False},
}
"""Those that are more than a rule's name."""
HONEST = "honest"
STANDING = ("none", "signflip", "gaussian", "labelflip", "fraudblind", "alie", "dissensus", "stale", "near_echo")
Cell = dict[str, Any]


def main() -> None:
    """Run the cells that are not there yet, then print the tables."""
    asked = _arguments()
    done = _read(asked.out)
    cells = _cells(asked)
    left = [cell for cell in cells if _key(cell) not in done]
    begin = time.monotonic()
    for i, cell in enumerate(left):
        found = cell | measure(cell, asked.nodes, asked.share, asked.rounds)
        done[_key(cell)] = found
        with asked.out.open("a") as file:
            file.write(json.dumps(found) + "\n")
        to_go = (time.monotonic() - begin) / (i + 1) * (len(left) - i - 1)
        print(f"{i + 1} of {len(left)}: {_said(found)}; about {to_go / 60:.0f} min to go", file=sys.stderr, flush=True)
    for name in asked.sets:
        for alpha in asked.alphas:
            Console().print(
                table([done[_key(c)] for c in cells if (c["set"], c["alpha"]) == (name, alpha)], name, alpha)
            )


def _arguments() -> argparse.Namespace:
    def listed(text: str) -> list[str]:
        return text.split(",")

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=listed, default=["ulb"])
    parser.add_argument("--attacks", type=listed, default=list(STANDING))
    parser.add_argument("--rules", type=listed, default=["reputation", "mean"])
    parser.add_argument("--alphas", type=listed, default=["1.0"], help="of Dirichlet partitions, by class")
    parser.add_argument("--share", type=float, default=0.3, help="of the publishing banks that attack")
    parser.add_argument("--nodes", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, help="other than the set's own")
    parser.add_argument("--out", type=Path, default=Path("bench-poisoning.jsonl"))
    return parser.parse_args()


def _cells(asked: argparse.Namespace) -> list[Cell]:
    """Every cell asked for, and the honest-only run of each seed that the others are measured by."""
    cells = []
    for name in asked.sets:
        for alpha in asked.alphas:
            for seed in range(asked.seeds):
                place = {"set": name, "alpha": alpha, "seed": seed}
                cells.append(place | {"rule": "mean", "attack": HONEST})
                cells += [place | {"rule": rule, "attack": a} for rule in asked.rules for a in asked.attacks]
    return cells


def _key(cell: Cell) -> tuple[Any, ...]:
    return tuple(cell[name] for name in ("set", "alpha", "seed", "rule", "attack"))


def _read(path: Path) -> dict[tuple[Any, ...], Cell]:
    if not path.exists():
        return {}
    return {_key(cell): cell for cell in map(json.loads, path.read_text().splitlines())}


# --- one cell ---------------------------------------------------------------------------------------------------------


def measure(cell: Cell, nodes: int, share: float, rounds: int | None) -> Cell:
    """One simulation: AUPRC of the honest banks, and who was quarantined when."""
    rule = RULES.get(cell["rule"], {"rule": cell["rule"], "reputation": False})
    values = SETS[cell["set"]] | {
        "version": 1,
        "name": "poisoning",
        "seed": cell["seed"],
        "nodes": nodes,
        "partition": f"dirichlet:{cell['alpha']}",
        "gossip": {"heartbeat_seconds": 1.0, **rule},
        "compute": {"seconds_per_step": 0.006, "jitter": 0.2},
        "network": {"delay_seconds": 0.005},
    }
    values["rounds"] = rounds or values["rounds"]
    values["data"] = values["data"] | {"own_test_share": 0.0}
    kind = "signflip" if cell["attack"] in ("none", HONEST) else cell["attack"]
    attacked = scenario_from(values | {"attackers": [{"kind": kind, "share": share}]})
    loaded = load(attacked)
    population = populate(attacked, loaded)
    attackers = set(population.roles.attackers)
    if cell["attack"] == HONEST:
        attacked, loaded = _without(values, loaded, attackers)
        population = populate(attacked, loaded)
    elif cell["attack"] == "none":
        attacked = scenario_from(values)
        population = populate(attacked, loaded)
    history = simulate(attacked, population)
    found = {
        "auprc": statistics.fmean(history.run.auprc()),
        "worst": min(history.run.auprc()),
        "attackers": len(attackers) if cell["attack"] not in ("none", HONEST) else 0,
    }
    return found | quarantines(history, population)


def _without(values: dict[str, Any], loaded: LoadedBanks, attackers: set[int]) -> tuple[Scenario, LoadedBanks]:
    honest = tuple(bank for i, bank in enumerate(loaded.banks) if i not in attackers)
    return scenario_from(values | {"nodes": len(honest)}), dataclasses.replace(loaded, banks=honest)


def simulate(scenario: Scenario, population: Population) -> History:
    """From the first virtual second to the last."""
    from p2pfed.learning.batched import StackedLearner

    learner = StackedLearner(population.manifest.model, population.manifest.training, population.banks)
    return Engine(population, scenario, learner).run()


def quarantines(history: History, population: Population) -> Cell:
    """Pairs of an honest observer and a publishing subject: how many, and after how many models, were quarantined."""
    attackers = set(population.roles.attackers)
    publishers = [
        i for i, frauds in enumerate(population.train_frauds) if frauds >= population.manifest.gossip.publish_min_frauds
    ]
    first: dict[tuple[int, int], int] = {}
    held: dict[tuple[int, int], bool] = {}
    for change in history.standing:
        pair = change.observer, change.subject
        if change.observer in attackers:
            continue
        if change.what == "quarantined":
            first.setdefault(pair, change.exchange)
        if pair in first:
            held[pair] = change.what == "quarantined"
    honest = [i for i in range(len(population.banks)) if i not in attackers]
    pairs = [(o, s) for o in honest for s in publishers if o != s]
    caught = sorted(first[p] for p in pairs if p[1] in attackers and p in first)
    wronged = [p for p in pairs if p[1] not in attackers and p in first]
    return {
        "caught": len(caught),
        "to_catch": sum(p[1] in attackers for p in pairs),
        "exchanges_median": statistics.median(caught) if caught else None,
        "exchanges_max": max(caught, default=None),
        "wronged": len(wronged),
        "honest_pairs": sum(p[1] not in attackers for p in pairs),
        "released": sum(not held[p] for p in wronged),
        "merges": history.run.rounds,
    }


# --- tables -----------------------------------------------------------------------------------------------------------


def table(cells: Sequence[Cell], name: str, alpha: str) -> Table:
    """A row an attack and rule, over seeds."""
    base = {c["seed"]: c["auprc"] for c in cells if c["attack"] == HONEST}
    shown = Table(title=f"{name}, Dirichlet {alpha}: AUPRC beside honest banks alone ({_mean(base.values()):.3f})")
    for column in ("attack", "rule", "ratio (worst seed)", "worst bank", "caught", "exchanges", "honest quarantined"):
        shown.add_column(column)
    rows: dict[tuple[str, str], list[Cell]] = defaultdict(list)
    for cell in cells:
        if cell["attack"] != HONEST:
            rows[cell["attack"], cell["rule"]].append(cell)
    for (attack, rule), found in rows.items():
        ratios = [c["auprc"] / base[c["seed"]] for c in found]
        worst = [c["worst"] / base[c["seed"]] for c in found]
        medians = [c["exchanges_median"] for c in found if c["exchanges_median"] is not None]
        most = max((c["exchanges_max"] for c in found if c["exchanges_max"] is not None), default=None)
        shown.add_row(
            attack,
            rule,
            f"{_mean(ratios):.3f} ({min(ratios):.3f})",
            f"{_mean(worst):.3f}",
            _share(found, "caught", "to_catch"),
            f"{statistics.median(medians):.0f}, at most {most}" if medians else "",
            _share(found, "wronged", "honest_pairs") + f", released {sum(c['released'] for c in found)}",
        )
    return shown


def _mean(values: Iterable[float]) -> float:
    return statistics.fmean(list(values))


def _share(cells: Sequence[Cell], part: str, whole: str) -> str:
    return f"{sum(c[part] for c in cells)}/{sum(c[whole] for c in cells)}"


def _said(cell: Cell) -> str:
    return (
        f"{cell['set']} {cell['alpha']} seed {cell['seed']} {cell['attack']} {cell['rule']}: {cell['auprc']:.4f}"
        f" (worst {cell['worst']:.4f}), caught {cell['caught']}/{cell['to_catch']}, wronged {cell['wronged']}"
    )


if __name__ == "__main__":
    main()
