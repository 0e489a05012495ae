"""The model file a bank scores with: weights, the rows they expect, the alert threshold and where they come from.

Magic, header length (uint32, little endian), header as canonical JSON, then the weights as little-endian float32.
Reading one runs no code of its writer's.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from p2pfed.core import forward, record
from p2pfed.core.contract import FeatureContract, Scaler
from p2pfed.core.model import ModelSpec
from p2pfed.core.weights import Vector
from p2pfed.errors import StateCorrupt
from p2pfed.learning.metrics import alerts

MAGIC = b"P2FB"
FORMAT = 1
MAX_HEADER = 16 * 2**20


@dataclass(frozen=True)
class _Header:
    format: int
    model: ModelSpec
    contract: FeatureContract
    scaler: Scaler
    threshold: float
    weights_sha256: str


@dataclass(frozen=True)
class ModelBundle:
    """Everything that turns a bank's payments into scores and alerts."""

    spec: ModelSpec
    contract: FeatureContract
    scaler: Scaler
    threshold: float
    """Payments scored strictly above it are alerts."""
    vector: Vector
    lineage: dict[str, Any]
    """Plain JSON values: consortium, manifest version, member, round, metrics, ... for the reader's eyes only."""

    def __post_init__(self) -> None:
        widths = {len(self.scaler.centre), len(self.scaler.scale), len(self.scaler.fill)}
        if widths != {len(self.contract.numeric)} or self.contract.width != self.spec.inputs:
            raise ValueError("model, contract and scaler of a bundle do not fit each other")
        self.spec.schema().split(self.vector)

    def scores(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores float32 [n] of scaled `features` float32 [n, contract.width], NaN where a feature is missing.

        Raises StateCorrupt if another score is no finite number: no alert would follow of it.
        """
        scores = forward.scores(self.spec, self.vector, features)
        if not np.isfinite(scores[np.isfinite(features).all(axis=1)]).all():
            raise StateCorrupt(
                f"scores of the model {self.weights_sha256[:8]} are not finite numbers: its weights are too large"
            )
        return scores

    def alerts(self, scores: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Which of `scores` [n] are alerts."""
        return alerts(scores, self.threshold)

    @property
    def weights_sha256(self) -> str:
        """By which the weights are known, in the file's header as everywhere."""
        return hashlib.sha256(self._weights()).hexdigest()

    def to_bytes(self) -> bytes:
        """The file's bytes; equal bundles give equal bytes."""
        header = _Header(FORMAT, self.spec, self.contract, self.scaler, self.threshold, self.weights_sha256)
        text = record.canonical({**record.plain(header), "lineage": self.lineage})
        return MAGIC + len(text).to_bytes(4, "little") + text + self._weights()

    def _weights(self) -> bytes:
        return np.ascontiguousarray(self.vector, "<f4").tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> ModelBundle:
        """Read what `to_bytes` wrote; raises StateCorrupt that says what is wrong with anything else."""
        length = int.from_bytes(data[4:8], "little")
        if data[:4] != MAGIC or length > MAX_HEADER or len(data) < 8 + length:
            raise StateCorrupt("this is not a p2pfed model bundle, or it was cut short")
        weights = data[8 + length :]
        try:
            header, lineage = _read(data[8 : 8 + length])
            if hashlib.sha256(weights).hexdigest() != header.weights_sha256:
                raise StateCorrupt("the weights of the model bundle do not have the hash its header names")
            vector = np.frombuffer(weights, "<f4")
            bundle = cls(header.model, header.contract, header.scaler, header.threshold, vector, lineage)
        except ValueError as error:
            raise StateCorrupt(f"the model bundle cannot be read: {error}") from None
        if not np.isfinite(vector).all():  # the hash tells who wrote them, not what they are
            raise StateCorrupt("the weights of the model bundle are not finite numbers: nothing can be scored by them")
        return bundle


def _read(text: bytes) -> tuple[_Header, dict[str, Any]]:
    """Header and lineage; raises ValueError, and StateCorrupt on another format."""
    fields = record.load(text)
    if not isinstance(fields, dict) or not isinstance(lineage := fields.pop("lineage", None), dict):
        raise ValueError("its header is no object with a lineage")
    if fields.get("format") != FORMAT:
        raise StateCorrupt(f"the model bundle has format {fields.get('format')!r:.40}; this release reads {FORMAT}")
    header = record.build(_Header, fields)
    if any(scale <= 0 for scale in header.scaler.scale):
        raise ValueError("a column is scaled by 0 or less")
    return header, lineage
