"""Parquet files, whole and broken."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest

from p2pfed.config import ParquetSource
from p2pfed.data import files, sources
from p2pfed.data.describe import describe, propose_contract
from p2pfed.data.partition import deduplicate, partition
from p2pfed.errors import DataError
from tests.data.banks import payments


def _source(folder: Path, frame: pd.DataFrame) -> ParquetSource:
    files.write(frame, folder / "rows.parquet")
    return ParquetSource(kind="parquet", path=folder / "rows.parquet")


def test_chunks_columns_and_numbering(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": range(5), "b": [Decimal("1.5")] * 5, "c": pd.Categorical(list("xyxyx"))})
    source = _source(tmp_path, frame)
    assert sources.column_names(source) == ["a", "b", "c"]
    chunks = list(sources.read_chunks(source, ["c", "a"], chunk_rows=2))
    assert [list(c.index) for c in chunks] == [[0, 1], [2, 3], [4]]
    assert list(chunks[0].columns) == ["c", "a"]
    assert pd.concat(chunks)["a"].tolist() == [0, 1, 2, 3, 4]


def test_an_index_of_the_writer_does_not_renumber(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [1, 2]}, index=[7, 9])
    frame.to_parquet(tmp_path / "rows.parquet")
    (chunk,) = sources.read_chunks(ParquetSource(kind="parquet", path=tmp_path / "rows.parquet"), ["a"])
    assert list(chunk.index) == [0, 1]


@pytest.mark.parametrize("group", [100_000, 4_000_000])
def test_memory_stays_bounded(tmp_path: Path, group: int) -> None:
    path = tmp_path / "rows.parquet"
    frame = pd.DataFrame({"a": np.random.default_rng(0).normal(size=4_000_000)})  # 32 MB, and no smaller when packed
    frame.to_parquet(path, row_group_size=group)
    del frame
    process = psutil.Process()
    before = process.memory_info().rss
    held = [process.memory_info().rss for _ in sources.read_chunks(ParquetSource(kind="parquet", path=path))]
    assert len(held) == 80
    assert max(held) - before < 16e6


@pytest.mark.parametrize("keep", [0, 3, 200, -1])
def test_cut_file(tmp_path: Path, keep: int) -> None:
    source = _source(tmp_path, pd.DataFrame({"a": range(1000)}))
    source.path.write_bytes(source.path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"rows\.parquet is not a whole Parquet file: .*Copy or export it again"):
        list(sources.read_chunks(source))


def test_damaged_pages(tmp_path: Path) -> None:
    source = _source(tmp_path, pd.DataFrame({"a": range(100_000), "b": ["text"] * 100_000}))
    content = bytearray(source.path.read_bytes())
    content[1000:60_000] = bytes(59_000)
    source.path.write_bytes(content)
    with pytest.raises(DataError, match="not a whole Parquet file"):
        list(sources.read_chunks(source))


def test_no_rows_no_file_no_column(tmp_path: Path) -> None:
    source = _source(tmp_path, pd.DataFrame({"amount": pd.Series([], dtype=float)}))
    with pytest.raises(DataError, match="has no rows"):
        list(sources.read_chunks(source))
    with pytest.raises(DataError, match=r"did you mean 'amount'\?"):
        list(sources.read_chunks(source, ["Amount"]))
    with pytest.raises(DataError, match=r"gone\.parquet does not exist"):
        sources.column_names(ParquetSource(kind="parquet", path=tmp_path / "gone.parquet"))


def test_lists_and_objects_are_read_as_their_text(tmp_path: Path) -> None:
    frame = payments().assign(tags=[["a", str(i)] for i in range(400)], more=[{"x": i % 3} for i in range(400)])
    frame.loc[0, "more"] = None
    path = tmp_path / "rows.parquet"
    frame.to_parquet(path)
    source = ParquetSource(kind="parquet", path=path)
    told = {c["name"]: c for c in describe(source, "fraud", ["payment"], "when")["columns"]}
    assert told["tags"]["kind"] == "text" and len(told["more"]["levels"]) == 3
    with pytest.raises(DataError, match="column 'tags' is text with more than 50 values: no feature; drop it"):
        propose_contract(source, "fraud", ["payment"], "when")
    banks = partition(deduplicate(files.read(path)), "fraud", 1, "iid")
    assert len(banks[0]) == 400
