"""The contract's operations on payments, as they are written there, against a running gateway with a simulated Stripe behind it."""

from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest

from embedded.stripe import payments as bank
from models import database
from models.enums import Scope
from tests.payments.lives import Till
from tests.schema.test_operations import documents
from tests.support.calling import until
from tests.support.gateway import Gateway
from tests.support.world import Tenant, operator_key, tenant

pytestmark = pytest.mark.anyio


async def ask(client: httpx2.AsyncClient, customer: Tenant, query: str, secret: str | None = None, **variables: Any) -> Any:
    """Run an operation, of the contract when it is a name, and return its data; fails when it has errors."""
    headers = {"Authorization": f"Bearer {secret or customer.secret}"}
    answer = await client.post("/graphql", json={"query": documents().get(query, query), "variables": variables}, headers=headers)
    told = answer.json()
    assert "errors" not in told, told
    return told["data"]


async def _bought(client: httpx2.AsyncClient, till: Till) -> tuple[Tenant, str, str]:
    customer = await tenant()
    made = (await ask(client, customer, "S4_TopUp"))["creditsCheckoutCreate"]
    payment = bank.pay(till.account, made["checkoutSession"]["sessionId"])["id"]

    async def credited() -> bool:
        return (await customer.balance()).cash == 12_500_000

    await until(credited, "the credit")
    return customer, made["topUp"]["id"], payment


async def test_s0_credits_checkout_and_s4_top_up(counter: tuple[httpx2.AsyncClient, Till]) -> None:
    """S0_CreditsCheckout and S4_TopUp: a page and a top-up in OPEN; a key makes a retry the same; bounds are told with the amount's path."""
    client, till = counter
    customer = await tenant()
    made = (await ask(client, customer, "S0_CreditsCheckout"))["creditsCheckoutCreate"]
    assert made["userErrors"] == []
    assert till.account.get("checkout.session", made["checkoutSession"]["sessionId"])["amount_total"] == 1_000
    first = (await ask(client, customer, "S4_TopUp"))["creditsCheckoutCreate"]
    assert first["topUp"]["status"] == "OPEN"
    assert (await ask(client, customer, "S4_TopUp"))["creditsCheckoutCreate"] == first
    query = "mutation($usd: Decimal!, $to: URL) { creditsCheckoutCreate(input: {amountUsd: $usd, returnUrl: $to}) { topUp { id } userErrors { code path } } }"
    for usd, code in (("4.99", "TOO_SMALL"), ("1000.01", "TOO_LARGE"), ("10.001", "INVALID"), ("10.00000001", "INVALID"), ("-10", "TOO_SMALL")):
        refused = (await ask(client, customer, query, usd=usd))["creditsCheckoutCreate"]
        assert refused == {"topUp": None, "userErrors": [{"code": code, "path": ["input", "amountUsd"]}]}
    strange = (await ask(client, customer, query, usd="10", to="https://evil.example/x"))["creditsCheckoutCreate"]
    assert strange["userErrors"] == [{"code": "INVALID", "path": ["input", "returnUrl"]}]
    assert await database.fetch_value("SELECT count(*) FROM top_up WHERE workspace_id = $1", customer.workspace_id) == 2


async def test_credits_tells_the_life_of_a_top_up(counter: tuple[httpx2.AsyncClient, Till]) -> None:
    """Credits, Ledger and TopUpRefund: a top-up with its receipt, refunds, disputes and transfers; the statement; each thing refetched by its id."""
    client, till = counter
    customer, top_up_id, payment = await _bought(client, till)
    operator = await operator_key(customer)
    given = (await ask(client, customer, "TopUpRefund", operator, id=top_up_id))["topUpRefund"]
    assert given == {"refund": {"id": given["refund"]["id"], "status": "SUCCEEDED", "topUp": {"id": top_up_id}}, "userErrors": []}
    bank.open_dispute(till.account, payment, cents=700)

    async def disputed() -> bool:
        return (await customer.balance()).cash == 500_000

    await until(disputed, "the dispute")
    credits = (await ask(client, customer, "Credits"))["credits"]
    assert (credits["balance"], credits["cash"], credits["available"]) == ({"usd": "0.50"}, {"usd": "0.50"}, {"usd": "0.50"})
    assert credits["frozenAt"] is not None
    assert credits["topUpTerms"] == {"minimumUsd": 5, "maximumUsd": 1000, "suggestedUsd": [10, 25, 50, 100]}
    (told,) = credits["topUps"]["nodes"]
    assert (told["id"], told["status"], told["amount"], told["credited"], told["automatic"]) == (top_up_id, "FULFILLED", {"usd": "12.50"}, {"usd": "12.50"}, False)
    assert told["receiptUrl"].startswith(till.simulator.url)
    assert (told["checkoutSession"], told["failure"], told["createdBy"]["name"]) == (None, None, "first")
    assert datetime.fromisoformat(told["fulfilledAt"]) <= datetime.now(UTC)
    assert sorted(each["kind"] for each in told["transfers"]) == ["DISPUTE", "FEE", "FEE", "REFUND", "TOP_UP"]
    assert told["refunds"] == [{"amount": {"usd": "5.00"}, "status": "SUCCEEDED", "reason": "asked"}]
    created = told["disputes"][0]["createdAt"]
    assert datetime.fromisoformat(created) <= datetime.now(UTC)
    assert told["disputes"] == [{"amount": {"usd": "7.00"}, "status": "OPEN", "reason": "fraudulent", "createdAt": created, "closedAt": None}]
    ledger = (await ask(client, customer, "Ledger"))["credits"]
    edges = [(edge["node"]["kind"], edge["change"]["usd"], edge["balanceAfter"]["usd"]) for edge in ledger["transactions"]["edges"]]
    assert (edges, ledger["transactions"]["totalCount"]) == ([("DISPUTE", "-7.00", "0.50"), ("TOP_UP", "12.50", "12.50")], 2)
    (cash,) = ledger["accounts"]
    assert [(edge["node"]["kind"], edge["node"]["topUp"], edge["node"]["credit"]["name"]) for edge in cash["transfers"]["edges"]] == [
        *[("DISPUTE", {"id": top_up_id}, "Disputes"), ("REFUND", {"id": top_up_id}, "Payments"), ("TOP_UP", {"id": top_up_id}, "Cash")],
    ]
    query = "{ credits { topUps(first: 20) { totalCount nodes { id transfers { kind amount { usd } topUp { id } } refunds { id } disputes { id } } } } }"
    (told,) = (await ask(client, customer, query))["credits"]["topUps"]["nodes"]
    assert sorted((each["kind"], each["amount"]["usd"]) for each in told["transfers"]) == [
        *[("DISPUTE", "7.00"), ("FEE", "0.66"), ("FEE", "15.00"), ("REFUND", "5.00"), ("TOP_UP", "12.50")],
    ]
    assert {each["topUp"]["id"] for each in told["transfers"]} == {top_up_id}
    for node in (told["id"], told["refunds"][0]["id"], told["disputes"][0]["id"]):
        assert (await ask(client, customer, "query($id: ID!) { node(id: $id) { id } }", id=node))["node"] == {"id": node}
    stranger = await tenant()
    for node in (told["id"], told["refunds"][0]["id"], told["disputes"][0]["id"]):
        assert (await ask(client, stranger, "query($id: ID!) { node(id: $id) { id } }", id=node))["node"] is None


async def test_top_up_refund_tells_what_is_wrong(counter: tuple[httpx2.AsyncClient, Till]) -> None:
    """Too much, another's, refused by Stripe: told as user errors, with Stripe's own code; without the scope it is forbidden."""
    client, till = counter
    customer, top_up_id, payment = await _bought(client, till)
    operator = await operator_key(customer)
    query = """mutation($id: ID!, $amount: MicroUsd, $key: String!) { topUpRefund(input: {id: $id, amount: $amount, reason: "x", idempotencyKey: $key}) {
        refund { id } userErrors { __typename code path ... on PaymentProviderError { providerCode retryable } } } }"""
    too_much = (await ask(client, customer, query, operator, id=top_up_id, amount=13_000_000, key="a"))["topUpRefund"]["userErrors"]
    assert too_much == [{"__typename": "OutOfRangeError", "code": "TOO_LARGE", "path": ["input", "amount"]}]
    unknown = (await ask(client, customer, query, operator, id="bm9uZQ", key="b"))["topUpRefund"]["userErrors"]
    assert unknown == [{"__typename": "NotFoundError", "code": "NOT_FOUND", "path": ["input", "id"]}]
    url, till.simulator.deliveries.url = till.simulator.deliveries.url, None
    bank.create_refund(till.account, {"payment_intent": payment})
    till.simulator.deliveries.url = url
    declined = (await ask(client, customer, query, operator, id=top_up_id, key="c"))["topUpRefund"]["userErrors"]
    assert declined == [
        {"__typename": "PaymentProviderError", "code": "PAYMENT_DECLINED", "path": None, "providerCode": "charge_already_refunded", "retryable": False}
    ]
    _, narrow = await customer.mint(scopes=frozenset({Scope.BILLING_WRITE}))
    refused = await client.post("/graphql", json={"query": query, "variables": {"id": top_up_id, "key": "d"}}, headers={"Authorization": f"Bearer {narrow}"})
    assert refused.json()["errors"][0]["extensions"]["code"] == "FORBIDDEN"


async def test_auto_top_up(counter: tuple[httpx2.AsyncClient, Till]) -> None:
    """AutoTopUp: switched on with the contract's amounts, read back with the saved card; the sweep buys when too little is left."""
    client, till = counter
    customer, _, _ = await _bought(client, till)
    assert (await ask(client, customer, "AutoTopUp"))["autoTopUpUpdate"] == {"autoTopUp": {"enabled": True}, "userErrors": []}
    query = """{ credits { autoTopUp { enabled threshold { usd } amount { usd } dailyCap { usd } cooldownSeconds paymentMethod pending { id }
        lastFailure { code message retryable } } } }"""
    told = (await ask(client, customer, query))["credits"]["autoTopUp"]
    assert told == {
        "enabled": True, "threshold": {"usd": "5.00"}, "amount": {"usd": "25.00"}, "dailyCap": {"usd": "100.00"}, "cooldownSeconds": 300,
        "paymentMethod": "visa 4242", "pending": None, "lastFailure": None,
    }
    missing = await ask(client, customer, "mutation { autoTopUpUpdate(input: {cooldownSeconds: 5}) { autoTopUp { enabled } userErrors { code path } } }")
    assert missing["autoTopUpUpdate"] == {"autoTopUp": None, "userErrors": [{"code": "TOO_SMALL", "path": ["input", "cooldownSeconds"]}]}
    await ask(client, customer, "mutation { autoTopUpUpdate(input: {threshold: 13000000}) { autoTopUp { enabled } } }")

    async def bought() -> bool:
        return (await customer.balance()).cash == 37_500_000

    await until(bought, "the automatic top-up")


async def test_payments_enabled(counter: tuple[httpx2.AsyncClient, Till], plain: Gateway) -> None:
    """`service` tells whether payments are configured; where they are not, a beginning is refused as what it is."""
    client, _ = counter
    query = "{ service { paymentsEnabled } }"
    assert (await client.post("/graphql", json={"query": query})).json()["data"] == {"service": {"paymentsEnabled": True}}
    async with httpx2.AsyncClient(base_url=plain.url, timeout=60) as other:
        assert (await other.post("/graphql", json={"query": query})).json()["data"] == {"service": {"paymentsEnabled": False}}
