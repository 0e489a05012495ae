"""Log lines for people and for machines, from many nodes in one process."""

import json
import logging

import pytest

from p2pfed import logs


@pytest.fixture(autouse=True)
def restored():
    logger = logging.getLogger(logs.ROOT)
    before = (logger.handlers[:], logger.level, logger.propagate)
    yield
    logger.handlers[:], logger.propagate = before[0], before[2]
    logger.setLevel(before[1])


def test_a_line_for_people(capsys):
    logs.setup("info", "text")
    logs.for_node("bank-a").info("round done", extra={"round": 3, "loss": 0.123456, "peer": "bank b"})
    line = capsys.readouterr().err
    assert line.split(" ", 1)[1] == 'info bank-a: round done round=3 loss=0.1235 peer="bank b"\n'
    assert line[10] == "T"
    assert line.split()[0].endswith("Z")


def test_an_object_for_machines(capsys):
    logs.setup("debug", "json")
    logs.for_node("bank-a").debug("hello", extra={"peer": "b"})
    entry = json.loads(capsys.readouterr().err)
    assert entry.keys() == {"time", "level", "message", "node", "peer"}
    assert (entry["level"], entry["node"], entry["peer"]) == ("debug", "bank-a", "b")


def test_setting_up_again_replaces_level_and_format(capsys):
    logs.setup("debug", "json")
    logs.setup("error", "text")
    logs.for_node("bank-a").info("unheard")
    logs.for_node("bank-a").error("heard")
    assert capsys.readouterr().err.count("\n") == 1


def test_a_peer_cannot_forge_a_line(capsys):
    logs.setup("info", "text")
    logs.for_node("bank-a").info("hello\n2026 error bank-a: forged", extra={"peer": "\x1b[2Jx"})
    out = capsys.readouterr().err
    assert out.count("\n") == 1
    assert "\x1b" not in out


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_traceback_is_kept(capsys, form):
    logs.setup("info", form)
    try:
        raise ValueError("what went wrong")
    except ValueError:
        logs.for_node("bank-a").exception("failed")
    assert "ValueError: what went wrong" in capsys.readouterr().err
