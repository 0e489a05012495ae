"""What a model of another bank is measured by: own training, own rows, and frauds that a bank with few imagines."""

from __future__ import annotations

import math

import numpy as np
import pytest

from p2pfed.core import forward
from p2pfed.core.aggregation import Candidate
from p2pfed.core.model import ModelSpec
from p2pfed.core.probe import ENOUGH_FRAUDS, Probe
from p2pfed.core.reputation import ReputationParams, assess
from p2pfed.core.reputation.assess import Look
from p2pfed.core.reputation.peer_record import Assessment, PeerRecord
from p2pfed.core.reputation.yardstick import Yardstick
from p2pfed.core.types import NodeId
from p2pfed.core.weights import Vector

PARAMS = ReputationParams()
SPEC = ModelSpec("mlp", 4, (8,), 0.0)
PEER = NodeId("peer")


def knowing(slope: float) -> Vector:
    """A model that takes rows with a large first column for fraud; with slope 0 it has no notion of fraud."""
    tensors = [np.zeros_like(t) for t in SPEC.schema().split(SPEC.initial_weights(0).vector)]
    tensors[0][0, 0] = 1
    tensors[2][0, 0] = slope
    tensors[3][0] = -6
    return SPEC.schema().join(tensors)


def poor(frauds: int = 0) -> Probe:
    """Legitimate rows, and hardly a fraud."""
    rng = np.random.default_rng(2)
    return Probe(rng.normal(0, 0.3, 50 * 4).astype(np.float32), np.full(frauds * 4, 9, np.float32))


@pytest.fixture
def yardstick() -> Yardstick:
    found = Yardstick(SPEC, 0, PARAMS)
    found.note_training(knowing(1.9), knowing(2.0))
    return found


def look(vector: Vector, rows: int = 100, counts: bool = True) -> Look:
    return Look(Candidate(PEER, vector, rows, 0), rows, counts)


def measured(yardstick: Yardstick, vector: Vector, rows: int = 100, usual: float = 100.0) -> Assessment:
    return yardstick.measure(knowing(2.0), 100, [look(vector, rows)], usual)[0]


def test_a_bank_without_fraud_imagines_rows_that_its_model_is_in_doubt_about() -> None:
    imagined = poor().imagining(SPEC, knowing(2.0), np.random.default_rng(0)).imagined.reshape(-1, 4)
    assert 0 < len(imagined) <= ENOUGH_FRAUDS
    said = forward.scores(SPEC, knowing(2.0), imagined)
    assert (np.abs(said - 0.5) < 0.25).all()


def test_real_frauds_come_first_and_without_a_notion_of_fraud_nothing_is_imagined() -> None:
    rng = np.random.default_rng(0)
    assert len(poor(ENOUGH_FRAUDS - 1).imagining(SPEC, knowing(2.0), rng).imagined) == SPEC.inputs
    assert len(poor(ENOUGH_FRAUDS).imagining(SPEC, knowing(2.0), rng).imagined) == 0
    assert len(poor().imagining(SPEC, knowing(0.0), rng).imagined) == 0
    auto = ModelSpec("autoencoder", 4, (2,), 0.0)
    assert len(poor().imagining(auto, auto.initial_weights(0).vector, rng).imagined) == 0


def test_imagined_frauds_tell_who_knows_none_and_are_no_part_of_a_loss() -> None:
    found = Yardstick(SPEC, 0, PARAMS)
    found.probe = poor()
    before = found.probe.loss(SPEC, knowing(2.0))
    found.note_training(knowing(1.9), knowing(2.0))
    assert len(found.probe.imagined)
    assert found.probe.loss(SPEC, knowing(2.0)) == before
    honest, blind = measured(found, knowing(2.1)), measured(found, knowing(0.0))
    assert honest.agreement == 1.0 and honest.evidence < 0
    assert blind.recognition < 0.05 and blind.evidence > 0 and blind.agreement == 1.0


def test_who_has_fewer_rows_than_usual_may_be_farther_but_only_so_far(yardstick: Yardstick) -> None:
    fine, _ = yardstick.fine
    assert yardstick.scales.moved is not None

    def evidence(distance: float, rows: int) -> float:
        """Of a model that is so many times what is fine away."""
        step = distance * fine * yardstick.scales.moved / np.sqrt(SPEC.schema().size)
        return measured(yardstick, knowing(2.0) + np.float32(step), rows).evidence

    assert evidence(2.1, rows=100) == 1.0 and evidence(2.1, rows=25) < 0
    assert evidence(17, rows=5) == evidence(17, rows=1) == evidence(17, rows=0) == 1.0


@pytest.mark.parametrize(
    ("rows", "usual", "more"),
    [(100, 100, 1), (25, 100, 1), (100, 800, 2), (100, 1600, 4), (100, 3200, 8), (1, 3200, 8), (400, 100, 1)],
)
def test_a_bank_with_hardly_any_rows_may_be_of_another_opinion(
    yardstick: Yardstick, rows: int, usual: float, more: float
) -> None:
    found = measured(yardstick, knowing(2.0), rows, usual)
    assert found.disagreement_fine == pytest.approx(more * yardstick.fine[1])


def test_who_has_few_rows_and_another_base_rate_is_not_allowed_both(yardstick: Yardstick) -> None:
    few = look(knowing(2.0))._replace(rows=100, rate=1.0)
    (found,) = yardstick.measure(knowing(2.0), 3200, [few], 3200.0, (2.0**12, 2.0**12))
    assert (found.distance_fine, found.disagreement_fine) == pytest.approx(tuple(8 * fine for fine in yardstick.fine))


def test_a_bank_with_hardly_any_rows_may_be_unusual_in_one_way_only(yardstick: Yardstick) -> None:
    """Five times as far as is fine and of another opinion by six times: each is allowed, and both are not."""
    fine, other = yardstick.fine

    def found(distance: float, disagreement: float) -> Assessment:
        seen = assess._Seen(distance * fine, disagreement * other, disagreement * other, recognition=1.0)
        scores = yardstick.probe.scores(SPEC, knowing(2.0)[None])[0]
        blank = Probe(np.zeros(0, np.float32), np.zeros(0, np.float32))
        own = assess.Own(SPEC, knowing(2.0), 1.0, 3200, 3200.0, scores)
        weigh = assess._Weigh(own, blank, PARAMS, fine, other, known=1.0)
        return weigh.assessment(seen, look(knowing(2.0), rows=100))

    far, of_another_opinion, both = found(5, 1), found(1, 6), found(5, 6)
    assert far.evidence < 0 > of_another_opinion.evidence
    assert both.distance < both.distance_fine and both.disagreement < both.disagreement_fine
    assert both.excess == pytest.approx(math.hypot(far.excess, of_another_opinion.excess))
    assert both.evidence == pytest.approx(both.excess - both.excess_fine) and both.evidence > 0


def test_how_far_a_bank_with_hardly_any_rows_is_counts_less_while_it_predicts_much_the_same(
    yardstick: Yardstick,
) -> None:
    yardstick.probe = Probe(np.full(100 * 4, 2.6, np.float32), np.zeros(0, np.float32))
    fine, _ = yardstick.fine
    assert yardstick.scales.moved is not None
    tensors = SPEC.schema().split(knowing(2.2).copy())
    tensors[0][:, 1:] += 12 * fine * yardstick.scales.moved / np.sqrt(tensors[0][:, 1:].size)  # of idle hidden units
    away = SPEC.schema().join(tensors)
    assert PARAMS.felt_at < measured(yardstick, away).disagreement < 4 * PARAMS.felt_at
    assert measured(yardstick, away, 12).evidence > 0 > measured(yardstick, away, 3).evidence


@pytest.mark.parametrize(
    ("own", "told", "disagreement", "distance"),
    [
        (256.0, 256.0, 1, 1),
        (256.0, 64.0, 1, 1),
        (256.0, 16.0, 16 / 12, 16 / 12),
        (16.0, 256.0, 16 / 12, 1),
        (1024.0, 1.0, 8, 8),
        (0.25, 1024.0, 8, 1),
        (None, 1.0, 1, 8),
        (256.0, None, 1, 1),
    ],
)
def test_who_told_that_frauds_are_far_more_usual_or_rarer_may_differ_by_so_much(
    yardstick, own, told, disagreement, distance
):
    fine = measured(yardstick, knowing(2.0))
    (found,) = yardstick.measure(knowing(2.0), 100, [look(knowing(2.0))._replace(rate=told)], 100.0, (own, 256.0))
    assert found.disagreement_fine == pytest.approx(disagreement * fine.disagreement_fine)
    assert found.distance_fine == pytest.approx(distance * fine.distance_fine)


def test_who_told_that_frauds_are_rarer_than_usual_may_know_less_of_them(yardstick):
    yardstick.probe = poor(20)
    looks = [look(knowing(2.0))._replace(rate=told) for told in (16.0, 1.0, 128.0, 512.0, 4.0**8)]
    evidence = [
        one.recognition_fine + PARAMS.unknown
        for one in yardstick.measure(knowing(2.0), 100, looks, 100.0, (None, 16.0))
    ]
    usual, _, no_rarer, rarer, most = evidence
    assert (
        no_rarer == usual
        and rarer == pytest.approx(usual / 4)
        and most == pytest.approx(max(usual / 8, PARAMS.unknown))
    )


def test_who_has_hardly_any_rows_may_know_less_of_frauds(yardstick: Yardstick) -> None:
    yardstick.probe = poor(20)
    looks = [look(knowing(2.0), rows) for rows in (100, 25, 6, 1)]
    found = yardstick.measure(knowing(2.0), 100, looks, 100.0)
    _, quarter, sixteenth, least = [one.recognition_fine + PARAMS.unknown for one in found]
    usual = found[0].recognition_fine + PARAMS.unknown
    assert quarter == usual and sixteenth == pytest.approx(usual * 24 / 100)
    assert least == pytest.approx(max(usual / 8, PARAMS.unknown))


def test_what_a_bank_told_never_counts_against_it(yardstick):
    yardstick.probe = Probe(
        np.r_[np.full(55 * 4, 1.0), np.full(45 * 4, 3.0)].astype(np.float32), np.zeros(0, np.float32)
    )
    other = knowing(2.8)  # less sure of the many rows, and as sure of the others
    tensors = SPEC.schema().split(other.copy())
    tensors[-1][:] -= 2.4
    for rate in (256.0, 3072.0, 16.0):
        told = look(SPEC.schema().join(tensors))._replace(rate=rate)
        (found,) = yardstick.measure(knowing(2.0), 100, [told], 100.0, (256.0, 256.0))
        silent = measured(yardstick, SPEC.schema().join(tensors))
        assert found.disagreement <= silent.disagreement


def test_who_is_let_off_for_rare_frauds_weighs_less_if_it_knows_none(yardstick):
    yardstick.probe = poor()
    yardstick.note_training(knowing(1.9), knowing(2.0))
    honest = [look(knowing(2.1))._replace(rate=256.0)] * 3
    blind = [look(knowing(0.0))._replace(rate=rate) for rate in (256.0, 2.0**20)]
    *_, usual, rarer = yardstick.measure(knowing(2.0), 100, [*honest, *blind], 100.0, (256.0, 256.0))
    assert usual.evidence > 0 and usual.agreement == 1.0, "it is evidence against it instead"
    assert rarer.evidence < usual.evidence and rarer.agreement < 0.05 and rarer.recognition_fine == 0.0


def test_what_autoencoders_find_odd_does_not_depend_on_the_base_rate():
    spec = ModelSpec("autoencoder", 4, (2,), 0.0)
    own = spec.initial_weights(0).vector
    found = Yardstick(spec, 0, PARAMS)
    found.note_training(own, own + np.float32(0.1))
    (fine,) = found.measure(own, 100, [look(own)._replace(rate=1.0)], 100.0, (4.0**8, 4.0**8))
    assert (fine.distance_fine, fine.disagreement_fine) == found.fine


@pytest.mark.parametrize("epochs", [False, True])
def test_where_rounds_are_epochs_who_has_more_rows_may_be_farther_and_who_has_few_sees_others_so(epochs) -> None:
    few, usual = (Yardstick(SPEC, 0, PARAMS, epochs=epochs) for _ in range(2))
    for one in (few, usual):
        one.note_training(knowing(1.9), knowing(2.0))
    far = knowing(2.0) + np.float32(2.1 * usual.fine[0] * usual.scales.moved / np.sqrt(SPEC.schema().size))
    (large,) = usual.measure(knowing(2.0), 100, [look(far, 400)], 100.0)
    (alike,) = few.measure(knowing(2.0), 25, [look(far)], 100.0)
    assert (large.evidence < 0) == (alike.evidence < 0) == epochs


def test_how_far_a_model_is_counts_less_if_its_predictions_hardly_differ(yardstick: Yardstick) -> None:
    fine, _ = yardstick.fine
    assert yardstick.scales.moved is not None

    def alike(times: float) -> Vector:
        """As far as that many times what is fine, by a hidden unit that nothing is made of."""
        tensors = SPEC.schema().split(knowing(2.0).copy())
        tensors[0][:, 1] = times * fine * yardstick.scales.moved / 2
        return SPEC.schema().join(tensors)

    yardstick.probe = poor(20)
    apart, permuted = measured(yardstick, alike(3.5)), measured(yardstick, alike(9))
    assert apart.disagreement == permuted.disagreement == pytest.approx(0.0, abs=1e-9)
    assert apart.distance == pytest.approx(3.5 * fine, rel=0.01)
    assert apart.evidence < 0
    assert permuted.evidence == 1.0, "so far from each other no honest banks are that predict the same"
    tensors = SPEC.schema().split(alike(3.5))
    tensors[-1][:] += 2.0  # seven times the odds of all rows
    shows = look(SPEC.schema().join(tensors))
    told, untold = yardstick.measure(
        knowing(2.0), 100, [shows._replace(rate=rate) for rate in (32.0, 256.0)], 100.0, (256.0, 256.0)
    )
    assert untold.evidence == 1.0, "a distance that shows counts whole"
    assert told.disagreement < 1e-6 and 0 < told.evidence < 1, "and less where a base rate explains what shows"
    yardstick.probe = Probe(np.zeros(0, np.float32), np.zeros(0, np.float32))
    assert measured(yardstick, alike(3.5)).evidence == 1.0, "without rows to look at, distance is all there is"


def test_a_new_probe_is_asked_anew_and_imagined_for() -> None:
    found = Yardstick(SPEC, 0, PARAMS)
    found.probe = poor()
    own = knowing(2.0)
    found.note_training(knowing(1.9), own)
    before = measured(found, own)
    found.probe = poor()
    record = measured(found, own)
    assert np.isfinite([before.recognition, record.recognition]).all()
    found.note_training(own, own)
    assert len(found.probe.imagined)


def test_a_model_is_known_again_and_so_is_an_own_one(yardstick: Yardstick) -> None:
    record, vector = PeerRecord(), knowing(5.0) + np.float32(0.3)
    assert not yardstick.brings_nothing(record, vector)
    assert yardstick.brings_nothing(record, vector)
    assert yardstick.brings_nothing(record, knowing(2.0))
    assert not yardstick.brings_nothing(record, vector + np.float32(0.1))
    assert yardstick.scales.moved is not None
    step = np.float32(yardstick.scales.moved / np.sqrt(SPEC.schema().size))
    assert yardstick.brings_nothing(PeerRecord(), knowing(2.0) + np.float32(0.01) * step)


def test_who_brings_nothing_tells_nothing_of_what_is_usual(yardstick: Yardstick) -> None:
    new = [look(knowing(2.0) + np.float32(step), counts=counts) for step, counts in ((0.4, True), (0.3, False))]
    honest, _ = yardstick.measure(knowing(2.0), 100, new, 100.0)
    assert yardstick.scales.distances[-1] == (honest.distance,)
    assert yardstick.scales.disagreements[-1] == (honest.disagreement,)


def test_what_own_training_changed_before_an_absence_is_forgotten_with_what_it_moved(yardstick: Yardstick) -> None:
    yardstick.probe = poor(20)
    yardstick.note_training(knowing(1.0), knowing(2.0))
    before = yardstick.scales
    yardstick.note_training(knowing(2.0), knowing(2.0))
    assert yardstick.scales.changed == pytest.approx(0.8 * before.changed) and before.changed > 0
    yardstick.training.forget()
    yardstick.note_training(knowing(2.0), knowing(2.0))
    assert (yardstick.scales.moved, yardstick.scales.changed) == (0.0, 0.0)
