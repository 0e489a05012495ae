"""What is done about frauds being rare: on training rows only, after the split and the scaling."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import Any

import numpy as np

from p2pfed.core.model import ModelSpec, TrainingPolicy
from p2pfed.core.rows import BankRows, Rows

logger = logging.getLogger(__name__)

NEIGHBOURS = 5
"""Frauds that SMOTE (Chawla et al. 2002) and ADASYN (He et al. 2008) interpolate between, if there are as many."""


def learning_rows(rows: BankRows, model: ModelSpec, policy: TrainingPolicy, seed: int) -> tuple[BankRows, float]:
    """`rows` with the training rows that a learner gets, and how many times a fraud counts in its loss."""
    weight = positive_weight(rows.train, policy)
    if model.kind == "autoencoder":  # it sees no fraud, so there is no imbalance to mend
        return rows, weight
    return replace(rows, train=resample(rows.train, policy, seed)), weight


def positive_weight(rows: Rows, policy: TrainingPolicy) -> float:
    """How many times a fraud counts in the loss: min(cap, sqrt(legitimate / frauds)) under `class_weight`, else 1.

    The same where SMOTE or ADASYN find a single fraud, between which and itself nothing can be interpolated.
    """
    frauds = rows.frauds
    alone = policy.imbalance in ("smote", "adasyn") and frauds == 1
    if not frauds or not (policy.imbalance == "class_weight" or alone):
        return 1.0
    return max(1.0, min(policy.positive_weight_cap, math.sqrt((len(rows) - frauds) / frauds)))


def resample(rows: Rows, policy: TrainingPolicy, seed: int) -> Rows:
    """`rows` as `policy.imbalance` wants them trained on; unchanged under `none` and `class_weight`.

    `undersample` draws as many legitimate rows as there are frauds, `smote` and `adasyn` add synthetic frauds until
    both classes are level; these take the categories of the nearer of the two frauds that they lie between, for inputs
    that are 0 or 1 are rounded. With too few frauds it does what is still possible and logs a note.
    """
    frauds = rows.frauds
    if policy.imbalance in ("none", "class_weight") or frauds == 0 or frauds * 2 >= len(rows):
        return rows
    if policy.imbalance != "undersample" and frauds == 1:
        logger.warning("a single training fraud: %s is replaced by its class weight", policy.imbalance)
        return rows
    labels = rows.labels.astype(np.int8)
    try:
        features, labels = _sampler(policy.imbalance, frauds, seed).fit_resample(rows.features, labels)
    except (RuntimeError, ValueError) as error:
        if policy.imbalance != "adasyn":
            raise
        # ADASYN samples along the border between the classes and gives up where there is none
        logger.warning("adasyn cannot sample these rows (%s); smote is used", error)
        features, labels = _sampler("smote", frauds, seed).fit_resample(rows.features, labels)
    features = np.ascontiguousarray(features, np.float32)
    levels = np.isin(rows.features, (0, 1)).all(axis=0)
    features[:, levels] = np.rint(features[:, levels])
    return Rows(features, np.asarray(labels, np.float32))


def _sampler(kind: str, frauds: int, seed: int) -> Any:
    from imblearn.over_sampling import ADASYN, SMOTE
    from imblearn.under_sampling import RandomUnderSampler

    neighbours = min(NEIGHBOURS, frauds - 1)
    if kind == "smote":
        return SMOTE(random_state=seed, k_neighbors=neighbours)
    if kind == "adasyn":
        return ADASYN(random_state=seed, n_neighbors=neighbours)
    return RandomUnderSampler(random_state=seed)
