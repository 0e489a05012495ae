"""A heap of (time, node, input): the smallest interpreter of effects, with a numpy learner under virtual time."""

from __future__ import annotations

import hashlib
import heapq
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np

from p2pfed.core.consortium import Admin, GossipPolicy, Manifest, Member
from p2pfed.core.contract import FeatureColumn, FeatureContract, Moments
from p2pfed.core.effects import (
    Checkpoint,
    Effect,
    Emit,
    ExchangeHeartbeats,
    FetchManifest,
    Halt,
    KeepModel,
    KeptModel,
    KeptProof,
    OpenTrainer,
    Publish,
    Pull,
    Push,
    Save,
    SayHello,
    SetTimer,
    StartEvaluation,
    StartTraining,
    Withdraw,
)
from p2pfed.core.events import Event, StandingChanged
from p2pfed.core.identity import Identity, node_id
from p2pfed.core.inputs import (
    EvaluationFinished,
    ExchangeFailed,
    HeartbeatsReceived,
    HelloReceived,
    Input,
    ManifestChanged,
    Offended,
    PullEnded,
    ReadingRefused,
    Started,
    TimerFired,
    TrainerReady,
    TrainingFinished,
    UpdateReceived,
)
from p2pfed.core.messages import ModelUpdate
from p2pfed.core.model import ModelSpec, TrainingPolicy
from p2pfed.core.node import GossipNode
from p2pfed.core.reputation.peer_record import PeerRecord, Scales
from p2pfed.core.settings import Memory, NodeSettings
from p2pfed.core.succession import in_force
from p2pfed.core.trust import Trust, trust_in, trust_of
from p2pfed.core.types import NodeId
from p2pfed.core.weights import Vector
from p2pfed.core.wire import open_update, own_statement
from p2pfed.errors import RemoteFault

WIDTH = 6
MODEL = ModelSpec("mlp", WIDTH, (4,), 0.0)


def identity(i: int) -> Identity:
    """The same key for the same number."""
    return Identity.from_seed(hashlib.sha256(f"member {i}".encode()).digest())


def make_manifest(n: int, dial_out: frozenset[int] = frozenset(), **gossip: Any) -> Manifest:
    """A consortium of `n` members of which `dial_out` have no endpoint."""
    columns = tuple(FeatureColumn(f"x{i}", "numeric", (), "none") for i in range(WIDTH))
    policy: dict[str, Any] = {
        "rule": "clip",
        "fanout": 6,
        "heartbeat_seconds": 1.0,
        "round_interval_seconds": 0.0,
        "encoding": "float32",
        "adoption_seconds": 10.0,
        "publish_min_frauds": 5,
    }
    members = tuple(
        Member(f"bank-{i}", identity(i).public_key.hex(), (), () if i in dial_out else (f"10.0.0.{i + 1}:7443",))
        for i in range(n)
    )
    return Manifest(
        consortium="00" * 16,
        name="test",
        version=1,
        previous="",
        issued=0,
        expires=10**9,
        admins=(Admin("admin", identity(999).public_key.hex()),),
        threshold=1,
        members=members,
        model=MODEL,
        generation=1,
        seed=7,
        initial_sha256=MODEL.initial_weights(7).digest,
        contract=FeatureContract(columns, "fraud", "contract", Moments((0.0,) * WIDTH, (1.0,) * WIDTH), 10.0),
        training=TrainingPolicy(10, 32, 0.01, (), "class_weight", 10.0),
        gossip=GossipPolicy(**(policy | gossip)),
    )


def train(vector: Vector, target: Vector, seed: int) -> Vector:
    """A learner without data: noisy steps towards the bank's own optimum."""
    noise = np.random.default_rng(seed).normal(0, 0.02, vector.size)
    return (vector + 0.3 * (target - vector) + noise).astype(np.float32)


@dataclass
class Disk:
    """What survives a crash of one node."""

    epoch: int = 0
    checkpoint: Checkpoint | None = None
    marks: dict[NodeId, tuple[int, str]] = field(default_factory=dict)
    frames: dict[NodeId, bytes] = field(default_factory=dict)
    peers: dict[NodeId, PeerRecord] = field(default_factory=dict)
    scales: Scales | None = None
    proofs: dict[str, KeptProof] = field(default_factory=dict)
    champion: KeptModel | None = None
    bests: tuple[KeptModel, ...] = ()
    versions: list[Manifest] = field(default_factory=list)
    """The manifests it knows, each following the one before."""


class Network:
    """All nodes, their disks, what they publish, and one heap."""

    def __init__(self, manifest: Manifest, seed: int = 0, rounds: int = 10, loss: float = 0.0) -> None:
        self.manifest, self.trust = manifest, trust_of(manifest, None)
        self.rounds, self.loss, self.seed = rounds, loss, seed
        self.frauds = [50] * len(manifest.members)
        self.rng = np.random.default_rng(seed)
        self.heap: list[tuple[float, int, NodeId, int, Input]] = []
        self.order, self.now = count(), 0.0
        self.ids = [node_id(bytes.fromhex(m.key)) for m in manifest.members]
        self.disks: dict[NodeId, Disk] = {i: Disk(versions=[manifest]) for i in self.ids}
        self.nodes: dict[NodeId, GossipNode] = {}
        self.shelves: dict[NodeId, dict[NodeId, tuple[int, bytes]]] = defaultdict(dict)
        self.journals: dict[NodeId, list[tuple[Input, float]]] = defaultdict(list)
        self.events: dict[NodeId, list[Event]] = defaultdict(list)
        self.timers: dict[tuple[NodeId, str], float] = {}
        self.cut: set[NodeId] = set()
        """Nodes nobody can talk to for the moment."""
        self.sides: list[set[int]] = []
        """Nodes, by number, that can talk only to others of the same side; empty is no partition."""
        self.training_seconds = 1.0
        self.drift = 0.0
        """How far every bank's optimum moves in a second: so long an absence makes a model old."""
        self.clock: dict[NodeId, float] = defaultdict(float)
        """Seconds by which a node's wall clock is ahead."""
        self.refuse: set[tuple[NodeId, int]] = set()
        """Readings, by node and cycle, that look wrong."""

    def start(self, i: int) -> GossipNode:
        """Start node `i` from its disk; its rows are loaded a second later."""
        me, disk = self.ids[i], self.disks[self.ids[i]]
        disk.epoch += 1
        trained = disk.checkpoint.model if disk.checkpoint else ""
        versions = disk.versions if len(disk.versions) > 1 else [self.manifest]
        force = in_force(versions, self.now + self.clock[me], trained)
        updates = tuple(u for f in disk.frames.values() if isinstance(u := opened(f, trust_in(force)), ModelUpdate))
        memory = Memory(
            disk.epoch, f"{i:032x}", disk.checkpoint, dict(disk.marks), updates, dict(disk.peers), disk.scales,
            dict(disk.proofs), disk.champion, disk.bests,
        )  # fmt: skip
        endpoints = self.manifest.members[i].endpoints
        settings = NodeSettings(self.rounds, 1, endpoints, "test")
        rng = np.random.default_rng([self.seed, i, disk.epoch])
        self.nodes[me] = GossipNode(identity(i), force.manifest, settings, memory, rng, force)
        self.shelves.pop(me, None)
        self.journals[me] = []
        self.push(me, 0.0, Started())
        return self.nodes[me]

    def push(self, node: NodeId, delay: float, given: Input) -> None:
        """Give `node` an input after `delay`; lost if it has been restarted by then."""
        heapq.heappush(self.heap, (self.now + delay, next(self.order), node, self.disks[node].epoch, given))

    def run(self, until: float) -> None:
        """Carry on until the heap is past `until`."""
        while self.heap and self.heap[0][0] <= until:
            self.now, _, node, epoch, given = heapq.heappop(self.heap)
            if node not in self.nodes or epoch != self.disks[node].epoch:
                continue
            if isinstance(given, TimerFired) and self.timers.get((node, given.name)) != self.now:
                continue
            self.journals[node].append((given, self.now))
            for effect in self.nodes[node].handle(given, self.now, self.now + self.clock[node]):
                self.carry_out(node, effect)
        self.now = until

    def learn(self, i: int, *versions: Manifest) -> None:
        """Let node `i` know of `versions`, which follow those that it knows."""
        for manifest in versions:
            self.disks[self.ids[i]].versions.append(manifest)
            self.push(self.ids[i], 0.0, ManifestChanged(manifest))

    def received(self, me: NodeId, frame: bytes, via: NodeId, *, pushed: bool = False) -> Input:
        """What a frame becomes for node `me`, which holds it against the versions that it knows."""
        versions = self.disks[me].versions
        previous = versions[-2] if len(versions) > 1 else None
        update = opened(frame, trust_in(self.nodes[me].force, previous))
        if isinstance(update, ModelUpdate):
            return UpdateReceived(update, via, pushed)
        member = None if pushed else own_statement(frame).sender
        return Offended(via, update.reason, update.detail, member, update.signer)

    def crash(self, i: int) -> None:
        """kill -9."""
        self.nodes.pop(self.ids[i], None)

    def reachable(self, a: NodeId, b: NodeId) -> bool:
        apart = bool(self.sides) and not any({a, b} <= {self.ids[i] for i in side} for side in self.sides)
        return b in self.nodes and not apart and not {a, b} & self.cut and self.rng.random() >= self.loss

    def carry_out(self, me: NodeId, effect: Effect) -> None:
        delay = float(self.rng.uniform(0.01, 0.1))
        match effect:
            case Save(checkpoint, marks, frames, peers, scales, proofs):
                disk = self.disks[me]
                disk.checkpoint = checkpoint or disk.checkpoint
                disk.marks.update(marks)
                disk.frames.update(frames)
                disk.peers.update(peers)
                disk.scales = scales or disk.scales
                disk.proofs.update(proofs)
            case Publish(member, seq, frame):
                self.shelves[me][member] = (seq, frame)
            case Withdraw(member):
                self.shelves[me].pop(member, None)
            case Pull(peer, _, member, after):
                seq, frame = self.shelves[peer].get(member, (0, b""))
                if not self.reachable(me, peer):
                    self.push(me, 5.0, PullEnded(peer, member, "no answer"))
                elif seq > after:
                    self.push(me, delay, self.received(me, frame, peer))
                else:
                    self.push(me, delay, PullEnded(peer, member))
            case Push(peer, _, frame):
                if self.reachable(me, peer):
                    self.push(peer, delay, self.received(peer, frame, me, pushed=True))
            case ExchangeHeartbeats(peer, _, table):
                if self.reachable(me, peer):
                    self.push(me, delay, HeartbeatsReceived(self.nodes[peer].heartbeats(me), peer, answered=True))
                    self.push(peer, delay, HeartbeatsReceived(table, me, answered=False))
                else:
                    self.push(me, 5.0, ExchangeFailed(peer, "no answer"))
            case FetchManifest(peer, _, version):
                if self.reachable(me, peer) and version > self.disks[me].versions[-1].version:
                    found = [m for m in self.disks[peer].versions if m.version == version]
                    self.learn(self.ids.index(me), *found)
            case SayHello(peer, _):
                if self.reachable(me, peer):
                    self.push(me, delay, HelloReceived(self.nodes[peer].hello(me, self.now + self.clock[peer])))
            case OpenTrainer(cycle, accept):
                ready = TrainerReady(1000, self.frauds[self.ids.index(me)], None, cycle)
                refused = (me, cycle) in self.refuse and not accept
                self.push(me, 1.0, ReadingRefused(cycle, "half of the rows are gone") if refused else ready)
            case KeepModel(model, bests):
                self.disks[me].champion, self.disks[me].bests = model, bests
            case StartTraining(number, vector):
                i = self.ids.index(me)
                target = np.resize(self.optimum(i), vector.size)
                trained = train(vector, target, 1000 * i + number)
                loss = float(np.linalg.norm(trained - target))
                self.push(
                    me,
                    self.training_seconds,
                    TrainingFinished(number, trained, b"adam", loss, 10, self.training_seconds),
                )
            case StartEvaluation(purpose, vector):
                distance = float(np.linalg.norm(vector - np.resize(self.optimum(0), vector.size)))
                metrics = {"validation": {"auprc": 1 / (1 + distance), "loss": distance}}
                self.push(me, 0.1, EvaluationFinished(purpose, metrics, 1 / (2 + distance)))
            case SetTimer(name, at):
                due = self.timers[(me, name)] = max(at, self.now)
                heapq.heappush(self.heap, (due, next(self.order), me, self.disks[me].epoch, TimerFired(name)))
            case Emit(event):
                if isinstance(event, StandingChanged):
                    assert self.disks[me].peers[event.member].standing == event.after, "durable before it is told"
                self.events[me].append(event)
            case Halt():
                self.crash(self.ids.index(me))

    def optimum(self, i: int) -> Vector:
        """Where bank `i` would train to alone."""
        shared = np.random.default_rng(5).normal(0, 1, MODEL.schema().size)
        shared = shared + self.drift * self.now * np.random.default_rng(8).normal(0, 1, shared.size)
        return (shared + np.random.default_rng([6, i]).normal(0, 0.5, shared.size)).astype(np.float32)

    def hash(self) -> str:
        """Of every node's model, round and sequence number."""
        state = hashlib.sha256()
        for me in sorted(self.nodes):
            rounds = self.nodes[me].rounds
            state.update(rounds.vector.tobytes() + f"{rounds.round} {rounds.seq} {rounds.statement_digest}".encode())
        return state.hexdigest()


def opened(frame: bytes, trust: Trust) -> ModelUpdate | RemoteFault:
    """The update in a frame, or why it is none for whoever trusts so."""
    try:
        return open_update(frame, trust)
    except RemoteFault as fault:
        return fault


def started(n: int, dial_out: frozenset[int] = frozenset(), **changes: object) -> Network:
    """A network whose `n` nodes all run from the start."""
    network = Network(make_manifest(n, dial_out), **changes)  # type: ignore[arg-type]
    for i in range(n):
        network.start(i)
    return network


def spread(network: Network) -> float:
    """Mean distance of the models from their mean."""
    vectors = np.stack([n.rounds.vector for n in network.nodes.values()])
    return float(np.linalg.norm(vectors - vectors.mean(0), axis=1).mean())


def updates_of(network: Network, member: NodeId) -> list[ModelUpdate]:
    """Every version of `member`'s update that anybody serves."""
    frames = {shelf[member][1] for shelf in network.shelves.values() if member in shelf}
    return [open_update(f, network.trust) for f in frames]
