"""The built-in model: both dialects, over HTTP, with counts that can be checked by hand."""

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import anthropic
import openai
import pytest

from embedded import echo

pytestmark = pytest.mark.anyio

TOOLS: list[Any] = [{"name": "weather", "description": "Tells the weather.", "input_schema": {"type": "object"}}]
FUNCTIONS: list[Any] = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]


@pytest.fixture
async def base() -> AsyncIterator[str]:
    """Serve echo for one test."""
    async with echo.serve() as url:
        yield url


async def _post(url: str, body: bytes) -> tuple[int, bytes]:
    async with aiohttp.ClientSession() as session, session.post(url, data=body) as response:
        return response.status, await response.read()


async def test_messages_whole(base: str) -> None:
    """A whole answer is the last user text; input is ceil(16 / 4) and output ceil(9 / 4) tokens."""
    async with anthropic.AsyncAnthropic(api_key="any", base_url=base) as client:
        message = await client.messages.create(
            model="echo", max_tokens=100, system="System.", messages=[{"role": "user", "content": [{"type": "text", "text": "Grüß dich"}]}]
        )
    assert [block.to_dict() for block in message.content] == [{"type": "text", "text": "Grüß dich"}]
    assert (message.model, message.stop_reason, message.usage.input_tokens, message.usage.output_tokens) == ("echo", "end_turn", 4, 3)


async def test_messages_streamed(base: str) -> None:
    """A stream has the events of the Messages API in their order, pieces of 16 code points, and the same counts."""
    text = "0123456789abcdef" * 2 + "end"
    async with anthropic.AsyncAnthropic(api_key="any", base_url=base) as client:
        stream = await client.messages.create(model="echo", max_tokens=100, messages=[{"role": "user", "content": text}], stream=True)
        events = [event async for event in stream]
    kinds = [event.type for event in events if event.type != "content_block_delta"]
    assert kinds == ["message_start", "content_block_start", "content_block_stop", "message_delta", "message_stop"]
    deltas = [event.delta.text for event in events if event.type == "content_block_delta" and event.delta.type == "text_delta"]
    assert deltas == ["0123456789abcdef", "0123456789abcdef", "end"]
    assert [event.message.usage.input_tokens for event in events if event.type == "message_start"] == [9]
    ends = [event.usage for event in events if event.type == "message_delta"]
    assert [(end.input_tokens, end.output_tokens) for end in ends] == [(9, 9)]  # cumulative, as Anthropic's: some clients read this one alone


async def test_messages_cut_by_the_limit(base: str) -> None:
    """An answer above max_tokens is cut to four code points for each token, and says so."""
    async with anthropic.AsyncAnthropic(api_key="any", base_url=base) as client:
        message = await client.messages.create(model="echo", max_tokens=2, messages=[{"role": "user", "content": "0123456789"}])
    assert [block.to_dict() for block in message.content] == [{"type": "text", "text": "01234567"}]
    assert (message.stop_reason, message.usage.output_tokens) == ("max_tokens", 2)


async def test_messages_tool_call(base: str) -> None:
    """`tool:<name> <json>` calls an offered tool; whole and streamed answers carry the same input."""
    asked: Any = [{"role": "user", "content": 'tool:weather {"city": "Bern"}'}]
    async with anthropic.AsyncAnthropic(api_key="any", base_url=base) as client:
        whole = await client.messages.create(model="echo", max_tokens=100, tools=TOOLS, messages=asked)
        async with client.messages.stream(model="echo", max_tokens=100, tools=TOOLS, messages=asked) as stream:
            streamed = await stream.get_final_message()
    for message in (whole, streamed):
        assert [(block.name, block.input) for block in message.content if block.type == "tool_use"] == [("weather", {"city": "Bern"})]
        assert (message.stop_reason, message.usage.output_tokens) == ("tool_use", 4)


async def test_tool_must_be_offered(base: str) -> None:
    """Without the tool on offer, the text is answered as text."""
    async with openai.AsyncOpenAI(api_key="any", base_url=base + "/v1") as client:
        completion = await client.chat.completions.create(model="echo", messages=[{"role": "user", "content": "tool:weather {}"}])
    assert completion.choices[0].message.content == "tool:weather {}"


async def test_chat_whole(base: str) -> None:
    """A whole completion is the last user text; input is ceil(10 / 4) and output ceil(5 / 4) tokens."""
    messages: Any = [{"role": "system", "content": "Short"}, {"role": "user", "content": "Hello"}]
    async with openai.AsyncOpenAI(api_key="any", base_url=base + "/v1") as client:
        completion = await client.chat.completions.create(model="echo", messages=messages)
    assert completion.choices[0].message.content == "Hello"
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens, completion.usage.total_tokens) == (3, 2, 5)


@pytest.mark.parametrize("streams", [True, False])
async def test_chat_several_choices(base: str, streams: bool) -> None:
    """With `n` every choice says the same, and all their tokens are counted together."""
    asked: Any = {"model": "echo", "messages": [{"role": "user", "content": "Hello"}], "n": 3}
    async with openai.AsyncOpenAI(api_key="any", base_url=base + "/v1") as client:
        if streams:
            async with client.chat.completions.stream(**asked, stream_options={"include_usage": True}) as stream:
                completion: Any = await stream.get_final_completion()
        else:
            completion = await client.chat.completions.create(**asked)
    assert [(choice.index, choice.message.content, choice.finish_reason) for choice in completion.choices] == [(index, "Hello", "stop") for index in range(3)]
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens, completion.usage.total_tokens) == (2, 6, 8)


@pytest.mark.parametrize("asks", [True, False])
async def test_chat_streamed(base: str, asks: bool) -> None:
    """A stream shows usage exactly when asked to: null on every chunk, then a chunk without choices."""
    options: Any = {"stream_options": {"include_usage": True}} if asks else {}
    body = {"model": "echo", "stream": True, "messages": [{"role": "user", "content": "Hello"}], **options}
    status, answer = await _post(base + "/v1/chat/completions", json.dumps(body).encode())
    events = answer.decode().split("\n\n")
    assert (status, events[-2:]) == (200, ["data: [DONE]", ""])
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    assert "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"]) == "Hello"
    assert [chunk["usage"] is None for chunk in chunks if "usage" in chunk] == ([True, True, True, False] if asks else [])
    if asks:
        assert (chunks[-1]["choices"], chunks[-1]["usage"]["prompt_tokens"], chunks[-1]["usage"]["completion_tokens"]) == ([], 2, 2)


async def test_chat_tool_call(base: str) -> None:
    """A streamed tool call puts its arguments together from pieces."""
    asked: Any = [{"role": "user", "content": 'tool:weather {"city": "Bern, Switzerland"}'}]
    async with openai.AsyncOpenAI(api_key="any", base_url=base + "/v1") as client:
        stream = await client.chat.completions.create(model="echo", messages=asked, tools=FUNCTIONS, stream=True)
        calls = [call async for chunk in stream for call in chunk.choices[0].delta.tool_calls or ()]
    assert [call.function.name for call in calls if call.function and call.function.name] == ["weather"]
    assert "".join(call.function.arguments or "" for call in calls if call.function) == '{"city": "Bern, Switzerland"}'


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"\xff", b'{"messages": 7}', b'{"messages": [7], "model": "echo"}', b"[" * 100_000])
async def test_bad_requests(base: str, body: bytes) -> None:
    """Whatever is no request is answered 400, and what is nowhere 404."""
    for path, told in (("/v1/messages", {"type", "error"}), ("/v1/chat/completions", {"error"})):
        status, said = await _post(base + path, body)
        assert (status, set(json.loads(said))) == (400, told)
    assert (await _post(base + "/v1/nowhere", body))[0] == 404


async def test_nobody_gets_many_times_what_they_sent(base: str) -> None:
    """What would fill the memory of the process is refused, or cut where the model ends: vectors, speech, and many choices of a long answer."""
    long = {"model": "echo", "input": "x" * 5_000}
    wide: list[dict[str, Any]] = [{"model": "echo", "input": "x", "dimensions": number} for number in (-1, 3_073, 2**40, 2**70)]
    for path, asked in (("/v1/audio/speech", long), *(("/v1/embeddings", each) for each in wide), ("/v1/embeddings", {"model": "echo", "input": ["x"] * 2_049})):
        assert (await _post(base + path, json.dumps(asked).encode()))[0] == 400
    many = {"model": "echo", "n": 2, "messages": [{"role": "user", "content": "x" * 40_000}]}
    status, said = await _post(base + "/v1/chat/completions", json.dumps(many).encode())
    told = json.loads(said)
    assert (status, [len(choice["message"]["content"]) for choice in told["choices"]], told["choices"][0]["finish_reason"]) == (200, [32_768] * 2, "length")
