"""Files as banks have them, on the command line."""

import json

from p2pfed.core import record
from p2pfed.core.contract import FeatureContract
from tests.data.banks import payments


def test_a_file_with_semicolons_and_decimal_commas(tmp_path, said, refused):
    rows = tmp_path / "rows.csv"
    payments(700, 9).to_csv(rows, index=False, sep=";", decimal=",")
    assert "several between ';'" in refused("data", "describe", rows, "--label", "fraud")[1]
    named = ("--delimiter", ";", "--decimal", ",")
    assert said("data", "describe", rows, "--label", "fraud", *named).startswith("700 payments")
    said("data", "partition", rows, "--label", "fraud", "--banks", 2, *named, "-o", tmp_path / "banks")
    code, error = refused("data", "describe", rows, "--label", "fraud", "--decimal", ",")
    assert code == 2 and "a number would be two columns" in error
    assert refused("data", "describe", "-c", tmp_path / "no.yaml", *named)[0] == 2


def test_describe_says_how_to_take_an_identifier_after_all_and_what_may_be_a_time(tmp_path, said):
    rows, contract = tmp_path / "rows.csv", tmp_path / "contract.json"
    frame = payments(1500, 60).assign(step=lambda f: f.index // 10, zip=lambda f: f.index % 90 * 7)
    frame.to_csv(rows, index=False)
    describe = ("data", "describe", rows, "--label", "fraud", "--time", "when", "--drop", "payment")
    text = said(*describe, "--contract", contract)
    assert "column 'step' never falls from row to row: if it is a time, use --time or --drop" in text
    assert "one that is a feature is taken with --hash" in text
    draft = json.loads(contract.read_text())
    assert [column["name"] for column in draft["columns"]] == ["amount", "channel", "age", "step"]
    draft["columns"].append(json.loads(text[text.index('{"kind"') :]))
    assert record.parse(FeatureContract, json.dumps(draft).encode()).columns[-1].name == "zip"
    text = said(*describe, "--hash", "zip", "--drop", "step")
    assert "never falls" not in text and "identifiers are left out" not in text
