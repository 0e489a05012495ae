"""The Trainer against real child processes, with the numpy learner so that they start quickly."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from p2pfed import errors
from p2pfed.core import probe
from p2pfed.core.effects import StartEvaluation, StartTraining
from p2pfed.core.inputs import (
    EvaluationFinished,
    Input,
    ReadingFailed,
    TrainerLost,
    TrainerReady,
    TrainingFinished,
)
from p2pfed.data.features import load_bank
from p2pfed.runtime import trainer as module
from p2pfed.runtime.trainer import Loaded, Trainer, TrainerState
from tests.runtime.bank import FRAUDS, ROWS, config, manifest, write_bank

T = TypeVar("T")


class Watched:
    """A Trainer whose Inputs can be awaited."""

    def __init__(self, folder: Path, **learning: Any) -> None:
        self.inputs: asyncio.Queue[Input] = asyncio.Queue()
        if not (folder / "bank.csv").exists():
            write_bank(folder)
        self.manifest = manifest()
        self.start_vector = self.manifest.model.initial_weights(self.manifest.seed).vector
        settings = config(folder, **learning)
        self.trainer = Trainer(settings, self.manifest, self.inputs.put_nowait, learner="numpy")

    async def __aenter__(self) -> "Watched":
        self.trainer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.trainer.stop()

    async def next(self, kind: type[T]) -> T:
        async with asyncio.timeout(60):
            answer = await self.inputs.get()
        assert isinstance(answer, kind), answer
        return answer

    async def train(self, round_number: int, vector: np.ndarray, optimiser: bytes = b"") -> TrainingFinished:
        self.trainer.submit(StartTraining(round_number, vector, optimiser))
        return await self.next(TrainingFinished)

    @property
    def pid(self) -> int:
        assert self.trainer.pid is not None
        return self.trainer.pid


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def fast_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.05)


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
        assert evaluated.purpose == "round" and set(evaluated.metrics) == {"validation", "own_test", "gate"}
        assert bank.trainer.state is TrainerState.IDLE and bank.trainer.rss > 0
        assert bank.trainer.loaded is not None and len(bank.trainer.loaded.scaler.centre) == 3


async def test_rows_to_look_at_other_models_with_come_along(tmp_path: Path) -> None:
    async with Watched(tmp_path) as bank:
        ready = await bank.next(TrainerReady)
        assert ready.probe is not None
        validation = load_bank(config(tmp_path).data, bank.manifest.contract, 0.0).rows.validation
        count, frauds = min(len(validation), probe.HELD_OUT), min(ready.train_frauds, probe.FRAUDS)
        assert len(ready.probe.held_out) == 3 * count and len(ready.probe.frauds) == 3 * frauds
        assert len(ready.probe.labels) == count and 0 < ready.probe.labels.sum() < count
        said = ready.probe.scores(bank.manifest.model, bank.start_vector[None])[0]
        assert len(said) == count + frauds and np.isfinite(said).all()


@pytest.mark.parametrize(("frauds", "held_out", "trained"), [(0, 1, 0), (2, 2, 1)])
async def test_a_bank_with_hardly_any_rows_has_what_there_is_to_look_with(
    tmp_path: Path, frauds: int, held_out: int, trained: int
) -> None:
    write_bank(tmp_path)
    head, *lines = (tmp_path / "bank.csv").read_text().splitlines()
    known = [line for line in lines if line.endswith(",1")][:frauds]
    few = [line for line in lines if line.endswith(",0")][:3]
    (tmp_path / "bank.csv").write_text("\n".join([head, *few, *known, ""]))
    bank = Watched(tmp_path)
    if not frauds:  # of which only an autoencoder can make a model
        bank.trainer.use(replace(bank.manifest, model=replace(bank.manifest.model, kind="autoencoder")))
    async with bank:
        ready = await bank.next(TrainerReady)
        assert ready.probe is not None and len(ready.probe.held_out) == 3 * held_out
        assert len(ready.probe.frauds) == 3 * trained


async def test_what_it_found_in_the_rows_is_told_once(tmp_path: Path, fast_retry: None) -> None:
    told: list[Loaded] = []
    bank = Watched(tmp_path)
    bank.trainer = Trainer(config(tmp_path), bank.manifest, bank.inputs.put_nowait, told.append, learner="numpy")
    async with bank:
        await bank.next(TrainerReady)
        os.kill(bank.pid, signal.SIGKILL)
        await bank.next(TrainerLost)
        await bank.next(TrainerReady)
    assert [loaded.report["rows_read"] for loaded in told] == [ROWS]


async def test_stop_leaves_no_process_even_while_training(tmp_path: Path) -> None:
    async with Watched(tmp_path) as bank:
        await bank.next(TrainerReady)
        pid = bank.pid
        long = replace(bank.manifest, training=replace(bank.manifest.training, local_steps=10**6))
        bank.trainer.use(long)
        bank.trainer.submit(StartTraining(1, bank.start_vector, b""))
        await bank.next(TrainerReady)
        assert not alive(pid)
        bank.trainer.submit(StartTraining(1, bank.start_vector, b""))
        await asyncio.sleep(0.1)
        assert bank.trainer.state is TrainerState.TRAINING
        pid = bank.pid
    assert not alive(pid) and bank.trainer.state is TrainerState.STOPPED and bank.trainer.pid is None
    await bank.trainer.wait()


async def test_a_child_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2pfed.runtime.trainer_process.TERMINATE_SECONDS", 0.2)
    async with Watched(tmp_path) as bank:
        await bank.next(TrainerReady)
        pid = bank.pid
        os.kill(pid, signal.SIGSTOP)
    assert not alive(pid)


def test_the_daemons_side_stays_light() -> None:
    heavy = "{'tensorflow', 'keras', 'pandas', 'sklearn', 'imblearn', 'pyarrow', 'sqlalchemy'}"
    code = f"import sys, p2pfed.runtime.trainer, p2pfed.learning.bundle; assert not {heavy} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.usefixtures("fast_retry")
async def test_a_child_killed_at_any_moment_is_replaced_and_training_goes_on_as_if_nothing_was(tmp_path: Path) -> None:
    async with Watched(tmp_path) as undisturbed:
        await undisturbed.next(TrainerReady)
        expected = [await undisturbed.train(1, undisturbed.start_vector)]
        for round_number in range(2, 7):
            expected.append(await undisturbed.train(round_number, expected[-1].vector))
    generator = np.random.default_rng(0)
    async with Watched(tmp_path) as bank:
        await bank.next(TrainerReady)
        vector, optimiser, done, lost = bank.start_vector, b"", 0, 0
        while done < 6:
            bank.trainer.submit(StartTraining(done + 1, vector, optimiser))
            if lost < 5:
                await asyncio.sleep(generator.uniform(0, 0.02))
                os.kill(bank.pid, signal.SIGKILL)
            answer = await bank.inputs.get()
            if isinstance(answer, TrainingFinished):  # it was quicker than the kill
                vector, optimiser, done = answer.vector, answer.optimiser, done + 1
                assert np.array_equal(vector, expected[done - 1].vector)
                if lost < 5:
                    answer = await bank.next(TrainerLost)
            if isinstance(answer, TrainerLost):
                lost += 1
                assert "ended unexpectedly" in answer.error
                await bank.next(TrainerReady)
        assert bank.trainer.restarts == lost == 5


@pytest.mark.usefixtures("fast_retry")
async def test_a_new_child_goes_on_with_the_optimiser_of_the_lost_one(tmp_path: Path) -> None:
    async with Watched(tmp_path) as bank:
        await bank.next(TrainerReady)
        first = await bank.train(1, bank.start_vector)
        second = await bank.train(2, first.vector)
        os.kill(bank.pid, signal.SIGKILL)
        await bank.next(TrainerLost)
        await bank.next(TrainerReady)
        again = await bank.train(2, first.vector, first.optimiser)
        assert np.array_equal(again.vector, second.vector)
        os.kill(bank.pid, signal.SIGKILL)
        await bank.next(TrainerLost)
        await bank.next(TrainerReady)
        assert (await bank.train(3, second.vector)).optimiser[:8] == (3 * 20).to_bytes(8, "little")


async def test_a_grown_child_is_replaced_between_jobs_unnoticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = iter([100, 200, 300, 500, *[100] * 100])  # before, after the first, second and third job; then a new child
    monkeypatch.setattr(Trainer, "rss", property(lambda self: next(sizes) * 2**20))
    async with Watched(tmp_path, trainer_memory_mb=256) as bank:
        await bank.next(TrainerReady)
        pid = bank.pid
        results = [await bank.train(1, bank.start_vector)]
        for round_number in (2, 3, 4):
            results.append(await bank.train(round_number, results[-1].vector))
        assert bank.pid != pid and not alive(pid) and bank.trainer.restarts == 0
    monkeypatch.undo()
    async with Watched(tmp_path) as plain:
        await plain.next(TrainerReady)
        vector = plain.start_vector
        for round_number, result in enumerate(results, 1):
            vector = (await plain.train(round_number, vector)).vector
            assert np.array_equal(vector, result.vector)


@pytest.mark.usefixtures("fast_retry")
async def test_a_silent_child_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENT_SECONDS", 2.0)
    async with Watched(tmp_path) as bank:
        await bank.next(TrainerReady)
        pid = bank.pid
        os.kill(pid, signal.SIGSTOP)
        bank.trainer.submit(StartTraining(1, bank.start_vector, b""))
        assert "said nothing" in (await bank.next(TrainerLost)).error
        await bank.next(TrainerReady)
        assert not alive(pid)
        await bank.train(1, bank.start_vector)


@pytest.mark.usefixtures("fast_retry")
async def test_a_stuck_job_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Watched(tmp_path) as bank:
        endless = replace(bank.manifest, training=replace(bank.manifest.training, local_steps=10**7))
        bank.trainer.use(endless)
        await bank.next(TrainerReady)
        monkeypatch.setattr(module, "FIRST_JOB_SECONDS", 1.0)
        bank.trainer.submit(StartTraining(1, bank.start_vector, b""))
        assert "stuck: it has been training" in (await bank.next(TrainerLost)).error
        monkeypatch.undo()
        await bank.next(TrainerReady)


async def test_a_suspended_daemon_does_not_blame_its_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENT_SECONDS", 2.0)
    async with Watched(tmp_path) as bank:
        await bank.next(TrainerReady)
        time.sleep(5)  # the whole loop stands still, as under SIGSTOP
        await bank.train(1, bank.start_vector)
        assert bank.trainer.restarts == 0


async def test_a_column_that_is_missing_stops_the_daemon_with_the_childs_own_words(tmp_path: Path) -> None:
    write_bank(tmp_path)
    text = (tmp_path / "bank.csv").read_text()
    (tmp_path / "bank.csv").write_text(text.replace("a,b,c,", "a,b,d,", 1))
    async with Watched(tmp_path) as bank:
        with pytest.raises(errors.DataError, match="'?c'?") as caught:
            async with asyncio.timeout(20):
                await bank.trainer.wait()
        assert caught.value.exit_code == 78 and bank.inputs.empty()
        assert bank.trainer.state is TrainerState.STOPPED


@pytest.mark.usefixtures("fast_retry")
async def test_rows_that_go_away_later_leave_the_daemon_running(tmp_path: Path) -> None:
    async with Watched(tmp_path) as bank:
        await bank.next(TrainerReady)
        (tmp_path / "bank.csv").rename(tmp_path / "moved.csv")
        os.kill(bank.pid, signal.SIGKILL)
        await bank.next(TrainerLost)
        assert "bank.csv" in (await bank.next(ReadingFailed)).why
        (tmp_path / "moved.csv").rename(tmp_path / "bank.csv")
        while not isinstance(answer := await bank.inputs.get(), TrainerReady):
            assert isinstance(answer, ReadingFailed)
        assert bank.trainer.restarts == 1


async def test_a_training_that_diverges_is_the_nodes_to_judge(tmp_path: Path) -> None:
    async with Watched(tmp_path) as bank:
        bank.trainer.use(replace(bank.manifest, training=replace(bank.manifest.training, learning_rate=1e30)))
        await bank.next(TrainerReady)
        bank.trainer.submit(StartTraining(4, bank.start_vector, b""))
        assert not np.isfinite((await bank.next(TrainingFinished)).vector).all()


async def test_a_missing_spawner_is_named(tmp_path: Path) -> None:
    async with Watched(tmp_path, trainer_socket=tmp_path / "nobody.sock") as bank:
        assert "no trainer spawner answers at" in (await bank.next(TrainerLost)).error


async def test_an_unchanged_training_keeps_its_child_under_a_newer_manifest(tmp_path: Path) -> None:
    async with Watched(tmp_path) as bank:
        await bank.next(TrainerReady)
        pid = bank.pid
        bank.trainer.use(replace(bank.manifest, version=2))
        await bank.train(1, bank.start_vector)
        assert bank.pid == pid


async def test_a_trainer_needs_no_folder_to_write_to_but_the_state_directory(tmp_path: Path) -> None:
    async with Watched(tmp_path) as bank:
        await bank.next(TrainerReady)
        environment = Path(f"/proc/{bank.pid}/environ").read_bytes().split(b"\0")
        assert f"TMPDIR={tmp_path / 'state' / 'tmp'}".encode() in environment
        assert (tmp_path / "state" / "tmp").stat().st_mode & 0o777 == 0o700
