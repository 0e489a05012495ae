"""Payments for experiments, and a look at a bank's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from p2pfed.cli.terminal import AsJson, names, plural, show, table

CLIP = 10.0

Label = Annotated[str, typer.Option(help="The fraud column.")]
Drop = Annotated[str, typer.Option(help="Columns that are no features, such as customer_id,card_id.")]


def make(
    out: Annotated[Path, typer.Argument(help="Where to write; .csv or .parquet.")],
    rows: Annotated[int, typer.Option(help="Payments.")] = 200_000,
    banks: Annotated[int, typer.Option(help="Banks the customers belong to, in column `bank`.")] = 4,
    days: Annotated[int, typer.Option(help="Days the payments cover.")] = 120,
    seed: Annotated[int, typer.Option(help="The same seed makes the same payments.")] = 0,
) -> None:
    """Generate card payments with several kinds of fraud, of which each bank sees some."""
    from p2pfed.data import files, synthetic

    files.source_of(out)
    frame = synthetic.generate(rows, banks=banks, seed=seed, days=days)
    files.write(frame, out)
    print(f"wrote {plural(len(frame), 'payment')} of {plural(banks, 'bank')} to {out}")


def partition(
    file: Annotated[Path, typer.Argument(help="The payments; .csv or .parquet.")],
    label: Label,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for bank-1.parquet and so on.")],
    banks: Annotated[int, typer.Option(help="How many banks.")] = 4,
    how: Annotated[str, typer.Option(help="iid, dirichlet:0.5, lognormal:0.8 or by:COLUMN.")] = "dirichlet:0.5",
    seed: Annotated[int, typer.Option(help="The same seed deals the same rows.")] = 0,
) -> None:
    """Deal the rows of a file to several banks, exact duplicates removed."""
    from p2pfed.data import files
    from p2pfed.data import partition as dealing

    frame = dealing.deduplicate(files.read(file))
    parts = dealing.partition(frame, label, banks, how, seed)
    out.mkdir(parents=True, exist_ok=True)
    for number, part in enumerate(parts, 1):
        path = out / f"bank-{number}.parquet"
        files.write(part, path)
        print(f"wrote {plural(len(part), 'payment')} to {path}")


def describe(
    file: Annotated[Path, typer.Argument(help="The payments; .csv or .parquet.")],
    label: Label,
    drop: Drop = "",
    time: Annotated[str | None, typer.Option(help="The payment-time column.")] = None,
    contract: Annotated[Path | None, typer.Option(help="Write a draft feature contract here.")] = None,
    as_json: AsJson = False,
) -> None:
    """Columns, rows and frauds of a file, and the feature contract it suggests."""
    from p2pfed.data import describe as looking
    from p2pfed.data import files

    source, dropped = files.source_of(file), names(drop)
    reply = looking.describe(source, label=label, drop=dropped, event_time=time)
    if contract is not None:
        _write_contract(contract, looking.propose_contract(source, label=label, drop=dropped, event_time=time), label)
    show(as_json, reply, _text(reply))


def _write_contract(path: Path, columns: Any, label: str) -> None:
    from p2pfed.core import record
    from p2pfed.core.contract import FeatureContract, Moments
    from p2pfed.store.state_dir import write_atomically

    # a draft: `consortium create` puts in the scaling that the banks' moments give
    draft = FeatureContract(tuple(columns), label, "local", Moments((), ()), CLIP)
    write_atomically(path, record.readable(draft), 0o644)


def _text(reply: dict[str, Any]) -> str:
    return table(("COLUMN", "KIND"), [(c["name"], c["kind"]) for c in reply["columns"]])
