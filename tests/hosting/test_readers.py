"""Visitors while versions are switched under them, and a disk that is full (D1)."""

import asyncio
import os
import resource

import httpx2
import pytest

from tests.apps.deploying import SITE, deploy, make_app, zip_of
from tests.support.gateway import Gateway
from tests.support.world import Tenant, tenant

pytestmark = pytest.mark.anyio

APPS, READERS_EACH, DEPLOYS_EACH = 5, 10, 20
THINKS_SECONDS = 0.1
"""Between two pages of a reader, so that deployments have something of the machine too."""


def version(number: int) -> dict[str, bytes]:
    """A page that names its script by content, its style and its own number; and what they hold."""
    script = f"assets/app-{number:04}a1B2c3.js"
    return {"index.html": f"{number} /{script} end".encode(), script: f"script of {number}".encode(), "old.html": f"{number}".encode()}


class Reader:
    """A browser with one connection, which asks for a page and then for what the page names."""

    def __init__(self, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._host, self._reader, self._writer = host, reader, writer
        self.numbers: list[int] = []

    async def get(self, path: str) -> bytes:
        """A file, which must be there."""
        self._writer.write(f"GET {path} HTTP/1.1\r\nHost: {self._host}\r\nAccept-Encoding: identity\r\n\r\n".encode())
        head = await self._reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), (path, head)
        return await self._reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))

    async def read(self, over: asyncio.Event) -> None:
        """Load pages until the deployments are over, and once more."""
        last = False
        while not last:
            last = over.is_set()
            number, script, end = (await self.get("/")).decode().split(" ")
            assert end == "end"
            assert await self.get(script) == f"script of {number}".encode()
            self.numbers.append(int(number))
            await asyncio.sleep(THINKS_SECONDS)
        self._writer.close()


async def test_readers_during_a_hundred_deploys(client: httpx2.AsyncClient, gateway: Gateway) -> None:
    """Fifty readers of five apps, each deployed twenty times: every page finds its own script, numbers never go back, and all see the last version."""
    mine = await tenant()
    slugs = [await make_app(client, mine) for _ in range(APPS)]

    async def follow(slug: str) -> list[Reader]:
        assert (await deploy(client, mine, slug, version(0))).status_code == 200
        over = asyncio.Event()
        readers = [Reader(f"{slug}.localhost", *await asyncio.open_connection("127.0.0.1", gateway.port)) for _ in range(READERS_EACH)]
        reading = [asyncio.create_task(reader.read(over)) for reader in readers]
        for number in range(1, DEPLOYS_EACH + 1):
            assert (await deploy(client, mine, slug, version(number))).status_code == 200
        over.set()
        await asyncio.gather(*reading)
        return readers

    for readers in await asyncio.gather(*map(follow, slugs)):
        for reader in readers:
            assert reader.numbers == sorted(reader.numbers)
            assert reader.numbers[-1] == DEPLOYS_EACH


@pytest.fixture
async def maker(client: httpx2.AsyncClient) -> tuple[Tenant, str]:
    """A maker whose app's first version is live."""
    mine = await tenant()
    slug = await make_app(client, mine)
    assert (await deploy(client, mine, slug, SITE)).status_code == 200
    return mine, slug


@pytest.mark.parametrize("way", ["parts", "archive"])
async def test_a_full_disk(client: httpx2.AsyncClient, gateway: Gateway, maker: tuple[Tenant, str], way: str) -> None:
    """A gateway that cannot write a large file any more answers 503 and keeps serving the old version; with room again the same files go live."""
    mine, slug = maker
    large = {"index.html": b"two", "large.bin": os.urandom(6 * 1024 * 1024)}

    async def send() -> httpx2.Response:
        if way == "parts":
            return await deploy(client, mine, slug, large)
        return await client.post(f"/v1/apps/{slug}/deploy", content=zip_of(large), headers=mine.bearer)

    soft, hard = resource.prlimit(gateway.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(gateway.pid, resource.RLIMIT_FSIZE, (gateway.log.stat().st_size + 4 * 1024 * 1024, hard))
    try:
        refused = await send()
    finally:
        resource.prlimit(gateway.pid, resource.RLIMIT_FSIZE, (soft, hard))
    assert (refused.status_code, set(refused.json())) == (503, {"error"})
    assert int(refused.headers["retry-after"]) > 0
    assert (await client.get("/", headers={"Host": f"{slug}.localhost"})).content == SITE["index.html"]
    assert (await send()).status_code == 200
    assert (await client.get("/", headers={"Host": f"{slug}.localhost"})).content == b"two"
