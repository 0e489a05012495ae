"""Benchmarks that no bar of the suite rests on still have to run: small ones, for their output alone."""

import dataclasses
import io
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from rich.console import Console

from p2pfed.adversary.attacks import attack_from_name
from p2pfed.core.reputation.params import STANDARD, ReputationParams

SCRIPTS = Path(__file__).parents[1] / "scripts"


def test_the_cost_of_a_merge_is_measured_for_every_rule_and_for_judging():
    command = [sys.executable, SCRIPTS / "bench_merge.py", "--parameters", "2000", "--repeats", "2", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode in (0, 1), done.stderr  # 1: slower than the bar, which is no matter here
    told = json.loads(done.stdout)
    assert {"clip", "mean", "krum"} <= set(told["rules"])
    every = [*told["rules"].values(), told["reputation"]]
    assert all(cost["cpu_median_ms"] > 0 for kinds in every for cost in kinds.values())


@pytest.mark.slow
def test_honest_differences_are_measured_and_what_was_measured_is_kept(tmp_path):
    kept = tmp_path / "cells.jsonl"
    options = [
        "--sets",
        "weak",
        "--differences",
        "rate:8,tiny,units:100",
        "--nodes",
        "4",
        "--rounds",
        "3",
        "--seeds",
        "1",
    ]
    command = [sys.executable, SCRIPTS / "bench_differences.py", *options, "--out", kept]
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, timeout=180)
        assert done.returncode == 0, done.stderr
        assert "rate:8" in done.stdout and "tiny" in done.stdout and "units:100" in done.stdout
    cells = [json.loads(line) for line in kept.read_text().splitlines()]
    assert [(cell["difference"], cell["pairs"], cell["wrongs"]) for cell in cells] == [
        ("rate:8", 12, []),
        ("tiny", 12, []),
        ("units:100", 12, []),
    ]


def test_every_number_of_reputation_is_varied_and_what_a_variant_changes_is_told(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    ablation = import_module("bench_ablation")
    numbers = [field.name for field in dataclasses.fields(ReputationParams)]
    variants = ablation._variants(numbers)
    assert {name.partition("=")[0].partition("*")[0] for name in variants} == set(numbers)
    assert all(attack_from_name(kind) for _, kinds in ablation.ATTACKS.values() for kind in kinds)
    assert set(ablation.OFF) <= set(numbers)
    assert ablation.params("standard") == STANDARD
    assert ablation.params("release*0.5+felt=1").release == STANDARD.release // 2
    assert ablation.params("usual_distance*2").usual_distance == tuple(2 * n for n in STANDARD.usual_distance)
    assert ablation.params("faults_kept*2") is None, "a share above 1"
    cells = [cell | {"auprc": 0.8, "caught": 5, "wronged": 0} for cell in ablation._cells("standard", 0)]
    cells += [cell | {"auprc": 0.79, "caught": 3, "wronged": 0} for cell in ablation._cells("release*2", 0)]
    console = Console(width=1000, file=io.StringIO())
    console.print(ablation._table(cells))
    told = console.file.getvalue()
    assert "ulb dissensus -0.0100 -2c" in told and "nothing" in told


@pytest.mark.slow
def test_a_new_pattern_is_found_two_cycles_after_its_labels_and_each_payment_is_counted_once(tmp_path):
    options = ["--appears", "3", "--late", "3", "--days", "11", "--json", tmp_path / "days.json"]
    command = [sys.executable, SCRIPTS / "bench_pattern.py", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    days = json.loads((tmp_path / "days.json").read_text())
    assert [day["day"] for day in days if day.get("pattern", 0) >= 0.5] == [8, 9, 10]
    assert all(day["recall"] > 0.6 for day in days[:3]) and all(day["recall"] < 0.6 for day in days[3:7])
