"""Columns of many codes share the levels of the contract by their hash."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from p2pfed.core import record
from p2pfed.core.contract import FeatureColumn, FeatureContract, Moments
from p2pfed.data import parsing
from p2pfed.data.describe import HASHED_LEVELS, MAX_LEVELS, describe, propose_contract
from p2pfed.data.features import load_bank, transform
from p2pfed.errors import DataError
from tests.data.banks import NOW, payments, section

FRAME = payments().assign(shop=[f"shop {i % 97}" for i in range(400)], mcc=[5000 + i % 60 for i in range(400)])
NAMES = {"drop": ["payment"], "event_time": "when"}


def test_many_codes_become_few_levels_that_are_never_unknown(tmp_path: Path) -> None:
    data = section(tmp_path, FRAME)
    with pytest.raises(DataError, match=f"'shop' is text with more than {MAX_LEVELS} values.*data describe --hash"):
        propose_contract(data.source, "fraud", **NAMES)
    columns = propose_contract(data.source, "fraud", **NAMES, hashed=["shop", "mcc"])
    hashed = {c.name: c.width for c in columns if c.coding == "hashed"}
    assert hashed == {"shop": HASHED_LEVELS, "mcc": HASHED_LEVELS}
    told = describe(data.source, "fraud", **NAMES, hashed=["shop", "mcc"])
    assert [c["name"] for c in told["columns"] if c["kind"] == "hashed"] == ["shop", "mcc"]
    contract = FeatureContract(columns, "fraud", "local", Moments((), ()), 10.0)
    bank = load_bank(data, contract, NOW)
    assert bank.report["unknown_levels"] == {}
    shops = bank.rows.train.features[:, -2 * HASHED_LEVELS :]
    assert (shops.sum(axis=1) == 2).all() and (shops.sum(axis=0) > 0).mean() > 0.7
    elsewhere = FRAME.assign(shop="a shop that no bank had before")
    assert np.isfinite(transform(elsewhere, data, contract, bank.scaler)).all()


def test_every_bank_has_the_same_level_for_a_code() -> None:
    codes = parsing.level_codes(FRAME["shop"], tuple(map(str, range(7))), hashed=True)
    assert codes[:5].tolist() == [0, 4, 4, 6, 5]
    assert parsing.level_codes(FRAME["shop"].where(FRAME.index > 0), ("0",), hashed=True)[0] == parsing.MISSING


def test_half_a_character_is_a_level_like_any_other() -> None:
    shops = pd.Series(["shop \ud83d", *FRAME["shop"][1:]], dtype=object)
    codes = parsing.level_codes(shops, tuple(map(str, range(7))), hashed=True)
    assert 0 <= codes[0] < 7 and codes[1:5].tolist() == [4, 4, 6, 5]


def test_a_contract_says_so_and_only_of_categories() -> None:
    column = FeatureColumn("shop", "categorical", ("0", "1"), "none", coding="hashed")
    assert record.parse(FeatureColumn, record.canonical(column)) == column
    with pytest.raises(ValueError, match="a numeric column has no coding"):
        FeatureColumn("amount", "numeric", (), "none", coding="hashed")
