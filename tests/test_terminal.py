"""What a terminal can show: its encoding and its width never stand in a command's way."""

import json
import os
import subprocess
import sys

import pytest

from p2pfed.cli.terminal import table

SECONDS = 60


@pytest.mark.parametrize("encoding", ["ascii", "ascii:strict", "latin-1", "utf-8"])
@pytest.mark.parametrize("option", ["", "--json"])
def test_a_terminal_without_a_letter_is_no_error(tmp_path, encoding, option):
    (tmp_path / "p.csv").write_text("betrag_ü,land,fraud\n" + "1.5,Österreich,0\n2.5,Ελλάδα,1\n3.5,日本,0\n" * 20)
    told = subprocess.run(
        [sys.executable, "-m", "p2pfed", "data", "describe", "p.csv", "--label", "fraud", *option.split()],
        cwd=tmp_path, env={**os.environ, "PYTHONIOENCODING": encoding}, capture_output=True, timeout=SECONDS,
    )  # fmt: skip
    assert (told.returncode, told.stderr) == (0, b"")
    out = told.stdout.decode(encoding.partition(":")[0])
    if option:
        assert json.loads(out)["columns"][0]["name"] == "betrag_ü"
    else:
        assert "betrag_" in out and ("betrag_ü" in out or "betrag_\\xfc" in out)


ROWS = [("bank-a", "fraud.bank-a.example.org:7443", "only dials out; does not answer", None)]


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_a_table_fits_the_terminal_and_loses_nothing(monkeypatch, columns):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    shown = table(("NAME", "ADDRESS", "NOTE", "AGE"), ROWS)
    assert max(map(len, shown.splitlines())) <= columns
    for column, cell in enumerate(ROWS[0][:3]):
        at = [shown.splitlines()[0].index(name) for name in ("NAME", "ADDRESS", "NOTE", "AGE")] + [None]
        pieces = [line[at[column] : at[column + 1]].strip() for line in shown.splitlines()[1:]]
        assert "".join(pieces).replace(" ", "") == cell.replace(" ", "")


def test_a_table_in_a_file_has_a_line_a_row(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert len(table(("NAME", "ADDRESS", "NOTE", "AGE"), ROWS).splitlines()) == 2
