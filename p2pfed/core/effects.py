"""What a node asks its interpreter for.

Effects are carried out in list order: a `Save` is durable before anything after it leaves the node.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from p2pfed.core.events import Event, Metrics
from p2pfed.core.messages import HeartbeatTable
from p2pfed.core.reputation.peer_record import PeerRecord, Scales
from p2pfed.core.types import Address, NodeId
from p2pfed.core.weights import Vector


@dataclass(frozen=True)
class Checkpoint:
    """All a node needs to go on after `kill -9`: one commit a round."""

    round: int
    """The newest round that was trained, a number of the calendar."""
    seq: int
    statement_digest: str
    """Digest of the newest own statement, which the next one names as `previous`."""
    vector: Vector
    optimiser: bytes
    aggregation: bytes
    """The aggregation rule's state, as JSON."""
    published: bytes
    """The newest own frame, re-sent byte for byte after a restart; empty if none."""
    threshold: float | None
    model: str
    """`Manifest.model_digest` of vector and optimiser: another generation keeps only the sequence number."""
    merged: int = 0
    """The newest round whose models, or adopted ones, are in the vector; of free-running nodes as `round`."""
    decided: int = -1
    """The newest cycle at whose end was decided what serves; free-running nodes decide nothing."""
    momentum: bytes = b""
    """`Momentum.state()`: a node that restarted without its movement would drag the others back for some rounds."""
    health: bytes = b""
    """`Health.state()`: what is wrong is seen over cycles, and a restart must not hide it."""
    trained: bytes = b""
    """`TrainedRounds.state()`: a clock that is set back before a restart must not have rounds trained twice."""


@dataclass(frozen=True)
class KeptProof:
    """A proof of equivocation as it is remembered."""

    proof: bytes
    """`evidence.encode_proof` of it."""
    cleared: int = 0
    """The sequence number up to which the operator cleared its member with it; 0 is a proof that stands."""


@dataclass(frozen=True)
class Save:
    """Make durable, in one commit, before the next effect: a checkpoint, marks and reputation, frames, proofs."""

    checkpoint: Checkpoint | None = None
    marks: dict[NodeId, tuple[int, str]] = field(default_factory=dict)
    """Highest admitted (seq, statement digest) of members, where it rose: the replay window."""
    frames: dict[NodeId, bytes] = field(default_factory=dict)
    """Frames of others that a push was acknowledged for."""
    peers: dict[NodeId, PeerRecord] = field(default_factory=dict)
    """What is remembered of members, where it changed."""
    scales: Scales | None = None
    """What they are measured in, if it changed."""
    proofs: dict[str, KeptProof] = field(default_factory=dict)
    """Proofs of equivocation under their digests, new or cleared."""


@dataclass(frozen=True)
class Publish:
    """From now on answer pulls for `member` with this frame."""

    member: NodeId
    seq: int
    frame: bytes


@dataclass(frozen=True)
class Withdraw:
    """From now on do not answer pulls for `member`: this node merges its update no more, and nobody else should."""

    member: NodeId


@dataclass(frozen=True)
class Pull:
    """Ask `peer` for `member`'s newest update above `after`; ends in UpdateReceived or PullEnded."""

    peer: NodeId
    addresses: tuple[Address, ...]
    member: NodeId
    after: int


@dataclass(frozen=True)
class Push:
    """Offer our own newest frame to `peer`, who cannot dial us."""

    peer: NodeId
    addresses: tuple[Address, ...]
    frame: bytes


@dataclass(frozen=True)
class ExchangeHeartbeats:
    """Send our table to `peer` and take its own."""

    peer: NodeId
    addresses: tuple[Address, ...]
    table: HeartbeatTable


@dataclass(frozen=True)
class SayHello:
    """Ask `peer` for its Hello."""

    peer: NodeId
    addresses: tuple[Address, ...]


@dataclass(frozen=True)
class FetchManifest:
    """Ask `peer` for manifest `version`; ends in ManifestChanged if it verifies."""

    peer: NodeId
    addresses: tuple[Address, ...]
    version: int


@dataclass(frozen=True)
class OpenTrainer:
    """Start a trainer for `cycle`, which reads the bank's payments anew; ends in TrainerReady or ReadingRefused.

    The one of an older cycle goes on until it is closed. With `accept` nothing that was read is refused.
    """

    cycle: int
    accept: bool = False


@dataclass(frozen=True)
class CloseTrainer:
    """End the trainers of `cycle` and of those before, and forget their jobs."""

    cycle: int


@dataclass(frozen=True)
class StartTraining:
    """Train round `round` from `vector`; `optimiser` is empty where the trainer's own state goes on."""

    round: int
    """A number of the calendar, counted from the beginning of the model's generation: the learning rate follows it."""
    vector: Vector
    optimiser: bytes
    cycle: int = 0
    """Whose trainer does it."""


@dataclass(frozen=True)
class StartEvaluation:
    """Evaluate `vector` on every row set; queued behind training, in order."""

    purpose: str
    vector: Vector
    cycle: int = 0
    """Whose trainer does it."""


@dataclass(frozen=True)
class KeptModel:
    """A version of the model that serves, or served."""

    round: int
    """A number of the calendar."""
    vector: Vector
    threshold: float
    metrics: dict[str, Metrics]
    """By row set, when it was kept."""
    since: float
    """Unix seconds (wall) from which on it serves."""
    cycle: int = 0
    model: str = ""
    """`Manifest.model_digest` of it: with one of another generation nothing is compared."""
    sources: int = 0
    """Members whose models were merged in its cycle."""


@dataclass(frozen=True)
class KeepModel:
    """Score with `model` from now on, and keep it: it has just been evaluated."""

    model: KeptModel
    bests: tuple[KeptModel, ...] = ()
    """Versions that served before it and may be the best of 90 days, oldest first."""


@dataclass(frozen=True)
class SetTimer:
    """Fire `name` at `at` (seconds on the node's clock); replaces a timer of that name."""

    name: str
    at: float


@dataclass(frozen=True)
class Emit:
    """Tell the operator."""

    event: Event


@dataclass(frozen=True)
class Halt:
    """The node is done: the good-byes before this effect were its last words."""


Effect = (
    Save
    | Publish
    | Withdraw
    | Pull
    | Push
    | ExchangeHeartbeats
    | SayHello
    | FetchManifest
    | OpenTrainer
    | CloseTrainer
    | StartTraining
    | StartEvaluation
    | KeepModel
    | SetTimer
    | Emit
    | Halt
)
