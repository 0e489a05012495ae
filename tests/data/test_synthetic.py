"""Generated payments: shape, frauds, drift, and that a bank alone misses what the others know."""

from __future__ import annotations

import datetime

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import average_precision_score

from p2pfed.core.types import DAY
from p2pfed.data import synthetic
from p2pfed.data.leaks import auroc
from p2pfed.errors import UsageError

FEATURES_DROP = [synthetic.EVENT_TIME, synthetic.BANK, synthetic.LABEL, *synthetic.IDENTIFIERS]


@pytest.fixture(scope="module")
def payments() -> pd.DataFrame:
    return synthetic.generate(60_000, banks=4, seed=7)


@pytest.fixture(scope="module")
def many() -> pd.DataFrame:
    return synthetic.generate(300_000, banks=4, seed=3)


def _features(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.get_dummies(frame.drop(columns=FEATURES_DROP), dtype=np.float32)


def test_size_order_and_types(payments: pd.DataFrame) -> None:
    assert len(payments) == 60_000
    assert payments[synthetic.EVENT_TIME].is_monotonic_increasing
    assert payments.payment_id.is_unique
    assert not payments.isna().any().any()
    assert np.isfinite(payments.select_dtypes("number").to_numpy(float)).all()
    assert (payments.amount >= 0.01).all()
    span = np.ptp(payments[synthetic.EVENT_TIME]) / DAY
    assert 115 < span < 120


def test_frauds_are_rare_and_of_every_kind(payments: pd.DataFrame) -> None:
    assert 0.005 < payments[synthetic.LABEL].mean() < 0.01
    assert ((payments.pattern > 0) == (payments[synthetic.LABEL] == 1)).all()
    counts = payments.pattern[payments.pattern > 0].value_counts()
    assert sorted(counts.index) == list(range(1, len(synthetic.PATTERNS) + 1))
    assert counts.min() == counts.max()


def test_each_bank_sees_some_kinds_first_and_all_later(many: pd.DataFrame) -> None:
    day = (many[synthetic.EVENT_TIME] - synthetic.START) / DAY
    frauds = many.pattern > 0
    early = many[frauds & (day < 120 * synthetic.SPREAD_FROM - 1)]
    for bank, seen in early.groupby(synthetic.BANK):
        assert set(seen.pattern) == synthetic.patterns_of(int(bank), 4)
        assert len(set(seen.pattern)) < len(synthetic.PATTERNS)
    late = many[frauds & (day >= 120 * synthetic.SPREAD_FROM + 1)]
    assert (late.groupby(synthetic.BANK).pattern.nunique() == len(synthetic.PATTERNS)).all()


@pytest.mark.parametrize("banks", [1, 2, 3, 5, 10])
def test_every_kind_is_known_to_somebody(banks: int) -> None:
    known = set().union(*(synthetic.patterns_of(b, banks) for b in range(banks)))
    assert known == set(range(1, len(synthetic.PATTERNS) + 1))
    frame = synthetic.generate(5000, banks=banks, seed=1)
    assert set(frame[synthetic.BANK]) == set(range(banks))


def test_life_drifts(many: pd.DataFrame) -> None:
    legitimate = many[many.pattern == 0]
    third = len(legitimate) // 3
    old, new = legitimate[:third], legitimate[-third:]
    assert (new.channel == "online").mean() > (old.channel == "online").mean() + 0.01
    taps = many[many.pattern == 6].amount  # fraudsters grow cautious
    assert taps[-150:].median() < taps[:150].median() - 2


def test_nothing_gives_the_label_away(payments: pd.DataFrame) -> None:
    fraud = payments[synthetic.LABEL] == 1
    for name, values in _features(payments).items():
        area = auroc(values[fraud].to_numpy(float), values[~fraud].to_numpy(float))
        assert max(area, 1 - area) < 0.9, name


def test_windows_know_only_the_banks_own_past(payments: pd.DataFrame) -> None:
    some = payments[payments.terminal_id == payments.terminal_id.mode()[0]]
    busiest = some[some.bank == some.bank.mode()[0]]
    last = busiest.iloc[-1]
    recent = busiest[busiest.event_time >= last.event_time - 86_400]
    assert last.terminal_count_1d == len(recent)
    assert last.terminal_mean_7d == pytest.approx(
        busiest[busiest.event_time >= last.event_time - 7 * 86_400].amount.mean(), rel=1e-4
    )


def test_weekends_are_those_of_the_calendar(payments: pd.DataFrame) -> None:
    for payment in payments[::500].itertuples():
        moment = datetime.datetime.fromtimestamp(payment.event_time, datetime.UTC)
        assert payment.weekend == (moment.weekday() >= 5)
        assert payment.night == (moment.hour < 6 or moment.hour == 23)


def test_same_arguments_same_payments() -> None:
    first, same, other = (synthetic.generate(3000, seed=s) for s in (1, 1, 2))
    assert first.equals(same)
    assert not first.amount.equals(other.amount)


@pytest.mark.parametrize(("payments", "banks", "days"), [(999, 4, 120), (5000, 0, 120), (5000, 4, 7)])
def test_too_little_to_generate(payments: int, banks: int, days: int) -> None:
    with pytest.raises(UsageError, match="at least 1000 payments"):
        synthetic.generate(payments, banks, days=days)


def test_learning_together_pays(payments: pd.DataFrame) -> None:
    cut = int(0.7 * len(payments))
    features, labels = _features(payments).to_numpy(), payments[synthetic.LABEL].to_numpy()
    bank = payments[synthetic.BANK].to_numpy()

    def area(rows: np.ndarray) -> float:
        model = HistGradientBoostingClassifier(max_iter=40, random_state=0).fit(features[rows], labels[rows])
        return float(average_precision_score(labels[cut:], model.predict_proba(features[cut:])[:, 1]))

    old = np.arange(len(payments)) < cut
    alone = [area(np.flatnonzero(old & (bank == b))) for b in range(4)]
    pooled = area(np.flatnonzero(old))
    assert pooled > 0.4
    assert pooled > 1.5 * np.mean(alone)
    assert pooled > max(alone)
