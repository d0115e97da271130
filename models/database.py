"""The one way to the database besides the ORM: plain statements on the same pool, and transactions that know when one is open."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import Any

import asyncpg
from tortoise import Tortoise
from tortoise.connection import get_connection
from tortoise.transactions import in_transaction

from models.config import config

_open: ContextVar[bool] = ContextVar("transaction_open", default=False)
_later: ContextVar[list[Callable[[], Awaitable[None]]] | None] = ContextVar("after_commit", default=None)

UNREACHABLE = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InternalClientError,  # the driver's own confusion when a server dies in the middle of an exchange
)
"""What the driver raises when the server is away, is starting, or went away in the middle: worth trying again, outcome unknown."""

CONTENDED = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError, asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError)
"""What the driver raises when others were in the way: nothing was written, and trying again is right."""


async def open_pool(url: str, *, pool: int) -> None:
    """Open the process's only pool; every task of the process then finds it."""
    await Tortoise.init(config=config(url, pool=pool), _enable_global_fallback=True)


async def close_pool() -> None:
    """Close the pool; what is under way has ten seconds."""
    await Tortoise.close_connections()


def transaction_is_open() -> bool:
    """Tell whether this task is inside `transaction()`."""
    return _open.get()


@contextlib.asynccontextmanager
async def transaction() -> AsyncIterator[None]:
    """Make everything inside one transaction: committed at the end, rolled back by any exception; a nested one joins the outer one."""
    if _open.get():
        async with in_transaction("default"):
            yield
        return
    later: list[Callable[[], Awaitable[None]]] = []
    opened, noted = _open.set(True), _later.set(later)
    try:
        async with in_transaction("default"):
            yield
    finally:
        _open.reset(opened)
        _later.reset(noted)
    for callback in later:
        await callback()


def after_commit(callback: Callable[[], Awaitable[None]]) -> None:
    """Await `callback` once the open transaction has committed; never when it is rolled back. It must be safe to lose: the process may die."""
    later = _later.get()
    assert later is not None, "after_commit is called inside transaction()"
    later.append(callback)


async def fetch(sql: str, *arguments: Any) -> Sequence[asyncpg.Record]:
    """Run one statement and return its rows, in the open transaction if there is one."""
    async with get_connection("default").acquire_connection() as connection:
        rows: Sequence[asyncpg.Record] = await connection.fetch(sql, *arguments)
        return rows


async def fetch_row(sql: str, *arguments: Any) -> asyncpg.Record | None:
    """Run one statement and return its first row."""
    async with get_connection("default").acquire_connection() as connection:
        row: asyncpg.Record | None = await connection.fetchrow(sql, *arguments)
        return row


async def fetch_value(sql: str, *arguments: Any) -> Any:
    """Run one statement and return the first column of its first row."""
    async with get_connection("default").acquire_connection() as connection:
        return await connection.fetchval(sql, *arguments)
