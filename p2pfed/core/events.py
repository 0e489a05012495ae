"""The node's whole vocabulary: Inputs it is given, Effects it asks for, Events it tells.

Effects are carried out in list order: a `Save` is durable before anything after it leaves the node.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from p2pfed.core.consortium import Manifest
from p2pfed.core.messages import Endpoint, HeartbeatTable, Hello, ModelUpdate
from p2pfed.core.types import Address, NodeId, PeerState, Reason
from p2pfed.core.weights import Vector

Metrics = dict[str, Any]
"""AUPRC, recall and so on of one evaluation, under the names of the run file (`auprc`, `recall_at_fpr_0.001`, ...)."""


# --- Inputs -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Started:
    """The interpreter is ready to carry out effects."""


@dataclass(frozen=True)
class TrainerReady:
    """The bank's rows are loaded in the trainer."""

    train_rows: int
    train_frauds: int


@dataclass(frozen=True)
class TimerFired:
    """A timer asked for by `SetTimer` is due."""

    name: str


@dataclass(frozen=True)
class UpdateReceived:
    """A frame that decoded and verified; `via` handed it over, which need not be its sender."""

    update: ModelUpdate
    via: NodeId
    pushed: bool = False


@dataclass(frozen=True)
class PullEnded:
    """A pull from `peer` for `member` brought nothing new (`error` is empty) or failed (why)."""

    peer: NodeId
    member: NodeId
    error: str = ""


@dataclass(frozen=True)
class HeartbeatsReceived:
    """A peer's table, each row verified; `answered` if it came as the answer to our own exchange."""

    table: HeartbeatTable
    via: NodeId
    answered: bool


@dataclass(frozen=True)
class ExchangeFailed:
    """A heartbeat exchange or hello with `peer` failed."""

    peer: NodeId
    error: str


@dataclass(frozen=True)
class HelloReceived:
    """`hello.member` answered our hello."""

    hello: Hello


@dataclass(frozen=True)
class Offended:
    """`peer` handed over something that broke a rule before it could become a message."""

    peer: NodeId
    reason: Reason
    detail: str = ""
    pulled: NodeId | None = None
    """Whose update was asked for, if it was the answer to a pull."""
    signer: NodeId | None = None
    """Who signed the offending content, where the signature held: then the blame is theirs and not the relay's."""


@dataclass(frozen=True)
class EndpointFound:
    """Discovery or configuration names a place where `member` may answer."""

    member: NodeId
    endpoint: Endpoint


@dataclass(frozen=True)
class TrainingFinished:
    """The trainer evaluated the round's starting weights and trained on from them."""

    round: int
    vector: Vector
    optimiser: bytes
    """The optimiser's state, opaque, for the checkpoint."""
    loss: float
    steps: int
    seconds: float


@dataclass(frozen=True)
class EvaluationFinished:
    """Metrics of the model that `StartEvaluation(purpose)` named, with the threshold chosen on validation rows."""

    purpose: str
    metrics: dict[str, Metrics]
    """By row set: `validation`, `own_test`, `test` (pooled); absent where the node has no such rows."""
    threshold: float


@dataclass(frozen=True)
class TrainerLost:
    """The trainer died or hung; the interpreter restarts it and will send TrainerReady again."""

    error: str


@dataclass(frozen=True)
class LoopLagged:
    """The event loop answered `seconds` late: deadlines missed now may be our own fault."""

    seconds: float


@dataclass(frozen=True)
class BlocklistChanged:
    """The operator's blocklist, after a reload."""

    blocked: frozenset[NodeId]


@dataclass(frozen=True)
class ManifestChanged:
    """A newer manifest has been verified and stored by the interpreter."""

    manifest: Manifest


@dataclass(frozen=True)
class TroubleSeen:
    """The interpreter met something that the operator should know; raised as a problem once."""

    code: str
    message: str
    hint: str


@dataclass(frozen=True)
class StopRequested:
    """Say good-bye; no more rounds."""


Input = (
    Started
    | TrainerReady
    | TimerFired
    | UpdateReceived
    | PullEnded
    | HeartbeatsReceived
    | ExchangeFailed
    | HelloReceived
    | Offended
    | EndpointFound
    | TrainingFinished
    | EvaluationFinished
    | TrainerLost
    | LoopLagged
    | BlocklistChanged
    | ManifestChanged
    | TroubleSeen
    | StopRequested
)


# --- Effects ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Checkpoint:
    """All a node needs to go on after `kill -9`: one commit a round."""

    round: int
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


@dataclass(frozen=True)
class Save:
    """Make durable, in one commit, before the next effect: a checkpoint and replay marks, or a pushed frame."""

    checkpoint: Checkpoint | None = None
    marks: dict[NodeId, tuple[int, str]] = field(default_factory=dict)
    """Highest admitted (seq, statement digest) per member: the replay window."""
    frames: dict[NodeId, bytes] = field(default_factory=dict)
    """Frames of others that a push was acknowledged for."""


@dataclass(frozen=True)
class Publish:
    """From now on answer pulls for `member` with this frame."""

    member: NodeId
    seq: int
    frame: bytes


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
class StartTraining:
    """Train round `round` from `vector`; `optimiser` is empty where the trainer's own state goes on."""

    round: int
    vector: Vector
    optimiser: bytes


@dataclass(frozen=True)
class StartEvaluation:
    """Evaluate `vector` on every row set; queued behind training, in order."""

    purpose: str
    vector: Vector


@dataclass(frozen=True)
class KeepModel:
    """Keep `vector` as the model the bank scores with: it has just been evaluated."""

    round: int
    vector: Vector
    threshold: float
    metrics: dict[str, Metrics]


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
    | Pull
    | Push
    | ExchangeHeartbeats
    | SayHello
    | FetchManifest
    | StartTraining
    | StartEvaluation
    | KeepModel
    | SetTimer
    | Emit
    | Halt
)


# --- Events -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NodeStarted:
    """The node begins, from a checkpoint (`round` > 0) or fresh."""

    round: int
    members: int


@dataclass(frozen=True)
class TrainingAlone:
    """No peer has been met: the node trains on its own rows only."""

    round: int


@dataclass(frozen=True)
class Listening:
    """Too few frauds to publish: the node trains, merges and scores, and publishes nothing."""

    train_frauds: int
    needed: int


@dataclass(frozen=True)
class ModelAdopted:
    """A late joiner took the coordinate median of `sources` members' models."""

    sources: int
    auprc: float | None


@dataclass(frozen=True)
class PeerChanged:
    """A member changed state in the heartbeat table."""

    member: NodeId
    before: PeerState
    after: PeerState


@dataclass(frozen=True)
class UpdateAccepted:
    """An update went into its sender's slot."""

    member: NodeId
    seq: int
    via: NodeId
    bytes: int


@dataclass(frozen=True)
class UpdateRefused:
    """An update was ignored or rejected; `blamed` is who handed it over or who signed it."""

    member: NodeId
    blamed: NodeId
    reason: Reason
    detail: str


@dataclass(frozen=True)
class ExchangeEnded:
    """A pull, push, hello or heartbeat exchange with a peer failed; it is benched until `benched_until`."""

    peer: NodeId
    error: str
    benched_until: float


@dataclass(frozen=True)
class RoundCompleted:
    """Trained, published and merged once."""

    round: int
    seq: int
    loss: float
    steps: int
    seconds: float
    """Since the round before was completed."""
    training_seconds: float
    merged: tuple[NodeId, ...]
    displacement: float
    """Distance the merge moved the model."""


@dataclass(frozen=True)
class ModelEvaluated:
    """Metrics of the model after `round` on each row set."""

    round: int
    metrics: dict[str, Metrics]
    threshold: float


@dataclass(frozen=True)
class RunFinished:
    """The configured number of rounds is done; the node serves until told to stop."""

    round: int


@dataclass(frozen=True)
class ProblemRaised:
    """Something an operator should know, until `ProblemCleared`; `code` is stable, `subject` a member or empty."""

    code: str
    severity: str
    message: str
    hint: str
    subject: str = ""


@dataclass(frozen=True)
class ProblemCleared:
    """The problem is over."""

    code: str
    subject: str = ""


Event = (
    NodeStarted
    | TrainingAlone
    | Listening
    | ModelAdopted
    | PeerChanged
    | UpdateAccepted
    | UpdateRefused
    | ExchangeEnded
    | RoundCompleted
    | ModelEvaluated
    | RunFinished
    | ProblemRaised
    | ProblemCleared
)
