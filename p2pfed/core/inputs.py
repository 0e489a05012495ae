"""What a node is given: everything that can happen to it, as values."""

from __future__ import annotations

from dataclasses import dataclass

from p2pfed.core.consortium import Manifest
from p2pfed.core.events import Metrics
from p2pfed.core.messages import Endpoint, HeartbeatTable, Hello, ModelUpdate
from p2pfed.core.probe import Probe
from p2pfed.core.served import Served
from p2pfed.core.types import NodeId, Reason
from p2pfed.core.weights import Vector


@dataclass(frozen=True)
class Started:
    """The interpreter is ready to carry out effects."""


@dataclass(frozen=True)
class TrainerReady:
    """The bank's rows are loaded in the trainer."""

    train_rows: int
    train_frauds: int
    probe: Probe | None = None
    """Rows to look at others' models with."""
    cycle: int = 0
    """The cycle that `OpenTrainer` named."""
    served: Served | None = None
    """How what served did on the payments whose labels have matured meanwhile; None where there are none."""
    immature: int | None = None
    """Rows too young for their label to be trusted; None is not known, as below."""
    newest: float | None = None
    """When the newest payment happened, Unix seconds."""


@dataclass(frozen=True)
class ReadingRefused:
    """What the trainer of `cycle` read does not look like this bank's payments; it trains on none of it."""

    cycle: int
    why: str
    """Which numbers, one sentence."""


@dataclass(frozen=True)
class ReadingFailed:
    """The source of payments could not be read for `cycle`; the interpreter tries again and again."""

    cycle: int
    why: str


@dataclass(frozen=True)
class RefreshAsked:
    """The operator wants the payments read anew; with `accept` also if they look wrong."""

    accept: bool = False


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
    round_trip: float = 0.0
    """Seconds from the question to the answer."""


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
    """The trainer did the round's local steps; `vector` is what came of them, not merged with anything."""

    round: int
    """As `StartTraining` named it."""
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
    cycle: int = 0


@dataclass(frozen=True)
class LoopLagged:
    """The event loop answered `seconds` late: deadlines missed now may be our own fault."""

    seconds: float


@dataclass(frozen=True)
class BlocklistChanged:
    """The operator's blocklist, after a reload."""

    blocked: frozenset[NodeId]


@dataclass(frozen=True)
class Pardoned:
    """The operator forgives `member` what its models did."""

    member: NodeId


@dataclass(frozen=True)
class ManifestChanged:
    """A newer manifest has been verified and stored by the interpreter."""

    manifest: Manifest


@dataclass(frozen=True)
class TroubleSeen:
    """The interpreter met something that the operator should know; raised as a problem once for each `subject`."""

    code: str
    message: str
    hint: str
    subject: str = ""
    """The member concerned, if it is about one."""


@dataclass(frozen=True)
class TroubleOver:
    """What `TroubleSeen` told under `code` is no longer so."""

    code: str


@dataclass(frozen=True)
class StopRequested:
    """Say good-bye; no more rounds."""


Input = (
    Started
    | TrainerReady
    | ReadingRefused
    | ReadingFailed
    | RefreshAsked
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
    | Pardoned
    | ManifestChanged
    | TroubleSeen
    | TroubleOver
    | StopRequested
)
