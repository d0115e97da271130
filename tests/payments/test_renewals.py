"""Subscriptions through Stripe on a clock that the test moves: bought, renewed, changed, late, over; heard of in any order, or not at all."""

import asyncio
import dataclasses
import random
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from domain.errors import InvalidState, NotFound
from domain.money import events, renewals, subscriptions, tiers
from domain.money.processor import ProcessorFailed
from domain.money.subscriptions import BillingView, SubscriptionView
from domain.money.tiers import Limit, Tier
from embedded.stripe import billing as bank
from models import database
from models.enums import BillingCycle, Resource, SubscriptionStatus
from tests.payments.lives import Till
from tests.support.world import Tenant, tenant

pytestmark = pytest.mark.anyio

LIMITS = (Limit(Resource.TOKENS, "24h", 1_000),)
FREE = Tier("free", "Free", "Tallygate", 0, BillingCycle.MONTHLY, 0, None, LIMITS)
SMALL = Tier("small", "Small", "Tallygate", 1_000, BillingCycle.MONTHLY, 0, None, LIMITS)
LARGE = Tier("large", "Large", "Tallygate", 5_000, BillingCycle.MONTHLY, 14, None, LIMITS)
URL = "http://a.test/"


@pytest.fixture(autouse=True)
async def on_sale(till: Till) -> None:
    """Three tiers; the dear one has a trial."""
    await tiers.keep([FREE, SMALL, LARGE], at=datetime.now(UTC))


async def subscribed(till: Till, tier: Tier = SMALL, last4: str = "4242") -> tuple[Tenant, str]:
    """A workspace that has subscribed at Stripe, which nobody has heard of yet; with Stripe's id of it."""
    customer = await tenant()
    session = await renewals.subscribe(customer.caller(), till.client, tier.slug, return_url=URL, idempotency_key=None)
    return customer, bank.pay_subscription(till.account, session.id, last4)["id"]


def move(till: Till, **by: int) -> None:
    """Move Stripe's clock, and let everything happen that is due."""
    till.account.offset_seconds += int(timedelta(**by).total_seconds())
    bank.tick(till.account)


async def at(till: Till, customer: Tenant) -> BillingView:
    """What the workspace subscribes to at the instant that Stripe's clock shows."""
    return await subscriptions.billing(dataclasses.replace(customer.caller(), at=datetime.fromtimestamp(till.account.now(), UTC)))


async def mine(till: Till, customer: Tenant) -> SubscriptionView:
    """The workspace's subscription at that instant."""
    found = (await at(till, customer)).subscription
    assert found is not None
    return found


async def test_a_subscription_is_bought_and_renews(till: Till) -> None:
    """Paid at Stripe, heard of, entitled; each renewal moves the period; one that is never heard of ends a day after its period (F25)."""
    customer, _ = await subscribed(till)
    await till.hear()
    first = await mine(till, customer)
    assert (first.tier, first.status, first.entitled, first.next_tier, first.cancel_at_period_end) == ("small", SubscriptionStatus.ACTIVE, True, None, False)
    move(till, days=32)
    assert not (await mine(till, customer)).entitled, "nothing was heard of a renewal"
    await till.hear()
    second = await mine(till, customer)
    assert (second.id, second.current_period_start, second.entitled) == (first.id, first.current_period_end, True)
    rows = await database.fetch("SELECT number, status, amount_microusd FROM invoice WHERE workspace_id = $1 ORDER BY number", customer.workspace_id)
    assert [tuple(row) for row in rows] == [("SIM-0001", "paid", 10_000_000), ("SIM-0002", "paid", 10_000_000)]
    assert (await customer.balance()).balance == 0, "a plan buys no credit"


async def test_a_trial_ends_whatever_its_status_says(till: Till) -> None:
    """F25: fourteen days of trial on a first subscription; past its end it opens nothing until the payment is heard of; a second one has none."""
    customer, _ = await subscribed(till, LARGE)
    await till.hear()
    billing = await at(till, customer)
    assert billing.subscription is not None
    assert billing.trial is not None
    assert (billing.subscription.status, billing.subscription.entitled, billing.trial.expired) == (SubscriptionStatus.TRIALING, True, False)
    assert billing.trial.days_remaining in (13, 14)
    till.account.offset_seconds += 15 * 86_400
    late = await at(till, customer)
    assert late.subscription is not None
    assert late.trial is not None
    assert (late.subscription.status, late.subscription.entitled, late.tier, late.trial.expired) == (SubscriptionStatus.TRIALING, False, None, True)
    bank.tick(till.account)
    await till.hear()
    assert ((await mine(till, customer)).status, (await mine(till, customer)).entitled) == (SubscriptionStatus.ACTIVE, True)
    second = await renewals.subscribe(customer.caller(), till.client, "large", return_url=URL, idempotency_key=None)
    assert bank.pay_subscription(till.account, second.id)["status"] == "active"


async def test_one_trial_however_many_pages_are_begun(till: Till) -> None:
    """Before any of them is paid, one after the other or at once: one page with a trial is left at most, and pages to pay at once are left alone."""
    customer = await tenant()
    kept = await till.begin(customer, 500)
    begun = [await renewals.subscribe(customer.caller(), till.client, "large", return_url=URL, idempotency_key=key) for key in ("k1", "k2")]
    assert [till.account.get("checkout.session", each.id)["status"] for each in begun] == ["expired", "open"]
    again = await renewals.subscribe(customer.caller(), till.client, "large", return_url=URL, idempotency_key="k1")
    assert (again.id, till.account.get("checkout.session", begun[1].id)["status"]) == (begun[0].id, "open")
    await asyncio.gather(*(renewals.subscribe(customer.caller(), till.client, "large", return_url=URL, idempotency_key=None) for _ in range(4)))
    left = [each["id"] for each in till.account.all("checkout.session", status="open") if each["mode"] == "subscription"]
    assert len(left) <= 1
    assert till.account.get("checkout.session", str(kept.session_id))["status"] == "open"
    last = await renewals.subscribe(customer.caller(), till.client, "large", return_url=URL, idempotency_key=None)
    assert bank.pay_subscription(till.account, last.id)["status"] == "trialing"
    await till.hear()
    assert len((await at(till, customer)).current) == 1


async def test_a_late_payment_has_a_grace(till: Till) -> None:
    """F25: a renewal that is declined is past due and entitled for seven days; then it opens nothing, and Stripe's end of it is its end."""
    customer, _ = await subscribed(till, last4="0341")
    await till.hear()
    end = (await mine(till, customer)).current_period_end
    till.account.offset_seconds += int((end - datetime.now(UTC)).total_seconds()) + 3_600
    bank.tick(till.account)
    await till.hear()
    late = await mine(till, customer)
    assert (late.status, late.entitled, late.grace_ends_at) == (SubscriptionStatus.PAST_DUE, True, end + timedelta(days=7))
    till.account.offset_seconds += 7 * 86_400
    assert not (await mine(till, customer)).entitled
    bank.tick(till.account)
    await till.hear()
    over = await mine(till, customer)
    assert (over.status, over.entitled, over.ended_at is not None) == (SubscriptionStatus.CANCELED, False, True)


async def test_an_upgrade_is_now_and_a_downgrade_is_next(till: Till) -> None:
    """Dearer: at once, the rest of the period charged as Stripe prorates. Cheaper: with the next period. The same key changes once."""
    customer, stripe_id = await subscribed(till)
    await till.hear()
    subscription = await mine(till, customer)

    async def change(tier: str, key: str) -> SubscriptionView:
        return await renewals.change(customer.caller(), till.client, subscription.id, tier=tier, cancel_at_period_end=None, idempotency_key=key)

    assert (await change("large", "up")).tier == "large"
    assert (await change("large", "up")).tier == "large"
    prorated = [each["total"] for each in till.account.all("invoice") if each["billing_reason"] == "subscription_update"]
    assert len(prorated) == 1
    assert 3_990 <= prorated[0] <= 4_000
    down = await change("small", "down")
    assert (down.tier, down.next_tier, down.entitled) == ("large", "small", True)
    assert (await change("large", "stay")).next_tier is None
    assert (await change("small", "down again")).next_tier == "small"
    move(till, days=32)
    await till.hear()
    after = await mine(till, customer)
    assert (after.tier, after.next_tier, after.entitled) == ("small", None, True)
    assert next(till.account.all("invoice"))["total"] == 1_000
    assert till.account.get("subscription", stripe_id)["status"] == "active"


async def test_an_upgrade_that_is_declined_changes_nothing(till: Till) -> None:
    """The card says no: refused with Stripe's code, and the tier stays."""
    customer, _ = await subscribed(till, last4="0341")
    await till.hear()
    with pytest.raises(ProcessorFailed) as caught:
        await renewals.change(customer.caller(), till.client, (await mine(till, customer)).id, tier="large", cancel_at_period_end=None, idempotency_key=None)
    assert (caught.value.retryable, caught.value.provider_code) == (False, "card_declined")
    await till.hear()
    assert (await mine(till, customer)).tier == "small"


async def test_an_end_with_the_period(till: Till) -> None:
    """Told to end, it goes on to its period's last instant and not a day longer; told to go on before, it goes on."""
    customer, _ = await subscribed(till)
    await till.hear()
    mine_id = (await mine(till, customer)).id

    async def end(ends: bool) -> SubscriptionView:
        return await renewals.change(customer.caller(), till.client, mine_id, tier=None, cancel_at_period_end=ends, idempotency_key=None)

    assert (await end(True)).cancel_at_period_end
    assert not (await end(False)).cancel_at_period_end
    ending = await end(True)
    assert ending.entitled
    till.account.offset_seconds += int((ending.current_period_end - datetime.now(UTC)).total_seconds()) + 1
    assert not (await mine(till, customer)).entitled
    bank.tick(till.account)
    await till.hear()
    assert (await mine(till, customer)).status is SubscriptionStatus.CANCELED
    with pytest.raises(InvalidState):
        await end(False)


async def test_an_end_that_was_set_in_the_portal(till: Till) -> None:
    """Stripe's portal says when it ends, and not that it ends with the period: it is heard of, can be taken back, and opens nothing for a day longer."""
    customer, stripe_id = await subscribed(till)
    end = till.account.get("subscription", stripe_id)["items"]["data"][0]["current_period_end"]
    bank.update(till.account, stripe_id, {"cancel_at": end})
    await till.hear()
    assert (await mine(till, customer)).cancel_at_period_end
    kept = await renewals.change(customer.caller(), till.client, (await mine(till, customer)).id, tier=None, cancel_at_period_end=False, idempotency_key=None)
    assert (kept.cancel_at_period_end, till.account.get("subscription", stripe_id)["cancel_at"]) == (False, None)
    bank.update(till.account, stripe_id, {"cancel_at": end + 86_400})
    await till.hear()
    assert not (await mine(till, customer)).cancel_at_period_end, "it renews once more"
    bank.update(till.account, stripe_id, {"cancel_at": end})
    await till.hear()
    till.account.offset_seconds += end - till.account.now() + 1
    assert not (await mine(till, customer)).entitled
    bank.tick(till.account)
    await till.hear()
    assert (await mine(till, customer)).status is SubscriptionStatus.CANCELED


async def test_one_grace_however_many_periods_pass_unpaid(till: Till) -> None:
    """An account at Stripe may let a subscription stay past due, and go on to the next period: it is not waited for a second time."""
    customer, stripe_id = await subscribed(till, last4="0341")
    item = till.account.get("subscription", stripe_id)["items"]["data"][0]
    due = item["current_period_end"]
    till.account.offset_seconds += due - till.account.now() + 1
    bank.tick(till.account)
    await till.hear()
    first = await mine(till, customer)
    assert (first.status, first.grace_ends_at) == (SubscriptionStatus.PAST_DUE, datetime.fromtimestamp(due, UTC) + timedelta(days=7))
    item |= {"current_period_start": item["current_period_end"], "current_period_end": item["current_period_end"] + 31 * 86_400}
    till.account.offset_seconds += 31 * 86_400
    till.account.objects[till.account.get("subscription", stripe_id)["latest_invoice"]]["created"] = till.account.now()  # the card is not tried again yet
    till.account.emit("customer.subscription.updated", till.account.get("subscription", stripe_id))
    await till.hear()
    second = await mine(till, customer)
    assert (second.status, second.grace_ends_at, second.entitled) == (SubscriptionStatus.PAST_DUE, first.grace_ends_at, False)


async def test_a_cheaper_tier_and_an_end_exclude_each_other(till: Till) -> None:
    """Stripe plans no next period of one that ends: refused, nothing moved. Let it go on in the same breath, and it is planned; an end forgets the plan."""
    customer, stripe_id = await subscribed(till)
    await till.hear()
    mine_id = (await mine(till, customer)).id

    async def change(tier: str | None, ends: bool | None, key: str | None = None) -> tuple[str, str | None, bool]:
        changed = await renewals.change(customer.caller(), till.client, mine_id, tier=tier, cancel_at_period_end=ends, idempotency_key=key)
        return changed.tier, changed.next_tier, changed.cancel_at_period_end

    assert await change("large", None) == ("large", None, False)
    assert await change(None, True) == ("large", None, True)
    for ends in (None, True):
        with pytest.raises(InvalidState):
            await change("small", ends, "k")
    assert till.account.get("subscription", stripe_id)["schedule"] is None
    assert await change("small", False, "k") == ("large", "small", False), "the key was of a change that was refused"
    assert await change(None, True) == ("large", None, True)
    assert await change(None, False) == ("large", None, False)


async def test_a_cheaper_tier_after_the_trial(till: Till) -> None:
    """Planned in a trial, which goes on to its end, unpaid; then the cheaper tier is charged."""
    customer, stripe_id = await subscribed(till, LARGE)
    await till.hear()
    trial = await mine(till, customer)
    planned = await renewals.change(customer.caller(), till.client, trial.id, tier="small", cancel_at_period_end=None, idempotency_key=None)
    assert (planned.status, planned.next_tier, planned.trial_ends_at) == (SubscriptionStatus.TRIALING, "small", trial.trial_ends_at)
    move(till, days=15)
    await till.hear()
    assert ((await mine(till, customer)).tier, (await mine(till, customer)).status) == ("small", SubscriptionStatus.ACTIVE)
    assert [each["total"] for each in till.account.all("invoice")] == [1_000, 0]
    assert till.account.get("subscription", stripe_id)["schedule"] is None


async def test_any_order_leaves_the_same_subscription(till: Till) -> None:
    """F21: a life told in order, backwards, shuffled, by the last event alone, or only found by catching up: the same row and invoices."""
    random_ = random.Random(5)
    found = []
    for way in ("in order", "backwards", "shuffled", "last", "caught up"):
        till.account.events.clear()
        customer, stripe_id = await subscribed(till)
        bank.update(till.account, stripe_id, {"cancel_at_period_end": True})
        bank.update(till.account, stripe_id, {"cancel_at_period_end": False})
        told = list(till.account.events)
        if way == "caught up":
            await database.fetch("UPDATE clock SET done_at = done_at - interval '1 hour' WHERE name = $1", events.CATCH_UP)
            await events.catch_up(till.client, at=datetime.now(UTC))
            await till.work()
        else:
            order = {"in order": told, "backwards": told[::-1], "shuffled": random_.sample(told * 2, k=2 * len(told)), "last": told[-1:]}[way]
            for event in order:
                await till.hear([event])
        view = await mine(till, customer)
        invoices = await database.fetch_value("SELECT count(*) FROM invoice WHERE workspace_id = $1", customer.workspace_id)
        found.append((view.tier, view.status, view.entitled, view.cancel_at_period_end, invoices if way != "last" else 1))
        assert await database.fetch_value("SELECT count(*) FROM subscription WHERE workspace_id = $1", customer.workspace_id) == 1
    assert set(found) == {("small", SubscriptionStatus.ACTIVE, True, False, 1)}


async def test_a_renewal_that_nobody_told_of_is_looked_for(till: Till) -> None:
    """The sweep reads a subscription again whose period is over, and finds that it was renewed."""
    customer, stripe_id = await subscribed(till)
    await till.hear()
    await database.fetch(
        "UPDATE subscription SET current_period_end = clock_timestamp() - interval '1 minute', current_period_start = clock_timestamp() - interval '1 month',"
        " looked_at = clock_timestamp() - interval '1 hour' WHERE stripe_subscription_id = $1",
        stripe_id,
    )
    await renewals.sweep(till.client)
    assert (await mine(till, customer)).current_period_end > datetime.now(UTC)


async def test_a_subscription_of_another_s_customer_opens_nothing(till: Till) -> None:
    """A subscription whose words name a workspace that its customer does not belong to is not written down."""
    victim = await tenant()
    thief, _ = await subscribed(till)
    stripe_id = next(till.account.all("subscription"))["id"]
    till.account.objects[stripe_id]["metadata"]["workspace"] = str(victim.workspace_id)
    await till.hear()
    for workspace_id in (victim.workspace_id, thief.workspace_id):
        assert await subscriptions.of_workspace(workspace_id, at=datetime.now(UTC)) == []


async def test_what_cannot_be_subscribed_to(till: Till) -> None:
    """An unknown tier is not found, a free one is not for sale; nothing is asked of Stripe."""
    customer = await tenant()
    pages = len(list(till.account.all("checkout.session")))
    with pytest.raises(NotFound):
        await renewals.subscribe(customer.caller(), till.client, "gold", return_url=URL, idempotency_key=None)
    with pytest.raises(InvalidState):
        await renewals.subscribe(customer.caller(), till.client, "free", return_url=URL, idempotency_key=None)
    assert len(list(till.account.all("checkout.session"))) == pages
    with pytest.raises(NotFound):
        await renewals.change(customer.caller(), till.client, UUID(int=7), tier="large", cancel_at_period_end=None, idempotency_key=None)


async def test_sync_makes_each_price_once(till: Till) -> None:
    """Products and prices of every tier that costs something, once; a changed amount is a new price under the same key."""
    first = await renewals.sync(till.client)
    assert [slug for slug, _ in first] == ["small", "large"]
    assert await renewals.sync(till.client) == first
    await tiers.keep([FREE, dataclasses.replace(SMALL, price_cents=1_200), LARGE], at=datetime.now(UTC))
    second = dict(await renewals.sync(till.client))
    assert (second["large"], second["small"] == dict(first)["small"]) == (dict(first)["large"], False)
    assert till.account.get("price", second["small"])["unit_amount"] == 1_200
    assert len(list(till.account.all("product"))) == 2


async def test_a_key_gives_the_same_page(till: Till) -> None:
    """The same idempotency key gives the same page, at once and later, at a price that is made once; the portal is a page of the same customer."""
    customer = await tenant()
    first, again = [await renewals.subscribe(customer.caller(), till.client, "small", return_url=URL, idempotency_key="k") for _ in range(2)]
    assert first.id == again.id
    many = await asyncio.gather(*(renewals.subscribe(customer.caller(), till.client, "large", return_url=URL, idempotency_key="many") for _ in range(6)))
    assert len({session.id for session in many}) == 1
    assert sorted(price["metadata"]["tier"] for price in till.account.all("price")) == ["large", "small"]
    bank.pay_subscription(till.account, many[0].id)
    await till.hear()
    with pytest.raises(InvalidState, match="begin another one"):  # it had a trial, which is had once
        await renewals.subscribe(customer.caller(), till.client, "large", return_url=URL, idempotency_key="many")
    address = await renewals.portal(customer.caller(), till.client, return_url=URL)
    assert address.startswith(f"{till.simulator.url}/portal/")
    assert len(list(till.account.all("customer"))) == 1
