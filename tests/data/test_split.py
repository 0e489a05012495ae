"""Splits: nothing tested on was seen, for any rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pfed.core.types import DAY
from p2pfed.data.split import Parts, by_time, row_keys, share_of_each, stratified
from p2pfed.errors import DataError

shares = st.tuples(st.floats(0.05, 0.4), st.floats(0, 0.4))


def _covers_once(parts: Parts, count: int) -> bool:
    return sorted(np.concatenate(parts).tolist()) == list(range(count))


@given(st.lists(st.integers(0, 50), min_size=20, max_size=200), shares, st.sampled_from([0.0, 2.0]))
def test_a_time_split_is_in_order_of_time(days: list[int], shares: tuple[float, float], gap_days: float) -> None:
    times = np.array(days) * DAY
    try:
        parts = by_time(times, *shares, gap_days)
    except DataError:
        return  # too few instants for these shares: refused, not bent
    assert _covers_once(parts, len(times))
    assert times[parts.train].max() < times[parts.validation].min() - gap_days * DAY
    if len(parts.test):
        assert times[parts.validation].max() < times[parts.test].min() - gap_days * DAY


def test_time_shares() -> None:
    parts = by_time(np.arange(1000.0), 0.2, 0.1, 0)
    assert [len(p) for p in parts] == [700, 200, 100, 0]
    assert [len(p) for p in by_time(np.arange(1000.0), 0.2, 0, 0)] == [800, 200, 0, 0]


def test_the_gap_comes_from_the_older_part() -> None:
    parts = by_time(np.arange(1000.0) * DAY, 0.2, 0.1, 7)
    assert [len(p) for p in parts] == [693, 193, 100, 14]
    assert parts.validation[0] == 700
    assert parts.test[0] == 900


def test_one_instant_cannot_be_split() -> None:
    with pytest.raises(DataError, match=r"leaves no training rows: 10 rows over 0\.0 days"):
        by_time(np.full(10, 5.0), 0.2, 0.2, 0)


@given(
    st.lists(st.tuples(st.integers(0, 30), st.booleans()), min_size=1, max_size=200),
    shares,
    st.integers(0, 2**32),
)
def test_equal_rows_stay_together_whatever_the_order(
    rows: list[tuple[int, bool]], shares: tuple[float, float], seed: int
) -> None:
    values, labels = np.array([r[0] for r in rows]), np.array([r[1] for r in rows], np.float32)
    keys = row_keys(values, labels)
    parts = stratified(keys, labels, *shares, seed)
    assert _covers_once(parts, len(rows))
    side = np.empty(len(rows), int)
    for number, part in enumerate(parts):
        side[part] = number
    for key in np.unique(keys):
        assert len(set(side[keys == key])) == 1
    order = np.random.default_rng(seed).permutation(len(rows))
    again = stratified(keys[order], labels[order], *shares, seed)
    assert sorted(order[again.test]) == parts.test.tolist()


@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.sampled_from([0.0, 0.02, 0.5, 0.97]),
    shares,
    st.integers(0, 2**32),
)
def test_growth_moves_no_row_out_of_training_or_test(
    few: int, more: int, fraud_share: float, shares: tuple[float, float], seed: int
) -> None:
    keys = row_keys(np.arange(few + more), np.full(few + more, seed))
    labels = (np.random.default_rng(seed).random(few + more) < fraud_share).astype(np.float32)
    before = stratified(keys[:few], labels[:few], *shares, seed)
    after = stratified(keys, labels, *shares, seed)
    assert np.isin(before.train, after.train).all()
    assert np.isin(before.test, after.test).all()
    moved = np.setdiff1d(before.validation, after.validation)
    # at most the row of each class that stood in, and then it was the only one
    assert len(np.unique(labels[moved])) == len(moved)
    for row in moved:
        assert (labels[before.validation] == labels[row]).sum() == 1
        assert row in after.train


@given(st.integers(1, 200), st.integers(1, 200), shares, st.integers(0, 2**32))
def test_each_class_validates_unless_all_its_rows_test(
    legitimate: int, frauds: int, shares: tuple[float, float], seed: int
) -> None:
    labels = np.repeat(np.array([0, 1], np.float32), [legitimate, frauds])
    parts = stratified(row_keys(np.arange(len(labels))), labels, *shares, seed)
    for label in (0, 1):
        assert (labels[parts.validation] == label).any() or (labels[parts.test] == label).sum() == (
            labels == label
        ).sum()


def test_both_classes_get_their_shares_within_what_chance_allows() -> None:
    labels = np.zeros(100_000, np.float32)
    labels[:4000] = 1
    for seed in range(5):
        parts = stratified(row_keys(np.arange(len(labels))), labels, 0.25, 0.1, seed)
        for label, count in ((0, 96_000), (1, 4000)):
            for part, share in ((parts.train, 0.65), (parts.validation, 0.25), (parts.test, 0.1)):
                found = (labels[part] == label).sum()
                assert abs(found - share * count) < 5 * (count * share * (1 - share)) ** 0.5


@given(st.integers(2, 200), st.integers(0, 20), st.floats(0.05, 0.9), st.integers(0, 2**32))
def test_rows_that_never_grow_are_drawn_to_the_row(legitimate: int, frauds: int, share: float, seed: int) -> None:
    labels = np.repeat(np.array([0, 1, np.nan], np.float32), [legitimate, frauds, 3])
    keys = row_keys(np.arange(len(labels)))
    drawn = share_of_each(keys, labels, share, seed)
    assert [(drawn & (labels == label)).sum() for label in (0, 1)] == [round(legitimate * share), round(frauds * share)]
    assert not drawn[np.isnan(labels)].any()
    order = np.random.default_rng(seed).permutation(len(labels))
    np.testing.assert_array_equal(share_of_each(keys[order], labels[order], share, seed), drawn[order])


def test_another_seed_draws_otherwise() -> None:
    keys, labels = row_keys(np.arange(1000)), np.zeros(1000, np.float32)
    first, second = (stratified(keys, labels, 0.2, 0.2, seed).test for seed in (0, 1))
    assert len(np.intersect1d(first, second)) < 80  # 40 expected by chance


def test_keys_tell_columns_and_values_apart() -> None:
    matrix = np.array([[1.0, 2.0], [2.0, 1.0], [1.0, 2.0]], np.float32)
    keys = row_keys(matrix, np.array([0, 0, 0]))
    assert keys[0] == keys[2] != keys[1]
    assert row_keys(matrix, np.array([0, 0, 1]))[2] != keys[2]
