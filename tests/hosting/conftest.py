"""A client of the run's gateway that visits apps."""

from collections.abc import AsyncIterator

import httpx2
import pytest

from tests.support.gateway import Gateway


@pytest.fixture
async def client(gateway: Gateway) -> AsyncIterator[httpx2.AsyncClient]:
    """A client without a credential."""
    async with httpx2.AsyncClient(base_url=gateway.url, timeout=30) as opened:
        yield opened
