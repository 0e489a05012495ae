"""The store of a real daemon: one SQLite file, written by one thread, durable at every commit."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np

from p2pfed.core.effects import Checkpoint, Save
from p2pfed.core.record import canonical
from p2pfed.core.reputation.peer_record import PeerRecord
from p2pfed.core.types import DAY, NodeId
from p2pfed.errors import StateLocked
from p2pfed.store import contents
from p2pfed.store.base import Restored, check_succession
from p2pfed.store.contents import content_hash
from p2pfed.store.descriptors import patiently
from p2pfed.store.faults import corrupt, faults, opening_faults
from p2pfed.store.history import FIRST_LINK, USUAL, Retention, StoredEvent
from p2pfed.store.schema import CALENDAR_SINCE, HISTORY_SINCE, MIGRATIONS, REPUTATION_SINCE
from p2pfed.store.sqlite_events import EventTable, change_format, verify
from p2pfed.store.sqlite_reading import HistoryReader
from p2pfed.store.state_dir import StateDir, disk_faults

P = ParamSpec("P")
T = TypeVar("T")

_CHECKPOINT = (
    "round, seq, statement_digest, vector, optimiser, aggregation, published, threshold, model, merged, decided, "
    "momentum, health, trained"
)

LOCKED_SECONDS = 300.0
"""How long another process may keep the file locked before the node gives up."""
TRY_SECONDS = 1.0
"""How long one attempt waits for the lock: reading goes on between two."""


class SqliteStore:
    """A Store in `node.sqlite` of a state directory whose lock the caller holds."""

    def __init__(
        self, state: StateDir, retention: Retention = USUAL, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Open, check, migrate and count the start; blocks, so call it before the event loop serves anybody.

        `clock` is one that never falls.

        Raises StateCorrupt, DiskFault, or StateLocked if another process writes to the file.
        """
        self._state = state
        self._retention, self._clock = retention, clock
        self._pardoned: tuple[NodeId, ...] = ()
        self.on_locked: Callable[[bool], None] = lambda locked: None
        """Told when another process keeps the file locked, and when that is over; what was asked for waits."""
        self._waiting = 0
        contents.require_database(state)
        with opening_faults(state.database):
            self._restored = self._open()
            self._reader = HistoryReader(state.database)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")

    def following(self, version: int) -> None:
        """This version of the manifest was found here and verified: no older one is followed from now on. Blocks."""
        with opening_faults(self._state.database):
            self._follow(version)

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
        """Do `work`, all or nothing, in the one thread that uses the connection; again while another process writes."""

        def guarded() -> T:
            with faults(self._state.database):
                return work(*args, **kwargs)

        loop = asyncio.get_running_loop()
        deadline, waits = loop.time() + LOCKED_SECONDS, 0
        try:
            while True:
                try:
                    return await patiently(lambda: loop.run_in_executor(self._thread, guarded))
                except StateLocked:
                    if loop.time() > deadline:
                        raise
                    self._wait(1 - waits)
                    waits = 1
                    await asyncio.sleep(TRY_SECONDS / 10)
        finally:
            self._wait(-waits)

    def _wait(self, more: int) -> None:
        """So many more of those that asked for something wait for the lock."""
        before, self._waiting = self._waiting, self._waiting + more
        if (before > 0) != (self._waiting > 0):
            self.on_locked(self._waiting > 0)

    # --- opening ------------------------------------------------------------------------------------------------------

    def _open(self) -> Restored:
        _make_private(self._state.database)
        self._db = sqlite3.connect(self._state.database, isolation_level=None, check_same_thread=False, timeout=5)
        try:
            self._prepare()
            self._events = EventTable(self._db, self._retention, self._clock)
            restored = self._open_epoch()
            self._db.execute(f"PRAGMA busy_timeout = {round(1000 * TRY_SECONDS)}")
            return restored
        except BaseException:
            self._db.close()
            raise

    def _prepare(self) -> None:
        db = self._db
        db.execute("PRAGMA page_size = 16384")  # of a new file: a model of megabytes commits in half the time
        db.execute("PRAGMA cache_size = -512")  # KiB: rows are written once and rarely read again
        db.execute("PRAGMA temp_store = MEMORY")  # nothing is opened later on, when descriptors may be short
        db.execute("PRAGMA secure_delete = ON")  # content that goes leaves nothing in the file
        db.execute("PRAGMA synchronous = FULL")  # a commit that returned survives a power cut
        version = contents.checked_version(db, self._state.database)
        db.execute("PRAGMA journal_mode = WAL")
        if 0 < version < len(MIGRATIONS):
            backup = self._state.database.with_name(f"node.v{version}.sqlite")
            backup.unlink(missing_ok=True)
            _make_private(backup)
            db.execute("VACUUM INTO ?", (str(backup),))
        if version < len(MIGRATIONS):
            self._migrate(version)
        for old in self._state.root.glob("node.v*.sqlite"):  # it would keep for ever what goes from the history
            if time.time() - old.stat().st_mtime > DAY * self._retention.record_days:
                old.unlink()

    def _migrate(self, version: int) -> None:
        """Make a file of schema `version` one of ours, all or nothing."""
        db = self._db
        db.create_function("content_hash", -1, lambda *content: content_hash(content), deterministic=True)
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
            manifests = contents.manifests(db, self._state)
            instance, epoch = db.execute("SELECT instance, epoch FROM node").fetchone()
            marks = {NodeId(m): (seq, digest) for m, seq, digest in db.execute("SELECT member, seq, digest FROM marks")}
            frames = {NodeId(member): frame for member, frame in db.execute("SELECT member, frame FROM frames")}
            peers, scales = contents.reputation(db, self._state.database)
            return Restored(
                instance=instance,
                epoch=epoch,
                checkpoint=self._checkpoint(),
                marks=marks,
                frames=frames,
                peers=peers,
                scales=scales,
                proofs=contents.proofs(db, self._state.database),
                manifests=tuple(manifests.values()),
                last_event=self._events.end()[0],
                pardoned=self._pardoned,
            )

    def _checkpoint(self) -> Checkpoint | None:
        row = self._db.execute(f"SELECT {_CHECKPOINT}, sha256 FROM checkpoint").fetchone()
        if row is None:
            return None
        *content, stored = row
        if content_hash(content) != stored:
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
                [(member, record, content_hash((member, record))) for member, record in peers],
            )
            self._db.executemany(
                "INSERT INTO proofs VALUES (?, ?, ?, ?) ON CONFLICT (digest)"
                " DO UPDATE SET proof = excluded.proof, cleared = excluded.cleared, sha256 = excluded.sha256",
                [(d, k.proof, k.cleared, content_hash((d, k.proof, k.cleared))) for d, k in save.proofs.items()],
            )
            if save.scales is not None:
                scales = canonical(save.scales)
                self._db.execute("INSERT OR REPLACE INTO scales VALUES (1, ?, ?)", (scales, content_hash((scales,))))

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
            (*content, content_hash(content)),
        )

    def _append(self, events: Sequence[StoredEvent]) -> bool:
        with self._transaction():
            return self._events.append(events)

    def _save_manifest(self, version: int, signed: bytes) -> None:
        self._state.save_manifest(version, signed)
        self._follow(version)  # once the file is there, for a start between the two would miss it

    def _follow(self, version: int) -> None:
        with self._transaction():
            self._db.execute("UPDATE node SET manifest = max(manifest, ?)", (version,))


def _pardon(db: sqlite3.Connection, path: Path) -> tuple[NodeId, ...]:
    """Forget what speaks against members quarantined for their models; answers who they were."""
    peers, _ = contents.reputation(db, path)
    pardoned = tuple(m for m, record in peers.items() if record.standing == "quarantined" and not record.proven)
    blank = canonical(PeerRecord())
    rows = [(blank, content_hash((member, blank)), member) for member in pardoned]
    db.executemany("UPDATE reputation SET record = ?, sha256 = ? WHERE member = ?", rows)
    return pardoned


def _make_private(path: Path) -> None:
    """Let the file begin as its owner's only; SQLite gives its companions the same mode."""
    with disk_faults(path):
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
