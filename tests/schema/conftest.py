"""GraphQL over real HTTP: one server and one migrated database for each module of tests."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from models import database
from models.migrate import migrate
from tests.schema.serving import Gateway, running
from tests.support.servers import Servers

FUNCTIONS = Path(__file__).parents[2] / "domain" / "sql"


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One event loop for a module, so that its server outlives each test."""
    return "asyncio"


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    """A Postgres of the module's own."""
    with Servers() as started:
        yield started


@pytest.fixture(scope="module")
async def gateway(servers: Servers, anyio_backend: str) -> AsyncIterator[Gateway]:
    """A running server over an empty, migrated database."""
    servers.create_database("graphql")
    functions = [(path.name, path.read_text(encoding="utf-8")) for path in sorted(FUNCTIONS.glob("*.sql"))]
    await migrate(servers.owner_dsn("graphql"), servers.app_dsn("graphql"), functions)
    await database.open_pool(servers.app_dsn("graphql"), pool=8)
    try:
        async with running() as started:
            yield started
    finally:
        await database.close_pool()
