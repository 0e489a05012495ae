"""The feature contract contradicts itself nowhere."""

from typing import Any

import pytest

from p2pfed.core.contract import FeatureColumn, FeatureContract, Moments

AMOUNT = FeatureColumn("amount", "numeric", (), "log")
HOUR = FeatureColumn("hour", "numeric", (), "none")
KIND = FeatureColumn("kind", "categorical", ("cash", "transfer", "debit"), "none")
MOMENTS = Moments((1.0, 12.0), (2.0, 6.0))


def contract(**changes: Any) -> FeatureContract:
    fields = {
        "columns": (AMOUNT, KIND, HOUR),
        "label": "fraud",
        "scaling": "contract",
        "moments": MOMENTS,
        "clip": 5.0,
    }
    return FeatureContract(**{**fields, **changes})


def test_a_level_becomes_an_input_of_its_own():
    assert (AMOUNT.width, KIND.width) == (1, 3)
    assert contract().width == 5
    assert contract().numeric == (AMOUNT, HOUR)


def test_local_scaling_freezes_no_moments():
    assert contract(scaling="local", moments=Moments((), ())).width == 5


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"columns": ()}, "at least one column"),
        ({"columns": (AMOUNT, AMOUNT)}, "must all differ"),
        ({"label": "kind"}, "must all differ"),
        ({"moments": Moments((1.0,), (2.0,))}, "2 scaled columns"),
        ({"moments": Moments((1.0, 2.0), (2.0,))}, "2 scaled columns"),
        ({"scaling": "local"}, "0 scaled columns"),
        ({"moments": Moments((1.0, 2.0), (2.0, 0.0))}, "must be positive"),
        ({"clip": 0.0}, "must be positive"),
    ],
)
def test_a_contract_that_contradicts_itself_is_refused(changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        contract(**changes)


@pytest.mark.parametrize(
    ("kind", "levels", "transform", "complaint"),
    [
        ("categorical", (), "none", "lists its levels"),
        ("numeric", ("a",), "none", "lists its levels"),
        ("categorical", ("a", "a"), "none", "listed twice"),
        ("categorical", ("a",), "log", "has no transform"),
    ],
)
def test_a_column_that_contradicts_itself_is_refused(kind, levels, transform, complaint):
    with pytest.raises(ValueError, match=f"column 'x'.*{complaint}"):
        FeatureColumn("x", kind, levels, transform)
