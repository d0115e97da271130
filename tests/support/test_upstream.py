"""The scriptable upstream does what its scripts say, and sees what its clients do."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.support import upstream as scripted
from tests.support.upstream import End, Upstream, anthropic_stream, openai_stream

pytestmark = pytest.mark.anyio


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    """Run an upstream for one test."""
    async with scripted.serve() as running:
        yield running


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """Open a client for one test."""
    async with aiohttp.ClientSession() as opened:
        yield opened


async def test_records_what_came(upstream: Upstream, session: aiohttp.ClientSession) -> None:
    """Requests are kept in order with their raw bytes, over one connection or many; scripts are used in order and the last one stays."""
    upstream.script(scripted.status(429, headers={"retry-after": "7"}), scripted.stream(anthropic_stream()))
    async with session.post(upstream.url + "/v1/messages?beta=true", data=b'{ "a":1}', headers={"X-Api-Key": "k"}) as response:
        assert (response.status, response.headers["retry-after"]) == (429, "7")
        await response.read()
    for _ in range(2):
        async with session.post(upstream.url, data=b"x" * 900_000) as response:
            assert await response.read() == b"".join(anthropic_stream())
    first = upstream.requests[0]
    assert (first.method, first.path, first.body, first.header("x-api-key")) == ("POST", "/v1/messages?beta=true", b'{ "a":1}', "k")
    assert [len(request.body) for request in upstream.requests] == [8, 900_000, 900_000]
    assert [request.end for request in upstream.requests] == [End.ANSWERED] * 3


@pytest.mark.parametrize("leave_after", [0, 1])
async def test_sees_the_client_leave(upstream: Upstream, session: aiohttp.ClientSession, leave_after: int) -> None:
    """A client that closes before the head or in mid-stream is noted while the script still runs."""
    upstream.script(scripted.stream(openai_stream(), then=scripted.hang) if leave_after else scripted.hang)
    calling = asyncio.create_task(session.post(upstream.url, data=b"{}"))
    request = await upstream.arrival()
    if leave_after:
        response = await calling
        await response.content.readany()
        response.close()
    else:
        calling.cancel()
    await request.client_closed.wait()
    await request.finished.wait()
    assert request.end is End.CLIENT_CLOSED


@pytest.mark.parametrize("then", [scripted.cut, scripted.reset])
async def test_cuts_are_no_clean_end(upstream: Upstream, session: aiohttp.ClientSession, then: scripted.Script) -> None:
    """A cut, by FIN or by RST, before the head or in mid-stream, is an error for the client."""
    upstream.script(scripted.stream(openai_stream(end=False), then=then), then)
    for _ in range(2):
        with pytest.raises(aiohttp.ClientError):
            async with session.post(upstream.url, data=b"{}") as response:
                await response.read()
    assert [request.end for request in upstream.requests] == [End.CUT] * 2


async def test_garbage_drip_and_hold(upstream: Upstream, session: aiohttp.ClientSession) -> None:
    """Garbage is no HTTP; a drip arrives whole; a held stream goes on when the test says so; an endless one ends with its client."""
    release = asyncio.Event()
    held = scripted.held([b"a"], release, [b"b"])
    upstream.script(scripted.garbage(), scripted.drip(b"data: [DONE]\n\n"), held, scripted.endless(b"x" * 1000))
    with pytest.raises(aiohttp.ClientError):
        await session.post(upstream.url)
    async with session.post(upstream.url) as response:
        assert await response.read() == b"data: [DONE]\n\n"
    async with session.post(upstream.url) as response:
        assert await response.content.readexactly(1) == b"a"
        release.set()
        assert await response.read() == b"b"
    async with session.post(upstream.url) as response:
        await response.content.readexactly(100_000)
    await upstream.requests[-1].client_closed.wait()
    assert upstream.requests[-1].sent_bytes > 100_000
