"""A look at a source nobody has described yet: its columns, and the feature contract they suggest."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api import types as kinds

from p2pfed.config import DataSection, Source
from p2pfed.core.contract import FeatureColumn
from p2pfed.data import epoch, gaps, leaks, parsing, sources
from p2pfed.data.table import read_table
from p2pfed.data.whole import FEW, WholeNumbers
from p2pfed.errors import DataError

MAX_LEVELS = FEW
"""A text column with more values is an identifier, not a category."""
HASHED_LEVELS = 32
"""Levels, and so model inputs, of a hashed column."""
LOG_RATIO = 20.0
"""A column without negative values whose largest is this many times the mean of what is not 0 gets the log."""


def propose_contract(
    source: sources.Origin,
    label: str,
    drop: Collection[str] = (),
    event_time: str | None = None,
    labels: Mapping[str, int] | None = None,
    time_zone: str | None = None,
    hashed: Collection[str] = (),
) -> tuple[FeatureColumn, ...]:
    """The contract's columns as the rows suggest them: all but the label, the time and `drop`, in the source's order.

    Numbers are numeric, heavy-tailed ones without a negative under `log`; text with at most 50 values is categorical,
    and the columns of `hashed` are so by their hash.
    Columns whose gaps tell of fraud get an indicator. Columns of one value are left out, and whole numbers that are an
    identifier (see `whole`). Raises DataError for times, for text with more values (both want `drop`), and what
    `sources.read_chunks` raises.
    """
    columns: list[FeatureColumn] = []
    survey = _survey(source, label, drop, event_time, labels, time_zone, hashed)
    for seen in survey.columns:
        if seen.name in (label, event_time) or seen.name in drop:
            continue
        if seen.commas and seen.name not in hashed:
            raise DataError(f"column {seen.name!r} is text{parsing.COMMA_HINT}")
        if seen.times:
            raise DataError(f"column {seen.name!r} holds times: no feature; drop it, or name it as event_time")
        if seen.text and len(seen.levels) > MAX_LEVELS and seen.name not in hashed:
            raise DataError(
                f"column {seen.name!r} is text with more than {MAX_LEVELS} values: no feature; drop it, let "
                f"`data describe --hash` draft {HASHED_LEVELS} levels for it, or name it as event_time if it is that"
            )
        columns += survey.features(seen)
    if not columns:
        raise DataError(f"{sources.place(source)} has no column left that could be a feature")
    return tuple(columns)


def describe(
    source: Source,
    label: str,
    drop: Collection[str] = (),
    event_time: str | None = None,
    labels: Mapping[str, int] | None = None,
    time_zone: str | None = None,
    hashed: Collection[str] = (),
) -> dict[str, Any]:
    """What is in the source, as plain JSON values: rows, frauds, span of time and each column with its kind and values.

    Columns have `name`, `kind` (label, event_time, dropped, hashed, numeric, categorical, identifier, constant, time or
    text) and `missing`; numeric ones `minimum`, `maximum`, `mean`, `transform` and `ordered` (they never fall from row
    to row, as times), categorical ones `levels`, identifiers `why`, features whose gaps tell of fraud `gaps`. `leaks`
    has a sentence for each feature, or pair of them, that tells frauds by itself. Raises DataError.
    """
    survey = _survey(source, label, drop, event_time, labels, time_zone, hashed)
    roles = {
        **dict.fromkeys(drop, "dropped"),
        **dict.fromkeys(hashed, "hashed"),
        label: "label",
        **({event_time: "event_time"} if event_time else {}),
    }
    reply: dict[str, Any] = {
        "rows": survey.rows,
        "frauds": survey.frauds,
        "unlabelled": survey.unlabelled,
        "first_time": float(survey.first_time) if np.isfinite(survey.first_time) else None,
        "last_time": float(survey.last_time) if np.isfinite(survey.last_time) else None,
        "time_doubt": epoch.doubt(survey.first_time, survey.last_time, survey.rows) if event_time else "",
        "columns": [_row(survey, seen, roles.get(seen.name, seen.kind)) for seen in survey.columns],
        "leaks": [],
    }
    left = [seen for seen in survey.columns if roles.get(seen.name, "hashed") == "hashed"]
    columns = [column for seen in left for column in survey.features(seen)]
    if columns and survey.rows > survey.unlabelled:
        # with every row that has a label: what is missing is imputed, and no time is asked for
        data = DataSection(source=source, label=label, labels=dict(labels or {}), missing="impute")
        table = read_table(data, columns, 0.0)
        reply["leaks"] += [*leaks.leaks(table, columns), *leaks.pairs(table, columns)]
    return reply


def _row(survey: _Survey, seen: _Seen, kind: str) -> dict[str, Any]:
    """A column as `describe` tells of it."""
    row: dict[str, Any] = {"name": seen.name, "kind": kind, "missing": int(seen.missing[0])}
    if kind == "numeric":
        row |= {"minimum": seen.minimum, "maximum": seen.maximum, "mean": seen.total / max(seen.numbers.count, 1)}
        row |= {"transform": "log" if seen.heavy_tailed else "none", "ordered": seen.numbers.ordered}
    elif kind == "categorical":
        row["levels"] = sorted(seen.levels)
    elif kind == "identifier":
        row["why"] = seen.identifier
    elif seen.commas:
        row["why"] = f"text{parsing.COMMA_HINT}"
    if kind in ("numeric", "categorical") and gaps.telling(*survey.beside(seen)):
        row["gaps"] = gaps.sentence(*survey.beside(seen))
    return row


@dataclass
class _Seen:
    """What the chunks so far showed of one column."""

    name: str
    empty: NDArray[np.int64] = field(default_factory=lambda: np.zeros(3, np.int64))
    """Rows in which it is empty, labelled ones among them, and frauds."""
    words: NDArray[np.int64] = field(default_factory=lambda: np.zeros(3, np.int64))
    """The same of rows with a word that stands for no number, such as NA."""
    nonzero: int = 0
    total: float = 0.0
    minimum: float = np.inf
    maximum: float = -np.inf
    text: bool = False
    times: bool = False
    numbers: WholeNumbers = field(default_factory=WholeNumbers)
    values: set[str] = field(default_factory=set)
    """The first values as text, one more than a category may have."""
    said: set[str] = field(default_factory=set)
    """The words that stand for no number, levels if the column is text."""

    @property
    def kind(self) -> str:
        """What the column could be."""
        if self.times:
            return "time"
        if len(self.levels) <= 1:
            return "constant"
        if not self.text:
            return "identifier" if self.identifier else "numeric"
        return "categorical" if len(self.levels) <= MAX_LEVELS and not self.commas else "text"

    @property
    def commas(self) -> bool:
        """Whether its text is numbers with a decimal comma."""
        return self.text and bool(self.values) and all(re.fullmatch(parsing.DECIMAL_COMMA, v) for v in self.values)

    @property
    def levels(self) -> set[str]:
        """The values, with the words that are no gaps of a text column."""
        return self.values | self.said if self.text else self.values

    @property
    def missing(self) -> NDArray[np.int64]:
        """Rows in which it is missing, labelled ones among them, and frauds."""
        return self.empty if self.text else self.empty + self.words

    @property
    def heavy_tailed(self) -> bool:
        """Whether a log would bring the column's values together."""
        return self.minimum >= 0 and self.nonzero > 0 and self.maximum > LOG_RATIO * self.total / self.nonzero

    @property
    def identifier(self) -> str:
        """Why the column's numbers are an identifier and no feature; empty if they are not."""
        return self.numbers.identifier(self.name)

    def add(self, series: pd.Series, labels: NDArray[np.float32]) -> None:
        """Take in one chunk of the column."""
        empty, words = parsing.missing(series)
        self.empty += _counts(labels[empty])
        self.words += _counts(labels[words])
        self.times |= kinds.is_datetime64_any_dtype(series.dtype)
        if self.times:
            return
        for value in series[~(empty | words)].unique():
            if len(self.values) > MAX_LEVELS:
                break
            self.values.add(parsing.level_text(value))
        self.said |= {parsing.level_text(value) for value in series[words].unique()}
        if not self.text:
            self._add_numbers(series)

    def _add_numbers(self, series: pd.Series) -> None:
        try:
            numbers = parsing.numbers(series)
        except DataError:
            self.text = True
            return
        finite = numbers[np.isfinite(numbers)]
        if len(finite):
            self.nonzero += int(np.count_nonzero(finite))
            self.total += float(finite.sum())
            self.minimum = min(self.minimum, float(finite.min()))
            self.maximum = max(self.maximum, float(finite.max()))
            self.numbers.add(finite)


@dataclass
class _Survey:
    columns: Sequence[_Seen]
    hashed: Collection[str]
    rows: int = 0
    frauds: int = 0
    unlabelled: int = 0
    first_time: float = np.inf
    last_time: float = -np.inf

    def features(self, seen: _Seen) -> tuple[FeatureColumn, ...]:
        """The contract's column that the one seen could be, if it could."""
        missing: Literal["indicator"] | None = "indicator" if gaps.telling(*self.beside(seen)) else None
        if seen.name in self.hashed:
            levels = tuple(map(str, range(HASHED_LEVELS)))
            return (FeatureColumn(seen.name, "categorical", levels, "none", missing, "hashed"),)
        if seen.kind == "categorical":
            return (FeatureColumn(seen.name, "categorical", tuple(sorted(seen.levels)), "none", missing),)
        if seen.kind == "numeric":
            return (FeatureColumn(seen.name, "numeric", (), "log" if seen.heavy_tailed else "none", missing),)
        return ()

    def beside(self, seen: _Seen) -> tuple[int, int, int, int]:
        """Labelled rows in which the column is missing and frauds among them, then the same of the other rows."""
        _, gaps, frauds = map(int, seen.missing)
        return gaps, frauds, self.rows - self.unlabelled - gaps, self.frauds - frauds


def _counts(labels: NDArray[np.float32]) -> NDArray[np.int64]:
    return np.array([len(labels), np.isfinite(labels).sum(), (labels == 1).sum()])


def _survey(
    source: sources.Origin,
    label: str,
    drop: Collection[str],
    event_time: str | None,
    meaning: Mapping[str, int] | None,
    time_zone: str | None,
    hashed: Collection[str],
) -> _Survey:
    names = sources.column_names(source)
    named = [label, *drop, *([event_time] if event_time else [])]
    sources.require(source, [*named, *hashed])
    survey = _Survey([_Seen(name) for name in names], hashed)
    text = sources.texts(source) | ({label} if meaning else set())  # as `read_table` does
    for frame in sources.read_chunks(source, text=text):
        survey.rows += len(frame)
        labels = parsing.labels(frame[label], meaning)
        survey.frauds += int((labels == 1).sum())
        survey.unlabelled += int(np.isnan(labels).sum())
        if event_time:
            times = parsing.times(frame[event_time], time_zone)
            survey.first_time = np.fmin.reduce(times, initial=survey.first_time)
            survey.last_time = np.fmax.reduce(times, initial=survey.last_time)
        for seen in survey.columns:
            if seen.name not in named:
                seen.add(frame[seen.name], labels)
    return survey
