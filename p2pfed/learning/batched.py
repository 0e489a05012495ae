"""Many banks' models trained side by side: each step is one batched matrix product per layer, with a node axis.

A stack is `width` banks under one compiled loop; smaller ones are filled up with slots that stand still, and so does a
bank which has fewer steps than its neighbours. Forward pass, gradient and Adam are written out over [width, ...]
tensors; the numbers are the KerasLearner's, its dropout masks included.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from p2pfed.core.model import ModelSpec, TrainingPolicy
from p2pfed.learning.learner import (
    BETA1,
    BETA2,
    EPSILON,
    AdamState,
    EvaluateJob,
    Evaluation,
    StackedBank,
    TrainJob,
    TrainResult,
    batches,
    mask_seed,
    measure,
    refuse_two_of_one_bank,
    training_rows,
)
from p2pfed.learning.threads import confine_tensorflow

confine_tensorflow(2)


class StackedLearner:
    """ManyLearner over one pooled tensor of all banks' training rows and one compiled loop for `width` models.

    A bank's optimiser state is kept as the bytes it was handed out in, so that whoever stores them shares the memory.
    """

    def __init__(
        self, spec: ModelSpec, policy: TrainingPolicy, banks: Sequence[StackedBank], *, width: int = 8
    ) -> None:
        """Raises ValueError if a bank has no row to train on."""
        self._spec, self._policy, self._banks, self._width = spec, policy, banks, width
        self._schema = spec.schema()
        rows = [training_rows(spec, bank.rows) for bank in banks]
        if not all(map(len, rows)):
            raise ValueError("a learner needs at least one row to train on")
        # one gather fetches a batch with its labels; a bank's rows begin at its entry of `starts`
        self._pool = tf.concat([np.concatenate([part.features, part.labels[:, None]], axis=1) for part in rows], axis=0)
        self._starts = np.concatenate([[0], np.cumsum([len(part) for part in rows])]).astype(np.int32)
        self._states = [b""] * len(banks)
        self._loop = self._compiled()

    def train(self, jobs: Sequence[TrainJob]) -> list[TrainResult]:
        """See `ManyLearner.train`."""
        refuse_two_of_one_bank(jobs)
        states = [self._state(job) for job in jobs]
        results: dict[int, TrainResult] = {}
        for start in range(0, len(jobs), self._width):
            part = jobs[start : start + self._width]
            for job, result in zip(part, self._stack(part, states[start : start + self._width]), strict=True):
                results[job.bank] = result
        for job in jobs:
            self._states[job.bank] = results[job.bank].optimiser
        return [results[job.bank] for job in jobs]

    def evaluate(self, jobs: Sequence[EvaluateJob]) -> list[Evaluation]:
        """See `ManyLearner.evaluate`."""
        banks = [self._banks[job.bank] for job in jobs]
        return [
            measure(self._spec, job.vector, bank.rows, bank.threshold) for job, bank in zip(jobs, banks, strict=True)
        ]

    def forget(self, bank: int) -> None:
        """See `ManyLearner.forget`."""
        self._states[bank] = b""

    @property
    def traces(self) -> int:
        """How often the loop was traced: once, for the life of the learner."""
        return int(self._loop.experimental_get_tracing_count())

    def _state(self, job: TrainJob) -> AdamState:
        self._schema.split(job.vector)
        data = job.optimiser or self._states[job.bank]
        return AdamState.from_bytes(data, self._schema.size) if data else AdamState.fresh(self._schema.size)

    def _stack(self, jobs: Sequence[TrainJob], states: Sequence[AdamState]) -> list[TrainResult]:
        """Train at most `width` jobs as one stack."""
        begin = time.perf_counter()
        width, size = self._width, self._schema.size
        drawn = [self._batches(job) for job in jobs]
        steps = max(map(len, drawn))
        # slot after slot: row numbers, Adam's corrected rates (0 stands still), seeds, weights of a fraud
        indices = np.zeros((steps, width, self._policy.batch), np.int32)
        rates = np.zeros((steps, width), np.float32)
        seeds, positive = np.zeros(width, np.int32), np.ones(width, np.float32)
        weights, mean, square = (np.zeros((width, size), np.float32) for _ in range(3))
        for i, (job, state, rows) in enumerate(zip(jobs, states, drawn, strict=True)):
            indices[: len(rows), i] = rows
            rates[: len(rows), i] = self._rates(job.round, state.step, len(rows))
            seeds[i] = mask_seed(self._banks[job.bank].seed, job.round)
            positive[i] = self._banks[job.bank].positive_weight
            weights[i], mean[i], square[i] = job.vector, state.mean, state.square
        weights, mean, square, losses = (
            tensor.numpy() for tensor in self._loop(indices, rates, seeds, positive, weights, mean, square)
        )
        seconds = (time.perf_counter() - begin) / len(jobs)
        results = []
        for i, (state, rows) in enumerate(zip(states, drawn, strict=True)):
            after = AdamState(state.step + len(rows), mean[i], square[i])
            if not np.isfinite(weights[i]).all():
                after = AdamState.fresh(size)
            loss = float(losses[i]) / len(rows)
            results.append(TrainResult(weights[i].copy(), after.to_bytes(), loss, len(rows), seconds))
        return results

    def _batches(self, job: TrainJob) -> NDArray[np.int32]:
        """The round's rows by their number in the pool."""
        start, end = self._starts[job.bank : job.bank + 2]
        return batches(self._policy, int(end - start), self._banks[job.bank].seed, job.round) + start

    def _rates(self, round_number: int, first: int, steps: int) -> NDArray[np.float64]:
        """Learning rate [steps] with the bias of both means corrected, `first` steps after the state began."""
        step = np.arange(first + 1, first + steps + 1)
        return self._policy.rate(round_number) * np.sqrt(1 - BETA2**step) / (1 - BETA1**step)

    def _compiled(self) -> Any:
        width, size = self._width, self._schema.size
        vectors = [tf.TensorSpec((width, size), tf.float32)] * 3
        return tf.function(
            self._round,
            autograph=False,
            input_signature=[
                tf.TensorSpec((None, width, self._policy.batch), tf.int32),
                tf.TensorSpec((None, width), tf.float32),
                tf.TensorSpec((width,), tf.int32),
                tf.TensorSpec((width,), tf.float32),
                *vectors,
            ],
        )

    def _round(
        self, indices: Any, rates: Any, seeds: Any, positive: Any, weights: Any, mean: Any, square: Any
    ) -> tuple[Any, Any, Any, Any]:
        """Graph of a round; returns weights and moments [width, size] and the sum of each slot's losses [width]."""
        steps = tf.shape(indices)[0]

        def step(i: Any, weights: Any, mean: Any, square: Any, total: Any) -> tuple[Any, ...]:
            batch = tf.gather(self._pool, indices[i])
            losses, gradient = self._gradient(weights, batch, self._masks(seeds, i), positive)
            rate = rates[i][:, None]
            moves = rate > 0
            mean = tf.where(moves, mean + (gradient - mean) * (1 - BETA1), mean)
            square = tf.where(moves, square + (tf.square(gradient) - square) * (1 - BETA2), square)
            weights = tf.where(moves, weights - rate * mean / (tf.sqrt(square) + EPSILON), weights)
            return i + 1, weights, mean, square, total + tf.where(moves[:, 0], losses, 0.0)

        start = (0, weights, mean, square, tf.zeros(self._width))
        return tf.while_loop(lambda i, *_: i < steps, step, start)[1:]

    def _gradient(self, weights: Any, batch: Any, masks: Any, positive: Any) -> tuple[Any, Any]:
        """Mean loss [width] of a batch [width, rows, inputs + 1] and its gradient [width, size], by backpropagation."""
        features, labels = batch[..., : self._spec.inputs], batch[..., self._spec.inputs :]
        parts = tf.split(weights, [t.size for t in self._schema.tensors], axis=1)
        kernels = [tf.reshape(part, (-1, *shape)) for part, shape in zip(parts[::2], self._spec.layers, strict=True)]
        inputs, slopes = [features], []
        for i, (kernel, bias) in enumerate(zip(kernels[:-1], parts[1::2], strict=False)):
            before = tf.matmul(inputs[-1], kernel) + bias[:, None]
            slope = tf.cast(before > 0, tf.float32)
            slopes.append(slope if masks is None else slope * masks[i])
            inputs.append(before * slopes[-1])
        output = tf.matmul(inputs[-1], kernels[-1]) + parts[-1][:, None]
        losses, delta = self._loss(output, features, labels, positive)
        gradients: list[Any] = []
        for i in reversed(range(len(kernels))):
            kernel_gradient = tf.matmul(inputs[i], delta, transpose_a=True)
            gradients[:0] = [tf.reshape(kernel_gradient, parts[2 * i].shape), tf.reduce_sum(delta, axis=1)]
            if i:
                delta = tf.matmul(delta, kernels[i], transpose_b=True) * slopes[i - 1]
        return losses, tf.concat(gradients, axis=1)

    def _loss(self, output: Any, features: Any, labels: Any, positive: Any) -> tuple[Any, Any]:
        """Mean loss [width] and its derivative by `output`."""
        if self._spec.kind == "autoencoder":
            error = output - features
            return tf.reduce_mean(tf.square(error), axis=[1, 2]), error * (2 / (self._policy.batch * self._spec.inputs))
        weight = 1 + (positive[:, None, None] - 1) * labels
        losses = tf.nn.weighted_cross_entropy_with_logits(labels, output, positive[:, None, None])
        delta = (1 - labels) - weight * tf.sigmoid(-output)
        return tf.reduce_mean(losses, axis=[1, 2]), delta / self._policy.batch

    def _masks(self, seeds: Any, step: Any) -> Any:
        """The KerasLearner's dropout masks [width, batch, units] by hidden layer; None without dropout."""
        dropped = round(self._spec.dropout * 256)
        if not dropped:
            return None
        units, rows = self._spec.hidden, self._policy.batch
        numbers = -(-rows * sum(units) // 4)
        words = [
            tf.random.stateless_uniform([numbers], tf.stack([seed, step]), minval=None, maxval=None, dtype=tf.int32)
            for seed in tf.unstack(seeds)
        ]
        octets = tf.reshape(tf.bitcast(tf.stack(words), tf.uint8), [self._width, -1])[:, : rows * sum(units)]
        octets = tf.reshape(octets, [self._width, rows, sum(units)])
        ends = np.cumsum((0, *units))
        keep = 256 / (256 - dropped)
        return [tf.cast(octets[..., a:b] >= dropped, tf.float32) * keep for a, b in pairwise(ends)]
