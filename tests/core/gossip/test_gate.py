"""When the gate takes it that rows have chosen before."""

from __future__ import annotations

from typing import Any

import numpy as np

from p2pfed.core.effects import KeepModel, StartEvaluation
from p2pfed.core.gossip.gate import CHAMPION, MERGED, Gate
from p2pfed.core.inputs import EvaluationFinished
from p2pfed.core.types import DAY

VECTOR = np.zeros(3, np.float32)


def finished(purpose: str, auprc: float, loss: float = 0.1) -> EvaluationFinished:
    validation: dict[str, Any] = {"auprc": auprc, "loss": loss, "confusion": [[900, 0], [25, 25]]}
    return EvaluationFinished(purpose, {"validation": validation}, 0.5)


def decided(gate: Gate, cycle: int, merged: float, champion: float | None = None, loss: float = 0.1) -> bool:
    """Whether the model of a cycle serves; the champion's figures on the rows of now."""
    gate.begin(cycle, cycle, VECTOR, 0.0)
    effects = gate.measured(finished(MERGED, merged), 0.0)
    if champion is not None:
        effects = gate.measured(finished(CHAMPION, champion, loss), 0.0)
    return any(isinstance(effect, KeepModel) for effect in effects)


def test_the_same_rows_ask_for_more_than_luck_and_others_do_not() -> None:
    gate = Gate("mlp", None)
    assert decided(gate, 0, 0.5)
    assert not decided(gate, 1, 0.55, 0.5)
    assert decided(gate, 2, 0.61, 0.5)
    assert not decided(gate, 3, 0.65, 0.61)
    assert decided(gate, 4, 0.605, 0.608, loss=0.11)


def test_what_a_cycle_measured_on_its_way_is_of_no_earlier_cycle() -> None:
    gate = Gate("mlp", None)
    assert gate.first(0, 10, VECTOR, finished("round:10", 0.5), 0.0)
    assert decided(gate, 0, 0.51, 0.5)


def test_where_more_banks_take_part_the_same_rows_may_choose_again() -> None:
    gate = Gate("mlp", None)
    gate.sources.update(["a", "b"])
    assert decided(gate, 0, 0.5) and gate.champion is not None and gate.champion.sources == 2
    gate.sources.clear()
    gate.sources.add("c")
    assert not decided(gate, 1, 0.51, 0.5)
    gate.sources.update(["a", "b"])
    assert decided(gate, 1, 0.51, 0.5)


def test_once_a_cycle_is_decided_nothing_of_it_takes_the_place_of_what_serves() -> None:
    """A median that is adopted in the rest was measured on rows of another time than what serves was."""
    gate = Gate("mlp", None)
    assert decided(gate, 0, 0.5)
    assert gate.first(0, 10, VECTOR, finished("catch_up:median", 0.9), 0.0) == []


def test_the_best_of_autoencoders_has_the_least_loss_whatever_its_auprc() -> None:
    gate = Gate("autoencoder", None)
    assert decided(gate, 0, 0.9)
    assert decided(gate, 1, 0.5, 0.9) and not gate.leaders
    gate.begin(2, 2, VECTOR, 0.0)
    gate.measured(finished(MERGED, 0.9, loss=0.102), 0.0)
    gate.measured(finished(CHAMPION, 0.5, loss=0.1), 0.0)
    assert gate.champion is not None and gate.champion.cycle == 2
    assert [kept.cycle for kept in gate.leaders] == [1], "it serves, being hardly worse, and is not the best"


def days(gate: Gate, *auprc: float, begin: int = 0, every: float = 30 * DAY) -> list[int]:
    """Let models of cycles that follow each other be measured, each always alike; which cycles' models served."""
    known, served = dict(enumerate(auprc)), []
    for cycle in list(known)[begin:]:
        wall, loss = cycle * every, 1.0 - cycle / 100  # other rows every time
        asked = gate.begin(cycle, cycle, np.full(3, cycle, np.float32), wall)
        for effect in asked:
            assert isinstance(effect, StartEvaluation)
            gate.measured(finished(effect.purpose, known[int(effect.vector[0])], loss), wall)
        assert gate.champion is not None and gate.deciding is None
        served.append(gate.champion.cycle)
    return served


def test_once_the_best_is_older_than_90_days_the_best_of_those_since_then_takes_its_place() -> None:
    """One comes every thirty days, and the fifth is hardly worse than what serves, but than the second."""
    came = (0.700, 0.697, 0.694, 0.6905, 0.686)
    gate = Gate("mlp", None)
    assert days(gate, *came) == [0, 1, 2, 3, 3]
    assert [kept.cycle for kept in gate.leaders] == [1, 2], "the first is 120 days old"
    days(gate := Gate("mlp", None), *came[:4])
    assert days(Gate("mlp", gate.champion, gate.leaders), *came, begin=4) == [3], "so it is after a restart"
    assert days(Gate("mlp", gate.champion), *came, begin=4) == [4]


def test_what_was_better_leads_no_more_once_it_is_worse_on_the_rows_of_now() -> None:
    gate = Gate("mlp", None)
    days(gate, 0.700, 0.697, 0.694, every=DAY)
    assert [kept.cycle for kept in gate.leaders] == [0, 1]
    for effect in gate.begin(3, 3, VECTOR, 3 * DAY):
        assert isinstance(effect, StartEvaluation)
        now = {MERGED: 0.6, CHAMPION: 0.601}.get(effect.purpose, 0.5)
        gate.measured(finished(effect.purpose, now, loss=0.2), 3 * DAY)
    assert gate.champion is not None and gate.champion.cycle == 3
    assert [kept.cycle for kept in gate.leaders] == [2]


def test_what_a_cycle_chose_on_its_way_is_no_best_until_an_end_confirms_it() -> None:
    gate = Gate("mlp", None)
    assert gate.first(0, 10, VECTOR, finished("round:10", 0.504), 0.0)
    assert decided(gate, 0, 0.5, 0.504) and not gate.leaders
    gate = Gate("mlp", None)
    assert gate.first(0, 10, VECTOR, finished("round:10", 0.504), 0.0)
    assert not decided(gate, 0, 0.4, 0.504)
    assert decided(gate, 1, 0.5, 0.504, loss=0.2) and [kept.round for kept in gate.leaders] == [10]


def test_on_its_way_a_cycle_compares_autoencoders_by_their_loss() -> None:
    gate = Gate("autoencoder", None)
    assert gate.first(0, 10, VECTOR, finished("round:10", 0.5, loss=0.5), 0.0)
    assert gate.first(0, 20, VECTOR, finished("round:20", 0.9, loss=5.0), 0.0) == []


def test_without_any_fraud_the_newest_model_serves_on_its_way() -> None:
    """Nothing tells good from bad: the loss on legitimate rows alone is least for one that never says fraud."""
    gate = Gate("mlp", None)
    for number, loss in enumerate((0.01, 0.05, 0.04), start=1):
        done = EvaluationFinished("round", {"validation": {"loss": loss, "frauds": 0}}, 0.5)
        assert gate.first(0, number, VECTOR, done, 0.0)
    assert gate.champion is not None and gate.champion.round == 3
