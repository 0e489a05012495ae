"""One data set dealt to banks, and its held-out test."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from p2pfed.data.partition import MIN_BANK_ROWS, deduplicate, holdout, partition
from p2pfed.errors import DataError, UsageError
from tests.data.banks import payments

FRAME = payments(8000, 160)


def _cover(banks: list[pd.DataFrame], frame: pd.DataFrame) -> bool:
    return sorted(pd.concat(banks).payment) == sorted(frame.payment)


@pytest.mark.parametrize("how", ["iid", "dirichlet:0.5", "dirichlet:0.05", "lognormal:0.8", "lognormal:3"])
@pytest.mark.parametrize("banks", [1, 4, 20])
def test_each_row_has_one_bank_and_no_bank_too_few(how: str, banks: int) -> None:
    dealt = partition(FRAME, "fraud", banks, how, 3)
    assert len(dealt) == banks
    assert _cover(dealt, FRAME)
    assert min(map(len, dealt)) >= MIN_BANK_ROWS
    for bank in dealt:
        assert bank.payment.is_monotonic_increasing
        assert list(bank.index) == list(range(len(bank)))


def test_iid_deals_evenly() -> None:
    assert {(len(b), b.fraud.sum()) for b in partition(FRAME, "fraud", 4, "iid")} == {(2000, 40)}


def test_lognormal_mixes_the_classes_evenly() -> None:
    dealt = partition(FRAME, "fraud", 4, "lognormal:1", 1)
    assert max(map(len, dealt)) > 2 * min(map(len, dealt))
    assert all(b.fraud.mean() == pytest.approx(0.02, abs=0.002) for b in dealt)


def test_dirichlet_deals_frauds_unevenly() -> None:
    counts = [b.fraud.sum() for b in partition(FRAME, "fraud", 8, "dirichlet:0.3", 0)]
    assert max(counts) > 10 * max(min(counts), 1)


def test_the_seed_deals() -> None:
    first, same, other = (partition(FRAME, "fraud", 4, "dirichlet:0.5", s) for s in (5, 5, 6))
    assert all(a.equals(b) for a, b in zip(first, same, strict=True))
    assert not first[0].equals(other[0])


def test_by_column() -> None:
    frame = FRAME.assign(branch=np.repeat(["b", "a", "c"], [4000, 3000, 1000]))
    dealt = partition(frame, "fraud", 2, "by:branch")
    assert [len(b) for b in dealt] == [3000, 4000]
    assert "branch" not in dealt[0].columns


@pytest.mark.parametrize(
    "how", ["", "random", "by:", "dirichlet", "dirichlet:", "dirichlet:0", "lognormal:-1", "lognormal:nan", "iid:3"]
)
def test_unknown_dealing(how: str) -> None:
    with pytest.raises(UsageError):
        partition(FRAME, "fraud", 4, how)


def test_no_bank() -> None:
    with pytest.raises(UsageError, match="at least one bank"):
        partition(FRAME, "fraud", 0, "iid")


def test_too_few_rows() -> None:
    with pytest.raises(DataError, match="500 rows give 1 banks of at least 300 rows each, not 2"):
        partition(FRAME[:500], "fraud", 2, "iid")


def test_by_a_column_with_too_few_values_or_rows() -> None:
    with pytest.raises(DataError, match="has 2 values and gives 2 banks of at least 300 rows each, not 3"):
        partition(FRAME, "fraud", 3, "by:channel")
    frame = FRAME.assign(branch=np.repeat(["a", "b"], [7900, 100]))
    with pytest.raises(DataError, match="gives 1 banks of at least 300 rows"):
        partition(frame, "fraud", 2, "by:branch")
    with pytest.raises(DataError, match="no column 'brunch'"):
        partition(frame, "fraud", 2, "by:brunch")
    with pytest.raises(DataError, match="no column 'frod'"):
        partition(frame, "frod", 2, "iid")


def test_a_stratified_holdout_has_both_classes_and_no_duplicate() -> None:
    doubled = pd.concat([FRAME, FRAME[:500]])
    rest, test, left_out = holdout(doubled, "fraud", "stratified", test_share=0.25, seed=1)
    assert (len(rest), len(test)) == (6000, 2000)
    assert test.fraud.sum() == 40
    assert _cover([rest, test], FRAME)
    assert left_out == {"exact duplicate": 500}


def test_a_time_holdout_is_the_newest() -> None:
    shuffled = FRAME.sample(frac=1, random_state=0)
    rest, test, left_out = holdout(shuffled, "fraud", "time", "when", 0.25, gap_days=1)
    assert len(test) == 2000
    assert test.when.min() - rest.when.max() > 86_400
    assert len(rest) == 6000 - 24
    assert left_out == {"exact duplicate": 0, "no event_time": 0, "gap before the test": 24}


def test_rows_without_a_time_are_counted_apart_from_the_gap() -> None:
    frame = FRAME.astype({"when": float})
    frame.loc[:9, "when"] = np.nan
    rest, test, left_out = holdout(frame, "fraud", "time", "when", 0.25, gap_days=1)
    assert left_out["no event_time"] == 10 and left_out["gap before the test"] > 0
    assert len(rest) + len(test) + sum(left_out.values()) == len(FRAME)


def test_holdout_refusals() -> None:
    with pytest.raises(UsageError, match="needs the time column"):
        holdout(FRAME, "fraud", "time")
    with pytest.raises(UsageError, match="unknown split 'odd'"):
        holdout(FRAME, "fraud", "odd")
    with pytest.raises(DataError, match="no column 'day'"):
        holdout(FRAME, "fraud", "time", "day")
    with pytest.raises(DataError, match="different rows, .* gap of 10000 days leave the rest no rows"):
        holdout(FRAME, "fraud", "time", "when", gap_days=10_000)


def test_the_least_rows_can_be_chosen() -> None:
    dealt = partition(FRAME, "fraud", 200, "lognormal:1", 0, min_rows=25)
    assert _cover(dealt, FRAME)
    assert min(map(len, dealt)) == 25


def test_rows_equal_but_for_a_dropped_column_are_on_one_side_of_the_holdout() -> None:
    frame = pd.concat([FRAME.drop(columns="when")] * 3, ignore_index=True).assign(payment=lambda f: f.index)
    rest, test, left_out = holdout(frame, "fraud", "stratified", test_share=0.25, seed=1, drop=["payment"])
    kept = [c for c in frame if c != "payment"]
    assert left_out == {"exact duplicate": 0} and len(rest) + len(test) == len(frame)
    assert 0.2 < len(test) / len(frame) < 0.3
    assert len(rest.merge(test, on=kept)) == 0
    alone, _, _ = holdout(frame.drop_duplicates(kept), "fraud", "stratified", test_share=0.25, seed=1, drop=["payment"])
    same, _, _ = holdout(frame.drop_duplicates(kept), "fraud", "stratified", test_share=0.25, seed=1)
    pd.testing.assert_frame_equal(alone, same)


def test_deduplicate_keeps_the_first() -> None:
    frame = pd.DataFrame({"a": [1, 2, 1], "b": [None, "x", None]}, index=[5, 6, 7])
    assert deduplicate(frame).fillna("-").to_dict("list") == {"a": [1, 2], "b": ["-", "x"]}
