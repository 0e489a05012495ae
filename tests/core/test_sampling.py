"""Uniform draws are uniform; graphs are the graphs they say they are."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pfed.core.sampling import Graph, GraphSampler, UniformSampler, draw, graph_of, random_regular, ring
from p2pfed.core.types import NodeId
from p2pfed.errors import ConfigError


def banks(n: int) -> list[NodeId]:
    return [NodeId(f"BANK{i:05}") for i in range(n)]


def assert_symmetric(graph: Graph) -> None:
    for member, neighbours in graph.items():
        assert member not in neighbours
        assert all(member in graph[n] for n in neighbours)


def reached(graph: Graph, start: NodeId) -> set[NodeId]:
    seen: set[NodeId] = set()
    frontier = {start}
    while frontier:
        seen |= frontier
        frontier = {n for m in frontier for n in graph[m]} - seen
    return seen


def anybody(member: NodeId) -> bool:
    return True


@pytest.mark.parametrize("n", [10, 30])  # all looked at, and some
def test_uniform_draws_each_member_equally_often(n: int) -> None:
    sampler, rng = UniformSampler(banks(n)), np.random.default_rng(3)
    counts = Counter(m for _ in range(500 * n) for m in sampler.choose(3, rng, anybody))
    # 1500 expected, standard deviation 32 to 37
    assert len(counts) == n
    assert all(1340 < c < 1660 for c in counts.values()), counts


@pytest.mark.parametrize("share", [0.9, 0.5, 0.15, 0.0])
def test_every_set_of_usable_members_is_drawn_equally_often_whatever_share_is_usable(share: float) -> None:
    """With few usable ones the random draws are not enough, and all are looked at: that must not show."""
    members, rng = banks(40), np.random.default_rng(5)
    usable = set(members[:: round(1 / share)] if share == 0.5 else members[: int(share * 40)])
    pairs = Counter(tuple(draw(members, 2, rng, usable.__contains__)) for _ in range(20_000))
    if len(usable) < 2:
        assert set(pairs) == {tuple(usable)}
        return
    assert {m for pair in pairs for m in pair} == usable
    assert all(a != b for a, b in pairs)
    possible = len(usable) * (len(usable) - 1)
    expected = 20_000 / possible
    chi_squared = sum((pairs[a, b] - expected) ** 2 / expected for a in usable for b in usable if a != b)
    # its mean is possible - 1, its variance twice that
    assert abs(chi_squared - (possible - 1)) < 4 * (2 * (possible - 1)) ** 0.5


def test_a_draw_among_thousands_looks_at_few() -> None:
    asked: list[NodeId] = []

    def usable(member: NodeId) -> bool:
        asked.append(member)
        return len(asked) % 2 == 0

    assert len(draw(banks(11_000), 6, np.random.default_rng(0), usable)) == 6
    assert len(asked) == 12


def test_graph_sampler_never_leaves_the_neighbourhood_and_varies_within() -> None:
    members, rng = banks(20), np.random.default_rng(3)
    graph = random_regular(members, 6, rng)
    sampler = GraphSampler(members[0], graph)
    draws = {frozenset(sampler.choose(3, rng, anybody)) for _ in range(50)}
    assert len(draws) > 5
    assert frozenset().union(*draws) == set(graph[members[0]])


def test_a_node_outside_the_graph_has_no_neighbours() -> None:
    assert GraphSampler(NodeId("STRANGER"), ring(banks(5))).choose(3, np.random.default_rng(0), anybody) == []


@given(n=st.integers(1, 30))
def test_a_ring_is_connected_by_two_neighbours_each(n: int) -> None:
    members = banks(n)
    graph = ring(members)
    assert_symmetric(graph)
    assert {len(neighbours) for neighbours in graph.values()} == {min(2, n - 1)}
    assert reached(graph, members[0]) == set(members)


@given(n=st.integers(3, 40), degree=st.integers(2, 39), seed=st.integers(0, 2**16))
def test_random_regular_is_regular_and_connected_or_refused(n: int, degree: int, seed: int) -> None:
    members = banks(n)
    if degree >= n or n * degree % 2:
        with pytest.raises(ValueError, match="the degree must be"):
            random_regular(members, degree, np.random.default_rng(seed))
        return
    graph = random_regular(members, degree, np.random.default_rng(seed))
    assert_symmetric(graph)
    assert {len(neighbours) for neighbours in graph.values()} == {degree}
    assert reached(graph, members[0]) == set(members)
    assert graph == random_regular(members, degree, np.random.default_rng(seed))


def test_random_regular_is_random_and_mixes() -> None:
    """Averaging with neighbours must contract far faster than on the circle the construction starts from."""
    members = banks(60)
    graph = random_regular(members, 6, np.random.default_rng(5))
    averaging = np.array([[(a == b or b in graph[a]) / 7 for b in members] for a in members])
    second = np.sort(np.abs(np.linalg.eigvalsh(averaging)))[-2]
    assert second < 0.8  # the circle of degree 6 has 0.98; random graphs of this size about 0.7


@pytest.mark.parametrize("degree", [0, 1, 10])
def test_impossible_degrees_are_refused(degree: int) -> None:
    with pytest.raises(ValueError, match="10 members"):
        random_regular(banks(10), degree, np.random.default_rng(0))


# --- by name ----------------------------------------------------------------------------------------------------------


def test_a_topology_by_name() -> None:
    members = banks(9)
    assert graph_of("random", members, 1) is None
    assert graph_of("full", members, 1) is None
    assert graph_of("ring", members, 1) == ring(members)
    assert {len(others) for others in (graph_of("regular:4", members, 1) or {}).values()} == {4}
    a, b, c = members[:3]
    assert graph_of("edges", [a, b, c], 1, [(c, a), (b, a), (a, b)]) == {a: (b, c), b: (a,), c: (a,)}
    assert graph_of("edges", [a], 1) == {a: ()}


def test_all_members_draw_the_same_regular_graph_in_whatever_order_they_list_each_other() -> None:
    members = banks(12)
    graph = graph_of("regular:4", members, 1)
    assert graph == graph_of("regular:4", members[::-1], 1)
    assert graph != graph_of("regular:4", members, 2)


@pytest.mark.parametrize(
    "topology", ["", "star", "regular", "regular:", "regular:x", "regular:-2", "regular:²", "regular:00004", "Ring"]
)
def test_an_unknown_topology_is_a_configuration_error(topology: str) -> None:
    with pytest.raises(ConfigError, match="topology"):
        graph_of(topology, banks(6), 0)


@pytest.mark.parametrize(
    ("edges", "complaint"),
    [
        ([], "gives 'BANK00000' no neighbour"),
        ([(0, 1), (2, 3), (4, 4)], "makes 'BANK00004' its own neighbour"),
        ([(0, 1), (1, 2), (2, 0)], "gives 'BANK00003' no neighbour"),
        ([(0, 1), (1, 2), (3, 4)], "in parts: no way leads from 'BANK00000' to 'BANK00003'"),
        ([(0, 1), (1, 9)], "names 'BANK00009', who is not a member"),
    ],
)
def test_edges_must_connect_all_members(edges: list[tuple[int, int]], complaint: str) -> None:
    names = banks(10)
    with pytest.raises(ConfigError, match=complaint):
        graph_of("edges", names[:5], 0, [(names[a], names[b]) for a, b in edges])


def test_edges_belong_to_their_topology() -> None:
    with pytest.raises(ConfigError, match="'ring' has no list of edges"):
        graph_of("ring", banks(2), 0, [tuple(banks(2))])  # type: ignore[list-item]


def test_a_degree_that_no_graph_has_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="'regular:6'.*from 2 to 5"):
        graph_of("regular:6", banks(6), 0)
