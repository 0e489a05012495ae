"""Score payments with the model the node keeps."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from p2pfed.cli.terminal import (
    DEFAULT_CONFIG,
    AsJson,
    ConfigPath,
    Decimal,
    Delimiter,
    Force,
    Settings,
    check_free,
    plural,
    read_config,
    show,
    written,
)


def score(
    file: Annotated[Path, typer.Argument(help="The payments; .csv or .parquet, - is CSV on standard input.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Where to write; .csv or .parquet, - is CSV to standard output.")
    ],
    config: ConfigPath = DEFAULT_CONFIG,
    model: Annotated[Path | None, typer.Option(help="A model bundle; default the node's newest.")] = None,
    keep: Annotated[
        list[str] | None, typer.Option(help="Columns to copy to the output, such as payment_id; repeatable.")
    ] = None,
    delimiter: Delimiter = None,
    decimal: Decimal = None,
    force: Force = False,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Score a file of payments: one row each, with score and alert."""
    from p2pfed.cluster.processes import interruptible
    from p2pfed.data import files
    from p2pfed.runtime import scoring
    from p2pfed.store.state_dir import StateDir

    if out != files.STREAM:
        check_free(out, force)
    node = read_config(config, settings)
    bundle = scoring.read_bundle(model or StateDir(node.node.state_dir).model)

    def tell(rows: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{rows:,} payments", end="", file=sys.stderr)

    how = written(delimiter, decimal, node.data.source if node.data.source.kind == "csv" else None)
    with interruptible(), files.given(file, how) as payments:
        done = scoring.score_file(bundle, node.data, payments, out, tuple(keep or ()), tell)
    if sys.stderr.isatty():
        print("\r", end="", file=sys.stderr)
    where = "to standard output" if out == files.STREAM else f"in {out}"
    text = f"scored {plural(done.rows, 'payment')}: {plural(done.alerts, 'alert')} above {done.threshold:.6g}, {where}"
    text += f"; by model {done.model}"
    if done.unscored:
        text += f"; {plural(done.unscored, 'row')} without a score, because a value is missing or infinite"
    for name in done.unlisted:
        text += (
            f"; column {name!r}: no payment has a level that the contract lists; check its spelling, or data.columns"
        )
    show(as_json, asdict(done) | {"out": out}, text, sys.stderr if out == files.STREAM else None)
