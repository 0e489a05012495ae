"""The Trainer against real child processes, with the numpy learner so that they start quickly."""

import asyncio
from pathlib import Path

import numpy as np

from p2pfed.core.events import (
    EvaluationFinished,
    Input,
    StartEvaluation,
    StartTraining,
    TrainerReady,
    TrainingFinished,
)
from p2pfed.runtime.trainer import Trainer, TrainerState
from tests.runtime.bank import FRAUDS, ROWS, config, manifest, write_bank


class Watched:
    """A Trainer whose Inputs can be awaited."""

    def __init__(self, folder: Path, **changes: object) -> None:
        self.inputs: asyncio.Queue[Input] = asyncio.Queue()
        write_bank(folder)
        self.manifest = manifest()
        self.start_vector = self.manifest.model.initial_weights(self.manifest.seed).vector
        self.trainer = Trainer(
            config(folder, **changes), folder, self.manifest, self.inputs.put_nowait, learner="numpy"
        )

    async def __aenter__(self) -> "Watched":
        self.trainer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.trainer.stop()

    async def next(self, kind: type) -> Input:
        async with asyncio.timeout(30):
            answer = await self.inputs.get()
        assert isinstance(answer, kind), answer
        return answer


async def test_it_loads_trains_and_evaluates_in_order(tmp_path: Path) -> None:
    async with Watched(tmp_path) as bank:
        ready = await bank.next(TrainerReady)
        assert 0 < ready.train_frauds < FRAUDS and ready.train_frauds < ready.train_rows < ROWS
        bank.trainer.submit(StartTraining(1, bank.start_vector, b""))
        bank.trainer.submit(StartEvaluation("round", bank.start_vector))
        trained = await bank.next(TrainingFinished)
        assert (trained.round, trained.steps) == (1, bank.manifest.training.local_steps)
        assert trained.vector.dtype == np.float32 and not np.array_equal(trained.vector, bank.start_vector)
        evaluated = await bank.next(EvaluationFinished)
        assert evaluated.purpose == "round" and set(evaluated.metrics) == {"validation", "own_test"}
        assert bank.trainer.state is TrainerState.IDLE and bank.trainer.loaded.report
