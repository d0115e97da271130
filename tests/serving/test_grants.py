"""Grants: spent by priority and expiry before cash, booked as breakage when they are over; synchronous, because it turns the clock."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from domain import errors
from domain.access.limits import BoundInput
from domain.money import grants, ledger
from domain.money.grants import GrantStatus, GrantView, NewGrant
from domain.money.ledger import StatementFilter
from domain.pages import Page
from domain.serving.calls import Admitted
from models import database
from models.enums import LedgerAccountKind, LimitPer, Measure, Scope, TransferKind
from models.ids import uuid7
from tests.money.own_books import OwnBooks
from tests.serving.openings import calls, ending, listed, opening, sign, used
from tests.support.world import Tenant, tenant


async def given(mine: Tenant, amount: int, **more: Any) -> GrantView:
    """Give a workspace promotional credit."""
    return await grants.create(mine.caller(Scope.OPERATOR), mine.workspace_id, NewGrant(amount, "launch", **({"idempotency_key": uuid7().hex} | more)))


async def paid(mine: Tenant, call_id: UUID) -> list[tuple[str, UUID | None, int]]:
    """Return what moved for a call: kind, the grant that paid or got back (None for any other account), microdollars."""
    rows = await database.fetch(
        """
        SELECT t.kind, g.id, t.amount * CASE WHEN g.id = t.credit_id THEN -1 ELSE 1 END AS amount FROM transfer t
          LEFT JOIN credit_grant g ON g.workspace_id = t.workspace_id AND g.id IN (t.debit_id, t.credit_id)
         WHERE t.workspace_id = $1 AND t.call_id = $2 ORDER BY t.id
        """,
        mine.workspace_id,
        call_id,
    )
    return [(row["kind"], row["id"], row["amount"]) for row in rows]


async def left(mine: Tenant) -> dict[UUID, tuple[int, str]]:
    """Return what is left of each grant, and its status."""
    page = await grants.page(mine.caller(), Page(100), None)
    return {grant.id: (grant.remaining, grant.status.value) for grant in page.items}


def test_grants_pay_before_cash_by_priority_and_expiry(own: OwnBooks) -> None:
    """A charge of 100 takes 20, 30 and 40 of three grants in their order, and 10 of cash; each part is a transfer, the hold is split
    alike, and the statement has all of it: it adds up to the balance on pages of any size."""

    async def work() -> None:
        mine, price, process = await tenant(credit_microusd=1000), listed(own.book, "echo"), calls(own.book)
        soon, later = datetime.now(UTC) + timedelta(days=1), datetime.now(UTC) + timedelta(days=9)
        third = await given(mine, 40)
        second = await given(mine, 30, expires_at=later)
        first = await given(mine, 20, expires_at=soon)
        assert [grant.id for grant in (await grants.page(mine.caller(), Page(), [GrantStatus.ACTIVE])).items] == [first.id, second.id, third.id]
        balance = await mine.balance()
        assert (balance.balance, balance.cash, balance.granted, balance.available) == (1090, 1000, 90, 1090)
        admitted = await process.admit(opening(mine.secret, price, input_tokens=100, max_output=50))
        assert (admitted.hold_microusd, admitted.payer) == (200, "cash")
        balance = await mine.balance()
        assert (balance.held, balance.available) == (200, 890)
        settled = await process.settle(ending(admitted, price, used(100, 0)))
        assert settled.charge_microusd == 100
        assert await paid(mine, admitted.call_id) == [("charge", first.id, 20), ("charge", second.id, 30), ("charge", third.id, 40), ("charge", None, 10)]
        assert await left(mine) == {first.id: (0, "used_up"), second.id: (0, "used_up"), third.id: (0, "used_up")}
        balance = await mine.balance()
        assert (balance.balance, balance.held, balance.available) == (990, 0, 990)
        for size in (1, 3, 8):
            assert await statement(mine, size) == [
                *[(TransferKind.CHARGE, -10, 990), (TransferKind.CHARGE, -40, 1000), (TransferKind.CHARGE, -30, 1040), (TransferKind.CHARGE, -20, 1070)],
                *[(TransferKind.GRANT, 20, 1090), (TransferKind.GRANT, 30, 1070), (TransferKind.GRANT, 40, 1040), (TransferKind.ADJUSTMENT, 1000, 1000)],
            ]
        only = StatementFilter(kinds=(TransferKind.GRANT,))
        assert [entry.balance_after for entry in (await ledger.statement(mine.caller(), Page(), only)).items] == [1090, 1070, 1040]
        assert (await ledger.statement_count(mine.caller()), await ledger.statement_count(mine.caller(), only)) == (8, 3)
        assert [entry.balance_after for entry in await ledger.statement_after(mine.caller(), StatementFilter(), None, 3)] == [1000, 1040, 1070]
        (newest,) = (await ledger.statement(mine.caller(), Page(1), account_id=third.id)).items
        assert (newest.change, newest.balance_after) == (-40, 0)
        assert [(account.kind, account.balance) for account in await ledger.accounts(mine.workspace_id)] == [(LedgerAccountKind.CASH, 990)]
        await own.sound()

    own.run(work())


async def statement(mine: Tenant, size: int) -> list[tuple[TransferKind, int, int]]:
    """What changed the balance, newest first, read in pages of a size."""
    found: list[ledger.Entry] = []
    while True:
        page = await ledger.statement(mine.caller(), Page(size, after=found[-1].transfer.id if found else None))
        found += page.items
        if not page.has_next:
            return [(entry.transfer.kind, entry.change, entry.balance_after) for entry in found]


def test_grants_alone_pay_for_an_empty_balance_and_no_more(own: OwnBooks) -> None:
    """F1: 64 calls at once of 7 on two grants of 50 and no cash: exactly 14 are admitted over three processes, and 2 are left."""

    async def work() -> None:
        mine, price = await tenant(), listed(own.book, "echo")
        await given(mine, 50)
        await given(mine, 50, priority=5)
        processes = [calls(own.book), calls(own.book, batch=3), calls(own.book, batch=1)]
        asked = [opening(mine.secret, price, input_tokens=7, max_output=0) for _ in range(64)]
        heard: list[Any] = await asyncio.gather(*(processes[n % 3].admit(one) for n, one in enumerate(asked)), return_exceptions=True)
        admitted = [answer for answer in heard if isinstance(answer, Admitted)]
        assert len(admitted) == 14
        assert all(isinstance(answer, errors.BoundReached) and answer.passes for answer in heard if answer not in admitted)
        for process in processes:
            await asyncio.gather(*(process.settle(ending(one, price, used(7, 0))) for one in admitted))
        with pytest.raises(errors.InsufficientCredit) as refused:
            await processes[0].admit(opening(mine.secret, price, input_tokens=7, max_output=0))
        assert (refused.value.available_microusd, refused.value.required_microusd) == (2, 7)
        await own.sound()

    own.run(work())


def test_a_grant_pays_only_for_its_models(own: OwnBooks) -> None:
    """A grant for another model pays nothing of this one, and one for this model does."""

    async def work() -> None:
        mine, price, process = await tenant(credit_microusd=100), listed(own.book, "echo"), calls(own.book)
        other = await given(mine, 50, models=("gpt-5.5",))
        this = await given(mine, 5, models=("echo",))
        admitted = await process.admit(opening(mine.secret, price, input_tokens=10, max_output=0))
        await process.settle(ending(admitted, price, used(10, 0)))
        assert await paid(mine, admitted.call_id) == [("charge", this.id, 5), ("charge", None, 5)]
        assert (await left(mine))[other.id] == (50, "active")
        await own.sound()

    own.run(work())


def test_a_stream_grows_its_hold_out_of_its_grants_first(own: OwnBooks) -> None:
    """F35: a hold of 10 + 2 x 20 of a grant of 80 grows by 30 more of it and then by cash, and no further than both reach."""

    async def work() -> None:
        mine, price, process = await tenant(credit_microusd=20), listed(own.book, "echo"), calls(own.book)
        grant = await given(mine, 80)
        asked = opening(mine.secret, price, input_tokens=10, max_output=1000, instalment=20)
        admitted = await process.admit(asked)
        assert await process.keep(sign(asked, mine.workspace_id, used(10, 20), output_tokens=40)) == 40
        hold = "SELECT amount, part_amounts FROM hold WHERE call_id = $1"
        row = await database.fetch_row(hold, asked.id)
        assert tuple(row or ()) == (10, [80])
        assert await process.keep(sign(asked, mine.workspace_id, used(10, 40), output_tokens=400)) == 45
        row = await database.fetch_row(hold, asked.id)
        assert tuple(row or ()) == (20, [80])
        assert await process.keep(sign(asked, mine.workspace_id, used(10, 45), output_tokens=400)) == 45
        await process.settle(ending(admitted, price, used(10, 45)))
        assert await paid(mine, asked.id) == [("charge", grant.id, 80), ("charge", None, 20)]
        await own.sound()

    own.run(work())


def test_what_a_late_settlement_gives_back_goes_to_the_grants(own: OwnBooks) -> None:
    """A sweep charged 60 of an estimate, 40 of them to a grant; the real end costs 5: the grant gets its 35, cash its 20, and nobody anything else."""

    async def work() -> None:
        mine, price, process = await tenant(credit_microusd=100), listed(own.book, "echo"), calls(own.book)
        grant = await given(mine, 40)
        asked = opening(mine.secret, price, input_tokens=100, max_output=0)
        admitted = await process.admit(asked)
        await process.keep(sign(asked, mine.workspace_id, used(60, 0)))
        await own.expire(asked.id)
        await calls(own.book).sweep()
        assert await paid(mine, asked.id) == [("charge", grant.id, 40), ("charge", None, 20)]
        settled = await process.settle(ending(admitted, price, used(5, 0)))
        assert settled.charge_microusd == 5
        assert (await paid(mine, asked.id))[2:] == [("late", grant.id, -35), ("late", None, 20)]
        assert (await left(mine))[grant.id] == (35, "active")
        balance = await mine.balance()
        assert balance.balance == 135
        await own.sound()

    own.run(work())


def test_an_expired_grant_is_breakage_and_pays_nothing_more(own: OwnBooks) -> None:
    """The rest of a grant whose time is over goes to breakage, what a call under way holds of it when that call has ended, and once."""

    async def work() -> None:
        mine, price, process = await tenant(credit_microusd=1000), listed(own.book, "echo"), calls(own.book)
        grant = await given(mine, 100, expires_at=datetime.now(UTC) + timedelta(days=1))
        admitted = await process.admit(opening(mine.secret, price, input_tokens=30, max_output=0))
        await own.admin.execute("UPDATE credit_grant SET expires_at = clock_timestamp() - interval '1 second' WHERE id = $1", grant.id)
        told = await ledger.balance(mine.workspace_id)
        assert (told.balance, told.held, told.available) == (1100, 30, 1000)  # nobody can spend it from that instant, swept or not
        assert await grants.sweep() == 1
        assert await grants.sweep() == 0
        assert (await ledger.balance(mine.workspace_id)).available == 1000
        assert (await left(mine))[grant.id] == (30, "expired")
        second = await process.admit(opening(mine.secret, price, input_tokens=10, max_output=0))
        await process.settle(ending(second, price, used(10, 0)))
        assert await paid(mine, second.call_id) == [("charge", None, 10)]
        await process.settle(ending(admitted, price, used(20, 0)))
        assert await paid(mine, admitted.call_id) == [("charge", grant.id, 20)]
        assert await grants.sweep() == 1
        assert (await left(mine))[grant.id] == (0, "expired")
        breakage = await database.fetch_value(
            """
            SELECT sum(t.amount)::bigint FROM transfer t JOIN account a ON a.workspace_id = t.workspace_id AND a.id = t.credit_id
             WHERE a.kind = 'breakage' AND t.workspace_id = $1
            """,
            mine.workspace_id,
        )
        assert breakage == 80
        with pytest.raises(errors.InvalidState):
            await grants.revoke(mine.caller(Scope.OPERATOR), grant.id, "too late")
        await own.sound()

    own.run(work())


def test_a_revoked_grant_gives_its_rest_back_once(own: OwnBooks) -> None:
    """Revoking takes what is free at once and what is held later, twice is no error, and the next call is cash's."""

    async def work() -> None:
        mine, price, process = await tenant(credit_microusd=1000), listed(own.book, "echo"), calls(own.book)
        grant = await given(mine, 100)
        admitted = await process.admit(opening(mine.secret, price, input_tokens=30, max_output=0))
        operator = mine.caller(Scope.OPERATOR)
        for _ in range(2):
            revoked = await grants.revoke(operator, grant.id, "abuse")
            assert (revoked.status, revoked.remaining) == (GrantStatus.REVOKED, 30)
        await process.settle(ending(admitted, price, used(30, 0)))
        assert (await left(mine))[grant.id] == (0, "revoked")
        second = await process.admit(opening(mine.secret, price, input_tokens=10, max_output=0))
        await process.settle(ending(second, price, used(10, 0)))
        assert await paid(mine, second.call_id) == [("charge", None, 10)]
        assert (await mine.balance()).balance == 990
        await own.sound()

    own.run(work())


def test_a_grant_is_given_once_and_by_operators_only(own: OwnBooks) -> None:
    """F32, F14: the same key gives once, another input is refused; amounts, priorities, restrictions and ends that make no sense move nothing."""

    async def work() -> None:
        mine = await tenant()
        first = await given(mine, 10, idempotency_key="g1")
        assert await given(mine, 10, idempotency_key="g1") == first
        with pytest.raises(errors.IdempotencyConflict):
            await given(mine, 11, idempotency_key="g1")
        with pytest.raises(errors.MissingScope):
            await grants.create(mine.caller(), mine.workspace_id, NewGrant(1, "me", "g2"))
        with pytest.raises(errors.MissingScope):
            await grants.revoke(mine.caller(), first.id, "me")
        wrong: list[tuple[type[errors.Refusal], dict[str, Any]]] = [
            (errors.OutOfRange, {"amount": 0}),
            (errors.OutOfRange, {"amount": -5}),
            (errors.OutOfRange, {"amount": 10**13}),
            (errors.OutOfRange, {"priority": -1}),
            (errors.InvalidInput, {"models": ()}),
            (errors.InvalidInput, {"expires_at": datetime(2020, 1, 1, tzinfo=UTC)}),
            (errors.NotFound, {"apps": (uuid7(),)}),
        ]
        for refusal, changes in wrong:
            with pytest.raises(refusal):
                await given(mine, **({"amount": 10} | changes))
        with pytest.raises(errors.NotFound):
            await grants.create(mine.caller(Scope.OPERATOR), uuid7(), NewGrant(1, "nobody", "g3"))
        assert await left(mine) == {first.id: (10, "active")}
        assert await grants.count(mine.caller(), None) == 1
        await own.sound()

    own.run(work())


def test_grants_are_paged_in_the_order_in_which_they_are_spent(own: OwnBooks) -> None:
    """F40: pages of two, forwards and backwards, show each grant once."""

    async def work() -> None:
        mine = await tenant()
        soon = datetime.now(UTC) + timedelta(days=1)
        five = [await given(mine, 1, priority=priority, expires_at=ends) for priority, ends in ((9, None), (1, None), (1, soon), (5, soon), (9, soon))]
        order = [five[place].id for place in (2, 1, 3, 4, 0)]
        forwards: list[UUID] = []
        page = await grants.page(mine.caller(), Page(2), None)
        while True:
            forwards += [grant.id for grant in page.items]
            if not page.has_next:
                break
            page = await grants.page(mine.caller(), Page(2, after=page.items[-1].id), None)
        assert forwards == order
        back = await grants.page(mine.caller(), Page(2, before=order[3], backwards=True), None)
        assert ([grant.id for grant in back.items], back.has_previous) == (order[1:3], True)

    own.run(work())


def test_a_budget_holds_for_what_grants_pay(own: OwnBooks) -> None:
    """F3: a key's budget counts what its calls cost, whoever pays."""

    async def work() -> None:
        mine, price, process = await tenant(), listed(own.book, "echo"), calls(own.book)
        await given(mine, 1000)
        _, secret = await mine.mint(budgets=(BoundInput(Measure.MONEY, "day", 25, LimitPer.TOGETHER),))
        admitted = await process.admit(opening(secret, price, input_tokens=20, max_output=0))
        await process.settle(ending(admitted, price, used(20, 0)))
        with pytest.raises(errors.BoundReached) as refused:
            await process.admit(opening(secret, price, input_tokens=20, max_output=0))
        assert refused.value.bound == "money in day"
        await own.sound()

    own.run(work())


def test_a_grant_pays_no_debt_and_no_call_of_one_who_owes(own: OwnBooks) -> None:
    """Cash below zero: nothing can be spent, whatever grants there are, and refusal and balance say so alike; credit pays the debt, then all of it can be."""

    async def work() -> None:
        mine, price, process = await tenant(), listed(own.book, "echo"), calls(own.book)
        await ledger.adjust(mine.caller(Scope.OPERATOR), None, -50, "a mistake", uuid7().hex)
        await given(mine, 200)
        balance = await mine.balance()
        assert (balance.balance, balance.cash, balance.granted, balance.available) == (150, -50, 200, 0)
        with pytest.raises(errors.InsufficientCredit) as refused:
            await process.admit(opening(mine.secret, price, input_tokens=10, max_output=0))
        assert refused.value.available_microusd == 0
        await ledger.adjust(mine.caller(Scope.OPERATOR), None, 60, "paid", uuid7().hex)
        balance = await mine.balance()
        assert (balance.balance, balance.cash, balance.available) == (210, 10, 210)
        await process.settle(ending(await process.admit(opening(mine.secret, price, input_tokens=210, max_output=0)), price, used(210, 0)))
        assert (await mine.balance()).balance == 0
        await own.sound()

    own.run(work())
