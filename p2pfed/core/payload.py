"""A model's vector <-> raw little-endian tensor bytes, in the three encodings a consortium may choose."""

from __future__ import annotations

from typing import Literal

import numpy as np

from p2pfed.core.types import Reason
from p2pfed.core.weights import ModelSchema, Vector
from p2pfed.errors import RemoteFault

Encoding = Literal["float32", "float16", "int8"]

FLOAT16_MAX = 65504.0


def payload_length(schema: ModelSchema, encoding: Encoding) -> int:
    """Bytes of an encoded vector."""
    if encoding == "int8":
        return schema.size + 4 * len(schema.tensors)
    return schema.size * (4 if encoding == "float32" else 2)


def encode_payload(vector: Vector, schema: ModelSchema, encoding: Encoding) -> bytes:
    """Little-endian bytes of `vector` [schema.size].

    float16 saturates at +-65504; int8 is one float32 scale a tensor (largest magnitude / 127), then round(x / scale).
    Raises ValueError if the vector has another length.
    """
    tensors = schema.split(vector)
    if encoding == "float32":
        return vector.astype("<f4").tobytes()
    if encoding == "float16":
        return np.clip(vector, -FLOAT16_MAX, FLOAT16_MAX).astype("<f2").tobytes()
    scales = np.array([np.abs(t).max(initial=0) / 127 for t in tensors], "<f4")
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        steps: Vector = np.nan_to_num(np.clip(np.rint(vector / _per_number(scales, schema)), -127, 127))
    return scales.tobytes() + steps.astype("i1").tobytes()


def decode_payload(data: bytes | memoryview, schema: ModelSchema, encoding: Encoding) -> Vector:
    """The vector float32 [schema.size], read-only and not yet checked for NaN; float32 is a view into `data`.

    Raises RemoteFault(WRONG_LENGTH).
    """
    if len(data) != payload_length(schema, encoding):
        expected = payload_length(schema, encoding)
        raise RemoteFault(Reason.WRONG_LENGTH, f"{len(data)} bytes, not {expected} for {encoding}")
    if encoding == "float32":
        return np.frombuffer(data, "<f4").astype(np.float32, copy=False)
    with np.errstate(all="ignore"):  # a hostile scale may overflow: the result is checked for that, not the way there
        if encoding == "float16":
            vector = np.frombuffer(data, "<f2").astype(np.float32)
        else:
            scales = np.frombuffer(data, "<f4", len(schema.tensors)).astype(np.float32)
            vector = np.frombuffer(data, "i1", offset=scales.nbytes) * _per_number(scales, schema)
    vector.setflags(write=False)
    return vector


def _per_number(scales: Vector, schema: ModelSchema) -> Vector:
    return np.repeat(scales, [t.size for t in schema.tensors])
