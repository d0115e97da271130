"""A group commit answers everybody, whatever happens to its statement."""

import asyncio
from collections.abc import Sequence

import asyncpg
import pytest

from domain.serving.batches import Answer, Batch

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("error", [asyncpg.InternalClientError("the driver is confused"), RuntimeError("a bug"), ConnectionResetError()])
async def test_a_statement_that_fails_in_any_way_is_told_to_all_who_wait(error: Exception) -> None:
    """O1: a driver that gets confused when its server dies leaves nobody waiting for ever; the next items get their own try."""
    tries = 0

    async def run(_: str, __: bool) -> Sequence[Answer]:
        nonlocal tries
        tries += 1
        await asyncio.sleep(0)
        raise error

    batch = Batch(run, most=10)
    for _ in range(2):
        answers = await asyncio.gather(*(batch.submit({}) for _ in range(3)), return_exceptions=True)
        assert [type(answer) for answer in answers] == [type(error)] * 3
    assert tries >= 2
