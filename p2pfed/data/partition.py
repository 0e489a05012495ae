"""One data set -> several banks and a held-out test set, for clusters and experiments."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from p2pfed.core.types import DAY
from p2pfed.data import parsing
from p2pfed.data.sources import check_columns
from p2pfed.data.split import newest, row_keys, stratified
from p2pfed.errors import DataError, UsageError

MIN_BANK_ROWS = 300


def deduplicate(frame: pd.DataFrame) -> pd.DataFrame:
    """`frame` without exact duplicates (the first stays), renumbered from 0."""
    return frame.drop_duplicates(ignore_index=True)


def holdout(
    frame: pd.DataFrame,
    label: str,
    split: str,
    time: str | None = None,
    test_share: float = 0.3,
    gap_days: float = 0.0,
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(rest, test): exact duplicates removed, then the newest `test_share` (split `time`) or a stratified draw.

    `gap_days` are left out of the end of the rest; rows without a time are in neither. Raises DataError and UsageError.
    """
    frame = deduplicate(frame)
    if split == "time":
        if time is None:
            raise UsageError("a time split needs the time column")
        times = parsing.times(_column(frame, time))
        first_test = newest(times, test_share)
        rest, test = times < first_test - gap_days * DAY, times >= first_test
    elif split == "stratified":
        keys = row_keys(pd.util.hash_pandas_object(frame, index=False).to_numpy())
        parts = stratified(keys, parsing.labels(_column(frame, label)), 0, test_share, seed)
        rest, test = np.isin(np.arange(len(frame)), parts.train), np.isin(np.arange(len(frame)), parts.test)
    else:
        raise UsageError(f"unknown split {split!r}: expected time or stratified")
    if not rest.any() or not test.any():
        what = "the rest" if not rest.any() else "the test"
        raise DataError(f"a test share of {test_share:g} and a gap of {gap_days:g} days leave {what} no rows")
    return frame[rest].reset_index(drop=True), frame[test].reset_index(drop=True)


def partition(frame: pd.DataFrame, label: str, n: int, how: str, seed: int = 0) -> list[pd.DataFrame]:
    """`frame` as the rows of `n` banks, each row in one bank, row order kept.

    `iid` deals evenly within each class; `dirichlet:A` draws each class's shares from Dirichlet(A) and tops banks up
    to 300 rows with legitimate rows of the larger ones; `lognormal:S` draws sizes from exp(S * normal), classes mixed
    evenly; `by:COL` makes a bank of each value of COL (the largest `n`) and drops the column. Raises UsageError for
    another `how` and DataError where the rows are too few.
    """
    if n < 1:
        raise UsageError("a partition needs at least one bank")
    kind, argument = dealing(how)
    if isinstance(argument, str):
        return _by_column(frame, argument, n)
    labels = parsing.labels(_column(frame, label))
    if len(frame) < n * MIN_BANK_ROWS:
        raise DataError(f"{len(frame)} rows are too few for {n} banks of at least {MIN_BANK_ROWS} rows each")
    generator = np.random.default_rng(seed)
    if kind == "iid":
        shares = np.full((2, n), 1 / n)
    elif kind == "dirichlet":
        shares = generator.dirichlet(np.full(n, argument), size=2)
    else:
        sizes = np.exp(argument * generator.standard_normal(n))
        shares = np.tile(sizes / sizes.sum(), (2, 1))
    banks = _deal(labels, shares, generator)
    _top_up(banks, labels, n, generator)
    return [frame[banks == b].reset_index(drop=True) for b in range(n)]


def dealing(how: str) -> tuple[str, str | float]:
    """The kind of dealing that `how` names, and its column (`by`) or number (0 for `iid`); raises UsageError."""
    kind, colon, argument = how.partition(":")
    if kind == "by" and argument:
        return kind, argument
    if how == "iid":
        return kind, 0.0
    if kind in ("dirichlet", "lognormal") and colon:
        return kind, _positive(how, argument)
    raise UsageError(f"unknown partition {how!r}: expected iid, dirichlet:0.5, lognormal:0.8 or by:COLUMN")


def _column(frame: pd.DataFrame, name: str) -> pd.Series:
    check_columns([str(c) for c in frame.columns], [name], "the data")
    return frame[name]


def _positive(how: str, argument: str) -> float:
    try:
        value = float(argument)
    except ValueError:
        value = 0.0
    if not 0 < value < np.inf:
        raise UsageError(f"partition {how!r} needs a positive number after the colon, for example dirichlet:0.5")
    return value


def _by_column(frame: pd.DataFrame, column: str, n: int) -> list[pd.DataFrame]:
    counts = _column(frame, column).value_counts()
    if len(counts) < n:
        raise DataError(f"column {column!r} has {len(counts)} values, too few for {n} banks")
    chosen = sorted(counts.index[:n])
    banks = [frame[frame[column] == v].drop(columns=column).reset_index(drop=True) for v in chosen]
    for value, bank in zip(chosen, banks, strict=True):
        if len(bank) < MIN_BANK_ROWS:
            raise DataError(f"bank {column}={value} has {len(bank)} rows, fewer than {MIN_BANK_ROWS}; use fewer banks")
    return banks


def _deal(labels: NDArray[np.float32], shares: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.intp]:
    """The bank of each row: each class is shuffled and cut by its row of `shares` [2, n]."""
    banks = np.zeros(len(labels), np.intp)
    for label, share in enumerate(shares):
        members = generator.permutation(np.flatnonzero((labels == 1) == bool(label)))
        cuts = np.round(np.cumsum(share)[:-1] * len(members)).astype(int)
        for bank, rows in enumerate(np.split(members, cuts)):
            banks[rows] = bank
    return banks


def _top_up(banks: NDArray[np.intp], labels: NDArray[np.float32], n: int, generator: np.random.Generator) -> None:
    """Move legitimate rows of the largest bank to each bank with too few, in place."""
    for bank in range(n):
        while (lacking := MIN_BANK_ROWS - int((banks == bank).sum())) > 0:
            sizes = np.bincount(banks, minlength=n)
            largest = int(np.argmax(sizes))
            spare = np.flatnonzero((banks == largest) & (labels != 1))
            movable = min(lacking, len(spare), int(sizes[largest]) - MIN_BANK_ROWS)
            if movable < 1:
                raise DataError(f"too few legitimate rows for {n} banks of {MIN_BANK_ROWS} rows; use fewer banks")
            banks[generator.choice(spare, movable, replace=False)] = bank
