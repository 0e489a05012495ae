"""What a trainer says of the rows that it read."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2pfed.core import record
from p2pfed.core.model import ModelSpec, TrainingPolicy
from p2pfed.runtime import trainer_child
from tests.data.banks import LOCAL, payments, section


@pytest.mark.parametrize(("frauds", "said"), [(4, True), (80, False)])
def test_too_few_validation_frauds_for_the_threshold_are_said(tmp_path: Path, frauds: int, said: bool) -> None:
    fields = {
        "model": record.plain(ModelSpec("mlp", LOCAL.width, (4,), 0.0)),
        "policy": record.plain(TrainingPolicy(10, 32, 1e-3, (), "none", 10.0)),
        "contract": record.plain(LOCAL),
        "data": section(tmp_path, payments(400, frauds)).model_dump(mode="json"),
        "threshold": {},
        "seed": 0,
        "learner": "numpy",
        "last_reading": None,
        "counted_until": None,
        "accept": False,
    }
    _, answer = trainer_child._load(fields, None)
    notes = answer.fields["report"]["notes"]
    assert any("the threshold is percentile 98" in note for note in notes) == said
