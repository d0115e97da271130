"""What a client is told when a bound does not cover its call: whether to wait, for how long, or to show a person the message."""

import asyncio

import pytest

from domain.access.limits import BoundInput
from models.enums import Measure
from tests.support import upstream as scripted
from tests.support.books import quiet
from tests.support.calling import WIRES, Wire, bearer, session
from tests.support.gateway import Gateway
from tests.support.upstream import Upstream
from tests.support.world import tenant

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("wire", WIRES, ids=[wire.name for wire in WIRES])]

CREDIT = 1_000_000


async def test_what_a_call_under_way_holds_is_worth_waiting_for(gateway: Gateway, provider: Upstream, wire: Wire) -> None:
    """A budget of a day that the first call's hold fills: 429 and come back in a second, not tomorrow; once it has ended there is room again."""
    mine, go = await tenant(credit_microusd=CREDIT), asyncio.Event()
    body = wire.body(stream=False)
    dearest = {"anthropic": (8, 20), "openai": (12.5, 75)}[wire.name]
    held = int(wire.counted(body) * dearest[0] + 1000 * dearest[1] + 0.99)
    _, secret = await mine.mint(name="daily", budgets=(BoundInput(Measure.MONEY, "24h", held + 50),))

    async def wait(exchange: scripted.Exchange) -> None:
        await go.wait()
        await scripted.whole(wire.whole())(exchange)

    provider.script(wait)
    async with session() as client:

        async def ask() -> tuple[int, dict[str, str], bytes]:
            async with client.post(gateway.url + wire.path, data=body, headers=bearer(secret)) as response:
                return response.status, {name.lower(): value for name, value in response.headers.items()}, await response.read()

        first = asyncio.ensure_future(ask())
        await provider.arrival()
        status, headers, told = await ask()
        assert (status, headers["retry-after"], headers.get("x-should-retry")) == (429, "1", None)
        assert not [name for name in headers if name.startswith("anthropic-ratelimit")]
        assert wire.refusal(told) == ("rate_limit_error", "The budget for 24h is held by calls under way; try again when one has ended.")
        go.set()
        assert (await first)[0] == 200
        assert (await ask())[0] == 200
    assert await quiet(mine) == CREDIT - 2 * wire.price()
