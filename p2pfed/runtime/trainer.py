"""The daemon's side of training: a supervised child process, jobs in order, answers as Inputs of the node.

The network part of a node outlives its training part: a child that dies, hangs or grows is replaced, and the node
only hears `TrainerLost` and `TrainerReady`. A source that cannot be read is asked again and again: `ReadingFailed`.
"""

from __future__ import annotations

import asyncio
import statistics
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np

from p2pfed import errors
from p2pfed.config import NodeConfig
from p2pfed.core import record
from p2pfed.core.consortium import Manifest
from p2pfed.core.contract import Scaler
from p2pfed.core.effects import StartEvaluation, StartTraining
from p2pfed.core.inputs import (
    EvaluationFinished,
    Input,
    ReadingFailed,
    ReadingRefused,
    TrainerLost,
    TrainerReady,
    TrainingFinished,
)
from p2pfed.core.probe import Probe
from p2pfed.core.served import Served
from p2pfed.runtime.trainer_process import TrainerProcess, from_spawner, resident_bytes, start_own
from p2pfed.runtime.trainer_protocol import BrokenMessage, TrainerMessage
from p2pfed.store.state_dir import StateDir

LOADING_SECONDS = 300.0
"""How long a child may be silent while it imports TensorFlow and reads rows: both can hold Python's lock."""
SILENT_SECONDS = 30.0
"""How long a loaded child may be silent, and the least time a job is given."""
FIRST_JOB_SECONDS = 3600.0
"""Time to load the rows, and for a job while fewer than three of its kind tell what is usual."""
SLOW_FACTOR = 3
"""A job that takes this many times the median of its kind is stuck."""
RETRY_SECONDS, RETRY_LIMIT = 1.0, 60.0
GROWTH = 1.25
"""A child above its memory limit is replaced only if it grew this much since its first job: else the next would too."""

Job = StartTraining | StartEvaluation


class TrainerState(Enum):
    """What `status` says of the trainer."""

    STOPPED = "stopped"
    STARTING = "starting"
    LOADING = "loading"
    IDLE = "idle"
    TRAINING = "training"
    EVALUATING = "evaluating"
    ALONE = "training alone"  # the lonely model, after a cycle
    WAITING = "waiting"  # before the next attempt to start a child


@dataclass(frozen=True)
class Loaded:
    """What the child found when it read the bank's rows."""

    train_rows: int
    train_frauds: int
    scaler: Scaler
    report: dict[str, Any]
    reading: dict[str, Any] | None = field(default=None, compare=False)
    """What the next reading is compared with, plain JSON values; None where nothing is."""


class _Gone(Exception):
    """The child is no longer usable; the message says why."""


class _Unreadable(Exception):
    """The child could not read the bank's rows; the message says why."""


class _Refused(Exception):
    """What the child read does not look like this bank's payments; the message says why."""


class Trainer:
    """Supervises one training child; use from one event loop."""

    def __init__(
        self,
        config: NodeConfig,
        manifest: Manifest,
        on_input: Callable[[Input], None],
        on_loaded: Callable[[Loaded], None] = lambda loaded: None,
        *,
        learner: str = "keras",
        cycle: int = 0,
        accept: bool = False,
        last_reading: dict[str, Any] | None = None,
        counted_until: float | None = None,
        patient: bool = False,
    ) -> None:
        """`on_loaded` is told what a child found in the bank's rows, unless it is what the child before it found.

        `learner` is `keras` or, for tests, `numpy`. `cycle` and `accept` as of OpenTrainer; `last_reading` is the
        newest `Loaded.reading`, and how what served has fared is told of the payments after `counted_until` (Unix
        seconds). Who is not `patient` gives up, with `wait` raising, where the first child says that configuration
        and rows do not fit; a source that is only away is waited for in any case.
        """
        self.state = TrainerState.STOPPED
        self.restarts = 0
        """Children lost since the start; those replaced for their memory do not count."""
        self.loaded: Loaded | None = None
        self.cycle = cycle
        self.trained: list[int] = []
        """Rounds that were trained, as StartTraining named them."""
        self._config, self._manifest = config, manifest
        self._on_input, self._on_loaded, self._learner = on_input, on_loaded, learner
        self._accept, self._patient = accept, patient
        self._last_reading, self._counted_until = last_reading, counted_until
        self._jobs: deque[Job] = deque()
        self._submitted = asyncio.Event()
        self._child: TrainerProcess | None = None
        self._task: asyncio.Task[None] | None = None
        self._optimiser = b""
        self._durations: dict[type[Job], deque[float]] = {k: deque(maxlen=21) for k in (StartTraining, StartEvaluation)}
        self._ready, self._answered = asyncio.Event(), asyncio.Event()
        self._current: Job | None = None
        self._silent = self._busy = 0.0
        self._retry = RETRY_SECONDS

    @property
    def pid(self) -> int | None:
        """The child's process id."""
        return self._child.handle.pid if self._child else None

    @property
    def rss(self) -> int:
        """The child's resident bytes; 0 without a child."""
        return resident_bytes(self._child.handle.pid) if self._child else 0

    def start(self) -> None:
        """Begin to supervise; returns at once, `TrainerReady` follows when the rows are loaded."""
        self._task = asyncio.create_task(self._supervise(), name="trainer")
        self._task.add_done_callback(self._ended)

    async def wait(self) -> None:
        """Return after `stop` or a refused reading. Raises the LocalFault that kept the very first child from loading
        the bank's rows, unless this trainer is patient.
        """
        if self._task:
            await asyncio.wait([self._task])
            if not self._task.cancelled():
                self._task.result()

    def use(self, manifest: Manifest) -> None:
        """Train under a newer manifest. If it changes what a child is told, the next job is preceded by `TrainerReady`
        from a new child, and jobs queued meanwhile are dropped.
        """
        if manifest.model_digest != self._manifest.model_digest:
            self._optimiser = b""
        self._manifest = manifest
        self._submitted.set()

    def submit(self, job: Job) -> None:
        """Queue a job; it ends in TrainingFinished or EvaluationFinished, or is dropped with TrainerLost."""
        self._jobs.append(job)
        self._submitted.set()

    @property
    def idle(self) -> bool:
        """Whether a child has loaded the rows and nothing is queued."""
        return self.state is TrainerState.IDLE and not self._jobs

    def hand_over(self, on_input: Callable[[Input], None]) -> tuple[int, ...]:
        """Answer to somebody else from now on; the rounds, as StartTraining named them, that were trained so far."""
        self._on_input = on_input
        return tuple(self.trained)

    async def stop(self) -> None:
        """End the child: SIGTERM, SIGKILL after 20 s."""
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _ended(self, _task: asyncio.Task[None]) -> None:
        self.state = TrainerState.STOPPED

    async def _supervise(self) -> None:
        quiet = False
        while True:
            try:
                told = self._load_message()
                await self._one_child(told, quiet)
                quiet = told == self._load_message()  # the child grew; otherwise the manifest has changed
            except _Refused as refusal:
                self._on_input(ReadingRefused(self.cycle, str(refusal)))
                return
            except _Unreadable as error:
                await self._pause(ReadingFailed(self.cycle, str(error)))
                quiet = False
            except (_Gone, OSError, BrokenMessage) as error:
                self.restarts += 1
                await self._pause(TrainerLost(str(error) or type(error).__name__, self.cycle))
                quiet = False

    async def _pause(self, why: Input) -> None:
        """Tell the node that there is no child, and wait before the next attempt to have one."""
        self._jobs.clear()
        self.state = TrainerState.WAITING
        self._on_input(why)
        await asyncio.sleep(self._retry)
        self._retry = min(RETRY_LIMIT, 2 * self._retry)

    async def _one_child(self, load: TrainerMessage, quiet: bool) -> None:
        """Run one child; returns when it must be replaced, raises why it is lost otherwise.

        A `quiet` child takes over the jobs of the one before it, and the node does not hear of it.
        """
        self.state = TrainerState.STARTING
        path, state = self._config.learning.trainer_socket, StateDir(self._config.node.state_dir)
        child = self._child = await (from_spawner(path, LOADING_SECONDS) if path else start_own(state.temporary))
        kill = True
        try:
            self.state, self._silent, self._busy, self._current = TrainerState.LOADING, 0.0, 0.0, None
            self._ready.clear()
            await _first_of(self._listen(child, load, quiet), self._feed(child, load), self._watch())
            kill = False
        except asyncio.CancelledError:
            kill = False
            raise
        finally:
            self._child = None
            await child.end(kill)

    async def _listen(self, child: TrainerProcess, load: TrainerMessage, quiet: bool) -> None:
        """Turn the child's messages into Inputs until the stream ends; raises why it ended."""
        while (message := await child.hear()) is not None:
            self._silent = 0.0
            if message.kind == "ready" and load != self._load_message():
                self._ready.set()  # it read for a manifest that has changed meanwhile, and is replaced
            elif message.kind == "ready":
                told = message.fields
                scaler = record.build(Scaler, told["scaler"])
                loaded = Loaded(told["train_rows"], told["train_frauds"], scaler, told["report"], told["reading"])
                if loaded != self.loaded:
                    self._on_loaded(loaded)
                    self.loaded = loaded
                if not quiet:
                    # whatever was asked for meanwhile, the node asks again
                    self._jobs.clear()
                    probe = Probe(*(np.frombuffer(rows, "<f4") for rows in message.blobs))
                    served = told.get("served") and record.build(Served, told["served"])
                    self._on_input(self._trainer_ready(loaded, probe, served))
                self._ready.set()
            elif message.kind == "refused":
                raise _Refused(message.fields["why"])
            elif message.kind in ("trained", "evaluated"):
                job, self._current = self._jobs.popleft(), None
                self._durations[type(job)].append(self._busy)
                self._retry = RETRY_SECONDS
                self._answered.set()
                self._on_input(self._finished(message))
            elif message.kind == "failed":
                raise self._fault(message.fields)
        raise _Gone("the trainer process ended unexpectedly; the system's log tells if memory ran out")

    def _trainer_ready(self, loaded: Loaded, probe: Probe, served: Served | None) -> TrainerReady:
        found = loaded.reading or {}
        return TrainerReady(
            loaded.train_rows, loaded.train_frauds, probe, self.cycle, served, found.get("immature"),
            found.get("newest"),
        )  # fmt: skip

    async def _feed(self, child: TrainerProcess, load: TrainerMessage) -> None:
        """Hand the child its `load`, then one job after the other; returns when it must be replaced."""
        try:
            await child.say(load)
            await self._ready.wait()
            self.state, settled, fresh = TrainerState.IDLE, 0, True
            while not self._outgrown(settled) and load == self._load_message():
                if not self._jobs:
                    self._submitted.clear()
                    await self._submitted.wait()
                    continue
                job = self._jobs[0]
                trains = isinstance(job, StartTraining)
                self._current, self._busy = job, 0.0
                self._answered.clear()
                self.state = TrainerState.TRAINING if trains else TrainerState.EVALUATING
                await child.say(self._job_message(job, fresh))
                fresh = fresh and not trains
                await self._answered.wait()
                self.state = TrainerState.IDLE
                settled = settled or self.rss
        except OSError:
            await asyncio.Event().wait()  # the listener will find out what the child's last word was

    async def _watch(self) -> None:
        """Raise when the child is silent or stuck. Counts its own wake-ups: a suspended daemon must blame nobody."""
        while True:
            await asyncio.sleep(1.0)
            self._silent += 1.0
            self._busy += 1.0
            if self._silent > (SILENT_SECONDS if self._ready.is_set() else LOADING_SECONDS):
                raise _Gone(f"the trainer process has said nothing for {self._silent:.0f} s")
            if self.state is not TrainerState.IDLE and self._busy > self._patience():
                raise _Gone(f"the trainer process is stuck: it has been {self.state.value} for {self._busy:.0f} s")

    def _patience(self) -> float:
        usual = self._durations[type(self._current)] if self._current else ()
        return max(SILENT_SECONDS, SLOW_FACTOR * statistics.median(usual)) if len(usual) >= 3 else FIRST_JOB_SECONDS

    def _outgrown(self, settled: int) -> bool:
        rss = self.rss
        return rss > self._config.learning.trainer_memory_mb * 2**20 and rss > GROWTH * settled > 0

    def _load_message(self) -> TrainerMessage:
        manifest, learning = self._manifest, self._config.learning
        fields = {
            "data": self._config.data.model_dump(mode="json"),
            "contract": record.plain(manifest.contract),
            "model": record.plain(manifest.model),
            "policy": record.plain(manifest.training),
            "threshold": learning.threshold.model_dump(mode="json"),
            "seed": learning.seed,
            "learner": self._learner,
            "last_reading": self._last_reading,
            "accept": self._accept,
            "counted_until": self._counted_until,
            "models": str(StateDir(self._config.node.state_dir).models),
        }
        return TrainerMessage("load", fields)

    def _job_message(self, job: Job, fresh: bool) -> TrainerMessage:
        vector = np.ascontiguousarray(job.vector, "<f4").tobytes()
        if isinstance(job, StartEvaluation):
            return TrainerMessage("evaluate", {"purpose": job.purpose}, (vector,))
        # a child that replaces another has no state of its own to go on with
        optimiser = job.optimiser or (self._optimiser if fresh else b"")
        return TrainerMessage("train", {"round": job.round}, (vector, optimiser))

    def _finished(self, message: TrainerMessage) -> Input:
        fields = message.fields
        if message.kind == "evaluated":
            return EvaluationFinished(fields["purpose"], fields["metrics"], fields["threshold"])
        vector = np.frombuffer(message.blobs[0], "<f4")
        self._optimiser = bytes(message.blobs[1])
        self.trained.append(fields["round"])
        return TrainingFinished(
            fields["round"], vector, self._optimiser, fields["loss"], fields["steps"], fields["seconds"]
        )

    def _fault(self, fields: dict[str, Any]) -> Exception:
        """The child's own error, if it is the operator's to mend before anything worked; else only a lost child."""
        if self._ready.is_set():
            return _Gone(fields["message"])
        kind = getattr(errors, fields["error"], None)
        first = self.loaded is None and not self._patient
        if first and isinstance(kind, type) and issubclass(kind, errors.LocalFault) and kind is not errors.Unavailable:
            return kind(fields["message"])
        return _Unreadable(fields["message"])


async def _first_of(*work: Coroutine[Any, Any, None]) -> None:
    """Run all until one returns or raises, then cancel the others; raises what it raised."""
    tasks = [asyncio.create_task(w) for w in work]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            if not task.done():
                task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
