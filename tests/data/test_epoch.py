"""Times that are no seconds since 1970: said, and refused where they would make every label mature."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from p2pfed.core.types import DAY
from p2pfed.data.describe import describe
from p2pfed.data.epoch import doubt
from p2pfed.data.features import declared, load_bank
from p2pfed.errors import DataError
from tests.data.banks import COLUMNS, CONTRACT, NOW, payments, section

DAYS = pd.to_datetime(NOW - np.arange(400)[::-1] * 3600, unit="s", utc=True)
UNITS = {
    "YYYYMMDD": DAYS.strftime("%Y%m%d").astype(int),
    "days of a spreadsheet": 25_569 + DAYS.tz_localize(None).to_numpy("datetime64[us]").astype(np.int64) / 1e6 / DAY,
    "start of their own": np.arange(400) / 3,
}


@pytest.mark.parametrize("unit", UNITS)
def test_times_in_another_unit_are_said_and_refused_where_age_matters(tmp_path: Path, unit: str) -> None:
    frame = payments().assign(when=UNITS[unit])
    data = section(tmp_path, frame, split="stratified")
    assert unit in describe(data.source, "fraud", (), "when")["time_doubt"]
    (note,) = declared(data, COLUMNS, NOW).notes
    assert note in load_bank(data, CONTRACT, NOW).report["notes"]
    assert unit in note and "before 1990" in note
    with pytest.raises(DataError, match=rf"data.event_time: .*{unit}.* too young for data.label_maturity_days"):
        load_bank(section(tmp_path, frame, label_maturity_days=45), CONTRACT, NOW)
    with pytest.raises(DataError, match=rf"data.event_time: .*{unit}.* too young for data.label_maturity_days"):
        load_bank(section(tmp_path, frame, label_maturity_days=45, window_days=400), CONTRACT, NOW)


def test_a_short_window_is_no_doubt_of_the_unit(tmp_path: Path) -> None:
    frame = payments(1200, 300)
    data = section(tmp_path, frame, split="stratified", window_days=0.9)
    assert not [note for note in load_bank(data, CONTRACT, NOW).report["notes"] if "in seconds?" in note]
    squeezed = section(tmp_path, frame.assign(when=lambda f: NOW - f.index), split="stratified", window_days=0.9)
    (note,) = [note for note in load_bank(squeezed, CONTRACT, NOW).report["notes"] if "in seconds?" in note]
    assert note.startswith("data.event_time: all 1,200 payments lie within 0.3 hours")


def test_seconds_since_1970_are_not_doubted(tmp_path: Path) -> None:
    data = section(tmp_path, payments(), label_maturity_days=1)
    assert describe(data.source, "fraud", (), "when")["time_doubt"] == ""
    assert load_bank(data, CONTRACT, NOW).report["notes"] == []


@pytest.mark.parametrize(("rows", "doubted"), [(999, False), (1000, True)])
def test_many_payments_within_a_day_are_doubted(rows: int, doubted: bool) -> None:
    assert bool(doubt(NOW - 3600, NOW, rows)) == doubted
    assert doubt(NOW - DAY, NOW, rows) == doubt(None, None, rows) == ""


def test_a_zone_for_times_that_have_none(tmp_path: Path) -> None:
    local = pd.to_datetime(payments().when, unit="s", utc=True).dt.tz_convert("Europe/Brussels")
    named = section(tmp_path, payments().assign(when=local.dt.tz_localize(None)), time_zone="Europe/Brussels")
    bank = load_bank(named, CONTRACT, NOW)
    assert (bank.reading.oldest, bank.reading.newest) == (payments().when.min(), payments().when.max())
    with pytest.raises(DataError, match="is a time without a zone: name data.time_zone"):
        load_bank(named.model_copy(update={"time_zone": None}), CONTRACT, NOW)
    with pytest.raises(ValueError, match="'Mars' is no time zone; write one such as Europe/Brussels"):
        section(tmp_path, payments(), time_zone="Mars")
