"""A manifest that changes the model while a simulation runs: who is down meanwhile, and what cannot be asked for."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from p2pfed.errors import UsageError
from p2pfed.sim.engine import Engine
from p2pfed.sim.history import DONE
from tests.sim.consortium import learner, population, scenario

CALENDAR = {"every_seconds": 200, "rounds": 8, "round_seconds": 10, "cycles": 5}
CHANGE = {"nodes": ["bank-2"], "at": 235, "cycle": 3, "hidden": [6]}
QUICK = {"training": {"local_steps": 8, "batch": 32, "learning_rate": 0.03}, "compute": {"seconds_per_step": 0.2}}


def engine(**changes: Any) -> Engine:
    s = scenario(**{"nodes": 5, "calendar": CALENDAR, "change": CHANGE, **QUICK, **changes})
    people = population(s)
    return Engine(people, s, learner(people), transcript=True)


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (200, 240),  # given the manifest by the others when it is back
        (250, 480),  # knew of the change, and comes back when it has begun
        (220, 480),  # knew nothing of it
        (470, 475),  # its checkpoint is of the new model
    ],
)
def test_who_is_down_around_the_change_trains_the_new_model_with_the_others(start: float, end: float) -> None:
    run = engine(outages=[{"nodes": ["bank-4"], "start": start, "end": end}], dial_out=["bank-4"])
    history = run.run()
    assert history.ended == DONE and not [line for line in history.transcript if "for quarantined" in line]
    size = run._population.versions[1].model.schema().size
    for host in run._hosts:
        assert host.node is not None and host.node.manifest.generation == 2
        assert host.node.rounds.vector.size == size
        assert host.disk.champion is not None and host.disk.champion.vector.size == size
    assert all(node.rounds == 40 and node.test is not None for node in history.run.nodes)
    assert history.spread[-1].consensus_distance > 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"calendar": None, "rounds": 5}, "without a calendar no cycle begins"),
        ({"attackers": [{"kind": "signflip", "nodes": 1}]}, "attacks remember models"),
        ({"change": CHANGE | {"nodes": ["bank-9"]}}, "there is no node 'bank-9'"),
    ],
)
def test_a_change_that_contradicts_the_scenario_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        scenario(**{"nodes": 5, "calendar": CALENDAR, "change": CHANGE, **QUICK, **changes})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cycle": 2}, "hold from cycle 2, and 3 is the first that is a period ahead"),
        ({"hidden": [4]}, "change: .*as many weights"),
    ],
)
def test_a_version_that_may_not_follow_is_refused_before_anything_starts(change: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        engine(change=CHANGE | change)
