"""What a node remembers of each peer, and what it measures peers in: the memory that reputation restarts with."""

from __future__ import annotations

from dataclasses import dataclass, fields
from operator import attrgetter

from p2pfed.core.types import Standing

_JUDGED = ("score", "bursts", "faults", "distance", "distance_fine", "disagreement", "recognition", "evidence")
IDLE_TIMES = 3
"""So often in a row a model may bring nothing."""


@dataclass(slots=True)
class PeerRecord:
    """What is kept of one peer; it survives restarts and absences."""

    standing: Standing = "trusted"
    score: float = 0.0
    """CUSUM of the evidence."""
    bursts: float = 0.0
    """CUSUM of gross evidence alone, which forgives slowly: it finds who attacks now and then."""
    proven: bool = False
    """It signed two different updates with one number: quarantined, beyond what may be, until the operator's pardon."""
    faults: float = 0.0
    """Broken rules of the protocol; a tenth is forgiven with every model."""
    strikes: int = 0
    """How often it was quarantined; halved after `Reputation.STRIKE_LOOKS` models."""
    looks: int = 0
    """Models judged so far."""
    struck: int = 0
    """Models judged when it was quarantined, or when its strikes were halved, last."""
    clean: int = 0
    """Clean models in a row since it was quarantined."""
    idle: int = 0
    """Models in a row that brought nothing: the one before again, or this node's own."""
    distance: float = 0.0
    """Of its newest model, in own scales."""
    distance_fine: float = 0.0
    """Distance up to which that would have been no evidence, for a bank with so many rows."""
    nearness: float = 1.0
    """Factor on its weight: what would be fine for every bank over its distance, at most 1."""
    rows: int = 0
    """Most training rows that it ever claimed."""
    disagreement: float = 0.0
    """Of its newest model about held-out rows, in units of what own training changes there; less what another share of
    frauds among its bank's rows explains."""
    recognition: float = 1.0
    """Mean fraud probability that its newest model gives this bank's frauds, real and imagined ones."""
    agreement: float = 1.0
    """Factor on its weight: the square of its recognition beside what is usual, at most 1; 1 if frauds are imagined."""
    evidence: float = 0.0
    """Of its newest model: above 0 is bad."""
    drawn: str = ""
    """Some weights of its newest model as it arrived: float32 [yardstick.DRAWN], little-endian, hex."""

    @property
    def idles(self) -> bool:
        """Whether it weighs nothing for bringing nothing, and tells nothing of what is usual."""
        return self.idle >= IDLE_TIMES

    @property
    def suspicion(self) -> float:
        """The worst of what speaks against it; 4 quarantines."""
        return max(self.score, self.bursts, self.faults**2 / 4)

    def copied(self) -> PeerRecord:
        """Another record that says the same, several times as fast as `copy.copy` makes it."""
        return PeerRecord(*_values(self))

    @property
    def numbers(self) -> dict[str, float]:
        """What stands behind a decision about it."""
        return {name: float(getattr(self, name)) for name in (*_JUDGED, "strikes", "looks")}


_values = attrgetter(*(field.name for field in fields(PeerRecord)))


@dataclass(frozen=True, slots=True)
class Scales:
    """What evidence is measured in: own training's moving averages, and what was seen of peers in recent merges."""

    moved: float | None = None
    changed: float | None = None
    distances: tuple[tuple[float, ...], ...] = ()
    disagreements: tuple[tuple[float, ...], ...] = ()
    recognitions: tuple[tuple[float, ...], ...] = ()
