"""Tenants: made, found, changed. A workspace is born with its accounts of the ledger."""

import base64
import contextlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from domain import audit, idempotency, periods
from domain.errors import InvalidInput, NotFound, OutOfRange
from domain.pages import Page, PageOf, cut, newest_first
from models import database
from models.enums import LedgerAccountKind, Role, Scope, SubjectKind
from models.ids import uuid7

if TYPE_CHECKING:
    from domain.access.callers import Caller
    from domain.access.limits import BoundInput

LONGEST_NAME = 200
LONGEST_RETENTION_DAYS = 3650
ONE_EACH = tuple(kind for kind in LedgerAccountKind if kind not in (LedgerAccountKind.GRANT, LedgerAccountKind.WALLET))


@dataclass(frozen=True, slots=True)
class WorkspaceView:
    """A tenant."""

    id: UUID
    name: str
    default_timezone: str
    retention_days: int | None
    stopped_at: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Place:
    """A workspace and the role that somebody has in it."""

    workspace: WorkspaceView
    role: Role


_COLUMNS = "id, name, default_timezone, retention_days, stopped_at, created_at"


def parse_id(text: str) -> UUID | None:
    """Return a workspace's id from text, None when it is none; the global id by which GraphQL shows a workspace is one as well."""
    with contextlib.suppress(ValueError):
        return UUID(text)
    with contextlib.suppress(ValueError):
        kind, _, key = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode("ascii").partition(":")
        return UUID(key) if kind == "Workspace" else None
    return None


def check_name(name: str, *, path: tuple[str, ...] = ("name",)) -> str:
    """Return a display name without spaces around it; raises OutOfRange or InvalidInput."""
    name = name.strip()
    if not 1 <= len(name) <= LONGEST_NAME:
        raise OutOfRange(f"A name has 1 to {LONGEST_NAME} characters.", minimum=1, maximum=LONGEST_NAME, too_large=len(name) > LONGEST_NAME, path=path)
    if not name.isprintable():
        raise InvalidInput("A name has printable characters only.", path=path)
    return name


async def exists(workspace_id: UUID) -> bool:
    """Tell whether there is such a workspace."""
    return bool(await database.fetch_value("SELECT EXISTS (SELECT FROM workspace WHERE id = $1)", workspace_id))


async def find(workspace_id: UUID) -> WorkspaceView:
    """Return a workspace; the caller has been let into it. Raises NotFound."""
    row = await database.fetch_row(f"SELECT {_COLUMNS} FROM workspace WHERE id = $1", workspace_id)
    if row is None:
        raise NotFound("workspace")
    return WorkspaceView(**row)


async def find_many(ids: Sequence[UUID]) -> dict[UUID, WorkspaceView]:
    """Return workspaces by id; the caller may see all of them."""
    rows = await database.fetch(f"SELECT {_COLUMNS} FROM workspace WHERE id = ANY ($1)", list(ids))
    return {row["id"]: WorkspaceView(**row) for row in rows}


_FOUND = """
    ($1::text IS NULL OR position(lower($1) IN lower(w.name)) > 0
     OR EXISTS (SELECT FROM member m JOIN users u ON u.id = m.user_id
                 WHERE m.workspace_id = w.id AND m.removed_at IS NULL AND position(lower($1) IN lower(u.email)) > 0)
     OR EXISTS (SELECT FROM stripe_object s WHERE s.workspace_id = w.id AND s.kind IN ('customer', 'former_customer') AND s.id = $1))
"""


async def page(caller: "Caller", page: Page, search: str | None = None) -> PageOf[WorkspaceView]:
    """Return a page of all workspaces, newest first: those whose name or a member's address has `search` in it, or whose customer at Stripe it is.

    Operators only.
    """
    caller.require(Scope.OPERATOR)
    keyset = newest_first(page, column="w.id", offset=1)
    rows = await database.fetch(f"SELECT {_COLUMNS} FROM workspace w WHERE {_FOUND} {keyset.where} {keyset.order}", _sought(search), *keyset.arguments)
    return cut([WorkspaceView(**row) for row in rows], page)


async def count(caller: "Caller", search: str | None = None) -> int:
    """Return how many workspaces match; operators only."""
    caller.require(Scope.OPERATOR)
    return int(await database.fetch_value(f"SELECT count(*) FROM workspace w WHERE {_FOUND}", _sought(search)))


def _sought(search: str | None) -> str | None:
    if search is not None and "\x00" in search:
        raise InvalidInput("No name has a zero byte.", path=("search",))
    return search or None


async def of_user(user_id: UUID) -> list[Place]:
    """Return where a person is a member, the own workspace first: owned before others, oldest before newer."""
    rows = await database.fetch(
        f"""
        SELECT m.role, {", ".join(f"w.{column}" for column in _COLUMNS.split(", "))}
          FROM member m JOIN workspace w ON w.id = m.workspace_id
         WHERE m.user_id = $1 AND m.joined_at IS NOT NULL AND m.removed_at IS NULL
         ORDER BY m.role <> 'owner', m.joined_at, m.id
        """,
        user_id,
    )
    return [Place(WorkspaceView(**{key: value for key, value in row.items() if key != "role"}), Role(row["role"])) for row in rows]


async def create(caller: "Caller", name: str, timezone: str, idempotency_key: str | None) -> WorkspaceView:
    """Make a workspace that the signed-in person owns.

    Raises Forbidden for a key, and for a person who is a member of none and no operator: who needs an invitation cannot do without one like this.
    Raises InvalidInput for a bad name or zone, IdempotencyConflict for a key used with another input.
    """
    person = caller.person()
    if not caller.operator:
        caller.workspace()
    name = check_name(name)
    periods.check_zone(timezone, path=("defaultTimezone",))
    workspace_id = uuid7()
    async with database.transaction():
        if idempotency_key is not None:
            first = await idempotency.claim(person, "workspaceCreate", idempotency_key, [name, timezone], workspace_id)
            if first is not None:
                return await find(first)
        await _insert(workspace_id, name, timezone, at=caller.at)
        await _insert_owner(workspace_id, person, at=caller.at)
        told = {"name": (None, name), "defaultTimezone": (None, timezone)}
        await audit.note(caller.actor, "workspace.create", ("Workspace", workspace_id), told, workspace_id=workspace_id, at=caller.at)
    return await find(workspace_id)


async def create_first(user_id: UUID, person_name: str, *, at: datetime) -> None:
    """Make a person's own workspace on the first log-in; two log-ins at once make one."""
    async with database.transaction():
        await database.fetch("SELECT FROM users WHERE id = $1 FOR UPDATE", user_id)
        if not await of_user(user_id):
            workspace_id = uuid7()
            await _insert(workspace_id, f"{person_name}'s workspace"[:LONGEST_NAME], "UTC", at=at)
            await _insert_owner(workspace_id, user_id, at=at)


async def create_for(owner_id: UUID | None, name: str, timezone: str, *, at: datetime) -> WorkspaceView:
    """Make a workspace by the operator's command, with an owner or without; raises InvalidInput for a bad name or zone."""
    workspace_id = uuid7()
    async with database.transaction():
        await _insert(workspace_id, check_name(name), periods.check_zone(timezone, path=("timezone",)), at=at)
        if owner_id is not None:
            await _insert_owner(workspace_id, owner_id, at=at)
    return await find(workspace_id)


@dataclass(frozen=True, slots=True)
class WorkspaceChanges:
    """What to change of a workspace; None stays as it is. `retention_days` 0 keeps calls for as long as the service does."""

    name: str | None = None
    default_timezone: str | None = None
    retention_days: int | None = None
    stopped: bool | None = None
    budgets: "tuple[BoundInput, ...] | None" = None
    limits: "tuple[BoundInput, ...] | None" = None


async def update(caller: "Caller", changes: WorkspaceChanges, *, offered: Collection[str] = ()) -> WorkspaceView:
    """Change the caller's workspace: its settings, the emergency stop, its bounds; the next admission of every process sees it.

    Raises MissingScope, InvalidInput, OutOfRange, NotFound for a model of a bound.
    """
    from domain.access import limits  # which knows callers, who know workspaces

    workspace_id = caller.require(Scope.MEMBERS_WRITE)
    values: dict[str, object] = {}
    if changes.name is not None:
        values["name"] = check_name(changes.name)
    if changes.default_timezone is not None:
        values["default_timezone"] = periods.check_zone(changes.default_timezone, path=("defaultTimezone",))
    if changes.retention_days is not None:
        if not 0 <= changes.retention_days <= LONGEST_RETENTION_DAYS:
            raise OutOfRange(
                f"Calls are kept for 1 to {LONGEST_RETENTION_DAYS} days.",
                minimum=1,
                maximum=LONGEST_RETENTION_DAYS,
                too_large=changes.retention_days > 0,
                path=("retentionDays",),
            )
        values["retention_days"] = changes.retention_days or None
    if changes.stopped is not None:
        values["stopped_at"] = caller.at if changes.stopped else None
    async with database.transaction():
        await database.fetch("SELECT FROM workspace WHERE id = $1 FOR NO KEY UPDATE", workspace_id)
        before = await _told(workspace_id)
        if values:
            assignments = ", ".join(
                f"{column} = coalesce(stopped_at, ${place})" if column == "stopped_at" and changes.stopped else f"{column} = ${place}"
                for place, column in enumerate(values, start=2)
            )
            await database.fetch(f"UPDATE workspace SET {assignments} WHERE id = $1", workspace_id, *values.values())
        await limits.set_bounds(caller, SubjectKind.WORKSPACE, workspace_id, changes.budgets, changes.limits, offered=offered)
        told = audit.difference(before, await _told(workspace_id))
        await audit.note(caller.actor, "workspace.update", ("Workspace", workspace_id), told, workspace_id=workspace_id, at=caller.at)
    return await find(workspace_id)


async def _told(workspace_id: UUID) -> dict[str, object]:
    from domain.access import limits

    row = await database.fetch_row("SELECT name, default_timezone, retention_days, stopped_at FROM workspace WHERE id = $1", workspace_id)
    assert row is not None, "workspaces are never deleted"
    return {
        "name": row["name"],
        "defaultTimezone": row["default_timezone"],
        "retentionDays": row["retention_days"],
        "stoppedAt": row["stopped_at"],
        "bounds": await limits.told(workspace_id, workspace_id),
    }


async def _insert(workspace_id: UUID, name: str, timezone: str, *, at: datetime) -> None:
    await database.fetch(
        "INSERT INTO workspace (id, name, default_timezone, created_at) VALUES ($1, $2, $3, $4)", workspace_id, name, timezone, at
    )
    await database.fetch(
        """
        INSERT INTO account (workspace_id, id, kind, credits, debits, held, floor, version, carry_picousd, list_carry_picousd, updated_at)
        SELECT $1, uuidv7(), kind, 0, 0, 0, 0, 0, 0, 0, $3 FROM unnest($2::text[]) AS kind
        """,
        workspace_id,
        [kind.value for kind in ONE_EACH],
        at,
    )


async def _insert_owner(workspace_id: UUID, user_id: UUID, *, at: datetime) -> None:
    await database.fetch(
        "INSERT INTO member (workspace_id, id, user_id, role, joined_at, created_at) VALUES ($1, $2, $3, 'owner', $4, $4)",
        workspace_id,
        uuid7(),
        user_id,
        at,
    )
