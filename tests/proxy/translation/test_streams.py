"""Streams: each shape of one dialect beside what the client of the other gets, wherever the chunks are cut."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.sse import LINE_LIMIT_BYTES
from proxy.translation import anthropic_to_openai, openai_to_anthropic
from proxy.translation.base import StreamTranslator
from proxy.translation.events import PING_EVENTS
from tests.proxy.translation.streams import (
    ANTHROPIC_ASK,
    CHATS,
    CREATED_SECONDS,
    FIRST,
    FULL_USAGE,
    MESSAGES,
    OPENAI_ASK,
    PING,
    QUIET_ASK,
    START,
    USAGE,
    Stream,
    calling,
    chats,
    chunk,
    ended,
    finished,
    messages,
    read_chats,
    read_messages,
    started,
    used,
    words,
)


def to_messages() -> StreamTranslator:
    """Make a translator for an Anthropic client."""
    return anthropic_to_openai.stream(ANTHROPIC_ASK, created_seconds=CREATED_SECONDS)


def to_chats(*, usage: bool = True) -> StreamTranslator:
    """Make a translator for an OpenAI client."""
    return openai_to_anthropic.stream(OPENAI_ASK if usage else QUIET_ASK, created_seconds=CREATED_SECONDS)


def run(translator: StreamTranslator, stream: bytes, cuts: list[int] | None = None) -> bytes:
    """Feed a stream cut at the given offsets, to its end; every part that leaves is whole events."""
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts or ())})
    parts = [translator.feed(stream[begin:end]) for begin, end in itertools.pairwise(edges)] + [translator.end()]
    assert all(part.endswith(b"\n\n") for part in parts if part)
    return b"".join(parts)


@pytest.mark.parametrize("stream", CHATS, ids=lambda stream: stream.name)
def test_what_an_anthropic_client_gets(stream: Stream) -> None:
    """F18: each stream of Chat Completions becomes the events beside it: one block open at a time, and no clean end of a broken answer."""
    assert read_messages(run(to_messages(), stream.sent)) == stream.got


@pytest.mark.parametrize("stream", MESSAGES, ids=lambda stream: stream.name)
def test_what_an_openai_client_gets(stream: Stream) -> None:
    """F18: each stream of the Messages API becomes the chunks beside it, and no `[DONE]` after a broken answer."""
    assert read_chats(run(to_chats(), stream.sent)) == stream.got


CUTS = st.lists(st.integers(0, 10_000), max_size=40)


@given(st.sampled_from(CHATS), CUTS)
def test_cuts_change_nothing_for_an_anthropic_client(stream: Stream, cuts: list[int]) -> None:
    """Wherever chunks are cut, inside a character or a line, the very same bytes come out."""
    assert run(to_messages(), stream.sent, cuts) == run(to_messages(), stream.sent)


@given(st.sampled_from(MESSAGES), CUTS)
def test_cuts_change_nothing_for_an_openai_client(stream: Stream, cuts: list[int]) -> None:
    """Wherever chunks are cut, inside a character or a line, the very same bytes come out."""
    assert run(to_chats(), stream.sent, cuts) == run(to_chats(), stream.sent)


@given(st.lists(st.one_of(st.none(), st.tuples(st.integers(0, 3), st.integers(1, 9))), max_size=60))
def test_any_interleaving_gives_each_call_its_arguments(order: list[tuple[int, int] | None]) -> None:
    """However the arguments of four calls and text come mixed, each block has its own, one block is open at a time, in order."""
    arguments = [json.dumps({"call": number, "text": '}{"\\' * number, "deep": [{"a": {}}]}) for number in range(4)]
    left = dict(enumerate(arguments))
    chunks = [chunk(calling(number, "", f"call_{number}", "t")) for number in range(4)]
    talk = ""
    for step in [*order, *((number, 999) for number in range(4))]:
        if step is None:
            chunks.append(chunk({"content": "x"}))
            talk += "x"
        else:
            number, size = step
            chunks.append(chunk(calling(number, left[number][:size])))
            left[number] = left[number][size:]
    events = read_messages(run(to_messages(), chats(*chunks, chunk({}, "tool_calls"), USAGE)))
    built: list[list[str]] = []
    inside = False
    for event in events:
        if event["type"] == "content_block_start":
            assert not inside
            assert event["index"] == len(built)
            built.append([event["content_block"].get("id", "text"), ""])
        inside = event["type"] == "content_block_start" or (inside and event["type"] != "content_block_stop")
        if event["type"] == "content_block_delta":
            assert inside
            assert event["index"] == len(built) - 1
            built[-1][1] += event["delta"].get("partial_json", "") + event["delta"].get("text", "")
    assert [one for one in built if one[0] != "text"] == [[f"call_{number}", text] for number, text in enumerate(arguments)]
    assert "".join(one[1] for one in built if one[0] == "text") == talk


def test_the_first_call_is_live_and_the_next_waits_for_it() -> None:
    """A block is opened as soon as the one before is whole, and not earlier; nothing waits for the end of the stream without need."""
    translator = to_messages()
    translator.feed(chats(FIRST, done=False))
    assert read_messages(translator.feed(chats(chunk(calling(0, '{"a":', "call_1", "weather")), done=False))) == used(0, "call_1", '{"a":')[:-1]
    assert translator.feed(chats(chunk(calling(1, '{"b":', "call_2", "weather")), done=False)) == b""
    whole = read_messages(translator.feed(chats(chunk(calling(0, "1}")), done=False)))
    assert whole == [*used(0, "call_1", "1}")[1:], *used(1, "call_2", '{"b":')[:-1]]


def test_a_client_that_did_not_ask_sees_no_usage() -> None:
    """Without include_usage there is no chunk without choices, which clients index, and no `usage` field."""
    chunks = read_chats(run(to_chats(usage=False), messages(START, *words(0, "a"), *finished("end_turn"))))
    assert [len(one["choices"]) for one in chunks[:-1]] == [1, 1, 1]
    assert not any("usage" in one for one in chunks)
    assert chunks[-1] == {}


def test_usage_is_cumulative() -> None:
    """F11: of several reports each number replaces, none adds."""
    later = {"type": "message_delta", "delta": {}, "usage": {"input_tokens": 35, "output_tokens": 7}}
    chunks = read_chats(run(to_chats(), messages(START, later, *finished("end_turn"))))
    assert chunks[-2]["usage"] == {**FULL_USAGE, "prompt_tokens": 105, "total_tokens": 125}


def test_long_reasoning_gives_signs_of_life() -> None:
    """Tools give a silent stream up after minutes, though the upstream is busy with what they may not see."""
    thoughts = [chunk({"reasoning_content": "hm"})] * (2 * PING_EVENTS)
    assert read_messages(run(to_messages(), chats(FIRST, *thoughts, chunk({}, "stop"), USAGE))) == [*started(), PING, PING, *ended("end_turn")]
    thinking = {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}}
    stream = to_chats().feed(messages(START, *[thinking] * PING_EVENTS))
    assert stream.endswith(b"\n\n: keep-alive\n\n")


def test_comments_are_signs_of_life() -> None:
    """A comment of the upstream becomes a ping, or a comment before the message has begun."""
    translator = to_messages()
    assert translator.feed(b": PROCESSING\n\n") == b": keep-alive\n\n"
    translator.feed(chats(FIRST, done=False))
    assert translator.feed(b": PROCESSING\n\n") == b'event: ping\ndata: {"type":"ping"}\n\n'
    assert to_chats().feed(messages(PING)) == b": keep-alive\n\n"


@pytest.mark.parametrize("make", [to_messages, to_chats])
def test_a_line_without_end_is_an_error(make: Any) -> None:
    """F18: what cannot be held is told as an error, once; nothing is kept of it, and nothing follows."""
    translator = make()
    written = translator.feed(b"data: " + b"x" * LINE_LIMIT_BYTES)
    assert b"too long" in written
    assert translator.failed
    assert translator.feed(chats(FIRST)) + translator.end() == b""


def test_what_waits_is_bounded() -> None:
    """An upstream cannot fill the memory with arguments that wait for a call that never ends."""
    translator = to_messages()
    translator.feed(chats(chunk(calling(0, "{", "call_1", "weather")), done=False))
    piece = chats(chunk(calling(1, "x" * 1_000_000, "call_2", "weather")), done=False)
    written = b"".join(translator.feed(piece) for _ in range(10))
    assert read_messages(written)[-1]["error"]["message"] == "The provider sent more than can be put in order."


@given(st.binary(max_size=300))
def test_nothing_hostile_raises(junk: bytes) -> None:
    """Whatever an upstream sends, a translator gives whole events and an end."""
    for make in (to_messages, to_chats):
        for stream in (junk, b"data: " + junk + b"\n\n", b'data: {"choices":' + junk + b"}\n\n", b'data: {"type":"content_block_delta","index":' + junk):
            assert run(make(), stream)
