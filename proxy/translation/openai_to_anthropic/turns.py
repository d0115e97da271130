"""Chat messages as turns of the Messages API, and the system prompt."""

import re
from dataclasses import dataclass, field
from typing import Any

import msgspec

from proxy.dialects.base import BadRequest
from proxy.translation.arguments import as_object
from proxy.translation.base import refused
from proxy.translation.openai_to_anthropic.parts import Block, Part, blocks_of, is_given, listed

_NOTHING = msgspec.Raw()
_NOT_IN_IDS = re.compile(r"[^a-zA-Z0-9_-]")


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _Call(msgspec.Struct):
    id: str | None = None
    type: str | None = None
    function: _Function | None = None


class ChatMessage(msgspec.Struct):
    """A message of the conversation."""

    role: str
    content: str | list[Part] | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None
    tool_call_id: str | None = None
    function_call: Any = None
    audio: Any = None
    cache_control: msgspec.Raw = _NOTHING


@dataclass(slots=True)
class _Turn:
    role: str
    results: list[Block] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)


def conversation(messages: list[ChatMessage]) -> tuple[list[Block], list[Block]]:
    """Give the system prompt's blocks and the turns. Raises BadRequest, which names the place.

    System and developer messages go to the system prompt, in their order, wherever they stand: not every model takes them in between.
    Messages of one side in a row are one turn; in the user's, results of tools come first, right after the calls. A field for caching
    stays with its block; inside a tool's result, where it may not be, it moves to the result.
    """
    system: list[Block] = []
    turns: list[_Turn] = []
    for place, message in enumerate(messages):
        where = f"messages.{place}"
        if message.role in ("system", "developer"):
            system += _blocks(message, where)
            continue
        role = "assistant" if message.role == "assistant" else "user"
        results, blocks = _result(message, where), []
        if role == "assistant":
            blocks = _assistant(message, where)
        elif not results:
            blocks = _user(message, where)
        if not results and not blocks:
            continue
        if not turns or turns[-1].role != role:
            turns.append(_Turn(role))
        turns[-1].results += results
        turns[-1].blocks += blocks
    if any(block["type"] != "text" for block in system):
        raise refused("messages", "A system message that is not text")
    return system, [{"role": turn.role, "content": turn.results + turn.blocks} for turn in turns]


def _blocks(message: ChatMessage, where: str) -> list[Block]:
    """Translate content; a `cache_control` of the whole message, as some clients write it, goes to its last block."""
    blocks = [block for index, part in enumerate(listed(message.content)) for block in blocks_of(part, f"{where}.content.{index}")]
    if blocks and is_given(message.cache_control):
        blocks[-1]["cache_control"] = message.cache_control
    return blocks


def _user(message: ChatMessage, where: str) -> list[Block]:
    if message.role != "user":
        raise refused(f"{where}.role", f"A message of the role `{message.role}`")
    return _blocks(message, where)


def _result(message: ChatMessage, where: str) -> list[Block]:
    if message.role != "tool":
        return []
    if not message.tool_call_id:
        raise BadRequest(f"{where}.tool_call_id: Field required", "messages")
    blocks = _blocks(message, where)
    marks = [block.pop("cache_control") for block in blocks if "cache_control" in block]
    result: Block = {"type": "tool_result", "tool_use_id": _id(message.tool_call_id)}
    if isinstance(message.content, str):
        result["content"] = message.content
    elif blocks:
        result["content"] = blocks
    if not marks and is_given(message.cache_control):
        marks.append(message.cache_control)
    return [{**result, "cache_control": marks[-1]}] if marks else [result]


def _assistant(message: ChatMessage, where: str) -> list[Block]:
    if message.function_call is not None or message.audio is not None:
        raise refused(where, "An answer with a function_call or audio")
    blocks = _blocks(message, where)
    if message.refusal:
        blocks.append({"type": "text", "text": message.refusal})
    for index, call in enumerate(message.tool_calls or ()):
        if call.type not in (None, "function") or call.function is None:
            raise refused(f"{where}.tool_calls.{index}", f"A tool call of type `{call.type}`")
        arguments = as_object(call.function.arguments or "")
        blocks.append({"type": "tool_use", "id": _id(call.id or ""), "name": call.function.name or "", "input": arguments})
    return blocks


def _id(identity: str) -> str:
    """Give a call's id in the characters that the Messages API takes; calls and results get the same."""
    return _NOT_IN_IDS.sub("_", identity)
