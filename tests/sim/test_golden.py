"""Whole runs told as stories, compared line by line with golden/*.txt, and what each of them is about.

A change of the protocol changes stories. Read the difference; if it is meant, write them anew:

    UPDATE_GOLDEN=1 pytest tests/sim/test_golden.py
"""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass
from difflib import unified_diff
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

from p2pfed.core.events import (
    CaughtUp,
    Event,
    FellBehind,
    ModelAdopted,
    ModelPromoted,
    RoundCompleted,
    StandingChanged,
    UpdateAccepted,
    UpdateRefused,
)
from p2pfed.core.types import NodeId
from p2pfed.sim.engine import Engine
from p2pfed.sim.history import DONE, History
from p2pfed.sim.host import Host
from p2pfed.sim.scenario import load_scenario, scenario_from
from p2pfed.sim.story import story
from tests.sim.consortium import learner, population

GOLDEN = Path(__file__).parent / "golden"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.yaml"))
ROUND_SECONDS = 16 * 0.2
"""Of training, in every scenario; each round is up to a tenth shorter or longer."""


@dataclass
class Run:
    """A scenario that has run."""

    history: History
    heard: dict[str, list[tuple[float, Event]]]
    """What each node told, and when."""
    names: dict[NodeId, str]
    """Names of the nodes, by id."""

    def rounds(self, who: str) -> list[tuple[float, RoundCompleted]]:
        return [(time, event) for time, event in self.heard[who] if isinstance(event, RoundCompleted)]

    def got(self, who: str, since: float = 0.0, until: float = float("inf")) -> set[tuple[str, str]]:
        """Whose updates came to a node in some time, and from whom."""
        return {
            (self.names[event.member], self.names[event.via])
            for time, event in self.heard[who]
            if isinstance(event, UpdateAccepted) and since <= time < until
        }

    def sources(self, who: str, since: float = 0.0, until: float = float("inf")) -> set[str]:
        return {member for member, _ in self.got(who, since, until)}

    def lines(self, *words: str) -> list[str]:
        return [line for line in self.history.transcript if all(word in line for word in words)]

    def distance(self, round_number: int) -> float:
        return next(s.consensus_distance for s in self.history.spread if s.round == round_number)

    def auprc(self, who: str, round_number: int) -> float:
        node = int(who.removeprefix("bank-")) - 1
        found = next(p.auprc for p in self.history.points if (p.node, p.round) == (node, round_number))
        assert found is not None
        return found


class _Listening(Engine):
    heard: dict[str, list[tuple[float, Event]]]

    def emitted(self, time: float, host: Host, event: Event) -> None:
        super().emitted(time, host, event)
        self.heard[host.name].append((time, event))


@cache
def run(name: str, without: str = "") -> Run:
    """A scenario's run, or how it would be without one of its sections."""
    scenario = load_scenario(GOLDEN / f"{name}.yaml")
    if without:
        scenario = scenario_from(scenario.model_dump(exclude={without}))
    people = population(scenario)
    engine = _Listening(people, scenario, learner(people), transcript=True)
    engine.heard = defaultdict(list)
    names = {identity.node_id: name for identity, name in zip(people.identities, scenario.names, strict=True)}
    return Run(engine.run(), engine.heard, names)


def banks(*numbers: int) -> set[str]:
    return {f"bank-{number}" for number in numbers}


@pytest.mark.parametrize("name", NAMES)
def test_the_story_is_the_golden_one(name: str) -> None:
    history = run(name).history
    title = takewhile(lambda line: line.startswith("#"), (GOLDEN / f"{name}.yaml").read_text().splitlines())
    told = [*title, *story(history.transcript), f"{history.virtual_seconds:8.2f}s{' ' * 13}{history.ended}"]
    golden = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text("\n".join(told) + "\n")
    expected = golden.read_text().splitlines() if golden.exists() else []
    difference = "\n".join(unified_diff(expected, told, f"golden/{golden.name}", "this run", lineterm=""))
    assert not difference, f"\n{difference}\n\nIf this is meant: UPDATE_GOLDEN=1 pytest tests/sim/test_golden.py"


@pytest.mark.parametrize("name", NAMES)
def test_nobody_is_ever_caught_with_a_number_used_twice(name: str) -> None:
    happened = run(name)
    for who, events in happened.heard.items():
        assert not [event for _, event in events if isinstance(event, UpdateRefused)]
        seqs = [event.seq for _, event in happened.rounds(who)]
        # by the calendar who is behind trains in silence, and keeps its number
        assert seqs == sorted(seqs if name.startswith("calendar") else set(seqs))


def test_every_golden_transcript_has_its_scenario() -> None:
    assert sorted(path.stem for path in GOLDEN.glob("*.txt")) == NAMES and len(NAMES) > 8


def test_join_the_newcomer_learns_with_the_others_from_its_first_round() -> None:
    happened = run("join")
    time, first = happened.rounds("bank-5")[0]
    assert 6 < time < 12 and len(first.merged) == 4
    assert all("bank-5" in happened.sources(f"bank-{i}") for i in range(1, 5))
    assert not happened.lines("adopts")


def test_partition_and_heal_the_halves_find_together() -> None:
    happened = run("partition_and_heal")
    for i in range(1, 7):
        mine, others = (banks(1, 2, 3), banks(4, 5, 6)) if i < 4 else (banks(4, 5, 6), banks(1, 2, 3))
        apart, after = (happened.sources(f"bank-{i}", *period) for period in ((8.5, 38.0), (38.0, 48.0)))
        assert apart == mine - {f"bank-{i}"} and after >= others
        assert all(happened.lines(f"bank-{i} takes {other} for failed") for other in others)
        assert all(happened.lines(f"bank-{i} hears {other} again") for other in others)
    assert happened.distance(12) > 1.1 * happened.distance(6) > 4 * happened.distance(20)


def test_churn_everybody_does_its_rounds_however_often_it_is_killed() -> None:
    happened = run("churn")
    assert len(happened.lines("is killed")) > 10
    for i in range(1, 7):
        assert [event.round for _, event in happened.rounds(f"bank-{i}")] == list(range(1, 9))


def test_straggler_slows_nobody_and_is_heard() -> None:
    happened = run("straggler")
    slow = [event.seconds for _, event in happened.rounds("bank-3")]
    quick = [event.seconds for i in (1, 2, 4, 5) for _, event in happened.rounds(f"bank-{i}")]
    assert max(quick) < 1.1 * ROUND_SECONDS + 0.01 < min(slow) / 3
    assert all("bank-3" in happened.sources(f"bank-{i}") for i in (1, 2, 4, 5))


def test_late_joiner_begins_with_the_median_of_the_others() -> None:
    happened = run("late_joiner")
    ((time, adopted),) = [(t, e) for t, e in happened.heard["bank-5"] if isinstance(e, ModelAdopted)]
    assert 36 < time < happened.rounds("bank-5")[0][0] and adopted.sources == 4
    assert happened.auprc("bank-5", 1) > 0.7 > 0.4 > happened.auprc("bank-1", 1)


def test_lossy_links_cost_models_and_no_time() -> None:
    happened, lossless = run("lossy_links"), run("lossy_links", without="network")
    for i in range(1, 6):
        assert all(event.seconds < 1.1 * ROUND_SECONDS + 0.01 for _, event in happened.rounds(f"bank-{i}"))
    assert sum(happened.history.pulls.values()) < 0.8 * sum(lossless.history.pulls.values())
    assert happened.history.run.nodes[0].rounds == 8 and not happened.lines("suspects")


def test_restart_goes_on_with_the_next_sequence_number() -> None:
    happened = run("restart")
    assert happened.lines("20.00s bank-2 goes on from round 3")
    assert [(event.round, event.seq) for _, event in happened.rounds("bank-2")] == [(n, n) for n in range(1, 11)]
    assert [event.round for time, event in happened.rounds("bank-2") if time < 20] == [1, 2, 3]
    # it had merged what the others had learned meanwhile before it published again
    assert happened.sources("bank-2", 20, happened.rounds("bank-2")[3][0] - 2) == banks(1, 3, 4)


def test_ring_mixes_worse_than_random() -> None:
    ring, random = run("ring"), run("random")
    assert all(ring.distance(n) > 1.1 * random.distance(n) for n in range(4, 7))
    assert ring.history.spread[-1].consensus_distance > 2 * random.history.spread[-1].consensus_distance
    assert all(len(ring.sources(f"bank-{i}")) == 2 for i in range(1, 9))
    assert all(len(random.sources(f"bank-{i}")) > 4 for i in range(1, 9))


def test_dial_out_banks_learn_from_each_other_through_a_third() -> None:
    happened = run("dial_out")
    for me, other in (("bank-4", "bank-5"), ("bank-5", "bank-4")):
        relays = {via for member, via in happened.got(me) if member == other}
        assert relays and relays <= banks(1, 2, 3)
        assert all((me, me) in happened.got(f"bank-{i}") for i in range(1, 4))  # pushed


def test_attacker_does_little_harm() -> None:
    happened, peaceful = run("attacker"), run("attacker", without="attackers")
    for i in range(1, 5):
        assert happened.auprc(f"bank-{i}", 8) > 0.9 * peaceful.auprc(f"bank-{i}", 8)
        assert "bank-5" in happened.sources(f"bank-{i}")


def test_quarantine_every_honest_bank_drops_both_attackers_and_nobody_else() -> None:
    happened = run("quarantine")
    honest = banks(*range(1, 9)) - banks(4, 7)
    for who in honest:
        changes = [event for _, event in happened.heard[who] if isinstance(event, StandingChanged)]
        assert {happened.names[event.member] for event in changes if event.after == "quarantined"} == banks(4, 7)
        assert {event.after for event in changes} == {"suspect", "quarantined"}
        merged = happened.rounds(who)[-1][1].merged
        assert {happened.names[member] for member in merged} == honest - {who}


def test_clock_skew_disturbs_nobody() -> None:
    happened = run("clock_skew")
    assert not happened.lines("suspects") and not happened.lines("raises")
    assert [node.rounds for node in happened.history.run.nodes] == [6] * 5


def test_leaver_is_not_taken_for_failed() -> None:
    happened = run("leaver")
    assert len(happened.lines("hears bank-1 say good-bye")) == 4
    assert not happened.lines("suspects") and not happened.lines("failed")
    assert [node.rounds for node in happened.history.run.nodes] == [2, 14, 14, 14, 14]


def test_cut_off_node_doubts_itself_and_nobody_else() -> None:
    happened = run("cut_off")
    assert len(happened.lines("bank-5 raises SELF_DEGRADED")) == len(happened.lines("bank-5 clears SELF_DEGRADED")) == 1
    assert not happened.lines("bank-5 suspects") and len(happened.lines("takes bank-5 for failed")) == 4
    assert happened.sources("bank-5", 8.5, 38) == set() and happened.sources("bank-5", 38, 48) == banks(1, 2, 3, 4)
    assert happened.distance(12) > 1.5 * happened.distance(6) > 4 * happened.distance(20)


# --- by the calendar --------------------------------------------------------------------------------------------------

CALENDAR = [name for name in NAMES if name.startswith("calendar")]


@pytest.mark.parametrize("name", CALENDAR)
def test_nobody_honest_is_ever_quarantined_by_the_calendar(name: str) -> None:
    happened = run(name)
    assert not happened.lines("for quarantined") and happened.history.ended == DONE
    last = happened.history.run.rounds
    assert all(node.rounds == last for node in happened.history.run.nodes)


def events(happened: Run, who: str, kind: type) -> list[tuple[float, Any]]:
    return [(time, event) for time, event in happened.heard[who] if isinstance(event, kind)]


def test_stopped_for_five_rounds_it_is_silent_until_it_is_with_the_others() -> None:
    happened = run("calendar_stopped")
    ((behind, _),), ((back, _),) = (events(happened, "bank-2", kind) for kind in (FellBehind, CaughtUp))
    assert 335 < behind < back <= 360
    mine = next(node for node, name in happened.names.items() if name == "bank-2")
    heard = [told for i in (1, 3, 4, 5) for told in events(happened, f"bank-{i}", UpdateAccepted)]
    told = [(time, event.seq) for time, event in heard if event.member == mine]
    before = max(seq for time, seq in told if time < 335)
    assert all(seq <= before + 1 for time, seq in told if time < back), "only what it had published before"
    assert all("bank-2" in happened.sources(f"bank-{i}", back, 380) for i in (1, 3, 4, 5))


def test_away_for_three_cycles_it_takes_the_median_before_it_publishes() -> None:
    happened = run("calendar_away")
    ((time, adopted),) = events(happened, "bank-2", ModelAdopted)
    assert 790 < time < 860 and adopted.sources == 4 and adopted.round == 40
    assert all("bank-2" not in happened.sources(f"bank-{i}", 300, 860) for i in (1, 3, 4, 5))
    assert [event.round for _, event in happened.rounds("bank-2")][-8:] == list(range(41, 49))


def test_killed_between_publishing_and_merging_it_goes_on_with_the_next_number() -> None:
    happened = run("calendar_killed_publishing")
    told = [(event.round, event.seq) for _, event in happened.rounds("bank-2")]
    assert told[:4] == [(n, n) for n in range(1, 5)] and told[4] == (7, 6)
    assert all("bank-2" in happened.sources(f"bank-{i}", 113, 120) for i in (1, 3, 4, 5)), "what it had published"


def test_apart_at_a_cycles_end_the_halves_begin_the_next_one_together() -> None:
    happened = run("calendar_cycle_end_apart")
    for i in range(1, 7):
        mine = banks(1, 2, 3) if i < 4 else banks(4, 5, 6)
        assert happened.sources(f"bank-{i}", 320.5, 440) == mine - {f"bank-{i}"}
        merged = dict((event.round, event.merged) for _, event in happened.rounds(f"bank-{i}"))
        assert len(merged[25]) == 5
    assert not happened.lines("is behind")


def test_halves_in_step_find_together_and_nobody_is_dropped() -> None:
    happened = run("calendar_halves_in_step")
    assert not happened.lines("is behind") and not happened.lines("quarantined")
    assert len(happened.lines("raises ODD_ONE_OUT")) == len(happened.lines("clears ODD_ONE_OUT"))
    assert happened.distance(32) > 3 * happened.distance(48)


def test_a_clock_set_back_stops_one_bank_and_disturbs_nobody_else() -> None:
    happened = run("calendar_clock_set_back")
    assert len(happened.lines("bank-2 raises CLOCK_OFF")) == len(happened.lines("bank-2 clears CLOCK_OFF")) == 1
    numbers = [event.round for _, event in happened.rounds("bank-2")]
    assert numbers == sorted(set(numbers)), "no round is trained twice"
    assert not [time for time, _ in happened.rounds("bank-2") if 290 < time < 567]
    others = [line for line in happened.lines("raises") if "bank-2" not in line]
    assert not [line for line in others if "QUALITY_FALLS" not in line], "on so few rows quality goes up and down"
    assert [event.round for _, event in happened.rounds("bank-1")] == list(range(1, 41))


def test_a_restored_backup_says_nothing_twice() -> None:
    happened = run("calendar_restored_backup")
    assert len(happened.lines("bank-2 raises STATE_ROLLED_BACK")) == 1, "however many tell it, and how often"
    ((back, _),) = events(happened, "bank-2", CaughtUp)
    assert all("bank-2" not in happened.sources(f"bank-{i}", 300.5, back) for i in (1, 3, 4, 5))
    assert not happened.lines("signed two updates")


def test_who_refuses_a_reading_sits_the_cycle_out_and_merges() -> None:
    happened = run("calendar_reading_refused")
    numbers = [event.round for _, event in happened.rounds("bank-2")]
    assert numbers == [*range(1, 17), *range(25, 33)]
    assert happened.sources("bank-2", 260, 340) == banks(1, 3, 4, 5)
    assert not happened.lines("is behind"), "who merges stays with the others"
    assert len(happened.lines("READING_REFUSED")) == 2


def test_who_joins_in_a_rest_serves_at_once_and_trains_with_the_next_cycle() -> None:
    happened = run("calendar_joins_in_rest")
    ((time, adopted),) = events(happened, "bank-5", ModelAdopted)
    assert 400 < time < 410 and adopted.sources == 4
    assert any(400 < at < 410 for at, _ in events(happened, "bank-5", ModelPromoted))
    assert happened.rounds("bank-5")[0][1].round == 25


def test_another_model_is_trained_by_all_from_its_cycle_on_and_serves_from_the_gate_on() -> None:
    happened = run("calendar_other_model")
    assert len(happened.lines("has version 2 of the manifest")) == 5
    for i in range(1, 6):
        told = happened.rounds(f"bank-{i}")
        assert [event.round for _, event in told] == list(range(1, 41))
        assert all(len(event.merged) == 4 for _, event in told[24:32]), "nobody is left with the old model"
        serving = [(time, event) for time, event in events(happened, f"bank-{i}", ModelPromoted) if time > 345]
        (time, first), *later = serving
        assert 543 < time < 544 and first.round == 32 and "first of a new model" in first.why
        assert all("before" in event.why for _, event in later), "it is compared again"
    assert not happened.lines("raises")
