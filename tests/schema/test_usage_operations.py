"""The contract's operations on usage, each as it is written there, every field of the answer checked against the events behind it."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest

from domain.apps import registry
from domain.apps.registry import NewApp
from domain.money import subscriptions, tiers
from models.enums import Scope
from schema import ids
from tests.schema.serving import Owner, Served
from tests.schema.test_operations import documents, instant, run
from tests.support.gateway import Gateway
from tests.support.world import operator_key, subscribed, tenant
from tests.usage.events import Event, write

pytestmark = pytest.mark.anyio

TOKENS: dict[str, Any] = {"input_tokens": 10, "output_tokens": 20, "cache_read_tokens": 60, "cache_write_5m_tokens": 5, "cache_write_1h_tokens": 25}
NEW_YORK = ZoneInfo("America/New_York")


@pytest.fixture
async def owner(served: Served) -> Owner:
    """A workspace with three calls of this moment: two of one model, one of them failed, and one of another model by an app."""
    made, now = await served.owner(), datetime.now(UTC)
    app = await registry.create(made.caller, NewApp(slug=f"app-{uuid4().hex[:12]}", name="Mine"))
    await write(
        made.workspace.id,
        [
            Event(at=now, charge_microusd=700, list_microusd=25_000, language="en", lines=30, characters=91, latency_ms=40, first_token_ms=8, **TOKENS),
            Event(at=now, outcome="failed", http_status=500, errors=1, language="de", latency_ms=40),
            Event(at=now, model="boreas", app_id=app.id, charge_microusd=300, list_microusd=5_000, input_tokens=7, language="en", lines=2, characters=9, latency_ms=40),
        ],
    )
    return made


def _money(**amounts: int) -> dict[str, dict[str, int]]:
    return {name: {"microUsd": amount} for name, amount in amounts.items()}


async def _credits(owner: Owner) -> None:
    """Give the owner's workspace a tier of a hundred credits a period."""
    slug, now = f"own-{uuid4().hex[:12]}", datetime.now(UTC)
    tier = {"slug": slug, "name": "Own", "price_cents": 100, "limits": [{"resource": "credits", "window": "billing_period", "limit": 100}]}
    await tiers.keep([*(await tiers.listed()), *tiers.tiers_of({"tier": [tier]})], at=now)
    await subscriptions.grant(replace(owner.caller, scopes=frozenset(Scope), at=now), owner.workspace.id, slug, "for the test", idempotency_key=slug)


async def test_s0_usage_summary(served: Served, owner: Owner) -> None:
    """S0_UsageSummary: calls, tokens of every kind, charge and errors of seven days."""
    told = await run(served, "S0_UsageSummary", owner.session)
    assert told == {"usage": {"totals": {"requests": 3, "tokens": 127, "errors": 1} | _money(cost=1_000)}}


async def test_s0_usage_breakdowns(served: Served, owner: Owner) -> None:
    """S0_UsageBreakdown and S0_UsageAppBreakdown: by model and by app, the dearest first; calls without an app are one group with null."""
    by_model = (await run(served, "S0_UsageBreakdown", owner.session))["usage"]["groups"]
    atlas, boreas = {"requests": 2, "tokens": 120} | _money(cost=700), {"requests": 1, "tokens": 7} | _money(cost=300)
    assert by_model == [{"dimensions": {"modelName": "atlas"}, "metrics": atlas}, {"dimensions": {"modelName": "boreas"}, "metrics": boreas}]
    by_app = (await run(served, "S0_UsageAppBreakdown", owner.session))["usage"]["groups"]
    slug = by_app[1]["dimensions"]["app"]["slug"]
    assert slug.startswith("app-")
    assert by_app == [{"dimensions": {"app": None}, "metrics": atlas}, {"dimensions": {"app": {"slug": slug}}, "metrics": boreas}]


async def test_s0_usage_time_series(served: Served, owner: Owner) -> None:
    """S0_UsageTimeSeries: 24 whole hours that end with the one under way, empty ones with zeros, one after the other."""
    series = (await run(served, "S0_UsageTimeSeries", owner.session))["usage"]["series"]
    starts = [instant(bucket["start"]) for bucket in series]
    assert len(starts) == 24
    assert [later - earlier for earlier, later in itertools.pairwise(starts)] == [timedelta(hours=1)] * 23
    assert starts[-1] <= datetime.now(UTC)
    nothing = {"requests": 0, "tokens": 0, "errors": 0} | _money(cost=0)
    used = [bucket["metrics"] for bucket in series if bucket["metrics"] != nothing]
    assert used == [{"requests": 3, "tokens": 127, "errors": 1} | _money(cost=1_000)]


async def test_s0_usage_model_time_series(served: Served, owner: Owner) -> None:
    """S0_UsageModelTimeSeries: seven days of each model; buckets of tokens are disjoint, and reads are counted over all input."""
    found = (await run(served, "S0_UsageModelTimeSeries", owner.session))["usage"]["seriesBy"]
    assert [line["dimensions"]["modelName"] for line in found] == ["atlas", "boreas"]
    assert [len(line["points"]) for line in found] == [7, 7]
    last = [line["points"][-1]["metrics"] for line in found]
    assert last[0] == {
        "requests": 2, "tokens": 120, "errors": 1, "inputTokens": 10, "outputTokens": 20, "cacheReadTokens": 60, "cacheWriteTokens": 30,
        **_money(cost=700),
        "cacheHitRate": 0.6,
    }
    assert (last[1]["inputTokens"], last[1]["cacheHitRate"]) == (7, 0)
    assert {line["points"][0]["metrics"]["cacheHitRate"] for line in found} == {None}
    assert found[0]["points"][0]["start"] == found[1]["points"][0]["start"]


async def test_s1_usage_summary(served: Served, owner: Owner) -> None:
    """S1_UsageSummary: thirty local days in New York, text, runs that add up, whole credits, the chart of seven days by lines, and the quota."""
    await _credits(owner)
    told = await run(served, "S1_UsageSummary", owner.session)
    usage, today = told["usage"], datetime.now(NEW_YORK).date()
    assert (usage["label"], usage["timezone"]) == ("Last 30 days", "America/New_York")
    start, end = instant(usage["start"]).astimezone(NEW_YORK), instant(usage["end"]).astimezone(NEW_YORK)
    assert (start.isoformat()[:19], end.isoformat()[:19]) == (f"{today - timedelta(days=29)}T00:00:00", f"{today + timedelta(days=1)}T00:00:00")
    runs = {"total": 3, "completed": 2, "failed": 1, "cancelled": 0, "running": 0, "pending": 0}
    assert usage["totals"] == {"characters": 100, "lines": 32, "charactersPerLine": 3.125, "runs": runs, "credits": 3}
    activity = usage["activity"]
    assert (activity["view"], activity["bucketUnit"], activity["rangeLabel"]) == ("DAILY", "DAY", "Last 7 days")
    assert (activity["total"], activity["average"]) == (32, 4.6)
    assert [bucket["label"] for bucket in activity["buckets"]] == [f"{today - timedelta(days=ago)}" for ago in range(6, -1, -1)]
    full = {"credits": 3, "characters": 100, "lines": 32, "runs": {"total": 3}}
    empty = {"credits": 0, "characters": 0, "lines": 0, "runs": {"total": 0}}
    assert [bucket["metrics"] for bucket in activity["buckets"]] == [empty] * 6 + [full]
    last = activity["buckets"][-1]
    assert activity["peak"] == {"value": 32, "bucket": {name: last[name] for name in ("label", "start", "end")}}
    assert [bucket["metrics"] for bucket in usage["series"]] == [empty] * 29 + [full]
    assert [bucket["label"] for bucket in usage["series"]][-1] == f"{today}"
    assert told["billing"] == {"quota": {"used": 0, "limit": 100, "percent": 0}}


async def test_s1_usage_by_language_and_activity(served: Served, owner: Owner) -> None:
    """S1_UsageByLanguage and S1_UsageActivity: text by language tag, and runs of twelve weeks with one decimal in their mean."""
    groups = (await run(served, "S1_UsageByLanguage", owner.session))["usage"]["groups"]
    assert {group["dimensions"]["language"]: group["metrics"] for group in groups} == {
        "en": {"characters": 100, "lines": 32},
        "de": {"characters": 0, "lines": 0},
    }
    assert (await run(served, "S1_UsageActivity", owner.session))["usage"] == {"activity": {"total": 3, "average": 0.2}}


async def test_s4_usage(served: Served) -> None:
    """S4_Usage: each of the 21 days that the operation names, in order, with tokens and calls; what lies beside them is in none."""
    owner = await served.owner()
    days = (datetime(2026, 10, 31, 23, 59, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 20, 12, tzinfo=UTC))
    await write(owner.workspace.id, [Event(at=at, input_tokens=10 * place) for place, at in enumerate(days, 1)])
    series = (await run(served, "S4_Usage", owner.session))["usage"]["series"]
    assert [bucket["label"] for bucket in series] == [f"2026-11-{day:02}" for day in range(1, 22)]
    used = {bucket["label"]: bucket["metrics"] for bucket in series if bucket["metrics"]["requests"]}
    assert used == {"2026-11-01": {"tokens": 20, "requests": 1}, "2026-11-20": {"tokens": 30, "requests": 1}}


async def test_console_dashboard(served: Served, owner: Owner) -> None:
    """Console_Dashboard: who looks, the numbers of the window and of the one before, a chart by model, what is left to spend, and the rate limit."""
    await served.credit(owner, 2_500_000)
    told = await run(served, "Console_Dashboard", owner.session)
    assert told["viewer"]["user"] == {"name": "Olive Owner"}
    assert {"INFERENCE", "USAGE_READ"} <= set(told["viewer"]["scopes"])
    assert told["viewer"]["workspaces"] == [{"id": ids.encode("Workspace", owner.workspace.id), "name": owner.workspace.name}]
    usage = told["usage"]
    assert usage["label"] == "Last 7 days"
    quantiles = {"latency": usage["totals"].pop("latency"), "timeToFirstToken": usage["totals"].pop("timeToFirstToken")}
    assert usage["totals"] == {"requests": 3, "errorRate": pytest.approx(1 / 3), "tokens": 127, "cost": {"usd": "0.001"}}
    assert quantiles == {"latency": {"p95": pytest.approx(40, rel=0.025)}, "timeToFirstToken": {"p50": pytest.approx(8, rel=0.025)}}
    nothing = {"requests": 0, "errorRate": None, "tokens": 0, "cost": {"usd": "0.00"}, "latency": None, "timeToFirstToken": None}
    assert usage["previousTotals"] == nothing
    lines = {(line["other"], line["dimensions"]["modelName"]): line["points"] for line in usage["seriesBy"]}
    assert {name: (len(points), points[-1]["partial"], points[-1]["metrics"]) for name, points in lines.items()} == {
        (False, "atlas"): (7, True, {"requests": 2, "tokens": 120} | _money(cost=700)),
        (False, "boreas"): (7, True, {"requests": 1, "tokens": 7} | _money(cost=300)),
    }
    assert told["credits"] == {"available": {"usd": "2.50"}}
    assert 0 < told["rateLimit"]["cost"] <= told["rateLimit"]["limit"]


async def test_console_keys(served: Served) -> None:
    """Console_Keys: each key with what it may spend and what it has used this month, and nothing of another's."""
    owner = await served.owner()
    key, _ = await served.key(owner, name="ci")
    await write(owner.workspace.id, [Event(at=datetime.now(UTC), key_id=key.id, charge_microusd=40), Event(at=datetime.now(UTC), charge_microusd=2)])
    (node,) = (await run(served, "Console_Keys", owner.session))["apiKeys"]["nodes"]
    assert node == {
        "id": ids.encode("ApiKey", key.id), "name": "ci", "kind": "PAY_PER_TOKEN", "prefix": key.secrets[0].prefix, "suffix": key.secrets[0].suffix, "status": "ACTIVE",
        "budgets": [],
        "usage": {"totals": {"requests": 1, "cost": {"usd": "0.00004"}}},
    }


# ── of a running gateway, whose presets, tiers and models are shipped ones ──


async def _ask(gateway: Gateway, served: Served, document: str, secret: str | None, **variables: Any) -> Any:
    headers = {} if secret is None else {"authorization": f"Bearer {secret}"}
    body = {"query": documents()[document], "variables": variables}
    answer = (await served.http.post(f"{gateway.url}/graphql", json=body, headers=headers, timeout=60)).json()
    assert "errors" not in answer, answer
    return answer["data"]


async def test_presets(gateway: Gateway, served: Served) -> None:
    """Presets: every tool's road with all its versions and their text, newest first, and what `auto` leads to; without a credential."""
    mine = await tenant()
    told = await _ask(gateway, served, "Presets", mine.secret)
    assert {preset["slug"]: preset["basePath"] for preset in told["presets"]} == {tool: f"/{tool}" for tool in ("claudecode", "cline", "cursor", "roocode")}
    for preset in told["presets"]:
        assert preset["description"]
        assert preset["current"]["name"] == preset["versions"][0]["name"]
        for version in preset["versions"]:
            assert version["name"].split("@")[0] == preset["slug"]
            assert version["preset"] == {"slug": preset["slug"]}
            assert version["text"]
            assert 0 < version["tokens"] < 2_000
            assert instant(version["createdAt"]) <= datetime.now(UTC)
    assert told["model"]["routing"] is True
    assert {model["name"] for model in told["model"]["routesTo"]} <= {"claude-opus-5-5", "claude-haiku-5-5", "gpt-5.5", "echo"}
    assert told["model"]["routesTo"]


async def test_tiers(gateway: Gateway, served: Served) -> None:
    """Tiers: what is offered, with trials and limits, and what the workspace has: its granted tier, quotas as they stand, no trial, no overage, no invoice."""
    mine = await tenant()
    slug = await subscribed(mine, [{"resource": "tokens", "window": "24h", "limit": 500}])
    told = await _ask(gateway, served, "Tiers", mine.secret)
    pro = next(tier for tier in told["tiers"] if tier["slug"] == "pro")
    assert pro["trialDays"] == 14
    assert {"resource": "TOKENS", "window": "5h", "limit": 2_000_000} in pro["limits"]
    assert slug in {tier["slug"] for tier in told["tiers"]}
    billing = told["billing"]
    (mine_,) = billing.pop("subscriptions")
    assert mine_.pop("id")
    assert mine_ == {
        "source": "GRANTED", "status": "ACTIVE", "entitled": True, "graceEndsAt": None, "cycle": "MONTHLY",
        "nextTier": None, "cancelAtPeriodEnd": False,
    }
    (quota,) = billing.pop("quotas")
    assert (quota["resource"], quota["window"], quota["limit"], quota["used"], quota["remaining"], quota["percent"]) == ("TOKENS", "24h", 500, 0, 500, 0)
    assert (quota["per"], quota["model"], quota["startedAt"], quota["resetsAt"]) == ("EACH", None, None, None) or quota["startedAt"] is None
    assert billing == {"trial": None, "overageAllowed": False, "overage": {"usd": "0.00"}, "invoices": {"nodes": []}}


async def test_grant_create(gateway: Gateway, served: Served) -> None:
    """GrantCreate as it is written: ten dollars for `auto` until 2027, an account of their own, given once however often it is asked."""
    mine = await tenant()
    boss = await operator_key(mine)
    workspace = ids.encode("Workspace", mine.workspace_id)
    first = (await _ask(gateway, served, "GrantCreate", boss, w=workspace))["grantCreate"]
    again = (await _ask(gateway, served, "GrantCreate", boss, w=workspace))["grantCreate"]
    assert first["userErrors"] == []
    assert first == again
    assert first["grant"]["id"] != first["grant"]["account"]["id"]
    shown = "{ credits { grants(first: 5) { nodes { id amount { usd } remaining { usd } status priority models { name } apps { slug } reason expiresAt } } } }"
    answer = (await served.http.post(f"{gateway.url}/graphql", json={"query": shown}, headers=mine.bearer)).json()
    (grant,) = answer["data"]["credits"]["grants"]["nodes"]
    assert grant == {
        "id": first["grant"]["id"], "amount": {"usd": "10.00"}, "remaining": {"usd": "10.00"}, "status": "ACTIVE", "priority": 10,
        "models": [{"name": "auto"}], "apps": None, "reason": "launch", "expiresAt": "2027-01-01T00:00:00.000Z",
    }
