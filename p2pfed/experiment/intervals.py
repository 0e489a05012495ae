"""Differences between methods over seeds: paired, with their 95 % interval, as every comparison is quoted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_T_95 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
)
"""Two-sided 95 % points of Student's t for 1 to 20 degrees of freedom; beyond, the normal 1.96 is close enough."""


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and the half width of its 95 % interval; infinite for a single seed."""

    mean: float
    half_width: float

    def __str__(self) -> str:
        margin = f"{self.half_width:.4f}" if math.isfinite(self.half_width) else "?"
        return f"{self.mean:+.4f} ± {margin}"


def paired_interval(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """95 % interval (Student's t) of the mean of `ours - theirs`, seed by seed; raises ValueError where they differ in
    number."""
    return mean_interval([a - b for a, b in zip(ours, theirs, strict=True)])


def mean_interval(values: Sequence[float]) -> Interval:
    """95 % interval (Student's t) of the mean of one value a seed; raises ValueError where there is none."""
    count = len(values)
    if count == 0:
        raise ValueError("no seeds to compare over")
    mean = math.fsum(values) / count
    if count == 1:
        return Interval(mean, math.inf)
    variance = math.fsum((v - mean) ** 2 for v in values) / (count - 1)
    quantile = _T_95[count - 2] if count - 2 < len(_T_95) else 1.96
    return Interval(mean, quantile * math.sqrt(variance / count))
