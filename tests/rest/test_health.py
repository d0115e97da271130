"""Liveness, readiness and version, of the run's gateway and of gateways whose parts are taken away."""

import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import anyio.to_thread
import asyncpg
import httpx2
import pytest

from domain.access import secrets
from models.enums import ApiKeyMode
from settings import VERSION
from tests.conftest import environment_of
from tests.support.gateway import ROOT, Gateway
from tests.support.servers import Servers

pytestmark = pytest.mark.anyio

OWN = "health"


@pytest.fixture
def own(servers: Servers, template: str, tmp_path: Path) -> dict[str, str]:
    """The environment of a gateway with a database of its own, whose queue is nowhere."""
    servers.drop_database(OWN)
    servers.create_database(OWN, template=template)
    return {**environment_of(servers, OWN, tmp_path), "REDIS_URL": f"unix://{tmp_path}/nowhere.sock", "TALLYGATE_WORKER": "apart"}


@pytest.fixture
async def lonely(own: dict[str, str], tmp_path: Path) -> AsyncIterator[Gateway]:
    """A gateway without a queue."""
    gateway = Gateway(own, tmp_path / "gateway.log")
    gateway.start()
    await gateway.ready()
    yield gateway
    gateway.terminate()


async def test_a_gateway_that_has_all_its_parts(client: httpx2.AsyncClient) -> None:
    """It lives, it is ready, and it says what it is; nobody needs a credential for that."""
    assert (await client.get("/healthz")).json() == {"status": "ok"}
    ready = await client.get("/readyz")
    assert (ready.status_code, ready.json()) == (200, {"status": "ready", "database": "ok", "migrations": "ok", "queue": "ok"})
    assert (await client.get("/version")).json() == {"name": "tallygate", "version": VERSION}
    assert ready.headers["x-request-id"]


async def test_a_queue_that_is_away_makes_nothing_unready(lonely: Gateway) -> None:
    """What the queue would carry stands in the database too: it is shown, and that is all."""
    async with httpx2.AsyncClient(base_url=lonely.url, timeout=30) as client:
        ready = await client.get("/readyz")
    assert (ready.status_code, ready.json()) == (200, {"status": "ready", "database": "ok", "migrations": "ok", "queue": "away"})


async def test_a_database_that_goes_away_and_comes_back(tmp_path: Path) -> None:
    """The gateway lives on and is not ready; a request is told to come again, in its document's shape; then all is well by itself."""
    key = {"Authorization": f"Bearer {secrets.make(ApiKeyMode.LIVE)}"}
    with Servers() as servers:
        servers.create_database(OWN)
        environment = environment_of(servers, OWN, tmp_path) | {"TALLYGATE_WORKER": "apart"}
        await anyio.run_process([sys.executable, "-m", "manage", "migrate"], cwd=ROOT, env={"PATH": os.environ["PATH"], **environment})
        gateway = Gateway(environment, tmp_path / "gateway.log")
        gateway.start()
        try:
            await gateway.ready()
            async with httpx2.AsyncClient(base_url=gateway.url, timeout=30) as client:
                assert (await client.get("/readyz")).status_code == 200
                await anyio.to_thread.run_sync(servers.postgres.kill)
                away = await client.get("/readyz")
                assert (away.status_code, away.json()) == (503, {"status": "unready", "database": "away", "migrations": "ok", "queue": "ok"})
                assert (await client.get("/healthz")).status_code == 200
                for path, shape in (("/v1/keys", str), ("/tenant/keys", dict)):
                    refused = await client.get(path, headers=key)
                    assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
                    assert isinstance(refused.json()["error"], shape)
                await anyio.to_thread.run_sync(servers.postgres.start)
                while (await client.get("/readyz")).status_code != 200:
                    await anyio.sleep(0.05)
                assert (await client.get("/v1/keys", headers=key)).status_code == 401
        finally:
            gateway.terminate()


async def test_a_database_that_is_behind(servers: Servers, own: dict[str, str], tmp_path: Path) -> None:
    """A gateway whose database lacks a migration is not ready, and becomes so when it has it."""
    connection = await asyncpg.connect(servers.owner_dsn(OWN))
    newest = await connection.fetchrow("DELETE FROM tortoise_migrations WHERE id = (SELECT max(id) FROM tortoise_migrations) RETURNING *")
    assert newest is not None
    gateway = Gateway(own, tmp_path / "gateway.log")
    gateway.start()
    try:
        await gateway.ready()
        async with httpx2.AsyncClient(base_url=gateway.url, timeout=30) as client:
            behind = await client.get("/readyz")
            assert (behind.status_code, behind.json()["status"], behind.json()["migrations"]) == (503, "unready", "behind")
            columns = ", ".join(newest.keys())
            values = ", ".join(f"${number}" for number in range(1, len(newest) + 1))
            await connection.execute(f"INSERT INTO tortoise_migrations ({columns}) VALUES ({values})", *newest.values())
            assert (await client.get("/readyz")).status_code == 200
    finally:
        gateway.terminate()
        await connection.close()


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/version", "/openapi.json"])
async def test_only_reading(client: httpx2.AsyncClient, path: str) -> None:
    """GET and HEAD are answered, the rest is told what is."""
    assert (await client.head(path)).status_code == 200
    refused = await client.post(path, content=b"{}")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
