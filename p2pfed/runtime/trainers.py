"""The trainers of a daemon: one supervised child for each cycle that the node has opened, and none while it rests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from p2pfed.config import NodeConfig
from p2pfed.core.consortium import Manifest
from p2pfed.core.contract import Scaler
from p2pfed.core.inputs import Input
from p2pfed.runtime.alone import Alone
from p2pfed.runtime.trainer import Job, Loaded, Trainer, TrainerState

SCALERS_KEPT = 4
"""Cycles whose scaling is remembered: a model is kept at the end of its cycle, when the next one may be open."""


class Trains(Protocol):
    """What the driver asks of the trainers."""

    def open(self, cycle: int, accept: bool) -> None:
        """Start the trainer of a cycle; see `OpenTrainer`."""

    def close(self, cycle: int) -> None:
        """End the trainers up to a cycle; see `CloseTrainer`."""

    def submit(self, job: Job) -> None:
        """Queue a job for the trainer of its cycle."""


class Trainers:
    """Opens and closes trainers as the node says; use from one event loop.

    Of several the newest is the one that `state`, `pid` and `rss` are about.
    """

    def __init__(
        self,
        config: NodeConfig,
        manifest: Manifest,
        on_input: Callable[[Input], None],
        on_loaded: Callable[[Loaded], None] = lambda loaded: None,
        *,
        last_reading: dict[str, Any] | None = None,
        counted_until: Callable[[], float | None] = lambda: None,
        serves: bool = False,
        alone: Alone | None = None,
        learner: str = "keras",
    ) -> None:
        """`on_loaded`, `last_reading`, `counted_until` and `learner` as of Trainer; `serves` is whether a model does.

        If one does, no reading that fails ends anything, and neither does one after the first. A trainer that is not
        needed any more trains `alone` before it ends.
        """
        self.loaded: Loaded | None = None
        """What the newest reading found; stays when its trainer is closed."""
        self._config, self._manifest, self._on_input, self._on_loaded = config, manifest, on_input, on_loaded
        self._last_reading, self._counted_until = last_reading, counted_until
        self._serves, self._learner = serves, learner
        self._coming: Manifest | None = None
        self._open: dict[int, Trainer] = {}
        self._scalers: dict[int, Scaler] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._restarts = 0
        self._alone = alone
        self._aside: tuple[Trainer, asyncio.Task[None]] | None = None
        """The trainer of a cycle that is over, while it trains the lonely model."""
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # --- what the node asks for ---------------------------------------------------------------------------------------

    def open(self, cycle: int, accept: bool) -> None:
        """Start the trainer of `cycle`, in the place of one that there may be; see OpenTrainer."""
        if cycle in self._open:
            self._end(cycle)
        trainer = Trainer(
            self._config,
            self._of(cycle),
            lambda given: self._told(trainer, given),
            lambda loaded: self._found(trainer, loaded),
            learner=self._learner,
            cycle=cycle,
            accept=accept,
            last_reading=self._last_reading,
            counted_until=self._counted_until(),
            patient=self._serves or self.loaded is not None,
        )
        self._open[cycle] = trainer
        trainer.start()
        watching = asyncio.create_task(self._watch(trainer), name=f"trainer {cycle} watch")
        self._closing.add(watching)
        watching.add_done_callback(self._closing.discard)

    def close(self, cycle: int) -> None:
        """End the trainers of `cycle` and of those before, in the background; see CloseTrainer.

        One that has trained lives on for the lonely model, and answers nobody else.
        """
        for old in [c for c in self._open if c <= cycle]:
            trainer = self._open[old]
            if self._alone is not None and trainer.idle and trainer.trained:
                self._train_alone(self._alone, self._open.pop(old))
            else:
                self._end(old)

    def submit(self, job: Job) -> None:
        """Queue a job for the trainer of its cycle; dropped if there is none."""
        if (trainer := self._open.get(job.cycle)) is not None:
            trainer.submit(job)

    def use(self, manifest: Manifest, coming: Manifest | None = None) -> None:
        """Train under a newer manifest, and in the cycles of one that is `coming` under that; see Trainer."""
        self._manifest, self._coming = manifest, coming
        for cycle, trainer in self._open.items():
            trainer.use(self._of(cycle))

    def _of(self, cycle: int) -> Manifest:
        """The manifest that is in force in `cycle`; free-running nodes wait for a restart."""
        coming = self._coming
        waits = coming is None or self._manifest.calendar.free or cycle < coming.from_cycle
        return self._manifest if coming is None or waits else coming

    async def wait(self) -> None:
        """Never return; raises the LocalFault that kept the very first child from loading the bank's rows."""
        await self._failed

    async def stop(self) -> None:
        """End every child, and wait until they have ended."""
        for cycle in list(self._open):
            self._end(cycle)
        if self._aside is not None:
            self._aside[1].cancel()
            await asyncio.wait([self._aside[1]])
        while self._closing:
            await asyncio.wait(self._closing)

    # --- what status and metrics say ----------------------------------------------------------------------------------

    @property
    def _newest(self) -> Trainer | None:
        if self._open:
            return self._open[max(self._open)]
        return self._aside[0] if self._aside else None

    @property
    def state(self) -> TrainerState:
        """Of the newest trainer; STOPPED while there is none."""
        if self._aside is not None and not self._open:
            return TrainerState.ALONE
        return self._newest.state if self._newest else TrainerState.STOPPED

    @property
    def pid(self) -> int | None:
        """The newest child's process id."""
        return self._newest.pid if self._newest else None

    @property
    def rss(self) -> int:
        """The newest child's resident bytes; 0 without a child."""
        return self._newest.rss if self._newest else 0

    @property
    def restarts(self) -> int:
        """Children lost since the start."""
        return self._restarts + sum(trainer.restarts for trainer in self._open.values())

    def scaler(self, cycle: int) -> Scaler | None:
        """How the rows read for `cycle` are scaled, or those read last; None before any."""
        return self._scalers.get(cycle) or (self.loaded.scaler if self.loaded else None)

    # --- the trainers' words ------------------------------------------------------------------------------------------

    def _told(self, trainer: Trainer, given: Input) -> None:
        if self._open.get(trainer.cycle) is trainer:  # else it has been closed, and nobody waits for its answers
            self._on_input(given)

    def _found(self, trainer: Trainer, loaded: Loaded) -> None:
        self.loaded = loaded
        self._last_reading = loaded.reading or self._last_reading
        self._scalers[trainer.cycle] = loaded.scaler
        while len(self._scalers) > SCALERS_KEPT:
            del self._scalers[next(iter(self._scalers))]
        self._on_loaded(loaded)

    def _end(self, cycle: int) -> None:
        self._dismiss(self._open.pop(cycle))

    def _train_alone(self, alone: Alone, trainer: Trainer) -> None:
        """Let a trainer that is not needed any more train the lonely model, in the place of one that still does."""
        if self._aside is not None:
            self._aside[1].cancel()
        task = asyncio.create_task(alone.follow(trainer, self._of(trainer.cycle)), name=f"alone {trainer.cycle}")
        task.add_done_callback(lambda _: self._dismiss(trainer))
        self._aside = trainer, task

    def _dismiss(self, trainer: Trainer) -> None:
        if self._aside is not None and self._aside[0] is trainer:
            self._aside = None
        self._restarts += trainer.restarts
        ending = asyncio.create_task(trainer.stop(), name=f"trainer {trainer.cycle} ends")
        self._closing.add(ending)
        ending.add_done_callback(self._closing.discard)

    async def _watch(self, trainer: Trainer) -> None:
        try:
            await trainer.wait()
        except Exception as error:  # whatever it was, the daemon must hear of it
            if not self._failed.done():
                self._failed.set_exception(error)
