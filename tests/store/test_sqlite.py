"""What only a real file can do: be damaged, full, old, or cut off in the middle by kill -9."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
import time

import numpy as np
import pytest

from p2pfed.core.effects import Checkpoint, KeptProof, Save
from p2pfed.core.reputation.peer_record import PeerRecord, Scales
from p2pfed.core.types import NodeId
from p2pfed.errors import StateCorrupt, StateLocked
from p2pfed.store import contents, sqlite
from p2pfed.store.contents import read_reputation, verify_history
from p2pfed.store.history import StoredEvent
from p2pfed.store.schema import MIGRATIONS
from p2pfed.store.sqlite import SqliteStore
from p2pfed.store.state_dir import StateDir

A = NodeId("A" * 56)
BACKUP = f"node.v{len(MIGRATIONS)}.sqlite"
"""Of a file that a later version migrates."""


def checkpoint(seq: int, size: int = 2000) -> Checkpoint:
    return Checkpoint(seq, seq, f"d{seq}", np.full(size, seq, np.float32), b"o" * size, b"{}", b"p" * size, None, "m")


async def filled(state: StateDir) -> None:
    """A closed store with a checkpoint and ten events."""
    store = SqliteStore(state)
    await store.save(Save(checkpoint(1), {A: (1, "a1")}, {A: b"frame"}, {A: PeerRecord(score=1.5)}, Scales(2.5)))
    await store.append([StoredEvent(i, float(i), "node_started", json.dumps({"n": i})) for i in range(1, 11)])
    store.close()


def change(state: StateDir, statement: str) -> None:
    with sqlite3.connect(state.database) as db:
        assert db.execute(statement).rowcount != 0
    db.close()


def know(monkeypatch: pytest.MonkeyPatch, migrations: tuple[tuple[str, ...], ...]) -> None:
    """Let p2pfed be of another version."""
    for module in (sqlite, contents):
        monkeypatch.setattr(module, "MIGRATIONS", migrations)


@pytest.fixture
def state(tmp_path) -> StateDir:
    return StateDir(tmp_path)


# --- damage -----------------------------------------------------------------------------------------------------------


async def test_a_file_that_is_no_database_is_named_with_the_way_out(state):
    await filled(state)
    state.database.write_bytes(b"this is not a database" * 1000)
    with pytest.raises(StateCorrupt, match=r"node\.sqlite is damaged .*backup") as refused:
        SqliteStore(state)
    assert refused.value.exit_code == 65


async def test_a_database_cut_in_the_middle_is_refused(state):
    await filled(state)
    content = state.database.read_bytes()
    state.database.write_bytes(content[: len(content) // 2])
    with pytest.raises(StateCorrupt, match="damaged"):
        SqliteStore(state)


async def test_damage_in_any_page_never_ends_in_another_exception(state):
    await filled(state)
    content = bytearray(state.database.read_bytes())
    rng = random.Random(5)
    refused = 0
    for _ in range(40):
        start = rng.randrange(len(content) - 64)
        damaged = content.copy()
        damaged[start : start + 64] = rng.randbytes(64)
        state.database.write_bytes(damaged)
        try:
            SqliteStore(state).close()
        except StateCorrupt:
            refused += 1
    assert refused > 0


async def test_a_checkpoint_changed_on_disk_is_refused(state):
    await filled(state)
    change(state, "UPDATE checkpoint SET vector = zeroblob(length(vector))")
    with pytest.raises(StateCorrupt, match="checkpoint"):
        SqliteStore(state)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE reputation SET record = CAST('{\"score\":0.5}' AS BLOB)", r"remembers of member AAAAAAA .*backup"),
        ("UPDATE reputation SET member = 'B'", "remembers of member B "),
        ("UPDATE scales SET state = CAST('{\"moved\":9.5}' AS BLOB)", "scales of reputation"),
    ],
)
async def test_a_reputation_changed_on_disk_is_refused(state, statement, said):
    await filled(state)
    assert read_reputation(state) == ({A: PeerRecord(score=1.5)}, Scales(2.5))
    change(state, statement)
    for reading in (SqliteStore, read_reputation):
        with pytest.raises(StateCorrupt, match=said):
            reading(state)


@pytest.mark.parametrize("statement", ["UPDATE proofs SET cleared = 9", "UPDATE proofs SET proof = zeroblob(5)"])
async def test_a_proof_changed_on_disk_is_refused(state, statement):
    store = SqliteStore(state)
    await store.save(Save(proofs={"ab" * 32: KeptProof(b"proof")}))
    store.close()
    change(state, statement)
    with pytest.raises(StateCorrupt, match="proof abababababab"):
        SqliteStore(state)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE events SET json = '{\"n\":99}' WHERE id = 4", "event 4"),
        ("UPDATE events SET time = time + 1 WHERE id = 6", "event 6"),
        ("UPDATE events SET kind = 'other' WHERE id = 10", "event 10"),
        ("DELETE FROM events WHERE id = 5", "from event 6 .*: event 4 is the one before it"),
        ("DELETE FROM events WHERE id = 1", "event 2"),
    ],
)
async def test_a_history_changed_afterwards_is_found(state, statement, said):
    await filled(state)
    change(state, statement)
    store = SqliteStore(state)
    with pytest.raises(StateCorrupt, match=said):
        await store.verify_chain()
    store.close()
    with pytest.raises(StateCorrupt, match=said):
        verify_history(state)


async def test_a_history_is_verified_beside_its_writer_and_after_it_was_killed(state):
    assert verify_history(state) == 0
    await filled(state)
    before = state.database.read_bytes()
    assert verify_history(state) == 10
    assert state.database.read_bytes() == before
    store = SqliteStore(state)
    await store.append([StoredEvent(11, 11.0, "node_started", "{}")])  # in the log file, not in the database yet
    assert verify_history(state) == 11
    shutil.copytree(state.root, killed := state.root / "killed")
    store.close()
    assert verify_history(StateDir(killed)) == 11


async def test_what_no_daemon_would_open_is_no_history(state):
    await filled(state)
    state.member_key.touch()
    state.database.write_bytes(state.database.read_bytes()[:5000])
    with pytest.raises(StateCorrupt, match="damaged"):
        verify_history(state)
    state.database.unlink()
    with pytest.raises(StateCorrupt, match="is missing or empty"):
        verify_history(state)


async def test_every_file_of_the_database_is_its_owners_only(state, monkeypatch):
    await filled(state)
    know(monkeypatch, (*MIGRATIONS, ("ALTER TABLE node ADD COLUMN note TEXT",)))
    store = SqliteStore(state)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in state.root.iterdir()}
    store.close()
    assert set(modes.values()) == {0o600}, modes
    assert {"node.sqlite", "node.sqlite-wal", BACKUP} <= modes.keys()


# --- versions ---------------------------------------------------------------------------------------------------------


async def test_an_older_file_is_migrated_after_a_backup(state, monkeypatch):
    await filled(state)
    know(monkeypatch, (*MIGRATIONS, ("ALTER TABLE node ADD COLUMN note TEXT",)))
    store = SqliteStore(state)
    assert store.restore().checkpoint.seq == 1
    assert await store.verify_chain() == 10
    store.close()
    with sqlite3.connect(state.root / BACKUP) as backup:
        assert backup.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        assert backup.execute("SELECT count(*) FROM events").fetchone() == (10,)
    backup.close()
    SqliteStore(state).close()  # and is then simply current


async def test_a_file_of_the_first_version_has_no_reputation_and_gets_one(state, monkeypatch):
    know(monkeypatch, MIGRATIONS[:1])
    monkeypatch.setattr(SqliteStore, "_open_epoch", lambda store: None)
    SqliteStore(state).close()
    monkeypatch.undo()
    assert read_reputation(state) == ({}, None)
    store = SqliteStore(state)
    assert (store.restore().peers, store.restore().scales) == ({}, None)
    await store.save(Save(peers={A: PeerRecord()}, scales=Scales()))
    assert read_reputation(state) == ({A: PeerRecord()}, Scales())
    store.close()


async def test_a_migration_that_fails_leaves_the_old_file(state, monkeypatch):
    await filled(state)
    know(monkeypatch, (*MIGRATIONS, ("CREATE TABLE fine (x)", "CREATE TABLE node (twice)")))
    with pytest.raises(StateCorrupt, match="table node already exists"):
        SqliteStore(state)
    monkeypatch.undo()
    store = SqliteStore(state)
    assert store.restore().checkpoint.seq == 1
    store.close()


async def test_a_newer_file_asks_for_the_newer_program(state):
    await filled(state)
    change_version = sqlite3.connect(state.database)
    change_version.execute("PRAGMA user_version = 99")
    change_version.close()
    with pytest.raises(StateCorrupt, match="schema 99"):
        SqliteStore(state)


# --- a disk that refuses ----------------------------------------------------------------------------------------------


async def test_another_writer_is_named_after_a_while(state, monkeypatch):
    await filled(state)
    other = sqlite3.connect(state.database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    store_connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: store_connect(*a, **(k | {"timeout": 0.05})))
    with pytest.raises(StateLocked, match="another process"):
        SqliteStore(state)
    other.execute("ROLLBACK")
    other.close()


async def test_a_lock_of_another_process_is_waited_for_and_told(state, monkeypatch):
    monkeypatch.setattr(sqlite, "TRY_SECONDS", 0.05)
    store, told = SqliteStore(state), []
    store.on_locked = told.append
    other = sqlite3.connect(state.database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    saving = asyncio.create_task(store.save(Save(checkpoint(1))))
    async with asyncio.timeout(30):
        while not told:
            await asyncio.sleep(0.01)
        assert await store.events(0, 10) == [], "reading goes on"
        assert not saving.done()
        other.execute("ROLLBACK")
        await saving
    store.close()
    reopened = SqliteStore(state)
    reopened.on_locked = told.append
    assert reopened.restore().checkpoint.seq == 1
    monkeypatch.setattr(sqlite, "LOCKED_SECONDS", 0.2)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StateLocked, match="end it, then start again"):
        await reopened.save(Save(checkpoint(2)))
    assert told == [True, False, True, False], "nobody waits any more"
    other.close()
    reopened.close()


FULL_DISK = """
import asyncio, dataclasses, pathlib, resource, sys
import numpy as np
from p2pfed.core.effects import Checkpoint, Save
from p2pfed.errors import DiskFault
from p2pfed.store.history import StoredEvent
from p2pfed.store.contents import verify_history
from p2pfed.store.sqlite import SqliteStore
from p2pfed.store.state_dir import StateDir

async def main():
    store = SqliteStore(StateDir(pathlib.Path(sys.argv[1])))
    small = Checkpoint(1, 1, "d1", np.ones(1000, np.float32), b"", b"{}", b"", None, "m")
    await store.save(Save(small))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, resource.RLIM_INFINITY))
    big = dataclasses.replace(small, seq=2, statement_digest="d2", vector=np.ones(1_000_000, np.float32))
    for write in (store.save(Save(big)), store.save_manifest(1, b"x" * 3_000_000)):
        try:
            await write
        except DiskFault as fault:
            print(fault.exit_code, fault)
    await store.save(Save(dataclasses.replace(small, round=7)))  # what fits is still saved
    await store.append([StoredEvent(1, 1.0, "node_started", "{}")])
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await store.save(Save(big))  # and all again once there is room
    store.close()

asyncio.run(main())
"""


def test_a_full_disk_is_said_and_costs_nothing_that_was_saved(state):
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(state.root)], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("74 ") and str(state.root) in line for line in lines)
    store = SqliteStore(state)
    assert store.restore().checkpoint.seq == 2
    assert store.restore().manifests == ()
    store.close()


async def test_a_closed_store_is_a_programming_error_not_a_disk_fault(state):
    store = SqliteStore(state)
    store.close()
    with pytest.raises(RuntimeError):
        await store.events(0, 1)


# --- kill -9 ----------------------------------------------------------------------------------------------------------

WRITER = """
import asyncio, hashlib, os, pathlib, sys
import numpy as np
from p2pfed.core.effects import Checkpoint, Save
from p2pfed.core.reputation.peer_record import PeerRecord, Scales
from p2pfed.store.history import StoredEvent
from p2pfed.store.contents import verify_history
from p2pfed.store.sqlite import SqliteStore
from p2pfed.store.state_dir import StateDir

async def main():
    store = SqliteStore(StateDir(pathlib.Path(sys.argv[1])))
    found = store.restore()
    seq = found.checkpoint.seq if found.checkpoint else 0
    event = found.last_event
    frame = int(found.frames.get("B" * 56, b"0"))
    while True:
        seq, event, frame = seq + 1, event + 1, frame + 1
        vector = np.full(40_000, seq, np.float32)
        published = os.urandom(30_000)  # another content, so another hash, each time this runs
        digest = hashlib.sha256(published).hexdigest()
        checkpoint = Checkpoint(seq, seq, digest, vector, b"o" * 90_000, b"{}", published, 0.5, "m")
        peers, scales = {"A" * 56: PeerRecord(score=float(seq))}, Scales(float(seq))
        await store.save(Save(checkpoint, {"A" * 56: (seq, "m")}, {}, peers, scales))
        print("seq", seq, digest, flush=True)
        await store.append([StoredEvent(event, float(event), "round_completed", '{"round":%d}' % seq)])
        print("event", event, flush=True)
        await store.save(Save(frames={"B" * 56: b"%d" % frame}))
        print("frame", frame, flush=True)
        await store.save_manifest(seq % 5 + 1, b"%d" % seq)

asyncio.run(main())
"""


@pytest.mark.slow
async def test_kill_9_at_any_moment_loses_nothing_acknowledged(state):
    rng = random.Random(7)
    signed: dict[int, str] = {}
    acknowledged = {"seq": 0, "event": 0, "frame": 0}
    for start in range(20):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(state.root)], stdout=subprocess.PIPE, text=True)
        with writer:
            lines = [writer.stdout.readline()]
            time.sleep(rng.uniform(0.0, 0.08))
            writer.kill()
            lines += writer.stdout.readlines()
        for line in filter(lambda whole: whole.endswith("\n"), lines):
            kind, number, *digest = line.split()
            acknowledged[kind] = int(number)
            if digest:
                assert signed.setdefault(int(number), digest[0]) == digest[0], "one sequence number, two statements"
        store = SqliteStore(state)
        found = store.restore()
        assert found.epoch == 2 * (start + 1)
        assert found.checkpoint.seq >= acknowledged["seq"]
        assert signed.get(found.checkpoint.seq, found.checkpoint.statement_digest) == found.checkpoint.statement_digest
        assert np.all(found.checkpoint.vector == found.checkpoint.seq)
        assert found.marks == {A: (found.checkpoint.seq, "m")}
        assert found.peers == {A: PeerRecord(score=found.scales.moved)} and found.scales.moved == found.checkpoint.seq
        assert int(found.frames.get(NodeId("B" * 56), b"0")) >= acknowledged["frame"]
        assert found.last_event >= acknowledged["event"]
        assert await store.verify_chain() == found.last_event
        signed[found.checkpoint.seq] = found.checkpoint.statement_digest
        store.close()
    assert len(signed) > 20
