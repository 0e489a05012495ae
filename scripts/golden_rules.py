#!/usr/bin/env python3
"""Write tests/core/golden_rules.json: what byzfl 0.0.11 answers on fixed models; tests hold our rules to it.

    python scripts/golden_rules.py DIRECTORY

DIRECTORY holds the unpacked wheel of byzfl (`pip download --no-deps byzfl==0.0.11`); scipy must be there, torch need
not: byzfl imports it, but computes on arrays without it. Where byzfl differs from the papers, it is asked so that it
does not: CenteredClipping takes its centre only after it was made, GeometricMedian starts at zero and so gets many
steps, and Krum, which sums over one model more than the paper does, is told of one attacker more. Multi-Krum cannot
be told so and stands in the file as byzfl's own.
"""

from __future__ import annotations

import importlib
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np

OUT = Path(__file__).parents[1] / "tests/core/golden_rules.json"


def aggregators(directory: Path) -> Any:
    """byzfl's rules without what else its package imports."""
    torch = types.ModuleType("torch")
    torch.Tensor = type("Tensor", (), {})  # type: ignore[attr-defined]
    torch.linalg = types.ModuleType("torch.linalg")  # type: ignore[attr-defined]
    package = types.ModuleType("byzfl")
    package.__path__ = [str(directory / "byzfl")]
    sys.modules |= {"torch": torch, "torch.linalg": torch.linalg, "byzfl": package}
    return importlib.import_module("byzfl.aggregators")


def models(rng: np.random.Generator, count: int, size: int, attackers: int) -> np.ndarray:
    """Models in multiples of 1/64, which float32 holds exactly; the last ones are far, and alike."""
    drawn = rng.normal(rng.normal(0, 2, size), 1, (count, size))
    drawn[count - attackers :] += rng.choice([3.0, 40.0])
    return np.round(drawn * 64) / 64


def answers(rules: Any, vectors: np.ndarray, f: int) -> dict[str, list[float]]:
    """By the names that our registry has for them, and `byzfl_multi_krum`."""
    clipping = rules.CenteredClipping(tau=1.5)
    clipping.m = vectors[0].copy()
    asked = {
        "mean": rules.Average(),
        "median": rules.Median(),
        f"trimmed_mean:{f}": rules.TrMean(f=f),
        "geometric_median": rules.GeometricMedian(nu=1e-6, T=20_000),
        f"krum:{f}": rules.Krum(f=f + 1),
        f"byzfl_multi_krum:{f}": rules.MultiKrum(f=f),
        f"nna:{f}": rules.MoNNA(f=f, idx=0),
        "clipped:1.5": clipping,
    }
    return {name: rule(vectors.copy()).tolist() for name, rule in asked.items()}


def main(directory: str) -> None:
    """Ask and write."""
    rules, rng, cases = aggregators(Path(directory)), np.random.default_rng(2026), []
    for count, size, f in [(5, 6, 1), (6, 3, 1), (7, 5, 1), (7, 5, 2), (8, 12, 2), (10, 4, 3), (13, 8, 4), (13, 20, 3)]:
        vectors = models(rng, count, size, f)
        cases.append({"models": vectors.tolist(), "answers": answers(rules, vectors, f)})
    lines = ",\n".join(json.dumps(case) for case in cases)
    OUT.write_text(f'{{"byzfl": "0.0.11", "cases": [\n{lines}\n]}}\n')
    print(f"{len(cases)} cases written to {OUT.name}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
