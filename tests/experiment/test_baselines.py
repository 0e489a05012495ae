"""The rivals get the same budget as the banks' nodes, and keep what validation rows say is best."""

import numpy as np
import pytest

from p2pfed.config import ThresholdSection
from p2pfed.core.model import ModelSpec, TrainingPolicy
from p2pfed.core.rows import BankRows, Rows
from p2pfed.experiment.baselines import Budget, learning_bank, pool, train_alone, train_centralised, train_fedavg
from p2pfed.learning.numpy_learner import NumpyLearner

SPEC = ModelSpec("mlp", inputs=4, hidden=(8,), dropout=0.0)
POLICY = TrainingPolicy(5, 32, 0.01, (), "class_weight", 10.0)
ROUNDS = 12


def rows(count, seed, direction=0):
    """Payments whose fraud shows in column `direction`."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((count, 4)).astype(np.float32)
    return Rows(features, (features[:, direction] > 1.3).astype(np.float32))


def bank(seed, direction, count=400):
    parts = [rows(n, 10 * seed + i, direction) for i, n in enumerate((count, 200, 200))]
    test = Rows(
        *(
            np.concatenate(p)
            for p in zip(*((r.features, r.labels) for r in (rows(300, 1, 0), rows(300, 2, 1))), strict=True)
        )
    )
    return learning_bank(BankRows(*parts, test, 100.0), SPEC, POLICY, ThresholdSection(), seed)


class Recorder:
    """Makes numpy learners and counts their steps."""

    def __init__(self):
        self.steps = 0
        self.starts = []

    def __call__(self, spec, policy, bank):
        learner = NumpyLearner(
            spec, policy, bank.learning_rows, bank.threshold, positive_weight=bank.positive_weight, seed=bank.seed
        )
        outer, train = self, learner.train

        def counted(vector, optimiser, number):
            if number == 1:
                outer.starts.append(vector.copy())
            result = train(vector, optimiser, number)
            outer.steps += result.steps
            return result

        learner.train = counted
        return learner


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def budget(recorder):
    return Budget(SPEC, POLICY, ROUNDS, SPEC.initial_weights(3).vector, recorder)


def test_every_method_gets_the_same_steps_and_start(budget, recorder):
    banks = [bank(0, 0), bank(1, 1)]
    counts = []
    for method in (train_centralised, train_fedavg):
        recorder.steps = 0
        method(budget, banks, lambda _: None)
        counts.append(recorder.steps)
    recorder.steps = 0
    for one in banks:
        train_alone(budget, one, lambda _: None)
    counts.append(recorder.steps)
    assert counts == [2 * ROUNDS * POLICY.local_steps] * 3
    assert all(np.array_equal(start, budget.initial) for start in recorder.starts)


def test_an_epoch_a_round_is_counted_too(recorder):
    policy = TrainingPolicy(0, 32, 0.01, (), "none", 10.0)
    banks = [bank(0, 0, count=100), bank(1, 1, count=65)]
    budget = Budget(SPEC, policy, 3, SPEC.initial_weights(3).vector, recorder)
    train_centralised(budget, banks, lambda _: None)
    assert recorder.steps == 3 * (4 + 3)


def test_together_sees_what_alone_misses(budget):
    banks = [bank(0, 0), bank(1, 1)]
    long = Budget(SPEC, POLICY, 60, budget.initial, budget.make_learner)
    alone = [train_alone(long, one, lambda _: None)["test"]["auprc"] for one in banks]
    central = train_centralised(long, banks, lambda _: None)["test"]["auprc"]
    fedavg = train_fedavg(long, banks, lambda _: None)["test"]["auprc"]
    assert min(central, fedavg) > max(alone) + 0.05


def test_the_best_round_on_validation_is_kept(budget):
    """A learner that gets worse and worse ends with its first round's weights."""
    one = bank(0, 0)
    good = budget.initial
    for number in range(1, 30):
        good = Recorder()(SPEC, POLICY, one).train(good, b"", number).vector

    class Spoiling:
        def train(self, vector, optimiser, number):
            rng = np.random.default_rng(number)
            noise = rng.standard_normal(len(good)).astype(np.float32) * (0 if number == 1 else 2)
            return type("Result", (), {"vector": good + noise})()

    spoiled = Budget(SPEC, POLICY, ROUNDS, budget.initial, lambda *_: Spoiling())
    kept = train_alone(spoiled, one, lambda _: None)
    from p2pfed.learning.learner import measure

    assert kept == measure(SPEC, good, one.rows, one.threshold).metrics


def test_fedavg_weighs_banks_by_rows(budget):
    """With one bank a hundred times the other's size, the average all but is the larger bank's model."""
    vectors = {}

    class Fixed:
        def __init__(self, bank):
            self.vector = np.full(SPEC.schema().size, float(len(bank.rows.train)), np.float32)

        def train(self, vector, optimiser, number):
            vectors.setdefault(number, []).append(vector.copy())
            return type("Result", (), {"vector": self.vector})()

    banks = [bank(0, 0, count=400), bank(1, 1, count=100)]
    train_fedavg(Budget(SPEC, POLICY, 2, budget.initial, lambda s, p, b: Fixed(b)), banks, lambda _: None)
    assert np.allclose(vectors[2][0], 0.8 * 400 + 0.2 * 100)


def test_pooling_keeps_every_row_and_one_test(budget):
    banks = [bank(0, 0), bank(1, 1)]
    pooled = pool(budget, banks)
    assert len(pooled.rows.train) == sum(len(b.rows.train) for b in banks)
    assert len(pooled.rows.validation) == sum(len(b.rows.validation) for b in banks)
    assert pooled.rows.pooled_test is banks[0].rows.pooled_test
    assert pooled.positive_weight > 1


def test_progress_names_each_round(budget):
    told = []
    train_alone(budget, bank(0, 0), told.append)
    assert told == list(range(1, ROUNDS + 1))
