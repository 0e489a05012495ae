"""Each payment is scored once, by the model that served when it happened."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from p2pfed.core.contract import FeatureColumn, FeatureContract, Moments, Scaler
from p2pfed.core.model import ModelSpec
from p2pfed.core.served import ServedDay
from p2pfed.core.types import DAY
from p2pfed.data.features import load_bank
from p2pfed.learning.bundle import ModelBundle
from p2pfed.learning.prequential import prequential
from tests.data import banks

SPEC = ModelSpec("mlp", 1, (1,), 0.0)
CONTRACT = FeatureContract((FeatureColumn("amount", "numeric", (), "none"),), "fraud", "local", Moments((), ()), 10.0)
NOON = 20_000 * DAY + DAY / 2
TODAY, TOMORROW = "2024-10-04", "2024-10-05"


def version(slope: float, threshold: float = 0.6, centre: float = 0.0) -> ModelBundle:
    """Scores rise with the amount for a slope above 0 and fall for one below; 0 scores one half."""
    vector = np.array([1.0, 10.0, slope, -10.0 * slope], np.float32)
    return ModelBundle(SPEC, CONTRACT, Scaler((centre,), (1.0,), (0.0,)), threshold, vector, {})


@dataclass(frozen=True)
class Payments:
    amounts: list[float]
    labels: NDArray[np.float32]
    times: NDArray[np.float64]
    contract: FeatureContract = CONTRACT

    def fits(self, contract: FeatureContract) -> bool:
        return contract == self.contract

    def inputs(self, contract: FeatureContract, scaler: Scaler, chosen: NDArray[np.bool_]) -> NDArray[np.float32]:
        amounts = np.array(self.amounts, np.float32)[chosen]
        return ((amounts - np.float32(scaler.centre[0])) / np.float32(scaler.scale[0]))[:, None]


def payments(*rows: tuple[float, float, int]) -> Payments:
    """Rows of hours after NOON, amount and label."""
    hours, amounts, labels = zip(*rows, strict=True)
    return Payments(list(amounts), np.array(labels, np.float32), NOON + 3600.0 * np.array(hours))


def test_a_day_is_measured_at_the_threshold_that_was_in_force() -> None:
    served = version(1.0)
    rows = payments((0, 5, 1), (1, 4, 0), (2, -1, 0), (3, -2, 1), (4, 6, 1))
    (day,) = prequential(rows, [(NOON - 1, served)])
    # in falling order: fraud, fraud, legitimate, legitimate, fraud
    expected = ServedDay(TODAY, 5, 3, 3, 2, pytest.approx((1 + 1 + 3 / 5) / 3), served.weights_sha256)
    assert day == expected and day.recall == day.precision == 2 / 3
    (strict,) = prequential(rows, [(NOON - 1, replace(served, threshold=0.9999))])
    assert (strict.auprc, strict.recall, strict.precision) == (day.auprc, 0.0, None)


def test_each_row_by_the_version_of_its_time() -> None:
    up, down = version(1.0), version(-1.0)
    rows = payments((-1, 5, 1), (0, 5, 1), (2, 5, 1), (3, -5, 0), (24, -5, 1))
    given = [(NOON + 3600, down), (NOON, up)]  # in any order
    today, tomorrow = prequential(rows, given)
    assert (today.day, today.rows, today.frauds) == (TODAY, 3, 2)  # nothing served an hour before noon
    assert today.recall == 1 / 2
    assert today.precision == 1 / 2
    assert today.model == down.weights_sha256
    assert (tomorrow.day, tomorrow.recall, tomorrow.model) == (TOMORROW, 1.0, down.weights_sha256)
    (other,) = prequential(payments((0, 5, 1), (0.5, 5, 0), (2, 5, 0)), given)
    assert other.model == up.weights_sha256


def test_who_scored_as_many_and_is_newer_gives_the_day_its_name() -> None:
    up, down = version(1.0), version(-1.0)
    (day,) = prequential(payments((0, 5, 1), (2, 5, 0)), [(NOON, up), (NOON + 3600, down)])
    assert day.model == down.weights_sha256


def test_each_version_scales_as_it_did() -> None:
    rows = payments((0, 5, 1), (2, 5, 1))
    (day,) = prequential(rows, [(NOON, version(1.0, centre=20.0)), (NOON + 3600, version(1.0, centre=0.0))])
    assert day.recall == 1 / 2


def test_days_without_frauds_or_models() -> None:
    (quiet,) = prequential(payments((0, -1, 0), (1, -2, 0)), [(NOON, version(1.0))])
    assert (quiet.rows, quiet.frauds, quiet.auprc, quiet.recall, quiet.precision) == (2, 0, None, None, None)
    assert prequential(payments((0, -1, 0)), []) == []
    assert prequential(payments((0, -1, 0)), [(NOON + 1, version(1.0))]) == []
    nothing = Payments([], np.empty(0, np.float32), np.empty(0))
    assert prequential(nothing, [(NOON, version(1.0))]) == []


def test_versions_of_another_contract_are_left_out() -> None:
    other = FeatureContract((FeatureColumn("sum", "numeric", (), "none"),), "fraud", "local", Moments((), ()), 10.0)
    old = ModelBundle(SPEC, other, Scaler((0.0,), (1.0,), (0.0,)), 0.5, version(1.0).vector, {})
    (day,) = prequential(payments((0, 5, 1), (2, 5, 1)), [(NOON, old), (NOON + 3600, version(1.0))])
    assert (day.rows, day.recall) == (1, 1.0)


def test_a_late_label_counts_once_and_as_it_was(tmp_path: Path) -> None:
    frame = banks.payments()
    spec = ModelSpec("mlp", banks.CONTRACT.width, (4,), 0.0)
    counted, since = 0, None
    for day in range(6):
        if day == 4:  # a chargeback for a payment that matured two days before
            when = banks.NOW - DAY - 3600
            assert frame.loc[frame.when == when, "fraud"].item() == 0
            frame.loc[frame.when == when, "fraud"] = 1
        data = banks.section(tmp_path, frame, label_maturity_days=3)
        bank = load_bank(data, banks.CONTRACT, banks.NOW + day * DAY, since)
        bundle = ModelBundle(spec, banks.CONTRACT, bank.scaler, 0.5, spec.initial_weights(0).vector, {})
        days = prequential(bank.matured, [(0.0, bundle)])
        assert sum(d.rows for d in days) == len(bank.matured)
        counted += sum(d.rows for d in days)
        if day >= 4:
            assert not days
        since = bank.reading.mature_until
    # all that matured after the first reading, each once
    assert counted == (frame.when > banks.NOW - 3 * DAY).sum()
