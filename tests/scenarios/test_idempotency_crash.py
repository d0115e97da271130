"""A gateway that is killed with -9 in the middle of idempotent calls: nobody pays twice, and no key stays stuck (M9, F20, F32)."""

import asyncio

import aiohttp
import pytest

from models import database
from tests.conftest import Suite
from tests.support import upstream as scripted
from tests.support.books import only_call, progress_of, quiet, settled
from tests.support.calling import CLAUDE, bearer, said, session, until
from tests.support.gateway import Gateway
from tests.support.upstream import Upstream
from tests.support.world import tenant

pytestmark = pytest.mark.anyio

CREDIT = 1_000_000


async def test_a_kill_in_the_middle_frees_the_key_or_names_the_receipt(books: Suite, gateway: Gateway, provider: Upstream) -> None:
    """Killed before its first byte, a call's key is free once its hold is swept; killed after words were delivered, the repeat is told the receipt."""
    environment = {**gateway.environment, "TALLYGATE_HOLD_SECONDS": "4"}
    mortal = Gateway(environment, books.folder / "mortal.log")
    mortal.start()
    await mortal.ready()
    silent, halfway = await tenant(credit_microusd=CREDIT), await tenant(credit_microusd=CREDIT)
    body = CLAUDE.body()

    async def ask(at: Gateway, secret: str) -> tuple[int, bytes]:
        async with session() as client, client.post(at.url + CLAUDE.path, data=body, headers=bearer(secret) | {"idempotency-key": "k"}) as response:
            return response.status, await response.read()

    provider.script(scripted.hang)
    first = asyncio.ensure_future(ask(mortal, silent.secret))
    await provider.arrival(1)
    provider.script(scripted.stream(CLAUDE.begin(), then=scripted.hang))
    second = asyncio.ensure_future(ask(mortal, halfway.secret))
    await provider.arrival(2)
    lost = await only_call(halfway)

    async def kept() -> bool:
        return await progress_of(lost) is not None

    await until(kept, "progress of the stream")
    mortal.kill()
    for task in (first, second):
        with pytest.raises(aiohttp.ClientError):
            await task
    provider.script(scripted.stream(CLAUDE.stream()))
    await settled(lost)
    await settled(await only_call(silent))
    await database.fetch("UPDATE idempotent_answer SET leased_until = clock_timestamp() WHERE workspace_id = ANY($1)", [silent.workspace_id, halfway.workspace_id])
    status, told = await ask(gateway, silent.secret)
    assert (status, said(told)) == (200, b"".join(CLAUDE.stream()))
    status, told = await ask(gateway, halfway.secret)
    assert (status, f"/v1/receipts/{lost}" in CLAUDE.refusal(told)[1]) == (409, True)
    assert await quiet(silent) == CREDIT - CLAUDE.price()
    assert await quiet(halfway) == CREDIT - CLAUDE.price(25, 3)
    assert len(provider.requests) == 3
