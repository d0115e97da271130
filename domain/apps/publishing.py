"""Publishing a deployment: prove what was sent, compress it, keep it, and move one pointer at the very end. It may stop anywhere and be done again."""

import asyncio
import hashlib
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import msgspec

from domain import duties
from domain.apps import blobs, content_types, sites
from domain.apps.blobs import Compressor, Store
from domain.duties import Duty
from domain.errors import Unavailable
from models import database

SLICE_SECONDS = 30.0
"""How long one turn of the worker goes on; what is left is a duty of its own, so that nothing is cut off in the middle."""
MOST_TRIES = 4
"""How often a store that is away is tried before the deployment fails: about half a minute."""


@dataclass(frozen=True, slots=True)
class _Content:
    sha256: str
    path: str
    bytes: int
    media_types: tuple[str, ...]


class _Spoilt(Exception):
    """What was sent is not what was announced."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


async def publish(duty: Duty, store: Store, compressor: Compressor) -> None:
    """Publish the deployment of a duty, or a part of it that fits into one turn.

    Raises Unavailable when the store is away, to be tried again, until MOST_TRIES; whatever ends badly changes nothing that is served.
    """
    assert duty.workspace_id is not None
    deployment_id = UUID(duty.payload["deployment_id"])
    row = await database.fetch_row(
        """
        UPDATE deployment SET status = 'running' WHERE id = $1 AND status IN ('queued', 'running') RETURNING workspace_id, app_id, version
        """,
        deployment_id,
    )
    if row is None:
        await duties.done(duty)
        return
    workspace_id: UUID = row["workspace_id"]  # the app may have been given away since the duty was written
    app_id: UUID = row["app_id"]
    try:
        whole = await _keep_content(duty, workspace_id, app_id, deployment_id, store, compressor)
    except _Spoilt as fault:
        await _fail(duty, workspace_id, deployment_id, fault.code, str(fault), retryable=False)
        return
    except Unavailable as refusal:
        if duty.tries < MOST_TRIES:
            await _tell(workspace_id, deployment_id, "warning", f"{refusal.message} Trying again.")
            raise
        await _fail(duty, workspace_id, deployment_id, "store_unavailable", refusal.message, retryable=True)
        return
    if whole:
        await _go_live(duty, workspace_id, app_id, deployment_id, row["version"])


async def _keep_content(duty: Duty, workspace_id: UUID, app_id: UUID, deployment_id: UUID, store: Store, compressor: Compressor) -> bool:
    """Keep all content; False when the turn was over before, or the deployment was stopped."""
    rows = await database.fetch(
        """
        SELECT sha256, min(path) AS path, min(bytes) AS bytes, array_agg(DISTINCT content_type) AS media_types, count(*) AS files
          FROM deployed_file WHERE workspace_id = $1 AND deployment_id = $2 GROUP BY sha256 ORDER BY min(path)
        """,
        workspace_id,
        deployment_id,
    )
    held = await blobs.held(workspace_id, app_id, [row["sha256"] for row in rows])
    done = sum(row["bytes"] * row["files"] for row in rows if row["sha256"] in held)
    until = time.monotonic() + SLICE_SECONDS
    for row in rows:
        if row["sha256"] in held:
            continue
        if time.monotonic() > until:
            await _go_on_later(duty, workspace_id, deployment_id)
            return False
        content = _Content(row["sha256"], row["path"], row["bytes"], tuple(row["media_types"]))
        await _keep(workspace_id, app_id, deployment_id, content, store, compressor)
        done += row["bytes"] * row["files"]
        going = await database.fetch_row(
            "UPDATE deployment SET done_bytes = $3 WHERE workspace_id = $1 AND id = $2 AND status = 'running' RETURNING id", workspace_id, deployment_id, done
        )
        if going is None:  # cancelled
            await duties.done(duty)
            return False
    return True


async def _keep(workspace_id: UUID, app_id: UUID, deployment_id: UUID, wanted: _Content, store: Store, compressor: Compressor) -> None:
    content = await store.get(blobs.staging_key(deployment_id, wanted.sha256))
    if content is None:
        raise _Spoilt("content_missing", f"The content of {wanted.path!r} was not sent.")
    if len(content) != wanted.bytes or await asyncio.to_thread(_sha256, content) != wanted.sha256:
        raise _Spoilt("content_differs", f"The content of {wanted.path!r} is not what was announced.")
    smaller: tuple[bytes | None, bytes | None] = (None, None)
    if any(content_types.shrinks(media_type) for media_type in wanted.media_types):
        smaller = await asyncio.to_thread(compressor.smaller, content)
    await blobs.keep(store, workspace_id, app_id, wanted.sha256, content, smaller)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


async def _go_on_later(duty: Duty, workspace_id: UUID, deployment_id: UUID) -> None:
    async with database.transaction():
        if await duties.done(duty):
            job_id = await duties.owe(duty.kind, duty.payload, workspace_id=workspace_id, at=datetime.now(UTC))
            await database.fetch("UPDATE deployment SET job_id = $3 WHERE workspace_id = $1 AND id = $2", workspace_id, deployment_id, job_id)


async def _go_live(duty: Duty, workspace_id: UUID, app_id: UUID, deployment_id: UUID, version: int) -> None:
    """Move the pointer, with the end of the duty and of the deployment in one transaction."""
    async with database.transaction():
        if not await duties.done(duty):
            return  # another worker has taken over, and what it does counts
        await database.fetch(
            """
            UPDATE deployed_file f SET blob_id = b.id FROM blob b
             WHERE f.workspace_id = $1 AND f.deployment_id = $2 AND b.workspace_id = f.workspace_id AND b.app_id = $3 AND b.sha256 = f.sha256
               AND b.collected_at IS NULL AND b.stored_at IS NOT NULL
            """,
            workspace_id,
            deployment_id,
            app_id,
        )
        lacking = await database.fetch_value(
            "SELECT path FROM deployed_file WHERE workspace_id = $1 AND deployment_id = $2 AND blob_id IS NULL LIMIT 1", workspace_id, deployment_id
        )
        assert lacking is None, "content that a deployment under way needs is never collected"
        ended = await database.fetch_row(
            """
            UPDATE deployment SET status = 'succeeded', finished_at = clock_timestamp(), done_bytes = total_bytes, log = log || $3::jsonb
             WHERE workspace_id = $1 AND id = $2 AND status = 'running' RETURNING id
            """,
            workspace_id,
            deployment_id,
            _line("info", f"Version {version} is live."),
        )
        if ended is not None:
            await database.fetch(
                "UPDATE app SET live_deployment_id = $3 WHERE workspace_id = $1 AND id = $2 AND deleted_at IS NULL", workspace_id, app_id, deployment_id
            )
            database.after_commit(sites.moved)


async def _fail(duty: Duty, workspace_id: UUID, deployment_id: UUID, code: str, message: str, *, retryable: bool) -> None:
    async with database.transaction():
        if await duties.done(duty):
            await database.fetch(
                """
                UPDATE deployment SET status = 'failed', finished_at = clock_timestamp(), failure_code = $3, failure_message = $4, failure_retryable = $5,
                       log = log || $6::jsonb
                 WHERE workspace_id = $1 AND id = $2 AND status = 'running'
                """,
                workspace_id,
                deployment_id,
                code,
                message[:1000],
                retryable,
                _line("error", message),
            )


async def _tell(workspace_id: UUID, deployment_id: UUID, level: str, message: str) -> None:
    await database.fetch(
        "UPDATE deployment SET log = log || $3::jsonb WHERE workspace_id = $1 AND id = $2", workspace_id, deployment_id, _line(level, message)
    )


def _line(level: str, message: str) -> str:
    return msgspec.json.encode([{"at": datetime.now(UTC), "level": level, "message": message[:1000]}]).decode()


