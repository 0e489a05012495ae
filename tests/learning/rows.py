"""Rows that can be learnt from, for the learners' tests."""

import numpy as np

from p2pfed.core.rows import BankRows, Rows

EMPTY = Rows(np.zeros((0, 6), np.float32), np.zeros(0, np.float32))


def draw(count: int, seed: int, share: float = 0.1) -> Rows:
    """`count` rows of 6 features; frauds lie where the first two are far out together."""
    generator = np.random.default_rng(seed)
    labels = (generator.random(count) < share).astype(np.float32)
    features = generator.standard_normal((count, 6)).astype(np.float32)
    features[labels > 0.5, :2] += 2.5
    return Rows(features, labels)


def bank_rows(seed: int = 0, train: int = 1000) -> BankRows:
    """Training, validation and own test rows; no pooled test."""
    return BankRows(draw(train, seed), draw(400, seed + 1), draw(400, seed + 2), EMPTY, legitimate_per_day=50.0)
