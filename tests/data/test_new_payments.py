"""A bank's payments over the months: the window, what matured between two readings, and who judges a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from p2pfed.core.contract import FeatureContract, Moments
from p2pfed.data import files
from p2pfed.data.features import LoadedBank, load_bank
from p2pfed.errors import DataError
from tests.data.banks import COLUMNS, CONTRACT, LOCAL, NOW, payments, section


def _load(folder: Path, frame: pd.DataFrame, **changes: Any) -> LoadedBank:
    return load_bank(section(folder, frame, **changes), CONTRACT, NOW)


def test_a_flipped_label_moves_no_row(tmp_path: Path) -> None:
    frame = payments()
    before = _load(tmp_path, frame, split="stratified").rows
    flipped = frame.assign(fraud=np.where(frame.index == 7, 1, frame.fraud))
    after = _load(tmp_path, flipped, split="stratified").rows
    for name in ("train", "validation", "own_test"):
        np.testing.assert_array_equal(getattr(before, name).features, getattr(after, name).features)
    assert sum(getattr(after, name).frauds for name in ("train", "validation", "own_test")) == 21


def test_the_newest_training_frauds_join_the_few_of_validation_at_the_gate(tmp_path: Path) -> None:
    frame = payments(frauds=40).sample(frac=1, random_state=0)
    rows = _load(tmp_path, frame).rows
    assert rows.validation.frauds < 20
    np.testing.assert_array_equal(rows.gate.features[: len(rows.validation)], rows.validation.features)
    assert rows.gate.frauds == 20
    borrowed = frame.sort_values("when")[:280].query("fraud == 1")[-(20 - rows.validation.frauds) :]
    np.testing.assert_allclose(rows.gate.features[len(rows.validation) :, 3], (borrowed.age - 40) / 10, atol=1e-5)


def test_the_gate_without_times_takes_the_last_rows_and_without_need_none(tmp_path: Path) -> None:
    frame = payments(frauds=40).drop(columns="when")
    rows = _load(tmp_path, frame, split="stratified", event_time=None).rows
    borrowed = rows.gate.features[len(rows.validation) :]
    frauds = rows.train.features[rows.train.labels == 1]
    np.testing.assert_array_equal(borrowed, frauds[-len(borrowed) :])
    assert len(_load(tmp_path, payments(frauds=200)).rows.gate) == 0
    nothing = _load(tmp_path, payments(frauds=0)).rows
    np.testing.assert_array_equal(nothing.gate.features, nothing.validation.features)


def test_newly_matured_rows_are_those_between_two_readings(tmp_path: Path) -> None:
    frame = payments()
    data = section(tmp_path, frame, label_maturity_days=3, split="stratified")
    first = load_bank(data, CONTRACT, NOW)
    assert len(first.matured) == 0
    later = NOW + 86400 / 2
    second = load_bank(data, CONTRACT, later, first.reading.mature_until)
    np.testing.assert_array_equal(second.matured.times, frame.when[(frame.when > NOW - 3 * 86400)][:12])
    inputs = second.matured.inputs(CONTRACT, second.scaler, np.ones(12, bool))
    np.testing.assert_allclose(inputs[:, 3], (frame.age[329:341] - 40) / 10, atol=1e-5)
    assert len(load_bank(data, CONTRACT, later, second.reading.mature_until).matured) == 0
    assert second.matured.fits(LOCAL)
    assert not second.matured.fits(FeatureContract(COLUMNS[:1], "fraud", "contract", Moments((3.0,), (1.0,)), 10.0))


def test_a_clock_that_was_set_back_makes_no_payment_count_twice(tmp_path: Path) -> None:
    data, since, counted = section(tmp_path, payments(), label_maturity_days=3), None, []
    for days in (0, 1, -1, 0, 1, 2):
        bank = load_bank(data, CONTRACT, NOW + days * 86400, since)
        counted.append(len(bank.matured))
        since = bank.reading.mature_until
    assert counted == [0, 24, 0, 0, 0, 24]


def test_payments_that_come_weekly_count_when_they_come(tmp_path: Path) -> None:
    frame = payments()
    first = load_bank(section(tmp_path, frame[:300]), CONTRACT, NOW)
    second = load_bank(section(tmp_path, frame), CONTRACT, NOW + 10, first.reading.mature_until)
    np.testing.assert_array_equal(second.matured.times, frame.when[300:])
    without = payments().drop(columns="when")
    plain = load_bank(section(tmp_path, without, split="stratified", event_time=None), CONTRACT, NOW, NOW - 86400)
    assert len(plain.matured) == 0
    assert (plain.reading.newest, plain.reading.mature_until) == (None, None)


def test_a_window_leaves_older_payments_out(tmp_path: Path) -> None:
    bank = _load(tmp_path, payments(), window_days=10, label_maturity_days=4)
    assert bank.report["dropped"] == {"a time before the window": 400 - 240, "label not mature": 4 * 24 - 1}
    assert bank.reading.rows_in_window == 240
    assert bank.reading.immature == 95
    assert bank.reading.usable == 145 == sum(map(len, (bank.rows.train, bank.rows.validation, bank.rows.own_test)))
    assert bank.reading.oldest == NOW - 10 * 86400
    assert bank.reading.newest == NOW - 3600
    assert bank.reading.mature_until == NOW - 4 * 86400


def test_a_window_does_not_reach_the_pooled_test(tmp_path: Path) -> None:
    files.write(payments(50, 5, seed=9), tmp_path / "test.parquet")
    bank = _load(tmp_path, payments(), pooled_test=tmp_path / "test.parquet", window_days=1)
    assert len(bank.rows.pooled_test) == 50


@pytest.mark.parametrize(
    ("window", "maturity", "later_days", "numbers", "advice"),
    [
        (5, 6, 0, "120 are of the last 5 days.* 0 have a label that is 6 days old", "above data.label_maturity_days"),
        (20, 2, 30, "0 are of the last 20 days.* 0 have", "deliver newer payments, raise data.window_days"),
        (20, 2, -17, "400 are of the last 20 days.* 0 have", "lower data.label_maturity_days"),
    ],
)
def test_a_window_without_mature_rows(
    tmp_path: Path, window: float, maturity: float, later_days: float, numbers: str, advice: str
) -> None:
    data = section(tmp_path, payments(), window_days=window, label_maturity_days=maturity)
    with pytest.raises(DataError, match=rf"none of the 400 rows of .*{numbers}.*{advice}"):
        load_bank(data, CONTRACT, NOW + later_days * 86400)


def test_a_window_without_a_time(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"window_days needs data\.event_time"):
        _load(tmp_path, payments(), split="stratified", event_time=None, window_days=45)
