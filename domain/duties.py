"""Duties: a row in the transaction of the fact that caused it, then a nudge, and a sweep for what was never nudged.

The queue carries ids only, so whatever happens to it loses nothing. A handler claims its row and does its work in one transaction, so it may
run twice, at once, or stop half-way; work outside the database carries the row's id as its idempotency key.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

import msgspec
import structlog

from domain import audit
from domain.errors import InvalidInput, InvalidState, NotFound
from models import database
from models.enums import JobStatus, Scope
from models.ids import uuid7

if TYPE_CHECKING:
    from domain.access.callers import Caller

MOST_LISTED = 100
LEASE_SECONDS = 60
MOST_TRIES = 20
SLOWEST_RETRY_SECONDS = 600

log = structlog.get_logger()


class Queue(Protocol):
    """What nudges a worker."""

    async def nudge(self, job_id: UUID, tries: int) -> None:
        """Tell a worker about a job; may be lost."""


@dataclass(frozen=True, slots=True)
class Duty:
    """A job that this worker has claimed."""

    id: UUID
    workspace_id: UUID | None
    kind: str
    payload: dict[str, Any]
    tries: int


_queue: Queue | None = None


def connect(queue: Queue | None) -> None:
    """Let this process nudge workers through `queue`; without one every duty waits for a sweep."""
    global _queue
    _queue = queue


async def owe(kind: str, payload: dict[str, Any], *, workspace_id: UUID | None, at: datetime) -> UUID:
    """Write a duty in the open transaction; a worker hears of it after the commit."""
    job_id = uuid7()
    await database.fetch(
        "INSERT INTO job (id, workspace_id, kind, payload, status, tries, next_at, created_at) VALUES ($1, $2, $3, $4, 'queued', 0, $5, $5)",
        job_id,
        workspace_id,
        kind,
        msgspec.json.encode(payload).decode(),
        at,
    )

    async def nudge() -> None:
        await _nudge(job_id, 0)

    database.after_commit(nudge)
    return job_id


async def _nudge(job_id: UUID, tries: int) -> None:
    if _queue is None:
        return
    try:
        await _queue.nudge(job_id, tries)
    except Exception as error:  # the row is the memory; a sweep will find it
        log.warning("nudge lost", job=str(job_id), error=type(error).__name__)


async def claim(job_id: UUID) -> Duty | None:
    """Take a job for LEASE_SECONDS; None when it is done, taken, or not due."""
    row = await database.fetch_row(
        """
        UPDATE job SET status = 'running', tries = tries + 1, leased_until = clock_timestamp() + make_interval(secs => $2),
               next_at = clock_timestamp() + make_interval(secs => $2)
         WHERE id = $1 AND status IN ('queued', 'running') AND (leased_until IS NULL OR leased_until <= clock_timestamp())
        RETURNING id, workspace_id, kind, payload, tries
        """,
        job_id,
        LEASE_SECONDS,
    )
    if row is None:
        return None
    return Duty(row["id"], row["workspace_id"], row["kind"], msgspec.json.decode(row["payload"]), row["tries"])


async def done(duty: Duty) -> bool:
    """Mark a job done, in the transaction of its effects; False when another worker took it over meanwhile, whose effects then count."""
    return (
        await database.fetch_row(
            "UPDATE job SET status = 'succeeded', finished_at = clock_timestamp(), leased_until = NULL WHERE id = $1 AND tries = $2 AND status = 'running' RETURNING id",
            duty.id,
            duty.tries,
        )
        is not None
    )


class TakenOver(Exception):
    """Another worker has the job now: this one's work no longer counts."""


async def extend(duty: Duty) -> None:
    """Keep a job that takes long for another LEASE_SECONDS; raises TakenOver when another worker has it."""
    row = await database.fetch_row(
        """
        UPDATE job SET leased_until = clock_timestamp() + make_interval(secs => $3), next_at = clock_timestamp() + make_interval(secs => $3)
         WHERE id = $1 AND tries = $2 AND status = 'running' RETURNING id
        """,
        duty.id,
        duty.tries,
        LEASE_SECONDS,
    )
    if row is None:
        raise TakenOver


async def again(duty: Duty, delay_seconds: int, reason: str) -> bool:
    """Put a job back that knows itself when to try again; False when another worker took it over meanwhile."""
    row = await database.fetch_row(
        """
        UPDATE job SET status = 'queued', leased_until = NULL, failure = $3, next_at = clock_timestamp() + make_interval(secs => $4)
         WHERE id = $1 AND tries = $2 AND status = 'running' RETURNING id
        """,
        duty.id,
        duty.tries,
        reason[:500],
        delay_seconds,
    )
    return row is not None


async def failed(duty: Duty, reason: str) -> None:
    """Put a job back with a growing delay, or give it up, visibly, after MOST_TRIES."""
    delay = min(2**duty.tries, SLOWEST_RETRY_SECONDS)
    await database.fetch(
        """
        UPDATE job SET status = CASE WHEN tries >= $3 THEN 'failed' ELSE 'queued' END, leased_until = NULL, failure = $4,
               next_at = clock_timestamp() + make_interval(secs => $5), finished_at = CASE WHEN tries >= $3 THEN clock_timestamp() END
         WHERE id = $1 AND tries = $2 AND status = 'running'
        """,
        duty.id,
        duty.tries,
        MOST_TRIES,
        reason[:500],
        delay,
    )


async def sweep(most: int = 100) -> Sequence[UUID]:
    """Nudge jobs that are due and that nobody seems to have, and return their ids; any process may do so at any time."""
    rows = await database.fetch(
        """
        UPDATE job j SET next_at = clock_timestamp() + interval '10 seconds'
          FROM (SELECT id FROM job WHERE status IN ('queued', 'running') AND next_at <= clock_timestamp()
                   AND (leased_until IS NULL OR leased_until <= clock_timestamp()) ORDER BY next_at LIMIT $1 FOR UPDATE SKIP LOCKED) due
         WHERE j.id = due.id RETURNING j.id, j.tries
        """,
        most,
    )
    for row in rows:
        await _nudge(row["id"], row["tries"])
    return [row["id"] for row in rows]


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as its operator sees it; what it carries is not told."""

    id: UUID
    kind: str
    status: JobStatus
    tries: int
    created_at: datetime
    finished_at: datetime | None
    failure: str | None


_COLUMNS = "id, kind, status, tries, created_at, finished_at, failure"


async def given_up(caller: "Caller", most: int) -> list[JobView]:
    """Return jobs that were given up, those last that failed first; operators only. Raises InvalidInput for `most` outside of 1 to 100."""
    caller.require(Scope.OPERATOR)
    if not 1 <= most <= MOST_LISTED:
        raise InvalidInput(f"At most {MOST_LISTED} jobs are listed.", path=("first",))
    rows = await database.fetch(f"SELECT {_COLUMNS} FROM job WHERE status = 'failed' ORDER BY finished_at DESC, id DESC LIMIT $1", most)
    return [_view(row) for row in rows]


async def retry(caller: "Caller", job_id: UUID) -> JobView:
    """Queue a job again that was given up, with all its tries before it; operators only. Raises NotFound, InvalidState."""
    caller.require(Scope.OPERATOR)
    async with database.transaction():
        row = await database.fetch_row(
            f"""
            UPDATE job SET status = 'queued', tries = 0, next_at = $2, leased_until = NULL, finished_at = NULL, failure = NULL
             WHERE id = $1 AND status = 'failed' RETURNING workspace_id, {_COLUMNS}
            """,
            job_id,
            caller.at,
        )
        if row is None:
            status = await database.fetch_value("SELECT status FROM job WHERE id = $1", job_id)
            if status is None:
                raise NotFound("job", path=("jobId",))
            raise InvalidState("Only a job that was given up can be queued again.", state=status, path=("jobId",))
        await audit.note(
            caller.actor,
            "job.retry",
            None,
            {"jobId": (None, str(job_id)), "function": (None, row["kind"]), "status": ("failed", "queued")},
            workspace_id=row["workspace_id"] or audit.SERVICE,
            at=caller.at,
        )

        async def nudge() -> None:
            await _nudge(job_id, 0)

        database.after_commit(nudge)
    return _view(row)


def _view(row: Any) -> JobView:
    return JobView(row["id"], row["kind"], JobStatus(row["status"]), row["tries"], row["created_at"], row["finished_at"], row["failure"])
