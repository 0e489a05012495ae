"""What commands share: their common options, and printing for people or, under --json, for scripts."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from p2pfed.config import NodeConfig

DEFAULT_CONFIG = Path("node.yaml")

ConfigPath = Annotated[Path, typer.Option("--config", "-c", help="The node's configuration file.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting: section.key=value; repeatable."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]


def read_config(path: Path, settings: Sequence[str] | None) -> NodeConfig:
    """The checked configuration, environment and `--set` laid over the file; raises ConfigError."""
    from p2pfed import configfile

    return configfile.load(path, os.environ, settings or ())


def show(as_json: bool, value: Any, text: str) -> None:
    """Print `value` as JSON or else `text`, to standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str) if as_json else text)


def table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Columns under headings, two spaces apart; None is shown as a dash."""
    cells = [list(headings), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headings))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells)


def plural(count: int, noun: str) -> str:
    """`1 member`, `2 members`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def span(seconds: float | None) -> str:
    """`4s`, `2m41s`, `3h10m`, `5d`: how long, in at most two units; a dash for None."""
    if seconds is None:
        return "-"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d"


def _cell(value: Any) -> str:
    # names and notes come from other banks: nothing that moves a cursor reaches the terminal
    text = "-" if value is None else str(value)
    return "".join(c if c.isprintable() else "?" for c in text)
