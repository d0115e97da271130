"""Subscriptions: who has which tier, whether it entitles now, and how much of its quotas is used. Admission enforces the same quotas by `quotas_1`."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import UUID

import asyncpg

from domain import audit, idempotency
from domain.access import workspaces
from domain.access.callers import Actor, Caller
from domain.errors import InvalidInput, InvalidState, NotFound
from domain.money import tiers
from domain.money.ledger import check_reason
from domain.money.tiers import SPENT, Limit, Tier
from domain.periods import length_seconds
from models import database
from models.enums import ActorKind, BillingCycle, Resource, Scope, SubscriptionSource, SubscriptionStatus
from models.ids import uuid7

CREDIT_MICROUSD = 10_000
DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class SubscriptionView:
    """A subscription as of one instant: `entitled` and the current period are those of that instant; `tier` is a slug."""

    id: UUID
    workspace_id: UUID
    tier: str
    source: SubscriptionSource
    status: SubscriptionStatus
    cycle: BillingCycle
    entitled: bool
    current_period_start: datetime
    current_period_end: datetime
    trial_ends_at: datetime | None
    grace_ends_at: datetime | None
    ends_at: datetime | None
    cancel_at_period_end: bool
    next_tier: str | None
    creator: Actor
    reason: str | None
    created_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class QuotaView:
    """What all subscriptions together allow of a resource in a window: `limit` None is no limit, `used` None is not counted here.

    What calls under way have set aside counts as used. The instants are None while no window runs, and for what is held.
    """

    resource: Resource
    window: str
    limit: int | None
    used: int | None
    started_at: datetime | None
    resets_at: datetime | None

    @property
    def remaining(self) -> int | None:
        """How much is left; None for no limit."""
        return None if self.limit is None or self.used is None else max(self.limit - self.used, 0)


L = TypeVar("L", Limit, QuotaView)


def longest(limits: Iterable[L], resource: Resource) -> L | None:
    """Return the limit of a resource over its longest window, for a page that has room for one number only; None when there is none.

    How many calls there may be at once is no such limit: it is none of what calls use up.
    """
    found = (limit for limit in limits if limit.resource is resource and (resource not in SPENT or limit.window != "concurrent"))
    return max(found, key=lambda limit: length_seconds(limit.window), default=None)


@dataclass(frozen=True, slots=True)
class TrialView:
    """A trial as of one instant."""

    ends_at: datetime
    days_remaining: int
    expired: bool


@dataclass(frozen=True, slots=True)
class BillingView:
    """What a workspace subscribes to: `subscription` is the one that gives the tier in force, or the last there was; `current` are all not over."""

    workspace_id: UUID
    tier: Tier | None
    subscription: SubscriptionView | None
    current: tuple[SubscriptionView, ...]
    tiers: dict[str, Tier]
    trial: TrialView | None
    overage_allowed: bool


_SELECT = """
    SELECT s.id, s.workspace_id, s.tier, s.source, s.status, s.cycle, entitled_1(s, $1) AS entitled, p.begins, p.ends, s.trial_ends_at, s.grace_ends_at, s.ends_at,
           s.cancel_at_period_end, s.next_tier, s.creator_kind, s.creator_id, s.creator_name, s.reason, s.created_at, s.ended_at
      FROM subscription s CROSS JOIN LATERAL period_1(s, $1) p
"""


def _view(row: asyncpg.Record) -> SubscriptionView:
    return SubscriptionView(
        id=row["id"],
        workspace_id=row["workspace_id"],
        tier=row["tier"],
        source=SubscriptionSource(row["source"]),
        status=SubscriptionStatus(row["status"]),
        cycle=BillingCycle(row["cycle"]),
        entitled=row["entitled"],
        current_period_start=row["begins"],
        current_period_end=row["ends"],
        trial_ends_at=row["trial_ends_at"],
        grace_ends_at=row["grace_ends_at"],
        ends_at=row["ends_at"],
        cancel_at_period_end=row["cancel_at_period_end"],
        next_tier=row["next_tier"],
        creator=Actor(ActorKind(row["creator_kind"]), row["creator_id"], row["creator_name"]),
        reason=row["reason"],
        created_at=row["created_at"],
        ended_at=row["ended_at"],
    )


async def of_workspace(workspace_id: UUID, *, at: datetime) -> list[SubscriptionView]:
    """Return every subscription that a workspace has or had, oldest first; the caller has been let in to see it."""
    return [_view(row) for row in await database.fetch(f"{_SELECT} WHERE s.workspace_id = $2 ORDER BY s.created_at, s.id", at, workspace_id)]


async def find(workspace_id: UUID, subscription_id: UUID, *, at: datetime) -> SubscriptionView:
    """Return a subscription of a workspace; raises NotFound."""
    row = await database.fetch_row(f"{_SELECT} WHERE s.workspace_id = $2 AND s.id = $3", at, workspace_id, subscription_id)
    if row is None:
        raise NotFound("subscription", path=("id",))
    return _view(row)


async def grant(
    caller: Caller, workspace_id: UUID, tier: str, reason: str, *, ends_at: datetime | None = None, idempotency_key: str
) -> SubscriptionView:
    """Give a workspace a tier without payment, until `ends_at` or for good; the same key gives it once.

    Operators only. Raises NotFound for the workspace or the tier, InvalidInput, IdempotencyConflict.
    """
    caller.require(Scope.OPERATOR)
    reason = check_reason(reason)
    if ends_at is not None and ends_at <= caller.at:
        raise InvalidInput("It would be over before it begins: name an end in the future.", path=("endsAt",))
    if not await workspaces.exists(workspace_id):
        raise NotFound("workspace", path=("workspaceId",))
    wanted = (await tiers.find_many([tier])).get(tier)
    if wanted is None or wanted.retired:
        raise NotFound("tier", path=("tierId",))
    subscription_id = uuid7()
    async with database.transaction():
        first = await idempotency.claim(workspace_id, "subscriptionGrant", idempotency_key, [tier, ends_at, reason], subscription_id)
        if first is None:
            await database.fetch(
                """
                INSERT INTO subscription (workspace_id, id, tier, source, status, cycle, current_period_start, current_period_end, ends_at, cancel_at_period_end,
                                          creator_kind, creator_id, creator_name, reason, created_at)
                VALUES ($1, $2, $3, 'granted', 'active', $4::text, $5,
                        $5::timestamptz + CASE $4::text WHEN 'yearly' THEN interval '1 year' ELSE interval '1 month' END, $6, false, $7, $8, $9, $10, $5)
                """,
                workspace_id,
                subscription_id,
                tier,
                wanted.billing_cycle.value,
                caller.at,
                ends_at,
                caller.actor.kind.value,
                caller.actor.id,
                caller.actor.name[:200],
                reason,
            )
            told = {"tier": (None, tier), "endsAt": (None, ends_at)}
            subject = ("TierSubscription", subscription_id)
            await audit.note(caller.actor, "subscription.grant", subject, told, workspace_id=workspace_id, at=caller.at, reason=reason)
    return await find(workspace_id, first or subscription_id, at=caller.at)


async def end(caller: Caller, subscription_id: UUID) -> SubscriptionView:
    """End a granted subscription now; doing it twice is no error. Operators only.

    Raises NotFound, and InvalidState for one that Stripe keeps going: end that at Stripe, or its money would go on.
    """
    caller.require(Scope.OPERATOR)
    row = await database.fetch_row("SELECT workspace_id, source FROM subscription WHERE id = $1", subscription_id)
    if row is None:
        raise NotFound("subscription", path=("id",))
    if row["source"] != SubscriptionSource.GRANTED:
        raise InvalidState("Stripe keeps this subscription going: end it there.", state="stripe", path=("id",))
    async with database.transaction():
        ended = await database.fetch_row(
            "UPDATE subscription SET status = 'canceled', ended_at = $3 WHERE workspace_id = $1 AND id = $2 AND ended_at IS NULL RETURNING id",
            row["workspace_id"],
            subscription_id,
            caller.at,
        )
        if ended is not None:
            subject, told = ("TierSubscription", subscription_id), {"endedAt": (None, caller.at)}
            await audit.note(caller.actor, "subscription.end", subject, told, workspace_id=row["workspace_id"], at=caller.at)
    return await find(row["workspace_id"], subscription_id, at=caller.at)


async def billing(caller: Caller) -> BillingView:
    """Return what the caller's workspace subscribes to, without a look at its usage."""
    workspace_id = caller.require(Scope.BILLING_READ)
    every = await of_workspace(workspace_id, at=caller.at)
    known = await tiers.find_many([slug for each in every for slug in (each.tier, each.next_tier) if slug])
    main = _main(every, known)
    trials = [each.trial_ends_at for each in every if each.trial_ends_at is not None]
    return BillingView(
        workspace_id=workspace_id,
        tier=known[main.tier] if main is not None and main.entitled else None,
        subscription=main,
        current=tuple(each for each in every if each.entitled or (each.ended_at is None and (each.ends_at is None or each.ends_at > caller.at))),
        tiers=known,
        trial=_trial(max(trials), caller.at) if trials else None,
        overage_allowed=await database.fetch_value("SELECT overage_allowed FROM workspace WHERE id = $1", workspace_id),
    )


def _main(every: list[SubscriptionView], known: dict[str, Tier]) -> SubscriptionView | None:
    entitled = [each for each in every if each.entitled]
    return max(entitled or every, key=lambda each: (known[each.tier].price_cents if entitled else 0, each.created_at), default=None)


async def in_force(workspace_id: UUID, *, at: datetime) -> SubscriptionView | None:
    """Return the subscription that gives a workspace its tier, whose current period is the workspace's billing period; None when none entitles."""
    entitled = [each for each in await of_workspace(workspace_id, at=at) if each.entitled]
    return _main(entitled, await tiers.find_many([each.tier for each in entitled])) if entitled else None


def _trial(ends_at: datetime, at: datetime) -> TrialView:
    return TrialView(ends_at, max((ends_at - at) // DAY, 0), ends_at <= at)


async def allow_overage(caller: Caller, allowed: bool) -> None:
    """Let cash pay beyond the quotas, or not; the next call sees it."""
    workspace_id = caller.require(Scope.BILLING_WRITE)
    async with database.transaction():
        before = await database.fetch_value("SELECT overage_allowed FROM workspace WHERE id = $1 FOR NO KEY UPDATE", workspace_id)
        await database.fetch("UPDATE workspace SET overage_allowed = $2 WHERE id = $1", workspace_id, allowed)
        told = {"overageAllowed": (before, allowed)}
        await audit.note(caller.actor, "billing.update", ("Workspace", workspace_id), told, workspace_id=workspace_id, at=caller.at)


async def overage(workspace_id: UUID, since: datetime) -> int:
    """Return what calls of subscription keys were charged since an instant, in microdollars: a quota charges nothing, so this is what lay beyond it."""
    return int(
        await database.fetch_value(
            """
            SELECT coalesce(sum(e.charge_microusd), 0) FROM usage_event e JOIN api_key k ON k.workspace_id = e.workspace_id AND k.id = e.key_id
             WHERE e.workspace_id = $1 AND e.at >= $2 AND e.mode = 'live' AND k.kind = 'subscription'
            """,
            workspace_id,
            since,
        )
    )


async def frozen_at(workspace_id: UUID) -> datetime | None:
    """Return since when a dispute has stopped all spending; None while it is allowed."""
    since: datetime | None = await database.fetch_value("SELECT frozen_at FROM workspace WHERE id = $1", workspace_id)
    return since


_HELD = {
    Resource.MEMBERS: """SELECT count(*) FROM member
        WHERE workspace_id = $1 AND removed_at IS NULL AND (joined_at IS NOT NULL OR invitation_expires_at > clock_timestamp())""",
    Resource.APPS: "SELECT count(*) FROM app WHERE workspace_id = $1 AND deleted_at IS NULL",
    Resource.HOSTED_SITES: "SELECT count(*) FROM app WHERE workspace_id = $1 AND deleted_at IS NULL AND live_deployment_id IS NOT NULL",
}
"""How much of a resource that is held is in use."""


async def quotas(workspace_id: UUID, *, at: datetime) -> list[QuotaView]:
    """Return every quota of a workspace's entitled subscriptions, by resource and then window; windows of calls as they stand at `at`."""
    rows = await database.fetch(
        """
        SELECT q.resource, q.measure, q.span, q.most, w.spent, w.held, w.started_at, w.ends_at, coalesce(w.ends_at <= $2, false) AS over
          FROM quotas_1($1, $2) q LEFT JOIN bound_window w ON w.workspace_id = $1 AND w.bound_id = q.bound_id AND w.scope = ''
         ORDER BY q.resource, q.span
        """,
        workspace_id,
        at,
    )
    return [await _quota(workspace_id, row) for row in rows]


async def _quota(workspace_id: UUID, row: asyncpg.Record) -> QuotaView:
    resource = Resource(row["resource"])
    unit = CREDIT_MICROUSD if resource is Resource.CREDITS else 1
    limit = None if row["most"] is None else row["most"] // unit
    if row["measure"] is None:
        count = _HELD.get(resource)
        return QuotaView(resource, row["span"], limit, None if count is None else await database.fetch_value(count, workspace_id), None, None)
    used = (row["held"] or 0) + (0 if row["over"] else row["spent"] or 0)
    runs = not row["over"] and row["ends_at"] is not None
    return QuotaView(resource, row["span"], limit, used // unit, row["started_at"] if runs else None, row["ends_at"] if runs else None)


async def allowance(workspace_id: UUID, resource: Resource, *, at: datetime) -> int | None:
    """Return how much of a held resource (apps, hosted sites, members...) a workspace may have; None when no subscription limits it."""
    row = await database.fetch_row("SELECT most FROM quotas_1($1, $2) WHERE resource = $3", workspace_id, at, resource.value)
    return None if row is None else row["most"]
