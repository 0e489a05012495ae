"""How good a model's scores are, under the names of the run file; whatever the rows leave undefined is None."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from p2pfed.core.events import Metrics

FALSE_POSITIVE_LIMIT = 0.001


@dataclass(frozen=True)
class Curve:
    """What each distinct score would catch as an alert threshold, from the highest score down."""

    cuts: NDArray[np.float64]
    """The distinct scores [m], falling."""
    caught: NDArray[np.int64]
    """Frauds [m] with a score at or above the cut."""
    false: NDArray[np.int64]
    """Legitimate payments [m] with a score at or above the cut."""


def curve(scores: ArrayLike, labels: ArrayLike) -> Curve:
    """Sort `scores` [n] with `labels` [n] (1 fraud, 0 legitimate) into a Curve; raises ValueError on a NaN score."""
    values, fraud = np.asarray(scores, np.float64), np.asarray(labels) > 0.5
    if np.isnan(values).any():
        raise ValueError("a score is NaN, so the scores have no order")
    order = np.argsort(-values)
    values, fraud = values[order], fraud[order]
    ends = np.append(np.flatnonzero(np.diff(values)), len(values) - 1) if len(values) else np.zeros(0, np.int64)
    caught = np.cumsum(fraud, dtype=np.int64)[ends]
    return Curve(values[ends], caught, ends + 1 - caught)


def alerts(scores: ArrayLike, threshold: float) -> NDArray[np.bool_]:
    """Which scores [n] lie strictly above `threshold`; compared in float64, so that no rounding moves a payment."""
    return np.asarray(scores, np.float64) > threshold


def evaluate(
    scores: ArrayLike, labels: ArrayLike, threshold: float, kind: Literal["mlp", "autoencoder"] = "mlp"
) -> Metrics:
    """Every metric of one row set: `scores` [n], `labels` [n] in {0, 1}, alerts strictly above `threshold`.

    `auprc` is the average precision. `loss` is the log loss of an MLP's probabilities and the mean reconstruction
    error of an autoencoder's legitimate rows. Raises ValueError on a score that is NaN.
    """
    values, fraud = np.asarray(scores, np.float64), np.asarray(labels) > 0.5
    alert = alerts(values, threshold)
    tp, fp = int((alert & fraud).sum()), int((alert & ~fraud).sum())
    fn, tn = int(fraud.sum()) - tp, int((~fraud).sum()) - fp
    points = curve(values, fraud)
    return {
        "auprc": average_precision(points),
        "auroc": area_under_roc(points),
        "precision": tp / (tp + fp) if tp + fp else None,
        "recall": tp / (tp + fn) if tp + fn else None,
        "f1": 2 * tp / (2 * tp + fp + fn) if tp + fn else None,
        "recall_at_fpr_0.001": _recall_at(points, FALSE_POSITIVE_LIMIT),
        "confusion": [[tn, fp], [fn, tp]],
        "loss": _log_loss(values, fraud) if kind == "mlp" else _mean(values[~fraud]),
    }


def average_precision(points: Curve) -> float | None:
    """Sum of precision times the gain in recall over the cuts; None without a fraud."""
    if not _both(points, legitimate=0):
        return None
    precision = points.caught / (points.caught + points.false)
    return float(np.sum(np.diff(points.caught, prepend=0) * precision) / points.caught[-1])


def area_under_roc(points: Curve) -> float | None:
    """Area under the ROC curve by trapezoids; None with one class only."""
    if not _both(points):
        return None
    caught, false = np.append(0, points.caught), np.append(0, points.false)
    return float(np.trapezoid(caught, false) / (float(caught[-1]) * float(false[-1])))


def _recall_at(points: Curve, false_positive_rate: float) -> float | None:
    """The largest recall whose false-positive rate stays within the limit; None with one class only."""
    if not _both(points):
        return None
    within = points.false <= false_positive_rate * points.false[-1]
    return float(points.caught[within].max(initial=0) / points.caught[-1])


def _both(points: Curve, legitimate: int = 1) -> bool:
    return len(points.cuts) > 0 and points.caught[-1] > 0 and points.false[-1] >= legitimate


def calibrated_log_loss(scores: ArrayLike, labels: ArrayLike) -> float:
    """Mean log loss of an MLP's `scores` [n] once they are made probabilities on these very rows (Platt 1999).

    For rows with few frauds: what a model is trained to weigh frauds by moves and stretches its scores, and is no fault
    of it. A slope and an offset are fitted to the log odds in units of their deviation, the slope slightly drawn to 0,
    or models that tell all rows apart had no loss at all. A model that takes frauds for the most legitimate tells
    nothing, whatever it could be turned into. `labels` [n] in {0, 1} has both.
    """
    from sklearn.linear_model import LogisticRegression

    said = np.clip(np.asarray(scores, np.float64), 1e-7, 1 - 1e-7)
    odds = np.log(said / (1 - said))[:, None]
    fraud = np.asarray(labels) > 0.5
    odds = (odds - odds.mean()) / max(float(odds.std()), 1e-9)
    fitted = LogisticRegression().fit(odds, fraud)
    probable = fitted.predict_proba(odds)[:, 1] if fitted.coef_[0, 0] > 0 else np.full(len(odds), fraud.mean())
    return float(np.mean(np.abs(np.log(np.clip(np.where(fraud, probable, 1 - probable), 1e-7, 1)))))


def _log_loss(values: NDArray[np.float64], fraud: NDArray[np.bool_]) -> float | None:
    right = np.clip(np.where(fraud, values, 1 - values), 1e-7, 1)
    return _mean(np.abs(np.log(right)))


def _mean(values: NDArray[np.float64]) -> float | None:
    return float(values.mean()) if len(values) else None
