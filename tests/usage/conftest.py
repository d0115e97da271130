"""Databases of their own for the tests of usage: they count what is queued, and no worker may fold behind their back."""

import contextlib
import itertools
from collections.abc import AsyncIterator

import pytest

from models import database as db
from tests.conftest import Suite
from tests.support.servers import Servers

_numbers = itertools.count()


@contextlib.asynccontextmanager
async def _fresh(servers: Servers, template: str, books: Suite) -> AsyncIterator[str]:
    """Point this process's pool at a clone of the template for a while."""
    name = f"usage_{next(_numbers)}"
    servers.create_database(name, template=template)
    await db.close_pool()
    await db.open_pool(servers.app_dsn(name), pool=8)
    try:
        yield servers.app_dsn(name)
    finally:
        await db.close_pool()
        servers.drop_database(name)
        await db.open_pool(books.environment["DATABASE_URL"], pool=10)


@pytest.fixture
async def database(servers: Servers, template: str, books: Suite) -> AsyncIterator[str]:
    """A database that nothing else has touched, as the URL of the application's role, as which the pool reaches it."""
    async with _fresh(servers, template, books) as url:
        yield url


@pytest.fixture(scope="module")
async def shared_database(servers: Servers, template: str, books: Suite) -> AsyncIterator[str]:
    """The same for a whole file, whose tests keep apart by workspaces of their own."""
    async with _fresh(servers, template, books) as url:
        yield url
