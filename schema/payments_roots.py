"""The mutations of payments; `schema/mutation.py` is made of them."""

import decimal
from typing import Annotated

import strawberry
from strawberry import field

from domain.errors import NotFound
from models.enums import Scope
from resolvers import payments
from schema import ids
from schema.apps_roots import guarded, row
from schema.billing import TierSubscription
from schema.context import Info
from schema.fields import resolved
from schema.inputs import given
from schema.payments import Refund
from schema.scalars import URL, MicroUsd
from schema.topups import AutoTopUp, AutoTopUpUpdateInput, CheckoutSession, PortalSession, TopUp
from schema.user_errors import UserError


@strawberry.input(description="Input of creditsCheckoutCreate.")
class CreditsCheckoutCreateInput:
    """As the contract has it."""

    amount_usd: decimal.Decimal = field(description="US dollars with at most two decimals, within `credits.topUpTerms`.")
    return_url: URL | None = field(
        description="Where Stripe sends the customer afterwards; the console when absent. Must be on an allowed origin.", default=strawberry.UNSET
    )
    idempotency_key: str | None = field(description="Makes a retry return the first session instead of another.", default=strawberry.UNSET)


@strawberry.type(description="Result of creditsCheckoutCreate.")
class CreditsCheckoutCreatePayload:
    """As the contract has it."""

    checkout_session: CheckoutSession | None = field(description="The page to send the customer to.", default=None)
    top_up: TopUp | None = field(description="The top-up, in status OPEN.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


@strawberry.input(description="Input of topUpRefund.")
class TopUpRefundInput:
    """As the contract has it."""

    id: strawberry.ID = field(description="The top-up.")
    amount: MicroUsd | None = field(description="How much, in whole cents; all that is left, when absent.", default=strawberry.UNSET)
    reason: str = field(description="Why.")
    idempotency_key: str = field(description="Makes a retry refund it once.")


@strawberry.type(description="Result of topUpRefund.")
class TopUpRefundPayload:
    """As the contract has it."""

    refund: Refund | None = field(description="The refund.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


@strawberry.type(description="Result of autoTopUpUpdate.")
class AutoTopUpUpdatePayload:
    """As the contract has it."""

    auto_top_up: AutoTopUp | None = field(description="The settings.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


@strawberry.input(description="Input of subscriptionCheckoutCreate.")
class SubscriptionCheckoutCreateInput:
    """As the contract has it."""

    tier_id: strawberry.ID = field(description="The tier.")
    return_url: URL | None = field(
        description="Where Stripe sends the customer afterwards; the console when absent. Must be on an allowed origin.", default=strawberry.UNSET
    )
    idempotency_key: str | None = field(description="Makes a retry return the first session instead of another.", default=strawberry.UNSET)


@strawberry.type(description="Result of subscriptionCheckoutCreate.")
class SubscriptionCheckoutCreatePayload:
    """As the contract has it."""

    checkout_session: CheckoutSession | None = field(description="The page to send the customer to.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


@strawberry.input(description="Input of billingPortalCreate.")
class BillingPortalCreateInput:
    """As the contract has it."""

    return_url: URL | None = field(
        description="Where Stripe sends the customer afterwards; the console when absent. Must be on an allowed origin.", default=strawberry.UNSET
    )


@strawberry.type(description="Result of billingPortalCreate.")
class BillingPortalCreatePayload:
    """As the contract has it."""

    portal_session: PortalSession | None = field(description="The page to send the customer to.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


@strawberry.input(description="Input of subscriptionUpdate. An absent field stays as it is.")
class SubscriptionUpdateInput:
    """As the contract has it."""

    id: strawberry.ID = field(description="The subscription.")
    tier_id: strawberry.ID | None = field(
        description="The tier to change to: at once when it is dearer, with the next period when it is cheaper.", default=strawberry.UNSET
    )
    cancel_at_period_end: bool | None = field(description="Whether it ends with the current period.", default=strawberry.UNSET)
    idempotency_key: str | None = field(description="Makes a retry return the first result instead of doing it again.", default=strawberry.UNSET)


@strawberry.type(description="Result of subscriptionUpdate.")
class SubscriptionUpdatePayload:
    """As the contract has it."""

    subscription: TierSubscription | None = field(description="The subscription.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


@strawberry.type
class PaymentMutations:
    """Writes of payments."""

    @resolved("Open a Stripe page to buy credit. Requires scope `BILLING_WRITE`.", extensions=guarded(CreditsCheckoutCreatePayload, Scope.BILLING_WRITE))
    async def credits_checkout_create(
        self, info: Info, input: Annotated[CreditsCheckoutCreateInput, strawberry.argument(description="How much.")]
    ) -> CreditsCheckoutCreatePayload | None:
        """Begin a top-up."""
        begun = await payments.begin(info.context, input.amount_usd, input.return_url or None, given(input.idempotency_key))
        return CreditsCheckoutCreatePayload(checkout_session=CheckoutSession.of(begun), top_up=TopUp.of(begun))

    @resolved(
        "Open a Stripe page to subscribe to a tier. Requires scope `BILLING_WRITE`.",
        extensions=guarded(SubscriptionCheckoutCreatePayload, Scope.BILLING_WRITE),
    )
    async def subscription_checkout_create(
        self, info: Info, input: Annotated[SubscriptionCheckoutCreateInput, strawberry.argument(description="Which tier.")]
    ) -> SubscriptionCheckoutCreatePayload | None:
        """Begin the page."""
        slug = ids.key_of("Tier", input.tier_id)
        if slug is None:
            raise NotFound("tier", path=("tierId",))
        session = await payments.subscribe(info.context, slug, input.return_url or None, given(input.idempotency_key))
        assert session.url is not None, "a page that was begun has an address"
        shown = CheckoutSession(session_id=session.id, url=URL(session.url), expires_at=session.expires_at)
        return SubscriptionCheckoutCreatePayload(checkout_session=shown)

    @resolved(
        "Change the tier of a subscription, or end it or not with its period. Stripe prorates. Requires scope `BILLING_WRITE`.",
        extensions=guarded(SubscriptionUpdatePayload, Scope.BILLING_WRITE),
    )
    async def subscription_update(
        self, info: Info, input: Annotated[SubscriptionUpdateInput, strawberry.argument(description="What to change.")]
    ) -> SubscriptionUpdatePayload | None:
        """Change it."""
        tier_id = given(input.tier_id)
        slug = None if tier_id is None else ids.key_of("Tier", tier_id)
        if tier_id is not None and slug is None:
            raise NotFound("tier", path=("tierId",))
        ends = given(input.cancel_at_period_end)
        subscription_id = row("TierSubscription", input.id, "subscription", "id")
        changed = await payments.change_subscription(info.context, subscription_id, slug, ends, given(input.idempotency_key))
        return SubscriptionUpdatePayload(subscription=TierSubscription.of(changed))

    @resolved("Open Stripe's customer portal. Requires scope `BILLING_WRITE`.", extensions=guarded(BillingPortalCreatePayload, Scope.BILLING_WRITE))
    async def billing_portal_create(
        self, info: Info, input: Annotated[BillingPortalCreateInput, strawberry.argument(description="Where to return.")]
    ) -> BillingPortalCreatePayload | None:
        """Begin the page."""
        return BillingPortalCreatePayload(portal_session=PortalSession(url=URL(await payments.portal(info.context, input.return_url or None))))

    @resolved(
        "Give money of a top-up back to the customer through Stripe, wholly or in part. Requires scope `OPERATOR`.",
        extensions=guarded(TopUpRefundPayload, Scope.OPERATOR),
    )
    async def top_up_refund(self, info: Info, input: Annotated[TopUpRefundInput, strawberry.argument(description="How much.")]) -> TopUpRefundPayload | None:
        """Give it back."""
        amount = None if input.amount is strawberry.UNSET else input.amount
        made = await payments.refund(info.context, row("TopUp", input.id, "top-up", "id"), amount, input.reason, input.idempotency_key)
        return TopUpRefundPayload(refund=Refund.of(made))

    @resolved("Switch auto top-up, or change its amounts. Requires scope `BILLING_WRITE`.", extensions=guarded(AutoTopUpUpdatePayload, Scope.BILLING_WRITE))
    async def auto_top_up_update(
        self, info: Info, input: Annotated[AutoTopUpUpdateInput, strawberry.argument(description="What to change.")]
    ) -> AutoTopUpUpdatePayload | None:
        """Change them."""
        return AutoTopUpUpdatePayload(auto_top_up=AutoTopUp.of(await payments.update_auto_top_up(info.context, input.changes())))
