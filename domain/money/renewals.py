"""Subscriptions that Stripe keeps going: bought on a page of Stripe's, changed there or here, and read afresh whatever is heard."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg
import structlog

from domain import audit, idempotency
from domain.access.callers import Caller
from domain.errors import InvalidInput, InvalidState, NotFound, Unavailable
from domain.money import payments, subscriptions, tiers, topups
from domain.money.payments import MOST_RACES, STRIPE
from domain.money.processor import MICROUSD_PER_CENT, InvoiceFact, Processor, ProcessorFailed, SessionFact, SubscriptionFact
from domain.money.subscriptions import SubscriptionView
from domain.money.tiers import Tier
from domain.pages import Page, PageOf, cut, newest_first
from models import database
from models.enums import BillingCycle, InvoiceStatus, Scope, SubscriptionSource, SubscriptionStatus
from models.ids import uuid7

GRACE = timedelta(days=7)
"""How long a renewal that failed is waited for, from the day it was due."""
MOST_REFRESHES = 20
OVER = (SubscriptionStatus.CANCELED, SubscriptionStatus.INCOMPLETE_EXPIRED)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class InvoiceView:
    """An invoice as it was last read, in microdollars, tax included."""

    id: UUID
    number: str | None
    status: InvoiceStatus
    description: str | None
    amount: int
    url: str | None
    pdf_url: str | None
    created_at: datetime


_INVOICE = "i.id, i.number, i.status, i.description, i.amount_microusd AS amount, i.url, i.pdf_url, i.created_at"


def _invoice(row: asyncpg.Record) -> InvoiceView:
    return InvoiceView(**{**row, "status": InvoiceStatus(row["status"])})


async def invoices(caller: Caller, wanted: Page) -> PageOf[InvoiceView]:
    """Return a page of the caller's invoices, newest first."""
    workspace_id = caller.require(Scope.BILLING_READ)
    keyset = newest_first(wanted, column="i.id", offset=1)
    rows = await database.fetch(f"SELECT {_INVOICE} FROM invoice i WHERE i.workspace_id = $1 {keyset.where} {keyset.order}", workspace_id, *keyset.arguments)
    return cut([_invoice(row) for row in rows], wanted)


async def count_of_invoices(caller: Caller) -> int:
    """Return how many invoices the caller's workspace has."""
    return int(await database.fetch_value("SELECT count(*) FROM invoice WHERE workspace_id = $1", caller.require(Scope.BILLING_READ)))


async def find_invoice(caller: Caller, invoice_id: UUID) -> InvoiceView:
    """Return an invoice of the caller's workspace; raises NotFound."""
    row = await database.fetch_row(f"SELECT {_INVOICE} FROM invoice i WHERE i.workspace_id = $1 AND i.id = $2", caller.require(Scope.BILLING_READ), invoice_id)
    if row is None:
        raise NotFound("invoice", path=("id",))
    return _invoice(row)


async def subscribe(caller: Caller, processor: Processor | None, slug: str, *, return_url: str, idempotency_key: str | None, path: str = "tierId") -> SessionFact:
    """Begin a page to subscribe to a tier at; the same key gives the first page again. A first subscription has the tier's trial, on the last page begun.

    Raises NotFound for the tier, InvalidState for one that costs nothing and for a repeat whose page can no more be had, IdempotencyConflict,
    PaymentsDisabled, ProcessorFailed.
    """
    workspace_id = caller.require(Scope.BILLING_WRITE)
    tier = (await tiers.find_many([slug])).get(slug)
    if tier is None or tier.retired:
        raise NotFound("tier", path=(path,))
    if tier.price_cents == 0:
        raise InvalidState("This tier costs nothing: an operator gives it.", state="free", path=(path,))
    cashier = topups.enabled(processor)
    page_id = uuid7()
    async with database.transaction():
        first = None
        if idempotency_key is not None:
            first = await idempotency.claim(workspace_id, "subscriptionCheckout", idempotency_key, [slug, return_url], page_id)
        if first is None:
            await audit.note(caller.actor, "subscription.checkout", None, {"tier": (None, slug)}, workspace_id=workspace_id, at=caller.at)
    page_id = first or page_id
    had_one = await database.fetch_value("SELECT EXISTS (SELECT FROM subscription WHERE workspace_id = $1)", workspace_id)
    price_id = await price_of(cashier, tier)
    trial_days = 0 if had_one else tier.trial_days

    async def make(customer_id: str) -> SessionFact:
        return await cashier.create_subscription_session(
            page_id, workspace_id, customer_id, price_id, tier.slug, trial_days, success_url=return_url, cancel_url=return_url
        )

    try:
        session = await topups.as_customer(cashier, workspace_id, make)
    except ProcessorFailed as failed:
        if first is None or failed.retryable:
            raise
        message = "The page of this idempotency key offers what is not on offer any more (a trial, another price): begin another one."
        raise InvalidState(message, state="over", path=("idempotencyKey",)) from None
    if session.url is None:
        raise ProcessorFailed("This page is over: begin another one.", retryable=False)
    if trial_days and session.customer_id is not None:  # two pages that were begun before either was paid would be two trials
        await cashier.keep_one_page(session.customer_id, session.id)
    return session


async def price_of(processor: Processor, tier: Tier) -> str:
    """Return the price at Stripe that a tier is sold at, made when there is none or the tier's has changed."""
    return await processor.ensure_price(tier.slug, tier.name, tier.price_cents, yearly=tier.billing_cycle is BillingCycle.YEARLY)


async def sync(processor: Processor) -> list[tuple[str, str]]:
    """Make products and prices at Stripe for every tier that is sold; returns slug and price of each. Safe to repeat."""
    return [(tier.slug, await price_of(processor, tier)) for tier in await tiers.listed() if tier.price_cents > 0]


async def portal(caller: Caller, processor: Processor | None, *, return_url: str, idempotency_key: str | None = None) -> str:
    """Return the address of Stripe's customer portal; the same key gives the first one again, for as long as Stripe remembers it.

    Raises IdempotencyConflict, PaymentsDisabled, ProcessorFailed.
    """
    workspace_id = caller.require(Scope.BILLING_WRITE)
    cashier = topups.enabled(processor)
    page_id = uuid7()
    async with database.transaction():
        first = None
        if idempotency_key is not None:
            first = await idempotency.claim(workspace_id, "billingPortalCreate", idempotency_key, [return_url], page_id)
        if first is None:
            await audit.note(caller.actor, "billing.portal", ("Workspace", workspace_id), None, workspace_id=workspace_id, at=caller.at)
    return await topups.as_customer(cashier, workspace_id, lambda customer_id: cashier.create_portal(first or page_id, customer_id, return_url=return_url))


async def change(
    caller: Caller, processor: Processor | None, subscription_id: UUID, *, tier: str | None, cancel_at_period_end: bool | None, idempotency_key: str | None
) -> SubscriptionView:
    """Change the tier of a subscription, at once when it is dearer (Stripe prorates and charges), with the next period when it is cheaper; or let it end.

    Raises NotFound, InvalidState for one that is over, that an operator gave, or that ends before a cheaper tier could come, InvalidInput,
    IdempotencyConflict, PaymentsDisabled, ProcessorFailed.
    """
    workspace_id = caller.require(Scope.BILLING_WRITE)
    cashier = topups.enabled(processor)
    mine = await subscriptions.find(workspace_id, subscription_id, at=caller.at)
    stripe_id = await database.fetch_value("SELECT stripe_subscription_id FROM subscription WHERE workspace_id = $1 AND id = $2", workspace_id, subscription_id)
    if mine.source is not SubscriptionSource.STRIPE or stripe_id is None:
        raise InvalidState("An operator gave this subscription, and changes it.", state=mine.source.value, path=("id",))
    if mine.status in OVER or mine.ended_at is not None:
        raise InvalidState("This subscription is over: subscribe again.", state=mine.status.value, path=("id",))
    if tier is None and cancel_at_period_end is None:
        raise InvalidInput("Name a tier, or whether it ends with its period.", path=("tierId",))
    known = await tiers.find_many([slug for slug in (tier, mine.tier) if slug])
    wanted = known.get(tier) if tier is not None else None
    if tier is not None and (wanted is None or wanted.retired or wanted.price_cents == 0):
        raise NotFound("tier", path=("tierId",))
    await refresh(cashier, stripe_id)
    mine = await subscriptions.find(workspace_id, subscription_id, at=caller.at)
    known |= await tiers.find_many([mine.tier])
    change_id = uuid7()
    async with database.transaction():
        first = None
        if idempotency_key is not None:
            input_ = [str(subscription_id), tier, cancel_at_period_end]
            first = await idempotency.claim(workspace_id, "subscriptionUpdate", idempotency_key, input_, change_id)
        if first is None:  # what was asked for; what becomes of it is Stripe's, and stands on the subscription
            ends = mine.cancel_at_period_end if cancel_at_period_end is None else cancel_at_period_end
            if wanted is not None and ends and wanted.slug != mine.tier and not _dearer(wanted, known.get(mine.tier)):
                message = "A cheaper tier comes with the next period, and this subscription ends before it: let it go on (`cancelAtPeriodEnd: false`)."
                raise InvalidState(message, state="ends with its period", path=("tierId",))
            told = audit.difference(
                {"tier": mine.tier, "cancelAtPeriodEnd": mine.cancel_at_period_end},
                {"tier": tier or mine.tier, "cancelAtPeriodEnd": mine.cancel_at_period_end if cancel_at_period_end is None else cancel_at_period_end},
            )
            await audit.note(
                caller.actor, "subscription.update", ("TierSubscription", subscription_id), told, workspace_id=workspace_id, at=caller.at
            )
    change_id = first or change_id
    if cancel_at_period_end is False and mine.cancel_at_period_end:  # before anything else: one that ends has no next period to plan
        await cashier.end_with_period(change_id, stripe_id, ends=False)
    if wanted is not None and wanted.slug != mine.tier:
        price_id = await price_of(cashier, wanted)
        if _dearer(wanted, known.get(mine.tier)):
            await cashier.change_price(change_id, stripe_id, price_id, wanted.slug)
        elif wanted.slug != mine.next_tier:
            await cashier.schedule_price(change_id, stripe_id, price_id)
    elif wanted is not None and mine.next_tier is not None:
        await cashier.release_schedule(change_id, stripe_id)
    if cancel_at_period_end is True and not mine.cancel_at_period_end:
        await cashier.end_with_period(change_id, stripe_id, ends=True)
    await refresh(cashier, stripe_id)
    return await subscriptions.find(workspace_id, subscription_id, at=caller.at)


def _dearer(wanted: Tier, than: Tier | None) -> bool:
    """Whether a tier is dearer than another; than one that is not known, any is."""
    return than is None or _yearly_cents(wanted) > _yearly_cents(than)


def _yearly_cents(tier: Tier) -> int:
    return tier.price_cents * (1 if tier.billing_cycle is BillingCycle.YEARLY else 12)


async def refresh(processor: Processor, stripe_id: str) -> bool:
    """Read a subscription at Stripe and write it down; False when it is not ours. A reading that another one overtook is thrown away and made anew.

    Raises ProcessorFailed, and Unavailable when others were in the way.
    """
    for _ in range(MOST_RACES):
        seen = await database.fetch_row(
            "SELECT s.looked_at, clock_timestamp() AS now FROM (SELECT 1) x LEFT JOIN subscription s ON s.stripe_subscription_id = $1", stripe_id
        )
        assert seen is not None
        fact = await processor.find_subscription(stripe_id)
        owner = await _owner(processor, fact) if fact is not None else None
        if fact is None or owner is None:
            return False
        if await _write(owner, fact, seen["looked_at"], seen["now"]):
            return True
    raise Unavailable("Others look at this subscription at the same time.")


async def _owner(processor: Processor, fact: SubscriptionFact) -> UUID | None:
    """The workspace that a subscription is bound to: its customer's, which its own words must agree with, in our mode, for a tier that there is."""
    ours = await topups.whose(fact.customer_id) if fact.customer_id else None
    if ours is None or fact.live != processor.live:
        return None
    if ours[0] != fact.workspace_id or fact.tier is None or not await tiers.find_many([fact.tier]):
        log.error("subscription is not bound to a workspace and a tier", subscription=fact.id)
        return None
    return ours[0]


async def _write(workspace_id: UUID, fact: SubscriptionFact, seen: object, now: object) -> bool:
    assert fact.tier is not None
    status = SubscriptionStatus(fact.status)
    ended = status in OVER
    async with database.transaction():
        row = await database.fetch_row(
            """
            INSERT INTO subscription (workspace_id, id, tier, source, status, cycle, current_period_start, current_period_end, trial_ends_at, grace_ends_at,
                                      cancel_at_period_end, next_tier, stripe_subscription_id, creator_kind, creator_name, created_at, ended_at, looked_at)
            VALUES ($1, $2, $3, 'stripe', $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
                ON CONFLICT (workspace_id, stripe_subscription_id) WHERE stripe_subscription_id IS NOT NULL DO UPDATE
               SET tier = excluded.tier, status = excluded.status, cycle = excluded.cycle, current_period_start = excluded.current_period_start,
                   current_period_end = excluded.current_period_end, trial_ends_at = excluded.trial_ends_at,
                   grace_ends_at = CASE WHEN subscription.status = 'past_due' AND excluded.status = 'past_due'
                                        THEN least(subscription.grace_ends_at, excluded.grace_ends_at) ELSE excluded.grace_ends_at END,
                   cancel_at_period_end = excluded.cancel_at_period_end, next_tier = excluded.next_tier, ended_at = excluded.ended_at, looked_at = excluded.looked_at
             WHERE subscription.looked_at IS NOT DISTINCT FROM $18::timestamptz
            RETURNING id
            """,
            workspace_id,
            uuid7(),
            fact.tier,
            status.value,
            (BillingCycle.YEARLY if fact.yearly else BillingCycle.MONTHLY).value,
            fact.period_start,
            fact.period_end,
            fact.trial_ends_at,
            fact.period_start + GRACE if status is SubscriptionStatus.PAST_DUE else None,
            fact.cancel_at_period_end,
            fact.next_tier,
            fact.id,
            STRIPE.kind.value,
            STRIPE.name,
            fact.created_at,
            (fact.ended_at or now) if ended else None,
            now,
            seen,
        )
        if row is not None:
            await topups.enter(fact.id, "subscription", workspace_id, row["id"])
    return row is not None


async def refresh_invoice(processor: Processor, invoice_id: str) -> bool:
    """Read an invoice at Stripe, write it down, book what was paid for it, and read its subscription; False when it is not ours."""
    fact = await processor.find_invoice(invoice_id)
    ours = await topups.whose(fact.customer_id) if fact is not None and fact.customer_id else None
    if fact is None or ours is None or fact.live != processor.live:
        return False
    row_id = await _write_invoice(ours[0], fact)
    for payment_id in fact.payment_ids:
        await _look_at_sale(processor, ours[0], row_id, payment_id)
    if fact.subscription_id is not None:
        await refresh(processor, fact.subscription_id)
    return True


async def refresh_sale(processor: Processor, payment_id: str) -> bool:
    """Read a payment that was begun for an invoice, and book what happened to it; False for any other payment."""
    known = await topups.whose(payment_id, sale=True)
    if known is None:
        invoice_id = await processor.find_invoice_of(payment_id)
        return invoice_id is not None and await refresh_invoice(processor, invoice_id)
    await _look_at_sale(processor, *known, payment_id)
    return True


async def _look_at_sale(processor: Processor, workspace_id: UUID, invoice_id: UUID, payment_id: str) -> None:
    payment = await processor.find_payment(payment_id)
    bound = payment is not None and payment.live == processor.live and await topups.is_customer(workspace_id, payment.customer_id)
    if payment is None or not bound or await topups.whose(payment_id) is not None:
        log.error("payment is not bound to the customer whose invoice names it", payment=payment_id)
        return
    async with database.transaction():
        await payments.book_sale(workspace_id, invoice_id, payment)  # which takes the account's lock, before any other as everybody does
        await topups.enter(payment.id, topups.SALE, workspace_id, invoice_id)


async def _write_invoice(workspace_id: UUID, fact: InvoiceFact) -> UUID:
    row = await database.fetch_row(
        """
        INSERT INTO invoice (workspace_id, id, stripe_invoice_id, number, status, description, amount_microusd, url, pdf_url, created_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
            ON CONFLICT (workspace_id, stripe_invoice_id) DO UPDATE SET number = coalesce(excluded.number, invoice.number), description = excluded.description,
               status = CASE WHEN invoice.status IN ('paid', 'void') THEN invoice.status ELSE excluded.status END,
               amount_microusd = excluded.amount_microusd, url = coalesce(excluded.url, invoice.url), pdf_url = coalesce(excluded.pdf_url, invoice.pdf_url)
        RETURNING id
        """,
        workspace_id,
        uuid7(),
        fact.id,
        fact.number,
        fact.status,
        fact.description,
        fact.cents * MICROUSD_PER_CENT,
        fact.url,
        fact.pdf_url,
        fact.created_at,
    )
    assert row is not None
    invoice_id: UUID = row["id"]
    return invoice_id


async def sweep(processor: Processor) -> None:
    """Read again what should have renewed, or ended, and was not heard of; any process may do so at any time."""
    rows = await database.fetch(
        """
        SELECT stripe_subscription_id AS id FROM subscription WHERE source = 'stripe' AND ended_at IS NULL AND stripe_subscription_id IS NOT NULL
           AND least(current_period_end, coalesce(trial_ends_at, current_period_end)) < clock_timestamp()
           AND coalesce(looked_at, '-infinity') < clock_timestamp() - interval '10 minutes' ORDER BY looked_at NULLS FIRST LIMIT $1
        """,
        MOST_REFRESHES,
    )
    for row in rows:
        try:
            await refresh(processor, row["id"])
        except (ProcessorFailed, Unavailable) as refusal:
            log.warning("a subscription could not be looked at", subscription=row["id"], reason=refusal.message)
