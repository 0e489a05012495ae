"""What status says of a node's place in the calendar, of what serves and of its payments."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from p2pfed.core.contract import Scaler
from p2pfed.core.effects import KeptModel
from p2pfed.core.events import PaymentsRead
from p2pfed.core.gossip.calendar import Calendar
from p2pfed.core.gossip.catch_up import Stage
from p2pfed.core.gossip.cycles import Cycles
from p2pfed.core.inputs import Started, TimerFired, TrainerReady
from p2pfed.core.node import GossipNode
from p2pfed.core.phase import Phase
from p2pfed.core.settings import Memory, NodeSettings
from p2pfed.core.succession import InForce
from p2pfed.core.types import DAY
from p2pfed.data.reading import Reading
from p2pfed.runtime import learning
from p2pfed.runtime.trainer import Loaded
from tests.consortia import consortium, next_version

CALENDAR = Calendar(1_800_000_000, DAY, 8640, 10.0)
"""No rest in the first day, for one cycle fills it."""
BEGIN = float(CALENDAR.anchor)
RESTING = replace(CALENDAR, rounds=40)
SECOND = BEGIN + DAY
"""When the first cycle of the second day begins."""


def node(calendar: Calendar, wall: float, **memory: object) -> GossipNode:
    """A node that starts at `wall`."""
    banks = consortium(4, calendar=calendar)
    remembered = Memory(1, "00" * 16, **memory)  # type: ignore[arg-type]
    made = GossipNode(banks.members[0], banks.manifest, NodeSettings(), remembered, np.random.default_rng(0))
    made.handle(Started(), 0.0, wall)
    return made


def cycles(made: GossipNode) -> Cycles:
    assert isinstance(made.rounds, Cycles)
    return made.rounds


def test_before_the_first_cycle_a_node_waits_and_knows_what_comes() -> None:
    rounds = node(RESTING, BEGIN - 100).rounds
    assert learning.state(rounds, False) == "waiting"
    said = learning.calendar(rounds, BEGIN - 100)
    assert (said["cycle"], said["round_of_cycle"], said["rounds_of_cycle"]) == (None, 0, 40)
    assert said["next_begins"] == BEGIN
    assert [(row.cycle, row.begins) for row in said["next_cycles"]] == [(0, BEGIN), (1, BEGIN + 400), (2, BEGIN + 800)]
    assert learning.state(rounds, True) == "finished"


def test_in_a_cycle_it_waits_for_the_payments_then_trains_or_listens() -> None:
    made = node(CALENDAR, BEGIN + 15)
    assert learning.state(made.rounds, False) == "waiting"
    made.handle(TrainerReady(1000, 50), 1.0, BEGIN + 16)
    made.handle(TimerFired("round"), 5.0, BEGIN + 20)
    assert learning.state(made.rounds, False) == "training"
    said = learning.calendar(made.rounds, BEGIN + 20)
    assert (said["cycle"], said["round_of_cycle"]) == (0, 3)
    made.handle(TrainerReady(1000, 1), 6.0, BEGIN + 21)
    assert learning.state(made.rounds, False) == "listening"
    cycles(made).catch_up.stage = Stage.BEHIND
    assert learning.state(made.rounds, False) == "behind"
    made.rounds.clock_off = True
    assert learning.state(made.rounds, False) == "clock_off"


def test_between_two_cycles_it_rests_and_says_when_it_reads_next() -> None:
    wall = SECOND + 1000
    champion = KeptModel(80, np.zeros(3, np.float32), 0.5, {"validation": {"auprc": 0.75}}, BEGIN, 1)
    rounds = node(RESTING, wall, champion=champion).rounds
    assert learning.state(rounds, False) == "resting"
    said = learning.calendar(rounds, wall)
    assert (said["round_of_cycle"], said["next_begins"]) == (0, SECOND + DAY)
    data = learning.data(rounds, None, None, wall)
    assert data.rows is None and data.read_at is None
    assert data.next_reading == pytest.approx(SECOND + DAY - 120)
    serves = learning.serving(rounds)
    assert serves is not None
    assert (serves.cycle, serves.round, serves.auprc, serves.since) == (1, 40, 0.75, BEGIN)


def test_what_was_read_is_the_readings_own_word_where_there_is_one() -> None:
    rounds = node(RESTING, SECOND + 1000).rounds  # it has nothing to serve, so it reads at once
    scaler = Scaler((0.0,), (1.0,), (0.0,))
    report = {"rows_read": 100, "train_rows": 60, "train_frauds": 6, "validation_frauds": 2, "own_test_frauds": 1}
    read = 5.0, PaymentsRead(1, 60, 6, 2.5)
    data = learning.data(rounds, Loaded(60, 6, scaler, report), read, SECOND + 1000)
    assert (data.rows, data.frauds, data.immature, data.newest_payment) == (100, 9, None, None)
    assert (data.read_at, data.read_seconds, data.next_reading) == (5.0, 2.5, None)
    told = {"rows": 110, "frauds": 10, "immature": 7, "newest": 4.0, "read_at": 6.0, "seconds": 1.5}
    data = learning.data(rounds, Loaded(60, 6, scaler, report, told), read, SECOND + 1000)
    assert (data.rows, data.frauds, data.immature, data.newest_payment) == (110, 10, 7, 4.0)
    assert (data.read_at, data.read_seconds) == (6.0, 1.5)


def test_before_the_first_reading_after_a_start_the_kept_one_is_told_with_when_it_was() -> None:
    rounds = node(RESTING, SECOND + 1000).rounds
    last = Reading(110, 108, 7, 100, 10, 1.0, 4.0, 3.0, ("amount",), (("country", 0.25),), (), (), (), SECOND - 5, 1.5)
    kept = last.plain()
    data = learning.data(rounds, None, None, SECOND + 1000, json.loads(json.dumps(kept)))
    assert (data.rows, data.frauds, data.immature, data.newest_payment) == (110, 10, 7, 4.0)
    assert (data.read_at, data.read_seconds) == (SECOND - 5, 1.5)
    now = Loaded(60, 6, Scaler((0.0,), (1.0,), (0.0,)), {"rows_read": 100}, kept | {"rows": 120})
    assert learning.data(rounds, now, None, SECOND + 1000, kept).rows == 120
    assert learning.data(rounds, replace(now, reading=None), None, SECOND + 1000, kept).rows == 100, "not compared"
    for other in ({"rows": 110}, {"rows": "many"}, kept | {"newest": "today"}, None):
        assert learning.data(rounds, None, None, SECOND + 1000, other).rows is None


def test_without_a_calendar_there_is_nothing_of_it_to_say() -> None:
    rounds = node(Calendar(0, 0, 0, 0.0), BEGIN).rounds
    assert learning.state(rounds, False) == "waiting"
    rounds.phase = Phase.TRAINING
    rounds.train_frauds = 100
    assert learning.state(rounds, False) == "training"
    assert learning.calendar(rounds, BEGIN)["next_cycles"] == []
    assert learning.last_cycle(rounds) is None
    assert learning.serving(rounds) is None and learning.data(rounds, None, None, BEGIN).next_reading is None


def test_a_change_that_waits_for_its_cycle_is_told_with_what_it_changes() -> None:
    banks = consortium(4, calendar=RESTING)
    old = banks.manifest
    assert learning.coming(InForce(old)) is None
    gossip = replace(old.gossip, rule="median")
    new = next_version(old, from_cycle=223, gossip=gossip, training=replace(old.training, batch=64))
    force = InForce(old).followed(new)
    told = learning.coming(force)
    assert told is not None
    assert (told.version, told.cycle, told.begins) == (2, 223, RESTING.begins(223))
    assert told.changes == ("the training policy", "the merge rule")
    assert learning.coming(force.at(told.begins)) is None, "then it is in force"
    anew = next_version(old, from_cycle=223, generation=2, generation_cycle=223, model=replace(old.model, hidden=(7,)))
    told = learning.coming(InForce(old).followed(anew))
    assert told is not None and told.changes == ("the model", "the generation, so that training begins anew")


def test_without_a_calendar_a_change_waits_for_a_restart_and_not_for_a_time() -> None:
    old = consortium(4, calendar=Calendar(0, 0, 0, 0.0)).manifest
    new = next_version(old, gossip=replace(old.gossip, rule="median"))
    assert learning.coming(InForce(old).followed(new)) is None
