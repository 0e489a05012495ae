"""A bank's rows from file to arrays: mapping, encoding, scaling, splitting, and every way they can be wrong."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from p2pfed.core.contract import FeatureContract, Moments
from p2pfed.core.joining import declaration
from p2pfed.data import files
from p2pfed.data.features import LoadedBank, contract_moments, declared, load_bank, transform
from p2pfed.errors import DataError
from tests.data.banks import COLUMNS, CONTRACT, LOCAL, NOW, payments, section


def _load(folder: Path, frame: pd.DataFrame | str, contract: FeatureContract = CONTRACT, **changes: Any) -> LoadedBank:
    return load_bank(section(folder, frame, **changes), contract, NOW)


def _refusal(folder: Path, frame: pd.DataFrame | str, contract: FeatureContract = CONTRACT, **changes: Any) -> str:
    with pytest.raises(DataError) as caught:
        _load(folder, frame, contract, **changes)
    assert caught.value.exit_code == 78
    return str(caught.value)


# --- what becomes of good rows ----------------------------------------------------------------------------------------


def test_inputs_are_transformed_encoded_scaled_and_in_contract_order(tmp_path: Path) -> None:
    frame = payments()
    train = _load(tmp_path, frame).rows.train
    first = frame[:280]
    assert train.features.dtype == np.float32
    np.testing.assert_allclose(train.features[:, 0], np.log1p(first.amount) - 3.0, atol=1e-5)
    np.testing.assert_array_equal(train.features[:, 1], first.channel == "chip")
    np.testing.assert_array_equal(train.features[:, 2], first.channel == "online")
    np.testing.assert_allclose(train.features[:, 3], (first.age - 40) / 10, atol=1e-5)
    np.testing.assert_array_equal(train.labels, first.fraud)


def test_scaled_values_are_clipped(tmp_path: Path) -> None:
    frame = payments()
    frame.loc[0, "age"] = 1e9
    frame.loc[1, "age"] = -1e9
    assert _load(tmp_path, frame).rows.train.features[:2, 3].tolist() == [10.0, -10.0]


def test_renamed_columns_and_any_name_of_the_label(tmp_path: Path) -> None:
    frame = payments()
    renamed = frame.rename(columns={"amount": "TX_AMOUNT", "age": "alter", "fraud": "isFraud"})
    bank = _load(tmp_path, renamed, label="isFraud", columns={"amount": "TX_AMOUNT", "age": "alter"})
    np.testing.assert_array_equal(bank.rows.train.features, _load(tmp_path, frame).rows.train.features)


def test_identifiers_and_times_never_reach_the_model(tmp_path: Path) -> None:
    frame = payments()
    changed = frame.assign(payment=frame.payment * 7 + 1, when=frame.when + 5)
    np.testing.assert_array_equal(
        _load(tmp_path, frame).rows.train.features, _load(tmp_path, changed).rows.train.features
    )


def test_local_scaling_fits_on_the_banks_own_training_rows_only(tmp_path: Path) -> None:
    frame = payments()
    frame.loc[300:, "age"] = 1000.0  # validation and test look different: that must not show
    bank = _load(tmp_path, frame, LOCAL)
    assert bank.scaler.centre[1] == pytest.approx(frame.age[:280].mean())
    assert bank.scaler.scale[1] == pytest.approx(frame.age[:280].std(ddof=0))
    np.testing.assert_allclose(bank.rows.train.features[:, 3].mean(), 0, atol=1e-5)


def test_a_constant_column_is_centred_and_not_divided(tmp_path: Path) -> None:
    bank = _load(tmp_path, payments().assign(age=7.0), LOCAL)
    assert bank.scaler.scale[1] == 1.0
    assert not bank.rows.train.features[:, 3].any()


def test_report_is_json_and_adds_up(tmp_path: Path) -> None:
    report = _load(tmp_path, payments()).report
    assert json.loads(json.dumps(report)) == report
    assert (report["train_rows"], report["validation_rows"], report["own_test_rows"]) == (280, 60, 60)
    assert report["train_frauds"] + report["validation_frauds"] + report["own_test_frauds"] == 20
    assert report["pooled_test_rows"] == 0
    assert report["notes"] == []


def test_time_split_keeps_order_and_gap(tmp_path: Path) -> None:
    frame = payments().sample(frac=1, random_state=0)
    bank = _load(tmp_path, frame, gap_days=0.5)
    assert bank.report["dropped"]["gap between the parts"] == 24
    assert (bank.report["train_rows"], bank.report["own_test_rows"]) == (268, 60)


def test_stratified_split_needs_no_time(tmp_path: Path) -> None:
    report = _load(tmp_path, payments().drop(columns="when"), split="stratified", event_time=None).report
    frauds = [report[f"{part}_frauds"] for part in ("train", "validation", "own_test")]
    assert sum(frauds) == 20
    assert frauds[1] >= 1
    rows = [report[f"{part}_rows"] for part in ("train", "validation", "own_test")]
    assert rows == pytest.approx([280, 60, 60], abs=4 * (400 * 0.15 * 0.85) ** 0.5)


def test_exact_duplicates_stay_on_one_side(tmp_path: Path) -> None:
    frame = pd.concat([payments(300)] * 3)
    bank = _load(tmp_path, frame.sample(frac=1, random_state=1), LOCAL, split="stratified").rows
    seen = [{tuple(row) for row in part.features} for part in (bank.train, bank.validation, bank.own_test)]
    assert all(seen)
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])


def test_pooled_test_is_read_through_the_same_mapping(tmp_path: Path) -> None:
    files.write(payments(50, 5, seed=9), tmp_path / "test.parquet")
    bank = _load(tmp_path, payments(), pooled_test=tmp_path / "test.parquet", label_maturity_days=2)
    assert (len(bank.rows.pooled_test), bank.rows.pooled_test.frauds) == (50, 5)
    np.testing.assert_allclose(bank.rows.pooled_test.features[:, 3], (payments(50, 5, seed=9).age - 40) / 10, atol=1e-5)


def test_immature_labels_neither_train_nor_validate(tmp_path: Path) -> None:
    frame = payments()
    bank = _load(tmp_path, frame, label_maturity_days=5)
    assert bank.report["dropped"] == {"label not mature": 5 * 24 - 1}
    kept = bank.report["train_rows"] + bank.report["validation_rows"] + bank.report["own_test_rows"]
    assert kept == 400 - 119


def test_legitimate_payments_a_day(tmp_path: Path) -> None:
    assert _load(tmp_path, payments()).rows.legitimate_per_day == pytest.approx(24, rel=0.1)
    stratified = _load(tmp_path, payments(), split="stratified")
    assert stratified.rows.legitimate_per_day == pytest.approx(24, rel=0.1)
    without_time = _load(tmp_path, payments().drop(columns="when"), split="stratified", event_time=None)
    assert without_time.rows.legitimate_per_day == 0


# --- missing, infinite, unknown ---------------------------------------------------------------------------------------


def _with_holes() -> pd.DataFrame:
    frame = payments()
    frame.loc[0, "amount"] = np.nan
    frame.loc[1, "age"] = np.inf
    frame.loc[2, "channel"] = None
    frame["fraud"] = frame.fraud.astype("Int8")
    frame.loc[5, "fraud"] = None
    frame.loc[6, "when"] = None
    return frame


def test_rows_with_holes_are_dropped_and_counted(tmp_path: Path) -> None:
    bank = _load(tmp_path, _with_holes())
    assert bank.report["rows_read"] == 400
    assert bank.report["dropped"] == {"no label": 1, "no event_time": 1, "empty feature": 2, "infinite feature": 1}


def test_or_imputed_by_the_training_median_and_no_level(tmp_path: Path) -> None:
    bank = _load(tmp_path, _with_holes(), LOCAL, missing="impute")
    assert bank.report["dropped"] == {"no label": 1, "no event_time": 1}
    assert bank.report["imputed"] == {"amount": 1, "age": 1, "channel": 1}
    frame = _with_holes().drop(index=[5, 6])
    train = frame[: bank.report["train_rows"]].replace([np.inf], np.nan)
    assert bank.scaler.fill[1] == train.age.median()
    expected = (train.age.median() - bank.scaler.centre[1]) / bank.scaler.scale[1]
    assert bank.rows.train.features[1, 3] == pytest.approx(expected)
    assert bank.rows.train.features[2, 1:3].tolist() == [0, 0]
    assert np.isfinite(bank.rows.train.features).all()


def test_a_number_too_large_for_the_model_counts_as_infinite(tmp_path: Path) -> None:
    frame = payments()
    frame.loc[0, "age"] = 1e300
    assert _load(tmp_path, frame).report["dropped"] == {"infinite feature": 1}


def test_unknown_category_is_all_zeros_and_counted(tmp_path: Path) -> None:
    frame = payments()
    frame.loc[:2, "channel"] = "telepathy"
    bank = _load(tmp_path, frame)
    assert bank.report["unknown_levels"] == {"channel": 3}
    assert not bank.rows.train.features[:3, 1:3].any()


def test_a_column_of_which_every_level_is_spelled_otherwise_is_refused(tmp_path: Path) -> None:
    frame = payments().assign(art=lambda f: f.channel.str.upper()).drop(columns="channel")
    said = _refusal(tmp_path, frame, columns={"channel": "art"})
    assert "column 'art': none of the 400 usable rows has a level that the contract lists for 'channel'" in said
    with pytest.raises(DataError, match="compare the spelling"):
        declared(section(tmp_path, frame, columns={"channel": "art"}), COLUMNS, NOW)
    frame.loc[0, "art"] = "chip"
    assert "column 'channel': 399 of 400 rows" in _load(tmp_path, frame, columns={"channel": "art"}).report["notes"][0]


def test_unknown_levels_are_noted_from_the_share_on_that_is_refused_later(tmp_path: Path) -> None:
    frame = payments()
    frame.loc[:3, "channel"] = "telepathy"
    assert _load(tmp_path, frame).report["notes"] == []
    frame.loc[4, "channel"] = "telepathy"
    assert "column 'channel': 5 of 400 rows have a level" in _load(tmp_path, frame).report["notes"][0]


def test_a_column_without_any_value(tmp_path: Path) -> None:
    frame = payments().assign(age=np.nan)
    said = _refusal(tmp_path, frame)
    assert "none of the 400 rows" in said
    assert "400 have empty feature" in said
    assert "missing: impute" in said
    assert "column 'age' is empty in every training row" in _refusal(tmp_path, frame, missing="impute")


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_missing_column(tmp_path: Path) -> None:
    said = _refusal(tmp_path, payments().rename(columns={"amount": "amounts"}))
    assert "payments.csv has no column 'amount' (did you mean 'amounts'?)" in said
    assert "data.columns" in said


def test_missing_label(tmp_path: Path) -> None:
    assert "no column 'is_fraud' (did you mean 'fraud'?)" in _refusal(tmp_path, payments(), label="is_fraud")


def test_mapping_of_a_column_that_the_contract_does_not_have(tmp_path: Path) -> None:
    said = _refusal(tmp_path, payments(), columns={"amonut": "amount"})
    assert "data.columns maps 'amonut'" in said
    assert "did you mean 'amount'?" in said


@pytest.mark.parametrize(("own", "role"), [("fraud", "label"), ("when", "event_time")])
def test_label_and_time_are_never_features(tmp_path: Path, own: str, role: str) -> None:
    assert f"reads '{own}', which is data.{role}" in _refusal(tmp_path, payments(), columns={"age": own})


def test_text_in_a_number(tmp_path: Path) -> None:
    frame = payments().astype({"age": object})
    frame.loc[41, "age"] = "forty"
    assert "row 42, column 'age' is not a number" in _refusal(tmp_path, frame)


def test_a_time_without_a_zone(tmp_path: Path) -> None:
    frame = payments().assign(when=[t.isoformat() for t in pd.date_range("2026-01-01", periods=400, freq="h")])
    assert "row 1, column 'when' is a time without a zone" in _refusal(tmp_path, frame)


def test_an_unreadable_label(tmp_path: Path) -> None:
    frame = payments().astype({"fraud": object})
    frame.loc[3, "fraud"] = "perhaps"
    assert "row 4, column 'fraud' is not a label" in _refusal(tmp_path, frame)


def test_empty_file(tmp_path: Path) -> None:
    assert "payments.csv is empty" in _refusal(tmp_path, "")
    assert "payments.csv has no rows" in _refusal(tmp_path, "when,amount,channel,age,fraud\n")


def test_a_file_cut_in_the_middle(tmp_path: Path) -> None:
    text = payments().to_csv(index=False)
    assert "was cut" in _refusal(tmp_path, text[: text.rindex(",", 0, len(text) // 2)])


def test_no_fraud_at_all_is_a_bank_that_listens(tmp_path: Path) -> None:
    bank = _load(tmp_path, payments(frauds=0))
    assert bank.rows.train.frauds == 0
    assert len(bank.rows.train) == 280
    assert "this bank listens" in bank.report["notes"][0]


def test_only_fraud(tmp_path: Path) -> None:
    assert "all 400 usable rows are fraud; check that 'fraud' is the label" in _refusal(
        tmp_path, payments().assign(fraud=1)
    )


@pytest.mark.parametrize(("rows", "part"), [(slice(0, 320), "training"), (slice(280, 399), "validation")])
def test_one_class_after_the_split(tmp_path: Path, rows: slice, part: str) -> None:
    frame = payments(frauds=0)
    frame.loc[rows, "fraud"] = 1
    assert f"after the time split all {280 if part == 'training' else 60} {part} rows are fraud" in _refusal(
        tmp_path, frame, leak_alarm=False
    )


def test_no_fraud_in_validation_is_noted(tmp_path: Path) -> None:
    frame = payments(frauds=0)
    frame.loc[:50:5, "fraud"] = 1
    notes = _load(tmp_path, frame).report["notes"]
    assert [n.split(":")[0] for n in notes] == ["no validation row is fraud", "no own_test row is fraud"]


def test_one_row(tmp_path: Path) -> None:
    assert "leaves no" in _refusal(tmp_path, payments(1, 0))
    assert "leaves no" in _refusal(tmp_path, payments(1, 0), split="stratified")


def test_every_label_too_young(tmp_path: Path) -> None:
    said = _refusal(tmp_path, payments(), label_maturity_days=45)
    assert "400 have label not mature" in said
    assert "label_maturity_days" in said


def test_maturity_without_a_time(tmp_path: Path) -> None:
    said = _refusal(tmp_path, payments(), split="stratified", event_time=None, label_maturity_days=45)
    assert "label_maturity_days needs data.event_time" in said


def test_a_gap_longer_than_the_data(tmp_path: Path) -> None:
    assert "leaves no training rows" in _refusal(tmp_path, payments(), gap_days=30)


def test_a_column_that_gives_the_label_away(tmp_path: Path) -> None:
    frame = payments().assign(age=lambda f: f.fraud * 3 + 5)
    assert "column 'age' repeats the label" in _refusal(tmp_path, frame)
    assert len(_load(tmp_path, frame, leak_alarm=False).rows.train) == 280


# --- transform and moments --------------------------------------------------------------------------------------------


def test_transform_gives_what_training_saw(tmp_path: Path) -> None:
    frame = payments()
    data = section(tmp_path, frame)
    for contract in (CONTRACT, LOCAL):
        bank = load_bank(data, contract, NOW)
        scored = transform(frame[["age", "channel", "amount"]], data, contract, bank.scaler)
        np.testing.assert_array_equal(scored[:280], bank.rows.train.features)


def test_transform_marks_rows_that_training_would_drop(tmp_path: Path) -> None:
    frame = _with_holes()
    for missing, marked in (("drop", [0, 1, 2]), ("impute", [])):
        data = section(tmp_path, frame, missing=missing)
        bank = load_bank(data, LOCAL, NOW)
        scored = transform(frame, data, LOCAL, bank.scaler)
        assert np.flatnonzero(np.isnan(scored).all(axis=1)).tolist() == marked
        assert np.isfinite(np.delete(scored, marked, axis=0)).all()


def test_transform_names_what_is_wrong(tmp_path: Path) -> None:
    frame = payments()
    data = section(tmp_path, frame)
    scaler = load_bank(data, CONTRACT, NOW).scaler
    with pytest.raises(DataError, match="no column 'age'"):
        transform(frame.drop(columns="age"), data, CONTRACT, scaler)


def test_moments_are_those_of_the_training_rows(tmp_path: Path) -> None:
    frame = payments()
    found, told, _ = declared(section(tmp_path, frame), COLUMNS, NOW)
    train = frame[:280]
    assert told == declaration(280, train.fraud.sum())
    assert told.training_rows == 256 and told.legitimate_per_fraud > 1
    assert found.means == pytest.approx((np.log1p(train.amount).mean(), train.age.mean()))
    assert found.deviations == pytest.approx((np.log1p(train.amount).std(ddof=0), train.age.std(ddof=0)))
    assert set(asdict(found)) == {"means", "deviations"}


def test_moments_are_bounded(tmp_path: Path) -> None:
    frame = payments().assign(age=1e30)
    found, _, _ = declared(section(tmp_path, frame), COLUMNS, NOW)
    assert found.means[1] == 1e12


def test_contract_moments_are_the_median_and_never_zero() -> None:
    banks = [Moments((1.0, 5.0), (1.0, 0.0)), Moments((2.0, 6.0), (2.0, 0.0)), Moments((1e9, 7.0), (1e9, 3.0))]
    assert contract_moments(banks) == Moments((2.0, 6.0), (2.0, 1.0))
    with pytest.raises(ValueError, match="at least one bank"):
        contract_moments([])
    with pytest.raises(ValueError, match="same columns"):
        contract_moments([banks[0], Moments((1.0,), (1.0,))])


def test_a_contract_of_categories_only(tmp_path: Path) -> None:
    columns = (COLUMNS[1],)
    data = section(tmp_path, payments())
    found, _, _ = declared(data, columns, NOW)
    contract = FeatureContract(columns, "fraud", "contract", contract_moments([found]), 10.0)
    assert load_bank(data, contract, NOW).rows.train.features.shape == (280, 2)
