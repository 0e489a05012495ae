"""Gradient-boosted trees beside the networks: what tabular data usually gets, on pooled rows and bank by bank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier

from p2pfed.core.rows import BankRows, Rows
from p2pfed.learning.metrics import average_precision, curve


@dataclass(frozen=True)
class BoostedTrees:
    """AUPRC on the pooled test rows."""

    pooled: float
    alone: tuple[float, ...]
    """By bank; one without two frauds to learn from guesses, which gives the share of frauds."""


def boosted_trees(banks: Sequence[BankRows]) -> BoostedTrees:
    """Fit scikit-learn's histogram trees, untuned, on all banks' training rows and on each bank's."""
    test = banks[0].pooled_test
    features = np.concatenate([bank.train.features for bank in banks])
    labels = np.concatenate([bank.train.labels for bank in banks])
    return BoostedTrees(_auprc(Rows(features, labels), test), tuple(_auprc(bank.train, test) for bank in banks))


def _auprc(train: Rows, test: Rows) -> float:
    if train.frauds < 2:
        return test.frauds / len(test)
    trees = HistGradientBoostingClassifier(random_state=0).fit(train.features, train.labels > 0.5)
    auprc = average_precision(curve(trees.predict_proba(test.features)[:, 1], test.labels))
    assert auprc is not None  # the pooled test has frauds
    return auprc
