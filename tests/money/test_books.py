"""The books, looked at as a whole: sound for a sound installation, and every broken row told by name."""

import re
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest

from domain.money import amounts, books
from jobs.books import look
from tests.money.own_books import OwnBooks
from tests.support.gateway import Gateway
from tests.support.world import operator_key, tenant

SQL = Path(__file__).parents[2] / "domain" / "sql"


def test_every_row_of_the_view_has_a_name() -> None:
    """The newest audit view says nothing that the report does not know by a stable name, and the report promises nothing that the view does not look at."""
    newest = max(SQL.glob("audit_*.sql"), key=lambda path: int(path.stem.rpartition("_")[2]))
    said = {text.replace("''", "'") for text in re.findall(r"SELECT '((?:[^']|'')+)'", newest.read_text())}
    assert said == set(books.CHECKS)
    assert len({name for name, _ in books.CHECKS.values()}) == len(books.CHECKS)


@pytest.mark.anyio
async def test_the_operator_reads_every_check(gateway: Gateway) -> None:
    """GET /health/books lists each check with its promise; a customer's key is refused, and so is nobody's."""
    mine = await tenant(credit_microusd=1000)
    async with httpx2.AsyncClient(base_url=gateway.url, timeout=60) as http:
        answer = await http.get("/health/books", headers={"authorization": f"Bearer {await operator_key(mine)}"})
        refused = await http.get("/health/books", headers=mine.bearer)
        unknown = await http.get("/health/books")
    assert answer.status_code == 200
    told = answer.json()
    assert {check["name"] for check in told["checks"]} >= {"balance_equals_transfers", "usage_equals_charges", "rollups_equal_usage", "no_hold_past_expiry"}
    assert told["sound"] == all(check["sound"] for check in told["checks"])
    assert (refused.status_code, unknown.status_code) == (403, 401)
    assert "OPERATOR" in refused.json()["error"]


def test_a_broken_balance_is_told_with_its_difference(own: OwnBooks) -> None:
    """A balance that is not what its transfers add up to breaks its check, by as much, in the report and in what is kept; mended, it is sound."""

    async def story() -> None:
        assert (await books.check()).sound
        mine = await tenant(credit_microusd=5000)
        await own.admin.execute("UPDATE account SET credits = credits + 7 WHERE workspace_id = $1 AND kind = 'cash'", mine.workspace_id)
        found = {check.name: check for check in (await books.check()).checks if not check.sound}
        assert set(found) == {"balance_equals_transfers"}
        broken = found["balance_equals_transfers"]
        assert (broken.broken, broken.difference_microusd, broken.examples[0].split(" ")[0]) == (1, 7, str(mine.workspace_id))
        assert amounts.usd(broken.difference_microusd) == "0.000007"
        await look(None, at=datetime.now(UTC))
        kept = {each.name: each for each in await books.kept()}
        assert {name for name, each in kept.items() if each.broken} == {"balance_equals_transfers"}
        assert all(each.checked_at <= datetime.now(UTC) for each in kept.values())
        await own.admin.execute("UPDATE account SET credits = credits - 7 WHERE workspace_id = $1 AND kind = 'cash'", mine.workspace_id)
        await look(None, at=datetime.now(UTC))
        assert [each.name for each in await books.kept() if each.broken] == []

    own.run(story())


def test_a_new_check_is_never_left_out() -> None:
    """What the view says and nobody has named yet is shown under its own words."""
    assert books.named("a moon is square") == ("a_moon_is_square", "Nowhere: a moon is square.")
