"""Exports: a report or a list as a file, made in the background with the rights of whoever asked, and kept for a week behind a signed link."""

import hashlib
import hmac
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Protocol
from uuid import UUID

import asyncpg
import msgspec

from domain import audit, duties, idempotency
from domain.access.callers import Actor, Caller
from domain.audit import AuditFilter
from domain.duties import Duty
from domain.errors import InvalidInput, NotFound, Refusal
from domain.money import ledger
from domain.money.ledger import StatementFilter
from domain.pages import Page, PageOf, cut, newest_first
from domain.usage import measure, records, tables
from domain.usage.metrics import MOST_GROUPS, Dimension, Question, UsageFilter
from domain.usage.records import RecordFilter
from domain.usage.tables import Column, ReportRow
from domain.usage.windows import Granularity, Window, buckets
from models import database
from models.enums import ActorKind, ExportColumns, ExportDataset, ExportFormat, JobStatus, Scope
from models.ids import uuid7

DUTY: Final = "export"
ROWS_AT_ONCE = 2000
KEPT = timedelta(days=7)
MOST_TRIES = 5
MOST_OPEN = 20
"""How many exports of a workspace may wait or run at once."""
NEEDS = {ExportDataset.TRANSACTIONS: Scope.BILLING_READ, ExportDataset.AUDIT_EVENTS: Scope.AUDIT_READ}


@dataclass(frozen=True, slots=True)
class Report:
    """A usage report: one row for each bucket and group."""

    window: Window
    granularity: Granularity = Granularity.DAY
    by: tuple[Dimension, ...] = ()
    tag: str | None = None
    filter: UsageFilter = UsageFilter()  # noqa: RUF009 - frozen


Source = Report | RecordFilter | StatementFilter | AuditFilter
DATASETS: Final[dict[ExportDataset, type]] = {
    ExportDataset.USAGE: Report,
    ExportDataset.USAGE_RECORDS: RecordFilter,
    ExportDataset.TRANSACTIONS: StatementFilter,
    ExportDataset.AUDIT_EVENTS: AuditFilter,
}


@dataclass(frozen=True, slots=True)
class ExportView:
    """An export as it stands; `object` is where its file lies, None until it is whole and after it was deleted."""

    id: UUID
    workspace_id: UUID
    dataset: ExportDataset
    format: ExportFormat
    columns: ExportColumns
    creator: Actor
    status: JobStatus
    rows: int
    bytes: int
    progress: float | None
    failure_code: str | None
    failure: str | None
    object: str | None
    created_at: datetime
    finished_at: datetime | None
    expires_at: datetime | None

    @property
    def name(self) -> str:
        """The file's name."""
        ending = {ExportFormat.CSV: "csv", ExportFormat.JSON_LINES: "jsonl", ExportFormat.PARQUET: "parquet"}[self.format]
        return f"{self.dataset.value.replace('_', '-')}-{self.created_at:%Y-%m-%d}.{ending}"


class Files(Protocol):
    """Writes rows in a format."""

    def write(self, format: ExportFormat, columns: Sequence[Column], rows: AsyncIterator[list[Any]]) -> AsyncIterator[bytes]:
        """Give the file's bytes, piece by piece, in memory that does not grow with the file."""


class Store(Protocol):
    """Keeps files."""

    async def put(self, key: str, content: AsyncIterator[bytes]) -> None:
        """Write an object whole, or raise Unavailable."""

    async def delete(self, keys: Sequence[str]) -> None:
        """Take objects away."""


_COLUMNS = (
    "id, workspace_id, dataset, format, columns, creator_kind, creator_id, creator_name, status, rows, bytes, progress, failure_code, failure, object,"
    " created_at, finished_at, expires_at"
)
_PLAIN = ("id", "workspace_id", "rows", "bytes", "progress", "failure_code", "failure", "object", "created_at", "finished_at", "expires_at")


def _view(row: asyncpg.Record) -> ExportView:
    return ExportView(
        **{name: row[name] for name in _PLAIN},
        dataset=ExportDataset(row["dataset"]),
        format=ExportFormat(row["format"]),
        columns=ExportColumns(row["columns"]),
        creator=Actor(ActorKind(row["creator_kind"]), row["creator_id"], row["creator_name"]),
        status=JobStatus(row["status"]),
    )


async def create(caller: Caller, source: Source, format: ExportFormat, columns: ExportColumns, idempotency_key: str | None) -> ExportView:
    """Queue an export; a repeated idempotency key returns the first.

    Raises MissingScope, InvalidInput for a report that cannot be asked, IdempotencyConflict.
    """
    workspace_id = caller.require(Scope.USAGE_READ)
    dataset = next(dataset for dataset, kind in DATASETS.items() if isinstance(source, kind))
    if dataset in NEEDS:
        caller.require(NEEDS[dataset])
    if dataset is ExportDataset.AUDIT_EVENTS and columns is ExportColumns.FOCUS:
        raise InvalidInput("The audit log is no charges: FOCUS has no columns for it.", path=("columns",))
    if isinstance(source, Report):
        await _rehearse(caller, source)
    export_id = uuid7()
    question = msgspec.json.encode(source).decode()
    async with database.transaction():
        await database.fetch("SELECT FROM workspace WHERE id = $1 FOR NO KEY UPDATE", workspace_id)
        if idempotency_key is not None:
            first = await idempotency.claim(workspace_id, "exportCreate", idempotency_key, [_asked(source), format, columns], export_id)
            if first is not None:
                return await find(caller, first)
        if await database.fetch_value("SELECT count(*) FROM export WHERE workspace_id = $1 AND status IN ('queued', 'running')", workspace_id) >= MOST_OPEN:
            raise InvalidInput(f"A workspace has at most {MOST_OPEN} exports under way; wait for one to end.")
        await database.fetch(
            """
            INSERT INTO export (workspace_id, id, dataset, format, columns, question, scopes, user_id, key_id, creator_kind, creator_id, creator_name,
                                status, rows, bytes, progress, tries, created_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 'queued', 0, 0, 0, 0, $13)
            """,
            workspace_id,
            export_id,
            dataset.value,
            format.value,
            columns.value,
            question,
            [scope.value for scope in (Scope.USAGE_READ, Scope.USAGE_READ_ALL, Scope.BILLING_READ, Scope.AUDIT_READ) if scope in caller.scopes],
            caller.user_id,
            caller.key_id,
            caller.actor.kind.value,
            caller.actor.id,
            caller.actor.name,
            caller.at,
        )
        await duties.owe(DUTY, {"export_id": str(export_id)}, workspace_id=workspace_id, at=caller.at)
        told = {"dataset": (None, dataset.value), "format": (None, format.value)}
        await audit.note(caller.actor, "export.create", ("Export", export_id), told, workspace_id=workspace_id, at=caller.at)
    return await find(caller, export_id)


def _asked(source: Source) -> object:
    """The question without the instant at which it was asked: a retry, a moment later, is the same question."""
    asked = msgspec.to_builtins(source)
    if isinstance(asked.get("window"), dict):
        asked["window"] = {name: value for name, value in asked["window"].items() if name in ("label", "zone")}
    return {name: value for name, value in asked.items() if name not in ("start", "end")} if isinstance(source, StatementFilter | AuditFilter) else asked


async def _rehearse(caller: Caller, asked: Report) -> None:
    """Raise what the report itself would: the question is measured over no time."""
    cut = buckets(asked.window, asked.granularity)
    await measure.measure(caller, [(cut[0].start, cut[0].start)], _question(asked))


def _question(asked: Report) -> Question:
    if not asked.by:
        return Question(filter=asked.filter)
    return Question(filter=asked.filter, by=asked.by, tag=asked.tag, first=MOST_GROUPS, include_other=True)


async def page(caller: Caller, page: Page) -> PageOf[ExportView]:
    """Return a page of the workspace's exports, newest first; without USAGE_READ_ALL the caller's own."""
    workspace_id = caller.require(Scope.USAGE_READ)
    keyset = newest_first(page, offset=4)
    rows = await database.fetch(
        f"SELECT {_COLUMNS} FROM export WHERE workspace_id = $1 AND {_SEEN} {keyset.where} {keyset.order}", workspace_id, *_sight(caller), *keyset.arguments
    )
    return cut([_view(row) for row in rows], page)


_SEEN = "($2 OR user_id = $3 OR key_id = $4)"


def _sight(caller: Caller) -> tuple[bool, UUID | None, UUID | None]:
    return Scope.USAGE_READ_ALL in caller.scopes, caller.user_id if caller.key_id is None else None, caller.key_id


async def count(caller: Caller) -> int:
    """Return how many exports the caller sees."""
    return int(await database.fetch_value(f"SELECT count(*) FROM export WHERE workspace_id = $1 AND {_SEEN}", caller.require(Scope.USAGE_READ), *_sight(caller)))


async def find(caller: Caller, export_id: UUID) -> ExportView:
    """Return one export; raises NotFound for one that the caller does not see."""
    row = await database.fetch_row(
        f"SELECT {_COLUMNS} FROM export WHERE workspace_id = $1 AND {_SEEN} AND id = $5", caller.require(Scope.USAGE_READ), *_sight(caller), export_id
    )
    if row is None:
        raise NotFound("export", path=("id",))
    return _view(row)


# The link.


def signature(secret: str, export_id: UUID, expires_at: datetime) -> str:
    """Return what signs a link until an instant."""
    return hmac.new(secret.encode(), f"export:{export_id}:{int(expires_at.timestamp())}".encode(), hashlib.sha256).hexdigest()


async def by_link(secret: str, export_id: UUID, signed: str, *, at: datetime) -> ExportView:
    """Return the export that a link names; raises NotFound for a link that was not signed by us, or whose file is gone."""
    row = await database.fetch_row(f"SELECT {_COLUMNS} FROM export WHERE id = $1", export_id)
    expires_at = None if row is None else row["expires_at"]
    if row is None or expires_at is None or row["object"] is None or expires_at <= at:
        raise NotFound("export")
    if not hmac.compare_digest(signature(secret, export_id, expires_at).encode(), signed.encode()):
        raise NotFound("export")
    return _view(row)


# Making.


async def make(duty: Duty, files: Files, store: Store, *, at: datetime) -> None:
    """Make an export's file and mark it whole, or say why not; run twice, the second file replaces the first.

    A refusal ends it; anything else is tried again, MOST_TRIES times.
    """
    assert duty.workspace_id is not None
    export_id = UUID(duty.payload["export_id"])
    row = await database.fetch_row(
        f"""
        UPDATE export SET status = 'running', tries = tries + 1, rows = 0, bytes = 0, progress = 0
         WHERE workspace_id = $1 AND id = $2 AND status IN ('queued', 'running')
        RETURNING {_COLUMNS}, question, scopes, user_id, key_id, tries
        """,
        duty.workspace_id,
        export_id,
    )
    if row is None:
        await duties.done(duty)
        return
    making = _Making(row, duty)
    names = [f"exports/{export_id}/{number}" for number in range(1, row["tries"] + 1)]
    try:
        await store.delete(names[:-1])  # what runs before this one left, if anything
        await store.put(names[-1], making.file(files))
    except duties.TakenOver:
        return
    except Exception as error:
        refused = isinstance(error, Refusal) and error.status < 500
        if refused or row["tries"] >= MOST_TRIES:
            await _fail(duty, export_id, error)
            return
        raise
    async with database.transaction():
        if not await duties.done(duty):
            return
        await database.fetch(
            """
            UPDATE export SET status = CASE status WHEN 'running' THEN 'succeeded' ELSE status END, progress = 1, rows = $3, bytes = $4, object = $5,
                   finished_at = clock_timestamp(), expires_at = CASE status WHEN 'running' THEN $6 ELSE clock_timestamp() END,
                   failure_code = CASE status WHEN 'running' THEN NULL ELSE failure_code END, failure = CASE status WHEN 'running' THEN NULL ELSE failure END
             WHERE workspace_id = $1 AND id = $2  -- one that was ended meanwhile, because somebody in it was erased, is deleted by the next sweep
            """,
            duty.workspace_id,
            export_id,
            making.rows,
            making.bytes,
            names[-1],
            at + KEPT,
        )


async def _fail(duty: Duty, export_id: UUID, error: Exception) -> None:
    message = error.message if isinstance(error, Refusal) else "The file could not be made."
    async with database.transaction():
        if await duties.done(duty):
            await database.fetch(
                "UPDATE export SET status = 'failed', finished_at = clock_timestamp(), failure_code = $3, failure = $4 WHERE workspace_id = $1 AND id = $2",
                duty.workspace_id,
                export_id,
                error.code if isinstance(error, Refusal) else "internal",
                message[:300],
            )


class _Making:
    """One run over an export's rows, which tells how far it is."""

    def __init__(self, row: asyncpg.Record, duty: Duty) -> None:
        self.view = _view(row)
        self.source: Source = msgspec.json.decode(row["question"], type=DATASETS[self.view.dataset])
        self.caller = Caller(
            at=row["created_at"],
            workspace_id=row["workspace_id"],
            name=row["creator_name"],
            scopes=frozenset(Scope(scope) for scope in row["scopes"]),
            user_id=row["user_id"],
            key_id=row["key_id"],
        )
        self.duty = duty
        self.rows = 0
        self.bytes = 0

    async def file(self, files: Files) -> AsyncIterator[bytes]:
        """Give the file's bytes."""
        async for piece in files.write(self.view.format, self._columns(), self._told()):
            self.bytes += len(piece)
            yield piece

    def _columns(self) -> Sequence[Column]:
        focus = self.view.columns is ExportColumns.FOCUS
        match self.source:
            case Report():
                return tables.REPORT_FOCUS if focus else tables.report(self.source.by)
            case RecordFilter():
                return tables.RECORDS_FOCUS if focus else tables.RECORDS
            case StatementFilter():
                return tables.STATEMENT_FOCUS if focus else tables.STATEMENT
            case AuditFilter():
                return tables.AUDIT

    async def _told(self) -> AsyncIterator[list[Any]]:
        async for some, progress in self._read():
            self.rows += len(some)
            yield some
            await duties.extend(self.duty)
            await database.fetch(
                "UPDATE export SET rows = $3, bytes = $4, progress = $5 WHERE workspace_id = $1 AND id = $2 AND status = 'running'",
                self.view.workspace_id,
                self.view.id,
                self.rows,
                self.bytes,
                progress,
            )

    def _read(self) -> AsyncIterator[tuple[list[Any], float | None]]:
        match self.source:
            case Report():
                return self._report(self.source)
            case RecordFilter():
                return self._records(self.source)
            case StatementFilter():
                return self._entries(self.source)
            case AuditFilter():
                return self._events(self.source)

    async def _report(self, asked: Report) -> AsyncIterator[tuple[list[Any], float | None]]:
        cut = buckets(asked.window, asked.granularity)
        lines = await measure.measure(self.caller, [(bucket.start, bucket.end) for bucket in cut], _question(asked))
        for place, bucket in enumerate(cut):
            rows = [
                ReportRow(self.view.workspace_id, bucket, line.values, line.points[place])
                for line in lines
                if not asked.by or line.points[place].requests or line.points[place].charge_microusd
            ]
            yield rows, (place + 1) / len(cut)

    async def _records(self, wanted: RecordFilter) -> AsyncIterator[tuple[list[Any], float | None]]:
        last: UUID | None = None
        start = None if wanted.window is None else wanted.window.start
        while some := await records.after(self.caller, wanted, last, ROWS_AT_ONCE):
            start = start or some[0].at
            end = self.caller.at if wanted.window is None else min(wanted.window.end, self.caller.at)
            span = (end - start).total_seconds()
            yield some, min(max((some[-1].at - start).total_seconds() / span, 0.0), 1.0) if span > 0 else None
            last = some[-1].id

    async def _entries(self, wanted: StatementFilter) -> AsyncIterator[tuple[list[Any], float | None]]:
        last: UUID | None = None
        while some := await ledger.statement_after(self.caller, wanted, last, ROWS_AT_ONCE):
            yield some, None
            last = some[-1].transfer.id


    async def _events(self, wanted: AuditFilter) -> AsyncIterator[tuple[list[Any], float | None]]:
        last: UUID | None = None
        while some := await audit.after(self.caller, wanted, last, ROWS_AT_ONCE):
            yield some, None
            last = some[-1].id


async def expire(store: Store) -> int:
    """Delete files whose week is over; return how many. Any process may do so at any time."""
    rows = await database.fetch("SELECT workspace_id, id, object FROM export WHERE object IS NOT NULL AND expires_at <= clock_timestamp() LIMIT 100")
    for row in rows:
        await store.delete([row["object"]])
        await database.fetch("UPDATE export SET object = NULL WHERE workspace_id = $1 AND id = $2", row["workspace_id"], row["id"])
    return len(rows)
