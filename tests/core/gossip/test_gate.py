"""When the gate takes it that rows have chosen before."""

from __future__ import annotations

from typing import Any

import numpy as np

from p2pfed.core.effects import KeepModel
from p2pfed.core.gossip.gate import CHAMPION, MERGED, Gate
from p2pfed.core.inputs import EvaluationFinished

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
    gate = Gate("mlp", None, None)
    assert decided(gate, 0, 0.5)
    assert not decided(gate, 1, 0.55, 0.5)
    assert decided(gate, 2, 0.61, 0.5)
    assert not decided(gate, 3, 0.65, 0.61)
    assert decided(gate, 4, 0.605, 0.608, loss=0.11)


def test_what_a_cycle_measured_on_its_way_is_of_no_earlier_cycle() -> None:
    gate = Gate("mlp", None, None)
    assert gate.first(0, 10, VECTOR, finished("round:10", 0.5), 0.0)
    assert decided(gate, 0, 0.51, 0.5)


def test_where_more_banks_take_part_the_same_rows_may_choose_again() -> None:
    gate = Gate("mlp", None, None)
    gate.sources.update(["a", "b"])
    assert decided(gate, 0, 0.5) and gate.champion is not None and gate.champion.sources == 2
    gate.sources.clear()
    gate.sources.add("c")
    assert not decided(gate, 1, 0.51, 0.5)
    gate.sources.update(["a", "b"])
    assert decided(gate, 1, 0.51, 0.5)


def test_once_a_cycle_is_decided_nothing_of_it_takes_the_place_of_what_serves() -> None:
    """A median that is adopted in the rest was measured on rows of another time than what serves was."""
    gate = Gate("mlp", None, None)
    assert decided(gate, 0, 0.5)
    assert gate.first(0, 10, VECTOR, finished("catch_up:median", 0.9), 0.0) == []


def test_the_best_of_autoencoders_has_the_least_loss_whatever_its_auprc() -> None:
    gate = Gate("autoencoder", None, None)
    assert decided(gate, 0, 0.9)
    assert decided(gate, 1, 0.5, 0.9) and gate.best is gate.champion
    gate.begin(2, 2, VECTOR, 0.0)
    gate.measured(finished(MERGED, 0.9, loss=0.102), 0.0)
    gate.measured(finished(CHAMPION, 0.5, loss=0.1), 0.0)
    assert gate.champion is not None and gate.champion.cycle == 2
    assert gate.best is not None and gate.best.cycle == 1, "it serves, being hardly worse, and is not the best"


def test_on_its_way_a_cycle_compares_autoencoders_by_their_loss() -> None:
    gate = Gate("autoencoder", None, None)
    assert gate.first(0, 10, VECTOR, finished("round:10", 0.5, loss=0.5), 0.0)
    assert gate.first(0, 20, VECTOR, finished("round:20", 0.9, loss=5.0), 0.0) == []


def test_without_any_fraud_the_newest_model_serves_on_its_way() -> None:
    """Nothing tells good from bad: the loss on legitimate rows alone is least for one that never says fraud."""
    gate = Gate("mlp", None, None)
    for number, loss in enumerate((0.01, 0.05, 0.04), start=1):
        done = EvaluationFinished("round", {"validation": {"loss": loss, "frauds": 0}}, 0.5)
        assert gate.first(0, number, VECTOR, done, 0.0)
    assert gate.champion is not None and gate.champion.round == 3
