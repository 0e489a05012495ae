"""Empty fields that tell of fraud: said, and an input of the model where the contract gives them an indicator."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from p2pfed.core import record
from p2pfed.core.contract import FeatureColumn
from p2pfed.data.describe import describe, propose_contract
from p2pfed.data.features import declared, load_bank
from p2pfed.data.gaps import telling
from tests.data.banks import COLUMNS, CONTRACT, LOCAL, NOW, payments, section

INDICATED = replace(LOCAL, columns=(COLUMNS[0], *(replace(c, missing="indicator") for c in COLUMNS[1:])))


def _telling_gaps(column: str) -> pd.DataFrame:
    """Every other fraud lacks `column`, and a legitimate payment in forty."""
    frame = payments()
    frame.loc[frame.index[frame.fraud == 1][::2], column] = None
    frame.loc[frame.index[frame.fraud == 0][::40], column] = None
    return frame


@pytest.mark.parametrize(
    ("counts", "tells"),
    [
        ((5, 5, 55, 5), True),
        ((20, 10, 380, 10), True),
        ((20, 1, 380, 10), False),
        ((2000, 0, 5000, 100), True),
        ((20, 0, 380, 10), False),
        ((4, 1, 400, 0), False),
        ((9, 9, 10, 6), False),
        ((0, 0, 400, 20), False),
        ((400, 20, 0, 0), False),
    ],
)
def test_what_is_far_from_the_others(counts: tuple[int, int, int, int], tells: bool) -> None:
    assert telling(*counts) == tells


@pytest.mark.parametrize("column", ["age", "channel"])
def test_describe_says_so_and_the_draft_gets_an_indicator(tmp_path: Path, column: str) -> None:
    source = section(tmp_path, _telling_gaps(column)).source
    said = {c["name"]: c.get("gaps") for c in describe(source, "fraud", ["payment"], "when")["columns"]}
    assert said.pop(column) == "10 of 20 are frauds (50.0%), of the other 380 rows 10 (2.6%)"
    assert set(said.values()) == {None}
    drafted = {c.name: c.missing for c in propose_contract(source, "fraud", ["payment"], "when")}
    assert drafted == {name: "indicator" if name == column else None for name in drafted}


def test_rows_left_out_that_are_another_kind_are_told_to_the_bank(tmp_path: Path) -> None:
    data = section(tmp_path, _telling_gaps("age"))
    (note,) = [n for n in load_bank(data, CONTRACT, NOW).report["notes"] if "left out" in n]
    assert "10 of 20 are frauds (50.0%), of the other 380 rows 10 (2.6%)" in note
    assert declared(data, COLUMNS, NOW).notes == (note,)
    usual = payments()
    usual.loc[::20, "age"] = np.nan
    assert declared(section(tmp_path, usual), COLUMNS, NOW).notes == ()


def test_an_indicator_is_one_more_input_and_leaves_no_row_out(tmp_path: Path) -> None:
    frame = _telling_gaps("age")
    frame.loc[1, "channel"] = None
    bank = load_bank(section(tmp_path, frame), INDICATED, NOW)
    train, first = bank.rows.train.features, frame[:280]
    assert (INDICATED.width, bank.report["dropped"]) == (6, {})
    np.testing.assert_array_equal(train[:, 3], first.channel.isna())
    np.testing.assert_array_equal(train[:, 5], first.age.isna())
    filled = (first.age.median() - first.age.mean()) / first.age.std(ddof=0)
    np.testing.assert_allclose(train[first.age.isna().to_numpy(), 4], filled, atol=1e-5)


def test_a_contract_without_indicators_has_the_bytes_that_it_always_had() -> None:
    assert b"missing" not in record.canonical(CONTRACT)
    assert record.parse(FeatureColumn, record.canonical(COLUMNS[0])) == COLUMNS[0]
    assert record.parse(type(INDICATED), record.canonical(INDICATED)) == INDICATED
