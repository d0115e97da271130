"""The end of patience: what reads more than a statement has time for is refused, in words."""

import contextlib
from collections.abc import Iterator

import asyncpg

from domain.errors import InvalidInput


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Raise InvalidInput (path `range`) in place of the end that the server puts to a statement after its time, 30 seconds."""
    try:
        yield
    except asyncpg.QueryCanceledError:
        raise InvalidInput("This reads more single calls than there is time for: ask for a narrower window, or for fewer of them.", path=("range",)) from None
