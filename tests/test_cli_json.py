"""`--json`: every verb has it, and what fails is JSON, too."""

import json

import pytest
import typer

from p2pfed.cli import COMMANDS, application, run


def options(command: str) -> set[str]:
    found = typer.main.get_command(application(command.split()[0]))
    for word in command.split():
        found = found.commands[word]
    return {option for parameter in found.params for option in parameter.opts}


@pytest.mark.parametrize("command", [command for command, _ in COMMANDS])
def test_every_verb_has_it(command):
    assert "--json" in options(command)


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (["status", "-c", "none.yaml"], 78, "none.yaml: no such file"),
        (["consortium", "renew", "none.json"], 2, "none.json: the manifest cannot be read"),
        (["start", "none.yaml"], 78, "none.yaml: no such file"),
        (["status", "--no-such-option"], 2, "No such option: --no-such-option"),
        (["consortium", "sign"], 2, "Missing argument"),
    ],
)
def test_what_fails_is_json_too(tmp_path, monkeypatch, capsys, arguments, code, why):
    monkeypatch.chdir(tmp_path)
    assert run([*arguments, "--json"]) == code
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert told == {"error": told["error"], "exit": code} and why in told["error"]
    assert why in captured.err, "people read it as before"
    assert run(arguments) == code
    assert capsys.readouterr().out == ""


def test_what_admins_do_is_one_object(tmp_path, monkeypatch, said):
    monkeypatch.chdir(tmp_path)
    made = json.loads(said("consortium", "key", "alice", "--json"))
    assert made["name"] == "alice" and (tmp_path / made["secret"]).exists() and (tmp_path / made["public"]).exists()
    made = json.loads(said("data", "make", "p.parquet", "--rows", 1500, "--banks", 2, "--days", 30, "--json"))
    assert made == {"file": "p.parquet", "payments": 1500, "banks": 2}
    deal = ("data", "partition", "p.parquet", "--label", "fraud", "--banks", 2, "--how", "by:bank", "-o", "b", "--json")
    assert [one["file"] for one in json.loads(said(*deal))] == ["b/bank-1.parquet", "b/bank-2.parquet"]
