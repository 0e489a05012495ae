"""Exchanges to a quarantine are counted from the attack's first model on, not from when the two banks met."""

from p2pfed.sim.history import Encounters
from tests.sim.consortium import simulated


def test_models_are_counted_from_the_first_of_the_attack_on() -> None:
    encounters = Encounters({7: 30})
    encounters.accepted(0, 7, round_number=29, judged=20)
    assert encounters.since(0, 7, judged=21) == 0
    encounters.accepted(0, 7, round_number=31, judged=21)  # the 30th never came here
    encounters.accepted(0, 7, round_number=32, judged=22)
    encounters.accepted(0, 3, round_number=40, judged=9)  # honest
    assert [encounters.since(0, 7, judged) for judged in (21, 22, 25)] == [0, 1, 4]
    assert encounters.since(1, 7, judged=30) == encounters.since(0, 3, judged=12) == 0
    assert encounters.all(lambda who, whom: 26) == {(0, 7): 5}


def test_honest_rounds_of_an_attacker_count_once_its_attack_has_begun() -> None:
    encounters = Encounters({7: 1})
    for round_number in range(1, 7):
        encounters.accepted(0, 7, round_number, judged=round_number - 1)
    assert encounters.since(0, 7, judged=6) == 6


def test_a_simulation_counts_what_each_bank_has_judged_since_the_attack_began() -> None:
    attackers = [{"kind": "signflip", "nodes": ["bank-2"], "start": 11, "scale": 3.0}]
    history = simulated(rounds=24, attackers=attackers, gossip={"topology": "full"})
    honest = [0, 2, 3, 4, 5]
    assert sorted(history.since_attack) == [(observer, 1) for observer in honest]
    told = [s for s in history.standing if s.subject == 1 and s.observer in honest and s.what == "quarantined"]
    assert {s.observer for s in told} == set(honest)
    for s in told:
        assert s.since_attack == s.exchange - 10  # of a full graph every model is judged, the ten honest ones too
        assert 4 <= s.since_attack <= 6 <= history.since_attack[s.observer, 1] <= 14
    assert all(s.since_attack == 0 for s in history.standing if s.subject != 1)
