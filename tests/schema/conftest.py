"""GraphQL over real HTTP, in the process of the tests, on the run's database."""

from collections.abc import AsyncIterator

import pytest

from tests.conftest import Suite
from tests.schema.serving import Served, running


@pytest.fixture(scope="session")
async def served(books: Suite) -> AsyncIterator[Served]:
    """A running server; tests keep apart by each making a workspace of its own."""
    async with running() as started:
        yield started
