"""The Responses API through a running gateway: the official SDK, bytes as they are, faults, and bills that are right."""

import json
from typing import Any

import httpx2
import openai
import pytest

from tests.proxy.dialects.responses_recordings import CREATED, deltas, events, message, report, response, stream
from tests.support import upstream as scripted
from tests.support.books import only_call, quiet, settled
from tests.support.calling import bearer, said
from tests.support.gateway import Gateway
from tests.support.upstream import Script, Upstream
from tests.support.world import tenant

pytestmark = pytest.mark.anyio

CREDIT = 5_000_000
QUESTION = "Say this back to me, word for word."
TOKENS = 9
# gpt-5.5 costs 5 and 30 USD a million tokens, cache reads half a dollar.
PRICE = 75 * 5 + 20 * 30


def _client(gateway: Gateway, secret: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=secret, max_retries=0)


async def test_a_response_is_charged_to_the_microdollar(gateway: Gateway) -> None:
    """The SDK's `responses.create` against `echo`, whole and streamed: 9 tokens in at 1, 9 out at 2 microdollars, twice."""
    mine = await tenant(credit_microusd=CREDIT)
    async with _client(gateway, mine.secret) as client:
        answer = await client.responses.create(model="echo", input=QUESTION)
        assert (answer.output_text, answer.status) == (QUESTION, "completed")
        assert answer.usage is not None
        assert (answer.usage.input_tokens, answer.usage.output_tokens) == (TOKENS, TOKENS)
        assert await quiet(mine) == CREDIT - 27
        async with client.responses.stream(model="echo", input=QUESTION) as opened:
            kinds = [event.type async for event in opened]
            final = await opened.get_final_response()
    assert final.output_text == QUESTION
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
    assert await quiet(mine) == CREDIT - 54


async def test_a_tool_is_called_over_responses(gateway: Gateway) -> None:
    """A function call arrives whole, streamed: its arguments are one object."""
    mine = await tenant(credit_microusd=CREDIT)
    tools: Any = [{"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": False}]
    async with _client(gateway, mine.secret) as client, client.responses.stream(model="echo", input='tool:weather {"city": "Oslo"}', tools=tools) as opened:
        final = await opened.get_final_response()
    (call,) = final.output
    assert call.type == "function_call"
    assert (call.name, json.loads(call.arguments)) == ("weather", {"city": "Oslo"})


async def test_bytes_pass_untouched(gateway: Gateway, provider: Upstream) -> None:
    """F37: request and answer are the same on both sides, to the byte; the charge is booked when the last event is seen."""
    mine = await tenant(credit_microusd=CREDIT)
    parts = stream("Hello", " world")
    provider.script(scripted.stream(parts))
    body = b'{ "model":"gpt-5.5", "input" : [{"role":"user","content":"hi"}],"stream":true,"store":false, "include":["reasoning.encrypted_content"],"x":1.0 }'
    async with httpx2.AsyncClient(base_url=gateway.url, timeout=60) as client:
        answer = await client.post("/v1/responses", content=body, headers=bearer(mine.secret) | {"openai-beta": "responses=v1", "session_id": "s"})
    assert said(answer.content) == b"".join(parts)
    assert (provider.requests[0].path, provider.requests[0].body) == ("/v1/responses", body)
    assert provider.requests[0].header("openai-beta") == "responses=v1"
    assert await quiet(mine) == CREDIT - PRICE


def _whole(**more: Any) -> Script:
    return scripted.whole(json.dumps(response(**{"output": [message("ok")], "usage": report(), **more})).encode())


ENDINGS: list[tuple[str, Script, int, str, int]] = [
    ("whole", _whole(), 200, "succeeded", PRICE),
    ("cached", _whole(usage=report(75, 20, cached=50, reasoning=9)), 200, "succeeded", 25 * 5 + 25 + 600),
    ("flex", _whole(service_tier="flex"), 200, "succeeded", 75 * 5 // 2 + 300),
    ("incomplete", _whole(status="incomplete", incomplete_details={"reason": "max_output_tokens"}), 200, "succeeded", PRICE),
    ("failed without usage", _whole(status="failed", output=[], usage=None, error={"code": "server_error", "message": "x"}), 200, "succeeded", 0),
    ("an error body under 200", scripted.whole(b'{"error":{"message":"x"}}'), 502, "failed", 0),
    ("a rejected request", scripted.status(400, {"error": {"message": "Unknown parameter", "type": "invalid_request_error"}}), 400, "failed", 0),
    ("a provider in trouble", scripted.status(500), 502, "failed", 0),
    ("no key of the operator's", scripted.status(401), 502, "failed", 0),
]


@pytest.mark.parametrize(("name", "script", "status", "outcome", "charge"), ENDINGS, ids=[row[0] for row in ENDINGS])
async def test_whole_answers_end_in_the_books(gateway: Gateway, provider: Upstream, name: str, script: Script, status: int, outcome: str, charge: int) -> None:
    """F9, F12, F18: each ending has its status, its outcome and its charge, and leaves no hold."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.script(script)
    async with httpx2.AsyncClient(base_url=gateway.url, headers=mine.bearer, timeout=60) as client:
        answer = await client.post("/v1/responses", json={"model": "gpt-5.5", "input": "hi", "max_output_tokens": 100})
    assert answer.status_code == status, answer.text
    booked = await settled(await only_call(mine))
    assert (booked.outcome, booked.charge_microusd) == (outcome, charge)
    assert await quiet(mine) == CREDIT - charge


async def test_an_incomplete_stream_is_charged(gateway: Gateway, provider: Upstream) -> None:
    """An answer that its bound has cut is a whole one: it ends as the provider ended it, and costs what that reports."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.script(scripted.stream(stream("Hello", status="incomplete", incomplete_details={"reason": "max_output_tokens"})))
    async with _client(gateway, mine.secret) as client:
        opened = await client.responses.create(model="gpt-5.5", input="hi", stream=True)
        kinds = [event.type async for event in opened]
    assert kinds[-1] == "response.incomplete"
    assert await quiet(mine) == CREDIT - PRICE


async def test_a_stream_that_breaks_is_told_and_estimated(gateway: Gateway, provider: Upstream) -> None:
    """F16: a cut in mid-stream never looks like an end; what was delivered is charged: 5 tokens counted in, 3 for `Hello world` out."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.script(scripted.stream(events(*CREATED, *deltas("Hello", " world"))[:5], then=scripted.cut))
    async with _client(gateway, mine.secret) as client:
        opened = await client.responses.create(model="gpt-5.5", input="hi", stream=True)
        with pytest.raises(openai.APIError, match="The provider broke off"):
            [event async for event in opened]
    booked = await settled(await only_call(mine))
    assert (booked.outcome, booked.error_code, booked.token_source) == ("failed", "upstream_cut", "estimate")
    assert booked.charge_microusd == 2 * 5 + 3 * 30
    assert await quiet(mine) == CREDIT - 100


async def test_an_error_in_mid_stream_is_handed_on(gateway: Gateway, provider: Upstream) -> None:
    """F18: the provider's error event reaches the client; before any text nothing is charged."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.script(scripted.stream(events(*CREATED, ("error", {"code": "server_error", "message": "The server had an error", "param": None}))))
    async with _client(gateway, mine.secret) as client:
        opened = await client.responses.create(model="gpt-5.5", input="hi", stream=True)
        seen = [event async for event in opened]
    assert seen[-1].type == "error"
    assert (await settled(await only_call(mine))).outcome == "failed"
    assert await quiet(mine) == CREDIT


@pytest.mark.parametrize(
    ("more", "status", "param"),
    [({"background": True}, 400, "background"), ({"tools": [{"type": "file_search"}]}, 400, "tools"), ({"model": "no-such"}, 404, "model"), ({"input": 5}, 400, "input")],
)
async def test_refusals_have_openai_s_shape(gateway: Gateway, provider: Upstream, more: dict[str, Any], status: int, param: str) -> None:
    """What cannot be served is refused before any upstream hears of it, naming the field; nothing is held."""
    mine = await tenant(credit_microusd=CREDIT)
    async with _client(gateway, mine.secret) as client:
        with pytest.raises(openai.APIStatusError) as refused:
            await client.responses.create(**{"model": "gpt-5.5", "input": "hi", **more})
    assert (refused.value.status_code, refused.value.param) == (status, param)
    assert provider.requests == []
    assert await quiet(mine) == CREDIT


async def test_a_poor_caller_gets_what_the_balance_affords(gateway: Gateway, provider: Upstream) -> None:
    """`max_output_tokens` is written in where the balance affords less than was asked, told in a header."""
    mine = await tenant(credit_microusd=1_000)
    provider.script(_whole(usage=report(2, 20)))
    async with httpx2.AsyncClient(base_url=gateway.url, headers=mine.bearer, timeout=60) as client:
        answer = await client.post("/v1/responses", json={"model": "gpt-5.5", "input": "hi"})
    asked = json.loads(provider.requests[0].body)["max_output_tokens"]
    assert answer.headers["x-max-tokens-clamped"] == str(asked)
    assert 0 < asked * 75 < 1_000
    assert await quiet(mine) == 1_000 - 10 - 600  # 2 in at 5, 20 out at 30


