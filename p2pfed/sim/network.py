"""What lies between simulated nodes: delay, jitter, loss and bandwidth of each link, and partitions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

DRAWN_AT_ONCE = 4096


@dataclass(frozen=True)
class Link:
    """How messages between two nodes travel, in either direction."""

    delay_seconds: float = 0.0
    jitter: float = 0.0
    """Share of the delay by which it varies at most, uniformly, to both sides."""
    loss: float = 0.0
    """Share of exchanges (a question and its answer) that fail."""
    megabits: float = 0.0
    """A second, for each message; 0 is unlimited."""

    @property
    def message_loss(self) -> float:
        """Chance that one message is lost, of the two that make an exchange."""
        return 1.0 - math.sqrt(1.0 - self.loss)

    @property
    def seconds_per_byte(self) -> float:
        """How long a byte keeps the link busy."""
        return 8e-6 / self.megabits if self.megabits else 0.0


@dataclass(frozen=True, eq=False, slots=True)
class Partition:
    """Groups that cannot talk to each other: each node's group, -1 for those that talk to all."""

    sides: tuple[int, ...]


class Network:
    """Decides of every message how long it takes or that it is lost; counts the bytes of bodies that arrived."""

    def __init__(
        self, nodes: int, default: Link, links: Mapping[tuple[int, int], Link], rng: np.random.Generator
    ) -> None:
        """`links` are those that differ from `default`, by the pair of node numbers, the smaller first."""
        self.sent, self.received = [0] * nodes, [0] * nodes
        self._default = _figures(default)
        self._links = {pair: _figures(link) for pair, link in links.items()}
        self._partitions: list[Partition] = []
        self._draw: Callable[[], float] = uniform(rng).__next__

    def send(self, sender: int, receiver: int, size: int) -> float | None:
        """Seconds until a message of `size` bytes arrives; None if it never does."""
        if self._partitions and self.apart(sender, receiver):
            return None
        delay, jitter, lost, per_byte = self._link(sender, receiver)
        if lost and self._draw() < lost:
            return None
        if jitter:
            delay += delay * jitter * (2.0 * self._draw() - 1.0)
        return delay + size * per_byte

    def count(self, sender: int, receiver: int, size: int) -> None:
        """Note a body of `size` bytes that has gone from one to the other."""
        self.sent[sender] += size
        self.received[receiver] += size

    def apart(self, one: int, other: int) -> bool:
        """Whether a partition lies between two nodes; who is in none of its groups talks to all."""
        pairs = ((p.sides[one], p.sides[other]) for p in self._partitions)
        return any(a != b and a >= 0 <= b for a, b in pairs)

    def turn(self, partition: Partition) -> bool:
        """Begin a partition, or end it if it is there; says which."""
        if partition in self._partitions:
            self._partitions.remove(partition)
            return False
        self._partitions.append(partition)
        return True

    def _link(self, one: int, other: int) -> tuple[float, float, float, float]:
        if not self._links:
            return self._default
        return self._links.get((one, other) if one < other else (other, one), self._default)


def _figures(link: Link) -> tuple[float, float, float, float]:
    return link.delay_seconds, link.jitter, link.message_loss, link.seconds_per_byte


def uniform(rng: np.random.Generator) -> Iterator[float]:
    """Endless uniform numbers from 0 to 1, drawn many at once: one at a time costs a microsecond each."""
    while True:
        yield from rng.random(DRAWN_AT_ONCE).tolist()
