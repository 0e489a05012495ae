import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pfed.core.contract import FeatureColumn, FeatureContract, Moments, Scaler
from p2pfed.core.model import ModelSpec
from p2pfed.errors import StateCorrupt
from p2pfed.learning.bundle import FORMAT, MAGIC, ModelBundle

SPEC = ModelSpec("mlp", 3, (4,), 0.5)
COLUMNS = (FeatureColumn("amount", "numeric", (), "log"), FeatureColumn("type", "categorical", ("a", "b"), "none"))
CONTRACT = FeatureContract(COLUMNS, "fraud", "local", Moments((), ()), 8.0)
SCALER = Scaler((0.1,), (2.0,), (0.3,))
BUNDLE = ModelBundle(SPEC, CONTRACT, SCALER, 0.25, SPEC.initial_weights(3).vector, {"round": 7, "auprc": None})


def test_it_reads_what_it_wrote() -> None:
    again = ModelBundle.from_bytes(BUNDLE.to_bytes())
    assert again.to_bytes() == BUNDLE.to_bytes()
    assert (again.spec, again.contract, again.scaler, again.lineage) == (SPEC, CONTRACT, SCALER, BUNDLE.lineage)
    rows = np.random.default_rng(0).standard_normal((10, 3)).astype(np.float32)
    scores = BUNDLE.scores(rows)
    assert np.array_equal(again.scores(rows), scores)
    assert np.array_equal(again.alerts(scores), scores.astype(float) > 0.25)


@settings(deadline=None)
@given(st.data())
def test_any_damage_is_told_as_such(data: st.DataObject) -> None:
    whole = BUNDLE.to_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    flipped = whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]
    for damaged in (whole[:at], flipped, whole + b"x"):
        try:
            again = ModelBundle.from_bytes(damaged)
        except StateCorrupt:
            continue
        # a digit of the header may change into another one; the weights never pass
        assert np.array_equal(again.vector, BUNDLE.vector)


def told(**changes: Any) -> bytes:
    """The file with other fields in its header, and the length that belongs to it."""
    data = BUNDLE.to_bytes()
    length = int.from_bytes(data[4:8], "little")
    text = json.dumps(json.loads(data[8 : 8 + length]) | changes).encode()
    return MAGIC + len(text).to_bytes(4, "little") + text + data[8 + length :]


def headed(text: bytes) -> bytes:
    return MAGIC + len(text).to_bytes(4, "little") + text


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_refused_whatever_their_hash(number: float) -> None:
    vector = BUNDLE.vector.copy()
    vector[5] = number
    with pytest.raises(StateCorrupt, match="the weights of the model bundle are not finite"):
        ModelBundle.from_bytes(replace(BUNDLE, vector=vector).to_bytes())


@pytest.mark.parametrize(
    "damaged",
    [
        headed(b"[]"),
        headed(b"null"),
        headed(b'"lineage"'),
        headed(b"[" * 100_000),
        headed(b"\xff"),
        headed(b'{"lineage": {}, "lineage": {}}'),
        told(lineage=[]),
        told(lineage=None),
        told(format=[FORMAT]),
        told(threshold=float("nan")),
        told(scaler={"centre": [0.1], "scale": [0.0], "fill": [0.3]}),
        told(model={"kind": "mlp", "inputs": 3, "hidden": [10**30], "dropout": 0.5}),
    ],
)
def test_a_header_that_is_none_is_a_sentence(damaged: bytes) -> None:
    with pytest.raises(StateCorrupt):
        ModelBundle.from_bytes(damaged)


def test_scores_that_are_no_numbers_are_an_error_and_no_row_without_alert() -> None:
    vector = np.full_like(BUNDLE.vector, 3e38)
    vector[-2] = -3e38  # infinity minus infinity
    large = ModelBundle.from_bytes(replace(BUNDLE, vector=vector).to_bytes())
    with pytest.raises(StateCorrupt, match="not finite numbers: its weights are too large"):
        large.scores(np.ones((2, 3), np.float32))
    missing = np.array([[np.nan, 0, 1], [1, 0, 1]], np.float32)
    assert list(np.isnan(BUNDLE.scores(missing))) == [True, False]


def test_parts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        replace(BUNDLE, scaler=Scaler((), (), ()))
    with pytest.raises(ValueError, match="expected a vector"):
        replace(BUNDLE, vector=BUNDLE.vector[1:])
