"""Databases of their own for the tests of usage: they count what is queued, and no worker may fold behind their back."""

import contextlib
import itertools
from collections.abc import AsyncIterator

import pytest
from tortoise.context import TortoiseContext

from models.config import config
from tests.support.servers import Servers

_numbers = itertools.count()


@contextlib.asynccontextmanager
async def _fresh(servers: Servers, template: str) -> AsyncIterator[str]:
    """Let this context's tests find a pool on a clone of the template; the run's own pool stays as it is."""
    name = f"usage_{next(_numbers)}"
    servers.create_database(name, template=template)
    async with TortoiseContext() as context:
        await context.init(config=config(servers.app_dsn(name), pool=8))
        yield servers.app_dsn(name)
    servers.drop_database(name)


@pytest.fixture
async def database(servers: Servers, template: str) -> AsyncIterator[str]:
    """A database that nothing else has touched, as the URL of the application's role, as which the pool reaches it."""
    async with _fresh(servers, template) as url:
        yield url


@pytest.fixture(scope="module")
async def shared_database(servers: Servers, template: str) -> AsyncIterator[str]:
    """The same for a whole file, whose tests keep apart by workspaces of their own."""
    async with _fresh(servers, template) as url:
        yield url
