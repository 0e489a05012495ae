"""`p2pfed score`: where payments come from, where scores go, and what is left when it is stopped."""

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from p2pfed.cli import run
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


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_payment_without_a_score_is_neither_an_alert_nor_none(bank, said, suffix):
    frame = payments(20, 2)
    frame.loc[[0, 7], "age"] = None
    frame.to_csv("new.csv", index=False)
    assert "2 rows without a score" in said("score", "new.csv", "-o", f"scored.{suffix}")
    scored = pd.read_csv("scored.csv") if suffix == "csv" else pd.read_parquet("scored.parquet")
    assert list(scored.index[scored["score"].isna()]) == [0, 7] == list(scored.index[scored["alert"].isna()])
    assert set(scored["alert"].dropna()) <= {0, 1}
    if suffix == "csv":
        assert Path("scored.csv").read_text().splitlines()[1].startswith("0,,0.5,,")


def test_a_file_written_otherwise_than_the_configured_one_says_so_by_options(bank, said, refused):
    said("score", "new.csv", "-o", "plain.csv")
    payments(20, 2).to_csv("german.csv", index=False, sep=";", decimal=",")
    assert "--delimiter ';'" in refused("score", "german.csv", "-o", "german_out.csv")[1]
    assert "--decimal ," in refused("score", "german.csv", "-o", "german_out.csv", "--delimiter", ";")[1]
    said("score", "german.csv", "-o", "german_out.csv", "--delimiter", ";", "--decimal", ",")
    assert Path("german_out.csv").read_bytes() == Path("plain.csv").read_bytes()
    (bank / "node.yaml").write_text(NODE.replace("payments.csv", "payments.csv, delimiter: ';', decimal: ','"))
    said("score", "german.csv", "-o", "configured.csv")
    said("score", "new.csv", "-o", "other.csv", "--delimiter", ",", "--decimal", ".")
    assert Path("configured.csv").read_bytes() == Path("other.csv").read_bytes() == Path("plain.csv").read_bytes()


def test_standard_streams(bank, said, refused, capsys, monkeypatch):
    told = json.loads(said("score", "new.csv", "-o", "scored.csv", "--keep", "payment", "--json"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(Path("new.csv").read_bytes())))
    assert run(["score", "-", "-o", "-", "--keep", "payment", "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.out == Path("scored.csv").read_text()
    assert json.loads(captured.err) == told | {"out": "-"}
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"amount,channel\n1,chip\n")))
    assert "standard-input.csv has no column 'age'" in refused("score", "-", "-o", "-")[1]


def test_a_standard_stream_that_is_closed(bank, refused, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    assert refused("score", "-", "-o", "scored.csv") == (
        2,
        "p2pfed: - is the standard stream, which is closed: name a file\n",
    )
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        assert run(["score", "new.csv", "-o", "-"]) == 2


def test_a_pipe(bank):
    command = [sys.executable, "-m", "p2pfed", "score", "-", "-o", "-"]
    with open("new.csv", "rb") as new:
        done = subprocess.run(command, stdin=new, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 21
    assert done.stderr.startswith("scored 20 payments: ") and "to standard output" in done.stderr


@pytest.mark.parametrize(("out", "code"), [("full", 74), ("closed", 141)])
def test_an_output_that_takes_nothing_is_told_by_the_exit_code(bank, out, code):
    payments(20_000, 2).to_csv("new.csv", index=False)
    command = [sys.executable, "-m", "p2pfed", "score", "new.csv", "-o", "-"]
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed, open("/dev/full", "wb") as full:
        taken = closed if out == "closed" else full
        done = subprocess.run(command, stdout=taken, stderr=subprocess.PIPE, text=True, timeout=120)
    assert done.returncode == code
    assert "Traceback" not in done.stderr and "scored" not in done.stderr


def test_a_column_that_changes_its_type_is_refused_without_a_cell(bank, refused, monkeypatch):
    from p2pfed.data import sources

    monkeypatch.setattr(sources.read_chunks, "__kwdefaults__", {"text": (), "chunk_rows": 10})
    frame = payments(20, 2).assign(note=[None] * 10 + [["sesame"]] * 10)
    frame.to_parquet("new.parquet")
    code, error = refused("score", "new.parquet", "-o", "scored.parquet", "--keep", "note")
    assert code == 78 and "sesame" not in error
    assert not Path("scored.parquet").exists()
