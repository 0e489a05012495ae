"""The training of `width` dense models side by side as one compiled graph: every tensor has the model as first axis.

Forward pass, gradient and Adam are written out, and a step is one fused XLA computation: Keras has no layers with such
an axis. Batches are gathered and random octets drawn outside it, where TensorFlow is faster. No slot's numbers reach
another's, and the numbers are the KerasLearner's, dropout masks included.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import tensorflow as tf
from numpy.typing import NDArray

from p2pfed.core.model import ModelSpec
from p2pfed.learning.learner import BETA1, BETA2, EPSILON


class Stack:
    """The compiled training of `width` models of one kind, in batches of `batch` rows; holds no state."""

    def __init__(self, spec: ModelSpec, batch: int, width: int) -> None:
        self._spec, self._batch, self._width = spec, batch, width
        self._schema = spec.schema()
        # a hidden unit whose octet lies below is dropped; the survivors are scaled, so that the mean stays
        self._dropped = round(spec.dropout * 256)
        self._scale = 256 / (256 - self._dropped)
        self._fused_step = tf.function(self._step, autograph=False, jit_compile=True)
        # the one concrete function: to look for it by the arguments would take as long as two steps
        self._steps = tf.function(self._loop, autograph=False).get_concrete_function(
            tf.TensorSpec((None, spec.inputs + 1), tf.float32),
            tf.TensorSpec((None, width, batch), tf.int32),
            tf.TensorSpec((None, width), tf.float32),
            tf.TensorSpec((width,), tf.int32),
            tf.TensorSpec((width,), tf.float32),
            *[tf.TensorSpec((width, self._schema.size), tf.float32)] * 3,
        )

    def train(self, pool: Any, *arguments: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        """Train every slot; returns weights and Adam's two means [width, size] and the sums of the losses [width].

        `pool` is a tensor [rows, inputs + 1] of features and label. The arguments are row numbers int32 [steps, width,
        batch], Adam's learning rates with the bias corrected float32 [steps, width] (a slot with 0 stands still),
        the rounds' mask seeds int32 [width], a fraud's weight in the loss float32 [width], and weights and means.
        """
        return tuple(tensor.numpy() for tensor in self._steps(pool, *map(tf.constant, arguments)))

    def _loop(
        self, pool: Any, indices: Any, rates: Any, seeds: Any, positive: Any, weights: Any, mean: Any, square: Any
    ) -> tuple[Any, ...]:
        steps = tf.shape(indices)[0]

        def step(i: Any, *state: Any) -> tuple[Any, ...]:
            batch = tf.gather(pool, indices[i])
            return i + 1, *self._fused_step(*state, batch, self._octets(seeds, i), rates[i][:, None], positive)

        start = (0, weights, mean, square, tf.zeros(self._width))
        return tuple(tf.while_loop(lambda i, *_: i < steps, step, start)[1:])

    def _step(
        self, weights: Any, mean: Any, square: Any, total: Any, batch: Any, octets: Any, rate: Any, positive: Any
    ) -> tuple[Any, Any, Any, Any]:
        """Graph of one step of Adam (Kingma and Ba 2015, end of section 2)."""
        losses, gradient = self._gradient(weights, batch, octets, positive)
        moves = rate > 0
        mean = tf.where(moves, mean + (gradient - mean) * (1 - BETA1), mean)
        square = tf.where(moves, square + (tf.square(gradient) - square) * (1 - BETA2), square)
        weights = tf.where(moves, weights - rate * mean / (tf.sqrt(square) + EPSILON), weights)
        return weights, mean, square, total + tf.where(moves[:, 0], losses, 0.0)

    def _gradient(self, weights: Any, batch: Any, octets: Any, positive: Any) -> tuple[Any, Any]:
        """Mean losses [width] of batches [width, batch, inputs + 1] and gradient [width, size], by backpropagation."""
        features, labels = batch[..., : self._spec.inputs], batch[..., self._spec.inputs :]
        parts = tf.split(weights, [t.size for t in self._schema.tensors], axis=1)
        kernels = [tf.reshape(part, (-1, *shape)) for part, shape in zip(parts[::2], self._spec.layers, strict=True)]
        biases = [part[:, None] for part in parts[1::2]]
        kept = tf.split(octets >= self._dropped, self._spec.hidden, axis=2)
        inputs = [features]
        for kernel, bias, mask in zip(kernels[:-1], biases[:-1], kept, strict=True):
            before = tf.matmul(inputs[-1], kernel) + bias
            inputs.append(tf.where(mask & (before > 0), before * self._scale, 0.0))
        output = tf.matmul(inputs[-1], kernels[-1]) + biases[-1]
        losses, delta = self._loss(output, features, labels, positive)
        gradients: list[Any] = []
        for i in reversed(range(len(kernels))):
            of_kernel = tf.matmul(inputs[i], delta, transpose_a=True)
            gradients[:0] = [tf.reshape(of_kernel, parts[2 * i].shape), tf.reduce_sum(delta, axis=1)]
            if i:
                back = tf.matmul(delta, kernels[i], transpose_b=True)
                delta = tf.where(inputs[i] > 0, back * self._scale, 0.0)
        return losses, tf.concat(gradients, axis=1)

    def _loss(self, output: Any, features: Any, labels: Any, positive: Any) -> tuple[Any, Any]:
        """Mean loss [width] and its derivative by `output`."""
        if self._spec.kind == "autoencoder":
            error = output - features
            return tf.reduce_mean(tf.square(error), axis=[1, 2]), error * (2 / (self._batch * self._spec.inputs))
        factor = positive[:, None, None]
        losses = tf.nn.weighted_cross_entropy_with_logits(labels, output, factor)
        delta = (1 - labels) - (1 + (factor - 1) * labels) * tf.sigmoid(-output)
        return tf.reduce_mean(losses, axis=[1, 2]), delta / self._batch

    def _octets(self, seeds: Any, step: Any) -> Any:
        """The KerasLearner's random octets [width, batch, hidden units]; without dropout one row for all."""
        units = sum(self._spec.hidden)
        if not self._dropped:
            return tf.zeros((1, 1, units), tf.uint8)
        shape = [-(-self._batch * units // 4)]
        words = [
            tf.random.stateless_uniform(shape, tf.stack([seed, step]), minval=None, maxval=None, dtype=tf.int32)
            for seed in tf.unstack(seeds)
        ]
        octets = tf.reshape(tf.bitcast(tf.stack(words), tf.uint8), [self._width, -1])
        return tf.reshape(octets[:, : self._batch * units], [self._width, self._batch, units])


@lru_cache(maxsize=8)
def compiled(spec: ModelSpec, batch: int, width: int) -> Stack:
    """The Stack for these shapes; learners of the same shapes share it, since tracing and compiling takes a second."""
    return Stack(spec, batch, width)
