#!/usr/bin/env python3
"""How fast models mix: with a new random sample each round, on a fixed random regular graph, and on a ring.

In Epidemic Learning (de Vos et al., NeurIPS 2023) 96 nodes in step average with s=7 others, which leaves on average
alpha = (1 - s / (n - 1)) / (s + 1) of the variance between models each round. The daemon's nodes wait for nobody: what
they merge is a round old. Both are computed, by products with the neighbours' matrix, beside what simulated nodes do.
Nobody learns anything after a random start, and merges are the paper's (see plain.py), not p2pfed's own.
"""

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import plain
import typer
from numpy.typing import NDArray

from p2pfed.learning.learner import EvaluateJob, Evaluation, TrainJob, TrainResult
from p2pfed.sim.engine import Engine
from p2pfed.sim.population import load, populate

Rounds = Annotated[int, typer.Option(min=8)]


class Scattered(dict[int, list[NDArray[Any]]]):
    """ManyLearner: a random model for each bank, and then nothing new; holds the models that each round began with."""

    def train(self, jobs: Sequence[TrainJob]) -> list[TrainResult]:
        for job in jobs:
            self.setdefault(job.round, []).append(job.vector)
        new = [np.random.default_rng(j.bank).normal(size=j.vector.size) if j.round == 1 else j.vector for j in jobs]
        return [TrainResult(vector.astype(np.float32), b"", 0.0, 1, 0.0) for vector in new]

    def evaluate(self, jobs: Sequence[EvaluateJob]) -> list[Evaluation]:
        return [Evaluation({}, 0.5) for _ in jobs]

    def forget(self, bank: int) -> None:
        """There is no optimiser."""


def left(models: Sequence[Any]) -> float:
    """Share of the variance that a round leaves, over the second half of the rounds that began with `models`."""
    half = len(models) // 4 * 2
    return float((np.var(models[-1], axis=0).sum() / np.var(models[-1 - half], axis=0).sum()) ** (1 / half))


def averaged(graph: NDArray[Any] | None, n: int, degree: int, rounds: int, delay: int) -> Sequence[Any]:
    """What each round begins with if nothing is there but averaging, of models `delay` rounds old."""
    rng = np.random.default_rng(0)
    models = [rng.normal(size=(n, 500))] * 2
    while len(models) < rounds:
        ranks = rng.random((n, n)) + 2 * np.eye(n)
        near = ranks <= np.sort(ranks)[:, degree - 1 : degree] if graph is None else graph
        models.append((models[-1] + near @ models[-1 - delay]) / (1 + near.sum(axis=1, keepdims=True)))
    return models


def mixing(topology: str, n: int, degree: int, rounds: int) -> list[float]:
    """`left` of simulated nodes, of averaging models a round old, and of averaging those of the same round."""
    typer.echo(f"{n} nodes mix: {topology}", err=True)
    rows = {"data": {"rows": 1000 + 100 * n}, "partition": "iid"}
    scenario, models = plain.scenario(topology, nodes=n, rounds=rounds, **rows), Scattered()
    with plain.merging(plain.PLAIN):
        population = populate(scenario, load(scenario))
        Engine(population, scenario, models).run()
    edges = population.manifest.graph
    graph = edges and np.array([[other in near for other in edges] for near in edges.values()])
    return [left(m) for m in (list(models.values()), *(averaged(graph, n, degree, rounds, d) for d in (1, 0)))]


def main(nodes: int = 96, degree: int = 7, rounds: Rounds = 24, as_json: plain.Json = False) -> None:
    found = {name: mixing(name, nodes, degree, rounds) for name in (f"regular:{degree}", f"random:{degree}", "ring")}
    kinds = "simulated nodes", "computed, a round old", "computed, the paper's"
    alpha, (regular, random, ring) = (1 - degree / (nodes - 1)) / (degree + 1), np.log(list(found.values()))
    graph, circle = random / regular, random / ring
    said = f"alpha is {alpha:.4f}. Random samples mix {graph[0]:.1f} times as fast as the fixed graph and "
    said += f"{circle[0]:.0f} times as fast as the ring (in the paper's rounds {graph[2]:.1f} and {circle[2]:.0f})."
    plain.tell("share of the variance between models that a round leaves", kinds, found, said, as_json)


if __name__ == "__main__":
    plain.start(main)
