"""What an attacker publishes in the place of the model that it trained honestly, and the registry of such attacks.

Sign flips and noise are the plainest of those that papers on Byzantine robustness try; each class has its formula.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from p2pfed.core.weights import Vector
from p2pfed.errors import ConfigError


class Attack(Protocol):
    """Makes the poisoned model; the attacker's own model stays as honest training and merging leave it."""

    def poison(self, honest: Vector, begun: Vector, rng: np.random.Generator) -> Vector:
        """What to publish, float32 [d], in the place of `honest`, which a round of training made of `begun`."""
        ...


@dataclass(frozen=True)
class SignFlip:
    """Walks back what training gained: begun - scale * (honest - begun)."""

    scale: float = 1.0

    def poison(self, honest: Vector, begun: Vector, rng: np.random.Generator) -> Vector:
        """See `Attack`."""
        return begun - np.float32(self.scale) * (honest - begun)


@dataclass(frozen=True)
class Gaussian:
    """Noise on every weight, with `scale` as its standard deviation: honest + N(0, scale^2)."""

    scale: float = 1.0

    def poison(self, honest: Vector, begun: Vector, rng: np.random.Generator) -> Vector:
        """See `Attack`."""
        return honest + np.float32(self.scale) * rng.standard_normal(honest.size, np.float32)


ATTACKS: dict[str, Callable[[float], Attack]] = {"gaussian": Gaussian, "signflip": SignFlip}


def attack_from_name(kind: str, scale: float = 1.0) -> Attack:
    """An attack by its registry name; raises ConfigError."""
    if kind not in ATTACKS:
        raise ConfigError(f"unknown attack {kind!r}: choose {' or '.join(sorted(ATTACKS))}")
    return ATTACKS[kind](scale)
