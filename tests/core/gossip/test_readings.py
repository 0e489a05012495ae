"""When payments are read: not again and again where they were refused, and not too early because a source was away."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from p2pfed.core.effects import Effect, Emit, KeptModel, OpenTrainer, StartEvaluation
from p2pfed.core.events import ModelEvaluated, PaymentsRead, ProblemRaised
from p2pfed.core.gossip.calendar import Calendar
from p2pfed.core.inputs import (
    EvaluationFinished,
    ReadingFailed,
    ReadingRefused,
    RefreshAsked,
    Started,
    TimerFired,
    TrainerReady,
)
from p2pfed.core.node import GossipNode
from p2pfed.core.settings import Memory, NodeSettings
from tests.core.gossip.test_cycles import FIRST_REST, network, problems, told
from tests.core.heap import identity, make_manifest

CALENDAR = Calendar(100, 1000, 20, 10.0)
REST = 100.0 + 1000 + 200


class Node:
    """A node that starts while the others rest; it has nothing to serve, so it reads at once."""

    def __init__(self, rounds: int = 0) -> None:
        manifest = replace(make_manifest(3), calendar=CALENDAR)
        rng = np.random.default_rng(0)
        self.node = GossipNode(identity(0), manifest, NodeSettings(rounds), Memory(1, "00" * 16), rng)
        self.done: list[Effect] = []
        self.give(Started(), REST)

    def give(self, given: object, at: float) -> None:
        self.done += self.node.handle(given, at, at)  # type: ignore[arg-type]

    @property
    def opened(self) -> list[OpenTrainer]:
        return [effect for effect in self.done if isinstance(effect, OpenTrainer)]


def test_refused_payments_are_not_read_again_in_their_cycle_unless_asked_for() -> None:
    node = Node()
    [first] = node.opened
    begins = CALENDAR.begins(first.cycle)
    node.give(ReadingRefused(first.cycle, "half of the rows are gone"), REST + 5)
    for at in (begins - 10, begins - 5):
        node.give(TimerFired("reading"), at)
        node.give(TimerFired("heartbeat"), at)
    node.give(TimerFired("round"), begins + 2)
    assert node.opened == [first]
    node.give(RefreshAsked(), begins + 20)
    node.give(ReadingRefused(first.cycle, "half of the rows are gone"), begins + 25)
    node.give(RefreshAsked(accept=True), begins + 30)
    assert node.opened == [first, OpenTrainer(first.cycle), OpenTrainer(first.cycle, accept=True)]


def test_the_next_cycle_reads_anew_after_a_refusal() -> None:
    node = Node()
    [first] = node.opened
    node.give(ReadingRefused(first.cycle, "half of the rows are gone"), REST + 5)
    for at in (CALENDAR.begins(first.cycle) + 1, CALENDAR.begins(first.cycle) + CALENDAR.length + 1):
        node.give(TimerFired("round"), at)
    node.give(TimerFired("reading"), CALENDAR.begins(first.cycle + 1) - 15)
    assert [effect.cycle for effect in node.opened] == [first.cycle, first.cycle + 1]


def test_the_operator_is_told_what_happens_by_itself_and_what_does_not() -> None:
    node = Node()
    [first] = node.opened
    node.give(ReadingFailed(first.cycle, "the database is down"), REST + 10)
    node.give(ReadingRefused(first.cycle, "half of the rows are gone"), REST + 20)
    raised = [e.event for e in node.done if isinstance(e, Emit) and isinstance(e.event, ProblemRaised)]
    hints = {problem.code: problem.hint for problem in raised}
    assert "tried again by itself" in hints["DATA_UNREADABLE"]
    assert "the next cycle reads it anew, `p2pfed data refresh` at once" in hints["READING_REFUSED"]
    assert "as after labels were corrected, `p2pfed data refresh --accept` takes them" in hints["READING_REFUSED"]


@pytest.mark.parametrize(("serves", "said"), [(True, "serves on: half"), (False, "has nothing to serve yet: half")])
def test_a_bank_that_never_served_is_not_said_to_serve_on(serves: bool, said: str) -> None:
    node = Node()
    if serves:
        node.node.rounds.gate.champion = KeptModel(80, np.zeros(3, np.float32), 0.5, {}, REST, 1)
    node.give(ReadingRefused(node.opened[0].cycle, "half of the rows are gone"), REST + 20)
    [raised] = [e.event for e in node.done if isinstance(e, Emit) and isinstance(e.event, ProblemRaised)]
    assert said in raised.message


def test_the_operators_word_holds_until_the_payments_are_read_however_often_it_is_asked() -> None:
    node = Node()
    [first] = node.opened
    node.give(ReadingRefused(first.cycle, "half of the rows are gone"), REST + 10)
    for accept in (True, False):
        node.give(RefreshAsked(accept), REST + 20)
    assert [opened.accept for opened in node.opened][-2:] == [True, True]
    node.give(TrainerReady(1000, 50, cycle=first.cycle), REST + 30)
    node.give(RefreshAsked(False), REST + 40)
    assert not node.opened[-1].accept


@pytest.mark.parametrize(("trained", "asked"), [(True, True), (True, False), (False, True)])
def test_what_the_model_is_like_on_rows_that_were_read_anew_is_measured_in_rest(trained: bool, asked: bool) -> None:
    node = Node()
    [first] = node.opened
    node.node.rounds.round = 120 if trained else 0
    if asked:
        node.give(RefreshAsked(accept=True), REST + 20)
    node.give(TrainerReady(1000, 50, cycle=first.cycle), REST + 30)
    measured = [effect for effect in node.done if isinstance(effect, StartEvaluation)]
    assert [(job.purpose, job.cycle) for job in measured] == [("round:120", first.cycle)] * (trained and asked)
    if measured:
        node.give(EvaluationFinished("round:120", {"validation": {"auprc": 0.25}}, 0.5), REST + 40)
        assert [e.event.metrics for e in node.done if isinstance(e, Emit) and isinstance(e.event, ModelEvaluated)]
    node.give(TrainerReady(1000, 50, cycle=first.cycle), REST + 50)
    assert [effect for effect in node.done if isinstance(effect, StartEvaluation)] == measured, "once"


def test_in_rest_the_model_is_measured_as_what_others_made_of_it_and_on_the_rows_of_the_next_cycle() -> None:
    node = Node()
    [first] = node.opened
    rounds = node.node.rounds
    rounds.round, rounds.merged = 117, 120
    node.give(RefreshAsked(), REST + 20)
    node.give(TrainerReady(1000, 50, cycle=first.cycle), REST + 30)
    node.give(EvaluationFinished("round:120", {"validation": {"auprc": 0.25}}, 0.5), REST + 40)
    [told] = [e.event for e in node.done if isinstance(e, Emit) and isinstance(e.event, ModelEvaluated)]
    assert told.round == 120 and rounds.gate.champion is not None
    assert (rounds.gate.champion.round, rounds.gate.champion.cycle) == (120, first.cycle)


def test_what_was_asked_for_is_over_once_its_payments_are_refused() -> None:
    node = Node()
    [first] = node.opened
    node.give(RefreshAsked(), REST + 20)
    node.give(ReadingRefused(first.cycle, "half of the rows are gone"), REST + 30)
    assert node.node.rounds.readings.asked is None


def test_a_reading_that_was_refused_is_told_after_a_restart_in_rest() -> None:
    net = network(3, until=FIRST_REST - 290)
    net.refuse |= {(net.ids[0], 5)}
    net.run(FIRST_REST + 30)
    assert "READING_REFUSED" in problems(net, 0)
    net.crash(0)
    since = len(net.events[net.ids[0]])
    net.start(0)
    net.run(FIRST_REST + 40)
    assert "READING_REFUSED" in [p.code for p in told(net, 0, ProblemRaised, since)]


def test_who_listens_for_it_had_too_few_frauds_needs_as_many_after_a_restart() -> None:
    net = network(3, until=100 + 150)
    for frauds, restart in ((2, False), (4, True), (4, True)):
        net.frauds[0] = frauds
        if restart:
            net.crash(0)
            net.start(0)
        net.run(net.now + 200)
        assert net.nodes[net.ids[0]].rounds.listener
    net.frauds[0] = 5
    net.run(net.now + 200)
    assert not net.nodes[net.ids[0]].rounds.listener


def test_how_long_a_source_was_away_is_not_how_long_reading_takes() -> None:
    node = Node()
    [first] = node.opened
    for at in (REST + 10, REST + 300):
        node.give(ReadingFailed(first.cycle, "the database is down"), at)
    node.give(TrainerReady(1000, 50, cycle=first.cycle), REST + 312)
    assert node.node.rounds.readings.seconds == 12  # type: ignore[attr-defined]


def test_a_reading_is_told_with_how_fresh_the_payments_are_and_when_they_are_read_next() -> None:
    for rounds, due in ((0, CALENDAR.begins(7) - 30), (7 * 20 + 1, CALENDAR.begins(7) - 30), (7 * 20, None)):
        node = Node(rounds)
        [first] = node.opened
        node.give(TrainerReady(1000, 50, cycle=first.cycle, immature=70, newest=REST - 60), REST + 20)
        told = [e.event for e in node.done if isinstance(e, Emit) and isinstance(e.event, PaymentsRead)]
        assert told == [PaymentsRead(6, 1000, 50, 20.0, immature=70, newest=REST - 60, next_reading=due)]
