"""`p2pfed score`: where payments come from, where scores go, and what is left when it is stopped."""

import os
import signal
from pathlib import Path

import pytest

from p2pfed.learning.bundle import ModelBundle
from tests.data.banks import payments
from tests.runtime.test_scoring import BUNDLE

NODE = """\
version: 1
node: {name: bank-a, state_dir: state}
data: {source: {kind: csv, path: payments.csv}, label: fraud}
"""


@pytest.fixture
def bank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bank with a model, and new payments in `new.csv`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "node.yaml").write_text(NODE)
    (tmp_path / "state").mkdir()
    (tmp_path / "state/model.p2pfed").write_bytes(BUNDLE.to_bytes())
    payments(20, 2).to_csv("new.csv", index=False)
    return tmp_path


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_scorer_that_is_told_to_end_leaves_nothing(bank, refused, monkeypatch, suffix):
    before = sorted(bank.iterdir())
    monkeypatch.setattr(ModelBundle, "scores", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    assert refused("score", "new.csv", "-o", f"scored.{suffix}") == (130, "p2pfed: stopped by the operator\n")
    assert sorted(bank.iterdir()) == before
