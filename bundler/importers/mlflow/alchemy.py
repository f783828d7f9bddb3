"""MLflow's SQL store on a database server (PostgreSQL, MySQL …), through SQLAlchemy: the extra ``sql``.

Read in one read-only transaction, so that all that is read was there at one moment. Points come in pieces.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bundler.errors import SourceError, quoted
from bundler.importers.mlflow import database

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine

INSTALL = "pip install 'aisdp-bundler[sql]'"

_SECONDS_TO_CONNECT = 20
_SECONDS_OF_A_QUERY = 600

_KINDS = {"postgresql", "mysql", "mssql"}
"""What MLflow itself can write into, but for SQLite: its files are read without SQLAlchemy, which would make them."""


class ServerTables:
    """MLflow's tables behind an open connection."""

    advice = "Look at the row in the database; MLflow does not write such a value."
    # A server has nothing like SQLite's rowid: equal points have no order.
    as_logged = ""

    def __init__(self, connection: Connection, shown: str) -> None:
        from sqlalchemy import inspect, text  # noqa: PLC0415  # an extra

        self.kind = connection.dialect.name
        self.shown = shown
        self._connection = connection
        self._inspector = inspect(connection)
        self._text = text

    def columns(self, table: str) -> Mapping[str, str]:
        """See :class:`bundler.importers.mlflow.database.Database`."""
        with _translated(self.shown):
            if not self._inspector.has_table(table):
                return {}
            found = self._inspector.get_columns(table)
            return {each["name"]: _declared(each["type"]) for each in found}

    def rows(self, query: str, *, stream: bool = False, **values: object) -> Iterator[Any]:
        """See :class:`bundler.importers.mlflow.database.Database`."""
        count = 0
        with _translated(self.shown):
            options = {"stream_results": stream, "max_row_buffer": database.AT_ONCE}
            result = self._connection.execute(
                self._text(query), values, execution_options=options if stream else {}
            )
            for some in result.partitions(database.AT_ONCE):
                count += len(some)
                if count > database.MAX_ROWS:
                    raise database.exhausting(self.shown)
                yield from map(tuple, some)

    def prepare(self, lookups: Mapping[str, str]) -> None:
        """Nothing: MLflow's tables on a server have their indexes, and nothing is written there."""

    def mangled(self) -> int:
        """None: a server's texts are what its encoding says, or an error."""
        return 0

    def check(self) -> None:
        """Nothing: a transaction shows one moment."""


@contextmanager
def opened(address: str) -> Iterator[ServerTables]:
    """Open the database at ``address``. Raises :class:`SourceError` that never holds the password."""
    engine, shown = _engine(address)
    try:
        with _translated(shown):
            connection = engine.connect()
        with connection:
            with _translated(shown):
                tables = ServerTables(_read_only(connection), shown)
            yield tables
            connection.rollback()
    finally:
        engine.dispose()


def _engine(address: str) -> tuple[Engine, str]:
    try:
        from sqlalchemy import create_engine, make_url  # noqa: PLC0415  # an extra
        from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415
    except ModuleNotFoundError:
        raise SourceError(
            "reading a database server needs SQLAlchemy, which is not installed", remedy=INSTALL
        ) from None
    try:
        url = make_url(address)
    except (SQLAlchemyError, ValueError):
        # Not with the address: what is no URL may hold a password anywhere.
        raise SourceError(
            "the address of the MLflow database is no URL that SQLAlchemy understands",
            remedy="Write DIALECT+DRIVER://USER:PASSWORD@HOST:PORT/DATABASE; %-escape the password.",
        ) from None
    shown = quoted(_bare(url), 200)
    if url.get_backend_name() not in _KINDS:
        raise SourceError(
            f"{shown} is no store that MLflow writes",
            remedy="Give a file or folder, http(s)://SERVER, or the SQLAlchemy URL of a database"
            f" ({', '.join(sorted(_KINDS))}).",
        )
    try:
        return create_engine(url, connect_args=_patience(url), hide_parameters=True), shown
    except ModuleNotFoundError as error:
        raise SourceError(
            f"{shown} needs the driver {quoted(error.name)}, which is not installed",
            remedy=f"{INSTALL} has those for PostgreSQL (postgresql+psycopg://) and MySQL (mysql+pymysql://).",
        ) from None
    except (SQLAlchemyError, TypeError, ValueError) as error:
        raise SourceError(
            f"{shown} names no driver that SQLAlchemy has: {_words(error)}",
            remedy="Write postgresql+psycopg:// or mysql+pymysql://.",
        ) from None


def _bare(url: URL) -> str:
    """The address without user, password and options."""
    place = f"{url.host or ''}{f':{url.port}' if url.port else ''}"
    return f"{url.drivername}://{place}/{url.database or ''}"


def _patience(url: URL) -> dict[str, Any]:
    known = url.get_backend_name() in {"postgresql", "mysql"} and "connect_timeout" not in url.query
    return {"connect_timeout": _SECONDS_TO_CONNECT} if known else {}


def _read_only(connection: Connection) -> Connection:
    """Begin a transaction that sees one moment and cannot write, where the database knows such."""
    kind = connection.dialect.name
    if kind == "postgresql":
        connection = connection.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = '{_SECONDS_OF_A_QUERY}s'")
    elif kind == "mysql":
        connection = connection.execution_options(isolation_level="REPEATABLE READ")
        connection.exec_driver_sql("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
    return connection


@contextmanager
def _translated(shown: str) -> Iterator[None]:
    """Errors of SQLAlchemy and of the driver become :class:`SourceError`."""
    from sqlalchemy.exc import DBAPIError, SQLAlchemyError  # noqa: PLC0415  # an extra

    try:
        yield
    except (SQLAlchemyError, UnicodeError, OSError) as error:
        # The driver's own words: SQLAlchemy adds the statement.
        cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
        raise SourceError(
            f"{shown} cannot be read: {_words(cause)}",
            remedy="Check address, user, password and rights (SELECT on MLflow's tables) with the database's client.",
        ) from None


def _declared(type_: object) -> str:
    try:
        return str(type_)
    except Exception:  # noqa: BLE001  # a type of a dialect that has no name; only its length is wanted
        return ""


def _words(error: BaseException) -> str:
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return ascii(first)[1:-1][:200]
