"""`p2pfed check` on the state directory: what an operator should know before `start` does."""

import json
import socket
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import ANY

import pytest

from p2pfed.cli import run
from p2pfed.core.effects import Save
from p2pfed.core.reputation.peer_record import PeerRecord
from p2pfed.core.types import NodeId
from p2pfed.runtime import enrolment
from p2pfed.store import disk
from p2pfed.store.history import StoredEvent
from p2pfed.store.lock import StateLock
from p2pfed.store.sqlite import SqliteStore
from p2pfed.store.state_dir import StateDir
from tests.consortia import consortium

A = NodeId("A" * 56)


@pytest.fixture
def config(tmp_path, capsys) -> Path:
    """A bank with keys and no data yet."""
    path = tmp_path / "node.yaml"
    assert run(["init", "-c", str(path), "--name", "bank-a"]) == 0
    capsys.readouterr()
    return path


def check(config: Path, capsys, *more: str) -> tuple[int, dict[str, dict]]:
    """Exit code, and each check under its name."""
    code = run(["check", "-c", str(config), "--no-data", "--json", *more])
    return code, {c["name"]: c for c in json.loads(capsys.readouterr().out)["checks"]}


async def test_the_history_is_verified(config, capsys):
    state = StateDir(config.parent / "state")
    store = SqliteStore(state)
    await store.append([StoredEvent(i, float(i), "node_started", "{}") for i in range(1, 4)])
    with StateLock(state, "1.2.3", 0):
        message = check(config, capsys)[1]["history"]["message"]
    assert message.startswith("3 events, none changed since it was written; read while in use by p2pfed 1.2.3, process")
    store.close()
    assert check(config, capsys)[1]["history"]["message"] == "3 events, none changed since it was written"
    with sqlite3.connect(state.database) as db:
        db.execute("UPDATE events SET json = '[]' WHERE id = 2")
    db.close()
    code, found = check(config, capsys)
    assert code == 65
    assert "broken from event 2 (node_started) on" in found["history"]["message"]


def test_a_state_directory_that_others_may_write_to_fails(config, capsys):
    (config.parent / "state").chmod(0o777)
    code, found = check(config, capsys)
    assert code == 77
    assert not found["state"]["ok"]
    assert "chmod 700" in found["state"]["message"]


async def test_what_is_remembered_of_peers_is_read(config, capsys, monkeypatch):
    banks = consortium(4)
    monkeypatch.setattr(enrolment, "trusted_chain", lambda _: [banks.signed(0, 1)])
    monkeypatch.setattr(enrolment, "check_member", lambda *_: None)
    monkeypatch.setattr(enrolment, "check_rounds", lambda *_: None)
    store = SqliteStore(StateDir(config.parent / "state"))
    bad, good, unknown, *_ = banks.manifest.by_id
    judged = {bad: PeerRecord("quarantined", looks=1), good: PeerRecord(looks=2)}
    await store.save(Save(peers=judged | {unknown: PeerRecord(), A: PeerRecord(looks=9)}))  # A is no member any more
    assert check(config, capsys)[1]["reputation"]["message"] == "2 members judged, 1 quarantined"
    await store.save(Save(peers={good: PeerRecord(score="high")}))
    code, found = check(config, capsys)
    assert code == 65 and "remembered reputation is unreadable" in found["reputation"]["message"]
    store.close()


def test_a_disk_that_is_not_to_be_relied_on_is_a_warning(config, capsys, monkeypatch):
    assert check(config, capsys)[1]["disk"] == {"name": "disk", "ok": True, "warning": False, "message": ANY}
    monkeypatch.setattr(disk, "network_filesystem", lambda *_: "nfs4")
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: SimpleNamespace(free=1))
    found = check(config, capsys)[1]["disk"]
    assert found["ok"] and found["warning"]
    assert "(nfs4)" in found["message"] and "less than 100 MiB are free" in found["message"]
    run(["check", "-c", str(config), "--no-data"])
    assert "warn  disk" in capsys.readouterr().out


def test_a_certificate_that_cannot_be_read_is_said(config, capsys):
    tls = config.parent / "state" / "tls.pem"
    tls.unlink()
    tls.symlink_to(tls.name)
    code, found = check(config, capsys)
    assert code == 65 and "tls.pem cannot be read: Too many levels of symbolic links" in found["keys"]["message"]


def test_journals_that_could_not_be_written_are_said_before_the_start(config, capsys):
    (config.parent / "file").write_text("x")
    cases = (("here/new", "keep them as private"), ("file", "node.journal_dir: "), ("file/new", "file is no folder"))
    for place, said in cases:
        run(["check", "-c", str(config), "--no-data", "--json", "--set", f"node.journal_dir={place}"])
        found = {c["name"]: c for c in json.loads(capsys.readouterr().out)["checks"]}["journals"]
        assert found["ok"] is (place == "here/new") and said in found["message"]
    assert not (config.parent / "here").exists()


@pytest.mark.parametrize("peers", ["0.0.0.0:7480", "127.0.0.1:7480", '"[::]:7480"'])
def test_two_listeners_on_one_port_are_refused(config, capsys, peers):
    code, found = check(config, capsys, "--set", f"peers.listen={peers}")
    assert code == 78
    assert "peers.listen and admin.listen both take port 7480" in found["configuration"]["message"]


def test_two_listeners_that_meet_by_another_name_are_found(config, capsys):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = ("--set", f"peers.listen=localhost:{port}", "--set", f"admin.listen=127.0.0.1:{port}")
    code, found = check(config, capsys, *settings)
    assert not found["ports"]["ok"] and f"cannot listen on 127.0.0.1:{port}" in found["ports"]["message"]


def test_a_state_directory_too_deep_for_start_is_found(config, capsys):
    deep = config.parent / ("d" * 60) / ("e" * 40)
    deep.mkdir(parents=True)
    code, found = check(config, capsys, "--set", f"node.state_dir={deep}")
    assert code == 78 and "node.state_dir is too deep" in found["state"]["message"]
