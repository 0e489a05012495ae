"""What loading a bank's rows found, for people. Imports nothing heavy: the daemon says it too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LEFT_OUT = "left out"
TITLES = (
    ("dropped", LEFT_OUT),
    ("unknown_levels", "levels unknown to the contract"),
    ("imputed", "empty values filled in"),
)


def one_line(report: Mapping[str, Any]) -> str:
    """The report of `features.load_bank` as one line: `read` of it, and what looks wrong."""
    return "; ".join([read(report), *report["notes"]])


def read(report: Mapping[str, Any]) -> str:
    """Rows and frauds, what was left out and why."""
    parts = [
        f"{report['train_rows']:,} training rows with {report['train_frauds']:,} frauds",
        f"{report['rows_read']:,} rows read",
    ]
    parts += [counted(title, report[name]) for name, title in TITLES if report[name]]
    return "; ".join(parts)


def counted(title: str, counts: Mapping[str, int]) -> str:
    """`left out: no label 3, exact duplicate 1,200`."""
    return f"{title}: {', '.join(f'{what} {n:,}' for what, n in counts.items())}"
