"""A kept connection that its provider closes under a request: what was sent twice stands in the books twice (F17)."""

from typing import Any

import pytest

from models import database
from tests.support import upstream as scripted
from tests.support.books import only_call, quiet, settled
from tests.support.calling import CLAUDE, bearer, session
from tests.support.gateway import Gateway
from tests.support.upstream import Script, Upstream
from tests.support.world import Tenant, tenant

pytestmark = pytest.mark.anyio

CREDIT = 1_000_000
WHOLE = scripted.whole(CLAUDE.whole())


async def _ask(gateway: Gateway, mine: Tenant) -> int:
    async with session() as client, client.post(gateway.url + CLAUDE.path, data=CLAUDE.body(stream=False), headers=bearer(mine.secret)) as response:
        await response.read()
        return response.status


async def _attempts(mine: Tenant) -> list[tuple[Any, ...]]:
    rows = await database.fetch(
        "SELECT number, upstream, outcome, http_status, error_code, reason, usage, cost_picousd, charged FROM attempt WHERE workspace_id = $1 ORDER BY number",
        mine.workspace_id,
    )
    return [tuple(row) for row in rows]


def _stale(number: int) -> tuple[Any, ...]:
    return (number, "scripted-anthropic", "failed", None, "stale_connection", "first", "{}", 0, False)


@pytest.mark.parametrize("broken", [scripted.cut, scripted.reset], ids=["fin", "rst"])
async def test_each_sending_is_an_attempt(gateway: Gateway, provider: Upstream, broken: Script) -> None:
    """The provider reads a request on a kept connection and closes: it is asked again, charged once, and both sendings have their rows."""
    warm, mine = await tenant(credit_microusd=CREDIT), await tenant(credit_microusd=CREDIT)
    provider.script(WHOLE, broken, WHOLE)
    assert await _ask(gateway, warm) == 200
    await quiet(warm)
    assert await _ask(gateway, mine) == 200
    booked = await settled(await only_call(mine))
    assert (booked.charge_microusd, booked.outcome, booked.events) == (CLAUDE.price(), "succeeded", 1)
    assert await quiet(mine) == CREDIT - CLAUDE.price()
    made = await _attempts(mine)
    assert len(made) == len(provider.requests) - 1 == 2
    assert made[0] == _stale(1)
    assert (made[1][:6], made[1][7:]) == ((2, "scripted-anthropic", "succeeded", 200, None, "retry"), (CLAUDE.price() * 10**6, True))


async def test_the_second_sending_is_the_last(gateway: Gateway, provider: Upstream) -> None:
    """The provider closes under the second sending too: the call fails, costs nothing, and both sendings have their rows."""
    warm, mine = await tenant(credit_microusd=CREDIT), await tenant(credit_microusd=CREDIT)
    provider.script(WHOLE, scripted.cut)
    assert await _ask(gateway, warm) == 200
    await quiet(warm)
    assert await _ask(gateway, mine) == 502
    assert await quiet(mine) == CREDIT
    assert len(provider.requests) == 3
    assert await _attempts(mine) == [_stale(1), (2, "scripted-anthropic", "failed", 502, "upstream_broken", "retry", "{}", 0, False)]
