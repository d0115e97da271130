"""What subscriptions bring in: in the books, to the cent, refunds and disputes too, and never in anybody's credit."""

import random
from collections.abc import Callable

import pytest

from domain.errors import NotFound
from domain.money import entries, events, renewals, topups
from embedded.stripe import billing
from embedded.stripe import payments as bank
from embedded.stripe.account import Account, Json
from models import database
from tests.payments.lives import CENT, Books, Till, books, total
from tests.payments.test_entries import alarms, half_an_hour_ago, read
from tests.payments.test_renewals import SMALL, on_sale, subscribed
from tests.support.world import Tenant, tenant

pytestmark = pytest.mark.anyio

__all__ = ["half_an_hour_ago", "on_sale"]  # fixtures that every test here uses


def _payment(account: Account) -> str:
    return str(next(account.all("invoice_payment"))["payment"]["payment_intent"])


def _paid(account: Account) -> None:
    pass


def _refunded(account: Account) -> None:
    bank.create_refund(account, {"payment_intent": _payment(account), "amount": 400})


def _refund_that_came_back(account: Account) -> None:
    refund = bank.create_refund(account, {"payment_intent": _payment(account), "amount": 400})
    bank.fail_refund(account, refund["id"])


def _disputed(account: Account) -> None:
    bank.open_dispute(account, _payment(account))


def _disputed_and_won(account: Account) -> None:
    bank.close_dispute(account, bank.open_dispute(account, _payment(account))["id"], won=True)


def _disputed_and_lost(account: Account) -> None:
    bank.close_dispute(account, bank.open_dispute(account, _payment(account))["id"], won=False)


LIVES: dict[Callable[[Account], None], int] = {_paid: 1_000, _refunded: 600, _refund_that_came_back: 1_000, _disputed: 0, _disputed_and_lost: 0, _disputed_and_won: 1_000}
"""What happens to the payment of a subscription at $10, and the revenue in cents that is left of it."""
DISPUTES: dict[Callable[[Account], None], str] = {_disputed: "open", _disputed_and_lost: "lost", _disputed_and_won: "won"}


async def _heard(till: Till, life: Callable[[Account], None], told: Callable[[list[Json]], list[Json]] | None) -> tuple[Tenant, Books]:
    till.account.events.clear()
    customer, _ = await subscribed(till, SMALL)
    life(till.account)
    if told is None:
        await read(till)
    for event in told(list(till.account.events)) if told else ():
        await till.hear([event])
    return customer, await books(customer)


@pytest.mark.parametrize("life", LIVES, ids=lambda life: life.__name__.strip("_"))
async def test_what_a_subscription_brings_in(till: Till, life: Callable[[Account], None]) -> None:
    """F21, F23: told in order, shuffled twice over, or only found in Stripe's list: the same transfers, which are Stripe's entries; no credit."""
    shuffle = random.Random(life.__name__)
    before, fees = till.moved(), till.fees()
    customer, wanted = await _heard(till, life, lambda told: told)
    assert total(wanted, "revenue") == LIVES[life] * CENT == till.moved() - before
    assert -total(wanted, "payments") - total(wanted, "disputes") == till.moved() - before - (till.fees() - fees)
    disputes = ((DISPUTES[life], 1_000 * CENT),) if life in DISPUTES else ()
    assert (total(wanted, "cash"), wanted.refunds, wanted.disputes) == (0, (), disputes)
    assert wanted.frozen is (DISPUTES.get(life, "won") != "won")
    assert wanted.transfers[-1][0] == "subscription"
    ways: list[Callable[[list[Json]], list[Json]] | None] = [lambda told: shuffle.sample(told * 2, k=2 * len(told)), None]
    customers = [customer]
    for told in ways:
        again, found = await _heard(till, life, told)
        assert found == wanted
        customers.append(again)
    await read(till, minutes_later=20)
    assert await alarms(*customers) == {}


async def test_a_disputed_subscription_stops_spending_until_the_next_top_up(till: Till) -> None:
    """F23: a subscription's dispute freezes as a top-up's does, whatever credit there is; it takes no credit, and the next top-up ends the freeze."""
    customer, _ = await subscribed(till, SMALL)
    await till.hear()
    payment = _payment(till.account)
    first = await till.begin(customer, 2_000)
    bank.pay(till.account, str(first.session_id))
    await till.hear()
    till.account.offset_seconds += 60
    bank.open_dispute(till.account, payment)
    await till.hear()
    assert (await books(customer)).frozen
    assert (await customer.balance()).cash == 2_000 * CENT
    till.account.offset_seconds += 60
    second = await till.begin(customer, 1_000)
    bank.pay(till.account, str(second.session_id))
    await till.hear()
    assert not (await books(customer)).frozen
    assert (await customer.balance()).available == 3_000 * CENT
    dispute = await database.fetch_value("SELECT id FROM dispute WHERE workspace_id = $1", customer.workspace_id)
    with pytest.raises(NotFound):
        await topups.find_dispute(customer.workspace_id, dispute)


async def test_a_renewal_an_upgrade_and_a_card_that_says_no(till: Till) -> None:
    """Each paid invoice is one transfer; one that was declined is none; a trial's invoice of nothing is none."""
    customer, stripe_id = await subscribed(till)
    await till.hear()
    item = till.account.get("subscription", stripe_id)["items"]["data"][0]
    till.account.offset_seconds += item["current_period_end"] - till.account.now()
    billing.tick(till.account)
    await till.hear()
    assert [row[:2] for row in (await books(customer)).transfers] == [("fee", 59 * CENT)] * 2 + [("subscription", 1_000 * CENT)] * 2
    late, stripe_id = await subscribed(till, SMALL, "0341")
    await till.hear()
    item = till.account.get("subscription", stripe_id)["items"]["data"][0]
    till.account.offset_seconds += item["current_period_end"] - till.account.now()
    billing.tick(till.account)
    await till.hear()
    assert [row[0] for row in (await books(late)).transfers] == ["fee", "subscription"]
    rows = await database.fetch("SELECT status FROM invoice WHERE workspace_id = $1 ORDER BY number", late.workspace_id)
    assert [row["status"] for row in rows] == ["paid", "open"]


async def test_a_payment_of_another_s_customer_is_not_booked(till: Till) -> None:
    """An invoice that names a payment of somebody else's customer, or a top-up, books nothing to its workspace."""
    customer, _ = await subscribed(till)
    victim, _, theirs = await till.bought()
    part = next(till.account.all("invoice_payment"))
    part["payment"]["payment_intent"] = theirs
    await till.hear([event for event in till.account.events if event["type"].startswith(events.INVOICE)])
    assert (await books(customer)).transfers == ()
    till.account.objects[theirs]["customer"] = till.account.get("invoice", part["invoice"])["customer"]
    await topups.enter(theirs, "payment", victim.workspace_id, victim.workspace_id)
    assert await renewals.refresh_invoice(till.client, part["invoice"])
    assert (await books(customer)).transfers == ()


async def test_a_payment_that_no_invoice_names(till: Till) -> None:
    """Neither a top-up's nor an invoice's: not ours."""
    customer = await tenant()
    payment = bank.new_payment(till.account, 5_000, "usd", customer=await topups.customer_of(till.client, customer.workspace_id))
    assert not await renewals.refresh_sale(till.client, payment["id"])
    assert await entries.listed(1, unexplained=True) == []
