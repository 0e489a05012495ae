"""CSV files, chunk by chunk: every row whole, and every column of one type."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from p2pfed.config import CsvSource
from p2pfed.errors import DataError, NotPermitted

GZIP = b"\x1f\x8b"
DELIMITERS = ";\t|,"
MISSING_TEXT = ("", "NA", "N/A", "#N/A", "NaN", "nan", "-nan", "null", "NULL", "None", "<NA>")
"""What an empty number looks like; in a text column only the empty field is missing ("NA" is Namibia)."""
VALUE = re.compile(r"\s*[-+]?[.,]?\d[\d.,:/ TZeE+-]*")
"""A number or a time: no name of a column, but a cell of a file without a header, which no message may show."""


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what opening and reading `path` may raise into the project's errors."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; check data.source.path") from None
    except PermissionError:
        raise NotPermitted(f"{path} may not be read by this user; change its owner or mode") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error.reason}); export it again as UTF-8") from None
    except pd.errors.EmptyDataError:
        raise DataError(f"{path} is empty; expected a header row and data") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is no whole gzip file: {error}. Export it again") from None
    except (pd.errors.ParserError, csv.Error) as error:
        said = str(error).removeprefix("Error tokenizing data. C error: ").strip()
        raise DataError(f"{path} is broken or was cut: {said}. Export it again") from None


def opened(path: Path) -> io.BufferedReader:
    """The file, unpacked if its first bytes say that it is packed by gzip, whatever its name."""
    with path.open("rb") as file:
        packed = file.read(len(GZIP)) == GZIP
    return io.BufferedReader(gzip.open(path)) if packed else path.open("rb")


def header(path: Path, source: CsvSource) -> list[str]:
    """The file's columns, in order; one without a name is `Unnamed: 0` by its place, as pandas calls it.

    Raises DataError where there is none, or two of one name; also where one is a number or a time, which it does not
    show: it would be of a payment.
    """
    with reading(path), _text(path) as file:
        names = next((record for record in csv.reader(file, delimiter=source.delimiter) if record), [])
    if not names:
        raise DataError(f"{path} is empty; expected a header row and data")
    if (values := sum(VALUE.fullmatch(name) is not None for name in names)) > 0:
        raise DataError(
            f"the first row of {path} looks like a payment: {values} of its {len(names)} fields are numbers or times, "
            "and no names of columns. Export it again with a header row"
        )
    names = [name if name.strip() else f"Unnamed: {place}" for place, name in enumerate(names)]
    if len(names) == 1 and (other := next((d for d in DELIMITERS if d in names[0]), None)):
        raise DataError(
            f"the header of {path} is one column between {source.delimiter!r}, and several between {other!r}: write "
            f"delimiter: {other!r} under data.source, or --delimiter {other!r} on the command line"
        )
    if twice := next((n for n in names if names.count(n) > 1), None):
        raise DataError(f"{path} has two columns named {twice!r}; rename one")
    return names


def chunks(
    path: Path, source: CsvSource, columns: Sequence[str], text: Collection[str], chunk_rows: int
) -> Generator[pd.DataFrame]:
    """Yield `columns` of the file in frames of at most `chunk_rows` rows, those of `text` as it is written there."""
    names, wanted = header(path, source), list(columns)
    with reading(path), opened(path) as file:
        _check_fields(path, source.delimiter, names)
        reader = pd.read_csv(
            file,
            sep=source.delimiter,
            decimal=source.decimal,
            header=0,
            names=names,
            usecols=wanted,
            index_col=False,
            dtype={n: str for n in wanted if n in text},
            keep_default_na=False,
            na_values={n: [""] if n in text else list(MISSING_TEXT) for n in wanted},
            encoding="utf-8-sig",
            low_memory=False,
            chunksize=chunk_rows,
        )
        with reader:
            for chunk in reader:
                yield chunk[wanted]


def common_type(column: pd.Series, before: np.dtype | None) -> np.dtype | None:
    """What holds this chunk of a column and those before, object for text; None while nothing but gaps was seen."""
    known: pd.Series = column.dropna()
    here: np.dtype = np.dtype(bool) if pd.api.types.infer_dtype(known) == "boolean" else column.to_numpy().dtype
    if known.empty or before == here:
        return before
    if before is None:
        return here
    numbers = before.kind in "iuf" and here.kind in "iuf"
    return np.result_type(before, here) if numbers else np.dtype(object)


def _text(path: Path) -> io.TextIOWrapper:
    return io.TextIOWrapper(opened(path), encoding="utf-8-sig", newline="")


def _check_fields(path: Path, delimiter: str, names: list[str]) -> None:
    """Raise DataError if a row has other than `names` fields, or the file stops inside its last row.

    pandas fills short rows up and cuts long ones off, so a file cut in the middle would pass unseen. Counting
    separators is ten times as quick as parsing and enough where nothing is quoted. That the last row ends after its
    last separator is a cut, unless another row, of which it is sure, has nothing in its last field either.
    """
    separator = delimiter.encode()
    empty = (separator + b"\n", separator + b"\r\n")
    whole, usual, line = True, False, b""
    with opened(path) as file:
        for line in file:
            usual = usual or line.endswith(empty)
            whole = whole and b'"' not in line and (line.count(separator) == len(names) - 1 or not line.strip())
    if not whole:
        _check_records(path, delimiter, names)
    if line.endswith(separator) and not usual:
        raise DataError(
            f"{path} was cut: its last row stops before column {names[-1]!r}. Export it again, or end that row with a "
            "line break if it is whole"
        )


def _check_records(path: Path, delimiter: str, names: list[str]) -> None:
    """The same as `_check_fields` with quotes understood, and the row and line in the message."""
    row = 0
    with _text(path) as file:
        reader = csv.reader(file, delimiter=delimiter)
        for record in reader:
            if record and len(record) != len(names):
                what = f"row {row} (line {reader.line_num}) has {len(record)} fields, the header has {len(names)}"
                nothing = f": nothing in column {names[len(record)]!r}" if len(record) < len(names) else ""
                raise DataError(f"{path} is broken or was cut: {what}{nothing}. Export it again")
            row += bool(record)
