"""Distances between models: moves that nothing overflows, near copies, and the median of each coordinate."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from p2pfed.core.training_scale import REACH, lengths
from p2pfed.core.weights import Vector

Doubles = NDArray[np.float64]

ROUNDING = 1000 * float(np.finfo(np.float32).eps)
"""Share of two models' squared lengths by which their product may be wrong."""
LARGEST = np.finfo(np.float32).max
FEW = 12
"""Of so few models BLAS makes all products up to three times as fast one after the other."""


def coordinate_median(vectors: Sequence[Vector]) -> Vector:
    """Median of each coordinate, float32 [d]: what a late joiner adopts. Fewer than half the vectors cannot drag it.

    Raises ValueError without vectors.
    """
    if not vectors:
        raise ValueError("the median of no vectors is undefined")
    median: Vector = np.median(np.stack(vectors, dtype=np.float64), axis=0).astype(np.float32)
    return median


def moves_to(own: Vector, models: Sequence[Vector]) -> tuple[Vector, Doubles]:
    """x_j - own for each of `models`, float32 [k, d], and their lengths [k]; none is longer than REACH."""
    moves: Vector = np.concatenate(models).reshape(len(models), -1)
    with np.errstate(over="ignore"):
        moves -= own
    long = lengths(moves)
    for far in np.flatnonzero(long == REACH):
        move = moves[far]
        move.clip(-LARGEST, LARGEST, out=move)
        move *= np.float32(2.0**-80)  # small enough to be squared
        move *= np.float32(REACH) / np.sqrt(move @ move)
    return moves, long


def squared_distances(models: Doubles) -> Doubles:
    """Between all pairs of `models` [n, d], [n, n]: of their differences, which round less than products do."""
    squares = np.zeros((len(models), len(models)))
    for i in range(len(models) - 1):
        apart = models[i + 1 :] - models[i]
        squares[i, i + 1 :] = squares[i + 1 :, i] = np.vecdot(apart, apart)
    return squares


def norm(vector: Vector | Doubles) -> float:
    """Euclidean length of one vector: `np.linalg.norm` spends more on finding out that it is one."""
    return math.sqrt(vector.dot(vector))


def within(value: float, limits: tuple[float, float]) -> float:
    """`value`, or the limit that it is beyond."""
    return min(max(value, limits[0]), limits[1])


def copies(moves: Vector, distances: Doubles, radius: float) -> Doubles:
    """For each candidate how many, itself included, lie within `radius` of it."""
    near, doubtful = _near(moves, distances, radius)
    while doubtful.any():
        # seen from here they are all alike; one of them is near enough to tell the others apart
        one = int(doubtful.any(axis=1).argmax())
        others = np.flatnonzero(doubtful[one])
        apart = moves[others]
        apart -= moves[one]
        distances = np.sqrt(np.vecdot(apart, apart).astype(np.float64))
        pairs = np.ix_(others, others)
        closer_near, closer_doubtful = _near(apart, distances, radius)
        near[pairs] = np.where(doubtful[pairs], closer_near, near[pairs])
        doubtful[pairs] &= closer_doubtful
        near[one, others] = near[others, one] = distances <= radius
        doubtful[one] = doubtful[:, one] = False
    counts: Doubles = near.sum(axis=1, dtype=np.float64)
    return counts


def _near(moves: Vector, distances: Doubles, radius: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which pairs of `moves` (of lengths `distances`) are within `radius`, and of which rounding leaves that open."""
    squares = distances**2
    sums = squares[:, None] + squares
    excess = sums - 2 * _products(moves) - radius**2
    near, doubtful = excess <= 0, np.abs(excess) <= ROUNDING * sums
    diagonal = slice(None, None, len(moves) + 1)
    near.flat[diagonal], doubtful.flat[diagonal] = True, False
    return near, doubtful


def _products(moves: Vector) -> Vector:
    """moves @ moves.T, float32 [k, k]."""
    if len(moves) > FEW:
        return moves @ moves.T
    products = np.empty((len(moves), len(moves)), np.float32)
    for i, move in enumerate(moves):
        products[i, i:] = products[i:, i] = moves[i:] @ move
    return products
