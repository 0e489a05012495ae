"""Many banks' models trained side by side: each step is one batched matrix product per layer, with a node axis.

A stack is `width` banks under one compiled loop; smaller ones are filled up with slots that stand still, and so does a
bank which has fewer steps than its neighbours. Forward pass, gradient and Adam are written out over [width, ...]
tensors; the numbers are the KerasLearner's, its dropout masks included.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from operator import itemgetter
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

PROCESSORS = os.cpu_count() or 1

confine_tensorflow(PROCESSORS)


class StackedLearner:
    """ManyLearner over one pooled tensor of all banks' training rows and one compiled loop for `width` models.

    Stacks are trained side by side, one on each processor. A bank's optimiser state is kept as the bytes it was handed
    out in, so that whoever stores them shares the memory.
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
        # one gather fetches a batch with its labels; bank b's rows lie between starts[b] and starts[b + 1]
        features, labels = (
            np.concatenate(parts) for parts in zip(*((r.features, r.labels) for r in rows), strict=True)
        )
        self._pool = tf.constant(np.column_stack([features, labels]))
        self._starts = np.concatenate([[0], np.cumsum([len(part) for part in rows])])
        self._states = [b""] * len(banks)
        self._fused_step = tf.function(self._step, autograph=False, jit_compile=True)
        # the one concrete function: to look for it by the arguments would take as long as two steps
        self._loop = tf.function(self._round, autograph=False).get_concrete_function(
            tf.TensorSpec((None, width, policy.batch), tf.int32),
            tf.TensorSpec((None, width), tf.float32),
            tf.TensorSpec((width,), tf.int32),
            tf.TensorSpec((width,), tf.float32),
            *[tf.TensorSpec((width, self._schema.size), tf.float32)] * 3,
        )

    def train(self, jobs: Sequence[TrainJob]) -> list[TrainResult]:
        """See `ManyLearner.train`."""
        refuse_two_of_one_bank(jobs)
        tasks = [(job, self._state(job)) for job in jobs]
        # banks with like numbers of steps share a stack: the shorter ones stand still for less long
        order = sorted(range(len(jobs)), key=lambda i: self._rows(jobs[i].bank))
        stacks = [[tasks[i] for i in order[start : start + self._width]] for start in range(0, len(jobs), self._width)]
        with ThreadPoolExecutor(PROCESSORS) as threads:
            trained = [result for part in threads.map(self._stack, stacks) for result in part]
        results = [result for _, result in sorted(zip(order, trained, strict=True), key=itemgetter(0))]
        for job, result in zip(jobs, results, strict=True):
            self._states[job.bank] = result.optimiser
        return results

    def evaluate(self, jobs: Sequence[EvaluateJob]) -> list[Evaluation]:
        """See `ManyLearner.evaluate`."""

        def answer(job: EvaluateJob) -> Evaluation:
            bank = self._banks[job.bank]
            return measure(self._spec, job.vector, bank.rows, bank.threshold)

        # numpy gives Python's lock away in products and sorts, which is where the time goes
        with ThreadPoolExecutor(PROCESSORS) as threads:
            return list(threads.map(answer, jobs))

    def forget(self, bank: int) -> None:
        """See `ManyLearner.forget`."""
        self._states[bank] = b""

    def _state(self, job: TrainJob) -> AdamState:
        self._schema.split(job.vector)
        data = job.optimiser or self._states[job.bank]
        return AdamState.from_bytes(data, self._schema.size) if data else AdamState.fresh(self._schema.size)

    def _rows(self, bank: int) -> int:
        return int(self._starts[bank + 1] - self._starts[bank])

    def _stack(self, tasks: Sequence[tuple[TrainJob, AdamState]]) -> list[TrainResult]:
        """Train at most `width` banks side by side."""
        begin = time.perf_counter()
        drawn = [batches(self._policy, self._rows(job.bank), self._banks[job.bank].seed, job.round) for job, _ in tasks]
        arguments = self._arguments(tasks, drawn)
        weights, mean, square, losses = (tensor.numpy() for tensor in self._loop(*map(tf.constant, arguments)))
        seconds = (time.perf_counter() - begin) / len(tasks)
        results = []
        for i, ((_, before), rows) in enumerate(zip(tasks, drawn, strict=True)):
            state = AdamState(before.step + len(rows), mean[i], square[i])
            if not np.isfinite(weights[i]).all():
                state = AdamState.fresh(self._schema.size)
            loss = float(losses[i]) / len(rows)
            results.append(TrainResult(weights[i].copy(), state.to_bytes(), loss, len(rows), seconds))
        return results

    def _arguments(
        self, tasks: Sequence[tuple[TrainJob, AdamState]], drawn: Sequence[NDArray[np.int32]]
    ) -> tuple[NDArray[Any], ...]:
        """What the compiled loop takes; unused steps and slots have the rate 0, at which a model stands still."""
        width, longest = self._width, max(map(len, drawn))
        indices = np.zeros((longest, width, self._policy.batch), np.int32)
        rates = np.zeros((longest, width), np.float32)
        seeds, positive = np.zeros(width, np.int32), np.ones(width, np.float32)
        weights, mean, square = (np.zeros((width, self._schema.size), np.float32) for _ in range(3))
        for i, ((job, state), rows) in enumerate(zip(tasks, drawn, strict=True)):
            bank, steps = self._banks[job.bank], len(rows)
            indices[:steps, i] = rows + self._starts[job.bank]
            count = np.arange(state.step + 1, state.step + steps + 1)
            rates[:steps, i] = self._policy.rate(job.round) * np.sqrt(1 - BETA2**count) / (1 - BETA1**count)
            seeds[i], positive[i] = mask_seed(bank.seed, job.round), bank.positive_weight
            weights[i], mean[i], square[i] = job.vector, state.mean, state.square
        return indices, rates, seeds, positive, weights, mean, square

    def _round(
        self, indices: Any, rates: Any, seeds: Any, positive: Any, weights: Any, mean: Any, square: Any
    ) -> tuple[Any, Any, Any, Any]:
        """Graph of a round; returns weights and moments [width, size] and the sum of each slot's losses [width]."""
        steps = tf.shape(indices)[0]

        def step(i: Any, *state: Any) -> tuple[Any, ...]:
            batch = tf.gather(self._pool, indices[i])
            return i + 1, *self._fused_step(*state, batch, self._octets(seeds, i), rates[i][:, None], positive)

        start = (0, weights, mean, square, tf.zeros(self._width))
        return tf.while_loop(lambda i, *_: i < steps, step, start)[1:]

    def _step(
        self, weights: Any, mean: Any, square: Any, total: Any, batch: Any, octets: Any, rate: Any, positive: Any
    ) -> tuple[Any, Any, Any, Any]:
        """Graph of one step of Adam (Kingma and Ba 2015, end of section 2, the bias corrected in `rate` [width, 1])."""
        losses, gradient = self._gradient(weights, batch, octets, positive)
        moves = rate > 0
        mean = tf.where(moves, mean + (gradient - mean) * (1 - BETA1), mean)
        square = tf.where(moves, square + (tf.square(gradient) - square) * (1 - BETA2), square)
        weights = tf.where(moves, weights - rate * mean / (tf.sqrt(square) + EPSILON), weights)
        return weights, mean, square, total + tf.where(moves[:, 0], losses, 0.0)

    def _gradient(self, weights: Any, batch: Any, octets: Any, positive: Any) -> tuple[Any, Any]:
        """Mean loss [width] of a batch [width, rows, inputs + 1] and its gradient [width, size], by backpropagation."""
        features, labels = batch[..., : self._spec.inputs], batch[..., self._spec.inputs :]
        parts = tf.split(weights, [t.size for t in self._schema.tensors], axis=1)
        kernels = [tf.reshape(part, (-1, *shape)) for part, shape in zip(parts[::2], self._spec.layers, strict=True)]
        biases = [part[:, None] for part in parts[1::2]]
        kept = tf.split(octets >= self._dropped, self._spec.hidden, axis=2)
        keep = 256 / (256 - self._dropped)
        inputs = [features]
        for kernel, bias, mask in zip(kernels[:-1], biases[:-1], kept, strict=True):
            before = tf.matmul(inputs[-1], kernel) + bias
            inputs.append(tf.where(mask & (before > 0), before * keep, 0.0))
        output = tf.matmul(inputs[-1], kernels[-1]) + biases[-1]
        losses, delta = self._loss(output, features, labels, positive)
        gradients: list[Any] = []
        for i in reversed(range(len(kernels))):
            of_kernel = tf.matmul(inputs[i], delta, transpose_a=True)
            gradients[:0] = [tf.reshape(of_kernel, parts[2 * i].shape), tf.reduce_sum(delta, axis=1)]
            if i:
                delta = tf.where(inputs[i] > 0, tf.matmul(delta, kernels[i], transpose_b=True) * keep, 0.0)
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

    @property
    def _dropped(self) -> int:
        """A hidden unit whose octet lies below is dropped, as in the KerasLearner."""
        return round(self._spec.dropout * 256)

    def _octets(self, seeds: Any, step: Any) -> Any:
        """The KerasLearner's random octets [width, batch, hidden units]; without dropout one row for all."""
        units, rows = sum(self._spec.hidden), self._policy.batch
        if not self._dropped:
            return tf.zeros((1, 1, units), tf.uint8)
        shape = [-(-rows * units // 4)]
        words = [
            tf.random.stateless_uniform(shape, tf.stack([seed, step]), minval=None, maxval=None, dtype=tf.int32)
            for seed in tf.unstack(seeds)
        ]
        octets = tf.reshape(tf.bitcast(tf.stack(words), tf.uint8), [self._width, -1])
        return tf.reshape(octets[:, : rows * units], [self._width, rows, units])
