"""What a simulated round and a handled input cost, and how that grows. Run by bench_simulator.py."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from bench_instruments import (
    Bar,
    Measured,
    Pace,
    Teller,
    Timed,
    clock,
    fresh,
    keras_round,
    made_up,
    memory,
    pace,
    since,
    stacked,
)
from threadpoolctl import threadpool_limits

from p2pfed.core.model import ModelSpec
from p2pfed.core.weights import Vector
from p2pfed.learning.learner import EvaluateJob, Evaluation, TrainJob, TrainResult
from p2pfed.sim.engine import Engine
from p2pfed.sim.population import Population

# --- rounds -----------------------------------------------------------------------------------------------------------


def rounds(quick: bool) -> Measured:
    """100 nodes of 2,000 rows each beside other ways to train as many."""
    return fresh(_rounds, *((20, 4, 1) if quick else (100, 10, 3)))


def _rounds(nodes: int, count: int, repeats: int) -> Measured:
    made = {
        said: made_up(nodes, count, 2000, gossip={"reputation": judging})
        for said, judging in (("simulator", False), ("simulator with reputation", True))
    }
    _, population = made["simulator"]
    learner = stacked(population)
    manifest = population.manifest
    keras_loop = keras_round(manifest.model, manifest.training, population.banks)
    rivals = {"Keras fit, node after node": keras_loop, "numpy, node after node": numpy_loop(population)}
    paces: dict[str, list[Pace]] = {name: [] for name in made}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in rivals}
    evaluating = []
    for rival in rivals.values():
        rival()  # traces, allocates
    for _ in range(repeats):
        for name, (scenario, same) in made.items():
            for bank in range(nodes):
                learner.forget(bank)
            watched = Timed(learner)
            Engine(same, scenario, watched, Teller(name)).run()
            paces[name].append(pace(watched.calls, nodes))
            evaluating.append(watched.evaluating)
        for name, rival in rivals.items():
            # as many threads as the simulator's own handling has
            with threadpool_limits(1, "blas"):
                begin = clock()
                rival()
                times[name].append(since(begin))
    figures: dict[str, Any] = {}
    for name, found in paces.items():
        figures[f"{name}: s a round"] = statistics.median(s for p in found for s in p.wall)
        figures[f"{name}: CPU s a round"] = statistics.median(s for p in found for s in p.cpu)
        for part in ("training", "handling"):
            figures[f"{name}: of which {part}"] = min(getattr(p, part) for p in found)
    figures["evaluation of every node, once at the end: s"] = min(evaluating)
    for name, each in times.items():
        figures[f"{name}: s a round, training only"] = statistics.median(wall for wall, _ in each)
        figures[f"{name}: CPU s a round, training only"] = statistics.median(cpu for _, cpu in each)
    bare, judged = (figures[f"{name}: s a round"] for name in paces)
    bars = [Bar(f"{nodes} nodes, s a round with merging", bare, 0.3)]
    bars.append(Bar(f"{nodes} nodes, s a round with reputation", judged, 0.5))
    return Measured(figures, bars)


def numpy_loop(population: Population) -> Callable[[], None]:
    """A round of the numpy learner over the nodes."""
    from p2pfed.learning.numpy_learner import NumpyLearner

    spec, policy = population.manifest.model, population.manifest.training
    learners = [
        NumpyLearner(spec, policy, b.rows, b.threshold, positive_weight=b.positive_weight, seed=b.seed)
        for b in population.banks
    ]
    vectors = [population.manifest.initial.vector for _ in learners]

    def a_round() -> None:
        for i, learner in enumerate(learners):
            vectors[i] = learner.train(vectors[i], b"", 1).vector

    return a_round


# --- protocol ---------------------------------------------------------------------------------------------------------


class Instant:
    """A ManyLearner that returns at once: each model moved by one of a few fixed steps."""

    def __init__(self, spec: ModelSpec) -> None:
        steps = np.random.default_rng(0).standard_normal((16, spec.schema().size), np.float32)
        self._steps: list[Vector] = list(steps / np.float32(100))

    def train(self, jobs: Sequence[TrainJob]) -> list[TrainResult]:
        step = self._steps
        return [TrainResult(j.vector + step[(j.bank + j.round) % len(step)], b"adam", 0.5, 8, 0.0) for j in jobs]

    def evaluate(self, jobs: Sequence[EvaluateJob]) -> list[Evaluation]:
        return [Evaluation({}, 0.5) for _ in jobs]

    def forget(self, bank: int) -> None:
        """Nothing is kept."""


MODELS = {"30-64-32-1": (64, 32), "30-1-1": (1,)}
"""Merging a round's candidates costs as much as everything else with the first, nothing with the second."""


def protocol(quick: bool) -> Measured:
    """Inputs a second without training: pulls of six, merges, signatures, a heartbeat a round as in local clusters."""
    measured = Measured()
    for nodes, count, repeats in ((20, 10, 1),) if quick else ((100, 40, 3), (1000, 6, 1)):
        for (model, hidden), judging in product(MODELS.items(), (False, True)):
            runs = [fresh(protocol_run, nodes, count, hidden, judging) for _ in range(repeats)]
            said = f"{nodes:,} nodes, {model}, {'with' if judging else 'without'} reputation"
            for name in runs[0]:
                measured.figures[f"{said}: {name}"] = statistics.median(run[name] for run in runs)
            rate = measured.figures[f"{said}: inputs a CPU second"]
            measured.bars.append(Bar(f"{said}, handled inputs a second of CPU", rate, 20_000, at_most=False))
    return measured


def protocol_run(nodes: int, count: int, hidden: Sequence[int], judging: bool) -> dict[str, float]:
    """One simulation of `count` rounds, a second each."""
    local = {
        "gossip": {"heartbeat_seconds": 1.0, "reputation": judging},
        "compute": {"seconds_per_step": 0.5, "load_seconds": 1.0},
    }
    scenario, population = made_up(nodes, count, 512, hidden=hidden, **local)
    engine = Engine(population, scenario, Instant(population.manifest.model))
    begin = clock()
    history = engine.run()
    wall, cpu = since(begin)
    done = sum(node.rounds for node in history.run.nodes)
    return {
        "inputs a CPU second": history.inputs_handled / cpu,
        "inputs a second by the clock": history.inputs_handled / wall,
        "inputs a round of a node": history.inputs_handled / done,
        "CPU ms a round of a node": 1000 * cpu / done,
    }


# --- scale ------------------------------------------------------------------------------------------------------------

SCALE_NODES = (10, 30, 100, 300, 1000, 3000, 10_000)
SCALE_HIDDEN = ((16, 8), (32, 16), (64, 32), (128, 64), (256, 128), (512, 256))


def scale(quick: bool, plot: Path | None = None) -> Measured:
    """Seconds a round by nodes and by parameters, each size in a process of its own."""
    nodes, hidden = ((10, 30), SCALE_HIDDEN[:2]) if quick else (SCALE_NODES, SCALE_HIDDEN)
    by_nodes = {n: fresh(scale_run, n, (64, 32)) for n in nodes}
    by_size = {layers: fresh(scale_run, 20 if quick else 100, layers) for layers in hidden}
    sizes = {found["parameters"]: found for found in by_size.values()}
    figures: dict[str, Any] = {}
    for what, table in (("nodes", by_nodes), ("parameters", sizes)):
        for x, found in table.items():
            figures[f"{x:,} {what}"] = {name: float(f"{value:.4g}") for name, value in found.items()}
        for name in ("s a round", "CPU s a round", "training", "handling"):
            figures[f"exponent of {what}, {name}"] = slope(list(table), [f[name] for f in table.values()])
    least = min(nodes)
    for n in nodes[1:]:
        more = by_nodes[n]["peak MB"] - by_nodes[least]["peak MB"]
        figures[f"{n:,} nodes"]["peak kB a node"] = round(1000 * more / (n - least))
    if plot is not None:
        _draw_curve(by_nodes, sizes, plot)
    exponents = {what: figures[f"exponent of {what}, s a round"] for what in ("nodes", "parameters")}
    return Measured(figures, [Bar(f"cost grows as {what} to the power of", e, 1.1) for what, e in exponents.items()])


def scale_run(nodes: int, hidden: Sequence[int]) -> dict[str, float]:
    """Banks of 128 rows, two steps of 64 a round."""
    # a heartbeat table carries 200 members, so its cost grows with them up to there: protocol measures it
    scenario, population = made_up(
        nodes, max(6, min(30, 2000 // nodes)), 128, batch=64, hidden=hidden, gossip={"heartbeat_seconds": 120.0}
    )
    watched = Timed(stacked(population))
    Engine(population, scenario, watched, Teller(f"{nodes} nodes, {hidden}")).run()
    found = pace(watched.calls, nodes)
    a_round = statistics.median(found.wall)
    return {
        "s a round": a_round,
        "CPU s a round": statistics.median(found.cpu),
        "ms a round of a node": 1000 * a_round / nodes,
        "training": found.training,
        "handling": found.handling,
        "peak MB": memory() / 1e6,
        "parameters": population.manifest.model.schema().size,
    }


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Exponent e of y = c * x^e, by least squares over the logarithms; linear is 1."""
    return float(np.polyfit([math.log(v) for v in x], [math.log(v) for v in y], 1)[0])


def _draw_curve(by_nodes: Mapping[int, Any], by_size: Mapping[int, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axis, table, what in zip(axes, (by_nodes, by_size), ("nodes", "parameters"), strict=True):
        for name in ("s a round", "training", "handling"):
            axis.loglog(list(table), [found[name] for found in table.values()], marker="o", label=name)
        axis.set(xlabel=what, ylabel="seconds")
        axis.legend()
    figure.savefig(path)
