"""Whole numbers: what is an amount or a count, and what only tells rows apart."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from p2pfed.data.whole import WholeNumbers

ROWS = 3000
RNG = np.random.default_rng(0)
CENTS = np.rint(np.exp(RNG.normal(9, 2, ROWS)))


def _why(name: str, values: NDArray[np.generic]) -> str:
    numbers = WholeNumbers()
    for chunk in np.array_split(values.astype(np.float64), 3):
        numbers.add(chunk)
    return numbers.identifier(name)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("amount_cents", CENTS),
        ("sorted_cents", np.sort(CENTS)),
        ("balance", CENTS - np.median(CENTS)),
        ("payments_of_card", np.rint(RNG.exponential(60, ROWS))),
        ("age", RNG.integers(18, 90, ROWS)),
        ("sorted_age", np.sort(RNG.integers(18, 95, ROWS))),
        ("sorted_score", np.sort(RNG.integers(0, 500, ROWS))),
        ("hour", np.arange(ROWS) % 24),
        ("amount", CENTS + 0.5),
        ("phone", RNG.integers(0, 2, ROWS)),
    ],
)
def test_amounts_and_counts_are_features(name: str, values: NDArray[np.generic]) -> None:
    assert _why(name, values) == ""


@pytest.mark.parametrize(
    ("name", "values", "why"),
    [
        ("key", RNG.permutation(ROWS), "an identifier, or a time"),
        ("cc_num", 4e15 + 37 * (np.arange(ROWS) % 200), "twelve digits or more"),
        ("few", 4e15 + 37 * (np.arange(ROWS) % 5), "twelve digits or more"),
        ("ms", 1.79e12 + 60_000 * np.arange(ROWS), "twelve digits or more"),
        ("place", np.tile(np.arange(ROWS // 3), 3), "numbers the rows"),
        ("seconds", np.cumsum(RNG.integers(0, 2, ROWS)), "never fall"),
        ("zip", RNG.integers(1000, 9999, ROWS), "named as an identifier"),
        ("cardNumber", RNG.integers(0, 400, ROWS), "named as an identifier"),
        ("Unnamed: 0", np.arange(ROWS) * 7 % 9, "no name"),
        ("customer_id", np.rint(RNG.exponential(60, ROWS)), "named as an identifier"),
    ],
)
def test_numbers_that_tell_rows_apart_are_not(name: str, values: NDArray[np.generic], why: str) -> None:
    assert why in _why(name, values)
