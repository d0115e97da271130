"""The ledger as its owners read it: a statement that adds up, page by page."""

import asyncio
from uuid import UUID

import pytest

from domain import errors
from domain.access.callers import Actor
from domain.money import ledger
from domain.money.ledger import StatementFilter
from domain.pages import Page
from models import database
from models.enums import ActorKind, LedgerAccountKind, Scope, TransferKind
from models.ids import uuid7
from tests.conftest import Suite
from tests.support.world import TESTS, Tenant, broken, tenant

pytestmark = pytest.mark.anyio


async def busy() -> Tenant:
    """Make a workspace whose credit came and went seven times."""
    mine = await tenant(credit_microusd=1000)
    for change in (5, -700, -400, 300, 20, -1):
        await ledger.adjust(mine.caller(Scope.OPERATOR), None, change, f"by {change}", uuid7().hex)
    return mine


@pytest.mark.parametrize("size", [1, 3, 7, 100])
async def test_a_statement_adds_up_on_pages_of_any_size(books: Suite, size: int) -> None:
    """F40, M1: newest first, each balance is the one before plus its change, the newest is the balance, and the oldest begins at nothing."""
    mine = await busy()
    entries: list[ledger.Entry] = []
    after: UUID | None = None
    while True:
        page = await ledger.statement(mine.caller(), Page(size, after=after))
        entries += page.items
        if not page.has_next:
            break
        after = page.items[-1].transfer.id
    assert [entry.change for entry in entries] == [-1, 20, 300, -400, -700, 5, 1000]
    assert [entry.balance_after for entry in entries] == [224, 225, 205, -95, 305, 1005, 1000]
    assert entries[0].balance_after == (await mine.balance()).balance
    assert await ledger.statement_count(mine.caller()) == 7
    assert await ledger.statement_count(mine.caller(), StatementFilter(kinds=(TransferKind.CHARGE,))) == 0
    assert await broken(mine) == []


async def test_what_cannot_be_adjusted_is_refused(books: Suite) -> None:
    """Zero, absurd amounts, no reason, an unknown workspace and callers who run nothing are refused; nothing is booked."""
    mine = await tenant()
    operator = mine.caller(Scope.OPERATOR)
    for work, kind in (
        (ledger.adjust(operator, None, 0, "r", "k"), errors.OutOfRange),
        (ledger.adjust(operator, None, 10**12 + 1, "r", "k"), errors.OutOfRange),
        (ledger.adjust(operator, None, -(10**12) - 1, "r", "k"), errors.OutOfRange),
        (ledger.adjust(operator, None, 1, "  ", "k"), errors.InvalidInput),
        (ledger.adjust(operator, None, 1, "r" * 501, "k"), errors.InvalidInput),
        (ledger.adjust(operator, None, 1, "a\x00b", "k"), errors.InvalidInput),
        (ledger.adjust(operator, None, 1, "r", ""), errors.InvalidInput),
        (ledger.adjust(operator, uuid7(), 1, "r", "k"), errors.NotFound),
        (ledger.adjust(mine.caller(), None, 1, "r", "k"), errors.MissingScope),
        (ledger.give(mine.workspace_id, 0, "r", "k", TESTS), errors.OutOfRange),
        (ledger.give(mine.workspace_id, -5, "r", "k", TESTS), errors.OutOfRange),
    ):
        with pytest.raises(kind):
            await work
    assert await ledger.statement_count(mine.caller()) == 0
    assert (await mine.balance()).balance == 0


async def test_a_posting_that_is_not_covered_is_refused(books: Suite) -> None:
    """M2: money that is not there, or is held, does not leave an account whose floor is not lowered, inside a transaction too."""
    mine = await tenant(credit_microusd=100)

    async def take(amount: int) -> ledger.TransferView:
        return await ledger.post(
            mine.workspace_id,
            TransferKind.FEE,
            uuid7().hex,
            debit=LedgerAccountKind.CASH,
            credit=LedgerAccountKind.FEES,
            amount_microusd=amount,
            reason=None,
            actor=Actor(ActorKind.SYSTEM, None, "tests"),
        )

    async def take_inside(amount: int) -> None:
        async with database.transaction():
            await take(amount)

    for attempt in (take(101), take_inside(101)):
        with pytest.raises(errors.InsufficientCredit) as refusal:
            await attempt
        assert (refusal.value.available_microusd, refusal.value.required_microusd) == (100, 101)
    assert (await take(100)).amount == 100
    assert (await mine.balance()).balance == 0
    assert await broken(mine) == []


async def test_transfers_of_others_do_not_exist(books: Suite) -> None:
    """F30: neither a statement nor a look-up shows another workspace's transfers."""
    mine, theirs = await busy(), await tenant(credit_microusd=3)
    [entry] = (await ledger.statement(theirs.caller(), Page())).items
    assert await ledger.find_transfers(mine.caller(), [entry.transfer.id]) == {}
    assert list(await ledger.find_transfers(theirs.caller(), [entry.transfer.id])) == [entry.transfer.id]


async def test_credit_by_command_stands_in_the_audit_log_once(books: Suite) -> None:
    """What an operator gives by command names who, how much and why, once for each reference, also when it is given several times at once."""
    mine = await tenant()
    otto = Actor(ActorKind.OPERATOR, None, "otto")
    given = await asyncio.gather(*(ledger.give(mine.workspace_id, 25, "invoice 1001", "i-1001", otto) for _ in range(4)))
    assert len({transfer.id for transfer in given}) == 1
    statement = "SELECT actor_kind, actor_name, reason, changes FROM audit_event WHERE workspace_id = $1 AND action = 'credits.adjust'"
    rows = await database.fetch(statement, mine.workspace_id)
    assert [tuple(row) for row in rows] == [("operator", "otto", "invoice 1001", '{"amountMicroUsd": [null, 25]}')]
    assert (await mine.balance()).cash == 25
