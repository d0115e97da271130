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
    assert [model["model"] for model in told["models"] if model["model"] != "auto"] == OFFERED  # which other tests of the suite give a price of its own
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
    shown = [model for model in answer.json()["data"]["models"] if model["price"] is not None]  # `auto` costs what it leads to
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


async def test_tiers_on_sale(client: httpx2.AsyncClient) -> None:
    """GET /pricing, S4_Pricing and Tiers' own part agree: slug, name, cents, cycle, limits over several windows, and the roads that a tier opens."""
    answer = await client.get("/pricing")
    assert answer.status_code == 200
    told = answer.json()["tiers"]
    free = next(tier for tier in told if tier["slug"] == "free")
    assert (free["name"], free["price_cents"], free["billing_cycle"]) == ("Free", 0, "monthly")
    assert {"resource": "tokens", "window": "24h", "limit": 100_000} in free["limits"]
    assert free["presets"] == ["claudecode", "cline", "cursor", "roocode"]
    assert [tier["price_cents"] for tier in told] == sorted(tier["price_cents"] for tier in told)
    shown = (await client.post("/graphql", json={"query": documents()["S4_Pricing"]})).json()["data"]["tiers"]
    assert [(tier["slug"], tier["name"], tier["cycle"].lower(), Decimal(tier["price"]["usd"]) * 100) for tier in shown] == [
        (tier["slug"], tier["name"], tier["billing_cycle"], tier["price_cents"]) for tier in told
    ]
    for ours, theirs in zip(told, shown, strict=True):
        assert [(limit["resource"].lower(), limit["window"], limit["limit"]) for limit in theirs["limits"]] == [
            (limit["resource"], limit["window"], limit["limit"]) for limit in ours["limits"]
        ]
        assert [preset["slug"] for preset in theirs["presets"]] == ours["presets"]
    node = (await client.post("/graphql", json={"query": "{ tiers { id slug trialDays productName } }"})).json()["data"]["tiers"][0]
    again = await client.post("/graphql", json={"query": "query N($id: ID!) { node(id: $id) { ... on Tier { slug } } }", "variables": {"id": node["id"]}})
    assert again.json()["data"]["node"] == {"slug": node["slug"]}


async def test_other_methods_and_credentials_change_nothing(client: httpx2.AsyncClient) -> None:
    """A bad credential is not looked at on a public path; another method is 405 in document 4's shape."""
    assert (await client.get("/pricing/tokens", headers={"Authorization": "Bearer tg_live_nonsense"})).status_code == 200
    refused = await client.post("/pricing/tokens", json={})
    assert refused.status_code == 405
    assert set(refused.json()["error"]) == {"type", "message"}
