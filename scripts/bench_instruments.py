"""What bench_simulator.py measures with: bars, fresh processes, made-up banks, learners with a stop watch."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from p2pfed.core.contract import FeatureColumn, FeatureContract, Moments
from p2pfed.core.model import ModelSpec, TrainingPolicy
from p2pfed.core.rows import BankRows, Rows
from p2pfed.data.banks import LoadedBanks
from p2pfed.learning.learner import EvaluateJob, Evaluation, ManyLearner, StackedBank, TrainJob, TrainResult
from p2pfed.sim.history import Progress
from p2pfed.sim.population import Population, populate
from p2pfed.sim.scenario import Scenario, scenario_from

INPUTS, BATCH = 30, 256
POOLED_ROWS = 4000
HELD_OUT = 400


@dataclass(frozen=True)
class Bar:
    """A figure and what it must reach."""

    name: str
    value: float
    limit: float
    at_most: bool = True

    @property
    def reached(self) -> bool:
        return self.value <= self.limit if self.at_most else self.value >= self.limit

    def __str__(self) -> str:
        said = "reached" if self.reached else "MISSED "
        return f"{said}  {self.name}: {self.value:,.4g} (bar {'<=' if self.at_most else '>='} {self.limit:,g})"


@dataclass
class Measured:
    """What one part found."""

    figures: dict[str, Any] = field(default_factory=dict)
    bars: list[Bar] = field(default_factory=list)


def fresh(measure: Callable[..., Any], *arguments: Any) -> Any:
    """`measure(*arguments)` in a process of its own, that memory and first calls are its own too."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(measure, *arguments).result()


def memory() -> int:
    """Bytes that this process has had resident at most.

    Not from getrusage, which answers for whoever started this process too.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


class Teller:
    """Says on standard error how far a long simulation is."""

    SECONDS = 10.0

    def __init__(self, what: str) -> None:
        self._what, self._begin = what, time.monotonic()
        self._last = self._begin

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._last >= self.SECONDS:
            self._last = now
            done = f"round {progress.mean_rounds:.1f} of {progress.rounds}"
            print(f"{self._what}: {done} after {now - self._begin:.0f} s", file=sys.stderr, flush=True)


# --- Keras `fit`, the rival of every training loop --------------------------------------------------------------------


def keras_network(model: ModelSpec, learning_rate: float) -> Any:
    """The same network compiled for Keras `fit`, with dropout."""
    import keras

    layers: list[Any] = [keras.layers.Input((model.inputs,))]
    for units in model.hidden:
        layers += [keras.layers.Dense(units, activation="relu"), keras.layers.Dropout(model.dropout)]
    network = keras.Sequential([*layers, keras.layers.Dense(1)])
    network.compile(keras.optimizers.Adam(learning_rate), keras.losses.BinaryCrossentropy(from_logits=True))
    return network


def keras_epoch(network: Any, rows: Rows, batch: int, weight: float) -> None:
    """One epoch of Keras `fit` in which a fraud counts `weight` times."""
    network.fit(rows.features, rows.labels, batch_size=batch, verbose=0, class_weight={0: 1.0, 1: weight})


def keras_round(model: ModelSpec, policy: TrainingPolicy, banks: Sequence[StackedBank]) -> Callable[[], None]:
    """An epoch of every bank, all with one compiled network that is handed each bank's weights."""
    network = keras_network(model, policy.learning_rate)
    weights = [model.schema().split(model.initial_weights(0).vector) for _ in banks]

    def run() -> None:
        for i, bank in enumerate(banks):
            network.set_weights(weights[i])
            keras_epoch(network, bank.rows.train, policy.batch, bank.positive_weight)
            weights[i] = network.get_weights()

    return run


# --- made-up banks ----------------------------------------------------------------------------------------------------


def made_up(
    nodes: int, rounds: int, rows: int, *, batch: int = BATCH, hidden: Sequence[int] = (), **sections: Mapping[str, Any]
) -> tuple[Scenario, Population]:
    """`nodes` banks with `rows` training rows of 30 features each, 2 % frauds; an epoch a round, random-6."""
    scenario = scenario_from(
        {
            "version": 1,
            "name": "bench",
            "nodes": nodes,
            "rounds": rounds,
            "model": {"hidden": list(hidden)},
            "training": {"local_steps": 0, "batch": batch},
            "evaluate": {"every": rounds + 1, "sample": 1},
            **sections,
        }
    )
    held_out = HELD_OUT if rows > HELD_OUT else rows // 4
    rng = np.random.default_rng(0)
    everything = _draw(rng, nodes * (rows + held_out))
    pooled, none = _draw(rng, POOLED_ROWS), _draw(rng, 0)
    banks = []
    for start in range(0, len(everything), rows + held_out):
        train, validation = (
            Rows(everything.features[a:b], everything.labels[a:b])
            for a, b in ((start, start + rows), (start + rows, start + rows + held_out))
        )
        banks.append(BankRows(train, validation, none, pooled, legitimate_per_day=100.0))
    columns = tuple(FeatureColumn(f"x{i}", "numeric", (), "none") for i in range(INPUTS))
    scale = Moments((0.0,) * INPUTS, (1.0,) * INPUTS)
    contract = FeatureContract(columns, "fraud", "contract", scale, 10.0)
    return scenario, populate(scenario, LoadedBanks(tuple(banks), contract, {}))


def _draw(rng: np.random.Generator, count: int) -> Rows:
    labels = (rng.random(count, np.float32) < 0.02).astype(np.float32)
    features = rng.standard_normal((count, INPUTS), np.float32)
    features[:, :5] += labels[:, None]
    return Rows(features, labels)


# --- learners that are watched ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Call:
    """The learner was asked to train: when, for how many nodes, and how long it took; (wall, CPU) seconds."""

    begin: tuple[float, float]
    jobs: int
    training: tuple[float, float]


def clock() -> tuple[float, float]:
    """Wall and CPU seconds."""
    return time.perf_counter(), time.process_time()


def since(begin: tuple[float, float]) -> tuple[float, float]:
    now = clock()
    return now[0] - begin[0], now[1] - begin[1]


class Timed:
    """A ManyLearner with a stop watch; what a simulation does between its calls is handling."""

    def __init__(self, learner: ManyLearner) -> None:
        self._learner = learner
        self.calls: list[Call] = []
        self.evaluating = 0.0

    def train(self, jobs: Sequence[TrainJob]) -> list[TrainResult]:
        begin = clock()
        results = self._learner.train(jobs)
        self.calls.append(Call(begin, len(jobs), since(begin)))
        return results

    def evaluate(self, jobs: Sequence[EvaluateJob]) -> list[Evaluation]:
        begin = time.perf_counter()
        results = self._learner.evaluate(jobs)
        self.evaluating += time.perf_counter() - begin
        return results

    def forget(self, bank: int) -> None:
        self._learner.forget(bank)


@dataclass(frozen=True)
class Pace:
    """Seconds of the rounds after the first."""

    wall: list[float]
    cpu: list[float]
    training: float
    """Mean wall seconds a round, as the others."""
    handling: float


def pace(calls: Sequence[Call], nodes: int) -> Pace:
    """A round is as many trainings as there are nodes: nobody waits for anybody, so rounds begin and end gradually."""
    before = np.cumsum([0, *[call.jobs for call in calls]])[:-1]
    marks = np.arange(nodes, before[-1] + 1, nodes)
    wall, cpu = (np.diff(np.interp(marks, before, [call.begin[i] for call in calls])).tolist() for i in (0, 1))
    whole = calls[1:-1]
    rounds = sum(call.jobs for call in whole) / nodes
    training = sum(c.training[0] for c in whole) / rounds
    between = (calls[-1].begin[0] - calls[1].begin[0]) / rounds
    return Pace(wall, cpu, training, between - training)


def stacked(population: Population) -> ManyLearner:
    """The simulator's own learner."""
    from p2pfed.learning.batched import StackedLearner

    return StackedLearner(population.manifest.model, population.manifest.training, population.banks)
