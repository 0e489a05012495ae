"""What a source suggests: the contract's columns, and a description for a person."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from p2pfed.config import ParquetSource
from p2pfed.core.contract import FeatureColumn
from p2pfed.data import files, sources
from p2pfed.data.describe import MAX_LEVELS, describe, propose_contract
from p2pfed.errors import DataError
from tests.data.banks import payments, section


def test_numbers_levels_and_heavy_tails(tmp_path: Path) -> None:
    frame = payments().assign(
        constant=1, tail=lambda f: np.where(f.index == 7, 1e6, f.index * 7 % 400), balance=lambda f: f.age - 50
    )
    source = section(tmp_path, frame).source
    columns = propose_contract(source, "fraud", ["payment"], "when")
    assert columns == (
        FeatureColumn("amount", "numeric", (), columns[0].transform),
        FeatureColumn("channel", "categorical", ("chip", "online"), "none"),
        FeatureColumn("age", "numeric", (), "none"),
        FeatureColumn("tail", "numeric", (), "log"),
        FeatureColumn("balance", "numeric", (), "none"),
    )


def test_text_that_is_an_identifier_and_times_want_a_decision(tmp_path: Path) -> None:
    frame = payments().assign(card=[f"c{i}" for i in range(400)])
    with pytest.raises(DataError, match=rf"column 'card' is text with more than {MAX_LEVELS} values.*drop it"):
        propose_contract(section(tmp_path, frame).source, "fraud", ["payment"], "when")
    frame = payments().assign(at=pd.date_range("2026-01-01", periods=400, tz="UTC"))
    files.write(frame, tmp_path / "rows.parquet")
    source = ParquetSource(kind="parquet", path=tmp_path / "rows.parquet")
    with pytest.raises(DataError, match="column 'at' holds times"):
        propose_contract(source, "fraud", ["payment", "when"])
    assert propose_contract(source, "fraud", ["payment", "when"], "at")


def test_whole_numbers_that_identify_are_left_out_with_the_reason(tmp_path: Path) -> None:
    rows = 40_000
    generator = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "fraud": np.arange(rows) % 50 == 0,
            "key": generator.permutation(rows),
            "CUSTOMER_ID": generator.integers(0, 300, rows),
            "terminalId": generator.integers(0, 300, rows),
            "bank_id": generator.integers(0, 5, rows),
            "TERMINAL_ID_NB_TX_30DAY": generator.integers(0, 300, rows),
            "paid": generator.integers(0, 300, rows),
            "cents": generator.integers(0, 30_000, rows),
            "amount": generator.normal(size=rows),
        }
    )
    source = section(tmp_path, frame, event_time=None, split="stratified").source
    columns = {c["name"]: c for c in describe(source, "fraud")["columns"]}
    identifiers = {name: c["why"] for name, c in columns.items() if c["kind"] == "identifier"}
    assert identifiers.keys() == {"key", "CUSTOMER_ID", "terminalId"}
    assert "300 different whole numbers in 40,000 rows" in identifiers["CUSTOMER_ID"]
    assert "an identifier, or a time that should be named as such" in identifiers["key"]
    left = [c.name for c in propose_contract(source, "fraud")]
    assert left == ["bank_id", "TERMINAL_ID_NB_TX_30DAY", "paid", "cents", "amount"]


def test_levels_of_every_chunk_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = payments().assign(channel=[f"level {i // 100}" for i in range(400)])
    monkeypatch.setattr(sources.read_chunks, "__kwdefaults__", {"text": (), "chunk_rows": 100})
    columns = propose_contract(section(tmp_path, frame).source, "fraud", ["payment"], "when")
    assert columns[1].levels == ("level 0", "level 1", "level 2", "level 3")


@pytest.mark.parametrize(
    ("label", "drop", "time"), [("frod", (), None), ("fraud", ("peyment",), None), ("fraud", (), "wen")]
)
def test_names_that_are_not_there(tmp_path: Path, label: str, drop: tuple[str, ...], time: str | None) -> None:
    with pytest.raises(DataError, match="did you mean"):
        propose_contract(section(tmp_path, payments()).source, label, drop, time)


def test_no_column_left(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no column left that could be a feature"):
        propose_contract(section(tmp_path, payments()).source, "fraud", ["payment", "amount", "channel", "age"], "when")


def test_description_is_plain_json(tmp_path: Path) -> None:
    frame = payments()
    frame["fraud"] = frame.fraud.astype("Int8")
    frame.loc[3, "fraud"] = None
    frame.loc[4, "age"] = np.nan
    reply = describe(section(tmp_path, frame).source, "fraud", ["payment"], "when")
    assert json.loads(json.dumps(reply, allow_nan=False)) == reply
    assert (reply["rows"], reply["frauds"], reply["unlabelled"]) == (400, 20, 1)
    assert reply["last_time"] - reply["first_time"] == 399 * 3600
    columns = {c["name"]: c for c in reply["columns"]}
    assert {n: c["kind"] for n, c in columns.items()} == {
        "payment": "dropped",
        "when": "event_time",
        "amount": "numeric",
        "channel": "categorical",
        "age": "numeric",
        "fraud": "label",
    }
    assert columns["age"]["missing"] == 1
    assert columns["age"]["mean"] == pytest.approx(frame.age.mean())
    assert columns["channel"]["levels"] == ["chip", "online"]


def test_description_without_a_time(tmp_path: Path) -> None:
    reply = describe(section(tmp_path, payments()).source, "fraud")
    assert reply["first_time"] is reply["last_time"] is None
