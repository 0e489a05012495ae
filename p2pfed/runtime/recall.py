"""What a restarted daemon begins with."""

from __future__ import annotations

from p2pfed.core import wire
from p2pfed.core.consortium import SignedManifest
from p2pfed.core.settings import Memory
from p2pfed.errors import RemoteFault
from p2pfed.store.base import Restored


def recall(restored: Restored, chain: list[SignedManifest]) -> Memory:
    """What the state directory remembers, as the node takes it; pushed frames that no longer verify are left out."""
    manifest = chain[-1].manifest
    previous = next((s.manifest for s in chain if s.manifest.version == manifest.version - 1), None)
    trust = wire.trust_of(manifest, previous)
    updates = []
    for frame in restored.frames.values():
        try:
            updates.append(wire.open_update(frame, trust))
        except RemoteFault:
            continue  # made under a manifest that is no longer accepted: its sender will publish a newer one
    return Memory(
        restored.epoch,
        restored.instance,
        restored.checkpoint,
        restored.marks,
        tuple(updates),
        restored.peers,
        restored.scales,
        restored.proofs,
    )
