"""SQL sources: credentials, refusals, and what SQLite can show of the rest; PostgreSQL has a file of its own."""

from __future__ import annotations

import os
import socket
import sqlite3
import sys
import traceback
from pathlib import Path

import pytest

from p2pfed.config import SqlSource
from p2pfed.data import sources
from p2pfed.errors import ConfigError, DataError, NotPermitted, Unavailable
from tests.data.banks import read

QUERY = "SELECT amount, note FROM payments ORDER BY amount"


@pytest.fixture
def url(tmp_path: Path) -> str:
    with sqlite3.connect(tmp_path / "bank.db") as database:
        database.execute("CREATE TABLE payments (amount REAL, note TEXT)")
        database.executemany("INSERT INTO payments VALUES (?, ?)", [(i / 2, f"{i} % of :x") for i in range(5)])
    database.close()
    return f"sqlite:///{tmp_path / 'bank.db'}"


def _source(folder: Path, url: str, query: str = QUERY, mode: int = 0o600) -> SqlSource:
    path = folder / "url"
    path.write_text(url + "\n")
    path.chmod(mode)
    return SqlSource(kind="sql", query=query, url_file=path)


def test_rows_come_in_chunks(tmp_path: Path, url: str) -> None:
    source = _source(tmp_path, url)
    assert sources.column_names(source) == ["amount", "note"]
    chunks = list(sources.read_chunks(source, ["amount"], chunk_rows=2))
    assert [c["amount"].tolist() for c in chunks] == [[0.0, 0.5], [1.0, 1.5], [2.0]]
    assert list(chunks[1].index) == [2, 3]


def test_percent_and_colon_mean_what_the_database_says(tmp_path: Path, url: str) -> None:
    query = "SELECT amount FROM payments WHERE note LIKE '3 % of :x' AND 7 % 4 = 3"
    assert read(_source(tmp_path, url, query))["amount"].tolist() == [1.5]


def test_url_from_the_environment(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = SqlSource(kind="sql", query=QUERY, url_env="BANK_URL")
    with pytest.raises(ConfigError, match="environment variable BANK_URL is not set"):
        sources.column_names(source)
    monkeypatch.setenv("BANK_URL", url)
    assert sources.column_names(source) == ["amount", "note"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_credentials_readable_by_others_are_refused(tmp_path: Path, url: str, mode: int) -> None:
    with pytest.raises(NotPermitted, match=r"has mode .*run: chmod 600 .*url") as caught:
        list(sources.read_chunks(_source(tmp_path, url, mode=mode)))
    assert caught.value.exit_code == 77


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read any file")
def test_credentials_this_user_may_not_read(tmp_path: Path, url: str) -> None:
    with pytest.raises(NotPermitted, match="may not be read"):
        list(sources.read_chunks(_source(tmp_path, url, mode=0o000)))


def test_missing_credentials(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="gone does not exist"):
        sources.column_names(SqlSource(kind="sql", query=QUERY, url_file=tmp_path / "gone"))


def test_a_broken_url_is_refused_without_being_shown(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not hold a SQLAlchemy URL") as caught:
        sources.column_names(_source(tmp_path, "user:sesame@host/base"))
    assert "sesame" not in str(caught.value)


def test_no_driver(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="without an installed driver"):
        sources.column_names(_source(tmp_path, "nosuchbase://user:sesame@host/base"))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("oracle+oracledb://u:sesame@host/base", r"p2pfed\[oracle\]', which is oracledb, and write oracle\+oracledb:"),
        ("mssql://u:sesame@host/base", r"p2pfed\[mssql\]', which is pymssql, and write mssql\+pymssql:"),
        ("mysql://u:sesame@host/base", r"p2pfed\[mysql\]', which is mysqlclient, and write mysql\+mysqldb:"),
        ("mariadb+mysqldb://u:sesame@host/base", "which is mysqlclient, and write mariadb"),
        ("postgresql+pg8000://u:sesame@host/base", "which is psycopg, and write postgresql"),
    ],
)
def test_a_missing_driver_is_named_with_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, said: str
) -> None:
    for module in ("oracledb", "pyodbc", "MySQLdb", "pg8000"):
        monkeypatch.setitem(sys.modules, module, None)  # also where it is installed
    with pytest.raises(ConfigError, match=said) as caught:
        sources.column_names(_source(tmp_path, url))
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT amount FROM nowhere", "nowhere"),
        ("SELECT amount, amount FROM payments", "two columns named 'amount'"),
        ("CREATE TABLE x (y)", "write one SELECT"),
        ("SELECT amount FROM payments WHERE amount < 0", "the SQL query has no rows"),
    ],
)
def test_query_that_gives_nothing_of_use(tmp_path: Path, url: str, query: str, said: str) -> None:
    with pytest.raises((DataError, Unavailable), match=said):
        list(sources.read_chunks(_source(tmp_path, url, query)))


def test_missing_column(tmp_path: Path, url: str) -> None:
    with pytest.raises(DataError, match=r"the SQL query has no column 'amuont' \(did you mean 'amount'\?\)"):
        list(sources.read_chunks(_source(tmp_path, url), ["amuont"]))


def test_a_server_that_never_answers_is_given_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        source = _source(tmp_path, f"postgresql+psycopg://bank:sesame@127.0.0.1:{port}/base?connect_timeout=2")
        with pytest.raises(Unavailable, match="timeout"):
            sources.column_names(source)


def test_database_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot be reached or went away") as caught:
        list(sources.read_chunks(_source(tmp_path, f"sqlite:///{tmp_path}/missing/bank.db")))
    assert caught.value.exit_code == 69
    assert "start again" not in str(caught.value), "a running daemon tries again by itself"


HERE = "postgresql+psycopg://{}127.0.0.1:1/card{}"


@pytest.mark.parametrize(
    "url",
    [
        HERE.format("bank:sesame@", ""),
        HERE.format("bank@", "?password=sesame&sslpassword=sesame"),
        HERE.format("bank@", "?sslmode=sesame"),
        HERE.format("bank@", "?connect_timeout=sesame"),
        HERE.format("bank@", "?sesame=1"),
        HERE.format("bank@", "?token=sesame"),
        HERE.format("bank@", "?plugin=sesame"),
        HERE.format("bank@", ";password=sesame"),
        HERE.format("bank:p@sesame@", ""),
        HERE.format("bank:p@sesame/1@", ""),
        HERE.format("bank:p@sesame?1@", ""),
        "postgresql+psycopg://bank:pw@127.0.0.1:sesame/card",
        "postgresql+sesame://bank:pw@127.0.0.1:1/card",
        "sesame://bank:pw@127.0.0.1:1/card",
        "sesame",
        "sqlite:////nowhere/card?sesame=1",
        "sqlite:////nowhere/card?timeout=sesame",
        "sqlite:///file:/nowhere/card?mode=sesame&uri=true",
    ],
)
def test_no_message_shows_more_of_the_url_than_backend_host_and_database(
    tmp_path: Path, url: str, recwarn: pytest.WarningsRecorder
) -> None:
    with pytest.raises((ConfigError, Unavailable)) as caught:
        sources.column_names(_source(tmp_path, url, "SELECT 1 AS x"))
    assert "sesame" not in str(caught.value)
    assert "sesame" not in "".join(traceback.format_exception(caught.value)), "nor would a log of the exception"
    assert not recwarn.list
    if isinstance(caught.value, Unavailable):
        assert "card" in str(caught.value) or ";" in url


def test_a_cell_that_is_no_text_is_not_shown(tmp_path: Path, url: str) -> None:
    query = "SELECT CAST(x'73657361ff6d65' AS TEXT) AS note"
    with pytest.raises((DataError, Unavailable), match="Could not decode to UTF-8") as caught:
        list(sources.read_chunks(_source(tmp_path, url, query)))
    assert "sesa" not in str(caught.value)


def test_a_cell_that_the_driver_cannot_make_a_value_of_is_not_shown(tmp_path: Path, url: str) -> None:
    with sqlite3.connect(tmp_path / "bank.db") as database:
        database.execute("CREATE TABLE visits (at TIMESTAMP)")
        database.execute("INSERT INTO visits VALUES ('sesame 41:11')")
    database.close()
    with pytest.raises(DataError, match="holds a value that its driver cannot read") as caught:
        list(sources.read_chunks(_source(tmp_path, f"{url}?detect_types=1", "SELECT at FROM visits")))
    assert "sesame" not in "".join(traceback.format_exception(caught.value))
