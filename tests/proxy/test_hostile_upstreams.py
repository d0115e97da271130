"""Upstreams at their worst: each leaves no open hold and no invented charge, over short waits and one upstream for each dialect (F16, F18, F30, P1)."""

import asyncio
import gzip
from collections.abc import AsyncIterator

import httpx2
import pytest

from tests.conftest import PROVIDER_KEY, Suite
from tests.support import upstream as scripted
from tests.support.books import Line, only_call, quiet, settled
from tests.support.calling import CLAUDE, GPT, WIRES, Wire, bearer, by_word, session
from tests.support.gateway import Gateway
from tests.support.upstream import Exchange, Script, Upstream
from tests.support.world import Tenant, tenant

pytestmark = [pytest.mark.anyio]

CREDIT = 1_000_000
of_wires = pytest.mark.parametrize("wire", WIRES, ids=[wire.name for wire in WIRES])
CONFIGURATION = """
[routing]
tries = 1
first_byte_seconds = 1.5
idle_seconds = 1.5

[upstreams.hostile-anthropic]
dialect = "anthropic"
url = "{url}"
key_env = "SCRIPTED_KEY"
models = ["claude-opus-5-5"]

[upstreams.hostile-openai]
dialect = "openai"
url = "{url}"
key_env = "SCRIPTED_KEY"
models = ["gpt-5.5"]
"""
METRICS = "metrics-token-for-tests"


@pytest.fixture(scope="module")
async def hasty(books: Suite, _provider: Upstream) -> AsyncIterator[Gateway]:
    """A gateway that waits a second and a half for a provider's next byte, and tries once."""
    path = books.folder / "hostile.toml"
    path.write_text(CONFIGURATION.format(url=_provider.url))
    own = {"TALLYGATE_CONFIG": str(path), "SCRIPTED_KEY": PROVIDER_KEY, "TALLYGATE_METRICS_TOKEN": METRICS}
    started = Gateway({**books.environment, **own}, books.folder / "hasty.log")
    started.start()
    await started.ready()
    yield started
    assert started.terminate() == 0, started.log.read_text(errors="replace")[-4000:]


async def ask(gateway: Gateway, wire: Wire, mine: Tenant, body: bytes) -> tuple[int, bytes]:
    """Make a call and read its answer to the end."""
    async with session() as client, client.post(gateway.url + wire.path, data=body, headers=bearer(mine.secret)) as response:
        return response.status, await response.read()


async def booked(mine: Tenant) -> Line:
    """Return what the books say of the workspace's only call, after checking that its hold is closed, its charge taken once and the audit clean (F4)."""
    line = await settled(await only_call(mine))
    assert await quiet(mine) == CREDIT - line.charge_microusd
    assert line.events == 1
    return line


def raw(*parts: bytes) -> Script:
    """Answer with bytes as they stand, and close."""

    async def script(exchange: Exchange) -> None:
        for part in parts:
            await exchange.raw(part)
            await asyncio.sleep(0.05)
        exchange.cut()

    return script


def head(*fields: bytes) -> bytes:
    """Write the head of an answer that streams until the connection ends."""
    return b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n" + b"".join(field + b"\r\n" for field in fields) + b"\r\n"


async def hang_after_head(exchange: Exchange) -> None:
    """Send a head and nothing more."""
    await exchange.head()
    await scripted.hang(exchange)


BOMB = gzip.compress(b"a" * 50_000_000)
NOTHING: dict[str, Script] = {
    "hangs before the head": scripted.hang,
    "hangs inside the head": raw(b"HTTP/1.1 200 OK\r\ncontent-ty"),
    "hangs after the head": hang_after_head,
    "only says that it continues": raw(b"HTTP/1.1 100 Continue\r\n\r\n" * 50),
    "only gives hints": raw(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" * 3),
    "endless hints": raw(*[b"HTTP/1.1 103 Early Hints\r\nlink: <%b>\r\n\r\n" % (b"x" * 60_000)] * 10),
    "switches protocols": raw(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\nabc"),
    "a head of a megabyte": raw(b"HTTP/1.1 200 OK\r\n" + b"x-large: " + b"a" * 1_000_000 + b"\r\n\r\n"),
    "a head of ten thousand fields": raw(b"HTTP/1.1 200 OK\r\n" + b"x-a: b\r\n" * 100_000 + b"\r\n"),
    "a field that holds a line feed": raw(b"HTTP/1.1 200 OK\r\nx-a: b\nx-c\r\n\r\n{}"),
    "two lengths": raw(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}}"),
    "a bomb": raw(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(BOMB) + BOMB),
    "another type": scripted.whole(b"<html>busy</html>", headers={"content-type": "text/html; charset=utf-8"}),
    "bytes that are no text": scripted.stream([b"data: \xff\xfe\x00\n\n"]),
    "JSON that is none": scripted.stream([b'data: {"choices": [}\n\n', b"event: message_start\ndata: {\n\n"]),
    "JSON of great depth": scripted.stream([b"data: " + b"[" * 100_000 + b"]" * 100_000 + b"\n\n"]),
    "nothing at all": scripted.stream([]),
}


@of_wires
@pytest.mark.parametrize("fault", NOTHING)
async def test_what_says_nothing_costs_nothing(hasty: Gateway, provider: Upstream, wire: Wire, fault: str) -> None:
    """However a provider fails before it has said anything: 502, 504 or an error event, failed in the books, charged 0, nothing held."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.script(NOTHING[fault])
    status, body = await ask(hasty, wire, mine, wire.body())
    if status == 200:
        wire.error_event(body)
    else:
        assert status in (502, 504)
        wire.refusal(body)
    assert len(body) < 300_000
    line = await booked(mine)
    assert (line.charge_microusd, line.outcome) == (0, "failed")
    assert len(provider.requests) == 1


@of_wires
@pytest.mark.parametrize("fault", ["hangs before the head", "hangs inside the head", "a bomb", "another type", "endless hints"])
async def test_what_says_nothing_to_a_call_that_does_not_stream(hasty: Gateway, provider: Upstream, wire: Wire, fault: str) -> None:
    """The same for a whole answer: never a 200."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.script(NOTHING[fault])
    status, body = await ask(hasty, wire, mine, wire.body(stream=False))
    assert status in (502, 504)
    wire.refusal(body)
    assert (await booked(mine)).charge_microusd == 0


@of_wires
@pytest.mark.parametrize("then", [scripted.hang, scripted.cut, scripted.reset], ids=["hangs", "is cut", "is reset"])
@pytest.mark.parametrize("tail", [b"", b'data: {"type":"content_block_del'], ids=["between events", "inside an event"])
async def test_what_was_delivered_before_it_failed_is_charged_and_no_more(hasty: Gateway, provider: Upstream, wire: Wire, then: Script, tail: bytes) -> None:
    """F16: 11 characters came: 3 tokens of output are charged as an estimate; what came of a broken event counts for nothing."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.script(scripted.stream([*wire.begin(), tail], then=then))
    body = wire.body()
    status, told = await ask(hasty, wire, mine, body)
    assert status == 200
    wire.error_event(told)
    line = await booked(mine)
    counted = 25 if wire is CLAUDE else wire.counted(body)
    assert (line.charge_microusd, line.outcome, line.token_source) == (wire.price(counted, 3), "failed", "estimate")


@of_wires
async def test_one_that_drips_is_not_silent(hasty: Gateway, provider: Upstream, wire: Wire) -> None:
    """A byte a second is slow, and no failure: the answer arrives whole, and is charged as the provider counted."""
    mine = await tenant(credit_microusd=CREDIT)
    *parts, last = wire.stream()

    async def drips(exchange: Exchange) -> None:
        await exchange.head()
        for part in parts:
            await exchange.send(part)
        for place in range(4):
            await exchange.send(last[place : place + 1])
            await asyncio.sleep(1)
        await exchange.send(last[4:])
        await exchange.end()

    provider.script(drips)
    status, told = await ask(hasty, wire, mine, wire.body())
    assert (status, wire.end in told) == (200, True)
    assert (await booked(mine)).charge_microusd == wire.price()


ERRORS = {
    "anthropic": b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded %b"}}' % (b"x" * 5000),
    "openai": b'{"error":{"message":"Overloaded %b","type":"server_error","param":null,"code":null}}' % (b"x" * 5000),
}


@of_wires
async def test_an_error_inside_a_200_that_does_not_stream_is_no_answer(hasty: Gateway, provider: Upstream, wire: Wire) -> None:
    """F18: a body that is an error, though the status says 200, is 502 and costs nothing: its text is no output."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.script(scripted.whole(ERRORS[wire.name]))
    status, body = await ask(hasty, wire, mine, wire.body(stream=False))
    assert status == 502
    wire.refusal(body)
    line = await booked(mine)
    assert (line.charge_microusd, line.outcome) == (0, "failed")


@of_wires
async def test_a_stream_after_its_end_is_not_read(hasty: Gateway, provider: Upstream, wire: Wire) -> None:
    """What a provider sends after its last event adds no charge, and the client does not wait for it."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.script(scripted.stream([*wire.stream(), *wire.begin(("more",)) * 3], then=scripted.hang))
    status, told = await ask(hasty, wire, mine, wire.body())
    assert (status, wire.end in told) == (200, True)
    assert (await booked(mine)).charge_microusd == wire.price()


@of_wires
async def test_interim_answers_before_the_real_one_are_passed_over(hasty: Gateway, provider: Upstream, wire: Wire) -> None:
    """100 and 103 before a good answer are no answer of their own."""
    mine = await tenant(credit_microusd=CREDIT)
    body = wire.whole()
    good = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    provider.script(raw(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n", good))
    status, told = await ask(hasty, wire, mine, wire.body(stream=False))
    assert (status, told) == (200, body)
    assert (await booked(mine)).charge_microusd == wire.price()


async def test_many_faults_at_once_leave_nothing_behind(hasty: Gateway, provider: Upstream) -> None:
    """F4, F5: sixty calls of one workspace to providers that fail in every way: every hold closed, charges exact, the audit clean.

    Each request names its fault: one that is sent again, because its kept connection was closed, meets the same. On a busy machine words may come later
    than the gateway waits; such a call has no words, and costs nothing.
    """
    mine = await tenant(credit_microusd=100 * CREDIT)
    faults = {"hang": scripted.hang, "cut": scripted.cut, "head": hang_after_head, "type": NOTHING["another type"], "bomb": NOTHING["a bomb"]}
    provider.script(by_word(faults | {"words": scripted.stream(GPT.begin(), then=scripted.cut)}))
    bodies = {fault: GPT.body(f"<{fault}>") for fault in (*faults, "words")}
    async with session() as client:

        async def once(fault: str) -> tuple[str, str]:
            async with client.post(hasty.url + GPT.path, data=bodies[fault], headers=bearer(mine.secret)) as response:
                await response.read()
                return fault, response.headers["x-request-id"]

        made = await asyncio.gather(*(once(fault) for fault in list(bodies) * 10))
    lines = [(fault, await settled(call)) for fault, call in made]
    cut = [line for fault, line in lines if (fault, line.error_code) == ("words", "upstream_cut")]
    assert {line.charge_microusd for line in cut} == {GPT.price(GPT.counted(bodies["words"]), 3)}
    assert {line.charge_microusd for _, line in lines if line not in cut} == {0}
    assert [line.events for _, line in lines] == [1] * 60
    assert await quiet(mine) == 100 * CREDIT - sum(line.charge_microusd for line in cut)


async def test_names_that_clients_invent_make_no_series(hasty: Gateway, provider: Upstream) -> None:
    """F31: a thousand models and a hundred paths that there are not: the metrics have the series that they had."""
    mine = await tenant(credit_microusd=CREDIT)
    headers = bearer(mine.secret)

    async def series() -> set[str]:
        async with httpx2.AsyncClient(base_url=hasty.url, timeout=60) as client:
            told = (await client.get("/metrics", headers={"authorization": f"Bearer {METRICS}"})).text
        return {line.rpartition(" ")[0] for line in told.splitlines() if line and not line.startswith("#")}

    async with session() as client:

        async def junk(number: int) -> None:
            body = CLAUDE.body(model=f"junk-{number}", stream=False)
            async with client.post(hasty.url + CLAUDE.path, data=body, headers=headers) as response:
                assert response.status == 404
            if number % 10 == 0:
                async with client.get(f"{hasty.url}/junk/{number}", headers=headers) as response:
                    assert response.status == 404

        await junk(0)
        await series()  # which makes one of its own
        before = await series()
        for start in range(1, 1_000, 50):
            await asyncio.gather(*(junk(number) for number in range(start, start + 50)))
        assert await series() == before
