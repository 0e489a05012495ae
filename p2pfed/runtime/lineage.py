"""Where a model bundle comes from: what the daemon writes into it, and how people and the next start read it."""

from __future__ import annotations

import math
from typing import Any

from p2pfed.core.consortium import Manifest
from p2pfed.core.contract import Scaler
from p2pfed.core.effects import KeptModel
from p2pfed.core.fields import MAX_NUMBER
from p2pfed.core.types import NodeId
from p2pfed.errors import StateCorrupt
from p2pfed.learning.bundle import ModelBundle

HASH_SHOWN = 8
"""Hex digits of the weights' hash in a model's name."""


def lineage(model: KeptModel, manifest: Manifest, member: NodeId) -> dict[str, Any]:
    """The lineage of the bundle of `model`, kept by `member` under `manifest`."""
    return {
        "consortium": manifest.consortium,
        "manifest_version": manifest.version,
        "member": member,
        "model": manifest.model_digest,
        "cycle": model.cycle,
        "round": manifest.calendar.place(model.round)[1],
        "number": model.round,
        "threshold": model.threshold,
        "since": model.since,
        "sources": model.sources,
        "metrics": model.metrics,
    }


def bundle_of(model: KeptModel, scaler: Scaler, manifest: Manifest, member: NodeId) -> ModelBundle:
    """What `member` scores with from now on: `model`, kept under `manifest`."""
    return ModelBundle(
        spec=manifest.model,
        contract=manifest.contract,
        scaler=scaler,
        threshold=model.threshold,
        vector=model.vector,
        lineage=lineage(model, manifest, member),
    )


def place(bundle: ModelBundle) -> tuple[int | None, int | None]:
    """Cycle, and round of the cycle; None each in a bundle from before there was a calendar."""
    cycle, number = bundle.lineage.get("cycle"), bundle.lineage.get("round")
    return (cycle, number) if isinstance(cycle, int) and isinstance(number, int) else (None, None)


def name_of(bundle: ModelBundle) -> str:
    """`12.40-1a2b3c4d`: cycle, round and the beginning of the weights' hash; the hash alone without a cycle."""
    cycle, number = place(bundle)
    short = bundle.weights_sha256[:HASH_SHOWN]
    return short if cycle is None else f"{cycle}.{number}-{short}"


def kept(bundle: ModelBundle) -> KeptModel:
    """The model of a bundle as the node keeps it; raises StateCorrupt if it does not say of which round it is."""
    said = bundle.lineage
    try:
        number, cycle, since, metrics = int(said["number"]), int(said["cycle"]), float(said["since"]), said["metrics"]
        model, sources = str(said["model"]), int(said.get("sources", 0))
        if not (math.isfinite(since) and 0 <= number <= MAX_NUMBER and 0 <= cycle <= MAX_NUMBER):
            raise ValueError
    except (KeyError, TypeError, ValueError, OverflowError):
        raise StateCorrupt("it does not say of which round it is, and since when it serves") from None
    if not isinstance(metrics, dict) or not all(isinstance(of, dict) for of in metrics.values()):
        raise StateCorrupt("it has no metrics")
    return KeptModel(number, bundle.vector, bundle.threshold, metrics, since, cycle, model, sources)
