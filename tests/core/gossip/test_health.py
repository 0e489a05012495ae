"""Problems that a cycle as a whole shows."""

from __future__ import annotations

import pytest

from p2pfed.core.effects import Effect, Emit
from p2pfed.core.events import ModelHeld, ProblemCleared, ProblemRaised, StandingChanged
from p2pfed.core.gossip.health import Health
from p2pfed.core.problems import Problems
from p2pfed.core.types import NodeId


def told(effects: list[Effect]) -> list[tuple[type, str]]:
    events = [effect.event for effect in effects if isinstance(effect, Emit)]
    return [(type(e), e.code) for e in events if isinstance(e, (ProblemRaised, ProblemCleared))]


def quarantine(*names: str) -> list[Effect]:
    return [Emit(StandingChanged(NodeId(name), "suspect", "quarantined", "its models", {})) for name in names]


def measured(auprc: float | None) -> list[Effect]:
    return [Emit(ModelHeld(1, 0, {"validation": {"auprc": auprc}}, ""))]


@pytest.mark.parametrize(("others", "needed"), [(2, 1), (3, 2), (4, 2), (5, 3), (11, 3), (100, 3)])
def test_many_quarantined_within_a_cycle_are_a_problem_of_this_bank(others: int, needed: int) -> None:
    health = Health(Problems())
    for i in range(needed - 1):
        assert not told(health.merged(quarantine(f"M{i}"), others, others))
    assert told(health.merged(quarantine("LAST"), others, others)) == [(ProblemRaised, "MANY_QUARANTINED")]
    assert (ProblemCleared, "MANY_QUARANTINED") not in told(health.cycle_ended(0, others))
    health.merged([], 1, others)
    assert (ProblemCleared, "MANY_QUARANTINED") in told(health.cycle_ended(1, others))


def test_quarantines_spread_over_cycles_are_none() -> None:
    health = Health(Problems())
    for cycle in range(6):
        assert not told(health.merged(quarantine(f"M{cycle}"), 5, 11))
        assert not told(health.cycle_ended(cycle, 11))


def test_a_cycle_without_any_model_of_others_is_told_until_one_comes() -> None:
    health = Health(Problems())
    health.merged([], 0, 3)
    assert told(health.cycle_ended(0, 3)) == [(ProblemRaised, "NOBODY_PUBLISHES")]
    health.merged([], 1, 3)
    assert told(health.cycle_ended(1, 3)) == [(ProblemCleared, "NOBODY_PUBLISHES")]
    assert not told(Health(Problems()).cycle_ended(0, 0)), "a bank alone waits for nobody"


def test_quality_that_falls_three_times_in_a_row_is_told() -> None:
    health = Health(Problems())
    for auprc in (0.5, 0.6, 0.59, None, 0.58):
        assert not told(health.decided(measured(auprc)))
    assert told(health.decided(measured(0.57))) == [(ProblemRaised, "QUALITY_FALLS")]
    assert told(health.decided(measured(0.571))) == [(ProblemCleared, "QUALITY_FALLS")]
