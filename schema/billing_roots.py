"""The queries and mutations of tiers, subscriptions and grants; `schema/query.py` and `schema/mutation.py` are made of them."""

from typing import Annotated

import strawberry
from strawberry import field

from domain.errors import NotFound
from models.enums import Scope
from resolvers import billing
from schema import ids
from schema.access import requires
from schema.apps_roots import guarded, row
from schema.billing import Billing, BillingUpdateInput, SubscriptionGrantInput, TierSubscription
from schema.context import Info
from schema.fields import resolved
from schema.grants import Grant, GrantCreateInput, GrantRevokeInput
from schema.inputs import given
from schema.user_errors import UserError


@strawberry.type(description="Result of subscriptionGrant.")
class SubscriptionGrantPayload:
    """As the contract has it."""

    subscription: TierSubscription | None = field(description="The subscription.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


@strawberry.type(description="Result of billingUpdate.")
class BillingUpdatePayload:
    """As the contract has it."""

    billing: Billing | None = field(description="The settings and what follows from them.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


@strawberry.type(description="Result of grantCreate.")
class GrantCreatePayload:
    """As the contract has it."""

    grant: Grant | None = field(description="The grant.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


@strawberry.type(description="Result of grantRevoke.")
class GrantRevokePayload:
    """As the contract has it."""

    grant: Grant | None = field(description="The grant, now revoked.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


@strawberry.type
class BillingQueries:
    """Reads of tiers and of what the workspace subscribes to."""

    @resolved(
        "Tier, subscriptions, trial and quotas. Short for `workspace { billing }`. Requires scope `BILLING_READ`.",
        extensions=requires(Scope.BILLING_READ),
    )
    async def billing(self, info: Info) -> Billing | None:
        """Read it."""
        return Billing.of(await billing.of(info.context, info.context.known.workspace()))


@strawberry.type
class BillingMutations:
    """Writes of subscriptions and grants."""

    @resolved(
        "Let cash pay beyond the quotas, or not. Requires scope `BILLING_WRITE`.",
        extensions=guarded(BillingUpdatePayload, Scope.BILLING_WRITE),
    )
    async def billing_update(
        self, info: Info, input: Annotated[BillingUpdateInput, strawberry.argument(description="What to change.")]
    ) -> BillingUpdatePayload | None:
        """Change it."""
        allowed = input.overage_allowed if isinstance(input.overage_allowed, bool) else None
        return BillingUpdatePayload(billing=Billing.of(await billing.allow_overage(info.context, allowed)))

    @resolved("Give a tier without payment. Requires scope `OPERATOR`.", extensions=guarded(SubscriptionGrantPayload, Scope.OPERATOR))
    async def subscription_grant(
        self, info: Info, input: Annotated[SubscriptionGrantInput, strawberry.argument(description="What to give.")]
    ) -> SubscriptionGrantPayload | None:
        """Give it."""
        slug = ids.key_of("Tier", input.tier_id)
        if slug is None:
            raise NotFound("tier", path=("tierId",))
        workspace_id = row("Workspace", input.workspace_id, "workspace", "workspaceId")
        granted = await billing.grant_subscription(info.context, workspace_id, slug, input.ends_at or None, input.reason, input.idempotency_key)
        return SubscriptionGrantPayload(subscription=TierSubscription.of(granted))

    @resolved("Give promotional credit. Requires scope `OPERATOR`.", extensions=guarded(GrantCreatePayload, Scope.OPERATOR))
    async def grant_create(
        self, info: Info, input: Annotated[GrantCreateInput, strawberry.argument(description="What to give.")]
    ) -> GrantCreatePayload | None:
        """Give it."""
        other = None if (named := given(input.workspace_id)) is None else row("Workspace", named, "workspace", "workspaceId")
        return GrantCreatePayload(grant=Grant.of(await billing.create_grant(info.context, other, input.new())))

    @resolved("Take back what is left of a grant. Requires scope `OPERATOR`.", extensions=guarded(GrantRevokePayload, Scope.OPERATOR))
    async def grant_revoke(
        self, info: Info, input: Annotated[GrantRevokeInput, strawberry.argument(description="The grant.")]
    ) -> GrantRevokePayload | None:
        """Take it back."""
        return GrantRevokePayload(grant=Grant.of(await billing.revoke_grant(info.context, row("Grant", input.id, "grant", "id"), input.reason)))
