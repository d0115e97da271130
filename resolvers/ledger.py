"""Prepaid credit: its balance, its accounts, what moved, and an operator's correction."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

from domain.money import ledger
from domain.money.ledger import AccountView, Balance, Entry, StatementFilter, TransferView
from domain.pages import Page, PageOf
from models.enums import Scope
from resolvers.asking import Asking

FOLLOW_SECONDS = 1.0


async def balance(asking: Asking, workspace_id: UUID) -> Balance:
    """The credit of a workspace."""
    return await ledger.balance(asking.within(workspace_id).require(Scope.BILLING_READ))


async def balances(asking: Asking, workspace_id: UUID) -> AsyncIterator[Balance]:
    """The credit of a workspace at once, then whenever it has changed, looked at once a second."""
    told: Balance | None = None
    while True:
        found = await balance(asking, workspace_id)
        if found != told:
            yield found
            told = found
        await asyncio.sleep(FOLLOW_SECONDS)


async def accounts(asking: Asking, workspace_id: UUID) -> list[AccountView]:
    """The accounts that a workspace can spend from."""
    return await ledger.accounts(asking.within(workspace_id).require(Scope.BILLING_READ))


async def statement(asking: Asking, workspace_id: UUID, wanted: Page, filter_: StatementFilter, account_id: UUID | None = None) -> PageOf[Entry]:
    """A page of what changed an account of a workspace, its cash where none is named, newest first."""
    return await ledger.statement(asking.within(workspace_id), wanted, filter_, account_id=account_id)


async def statement_count(asking: Asking, workspace_id: UUID, filter_: StatementFilter, account_id: UUID | None = None) -> int:
    """How many transfers such a statement has."""
    return await ledger.statement_count(asking.within(workspace_id), filter_, account_id=account_id)


async def adjust(asking: Asking, workspace_id: UUID | None, amount_microusd: int, reason: str, idempotency_key: str) -> TransferView:
    """Correct a workspace's credit by hand."""
    return await ledger.adjust(asking.known, workspace_id, amount_microusd, reason, idempotency_key)
