"""What Stripe tells: whom to believe, an inbox that takes each event once, and what each leads to."""

import hashlib
import hmac
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from domain import duties
from domain.duties import Duty
from domain.errors import InvalidInput
from domain.money import payments, renewals, topups
from domain.money.processor import EventFact, Processor
from models import database

STRIPE_EVENT = "stripe_event"
TOLERANCE_SECONDS = 300
MOST_SIGNATURES = 8
CATCH_UP_SECONDS = 300
OVERLAP = timedelta(hours=1)
FIRST_CATCH_UP = timedelta(days=3)
CATCH_UP = "stripe_events"

SESSIONS = ("checkout.session.completed", "checkout.session.async_payment_succeeded", "checkout.session.async_payment_failed", "checkout.session.expired")
MONEY = (
    *("payment_intent.succeeded", "payment_intent.payment_failed", "payment_intent.processing", "payment_intent.canceled"),
    *("charge.succeeded", "charge.refunded", "refund.created", "refund.updated", "refund.failed", "charge.refund.updated"),
    *("charge.dispute.created", "charge.dispute.updated", "charge.dispute.closed", "charge.dispute.funds_withdrawn", "charge.dispute.funds_reinstated"),
)
SUBSCRIPTION, INVOICE = "customer.subscription.", "invoice."
RENEWALS = (
    *(f"{SUBSCRIPTION}{what}" for what in ("created", "updated", "deleted", "paused", "resumed", "trial_will_end")),
    *(f"{INVOICE}{what}" for what in ("finalized", "paid", "payment_failed", "payment_action_required", "voided", "marked_uncollectible", "updated")),
)
TYPES = (*SESSIONS, *MONEY, *RENEWALS)
"""What is listened to; everything else is answered and forgotten."""

_ID = re.compile(r"[A-Za-z0-9_]{4,250}")
_TYPE = re.compile(r"[a-z0-9_.]{3,100}")
_TIME = re.compile(r"[0-9]{1,15}")
_SIGNATURE = re.compile(r"[0-9a-f]{64}")


class NotBelieved(InvalidInput):
    """The request is no event of our account; the message is the same whatever is wrong with it."""

    def __init__(self) -> None:
        super().__init__("This is no event of this installation's account at Stripe.")


def verify(body: bytes, header: str | None, secrets: Sequence[str], *, at: datetime) -> None:
    """Raise NotBelieved unless one of the secrets signed the body within five minutes of `at`, before or after.

    Source: docs.stripe.com/webhooks, "Verify webhook signatures manually".
    """
    times, signatures = [], []
    for part in (header or "")[:2000].split(","):
        name, _, value = part.strip().partition("=")
        if name == "t":
            times.append(value)
        elif name == "v1" and _SIGNATURE.fullmatch(value):
            signatures.append(value)
    if len(times) != 1 or not _TIME.fullmatch(times[0]) or abs(int(times[0]) - at.timestamp()) > TOLERANCE_SECONDS:
        raise NotBelieved
    believed = False
    for secret in secrets:
        wanted = hmac.new(secret.encode(), f"{times[0]}.".encode() + body, hashlib.sha256).hexdigest()
        for signature in signatures[:MOST_SIGNATURES]:
            believed |= hmac.compare_digest(wanted, signature)
    if not believed:
        raise NotBelieved


def read(body: bytes, *, live: bool) -> EventFact | None:
    """Return the event of a body that is believed; None for one that is not listened to. Raises NotBelieved for another mode or account, or no event."""
    try:
        event = msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise NotBelieved from None
    about = _field(_field(event, "data"), "object")
    id_, type_, created = _field(event, "id"), _field(event, "type"), _field(event, "created")
    if _field(event, "object") != "event" or _field(event, "livemode") is not live or _field(event, "account") is not None:
        raise NotBelieved
    if not (isinstance(id_, str) and _ID.fullmatch(id_) and isinstance(type_, str) and _TYPE.fullmatch(type_) and isinstance(created, int) and 0 <= created < 2**33):
        raise NotBelieved
    object_id, payment_id = _field(about, "id"), _field(about, "payment_intent")
    if isinstance(payment_id, dict):
        payment_id = _field(payment_id, "id")
    if type_ not in TYPES:
        return None
    if not (isinstance(object_id, str) and _ID.fullmatch(object_id)) or not (payment_id is None or (isinstance(payment_id, str) and _ID.fullmatch(payment_id))):
        raise NotBelieved
    return EventFact(id_, type_, object_id, payment_id, live, datetime.fromtimestamp(created, UTC))


def _field(found: Any, name: str) -> Any:
    return found.get(name) if isinstance(found, dict) else None


async def receive(event: EventFact) -> bool:
    """Put an event into the inbox with the duty to apply it, in one transaction; False when it is there already."""
    async with database.transaction():
        row = await database.fetch_row(
            """
            INSERT INTO stripe_event (id, type, object_id, payment_id, created_at, received_at) VALUES ($1, $2, $3, $4, $5, clock_timestamp())
                ON CONFLICT DO NOTHING RETURNING received_at
            """,
            event.id,
            event.type,
            event.object_id,
            event.payment_id,
            event.created_at,
        )
        if row is None:
            return False
        await duties.owe(STRIPE_EVENT, {"event_id": event.id}, workspace_id=None, at=row["received_at"])
    return True


async def apply(processor: Processor, duty: Duty) -> None:
    """Do what an event leads to, from a fresh look at its object; it may be done twice, at once, in any order, or stop half-way."""
    event = await database.fetch_row("SELECT * FROM stripe_event WHERE id = $1", duty.payload["event_id"])
    assert event is not None, "the duty was written with its event"
    outcome = "applied"
    if event["applied_at"] is None and not await look_at(processor, event["type"], event["object_id"], event["payment_id"], event["received_at"]):
        outcome = "not ours"
    async with database.transaction():
        await database.fetch("UPDATE stripe_event SET applied_at = clock_timestamp(), outcome = $2 WHERE id = $1 AND applied_at IS NULL", event["id"], outcome)
        await duties.done(duty)


async def look_at(processor: Processor, type_: str, object_id: str, payment_id: str | None, heard_at: datetime) -> bool:
    """Read what an event of a type is about, and book and write down what it says; False when it is not ours."""
    if type_.startswith(SUBSCRIPTION):
        return await renewals.refresh(processor, object_id)
    if type_.startswith(INVOICE):
        return await renewals.refresh_invoice(processor, object_id)
    if type_ in SESSIONS:
        session = await topups.whose(object_id)
        if session is None:
            found = await processor.find_session(object_id)
            if found is not None and found.subscription_id is not None:
                return await renewals.refresh(processor, found.subscription_id)
            if found is None or found.mode != "payment" or found.workspace_id is None or found.subject is None:
                return False
            session, payment_id = (found.workspace_id, found.subject), found.payment_id
        return await payments.look(processor, *session, payment_id=payment_id, heard_at=heard_at)
    if object_id.startswith("pi_"):
        payment_id = object_id
    payment_id = payment_id or await processor.find_payment_of(object_id)
    if payment_id is None:
        return False
    if await topups.whose(payment_id, sale=True) is not None:
        return await renewals.refresh_sale(processor, payment_id)
    ours = await payments.find_top_up(processor, payment_id)
    if ours is None:
        return await renewals.refresh_sale(processor, payment_id)
    return await payments.look(processor, *ours, payment_id=payment_id, heard_at=heard_at)


async def catch_up(processor: Processor, *, at: datetime) -> int:
    """Ask Stripe what happened since the last time, and take in what its webhook never told; returns how many events were new."""
    row = await database.fetch_row("SELECT done_at FROM clock WHERE name = $1", CATCH_UP)
    if row is not None and at - row["done_at"] < timedelta(seconds=CATCH_UP_SECONDS):
        return 0
    since = at - FIRST_CATCH_UP if row is None else row["done_at"] - OVERLAP
    new = 0
    for event in await processor.events_since(since, TYPES):
        if event.live == processor.live:
            new += await receive(event)
    await database.fetch(
        "INSERT INTO clock (name, done_at) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET done_at = greatest(clock.done_at, excluded.done_at)", CATCH_UP, at
    )
    return new
