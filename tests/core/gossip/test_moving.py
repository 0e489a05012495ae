"""Who is far from models that agree moves to them: nobody else, and no farther than these models allow."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from p2pfed.core.aggregation import coordinate_median
from p2pfed.core.events import MovedToOthers
from p2pfed.core.gossip.calendar import Calendar
from p2pfed.core.gossip.catch_up import Stage
from p2pfed.core.merging import HALFWAY, STRIDE
from p2pfed.core.types import PeerState
from tests.core.gossip.test_cycles import network, quarantined, told

ANCHOR = 100


def away(node, units: float) -> np.ndarray:
    """A model so far from the node's own, in what a round of training moves it."""
    own = node.rounds.vector
    step = np.random.default_rng(1).standard_normal(len(own)).astype(np.float32)
    unit = node.reputation.yardstick.training.unit(own)
    return own + np.float32(units * unit / np.linalg.norm(step)) * step


def test_who_is_far_from_others_that_agree_moves_to_them_and_nobody_takes_it_for_one_that_poisons():
    net = network(6, calendar=Calendar(ANCHOR, 3600, 100, 10.0))
    net.run(ANCHOR + 145)
    assert not any(told(net, i, MovedToOthers) for i in range(6)), "models that are as far apart as usual are merged"
    node = net.nodes[net.ids[0]]
    node.rounds.vector = away(node, 40.0)
    net.run(ANCHOR + 245)
    moved = told(net, 0, MovedToOthers)
    assert moved and moved[0].sources == 5 and moved[0].displacement > 0
    assert len(moved) < 9 and not any(told(net, i, MovedToOthers) for i in range(1, 6))
    mine = [
        node.reputation.yardstick.distances(node.rounds.vector, [net.nodes[me].rounds.vector]) for me in net.ids[1:]
    ]
    assert max(mine)[0] < 4 and not quarantined(net)


def test_old_models_show_nobody_to_be_far():
    """Whoever hears nothing newer has gone on, and they have not."""
    net = network(5, calendar=Calendar(ANCHOR, 3600, 100, 10.0))
    net.run(ANCHOR + 145)
    node = net.nodes[net.ids[0]]
    catch_up, number, far = node.rounds.catch_up, node.rounds.moment.number, away(node, 40.0)
    assert catch_up.far_from(far, number) and not catch_up.far_from(far, number + 4)


@pytest.mark.parametrize(("units", "resting"), [(0.5, False), (40.0, True)])
def test_who_is_behind_goes_all_the_way_to_others_that_are_close_or_rest(units, resting):
    """With half the way to others that go on it would stay one round of theirs away for ever."""
    net = network(5, calendar=Calendar(ANCHOR, 3600, 100, 10.0))
    net.run(ANCHOR + 145)
    node = net.nodes[net.ids[0]].rounds
    node.catch_up.stage, node.vector = Stage.BEHIND, away(net.nodes[net.ids[0]], units)
    sources = node.catch_up.approached(number := node.moment.number)
    if resting:
        node.moment = replace(node.moment, round=0)
    merge = node._merge(number)
    np.testing.assert_allclose(
        merge.vector, coordinate_median([s.update.vector for s in sources]), rtol=1e-5, atol=1e-6
    )
    assert node.catch_up.stage is Stage.PROVING


def test_two_others_show_who_is_far_only_if_they_agree(monkeypatch):
    net = network(3, calendar=Calendar(ANCHOR, 3600, 100, 10.0))
    net.run(ANCHOR + 145)
    node = net.nodes[net.ids[0]]
    catch_up, number, far = node.rounds.catch_up, node.rounds.moment.number, away(node, 40.0)
    one, two = catch_up.trusted(number)
    assert catch_up.far_from(far, number) == [one, two] and not catch_up.far_from(node.rounds.vector, number)
    another = replace(two, update=replace(two.update, vector=2 * node.rounds.vector - far))
    monkeypatch.setattr(catch_up, "trusted", lambda number: [one, another])
    assert not catch_up.far_from(far, number)


def test_copies_that_agree_make_nobody_far(monkeypatch):
    """Two of six others hand on one model: however near all are, it is that much nearer to itself."""
    net = network(7, calendar=Calendar(ANCHOR, 3600, 100, 10.0))
    net.run(ANCHOR + 145)
    node = net.nodes[net.ids[0]]
    catch_up, number = node.rounds.catch_up, node.rounds.moment.number
    slots = catch_up.trusted(number)
    middle = coordinate_median([slot.update.vector for slot in slots])
    copies = [replace(slot, update=replace(slot.update, vector=middle)) for slot in slots[:3]]
    monkeypatch.setattr(catch_up, "trusted", lambda number: [*copies, *slots[3:]])
    assert not catch_up.far_from(away(node, 2.0), number)
    assert catch_up.far_from(away(node, 40.0), number)


def test_without_reputation_the_rule_alone_merges():
    net = network(6, calendar=Calendar(ANCHOR, 3600, 100, 10.0), reputation=False)
    net.run(ANCHOR + 145)
    node = net.nodes[net.ids[0]]
    node.rounds.vector = away(node, 40.0)
    net.run(ANCHOR + 245)
    assert not any(told(net, i, MovedToOthers) for i in range(6))


def test_who_proves_itself_and_is_far_all_the_same_moves_on():
    net = network(5, calendar=Calendar(ANCHOR, 3600, 100, 10.0))
    net.run(ANCHOR + 145)
    node = net.nodes[net.ids[0]]
    catch_up, number, far = node.rounds.catch_up, node.rounds.moment.number, away(node, 40.0)
    for stage, moves in [(Stage.PROVING, True), (Stage.BEHIND, False), (Stage.MEASURING, False)]:
        catch_up.stage = stage
        assert bool(catch_up.far_from(far, number)) == moves
    catch_up.stage, catch_up.reference = Stage.WITH_THE_OTHERS, 0
    assert catch_up.far_from(far, number)
    for peer in net.ids[1:4]:  # and while most others are lost it goes on by itself
        node.peers._heard[peer].state = PeerState.FAILED
    assert not catch_up.far_from(far, number)


def test_a_huge_model_leads_nobody_away():
    """Its square overflows float32; of two that differ, the way there is a few rounds of training a round."""
    net = network(3, calendar=Calendar(ANCHOR, 3600, 100, 10.0))
    net.run(ANCHOR + 145)
    node = net.nodes[net.ids[0]]
    own = node.rounds.vector
    one, two = node.rounds.catch_up.trusted(node.rounds.moment.number)
    huge = replace(two, update=replace(two.update, vector=np.full_like(own, 3e38)))
    merge, _ = node.rounds.merging.approach(own, [one, huge])
    unit = node.reputation.yardstick.training.unit(own)
    assert np.linalg.norm(merge.vector - own) <= STRIDE * unit * 1.01 and np.isfinite(merge.displacement)


@pytest.mark.parametrize(("models", "halfway"), [((1, 0), False), ((1, 1), True), ((1, 1, 0), True), ((1,), False)])
def test_an_approach_goes_half_the_way_only_to_models_that_agree(models, halfway):
    """Models far away in one direction, or (0) as far in another one."""
    net = network(5, calendar=Calendar(ANCHOR, 3600, 100, 10.0))
    net.run(ANCHOR + 145)
    node = net.nodes[net.ids[0]]
    own, merging = node.rounds.vector, node.rounds.merging
    there, elsewhere = away(node, 100.0), 2 * own - away(node, 100.0) * np.float32(1.0)
    slots = node.rounds.catch_up.trusted(node.rounds.moment.number)[: len(models)]
    slots = [
        replace(slot, update=replace(slot.update, vector=there if near else elsewhere + np.roll(there - own, 1)))
        for slot, near in zip(slots, models, strict=True)
    ]
    merge, arrived = merging.approach(own, slots)
    middle = float(np.linalg.norm(np.median([s.update.vector for s in slots], axis=0) - own))
    share = float(np.linalg.norm(merge.vector - own)) / middle
    stride = STRIDE * node.reputation.yardstick.training.unit(own) / middle
    assert share == pytest.approx(HALFWAY if halfway else stride, rel=1e-3) and not arrived
    assert merge.displacement == pytest.approx(share * middle, rel=1e-3)
