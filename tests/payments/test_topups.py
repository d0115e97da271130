"""Beginning a top-up over REST: POST /v1/credits/checkout and POST /tenant/billing/topup."""


import httpx2
import pytest

from models import database
from models.enums import Scope
from tests.payments.lives import Till
from tests.support.gateway import Gateway
from tests.support.world import Tenant, tenant

pytestmark = pytest.mark.anyio

CHECKOUT, TOPUP = "/v1/credits/checkout", "/tenant/billing/topup"


async def rows(customer: Tenant) -> int:
    """How many top-ups a workspace has."""
    count: int = await database.fetch_value("SELECT count(*) FROM top_up WHERE workspace_id = $1", customer.workspace_id)
    return count


async def test_a_checkout_in_whole_dollars(counter: tuple[httpx2.AsyncClient, Till]) -> None:
    """Document 0: `{amountUsd}` gives `{url, sessionId}` of a session over that amount, whose key at Stripe is the row's id, with the customer's."""
    client, till = counter
    customer = await tenant()
    answer = await client.post(CHECKOUT, json={"amountUsd": 10}, headers=customer.bearer)
    assert answer.status_code == 200
    assert set(answer.json()) == {"url", "sessionId"}
    session = till.account.get("checkout.session", answer.json()["sessionId"])
    assert (session["amount_total"], session["currency"], session["url"]) == (1_000, "usd", answer.json()["url"])
    row = await database.fetch_row("SELECT * FROM top_up WHERE workspace_id = $1", customer.workspace_id)
    assert row is not None
    assert (row["status"], row["amount_microusd"], row["session_id"]) == ("open", 10_000_000, session["id"])
    assert session["client_reference_id"] == str(row["id"])
    assert f"top_up:{row['id']}:{session['customer']}" in till.account.replies


@pytest.mark.parametrize(("asked", "cents"), [(5, 500), (1000, 100_000), (12.5, 1_250), (999.99, 99_999), (5.00, 500), (1e1, 1_000)])
async def test_a_top_up_with_cents(counter: tuple[httpx2.AsyncClient, Till], asked: float, cents: int) -> None:
    """Document 4: `{amount_usd}`, $5 to $1,000 inclusive with at most two decimals, gives `{url, session_id}`."""
    client, till = counter
    customer = await tenant()
    answer = await client.post(TOPUP, json={"amount_usd": asked}, headers=customer.bearer)
    assert answer.status_code == 200
    assert set(answer.json()) == {"url", "session_id"}
    assert till.account.get("checkout.session", answer.json()["session_id"])["amount_total"] == cents


WRONG: list[bytes] = [
    *(b"{}", b"[]", b"", b"{", b"null", b'{"%s": null}', b'{"%s": "10"}', b'{"%s": true}', b'{"%s": [10]}', b'{"%s": {"usd": 10}}'),
    *(b'{"%s": 0}', b'{"%s": -10}', b'{"%s": 4}', b'{"%s": 1001}', b'{"%s": 10000000000000000000000}', b'{"%s": 1e400}', b'{"%s": NaN}', b'{"%s": Infinity}'),
]


@pytest.mark.parametrize("body", [*WRONG, b'{"%s": 10.5}', b'{"%s": 1e1}'])
async def test_a_bad_amount_of_document_0(counter: tuple[httpx2.AsyncClient, Till], body: bytes) -> None:
    """Out of range, fractional, of another type, absent: 400 in the document's shape, no row, and Stripe hears nothing."""
    client, till = counter
    customer = await tenant()
    pages = len(list(till.account.all("checkout.session")))
    answer = await client.post(CHECKOUT, content=body.replace(b"%s", b"amountUsd"), headers={**customer.bearer, "content-type": "application/json"})
    assert answer.status_code == 400
    assert set(answer.json()) == {"error"}
    assert (await rows(customer), len(list(till.account.all("checkout.session")))) == (0, pages)


@pytest.mark.parametrize("body", [*WRONG, b'{"%s": 4.99}', b'{"%s": 1000.01}', b'{"%s": 10.001}', b'{"%s": 10.0000001}', b'{"%s": 1e-7}'])
async def test_a_bad_amount_of_document_4(counter: tuple[httpx2.AsyncClient, Till], body: bytes) -> None:
    """The same in document 4's shape; a third decimal is refused, not rounded."""
    client, till = counter
    customer = await tenant()
    pages = len(list(till.account.all("checkout.session")))
    answer = await client.post(TOPUP, content=body.replace(b"%s", b"amount_usd"), headers={**customer.bearer, "content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert (await rows(customer), len(list(till.account.all("checkout.session")))) == (0, pages)


async def test_an_idempotency_key(counter: tuple[httpx2.AsyncClient, Till]) -> None:
    """The same key and body give the same session over either document's route; another body is 422, and nothing is made."""
    client, _ = counter
    customer = await tenant()
    fields = {**customer.bearer, "Idempotency-Key": "once"}
    first = await client.post(CHECKOUT, json={"amountUsd": 10}, headers=fields)
    again = await client.post(CHECKOUT, json={"amountUsd": 10}, headers=fields)
    assert (first.status_code, again.json()) == (200, first.json())
    other = await client.post(TOPUP, json={"amount_usd": 10}, headers=fields)
    assert other.json() == {"url": first.json()["url"], "session_id": first.json()["sessionId"]}
    refused = await client.post(CHECKOUT, json={"amountUsd": 11}, headers=fields)
    assert (refused.status_code, set(refused.json())) == (422, {"error"})
    assert await rows(customer) == 1


async def test_who_may(counter: tuple[httpx2.AsyncClient, Till]) -> None:
    """Without a credential 401; a key that may not spend money gets 403; no row."""
    client, _ = counter
    customer = await tenant()
    _, secret = await customer.mint(scopes=frozenset({Scope.INFERENCE, Scope.BILLING_READ}))
    for path, body in ((CHECKOUT, {"amountUsd": 10}), (TOPUP, {"amount_usd": 10})):
        assert (await client.post(path, json=body)).status_code == 401
        assert (await client.post(path, json=body, headers={"Authorization": f"Bearer {secret}"})).status_code == 403
    assert await rows(customer) == 0


@pytest.mark.parametrize(("path", "body"), [(CHECKOUT, {"amountUsd": 10}), (TOPUP, {"amount_usd": 10})])
async def test_without_stripe(plain: Gateway, path: str, body: dict[str, int]) -> None:
    """An installation without payments says so, and writes nothing."""
    customer = await tenant()
    async with httpx2.AsyncClient(base_url=plain.url, timeout=60) as client:
        answer = await client.post(path, json=body, headers=customer.bearer)
        assert answer.status_code == 503
        assert "Payments are not configured" in answer.text
    assert await rows(customer) == 0
