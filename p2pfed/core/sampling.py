"""Which members a node listens to in a round: uniformly random ones, or its neighbours on a fixed graph.

Uniform draws mix two to six times faster than a fixed random graph of the same degree, and no attacker majority can
settle around one node. Fixed graphs are for links that contracts fix, and for research.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

import numpy as np

from p2pfed.core.types import NodeId
from p2pfed.errors import ConfigError

Graph = Mapping[NodeId, tuple[NodeId, ...]]
"""Each member's neighbours, in order of their ids; symmetric, and nobody is its own."""
Usable = Callable[[NodeId], bool]
"""Whether a member may be drawn."""

DRAWS = 4
"""Random draws for each member wanted, before all members are looked at."""

T = TypeVar("T")


def draw(members: Sequence[NodeId], count: int, rng: np.random.Generator, usable: Usable) -> list[NodeId]:
    """`count` different usable members (all, if there are fewer), uniformly, in random order.

    Among thousands of which most are usable only about `count` are looked at.
    """
    chosen: list[NodeId] = []
    seen: set[int] = set()
    if count < 1:
        return chosen
    if len(members) > DRAWS * count:
        for place in rng.integers(len(members), size=DRAWS * count).tolist():
            if place in seen:
                continue
            seen.add(place)
            if usable(members[place]):
                chosen.append(members[place])
                if len(chosen) == count:
                    return chosen
    rest = [m for place, m in enumerate(members) if place not in seen and usable(m)]
    return chosen + [rest[place] for place in rng.permutation(len(rest))[: count - len(chosen)].tolist()]


class PeerSampler(Protocol):
    """Chooses the members to pull from; all randomness comes from the generator it is handed."""

    def choose(self, count: int, rng: np.random.Generator, usable: Usable) -> list[NodeId]:
        """At most `count` different usable members; the same arguments and generator state choose the same."""
        ...


class UniformSampler:
    """Every one of `members` with the same chance, drawn anew each time."""

    def __init__(self, members: Sequence[NodeId]) -> None:
        self._members = members

    def choose(self, count: int, rng: np.random.Generator, usable: Usable) -> list[NodeId]:
        """`count` different usable members, all if there are fewer."""
        return draw(self._members, count, rng, usable)


class GraphSampler(UniformSampler):
    """Only the neighbours of `me` on a fixed graph; uniformly some of them if `count` is smaller than the degree."""

    def __init__(self, me: NodeId, graph: Graph) -> None:
        super().__init__(graph.get(me, ()))


def graph_of(
    topology: str, members: Sequence[NodeId], seed: int, edges: Iterable[tuple[NodeId, NodeId]] = ()
) -> Graph | None:
    """The graph of `ring`, `regular:K` or `edges`; None for `random` and `full`, where all may pull from all.

    All members draw the same `regular:K` graph from `seed`, whatever order they know each other in. Raises ConfigError
    on other topologies and impossible graphs.
    """
    members = sorted(members)
    if problem := topology_problem(topology, members, edges := tuple(edges)):
        raise ConfigError(problem)
    if topology in ("random", "full"):
        return None
    if topology == "ring":
        return ring(members)
    if topology == "edges":
        return _graph(members, _neighbours(members, edges))
    return random_regular(members, int(topology.removeprefix("regular:")), np.random.default_rng(seed))


def topology_problem(topology: str, members: Sequence[str], edges: Sequence[tuple[str, str]] = ()) -> str:
    """Why there is no such graph of `members` (names or ids); empty if there is one."""
    if edges and topology != "edges":
        return f"topology {topology!r} has no list of edges: they belong to topology 'edges'"
    if topology == "edges":
        return _edges_problem(members, edges)
    kind, _, degree = topology.partition(":")
    if kind == "regular" and degree.isascii() and degree.isdigit() and len(degree) < 5:
        problem = _degree_problem(len(members), int(degree))
        return f"topology {topology!r}: {problem}" if problem else ""
    if topology in ("random", "full", "ring"):
        return ""
    return f"topology {topology[:40]!r} is not random, full, ring, regular:K or edges"


def _edges_problem(members: Sequence[str], edges: Sequence[tuple[str, str]]) -> str:
    known = set(members)
    for edge in edges:
        if strangers := [name for name in edge if name not in known]:
            return f"topology 'edges' names {strangers[0][:63]!r}, who is not a member"
        if edge[0] == edge[1]:
            return f"topology 'edges' makes {edge[0]!r} its own neighbour"
    graph = _neighbours(members, edges)
    if lonely := [name for name, others in graph.items() if not others and len(members) > 1]:
        return f"topology 'edges' gives {lonely[0][:63]!r} no neighbour"
    if members and len(found := _reached(graph, members[0])) < len(members):
        other = next(name for name in members if name not in found)
        return f"topology 'edges' is in parts: no way leads from {members[0][:63]!r} to {other[:63]!r}"
    return ""


def _neighbours(members: Iterable[T], edges: Iterable[tuple[T, T]]) -> dict[T, set[T]]:
    graph: dict[T, set[T]] = {m: set() for m in members}
    for a, b in edges:
        graph[a].add(b)
        graph[b].add(a)
    return graph


def _reached(graph: Mapping[T, set[T]], start: T) -> set[T]:
    """Everybody to whom a way leads from `start`."""
    seen, frontier = {start}, {start}
    while frontier:
        frontier = set().union(*(graph[m] for m in frontier)) - seen
        seen |= frontier
    return seen


def _graph(members: Sequence[NodeId], neighbours: Mapping[NodeId, set[NodeId]]) -> Graph:
    return {m: tuple(sorted(neighbours[m])) for m in members}


def ring(members: Sequence[NodeId]) -> Graph:
    """Each member between the one before and the one after it. Mixes so slowly that it only serves as a bad example."""
    edges = zip(members, (*members[1:], *members[:1]), strict=True) if len(members) > 1 else ()
    return _graph(members, _neighbours(members, edges))


def random_regular(members: Sequence[NodeId], degree: int, rng: np.random.Generator) -> Graph:
    """A connected random graph in which each member has exactly `degree` neighbours.

    Starts from a circle and swaps the ends of random pairs of edges, which keeps every degree. Raises ValueError where
    no such graph exists: `degree` below 2 (or not below the number of members), or an odd sum of degrees.
    """
    n = len(members)
    if problem := _degree_problem(n, degree):
        raise ValueError(problem)
    while True:
        graph = _swap_ends(_circle(n, degree), n, rng)
        if len(_reached(graph, 0)) == n:
            return _graph(members, {members[i]: {members[j] for j in graph[i]} for i in range(n)})


def _degree_problem(n: int, degree: int) -> str:
    if 2 <= degree < n and n * degree % 2 == 0:
        return ""
    return (
        f"no connected graph gives {n} members {degree} neighbours each: the degree must be from 2 to {n - 1}, "
        "and the product of both even"
    )


def _circle(n: int, degree: int) -> list[tuple[int, int]]:
    """The edges of a circle in which each of `n` points reaches degree/2 to both sides, and straight across if odd."""
    edges = [(i, (i + step) % n) for step in range(1, degree // 2 + 1) for i in range(n)]
    return edges + ([(i, i + n // 2) for i in range(n // 2)] if degree % 2 else [])


def _swap_ends(edges: list[tuple[int, int]], n: int, rng: np.random.Generator) -> dict[int, set[int]]:
    """Neighbour sets after ten attempted swaps an edge: a-b, c-d become a-d, c-b unless that makes a loop or double."""
    graph = _neighbours(range(n), edges)
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
