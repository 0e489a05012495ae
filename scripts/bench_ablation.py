#!/usr/bin/env python3
"""What each number of reputation is worth: switched off, at half and at double, under attacks and among honest banks.

    scripts/bench_ablation.py [--only standard,release=5,...] [--numbers release,...] [--seeds 2] [--out FILE]

A cell is one simulation of bench_poisoning.py (AUPRC, pairs caught, honest pairs wronged) or of bench_differences.py
(honest pairs wronged, without any attacker); the table tells what each variant changes beside the standard. A number
that moves no cell beyond what seeds do can go. Constants may be chosen by it on ulb and handbook with seeds 0 to 4,
which are all that it runs; what is chosen is confirmed once, on other sets and seeds, by bench_differences.py and
bench_poisoning.py. Each cell is a line of --out, and a benchmark that was interrupted goes on where it was.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import bench_differences
import bench_poisoning
from kept_cells import Cell, complete, key
from rich.console import Console
from rich.table import Table

from p2pfed.core.reputation.params import STANDARD, ReputationParams

NAMES = ("variant", "set", "of", "seed")
OFF = {
    "least_changed": 1e-9,
    "novelty": 0.0,
    "distance_doublings": 99.0,
    "disagreement_doublings": 99.0,
    "recognition_halvings": 99.0,
    "allowed": 0.0,
    "few_rows_from": 99.0,
    "felt": 1.0,
    "rates": 99999.0,
    "rarer": 99999.0,
}
"""The value with which a number does nothing, of those that have one."""
ATTACKS = {
    "ulb": (
        "dirichlet:1.0",
        ("labelflip", "fraudblind", "dissensus", "scaled", "stale", "onoff", "duty:1:2", "near_echo"),
    ),
    "handbook": (f"by:{bench_poisoning.MEMBER}", ("fraudblind", "dissensus", "stale")),
}
SCALES = {"near_echo": 0.2}
"""Strengths of attacks that are not the usual ones."""
DIFFERENCES = (("handbook", "odd"), ("handbook", "dirichlet:0.1"), ("ulb", "dirichlet:0.1"))
ATTACKED = {"nodes": 16, "share": 0.3, "rule": "reputation"}
MOVES = 0.002
"""AUPRC below which a difference is not shown."""


def main() -> None:
    """Run the cells that are not there yet, then print what each variant changes."""
    asked = _arguments()
    variants = asked.only or ["standard", *_variants(asked.numbers)]
    cells = [cell for name in variants for seed in range(asked.seeds) for cell in _cells(name, seed)]
    done = complete(asked.out, cells, NAMES, _measure, _said)
    table = _table([done[key(cell, NAMES)] for cell in cells])
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _arguments() -> argparse.Namespace:
    def listed(text: str) -> list[str]:
        return text.split(",")

    known = [field.name for field in dataclasses.fields(ReputationParams)]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=listed, help="variants as the table names them, `standard` among them")
    parser.add_argument("--numbers", type=listed, default=known, help="those to vary")
    parser.add_argument("--seeds", type=int, default=2, choices=range(1, 6))
    parser.add_argument("--out", type=Path, default=Path("bench-ablation.jsonl"))
    return parser.parse_args()


def _variants(numbers: Sequence[str]) -> list[str]:
    """Each number off, at half and at double, as `params` reads them."""
    names = []
    for number in numbers:
        names += [f"{number}={OFF[number]:g}"] if number in OFF else []
        names += [f"{number}*0.5", f"{number}*2"]
    return [name for name in names if params(name) is not None]


def params(variant: str) -> ReputationParams | None:
    """The numbers of a variant: `standard`, `NAME=VALUE` or `NAME*FACTOR`, several joined by `+`.

    None where one cannot be gone by, as a share above 1. Raises AttributeError on an unknown name.
    """
    changes = {}
    for one in variant.split("+") if variant != "standard" else ():
        name, times, value = one.partition("=" if "=" in one else "*")
        before = getattr(STANDARD, name)
        if isinstance(before, tuple):
            changes[name] = tuple(float(value) * n for n in before)
        else:
            changes[name] = type(before)(float(value) * (before if times == "*" else 1))
    try:
        return dataclasses.replace(STANDARD, **changes)
    except ValueError:
        return None


def _cells(variant: str, seed: int) -> list[Cell]:
    common = {"variant": variant, "seed": seed}
    found: list[Cell] = []
    for name, (partition, attacks) in ATTACKS.items():
        rounds = bench_poisoning.SETS[name]["rounds"]
        place = {"set": name, "partition": partition, "rounds": rounds, **ATTACKED}
        found += [{**common, **place, "attack": a, "of": a, "scale": SCALES.get(a)} for a in attacks]
    honest = {"nodes": 12, "rounds": 60}
    found += [{**common, **honest, "set": name, "difference": d, "of": d} for name, d in DIFFERENCES]
    return found


def _measure(cell: Cell, folder: Path) -> Cell:
    judging = params(cell["variant"])
    assert judging is not None
    bench = bench_poisoning if "attack" in cell else bench_differences
    measured = bench.measure(cell, folder, judging)
    caught = sum(at is not None for at, _ in measured["pairs"]) if "attack" in cell else 0
    return {"auprc": measured["auprc"], "caught": caught, "wronged": len(measured["wrongs"])}


def _said(cell: Cell) -> str:
    where = f"{cell['variant']}, {cell['set']} {cell['of']} seed {cell['seed']}"
    return f"{where}: AUPRC {cell['auprc']:.4f}, {cell['caught']} caught, {cell['wronged']} wronged"


def _table(cells: Sequence[Cell]) -> Table:
    """Sums over seeds, beside the standard; what differs by nothing is left out."""
    made = Table("variant", "what it changes", title="AUPRC, pairs of attackers caught (c), honest ones wronged (w)")
    sums: dict[str, dict[tuple[str, str], tuple[float, int, int]]] = {}
    for variant in dict.fromkeys(cell["variant"] for cell in cells):
        for place in dict.fromkeys((cell["set"], cell["of"]) for cell in cells):
            found = [c for c in cells if c["variant"] == variant and (c["set"], c["of"]) == place]
            auprc = statistics.fmean(c["auprc"] for c in found)
            counts = (sum(c[name] for c in found) for name in ("caught", "wronged"))
            sums.setdefault(variant, {})[place] = (auprc, *counts)
    for variant, found_here in sums.items():
        said = [_beside(place, found_here[place], sums["standard"][place]) for place in found_here]
        made.add_row(variant, ", ".join(filter(None, said)) or "nothing")
    return made


def _beside(place: tuple[str, str], here: tuple[float, int, int], standard: tuple[float, int, int]) -> str:
    auprc, caught, wronged = (a - b for a, b in zip(here, standard, strict=True))
    said = [f"{auprc:+.4f}"] if abs(auprc) >= MOVES else []
    said += [f"{caught:+d}c"] if caught else []
    said += [f"{wronged:+d}w"] if wronged else []
    return f"{' '.join(place)} {' '.join(said)}" if said else ""


if __name__ == "__main__":
    main()
