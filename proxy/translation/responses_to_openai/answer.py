"""Whole chat completions as answers of the Responses API."""

from collections.abc import Mapping
from typing import Any

import msgspec

from proxy.dialects.base import Ask, Usage
from proxy.dialects.numbers import Unsound, word
from proxy.dialects.openai.usage import estimated, reported
from proxy.dialects.responses.usage import written
from proxy.translation.arguments import as_piece
from proxy.translation.base import Untranslatable, read_answer

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
_FIXED: dict[str, Any] = {"error": None, "instructions": None, "metadata": {}, "parallel_tool_calls": True, "tool_choice": "auto", "tools": []}


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: Any = None


class _Custom(msgspec.Struct):
    name: str | None = None
    input: Any = None


class _Call(msgspec.Struct):
    id: str | None = None
    function: _Function | None = None
    custom: _Custom | None = None


class _Message(msgspec.Struct):
    content: Any = None
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
    """Translate a completion's first choice. Raises Untranslatable when there is none. Reasoning is left out: nothing is made up for it."""
    completion = read_answer(body, _Completion)
    message = completion.choices[0].message if completion.choices else None
    if message is None:
        raise Untranslatable("no choice")
    identity = response_id(completion.id, created_seconds)
    text = "".join(texts(message.content))
    output: list[dict[str, Any]] = []
    if text or message.refusal or not message.tool_calls:
        output.append(message_item(identity, text, message.refusal))
    delivered = len(text)
    for place, call in enumerate(message.tool_calls or ()):
        given = as_piece(call.custom.input if call.custom else (call.function or _Function()).arguments)
        name = (call.custom.name if call.custom else (call.function or _Function()).name) or ""
        delivered += len(given)
        custom = call.custom is not None
        output.append(call_item(identity, place, call.id or f"call_{place}", name, given, custom=custom, namespaces=ask.namespaces))
    model, tier = word(completion.model) or ask.model, word(completion.service_tier)
    told = told_usage(completion.usage, model, tier, ask, delivered)
    return msgspec.json.encode(whole(identity, model, tier, created_seconds, completion.choices[0].finish_reason, output, told))


def whole(
    identity: str, model: str, tier: str | None, created_seconds: int, finish_reason: str | None, output: list[dict[str, Any]], usage: Usage
) -> dict[str, Any]:
    """Write a response that has ended; `finish_reason` is the completion's."""
    why = _INCOMPLETE.get(finish_reason or "")
    status = "incomplete" if why else "completed"
    head = begun(identity, model, created_seconds)
    ended = {"status": status, "incomplete_details": {"reason": why} if why else None, "output": output, "usage": written(usage)}
    return {**head, **ended, **({"service_tier": tier} if tier else {})}


def begun(identity: str, model: str, created_seconds: int) -> dict[str, Any]:
    """Write a response that has begun."""
    head = {"id": identity, "object": "response", "created_at": created_seconds, "status": "in_progress", "model": model}
    return {**head, **_FIXED, "incomplete_details": None, "output": [], "usage": None}


def message_item(identity: str, text: str, refusal: str | None, status: str = "completed") -> dict[str, Any]:
    """Write the item of what the model said."""
    parts = [text_part(text)] if text or not refusal else []
    if refusal:
        parts.append({"type": "refusal", "refusal": refusal})
    return {"id": f"msg_{identity.removeprefix('resp_')}", "type": "message", "status": status, "role": "assistant", "content": parts}


def text_part(text: str) -> dict[str, Any]:
    """Write a part of text."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def call_item(
    identity: str, place: int, call_id: str, name: str, given: str, *, custom: bool, namespaces: Mapping[str, tuple[str, str]], status: str = "completed"
) -> dict[str, Any]:
    """Write the item of a tool call; one of a tool inside a namespace has both names apart again."""
    own = f"{identity.removeprefix('resp_')}_{place}"
    if custom:
        return {"id": f"ctc_{own}", "type": "custom_tool_call", "status": status, "call_id": call_id, "name": name, "input": given}
    namespace, name = namespaces.get(name, (None, name))
    item = {"id": f"fc_{own}", "type": "function_call", "status": status, "call_id": call_id, "name": name, "arguments": given}
    return item if namespace is None else {**item, "namespace": namespace}


def response_id(completion_id: str | None, created_seconds: int) -> str:
    """Give a response's id, made of the completion's."""
    return "resp_" + (completion_id or str(created_seconds)).removeprefix("chatcmpl-")


def texts(content: object) -> list[str]:
    """Give the texts of content, in one piece or in parts."""
    if isinstance(content, str):
        return [content]
    parts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"] if isinstance(content, list) else []
    return [text for text in parts if isinstance(text, str)]


def told_usage(report: object, model: str, tier: str | None, ask: Ask, delivered_characters: int) -> Usage:
    """Give what a report says, or an estimate where it says nothing sound."""
    try:
        return reported(report, model, tier)
    except Unsound:
        return estimated(None, model, tier, ask, delivered_characters)
