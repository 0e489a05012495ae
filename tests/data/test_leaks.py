"""The leak alarm rings for columns written after the fact, and for nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from p2pfed.core.contract import FeatureColumn
from p2pfed.data.describe import describe, propose_contract
from p2pfed.data.features import declared
from p2pfed.data.leaks import MIN_FRAUDS, auroc, check_leaks
from p2pfed.data.table import Table
from p2pfed.errors import DataError
from tests.data.banks import COLUMNS, NOW, payments, section

NUMBER = (FeatureColumn("refund", "numeric", (), "none"),)
LEVEL = (FeatureColumn("status", "categorical", ("open", "closed", "disputed"), "none"),)


def _labels(frauds: int, rows: int = 5000) -> np.ndarray:
    return (np.arange(rows) < frauds).astype(np.float32)


def _table(labels: np.ndarray, numbers: np.ndarray | None = None, codes: np.ndarray | None = None) -> Table:
    none = np.empty((len(labels), 0))
    return Table(
        (none if numbers is None else numbers[:, None]).astype(np.float32),
        (none if codes is None else codes[:, None]).astype(np.int32),
        labels,
        None,
        np.arange(len(labels)),
        len(labels),
        {},
        (0, 0),
        {},
        {},
        len(labels),
        0,
        None,
        None,
    )


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=50),
    st.lists(st.integers(0, 9), min_size=1, max_size=50),
)
def test_area_is_that_of_scikit_learn(frauds: list[int], legitimate: list[int]) -> None:
    expected = roc_auc_score([1] * len(frauds) + [0] * len(legitimate), frauds + legitimate)
    assert auroc(np.array(frauds, float), np.array(legitimate, float)) == pytest.approx(expected)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("frauds", [MIN_FRAUDS, 400])
def test_a_column_that_all_but_repeats_the_label(frauds: int, sign: int) -> None:
    labels = _labels(frauds)
    values = sign * (labels * 4.2 + np.random.default_rng(0).normal(size=len(labels)))
    with pytest.raises(DataError, match=r"column 'refund' alone .*AUROC 0\.99.*leak_alarm: false"):
        check_leaks(_table(labels, values), NUMBER)


@pytest.mark.parametrize("frauds", [2, 400])
@pytest.mark.parametrize("pair", [(0, 1), (7.5, -3)])
def test_a_column_that_repeats_the_label(frauds: int, pair: tuple[float, float]) -> None:
    labels = _labels(frauds)
    with pytest.raises(DataError, match="column 'refund' repeats the label"):
        check_leaks(_table(labels, np.where(labels == 1, *pair)), NUMBER)


def test_a_level_that_only_frauds_have() -> None:
    labels = _labels(50)
    codes = np.where(labels == 1, 2, np.arange(len(labels)) % 2)
    with pytest.raises(DataError, match=r"column 'status' (alone|repeats)"):
        check_leaks(_table(labels, codes=codes), LEVEL)


def test_good_columns_pass() -> None:
    labels = _labels(200)
    rng = np.random.default_rng(1)
    check_leaks(_table(labels, labels * 3 + rng.normal(size=len(labels))), NUMBER)  # AUROC 0.983
    check_leaks(_table(labels, codes=np.where(rng.random(len(labels)) < 0.5, labels * 2, 1)), LEVEL)
    check_leaks(_table(labels, np.ones(len(labels))), NUMBER)


def test_few_frauds_ring_no_alarm_by_luck() -> None:
    labels = _labels(MIN_FRAUDS - 1)
    values = np.random.default_rng(2).normal(size=len(labels))
    values[labels == 1] += 5
    check_leaks(_table(labels, values), NUMBER)


@pytest.mark.parametrize("frauds", [0, 1, 5000])
def test_nothing_to_say_without_both_classes(frauds: int) -> None:
    labels = _labels(frauds)
    check_leaks(_table(labels, labels), NUMBER)


def test_missing_values_are_left_out_of_the_area() -> None:
    labels = _labels(400)
    values = labels * 6 + np.random.default_rng(0).normal(size=len(labels))
    values[::3] = np.nan
    with pytest.raises(DataError, match="'refund'"):
        check_leaks(_table(labels, values), NUMBER)


def _two_that_leak_together() -> pd.DataFrame:
    """Frauds are the payments of the whole balance, which neither column tells alone."""
    frame = payments(3000, 200).drop(columns="channel")
    other = np.random.default_rng(3).permutation(frame.amount)
    return frame.assign(balance=frame.amount.where(frame.fraud == 1, other), amount=frame.amount)


def test_two_columns_that_tell_frauds_together_are_said_and_no_error(tmp_path: Path) -> None:
    data = section(tmp_path, _two_that_leak_together())
    (said,) = describe(data.source, "fraud", ["payment"], "when")["leaks"]
    assert said.startswith("columns 'amount' and 'balance' together tell fraud")
    columns = propose_contract(data.source, "fraud", ["payment"], "when")
    assert declared(data, columns, NOW).notes == (said,)
    assert declared(data.model_copy(update={"leak_alarm": False}), columns, NOW).notes == ()


@pytest.mark.parametrize("legitimate", [0, 1, 3])
def test_hardly_a_legitimate_payment_is_nothing_to_learn_pairs_from(tmp_path: Path, legitimate: int) -> None:
    data = section(tmp_path, payments(300, 300).assign(fraud=lambda f: (f.index >= legitimate).astype(int)))
    assert describe(data.source, "fraud", ["payment"], "when")["leaks"] == []
    assert not any("together" in note for note in declared(data, COLUMNS, NOW).notes)


def test_a_leak_is_said_by_describe_and_refused_by_init(tmp_path: Path) -> None:
    data = section(tmp_path, payments().assign(refund=lambda f: f.fraud * 2))
    (said,) = describe(data.source, "fraud", ["payment"], "when")["leaks"]
    assert said.startswith("column 'refund' repeats the label")
    with pytest.raises(DataError, match="'refund' repeats the label.*drop it from the contract"):
        declared(data, propose_contract(data.source, "fraud", ["payment"], "when"), NOW)


def test_payments_without_a_leak_are_not_suspected(tmp_path: Path) -> None:
    source = section(tmp_path, payments(3000, 200)).source
    assert describe(source, "fraud", ["payment"], "when")["leaks"] == []
