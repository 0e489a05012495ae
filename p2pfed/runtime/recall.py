"""What a restarted daemon begins with."""

from __future__ import annotations

import numpy as np

from p2pfed.core import wire
from p2pfed.core.consortium import SignedManifest
from p2pfed.core.effects import KeptModel
from p2pfed.core.settings import Memory
from p2pfed.core.succession import InForce
from p2pfed.core.trust import trust_in
from p2pfed.errors import RemoteFault, StateCorrupt
from p2pfed.store.base import Restored
from p2pfed.store.faults import WAY_OUT


def recall(
    restored: Restored,
    chain: list[SignedManifest],
    champion: KeptModel | None = None,
    bests: tuple[KeptModel, ...] = (),
    force: InForce | None = None,
) -> Memory:
    """What the state directory remembers, as the node takes it; pushed frames that no longer verify are left out.

    `champion` and `bests` are as of Memory; `force` is what is in force, without it the newest of `chain`. Raises
    StateCorrupt if the weights of the checkpoint are not finite: whatever is merged into them is lost too.
    """
    if restored.checkpoint is not None and not np.isfinite(restored.checkpoint.vector).all():
        raise StateCorrupt(f"the weights of the checkpoint are not finite numbers. {WAY_OUT}")
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
