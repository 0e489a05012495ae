"""Resampling and class weights, down to banks with hardly a fraud."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest

from p2pfed.core.model import TrainingPolicy
from p2pfed.core.rows import Rows
from p2pfed.data.imbalance import positive_weight, resample

Kind = Literal["none", "class_weight", "smote", "adasyn", "undersample"]
POLICY = TrainingPolicy(10, 32, 1e-3, (), "none", 10.0)


def _policy(kind: Kind) -> TrainingPolicy:
    return replace(POLICY, imbalance=kind)


def _rows(count: int = 500, frauds: int = 20) -> Rows:
    rng = np.random.default_rng(0)
    labels = (np.arange(count) < frauds).astype(np.float32)
    features = rng.normal(size=(count, 3)).astype(np.float32) + labels[:, None]
    return Rows(features, labels)


@pytest.mark.parametrize("kind", ["none", "class_weight"])
def test_nothing_is_resampled(kind: Kind) -> None:
    rows = _rows()
    assert resample(rows, _policy(kind), 0) is rows


@pytest.mark.parametrize("kind", ["smote", "adasyn"])
def test_frauds_are_added_until_the_classes_are_level(kind: Kind) -> None:
    rows, more = _rows(), resample(_rows(), _policy(kind), 0)
    assert more.features.dtype == more.labels.dtype == np.float32
    assert more.frauds == pytest.approx(480, rel=0.1)
    assert len(more) - more.frauds == 480
    np.testing.assert_array_equal(more.features[: len(rows)], rows.features)
    synthetic = more.features[len(rows) :]
    assert synthetic.min() >= rows.features[:20].min()
    assert synthetic.max() <= rows.features[:20].max()


@pytest.mark.parametrize("kind", ["smote", "adasyn"])
def test_added_frauds_are_of_one_category(kind: Kind) -> None:
    rows = _rows()
    category, flag = np.arange(500) % 3, (np.arange(500) % 2)[:, None]
    known = np.hstack([rows.features, np.eye(3, dtype=np.float32)[category], flag.astype(np.float32)])
    more = resample(Rows(known, rows.labels), _policy(kind), 0).features[500:]
    assert len(more) > 400
    assert (more[:, 3:6].sum(axis=1) == 1).all() and np.isin(more[:, 3:], (0, 1)).all()
    assert len(np.unique(more[:, 0])) > 400


def test_undersampling_keeps_every_fraud() -> None:
    fewer = resample(_rows(), _policy("undersample"), 0)
    assert (len(fewer), fewer.frauds) == (40, 20)


@pytest.mark.parametrize("kind", ["smote", "adasyn", "undersample"])
def test_the_seed_draws(kind: Kind) -> None:
    first, same, other = (resample(_rows(), _policy(kind), seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.features, same.features)
    assert first.features.shape != other.features.shape or (first.features != other.features).any()


@pytest.mark.parametrize("kind", ["smote", "adasyn"])
@pytest.mark.parametrize("frauds", [2, 3, 5])
def test_few_frauds_have_fewer_neighbours(kind: Kind, frauds: int) -> None:
    assert resample(_rows(frauds=frauds), _policy(kind), 0).frauds > frauds


def test_adasyn_without_a_border_to_sample_along_does_as_smote(caplog: pytest.LogCaptureFixture) -> None:
    rows = _rows()
    rows.features[:20] += 100  # no fraud has a legitimate neighbour
    assert resample(rows, _policy("adasyn"), 0).frauds == 480
    assert "smote is used" in caplog.text


@pytest.mark.parametrize("kind", ["smote", "adasyn"])
def test_a_single_fraud_is_weighed_instead(kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    rows = _rows(frauds=1)
    assert resample(rows, _policy(kind), 0) is rows
    assert "replaced by its class weight" in caplog.text
    assert positive_weight(rows, _policy(kind)) == 10.0


@pytest.mark.parametrize("kind", ["none", "class_weight", "smote", "adasyn", "undersample"])
def test_no_fraud_at_all(kind: Kind) -> None:
    rows = _rows(frauds=0)
    assert resample(rows, _policy(kind), 0) is rows
    assert positive_weight(rows, _policy(kind)) == 1.0


def test_mostly_frauds_are_left_alone() -> None:
    rows = _rows(100, 80)
    for kind in ("smote", "adasyn", "undersample"):
        assert resample(rows, _policy(kind), 0) is rows
    assert positive_weight(rows, _policy("class_weight")) == 1.0


@pytest.mark.parametrize(("frauds", "weight"), [(100, 2.0), (20, math.sqrt(24)), (1, 10.0)])
def test_class_weight(frauds: int, weight: float) -> None:
    assert positive_weight(_rows(500, frauds), _policy("class_weight")) == pytest.approx(weight)
    assert positive_weight(_rows(500, max(frauds, 2)), _policy("smote")) == 1.0
