"""Numbers for Prometheus: shown to who has the token, with labels that no client can make (F31)."""

from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest

from domain.money.books import Check, Report, keep
from tests.conftest import Suite
from tests.support.gateway import Gateway
from tests.support.world import tenant

pytestmark = pytest.mark.anyio

TOKEN = "scrape-" + "m" * 20


async def test_without_a_token_there_are_none(client: httpx2.AsyncClient) -> None:
    """Where no token is set, the path does not exist."""
    assert (await client.get("/metrics")).status_code == 404


async def test_requests_are_counted_by_pattern(books: Suite, tmp_path: Path) -> None:
    """Each request is counted once, under the path's pattern and its status, and only the token opens the numbers; what the nightly look at the books
    found is among them, whichever process looked."""
    mine = await tenant()
    looked = datetime(2026, 10, 1, 3, tzinfo=UTC)
    await keep(Report(looked, (Check("a_moon_is_square", "Nowhere.", 3, 7, ()), Check("a_moon_is_round", "Always.", 0, 0, ()))))
    gateway = Gateway({**books.environment, "TALLYGATE_METRICS_TOKEN": TOKEN, "TALLYGATE_WORKER": "apart"}, tmp_path / "gateway.log")
    gateway.start()
    try:
        await gateway.ready()
        async with httpx2.AsyncClient(base_url=gateway.url, timeout=30) as client:
            for key_id in ("1", "2", str(mine.key.id)):
                await client.get(f"/tenant/keys/{key_id}", headers=mine.bearer)
            await client.request("PROPFIND", "/tenant/keys/1")
            assert (await client.get("/metrics")).status_code == 401
            assert (await client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}x"})).status_code == 401
            assert (await client.get("/metrics", headers=mine.bearer)).status_code == 401
            shown = await client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    finally:
        gateway.terminate()
    assert shown.status_code == 200
    assert shown.headers["content-type"].startswith("text/plain")
    lines = shown.text.splitlines()
    assert 'tallygate_requests_total{method="GET",path="/tenant/keys/{id}",status="404"} 2.0' in lines
    assert 'tallygate_requests_total{method="GET",path="/tenant/keys/{id}",status="200"} 1.0' in lines
    assert 'tallygate_requests_total{method="other",path="/tenant/keys/{id}",status="405"} 1.0' in lines
    assert 'tallygate_requests_total{method="GET",path="/metrics",status="401"} 3.0' in lines
    assert "tallygate_requests_in_flight 1.0" in lines
    assert str(mine.key.id) not in shown.text
    assert 'tallygate_books_broken{check="a_moon_is_square"} 3.0' in lines
    assert 'tallygate_books_broken{check="a_moon_is_round"} 0.0' in lines
    assert any(line.startswith("tallygate_books_checked_timestamp_seconds ") for line in lines)
