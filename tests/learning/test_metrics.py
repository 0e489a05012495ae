import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from p2pfed.learning.metrics import alerts, curve, evaluate

scored = st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=1, max_size=60)


@settings(deadline=None)
@given(scored)
def test_areas_are_those_of_scikit_learn(pairs: list[tuple[int, bool]]) -> None:
    scores, labels = np.array([p[0] / 20 for p in pairs]), np.array([p[1] for p in pairs])
    result = evaluate(scores, labels, 0.5)
    if labels.any():
        assert result["auprc"] == pytest.approx(reference.average_precision_score(labels, scores))
    else:
        assert result["auprc"] is None
    if labels.any() and not labels.all():
        assert result["auroc"] == pytest.approx(reference.roc_auc_score(labels, scores))
        false, true, _ = reference.roc_curve(labels, scores, drop_intermediate=False)
        assert result["recall_at_fpr_0.001"] == pytest.approx(true[false <= 0.001].max())
    else:
        assert result["auroc"] is None and result["recall_at_fpr_0.001"] is None


@settings(deadline=None)
@given(scored)
def test_counts_at_the_threshold_are_those_of_scikit_learn(pairs: list[tuple[int, bool]]) -> None:
    scores, labels = np.array([p[0] / 20 for p in pairs]), np.array([p[1] for p in pairs])
    result, flagged = evaluate(scores, labels, 0.5), scores > 0.5
    assert result["confusion"] == reference.confusion_matrix(labels, flagged, labels=[False, True]).tolist()
    if labels.any():
        assert result["recall"] == pytest.approx(reference.recall_score(labels, flagged))
        assert result["f1"] == pytest.approx(reference.f1_score(labels, flagged, zero_division=0))
    else:
        assert result["recall"] is None and result["f1"] is None
    if flagged.any():
        assert result["precision"] == pytest.approx(reference.precision_score(labels, flagged))
    else:
        assert result["precision"] is None
    expected = reference.log_loss(labels, np.clip(scores, 1e-7, 1 - 1e-7), labels=[0, 1])
    assert result["loss"] == pytest.approx(expected, abs=1e-6)


def test_no_rows_give_no_figures() -> None:
    result = evaluate([], [], 0.5)
    assert result.pop("confusion") == [[0, 0], [0, 0]]
    assert set(result.values()) == {None}


def test_an_autoencoders_loss_is_the_error_of_legitimate_rows() -> None:
    assert evaluate([1.0, 2.0, 90.0], [0, 0, 1], 5.0, "autoencoder")["loss"] == 1.5


def test_a_threshold_between_two_float32_scores_parts_them() -> None:
    low = np.float32(0.5)
    high = np.nextafter(low, np.float32(1))
    middle = (float(low) + float(high)) / 2
    assert alerts(np.array([low, high]), middle).tolist() == [False, True]
    assert alerts(np.array([low]), float(low)).tolist() == [False]


def test_nan_has_no_order() -> None:
    with pytest.raises(ValueError, match="NaN"):
        curve([0.1, float("nan")], [0, 1])
