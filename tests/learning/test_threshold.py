import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pfed.config import ThresholdSection
from p2pfed.errors import DataError
from p2pfed.learning.metrics import alerts, evaluate
from p2pfed.learning.threshold import LEAST_FRAUDS, choose, note, settle

scored = st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=1, max_size=60)


@settings(deadline=None)
@given(scored)
def test_no_threshold_gives_a_higher_f1(pairs: list[tuple[int, bool]]) -> None:
    scores, labels = np.array([p[0] / 20 for p in pairs], np.float32), np.array([p[1] for p in pairs])
    if labels.sum() < LEAST_FRAUDS:
        return
    best = evaluate(scores, labels, choose("max_f1", None, scores, labels, 0))["f1"]
    others = [evaluate(scores, labels, t)["f1"] for t in [-1.0, *scores.astype(float)]]
    assert best == pytest.approx(max(others))


@settings(deadline=None)
@given(scored, st.floats(1, 99))
def test_a_percentile_flags_no_more_than_its_share(pairs: list[tuple[int, bool]], percentile: float) -> None:
    scores, labels = np.array([p[0] / 20 for p in pairs]), np.array([p[1] for p in pairs])
    legitimate = scores[~labels]
    if not len(legitimate):
        return
    flagged = alerts(legitimate, choose("percentile", percentile, scores, labels, 0)).mean()
    assert flagged <= 1 - percentile / 100 + 1e-9


def test_a_percentile_flags_about_its_share() -> None:
    scores = np.random.default_rng(0).random(5000)
    assert alerts(scores, choose("percentile", 98, scores, np.zeros(5000), 0)).mean() == pytest.approx(0.02, abs=0.001)


def test_an_alert_budget_is_kept_and_used() -> None:
    scores = np.random.default_rng(0).random(1000)  # ten days of a hundred payments
    flagged = alerts(scores, choose("alerts_per_day", 3, scores, np.zeros(1000), 100)).sum() / 10
    assert 2.8 <= flagged <= 3
    everything = choose("alerts_per_day", 1000, scores, np.zeros(1000), 100)
    assert alerts(scores, everything).sum() == 999  # only the lowest score itself is not above it


@pytest.mark.parametrize("frauds", range(LEAST_FRAUDS))
def test_with_few_frauds_f1_gives_way_to_the_percentile_and_that_is_said(frauds: int) -> None:
    scores, labels = np.arange(100) / 100, np.arange(100) < frauds  # the frauds are ranked last
    assert choose("max_f1", None, scores, labels, 0) == choose("percentile", 98, scores, labels, 0) > 0.9
    assert f"{frauds} validation row" in note("max_f1", frauds)


def test_with_enough_frauds_or_another_rule_there_is_nothing_to_say() -> None:
    assert note("max_f1", LEAST_FRAUDS) == note("percentile", 0) == note("alerts_per_day", 1) == ""


def test_only_frauds_are_all_alerts() -> None:
    for kind in ("max_f1", "percentile"):
        assert alerts([0.2, 0.4], choose(kind, None, [0.2, 0.4], [1, 1], 0)).all()


def test_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="validation row"):
        choose("max_f1", None, [], [], 0)


def test_defaults_follow_the_model() -> None:
    assert settle(ThresholdSection(), "mlp", 0).kind == "max_f1"
    assert settle(ThresholdSection(), "autoencoder", 0) == ThresholdSection(kind="percentile", value=98)
    assert settle(ThresholdSection(kind="percentile", value=90), "mlp", 0).value == 90


def test_an_alert_budget_without_time_is_the_operators_to_mend() -> None:
    with pytest.raises(DataError, match="event_time"):
        settle(ThresholdSection(kind="alerts_per_day", value=3), "mlp", 0)
