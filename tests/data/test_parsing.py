"""One column at a time: what is read as a number, a label, a time or a level, and what is refused."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

from p2pfed.data import parsing
from p2pfed.errors import DataError

NOON = 1_772_362_800.0  # 2026-03-01 12:00 in Berlin


def _column(*values: Any, start: int = 0, dtype: Any = None) -> pd.Series:
    return pd.Series(list(values), index=pd.RangeIndex(start, start + len(values)), name="col", dtype=dtype)


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        (_column(1, 2), [1, 2]),
        (_column(True, False), [1, 0]),
        (_column("1.5", " 2e3 "), [1.5, 2000]),
        (_column(Decimal("0.25"), None), [0.25, np.nan]),
        (_column(True, None), [1, np.nan]),
        (_column("7", "", "NaN", None), [7, np.nan, np.nan, np.nan]),
        (_column(1, None, dtype="Int64"), [1, np.nan]),
        (_column(1.5, np.inf), [1.5, np.inf]),
        (_column("inf", "-inf"), [np.inf, -np.inf]),
    ],
)
def test_numbers(series: pd.Series, expected: list[float]) -> None:
    np.testing.assert_array_equal(parsing.numbers(series), expected)


@pytest.mark.parametrize("text", ["12,50", "abc", "1.2.3", "EUR 5"])
def test_text_in_a_number_names_row_and_column_and_not_what_it_is(text: str) -> None:
    with pytest.raises(DataError, match=r"row 102, column 'col' is not a number") as caught:
        parsing.numbers(_column("1", text, "y", start=100))
    assert text not in str(caught.value)


def test_times_are_no_numbers() -> None:
    with pytest.raises(DataError, match="column 'col' holds times"):
        parsing.numbers(_column(pd.Timestamp("2026-01-01")))


@pytest.mark.parametrize(
    "series",
    [
        _column(1, 0, None),
        _column("1", "0", None),
        _column("true", "False", None),
        _column(" YES ", "no", None),
        _column("Y", "n", "NA"),
        _column(True, False, None),
        _column(1.0, 0.0, np.nan),
        _column(1, 0, None, dtype="Int8"),
        _column("yes", "no", None, dtype="category"),
    ],
)
def test_labels(series: pd.Series) -> None:
    np.testing.assert_array_equal(parsing.labels(series), np.array([1, 0, np.nan], np.float32))


@pytest.mark.parametrize("value", [2, -1, 0.5, "fraud", "maybe"])
def test_other_labels_are_refused(value: Any) -> None:
    with pytest.raises(DataError, match=r"row 3, column 'col' is not a label"):
        parsing.labels(_column(0, 1, value))


@pytest.mark.parametrize(
    "series",
    [
        _column("2026-03-01T12:00:00+01:00", None),
        _column("2026-03-01 11:00:00Z", ""),
        _column("2026-03-01T11:00:00.000000+0000", "NaN"),
        _column("2026-03-01T06:00:00-05", None),
        _column("20260301T120000+0100", None),
        _column(NOON, np.nan),
        _column(str(int(NOON)), None),
        _column(Decimal(int(NOON)), None),
        _column(pd.Timestamp("2026-03-01T12:00:00+01:00"), pd.NaT),
        _column(datetime.datetime(2026, 3, 1, 11, tzinfo=datetime.UTC), None, dtype=object),
    ],
)
def test_times(series: pd.Series) -> None:
    np.testing.assert_array_equal(parsing.times(series), [NOON, np.nan])


def test_fractions_of_a_second_survive() -> None:
    assert parsing.times(_column("2026-03-01T11:00:00.250Z")).tolist() == [NOON + 0.25]


def test_mixed_offsets_of_summer_and_winter() -> None:
    texts = _column("2026-03-01T12:00:00+01:00", "2026-07-01T12:00:00+02:00")
    assert parsing.times(texts)[1] - NOON == 122 * 86_400 - 3600


@pytest.mark.parametrize(
    "value",
    [
        "2026-03-01T12:00:00",
        "2026-03-01 12:00",
        "2026-03-01",
        "20260301T120000",
        datetime.datetime(2026, 3, 1),
        pd.Timestamp("2026-03-01"),
    ],
)
def test_a_time_without_a_zone_is_refused(value: Any) -> None:
    zoned = "2026-03-01T12:00:00+01:00" if isinstance(value, str) else None
    with pytest.raises(DataError, match=r"row 12, column 'col' is a time without a zone: name data.time_zone"):
        parsing.times(_column(zoned, value, start=10))


def test_what_is_no_time() -> None:
    with pytest.raises(DataError, match="row 2, column 'col' is not an ISO 8601 time"):
        parsing.times(_column("2026-03-01T12:00:00+01:00", "yesterday"))


@pytest.mark.parametrize(
    ("times", "said"), [(1e3, "milliseconds by 1000"), (1e6, "microseconds by 1e6"), (1e9, "nanoseconds by 1e9")]
)
def test_smaller_units_than_seconds_are_noticed(times: float, said: str) -> None:
    with pytest.raises(DataError, match=f"divide {said}"):
        parsing.times(_column(NOON * times))


def test_times_without_a_zone_are_in_the_one_that_is_named() -> None:
    for series in (_column("2026-03-01T12:00:00", None), _column(pd.Timestamp("2026-03-01T12:00:00"), None)):
        np.testing.assert_array_equal(parsing.times(series, "Europe/Brussels"), [NOON, np.nan])
    mixed = _column("2026-03-01T11:00:00Z", "2026-03-01T12:00", "2026-10-25T02:30", "2026-03-29T02:30")
    second, moved = pd.Timestamp("2026-10-25T01:30Z"), pd.Timestamp("2026-03-29T01:00Z")
    assert parsing.times(mixed, "Europe/Brussels").tolist() == [NOON, NOON, second.timestamp(), moved.timestamp()]


def test_levels() -> None:
    series = _column("a", " b ", "z", None, "a")
    assert parsing.level_codes(series, ("a", "b")).tolist() == [0, 1, parsing.UNKNOWN, parsing.MISSING, 0]


@pytest.mark.parametrize(
    ("series", "levels"),
    [
        (_column(1, 2), ("1", "2")),
        (_column(1.0, 2.0, None), ("1", "2")),
        (_column(True, False), ("true", "false")),
        (_column("x", "y", dtype="category"), ("x", "y")),
    ],
)
def test_levels_of_any_type(series: pd.Series, levels: tuple[str, ...]) -> None:
    assert parsing.level_codes(series, levels)[:2].tolist() == [0, 1]
