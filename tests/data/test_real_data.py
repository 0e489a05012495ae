"""Public data sets under their own column names, where they are present."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from p2pfed.config import CsvSource, DataSection, ParquetSource
from p2pfed.core.contract import FeatureContract
from p2pfed.data import files, partition
from p2pfed.data.describe import propose_contract
from p2pfed.data.features import LoadedBank, contract_moments, declared, load_bank
from p2pfed.errors import DataError

SHARED = Path(os.environ.get("P2PFED_TEST_DATA") or Path(__file__).parents[2] / ".." / "shared" / "data")
HANDBOOK_DROP = (
    "TRANSACTION_ID", "TX_DATETIME", "CUSTOMER_ID", "TERMINAL_ID", "TX_TIME_DAYS", "TX_FRAUD_SCENARIO", "BANK",
)  # fmt: skip


def _file(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{name} is not in P2PFED_TEST_DATA nor in ../shared/data")
    return path


def _load(name: str, label: str, drop: tuple[str, ...] = (), time: str | None = None, **changes: Any) -> LoadedBank:
    path = _file(name)
    kind = CsvSource(kind="csv", path=path) if path.suffix == ".csv" else ParquetSource(kind="parquet", path=path)
    columns = propose_contract(kind, label, drop, time)
    fields = {"source": kind, "label": label, "event_time": time, "split": "time" if time else "stratified", **changes}
    data = DataSection.model_validate(fields)
    frozen = contract_moments([declared(data, columns, 0.0)[0]])
    return load_bank(data, FeatureContract(columns, "fraud", "contract", frozen, 10.0), 0.0)


def test_card_payments_of_brussels() -> None:
    bank = _load("ulb_creditcard.parquet", "Class", time="Time")
    assert bank.rows.train.features.shape == (33_046, 29)
    assert bank.report["train_frauds"] + bank.report["validation_frauds"] + bank.report["own_test_frauds"] == 492
    assert np.abs(bank.rows.train.features.mean(axis=0)).max() < 0.1


def test_simulated_mobile_money_with_its_categorical_type() -> None:
    bank = _load("paysim.parquet", "isFraud", ("step", "nameOrig", "nameDest", "isFlaggedFraud"))
    kinds = bank.rows.train.features[:, :5]
    assert (kinds.sum(axis=1) == 1).all()
    assert bank.report["unknown_levels"] == {}
    assert bank.rows.train.frauds > 5000


def test_account_openings_with_five_categories() -> None:
    with pytest.raises(DataError, match="column 'month' repeats the label"):
        _load("baf_sample.csv", "fraud_bool")  # a fragment in which every fraud is of one month
    bank = _load("baf_sample.csv", "fraud_bool", ("month",))
    assert bank.report["rows_read"] == 842
    assert bank.rows.train.features.shape[1] > 40


def test_the_handbook_dealt_by_bank_and_time() -> None:
    frame = files.read(_file("handbook_cards.parquet"))
    rest, test, _ = partition.holdout(frame, "TX_FRAUD", "time", "TX_TIME_SECONDS", 0.25, gap_days=7)
    assert test.TX_TIME_SECONDS.min() - rest.TX_TIME_SECONDS.max() > 6.9 * 86_400
    banks = partition.partition(rest, "TX_FRAUD", 10, "by:BANK")
    assert sum(map(len, banks)) == len(rest)
    assert sum(b.TX_FRAUD.sum() for b in banks) == rest.TX_FRAUD.sum()


def test_the_scenario_of_the_handbook_gives_the_label_away() -> None:
    path = _file("handbook_cards.parquet")
    drop = tuple(n for n in HANDBOOK_DROP if n != "TX_FRAUD_SCENARIO")
    with pytest.raises(DataError, match="'TX_FRAUD_SCENARIO'"):
        _load(path.name, "TX_FRAUD", drop, "TX_TIME_SECONDS")


def test_its_naive_times_are_refused() -> None:
    drop = tuple(n for n in HANDBOOK_DROP if n != "TX_DATETIME")
    with pytest.raises(DataError, match="'TX_DATETIME' is a time without a zone"):
        _load("handbook_cards.parquet", "TX_FRAUD", drop, "TX_DATETIME")
