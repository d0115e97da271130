"""The audit log: who changed what, when and why, written in the transaction of the change."""

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import asyncpg
import msgspec

from domain.access.actors import Actor
from domain.errors import InvalidInput, NotFound
from domain.pages import Page, PageOf, cut, following, newest_first
from models import database
from models.enums import ActorKind, Scope
from models.ids import uuid7

if TYPE_CHECKING:
    from domain.access.callers import Caller

SERVICE: Final = UUID(int=0)
"""The workspace of changes to the service itself."""


@dataclass(frozen=True, slots=True)
class Request:
    """The request that a change came with: its `X-Request-Id` and its caller's address."""

    id: str
    address: str | None


REQUEST: Final[ContextVar[Request | None]] = ContextVar("request", default=None)
"""Set by each door; a job or a command has none."""

Subject = tuple[str, UUID | str]
"""The name of a GraphQL type, and the row's own key."""
Changes = Mapping[str, tuple[object, object]]
"""Fields as GraphQL names them, each with its old and new value; secrets are left out."""


@dataclass(frozen=True, slots=True)
class AuditEventView:
    """One change; `workspace_id` is None for one to the service itself."""

    id: UUID
    workspace_id: UUID | None
    action: str
    actor: Actor
    subject: tuple[str, str] | None
    changes: dict[str, list[Any]]
    reason: str | None
    request_id: str | None
    address: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Narrows the log; None matches all. An action matches by its whole name, or by its noun."""

    actions: tuple[str, ...] | None = None
    subject: tuple[str, str] | None = None
    actor: UUID | None = None
    start: datetime | None = None
    end: datetime | None = None


def difference(old: Mapping[str, object] | None, new: Mapping[str, object] | None) -> dict[str, tuple[object, object]]:
    """Return the fields whose values differ; something made has no old values, something gone no new ones."""
    before, after = old or {}, new or {}
    return {name: (before.get(name), after.get(name)) for name in (*before, *(name for name in after if name not in before)) if before.get(name) != after.get(name)}


async def note(
    actor: Actor,
    action: str,
    subject: Subject | None,
    changes: Changes | None = None,
    *,
    workspace_id: UUID,
    at: datetime,
    reason: str | None = None,
) -> None:
    """Write one event in the open transaction, so that the change and its trace are both there or neither is."""
    assert database.transaction_is_open(), "an audit event belongs to the transaction of its change"
    request = REQUEST.get()
    told = {name: [before, after] for name, (before, after) in (changes or {}).items()}
    await database.fetch(
        """
        INSERT INTO audit_event (workspace_id, id, action, actor_kind, actor_id, actor_name, subject_kind, subject_id, changes, reason, request_id, address, created_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
        """,
        workspace_id,
        uuid7(),
        action,
        actor.kind.value,
        actor.id,
        actor.name[:200],
        subject[0] if subject else None,
        str(subject[1]) if subject else None,
        msgspec.json.encode(told).decode(),
        reason,
        request.id if request else None,
        request.address if request else None,
        at,
    )


_COLUMNS = "id, workspace_id, action, actor_kind, actor_id, actor_name, subject_kind, subject_id, changes, reason, request_id, address, created_at"
_WHERE = """
    ($1::uuid IS NULL OR workspace_id = $1)
    AND ($2::text[] IS NULL OR action = ANY ($2) OR split_part(action, '.', 1) = ANY ($2))
    AND ($3::text IS NULL OR subject_kind = $3 AND subject_id = $4) AND ($5::uuid IS NULL OR actor_id = $5)
    AND ($6::timestamptz IS NULL OR created_at >= $6) AND ($7::timestamptz IS NULL OR created_at < $7)
"""


def _view(row: asyncpg.Record) -> AuditEventView:
    return AuditEventView(
        id=row["id"],
        workspace_id=None if row["workspace_id"] == SERVICE else row["workspace_id"],
        action=row["action"],
        actor=Actor(ActorKind(row["actor_kind"]), row["actor_id"], row["actor_name"]),
        subject=(row["subject_kind"], row["subject_id"]) if row["subject_kind"] else None,
        changes=msgspec.json.decode(row["changes"]),
        reason=row["reason"],
        request_id=row["request_id"],
        address=row["address"],
        created_at=row["created_at"],
    )


def _arguments(workspace_id: UUID | None, wanted: AuditFilter) -> tuple[Any, ...]:
    kind, key = wanted.subject or (None, None)
    if any("\x00" in text for text in (*(wanted.actions or ()), kind or "", key or "")):
        raise InvalidInput("No action and no subject has a zero byte.", path=("filter",))
    return workspace_id, None if wanted.actions is None else list(wanted.actions), kind, key, wanted.actor, wanted.start, wanted.end


def _place(caller: "Caller", *, everywhere: bool) -> UUID | None:
    if everywhere:
        caller.require(Scope.OPERATOR)
        return None
    return caller.require(Scope.AUDIT_READ)


async def page(caller: "Caller", page: Page, wanted: AuditFilter | None = None, *, everywhere: bool = False) -> PageOf[AuditEventView]:
    """Return a page of changes, newest first: those of the workspace (AUDIT_READ), or for an operator those made anywhere."""
    keyset = newest_first(page, offset=7)
    rows = await database.fetch(
        f"SELECT {_COLUMNS} FROM audit_event WHERE {_WHERE} {keyset.where} {keyset.order}",
        *_arguments(_place(caller, everywhere=everywhere), wanted or AuditFilter()),
        *keyset.arguments,
    )
    return cut([_view(row) for row in rows], page)


async def count(caller: "Caller", wanted: AuditFilter | None = None, *, everywhere: bool = False) -> int:
    """Return how many changes match."""
    arguments = _arguments(_place(caller, everywhere=everywhere), wanted or AuditFilter())
    return int(await database.fetch_value(f"SELECT count(*) FROM audit_event WHERE {_WHERE}", *arguments))


async def after(caller: "Caller", wanted: AuditFilter, last: UUID | None, most: int) -> list[AuditEventView]:
    """Return the next `most` changes of the workspace after the event `last`, oldest first, for reading all of them."""
    keyset = following(last, most, offset=7)
    arguments = _arguments(_place(caller, everywhere=False), wanted)
    return [_view(row) for row in await database.fetch(f"SELECT {_COLUMNS} FROM audit_event WHERE {_WHERE} {keyset.where} {keyset.order}", *arguments, *keyset.arguments)]


async def find(caller: "Caller", event_id: UUID) -> AuditEventView:
    """Return one change; raises NotFound for another workspace's too, unless an operator asks."""
    place = None if caller.operator else caller.require(Scope.AUDIT_READ)
    row = await database.fetch_row(f"SELECT {_COLUMNS} FROM audit_event WHERE id = $1 AND ($2::uuid IS NULL OR workspace_id = $2)", event_id, place)
    if row is None:
        raise NotFound("audit event", path=("id",))
    return _view(row)
