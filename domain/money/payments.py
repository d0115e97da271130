"""Booking what Stripe says of a payment: one look reads everything at once, and books what is not booked yet, so that order and repeats do not matter."""

import contextlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import asyncpg
import structlog

from domain import duties, webhooks
from domain.access.callers import Actor
from domain.errors import NotFound, Unavailable
from domain.money import ledger, topups
from domain.money.processor import MICROUSD_PER_CENT, USD, DisputeFact, EntryFact, PaymentFact, Processor, ProcessorFailed, RefundFact, SessionFact
from domain.money.topups import TopUpView
from models import database
from models.enums import ActorKind, DisputeStatus, LedgerAccountKind, RefundStatus, TopUpStatus, TransferKind
from models.ids import uuid7

STRIPE = Actor(ActorKind.SYSTEM, None, "stripe")
AUTO_TOP_UP_FAILED: Final = "auto_top_up_failed"
"""The duty to tell a workspace's owners that their card was not charged."""
MOST_RACES = 5
KEYS_LIVE = timedelta(hours=20)
"""Stripe forgets an idempotency key after a day: later, a request of ours is not repeated."""
SOON, LATER, SELDOM = timedelta(minutes=2), timedelta(hours=1), timedelta(hours=6)
MOST_LOOKS = 20

STAGES = (DisputeStatus.INQUIRY, DisputeStatus.OPEN, DisputeStatus.LOST, DisputeStatus.WON)
"""How a dispute goes on: a reading that another overtook takes nothing back."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Seen:
    """What one look saw: the row as it was before Stripe was asked, when that was, and what Stripe said."""

    top_up: TopUpView
    version: int
    began_at: datetime
    session: SessionFact | None
    payment: PaymentFact | None


async def look(processor: Processor, workspace_id: UUID, top_up_id: UUID, *, payment_id: str | None = None, heard_at: datetime | None = None) -> bool:
    """Read a top-up's page and payment at Stripe, and book all that they say; False when there is no such top-up.

    `heard_at` is when an event told of it: a look that began later has seen it already. `payment_id` is one that names this top-up.
    Raises ProcessorFailed, and Unavailable when other looks were in the way.
    """
    for _ in range(MOST_RACES):
        row = await database.fetch_row(
            "SELECT version, looked_at, method_id, clock_timestamp() AS now FROM top_up WHERE workspace_id = $1 AND id = $2", workspace_id, top_up_id
        )
        if row is None:
            return False
        if heard_at is not None and row["looked_at"] is not None and row["looked_at"] > heard_at:
            return True
        top_up = await topups.find(workspace_id, top_up_id)
        session, found = await _pages(processor, top_up, row["method_id"], row["now"])
        wanted = top_up.payment_id or found or (session.payment_id if session else None) or payment_id
        payment = await processor.find_payment(wanted) if wanted else None
        if payment is not None and await _ask_refunds(processor, top_up, payment):
            payment = await processor.find_payment(payment.id)
        if await _apply(processor, _Seen(top_up, row["version"], row["now"], session, payment)):
            return True
    raise Unavailable("Others look at this top-up at the same time.")


async def _pages(processor: Processor, top_up: TopUpView, method_id: str | None, now: datetime) -> tuple[SessionFact | None, str | None]:
    """The page of a top-up, and the payment of an automatic one; what a crash kept from being made or written down is made, or had again."""
    if top_up.session_id is not None:
        return await processor.find_session(top_up.session_id), None
    if top_up.status is not TopUpStatus.OPEN or top_up.payment_id is not None or now - top_up.created_at > KEYS_LIVE:
        return None, None
    if method_id is None:
        try:
            return await topups.open_session(processor, top_up), None
        except ProcessorFailed as failed:
            if failed.retryable:
                raise
            return None, None
    customer_id = await topups.customer_of(processor, top_up.workspace_id)
    try:
        return None, await processor.charge_saved(top_up.id, top_up.workspace_id, customer_id, method_id, top_up.amount // MICROUSD_PER_CENT)
    except ProcessorFailed as failed:
        if failed.retryable:
            raise
        if failed.payment_id is None:
            await database.fetch(
                "UPDATE top_up SET failure_code = $3, failure_message = $4 WHERE workspace_id = $1 AND id = $2",
                top_up.workspace_id,
                top_up.id,
                failed.provider_code,
                failed.message,
            )
        return None, failed.payment_id


async def _ask_refunds(processor: Processor, top_up: TopUpView, payment: PaymentFact) -> bool:
    """Ask for those refunds of ours that Stripe does not know: a crash came in between. Tells whether there was one."""
    heard = {refund.subject for refund in payment.refunds}
    rows = await database.fetch(
        "SELECT id, created_at FROM refund WHERE workspace_id = $1 AND top_up_id = $2 AND stripe_refund_id IS NULL AND status = 'pending' AND creator_name <> $3",
        top_up.workspace_id,
        top_up.id,
        STRIPE.name,
    )
    unknown = [row["id"] for row in rows if row["id"] not in heard]
    for refund_id in unknown:
        try:
            await _request_refund(processor, top_up.workspace_id, refund_id)
        except ProcessorFailed as failed:
            if failed.retryable:
                raise
    return bool(unknown)


async def _request_refund(processor: Processor, workspace_id: UUID, refund_id: UUID) -> None:
    """Ask Stripe for a refund that is booked; what Stripe refuses is booked back. Raises ProcessorFailed."""
    row = await database.fetch_row(
        "SELECT r.amount_microusd, r.top_up_id, t.payment_id FROM refund r JOIN top_up t ON t.workspace_id = r.workspace_id AND t.id = r.top_up_id"
        " WHERE r.workspace_id = $1 AND r.id = $2 AND r.status = 'pending' AND r.stripe_refund_id IS NULL",
        workspace_id,
        refund_id,
    )
    if row is None:
        return
    cents = row["amount_microusd"] // MICROUSD_PER_CENT
    try:
        made = await processor.refund(refund_id, row["payment_id"], cents)
    except ProcessorFailed as failed:
        if failed.retryable:
            raise
        async with database.transaction():
            await database.fetch("SELECT FROM account WHERE workspace_id = $1 AND kind = 'cash' FOR NO KEY UPDATE", workspace_id)
            ended = await database.fetch_row(
                "UPDATE refund SET status = 'failed' WHERE workspace_id = $1 AND id = $2 AND status = 'pending'"
                " AND stripe_refund_id IS NULL RETURNING id", workspace_id, refund_id
            )
            if ended is not None:
                await _post(workspace_id, TransferKind.REFUND_FAILURE, str(refund_id), LedgerAccountKind.PAYMENTS, LedgerAccountKind.CASH, cents, failed.message)
        raise
    await database.fetch("UPDATE refund SET stripe_refund_id = $3 WHERE workspace_id = $1 AND id = $2 AND stripe_refund_id IS NULL", workspace_id, refund_id, made.id)


async def ask_refund(processor: Processor, workspace_id: UUID, refund_id: UUID) -> None:
    """Ask Stripe for a refund that is booked, and book what comes of it. Raises ProcessorFailed."""
    await _request_refund(processor, workspace_id, refund_id)
    top_up_id = await database.fetch_value("SELECT top_up_id FROM refund WHERE workspace_id = $1 AND id = $2", workspace_id, refund_id)
    with contextlib.suppress(Unavailable):  # others look at it now, and leave it to a sweep to see what they have not seen
        await look(processor, workspace_id, top_up_id)


async def _apply(processor: Processor, seen: _Seen) -> bool:
    """Book what a look saw, in one transaction; False when another look was booked meanwhile, which may have seen more."""
    workspace_id, top_up_id = seen.top_up.workspace_id, seen.top_up.id
    payment = seen.payment if seen.payment is not None and await _is_ours(processor, seen.top_up, seen.payment) else None
    async with database.transaction():
        await database.fetch("SELECT FROM account WHERE workspace_id = $1 AND kind = 'cash' FOR NO KEY UPDATE", workspace_id)
        row = await database.fetch_row("SELECT version, status FROM top_up WHERE workspace_id = $1 AND id = $2 FOR NO KEY UPDATE", workspace_id, top_up_id)
        if row is None or row["version"] != seen.version:
            return False
        if payment is not None:
            await topups.enter(payment.id, "payment", workspace_id, top_up_id)
            await _book(workspace_id, top_up_id, payment)
        before = TopUpStatus(row["status"])
        status = _status(seen, payment, before)
        await _write(seen, payment, status)
        await _freeze(workspace_id)
        paid_now = status is TopUpStatus.FULFILLED and before is not TopUpStatus.FULFILLED
        if paid_now:
            await _announce(seen.top_up, at=seen.began_at)
        await _release_automatic(workspace_id, top_up_id, status, paid_now=paid_now)
    return True


async def _is_ours(processor: Processor, top_up: TopUpView, payment: PaymentFact) -> bool:
    """Whether a payment is bound to this top-up: of our mode, of the workspace's customer, naming it, and the only one that does."""
    bound = (payment.workspace_id, payment.subject) == (top_up.workspace_id, top_up.id) and top_up.payment_id in (None, payment.id)
    if bound and payment.live == processor.live and await topups.is_customer(top_up.workspace_id, payment.customer_id):
        return True
    log.error("payment is not bound to the top-up that it names", payment=payment.id, top_up=str(top_up.id))
    return False


def _status(seen: _Seen, payment: PaymentFact | None, before: TopUpStatus) -> TopUpStatus:
    if before is TopUpStatus.FULFILLED or (payment is not None and payment.status == "succeeded" and payment.received_cents > 0):
        return TopUpStatus.FULFILLED
    if payment is not None and payment.status == "processing":
        return TopUpStatus.PENDING
    session = seen.session
    if session is not None:
        if session.status == "open":
            return TopUpStatus.OPEN
        # a page that is complete without a payment that goes on: the bank said no in the end
        return TopUpStatus.EXPIRED if session.status == "expired" else TopUpStatus.FAILED if payment is not None else TopUpStatus.PENDING
    if seen.top_up.automatic:
        failed = payment is not None or seen.top_up.payment_id is None
        return TopUpStatus.FAILED if failed else before
    if before is TopUpStatus.OPEN and seen.began_at - seen.top_up.created_at > KEYS_LIVE:
        return TopUpStatus.EXPIRED
    return before


async def _write(seen: _Seen, payment: PaymentFact | None, status: TopUpStatus) -> None:
    credited = payment.received_cents * MICROUSD_PER_CENT if payment is not None and payment.currency == USD and payment.received_cents else None
    failed = status is TopUpStatus.FAILED
    await database.fetch(
        """
        UPDATE top_up SET status = $3::text, version = version + 1, looked_at = $4, payment_id = coalesce(payment_id, $6),
               receipt_url = coalesce($7, receipt_url),
               credited_microusd = CASE WHEN $3::text = 'fulfilled' THEN coalesce(credited_microusd, $8::bigint) END, paid_at = coalesce(paid_at, $9),
               fulfilled_at = CASE WHEN $3::text = 'fulfilled' THEN coalesce(fulfilled_at, clock_timestamp()) END,
               failure_code = CASE WHEN $10::boolean THEN coalesce($11, failure_code) END,
               failure_message = CASE WHEN $10::boolean THEN coalesce($12, failure_message) END,
               -- a refund that was asked for since Stripe was read is not over with this look
               look_at = CASE WHEN EXISTS (SELECT FROM refund r WHERE r.workspace_id = $1 AND r.top_up_id = $2 AND r.status = 'pending'
                                              AND coalesce(r.stripe_refund_id <> ALL ($13::text[]), true)) THEN least($5, $4::timestamptz + $14::interval) ELSE $5 END
         WHERE workspace_id = $1 AND id = $2
        """,
        seen.top_up.workspace_id,
        seen.top_up.id,
        status.value,
        seen.began_at,
        _next_look(seen, payment, status),
        payment.id if payment else None,
        payment.receipt_url if payment else None,
        credited,
        payment.paid_at if payment else None,
        failed,
        payment.failure_code if payment else None,
        payment.failure_message if payment else None,
        [refund.id for refund in payment.refunds] if payment else [],
        SOON,
    )


async def _announce(top_up: TopUpView, *, at: datetime) -> None:
    """Owe the news that a top-up is paid to the endpoints that want it: once, in the transaction that makes it so."""
    credited = await database.fetch_value("SELECT credited_microusd FROM top_up WHERE workspace_id = $1 AND id = $2", top_up.workspace_id, top_up.id)
    told = {"id": str(top_up.id), "automatic": top_up.automatic, "credited_microusd": credited or 0}
    data = {"workspace_id": str(top_up.workspace_id), "top_up": told}
    await webhooks.tell(top_up.workspace_id, webhooks.TOP_UP_FULFILLED, data, at=at)


def _next_look(seen: _Seen, payment: PaymentFact | None, status: TopUpStatus) -> datetime | None:
    """When to ask Stripe again, for what its events may never tell; None when nothing more is to be expected."""
    now = seen.began_at
    if status is TopUpStatus.OPEN:
        young = now - seen.top_up.created_at < timedelta(minutes=30)
        ends_at = seen.session.expires_at + SOON if seen.session else now + LATER
        return now + SOON if young else min(now + LATER, max(ends_at, now + SOON))
    if status is TopUpStatus.PENDING:
        return now + LATER
    if payment is None or status is not TopUpStatus.FULFILLED:
        return None
    if payment.entry is None or any(refund.taken is None and refund.status == "pending" for refund in payment.refunds):
        return now + LATER
    return now + SELDOM if any(_dispute_status(dispute) in (DisputeStatus.OPEN, DisputeStatus.INQUIRY) for dispute in payment.disputes) else None


async def _book(workspace_id: UUID, top_up_id: UUID, payment: PaymentFact) -> None:
    """Post every movement of a payment that is not posted yet: each is one transfer, named after the object that it is at Stripe."""
    ours = LedgerAccountKind.CASH if payment.currency == USD else LedgerAccountKind.SUSPENSE
    strange = None if payment.currency == USD else f"{payment.received_cents} of the smallest unit of {payment.currency.upper()}"
    if payment.received_cents > 0:
        if strange is not None:
            log.error("a payment came in another currency", payment=payment.id, currency=payment.currency)
        await _post(workspace_id, TransferKind.TOP_UP, payment.id, LedgerAccountKind.PAYMENTS, ours, payment.received_cents, strange)
        await _enter(workspace_id, TransferKind.TOP_UP, payment.id, payment.entry)
    for refund in payment.refunds:
        await _book_refund(workspace_id, top_up_id, refund, ours)
    for dispute in payment.disputes:
        await _book_dispute(workspace_id, dispute, ours, top_up_id=top_up_id)


async def book_sale(workspace_id: UUID, invoice_id: UUID, payment: PaymentFact) -> None:
    """Post every movement of a payment that buys no credit, a subscription's, in the open transaction: into revenue, and out of it again.

    What is booked only grows, each movement once, so that it does not matter which of two readings comes last. A dispute stops all spending, as a top-up's does.
    """
    await database.fetch("SELECT FROM account WHERE workspace_id = $1 AND kind = 'cash' FOR NO KEY UPDATE", workspace_id)
    ours = LedgerAccountKind.REVENUE if payment.currency == USD else LedgerAccountKind.SUSPENSE
    if payment.received_cents > 0:
        await _post(workspace_id, TransferKind.SUBSCRIPTION, payment.id, LedgerAccountKind.PAYMENTS, ours, payment.received_cents, None)
        await _enter(workspace_id, TransferKind.SUBSCRIPTION, payment.id, payment.entry)
    for refund in payment.refunds:
        if refund.taken is not None:
            await _post(workspace_id, TransferKind.REFUND, refund.id, ours, LedgerAccountKind.PAYMENTS, refund.cents, refund.reason)
            await _enter(workspace_id, TransferKind.REFUND, refund.id, refund.taken)
        if refund.returned is not None:
            await _return_refund(workspace_id, refund.id, refund, ours)
    for dispute in payment.disputes:
        await _book_dispute(workspace_id, dispute, ours, invoice_id=invoice_id)
    await _freeze(workspace_id)


async def _post(workspace_id: UUID, kind: TransferKind, ref: str, debit: LedgerAccountKind, credit: LedgerAccountKind, cents: int, reason: str | None) -> None:
    amount = cents * MICROUSD_PER_CENT
    await ledger.post(workspace_id, kind, ref, debit=debit, credit=credit, amount_microusd=amount, reason=reason, actor=STRIPE, lower_floor=True)


async def _enter(workspace_id: UUID, kind: TransferKind, ref: str, entry: EntryFact | None) -> None:
    """Note which balance transaction a transfer books, and book what Stripe kept of it."""
    if entry is None:
        return
    entered = await database.fetch_row(
        """
        INSERT INTO stripe_entry (workspace_id, id, transfer_kind, transfer_ref, amount_microusd, fee_microusd, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7)
            ON CONFLICT DO NOTHING RETURNING id
        """,
        workspace_id,
        entry.id,
        kind.value,
        ref,
        entry.cents * MICROUSD_PER_CENT,
        entry.fee_cents * MICROUSD_PER_CENT,
        entry.created_at,
    )
    if entered is None or entry.fee_cents == 0 or entry.currency != USD:
        return
    kept, back = LedgerAccountKind.FEES, LedgerAccountKind.PAYMENTS
    debit, credit = (kept, back) if entry.fee_cents > 0 else (back, kept)
    await _post(workspace_id, TransferKind.FEE, entry.id, debit, credit, abs(entry.fee_cents), None)


async def _book_refund(workspace_id: UUID, top_up_id: UUID, refund: RefundFact, ours: LedgerAccountKind) -> None:
    row = await database.fetch_row(
        "SELECT id, reason FROM refund WHERE workspace_id = $1 AND top_up_id = $2 AND (id = $3 OR stripe_refund_id = $4)",
        workspace_id,
        top_up_id,
        refund.subject,
        refund.id,
    )
    asked_for = row is not None and row["id"] == refund.subject
    status = _refund_status(refund)
    if row is None:
        await database.fetch(
            """
            INSERT INTO refund (workspace_id, id, top_up_id, stripe_refund_id, amount_microusd, status, reason, creator_kind, creator_name, created_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
            """,
            workspace_id,
            uuid7(),
            top_up_id,
            refund.id,
            refund.cents * MICROUSD_PER_CENT,
            status.value,
            refund.reason,
            STRIPE.kind.value,
            STRIPE.name,
            refund.created_at,
        )
    else:
        await database.fetch("UPDATE refund SET status = $3, stripe_refund_id = $4 WHERE workspace_id = $1 AND id = $2", workspace_id, row["id"], status.value, refund.id)
    # one that we asked for was booked before Stripe heard of it; one that was made at Stripe is booked when it has taken money
    ref = str(row["id"]) if asked_for and row is not None else refund.id
    if not asked_for and refund.taken is not None:
        await _post(workspace_id, TransferKind.REFUND, ref, ours, LedgerAccountKind.PAYMENTS, refund.cents, refund.reason)
    await _enter(workspace_id, TransferKind.REFUND, ref, refund.taken)
    if refund.returned is not None or (asked_for and status in (RefundStatus.FAILED, RefundStatus.CANCELLED)):
        await _return_refund(workspace_id, ref, refund, ours)


async def _return_refund(workspace_id: UUID, ref: str, refund: RefundFact, ours: LedgerAccountKind) -> None:
    await _post(workspace_id, TransferKind.REFUND_FAILURE, ref, LedgerAccountKind.PAYMENTS, ours, refund.cents, None)
    await _enter(workspace_id, TransferKind.REFUND_FAILURE, ref, refund.returned)


def _refund_status(refund: RefundFact) -> RefundStatus:
    return {"succeeded": RefundStatus.SUCCEEDED, "failed": RefundStatus.FAILED, "canceled": RefundStatus.CANCELLED}.get(refund.status, RefundStatus.PENDING)


async def _book_dispute(
    workspace_id: UUID, dispute: DisputeFact, ours: LedgerAccountKind, *, top_up_id: UUID | None = None, invoice_id: UUID | None = None
) -> None:
    status = _dispute_status(dispute)
    await database.fetch(
        """
        INSERT INTO dispute (workspace_id, id, top_up_id, invoice_id, stripe_dispute_id, amount_microusd, status, reason, created_at, closed_at)
        VALUES ($1, $2, $3, $10, $4, $5, $6, $7, $8, CASE WHEN $9 THEN clock_timestamp() END)
            ON CONFLICT (workspace_id, stripe_dispute_id) DO UPDATE
               SET status = excluded.status, closed_at = CASE WHEN $9 THEN coalesce(dispute.closed_at, clock_timestamp()) END
             WHERE array_position($11::text[], excluded.status::text) >= array_position($11::text[], dispute.status::text)
        """,
        workspace_id,
        uuid7(),
        top_up_id,
        dispute.id,
        dispute.cents * MICROUSD_PER_CENT,
        status.value,
        dispute.reason[:100],
        dispute.created_at,
        status in (DisputeStatus.WON, DisputeStatus.LOST),
        invoice_id,
        [each.value for each in STAGES],
    )
    await _move_dispute(workspace_id, dispute, ours)


async def _move_dispute(workspace_id: UUID, dispute: DisputeFact, ours: LedgerAccountKind) -> None:
    for entry in dispute.entries:
        ref = f"{dispute.id}:{entry.id}"
        if entry.cents < 0:
            await _post(workspace_id, TransferKind.DISPUTE, ref, ours, LedgerAccountKind.DISPUTES, -entry.cents, dispute.reason)
            await _enter(workspace_id, TransferKind.DISPUTE, ref, entry)
        elif entry.cents > 0:
            await _post(workspace_id, TransferKind.DISPUTE_REVERSAL, ref, LedgerAccountKind.DISPUTES, ours, entry.cents, dispute.reason)
            await _enter(workspace_id, TransferKind.DISPUTE_REVERSAL, ref, entry)


def _dispute_status(dispute: DisputeFact) -> DisputeStatus:
    if dispute.status in ("won", "warning_closed", "prevented"):
        return DisputeStatus.WON
    if dispute.status == "lost":
        return DisputeStatus.LOST
    return DisputeStatus.INQUIRY if dispute.status.startswith("warning_") else DisputeStatus.OPEN


async def _freeze(workspace_id: UUID) -> None:
    """Stop all spending while a dispute has taken money, until it is won or a top-up comes after it."""
    await database.fetch(
        """
        UPDATE workspace SET frozen_at = f.since
          FROM (SELECT min(d.created_at) AS since FROM dispute d WHERE d.workspace_id = $1 AND d.status IN ('open', 'lost')
                   AND NOT EXISTS (SELECT FROM top_up t WHERE t.workspace_id = $1 AND t.status = 'fulfilled' AND t.id IS DISTINCT FROM d.top_up_id
                                      AND t.credited_microusd > 0 AND t.paid_at >= d.created_at)) f
         WHERE id = $1 AND frozen_at IS DISTINCT FROM f.since
        """,
        workspace_id,
    )


async def _release_automatic(workspace_id: UUID, top_up_id: UUID, status: TopUpStatus, *, paid_now: bool) -> None:
    """Tell auto top-up how the one that it waits for has ended, and its owners when it failed, once until a payment arrives."""
    if status in (TopUpStatus.OPEN, TopUpStatus.PENDING):
        return
    row = await database.fetch_row(
        """
        UPDATE auto_top_up a SET pending_id = NULL, updated_at = clock_timestamp(),
               failure_code = CASE WHEN t.status <> 'fulfilled' THEN coalesce(t.failure_code, 'payment_failed') END,
               failure_message = CASE WHEN t.status <> 'fulfilled' THEN coalesce(t.failure_message, 'The payment failed.') END
          FROM top_up t, (SELECT failure_code FROM auto_top_up WHERE workspace_id = $1) before
         WHERE a.workspace_id = $1 AND a.pending_id = $2 AND t.workspace_id = $1 AND t.id = $2
        RETURNING a.failure_code AS after, before.failure_code AS before, a.updated_at
        """,
        workspace_id,
        top_up_id,
    )
    if row is not None and row["after"] is not None and row["before"] is None:
        await duties.owe(AUTO_TOP_UP_FAILED, {"top_up_id": str(top_up_id)}, workspace_id=workspace_id, at=row["updated_at"])
    if paid_now:
        await database.fetch(
            "UPDATE auto_top_up SET failure_code = NULL, failure_message = NULL, updated_at = clock_timestamp() WHERE workspace_id = $1 AND failure_code IS NOT NULL",
            workspace_id,
        )


async def find_top_up(processor: Processor, payment_id: str) -> tuple[UUID, UUID] | None:
    """Return workspace and top-up that a payment is for; None for one that is not ours."""
    known = await topups.whose(payment_id)
    if known is not None:
        return known
    payment = await processor.find_payment(payment_id)
    if payment is None or payment.workspace_id is None or payment.subject is None:
        return None
    return payment.workspace_id, payment.subject


async def sweep(processor: Processor) -> int:
    """Look at top-ups whose time has come; any process may do so at any time. Returns how many were looked at."""
    rows = await database.fetch(
        """
        UPDATE top_up t SET look_at = clock_timestamp() + interval '5 minutes'
          FROM (SELECT workspace_id, id FROM top_up WHERE look_at <= clock_timestamp() ORDER BY look_at LIMIT $1 FOR UPDATE SKIP LOCKED) due
         WHERE t.workspace_id = due.workspace_id AND t.id = due.id RETURNING t.workspace_id, t.id
        """,
        MOST_LOOKS,
    )
    for row in rows:
        await _try(processor, row)
    return len(rows)


async def _try(processor: Processor, row: asyncpg.Record) -> None:
    try:
        await look(processor, row["workspace_id"], row["id"])
    except (ProcessorFailed, Unavailable, NotFound) as refusal:
        log.warning("a top-up could not be looked at", top_up=str(row["id"]), reason=refusal.message)
