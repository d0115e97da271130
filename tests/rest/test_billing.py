"""Document 2's usage, field for field, against a running gateway."""

from datetime import UTC, datetime, timedelta

import httpx2
import pytest

from models.enums import ApiKeyKind
from tests.support.world import Tenant, subscribed, tenant
from tests.usage.events import APPS, Event, write

pytestmark = pytest.mark.anyio


@pytest.fixture
async def mine() -> Tenant:
    """A workspace with three calls now, one of them without an app, and one before this month."""
    made = await tenant()
    now = datetime.now(UTC)
    await write(
        made.workspace_id,
        [
            Event(at=now, app_id=APPS[0], end_user="ann", input_tokens=10, output_tokens=1, charge_microusd=1_500_000),
            Event(at=now, app_id=APPS[0], end_user="bob", input_tokens=20, charge_microusd=4_300),
            Event(at=now, end_user="ann", input_tokens=5, charge_microusd=1),
            Event(at=now.replace(day=1, hour=0, minute=0, second=0, microsecond=0) - timedelta(seconds=1), end_user="eve", charge_microusd=7),
        ],
    )
    return made


async def test_usage_of_the_period(client: httpx2.AsyncClient, mine: Tenant) -> None:
    """The calendar month without a subscription: dollars as exact decimal text, people counted once, instances that add up."""
    told = (await client.get("/v1/billing/usage", headers=mine.bearer)).json()
    start = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    end = (start + timedelta(days=31)).replace(day=1)
    assert told == {
        "by_instance": [
            {
                "instance_id": str(APPS[0]),
                "name": str(APPS[0]),
                "requests": 2,
                "tokens": 31,
                "cost_usd": "1.5043",
                "platform_cost_usd": "1.5043",
                "unique_end_users": 2,
            },
            {"instance_id": None, "name": None, "requests": 1, "tokens": 5, "cost_usd": "0.000001", "platform_cost_usd": "0.000001", "unique_end_users": 1},
        ],
        "period_start": f"{start:%Y-%m-%d}T00:00:00Z",
        "period_end": f"{end:%Y-%m-%d}T00:00:00Z",
        "platform_cost_usd": "1.504301",
        "token_allowance_monthly": 0,
        "token_usage_pct": 0,
        "total_cost_usd": "1.504301",
        "total_requests": 3,
        "total_tokens": 36,
        "unique_end_users": 2,
    }


@pytest.mark.parametrize(("query", "days"), [("", 30), ("?days=1", 1), ("?days=366", 366), (f"?days=7&instance_id={APPS[0]}", 7)])
async def test_the_chart(client: httpx2.AsyncClient, mine: Tenant, query: str, days: int) -> None:
    """A point for each day, today the last; of one instance where it is named."""
    told = (await client.get(f"/v1/billing/usage/chart{query}", headers=mine.bearer)).json()
    today = datetime.now(UTC).date()
    assert set(told) == {"period_label", "points"}
    assert [point["date"] for point in told["points"]] == [str(today - timedelta(days=back)) for back in reversed(range(days))]
    cost, requests, tokens = ("1.5043", 2, 31) if "instance_id" in query else ("1.504301", 3, 36)
    assert told["points"][-1] == {"cost_usd": cost, "date": str(today), "requests": requests, "tokens": tokens}
    assert told["period_label"] == ("Today" if days == 1 else f"Last {days} days")


async def test_an_instance_that_is_none(client: httpx2.AsyncClient, mine: Tenant) -> None:
    """404 in the document's shape."""
    refused = await client.get("/v1/billing/usage/chart?instance_id=nonsense", headers=mine.bearer)
    assert (refused.status_code, refused.json()) == (404, {"detail": "There is no such instance."})


@pytest.mark.parametrize("days", ["0", "367", "-1", "", "ten", "5.0", "1&days=2", "%00", "9" * 20])
async def test_a_bad_number_of_days(client: httpx2.AsyncClient, mine: Tenant, days: str) -> None:
    """422 with a list that names the parameter."""
    refused = await client.get(f"/v1/billing/usage/chart?days={days}", headers=mine.bearer)
    assert refused.status_code == 422
    (fault,) = refused.json()["detail"]
    assert set(fault) == {"loc", "msg", "type"}
    assert fault["loc"] == ["query", "days"]


async def test_usage_of_a_plan(client: httpx2.AsyncClient, mine: Tenant) -> None:
    """With a subscription the period is its own, on every page, and the percent is what its keys have spent of the plan's tokens."""
    await subscribed(mine, [{"resource": "tokens", "window": "billing_period", "limit": 1_000}, {"resource": "tokens", "window": "5h", "limit": 900}])
    before = (await client.get("/v1/billing/usage", headers=mine.bearer)).json()
    plan = (await client.get("/v1/billing", headers=mine.bearer)).json()
    assert (before["token_allowance_monthly"], before["token_usage_pct"]) == (1_000, 0)
    assert (before["period_start"], before["period_end"]) == (plan["plan"]["current_period_start"], plan["plan"]["current_period_end"])
    assert before["total_requests"] == plan["usage"]["total_requests"] == 0, "what was used before the subscription began is of no period of it"
    _, secret = await mine.mint(kind=ApiKeyKind.SUBSCRIPTION)
    body = {"model": "echo", "max_tokens": 5, "messages": [{"role": "user", "content": "one two three"}]}
    answered = await client.post("/cursor/v1/messages", json=body, headers={"Authorization": f"Bearer {secret}"})
    assert answered.status_code == 200, answered.text
    after = (await client.get("/v1/billing/usage", headers=mine.bearer)).json()
    assert after["total_requests"] == 1
    assert after["token_usage_pct"] == round(after["total_tokens"] / 10, 2) > 0
