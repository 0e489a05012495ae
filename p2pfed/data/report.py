"""What loading a bank's rows found, for people. Imports nothing heavy: the daemon says it too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def one_line(report: Mapping[str, Any]) -> str:
    """The report of `features.load_bank` as one line: rows and frauds, what was left out and why, what looks wrong."""
    parts = [
        f"{report['train_rows']:,} training rows with {report['train_frauds']:,} frauds",
        f"{report['rows_read']:,} rows read",
    ]
    for name, title in (
        ("dropped", "left out"),
        ("unknown_levels", "levels unknown to the contract"),
        ("imputed", "empty values filled in"),
    ):
        if counts := report[name]:
            parts.append(f"{title}: {', '.join(f'{what} {n:,}' for what, n in counts.items())}")
    return "; ".join([*parts, *report["notes"]])
