"""Changes of what is trained, how, or when: from which cycle they hold, and that cycles and rounds count on."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pfed.core.consortium import Manifest, ManifestError
from p2pfed.core.gossip.calendar import FREE, Calendar, calendar_problems
from p2pfed.core.model import ModelSpec
from p2pfed.core.succession import changes_training, earliest_change, verify_succession
from tests.consortia import consortium, member, next_version, sign

HOUR = 3600
ANCHOR = 1_700_000_000
CALENDAR = Calendar(ANCHOR, HOUR, 20, 30.0)  # ten minutes a cycle: six of them in the first hour
HOUSE = consortium(calendar=CALENDAR)
MANIFEST = HOUSE.manifest
LATER = ANCHOR + 10 * HOUR + 60
"""When admins change something, a minute after cycle 15 began: the next but one is the first that is an hour ahead."""
CYCLE = 17
BEGINS = ANCHOR + 12 * HOUR


def accepted(current: Manifest, **changes) -> Manifest:
    return verify_succession(current, sign(next_version(current, issued=LATER, **changes), *HOUSE.admins))


def refused(complaint: str, current: Manifest = MANIFEST, **changes) -> None:
    with pytest.raises(ManifestError, match=complaint):
        accepted(current, **changes)


def other_rule(**changes) -> dict:
    return {"gossip": replace(MANIFEST.gossip, rule="median"), "from_cycle": CYCLE, **changes}


def other_calendar(**changes) -> Calendar:
    begun = {"anchor": BEGINS, "every": 2 * HOUR, "rounds": 40, "first": CYCLE, "before": CYCLE * 20}
    return replace(CALENDAR, **{**begun, **changes})


def other_model(cycle: int = CYCLE, **changes) -> dict:
    model = ModelSpec("mlp", 3, (5,), 0.0)
    new = {"model": model, "initial_sha256": model.initial_weights(MANIFEST.seed).digest, "generation": 2}
    return {**new, "from_cycle": cycle, "generation_cycle": cycle, **changes}


# --- from which cycle -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("issued", "cycle"),
    [
        (LATER, CYCLE),
        (BEGINS - HOUR, CYCLE),
        (BEGINS - HOUR + 1, CYCLE + 1),
        (ANCHOR - HOUR - 9, 0),
        (ANCHOR - HOUR + 9, 1),
    ],
)
def test_a_change_holds_from_the_first_cycle_that_is_a_period_ahead(issued, cycle):
    assert earliest_change(MANIFEST, issued) == cycle
    assert CALENDAR.begins(cycle) >= issued + HOUR


def test_a_rule_changes_from_a_cycle_on():
    assert accepted(MANIFEST, **other_rule()).from_cycle == CYCLE
    assert accepted(MANIFEST, **other_rule(from_cycle=CYCLE + 5)).from_cycle == CYCLE + 5
    refused("hold from cycle 16, and 17 is the first that is a period ahead", **other_rule(from_cycle=CYCLE - 1))
    refused("hold from cycle 0, and 17", **other_rule(from_cycle=0))


def test_members_change_at_once():
    more = (*MANIFEST.members, member("bank-9", HOUSE.admins[0]))
    assert not changes_training(MANIFEST, replace(MANIFEST, members=more))
    assert accepted(MANIFEST, members=more).from_cycle == 0
    refused("from_cycle or generation_cycle changes, but nothing that", members=more, from_cycle=CYCLE)


def test_members_may_change_while_a_change_waits_for_its_cycle():
    waiting = accepted(MANIFEST, **other_rule())
    assert accepted(waiting, members=MANIFEST.members[:2]).from_cycle == CYCLE
    refused("from_cycle or generation_cycle changes", waiting, members=MANIFEST.members[:2], from_cycle=CYCLE + 1)


def test_one_change_waits_at_a_time():
    waiting = accepted(MANIFEST, **other_rule())
    training = replace(MANIFEST.training, batch=64)
    assert accepted(waiting, training=training).from_cycle == CYCLE
    refused("hold from cycle 18, and 17", waiting, training=training, from_cycle=CYCLE + 1)
    late = next_version(waiting, issued=BEGINS - 60, training=training, from_cycle=CYCLE + 2)
    with pytest.raises(ManifestError, match="of version 2 hold from cycle 17 on, .* wait until it has begun"):
        verify_succession(waiting, sign(late, *HOUSE.admins))


# --- generations ------------------------------------------------------------------------------------------------------


def test_a_new_model_is_a_new_generation_from_its_cycle_on():
    changed = accepted(MANIFEST, **other_model())
    assert (changed.generation, changed.generation_cycle) == (2, CYCLE)
    refused("every new model or contract begins one", **other_model(generation=1, generation_cycle=0))
    refused("after generation 1 comes the next", **other_model(generation=3))
    refused("generation_cycle is not the cycle from which", **other_model(generation_cycle=0))
    contract = replace(MANIFEST.contract, clip=9.0)
    refused("every new model or contract begins one", contract=contract, from_cycle=CYCLE)
    refused("generation_cycle is not the cycle", **other_rule(generation_cycle=CYCLE))


# --- calendars --------------------------------------------------------------------------------------------------------


def test_a_new_calendar_counts_on():
    new = other_calendar()
    assert accepted(MANIFEST, calendar=new, from_cycle=CYCLE).calendar == new
    assert calendar_problems(new) == []
    assert [new.begins(k) for k in (CYCLE, CYCLE + 1)] == [BEGINS, BEGINS + 2 * HOUR]
    assert new.number(CYCLE, 1) == CALENDAR.number(CYCLE, 1) == CALENDAR.at(BEGINS).number == new.at(BEGINS).number
    assert new.number(CYCLE + 1, 1) == CYCLE * 20 + 41
    assert new.number(CYCLE - 1, 19) <= new.before, "of models of the old calendar"
    evening = other_calendar(anchor=BEGINS + 600)
    assert accepted(MANIFEST, calendar=evening, from_cycle=CYCLE).calendar.at(BEGINS).ends == BEGINS + 600
    before = new.at(BEGINS - 1)
    assert (before.cycle, before.round, before.number, before.ends) == (CYCLE - 1, 0, CYCLE * 20, BEGINS)


@given(st.integers(0, 5000))
def test_a_number_has_one_place(past):
    calendar = other_calendar()
    number = calendar.before + 1 + past
    cycle, round_of_cycle = calendar.place(number)
    assert calendar.number(cycle, round_of_cycle) == number
    assert cycle >= CYCLE and 1 <= round_of_cycle <= calendar.rounds


@pytest.mark.parametrize(
    "changes",
    [{"anchor": BEGINS - HOUR}, {"first": 16}, {"before": 0}, {"before": CYCLE * 20 + 1}],
)
def test_a_calendar_that_does_not_go_on_is_refused(changes):
    refused("does not go on from the old one at cycle 17", calendar=other_calendar(**changes), from_cycle=CYCLE)


def test_extra_and_skipped_cycles_only_after_the_change():
    extra = replace(CALENDAR, extra=(BEGINS + 1200,))
    assert accepted(MANIFEST, calendar=extra, from_cycle=CYCLE).calendar.begins(CYCLE + 1) == BEGINS + 1200
    skipped = replace(CALENDAR, skipped=(BEGINS,))
    assert accepted(MANIFEST, calendar=skipped, from_cycle=CYCLE).calendar.begins(CYCLE) == BEGINS + HOUR
    for soon in (replace(CALENDAR, extra=(BEGINS - 1200,)), replace(CALENDAR, skipped=(BEGINS - HOUR,))):
        refused("does not go on", calendar=soon, from_cycle=CYCLE)


def test_a_calendar_is_for_good():
    refused("founded with a calendar or without", calendar=FREE)
    free = replace(MANIFEST, calendar=FREE)
    refused("founded with a calendar or without", free, calendar=CALENDAR)
    assert accepted(free, **other_model(cycle=0)).generation == 2
    refused("from_cycle is 0 .* where there are no cycles", free, **other_model())
