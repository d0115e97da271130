"""Grants: promotional credit with an account of its own, spent before cash, lower priority first, then what expires first."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import asyncpg

from domain import audit, idempotency
from domain.access import workspaces
from domain.access.callers import Actor, Caller
from domain.errors import InvalidInput, InvalidState, NotFound, OutOfRange
from domain.money.ledger import LARGEST_ADJUSTMENT_MICROUSD, check_reason
from domain.pages import Page, PageOf, cut
from models import database
from models.enums import ActorKind, Scope, TransferKind
from models.ids import uuid7

LARGEST_PRIORITY = 1_000_000
MOST_RESTRICTIONS = 100
SWEEP_AT_ONCE = 200
SYSTEM = Actor(ActorKind.SYSTEM, None, "sweep")


class GrantStatus(StrEnum):
    """Whether a grant can be spent."""

    ACTIVE = "active"
    USED_UP = "used_up"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class NewGrant:
    """A grant to give; `models` and `apps` None mean that it pays for every call."""

    amount_microusd: int
    reason: str
    idempotency_key: str
    priority: int = 100
    models: tuple[str, ...] | None = None
    apps: tuple[UUID, ...] | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class GrantView:
    """A grant, whose id is its account's; amounts in microdollars, `remaining` with what calls under way hold of it."""

    id: UUID
    workspace_id: UUID
    amount: int
    remaining: int
    status: GrantStatus
    priority: int
    models: tuple[str, ...] | None
    apps: tuple[UUID, ...] | None
    reason: str
    creator: Actor
    created_at: datetime
    expires_at: datetime | None


_SELECT = """
    SELECT g.*, a.credits - a.debits AS remaining,
           CASE WHEN g.revoked_at IS NOT NULL THEN 'revoked' WHEN g.expires_at <= clock_timestamp() THEN 'expired'
                WHEN a.credits = a.debits THEN 'used_up' ELSE 'active' END AS status
      FROM credit_grant g JOIN account a ON a.workspace_id = g.workspace_id AND a.id = g.id
"""


def _view(row: asyncpg.Record) -> GrantView:
    return GrantView(
        id=row["id"],
        workspace_id=row["workspace_id"],
        amount=row["amount"],
        remaining=row["remaining"],
        status=GrantStatus(row["status"]),
        priority=row["priority"],
        models=None if row["models"] is None else tuple(row["models"]),
        apps=None if row["apps"] is None else tuple(row["apps"]),
        reason=row["reason"],
        creator=Actor(ActorKind(row["creator_kind"]), row["creator_id"], row["creator_name"]),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
    )


def _check(new: NewGrant, at: datetime) -> None:
    if not 1 <= new.amount_microusd <= LARGEST_ADJUSTMENT_MICROUSD:
        raise OutOfRange(
            "A grant is above zero and at most a million dollars.",
            minimum=1,
            maximum=LARGEST_ADJUSTMENT_MICROUSD,
            too_large=new.amount_microusd > 0,
            path=("amount",),
        )
    if not 0 <= new.priority <= LARGEST_PRIORITY:
        raise OutOfRange(f"A priority is 0 to {LARGEST_PRIORITY}.", minimum=0, maximum=LARGEST_PRIORITY, too_large=new.priority > 0, path=("priority",))
    for name, restriction in (("models", new.models), ("apps", new.apps)):
        if restriction is not None and not 1 <= len(restriction) <= MOST_RESTRICTIONS:
            raise InvalidInput(f"Name 1 to {MOST_RESTRICTIONS}, or leave it out for all.", path=(name,))
    if new.expires_at is not None and new.expires_at <= at:
        raise InvalidInput("It would be over before it begins: name an end in the future.", path=("expiresAt",))


async def create(caller: Caller, workspace_id: UUID | None, new: NewGrant) -> GrantView:
    """Give a workspace promotional credit; the same key gives it once. Operators only.

    Raises NotFound for the workspace or one of the apps, OutOfRange, InvalidInput, IdempotencyConflict.
    """
    target = workspace_id or caller.require(Scope.OPERATOR)
    caller.require(Scope.OPERATOR)
    reason = check_reason(new.reason)
    _check(new, caller.at)
    if not await workspaces.exists(target):
        raise NotFound("workspace", path=("workspaceId",))
    if new.apps is not None:
        known = await database.fetch("SELECT id FROM app WHERE workspace_id = $1 AND id = ANY ($2) AND deleted_at IS NULL", target, list(new.apps))
        if {row["id"] for row in known} != set(new.apps):
            raise NotFound("app", path=("apps",))
    grant_id = uuid7()
    said = [new.amount_microusd, reason, new.priority, new.models, new.apps, new.expires_at]
    async with database.transaction():
        await _lock(target)
        first = await idempotency.claim(target, "grantCreate", new.idempotency_key, said, grant_id)
        if first is not None:
            return await find(target, first)
        await database.fetch(
            """
            INSERT INTO account (workspace_id, id, kind, credits, debits, held, floor, version, carry_picousd, list_carry_picousd, updated_at)
            VALUES ($1, $2, 'grant', 0, 0, 0, 0, 0, 0, 0, $3)
            """,
            target,
            grant_id,
            caller.at,
        )
        await database.fetch(
            """
            INSERT INTO credit_grant (workspace_id, id, amount, priority, models, apps, reason, creator_kind, creator_id, creator_name, created_at, expires_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
            """,
            target,
            grant_id,
            new.amount_microusd,
            new.priority,
            None if new.models is None else list(new.models),
            None if new.apps is None else list(new.apps),
            reason,
            caller.actor.kind.value,
            caller.actor.id,
            caller.actor.name[:200],
            caller.at,
            new.expires_at,
        )
        await database.fetch("UPDATE workspace SET has_grants = true WHERE id = $1 AND NOT has_grants", target)
        await _move(target, TransferKind.GRANT, f"give:{grant_id}", "promotions", grant_id, new.amount_microusd, reason, caller.actor)
        told = {"amountMicroUsd": (None, new.amount_microusd), "priority": (None, new.priority), "expiresAt": (None, new.expires_at)}
        await audit.note(caller.actor, "grant.create", ("Grant", grant_id), told, workspace_id=target, at=caller.at, reason=reason)
    return await find(target, grant_id)


async def find(workspace_id: UUID, grant_id: UUID) -> GrantView:
    """Return a grant of a workspace; raises NotFound."""
    row = await database.fetch_row(f"{_SELECT} WHERE g.workspace_id = $1 AND g.id = $2", workspace_id, grant_id)
    if row is None:
        raise NotFound("grant", path=("id",))
    return _view(row)


async def revoke(caller: Caller, grant_id: UUID, reason: str) -> GrantView:
    """Take back what is left of a grant, what calls under way hold of it when they have ended; doing it twice is no error. Operators only.

    Raises NotFound, and InvalidState for one that has expired.
    """
    caller.require(Scope.OPERATOR)
    reason = check_reason(reason)
    workspace_id = await database.fetch_value("SELECT workspace_id FROM credit_grant WHERE id = $1", grant_id)
    if workspace_id is None:
        raise NotFound("grant", path=("id",))
    async with database.transaction():
        await _lock(workspace_id)
        grant = await find(workspace_id, grant_id)
        if grant.status is GrantStatus.EXPIRED:
            raise InvalidState("This grant has expired: what was left of it is booked.", state="expired", path=("id",))
        if grant.status is not GrantStatus.REVOKED:
            await database.fetch("UPDATE credit_grant SET revoked_at = $3, closed_at = $3 WHERE workspace_id = $1 AND id = $2", workspace_id, grant_id, caller.at)
            await _take(workspace_id, grant_id, TransferKind.GRANT, "promotions", reason, caller.actor)
            told = {"status": (grant.status.value, GrantStatus.REVOKED.value)}
            await audit.note(caller.actor, "grant.revoke", ("Grant", grant_id), told, workspace_id=workspace_id, at=caller.at, reason=reason)
    return await find(workspace_id, grant_id)


async def sweep() -> int:
    """Book what is left of grants that are over: as breakage where their time was, back to promotions where they were revoked; return how many.

    What a call under way still holds is booked by a later sweep. Any process may do so at any time.
    """
    rows = await database.fetch(
        """
        SELECT g.workspace_id, g.id, g.revoked_at IS NOT NULL AS revoked FROM credit_grant g JOIN account a ON a.workspace_id = g.workspace_id AND a.id = g.id
         WHERE (g.closed_at IS NOT NULL OR g.expires_at <= clock_timestamp()) AND a.credits - a.debits - a.held > 0 ORDER BY g.id LIMIT $1
        """,
        SWEEP_AT_ONCE,
    )
    for row in rows:
        async with database.transaction():
            await _lock(row["workspace_id"])
            if row["revoked"]:
                await _take(row["workspace_id"], row["id"], TransferKind.GRANT, "promotions", "the rest of a revoked grant", SYSTEM)
            else:
                await database.fetch(
                    "UPDATE credit_grant SET closed_at = clock_timestamp() WHERE workspace_id = $1 AND id = $2 AND closed_at IS NULL", row["workspace_id"], row["id"]
                )
                await _take(row["workspace_id"], row["id"], TransferKind.EXPIRY, "breakage", "the grant expired", SYSTEM)
    return len(rows)


async def _lock(workspace_id: UUID) -> None:
    await database.fetch("SELECT FROM account WHERE workspace_id = $1 AND kind = 'cash' FOR NO KEY UPDATE", workspace_id)


async def _take(workspace_id: UUID, grant_id: UUID, kind: TransferKind, to: str, reason: str, actor: Actor) -> None:
    """Book what is left and not held, under the lock; the account's version makes each time its own."""
    row = await database.fetch_row("SELECT version, credits - debits - held AS free FROM account WHERE workspace_id = $1 AND id = $2", workspace_id, grant_id)
    assert row is not None, "a grant is never without its account"
    if row["free"] > 0:
        await _move(workspace_id, kind, f"over:{grant_id}:{row['version']}", grant_id, to, row["free"], reason, actor)


async def _move(workspace_id: UUID, kind: TransferKind, ref: str, debit: UUID | str, credit: UUID | str, amount: int, reason: str, actor: Actor) -> None:
    rows = await database.fetch("SELECT kind, id FROM account WHERE workspace_id = $1 AND kind IN ('promotions', 'breakage')", workspace_id)
    own = {row["kind"]: row["id"] for row in rows}
    await database.fetch(
        "SELECT move_1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        workspace_id,
        kind.value,
        ref,
        own[debit] if isinstance(debit, str) else debit,
        own[credit] if isinstance(credit, str) else credit,
        amount,
        reason,
        actor.kind.value,
        actor.id,
        actor.name[:200],
    )


_ORDER = "g.priority, coalesce(g.expires_at, 'infinity'::timestamptz), g.id"
_STATUSES = "($2::text[] IS NULL OR s.status = ANY ($2)) AND s.workspace_id = $1"


async def page(caller: Caller, wanted: Page, statuses: Sequence[GrantStatus] | None) -> PageOf[GrantView]:
    """Return a page of the workspace's grants in the order in which they are spent; None means of every status."""
    workspace_id = caller.require(Scope.BILLING_READ)
    clauses = ""
    arguments: list[object] = [workspace_id, None if statuses is None else [status.value for status in statuses], wanted.size + 1]
    for past, edge in ((">", wanted.after), ("<", wanted.before)):
        if edge is not None:
            arguments.append(edge)
            place = f"SELECT {_ORDER} FROM credit_grant g WHERE g.workspace_id = $1 AND g.id = ${len(arguments)}"
            clauses += f" AND ({_ORDER.replace('g.', 's.')}) {past} ({place})"
    direction = "DESC" if wanted.backwards else "ASC"
    order = f"s.priority {direction}, coalesce(s.expires_at, 'infinity'::timestamptz) {direction}, s.id {direction}"
    rows = await database.fetch(f"SELECT * FROM ({_SELECT}) s WHERE {_STATUSES} {clauses} ORDER BY {order} LIMIT $3", *arguments)
    return cut([_view(row) for row in rows], wanted)


async def count(caller: Caller, statuses: Sequence[GrantStatus] | None) -> int:
    """Return how many grants there are of these statuses."""
    workspace_id = caller.require(Scope.BILLING_READ)
    return int(
        await database.fetch_value(
            f"SELECT count(*) FROM ({_SELECT}) s WHERE {_STATUSES}", workspace_id, None if statuses is None else [status.value for status in statuses]
        )
    )
