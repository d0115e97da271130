"""End users' wallets: prepaid accounts under an app, filled from the workspace's cash, that pay their end users' calls in its place."""

from uuid import UUID

import asyncpg

from domain import audit, idempotency
from domain.access import end_users
from domain.access.callers import Caller
from domain.access.end_users import EndUserView
from domain.apps import registry
from domain.errors import InsufficientCredit, NotFound, OutOfRange
from domain.money import ledger
from domain.money.ledger import LARGEST_ADJUSTMENT_MICROUSD, TransferView
from models import database
from models.enums import Scope, TransferKind
from models.ids import uuid7


async def adjust(caller: Caller, app_id: UUID, name: str, amount_microusd: int, reason: str | None, idempotency_key: str) -> tuple[EndUserView, TransferView]:
    """Move credit from the workspace's cash into the wallet of an app's end user, or back where the amount is below zero; the first move opens it.

    The transfer names the actor and the reason; a repeat with the same key and input moves nothing and returns the first. What calls under way
    hold cannot be taken back, what is in the wallet of an app that is gone can. Raises NotFound, OutOfRange, InvalidInput, IdempotencyConflict,
    InsufficientCredit with what can be moved.
    """
    workspace_id = caller.require(Scope.BILLING_WRITE)
    if amount_microusd == 0 or abs(amount_microusd) > LARGEST_ADJUSTMENT_MICROUSD:
        raise OutOfRange(
            "A move is at most a million dollars either way, and not zero.",
            minimum=-LARGEST_ADJUSTMENT_MICROUSD,
            maximum=LARGEST_ADJUSTMENT_MICROUSD,
            too_large=amount_microusd > 0,
            path=("amount",),
        )
    reason = None if reason is None else ledger.check_reason(reason)
    end_users.check_name(name, path=("endUserId",))
    end_user_id = end_users.id_of(workspace_id, app_id, name)
    async with database.transaction():
        await database.fetch("SELECT FROM account WHERE workspace_id = $1 AND kind = 'cash' FOR NO KEY UPDATE", workspace_id)
        said = [str(app_id), name, amount_microusd, reason]
        first = await idempotency.claim(workspace_id, "walletAdjust", idempotency_key, said, uuid7())
        if first is None:
            await _move(caller, workspace_id, app_id, name, amount_microusd, reason, idempotency_key)
        transfer = await ledger.of_reference(workspace_id, TransferKind.WALLET, _reference(idempotency_key))
        if first is None:
            told: dict[str, tuple[object, object]] = {"amountMicroUsd": (None, amount_microusd), "transferId": (None, str(transfer.id))}
            await audit.note(caller.actor, "wallet.adjust", ("EndUser", end_user_id), told, workspace_id=workspace_id, at=caller.at, reason=reason)
        view = await end_users.of_workspace(workspace_id, end_user_id)
    return view, transfer


def _reference(idempotency_key: str) -> str:
    return f"adjust:{idempotency_key}"


async def _move(caller: Caller, workspace_id: UUID, app_id: UUID, name: str, amount_microusd: int, reason: str | None, idempotency_key: str) -> None:
    """Move it, under the lock of the workspace's money."""
    fills = amount_microusd > 0
    if fills:
        if await registry.of_workspace(workspace_id, app_id) is None:
            raise NotFound("app", path=("appId",))
        wallet_id = await _opened(caller, workspace_id, app_id, name)
    else:
        wallet_id = await database.fetch_value(
            "SELECT wallet_id FROM end_user WHERE workspace_id = $1 AND id = $2", workspace_id, end_users.id_of(workspace_id, app_id, name)
        )
        if wallet_id is None:
            raise NotFound("wallet", path=("endUserId",))
    cash_id = await database.fetch_value("SELECT id FROM account WHERE workspace_id = $1 AND kind = 'cash'", workspace_id)
    try:
        await database.fetch(
            "SELECT move_1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            workspace_id,
            TransferKind.WALLET.value,
            _reference(idempotency_key),
            cash_id if fills else wallet_id,
            wallet_id if fills else cash_id,
            abs(amount_microusd),
            reason,
            caller.actor.kind.value,
            caller.actor.id,
            caller.actor.name[:200],
        )
    except asyncpg.PostgresError as error:
        if error.sqlstate != "P0402":
            raise
        message = "There is too little credit that can be moved." if fills else "There is too little in the wallet that no call under way holds."
        raise InsufficientCredit(message, available_microusd=int(error.detail or 0), required_microusd=abs(amount_microusd)) from None


async def _opened(caller: Caller, workspace_id: UUID, app_id: UUID, name: str) -> UUID:
    """The wallet of an end user, made when there is none."""
    end_user_id = await end_users.name(workspace_id, app_id, name, at=caller.at)
    found: UUID | None = await database.fetch_value("SELECT wallet_id FROM end_user WHERE workspace_id = $1 AND id = $2", workspace_id, end_user_id)
    if found is not None:
        return found
    wallet_id = uuid7()
    await database.fetch(
        """
        INSERT INTO account (workspace_id, id, kind, credits, debits, held, floor, version, carry_picousd, list_carry_picousd, updated_at)
        VALUES ($1, $2, 'wallet', 0, 0, 0, 0, 0, 0, 0, $3)
        """,
        workspace_id,
        wallet_id,
        caller.at,
    )
    await database.fetch("UPDATE end_user SET wallet_id = $3 WHERE workspace_id = $1 AND id = $2", workspace_id, end_user_id, wallet_id)
    return wallet_id
