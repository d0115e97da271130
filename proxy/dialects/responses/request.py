"""Requests of the Responses API."""

from collections.abc import Iterator
from typing import Any

import msgspec

from proxy import splice
from proxy.dialects.base import Ask, BadRequest
from proxy.dialects.bodies import Body, identity
from proxy.dialects.counting import MOST_COMMAS, input_tokens
from proxy.dialects.numbers import word
from proxy.dialects.openai.request import request_headers
from proxy.dialects.tool_names import inside

HISTORY_TOKENS = 16_000
"""What is held for the turns that the provider keeps and the client only names; the answer tells what they were."""
MOST_NAMED = 10_000
"""How many items a request may name by their ids."""

_SHOWN = ("instructions", "tools", "text")
_NO_ITEMS = b"[]"
# What the provider would keep, or do later, under the operator's account, where no client could reach it through the gateway.
_ELSEWHERE = ("background", "conversation", "prompt")
_RUN_ELSEWHERE = frozenset({"code_interpreter", "file_search", "image_generation"})
_NOTHING = msgspec.Raw()


class _Tool(msgspec.Struct):
    type: str = ""
    environment: Any = None


class _Item(msgspec.Struct):
    """An item of the input, as far as it names something at the provider, or brings tools of its own."""

    type: Any = None
    id: Any = None
    role: Any = None
    tools: msgspec.Raw = _NOTHING


class _Space(msgspec.Struct):
    type: str = ""
    name: str = ""
    tools: list["_Space"] = []


_TOOLS = msgspec.json.Decoder(list[_Tool])
_ITEMS = msgspec.json.Decoder(list[_Item])
_ITEM = msgspec.json.Decoder(_Item)
_ELEMENTS = msgspec.json.Decoder(list[msgspec.Raw])
_SPACES = msgspec.json.Decoder(list[_Space])

__all__ = ["HISTORY_TOKENS", "count", "parse", "request_headers", "rewrite"]


def parse(body: bytes) -> Ask:
    """Read a request body; unknown fields are the upstream's matter. Raises BadRequest and nothing else.

    What the gateway cannot serve honestly is refused: answers in the background, conversations and prompts stored at the provider, and
    tools that the provider runs at a price of their own that no usage tells, also where an item of the input brings them. `previous_response_id`
    and `item_reference` pass, where they are the workspace's own.
    Source: the Responses API reference.
    """
    read = Body(body)
    model = read.model()
    for name in _ELSEWHERE:
        if read.value(name):
            raise BadRequest(f"{name}: is not served through this gateway; send the whole input, or `previous_response_id`", name)
    items = _items(read)
    for written in (*read.raw(("tools",)), *(bytes(item.tools) for item in items)):
        _refuse_tools(written)
    names = tuple(_names(items))
    metadata = read.mapping("metadata")
    conversation = identity(metadata.get("conversation_id")) or identity(metadata.get("session_id")) or identity(read.value("prompt_cache_key"))
    return Ask(
        model=model,
        streamed=read.boolean("stream"),
        input_tokens=_count(read) + (HISTORY_TOKENS if names else 0),
        max_output_tokens=read.integer("max_output_tokens", 0),
        choices=1,
        include_usage=True,
        end_user=identity(read.value("safety_identifier")) or identity(read.value("user")),
        conversation=conversation,
        spans=read.spans,
        namespaces=_namespaces(read),
        continues=_answer(read),
        names=names,
        kept=read.value("store") is not False,
    )


def count(body: bytes) -> int:
    """Estimate the input tokens of a body. Raises BadRequest and nothing else."""
    return _count(Body(body))


def rewrite(body: bytes, ask: Ask, *, model: str | None = None, max_output_tokens: int | None = None) -> bytes:
    """Give the body with another model's name and a lower `max_output_tokens`; every other byte is the client's (F37)."""
    values: dict[str, bytes] = {}
    if model is not None and model != ask.model:
        values["model"] = msgspec.json.encode(model)
    if max_output_tokens is not None and (ask.max_output_tokens is None or max_output_tokens < ask.max_output_tokens):
        values["max_output_tokens"] = str(max_output_tokens).encode()
    return splice.put(body, values, ask.spans) if values else body


def _refuse_tools(written: bytes) -> None:
    try:
        tools = _TOOLS.decode(written) if written else []
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return
    for kind in sorted({tool.type for tool in tools if _runs_elsewhere(tool)}):
        place = " in a container of the provider's" if kind == "shell" else ""
        raise BadRequest(f"tools: a tool of type `{kind}`{place} is run and billed by the provider apart from tokens, and has no price here", "tools")


def _runs_elsewhere(tool: _Tool) -> bool:
    """Tell whether the provider runs a tool at a price of its own; a shell does so unless it is the client's."""
    place = tool.environment
    return tool.type in _RUN_ELSEWHERE or (tool.type == "shell" and isinstance(place, dict) and place.get("type") != "local")


def _items(read: Body) -> list[_Item]:
    """Read the items of an input that may name something, or bring tools; others are not looked at. Raises BadRequest for one that cannot be read."""
    written = b"".join(read.raw(("input",)))
    if not written.startswith(b"[") or not (b'"id"' in written or b'"tools"' in written or b"\\u" in written):
        return []
    try:
        return _ITEMS.decode(written)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        pass
    if written.count(b",") > MOST_COMMAS:
        raise BadRequest("input: Input should be an array of items", "input")
    try:
        return [_ITEM.decode(element) for element in map(bytes, _ELEMENTS.decode(written)) if element.startswith(b"{")]
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise BadRequest("input: Input cannot be read as JSON", "input") from None


def _names(items: list[_Item]) -> Iterator[str]:
    """Give the ids by which items stand that the provider keeps; what can be no id is one that nobody was given."""
    named = [item for item in items if item.id is not None and (item.type == "item_reference" or (item.type is None and item.role is None))]
    if len(named) > MOST_NAMED:
        raise BadRequest(f"input: names more than {MOST_NAMED} items; send them whole", "input")
    return (word(item.id) or "?" for item in named)


def _namespaces(read: Body) -> dict[str, tuple[str, str]]:
    """Give namespace and name of the tools that stand inside one; a shape that is unknown here is the upstream's matter."""
    for written in read.raw(("tools",)):
        if b'"namespace"' in written:
            try:
                spaces = _SPACES.decode(written)
            except (msgspec.MsgspecError, ValueError, RecursionError):
                return {}
            return {inside(space.name, tool.name): (space.name, tool.name) for space in spaces if space.type == "namespace" for tool in space.tools}
    return {}


def _answer(read: Body) -> str | None:
    """Give the id of the earlier answer that the call goes on from; what can be no id is one that nobody was given."""
    named = read.value("previous_response_id")
    return None if not named else word(named) or "?"


def _count(read: Body) -> int:
    written = b"".join(read.raw(("input",)))
    if written.startswith(b"["):
        tokens = input_tokens(written, read.raw(_SHOWN))
    elif not written or written == b"null" or written.startswith(b'"'):
        tokens = input_tokens(_NO_ITEMS, [written, *read.raw(_SHOWN)])
    else:
        raise BadRequest("input: Input should be a text or an array", "input")
    return tokens + HISTORY_TOKENS if read.value("previous_response_id") else tokens
