"""Benchmarks that no bar of the suite rests on still have to run: small ones, for their output alone."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).parents[1] / "scripts"


def test_the_cost_of_a_merge_is_measured_for_every_rule_and_for_judging():
    command = [sys.executable, SCRIPTS / "bench_merge.py", "--parameters", "2000", "--repeats", "2", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode in (0, 1), done.stderr  # 1: slower than the bar, which is no matter here
    told = json.loads(done.stdout)
    assert {"clip", "mean", "krum"} <= set(told["rules"])
    every = [*told["rules"].values(), told["reputation"]]
    assert all(cost["cpu_median_ms"] > 0 for kinds in every for cost in kinds.values())
