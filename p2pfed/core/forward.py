"""The dense models' forward pass in numpy: scores payments without TensorFlow, with the same numbers to 1e-5."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from p2pfed.core.model import ModelSpec
from p2pfed.core.weights import Vector

CHUNK = 4096
"""Rows in one pass: the hidden activations of this many stay in the processor's cache."""


def scores(spec: ModelSpec, vector: Vector, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Fraud scores float32 [n] of `features` float32 [n, spec.inputs]; higher is more suspicious.

    The MLP's score is a probability, the autoencoder's the mean squared reconstruction error of the row. Weights so
    large that a product overflows give scores that are not finite. Raises ValueError if `vector` or `features` do not
    have the model's shape.
    """
    if vector.ndim != 1:
        raise ValueError(f"expected a vector, got shape {list(vector.shape)}")
    one: NDArray[np.float32] = scores_of_each(spec, vector[None], features)[0]
    return one


def scores_of_each(spec: ModelSpec, vectors: NDArray[np.float32], features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Fraud scores float32 [k, n] that k models [k, d] give `features`, as `scores` does of one.

    Of few rows several times as fast as one model after the other.
    """
    if features.ndim != 2 or features.shape[1] != spec.inputs:
        raise ValueError(f"expected features of shape [n, {spec.inputs}], got {list(features.shape)}")
    tensors = spec.schema().split_each(vectors)
    result = np.empty((len(vectors), len(features)), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, len(features), CHUNK):
            rows = features[start : start + CHUNK]
            output = _output(tensors, rows)
            if spec.kind == "mlp":
                result[:, start : start + CHUNK] = sigmoid(output[..., 0])
            else:
                result[:, start : start + CHUNK] = np.square(output - rows).mean(axis=2)
    return result


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 / (1 + exp(-logits)), elementwise, without overflow."""
    small = np.exp(-np.abs(logits))
    probabilities: NDArray[np.float32] = np.where(logits >= 0, 1, small) / (1 + small)
    return probabilities


def _output(tensors: list[NDArray[np.float32]], rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """The last layer's output [k, n, outputs]: every layer but the last is followed by a ReLU."""
    hidden = rows
    last = len(tensors) - 2
    for i in range(0, len(tensors), 2):
        hidden = hidden @ tensors[i]
        hidden += tensors[i + 1][:, None]
        if i != last:
            np.maximum(hidden, 0, out=hidden)
    return hidden
