"""A stream's way through the gateway, as the wire cuts it: the client has the provider's bytes, and pays what they say, whichever way they took."""

import pytest

from models import database
from tests.support import upstream as scripted
from tests.support.books import only_call, quiet, settled
from tests.support.calling import CLAUDE, WIRES, Wire, bearer, said, session
from tests.support.gateway import Gateway
from tests.support.upstream import End, Exchange, Script, Upstream
from tests.support.world import Tenant, tenant

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("wire", WIRES, ids=[wire.name for wire in WIRES])]

CREDIT = 1_000_000
PIECES = tuple(f"{number} \u00e9\n" for number in range(60))
LENGTH, LINES = len("".join(PIECES)), len(PIECES)


def chunk(data: bytes, form: str = "%x") -> bytes:
    """Write a chunk, its size in the given form."""
    return (form % len(data)).encode() + b"\r\n" + data + b"\r\n"


def events(wire: Wire) -> list[bytes]:
    """Write a whole stream of many pieces whose text chunks say nothing of usage, as a provider's do that was not asked for more."""
    return [part.replace(b',"usage":null', b"") for part in wire.stream(PIECES)]


def answered(*pieces: bytes) -> Script:
    """Answer with these bytes of a chunked body, each sent by itself."""

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        for piece in pieces:
            await exchange.raw(piece)
        exchange.request.end = End.ANSWERED

    return script


async def ask(gateway: Gateway, wire: Wire, secret: str) -> bytes:
    """Ask for a stream whose usage the client wants to see; give what came."""
    body = wire.body() if wire is CLAUDE else wire.body(stream_options={"include_usage": True})
    async with session() as client, client.post(gateway.url + wire.path, data=body, headers=bearer(secret)) as response:
        assert response.status == 200
        return await response.read()


async def size(mine: Tenant) -> tuple[int, int]:
    """Return how many characters and lines of text the books have of a tenant's only call."""
    row = await database.fetch_row("SELECT characters, lines FROM usage_event WHERE workspace_id = $1", mine.workspace_id)
    assert row is not None
    return row["characters"], row["lines"]


@pytest.mark.parametrize("way", ["each", "at once", "upper", "padded", "extended", "halves", "pairs", "bytes"])
async def test_the_bytes_and_the_charge_are_the_same_on_every_way(gateway: Gateway, provider: Upstream, wire: Wire, way: str) -> None:
    """F37: one event a chunk, all of them at once, sizes written in any form, chunks and events cut anywhere: the same bytes, text and charge."""
    parts = events(wire)
    whole, last = b"".join(parts), b"0\r\n\r\n"
    ways: dict[str, list[bytes]] = {
        "each": [*map(chunk, parts), last],
        "at once": [b"".join(map(chunk, parts)) + last],
        "upper": [*(chunk(part, "%04X") for part in parts), last],
        "padded": [*(chunk(part, "%05x") for part in parts), last],
        "extended": [*(chunk(part, "%x;a=b") for part in parts), last],
        "halves": [half for part in parts for half in (chunk(part)[:30], chunk(part)[30:])] + [last],
        "pairs": [*(chunk(one + two) for one, two in zip(parts[::2], [*parts[1::2], b""], strict=False)), last],
        "bytes": [*(chunk(whole[start : start + 97]) for start in range(0, len(whole), 97)), last],
    }
    mine = await tenant(credit_microusd=CREDIT)
    provider.script(answered(*ways[way]))
    assert said(await ask(gateway, wire, mine.secret)) == whole
    booked = await settled(await only_call(mine))
    assert (booked.charge_microusd, booked.outcome, booked.token_source) == (wire.price(), "succeeded", "provider")
    assert await size(mine) == (LENGTH, LINES)
    assert await quiet(mine) == CREDIT - wire.price()


@pytest.mark.parametrize("together", [False, True])
async def test_an_error_behind_text_reaches_the_client_once_and_after_the_charge(gateway: Gateway, provider: Upstream, wire: Wire, together: bool) -> None:
    """F18: in the read that brings the text before it, or in one of its own, an error event is held back until the text is charged, and ends the stream."""
    told: dict[str, object] = {"type": "overloaded_error", "message": "busy"}
    error = scripted.anthropic_event({"type": "error", "error": told}) if wire is CLAUDE else scripted.openai_event({"error": told})
    parts = events(wire)[: 11 if wire is CLAUDE else 9]
    sent = [*map(chunk, parts), chunk(error), b"0\r\n\r\n"]
    mine = await tenant(credit_microusd=CREDIT)
    provider.script(answered(b"".join(sent)) if together else answered(*sent))
    answer = await ask(gateway, wire, mine.secret)
    assert answer.startswith(b"".join(parts))
    assert answer.endswith(b"}\n\n" + error)
    assert answer[len(b"".join(parts)) :].startswith(b": tallygate ")
    assert answer.count(b"busy") == 1
    booked = await settled(await only_call(mine))
    assert (booked.outcome, booked.error_code) == ("failed", "upstream_error")
    assert await size(mine) == (len("".join(PIECES[:8])), 8)


async def test_a_break_after_text_is_told_and_what_came_is_charged(gateway: Gateway, provider: Upstream, wire: Wire) -> None:
    """A provider that closes between two chunks, after many that went by as they came, broke off: 60 pieces are charged as an estimate."""

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        for part in parts:
            await exchange.raw(chunk(part))
        exchange.cut()

    parts = events(wire)[: len(wire.begin(PIECES))]
    mine = await tenant(credit_microusd=CREDIT)
    provider.script(script)
    answer = await ask(gateway, wire, mine.secret)
    assert answer.startswith(b"".join(parts))
    wire.error_event(answer)
    booked = await settled(await only_call(mine))
    assert (booked.outcome, booked.error_code, booked.token_source) == ("failed", "upstream_cut", "estimate")
    assert await size(mine) == (LENGTH, LINES)
