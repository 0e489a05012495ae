"""Whole tables from and to CSV and Parquet files, chosen by the file's name."""

from __future__ import annotations

import contextlib
import io
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TextIO

import pandas as pd

from p2pfed import newfile
from p2pfed.config import CsvSource, ParquetSource
from p2pfed.data import sources
from p2pfed.errors import ConfigError, DataError, DiskFault, NotPermitted, UsageError

STREAM = Path("-")
"""Standard input or output."""


def source_of(path: Path, written: CsvSource | None = None) -> CsvSource | ParquetSource:
    """The source that reads `path`, a CSV file with delimiter and decimal as `written` has them.

    Raises UsageError unless the name ends in .csv, .csv.gz or .parquet.
    """
    if path.name.endswith((".csv", ".csv.gz")):
        return CsvSource(kind="csv", path=path) if written is None else written.model_copy(update={"path": path})
    if path.suffix == ".parquet":
        return ParquetSource(kind="parquet", path=path)
    raise UsageError(f"{path}: the name must end in .csv or .parquet; to be read, .csv.gz will do")


def named(path: Path, written: CsvSource | None = None) -> CsvSource | ParquetSource:
    """The source that reads a file named otherwise than in a node's configuration; `written` as of `source_of`.

    Raises DataError unless the file is there, and UsageError on another kind of file.
    """
    source = source_of(path, written)
    try:
        if stat.S_ISDIR(path.stat().st_mode):
            raise DataError(f"{path} is a directory, not a file")
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{path} does not exist") from None
    except PermissionError:
        raise NotPermitted(f"{path} may not be read by this user; change its owner or mode") from None
    return source


@contextlib.contextmanager
def given(path: Path, written: CsvSource | None = None) -> Iterator[CsvSource | ParquetSource]:
    """The source of `named`, or for STREAM what stands on standard input: a CSV file, kept meanwhile to be read twice.

    Raises DiskFault where it cannot be kept.
    """
    if path != STREAM:
        yield named(path, written)
        return
    with tempfile.TemporaryDirectory(prefix="p2pfed-") as folder:
        kept = Path(folder) / "standard-input.csv"
        try:
            with newfile.create(kept, 0o600) as file:
                shutil.copyfileobj(_bytes(sys.stdin), file)
        except OSError as error:
            raise DiskFault(f"cannot keep standard input in {kept}: {error.strerror}; set TMPDIR") from None
        yield named(kept, written)


def read(path: Path, written: CsvSource | None = None) -> pd.DataFrame:
    """All rows of a file, `written` as of `source_of`; raises as `named` and `sources.read_chunks`."""
    source = named(path, written)
    return pd.concat(sources.read_chunks(source, text=sources.texts(source)), ignore_index=True)


def _bytes(stream: TextIO | None) -> BinaryIO:
    """What is behind a standard stream; raises UsageError if it is closed, as by `>&-`."""
    if stream is None:
        raise UsageError("- is the standard stream, which is closed: name a file")
    return stream.buffer


class Writer(Protocol):
    """Takes a table in pieces."""

    def write(self, frame: pd.DataFrame) -> None:
        """Append rows."""


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Writer]:
    """Write rows piece by piece; the file appears under its name only when the block ends well, and else nowhere.

    On STREAM, CSV to standard output, they appear as they are written, and what that raises is for the caller.
    Raises UsageError on another kind of file than .csv and .parquet, DiskFault where it cannot be written.
    """
    if path == STREAM:
        with contextlib.closing(_Csv(_bytes(sys.stdout))) as stream:
            yield stream
        return
    if path.suffix == ".gz":
        raise UsageError(f"{path}: files are written unpacked; leave out .gz")
    kind: type[_Csv] | type[_Parquet] = _Csv if isinstance(source_of(path), CsvSource) else _Parquet
    try:
        with newfile.replacing(path) as file, contextlib.closing(kind(file)) as writer:
            yield writer
    except OSError as error:
        raise DiskFault(f"cannot write {path}: {error.strerror or error}") from None


def write(frame: pd.DataFrame, path: Path) -> None:
    """Write a whole table; raises as `writing`."""
    with writing(path) as writer:
        writer.write(frame)


class _Csv:
    def __init__(self, file: BinaryIO) -> None:
        self._file = io.TextIOWrapper(file, encoding="utf-8", newline="")
        self._header = True

    def write(self, frame: pd.DataFrame) -> None:
        frame.to_csv(self._file, index=False, header=self._header)
        self._header = False

    def close(self) -> None:
        self._file.detach()


class _Parquet:
    def __init__(self, file: BinaryIO) -> None:
        try:
            import pyarrow.parquet
        except ImportError:
            raise ConfigError("Parquet files need the extra: pip install 'p2pfed[parquet]'") from None
        self._arrow = pyarrow
        self._file = file
        self._writer: Any = None

    def write(self, frame: pd.DataFrame) -> None:
        schema = None if self._writer is None else self._writer.schema
        try:
            table = self._arrow.Table.from_pandas(frame, schema=schema, preserve_index=False)
        except self._arrow.ArrowException:  # its words hold a cell
            raise DataError(
                "a column changes its type from row to row: Parquet has no such columns, write .csv"
            ) from None
        if self._writer is None:
            self._writer = self._arrow.parquet.ParquetWriter(self._file, table.schema)
        self._writer.write_table(table)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
