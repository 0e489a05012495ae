"""Interprets the effects of many GossipNodes in virtual time: one heap of what happens when, to whom.

What the daemon's driver does with sockets, files and a trainer child is done here with entries of the heap. A node
cannot tell the difference.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, ClassVar, Protocol

from p2pfed.core.consortium import Manifest
from p2pfed.core.effects import (
    CloseTrainer,
    Effect,
    Emit,
    ExchangeHeartbeats,
    FetchManifest,
    Halt,
    KeepModel,
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
from p2pfed.core.events import Event
from p2pfed.core.inputs import (
    Input,
    ManifestChanged,
    ReadingRefused,
    Started,
    StopRequested,
    TimerFired,
    TrainerLost,
    TrainerReady,
)
from p2pfed.core.node import GossipNode
from p2pfed.core.settings import Memory
from p2pfed.core.succession import InForce, in_force
from p2pfed.sim.churn import BackUp, Churn, Happening, Kill, Leave, Restore, Start, Step
from p2pfed.sim.exchanges import Exchanges, Question
from p2pfed.sim.host import Host
from p2pfed.sim.network import Network, Partition
from p2pfed.sim.training import Measuring, Trainers, Training

RETRY_SECONDS = 1.0
"""Before another trainer takes the place of one that died."""
LOOK_EVERY = 1000
"""Entries of the heap between two looks at what is beside the simulation."""


class Watcher(Protocol):
    """Hears what happens."""

    def emitted(self, time: float, host: Host, event: Event) -> None:
        """A node told its operator something at `time` (virtual seconds)."""

    def happened(self, time: float, what: str, host: Host | None = None) -> None:
        """Something came over a machine, or over the network, of which no node tells."""

    def changed(self, host: Host) -> None:
        """A machine came up, or went down."""

    def look(self, time: float) -> None:
        """Now and then."""


class Interpreter:
    """Virtual time for a set of machines."""

    def __init__(
        self,
        hosts: Sequence[Host],
        make_node: Callable[[Host, Memory, InForce], GossipNode],
        manifest: Manifest,
        network: Network,
        trainers: Trainers,
        churn: Churn,
        watcher: Watcher,
        *,
        load_seconds: float,
        read: Callable[[Host, int], None] = lambda host, cycle: None,
    ) -> None:
        """`make_node` makes a machine's node from what its disk remembers and what is in force, `manifest` at first;
        `read` reads a cycle's rows for it.
        """
        self.now = 0.0
        self.ended = False
        """Set it to end."""
        self.inputs = 0
        """Given to nodes so far."""
        self._network, self._trainers, self._churn, self._watcher = network, trainers, churn, watcher
        self._make_node, self._load_seconds, self._read = make_node, load_seconds, read
        self._heap: list[tuple[float, int, Host, int | None, Any]] = []
        self._order = count()
        self._manifest = manifest
        self._exchanges = Exchanges(hosts, network, manifest, self._later, self._hand, lambda host: host.wall(self.now))

    def at(self, time: float, host: Host, given: Happening) -> None:
        """Let something happen to a machine, or (whichever) to the network, at `time`."""
        heapq.heappush(self._heap, (time, next(self._order), host, None, given))

    def run(self) -> None:
        """Go on until somebody sets `ended` or nothing more can happen."""
        heap, acts, steps = self._heap, self._ACTS, 0
        while heap and not self.ended:
            self.now, order, host, start, given = heapq.heappop(heap)
            if start is not None and (host.node is None or start != host.starts):
                continue
            act = acts.get(type(given))
            if act is not None:
                act(self, host, given)
            elif type(given) is not TimerFired or self._due(host, given, order):
                self._hand(host, given)
            steps += 1
            if steps % LOOK_EVERY == 0:
                self._watcher.look(self.now)

    def _later(self, seconds: float, host: Host, start: int | None, given: Any) -> None:
        heapq.heappush(self._heap, (self.now + seconds, next(self._order), host, start, given))

    def _mine(self, seconds: float, host: Host, given: Any) -> None:
        """Something for this process of the node alone."""
        self._later(seconds, host, host.starts, given)

    def _hand(self, host: Host, given: Input) -> None:
        """Give a node an input now, and carry out what it asks for."""
        assert host.node is not None
        self.inputs += 1
        carry_out = self._EFFECTS
        for effect in host.node.handle(given, host.read_clock(self.now), host.wall(self.now)):
            carry_out[type(effect)](self, host, effect)

    # --- what happens to machines -------------------------------------------------------------------------------------

    def _start(self, host: Host, _: Start) -> None:
        if host.node is not None or host.gone or self.now < host.down_until:
            return
        disk = host.disk
        disk.epoch += 1
        host.starts += 1
        trained = disk.checkpoint.model if disk.checkpoint else ""
        force = in_force((self._manifest, *disk.versions), host.wall(self.now), trained)
        updates = tuple(self._exchanges.opened(disk.frames.values(), force))
        memory = Memory(
            disk.epoch, f"{host.index:032x}", disk.checkpoint, dict(disk.marks), updates, dict(disk.peers), disk.scales,
            dict(disk.proofs), disk.champion, disk.bests,
        )  # fmt: skip
        host.shelf, host.timers = {}, {}
        host.node = self._make_node(host, memory, force)
        self._watcher.changed(host)
        self._hand(host, Started())
        if (seconds := self._churn.seconds_up(host.index)) is not None:
            self._mine(seconds, host, Kill())

    def _load(self, host: Host, cycle: int, wait: float = 0.0) -> None:
        given: Input = TrainerReady(host.train_rows, host.train_frauds, host.probe, cycle)
        if cycle in host.refused:
            given = ReadingRefused(cycle, "half of the rows are gone")
        self._mine(wait + self._load_seconds, host, given)

    def _kill(self, host: Host, kill: Kill) -> None:
        if host.gone:
            return
        until = self.now + self._churn.seconds_down() if kill.until is None else kill.until
        host.down_until = max(host.down_until, until)
        self.at(until, host, Start())
        if host.node is not None:
            self._watcher.happened(self.now, "is killed", host)
            self._stop(host)

    def _leave(self, host: Host, _: Leave) -> None:
        host.gone = True
        if host.node is None:
            self._watcher.happened(self.now, "stays away", host)
        else:
            self._hand(host, StopRequested())

    def _follow(self, host: Host, given: ManifestChanged) -> None:
        """A newer version of the manifest comes, from the operator or from a member that was asked."""
        version, disk = given.manifest.version, host.disk
        if host.gone or any(known.version == version for known in disk.versions):
            return
        disk.versions += (given.manifest,)
        self._watcher.happened(self.now, f"has version {version} of the manifest", host)
        if host.node is not None:
            self._hand(host, given)

    def _set_clock(self, host: Host, step: Step) -> None:
        host.stepped += step.seconds
        how = "on" if step.seconds > 0 else "back"
        self._watcher.happened(self.now, f"has its clock set {how} by {abs(step.seconds):g} s", host)

    def _back_up(self, host: Host, _: BackUp) -> None:
        host.backup = host.disk.copy()

    def _restore(self, host: Host, _: Restore) -> None:
        if host.gone:
            return
        self._watcher.happened(self.now, "is put back to its backup", host)
        if host.node is not None:
            self._stop(host)
        host.disk = host.backup.copy()
        self._start(host, Start())

    def _stop(self, host: Host) -> None:
        host.node = None
        self._trainers.lose(host.index)
        self._watcher.changed(host)

    def _partition(self, _: Host, partition: Partition) -> None:
        begins = self._network.turn(partition)
        self._watcher.happened(self.now, f"partition {'begins' if begins else 'ends'}")

    def _trained(self, host: Host, training: Training) -> None:
        if (given := self._trainers.trained(training)) is not None:
            self._hand(host, given)

    def _measured(self, host: Host, measuring: Measuring) -> None:
        given = self._trainers.measured(measuring)
        if given is not None:
            self._hand(host, given)
        if isinstance(given, TrainerLost):
            self._load(host, given.cycle, RETRY_SECONDS)

    def _question(self, host: Host, question: Question) -> None:
        self._exchanges.arrive(host, question)

    def _due(self, host: Host, timer: TimerFired, order: int) -> bool:
        """Whether a timer has not been set anew since."""
        due, reading = host.timers[timer.name]
        if due != order:
            return False
        # what the node asked for, rounded like its own sums
        host.now = max(host.now, reading)
        return True

    _ACTS: ClassVar[dict[type, Callable[[Interpreter, Host, Any], None]]] = {
        Question: _question,
        Training: _trained,
        Measuring: _measured,
        Start: _start,
        Kill: _kill,
        Leave: _leave,
        ManifestChanged: _follow,
        Step: _set_clock,
        BackUp: _back_up,
        Restore: _restore,
        Partition: _partition,
    }

    # --- effects ------------------------------------------------------------------------------------------------------

    def _save(self, host: Host, effect: Save) -> None:
        host.disk.save(effect)

    def _publish(self, host: Host, effect: Publish) -> None:
        host.shelf[effect.member] = (effect.seq, effect.frame)

    def _withdraw(self, host: Host, effect: Withdraw) -> None:
        host.shelf.pop(effect.member, None)

    def _request(self, host: Host, effect: Any) -> None:
        self._exchanges.ask(host, effect)

    def _open_trainer(self, host: Host, effect: OpenTrainer) -> None:
        self._read(host, effect.cycle)
        self._load(host, effect.cycle)

    def _close_trainer(self, host: Host, effect: CloseTrainer) -> None:
        self._trainers.close(host.index, effect.cycle)

    def _train(self, host: Host, effect: StartTraining) -> None:
        training = self._trainers.train(host.index, effect)
        self._mine(training.seconds, host, training)

    def _measure(self, host: Host, effect: StartEvaluation) -> None:
        measuring = self._trainers.measure(host.index, effect)
        self._mine(measuring.seconds, host, measuring)

    def _keep_model(self, host: Host, effect: KeepModel) -> None:
        host.disk.keep(effect)

    def _set_timer(self, host: Host, effect: SetTimer) -> None:
        order = next(self._order)
        host.timers[effect.name] = (order, effect.at)
        time = max(self.now, host.clock.virtual(effect.at))
        heapq.heappush(self._heap, (time, order, host, host.starts, TimerFired(effect.name)))

    def _emit(self, host: Host, effect: Emit) -> None:
        self._watcher.emitted(self.now, host, effect.event)

    def _halt(self, host: Host, _: Halt) -> None:
        self._watcher.happened(self.now, "leaves", host)
        self._stop(host)

    _EFFECTS: ClassVar[dict[type[Effect], Callable[[Interpreter, Host, Any], None]]] = {
        Save: _save,
        Publish: _publish,
        Withdraw: _withdraw,
        Pull: _request,
        Push: _request,
        ExchangeHeartbeats: _request,
        SayHello: _request,
        FetchManifest: _request,
        OpenTrainer: _open_trainer,
        CloseTrainer: _close_trainer,
        StartTraining: _train,
        StartEvaluation: _measure,
        KeepModel: _keep_model,
        SetTimer: _set_timer,
        Emit: _emit,
        Halt: _halt,
    }
