"""Whole files in and out, by the ending of their name."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from p2pfed.data import files
from p2pfed.errors import DiskFault, UsageError

FRAME = pd.DataFrame({"a": [1, 2], "b": ["x", "y"], "c": [0.5, None]})


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet"])
def test_what_is_written_is_read(tmp_path: Path, name: str) -> None:
    files.write(FRAME, tmp_path / name)
    assert files.read(tmp_path / name).equals(FRAME)
    with files.writing(tmp_path / name) as writer:
        writer.write(FRAME)
        writer.write(FRAME)
    assert len(files.read(tmp_path / name)) == 4
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet"])
def test_a_failure_leaves_the_old_file(tmp_path: Path, name: str) -> None:
    files.write(FRAME, tmp_path / name)

    def interrupted() -> None:
        with files.writing(tmp_path / name) as writer:
            writer.write(FRAME[:1])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert files.read(tmp_path / name).equals(FRAME)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_writing_says_what_is_in_the_way(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.csv or \.parquet"):
        files.write(FRAME, tmp_path / "rows.xlsx")
    for name in ("rows.csv", "rows.parquet"):
        with pytest.raises(DiskFault, match="cannot write"):
            files.write(FRAME, tmp_path / "missing" / name)


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet"])
def test_a_planted_link_is_not_followed(tmp_path: Path, name: str) -> None:
    (tmp_path / "precious").write_text("precious")
    for planted in (name, name + ".part"):
        (tmp_path / planted).symlink_to(tmp_path / "precious")
    files.write(FRAME, tmp_path / name)
    assert (tmp_path / "precious").read_text() == "precious"
    assert files.read(tmp_path / name).equals(FRAME)
