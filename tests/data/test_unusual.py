"""Generated banks that differ honestly."""

from __future__ import annotations

import pandas as pd
import pytest

from p2pfed.data import synthetic
from p2pfed.data.unusual import FEWEST_BANKS, KINDS, TINY, unusual
from p2pfed.errors import UsageError


@pytest.fixture(scope="module")
def before() -> pd.DataFrame:
    return synthetic.generate(220_000, banks=FEWEST_BANKS, seed=3)


@pytest.fixture(scope="module")
def after(before: pd.DataFrame) -> pd.DataFrame:
    return unusual(before, seed=3)


def bank(frame: pd.DataFrame, kind: str) -> pd.DataFrame:
    return frame[frame[synthetic.BANK] == KINDS.index(kind)]


def usual(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame[synthetic.BANK] >= len(KINDS)]


def test_each_of_the_five_differs_in_its_way(before: pd.DataFrame, after: pd.DataFrame) -> None:
    rate = bank(after, "frauds").fraud.mean() / bank(before, "frauds").fraud.mean()
    assert 6 < rate < 9
    spent = bank(after, "customers").amount.median() / bank(before, "customers").amount.median()
    assert 3.6 < spent < 4.4
    assert len(bank(after, "tiny")) == TINY and bank(after, "tiny").fraud.sum() > 0
    assert len(bank(after, "huge")) == len(bank(before, "huge"))
    weeks = (bank(after, "season").event_time - before.event_time.min()) // (7 * 86400)
    assert set(weeks % 4) == {0}


def test_the_others_are_as_they_were_but_fewer(before: pd.DataFrame, after: pd.DataFrame) -> None:
    assert len(usual(after)) == pytest.approx(len(usual(before)) / 4, rel=0.05)
    assert usual(after).amount.median() == pytest.approx(usual(before).amount.median(), rel=0.1)
    assert after.event_time.is_monotonic_increasing and after.payment_id.is_unique
    pd.testing.assert_frame_equal(unusual(before, seed=3), after)


def test_more_than_half_cannot_be_unusual(before: pd.DataFrame) -> None:
    with pytest.raises(UsageError, match="say 11 or more"):
        unusual(before[before[synthetic.BANK] < 10])
