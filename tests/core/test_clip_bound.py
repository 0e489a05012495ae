"""No merge by the default rule moves a model beyond its bound, whatever floats arrive; FUZZ_MERGES says how many."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

import numpy as np

from p2pfed.core.aggregation import Candidate, Clip
from p2pfed.core.types import NodeId
from p2pfed.core.weights import Vector

MERGES = int(os.environ.get("FUZZ_MERGES", "4000"))
LARGEST = np.finfo(np.float32).max
EPS = float(np.finfo(np.float32).eps)
NAMES = [NodeId(f"P{i}") for i in range(12)]


def any_bits(rng: np.random.Generator, size: int) -> Vector:
    """Any float32 but infinities and NaN: each exponent is as likely, those of subnormals too."""
    bits = rng.integers(0, 2**32, size, np.uint32).view(np.float32)
    return np.where(np.isfinite(bits), bits, np.float32(0))


def hostile(rng: np.random.Generator, own: Vector, scale: float, others: list[Vector]) -> Vector:
    """A vector that means harm, or none."""
    size = len(own)
    direction = rng.standard_normal(size, np.float32)
    match rng.integers(9):
        case 0:
            return any_bits(rng, size)
        case 1:
            return rng.choice(np.array([-LARGEST, 0, 1e-45, 1e-38, 2.0**63, 2.0**64, LARGEST], np.float32), size)
        case 2:
            return -own
        case 3:
            return own.copy()
        case 4:
            return np.nextafter(own, np.float32(rng.choice([-np.inf, np.inf])))
        case 5 if others:
            return others[rng.integers(len(others))].copy()
        case 6:  # about the radius away, just within or just beyond
            at = scale * rng.choice([0.3, 3, 6]) * (1 + 1e-6 * rng.integers(-2, 3))
            return own + np.float32(min(at / max(float(np.linalg.norm(direction)), 1e-3), 1e30)) * direction
        case 7:
            return np.clip(np.float32(10.0 ** rng.integers(2, 31)) * direction, -LARGEST, LARGEST)
        case _:
            return own + np.float32(min(scale, 1e30)) * direction


def merges(rng: np.random.Generator) -> Iterator[tuple[float, float]]:
    """How far merges of one node moved it, and how far they may."""
    size = int(rng.integers(1, 17))
    start = np.zeros(size, np.float32)
    rule, usual, own = (
        Clip(),
        None,
        any_bits(rng, size) if rng.random() < 0.2 else rng.standard_normal(size, np.float32),
    )
    for _ in range(int(rng.integers(1, 12))):
        step = np.zeros(size, np.float32)
        step[0] = 10.0 ** rng.uniform(-6, 3) if rng.random() < 0.9 else 10.0 ** rng.uniform(-44, 37)
        rule.note_training(start, step)
        usual = float(step[0]) if usual is None else 0.8 * usual + 0.2 * float(step[0])
        length = float(np.linalg.norm(own.astype(np.float64)))
        scale = max(usual, 1e-3 * length, 1e-12)
        vectors: list[Vector] = []
        for _ in range(int(rng.integers(1, 9))):
            with np.errstate(over="ignore"):
                vectors.append(np.nan_to_num(hostile(rng, own, scale, vectors), posinf=LARGEST, neginf=-LARGEST))
        candidates = [
            Candidate(
                NAMES[i], v, int(rng.integers(0, 2**40)), int(rng.integers(-12, 9).clip(0)), float(rng.uniform(0.01, 1))
            )
            for i, v in enumerate(vectors)
        ]
        merged = rule.merge(own, int(rng.integers(0, 10**6)), candidates)
        moved = float(np.linalg.norm(merged.vector.astype(np.float64) - own))
        # float32 rounds the sum of the model and its move
        yield moved, 6 * scale * (1 - merged.own_weight) * (1 + 1e-5) + EPS * (length + moved) + 1e-44 * size
        own = merged.vector if np.linalg.norm(merged.vector.astype(np.float64)) < 1e30 else start


def test_no_merge_moves_a_model_beyond_six_own_scales() -> None:
    rng, count, nearest = np.random.default_rng(0), 0, 0.0
    while count < MERGES:
        for moved, most in merges(rng):
            count += 1
            assert math.isfinite(moved) and moved <= most, f"merge {count}: {moved} > {most}"
            nearest = max(nearest, moved / most)
    assert nearest > 0.95, "hostile vectors come near the bound, or the test sees nothing"
