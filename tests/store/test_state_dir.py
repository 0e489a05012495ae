"""Files in a state directory: where they lie, how they are written, who may read them, who holds the lock."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from p2pfed.errors import ConfigError, DiskFault, NotPermitted, StateCorrupt, StateLocked
from p2pfed.store.credentials import admin_token, create_member_key, load_member_key, read_secret
from p2pfed.store.lock import StateLock
from p2pfed.store.sqlite import SqliteStore
from p2pfed.store.state_dir import StateDir, write_atomically


@pytest.fixture
def state(tmp_path) -> StateDir:
    return StateDir(tmp_path / "bank" / "state").create()


def test_the_directory_is_made_for_its_owner_only(state):
    assert stat.S_IMODE(state.root.stat().st_mode) == 0o700
    state.create()  # a second time is no error


def test_a_directory_that_cannot_be_made_is_named():
    with pytest.raises(StateLocked, match="/proc/nowhere.*node.state_dir"):
        StateDir(Path("/proc/nowhere/state")).create()


def test_manifests_are_read_back_by_version_and_other_files_are_left_alone(state):
    assert state.manifests() == {}
    for version in (2, 10, 1):
        state.save_manifest(version, b"%d" % version)
    (state.root / "manifests" / "3.json.new").write_bytes(b"half")
    (state.root / "manifests" / "notes.json").write_bytes(b"x")
    assert state.manifests() == {1: b"1", 2: b"2", 10: b"10"}


def test_a_file_is_replaced_whole_with_its_mode(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o644)
    write_atomically(path, b"new", mode=0o600)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["file"]


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    write_atomically(tmp_path / "file", b"old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(DiskFault, match="No space left"):
        patch.setattr(os, "fsync", full)
        write_atomically(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"


@pytest.mark.parametrize("planted", ["file", "file.new", "file.part", ".p2pfed-.new"])
def test_a_planted_link_is_not_followed(tmp_path, planted):
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / planted).symlink_to(tmp_path / "precious")
    write_atomically(tmp_path / "file", b"secret")
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert (tmp_path / "file").read_bytes() == b"secret" and not (tmp_path / "file").is_symlink()


@pytest.mark.parametrize("planted", ["file", "file.new"])
def test_who_made_a_file_before_does_not_read_what_is_written(tmp_path, planted):
    (tmp_path / planted).touch(0o666)
    with (tmp_path / planted).open("rb") as held:
        write_atomically(tmp_path / "file", b"secret")
        assert held.read() == b""
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600


def test_what_a_crash_left_half_written_is_swept_away(state):
    state.save_manifest(1, b"1")
    for folder in (state.root, state.root / "manifests"):
        (folder / ".p2pfed-0123.new").write_bytes(b"half")
    state.sweep()
    assert [path.name for path in state.root.rglob("*")] == ["manifests", "1.json"]


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_directory_that_others_may_write_to_is_refused(state, mode):
    state.root.chmod(mode)
    with pytest.raises(NotPermitted, match=f"has mode {mode:o}: .* chmod 700 {state.root}"):
        state.create()
    state.root.chmod(0o755)
    state.create()


def test_a_write_that_fails_names_the_file(tmp_path):
    with pytest.raises(DiskFault, match="missing/file"):
        write_atomically(tmp_path / "missing" / "file", b"x")


# --- lock -------------------------------------------------------------------------------------------------------------


def test_the_second_daemon_is_told_who_holds_the_directory(state):
    with StateLock(state, "1.2.3", 1000.0), pytest.raises(StateLocked, match=f"1.2.3, process {os.getpid()}"):
        StateLock(state, "1.2.3", 1001.0)
    StateLock(state, "1.2.3", 1002.0).release()


def test_the_lock_file_stays_and_a_longer_old_name_does_not_shine_through(state):
    StateLock(state, "a-very-long-version-name" * 5, 1000.0).release()
    assert state.lock.exists()
    with StateLock(state, "1", 1000.0), pytest.raises(StateLocked, match="p2pfed 1, process"):
        StateLock(state, "1", 1000.0)


def test_an_unreadable_holder_is_just_another_daemon(state):
    with StateLock(state, "1", 1000.0):
        state.lock.write_bytes(b"")
        with pytest.raises(StateLocked, match="another daemon"):
            StateLock(state, "1", 1000.0)


def test_a_lock_that_cannot_be_written_is_a_disk_fault_and_frees_the_lock(state, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(DiskFault, match="No space left"):
        patch.setattr(os, "pwrite", full)
        StateLock(state, "1", 0.0)
    StateLock(state, "1", 0.0).release()


HOLD_LOCK = """
import pathlib, sys
from p2pfed.store.lock import StateLock
from p2pfed.store.state_dir import StateDir
lock = StateLock(StateDir(pathlib.Path(sys.argv[1])), "1", 0.0)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_killed_holder_leaves_no_lock_behind(state):
    command = [sys.executable, "-c", HOLD_LOCK, str(state.root)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(StateLocked, match=f"process {holder.pid}"):
            StateLock(state, "1", 0.0)
        holder.kill()
    StateLock(state, "1", 0.0).release()


# --- keys and tokens --------------------------------------------------------------------------------------------------


def test_a_member_key_comes_back_and_only_its_owner_may_read_it(state):
    made = create_member_key(state)
    assert load_member_key(state).public_key == made.public_key
    assert stat.S_IMODE(state.member_key.stat().st_mode) == 0o600


def test_a_member_key_is_never_replaced(state):
    made = create_member_key(state)
    with pytest.raises(NotPermitted, match="not replaced"):
        create_member_key(state)
    assert load_member_key(state).public_key == made.public_key


def test_a_key_without_its_sequence_number_does_not_start(state):
    create_member_key(state)
    SqliteStore(state).close()
    for path in state.root.glob("node.sqlite*"):
        path.unlink()
    with pytest.raises(StateCorrupt, match="sign it twice"):
        SqliteStore(state)
    state.database.touch()
    with pytest.raises(StateCorrupt, match="sign it twice"):
        SqliteStore(state)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644, 0o666])
def test_a_key_open_to_others_is_refused_with_the_command_that_helps(state, mode):
    create_member_key(state)
    state.member_key.chmod(mode)
    with pytest.raises(NotPermitted, match=f"chmod 600 {state.member_key}"):
        load_member_key(state)


@pytest.mark.parametrize("content", [b"", b"abc", b"00" * 31, b"zz" * 32, b"\xff" * 64])
def test_a_file_that_is_no_key_is_named(state, content):
    write_atomically(state.member_key, content)
    with pytest.raises(NotPermitted, match="does not hold a member key"):
        load_member_key(state)


def test_a_missing_key_says_what_makes_one(state):
    with pytest.raises(NotPermitted, match="p2pfed init"):
        load_member_key(state)


def test_the_admin_token_is_made_once(state):
    token = admin_token(state)
    assert len(token) >= 40
    assert admin_token(state) == token
    assert stat.S_IMODE(state.admin_token.stat().st_mode) == 0o600
    state.admin_token.chmod(0o644)
    with pytest.raises(NotPermitted, match="chmod 600"):
        admin_token(state)


def test_an_unreadable_secret_is_refused(state):
    with pytest.raises(NotPermitted, match="cannot read"):
        read_secret(state.root)


# --- a directory that may not be written to ---------------------------------------------------------------------------

AS_NOBODY = """
import os, sys, pathlib
from p2pfed.store.lock import StateLock
from p2pfed.store.sqlite import SqliteStore
from p2pfed.store.state_dir import StateDir
from p2pfed.errors import P2PFedError
if os.getuid() == 0:
    os.setgid(65534); os.setuid(65534)
state = StateDir(pathlib.Path(sys.argv[1]))
for attempt in (lambda: StateLock(state, "1", 0.0), lambda: SqliteStore(state)):
    try:
        attempt()
    except P2PFedError as error:
        print(type(error).__name__, error.exit_code, str(state.root) in str(error))
"""


def test_a_read_only_directory_is_refused_with_its_name():
    with tempfile.TemporaryDirectory() as folder:  # not below tmp_path, whose parents keep other users out
        os.chmod(folder, 0o555)
        done = subprocess.run([sys.executable, "-c", AS_NOBODY, folder], capture_output=True, text=True, check=True)
        os.chmod(folder, 0o755)
    assert done.stdout.splitlines() == ["StateLocked 73 True", "DiskFault 74 True"]


def test_a_directory_too_deep_for_a_socket_is_not_made(tmp_path):
    deep = StateDir(tmp_path / ("ä" * 50) / "state")  # 50 letters, 100 bytes
    with pytest.raises(ConfigError, match="node.state_dir is too deep: .*107 bytes"):
        deep.create()
    assert not deep.root.parent.exists()
