"""The registry of apps: globally unique names, what their makers say of them, and whose they are."""

import decimal
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from domain import audit, idempotency
from domain.access import keys, limits, workspaces
from domain.access.callers import Actor, Caller
from domain.access.keys import COUNTS, UNSET, Unset
from domain.access.limits import BoundInput
from domain.access.workspaces import check_name
from domain.apps import manifest as manifests
from domain.apps import plans, sites
from domain.errors import Forbidden, InvalidInput, NotFound, OutOfRange, Taken
from domain.pages import Page, PageOf, cut
from models import database
from models.enums import ActorKind, LimitPer, Measure, Role, Scope, SubjectKind
from models.ids import uuid7

SLUG = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*", re.ASCII)
SHORTEST_SLUG, LONGEST_SLUG = 3, 50
LONGEST_DESCRIPTION = 2_000
LARGEST_MARKUP = decimal.Decimal(1_000)
MARKUP_PLACES = 6
RESERVED = frozenset(
    (
        *("about", "abuse", "account", "accounts", "admin", "administrator", "api", "apis", "app", "apps", "assets"),
        *("auth", "billing", "cdn", "console", "dashboard", "developers", "dns", "docs", "email", "ftp", "git"),
        *("graphiql", "graphql", "health", "hosting", "hostmaster", "imap", "internal", "legal", "localhost", "login", "logout"),
        *("mail", "manage", "metrics", "mobile", "ns1", "ns2", "oauth", "operator", "owner", "payment", "payments"),
        *("ping", "policy", "pop", "postmaster", "pricing", "privacy", "proxy", "root", "security", "service", "signin"),
        *("signup", "smtp", "sso", "static", "status", "support", "system", "tallygate", "tenant", "terms", "uploads"),
        *("usage", "webmail", "webmaster", "wpad", "www"),
    )
)
"""Names that would be taken for the installation's own."""
DEFAULT_BUDGETS = (BoundInput(Measure.MONEY, "day", 5_000_000),)
"""What an app may spend in a day until its owner says otherwise."""
DEFAULT_LIMITS = (BoundInput(Measure.CALLS, "1m", 60, LimitPer.ADDRESS),)
"""How often one visitor may call until the app's owner says otherwise."""


class Order(StrEnum):
    """What a list of apps is sorted by."""

    CREATED_AT = "created_at"
    UPDATED_AT = "updated_at"
    NAME = "name"


@dataclass(frozen=True, slots=True)
class NewApp:
    """An app to register."""

    slug: str
    name: str
    description: str | None = None
    idempotency_key: str | None = None
    manifest: object = None


@dataclass(frozen=True, slots=True)
class AppChanges:
    """What to change of an app; UNSET stays as it is, None clears."""

    name: str | Unset | None = UNSET
    description: str | Unset | None = UNSET
    manifest: object | Unset = UNSET
    suspended: bool | Unset | None = UNSET
    wallet_markup: decimal.Decimal | Unset | None = UNSET
    budgets: tuple[BoundInput, ...] | Unset = UNSET
    limits: tuple[BoundInput, ...] | Unset = UNSET


@dataclass(frozen=True, slots=True)
class AppView:
    """An app of a workspace."""

    id: UUID
    workspace_id: UUID
    slug: str
    name: str
    description: str | None
    manifest: dict[str, Any]
    creator: Actor
    wallet_markup: decimal.Decimal
    suspended_at: datetime | None
    live_deployment_id: UUID | None
    created_at: datetime
    updated_at: datetime


_COLUMNS = """a.id, a.workspace_id, a.slug, a.name, a.description, a.manifest, a.creator_kind, a.creator_id, a.creator_name, a.wallet_markup,
    a.suspended_at, a.live_deployment_id, a.created_at, a.updated_at"""
_MINE = "a.workspace_id = $1 AND a.deleted_at IS NULL"


def _view(row: asyncpg.Record) -> AppView:
    return AppView(
        id=row["id"],
        workspace_id=row["workspace_id"],
        slug=row["slug"],
        name=row["name"],
        description=row["description"],
        manifest=msgspec.json.decode(row["manifest"]),
        creator=Actor(ActorKind(row["creator_kind"]), row["creator_id"], row["creator_name"]),
        wallet_markup=row["wallet_markup"].normalize() + 0,
        suspended_at=row["suspended_at"],
        live_deployment_id=row["live_deployment_id"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


async def page(caller: Caller, page: Page, order: Order = Order.UPDATED_AT, *, ascending: bool = False) -> PageOf[AppView]:
    """Return a page of the workspace's apps."""
    workspace_id = caller.require(Scope.APPS_READ)
    column = f"a.{order.value}"
    clauses: list[str] = []
    arguments: list[object] = [workspace_id]
    for bound, past in ((page.after, ">" if ascending else "<"), (page.before, "<" if ascending else ">")):
        if bound is not None:
            arguments.append(bound)
            clauses.append(f" AND ({column}, a.id) {past} (SELECT {order.value}, id FROM app WHERE workspace_id = $1 AND id = ${len(arguments)})")
    way = "ASC" if ascending != page.backwards else "DESC"
    rows = await database.fetch(
        f"SELECT {_COLUMNS} FROM app a WHERE {_MINE} {''.join(clauses)} ORDER BY {column} {way}, a.id {way} LIMIT {page.size + 1}", *arguments
    )
    return cut([_view(row) for row in rows], page)


async def count(caller: Caller) -> int:
    """Return how many apps the workspace has."""
    return int(await database.fetch_value(f"SELECT count(*) FROM app a WHERE {_MINE}", caller.require(Scope.APPS_READ)))


async def in_use(workspace_id: UUID) -> tuple[int, int]:
    """Return how many apps a workspace has, and how many of them have a live deployment; the caller has been let in to see it."""
    row = await database.fetch_row(
        "SELECT count(*) AS apps, count(live_deployment_id) AS live FROM app WHERE workspace_id = $1 AND deleted_at IS NULL", workspace_id
    )
    assert row is not None, "an aggregate has a row"
    return row["apps"], row["live"]


async def find_many(caller: Caller, ids: Sequence[UUID]) -> dict[UUID, AppView]:
    """Return those of the workspace's apps that have these ids, by id."""
    rows = await database.fetch(f"SELECT {_COLUMNS} FROM app a WHERE {_MINE} AND a.id = ANY ($2)", caller.require(Scope.APPS_READ), list(ids))
    return {row["id"]: _view(row) for row in rows}


async def of_workspace(workspace_id: UUID, app_id: UUID) -> AppView | None:
    """Return an app of a workspace, or None; the caller has been let in to use it."""
    row = await database.fetch_row(f"SELECT {_COLUMNS} FROM app a WHERE {_MINE} AND a.id = $2", workspace_id, app_id)
    return None if row is None else _view(row)


async def anywhere(caller: Caller, app_id: UUID) -> AppView | None:
    """Return an app of any workspace, a deleted one too, or None; operators only."""
    caller.require(Scope.OPERATOR)
    row = await database.fetch_row(f"SELECT {_COLUMNS} FROM app a WHERE a.id = $1", app_id)
    return None if row is None else _view(row)


async def find(caller: Caller, app_id: UUID) -> AppView:
    """Return one app of the workspace; raises NotFound for another's too."""
    found = await find_many(caller, [app_id])
    if app_id not in found:
        raise NotFound("app", path=("id",))
    return found[app_id]


async def named(caller: Caller, slug: str, *scopes: Scope) -> AppView:
    """Return the app of a name to a caller who has the scopes, APPS_READ where none is named.

    Raises NotFound when nobody has it, and Forbidden when it is another workspace's: names are unique over all, so that whoever tries to
    take one learns as much.
    """
    workspace_id = caller.require(*(scopes or (Scope.APPS_READ,)))
    found = await shown(slug)
    if found is None:
        raise NotFound("app", path=("appId",))
    if found.workspace_id != workspace_id:
        raise Forbidden("This app belongs to another workspace.")
    return found


@dataclass(frozen=True, slots=True)
class AppLabel:
    """What reports call an app."""

    slug: str
    name: str


async def labels(caller: Caller, ids: Sequence[UUID]) -> dict[UUID, AppLabel]:
    """Return slug and name of the workspace's apps that have these ids, deleted ones too: their usage stays."""
    rows = await database.fetch("SELECT id, slug, name FROM app WHERE workspace_id = $1 AND id = ANY ($2)", caller.workspace(), list(ids))
    return {row["id"]: AppLabel(row["slug"], row["name"]) for row in rows}


async def shown(slug: str) -> AppView | None:
    """Return the app of a name to its visitors, who see none of it but what their tokens may do; None when nobody has it, or could."""
    if not SLUG.fullmatch(slug):
        return None
    row = await database.fetch_row(
        f"SELECT {_COLUMNS} FROM app_name n JOIN app a ON a.workspace_id = n.workspace_id AND a.id = n.app_id WHERE n.slug = $1 AND a.deleted_at IS NULL", slug
    )
    return None if row is None else _view(row)


async def id_of(caller: Caller, slug: str) -> UUID:
    """Return the id of the workspace's newest app that has, or had, a name; raises NotFound for any other."""
    row = await database.fetch_row("SELECT id FROM app WHERE workspace_id = $1 AND slug = $2 ORDER BY id DESC LIMIT 1", caller.workspace(), slug)
    if row is None:
        raise NotFound("app", path=("appId",))
    found: UUID = row["id"]
    return found


async def create(caller: Caller, new: NewApp) -> AppView:
    """Register an app, with a daily cap and a limit for each address, which its owner may change; the same idempotency key registers it once.

    Raises IdempotencyConflict, InvalidInput and its kin for malformed values, Taken with free names for one that is somebody's or reserved, QuotaReached when the
    plan allows no more apps.
    """
    workspace_id = caller.require(Scope.APPS_WRITE)
    _check_slug(new.slug)
    name, description = check_name(new.name), _check_description(new.description)
    if new.slug in RESERVED:
        raise await _taken(new.slug)
    wanted = manifests.check({} if new.manifest is None else new.manifest)
    minter = await _minter(caller, public_tokens=wanted.get(manifests.PUBLIC_TOKENS) is True)
    app_id = uuid7()
    async with database.transaction():
        if new.idempotency_key is not None:
            asked = [new.slug, new.name, new.description, *([wanted] if wanted else [])]
            first = await idempotency.claim(workspace_id, "appCreate", new.idempotency_key, asked, app_id)
            if first is not None:
                return await _again(workspace_id, first)
        await plans.make_room_for_app(workspace_id, at=caller.at)
        took = await database.fetch_row(
            """
            INSERT INTO app_name AS n (slug, workspace_id, app_id, taken_at) VALUES ($1, $2, $3, $4)
                ON CONFLICT (slug) DO UPDATE SET app_id = excluded.app_id, taken_at = excluded.taken_at
             WHERE n.app_id IS NULL AND n.workspace_id = excluded.workspace_id
            RETURNING slug
            """,
            new.slug,
            workspace_id,
            app_id,
            caller.at,
        )
        if took is None:
            raise await _taken(new.slug)
        await database.fetch(
            """
            INSERT INTO app (workspace_id, id, slug, name, description, manifest, creator_kind, creator_id, creator_name, minter_kind, minter_id, minter_name,
                             wallet_markup, last_version, created_at, updated_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 1,
                    -- on from those of apps of that name that were deleted: what an address of a version showed may be kept for a year
                    (SELECT coalesce(max(o.last_version), 0) FROM app o WHERE o.workspace_id = $1 AND o.slug = $3::varchar), $13, $13)
            """,
            workspace_id,
            app_id,
            new.slug,
            name,
            description,
            msgspec.json.encode(wanted).decode(),
            caller.actor.kind.value,
            caller.actor.id,
            caller.actor.name[:200],
            *(minter[column] for column in ("minter_kind", "minter_id", "minter_name")),
            caller.at,
        )
        await limits.replace(workspace_id, SubjectKind.APP, app_id, (Measure.MONEY,), DEFAULT_BUDGETS, at=caller.at)
        await limits.replace(workspace_id, SubjectKind.APP, app_id, COUNTS, DEFAULT_LIMITS, at=caller.at)
        told = audit.difference(None, await _told(workspace_id, app_id))
        await audit.note(caller.actor, "app.create", ("App", app_id), told, workspace_id=workspace_id, at=caller.at)
    return await _again(workspace_id, app_id)


async def update(caller: Caller, app_id: UUID, changes: AppChanges) -> AppView:
    """Change what is said of an app; raises NotFound, InvalidInput and its kin. A change is whole or not at all."""
    workspace_id = caller.require(Scope.APPS_WRITE)
    asked: dict[str, object] = {}
    if not isinstance(changes.name, Unset):
        asked["name"] = check_name(changes.name or "")
    if not isinstance(changes.description, Unset):
        asked["description"] = _check_description(changes.description)
    if not isinstance(changes.manifest, Unset):
        wanted = manifests.check({} if changes.manifest is None else changes.manifest)
        asked["manifest"] = msgspec.json.encode(wanted).decode()
        asked |= await _minter(caller, public_tokens=wanted.get(manifests.PUBLIC_TOKENS) is True)
    if not isinstance(changes.wallet_markup, Unset):
        asked["wallet_markup"] = _check_markup(changes.wallet_markup)
    for field, bounds in (("budgets", changes.budgets), ("limits", changes.limits)):
        if not isinstance(bounds, Unset):
            limits.check(bounds, path=field)
    assignments = [f"{column} = ${index}" for index, column in enumerate(asked, start=4)]
    if not isinstance(changes.suspended, Unset):
        assignments.append("suspended_at = coalesce(suspended_at, clock_timestamp())" if changes.suspended else "suspended_at = NULL")
    async with database.transaction():
        found = await database.fetch_row("SELECT id FROM app WHERE workspace_id = $1 AND id = $2 AND deleted_at IS NULL FOR NO KEY UPDATE", workspace_id, app_id)
        if found is None:
            raise NotFound("app", path=("id",))
        before = await _told(workspace_id, app_id)
        row = await database.fetch_row(
            f"""
            UPDATE app SET {", ".join([*assignments, "updated_at = greatest(updated_at, $3)"])} WHERE workspace_id = $1 AND id = $2 AND deleted_at IS NULL
            RETURNING id
            """,
            workspace_id,
            app_id,
            caller.at,
            *asked.values(),
        )
        if row is None:
            raise NotFound("app", path=("id",))
        if not isinstance(changes.budgets, Unset):
            await limits.replace(workspace_id, SubjectKind.APP, app_id, (Measure.MONEY,), changes.budgets, at=caller.at)
        if not isinstance(changes.limits, Unset):
            await limits.replace(workspace_id, SubjectKind.APP, app_id, COUNTS, changes.limits, at=caller.at)
        if not (isinstance(changes.manifest, Unset) and isinstance(changes.suspended, Unset)):
            database.after_commit(sites.moved)
        told = audit.difference(before, await _told(workspace_id, app_id))
        await audit.note(caller.actor, "app.update", ("App", app_id), told, workspace_id=workspace_id, at=caller.at)
    return await _again(workspace_id, app_id)


async def delete(caller: Caller, app_id: UUID) -> AppView:
    """Delete an app, and return what it was: it is served no more, its usage stays, its name stays the workspace's. Raises NotFound."""
    workspace_id = caller.require(Scope.APPS_WRITE)
    async with database.transaction():
        row = await database.fetch_row(
            f"UPDATE app a SET deleted_at = clock_timestamp() WHERE {_MINE} AND a.id = $2 RETURNING {_COLUMNS}", workspace_id, app_id
        )
        if row is None:
            raise NotFound("app", path=("id",))
        database.after_commit(sites.moved)
        await database.fetch("UPDATE app_name SET app_id = NULL WHERE slug = $1 AND app_id = $2", row["slug"], app_id)
        await audit.note(caller.actor, "app.delete", ("App", app_id), {"slug": (row["slug"], None)}, workspace_id=workspace_id, at=caller.at)
    return _view(row)


async def transfer(caller: Caller, app_id: UUID, to: UUID) -> AppView:
    """Give an app to another workspace in which the calling person is owner or admin; its past usage stays where it was made.

    Its deployments and addresses go with it, and its bounds, with windows that begin afresh; tokens that were made for it do not, because a
    key of the old workspace stands behind them. Raises Forbidden for a key, NotFound for the app, and for a workspace that the person does
    not manage, QuotaReached when the plan there allows no more.
    """
    workspace_id, person = caller.require(Scope.APPS_WRITE), caller.person()
    places = await workspaces.of_user(person)
    if not any(place.workspace.id == to and place.role in (Role.OWNER, Role.ADMIN) for place in places):
        raise NotFound("workspace of which you are owner or admin", path=("workspaceId",))
    if to == workspace_id:
        return await find(caller, app_id)
    async with database.transaction():
        await plans.make_room_for_app(to, at=caller.at)
        await plans.make_room_for_site(to, app_id, at=caller.at)
        moved = await database.fetch_row(
            """
            UPDATE app SET workspace_id = $3, updated_at = greatest(updated_at, $4),
                   minter_id = CASE WHEN minter_id IS NOT NULL THEN $5::uuid END, minter_kind = CASE WHEN minter_id IS NOT NULL THEN 'user' END,
                   minter_name = CASE WHEN minter_id IS NOT NULL THEN $6::text END
             WHERE workspace_id = $1 AND id = $2 AND deleted_at IS NULL RETURNING slug
            """,
            workspace_id,
            app_id,
            to,
            caller.at,
            person,  # whoever gives the app away stands for what it hands out, there as well
            caller.name[:200],
        )
        if moved is None:
            raise NotFound("app", path=("id",))
        database.after_commit(sites.moved)
        await database.fetch("UPDATE app_name SET workspace_id = $2 WHERE slug = $1", moved["slug"], to)
        await database.fetch(
            "SELECT FROM account WHERE workspace_id = ANY ($1) AND kind = 'cash' ORDER BY workspace_id FOR NO KEY UPDATE", [workspace_id, to]
        )  # both at once and in order, so that two transfers across each other do not wait in a circle
        bounds = (await limits.of_subjects(workspace_id, [app_id])).get(app_id, [])
        for measures in ((Measure.MONEY,), COUNTS):
            kept = tuple(BoundInput(b.measure, b.window, b.most, b.per, b.model) for b in bounds if b.measure in measures)
            await limits.replace(workspace_id, SubjectKind.APP, app_id, measures, (), at=caller.at)
            await limits.replace(to, SubjectKind.APP, app_id, measures, kept, at=caller.at)
        for place in (workspace_id, to):
            told = {"workspaceId": (workspace_id, to)}
            await audit.note(caller.actor, "app.transfer", ("App", app_id), told, workspace_id=place, at=caller.at)
    return await _again(to, app_id)


async def _minter(caller: Caller, *, public_tokens: bool) -> dict[str, object]:
    """Who stands for the tokens that an app hands to its visitors: whoever switched them on, and nobody else."""
    if not public_tokens:
        return {"minter_kind": None, "minter_id": None, "minter_name": None}
    caller.require(Scope.CLIENT_TOKENS_WRITE)
    if caller.key_id is None:
        return {"minter_kind": ActorKind.USER.value, "minter_id": caller.person(), "minter_name": caller.name[:200]}
    if await keys.own(caller) is None:
        raise Forbidden("A key of another workspace cannot switch public tokens on: they would stand on nobody here.")
    return {"minter_kind": ActorKind.API_KEY.value, "minter_id": caller.key_id, "minter_name": caller.name[:200]}


async def _told(workspace_id: UUID, app_id: UUID) -> dict[str, object]:
    app = await _again(workspace_id, app_id)
    return {
        "slug": app.slug,
        "name": app.name,
        "description": app.description,
        "manifest": app.manifest,
        "walletMarkup": str(app.wallet_markup),
        "suspendedAt": app.suspended_at,
        "bounds": await limits.told(workspace_id, app_id),
    }


async def _again(workspace_id: UUID, app_id: UUID) -> AppView:
    row = await database.fetch_row(f"SELECT {_COLUMNS} FROM app a WHERE a.workspace_id = $1 AND a.id = $2", workspace_id, app_id)
    assert row is not None, "apps are never deleted from the table"
    return _view(row)


def _check_slug(slug: str) -> None:
    if not SHORTEST_SLUG <= len(slug) <= LONGEST_SLUG or not SLUG.fullmatch(slug):
        raise InvalidInput(
            f"An app's id has {SHORTEST_SLUG} to {LONGEST_SLUG} lower-case letters, digits and single hyphens inside.", path=("slug",)
        )


def _check_description(description: str | None) -> str | None:
    if description is not None and len(description) > LONGEST_DESCRIPTION:
        raise OutOfRange(
            f"A description has at most {LONGEST_DESCRIPTION} characters.", minimum=0, maximum=LONGEST_DESCRIPTION, too_large=True, path=("description",)
        )
    return description or None


def _check_markup(markup: decimal.Decimal | None) -> decimal.Decimal:
    if markup is None:
        return decimal.Decimal(1)
    if not 0 <= markup <= LARGEST_MARKUP:
        raise OutOfRange("A markup is 0 to 1000.", minimum=0, maximum=int(LARGEST_MARKUP), too_large=markup > 0, path=("walletMarkup",))
    if markup != markup.quantize(decimal.Decimal(1).scaleb(-MARKUP_PLACES)):
        raise InvalidInput(f"A markup has at most {MARKUP_PLACES} decimals.", path=("walletMarkup",))
    return markup


async def _taken(slug: str) -> Taken:
    close = [f"{slug[: LONGEST_SLUG - len(tail)].rstrip('-')}{tail}" for tail in ("-app", *(f"-{number}" for number in range(2, 12)))]
    rows = await database.fetch("SELECT slug FROM app_name WHERE slug = ANY ($1)", close)
    gone = {row["slug"] for row in rows} | RESERVED
    free = tuple(name for name in close if name not in gone)[:3]
    return Taken(f"The id {slug} is taken.", suggestions=free, path=("slug",))
