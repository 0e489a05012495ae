"""What every peer sampler promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pfed.core.sampling import GraphSampler, PeerSampler, UniformSampler, graph_of, random_regular, ring
from p2pfed.core.types import NodeId

MEMBERS = [NodeId(f"BANK{i:02}") for i in range(12)]
ME, OTHERS = MEMBERS[0], MEMBERS[1:]

SAMPLERS: dict[str, PeerSampler] = {
    "uniform": UniformSampler(MEMBERS),
    "edges": GraphSampler(ME, graph_of("edges", MEMBERS, 0, [(ME, m) for m in OTHERS]) or {}),
    "ring": GraphSampler(ME, ring(MEMBERS)),
    "regular": GraphSampler(ME, random_regular(MEMBERS, 4, np.random.default_rng(1))),
}
every_sampler = pytest.mark.parametrize("name", sorted(SAMPLERS))


@every_sampler
@given(
    usable=st.sets(st.sampled_from(OTHERS)),
    count=st.integers(0, 15),
    seed=st.integers(0, 2**32),
)
def test_chooses_different_members_at_most_count_and_the_same_for_the_same_seed(
    name: str, usable: set[NodeId], count: int, seed: int
) -> None:
    sampler = SAMPLERS[name]
    chosen = sampler.choose(count, np.random.default_rng(seed), usable.__contains__)
    assert set(chosen) <= usable
    assert len(chosen) == len(set(chosen)) <= count
    assert chosen == sampler.choose(count, np.random.default_rng(seed), usable.__contains__)


@every_sampler
def test_asking_for_more_than_there_are_gives_everybody_in_reach(name: str) -> None:
    rng = np.random.default_rng(0)
    reach = {m for _ in range(300) for m in SAMPLERS[name].choose(1, rng, OTHERS.__contains__)}
    assert set(SAMPLERS[name].choose(100, rng, OTHERS.__contains__)) == reach


@every_sampler
def test_nobody_to_choose_from_gives_nobody(name: str) -> None:
    assert SAMPLERS[name].choose(6, np.random.default_rng(0), lambda m: False) == []
