"""A database of a test module's own, and a loop of its own to reach it: for synchronous tests, and for those that turn the clock.

Hypothesis calls a synchronous function many times, so a property of the database cannot be an `async def`. `OwnBooks` holds an
`asyncio.Runner`, whose every run shares one context: the pool that the first run opens in a `TortoiseContext` (without the process-wide
fallback, which is the session's `books`) is the one that all domain functions find in later runs, and nobody else does. Tests of other
modules keep their loop and their pool. A database of its own also keeps out the run's gateway, whose sweep would end a hold that a test
expires before the test does.
"""

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

import asyncpg
from tortoise.context import TortoiseContext

from domain.money import ledger
from domain.money.catalogue import Book
from models.config import config
from tests.support.servers import Servers

T = TypeVar("T")


class OwnBooks:
    """A clone of the template with a pool of the application's role, a superuser's connection, and the loop of both; a context."""

    book: Book
    admin: "asyncpg.Connection[asyncpg.Record]"

    def __init__(self, servers: Servers, template: str, name: str, *, pool: int = 8) -> None:
        self._servers = servers
        self.name = name
        self._pool = pool
        self._runner = asyncio.Runner()
        self._context = TortoiseContext()
        servers.create_database(name, template=template)

    def __enter__(self) -> Self:
        self.run(self._open())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.run(self._close())
        self._runner.close()
        self._servers.drop_database(self.name)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end in these books' loop."""
        return self._runner.run(work)

    async def _open(self) -> None:
        await self._context.__aenter__()
        await self._context.init(config=config(self._servers.app_dsn(self.name), pool=self._pool))
        self.admin = await asyncpg.connect(self._servers.admin_dsn(self.name))
        self.book = Book()
        await self.book.refresh()

    async def _close(self) -> None:
        await self.admin.close()
        await self._context.__aexit__(None, None, None)

    async def expire(self, *call_ids: object) -> None:
        """Let holds be past their expiry, in this order, as if their processes had died a minute ago."""
        await self.admin.execute(
            """
            UPDATE hold SET expires_at = clock_timestamp() - interval '1 minute' + make_interval(secs => array_position($1, call_id) * 0.001)
             WHERE call_id = ANY ($1) AND state = 'open'
            """,
            list(call_ids),
        )

    async def end_windows(self, workspace_id: object) -> None:
        """Let every window of a workspace's bounds be over, as if its time had passed."""
        past = "clock_timestamp() - interval '1 second'"
        await self.admin.execute(f"UPDATE bound_window SET ends_at = {past} WHERE workspace_id = $1 AND ends_at IS NOT NULL", workspace_id)

    async def sound(self) -> None:
        """Fail with what is broken, when the audit of this database finds anything."""
        assert await ledger.audit() == []
