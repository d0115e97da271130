"""Document 0's usage, field for field, against a running gateway."""

import itertools
from datetime import UTC, datetime, timedelta

import httpx2
import pytest

from tests.rest.test_aaas import CHARGE_MICROUSD, TOKENS, ask_echo
from tests.support.world import Tenant, tenant
from tests.usage.events import APPS, Event, write

pytestmark = pytest.mark.anyio

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture
async def mine() -> Tenant:
    """A workspace with four calls: two of `atlas` this hour, one of `boreas` yesterday, one of no model and no app 29 days ago."""
    made = await tenant()
    now = datetime.now(UTC)
    await write(
        made.workspace_id,
        [
            Event(at=now, app_id=APPS[0], input_tokens=10, output_tokens=5, cache_read_tokens=30, cache_write_5m_tokens=6, cache_write_1h_tokens=4, charge_microusd=100),
            Event(at=now, app_id=APPS[0], outcome="failed", errors=1),
            Event(at=now - DAY, model="boreas", input_tokens=7, charge_microusd=2_000),
            Event(at=now - 29 * DAY, model=None, output_tokens=3, charge_microusd=1),
            Event(at=now, mode="test", input_tokens=999, charge_microusd=0),
        ],
    )
    return made


async def ask(client: httpx2.AsyncClient, of: Tenant, path: str) -> list[dict[str, object]]:
    """Ask for a list."""
    answer = await client.get(f"/v1/usage/{path}", headers=of.bearer)
    assert answer.status_code == 200
    told: list[dict[str, object]] = answer.json()
    return told


async def test_the_breakdown_by_model(client: httpx2.AsyncClient, mine: Tenant) -> None:
    """Dearest first, test calls in none of it, and without a model the name is empty."""
    week = [
        {"model": "boreas", "requests": 1, "tokens": 7, "actualCostMicrousd": 2_000},
        {"model": "atlas", "requests": 2, "tokens": 55, "actualCostMicrousd": 100},
    ]
    assert await ask(client, mine, "breakdown") == await ask(client, mine, "breakdown?range=7d") == week
    assert await ask(client, mine, "breakdown?range=30d") == [*week, {"model": "", "requests": 1, "tokens": 3, "actualCostMicrousd": 1}]


async def test_the_breakdown_by_app(client: httpx2.AsyncClient, mine: Tenant) -> None:
    """Usage without an app is one row with null."""
    assert await ask(client, mine, "app-breakdown?range=30d") == [
        {"appId": None, "requests": 2, "tokens": 10, "actualCostMicrousd": 2_001},
        {"appId": str(APPS[0]), "requests": 2, "tokens": 55, "actualCostMicrousd": 100},
    ]


@pytest.mark.parametrize(("query", "count", "width"), [("", 7, DAY), ("?range=7d", 7, DAY), ("?range=30d", 30, DAY), ("?range=24h", 24, HOUR)])
async def test_the_time_series(client: httpx2.AsyncClient, mine: Tenant, query: str, count: int, width: timedelta) -> None:
    """Hourly for 24h, daily else, without gaps, zeros included, oldest first; the buckets add up to the summary."""
    series = await ask(client, mine, f"time-series{query}")
    assert all(set(bucket) == {"timeBucket", "requests", "tokens", "actualCostMicrousd", "errors"} for bucket in series)
    starts = [datetime.fromisoformat(str(bucket["timeBucket"])) for bucket in series]
    assert [later - earlier for earlier, later in itertools.pairwise(starts)] == [width] * (count - 1)
    assert starts[-1] <= datetime.now(UTC)
    summary = (await client.get(f"/v1/usage/summary{query}", headers=mine.bearer)).json()
    assert {name: sum(int(str(bucket[name])) for bucket in series) for name in summary} == summary


async def test_the_time_series_by_model(client: httpx2.AsyncClient, mine: Tenant) -> None:
    """Every model in every bucket; the four kinds of tokens are disjoint, and the hit rate is reads over all input, 0 without input."""
    series = await ask(client, mine, "model-time-series")
    assert len(series) == 7 * 2
    assert [bucket["timeBucket"] for bucket in series] == sorted(str(bucket["timeBucket"]) for bucket in series)
    today = {str(bucket["model"]): bucket for bucket in series[-2:]}
    assert {name: value for name, value in today["atlas"].items() if name != "timeBucket"} == {
        "model": "atlas",
        "requests": 2,
        "tokens": 55,
        "actualCostMicrousd": 100,
        "errors": 1,
        "inputTokens": 10,
        "outputTokens": 5,
        "cacheReadTokens": 30,
        "cacheWriteTokens": 10,
        "cacheHitRate": 0.6,
    }
    assert (today["boreas"]["requests"], today["boreas"]["cacheHitRate"]) == (0, 0)


async def test_nothing_used(client: httpx2.AsyncClient) -> None:
    """A new workspace has no models and no apps, and series of zeros."""
    fresh = await tenant()
    assert await ask(client, fresh, "breakdown") == await ask(client, fresh, "app-breakdown") == await ask(client, fresh, "model-time-series") == []
    assert [bucket["requests"] for bucket in await ask(client, fresh, "time-series?range=24h")] == [0] * 24


async def test_a_call_stands_in_all_of_them_at_once(client: httpx2.AsyncClient) -> None:
    """What was answered a moment ago is in every view, to the microdollar."""
    mine = await tenant(credit_microusd=1_000_000)
    await ask_echo(client, mine)
    used = {"requests": 1, "tokens": 2 * TOKENS, "actualCostMicrousd": CHARGE_MICROUSD}
    assert await ask(client, mine, "breakdown") == [{"model": "echo", **used}]
    assert await ask(client, mine, "app-breakdown") == [{"appId": None, **used}]
    assert {name: value for name, value in (await ask(client, mine, "time-series"))[-1].items() if name in used} == used
    assert {name: value for name, value in (await ask(client, mine, "model-time-series?range=24h"))[-1].items() if name in used} == used


@pytest.mark.parametrize("path", ["breakdown", "app-breakdown", "time-series", "model-time-series"])
@pytest.mark.parametrize("query", ["range=1h", "range=", "range=90d", "range=7d&range=7d", "range=%00"])
async def test_a_bad_range(client: httpx2.AsyncClient, path: str, query: str) -> None:
    """A range that the document does not list is refused in its shape."""
    refused = await client.get(f"/v1/usage/{path}?{query}", headers=(await tenant()).bearer)
    assert refused.status_code == 400
    assert set(refused.json()) == {"error"}
