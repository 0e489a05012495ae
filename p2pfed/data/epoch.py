"""Whether times read as seconds since 1970 are that: a wrong unit lets every label pass for mature, and is not seen."""

from __future__ import annotations

from p2pfed.core.types import DAY

YEAR_1990 = 631_152_000.0
"""No bank has labelled payments from before; dates written as numbers, days and hours are all read as 1970."""
MANY = 1000
"""So many payments take a bank a day at least."""


def doubt(oldest: float | None, newest: float | None, rows: int) -> str:
    """Why times from `oldest` to `newest` of so many rows are hardly seconds since 1970; empty if they may be."""
    if oldest is None or newest is None:
        return ""
    if newest < YEAR_1990:
        return f"all times lie before 1990 if they are seconds since 1970: {_unit(oldest, newest)}"
    if rows >= MANY and newest - oldest < DAY:
        return f"all {rows:,} payments lie within {(newest - oldest) / 3600:.1f} hours: are the times in seconds?"
    return ""


def _unit(oldest: float, newest: float) -> str:
    if oldest >= 1990_01_01 and newest <= 2100_12_31:
        return "they look like dates written as YYYYMMDD; write them as 2026-08-21T00:00:00Z"
    if oldest >= 32_874 and newest <= 73_415:  # 1990 to 2100
        return "they look like the days of a spreadsheet; subtract 25569 and multiply by 86400"
    return (
        "they seem to count from a start of their own, which does for a time split if they are seconds, and not where "
        "it matters how old a payment is"
    )
