"""A seeded swarm of scenarios without attackers: nobody is quarantined, left behind, or served something worse.

Twenty small ones; `SWARM=200 pytest tests/sim/test_swarm.py` runs so many of up to twenty banks and thirty days. A
failure names its seed.
"""

from __future__ import annotations

import os

import pytest

from tests.sim.swarm import Swarm, drawn

ASKED = os.environ.get("SWARM")
SMALL = {"most_banks": 8, "most_days": 8}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(int(ASKED or 20)))
def test_whatever_happens_honest_banks_stay_together(seed: int) -> None:
    assert not Swarm(drawn(seed, **({} if ASKED else SMALL))).outcome()
