"""End users: whom a customer's calls and client tokens name. A row comes into being when something names one."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from domain import audit
from domain.access import limits
from domain.access.callers import Caller
from domain.access.limits import BoundInput
from domain.errors import InvalidInput, NotFound
from domain.pages import Page, PageOf, cut
from models import database
from models.enums import Scope, SubjectKind

LONGEST_NAME = 255


@dataclass(frozen=True, slots=True)
class EndUserView:
    """An end user; `app_id` is None when it is named without an app, `last_seen_at` until a call names it."""

    id: UUID
    workspace_id: UUID
    app_id: UUID | None
    external_id: str
    blocked_at: datetime | None
    first_seen_at: datetime
    last_seen_at: datetime | None
    wallet_id: UUID | None


@dataclass(frozen=True, slots=True)
class Named:
    """An end user as a call names it. Without `app_known` the app is not said, and of several the one seen last is meant."""

    name: str
    app_id: UUID | None = None
    app_known: bool = True


_COLUMNS = "u.id, u.workspace_id, u.app_id, u.external_id, u.blocked_at, u.first_seen_at, u.last_seen_at, u.wallet_id"
_SEEN = "coalesce(u.last_seen_at, u.first_seen_at)"
_PLACE = "SELECT coalesce(o.last_seen_at, o.first_seen_at), o.id FROM end_user o WHERE o.workspace_id = $1"
_MATCH = "u.workspace_id = $1 AND u.app_id = $2 AND u.external_id LIKE $3 ESCAPE '!'"


def _view(row: asyncpg.Record) -> EndUserView:
    return EndUserView(**row)


def id_of(workspace_id: UUID, app_id: UUID | None, name: str) -> UUID:
    """Return the id of the end user of a name, whether there is a row or not: that of the database's `end_user_id_1`."""
    text = f"end user {workspace_id} {'' if app_id is None else app_id} {name}"
    return UUID(hashlib.md5(text.encode(), usedforsecurity=False).hexdigest())


def check_name(name: str, *, path: tuple[str, ...]) -> str:
    """Return the customer's own id of an end user; raises InvalidInput for one that is empty, too long or cannot be printed."""
    if not (1 <= len(name) <= LONGEST_NAME and name.isprintable()):
        raise InvalidInput(f"An end user's id has 1 to {LONGEST_NAME} printable characters.", path=path)
    return name


async def name(workspace_id: UUID, app_id: UUID | None, external_id: str, *, at: datetime) -> UUID:
    """Make the row of an end user that something names, when there is none; return its id."""
    end_user_id = id_of(workspace_id, app_id, external_id)
    await database.fetch(
        "INSERT INTO end_user (workspace_id, id, app_id, external_id, first_seen_at) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
        workspace_id,
        end_user_id,
        app_id,
        external_id,
        at,
    )
    return end_user_id


async def find_many(caller: Caller, ids: Sequence[UUID]) -> dict[UUID, EndUserView]:
    """Return those of the workspace's end users that have these ids, by id. Raises MissingScope (APPS_READ)."""
    return await _found(caller.require(Scope.APPS_READ), ids)


async def find(caller: Caller, end_user_id: UUID) -> EndUserView:
    """Return an end user of the workspace; raises NotFound for another's too."""
    found = await find_many(caller, [end_user_id])
    if end_user_id not in found:
        raise NotFound("end user", path=("id",))
    return found[end_user_id]


async def named(caller: Caller, asked: Collection[Named]) -> dict[Named, EndUserView]:
    """Return the end users of names. Raises MissingScope (APPS_READ)."""
    workspace_id = caller.require(Scope.APPS_READ)
    certain = {each: id_of(workspace_id, each.app_id, each.name) for each in asked if each.app_known}
    by_id = await _found(workspace_id, list(certain.values()))
    found = {each: by_id[end_user_id] for each, end_user_id in certain.items() if end_user_id in by_id}
    loose = {each.name: each for each in asked if not each.app_known}
    if loose:
        rows = await database.fetch(
            f"""
            SELECT DISTINCT ON (u.external_id) {_COLUMNS} FROM end_user u WHERE u.workspace_id = $1 AND u.external_id = ANY ($2)
             ORDER BY u.external_id, {_SEEN} DESC, u.id
            """,
            workspace_id,
            list(loose),
        )
        found |= {loose[row["external_id"]]: _view(row) for row in rows}
    return found


async def of_workspace(workspace_id: UUID, end_user_id: UUID) -> EndUserView:
    """Return an end user of a workspace, for who has been let in already; raises NotFound."""
    found = await _found(workspace_id, [end_user_id])
    if end_user_id not in found:
        raise NotFound("end user", path=("id",))
    return found[end_user_id]


@dataclass(frozen=True, slots=True)
class EndUserChanges:
    """What to change of an end user; None stays as it is."""

    blocked: bool | None = None
    budgets: tuple[BoundInput, ...] | None = None
    limits: tuple[BoundInput, ...] | None = None


async def update(caller: Caller, end_user_id: UUID, changes: EndUserChanges, *, offered: Collection[str] = ()) -> EndUserView:
    """Block an end user or let it in again, and set what it may use; the next admission sees it. A change is whole or not at all.

    Raises NotFound for another workspace's, and for a model that there is not; InvalidInput and OutOfRange for a bound that cannot be kept.
    """
    workspace_id = caller.require(Scope.APPS_WRITE)
    async with database.transaction():
        await database.fetch("SELECT FROM account WHERE workspace_id = $1 AND kind = 'cash' FOR NO KEY UPDATE", workspace_id)  # first, as admission does
        before = await _told(workspace_id, end_user_id)
        if changes.blocked is not None:
            blocked = "coalesce(blocked_at, clock_timestamp())" if changes.blocked else "NULL"
            await database.fetch(f"UPDATE end_user SET blocked_at = {blocked} WHERE workspace_id = $1 AND id = $2", workspace_id, end_user_id)
        await limits.set_bounds(caller, SubjectKind.END_USER, end_user_id, changes.budgets, changes.limits, offered=offered)
        told = audit.difference(before, await _told(workspace_id, end_user_id))
        await audit.note(caller.actor, "endUser.update", ("EndUser", end_user_id), told, workspace_id=workspace_id, at=caller.at)
    return await of_workspace(workspace_id, end_user_id)


async def _told(workspace_id: UUID, end_user_id: UUID) -> dict[str, object]:
    end_user = await of_workspace(workspace_id, end_user_id)
    return {"externalId": end_user.external_id, "blockedAt": end_user.blocked_at, "bounds": await limits.told(workspace_id, end_user_id)}


async def page(caller: Caller, app_id: UUID, page: Page, start: str | None = None) -> PageOf[EndUserView]:
    """Return a page of an app's end users, last seen first; `start` is how their names begin. Raises MissingScope (APPS_READ)."""
    clauses: list[str] = []
    arguments: list[object] = [caller.require(Scope.APPS_READ), app_id, _beginning(start)]
    for bound, past in ((page.after, "<"), (page.before, ">")):
        if bound is not None:
            arguments.append(bound)
            clauses.append(f" AND ({_SEEN}, u.id) {past} ({_PLACE} AND o.id = ${len(arguments)})")
    way = "ASC" if page.backwards else "DESC"
    rows = await database.fetch(
        f"SELECT {_COLUMNS} FROM end_user u WHERE {_MATCH}{''.join(clauses)} ORDER BY {_SEEN} {way}, u.id {way} LIMIT {page.size + 1}", *arguments
    )
    return cut([_view(row) for row in rows], page)


async def count(caller: Caller, app_id: UUID, start: str | None = None) -> int:
    """Return how many end users an app has. Raises MissingScope (APPS_READ)."""
    statement = f"SELECT count(*) FROM end_user u WHERE {_MATCH}"
    return int(await database.fetch_value(statement, caller.require(Scope.APPS_READ), app_id, _beginning(start)))


async def _found(workspace_id: UUID, ids: Sequence[UUID]) -> dict[UUID, EndUserView]:
    rows = await database.fetch(f"SELECT {_COLUMNS} FROM end_user u WHERE u.workspace_id = $1 AND u.id = ANY ($2)", workspace_id, list(ids))
    return {row["id"]: _view(row) for row in rows}


def _beginning(start: str | None) -> str:
    literal = "".join(f"!{letter}" if letter in "!%_" else letter for letter in (start or "").replace("\x00", "\ufffd"))
    return f"{literal}%"
