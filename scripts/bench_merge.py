#!/usr/bin/env python3
"""How long one merge takes: 6 peers x 150,000 parameters on one BLAS thread; the bar is 10 ms.

    python scripts/bench_merge.py [--peers 6] [--parameters 150000] [--repeats 50] [--json]

Measures every rule of the registry on three kinds of peers: `honest` (each elsewhere, near enough that all pairs are
compared), `copies` (all the same model) and `hostile` (numbers as large as float32 allows). Prints milliseconds of the
rule alone and of a node's whole merge, with its momentum before and after the rule, and what the reputation takes to
judge as many new models with 132 rows. The bar is held against the default rule's whole merge and the judgement
together, in CPU time, which a busy machine does not stretch much; the wall clock stands beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"  # read once, when numpy loads its BLAS
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np  # noqa: E402

from p2pfed.core.aggregation import RULES, Candidate, KnowsTraining, SeesLoss, rule_from_name  # noqa: E402
from p2pfed.core.model import ModelSpec  # noqa: E402
from p2pfed.core.momentum import Momentum  # noqa: E402
from p2pfed.core.probe import FRAUDS, HELD_OUT, Probe  # noqa: E402
from p2pfed.core.reputation import Reputation  # noqa: E402
from p2pfed.core.training_scale import TrainingScale  # noqa: E402
from p2pfed.core.types import NodeId  # noqa: E402
from p2pfed.core.weights import Vector  # noqa: E402

BAR_MS = 10.0


def peers(kind: str, own: Vector, count: int, rng: np.random.Generator) -> list[Candidate]:
    """`count` candidates of the given kind around `own`."""
    if kind == "copies":
        vectors = [own * np.float32(1.01)] * count
    elif kind == "hostile":
        vectors = [np.full_like(own, np.finfo(np.float32).max) for _ in range(count)]
    else:
        vectors = [own + 0.02 * rng.standard_normal(own.size, np.float32) for _ in range(count)]
    return [Candidate(NodeId(f"PEER{i}"), v, 1024, 0) for i, v in enumerate(vectors)]


def measure(rule_name: str, kind: str, count: int, parameters: int, repeats: int) -> dict[str, float]:
    """Median and 90th percentile of a whole merge's CPU time, and medians of its rule's and of the wall clock."""
    rng = np.random.default_rng(0)
    own = rng.standard_normal(parameters, np.float32)
    begun = own * np.float32(0.99)
    candidates = peers(kind, own, count, rng)
    rule = rule_from_name(rule_name)
    if isinstance(rule, KnowsTraining):
        training = TrainingScale()
        rule.measure_by(training)
        training.note(begun, own)
    if isinstance(rule, SeesLoss):
        rule.see(lambda vector: float(vector[0]))  # a forward pass is the judgement's to measure
    whole, alone, wall = [], [], []
    for _ in range(repeats + 1):
        momentum = Momentum()
        momentum.push(begun, own, merged=False)  # the round before: a node at rest would move nothing
        wall_start, start = time.perf_counter(), time.process_time()
        ahead = momentum.ahead(own, candidates)
        rule_start = time.process_time()
        merged = rule.merge(own, 1024, ahead)
        rule_end = time.process_time()
        momentum.push(begun, merged.vector, merged=True)
        whole.append(1000 * (time.process_time() - start))
        wall.append(1000 * (time.perf_counter() - wall_start))
        alone.append(1000 * (rule_end - rule_start))
    whole, alone, wall = whole[1:], alone[1:], wall[1:]  # the first one warms up
    return {
        "rule_cpu_median_ms": statistics.median(alone),
        "cpu_median_ms": statistics.median(whole),
        "cpu_p90_ms": sorted(whole)[int(0.9 * (repeats - 1))],
        "wall_median_ms": statistics.median(wall),
    }


def judging(kind: str, count: int, parameters: int, repeats: int) -> dict[str, float]:
    """Median CPU time and wall clock of what the reputation does in a merge of `count` new models.

    Of a dense network with 30 inputs, two hidden layers and about so many `parameters`.
    """
    width = int((-33 + (33**2 + 4 * parameters) ** 0.5) / 2)
    spec = ModelSpec("mlp", 30, (width, width), 0.0)
    rng = np.random.default_rng(0)
    own = spec.initial_weights(0).vector
    reputation = Reputation(spec, count + 1, 0)
    reputation.yardstick.probe = Probe(
        rng.standard_normal(30 * HELD_OUT, np.float32), rng.standard_normal(30 * FRAUDS, np.float32)
    )
    candidates = peers(kind, own, count, rng)
    reputation.yardstick.note_training(own * np.float32(0.99), own)
    cpu, wall = [], []
    for _ in range(repeats + 1):
        fresh = own.copy()  # a round has trained it: nothing of it is known
        wall_start, start = time.perf_counter(), time.process_time()
        reputation.judge(fresh, 2000, candidates)
        cpu.append(1000 * (time.process_time() - start))
        wall.append(1000 * (time.perf_counter() - wall_start))
    return {"cpu_median_ms": statistics.median(cpu[1:]), "wall_median_ms": statistics.median(wall[1:])}


def main() -> int:
    """Run every combination and print it; exit code 1 if the default rule with the reputation misses the bar."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", type=int, default=6)
    parser.add_argument("--parameters", type=int, default=150_000)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    size, kinds = (given.peers, given.parameters, given.repeats), ("honest", "copies", "hostile")
    results = {r: {k: measure(r, k, *size) for k in kinds} for r in RULES}
    judged = {k: judging(k, *size) for k in kinds}
    worst = max(results["clip"][k]["cpu_median_ms"] + judged[k]["cpu_median_ms"] for k in kinds)
    if given.json:
        report = {"bench": "merge", "peers": given.peers, "parameters": given.parameters, "blas_threads": 1}
        figures = {"rules": results, "reputation": judged, "bar_ms": BAR_MS, "worst_cpu_median_ms": worst}
        print(json.dumps(report | figures))
    else:
        print(f"{'ms of CPU, median':18}" + "".join(f"{k:>10}{'whole':>8}" for k in kinds))
        for rule, found in results.items():
            shown = (f"{found[k]['rule_cpu_median_ms']:10.2f}{found[k]['cpu_median_ms']:8.2f}" for k in kinds)
            print(f"{rule:18}" + "".join(shown))
        print(f"{'reputation':18}" + "".join(f"{judged[k]['cpu_median_ms']:10.2f}{'':8}" for k in kinds))
        print(f"clip with momentum and reputation: at worst {worst:.2f} ms of CPU, bar {BAR_MS:.0f} ms")
    return 0 if worst <= BAR_MS else 1


if __name__ == "__main__":
    raise SystemExit(main())
