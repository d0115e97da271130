"""The Responses API: what is read of a request, what an answer used, and how a stream ends."""

import json
from typing import Any

import pytest

from proxy.dialects import responses
from proxy.dialects.base import BadRequest, Reading, Refusal, RefusalKind, StreamError, Usage
from tests.proxy.dialects.responses_recordings import CREATED, MODEL, ask, deltas, events, message, report, response, stream

KNOWN: Any = {"model": MODEL, "service_tier": "default", "reported": True}


def _body(**more: object) -> bytes:
    return json.dumps({"model": "gpt-5.5", "input": "Hi", **more}, separators=(",", ":")).encode()


def test_a_request_is_read() -> None:
    """Model, bound, stream, end user and conversation are read; a token is counted for every four bytes of what the model is shown."""
    items = [{"role": "user", "content": "Hello"}]
    read = responses.parse(_body(input=items, instructions="abcdef", max_output_tokens=50, stream=True, user="u1", prompt_cache_key="thread-7"))
    assert (read.model, read.streamed, read.max_output_tokens, read.choices) == ("gpt-5.5", True, 50, 1)
    assert (read.end_user, read.conversation) == ("u1", "thread-7")
    assert read.input_tokens == -(-(len(json.dumps(items, separators=(",", ":"))) + len('"abcdef"') + len("[]") - 2) // 4)


def test_what_is_no_text_has_a_size_of_its_own() -> None:
    """An image counts 1600 tokens and a file that is only named 3000, whatever their bytes; encrypted reasoning counts nothing."""
    plain = responses.parse(_body(input=[{"role": "user", "content": [{"type": "input_image", "image_url": ""}]}])).input_tokens
    image = {"type": "input_image", "image_url": "data:image/png;base64," + "A" * 400_000}
    assert responses.parse(_body(input=[{"role": "user", "content": [image]}])).input_tokens == pytest.approx(plain, abs=1)
    named = responses.parse(_body(input=[{"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]}])).input_tokens
    assert 3_000 <= named < 3_050
    thought = {"type": "reasoning", "summary": [], "encrypted_content": "x" * 40_000}
    assert responses.parse(_body(input=[thought])).input_tokens < 50
    output = {"type": "function_call_output", "call_id": "c", "output": [image]}
    assert 1_600 <= responses.parse(_body(input=[output])).input_tokens < 1_650


def test_turns_that_the_provider_keeps_are_held_for() -> None:
    """What `previous_response_id` names is input that nobody can count here: a fixed amount stands for it."""
    assert responses.parse(_body(previous_response_id="resp_1")).input_tokens == responses.parse(_body()).input_tokens + 16_000
    named, said = ([{"role": "user", "content": "Hi"}, {key: "msg_1", "type": "item_reference"}] for key in ("id", "xd"))
    assert responses.parse(_body(input=named)).input_tokens == responses.parse(_body(input=said)).input_tokens + 16_000


@pytest.mark.parametrize(
    ("written", "names"),
    [
        (b'[{"type":"item_reference","id":"msg_1"},{"role":"user","content":"a"},{"id":"rs_1"}]', ("msg_1", "rs_1")),
        (b'[{"type":null,"id":"msg_1"}]', ("msg_1",)),
        (b'[{"t\\u0079pe":"item\\u005freference","\\u0069d":"msg_1","role":"user"}]', ("msg_1",)),
        (b'["text",7,{"type":"item_reference","id":"msg_1"}]', ("msg_1",)),
        (b'[{"type":"item_reference","id":7},{"type":"item_reference","id":"\\u0000"}]', ("?", "?")),
        (b'[{"type":"message","id":"msg_1","role":"assistant","content":[]},{"type":"reasoning","id":"rs_1","summary":[]},{"id":"x","role":"user","content":"a"}]', ()),
        (b'"item_reference id"', ()),
    ],
)
def test_items_that_are_named_by_their_ids_are_found(written: bytes, names: tuple[str, ...]) -> None:
    """With and without a type, escaped, and beside what is no item; what comes whole names nothing, whatever its id."""
    assert responses.parse(b'{"model":"gpt-5.5","input":' + written + b"}").names == names


@pytest.mark.parametrize(
    "written",
    [
        b'[{"type":"item_reference","id":"msg_1","x":' + b"[" * 5_000 + b"]" * 5_000 + b"}]",
        b"[" + b'"a",' * 200_001 + b'{"type":"item_reference","id":"msg_1"}]',
        b"[" + b'{"type":"item_reference","id":"msg_1"},' * 10_000 + b'{"type":"item_reference","id":"msg_1"}]',
    ],
    ids=["deep", "long", "many"],
)
def test_an_input_whose_names_cannot_be_read_is_refused(written: bytes) -> None:
    """No shape carries a name past the gateway unread."""
    with pytest.raises(BadRequest) as refused:
        responses.parse(b'{"model":"gpt-5.5","input":' + written + b"}")
    assert refused.value.message


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]}, "tools"),
        ({"tools": [{"type": "function", "name": "f"}, {"type": "file_search", "vector_store_ids": []}]}, "tools"),
        ({"tools": [{"type": "image_generation"}]}, "tools"),
        ({"tools": [{"type": "shell", "environment": {"type": "container_auto"}}]}, "tools"),
        ({"tools": [{"type": "shell", "environment": {"type": "container_reference", "container_id": "c"}}]}, "tools"),
        ({"input": [{"type": "additional_tools", "role": "developer", "tools": [{"type": "code_interpreter"}]}]}, "tools"),
        ({"input": [{"type": "tool_search_output", "tools": [{"type": "image_generation"}]}]}, "tools"),
        ({"input": 7}, "input"),
        ({"model": None}, "model"),
        ({"stream": 1}, "stream"),
        ({"max_output_tokens": -1}, "max_output_tokens"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(more: dict[str, object], param: str) -> None:
    """Answers in the background, objects of the operator's account and tools without a price are refused before any upstream hears of them."""
    with pytest.raises(BadRequest) as refused:
        responses.parse(_body(**more))
    assert refused.value.param == param
    assert param in refused.value.message


def test_only_owned_fields_are_rewritten() -> None:
    """F37: another model's name and a lower bound are spliced in; every other byte stays, spaces and unknown fields too."""
    body = b'{ "input":"Hi", "new_field" : [1, 2] ,"max_output_tokens": 500, "model":"gpt-5.5", "store": true}'
    read = responses.parse(body)
    assert responses.rewrite(body, read) is body
    assert responses.rewrite(body, read, model="other", max_output_tokens=20) == body.replace(b"gpt-5.5", b"other").replace(b"500", b"20")
    assert responses.rewrite(body, read, max_output_tokens=900) == body
    unbounded = _body()
    assert json.loads(responses.rewrite(unbounded, responses.parse(unbounded), max_output_tokens=9))["max_output_tokens"] == 9


SEARCH = {"type": "web_search_call", "id": "ws", "status": "completed", "action": {"type": "search", "query": "x"}}
OPENED = {"type": "web_search_call", "id": "wo", "status": "completed", "action": {"type": "open_page", "url": "https://example.org"}}

STREAMS = [
    # 75 in of which 30 were read and 20 written: 25 are left.
    ("completed", stream("Hel", "lo\n", "x", usage=report(75, 20, cached=30, written=20, reasoning=12)), Usage(25, 30, 20, 0, 20, 12, **KNOWN), 7, 2),
    ("incomplete is charged as well", stream("abc", status="incomplete"), Usage(75, output_tokens=20, **KNOWN), 3, 1),
    ("flex", stream("a", service_tier="flex"), Usage(75, output_tokens=20, model=MODEL, service_tier="flex", reported=True), 1, 1),
    (
        "web searches, of which opening a page is none",
        events(
            *CREATED,
            ("response.output_item.done", {"output_index": 0, "item": SEARCH}),
            ("response.output_item.done", {"output_index": 1, "item": OPENED}),
            ("response.completed", {"response": response(output=[SEARCH, OPENED], usage=report())}),
        ),
        Usage(75, output_tokens=20, web_searches=1, **KNOWN),
        0,
        0,
    ),
    (
        "reasoning and a call",
        events(
            *CREATED,
            ("response.reasoning_summary_text.delta", {"output_index": 0, "delta": "hm"}),
            ("response.function_call_arguments.delta", {"output_index": 1, "delta": '{"a":1}'}),
            ("response.completed", {"response": response(usage=report(10, 9, reasoning=4))}),
        ),
        Usage(10, output_tokens=9, reasoning_tokens=4, **KNOWN),
        0,
        0,
    ),
    (
        "what the provider ran beside the model is looked at",
        events(*CREATED, ("response.completed", {"response": response(output=[{"type": "code_interpreter_call"}], usage=report())})),
        Usage(75, output_tokens=20, doubtful=True, **KNOWN),
        0,
        0,
    ),
    (
        "so is a shell in a container of its own",
        events(
            *CREATED,
            ("response.completed", {"response": response(output=[{"type": "shell_call", "environment": {"type": "container_reference"}}], usage=report())}),
        ),
        Usage(75, output_tokens=20, doubtful=True, **KNOWN),
        0,
        0,
    ),
    (
        "items of no known shape",
        events(*CREATED, ("response.completed", {"response": response(output=[{"type": ["shell_call"]}, {"type": {}, "id": 7}, "x"], usage=report())})),
        Usage(75, output_tokens=20, **KNOWN),
        0,
        0,
    ),
    (
        "a shell at the client's is the client's",
        events(*CREATED, ("response.completed", {"response": response(output=[{"type": "shell_call", "environment": {"type": "local"}}], usage=report())})),
        Usage(75, output_tokens=20, **KNOWN),
        0,
        0,
    ),
    (
        "without usage: as counted and delivered",
        stream("12345", usage=None),
        Usage(2, output_tokens=2, model=MODEL, service_tier="default"),
        5,
        1,
    ),
    (
        "a failed answer costs what it reports",
        events(*CREATED, ("response.failed", {"response": response("failed", error={"code": "server_error", "message": "no"}, usage=report(5, 1))})),
        Usage(5, output_tokens=1, **KNOWN),
        0,
        0,
    ),
]


@pytest.mark.parametrize(("name", "parts", "usage", "characters", "lines"), STREAMS, ids=[row[0] for row in STREAMS])
def test_usage_of_every_shape(name: str, parts: list[bytes], usage: Usage, characters: int, lines: int) -> None:
    """F9, F18: usage is read on every terminal event; all bytes pass, and the terminal event is held back to the end. Cuts change nothing."""
    whole = b"".join(parts)
    for size in (1, 7, 64, len(whole)):
        meter = responses.meter(ask())
        passed = b"".join(meter.feed(whole[start : start + size]) for start in range(0, len(whole), size))
        assert passed == b"".join(parts[:-1])
        assert passed + meter.tail() == whole
        assert meter.ended
        assert (meter.usage, meter.characters, meter.lines) == (usage, characters, lines)
        assert meter.complete is (meter.error is None)


def test_whole_answers() -> None:
    """F9: a whole answer is read by the rules of a stream; each text is a line of its own."""
    body = json.dumps(response(output=[message("a\nb", "c"), SEARCH], usage=report(75, 20, cached=75))).encode()
    usage = Usage(cache_read_tokens=75, output_tokens=20, web_searches=1, **KNOWN)
    assert responses.read(body, ask()) == Reading(usage, 4, 3, complete=True)
    assert responses.read(json.dumps(response(output=[message("12345")])).encode(), ask()).usage == Usage(2, output_tokens=2, model=MODEL, service_tier="default")
    failed = responses.read(json.dumps(response("failed", error={"code": "server_error", "message": "no"})).encode(), ask())
    assert failed == Reading(Usage(model=MODEL, service_tier="default"), 0, 0, complete=True)
    for nothing in (b"", b"[]", b'{"error":{"message":"x"}}', b"\xff"):
        assert responses.read(nothing, ask()) == Reading(Usage(), 0, 0, complete=False)


@pytest.mark.parametrize("bad", [-1, 1.5, 10**8 + 1, "7", True])
def test_nonsense_is_estimated_and_looked_at(bad: object) -> None:
    """F14: a number that is no count is never charged by."""
    meter = responses.meter(ask())
    meter.feed(b"".join(stream("12345", usage={**report(), "input_tokens": bad})))
    assert meter.usage == Usage(2, output_tokens=2, model=MODEL, service_tier="default", doubtful=True)


def test_a_broken_stream_is_estimated() -> None:
    """F16: before anything was delivered nothing is owed; after it, the counted input and a token for every four characters."""
    meter = responses.meter(ask())
    assert meter.usage == Usage()
    meter.feed(b"".join(events(*CREATED)))
    assert (meter.usage, meter.first_token_seen) == (Usage(), False)
    meter.feed(b"".join(events(*CREATED, *deltas("12345"))[2:]))
    assert (meter.usage.output_tokens, meter.usage.reported, meter.first_token_seen) == (2, False, True)


def _told(data: bytes) -> list[dict[str, object]]:
    lines = [line for line in data.split(b"\n") if line.startswith(b"data: ")]
    return [json.loads(line[6:]) for line in lines]


def test_a_stream_that_breaks_ends_with_both_errors() -> None:
    """A failure is told by `error`, which the SDKs raise, and `response.failed`, which Codex reads, with numbers that go on."""
    meter = responses.meter(ask())
    meter.feed(b"".join(stream("Hello")[:3]))
    error, failed = _told(meter.fail(Refusal(RefusalKind.UPSTREAM_FAILED, "broke", "req")))
    assert (error["type"], error["sequence_number"], error["code"], error["message"]) == ("error", 3, "upstream_failed", "broke")
    assert (failed["type"], failed["sequence_number"]) == ("response.failed", 4)
    told = failed["response"]
    assert isinstance(told, dict)
    assert (told["id"], told["status"], told["error"]) == ("resp_1", "failed", {"code": "upstream_failed", "message": "broke"})


def test_a_stream_that_can_be_paid_no_further_ends_as_incomplete() -> None:
    """F35: the end is a proper one: an incomplete response with the reason and the usage so far."""
    meter = responses.meter(ask())
    meter.feed(b"".join(stream("Hello world")[:4]))
    (last,) = _told(meter.conclude())
    told = last["response"]
    assert isinstance(told, dict)
    assert (last["type"], told["status"], told["incomplete_details"]) == ("response.incomplete", "incomplete", {"reason": "max_output_tokens"})
    assert told["usage"] == report(2, 3)


def test_an_error_inside_a_stream() -> None:
    """F18: an error is told and held back, and its text is not charged; what concerns the operator's account does not reach the client."""
    meter = responses.meter(ask())
    error: tuple[str, dict[str, object]] = ("error", {"code": "server_error", "message": "much text that would cost", "param": None})
    parts = events(*CREATED, error)
    assert meter.feed(b"".join(parts)) == b"".join(parts[:2])
    assert (meter.error, meter.complete, meter.usage) == (StreamError("server_error", "much text that would cost"), False, Usage())
    assert meter.tail() == parts[2]
    theirs = responses.meter(ask())
    quota = {"error": {"code": "insufficient_quota", "message": "You exceeded your current quota"}}
    theirs.feed(b"".join(events(*CREATED, ("response.failed", {"response": response("failed", **quota)}))))
    assert b"exceeded" not in theirs.tail()
