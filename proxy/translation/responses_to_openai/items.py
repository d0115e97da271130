"""The items of a Responses request as chat messages."""

from typing import Any

import msgspec

from proxy.dialects.base import BadRequest
from proxy.dialects.tool_names import inside
from proxy.translation.base import refused

ChatMessage = dict[str, Any]

BELOW = "The result is in the message below."
_MESSAGES = ("message", "")
_ROLES = {"user": "user", "assistant": "assistant", "system": "system", "developer": "developer"}
# What a model thought; it means something to its own provider only.
_THOUGHTS = frozenset({"reasoning"})


class Part(msgspec.Struct):
    """A piece of a message, or of a tool's output; chat's own parts are understood as well, because some clients mix them."""

    type: str = ""
    text: str | None = None
    refusal: str | None = None
    image_url: Any = None
    detail: str | None = None
    file_data: str | None = None
    filename: str | None = None
    file: Any = None


class Item(msgspec.Struct):
    """An item of the input."""

    type: str = ""
    role: str = ""
    content: str | list[Part] | None = None
    call_id: str | None = None
    name: str | None = None
    namespace: str | None = None
    arguments: str | None = None
    input: str | None = None
    output: str | list[Part] | None = None


def messages_of(given: str | list[Item] | None, instructions: str | None) -> list[ChatMessage]:
    """Give the conversation. Raises BadRequest, which names the place.

    Calls in a row, and the assistant's words before them, are one message; what is no text in a tool's output goes into the user's message
    after it, for a tool's message holds text only. Reasoning is left out.
    """
    messages: list[ChatMessage] = [{"role": "system", "content": instructions}] if instructions else []
    items = [Item(role="user", content=given)] if isinstance(given, str) else given or []
    beside: list[dict[str, Any]] = []
    for place, item in enumerate(items):
        where = f"input.{place}"
        if beside and item.type not in ("function_call_output", "custom_tool_call_output"):
            messages.append({"role": "user", "content": beside})
            beside = []
        if item.type in _MESSAGES:
            messages.append(_message(item, where))
        elif item.type in ("function_call", "custom_tool_call"):
            _add_call(messages, _call(item))
        elif item.type in ("function_call_output", "custom_tool_call_output"):
            message, more = _output(item, where)
            messages.append(message)
            beside += more
        elif item.type == "item_reference":
            raise BadRequest(f"{where}: this model's provider keeps no items; send the item itself, as clients do that ask with `store: false`", "input")
        elif item.type not in _THOUGHTS:
            raise refused(where, f"An item of type `{item.type}`")
    if beside:
        messages.append({"role": "user", "content": beside})
    return messages


def _message(item: Item, where: str) -> ChatMessage:
    if item.role not in _ROLES:
        raise BadRequest(f"{where}.role: Input should be 'user', 'assistant', 'system' or 'developer'", "input")
    return {"role": _ROLES[item.role], "content": _content(item.content, f"{where}.content")}


def _content(content: str | list[Part] | None, where: str) -> str | list[dict[str, Any]]:
    if not isinstance(content, list):
        return content or ""
    parts = [_part(part, f"{where}.{place}") for place, part in enumerate(content)]
    return parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts


def _part(part: Part, where: str) -> dict[str, Any]:
    match part.type:
        case "input_text" | "output_text" | "text" | "summary_text":
            return {"type": "text", "text": part.text or ""}
        case "refusal":
            return {"type": "text", "text": part.refusal or ""}
        case "input_image" if isinstance(part.image_url, str):
            return {"type": "image_url", "image_url": {"url": part.image_url, **({"detail": part.detail} if part.detail else {})}}
        case "image_url":
            return {"type": "image_url", "image_url": part.image_url}
        case "input_file" if part.file_data:
            return {"type": "file", "file": {"file_data": part.file_data, **({"filename": part.filename} if part.filename else {})}}
        case "file":
            return {"type": "file", "file": part.file}
        case _:
            raise refused(where, f"A part of type `{part.type}`, or what it names at the provider,")


def _call(item: Item) -> dict[str, Any]:
    if item.type == "custom_tool_call":
        return {"id": item.call_id or "", "type": "custom", "custom": {"name": item.name or "", "input": item.input or ""}}
    name = inside(item.namespace, item.name or "") if item.namespace else item.name or ""
    return {"id": item.call_id or "", "type": "function", "function": {"name": name, "arguments": item.arguments or ""}}


def _add_call(messages: list[ChatMessage], call: dict[str, Any]) -> None:
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": None})
    messages[-1].setdefault("tool_calls", []).append(call)


def _output(item: Item, where: str) -> tuple[ChatMessage, list[dict[str, Any]]]:
    if not item.call_id:
        raise BadRequest(f"{where}.call_id: Field required", "input")
    parts = [{"type": "text", "text": item.output or ""}] if not isinstance(item.output, list) else []
    if isinstance(item.output, list):
        parts = [_part(part, f"{where}.output.{place}") for place, part in enumerate(item.output)]
    texts = [part["text"] for part in parts if part["type"] == "text"]
    others = [part for part in parts if part["type"] != "text"]
    content = "\n".join(texts) if texts or not others else BELOW
    return {"role": "tool", "tool_call_id": item.call_id, "content": content}, others
