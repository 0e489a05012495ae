"""What a model is on the wire: named tensors in a fixed order, laid out as one float32 vector."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class TensorSpec:
    """One tensor's name and shape, for example `dense0/kernel` (30, 64)."""

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many numbers the tensor holds."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class ModelSchema:
    """The tensors of a model in wire order. Two nodes may average only if their digests are equal."""

    tensors: tuple[TensorSpec, ...]

    @cached_property
    def size(self) -> int:
        """How many float32 numbers the flat vector holds."""
        return sum(t.size for t in self.tensors)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the names and shapes, in order."""
        text = json.dumps([[t.name, list(t.shape)] for t in self.tensors], separators=(",", ":"))
        return hashlib.sha256(b"p2pfed/schema/1\0" + text.encode()).hexdigest()

    def split(self, vector: Vector) -> list[NDArray[np.float32]]:
        """The tensors as views into `vector` [size], in order; raises ValueError on another length."""
        if vector.shape != (self.size,):
            raise ValueError(f"expected a vector of {self.size} numbers, got shape {vector.shape}")
        return self.split_each(vector)

    def split_each(self, vectors: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """The tensors of all `vectors` [..., size] as views, each with those axes in front; raises ValueError."""
        *many, length = vectors.shape
        if length != self.size:
            raise ValueError(f"expected a vector of {self.size} numbers each, got shape {vectors.shape}")
        tensors, start = [], 0
        for spec in self.tensors:
            tensors.append(vectors[..., start : start + spec.size].reshape((*many, *spec.shape)))
            start += spec.size
        return tensors

    def join(self, tensors: list[NDArray[np.float32]]) -> Vector:
        """The flat float32 vector [size] of `tensors`, which must have the schema's shapes; raises ValueError."""
        shapes = [t.shape for t in tensors]
        if shapes != [t.shape for t in self.tensors]:
            raise ValueError(f"tensors of shapes {shapes} do not fit the schema")
        return np.concatenate([np.asarray(t, np.float32).ravel() for t in tensors])


@dataclass(frozen=True)
class Weights:
    """A schema and one float32 vector [schema.size] that is never written to."""

    schema: ModelSchema
    vector: Vector

    def __post_init__(self) -> None:
        if self.vector.dtype != np.float32 or self.vector.shape != (self.schema.size,):
            raise ValueError(f"expected float32[{self.schema.size}], got {self.vector.dtype}{list(self.vector.shape)}")
        self.vector.setflags(write=False)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the little-endian bytes of the vector."""
        return hashlib.sha256(np.ascontiguousarray(self.vector, "<f4").tobytes()).hexdigest()
