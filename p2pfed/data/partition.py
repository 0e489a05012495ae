"""One data set -> several banks and a held-out test set, for clusters and experiments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from p2pfed.core.types import DAY
from p2pfed.data import parsing
from p2pfed.data.sources import check_columns
from p2pfed.data.split import newest, row_keys, share_of_each
from p2pfed.errors import DataError, UsageError

MIN_BANK_ROWS = 300
"""Rows of each bank, unless told."""


class Holdout(NamedTuple):
    """A data set in two, and how many rows are in neither, by cause."""

    rest: pd.DataFrame
    test: pd.DataFrame
    left_out: dict[str, int]


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
    drop: Sequence[str] = (),
) -> Holdout:
    """Remove exact duplicates, then hold out the newest `test_share` (split `time`) or a stratified draw.

    `gap_days` are left out of the end of the rest; rows without a time are in neither. Rows that are equal but for the
    columns of `drop`, which no model sees, stay together: two payments may well be. Raises DataError and UsageError.
    """
    whole, frame = len(frame), deduplicate(frame)
    left_out = {"exact duplicate": whole - len(frame)}
    if split == "time":
        if time is None:
            raise UsageError("a time split needs the time column")
        times = parsing.times(_column(frame, time))
        first_test = newest(times, test_share)
        rest, test = times < first_test - gap_days * DAY, times >= first_test
        left_out["no event_time"] = int(np.isnan(times).sum())
        left_out["gap before the test"] = int((~rest & ~test).sum()) - left_out["no event_time"]
    elif split == "stratified":
        keys = row_keys(pd.util.hash_pandas_object(frame, index=False).to_numpy())
        alike = pd.util.hash_pandas_object(frame.drop(columns=list(drop)), index=False).to_numpy()
        keys = pd.Series(keys).groupby(alike).transform("min").to_numpy(np.uint64)
        test = share_of_each(keys, parsing.labels(_column(frame, label)), test_share, seed)
        rest = ~test
    else:
        raise UsageError(f"unknown split {split!r}: expected time or stratified")
    if not rest.any() or not test.any():
        what = "the rest" if not rest.any() else "the test"
        given = f"of {len(frame):,} different rows, a test share of {test_share:g} and a gap of {gap_days:g} days"
        raise DataError(f"{given} leave {what} no rows with label and time")
    return Holdout(frame[rest].reset_index(drop=True), frame[test].reset_index(drop=True), left_out)


def partition(
    frame: pd.DataFrame, label: str, n: int, how: str, seed: int = 0, min_rows: int = MIN_BANK_ROWS
) -> list[pd.DataFrame]:
    """`frame` as the rows of `n` banks, each row in one bank, row order kept.

    `iid` deals evenly within each class; `dirichlet:A` draws each class's shares from Dirichlet(A) and tops banks up
    to `min_rows` with legitimate rows of the larger ones; `lognormal:S` draws sizes from exp(S * normal), classes mixed
    evenly; `by:COL` makes a bank of each value of COL (the largest `n`) and drops the column. Raises UsageError for
    another `how` and DataError where the rows are too few.
    """
    banks = deal(frame, label, n, how, seed, min_rows)
    kind, argument = dealing(how)
    kept = frame.drop(columns=[argument]) if kind == "by" else frame
    return [kept[banks == b].reset_index(drop=True) for b in range(n)]


def deal(
    frame: pd.DataFrame, label: str, n: int, how: str, seed: int = 0, min_rows: int = MIN_BANK_ROWS
) -> NDArray[np.intp]:
    """The bank [len(frame)] of each row, from 0 to n - 1, or -1 for none; see `partition`."""
    if n < 1:
        raise UsageError("a partition needs at least one bank")
    kind, argument = dealing(how)
    if isinstance(argument, str):
        return _by_column(frame, argument, n, min_rows)
    labels = parsing.labels(_column(frame, label))
    if len(frame) < n * min_rows:
        fitting = len(frame) // min_rows
        raise DataError(f"{len(frame):,} rows give {fitting:,} banks of at least {min_rows} rows each, not {n:,}")
    generator = np.random.default_rng(seed)
    if kind == "iid":
        shares = np.full((2, n), 1 / n)
    elif kind == "dirichlet":
        shares = generator.dirichlet(np.full(n, argument), size=2)
    else:
        sizes = np.exp(argument * generator.standard_normal(n))
        shares = np.tile(sizes / sizes.sum(), (2, 1))
    banks = _deal(labels, shares, generator)
    _top_up(banks, labels, n, min_rows, generator)
    return banks


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


def _by_column(frame: pd.DataFrame, column: str, n: int, min_rows: int) -> NDArray[np.intp]:
    counts = _column(frame, column).value_counts()
    fitting = int((counts >= min_rows).sum())
    if fitting < n:
        raise DataError(
            f"column {column!r} has {len(counts):,} values and gives {fitting:,} banks of at least {min_rows} rows "
            f"each, not {n:,}"
        )
    numbers = {value: number for number, value in enumerate(sorted(counts.index[:n]))}
    codes, values = pd.factorize(frame[column])
    lookup = np.array([*(numbers.get(value, -1) for value in values), -1], np.intp)
    banks: NDArray[np.intp] = lookup[codes]
    return banks


def _deal(labels: NDArray[np.float32], shares: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.intp]:
    """The bank of each row: each class is shuffled and cut by its row of `shares` [2, n]."""
    banks = np.zeros(len(labels), np.intp)
    for label, share in enumerate(shares):
        members = generator.permutation(np.flatnonzero((labels == 1) == bool(label)))
        cuts = np.round(np.cumsum(share)[:-1] * len(members)).astype(int)
        banks[members] = np.searchsorted(cuts, np.arange(len(members)), side="right")
    return banks


def _top_up(
    banks: NDArray[np.intp], labels: NDArray[np.float32], n: int, min_rows: int, generator: np.random.Generator
) -> None:
    """Move legitimate rows of the largest bank to each bank with too few, in place."""
    sizes = np.bincount(banks, minlength=n)
    legitimate = np.flatnonzero(labels != 1)
    by_bank = legitimate[np.argsort(banks[legitimate], kind="stable")]
    spare = np.split(by_bank, np.cumsum(np.bincount(banks[legitimate], minlength=n))[:-1])
    for bank in np.flatnonzero(sizes < min_rows):
        while (lacking := min_rows - int(sizes[bank])) > 0:
            largest = int(np.argmax(sizes))
            movable = min(lacking, len(spare[largest]), int(sizes[largest]) - min_rows)
            if movable < 1:
                raise DataError(f"too few legitimate rows for {n} banks of {min_rows} rows; use fewer banks")
            moved = generator.choice(spare[largest], movable, replace=False)
            banks[moved] = bank
            spare[largest] = np.setdiff1d(spare[largest], moved, assume_unique=True)
            spare[bank] = np.sort(np.append(spare[bank], moved))
            sizes[largest] -= movable
            sizes[bank] += movable
