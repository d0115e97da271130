"""Bodies of the right kind with one value that is wrong: refused or told as an error, never a failure of ours."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from proxy.dialects.base import BadRequest
from proxy.translation import anthropic_to_openai, openai_to_anthropic
from proxy.translation.base import Untranslatable
from tests.proxy.translation.pairs import TO_ANTHROPIC, TO_OPENAI, call, text, use
from tests.proxy.translation.streams import ANTHROPIC_ASK, CHATS, CREATED_SECONDS, MESSAGES, OPENAI_ASK, REPORT, read_chats, read_messages

ODD: list[Any] = [None, True, -1, 1.5, 2**70, "", "x", [], [None], [[]], {}, {"type": 5}, {"type": "text"}]


def with_one_wrong(value: Any) -> Iterator[Any]:
    """Give the value with each of its parts, and itself, replaced by each odd value in turn."""
    yield from ODD
    if isinstance(value, dict):
        for key, inner in value.items():
            yield {name: other for name, other in value.items() if name != key}
            yield from ({**value, key: other} for other in with_one_wrong(inner))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from ([*value[:place], other, *value[place + 1 :]] for other in with_one_wrong(inner))


@pytest.mark.parametrize(("translation", "pairs"), [(anthropic_to_openai, TO_OPENAI), (openai_to_anthropic, TO_ANTHROPIC)], ids=["openai", "anthropic"])
def test_requests(translation: Any, pairs: Any) -> None:
    """Each is refused with BadRequest or becomes a JSON object."""
    for pair in pairs:
        for body in with_one_wrong({"model": "m", "max_tokens": 9, **pair.asked}):
            with contextlib.suppress(BadRequest):
                assert isinstance(json.loads(translation.request(json.dumps(body).encode(), max_output_tokens=5)), dict)


def test_answers_and_errors() -> None:
    """Each is Untranslatable or becomes an answer; an error is always an error."""
    told = {"content": [text("a")], "refusal": "No.", "tool_calls": [call("c", "{}")]}
    completion = {"id": "1", "model": "m", "choices": [{"message": told, "finish_reason": "stop"}], "usage": REPORT, "error": {"message": "a", "code": "b"}}
    usage = {"input_tokens": 1, "output_tokens": 1, "cache_creation": {"ephemeral_5m_input_tokens": 1}}
    message = {"id": "1", "model": "m", "content": [text("a"), use("t")], "usage": usage, "error": {"message": "a", "type": "b"}}
    for translation, ask, whole in ((anthropic_to_openai, ANTHROPIC_ASK, completion), (openai_to_anthropic, OPENAI_ASK, message)):
        for value in with_one_wrong(whole):
            body = json.dumps(value).encode()
            with contextlib.suppress(Untranslatable):
                answered = json.loads(translation.answer(body, ask, created_seconds=CREATED_SECONDS))
                assert answered["id"]
            assert json.loads(translation.error(500, body, "r"))["error"]["message"]


@pytest.mark.parametrize("direction", ["messages", "chats"])
def test_streams(direction: str) -> None:
    """Each ends once: with its terminal event, or with an error."""
    for stream in CHATS if direction == "messages" else MESSAGES:
        events = [line[6:] for line in stream.sent.split(b"\n") if line.startswith(b"data: {")]
        for place, event in enumerate(events):
            if event.startswith(b"{oops"):
                continue
            for wrong in with_one_wrong(json.loads(event)):
                lines = [*events[:place], json.dumps(wrong).encode(), *events[place + 1 :]]
                sent = b"".join(b"data: " + line + b"\n\n" for line in lines) + (b"data: [DONE]\n\n" if direction == "messages" else b"")
                if direction == "messages":
                    to_messages = anthropic_to_openai.stream(ANTHROPIC_ASK, created_seconds=CREATED_SECONDS)
                    assert [one["type"] in ("message_stop", "error") for one in read_messages(to_messages.feed(sent) + to_messages.end())][-1:] == [True]
                else:
                    to_chats = openai_to_anthropic.stream(OPENAI_ASK, created_seconds=CREATED_SECONDS)
                    got = read_chats(to_chats.feed(sent) + to_chats.end())
                    assert [one == {} or "error" in one for one in got].index(True) == len(got) - 1
