#!/usr/bin/env python3
"""Gossip against federated averaging at equal communication.

Hegedus, Danner and Jelasity (DAIS 2019) find gossip better than federated learning wherever rows are dealt uniformly,
and comparable overall. They learn Spambase, Pendigits and HAR, we learn payments (generated ones, or those of --file):
only whether that holds is compared, none of their numbers. A federated client moves two models a round, one down and
one up; a node that pulls two moves as many. One that pulls one, as theirs, trains twice as often for the same bytes.
Merges are plain means (see plain.py); beside them p2pfed's own merge. An error is 1 - AUPRC on pooled test rows.
"""

import os
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import numpy as np
import plain
import typer

from p2pfed.learning.learner import EvaluateJob, TrainJob
from p2pfed.sim.population import Population, load, populate
from p2pfed.sim.run import simulate

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
LOOKS = 10
TRAINING = {"training": {"local_steps": 16, "batch": 64, "decay_rounds": []}, "model": {"hidden": [32, 16]}}


def federated(population: Population, rounds: int) -> list[float]:
    """Errors along the run of federated averaging (McMahan et al. 2017), every bank in every round."""
    from p2pfed.learning.batched import StackedLearner  # imports TensorFlow

    learner = StackedLearner(population.manifest.model, population.manifest.training, population.banks)
    vector, errors = population.manifest.initial.vector, []
    shares = np.array(population.train_rows) / sum(population.train_rows)
    for number in range(1, rounds + 1):
        trained = learner.train([TrainJob(bank, vector, b"", number) for bank in range(len(shares))])
        vector = (shares @ np.stack([result.vector for result in trained])).astype(np.float32)
        if number % (rounds // LOOKS) == 0:
            errors.append(1 - learner.evaluate([EvaluateJob(0, vector)])[0].metrics["test"]["auprc"])
    return errors


def compare(partition: str, rounds: int, who: dict[str, Any]) -> dict[str, list[float]]:
    """Of each method: error at the end, its ratio to that of averaging, mean along the run, megabytes of models."""
    name, curves, megabytes = "uniform" if partition == "iid" else "not uniform", {}, {}
    for pulled, times, rule in ((2, 1, plain.PLAIN), (1, 2, plain.PLAIN), (2, 1, "clip")):
        method = f"{name}: {f'{pulled} pulled' if rule == plain.PLAIN else 'own merge'}"
        typer.echo(method, err=True)
        asked = {"rounds": times * rounds, "partition": partition} | who | TRAINING
        scenario = plain.scenario(f"random:{pulled}", rule, **asked, evaluate={"every": times * rounds // LOOKS})
        with plain.merging(rule):
            history = simulate(scenario)
        curves[method] = [1 - spread.mean_auprc for spread in history.spread]
        megabytes[method] = sum(point.bytes_in for point in history.points) / 1e6
    last = curves[f"{name}: federated"] = federated(populate(scenario, load(scenario)), rounds)
    megabytes[f"{name}: federated"] = 2 * who["nodes"] * rounds * megabytes[method] / sum(history.pulls.values())
    return {m: [errors[-1], errors[-1] / last[-1], fmean(errors[:LOOKS]), megabytes[m]] for m, errors in curves.items()}


def main(
    nodes: int = 50,
    rounds: Annotated[int, typer.Option(min=LOOKS)] = 100,
    seed: int = 0,
    file: Path | None = None,
    label: str = "Class",
    as_json: plain.Json = False,
) -> None:
    data = {"rows": 1000 * nodes} if file is None else {"file": file, "label": label}
    who = {"nodes": nodes, "seed": seed, "min_rows": 100, "data": data | {"test_rows": 5000}}
    found = compare("iid", rounds, who) | compare("dirichlet:0.5", rounds, who)
    kinds = "at the end", "by federated's", "along the run", "MB of models"
    said = "The paper: by federated's below 1 where rows are dealt uniformly, about 1 where not. Seeds differ by 0.1."
    plain.tell("1 - AUPRC, mean over banks", kinds, found, said, as_json)


if __name__ == "__main__":
    plain.start(main)
