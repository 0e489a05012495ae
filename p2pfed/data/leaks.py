"""The leak alarm: what tells fraud from legitimate payments by itself was written after the fraud was known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from p2pfed.core.contract import FeatureColumn
from p2pfed.data.table import Table
from p2pfed.errors import DataError

AUROC_LIMIT = 0.995
MIN_FRAUDS = 50
"""With fewer, a good column reaches the limit by luck (one of real card payments with AUROC 0.95 does in some shards of
15 frauds); a column that repeats the label is refused from two."""


MOST_FRAUDS, MOST_LEGITIMATE = 1000, 5000
"""Rows, drawn at random, in which pairs of columns are looked at: some 5 ms a pair."""
MOST_COLUMNS = 40
"""Of a wider contract pairs are not looked at: 780 take some 4 s."""


def check_leaks(table: Table, columns: Sequence[FeatureColumn]) -> None:
    """Raise DataError with the first sentence of `leaks`, if there is one, and what to do."""
    for sentence in leaks(table, columns):
        raise DataError(f"{sentence}; drop it from the contract, or write leak_alarm: false if you know why")


def leaks(table: Table, columns: Sequence[FeatureColumn]) -> Iterator[str]:
    """Which columns repeat the label, or have an AUROC against it above the limit, a sentence each."""
    fraud = table.labels == 1
    if fraud.sum() < 2 or fraud.all():
        return
    numeric = iter(table.numeric.T)
    codes = iter(table.codes.T)
    for column in columns:
        values = next(numeric).astype(np.float64) if column.kind == "numeric" else _fraud_rates(next(codes), fraud)
        known = np.isfinite(values)
        yield from _leak(column.name, values[known & fraud], values[known & ~fraud])


def pairs(table: Table, columns: Sequence[FeatureColumn]) -> Iterator[str]:
    """Which two columns together tell the label as well as one that leaks would, a sentence each.

    By a small tree that learns from one half of the rows and is measured on the other. What is known when a payment is
    made may do that too, such as an amount that is the whole balance: it is no error. Columns that leak by themselves
    are not looked at.
    """
    from sklearn.tree import DecisionTreeClassifier

    rng = np.random.default_rng(0)
    classes = [rng.permutation(np.flatnonzero(table.labels == label)) for label in (1, 0)]
    if min(map(len, classes)) < 2 * MIN_FRAUDS or len(columns) > MOST_COLUMNS:  # a half without a class tells nothing
        return
    alone = {column.name for column in columns if any(leaks(*_only(table, columns, column)))}
    rows = np.concatenate([classes[0][:MOST_FRAUDS], classes[1][:MOST_LEGITIMATE]])
    fraud, learn = table.labels[rows] == 1, rng.random(len(rows)) < 0.5
    for one, other in combinations([c for c in columns if c.name not in alone], 2):
        values = _inputs(*_only(table, columns, one, other), rows)
        tree = DecisionTreeClassifier(max_depth=3, min_samples_leaf=5, class_weight="balanced", random_state=0)
        scores = tree.fit(values[learn], fraud[learn]).predict_proba(values[~learn])[:, 1]
        value = auroc(scores[fraud[~learn]], scores[~fraud[~learn]])
        if value > AUROC_LIMIT:
            yield (
                f"columns {one.name!r} and {other.name!r} together tell fraud from legitimate payments (AUROC "
                f"{value:.4f}): are both known when a payment is made?"
            )


def auroc(frauds: NDArray[np.float64], legitimate: NDArray[np.float64]) -> float:
    """Chance that a random fraud has the higher value, ties counted half; only the frauds are sorted."""
    ordered = np.sort(frauds)
    below = np.searchsorted(ordered, legitimate, side="left")
    not_above = np.searchsorted(ordered, legitimate, side="right")
    return float(1 - (below.mean() + not_above.mean()) / (2 * len(frauds)))


def _leak(name: str, frauds: NDArray[np.float64], legitimate: NDArray[np.float64]) -> Iterator[str]:
    if len(frauds) < 2 or not len(legitimate):
        return
    if np.ptp(frauds) == 0 and np.ptp(legitimate) == 0 and frauds[0] != legitimate[0]:
        yield f"column {name!r} repeats the label: it is not known when a payment is made"
    elif len(frauds) >= MIN_FRAUDS:
        value = auroc(frauds, legitimate)
        if max(value, 1 - value) > AUROC_LIMIT:
            yield (
                f"column {name!r} alone tells fraud from legitimate payments (AUROC {max(value, 1 - value):.4f}): it "
                "was probably written after the fraud was known"
            )


def _only(
    table: Table, columns: Sequence[FeatureColumn], *wanted: FeatureColumn
) -> tuple[Table, tuple[FeatureColumn, ...]]:
    """The table with the wanted ones of its columns."""
    numeric = [column in wanted for column in columns if column.kind == "numeric"]
    codes = [column in wanted for column in columns if column.kind == "categorical"]
    return replace(table, numeric=table.numeric[:, numeric], codes=table.codes[:, codes]), wanted


def _inputs(table: Table, columns: Sequence[FeatureColumn], rows: NDArray[np.intp]) -> NDArray[np.float32]:
    """What a tree sees of two columns: their values, and of two numbers how far they are apart."""
    numbers = table.numeric[rows]
    apart = numbers[:, :1] - numbers[:, 1:] if numbers.shape[1] == 2 else numbers[:, :0]
    return np.hstack([numbers, apart, table.codes[rows].astype(np.float32)])


def _fraud_rates(codes: NDArray[np.int32], fraud: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Each row's level as the share of fraud among the rows of that level."""
    shifted = codes - codes.min()
    count = np.bincount(shifted)
    rates: NDArray[np.float64] = (np.bincount(shifted, weights=fraud) / np.maximum(count, 1))[shifted]
    return rates
