"""One file of payments, or generated ones, dealt into the files of an experiment: a bank each, and the pooled test."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

import pandas as pd

from p2pfed.cluster.founding import Shards
from p2pfed.cluster.options import ClusterOptions
from p2pfed.data import files, partition, sources, synthetic


class _Payments(NamedTuple):
    """All payments, and what their columns are."""

    frame: pd.DataFrame
    label: str
    time: str | None
    split: Literal["stratified", "time"]
    dealing: str
    drop: tuple[str, ...]


def deal(options: ClusterOptions, folder: Path) -> Shards:
    """Remove duplicates, hold out the pooled test, deal the rest to banks; raises DataError, UsageError."""
    payments = _generated(options) if options.data is None else _read(options, options.data)
    rest, test = partition.holdout(
        payments.frame,
        payments.label,
        payments.split,
        payments.time,
        options.test_share,
        options.gap_days,
        options.seed,
    )
    banks = partition.partition(rest, payments.label, options.nodes, payments.dealing, options.seed)
    names = tuple(f"bank-{i + 1}" for i in range(options.nodes))
    folder.mkdir(parents=True, exist_ok=True)
    paths = tuple(folder / f"{name}.parquet" for name in names)
    for path, rows in zip(
        (*paths, folder / "training.parquet", folder / "test.parquet"), (*banks, rest, test), strict=True
    ):
        files.write(rows, path)
    return Shards(
        names=names,
        banks=paths,
        sample=folder / "training.parquet",
        test=folder / "test.parquet",
        label=payments.label,
        event_time=payments.time,
        split=payments.split,
        drop=payments.drop,
    )


def _read(options: ClusterOptions, path: Path) -> _Payments:
    frame = files.read(path)
    dealt_by = options.partition.removeprefix("by:") if options.partition.startswith("by:") else None
    sources.check_columns(list(frame.columns), [options.label, *options.drop], str(path))
    drop = tuple(dict.fromkeys((*options.drop, dealt_by) if dealt_by else options.drop))
    return _Payments(frame, options.label, options.time, options.split, options.partition, drop)


def _generated(options: ClusterOptions) -> _Payments:
    frame = synthetic.generate(synthetic.PAYMENTS_A_BANK * options.nodes, options.nodes, options.seed)
    drop = (synthetic.BANK, *synthetic.IDENTIFIERS)
    return _Payments(frame, synthetic.LABEL, synthetic.EVENT_TIME, "time", f"by:{synthetic.BANK}", drop)
