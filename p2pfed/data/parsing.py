"""One column of a bank's own making -> numbers, labels, seconds or level codes; what does not fit is told by its row.

Series carry the row numbering of `sources.read_chunks` in their index, and the file in their `attrs`.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api import types as kinds

from p2pfed.config import label_word
from p2pfed.data.delimited import MISSING_TEXT
from p2pfed.data.sources import FILE, ROWS_BEFORE
from p2pfed.errors import DataError

UNKNOWN = -1
"""Code of a level that the contract does not list: all zeros."""
MISSING = -2
"""Code of an empty field."""

DECIMAL_COMMA = r"\s*[-+]?\d+,\d+\s*"
COMMA_HINT = "; if commas stand before the decimals, write decimal: ',' under data.source or --decimal ,"
_LABELS = {"0": 0.0, "1": 1.0, "0.0": 0.0, "1.0": 1.0, "false": 0.0, "true": 1.0, "no": 0.0, "yes": 1.0}
_LABELS |= {"n": 0.0, "y": 1.0}
_LABEL_HINT = "expected 0/1, true/false, yes/no or y/n; say what other words mean under data.labels"
_MEANING_HINT = "data.labels does not say what it means"
_ZONE = r"[Tt ]\d{2}.*(?:[Zz]|[+-]\d{2}(?::?\d{2})?)$"  # a clock time, then an offset: a bare date has none
_UNITS = ((1e17, "nanoseconds", "1e9"), (1e14, "microseconds", "1e6"), (1e11, "milliseconds", "1000"))
"""From which number on, as seconds the year 5138 and later, what it is instead, and by what to divide."""


def numbers(series: pd.Series) -> NDArray[np.float64]:
    """float64 [n]: NaN where missing, infinities kept. Raises DataError on text, naming row and column."""
    if kinds.is_datetime64_any_dtype(series.dtype):
        raise DataError(
            f"column {series.name!r} holds times, the contract wants numbers; map another column or drop it"
        )
    if kinds.is_numeric_dtype(series.dtype):
        return series.to_numpy(np.float64, na_value=np.nan)
    converted = pd.to_numeric(series, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    doubtful = np.isnan(converted) & series.notna().to_numpy()
    commas = series[doubtful].astype(str).str.fullmatch(DECIMAL_COMMA).any()
    _refuse(series, doubtful, "is not a number" + (COMMA_HINT if commas else ""), allowed=MISSING_TEXT)
    return converted


def missing(series: pd.Series) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """bool [n] twice: the field is empty, and it holds a word that is a gap among numbers but a level among text."""
    empty = series.isna().to_numpy()
    if not (kinds.is_object_dtype(series.dtype) or kinds.is_string_dtype(series.dtype)):
        return empty, np.zeros(len(series), bool)
    text = series.astype("string").str.strip()
    blank = (text == "").fillna(False).to_numpy(bool)
    return empty | blank, text.isin(MISSING_TEXT).to_numpy(bool) & ~empty & ~blank


def labels(series: pd.Series, meaning: Mapping[str, int] | None = None) -> NDArray[np.float32]:
    """float32 [n]: 1 fraud, 0 legitimate, NaN where missing; by `meaning`, or 0/1, true/false, yes/no and y/n.

    The words of `meaning` are as `config.label_word` writes them. Raises DataError on anything else.
    """
    codes, values = pd.factorize(series)
    if meaning:
        said = [meaning.get(label_word(level_text(v)), np.nan) for v in values]
    else:
        said = [_LABELS.get(str(v).strip().lower(), np.nan) for v in values]
    known = np.array([*said, np.nan], np.float32)
    result: NDArray[np.float32] = known[codes]
    doubtful = np.isnan(result) & (codes >= 0)
    _refuse(series, doubtful, "is not a label: " + (_MEANING_HINT if meaning else _LABEL_HINT), allowed=MISSING_TEXT)
    return result


def times(series: pd.Series, zone: str | None = None) -> NDArray[np.float64]:
    """float64 [n] of seconds: Unix time of an ISO 8601 text or timestamp, or the number as it is.

    NaN where missing; times without a zone are in `zone`. Raises DataError on these where it is None, for they could
    mean any hour, and on milliseconds.
    """
    if isinstance(series.dtype, pd.DatetimeTZDtype):
        return _seconds(series)
    if kinds.is_datetime64_any_dtype(series.dtype):
        _refuse(series, series.notna().to_numpy() & (zone is None), "is a time without a zone: " + _ZONE_HINT)
        return _seconds(_localised(series, zone or "UTC"))
    if kinds.is_numeric_dtype(series.dtype):
        return _check_seconds(series, series.to_numpy(np.float64, na_value=np.nan))
    as_numbers = pd.to_numeric(series, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    if not (np.isnan(as_numbers) & series.notna().to_numpy()).any():
        return _check_seconds(series, as_numbers)
    text = series.astype("string").str.strip()
    present = (series.notna() & ~text.isin(MISSING_TEXT)).to_numpy()
    zoned = text.str.contains(_ZONE, regex=True, na=False).to_numpy()
    parsed = pd.to_datetime(text.where(present), utc=True, format="ISO8601", errors="coerce")
    readable = parsed.notna().to_numpy()
    _refuse(series, present & ~readable, "is not an ISO 8601 time")
    if zone is None:
        _refuse(series, present & ~zoned, "is a time without a zone: " + _ZONE_HINT)
        return _seconds(parsed)
    return np.where(zoned, _seconds(parsed), _seconds(_localised(parsed.dt.tz_localize(None), zone)))


_ZONE_HINT = (
    "name data.time_zone, write an offset such as 2026-03-01T12:00:00+01:00 (in SQL: AT TIME ZONE 'UTC'), or give Unix "
    "seconds"
)


def level_codes(series: pd.Series, levels: Sequence[str], hashed: bool = False) -> NDArray[np.int32]:
    """int32 [n]: the position in `levels`, UNKNOWN for another value, MISSING for none or blanks.

    With `hashed` it is the one that `FeatureColumn.coding` says, and no value is unknown.
    """
    codes, values = pd.factorize(series)
    texts = [level_text(v) for v in values]
    position = {level: i for i, level in enumerate(levels)}
    if hashed:
        position = {text: zlib.crc32(text.encode(errors="surrogatepass")) % len(levels) for text in texts}
    lookup = np.array([position.get(text, UNKNOWN) if text else MISSING for text in texts] + [MISSING], np.int32)
    result: NDArray[np.int32] = lookup[codes]
    return result


def level_text(value: Any) -> str:
    """How a value is written as a level: whole numbers without a point (a gap turns a column of them into floats)."""
    if isinstance(value, (bool, np.bool_)):
        return str(value).lower()
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value).strip()


def _seconds(zoned: pd.Series) -> NDArray[np.float64]:
    seconds = zoned.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy("datetime64[us]").astype(np.int64) / 1e6
    return np.where(zoned.isna().to_numpy(), np.nan, seconds)


def _localised(naive: pd.Series, zone: str) -> pd.Series:
    second = np.zeros(len(naive), bool)  # no summer time where an hour comes twice
    return naive.dt.tz_localize(zone, ambiguous=second, nonexistent="shift_forward")


def _check_seconds(series: pd.Series, seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    for least, unit, times in _UNITS:
        _refuse(series, np.abs(seconds) > least, f"is no number of seconds: divide {unit} by {times}")
    return seconds


def _refuse(series: pd.Series, bad: NDArray[np.bool_], why: str, allowed: Sequence[str] = ()) -> None:
    """Raise DataError for the first bad row whose text is not one of `allowed`; what it is, is nobody's business."""
    for at in np.flatnonzero(bad):
        if str(series.iloc[at]).strip() not in allowed:
            row = int(series.index[int(at)]) + 1 - series.attrs.get(ROWS_BEFORE, 0)
            file = f"{series.attrs[FILE]}, " if FILE in series.attrs else ""
            raise DataError(f"{file}row {row}, column {series.name!r} {why}")
