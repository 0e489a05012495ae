"""What one reading of a bank's payments found, and whether the next one looks wrong beside it.

A reading that looks wrong is more often a broken export than a changed world: the bank sits the cycle out and serves.
Data that did not change, or that come weekly, look right.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from p2pfed.core import record
from p2pfed.core.contract import OTHER_UNIT, unit_sentence

LEAST_SHARE = 0.5
"""Of the last reading's rows fewer are a problem."""
UNSEEN_SHARE = 0.01
"""Share of rows by which levels unknown to the contract may be above what they were when they were taken."""
RATE_FACTOR = 3.0
"""The true fraud rate may be this many times the last one, or that part of it."""
CHANCE = 1e-3
"""Least probability of a count of frauds, by Poisson at the limit of what the rate may be."""


@dataclass(frozen=True)
class Reading:
    """Counts of one reading; times in Unix seconds."""

    rows: int
    """What the source gave."""
    rows_in_window: int
    """Of these, within `data.window_days`; all without a window."""
    immature: int
    """Of those in the window, with a label that is not mature yet."""
    usable: int
    """Mature, labelled and complete: training, validation and test have these."""
    frauds: int
    """Of the usable rows."""
    oldest: float | None
    """The first payment in the window; None without event_time."""
    newest: float | None
    """The last one, immature or not."""
    mature_until: float | None
    """Payments up to here have been counted as matured: the next reading's `matured_since`."""
    columns: tuple[str, ...]
    """The bank's columns that were read."""
    unknown: tuple[tuple[str, float], ...]
    """Each categorical column of the contract, and the share of usable rows with a level that it does not list."""
    unknown_taken: tuple[tuple[str, float], ...]
    """What the next reading's `unknown` is compared with: that of the first reading, or of the last that the operator
    took. Readings in a row that stay near each other cannot move it.
    """
    units: tuple[tuple[str, float], ...]
    """Numeric columns of the contract, each with how many times the contract's its values seem to be, above 0."""
    units_taken: tuple[tuple[str, float], ...]
    """What the next reading's `units` are compared with, as `unknown_taken`; of other columns the contract's."""
    read_at: float
    seconds: float
    """How long it took."""

    @property
    def fraud_rate(self) -> float:
        """Frauds a usable row."""
        return self.frauds / self.usable if self.usable else 0.0

    def plain(self) -> dict[str, Any]:
        """As plain JSON values."""
        value: dict[str, Any] = record.plain(self)
        return value

    @classmethod
    def from_plain(cls, value: Mapping[str, Any]) -> Reading:
        """Read what `plain` wrote; raises RecordError (a ValueError) that names the field on anything else.

        Of a reading from before `unknown_taken` was kept, `unknown` counts as taken; of one before `units_taken`,
        `units`, and nothing of one before these.
        """
        units = value.get("units", [])
        read: Reading = record.build(
            cls, {"unknown_taken": value.get("unknown"), "units": units, "units_taken": units, **value}
        )
        if any(times <= 0 for _, times in (*read.units, *read.units_taken)):
            raise ValueError("units: values are more than 0 times the contract's")
        return read

    def after(self, last: Reading | None) -> Reading:
        """As it is kept if it was taken after `last` without a word of the operator.

        What `last` was compared with stays, but for columns that the contract did not have then, and is less once
        fewer rows have such levels: what was taken once is no licence for ever.
        """
        if last is None:
            return self
        taken = dict(last.unknown_taken)
        kept = ((name, min(taken.get(name, share), share + UNSEEN_SHARE)) for name, share in self.unknown)
        units = dict(last.units_taken)
        units.update((name, times) for name, times in self.units if name not in units or _nearer(times, units[name]))
        return replace(self, unknown_taken=tuple(kept), units_taken=tuple(units.items()))


def reading_problems(new: Reading, last: Reading | None) -> list[str]:
    """Why `new` looks wrong, a sentence with the numbers each: beside the contract, or the last reading taken."""
    units = _units(new, dict(last.units_taken) if last else {})
    if last is None:
        return units
    return [*_rows(new, last), *_columns(new, last), *_levels(new, last), *_frauds(new, last), *units]


def _rows(new: Reading, last: Reading) -> list[str]:
    kinds = (
        ("of the window", new.rows_in_window, last.rows_in_window),
        ("that can be used", new.usable, last.usable),
    )
    for which, count, before in kinds:
        if count < LEAST_SHARE * before:
            return [f"{count:,} rows {which} were read, the last time {before:,}: more than half of them are gone"]
    return []


def _columns(new: Reading, last: Reading) -> list[str]:
    gone = [name for name in last.columns if name not in new.columns]
    if not gone:
        return []
    named = ", ".join(map(repr, gone))
    return [f"{len(gone)} of the {len(last.columns)} columns read the last time are gone: {named}"]


def _levels(new: Reading, last: Reading) -> list[str]:
    said, taken = [], dict(last.unknown_taken)
    for name, share in new.unknown:
        before = taken.get(name, 0.0)
        if share - before > UNSEEN_SHARE:
            said.append(
                f"column {name!r}: {share:.1%} of {new.usable:,} rows have a level that the contract does not list, "
                f"{before:.1%} were taken before"
            )
    return said


def _units(new: Reading, taken: Mapping[str, float]) -> list[str]:
    """Refuse a unit that nobody has taken yet, unless it comes nearer to the consortium's."""
    said = []
    for name, times in new.units:
        before = taken.get(name, 1.0)
        if _other(times / before) and not _nearer(times, before):
            told = (times, "the consortium's") if _other(times) else (times / before, "those taken before")
            said.append(unit_sentence(name, *told))
    return said


def _other(times: float) -> bool:
    return max(times, 1 / times) >= OTHER_UNIT


def _nearer(times: float, before: float) -> bool:
    """Whether values that many times the consortium's are more like them than before."""
    return abs(math.log(times)) < abs(math.log(before))


def _frauds(new: Reading, last: Reading) -> list[str]:
    """Refuse counts that even a rate three times as high, or a third as high, would hardly give."""
    from scipy.special import pdtr, pdtrc  # Poisson's P(X <= k) and P(X > k)

    # none at all is a rate too: below that of one
    rate = max(last.frauds, 1) / max(last.usable, 1)
    most, fewest = rate * RATE_FACTOR * new.usable, rate / RATE_FACTOR * new.usable
    if new.frauds > most and pdtrc(new.frauds - 1, most) < CHANCE:
        limit, way = most, f"at {RATE_FACTOR:g} times"
    elif last.frauds and pdtr(new.frauds, fewest) < CHANCE:
        limit, way = fewest, "at a third of"
    else:
        return []
    expected = f"{limit:,.0f}" if limit >= 10 else f"{limit:.1f}"
    return [
        f"{new.frauds:,} of {new.usable:,} rows are fraud, the last time {last.frauds:,} of {last.usable:,}: "
        f"even {way} the last rate {expected} would be expected"
    ]
