"""What an answer says of itself beside its body: model, route, charge, balance; and what a call would cost, told without making it."""

import json
from typing import Any

import anthropic
import openai
import pytest

from models.enums import ApiKeyMode
from tests.support import upstream as scripted
from tests.support.books import calls_of, quiet
from tests.support.calling import CLAUDE, GPT, WIRES, Wire, bearer, remark, said, session
from tests.support.gateway import Gateway
from tests.support.upstream import Upstream
from tests.support.world import Tenant, tenant

pytestmark = pytest.mark.anyio

CREDIT = 1_000_000
EACH = pytest.mark.parametrize("wire", WIRES, ids=[wire.name for wire in WIRES])


async def _ask(gateway: Gateway, wire: Wire, mine: Tenant, body: bytes, **headers: str) -> tuple[int, dict[str, str], bytes]:
    async with session() as client, client.post(gateway.url + wire.path, data=body, headers=bearer(mine.secret) | headers) as response:
        return response.status, {name.lower(): value for name, value in response.headers.items()}, await response.read()


@EACH
async def test_a_whole_answer_tells_what_it_cost_in_its_header(gateway: Gateway, provider: Upstream, wire: Wire) -> None:
    """Call id, model, route, charge and what is left, all in microdollars, after the settlement; the body is the provider's."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.script(scripted.whole(wire.whole()))
    _, headers, body = await _ask(gateway, wire, mine, wire.body(stream=False))
    assert body == wire.whole()
    assert {name: value for name, value in headers.items() if name.startswith("x-tallygate-")} == {
        "x-tallygate-model": wire.model,
        "x-tallygate-route": "named",
        "x-tallygate-charge-microusd": str(wire.price()),
        "x-tallygate-balance-microusd": str(CREDIT - wire.price()),
    }
    assert headers["x-request-id"] == str((await calls_of(mine))[0])


@EACH
async def test_a_stream_tells_what_it_cost_in_a_comment(gateway: Gateway, provider: Upstream, wire: Wire) -> None:
    """One comment line before the last event, in the form that every reader of event streams ignores; no event is invented or changed."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.script(scripted.stream(wire.stream()))
    _, headers, body = await _ask(gateway, wire, mine, wire.body(stream_options={"include_usage": True} if wire is GPT else None))
    assert said(body) == b"".join(wire.stream())
    assert remark(body) == {
        "call": headers["x-request-id"],
        "model": wire.model,
        "charge_microusd": wire.price(),
        "balance_microusd": CREDIT - wire.price(),
    }
    assert body.index(b": tallygate") < body.index(wire.end)
    assert headers["x-tallygate-model"] == wire.model
    assert "x-tallygate-charge-microusd" not in headers


@EACH
async def test_a_stream_that_breaks_inside_an_event_tells_it_too(gateway: Gateway, provider: Upstream, wire: Wire) -> None:
    """Cut between the lines of an event, the comment disturbs nothing: the error event is the last one, and whole."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.script(scripted.stream([*wire.begin(), b": of the provider\n"], then=scripted.cut))
    _, _, body = await _ask(gateway, wire, mine, wire.body())
    wire.refusal(said(body).rstrip(b"\n").rsplit(b"data: ", 1)[-1])
    assert remark(body)["charge_microusd"] > 0


async def test_the_official_sdks_do_not_see_the_comment(gateway: Gateway) -> None:
    """Both SDKs read the same text and finish as ever, streamed from `echo`, whose last event the comment precedes."""
    mine = await tenant(credit_microusd=CREDIT)
    question: Any = [{"role": "user", "content": "Say this back."}]
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=mine.secret, max_retries=0) as chat:
        stream = await chat.chat.completions.create(model="echo", messages=question, stream=True)
        chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Say this back."
    assert chunks[-1].choices[0].finish_reason == "stop"
    async with (
        anthropic.AsyncAnthropic(base_url=gateway.url, api_key=mine.secret, max_retries=0) as messages,
        messages.messages.stream(model="echo", max_tokens=100, messages=question) as events,
    ):
        kinds = [event.type async for event in events]
        message = await events.get_final_message()
    assert kinds[-1] == "message_stop"
    assert (message.stop_reason, message.content[0].type) == ("end_turn", "text")


async def test_a_refusal_after_admission_tells_that_nothing_was_charged(gateway: Gateway, provider: Upstream) -> None:
    """A provider that fails: 0 microdollars, and all of the balance."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.script(scripted.status(500))
    status, headers, _ = await _ask(gateway, CLAUDE, mine, CLAUDE.body(stream=False))
    assert (status, headers["x-tallygate-charge-microusd"], headers["x-tallygate-balance-microusd"]) == (502, "0", str(CREDIT))


# Dry runs.

DRY = {"x-tallygate-dry-run": "true"}


@EACH
@pytest.mark.parametrize("stream", [True, False])
async def test_a_dry_run_prices_a_call_without_making_it(gateway: Gateway, provider: Upstream, wire: Wire, stream: bool) -> None:
    """Counted input at least, the dearest input and all of `max_tokens` at most, what would be held; no request upstream, no call, no hold."""
    mine = await tenant(credit_microusd=CREDIT)
    body = wire.body(stream=stream)
    status, headers, told = await _ask(gateway, wire, mine, body, **DRY)
    counted = wire.counted(body)
    dearest = {"anthropic": (8, 20), "openai": (12.5, 75)}[wire.name]
    most = int(counted * dearest[0] + 1000 * dearest[1] + 0.99)
    assert (status, headers["content-type"]) == (200, "application/json")
    assert json.loads(told) == {
        "object": "dry_run",
        "requested_model": wire.model,
        "model": wire.model,
        "route": "named",
        "fallbacks": [],
        "input_tokens": counted,
        "max_output_tokens": 1000,
        "cost_microusd": {"minimum": counted * wire.input_microusd, "maximum": most},
        "would_be_admitted": True,
        "hold_microusd": most,
        "max_tokens_clamped": None,
        "refusal": None,
    }
    assert provider.requests == []
    assert await calls_of(mine) == []
    assert await quiet(mine) == CREDIT


async def test_a_dry_run_of_auto_tells_what_it_would_be(gateway: Gateway) -> None:
    """The model that the router would choose, and those that would follow it."""
    mine = await tenant(credit_microusd=CREDIT)
    told = json.loads((await _ask(gateway, CLAUDE, mine, CLAUDE.body(model="auto"), **DRY))[2])
    assert (told["model"], told["route"], told["fallbacks"]) == ("claude-haiku-5-5", "router auto", ["claude-opus-5-5", "gpt-5.5"])


async def test_a_dry_run_tells_what_would_be_refused_or_clamped(gateway: Gateway) -> None:
    """Without credit it is 402 in the result, with a little it is clamped; a test key may not; nothing of it is kept."""
    poor, little, test = await tenant(), await tenant(credit_microusd=5000), await tenant(mode=ApiKeyMode.TEST)
    body = CLAUDE.body(stream=False)
    refused = json.loads((await _ask(gateway, CLAUDE, poor, body, **DRY))[2])
    assert (refused["would_be_admitted"], refused["refusal"]["status"], refused["refusal"]["code"]) == (False, 402, "insufficient_credit")
    clamped = json.loads((await _ask(gateway, CLAUDE, little, body, **DRY))[2])
    assert (clamped["would_be_admitted"], clamped["max_tokens_clamped"]) == (True, (5000 - CLAUDE.counted(body) * 8) // 20)
    forbidden = json.loads((await _ask(gateway, CLAUDE, test, body, **DRY))[2])
    assert (forbidden["would_be_admitted"], forbidden["refusal"]["status"]) == (False, 403)
    assert await quiet(little) == 5000


@EACH
async def test_a_dry_run_of_a_bad_request_is_that_refusal(gateway: Gateway, wire: Wire) -> None:
    """An unknown model, a body that cannot be read, a key that does not work, a header that says neither: refused as the call itself would be."""
    mine = await tenant(credit_microusd=CREDIT)
    assert (await _ask(gateway, wire, mine, wire.body(model="nothing"), **DRY))[0] == 404
    assert (await _ask(gateway, wire, mine, b"{", **DRY))[0] == 400
    assert (await _ask(gateway, wire, mine, wire.body(), **DRY, authorization="Bearer tg_live_no"))[0] == 401
    status, _, told = await _ask(gateway, wire, mine, wire.body(), **{"x-tallygate-dry-run": "maybe"})
    assert status == 400
    wire.refusal(told)
