"""A second gateway over the run's database: another process, another policy for clients that leave, small instalments."""

from collections.abc import AsyncIterator

import pytest

from tests.conftest import PROVIDER_KEY, Suite
from tests.support.gateway import Gateway

INSTALMENT_TOKENS = 32


@pytest.fixture(scope="session")
async def neighbour(books: Suite, gateway: Gateway) -> AsyncIterator[Gateway]:
    """A gateway beside `gateway`, over the same database and configuration; it reads an answer to its end when its client has left."""
    own = {"TALLYGATE_ON_CLIENT_LOSS": "drain", "TALLYGATE_INSTALMENT_TOKENS": str(INSTALMENT_TOKENS)}
    configured = {"TALLYGATE_CONFIG": str(books.folder / "tallygate.toml"), "SCRIPTED_KEY": PROVIDER_KEY}
    started = Gateway({**books.environment, **configured, **own}, books.folder / "neighbour.log")
    started.start()
    await started.ready()
    yield started
    assert started.terminate() == 0, started.log.read_text(errors="replace")[-4000:]
