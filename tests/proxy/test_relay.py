"""What goes between client and upstream: bytes, header fields, statuses, and the upstream's faults (P1)."""

import asyncio
import json
import math
from typing import Any

import pytest

from models import database
from tests.conftest import PROVIDER_KEY
from tests.support import upstream as scripted
from tests.support.books import Line, only_call, quiet, settled
from tests.support.calling import CLAUDE, GPT, WIRES, Wire, bearer, said, session
from tests.support.gateway import Gateway
from tests.support.upstream import Exchange, Script, Upstream
from tests.support.world import Tenant, tenant

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("wire", WIRES, ids=[wire.name for wire in WIRES])]

CREDIT = 1_000_000
DEAREST = {"anthropic": (8, 20), "openai": (12.5, 75)}
"""What a token of input and of output may cost at most, in microdollars: a write to the long cache, or the priority tier."""


def _affording(wire: Wire, body: bytes, output_tokens: int) -> int:
    """Return the credit that pays a request's worst case up to so many tokens of output."""
    dearest_input, dearest_output = DEAREST[wire.name]
    return math.ceil(wire.counted(body) * dearest_input + output_tokens * dearest_output)


class Answer:
    """A whole answer as it came over the wire."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body


async def _ask(gateway: Gateway, wire: Wire, mine: Tenant, body: bytes, **headers: str) -> Answer:
    async with session() as client, client.post(gateway.url + wire.path, data=body, headers=bearer(mine.secret) | headers) as response:
        return Answer(response.status, {name.lower(): value for name, value in response.headers.items()}, await response.read())


async def _booked(mine: Tenant) -> Line:
    booked = await settled(await only_call(mine))
    assert await quiet(mine) == CREDIT - booked.charge_microusd
    return booked


# What passes, and what does not.


@pytest.mark.parametrize("stream", [True, False])
async def test_request_bytes_outside_owned_fields_are_the_clients(gateway: Gateway, provider: Upstream, wire: Wire, stream: bool) -> None:
    """F37: odd spacing, key order, escapes, unknown fields and thinking signatures reach the upstream byte for byte."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.script(scripted.stream(wire.stream()) if stream else scripted.whole(wire.whole()))
    block = '{"type":"thinking","thinking":"\\u00e9 \\/ é","signature":"Eq+/=="}'
    shown = ',"stream_options": {"include_usage":true}' if stream and wire is GPT else ""
    body = (
        f'{{ "zeta":1.50e0,\n\t"messages" : [{{"role":"user","content":[{block}]}}],"stream":{str(stream).lower()}{shown},'
        f'"max_tokens":1000,"model":"{wire.model}","model_extra":{{"b":1,"a":[ ]}} }} '
    ).encode()
    assert (await _ask(gateway, wire, mine, body)).status == 200
    assert provider.requests[0].body == body
    await _booked(mine)


async def test_usage_is_asked_for_and_taken_out_again(gateway: Gateway, provider: Upstream, wire: Wire) -> None:
    """A streaming client that did not ask for usage gets none, and is charged by it; the rest of the request is the client's bytes."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.script(scripted.stream(wire.stream()))
    body = wire.body()
    answer = await _ask(gateway, wire, mine, body)
    sent = provider.requests[0].body
    if wire is GPT:
        assert sent.startswith(body[:-1])
        assert json.loads(sent) == json.loads(body) | {"stream_options": {"include_usage": True}}
        assert b"usage" not in answer.body
    else:
        assert sent == body
        assert said(answer.body) == b"".join(wire.stream())
    booked = await _booked(mine)
    assert (booked.charge_microusd, booked.token_source, booked.input_tokens, booked.output_tokens) == (wire.price(), "provider", 25, 12)


@pytest.mark.parametrize("stream", [True, False])
async def test_answers_are_the_upstreams_bytes(gateway: Gateway, provider: Upstream, wire: Wire, stream: bool) -> None:
    """What the upstream says reaches the client byte for byte, also when it comes one byte at a time."""
    mine = await tenant(credit_microusd=CREDIT)
    told = b"".join(wire.stream(("é", "\U0001f600 \\u00e9", "x" * 5000))) if stream else wire.whole()
    provider.script(scripted.drip(told, size=7) if stream else scripted.whole(told))
    body = wire.body(stream=stream, stream_options={"include_usage": True} if stream and wire is GPT else None)
    answer = await _ask(gateway, wire, mine, body)
    assert (said(answer.body) if stream else answer.body) == told
    assert answer.headers["content-type"].startswith("text/event-stream" if stream else "application/json")
    assert (await _booked(mine)).charge_microusd == wire.price()


async def test_credentials_cookies_and_hops_do_not_pass(gateway: Gateway, provider: Upstream, wire: Wire) -> None:
    """The provider's key goes upstream, the client's key, cookies, hop-by-hop and connection-named fields do not; nor do the provider's back."""
    mine = await tenant(credit_microusd=CREDIT)
    secrets = {"set-cookie": "session=1", "anthropic-organization-id": "org-1", "openai-organization": "org-1", "anthropic-ratelimit-requests-limit": "1"}
    provider.script(scripted.whole(wire.whole(), headers=secrets | {"server": "provider", "x-request-id": "theirs", "request-id": "theirs"}))
    given = {
        "cookie": "canary=1",
        "x-api-key": mine.secret,
        "proxy-authorization": "Basic Y2FuYXJ5",
        "x-forwarded-for": "203.0.113.9",
        "forwarded": "for=203.0.113.9",
        "anthropic-auth-token": "canary",
        "te": "trailers",
        "connection": "keep-alive, anthropic-hop",
        "anthropic-hop": "canary",
        "anthropic-version": "2023-06-01",
        "anthropic-beta": "one, two",
        "user-agent": "probe/1",
        "x-stainless-lang": "python",
    }
    answer = await _ask(gateway, wire, mine, wire.body(stream=False), **given)
    request = provider.requests[0]
    names = {name for name, _ in request.headers}
    assert not names & {"cookie", "proxy-authorization", "x-forwarded-for", "forwarded", "te", "anthropic-hop", "anthropic-auth-token"}
    everything = json.dumps(request.headers)
    assert mine.secret not in everything
    assert "canary" not in everything.replace(PROVIDER_KEY, "")
    credential = {"anthropic": ("x-api-key", PROVIDER_KEY), "openai": ("authorization", f"Bearer {PROVIDER_KEY}")}[wire.name]
    assert [field for field in request.headers if PROVIDER_KEY in field[1]] == [credential]
    assert (request.header("user-agent"), request.header("x-stainless-lang")) == ("probe/1", "python")
    if wire is CLAUDE:
        assert (request.header("anthropic-version"), request.header("anthropic-beta")) == ("2023-06-01", "one, two")
    assert request.path == wire.path
    assert not set(secrets) & set(answer.headers)
    assert answer.headers["x-request-id"] == str(await only_call(mine))
    assert "theirs" not in answer.headers.values()
    assert "provider" not in answer.headers.values()


# What an upstream answers instead.


@pytest.mark.parametrize("code", [400, 404, 413, 422, 429])
async def test_a_providers_refusal_is_handed_on_byte_for_byte(gateway: Gateway, provider: Upstream, wire: Wire, code: int) -> None:
    """Clients match on wording: status, body and `retry-after` are the provider's; nothing is charged, nothing stays held."""
    mine = await tenant(credit_microusd=CREDIT)
    told = b'{ "type":"error", "error":{"type":"x","message":"prompt is too long: \\u00e9"} }'
    provider.script(scripted.whole(told, code, {"retry-after": "7", "x-should-retry": "true"}))
    answer = await _ask(gateway, wire, mine, wire.body())
    assert (answer.status, answer.body, answer.headers["retry-after"]) == (code, told, "7")
    booked = await _booked(mine)
    assert (booked.charge_microusd, booked.outcome, booked.error_code, booked.http_status) == (0, "failed", f"upstream_{code}", code)


@pytest.mark.parametrize("code", [302, 401, 402, 403, 500])
async def test_a_providers_quarrel_with_the_operator_is_502(gateway: Gateway, provider: Upstream, wire: Wire, code: int) -> None:
    """A bad provider key, an unpaid or broken provider is no fault of the customer: 502 without its words; redirects are not followed."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.script(scripted.status(code, headers={"location": f"{provider.url}/elsewhere"}))
    answer = await _ask(gateway, wire, mine, wire.body())
    assert answer.status == 502
    kind, message = wire.refusal(answer.body)
    assert kind == {"anthropic": "api_error", "openai": "server_error"}[wire.name]
    assert "scripted" not in message
    assert len(provider.requests) == 1
    booked = await _booked(mine)
    assert (booked.charge_microusd, booked.error_code, booked.http_status) == (0, f"upstream_{code}", 502)  # the record has what was answered
    attempt = await database.fetch_value("SELECT http_status FROM attempt WHERE workspace_id = $1", mine.workspace_id)
    assert attempt == code  # and the attempt what the provider said


@pytest.mark.parametrize("code", [503, 529])
async def test_an_overloaded_provider_is_overload_in_the_clients_dialect(gateway: Gateway, provider: Upstream, wire: Wire, code: int) -> None:
    """What a provider calls overload becomes what this dialect's clients try again after: 529 or 503."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.script(scripted.status(code))
    answer = await _ask(gateway, wire, mine, wire.body())
    assert answer.status == wire.overloaded
    wire.refusal(answer.body)
    assert (await _booked(mine)).charge_microusd == 0


BROKEN_BEFORE: dict[str, Script] = {
    "fin": scripted.cut,
    "rst": scripted.reset,
    "no http": scripted.garbage(),
    "html": scripted.whole(b"<html>503</html>", headers={"content-type": "text/html"}),
    "half json": scripted.whole(b'{"id": "x", "usage": {"prompt_tok'),
    "no object": scripted.whole(b'"text"'),
    "half of a body": scripted.garbage(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"),
    "bad chunk": scripted.garbage(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"),
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("fault", BROKEN_BEFORE)
async def test_an_upstream_that_says_nothing_sound_costs_nothing(gateway: Gateway, provider: Upstream, wire: Wire, fault: str, stream: bool) -> None:
    """Cut, reset, garbage, HTML, half a body: 502 or an error event, one request upstream, no charge, nothing held."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.script(BROKEN_BEFORE[fault])
    answer = await _ask(gateway, wire, mine, wire.body(stream=stream))
    if answer.status == 200:
        assert fault == "bad chunk"
        wire.error_event(answer.body)
    else:
        assert answer.status == 502
        wire.refusal(answer.body)
    booked = await _booked(mine)
    assert (booked.charge_microusd, booked.outcome) == (0, "failed")


async def test_json_to_a_client_that_streams_is_no_answer(gateway: Gateway, provider: Upstream, wire: Wire) -> None:
    """A whole answer where a stream was asked for is 502, never JSON that clients would ask for again."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.script(scripted.whole(wire.whole()))
    answer = await _ask(gateway, wire, mine, wire.body(stream=True))
    assert answer.status == 502
    wire.refusal(answer.body)
    assert (await _booked(mine)).charge_microusd == 0


@pytest.mark.parametrize("then", [scripted.cut, scripted.reset])
async def test_a_cut_in_mid_stream_is_an_error_and_never_a_clean_end(gateway: Gateway, provider: Upstream, wire: Wire, then: Script) -> None:
    """FIN and RST after 11 characters: what was said is passed, an error event ends it, and 3 tokens of output are charged as an estimate."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.script(scripted.stream(wire.begin(), then=then))
    body = wire.body()
    answer = await _ask(gateway, wire, mine, body)
    assert answer.status == 200
    assert b"Hello" in answer.body
    wire.error_event(answer.body)
    booked = await _booked(mine)
    counted = 25 if wire is CLAUDE else wire.counted(body)
    assert (booked.input_tokens, booked.output_tokens, booked.token_source) == (counted, 3, "estimate")
    assert (booked.charge_microusd, booked.outcome, booked.error_code) == (wire.price(counted, 3), "failed", "upstream_cut")


def _error_event(wire: Wire, message: str) -> bytes:
    told: dict[str, object] = {"type": "overloaded_error", "message": message}
    return scripted.anthropic_event({"type": "error", "error": told}) if wire is CLAUDE else scripted.openai_event({"error": told})


async def test_an_error_event_inside_a_200_is_charged_by_its_usage_only(gateway: Gateway, provider: Upstream, wire: Wire) -> None:
    """F18: the error's own text is no output; what was delivered before is, and the upstream's event reaches the client as it is."""
    mine = await tenant(credit_microusd=CREDIT)
    event = _error_event(wire, "x" * 4000)
    provider.script(scripted.stream([*wire.begin(), event]))
    body = wire.body()
    answer = await _ask(gateway, wire, mine, body)
    assert answer.body.endswith(event)
    booked = await _booked(mine)
    counted = 25 if wire is CLAUDE else wire.counted(body)
    assert (booked.charge_microusd, booked.outcome) == (wire.price(counted, 3), "failed")


async def test_an_error_event_alone_costs_nothing(gateway: Gateway, provider: Upstream, wire: Wire) -> None:
    """F18: a 200 whose only event is an error has delivered nothing."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.script(scripted.stream([_error_event(wire, "Overloaded")]))
    assert b"Overloaded" in (await _ask(gateway, wire, mine, wire.body())).body
    assert (await _booked(mine)).charge_microusd == 0


# What an upstream says it used.


def _usage(wire: Wire, **numbers: Any) -> Script:
    return scripted.stream(wire.stream(end_usage=numbers) if wire is CLAUDE else wire.stream(usage=numbers))


async def test_usage_that_never_comes_is_estimated(gateway: Gateway, provider: Upstream, wire: Wire) -> None:
    """A whole stream without final usage is charged by what it delivered: 11 characters are 3 tokens, never nothing."""
    mine = await tenant(credit_microusd=CREDIT)
    parts = list(wire.stream(usage=None)) if wire is GPT else [part for part in wire.stream() if b"message_delta" not in part]
    provider.script(scripted.stream(parts))
    body = wire.body()
    await _ask(gateway, wire, mine, body)
    booked = await _booked(mine)
    assert (booked.output_tokens, booked.token_source, booked.outcome) == (3, "estimate", "succeeded")
    assert booked.charge_microusd == wire.price(25 if wire is CLAUDE else wire.counted(body), 3)


@pytest.mark.parametrize("stream", [False, True])
async def test_what_an_advisor_did_is_charged(gateway: Gateway, provider: Upstream, wire: Wire, stream: bool) -> None:
    """F13: what another model did inside an answer is no gift: 900 tokens in and 70 out of claude-haiku-5-5 are 125 microdollars more."""
    mine = await tenant(credit_microusd=CREDIT)
    made = [{"type": "advisor_message", "model": "claude-haiku-5-5", "input_tokens": 900, "output_tokens": 70}] if wire is CLAUDE else None
    if stream:
        provider.script(_usage(wire, output_tokens=12, iterations=made) if made else scripted.stream(wire.stream()))
    else:
        provider.script(scripted.whole(wire.whole(**({"iterations": made} if made else {}))))
    await _ask(gateway, wire, mine, wire.body(stream=stream))
    assert (await _booked(mine)).charge_microusd == wire.price() + (125 if made else 0)


async def test_usage_that_comes_twice_counts_once(gateway: Gateway, provider: Upstream, wire: Wire) -> None:
    """F11: two reports are one: the later one, in one row."""
    mine = await tenant(credit_microusd=CREDIT)
    parts = wire.stream()
    report = next(part for part in parts if b'"message_delta"' in part or b'"choices":[]' in part)
    place = parts.index(report)
    provider.script(scripted.stream([*parts[:place], report, report, *parts[place + 1 :]]))
    await _ask(gateway, wire, mine, wire.body())
    booked = await _booked(mine)
    assert (booked.charge_microusd, booked.events) == (wire.price(), 1)


NONSENSE: dict[str, Any] = {"negative": -5, "fraction": 1.5, "text": "12", "truth": True, "huge": 2**63, "endless": 10**400, "largest": 2**53}


@pytest.mark.parametrize("number", NONSENSE)
async def test_nonsense_in_usage_settles_all_the_same(gateway: Gateway, provider: Upstream, wire: Wire, number: str) -> None:
    """F14, F19: a number that is no count mints no credit and blocks no settlement; the books stay sound, the hold is closed."""
    mine = await tenant(credit_microusd=CREDIT)
    value = NONSENSE[number]
    provider.script(_usage(wire, output_tokens=value) if wire is CLAUDE else _usage(wire, prompt_tokens=25, completion_tokens=value, total_tokens=1))
    answer = await _ask(gateway, wire, mine, wire.body())
    assert wire.end in answer.body
    booked = await settled(await only_call(mine))
    assert booked.charge_microusd > 0
    assert 0 <= await quiet(mine) < CREDIT
    if number != "largest":
        assert booked.token_source == "estimate"
        assert booked.charge_microusd < 1000


async def test_more_than_the_balance_is_charged_in_full(gateway: Gateway, provider: Upstream, wire: Wire) -> None:
    """F19: a charge beyond the balance takes what is there and writes the rest off, visibly; the balance is 0 and never less."""
    mine = await tenant(credit_microusd=50_000)
    provider.script(_usage(wire, output_tokens=10_000) if wire is CLAUDE else _usage(wire, prompt_tokens=25, completion_tokens=10_000, total_tokens=10_025))
    await _ask(gateway, wire, mine, wire.body())
    booked = await settled(await only_call(mine))
    assert booked.charge_microusd == wire.price(25, 10_000)
    assert await quiet(mine) == 0
    written_off = await database.fetch_value("SELECT sum(amount)::bigint FROM transfer WHERE workspace_id = $1 AND kind = 'write_off'", mine.workspace_id)
    assert written_off == wire.price(25, 10_000) - 50_000


# Size and length.


async def test_a_line_of_10_mb_passes(gateway: Gateway, provider: Upstream, wire: Wire) -> None:
    """One event of 10 MB goes through in bounded memory, and what follows is read as ever."""
    mine = await tenant(credit_microusd=CREDIT)
    long = b"data: {" + b" " * 10_000_000 + b"}\n\n"
    parts = wire.stream()
    provider.script(scripted.stream([*parts[:2], long, *parts[2:]]))
    answer = await _ask(gateway, wire, mine, wire.body())
    assert long in answer.body
    assert (await _booked(mine)).charge_microusd == wire.price()


def _endless(wire: Wire, piece: str) -> Script:
    """Stream deltas of one piece for as long as the client stays."""

    async def script(exchange: Exchange) -> None:
        *before, delta = wire.begin((piece,))
        await exchange.head()
        for part in before:
            await exchange.send(part)
        while True:
            await exchange.send(delta)
            await asyncio.sleep(0)

    return script


def _tokens_told(wire: Wire, stream: bytes, piece: bytes) -> int:
    return -(-stream.count(piece) * len(piece) // 4)


async def test_a_stream_that_runs_past_its_clamp_is_ended_properly(gateway: Gateway, provider: Upstream, wire: Wire) -> None:
    """F35: the balance affords 100 tokens of output, the provider is told so, ignores it and is ended by us; the balance is 0, not less."""
    body = wire.body(max_tokens=1000)
    mine = await tenant(credit_microusd=_affording(wire, body, 100))
    provider.script(_endless(wire, "four"))
    answer = await _ask(gateway, wire, mine, body)
    assert answer.headers["x-max-tokens-clamped"] == "100"
    assert json.loads(provider.requests[0].body)["max_tokens"] == 100
    assert wire.end in answer.body
    assert (b'"stop_reason":"max_tokens"' if wire is CLAUDE else b'"finish_reason":"length"') in answer.body
    await provider.requests[0].finished.wait()
    booked = await settled(await only_call(mine))
    assert (booked.outcome, booked.token_source) == ("succeeded", "estimate")
    assert booked.output_tokens == _tokens_told(wire, answer.body, b"four")
    assert booked.output_tokens == 2 * 100 + 64
    assert await quiet(mine) == 0


async def test_a_whole_answer_is_clamped_to_the_balance(gateway: Gateway, provider: Upstream, wire: Wire) -> None:
    """A balance that cannot pay `max_tokens` lowers it, tells so in a header, and lets the call through."""
    body = wire.body(max_tokens=1000, stream=False)
    mine = await tenant(credit_microusd=_affording(wire, body, 50))
    provider.script(scripted.whole(wire.whole()))
    answer = await _ask(gateway, wire, mine, body)
    assert (answer.status, answer.headers["x-max-tokens-clamped"]) == (200, "50")
    assert provider.requests[0].body == body.replace(b'"max_tokens":1000', b'"max_tokens":50')


async def test_a_connection_that_the_provider_closed_is_opened_anew(gateway: Gateway, provider: Upstream, wire: Wire) -> None:
    """A kept connection that the provider closed is opened anew and the call served; nobody hears of it."""
    mine = await tenant(credit_microusd=CREDIT)

    async def closing(exchange: Exchange) -> None:
        await scripted.whole(wire.whole(), headers={"connection": "close"})(exchange)

    provider.script(closing)
    for _ in range(3):
        assert (await _ask(gateway, wire, mine, wire.body(stream=False))).status == 200
    assert len(provider.requests) == 3
    assert await quiet(mine) == CREDIT - 3 * wire.price()
