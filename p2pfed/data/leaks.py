"""The leak alarm: a column that alone tells fraud from legitimate payments was written after the fraud was known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from p2pfed.core.contract import FeatureColumn
from p2pfed.data.table import Table
from p2pfed.errors import DataError

AUROC_LIMIT = 0.995
MIN_FRAUDS = 50
"""With fewer, a good column reaches the limit by luck (one of real card payments with AUROC 0.95 does in some shards of
15 frauds); a column that repeats the label is refused from two."""


def check_leaks(table: Table, columns: Sequence[FeatureColumn]) -> None:
    """Raise DataError naming the first column whose AUROC against the label is above the limit, or repeats it."""
    fraud = table.labels == 1
    if fraud.sum() < 2 or fraud.all():
        return
    numeric = iter(table.numeric.T)
    codes = iter(table.codes.T)
    for column in columns:
        values = next(numeric).astype(np.float64) if column.kind == "numeric" else _fraud_rates(next(codes), fraud)
        known = np.isfinite(values)
        _check_column(column.name, values[known & fraud], values[known & ~fraud])


def auroc(frauds: NDArray[np.float64], legitimate: NDArray[np.float64]) -> float:
    """Chance that a random fraud has the higher value, ties counted half; only the frauds are sorted."""
    ordered = np.sort(frauds)
    below = np.searchsorted(ordered, legitimate, side="left")
    not_above = np.searchsorted(ordered, legitimate, side="right")
    return float(1 - (below.mean() + not_above.mean()) / (2 * len(frauds)))


def _check_column(name: str, frauds: NDArray[np.float64], legitimate: NDArray[np.float64]) -> None:
    if len(frauds) < 2 or not len(legitimate):
        return
    advice = "drop it from the contract, or write leak_alarm: false if you know why"
    if np.ptp(frauds) == 0 and np.ptp(legitimate) == 0 and frauds[0] != legitimate[0]:
        raise DataError(f"column {name!r} repeats the label: it is not known when a payment is made; {advice}")
    if len(frauds) < MIN_FRAUDS:
        return
    value = auroc(frauds, legitimate)
    if max(value, 1 - value) > AUROC_LIMIT:
        raise DataError(
            f"column {name!r} alone tells fraud from legitimate payments (AUROC {max(value, 1 - value):.4f}): it was "
            f"probably written after the fraud was known; {advice}"
        )


def _fraud_rates(codes: NDArray[np.int32], fraud: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Each row's level as the share of fraud among the rows of that level."""
    shifted = codes - codes.min()
    count = np.bincount(shifted)
    rates: NDArray[np.float64] = (np.bincount(shifted, weights=fraud) / np.maximum(count, 1))[shifted]
    return rates
