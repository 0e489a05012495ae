"""What a node remembers of each peer, and what it measures peers in: the memory that reputation restarts with."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from operator import attrgetter

from p2pfed.core.reputation.params import ReputationParams
from p2pfed.core.types import Standing


@dataclass(frozen=True, slots=True)
class Assessment:
    """How one model looks from here: see `assess`."""

    distance: float = 0.0
    """In rounds of own training: what one moves this node by."""
    distance_fine: float = 0.0
    """Up to here that is no evidence, for a bank with so many rows and such a base rate."""
    disagreement: float = 0.0
    """About held-out rows, in units of what a round of own training changes there; less what another share of frauds
    among its bank's rows explains."""
    disagreement_fine: float = 0.0
    """Up to here that is no evidence."""
    recognition: float = 1.0
    """Mean fraud probability that it gives this bank's frauds, real and imagined ones."""
    recognition_fine: float = 0.0
    """Down to here that is no evidence."""
    excess: float = 0.0
    """Length of what all three are beyond what is fine for anybody, in doublings."""
    excess_fine: float = 0.0
    """Up to here that is no evidence."""
    agreement: float = 1.0
    """Factor on its weight: the square of its recognition beside what is usual, at most 1; 1 if frauds are imagined."""
    evidence: float = 0.0
    """Above 0 is bad."""


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
    """How often it was quarantined; halved after `ReputationParams.strike_models`."""
    looks: int = 0
    """Models judged so far."""
    struck: int = 0
    """Models judged when it was quarantined, or when its strikes were halved, last."""
    clean: int = 0
    """Clean models in a row since it was quarantined."""
    idle: int = 0
    """Models in a row that brought nothing: the one before again, or this node's own."""
    rows: int = 0
    """Most training rows that it ever claimed."""
    drawn: str = ""
    """Some weights of its newest model as it arrived: float32 [yardstick.DRAWN], little-endian, hex."""
    newest: Assessment = field(default_factory=Assessment)
    """Of its newest model."""

    @property
    def suspicion(self) -> float:
        """The worst of what speaks against it, in points."""
        return max(self.score, self.bursts, self.faults_points)

    @property
    def faults_points(self) -> float:
        """What its broken rules come to: four single ones quarantine, one now and then does nothing."""
        return self.faults**2 / 4

    def add(self, evidence: float, params: ReputationParams, spared: bool = False) -> None:
        """Add a model's `evidence` to the scores, unless what is bad of it is `spared`."""
        self.faults *= params.faults_kept
        if not (spared and evidence > 0):
            gross = 1.0 if evidence == 1.0 else -params.gross_forgiven
            # beyond the threshold a score says who is worse when not everybody can be quarantined
            self.score = min(max(0.0, self.score + evidence), 2 * params.threshold)
            self.bursts = min(max(0.0, self.bursts + gross), 2 * params.threshold)
        self.clean = self.clean + 1 if evidence < 0 else 0

    def copied(self) -> PeerRecord:
        """Another record that says the same, several times as fast as `copy.copy` makes it."""
        return PeerRecord(*_values(self))

    @property
    def numbers(self) -> dict[str, float]:
        """What stands behind a decision about it."""
        counted = {name: float(getattr(self, name)) for name in ("score", "bursts", "faults", "strikes", "looks")}
        return counted | asdict(self.newest)


_values = attrgetter(*(field.name for field in fields(PeerRecord)))


@dataclass(frozen=True, slots=True)
class Scales:
    """What evidence is measured in: own training's moving averages, and what was seen of peers in recent merges."""

    moved: float | None = None
    """`TrainingScale.moved`."""
    changed: float | None = None
    distances: tuple[tuple[float, ...], ...] = ()
    disagreements: tuple[tuple[float, ...], ...] = ()
    recognitions: tuple[tuple[float, ...], ...] = ()
