"""The official SDKs against a running gateway: what a person's first hour looks like."""

import json

import anthropic
import openai
import pytest

from domain.access import keys
from tests.support import upstream as scripted
from tests.support.gateway import Gateway
from tests.support.upstream import Upstream
from tests.support.world import Tenant, broken, tenant

pytestmark = pytest.mark.anyio

# `echo` counts one token for every four code points begun, and costs 1 USD and 2 USD a million: input 1 and output 2 microdollars a token.
QUESTION = "Say this back to me, word for word."
TOKENS = 9


def _openai(gateway: Gateway, secret: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=secret, max_retries=0)


def _anthropic(gateway: Gateway, secret: str) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=gateway.url, api_key=secret, max_retries=0)


async def _settled(of: Tenant, before: int) -> int:
    balance = await of.balance()
    assert balance.held == 0
    assert await broken(of) == []
    return before - balance.balance


async def test_a_chat_completion_is_charged_to_the_microdollar(gateway: Gateway) -> None:
    """A whole answer over the OpenAI SDK costs tokens times price: 9 x 1 + 9 x 2 = 27 microdollars."""
    mine = await tenant(credit_microusd=1_000_000)
    async with _openai(gateway, mine.secret) as client:
        answer = await client.chat.completions.create(model="echo", messages=[{"role": "user", "content": QUESTION}])
    assert answer.choices[0].message.content == QUESTION
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (TOKENS, TOKENS)
    assert await _settled(mine, 1_000_000) == 27


async def test_a_streamed_chat_completion_is_charged_before_its_end_is_seen(gateway: Gateway) -> None:
    """When the SDK has seen the last event, the charge is booked already."""
    mine = await tenant(credit_microusd=1_000_000)
    async with _openai(gateway, mine.secret) as client:
        stream = await client.chat.completions.create(model="echo", messages=[{"role": "user", "content": QUESTION}], stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text == QUESTION
    assert await _settled(mine, 1_000_000) == 27


async def test_a_message_is_charged_to_the_microdollar(gateway: Gateway) -> None:
    """A whole answer over the Anthropic SDK costs tokens times price."""
    mine = await tenant(credit_microusd=1_000_000)
    async with _anthropic(gateway, mine.secret) as client:
        answer = await client.messages.create(model="echo", max_tokens=100, messages=[{"role": "user", "content": QUESTION}])
    assert answer.content[0].type == "text"
    assert answer.content[0].text == QUESTION
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (TOKENS, TOKENS)
    assert await _settled(mine, 1_000_000) == 27


async def test_a_streamed_message_is_charged_before_its_end_is_seen(gateway: Gateway) -> None:
    """The Anthropic SDK's stream helper reads our stream to its end, and the charge is booked by then."""
    mine = await tenant(credit_microusd=1_000_000)
    async with (
        _anthropic(gateway, mine.secret) as client,
        client.messages.stream(model="echo", max_tokens=100, messages=[{"role": "user", "content": QUESTION}]) as stream,
    ):
        text = "".join([piece async for piece in stream.text_stream])
        final = await stream.get_final_message()
    assert text == QUESTION
    assert final.stop_reason == "end_turn"
    assert await _settled(mine, 1_000_000) == 27


async def test_tools_are_called_over_both_sdks(gateway: Gateway) -> None:
    """A tool call arrives whole, and its arguments are charged as output: 25 code points are 7 tokens in and, as `{"city": "Oslo"}`, 4 out."""
    mine = await tenant(credit_microusd=1_000_000)
    ask = 'tool:weather {"city": "Oslo"}'
    schema: dict[str, object] = {"type": "object", "properties": {"city": {"type": "string"}}}
    async with _openai(gateway, mine.secret) as client:
        answer = await client.chat.completions.create(
            model="echo", messages=[{"role": "user", "content": ask}], tools=[{"type": "function", "function": {"name": "weather", "parameters": schema}}]
        )
    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].type == "function"
    assert (calls[0].function.name, json.loads(calls[0].function.arguments)) == ("weather", {"city": "Oslo"})
    assert answer.usage is not None
    first = answer.usage.prompt_tokens + 2 * answer.usage.completion_tokens
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (8, 4)
    assert await _settled(mine, 1_000_000) == first
    async with _anthropic(gateway, mine.secret) as other:
        message = await other.messages.create(
            model="echo", max_tokens=100, messages=[{"role": "user", "content": ask}], tools=[{"name": "weather", "input_schema": schema}]
        )
    block = message.content[0]
    assert block.type == "tool_use"
    assert (block.name, block.input, message.stop_reason) == ("weather", {"city": "Oslo"}, "tool_use")
    assert await _settled(mine, 1_000_000) == 2 * first


async def test_a_revoked_key_fails_on_its_next_request(gateway: Gateway) -> None:
    """K1, F28: no cache remembers a key; both SDKs raise their authentication error at once, and nothing is charged."""
    mine = await tenant(credit_microusd=1_000_000)
    key, secret = await mine.mint(name="short-lived")
    async with _openai(gateway, secret) as client:
        await client.chat.completions.create(model="echo", messages=[{"role": "user", "content": "hi"}])
        await keys.revoke(mine.caller(), key.id)
        with pytest.raises(openai.AuthenticationError) as refused:
            await client.chat.completions.create(model="echo", messages=[{"role": "user", "content": "hi"}])
    assert refused.value.response.headers["x-should-retry"] == "false"
    async with _anthropic(gateway, secret) as other:
        with pytest.raises(anthropic.AuthenticationError):
            await other.messages.create(model="echo", max_tokens=5, messages=[{"role": "user", "content": "hi"}])
    assert await _settled(mine, 1_000_000) == 3


async def test_an_empty_balance_is_402_in_both_dialects(gateway: Gateway) -> None:
    """Without credit the SDKs see 402 with words for a person, which say where to add some; no upstream is called, and nothing moves."""
    mine = await tenant()
    async with _openai(gateway, mine.secret) as client:
        with pytest.raises(openai.APIStatusError) as refused:
            await client.chat.completions.create(model="echo", messages=[{"role": "user", "content": "hi"}])
    assert refused.value.status_code == 402
    assert refused.value.code == "insufficient_quota"
    async with _anthropic(gateway, mine.secret) as other:
        with pytest.raises(anthropic.APIStatusError) as refused_too:
            await other.messages.create(model="echo", max_tokens=5, messages=[{"role": "user", "content": "hi"}])
    assert refused_too.value.status_code == 402
    assert "The balance is used up: $0.00 can be spent" in str(refused_too.value)
    assert f"Add credit, then try again: {gateway.url}/billing" in str(refused_too.value)
    assert await _settled(mine, 0) == 0


async def test_an_upstream_error_is_handed_on_and_costs_nothing(gateway: Gateway, provider: Upstream) -> None:
    """A 529 of the provider reaches the SDK as it is, and the hold is released."""
    mine = await tenant(credit_microusd=5_000_000)
    provider.script(scripted.status(529))
    async with _anthropic(gateway, mine.secret) as client:
        with pytest.raises(anthropic.APIStatusError) as failed:
            await client.messages.create(model="claude-haiku-5-5", max_tokens=5, messages=[{"role": "user", "content": "hi"}])
    assert failed.value.status_code == 529
    assert await _settled(mine, 5_000_000) == 0
