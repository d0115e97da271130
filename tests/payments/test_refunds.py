"""Refunds that an operator asks for: booked first, asked of Stripe in the row's name, once."""

import asyncio
from typing import Any

import pytest

from domain.errors import Forbidden, IdempotencyConflict, InsufficientCredit, InvalidInput, InvalidState, NotFound, OutOfRange, Refusal, Unavailable
from domain.money import ledger, payments, refunds
from domain.money.processor import ProcessorFailed
from domain.money.topups import TopUpView
from embedded.stripe import payments as bank
from embedded.stripe.server import Fault
from models import database
from models.enums import LedgerAccountKind, RefundStatus, Scope, TransferKind
from models.ids import uuid7
from tests.payments.lives import CENT, Till, books, total
from tests.support.world import TESTS, Tenant

pytestmark = pytest.mark.anyio


async def give_back(till: Till, customer: Tenant, top_up: TopUpView, cents: int | None, key: str = "r1", reason: str = "asked") -> Any:
    """Refund as an operator."""
    amount = None if cents is None else cents * CENT
    return await refunds.refund(customer.caller(Scope.OPERATOR), till.client, top_up.id, amount, reason, key)


async def test_a_part_and_then_the_rest(till: Till) -> None:
    """A part, then all that is left: both at Stripe under the rows' names, both booked once, whatever is heard afterwards."""
    customer, top_up, _ = await till.bought()
    await till.hear()
    first = await give_back(till, customer, top_up, 500)
    assert (first.status, first.amount, first.reason, first.creator.name) == (RefundStatus.SUCCEEDED, 500 * CENT, "asked", customer.owner.name)
    again = await give_back(till, customer, top_up, 500)
    assert again == first
    await give_back(till, customer, top_up, None, "r2")
    await till.hear()
    assert [each["amount"] for each in till.account.all("refund")] == [1_500, 500]
    assert [each["metadata"]["refund"] for each in till.account.all("refund")][1] == str(first.id)
    found = await books(customer)
    assert total(found, "cash") == 0
    assert [row[:2] for row in found.transfers if row[0] == "refund"] == [("refund", 500 * CENT), ("refund", 1_500 * CENT)]
    assert found.entries == 3


async def test_a_refund_that_comes_back(till: Till) -> None:
    """F23: a refund of ours that fails later is booked back, once."""
    customer, top_up, _ = await till.bought()
    await till.hear()
    await give_back(till, customer, top_up, 500)
    bank.fail_refund(till.account, next(till.account.all("refund"))["id"])
    await till.hear()
    await till.hear(reversed(till.account.events))
    found = await books(customer)
    assert (total(found, "cash"), found.refunds) == (2_000 * CENT, (("failed", 500 * CENT),))


BAD = [(0, "x", OutOfRange), (-1, "x", OutOfRange), (2_001, "x", OutOfRange), (2**40, "x", OutOfRange), (100, "", InvalidInput), (100, "\x00", InvalidInput)]


@pytest.mark.parametrize(("cents", "reason", "refused"), BAD)
async def test_what_cannot_be_given_back(till: Till, cents: int, reason: str, refused: type[Refusal]) -> None:
    """Nothing, less, more than is left, or without a reason: refused, nothing moved, and Stripe is not asked."""
    customer, top_up, _ = await till.bought()
    await till.hear()
    before = await books(customer)
    with pytest.raises(refused):
        await give_back(till, customer, top_up, cents, reason=reason)
    assert await books(customer) == before
    assert list(till.account.all("refund")) == []


async def test_who_may_and_what_is_there(till: Till) -> None:
    """Operators only; a top-up that is not there, not paid, or contested; a key that was used for something else; parts of a cent."""
    customer, top_up, payment = await till.bought()
    with pytest.raises(InvalidState):
        await give_back(till, customer, top_up, 100)
    await till.hear()
    with pytest.raises(Forbidden):
        await refunds.refund(customer.caller(), till.client, top_up.id, None, "x", "k")
    with pytest.raises(NotFound):
        await refunds.refund(customer.caller(Scope.OPERATOR), till.client, uuid7(), None, "x", "k")
    with pytest.raises(InvalidInput):
        await refunds.refund(customer.caller(Scope.OPERATOR), till.client, top_up.id, 5_000, "x", "k")
    await give_back(till, customer, top_up, 100, "k")
    with pytest.raises(IdempotencyConflict):
        await give_back(till, customer, top_up, 101, "k")
    bank.open_dispute(till.account, payment, cents=1_900)
    await till.hear()
    with pytest.raises(InvalidState):
        await give_back(till, customer, top_up, 100, "k2")


async def test_credit_that_is_spent_is_not_given_back(till: Till) -> None:
    """Our own refunds never take a balance below zero: what is spent stays with us."""
    customer, top_up, _ = await till.bought()
    await till.hear()
    amount, accounts = 1_999 * CENT, (LedgerAccountKind.CASH, LedgerAccountKind.ADJUSTMENTS)
    await ledger.post(
        customer.workspace_id, TransferKind.ADJUSTMENT, "spent", debit=accounts[0], credit=accounts[1], amount_microusd=amount, reason="spent", actor=TESTS
    )
    with pytest.raises(InsufficientCredit) as caught:
        await give_back(till, customer, top_up, None)
    assert (caught.value.available_microusd, caught.value.required_microusd) == (CENT, 2_000 * CENT)
    assert (await give_back(till, customer, top_up, 1, "r2")).status is RefundStatus.SUCCEEDED


async def test_stripe_refuses(till: Till) -> None:
    """Refunded at Stripe's dashboard meanwhile: Stripe refuses, ours is booked back, and the other is found."""
    customer, top_up, payment = await till.bought()
    await till.hear()
    bank.create_refund(till.account, {"payment_intent": payment})
    with pytest.raises(ProcessorFailed) as caught:
        await give_back(till, customer, top_up, None)
    assert (caught.value.retryable, caught.value.provider_code) == (False, "charge_already_refunded")
    await till.hear()
    found = await books(customer)
    assert (total(found, "cash"), found.refunds) == (0, (("failed", 2_000 * CENT), ("succeeded", 2_000 * CENT)))


@pytest.mark.parametrize("late", [False, True])
async def test_stripe_is_away_and_the_sweep_goes_on(till: Till, late: bool) -> None:
    """The request or its answer is lost: the refund stays booked and pending, and the next look asks again under the same name: one refund."""
    customer, top_up, _ = await till.bought()
    await till.hear()
    till.simulator.faults.append(Fault("POST /v1/refunds", late=late, times=3))
    with pytest.raises(ProcessorFailed) as caught:
        await give_back(till, customer, top_up, 700)
    assert caught.value.retryable
    assert (await customer.balance()).cash == 1_300 * CENT
    await database.fetch("UPDATE top_up SET look_at = clock_timestamp() WHERE workspace_id = $1", customer.workspace_id)
    await payments.sweep(till.client)
    await till.hear()
    assert [each["amount"] for each in till.account.all("refund")] == [700]
    found = await books(customer)
    assert (total(found, "cash"), found.refunds) == (1_300 * CENT, (("succeeded", 700 * CENT),))


async def test_a_look_that_began_before_does_not_forget_the_refund(till: Till, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for after another look has read what there is, and not answered by Stripe: the look's end leaves the refund to the sweep, which makes it."""
    customer, top_up, _ = await till.bought()
    await till.hear()
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(*_: object) -> bool:
        entered.set()
        await go_on.wait()
        return False

    with monkeypatch.context() as patched:
        patched.setattr(payments, "_ask_refunds", slowly)
        looking = asyncio.create_task(payments.look(till.client, top_up.workspace_id, top_up.id))
        await entered.wait()
        till.simulator.faults.append(Fault("POST /v1/refunds", times=3))
        with pytest.raises(ProcessorFailed):
            await give_back(till, customer, top_up, 700)
        go_on.set()
        assert await looking
    assert await database.fetch_value("SELECT look_at - looked_at FROM top_up WHERE id = $1", top_up.id) == payments.SOON
    await database.fetch("UPDATE top_up SET look_at = clock_timestamp() WHERE id = $1", top_up.id)
    await payments.sweep(till.client)
    assert [each["amount"] for each in till.account.all("refund")] == [700]
    await till.hear()
    assert await database.fetch_value("SELECT look_at FROM top_up WHERE id = $1", top_up.id) is None
    found = await books(customer)
    assert (total(found, "cash"), found.refunds) == (1_300 * CENT, (("succeeded", 700 * CENT),))


async def test_a_refund_is_made_while_others_look(till: Till, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many look at the top-up at the same time: who asked is told of the refund, not of them."""
    customer, top_up, _ = await till.bought()
    await till.hear()

    async def busy(*_: object, **__: object) -> bool:
        raise Unavailable("Others look at this top-up at the same time.")

    with monkeypatch.context() as patched:
        patched.setattr(payments, "look", busy)
        assert (await give_back(till, customer, top_up, 700)).status is RefundStatus.PENDING
        assert (await give_back(till, customer, top_up, 700)).status is RefundStatus.PENDING
    await till.hear()
    assert (await books(customer)).refunds == (("succeeded", 700 * CENT),)


async def test_many_at_once_give_back_no_more_than_there_is(till: Till) -> None:
    """Twelve refunds of a quarter each at once: four are made."""
    customer, top_up, _ = await till.bought()
    await till.hear()
    answers = await asyncio.gather(*(give_back(till, customer, top_up, 500, f"r{number}") for number in range(12)), return_exceptions=True)
    assert sum(isinstance(answer, OutOfRange | InsufficientCredit) for answer in answers) == 8
    await till.hear()
    assert sum(each["amount"] for each in till.account.all("refund")) == 2_000
    assert total(await books(customer), "cash") == 0
