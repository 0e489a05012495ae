"""What a node keeps over a crash: the Store protocol, and its in-memory implementation for tests and simulations."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from p2pfed.core.effects import Checkpoint, KeptProof, Save
from p2pfed.core.reputation.peer_record import PeerRecord, Scales
from p2pfed.core.types import NodeId
from p2pfed.errors import StateCorrupt

Marks = dict[NodeId, tuple[int, str]]
"""Highest admitted (seq, statement digest) per member."""

KEEP_EVENTS = 100_000
"""History kept; older events are dropped in blocks."""
PRUNE_BLOCK = 1_000
ROUND_KINDS = ("round_completed", "model_evaluated")
"""Kinds of event whose JSON has a `round` and which `Store.rounds` returns."""

FIRST_LINK = hashlib.sha256(b"p2pfed/events/1\0").digest()
"""What the first event's hash names as the one before."""


@dataclass(frozen=True)
class StoredEvent:
    """One event of the history: `id` counts from 1 without gaps, `time` is Unix seconds, `json` an object."""

    id: int
    time: float
    kind: str
    json: str


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

    async def append(self, events: Sequence[StoredEvent]) -> None:
        """Add to the history; raises ValueError unless ids go on from the newest without a gap."""
        ...

    async def events(self, since: int, limit: int) -> list[StoredEvent]:
        """Up to `limit` events with id > `since`, oldest first."""
        ...

    async def rounds(self, since: int, limit: int) -> list[StoredEvent]:
        """The `ROUND_KINDS` events of up to `limit` rounds > `since`, ordered by round, then id."""
        ...

    async def verify_chain(self) -> int:
        """Recompute the hash chain; returns how many events it covers. Raises StateCorrupt naming the first bad one."""
        ...

    def close(self) -> None:
        """Finish what was asked for and let go; nothing may be called afterwards."""
        ...


def link(previous: bytes, event: StoredEvent) -> bytes:
    """The chained hash of `event`: SHA-256 over the hash before it and the event's content."""
    content = (
        f"{event.id}\n{float(event.time)!r}\n{event.kind}\n{event.json}"  # a kind is one word, so this reads one way
    )
    return hashlib.sha256(previous + content.encode()).digest()


def links(previous: bytes, last: int, events: Sequence[StoredEvent]) -> list[bytes]:
    """The chained hash of each of `events`, which must follow id `last` without a gap; raises ValueError."""
    hashes = []
    for event in events:
        last += 1
        if event.id != last:
            raise ValueError(f"event {event.id} does not follow event {last - 1}")
        previous = link(previous, event)
        hashes.append(previous)
    return hashes


def check_succession(seq: int, digest: str, new: Checkpoint) -> None:
    """Raise StateCorrupt if `new` takes back or contradicts the statement (seq, digest) that is already stored."""
    if new.seq < seq:
        raise StateCorrupt(f"refusing to save sequence number {new.seq} after {seq}: peers hold update {seq} already")
    if new.seq == seq and seq > 0 and new.statement_digest != digest:
        raise StateCorrupt(f"refusing to save a second statement with sequence number {seq}: peers would call it a lie")


def check_chain(anchor: bytes, rows: Iterable[tuple[StoredEvent, bytes]]) -> int:
    """Verify stored events and their hashes, oldest first, from the hash before them; returns how many there are."""
    before, count = None, 0
    for event, stored in rows:
        if before is not None and event.id != before + 1:
            raise _broken_from(event, f"event {before} is the one before it")
        anchor = link(anchor, event)
        if anchor != stored:
            raise _broken_from(event, "it, or what was before it, is not what was written")
        before, count = event.id, count + 1
    return count


def _broken_from(event: StoredEvent, why: str) -> StateCorrupt:
    return StateCorrupt(
        f"the event history is broken from event {event.id} ({event.kind}) on: {why}. "
        "Something other than p2pfed wrote there: keep a copy of the state directory, and compare it with a backup"
    )


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
    events: list[tuple[StoredEvent, bytes]] = field(default_factory=list)
    anchor: bytes = FIRST_LINK


class MemoryStore:
    """A Store without a disk: many nodes in one process, and tests."""

    def __init__(self, disk: MemoryDisk | None = None, keep_events: int = KEEP_EVENTS) -> None:
        self._disk = disk or MemoryDisk()
        self._keep = keep_events
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
            last_event=events[-1][0].id if events else 0,
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

    async def append(self, events: Sequence[StoredEvent]) -> None:
        """See Store."""
        kept = self._disk.events
        last, previous = (kept[-1][0].id, kept[-1][1]) if kept else (0, self._disk.anchor)
        kept += zip(events, links(previous, last, events), strict=True)
        if len(kept) > self._keep + PRUNE_BLOCK:
            cut = len(kept) - self._keep
            self._disk.anchor = kept[cut - 1][1]
            del kept[:cut]

    async def events(self, since: int, limit: int) -> list[StoredEvent]:
        """See Store."""
        return [e for e, _ in self._disk.events if e.id > since][:limit]

    async def rounds(self, since: int, limit: int) -> list[StoredEvent]:
        """See Store."""
        of_round: dict[int, list[StoredEvent]] = {}
        for event, _ in self._disk.events:
            if event.kind in ROUND_KINDS and (number := _round(event)) > since:
                of_round.setdefault(number, []).append(event)
        return [e for number in sorted(of_round)[:limit] for e in of_round[number]]

    async def verify_chain(self) -> int:
        """See Store."""
        return check_chain(self._disk.anchor, self._disk.events)

    def close(self) -> None:
        """See Store."""


def _round(event: StoredEvent) -> int:
    fields: Mapping[str, int] = json.loads(event.json)
    return fields["round"]
