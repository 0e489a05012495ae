"""When machines come and go, and what their clocks show."""

import numpy as np
import pytest

from p2pfed.sim.churn import Churn, Kill, Leave, Start, clocks, timetable
from p2pfed.sim.faults import ChurnSection, ClockSkewSection
from p2pfed.sim.network import Partition
from p2pfed.sim.population import cast
from tests.sim.consortium import scenario


def test_the_timetable_has_all_that_is_fixed():
    s = scenario(
        nodes=4,
        joiners=[{"nodes": ["bank-4"], "at": 30.0}],
        leavers=[{"nodes": ["bank-1"], "at": 50.0}],
        outages=[{"nodes": ["bank-2", "bank-3"], "start": 5.0, "end": 9.0}],
        partitions=[{"groups": [["bank-1"], ["bank-3", "bank-4"]], "start": 1.0, "end": 2.0}],
    )
    happens = timetable(s, cast(s))
    assert [(t, n) for t, n, what in happens if what == Start()] == [(0.0, 0), (0.0, 1), (0.0, 2), (30.0, 3)]
    assert [(t, n) for t, n, what in happens if what == Kill(9.0)] == [(5.0, 1), (5.0, 2)]
    assert [(t, n) for t, n, what in happens if what == Leave()] == [(50.0, 0)]
    (begin, _, partition), (end, _, same) = [entry for entry in happens if isinstance(entry[2], Partition)]
    assert (begin, end) == (1.0, 2.0) and partition is same and partition.sides == (0, -1, 1, 1)


def test_times_up_and_down_have_their_means():
    churn = Churn(ChurnSection(share=0.5, mean_up=20.0, mean_down=3.0), {1}, np.random.default_rng(0))
    assert churn.seconds_up(0) is None
    assert np.mean([churn.seconds_up(1) for _ in range(5000)]) == pytest.approx(20, rel=0.05)
    assert np.mean([churn.seconds_down() for _ in range(5000)]) == pytest.approx(3, rel=0.05)
    assert Churn(None, (), np.random.default_rng(0)).seconds_up(1) is None


def test_clocks_are_wrong_within_limits_and_never_before_the_manifest():
    section = ClockSkewSection(offset_seconds=60.0, drift=0.01)
    made = clocks(section, 500, 1000.0, np.random.default_rng(0))
    assert all(1000 <= c.offset <= 1120 and 0.99 <= c.rate <= 1.01 for c in made)
    assert max(c.offset for c in made) - min(c.offset for c in made) > 100
    assert all(c.virtual(c.offset + c.rate * 7.0) == pytest.approx(7.0) for c in made)
