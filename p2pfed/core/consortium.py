"""The consortium manifest: who is a member, what is trained, who may change that."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import NamedTuple

from p2pfed.core import record
from p2pfed.core.contract import FeatureContract
from p2pfed.core.gossip.calendar import FREE, Calendar
from p2pfed.core.identity import MANIFEST_DOMAIN, Signer, fingerprint, node_id, verify
from p2pfed.core.model import ModelSpec, TrainingPolicy
from p2pfed.core.payload import Encoding
from p2pfed.core.sampling import Graph, graph_of
from p2pfed.core.types import Address, NodeId, Roster
from p2pfed.core.weights import Weights
from p2pfed.errors import ConfigError

MAX_MANIFEST = 2 * 1024 * 1024
"""A signed manifest file, in bytes."""
MANIFEST_GROWTH = 256 * 1024
"""Bytes by which a version may be longer than twice the one before: some three hundred new members."""
MAX_MEMBERS = 20_000
MAX_PARAMETERS = 20_000_000

POWERS = tuple(2.0**power for power in range(-20, 21))
"""What `Member.legitimate_per_fraud` may be: coarse, to tell little of a bank, and fine enough to know what its models
may be like."""
ROW_POWERS = tuple(1 << power for power in range(41))
"""What `Member.training_rows` may be."""


@dataclass(frozen=True)
class Member:
    """One bank: its name, identity key, one or two TLS certificates and where it usually answers."""

    name: str
    key: str
    """Ed25519 public key, hex."""
    certificates: tuple[str, ...]
    """DER, base64; two while one is being replaced."""
    endpoints: tuple[str, ...]
    """`host:port`; empty for a bank that can only dial out."""
    legitimate_per_fraud: float | None = record.added()
    """Legitimate payments for each fraud, to a power of two, as its join request told; None where it did not."""
    training_rows: int | None = record.added()
    """Its training rows, by the power of two at or below, as its join request told; None where it did not."""
    requested: int | None = record.added()
    """When the newest join request was made of which this entry is, Unix seconds; None where that did not tell."""


class Declared(NamedTuple):
    """What a member's join request told of its training rows: see `Member`."""

    legitimate_per_fraud: float | None = None
    training_rows: int | None = None


@dataclass(frozen=True)
class Admin:
    """Somebody whose signature counts towards the threshold."""

    name: str
    key: str


@dataclass(frozen=True)
class GossipPolicy:
    """How members exchange and merge; the same for all, so that they are comparable."""

    rule: str
    """A name from the aggregation registry, or `name:parameter`."""
    fanout: int
    """Members pulled from in a round; min(fanout, n-1)."""
    heartbeat_seconds: float
    round_interval_seconds: float
    """A round starts no earlier than this after the one before; 0 is as fast as training goes."""
    encoding: Encoding
    adoption_seconds: float
    """How long a node without checkpoint waits to meet members it could adopt a model from."""
    publish_min_frauds: int
    """A member with fewer training frauds listens: trains, merges and scores, but publishes nothing."""
    topology: str = "random"
    """Who may pull from whom: `random` or `full` (all), `ring`, `regular:K` drawn from the manifest's seed, `edges`."""
    edges: tuple[tuple[str, str], ...] = ()
    """With topology `edges` the names of each two neighbours; empty with all others."""
    reputation: bool = True
    """Whether members judge each other's models and quarantine; without, the merge rule is alone."""


@dataclass(frozen=True)
class Manifest:
    """Everything the members agreed on."""

    consortium: str
    """16 random bytes, hex; fixed for ever."""
    name: str
    version: int
    previous: str
    """SHA-256 (hex) of the body bytes of version - 1; empty for version 1."""
    issued: int
    """Unix seconds."""
    expires: int
    """Unix seconds; afterwards a problem is raised and work goes on."""
    admins: tuple[Admin, ...]
    threshold: int
    members: tuple[Member, ...]
    model: ModelSpec
    generation: int
    """Raised when training starts anew from initial weights."""
    seed: int
    initial_sha256: str
    """Digest of `model.initial_weights(seed)`; a node whose own differs refuses to start."""
    contract: FeatureContract
    training: TrainingPolicy
    gossip: GossipPolicy
    calendar: Calendar = FREE
    """When members train."""
    from_cycle: int = 0
    """The cycle from which model, contract, training, merge rule and calendar of this version hold."""
    generation_cycle: int = 0
    """The cycle in which this generation of the model began: its learning rate counts from there."""

    # What follows from the fields is worked out once, for all nodes of a process that follow this manifest.

    @cached_property
    def by_id(self) -> dict[NodeId, Member]:
        """The members under their ids, in order of these."""
        return dict(sorted((node_id(bytes.fromhex(m.key)), m) for m in self.members))

    @cached_property
    def roster(self) -> Roster:
        """The members' ids and where they can be dialled."""
        places = {node: map(Address.parse, m.endpoints) for node, m in self.by_id.items()}
        return Roster({node: tuple(a for a in addresses if a.dialable) for node, addresses in places.items()})

    @cached_property
    def keys(self) -> dict[NodeId, bytes]:
        """Each member's public key."""
        return {node: bytes.fromhex(m.key) for node, m in self.by_id.items()}

    @cached_property
    def declared(self) -> dict[NodeId, Declared]:
        """What each member told of its training rows."""
        return {node: Declared(m.legitimate_per_fraud, m.training_rows) for node, m in self.by_id.items()}

    @cached_property
    def longest_successor(self) -> int:
        """Bytes of the next version that are taken from a member: more than any that admins make in one step."""
        return min(MAX_MANIFEST, 2 * len(record.readable(self)) + MANIFEST_GROWTH)

    @cached_property
    def graph(self) -> Graph | None:
        """Who may pull from whom; None where all may pull from all. Raises ConfigError on an impossible topology."""
        named = {m.name: node for node, m in self.by_id.items()}
        edges = [(named[a], named[b]) for a, b in self.gossip.edges]
        return graph_of(self.gossip.topology, self.roster.ids, self.seed, edges)

    @cached_property
    def initial(self) -> Weights:
        """What everybody's training begins with."""
        return self.model.initial_weights(self.seed)

    @cached_property
    def model_digest(self) -> str:
        """What updates must name to be averaged: SHA-256 (hex) of schema digest, generation and initial weights."""
        text = f"{self.model.schema().digest}/{self.generation}/{self.initial_sha256}"
        return hashlib.sha256(b"p2pfed/model/1\0" + text.encode()).hexdigest()


@dataclass(frozen=True)
class Signature:
    """An admin's Ed25519 signature (hex) over MANIFEST_DOMAIN and the manifest's body bytes."""

    admin: str
    """The admin's public key, hex: a name may change hands from one version to the next."""
    signature: str


class ManifestError(ConfigError, ValueError):
    """A manifest or join request that must not be trusted; `problems` says why, one line each."""


@dataclass(frozen=True)
class SignedManifest:
    """A manifest, the bytes its signatures cover, and the signatures collected so far."""

    manifest: Manifest
    body: bytes
    """`body_bytes(manifest)`."""
    signatures: tuple[Signature, ...]

    @classmethod
    def unsigned(cls, manifest: Manifest) -> SignedManifest:
        """A draft that nobody has signed; raises ManifestError if a field has the wrong type."""
        return cls(manifest, body_bytes(manifest), ())

    @cached_property
    def sha256(self) -> str:
        """SHA-256 (hex) of the body: what the next version names as `previous`."""
        return hashlib.sha256(self.body).hexdigest()

    @cached_property
    def fingerprint(self) -> str:
        """The body's fingerprint, to be read over the phone before first trust."""
        return fingerprint(self.body)

    def sign(self, signer: Signer) -> SignedManifest:
        """With `signer`'s signature added, or put in the place of its older one."""
        key = signer.public_key.hex()
        signature = Signature(key, signer.sign(MANIFEST_DOMAIN + self.body).hex())
        others = tuple(s for s in self.signatures if s.admin != key)
        return SignedManifest(self.manifest, self.body, (*others, signature))

    def signed_by(self, admins: Iterable[Admin]) -> tuple[Admin, ...]:
        """Those of `admins` whose key made one of the signatures."""
        made = {s.admin: s.signature for s in self.signatures}
        return tuple(a for a in admins if a.key in made and self._valid(a.key, made[a.key]))

    def _valid(self, key: str, signature: str) -> bool:
        try:
            return verify(bytes.fromhex(key), MANIFEST_DOMAIN + self.body, bytes.fromhex(signature))
        except ValueError:  # not hex: no signature at all
            return False

    @cached_property
    def file(self) -> bytes:
        """The file: JSON, indented, because people read what they sign."""
        return record.readable({"body": self.manifest, "signatures": self.signatures})

    def to_bytes(self) -> bytes:
        """See `file`."""
        return self.file


@dataclass(frozen=True)
class _ManifestFile:
    body: Manifest
    signatures: tuple[Signature, ...]


def body_bytes(manifest: Manifest) -> bytes:
    """The one canonical form of a manifest, which is hashed and signed; raises ManifestError on a wrong type."""
    try:
        # once through the parser, so that a 1 given for 1.0 does not sign differently from what is read back
        return record.canonical(record.build(Manifest, record.plain(manifest)))
    except record.RecordError as error:
        raise ManifestError(str(error)) from None


def parse_signed(data: bytes) -> SignedManifest:
    """Read a manifest file, whatever its spaces and order of keys; trusts nothing yet. Raises ManifestError."""
    if len(data) > MAX_MANIFEST:
        raise ManifestError(f"a manifest of {len(data)} bytes: the limit is {MAX_MANIFEST}")
    try:
        file = record.parse(_ManifestFile, data)
    except record.RecordError as error:
        raise ManifestError(f"this is not a manifest: {error}") from None
    return SignedManifest(file.body, record.canonical(file.body), file.signatures)


def usual_rate(rates: Iterable[float | None]) -> float | None:
    """The geometric median of those of `Member.legitimate_per_fraud` that are known; None if none is."""
    known = [math.log2(rate) for rate in rates if rate is not None]
    return 2.0 ** median(known) if known else None
