"""Time of one local epoch of many banks: the stacked program beside one learner a bank, Keras `fit` and numpy.

100 banks with 2,000 rows each, MLP 30-64-32-1 with dropout, batch 256: what a round of the simulator trains. Then the
stacked program alone with 1,000 and 11,000 banks of 200 rows, and the measuring of every bank's model on one pooled
test of 20,000 rows. Each figure is the least of several repetitions, taken in turn: processor time is what a quiet
machine would spend, the clock what this one took. TensorFlow gets as many threads as there are processors.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable, Sequence

os.environ.update({"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"})

import numpy as np
from bench_instruments import keras_round

from p2pfed.config import ThresholdSection
from p2pfed.core.model import ModelSpec, TrainingPolicy
from p2pfed.core.rows import BankRows, Rows
from p2pfed.learning.batched import StackedLearner
from p2pfed.learning.keras_learner import KerasLearner
from p2pfed.learning.learner import EvaluateJob, ManyLearner, StackedBank, TrainJob
from p2pfed.learning.numpy_learner import NumpyLearner
from p2pfed.learning.one_by_one import OneByOne

SPEC = ModelSpec("mlp", 30, (64, 32), 0.2)
POLICY = TrainingPolicy(0, 256, 1e-3, (), "class_weight", 10.0)
BANKS, ROWS, TEST_ROWS = 100, 2000, 20_000
BAR = 0.2
"""Seconds that the training of 100 banks may take of a round's 0.3."""


def draw_banks(count: int, rows: int, test_rows: int = TEST_ROWS) -> list[StackedBank]:
    """`count` banks with `rows` training rows of 30 features, 2 % frauds; they share one pooled test."""
    generator = np.random.default_rng(0)
    labels = (generator.random(count * rows + test_rows) < 0.02).astype(np.float32)
    features = generator.standard_normal((len(labels), SPEC.inputs), np.float32) + labels[:, None]
    every = Rows(features, labels)

    def part(start: int, end: int) -> Rows:
        return Rows(every.features[start:end], every.labels[start:end])

    test = part(count * rows, len(labels))
    trains = [part(bank * rows, (bank + 1) * rows) for bank in range(count)]
    return [StackedBank(BankRows(t, t, t, test, 0.0), 7.0, i, ThresholdSection()) for i, t in enumerate(trains)]


def one_by_one(learner: type[KerasLearner] | type[NumpyLearner], banks: Sequence[StackedBank]) -> OneByOne:
    """One learner a bank."""
    return OneByOne(
        [learner(SPEC, POLICY, b.rows, b.threshold, positive_weight=b.positive_weight, seed=b.seed) for b in banks]
    )


def a_round(learner: ManyLearner, banks: int) -> Callable[[], None]:
    """One local epoch of every bank."""
    vector = SPEC.initial_weights(0).vector
    jobs = [TrainJob(bank, vector, b"", 1) for bank in range(banks)]

    def run() -> None:
        learner.train(jobs)

    return run


def an_evaluation(learner: ManyLearner, banks: int) -> Callable[[], None]:
    """Every bank's model on its own rows and on the pooled test."""
    jobs = [EvaluateJob(bank, SPEC.initial_weights(bank).vector) for bank in range(banks)]

    def run() -> None:
        learner.evaluate(jobs)

    return run


def least(runs: dict[str, Callable[[], None]], repeats: int) -> dict[str, tuple[float, float]]:
    """Least processor seconds and least seconds by the clock of each run, after one that counts for nothing."""
    for run in runs.values():
        run()  # traces, compiles, allocates
    result = dict.fromkeys(runs, (np.inf, np.inf))
    for _ in range(repeats):
        for name, run in runs.items():
            begin, used = time.perf_counter(), time.process_time()
            run()
            times = time.process_time() - used, time.perf_counter() - begin
            result[name] = (min(result[name][0], times[0]), min(result[name][1], times[1]))
    return result


def report(times: dict[str, tuple[float, float]]) -> None:
    """One line for each run."""
    for name, (processor, clock) in times.items():
        print(f"{name:44} {processor:8.3f} s of processor time, {clock:8.3f} s by the clock", flush=True)


def main() -> int:
    """Print the table; exit code 1 if the stacked training of 100 banks misses its bar."""
    banks = draw_banks(BANKS, ROWS)
    stacked = StackedLearner(SPEC, POLICY, banks)
    times = least(
        {
            f"{BANKS} x {ROWS} rows, stacked": a_round(stacked, BANKS),
            f"{BANKS} x {ROWS} rows, the daemon's learner": a_round(one_by_one(KerasLearner, banks), BANKS),
            f"{BANKS} x {ROWS} rows, numpy": a_round(one_by_one(NumpyLearner, banks), BANKS),
        },
        7,
    )
    report(times)
    report(least({f"{BANKS} x {ROWS} rows, Keras fit": keras_round(SPEC, POLICY, banks)}, 1))
    report(least({f"{BANKS} models on {TEST_ROWS} rows of pooled test": an_evaluation(stacked, BANKS)}, 3))
    for count, repeats in ((1000, 5), (11_000, 2)):
        many = StackedLearner(SPEC, POLICY, draw_banks(count, 200))
        report(least({f"{count} x 200 rows, stacked": a_round(many, count)}, repeats))
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:.0f} MB")
    processor, clock = next(iter(times.values()))
    quiet = processor / (os.cpu_count() or 1)
    print(f"stacked training of {BANKS} banks: {quiet:.3f} s on quiet processors, {clock:.3f} s here (bar {BAR})")
    return 0 if quiet <= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
