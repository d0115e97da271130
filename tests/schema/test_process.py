"""GraphQL as the gateway's own process serves it: wired, identified, and on the same books as the inference road."""

import httpx2
import pytest

from tests.conftest import Suite
from tests.support.gateway import Gateway
from tests.support.world import Tenant, broken, tenant

pytestmark = pytest.mark.anyio


@pytest.fixture
async def mine(books: Suite) -> Tenant:
    """A workspace with a dollar."""
    return await tenant(credit_microusd=1_000_000)


async def test_a_call_over_the_inference_road_is_in_every_answer(gateway: Gateway, mine: Tenant) -> None:
    """A message to `echo`, then one query: its charge is the same in usage, in the request log, in the statement and in the balance."""
    async with httpx2.AsyncClient(base_url=gateway.url, headers=mine.bearer, timeout=30) as http:
        message = {
            "model": "echo",
            "max_tokens": 64,
            "messages": [{"role": "user", "content": "twelve tokens, give or take a few, are in this"}],
        }
        answered = await http.post("/v1/messages", json=message, headers={"anthropic-version": "2023-06-01"})
        assert answered.status_code == 200, answered.text
        used = answered.json()["usage"]
        charge = used["input_tokens"] + 2 * used["output_tokens"]
        query = """{ usage { totals { requests tokens cost { microUsd } } groups(by: [MODEL]) { dimensions { modelName } metrics { cost { microUsd } } } }
          usageRecords { nodes { tokens { input output } cost { microUsd } apiKey { name } transfers { amount { microUsd } } } }
          credits { balance { microUsd } held { microUsd } transactions(first: 1) { edges { change { microUsd } balanceAfter { microUsd } } } }
          viewer { apiKey { suffix } } service { publicUrl } }"""
        response = await http.post("/graphql", json={"query": query})
        assert response.headers["x-request-id"] == response.json()["extensions"]["requestId"]
        data = response.json()["data"]
    assert data == {
        "usage": {
            "totals": {"requests": 1, "tokens": used["input_tokens"] + used["output_tokens"], "cost": {"microUsd": charge}},
            "groups": [{"dimensions": {"modelName": "echo"}, "metrics": {"cost": {"microUsd": charge}}}],
        },
        "usageRecords": {
            "nodes": [
                {
                    "tokens": {"input": used["input_tokens"], "output": used["output_tokens"]},
                    "cost": {"microUsd": charge},
                    "apiKey": {"name": "first"},
                    "transfers": [{"amount": {"microUsd": charge}}],
                }
            ]
        },
        "credits": {
            "balance": {"microUsd": 1_000_000 - charge},
            "held": {"microUsd": 0},
            "transactions": {"edges": [{"change": {"microUsd": -charge}, "balanceAfter": {"microUsd": 1_000_000 - charge}}]},
        },
        "viewer": {"apiKey": {"suffix": mine.secret[-4:]}},
        "service": {"publicUrl": gateway.url},
    }
    assert await broken(mine) == []


async def test_a_budget_set_over_graphql_refuses_the_next_call(gateway: Gateway, mine: Tenant) -> None:
    """F3: create, read back, exceed, refused: a budget of one microdollar lets no call through, and clearing it lets the next one in."""
    async with httpx2.AsyncClient(base_url=gateway.url, headers=mine.bearer, timeout=30) as http:
        made = await http.post(
            "/graphql",
            json={
                "query": """mutation { apiKeyCreate(input: { name: "tight", budgets: [{ window: "day", limit: 1 }] }) {
                  secret apiKey { id budgets { window limit { microUsd } remaining { microUsd } } } userErrors { message } } }"""
            },
        )
        payload = made.json()["data"]["apiKeyCreate"]
        assert payload["apiKey"]["budgets"] == [{"window": "day", "limit": {"microUsd": 1}, "remaining": {"microUsd": 1}}]
        message = {"model": "echo", "max_tokens": 64, "messages": [{"role": "user", "content": "hello there, how are you today"}]}
        tight = {"Authorization": f"Bearer {payload['secret']}", "anthropic-version": "2023-06-01"}
        refused = await http.post("/v1/messages", json=message, headers=tight)
        assert refused.status_code == 429, refused.text
        cleared = await http.post(
            "/graphql",
            json={
                "query": "mutation M($id: ID!) { apiKeyUpdate(input: { id: $id, budgets: [] }) { apiKey { budgets { window } } userErrors { message } } }",
                "variables": {"id": payload["apiKey"]["id"]},
            },
        )
        assert cleared.json()["data"]["apiKeyUpdate"] == {"apiKey": {"budgets": []}, "userErrors": []}
        assert (await http.post("/v1/messages", json=message, headers=tight)).status_code == 200
