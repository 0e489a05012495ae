"""The daemon's learner: Keras layers under one compiled TensorFlow loop that is traced once and runs a whole round.

Keras `fit` spends most of a small model's step outside the arithmetic. Here the weights are one flat variable, split
into the layers' tensors inside the graph, so that the gradient is one tensor and Adam one operation; batches are
gathered and dropout masks drawn inside the loop too. Importing this module confines TensorFlow to one thread: these
models are too small to share between threads, and a machine trains several banks side by side.
"""

from __future__ import annotations

import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from p2pfed.config import ThresholdSection
from p2pfed.core.model import ModelSpec, TrainingPolicy
from p2pfed.core.rows import BankRows
from p2pfed.core.weights import Vector
from p2pfed.learning.learner import (
    BETA1,
    BETA2,
    EPSILON,
    AdamState,
    Evaluation,
    TrainResult,
    batches,
    mask_seed,
    measure,
    training_rows,
)
from p2pfed.learning.threads import confine_tensorflow

confine_tensorflow(1)


class DenseNetwork(keras.Model):
    """The Keras model of a ModelSpec: ReLU layers, then a linear one. Dropout comes as masks, drawn by the caller."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.hidden = [keras.layers.Dense(units, activation="relu") for units in spec.hidden]
        self.output_layer = keras.layers.Dense(spec.outputs)
        self.build((None, spec.inputs))

    def build(self, input_shape: tuple[int | None, int]) -> None:
        """Create the variables, in the order of `ModelSpec.schema`."""
        shape: tuple[int | None, int] = input_shape
        for layer in [*self.hidden, self.output_layer]:
            layer.build(shape)
            shape = (None, layer.units)
        self.built = True

    def call(self, features: Any, masks: Any = None) -> Any:
        """The last layer's output [n, outputs] (a logit, or the reconstruction); `masks` [n, units] by hidden layer."""
        for i, layer in enumerate(self.hidden):
            features = layer(features)
            if masks is not None:
                features = features * masks[i]
        return self.output_layer(features)


class KerasLearner:
    """Learner over a DenseNetwork; holds the bank's training rows as tensors for life."""

    def __init__(
        self,
        spec: ModelSpec,
        policy: TrainingPolicy,
        rows: BankRows,
        threshold: ThresholdSection,
        *,
        positive_weight: float = 1.0,
        seed: int = 0,
    ) -> None:
        """`rows.train` comes resampled; `positive_weight` multiplies a fraud's loss; `seed` draws batches and masks."""
        train = training_rows(spec, rows)
        if not len(train):
            raise ValueError("a learner needs at least one row to train on")
        self._spec, self._policy, self._rows, self._threshold = spec, policy, rows, threshold
        self._positive_weight, self._seed = positive_weight, seed
        self._schema = spec.schema()
        self._network = DenseNetwork(spec)
        # one gather fetches a batch with its labels
        self._train = tf.constant(np.concatenate([train.features, train.labels[:, None]], axis=1))
        self._weights, self._mean, self._square = (tf.Variable(tf.zeros(self._schema.size)) for _ in range(3))
        self._step = 0
        self._loop = tf.function(
            self._round,
            # no Python control flow to convert: autograph would take three quarters of the first round's time
            autograph=False,
            input_signature=[
                tf.TensorSpec((None, policy.batch), tf.int32),
                tf.TensorSpec((), tf.float32),
                tf.TensorSpec((), tf.int32),
                tf.TensorSpec((), tf.int32),
            ],
        )

    def train(self, vector: Vector, optimiser: bytes, round_number: int) -> TrainResult:
        """See `Learner.train`."""
        begin = time.perf_counter()
        self._schema.split(vector)
        if optimiser:
            self._adopt(AdamState.from_bytes(optimiser, self._schema.size))
        self._weights.assign(vector)
        indices = batches(self._policy, self._train.shape[0], self._seed, round_number)
        masks = mask_seed(self._seed, round_number)
        loss = self._loop(indices, self._policy.rate(round_number), masks, np.int32(self._step))
        self._step += len(indices)
        state = AdamState(self._step, self._mean.numpy(), self._square.numpy())
        trained = self._weights.numpy()
        if not np.isfinite(trained).all():
            state = AdamState.fresh(self._schema.size)
            self._adopt(state)
        return TrainResult(trained, state.to_bytes(), float(loss), len(indices), time.perf_counter() - begin)

    def _adopt(self, state: AdamState) -> None:
        self._step = state.step
        self._mean.assign(state.mean)
        self._square.assign(state.square)

    def evaluate(self, vector: Vector) -> Evaluation:
        """See `Learner.evaluate`."""
        return measure(self._spec, vector, self._rows, self._threshold)

    @property
    def traces(self) -> int:
        """How often the training loop was traced: once, for the life of the learner."""
        return int(self._loop.experimental_get_tracing_count())

    def _round(self, indices: Any, rate: Any, seed: Any, first: Any) -> Any:
        """Graph of one round; returns the mean loss. Loss and update read the flat weights, no layer variable."""
        steps = tf.shape(indices)[0]

        def step(i: Any, total: Any) -> tuple[Any, Any]:
            batch = tf.gather(self._train, indices[i])
            masks = self._masks(tf.stack([seed, i]))
            with tf.GradientTape() as tape:
                weights = self._weights.read_value()
                tape.watch(weights)
                loss = self._loss(weights, batch, masks)
            self._adam(tape.gradient(loss, weights), rate, tf.cast(first + i + 1, tf.float32))
            return i + 1, total + loss

        _, total = tf.while_loop(lambda i, _: i < steps, step, (0, 0.0))
        return total / tf.cast(steps, tf.float32)

    def _loss(self, weights: Any, batch: Any, masks: Any) -> Any:
        features, labels = batch[:, : self._spec.inputs], batch[:, self._spec.inputs :]
        parts = tf.split(weights, [t.size for t in self._schema.tensors])
        tensors = [tf.reshape(part, t.shape) for part, t in zip(parts, self._schema.tensors, strict=True)]
        output, _ = self._network.stateless_call(tensors, [], features, masks=masks)
        if self._spec.kind == "autoencoder":
            return tf.reduce_mean(tf.square(output - features))
        return tf.reduce_mean(tf.nn.weighted_cross_entropy_with_logits(labels, output, self._positive_weight))

    def _masks(self, seed: Any) -> Any:
        """Dropout masks float32 [batch, units] by hidden layer, 0 or 1/keep; None without dropout.

        Four units share one random number, a byte each: drawing 24,000 floats would cost as much as the layers'
        products. The rate is thereby rounded to a 256th, and the survivors are scaled by the rate really used.
        """
        dropped = round(self._spec.dropout * 256)
        if not dropped:
            return None
        units = list(self._spec.hidden)
        numbers = -(-self._policy.batch * sum(units) // 4)
        words = tf.random.stateless_uniform([numbers], seed, minval=None, maxval=None, dtype=tf.int32)
        octets = tf.reshape(tf.bitcast(words, tf.uint8), [-1])[: self._policy.batch * sum(units)]
        kept = tf.reshape(tf.cast(octets >= dropped, tf.float32), [self._policy.batch, sum(units)])
        return tf.split(kept * (256 / (256 - dropped)), units, axis=1)

    def _adam(self, gradient: Any, rate: Any, step: Any) -> None:
        tf.raw_ops.ResourceApplyAdam(
            var=self._weights.handle,
            m=self._mean.handle,
            v=self._square.handle,
            beta1_power=tf.pow(BETA1, step),
            beta2_power=tf.pow(BETA2, step),
            lr=rate,
            beta1=BETA1,
            beta2=BETA2,
            epsilon=EPSILON,
            grad=gradient,
        )
