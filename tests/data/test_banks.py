"""Many banks loaded at once have the rows they would load one by one from files of their own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from p2pfed.cluster.founding import found
from p2pfed.cluster.options import ClusterOptions
from p2pfed.data import synthetic
from p2pfed.data.banks import OddBank, Payments, generated_payments, load_banks
from p2pfed.data.features import load_bank
from p2pfed.errors import DataError
from p2pfed.experiment import shards
from p2pfed.runtime.enrolment import CONTRACT_CLIP
from tests.data.banks import NOW, payments

PARTS = ("train", "validation", "own_test", "pooled_test")
PAYMENTS = Payments(payments(8000, 160), "fraud", "when", "time", "lognormal:0.8", ("payment",))


def loaded(count: int = 8, of: Payments = PAYMENTS, **changes):
    return load_banks(of, count, **{"seed": 3, "clip": CONTRACT_CLIP, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {},  # generated payments at their banks, split by time
        {"split": "time", "time": "event_time", "partition": "lognormal:0.8", "gap_days": 3, "own_test_share": 0.2},
        {"split": "stratified", "partition": "dirichlet:0.3", "test_share": 0.2},
        {"split": "stratified", "time": "event_time", "partition": "by:bank"},
    ],
    ids=["generated", "time", "stratified", "by column"],
)
def test_the_rows_are_those_of_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict) -> None:
    monkeypatch.setattr(synthetic, "PAYMENTS_A_BANK", 3000)
    if changes:
        synthetic.generate(12_000, 4, 1).to_parquet(tmp_path / "all.parquet", index=False)
        drop = (*synthetic.IDENTIFIERS, *(() if "time" in changes else ("event_time",)))
        changes = {"data": tmp_path / "all.parquet", "label": "fraud", "drop": drop, **changes}
    options = ClusterOptions(nodes=4, seed=5, **changes)
    cluster = found(options, shards.deal(options, tmp_path / "data"), tmp_path)
    at_once = load_banks(
        shards.payments_of(options),
        4,
        seed=5,
        clip=CONTRACT_CLIP,
        test_share=options.test_share,
        gap_days=options.gap_days,
        own_test_share=options.own_test_share,
    )
    assert at_once.contract == cluster.manifest.contract
    for bank, rows in zip(cluster.banks, at_once.banks, strict=True):
        alone = load_bank(bank.data, cluster.manifest.contract, NOW).rows
        assert rows.legitimate_per_day == alone.legitimate_per_day
        for name in (*PARTS, "gate"):
            ours, theirs = getattr(rows, name), getattr(alone, name)
            assert len(ours) > 0 or (name == "gate" and rows.validation.frauds >= 20)
            np.testing.assert_array_equal(ours.features, theirs.features)
            np.testing.assert_array_equal(ours.labels, theirs.labels)


def test_rows_that_cannot_be_used_are_left_out_of_their_bank() -> None:
    frame = PAYMENTS.frame.copy()
    frame.loc[frame.index[::10], "age"] = np.nan
    gaps = loaded(of=replace(PAYMENTS, frame=frame))
    assert gaps.dropped["empty feature"] > 0
    rows = sum(len(part) for bank in gaps.banks for part in (bank.train, bank.validation, bank.own_test))
    assert rows + len(gaps.banks[0].pooled_test) == len(frame) - sum(gaps.dropped.values())


def test_the_banks_share_one_array_and_one_test() -> None:
    banks = loaded().banks
    assert len({id(bank.pooled_test) for bank in banks}) == 1
    assert len({id(bank.train.features.base) for bank in banks}) == 1


def test_the_pooled_test_is_cut_within_each_class() -> None:
    test = loaded(test_rows=400).banks[0].pooled_test
    assert (len(test), test.frauds) == (400, 8)
    assert len(loaded(test_rows=10_000).banks[0].pooled_test) == 2400


def test_the_odd_bank_is_small_and_elsewhere() -> None:
    plain, odd = loaded(), loaded(odd=OddBank(2, 120, 4.0))
    rows = odd.banks[2]
    everything = np.concatenate([rows.train.features, rows.validation.features, rows.own_test.features])
    assert len(everything) == 120
    assert rows.train.frauds + rows.validation.frauds + rows.own_test.frauds == min(
        30, sum(getattr(plain.banks[2], part).frauds for part in PARTS[:3])
    )
    legitimate = rows.train.features[rows.train.labels == 0]
    usual = plain.banks[2].train.features[plain.banks[2].train.labels == 0]
    numeric = [0, 3]
    moved = (legitimate.mean(axis=0) - usual.mean(axis=0))[numeric]
    assert 3 < np.sqrt(np.mean(moved**2)) < 5
    # a median holds the contract where it was
    np.testing.assert_allclose(odd.contract.moments.means, plain.contract.moments.means, atol=0.5)
    for i in (0, 1, 3, 7):
        assert len(odd.banks[i].train) == len(plain.banks[i].train)


def test_refusals_name_the_bank_and_the_number() -> None:
    with pytest.raises(DataError, match="5,600 rows give 18 banks of at least 300 rows each, not 19"):
        loaded(19)
    with pytest.raises(DataError, match=r"bank-3 was dealt \d+ rows: at most so many fit, not 5,000"):
        loaded(odd=OddBank(2, 5000, 1.0))
    frame = PAYMENTS.frame.assign(branch=np.where(np.arange(8000) % 20 == 0, "b", "a"))
    frame.loc[frame.branch == "b", "fraud"] = 1
    with pytest.raises(DataError, match="bank-2: all of its .* training rows are fraud"):
        loaded(2, replace(PAYMENTS, frame=frame, dealing="by:branch", drop=("payment", "branch")), min_rows=100)
    noon = PAYMENTS.frame.assign(branch=np.where(np.arange(8000) % 20 == 0, "b", "a"))
    noon.loc[noon.branch == "b", "when"] = noon.when.iloc[4000]
    with pytest.raises(DataError, match="bank-2: its .* usable rows leave none for"):
        loaded(2, replace(PAYMENTS, frame=noon, dealing="by:branch", drop=("payment", "branch")), min_rows=100)


def test_a_leak_is_found_in_all_rows() -> None:
    frame: pd.DataFrame = PAYMENTS.frame.assign(chargeback=PAYMENTS.frame.fraud * 2.0)
    with pytest.raises(DataError, match="'chargeback' repeats the label"):
        loaded(of=replace(PAYMENTS, frame=frame))


def test_generated_payments_are_at_their_banks() -> None:
    made = generated_payments(4000, 3, 1)
    assert made.dealing == "by:bank"
    assert set(made.drop) == {"bank", *synthetic.IDENTIFIERS}
