"""What this bank's model would be without the others: one that trains alone beside it, on the same rows and steps.

After a cycle its trainer lives on for as long as it trained. It trains the lonely model, which is merged with nobody's
and goes on from where it was a cycle ago, as many rounds, or fewer if the daemon stops or the next cycle ends
meanwhile. After the last of them both it and what serves are measured on the validation rows of now. That is what the
consortium is worth to this bank; it costs as much training again, at a lower priority.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from p2pfed.core import record
from p2pfed.core.consortium import Manifest
from p2pfed.core.effects import KeptModel, StartEvaluation, StartTraining
from p2pfed.core.events import Event, GainMeasured, Metrics
from p2pfed.core.inputs import EvaluationFinished, Input, TrainingFinished
from p2pfed.core.weights import Vector
from p2pfed.learning.learner import AdamState
from p2pfed.logs import NodeLogger
from p2pfed.runtime.trainer import Trainer
from p2pfed.store.state_dir import write_atomically

NICENESS = 15
"""Of the trainer meanwhile: the next cycle's may train already."""

T = TypeVar("T")


class _GivenUp(Exception):
    """The lonely model misses this cycle; the message says why."""


@dataclass(frozen=True)
class _Lonely:
    """The model that trains alone."""

    model: str
    """`Manifest.model_digest`: under another one it begins anew."""
    rounds: int
    vector: Vector
    optimiser: bytes


class Alone:
    """Trains the lonely model of one bank, and keeps it in a file; use from one event loop."""

    def __init__(
        self,
        path: Path,
        log: NodeLogger,
        emit: Callable[[Event], None],
        champion: Callable[[], KeptModel | None],
    ) -> None:
        """Read what there is in `path`. `champion` says what serves, `emit` tells the operator."""
        self._path, self._log, self._emit, self._champion = path, log, emit, champion
        self._lonely: _Lonely | None = None
        self._saving = threading.Lock()
        self.gain: GainMeasured | None = None
        """What the newest measurement found."""
        try:
            self._read(path.read_bytes())
        except FileNotFoundError:
            pass
        except Exception as error:  # a damaged archive raises whatever its bytes lead to; no daemon ends of it
            log.warning("%s is damaged, the model that trains alone begins anew: %r", path, error)

    async def follow(self, trainer: Trainer, manifest: Manifest) -> None:
        """Train the rounds that `trainer` did for the node, then measure; it is this object's from now on.

        What goes wrong is told in the log: no more depends on it.
        """
        inputs: asyncio.Queue[Input] = asyncio.Queue()
        rounds = trainer.hand_over(inputs.put_nowait)
        if trainer.pid is not None:
            with contextlib.suppress(OSError):  # it has just ended, or is at a lower priority already
                os.setpriority(os.PRIO_PROCESS, trainer.pid, NICENESS)
        try:
            await self._train(trainer, inputs, manifest, rounds)
        except _GivenUp as why:
            self._log.warning("the model that trains alone misses cycle %d: %s", trainer.cycle, why)
        except Exception:  # nothing but this measurement depends on it: the daemon goes on
            self._log.exception("the model that trains alone misses cycle %d", trainer.cycle)

    async def _train(
        self, trainer: Trainer, inputs: asyncio.Queue[Input], manifest: Manifest, rounds: tuple[int, ...]
    ) -> None:
        begun, champion, lonely = time.monotonic(), self._champion(), self._of(manifest)
        try:
            for number in rounds:
                trainer.submit(StartTraining(number, lonely.vector, lonely.optimiser, trainer.cycle))
                done = await _next(inputs, TrainingFinished)
                if not np.isfinite(done.vector).all():
                    self._lonely = None
                    raise _GivenUp("its training diverged, so it begins anew")
                self._lonely = lonely = _Lonely(lonely.model, lonely.rounds + 1, done.vector, done.optimiser)
            if champion is not None and champion.model == manifest.model_digest:
                alone = await _measure(trainer, inputs, lonely.vector)
                serves = await _measure(trainer, inputs, champion.vector)
                self._tell(trainer.cycle, alone, serves, time.monotonic() - begun)
        finally:  # what is trained is kept also where the daemon stops, the next cycle ends or the child is lost
            await asyncio.to_thread(self._save)

    def _save(self) -> None:
        """Write the file, from any thread: one at a time, and the newest state last."""
        with self._saving:
            if self._lonely is not None:
                write_atomically(self._path, _bytes(self._lonely, self.gain))

    def _of(self, manifest: Manifest) -> _Lonely:
        """The lonely model as it is, or as it begins: there is none, or it is another, or misfits."""
        lonely, initial = self._lonely, manifest.initial.vector
        if lonely is not None and lonely.model == manifest.model_digest:
            try:
                AdamState.from_bytes(lonely.optimiser, initial.size)
                if lonely.vector.shape == initial.shape and np.isfinite(lonely.vector).all():
                    return lonely
                why = f"{lonely.vector.shape} weights, or some are not finite; {initial.shape} are right"
            except ValueError as error:
                why = str(error)
            self._log.warning("%s is damaged, the model that trains alone begins anew: %s", self._path, why)
            self.gain = None
        return _Lonely(manifest.model_digest, 0, initial, AdamState.fresh(initial.size).to_bytes())

    def _tell(self, cycle: int, alone: Metrics, serves: Metrics, seconds: float) -> None:
        assert self._lonely is not None
        mine, its = alone.get("auprc"), serves.get("auprc")
        if mine is None or its is None:
            return  # a bank without frauds among its validation rows
        frauds = sum(serves["confusion"][1])
        self.gain = GainMeasured(cycle, its - mine, its, mine, frauds, self._lonely.rounds, seconds)
        self._emit(self.gain)

    def _read(self, data: bytes) -> None:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            head: dict[str, Any] = json.loads(str(file["head"]))
            vector, optimiser = file["vector"].astype("<f4"), file["optimiser"].tobytes()
        gain = record.build(GainMeasured, head["gain"]) if head["gain"] else None
        self._lonely, self.gain = _Lonely(str(head["model"]), int(head["rounds"]), vector, optimiser), gain


def _bytes(kept: _Lonely, gain: GainMeasured | None) -> bytes:
    head = json.dumps({"model": kept.model, "rounds": kept.rounds, "gain": record.plain(gain)})
    file = io.BytesIO()
    np.savez(file, head=np.array(head), vector=kept.vector, optimiser=np.frombuffer(kept.optimiser, np.uint8))
    return file.getvalue()


async def _measure(trainer: Trainer, inputs: asyncio.Queue[Input], vector: Vector) -> Metrics:
    trainer.submit(StartEvaluation("alone", vector, trainer.cycle))
    return (await _next(inputs, EvaluationFinished)).metrics.get("validation", {})


async def _next(inputs: asyncio.Queue[Input], kind: type[T]) -> T:
    """The trainer's next word; a trainer watches its child, so that there is one. Raises _GivenUp on another."""
    given = await inputs.get()
    if not isinstance(given, kind):
        raise _GivenUp(f"its trainer was lost ({type(given).__name__})")
    return given
