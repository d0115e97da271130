"""Document 4's tier and quota state, field for field, and the road that spends it, against a running gateway."""

from datetime import UTC, datetime, timedelta

import httpx2
import pytest

from domain.money import subscriptions, tiers
from domain.money.tiers import tiers_of
from models.enums import ApiKeyKind, Scope
from models.ids import uuid7
from tests.support.world import broken, tenant

pytestmark = pytest.mark.anyio

BODY = {"model": "echo", "max_tokens": 5, "messages": [{"role": "user", "content": "one two three"}]}


async def test_without_a_subscription_there_is_no_quota(client: httpx2.AsyncClient) -> None:
    """No subscription: tier and quota are null; a caller without BILLING_READ is refused, and one without a key."""
    mine = await tenant()
    told = await client.get("/tenant/subscription", headers=mine.bearer)
    assert told.json() == {"tier": None, "status": None, "current_period_end": None, "quota": None, "windows": []}
    _, narrow = await mine.mint(scopes=frozenset({Scope.INFERENCE}))
    assert (await client.get("/tenant/subscription", headers={"Authorization": f"Bearer {narrow}"})).status_code == 403
    assert (await client.get("/tenant/subscription")).status_code == 401


async def test_a_subscription_key_spends_the_quota_that_is_told(client: httpx2.AsyncClient) -> None:
    """F3: a tier of 2 calls in 24 hours is given, read back, spent on the tool routes and exceeded: 429 with the limit's name, its reset and no retry."""
    mine = await tenant(credit_microusd=1000)
    slug = f"two-{uuid7().hex[:12]}"
    limits = [{"resource": "api_calls", "window": "24h", "limit": 2}, {"resource": "tokens", "window": "5h", "limit": 100_000}]
    one = {"slug": slug, "name": "Two", "price_cents": 100, "limits": limits, "presets": ["cursor", "claudecode"]}
    await tiers.keep([*(await tiers.listed()), *tiers_of({"tier": [one]})], at=datetime.now(UTC))
    await subscriptions.grant(mine.caller(Scope.OPERATOR), mine.workspace_id, slug, "for the test", idempotency_key="t")
    _, secret = await mine.mint(kind=ApiKeyKind.SUBSCRIPTION)
    bearer = {"Authorization": f"Bearer {secret}"}
    for path in ("/cursor/v1/messages", "/claudecode/v1/messages"):
        answered = await client.post(path, json=BODY, headers=bearer)
        assert answered.status_code == 200, answered.text
    told = (await client.get("/tenant/subscription", headers=mine.bearer)).json()
    assert (told["tier"], told["status"]) == (slug, "active")
    quota = told["quota"]
    assert (quota["window"], quota["unit"], quota["limit"], quota["used"], quota["remaining"]) == ("24h", "api_calls", 2, 2, 0)
    assert datetime.fromisoformat(quota["resets_at"]) - datetime.fromisoformat(quota["window_start"]) == timedelta(hours=24)
    assert {window["unit"] for window in told["windows"]} == {"api_calls", "tokens"}
    assert next(window for window in told["windows"] if window["unit"] == "tokens")["used"] > 0
    refused = await client.post("/cursor/v1/messages", json=BODY, headers=bearer)
    assert refused.status_code == 429
    assert refused.headers["x-should-retry"] == "false"
    assert 86_000 < int(refused.headers["retry-after"]) <= 86_401
    assert "The limit on calls of the subscription for 24h does not cover this call; it begins anew at" in refused.json()["error"]["message"]
    assert (await client.post("/cline/v1/messages", json=BODY, headers=bearer)).status_code == 403
    assert (await client.post("/v1/messages", json=BODY, headers=bearer)).status_code == 403
    assert (await mine.balance()).balance == 1000
    assert await broken(mine) == []
