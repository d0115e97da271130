"""Meters: the right usage from every known shape, whatever the cuts; bytes untouched; the end held back; nothing hostile raises."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects import anthropic, openai
from proxy.dialects.base import Meter, Refusal, RefusalKind, StreamError, Usage
from proxy.dialects.stream import TAIL_LIMIT_BYTES
from proxy.sse import LINE_LIMIT_BYTES
from tests.proxy.dialects.recordings import (
    ANTHROPIC,
    HEAD,
    OPENAI,
    Recording,
    anthropic_ask,
    chunk,
    chunks,
    events,
    finish,
    openai_ask,
    start,
    text_block,
)

REFUSAL = Refusal(RefusalKind.UPSTREAM_FAILED, "The provider broke off.", "req_1")
EITHER: Any = [(recording, anthropic.meter, anthropic_ask()) for recording in ANTHROPIC] + [
    (recording, openai.meter, openai_ask()) for recording in OPENAI
]
USAGE = {"input_tokens": 25, "cache_read_input_tokens": 5, "output_tokens": 1}
SMALL = {"prompt_tokens": 9, "completion_tokens": 2}


def run(meter: Meter, stream: bytes, cuts: list[int] | None = None) -> tuple[bytes, bytes]:
    """Feed a stream cut at the given offsets; give what left at once, and the tail."""
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts or ())})
    sent = b"".join(meter.feed(stream[begin:end]) for begin, end in itertools.pairwise(edges))
    return sent, meter.tail()


@pytest.mark.parametrize(("recording", "make", "ask"), EITHER, ids=lambda value: getattr(value, "name", None))
def test_usage_of_every_shape(recording: Recording, make: Any, ask: Any) -> None:
    """F9, F10, F11: each recorded shape gives the usage worked out by hand, and its text's size; the bytes are those that came."""
    meter: Meter = make(ask)
    sent, tail = run(meter, recording.stream)
    assert meter.usage == recording.usage
    assert (meter.characters, meter.lines) == (recording.characters, recording.lines)
    assert meter.complete
    assert sent + tail == recording.stream


@given(st.sampled_from(EITHER), st.lists(st.integers(0, 10_000), max_size=40))
def test_cuts_change_nothing(case: Any, cuts: list[int]) -> None:
    """F37: wherever chunks are cut, inside a character or a line, usage, text size and bytes are the same, and only whole lines leave."""
    recording, make, ask = case
    meter: Meter = make(ask)
    sent, tail = run(meter, recording.stream, cuts)
    assert (meter.usage, meter.characters, meter.lines, meter.complete) == (recording.usage, recording.characters, recording.lines, True)
    assert sent + tail == recording.stream
    assert sent.endswith(b"\n")


def test_whole_events_pass_as_the_same_object() -> None:
    """A chunk of whole lines leaves as the very object that came, in both dialects."""
    for meter, piece in (
        (anthropic.meter(anthropic_ask()), events(*text_block("a"))),
        (openai.meter(openai_ask()), chunks(chunk("a", usage=None), done=False)),
        (openai.meter(openai_ask(include_usage=False)), chunks(chunk("a"), done=False)),
    ):
        assert meter.feed(piece) is piece


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_the_end_is_held_back(size: int) -> None:
    """Nothing of the terminal event leaves before `tail`, however it is cut, and everything before it does."""
    body = events(start(USAGE), *text_block("Hi"), finish({"output_tokens": 3})[0])
    for meter, before, end in (
        (anthropic.meter(anthropic_ask()), body, events({"type": "message_stop"}) + b": bye\n\n"),
        (anthropic.meter(anthropic_ask()), body, b'data: {"type":"message_stop"}\n\n'),
        (openai.meter(openai_ask()), chunks(chunk("Hi", "stop"), done=False), b"data: [DONE]\n\n: bye\n\n"),
        (openai.meter(openai_ask()), chunks(chunk("Hi", "stop"), done=False), b"data: [DONE]\r\n\r\n"),
    ):
        stream = before + end
        assert run(meter, stream, list(range(0, len(stream), size))) == (before, end)
        assert meter.ended


@pytest.mark.parametrize("cut", [b"", b"\n", b"\r\n"])
def test_a_terminal_event_is_whole(cut: bytes) -> None:
    """A terminal event that came without its empty line leaves with one, so that the client acts on it; a message without its end gets none."""
    for meter, end in (
        (anthropic.meter(anthropic_ask()), b'event: message_stop\ndata: {"type":"message_stop"}'),
        (openai.meter(openai_ask()), b"data: [DONE]"),
    ):
        sent, tail = run(meter, end + cut)
        assert (sent, tail) == (b"", end + (cut + b"\n" if cut else b"\n\n"))
    assert run(openai.meter(openai_ask()), b"data: {}" + cut) in ((b"", b"data: {}"), (b"data: {}" + cut, b""))


def test_what_follows_the_end_is_bounded() -> None:
    """An upstream that goes on after its own end does not fill the memory."""
    meter = openai.meter(openai_ask())
    meter.feed(b"data: [DONE]\n\n")
    for _ in range(100):
        assert meter.feed(b"x" * 65_536) == b""
    assert len(meter.tail()) <= TAIL_LIMIT_BYTES


def test_usage_that_was_not_asked_for_is_taken_out() -> None:
    """Without include_usage the client sees no null usage and no chunk without choices, in any spelling; all else is as it came."""
    spaced = b'data: {"choices": [{"index": 0, "delta": {"content": "\\"usage\\":null"}}], "usage": null, "x": 1}\n\n'
    first = b'data: {"usage":null,"choices":[{"index":0,"delta":{"content":"usage"}}]}\n\n'
    nested = b'data: {"choices":[{"index":0,"delta":{"usage":null,"content":"c"}}],"usage":null}\n\n'
    azure = b'data: {"choices":[],"prompt_filter_results":[],"usage":null}\n\n'
    usage_chunk = chunks({**HEAD, "choices": [], "usage": SMALL}, done=False)
    finishing = chunks(chunk("b", "stop", usage=SMALL), done=False)
    stream = azure + spaced + first + nested + finishing + usage_chunk + b": c\n\ndata: [DONE]\n\n"
    expected = (
        b'data: {"choices":[],"prompt_filter_results":[]}\n\n'
        b'data: {"choices": [{"index": 0, "delta": {"content": "\\"usage\\":null"}}], "x": 1}\n\n'
        b'data: {"choices":[{"index":0,"delta":{"content":"usage"}}]}\n\n'
        b'data: {"choices":[{"index":0,"delta":{"usage":null,"content":"c"}}]}\n\n' + finishing + b": c\n\n"
    )
    for size in (1, 9, 10_000):
        meter = openai.meter(openai_ask(include_usage=False))
        assert run(meter, stream, list(range(0, len(stream), size))) == (expected, b"data: [DONE]\n\n")
        assert (meter.usage.input_tokens, meter.usage.output_tokens, meter.usage.reported) == (9, 2, True)


def test_an_answer_that_lacks_its_beginning_is_not_free() -> None:
    """F13: without `message_start` and any usage the input is the counted one, as soon as anything has come: a tool's name, or a proper end."""
    tool: dict[str, object] = {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "id": "t", "name": "w", "input": {}}}
    end: dict[str, object] = {"type": "message_stop"}
    for event in (tool, end):
        meter = anthropic.meter(anthropic_ask())
        run(meter, events(event))
        assert meter.usage == Usage(input_tokens=anthropic_ask().input_tokens)


def test_a_broken_stream_is_estimated() -> None:
    """F16: without its end, input and cache are the start's, output a quarter of text, thinking and arguments; it says estimated."""
    meter = anthropic.meter(anthropic_ask())
    assert meter.usage == Usage()
    thought: dict[str, object] = {"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "9"}}
    run(meter, events(start(USAGE), *text_block("12345678"), thought))
    assert meter.usage == Usage(input_tokens=25, cache_read_tokens=5, output_tokens=3, model="claude-opus-5-5")
    assert not meter.complete

    chat = openai.meter(openai_ask())
    run(chat, chunks(chunk(""), done=False))
    assert chat.usage == Usage()
    run(chat, chunks(chunk("12345"), done=False))
    assert chat.usage == Usage(input_tokens=8, output_tokens=2, model="gpt-5.5-2026-04-23", service_tier="default")
    assert not chat.complete


def test_the_larger_of_said_and_delivered() -> None:
    """A broken stream whose last cumulative report is above what was delivered is charged by the report, below it by the delivery."""
    said: dict[str, object] = {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 50}}
    meter = anthropic.meter(anthropic_ask())
    run(meter, events(start(USAGE), *text_block("1234"), said))
    assert (meter.usage.output_tokens, meter.usage.reported) == (50, False)
    run(meter, events(*text_block("x" * 400)))
    assert (meter.usage.output_tokens, meter.usage.reported) == (101, False)


def test_web_searches_of_a_broken_stream_are_counted() -> None:
    """Searches that were begun before a cut are charged though no report names them."""
    use = {"type": "server_tool_use", "name": "web_search"}
    block: dict[str, object] = {"type": "content_block_start", "index": 0, "content_block": use}
    meter = anthropic.meter(anthropic_ask())
    run(meter, events(start(USAGE), block, block))
    assert meter.usage.web_searches == 2


@pytest.mark.parametrize("bad", [True, -1, 1.0, 10**8 + 1, 10**400, "7", [], {}, float("1e300")], ids=str)
def test_malformed_numbers_are_not_charged(bad: object) -> None:
    """F14: a number that is no count makes the usage an estimate that a person should look at, never negative, never an error, in streams and whole answers alike."""
    meter = anthropic.meter(anthropic_ask())
    run(meter, events(start(USAGE), *text_block("12345"), *finish({"output_tokens": bad})))
    assert meter.usage == Usage(input_tokens=25, cache_read_tokens=5, output_tokens=2, model="claude-opus-5-5", doubtful=True)
    chat = openai.meter(openai_ask())
    run(chat, chunks(chunk("12345", "stop"), {**HEAD, "choices": [], "usage": {**SMALL, "prompt_tokens": bad}}))
    assert chat.usage == Usage(input_tokens=8, output_tokens=2, model="gpt-5.5-2026-04-23", service_tier="default", doubtful=True)
    body = {"model": "m", "content": [{"type": "text", "text": "12345"}], "usage": {"input_tokens": 3, "output_tokens": bad}}
    whole = anthropic.read(json.dumps(body).encode(), anthropic_ask())
    assert whole.usage == Usage(input_tokens=3, output_tokens=2, model="m", doubtful=True)


@pytest.mark.parametrize("usage", [None, 7, [], "x", {}, {"output_tokens": 5}])
def test_missing_usage_is_estimated(usage: object) -> None:
    """A stream that ends properly but says nothing of use is charged by the counted input and the delivered text."""
    meter = anthropic.meter(anthropic_ask())
    run(meter, events(start(None), *text_block("12345"), *finish(usage)))
    assert (meter.usage.input_tokens, meter.usage.reported, meter.complete) == (8, False, True)
    chat = openai.meter(openai_ask())
    run(chat, chunks(chunk("12345", "stop"), {**HEAD, "choices": [], "usage": usage}))
    assert (chat.usage.input_tokens, chat.usage.output_tokens, chat.usage.reported) == (8, 2, False)


def test_errors_inside_a_stream() -> None:
    """F18: an error event is told, held back with the end, not counted as text, and does not make the answer complete."""
    meter = anthropic.meter(anthropic_ask())
    error = events({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded, so much text that would cost"}})
    assert run(meter, events(start(USAGE)) + error) == (events(start(USAGE)), error)
    assert meter.error == StreamError("overloaded_error", "Overloaded, so much text that would cost")
    assert (meter.ended, meter.complete) == (True, False)
    assert meter.usage == Usage(input_tokens=25, cache_read_tokens=5, output_tokens=1, model="claude-opus-5-5")

    chat = openai.meter(openai_ask())
    failure = b'data: {"error":{"message":"boom","type":"server_error","code":null}}\n\n'
    assert run(chat, failure + b"data: [DONE]\n\n") == (b"", failure + b"data: [DONE]\n\n")
    assert (chat.error, chat.complete, chat.usage) == (StreamError("server_error", "boom"), False, Usage())


@pytest.mark.parametrize(
    ("meter", "error"),
    [
        (anthropic.meter(anthropic_ask()), events({"type": "error", "error": {"type": "billing_error", "message": "org-7 has no credit"}})),
        (openai.meter(openai_ask()), b'data: {"error":{"message":"org-7 has no credit","type":"insufficient_quota"}}\n\n'),
        (openai.meter(openai_ask()), b'data: {"error":{"message":"org-7 has no credit","code":402}}\n\n'),
    ],
    ids=["anthropic", "openai", "openrouter"],
)
def test_the_operators_account_is_not_told(meter: Meter, error: bytes) -> None:
    """What an upstream says of the operator's own account reaches no client, though the meter keeps it for the log."""
    sent, tail = run(meter, error)
    assert b"org-7" not in sent + tail
    assert b"The provider did not serve the request." in tail
    assert meter.error is not None
    assert meter.error.message == "org-7 has no credit"


def _messages(stream: bytes) -> list[dict[str, Any]]:
    """Parse a stream as the standard says, and check that event names and types agree."""
    found = []
    for event in stream.decode().split("\n\n")[:-1]:
        lines = [line for line in event.split("\n") if not line.startswith(":")]
        data = json.loads("\n".join(line[6:] for line in lines if line.startswith("data: ")))
        names = [line[7:] for line in lines if line.startswith("event: ")][-1:]
        assert names in ([], [data.get("type")])
        found.append(data)
    return found


@given(st.integers(0, 2000), st.sampled_from([0, 1]))
def test_fail_is_readable_after_any_cut(cut: int, which: int) -> None:
    """An upstream cut anywhere ends for the client in one readable error event and no terminal one."""
    recording = (ANTHROPIC, OPENAI)[which][0]
    meter: Meter = (anthropic.meter(anthropic_ask()), openai.meter(openai_ask()))[which]
    stream = recording.stream[: cut % len(recording.stream)]
    sent = meter.feed(stream) + meter.fail(REFUSAL)
    if b"[DONE]" not in stream:
        assert _messages(sent)[-1]["error"]["message"] == "The provider broke off."
        assert not any(message.get("type") == "message_stop" for message in _messages(sent))


def test_fail_inside_an_overlong_line() -> None:
    """A line that left unfinished is ended before the error, and gets no comment inside; ended by the upstream, it is data as any other."""
    meter = anthropic.meter(anthropic_ask())
    meter.feed(b"data: " + b"x" * LINE_LIMIT_BYTES)
    meter.feed(b"\n")
    assert meter.fail(REFUSAL).startswith(b"\nevent: error\ndata: ")
    meter = anthropic.meter(anthropic_ask())
    sent = meter.feed(b"data: " + b"x" * LINE_LIMIT_BYTES)
    assert sent
    assert meter.keep_alive() == b""
    assert meter.fail(REFUSAL).startswith(b"\n\nevent: error\ndata: ")


def test_keep_alive_changes_no_event() -> None:
    """A keep-alive between events is an event-like comment, between an event's lines a comment line."""
    meter = anthropic.meter(anthropic_ask())
    assert meter.keep_alive() == b": keep-alive\n\n"
    meter.feed(b"event: ping\n")
    assert meter.keep_alive() == b": keep-alive\n"
    meter.feed(b'data: {"type":"ping"}\n')
    meter.feed(b"\n")
    assert meter.keep_alive() == b": keep-alive\n\n"


def test_conclude_closes_what_is_open() -> None:
    """F35: a message that ran out of money closes its open blocks and ends by max_tokens, with the usage that is charged."""
    meter = anthropic.meter(anthropic_ask())
    sent = meter.feed(events(start(USAGE), *text_block("a"), *text_block("12345678", index=1)[:-1]))
    assert _messages(sent + meter.conclude())[-3:] == [
        {"type": "content_block_stop", "index": 1},
        {"type": "message_delta", "delta": {"stop_reason": "max_tokens", "stop_sequence": None}, "usage": {"output_tokens": 3}},
        {"type": "message_stop"},
    ]
    kinds = [message["type"] for message in _messages(anthropic.meter(anthropic_ask()).conclude())]
    assert kinds == ["message_start", "message_delta", "message_stop"]


@pytest.mark.parametrize("asks", [True, False])
def test_conclude_finishes_every_choice(asks: bool) -> None:
    """F35: each choice still open ends by length, under the stream's own id; usage is shown to who asked, and [DONE] is last."""
    meter = openai.meter(openai_ask(include_usage=asks, n=3))
    sent = meter.feed(chunks(chunk("12345"), chunk("b", index=2), chunk(None, "stop", index=2), done=False))
    end = (sent + meter.conclude()).decode().split("\n\n")
    assert end[-2:] == ["data: [DONE]", ""]
    last = [json.loads(event[6:]) for event in end[3:-2]]
    assert {message["id"] for message in last} == {"chatcmpl-9"}
    assert last[0]["choices"] == [{"index": 0, "delta": {}, "finish_reason": "length"}]
    usage = {"prompt_tokens": 8, "completion_tokens": 2, "total_tokens": 10}
    assert [message["usage"] for message in last[1:]] == ([usage] if asks else [])


def test_an_overlong_line_passes_unread() -> None:
    """A 10 MB line passes byte for byte without being read, and reading goes on after it."""
    big = b"data: " + b"x" * 10_000_000 + b"\n\n"
    stream = events(start(USAGE)) + big + events(*text_block("ok"), *finish({"output_tokens": 3}))
    for size in (65_536, len(stream)):
        meter = anthropic.meter(anthropic_ask())
        sent, tail = run(meter, stream, list(range(0, len(stream), size)))
        assert sent + tail == stream
        assert (meter.usage.output_tokens, meter.usage.reported, meter.characters) == (3, True, 2)


NAMES = (
    *("type", "message", "usage", "delta", "index", "text", "content_block", "error", "choices", "finish_reason", "content", "tool_calls"),
    *("function", "arguments", "input_tokens", "output_tokens", "prompt_tokens", "completion_tokens", "iterations", "cache_creation"),
    *("server_tool_use", "name", "audio", "code"),
)
KINDS = ("message_start", "message_delta", "content_block_start", "content_block_delta", "error", "compaction")
hostile = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(NAMES),
        inner | st.sampled_from(KINDS),
        max_size=6,
    ),
    max_leaves=20,
)


@given(st.lists(hostile | st.binary(max_size=30), max_size=8))
def test_nothing_an_upstream_sends_raises(values: list[Any]) -> None:
    """P1: whatever JSON or bytes come as data, reading raises nothing and no number of the usage is negative."""
    parts = [value if isinstance(value, bytes) else json.dumps(value).encode() for value in values]
    stream = b"".join(b"data: " + part + b"\n\n" for part in parts)
    meters: list[Meter] = [anthropic.meter(anthropic_ask()), openai.meter(openai_ask()), openai.meter(openai_ask(include_usage=False))]
    for meter in meters:
        run(meter, stream)
        usage = meter.usage
        numbers = [usage.input_tokens, usage.output_tokens, usage.cache_read_tokens, usage.cache_write_5m_tokens]
        numbers += [usage.cache_write_1h_tokens, usage.reasoning_tokens, usage.audio_input_tokens, usage.audio_output_tokens]
        numbers += [usage.web_searches, meter.lines, meter.characters]
        assert all(type(number) is int and number >= 0 for number in numbers)
        meter.conclude()
        meter.fail(REFUSAL)
    for part in parts:
        anthropic.read(part, anthropic_ask())
        openai.read(part, openai_ask())
