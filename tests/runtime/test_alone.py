"""The model that trains alone beside the node's: as many rounds, on the same rows, and kept over restarts."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from p2pfed import logs
from p2pfed.core.effects import KeptModel, StartTraining
from p2pfed.core.events import Event, GainMeasured
from p2pfed.core.inputs import Input, TrainerReady, TrainingFinished
from p2pfed.core.weights import Vector
from p2pfed.data.features import load_bank
from p2pfed.data.imbalance import learning_rows
from p2pfed.learning.learner import AdamState
from p2pfed.learning.numpy_learner import NumpyLearner
from p2pfed.runtime.alone import NICENESS, Alone
from p2pfed.runtime.trainer import TrainerState
from p2pfed.runtime.trainers import Trainers
from tests.runtime.bank import config, manifest, write_bank

T = TypeVar("T")
MANIFEST = manifest()
INITIAL = MANIFEST.initial.vector
FRESH = AdamState.fresh(INITIAL.size).to_bytes()


def champion(vector: Vector = INITIAL, model: str = MANIFEST.model_digest) -> KeptModel:
    return KeptModel(1, vector, 0.5, {}, 0.0, 0, model)


class Bank:
    """Trainers with a lonely model, and what they told."""

    def __init__(self, folder: Path, serves: Callable[[], KeptModel | None] = champion) -> None:
        self.told: list[Event] = []
        self.inputs: asyncio.Queue[Input] = asyncio.Queue()
        self.alone = Alone(folder / "alone.npz", logs.for_node("bank-a"), self.told.append, serves)
        self.trainers = Trainers(config(folder), MANIFEST, self.inputs.put_nowait, alone=self.alone, learner="numpy")

    async def next(self, kind: type[T]) -> T:
        async with asyncio.timeout(60):
            answer = await self.inputs.get()
        assert isinstance(answer, kind), answer
        return answer

    async def cycle(self, cycle: int, rounds: range, vector: Vector = INITIAL) -> Vector:
        """The node's own cycle, and its end; what it trained, which the others would have moved."""
        self.trainers.open(cycle, accept=False)
        await self.next(TrainerReady)
        for number in rounds:
            self.trainers.submit(StartTraining(number, vector, FRESH if number == rounds[0] else b"", cycle))
            vector = (await self.next(TrainingFinished)).vector + np.float32(0.01)
        self.trainers.close(cycle)
        return vector

    async def rested(self) -> None:
        """Once no trainer lives any more."""
        async with asyncio.timeout(60):
            while self.trainers.state is not TrainerState.STOPPED:
                await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def bank_in(folder: Path, **options: Any) -> AsyncIterator[Bank]:
    if not (folder / "bank.csv").exists():
        write_bank(folder)
    bank = Bank(folder, **options)
    try:
        yield bank
    finally:
        await bank.trainers.stop()
        assert bank.trainers.pid is None


def trained_alone(folder: Path, rounds: int) -> tuple[Vector, NumpyLearner]:
    """What `rounds` rounds on the bank's rows make of the initial weights, with nobody else."""
    settings = config(folder)
    rows = load_bank(settings.data, MANIFEST.contract, 0.0).rows
    rows, weight = learning_rows(rows, MANIFEST.model, MANIFEST.training, settings.learning.seed)
    learner = NumpyLearner(
        MANIFEST.model, MANIFEST.training, rows, settings.learning.threshold, positive_weight=weight,
        seed=settings.learning.seed,
    )  # fmt: skip
    vector = INITIAL
    for number in range(1, rounds + 1):
        vector = learner.train(vector, FRESH if number == 1 else b"", number).vector
    return vector, learner


async def test_it_trains_as_many_rounds_goes_on_from_cycle_to_cycle_and_is_measured_beside_what_serves(
    tmp_path: Path,
) -> None:
    serving = {"now": champion()}
    async with bank_in(tmp_path, serves=lambda: serving["now"]) as bank:
        await bank.cycle(1, range(1, 4))
        assert bank.trainers.state is TrainerState.ALONE and bank.trainers.pid is not None
        await bank.rested()
        (first,) = bank.told
        serving["now"] = champion(trained_alone(tmp_path, 40)[0])
        await bank.cycle(2, range(4, 6))
        await bank.rested()
        assert bank.inputs.empty(), "the node hears nothing of it"
    assert isinstance(first, GainMeasured) and isinstance(second := bank.told[1], GainMeasured)
    assert (first.cycle, first.rounds, second.cycle, second.rounds) == (1, 3, 2, 5)
    for told, rounds, serves in ((first, 3, INITIAL), (second, 5, serving["now"].vector)):
        vector, learner = trained_alone(tmp_path, rounds)
        alone, its = (learner.evaluate(v).metrics["validation"] for v in (vector, serves))
        assert told.alone == pytest.approx(alone["auprc"], abs=1e-6)
        assert told.serves == pytest.approx(its["auprc"], abs=1e-6) and told.gain == told.serves - told.alone
        assert told.frauds == sum(its["confusion"][1]) > 0 and told.seconds > 0
    assert second.gain > 0 > first.gain, "40 rounds are better than five, and the initial weights worse than three"


async def test_it_survives_a_restart_and_begins_anew_with_another_model(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with bank_in(tmp_path) as bank:
        await bank.cycle(1, range(1, 4))
        await bank.rested()
    async with bank_in(tmp_path) as again:
        assert again.alone.gain == bank.alone.gain is not None
        await again.cycle(2, range(4, 6))
        await again.rested()
        assert isinstance(told := again.told[0], GainMeasured) and told.rounds == 5
    vector, learner = trained_alone(tmp_path, 5)
    assert told.alone == pytest.approx(learner.evaluate(vector).metrics["validation"]["auprc"], abs=1e-6)
    other = replace(MANIFEST, generation=3)
    async with bank_in(tmp_path, serves=lambda: champion(model=other.model_digest)) as last:
        last.trainers.use(other)
        await last.cycle(3, range(1, 3))
        await last.rested()
        assert isinstance(told := last.told[0], GainMeasured) and told.rounds == 2
    (tmp_path / "alone.npz").write_bytes(b"PK\x03\x04 cut short")
    caplog.set_level(logging.WARNING)
    assert Alone(tmp_path / "alone.npz", logs.for_node("bank-a"), print, champion).gain is None
    assert "begins anew" in caplog.text


def unknown_compression() -> bytes:
    """An archive whose one byte that names the compression is damaged: NotImplementedError."""
    file = io.BytesIO()
    np.savez(file, head=np.array("{}"))
    data = bytearray(file.getvalue())
    data[data.index(b"PK\x01\x02") + 10] = 77
    return bytes(data)


def archive(head: str, size: int = INITIAL.size, optimiser: bytes = FRESH) -> bytes:
    file = io.BytesIO()
    vector = np.zeros(size, np.float32)
    np.savez(file, head=np.array(head), vector=vector, optimiser=np.frombuffer(optimiser, np.uint8))
    return file.getvalue()


HEAD = json.dumps({"model": MANIFEST.model_digest, "rounds": 7, "gain": None})


@pytest.mark.parametrize(
    "junk", [unknown_compression(), archive("[]"), archive('{"model": "", "rounds": null, "gain": null}'), b"", b"PK"]
)
def test_no_damaged_file_keeps_a_daemon_from_starting(
    tmp_path: Path, junk: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    (tmp_path / "alone.npz").write_bytes(junk)
    assert Alone(tmp_path / "alone.npz", logs.for_node("bank-a"), print, champion).gain is None
    assert "begins anew" in caplog.text


@pytest.mark.parametrize("misfit", [archive(HEAD, INITIAL.size + 1), archive(HEAD, optimiser=FRESH[:-4])])
async def test_a_file_that_does_not_fit_the_model_is_begun_anew(
    tmp_path: Path, misfit: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    (tmp_path / "alone.npz").write_bytes(misfit)
    async with bank_in(tmp_path) as bank:
        await bank.cycle(1, range(1, 3))
        await bank.rested()
    assert isinstance(told := bank.told[0], GainMeasured) and told.rounds == 2
    assert "alone.npz is damaged, the model that trains alone begins anew" in caplog.text


async def test_rounds_trained_before_a_stop_are_kept(tmp_path: Path) -> None:
    async with bank_in(tmp_path) as bank:
        await bank.cycle(1, range(1, 200))
        async with asyncio.timeout(60):
            while bank.alone._lonely is None or bank.alone._lonely.rounds < 2:
                await asyncio.sleep(0)
    assert not bank.told, "it was stopped before it was measured"
    async with bank_in(tmp_path) as again:
        assert again.alone._lonely is not None and 2 <= (rounds := again.alone._lonely.rounds) < 199
        await again.cycle(2, range(rounds + 1, rounds + 3))
        await again.rested()
    assert isinstance(told := again.told[0], GainMeasured) and told.rounds == rounds + 2
    vector, learner = trained_alone(tmp_path, rounds + 2)
    assert told.alone == pytest.approx(learner.evaluate(vector).metrics["validation"]["auprc"], abs=1e-6)


async def test_a_champion_of_another_model_or_none_is_not_compared_with(tmp_path: Path) -> None:
    serving = [champion(model="another"), None]
    async with bank_in(tmp_path, serves=lambda: serving.pop()) as bank:
        for cycle in (1, 2):
            await bank.cycle(cycle, range(2 * cycle - 1, 2 * cycle + 1))
            await bank.rested()
        assert not bank.told and bank.alone.gain is None and (tmp_path / "alone.npz").exists()


async def test_a_trainer_that_trained_nothing_ends_at_once(tmp_path: Path) -> None:
    async with bank_in(tmp_path) as bank:
        await bank.cycle(1, range(0))
        assert bank.trainers.state is TrainerState.STOPPED
        assert not bank.told


async def test_the_next_cycle_does_not_wait_and_ends_what_still_trains_for_the_last_one(tmp_path: Path) -> None:
    async with bank_in(tmp_path) as bank:
        await bank.cycle(1, range(1, 200))
        lonely = bank.trainers.pid
        assert lonely is not None and bank.trainers.state is TrainerState.ALONE
        await asyncio.sleep(0)
        assert os.getpriority(os.PRIO_PROCESS, lonely) == NICENESS
        await bank.cycle(2, range(200, 202))
        await bank.rested()
        assert [e.rounds for e in bank.told if isinstance(e, GainMeasured)][-1] in range(2, 202)


async def test_a_lost_child_costs_one_cycle_and_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with bank_in(tmp_path) as bank:
        await bank.cycle(1, range(1, 100))
        assert bank.trainers.pid is not None
        os.kill(bank.trainers.pid, 9)
        await bank.rested()
        assert "misses cycle 1: its trainer was lost (TrainerLost)" in caplog.text
        assert not bank.told and bank.inputs.empty()
        await bank.cycle(2, range(100, 102))
        await bank.rested()
        assert [e.rounds for e in bank.told if isinstance(e, GainMeasured)] == [2]
