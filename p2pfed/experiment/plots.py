"""Pictures of a simulation, 1,500 pixels wide and readable at 1,000. Colours are told apart by colour-blind people.

The palette is that of Okabe and Ito (Color Universal Design, 2008).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from p2pfed import newfile
from p2pfed.errors import DiskFault
from p2pfed.experiment import tables
from p2pfed.sim.history import History, Standing

BLUE, VERMILLION, GREY = "#0072B2", "#D55E00", "#555555"
OTHERS = ("#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = "osD^v"
SIZE, DPI = (10.0, 5.8), 150
STYLE: dict[Any, Any] = {
    "font.size": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E5E5E5",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "image.cmap": "cividis",
}
WORST = 5
"""Banks whose course is drawn."""
DRAWN_NODES, DRAWN_LINKS = 30, 80
"""More than that make a knot of a drawn graph."""
CELLS = 100
"""Rows and columns of a map; more nodes share cells."""
MARKED = 40
"""Points of a line; of more the line alone is drawn."""
SUBJECTS = 40
"""Rows of the quarantine timeline."""
MOMENTS = 300
"""Its columns."""
QUARANTINED = "quarantined"


@dataclass(frozen=True)
class Story:
    """A history, and what several pictures draw of it."""

    history: History
    honest: pd.DataFrame
    """Rounds of honest nodes."""

    @property
    def caption(self) -> str:
        """Which run it is."""
        run, s = self.history.run, self.history.run.options
        attackers = sum(node.role == "attacker" for node in run.nodes)
        among = f", {attackers} of them attackers" if attackers else ""
        kind, colon, argument = s["gossip"]["topology"].partition(":")
        topology = f"{kind}{colon}{Path(argument).name}"  # of a file of links its name alone
        return f"{s['name']} (seed {run.seed}): {len(run.nodes):,} banks{among}, {topology}"


def draw(history: History, folder: Path) -> list[Path]:
    """Write every picture that the history has something for, as PNG files; raises DiskFault.

    An older picture that it has nothing for is removed.
    """
    table = tables.rounds(history)
    story = Story(history, table[table["role"] == "honest"])
    written = []
    with matplotlib.rc_context(STYLE):
        for name, picture in PICTURES.items():
            path, figure = folder / f"{name}.png", picture(story)
            try:
                if figure is None:
                    path.unlink(missing_ok=True)
                    continue
                with newfile.replacing(path) as file:
                    figure.savefig(file, dpi=DPI, format="png")
            except OSError as error:
                raise DiskFault(f"{path} cannot be written: {error.strerror or error}") from None
            written.append(path)
    return written


def auprc(story: Story) -> Figure | None:
    """Median, quartiles and range of the honest nodes' AUPRC over the rounds."""
    measured = story.honest.dropna(subset="auprc")
    if measured.empty:
        return None
    counts = measured.groupby("round").size()
    usual, last = counts.iloc[0], counts.iloc[-1]
    banks = f"{usual:,} honest banks" if usual == last else f"{usual:,} honest banks, in the last round {last:,}"
    figure, axes = _figure(story, "How well the banks' models find fraud", f"pooled test; {banks}")
    _bands(axes, measured.groupby("round")["auprc"])
    axes.set_ylabel("AUPRC")
    return _finished(figure, axes)


def worst(story: Story) -> Figure | None:
    """The course of the honest nodes that ended worst, among those that were measured all along."""
    measured = story.honest.dropna(subset="auprc")
    if measured.empty:
        return None
    counts = measured.groupby("node", observed=True).size()
    followed = counts.index[counts >= max(counts.max() // 2, 1)]
    final = measured.groupby("node", observed=True)["auprc"].last()
    chosen = final[followed].nsmallest(WORST).index
    title = f"The {len(chosen)} honest banks that ended worst"
    among = "" if len(followed) == len(final) else f", of {len(followed):,} that were measured all along"
    figure, axes = _figure(story, title, f"pooled test{among}")
    median = measured.groupby("round")["auprc"].median()
    axes.plot(median.index, median, color=GREY, linewidth=3, label="median of all")
    for node, color, marker in zip(chosen, OTHERS, MARKERS, strict=False):
        course = measured[measured["node"] == node]
        axes.plot(course["round"], course["auprc"], color=color, marker=marker, markersize=5, label=node)
    if (lowest := final.idxmin()) not in chosen:
        end = measured[measured["node"] == lowest].iloc[-1]
        label = f"{lowest}, the worst of all"
        axes.plot(end["round"], end["auprc"], color="black", marker="X", markersize=9, linestyle="", label=label)
    axes.set_ylabel("AUPRC")
    return _finished(figure, axes)


def consensus(story: Story) -> Figure | None:
    """How far apart the honest models are."""
    found = tables.spread(story.history)
    found = found[found["round"] > 0].drop_duplicates("round", keep="last")
    if found.empty:
        return None
    note = "honest models, each time half of the banks that were up had done the round"
    figure, axes = _figure(story, "How far apart the models are", note)
    axes.plot(found["round"], found["consensus_distance"], color=BLUE, marker="o", markersize=5)
    axes.set_ylabel("root mean squared distance\nto the mean model (weights)")
    axes.set_ylim(bottom=0)
    return _finished(figure, axes)


def traffic(story: Story) -> Figure | None:
    """Bytes of the updates that honest nodes got in each round."""
    # until all have finished, those that have go on receiving, which counts for their last round
    table = story.honest[story.honest["round"] < story.history.run.rounds]
    if table.empty:
        return None
    most = table["bytes_in"].max()
    unit, scale = next((u, s) for u, s in (("MB", 1e6), ("kB", 1e3), ("bytes", 1)) if most >= s or s == 1)
    figure, axes = _figure(story, "What a bank receives in a round", "accepted updates; without the last round")
    _bands(axes, (table["bytes_in"] / scale).groupby(table["round"]))
    axes.set_ylabel(f"{unit} per round and bank")
    axes.set_ylim(bottom=0)
    return _finished(figure, axes)


def quarantine(story: Story) -> Figure | None:
    """Share of the honest nodes that have each subject in quarantine, over virtual time."""
    subjects, share = _quarantined(story.history)
    if not subjects:
        return None
    nodes = story.history.run.nodes
    figure, axes = _figure(story, "Who is in quarantine", "at how many of the honest banks")
    end = story.history.virtual_seconds
    image = axes.imshow(
        share, aspect="auto", interpolation="nearest", vmin=0, vmax=1, extent=(0, end, len(subjects) - 0.5, -0.5)
    )
    names = [f"{nodes[s].name} ({nodes[s].role})" for s in subjects]
    axes.set_yticks(range(len(subjects)), names, fontsize=12 if len(subjects) < 25 else 7)
    axes.grid(visible=False)
    axes.set_xlabel("virtual time (seconds)")
    figure.colorbar(image, ax=axes, label="share of the honest banks")
    return figure


def topology(story: Story) -> Figure | None:
    """Who got updates from whom: a map of all pairs, beside a drawn graph or, of many nodes, what each gave and got."""
    pulls, count = story.history.pulls, len(story.history.run.nodes)
    if not pulls:
        return None
    pairs = np.fromiter((p for pair in pulls for p in pair), np.intp, 2 * len(pulls)).reshape(-1, 2)
    updates = np.fromiter(pulls.values(), np.int64, len(pulls))
    figure = Figure(figsize=SIZE, layout="constrained")
    _head(figure, story, "Who got updates from whom")
    links = len(np.unique(np.sort(pairs, axis=1), axis=0))
    if count <= DRAWN_NODES and links <= DRAWN_LINKS:
        left, right = figure.subplots(1, 2, width_ratios=[1, 1.2])
        _graph(left, story, pairs, updates)
        _map(figure, right, pairs, updates, count)
    else:
        axes = figure.subplot_mosaic([["heard", "map"], ["given", "map"]], width_ratios=[1, 1.3])
        heard = np.bincount(pairs[:, 0], minlength=count)
        given = np.bincount(pairs[:, 1], weights=updates, minlength=count)
        _histogram(axes["heard"], heard, "others that a bank got updates from")
        _histogram(axes["given"], given, "updates that others got from a bank")
        _map(figure, axes["map"], pairs, updates, count)
    return figure


PICTURES: dict[str, Callable[[Story], Figure | None]] = {
    "auprc": auprc,
    "worst": worst,
    "consensus": consensus,
    "bytes": traffic,
    "quarantine": quarantine,
    "topology": topology,
}
"""Every picture, by the name of its file; None where the history has nothing for it."""


# --- parts of pictures ------------------------------------------------------------------------------------------------


def _figure(story: Story, title: str, note: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE, layout="constrained")
    _head(figure, story, title)
    axes = figure.subplots()
    axes.set_title(note, loc="left", fontsize=11, color=GREY)
    return figure, axes


def _head(figure: Figure, story: Story, title: str) -> None:
    figure.suptitle(title, x=0.01, horizontalalignment="left", fontsize=15, fontweight="bold")
    figure.supxlabel(story.caption, x=0.99, horizontalalignment="right", fontsize=10, color=GREY)


def _finished(figure: Figure, axes: Axes) -> Figure:
    """With rounds along the bottom, and the legend beside the axes."""
    axes.set_xlabel("round")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside right upper", fontsize=11)
    return figure


def _bands(axes: Axes, groups: pd.api.typing.SeriesGroupBy) -> None:
    """Median, quartiles, smallest and largest of each round."""
    low, first, middle, third, high = (groups.quantile(q) for q in (0, 0.25, 0.5, 0.75, 1))
    axes.fill_between(low.index, low, high, color=BLUE, alpha=0.15, linewidth=0, label="smallest to largest")
    axes.fill_between(low.index, first, third, color=BLUE, alpha=0.35, linewidth=0, label="middle half")
    marker = "o" if len(low) <= MARKED else ""
    axes.plot(low.index, middle, color=BLUE, linewidth=2, marker=marker, markersize=4, label="median")


def _graph(axes: Axes, story: Story, pairs: NDArray[np.intp], updates: NDArray[np.int64]) -> None:
    """Nodes on a circle; a line is as thick as many updates went along it, both ways."""
    nodes = story.history.run.nodes
    angles = np.pi / 2 - 2 * np.pi * np.arange(len(nodes)) / len(nodes)
    places = np.column_stack([np.cos(angles), np.sin(angles)])
    both = np.zeros((len(nodes), len(nodes)))
    np.add.at(both, (pairs.min(axis=1), pairs.max(axis=1)), updates)
    one, other = np.nonzero(both)
    share = both[one, other] / both.max()
    lines = LineCollection(list(places[np.column_stack([one, other])]), linewidths=0.3 + 3.5 * share, colors=GREY)
    lines.set_alpha(0.2 + 0.5 * share)
    axes.add_collection(lines)
    for role, color, marker in (("honest", BLUE, "o"), ("attacker", VERMILLION, "s")):
        these = np.array([i for i, node in enumerate(nodes) if node.role == role], np.intp)
        if len(these):
            axes.scatter(places[these, 0], places[these, 1], s=180, color=color, marker=marker, zorder=3, label=role)
    for node, (x, y) in zip(nodes, 1.16 * places, strict=True):
        axes.text(x, y, node.name.removeprefix("bank-"), ha="center", va="center", fontsize=11)
    axes.set(xlim=(-1.3, 1.3), ylim=(-1.3, 1.3), aspect="equal")
    axes.set_axis_off()
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=2, fontsize=11)
    axes.set_title("line width: updates, both ways", fontsize=11, color=GREY)


def _map(figure: Figure, axes: Axes, pairs: NDArray[np.intp], updates: NDArray[np.int64], count: int) -> None:
    """Updates of each pair, or of many nodes the mean of the pairs that share a cell."""
    cells = min(count, CELLS)
    row, column = (pairs * cells // count).T
    sums, possible = np.zeros((cells, cells)), np.bincount(np.arange(count) * cells // count)
    np.add.at(sums, (row, column), updates)
    others = np.outer(possible, possible) - np.diag(possible)
    mean = np.divide(sums, others, out=np.full_like(sums, np.nan), where=others > 0)
    edges = (0.5, count + 0.5, count + 0.5, 0.5)
    image = axes.imshow(mean, interpolation="nearest", vmin=0, extent=edges)
    axes.set(xlabel="from bank", ylabel="to bank")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=6 if count > DRAWN_NODES else 10, integer=True, prune="lower"))
    axes.grid(visible=False)
    figure.colorbar(image, ax=axes, shrink=0.75, label="updates" if cells == count else "updates of a pair, mean")


def _histogram(axes: Axes, values: NDArray[np.number], label: str) -> None:
    low, high = int(values.min()), int(values.max())
    width = max(1, (high - low) // 40)
    axes.hist(values, bins=[edge - 0.5 for edge in range(low, high + 2 * width, width)], color=BLUE, rwidth=0.9)
    axes.set(xlabel=label, ylabel="banks")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def _quarantined(history: History) -> tuple[list[int], NDArray[np.float64]]:
    """The subjects that were in quarantine most, and at each moment the share of the honest others that had them in."""
    honest = {i for i, node in enumerate(history.run.nodes) if node.role == "honest"}
    changes: dict[int, list[Standing]] = {}
    for standing in sorted(history.standing, key=lambda s: s.time):
        if standing.observer in honest:
            changes.setdefault(standing.subject, []).append(standing)
    moments = np.linspace(0, history.virtual_seconds, MOMENTS, endpoint=False)
    shares = {}
    for subject, told in changes.items():
        holding: set[int] = set()
        counts = [0]
        for standing in told:
            (holding.add if standing.what == QUARANTINED else holding.discard)(standing.observer)
            counts.append(len(holding))
        at = np.searchsorted([standing.time for standing in told], moments, side="right")
        shares[subject] = np.array(counts)[at] / max(len(honest - {subject}), 1)
    most = sorted((s for s in shares if shares[s].any()), key=lambda s: -shares[s].sum())[:SUBJECTS]
    return most, np.array([shares[s] for s in most])
