"""The conversation of a Messages request as chat messages."""

import msgspec

from proxy.dialects.base import BadRequest
from proxy.dialects.tool_names import short
from proxy.translation.anthropic_to_openai.blocks import Block, Part, as_content, listed, parts_of
from proxy.translation.arguments import as_text
from proxy.translation.base import read, refused

ATTRIBUTION = "x-anthropic-billing-header:"
"""How the first system block of Claude Code begins; Anthropic strips it before the model sees it, so no other model sees it either."""
BELOW = "The result is in the message below."
FAILED = "The tool failed."
_THOUGHTS = frozenset({"thinking", "redacted_thinking"})
_PREFILL = "This model does not support assistant message prefill. The conversation must end with a user message."

ChatMessage = dict[str, object]


class Message(msgspec.Struct):
    """A turn of the conversation."""

    role: str
    content: str | list[Block]


def system_message(system: str | list[Block] | None) -> list[ChatMessage]:
    """Translate the system prompt into the first message, if there is any. Raises BadRequest."""
    blocks = listed(system)
    if blocks and blocks[0].type == "text" and (blocks[0].text or "").startswith(ATTRIBUTION):
        del blocks[0]
    parts = [part for place, block in enumerate(blocks) for part in _texts(block, f"system.{place}")]
    return [{"role": "system", "content": as_content(parts)}] if parts else []


def chat_messages(messages: list[Message]) -> list[ChatMessage]:
    """Translate the turns, each in its place. Raises BadRequest, which names the place.

    Thinking is left out: its signature means something to its own model only. Results of tools become messages of their own right after
    the calls; what is no text in them goes into the user's message after that, for a tool's message holds text only.
    """
    translated: list[ChatMessage] = []
    for place, message in enumerate(messages):
        where = f"messages.{place}.content"
        match message.role:
            case "user":
                translated += _user(listed(message.content), where)
            case "assistant":
                translated += _assistant(listed(message.content), where)
            case "system":
                parts = [part for index, block in enumerate(listed(message.content)) for part in _texts(block, f"{where}.{index}")]
                translated += [{"role": "system", "content": as_content(parts)}] if parts else []
            case _:
                raise BadRequest(f"messages.{place}.role: Input should be 'user', 'assistant' or 'system'", "messages")
    if messages and messages[-1].role == "assistant":
        raise BadRequest(_PREFILL, "messages")
    return translated


def _texts(block: Block, where: str) -> list[Part]:
    if block.type != "text":
        raise refused(where, f"A block of type `{block.type}` in a system prompt")
    return parts_of(block, where)


def _user(blocks: list[Block], where: str) -> list[ChatMessage]:
    results: list[ChatMessage] = []
    moved: list[Part] = []
    own: list[Part] = []
    for index, block in enumerate(blocks):
        place = f"{where}.{index}"
        if block.type == "tool_result":
            text, rest = _result(block, place)
            results.append({"role": "tool", "tool_call_id": block.tool_use_id or "", "content": text})
            moved += rest
        else:
            own += parts_of(block, place)
    parts = moved + own
    return [*results, {"role": "user", "content": as_content(parts)}] if parts else results


def _result(block: Block, where: str) -> tuple[str | list[Part], list[Part]]:
    """Give a tool's result as what its message may hold, and what has to follow in a user's message, under a line that says whose it is."""
    content = read(bytes(block.content), str | list[Block] | None) if bytes(block.content) else None  # type: ignore[arg-type]  # a union
    parts = [part for index, inner in enumerate(listed(content)) for part in parts_of(inner, f"{where}.content.{index}")]
    texts = [part for part in parts if part["type"] == "text"]
    rest = [part for part in parts if part["type"] != "text"]
    if rest:
        rest = [{"type": "text", "text": f"From the result of the tool call {block.tool_use_id}:"}, *rest]
    if not texts and (rest or block.is_error):
        return BELOW if rest else FAILED, rest
    return as_content(texts), rest


def _assistant(blocks: list[Block], where: str) -> list[ChatMessage]:
    texts: list[Part] = []
    calls: list[object] = []
    for index, block in enumerate(blocks):
        if block.type == "tool_use":
            function = {"name": short(block.name or ""), "arguments": as_text(block.input)}
            calls.append({"id": block.id or "", "type": "function", "function": function})
        elif block.type == "text":
            texts += parts_of(block, f"{where}.{index}")
        elif block.type not in _THOUGHTS:
            named = f" (`{block.name}`)" if block.name else ""
            raise refused(f"{where}.{index}", f"A block of type `{block.type}`{named}")
    if not texts and not calls:
        return []
    message: ChatMessage = {"role": "assistant", "content": as_content(texts) if texts else None}
    return [{**message, "tool_calls": calls}] if calls else [message]
