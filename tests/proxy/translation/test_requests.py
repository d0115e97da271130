"""Requests: each thing a client may ask, beside what is sent; what cannot be said in the other dialect is refused by its name."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects import anthropic, openai
from proxy.dialects.base import BadRequest
from proxy.translation import anthropic_to_openai, openai_to_anthropic
from tests.proxy.translation.pairs import (
    FUNCTION,
    HELLO,
    PICTURE,
    TO_ANTHROPIC,
    TO_OPENAI,
    TOOL,
    Pair,
    assistant,
    result,
    system,
    text,
    use,
    user,
)

MOST = 4096


def to_openai(**fields: object) -> dict[str, Any]:
    """Translate a Messages request that has a model and a bound."""
    body = json.dumps({"model": "m", "max_tokens": 100, **fields}).encode()
    sent = anthropic_to_openai.request(body, max_output_tokens=MOST)
    assert openai.parse(sent).model == "m"
    read: dict[str, Any] = json.loads(sent)
    return read


def to_anthropic(**fields: object) -> dict[str, Any]:
    """Translate a Chat Completions request that has a model."""
    sent = openai_to_anthropic.request(json.dumps({"model": "m", **fields}).encode(), max_output_tokens=MOST)
    assert anthropic.parse(sent).model == "m"
    read: dict[str, Any] = json.loads(sent)
    return read


@pytest.mark.parametrize("pair", TO_OPENAI, ids=lambda pair: pair.name)
def test_what_an_anthropic_client_asks(pair: Pair) -> None:
    """Each request of the Messages API becomes the request beside it, and nothing else is in it."""
    assert to_openai(**pair.asked) == {"model": "m", "max_completion_tokens": 100, **pair.sent}


@pytest.mark.parametrize("pair", TO_ANTHROPIC, ids=lambda pair: pair.name)
def test_what_an_openai_client_asks(pair: Pair) -> None:
    """Each request of Chat Completions becomes the request beside it, with a bound, which is required there."""
    assert to_anthropic(**pair.asked) == {"model": "m", "max_tokens": MOST, **pair.sent}


@pytest.mark.parametrize(
    ("fields", "param", "named"),
    [
        ({"tools": [TOOL, {"type": "web_search_20250305", "name": "web_search"}]}, "tools", "`web_search` of type `web_search_20250305`"),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools", "`bash`"),
        ({"tools": [TOOL], "tool_choice": {"type": "later"}}, "tool_choice", "`later`"),
        ({"mcp_servers": [{"name": "x"}]}, "mcp_servers", "provider runs"),
        ({"container": "c_1"}, "container", "provider runs"),
        ({"inference_geo": "us"}, "inference_geo", "`us`"),
        ({"max_tokens": 0}, "max_tokens", "max_tokens"),
        ({"messages": []}, "messages", "at least one"),
        ({"messages": [{"role": "robot", "content": "a"}]}, "messages", "messages.0.role"),
        ({"messages": [user("a"), assistant("The answer is (")]}, "messages", "prefill"),
        ({"messages": [user([text("a"), {"type": "search_result", "content": []}])]}, "messages", "messages.0.content.1: A block of type `search_result`"),
        ({"messages": [user([{"type": "image", "source": {"type": "file", "file_id": "f"}}])]}, "messages", "type `file`"),
        ({"messages": [user([{"type": "document", "source": {"type": "url", "url": "https://example.org"}}])]}, "messages", "type `url`"),
        ({"messages": [user("a"), system([PICTURE])]}, "messages", "`image` in a system prompt"),
        (
            {"messages": [user("a"), assistant([{"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}]), user("b")]},
            "messages",
            "`server_tool_use` (`web_search`)",
        ),
        (
            {"messages": [user("a"), assistant([use("t")]), user([result("t", [{"type": "tool_reference", "tool_name": "x"}])])]},
            "messages",
            "messages.2.content.0.content.0: A block of type `tool_reference`",
        ),
        ({"output_config": {"format": {"type": "grammar"}}}, "output_config", "`grammar`"),
        ({"messages": [user(5)]}, "messages", "$.messages[0].content"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_openai_cannot_be_asked(fields: dict[str, Any], param: str, named: str) -> None:
    """What would be lost is refused: the message names it, and the field."""
    with pytest.raises(BadRequest) as caught:
        to_openai(**{**HELLO, **fields})
    assert caught.value.param == param
    assert named in caught.value.message


@pytest.mark.parametrize(
    ("fields", "param", "named"),
    [
        ({"n": 2}, "n", "More than one choice"),
        ({"logprobs": True}, "logprobs", "`logprobs`"),
        ({"functions": [{"name": "x"}]}, "functions", "`functions`"),
        ({"web_search_options": {"search_context_size": "low"}}, "web_search_options", "`web_search_options`"),
        ({"modalities": ["text", "audio"]}, "modalities", "`audio`"),
        ({"response_format": {"type": "json_object"}}, "response_format", "`json_object`"),
        ({"tools": [FUNCTION, {"type": "custom", "custom": {"name": "patch"}}]}, "tools", "tools.1: The tool `patch` of type `custom`"),
        ({"tools": [FUNCTION], "tool_choice": {"type": "allowed_tools"}}, "tool_choice", "`allowed_tools`"),
        ({"tools": [FUNCTION], "tool_choice": "maybe"}, "tool_choice", "`maybe`"),
        ({"messages": [system("only")]}, "messages", "at least one"),
        ({"messages": [user("")]}, "messages", "at least one"),
        ({"messages": [{"role": "function", "name": "x", "content": "y"}]}, "messages", "`function`"),
        ({"messages": [{"role": "tool", "content": "y"}]}, "messages", "messages.0.tool_call_id"),
        ({"messages": [user([{"type": "input_audio", "input_audio": {}}])]}, "messages", "messages.0.content.0: A part of type `input_audio`"),
        ({"messages": [user([{"type": "image_url", "image_url": {"url": "file:///a"}}])]}, "messages", "web address"),
        ({"messages": [user([{"type": "file", "file": {"file_id": "f"}}])]}, "messages", "PDF"),
        ({"messages": [user("a"), assistant(None, function_call={"name": "x", "arguments": ""})]}, "messages", "function_call"),
        ({"messages": [user("a"), assistant(None, tool_calls=[{"id": "c", "type": "custom", "custom": {}}])]}, "messages", "`custom`"),
        ({"messages": [{**system([]), "content": [{"type": "image_url", "image_url": "https://example.org"}]}, user("a")]}, "messages", "system message"),
        ({"temperature": "warm"}, "temperature", "$.temperature"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_anthropic_cannot_be_asked(fields: dict[str, Any], param: str, named: str) -> None:
    """What would be lost is refused: the message names it, and the field."""
    with pytest.raises(BadRequest) as caught:
        to_anthropic(**{**HELLO, **fields})
    assert caught.value.param == param
    assert named in caught.value.message


def test_arguments_and_schemas_keep_their_bytes() -> None:
    """F37: a tool's input and schema are copied, not written anew: order of keys, numbers and spaces stay, for caches depend on them."""
    schema = b'{ "type":"object", "b":1.0, "a":1e3 }'
    given_input = b'{"b": 1.0, "a": 12345678901234567890}'
    body = (
        b'{"model":"m","max_tokens":1,"tools":[{"name":"t","input_schema":' + schema + b'}],"messages":[{"role":"user","content":"a"},'
        b'{"role":"assistant","content":[{"type":"tool_use","id":"t1","name":"t","input":' + given_input + b"}]},"
        b'{"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":"x"}]}]}'
    )
    sent = anthropic_to_openai.request(body, max_output_tokens=MOST)
    assert b'"parameters":' + schema in sent
    assert json.loads(sent)["messages"][1]["tool_calls"][0]["function"]["arguments"].encode() == given_input
    assert b'"input":' + given_input in openai_to_anthropic.request(sent, max_output_tokens=MOST)


def test_a_body_that_is_no_json() -> None:
    """Neither direction raises anything but BadRequest."""
    for body in (b"", b"[]", b'{"model":', b'{"messages":"\\ud800"}', b"\xff", b"[" * 100_000):
        for translation in (anthropic_to_openai, openai_to_anthropic):
            with pytest.raises(BadRequest):
                translation.request(body, max_output_tokens=MOST)


WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
IDS = st.from_regex(r"[a-zA-Z0-9_-]{1,20}", fullmatch=True)
INPUTS = st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), st.one_of(WORDS, st.integers(-(2**53), 2**53), st.booleans()), max_size=3)
USES = st.lists(st.tuples(IDS, IDS, INPUTS, WORDS), max_size=3, unique_by=lambda one: one[0])
TURNS = st.lists(st.tuples(st.lists(WORDS, min_size=1, max_size=3), st.lists(WORDS, min_size=1, max_size=3), USES), min_size=1, max_size=4)


@given(TURNS, WORDS)
def test_a_round_trip_keeps_the_conversation(turns: list[Any], last: str) -> None:
    """To OpenAI and back, every text, tool id, name, input and result is what it was, in its order and turn."""
    messages: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for asked, answered, uses in turns:
        messages.append(user([*results, *map(text, asked)]))
        blocks = [{"type": "tool_use", "id": identity, "name": name, "input": given_input} for identity, name, given_input, _ in uses]
        messages.append(assistant([*map(text, answered), *blocks]))
        results = [result(identity, told) for identity, _, _, told in uses]
    messages.append(user([*results, text(last)]))
    there = to_openai(messages=messages, system="s")
    back = to_anthropic(**{name: value for name, value in there.items() if name != "model"})
    assert back == {"model": "m", "max_tokens": 100, "system": [text("s")], "messages": messages}
