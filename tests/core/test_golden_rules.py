"""Our rules answer as byzfl 0.0.11 does where it follows the papers; scripts/golden_rules.py wrote what it said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from p2pfed.core.aggregation import Candidate, MultiKrum, rule_from_name
from p2pfed.core.types import NodeId

CASES: list[dict[str, Any]] = json.loads(Path(__file__).with_name("golden_rules.json").read_text())["cases"]
ANSWERS = [(i, name) for i, case in enumerate(CASES) for name in case["answers"]]


class ByzflMultiKrum(MultiKrum):
    """Sums over one model more than the paper: over as many as with one attacker fewer, of whom it then drops one."""

    def _chosen(self, models: int, attackers: int) -> int:
        return models - attackers - 1


@pytest.mark.parametrize(("case", "name"), ANSWERS)
def test_a_rule_answers_as_the_library_did(case: int, name: str) -> None:
    own, *others = np.array(CASES[case]["models"], np.float32)
    kind, _, count = name.partition(":")
    rule = ByzflMultiKrum(int(count) - 1) if kind == "byzfl_multi_krum" else rule_from_name(name)
    merged = rule.merge(own, 100, [Candidate(NodeId(f"P{i:02}"), v, 100, 0) for i, v in enumerate(others)])
    exact = 1e-5 if kind != "geometric_median" else 1e-3  # where a model is nearly the median, steps become short
    np.testing.assert_allclose(merged.vector, CASES[case]["answers"][name], atol=exact)


def test_the_file_has_every_rule_on_every_case() -> None:
    assert len(CASES) == 8
    assert all(len(case["answers"]) == 8 for case in CASES)
