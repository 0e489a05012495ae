"""What only the stacked program has: the daemon's numbers step for step, the same bits in any company, no growth."""

import os
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from p2pfed.config import ThresholdSection
from p2pfed.core.model import ModelSpec, TrainingPolicy
from p2pfed.learning.learner import StackedBank, TrainJob
from tests.learning.rows import bank_rows

pytestmark = pytest.mark.tf

MLP = ModelSpec("mlp", 6, (64, 32), 0.0)
AUTOENCODER = ModelSpec("autoencoder", 6, (16, 8, 4, 8, 16), 0.0)
POLICY = TrainingPolicy(0, 64, 2e-3, (3,), "none", 10.0)
SIZES = (300, 64, 1000, 20, 301, 640, 700)


def banks() -> list[StackedBank]:
    return [StackedBank(bank_rows(10 * i, n), 1.0 + i, 7 + i, ThresholdSection()) for i, n in enumerate(SIZES)]


def stacked(spec: ModelSpec, policy: TrainingPolicy = POLICY, width: int = 3) -> Any:
    from p2pfed.learning.batched import StackedLearner

    return StackedLearner(spec, policy, banks(), width=width)


@pytest.mark.parametrize(
    "spec",
    [MLP, replace(MLP, dropout=0.2), AUTOENCODER, replace(AUTOENCODER, dropout=0.1)],
    ids=["mlp", "mlp with dropout", "autoencoder", "autoencoder with dropout"],
)
@pytest.mark.parametrize("local_steps", [0, 1], ids=["epochs", "single steps"])
def test_a_stack_trains_step_for_step_as_the_daemon_does(spec: ModelSpec, local_steps: int) -> None:
    from p2pfed.learning.keras_learner import KerasLearner

    policy = replace(POLICY, local_steps=local_steps)
    many = stacked(spec, policy)
    daemons = [
        KerasLearner(spec, policy, b.rows, b.threshold, positive_weight=b.positive_weight, seed=b.seed) for b in banks()
    ]
    start = spec.initial_weights(0).vector
    begun = [TrainJob(bank, start, b"", 1) for bank in range(len(SIZES))]
    for round_number in range(1, 6):
        results = many.train(begun)
        for daemon, job, result in zip(daemons, begun, results, strict=True):
            expected = daemon.train(job.vector, job.optimiser, job.round)
            assert result.steps == expected.steps and result.loss == pytest.approx(expected.loss, rel=1e-5)
            assert np.abs(result.vector - expected.vector).max() < 1e-3 * np.abs(expected.vector - job.vector).max()
            moments, known = (np.frombuffer(r.optimiser, "<f4", offset=8) for r in (result, expected))
            assert result.optimiser[:8] == expected.optimiser[:8]
            assert np.abs(moments - known).max() < 1e-4 * np.abs(known).max()
        # merged models, and every other round the states of the daemon's own
        mean = np.mean([r.vector for r in results], axis=0, dtype=np.float32)
        handed = [r.optimiser if round_number % 2 else b"" for r in results]
        begun = [TrainJob(bank, mean, optimiser, round_number + 1) for bank, optimiser in enumerate(handed)]


def test_a_bank_gets_the_same_bits_in_every_slot() -> None:
    spec = replace(MLP, dropout=0.2)
    start = spec.initial_weights(0).vector
    jobs = [TrainJob(bank, start, b"", 1) for bank in range(len(SIZES))]
    policy = replace(POLICY, local_steps=3)
    together, turned = (stacked(spec, policy, width=len(SIZES)).train(order) for order in (jobs, jobs[2:] + jobs[:2]))
    alone = [stacked(spec, policy, width=1).train([job])[0] for job in jobs[:2]]
    for result, other in zip(together, turned[-2:] + turned[:-2], strict=True):
        assert np.array_equal(result.vector, other.vector) and result.optimiser == other.optimiser
    for result, other in zip(together, alone, strict=False):
        assert np.abs(result.vector - other.vector).max() < 1e-6, "another width may round otherwise"


def test_no_growth_over_200_rounds() -> None:
    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    many = stacked(replace(MLP, dropout=0.2))
    start, settled = MLP.initial_weights(0).vector, 0
    for round_number in range(1, 202):
        count = 1 + round_number % len(SIZES)
        many.train([TrainJob(bank, start, b"", round_number) for bank in range(count)])
        if round_number == 20:
            settled = resident()
    assert resident() - settled < 8 * 2**20
