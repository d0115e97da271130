"""Stripe, over its own SDK: each method one promise of `domain.money.processor.Processor`, every wait bounded."""

import itertools
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

import aiohttp
import stripe

from domain.money.processor import (
    USD,
    DisputeFact,
    EntryFact,
    EventFact,
    InvoiceFact,
    NoSuchCustomer,
    PaymentFact,
    ProcessorFailed,
    RefundFact,
    SavedMethod,
    SessionFact,
    SubscriptionFact,
)
from domain.outside import before_calling

T = TypeVar("T", bound=stripe.StripeObject)
Json = dict[str, Any]

ANSWER_SECONDS = 20.0
RETRIES = 2
PAGE = 100
MOST_PAGES = 100
PRODUCT = "Credit"


class Stripe:
    """One account at Stripe, by its secret key; `url` is another base address of the API: the simulator's."""

    def __init__(self, secret_key: str, url: str | None = None) -> None:
        self.live = secret_key.startswith(("sk_live_", "rk_live_"))
        self._http = stripe.AIOHTTPClient(timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS))
        addresses: Any = {"api": url} if url else None
        self._client = stripe.StripeClient(secret_key, base_addresses=addresses, http_client=self._http, max_network_retries=RETRIES)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close_async()  # type: ignore[no-untyped-call]  # the SDK leaves it untyped

    async def create_customer(self, workspace_id: UUID, *, after: str | None = None) -> str:
        """Make the workspace's customer; a repeat within a day returns the same."""
        key = f"customer:{workspace_id}" + (f":after:{after}" if after else "")
        made = await _ask(self._client.v1.customers.create_async({"metadata": {"workspace": str(workspace_id)}}, {"idempotency_key": key}))
        return str(made["id"])

    async def create_top_up_session(self, top_up_id: UUID, workspace_id: UUID, customer_id: str, cents: int, *, success_url: str, cancel_url: str) -> SessionFact:
        """Begin a Checkout session in US dollars alone; a card is kept for later, and Checkout says so to its owner."""
        ours = {"top_up": str(top_up_id), "workspace": str(workspace_id)}
        made = await _ask(
            self._client.v1.checkout.sessions.create_async(
                {
                    "mode": "payment",
                    "client_reference_id": str(top_up_id),
                    "customer": customer_id,
                    "metadata": ours,
                    "success_url": success_url,
                    "cancel_url": cancel_url,
                    "line_items": [{"quantity": 1, "price_data": {"currency": USD, "unit_amount": cents, "product_data": {"name": PRODUCT}}}],
                    "payment_intent_data": {"metadata": ours},
                    "payment_method_options": {"card": {"setup_future_usage": "off_session"}},
                    "adaptive_pricing": {"enabled": False},
                },
                {"idempotency_key": f"top_up:{top_up_id}:{customer_id}"},  # Stripe remembers a refusal too: that of a customer who is gone
            )
        )
        return _session(made)

    async def find_session(self, session_id: str) -> SessionFact | None:
        """Read a Checkout session."""
        found = await _find(self._client.v1.checkout.sessions.retrieve_async(session_id))
        return None if found is None else _session(found)

    async def find_payment(self, payment_id: str) -> PaymentFact | None:
        """Read a PaymentIntent with its charge, and then its refunds and disputes."""
        found = await _find(self._client.v1.payment_intents.retrieve_async(payment_id, {"expand": ["latest_charge.balance_transaction"]}))
        if found is None:
            return None
        expand = ["data.balance_transaction", "data.failure_balance_transaction"]
        refunds = await _all(self._client.v1.refunds, {"payment_intent": payment_id, "expand": expand})
        disputes = await _all(self._client.v1.disputes, {"payment_intent": payment_id})
        return _payment(found, refunds, disputes)

    async def find_payment_of(self, object_id: str) -> str | None:
        """Read which PaymentIntent a charge, refund or dispute belongs to."""
        service: Any = {"ch": self._client.v1.charges, "py": self._client.v1.charges, "re": self._client.v1.refunds, "pyr": self._client.v1.refunds}.get(
            object_id.split("_")[0], self._client.v1.disputes
        )
        found = await _find(service.retrieve_async(object_id))
        return None if found is None else found.get("payment_intent")

    async def saved_method(self, customer_id: str) -> SavedMethod | None:
        """Return the customer's newest card."""
        found = await _find(self._client.v1.customers.payment_methods.list_async(customer_id, {"type": "card", "limit": 1}))
        if found is None or not found["data"]:
            return None
        method = found["data"][0]
        return SavedMethod(method["id"], f"{method['card']['brand']} {method['card']['last4']}")

    async def charge_saved(self, top_up_id: UUID, workspace_id: UUID, customer_id: str, method_id: str, cents: int) -> str:
        """Confirm a PaymentIntent off session; raises ProcessorFailed with the card's answer and the payment's id when it says no."""
        made = await _ask(
            self._client.v1.payment_intents.create_async(
                {
                    "amount": cents,
                    "currency": USD,
                    "customer": customer_id,
                    "payment_method": method_id,
                    "off_session": True,
                    "confirm": True,
                    "description": PRODUCT,
                    "metadata": {"top_up": str(top_up_id), "workspace": str(workspace_id)},
                },
                {"idempotency_key": f"top_up:{top_up_id}"},
            )
        )
        return str(made["id"])

    async def refund(self, refund_id: UUID, payment_id: str, cents: int) -> RefundFact:
        """Refund a part of a PaymentIntent."""
        made = await _ask(
            self._client.v1.refunds.create_async(
                {
                    "payment_intent": payment_id,
                    "amount": cents,
                    "reason": "requested_by_customer",
                    "metadata": {"refund": str(refund_id)},
                    "expand": ["balance_transaction", "failure_balance_transaction"],
                },
                {"idempotency_key": f"refund:{refund_id}"},
            )
        )
        return _refund(made)

    async def events_since(self, at: datetime, types: Sequence[str]) -> list[EventFact]:
        """List events of these types, of which the API takes twenty at once."""
        found: dict[str, EventFact] = {}
        for start in range(0, len(types), 20):
            some = list(types[start : start + 20])
            listed = await _all(self._client.v1.events, {"created": {"gte": int(at.timestamp())}, "types": some})
            found |= {event["id"]: _event(event) for event in listed}
        return sorted(found.values(), key=lambda event: event.created_at)

    async def entries_between(self, start: datetime, end: datetime | None) -> list[EntryFact]:
        """List balance transactions, however many pages they are: a part of them would look as if the books were wrong."""
        wanted = {"gte": int(start.timestamp()), **({"lt": int(end.timestamp())} if end else {})}
        listed = await _all(self._client.v1.balance_transactions, {"created": wanted}, most_pages=None)
        return [_entry(each) for each in reversed(listed)]

    async def ensure_price(self, slug: str, name: str, cents: int, *, yearly: bool) -> str:
        """Return the active price under the tier's lookup key; one of another amount or interval loses the key to a new one, the same for all who ask at once."""
        key, interval = f"tallygate:{slug}", "year" if yearly else "month"
        listed = await _ask(self._client.v1.prices.list_async({"lookup_keys": [key], "active": True, "limit": 1}))
        holder = "nothing"
        for price in listed["data"]:
            holder = price["id"]
            if (price["unit_amount"], price["currency"], (price["recurring"] or {}).get("interval")) == (cents, USD, interval):
                return str(price["id"])
        product_id = f"tallygate_{slug}"
        if await _find(self._client.v1.products.retrieve_async(product_id)) is None:
            await _ask(self._client.v1.products.create_async({"id": product_id, "name": name, "metadata": {"tier": slug}}, {"idempotency_key": f"product:{slug}"}))
        made = await _ask(
            self._client.v1.prices.create_async(
                {
                    "product": product_id,
                    "currency": USD,
                    "unit_amount": cents,
                    "recurring": {"interval": interval},
                    "lookup_key": key,
                    "transfer_lookup_key": True,
                    "metadata": {"tier": slug},
                },
                {"idempotency_key": f"price:{slug}:{cents}:{interval}:after:{holder}"},
            )
        )
        return str(made["id"])

    async def create_subscription_session(
        self, page_id: UUID, workspace_id: UUID, customer_id: str, price_id: str, slug: str, trial_days: int, *, success_url: str, cancel_url: str
    ) -> SessionFact:
        """Begin a Checkout session in mode subscription."""
        ours = {"workspace": str(workspace_id), "tier": slug}
        about: Any = {"metadata": ours, **({"trial_period_days": trial_days} if trial_days else {})}
        made = await _ask(
            self._client.v1.checkout.sessions.create_async(
                {
                    "mode": "subscription",
                    "client_reference_id": str(page_id),
                    "customer": customer_id,
                    "metadata": ours,
                    "success_url": success_url,
                    "cancel_url": cancel_url,
                    "line_items": [{"price": price_id, "quantity": 1}],
                    "subscription_data": about,
                },
                {"idempotency_key": f"subscription:{page_id}:{customer_id}"},
            )
        )
        return _session(made)

    async def keep_one_page(self, customer_id: str, session_id: str) -> None:
        """Expire the open sessions in mode subscription beside one; it may be over itself, because another was begun at the same time."""
        found = await _all(self._client.v1.checkout.sessions, {"customer": customer_id, "status": "open"})
        pages = [each["id"] for each in found if each["mode"] == "subscription"]
        for other in pages if session_id in pages else ():
            if other != session_id:
                try:
                    await _ask(self._client.v1.checkout.sessions.expire_async(other))
                except ProcessorFailed as failed:
                    if failed.retryable:
                        raise  # else it was paid or ended meanwhile

    async def create_portal(self, page_id: UUID, customer_id: str, *, return_url: str) -> str:
        """Begin a session of the customer portal."""
        asked: Any = {"customer": customer_id, "return_url": return_url}
        made = await _ask(self._client.v1.billing_portal.sessions.create_async(asked, {"idempotency_key": f"portal:{page_id}:{customer_id}"}))
        return str(made["url"])

    async def find_subscription(self, subscription_id: str) -> SubscriptionFact | None:
        """Read a subscription with its schedule."""
        found = await _find(self._client.v1.subscriptions.retrieve_async(subscription_id, {"expand": ["schedule"]}))
        if found is None:
            return None
        item = found["items"]["data"][0]
        return SubscriptionFact(
            id=found["id"],
            status=found["status"],
            customer_id=_id(found["customer"]),
            workspace_id=_uuid((found.get("metadata") or {}).get("workspace")),
            tier=(item["price"].get("metadata") or {}).get("tier"),
            next_tier=await self._next_tier(found["schedule"], item),
            yearly=item["price"]["recurring"]["interval"] == "year",
            period_start=_at(item["current_period_start"]),
            period_end=_at(item["current_period_end"]),
            trial_ends_at=_at(found["trial_end"]) if found["trial_end"] else None,
            # a customer who cancels in Stripe's portal leaves an instant alone (docs.stripe.com/billing/subscriptions/billing-mode/compare)
            cancel_at_period_end=found["cancel_at_period_end"] or (found["cancel_at"] is not None and found["cancel_at"] <= item["current_period_end"]),
            created_at=_at(found["created"]),
            ended_at=_at(found["ended_at"]) if found["ended_at"] else None,
            live=found["livemode"],
        )

    async def _next_tier(self, schedule: Any, item: Json) -> str | None:
        if not isinstance(schedule, dict) or schedule["status"] not in ("active", "not_started") or len(schedule["phases"]) < 2:
            return None
        price_id = _id(schedule["phases"][-1]["items"][0]["price"])
        if price_id is None or price_id == item["price"]["id"]:
            return None
        price = await _find(self._client.v1.prices.retrieve_async(price_id))
        return None if price is None else (price.get("metadata") or {}).get("tier")

    async def find_invoice(self, invoice_id: str) -> InvoiceFact | None:
        """Read an invoice."""
        found = await _find(self._client.v1.invoices.retrieve_async(invoice_id, {"expand": ["payments"]}))
        if found is None:
            return None
        paid = [_id(each["payment"].get("payment_intent")) for each in found["payments"]["data"]]
        parent = (found.get("parent") or {}).get("subscription_details") or {}
        lines = (found.get("lines") or {}).get("data") or []
        return InvoiceFact(
            id=found["id"],
            number=found["number"],
            status=found["status"] or "draft",
            description=found["description"] or (lines[0].get("description") if lines else None),
            cents=found["total"],
            url=found["hosted_invoice_url"],
            pdf_url=found["invoice_pdf"],
            customer_id=_id(found["customer"]),
            subscription_id=_id(parent.get("subscription")),
            payment_ids=tuple(payment_id for payment_id in paid if payment_id is not None),
            created_at=_at(found["created"]),
            live=found["livemode"],
        )

    async def find_invoice_of(self, payment_id: str) -> str | None:
        """Read which invoice a PaymentIntent was begun for."""
        about: Any = {"payment": {"type": "payment_intent", "payment_intent": payment_id}, "limit": 1}
        listed = await _ask(self._client.v1.invoice_payments.list_async(about))
        return _id(listed["data"][0]["invoice"]) if listed["data"] else None

    async def change_price(self, change_id: UUID, subscription_id: str, price_id: str, slug: str) -> None:
        """Change the price of a subscription's item now, and charge the rest of the period now."""
        found = await _ask(self._client.v1.subscriptions.retrieve_async(subscription_id))
        if found["schedule"]:
            await self.release_schedule(change_id, subscription_id)
        await _ask(
            self._client.v1.subscriptions.update_async(
                subscription_id,
                {
                    "items": [{"id": found["items"]["data"][0]["id"], "price": price_id}],
                    "proration_behavior": "always_invoice",
                    "payment_behavior": "error_if_incomplete",
                    "metadata": {"tier": slug},
                },
                {"idempotency_key": f"change:{change_id}"},
            )
        )

    async def schedule_price(self, change_id: UUID, subscription_id: str, price_id: str) -> None:
        """Let a schedule of two phases lead the subscription: this period as it is, the next one at the other price."""
        found = await _ask(self._client.v1.subscriptions.retrieve_async(subscription_id))
        schedule_id = _id(found["schedule"])
        if schedule_id is None:
            made = await _ask(self._client.v1.subscription_schedules.create_async({"from_subscription": subscription_id}, {"idempotency_key": f"schedule:{change_id}"}))
            schedule_id = str(made["id"])
        item = found["items"]["data"][0]
        now: Any = {"items": [{"price": item["price"]["id"], "quantity": 1}], "start_date": item["current_period_start"], "end_date": item["current_period_end"]}
        if found["status"] == "trialing":
            now["trial_end"] = found["trial_end"]  # a phase is what is said of it: unsaid, the trial would be over, and charged
        await _ask(
            self._client.v1.subscription_schedules.update_async(
                schedule_id,
                {"end_behavior": "release", "phases": [now, {"items": [{"price": price_id, "quantity": 1}], "start_date": item["current_period_end"]}]},
                {"idempotency_key": f"phases:{change_id}"},
            )
        )

    async def release_schedule(self, change_id: UUID, subscription_id: str) -> None:
        """Take the subscription from its schedule."""
        found = await _ask(self._client.v1.subscriptions.retrieve_async(subscription_id))
        schedule_id = _id(found["schedule"])
        if schedule_id is not None:
            await _ask(self._client.v1.subscription_schedules.release_async(schedule_id, {}, {"idempotency_key": f"release:{change_id}"}))

    async def end_with_period(self, change_id: UUID, subscription_id: str, *, ends: bool) -> None:
        """Set whether a subscription ends with its period; one that does has no schedule."""
        what: Any = {"cancel_at_period_end": ends}
        if ends:
            await self.release_schedule(change_id, subscription_id)
        elif not (await _ask(self._client.v1.subscriptions.retrieve_async(subscription_id)))["cancel_at_period_end"]:
            what = {"cancel_at": ""}
        await _ask(self._client.v1.subscriptions.update_async(subscription_id, what, {"idempotency_key": f"end:{change_id}"}))


async def _all(service: Any, wanted: Json, *, most_pages: int | None = MOST_PAGES) -> list[Json]:
    """Every page of a list, as plain objects, newest first; the newest pages where there are more than `most_pages`."""
    found: list[Json] = []
    page: Json = {"limit": PAGE}
    for _ in itertools.count() if most_pages is None else range(most_pages):
        listed = await _ask(service.list_async({**wanted, **page}))
        found += listed["data"]
        if not listed["has_more"]:
            break
        page = {"limit": PAGE, "starting_after": listed["data"][-1]["id"]}
    return found


async def _ask(work: Coroutine[Any, Any, T]) -> Json:
    """Make one request; raises ProcessorFailed for whatever goes wrong, in words that hold no secret."""
    try:
        before_calling("Stripe")
    except AssertionError:
        work.close()
        raise
    try:
        return (await work).to_dict()
    except stripe.CardError as error:
        about = getattr(error.error, "payment_intent", None)
        told = error.user_message or "The card was declined."
        raise ProcessorFailed(told, retryable=False, provider_code=error.code, payment_id=None if about is None else about["id"]) from None
    except (stripe.APIConnectionError, stripe.RateLimitError, aiohttp.ClientError, TimeoutError, OSError) as error:
        raise ProcessorFailed("Stripe cannot be reached; try again.", retryable=True, provider_code=getattr(error, "code", None)) from None
    except (stripe.AuthenticationError, stripe.PermissionError) as error:
        raise ProcessorFailed("Stripe does not accept this installation's key.", retryable=False, provider_code=error.code) from None
    except stripe.StripeError as error:
        if error.code == "resource_missing" and getattr(error, "param", None) == "customer":
            raise NoSuchCustomer(f"Stripe refused: {error.user_message or error.code}", provider_code=error.code) from None
        retryable = (error.http_status or 500) >= 500 or error.http_status == 409
        raise ProcessorFailed(
            "Stripe failed; try again." if retryable else f"Stripe refused: {error.user_message or error.code}", retryable=retryable, provider_code=error.code
        ) from None


async def _find(work: Coroutine[Any, Any, T]) -> Json | None:
    try:
        return await _ask(work)
    except ProcessorFailed as failed:
        if failed.provider_code == "resource_missing":
            return None
        raise


def _at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _uuid(text: object) -> UUID | None:
    try:
        return UUID(text) if isinstance(text, str) else None
    except ValueError:
        return None


def _id(found: Any) -> str | None:
    """The id of an object that may be expanded."""
    return str(found["id"]) if isinstance(found, dict) else found


def _session(found: Json) -> SessionFact:
    return SessionFact(
        id=found["id"],
        mode=found["mode"],
        status=found["status"] or "open",
        url=found["url"],
        expires_at=_at(found["expires_at"]),
        workspace_id=_uuid((found.get("metadata") or {}).get("workspace")),
        subject=_uuid(found["client_reference_id"]),
        customer_id=_id(found["customer"]),
        payment_id=_id(found["payment_intent"]),
        subscription_id=_id(found["subscription"]),
        live=found["livemode"],
    )


def _entry(found: Json) -> EntryFact:
    return EntryFact(
        id=found["id"],
        type=found["type"],
        category=found["reporting_category"],
        cents=found["amount"],
        fee_cents=found["fee"],
        currency=found["currency"],
        source=_id(found["source"]),
        created_at=_at(found["created"]),
    )


def _optional_entry(found: Any) -> EntryFact | None:
    return _entry(found) if isinstance(found, dict) else None


def _refund(found: Json) -> RefundFact:
    return RefundFact(
        id=found["id"],
        cents=found["amount"],
        currency=found["currency"],
        status=found["status"] or "pending",
        reason=found.get("reason"),
        subject=_uuid((found.get("metadata") or {}).get("refund")),
        taken=_optional_entry(found.get("balance_transaction")),
        returned=_optional_entry(found.get("failure_balance_transaction")),
        created_at=_at(found["created"]),
    )


def _dispute(found: Json) -> DisputeFact:
    return DisputeFact(
        id=found["id"],
        cents=found["amount"],
        currency=found["currency"],
        status=found["status"],
        reason=found["reason"],
        entries=tuple(sorted((_entry(entry) for entry in found["balance_transactions"]), key=lambda entry: entry.created_at)),
        created_at=_at(found["created"]),
    )


def _payment(found: Json, refunds: list[Json], disputes: list[Json]) -> PaymentFact:
    charge = found["latest_charge"]
    failure = found.get("last_payment_error") or {}
    return PaymentFact(
        id=found["id"],
        status=found["status"],
        currency=found["currency"],
        received_cents=found["amount_received"],
        customer_id=_id(found["customer"]),
        workspace_id=_uuid((found.get("metadata") or {}).get("workspace")),
        subject=_uuid((found.get("metadata") or {}).get("top_up")),
        live=found["livemode"],
        paid_at=_at(charge["created"]) if charge and charge["status"] == "succeeded" else None,
        receipt_url=charge["receipt_url"] if charge else None,
        entry=_optional_entry(charge["balance_transaction"]) if charge else None,
        failure_code=failure.get("code"),
        failure_message=failure.get("message"),
        refunds=tuple(_refund(each) for each in reversed(refunds)),
        disputes=tuple(_dispute(each) for each in reversed(disputes)),
    )


def _event(found: Json) -> EventFact:
    about = found["data"]["object"]
    return EventFact(found["id"], found["type"], about["id"], _id(about.get("payment_intent")), found["livemode"], _at(found["created"]))
