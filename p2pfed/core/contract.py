"""The feature contract: which columns every member's rows are turned into, and on which scale."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

OTHER_UNIT = 16.0
"""A column whose values are so many times the others', or that part of them, is taken to be in another unit: cents,
minutes and milliseconds are 60, 100 and 1000 times as many. Days for hours (24) still show. Honest banks of the data
sets that the project is measured on differ by 8 at most, and that where most payments of one are frauds."""
ALIKE = 1.0
"""Doublings by which deviations of logs may differ where a unit alone differs: it moves their mean only."""


def unit_sentence(column: str, times: float) -> str:
    """That a column's values are so many times the consortium's."""
    than = f"{times:,.0f} times as large as" if times > 1 else f"1/{1 / times:,.0f} of"
    return f"column {column!r}: its values are about {than} the consortium's: is it in another unit?"


@dataclass(frozen=True)
class FeatureColumn:
    """One column of the contract. A categorical column becomes one 0/1 input per level, an unknown level all zeros."""

    name: str
    kind: Literal["numeric", "categorical"]
    levels: tuple[str, ...]
    transform: Literal["none", "log"]
    """`log` is sign(x) * log(1 + |x|), for amounts; categorical columns say `none`."""

    def __post_init__(self) -> None:
        if (self.kind == "categorical") != bool(self.levels):
            raise ValueError(f"column {self.name!r}: a categorical column lists its levels, a numeric one none")
        if len(set(self.levels)) != len(self.levels):
            raise ValueError(f"column {self.name!r}: a level is listed twice")
        if self.kind == "categorical" and self.transform != "none":
            raise ValueError(f"column {self.name!r}: a categorical column has no transform")

    @property
    def width(self) -> int:
        """How many model inputs the column gives."""
        return len(self.levels) or 1


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation of each numeric contract column, in contract order, after its transform."""

    means: tuple[float, ...]
    deviations: tuple[float, ...]


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

    def other_units(self, own: Moments) -> dict[str, float]:
        """Numeric columns that a bank with the moments `own` seems to have in another unit than the contract.

        Each with how many times the contract's its values are, above 1 or below. None under `local` scaling, where
        units do not matter, nor of a column that is constant there.
        """
        if self.scaling == "local":
            return {}
        found = {}
        theirs = zip(self.moments.means, self.moments.deviations, strict=True)
        mine = zip(own.means, own.deviations, strict=True)
        for column, (mean, deviation), (centre, scale) in zip(self.numeric, mine, theirs, strict=True):
            times = deviation / scale
            if column.transform == "log" and abs(math.log2(max(times, 1e-9))) <= ALIKE:
                times = math.exp(min(max(mean - centre, -100.0), 100.0))
            if times > 0 and max(times, 1 / times) >= OTHER_UNIT:
                found[column.name] = times
        return found
