"""What the books of a database say of calls, for tests that kill what writes them."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg
from tortoise.context import TortoiseContext

from models import database
from models.config import config
from tests.support.calling import until
from tests.support.world import Tenant, broken


@asynccontextmanager
async def books_of(dsn: str) -> AsyncIterator[None]:
    """Let the domain and every look at the books speak to another database than the run's, for as long as the context is open."""
    async with TortoiseContext() as context:
        await context.init(config=config(dsn, pool=6))
        yield


@dataclass(frozen=True, slots=True)
class Line:
    """What a call's events add up to."""

    charge_microusd: int
    input_tokens: int
    output_tokens: int
    outcome: str
    error_code: str | None
    http_status: int | None
    token_source: str
    model: str
    events: int


async def line(call_id: str | UUID) -> Line | None:
    """Return what the books say of a call; None until it is settled."""
    rows = await database.fetch("SELECT * FROM usage_event WHERE record_id = $1 ORDER BY created_at, id", UUID(str(call_id)))
    if not rows:
        return None
    last = rows[-1]
    return Line(
        charge_microusd=sum(row["charge_microusd"] for row in rows),
        input_tokens=sum(row["input_tokens"] for row in rows),
        output_tokens=sum(row["output_tokens"] for row in rows),
        outcome=last["outcome"],
        error_code=last["error_code"],
        http_status=last["http_status"],
        token_source=last["token_source"],
        model=last["model"],
        events=len(rows),
    )


async def settled(call_id: str | UUID) -> Line:
    """Wait until a call is settled, and return what the books say of it."""
    found = await until(lambda: line(call_id), f"settlement of {call_id}")
    assert found is not None
    return found


async def calls_of(tenant: Tenant) -> list[UUID]:
    """Return the ids of a workspace's calls, oldest first."""
    return [row["id"] for row in await database.fetch('SELECT id FROM "call" WHERE workspace_id = $1 ORDER BY id', tenant.workspace_id)]


async def only_call(tenant: Tenant) -> UUID:
    """Wait until a workspace has exactly one call, and return its id."""
    found = await until(lambda: calls_of(tenant), "a call")
    assert len(found) == 1
    return found[0]


async def progress_of(call_id: str | UUID) -> dict[str, Any] | None:
    """Return the progress that is kept with a call's hold; None when there is none."""
    text = await database.fetch_value("SELECT progress FROM hold WHERE call_id = $1", UUID(str(call_id)))
    return None if text is None else json.loads(text)


async def open_holds() -> int:
    """Return how many holds are open in the whole database."""
    count: int = await database.fetch_value("SELECT count(*) FROM hold WHERE state = 'open'")
    return count


async def quiet(tenant: Tenant) -> int:
    """Wait until a workspace has no open hold; check that nothing is held and its books are sound, and return its balance (F4)."""

    async def no_hold() -> bool:
        return bool(await database.fetch_value("SELECT NOT EXISTS (SELECT FROM hold WHERE workspace_id = $1 AND state = 'open')", tenant.workspace_id))

    await until(no_hold, "every hold closed")
    balance = await tenant.balance()
    assert balance.held == 0
    assert balance.available == max(balance.balance, 0)
    assert await broken(tenant) == []
    return int(balance.balance)


@asynccontextmanager
async def locked(admin_dsn: str, tenant: Tenant) -> AsyncIterator[asyncpg.Connection]:
    """Hold a workspace's balance, and give another connection, which sees who waits: in a transaction the statistics stand still."""
    holder = await asyncpg.connect(admin_dsn)
    watcher = await asyncpg.connect(admin_dsn)
    try:
        async with holder.transaction():
            await holder.fetch("SELECT FROM account WHERE workspace_id = $1 AND kind = 'cash' FOR NO KEY UPDATE", tenant.workspace_id)
            yield watcher
    finally:
        await holder.close()
        await watcher.close()
