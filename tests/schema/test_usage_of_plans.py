"""Usage of a subscription's keys over GraphQL: presets, receipts and the operations of document 2, against a running gateway."""

from datetime import UTC, datetime, time
from typing import Any

import httpx2
import pytest

from models.enums import ApiKeyKind
from schema import ids
from tests.schema.test_operations import documents
from tests.support.gateway import Gateway
from tests.support.world import Tenant, operator_key, subscribed, tenant
from tests.usage.events import APPS

pytestmark = pytest.mark.anyio

BODY = {"model": "echo", "max_tokens": 5, "messages": [{"role": "user", "content": "one two three"}]}


async def ask(gateway: Gateway, secret: str, document: str, **variables: Any) -> Any:
    """Ask, and return the data of an answer without errors."""
    async with httpx2.AsyncClient(base_url=gateway.url, timeout=60) as client:
        asked = await client.post("/graphql", json={"query": document, "variables": variables}, headers={"Authorization": f"Bearer {secret}"})
    answer = asked.json()
    assert "errors" not in answer, answer
    return answer["data"]


@pytest.fixture
async def mine(gateway: Gateway) -> tuple[Tenant, str]:
    """A workspace with a plan of 1000 tokens, and the id of the one call of its subscription key, on cursor's road."""
    made = await tenant()
    await subscribed(made, [{"resource": "tokens", "window": "billing_period", "limit": 1_000}])
    _, secret = await made.mint(kind=ApiKeyKind.SUBSCRIPTION)
    async with httpx2.AsyncClient(base_url=gateway.url, timeout=60) as client:
        answered = await client.post("/cursor/v1/messages", json=BODY, headers={"Authorization": f"Bearer {secret}"})
    assert answered.status_code == 200, answered.text
    return made, answered.headers["x-request-id"]


async def test_presets_and_receipts_of_records(gateway: Gateway, mine: tuple[Tenant, str]) -> None:
    """A record tells the version of the preset that the call got and its receipt; a report by preset tells the tool."""
    of, call_id = mine
    document = """{ usageRecords(first: 5, filter: { usage: { presets: ["cursor"] } }) { nodes { requestId
      preset { name preset { slug } } receipt { callId charge { usd } } } }
      usage { groups(by: [PRESET]) { dimensions { preset { slug basePath } } metrics { requests } } } }"""
    told = await ask(gateway, of.secret, document)
    (record,) = told["usageRecords"]["nodes"]
    assert record["preset"]["name"].startswith("cursor@")
    assert (record["requestId"], record["preset"]["preset"], record["receipt"]) == (call_id, {"slug": "cursor"}, {"callId": call_id, "charge": {"usd": "0.00"}})
    (group,) = told["usage"]["groups"]
    assert group == {"dimensions": {"preset": {"slug": "cursor", "basePath": "/cursor"}}, "metrics": {"requests": 1}}


async def test_the_operations_of_document_2(gateway: Gateway, mine: tuple[Tenant, str]) -> None:
    """S2_Billing, S2_Usage and S2_UsageChart as they are written: a plan, its quota in percent, usage by app, and an app's days."""
    of, _ = mine
    billing = await ask(gateway, of.secret, documents()["S2_Billing"])
    assert billing["billing"]["tier"]["limits"] == [{"resource": "TOKENS", "limit": 1_000, "window": "billing_period"}]
    assert billing["usage"]["totals"]["requests"] == 1
    usage = await ask(gateway, of.secret, documents()["S2_Usage"])
    used = usage["usage"]["totals"]["tokens"]
    async with httpx2.AsyncClient(base_url=gateway.url, timeout=60) as client:
        document_2 = (await client.get("/v1/billing/usage", headers=of.bearer)).json()
    window = [datetime.fromisoformat(instant) for instant in (usage["usage"]["start"], usage["usage"]["end"])]
    told = [datetime.fromisoformat(document_2[name]).isoformat(timespec="milliseconds") for name in ("period_start", "period_end")]
    assert [instant.isoformat(timespec="milliseconds") for instant in window] == told
    assert window[0] <= datetime.now(UTC) < window[1]
    assert window[0].time().replace(microsecond=0) != time()  # from the moment it was given, and not the month's first
    assert usage["billing"]["quota"] == {"limit": 1_000, "percent": round(used / 10, 2)}
    assert [group["metrics"]["tokens"] for group in usage["usage"]["groups"]] == [used]
    chart = await ask(gateway, of.secret, documents()["S2_UsageChart"], app=ids.encode("App", APPS[0]))
    assert chart["usage"]["label"] == "Last 30 days"
    assert [point["metrics"]["requests"] for point in chart["usage"]["series"]] == [0] * 30


async def test_the_upstream_of_a_cost(gateway: Gateway, mine: tuple[Tenant, str]) -> None:
    """What customers pay has no upstream; an operator may ask, others may not."""
    of, _ = mine
    document = """{ model(name: "echo") { price { upstream { name } } } }"""
    assert await ask(gateway, await operator_key(of), document) == {"model": {"price": {"upstream": None}}}
    async with httpx2.AsyncClient(base_url=gateway.url, timeout=60) as client:
        refused = (await client.post("/graphql", json={"query": document}, headers=of.bearer)).json()
    assert [error["extensions"]["code"] for error in refused["errors"]] == ["FORBIDDEN"]
