"""Payments: credit that is bought, given back, and bought without asking."""

from decimal import Decimal
from uuid import UUID

from domain.errors import InvalidInput
from domain.money import amounts, autotopup, ledger, refunds, renewals, topups
from domain.money.autotopup import AutoTopUpChanges, AutoTopUpView
from domain.money.ledger import TransferView
from domain.money.processor import SessionFact
from domain.money.renewals import InvoiceView
from domain.money.subscriptions import SubscriptionView
from domain.money.topups import DisputeView, RefundView, TopUpView
from domain.pages import Page, PageOf
from models.enums import Scope
from resolvers.asking import Asking


async def begin(asking: Asking, amount_usd: Decimal, return_url: str | None, idempotency_key: str | None) -> TopUpView:
    """Begin a top-up of an amount in dollars."""
    try:
        microusd = amounts.parse_decimal(format(amount_usd, "f"), places=6)
    except ValueError as error:
        raise InvalidInput(f"The amount is {error}.", path=("amountUsd",)) from None
    url = topups.check_return_url(return_url, asking.facilities.public_url)
    return await topups.begin(asking.known, asking.facilities.payments, microusd, return_url=url, idempotency_key=idempotency_key)


async def refund(asking: Asking, top_up_id: UUID, microusd: int | None, reason: str, idempotency_key: str) -> RefundView:
    """Give money of a top-up back."""
    return await refunds.refund(asking.known, asking.facilities.payments, top_up_id, microusd, reason, idempotency_key)


async def subscribe(asking: Asking, slug: str, return_url: str | None, idempotency_key: str | None) -> SessionFact:
    """Begin a page to subscribe to a tier at."""
    url = topups.check_return_url(return_url, asking.facilities.public_url)
    return await renewals.subscribe(asking.known, asking.facilities.payments, slug, return_url=url, idempotency_key=idempotency_key)


async def portal(asking: Asking, return_url: str | None) -> str:
    """The address of Stripe's customer portal."""
    url = topups.check_return_url(return_url, asking.facilities.public_url)
    return await renewals.portal(asking.known, asking.facilities.payments, return_url=url)


async def change_subscription(
    asking: Asking, subscription_id: UUID, slug: str | None, cancel_at_period_end: bool | None, idempotency_key: str | None
) -> SubscriptionView:
    """Change the tier of a subscription, or whether it ends with its period."""
    return await renewals.change(
        asking.known, asking.facilities.payments, subscription_id, tier=slug, cancel_at_period_end=cancel_at_period_end, idempotency_key=idempotency_key
    )


async def invoices(asking: Asking, wanted: Page) -> PageOf[InvoiceView]:
    """A page of the current workspace's invoices."""
    return await renewals.invoices(asking.known, wanted)


async def count_of_invoices(asking: Asking) -> int:
    """How many invoices the current workspace has."""
    return await renewals.count_of_invoices(asking.known)


async def invoice(asking: Asking, invoice_id: UUID) -> InvoiceView:
    """An invoice of the current workspace."""
    return await renewals.find_invoice(asking.known, invoice_id)


async def page(asking: Asking, workspace_id: UUID, wanted: Page) -> PageOf[TopUpView]:
    """A page of a workspace's top-ups, newest first."""
    return await topups.page(asking.within(workspace_id), wanted)


async def count(asking: Asking, workspace_id: UUID) -> int:
    """How many top-ups a workspace has."""
    return await topups.count(asking.within(workspace_id))


async def transfers(asking: Asking, top_up: TopUpView) -> list[TransferView]:
    """What moved in the ledger for a top-up."""
    return await ledger.of_top_up(asking.within(top_up.workspace_id), top_up.id)


async def top_up(asking: Asking, top_up_id: UUID) -> TopUpView:
    """A top-up of the current workspace."""
    return await topups.find(asking.known.require(Scope.BILLING_READ), top_up_id)


async def one_refund(asking: Asking, refund_id: UUID) -> RefundView:
    """A refund in the current workspace."""
    return await topups.find_refund(asking.known.require(Scope.BILLING_READ), refund_id)


async def dispute(asking: Asking, dispute_id: UUID) -> DisputeView:
    """A dispute in the current workspace."""
    return await topups.find_dispute(asking.known.require(Scope.BILLING_READ), dispute_id)


async def auto_top_up(asking: Asking, workspace_id: UUID) -> AutoTopUpView:
    """A workspace's settings of auto top-up."""
    return await autotopup.settings_of(asking.within(workspace_id).require(Scope.BILLING_READ))


async def update_auto_top_up(asking: Asking, changes: AutoTopUpChanges) -> AutoTopUpView:
    """Change the settings of auto top-up."""
    return await autotopup.update(asking.known, changes)


async def paying_method(asking: Asking, workspace_id: UUID) -> str | None:
    """The card that auto top-up charges."""
    asking.within(workspace_id).require(Scope.BILLING_READ)
    return await autotopup.paying_method(asking.facilities.payments, workspace_id)
