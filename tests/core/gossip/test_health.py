"""Problems that a cycle as a whole shows."""

from __future__ import annotations

import pytest

from p2pfed.core import record
from p2pfed.core.effects import Effect, Emit
from p2pfed.core.events import ModelHeld, PaymentsServed, ProblemCleared, ProblemRaised
from p2pfed.core.gossip.calendar import Calendar, Moment
from p2pfed.core.gossip.health import Health, PastCycle
from p2pfed.core.problems import Problems
from p2pfed.core.served import Served, ServedDay
from p2pfed.core.types import NodeId
from tests.core.gossip.test_cycles import FIRST_REST, network, problems
from tests.core.gossip.test_cycles import told as all_told


def told(effects: list[Effect]) -> list[tuple[type, str]]:
    events = [effect.event for effect in effects if isinstance(effect, Emit)]
    return [(type(e), e.code) for e in events if isinstance(e, (ProblemRaised, ProblemCleared))]


def members(*names: str) -> list[NodeId]:
    return [*map(NodeId, names)]


def measured(auprc: float | None) -> list[Effect]:
    return [Emit(ModelHeld(1, 0, {"validation": {"auprc": auprc}}, ""))]


@pytest.mark.parametrize(("others", "needed"), [(2, 1), (3, 2), (4, 2), (5, 3), (11, 3), (100, 3)])
def test_many_quarantined_within_a_cycle_are_a_problem_of_this_bank(others: int, needed: int) -> None:
    health = Health(Problems())
    held = members(*"ABC"[:needed])
    for i in range(needed):
        assert not told(health.merged(others, others, held[:i]))
    assert told(health.merged(others, others, held)) == [(ProblemRaised, "MANY_QUARANTINED")]
    assert (ProblemCleared, "MANY_QUARANTINED") not in told(health.cycle_ended(0, others, 9.0))
    health.cycle_begun(1)
    health.merged(1, others, held)
    assert (ProblemCleared, "MANY_QUARANTINED") in told(health.cycle_ended(1, others, 9.0))


def test_quarantines_spread_over_cycles_are_none() -> None:
    health = Health(Problems())
    for cycle in range(6):
        health.cycle_begun(cycle)
        assert not told(health.merged(5, 11, members(*"ABCDEF"[: cycle + 1])))
        assert not told(health.cycle_ended(cycle, 11, 9.0))


def test_a_cycle_without_any_model_of_others_is_told_until_one_comes() -> None:
    health = Health(Problems())
    health.merged(0, 3, [])
    assert told(health.cycle_ended(0, 3, 9.0)) == [(ProblemRaised, "NOBODY_PUBLISHES")]
    health.cycle_begun(1)
    health.merged(1, 3, [])
    assert told(health.cycle_ended(1, 3, 9.0)) == [(ProblemCleared, "NOBODY_PUBLISHES")]
    assert not told(Health(Problems()).cycle_ended(0, 0, 9.0)), "a bank alone waits for nobody"


def test_quality_that_falls_three_times_in_a_row_is_told() -> None:
    health = Health(Problems())
    for auprc in (0.5, 0.6, 0.59, None, 0.58):
        assert not told(health.decided(measured(auprc)))
    assert told(health.decided(measured(0.57))) == [(ProblemRaised, "QUALITY_FALLS")]
    assert told(health.decided(measured(0.571))) == [(ProblemCleared, "QUALITY_FALLS")]


CALENDAR = Calendar(100, 1000, 20, 10.0)


def within(cycle: int) -> Moment:
    """The second round of `cycle`."""
    return CALENDAR.at(CALENDAR.begins(cycle) + 15)


def restarted(health: Health, cycle: int) -> tuple[Health, list[tuple[type, str]]]:
    """What takes the place of `health` in a new process that starts in `cycle`, and what it tells at once."""
    after = Health(Problems())
    after.held = health.held  # as the reputation remembers
    after.restore(health.state())
    return after, told(after.started(within(cycle), CALENDAR))


def test_quality_that_falls_is_told_by_who_restarts_in_each_cycle_and_after_each_restart_until_it_does_not() -> None:
    health = Health(Problems())
    for cycle, auprc in enumerate((0.6, 0.59, 0.58)):
        assert not told(health.decided(measured(auprc)))
        health, said = restarted(health, cycle)
        assert not said
    assert told(health.decided(measured(0.57))) == [(ProblemRaised, "QUALITY_FALLS")]
    for cycle in range(4, 6):
        health, said = restarted(health, cycle)
        assert said == [(ProblemRaised, "QUALITY_FALLS")]
    assert told(health.decided(measured(0.571))) == [(ProblemCleared, "QUALITY_FALLS")]
    assert restarted(health, 6)[1] == []


def test_what_an_earlier_version_kept_is_gone_on_with() -> None:
    health = Health(Problems())
    health.cycle_begun(3)
    health.merged(2, 11, members("A", "B"))
    before = record.load(health.state())
    del before["listening"], before["held"]
    after = Health(Problems())
    after.held = {*members("A", "B")}
    after.restore(record.canonical(before))
    assert told(after.merged(1, 11, members("A", "B", "C"))) == [(ProblemRaised, "MANY_QUARANTINED")]
    after.restore(b"[]")  # no state of any version is no reason not to start


def test_who_was_quarantined_between_the_last_merge_and_a_restart_counts() -> None:
    health = Health(Problems())
    health.cycle_begun(3)
    health.merged(2, 11, members("A", "B"))
    after = Health(Problems())
    after.held = {*members("A", "B", "C")}
    after.restore(health.state())
    assert told(after.merged(1, 11, members("A", "B", "C"))) == [(ProblemRaised, "MANY_QUARANTINED")]


def test_a_restart_within_a_cycle_counts_on_and_ends_no_problem() -> None:
    health = Health(Problems())
    health.cycle_begun(3)
    assert not told(health.merged(2, 11, members("A", "B")))
    health, said = restarted(health, 3)
    assert not said
    assert told(health.merged(0, 11, members("A", "B", "C"))) == [(ProblemRaised, "MANY_QUARANTINED")]
    assert told(health.cycle_ended(3, 11, 9.0)) == [], "the models of two were merged before the restart"
    health, said = restarted(health, 3)
    assert said == [(ProblemRaised, "MANY_QUARANTINED")]
    health.cycle_begun(4)
    assert told(health.cycle_ended(4, 11, 9.0)) == [
        (ProblemCleared, "MANY_QUARANTINED"),
        (ProblemRaised, "NOBODY_PUBLISHES"),
    ]
    health, said = restarted(health, 4)
    assert said == [(ProblemRaised, "NOBODY_PUBLISHES")]
    health.cycle_begun(5)
    health.merged(1, 11, [])
    assert told(health.cycle_ended(5, 11, 9.0)) == [(ProblemCleared, "NOBODY_PUBLISHES")]


def test_a_node_that_is_killed_in_rest_tells_after_its_start_what_it_told_before() -> None:
    net = network(2)
    net.crash(1)
    net.run(FIRST_REST + 50)
    assert "NOBODY_PUBLISHES" in problems(net, 0)
    net.crash(0)
    since = len(net.events[net.ids[0]])
    node = net.start(0)
    net.run(FIRST_REST + 60)
    assert node.rounds.health.last == PastCycle(5, 20, FIRST_REST)
    assert [p.code for p in all_told(net, 0, ProblemRaised, since) if p.code != "ALONE"] == ["NOBODY_PUBLISHES"]


def test_the_last_cycle_is_remembered_also_by_who_was_down_when_it_ended() -> None:
    net = network(2, until=FIRST_REST - 95.5)
    for up, down in ((FIRST_REST - 80, FIRST_REST - 42), (FIRST_REST + 50, FIRST_REST + 55)):
        net.crash(0)
        net.run(up)
        node = net.start(0)
        net.run(down)
    last = node.rounds.health.last
    assert last is not None and (last.cycle, last.ended) == (5, FIRST_REST)
    assert 10 <= last.trained < 16, "before and between the restarts"


def test_a_cycle_that_was_missed_is_not_the_last_one_however_often_a_node_starts_after_it() -> None:
    net = network(3, until=FIRST_REST + 20)
    last = net.nodes[net.ids[0]].rounds.health.last
    net.crash(0)
    net.run(FIRST_REST + 1000)
    for _ in range(2):
        assert net.start(0).rounds.health.last == last is not None
        net.run(net.now + 20)
        net.crash(0)


def test_what_a_cycle_brought_before_the_restart_says_nothing_of_a_later_one() -> None:
    health = Health(Problems())
    health.cycle_begun(3)
    health.merged(2, 11, members("A", "B"))
    health, _ = restarted(health, 4)
    assert not told(health.merged(0, 11, members("A", "B", "C")))
    assert told(health.cycle_ended(4, 11, 9.0)) == [(ProblemRaised, "NOBODY_PUBLISHES")]


def test_a_state_of_another_version_says_nothing() -> None:
    assert Health(Problems()).state() == b""
    for state in (b"", b"{}", b"junk"):
        health = Health(Problems())
        health.restore(state)
        assert not told(health.started(within(0), CALENDAR)) and health.state() == restarted(health, 0)[0].state()


def served(number: int, auprc: float | None, frauds: int = 400, error: str = "") -> Served:
    """A reading of one day."""
    return Served(float(number), number + 1.0, (ServedDay("2026-03-01", 9000, frauds, 0, 0, auprc, ""),), error)


def counted(effects: list[Effect]) -> list[PaymentsServed]:
    return [e.event for e in effects if isinstance(e, Emit) and isinstance(e.event, PaymentsServed)]


def test_quality_of_what_served_that_falls_three_times_in_a_row_is_told_in_its_own_words() -> None:
    problems = Problems()
    health = Health(problems)
    for number, auprc in enumerate((0.7, 0.8, 0.75, None, 0.7)):
        effects = health.served(served(number, auprc))
        assert len(counted(effects)) == 1 and not told(effects)
    effects = health.served(served(5, 0.65))
    assert told(effects) == [(ProblemRaised, "QUALITY_FALLS")]
    (raised,) = (e.event for e in effects if isinstance(e, Emit) and isinstance(e.event, ProblemRaised))
    assert (
        "of what served, on payments whose labels have matured since, fell in 3 cycles: 0.800, 0.750" in raised.message
    )
    for auprc in (0.5, 0.49, 0.48):
        assert not told(health.decided(measured(auprc)))
    effects = health.decided(measured(0.47))
    (raised,) = (e.event for e in effects if isinstance(e, Emit) and isinstance(e.event, ProblemRaised))
    assert "of the merged model on validation rows" in raised.message and "of what served" in raised.message
    told(health.decided(measured(0.5)))
    assert "QUALITY_FALLS" in problems, "what served still falls"
    assert told(health.served(served(6, 0.64))) == [(ProblemCleared, "QUALITY_FALLS")]


def test_what_served_is_remembered_over_restarts_and_what_was_not_written_down_is_counted_again() -> None:
    health = Health(Problems())
    for number, auprc in enumerate((0.8, 0.75, 0.7)):
        assert not told(health.served(served(number, auprc)))
        health, _ = restarted(health, number)
    assert told(restarted(health, 3)[0].served(served(3, 0.65))) == [(ProblemRaised, "QUALITY_FALLS")]
    assert counted(restarted(health, 3)[0].served(served(2, 0.7))), "the books lost it with the process"
    health.served(served(3, 0.7, error="a version is damaged"))
    assert restarted(health, 3)[1] == [], "whether versions are damaged the next reading tells anew"


def test_chance_is_no_fall() -> None:
    health = Health(Problems())
    for number, auprc in enumerate((0.8, 0.79, 0.78, 0.77, 0.76)):
        assert not told(health.served(served(number, auprc))), "each within what 400 frauds differ by"
    for number, auprc in enumerate((0.8, 0.6, 0.4, 0.2), start=9):
        assert not told(health.served(served(number, auprc, frauds=9))), "nine frauds say nothing"


def test_what_was_counted_is_not_counted_again() -> None:
    health = Health(Problems())
    assert not health.served(None)
    assert counted(health.served(served(3, 0.5))) == [PaymentsServed(3.0, 4.0, served(3, 0.5).days)]
    assert not health.served(served(3, 0.5)), "the trainer was lost, and the next one has read the same again"
    assert len(counted(health.served(served(4, 0.5)))) == 1


def test_a_curve_that_lacks_something_is_told_until_it_does_not() -> None:
    health = Health(Problems())
    failed = Served(3.0, 4.0, (), "StateCorrupt: a version")
    assert told(health.served(failed)) == [(ProblemRaised, "CURVE_INCOMPLETE")]
    assert not told(health.served(failed)), "what was not counted may be, the next time"
    effects = health.served(served(3, 0.5))
    assert told(effects) == [(ProblemCleared, "CURVE_INCOMPLETE")] and len(counted(effects)) == 1
    effects = health.served(served(4, 0.5, error="a version is damaged"))
    assert told(effects) == [(ProblemRaised, "CURVE_INCOMPLETE")] and len(counted(effects)) == 1
