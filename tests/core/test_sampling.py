"""Uniform draws are uniform; graphs are the graphs they say they are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pfed.core.sampling import Graph, GraphSampler, UniformSampler, full, random_regular, ring, sampler_for
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


def test_uniform_draws_each_member_equally_often() -> None:
    members, rng = banks(10), np.random.default_rng(3)
    counts = dict.fromkeys(members, 0)
    for _ in range(5000):
        for member in UniformSampler().choose(members, 3, rng):
            counts[member] += 1
    # 1500 expected, standard deviation 32
    assert all(1340 < c < 1660 for c in counts.values()), counts


def test_graph_sampler_never_leaves_the_neighbourhood_and_varies_within() -> None:
    members, rng = banks(20), np.random.default_rng(3)
    graph = random_regular(members, 6, rng)
    sampler = GraphSampler(members[0], graph)
    draws = {frozenset(sampler.choose(members[1:], 3, rng)) for _ in range(50)}
    assert len(draws) > 5
    assert frozenset().union(*draws) == graph[members[0]]


def test_a_node_outside_the_graph_has_no_neighbours() -> None:
    assert GraphSampler(NodeId("STRANGER"), ring(banks(5))).choose(banks(5), 3, np.random.default_rng(0)) == []


@given(n=st.integers(1, 30))
def test_ring_and_full(n: int) -> None:
    members = banks(n)
    for graph, degree in ((ring(members), min(2, n - 1)), (full(members), n - 1)):
        assert_symmetric(graph)
        assert {len(neighbours) for neighbours in graph.values()} == {degree}
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


def reach(topology: str, members: list[NodeId], me: NodeId, seed: int = 1) -> set[NodeId]:
    others = [m for m in members if m != me]
    return set(sampler_for(topology, members, me, seed).choose(others, len(members), np.random.default_rng(0)))


def test_a_topology_by_name() -> None:
    members = banks(9)
    assert reach("random", members, members[0]) == set(members[1:])
    assert reach("full", members, members[0]) == set(members[1:])
    assert reach("ring", members, members[0]) == {members[1], members[8]}
    assert len(reach("regular:4", members, members[0])) == 4


def test_all_members_draw_the_same_regular_graph_in_whatever_order_they_list_each_other() -> None:
    members = banks(12)
    graph = {m: reach("regular:4", sorted(members, key=lambda o: (o != m, o)), m) for m in members}
    assert all(m in graph[n] for m in members for n in graph[m])
    assert {len(neighbours) for neighbours in graph.values()} == {4}
    assert graph != {m: reach("regular:4", members, m, seed=2) for m in members}


@pytest.mark.parametrize(
    "topology", ["", "star", "regular", "regular:", "regular:x", "regular:-2", "regular:²", "Ring"]
)
def test_an_unknown_topology_is_a_configuration_error(topology: str) -> None:
    with pytest.raises(ConfigError, match="topology"):
        sampler_for(topology, banks(6), banks(6)[0], 0)


def test_a_degree_that_no_graph_has_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="'regular:6'.*from 2 to 5"):
        sampler_for("regular:6", banks(6), banks(6)[0], 0)
