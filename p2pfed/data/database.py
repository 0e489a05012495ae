"""A bank's query on its own database: rows as they stream in, and errors that show neither secrets nor cells.

Of the URL only backend, host and database are ever shown: any other part may be a secret, in a place that only its
driver knows.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from p2pfed.config import SqlSource
from p2pfed.errors import ConfigError, DataError, NotPermitted, Unavailable

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, CursorResult

# A server whose network is cut answers nothing, not even an error: without these libpq waits for hours.
_PATIENCE = {"connect_timeout": "10", "keepalives_idle": "30", "keepalives_interval": "10", "keepalives_count": "3"}

_DRIVERS = {
    # database: extra, package, how its URL begins
    "postgresql": ("sql", "psycopg", "postgresql+psycopg"),
    "oracle": ("oracle", "oracledb", "oracle+oracledb"),
    "mssql": ("mssql", "pymssql", "mssql+pymssql"),
    "mysql": ("mysql", "mysqlclient", "mysql+mysqldb"),
    "mariadb": ("mysql", "mysqlclient", "mariadb+mysqldb"),
}
_PLAIN = re.compile(r"[^@=;&?]*")
"""A host or database that is nothing else: some drivers take options there."""
_SHORTEST = 3
"""Characters of what is put out of a driver's words: less would be no secret, but part of many words."""


@contextmanager
def query(source: SqlSource, chunk_rows: int) -> Iterator[CursorResult[Any]]:
    """Run the query on a read-only, streaming connection; a lost server is Unavailable, a refused query DataError."""
    try:
        import sqlalchemy
    except ImportError:
        raise ConfigError("data.source kind sql needs the extra: pip install 'p2pfed[sql]'") from None
    where = f"data.source.url_env: {source.url_env}" if source.url_env else str(source.url_file)
    text = _secret_url(source)
    url = _parsed(text, where)
    shown, secrets, reading = _shown(url), _secrets(text, url), False
    engine = _engine(url, where)
    try:
        with ExitStack() as stack:
            result = stack.enter_context(_execute(stack.enter_context(_connected(engine, where)), source, chunk_rows))
            reading = True
            yield result
    except (sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError) as error:
        raise Unavailable(
            f"the database {shown} cannot be reached or went away: {_said(error, secrets, cells=reading)}. "
            "Check that it runs and lets this node in"
        ) from None
    except sqlalchemy.exc.DBAPIError as error:
        cells = reading or isinstance(error, sqlalchemy.exc.DataError)
        said = _said(error, secrets, cells=cells)
        raise DataError(f"the database {shown} refused data.source.query: {said}") from None
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise ConfigError(f"{where}: {shown} cannot be read with this driver ({type(error).__name__})") from None
    except ValueError:  # of the driver's own making, with a cell in it
        said = "holds a value that its driver cannot read: CAST it to text"
        raise DataError(f"the database {shown}, as data.source.query asks it, {said}") from None
    finally:
        engine.dispose()


def _execute(connection: Connection, source: SqlSource, chunk_rows: int) -> CursorResult[Any]:
    # no_parameters: a % or : in the query means what the database says, nothing to SQLAlchemy
    options = {"yield_per": chunk_rows, "no_parameters": True, "postgresql_readonly": True}
    result = connection.execution_options(**options).exec_driver_sql(source.query)
    if not result.returns_rows:
        raise DataError("data.source.query returns no rows at all; write one SELECT")
    return result


def _said(error: Any, secrets: list[str], *, cells: bool) -> str:
    """The first line of what the driver says, without secrets and, where it may be about `cells`, without these."""
    lines = str(error.orig).strip().splitlines()
    line = lines[0] if lines else type(error.orig).__name__
    if cells:
        line = re.sub(r"""(["']).*\1""", "***", line.partition(": ")[0])
    for secret in secrets:
        line = line.replace(secret, "***")
    return line


def _parsed(text: str, where: str) -> URL:
    """The URL; raises ConfigError, without it, if it is none, or if an @ makes part of a password look like a host."""
    import sqlalchemy

    try:
        url = sqlalchemy.make_url(text)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise ConfigError(
            f"{where} does not hold a SQLAlchemy URL such as postgresql+psycopg://user:password@host/database"
        ) from None
    if url.host and text.count("@") > (url.username is not None):
        raise ConfigError(f"{where} holds a URL in which not every @ stands before the host: write %40 for the others")
    return url


def _engine(url: URL, where: str) -> Any:
    import sqlalchemy

    try:
        patience = _PATIENCE if url.get_backend_name() == "postgresql" else {}
        connect_args = {name: value for name, value in patience.items() if name not in url.query}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", sqlalchemy.exc.SAWarning)  # they quote the URL's parameters
            return sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool, connect_args=connect_args)
    except sqlalchemy.exc.NoSuchModuleError:
        raise ConfigError(
            f"{where} names a database without an installed driver, or one that SQLAlchemy does not know{_driver(url)}"
        ) from None
    except ImportError as error:
        missing = f"{where} names a database without an installed driver: {error.name} is missing{_driver(url)}"
        raise ConfigError(missing) from None
    except (sqlalchemy.exc.ArgumentError, TypeError, ValueError):
        raise _refused(where) from None


def _driver(url: URL) -> str:
    """Which package to install for the database of a URL, and how the URL begins then."""
    if (known := _DRIVERS.get(url.get_backend_name())) is None:
        return ""
    extra, package, scheme = known
    return f"; pip install 'p2pfed[{extra}]', which is {package}, and write {scheme}://..."


@contextmanager
def _connected(engine: Any, where: str) -> Iterator[Connection]:
    import sqlalchemy

    try:
        connection = engine.connect()
    except (TypeError, ValueError, sqlalchemy.exc.ProgrammingError):  # what a driver says of arguments, it may quote
        raise _refused(where) from None
    with connection:
        yield connection


def _refused(where: str) -> ConfigError:
    return ConfigError(f"{where} holds a URL that its driver does not take: look at the parameters behind the ?")


def _shown(url: URL) -> str:
    """Backend, host and database, for messages."""
    host, database = (part if part and _PLAIN.fullmatch(part) else "" for part in (url.host, url.database))
    at, behind = f" at {host}" if host else "", f" {database}" if database else ""
    return f"{url.get_backend_name()}{behind}{at}"


def _secrets(text: str, url: URL) -> list[str]:
    """All that a driver's words must not show, the longest first: parts of the URL, as written and as meant."""
    values = [one for value in url.query.values() for one in ([value] if isinstance(value, str) else value)]
    hidden = [part for part in (url.host, url.database) if part and not _PLAIN.fullmatch(part)]
    encoded = re.findall(r"[^/:?&=@]*%[^/:?&=@]*", text)
    whole = [text, str(url), url.render_as_string(hide_password=False)]
    parts = {*whole, *encoded, *hidden, *url.query, *values, url.username, str(url.password or "")}
    return sorted((part for part in parts if part and len(part) >= _SHORTEST), key=len, reverse=True)


def _secret_url(source: SqlSource) -> str:
    path = source.url_file
    if path is None:
        url = os.environ.get(source.url_env or "")
        if not url:
            raise ConfigError(f"data.source.url_env: the environment variable {source.url_env} is not set")
        return url
    try:
        mode = path.stat().st_mode & 0o777
        if mode & 0o077:
            raise NotPermitted(f"{path} holds credentials but has mode {mode:o}; run: chmod 600 {path}")
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise ConfigError(f"data.source.url_file: {path} does not exist") from None
    except PermissionError:
        raise NotPermitted(f"{path} may not be read by this user; change its owner") from None
