"""Heartbeats and endpoints for tests of the heartbeat table."""

from __future__ import annotations

import numpy as np

from p2pfed.core.messages import Endpoint, Heartbeat, SignedHeartbeat
from p2pfed.core.types import Address, NodeId, Roster

PERIOD = 10.0


def beat(
    member: NodeId, counter: int, epoch: int = 1, leaving: bool = False, endpoints: tuple[str, ...] = ()
) -> SignedHeartbeat:
    heartbeat = Heartbeat("c", member, epoch, counter, 1, 0, endpoints, leaving, 1, 1, "1.0")
    return SignedHeartbeat(heartbeat, f"{member}/{epoch}/{counter}/{leaving}".encode())


def endpoint(text: str, source: str) -> Endpoint:
    return Endpoint(Address.parse(text), source)  # type: ignore[arg-type]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def roster(*members: NodeId, **endpoints: str) -> Roster:
    """Members without endpoints in the manifest, and some with one."""
    places = {NodeId(m): (Address.parse(text),) for m, text in endpoints.items()}
    return Roster({m: () for m in members} | places)
