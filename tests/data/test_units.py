"""A column in another unit than the consortium's is found before anything is trained on it; an unusual bank is none."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pfed.core.contract import OTHER_UNIT, Moments
from p2pfed.data import features
from p2pfed.data.reading import Reading, reading_problems
from tests.data.banks import CONTRACT, LOCAL, NOW, payments, section


def read(folder: Path, frame: pd.DataFrame) -> Reading:
    return features.load_bank(section(folder, frame), CONTRACT, NOW).reading


@pytest.mark.parametrize(
    ("column", "times"), [("amount", 100.0), ("amount", 1000.0), ("age", 60.0), ("age", 1 / 60), ("age", 1000.0)]
)
def test_the_column_and_how_many_times_are_named(tmp_path: Path, column: str, times: float) -> None:
    reading = read(tmp_path, payments().assign(**{column: payments()[column] * times}))
    ((name, found),) = ((name, n) for name, n in reading.units if max(n, 1 / n) >= OTHER_UNIT)
    assert name == column
    assert 0.4 < found / times < 2.5, "about: these customers' ages differ more than the contract says"
    (problem,) = reading_problems(reading, None)
    assert problem.startswith(f"column {column!r}: its values are about ")
    assert ("times as large as" if times > 1 else "1/") in problem and problem.endswith(", as if in another unit")


@given(st.floats(1 / 8, 8), st.floats(1 / 8, 8), st.floats(-3, 3))
def test_customers_of_another_kind_are_no_other_unit(amounts: float, ages: float, older: float) -> None:
    """As far apart as banks of the real data are."""
    assert CONTRACT.other_units(Moments((3.0 + math.log(amounts), 40.0 + 10 * older), (1.0, 10.0 * ages))) == {}


def test_the_one_bank_in_euros_among_those_in_cents_is_found(tmp_path: Path) -> None:
    in_cents = replace(CONTRACT, moments=Moments((3.0 + math.log(100), 40.0), (1.0, 10.0)))
    own = features.declared(section(tmp_path, payments()), in_cents.columns, NOW)[0]
    ((name, times),) = in_cents.other_units(own).items()
    assert name == "amount" and 1 / 250 < times < 1 / 40


def test_where_each_bank_scales_by_its_own_rows_units_do_not_matter() -> None:
    assert LOCAL.other_units(Moments((7.6, 40.0), (1.0, 10.0))) == {}


def test_a_constant_column_is_in_no_other_unit() -> None:
    assert CONTRACT.other_units(Moments((3.0, 40.0), (0.0, 0.0))) == {}


def other(reading: Reading, times: float) -> Reading:
    """The same with amounts so many times the contract's."""
    return replace(reading, units=(("amount", times),), units_taken=(("amount", times),))


def test_what_the_operator_took_is_asked_no_more_until_it_changes_again(tmp_path: Path) -> None:
    cents = read(tmp_path, payments().assign(amount=payments().amount * 100))
    usual = read(tmp_path, payments())
    assert reading_problems(cents, usual) and not reading_problems(usual, None)
    assert not reading_problems(cents, cents), "it was taken"
    assert not reading_problems(usual, cents), "back to the consortium's unit"
    assert reading_problems(cents, usual.after(cents)), "and from then on that is what was taken"
    assert reading_problems(other(cents, 101 * OTHER_UNIT), other(cents, 101))


def test_what_was_taken_neither_creeps_nor_is_forgotten_near_the_limit(tmp_path: Path) -> None:
    last = other(read(tmp_path, payments()), 17.0)
    for times in (15.9, 17.0, 16.1, 15.0, 17.0, 200.0):
        new = other(last, times)
        assert not reading_problems(new, last), "less than sixteen times what was taken"
        last = new.after(last)
    assert reading_problems(other(last, 3000.0), last)


def test_a_unit_that_changes_between_readings_shows_by_what_the_bank_had(tmp_path: Path) -> None:
    """Amounts an eighth of the consortium's are an unusual bank's; a hundred times as many are cents."""
    eighth = other(read(tmp_path, payments()), 1 / 8)
    (problem,) = reading_problems(other(eighth, 100 / 8), eighth)
    assert problem == (
        "column 'amount': its values are about 100 times as large as those taken before, as if in another unit"
    )


@pytest.mark.parametrize(("one", "many"), [(1e-4, 0.03), (1e-4, 0.3), (0.3, 1e-4)])
def test_a_rare_flag_is_in_no_other_unit(one: float, many: float) -> None:
    flags = replace(CONTRACT, moments=Moments((3.0, one), (1.0, math.sqrt(one * (1 - one)))))
    assert flags.other_units(Moments((3.0, many), (1.0, math.sqrt(many * (1 - many))))) == {}


@pytest.mark.parametrize(
    ("mean", "deviation", "centre", "scale"), [(5.0, 20.0, 0.0, 1.0), (2500.0, 50_000.0, 60.0, 80.0)]
)
def test_outliers_and_columns_that_are_constant_elsewhere_are_in_no_other_unit(mean, deviation, centre, scale) -> None:
    theirs = replace(CONTRACT, moments=Moments((3.0, centre), (1.0, scale)))
    assert theirs.other_units(Moments((3.0, mean), (1.0, deviation))) == {}


def logs(zeros: float, times: float, rows: int = 200_000) -> tuple[float, float]:
    """Mean and deviation of log(1 + x) of amounts around 20,000 of which that share is 0."""
    rng = np.random.default_rng(1)
    amounts = np.where(rng.random(rows) < zeros, 0.0, times * rng.lognormal(10, 1.5, rows))
    said = np.log1p(amounts)
    return float(said.mean()), float(said.std())


@pytest.mark.parametrize("zeros", [0.0, 0.1, 0.3, 0.6])
@pytest.mark.parametrize("times", [60.0, 100.0, 1000.0, 1 / 60, 1 / 100])
def test_amounts_of_which_many_are_0_show_their_unit_all_the_same(zeros: float, times: float) -> None:
    centre, scale = logs(zeros, 1.0)
    theirs = replace(CONTRACT, moments=Moments((centre, 40.0), (scale, 10.0)))
    mean, deviation = logs(zeros, times)
    found = theirs.other_units(Moments((mean, 40.0), (deviation, 10.0)))
    assert found == {"amount": pytest.approx(times, rel=0.3)}


@pytest.mark.parametrize(("here", "there"), [(0.3, 0.7), (0.7, 0.3), (0.2, 0.6), (0.6, 0.2)])
def test_another_share_of_zeros_is_no_other_unit(here: float, there: float) -> None:
    (mean, deviation), (centre, scale) = logs(here, 1.0), logs(there, 1.0)
    theirs = replace(CONTRACT, moments=Moments((centre, 40.0), (scale, 10.0)))
    assert theirs.other_units(Moments((mean, 40.0), (deviation, 10.0))) == {}


def test_moments_over_other_columns_say_nothing() -> None:
    assert CONTRACT.other_units(Moments((900.0,), (900.0,))) == {}


def test_of_a_reading_from_before_units_were_looked_at_nothing_counts_as_taken(tmp_path: Path) -> None:
    cents = read(tmp_path, payments().assign(amount=payments().amount * 100))
    plain = json.loads(json.dumps(cents.plain()))
    assert Reading.from_plain(plain) == cents
    del plain["units"], plain["units_taken"]
    assert reading_problems(cents, Reading.from_plain(plain))
    with pytest.raises(ValueError, match="units"):
        Reading.from_plain(plain | {"units": [["amount", 0.0]]})
