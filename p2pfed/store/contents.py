"""What the database of a state directory holds, verified; also beside a running daemon, and without a write."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from p2pfed.core.effects import KeptProof
from p2pfed.core.record import RecordError, build, load, plain
from p2pfed.core.reputation.peer_record import Assessment, PeerRecord, Scales
from p2pfed.core.types import NodeId
from p2pfed.errors import StateCorrupt
from p2pfed.store.faults import WAY_OUT, corrupt, opening_faults
from p2pfed.store.history import StoredEvent
from p2pfed.store.schema import HISTORY_SINCE, MIGRATIONS, REPUTATION_SINCE
from p2pfed.store.sqlite_events import verify
from p2pfed.store.state_dir import StateDir

T = TypeVar("T")
Reputed = tuple[dict[NodeId, PeerRecord], Scales | None]
"""`Restored.peers` and `.scales`."""


def verify_history(state: StateDir) -> int:
    """How many events the stored history has, its hash chain verified; beside a running daemon, and without a write.

    Raises StateCorrupt naming the first bad event, or what makes the database one that no daemon would open.
    """
    with _read_only(state) as db:
        if db is None:
            return 0
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version >= HISTORY_SINCE:
            manifests(db, state)
        return verify(db, version)


def read_reputation(state: StateDir) -> Reputed:
    """`Restored.peers` and `.scales` as they are stored now; beside a running daemon, and without a write.

    Raises StateCorrupt as `verify_history` does.
    """
    with _read_only(state) as db:
        return ({}, None) if db is None else reputation(db, state.database)


@dataclass(frozen=True)
class Left:
    """What a daemon has left in its database."""

    starts: int
    round: int
    seq: int
    quarantined: tuple[NodeId, ...]
    last: StoredEvent | None
    """The newest event."""


def read_left(state: StateDir) -> Left | None:
    """What is stored now, without a write; None if no daemon has run here. Raises StateCorrupt as `verify_history`."""
    with _read_only(state) as db:
        if db is None or (node := db.execute("SELECT epoch FROM node").fetchone()) is None:
            return None
        number, seq = db.execute("SELECT round, seq FROM checkpoint").fetchone() or (0, 0)
        last = db.execute(
            "SELECT id, time, kind, json FROM events WHERE json IS NOT NULL ORDER BY id DESC LIMIT 1"
        ).fetchone()
        peers, _ = reputation(db, state.database)
        quarantined = tuple(member for member, record in peers.items() if record.standing == "quarantined")
        return Left(node[0], number, seq, quarantined, StoredEvent(*last) if last else None)


def read_events(state: StateDir, since: int) -> Iterator[StoredEvent]:
    """The stored events with id > `since`, oldest first, without a write; raises StateCorrupt as `verify_history`."""
    with _read_only(state) as db:
        if db is not None:
            query = "SELECT id, time, kind, json FROM events WHERE id > ? AND json IS NOT NULL ORDER BY id"
            yield from (StoredEvent(*row) for row in db.execute(query, (since,)))


@contextlib.contextmanager
def _read_only(state: StateDir) -> Iterator[sqlite3.Connection | None]:
    """One snapshot of the database, for a running daemon goes on writing; None if there is none yet."""
    require_database(state)
    if not state.database.exists():
        yield None
        return
    with opening_faults(state.database):
        db = sqlite3.connect(f"{state.database.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
        with contextlib.closing(db):
            db.execute("BEGIN")
            yield db if checked_version(db, state.database) else None


def require_database(state: StateDir) -> None:
    """Raise StateCorrupt if there is a key and no database that counts what it signs."""
    if state.member_key.exists() and not (state.database.exists() and state.database.stat().st_size):
        raise StateCorrupt(
            f"{state.database} is missing or empty but {state.member_key} is there: without the last signed "
            f"sequence number this node could sign it twice. {WAY_OUT}"
        )


def checked_version(db: sqlite3.Connection, path: Path) -> int:
    """The schema version of a file whose pages are sound; raises StateCorrupt."""
    problems = [row[0] for row in db.execute("PRAGMA quick_check(3)")]
    if problems != ["ok"]:
        raise corrupt(path, problems[0])
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise StateCorrupt(
            f"{path} was written by a newer p2pfed (schema {version}, this one knows {len(MIGRATIONS)}); "
            "install that version again"
        )
    return version


def manifests(db: sqlite3.Connection, state: StateDir) -> dict[int, bytes]:
    """The signed manifests by version; raises StateCorrupt if the newest one that this node followed is missing."""
    found = state.manifests()
    (newest,) = db.execute("SELECT manifest FROM node").fetchone()
    if newest > max(found, default=0):
        raise StateCorrupt(
            f"{state.manifest(newest)} is missing, and this node has followed version {newest}: without it members "
            f"would be let in that the admins have removed. Restore it from a backup, or get it from an admin and "
            "`p2pfed join` again"
        )
    return found


def proofs(db: sqlite3.Connection, path: Path) -> dict[str, KeptProof]:
    """`Restored.proofs`; raises StateCorrupt."""
    found = {}
    for *content, stored in db.execute("SELECT digest, proof, cleared, sha256 FROM proofs ORDER BY rowid"):
        if content_hash(content) != stored:
            raise corrupt(path, f"the proof {content[0][:12]} does not have the hash it was saved with")
        digest, proof, cleared = content
        found[digest] = KeptProof(proof, cleared)
    return found


def reputation(db: sqlite3.Connection, path: Path) -> Reputed:
    """`Restored.peers` and `.scales`; raises StateCorrupt."""
    if db.execute("PRAGMA user_version").fetchone()[0] < REPUTATION_SINCE:
        return {}, None  # only looked at: who opens it migrates it
    peers = {}
    for member, record, stored in db.execute("SELECT member, record, sha256 FROM reputation ORDER BY member"):
        if content_hash((member, record)) != stored:
            raise corrupt(path, f"what it remembers of member {member[:7]} does not have the hash it was saved with")
        peers[NodeId(member)] = _peer(record, path)
    row = db.execute("SELECT state, sha256 FROM scales").fetchone()
    if row is not None and content_hash(row[:1]) != row[1]:
        raise corrupt(path, "the scales of reputation do not have the hash they were saved with")
    return peers, _remembered(Scales, load, row[0], path) if row else None


def _peer(stored: bytes, path: Path) -> PeerRecord:
    """What is remembered of a member; measurements once lay beside the rest, and there was one more of them."""

    def nested(stored: bytes) -> Any:
        told, measured = load(stored), plain(Assessment())
        beside = {name: told.pop(name) for name in (*measured, "nearness") if name in told}
        newest = measured | told.get("newest", beside)
        newest.pop("nearness", None)
        return told | {"newest": newest}

    return _remembered(PeerRecord, nested, stored, path)


def _remembered(kind: type[T], read: Callable[[bytes], Any], stored: bytes, path: Path) -> T:
    """Of an earlier version's record new fields have their defaults."""
    try:
        return build(kind, plain(kind()) | read(stored))
    except (RecordError, TypeError, AttributeError) as error:
        raise corrupt(path, f"the remembered reputation is unreadable: {error}") from None


def content_hash(content: Sequence[object]) -> bytes:
    """The hash that a row is stored with."""
    whole = hashlib.sha256()
    for value in content:
        part = value if isinstance(value, bytes) else repr(value).encode()
        whole.update(len(part).to_bytes(8, "little") + part)
    return whole.digest()
