"""SQLite's errors as ours, with what an operator can do about them."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from p2pfed.errors import DiskFault, LocalFault, NoDescriptors, StateCorrupt, StateLocked
from p2pfed.store import descriptors

WAY_OUT = (
    "Restore the whole state directory from one backup, or move it away, run `p2pfed init` and have the new key "
    "put into the manifest"
)


@contextlib.contextmanager
def faults(path: Path) -> Iterator[None]:
    """Turn SQLite's errors about the file into ours; a programming error stays what it is."""
    try:
        yield
    except sqlite3.Error as error:
        fault = _fault(error, path)
        if fault is None:
            raise
        raise fault from error


@contextlib.contextmanager
def opening_faults(path: Path) -> Iterator[None]:
    """The same for a file that was never seen before: its content is at fault, whatever SQLite makes of it."""
    try:
        with faults(path):
            yield
    except (sqlite3.Error, UnicodeDecodeError) as error:  # names or text that are not what was once written
        raise corrupt(path, str(error)) from error


def _fault(error: sqlite3.Error, path: Path) -> LocalFault | None:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte is the primary code
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return corrupt(path, str(error))
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StateLocked(f"{path} is being written by another process; end it, then start again")
    if code == sqlite3.SQLITE_FULL:
        return DiskFault(f"the disk is full: {path} keeps what was saved before; free some space")
    if code == sqlite3.SQLITE_CANTOPEN and descriptors.exhausted():
        return NoDescriptors(f"cannot open {path}: too many open files; raise the limit (`ulimit -n`)")
    if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return DiskFault(f"cannot write {path} ({error}); check free space, permissions and the disk's health")
    return None


def corrupt(path: Path, what: str) -> StateCorrupt:
    """The error to raise about the database at `path`."""
    return StateCorrupt(f"{path} is damaged ({what}). Do not delete it alone. {WAY_OUT}")
