"""One simulated machine: its node while it runs, what survives a crash, its clock and its timers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from p2pfed.core.consortium import Manifest
from p2pfed.core.effects import Checkpoint, KeepModel, KeptModel, KeptProof, Save
from p2pfed.core.gossip.own import OwnModel
from p2pfed.core.identity import Identity
from p2pfed.core.node import GossipNode
from p2pfed.core.probe import Probe
from p2pfed.core.reputation.peer_record import PeerRecord, Scales
from p2pfed.core.types import NodeId


@dataclass(frozen=True, slots=True)
class Clock:
    """A node's clock: seconds = offset + rate * virtual seconds."""

    offset: float = 0.0
    rate: float = 1.0

    def virtual(self, reading: float) -> float:
        """The virtual second at which the clock shows `reading`."""
        return (reading - self.offset) / self.rate


@dataclass(slots=True)
class Disk:
    """What survives `kill -9`: the newest checkpoint, replay marks, acknowledged frames, reputation, proofs."""

    epoch: int = 0
    """How often the node has been started, as far as it remembers."""
    checkpoint: Checkpoint | None = None
    marks: dict[NodeId, tuple[int, str]] = field(default_factory=dict)
    frames: dict[NodeId, bytes] = field(default_factory=dict)
    peers: dict[NodeId, PeerRecord] = field(default_factory=dict)
    scales: Scales | None = None
    proofs: dict[str, KeptProof] = field(default_factory=dict)
    champion: KeptModel | None = None
    bests: tuple[KeptModel, ...] = ()
    versions: tuple[Manifest, ...] = ()
    """Of the manifest, those after the first."""

    def copy(self) -> Disk:
        """What a backup of it holds."""
        return replace(
            self, marks=dict(self.marks), frames=dict(self.frames), peers=dict(self.peers), proofs=dict(self.proofs)
        )

    def keep(self, kept: KeepModel) -> None:
        """Score with a model from now on."""
        self.champion, self.bests = kept.model, kept.bests

    def save(self, saved: Save) -> None:
        """Make `saved` durable."""
        self.checkpoint = saved.checkpoint or self.checkpoint
        self.marks |= saved.marks
        self.frames |= saved.frames
        self.peers |= saved.peers
        self.scales = saved.scales or self.scales
        self.proofs |= saved.proofs


@dataclass(slots=True)
class Host:
    """A member's machine. `index` is its number in the manifest."""

    index: int
    id: NodeId
    name: str
    identity: Identity
    clock: Clock
    train_rows: int
    """Training rows of its bank, before resampling."""
    train_frauds: int
    probe: Probe
    refused: frozenset[int] = frozenset()
    """Cycles whose payments look wrong."""
    disk: Disk = field(default_factory=Disk)
    backup: Disk = field(default_factory=Disk)
    starts: int = 0
    """How often the node has been started: what was asked by an earlier process is answered to nobody."""
    node: GossipNode | None = None
    """None while it is down."""
    shelf: dict[NodeId, tuple[int, bytes]] = field(default_factory=dict)
    """Sequence number and frame with which pulls for a member are answered."""
    timers: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Place in the heap's order, and reading of the clock, at which each timer is due."""
    now: float = float("-inf")
    """The clock's last reading, which never falls."""
    down_until: float = 0.0
    """It does not come up before (virtual seconds)."""
    gone: bool = False
    """Whether it has left for good."""
    stepped: float = 0.0
    """Seconds by which its wall clock has been set since the start."""

    @property
    def kept(self) -> OwnModel | Checkpoint | None:
        """Where its model, round and sequence number are: in the running node, or on its disk, if anything is there."""
        return self.node.rounds if self.node is not None else self.disk.checkpoint

    def judged(self, member: NodeId) -> int:
        """How many models of `member` its reputation has judged so far."""
        record = (self.disk.peers if self.node is None else self.node.reputation.peers).get(member)
        return record.looks if record else 0

    def read_clock(self, virtual: float) -> float:
        """What the node takes for the present at `virtual` seconds."""
        reading = self.clock.offset + self.clock.rate * virtual
        if reading > self.now:
            self.now = reading
        return self.now

    def wall(self, virtual: float) -> float:
        """What the machine's clock shows at `virtual` seconds; it may have been set."""
        return self.read_clock(virtual) + self.stepped
