"""Stripe, over its own SDK: each method one promise of `domain.money.processor.Processor`, every wait bounded."""

from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

import aiohttp
import stripe

from domain.money.processor import USD, DisputeFact, EntryFact, EventFact, PaymentFact, ProcessorFailed, RefundFact, SavedMethod, SessionFact
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

    async def create_customer(self, workspace_id: UUID) -> str:
        """Make the workspace's customer; a repeat within a day returns the same."""
        made = await _ask(self._client.v1.customers.create_async({"metadata": {"workspace": str(workspace_id)}}, {"idempotency_key": f"customer:{workspace_id}"}))
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
                {"idempotency_key": f"top_up:{top_up_id}"},
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

    async def entries_between(self, start: datetime, end: datetime) -> list[EntryFact]:
        """List balance transactions."""
        wanted = {"gte": int(start.timestamp()), "lt": int(end.timestamp())}
        listed = await _all(self._client.v1.balance_transactions, {"created": wanted})
        return [_entry(each) for each in reversed(listed)]


async def _all(service: Any, wanted: Json) -> list[Json]:
    """Every page of a list, as plain objects, newest first."""
    found: list[Json] = []
    page: Json = {"limit": PAGE}
    for _ in range(MOST_PAGES):
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
    return EntryFact(found["id"], found["amount"], found["fee"], found["currency"], _id(found["source"]), _at(found["created"]))


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
