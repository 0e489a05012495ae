"""Training, validation and test rows, so that nothing tested on was seen: by time or drawn at random."""

from __future__ import annotations

from collections.abc import Sequence
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


TRAIN, VALIDATION, TEST, GAP = range(4)
"""Numbers of the parts, in the order of `Parts`."""


GATE_FRAUDS = 20
"""With fewer frauds AUPRC cannot tell a model that is .05 worse from an equal one in a seventh of the cases."""


class Owners(NamedTuple):
    """Whose each row is, where the rows of many banks are split at once and each bank's as if it were alone."""

    of: NDArray[np.intp]
    """[n] numbers from 0."""
    banks: int
    """How many owners there are."""


def by_time(times: NDArray[np.float64], validation_share: float, test_share: float, gap_days: float) -> Parts:
    """Oldest rows train, then validation, newest test; rows of one instant (so duplicates too) stay together.

    `times` float64 [n] in seconds. A gap is taken from the end of the older part, so that validation begins and test
    begins where the shares say. Raises DataError if the gap leaves no training rows.
    """
    parts = _listed(each_by_time(times, _one(len(times)), validation_share, test_share, gap_days))
    if not len(parts.train) or not len(parts.validation):
        which = "training" if not len(parts.train) else "validation"
        days = np.ptp(times) / DAY
        raise DataError(
            f"the time split leaves no {which} rows: {len(times)} rows over {days:.1f} days, gap_days {gap_days:g}; "
            "check that event_time is in seconds, lower the gap, or write split: stratified"
        )
    return parts


def each_by_time(
    times: NDArray[np.float64], owners: Owners, validation_share: float, test_share: float, gap_days: float
) -> NDArray[np.int8]:
    """The part [n] of each row when every owner's rows are split as by `by_time`; a part may be empty."""
    shares = (validation_share + test_share, test_share)
    first_validation, first_test = (first[owners.of] for first in _newest_of_each(times, owners, shares))
    gap = gap_days * DAY
    parts = np.full(len(times), GAP, np.int8)
    parts[times < first_validation - gap] = TRAIN
    parts[(times >= first_validation) & (times < first_test - gap)] = VALIDATION
    parts[times >= first_test] = TEST
    return parts


def newest(times: NDArray[np.float64], share: float) -> float:
    """The time from which on the newest `share` of the rows lies; infinity for no share. NaN times do not count."""
    known = times[~np.isnan(times)]
    return float(_newest_of_each(known, _one(len(known)), (share,))[0][0])


def stratified(
    keys: NDArray[np.uint64], labels: NDArray[np.float32], validation_share: float, test_share: float, seed: int
) -> Parts:
    """Draw the parts by a hash of each row's key and `seed`; rows of one class with equal `keys` stay together.

    A row's part depends on nothing else, so that a re-sorted export splits the same and new rows move no row out of
    training or test. The one exception is the row that stands in: in a class of which no row was drawn for validation,
    the training row with the lowest hash validates until a row with a lower one comes. So every class validates, be it
    with one row; only where rows leave (a window moves on) may another training row have to stand in.
    """
    return _listed(each_stratified(keys, labels, _one(len(keys)), validation_share, test_share, seed))


def each_stratified(
    keys: NDArray[np.uint64],
    labels: NDArray[np.float32],
    owners: Owners,
    validation_share: float,
    test_share: float,
    seed: int,
) -> NDArray[np.int8]:
    """The part [n] of each row when every owner's rows are split as by `stratified`, all with one seed."""
    drawn = _scramble(keys, seed)
    at = drawn / 2.0**64
    parts = np.full(len(keys), TRAIN, np.int8)
    parts[at < test_share + validation_share] = VALIDATION
    parts[at < test_share] = TEST
    classes = 2 * owners.of + (labels == 1)
    lowest = np.full(2 * owners.banks, np.iinfo(np.uint64).max)
    # what a class validates with besides the test: its lowest hash, which is a drawn row's if any was drawn
    rest = parts != TEST
    np.minimum.at(lowest, classes[rest], drawn[rest])
    parts[rest & (drawn == lowest[classes])] = VALIDATION
    return parts


def share_of_each(keys: NDArray[np.uint64], labels: NDArray[np.float32], share: float, seed: int) -> NDArray[np.bool_]:
    """Which rows [n] are drawn when each class gives its `share`, for rows that will never grow.

    Exactly the share where `keys` are different; rows of one class with equal ones stay together. The draw depends on
    the rows' content and `seed`, not on their order; rows without a label are not drawn.
    """
    drawn = np.zeros(len(keys), bool)
    hashes = _scramble(keys, seed)
    for label in (0, 1):
        members = np.flatnonzero(labels == label)
        if count := round(len(members) * share):
            last = np.partition(hashes[members], count - 1)[count - 1]
            drawn[members[hashes[members] <= last]] = True
    return drawn


def gate_rows(labels: NDArray[np.float32], times: NDArray[np.float64] | None, train: Index, validation: Index) -> Index:
    """The rows by which a bank decides what serves: `validation`, then the newest training frauds up to `GATE_FRAUDS`.

    None where validation has as many by itself. Without `times` [n] the last rows count as the newest.
    """
    lacking = GATE_FRAUDS - int(labels[validation].sum())
    if lacking <= 0:
        return np.empty(0, np.intp)
    frauds = train[labels[train] == 1]
    if times is not None:
        frauds = frauds[np.argsort(times[frauds], kind="stable")]
    return np.concatenate([validation, frauds[-lacking:]])


def row_keys(*columns: NDArray[np.generic]) -> NDArray[np.uint64]:
    """uint64 [n]: equal for rows that are equal in every column; each of `columns` is [n] or [n, k]."""
    flat = [column.reshape(len(column), -1) for column in columns]
    keys = np.zeros(len(flat[0]), np.uint64)
    for matrix in flat:
        for column in matrix.T:
            keys = keys * np.uint64(0x9E3779B97F4A7C15) + pd.util.hash_array(np.ascontiguousarray(column))
    return keys


def _one(rows: int) -> Owners:
    return Owners(np.zeros(rows, np.intp), 1)


def _listed(parts: NDArray[np.int8]) -> Parts:
    return Parts(*(np.flatnonzero(parts == part) for part in (TRAIN, VALIDATION, TEST, GAP)))


def _newest_of_each(times: NDArray[np.float64], owners: Owners, shares: Sequence[float]) -> list[NDArray[np.float64]]:
    """For each share, and each owner, the time from which on the newest `share` of its rows lies."""
    ordered = times[np.lexsort((times, owners.of))]
    sizes = np.bincount(owners.of, minlength=owners.banks)
    starts = np.cumsum(sizes) - sizes
    found = []
    for share in shares:
        cut = np.round(sizes * (1 - share)).astype(np.intp)
        some = cut < sizes
        first = np.full(owners.banks, np.inf)
        first[some] = ordered[(starts + cut)[some]]
        found.append(first)
    return found


def _scramble(keys: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """A pseudo-random uint64 per key (the finaliser of SplitMix64): equal keys give equal draws."""
    mixed = keys + np.random.default_rng(seed).integers(0, 2**64, dtype=np.uint64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
