"""What a node tells: one stream that log, API, metrics, history and tests all read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from p2pfed.core.served import ServedDay
from p2pfed.core.types import NodeId, PeerState, Reason, Standing

Metrics = dict[str, Any]
"""AUPRC, recall and so on of one evaluation, under the names of the run file (`auprc`, `recall_at_fpr_0.001`, ...)."""


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
    """Who was behind, or joined late, took the coordinate median of its own and `sources` members' models.

    No clip bounds that step.
    """

    sources: int
    auprc: float | None
    distance: float = 0.0
    """From the model it had."""
    round: int = 0


@dataclass(frozen=True)
class MovedToOthers:
    """This node's model was far from `sources` members' models, which agree: it went half the way, and judged nobody.

    With `ModelAdopted` and the rounds of who is behind, the steps that no clip bounds.
    """

    round: int
    sources: int
    displacement: float
    """Euclidean, of the weights."""


@dataclass(frozen=True)
class FellBehind:
    """The others are rounds ahead: this node publishes nothing and judges nobody until it has caught up."""

    merged: int
    """The newest round that it took models of."""
    round: int
    """The round it is now."""


@dataclass(frozen=True)
class CaughtUp:
    """This node is with the others again, by adopting or by merging."""

    round: int


@dataclass(frozen=True)
class CycleBegun:
    """A cycle of the calendar began."""

    cycle: int
    rounds: int
    ends: float
    """Unix seconds."""


@dataclass(frozen=True)
class CycleEnded:
    """Its rounds are over: this node rests, unless the next cycle begins at once."""

    cycle: int
    trained: int
    """Rounds that this node trained in it."""
    next_begins: float
    """Unix seconds."""


@dataclass(frozen=True)
class PaymentsRead:
    """A trainer read the bank's payments for `cycle`."""

    cycle: int
    train_rows: int
    train_frauds: int
    seconds: float
    immature: int | None = None
    """Rows too young for their label to be trusted; None is not known, as below."""
    newest: float | None = None
    """When the newest payment happened, Unix seconds."""
    next_reading: float | None = None
    """Unix seconds; None where none is planned."""


@dataclass(frozen=True)
class PaymentsServed:
    """Labels have matured: how what served when their payments happened has done, each payment once."""

    since: float
    """Unix seconds: payments after this, and up to `until`."""
    until: float
    days: tuple[ServedDay, ...]
    """In order, one at least; of the first and the last only a part may be in it."""


@dataclass(frozen=True)
class ModelPromoted:
    """Another model serves from now on."""

    round: int
    cycle: int
    metrics: dict[str, Metrics]
    threshold: float
    why: str


@dataclass(frozen=True)
class ModelHeld:
    """What serves stays: the model of `round` is worse."""

    round: int
    cycle: int
    metrics: dict[str, Metrics]
    why: str


@dataclass(frozen=True)
class GainMeasured:
    """What serves beside a model that trained alone: same rows, merged with nobody's, and as many steps.

    They are fewer where the daemon was stopped meanwhile.
    """

    cycle: int
    gain: float
    """AUPRC on validation rows by which what serves is better."""
    serves: float
    """AUPRC of what serves."""
    alone: float
    """That of the other."""
    frauds: int
    """Among the validation rows."""
    rounds: int
    """That the other has trained, over all cycles."""
    seconds: float
    """How long training and measuring it took."""


@dataclass(frozen=True)
class ChangeComing:
    """A manifest was taken over that changes what is trained, how, or when, from a cycle on."""

    version: int
    cycle: int
    begins: float
    """Unix seconds."""
    changes: tuple[str, ...]
    """What, in words."""


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
class StandingChanged:
    """The reputation of a member changed; `numbers` are those behind it."""

    member: NodeId
    before: Standing
    after: Standing
    reason: str
    numbers: dict[str, float]


@dataclass(frozen=True)
class EquivocationProven:
    """A member signed two different updates with one sequence number; `proof` is the digest of the proof."""

    member: NodeId
    seq: int
    proof: str


@dataclass(frozen=True)
class PeerBenched:
    """A pull, push, hello or heartbeat exchange with a peer failed, and it is benched until `benched_until` for that.

    What fails with a peer that is benched already is not told.
    """

    peer: NodeId
    error: str
    benched_until: float


@dataclass(frozen=True)
class Source:
    """One member's model in a merge: what it was, what the rule made of it, and what was thought of the member then."""

    member: NodeId
    seq: int
    digest: str
    """Of its statement, SHA-256 (hex)."""
    weight: float
    """Its share in the merge."""
    kept: float
    """Part of the way to it that the rule went, at most 1."""
    moved: float
    """How far it moved this node's model, Euclidean."""
    share: float
    """Part of the merge's whole movement: below 0 where it drew elsewhere, together 1 if the rule averages."""
    score: float
    """Of the reputation, in points, with this model."""
    evidence: float
    """Of the member's newest model that was judged; above 0 is bad."""
    bytes: int
    """Of the update."""


@dataclass(frozen=True)
class RoundCompleted:
    """Trained, published and merged once. With a calendar its merge may have come without training."""

    round: int
    seq: int
    loss: float
    steps: int
    seconds: float
    """Since the round before was completed."""
    training_seconds: float
    sources: tuple[Source, ...]
    displacement: float
    """Distance the merge moved the model."""

    @property
    def merged(self) -> tuple[NodeId, ...]:
        """Whose models were at hand for the merge; the rule may have kept nothing of some."""
        return tuple(source.member for source in self.sources)


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
class SoftwareStarted:
    """A process of the node began: `version` of p2pfed, with a configuration."""

    version: str
    config_sha256: str


@dataclass(frozen=True)
class ManifestFollowed:
    """The node follows another version of the manifest, which its admins have signed."""

    before: int
    after: int
    sha256: str
    """Fingerprint of the new one."""
    signers: tuple[str, ...]
    """Names of the admins who signed it."""


@dataclass(frozen=True)
class ModelKept:
    """A model was written for `p2pfed score`."""

    round: int
    cycle: int
    sha256: str
    """Of its weights."""
    threshold: float


@dataclass(frozen=True)
class OperatorActed:
    """An operator commanded the node, such as to `pardon` the member `subject`, and it took the command.

    `by` is `uid N` over the admin socket, and `token` over HTTP.
    """

    action: str
    subject: str
    by: str


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
    | MovedToOthers
    | FellBehind
    | CaughtUp
    | CycleBegun
    | CycleEnded
    | PaymentsRead
    | PaymentsServed
    | ModelPromoted
    | ModelHeld
    | GainMeasured
    | ChangeComing
    | PeerChanged
    | UpdateAccepted
    | UpdateRefused
    | StandingChanged
    | EquivocationProven
    | PeerBenched
    | RoundCompleted
    | ModelEvaluated
    | RunFinished
    | SoftwareStarted
    | ManifestFollowed
    | ModelKept
    | OperatorActed
    | ProblemRaised
    | ProblemCleared
)
