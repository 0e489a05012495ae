"""A consortium of banks with real keys and certificates, and a handler that remembers what it was asked."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from p2pfed.core import wire
from p2pfed.core.consortium import GossipPolicy, Manifest, Member
from p2pfed.core.contract import FeatureColumn, FeatureContract, Moments
from p2pfed.core.identity import Identity
from p2pfed.core.messages import Heartbeat, Hello, ModelUpdate
from p2pfed.core.model import ModelSpec, TrainingPolicy
from p2pfed.core.types import Address, NodeId
from p2pfed.errors import LocalFault, RemoteFault
from p2pfed.net.client import HttpTransport
from p2pfed.net.listener import Listener
from p2pfed.net.places import Places
from p2pfed.net.tls import certificate_of, make_certificate, write_pem
from p2pfed.net.transport import Traffic

HELLO = b"GET /p2p/v1/hello HTTP/1.1\r\nHost: x\r\n\r\n"
LOOPBACK = Address("127.0.0.1", 0)


@dataclass
class Bank:
    """One member's keys and the handler that answers for it."""

    name: str
    identity: Identity
    pem: Path
    handler: RecordingHandler = field(init=False)
    traffic: Traffic = field(default_factory=Traffic)

    @property
    def id(self) -> NodeId:
        return self.identity.node_id

    def member(self) -> Member:
        certificate = base64.b64encode(certificate_of(self.pem)).decode()
        return Member(self.name, self.identity.public_key.hex(), (certificate,), ())

    def update(self, manifest: Manifest, seq: int, fill: float = 0.5) -> ModelUpdate:
        return wire.seal_update(
            self.identity,
            manifest=manifest,
            instance="ab" * 8,
            seq=seq,
            previous="",
            round=seq,
            rows=1000,
            vector=np.full(manifest.model.schema().size, fill, np.float32),
        )

    def heartbeat(self, manifest: Manifest, counter: int) -> bytes:
        row = Heartbeat(manifest.consortium, self.id, 1, counter, manifest.version, 0, (), False, 1, 1, "test")
        return wire.seal_heartbeat(self.identity, row).signed


@dataclass
class RecordingHandler:
    """Answers from what it was given, and keeps what it was sent."""

    me: Bank
    trusted: wire.Trust
    frames: dict[NodeId, ModelUpdate] = field(default_factory=dict)
    took: list[tuple[NodeId, bytes]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    faults: list[tuple[NodeId, RemoteFault]] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)
    manifests: dict[int, bytes] = field(default_factory=dict)
    busy: bool = False
    answer: bytes | None = None
    """Sent instead of any right answer to `update`."""

    def hello(self, asking: NodeId) -> Hello:
        self.asked.append("hello")
        m = self.trusted.manifest
        return Hello(m.consortium, self.me.id, 1, 1, m.version, m.model_digest, "test", 0)

    def update(self, asking: NodeId, member: NodeId, after: int) -> bytes | None:
        self.asked.append("update")
        if self.answer is not None:
            return self.answer
        held = self.frames.get(member)
        return held.frame if held is not None and held.statement.seq > after else None

    async def pushed(self, asking: NodeId, frame: bytes) -> None:
        if self.busy:
            raise LocalFault("the queue is full")
        wire.open_update(frame, self.trusted)
        self.took.append((asking, frame))

    async def heartbeats(self, asking: NodeId, table: bytes) -> bytes:
        self.asked.append("heartbeats")
        wire.decode_table(table, self.trusted, {})
        row = wire.open_heartbeat(self.me.heartbeat(self.trusted.manifest, 7), self.trusted)
        return wire.encode_table(wire.HeartbeatTable((row,)))

    def manifest(self, version: int) -> bytes | None:
        return self.manifests.get(version)

    def offended(self, peer: NodeId, fault: RemoteFault) -> None:
        self.faults.append((peer, fault))

    def refused(self, cause: str, host: str) -> None:
        self.refusals[cause] += 1

    def trust(self) -> wire.Trust:
        return self.trusted


def make_bank(directory: Path, name: str) -> Bank:
    pem = directory / f"{name}.pem"
    write_pem(pem, make_certificate(name))
    return Bank(name, Identity.generate(), pem)


def make_manifest(banks: list[Bank], hidden: tuple[int, ...] = (4,), version: int = 1) -> Manifest:
    model = ModelSpec("mlp", 3, hidden, 0.0)
    columns = tuple(FeatureColumn(f"v{i}", "numeric", (), "none") for i in range(3))
    return Manifest(
        consortium="c0" * 16,
        name="test",
        version=version,
        previous="" if version == 1 else "0" * 64,
        issued=0,
        expires=2**31,
        admins=(),
        threshold=1,
        members=tuple(bank.member() for bank in banks),
        model=model,
        generation=1,
        seed=1,
        initial_sha256=model.initial_weights(1).digest,
        contract=FeatureContract(columns, "fraud", "local", Moments((), ()), 10.0),
        training=TrainingPolicy(1, 1, 0.1, (), "none", 1.0),
        gossip=GossipPolicy("clip", 6, 1.0, 0.0, "float32", 60.0, 5),
    )


def make_consortium(directory: Path, count: int = 3, hidden: tuple[int, ...] = (4,)) -> list[Bank]:
    """`count` banks that trust each other; each handler holds its bank's own update of sequence 5."""
    banks = [make_bank(directory, f"bank-{i}") for i in range(count)]
    trust = wire.trust_of(make_manifest(banks, hidden))
    for bank in banks:
        bank.handler = RecordingHandler(bank, trust)
        bank.handler.frames[bank.id] = bank.update(trust.manifest, 5)
    return banks


async def serve(bank: Bank) -> tuple[Listener, Address]:
    listener = Listener(bank.handler, bank.pem, bank.traffic)
    return listener, await listener.start(LOOPBACK)


def transport_of(bank: Bank) -> HttpTransport:
    return HttpTransport(bank.pem, bank.handler.trusted, bank.traffic, places=Places([LOOPBACK]))


async def until(condition, seconds: float = 5.0) -> None:
    """Wait for `condition()` to hold; fails after `seconds`."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def ended(reader) -> None:
    """The other side closes, one way or another."""
    try:
        while await asyncio.wait_for(reader.read(4096), 5):
            pass
    except (ConnectionError, ssl.SSLError):
        pass
