"""What a reading says, and which readings are refused beside the last one."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pfed.data.features import load_bank
from p2pfed.data.reading import CHANCE, Reading, reading_problems
from p2pfed.errors import DataError
from tests.data.banks import CONTRACT, NOW, payments, section

LAST = Reading(
    rows=100_000,
    rows_in_window=90_000,
    immature=10_000,
    usable=80_000,
    frauds=160,
    oldest=NOW - 3e7,
    newest=NOW - 60.0,
    mature_until=NOW - 4e6,
    columns=("amount", "channel", "age", "fraud", "when"),
    unknown=(("channel", 0.0), ("country", 0.04)),
    unknown_taken=(("channel", 0.0), ("country", 0.04)),
    units=(),
    units_taken=(),
    read_at=NOW,
    seconds=12.5,
)


def _read(folder: Path, frame: pd.DataFrame, now: float = NOW, **changes: object) -> Reading:
    return load_bank(section(folder, frame, **changes), CONTRACT, now).reading


# --- what it says -----------------------------------------------------------------------------------------------------


def test_a_reading_counts_what_was_there(tmp_path: Path) -> None:
    frame = payments()
    frame.loc[:3, "channel"] = "telepathy"
    frame.loc[4, "age"] = np.nan
    reading = _read(tmp_path, frame, label_maturity_days=2)
    assert (reading.rows, reading.rows_in_window, reading.immature, reading.usable) == (400, 400, 47, 352)
    assert reading.frauds == frame.fraud[:353].sum()
    assert reading.fraud_rate == reading.frauds / 352
    assert (reading.oldest, reading.newest) == (NOW - 400 * 3600, NOW - 3600)
    assert reading.columns == ("amount", "channel", "age", "fraud", "when")
    assert reading.unknown == reading.unknown_taken == (("channel", 4 / 352),)
    assert reading.read_at == NOW
    assert 0 < reading.seconds < 60


def test_it_survives_json(tmp_path: Path) -> None:
    for reading in (LAST, _read(tmp_path, payments().drop(columns="when"), split="stratified", event_time=None)):
        assert Reading.from_plain(json.loads(json.dumps(reading.plain()))) == reading


@pytest.mark.parametrize(
    ("change", "said"),
    [({"frauds": "many"}, "frauds"), ({"unknown": {"channel": 1}}, "unknown"), ({"more": 1}, "more")],
)
def test_what_is_no_reading_names_the_field(change: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Reading.from_plain({**LAST.plain(), **change})


def test_a_reading_from_before_unknown_levels_were_taken_counts_as_taken() -> None:
    plain = LAST.plain()
    del plain["unknown_taken"]
    assert Reading.from_plain(plain) == LAST


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"rows_in_window": 44_000},
            "44,000 rows of the window were read, the last time 90,000: more than half of them",
        ),
        ({"usable": 39_999, "frauds": 80}, "39,999 rows that can be used were read, the last time 80,000"),
        ({"columns": ("amount", "age", "fraud")}, "2 of the 5 columns read the last time are gone: 'channel', 'when'"),
        (
            {"unknown": (("channel", 0.0101),)},
            "column 'channel': 1.0% of 80,000 rows have a level that the contract does",
        ),
        ({"unknown": (("country", 0.06),)}, "column 'country': 6.0% of 80,000 rows .*, 4.0% were taken before"),
        (
            {"frauds": 600},
            "600 of 80,000 rows are fraud, the last time 160 of 80,000: even at 3 times the last rate 480 w",
        ),
        ({"frauds": 25}, "25 of 80,000 rows are fraud, .*: even at a third of the last rate 53 would be expected"),
        ({"frauds": 0}, "0 of 80,000 rows are fraud"),
    ],
)
def test_a_reading_that_looks_wrong_is_said_with_its_numbers(changes: dict, said: str) -> None:
    (problem,) = reading_problems(replace(LAST, **changes), LAST)
    assert re.search(said, problem), problem


@pytest.mark.parametrize(
    "changes",
    [
        {},  # nothing changed
        {"read_at": NOW + 86400},  # nothing came
        {"rows": 110_000, "rows_in_window": 97_000, "usable": 87_000, "newest": NOW + 6e5, "frauds": 172},  # a week
        {"rows": 45_000},  # what is gone had left the window
        {"rows_in_window": 45_000, "usable": 40_000, "frauds": 80},  # half is left
        {"columns": (*LAST.columns, "country")},
        {"unknown": (("channel", 0.0099), ("country", 0.0499))},
        {"unknown": (("country", 0.04),)},  # as many as before
        {"frauds": 500},  # within chance of three times the rate
        {"frauds": 36},
    ],
)
def test_what_changed_little_or_not_at_all_is_no_problem(changes: dict) -> None:
    assert reading_problems(replace(LAST, **changes), LAST) == []


def test_the_first_reading_has_nothing_to_be_compared_with() -> None:
    assert reading_problems(LAST, None) == []


def test_unknown_levels_cannot_creep_in() -> None:
    last, shares = LAST.after(None), []
    for step in range(1, 61):
        share = 0.009 * step
        new = replace(LAST, unknown=(("channel", share), ("country", 0.04)), unknown_taken=(("channel", share),))
        if not reading_problems(new, last):
            last = new.after(last)
            shares.append(share)
    assert shares == [0.009]


@pytest.mark.parametrize("first", [0.03, 0.4])
def test_a_first_reading_full_of_unknown_levels_starts_and_is_held_to_them(first: float) -> None:
    def with_share(share: float) -> Reading:
        return replace(LAST, unknown=(("channel", share),), unknown_taken=(("channel", share),))

    last = with_share(first).after(None)
    for share in (first + 0.009, first):
        new = with_share(share)
        assert reading_problems(new, last) == []
        last = new.after(last)
    (problem,) = reading_problems(with_share(first + 0.011), last)
    assert f"{first:.1%} were taken before" in problem
    mended = with_share(0.0).after(last)
    assert reading_problems(with_share(first), mended), "what was taken once is no licence for ever"


def test_a_column_new_in_the_contract_is_taken_as_it_is_first_read() -> None:
    last = replace(LAST, unknown_taken=(("channel", 0.002), ("gone", 0.5)))
    new = replace(LAST, unknown=(("channel", 0.009), ("kind", 0.008)))
    assert reading_problems(new, last) == []
    assert new.after(last).unknown_taken == (("channel", 0.002), ("kind", 0.008))
    assert reading_problems(replace(LAST, unknown=(("kind", 0.011),)), last)


def test_several_problems_are_several_sentences() -> None:
    broken = replace(LAST, rows_in_window=10, usable=10, frauds=10, columns=(), unknown=(("channel", 1.0),))
    assert len(reading_problems(broken, LAST)) == 4


def test_a_bank_without_frauds(tmp_path: Path) -> None:
    none = _read(tmp_path, payments(frauds=0))
    assert none.fraud_rate == 0
    assert reading_problems(none, none) == []
    assert reading_problems(replace(none, frauds=9), none) == []
    (problem,) = reading_problems(replace(none, frauds=12), none)
    assert "12 of 400 rows are fraud, the last time 0 of 400: even at 3 times the last rate 3.0 would be" in problem
    few = replace(none, frauds=15)
    assert reading_problems(none, few) == []  # a third of 15 could be 0
    assert reading_problems(none, replace(none, frauds=30))


readings = st.builds(
    lambda usable, share, more: replace(
        LAST, rows=usable + more, rows_in_window=usable + more, usable=usable, frauds=round(usable * share)
    ),
    st.integers(1, 10**7),
    st.floats(0, 0.9),
    st.integers(0, 10**6),
)


@given(readings)
def test_the_same_rows_are_never_refused(reading: Reading) -> None:
    assert reading_problems(reading, reading) == []


@given(readings, st.integers(0, 2**32))
def test_a_day_more_of_the_same_is_never_refused(reading: Reading, seed: int) -> None:
    more = reading.usable // 7
    frauds = int(np.random.default_rng(seed).binomial(more, reading.fraud_rate))
    grown = replace(
        reading,
        rows_in_window=reading.rows_in_window + more,
        usable=reading.usable + more,
        frauds=reading.frauds + frauds,
    )
    assert reading_problems(grown, reading) == []


@given(readings, st.integers(0, 10**7))
def test_counts_are_refused_where_scipy_says_so(reading: Reading, frauds: int) -> None:
    from scipy.stats import poisson

    new = replace(reading, frauds=min(frauds, reading.usable))
    rate = max(reading.frauds, 1) / reading.usable
    high = poisson.sf(new.frauds - 1, 3 * rate * new.usable) < CHANCE
    low = reading.frauds > 0 and poisson.cdf(new.frauds, rate * new.usable / 3) < CHANCE
    assert bool(reading_problems(new, reading)) == (high or low)


# --- from file to refusal ---------------------------------------------------------------------------------------------


def test_an_export_that_broke(tmp_path: Path) -> None:
    frame = payments(4000, 200)
    last = _read(tmp_path, frame)
    (half,) = reading_problems(_read(tmp_path, frame[2100:]), last)
    assert "1,900 rows of the window were read, the last time 4,000" in half
    (levels,) = reading_problems(_read(tmp_path, frame.replace({"channel": {"chip": "CHIP"}})), last)
    assert "column 'channel'" in levels
    inverted = frame.assign(fraud=1 - frame.fraud)
    assert "3,800 of 4,000 rows are fraud" in reading_problems(_read(tmp_path, inverted), last)[0]
    (unlabelled,) = reading_problems(_read(tmp_path, frame.assign(fraud=0)), last)
    assert "0 of 4,000 rows are fraud" in unlabelled
    holes = frame.assign(age=frame.age.where(frame.index % 3 == 0))
    (lacking,) = reading_problems(_read(tmp_path, holes), last)
    assert "rows that can be used" in lacking
    with pytest.raises(DataError, match="no column 'age'"):  # it could not even be read
        _read(tmp_path, frame.drop(columns="age"))


def test_a_week_later_or_nothing_new(tmp_path: Path) -> None:
    frame = payments(4000, 200)
    changes = {"window_days": 100, "label_maturity_days": 30}
    last = _read(tmp_path, frame[:3800], **changes)
    for day in range(1, 9):
        now = NOW + day * 86400
        read = _read(tmp_path, frame if day == 8 else frame[:3800], now, **changes)
        assert reading_problems(read, last) == []
        last = read
