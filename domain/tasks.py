"""Ending tasks for certain."""

import asyncio
from collections.abc import Iterable

AGAIN_SECONDS = 1.0


async def end(tasks: Iterable[asyncio.Future[None]]) -> None:
    """Cancel tasks, and return when every one has ended, however; what they raise is told to nobody.

    A cancellation may be lost: before Python 3.12 `asyncio.wait_for` answers one with its result, when that came in the same moment (bpo-37658), and
    clients of ours wait with it. A task that goes round in a loop would then go on for ever, and so would who waits for it.
    """
    waiting = set(tasks)
    while waiting:
        for task in waiting:
            task.cancel()
        ended, waiting = await asyncio.wait(waiting, timeout=AGAIN_SECONDS)
        for task in ended:
            if not task.cancelled():
                task.exception()
