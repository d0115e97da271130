"""The worker: takes ids from the queue, claims their rows, and does what they owe; alone, or as a guest of the server's process."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC
from typing import Any
from uuid import UUID

import structlog
from arq import cron, func
from arq.worker import Worker

from clients.queue import FUNCTION, MARK_SECONDS, QUEUE_NAME, decode, encode, worker_connections
from domain import duties
from domain.access.members import INVITATION_MAIL
from domain.apps import deployments
from domain.duties import Duty
from domain.money import autotopup, reconciliations
from domain.money.events import STRIPE_EVENT
from domain.money.payments import AUTO_TOP_UP_FAILED
from domain.serving import reratings
from domain.tasks import end
from domain.usage import alerts, exports, notices
from domain.webhooks import DELIVERY
from jobs import books, deploys, mail, payments, rollups, webhooks
from jobs import exports as export_jobs
from jobs import reconciliations as reconciliation_jobs
from jobs import reratings as rerating_jobs
from runtime import Runtime

HANDLERS: Mapping[str, Callable[[Runtime, Duty], Awaitable[None]]] = {
    INVITATION_MAIL: mail.invitation,
    deployments.PUBLISH: deploys.publish,
    alerts.MAIL: mail.alert,
    DELIVERY: webhooks.deliver,
    STRIPE_EVENT: payments.stripe_event,
    exports.DUTY: export_jobs.make,
    autotopup.DUE: payments.auto_top_up,
    AUTO_TOP_UP_FAILED: mail.auto_top_up_failed,
    notices.LOW_BALANCE: mail.low_balance,
    notices.BUDGET_REACHED: mail.budget_reached,
    notices.MAIL: mail.notice,
    reconciliations.DUTY: reconciliation_jobs.compare,
    reratings.PREVIEW: rerating_jobs.preview,
    reratings.APPLY: rerating_jobs.post,
}
JOB_SECONDS = 50
BOOKS_SECONDS = 1800
CLOSE_SECONDS = 3000
COMPARE_SECONDS = 3600
LONG_JOBS: Mapping[str, int] = {exports.DUTY: 3 * 3600, reratings.PREVIEW: 3 * 3600, reratings.APPLY: 3 * 3600, reconciliations.DUTY: 3600}
"""Kinds of jobs that take longer, and extend their lease while they work."""
RESTART_SECONDS = 1.0
SHUTDOWN_SECONDS = 10.0

log = structlog.get_logger()


async def run(ctx: dict[str, Any], job_id: str) -> None:
    """Do one job: claim it, hand it to its handler, and put it back when that fails."""
    runtime: Runtime = ctx["runtime"]
    duty = await duties.claim(UUID(job_id))
    if duty is None:
        return
    if duty.tries > duties.MOST_TRIES:
        await duties.failed(duty, "given up: its workers ended over it without a word")
        return
    handler = HANDLERS.get(duty.kind)
    if handler is None:
        await duties.failed(duty, f"no handler for {duty.kind}: a newer version wrote this job")
        return
    try:
        async with asyncio.timeout(LONG_JOBS.get(duty.kind, JOB_SECONDS)):
            await handler(runtime, duty)
    except Exception as error:
        log.warning("job failed", job=job_id, kind=duty.kind, tries=duty.tries, error=type(error).__name__)
        told = next(iter(str(error).splitlines()), "")  # on the lines after it, Postgres tells values of the row
        await duties.failed(duty, f"{type(error).__name__}: {told}")


async def nudge(ctx: dict[str, Any]) -> None:
    """Nudge for what the database itself has owed: a settlement's duties are rows that no process has heard of."""
    await duties.sweep()


def build(runtime: Runtime, redis_url: str) -> Worker:
    """Return a worker in the running event loop; its owner handles signals."""
    worker = Worker(
        functions=[func(run, name=FUNCTION, keep_result=0, timeout=max(LONG_JOBS.values()) + JOB_SECONDS, max_tries=1_000)],
        cron_jobs=[
            cron(deploys.tidy_apps, name="tidy apps", minute=set(range(0, 60, 5)), second={40}, keep_result=0, timeout=JOB_SECONDS),
            cron(nudge, name="nudge", second=set(range(60)), keep_result=0, timeout=JOB_SECONDS),
            cron(rollups.fold_usage, name="fold", second=set(range(60)), keep_result=0, timeout=JOB_SECONDS),
            cron(rollups.close_usage, name="close", minute={11}, second={0}, keep_result=0, timeout=CLOSE_SECONDS),
            cron(rollups.make_partitions, name="partitions", minute={23}, second={0}, keep_result=0, timeout=JOB_SECONDS),
            cron(rollups.retire_calls, name="retire", hour={2}, minute={41}, second={0}, keep_result=0, timeout=COMPARE_SECONDS),
            cron(books.check_books, name="books", hour={3}, minute={37}, second={0}, keep_result=0, timeout=BOOKS_SECONDS),
            cron(rollups.compare_usage, name="compare", hour={3}, minute={17}, second={0}, keep_result=0, timeout=COMPARE_SECONDS),
        ],
        queue_name=QUEUE_NAME,
        redis_pool=worker_connections(redis_url),
        handle_signals=False,
        poll_delay=0.1,
        max_jobs=20,
        timezone=UTC,
        health_check_interval=10,
        job_serializer=encode,
        job_deserializer=decode,
        keep_result=0,  # a kept result makes arq ignore the next nudge for the same job, also where nothing was done because its definition was lost
        ctx={"runtime": runtime},
        log_results=False,
    )
    assert worker.in_progress_timeout_s <= MARK_SECONDS, "a job's mark lives as long as the job"
    worker.in_progress_timeout_s = MARK_SECONDS  # so that its age can be told
    return worker


@contextlib.asynccontextmanager
async def working(runtime: Runtime) -> AsyncIterator[None]:
    """Work for as long as the context is open; a worker whose queue goes away is built anew until it is back."""
    stop = asyncio.Event()
    task = asyncio.create_task(_supervise(runtime, stop))
    try:
        yield
    finally:
        stop.set()
        await task


async def _supervise(runtime: Runtime, stop: asyncio.Event) -> None:
    url = runtime.settings.redis_url.get_secret_value()
    while not stop.is_set():
        worker = build(runtime, url)
        running = asyncio.ensure_future(worker.async_run())
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not stop.is_set():
            error = None if running.cancelled() else running.exception()
            log.warning("worker lost its queue", error=type(error).__name__)
        worker.allow_pick_jobs = False
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(_finish(worker, running), SHUTDOWN_SECONDS)
        await end([running])
        with contextlib.suppress(Exception, asyncio.CancelledError):  # what is left to close may be gone already, or say nothing
            await asyncio.wait_for(worker.close(), SHUTDOWN_SECONDS)
        if not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), RESTART_SECONDS)


async def _finish(worker: Worker, running: asyncio.Future[None]) -> None:
    """Wait for the jobs under way; a worker that has ended looks at none of its tasks any more, and would be waited for in vain."""
    while not running.done() and worker.tasks:
        await asyncio.sleep(0.1)
    await asyncio.gather(*worker.tasks.values(), return_exceptions=True)
    worker.tasks.clear()
