"""Thirty days of `scripts/bench_year.py`, on fewer rounds and payments."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_year.py"


@pytest.mark.slow
def test_a_month_of_faults_quarantines_no_honest_bank(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("bench_year", SCRIPT)
    assert spec is not None and spec.loader is not None
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    for name, value in {"ROUNDS": 5, "ROUND_SECONDS": 2400.0, "A_DAY": 30}.items():
        monkeypatch.setattr(bench, name, value)
    year = bench.Year(bench.scenario(30, 0, None, faults=True), None)
    history = year.run()
    assert year.honest_quarantines == 0
    assert len(year.daily) >= 28 and len(history.transcript) == 0
