"""Paired intervals are Student's."""

import math

import pytest

from p2pfed.experiment.intervals import mean_interval, paired_interval


def test_five_seeds_by_hand():
    interval = paired_interval([0.5, 0.6, 0.7, 0.8, 0.9], [0.4, 0.4, 0.4, 0.4, 0.4])
    # differences 0.1 .. 0.5: mean 0.3, deviation 0.1581, t(4) = 2.776
    assert interval.mean == pytest.approx(0.3)
    assert interval.half_width == pytest.approx(2.776 * math.sqrt(0.025 / 5))


def test_the_table_ends_in_the_normal_distribution():
    ours = [0.1 * i for i in range(30)]
    deviation = math.sqrt(sum((a - 1.45) ** 2 for a in ours) / 29)
    assert paired_interval(ours, [0.0] * 30).half_width == pytest.approx(1.96 * deviation / math.sqrt(30))


def test_one_seed_says_nothing_about_spread():
    interval = paired_interval([0.9], [0.8])
    assert interval.half_width == math.inf
    assert str(interval) == "+0.1000 ± ?"


@pytest.mark.parametrize(("ours", "theirs"), [([], []), ([1.0], [1.0, 2.0])])
def test_what_does_not_pair_is_refused(ours, theirs):
    with pytest.raises(ValueError):
        paired_interval(ours, theirs)


def test_the_mean_of_one_value_a_seed_has_the_same_interval():
    values = [0.9, 0.95, 0.97]
    assert mean_interval(values) == paired_interval(values, [0.0] * 3)
