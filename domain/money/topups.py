"""Top-ups: credit that is bought. A row first, then a page at Stripe in its name, so that whatever stops in between can be gone on with."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import structlog

from domain import audit, idempotency
from domain.access.callers import Actor, Caller
from domain.errors import InvalidInput, NotFound, OutOfRange
from domain.money.amounts import usd
from domain.money.processor import MICROUSD_PER_CENT, NoSuchCustomer, PaymentsDisabled, Processor, ProcessorFailed, SessionFact
from domain.pages import Page, PageOf, cut, newest_first
from models import database
from models.enums import ActorKind, DisputeStatus, RefundStatus, Scope, TopUpStatus
from models.ids import uuid7

SMALLEST_USD = 5
LARGEST_USD = 1_000
SUGGESTED_USD = (10, 25, 50, 100)
FIRST_LOOK_SECONDS = 120
LONGEST_URL = 2_000

T = TypeVar("T")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class TopUpView:
    """A payment for credit, in microdollars: `amount` was asked for, `credited` is what was booked, None until then."""

    id: UUID
    workspace_id: UUID
    status: TopUpStatus
    amount: int
    credited: int | None
    automatic: bool
    creator: Actor
    return_url: str | None
    session_id: str | None
    session_url: str | None
    session_expires_at: datetime | None
    payment_id: str | None
    receipt_url: str | None
    failure_code: str | None
    failure_message: str | None
    created_at: datetime
    fulfilled_at: datetime | None


@dataclass(frozen=True, slots=True)
class RefundView:
    """Money of a top-up given back."""

    id: UUID
    workspace_id: UUID
    top_up_id: UUID
    amount: int
    status: RefundStatus
    reason: str | None
    creator: Actor
    created_at: datetime


@dataclass(frozen=True, slots=True)
class DisputeView:
    """A payment contested at the customer's bank; `reason` is the bank's, as Stripe names it."""

    id: UUID
    workspace_id: UUID
    top_up_id: UUID
    amount: int
    status: DisputeStatus
    reason: str
    created_at: datetime
    closed_at: datetime | None


_COLUMNS = """
    t.id, t.workspace_id, t.status, t.amount_microusd, t.credited_microusd, t.automatic, t.creator_kind, t.creator_id, t.creator_name, t.return_url, t.session_id,
    t.session_url, t.session_expires_at, t.payment_id, t.receipt_url, t.failure_code, t.failure_message, t.created_at, t.fulfilled_at
"""


def _actor(row: asyncpg.Record) -> Actor:
    return Actor(ActorKind(row["creator_kind"]), row["creator_id"], row["creator_name"])


def _view(row: asyncpg.Record) -> TopUpView:
    same = ("id", "workspace_id", "automatic", "return_url", "session_id", "session_url", "session_expires_at", "payment_id", "receipt_url", "failure_code")
    return TopUpView(
        status=TopUpStatus(row["status"]),
        amount=row["amount_microusd"],
        credited=row["credited_microusd"],
        creator=_actor(row),
        failure_message=row["failure_message"],
        created_at=row["created_at"],
        fulfilled_at=row["fulfilled_at"],
        **{name: row[name] for name in same},
    )


def enabled(processor: Processor | None) -> Processor:
    """Return the processor; raises PaymentsDisabled when none is configured."""
    if processor is None:
        raise PaymentsDisabled
    return processor


def check_amount(microusd: int, *, path: str) -> int:
    """Return an amount to buy in cents; raises OutOfRange and InvalidInput, naming `path`."""
    smallest, largest = SMALLEST_USD * 1_000_000, LARGEST_USD * 1_000_000
    if not smallest <= microusd <= largest:
        raise OutOfRange(
            f"A top-up is at least {usd(smallest)} and at most {usd(largest)} US dollars.",
            minimum=SMALLEST_USD,
            maximum=LARGEST_USD,
            too_large=microusd > largest,
            path=(path,),
        )
    cents, rest = divmod(microusd, MICROUSD_PER_CENT)
    if rest:
        raise InvalidInput("A top-up is whole cents: at most two decimals.", path=(path,))
    return cents


def check_return_url(url: str | None, public_url: str) -> str:
    """Return where Stripe sends the customer afterwards, the service's own page for None; raises InvalidInput for another origin."""
    if url is None:
        return f"{public_url}/"
    try:
        asked, own = urlsplit(url), urlsplit(public_url)
        fits = (asked.scheme, asked.hostname, asked.port, asked.username) == (own.scheme, own.hostname, own.port, None)
    except ValueError:
        fits = False
    if not fits or len(url) > LONGEST_URL or not url.isascii() or not url.isprintable() or " " in url:
        raise InvalidInput(f"The return address must begin with {public_url}/.", path=("returnUrl",))
    return url


async def begin(caller: Caller, processor: Processor | None, microusd: int, *, return_url: str, idempotency_key: str | None, path: str = "amountUsd") -> TopUpView:
    """Begin a top-up and give the page to pay it at; the same key gives the first one again.

    Raises OutOfRange, InvalidInput, IdempotencyConflict, PaymentsDisabled, and ProcessorFailed: with `retryable`, the same key goes on where it stopped.
    """
    workspace_id = caller.require(Scope.BILLING_WRITE)
    check_amount(microusd, path=path)
    cashier = enabled(processor)
    top_up_id = uuid7()
    async with database.transaction():
        first = None
        if idempotency_key is not None:
            first = await idempotency.claim(workspace_id, "topUp", idempotency_key, [microusd, return_url], top_up_id)
        if first is None:
            await insert(workspace_id, top_up_id, microusd, caller.actor, return_url=return_url)
            told = {"amountMicroUsd": (None, microusd)}
            await audit.note(caller.actor, "topUp.create", ("TopUp", top_up_id), told, workspace_id=workspace_id, at=caller.at)
    top_up = await find(workspace_id, first or top_up_id)
    if top_up.status is TopUpStatus.OPEN and top_up.session_id is None:
        await open_session(cashier, top_up)
    return await find(workspace_id, top_up.id)


async def insert(workspace_id: UUID, top_up_id: UUID, microusd: int, actor: Actor, *, return_url: str | None, method_id: str | None = None) -> None:
    """Write a top-up in the open transaction; `method_id` is the saved card of an automatic one."""
    await database.fetch(
        """
        INSERT INTO top_up (workspace_id, id, status, amount_microusd, automatic, creator_kind, creator_id, creator_name, return_url, method_id, created_at,
                            version, look_at)
        VALUES ($1, $2, 'open', $3, $8::text IS NOT NULL, $4, $5, $6, $7, $8, clock_timestamp(), 0, clock_timestamp() + make_interval(secs => $9))
        """,
        workspace_id,
        top_up_id,
        microusd,
        actor.kind.value,
        actor.id,
        actor.name[:200],
        return_url,
        method_id,
        FIRST_LOOK_SECONDS,
    )


async def open_session(processor: Processor, top_up: TopUpView) -> SessionFact:
    """Make the page of a top-up, or have again the one that was made for it, and write it down; a refusal by Stripe ends the top-up."""
    url = top_up.return_url or ""

    async def make(customer_id: str) -> SessionFact:
        cents = top_up.amount // MICROUSD_PER_CENT
        return await processor.create_top_up_session(top_up.id, top_up.workspace_id, customer_id, cents, success_url=url, cancel_url=url)

    try:
        session = await as_customer(processor, top_up.workspace_id, make)
    except ProcessorFailed as failed:
        if not failed.retryable:
            await database.fetch(
                "UPDATE top_up SET status = 'failed', failure_code = $3, failure_message = $4, look_at = NULL WHERE workspace_id = $1 AND id = $2 AND session_id IS NULL",
                top_up.workspace_id,
                top_up.id,
                failed.provider_code,
                failed.message,
            )
        raise
    async with database.transaction():
        await database.fetch(
            "UPDATE top_up SET session_id = $3, session_url = $4, session_expires_at = $5 WHERE workspace_id = $1 AND id = $2 AND session_id IS NULL",
            top_up.workspace_id,
            top_up.id,
            session.id,
            session.url,
            session.expires_at,
        )
        await enter(session.id, "session", top_up.workspace_id, top_up.id)
    return session


async def enter(object_id: str, kind: str, workspace_id: UUID, subject_id: UUID) -> None:
    """Write into the directory whose an object at Stripe is; the first entry stays."""
    await database.fetch(
        "INSERT INTO stripe_object (id, kind, workspace_id, subject_id) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING", object_id, kind, workspace_id, subject_id
    )


FORMER_CUSTOMER = "former_customer"
"""The kind of a customer that Stripe did not know any more, and of which there is another since."""
SALE = "sale"
"""The kind of a payment that bought no credit: its row is an invoice."""


async def whose(object_id: str, *, sale: bool = False) -> tuple[UUID, UUID] | None:
    """Return workspace and row of an object at Stripe; None when the directory does not know it, or knows it as a sale where none is asked for."""
    row = await database.fetch_row("SELECT workspace_id, subject_id FROM stripe_object WHERE id = $1 AND (kind = 'sale') = $2", object_id, sale)
    return None if row is None else (row["workspace_id"], row["subject_id"])


async def known_customer(workspace_id: UUID) -> str | None:
    """Return the workspace's customer at Stripe; None while it has none."""
    found: str | None = await database.fetch_value("SELECT id FROM stripe_object WHERE workspace_id = $1 AND kind = 'customer'", workspace_id)
    return found


async def is_customer(workspace_id: UUID, customer_id: str | None) -> bool:
    """Whether a customer at Stripe is the workspace's, or was: what a former one paid stays the workspace's."""
    owner = None if customer_id is None else await whose(customer_id)
    return owner is not None and owner[0] == workspace_id


async def customer_of(processor: Processor, workspace_id: UUID) -> str:
    """Return the workspace's customer at Stripe, made when there is none."""
    known = await known_customer(workspace_id)
    if known is not None:
        return known
    await enter(await processor.create_customer(workspace_id), "customer", workspace_id, workspace_id)
    made = await known_customer(workspace_id)
    assert made is not None, "the one that was entered first, ours or another process's"
    return made


async def as_customer(processor: Processor, workspace_id: UUID, work: Callable[[str], Awaitable[T]]) -> T:
    """Do `work` with the workspace's customer; with another one, made then, when Stripe does not know it (any more)."""
    known = await customer_of(processor, workspace_id)
    try:
        return await work(known)
    except NoSuchCustomer:
        log.warning("a customer is gone at Stripe, and made anew", workspace=str(workspace_id), customer=known)
    made = await processor.create_customer(workspace_id, after=known)
    async with database.transaction():
        await database.fetch("UPDATE stripe_object SET kind = $2 WHERE id = $1 AND kind = 'customer'", known, FORMER_CUSTOMER)
        await enter(made, "customer", workspace_id, workspace_id)
    return await work(await customer_of(processor, workspace_id))


async def find(workspace_id: UUID, top_up_id: UUID) -> TopUpView:
    """Return a top-up of a workspace; raises NotFound."""
    row = await database.fetch_row(f"SELECT {_COLUMNS} FROM top_up t WHERE t.workspace_id = $1 AND t.id = $2", workspace_id, top_up_id)
    if row is None:
        raise NotFound("top-up", path=("id",))
    return _view(row)


async def find_many(workspace_id: UUID, ids: Sequence[UUID]) -> dict[UUID, TopUpView]:
    """Return those of a workspace's top-ups that have these ids."""
    rows = await database.fetch(f"SELECT {_COLUMNS} FROM top_up t WHERE t.workspace_id = $1 AND t.id = ANY ($2)", workspace_id, list(ids))
    return {row["id"]: _view(row) for row in rows}


async def page(caller: Caller, wanted: Page) -> PageOf[TopUpView]:
    """Return a page of the caller's top-ups, newest first."""
    workspace_id = caller.require(Scope.BILLING_READ)
    keyset = newest_first(wanted, column="t.id", offset=1)
    rows = await database.fetch(f"SELECT {_COLUMNS} FROM top_up t WHERE t.workspace_id = $1 {keyset.where} {keyset.order}", workspace_id, *keyset.arguments)
    return cut([_view(row) for row in rows], wanted)


async def count(caller: Caller) -> int:
    """Return how many top-ups the caller's workspace has."""
    return int(await database.fetch_value("SELECT count(*) FROM top_up WHERE workspace_id = $1", caller.require(Scope.BILLING_READ)))


def _refund(row: asyncpg.Record) -> RefundView:
    return RefundView(
        row["id"], row["workspace_id"], row["top_up_id"], row["amount_microusd"], RefundStatus(row["status"]), row["reason"], _actor(row), row["created_at"]
    )


def _dispute(row: asyncpg.Record) -> DisputeView:
    return DisputeView(
        row["id"], row["workspace_id"], row["top_up_id"], row["amount_microusd"], DisputeStatus(row["status"]), row["reason"], row["created_at"], row["closed_at"]
    )


async def refunds_of(workspace_id: UUID, top_up_ids: Sequence[UUID]) -> dict[UUID, list[RefundView]]:
    """Return the refunds of top-ups, oldest first."""
    found: dict[UUID, list[RefundView]] = {}
    for row in await database.fetch("SELECT * FROM refund WHERE workspace_id = $1 AND top_up_id = ANY ($2) ORDER BY created_at, id", workspace_id, list(top_up_ids)):
        found.setdefault(row["top_up_id"], []).append(_refund(row))
    return found


async def find_refund(workspace_id: UUID, refund_id: UUID) -> RefundView:
    """Return a refund of a workspace; raises NotFound."""
    row = await database.fetch_row("SELECT * FROM refund WHERE workspace_id = $1 AND id = $2", workspace_id, refund_id)
    if row is None:
        raise NotFound("refund", path=("id",))
    return _refund(row)


async def disputes_of(workspace_id: UUID, top_up_ids: Sequence[UUID]) -> dict[UUID, list[DisputeView]]:
    """Return the disputes of top-ups, oldest first."""
    found: dict[UUID, list[DisputeView]] = {}
    for row in await database.fetch("SELECT * FROM dispute WHERE workspace_id = $1 AND top_up_id = ANY ($2) ORDER BY created_at, id", workspace_id, list(top_up_ids)):
        found.setdefault(row["top_up_id"], []).append(_dispute(row))
    return found


async def find_dispute(workspace_id: UUID, dispute_id: UUID) -> DisputeView:
    """Return a dispute of a workspace's top-up; raises NotFound."""
    row = await database.fetch_row("SELECT * FROM dispute WHERE workspace_id = $1 AND id = $2 AND top_up_id IS NOT NULL", workspace_id, dispute_id)
    if row is None:
        raise NotFound("dispute", path=("id",))
    return _dispute(row)
