"""What the admin API answers: the reply models, from which the OpenAPI document is made too."""

from __future__ import annotations

from typing import Any, Literal

from p2pfed.api.progress import LearningStatus
from p2pfed.api.reply import ForeignText, Reply


class ProtocolRange(Reply):
    """The protocol versions this node speaks."""

    min: int
    max: int


class NodeStatus(Reply):
    """Who is answering."""

    id: str
    name: str
    instance: str
    """Random hex of the state directory."""
    pid: int
    uptime_seconds: float
    peer_address: str | None
    """Where the mutual-TLS listener is bound; null if the bank only dials out."""
    admin_address: str | None
    """Where this API is bound over TCP; null if only on the Unix socket."""


class Problem(Reply):
    """Something an operator should know until it is over."""

    code: str
    severity: str
    """`info` needs nobody, `warning` and `error` make the node degraded."""
    since: str
    """UTC, ISO 8601."""
    count: int
    """How often it was raised since then."""
    subject: str
    """A member's name, or empty."""
    message: str
    hint: str


class Change(Reply):
    """What a manifest changes that waits for its cycle."""

    version: int
    cycle: int
    begins: float
    """Unix seconds."""
    changes: list[str]
    """In words."""


class ConsortiumStatus(Reply):
    """The agreement this node works under and how its members are."""

    id: str
    name: str
    manifest_version: int
    members: int
    alive: int
    suspect: int
    failed: int
    quarantined: int
    """Members whose models this node does not merge."""
    expires_in_days: float
    coming: Change | None
    """Null while no change waits."""


class TrainerStatus(Reply):
    """The child process that trains."""

    state: str
    pid: int | None
    restarts: int
    rss_bytes: int | None


class SelfStatus(Reply):
    """How this process and its machine are; all counts since it started."""

    loop_lag_p99_seconds: float
    disk_free_bytes: int
    rss_bytes: int
    peak_rss_bytes: int
    bytes_sent: int
    bytes_received: int
    connections: int
    refused: dict[str, int]
    """Connections and requests of peers refused, by cause."""
    task_restarts: dict[str, int]
    """Background tasks that failed and were started again, by name."""
    trainer: TrainerStatus


class Status(Reply):
    """One screen about the node. The HTTP status is 200 whatever `health` says."""

    api: Literal[1] = 1
    version: str
    protocol: ProtocolRange
    node: NodeStatus
    health: Literal["ok", "degraded"]
    problems: list[Problem]
    consortium: ConsortiumStatus
    learning: LearningStatus
    self: SelfStatus


Standing = Literal["trusted", "suspect", "quarantined"]


class MemberRow(Reply):
    """One member of the manifest as this node sees it."""

    name: str
    id: str
    status: Literal["unknown", "alive", "suspect", "failed", "left", "blocked"]
    address: ForeignText | None
    seen_seconds: float | None
    """Since its newest heartbeat arrived here; null if never."""
    rtt_ms: float | None
    manifest: int | None
    version: ForeignText | None
    proto: int | None
    age: int | None
    """Rounds behind its newest update known here."""
    standing: Standing | None
    """Null for this node itself."""
    score: float | None
    """What speaks against it; at 2 it is suspect, at 4 quarantined."""
    trust: float | None
    """Factor on the weight of its models, 0 to 1."""
    note: ForeignText


class ReputationReply(Reply):
    """What this node thinks of one member, and the numbers behind it: measured here, on models that arrived here."""

    name: str
    id: str
    blocked: bool
    judging: bool
    """Whether the manifest lets reputation decide."""
    standing: Standing
    trust: float
    """Factor on the weight of its models, 0 to 1; `agreement` is part of it."""
    score: float
    """The largest of `models`, `bursts` and `faults`, in points."""
    suspect_at: float
    quarantine_at: float
    models: float
    """Evidence of its models added up, never below 0."""
    bursts: float
    """Gross evidence alone added up, which good models hardly take off."""
    faults: float
    """What broken rules of the protocol come to; a fifth is forgiven with every model."""
    evidence: float
    """Of its newest model, -0.5 to 1; above 0 speaks against it."""
    distance: float
    """Of its newest model, in units of what a round of own training moves."""
    distance_fine: float
    """Up to here a distance is no evidence; follows what members were like in the last merges."""
    disagreement: float
    """Of its newest model about own held-out rows, in units of what a round of own training changes there."""
    disagreement_fine: float
    recognition: float
    """Mean fraud probability that its newest model gives own frauds."""
    recognition_fine: float
    """Down to here that is no evidence."""
    excess: float
    """Length of what distance, disagreement and recognition are beyond what is fine for anybody, in doublings."""
    excess_fine: float
    """Up to here that is no evidence: who has few rows or another base rate may differ in one way."""
    agreement: float
    """Factor on its weight: the square of its recognition beside what is usual, at most 1."""
    idle: int
    """Models in a row that brought nothing: the one before again, or one of this node's own."""
    idle_at: int
    """So many in a row weigh nothing."""
    looks: int
    """Models judged."""
    strikes: int
    """How often it was quarantined."""
    clean: int
    """Clean models in a row."""
    release_after: int
    """So many end a quarantine; twice as many with every strike."""
    clean_takes: float
    """What a clean model takes off the score at most."""
    clean_needed: int | None
    """The least number of them until a suspect is trusted; null in quarantine, and if that is very many."""
    doubtful: bool
    """It is in quarantine, and with its models since its score has fallen below what makes suspect."""


class UpdateRow(Reply):
    """What has arrived of one member's updates since this node started."""

    name: str
    id: str
    seq: int | None
    """Newest accepted."""
    via: str | None
    """Name of the member that handed it over."""
    bytes: int | None
    seconds_ago: float | None
    accepted: int
    ignored: int
    rejected: int
    last_refusal: str | None
    """Reason of the newest refusal."""


class EvidenceRow(Reply):
    """A proof that a member signed two different updates with one sequence number."""

    proof: str
    """SHA-256 (hex) of both statements' digests."""
    member: str
    """Id of who signed them."""
    name: str
    seq: int
    standing: Literal["proven", "cleared"]
    """Whether the operator has cleared it."""
    document: dict[str, Any]
    """The proof itself: both statements, and their signatures."""


class SourceRow(Reply):
    """One member's model in a merge."""

    member: str
    """Id."""
    seq: int
    digest: str
    """Of its statement, SHA-256 (hex)."""
    weight: float
    """Its share in the merge."""
    kept: float
    """Part of the way to it that the rule went."""
    moved: float
    """How far it moved this node's model, Euclidean."""
    share: float
    """Part of the whole movement that is its own."""
    score: float
    """Of its reputation, with this model."""
    evidence: float
    """Of the member's newest model that was judged; above 0 is bad."""
    bytes: int


class RoundRow(Reply):
    """One completed round."""

    round: int
    seq: int
    time: float
    """Unix seconds."""
    loss: float | None
    steps: int
    seconds: float
    training_seconds: float
    merged: list[str]
    """Ids of the members whose models were at hand for the merge; the rule may have kept nothing of some."""
    sources: list[SourceRow]
    """These models; empty for rounds of the history's first format."""
    displacement: float | None
    metrics: dict[str, dict[str, Any]] | None
    """By row set; null if the round was not evaluated, or not yet: ask again."""
    threshold: float | None


class EventRow(Reply):
    """One event of the history."""

    id: int
    time: float
    """Unix seconds."""
    kind: str
    text: str
    """The event as a sentence."""
    fields: dict[str, Any]


class Accepted(Reply):
    """A command was accepted."""

    detail: str
    changes: list[str] = []
    """What a reload changed, or what needs a restart; one line each."""


class RefreshRequest(Reply):
    """What to do about the payments."""

    accept: bool = False
    """Take them even if they do not look like this bank's."""


class ErrorReply(Reply):
    """RFC 9457 problem details, as `application/problem+json`."""

    type: Literal["about:blank"] = "about:blank"
    title: str
    status: int
    detail: str
