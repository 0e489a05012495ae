"""One file of payments, or generated ones, dealt into the files of an experiment: a bank each, and the pooled test."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from p2pfed.cluster.founding import Shards
from p2pfed.cluster.options import ClusterOptions
from p2pfed.data import files, partition, synthetic
from p2pfed.data.banks import Payments, generated_payments, read_payments


def deal(options: ClusterOptions, folder: Path) -> Shards:
    """Remove duplicates, hold out the pooled test, deal the rest to banks; raises DataError, UsageError."""
    payments = payments_of(options)
    rest, test, left_out = partition.holdout(
        payments.frame,
        payments.label,
        payments.split,
        payments.time,
        options.test_share,
        options.gap_days,
        options.seed,
        payments.drop,
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
        left_out=Counter(left_out) + Counter({"in no bank": len(rest) - sum(map(len, banks))}),
    )


def payments_of(options: ClusterOptions) -> Payments:
    """What the banks have together; raises DataError, UsageError."""
    if options.data is None:
        return generated_payments(synthetic.PAYMENTS_A_BANK * options.nodes, options.nodes, options.seed)
    return read_payments(options.data, options.label, options.time, options.split, options.partition, options.drop)
