"""What an attack is: three places at which an attacker does something else than an honest member, and what it may know.

An attack poisons the *rows* that the attacker trains on, the *model* that it publishes, or the *answer* to whoever
asks for it. All it knows came over the protocol, to it or to those it colludes with.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from p2pfed.core.consortium import Manifest
from p2pfed.core.identity import Signer
from p2pfed.core.messages import ModelUpdate
from p2pfed.core.probe import Probe
from p2pfed.core.rows import Rows
from p2pfed.core.types import NodeId
from p2pfed.core.weights import Vector

Doubles = NDArray[np.float64]

BISECTIONS = 12
"""Halvings in search of the largest step that is not noticed: to a 4,000th of the largest tried."""


@dataclass(frozen=True)
class View:
    """What an attacker knows when it makes a poisoned model; vectors are float32 [d] and not written to."""

    manifest: Manifest
    honest: Vector
    """Its own model as its training, on whatever rows, left it."""
    begun: Vector
    """What that training began from."""
    rng: np.random.Generator
    peers: Mapping[NodeId, Vector]
    """Newest models of members outside the coalition, received by anybody in it."""
    colluders: Mapping[NodeId, Vector]
    """Newest models of the others in the coalition, before they were poisoned."""
    probe: Probe
    """The attacker's own rows, as a reputation looks at models with."""
    asker: Vector | None = None
    """Newest model of the member that is answered."""
    asker_behind: bool = False
    """Whether that member has published nothing in the last rounds, as one that was away."""

    def benign(self) -> Doubles:
        """Every model that was not poisoned on purpose, the attacker's own first; float64 [n, d]."""
        return np.stack([self.honest, *self.colluders.values(), *self.peers.values()]).astype(np.float64)


class Attacker(Protocol):
    """The node as an attack may use it."""

    me: NodeId
    manifest: Manifest
    signer: Signer

    def view(self, asking: NodeId) -> View | None:
        """What is known when `asking` asks; None before the first training."""
        ...

    def sign_next(self, vector: Vector) -> ModelUpdate:
        """A statement over `vector` with a sequence number of its own, next in the chain."""
        ...

    def sign_again(self, vector: Vector) -> ModelUpdate:
        """Another statement with the sequence number of the newest published one."""
        ...


class Attack:
    """Nothing yet: each attack overrides one of the three, and may remember between them."""

    start: ClassVar[int] = 1
    """First poisoned round, unless the campaign says another."""
    duty: tuple[int, int] = (1, 0)
    """Poisoned rounds and honest ones by turns, unless the campaign says another."""
    poisons_rows: ClassVar[bool] = False
    """Whether `rows` does something; then it is done once, before the first round."""
    floods: ClassVar[float] = 0.0
    """Seconds between two bursts of pushes; 0 is none."""

    def rows(self, rows: Rows) -> Rows:
        """What the attacker trains on in the place of its training rows, which are not written to."""
        return rows

    def poison(self, view: View) -> Vector:
        """What it publishes, float32 [d], in the place of `view.honest`."""
        return view.honest

    def answer(self, attacker: Attacker, asking: NodeId, member: NodeId, frame: bytes) -> bytes:
        """What it hands to `asking`, who asked for `member`'s newest update, in the place of `frame`."""
        return frame


class Tailored(Attack, ABC):
    """Gives each asker a model made for it, in one chain of sequence numbers: none of them is used twice."""

    def answer(self, attacker: Attacker, asking: NodeId, member: NodeId, frame: bytes) -> bytes:
        """See `Attack`; who has published nothing that the attacker knows gets the published model."""
        view = attacker.view(asking) if member == attacker.me else None
        if view is None or view.asker is None:
            return frame
        return attacker.sign_next(self.tailor(view, view.asker)).frame

    @abstractmethod
    def tailor(self, view: View, asker: Vector) -> Vector:
        """The model, float32 [d], for the member whose newest one is `asker`."""


def largest(fits: Callable[[float], bool], most: float) -> float:
    """The largest number up to `most` that fits, by bisection; 0 is taken to fit."""
    low, high = 0.0, most
    if fits(most):
        return most
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def distances(models: Doubles, to: Doubles) -> Doubles:
    """Euclidean distances [n] of the rows of `models` from `to` [d]."""
    return np.asarray(np.linalg.norm(models - to, axis=1))


def pairwise(models: Doubles) -> Doubles:
    """Euclidean distances of all pairs of different rows of `models`, each once."""
    found = [distances(models[i + 1 :], model) for i, model in enumerate(models)]
    return np.concatenate([np.zeros(0), *found])
