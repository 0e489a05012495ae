"""What looks wrong in a bank's payments is said before anybody trains on them: by `p2pfed init` and `p2pfed check`."""

import json

import pandas as pd
import pytest

from p2pfed.cli import run
from p2pfed.core import record
from p2pfed.data.features import load_bank
from p2pfed.runtime import enrolment
from tests.consortia import consortium
from tests.data.banks import CONTRACT, LOCAL, NOW, payments, section

CONFIG = (
    "version: 1\nnode: {name: bank-a, state_dir: state}\npeers: {listen: '127.0.0.1:0'}\nadmin: {listen: null}\n"
    "data:\n  source: {kind: csv, path: payments.csv}\n  label: fraud\n  event_time: when\n  split: time\n"
)


@pytest.fixture
def bank(tmp_path, monkeypatch, said):
    """The folder of a bank that has joined a consortium with the contract of its payments."""
    (tmp_path / "node.yaml").write_text(CONFIG)
    (tmp_path / "draft.json").write_bytes(record.readable(LOCAL))
    said("init", "-c", tmp_path / "node.yaml")
    banks = consortium(3, inputs=4, contract=CONTRACT)
    monkeypatch.setattr(enrolment, "trusted_chain", lambda _: [banks.signed(0, 1)])
    monkeypatch.setattr(enrolment, "check_member", lambda *_: None)
    monkeypatch.setattr(enrolment, "check_rounds", lambda *_: None)
    return tmp_path


@pytest.fixture
def check(bank, capsys):
    """Writes payments, and gives the exit code of `p2pfed check` and its lines from the data on."""

    def call(frame: pd.DataFrame) -> tuple[int, list[str]]:
        frame.to_csv(bank / "payments.csv", index=False)
        code = run(["check", "-c", str(bank / "node.yaml")])
        lines = capsys.readouterr().out.splitlines()
        return code, lines[next(n for n, line in enumerate(lines) if " data " in line) :]

    return call


def test_usual_payments_are_not_doubted(check):
    code, lines = check(payments(frauds=60))
    assert code == 0 and len(lines) == 1 and lines[0].startswith("ok    data ")


@pytest.mark.parametrize(("frauds", "doubted"), [(380, True), (201, True), (200, False)])
def test_labels_that_are_turned_round_are_said_by_check_and_init(bank, check, capsys, frauds, doubted):
    code, lines = check(payments(frauds=frauds))
    said = f"{frauds} of 400 usable rows are fraud: are the labels turned round?"
    assert code == 0
    assert any(line.startswith("warn  payments ") and said in line for line in lines) is doubted
    arguments = ["init", "-c", str(bank / "node.yaml"), "--contract", str(bank / "draft.json"), "--no-measure"]
    assert run(arguments) == 0
    assert (f"look at this bank's data before you send it: {said}" in capsys.readouterr().out) is doubted
    assert run([*arguments, "--json"]) == 0
    assert bool(json.loads(capsys.readouterr().out)["doubts"]) is doubted


def test_a_column_far_from_the_consortiums_is_a_warning(check):
    frame = payments()
    code, lines = check(frame.assign(age=frame.age * -1))
    assert code == 0 and lines[-1].startswith("warn  columns         column 'age': this bank's values lie far")


def test_what_a_node_will_refuse_fails_with_the_way_out(bank, check):
    frame = payments()
    code, lines = check(frame.assign(age=frame.age * 100))
    assert code == 78 and lines[-1].startswith("FAIL  reading ") and "column 'age'" in lines[-1]
    usual = load_bank(section(bank, frame), CONTRACT, NOW).reading
    (bank / "state/reading.json").write_text(json.dumps(usual.plain()))
    code, lines = check(frame.assign(fraud=1 - frame.fraud))
    assert code == 78 and "380 of 400 rows are fraud, the last time 20 of 400" in lines[-1]
    assert lines[-1].endswith("start the daemon and let `p2pfed data refresh --accept` take them")
