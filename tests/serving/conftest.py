"""The books of the tests that turn the clock, or that Hypothesis runs; as in tests/money."""

from collections.abc import Iterator

import pytest

from tests.money.own_books import OwnBooks
from tests.support.servers import Servers


@pytest.fixture(scope="module")
def own(servers: Servers, template: str, request: pytest.FixtureRequest) -> Iterator[OwnBooks]:
    """A database of this module's own; see `tests.money.own_books`."""
    with OwnBooks(servers, template, "own_" + request.module.__name__.rpartition(".")[2]) as books:
        yield books
