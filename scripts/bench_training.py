"""Time of a training step and of scoring, side by side in one run.

A step of the MLP 30-64-32-1 at batch 256: this project's compiled loop, Keras `fit`, and the bare matrix products of
forward and backward pass in numpy. Bars: at least 6 times faster than `fit`, at most 4 times the products, at least
300,000 scores a second. Each figure is the median of five, taken in turn so that a drifting machine moves all alike.
Everything runs on one thread, so processor time is what a quiet machine's clock would show: the bars are judged by it,
and wall time stands beside it.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable

os.environ.update({"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"})

import numpy as np
from bench_instruments import keras_epoch, keras_network

from p2pfed.config import ThresholdSection
from p2pfed.core import forward
from p2pfed.core.model import ModelSpec, TrainingPolicy
from p2pfed.core.rows import BankRows, Rows
from p2pfed.learning.keras_learner import KerasLearner
from p2pfed.learning.numpy_learner import NumpyLearner

ROWS, BATCH, REPEATS, DROPOUT = 20_000, 256, 5, 0.2
STEPS = ROWS // BATCH
SPEC = ModelSpec("mlp", 30, (64, 32), DROPOUT)
POLICY = TrainingPolicy(STEPS, BATCH, 1e-3, (), "class_weight", 10.0)


def draw_rows() -> BankRows:
    """20,000 rows of 30 features, 2 % frauds."""
    generator = np.random.default_rng(0)
    labels = (generator.random(ROWS) < 0.02).astype(np.float32)
    features = generator.standard_normal((ROWS, 30)).astype(np.float32) + labels[:, None]
    rows = Rows(features, labels)
    return BankRows(rows, rows, rows, rows, 0.0)


def keras_fit(rows: BankRows) -> Callable[[], None]:
    """One epoch of Keras `fit` of the same network, with dropout and class weights."""
    network, kept = keras_network(SPEC, POLICY.learning_rate), slice(STEPS * BATCH)
    train = Rows(rows.train.features[kept], rows.train.labels[kept])
    return lambda: keras_epoch(network, train, BATCH, 7.0)


def products(rows: BankRows) -> Callable[[], None]:
    """The matrix products of STEPS steps and nothing else."""
    kernels = SPEC.schema().split(SPEC.initial_weights(0).vector)[::2]

    def run() -> None:
        for step in range(STEPS):
            activations = [rows.train.features[step * BATCH : (step + 1) * BATCH]]
            for kernel in kernels:
                activations.append(activations[-1] @ kernel)
            delta = activations[-1]
            for layer in reversed(range(len(kernels))):
                activations[layer].T @ delta
                if layer:
                    delta = delta @ kernels[layer].T

    return run


def a_round(learner: KerasLearner | NumpyLearner) -> Callable[[], None]:
    """A round of STEPS steps as the trainer child runs it, optimiser state out included."""
    vector = SPEC.initial_weights(0).vector
    return lambda: learner.train(vector, b"", 1)


def main() -> int:
    """Print the table; exit code 1 if a bar is missed."""
    rows, section = draw_rows(), ThresholdSection()
    vector = SPEC.initial_weights(0).vector
    subjects = {
        "p2pfed loop": a_round(KerasLearner(SPEC, POLICY, rows, section, positive_weight=7.0)),
        "keras fit": keras_fit(rows),
        "matrix products": products(rows),
        "numpy learner": a_round(NumpyLearner(SPEC, POLICY, rows, section, positive_weight=7.0)),
        "scoring": lambda: forward.scores(SPEC, vector, rows.train.features),
    }
    wall: dict[str, list[float]] = {name: [] for name in subjects}
    times: dict[str, list[float]] = {name: [] for name in subjects}
    for run in subjects.values():
        run()  # traces, allocates
    for _ in range(REPEATS):
        for name, run in subjects.items():
            begin, used = time.perf_counter(), time.process_time()
            run()
            times[name].append(time.process_time() - used)
            wall[name].append(time.perf_counter() - begin)
    median = {name: statistics.median(values) for name, values in times.items()}
    for name in list(subjects)[:-1]:
        by_clock = statistics.median(wall[name])
        print(f"{name:16} {median[name] / STEPS * 1e6:6.0f} us a step, {by_clock / STEPS * 1e6:6.0f} by the clock")
    faster = statistics.median(f / p for f, p in zip(times["keras fit"], times["p2pfed loop"], strict=True))
    over = statistics.median(p / m for p, m in zip(times["p2pfed loop"], times["matrix products"], strict=True))
    single = statistics.median(timed_row(vector, rows.train.features[i : i + 1]) for i in range(200))
    rate = ROWS / median["scoring"]
    print(f"{faster:.1f} times faster than Keras fit (bar 6), {over:.1f} times the bare products (bar 4)")
    print(f"scoring {rate:,.0f} rows a second (bar 300,000), one row {single * 1e3:.3f} ms (bar 2)")
    return 0 if faster >= 6 and over <= 4 and rate >= 300_000 and single < 2e-3 else 1


def timed_row(vector: np.ndarray, row: np.ndarray) -> float:
    """Seconds to score one row."""
    begin = time.process_time()
    forward.scores(SPEC, vector, row)
    return time.process_time() - begin


if __name__ == "__main__":
    sys.exit(main())
