"""A worker as a process of its own."""

import asyncio
import signal

from jobs.sweeps import sweeping
from jobs.worker import working
from runtime import open_runtime
from settings import Settings


async def work(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT; jobs under way are let finish."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with open_runtime(settings, serving=False) as runtime, sweeping(runtime), working(runtime):
        await stop.wait()
