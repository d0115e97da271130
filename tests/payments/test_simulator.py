"""The simulator of Stripe, asked by Stripe's own SDK."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
import stripe

from clients.stripe import Stripe
from domain.money.processor import ProcessorFailed
from embedded.stripe import billing, deliveries, payments
from embedded.stripe.account import Json
from embedded.stripe.server import Fault, Simulator
from models.ids import uuid7
from tests.support.stripe import KEY, simulated

pytestmark = pytest.mark.anyio


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    """A simulator of the test's own, which delivers nothing."""
    async with simulated() as started:
        yield started


@pytest.fixture
async def sdk(simulator: Simulator) -> AsyncIterator[stripe.StripeClient]:
    """Stripe's SDK itself, pointed at the simulator."""
    http = stripe.AIOHTTPClient()
    yield stripe.StripeClient(KEY, base_addresses={"api": simulator.url}, http_client=http, max_network_retries=0)
    await http.close_async()  # type: ignore[no-untyped-call]  # the SDK leaves it untyped


@pytest.fixture
async def client(simulator: Simulator) -> AsyncIterator[Stripe]:
    """The gateway's client, pointed at the simulator."""
    opened = Stripe(KEY, simulator.url)
    yield opened
    await opened.close()


def _asked(**changed: Any) -> Any:
    return {**SESSION, **changed}


SESSION: Any = {
    "mode": "payment",
    "success_url": "https://example.test/done",
    "line_items": [{"quantity": 1, "price_data": {"currency": "usd", "unit_amount": 1000, "product_data": {"name": "Credit"}}}],
}


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"sucess_url": "x"}, "sucess_url", "parameter_unknown"),
        ({"mode": "pay"}, "mode", "parameter_invalid_enum"),
        ({"expires_at": "tomorrow"}, "expires_at", "parameter_invalid_integer"),
        ({"adaptive_pricing": {"enabled": "maybe"}}, "adaptive_pricing[enabled]", "parameter_invalid_boolean"),
        ({"line_items": [{"quantity": "9.5", "price_data": {"currency": "usd", "unit_amount": 1}}]}, "line_items[0][quantity]", "parameter_invalid_integer"),
        ({"line_items": [{"quantity": 1, "price_data": {"unit_amount": 1}}]}, "line_items[0][price_data][currency]", "parameter_missing"),
        ({"line_items": "x"}, "line_items", "parameter_invalid_array"),
    ],
)
async def test_a_parameter_that_the_sdk_does_not_type_is_refused(sdk: stripe.StripeClient, simulator: Simulator, change: Any, param: str, code: str) -> None:
    """An unknown name, a word outside of its set, a wrong type and a missing parameter are 400 with Stripe's code and the parameter's name."""
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await sdk.v1.checkout.sessions.create_async(_asked(**change))
    assert (caught.value.http_status, caught.value.param, caught.value.code) == (400, param, code)
    assert list(simulator.account.all("checkout.session")) == []


async def test_an_idempotency_key_makes_a_thing_once(sdk: stripe.StripeClient, simulator: Simulator) -> None:
    """The same key and parameters give the first answer, other parameters are refused, and a refused parameter does not use the key up."""
    with pytest.raises(stripe.InvalidRequestError):
        await sdk.v1.checkout.sessions.create_async(_asked(mode="x"), {"idempotency_key": "k"})
    first = await sdk.v1.checkout.sessions.create_async(SESSION, {"idempotency_key": "k"})
    again = await sdk.v1.checkout.sessions.create_async(SESSION, {"idempotency_key": "k"})
    assert first.id == again.id
    assert len(list(simulator.account.all("checkout.session"))) == 1
    with pytest.raises(stripe.IdempotencyError):
        await sdk.v1.checkout.sessions.create_async(_asked(success_url="https://example.test/other"), {"idempotency_key": "k"})


async def test_a_lost_answer_is_had_again(client: Stripe, simulator: Simulator) -> None:
    """A request whose answer was lost is repeated by the SDK under the same key: one customer."""
    simulator.faults.append(Fault("POST /v1/customers", late=True))
    made = await client.create_customer(uuid7())
    assert [each["id"] for each in simulator.account.all("customer")] == [made]


async def test_a_key_that_is_none_is_refused(simulator: Simulator) -> None:
    """Without a test key there is no answer."""
    async with httpx2.AsyncClient(base_url=simulator.url, timeout=60) as http:
        assert (await http.get("/v1/events")).status_code == 401
    other = Stripe("sk_live_x", simulator.url)
    with pytest.raises(ProcessorFailed) as caught:
        await other.create_customer(uuid7())
    await other.close()
    assert (caught.value.retryable, caught.value.status) == (False, 502)
    assert "sk_live" not in caught.value.message


async def test_a_payment_s_whole_life_is_read_in_one(client: Stripe, simulator: Simulator) -> None:
    """Paid, refunded in part twice, one of them failed, disputed and won: the fact says what each moved at Stripe, to the cent."""
    workspace, top_up = uuid7(), uuid7()
    customer = await client.create_customer(workspace)
    session = await client.create_top_up_session(top_up, workspace, customer, 2_000, success_url="https://a.test/ok", cancel_url="https://a.test/no")
    assert (session.status, session.subject, session.customer_id, session.payment_id) == ("open", top_up, customer, None)
    assert session.expires_at - datetime.now(UTC) > timedelta(hours=23)
    payment_id = payments.pay(simulator.account, session.id)["id"]
    paid = await client.find_session(session.id)
    assert paid is not None
    assert (paid.status, paid.payment_id) == ("complete", payment_id)
    first = await client.refund(uuid7(), payment_id, 300)
    second = await client.refund(uuid7(), payment_id, 200)
    payments.fail_refund(simulator.account, second.id)
    dispute = payments.open_dispute(simulator.account, payment_id, cents=1_500)
    payments.close_dispute(simulator.account, dispute["id"], won=True)
    fact = await client.find_payment(payment_id)
    assert fact is not None
    assert (fact.status, fact.currency, fact.received_cents, fact.subject, fact.live) == ("succeeded", "usd", 2_000, top_up, False)
    assert fact.entry is not None
    assert (fact.entry.cents, fact.entry.fee_cents) == (2_000, 88)
    assert [(refund.id, refund.cents, refund.status, refund.taken and refund.taken.cents, refund.returned and refund.returned.cents) for refund in fact.refunds] == [
        (first.id, 300, "succeeded", -300, None),
        (second.id, 200, "failed", -200, 200),
    ]
    assert [(each.status, [entry.cents for entry in each.entries]) for each in fact.disputes] == [("won", [-1_500, 1_500])]
    entries = await client.entries_between(fact.entry.created_at, datetime.now(UTC) + timedelta(seconds=5))
    assert sum(entry.cents - entry.fee_cents for entry in entries) == 2_000 - 88 - 300 - 1_500
    assert await client.find_payment_of(first.id) == payment_id
    assert await client.find_payment_of(dispute["id"]) == payment_id
    saved = await client.saved_method(customer)
    assert saved is not None
    assert saved.label == "visa 4242"


@pytest.mark.parametrize(("last4", "code"), [("0341", "card_declined"), ("3155", "authentication_required")])
async def test_a_saved_card_says_no(client: Stripe, simulator: Simulator, last4: str, code: str) -> None:
    """A card that is declined, or wants its owner, raises with Stripe's code and the payment it was about."""
    workspace = uuid7()
    customer = await client.create_customer(workspace)
    method = payments.attach_card(simulator.account, customer, last4)
    with pytest.raises(ProcessorFailed) as caught:
        await client.charge_saved(uuid7(), workspace, customer, method["id"], 1_000)
    assert (caught.value.retryable, caught.value.provider_code) == (False, code)
    fact = await client.find_payment(caught.value.payment_id or "")
    assert fact is not None
    assert (fact.received_cents, fact.failure_code) == (0, code)


async def test_signatures_are_stripe_s(sdk: stripe.StripeClient) -> None:
    """What the simulator signs, Stripe's own SDK believes; with two secrets, either."""
    body = b'{"id": "evt_1", "object": "event", "type": "charge.refunded"}'
    assert sdk.construct_event(body, deliveries.header(body, "whsec_a"), "whsec_a").id == "evt_1"
    assert sdk.construct_event(body, deliveries.header(body, "whsec_old", "whsec_new"), "whsec_new").id == "evt_1"
    with pytest.raises(stripe.SignatureVerificationError):
        sdk.construct_event(body, deliveries.header(body, "whsec_b"), "whsec_a")


async def test_events_can_be_listed(client: Stripe, simulator: Simulator) -> None:
    """What was never delivered is still told, oldest first, with the payment it is about."""
    customer = await client.create_customer(uuid7())
    session = await client.create_top_up_session(uuid7(), uuid7(), customer, 1_000, success_url="https://a.test", cancel_url="https://a.test")
    payment = payments.pay(simulator.account, session.id)
    listed = await client.events_since(datetime.now(UTC) - timedelta(minutes=1), ("charge.succeeded", "payment_intent.succeeded"))
    assert {(event.type, event.payment_id) for event in listed} == {("charge.succeeded", payment["id"]), ("payment_intent.succeeded", None)}


def _subscribe(simulator: Simulator, last4: str = "4242", **data: Any) -> Json:
    account = simulator.account
    product = billing.create_product(account, {"name": "Pro"})
    price = billing.create_price(account, {"product": product["id"], "unit_amount": 2_000, "currency": "usd", "recurring": {"interval": "month"}})
    customer = payments.create_customer(account, {})
    session = payments.create_session(
        account,
        {"mode": "subscription", "customer": customer["id"], "success_url": "x", "line_items": [{"price": price["id"], "quantity": 1}], "subscription_data": data},
    )
    return billing.pay_subscription(account, session["id"], last4)


async def test_a_subscription_renews_on_the_movable_clock(simulator: Simulator) -> None:
    """Each month an invoice is paid and the period moves on; a card that is declined later leads to past due and, after the last try, to the end."""
    subscription = _subscribe(simulator)
    end = subscription["items"]["data"][0]["current_period_end"]
    simulator.account.offset_seconds = end - simulator.account.now() + 60
    billing.tick(simulator.account)
    assert subscription["items"]["data"][0]["current_period_start"] == end
    assert [(each["total"], each["status"]) for each in simulator.account.all("invoice")] == [(2_000, "paid"), (2_000, "paid")]

    late = _subscribe(simulator, "0341")
    simulator.account.offset_seconds += 32 * billing.DAY
    billing.tick(simulator.account)
    assert late["status"] == "past_due"
    simulator.account.offset_seconds += 8 * billing.DAY
    billing.tick(simulator.account)
    assert late["status"] == "canceled"
    assert late["ended_at"] is not None


async def test_a_trial_is_free_and_then_billed(simulator: Simulator) -> None:
    """The first invoice of a trial is zero; at its end the first month is paid."""
    subscription = _subscribe(simulator, trial_period_days=7)
    assert subscription["status"] == "trialing"
    simulator.account.offset_seconds += 7 * billing.DAY + 60
    billing.tick(simulator.account)
    assert subscription["status"] == "active"
    assert [each["total"] for each in simulator.account.all("invoice")] == [2_000, 0]


async def test_the_page_says_that_it_is_a_simulator(client: Stripe, simulator: Simulator) -> None:
    """The hosted page tells that nothing is paid; its buttons pay, fail, cancel and abandon; a bank account's money arrives when four days have passed."""
    customer = await client.create_customer(uuid7())
    async with httpx2.AsyncClient(timeout=60) as http:

        async def fresh() -> Any:
            return await client.create_top_up_session(uuid7(), uuid7(), customer, 1_000, success_url="https://a.test/ok", cancel_url="https://a.test/no")

        session = await fresh()
        page = await http.get(session.url)
        assert "This is a simulator of Stripe." in page.text
        assert "$10.00" in page.text
        failed = await http.post(session.url, data={"action": "fail", "card": "4242"})
        assert "The payment failed" in failed.text
        assert (await http.post(session.url, data={"action": "cancel"})).headers["location"] == "https://a.test/no"
        paid = await http.post(session.url, data={"action": "pay", "card": "4242"})
        assert (paid.status_code, paid.headers["location"]) == (303, "https://a.test/ok")
        assert simulator.account.objects[session.id]["payment_status"] == "paid"
        assert len(list(simulator.account.all("charge", status="succeeded"))) == 1
        left = await fresh()
        await http.post(left.url, data={"action": "abandon"})
        assert simulator.account.objects[left.id]["status"] == "expired"
        slow = await fresh()
        await http.post(slow.url, data={"action": "pay", "card": "6789"})
        for days, status in ((3, "unpaid"), (4, "paid")):
            simulator.account.offset_seconds = days * billing.DAY
            billing.tick(simulator.account)
            assert simulator.account.objects[slow.id]["payment_status"] == status


async def test_the_account_is_remembered(tmp_path: Any) -> None:
    """A simulator with a file goes on where the one before stopped."""
    first = Simulator("http://a.test", None, "whsec_x", tmp_path / "stripe.json")
    customer = payments.create_customer(first.account, {"email": "a@example.com"})
    first.account.save()
    second = Simulator("http://a.test", None, "whsec_x", tmp_path / "stripe.json")
    assert second.account.get("customer", customer["id"])["email"] == "a@example.com"
