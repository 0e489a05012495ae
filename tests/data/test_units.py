"""A column in another unit than the consortium's is found before anything is trained on it; an unusual bank is none."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

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
    ((name, found),) = reading.units
    assert name == column
    assert 0.4 < found / times < 2.5, "about: these customers' ages differ more than the contract says"
    (problem,) = reading_problems(reading, None)
    assert problem.startswith(f"column {column!r}: its values are about ")
    assert ("times as large as" if times > 1 else "1/") in problem and problem.endswith("is it in another unit?")


@given(st.floats(1 / 8, 8), st.floats(1 / 8, 8), st.floats(-3, 3))
def test_customers_of_another_kind_are_no_other_unit(amounts: float, ages: float, older: float) -> None:
    """As far apart as banks of the real data are."""
    assert CONTRACT.other_units(Moments((3.0 + math.log(amounts), 40.0 + 10 * older), (1.0, 10.0 * ages))) == {}


def test_the_one_bank_in_euros_among_those_in_cents_is_found(tmp_path: Path) -> None:
    in_cents = replace(CONTRACT, moments=Moments((3.0 + math.log(100), 40.0), (1.0, 10.0)))
    own = features.moments(section(tmp_path, payments()), in_cents.columns, NOW)
    ((name, times),) = in_cents.other_units(own).items()
    assert name == "amount" and 1 / 250 < times < 1 / 40


def test_where_each_bank_scales_by_its_own_rows_units_do_not_matter() -> None:
    assert LOCAL.other_units(Moments((7.6, 40.0), (1.0, 10.0))) == {}


def test_a_constant_column_is_in_no_other_unit() -> None:
    assert CONTRACT.other_units(Moments((3.0, 40.0), (0.0, 0.0))) == {}


def test_what_the_operator_took_is_asked_no_more_until_it_changes_again(tmp_path: Path) -> None:
    cents = read(tmp_path, payments().assign(amount=payments().amount * 100))
    usual = read(tmp_path, payments())
    assert reading_problems(cents, usual) and not reading_problems(usual, None)
    assert not reading_problems(cents, cents), "it was taken"
    assert not reading_problems(usual, cents), "back to the consortium's unit"
    ((name, times),) = cents.units
    again = replace(cents, units=((name, times * OTHER_UNIT),))
    assert reading_problems(again, cents)


def test_of_a_reading_from_before_units_were_looked_at_nothing_counts_as_taken(tmp_path: Path) -> None:
    cents = read(tmp_path, payments().assign(amount=payments().amount * 100))
    plain = json.loads(json.dumps(cents.plain()))
    assert Reading.from_plain(plain) == cents
    del plain["units"]
    assert reading_problems(cents, Reading.from_plain(plain))
