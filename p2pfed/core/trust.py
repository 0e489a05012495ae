"""What a node holds messages against."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from p2pfed.core.consortium import Manifest
from p2pfed.core.succession import Departed, InForce, governed
from p2pfed.core.types import NodeId
from p2pfed.core.weights import ModelSchema


@dataclass(frozen=True)
class Trust:
    """What a receiver holds messages against: the manifest in force and the versions whose updates still count."""

    manifest: Manifest
    accepted_versions: frozenset[int]
    departed: tuple[Departed, ...] = ()
    """Who may ask for the version that removed it, and for nothing else."""
    other_models: frozenset[str] = frozenset()
    """Digests of the models before and after a change, while it spreads: updates of them are ignored."""

    @cached_property
    def keys(self) -> dict[NodeId, bytes]:
        """Each member's public key."""
        return self.manifest.keys

    @cached_property
    def schema(self) -> ModelSchema:
        """The tensors of an update."""
        return self.manifest.model.schema()

    @cached_property
    def model_digest(self) -> str:
        """What an update must name as its model."""
        return self.manifest.model_digest


def trust_of(manifest: Manifest, previous: Manifest | None = None, others: Iterable[Manifest] = ()) -> Trust:
    """Trust in `manifest`, and in updates made under the one before as long as it trains the same model.

    What `others` train is ignored where it is another model.
    """
    versions = {manifest.version}
    if previous is not None and previous.model_digest == manifest.model_digest:
        versions.add(previous.version)
    digests = frozenset(other.model_digest for other in others) - {manifest.model_digest}
    return Trust(manifest, frozenset(versions), other_models=digests)


def trust_in(force: InForce, previous: Manifest | None = None) -> Trust:
    """Trust by what is in force; `previous` is the signed version before the newest."""
    if previous is not None and force.coming is not None:
        previous = governed(previous, force.manifest)  # who knows no more than that version trains what we do
    return trust_of(force.manifest, previous, [m for m in (force.coming, force.before) if m is not None])
