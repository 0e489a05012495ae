"""What commands share: their common options, and printing for people or, under --json, for scripts."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from p2pfed.core.types import DAY
from p2pfed.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from p2pfed.config import CsvSource, NodeConfig

LEAST_WIDTH = 8
"""Of a column of a table that is too wide."""

DEFAULT_CONFIG = Path("node.yaml")

ConfigPath = Annotated[Path, typer.Option("--config", "-c", help="The node's configuration file.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting: section.key=value; repeatable."),
]
Drop = Annotated[
    list[str] | None, typer.Option(help="Columns that are no features, such as customer_id,card_id; repeatable.")
]
Delimiter = Annotated[
    str | None,
    typer.Option(
        help="The character between a CSV file's columns, \\t a tab; default the configuration's, or a comma."
    ),
]
Decimal = Annotated[
    str | None,
    typer.Option(help="The character before a CSV file's decimals; default the configuration's, or a point."),
]
Force = Annotated[bool, typer.Option("--force", help="Replace files that exist.")]
AllowCode = Annotated[
    bool, typer.Option("--allow-code", help="Import and run a merge rule module:Class, as code of your own.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def read_config(path: Path, settings: Sequence[str] | None) -> NodeConfig:
    """The checked configuration, environment and `--set` laid over the file; raises ConfigError."""
    from p2pfed import configfile

    return configfile.load(path, os.environ, settings or ())


def read_file(path: Path, what: str) -> bytes:
    """The bytes of a file the operator named; raises UsageError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {what} cannot be read: {error.strerror}") from None


def written(delimiter: str | None, decimal: str | None, default: CsvSource | None = None) -> CsvSource:
    """How a CSV file is written, by the options and else as `default` is; raises UsageError."""
    from pydantic import ValidationError

    from p2pfed.config import CsvSource

    default = default or CsvSource(kind="csv", path=Path())
    said = {"delimiter": delimiter and delimiter.replace("\\t", "\t"), "decimal": decimal}
    try:
        return CsvSource.model_validate(default.model_dump() | {name: text for name, text in said.items() if text})
    except ValidationError as error:
        raise UsageError(
            f"--delimiter and --decimal: {error.errors()[0]['msg'].removeprefix('Value error, ')}"
        ) from None


def write_new(path: Path, data: bytes, force: bool) -> None:
    """Write a file that everybody may read; raises UsageError if it exists and differs, unless `force`."""
    from p2pfed.store.state_dir import write_atomically

    if not force and path.exists() and path.read_bytes() != data:
        raise UsageError(f"{path} exists and says something else: move it away, or replace it with --force")
    write_atomically(path, data, 0o644)


def check_free(path: Path, force: bool) -> None:
    """Raise UsageError if a file would be written over, unless `force`: said before the work, not after it."""
    if not force and path.is_file():
        raise UsageError(f"{path} exists: move it away, or replace it with --force")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the file's name in front of a ConfigError of the block."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(*(f"{path}: {problem}" for problem in error.problems)) from None


def show(as_json: bool, value: Any, text: str, stream: TextIO | None = None) -> None:
    """Print `value` as JSON or else `text`, to standard output unless there is another `stream`."""
    shown = json.dumps(value, indent=2, default=str) if as_json else text
    # half a character, of a damaged file, cannot be printed
    print(shown.encode(errors="replace").decode(), file=stream)


class Report:
    """What a command does, sentence by sentence for people or, under --json, as one object at its end."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._value: dict[str, Any] = {}

    def say(self, text: str, **values: Any) -> None:
        """Tell people `text`, and scripts `values`."""
        if not self._as_json:
            show(False, None, text)
        self._value |= values

    def note(self, text: str) -> None:
        """Tell both one more sentence that somebody should look at."""
        self.say(text, notes=[*self._value.get("notes", ()), text])

    def end(self) -> None:
        """Nothing more is to be told."""
        if self._as_json:
            show(True, self._value, "")


def table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Columns under headings, two spaces apart; None is shown as a dash.

    On a terminal that is too narrow, long cells go on in further lines.
    """
    cells = [list(headings), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headings))]
    if sys.stdout is not None and sys.stdout.isatty():
        widths = _narrowed(widths, shutil.get_terminal_size().columns)
    lines = [line for row in cells for line in _lines(row, widths)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def _narrowed(widths: Sequence[int], columns: int) -> list[int]:
    """The widths of a table that fits into so many columns if it can: the widest give way."""
    fitting = list(widths)
    while sum(fitting) + 2 * (len(fitting) - 1) > columns and max(fitting) > LEAST_WIDTH:
        fitting[fitting.index(max(fitting))] -= 1
    return fitting


def _lines(row: Sequence[str], widths: Sequence[int]) -> Iterator[Sequence[str]]:
    """A row whose long cells go on below."""
    parts = (
        [c] if len(c) <= w else textwrap.wrap(c, w, break_on_hyphens=False) for c, w in zip(row, widths, strict=True)
    )
    return itertools.zip_longest(*parts, fillvalue="")


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
    if whole < DAY:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // DAY}d"


def numbers(text: str, option: str) -> tuple[int, ...]:
    """The whole numbers of an option's `64,32`; raises UsageError."""
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise UsageError(f"{option} {text}: expected whole numbers separated by commas") from None


def names(text: str) -> tuple[str, ...]:
    """The names of an option's `a,b`."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def printable(text: str) -> str:
    """`text` without what would move a cursor or colour a terminal: names, notes and files come from others."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


def _cell(value: Any) -> str:
    return "-" if value is None else printable(str(value)).replace("\n", "?")
