from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pfed.core.contract import FeatureColumn, FeatureContract, Moments, Scaler
from p2pfed.core.model import ModelSpec
from p2pfed.errors import StateCorrupt
from p2pfed.learning.bundle import ModelBundle

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


def test_parts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        replace(BUNDLE, scaler=Scaler((), (), ()))
    with pytest.raises(ValueError, match="expected a vector"):
        replace(BUNDLE, vector=BUNDLE.vector[1:])
