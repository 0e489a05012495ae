"""What a restarted daemon begins with."""

from __future__ import annotations

from p2pfed.core import wire
from p2pfed.core.consortium import SignedManifest
from p2pfed.core.effects import KeptModel
from p2pfed.core.settings import Memory
from p2pfed.core.succession import InForce
from p2pfed.core.trust import trust_in
from p2pfed.errors import RemoteFault
from p2pfed.store.base import Restored


def recall(
    restored: Restored,
    chain: list[SignedManifest],
    champion: KeptModel | None = None,
    bests: tuple[KeptModel, ...] = (),
    force: InForce | None = None,
) -> Memory:
    """What the state directory remembers, as the node takes it; pushed frames that no longer verify are left out.

    `champion` and `bests` are as of Memory; `force` is what is in force, without it the newest of `chain`.
    """
    newest = chain[-1].manifest
    previous = next((s.manifest for s in chain if s.manifest.version == newest.version - 1), None)
    trust = trust_in(force or InForce(newest), previous)
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
        champion,
        bests,
        restored.pardoned,
    )
