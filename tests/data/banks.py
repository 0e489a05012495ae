"""A small bank's payments, the contract they fit, and the data section that reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from p2pfed.config import DataSection, Source
from p2pfed.core.contract import FeatureColumn, FeatureContract, Moments
from p2pfed.data import sources

COLUMNS = (
    FeatureColumn("amount", "numeric", (), "log"),
    FeatureColumn("channel", "categorical", ("chip", "online"), "none"),
    FeatureColumn("age", "numeric", (), "none"),
)
CONTRACT = FeatureContract(COLUMNS, "fraud", "contract", Moments((3.0, 40.0), (1.0, 10.0)), 10.0)
LOCAL = FeatureContract(COLUMNS, "fraud", "local", Moments((), ()), 10.0)
NOW = 1_800_000_000.0


def payments(rows: int = 400, frauds: int = 20, seed: int = 0) -> pd.DataFrame:
    """`rows` payments, an hour apart and all before NOW; the frauds are spread evenly and somewhat larger."""
    rng = np.random.default_rng(seed)
    fraud = np.zeros(rows, np.int8)
    fraud[np.linspace(0, rows - 1, frauds).astype(int)] = 1
    return pd.DataFrame(
        {
            "payment": np.arange(rows),
            "when": (NOW - 3600.0 * np.arange(rows, 0, -1)).astype(np.int64),
            "amount": np.round(np.exp(rng.normal(3, 1, rows)) * (1 + fraud), 2),
            "channel": rng.choice(["chip", "online"], rows),
            "age": rng.integers(18, 90, rows).astype(np.float64),
            "fraud": fraud,
        }
    )


def read(source: Source) -> pd.DataFrame:
    """All rows of a source."""
    return pd.concat(sources.read_chunks(source), ignore_index=True)


def section(folder: Path, frame: pd.DataFrame | str, **changes: Any) -> DataSection:
    """`frame` (or the text of a CSV file) written to `folder`, and the section that reads it, split by time."""
    path = folder / "payments.csv"
    if isinstance(frame, str):
        path.write_text(frame)
    else:
        frame.to_csv(path, index=False)
    fields: dict[str, Any] = {
        "source": {"kind": "csv", "path": path},
        "label": "fraud",
        "event_time": "when",
        "split": "time",
        **changes,
    }
    return DataSection.model_validate(fields)
