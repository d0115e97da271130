"""Tasks are ended for certain, whatever becomes of the first cancellation."""

import asyncio

import pytest

from domain.tasks import end

pytestmark = pytest.mark.anyio


async def test_a_task_that_loses_a_cancellation_ends_all_the_same() -> None:
    """As one does under `asyncio.wait_for` before Python 3.12: it goes on in its loop, and is cancelled again; one that is over, or that raises, harms nobody."""
    lost = 0

    async def losing() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                if lost:
                    raise
                lost += 1

    async def failing() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            raise KeyError

    async def over() -> None:
        """Nothing is left of it."""

    tasks = [asyncio.create_task(work()) for work in (losing, failing, over)]
    await asyncio.sleep(0)
    await end(tasks)
    assert [task.done() for task in tasks] == [True] * 3
    assert (tasks[0].cancelled(), lost) == (True, 1)
    await end([])
