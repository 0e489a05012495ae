"""The same training without TensorFlow: written-out gradients in numpy, for tests and as a second opinion."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from p2pfed.config import ThresholdSection
from p2pfed.core.forward import sigmoid
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
    measure,
    training_rows,
)

Array = NDArray[np.float32]


class NumpyLearner:
    """Learner with the KerasLearner's arguments; equal to it up to rounding where there is no dropout."""

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
        self._train = training_rows(spec, rows)
        if not len(self._train):
            raise ValueError("a learner needs at least one row to train on")
        self._spec, self._policy, self._rows, self._threshold = spec, policy, rows, threshold
        self._positive_weight, self._seed = np.float32(positive_weight), seed
        self._schema = spec.schema()
        self._state = AdamState.fresh(self._schema.size)

    def train(self, vector: Vector, optimiser: bytes, round_number: int) -> TrainResult:
        """See `Learner.train`."""
        begin = time.perf_counter()
        weights = vector.copy()
        tensors = self._schema.split(weights)
        state = AdamState.from_bytes(optimiser, self._schema.size) if optimiser else self._state
        mean, square, step, total = state.mean.copy(), state.square.copy(), state.step, 0.0
        rate = self._policy.rate(round_number)
        indices = batches(self._policy, len(self._train), self._seed, round_number)
        generator = np.random.Generator(np.random.PCG64([self._seed, round_number, 1]))
        with np.errstate(over="ignore", invalid="ignore"):
            for chosen in indices:
                step += 1
                loss, gradients = self._gradients(tensors, chosen, generator)
                gradient = self._schema.join(gradients)
                mean += (1 - BETA1) * (gradient - mean)
                square += (1 - BETA2) * (np.square(gradient) - square)
                corrected = np.float32(rate * np.sqrt(1 - BETA2**step) / (1 - BETA1**step))
                weights -= corrected * mean / (np.sqrt(square) + EPSILON)
                total += loss
        finite = bool(np.isfinite(weights).all())
        self._state = AdamState(step, mean, square) if finite else AdamState.fresh(weights.size)
        seconds = time.perf_counter() - begin
        return TrainResult(weights, self._state.to_bytes(), total / len(indices), len(indices), seconds)

    def evaluate(self, vector: Vector) -> Evaluation:
        """See `Learner.evaluate`."""
        return measure(self._spec, vector, self._rows, self._threshold)

    def _gradients(
        self, tensors: list[Array], chosen: NDArray[np.int32], generator: np.random.Generator
    ) -> tuple[float, list[Array]]:
        """The batch's mean loss and the gradient of each tensor, by backpropagation."""
        features, labels = self._train.features[chosen], self._train.labels[chosen][:, None]
        inputs, slopes = [features], []
        for i in range(0, len(tensors) - 2, 2):
            before = inputs[-1] @ tensors[i] + tensors[i + 1]
            slope = (before > 0).astype(np.float32)
            if self._spec.dropout:
                kept = generator.random(before.shape, np.float32) >= self._spec.dropout
                slope *= kept / np.float32(1 - self._spec.dropout)
            inputs.append(before * slope)
            slopes.append(slope)
        output = inputs[-1] @ tensors[-2] + tensors[-1]
        loss, delta = self._loss(output, features, labels)
        gradients: list[Array] = []
        for i in range(len(tensors) - 2, -1, -2):
            gradients[:0] = [inputs[i // 2].T @ delta, delta.sum(axis=0)]
            if i:
                delta = (delta @ tensors[i].T) * slopes[i // 2 - 1]
        return loss, gradients

    def _loss(self, output: Array, features: Array, labels: Array) -> tuple[float, Array]:
        """Mean loss of a batch and its derivative by `output`."""
        if self._spec.kind == "autoencoder":
            error = output - features
            return float(np.square(error).mean()), error * np.float32(2 / error.size)
        weight = np.where(labels > 0.5, self._positive_weight, np.float32(1))
        # -log sigmoid of the right class's logit
        signed = np.where(labels > 0.5, -output, output)
        each = np.maximum(signed, 0) + np.log1p(np.exp(-np.abs(signed)))
        return float((weight * each).mean()), weight * (sigmoid(output) - labels) / np.float32(len(labels))
