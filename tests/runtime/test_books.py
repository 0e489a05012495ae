"""What is remembered of the payments: the curve adds up over readings and starts, and counts nothing twice."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from unittest.mock import Mock

import pytest

from p2pfed import logs
from p2pfed.core.contract import Scaler
from p2pfed.core.events import PaymentsRead, PaymentsServed
from p2pfed.core.served import ServedDay, together
from p2pfed.runtime.books import KEPT_DAYS, Books
from p2pfed.runtime.supervise import Supervisor
from p2pfed.runtime.trainer import Loaded
from p2pfed.store.state_dir import StateDir

LOG = logs.for_node("bank-0")
OLD, NEW = "0d" * 32, "2f" * 32


def day(name: str, rows: int, frauds: int, auprc: float | None, model: str = OLD) -> ServedDay:
    """A day with as many alerts as frauds, half of which are right."""
    return ServedDay(name, rows, frauds, frauds, frauds // 2, auprc, model)


def test_parts_of_a_day_add_up() -> None:
    whole = together([day("2026-03-01", 100, 6, 0.9), day("2026-03-01", 300, 2, 0.5, NEW)])
    assert whole == ServedDay("2026-03-01", 400, 8, 8, 4, pytest.approx(0.8), NEW)
    assert (whole.recall, whole.precision) == (0.5, 0.5)
    quiet = together([day("2026-03-01", 100, 0, None), day("2026-03-01", 100, 0, None, NEW)])
    assert (quiet.rows, quiet.auprc, quiet.recall, quiet.precision, quiet.model) == (200, None, None, None, NEW)
    assert together([quiet, day("2026-03-02", 10, 4, 0.7)]).auprc == 0.7


class Running:
    """Books of a folder, whose writes can be waited for."""

    def __init__(self, folder: Path) -> None:
        self.writes: list[asyncio.Task[None]] = []
        self.books = Books(StateDir(folder), LOG, lambda name, work: self.writes.append(asyncio.create_task(work())))

    async def tell(self, event: PaymentsServed) -> None:
        self.books.observe(5.0, event)
        await asyncio.gather(*self.writes)


async def test_the_curve_survives_a_restart_and_a_day_that_comes_in_two_readings_is_one(tmp_path: Path) -> None:
    first = Running(tmp_path)
    assert first.books.days == () and first.books.counted_until is None
    await first.tell(PaymentsServed(10.0, 20.0, (day("2026-03-01", 50, 2, 0.5), day("2026-03-02", 10, 1, 1.0))))
    first.books.observe(5.0, PaymentsRead(1, 60, 6, 2.5))
    again = Running(tmp_path)
    assert again.books.days == first.books.days and again.books.counted_until == 20.0
    await again.tell(PaymentsServed(20.0, 30.0, (day("2026-03-02", 40, 3, 0.6, NEW), day("2026-03-03", 7, 0, None))))
    assert [(d.day, d.rows, d.frauds) for d in again.books.days] == [
        ("2026-03-01", 50, 2), ("2026-03-02", 50, 4), ("2026-03-03", 7, 0),
    ]  # fmt: skip
    assert again.books.days[1].auprc == pytest.approx(0.7) and again.books.days[1].model == NEW
    assert Running(tmp_path).books.days == again.books.days


async def test_what_begins_before_the_end_of_the_curve_is_not_counted_again(tmp_path: Path) -> None:
    running = Running(tmp_path)
    await running.tell(PaymentsServed(10.0, 20.0, (day("2026-03-01", 50, 2, 0.5),)))
    for since, until in ((10.0, 20.0), (10.0, 25.0), (19.0, 30.0)):
        await running.tell(PaymentsServed(since, until, (day("2026-03-01", 50, 2, 0.5),)))
    assert [d.rows for d in running.books.days] == [50] and running.books.counted_until == 20.0
    await running.tell(PaymentsServed(20.0, 30.0, (day("2026-03-01", 7, 0, None),)))
    assert [d.rows for d in Running(tmp_path).books.days] == [57] and running.books.counted_until == 30.0


async def test_the_newest_days_of_a_year_are_kept(tmp_path: Path) -> None:
    running = Running(tmp_path)
    for year in (2026, 2027):
        days = tuple(day(f"{year}-{m:02d}-{d:02d}", 9, 0, None) for m in range(1, 13) for d in range(1, 29))
        await running.tell(PaymentsServed(float(year), year + 1.0, days))
    kept = [d.day for d in running.books.days]
    assert len(kept) == KEPT_DAYS >= 90 and kept == sorted(kept) and kept[-1] == "2027-12-28"
    assert (tmp_path / "curve.json").stat().st_size < 100_000


async def test_before_the_first_day_what_has_matured_is_what_the_last_reading_says(tmp_path: Path) -> None:
    running = Running(tmp_path)
    loaded = Loaded(60, 6, Scaler((0.0,), (1.0,), (0.0,)), {}, {"rows": 100, "mature_until": 7.5})
    running.books.take(loaded)
    await asyncio.gather(*running.writes)
    assert json.loads((tmp_path / "reading.json").read_bytes()) == loaded.reading
    assert Running(tmp_path).books.reading == loaded.reading and Running(tmp_path).books.counted_until == 7.5
    (tmp_path / "reading.json").write_text('{"mature_until": null}')
    assert Running(tmp_path).books.counted_until is None


@pytest.mark.parametrize("junk", ["{", "[]", '{"until": 3.0}', '{"until": 3.0, "days": [{"day": 4}]}'])
async def test_damaged_files_are_told_and_begun_anew(
    tmp_path: Path, junk: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    (tmp_path / "curve.json").write_text(junk)
    (tmp_path / "reading.json").write_text("{")
    running = Running(tmp_path)
    assert running.books.days == () and running.books.counted_until is None and running.books.reading is None
    assert "the curve begins anew" in caplog.text and "compared with none" in caplog.text
    await running.tell(PaymentsServed(10.0, 20.0, (day("2026-03-01", 50, 2, 0.5),)))
    assert len(Running(tmp_path).books.days) == 1
    assert (tmp_path / "curve.json.damaged").read_text() == junk, "an operator may look at what it was"


async def test_a_curve_that_cannot_be_read_is_not_written_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    await Running(tmp_path).tell(PaymentsServed(10.0, 20.0, (day("2026-03-01", 50, 2, 0.5),)))
    whole = (tmp_path / "curve.json").read_bytes()
    caplog.set_level(logging.WARNING)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", Mock(side_effect=PermissionError(13, "Permission denied")))
        running = Running(tmp_path)
    assert "curve.json cannot be read" in caplog.text and running.books.days == ()
    await running.tell(PaymentsServed(20.0, 30.0, (day("2026-03-02", 50, 2, 0.5),)))
    assert len(running.books.days) == 1 and (tmp_path / "curve.json").read_bytes() == whole
    again = Running(tmp_path)
    assert [d.day for d in again.books.days] == ["2026-03-01"] and again.books.counted_until == 20.0


async def test_a_supervisor_writes_it(tmp_path: Path) -> None:
    supervisor = Supervisor(LOG)
    books = Books(StateDir(tmp_path), LOG, supervisor.start)
    books.observe(5.0, PaymentsServed(10.0, 20.0, (day("2026-03-01", 50, 2, 0.5),)))
    async with asyncio.timeout(10):
        while not (tmp_path / "curve.json").exists():
            await asyncio.sleep(0.01)
    await supervisor.stop()
    assert not supervisor.restarts
