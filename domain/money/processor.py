"""What the payment processor outside is asked, and the facts that it tells: amounts in whole cents of the currency named, as Stripe has them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from domain.errors import Refusal

USD = "usd"
MICROUSD_PER_CENT = 10_000


class ProcessorFailed(Refusal):
    """Stripe refused (`retryable` False: nothing was done), or could not be reached (`retryable`: what it did is not known)."""

    code = "payment_declined"
    status = 502

    def __init__(self, message: str, *, retryable: bool, provider_code: str | None = None, payment_id: str | None = None) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.provider_code = provider_code
        self.payment_id = payment_id
        if retryable:
            self.code = "payment_unavailable"
            self.status = 503


class NoSuchCustomer(ProcessorFailed):
    """Stripe does not know the customer: deleted there, or of the mode or the account of another key."""

    def __init__(self, message: str, *, provider_code: str | None) -> None:
        super().__init__(message, retryable=False, provider_code=provider_code)


class PaymentsDisabled(ProcessorFailed):
    """No payment processor is configured."""

    def __init__(self) -> None:
        super().__init__("Payments are not configured on this installation.", retryable=False)
        self.code = "payment_unavailable"
        self.status = 503


@dataclass(frozen=True, slots=True)
class SessionFact:
    """A page to pay at. `status` is open, complete or expired; `workspace_id` and `subject`, a
    top-up, are what it says of itself, None for one that is not ours."""

    id: str
    mode: str
    status: str
    url: str | None
    expires_at: datetime
    workspace_id: UUID | None
    subject: UUID | None
    customer_id: str | None
    payment_id: str | None
    subscription_id: str | None
    live: bool


@dataclass(frozen=True, slots=True)
class EntryFact:
    """A balance transaction: `cents` came to our balance at Stripe (below zero: left it), and `fee_cents` were kept of it.

    `type` and `category` are Stripe's words for what it is, `source` is the object behind it.
    """

    id: str
    type: str
    category: str
    cents: int
    fee_cents: int
    currency: str
    source: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class RefundFact:
    """Money given back; `taken` and `returned` are what it moved, None until it did. `subject` is our row when we asked for it."""

    id: str
    cents: int
    currency: str
    status: str
    reason: str | None
    subject: UUID | None
    taken: EntryFact | None
    returned: EntryFact | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class DisputeFact:
    """A payment contested at the customer's bank; `entries` are what it moved, each way, oldest first."""

    id: str
    cents: int
    currency: str
    status: str
    reason: str
    entries: tuple[EntryFact, ...]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class PaymentFact:
    """A payment with everything that happened to it, read at one moment. `workspace_id` and `subject`, our top-up, are what it says of
    itself, None for one that is not ours."""

    id: str
    status: str
    currency: str
    received_cents: int
    customer_id: str | None
    workspace_id: UUID | None
    subject: UUID | None
    live: bool
    paid_at: datetime | None
    receipt_url: str | None
    entry: EntryFact | None
    failure_code: str | None
    failure_message: str | None
    refunds: tuple[RefundFact, ...]
    disputes: tuple[DisputeFact, ...]


@dataclass(frozen=True, slots=True)
class SavedMethod:
    """A card that the customer left with Stripe to be charged later; `label` is to show: `visa 4242`."""

    id: str
    label: str


@dataclass(frozen=True, slots=True)
class EventFact:
    """That something happened to an object; what, is read from the object itself."""

    id: str
    type: str
    object_id: str
    payment_id: str | None
    live: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class SubscriptionFact:
    """A subscription; `tier` and `next_tier` are slugs that its prices name, `workspace_id` is what it says of itself."""

    id: str
    status: str
    customer_id: str | None
    workspace_id: UUID | None
    tier: str | None
    next_tier: str | None
    yearly: bool
    period_start: datetime
    period_end: datetime
    trial_ends_at: datetime | None
    cancel_at_period_end: bool
    created_at: datetime
    ended_at: datetime | None
    live: bool


@dataclass(frozen=True, slots=True)
class InvoiceFact:
    """An invoice, in cents of US dollars, tax included; `payment_ids` are the payments that were begun for it."""

    id: str
    number: str | None
    status: str
    description: str | None
    cents: int
    url: str | None
    pdf_url: str | None
    customer_id: str | None
    subscription_id: str | None
    payment_ids: tuple[str, ...]
    created_at: datetime
    live: bool


class Processor(Protocol):
    """Stripe, or what stands in for it. Every method raises ProcessorFailed; none may be called inside a database transaction."""

    live: bool

    async def create_customer(self, workspace_id: UUID, *, after: str | None = None) -> str:
        """Make the workspace's customer, once, and return its id; another one, once, after a customer that is gone."""

    async def create_top_up_session(self, top_up_id: UUID, workspace_id: UUID, customer_id: str, cents: int, *, success_url: str, cancel_url: str) -> SessionFact:
        """Begin a page to pay a top-up at, once for each top-up."""

    async def find_session(self, session_id: str) -> SessionFact | None:
        """Read a page as it is now."""

    async def find_payment(self, payment_id: str) -> PaymentFact | None:
        """Read a payment, its refunds and its disputes as they are now."""

    async def find_payment_of(self, object_id: str) -> str | None:
        """Return the payment that a charge, refund or dispute is about."""

    async def saved_method(self, customer_id: str) -> SavedMethod | None:
        """Return the card that may be charged without its owner."""

    async def charge_saved(self, top_up_id: UUID, workspace_id: UUID, customer_id: str, method_id: str, cents: int) -> str:
        """Charge a saved card, once for each top-up, and return the payment's id; a card that says no raises with `payment_id`."""

    async def refund(self, refund_id: UUID, payment_id: str, cents: int) -> RefundFact:
        """Give money of a payment back, once for each of our refunds."""

    async def events_since(self, at: datetime, types: Sequence[str]) -> list[EventFact]:
        """Return what happened since an instant, oldest first; Stripe remembers 30 days."""

    async def entries_between(self, start: datetime, end: datetime | None) -> list[EntryFact]:
        """Return every balance transaction of a stretch of time, all that came since when it has no end, oldest first."""

    async def ensure_price(self, slug: str, name: str, cents: int, *, yearly: bool) -> str:
        """Return the price that a tier is sold at, made where there is none of that amount."""

    async def create_subscription_session(
        self, page_id: UUID, workspace_id: UUID, customer_id: str, price_id: str, slug: str, trial_days: int, *, success_url: str, cancel_url: str
    ) -> SessionFact:
        """Begin a page to subscribe at, once for each of our pages."""

    async def keep_one_page(self, customer_id: str, session_id: str) -> None:
        """End every other page to subscribe that a customer could still pay at, if this one can be."""

    async def create_portal(self, page_id: UUID, customer_id: str, *, return_url: str) -> str:
        """Return the address of a page where a customer manages cards, invoices and subscriptions, once for each of our pages."""

    async def find_subscription(self, subscription_id: str) -> SubscriptionFact | None:
        """Read a subscription as it is now."""

    async def find_invoice(self, invoice_id: str) -> InvoiceFact | None:
        """Read an invoice as it is now."""

    async def find_invoice_of(self, payment_id: str) -> str | None:
        """Return the invoice that a payment was begun for."""

    async def change_price(self, change_id: UUID, subscription_id: str, price_id: str, slug: str) -> None:
        """Change a subscription's price now; the difference is charged now, or nothing changes."""

    async def schedule_price(self, change_id: UUID, subscription_id: str, price_id: str) -> None:
        """Change a subscription's price with its next period."""

    async def release_schedule(self, change_id: UUID, subscription_id: str) -> None:
        """Forget what was to change with the next period."""

    async def end_with_period(self, change_id: UUID, subscription_id: str, *, ends: bool) -> None:
        """Let a subscription end with its period, or go on."""
