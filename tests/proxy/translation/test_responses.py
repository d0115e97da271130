"""The Responses API over providers that do not speak it: requests, answers, streams and refusals, as pairs written by hand."""

import json
from typing import Any

import pytest

from proxy.dialects import anthropic, embeddings, openai, responses, speech
from proxy.dialects.base import Ask, BadRequest
from proxy.translation import responses_to_openai
from proxy.translation.registry import between, reaches
from proxy.translation.responses_to_openai.request import as_chat
from tests.proxy.dialects.recordings import HEAD, chunk, chunks, events, finish, start, text_block

PNG = "data:image/png;base64,iVBORw0KGgo="
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}


def _request(**asked: Any) -> dict[str, Any]:
    body = json.dumps({"model": "m", **asked}).encode()
    told: dict[str, Any] = json.loads(responses_to_openai.request(body, max_output_tokens=99))
    assert told.pop("model") == "m"
    return told


def _user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def _call(identity: str, arguments: str, name: str = "weather") -> dict[str, Any]:
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


PAIRS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("a text", {"input": "Grüße"}, {"messages": [_user("Grüße")]}),
    ("instructions come first", {"input": "a", "instructions": "Be brief."}, {"messages": [{"role": "system", "content": "Be brief."}, _user("a")]}),
    (
        "messages of every role",
        {
            "input": [{"role": role, "content": "a"} for role in ("developer", "user", "system")]
            + [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "b"}]}]
        },
        {"messages": [{"role": "developer", "content": "a"}, _user("a"), {"role": "system", "content": "a"}, {"role": "assistant", "content": "b"}]},
    ),
    (
        "images and files",
        {
            "input": [
                _user(
                    [
                        {"type": "input_text", "text": "see"},
                        {"type": "input_image", "image_url": PNG, "detail": "low"},
                        {"type": "input_file", "file_data": "data:application/pdf;base64,JV", "filename": "a.pdf"},
                    ]
                )
            ]
        },
        {
            "messages": [
                _user(
                    [
                        {"type": "text", "text": "see"},
                        {"type": "image_url", "image_url": {"url": PNG, "detail": "low"}},
                        {"type": "file", "file": {"file_data": "data:application/pdf;base64,JV", "filename": "a.pdf"}},
                    ]
                )
            ]
        },
    ),
    (
        "parallel calls are one message, reasoning is left out, an output's image goes below",
        {
            "input": [
                _user("a"),
                {"type": "reasoning", "id": "rs", "summary": [], "encrypted_content": "x"},
                {"role": "assistant", "content": "Looking."},
                {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city":"Rome"}'},
                {"type": "function_call", "call_id": "c2", "name": "weather", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c1", "output": "sun"},
                {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_image", "image_url": PNG}]},
                _user("and?"),
            ]
        },
        {
            "messages": [
                _user("a"),
                {"role": "assistant", "content": "Looking.", "tool_calls": [_call("c1", '{"city":"Rome"}'), _call("c2", "{}")]},
                {"role": "tool", "tool_call_id": "c1", "content": "sun"},
                {"role": "tool", "tool_call_id": "c2", "content": "The result is in the message below."},
                _user([{"type": "image_url", "image_url": {"url": PNG}}]),
                _user("and?"),
            ]
        },
    ),
    (
        "tools and their choice",
        {
            "input": "a",
            "tools": [{"type": "function", "name": "weather", "description": "Tells.", "parameters": SCHEMA, "strict": True}, {"type": "custom", "name": "patch"}],
            "tool_choice": {"type": "function", "name": "weather"},
            "parallel_tool_calls": False,
        },
        {
            "messages": [_user("a")],
            "tools": [
                {"type": "function", "function": {"name": "weather", "description": "Tells.", "parameters": SCHEMA, "strict": True}},
                {"type": "custom", "custom": {"name": "patch"}},
            ],
            "tool_choice": {"type": "function", "function": {"name": "weather"}},
            "parallel_tool_calls": False,
        },
    ),
    (
        "tools of a namespace, and a web search that nothing asks for",
        {
            "input": [
                {"type": "function_call", "call_id": "c", "namespace": "agents", "name": "close", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": "closed"},
            ],
            "tools": [
                {"type": "namespace", "name": "agents", "description": "All.", "tools": [{"type": "function", "name": "close", "parameters": SCHEMA, "strict": False}]},
                {"type": "web_search", "external_web_access": False},
            ],
            "tool_choice": {"type": "function", "namespace": "agents", "name": "close"},
        },
        {
            "messages": [
                {"role": "assistant", "content": None, "tool_calls": [_call("c", "{}", "agents__close")]},
                {"role": "tool", "tool_call_id": "c", "content": "closed"},
            ],
            "tools": [{"type": "function", "function": {"name": "agents__close", "parameters": SCHEMA, "strict": False}}],
            "tool_choice": {"type": "function", "function": {"name": "agents__close"}},
        },
    ),
    ("a web search alone", {"input": "a", "tools": [{"type": "web_search_preview"}], "tool_choice": "auto"}, {"messages": [_user("a")]}),
    (
        "custom tools",
        {
            "input": [
                {"type": "custom_tool_call", "call_id": "c", "name": "patch", "input": "*** x"},
                {"type": "custom_tool_call_output", "call_id": "c", "output": "ok"},
            ]
        },
        {
            "messages": [
                {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "patch", "input": "*** x"}}]},
                {"role": "tool", "tool_call_id": "c", "content": "ok"},
            ]
        },
    ),
    (
        "bounds, sampling, effort, schema and stream",
        {
            "input": "a",
            "max_output_tokens": 50,
            "temperature": 0.5,
            "reasoning": {"effort": "low", "summary": "auto"},
            "text": {"verbosity": "low", "format": {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True}},
            "stream": True,
            "store": False,
            "truncation": "auto",
            "include": ["reasoning.encrypted_content"],
            "prompt_cache_key": "k",
        },
        {
            "messages": [_user("a")],
            "max_completion_tokens": 50,
            "temperature": 0.5,
            "reasoning_effort": "low",
            "verbosity": "low",
            "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": True}},
            "stream": True,
            "stream_options": {"include_usage": True},
            "prompt_cache_key": "k",
        },
    ),
]


@pytest.mark.parametrize(("name", "asked", "sent"), PAIRS, ids=[pair[0] for pair in PAIRS])
def test_requests(name: str, asked: dict[str, Any], sent: dict[str, Any]) -> None:
    """Each thing that a client may ask becomes what Chat Completions call it."""
    assert _request(**asked) == sent
    openai.parse(json.dumps({"model": "m", **sent}).encode())


@pytest.mark.parametrize(
    ("asked", "place"),
    [
        ({"input": "a", "previous_response_id": "resp_1"}, "previous_response_id"),
        ({"input": "a", "tools": [{"type": "web_search"}], "tool_choice": "required"}, "tool_choice"),
        ({"input": "a", "tools": [{"type": "web_search"}], "tool_choice": {"type": "web_search"}}, "tool_choice"),
        ({"input": "a", "tools": [{"type": "namespace", "name": "n", "tools": [{"type": "mcp", "name": "m"}]}]}, "tools.0.tools.0"),
        ({"input": "a", "tools": [{"type": "mcp", "server_url": "https://example.org"}]}, "tools.0"),
        ({"input": "a", "tools": [{"type": "function", "name": "f"}], "tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input.0"),
        ({"input": [_user([{"type": "input_file", "file_id": "file-1"}])]}, "input.0.content.0"),
        ({"input": [{"role": "wizard", "content": "a"}]}, "input.0.role"),
        ({"input": "a", "top_logprobs": 2}, "top_logprobs"),
        ({}, "input"),
    ],
)
def test_what_cannot_be_said_is_refused_by_its_place(asked: dict[str, Any], place: str) -> None:
    """Nothing that would break a promise is left out in silence."""
    with pytest.raises(BadRequest) as refused:
        _request(**asked)
    assert place in refused.value.message


def test_a_call_inside_a_namespace_has_both_names_apart() -> None:
    """What the model calls by one name is told by two, whole and streamed; a name that only looks so stays one."""
    tools = [{"type": "namespace", "name": "agents", "tools": [{"type": "function", "name": "close"}]}, {"type": "function", "name": "a__b"}]
    ask = _ask(tools=tools)
    calls = [_call(f"c{place}", "{}", name) for place, name in enumerate(("agents__close", "a__b"))]
    completion = {"id": "x", "choices": [{"message": {"content": None, "tool_calls": calls}, "finish_reason": "tool_calls"}]}
    told = json.loads(responses_to_openai.answer(json.dumps(completion).encode(), ask, created_seconds=1))
    assert [(item.get("namespace"), item["name"]) for item in told["output"]] == [("agents", "close"), (None, "a__b")]
    translator = responses_to_openai.stream(ask, created_seconds=1)
    delta = {"tool_calls": [{"index": place, **call} for place, call in enumerate(calls)]}
    written = translator.feed(b"data: " + json.dumps({"id": "x", "choices": [{"index": 0, "delta": delta, "finish_reason": "tool_calls"}]}).encode() + b"\n\n")
    written += translator.feed(b"data: [DONE]\n\n")
    told_events = [json.loads(line[6:]) for line in written.split(b"\n") if line.startswith(b"data: ")]
    done = [event["item"] for event in told_events if event["type"] == "response.output_item.done"]
    assert [(item.get("namespace"), item["name"]) for item in done] == [("agents", "close"), (None, "a__b")]


def test_cursor_s_bodies_become_chat_s() -> None:
    """A Responses-shaped body on Cursor's path becomes a chat's, with the stream options that it brings; one with messages stays byte for byte."""
    body = {"model": "m", "input": [_user("a")], "stream": True, "stream_options": {"include_usage": True}, "max_tokens": 7, "reasoning": {"effort": "low"}}
    tool = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}
    told = json.loads(as_chat(json.dumps({**body, "tools": [tool], "include": ["reasoning.encrypted_content"]}).encode()))
    kept = {name: body[name] for name in ("model", "stream", "stream_options", "max_tokens")}
    assert told == {**kept, "messages": [_user("a")], "tools": [tool], "reasoning_effort": "low"}
    for same in (b'{"model" : "m", "messages":[]}', b"{", b"[]", b'{"input":"a","messages":[]}', b""):
        assert as_chat(same) is same


def _ask(**more: Any) -> Ask:
    return responses.parse(json.dumps({"model": "m", "input": "Hi", **more}).encode())


USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 20,
    "total_tokens": 120,
    "prompt_tokens_details": {"cached_tokens": 60},
    "completion_tokens_details": {"reasoning_tokens": 5},
}
TOLD = {
    "input_tokens": 100,
    "input_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 0},
    "output_tokens": 20,
    "output_tokens_details": {"reasoning_tokens": 5},
    "total_tokens": 120,
}


def test_answers() -> None:
    """Text and calls become items, usage its own words; an answer cut by its bound is incomplete."""
    message = {"role": "assistant", "content": "Hi", "reasoning_content": "hm", "tool_calls": [_call("c", '{"a":1}', "f")]}
    completion = {"id": "chatcmpl-7", "model": "gpt", "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}], "usage": USAGE}
    told = json.loads(responses_to_openai.answer(json.dumps(completion).encode(), _ask(), created_seconds=5))
    assert (told["id"], told["object"], told["created_at"], told["status"], told["model"], told["usage"]) == ("resp_7", "response", 5, "completed", "gpt", TOLD)
    said, called = told["output"]
    assert said["content"] == [{"type": "output_text", "text": "Hi", "annotations": [], "logprobs": []}]
    assert (called["type"], called["call_id"], called["name"], called["arguments"]) == ("function_call", "c", "f", '{"a":1}')
    completion["choices"] = [{"index": 0, "message": {"content": "H"}, "finish_reason": "length"}]
    cut = json.loads(responses_to_openai.answer(json.dumps(completion).encode(), _ask(), created_seconds=5))
    assert (cut["status"], cut["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})


def _told(stream: bytes, size: int) -> list[dict[str, Any]]:
    translator = responses_to_openai.stream(_ask(stream=True), created_seconds=5)
    written = b"".join(translator.feed(stream[at : at + size]) for at in range(0, len(stream), size)) + translator.end()
    found = []
    for event in written.strip().split(b"\n\n"):
        if event.startswith(b":"):
            continue
        name, data = event.split(b"\n")
        found.append(json.loads(data[6:]))
        assert name == b"event: " + found[-1]["type"].encode()
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    return found


def _calls(*calls: dict[str, Any]) -> dict[str, Any]:
    return {**HEAD, "choices": [{"index": 0, "delta": {"tool_calls": list(calls)}, "finish_reason": None}]}


STREAM = chunks(
    chunk(""),
    chunk("Hel"),
    {**HEAD, "choices": [{"index": 0, "delta": {"reasoning_content": "hm"}, "finish_reason": None}]},
    chunk("lo"),
    _calls({"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}),
    _calls({"index": 1, "id": "d", "type": "function", "function": {"name": "g", "arguments": ""}}),
    _calls({"index": 1, "function": {"arguments": "{}"}}, {"index": 0, "function": {"arguments": '{"a"'}}),
    _calls({"index": 0, "function": {"arguments": ":1}"}}),
    chunk(None, "tool_calls"),
    {**HEAD, "choices": [], "usage": USAGE},
)


def test_streams_with_interleaved_calls() -> None:
    """Each item keeps its number and its pieces, whatever their order and wherever the chunks are cut; each is ended before the response is."""
    for size in (1, 17, 10_000):
        told = _told(STREAM, size)
        kinds = [event["type"] for event in told]
        assert kinds[:2] == ["response.created", "response.in_progress"]
        assert kinds[-1] == "response.completed"
        assert "".join(event["delta"] for event in told if event["type"] == "response.output_text.delta") == "Hello"
        given = {1: "", 2: ""}
        for event in told:
            if event["type"] == "response.function_call_arguments.delta":
                given[event["output_index"]] += event["delta"]
        assert given == {1: '{"a":1}', 2: "{}"}
        done = [event["item"] for event in told if event["type"] == "response.output_item.done"]
        assert done == told[-1]["response"]["output"]
        assert [item.get("arguments") for item in done] == [None, '{"a":1}', "{}"]
        assert told[-1]["response"]["usage"] == TOLD


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (chunks(chunk("Hel"), done=False), "The provider broke off."),
        (chunks(chunk("Hel"), {"error": {"message": "overloaded", "code": "overloaded"}}, done=False), "overloaded"),
        (chunks(chunk("Hel"), done=False) + b"data: nonsense\n\n", "The provider sent something that cannot be read."),
    ],
)
def test_streams_that_break(stream: bytes, message: str) -> None:
    """A broken stream never ends as a whole one."""
    told = _told(stream, 20)
    assert [event["type"] for event in told[-2:]] == ["error", "response.failed"]
    assert (told[-2]["message"], told[-1]["response"]["error"]["message"]) == (message, message)


def test_an_anthropic_model_answers_responses() -> None:
    """Two translations in a row: the request becomes a Messages request, the stream Responses events with the usage of the Messages API."""
    chain = between(responses, "anthropic")
    assert chain is not None
    asked = {
        "model": "claude",
        "input": [
            _user("a"),
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "ok"},
        ],
    }
    sent = json.loads(chain.request(json.dumps({**asked, "instructions": "Be brief.", "stream": True}).encode(), max_output_tokens=77))
    assert (sent["model"], sent["max_tokens"], sent["stream"], sent["system"]) == ("claude", 77, True, [{"type": "text", "text": "Be brief."}])
    assert [turn["role"] for turn in sent["messages"]] == ["user", "assistant", "user"]
    usage = {"input_tokens": 30, "cache_read_input_tokens": 60, "cache_creation_input_tokens": 10, "output_tokens": 1}
    stream = events(start(usage), *text_block("Hel", "lo"), *finish({"output_tokens": 20}))
    translator = chain.stream(_ask(stream=True), created_seconds=5)
    written = translator.feed(stream) + translator.end()
    last = json.loads(written.strip().rsplit(b"data: ", 1)[1])
    assert (last["type"], last["response"]["output"][0]["content"][0]["text"]) == ("response.completed", "Hello")
    assert (last["response"]["usage"]["input_tokens"], last["response"]["usage"]["input_tokens_details"]["cached_tokens"]) == (100, 60)
    whole = {
        "id": "msg_1",
        "type": "message",
        "model": "claude",
        "content": [{"type": "text", "text": "Hi"}],
        "stop_reason": "end_turn",
        "usage": {**usage, "output_tokens": 20},
    }
    told = json.loads(chain.answer(json.dumps(whole).encode(), _ask(), created_seconds=5))
    assert (told["output"][0]["content"][0]["text"], told["usage"]["output_tokens"]) == ("Hi", 20)
    error = json.loads(chain.error(429, b'{"type":"error","error":{"type":"rate_limit_error","message":"slow"}}', "r"))
    assert error["error"]["message"] == "slow"


def test_what_stands_between_a_form_and_an_upstream() -> None:
    """A form that the upstream speaks passes byte for byte; another is translated, or refused by name; a server may have chat alone."""
    assert [between(form, "openai") for form in (openai, responses, embeddings, speech)] == [None] * 4
    assert between(anthropic, "anthropic") is None
    assert between(responses, "openai", ("chat",)) is responses_to_openai
    assert between(openai, "openai", ("chat",)) is None
    for form, dialect, forms in ((embeddings, "anthropic", None), (speech, "openai", ("chat",)), (embeddings, "openai", ("chat", "responses"))):
        with pytest.raises(BadRequest) as refused:
            between(form, dialect, forms)
        assert form.form in refused.value.message
    assert (reaches("messages"), reaches("chat"), reaches("responses"), reaches("speech")) == (
        ("anthropic", "openai"),
        ("openai", "anthropic"),
        ("openai", "anthropic"),
        ("openai",),
    )
