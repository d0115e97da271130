"""What a workspace subscribes to, its quotas, and promotional credit."""

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from domain.errors import NotFound
from domain.money import catalogue, grants, subscriptions
from domain.money.grants import GrantStatus, GrantView, NewGrant
from domain.money.subscriptions import BillingView, QuotaView, SubscriptionView
from domain.pages import Page, PageOf
from domain.serving.receipts import FundingSource
from models.enums import ApiKeyKind, Scope
from resolvers.asking import Asking, offered_names


async def of(asking: Asking, workspace_id: UUID) -> BillingView:
    """What a workspace subscribes to."""
    return await subscriptions.billing(asking.within(workspace_id))


async def quotas(asking: Asking, workspace_id: UUID) -> list[QuotaView]:
    """What its subscriptions allow, and how much of it is used."""
    caller = asking.within(workspace_id)
    return await subscriptions.quotas(caller.require(Scope.BILLING_READ), at=caller.at)


async def overage(asking: Asking, workspace_id: UUID, since: datetime) -> int:
    """What its subscription keys were charged since an instant."""
    return await subscriptions.overage(asking.within(workspace_id).require(Scope.BILLING_READ), since)


async def allow_overage(asking: Asking, allowed: bool | None) -> BillingView:
    """Let cash pay beyond the quotas, or not; None leaves it."""
    asking.known.require(Scope.BILLING_WRITE)
    if allowed is not None:
        await subscriptions.allow_overage(asking.known, allowed)
    return await of(asking, asking.known.workspace())


async def subscription(asking: Asking, subscription_id: UUID) -> SubscriptionView:
    """A subscription of the current workspace."""
    return await subscriptions.find(asking.known.require(Scope.BILLING_READ), subscription_id, at=asking.known.at)


async def grant_subscription(
    asking: Asking, workspace_id: UUID, slug: str, ends_at: datetime | None, reason: str, idempotency_key: str
) -> SubscriptionView:
    """Give a tier without payment."""
    return await subscriptions.grant(asking.known, workspace_id, slug, reason, ends_at=ends_at, idempotency_key=idempotency_key)


async def funding_order(asking: Asking, workspace_id: UUID, kind: ApiKeyKind) -> list[FundingSource]:
    """Which sources pay for a key's calls, first to last."""
    if kind is ApiKeyKind.PAY_PER_TOKEN:
        return [FundingSource.GRANT, FundingSource.CASH]
    allowed = (await of(asking, workspace_id)).overage_allowed
    return [FundingSource.QUOTA, FundingSource.CASH] if allowed else [FundingSource.QUOTA]


async def create_grant(asking: Asking, workspace_id: UUID | None, new: NewGrant) -> GrantView:
    """Give promotional credit, for models by their own names. Raises NotFound for one that there is not."""
    if new.models is not None:
        known = await catalogue.own_names(new.models) | {name: name for name in offered_names(asking)}
        for place, name in enumerate(new.models):
            if name not in known:
                raise NotFound("model", path=("models", str(place)))
        new = dataclasses.replace(new, models=tuple(dict.fromkeys(known[name] for name in new.models)))
    return await grants.create(asking.known, workspace_id, new)


async def revoke_grant(asking: Asking, grant_id: UUID, reason: str) -> GrantView:
    """Take back what is left of a grant."""
    return await grants.revoke(asking.known, grant_id, reason)


async def grant(asking: Asking, grant_id: UUID) -> GrantView:
    """A grant of the current workspace."""
    return await grants.find(asking.known.require(Scope.BILLING_READ), grant_id)


async def page_of_grants(asking: Asking, workspace_id: UUID, wanted: Page, statuses: Sequence[GrantStatus] | None) -> PageOf[GrantView]:
    """A page of a workspace's grants, in the order in which they are spent."""
    return await grants.page(asking.within(workspace_id), wanted, statuses)


async def count_of_grants(asking: Asking, workspace_id: UUID, statuses: Sequence[GrantStatus] | None) -> int:
    """How many grants of these statuses there are."""
    return await grants.count(asking.within(workspace_id), statuses)


async def frozen_at(asking: Asking, workspace_id: UUID) -> datetime | None:
    """Since when a dispute has stopped all spending of a workspace."""
    return await subscriptions.frozen_at(asking.within(workspace_id).require(Scope.BILLING_READ))
