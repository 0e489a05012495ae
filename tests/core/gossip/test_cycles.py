"""Training by the calendar, in a small heap without files, sockets or sleeps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import pytest

from p2pfed.core.effects import StartEvaluation
from p2pfed.core.events import (
    CaughtUp,
    CycleBegun,
    CycleEnded,
    FellBehind,
    ModelAdopted,
    ModelHeld,
    ModelPromoted,
    PaymentsRead,
    ProblemCleared,
    ProblemRaised,
    RoundCompleted,
    StandingChanged,
)
from p2pfed.core.gossip.calendar import Calendar
from p2pfed.core.gossip.catch_up import Stage
from p2pfed.core.inputs import RefreshAsked
from p2pfed.core.phase import Phase
from tests.core.heap import Network, make_manifest, updates_of

ANCHOR = 100
DAILY = Calendar(ANCHOR, 1000, 20, 10.0)
"""Cycles of 200 s, five of them in the first 1000 s without rest, then 800 s of rest after each."""
FIRST_REST = ANCHOR + 1000 + 200
T = TypeVar("T")


def network(n: int, until: float = 0.0, calendar: Calendar = DAILY, **gossip: Any) -> Network:
    """Banks whose frauds change so fast that a minute's absence makes a model old."""
    made = Network(replace(make_manifest(n, **gossip), calendar=calendar), rounds=0)
    made.training_seconds, made.drift = 3.0, 0.02
    for i in range(n):
        made.start(i)
    made.run(until)
    return made


def told(net: Network, i: int, kind: type[T], since: int = 0) -> list[T]:
    return [event for event in net.events[net.ids[i]][since:] if isinstance(event, kind)]


def quarantined(net: Network) -> list[StandingChanged]:
    everybody = range(len(net.ids))
    return [e for i in everybody for e in told(net, i, StandingChanged) if e.after == "quarantined"]


def rounds(net: Network, i: int) -> list[int]:
    return [event.round for event in told(net, i, RoundCompleted)]


def problems(net: Network, i: int) -> set[str]:
    """Codes of the problems that are open; that models fall behind what moves away is how these banks are made."""
    opened: set[str] = set()
    for event in net.events[net.ids[i]]:
        if isinstance(event, ProblemRaised):
            opened.add(event.code)
        if isinstance(event, ProblemCleared):
            opened.discard(event.code)
    return opened - {"QUALITY_FALLS"}


def test_nobody_trains_before_the_first_cycle_and_then_all_train_alike() -> None:
    net = network(4, until=ANCHOR - 1)
    assert not any(rounds(net, i) for i in range(4))
    net.run(ANCHOR + 100.5)
    for i in range(4):
        assert rounds(net, i) == list(range(1, 11))
        assert all(len(e.merged) == 3 for e in told(net, i, RoundCompleted)[1:])
        assert net.nodes[net.ids[i]].rounds.seq == 10


def test_in_rest_nobody_trains_or_holds_a_trainer_and_the_payments_are_read_anew_for_the_next_cycle() -> None:
    net = network(3, until=FIRST_REST + 50)
    before = [rounds(net, i) for i in range(3)]
    assert all(r == list(range(1, 6 * 20 + 1)) for r in before)
    node = net.nodes[net.ids[0]].rounds
    assert node.phase is Phase.RESTING and not any(node.readings.opened(c) for c in range(10))
    assert [e.cycle for e in told(net, 0, PaymentsRead)] == [0, 1, 2, 3, 4, 5]
    net.run(FIRST_REST + 700)
    assert [rounds(net, i) for i in range(3)] == before
    net.run(FIRST_REST + 1000)
    assert [e.cycle for e in told(net, 0, PaymentsRead)][-1] == 6 and rounds(net, 0)[-1] == 7 * 20
    assert [e.cycle for e in told(net, 0, CycleBegun)] == [e.cycle for e in told(net, 0, CycleEnded)] == list(range(7))


def test_a_cycle_ends_with_a_decision_about_what_serves() -> None:
    net = network(3, until=FIRST_REST + 50)
    for i in range(3):
        decided = [*told(net, i, ModelPromoted), *told(net, i, ModelHeld)]
        assert {e.cycle for e in decided} == set(range(6))
        champion = net.disks[net.ids[i]].champion
        assert champion is not None and 0 < champion.threshold < 0.5
        kept = [e for e in told(net, i, ModelPromoted)][-1]
        assert (champion.cycle, champion.round) == (kept.cycle, kept.round)


def decisions(net: Network, i: int, since: int = 0) -> list[int]:
    """The cycles at whose end was decided what serves."""
    return sorted(e.cycle for kind in (ModelPromoted, ModelHeld) for e in told(net, i, kind, since))


def test_one_killed_between_a_cycles_end_and_the_decision_decides_after_its_restart_and_then_no_more() -> None:
    net = network(3, until=FIRST_REST + 0.05)
    me = net.ids[0]
    assert told(net, 0, CycleEnded)[-1].cycle == 5 and 5 not in decisions(net, 0)
    ended, before = net.nodes[me].rounds.vector, net.disks[me].champion
    net.crash(0)
    net.run(FIRST_REST + 30)
    since = len(net.events[me])
    net.start(0)
    net.run(FIRST_REST + 40)
    assert decisions(net, 0, since) == [5]
    promoted = told(net, 0, ModelPromoted, since)
    champion = net.disks[me].champion
    assert champion is not None and before is not None
    assert np.array_equal(champion.vector, ended if promoted else before.vector)
    node = net.nodes[me].rounds
    assert not node.readings.opened(5) and not node.readings.opened(6), "its trainer is not needed any more"
    net.crash(0)
    since = len(net.events[me])
    net.start(0)
    net.run(FIRST_REST + 60)
    assert not decisions(net, 0, since) and not told(net, 0, PaymentsRead, since), "what was decided is remembered"


def test_one_killed_in_a_cycles_last_round_decides_all_the_same() -> None:
    """It trains nothing more in that cycle, and its payments may be read only after the end."""
    net = network(3, until=FIRST_REST - 4)
    net.crash(0)
    net.run(FIRST_REST - 2)
    since = len(net.events[net.ids[0]])
    net.start(0)
    net.run(FIRST_REST + 40)
    assert told(net, 0, CycleEnded, since)[-1].trained == 20 and not told(net, 0, RoundCompleted, since)
    assert decisions(net, 0, since) == [5]


def test_one_killed_in_mid_cycle_and_started_in_the_rest_decides_and_then_adopts() -> None:
    net = network(4, until=FIRST_REST - 100)
    net.crash(0)
    net.run(FIRST_REST + 100)
    since = len(net.events[net.ids[0]])
    net.start(0)
    net.run(FIRST_REST + 200)
    assert set(decisions(net, 0, since)) == {5} and told(net, 0, ModelAdopted, since)
    assert net.nodes[net.ids[0]].rounds.catch_up.stage is not Stage.BEHIND


def test_a_lost_decision_whose_payments_are_refused_leaves_what_serves() -> None:
    net = network(3, until=FIRST_REST + 0.05)
    me = net.ids[0]
    before = net.disks[me].champion
    net.crash(0)
    net.refuse.add((me, 5))
    net.start(0)
    net.run(FIRST_REST + 30)
    assert net.disks[me].champion is before and net.nodes[me].rounds.gate.deciding is None
    net.run(FIRST_REST + 1010)
    assert 6 in decisions(net, 0), "the next cycle decides as ever"


def test_a_refresh_while_it_is_decided_loses_no_decision() -> None:
    net = network(3, until=FIRST_REST + 0.05)
    me = net.ids[0]
    carry_out, deaf = net.carry_out, True

    def carry(node: Any, effect: Any) -> None:
        if not (deaf and node == me and isinstance(effect, StartEvaluation)):
            carry_out(node, effect)

    net.crash(0)
    net.carry_out = carry  # type: ignore[method-assign]
    net.start(0)
    net.run(FIRST_REST + 10)
    assert net.nodes[me].rounds.gate.deciding == 5
    deaf = False
    net.push(me, 0.0, RefreshAsked())
    net.run(FIRST_REST + 20)
    assert decisions(net, 0)[-1] == 5 and net.nodes[me].rounds.readings.of(6) is not None


@pytest.mark.parametrize(("n", "away"), [(3, 20), (3, 150), (3, 900), (4, 50), (4, 3200), (7, 150)])
def test_who_was_away_catches_up_and_nobody_is_quarantined(n: int, away: int) -> None:
    net = network(n, until=ANCHOR + 333)
    net.crash(0)
    net.run(ANCHOR + 333 + away)
    net.start(0)
    net.run(max(FIRST_REST, ANCHOR + 333 + away) + 1200)
    assert not quarantined(net)
    assert not problems(net, 0) - {"ALONE"}
    assert rounds(net, 0)[-1] == rounds(net, 1)[-1]
    models = [net.nodes[i].rounds for i in net.ids]
    assert models[0].merged == models[1].merged
    moved = models[1]._reputation.yardstick.training.unit(models[1].vector)
    assert models[1]._reputation.yardstick.distances(models[1].vector, [models[0].vector])[0] < 4, moved


def test_a_long_absence_ends_in_an_adoption_that_says_how_far_it_went() -> None:
    net = network(4, until=ANCHOR + 333)
    net.crash(0)
    net.run(ANCHOR + 633)
    published = net.nodes[net.ids[1]].rounds.seq
    since = len(net.events[net.ids[0]])
    net.start(0)
    net.run(ANCHOR + 700)
    behind, adopted, caught = (told(net, 0, kind, since)[0] for kind in (FellBehind, ModelAdopted, CaughtUp))
    assert behind.merged < behind.round - 20
    assert adopted.sources == 3 and adopted.distance > 4 and adopted.auprc is not None
    assert caught.round <= behind.round + 2
    first = next(e for e in told(net, 0, RoundCompleted, since))
    assert first.round > behind.round - 2 and published > 20


def test_of_two_banks_none_adopts_and_none_is_quarantined() -> None:
    net = network(2, until=ANCHOR + 333)
    net.crash(0)
    net.run(ANCHOR + 933)
    net.start(0)
    net.run(FIRST_REST + 1200)
    assert not quarantined(net) and not told(net, 0, ModelAdopted)
    assert "BEHIND" not in problems(net, 0)


def test_who_is_behind_says_nothing_until_it_is_with_the_others() -> None:
    net = network(4, until=ANCHOR + 333)
    net.crash(0)
    net.run(ANCHOR + 633)
    net.start(0)
    while not told(net, 0, FellBehind):
        net.run(net.now + 1)
    seq = net.nodes[net.ids[0]].rounds.seq
    while net.nodes[net.ids[0]].rounds.behind:
        assert net.nodes[net.ids[0]].rounds.seq == seq
        net.run(net.now + 1)
    net.run(net.now + 30)
    assert net.nodes[net.ids[0]].rounds.seq > seq


def test_a_cold_start_of_everybody_is_nobodys_being_behind() -> None:
    net = network(4, until=ANCHOR + 333)
    for i in range(4):
        net.crash(i)
    net.run(FIRST_REST + 1300)
    for i in range(4):
        net.start(i)
        net.run(net.now + 1)
    net.run(FIRST_REST + 2000 + 900)
    assert not quarantined(net) and not any(told(net, i, ModelAdopted) for i in range(4))
    assert all(net.nodes[m].rounds.seq > 40 for m in net.ids)


def test_a_bank_that_joins_in_rest_adopts_at_once_and_serves() -> None:
    net = Network(replace(make_manifest(4), calendar=DAILY), rounds=0)
    net.training_seconds, net.drift = 3.0, 0.02
    for i in range(1, 4):
        net.start(i)
    net.run(FIRST_REST + 300)
    net.start(0)
    net.run(FIRST_REST + 330)
    assert told(net, 0, ModelAdopted) and net.disks[net.ids[0]].champion is not None
    node = net.nodes[net.ids[0]].rounds
    assert node.phase is Phase.RESTING and node.seq == 0 and not node.readings.opened(6)
    net.run(FIRST_REST + 1100)
    assert not quarantined(net) and rounds(net, 0)[-1] == rounds(net, 1)[-1]


def test_a_partition_over_a_cycles_end_heals_without_quarantine() -> None:
    for n in (4, 6):
        net = network(n, until=ANCHOR + 333)
        half = set(net.ids[: n // 2])
        reachable = net.reachable
        net.reachable = lambda a, b, half=half, ok=reachable: ok(a, b) and (a in half) == (b in half)  # type: ignore[method-assign]
        net.run(ANCHOR + 750)
        net.reachable = reachable  # type: ignore[method-assign]
        net.run(FIRST_REST + 1200)
        assert not quarantined(net)
        assert not any(problems(net, i) - {"ALONE"} for i in range(n))
        assert all(len(told(net, i, RoundCompleted)[-1].merged) == n - 1 for i in range(n))


@pytest.mark.parametrize("step", [-7200.0, 7200.0, -3600 * 24.0])
def test_a_clock_that_is_set_wrong_quarantines_nobody_and_is_told(step: float) -> None:
    net = network(5, until=ANCHOR + 333)
    net.clock[net.ids[0]] += step
    net.run(ANCHOR + 500)
    assert "CLOCK_OFF" in problems(net, 0)
    trained = rounds(net, 0)
    net.run(ANCHOR + 700)
    assert rounds(net, 0)[len(trained) + 1 :] == [], "it does not know which round it is"
    net.clock[net.ids[0]] = 0.0
    net.run(FIRST_REST + 1200)
    assert not quarantined(net) and not problems(net, 0)
    assert len(set(rounds(net, 0))) == len(rounds(net, 0)), "no round is trained twice"
    assert rounds(net, 0)[-1] == rounds(net, 1)[-1]


def test_no_round_is_trained_twice_where_the_clock_was_set_back_before_a_restart() -> None:
    """Of three clocks none is known to be right, so nothing else keeps this node from it."""
    net = network(3, until=ANCHOR + 333)
    net.crash(0)
    net.clock[net.ids[0]] -= 200
    net.start(0)
    net.run(FIRST_REST + 1200)
    assert len(set(rounds(net, 0))) == len(rounds(net, 0)) > 20


def test_of_three_clocks_none_is_known_to_be_right_and_nobody_is_quarantined() -> None:
    net = network(3, until=ANCHOR + 333)
    net.crash(0)
    net.run(ANCHOR + 353)
    net.clock[net.ids[0]] += 3 * 3600
    net.start(0)
    net.run(FIRST_REST + 1200)
    assert not quarantined(net) and "CLOCK_OFF" in problems(net, 0)


def test_a_restored_backup_waits_for_what_others_hold_and_signs_nothing_twice() -> None:
    net = network(4, until=ANCHOR + 150)
    old = replace(net.disks[net.ids[0]])
    net.run(ANCHOR + 338)
    net.crash(0)
    seen = {u.statement.seq: u.digest for u in updates_of(net, net.ids[0])}
    net.disks[net.ids[0]] = replace(old, epoch=old.epoch)
    net.start(0)
    for second in range(400):
        net.run(ANCHOR + 334 + second)
        for update in updates_of(net, net.ids[0]):
            assert seen.setdefault(update.statement.seq, update.digest) == update.digest
    assert not quarantined(net)


def test_the_threshold_that_is_told_is_that_of_what_serves() -> None:
    net = network(4, until=ANCHOR + 850)
    for node in net.nodes.values():
        champion = node.rounds.gate.champion
        assert champion is not None and champion.cycle > 0 and node.rounds.threshold == champion.threshold


def test_a_refused_reading_sits_the_cycle_out_serves_and_is_taken_when_the_operator_says_so() -> None:
    net = network(4, until=ANCHOR + 150)
    me = net.ids[0]
    net.refuse.add((me, 2))
    net.run(ANCHOR + 200 + 290)
    assert "READING_REFUSED" in problems(net, 0)
    assert rounds(net, 0)[-1] == 40 and rounds(net, 1)[-1] > 45
    assert net.nodes[me].rounds.merged > 45, "it stays with the others by merging"
    net.push(me, 0.0, RefreshAsked(accept=True))
    net.run(ANCHOR + 590)
    assert "READING_REFUSED" not in problems(net, 0) and rounds(net, 0)[-1] > 50
    assert not quarantined(net)


def test_one_killed_between_publishing_and_merging_goes_on_and_signs_no_round_twice() -> None:
    net = network(3, until=ANCHOR + 334)  # trained at 333, merges at 340
    me = net.nodes[net.ids[0]].rounds
    assert me.round == 34 and me.phase is Phase.PAUSED
    seq = me.seq
    net.crash(0)
    net.start(0)
    net.run(ANCHOR + 339)
    assert net.nodes[net.ids[0]].rounds.seq == seq
    net.run(ANCHOR + 400)
    assert rounds(net, 0)[-1] >= 38 and not quarantined(net)
