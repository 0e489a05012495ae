"""CSV columns have one type over all chunks, and one rule says what is missing, wherever they are read."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from p2pfed.cli.terminal import written
from p2pfed.config import CsvSource, ParquetSource, Source
from p2pfed.data import files, sources
from p2pfed.data.describe import describe, propose_contract
from p2pfed.data.features import load_bank
from p2pfed.errors import DataError, UsageError
from tests.data.banks import LOCAL, NOW, payments, section

MIXED = "code,id,part,flag,none,fraud\n0742,1,1,True,,0\n0743,2,2,False,,1\nA1,,2.5,,,0\n"


@pytest.fixture
def short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources.read_chunks, "__kwdefaults__", {"text": (), "chunk_rows": 2})


def _csv(folder: Path, text: str) -> Path:
    path = folder / "rows.csv"
    path.write_text(text)
    return path


def test_a_letter_in_the_last_chunk_makes_text_of_the_column(tmp_path: Path, short_chunks: None) -> None:
    path = _csv(tmp_path, MIXED)
    kinds = sources.types(CsvSource(kind="csv", path=path))
    assert {name: kind.kind for name, kind in kinds.items()} == {
        "code": "O", "id": "i", "part": "f", "flag": "b", "fraud": "i"
    }  # fmt: skip
    frame = files.read(path)
    assert frame["code"].tolist() == ["0742", "0743", "A1"]
    files.write(frame, tmp_path / "bank-1.parquet")
    assert pd.read_parquet(tmp_path / "bank-1.parquet")["code"].tolist() == ["0742", "0743", "A1"]
    assert propose_contract(CsvSource(kind="csv", path=path), "fraud")[0].levels == ("0742", "0743", "A1")


def test_true_and_numbers_in_one_column_are_text(tmp_path: Path, short_chunks: None) -> None:
    assert files.read(_csv(tmp_path, "a,fraud\nTrue,0\nFalse,0\n7,1\n"))["a"].tolist() == ["True", "False", "7"]


def _savings(folder: Path, kind: str) -> Source:
    (folder / "other").mkdir()
    frame = payments().assign(channel=["chip", "online", "NA", ""] * 100)
    frame["age"] = frame.age.astype(str).where(frame.index % 40 > 0, "NA")
    if kind == "csv":
        return section(folder, frame).source
    files.write(frame, folder / "payments.parquet")
    return ParquetSource(kind="parquet", path=folder / "payments.parquet")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_na_is_a_level_of_text_a_gap_among_numbers_and_blanks_are_gaps(tmp_path: Path, kind: str) -> None:
    source = _savings(tmp_path, kind)
    told = {c["name"]: c for c in describe(source, "fraud", ["payment"], "when")["columns"]}
    assert (told["channel"]["levels"], told["channel"]["missing"]) == (["NA", "chip", "online"], 100)
    assert (told["age"]["kind"], told["age"]["missing"]) == ("numeric", 10)
    data = section(tmp_path / "other", payments()).model_copy(update={"source": source})
    bank = load_bank(data, LOCAL, NOW)
    assert bank.report["dropped"] == {"empty feature": 110}
    assert bank.report["unknown_levels"] == {"channel": 100}
    assert np.isfinite(bank.rows.train.features).all()


def test_a_column_without_a_name_is_called_by_its_place_and_numbers_the_rows(tmp_path: Path) -> None:
    source = CsvSource(kind="csv", path=_csv(tmp_path, ",amount,fraud\n0,1.5,0\n1,2.5,1\n2,3.5,0\n"))
    assert sources.column_names(source) == ["Unnamed: 0", "amount", "fraud"]
    assert files.read(source.path)["Unnamed: 0"].tolist() == [0, 1, 2]
    assert "no name" in describe(source, "fraud")["columns"][0]["why"]


NAMES = [" note", "amount", "a,b", "a", "b", "fraud "]


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ([" note"], (" note",)),
        (["note"], (" note",)),
        (["note,amount", "fraud"], (" note", "amount", "fraud ")),
        (["a,b"], ("a,b",)),
        (["a", "b,amount", "a"], ("a", "b", "amount")),
        (["", "a, "], ("a",)),
        ([], ()),
    ],
)
def test_columns_are_meant_exactly_then_without_blanks_then_between_commas(
    named: list[str], expected: tuple[str, ...]
) -> None:
    assert sources.chosen(NAMES, named, "rows.csv") == expected


def test_a_column_that_is_not_there_is_named_with_the_near_one() -> None:
    with pytest.raises(DataError, match=r"rows.csv has no column 'amuont' \(did you mean 'amount'\?\)"):
        sources.chosen(NAMES, ["a,amuont"], "rows.csv")


GERMAN = "amount;fraud\n1,50;0\n2002,50;1\n3,50;0\n"


@pytest.mark.parametrize("other", [";", "\t", "|"])
def test_another_delimiter_is_named(tmp_path: Path, other: str) -> None:
    source = CsvSource(kind="csv", path=_csv(tmp_path, GERMAN.replace(";", other)))
    with pytest.raises(DataError, match=r"between ',', and several between .*data.source, or --delimiter") as caught:
        sources.column_names(source)
    assert repr(other) in str(caught.value)


def test_numbers_with_a_decimal_comma(tmp_path: Path) -> None:
    source = CsvSource(kind="csv", path=_csv(tmp_path, GERMAN), delimiter=";", decimal=",")
    assert files.read(source.path, source)["amount"].tolist() == [1.5, 2002.5, 3.5]
    assert describe(source, "fraud")["columns"][0]["maximum"] == 2002.5


def test_a_decimal_comma_that_nobody_named_is_said(tmp_path: Path) -> None:
    source = CsvSource(kind="csv", path=_csv(tmp_path, GERMAN), delimiter=";")
    amount = describe(source, "fraud")["columns"][0]
    assert amount["kind"] == "text" and "decimal: ','" in amount["why"]
    with pytest.raises(DataError, match=r"column 'amount' is text; if commas .* decimal: ','"):
        propose_contract(source, "fraud")
    bank = section(tmp_path, payments()).model_copy(
        update={"source": source, "event_time": None, "split": "stratified"}
    )
    with pytest.raises(DataError, match=r"row 1, column 'amount' is not a number; if commas"):
        load_bank(bank, replace(LOCAL, columns=LOCAL.columns[:1]), NOW)


def test_delimiter_and_decimal_differ(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a number would be two columns"):
        CsvSource(kind="csv", path=tmp_path, decimal=",")


@pytest.mark.parametrize("delimiter", ["\xa7", "\u3001", '"', "'", "\n", "\r", "\0"])
def test_a_delimiter_is_one_byte_and_no_quote_or_line_end(tmp_path: Path, delimiter: str) -> None:
    with pytest.raises(ValueError, match="a delimiter is one ASCII character, and no quote or line end"):
        CsvSource(kind="csv", path=tmp_path, delimiter=delimiter)
    with pytest.raises(UsageError, match="--delimiter and --decimal: a delimiter is one ASCII character"):
        written(delimiter, None)


@pytest.mark.parametrize("delimiter", ["\t", "|", ";", " ", "\x01", "\\", "^"])
def test_any_other_ascii_character_may_be_a_delimiter(tmp_path: Path, delimiter: str) -> None:
    path = _csv(tmp_path, "a,b\n1,2.5\n3,4.5\n".replace(",", delimiter))
    source = CsvSource(kind="csv", path=path, delimiter=delimiter)
    assert files.read(path, source)["b"].tolist() == [2.5, 4.5]


def test_labels_by_a_map(tmp_path: Path) -> None:
    frame = payments()
    frame["fraud"] = frame.fraud.map({0: "settled", 1: 2}).where(frame.index != 5)
    data = section(tmp_path, frame, labels={"settled": 0, 2: 1})
    assert describe(data.source, "fraud", (), "when", data.labels)["frauds"] == 20
    assert load_bank(data, LOCAL, NOW).report["dropped"] == {"no label": 1}
    with pytest.raises(DataError, match=r"row 1, column 'fraud' .* say what other words mean under data.labels"):
        load_bank(section(tmp_path, frame), LOCAL, NOW)
    with pytest.raises(DataError, match=r"row 1, column 'fraud' .* data.labels does not say what it means"):
        load_bank(section(tmp_path, frame, labels={"settled": 0}), LOCAL, NOW)


@pytest.mark.parametrize("word", ["None", "NA", "null", "NaN"])
def test_words_that_are_gaps_elsewhere_may_be_labels(tmp_path: Path, word: str) -> None:
    frame = payments()
    frame["fraud"] = frame.fraud.map({0: word, 1: "chargeback"}).where(frame.index != 5, "")
    data = section(tmp_path, frame, labels={word: 0, "chargeback": 1})
    told = describe(data.source, "fraud", (), "when", data.labels)
    assert (told["frauds"], told["unlabelled"]) == (20, 1)
    assert load_bank(data, LOCAL, NOW).report["dropped"] == {"no label": 1}


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (("0", "1"), {1.0: 1, 0.0: 0}),
        (("0.0", "1.00"), {1: 1, 0: 0}),
        (("00", "01"), {"01": 1, 0: 0}),
        (("False", "TRUE"), {"true": 1, "false": 0}),
        (("Settled", "CHARGEBACK "), {"Chargeback": 1, "settled": 0}),
    ],
)
def test_labels_are_compared_without_case_and_decimals(
    tmp_path: Path, cells: tuple[str, str], words: dict[str | float, int]
) -> None:
    frame = payments()
    frame["fraud"] = frame.fraud.map(dict(enumerate(cells)))
    assert load_bank(section(tmp_path, frame, labels=words), LOCAL, NOW).reading.frauds == 20
    parquet = ParquetSource(kind="parquet", path=tmp_path / "payments.parquet")
    files.write(payments().assign(fraud=lambda f: f.fraud == 1), parquet.path)
    if "true" in words:
        assert describe(parquet, "fraud", (), "when", section(tmp_path, frame, labels=words).labels)["frauds"] == 20


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ({True: 0, False: 1}, "in quotes"),
        ({None: 0, "fraud": 1}, "in quotes"),
        ({"Fraud": 0, "fraud": 1}, "'fraud' is there twice"),
    ],
)
def test_label_words_that_yaml_or_case_would_change_are_refused(
    tmp_path: Path, words: dict[str, int], why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        section(tmp_path, payments(), labels=words)


@pytest.mark.parametrize("name", ["rows.csv.gz", "rows.csv"])
def test_packed_files_are_known_by_their_content(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + MIXED.encode()))
    assert files.read(path)["code"].tolist() == ["0742", "0743", "A1"]
    assert len(files.read(path)) == sum(map(len, sources.read_chunks(CsvSource(kind="csv", path=tmp_path))))
    path.write_bytes(gzip.compress(MIXED.encode() * 1000)[:-20])
    with pytest.raises(DataError, match="no whole gzip file"):
        files.read(path)
    path.write_bytes(gzip.compress(MIXED[:-2].encode()))
    with pytest.raises(DataError, match="was cut: its last row stops before column 'fraud'"):
        files.read(path)


def test_nothing_is_written_packed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="leave out .gz"):
        files.write(pd.DataFrame({"a": [1]}), tmp_path / "rows.csv.gz")
