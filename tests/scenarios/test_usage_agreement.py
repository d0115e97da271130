"""One workspace asked through every door: the five documents and GraphQL say the same, to the last microdollar."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from domain.usage import rollups
from tests.support.gateway import Gateway
from tests.support.world import Tenant, operator_key, tenant
from tests.usage.events import Event, write

pytestmark = pytest.mark.anyio

ZONES = ("UTC", "America/New_York", "Asia/Kathmandu", "Pacific/Chatham", "Australia/Lord_Howe")
GRAPHQL = """query Q($zone: TimeZone!) {
  usage(range: { last: LAST_30_DAYS }) { totals { requests tokens errors cost { microUsd } credits characters lines runs { total } uniqueEndUsers }
    groups(by: [MODEL], first: 500) { metrics { cost { microUsd } requests tokens } } series(granularity: DAY) { metrics { cost { microUsd } requests tokens } } }
  local: usage(range: { last: LAST_30_DAYS }, timezone: $zone) { totals { credits characters lines runs { total } }
    series(granularity: DAY) { metrics { credits characters lines runs { total } } } }
  usageRecords(first: 100, filter: { modes: [LIVE], statuses: [ACTIVE, REFUNDED] }) { totalCount nodes { cost { microUsd } } } }"""


async def ask(client: httpx2.AsyncClient, of: Tenant, path: str) -> Any:
    """The body of a good answer."""
    answer = await client.get(path, headers=of.bearer)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def agree(client: httpx2.AsyncClient, of: Tenant, zone: str) -> tuple[int, int, int]:
    """Raise unless every door tells the same of the last 30 days; return requests, tokens and microdollars. All calls are of this month's 30 days."""
    body = {"query": GRAPHQL, "variables": {"zone": zone}}
    answers = await asyncio.gather(
        ask(client, of, "/v1/usage/summary?range=30d"),
        ask(client, of, "/v1/usage/breakdown?range=30d"),
        ask(client, of, "/v1/usage/app-breakdown?range=30d"),
        ask(client, of, "/v1/usage/time-series?range=30d"),
        ask(client, of, "/v1/usage/model-time-series?range=30d"),
        ask(client, of, f"/api/v1/usage/summary?timezone={zone}"),
        ask(client, of, f"/api/v1/usage/by-language?timezone={zone}"),
        ask(client, of, "/v1/billing/usage/chart?days=30"),
        ask(client, of, "/usage?limit=200"),
        ask(client, of, "/tenant/usage"),
        client.post("/graphql", json=body, headers=of.bearer),
    )
    summary, models, apps, series, model_series, workspace, languages, chart, records, days, graphql = answers
    said = graphql.json()
    assert "errors" not in said, said
    usage, local, log = said["data"]["usage"], said["data"]["local"], said["data"]["usageRecords"]
    totals = usage["totals"]
    three = (totals["requests"], totals["tokens"], totals["cost"]["microUsd"])
    assert (summary["requests"], summary["tokens"], summary["actualCostMicrousd"], summary["errors"]) == (*three, totals["errors"])
    for rows in (models, apps, series, model_series):
        assert tuple(sum(row[name] for row in rows) for name in ("requests", "tokens", "actualCostMicrousd")) == three
    for name in ("groups", "series"):
        assert tuple(sum(row["metrics"][part] for row in usage[name]) for part in ("requests", "tokens")) == three[:2]
        assert sum(row["metrics"]["cost"]["microUsd"] for row in usage[name]) == three[2]
    assert tuple(sum(point[name] for point in chart["points"]) for name in ("requests", "tokens")) == three[:2]
    assert sum(Decimal(point["cost_usd"]) for point in chart["points"]) * 1_000_000 == three[2]
    assert (days["total"]["requests"], days["total"]["tokens"], days["total"]["cost_micros"]) == three
    assert tuple(sum(day[name] for day in days["days"]) for name in ("requests", "tokens", "cost_micros")) == three
    assert sum(round(record["cost_usd"] * 1_000_000) for record in records) == three[2]
    assert sum(node["cost"]["microUsd"] for node in log["nodes"]) == three[2]
    data = workspace["data"]
    four = (data["credits"]["used"], data["characters"]["total"], data["lines"]["total"], data["runs"]["total"])
    assert four == tuple(sum(day[name] for day in data["daily"]) for name in ("credits", "characters", "lines", "runs"))
    assert four == (local["totals"]["credits"], local["totals"]["characters"], local["totals"]["lines"], local["totals"]["runs"]["total"])
    assert four[1:] == tuple(sum(part[name] for part in languages["data"]["languages"]) for name in ("characters", "lines", "runs"))
    assert [day["credits"] for day in data["daily"]] == [bucket["metrics"]["credits"] for bucket in local["series"]]
    return three


calls: st.SearchStrategy[list[dict[str, Any]]] = st.lists(
    st.fixed_dictionaries(
        {
            "minutes": st.integers(1, 27 * 24 * 60),
            "model": st.sampled_from(["atlas", "boreas", None]),
            "language": st.sampled_from(["en", "de", None]),
            "mode": st.sampled_from(["live", "live", "live", "test"]),
            "outcome": st.sampled_from(["succeeded", "failed", "cancelled"]),
            "input_tokens": st.integers(0, 10_000),
            "cache_read_tokens": st.integers(0, 10_000),
            "characters": st.integers(0, 1_000),
            "lines": st.integers(0, 100),
            "list_microusd": st.integers(0, 50_000),
            "charge_microusd": st.integers(0, 50_000),
            "end_user": st.sampled_from(["ann", "bob", None]),
        }
    ),
    min_size=1,
    max_size=40,
)


@given(calls, st.sampled_from(ZONES), st.integers(0, 40))
@settings(max_examples=12, deadline=None, phases=(Phase.explicit, Phase.generate), suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_every_door_says_the_same(gateway: Gateway, written: list[dict[str, Any]], zone: str, folded: int) -> None:
    """F27, F26: records, cells and reports are three reads of one truth, whatever was called, folded or not, in any zone."""
    mine = await tenant()
    now = datetime.now(UTC)
    events = [Event(**{name: value for name, value in call.items() if name != "minutes"}, at=now - timedelta(minutes=call["minutes"])) for call in written]
    await write(mine.workspace_id, [replace(event, charge_microusd=0) for event in events if event.mode == "test"])
    live = [event for event in events if event.mode == "live"]
    await write(mine.workspace_id, live)
    async with httpx2.AsyncClient(base_url=gateway.url, timeout=60) as client:
        told = await agree(client, mine, zone)
        assert told == (len(live), sum(event.input_tokens + event.cache_read_tokens for event in live), sum(event.charge_microusd for event in live))
        await rollups.fold(folded or 1)
        assert await agree(client, mine, zone) == told


async def test_they_agree_through_calls_corrections_and_deletions(gateway: Gateway) -> None:
    """F27: real calls, records by hand, corrections and deletions, each seen at once by every door, and by the balance."""
    mine = await tenant(credit_microusd=1_000_000)
    operator = {"Authorization": f"Bearer {await operator_key(mine)}"}
    async with httpx2.AsyncClient(base_url=gateway.url, timeout=60) as client:
        for _ in range(3):
            body = {"model": "echo", "messages": [{"role": "user", "content": "Say this back to me."}]}
            assert (await client.post("/v1/chat/completions", json=body, headers=mine.bearer)).status_code == 200
        logged = {"api_name": "tts", "endpoint": "/tts", "units_used": 3, "cost_usd": 0.25, "api_key_used": "pk_live_abc123"}
        ids = [(await client.post("/usage", json=logged, headers=mine.bearer)).json()["usage_id"] for _ in range(2)]
        spent = (await agree(client, mine, "Asia/Kathmandu"))[2]
        assert (await mine.balance()).balance == 1_000_000 - spent
        await client.put(f"/usage/{ids[0]}", json={"cost_usd": 0.1}, headers=operator)
        assert (await agree(client, mine, "Pacific/Chatham"))[2] == spent - 150_000
        await client.delete(f"/usage/{ids[1]}", headers=operator)
        requests, _, charged = await agree(client, mine, "UTC")
        assert (requests, charged) == (4, spent - 400_000)
        assert (await mine.balance()).balance == 1_000_000 - charged
