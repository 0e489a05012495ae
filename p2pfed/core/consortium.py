"""The consortium manifest: who is a member, what is trained, who may change that; and how trust in it passes on.

A manifest of version N+1 counts only if the admins of version N *and* its own admins sign it in threshold number
(the root rule of The Update Framework). Versions never go down.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

from p2pfed.core.contract import FeatureContract, Moments
from p2pfed.core.model import ModelSpec, TrainingPolicy
from p2pfed.core.types import NodeId


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


@dataclass(frozen=True)
class Admin:
    """Somebody whose signature counts towards the threshold."""

    name: str
    key: str


@dataclass(frozen=True)
class GossipPolicy:
    """How members exchange and merge; the same for all, so that they are comparable."""

    rule: str
    """A name from the aggregation registry, or `module:Class`."""
    fanout: int
    """Members pulled from in a round; min(fanout, n-1)."""
    heartbeat_seconds: float
    round_interval_seconds: float
    """A round starts no earlier than this after the one before; 0 is as fast as training goes."""
    encoding: Literal["float32", "float16", "int8"]
    adoption_seconds: float
    """How long a node without checkpoint waits to meet members it could adopt a model from."""
    publish_min_frauds: int
    """A member with fewer training frauds listens: trains, merges and scores, but publishes nothing."""
    topology: str = "random"
    """Who may pull from whom: `random` (all), `full`, `ring` or `regular:K`, drawn from the manifest's seed."""


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

    @property
    def model_digest(self) -> str:
        """What updates must name to be averaged: SHA-256 (hex) of schema digest, generation and initial weights."""
        text = f"{self.model.schema().digest}/{self.generation}/{self.initial_sha256}"
        return hashlib.sha256(b"p2pfed/model/1\0" + text.encode()).hexdigest()


@dataclass(frozen=True)
class JoinRequest:
    """What a bank's `init` writes and mails to an admin; signed by the member key it carries."""

    name: str
    key: str
    certificate: str
    endpoints: tuple[str, ...]
    moments: Moments | None
    """The bank's own feature moments, once it has told `init` its data and the proposed contract."""


@dataclass(frozen=True)
class Signature:
    """An admin's Ed25519 signature (hex) over the manifest's body bytes."""

    admin: str
    signature: str


def members_by_id(manifest: Manifest) -> dict[NodeId, Member]:
    """The members under their ids."""
    from p2pfed.core.identity import node_id

    return {node_id(bytes.fromhex(m.key)): m for m in manifest.members}
