"""Tortoise's asyncpg client, mended: a cancelled task never takes a connection of the pool with it, and a server that fell silent is noticed.

The stock client acquires a connection and then begins the transaction without a guard, so that a cancel in between (a client that
leaves, a time-out) leaks the connection for ever; `tests/models/test_engine.py` shows it.
"""

import socket
from types import TracebackType
from typing import Any, cast

import asyncpg
from tortoise.backends.asyncpg.client import AsyncpgDBClient, TransactionWrapper
from tortoise.backends.base.client import PoolConnectionWrapper, TransactionContext, TransactionContextPooled
from tortoise.connection import get_connections

ACQUIRE_SECONDS = 5.0  # longer than any statement may run in a healthy system; a full pool is told, not waited for without end
SILENT_SECONDS = 20
"""How long a server's machine may leave what was sent, or the question whether it is there, without a sign: longer, and the connection is given up."""
_PROBES = 4


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


async def connect(*arguments: Any, **settings: Any) -> asyncpg.Connection:
    """Connect as asyncpg does, and have the kernel notice a machine that is gone without a word, as after a failover (tcp(7)).

    Without it a statement waits a quarter of an hour for the kernel to give up what it sent, or for ever, and so do all connections of the pool. It is
    no bound on statements: a machine that is there says so, however long its server takes.
    """
    connection: asyncpg.Connection = await asyncpg.connect(*arguments, **settings)
    line: socket.socket = cast("Any", connection)._transport.get_extra_info("socket")  # asyncpg has no public way to it
    if line.family != socket.AF_UNIX:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, SILENT_SECONDS // _PROBES)
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, SILENT_SECONDS // _PROBES)
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENT_SECONDS * 1000)
    return connection


async def _nothing_more(_: Any) -> None:
    """Nothing is left to reset on a connection that comes back.

    asyncpg itself rolls an open transaction back. Its stock reset asks the server besides to forget settings, listeners, cursors and advisory locks of the session,
    at the price of a round trip for every statement; nothing of ours outlives its transaction.
    """


class Client(AsyncpgDBClient):
    """The client that `models.config` names as engine."""

    async def create_pool(self, **settings: Any) -> asyncpg.Pool:
        return await asyncpg.create_pool(None, connect=connect, reset=_nothing_more, **settings)

    def _in_transaction(self) -> TransactionContext:
        return SafeTransaction(TransactionWrapper(self), self._pool_init_lock)

    def acquire_connection(self) -> PatientAcquire:
        return PatientAcquire(self, self._pool_init_lock)


client_class = Client
