"""Whole answers and error bodies in the other dialect, with the usage that the books read from either."""

import json
from typing import Any

import pytest

from proxy.dialects import anthropic, openai
from proxy.dialects.base import Usage
from proxy.translation import anthropic_to_openai, openai_to_anthropic
from proxy.translation.base import Untranslatable
from proxy.translation.usage import as_anthropic, as_openai
from tests.proxy.translation.pairs import call, text, use
from tests.proxy.translation.streams import ANTHROPIC_ASK, COUNTED, CREATED_SECONDS, FULL_USAGE, OPENAI_ASK, REPORT

TOLD = {
    "input_tokens": 30,
    "cache_creation_input_tokens": 10,
    "cache_read_input_tokens": 60,
    "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 0},
    "output_tokens": 20,
    "output_tokens_details": {"thinking_tokens": 5},
    "service_tier": "standard",
}
SPLIT = {**TOLD, "cache_creation": {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 6}}


def message(told: dict[str, Any], finish: str | None = "stop", **more: object) -> dict[str, Any]:
    """Translate a completion with this message."""
    completion = {"id": "chatcmpl-1", "model": "gpt-x", "choices": [{"message": told, "finish_reason": finish}], "usage": REPORT, **more}
    written = anthropic_to_openai.answer(json.dumps(completion).encode(), ANTHROPIC_ASK, created_seconds=CREATED_SECONDS)
    read: dict[str, Any] = json.loads(written)
    return read


def completion(*blocks: dict[str, Any], stop: str = "end_turn", **more: object) -> dict[str, Any]:
    """Translate a message with these blocks."""
    told = {"id": "msg_1", "model": "claude-x", "content": blocks, "stop_reason": stop, "usage": SPLIT, **more}
    written = openai_to_anthropic.answer(json.dumps(told).encode(), OPENAI_ASK, created_seconds=CREATED_SECONDS)
    read: dict[str, Any] = json.loads(written)
    return read


def test_an_answer_for_an_anthropic_client() -> None:
    """Text and calls are blocks, in this order; reasoning is dropped; usage is in Anthropic's disjoint buckets."""
    told = {"role": "assistant", "content": "Looking.", "reasoning_content": "hm", "tool_calls": [call("call_1", '{"city": "Rome"}')]}
    assert message(told, "tool_calls") == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "gpt-x",
        "content": [text("Looking."), use("call_1", city="Rome")],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": TOLD,
    }


@pytest.mark.parametrize(
    ("told", "finish", "content", "reason"),
    [
        ({"content": "a"}, "stop", [text("a")], "end_turn"),
        ({"content": "a"}, None, [text("a")], "end_turn"),
        ({"content": "a"}, "length", [text("a")], "max_tokens"),
        ({"content": None}, "content_filter", [], "refusal"),
        ({"content": None, "refusal": "No."}, "stop", [text("No.")], "refusal"),
        ({"content": "", "tool_calls": [call("c", "")]}, "stop", [use("c")], "tool_use"),
        ({"tool_calls": [call("c", '{"a"')]}, "length", [use("c", INVALID_JSON='{"a"')], "max_tokens"),
        ({"tool_calls": [{**call("fn.x:0", "[1]"), "id": None}]}, "tool_calls", [use("call_1_0", INVALID_JSON="[1]")], "tool_use"),
        ({"content": [{"type": "thinking", "text": "hm"}, text("a"), text("b")]}, "stop", [text("a"), text("b")], "end_turn"),
    ],
)
def test_what_a_message_holds_and_why_it_ended(told: dict[str, Any], finish: str | None, content: list[Any], reason: str) -> None:
    """A call is tool_use even where the server says stop; arguments that are no object stand under one key of an object."""
    read = message(told, finish)
    assert (read["content"], read["stop_reason"]) == (content, reason)


def test_an_answer_without_usage_is_estimated() -> None:
    """Clients of the Messages API fail without usage: it is the counted input and a token for every four characters, as in the books."""
    assert message({"content": "eight ch"}, usage=None)["usage"] == {**COUNTED, "output_tokens": 2}


def test_an_answer_for_an_openai_client() -> None:
    """Texts are one; thinking is dropped; usage adds caches to the prompt and keeps the lifetimes of what was written beside."""
    blocks = [{"type": "thinking", "thinking": "hm", "signature": "sig"}, text("a"), text("b"), use("toolu_1", city="Rome")]
    assert completion(*blocks, stop="tool_use") == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": CREATED_SECONDS,
        "model": "claude-x",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "ab", "refusal": None, "tool_calls": [call("toolu_1", '{"city": "Rome"}')]},
                "logprobs": None,
                "finish_reason": "tool_calls",
            }
        ],
        "usage": FULL_USAGE,
    }


def test_an_answer_of_calls_alone_has_no_content() -> None:
    """Content is null beside calls, and an empty text without them; usage that is not sound is left out and not made up."""
    assert completion(use("t"), stop="tool_use")["choices"][0]["message"]["content"] is None
    refused = completion(stop="refusal", usage={"input_tokens": -1, "output_tokens": 1})
    assert refused["choices"][0]["message"]["content"] == ""
    assert refused["choices"][0]["finish_reason"] == "content_filter"
    assert "usage" not in refused


def test_usage_is_the_same_in_both_words() -> None:
    """F9, F10: the books read the same buckets from a report and from its translation, where the other dialect has the field."""
    usage = Usage(30, 60, 4, 6, 20, 5, reported=True)
    there = {"content": [], "usage": as_anthropic(usage)}
    assert anthropic.read(json.dumps(there).encode(), ANTHROPIC_ASK).usage == Usage(30, 60, 4, 6, 20, 5, service_tier="standard", reported=True)
    back = {"choices": [], "usage": as_openai(usage)}
    assert openai.read(json.dumps(back).encode(), OPENAI_ASK).usage == Usage(30, 60, 10, 0, 20, 5, reported=True)


@pytest.mark.parametrize("body", [b"", b"{}", b'{"choices":[]}', b'{"choices":[{}]}', b'{"error":{"message":"x"}}', b'{"content":"x"}', b"\xff"])
def test_what_is_no_answer_is_not_translated(body: bytes) -> None:
    """A body that is no answer of its dialect is told apart from an empty answer."""
    for translation, ask in ((anthropic_to_openai, ANTHROPIC_ASK), (openai_to_anthropic, OPENAI_ASK)):
        with pytest.raises(Untranslatable):
            translation.answer(body, ask, created_seconds=CREATED_SECONDS)


@pytest.mark.parametrize(
    ("status", "body", "kind", "told"),
    [
        (400, {"error": {"message": "Bad field.", "type": "invalid_request_error"}}, "invalid_request_error", "Bad field."),
        (422, {"error": {"message": "Bad field."}}, "invalid_request_error", "Bad field."),
        (404, {"error": {"message": "No model.", "code": "model_not_found"}}, "not_found_error", "No model."),
        (413, {"error": "Too large."}, "request_too_large", "Too large."),
        (429, {"error": {"message": "Slow down."}}, "rate_limit_error", "Slow down."),
        (409, {"object": "error", "message": "In use."}, "conflict_error", "In use."),
        (500, [], "api_error", "The provider answered with status 500."),
        (400, {"error": {"code": "context_length_exceeded", "message": "Max is 5."}}, "invalid_request_error", "prompt is too long: Max is 5."),
    ],
)
def test_errors_for_an_anthropic_client(status: int, body: object, kind: str, told: str) -> None:
    """The message is the upstream's, word for word; the type goes by the status; length gets the words that Claude Code looks for."""
    written = json.loads(anthropic_to_openai.error(status, json.dumps(body).encode(), "req_1"))
    assert written == {"type": "error", "error": {"type": kind, "message": told}, "request_id": "req_1"}


@pytest.mark.parametrize(
    ("status", "told", "expected"),
    [
        (400, {"type": "invalid_request_error", "message": "Bad."}, ("Bad.", "invalid_request_error", None)),
        (400, {"type": "invalid_request_error", "message": "prompt is too long: 9"}, ("prompt is too long: 9", "invalid_request_error", "context_length_exceeded")),
        (404, {"type": "not_found_error", "message": "No."}, ("No.", "invalid_request_error", "model_not_found")),
        (429, {"type": "rate_limit_error", "message": "Slow."}, ("Slow.", "rate_limit_error", "rate_limit_exceeded")),
        (529, {"type": "overloaded_error", "message": "Busy."}, ("Busy.", "server_error", "overloaded")),
        (400, None, ("The provider answered with status 400.", "invalid_request_error", None)),
        (500, {"type": 5, "message": 5}, ("The provider answered with status 500.", "server_error", None)),
    ],
)
def test_errors_for_an_openai_client(status: int, told: object, expected: tuple[str, str, str | None]) -> None:
    """The message is the upstream's, word for word; length gets the code that clients look for."""
    written = json.loads(openai_to_anthropic.error(status, json.dumps({"type": "error", "error": told}).encode(), "req_1"))
    assert written == {"error": dict(zip(("message", "type", "code"), expected, strict=True)) | {"param": None}}


def test_errors_that_are_no_json() -> None:
    """An error page of a proxy in between is told by its status."""
    assert json.loads(anthropic_to_openai.error(502, b"<html>", "r"))["error"]["message"] == "The provider answered with status 502."
    assert json.loads(openai_to_anthropic.error(502, b"\xff", "r"))["error"]["message"] == "The provider answered with status 502."
