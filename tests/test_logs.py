"""Log lines for people and for machines, from many nodes in one process."""

import json
import logging

import pytest

from p2pfed import logs


@pytest.fixture(autouse=True)
def restored():
    logger = logging.getLogger(logs.ROOT)
    before = (logger.handlers[:], logger.level, logger.propagate)
    libraries = {name: logging.getLogger(name).handlers[:] for name in logs.LIBRARIES}
    yield
    logger.handlers[:], logger.propagate = before[0], before[2]
    logger.setLevel(before[1])
    for name, handlers in libraries.items():
        logging.getLogger(name).handlers[:] = handlers


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


def complain(logger, text, clock, monkeypatch):
    monkeypatch.setattr("time.time", lambda: clock)
    try:
        raise ValueError(text)
    except ValueError:
        logger.exception("Error handling request from %s\nand more", "127.0.0.1")


def test_what_a_library_complains_of_is_one_line_a_minute_and_cause(capsys, monkeypatch):
    logs.setup("info", "text")
    library = logging.getLogger("aiohttp.server")
    for i in range(300):
        complain(library, f"bad line {i}\nTraceback", 1000.0, monkeypatch)
    (line,) = capsys.readouterr().err.splitlines()
    said = "error aiohttp.server: Error handling request from 127.0.0.1: ValueError bad line 0 Traceback: test_logs.py:"
    assert line.split(" ", 1)[1].startswith(said)
    complain(library, "bad line", 1061.0, monkeypatch)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("not_told=299")


def test_a_fault_of_ours_keeps_its_traceback_and_does_not_flood(capsys, monkeypatch):
    logs.setup("info", "text")
    for _ in range(300):
        complain(logging.getLogger("p2pfed"), "a bug", 1000.0, monkeypatch)
        logs.for_node("bank-a").info("a line")
    told = capsys.readouterr().err
    assert told.count("Traceback") == 1
    assert told.count("a line") == 300
