"""Whole answers of the Messages API as chat completions."""

from typing import Any

import msgspec

from proxy.dialects.anthropic.usage import reported
from proxy.dialects.base import Ask
from proxy.dialects.numbers import Unsound, word
from proxy.translation.arguments import as_text
from proxy.translation.base import read_answer
from proxy.translation.openai_to_anthropic.stops import finish_reason
from proxy.translation.usage import as_openai

_NOTHING = msgspec.Raw()


class _Block(msgspec.Struct):
    type: str = ""
    text: str | None = None
    id: str | None = None
    name: str | None = None
    input: msgspec.Raw = _NOTHING


class _Message(msgspec.Struct):
    content: list[_Block]
    id: str | None = None
    model: str | None = None
    stop_reason: str | None = None
    usage: Any = None


def answer(body: bytes, ask: Ask, *, created_seconds: int) -> bytes:
    """Translate an answer into a completion of one choice. Raises Untranslatable.

    Texts of several blocks are one; thinking is left out. Usage that is not sound is left out too.
    """
    message = read_answer(body, _Message)
    text = "".join(block.text for block in message.content if block.type == "text" and block.text)
    calls = [
        {"id": block.id or "", "type": "function", "function": {"name": block.name or "", "arguments": as_text(block.input)}}
        for block in message.content
        if block.type == "tool_use"
    ]
    told: dict[str, object] = {"role": "assistant", "content": text or (None if calls else ""), "refusal": None}
    if calls:
        told["tool_calls"] = calls
    choice = {"index": 0, "message": told, "logprobs": None, "finish_reason": finish_reason(message.stop_reason)}
    model = word(message.model) or ask.model
    completion: dict[str, object] = {
        "id": completion_id(message.id, created_seconds),
        "object": "chat.completion",
        "created": created_seconds,
        "model": model,
        "choices": [choice],
    }
    usage = told_usage(message.usage, model)
    return msgspec.json.encode(completion if usage is None else {**completion, "usage": usage})


def completion_id(message_id: str | None, created_seconds: int) -> str:
    """Give a completion's id, made of the message's."""
    return "chatcmpl-" + (message_id or str(created_seconds)).removeprefix("msg_")


def told_usage(report: object, model: str) -> dict[str, object] | None:
    """Give a report in the client's words; None when it is not sound."""
    try:
        return as_openai(reported(report if isinstance(report, dict) else {}, model))
    except Unsound:
        return None
