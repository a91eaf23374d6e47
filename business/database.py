"""The engine for a database's URL, and in what SQLite and PostgreSQL differ."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

import aiosqlite
from sqlalchemy import event, func, make_url, select, text
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from ..common.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection, MetaData

_CONNECTIONS: Final = 5  # of one process
_SCHEMA_LOCK: Final = 0x67617465  # PostgreSQL's advisory lock while tables are created
_DRIVERS: Final = {
    "sqlite": "sqlite+aiosqlite",
    "postgresql": "postgresql+asyncpg",
    "postgres": "postgresql+asyncpg",
}


def make_engine(url: str, timeout: float) -> AsyncEngine:
    """Return an engine, not connected yet.

    Args:
        url: where the database is.
        timeout: seconds that one statement may take.

    Raises:
        ConfigError: if the URL is no good, or the driver it needs is not installed.
    """
    try:
        where = make_url(url)
    except ArgumentError:
        where = make_url("unknown://")
    where = where.set(drivername=_DRIVERS.get(where.drivername, where.drivername))
    if where.drivername not in _DRIVERS.values():
        # the URL is not shown: a password may be anywhere in it
        raise ConfigError("the URL of the history: expected sqlite:///file.db or postgresql://user:password@host/name")
    on_postgresql = where.get_backend_name() == "postgresql"
    # a database in memory lives in its connection: there must be one only
    in_memory = not on_postgresql and where.database in (None, "", ":memory:")
    try:
        engine = create_async_engine(
            where,
            isolation_level="READ COMMITTED" if on_postgresql else "SERIALIZABLE",
            connect_args=(
                {"command_timeout": timeout} if on_postgresql else {"timeout": timeout, "async_creator_fn": _open_file}
            ),
            pool_pre_ping=on_postgresql,  # a restarted server costs no append
            poolclass=AsyncAdaptedQueuePool,
            pool_size=1 if in_memory else _CONNECTIONS,
            max_overflow=0,
            pool_timeout=timeout,
        )
    except ModuleNotFoundError as error:
        extra = "pip install 'gatecrew[postgresql]'" if on_postgresql else "pip install gatecrew"
        raise ConfigError(f"{where!r}: the driver {error.name} is not installed ({extra})") from error
    if not on_postgresql:
        event.listen(engine.sync_engine, "connect", _on_connect)
        event.listen(engine.sync_engine, "begin", _on_begin)
    return engine


def blames_a_statement(error: BaseException | None) -> bool:
    """Whether the database refused what one of the appends brought, rather than failed or was out of reach."""
    if not isinstance(error, DBAPIError) or isinstance(error, OperationalError | InterfaceError):
        return False
    return not error.connection_invalidated


async def create_tables(engine: AsyncEngine, tables: Iterable[MetaData], seconds: float) -> None:
    """Connect, and create the tables that are missing; wait at most some seconds for the locks of other processes."""
    if engine.dialect.name == "sqlite":
        await _write_ahead(engine, seconds)
    async with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            # IF NOT EXISTS is no help against another process that creates the same table right now
            await connection.execute(select(func.pg_advisory_xact_lock(_SCHEMA_LOCK)))
        for metadata in tables:
            await connection.run_sync(metadata.create_all)


async def _write_ahead(engine: AsyncEngine, seconds: float) -> None:
    """Switch a file to its write-ahead log, in which readers and the writer do not wait for each other."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
                await connection.execute(text("PRAGMA journal_mode = WAL"))
            return
        except OperationalError as error:  # SQLite does not wait by itself for others that switch at the same time
            if "locked" not in str(error.orig) or time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.02)


async def _open_file(*arguments: Any, **options: Any) -> Any:
    """Connect to SQLite; where that fails, leave no thread behind that speaks up after the loop has ended."""
    connection = aiosqlite.connect(*arguments, **options)
    thread = connection._thread  # noqa: SLF001 - SQLAlchemy takes it from there too
    thread.daemon = True
    try:
        return await connection
    except Exception:
        thread.join()  # it was told to end, and has nothing else to do
        raise


def _on_connect(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    # FULL: what was told to be stored survives a power cut. NORMAL, an offset might be given out twice
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


def _on_begin(connection: Connection) -> None:
    if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        # a transaction that reads first and locks later may fail where another process wrote in between
        connection.exec_driver_sql("BEGIN IMMEDIATE")
