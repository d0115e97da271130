"""RateLimit fields on the inference road, and what a key gets that comes too often (F4, F8)."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx2
import pytest

from tests.conftest import Suite
from tests.support.books import calls_of
from tests.support.calling import CLAUDE, WIRES, Wire, bearer
from tests.support.gateway import Gateway
from tests.support.world import tenant

pytestmark = pytest.mark.anyio

BURST = 30
BODY = {"model": "echo", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(scope="module")
async def slow(books: Suite) -> AsyncIterator[Gateway]:
    """A gateway where each key has a request a second, after a burst of 30; and ten times that for counting."""
    own = {"TALLYGATE_RATE_PER_SECOND": "1", "TALLYGATE_RATE_BURST": str(BURST)}
    started = Gateway({**books.environment, **own}, books.folder / "slow.log")
    started.start()
    await started.ready()
    yield started
    assert started.terminate() == 0, started.log.read_text(errors="replace")[-4000:]


@pytest.mark.parametrize("wire", WIRES, ids=[wire.name for wire in WIRES])
async def test_answers_tell_where_a_key_stands(gateway: Gateway, wire: Wire) -> None:
    """Policy and standing, on a good answer and on a refusal, in the form of the draft; a request counts once."""
    mine = await tenant(credit_microusd=1_000_000)
    async with httpx2.AsyncClient(base_url=gateway.url, timeout=30) as client:
        first = await client.post(wire.path, json=BODY, headers=bearer(mine.secret))
        second = await client.post(wire.path, json=BODY | {"model": "no-such"}, headers=bearer(mine.secret))
        counted = await client.post("/v1/messages/count_tokens", json=BODY, headers=bearer(mine.secret))
        nobody = await client.post(wire.path, json=BODY)
    assert (first.status_code, second.status_code, counted.status_code, nobody.status_code) == (200, 404, 200, 401)
    for answer in (first, second):
        assert answer.headers["ratelimit-policy"] == '"requests";q=5000;w=5'
    assert first.headers["ratelimit"] == '"requests";r=4999;t=1'
    assert second.headers["ratelimit"].startswith('"requests";r=499')
    assert counted.headers["ratelimit"] == '"counts";r=49999;t=1'
    assert "ratelimit" not in nobody.headers


async def test_a_key_that_comes_too_often_is_told_when(slow: Gateway) -> None:
    """After the burst: 429 in the dialect with `retry-after`, nothing admitted; another key and counting go on; a second later it goes on, too."""
    mine, other = await tenant(credit_microusd=1_000_000), await tenant(credit_microusd=1_000_000)
    async with httpx2.AsyncClient(base_url=slow.url, timeout=60) as client:

        async def ask(secret: str, path: str = CLAUDE.path) -> httpx2.Response:
            return await client.post(path, json=BODY, headers=bearer(secret))

        answers = await asyncio.gather(*(ask(mine.secret) for _ in range(2 * BURST)))
        refused = [answer for answer in answers if answer.status_code == 429]
        passed = [answer for answer in answers if answer.status_code == 200]
        assert len(passed) + len(refused) == 2 * BURST
        assert BURST <= len(passed) < 2 * BURST
        told = json.loads(refused[0].text)
        assert (told["type"], told["error"]["type"]) == ("error", "rate_limit_error")
        assert 1 <= int(refused[0].headers["retry-after"]) <= BURST + 1
        assert refused[0].headers["ratelimit"].startswith('"requests";r=0;t=')
        assert len(await calls_of(mine)) == len(passed)
        assert (await ask(other.secret)).status_code == 200
        assert (await ask(mine.secret, "/v1/messages/count_tokens")).status_code == 200
        openai = [await ask(mine.secret, "/v1/chat/completions") for _ in range(5)]
        limited = next(answer for answer in openai if answer.status_code == 429)
        assert limited.json()["error"]["code"] == "rate_limit_exceeded"
        await asyncio.sleep(float(limited.headers["retry-after"]) + 0.5)
        assert (await ask(mine.secret)).status_code == 200


async def test_counting_comes_in_bursts(slow: Gateway) -> None:
    """Twenty-five counts at once, as Claude Code asks for them, and as many again: every one is answered, whatever the rate of calls is."""
    mine = await tenant()
    async with httpx2.AsyncClient(base_url=slow.url, timeout=60) as client:
        answers = await asyncio.gather(*(client.post("/v1/messages/count_tokens", json=BODY, headers=bearer(mine.secret)) for _ in range(50)))
    assert {answer.status_code for answer in answers} == {200}
