"""Prepaid credit: its balance, its accounts, what moved, and an operator's correction."""

from uuid import UUID

from domain.money import ledger
from domain.money.ledger import AccountView, Balance, Entry, StatementFilter, TransferView
from domain.pages import Page, PageOf
from models.enums import Scope
from resolvers.asking import Asking


async def balance(asking: Asking, workspace_id: UUID | None = None) -> Balance:
    """The credit of the current workspace; an operator may name another."""
    own = asking.known.require(Scope.BILLING_READ) if workspace_id is None else asking.known.require(Scope.OPERATOR)
    return await ledger.balance(workspace_id or own)


async def accounts(asking: Asking) -> list[AccountView]:
    """The accounts that the workspace can spend from."""
    return await ledger.accounts(asking.known.require(Scope.BILLING_READ))


async def statement(asking: Asking, wanted: Page, filter_: StatementFilter) -> PageOf[Entry]:
    """A page of what changed the workspace's credit, newest first."""
    return await ledger.statement(asking.known, wanted, filter_)


async def statement_count(asking: Asking, filter_: StatementFilter) -> int:
    """How many transfers the statement has."""
    return await ledger.statement_count(asking.known, filter_)


async def adjust(asking: Asking, workspace_id: UUID | None, amount_microusd: int, reason: str, idempotency_key: str) -> TransferView:
    """Correct a workspace's credit by hand."""
    return await ledger.adjust(asking.known, workspace_id, amount_microusd, reason, idempotency_key)
