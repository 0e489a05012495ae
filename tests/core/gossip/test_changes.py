"""A manifest that changes what is trained, how or when, followed by running nodes from its cycle on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from p2pfed.core.consortium import Manifest
from p2pfed.core.effects import CloseTrainer
from p2pfed.core.events import CycleBegun, ModelPromoted, RoundCompleted, StandingChanged, UpdateRefused
from p2pfed.core.gossip.calendar import Calendar
from p2pfed.core.inputs import ManifestChanged
from p2pfed.core.messages import ModelUpdate
from p2pfed.core.model import ModelSpec
from p2pfed.core.succession import InForce, change_problems, in_force, last_trained
from p2pfed.core.trust import trust_in
from p2pfed.core.types import Reason, Verdict
from p2pfed.core.wire import own_statement
from tests.core.gossip.test_cycles import ANCHOR, DAILY, FIRST_REST, problems, quarantined, rounds, told
from tests.core.gossip.test_health import counted, served
from tests.core.heap import MODEL, Network, make_manifest, opened

CYCLE = 7
BEGINS = DAILY.begins(CYCLE)
LARGER = ModelSpec("mlp", MODEL.inputs, (9,), 0.0)


def network(n: int, until: float) -> Network:
    made = Network(replace(make_manifest(n), calendar=DAILY), rounds=0)
    made.training_seconds = 3.0
    for i in range(n):
        made.start(i)
    made.run(until)
    return made


def following(old: Manifest, **changes: Any) -> Manifest:
    """The next version, which `succession` allows."""
    new = replace(old, **{"version": old.version + 1, "previous": "00" * 32, "issued": ANCHOR + 1, **changes})
    assert change_problems(old, new) == []
    return new


def other_model(old: Manifest, model: ModelSpec = LARGER, cycle: int = CYCLE) -> Manifest:
    begun = {"generation": old.generation + 1, "from_cycle": cycle, "generation_cycle": cycle}
    return following(old, model=model, initial_sha256=model.initial_weights(old.seed).digest, **begun)


def everybody_learns(net: Network, *versions: Manifest) -> None:
    for i in range(len(net.ids)):
        net.learn(i, *versions)


def refused(net: Network, i: int) -> set[Reason]:
    return {event.reason for event in told(net, i, UpdateRefused)}


def costly(net: Network) -> set[Reason]:
    """Why anybody was refused at a cost."""
    return {r for i in range(len(net.ids)) for r in refused(net, i) if r.verdict is Verdict.REJECT}


# --- the model --------------------------------------------------------------------------------------------------------


def test_all_train_a_new_model_from_its_initial_weights_when_its_cycle_begins() -> None:
    net = network(4, until=FIRST_REST + 100)
    new = other_model(net.manifest)
    everybody_learns(net, new)
    net.run(BEGINS - 0.5)
    old = [node.rounds for node in net.nodes.values()]
    assert {r.vector.size for r in old} == {MODEL.schema().size} and rounds(net, 0)[-1] == CYCLE * 20
    assert {node.manifest.version for node in net.nodes.values()} == {2}
    served = [r.gate.champion for r in old]
    seqs = [r.seq for r in old]
    net.run(BEGINS + 2.5)
    for node, seq in zip(net.nodes.values(), seqs, strict=True):
        assert np.array_equal(node.rounds.vector, new.initial.vector)
        assert node.rounds.optimiser == b"" and node.rounds.seq == seq and node.updates.slots() == []
        assert node.reputation.yardstick.training.moved is None
        assert node.rounds.merging.rule._training is node.reputation.yardstick.training
    assert not any(net.shelves[member] for member in net.ids)
    net.run(BEGINS + 100.5)
    for i in range(4):
        assert rounds(net, i)[-10:] == list(range(CYCLE * 20 + 1, CYCLE * 20 + 11))
        assert all(len(e.merged) == 3 for e in told(net, i, RoundCompleted)[-9:])
        assert net.nodes[net.ids[i]].rounds.gate.champion is served[i], "what served before serves on until the gate"
    net.run(BEGINS + 250)
    for i in range(4):
        last = told(net, i, ModelPromoted)[-1]
        assert last.cycle == CYCLE and "first of a new model" in last.why
        assert net.nodes[net.ids[i]].rounds.gate.champion.vector.size == LARGER.schema().size
    net.run(BEGINS + 1250)
    assert "before" in told(net, 0, ModelPromoted)[-1].why and rounds(net, 0)[-1] == (CYCLE + 2) * 20
    assert not quarantined(net) and not costly(net)


def test_payments_counted_under_the_model_before_are_not_counted_again() -> None:
    net = network(2, until=FIRST_REST + 100)
    everybody_learns(net, other_model(net.manifest))
    net.run(BEGINS - 0.5)
    before = net.nodes[net.ids[0]].rounds
    assert counted(before.health.served(served(3, 0.5)))
    net.run(BEGINS + 2.5)
    now = net.nodes[net.ids[0]].rounds
    assert now is not before and not now.health.served(served(3, 0.5)), "what a trainer reads that began before"
    assert counted(now.health.served(served(4, 0.5)))


def test_who_learns_late_ignores_the_others_and_is_ignored_and_nobody_is_punished() -> None:
    net = network(4, until=FIRST_REST + 100)
    new = other_model(net.manifest)
    for i in range(3):
        net.learn(i, new)
    net.nodes[net.ids[3]].presence._newer_manifest = lambda via, now: []  # type: ignore[method-assign]
    net.run(BEGINS + 100)
    assert net.nodes[net.ids[3]].rounds.vector.size == MODEL.schema().size
    assert net.nodes[net.ids[0]].rounds.vector.size == LARGER.schema().size
    assert Reason.OTHER_GENERATION in refused(net, 3) and not costly(net) and not quarantined(net)
    del net.nodes[net.ids[3]].presence._newer_manifest
    net.run(BEGINS + 250)
    late = net.nodes[net.ids[3]]
    assert late.manifest == new and late.rounds.vector.size == LARGER.schema().size
    net.run(BEGINS + 1250)
    assert rounds(net, 3)[-20:] == rounds(net, 0)[-20:] and problems(net, 3) == set()
    assert all(len(e.merged) == 3 for e in told(net, 3, RoundCompleted)[-10:])
    assert not costly(net) and not quarantined(net)


def test_clocks_that_differ_by_seconds_cost_nobody_anything_at_the_change() -> None:
    net = network(4, until=FIRST_REST + 100)
    net.clock[net.ids[0]], net.clock[net.ids[1]] = 4.0, -4.0
    everybody_learns(net, other_model(net.manifest))
    net.run(BEGINS + 250)
    assert not costly(net) and not quarantined(net)
    assert all(rounds(net, i)[-1] == (CYCLE + 1) * 20 for i in range(4))


def test_who_was_away_when_it_began_starts_with_the_new_model_and_catches_up() -> None:
    net = network(5, until=FIRST_REST + 100)
    everybody_learns(net, other_model(net.manifest))
    net.run(FIRST_REST + 200)
    net.crash(4)
    net.run(BEGINS + 95)
    node = net.start(4)
    assert np.array_equal(node.rounds.vector, node.manifest.initial.vector)
    net.run(BEGINS + 1250)
    assert rounds(net, 4)[-20:] == rounds(net, 0)[-20:] and problems(net, 4) == set()
    assert not costly(net) and not quarantined(net)


def test_who_restarts_before_the_change_goes_on_with_the_old_model() -> None:
    net = network(4, until=FIRST_REST + 100)
    everybody_learns(net, other_model(net.manifest))
    net.run(FIRST_REST + 200)
    before = net.nodes[net.ids[3]].rounds
    net.crash(3)
    after = net.start(3)
    assert np.array_equal(after.rounds.vector, before.vector) and after.rounds.seq == before.seq
    net.run(BEGINS + 100.5)
    assert rounds(net, 3) == rounds(net, 0) and not costly(net)


def test_a_clock_set_back_does_not_bring_the_old_model_back() -> None:
    net = network(4, until=FIRST_REST + 100)
    new = other_model(net.manifest)
    everybody_learns(net, new)
    net.run(BEGINS + 100)
    net.clock[net.ids[3]] = -3000.0
    net.run(BEGINS + 130)
    net.crash(3)
    node = net.start(3)
    assert node.manifest == new and not np.array_equal(node.rounds.vector, new.initial.vector)
    net.run(BEGINS + 500)
    assert not costly(net) and not quarantined(net)


def test_a_quarantine_for_models_ends_with_the_model_and_one_for_a_lie_does_not() -> None:
    net = network(4, until=BEGINS - 100)
    node = net.nodes[net.ids[0]]
    held, liar = net.ids[1], net.ids[2]
    for _ in range(3):
        node.reputation.offended(held, Reason.NOT_FINITE)
    node.reputation.convict(liar)
    assert node.reputation.quarantine == sorted([held, liar])
    everybody_learns(net, other_model(net.manifest))
    net.run(BEGINS + 5)
    assert node.reputation.quarantine == [liar]
    assert told(net, 0, StandingChanged)[-1].reason == "another model is trained now"


# --- what else changes ------------------------------------------------------------------------------------------------


def test_longer_rounds_begin_with_their_cycle_and_rounds_are_counted_on() -> None:
    net = network(3, until=FIRST_REST + 100)
    begun = {"anchor": int(BEGINS), "rounds": 10, "round_seconds": 40.0, "first": CYCLE, "before": CYCLE * 20}
    new = following(net.manifest, calendar=replace(DAILY, **begun), from_cycle=CYCLE)
    everybody_learns(net, new)
    net.run(BEGINS - 1)
    vectors = [node.rounds.vector for node in net.nodes.values()]
    net.run(BEGINS + 1)
    assert all(np.array_equal(n.rounds.vector, v) for n, v in zip(net.nodes.values(), vectors, strict=True))
    net.run(BEGINS + 81)
    for i in range(3):
        assert rounds(net, i)[-3:] == [CYCLE * 20, CYCLE * 20 + 1, CYCLE * 20 + 2]
        assert told(net, i, CycleBegun)[-1] == CycleBegun(CYCLE, 10, BEGINS + 400)
    net.run(BEGINS + 1000 + 401)
    assert all(rounds(net, i)[-1] == CYCLE * 20 + 20 and not problems(net, i) for i in range(3))
    assert all(len(e.merged) == 2 for e in told(net, 0, RoundCompleted)[-19:])


def test_a_rule_changes_where_cycles_follow_each_other_without_rest() -> None:
    dense = Calendar(ANCHOR, 200, 20, 10.0)
    net = Network(replace(make_manifest(3), calendar=dense), rounds=0)
    for i in range(3):
        net.start(i)
    net.run(ANCHOR + 150)
    new = following(net.manifest, gossip=replace(net.manifest.gossip, rule="median"), from_cycle=2)
    everybody_learns(net, new)
    net.run(ANCHOR + 399)
    assert {n.rounds.merging.rule.name for n in net.nodes.values()} == {"clip"}
    net.run(ANCHOR + 799)
    assert {n.rounds.merging.rule.name for n in net.nodes.values()} == {"median"}
    for i in range(3):
        assert rounds(net, i) == list(range(1, 80))
        assert [e.cycle for e in told(net, i, ModelPromoted) if "cycle's end decides" not in e.why][:2] == [0, 1]


def test_members_change_at_once_while_a_model_waits() -> None:
    net = network(4, until=FIRST_REST + 100)
    waiting = other_model(net.manifest)
    fewer = following(waiting, members=waiting.members[:3])
    for i in range(3):
        net.learn(i, waiting, fewer)
    net.run(FIRST_REST + 120)
    node = net.nodes[net.ids[0]]
    assert len(node.peers) == 2 and node.manifest.version == 3 and node.rounds.vector.size == MODEL.schema().size
    net.run(BEGINS + 30)
    assert node.rounds.vector.size == LARGER.schema().size and len(node.peers) == 2
    assert len(told(net, 0, RoundCompleted)[-1].merged) == 2


def test_a_removed_bank_closes_its_trainers() -> None:
    net = network(3, until=ANCHOR + 50)
    node = net.nodes[net.ids[0]]
    effects = node.handle(ManifestChanged(following(net.manifest, members=net.manifest.members[1:])), net.now)
    [closed] = [e for e in effects if isinstance(e, CloseTrainer)]
    assert closed.cycle >= 1


# --- what is in force -------------------------------------------------------------------------------------------------


def test_what_is_in_force_follows_from_the_versions_and_the_clock() -> None:
    first = replace(make_manifest(3), calendar=DAILY)
    second = other_model(first)
    third = following(second, members=second.members[:2])
    versions = [first, second, third]
    early = in_force(versions, BEGINS - 1)
    assert early.coming == third and early.manifest.model == MODEL and early.manifest.members == third.members
    begun = in_force(versions, BEGINS)
    assert begun.manifest == third and begun.coming is None and begun.before and begun.before.model == MODEL
    assert in_force(versions, DAILY.begins(CYCLE + 1)) == InForce(third)
    assert in_force(versions, BEGINS - 1, second.model_digest).manifest == third
    assert in_force(versions, BEGINS - 1, first.model_digest) == early
    assert last_trained(versions) == 0 and last_trained(versions[1:]) == 0
    assert in_force([first], 0.0) == InForce(first)


@pytest.mark.parametrize(("at", "accepted"), [(BEGINS - 1, (MODEL, {1, 2})), (BEGINS, (LARGER, {2}))])
def test_updates_of_the_model_before_and_after_are_ignored_while_a_change_spreads(
    at: float, accepted: tuple[ModelSpec, set[int]]
) -> None:
    first = replace(make_manifest(3), calendar=DAILY)
    trust = trust_in(in_force([first, other_model(first)], at), first)
    assert (trust.manifest.model, trust.accepted_versions) == accepted and len(trust.other_models) == 1


def test_a_frame_of_another_generation_is_ignored_whatever_its_length_and_refused_when_the_change_is_over() -> None:
    net = network(3, until=BEGINS - 300)
    small = net.nodes[net.ids[0]].rounds.frame
    new = other_model(net.manifest)
    everybody_learns(net, new)
    net.run(BEGINS + 50)
    large = net.nodes[net.ids[0]].rounds.frame
    versions = [net.manifest, new]

    def reason(frame: bytes, at: float) -> Reason | None:
        update = opened(frame, trust_in(in_force(versions, at), net.manifest))
        return None if isinstance(update, ModelUpdate) else update.reason

    assert own_statement(large).manifest_version == 2
    assert reason(small, BEGINS - 1) is None and reason(large, BEGINS - 1) is Reason.OTHER_GENERATION
    assert reason(small, BEGINS) is Reason.OTHER_GENERATION and reason(large, BEGINS) is None
    assert reason(large, DAILY.begins(CYCLE + 1)) is None
