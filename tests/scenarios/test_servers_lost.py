"""Postgres killed and restarted, Valkey emptied and stopped, both under load: nothing acknowledged is lost (O1, O2, F6, F20)."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import aiohttp
import pytest
import redis.asyncio

from domain.money import ledger
from models import database
from tests.conftest import environment_of
from tests.support.books import books_of, line, open_holds, quiet
from tests.support.calling import WIRES, Wire, bearer, session, until
from tests.support.gateway import ROOT, Gateway
from tests.support.installation import Installation, installation
from tests.support.servers import Servers
from tests.support.world import Tenant, tenant

pytestmark = pytest.mark.anyio

CREDIT = 100_000_000
KILLS = 3
QUESTION = "Say this back to me, word for word."
ECHO_MICROUSD = 27
"""`echo` counts 9 tokens in and 9 out of QUESTION, at 1 and 2 microdollars."""


@dataclass
class Island:
    """An installation with a Postgres and a Valkey of its own."""

    over: Installation
    gateway: Gateway


@pytest.fixture(scope="module")
async def island(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Island]:
    """Start servers that may be killed, and a gateway over them."""
    folder = tmp_path_factory.mktemp("island")
    servers = await asyncio.to_thread(Servers().__enter__)
    try:
        await asyncio.to_thread(servers.create_database, "island")
        environment = {"PATH": os.environ.get("PATH", ""), **environment_of(servers, "island", folder)}
        command = [sys.executable, "-m", "manage", "migrate"]
        await asyncio.to_thread(subprocess.run, command, cwd=ROOT, env=environment, check=True, capture_output=True)
        async with installation(servers, "island", folder) as over:
            yield Island(over, await over.gateway())
    finally:
        await asyncio.to_thread(servers.close)


@dataclass
class Worker:
    """One client that calls for as long as it may, and what it was told."""

    wire: Wire
    stream: bool
    tenant: Tenant
    answered: list[str] = field(default_factory=list)
    refused: list[tuple[int, str | None]] = field(default_factory=list)
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def work(self, client: aiohttp.ClientSession, gateway: Gateway) -> None:
        """Call again and again; an answer counts when it is whole."""
        body = self.wire.body(QUESTION, model="echo", stream=self.stream)
        while not self.stop.is_set():
            async with client.post(gateway.url + self.wire.path, data=body, headers=bearer(self.tenant.secret)) as response:
                told = await response.read()
            if response.status == 200:
                assert self.wire.end in told if self.stream else json.loads(told)["usage"], told
                self.answered.append(response.headers["x-request-id"])
            else:
                self.wire.refusal(told)
                self.refused.append((response.status, response.headers.get("retry-after")))
                await asyncio.sleep(0.02)


@asynccontextmanager
async def _load(gateway: Gateway, tenants: tuple[Tenant, ...]) -> AsyncIterator[list[Worker]]:
    """Let eight clients call for as long as the context is open."""
    workers = [Worker(wire, stream, mine) for wire in WIRES for stream in (True, False) for mine in tenants]
    async with session() as client:
        tasks = [asyncio.create_task(worker.work(client, gateway)) for worker in workers]
        try:
            yield workers
        finally:
            for worker in workers:
                worker.stop.set()
            await asyncio.gather(*tasks)


async def _all_answered(workers: list[Worker], before: list[int], more: int) -> bool:
    return all(len(worker.answered) >= count + more for worker, count in zip(workers, before, strict=True))


async def _go_on(workers: list[Worker], more: int = 3) -> None:
    """Wait until every client has had `more` whole answers from now on."""
    await until(partial(_all_answered, workers, [len(worker.answered) for worker in workers], more), f"{more} more answers for each client")


async def _charged(request_id: str) -> bool:
    booked = await line(request_id)
    return booked is not None and (booked.charge_microusd, booked.outcome) == (ECHO_MICROUSD, "succeeded")


async def _check_books(workers: list[Worker], tenants: tuple[Tenant, ...]) -> None:
    """Check that every whole answer is charged in full and once, nothing else is charged, and nothing is held."""

    async def nothing_held() -> bool:
        return await open_holds() == 0

    await until(nothing_held, "every hold closed")
    for worker in workers:
        for request_id in worker.answered:
            # an answer may leave ten seconds before its settlement, which then finds its hold swept and posts the difference
            await until(partial(_charged, request_id), f"{request_id} charged in full")
    for mine in tenants:
        whole = sum(len(worker.answered) for worker in workers if worker.tenant is mine)
        assert CREDIT - await quiet(mine) == whole * ECHO_MICROUSD
    assert await ledger.audit() == []


async def _refused_in_both(workers: list[Worker], before: list[int]) -> bool:
    return {worker.wire.name for worker, count in zip(workers, before, strict=True) if len(worker.refused) > count} == {wire.name for wire in WIRES}


async def test_a_killed_postgres_loses_nothing_that_was_acknowledged(island: Island) -> None:
    """O1, F20: killed with -9 and restarted three times under load: 503 or 529 with `retry-after` meanwhile, each whole answer charged once, no pool hangs."""
    over = island.over
    async with books_of(over.dsn):
        tenants = (await tenant(credit_microusd=CREDIT), await tenant(credit_microusd=CREDIT))
    async with _load(island.gateway, tenants) as workers:
        await _go_on(workers)
        for _ in range(KILLS):
            before = [len(worker.refused) for worker in workers]
            over.servers.postgres.kill()
            await until(partial(_refused_in_both, workers, before), "a refusal in each dialect")
            async with session() as client:
                for wire in WIRES:  # a key that cannot be proved is no bug of ours and no fault of its owner
                    async with client.post(island.gateway.url + wire.path, data=b"{", headers=bearer(tenants[0].secret)) as response:
                        assert (response.status, response.headers["retry-after"]) == (wire.overloaded, "2")
            await asyncio.to_thread(over.servers.postgres.start)
            await _go_on(workers)
    for worker in workers:
        assert set(worker.refused) <= {(worker.wire.overloaded, "2")}
    async with books_of(over.dsn), session() as client:
        await _check_books(workers, tenants)
        body = WIRES[0].body(QUESTION, model="echo", stream=False)

        async def once_more() -> int:
            async with client.post(island.gateway.url + WIRES[0].path, data=body, headers=bearer(tenants[0].secret)) as response:
                await response.read()
                return response.status

        assert await asyncio.gather(*(once_more() for _ in range(64))) == [200] * 64


async def _invite(gateway: Gateway, mine: Tenant, email: str) -> None:
    document = "mutation($email: EmailAddress!) { memberInvite(input: { email: $email, role: DEVELOPER }) { userErrors { message } } }"
    asked = {"query": document, "variables": {"email": email}}
    async with session() as client, client.post(f"{gateway.url}/graphql", json=asked, headers=bearer(mine.secret)) as response:
        assert (await response.json())["data"] == {"memberInvite": {"userErrors": []}}


def _mails(folder: Path) -> str:
    return "".join(path.read_text() for path in sorted((folder / "mail").glob("*.eml")))


async def test_an_emptied_and_stopped_valkey_only_delays_jobs(island: Island) -> None:
    """O2, J1: money never notices; duties written while it is emptied or away are done when it is back, because a sweep finds their rows."""
    over = island.over
    async with books_of(over.dsn):
        tenants = (await tenant(credit_microusd=CREDIT), await tenant(credit_microusd=CREDIT))

        async def sent(*emails: str) -> bool:
            told = await asyncio.to_thread(_mails, over.folder)
            return all(f"To: {email}" in told for email in emails)

        async with _load(island.gateway, tenants) as workers:
            await _go_on(workers)
            async with redis.asyncio.Redis.from_url(over.servers.redis_url) as valkey:
                for number in range(5):
                    await _invite(island.gateway, tenants[0], f"flushed-{number}@example.com")
                    await valkey.flushall()
            await _go_on(workers)
            over.servers.valkey.kill()
            await _invite(island.gateway, tenants[0], "away@example.com")
            await _go_on(workers)
            assert not await sent("away@example.com")
            await asyncio.to_thread(over.servers.valkey.start)
            await _go_on(workers)
            await until(partial(sent, "away@example.com", *(f"flushed-{number}@example.com" for number in range(5))), "every invitation sent")
        assert [worker.refused for worker in workers] == [[]] * 8
        await _check_books(workers, tenants)

        async def all_done() -> bool:
            return bool(await database.fetch_value("SELECT every(status = 'succeeded') FROM job"))

        await until(all_done, "every job done")
