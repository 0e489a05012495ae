"""The feature contract: which columns every member's rows are turned into, and on which scale."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from p2pfed.core import record

OTHER_UNIT = 16.0
"""A column whose values are so many times the others', or that part of them, is taken to be in another unit: cents,
minutes and milliseconds are 60, 100 and 1000 times as many. Days for hours (24) still show. Honest banks of the data
sets that the project is measured on differ by 8 at most, and that where most payments of one are frauds."""
ALIKE = 1.0
"""Doublings by which what a unit alone changes alike, or does not change, may differ."""
AROUND_0 = 0.1
"""Deviations from 0 within which a mean tells nothing of the unit."""
WIDEST_LOGS = 3.0
"""Deviation of the logs of values above 0 beyond which these are no amounts: then it is another share of zeros that
makes the difference, which would need 4 to 5. Amounts and balances of the real data sets have .7 to 2.7."""

LARGEST = 1e20
"""What no column's mean or deviation exceeds: nanoseconds since 1970 are 1.8e18."""


def unit_sentence(column: str, times: float, others: str = "the consortium's") -> str:
    """That a column's values are so many times those of `others`."""
    than = f"{times:,.0f} times as large as" if times > 1 else f"1/{1 / times:,.0f} of"
    return f"column {column!r}: its values are about {than} {others}, as if in another unit"


@dataclass(frozen=True)
class FeatureColumn:
    """One column of the contract. A categorical column becomes one 0/1 input per level, an unknown level all zeros."""

    name: str
    kind: Literal["numeric", "categorical"]
    levels: tuple[str, ...]
    transform: Literal["none", "log"]
    """`log` is sign(x) * log(1 + |x|), for amounts; categorical columns say `none`."""
    missing: Literal["indicator"] | None = record.added()
    """`indicator` adds an input that is 1 where the field is empty, and no row is left out for that."""
    coding: Literal["hashed"] | None = record.added()
    """`hashed` gives each text the level at its CRC-32 modulo the number of levels, for columns of many values: none is
    unknown, several share a level, and the contract names no bank's merchants."""

    def __post_init__(self) -> None:
        if (self.kind == "categorical") != bool(self.levels):
            raise ValueError(f"column {self.name!r}: a categorical column lists its levels, a numeric one none")
        if len(set(self.levels)) != len(self.levels):
            raise ValueError(f"column {self.name!r}: a level is listed twice")
        if self.kind == "numeric" and self.coding is not None:
            raise ValueError(f"column {self.name!r}: a numeric column has no coding")
        if self.kind == "categorical" and self.transform != "none":
            raise ValueError(f"column {self.name!r}: a categorical column has no transform")

    @property
    def width(self) -> int:
        """How many model inputs the column gives; that of `missing` is the last."""
        return (len(self.levels) or 1) + (self.missing is not None)


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation of each numeric contract column, in contract order, after its transform."""

    means: tuple[float, ...]
    deviations: tuple[float, ...]


def moments_problem(moments: Moments) -> str:
    """What no moments of payments can be; empty if they may be some."""
    if len(moments.means) != len(moments.deviations):
        return "as many deviations as means are needed"
    if any(d < 0 for d in moments.deviations):
        return "a deviation is negative"
    sizes = (*map(abs, moments.means), *(d for d in moments.deviations if d))
    if not all(size <= LARGEST for size in sizes) or any(0 < d < 1 / LARGEST for d in moments.deviations):
        return f"a mean or deviation is no payment's: beyond {LARGEST:g}, or a deviation below {1 / LARGEST:g}"
    return ""


@dataclass(frozen=True)
class Scaler:
    """How one bank scales the numeric columns, in contract order: (x - centre) / scale."""

    centre: tuple[float, ...]
    scale: tuple[float, ...]
    fill: tuple[float, ...]
    """What a missing number is taken for, before scaling, where the bank imputes: its training median."""


@dataclass(frozen=True)
class FeatureContract:
    """The columns in model-input order and how numeric ones are scaled: (x - centre) / scale, clipped to +-`clip`."""

    columns: tuple[FeatureColumn, ...]
    label: str
    """The contract's name for the fraud label; a bank maps its own column to it."""
    scaling: Literal["contract", "local"]
    """`contract`: the frozen centre and scale below; `local`: each bank fits its own on its training rows."""
    moments: Moments
    """Centre and scale of the numeric columns in contract order; empty under `local`."""
    clip: float

    def __post_init__(self) -> None:
        names = [c.name for c in self.columns]
        if not names:
            raise ValueError("a feature contract needs at least one column")
        if len(set(names)) != len(names) or self.label in names:
            raise ValueError("a contract's column names and label must all differ")
        expected = len(self.numeric) if self.scaling == "contract" else 0
        if not len(self.moments.means) == len(self.moments.deviations) == expected:
            raise ValueError(f"the contract has {expected} scaled columns but other numbers of centres and scales")
        if any(d <= 0 for d in self.moments.deviations) or self.clip <= 0:
            raise ValueError("scales and the clip must be positive")

    @property
    def numeric(self) -> tuple[FeatureColumn, ...]:
        """The numeric columns, in contract order."""
        return tuple(c for c in self.columns if c.kind == "numeric")

    @property
    def width(self) -> int:
        """The number of model inputs."""
        return sum(c.width for c in self.columns)

    def units(self, own: Moments) -> dict[str, float]:
        """How many times the contract's the values of a bank with the moments `own` seem to be, by numeric column.

        Without columns of which moments do not tell; all of them under `local` scaling, where units do not matter, and
        of moments that are over other columns.
        """
        if self.scaling == "local" or len(own.means) != len(self.numeric):
            return {}
        mine = zip(own.means, own.deviations, strict=True)
        theirs = zip(self.moments.means, self.moments.deviations, strict=True)
        found = {
            column.name: (_times_of_logs if column.transform == "log" else _times)(*us, *them)
            for column, us, them in zip(self.numeric, mine, theirs, strict=True)
        }
        return {name: times for name, times in found.items() if times is not None}

    def other_units(self, own: Moments) -> dict[str, float]:
        """Those of `units` that are so many that the column seems to be in another unit."""
        return {name: times for name, times in self.units(own).items() if max(times, 1 / times) >= OTHER_UNIT}


def _times(mean: float, deviation: float, centre: float, scale: float) -> float | None:
    """Another unit multiplies mean and deviation alike; none of that is a column that is 0 or 1, however rarely."""
    if deviation <= 0 or 0 <= mean <= 1 and abs(deviation**2 - mean * (1 - mean)) <= 0.1 * deviation**2:
        return None
    times = deviation / scale
    if abs(mean) <= AROUND_0 * deviation and abs(centre) <= AROUND_0 * scale:
        return times
    same_way = mean * centre > 0 and abs(math.log2(mean / centre / times)) <= ALIKE
    return times if same_way else None


def _times_of_logs(mean: float, deviation: float, centre: float, scale: float) -> float | None:
    """Another unit moves the logs of all values but those that are 0, which stay.

    With a share z of zeros, and logs of the others of mean M and deviation S, the mean is (1 - z) M and the variance
    (1 - z) S^2 + z (1 - z) M^2; from both, before and after M has moved, r = z / (1 - z) follows.
    """
    if deviation <= 0:
        return None
    squares = mean**2 - centre**2
    r = max((deviation**2 - scale**2) / squares, 0.0) if abs(squares) > 1e-9 else 0.0
    spread = scale**2 * (1 + r) - r * (1 + r) * centre**2
    if not r:
        spread = max(scale, deviation) ** 2 if abs(math.log2(deviation / scale)) <= ALIKE else math.inf
    explained = 0 < spread <= WIDEST_LOGS**2
    return math.exp(min(max((mean - centre) * (1 + r), -100.0), 100.0)) if explained else None
