"""Training, validation and test rows, so that nothing tested on was seen: by time or drawn at random."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from p2pfed.core.types import DAY
from p2pfed.errors import DataError

Index = NDArray[np.intp]


class Parts(NamedTuple):
    """Row numbers of each part, ascending; `gap` lies between the parts of a time split and is used nowhere."""

    train: Index
    validation: Index
    test: Index
    gap: Index


def by_time(times: NDArray[np.float64], validation_share: float, test_share: float, gap_days: float) -> Parts:
    """Oldest rows train, then validation, newest test; rows of one instant (so duplicates too) stay together.

    `times` float64 [n] in seconds. A gap is taken from the end of the older part, so that validation begins and test
    begins where the shares say. Raises DataError if the gap leaves no training rows.
    """
    first_validation = newest(times, validation_share + test_share)
    first_test = newest(times, test_share)
    gap = gap_days * DAY
    train = times < first_validation - gap
    validation = (times >= first_validation) & (times < first_test - gap)
    test = times >= first_test
    unused = ~(train | validation | test)
    parts = Parts(*(np.flatnonzero(part) for part in (train, validation, test, unused)))
    if not len(parts.train) or not len(parts.validation):
        which = "training" if not len(parts.train) else "validation"
        days = np.ptp(times) / DAY
        raise DataError(
            f"the time split leaves no {which} rows: {len(times)} rows over {days:.1f} days, gap_days {gap_days:g}; "
            "check that event_time is in seconds, lower the gap, or write split: stratified"
        )
    return parts


def newest(times: NDArray[np.float64], share: float) -> float:
    """The time from which on the newest `share` of the rows lies; infinity for no share. NaN times do not count."""
    ordered = np.sort(times[~np.isnan(times)])
    cut = round(len(ordered) * (1 - share))
    return float(ordered[cut]) if cut < len(ordered) else np.inf


def stratified(
    keys: NDArray[np.uint64], labels: NDArray[np.float32], validation_share: float, test_share: float, seed: int
) -> Parts:
    """Draw the parts within each class; rows of equal `keys` (exact duplicates, see `row_keys`) stay together.

    The draw depends on the rows' content and `seed` only, not on their order, so a re-sorted export splits the same.
    """
    drawn = _scramble(keys, seed)
    chosen = np.zeros(len(keys), np.int8)
    for label in (0.0, 1.0):
        members = np.flatnonzero(labels == label)
        order = members[np.argsort(drawn[members], kind="stable")]
        cuts = (round(len(order) * test_share), round(len(order) * (test_share + validation_share)))
        test_end, validation_end = (_after_equals(drawn[order], cut) for cut in cuts)
        chosen[order[:test_end]] = 2
        chosen[order[test_end:validation_end]] = 1
    train, validation, test = (np.flatnonzero(chosen == part) for part in (0, 1, 2))
    return Parts(train, validation, test, np.empty(0, np.intp))


def row_keys(*columns: NDArray[np.generic]) -> NDArray[np.uint64]:
    """uint64 [n]: equal for rows that are equal in every column; each of `columns` is [n] or [n, k]."""
    flat = [column.reshape(len(column), -1) for column in columns]
    keys = np.zeros(len(flat[0]), np.uint64)
    for matrix in flat:
        for column in matrix.T:
            keys = keys * np.uint64(0x9E3779B97F4A7C15) + pd.util.hash_array(np.ascontiguousarray(column))
    return keys


def _after_equals(ordered: NDArray[np.uint64], cut: int) -> int:
    """The first position at or after `cut` where a new key begins."""
    if cut <= 0 or cut >= len(ordered):
        return min(max(cut, 0), len(ordered))
    return int(np.searchsorted(ordered, ordered[cut - 1], side="right"))


def _scramble(keys: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """A pseudo-random uint64 per key (the finaliser of SplitMix64): equal keys give equal draws."""
    mixed = keys + np.random.default_rng(seed).integers(0, 2**64, dtype=np.uint64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
