"""A small consortium made from fixed seeds, for tests: the same keys, ids and bytes on every run."""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from typing import Any

from p2pfed.core.consortium import Admin, GossipPolicy, Manifest, Member, SignedManifest
from p2pfed.core.contract import FeatureColumn, FeatureContract, Moments
from p2pfed.core.identity import Identity
from p2pfed.core.model import ModelSpec, TrainingPolicy

GOSSIP = GossipPolicy(
    rule="clip",
    fanout=6,
    heartbeat_seconds=1.0,
    round_interval_seconds=0.0,
    encoding="float32",
    adoption_seconds=60.0,
    publish_min_frauds=5,
)
TRAINING = TrainingPolicy(
    local_steps=10, batch=32, learning_rate=0.001, decay_rounds=(), imbalance="class_weight", positive_weight_cap=10.0
)


@dataclass(frozen=True)
class Consortium:
    """A manifest and the keys of everybody in it."""

    manifest: Manifest
    members: tuple[Identity, ...]
    admins: tuple[Identity, ...]

    def signed(self, *admins: int) -> SignedManifest:
        """The manifest, signed by the admins of these numbers."""
        return sign(self.manifest, *(self.admins[i] for i in admins))


def sign(manifest: Manifest, *admins: Identity) -> SignedManifest:
    """`manifest` with the signatures of `admins`."""
    signed = SignedManifest.unsigned(manifest)
    for admin in admins:
        signed = signed.sign(admin)
    return signed


def member(name: str, identity: Identity) -> Member:
    """A manifest entry whose certificate only looks like one."""
    certificate = base64.b64encode(b"\x30\x20" + identity.public_key).decode()
    return Member(name, identity.public_key.hex(), (certificate,), (f"{name}.example:7443",))


def consortium(members: int = 3, hidden: tuple[int, ...] = (4,), inputs: int = 3, **changes: Any) -> Consortium:
    """`members` banks and three admins, two of whom must sign; `changes` replace manifest fields."""
    banks = tuple(Identity.from_seed(i.to_bytes(32, "big")) for i in range(1, members + 1))
    admins = tuple(Identity.from_seed(bytes([200 + i]) * 32) for i in range(3))
    model = ModelSpec("mlp", inputs, hidden, 0.0)
    columns = tuple(FeatureColumn(f"v{i}", "numeric", (), "none") for i in range(inputs))
    manifest = Manifest(
        consortium="c0" * 16,
        name="pilot",
        version=1,
        previous="",
        issued=1_700_000_000,
        expires=1_900_000_000,
        admins=tuple(Admin(f"admin-{i}", a.public_key.hex()) for i, a in enumerate(admins)),
        threshold=2,
        members=tuple(member(f"bank-{i}", identity) for i, identity in enumerate(banks)),
        model=model,
        generation=1,
        seed=7,
        initial_sha256=model.initial_weights(7).digest,
        contract=FeatureContract(columns, "fraud", "local", Moments((), ()), 5.0),
        training=TRAINING,
        gossip=GOSSIP,
    )
    return Consortium(replace(manifest, **changes), banks, admins)


def next_version(manifest: Manifest, **changes: Any) -> Manifest:
    """The version after `manifest`, with `changes`."""
    previous = SignedManifest.unsigned(manifest).sha256
    return replace(manifest, **{"version": manifest.version + 1, "previous": previous, **changes})
