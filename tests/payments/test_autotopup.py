"""Auto top-up: one payment under way, a daily cap, a cool-off, and failures told."""

import asyncio
from typing import Any

import pytest

from domain.errors import InvalidInput, OutOfRange, Refusal, Required
from domain.money import autotopup, grants, ledger, payments
from domain.money.autotopup import AutoTopUpChanges
from domain.money.grants import NewGrant
from embedded.stripe import payments as bank
from embedded.stripe.server import Fault
from models import database
from models.enums import Scope
from tests.payments.lives import CENT, Till, books
from tests.support.world import Tenant, tenant

pytestmark = pytest.mark.anyio

USD = 100 * CENT
ON = AutoTopUpChanges(enabled=True, threshold=30 * USD, amount=25 * USD, daily_cap=100 * USD)


async def switched_on(till: Till, last4: str = "4242", changes: AutoTopUpChanges = ON) -> Tenant:
    """A workspace with $20 of credit, a saved card, and auto top-up below $30."""
    customer = await tenant()
    top_up = await till.begin(customer)
    bank.pay(till.account, str(top_up.session_id), last4)
    await till.hear()
    await autotopup.update(customer.caller(), changes)
    return customer


async def ago(customer: Tenant, seconds: int) -> None:
    """Let the last try be so long ago."""
    await database.fetch("UPDATE auto_top_up SET tried_at = clock_timestamp() - make_interval(secs => $2) WHERE workspace_id = $1", customer.workspace_id, seconds)


async def test_a_hundred_triggers_are_one_charge(till: Till) -> None:
    """F24: a hundred triggers at once, twenty-five at a time beside the sweep: one charge, credited once."""
    customer = await switched_on(till)
    triggers = [autotopup.trigger(till.client, customer.workspace_id) for _ in range(100)]
    begun = [each for each in await asyncio.gather(*triggers, return_exceptions=True) if each is not None]
    assert len(begun) == 1
    await autotopup.sweep(till.client)
    await till.hear()
    charges = [each["amount"] for each in till.account.all("charge", status="succeeded")]
    assert charges == [2_500, 2_000]
    assert (await customer.balance()).cash == 45 * USD
    settings = await autotopup.settings_of(customer.workspace_id)
    assert (settings.pending_id, settings.failure_code) == (None, None)
    assert (await books(customer)).top_ups == (("fulfilled", 20 * USD), ("fulfilled", 25 * USD))


async def test_it_buys_only_below_the_threshold(till: Till) -> None:
    """Enough is left: nothing is bought; switched off: nothing either."""
    customer = await switched_on(till, changes=AutoTopUpChanges(enabled=True, threshold=20 * USD, amount=25 * USD, daily_cap=100 * USD))
    assert await autotopup.trigger(till.client, customer.workspace_id) is None
    await autotopup.update(customer.caller(), AutoTopUpChanges(enabled=False, threshold=30 * USD))
    assert await autotopup.trigger(till.client, customer.workspace_id) is None
    await autotopup.update(customer.caller(), AutoTopUpChanges(enabled=True))
    assert await autotopup.trigger(till.client, customer.workspace_id) is not None


async def test_it_buys_when_cash_is_owed_whatever_grants_there_are(till: Till) -> None:
    """Cash below zero lets nothing be spent: `available` is 0, below any threshold, and the payment pays the debt first."""
    customer = await switched_on(till, changes=AutoTopUpChanges(enabled=True, threshold=1, amount=25 * USD, daily_cap=100 * USD))
    await ledger.adjust(customer.caller(Scope.OPERATOR), None, -21 * USD, "a mistake", "k")
    await grants.create(customer.caller(Scope.OPERATOR), None, NewGrant(50 * USD, "launch", idempotency_key="g"))
    assert (await customer.balance()).available == 0
    assert await autotopup.trigger(till.client, customer.workspace_id) is not None
    balance = await customer.balance()
    assert (balance.cash, balance.available) == (24 * USD, 74 * USD)
    assert await autotopup.trigger(till.client, customer.workspace_id) is None


async def test_the_cool_off_and_the_daily_cap(till: Till) -> None:
    """After a try it waits; in a day it buys no more than the cap, however empty the balance."""
    customer = await switched_on(till, changes=AutoTopUpChanges(enabled=True, threshold=900 * USD, amount=25 * USD, daily_cap=60 * USD, cooldown_seconds=600))
    assert await autotopup.trigger(till.client, customer.workspace_id) is not None
    assert await autotopup.trigger(till.client, customer.workspace_id) is None
    await ago(customer, 599)
    assert await autotopup.trigger(till.client, customer.workspace_id) is None
    await ago(customer, 601)
    assert await autotopup.trigger(till.client, customer.workspace_id) is not None
    await ago(customer, 601)
    assert await autotopup.trigger(till.client, customer.workspace_id) is None, "a third $25 would be over $60"
    assert (await customer.balance()).cash == 70 * USD


@pytest.mark.parametrize(("last4", "code", "retryable"), [("0341", "card_declined", True), ("3155", "authentication_required", False)])
async def test_a_card_that_says_no_is_told(till: Till, last4: str, code: str, retryable: bool) -> None:
    """A declined card, and one whose bank wants its owner: no credit, the reason in the settings and at the top-up, and no second try before the cool-off."""
    customer = await switched_on(till, last4)
    top_up_id = await autotopup.trigger(till.client, customer.workspace_id)
    assert top_up_id is not None
    await till.hear()
    settings = await autotopup.settings_of(customer.workspace_id)
    assert (settings.pending_id, settings.failure_code) == (None, code)
    row = await database.fetch_row("SELECT status, failure_code FROM top_up WHERE workspace_id = $1 AND id = $2", customer.workspace_id, top_up_id)
    assert row is not None
    assert tuple(row) == ("failed", code)
    assert await autotopup.trigger(till.client, customer.workspace_id) is None
    assert (await customer.balance()).cash == 20 * USD


async def test_without_a_card(till: Till) -> None:
    """No card is saved: it says so, and charges nobody."""
    customer = await tenant()
    await autotopup.update(customer.caller(), ON)
    assert await autotopup.trigger(till.client, customer.workspace_id) is None
    assert (await autotopup.settings_of(customer.workspace_id)).failure_code == "no_payment_method"


@pytest.mark.parametrize("late", [False, True])
async def test_a_charge_whose_answer_is_lost_is_one_charge(till: Till, late: bool) -> None:
    """Stripe is away, before or after it has charged: the row is gone on with under the same name, and the card is charged once."""
    customer = await switched_on(till)
    till.simulator.faults.append(Fault("POST /v1/payment_intents", late=late, times=3))
    with pytest.raises(Refusal):
        await autotopup.trigger(till.client, customer.workspace_id)
    await ago(customer, 10_000)
    assert await autotopup.trigger(till.client, customer.workspace_id) is None, "one is under way"
    await database.fetch("UPDATE top_up SET look_at = clock_timestamp() WHERE workspace_id = $1 AND automatic", customer.workspace_id)
    await payments.sweep(till.client)
    await till.hear()
    assert [each["amount"] for each in till.account.all("charge", status="succeeded")] == [2_500, 2_000]
    assert (await customer.balance()).cash == 45 * USD


async def test_a_frozen_workspace_buys_nothing(till: Till) -> None:
    """A dispute stops auto top-up too: no card is charged whose owner contests it."""
    customer = await switched_on(till)
    bank.open_dispute(till.account, next(till.account.all("payment_intent"))["id"])
    await till.hear()
    assert (await books(customer)).frozen
    assert await autotopup.trigger(till.client, customer.workspace_id) is None


BAD: list[tuple[Any, type[Refusal]]] = [
    (AutoTopUpChanges(enabled=True), Required),
    (AutoTopUpChanges(enabled=True, threshold=1, amount=25 * USD), Required),
    (AutoTopUpChanges(threshold=-1), OutOfRange),
    (AutoTopUpChanges(threshold=2**60), OutOfRange),
    (AutoTopUpChanges(amount=4 * USD), OutOfRange),
    (AutoTopUpChanges(amount=1_001 * USD), OutOfRange),
    (AutoTopUpChanges(amount=25 * USD + 1), InvalidInput),
    (AutoTopUpChanges(amount=25 * USD, daily_cap=24 * USD), InvalidInput),
    (AutoTopUpChanges(cooldown_seconds=59), OutOfRange),
    (AutoTopUpChanges(cooldown_seconds=2**31), OutOfRange),
]


@pytest.mark.parametrize(("changes", "refused"), BAD)
async def test_settings_that_make_no_sense(till: Till, changes: AutoTopUpChanges, refused: type[Refusal]) -> None:
    """Refused, and nothing is changed."""
    customer = await tenant()
    before = await autotopup.settings_of(customer.workspace_id)
    with pytest.raises(refused):
        await autotopup.update(customer.caller(), changes)
    assert await autotopup.settings_of(customer.workspace_id) == before
