"""A simulated Stripe, books of their own, and a gateway whose payments go through it."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from clients.stripe import Stripe
from domain.money import events
from models import database
from tests.conftest import Suite, environment_of
from tests.payments.lives import Till
from tests.support.books import books_of
from tests.support.gateway import Gateway, free_port
from tests.support.servers import Servers
from tests.support.stripe import KEY, SECRET, simulated

BOOKS = "payments"


@pytest.fixture(scope="session")
def payments_dsn(servers: Servers, template: str) -> str:
    """The database of these tests: no other process works off its duties."""
    servers.create_database(BOOKS, template=template)
    return servers.app_dsn(BOOKS)


@pytest.fixture
async def till(payments_dsn: str) -> AsyncIterator[Till]:
    """A simulator that delivers nothing by itself, the client on it, and the books."""
    async with simulated() as simulator, books_of(payments_dsn):
        client = Stripe(KEY, simulator.url)
        # only this test's simulator knows its events: what another left is forgotten
        await database.fetch("UPDATE job SET status = 'succeeded' WHERE kind = $1 AND status IN ('queued', 'running')", events.STRIPE_EVENT)
        await database.fetch("UPDATE top_up SET look_at = NULL")
        yield Till(simulator, client)
        await client.close()


@pytest.fixture(scope="session")
async def shop(servers: Servers, template: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Gateway, "Till"]]:
    """A gateway of its own with payments, its worker inside, and the simulator that delivers to it."""
    name, folder = "shop", Path(tmp_path_factory.mktemp("shop"))
    servers.create_database(name, template=template)
    port = free_port()
    async with simulated(f"http://127.0.0.1:{port}/webhooks/stripe") as simulator:
        stripe = {"STRIPE_SECRET_KEY": KEY, "STRIPE_WEBHOOK_SECRET": f"whsec_old,{SECRET}", "STRIPE_API_URL": simulator.url}
        gateway = Gateway({**environment_of(servers, name, folder), **stripe, "REDIS_URL": f"{servers.redis_url}?db=5"}, folder / "gateway.log", port=port)
        gateway.start()
        await gateway.ready()
        client = Stripe(KEY, simulator.url)
        yield gateway, Till(simulator, client, servers.app_dsn(name))
        await client.close()
        if gateway.terminate() not in (0, -9):
            raise AssertionError(gateway.log.read_text(errors="replace")[-4000:])


@pytest.fixture(scope="session")
async def plain(books: Suite) -> AsyncIterator[Gateway]:
    """A gateway over the run's database that has no payments."""
    started = Gateway(books.environment, books.folder / "plain.log")
    started.start()
    await started.ready()
    yield started
    assert started.terminate() == 0, started.log.read_text(errors="replace")[-4000:]


@pytest.fixture
async def counter(shop: tuple[Gateway, Till]) -> AsyncIterator[tuple[httpx2.AsyncClient, Till]]:
    """A client of that gateway, with its books open in the test."""
    gateway, till = shop
    assert till.dsn is not None
    async with httpx2.AsyncClient(base_url=gateway.url, timeout=30) as client, books_of(till.dsn):
        yield client, till
