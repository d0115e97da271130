"""A client of one dialect and a model served in the other: through the gateway, with the official SDKs, and in the books."""

import json

import anthropic
import openai
import pytest

from tests.support import upstream as scripted
from tests.support.gateway import Gateway
from tests.support.upstream import Upstream
from tests.support.world import broken, tenant

pytestmark = pytest.mark.anyio

CREDIT = 5_000_000
GPT = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1_790_000_000,
    "model": "gpt-5.5",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "It rains."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
}
CLAUDE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-opus-5-5",
    "content": [{"type": "text", "text": "It rains."}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 100, "output_tokens": 20},
}


async def test_an_anthropic_client_uses_a_model_of_openai(gateway: Gateway, provider: Upstream) -> None:
    """Messages in, Chat Completions out, and back; 100 tokens at 5 USD and 20 at 30 USD a million are 1100 microdollars."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.script(scripted.whole(json.dumps(GPT).encode()))
    async with anthropic.AsyncAnthropic(base_url=gateway.url, api_key=mine.secret, max_retries=0) as client:
        answer = await client.messages.create(model="gpt-5.5", max_tokens=100, system="Be brief.", messages=[{"role": "user", "content": "Weather?"}])
    assert answer.content[0].type == "text"
    assert (answer.content[0].text, answer.stop_reason) == ("It rains.", "end_turn")
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (100, 20)
    sent = provider.requests[0]
    assert sent.path == "/v1/chat/completions"
    assert [message["role"] for message in json.loads(sent.body)["messages"]] == ["system", "user"]
    assert (await mine.balance()).balance == CREDIT - 1100
    assert await broken(mine) == []


async def test_an_openai_client_uses_a_model_of_anthropic(gateway: Gateway, provider: Upstream) -> None:
    """Chat Completions in, Messages out, and back; 100 tokens at 4 USD and 20 at 20 USD a million are 800 microdollars."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.script(scripted.whole(json.dumps(CLAUDE).encode()))
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=mine.secret, max_retries=0) as client:
        answer = await client.chat.completions.create(model="claude-opus-5-5", messages=[{"role": "user", "content": "Weather?"}])
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("It rains.", "stop")
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (100, 20)
    sent = provider.requests[0]
    assert sent.path == "/v1/messages"
    assert sent.header("anthropic-version") == "2023-06-01"
    assert (await mine.balance()).balance == CREDIT - 800
    assert await broken(mine) == []


async def test_streams_are_translated_and_charged_before_their_end(gateway: Gateway, provider: Upstream) -> None:
    """Both ways, the SDK reads the stream to its end, and what the provider reported is charged."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.script(scripted.stream(scripted.openai_stream()), scripted.stream(scripted.anthropic_stream()))
    async with (
        anthropic.AsyncAnthropic(base_url=gateway.url, api_key=mine.secret, max_retries=0) as client,
        client.messages.stream(model="gpt-5.5", max_tokens=100, messages=[{"role": "user", "content": "Weather?"}]) as stream,
    ):
        message = await stream.get_final_message()
    assert message.stop_reason == "end_turn"
    first = message.usage.input_tokens * 5 + message.usage.output_tokens * 30 + (message.usage.cache_read_input_tokens or 0) // 2
    assert (await mine.balance()).balance == CREDIT - first
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=mine.secret, max_retries=0) as other:
        chunks = await other.chat.completions.create(
            model="claude-opus-5-5", messages=[{"role": "user", "content": "Weather?"}], stream=True, stream_options={"include_usage": True}
        )
        seen = [chunk async for chunk in chunks]
    assert seen[-1].usage is not None
    assert any(chunk.choices and chunk.choices[0].finish_reason == "stop" for chunk in seen)
    assert (await mine.balance()).balance < CREDIT - first
    assert await broken(mine) == []


async def test_what_cannot_be_translated_is_refused_before_anything_is_held(gateway: Gateway, provider: Upstream) -> None:
    """A server tool has no counterpart: 400 that names it, nothing is sent and nothing moves."""
    mine = await tenant(credit_microusd=CREDIT)
    async with anthropic.AsyncAnthropic(base_url=gateway.url, api_key=mine.secret, max_retries=0) as client:
        with pytest.raises(anthropic.BadRequestError, match="web_search"):
            await client.messages.create(
                model="gpt-5.5",
                max_tokens=100,
                messages=[{"role": "user", "content": "Weather?"}],
                tools=[{"type": "web_search_20250305", "name": "web_search"}],
            )
    assert provider.requests == []
    assert (await mine.balance()).balance == CREDIT
    assert (await mine.balance()).held == 0


async def test_a_providers_error_is_told_in_the_clients_words(gateway: Gateway, provider: Upstream) -> None:
    """A 400 of an OpenAI-dialect provider reaches an Anthropic client in its own shape, with the provider's message."""
    mine = await tenant(credit_microusd=CREDIT)
    error = {"error": {"message": "prompt is too long", "type": "invalid_request_error", "param": None, "code": "context_length_exceeded"}}
    provider.script(scripted.status(400, error))
    async with anthropic.AsyncAnthropic(base_url=gateway.url, api_key=mine.secret, max_retries=0) as client:
        with pytest.raises(anthropic.BadRequestError, match="prompt is too long"):
            await client.messages.create(model="gpt-5.5", max_tokens=100, messages=[{"role": "user", "content": "Weather?"}])
    assert (await mine.balance()).balance == CREDIT
