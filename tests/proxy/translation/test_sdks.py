"""The official SDKs read what we translate, over real HTTP: every stream to its end, or the error that it holds."""

import json
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import openai
import pytest

from proxy.translation import anthropic_to_openai, openai_to_anthropic
from tests.proxy.translation.pairs import FUNCTION, PICTURE_PART, SCHEMA, call, text, tool, user
from tests.proxy.translation.streams import (
    ANTHROPIC_ASK,
    CHATS,
    CREATED_SECONDS,
    FULL_USAGE,
    MESSAGES,
    OPENAI_ASK,
    REPORT,
    TOLD,
    Stream,
    calling,
    chats,
    chunk,
    read_chats,
    read_messages,
)
from tests.support import upstream as scripted
from tests.support.upstream import Upstream

pytestmark = pytest.mark.anyio


class Both:
    """A server that answers with what the translation gave, and a client of each kind that asks it once."""

    def __init__(self, server: Upstream) -> None:
        self.server = server
        self.anthropic = anthropic.AsyncAnthropic(base_url=server.url, api_key="k", max_retries=0)
        self.openai = openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="k", max_retries=0)


@pytest.fixture(scope="module")
async def both() -> AsyncIterator[Both]:
    """One server and two clients for the whole module: clients take longer to make than to ask."""
    async with scripted.serve() as started:
        made = Both(started)
        async with made.anthropic, made.openai:
            yield made


def parts(translator: Any, stream: bytes, size: int = 37) -> list[bytes]:
    """Translate a stream cut into small chunks; give what leaves after each."""
    return [*(translator.feed(stream[start : start + size]) for start in range(0, len(stream), size)), translator.end()]


@pytest.mark.parametrize("stream", CHATS, ids=lambda stream: stream.name)
async def test_the_anthropic_sdk_reads_every_stream(both: Both, stream: Stream) -> None:
    """The stream helper builds the message that the events say, with usage and stop reason, or raises the error that they tell."""
    both.server.script(scripted.stream(parts(anthropic_to_openai.stream(ANTHROPIC_ASK, created_seconds=CREATED_SECONDS), stream.sent)))
    messages: list[Any] = [user("a")]
    if stream.got[-1]["type"] == "error":
        with pytest.raises(anthropic.APIError, match=stream.got[-1]["error"]["message"]):
            async with both.anthropic.messages.stream(model="m", max_tokens=9, messages=messages) as broken:
                await broken.get_final_message()
        return
    async with both.anthropic.messages.stream(model="m", max_tokens=9, messages=messages) as whole:
        final = await whole.get_final_message()
    built: list[tuple[str, str]] = []
    for event in stream.got:
        if event["type"] == "content_block_start":
            built.append((event["content_block"].get("id", "text"), ""))
        elif event["type"] == "content_block_delta":
            built[-1] = (built[-1][0], built[-1][1] + event["delta"].get("text", "") + event["delta"].get("partial_json", ""))
    for block, (identity, told) in zip(final.content, built, strict=True):
        if block.type == "tool_use":
            assert (block.id, block.input) == (identity, json.loads(told or "{}"))
        else:
            assert block.type == "text"
            assert block.text == told
    end = stream.got[-2]
    assert final.stop_reason == end["delta"]["stop_reason"]
    assert (final.usage.input_tokens, final.usage.output_tokens) == (end["usage"]["input_tokens"], end["usage"]["output_tokens"])


@pytest.mark.parametrize("stream", MESSAGES, ids=lambda stream: stream.name)
async def test_the_openai_sdk_reads_every_stream(both: Both, stream: Stream) -> None:
    """The stream helper builds the completion that the chunks say, with usage and finish reason, or raises the error that they tell."""
    both.server.script(scripted.stream(parts(openai_to_anthropic.stream(OPENAI_ASK, created_seconds=CREATED_SECONDS), stream.sent)))
    deltas = [one["choices"][0]["delta"] for one in stream.got if one.get("choices")]
    helper = both.openai.chat.completions.stream(model="m", messages=[{"role": "user", "content": "a"}], stream_options={"include_usage": True})
    if "error" in stream.got[-1]:
        with pytest.raises(openai.APIError, match=stream.got[-1]["error"]["message"]):
            async with helper as broken:
                await broken.get_final_completion()
        return
    seen = []
    async with helper as whole:
        async for event in whole:
            if event.type == "chunk":
                seen.append(event.chunk)
    assert [one.choices[0].delta.content or "" for one in seen if one.choices] == [delta.get("content") or "" for delta in deltas]
    told: dict[int, list[str]] = {}
    for one in seen:
        for part in (one.choices[0].delta.tool_calls or []) if one.choices else []:
            entry = told.setdefault(part.index, ["", ""])
            entry[0] += part.id or ""
            entry[1] += (part.function.arguments or "") if part.function else ""
    expected: dict[int, list[str]] = {}
    for delta in deltas:
        for part in delta.get("tool_calls", []):
            entry = expected.setdefault(part["index"], ["", ""])
            entry[0] += part.get("id", "")
            entry[1] += part["function"]["arguments"]
    assert told == expected
    assert all(json.loads(arguments) is not None for _, arguments in told.values())
    assert seen[-2].choices[0].finish_reason == stream.got[-3]["choices"][0]["finish_reason"]
    usage = seen[-1].usage
    assert usage is not None
    assert usage.model_dump(exclude_none=True) == FULL_USAGE


async def test_a_whole_round_of_the_anthropic_sdk(both: Both) -> None:
    """What the SDK sends is translated, answered by a completion with parallel calls, and read by the SDK as a message."""
    told = {"role": "assistant", "content": "Looking.", "tool_calls": [call("call_1", '{"city":"Rome"}'), call("call_2", "{}", "now")]}
    upstream = {"id": "chatcmpl-1", "model": "gpt-x", "choices": [{"index": 0, "message": told, "finish_reason": "tool_calls"}], "usage": REPORT}
    both.server.script(scripted.whole(anthropic_to_openai.answer(json.dumps(upstream).encode(), ANTHROPIC_ASK, created_seconds=CREATED_SECONDS)))
    answer = await both.anthropic.messages.create(
        model="m",
        max_tokens=50,
        system="Be brief.",
        tools=[{"name": "weather", "description": "Tells the weather.", "input_schema": {"type": "object", **SCHEMA}}],
        tool_choice={"type": "any", "disable_parallel_tool_use": True},
        messages=[{"role": "user", "content": "Rome?"}],
    )
    asked = json.loads(anthropic_to_openai.request(both.server.requests[-1].body, max_output_tokens=1))
    assert asked == {
        "model": "m",
        "max_completion_tokens": 50,
        "messages": [{"role": "system", "content": "Be brief."}, user("Rome?")],
        "tools": [FUNCTION],
        "tool_choice": "required",
        "parallel_tool_calls": False,
    }
    assert [block.model_dump(exclude_none=True) for block in answer.content] == [
        text("Looking."),
        {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Rome"}},
        {"type": "tool_use", "id": "call_2", "name": "now", "input": {}},
    ]
    assert (answer.stop_reason, answer.usage.input_tokens, answer.usage.cache_read_input_tokens) == ("tool_use", TOLD["input_tokens"], 60)


async def test_a_whole_round_of_the_openai_sdk(both: Both) -> None:
    """What the SDK sends is translated, answered by a message, and read by the SDK as a completion."""
    blocks = [{"type": "thinking", "thinking": "hm", "signature": "sig"}, text("Sun."), {"type": "tool_use", "id": "toolu_1", "name": "now", "input": {}}]
    upstream = {"id": "msg_1", "model": "claude-x", "content": blocks, "stop_reason": "tool_use", "usage": {"input_tokens": 5, "output_tokens": 6}}
    both.server.script(scripted.whole(openai_to_anthropic.answer(json.dumps(upstream).encode(), OPENAI_ASK, created_seconds=CREATED_SECONDS)))
    messages: list[Any] = [user([text("see"), PICTURE_PART]), {"role": "assistant", "tool_calls": [call("call_1", "{}")]}, tool("call_1", "x")]
    tools: list[Any] = [FUNCTION]
    answer = await both.openai.chat.completions.create(model="m", messages=messages, tools=tools, reasoning_effort="low")
    asked = json.loads(openai_to_anthropic.request(both.server.requests[-1].body, max_output_tokens=77))
    assert (asked["max_tokens"], asked["output_config"], [turn["role"] for turn in asked["messages"]]) == (77, {"effort": "low"}, ["user", "assistant", "user"])
    choice = answer.choices[0]
    assert (choice.message.content, choice.finish_reason) == ("Sun.", "tool_calls")
    assert choice.message.tool_calls is not None
    assert [(one.id, one.type, one.function.arguments) for one in choice.message.tool_calls if one.type == "function"] == [("toolu_1", "function", "{}")]
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (5, 6, 11)


async def test_errors_reach_the_sdks_as_their_own(both: Both) -> None:
    """A translated error body is the SDK's own exception, with the upstream's message in it."""
    slow = json.dumps({"error": {"message": "Slow down.", "type": "x", "code": "rate_limit_exceeded"}}).encode()
    both.server.script(scripted.whole(anthropic_to_openai.error(429, slow, "req_1"), 429))
    with pytest.raises(anthropic.RateLimitError, match=r"Slow down\."):
        await both.anthropic.messages.create(model="m", max_tokens=1, messages=[{"role": "user", "content": "a"}])
    long = json.dumps({"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 9 > 5"}}).encode()
    both.server.script(scripted.whole(openai_to_anthropic.error(400, long, "req_1"), 400))
    with pytest.raises(openai.BadRequestError) as caught:
        await both.openai.chat.completions.create(model="m", messages=[{"role": "user", "content": "a"}])
    assert caught.value.code == "context_length_exceeded"


def test_a_stream_there_and_back_is_the_same_answer() -> None:
    """A completion translated to a message and back has the same text, calls, ids, arguments, finish and usage."""
    sent = chats(
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "Look"}),
        chunk({"content": "ing"}),
        chunk(calling(0, '{"a":', "call_1", "weather")),
        chunk(calling(1, '{"b":', "call_2", "time")),
        chunk(calling(0, "1}")),
        chunk(calling(1, "2}")),
        chunk({}, "tool_calls"),
        chunk(usage=REPORT),
    )
    there = b"".join(parts(anthropic_to_openai.stream(ANTHROPIC_ASK, created_seconds=CREATED_SECONDS), sent))
    assert read_messages(there)[-1] == {"type": "message_stop"}
    back = read_chats(b"".join(parts(openai_to_anthropic.stream(OPENAI_ASK, created_seconds=CREATED_SECONDS), there)))
    calls: dict[int, list[str]] = {}
    for one in back:
        for part in (one["choices"][0]["delta"].get("tool_calls", []) if one.get("choices") else []):
            entry = calls.setdefault(part["index"], [part.get("id", ""), part["function"].get("name", ""), ""])
            entry[2] += part["function"]["arguments"]
    assert calls == {0: ["call_1", "weather", '{"a":1}'], 1: ["call_2", "time", '{"b":2}']}
    assert "".join(one["choices"][0]["delta"].get("content") or "" for one in back if one.get("choices")) == "Looking"
    assert back[-3]["choices"][0]["finish_reason"] == "tool_calls"
    assert {name: back[-2]["usage"][name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")} == {
        name: REPORT[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")
    }
