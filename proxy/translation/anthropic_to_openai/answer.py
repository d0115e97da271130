"""Whole chat completions as answers of the Messages API."""

import re
from typing import Any

import msgspec

from proxy.dialects.base import Ask, Usage
from proxy.dialects.numbers import Unsound, word
from proxy.dialects.openai.usage import estimated, reported
from proxy.translation.anthropic_to_openai.stops import stop_reason
from proxy.translation.arguments import as_object, as_piece
from proxy.translation.base import Untranslatable, read_answer
from proxy.translation.usage import as_anthropic

_NOT_IN_IDS = re.compile(r"[^a-zA-Z0-9_-]")


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: Any = None


class _Call(msgspec.Struct):
    id: str | None = None
    function: _Function | None = None


class _Message(msgspec.Struct):
    content: str | list[dict[str, Any]] | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(msgspec.Struct):
    message: _Message | None = None
    finish_reason: str | None = None


class _Completion(msgspec.Struct):
    choices: list[_Choice]
    id: str | None = None
    model: str | None = None
    service_tier: str | None = None
    usage: Any = None


def answer(body: bytes, ask: Ask, *, created_seconds: int) -> bytes:
    """Translate a completion's first choice. Raises Untranslatable when there is none.

    Reasoning is left out: a thinking block without its maker's signature would be a lie. Arguments that are no JSON object come as the
    one entry `INVALID_JSON` of an object.
    """
    completion = read_answer(body, _Completion)
    message = completion.choices[0].message if completion.choices else None
    if message is None:
        raise Untranslatable("no choice")
    identity = message_id(completion.id, created_seconds)
    texts = [text for text in [*shown(message.content), message.refusal] if text]
    content: list[dict[str, object]] = [{"type": "text", "text": text} for text in texts]
    delivered = sum(map(len, texts))
    calls = message.tool_calls or []
    for place, call in enumerate(calls):
        function = call.function or _Function()
        arguments = as_piece(function.arguments)
        delivered += len(arguments)
        content.append(tool_use(call.id or made_id(identity, place), ask.aliases.get(function.name or "", function.name or ""), as_object(arguments)))
    reason = stop_reason(completion.choices[0].finish_reason, called=bool(calls), refused=bool(message.refusal))
    model = word(completion.model) or ask.model
    usage = told_usage(completion.usage, model, word(completion.service_tier), ask, delivered)
    head = {"id": identity, "type": "message", "role": "assistant", "model": model, "content": content}
    return msgspec.json.encode({**head, "stop_reason": reason, "stop_sequence": None, "usage": as_anthropic(usage)})


def shown(content: object) -> list[str]:
    """Give the texts of content; some servers answer in parts, thoughts among them, which are not shown."""
    if isinstance(content, str):
        return [content]
    parts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"] if isinstance(content, list) else []
    return [text for text in parts if isinstance(text, str)]


def tool_use(identity: str, name: str, arguments: object) -> dict[str, object]:
    """Write the block of a tool call."""
    return {"type": "tool_use", "id": _NOT_IN_IDS.sub("_", identity), "name": name, "input": arguments}


def message_id(completion_id: str | None, created_seconds: int) -> str:
    """Give a message's id, made of the completion's."""
    return "msg_" + _NOT_IN_IDS.sub("_", (completion_id or str(created_seconds)).removeprefix("chatcmpl-"))


def made_id(identity: str, place: int) -> str:
    """Give the id of a tool call whose server gave it none: the same for the same message and place."""
    return f"call_{identity.removeprefix('msg_')}_{place}"


def told_usage(report: object, model: str, tier: str | None, ask: Ask, delivered_characters: int) -> Usage:
    """Give what a report says, or an estimate where it says nothing sound."""
    try:
        return reported(report, model, tier)
    except Unsound:
        return estimated(None, model, tier, ask, delivered_characters)
