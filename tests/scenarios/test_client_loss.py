"""Clients that leave: before the head, before the first token, in mid stream, during the settlement, after the end (F5, F16, F33)."""

import asyncio

import aiohttp
import pytest

from tests.support import upstream as scripted
from tests.support.books import line, locked, only_call, quiet, settled
from tests.support.calling import WIRES, Wire, bearer, by_word, session, until
from tests.support.gateway import Gateway
from tests.support.servers import Servers
from tests.support.upstream import End, Script, Upstream
from tests.support.world import Tenant, tenant

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("wire", WIRES, ids=[wire.name for wire in WIRES])]

CREDIT = 1_000_000
POINTS = 20
PIECES = tuple(f"piece {number:02d} " for number in range(POINTS))
"""Nine characters each."""


async def _leave(client: aiohttp.ClientSession, gateway: Gateway, wire: Wire, mine: Tenant, word: str, sent: bytes) -> None:
    """Call, read exactly what was sent, and close the connection."""
    async with client.post(gateway.url + wire.path, data=wire.body(f"<{word}>"), headers=bearer(mine.secret)) as response:
        await response.content.readexactly(len(sent))
        response.close()


def _as_shown(wire: Wire, parts: list[bytes]) -> bytes:
    """Return what of the upstream's parts a client sees who did not ask for usage."""
    return b"".join(parts).replace(b',"usage":null', b"") if wire.name == "openai" else b"".join(parts)


def _counted(wire: Wire, word: str) -> int:
    return 25 if wire.name == "anthropic" else wire.counted(wire.body(f"<{word}>"))


async def test_before_the_head_nothing_is_charged(gateway: Gateway, provider: Upstream, wire: Wire) -> None:
    """F33: the upstream of a stream hangs and the client leaves: the upstream is let go, the call is cancelled, the charge is 0."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.script(scripted.hang)
    async with session() as client:
        calling = asyncio.create_task(client.post(gateway.url + wire.path, data=wire.body(), headers=bearer(mine.secret)))
        request = await provider.arrival()
        calling.cancel()
        await request.client_closed.wait()
    booked = await settled(await only_call(mine))
    assert (booked.charge_microusd, booked.outcome, booked.error_code) == (0, "cancelled", "client_gone")
    assert await quiet(mine) == CREDIT


@pytest.mark.parametrize("fault", [False, True])
async def test_a_whole_answer_is_read_to_its_end_and_charged_as_the_provider_bills_it(gateway: Gateway, provider: Upstream, wire: Wire, fault: bool) -> None:
    """F16: the client of a call that does not stream leaves: the provider bills the answer all the same, so it is read and charged; one that fails is free."""
    mine = await tenant(credit_microusd=CREDIT)
    go = asyncio.Event()

    async def later(exchange: scripted.Exchange) -> None:
        await go.wait()
        await (scripted.status(400) if fault else scripted.whole(wire.whole()))(exchange)

    provider.script(later)
    async with session() as client:
        calling = asyncio.create_task(client.post(gateway.url + wire.path, data=wire.body(stream=False), headers=bearer(mine.secret)))
        request = await provider.arrival()
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)
    go.set()
    await request.finished.wait()
    assert request.end is End.ANSWERED
    booked = await settled(await only_call(mine))
    expected = 0 if fault else wire.price()
    assert (booked.charge_microusd, booked.token_source) == (expected, "estimate" if fault else "provider")
    assert booked.outcome == ("failed" if fault else "succeeded")
    assert await quiet(mine) == CREDIT - expected


async def test_before_the_first_token_only_the_start_is_charged(gateway: Gateway, provider: Upstream, wire: Wire) -> None:
    """After an event without text the input is charged where the provider said it, and no output but what it said."""
    mine = await tenant(credit_microusd=CREDIT)
    first = wire.begin()[:1]
    provider.script(scripted.stream(first, then=scripted.hang))
    async with session() as client:
        await _leave(client, gateway, wire, mine, "x", _as_shown(wire, first))
    await provider.requests[0].client_closed.wait()
    booked = await settled(await only_call(mine))
    expected = wire.price(25, 1) if wire.name == "anthropic" else 0
    assert (booked.charge_microusd, booked.outcome, booked.token_source) == (expected, "cancelled", "estimate")
    assert await quiet(mine) == CREDIT - expected


async def test_at_twenty_points_of_a_stream_what_was_delivered_is_charged(gateway: Gateway, provider: Upstream, wire: Wire) -> None:
    """After each of twenty pieces: the upstream is let go, ceil(9 n / 4) tokens are charged as an estimate, and nothing stays held."""
    mine = await tenant(credit_microusd=100 * CREDIT)
    heads = len(wire.begin(())) if wire.name == "anthropic" else 1
    parts = wire.begin(PIECES)
    sent = {f"{number:02d}": parts[: heads + number] for number in range(1, POINTS + 1)}
    provider.script(by_word({word: scripted.stream(given, then=scripted.hang) for word, given in sent.items()}))
    async with session() as client:
        await asyncio.gather(*(_leave(client, gateway, wire, mine, word, _as_shown(wire, given)) for word, given in sent.items()))
        await asyncio.gather(*(request.client_closed.wait() for request in provider.requests))
    assert [request.end for request in provider.requests] == [End.CLIENT_CLOSED] * POINTS
    balance = await quiet(mine)
    expected = [wire.price(_counted(wire, "01"), -(-9 * number // 4)) for number in range(1, POINTS + 1)]
    assert 100 * CREDIT - balance == sum(expected)


async def test_while_it_is_settled_the_whole_answer_is_charged(gateway: Gateway, provider: Upstream, wire: Wire, servers: Servers) -> None:
    """The upstream has ended, the settlement waits for a lock, the client leaves: the answer is charged in full, once, as the provider counted."""
    mine = await tenant(credit_microusd=CREDIT)
    go = asyncio.Event()
    provider.script(scripted.held(wire.begin(), go, wire.rest()))
    async with session() as client:
        response = await client.post(gateway.url + wire.path, data=wire.body(), headers=bearer(mine.secret))
        await response.content.readexactly(len(_as_shown(wire, wire.begin())))
        async with locked(servers.admin_dsn("suite"), mine):
            go.set()
            await provider.requests[0].finished.wait()
            response.close()
    booked = await settled(await only_call(mine))
    assert (booked.charge_microusd, booked.token_source, booked.events) == (wire.price(), "provider", 1)
    assert await quiet(mine) == CREDIT - wire.price()


async def test_after_the_last_event_nothing_changes(gateway: Gateway, provider: Upstream, wire: Wire) -> None:
    """A client that reads the last event and closes at once has been charged in full before it saw it."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.script(scripted.stream(wire.stream()))
    async with session() as client, client.post(gateway.url + wire.path, data=wire.body(), headers=bearer(mine.secret)) as response:
        await response.content.readuntil(wire.end)
        booked = await line(response.headers["x-request-id"])
        response.close()
    assert booked is not None
    assert (booked.charge_microusd, booked.outcome, booked.token_source) == (wire.price(), "succeeded", "provider")
    assert await quiet(mine) == CREDIT - wire.price()


@pytest.mark.parametrize("stream", [True, False])
async def test_with_policy_drain_the_answer_is_read_to_its_end(neighbour: Gateway, provider: Upstream, wire: Wire, stream: bool) -> None:
    """Where a provider bills the whole answer anyway it is read to its end after the client left, and charged as the provider counted."""
    mine = await tenant(credit_microusd=CREDIT)
    go = asyncio.Event()

    async def whole(exchange: scripted.Exchange) -> None:
        await go.wait()
        await scripted.whole(wire.whole())(exchange)

    script: Script = scripted.held(wire.begin(), go, wire.rest()) if stream else whole
    provider.script(script)
    async with session() as client:
        if stream:
            await _leave(client, neighbour, wire, mine, "x", _as_shown(wire, wire.begin()))
        else:
            calling = asyncio.create_task(client.post(neighbour.url + wire.path, data=wire.body(stream=False), headers=bearer(mine.secret)))
            await provider.arrival()
            calling.cancel()
            await asyncio.gather(calling, return_exceptions=True)
    go.set()
    await provider.requests[0].finished.wait()
    booked = await settled(await only_call(mine))
    assert (booked.charge_microusd, booked.output_tokens, booked.token_source, booked.outcome) == (wire.price(), 12, "provider", "succeeded")
    assert await quiet(mine) == CREDIT - wire.price()


async def test_a_client_that_leaves_during_admission_holds_nothing(gateway: Gateway, provider: Upstream, wire: Wire, servers: Servers) -> None:
    """An admission that is carried out after its client left is released at once, and no upstream hears of it (F4)."""
    mine = await tenant(credit_microusd=CREDIT)
    async with session() as client, locked(servers.admin_dsn("suite"), mine) as watcher:

        async def waiting() -> bool:
            return bool(await watcher.fetchval("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE '%admit_6(%' AND wait_event_type = 'Lock')"))

        calling = asyncio.create_task(client.post(gateway.url + wire.path, data=wire.body(), headers=bearer(mine.secret)))
        await until(waiting, "an admission inside its statement")
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)
        # the gateway hears of it on the connection before it can answer another request on a later one
        async with client.get(f"{gateway.url}/healthz") as response:
            assert response.status == 200
    booked = await settled(await only_call(mine))
    assert (booked.charge_microusd, booked.outcome) == (0, "cancelled")
    assert provider.requests == [] or provider.requests[0].end is End.CLIENT_CLOSED
    assert await quiet(mine) == CREDIT
