"""What is gathered of a run."""

import numpy as np
import pytest

from p2pfed.results import Quarantine
from p2pfed.sim.history import CHUNK, Point, SpreadLog, Standing, consensus_distance, quarantines


def test_the_consensus_distance_is_the_root_mean_square_to_the_mean():
    rng = np.random.default_rng(0)
    models = [rng.standard_normal(7).astype(np.float32) for _ in range(2 * CHUNK + 3)]
    stacked = np.stack(models).astype(np.float64)
    expected = np.sqrt(np.square(stacked - stacked.mean(0)).sum(1).mean())
    assert consensus_distance(models) == pytest.approx(expected, rel=1e-6)
    assert consensus_distance([]) == consensus_distance(models[:1]) == 0.0


def point(node: int, round_number: int, auprc: float | None) -> Point:
    return Point(1.0, node, round_number, 0.1, auprc, 0, 1.0, 0.0, 0)


def test_models_are_compared_once_half_of_those_up_have_done_a_round_of_the_schedule():
    log = SpreadLog(frozenset({0, 1, 2, 3}), period=2)
    assert not log.completed(0, 1, up=4)
    assert not log.completed(0, 2, up=4)
    assert not log.completed(9, 2, up=4)  # an attacker
    assert log.completed(1, 2, up=4)
    log.take(5.0, 2, [np.zeros(3, np.float32), np.ones(3, np.float32)])
    assert not log.completed(2, 2, up=4)
    assert log.completed(3, 4, up=1)
    log.take(6.0, 4, [np.zeros(3, np.float32)])
    first, second = log.rows([point(0, 2, 0.5), point(1, 2, 0.7), point(9, 2, 0.1), point(2, 2, None)])
    assert (first.time, first.round, first.mean_auprc, first.worst_auprc) == (5.0, 2, pytest.approx(0.6), 0.5)
    assert first.consensus_distance == pytest.approx(np.sqrt(3 / 4))
    assert (second.round, second.mean_auprc, second.worst_auprc) == (4, None, None)


def test_quarantines_of_the_run_file_are_those_of_honest_observers():
    told = [
        Standing(1.0, 2, 0, "suspect", 2, 2),
        Standing(2.0, 2, 0, "quarantined", 4, 4),
        Standing(3.0, 1, 0, "quarantined", 5, 6),
        Standing(4.0, 0, 1, "quarantined", 4, 4),
        Standing(9.0, 2, 0, "suspect", 14, 12),
    ]
    assert list(quarantines(told, ["a", "b", "c"], {0})) == [
        Quarantine("b", "a", 6, 5, None),
        Quarantine("c", "a", 4, 4, 12),
    ]
