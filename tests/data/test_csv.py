"""CSV files, whole and broken: what is wrong is said with file, row and column."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from p2pfed.config import CsvSource
from p2pfed.data import sources
from p2pfed.errors import DataError
from tests.data.banks import read

WHOLE = "when,amount,fraud\n1,2.5,0\n2,3.5,1\n3,4.5,0\n"


def _source(folder: Path, text: str | bytes, delimiter: str = ",") -> CsvSource:
    path = folder / "rows.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return CsvSource(kind="csv", path=path, delimiter=delimiter)


def _refusal(source: CsvSource, columns: list[str] | None = None) -> str:
    with pytest.raises(DataError) as caught:
        list(sources.read_chunks(source, columns))
    assert caught.value.exit_code == 78
    assert "rows.csv" in str(caught.value)
    return str(caught.value)


def test_chunks_are_bounded_and_numbered_on(tmp_path: Path) -> None:
    chunks = list(sources.read_chunks(_source(tmp_path, WHOLE), chunk_rows=2))
    assert [list(c.index) for c in chunks] == [[0, 1], [2]]
    assert pd.concat(chunks)["amount"].tolist() == [2.5, 3.5, 4.5]


def test_columns_come_in_the_order_asked_for(tmp_path: Path) -> None:
    (chunk,) = sources.read_chunks(_source(tmp_path, WHOLE), ["amount", "when"])
    assert list(chunk.columns) == ["amount", "when"]


def test_delimiter_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    source = _source(tmp_path, b"\xef\xbb\xbfwhen;amount\r\n1;2\r\n", ";")
    assert sources.column_names(source) == ["when", "amount"]
    assert read(source)["when"].tolist() == [1]


def test_text_columns_keep_leading_zeros_and_namibia(tmp_path: Path) -> None:
    source = _source(tmp_path, "code,land,amount\n0742,NA,NA\n0743,,1\n")
    (chunk,) = sources.read_chunks(source, text=["code", "land"])
    assert chunk["code"].tolist() == ["0742", "0743"]
    assert chunk["land"].iloc[0] == "NA"
    assert chunk["land"].isna().tolist() == [False, True]
    assert chunk["amount"].isna().tolist() == [True, False]


def test_missing_file_says_where_to_look(tmp_path: Path) -> None:
    said = _refusal(CsvSource(kind="csv", path=tmp_path / "rows.csv"))
    assert "does not exist" in said
    assert "data.source.path" in said


@pytest.mark.parametrize("text", ["", "\n\n", "\n"])
def test_empty_file(tmp_path: Path, text: str) -> None:
    assert "is empty" in _refusal(_source(tmp_path, text))


def test_header_without_rows(tmp_path: Path) -> None:
    assert "has no rows" in _refusal(_source(tmp_path, "when,amount,fraud\n"))


def test_missing_column_names_the_near_one(tmp_path: Path) -> None:
    said = _refusal(_source(tmp_path, WHOLE), ["Amout"])
    assert "'Amout' (did you mean 'amount'?)" in said
    assert "data.columns" in said


def test_two_columns_of_one_name(tmp_path: Path) -> None:
    assert "two columns named 'a'" in _refusal(_source(tmp_path, "a,b,a\n1,2,3\n"))


@pytest.mark.parametrize("chunk_rows", [1, 2, 50])
def test_cut_inside_the_last_row(tmp_path: Path, chunk_rows: int) -> None:
    source = _source(tmp_path, WHOLE[: WHOLE.rindex(",")])
    with pytest.raises(DataError, match=r"rows\.csv is broken or was cut: row 3 \(line 4\) has 2 fields.*'fraud'"):
        list(sources.read_chunks(source, chunk_rows=chunk_rows))


def test_cut_after_the_last_comma(tmp_path: Path) -> None:
    assert "was cut: its last row stops before column 'fraud'" in _refusal(_source(tmp_path, WHOLE[:-2]))


def test_cut_after_the_last_comma_of_a_quoted_file(tmp_path: Path) -> None:
    assert "its last row stops before column 'b'" in _refusal(_source(tmp_path, 'a,b\n"1",2\n"2",'))


def test_cut_is_seen_even_if_the_last_column_is_not_wanted(tmp_path: Path) -> None:
    assert "row 3 (line 4)" in _refusal(_source(tmp_path, WHOLE[: WHOLE.rindex(",")]), ["when"])


@pytest.mark.parametrize("quote", ["", '"'])
def test_no_cut_passes_unseen_but_one_inside_the_very_last_field(tmp_path: Path, quote: str) -> None:
    rows = [["when", "shop", "amount"], *([str(i), f"{quote}shop {i}{quote}", f"{i}.25"] for i in range(4))]
    text = "".join(",".join(row) + "\n" for row in rows)
    whole = pd.DataFrame(
        {"when": range(4), "shop": [f"shop {i}" for i in range(4)], "amount": [i + 0.25 for i in range(4)]}
    )
    refused = 0
    for cut in range(text.index("\n") + 2, len(text)):
        try:
            seen = read(_source(tmp_path, text[:cut]))
        except DataError:
            refused += 1
            continue
        before = len(seen) - 1
        assert seen[:before].to_dict("list") == whole[:before].to_dict("list")
        assert seen.loc[before, ["when", "shop"]].tolist() == whole.loc[before, ["when", "shop"]].tolist()
    assert refused == sum(len(",".join(row[:2])) + 1 for row in rows[1:])


def test_short_row_in_the_middle(tmp_path: Path) -> None:
    assert "row 1 (line 2) has 2 fields" in _refusal(_source(tmp_path, "a,b,c\n1,2\n4,5,6\n"))


def test_cut_inside_quotes(tmp_path: Path) -> None:
    said = _refusal(_source(tmp_path, 'a,b\n1,"x"\n2,"unfinished\n'))
    assert "was cut" in said
    assert "EOF inside string" in said


def test_row_with_too_many_fields(tmp_path: Path) -> None:
    assert "row 2 (line 3) has 3 fields, the header has 2" in _refusal(_source(tmp_path, "a,b\n1,2\n1,2,3\n"))


def test_every_row_longer_than_the_header(tmp_path: Path) -> None:
    assert "row 1 (line 2) has 3 fields, the header has 2" in _refusal(_source(tmp_path, "a,b\n1,2,3\n4,5,6\n"))


def test_an_empty_last_column_is_no_cut(tmp_path: Path) -> None:
    frame = read(_source(tmp_path, "a,note\n1,\n2,x\n3,\n"))
    assert frame["note"].isna().tolist() == [True, False, True]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("quote", ["", '"'])
def test_an_empty_last_field_without_a_newline_is_no_cut_where_others_are_empty(
    tmp_path: Path, end: str, quote: str
) -> None:
    rows = ("a,b,c,note", f"1,{quote}2{quote},0,", "2,3,0,x", "3,4,1,")
    frame = read(_source(tmp_path, end.join(rows).encode()))
    assert frame["note"].isna().tolist() == [True, False, True]
    assert frame["c"].tolist() == [0, 0, 1]


def test_a_row_that_only_seems_cut_may_be_ended(tmp_path: Path) -> None:
    text = "a,b,c,note\n2,3,0,x\n3,4,1,"
    assert "was cut: its last row stops before column 'note'. Export it again, or end that row" in _refusal(
        _source(tmp_path, text)
    )
    assert read(_source(tmp_path, text + "\n"))["note"].isna().tolist() == [False, True]


def test_no_newline_at_the_end_is_no_cut(tmp_path: Path) -> None:
    assert len(read(_source(tmp_path, WHOLE.rstrip("\n")))) == 3


def test_other_encoding(tmp_path: Path) -> None:
    said = _refusal(_source(tmp_path, "a,b\n1,caf\xe9\n".encode("latin-1")))
    assert "is not UTF-8" in said


def test_binary_file(tmp_path: Path) -> None:
    assert "rows.csv" in _refusal(_source(tmp_path, bytes(range(256)) * 20))


@pytest.mark.parametrize(
    ("row", "delimiter"),
    [
        ("4111111111111111,chip,yes", ","),
        ("alice,2026-03-01T12:00:00+01:00,chip", ","),
        ("alice,01.03.2026 12:00,chip", ","),
        ("alice;1.234,56;chip", ";"),
        ("alice,-0.5,-0.5", ","),
        ("alice,1e3,chip", ","),
    ],
)
def test_a_file_without_a_header_is_told_without_its_first_payment(tmp_path: Path, row: str, delimiter: str) -> None:
    source = _source(tmp_path, f"{row}\n{row}\n").model_copy(update={"delimiter": delimiter})
    for read_it in (sources.column_names, lambda s: list(sources.read_chunks(s, ["amount"]))):
        with pytest.raises(DataError, match="looks like a payment: . of its 3 fields .* with a header row") as caught:
            read_it(source)
        assert not any(cell in str(caught.value) for cell in row.split(delimiter))


def test_names_that_begin_with_a_digit_or_end_with_one_are_names(tmp_path: Path) -> None:
    names = ["V1", "3ds", "2nd address", "T0", "1h_amount", "e"]
    assert sources.column_names(_source(tmp_path, f"{','.join(names)}\n1,2,3,4,5,6\n")) == names
