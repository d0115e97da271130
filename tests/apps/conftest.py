"""A client of the run's gateway that makers of apps use."""

from collections.abc import AsyncIterator

import httpx2
import pytest

from tests.support.gateway import Gateway


@pytest.fixture
async def client(gateway: Gateway) -> AsyncIterator[httpx2.AsyncClient]:
    """A client without a credential of its own."""
    async with httpx2.AsyncClient(base_url=gateway.url, timeout=60) as opened:
        yield opened
