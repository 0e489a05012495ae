"""What only the TensorFlow implementation has: Keras's own numbers, one trace for life, no growth."""

import os
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from p2pfed.config import ThresholdSection
from p2pfed.core import forward
from p2pfed.core.model import ModelSpec, TrainingPolicy
from p2pfed.learning.learner import batches
from p2pfed.learning.numpy_learner import NumpyLearner
from tests.learning.rows import bank_rows

pytestmark = pytest.mark.tf

MLP = ModelSpec("mlp", 6, (64, 32), 0.0)
AUTOENCODER = ModelSpec("autoencoder", 6, (16, 8, 4, 8, 16), 0.0)
POLICY = TrainingPolicy(20, 64, 2e-3, (), "none", 10.0)


def made(spec: ModelSpec, policy: TrainingPolicy = POLICY, **changes: Any) -> Any:
    from p2pfed.learning.keras_learner import KerasLearner

    return KerasLearner(spec, policy, bank_rows(), ThresholdSection(), **changes)


def loaded_network(spec: ModelSpec, vector: np.ndarray) -> Any:
    from p2pfed.learning.keras_learner import DenseNetwork

    network = DenseNetwork(spec)
    network.set_weights([t.copy() for t in spec.schema().split(vector)])
    return network


@pytest.mark.parametrize("spec", [MLP, AUTOENCODER], ids=["mlp", "autoencoder"])
def test_scores_are_those_of_keras(spec: ModelSpec) -> None:
    vector = made(spec).train(spec.initial_weights(0).vector, b"", 1).vector
    rows = np.random.default_rng(0).standard_normal((5000, 6)).astype(np.float32) * 3
    output = np.asarray(loaded_network(spec, vector)(rows))
    expected = 1 / (1 + np.exp(-output[:, 0])) if spec.kind == "mlp" else ((output - rows) ** 2).mean(axis=1)
    assert np.abs(forward.scores(spec, vector, rows) - expected).max() < 1e-5


def test_training_is_that_of_keras_adam_and_loss() -> None:
    import keras

    start = MLP.initial_weights(0).vector
    result = made(MLP, positive_weight=3.0, seed=5).train(start, b"", 1)
    network = loaded_network(MLP, start)
    network.compile(keras.optimizers.Adam(POLICY.learning_rate), keras.losses.BinaryCrossentropy(from_logits=True))
    train = bank_rows().train
    for chosen in batches(POLICY, len(train), 5, 1):
        labels = train.labels[chosen]
        network.train_on_batch(train.features[chosen], labels[:, None], sample_weight=np.where(labels > 0.5, 3.0, 1.0))
    expected = MLP.schema().join([np.asarray(w) for w in network.get_weights()])
    moved = np.abs(expected - start).max()
    assert np.abs(result.vector - expected).max() < 1e-3 * moved


@pytest.mark.parametrize("spec", [MLP, AUTOENCODER], ids=["mlp", "autoencoder"])
def test_numpy_and_tensorflow_train_alike(spec: ModelSpec) -> None:
    start = spec.initial_weights(0).vector
    keras, plain = (
        made(spec, positive_weight=2.0),
        NumpyLearner(spec, POLICY, bank_rows(), ThresholdSection(), positive_weight=2.0),
    )
    one, other = keras.train(start, b"", 1), plain.train(start, b"", 1)
    assert one.loss == pytest.approx(other.loss, rel=1e-4)
    assert np.abs(one.vector - other.vector).max() < 1e-2 * np.abs(one.vector - start).max()
    # the optimiser's bytes are one format
    assert np.allclose(
        keras.train(start, other.optimiser, 2).vector, plain.train(start, one.optimiser, 2).vector, atol=1e-3
    )


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    import tensorflow as tf

    learner = made(replace(MLP, dropout=0.3), replace(POLICY, batch=999))
    masks = [m.numpy() for m in learner._masks(tf.constant([1, 2]))]
    assert [m.shape for m in masks] == [(999, 64), (999, 32)]
    for mask in masks:
        assert (mask == 0).mean() == pytest.approx(0.3, abs=0.01) and mask.mean() == pytest.approx(1, abs=0.02)
    others = learner._masks(tf.constant([1, 3]))
    assert (others[0].numpy() == masks[0]).mean() < 0.7


def test_one_trace_and_no_growth_over_200_rounds() -> None:
    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    learner = made(replace(MLP, dropout=0.2))
    result = learner.train(MLP.initial_weights(0).vector, b"", 1)
    settled = 0
    for round_number in range(2, 202):
        result = learner.train(result.vector, result.optimiser if round_number % 3 else b"", round_number)
        learner.evaluate(result.vector)
        if round_number == 20:
            settled = resident()
    assert learner.traces == 1
    assert resident() - settled < 8 * 2**20
