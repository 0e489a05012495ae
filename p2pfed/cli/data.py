"""Payments for experiments, and a look at a bank's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from p2pfed.cli.terminal import (
    DEFAULT_CONFIG,
    AsJson,
    ConfigPath,
    Decimal,
    Delimiter,
    Drop,
    Force,
    check_free,
    plural,
    read_config,
    show,
    table,
    write_new,
    written,
)
from p2pfed.errors import UsageError


def make(
    out: Annotated[Path, typer.Argument(help="Where to write; .csv or .parquet.")],
    rows: Annotated[int, typer.Option(help="Payments.")] = 200_000,
    banks: Annotated[int, typer.Option(help="Banks the customers belong to, in column `bank`.")] = 4,
    days: Annotated[int, typer.Option(help="Days the payments cover.")] = 120,
    seed: Annotated[int, typer.Option(help="The same seed makes the same payments.")] = 0,
    unusual: Annotated[
        bool, typer.Option("--unusual", help="Bank 0 to 4 differ: frauds, amounts, tiny, huge, seasonal.")
    ] = False,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Generate card payments with several kinds of fraud, of which each bank sees some."""
    from p2pfed.cluster.processes import interruptible
    from p2pfed.data import files, synthetic
    from p2pfed.data.unusual import unusual as make_unusual

    files.source_of(out)
    check_free(out, force)
    frame = synthetic.generate(rows, banks=banks, seed=seed, days=days)
    if unusual:
        frame = make_unusual(frame, seed)
    with interruptible():
        files.write(frame, out)
    text = f"wrote {plural(len(frame), 'payment')} of {plural(banks, 'bank')} to {out}"
    show(as_json, {"file": out, "payments": len(frame), "banks": banks}, text)


def partition(
    file: Annotated[Path, typer.Argument(help="The payments; .csv or .parquet.")],
    label: Annotated[str, typer.Option(help="The fraud column.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for bank-1.parquet and so on.")],
    banks: Annotated[int, typer.Option(help="How many banks.")] = 4,
    how: Annotated[str, typer.Option(help="iid, dirichlet:0.5, lognormal:0.8 or by:COLUMN.")] = "dirichlet:0.5",
    seed: Annotated[int, typer.Option(help="The same seed deals the same rows.")] = 0,
    delimiter: Delimiter = None,
    decimal: Decimal = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Deal the rows of a file to several banks, exact duplicates removed."""
    from p2pfed.cluster.processes import interruptible
    from p2pfed.data import files
    from p2pfed.data import partition as dealing

    paths = [out / f"bank-{number}.parquet" for number in range(1, banks + 1)]
    for path in paths:
        check_free(path, force)
    frame = dealing.deduplicate(files.read(file, written(delimiter, decimal)))
    parts = dealing.partition(frame, label, banks, how, seed)
    out.mkdir(parents=True, exist_ok=True)
    for path, part in zip(paths, parts, strict=True):
        with interruptible():
            files.write(part, path)
    lines = [f"wrote {plural(len(part), 'payment')} to {path}" for path, part in zip(paths, parts, strict=True)]
    value = [{"file": path, "payments": len(part)} for path, part in zip(paths, parts, strict=True)]
    show(as_json, value, "\n".join(lines))


def describe(
    file: Annotated[Path | None, typer.Argument(help="The payments; default what the configuration names.")] = None,
    label: Annotated[str | None, typer.Option(help="The fraud column; needed with a file.")] = None,
    drop: Drop = None,
    time: Annotated[str | None, typer.Option(help="The payment-time column.")] = None,
    contract: Annotated[Path | None, typer.Option(help="Write a draft feature contract here.")] = None,
    hashed: Annotated[
        list[str] | None,
        typer.Option("--hash", help="Columns of many codes, such as mcc, that share a few levels; repeatable."),
    ] = None,
    delimiter: Delimiter = None,
    decimal: Decimal = None,
    force: Force = False,
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Columns, rows and frauds of a bank's payments, and the feature contract they suggest."""
    from p2pfed.data import describe as looking
    from p2pfed.data import files, sources

    labels = zone = None
    if file is None:
        if delimiter or decimal:
            raise UsageError("--delimiter and --decimal are for a FILE; the configuration says them under data.source")
        data = read_config(config, None).data
        source, label, time, labels = data.source, label or data.label, time or data.event_time, data.labels
        zone = data.time_zone
    elif label is None:
        raise UsageError("a file needs --label, the name of its fraud column")
    else:
        source = files.named(file, written(delimiter, decimal))
    there, where = sources.column_names(source), sources.place(source)
    left_out, shared = sources.chosen(there, drop or (), where), sources.chosen(there, hashed or (), where)
    reply = looking.describe(source, label, left_out, time, labels, zone, shared)
    if contract is not None:
        columns = looking.propose_contract(source, label, left_out, time, labels, zone, shared)
        _write_contract(contract, columns, label, force)
    show(as_json, reply, _text(reply))


def _write_contract(path: Path, columns: Any, label: str, force: bool) -> None:
    from p2pfed.core import record
    from p2pfed.core.contract import FeatureContract, Moments
    from p2pfed.runtime.enrolment import CONTRACT_CLIP

    # a draft: `consortium create` puts in the scaling that the banks' moments give
    draft = FeatureContract(tuple(columns), label, "local", Moments((), ()), CONTRACT_CLIP)
    write_new(path, record.readable(draft), force)


def _text(reply: dict[str, Any]) -> str:
    rows = [(c["name"], c["kind"], _range(c), c["missing"] or "") for c in reply["columns"]]
    share = reply["frauds"] / max(reply["rows"], 1)
    head = f"{plural(reply['rows'], 'payment')}, {plural(reply['frauds'], 'fraud')} ({share:.3%})"
    if reply["unlabelled"]:
        head += f", {reply['unlabelled']:,} without a label"
    if reply["first_time"] is not None:
        head += f", from {_day(reply['first_time'])} to {_day(reply['last_time'])}"
    notes = list(reply["leaks"])
    notes += [f"the time column: {reply['time_doubt']}"] if reply["time_doubt"] else []
    notes += [
        f"column {c['name']!r}: of the rows in which it is empty {c['gaps']}; the draft contract gives it an indicator"
        for c in reply["columns"]
        if "gaps" in c
    ]
    notes += list(_kept_and_left_out(reply["columns"]))
    return "\n".join((f"{head}\n\n{table(('COLUMN', 'KIND', 'VALUES', 'MISSING'), rows)}", *notes))


def _kept_and_left_out(columns: list[dict[str, Any]]) -> Iterator[str]:
    """What to do where a number was taken for a feature or for an identifier, and is the other."""
    for column in columns:
        if column.get("ordered"):
            yield f"column {column['name']!r} never falls from row to row: if it is a time, use --time or --drop"
    if left := [column["name"] for column in columns if column["kind"] == "identifier"]:
        entry = json.dumps({"kind": "numeric", "levels": [], "name": left[0], "transform": "none"})
        yield (
            "identifiers are left out of the draft contract; one that is a feature is taken with --hash, for codes, or "
            f"by writing it under columns there: {entry}"
        )


def _range(column: dict[str, Any]) -> str:
    if column["kind"] == "numeric":
        log = ", under log" if column["transform"] == "log" else ""
        return f"{column['minimum']:.6g} to {column['maximum']:.6g}, mean {column['mean']:.6g}{log}"
    if column["kind"] == "categorical":
        levels = column["levels"]
        return f"{len(levels)}: {', '.join(levels[:6])}{', ...' if len(levels) > 6 else ''}"
    return str(column.get("why", ""))


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
