"""What every process does every few seconds, so that nothing rests on a queue's memory."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import structlog

from domain import duties
from domain.money import grants
from domain.serving import answers, kept_answers, upstreams
from domain.tasks import end
from domain.usage import alerts, cache_misses, exports, partitions, rollups
from jobs import payments
from models.database import CONTENDED, UNREACHABLE
from models.ids import uuid7
from runtime import Runtime

HOLDS_SECONDS = 5.0
GRANTS_SECONDS = 30.0
DUTIES_SECONDS = 5.0
PRICES_SECONDS = 1.0
ALERTS_SECONDS = 2.0
PAYMENTS_SECONDS = 5.0
EXPORTS_SECONDS = 600.0
ANSWERS_SECONDS = 60.0
FOLD_SECONDS = 30.0
"""The worker folds every second; this is for an installation whose worker or queue is away."""
CLOSE_SECONDS = 1800.0
PARTITIONS_SECONDS = 6 * 3600.0
MISSES_SECONDS = 3600.0

log = structlog.get_logger()


@contextlib.asynccontextmanager
async def sweeping(runtime: Runtime) -> AsyncIterator[None]:
    """Sweep for as long as the context is open."""

    async def again(seconds: float, work: Callable[[], Awaitable[object]]) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await work()
            except (*UNREACHABLE, *CONTENDED) as error:
                log.warning("sweep put off", sweep=getattr(work, "__qualname__", "?"), error=type(error).__name__)
            except Exception as error:
                log.exception("sweep failed", sweep=getattr(work, "__qualname__", "?"), error=type(error).__name__)

    tasks = [
        asyncio.create_task(again(HOLDS_SECONDS, runtime.calls.sweep)),
        asyncio.create_task(again(GRANTS_SECONDS, grants.sweep)),
        asyncio.create_task(again(DUTIES_SECONDS, duties.sweep)),
        asyncio.create_task(again(PRICES_SECONDS, runtime.book.refresh)),
        asyncio.create_task(again(FOLD_SECONDS, rollups.fold)),
        asyncio.create_task(again(CLOSE_SECONDS, lambda: rollups.close_all(runtime.clock()))),
        asyncio.create_task(again(PARTITIONS_SECONDS, lambda: partitions.make_ahead(runtime.clock()))),
        asyncio.create_task(again(MISSES_SECONDS, cache_misses.forget)),
        asyncio.create_task(again(MISSES_SECONDS, kept_answers.forget)),
        asyncio.create_task(again(ANSWERS_SECONDS, answers.sweep)),
        asyncio.create_task(again(upstreams.SHARE_SECONDS, partial(upstreams.share, runtime.routes, uuid7()))),
        asyncio.create_task(again(ALERTS_SECONDS, alerts.look)),
        asyncio.create_task(again(PAYMENTS_SECONDS, partial(payments.sweep, runtime))),
        asyncio.create_task(again(EXPORTS_SECONDS, lambda: exports.expire(runtime.store))),
    ]
    try:
        yield
    finally:
        await end(tasks)
