"""Where a bank's rows come from: CSV, Parquet, a SQL query or a table at hand, chunk by chunk in bounded memory.

Every chunk is a DataFrame whose index goes on from the chunk before, so that `index + 1` is the row number of an error
message: data rows counted from 1, without the header. Where a source has several files, a chunk's `attrs` name its file
and how many rows came before that file, for `parsing` to count within it.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from p2pfed.config import CsvSource, ParquetSource, Source, SqlSource
from p2pfed.data import database, delimited
from p2pfed.data.folders import files_of
from p2pfed.errors import ConfigError, DataError

CHUNK_ROWS = 50_000

MAP_HINT = ". Map differently named columns under data.columns"

ENDINGS = {"csv": (".csv", ".csv.gz"), "parquet": (".parquet",)}
FILE, ROWS_BEFORE = "file", "rows before it"
"""What `attrs` of a chunk hold where the source has several files."""

Origin = Source | pd.DataFrame
"""A source to be read, or rows that are in memory already."""


def column_names(source: Origin) -> list[str]:
    """The columns of `source`, in order. Raises like `read_chunks`."""
    if isinstance(source, pd.DataFrame):
        return [str(name) for name in source.columns]
    if isinstance(source, CsvSource | ParquetSource):
        return _header(source, paths(source)[0])
    with database.query(source, 1) as result:
        return list(result.keys())


def read_chunks(
    source: Origin,
    columns: Sequence[str] | None = None,
    *,
    text: Collection[str] = (),
    chunk_rows: int = CHUNK_ROWS,
) -> Generator[pd.DataFrame]:
    """Yield `columns` (all if None) of `source` in frames of at most `chunk_rows` rows; at least one row in all.

    `text` names columns that a CSV file must not turn into numbers (levels such as merchant code 0742). Raises
    DataError (missing file, no rows, unknown column, broken or cut file), NotPermitted (file modes), ConfigError (a
    missing extra or URL) and Unavailable (database gone).
    """
    if isinstance(source, pd.DataFrame):
        chunks = _frame_chunks(source, columns, chunk_rows)
    elif isinstance(source, SqlSource):
        chunks = _sql_chunks(source, columns, chunk_rows)
    else:
        chunks = _file_chunks(source, columns, text, chunk_rows)
    start = 0
    for chunk in chunks:
        chunk.index = pd.RangeIndex(start, start + len(chunk))
        start += len(chunk)
        if len(chunk):
            yield chunk
    if start == 0:
        raise DataError(f"{place(source)} has no rows; check that the export or query is the right one")


def types(source: Origin, columns: Sequence[str] | None = None) -> dict[str, np.dtype]:
    """The type of each column (all if None) of a CSV file over all of its rows, object for text; else nothing.

    A chunk alone does not tell: a column of codes may be all digits in the first and have letters in the last. Columns
    without any value are left out. Raises like `read_chunks`.
    """
    found: dict[str, np.dtype] = {}
    if isinstance(source, CsvSource) and (columns is None or columns):
        for chunk in read_chunks(source, columns):
            for name in map(str, chunk.columns):
                kind = delimited.common_type(chunk[name], found.get(name))
                found |= {} if kind is None else {name: kind}
    return found


def texts(source: Origin) -> frozenset[str]:
    """Those columns that `types` finds to be text, for `read_chunks`. Raises like it."""
    return frozenset(name for name, kind in types(source).items() if kind.kind == "O")


def paths(source: CsvSource | ParquetSource) -> list[Path]:
    """The files of a source, sorted. Raises DataError where a folder or pattern has none."""
    return files_of(source.path, ENDINGS[source.kind])


def place(source: Origin) -> str:
    """How error messages name the source: the file's path, `the SQL query` or `the payments`."""
    if isinstance(source, pd.DataFrame):
        return "the payments"
    return "the SQL query" if isinstance(source, SqlSource) else str(source.path)


def require(source: Origin, wanted: Sequence[str], hint: str = "") -> None:
    """Raise DataError, as `check_columns` does, unless every file of the source has the wanted columns."""
    if isinstance(source, CsvSource | ParquetSource):
        for path in paths(source):
            check_columns(_header(source, path), wanted, str(path), hint)
    else:
        check_columns(column_names(source), wanted, place(source), hint)


def chosen(available: Sequence[str], named: Sequence[str], where: str) -> tuple[str, ...]:
    """The columns that `named` means, each once: by a name as it is, else without blanks at the ends, else several
    between commas. Raises DataError for one that is not there.
    """
    stripped = {name.strip(): name for name in available}
    found = []
    for name in named:
        several = [name] if name in available or name.strip() in stripped else name.split(",")
        found += [one if one in available else stripped.get(one.strip(), one.strip()) for one in several if one.strip()]
    check_columns(available, found, where)
    return tuple(dict.fromkeys(found))


def check_columns(available: Sequence[str], wanted: Sequence[str], where: str, hint: str = "") -> None:
    """Raise DataError for the wanted columns that are not there, each with the nearest name that is, and the hint."""
    missing = [c for c in wanted if c not in available]
    if not missing:
        return
    said = []
    for name in missing:
        folded = {a.casefold(): a for a in available}
        near = difflib.get_close_matches(name.casefold(), folded, 1)
        said.append(f"{name!r}" + (f" (did you mean {folded[near[0]]!r}?)" if near else ""))
    there = ", ".join(available[:40]) + (", ..." if len(available) > 40 else "")
    raise DataError(f"{where} has no column {', '.join(said)}; it has {there}{hint}")


def _frame_chunks(frame: pd.DataFrame, columns: Sequence[str] | None, chunk_rows: int) -> Generator[pd.DataFrame]:
    check_columns(column_names(frame), columns or (), place(frame))
    wanted = frame if columns is None else frame[list(columns)]
    for start in range(0, len(frame), chunk_rows):
        yield wanted.iloc[start : start + chunk_rows]


def _flat(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with lists and objects in its columns, as Parquet and jsonb have them, written as text."""
    for name in frame:
        if frame[name].dtype == "object" and pd.api.types.infer_dtype(frame[name], skipna=True) == "mixed":
            frame[name] = [value if pd.api.types.is_scalar(value) else str(value) for value in frame[name]]
    return frame


def _header(source: CsvSource | ParquetSource, path: Path) -> list[str]:
    if isinstance(source, CsvSource):
        return delimited.header(path, source)
    with _parquet(path) as file:
        return [str(name) for name in file.schema_arrow.names]


def _file_chunks(
    source: CsvSource | ParquetSource, columns: Sequence[str] | None, text: Collection[str], chunk_rows: int
) -> Generator[pd.DataFrame]:
    """The rows of every file; that each has the columns is checked before the first is read."""
    files = paths(source)
    wanted = _header(source, files[0]) if columns is None else columns
    require(source, wanted, MAP_HINT)
    rows = 0
    for path in files:
        before = rows
        if isinstance(source, CsvSource):
            chunks = delimited.chunks(path, source, wanted, text, chunk_rows)
        else:
            chunks = _parquet_chunks(path, wanted, chunk_rows)
        for chunk in chunks:
            if len(files) > 1:
                chunk.attrs = {FILE: path.name, ROWS_BEFORE: before}
            rows += len(chunk)
            yield chunk


# --- Parquet ----------------------------------------------------------------------------------------------------------


def preload() -> None:
    """Import the Parquet reader, if its extra is installed, for the forks of this process to share."""
    with suppress(ImportError):
        import pyarrow.pandas_compat
        import pyarrow.parquet  # noqa: F401


# else a file's row groups, which may be all of it, are held in memory until the last row is read
_BOUNDED = {"pre_buffer": False, "buffer_size": 1 << 16}


@contextmanager
def _parquet(path: Path) -> Iterator[Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ConfigError(f"reading {path} needs the extra: pip install 'p2pfed[parquet]'") from None
    try:
        with delimited.reading(path), path.open("rb") as raw, pyarrow.parquet.ParquetFile(raw, **_BOUNDED) as file:
            yield file
    except (pyarrow.ArrowException, OSError) as error:
        said = str(error).splitlines()[0]
        raise DataError(f"{path} is not a whole Parquet file: {said}. Copy or export it again") from None


def _parquet_chunks(path: Path, columns: Sequence[str], chunk_rows: int) -> Generator[pd.DataFrame]:
    wanted = list(columns)
    with _parquet(path) as file:
        for batch in file.iter_batches(batch_size=chunk_rows, columns=wanted):
            yield _flat(batch.to_pandas(ignore_metadata=True)[wanted])


# --- SQL --------------------------------------------------------------------------------------------------------------


def _sql_chunks(source: SqlSource, columns: Sequence[str] | None, chunk_rows: int) -> Generator[pd.DataFrame]:
    with database.query(source, chunk_rows) as result:
        names = list(result.keys())
        if twice := next((n for n in names if names.count(n) > 1), None):
            raise DataError(f"the SQL query returns two columns named {twice!r}; rename one with AS")
        check_columns(names, columns or (), "the SQL query", MAP_HINT)
        wanted = list(columns) if columns is not None else names
        for rows in result.partitions(chunk_rows):
            by_column = dict(zip(names, zip(*rows, strict=True), strict=True))
            yield _flat(pd.DataFrame({name: list(by_column[name]) for name in wanted}))
