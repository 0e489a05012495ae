"""Who was away, cut off or silent comes back to the others, and nobody stays silent for ever."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from p2pfed.core.events import CaughtUp, FellBehind, StandingChanged, UpdateAccepted
from p2pfed.core.gossip.calendar import Calendar
from p2pfed.core.gossip.catch_up import Stage
from p2pfed.core.reputation import ReputationParams
from p2pfed.core.wire import open_update
from tests.core.gossip.test_cycles import network, told

ANCHOR = 100
RESTING = Calendar(ANCHOR, 250, 10, 10.0)
"""Two cycles one after the other; from then on cycles of 100 s and rests of 150."""


def quarantined(net) -> list:
    return [e for me in net.ids for e in net.events[me] if isinstance(e, StandingChanged) and e.after == "quarantined"]


def accepted_of(net, i: int) -> int:
    """How many updates of a node the others have taken."""
    return sum(isinstance(e, UpdateAccepted) and e.member == net.ids[i] for me in net.ids for e in net.events[me])


def test_who_comes_back_in_a_rest_catches_up_before_it_publishes():
    net = network(5, calendar=RESTING)
    net.run(150)
    net.crash(0)
    net.run(500)  # in the rest after cycle 2
    net.start(0)
    before = accepted_of(net, 0)
    net.run(599)
    assert len(told(net, 0, FellBehind)) == 1 and not told(net, 0, CaughtUp)
    assert accepted_of(net, 0) == before
    net.run(800)
    assert len(told(net, 0, FellBehind)) == len(told(net, 0, CaughtUp)) == 1
    assert accepted_of(net, 0) > before and not quarantined(net)


def test_a_member_that_never_answers_keeps_nobody_behind(monkeypatch):
    """It is dialled in every round, so that there is always a pull that has not ended."""
    net = network(5, calendar=Calendar(ANCHOR, 3600, 100, 10.0))
    net.run(ANCHOR + 145)
    node = net.nodes[net.ids[0]].rounds
    monkeypatch.setattr(node.catch_up, "trusted", lambda number: [])
    monkeypatch.setattr(node.catch_up, "nobody", lambda number: True)
    node.catch_up.stage = Stage.BEHIND
    node._updates._pulling.add((net.ids[4], net.ids[4]))
    assert not node.pulls_ended(net.now, net.now) and node.behind, "it waits for what it has asked for"
    node._look_behind(net.now)
    assert not node.behind, "for a round at most"


def test_who_is_killed_while_it_proves_itself_is_behind_still():
    net = network(5, calendar=Calendar(ANCHOR, 3600, 100, 10.0))
    net.run(ANCHOR + 45)
    net.crash(0)
    net.run(ANCHOR + 155)
    node = net.start(0)
    while node.rounds.catch_up.stage is not Stage.PROVING:
        assert net.now < ANCHOR + 400
        net.run(net.now + 1)
    assert not told(net, 0, CaughtUp)
    net.crash(0)
    net.start(0)
    net.run(net.now + 100)
    assert len(told(net, 0, FellBehind)) == 2 and len(told(net, 0, CaughtUp)) == 1
    assert not quarantined(net)


def test_a_heartbeat_names_the_round_that_was_published_not_the_one_trained_in_silence():
    net = network(4)
    net.run(ANCHOR + 45)
    rounds = net.nodes[net.ids[0]].rounds
    rounds._listening = True
    net.run(ANCHOR + 85)
    statement = open_update(rounds.frame, net.trust).statement
    assert rounds.round > statement.round
    assert rounds.published == (statement.cycle, statement.round)
    net.crash(0)
    assert net.start(0).rounds.published == (statement.cycle, statement.round)


@pytest.mark.parametrize("few", [(0,), (0, 1)])
def test_a_few_that_are_cut_off_are_behind_once_until_they_are_back(few):
    """They are silent while they have lost most others, and do not find back to each other again and again."""
    net = network(5, calendar=Calendar(ANCHOR, 3600, 100, 10.0))
    net.run(ANCHOR + 45)
    net.sides = [set(few), set(range(5)) - set(few)]
    net.run(ANCHOR + 445)
    assert all(len(told(net, i, FellBehind)) == 1 and not told(net, i, CaughtUp) for i in few)
    net.sides = []
    net.run(ANCHOR + 600)
    assert all(len(told(net, i, FellBehind)) == len(told(net, i, CaughtUp)) == 1 for i in few)
    assert not any(told(net, i, FellBehind) for i in range(5) if i not in few) and not quarantined(net)


def test_where_all_were_cut_off_from_all_nobody_stays_silent():
    net = network(5, calendar=Calendar(ANCHOR, 3600, 100, 10.0))
    net.run(ANCHOR + 45)
    net.sides = [{i} for i in range(5)]
    net.run(ANCHOR + 645)
    assert all(net.nodes[me].rounds.behind for me in net.ids)
    net.sides = []
    net.run(ANCHOR + 900)
    assert not any(net.nodes[me].rounds.behind for me in net.ids) and not quarantined(net)
    before = [accepted_of(net, i) for i in range(5)]
    net.run(ANCHOR + 950)
    assert all(accepted_of(net, i) > known for i, known in enumerate(before))


def test_two_halves_go_on_each_by_itself_and_find_together():
    net = network(6, calendar=Calendar(ANCHOR, 3600, 100, 10.0))
    net.run(ANCHOR + 45)
    net.sides = [{0, 1, 2}, {3, 4, 5}]
    net.run(ANCHOR + 445)
    assert not any(told(net, i, FellBehind) for i in range(6))
    net.sides = []
    net.run(ANCHOR + 700)
    assert not quarantined(net) and not any(told(net, i, FellBehind) for i in range(6))


@pytest.mark.parametrize(("lost", "together"), [((5,), False), ((4, 5), False), ((3, 4, 5), True)])
def test_more_than_a_third_that_are_lost_are_apart_together(lost, together):
    """One alone that goes silent, to lie once it is back, is judged at once."""
    net = network(6, calendar=Calendar(ANCHOR, 3600, 100, 10.0))
    net.run(ANCHOR + 45)
    net.sides = [set(range(6)) - set(lost), set(lost)]
    net.run(ANCHOR + 245)
    rounds = net.nodes[net.ids[0]].rounds
    apart = set(rounds.catch_up.apart(rounds.moment.number))
    assert apart == ({net.ids[i] for i in lost} if together else set())


def test_whose_models_still_come_is_not_apart_though_its_heartbeat_is_old():
    """Two of five and a third that is really gone: to be taken for lost costs nothing, and must bring nothing."""
    net = network(5, calendar=Calendar(ANCHOR, 3600, 100, 10.0))
    net.run(ANCHOR + 145)
    net.crash(4)
    for i in (2, 3):
        presence = net.nodes[net.ids[i]].presence
        presence._seal = lambda *a, row=presence.row, **k: row
    net.run(ANCHOR + 445)
    rounds = net.nodes[net.ids[0]].rounds
    assert len(rounds.catch_up._lost) == 3 and rounds.catch_up.apart(rounds.moment.number) == []


def test_who_says_that_it_has_published_and_has_nothing_keeps_nobody_silent():
    """All were cut off from all; one claims every round and serves nothing."""
    net = network(5, calendar=Calendar(ANCHOR, 3600, 100, 10.0))
    net.run(ANCHOR + 45)
    net.sides = [{i} for i in range(5)]
    net.run(ANCHOR + 645)
    liar = net.nodes[net.ids[4]]
    seal, rounds = liar.presence._seal, liar.rounds
    rounds._announce = lambda *a: []
    liar.presence._seal = lambda seq, published, leaving: seal(
        max(seq, 1), (rounds.moment.cycle, max(rounds.moment.round, 1)), leaving
    )
    net.sides = []
    net.run(ANCHOR + 990)
    assert not any(net.nodes[me].rounds.behind for me in net.ids[:4])


def test_models_that_were_too_far_for_a_merge_are_new_in_the_next():
    net = network(4)
    net.run(ANCHOR + 48)
    node = net.nodes[net.ids[0]]
    assert not node.updates.candidates(50, 50), "all are of other rounds, so that nothing was merged"
    assert [c.waited for c in node.updates.candidates(5, 5)] == [0, 0, 0]


@pytest.mark.parametrize(("passed", "waited"), [(1, 1), (3, 3), (0, 1), (-2, 1)])
def test_how_long_a_model_has_waited_is_counted_in_rounds(passed, waited):
    """Rounds that were skipped count too; where the clock was set back it is not new again."""
    net = network(4)
    net.run(ANCHOR + 48)
    node = net.nodes[net.ids[0]]
    members = [c.member for c in node.updates.candidates(5, 5)]
    node.updates.inbox.merged(members, 5)
    assert [c.waited for c in node.updates.candidates(5 + passed, 5)] == [waited] * 3


def test_a_restored_backup_hands_over_its_old_model_under_its_old_number():
    net = network(4, calendar=RESTING)
    net.run(140)
    old = replace(net.disks[net.ids[0]])
    net.run(180)
    net.crash(0)
    net.disks[net.ids[0]] = replace(old, epoch=net.disks[net.ids[0]].epoch)
    node = net.start(0)
    net.run(182)
    seq, frame = net.shelves[net.ids[0]][net.ids[0]]
    assert node.rounds.seq > seq == open_update(frame, net.trust).statement.seq


def test_nobody_in_quarantine_shows_that_a_node_is_behind():
    net = network(5, calendar=Calendar(ANCHOR, 3600, 100, 10.0))
    net.run(ANCHOR + 145)
    node = net.nodes[net.ids[0]]
    catch_up, number = node.rounds.catch_up, node.rounds.moment.number
    for record in node.reputation.peers.values():
        record.standing = "suspect"
    assert catch_up.left_behind(number - 10, number)
    node.reputation._held.update(node.reputation.peers)
    assert not catch_up.left_behind(number - 10, number)


def test_who_suspects_all_that_it_reaches_catches_up_all_the_same():
    """Whoever is suspected leads nobody; but who is silent judges nobody, and would suspect them for ever."""
    net = network(3, calendar=Calendar(ANCHOR, 3600, 100, 10.0))
    net.run(ANCHOR + 145)
    for record in net.nodes[net.ids[0]].reputation.peers.values():
        record.standing, record.score = "suspect", ReputationParams().threshold / 2
    net.crash(0)
    net.run(ANCHOR + 285)
    node = net.start(0)
    for record in node.reputation.peers.values():
        record.standing, record.score = "suspect", ReputationParams().threshold / 2
    net.run(ANCHOR + 700)
    assert not node.rounds.behind and node.rounds.moment.number - node.rounds.merged <= 2
    assert all(node.reputation.standing(member) == "trusted" for member in net.ids[1:]) and not quarantined(net)


def test_who_was_away_does_not_hold_against_trusted_members_that_they_are_far_at_first():
    net = network(5, calendar=Calendar(ANCHOR, 3600, 100, 10.0))
    net.run(ANCHOR + 145)
    node = net.nodes[net.ids[0]]
    node.reputation.peers[net.ids[4]].standing = "suspect"
    node.rounds._caught_up()
    assert node.reputation._apart == dict.fromkeys(net.ids[1:4], ReputationParams().recent)


@pytest.mark.parametrize(("reached", "now", "nobody"), [(31, 32, False), (24, 30, True), (30, 31, True)])
def test_that_nobody_has_published_shows_after_some_rounds_or_a_rest(reached, now, nobody):
    net = network(3, calendar=RESTING)
    net.run(ANCHOR + 95)
    catch_up = net.nodes[net.ids[0]].rounds.catch_up
    catch_up._reached_since = reached
    assert catch_up.nobody(now) == nobody


def test_who_published_long_ago_only_does_not_make_others_follow_models_as_old():
    """Three have gone on, two others listen since round 4: all that they say they have published is as old."""
    net = network(5, calendar=Calendar(ANCHOR, 3600, 100, 10.0))
    net.run(ANCHOR + 45)
    for i in (3, 4):
        net.nodes[net.ids[i]].rounds._listening = True
    net.crash(0)
    net.crash(1)
    net.run(ANCHOR + 205)
    net.start(0)
    net.run(ANCHOR + 221)
    node = net.nodes[net.ids[0]].rounds
    followed = node.catch_up.trusted(node.moment.number)
    assert {slot.update.statement.sender for slot in followed} == {net.ids[2]}
    assert node.catch_up.reference > 15


def test_who_never_trained_is_near_once_it_is_as_near_as_the_others_are():
    net = network(5, calendar=Calendar(ANCHOR, 3600, 100, 10.0))
    net.run(ANCHOR + 145)
    node = net.nodes[net.ids[0]]
    slots = node.rounds.catch_up.trusted(node.rounds.moment.number)
    node.reputation.yardstick.training.moved = None
    assert node.rounds.catch_up.near(node.rounds.vector, slots)
    assert not node.rounds.catch_up.near(node.rounds.vector + np.float32(1), slots)
    assert not node.rounds.catch_up.near(node.rounds.vector, slots[:1]), "one alone tells nothing"
