"""Deployments: immutable versions of an app's files. Publishing one ends in a single pointer that moves; going back is the same pointer."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from domain import audit, duties, idempotency
from domain.access.callers import Actor, Caller
from domain.apps import archives, blobs, content_types, plans, sites
from domain.apps.blobs import Store
from domain.errors import InvalidInput, InvalidState, NotFound, OutOfRange
from domain.pages import Page, PageOf, cut, newest_first
from models import database
from models.enums import ActorKind, JobStatus, Scope
from models.ids import uuid7

PUBLISH = "app.publish"
"""The kind of the duty that publishes a deployment."""
UPLOAD_SECONDS = 3600
LONGEST_MESSAGE = 500
ABANDONED_HOURS = 24
FINAL = (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_MEDIA_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]{1,60}/[a-z0-9!#$&^_.+-]{1,60}", re.ASCII)


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file to deploy; its media type is that of its name for None."""

    path: str
    bytes: int
    sha256: str
    content_type: str | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a deployment's log; `level` is `info`, `warning` or `error`."""

    at: datetime
    level: str
    message: str


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a deployment failed."""

    code: str
    message: str
    retryable: bool


@dataclass(frozen=True, slots=True)
class DeploymentView:
    """A version of an app's files."""

    id: UUID
    workspace_id: UUID
    app_id: UUID
    slug: str
    version: int
    message: str | None
    status: JobStatus
    live: bool
    file_count: int
    total_bytes: int
    progress: float | None
    log: tuple[Line, ...]
    creator: Actor
    created_at: datetime
    finished_at: datetime | None
    failure: Failure | None


@dataclass(frozen=True, slots=True)
class FileView:
    """A file of a deployment; `position` is its place in the order of paths."""

    position: int
    path: str
    content_type: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Upload:
    """Content that the store lacks: where it is to be sent, and under which path it was first named."""

    path: str
    sha256: str
    bytes: int
    key: str


_COLUMNS = """d.id, d.workspace_id, d.app_id, a.slug, d.version, d.message, d.status, a.live_deployment_id = d.id AS live, d.file_count, d.total_bytes,
    d.done_bytes, d.log, d.creator_kind, d.creator_id, d.creator_name, d.created_at, d.finished_at, d.failure_code, d.failure_message, d.failure_retryable"""
_FROM = "FROM deployment d JOIN app a ON a.workspace_id = d.workspace_id AND a.id = d.app_id AND a.deleted_at IS NULL"


def _view(row: asyncpg.Record) -> DeploymentView:
    status = JobStatus(row["status"])
    return DeploymentView(
        id=row["id"],
        workspace_id=row["workspace_id"],
        app_id=row["app_id"],
        slug=row["slug"],
        version=row["version"],
        message=row["message"],
        status=status,
        live=bool(row["live"]),
        file_count=row["file_count"],
        total_bytes=row["total_bytes"],
        progress=_progress(status, row["done_bytes"], row["total_bytes"]),
        log=tuple(msgspec.json.decode(row["log"], type=list[Line])),
        creator=Actor(ActorKind(row["creator_kind"]), row["creator_id"], row["creator_name"]),
        created_at=row["created_at"],
        finished_at=row["finished_at"],
        failure=Failure(row["failure_code"], row["failure_message"] or "", row["failure_retryable"]) if row["failure_code"] else None,
    )


def _progress(status: JobStatus, done: int, total: int) -> float | None:
    if status is JobStatus.SUCCEEDED:
        return 1.0
    if status is JobStatus.AWAITING_UPLOAD:
        return None
    return 0.0 if total == 0 else min(1.0, round(done / total, 4))


async def find(caller: Caller, deployment_id: UUID) -> DeploymentView:
    """Return a deployment of the workspace's apps, to whoever may read or change them; raises NotFound for another's too."""
    workspace_id = caller.require(Scope.APPS_WRITE if Scope.APPS_WRITE in caller.scopes else Scope.APPS_READ)
    row = await database.fetch_row(f"SELECT {_COLUMNS} {_FROM} WHERE d.workspace_id = $1 AND d.id = $2", workspace_id, deployment_id)
    if row is None:
        raise NotFound("deployment", path=("id",))
    return _view(row)


async def live_of(caller: Caller, app_ids: Sequence[UUID]) -> dict[UUID, DeploymentView]:
    """Return the live deployments of these apps, by app."""
    rows = await database.fetch(
        f"SELECT {_COLUMNS} {_FROM} WHERE d.workspace_id = $1 AND a.id = ANY ($2) AND a.live_deployment_id = d.id", caller.require(Scope.APPS_READ), list(app_ids)
    )
    return {row["app_id"]: _view(row) for row in rows}


async def page(caller: Caller, app_id: UUID, wanted: Page) -> PageOf[DeploymentView]:
    """Return a page of an app's deployments, newest first."""
    keyset = newest_first(wanted, column="d.id", offset=2)
    rows = await database.fetch(
        f"SELECT {_COLUMNS} {_FROM} WHERE d.workspace_id = $1 AND d.app_id = $2 {keyset.where} {keyset.order}",
        caller.require(Scope.APPS_READ),
        app_id,
        *keyset.arguments,
    )
    return cut([_view(row) for row in rows], wanted)


async def count(caller: Caller, app_id: UUID) -> int:
    """Return how many deployments an app has."""
    return int(
        await database.fetch_value("SELECT count(*) FROM deployment WHERE workspace_id = $1 AND app_id = $2", caller.require(Scope.APPS_READ), app_id)
    )


async def files(caller: Caller, deployment_id: UUID, wanted: Page) -> PageOf[FileView]:
    """Return a page of a deployment's files, by path; a cursor is the position as a UUID."""
    clauses, arguments = "", [caller.require(Scope.APPS_READ), deployment_id]
    for bound, past in ((wanted.after, ">"), (wanted.before, "<")):
        if bound is not None:
            arguments.append(bound)
            clauses += f" AND position {past} ${len(arguments)}"
    way = "DESC" if wanted.backwards else "ASC"
    rows = await database.fetch(
        f"""
        SELECT position, path, content_type, bytes, sha256 FROM deployed_file WHERE workspace_id = $1 AND deployment_id = $2 {clauses}
         ORDER BY position {way} LIMIT {wanted.size + 1}
        """,
        *arguments[:2],
        *(min(bound.int, 2**31 - 1) for bound in arguments[2:]),
    )
    return cut([FileView(**row) for row in rows], wanted)


async def create(
    caller: Caller, app_id: UUID, given: Sequence[NewFile], message: str | None = None, idempotency_key: str | None = None
) -> tuple[DeploymentView, list[Upload]]:
    """Begin a deployment, and return it with the content that the store lacks, each once.

    Files that are what is live already begin nothing: the live deployment is returned, and there is nothing to send. Raises NotFound for
    the app, InvalidInput and its kin naming the file at fault, IdempotencyConflict, QuotaReached when the plan allows no more sites.
    """
    workspace_id = caller.require(Scope.APPS_WRITE)
    if message is not None and len(message) > LONGEST_MESSAGE:
        raise OutOfRange(f"A message has at most {LONGEST_MESSAGE} characters.", minimum=0, maximum=LONGEST_MESSAGE, too_large=True, path=("message",))
    wanted = _checked(given)
    digest = _digest(wanted)
    deployment_id = uuid7()
    async with database.transaction():
        app = await database.fetch_row(
            """
            SELECT a.last_version, d.id AS live, d.digest FROM app a
              LEFT JOIN deployment d ON d.workspace_id = a.workspace_id AND d.id = a.live_deployment_id
             WHERE a.workspace_id = $1 AND a.id = $2 AND a.deleted_at IS NULL FOR NO KEY UPDATE OF a
            """,
            workspace_id,
            app_id,
        )
        if app is None:
            raise NotFound("app", path=("appId",))
        if idempotency_key is not None:
            first = await idempotency.claim(workspace_id, "deploymentCreate", idempotency_key, [str(app_id), digest, message], deployment_id)
            if first is not None:
                return await _with_uploads(caller, first)
        if app["digest"] == digest:
            return await find(caller, app["live"]), []
        await plans.make_room_for_site(workspace_id, app_id, at=caller.at)
        version = app["last_version"] + 1
        await database.fetch("UPDATE app SET last_version = $3 WHERE workspace_id = $1 AND id = $2", workspace_id, app_id, version)
        total = sum(file.bytes for file in wanted)
        await database.fetch(
            """
            INSERT INTO deployment (workspace_id, id, app_id, version, message, status, digest, file_count, total_bytes, done_bytes, log, creator_kind,
                                    creator_id, creator_name, created_at, failure_retryable, staged)
            VALUES ($1, $2, $3, $4, $5, 'awaiting_upload', $6, $7, $8, 0, $9, $10, $11, $12, $13, false, true)
            """,
            workspace_id,
            deployment_id,
            app_id,
            version,
            message or None,
            digest,
            len(wanted),
            total,
            _lines(Line(caller.at, "info", f"Version {version}: {len(wanted)} files, {total} bytes.")),
            caller.actor.kind.value,
            caller.actor.id,
            caller.actor.name[:200],
            caller.at,
        )
        await database.fetch(
            """
            INSERT INTO deployed_file (workspace_id, deployment_id, position, path, content_type, bytes, sha256)
            SELECT $1, $2, position, path, content_type, bytes, sha256
              FROM unnest($3::int[], $4::text[], $5::text[], $6::bigint[], $7::text[]) AS f (position, path, content_type, bytes, sha256)
            """,
            workspace_id,
            deployment_id,
            list(range(len(wanted))),
            [file.path for file in wanted],
            [file.content_type for file in wanted],
            [file.bytes for file in wanted],
            [file.sha256 for file in wanted],
        )
        told = {"appId": (None, app_id), "version": (None, version)}
        await audit.note(caller.actor, "deployment.create", ("Deployment", deployment_id), told, workspace_id=workspace_id, at=caller.at)
    return await _with_uploads(caller, deployment_id)


async def _with_uploads(caller: Caller, deployment_id: UUID) -> tuple[DeploymentView, list[Upload]]:
    found = await find(caller, deployment_id)
    return found, await missing(found) if found.status is JobStatus.AWAITING_UPLOAD else []


async def missing(of: DeploymentView) -> list[Upload]:
    """Return the content of a deployment that the store does not hold whole, each once."""
    rows = await database.fetch(
        "SELECT DISTINCT ON (sha256) path, sha256, bytes FROM deployed_file WHERE workspace_id = $1 AND deployment_id = $2 ORDER BY sha256, position",
        of.workspace_id,
        of.id,
    )
    held = await blobs.held(of.workspace_id, of.app_id, [row["sha256"] for row in rows])
    return [
        Upload(row["path"], row["sha256"], row["bytes"], blobs.staging_key(of.id, row["sha256"])) for row in rows if row["sha256"] not in held
    ]


async def finalize(caller: Caller, deployment_id: UUID, store: Store) -> DeploymentView:
    """Queue a deployment whose content has all been sent; doing it again changes nothing.

    Raises NotFound, QuotaReached when the plan allows no more sites, and InvalidState when content is missing, when the deployment was
    stopped or has failed, and while another one of the app is on its way.
    """
    workspace_id = caller.require(Scope.APPS_WRITE)
    found = await find(caller, deployment_id)
    if found.status is JobStatus.AWAITING_UPLOAD:
        for upload in await missing(found):
            if await store.size(upload.key) != upload.bytes:
                raise InvalidState(f"The content of {upload.path!r} has not been sent whole.", state=found.status.value, path=("id",))
    try:
        async with database.transaction():
            row = await database.fetch_row(
                "UPDATE deployment SET status = 'queued' WHERE workspace_id = $1 AND id = $2 AND status = 'awaiting_upload' RETURNING id", workspace_id, deployment_id
            )
            if row is not None:
                await plans.make_room_for_site(workspace_id, found.app_id, at=caller.at)
                job_id = await duties.owe(PUBLISH, {"deployment_id": str(deployment_id)}, workspace_id=workspace_id, at=caller.at)
                await database.fetch("UPDATE deployment SET job_id = $3 WHERE workspace_id = $1 AND id = $2", workspace_id, deployment_id, job_id)
                await audit.note(caller.actor, "deployment.finalize", ("Deployment", deployment_id), None, workspace_id=workspace_id, at=caller.at)
    except asyncpg.UniqueViolationError:
        raise InvalidState("Another version of this app is being deployed: wait for it, or cancel it.", state=found.status.value, path=("id",)) from None
    found = await find(caller, deployment_id)
    if found.status in (JobStatus.FAILED, JobStatus.CANCELLED):
        raise InvalidState(f"This deployment is {found.status.value}: begin another.", state=found.status.value, path=("id",))
    return found


async def cancel(caller: Caller, deployment_id: UUID) -> DeploymentView:
    """Stop a deployment that has not finished; it will never go live. Raises NotFound, and InvalidState for one that has finished."""
    workspace_id = caller.require(Scope.APPS_WRITE)
    async with database.transaction():
        row = await database.fetch_row(
            """
            UPDATE deployment SET status = 'cancelled', finished_at = clock_timestamp(), log = log || $3::jsonb
             WHERE workspace_id = $1 AND id = $2 AND status IN ('awaiting_upload', 'queued', 'running') RETURNING id
            """,
            workspace_id,
            deployment_id,
            _lines(Line(caller.at, "info", "Cancelled.")),
        )
        if row is not None:
            await audit.note(caller.actor, "deployment.cancel", ("Deployment", deployment_id), None, workspace_id=workspace_id, at=caller.at)
    found = await find(caller, deployment_id)
    if found.status is not JobStatus.CANCELLED:
        raise InvalidState("This deployment has finished.", state=found.status.value, path=("id",))
    return found


async def rollback(caller: Caller, deployment_id: UUID) -> DeploymentView:
    """Make an earlier deployment live again: one pointer moves. Raises NotFound, and InvalidState for one that never succeeded."""
    workspace_id = caller.require(Scope.APPS_WRITE)
    found = await find(caller, deployment_id)
    if found.status is not JobStatus.SUCCEEDED:
        raise InvalidState("Only a deployment that has succeeded can be made live.", state=found.status.value, path=("id",))
    async with database.transaction():
        moved = await database.fetch_row(
            "UPDATE app SET live_deployment_id = $3 WHERE workspace_id = $1 AND id = $2 AND deleted_at IS NULL RETURNING id",
            workspace_id,
            found.app_id,
            deployment_id,
        )
        if moved is None:
            raise NotFound("deployment", path=("id",))
        database.after_commit(sites.moved)
        await database.fetch(
            "UPDATE deployment SET log = log || $3::jsonb WHERE workspace_id = $1 AND id = $2",
            workspace_id,
            deployment_id,
            _lines(Line(caller.at, "info", f"Made live again by {caller.actor.name}.")),
        )
        told = {"appId": (None, found.app_id), "version": (None, found.version)}
        await audit.note(caller.actor, "deployment.rollback", ("Deployment", deployment_id), told, workspace_id=workspace_id, at=caller.at)
    return await find(caller, deployment_id)


async def tidy(store: Store) -> None:
    """End deployments that nobody goes on with, and take away what was sent for those that have ended; safe to repeat at any time."""
    await database.fetch(
        """
        UPDATE deployment d SET status = 'failed', finished_at = clock_timestamp(), failure_retryable = true,
               failure_code = CASE WHEN d.status = 'awaiting_upload' THEN 'abandoned' ELSE 'given_up' END,
               failure_message = CASE WHEN d.status = 'awaiting_upload' THEN 'Its files were never all sent.' ELSE 'Its job was given up.' END
         WHERE (d.status = 'awaiting_upload' AND d.created_at < clock_timestamp() - $1::interval)
            OR (d.status IN ('queued', 'running') AND EXISTS (SELECT FROM job j WHERE j.id = d.job_id AND j.status = 'failed'))
        """,
        timedelta(hours=ABANDONED_HOURS),
    )
    rows = await database.fetch(
        """
        SELECT d.workspace_id, d.id, array_agg(DISTINCT f.sha256) AS digests FROM deployment d
          JOIN deployed_file f ON f.workspace_id = d.workspace_id AND f.deployment_id = d.id
         WHERE d.staged AND d.finished_at < clock_timestamp() - $1::interval GROUP BY 1, 2 LIMIT 50
        """,
        timedelta(seconds=UPLOAD_SECONDS),
    )
    for row in rows:
        await store.delete([blobs.staging_key(row["id"], digest) for digest in row["digests"]])
        await database.fetch("UPDATE deployment SET staged = false WHERE workspace_id = $1 AND id = $2", row["workspace_id"], row["id"])


def _lines(*lines: Line) -> str:
    return msgspec.json.encode([{"at": line.at, "level": line.level, "message": line.message[:1000]} for line in lines]).decode()


def _checked(given: Sequence[NewFile]) -> list[NewFile]:
    """Return the files by path, with media types; raises InvalidInput or OutOfRange for the first at fault."""
    if not given:
        raise InvalidInput("A deployment has at least one file.", path=("files",))
    if len(given) > archives.MOST_FILES:
        raise OutOfRange(f"An app has at most {archives.MOST_FILES} files.", minimum=1, maximum=archives.MOST_FILES, too_large=True, path=("files",))
    names, checked, total = archives.Names(), [], 0
    for place, file in enumerate(given):
        here = ("files", str(place))
        try:
            path = names.add(file.path)
        except archives.Refused as refusal:
            raise InvalidInput(str(refusal), path=(*here, "path")) from None
        if not _SHA256.fullmatch(file.sha256):
            raise InvalidInput(f"{path!r}: a digest is SHA-256, 64 hexadecimal digits in lower case.", path=(*here, "sha256"))
        total += file.bytes
        if not 0 <= file.bytes <= archives.LARGEST_FILE_BYTES or total > archives.LARGEST_TOTAL_BYTES:
            raise OutOfRange(
                f"{path!r}: a file has at most {archives.LARGEST_FILE_BYTES} bytes, and all have {archives.LARGEST_TOTAL_BYTES} together.",
                minimum=0,
                maximum=archives.LARGEST_FILE_BYTES,
                too_large=file.bytes > 0,
                path=(*here, "bytes"),
            )
        media_type = content_types.of_path(path) if file.content_type is None else file.content_type.split(";")[0].strip().lower()
        if not _MEDIA_TYPE.fullmatch(media_type):
            raise InvalidInput(f"{path!r}: a media type is like text/css.", path=(*here, "contentType"))
        checked.append(NewFile(path, file.bytes, file.sha256, media_type))
    sizes: dict[str, int] = {}
    for file in checked:
        if sizes.setdefault(file.sha256, file.bytes) != file.bytes:
            raise InvalidInput(f"{file.path!r}: one digest cannot have two sizes.", path=("files",))
    return sorted(checked, key=lambda file: file.path)


def _digest(files_: Sequence[NewFile]) -> str:
    entries: list[Any] = [[file.path, file.content_type, file.sha256] for file in files_]
    return hashlib.sha256(msgspec.json.encode(entries)).hexdigest()
