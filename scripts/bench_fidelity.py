"""Whether a simulation ends where a real cluster does, on the same rows. Run by bench_simulator.py.

What the simulation is told of time (seconds a step, how much they vary, each bank's own pace) is what the cluster's
rounds took; nothing is chosen by what comes out.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench_instruments import Bar, Measured, Teller, fresh

from p2pfed import results
from p2pfed.cluster.founding import HEARTBEAT_SECONDS
from p2pfed.cluster.options import ClusterOptions
from p2pfed.cluster.progress import Screen
from p2pfed.errors import DataError
from p2pfed.experiment import comparison
from p2pfed.experiment.intervals import paired_interval
from p2pfed.results import RunFile
from p2pfed.runtime import enrolment
from p2pfed.sim.run import simulate
from p2pfed.sim.scenario import scenario_from

SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
ULB = Path(os.environ.get("P2PFED_TEST_DATA", SHARED)) / "ulb_creditcard.parquet"
NODES = 10
LOOPBACK_SECONDS = 0.005
"""One way between two busy daemons of one machine."""


def fidelity(data: Path, seeds: int, rounds: int, out: Path | None) -> Measured:
    """The mean bank's AUPRC on the pooled test, cluster minus simulation, seed by seed."""
    pairs = [_pair(data, seed, rounds, out) for seed in range(seeds)]
    figures: dict[str, Any] = {"payments": data.name if data.is_file() else "generated"}
    for seed, (real, virtual) in enumerate(pairs):
        figures |= {
            f"seed {seed}: AUPRC of the mean bank, cluster, simulation": _both(_auprc, real, virtual),
            f"seed {seed}: AUPRC of the worst bank, cluster, simulation": _both(_worst, real, virtual),
            f"seed {seed}: s a round of the cluster": statistics.median(_paces(real).values()),
            f"seed {seed}: updates a round of a node, cluster, simulation": _both(_updates, real, virtual),
            f"seed {seed}: wall s, cluster, simulation": (round(real.wall_seconds), round(virtual.wall_seconds)),
        }
    interval = paired_interval([_auprc(real) for real, _ in pairs], [_auprc(virtual) for _, virtual in pairs])
    figures["cluster minus simulation, 95 %"] = str(interval)
    return Measured(figures, [Bar("difference of the mean AUPRC", abs(interval.mean), 0.01)])


def _pair(data: Path, seed: int, rounds: int, out: Path | None) -> tuple[RunFile, RunFile]:
    """The same experiment as a cluster, or from its file if it was run before, and as a simulation."""
    ulb = {"data": data, "label": "Class", "drop": ("Time",), "split": "stratified"} if data.is_file() else {}
    options = ClusterOptions(nodes=NODES, rounds=rounds, seed=seed, baselines=(), **ulb)
    path = None if out is None else out / f"cluster-{data.stem if ulb else 'generated'}-{rounds}-{seed}.json"
    if path is not None and path.exists():
        real = results.read(path)
    else:
        screen = Screen()
        screen.step(f"--- fidelity, seed {seed}")
        real = comparison.run(options, screen)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            results.write(real, path)
    virtual = fresh(_simulated, scenario_of(options, real))
    for one, other in zip(real.nodes, virtual.nodes, strict=True):
        if _rows(one) != _rows(other):
            raise DataError(f"{one.name} has {_rows(one)} in the cluster and {_rows(other)} in the simulation")
    return real, virtual


def _simulated(values: dict[str, Any]) -> RunFile:
    return simulate(scenario_from(values), Teller("simulation")).run


def scenario_of(options: ClusterOptions, real: RunFile) -> dict[str, Any]:
    """The scenario of a cluster that has run: its options, and the pace that its rounds showed."""
    paces = _paces(real)
    usual = statistics.median(paces.values())
    data: dict[str, Any] = {"test_share": options.test_share, "own_test_share": options.own_test_share}
    if options.data is not None:
        data |= {"file": str(options.data), "label": options.label, "drop": list(options.drop), "split": options.split}
    return {
        "version": 1,
        "name": "fidelity",
        "seed": options.seed,
        "nodes": options.nodes,
        "rounds": options.rounds,
        "data": data,
        "partition": None if options.data is None else options.partition,
        "model": {"kind": options.model, "hidden": list(options.layers), "dropout": options.dropout},
        "training": {
            "local_steps": options.local_steps,
            "batch": options.batch,
            "learning_rate": options.learning_rate,
            "imbalance": options.imbalance,
        },
        "gossip": {
            "rule": options.rule,
            "topology": options.topology,
            "heartbeat_seconds": HEARTBEAT_SECONDS,
            "publish_min_frauds": enrolment.PUBLISH_MIN_FRAUDS,
            "adoption_seconds": enrolment.ADOPTION_SECONDS,
        },
        "compute": {"seconds_per_step": usual / options.local_steps, "jitter": _jitter(real, paces)},
        "stragglers": [{"nodes": [name], "slower": pace / usual} for name, pace in paces.items()],
        "network": {"delay_seconds": LOOPBACK_SECONDS},
        "evaluate": {"every": options.evaluation_period},
    }


def _seconds(run: RunFile) -> dict[str, list[float]]:
    """What each bank's rounds took, but for the first, in which daemons still start."""
    return {node.name: [p.seconds for p in run.history if p.node == node.name and p.round > 1] for node in run.nodes}


def _paces(run: RunFile) -> dict[str, float]:
    """Each bank's median round in seconds."""
    return {name: statistics.median(seconds) for name, seconds in _seconds(run).items()}


def _jitter(run: RunFile, paces: dict[str, float]) -> float:
    """Half the width, as a share, of the uniform distribution with the 10th and 90th percentile of the rounds."""
    shares = [s / paces[name] for name, seconds in _seconds(run).items() for s in seconds]
    tenths = statistics.quantiles(shares, n=10)
    return min((tenths[-1] - tenths[0]) / 1.6, 0.9)


def _rows(node: results.NodeRun) -> tuple[int, int, int]:
    """Training rows and frauds, and pooled test rows."""
    test_rows = sum(map(sum, node.test["confusion"])) if node.test else 0
    return node.train_rows, node.train_frauds, test_rows


def _both(figure: Any, real: RunFile, virtual: RunFile) -> tuple[float, float]:
    return round(figure(real), 4), round(figure(virtual), 4)


def _auprc(run: RunFile) -> float:
    return statistics.fmean(run.auprc())


def _worst(run: RunFile) -> float:
    return min(run.auprc())


def _updates(run: RunFile) -> float:
    """Updates that a node accepts a round; all have the same size but for a few bytes."""
    sizes: Sequence[int] = [point.bytes for point in run.history if point.bytes]
    return sum(sizes) / max(min(sizes), 1) / len(run.history)


if __name__ == "__main__":
    raise SystemExit("this is a part of bench_simulator.py")
