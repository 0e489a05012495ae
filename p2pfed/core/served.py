"""How what served has fared: payments counted once their labels have matured, by day."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class ServedDay:
    """How the payments of one day (UTC) fared. What they leave undefined is None."""

    day: str
    """As 2026-03-01."""
    rows: int
    frauds: int
    alerts: int
    """Payments above the threshold that was in force."""
    caught: int
    """Of these, frauds."""
    auprc: float | None
    """Where several models served, of all their scores in one order."""
    model: str
    """`ModelBundle.weights_sha256` of what scored most of the rows, the newer one of two."""

    @property
    def recall(self) -> float | None:
        """Share of the frauds that got an alert."""
        return self.caught / self.frauds if self.frauds else None

    @property
    def precision(self) -> float | None:
        """Share of the alerts that were frauds."""
        return self.caught / self.alerts if self.alerts else None


@dataclass(frozen=True)
class Served:
    """What one reading of the payments adds: those that happened after `since` and have matured, up to `until`."""

    since: float
    """Unix seconds, as `until`."""
    until: float
    days: tuple[ServedDay, ...]
    """In order; a day may be cut by the reading before or after."""
    error: str = ""
    """What could not be scored and why; empty where all could."""


def together(parts: Iterable[ServedDay]) -> ServedDay:
    """Parts of a day, or days, as one under the last one's name.

    Counts add up. The AUPRC is the mean of the parts' by their frauds, for the scores themselves are not kept.
    """
    known = sorted(parts, key=lambda part: part.day)
    ranked = [(part.auprc, part.frauds) for part in known if part.auprc is not None]
    frauds = sum(n for _, n in ranked)
    return ServedDay(
        known[-1].day,
        sum(part.rows for part in known),
        sum(part.frauds for part in known),
        sum(part.alerts for part in known),
        sum(part.caught for part in known),
        sum(auprc * n for auprc, n in ranked) / frauds if frauds else None,
        max(reversed(known), key=lambda part: part.rows).model,
    )
