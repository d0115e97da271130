"""Prices for whoever asks: no credential, decimal strings, and the same as GraphQL says and the inference road charges."""

from decimal import Decimal

import httpx2
import pytest

from tests.schema.test_operations import documents

pytestmark = pytest.mark.anyio

OFFERED = ["claude-haiku-5-5", "claude-opus-5-5", "echo", "gpt-5.5"]


async def test_rates_of_tokens(client: httpx2.AsyncClient) -> None:
    """GET /pricing/tokens: dollars for a million tokens as strings, null for what is not sold, long context and service tiers as rows."""
    answer = await client.get("/pricing/tokens")
    assert answer.status_code == 200
    told = answer.json()
    assert (told["currency"], told["per"]) == ("USD", 1_000_000)
    assert [model["model"] for model in told["models"]] == OFFERED
    opus = next(model for model in told["models"] if model["model"] == "claude-opus-5-5")
    shown = {name: opus[name] for name in ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h")}
    assert shown == {"input": "4.00", "output": "20.00", "cache_read": "0.20", "cache_write_5m": "5.00", "cache_write_1h": "8.00"}
    assert {"bucket": "web_searches", "usd": "10", "per": 1000, "above_input_tokens": None, "service_tier": None, "geography": None} in opus["rows"]
    gpt = next(model for model in told["models"] if model["model"] == "gpt-5.5")
    assert gpt["cache_write_1h"] is None
    assert any(row["above_input_tokens"] == 272_000 for row in gpt["rows"])
    assert any(row["service_tier"] == "priority" for row in gpt["rows"])


async def test_graphql_tells_the_same_rates(client: httpx2.AsyncClient) -> None:
    """S4_TokenPricing, without a credential: every number and every row is the one over REST."""
    told = (await client.get("/pricing/tokens")).json()["models"]
    answer = await client.post("/graphql", json={"query": documents()["S4_TokenPricing"]})
    shown = answer.json()["data"]["models"]
    names = {
        "input": "inputUsdPerMillion",
        "output": "outputUsdPerMillion",
        "cache_read": "cacheReadUsdPerMillion",
        "cache_write_5m": "cacheWrite5mUsdPerMillion",
        "cache_write_1h": "cacheWrite1hUsdPerMillion",
    }
    assert [model["name"] for model in shown] == [model["model"] for model in told]
    for ours, theirs in zip(told, shown, strict=True):
        assert {name: theirs["price"][name_] for name, name_ in names.items()} == {name: ours[name] for name in names}
        assert [(row["bucket"].lower(), Decimal(row["usd"]), row["per"], row["aboveInputTokens"], row["serviceTier"]) for row in theirs["price"]["rows"]] == [
            (row["bucket"], Decimal(row["usd"]), row["per"], row["above_input_tokens"], row["service_tier"]) for row in ours["rows"]
        ]


async def test_other_methods_and_credentials_change_nothing(client: httpx2.AsyncClient) -> None:
    """A bad credential is not looked at on a public path; another method is 405 in document 4's shape."""
    assert (await client.get("/pricing/tokens", headers={"Authorization": "Bearer tg_live_nonsense"})).status_code == 200
    refused = await client.post("/pricing/tokens", json={})
    assert refused.status_code == 405
    assert set(refused.json()["error"]) == {"type", "message"}
