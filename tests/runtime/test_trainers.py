"""A daemon's trainers, one for each cycle: opened, closed, and patient with a source of payments that is away."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from p2pfed import errors
from p2pfed.config import NodeConfig
from p2pfed.core.consortium import Manifest
from p2pfed.core.contract import FeatureColumn, Moments
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
from p2pfed.runtime import trainer as module
from p2pfed.runtime.trainer import Loaded, TrainerState
from p2pfed.runtime.trainer_process import TrainerProcess
from p2pfed.runtime.trainer_protocol import TrainerMessage, encode, read
from p2pfed.runtime.trainers import Trainers
from tests.runtime.bank import COLUMNS, ROWS, config, manifest, write_bank

T = TypeVar("T")
MANIFEST = manifest()
VECTOR = MANIFEST.model.initial_weights(MANIFEST.seed).vector


class Watched:
    """Trainers whose Inputs can be awaited."""

    def __init__(self, settings: NodeConfig, agreed: Manifest = MANIFEST, **options: Any) -> None:
        self.inputs: asyncio.Queue[Input] = asyncio.Queue()
        self.found: list[Loaded] = []
        self.trainers = Trainers(
            settings, agreed, self.inputs.put_nowait, self.found.append, learner="numpy", **options
        )

    async def next(self, kind: type[T]) -> T:
        async with asyncio.timeout(60):
            answer = await self.inputs.get()
        assert isinstance(answer, kind), answer
        return answer


@contextlib.asynccontextmanager
async def watched(folder: Path, settings: NodeConfig | None = None, **options: Any) -> AsyncIterator[Watched]:
    if settings is None:
        write_bank(folder)
    bank = Watched(settings or config(folder), **options)
    try:
        yield bank
    finally:
        await bank.trainers.stop()
        assert bank.trainers.state is TrainerState.STOPPED and bank.trainers.pid is None


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def until_gone(pid: int) -> None:
    async with asyncio.timeout(30):
        while alive(pid):
            await asyncio.sleep(0.02)


def from_database(folder: Path, monkeypatch: pytest.MonkeyPatch) -> NodeConfig:
    """The bank's payments in a database that is not there yet."""
    monkeypatch.setenv("BANK_URL", f"sqlite:///{folder / 'server' / 'payments.db'}")
    source = {"kind": "sql", "query": "SELECT * FROM payments", "url_env": "BANK_URL"}
    data = {"source": source, "label": "fraud", "split": "stratified"}
    return NodeConfig.model_validate(config(folder).model_dump() | {"data": data})


def start_database(folder: Path) -> None:
    write_bank(folder)
    head, *lines = (folder / "bank.csv").read_text().splitlines()
    (folder / "server").mkdir()
    with sqlite3.connect(folder / "server" / "payments.db") as db:
        db.execute(f"CREATE TABLE payments ({', '.join(f'{name} REAL' for name in COLUMNS)}, fraud INTEGER)")
        db.executemany("INSERT INTO payments VALUES (?, ?, ?, ?)", [line.split(",") for line in lines])
    db.close()


async def test_there_is_no_child_before_one_is_asked_for_and_none_after_it_is_closed(tmp_path: Path) -> None:
    async with watched(tmp_path) as bank:
        assert (bank.trainers.state, bank.trainers.pid, bank.trainers.rss) == (TrainerState.STOPPED, None, 0)
        bank.trainers.submit(StartTraining(1, VECTOR, b"", 3))  # nobody is there to do it
        bank.trainers.open(3, accept=False)
        ready = await bank.next(TrainerReady)
        assert ready.cycle == 3 and bank.trainers.state is not TrainerState.STOPPED
        pid = bank.trainers.pid
        assert pid is not None
        bank.trainers.close(3)
        assert bank.trainers.state is TrainerState.STOPPED
        await until_gone(pid)
        assert bank.inputs.empty() and bank.trainers.restarts == 0


async def test_each_cycle_reads_the_payments_anew_and_has_jobs_of_its_own(tmp_path: Path) -> None:
    async with watched(tmp_path) as bank:
        bank.trainers.open(1, accept=False)
        rows = (await bank.next(TrainerReady)).train_rows
        text = (tmp_path / "bank.csv").read_text().splitlines()
        (tmp_path / "bank.csv").write_text("\n".join([*text, *(line.replace("0.", "0.7", 1) for line in text[1:]), ""]))
        old = bank.trainers.pid
        bank.trainers.open(2, accept=False)
        ready = await bank.next(TrainerReady)
        assert ready.cycle == 2 and ready.train_rows > 1.5 * rows and bank.trainers.pid != old
        assert [loaded.train_rows for loaded in bank.found] == [rows, ready.train_rows]
        assert bank.trainers.scaler(1) == bank.found[0].scaler and bank.trainers.scaler(2) == bank.found[1].scaler
        bank.trainers.submit(StartEvaluation("gate:merged", VECTOR, 1))
        await bank.next(EvaluationFinished)
        bank.trainers.submit(StartTraining(7, VECTOR, b"", 2))
        assert (await bank.next(TrainingFinished)).round == 7
        bank.trainers.close(1)
        assert old is not None
        await until_gone(old)
        assert bank.trainers.state is not TrainerState.STOPPED and bank.trainers.scaler(1) == bank.found[0].scaler


async def test_what_a_closed_trainer_says_is_heard_by_nobody(tmp_path: Path) -> None:
    async with watched(tmp_path) as bank:
        bank.trainers.open(1, accept=False)
        await bank.next(TrainerReady)
        bank.trainers.submit(StartTraining(1, VECTOR, b"", 1))
        bank.trainers.close(1)
        bank.trainers.open(1, accept=True)  # as `data refresh` does
        assert (await bank.next(TrainerReady)).cycle == 1
        assert bank.inputs.empty()


async def test_a_lost_child_is_told_with_its_cycle_and_counted_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.05)
    async with watched(tmp_path) as bank:
        bank.trainers.open(5, accept=False)
        await bank.next(TrainerReady)
        assert bank.trainers.pid is not None
        os.kill(bank.trainers.pid, 9)
        assert (await bank.next(TrainerLost)).cycle == 5
        assert (await bank.next(TrainerReady)).cycle == 5
        bank.trainers.close(5)
        assert bank.trainers.restarts == 1


async def test_a_database_that_is_down_is_asked_again_until_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.05)
    async with watched(tmp_path, from_database(tmp_path, monkeypatch)) as bank:
        waiting = asyncio.create_task(bank.trainers.wait())
        bank.trainers.open(0, accept=False)
        for _ in range(2):
            failed = await bank.next(ReadingFailed)
            assert failed.cycle == 0 and "cannot be reached" in failed.why
        start_database(tmp_path)
        while not isinstance(answer := await bank.inputs.get(), TrainerReady):
            assert isinstance(answer, ReadingFailed)
        assert not waiting.done() and bank.trainers.restarts == 0
        waiting.cancel()


def without_column(folder: Path) -> None:
    text = (folder / "bank.csv").read_text()
    (folder / "bank.csv").write_text(text.replace("a,b,c,", "a,b,d,", 1))


async def test_a_first_reading_that_does_not_fit_ends_a_daemon_that_has_nothing_to_serve(tmp_path: Path) -> None:
    async with watched(tmp_path) as bank:
        without_column(tmp_path)
        bank.trainers.open(0, accept=False)
        with pytest.raises(errors.DataError, match="'?c'?"):
            await asyncio.wait_for(bank.trainers.wait(), 30)
        assert bank.inputs.empty()


@pytest.mark.parametrize("serves", [True, False])
async def test_with_a_model_to_serve_or_after_the_first_reading_it_is_tried_again(
    tmp_path: Path, serves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.05)
    async with watched(tmp_path, serves=serves) as bank:
        waiting = asyncio.create_task(bank.trainers.wait())
        if not serves:
            bank.trainers.open(0, accept=False)
            await bank.next(TrainerReady)
            bank.trainers.close(0)
        without_column(tmp_path)
        bank.trainers.open(1, accept=False)
        failed = await bank.next(ReadingFailed)
        assert failed.cycle == 1 and "'c'" in failed.why
        await bank.next(ReadingFailed)
        write_bank(tmp_path)
        while not isinstance(await bank.inputs.get(), TrainerReady):
            pass
        assert not waiting.done()
        waiting.cancel()


# --- a child that the test plays --------------------------------------------------------------------------------------


class PlayedHandle:
    """A process that ends as soon as it is told to."""

    pid = 2**30

    def send_signal(self, number: int) -> None:
        """Nothing is there to be told."""

    async def wait(self) -> None:
        """It has ended."""


class Child:
    """The other end of a trainer's stream."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.writers: list[asyncio.StreamWriter] = []

    async def start(self, temporary: Path) -> TrainerProcess:
        ours, theirs = socket.socketpair()
        self.reader, self.writer = await asyncio.open_connection(sock=theirs)
        self.writers.append(self.writer)
        reader, writer = await asyncio.open_connection(sock=ours)
        self.started.set()
        return TrainerProcess(PlayedHandle(), reader, writer)

    async def loads(self) -> dict[str, Any]:
        async with asyncio.timeout(10):
            await self.started.wait()
            message = await read(self.reader)
        assert message is not None and message.kind == "load"
        self.started.clear()
        return message.fields

    def say(self, kind: str, fields: dict[str, Any], blobs: tuple[bytes, ...] = ()) -> None:
        self.writer.writelines(encode(TrainerMessage(kind, fields, blobs)))

    def ready(self, reading: dict[str, Any]) -> None:
        scaler = {"centre": [0.0] * 3, "scale": [1.0] * 3, "fill": [0.0] * 3}
        told = {"train_rows": 90, "train_frauds": 9, "scaler": scaler, "report": {}, "reading": reading}
        self.say("ready", told, (b"", b"", b""))


async def test_a_reading_that_looks_wrong_is_told_and_compared_with_the_last_one_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = Child()
    monkeypatch.setattr(module, "start_own", child.start)
    async with watched(tmp_path, last_reading={"rows": 1000}) as bank:
        bank.trainers.open(1, accept=False)
        told = await child.loads()
        assert (told["last_reading"], told["accept"]) == ({"rows": 1000}, False)
        child.say("refused", {"why": "400 rows were read, the last time 1,000"})
        refused = await bank.next(ReadingRefused)
        assert refused == ReadingRefused(1, "400 rows were read, the last time 1,000")
        await asyncio.sleep(0.05)
        assert bank.trainers.state is TrainerState.STOPPED and bank.found == []
        bank.trainers.close(1)
        bank.trainers.open(1, accept=True)
        told = await child.loads()
        assert (told["last_reading"], told["accept"]) == ({"rows": 1000}, True)
        child.ready({"rows": 400, "immature": 7, "newest": 1_800_000_000.0})
        ready = await bank.next(TrainerReady)
        assert (ready.train_rows, ready.immature, ready.newest) == (90, 7, 1_800_000_000.0)
        assert bank.found[-1].reading == {"rows": 400, "immature": 7, "newest": 1_800_000_000.0}
        bank.trainers.open(2, accept=False)
        assert (await child.loads())["last_reading"] == bank.found[-1].reading
    for writer in child.writers:
        writer.transport.abort()
    await asyncio.sleep(0)


async def test_a_bank_whose_rows_are_gone_sits_out_until_they_are_accepted(tmp_path: Path) -> None:
    async with watched(tmp_path) as bank:
        bank.trainers.open(1, accept=False)
        await bank.next(TrainerReady)
        assert bank.found[-1].reading is not None and bank.found[-1].reading["rows"] == ROWS
        lines = (tmp_path / "bank.csv").read_text().splitlines()
        (tmp_path / "bank.csv").write_text("\n".join([*lines[: ROWS // 3], ""]))
        bank.trainers.open(2, accept=False)
        refused = await bank.next(ReadingRefused)
        assert refused.cycle == 2 and "199 rows" in refused.why and "600" in refused.why
        bank.trainers.close(2)
        bank.trainers.open(2, accept=True)
        assert (await bank.next(TrainerReady)).cycle == 2
        bank.trainers.open(3, accept=False)
        assert (await bank.next(TrainerReady)).cycle == 3, "what was accepted is what the next one is compared with"


async def test_a_column_in_another_unit_is_refused_before_anything_is_trained_until_it_is_accepted(
    tmp_path: Path,
) -> None:
    contract = replace(MANIFEST.contract, scaling="contract", moments=Moments((0.0,) * 3, (1.0, 1.0, 0.01)))
    async with watched(tmp_path, agreed=replace(MANIFEST, contract=contract)) as bank:
        bank.trainers.open(1, accept=False)
        refused = await bank.next(ReadingRefused)
        assert (refused.cycle, bank.found) == (1, [])
        assert refused.why.startswith("column 'c': its values are about 102 times as large as")
        bank.trainers.close(1)
        bank.trainers.open(1, accept=True)
        await bank.next(TrainerReady)
        bank.trainers.open(2, accept=False)
        assert (await bank.next(TrainerReady)).cycle == 2, "it was taken"


async def test_unknown_levels_creep_no_further_than_what_was_accepted(tmp_path: Path) -> None:
    kind = FeatureColumn("kind", "categorical", ("x", "y"), "none")
    contract = replace(MANIFEST.contract, columns=(*MANIFEST.contract.columns, kind))
    agreed = replace(MANIFEST, contract=contract, model=replace(MANIFEST.model, inputs=contract.width))
    write_bank(tmp_path)
    head, *rows = (tmp_path / "bank.csv").read_text().splitlines()

    async with watched(tmp_path, config(tmp_path), agreed=agreed) as bank:

        async def read_with(unknown: int, cycle: int, accept: bool = False) -> Input:
            kinds = ["z"] * unknown + ["x"] * (ROWS - unknown)
            lines = [f"{head},kind", *(f"{row},{value}" for row, value in zip(rows, kinds, strict=True)), ""]
            (tmp_path / "bank.csv").write_text("\n".join(lines))
            bank.trainers.open(cycle, accept)
            async with asyncio.timeout(60):
                told = await bank.inputs.get()
            bank.trainers.close(cycle)
            return told

        assert isinstance(await read_with(0, 1), TrainerReady)
        assert isinstance(await read_with(5, 2), TrainerReady)
        refused = await read_with(10, 3)
        assert isinstance(refused, ReadingRefused)
        assert "column 'kind': 1.7% of 600 rows" in refused.why and "0.0% were taken before" in refused.why
        assert isinstance(await read_with(10, 3, accept=True), TrainerReady)
        assert isinstance(await read_with(15, 4), TrainerReady)
        assert isinstance(await read_with(20, 5), ReadingRefused)


async def test_a_reading_of_another_version_is_compared_with_nothing(tmp_path: Path) -> None:
    async with watched(tmp_path, last_reading={"rows": 10**9, "of": "the future"}) as bank:
        bank.trainers.open(1, accept=False)
        await bank.next(TrainerReady)
