"""What a bank is told of its own rows: columns that lie elsewhere, labels that nobody else's models understand."""

from __future__ import annotations

import numpy as np
import pytest

from p2pfed.core import misfit
from p2pfed.core.contract import FeatureColumn, FeatureContract, Moments
from p2pfed.core.effects import Effect, Emit
from p2pfed.core.events import ProblemCleared, ProblemRaised
from p2pfed.core.inputs import TrainerReady
from p2pfed.core.model import ModelSpec
from p2pfed.core.probe import Probe
from p2pfed.core.problems import Problems
from p2pfed.core.weights import Vector
from tests.core.heap import WIDTH, started

COLUMNS = (
    FeatureColumn("amount", "numeric", (), "none"),
    FeatureColumn("channel", "categorical", ("web", "shop"), "none"),
    FeatureColumn("age", "numeric", (), "none"),
)
CONTRACT = FeatureContract(COLUMNS, "fraud", "contract", Moments((0.0, 0.0), (1.0, 1.0)), 10.0)
SPEC = ModelSpec("mlp", 4, (2,), 0.0)


def rows(n: int, fraud: bool) -> np.ndarray:
    """Usual payments; frauds have large amounts, and a little more age."""
    made = np.random.default_rng([n, fraud]).normal(0, 1, (n, 4)).astype(np.float32)
    made[:, 1:3] = np.eye(2)[np.arange(n) % 2]
    made[:, 0] += 4 * fraud
    made[:, 3] += 1.5 * fraud
    return made


def probe(times: float = 1, age: float = 0, frauds: int = 30, swapped: bool = False) -> Probe:
    """80 legitimate rows and some frauds, amounts `times` as large, age moved; or with labels the other way round."""
    held_out, others = rows(80, False), rows(frauds, True)
    if swapped:
        held_out, others = rows(80, True), rows(frauds, False)
    for part in (held_out, others):
        part[:, 0] *= times
        part[:, 3] += age
    return Probe(held_out.ravel(), others.ravel(), np.zeros(80, np.float32))


def models(amount: float = 1.0, age: float = 0.5) -> list[Vector]:
    """Three, which add up the two numeric columns."""
    kernel = np.array([[amount, -amount], [0, 0], [0, 0], [age, -age]])
    each = np.concatenate([kernel.ravel(), [0, 0], [1, -1], [-2]]).astype(np.float32)
    return [each, each * np.float32(1.01), each * np.float32(0.99)]


def raised(effects: list[Effect]) -> list[ProblemRaised]:
    return [x.event for x in effects if isinstance(x, Emit) and isinstance(x.event, ProblemRaised)]


@pytest.mark.parametrize(
    ("off", "names"),
    [
        (probe(), ()),
        (probe(times=10), ("amount",)),
        (probe(age=3), ("age",)),
        (probe(age=-3), ("age",)),
        (probe(times=10, age=3), ("amount", "age")),
    ],
)
def test_columns_in_another_unit_or_place_are_named(off: Probe, names: tuple[str, ...]) -> None:
    assert misfit.columns_off(CONTRACT, off) == names


def test_frauds_and_too_few_rows_say_nothing_of_a_column() -> None:
    far = rows(60, False)
    far[:30] += 9
    labels = (np.arange(60) < 30).astype(np.float32)
    assert misfit.columns_off(CONTRACT, Probe(far.ravel(), far[:0].ravel(), labels)) == ()
    few = probe(age=3)
    assert misfit.columns_off(CONTRACT, Probe(few.held_out[: 4 * 19], few.frauds, few.labels[:19])) == ()


def test_how_often_others_tell_frauds_from_legitimate_rows() -> None:
    theirs = np.stack(models())
    assert (misfit.tells_apart(SPEC, probe(), theirs) or 0) > 0.95
    swapped = misfit.tells_apart(SPEC, probe(swapped=True), theirs)
    assert swapped is not None and swapped < 0.05
    constant = np.stack(models(0, 0))
    assert misfit.tells_apart(SPEC, probe(), constant) == 0.5


def test_nothing_is_said_without_frauds_or_labels_or_of_autoencoders() -> None:
    theirs, usual = np.stack(models()), probe()
    assert misfit.tells_apart(SPEC, probe(frauds=7), theirs) is None
    assert misfit.tells_apart(SPEC, Probe(usual.held_out, usual.frauds), theirs) is None
    coder = ModelSpec("autoencoder", 4, (2,), 0.0)
    assert misfit.tells_apart(coder, usual, coder.initial_weights(1).vector[None]) is None


def test_frauds_alone_are_told_by_whether_they_are_known() -> None:
    def only(taken: np.ndarray) -> Probe:
        return Probe(taken.ravel(), taken[:0].ravel(), np.ones(len(taken), np.float32))

    theirs = np.stack(models())
    assert misfit.tells_apart(SPEC, only(rows(80, True)), theirs) is None
    assert misfit.tells_apart(SPEC, only(rows(80, False)), theirs) == 0.0


def test_models_that_cannot_be_computed_with_do_no_harm() -> None:
    huge = np.full_like(models()[0], 3e38)
    assert (misfit.tells_apart(SPEC, probe(), np.stack([huge, *models()[:2]])) or 0) > 0.95


def test_a_column_with_its_sign_turned_is_to_blame_at_the_first_look() -> None:
    labels = misfit.Labels(CONTRACT, SPEC, Problems())
    (told,) = raised(labels.look(probe(times=-1), models()))
    assert told.code == "FRAUDS_UNLIKE" and "without column 'amount' they would" in told.message
    assert "sign" in told.hint and "'amount'" in told.hint
    assert not labels.look(probe(times=-1), models()), "it is told once"
    assert not labels.look(probe(times=-1), models(0.5, 2)), "and stands while the rows are these"
    (over,) = labels.look(probe(), models())
    assert isinstance(over, Emit) and over.event == ProblemCleared("FRAUDS_UNLIKE", "")


def test_of_two_models_one_that_lies_does_not_decide() -> None:
    honest, lie = models()[0], models(-30, 30)[0]
    for told in ([honest, lie], [lie, honest]):
        assert not misfit.Labels(CONTRACT, SPEC, Problems()).look(probe(), told)
    assert raised(misfit.Labels(CONTRACT, SPEC, Problems()).look(probe(times=-1), models()[:2]))


def test_doubts_outlive_a_reading_and_the_problem_does_not_outlive_its_cause() -> None:
    problems = Problems()
    labels = misfit.Labels(CONTRACT, SPEC, problems)
    assert not labels.look(probe(swapped=True), models())
    assert raised(labels.look(probe(swapped=True, age=0.5), models()))
    (column,) = raised(labels.look(probe(times=-1), models()))
    assert "column 'amount'" in column.message, "of other rows something else is to blame"
    (labelled,) = raised(labels.look(probe(swapped=True), models()))
    assert "column" not in labelled.message
    assert labels.look(probe(frauds=7), models()) and "FRAUDS_UNLIKE" not in problems, "too few frauds to say so still"


def test_of_wide_contracts_no_column_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(misfit, "MOST_INPUTS", 3)
    labels = misfit.Labels(CONTRACT, SPEC, Problems())
    assert not labels.look(probe(times=-1), models())
    (told,) = raised(labels.look(probe(times=-1), models()))
    assert "column" not in told.message


def test_labels_are_doubted_at_the_second_look_in_a_row() -> None:
    labels = misfit.Labels(CONTRACT, SPEC, Problems())
    wrong = probe(swapped=True)
    assert not labels.look(wrong, models()[:1]), "one model is no measure"
    assert not labels.look(wrong, models())
    assert not labels.look(probe(), models())
    assert not labels.look(wrong, models())
    (told,) = raised(labels.look(wrong, models()))
    assert "column" not in told.message and "labels" in told.hint


def test_a_reading_is_told_of_once_and_the_next_one_ends_it() -> None:
    problems = Problems()
    (told,) = raised(misfit.tell_columns(problems, CONTRACT, probe(times=10, age=3)))
    assert told.message == "columns 'amount', 'age': this bank's values lie far from the consortium's"
    assert not misfit.tell_columns(problems, CONTRACT, probe(times=10, age=3))
    (ended,) = misfit.tell_columns(problems, CONTRACT, probe())
    assert isinstance(ended, Emit) and ended.event == ProblemCleared("COLUMNS_UNLIKE", "")


def test_a_node_tells_of_its_rows_before_it_trains_and_of_its_labels_in_the_first_ten_rounds() -> None:
    network = started(5, rounds=0)
    rng = np.random.default_rng(1)
    values = rng.normal(0, 1, (100, WIDTH)).astype(np.float32)
    values[:, 2] += 3
    frauds = values[:30]  # as labels drawn at random call them
    node = network.nodes[network.ids[0]]
    reading = TrainerReady(1000, 50, Probe(values.ravel(), frauds.ravel(), np.zeros(100, np.float32)))
    (told,) = raised(node.handle(reading, network.now))
    assert told.code == "COLUMNS_UNLIKE" and "column 'x2'" in told.message
    network.run(30)
    assert "FRAUDS_UNLIKE" in node.problems and node.rounds.round >= 10
