"""Scored files: kept columns as they came, and new payments written as the bank's own are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from p2pfed.config import CsvSource
from p2pfed.core.contract import Scaler
from p2pfed.core.model import ModelSpec
from p2pfed.data import files, sources
from p2pfed.learning.bundle import ModelBundle
from p2pfed.runtime.scoring import score_file
from tests.data.banks import LOCAL, payments, section

SPEC = ModelSpec("mlp", LOCAL.width, (4,), 0.0)
BUNDLE = ModelBundle(
    SPEC, LOCAL, Scaler((3.0, 40.0), (1.0, 10.0), (3.0, 40.0)), 0.5, SPEC.initial_weights(7).vector, {"round": 3}
)


def test_kept_columns_have_one_type_over_all_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources.read_chunks, "__kwdefaults__", {"text": (), "chunk_rows": 2})
    frame = payments(6, 2).assign(code=["0742", "0743", "0744", "0745", "A1", "A2"], part=[1, 2, 3, 4, 5.5, 6])
    data = section(tmp_path, frame)
    score_file(BUNDLE, data, data.source, tmp_path / "scored.parquet", ["code,part", "payment"])
    scored = pd.read_parquet(tmp_path / "scored.parquet")
    assert scored["code"].tolist() == frame["code"].tolist()
    assert scored["part"].tolist() == frame["part"].tolist()
    assert scored["payment"].dtype == np.int64


def test_new_payments_are_written_as_the_configured_ones_are(tmp_path: Path) -> None:
    payments(6, 2).to_csv(tmp_path / "new.csv", index=False, sep=";", decimal=",")
    written = CsvSource(kind="csv", path=tmp_path / "payments.csv", delimiter=";", decimal=",")
    source = files.named(tmp_path / "new.csv", written)
    assert score_file(BUNDLE, section(tmp_path, payments()), source, tmp_path / "scored.csv").rows == 6


def test_a_column_of_which_no_payment_has_a_known_level_is_told(tmp_path: Path) -> None:
    frame = payments(6, 2)
    data = section(tmp_path, frame.assign(channel=frame.channel.str.upper()))
    assert score_file(BUNDLE, data, data.source, tmp_path / "scored.csv").unlisted == ("channel",)
    data = section(tmp_path, frame.assign(channel=["CHIP"] * 5 + ["chip"]))
    assert score_file(BUNDLE, data, data.source, tmp_path / "scored.csv").unlisted == ()
