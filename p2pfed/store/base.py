"""What a node keeps over a crash: the Store protocol, and its in-memory implementation for tests and simulations."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from p2pfed.core.effects import Checkpoint, KeptProof, Save
from p2pfed.core.reputation.peer_record import PeerRecord, Scales
from p2pfed.core.types import NodeId
from p2pfed.errors import StateCorrupt
from p2pfed.store.history import (
    FIRST_LINK,
    ROUND_KINDS,
    USUAL,
    Linked,
    Looks,
    Retention,
    StoredEvent,
    aged,
    chained,
    check_chain,
)

Marks = dict[NodeId, tuple[int, str]]
"""Highest admitted (seq, statement digest) per member."""


@dataclass(frozen=True)
class Restored:
    """What the store held when it was opened."""

    instance: str
    """32 hex digits drawn when the state directory was made: a cloned directory gives itself away by it."""
    epoch: int
    """How often this state has been opened, this time included; durable before `open` returned."""
    checkpoint: Checkpoint | None
    marks: Marks
    frames: dict[NodeId, bytes]
    """Newest acknowledged pushed frame per member."""
    peers: dict[NodeId, PeerRecord]
    """Newest `Save.peers` per member: what the reputation knows of it."""
    scales: Scales | None
    """Newest `Save.scales`; None before the first."""
    proofs: dict[str, KeptProof]
    """Newest `Save.proofs` per digest, in the order in which they were first saved."""
    manifests: tuple[bytes, ...]
    """Signed manifests, lowest version first; the caller verifies them."""
    last_event: int
    """Id of the newest stored event; 0 is none."""
    pardoned: tuple[NodeId, ...] = ()
    """Members whose quarantine this opening has ended: an earlier version had put it upon them for their models."""


class Store(Protocol):
    """A node's durable state. Awaited writes are durable when they return; each is all or nothing.

    Writes raise DiskFault if the disk is full or refuses (the store stays usable and keeps what it had) and
    StateCorrupt if they contradict what is stored.
    """

    def restore(self) -> Restored:
        """The state as it was found at opening."""
        ...

    async def save(self, save: Save) -> None:
        """Commit a checkpoint, replay marks, pushed frames, reputation and proofs together.

        Raises StateCorrupt rather than let the own sequence number go back or stand for another statement.
        Marks only rise; a lower one is left out.
        """
        ...

    async def save_manifest(self, version: int, signed: bytes) -> None:
        """Keep a verified signed manifest."""
        ...

    async def append(self, events: Sequence[StoredEvent]) -> bool:
        """Add to the history, and let go of content that is older than is kept, by the time of the newest event.

        Returns whether some of the record had to go before its time because there was no room. Raises ValueError unless
        ids go on from the newest without a gap.
        """
        ...

    async def events(self, since: int, limit: int) -> list[StoredEvent]:
        """Up to `limit` events with id > `since`, oldest first; those whose content is no longer kept are left out."""
        ...

    async def rounds(self, since: int, limit: int) -> list[StoredEvent]:
        """The `ROUND_KINDS` events of up to `limit` rounds > `since`, ordered by round, then id."""
        ...

    async def verify_chain(self) -> int:
        """Recompute the hash chain; returns how many events have content. Raises StateCorrupt naming the first bad one.

        Also where the newest events are missing.
        """
        ...

    def close(self) -> None:
        """Finish what was asked for and let go; nothing may be called afterwards."""
        ...


def check_succession(seq: int, digest: str, new: Checkpoint) -> None:
    """Raise StateCorrupt if `new` takes back or contradicts the statement (seq, digest) that is already stored."""
    if new.seq < seq:
        raise StateCorrupt(f"refusing to save sequence number {new.seq} after {seq}: peers hold update {seq} already")
    if new.seq == seq and seq > 0 and new.statement_digest != digest:
        raise StateCorrupt(f"refusing to save a second statement with sequence number {seq}: peers would call it a lie")


@dataclass
class MemoryDisk:
    """What outlives a MemoryStore, as a disk outlives a daemon."""

    instance: str = field(default_factory=lambda: secrets.token_hex(16))
    epoch: int = 0
    checkpoint: Checkpoint | None = None
    marks: Marks = field(default_factory=dict)
    frames: dict[NodeId, bytes] = field(default_factory=dict)
    peers: dict[NodeId, PeerRecord] = field(default_factory=dict)
    scales: Scales | None = None
    proofs: dict[str, KeptProof] = field(default_factory=dict)
    manifests: dict[int, bytes] = field(default_factory=dict)
    events: list[Linked] = field(default_factory=list)
    aged: float | None = None
    """See `history.aged`."""


class MemoryStore:
    """A Store without a disk: many nodes in one process, and tests."""

    def __init__(
        self,
        disk: MemoryDisk | None = None,
        retention: Retention = USUAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """The size of what it keeps is not bounded; `clock` as of `Looks`."""
        self._disk = disk or MemoryDisk()
        self._retention, self._looks = retention, Looks(clock)
        self._disk.epoch += 1
        events = self._disk.events
        self._restored = Restored(
            instance=self._disk.instance,
            epoch=self._disk.epoch,
            checkpoint=self._disk.checkpoint,
            marks=dict(self._disk.marks),
            frames=dict(self._disk.frames),
            peers=dict(sorted(self._disk.peers.items())),
            scales=self._disk.scales,
            proofs=dict(self._disk.proofs),
            manifests=tuple(signed for _, signed in sorted(self._disk.manifests.items())),
            last_event=events[-1].id if events else 0,
        )

    def restore(self) -> Restored:
        """See Store."""
        return self._restored

    async def save(self, save: Save) -> None:
        """See Store."""
        disk = self._disk
        if save.checkpoint is not None:
            if disk.checkpoint is not None:
                check_succession(disk.checkpoint.seq, disk.checkpoint.statement_digest, save.checkpoint)
            disk.checkpoint = save.checkpoint
        disk.marks |= {m: mark for m, mark in save.marks.items() if mark[0] > disk.marks.get(m, (-1, ""))[0]}
        disk.frames |= save.frames
        disk.peers |= save.peers
        disk.scales = save.scales or disk.scales
        disk.proofs |= save.proofs

    async def save_manifest(self, version: int, signed: bytes) -> None:
        """See Store."""
        self._disk.manifests[version] = signed

    async def append(self, events: Sequence[StoredEvent]) -> bool:
        """See Store."""
        kept = self._disk.events
        last, previous = (kept[-1].id, kept[-1].hash) if kept else (0, FIRST_LINK)
        kept += chained(previous, last, events)
        if events and self._looks.due():
            now = self._disk.aged = aged(self._disk.aged, events[-1].time)
            kept[:] = [self._retention.thinned(row, now) for row in kept]
        return False

    async def events(self, since: int, limit: int) -> list[StoredEvent]:
        """See Store."""
        return [row.event for row in self._disk.events if row.id > since and row.event][:limit]

    async def rounds(self, since: int, limit: int) -> list[StoredEvent]:
        """See Store."""
        of_round: dict[int, list[StoredEvent]] = {}
        for event in await self.events(0, len(self._disk.events)):
            if event.kind in ROUND_KINDS and (number := _round(event)) > since:
                of_round.setdefault(number, []).append(event)
        return [e for number in sorted(of_round)[:limit] for e in of_round[number]]

    async def verify_chain(self) -> int:
        """See Store."""
        return check_chain(FIRST_LINK, self._disk.events)

    def close(self) -> None:
        """See Store."""


def _round(event: StoredEvent) -> int:
    fields: Mapping[str, int] = json.loads(event.json)
    return fields["round"]
