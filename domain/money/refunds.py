"""Giving money of a top-up back: booked first, so that it cannot be spent meanwhile, then asked of Stripe in the row's name."""

from uuid import UUID

from domain import audit, idempotency
from domain.access.callers import Caller
from domain.errors import InvalidInput, InvalidState, NotFound, OutOfRange
from domain.money import ledger, payments, topups
from domain.money.amounts import usd
from domain.money.ledger import check_reason
from domain.money.processor import MICROUSD_PER_CENT, Processor, ProcessorFailed
from domain.money.topups import RefundView
from models import database
from models.enums import LedgerAccountKind, RefundStatus, Scope, TransferKind
from models.ids import uuid7


async def refund(caller: Caller, processor: Processor | None, top_up_id: UUID, microusd: int | None, reason: str, idempotency_key: str) -> RefundView:
    """Give a part of a top-up back to the customer, all that is left for None; the same key gives it back once. Operators only.

    Raises NotFound, OutOfRange, InvalidInput, InvalidState for a top-up that is not paid or is contested, InsufficientCredit for credit that is
    spent already, IdempotencyConflict, PaymentsDisabled, and ProcessorFailed: with `retryable` it goes on by itself, without, it is booked back.
    """
    caller.require(Scope.OPERATOR)
    reason = check_reason(reason)
    cashier = topups.enabled(processor)
    # an operator refunds in any workspace: the row says in which
    workspace_id = await database.fetch_value("SELECT workspace_id FROM top_up WHERE id = $1", top_up_id)
    if workspace_id is None:
        raise NotFound("top-up", path=("id",))
    refund_id = uuid7()
    async with database.transaction():
        first = await idempotency.claim(workspace_id, "topUpRefund", idempotency_key, [str(top_up_id), microusd, reason], refund_id)
        if first is None:
            await _begin(caller, workspace_id, top_up_id, refund_id, microusd, reason)
            told = {"topUpId": (None, top_up_id), "amountMicroUsd": (None, microusd)}
            await audit.note(caller.actor, "topUp.refund", ("Refund", refund_id), told, workspace_id=workspace_id, at=caller.at, reason=reason)
    await payments.ask_refund(cashier, workspace_id, first or refund_id)
    made = await topups.find_refund(workspace_id, first or refund_id)
    if made.status is RefundStatus.FAILED and first is None:
        raise ProcessorFailed("The refund failed, and is booked back.", retryable=False)
    return made


async def _begin(caller: Caller, workspace_id: UUID, top_up_id: UUID, refund_id: UUID, microusd: int | None, reason: str) -> None:
    """Write the refund and book it, in the open transaction."""
    await database.fetch("SELECT FROM account WHERE workspace_id = $1 AND kind = 'cash' FOR NO KEY UPDATE", workspace_id)
    row = await database.fetch_row(
        """
        SELECT t.status, t.payment_id, coalesce(t.credited_microusd, 0) AS credited,
               (SELECT coalesce(sum(r.amount_microusd), 0) FROM refund r WHERE r.workspace_id = t.workspace_id AND r.top_up_id = t.id
                   AND r.status IN ('pending', 'succeeded'))::bigint AS refunded,
               EXISTS (SELECT FROM dispute d WHERE d.workspace_id = t.workspace_id AND d.top_up_id = t.id AND d.status IN ('open', 'lost')) AS contested
          FROM top_up t WHERE t.workspace_id = $1 AND t.id = $2 FOR NO KEY UPDATE OF t
        """,
        workspace_id,
        top_up_id,
    )
    assert row is not None, "a top-up is never deleted"
    if row["status"] != "fulfilled" or row["payment_id"] is None or row["credited"] == 0:
        raise InvalidState("Only a top-up that is paid can be given back.", state=row["status"], path=("id",))
    if row["contested"]:
        raise InvalidState("The payment is contested at the bank: the bank decides.", state="disputed", path=("id",))
    left = row["credited"] - row["refunded"]
    amount = left if microusd is None else microusd
    if not 0 < amount <= left:
        raise OutOfRange(f"Of this top-up {usd(left)} US dollars are left.", minimum=MICROUSD_PER_CENT, maximum=left, too_large=amount > left, path=("amount",))
    if amount % MICROUSD_PER_CENT:
        raise InvalidInput("A refund is whole cents.", path=("amount",))
    await ledger.post(
        workspace_id,
        TransferKind.REFUND,
        str(refund_id),
        debit=LedgerAccountKind.CASH,
        credit=LedgerAccountKind.PAYMENTS,
        amount_microusd=amount,
        reason=reason,
        actor=caller.actor,
    )
    await database.fetch(
        """
        INSERT INTO refund (workspace_id, id, top_up_id, amount_microusd, status, reason, creator_kind, creator_id, creator_name, created_at)
        VALUES ($1, $2, $3, $4, 'pending', $5, $6, $7, $8, clock_timestamp())
        """,
        workspace_id,
        refund_id,
        top_up_id,
        amount,
        reason,
        caller.actor.kind.value,
        caller.actor.id,
        caller.actor.name[:200],
    )
    await database.fetch("UPDATE top_up SET look_at = clock_timestamp() + interval '1 minute' WHERE workspace_id = $1 AND id = $2", workspace_id, top_up_id)
