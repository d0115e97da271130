"""Tortoise's asyncpg client, mended: a cancelled task never takes a connection of the pool with it.

The stock client acquires a connection and then begins the transaction without a guard, so that a cancel in between (a client that
leaves, a time-out) leaks the connection for ever; `tests/models/test_engine.py` shows it.
"""

from types import TracebackType
from typing import Any

import asyncpg
from tortoise.backends.asyncpg.client import AsyncpgDBClient, TransactionWrapper
from tortoise.backends.base.client import PoolConnectionWrapper, TransactionContext, TransactionContextPooled
from tortoise.connection import get_connections

ACQUIRE_SECONDS = 5.0  # longer than any statement may run in a healthy system; a full pool is told, not waited for without end


class SafeTransaction(TransactionContextPooled):
    """A transaction that gives its connection back whenever it is cancelled, even before it has begun."""

    client: TransactionWrapper

    async def __aenter__(self) -> TransactionWrapper:
        await self.ensure_connection()
        pool: asyncpg.Pool[Any] = self.client._parent._pool  # type: ignore[assignment]  # ensured above
        connection = await pool.acquire(timeout=ACQUIRE_SECONDS)
        self.client._connection = connection  # type: ignore[assignment]  # Tortoise names the class that the proxy stands for
        try:
            await self.client.begin()
        except BaseException:
            await pool.release(connection)
            raise
        self.token = get_connections().set(self.connection_name, self.client)
        return self.client

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        get_connections().reset(self.token)
        try:
            if not self.client._finalized:
                if kind:
                    await self.client.rollback()
                else:
                    await self.client.commit()
        finally:
            pool = self.client._parent._pool
            if pool:
                await pool.release(self.client._connection)  # type: ignore[arg-type]  # as above


class PatientAcquire(PoolConnectionWrapper):  # type: ignore[type-arg]  # generic in its stub only
    """An acquired connection, waited for at most ACQUIRE_SECONDS."""

    async def __aenter__(self) -> Any:
        await self.ensure_connection()
        self.connection = await self.client._pool.acquire(timeout=ACQUIRE_SECONDS)
        return self.connection


async def _nothing_more(_: Any) -> None:
    """Nothing is left to reset on a connection that comes back.

    asyncpg itself rolls an open transaction back. Its stock reset asks the server besides to forget settings, listeners, cursors and advisory locks of the session,
    at the price of a round trip for every statement; nothing of ours outlives its transaction.
    """


class Client(AsyncpgDBClient):
    """The client that `models.config` names as engine."""

    async def create_pool(self, **settings: Any) -> asyncpg.Pool:
        return await asyncpg.create_pool(None, reset=_nothing_more, **settings)

    def _in_transaction(self) -> TransactionContext:
        return SafeTransaction(TransactionWrapper(self), self._pool_init_lock)

    def acquire_connection(self) -> PatientAcquire:
        return PatientAcquire(self, self._pool_init_lock)


client_class = Client
