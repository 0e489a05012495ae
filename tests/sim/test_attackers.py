"""Attackers among simulated banks: none of them breaks anything, and honest banks know of them what they can."""

from dataclasses import replace
from typing import Any

import pytest

from p2pfed.adversary.attacks import ATTACKS
from p2pfed.core.types import Reason
from p2pfed.learning.learner import StackedBank
from p2pfed.learning.numpy_learner import NumpyLearner
from p2pfed.learning.one_by_one import OneByOne
from p2pfed.sim.engine import Engine
from p2pfed.sim.history import DONE
from tests.sim.consortium import population, scenario, simulated

REFUSED = {
    "forged": Reason.FORGED_SIGNATURE,
    "replay": Reason.UNRELATED_ANSWER,
    "wrong_schema": Reason.WRONG_SCHEMA,
    "flooding": Reason.NOT_ASKED,
}


@pytest.mark.parametrize("kind", [*sorted(ATTACKS), "duty:1:5"])
def test_whatever_attackers_do_everybody_does_its_rounds(kind: str) -> None:
    attackers: list[dict[str, Any]] = [{"kind": kind, "nodes": ["bank-2", "bank-5"]}]
    if kind == "flooding":  # hundreds of pushes a round
        attackers[0]["start"] = 5
    history = simulated(
        seed=1, attackers=attackers, dial_out=["bank-5"], outages=[{"nodes": ["bank-2"], "start": 8, "end": 12}]
    )
    assert history.ended == DONE
    assert [node.rounds for node in history.run.nodes] == [5] * 6
    assert {node.name for node in history.run.nodes if node.role == "attacker"} == {"bank-2", "bank-5"}
    refusals = {line.rpartition(": ")[2] for line in history.transcript if " refuses " in line}
    if kind in REFUSED:
        assert REFUSED[kind].sentence in refusals
    proven = [line for line in history.transcript if "proven: " in line]
    assert bool(proven) == (kind == "equivocation")  # whoever makes a model for each asker never reuses a number
    judged = {line.split(" takes ")[1].split()[0] for line in history.transcript if "for quarantined" in line}
    assert judged <= {"bank-2", "bank-5"}
    assert judged >= {q.subject for q in history.run.quarantines}
    assert {q.observer for q in history.run.quarantines}.isdisjoint({"bank-2", "bank-5"})


def test_equivocators_are_convicted_by_every_honest_bank() -> None:
    history = simulated(
        attackers=[{"kind": "equivocation", "nodes": ["bank-2", "bank-5"]}], gossip={"topology": "full"}
    )
    convicted = {tuple(line.split()[1:4:2]) for line in history.transcript if "quarantined: proven: " in line}
    honest = [f"bank-{i}" for i in (1, 3, 4, 6)]
    assert {(who, subject) for who, subject in convicted if who in honest} == {
        (who, subject) for who in honest for subject in ("bank-2", "bank-5")
    }


def test_the_same_seed_gives_the_same_attack() -> None:
    attackers = [{"kind": "adaptive_max", "nodes": ["bank-2"]}, {"kind": "near_echo", "nodes": 2}]
    one, again = (simulated(seed=3, attackers=attackers) for _ in range(2))
    assert one.digest == again.digest and one.transcript == again.transcript


@pytest.mark.parametrize("kind", ["labelflip", "fraudblind", "backdoor", "adaptive_labelflip"])
def test_only_attackers_train_on_poisoned_rows(kind: str) -> None:
    poisoned = population(scenario(attackers=[{"kind": kind, "nodes": ["bank-3"]}]))
    clean = population(scenario())
    for i, (one, other) in enumerate(zip(poisoned.banks, clean.banks, strict=True)):
        same = one.rows.train.labels.tolist() == other.rows.train.labels.tolist()
        assert same == (i != 2)
        assert one.rows.validation.labels.tolist() == other.rows.validation.labels.tolist()
    assert poisoned.train_frauds == clean.train_frauds  # it says what it had


def test_rows_that_are_read_anew_are_poisoned_too_and_the_attacker_says_what_it_had() -> None:
    calendar = {"every_seconds": 300, "rounds": 5, "round_seconds": 20, "cycles": 2}
    s = scenario(calendar=calendar, attackers=[{"kind": "fraudblind", "nodes": ["bank-3"]}])
    clean = population(scenario()).banks
    people = replace(population(s), rows_at=lambda bank, begins: clean[bank].rows)
    read = people.reading(2, 1)
    assert read is not None and read[0].train.frauds > 0 == read[1].rows.train.frauds

    def make(bank: StackedBank) -> NumpyLearner:
        return NumpyLearner(people.manifest.model, people.manifest.training, bank.rows, bank.threshold, seed=bank.seed)

    history = Engine(people, s, OneByOne([make(bank) for bank in people.banks], make)).run()
    assert [node.train_frauds for node in history.run.nodes] == [bank.rows.train.frauds for bank in clean]
    assert sum(count for (_, whom), count in history.pulls.items() if whom == 2) > 0  # who has none publishes nothing
