"""The spawner and the Keras learner behind it: real forks of a real TensorFlow process."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from p2pfed.core import forward
from p2pfed.core.effects import StartEvaluation, StartTraining
from p2pfed.core.inputs import EvaluationFinished, Input, TrainerLost, TrainerReady, TrainingFinished
from p2pfed.runtime.trainer import Trainer
from tests.runtime.bank import config, manifest, write_bank

pytestmark = [pytest.mark.tf, pytest.mark.slow]

SECONDS = 120.0


def until(condition: Callable[[], bool], seconds: float = SECONDS) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def alive(pid: int) -> bool:
    """Whether the process runs; one that has ended but was not yet reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bank")
    write_bank(folder)
    return folder


@pytest.fixture(scope="module")
def spawner(bank: Path) -> Iterator[Path]:
    path = bank / "trainers.sock"
    process = subprocess.Popen([sys.executable, "-m", "p2pfed.runtime.spawner", "1", str(path)])
    assert until(path.exists)
    yield path
    process.terminate()
    assert process.wait(SECONDS) == 0
    assert not path.exists()


@contextlib.asynccontextmanager
async def trainer(
    bank: Path, socket: Path, dropout: float = 0.2
) -> AsyncIterator[tuple[Trainer, asyncio.Queue[Input]]]:
    inputs: asyncio.Queue[Input] = asyncio.Queue()
    one = Trainer(config(bank, trainer_socket=socket), manifest(dropout), inputs.put_nowait)
    one.start()
    try:
        assert isinstance(await within(inputs), TrainerReady)
        yield one, inputs
    finally:
        await one.stop()


async def within(inputs: "asyncio.Queue[Input]") -> Input:
    async with asyncio.timeout(SECONDS):
        return await inputs.get()


async def test_the_first_trainers_begin_together_and_later_ones_at_once(bank: Path, tmp_path: Path) -> None:
    path = tmp_path / "trainers.sock"
    process = subprocess.Popen([sys.executable, "-m", "p2pfed.runtime.spawner", "2", str(path)])
    assert await asyncio.to_thread(until, path.exists)
    first_heard: asyncio.Queue[Input] = asyncio.Queue()
    first = Trainer(config(bank, trainer_socket=path), manifest(0.2), first_heard.put_nowait)
    first.start()
    try:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):
                await first_heard.get()
        async with trainer(bank, path):
            assert isinstance(await within(first_heard), TrainerReady)
            async with trainer(bank, path):
                pass
    finally:
        await first.stop()
        process.terminate()
        assert process.wait(SECONDS) == 0


async def test_forks_train_and_evaluate_side_by_side(bank: Path, spawner: Path) -> None:
    assert spawner.stat().st_mode & 0o777 == 0o600
    start = manifest().model.initial_weights(7).vector
    async with trainer(bank, spawner) as (one, first), trainer(bank, spawner) as (other, second):
        assert one.pid != other.pid
        results = []
        for child, inputs in ((one, first), (other, second)):
            child.submit(StartTraining(1, start, b""))
            child.submit(StartEvaluation("start", start))
            trained, evaluated = await within(inputs), await within(inputs)
            assert isinstance(trained, TrainingFinished) and isinstance(evaluated, EvaluationFinished)
            results.append(trained.vector)
        assert np.array_equal(*results) and not np.array_equal(results[0], start)
        pids = [one.pid, other.pid]
    assert not any(alive(pid) for pid in pids)


async def test_a_killed_fork_is_replaced(bank: Path, spawner: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2pfed.runtime.trainer.RETRY_SECONDS", 0.05)
    start = manifest().model.initial_weights(7).vector
    async with trainer(bank, spawner) as (one, inputs):
        one.submit(StartTraining(1, start, b""))
        expected = await within(inputs)
        os.kill(one.pid, signal.SIGKILL)
        assert isinstance(await within(inputs), TrainerLost)
        assert isinstance(await within(inputs), TrainerReady)
        one.submit(StartTraining(2, expected.vector, b""))  # goes on with the optimiser of the lost fork
        after = await within(inputs)
        assert after.optimiser[:8] == (40).to_bytes(8, "little")


async def test_a_fork_shares_most_of_its_memory(bank: Path, spawner: Path) -> None:
    async with trainer(bank, spawner) as (one, inputs):
        one.submit(StartTraining(1, manifest().model.initial_weights(7).vector, b""))
        await within(inputs)
        lines = Path(f"/proc/{one.pid}/smaps_rollup").read_text().splitlines()
        private = sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean", "Private_Dirty")))
        assert private < 150 * 1024


DAEMON = """
import asyncio, sys
from dataclasses import replace
from pathlib import Path
from p2pfed.core.effects import StartTraining
from p2pfed.runtime.trainer import Trainer
from tests.runtime.bank import config, manifest

async def main(folder, socket):
    whole = manifest()
    endless = replace(whole, training=replace(whole.training, local_steps=4_000_000))
    inputs = asyncio.Queue()
    learning = {"trainer_socket": socket} if socket else {}
    trainer = Trainer(config(folder, **learning), endless, inputs.put_nowait, learner="numpy")
    trainer.start()
    await inputs.get()
    trainer.submit(StartTraining(1, whole.model.initial_weights(7).vector, b""))
    await asyncio.sleep(0.2)
    print(trainer.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""


@pytest.mark.parametrize("shared", [True, False], ids=["fork", "own child"])
def test_a_child_ends_with_a_daemon_killed_in_the_middle_of_a_round(bank: Path, spawner: Path, shared: bool) -> None:
    command = [sys.executable, "-c", DAEMON, str(bank), str(spawner) if shared else ""]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as daemon:
        assert daemon.stdout is not None
        child = int(daemon.stdout.readline())
        assert alive(child)
        daemon.kill()
    assert until(lambda: not alive(child), 20)


def test_a_spawner_ends_with_its_parent_and_takes_its_forks_along(bank: Path) -> None:
    socket = bank / "orphan.sock"
    parent_code = "import subprocess, sys; p = subprocess.Popen(sys.argv[1:]); print(p.pid, flush=True); p.wait()"
    spawn = [sys.executable, "-m", "p2pfed.runtime.spawner", "1", str(socket)]
    with subprocess.Popen([sys.executable, "-c", parent_code, *spawn], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert until(socket.exists)
        daemon = subprocess.Popen([sys.executable, "-c", DAEMON, str(bank), str(socket)], stdout=subprocess.PIPE)
        with daemon:
            assert daemon.stdout is not None
            child = int(daemon.stdout.readline())
            parent.kill()
            assert until(lambda: not alive(pid), 20) and until(lambda: not alive(child), 20)
            daemon.kill()
    assert not socket.exists()


async def test_scores_of_a_trained_model_find_the_frauds(bank: Path, spawner: Path) -> None:
    longer = manifest(0.1)
    longer = replace(longer, training=replace(longer.training, local_steps=400, learning_rate=5e-3))
    inputs: asyncio.Queue[Input] = asyncio.Queue()
    one = Trainer(config(bank, trainer_socket=spawner), longer, inputs.put_nowait)
    one.start()
    try:
        await within(inputs)
        one.submit(StartTraining(1, longer.model.initial_weights(7).vector, b""))
        trained = await within(inputs)
        one.submit(StartEvaluation("after", trained.vector))
        evaluated = await within(inputs)
    finally:
        await one.stop()
    assert evaluated.metrics["own_test"]["auprc"] > 0.4
    suspicious = forward.scores(longer.model, trained.vector, np.array([[3, 3, 0], [-1, -1, 0]], np.float32))
    assert suspicious[0] > evaluated.threshold > suspicious[1]
