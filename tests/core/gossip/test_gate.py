"""When the gate takes it that rows have chosen before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from p2pfed.core.effects import KeepModel, StartEvaluation
from p2pfed.core.gossip.gate import CHAMPION, MERGED, Gate
from p2pfed.core.inputs import EvaluationFinished
from p2pfed.core.types import DAY

VECTOR = np.zeros(3, np.float32)


def finished(purpose: str, auprc: float, loss: float = 0.1) -> EvaluationFinished:
    validation: dict[str, Any] = {"auprc": auprc, "loss": loss, "confusion": [[900, 0], [25, 25]]}
    return EvaluationFinished(purpose, {"validation": validation}, 0.5)


def decided(gate: Gate, cycle: int, merged: float, champion: float | None = None, loss: float = 0.1) -> bool:
    """Whether the model of a cycle serves; the champion's figures on the rows of now, all before it were worse."""
    effects = []
    for asked in gate.begin(cycle, cycle, VECTOR, 0.0):
        assert isinstance(asked, StartEvaluation)
        name = asked.purpose.removeprefix(f"gate:{cycle}:")
        of_champion = finished(asked.purpose, champion or 0.0, loss)
        others = {MERGED: finished(asked.purpose, merged), CHAMPION: of_champion}
        effects = gate.measured(others.get(name, finished(asked.purpose, 0.1, 0.5)), 0.0)
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
    figures = {0: (0.9, 0.11), 1: (0.5, 0.1), 2: (0.9, 0.102), 3: (0.9, 0.1015), 4: (0.9, 0.1115)}
    assert days(gate, figures, every=10 * DAY) == [0, 1, 2, 3, 3]
    assert [kept.cycle for kept in gate.bests] == [0, 1, 2]


def days(gate: Gate, figures: Mapping[int, tuple[float, float]], every: float = DAY, begin: int = 0) -> list[int]:
    """Let the models of cycles be measured, each with the same AUPRC and, nearly, loss; whose serve then.

    Every time the rows are others.
    """
    served = []
    for cycle in range(begin, len(figures)):
        wall = cycle * every
        for effect in gate.begin(cycle, cycle, np.full(3, cycle, np.float32), wall):
            assert isinstance(effect, StartEvaluation)
            auprc, loss = figures[int(effect.vector[0])]
            gate.measured(finished(effect.purpose, auprc, loss - cycle / 1e5), wall)
        assert gate.champion is not None and gate.deciding is None
        served.append(gate.champion.cycle)
    return served


def falling(*auprc: float) -> dict[int, tuple[float, float]]:
    """Figures of models one after another."""
    return dict(enumerate((one, 1 - one) for one in auprc))


def test_once_the_best_is_older_than_90_days_the_best_of_those_since_then_takes_its_place() -> None:
    """One comes every thirty days, and the fifth is hardly worse than what serves, but than the second."""
    came = falling(0.700, 0.697, 0.694, 0.6905, 0.686)
    gate = Gate("mlp", None)
    assert days(gate, came, 30 * DAY) == [0, 1, 2, 3, 3]
    gate = Gate("mlp", None)
    days(gate, falling(0.700, 0.697, 0.694, 0.6905), 30 * DAY)
    assert days(Gate("mlp", gate.champion, gate.bests), came, 30 * DAY, begin=4) == [3], "so it is after a restart"
    assert days(Gate("mlp", gate.champion), came, 30 * DAY, begin=4) == [4]


@given(st.lists(st.tuples(st.floats(0.6, 0.64), st.integers(1, 20)), min_size=2, max_size=40), st.booleans())
def test_what_serves_is_never_worse_than_the_best_of_90_days_allows(came: list[tuple[float, int]], few: bool) -> None:
    """However cycles follow each other; to ten days, for of these the second best is forgotten."""
    gate, day, confirmed = Gate("mlp", None), 0, list[tuple[int, float]]()
    qualities = {cycle: quality for cycle, (quality, _) in enumerate(came)}
    for cycle, (quality, days_on) in enumerate(came):
        day += days_on
        before = gate.champion
        for effect in gate.begin(cycle, cycle, np.full(3, cycle, np.float32), day * DAY):
            assert isinstance(effect, StartEvaluation)
            mine = qualities[int(effect.vector[0])]
            row = {"auprc": mine, "loss": 1 - mine, "frauds": 9 if few else 50, "alert_rate": 0.01}
            gate.measured(EvaluationFinished(effect.purpose, {"validation": row}, 0.5), day * DAY)
        served = gate.champion
        assert served is not None
        if before is None:
            continue
        its = qualities[before.cycle]
        # few frauds leave it to the loss, which may be larger by a tenth of itself
        slack, less = (0.1 * (1 - quality), 0.05 * (1 - quality)) if few else (0.01, 0.005)
        if served is not before:
            confirmed.append((int(before.since // DAY), its))
            young = [of for since, of in confirmed if day - since <= 80]
            assert quality >= max(young, default=0.0) - slack - 1e-9
        elif quality >= its - less * 0.9 and not few:
            rows_again = quality < its + 0.2  # equal figures of the champion are equal rows
            young = [of for since, of in confirmed if day - since <= 90]
            assert rows_again or quality < max(young) - slack + 1e-9


def test_a_day_without_frauds_forgets_no_best() -> None:
    gate = Gate("mlp", None)
    days(gate, falling(0.700, 0.697))
    for effect in gate.begin(2, 2, VECTOR, 2 * DAY):
        assert isinstance(effect, StartEvaluation)
        row = {"auprc": None, "loss": 0.1, "frauds": 0}
        gate.measured(EvaluationFinished(effect.purpose, {"validation": row}, 0.5), 2 * DAY)
    assert gate.champion is not None and gate.champion.cycle == 2, "unchecked"
    assert [kept.cycle for kept in gate.bests] == [0]


def test_a_clock_that_is_wrong_once_forgets_no_best() -> None:
    gate = Gate("mlp", None)
    days(gate, falling(0.700, 0.697))
    ahead = 400 * DAY
    for effect in gate.begin(2, 2, np.full(3, 2, np.float32), ahead):
        assert isinstance(effect, StartEvaluation)
        gate.measured(finished(effect.purpose, 0.694, loss=0.4), ahead)
    assert gate.champion is not None and gate.champion.since == ahead
    days(gate, falling(0.700, 0.697, 0.694, 0.6935), begin=3)
    assert gate.champion.cycle == 3 and [kept.cycle for kept in gate.bests] == [0, 2]
    asked = [e.purpose for e in gate.begin(4, 4, VECTOR, 4 * DAY) if isinstance(e, StartEvaluation)]
    assert asked == ["gate:4:merged", "gate:4:champion", "gate:4:0.0"], "of 2 nobody knows how old it is"


def test_a_model_of_the_way_that_is_measured_late_makes_the_gate_wait_for_nothing() -> None:
    gate = Gate("mlp", None)
    gate.begin(0, 20, VECTOR, 0.0)
    assert gate.first(0, 19, VECTOR, finished("round:19", 0.9), 0.0) == []
    assert gate.measured(finished(f"gate:0:{MERGED}", 0.5), 0.0) and gate.deciding is None


def test_measurements_of_another_cycle_count_nothing() -> None:
    gate = Gate("mlp", None)
    gate.begin(0, 20, VECTOR, 0.0)
    gate.drop()
    gate.begin(1, 40, VECTOR, 0.0)
    assert gate.measured(finished(f"gate:0:{MERGED}", 0.9), 0.0) == []
    assert gate.measured(finished("gate:1:0.20", 0.9), 0.0) == []
    assert gate.measured(finished(f"gate:1:{MERGED}", 0.5), 0.0)


def test_what_a_cycle_chose_on_its_way_is_no_best_until_an_end_confirms_it() -> None:
    gate = Gate("mlp", None)
    assert gate.first(0, 10, VECTOR, finished("round:10", 0.504), 0.0)
    assert decided(gate, 0, 0.5, 0.504) and not gate.bests
    gate = Gate("mlp", None)
    assert gate.first(0, 10, VECTOR, finished("round:10", 0.504), 0.0)
    assert not decided(gate, 0, 0.4, 0.504)
    assert decided(gate, 1, 0.5, 0.504, loss=0.2) and [kept.round for kept in gate.bests] == [10]
