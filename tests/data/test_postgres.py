"""A bank whose payments are in PostgreSQL, against a real server that these tests start."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import psutil
import pytest

from p2pfed.config import DataSection, SqlSource
from p2pfed.data import sources
from p2pfed.data.describe import describe
from p2pfed.data.features import load_bank
from p2pfed.errors import DataError, Unavailable
from tests.data.banks import CONTRACT, NOW, payments
from tests.data.postgres import Server, find_binaries

pytestmark = pytest.mark.network

TABLE = (
    "CREATE TABLE payments (id int, at timestamptz, amount numeric(10, 2), channel text, age int, fraudulent boolean)"
)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("NO POSTGRESQL SERVER: apt-get install postgresql, or put initdb and pg_ctl on PATH; not tested")
    server = Server(binaries)
    try:
        server.start()
        rows = ", ".join(
            f"({p.payment}, to_timestamp({p.when}), {p.amount}, '{p.channel}', {int(p.age)}, {bool(p.fraud)})"
            for p in payments().itertuples()
        )
        server.execute("CREATE SEQUENCE counter", TABLE, f"INSERT INTO payments VALUES {rows}")
        yield server
    finally:
        server.remove()


def _source(folder: Path, server: Server, query: str) -> SqlSource:
    path = folder / "url"
    path.write_text(server.url)
    path.chmod(0o600)
    return SqlSource(kind="sql", query=query, url_file=path)


def _section(source: SqlSource) -> DataSection:
    return DataSection(source=source, columns={"amount": "euro"}, label="fraudulent", event_time="at", split="time")


def test_a_bank_is_read_from_its_database(tmp_path: Path, server: Server) -> None:
    query = "SELECT at, amount AS euro, channel, age, fraudulent FROM payments WHERE channel LIKE '%%' OR age::int > 0"
    bank = load_bank(_section(_source(tmp_path, server, query)), CONTRACT, NOW)
    frame = payments()
    assert bank.report["rows_read"] == len(frame)
    assert bank.report["train_frauds"] == frame.fraud[:280].sum()
    expected = (np.log1p(frame.amount[:280]) - 3.0) / 1.0
    np.testing.assert_allclose(bank.rows.train.features[:, 0], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(bank.rows.train.features[:, 1], frame.channel[:280] == "chip")


def test_times_without_zone_name_the_cure(tmp_path: Path, server: Server) -> None:
    query = "SELECT at::timestamp AS at, amount AS euro, channel, age, fraudulent FROM payments"
    with pytest.raises(DataError, match="row 1, column 'at' .* AT TIME ZONE 'UTC'"):
        load_bank(_section(_source(tmp_path, server, query)), CONTRACT, NOW)


def test_arrays_and_jsonb_are_read_as_their_text(tmp_path: Path, server: Server) -> None:
    query = "SELECT age, fraudulent, ARRAY[id % 2] AS several, jsonb_build_object('id', id) AS thing FROM payments"
    told = {c["name"]: c for c in describe(_source(tmp_path, server, query), "fraudulent")["columns"]}
    assert told["several"]["levels"] == ["[0]", "[1]"]
    assert told["thing"]["kind"] == "text"


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT amount FROM nowhere", 'relation "nowhere" does not exist'),
        ("SELEKT 1", "syntax error"),
        ("SELECT 1 / (id - 3) AS x FROM payments", "division by zero"),
        ("DELETE FROM payments RETURNING id", "syntax error"),
        ("SELECT nextval('counter') AS x", "read-only transaction"),
    ],
)
def test_a_refused_query_says_why(tmp_path: Path, server: Server, query: str, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        list(sources.read_chunks(_source(tmp_path, server, query)))
    assert "sesame" not in str(caught.value)


def test_memory_stays_bounded(tmp_path: Path, server: Server) -> None:
    query = "SELECT i, repeat('x', 300) AS note FROM generate_series(1, 200000) AS i"
    process = psutil.Process()
    rows, held = 0, []
    with closing(sources.read_chunks(_source(tmp_path, server, query), chunk_rows=5_000)) as chunks:
        for chunk in chunks:
            rows += len(chunk)
            held.append(process.memory_info().rss)
    assert rows == 200_000
    # all of it would be 60 MB as text alone
    assert max(held) - held[0] < 30e6


def test_wrong_password_is_not_shown(tmp_path: Path, server: Server) -> None:
    path = tmp_path / "url"
    path.write_text(server.url.replace("sesame", "sesam"))
    path.chmod(0o600)
    with pytest.raises(Unavailable, match="password authentication failed") as caught:
        sources.column_names(SqlSource(kind="sql", query="SELECT 1 AS x", url_file=path))
    assert "open" not in str(caught.value)
    assert "the database postgresql postgres at 127.0.0.1 cannot" in str(caught.value)


def test_a_cell_that_the_query_cannot_cast_is_not_shown(tmp_path: Path, server: Server) -> None:
    for rows in ("(VALUES ('41111')) AS t (x)", "(SELECT '7' AS x UNION ALL SELECT repeat('4', 9) || 'x') AS t"):
        query = f"SELECT (x || ' EUR')::numeric AS y FROM {rows}"
        with pytest.raises(DataError, match="refused data.source.query: invalid input syntax for type numeric$"):
            list(sources.read_chunks(_source(tmp_path, server, query)))


def test_a_database_that_goes_away_while_it_is_read(tmp_path: Path, server: Server) -> None:
    query = "SELECT i, repeat('x', 200) AS note FROM generate_series(1, 2000000) AS i"
    chunks = sources.read_chunks(_source(tmp_path, server, query), chunk_rows=1000)
    next(chunks)
    server.stop()
    try:
        with pytest.raises(Unavailable, match="went away: .*lets this node in$") as caught:
            for _ in chunks:
                pass
        assert caught.value.exit_code == 69
        with pytest.raises(Unavailable, match="cannot be reached"):
            sources.column_names(_source(tmp_path, server, "SELECT 1 AS x"))
    finally:
        server.start()
    assert sources.column_names(_source(tmp_path, server, "SELECT 1 AS x")) == ["x"]
