"""The table and the picture of bench_poisoning.py."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from poisoning_cells import BARS, HONEST, Cell, hurt, in_time, place, ratios, releases, wrong_share
from rich.table import Table

from p2pfed.experiment.intervals import Interval, mean_interval
from p2pfed.experiment.plots import BLUE, DPI, GREY, OTHERS, STYLE

COLUMNS = (
    "attack",
    "rule",
    "ratio, 95 %",
    "worst bank (worst seed)",
    "caught",
    "in time, of those with as many exchanges",
    "exchanges to it",
    "wrong per 100 merges",
    "rounds to release",
    "trigger passes",
)
RULES = {
    "reputation": "default rule, with reputation",
    "mean": "mean: plain gossip",
    "oracle_nna": "NNA, told the number of attackers",
}
"""What the picture calls them; others by their names."""
MARKERS = "oXsD^vP*<>"
TICKS = (0, 0.4, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1)
EXPLAINED = (
    "* counts: plain gossip falls below 0.9. AUPRC of honest banks as a ratio to honest banks alone; mean over seeds "
    "and its 95 % interval (Student's t). Exchanges: models judged since the attack began; pairs that met less often "
    "than the bar and were not caught are counted apart. Wrong: quarantines of honest banks by honest banks, in % of "
    "the pairs (bar: 1 %). Trigger: share of the frauds found at 0.5 that pass with the backdoor's trigger."
)


def clean(cells: Sequence[Cell]) -> dict[int, float]:
    """Mean AUPRC of the honest banks alone, by seed."""
    return {cell["seed"]: cell["auprc"] for cell in cells if cell["attack"] == HONEST}


def by_row(cells: Sequence[Cell]) -> dict[tuple[str, str], list[Cell]]:
    """The cells of each attack and rule, over seeds; attack after attack, both in the order in which they come."""
    rows: dict[str, dict[str, list[Cell]]] = {}
    for cell in cells:
        if cell["attack"] != HONEST:
            rows.setdefault(cell["attack"], {}).setdefault(cell["rule"], []).append(cell)
    return {(attack, rule): found for attack, rules in rows.items() for rule, found in rules.items()}


def said(where: tuple[Any, ...]) -> str:
    """A `place` in words."""
    name, partition, nodes, share, rounds = where
    return f"{name}, {partition}, {nodes} banks, {share:.0%} of the publishing ones attack, {rounds} rounds"


# --- the table --------------------------------------------------------------------------------------------------------


def table(cells: Sequence[Cell]) -> Table:
    """A row an attack and rule, over seeds, of the cells of one place."""
    cleans = clean(cells)
    counting = hurt(cells, cleans)
    title = f"{said(place(cells[0]))}, {len(cleans)} seeds; honest banks alone {statistics.fmean(cleans.values()):.3f}"
    shown = Table(title=title, caption=EXPLAINED)
    for column in COLUMNS:
        shown.add_column(column)
    before = None
    for (attack, rule), found in by_row(cells).items():
        if before not in (None, attack):
            shown.add_section()
        before = attack
        shown.add_row(f"{attack} *" if attack in counting else attack, *row(rule, found, cleans))
    return shown


def row(rule: str, found: Sequence[Cell], cleans: dict[int, float]) -> list[str]:
    """What the table says of one attack and rule, after the attack's name."""
    worst = ratios(found, cleans, "worst")
    ratio = _interval(mean_interval(ratios(found, cleans)))
    return [rule, ratio, f"{statistics.fmean(worst):.3f} ({min(worst):.3f})", *_standing(found), _trigger(found)]


def _interval(interval: Interval) -> str:
    margin = f"{interval.half_width:.3f}" if math.isfinite(interval.half_width) else "?"
    return f"{interval.mean:.3f} ± {margin}"


def _standing(found: Sequence[Cell]) -> list[str]:
    """Five columns about who was quarantined; empty where nobody is judged."""
    if any(cell["pairs"] is None for cell in found):
        return [""] * 5
    pairs = [pair for cell in found for pair in cell["pairs"]]
    at = sorted(exchange for exchange, _ in pairs if exchange is not None)
    bar = BARS.get(found[0]["attack"].partition(":")[0])
    timely = ""
    if pairs and bar is not None:
        good, judged, less = in_time(pairs, bar)
        timely = f"{good}/{judged} in {bar}" + (f", {less} met less" if less else "")
    lasted, held = releases(found)
    parts = [f"{statistics.median(lasted):.0f}, at most {lasted[-1]} ({len(lasted)})"] if lasted else []
    parts += [f"at the end held: {held}"] if held else []
    return [
        f"{len(at)}/{len(pairs)}" if pairs else "",
        timely,
        f"{statistics.median(at):.0f}, at most {at[-1]}" if at else "",
        f"{100 * wrong_share(found):.2f} % ({len(lasted) + held})",
        "; ".join(parts),
    ]


def _trigger(found: Sequence[Cell]) -> str:
    """Beside the backdoor only where nobody attacks: what passes by itself."""
    passed = [cell["trigger"] for cell in found if cell["trigger"] is not None]
    return f"{statistics.fmean(passed):.1%}" if passed and found[0]["attack"] in ("none", "backdoor") else ""


# --- the picture ------------------------------------------------------------------------------------------------------


def draw(tables: Sequence[Sequence[Cell]], path: Path) -> None:
    """Write one PNG picture: a panel a place, over the attacks each rule's ratio with its interval."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(13.0, 1.6 + 4.4 * len(tables)), layout="constrained")
        title = "What is left of honest banks' AUPRC when others poison"
        figure.suptitle(title, x=0.01, horizontalalignment="left", fontsize=15, fontweight="bold")
        rules = list(dict.fromkeys(rule for cells in tables for _, rule in by_row(cells)))
        for axes, cells in zip(figure.subplots(len(tables), squeeze=False)[:, 0], tables, strict=True):
            _panel(axes, cells, rules)
        handles, labels = axes.get_legend_handles_labels()
        handles.append(Patch(color="#F3E6D8"))
        labels.append("counts: plain gossip falls below 0.9")
        figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), fontsize=11)
        figure.savefig(path, dpi=DPI)


def _panel(axes: Axes, cells: Sequence[Cell], rules: Sequence[str]) -> None:
    """One place: attacks along the bottom, marks side by side, bands behind what counts."""
    cleans, found = clean(cells), by_row(cells)
    attacks = list(dict.fromkeys(attack for attack, _ in found))
    counting = hurt(cells, cleans)
    for x, attack in enumerate(attacks):
        if attack in counting:
            axes.axvspan(x - 0.48, x + 0.48, color="#F3E6D8", linewidth=0, zorder=0)
    axes.axhline(0.9, color="black", linestyle="--", linewidth=1)
    axes.text(len(attacks) - 0.48, 0.9, "0.9", va="center", fontsize=11)
    axes.axhline(1.0, color=GREY, linewidth=1)
    for i, rule in enumerate(rules):
        x = [j + 0.8 * ((i + 0.5) / len(rules) - 0.5) for j, attack in enumerate(attacks) if (attack, rule) in found]
        each = [mean_interval(ratios(found[a, rule], cleans)) for a in attacks if (a, rule) in found]
        margins = [e.half_width if math.isfinite(e.half_width) else 0.0 for e in each]
        color = {"reputation": BLUE, "mean": "black"}.get(rule, OTHERS[i % len(OTHERS)])
        marks = {"fmt": MARKERS[i % len(MARKERS)], "color": color, "capsize": 2, "elinewidth": 1.2}
        size = 9 if rule == "reputation" else 6
        axes.errorbar(x, [e.mean for e in each], margins, markersize=size, label=RULES.get(rule, rule), **marks)
    names = [attack.replace("_", " ") for attack in attacks]
    slanted = {"rotation": 25, "ha": "right", "rotation_mode": "anchor"} if len(names) > 9 else {}
    axes.set_xticks(range(len(attacks)), names, **slanted)
    # most rules end between 0.9 and 1, plain gossip anywhere
    axes.set_yscale("function", functions=(lambda y: y**3, np.cbrt))
    axes.set_yticks(TICKS)
    axes.set(xlim=(-0.5, len(attacks) - 0.5), ylim=(0, TICKS[-1]), ylabel="ratio to honest banks alone\n(cubic scale)")
    axes.grid(visible=False, axis="x")
    seeds = f"mean and 95 % interval over {len(cleans)} seeds" if len(cleans) > 1 else "one seed"
    axes.set_title(f"{said(place(cells[0]))}; {seeds}", loc="left", fontsize=11, color=GREY)
