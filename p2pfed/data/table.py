"""A source read through the feature contract: numbers, level codes, labels and times as arrays, the rest counted."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from p2pfed.config import DataSection
from p2pfed.core.contract import FeatureColumn
from p2pfed.core.types import DAY
from p2pfed.data import epoch, parsing, sources
from p2pfed.errors import DataError

OUTSIDE, IMMATURE = "a time before the window", "label not mature"
EMPTY, INFINITE = "empty feature", "infinite feature"
"""Causes of rows left out."""


@dataclass(frozen=True)
class Table:
    """Rows that may be used: complete (or to be imputed), labelled, with a time if one is configured, and mature."""

    numeric: NDArray[np.float32]
    """[n, numeric columns] after the contract's transform, before scaling; NaN where to be imputed."""
    codes: NDArray[np.int32]
    """[n, categorical columns]: position of the level, `parsing.UNKNOWN` or `parsing.MISSING`."""
    labels: NDArray[np.float32]
    """[n]: 1 fraud, 0 legitimate."""
    times: NDArray[np.float64] | None
    """[n] seconds; None without event_time."""
    positions: NDArray[np.intp]
    """[n]: which row of the source each is, from 0."""
    rows_read: int
    dropped: dict[str, int]
    """Rows left out, by cause."""
    gaps: tuple[int, int]
    """Labelled rows left out for an empty or infinite feature, and the frauds among them."""
    unknown_levels: dict[str, int]
    """Fields with a level that the contract does not list, by contract column."""
    imputed: dict[str, int]
    """Fields that will be imputed, by contract column."""
    rows_in_window: int
    """Rows read that happened within `data.window_days`; all without a window."""
    immature: int
    """Of those in the window, the ones whose label is not mature yet."""
    oldest: float | None
    """Seconds of the first payment in the window, immature or not; None without event_time."""
    newest: float | None
    """Of the last one."""
    doubt: str = ""
    """Why the times of all rows read, in the window or not, are hardly seconds since 1970."""

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Features:
    """The contract's columns of one chunk, and the rows that lack a value."""

    numeric: NDArray[np.float32]
    codes: NDArray[np.int32]
    empty: NDArray[np.bool_]
    """[n]: a field of the row is empty, of a column that has no indicator for it."""
    infinite: NDArray[np.bool_]
    """[n]: a number of the row is infinite."""


def bank_columns(data: DataSection, columns: Sequence[FeatureColumn]) -> list[str]:
    """This bank's name of each contract column. Raises DataError if the mapping names another column or the label."""
    names = [c.name for c in columns]
    for name in data.columns:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise DataError(f"data.columns maps {name!r}, which is no column of the feature contract{hint}")
    mapped = [data.columns.get(name, name) for name in names]
    for name, own in zip(names, mapped, strict=True):
        if own in (data.label, data.event_time):
            role = "label" if own == data.label else "event_time"
            raise DataError(f"contract column {name!r} reads {own!r}, which is data.{role} and never a feature")
    return mapped


def text_columns(data: DataSection, columns: Sequence[FeatureColumn]) -> set[str]:
    """This bank's columns that hold levels, to be read as text."""
    pairs = zip(columns, bank_columns(data, columns), strict=True)
    return {own for column, own in pairs if column.kind == "categorical"}


def read_features(frame: pd.DataFrame, data: DataSection, columns: Sequence[FeatureColumn]) -> Features:
    """Parse the contract's columns of `frame`. Raises DataError on text in a number or a missing column."""
    own_names = bank_columns(data, columns)
    sources.check_columns([str(c) for c in frame.columns], own_names, "the data", sources.MAP_HINT)
    numeric, codes = [], []
    empty = np.zeros(len(frame), bool)
    infinite = np.zeros(len(frame), bool)
    for column, own in zip(columns, own_names, strict=True):
        if column.kind == "categorical":
            codes.append(parsing.level_codes(frame[own], column.levels, column.coding == "hashed"))
            missing = codes[-1] == parsing.MISSING
        else:
            values = parsing.numbers(frame[own])
            missing = np.isnan(values)
            values = _apply(column.transform, values)
            with np.errstate(over="ignore"):
                numeric.append(values.astype(np.float32))
            infinite |= np.isinf(numeric[-1])
        if column.missing is None:
            empty |= missing
    return Features(
        np.column_stack(numeric) if numeric else np.empty((len(frame), 0), np.float32),
        np.column_stack(codes) if codes else np.empty((len(frame), 0), np.int32),
        empty,
        infinite,
    )


@dataclass
class _Tally:
    """What became of the rows of the chunks so far."""

    now: float
    rows_read: int = 0
    in_window: int = 0
    immature: int = 0
    oldest: float = np.inf
    newest: float = -np.inf
    first: float = np.inf
    """Of all rows; oldest and newest are of those in the window."""
    last: float = -np.inf
    gap_frauds: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    imputed: Counter[str] = field(default_factory=Counter)


def read_table(
    data: DataSection, columns: Sequence[FeatureColumn], now: float, *, source: sources.Origin | None = None
) -> Table:
    """Read `data.source` (or `source`, under the same mapping) whole, in chunks. Raises DataError.

    `now` in Unix seconds decides which payments are in the window and which labels are mature.
    """
    for setting in ("window_days", "label_maturity_days"):
        if getattr(data, setting) and data.event_time is None:
            raise DataError(f"data.{setting} needs data.event_time to know how old a payment is")
    source = data.source if source is None else source
    own = bank_columns(data, columns)
    wanted = list(dict.fromkeys([*own, data.label, *([data.event_time] if data.event_time else [])]))
    text = text_columns(data, columns) | ({data.label} if data.labels else set())  # or a word such as None is a gap
    chunks, tally = [], _Tally(now)
    # closed at once when a row is refused: the connection to a database does not wait for the garbage collector
    with closing(sources.read_chunks(source, wanted, text=text)) as frames:
        for frame in frames:
            chunks.append(_read_chunk(frame, data, columns, tally))
    first, last, oldest, newest = map(_known, (tally.first, tally.last, tally.oldest, tally.newest))
    doubt = epoch.doubt(first, last, tally.rows_read)
    if doubt and last is not None and last < epoch.YEAR_1990 and data.label_maturity_days:
        raise DataError(f"data.event_time: {doubt}. No label would be too young for data.label_maturity_days")
    labels = np.concatenate([c[2] for c in chunks])
    if not len(labels):
        raise DataError(_nothing_left(sources.place(source), data, tally))
    return Table(
        np.concatenate([c[0] for c in chunks]),
        np.concatenate([c[1] for c in chunks]),
        labels,
        np.concatenate([c[3] for c in chunks]) if data.event_time else None,
        np.concatenate([c[4] for c in chunks]),
        tally.rows_read,
        dict(tally.dropped),
        (tally.dropped[EMPTY] + tally.dropped[INFINITE], tally.gap_frauds),
        dict(tally.unknown),
        dict(tally.imputed),
        tally.in_window,
        tally.immature,
        oldest,
        newest,
        doubt,
    )


def _known(time: float) -> float | None:
    return float(time) if np.isfinite(time) else None


def mature_until(data: DataSection, now: float) -> float:
    """The time (seconds) up to which labels are mature at `now`."""
    return now - data.label_maturity_days * DAY


def _read_chunk(
    frame: pd.DataFrame, data: DataSection, columns: Sequence[FeatureColumn], tally: _Tally
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float32], NDArray[np.float64], NDArray[np.intp]]:
    """The usable rows of one chunk; what is left out goes into the tally."""
    features = read_features(frame, data, columns)
    labels = parsing.labels(frame[data.label], data.labels)
    times = parsing.times(frame[data.event_time], data.time_zone) if data.event_time else np.zeros(len(frame))
    outside, immature = _aged(times, data, tally)
    keep = np.ones(len(frame), bool)

    def drop(cause: str, rows: NDArray[np.bool_]) -> None:
        tally.dropped[cause] += int((keep & rows).sum())
        keep[rows] = False

    drop(OUTSIDE, outside)
    drop("no label", np.isnan(labels))
    drop("no event_time", np.isnan(times))
    drop(IMMATURE, immature)
    if data.missing == "drop":
        tally.gap_frauds += int(labels[keep & (features.empty | features.infinite)].sum())
        drop(EMPTY, features.empty)
        drop(INFINITE, features.infinite)
    numeric, codes = features.numeric[keep], features.codes[keep]
    numbers = [c for c in columns if c.kind == "numeric"]
    levels = [c for c in columns if c.kind == "categorical"]
    for column, values in zip(numbers, numeric.T, strict=True):
        tally.imputed[column.name] += int((~np.isfinite(values)).sum())
    for column, values in zip(levels, codes.T, strict=True):
        tally.unknown[column.name] += int((values == parsing.UNKNOWN).sum())
        tally.imputed[column.name] += int((values == parsing.MISSING).sum())
    numeric[~np.isfinite(numeric)] = np.nan
    return numeric, codes, labels[keep], times[keep], frame.index.to_numpy(np.intp)[keep]


def _aged(times: NDArray[np.float64], data: DataSection, tally: _Tally) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which rows of a chunk happened before the window, and which are too young; counts both."""
    since = tally.now - data.window_days * DAY if data.window_days else -np.inf
    until = mature_until(data, tally.now) if data.label_maturity_days else np.inf
    outside, immature = times < since, times > until
    tally.rows_read += len(times)
    # a row without a time is in no window, but one of all rows where there is none
    inside = times >= since if data.window_days else np.ones(len(times), bool)
    tally.in_window += int(inside.sum())
    tally.immature += int((inside & immature).sum())
    if data.event_time:
        tally.first = float(np.fmin.reduce(times, initial=tally.first))
        tally.last = float(np.fmax.reduce(times, initial=tally.last))
        tally.oldest = float(np.fmin.reduce(times[inside], initial=tally.oldest))
        tally.newest = float(np.fmax.reduce(times[inside], initial=tally.newest))
    return outside, immature


def _apply(transform: Literal["none", "log"], values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sign(values) * np.log1p(np.abs(values)) if transform == "log" else values


def _nothing_left(place: str, data: DataSection, tally: _Tally) -> str:
    cause, number = tally.dropped.most_common(1)[0]
    if data.window_days and tally.dropped[OUTSIDE] + tally.dropped[IMMATURE] > tally.rows_read / 2:
        return _nothing_mature(place, data, tally)
    hints = {
        "no label": "check data.label",
        "no event_time": "check data.event_time",
        IMMATURE: "lower data.label_maturity_days or wait",
        OUTSIDE: "raise data.window_days",
        EMPTY: "write missing: impute, or leave the empty column out of the contract",
        INFINITE: "write missing: impute, or mend the column",
    }
    return f"none of the {tally.rows_read} rows of {place} can be used: {number} have {cause}; {hints[cause]}"


def _nothing_mature(place: str, data: DataSection, tally: _Tally) -> str:
    """Why a window holds no row to learn from, in numbers, and what to change."""
    window, maturity = data.window_days, data.label_maturity_days
    if window <= maturity:
        advice = f"raise data.window_days above data.label_maturity_days ({maturity:g}), or lower that"
    elif tally.in_window:
        advice = "raise data.window_days, or lower data.label_maturity_days"
    else:
        advice = "deliver newer payments, raise data.window_days, or check data.event_time"
    return (
        f"none of the {tally.rows_read} rows of {place} can be used: {tally.in_window} are of the last {window:g} days "
        f"(data.window_days), and of these {tally.in_window - tally.immature} have a label that is {maturity:g} days "
        f"old (data.label_maturity_days); {advice}"
    )
