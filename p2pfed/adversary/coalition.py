"""What colluding attackers know together."""

from __future__ import annotations

from p2pfed.core.messages import ModelUpdate
from p2pfed.core.types import NodeId
from p2pfed.core.weights import Vector

MOST = 64
"""So many honest models are reckoned with, those heard last: more change no mean or deviation."""


class Coalition:
    """Attackers that tell each other everything at once; one alone is a coalition as well."""

    def __init__(self) -> None:
        self.members: set[NodeId] = set()
        self._trained: dict[NodeId, Vector] = {}
        self._heard: dict[NodeId, tuple[int, Vector]] = {}  # in order of arrival

    def trained(self, member: NodeId, vector: Vector) -> None:
        """`member` tells the others its model, before it is poisoned."""
        self._trained[member] = vector

    def heard(self, update: ModelUpdate) -> None:
        """One of them has received an update; only the newest of each sender is kept."""
        sender, seq = update.statement.sender, update.statement.seq
        if self._heard.get(sender, (0,))[0] < seq:
            self._heard.pop(sender, None)
            self._heard[sender] = seq, update.vector

    def model(self, member: NodeId) -> Vector | None:
        """The newest model of somebody outside."""
        return None if member in self.members or member not in self._heard else self._heard[member][1]

    def honest(self) -> dict[NodeId, Vector]:
        """The newest models of those outside, by id."""
        outside = [member for member in self._heard if member not in self.members][-MOST:]
        return {member: self._heard[member][1] for member in sorted(outside)}

    def others(self, member: NodeId) -> dict[NodeId, Vector]:
        """What the others of the coalition trained last, by id."""
        return {other: self._trained[other] for other in sorted(self._trained) if other != member}
