"""How what served has fared, by the real trainer child: from the versions on disk, and never at the training's cost."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from p2pfed import logs
from p2pfed.config import NodeConfig
from p2pfed.core.contract import Scaler
from p2pfed.core.effects import KeepModel, KeptModel, StartTraining
from p2pfed.core.inputs import Input, TrainerReady, TrainingFinished
from p2pfed.core.served import Served, together
from p2pfed.core.types import DAY
from p2pfed.learning.bundle import ModelBundle
from p2pfed.runtime.trainers import Trainers
from p2pfed.runtime.versions import Versions
from p2pfed.store.state_dir import StateDir
from tests.runtime.bank import ROWS, config, manifest, write_bank

MANIFEST = manifest()
INITIAL = MANIFEST.initial.vector
NOW = float(int(time.time()))
HOURS = 10 * 24
"""The payments of the last ten days."""


def timed(folder: Path) -> NodeConfig:
    """The bank with a time for each payment, and labels that mature in two days."""
    write_bank(folder)
    head, *lines = (folder / "bank.csv").read_text().splitlines()
    times = [NOW - 3600 * HOURS * (1 - i / ROWS) for i in range(ROWS)]
    rows = [f"{line},{when:.0f}" for line, when in zip(lines, times, strict=True)]
    (folder / "bank.csv").write_text("\n".join([f"{head},when", *rows, ""]))
    plain = config(folder).model_dump(mode="json")
    plain["data"] |= {"event_time": "when", "label_maturity_days": 2.0}
    return NodeConfig.model_validate(plain)


def keep(settings: NodeConfig, cycle: int, since: float, vector: np.ndarray = INITIAL) -> Path:
    """Let a version serve from `since` on."""
    kept = KeptModel(10 * cycle + 10, vector, 0.5, {}, since, cycle)
    said = {"number": kept.round, "cycle": cycle, "round": 10, "since": since, "metrics": {}, "model": ""}
    state = StateDir(settings.node.state_dir).create()
    scaler = Scaler((0.0,) * 3, (1.0,) * 3, (0.0,) * 3)
    bundle = ModelBundle(MANIFEST.model, MANIFEST.contract, scaler, 0.5, vector, said)
    Versions(state, logs.for_node("bank-a"), 30.0).keep(bundle, KeepModel(kept))
    return state.models / f"{cycle:06d}-{kept.round:06d}.p2pfed"


@contextlib.asynccontextmanager
async def read(
    settings: NodeConfig, until: float | None
) -> AsyncIterator[tuple[Served | None, Trainers, asyncio.Queue[Input]]]:
    """What a trainer tells that has read the payments."""
    inputs: asyncio.Queue[Input] = asyncio.Queue()
    trainers = Trainers(settings, MANIFEST, inputs.put_nowait, counted_until=lambda: until, learner="numpy")
    try:
        trainers.open(5, accept=False)
        async with asyncio.timeout(60):
            ready = await inputs.get()
        assert isinstance(ready, TrainerReady), ready
        yield ready.served, trainers, inputs
    finally:
        await trainers.stop()


async def test_newly_matured_payments_are_counted_by_the_versions_of_their_time(tmp_path: Path) -> None:
    settings = timed(tmp_path)
    before, later = keep(settings, 1, NOW - 30 * DAY), keep(settings, 2, NOW - 5 * DAY, INITIAL + np.float32(0.01))
    async with read(settings, NOW - 6 * DAY) as (served, _, _):
        assert served is not None and not served.error
        assert (served.since, served.until) == (NOW - 6 * DAY, pytest.approx(NOW - 2 * DAY, abs=3600))
        whole = together(served.days)
        assert abs(whole.rows - 4 * ROWS / 10) < 3 and 0 < whole.frauds < whole.rows
        assert len({day.day for day in served.days}) == len(served.days) in (4, 5)
        versions = [ModelBundle.from_bytes(path.read_bytes()).weights_sha256 for path in (before, later)]
        assert (served.days[0].model, served.days[-1].model) == tuple(versions)


async def test_without_versions_or_before_a_first_reading_there_is_nothing_to_say(tmp_path: Path) -> None:
    settings = timed(tmp_path)
    async with read(settings, None) as (served, _, _):
        assert served is None
    async with read(settings, NOW - 6 * DAY) as (served, _, _):
        assert served is not None and (served.days, served.error) == ((), "")
    keep(settings, 1, NOW - 30 * DAY)
    async with read(settings, NOW - DAY) as (served, _, _):
        assert served is None, "nothing has matured since"


async def test_a_damaged_version_is_named_and_its_payments_count_as_those_of_the_one_before(tmp_path: Path) -> None:
    settings = timed(tmp_path)
    keep(settings, 1, NOW - 30 * DAY)
    keep(settings, 2, NOW - 5 * DAY).write_bytes(b"P2FB....")
    async with read(settings, NOW - 6 * DAY) as (served, _, _):
        assert served is not None and "000002-000030.p2pfed" in served.error
        assert abs(together(served.days).rows - 4 * ROWS / 10) < 3
        assert len({day.model for day in served.days}) == 1


async def test_a_curve_that_cannot_be_made_does_not_stop_the_training(tmp_path: Path) -> None:
    settings = timed(tmp_path)
    too_large = np.full_like(INITIAL, 3e38)
    too_large[-2] = -3e38
    keep(settings, 1, NOW - 30 * DAY, too_large)
    async with read(settings, NOW - 6 * DAY) as (served, trainers, inputs):
        assert served is not None and served.days == () and "are not finite numbers" in served.error
        trainers.submit(StartTraining(1, INITIAL, b"", 5))
        async with asyncio.timeout(60):
            trained = await inputs.get()
        assert isinstance(trained, TrainingFinished) and np.isfinite(trained.loss)


async def test_versions_of_other_columns_are_left_out(tmp_path: Path) -> None:
    settings = timed(tmp_path)
    path = keep(settings, 1, NOW - 30 * DAY)
    bundle = ModelBundle.from_bytes(path.read_bytes())
    columns = tuple(replace(column, name=column.name * 2) for column in MANIFEST.contract.columns)
    path.write_bytes(replace(bundle, contract=replace(MANIFEST.contract, columns=columns)).to_bytes())
    async with read(settings, NOW - 6 * DAY) as (served, _, _):
        assert served is not None and (served.days, served.error) == ((), "")
