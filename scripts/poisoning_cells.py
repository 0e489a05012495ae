"""The cells of bench_poisoning.py: what names one, and what is counted of a simulation."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from kept_cells import Cell

from p2pfed.results import Quarantine
from p2pfed.sim.history import Standing

Pair = tuple[int, int]
"""Observer and subject."""
HONEST = "honest"
"""In the place of an attack: the honest banks alone, whom all others are measured by."""
NAMES = ("set", "partition", "nodes", "share", "rounds", "seed", "rule", "attack")
"""What tells a cell from others."""

BARS = dict.fromkeys(("signflip", "gaussian", "scaled", "ipm", "drip", "onoff"), 6)
BARS |= dict.fromkeys(("labelflip", "stale", "dissensus", "fraudblind"), 30) | {"duty": 60}
"""Exchanges since the attack began within which every honest bank should have caught the attacker."""


def place(cell: Cell) -> tuple[Any, ...]:
    """Whose cells are compared with each other, over seeds, attacks and rules."""
    return tuple(cell[name] for name in ("set", "partition", "nodes", "share", "rounds"))


# --- counted of a simulation ------------------------------------------------------------------------------------------


def caught(standing: Iterable[Standing], since_attack: Mapping[Pair, int], pairs: Iterable[Pair]) -> list[list[Any]]:
    """Of each pair, at which exchange since the attack began the subject was quarantined, and how many there were.

    The first is None where it never was, and 0 where it was in quarantine already when its attack began; one released
    before that was no catch. What an observer heard after the quarantine, which it asks for now and then, counts in the
    second.
    """
    at: dict[Pair, int] = {}
    for change in standing:
        pair = change.observer, change.subject
        if change.what == "quarantined":
            at.setdefault(pair, change.since_attack)
        elif not change.since_attack:
            at.pop(pair, None)
    return [[at.get(pair), since_attack.get(pair, 0)] for pair in pairs]


def wronged(told: Iterable[Quarantine], honest: Collection[str]) -> list[list[Any]]:
    """The round of the observer in which it quarantined an honest one, and in which it released it (or None), each."""
    return [[q.round, q.released_round] for q in told if {q.observer, q.subject} <= set(honest)]


# --- what the tables say of several cells -----------------------------------------------------------------------------


def in_time(pairs: Sequence[Sequence[Any]], bar: int) -> tuple[int, int, int]:
    """How many pairs of `caught` were so within `bar` exchanges, of how many, and how many others met less often.

    Those have neither failed nor succeeded: their observers never had `bar` models to judge by.
    """
    good = sum(at is not None and at <= bar for at, _ in pairs)
    less = sum((at is None or at > bar) and met < bar for at, met in pairs)
    return good, len(pairs) - less, less


def wrong_share(cells: Sequence[Cell]) -> float:
    """Quarantines of honest banks by honest banks, as a share of the pairs and for every 100 merges."""
    chances = sum(cell["honest_pairs"] * cell["rounds"] / 100 for cell in cells)
    return sum(len(cell["wrongs"]) for cell in cells) / chances if chances else 0.0


def releases(cells: Sequence[Cell]) -> tuple[list[int], int]:
    """The rounds that each wrong quarantine lasted, and how many lasted to the end of the run."""
    wrongs = [wrong for cell in cells for wrong in cell["wrongs"]]
    return sorted(end - start for start, end in wrongs if end is not None), sum(end is None for _, end in wrongs)


def ratios(cells: Iterable[Cell], cleans: Mapping[int, float], measure: str = "auprc") -> list[float]:
    """A measure of each cell as a ratio to the honest banks alone of its seed."""
    return [cell[measure] / cleans[cell["seed"]] for cell in cells]


def hurt(cells: Iterable[Cell], cleans: Mapping[int, float]) -> set[str]:
    """The attacks that count: plain gossip falls below 0.9 of the honest banks alone, on average."""
    plain: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell["rule"] == "mean" and cell["attack"] != HONEST:
            plain.setdefault(cell["attack"], []).append(cell)
    return {attack for attack, found in plain.items() if statistics.fmean(ratios(found, cleans)) < 0.9}
