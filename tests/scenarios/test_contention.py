"""Statements that wait too long are cancelled, sessions are ended under them: calls settle all the same, once (F19, F20)."""

import asyncio

import asyncpg
import pytest

from tests.conftest import Suite
from tests.support import upstream as scripted
from tests.support.books import calls_of, locked, only_call, quiet, settled
from tests.support.calling import WIRES, Wire, bearer, session, until
from tests.support.gateway import Gateway
from tests.support.servers import Servers
from tests.support.upstream import Upstream
from tests.support.world import tenant

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("wire", WIRES, ids=[wire.name for wire in WIRES])]

CREDIT = 1_000_000
MORE_THAN_A_BATCH_TRIES = 8


async def _end_waiting(watcher: asyncpg.Connection, function: str, how: str) -> None:
    """Wait for a statement of `function` that waits for a lock, and cancel it or end its session."""

    async def waiting() -> int | None:
        found: int | None = await watcher.fetchval(
            "SELECT pid FROM pg_stat_activity WHERE query LIKE '%' || $1 || '(%' AND state = 'active' AND wait_event_type = 'Lock' LIMIT 1", function
        )
        return found

    pid = await until(waiting, f"{function} waiting for the lock")
    await watcher.fetchval(f"SELECT {how}($1)", pid)


@pytest.mark.parametrize("how", ["pg_cancel_backend", "pg_terminate_backend"])
async def test_a_settlement_is_tried_until_it_is_through(
    gateway: Gateway, books: Suite, provider: Upstream, servers: Servers, wire: Wire, how: str
) -> None:
    """However often the statement is cancelled or its session ended, the client sees the end and the charge is booked once."""
    mine = await tenant(credit_microusd=CREDIT)
    go = asyncio.Event()
    provider.script(scripted.held(wire.begin(), go, wire.rest()))
    async with session() as client, client.post(gateway.url + wire.path, data=wire.body(), headers=bearer(mine.secret)) as response:
        await response.content.readuntil(b"world")
        async with locked(servers.admin_dsn("suite"), mine) as watcher:
            go.set()
            for _ in range(MORE_THAN_A_BATCH_TRIES if how == "pg_cancel_backend" else 2):
                await _end_waiting(watcher, "settle_4", how)
        assert wire.end in await response.read()
    booked = await settled(await only_call(mine))
    assert (booked.charge_microusd, booked.events, booked.token_source) == (wire.price(), 1, "provider")
    assert await quiet(mine) == CREDIT - wire.price()


async def test_an_admission_that_cannot_get_through_is_to_be_tried_again(gateway: Gateway, books: Suite, provider: Upstream, servers: Servers, wire: Wire) -> None:
    """A balance that others hold for too long is overload, told with `retry-after`; no upstream is asked, nothing is held."""
    mine = await tenant(credit_microusd=CREDIT)
    async with session() as client, locked(servers.admin_dsn("suite"), mine) as watcher:
        calling = asyncio.create_task(client.post(gateway.url + wire.path, data=wire.body(), headers=bearer(mine.secret)))
        while not calling.done():
            ending = asyncio.create_task(_end_waiting(watcher, "admit_6", "pg_cancel_backend"))
            await asyncio.wait({calling, ending}, return_when=asyncio.FIRST_COMPLETED)
            if not ending.done():
                ending.cancel()
            await asyncio.gather(ending, return_exceptions=True)
        response = await calling
        assert (response.status, response.headers["retry-after"]) == (wire.overloaded, "2")
        wire.refusal(await response.read())
    assert provider.requests == []
    assert await calls_of(mine) == []
    assert await quiet(mine) == CREDIT
