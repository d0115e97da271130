"""Document 1, field for field, against a running gateway."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import httpx2
import pytest

from clients.issuers import local_session
from models.enums import ApiKeyMode
from tests.conftest import SECRET
from tests.support.world import Tenant, subscribed, tenant
from tests.usage.events import Event, write

pytestmark = pytest.mark.anyio

PATHS = ["summary", "by-language", "activity"]
CENT = 10_000


@pytest.fixture
async def mine() -> Tenant:
    """A workspace with four runs: three now, in two languages, one 20 days ago; 2.5 credits in all."""
    made = await tenant()
    now = datetime.now(UTC)
    await write(
        made.workspace_id,
        [
            Event(at=now, language="en", characters=300, lines=10, list_microusd=CENT // 2),
            Event(at=now, language="en", characters=100, lines=10, list_microusd=CENT),
            Event(at=now, outcome="cancelled", language="de", characters=50, lines=4),
            Event(at=now - timedelta(days=20), outcome="failed", errors=1, characters=6, lines=1, list_microusd=CENT),
        ],
    )
    return made


async def ask(client: httpx2.AsyncClient, of: Tenant, path: str) -> dict[str, Any]:
    """Ask, and return the data of the envelope."""
    answer = await client.get(f"/api/v1/usage/{path}", headers=of.bearer)
    assert answer.status_code == 200
    body = answer.json()
    assert set(body) == {"data", "meta"}
    assert set(body["meta"]) == {"request_id", "timestamp"}
    assert str(UUID(body["meta"]["request_id"])) == answer.headers["x-request-id"]
    assert abs(datetime.fromisoformat(body["meta"]["timestamp"]) - datetime.now(UTC)) < timedelta(minutes=5)
    data: dict[str, Any] = body["data"]
    return data


async def test_the_summary(client: httpx2.AsyncClient, mine: Tenant) -> None:
    """Every field of the document, and its arithmetic: statuses sum to the total, characters a line, the mean of a bar to one decimal."""
    data = await ask(client, mine, "summary")
    today = datetime.now(UTC).date()
    first = today - timedelta(days=29)
    activity, daily = data.pop("activity"), data.pop("daily")
    assert data == {
        "range": "30d",
        "activity_view": "daily",
        "timezone": "UTC",
        "period": {"start": f"{first}T00:00:00Z", "end": f"{today}T23:59:59Z"},
        "credits": {"used": 2, "quota": 0, "percent": 0},
        "characters": {"total": 456},
        "lines": {"total": 25, "avg_chars_per_line": 18.24},
        "runs": {"total": 4, "completed": 2, "failed": 1, "cancelled": 1, "running": 0, "pending": 0},
    }
    assert [day["date"] for day in daily] == [str(first + timedelta(days=number)) for number in range(30)]
    assert daily[-1] == {"date": str(today), "credits": 1, "characters": 450, "lines": 24, "runs": 3}
    assert daily[9] == {"date": str(today - timedelta(days=20)), "credits": 1, "characters": 6, "lines": 1, "runs": 1}
    for name, total in (("credits", 2), ("characters", 456), ("lines", 25), ("runs", 4)):
        assert sum(day[name] for day in daily) == total
    bars = activity.pop("buckets")
    last = {"label": str(today), "start": f"{today}T00:00:00Z", "end": f"{today}T23:59:59Z"}
    assert activity == {
        "view": "daily",
        "bucket_unit": "day",
        "range_label": "Last 7 days",
        "total": 24,
        "avg": 3.4,
        "peak": {"value": 24, **last},
    }
    assert len(bars) == 7
    assert bars[-1] == {**last, "credits": 1, "characters": 450, "lines": 24, "runs": 3}


@pytest.mark.parametrize(("view", "unit", "count", "label"), [("weekly", "week", 12, "Last 12 weeks"), ("monthly", "month", 12, "Last 12 months")])
@pytest.mark.parametrize("span", ["24h", "7d", "90d", "12m"])
async def test_the_chart_has_a_window_of_its_own(client: httpx2.AsyncClient, mine: Tenant, view: str, unit: str, count: int, label: str, span: str) -> None:
    """Twelve weeks from Monday or twelve months, whatever the range; bars follow each other without a gap, the last is under way."""
    chart = (await ask(client, mine, f"activity?activity_view={view}&range={span}"))["activity"]
    bars = chart["buckets"]
    assert (chart["view"], chart["bucket_unit"], chart["range_label"], len(bars), chart["total"]) == (view, unit, label, count, 25)
    starts = [datetime.fromisoformat(bar["start"]) for bar in bars]
    ends = [datetime.fromisoformat(bar["end"]) for bar in bars]
    assert [start - timedelta(seconds=1) for start in starts[1:]] == ends[:-1]
    assert starts[-1] <= datetime.now(UTC) <= ends[-1]
    assert all(start.weekday() == 0 if unit == "week" else start.day == 1 for start in starts)
    assert chart["avg"] == round(25 / 12, 1)
    assert chart["peak"]["value"] == max(bar["lines"] for bar in bars)


@pytest.mark.parametrize(("span", "days"), [("24h", 1), ("7d", 7), ("30d", 30), ("90d", 90)])
@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kathmandu", "Pacific/Chatham", "Australia/Lord_Howe"])
async def test_days_are_local_and_instants_are_utc(client: httpx2.AsyncClient, mine: Tenant, span: str, days: int, zone: str) -> None:
    """A period begins at local midnight and ends a second before the next one, both written in UTC; today is the last of its days (F26)."""
    data = await ask(client, mine, f"summary?range={span}&timezone={zone}")
    place = ZoneInfo(zone)
    start, end = (datetime.fromisoformat(data["period"][name]) for name in ("start", "end"))
    assert data["period"]["start"].endswith("Z")
    assert (start.astimezone(place).strftime("%H:%M:%S"), end.astimezone(place).strftime("%H:%M:%S")) == ("00:00:00", "23:59:59")
    assert end.astimezone(place).date() - start.astimezone(place).date() == timedelta(days=days - 1)
    assert [day["date"] for day in data["daily"]][-1] == str(end.astimezone(place).date())
    assert len(data["daily"]) == days
    assert sum(day["lines"] for day in data["daily"]) == data["lines"]["total"]


async def test_usage_by_language(client: httpx2.AsyncClient, mine: Tenant) -> None:
    """Most lines first, null without a language; the parts add up to the totals of the same window."""
    data = await ask(client, mine, "by-language")
    assert data["languages"] == [
        {"language": "en", "credits": 1, "characters": 400, "lines": 20, "runs": 2},
        {"language": "de", "credits": 0, "characters": 50, "lines": 4, "runs": 1},
        {"language": None, "credits": 1, "characters": 6, "lines": 1, "runs": 1},
    ]
    assert (data["range"], data["lines"]["total"], data["characters"]["total"], data["runs"]["total"]) == ("30d", 25, 456, 4)


async def test_a_workspace_without_usage(client: httpx2.AsyncClient) -> None:
    """Zeros, no division by them, and a peak of zero on the first bar."""
    data = await ask(client, await tenant(), "summary")
    assert data["lines"] == {"total": 0, "avg_chars_per_line": 0}
    assert data["activity"]["peak"] == {"value": 0, **{name: data["activity"]["buckets"][0][name] for name in ("label", "start", "end")}}


async def test_a_session_reads_the_workspace_that_it_names(client: httpx2.AsyncClient, mine: Tenant) -> None:
    """A session token without the header reads the person's own workspace, with it the one named; a stranger's is 403, in the envelope."""
    session = local_session(SECRET, mine.owner_email, "Olga Owner", at=datetime.now(UTC))
    headers = {"Authorization": f"Bearer {session}"}
    own = await client.get("/api/v1/usage/summary", headers=headers)
    named = await client.get("/api/v1/usage/summary", headers={**headers, "X-Workspace-Id": str(mine.workspace_id)})
    assert own.json()["data"]["runs"] == named.json()["data"]["runs"] != {}
    assert own.json()["data"]["runs"]["total"] == 4
    stranger = await client.get("/api/v1/usage/summary", headers={**headers, "X-Workspace-Id": str((await tenant()).workspace_id)})
    assert stranger.status_code == 403
    assert isinstance(stranger.json()["detail"], str)


@pytest.mark.parametrize("path", PATHS)
async def test_a_test_key_is_refused(client: httpx2.AsyncClient, path: str) -> None:
    """Live keys and sessions only."""
    mine = await tenant(mode=ApiKeyMode.TEST)
    refused = await client.get(f"/api/v1/usage/{path}", headers=mine.bearer)
    assert refused.status_code == 403
    assert set(refused.json()) == {"detail", "meta"}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("range=1d", "range"),
        ("range=", "range"),
        ("activity_view=hourly", "activity_view"),
        ("timezone=Mars/Olympus", "timezone"),
        ("timezone=", "timezone"),
        ("timezone=../../etc/passwd", "timezone"),
        ("timezone=UTC&timezone=UTC", "timezone"),
    ],
)
async def test_a_bad_parameter(client: httpx2.AsyncClient, mine: Tenant, path: str, query: str, field: str) -> None:
    """422 with document 2's list in the envelope, naming the parameter."""
    refused = await client.get(f"/api/v1/usage/{path}?{query}", headers=mine.bearer)
    assert refused.status_code == 422
    body = refused.json()
    assert set(body) == {"detail", "meta"}
    (fault,) = body["detail"]
    assert set(fault) == {"loc", "msg", "type"}
    assert fault["loc"] == ["query", field]


async def test_credits_of_a_plan(client: httpx2.AsyncClient, mine: Tenant) -> None:
    """The quota is what the plan includes for its billing period, the percent a whole number of it; both pages tell the same."""
    limits = [{"resource": "credits", "window": "24h", "limit": 5}, {"resource": "credits", "window": "billing_period", "limit": 30}]
    await subscribed(mine, limits)
    for path in ("summary", "by-language"):
        assert (await ask(client, mine, path))["credits"] == {"used": 2, "quota": 30, "percent": 6}


async def test_a_plan_without_a_limit(client: httpx2.AsyncClient, mine: Tenant) -> None:
    """Unlimited credits have no quota to be a part of: zero, as without a plan."""
    await subscribed(mine, [{"resource": "credits", "window": "billing_period", "limit": "unlimited"}])
    assert (await ask(client, mine, "summary"))["credits"] == {"used": 2, "quota": 0, "percent": 0}
