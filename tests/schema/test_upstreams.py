"""Operator_Upstreams over a running server: what every process knows of an upstream, and its tries."""

from typing import Any

import pytest

from tests.schema.test_operations import documents
from tests.support import upstream as scripted
from tests.support.books import only_call, settled
from tests.support.calling import CLAUDE, bearer, session, until
from tests.support.gateway import Gateway
from tests.support.upstream import Upstream
from tests.support.world import operator_key, tenant

pytestmark = pytest.mark.anyio

LIMITS = {"anthropic-ratelimit-requests-limit": "50", "anthropic-ratelimit-requests-remaining": "40", "anthropic-ratelimit-requests-reset": "2099-01-01T00:00:00Z"}


async def _asked(gateway: Gateway, secret: str, document: str) -> dict[str, Any]:
    async with session() as client, client.post(f"{gateway.url}/graphql", json={"query": document}, headers=bearer(secret)) as response:
        answer: dict[str, Any] = await response.json()
    return answer


async def test_operators_see_upstreams_their_health_and_tries(gateway: Gateway, provider: Upstream) -> None:
    """A call that failed and one that was served: state, limits as the provider told them, the failure and the try with its receipt; no address."""
    mine = await tenant(credit_microusd=1_000_000)
    secret = await operator_key(mine)
    provider.script(scripted.status(500))
    async with session() as client, client.post(gateway.url + CLAUDE.path, data=CLAUDE.body(), headers=bearer(mine.secret)) as response:
        failed = response.headers["x-request-id"]
        assert response.status == 502
    await settled(await only_call(mine))
    provider.script(scripted.whole(CLAUDE.whole(), headers=LIMITS))
    async with session() as client, client.post(gateway.url + CLAUDE.path, data=CLAUDE.body(stream=False), headers=bearer(mine.secret)) as response:
        assert response.status == 200

    async def shown() -> dict[str, Any] | None:
        answer = await _asked(gateway, secret, documents()["Operator_Upstreams"])
        assert "errors" not in answer, answer
        found = {upstream["name"]: upstream for upstream in answer["data"]["operator"]["upstreams"]}
        assert set(found) == {"scripted-anthropic", "scripted-openai", "echo"}
        return found["scripted-anthropic"] if found["scripted-anthropic"]["limits"] else None

    found = await until(shown, "what the gateway knows of its upstream")
    assert found is not None
    assert (found["provider"], found["dialect"], found["weight"]) == ("scripted-anthropic", "ANTHROPIC", 1)
    assert {model["name"] for model in found["models"]} == {"claude-opus-5-5", "claude-haiku-5-5"}
    assert found["state"] in ("HEALTHY", "COOLING_DOWN")
    assert 0 < found["errorRate"] <= 1
    assert found["timeToFirstByte"]["p50"] <= found["timeToFirstByte"]["p95"]
    assert found["lastFailure"] == {"code": "upstream_500", "message": "The provider answered 500."}
    limit = found["limits"][0]
    assert (limit["resource"], limit["limit"], limit["used"], limit["remaining"]) == ("API_CALLS", 50, 10, 40)
    newest = found["attempts"]["nodes"][0]
    assert newest["receipt"]["requestId"] == failed
    assert (newest["upstream"]["name"], newest["httpStatus"], newest["upstreamCost"]["usd"]) == ("scripted-anthropic", 500, "0.00")
    assert gateway.url not in str(found)
    assert provider.url not in str(found)


async def test_nobody_else_does(gateway: Gateway) -> None:
    """A workspace's own key with every scope of a workspace sees no upstream, in the list or by its ID."""
    mine = await tenant()
    answer = await _asked(gateway, mine.secret, "{ operator { upstreams { name } } }")
    assert answer["data"]["operator"] is None
    assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"
