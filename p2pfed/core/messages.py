"""What members say to each other: model updates, heartbeats, hellos."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from p2pfed.core.payload import Encoding
from p2pfed.core.types import Address, NodeId
from p2pfed.core.weights import Vector

PROTOCOL_MIN = 1
PROTOCOL_MAX = 1


@dataclass(frozen=True)
class Statement:
    """The signed, recipient-independent header of a model update; any member may relay it with its payload."""

    consortium: str
    manifest_version: int
    model: str
    """`Manifest.model_digest`: schema, generation and initial weights."""
    sender: NodeId
    instance: str
    """Random hex of the sender's state directory: two live instances of one key are a cloned machine."""
    seq: int
    """Rises by one with each update of this sender, for ever; never reused with another hash."""
    previous: str
    """SHA-256 (hex) of the sender's statement before this one; empty for the first."""
    round: int
    """The round of `cycle`, from 1; of free-running nodes the local rounds behind these weights. Only `seq` orders
    statements: cycle and round may go down with a clock that was wrong."""
    rows: int
    """Training rows before resampling, rounded to a power of two."""
    encoding: Encoding
    payload_length: int
    payload_sha256: str
    cycle: int = 0
    """The calendar's cycle in which these weights were trained; 0 of free-running nodes."""


@dataclass(frozen=True, slots=True)
class SignedStatement:
    """A statement without its payload, as anybody may show it: what its sender is held to."""

    statement: Statement
    signed: bytes
    """The signature (64 bytes), then the statement's canonical JSON, which it covers."""
    digest: str
    """SHA-256 (hex) of that JSON, as `ModelUpdate.digest`."""


@dataclass(frozen=True)
class Equivocation:
    """Two statements of one member with one sequence number that differ: see `core.evidence`."""

    one: SignedStatement
    other: SignedStatement
    """The one with the higher digest."""

    @property
    def member(self) -> NodeId:
        """Who signed both."""
        return self.one.statement.sender

    @property
    def seq(self) -> int:
        """The sequence number of both."""
        return self.one.statement.seq

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of both statements' digests in order: the proof's name, whoever put it together."""
        return hashlib.sha256(f"{self.one.digest}{self.other.digest}".encode()).hexdigest()


@dataclass(frozen=True)
class ModelUpdate:
    """A verified statement, its decoded weights float32 [schema.size], and the exact bytes to relay."""

    statement: Statement
    vector: Vector
    frame: bytes
    digest: str
    """SHA-256 (hex) of the statement bytes as received: what the next statement's `previous` names."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ModelUpdate) and self.frame == other.frame

    def __hash__(self) -> int:
        return hash(self.digest)

    @cached_property
    def head(self) -> SignedStatement:
        """The statement and its signature, cut out of the frame (laid out as `core.wire` says)."""
        end = 8 + int.from_bytes(self.frame[4:8], "little")
        return SignedStatement(self.statement, self.frame[end : end + 64] + self.frame[8:end], self.digest)

    @cached_property
    def finite(self) -> bool:
        """Whether every weight is a finite number."""
        return bool(np.isfinite(self.vector).all())


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """One member's signed row of the heartbeat table; the highest (epoch, counter) wins."""

    consortium: str
    member: NodeId
    epoch: int
    """How often the member's daemon has started: persisted, so a restart outbids its own past."""
    counter: int
    manifest_version: int
    seq: int
    """The newest update the member has published; 0 is none."""
    endpoints: tuple[str, ...]
    """Where the member can be dialled now (its signed endpoint record); empty if it can only dial out."""
    leaving: bool
    protocol_min: int
    protocol_max: int
    software: str
    cycle: int = 0
    round: int = 0
    """Cycle and round of the newest update, as its statement names them; 0 and 0 are none."""


@dataclass(frozen=True, slots=True)
class SignedHeartbeat:
    """A heartbeat, and its bytes with the signature in front (64 bytes), as they are relayed."""

    heartbeat: Heartbeat
    signed: bytes


@dataclass(frozen=True)
class HeartbeatTable:
    """What one member tells another: what it holds of it, the rows that it knows, and what it witnessed."""

    rows: tuple[SignedHeartbeat, ...]
    """Its own among them: whole up to 200 members, a random 200 above."""
    heads: tuple[SignedStatement, ...] = ()
    """The newest statement that it was given of some members, one of each."""
    proofs: tuple[Equivocation, ...] = ()
    your_newest_seq: int = 0
    """As in a Hello."""


@dataclass(frozen=True)
class Hello:
    """First words on a connection: may we talk, and in which version."""

    consortium: str
    member: NodeId
    protocol_min: int
    protocol_max: int
    manifest_version: int
    model: str
    software: str
    your_newest_seq: int
    """The newest update of the asking member that the answering one holds: a restored backup learns what it forgot."""
    wall: float = 0.0
    """What the answering member's clock shows, Unix seconds."""


@dataclass(frozen=True)
class Endpoint:
    """A place where a member may answer, and who told us: neither itself nor the manifest."""

    address: Address
    source: Literal["config", "zeroconf"]
