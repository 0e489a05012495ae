"""The models a consortium can train, described without a framework: shapes, initial weights, training policy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal

import numpy as np

from p2pfed.core.weights import ModelSchema, TensorSpec, Weights

DEFAULT_HIDDEN: dict[str, tuple[int, ...]] = {"mlp": (64, 32), "autoencoder": (16, 8, 4, 8, 16)}
"""Sizes of the hidden layers by kind of model, where a founder names none."""
DEFAULT_DROPOUT = 0.2
"""As `DEFAULT_HIDDEN`."""
POSITIVE_WEIGHT_CAP = 10.0
"""The policy's `positive_weight_cap` in every consortium that the command line founds."""


@dataclass(frozen=True)
class ModelSpec:
    """A dense network: ReLU hidden layers, linear output (a logit for `mlp`, the inputs again for `autoencoder`)."""

    kind: Literal["mlp", "autoencoder"]
    inputs: int
    hidden: tuple[int, ...]
    dropout: float
    """Share of hidden units dropped while training; 0 is none."""

    def __post_init__(self) -> None:
        if self.inputs < 1 or not self.hidden or min(self.hidden) < 1:
            raise ValueError("a model needs inputs and at least one hidden layer, all of positive size")
        if not 0 <= self.dropout < 1:
            raise ValueError("dropout must be at least 0 and below 1")

    @property
    def outputs(self) -> int:
        """Width of the last layer: 1 for the MLP, `inputs` for the autoencoder."""
        return 1 if self.kind == "mlp" else self.inputs

    @property
    def layers(self) -> tuple[tuple[int, int], ...]:
        """(fan in, fan out) of each dense layer."""
        return tuple(pairwise((self.inputs, *self.hidden, self.outputs)))

    def schema(self) -> ModelSchema:
        """Kernel and bias of each layer, in forward order: `dense0/kernel` (in, out), `dense0/bias` (out,)."""
        return self._schema

    @cached_property
    def _schema(self) -> ModelSchema:
        tensors: list[TensorSpec] = []
        for i, (fan_in, fan_out) in enumerate(self.layers):
            tensors += [TensorSpec(f"dense{i}/kernel", (fan_in, fan_out)), TensorSpec(f"dense{i}/bias", (fan_out,))]
        return ModelSchema(tuple(tensors))

    def initial_weights(self, seed: int) -> Weights:
        """The same weights for the same seed on every machine: He normal below a ReLU, Glorot normal at the output."""
        generator = np.random.Generator(np.random.PCG64(seed))
        tensors = []
        for i, (fan_in, fan_out) in enumerate(self.layers):
            last = i == len(self.layers) - 1
            deviation = math.sqrt(2 / (fan_in + fan_out)) if last else math.sqrt(2 / fan_in)
            kernel = generator.standard_normal((fan_in, fan_out)) * deviation
            tensors += [kernel.astype(np.float32), np.zeros(fan_out, np.float32)]
        schema = self.schema()
        return Weights(schema, schema.join(tensors))


@dataclass(frozen=True)
class TrainingPolicy:
    """How every member trains between two merges, so that models and distances are comparable."""

    local_steps: int
    """Optimiser steps a round; 0 means one epoch of the member's own training rows."""
    batch: int
    learning_rate: float
    decay_rounds: tuple[int, ...]
    """Rounds at which the learning rate is divided by 5; empty keeps it constant."""
    imbalance: Literal["none", "class_weight", "smote", "adasyn", "undersample"]
    positive_weight_cap: float
    """`class_weight` weighs a fraud min(cap, sqrt(legitimate / frauds)) times."""

    def __post_init__(self) -> None:
        if self.local_steps < 0 or self.batch < 1 or self.learning_rate <= 0 or self.positive_weight_cap < 1:
            raise ValueError("local_steps >= 0, batch >= 1, learning_rate > 0 and positive_weight_cap >= 1 are needed")
        if list(self.decay_rounds) != sorted(set(self.decay_rounds)):
            raise ValueError("decay_rounds must rise")

    def rate(self, round_number: int) -> float:
        """The learning rate of round `round_number`, counted from 1."""
        return self.learning_rate / 5.0 ** sum(round_number > r for r in self.decay_rounds)


DEFAULT_TRAINING = TrainingPolicy(100, 256, 2e-3, (), "class_weight", POSITIVE_WEIGHT_CAP)
"""What founders get who choose nothing, and what `p2pfed init` measures."""
