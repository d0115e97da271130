"""Tiers, subscriptions, quotas and trials."""

import datetime
from typing import Annotated, Self

import strawberry
from strawberry import UNSET, field

from domain.money.subscriptions import BillingView, QuotaView, SubscriptionView, TrialView
from domain.periods import length_seconds
from models import enums
from models.enums import LimitPer
from resolvers import billing as resolvers
from resolvers import payments, tiers
from schema import ids, pages
from schema.amounts import Money
from schema.context import Info
from schema.directives import PAGED
from schema.fields import resolved
from schema.invoices import InvoiceConnection
from schema.limits import Quota
from schema.nodes import Node
from schema.scalars import URL, SafeInt, Window
from schema.tiers import Tier


@strawberry.type(description="A recurring subscription to a tier.")
class TierSubscription(Node):
    """As the contract has it."""

    id: strawberry.ID = field(description="The opaque global ID.")
    source: enums.SubscriptionSource = field(description="Who keeps it going.")
    status: enums.SubscriptionStatus = field(description="Where it stands; the values are Stripe's.")
    entitled: bool = field(description="Whether it opens its routes and quotas now: decided by status, period and the clock together.")
    grace_ends_at: datetime.datetime | None = field(description="Until when a late payment is waited for; null unless PAST_DUE.")
    cycle: enums.BillingCycle = field(description="How often it is billed.")
    current_period_start: datetime.datetime = field(description="The current period's inclusive start.")
    current_period_end: datetime.datetime = field(description="The current period's exclusive end.")
    cancel_at_period_end: bool = field(description="Whether it ends with the current period.")
    ended_at: datetime.datetime | None = field(description="When it ended; null while it runs.")
    slug: strawberry.Private[str]
    next_slug: strawberry.Private[str | None]

    @resolved("The tier.")
    async def tier(self) -> Tier:
        """Read it."""
        found = await tiers.of_slug(self.slug)
        assert found is not None, "tiers are retired, never deleted"
        return Tier.of(found)

    @resolved("The tier it changes to with the next period; null when none is chosen.")
    async def next_tier(self) -> Tier | None:
        """Read it."""
        found = await tiers.of_slug(self.next_slug) if self.next_slug else None
        return Tier.of(found) if found else None

    @classmethod
    def of(cls, subscription: SubscriptionView) -> Self:
        """The subscription as GraphQL shows it."""
        late = subscription.status is enums.SubscriptionStatus.PAST_DUE
        return cls(
            id=ids.encode("TierSubscription", subscription.id),
            source=subscription.source,
            status=subscription.status,
            entitled=subscription.entitled,
            grace_ends_at=subscription.grace_ends_at if late else None,
            cycle=subscription.cycle,
            current_period_start=subscription.current_period_start,
            current_period_end=subscription.current_period_end,
            cancel_at_period_end=subscription.cancel_at_period_end,
            ended_at=subscription.ended_at,
            slug=subscription.tier,
            next_slug=subscription.next_tier,
        )


@strawberry.type(description="A trial.")
class Trial:
    """As the contract has it."""

    ends_at: datetime.datetime = field(description="When it ends or ended.")
    days_remaining: int = field(description="Whole days left, 0 once over.")
    expired: bool = field(description="Whether it is over.")

    @classmethod
    def of(cls, trial: TrialView) -> Self:
        """The trial as GraphQL shows it."""
        return cls(ends_at=trial.ends_at, days_remaining=trial.days_remaining, expired=trial.expired)


def quota_of(quota: QuotaView) -> Quota:
    """A quota of subscriptions as GraphQL shows it."""
    used, limit = quota.used, quota.limit
    percent = None if used is None or limit is None else round(used * 100 / limit, 2) if limit else 100.0
    return Quota(
        resource=quota.resource,
        window=Window(quota.window),
        limit=None if limit is None else SafeInt(limit),
        per=LimitPer.TOGETHER,
        used=None if used is None else SafeInt(used),
        remaining=None if quota.remaining is None else SafeInt(quota.remaining),
        percent=percent,
        started_at=quota.started_at,
        resets_at=quota.resets_at,
        of_model=None,
    )


@strawberry.type(description="Tier, subscriptions, trial and quotas of the workspace.")
class Billing:
    """As the contract has it."""

    overage_allowed: bool = field(description="Whether calls beyond a quota are paid with cash instead of refused.")
    shown: strawberry.Private[BillingView]

    @resolved("The tier in force; null when there is none.")
    def tier(self) -> Tier | None:
        """Show it."""
        return Tier.of(self.shown.tier) if self.shown.tier else None

    @resolved("The subscription that gives it; null when there never was one.")
    def subscription(self) -> TierSubscription | None:
        """Show it."""
        return TierSubscription.of(self.shown.subscription) if self.shown.subscription else None

    @resolved("Every subscription that is not over, add-ons included.")
    def subscriptions(self) -> list[TierSubscription]:
        """Show them."""
        return [TierSubscription.of(each) for each in self.shown.current]

    @resolved("The trial; null when there never was one.")
    def trial(self) -> Trial | None:
        """Show it."""
        return Trial.of(self.shown.trial) if self.shown.trial else None

    @resolved("What the subscriptions allow in every window, and how much of it is used.")
    async def quotas(self, info: Info) -> list[Quota]:
        """Read them."""
        return [quota_of(quota) for quota in await resolvers.quotas(info.context, self.shown.workspace_id)]

    @resolved("One quota; null when no subscription limits that resource and nothing is counted.")
    async def quota(
        self,
        info: Info,
        resource: Annotated[enums.Resource, strawberry.argument(description="The resource.")],
        window: Annotated[Window | None, strawberry.argument(description="The window; the longest that has one, when absent.")] = UNSET,
    ) -> Quota | None:
        """Read it."""
        found = [
            quota
            for quota in await resolvers.quotas(info.context, self.shown.workspace_id)
            if quota.resource is resource and (window in (None, UNSET) or quota.window == window)
        ]
        return quota_of(max(found, key=lambda quota: length_seconds(quota.window))) if found else None

    @resolved("What the current period has cost beyond its quotas.")
    async def overage(self, info: Info) -> Money:
        """Add it up."""
        main = self.shown.subscription
        return Money.of(0 if main is None else await resolvers.overage(info.context, self.shown.workspace_id, main.current_period_start))

    @resolved("Stripe's invoices, newest first.", directives=[PAGED])
    async def invoices(
        self, info: Info, first: pages.First = UNSET, after: pages.After = UNSET, last: pages.Last = UNSET, before: pages.Before = UNSET
    ) -> InvoiceConnection:
        """Read a page of them."""
        return InvoiceConnection(page=await payments.invoices(info.context, pages.page_of("Invoice", first, after, last, before)))

    @resolved("Where to choose another tier.")
    def upgrade_url(self, info: Info) -> URL:
        """The console's page."""
        return URL(f"{info.context.facilities.public_url}/billing")

    @classmethod
    def of(cls, billing: BillingView) -> Self:
        """What a workspace subscribes to, as GraphQL shows it."""
        return cls(overage_allowed=billing.overage_allowed, shown=billing)


@strawberry.input(description="Input of subscriptionGrant.")
class SubscriptionGrantInput:
    """As the contract has it."""

    workspace_id: strawberry.ID = field(description="The workspace.")
    tier_id: strawberry.ID = field(description="The tier.")
    ends_at: datetime.datetime | None = field(description="When it ends; never when absent.", default=strawberry.UNSET)
    reason: str = field(description="Why.")
    idempotency_key: str = field(description="Makes a retry give it once.")


@strawberry.input(description="Input of billingUpdate. An absent field stays as it is.")
class BillingUpdateInput:
    """As the contract has it."""

    overage_allowed: bool | None = field(
        description="Whether calls beyond a quota are paid with cash instead of refused.", default=strawberry.UNSET
    )
