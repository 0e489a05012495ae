"""Timing a round for the join request, in a process of its own, with the learner that needs no TensorFlow."""

import numpy as np
import pandas as pd
import pytest

from p2pfed.config import NodeConfig
from p2pfed.core.contract import FeatureColumn, FeatureContract, Moments
from p2pfed.errors import Unavailable
from p2pfed.runtime import measuring
from p2pfed.runtime.measuring import measure

CONTRACT = FeatureContract((FeatureColumn("amount", "numeric", (), "none"),), "fraud", "local", Moments((), ()), 10.0)


@pytest.fixture
def config(tmp_path):
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"amount": rng.normal(size=500), "fraud": (rng.random(500) < 0.1).astype(int)})
    frame.to_csv(tmp_path / "payments.csv", index=False)
    data = {"source": {"kind": "csv", "path": str(tmp_path / "payments.csv")}, "label": "fraud", "split": "stratified"}
    return NodeConfig.model_validate(
        {"version": 1, "node": {"name": "bank-a", "state_dir": str(tmp_path)}, "data": data}
    )


def test_a_round_takes_some_time(config):
    assert 0 < measure(config, CONTRACT, learner="numpy") < 60


def test_rows_that_cannot_be_read_are_said(config, tmp_path):
    (tmp_path / "payments.csv").unlink()
    with pytest.raises(Unavailable, match=r"payments\.csv"):
        measure(config, CONTRACT, learner="numpy")


def test_what_takes_too_long_is_said(config, monkeypatch):
    monkeypatch.setattr(measuring, "PATIENCE_SECONDS", 0.01)
    with pytest.raises(Unavailable, match="not done in"):
        measure(config, CONTRACT, learner="numpy")


def test_a_process_that_breaks_is_quoted_in_one_line(config, monkeypatch):
    monkeypatch.setattr(measuring.sys, "executable", "/bin/false")
    with pytest.raises(Unavailable, match="ended without a word"):
        measure(config, CONTRACT, learner="numpy")
