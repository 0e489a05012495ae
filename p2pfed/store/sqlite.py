"""The store of a real daemon: one SQLite file, written by one thread, durable at every commit."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np

from p2pfed.core.effects import Checkpoint, KeptProof, Save
from p2pfed.core.record import RecordError, build, canonical, load, plain
from p2pfed.core.reputation.peer_record import Assessment, PeerRecord, Scales
from p2pfed.core.types import NodeId
from p2pfed.errors import StateCorrupt
from p2pfed.store.base import Restored, check_succession
from p2pfed.store.descriptors import patiently
from p2pfed.store.faults import WAY_OUT, corrupt, faults, opening_faults
from p2pfed.store.history import FIRST_LINK, USUAL, Retention, StoredEvent
from p2pfed.store.schema import CALENDAR_SINCE, HISTORY_SINCE, MIGRATIONS, REPUTATION_SINCE
from p2pfed.store.sqlite_events import EventTable, change_format, verify
from p2pfed.store.sqlite_reading import HistoryReader
from p2pfed.store.state_dir import StateDir, disk_faults

P = ParamSpec("P")
T = TypeVar("T")
Reputed = tuple[dict[NodeId, PeerRecord], Scales | None]
"""`Restored.peers` and `.scales`."""

_CHECKPOINT = (
    "round, seq, statement_digest, vector, optimiser, aggregation, published, threshold, model, merged, decided, "
    "momentum, health, trained"
)


class SqliteStore:
    """A Store in `node.sqlite` of a state directory whose lock the caller holds."""

    def __init__(self, state: StateDir, retention: Retention = USUAL) -> None:
        """Open, check, migrate and count the start; blocks, so call it before the event loop serves anybody.

        Raises StateCorrupt, DiskFault, or StateLocked if another process writes to the file.
        """
        self._state = state
        self._retention = retention
        self._pardoned: tuple[NodeId, ...] = ()
        _require_database(state)
        with opening_faults(state.database):
            self._restored = self._open()
            self._reader = HistoryReader(state.database)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")

    def restore(self) -> Restored:
        """See Store."""
        return self._restored

    async def save(self, save: Save) -> None:
        """See Store."""
        await self._run(self._save, save)

    async def save_manifest(self, version: int, signed: bytes) -> None:
        """See Store."""
        await self._run(self._save_manifest, version, signed)

    async def append(self, events: Sequence[StoredEvent]) -> bool:
        """See Store."""
        return await self._run(self._append, events)

    async def events(self, since: int, limit: int) -> list[StoredEvent]:
        """See Store."""
        return await self._reader.events(since, limit)

    async def rounds(self, since: int, limit: int) -> list[StoredEvent]:
        """See Store."""
        return await self._reader.rounds(since, limit)

    async def verify_chain(self) -> int:
        """See Store."""
        return await self._run(verify, self._db, len(MIGRATIONS))

    def close(self) -> None:
        """See Store."""
        self._reader.close()
        self._thread.shutdown(wait=True)
        self._db.close()

    async def _run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do `work` in the one thread that uses the connection."""

        def guarded() -> T:
            with faults(self._state.database):
                return work(*args, **kwargs)

        loop = asyncio.get_running_loop()
        return await patiently(lambda: loop.run_in_executor(self._thread, guarded))

    # --- opening ------------------------------------------------------------------------------------------------------

    def _open(self) -> Restored:
        _make_private(self._state.database)
        self._db = sqlite3.connect(self._state.database, isolation_level=None, check_same_thread=False, timeout=5)
        try:
            self._prepare()
            self._events = EventTable(self._db, self._retention)
            return self._open_epoch()
        except BaseException:
            self._db.close()
            raise

    def _prepare(self) -> None:
        db = self._db
        db.execute("PRAGMA page_size = 16384")  # of a new file: a model of megabytes commits in half the time
        db.execute("PRAGMA cache_size = -512")  # KiB: rows are written once and rarely read again
        db.execute("PRAGMA temp_store = MEMORY")  # nothing is opened later on, when descriptors may be short
        db.execute("PRAGMA synchronous = FULL")  # a commit that returned survives a power cut
        version = _checked_version(db, self._state.database)
        db.execute("PRAGMA journal_mode = WAL")
        if 0 < version < len(MIGRATIONS):
            backup = self._state.database.with_name(f"node.v{version}.sqlite")
            backup.unlink(missing_ok=True)
            _make_private(backup)
            db.execute("VACUUM INTO ?", (str(backup),))
        if version < len(MIGRATIONS):
            self._migrate(version)

    def _migrate(self, version: int) -> None:
        """Make a file of schema `version` one of ours, all or nothing."""
        db = self._db
        db.create_function("content_hash", -1, lambda *content: _content_hash(content), deterministic=True)
        with self._transaction():
            if REPUTATION_SINCE <= version < CALENDAR_SINCE:
                self._pardoned = _pardon(db, self._state.database)
            for statement in itertools.chain(*MIGRATIONS[version:]):
                db.execute(statement)
            if version < HISTORY_SINCE <= len(MIGRATIONS):
                change_format(db, time.time())
            db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")

    def _open_epoch(self) -> Restored:
        db = self._db
        with self._transaction():
            db.execute(
                "INSERT OR IGNORE INTO node (one, instance, epoch, anchor, last_hash) VALUES (1, ?, 0, ?, ?)",
                (secrets.token_hex(16), FIRST_LINK, FIRST_LINK),
            )
            db.execute("UPDATE node SET epoch = epoch + 1")
            manifests = _manifests(db, self._state)
            db.execute("UPDATE node SET manifest = ?", (max(manifests, default=0),))
            instance, epoch = db.execute("SELECT instance, epoch FROM node").fetchone()
            marks = {NodeId(m): (seq, digest) for m, seq, digest in db.execute("SELECT member, seq, digest FROM marks")}
            frames = {NodeId(member): frame for member, frame in db.execute("SELECT member, frame FROM frames")}
            peers, scales = _reputation(db, self._state.database)
            return Restored(
                instance=instance,
                epoch=epoch,
                checkpoint=self._checkpoint(),
                marks=marks,
                frames=frames,
                peers=peers,
                scales=scales,
                proofs=_proofs(db, self._state.database),
                manifests=tuple(manifests.values()),
                last_event=self._events.end()[0],
                pardoned=self._pardoned,
            )

    def _checkpoint(self) -> Checkpoint | None:
        row = self._db.execute(f"SELECT {_CHECKPOINT}, sha256 FROM checkpoint").fetchone()
        if row is None:
            return None
        *content, stored = row
        if _content_hash(content) != stored:
            raise corrupt(self._state.database, "the checkpoint does not have the hash it was saved with")
        number, seq, digest, vector, *others = content
        return Checkpoint(number, seq, digest, np.frombuffer(vector, "<f4"), *others)

    # --- in the thread ------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # SQLite itself has rolled back after some disk errors
                self._db.execute("ROLLBACK")
            raise

    def _save(self, save: Save) -> None:
        peers = [(member, canonical(record)) for member, record in save.peers.items()]
        with self._transaction():
            if save.checkpoint is not None:
                self._write_checkpoint(save.checkpoint)
            self._db.executemany(
                "INSERT INTO marks VALUES (?, ?, ?) ON CONFLICT (member)"
                " DO UPDATE SET seq = excluded.seq, digest = excluded.digest WHERE excluded.seq > seq",
                [(member, seq, digest) for member, (seq, digest) in save.marks.items()],
            )
            self._db.executemany("INSERT OR REPLACE INTO frames VALUES (?, ?)", list(save.frames.items()))
            self._db.executemany(
                "INSERT OR REPLACE INTO reputation VALUES (?, ?, ?)",
                [(member, record, _content_hash((member, record))) for member, record in peers],
            )
            self._db.executemany(
                "INSERT INTO proofs VALUES (?, ?, ?, ?) ON CONFLICT (digest)"
                " DO UPDATE SET proof = excluded.proof, cleared = excluded.cleared, sha256 = excluded.sha256",
                [(d, k.proof, k.cleared, _content_hash((d, k.proof, k.cleared))) for d, k in save.proofs.items()],
            )
            if save.scales is not None:
                scales = canonical(save.scales)
                self._db.execute("INSERT OR REPLACE INTO scales VALUES (1, ?, ?)", (scales, _content_hash((scales,))))

    def _write_checkpoint(self, new: Checkpoint) -> None:
        before = self._db.execute("SELECT seq, statement_digest FROM checkpoint").fetchone()
        if before is not None:
            check_succession(before[0], before[1], new)
        vector = np.ascontiguousarray(new.vector, "<f4").tobytes()
        blobs = (vector, new.optimiser, new.aggregation, new.published)
        threshold = None if new.threshold is None else float(new.threshold)
        cycles = (new.merged, new.decided, new.momentum, new.health, new.trained)
        content = (new.round, new.seq, new.statement_digest, *blobs, threshold, new.model, *cycles)
        self._db.execute(
            f"INSERT OR REPLACE INTO checkpoint (one, {_CHECKPOINT}, sha256)"
            " VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*content, _content_hash(content)),
        )

    def _append(self, events: Sequence[StoredEvent]) -> bool:
        with self._transaction():
            return self._events.append(events)

    def _save_manifest(self, version: int, signed: bytes) -> None:
        self._state.save_manifest(version, signed)
        with self._transaction():  # once the file is there, for a start between the two would miss it
            self._db.execute("UPDATE node SET manifest = max(manifest, ?)", (version,))


def verify_history(state: StateDir) -> int:
    """How many events the stored history has, its hash chain verified; beside a running daemon, and without a write.

    Raises StateCorrupt naming the first bad event, or what makes the database one that no daemon would open.
    """
    with _read_only(state) as db:
        if db is None:
            return 0
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version >= HISTORY_SINCE:
            _manifests(db, state)
        return verify(db, version)


def read_reputation(state: StateDir) -> Reputed:
    """`Restored.peers` and `.scales` as they are stored now; beside a running daemon, and without a write.

    Raises StateCorrupt as `verify_history` does.
    """
    with _read_only(state) as db:
        return ({}, None) if db is None else _reputation(db, state.database)


@contextlib.contextmanager
def _read_only(state: StateDir) -> Iterator[sqlite3.Connection | None]:
    """One snapshot of the database, for a running daemon goes on writing; None if there is none yet."""
    _require_database(state)
    if not state.database.exists():
        yield None
        return
    with opening_faults(state.database):
        db = sqlite3.connect(f"{state.database.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
        with contextlib.closing(db):
            db.execute("BEGIN")
            yield db if _checked_version(db, state.database) else None


def _require_database(state: StateDir) -> None:
    if state.member_key.exists() and not (state.database.exists() and state.database.stat().st_size):
        raise StateCorrupt(
            f"{state.database} is missing or empty but {state.member_key} is there: without the last signed "
            f"sequence number this node could sign it twice. {WAY_OUT}"
        )


def _checked_version(db: sqlite3.Connection, path: Path) -> int:
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


def _manifests(db: sqlite3.Connection, state: StateDir) -> dict[int, bytes]:
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


def _proofs(db: sqlite3.Connection, path: Path) -> dict[str, KeptProof]:
    proofs = {}
    for *content, stored in db.execute("SELECT digest, proof, cleared, sha256 FROM proofs ORDER BY rowid"):
        if _content_hash(content) != stored:
            raise corrupt(path, f"the proof {content[0][:12]} does not have the hash it was saved with")
        digest, proof, cleared = content
        proofs[digest] = KeptProof(proof, cleared)
    return proofs


def _reputation(db: sqlite3.Connection, path: Path) -> Reputed:
    if db.execute("PRAGMA user_version").fetchone()[0] < REPUTATION_SINCE:
        return {}, None  # only looked at: who opens it migrates it
    peers = {}
    for member, record, stored in db.execute("SELECT member, record, sha256 FROM reputation ORDER BY member"):
        if _content_hash((member, record)) != stored:
            raise corrupt(path, f"what it remembers of member {member[:7]} does not have the hash it was saved with")
        peers[NodeId(member)] = _peer(record, path)
    row = db.execute("SELECT state, sha256 FROM scales").fetchone()
    if row is not None and _content_hash(row[:1]) != row[1]:
        raise corrupt(path, "the scales of reputation do not have the hash they were saved with")
    return peers, _remembered(Scales, load, row[0], path) if row else None


def _pardon(db: sqlite3.Connection, path: Path) -> tuple[NodeId, ...]:
    """Forget what speaks against members quarantined for their models; answers who they were."""
    peers, _ = _reputation(db, path)
    pardoned = tuple(m for m, record in peers.items() if record.standing == "quarantined" and not record.proven)
    blank = canonical(PeerRecord())
    rows = [(blank, _content_hash((member, blank)), member) for member in pardoned]
    db.executemany("UPDATE reputation SET record = ?, sha256 = ? WHERE member = ?", rows)
    return pardoned


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


def _make_private(path: Path) -> None:
    """Let the file begin as its owner's only; SQLite gives its companions the same mode."""
    with disk_faults(path):
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))


def _content_hash(content: Sequence[object]) -> bytes:
    whole = hashlib.sha256()
    for value in content:
        part = value if isinstance(value, bytes) else repr(value).encode()
        whole.update(len(part).to_bytes(8, "little") + part)
    return whole.digest()
