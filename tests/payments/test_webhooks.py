"""POST /webhooks/stripe on a running gateway: who is believed, and what a believed event leads to."""

import asyncio
import gzip
import json
import time
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from domain.money import events
from embedded.stripe import payments as bank
from embedded.stripe.deliveries import header
from models import database
from tests.payments.lives import CENT, Till, books
from tests.support.calling import until
from tests.support.gateway import Gateway
from tests.support.stripe import SECRET
from tests.support.world import Tenant, tenant

pytestmark = pytest.mark.anyio

PATH = "/webhooks/stripe"
REFUSED = {"error": "This is no event of this installation's account at Stripe."}


def event(**changed: Any) -> dict[str, Any]:
    """An event as Stripe tells it, about a payment that nobody knows."""
    made = {"id": f"evt_{uuid4().hex}", "object": "event", "type": "payment_intent.succeeded", "created": int(time.time()), "livemode": False}
    return {**made, "data": {"object": {"id": "pi_unknown", "object": "payment_intent"}}, **changed}


async def post(client: httpx2.AsyncClient, body: bytes, signature: str | None = None, **fields: str) -> httpx2.Response:
    """Deliver a body, signed with the endpoint's secret unless another signature is given."""
    given = {"stripe-signature": header(body, SECRET) if signature is None else signature, **fields}
    return await client.post(PATH, content=body, headers={name: value for name, value in given.items() if value})


async def inbox() -> int:
    """How many events are in the inbox."""
    count: int = await database.fetch_value("SELECT count(*) FROM stripe_event")
    return count


async def test_a_signature_by_either_secret_is_believed(counter: tuple[httpx2.AsyncClient, Till]) -> None:
    """While a secret is rolled, what the old or the new one signed is taken in, once; a repeat is answered as the first was."""
    client, _ = counter
    for secrets in ((SECRET,), ("whsec_old",), ("whsec_strange", SECRET)):
        body = json.dumps(event()).encode()
        before = await inbox()
        for _ in range(2):
            answer = await post(client, body, header(body, *secrets))
            assert (answer.status_code, answer.json()) == (200, {"received": True})
            assert answer.headers["x-request-id"]
        assert await inbox() == before + 1


SIGNED: dict[str, Any] = {
    "another secret": lambda body: header(body, "whsec_other"),
    "no secret": lambda body: header(body, ""),
    "another body": lambda body: header(body + b" ", SECRET),
    "301 seconds old": lambda body: header(body, SECRET, at=int(time.time()) - 301),
    "301 seconds ahead": lambda body: header(body, SECRET, at=int(time.time()) + 305),
    "no time": lambda body: header(body, SECRET).split(",")[1],
    "two times": lambda body: f"t=1,{header(body, SECRET)}",
    "a huge time": lambda body: header(body, SECRET).replace("t=", "t=9" + "9" * 400),
    "no number": lambda body: header(body, SECRET).replace("t=", "t=x"),
    "another scheme": lambda body: header(body, SECRET).replace("v1=", "v0="),
    "none": lambda body: "",
    "bytes": lambda body: "t=\xff,v1=\xff",
}


@pytest.mark.parametrize("name", SIGNED)
async def test_what_nobody_signed_is_refused(counter: tuple[httpx2.AsyncClient, Till], name: str) -> None:
    """A forged, a stale, a future and a malformed signature are 400, all with the same words, and nothing is taken in."""
    client, _ = counter
    body = json.dumps(event()).encode()
    before = await inbox()
    answer = await client.post(PATH, content=body, headers=[(b"stripe-signature", SIGNED[name](body).encode("latin-1"))])
    assert (answer.status_code, answer.json()) == (400, REFUSED)
    assert await inbox() == before


BODIES: dict[str, bytes] = {
    "empty": b"",
    "not JSON": b"{",
    "bad UTF-8": b'{"id": "\xff"}',
    "a lone surrogate": b'{"id": "\\ud800"}',
    "a list": b"[]",
    "a number": b"1",
    "null": b"null",
    "deep": b"[" * 5_000 + b"]" * 5_000,
    "gzip": gzip.compress(json.dumps(event()).encode()),
    "live mode": json.dumps(event(livemode=True)).encode(),
    "no mode": json.dumps(event(livemode=None)).encode(),
    "mode as a number": json.dumps(event(livemode=0)).encode(),
    "another account": json.dumps(event(account="acct_1")).encode(),
    "no id": json.dumps(event(id=None)).encode(),
    "a strange id": json.dumps(event(id="evt_\u0000")).encode(),
    "an id that is an object": json.dumps(event(id={"$ne": 1})).encode(),
    "no object": json.dumps(event(data=None)).encode(),
    "an object without id": json.dumps(event(data={"object": {}})).encode(),
    "a strange payment": json.dumps(event(data={"object": {"id": "re_1x", "payment_intent": 5}})).encode(),
    "no event": json.dumps(event(object="charge")).encode(),
    "a thin event": json.dumps(event(object="v2.core.event")).encode(),
    "a negative time": json.dumps(event(created=-1)).encode(),
    "a huge time": json.dumps(event(created=10**30)).encode(),
}


@pytest.mark.parametrize("name", BODIES)
async def test_a_signed_body_that_is_no_event_of_ours_is_refused(counter: tuple[httpx2.AsyncClient, Till], name: str) -> None:
    """Whatever is wrong with it: 400 with the same words, and nothing is taken in."""
    client, _ = counter
    before = await inbox()
    answer = await post(client, BODIES[name])
    assert (answer.status_code, answer.json()) == (400, REFUSED)
    assert await inbox() == before


async def test_a_body_is_bounded(counter: tuple[httpx2.AsyncClient, Till]) -> None:
    """More than 256 KiB are not read."""
    client, _ = counter
    assert (await post(client, json.dumps(event(padding="x" * 262_144)).encode())).status_code == 413


async def test_other_types_and_methods(counter: tuple[httpx2.AsyncClient, Till]) -> None:
    """A type that is not listened to is answered and forgotten; only POST is answered."""
    client, _ = counter
    before = await inbox()
    assert (await post(client, json.dumps(event(type="customer.created")).encode())).status_code == 200
    assert await inbox() == before
    refused = await client.get(PATH)
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")


async def test_without_a_secret_the_endpoint_refuses(plain: Gateway) -> None:
    """A gateway without payments believes nobody."""
    body = json.dumps(event()).encode()
    async with httpx2.AsyncClient(base_url=plain.url, timeout=60) as client:
        answer = await post(client, body, header(body, ""))
        assert (answer.status_code, answer.json()) == (503, {"error": "Payments are not configured on this installation."})


async def _paid(client: httpx2.AsyncClient, till: Till) -> tuple[Tenant, str]:
    customer = await tenant()
    begun = await client.post("/v1/credits/checkout", json={"amountUsd": 20}, headers=customer.bearer)
    assert begun.status_code == 200, begun.text
    return customer, begun.json()["sessionId"]


async def test_a_delivered_payment_is_credited_by_the_worker(counter: tuple[httpx2.AsyncClient, Till]) -> None:
    """From the page to the balance: paid at the simulator, delivered, signed, taken in, worked off, credited once (F21)."""
    client, till = counter
    customer, session = await _paid(client, till)
    payment = bank.pay(till.account, session)["id"]

    async def credited() -> bool:
        told = await client.get("/v1/credits/balance", headers=customer.bearer)
        return bool(told.json()["balanceMicrousd"] == 2_000 * CENT)

    await until(credited, "the credit")
    statement = (await client.get("/v1/credits/transactions", headers=customer.bearer)).json()
    assert [(row["type"], row["amountMicrousd"], row["idempotencyKey"]) for row in statement] == [("top_up", 20_000_000, f"top_up:{payment}")]
    bank.create_refund(till.account, {"payment_intent": payment, "amount": 500})
    bank.open_dispute(till.account, payment, cents=1_500)

    async def settled() -> bool:
        return (await customer.balance()).cash == 0

    await until(settled, "refund and dispute")
    found = await books(customer)
    assert found.accounts == (("cash", 0), ("disputes", 1_500 * CENT), ("fees", -15_880_000), ("payments", 880_000))
    assert found.frozen


async def test_fifty_deliveries_of_each_event_at_once(counter: tuple[httpx2.AsyncClient, Till]) -> None:
    """F21: fifty concurrent deliveries of every event of a payment to the endpoint: each is answered 200, and there is one credit."""
    client, till = counter
    customer, session = await _paid(client, till)
    count = len(till.account.events)
    bank.pay(till.account, session)
    told = [json.dumps(each).encode() for each in till.account.events[count:]]
    answers = await asyncio.gather(*(post(client, body) for body in told * 50))
    assert {answer.status_code for answer in answers} == {200}

    async def done() -> bool:
        return not await database.fetch_value("SELECT count(*) FROM stripe_event WHERE applied_at IS NULL")

    await until(done, "every event worked off")
    found = await books(customer)
    assert [row[:2] for row in found.transfers] == [("fee", 880_000), ("top_up", 20_000_000)]


async def test_a_gateway_that_was_killed_credits_what_came_meanwhile(shop: tuple[Gateway, Till], counter: tuple[httpx2.AsyncClient, Till]) -> None:
    """F22: kill -9 with a paid page behind it; the one that starts next takes the delivery that Stripe repeats, and credits once."""
    gateway, till = shop
    client, _ = counter
    customer, session = await _paid(client, till)
    gateway.kill()
    bank.pay(till.account, session)
    gateway.start()
    await gateway.ready()

    async def credited() -> bool:
        return (await customer.balance()).cash == 2_000 * CENT

    await until(credited, "the credit")
    for each in till.account.events[-4:]:
        await till.simulator.deliveries.send(each)

    async def done() -> bool:
        return not await database.fetch_value("SELECT count(*) FROM stripe_event WHERE applied_at IS NULL")

    await until(done, "every event worked off")
    assert [row[0] for row in (await books(customer)).transfers] == ["fee", "top_up"]


async def test_an_event_in_the_inbox_whose_process_died_is_worked_off(counter: tuple[httpx2.AsyncClient, Till]) -> None:
    """F22: the inbox row and its duty are one commit: with nobody nudged, a sweep finds it."""
    client, till = counter
    customer, session = await _paid(client, till)
    url, till.simulator.deliveries.url = till.simulator.deliveries.url, None
    bank.pay(till.account, session)
    till.simulator.deliveries.url = url
    fact = events.read(json.dumps(till.account.events[-1]).encode(), live=False)
    assert fact is not None
    assert await events.receive(fact)  # this process has no queue: nobody is nudged

    async def credited() -> bool:
        return (await customer.balance()).cash == 2_000 * CENT

    await until(credited, "the credit")
