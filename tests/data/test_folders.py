"""Several files as one source: folders and patterns, CSV and Parquet."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from p2pfed.config import CsvSource, DataSection, ParquetSource
from p2pfed.data import describe, files, sources
from p2pfed.data.features import load_bank
from p2pfed.errors import DataError, NotPermitted
from tests.data.banks import CONTRACT, NOW, payments, read, section

FRAME = payments().astype({"fraud": np.int64})


def _spread(folder: Path, ending: str, frame: pd.DataFrame = FRAME) -> Path:
    """`frame` in three files, written in another order than their names'."""
    folder.mkdir(exist_ok=True)
    for number in (3, 1, 2):
        files.write(frame[(number - 1) * 150 : number * 150], folder / f"2026-0{number}{ending}")
    return folder


def _source(path: Path, ending: str) -> CsvSource | ParquetSource:
    return CsvSource(kind="csv", path=path) if ending == ".csv" else ParquetSource(kind="parquet", path=path)


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
@pytest.mark.parametrize("pattern", ["exports", "exports/2026-*", "*/2026-0[123].*", "**/2026*"])
def test_all_files_are_read_in_order_of_their_names(tmp_path: Path, ending: str, pattern: str) -> None:
    _spread(tmp_path / "exports", ending)
    source = _source(tmp_path / pattern, ending)
    pd.testing.assert_frame_equal(read(source), FRAME.reset_index(drop=True))
    assert sources.column_names(source) == list(FRAME.columns)
    chunks = list(sources.read_chunks(source, ["age"], chunk_rows=100))
    assert [c.index[0] for c in chunks] == [0, 100, 150, 250, 300]


def test_a_folder_gives_what_one_file_gives(tmp_path: Path) -> None:
    alone = load_bank(section(tmp_path, FRAME), CONTRACT, NOW)
    fields = {"source": {"kind": "csv", "path": _spread(tmp_path / "exports", ".csv")}, "label": "fraud"}
    data = DataSection.model_validate({**fields, "event_time": "when", "split": "time"})
    several = load_bank(data, CONTRACT, NOW)
    for name in ("train", "validation", "own_test", "gate"):
        np.testing.assert_array_equal(getattr(several.rows, name).features, getattr(alone.rows, name).features)
    assert several.report == alone.report
    assert describe.describe(data.source, "fraud", (), "when")["rows"] == 400


def test_other_files_hidden_ones_and_subfolders_do_not_count(tmp_path: Path) -> None:
    folder = _spread(tmp_path / "exports", ".csv")
    (folder / "notes.txt").write_text("no payments")
    (folder / ".hidden.csv").write_text("no payments")
    (folder / "2025.csv.part").write_text("no payments")
    (folder / "older.csv").mkdir()
    assert len(read(CsvSource(kind="csv", path=folder))) == 400


def test_a_name_with_a_bracket_is_a_file_if_it_is_there(tmp_path: Path) -> None:
    FRAME.to_csv(tmp_path / "rows[1].csv", index=False)
    assert len(read(CsvSource(kind="csv", path=tmp_path / "rows[1].csv"))) == 400


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_no_file_says_what_was_looked_for(tmp_path: Path, ending: str) -> None:
    with pytest.raises(DataError, match=rf"the folder .* holds no file that ends in \{ending}; check data.source.path"):
        read(_source(tmp_path, ending))
    with pytest.raises(DataError, match=r"no file fits .*2027-\*; check the pattern in data.source.path"):
        read(_source(tmp_path / "2027-*", ending))


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_a_column_missing_in_one_file_names_the_file(tmp_path: Path, ending: str) -> None:
    folder = _spread(tmp_path / "exports", ending)
    files.write(FRAME[300:].rename(columns={"age": "ages"}), folder / f"2026-03{ending}")
    source = _source(folder, ending)
    with pytest.raises(DataError, match=rf"2026-03\{ending} has no column 'age' \(did you mean 'ages'\?\)"):
        next(sources.read_chunks(source, ["when", "age"]))
    with pytest.raises(DataError, match=rf"2026-03\{ending} has no column 'age'"):
        next(sources.read_chunks(source))
    assert len(list(sources.read_chunks(source, ["when"]))) == 3


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_columns_may_stand_in_another_order_and_others_beside_them(tmp_path: Path, ending: str) -> None:
    folder = _spread(tmp_path / "exports", ending)
    files.write(FRAME[300:][FRAME.columns[::-1]].assign(new=1), folder / f"2026-03{ending}")
    pd.testing.assert_frame_equal(read(_source(folder, ending)), FRAME.reset_index(drop=True))


def test_a_bad_value_is_named_by_its_file_and_row_in_it(tmp_path: Path) -> None:
    folder = _spread(tmp_path / "exports", ".csv")
    bad = FRAME[150:300].astype({"age": object})
    bad.iloc[41, list(bad.columns).index("age")] = "forty"
    files.write(bad, folder / "2026-02.csv")
    fields = {"source": {"kind": "csv", "path": folder}, "label": "fraud", "event_time": "when"}
    with pytest.raises(DataError, match=r"^2026-02\.csv, row 42, column 'age' is not a number"):
        load_bank(DataSection.model_validate(fields), CONTRACT, NOW)
    broken = FRAME[150:300].astype({"fraud": object})
    broken.iloc[0, list(broken.columns).index("fraud")] = "perhaps"
    files.write(broken, folder / "2026-02.csv")
    with pytest.raises(DataError, match=r"^2026-02\.csv, row 1, column 'fraud' is not a label"):
        load_bank(DataSection.model_validate(fields), CONTRACT, NOW)


def test_a_cut_file_among_several_is_named(tmp_path: Path) -> None:
    folder = _spread(tmp_path / "exports", ".csv")
    text = (folder / "2026-02.csv").read_text()
    (folder / "2026-02.csv").write_text(text[: text.rindex(",")])
    with pytest.raises(DataError, match=r"2026-02\.csv is broken or was cut"):
        read(CsvSource(kind="csv", path=folder))
    (folder / "2026-02.csv").write_text("")
    with pytest.raises(DataError, match=r"2026-02\.csv is empty"):
        read(CsvSource(kind="csv", path=folder))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read any folder")
def test_a_folder_that_may_not_be_read(tmp_path: Path) -> None:
    folder = _spread(tmp_path / "exports", ".csv")
    folder.chmod(0)
    with pytest.raises(NotPermitted, match="may not be read"):
        read(CsvSource(kind="csv", path=folder))
    folder.chmod(0o700)


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
@pytest.mark.parametrize("file", ["2026-01", "2026-03"])
def test_a_file_whose_label_has_another_name_is_named(tmp_path: Path, ending: str, file: str) -> None:
    folder = _spread(tmp_path / "exports", ending)
    files.write(FRAME[300:].rename(columns={"fraud": "is_fraud"}), folder / f"{file}{ending}")
    with pytest.raises(DataError, match=rf"{file}\{ending} has no column 'fraud' \(did you mean 'is_fraud'\?\)"):
        describe.describe(_source(folder, ending), "fraud")
