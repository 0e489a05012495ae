"""Thirty days of `scripts/bench_year.py`, on fewer rounds and payments."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_year.py"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, with cycles of half as many rounds and days of half as many payments."""
    spec = importlib.util.spec_from_file_location("bench_year", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, value in {"ROUNDS": 5, "ROUND_SECONDS": 2400.0, "A_DAY": 30}.items():
        monkeypatch.setattr(module, name, value)
    return module


@pytest.mark.slow
def test_a_month_of_faults_quarantines_no_honest_bank(bench: ModuleType) -> None:
    year = bench.Year(bench.scenario(30, 0), None)
    year.run()
    assert year.honest_quarantines == [] and year.caught == {}
    days = [sum(day == today for day, _ in year.served) for today in range(1, 30)]
    assert min(days) >= bench.BANKS - 3  # one is away, and one or two restart
    assert sum(days) <= 29 * bench.BANKS - bench.AWAY_DAYS


def test_honest_banks_alone_have_the_faults_that_they_have_among_attackers(bench: ModuleType) -> None:
    alone, attacked = bench.scenario(80, 3, banks=bench.HONEST), bench.scenario(80, 3, "signflip")
    honest = set(bench.NAMES[: bench.HONEST])
    assert alone.nodes == bench.HONEST
    assert list(alone.outages) == [outage for outage in attacked.outages if honest.issuperset(outage.nodes)]
    assert list(alone.clock_steps) == [step for step in attacked.clock_steps if honest.issuperset(step.nodes)]
    cuts = [[honest.intersection(group) for group in p.groups] for p in attacked.partitions]
    assert [list(map(set, p.groups)) for p in alone.partitions] == [cut for cut in cuts if all(cut)]


def test_each_bank_restarts_once_a_week_and_one_is_away_for_three(bench: ModuleType) -> None:
    outages = bench.scenario(364, 5).outages
    weeks = sorted((outage.nodes, int((outage.start - bench.FIRST) // (7 * bench.DAY))) for outage in outages)
    *_, away = outages
    assert away.end - away.start == 21 * bench.DAY
    weeks.remove((away.nodes, int((away.start - bench.FIRST) // (7 * bench.DAY))))
    assert weeks == sorted(((name,), week) for name in bench.NAMES for week in range(52))


def test_an_attack_begins_with_the_cycle_of_its_day(bench: ModuleType) -> None:
    (attackers,) = bench.scenario(80, 0, "signflip").attackers
    calendar = bench.scenario(80, 0).agreed_calendar
    cycle, number = calendar.place(attackers.start)
    assert number == 1 and calendar.begins(cycle) == bench.FIRST + bench.ATTACK_FROM * bench.DAY


def test_unusual_banks_have_other_payments(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "KINDS_OF", dict(enumerate(bench.KINDS)))
    frauds, customers, tiny, huge, season, usual = (bench.rows_of(0, bank, 0).train for bank in range(6))
    assert frauds.frauds == pytest.approx(8 * usual.frauds, rel=0.25) and len(frauds) == len(usual)
    moved = customers.features.mean(axis=0) - usual.features.mean(axis=0)
    assert min(moved[: bench.MOVED]) > 0.5
    assert len(tiny) < 250 and 3 < tiny.frauds < 25
    assert len(huge) == pytest.approx(4 * len(usual), rel=0.1)
    assert len(season) < len(usual) / 2
