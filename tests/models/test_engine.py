"""The pool and the transactions of one process, under cancellation."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from tortoise.backends.asyncpg.client import AsyncpgDBClient
from tortoise.context import TortoiseContext

from clients.mail import Mail
from domain.outside import CalledInsideTransaction
from models import database
from models.config import config
from models.ids import uuid7
from tests.conftest import Suite

pytestmark = pytest.mark.anyio

SIZE = 4


@contextlib.asynccontextmanager
async def pool_of(suite: Suite, engine: str) -> AsyncIterator[Any]:
    """Open a pool of SIZE connections with an engine, for this task alone, and yield asyncpg's own object."""
    settings = config(suite.environment["DATABASE_URL"], pool=SIZE)
    settings["connections"]["default"]["engine"] = engine
    async with TortoiseContext() as context:
        await context.init(config=settings)
        await database.fetch_value("SELECT 1")
        client = context.connections.get("default")
        assert isinstance(client, AsyncpgDBClient)
        pool = client._pool
        try:
            yield pool
        finally:
            if pool is not None:
                pool.terminate()  # closing would wait for connections that nobody will give back


async def test_a_database_that_fell_silent_is_noticed_by_the_kernel(books: Suite) -> None:
    """O1: over TCP every connection of the pool is given up when the other machine says nothing for 20 seconds, whatever it waits for; tcp(7)."""
    url = urlsplit(books.environment["DATABASE_URL"])
    folder = dict(parse_qsl(url.query))["host"]

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_unix_connection(f"{folder}/.s.PGSQL.5432")

        async def pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                sink.write(data)
            sink.close()

        await asyncio.gather(pass_on(reader, to_server), pass_on(from_server, writer))

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as place:
        address = f"postgresql://{url.username}@127.0.0.1:{place.sockets[0].getsockname()[1]}{url.path}"
        async with pool_of(replace(books, environment={**books.environment, "DATABASE_URL": address}), "models.engine") as pool, pool.acquire() as connection:
            line = connection._con._transport.get_extra_info("socket")
            options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
            assert line.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert [line.getsockopt(socket.IPPROTO_TCP, option) for option in options] == [5, 5, 4, 20_000]


async def cancel_many(number: int) -> None:
    """Begin that many transactions, and cancel each after another number of turns of the loop."""

    async def work() -> None:
        async with database.transaction():
            await database.fetch_value("SELECT 1")

    for n in range(number):
        task = asyncio.create_task(work())
        for _ in range(n % 12):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_the_pool_survives_six_hundred_cancelled_transactions(books: Suite) -> None:
    """F5: whenever a client leaves, its connection comes back: afterwards all are idle, and as many transactions as ever run at once."""
    async with pool_of(books, "models.engine") as pool:
        await cancel_many(600)
        for _ in range(200):  # asyncpg gives the last ones back in tasks of its own, which the cancelled ones do not wait for
            if pool.get_size() == pool.get_idle_size():
                break
            await asyncio.sleep(0.05)
        assert pool.get_size() - pool.get_idle_size() == 0

        async def work() -> int:
            async with database.transaction():
                return int(await database.fetch_value("SELECT 1"))

        assert await asyncio.gather(*(work() for _ in range(SIZE * 5))) == [1] * (SIZE * 5)


async def test_the_stock_engine_would_not(books: Suite) -> None:
    """Why the engine is ours: a cancelled transaction of the stock one keeps its connection for ever.

    When this fails, Tortoise has mended its client, and ours can go.
    """
    async with pool_of(books, "tortoise.backends.asyncpg") as pool:
        await cancel_many(24)
        assert pool.get_size() - pool.get_idle_size() > 0


async def clock(name: str) -> bool:
    """Tell whether a row is there."""
    return bool(await database.fetch_value("SELECT EXISTS (SELECT FROM clock WHERE name = $1)", name))


async def note(name: str) -> None:
    """Write a row."""
    await database.fetch("INSERT INTO clock (name, done_at) VALUES ($1, clock_timestamp())", name)


async def test_a_transaction_is_all_or_nothing(books: Suite) -> None:
    """What an exception interrupts leaves nothing behind, and the exception comes out as it was."""
    name = uuid7().hex

    async def interrupted() -> None:
        async with database.transaction():
            await note(name)
            assert await clock(name)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await interrupted()
    assert not await clock(name)
    assert not database.transaction_is_open()


async def test_a_nested_transaction_joins_the_outer_one(books: Suite) -> None:
    """The inner one's rows are gone when the outer one fails after it, and there when it does not."""
    lost, kept = uuid7().hex, uuid7().hex
    for name, fails in ((lost, True), (kept, False)):
        with contextlib.suppress(ZeroDivisionError):
            async with database.transaction():
                async with database.transaction():
                    await note(name)
                assert database.transaction_is_open()
                if fails:
                    raise ZeroDivisionError
    assert (await clock(lost), await clock(kept)) == (False, True)


async def test_what_follows_a_commit_follows_in_order(books: Suite) -> None:
    """After-commit callbacks run once, in the order they were given, outside of the transaction, with its rows visible; never after a rollback."""
    name, seen = uuid7().hex, []

    def follow(number: int) -> None:
        async def callback() -> None:
            seen.append((number, await clock(name), database.transaction_is_open()))

        database.after_commit(callback)

    async with database.transaction():
        follow(1)
        async with database.transaction():
            follow(2)
            await note(name)
        follow(3)
        assert seen == []
    assert seen == [(1, True, False), (2, True, False), (3, True, False)]
    with contextlib.suppress(ZeroDivisionError):
        async with database.transaction():
            follow(4)
            raise ZeroDivisionError
    assert len(seen) == 3


async def test_the_outside_is_never_called_inside_a_transaction(books: Suite) -> None:
    """A client that is called while locks are held raises, in production too; nothing is sent."""
    mail = Mail(None, "tests@localhost", books.folder / "never")
    async with database.transaction():
        with pytest.raises(CalledInsideTransaction, match="the mail server was called inside a database transaction"):
            await mail.send("a@example.com", "subject", "text", duty_id=uuid7())
    assert not (books.folder / "never").exists()
    await mail.send("a@example.com", "subject", "text", duty_id=uuid7())
    assert len(list((books.folder / "never").iterdir())) == 1


async def test_a_connection_comes_back_without_a_transaction_and_without_a_round_trip(books: Suite) -> None:
    """A transaction that somebody left open is rolled back when its connection is given back; otherwise nothing is sent, because nothing is to be forgotten."""
    async with pool_of(books, "models.engine") as pool:
        name = uuid7().hex
        async with pool.acquire() as connection:
            await connection.execute("BEGIN")
            await connection.execute("INSERT INTO clock (name, done_at) VALUES ($1, clock_timestamp())", name)
        assert not await clock(name)
        last = "SELECT query FROM pg_stat_activity WHERE pid = $1"
        async with pool.acquire() as watcher:
            async with pool.acquire() as connection:
                pid, asked = connection.get_server_pid(), "SELECT 'the last thing that was asked'"
                await connection.execute(asked)
            assert await watcher.fetchval(last, pid) == asked
