"""Document 4's usage by day, against a running gateway."""

from datetime import UTC, datetime, timedelta

import httpx2
import pytest

from tests.support.world import Tenant, tenant
from tests.usage.events import Event, write

pytestmark = pytest.mark.anyio


@pytest.fixture
async def mine() -> Tenant:
    """A workspace with a call on the last leap day and one on the day after, and one now."""
    made = await tenant()
    await write(
        made.workspace_id,
        [
            Event(at=datetime(2024, 2, 29, 23, 59, 59, 999999, UTC), input_tokens=3, output_tokens=4, cache_read_tokens=5, charge_microusd=6),
            Event(at=datetime(2024, 3, 1, tzinfo=UTC), output_tokens=1, charge_microusd=1),
            Event(at=datetime.now(UTC), input_tokens=2),
        ],
    )
    return made


async def test_usage_by_day(client: httpx2.AsyncClient, mine: Tenant) -> None:
    """Both days included, also one that a year has only sometimes; the days add up to the total."""
    told = (await client.get("/tenant/usage?from=2024-02-28&to=2024-02-29", headers=mine.bearer)).json()
    nothing = {"requests": 0, "tokens": 0, "input_tokens": 0, "output_tokens": 0, "cost_micros": 0}
    some = {"requests": 1, "tokens": 12, "input_tokens": 8, "output_tokens": 4, "cost_micros": 6}
    assert told == {
        "from": "2024-02-28",
        "to": "2024-02-29",
        "days": [{"date": "2024-02-28", **nothing}, {"date": "2024-02-29", **some}],
        "total": some,
    }


async def test_the_last_thirty_days(client: httpx2.AsyncClient, mine: Tenant) -> None:
    """Where nothing is said; with `to` alone, the 30 days up to it."""
    today = datetime.now(UTC).date()
    told = (await client.get("/tenant/usage", headers=mine.bearer)).json()
    assert (told["from"], told["to"], len(told["days"]), told["total"]["tokens"]) == (str(today - timedelta(days=29)), str(today), 30, 2)
    told = (await client.get("/tenant/usage?to=2024-03-01", headers=mine.bearer)).json()
    assert (told["from"], told["to"], len(told["days"]), told["total"]["requests"]) == ("2024-02-01", "2024-03-01", 30, 2)
    told = (await client.get("/tenant/usage?from=2024-01-01&to=2024-12-31", headers=mine.bearer)).json()
    assert len(told["days"]) == 366


@pytest.mark.parametrize(
    "query",
    [
        "from=2024-02-30",
        "from=yesterday",
        "to=2024-2-1",
        "from=20240201",
        "from=2024-03-02&to=2024-03-01",
        "from=2024-01-01&to=2025-01-01",
        "from=&to=",
        "to=0001-01-01",
        "to=9999-12-31",
    ],
)
async def test_bad_days(client: httpx2.AsyncClient, mine: Tenant, query: str) -> None:
    """A day that is none, days in the wrong order, and more than 366 of them: 400 in the document's shape."""
    refused = await client.get(f"/tenant/usage?{query}", headers=mine.bearer)
    assert refused.status_code == 400
    assert set(refused.json()) == {"error"}
    assert set(refused.json()["error"]) == {"type", "message"}
