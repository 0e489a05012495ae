"""Which members a node listens to in a round: uniformly random ones, or its neighbours on a fixed graph.

Uniform draws mix two to six times faster than a fixed random graph of the same degree, and no attacker majority can
settle around one node. Fixed graphs are for links that contracts fix, and for research.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from p2pfed.core.types import NodeId
from p2pfed.errors import ConfigError

Graph = Mapping[NodeId, frozenset[NodeId]]
"""Who is whose neighbour; symmetric, and nobody is its own."""


class PeerSampler(Protocol):
    """Chooses the members to pull from; all randomness comes from the generator it is handed."""

    def choose(self, members: Sequence[NodeId], count: int, rng: np.random.Generator) -> list[NodeId]:
        """At most `count` different ids out of `members`; the same arguments and generator state choose the same."""
        ...


class UniformSampler:
    """Every member with the same chance, without replacement."""

    def choose(self, members: Sequence[NodeId], count: int, rng: np.random.Generator) -> list[NodeId]:
        """min(count, len(members)) different members, drawn anew each time."""
        drawn = rng.choice(len(members), size=max(0, min(count, len(members))), replace=False)
        return [members[i] for i in drawn]


class GraphSampler:
    """Only the neighbours of `me` on a fixed graph; uniformly some of them if `count` is smaller than the degree."""

    def __init__(self, me: NodeId, graph: Graph) -> None:
        self._neighbours = graph.get(me, frozenset())
        self._uniform = UniformSampler()

    def choose(self, members: Sequence[NodeId], count: int, rng: np.random.Generator) -> list[NodeId]:
        """Those of `members` that are neighbours, at most `count`."""
        return self._uniform.choose([m for m in members if m in self._neighbours], count, rng)


def sampler_for(topology: str, members: Sequence[NodeId], me: NodeId, seed: int) -> PeerSampler:
    """The sampler of a manifest's topology: `random`, `full`, `ring` or `regular:K`; raises ConfigError on others.

    All members draw the same `regular:K` graph from `seed`, whatever order they know each other in.
    """
    members = sorted(members)
    if topology == "random":
        return UniformSampler()
    if topology in ("full", "ring"):
        return GraphSampler(me, full(members) if topology == "full" else ring(members))
    kind, _, degree = topology.partition(":")
    if kind != "regular" or not degree.isdigit():
        raise ConfigError(f"unknown topology {topology!r}: choose random, full, ring or regular:K")
    try:
        return GraphSampler(me, random_regular(members, int(degree), np.random.default_rng(seed)))
    except ValueError as error:
        raise ConfigError(f"topology {topology!r}: {error}") from None


def full(members: Sequence[NodeId]) -> Graph:
    """Everybody is everybody's neighbour."""
    return {m: frozenset(members) - {m} for m in members}


def ring(members: Sequence[NodeId]) -> Graph:
    """Each member between the one before and the one after it. Mixes so slowly that it only serves as a bad example."""
    n = len(members)
    return {m: frozenset({members[i - 1], members[(i + 1) % n]}) - {m} for i, m in enumerate(members)}


def random_regular(members: Sequence[NodeId], degree: int, rng: np.random.Generator) -> Graph:
    """A connected random graph in which each member has exactly `degree` neighbours.

    Starts from a circle and swaps the ends of random pairs of edges, which keeps every degree. Raises ValueError where
    no such graph exists: `degree` below 2 (or not below the number of members), or an odd sum of degrees.
    """
    n = len(members)
    if not 2 <= degree < n or n * degree % 2:
        raise ValueError(
            f"no connected graph gives {n} members {degree} neighbours each: the degree must be from 2 to {n - 1}, "
            "and the product of both even"
        )
    while True:
        graph = _swap_ends(_circle(n, degree), n, rng)
        if _connected(graph):
            return {members[i]: frozenset(members[j] for j in graph[i]) for i in range(n)}


def _circle(n: int, degree: int) -> list[tuple[int, int]]:
    """The edges of a circle in which each of `n` points reaches degree/2 to both sides, and straight across if odd."""
    edges = [(i, (i + step) % n) for step in range(1, degree // 2 + 1) for i in range(n)]
    return edges + ([(i, i + n // 2) for i in range(n // 2)] if degree % 2 else [])


def _swap_ends(edges: list[tuple[int, int]], n: int, rng: np.random.Generator) -> list[set[int]]:
    """Neighbour sets after ten attempted swaps an edge: a-b, c-d become a-d, c-b unless that makes a loop or double."""
    graph: list[set[int]] = [set() for _ in range(n)]
    for a, b in edges:
        graph[a].add(b)
        graph[b].add(a)
    draws = rng.integers(len(edges), size=(10 * len(edges), 2)).tolist()
    for first, second in draws:
        (a, b), (c, d) = edges[first], edges[second]
        if len({a, b, c, d}) < 4 or d in graph[a] or b in graph[c]:
            continue
        for x, y in ((a, b), (c, d)):
            graph[x].remove(y)
            graph[y].remove(x)
        for x, y in ((a, d), (c, b)):
            graph[x].add(y)
            graph[y].add(x)
        edges[first], edges[second] = (a, d), (c, b)
    return graph


def _connected(graph: list[set[int]]) -> bool:
    seen, frontier = {0}, {0}
    while frontier:
        frontier = set().union(*(graph[i] for i in frontier)) - seen
        seen |= frontier
    return len(seen) == len(graph)
