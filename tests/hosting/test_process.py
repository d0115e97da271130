"""`manage.py hosting`: a process that serves apps and nothing else, beside the gateway that deploys them."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from models import database
from schema import ids
from tests.apps.deploying import SITE, deploy, make_app
from tests.conftest import Suite
from tests.schema.test_operations import documents
from tests.support.calling import until
from tests.support.gateway import free_port
from tests.support.world import tenant

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
async def hosting(books: Suite) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of such a process, which must end well when it is told to."""
    port, log = free_port(), books.folder / "hosting.log"
    environment = {**books.environment, "PORT": str(port), "HOST": "127.0.0.1", "TALLYGATE_WORKER": "apart"}
    with log.open("ab") as told:
        process = subprocess.Popen([sys.executable, "-m", "manage", "hosting"], cwd=ROOT, env=environment, stdout=told, stderr=told)

    async def answers() -> bool:
        assert process.poll() is None, log.read_text(errors="replace")[-4000:]
        try:
            return (await client.get("/", headers={"Host": "nobody.localhost"})).status_code == 404
        except httpx2.TransportError:
            return False

    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        await until(answers, "an answer of the hosting")
        yield client
    process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(process.wait, 60) == 0, log.read_text(errors="replace")[-4000:]


async def test_another_process_follows_every_switch(client: httpx2.AsyncClient, hosting: httpx2.AsyncClient) -> None:
    """Who was told of a deployment, a rollback, a changed manifest, the kill switch or a deletion finds it in every process; nothing else is served there."""
    mine = await tenant()
    slug = await make_app(client, mine)

    async def visit(path: str = "/", host: str = slug) -> httpx2.Response:
        return await hosting.get(path, headers={"Host": f"{host}.localhost"})

    async def ask(name: str, **variables: object) -> object:
        answer = (await client.post("/graphql", json={"query": documents()[name], "variables": variables}, headers=mine.bearer)).json()
        assert "errors" not in answer, answer
        return answer["data"]

    assert (await visit()).status_code == 404
    for number in range(5):
        assert (await deploy(client, mine, slug, SITE | {"index.html": f"version {number}".encode(), f"app-{number}a1b2c3d.js": b"x"})).status_code == 200
        for _ in range(2):
            assert (await visit()).content == f"version {number}".encode()
        assert (await visit(f"/app-{number}a1b2c3d.js")).status_code == 200
    first = await database.fetch_value("SELECT d.id FROM deployment d JOIN app a ON a.id = d.app_id WHERE a.slug = $1 AND d.version = 1", slug)
    await ask("S0_Rollback", id=ids.encode("Deployment", first))
    assert (await visit()).content == b"version 0"
    assert (await visit(host=f"{slug}--v5")).content == b"version 4"
    assert (await client.put(f"/v1/apps/{slug}", json={"manifest": {"entry": "404.html"}}, headers=mine.bearer)).status_code == 200
    assert (await visit()).content == SITE["404.html"]
    app = ids.encode("App", await database.fetch_value("SELECT id FROM app WHERE slug = $1", slug))
    await ask("AppKill", id=app)
    assert (await visit()).status_code == 503
    assert (await client.delete(f"/v1/apps/{slug}", headers=mine.bearer)).status_code == 204
    assert [(await visit(host=host)).status_code for host in (slug, f"{slug}--v1")] == [404, 404]
    for path in ("/graphql", "/v1/messages", "/healthz", "/metrics"):
        assert (await hosting.get(path)).status_code in (404, 421), path
