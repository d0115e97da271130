"""How a preset enters a request: spliced in ahead of the client's own instructions, with no other byte changed.

Tools and messages of the client stay as they are, and no cache breakpoint is added: the client's own come after the preset and cover it.
"""

import re
from collections.abc import Mapping

import msgspec
from msgspec.structs import replace

from proxy import splice
from proxy.dialects.base import Ask
from proxy.presets.registry import MARK, Version
from proxy.splice import Span

# api.anthropic.com takes this block out by its position; it has to stay the first one, and alone.
_ATTRIBUTION = "x-anthropic-billing-header:"
_MARKED = re.compile("^" + re.escape(MARK), re.MULTILINE)
# No JSON writer escapes letters and hyphens: text without this has no mark, and nothing of it need be decoded.
_HINT = MARK.strip("< ").encode()
_FIRST = re.compile(rb"\[[ \t\r\n]*+")
_ELEMENTS = msgspec.json.Decoder(list[msgspec.Raw])


class _Part(msgspec.Struct):
    """A block of a system prompt, or a message with a role."""

    role: str = ""
    text: str = ""
    content: "str | list[_Part]" = ""


_PART = msgspec.json.Decoder(_Part)
_NO_PART = _Part()


def apply(version: Version, dialect_name: str, body: bytes, ask: Ask) -> tuple[bytes, Ask]:
    """Insert a preset into a request body; return the new body, and `ask` for it: with the preset's tokens, and with the fields where they stand now.

    `ask` is what the dialect's `parse` read of this very body. The same two objects come back when there is nothing to insert: another
    gateway has done it already, or the field is of a shape that the upstream will refuse. Linear in the body; never raises.

    The Messages API gets a block of `system`, the first one or the one after an attribution block; Chat Completions get a first message,
    whose role is that of the client's first instruction; a body of the Responses API (`input` in place of `messages`) gets a first item.
    """
    edit = _edit(version, dialect_name, body, ask.spans)
    if edit is None:
        return body, ask
    name, value = edit
    return splice.put(body, {name: value}, ask.spans), replace(
        ask, input_tokens=ask.input_tokens + version.tokens, spans=_moved(ask.spans, name, len(value))
    )


def added_tokens(version: Version, dialect_name: str, body: bytes, spans: Mapping[str, Span]) -> int:
    """Return how many tokens `apply` would add to a body whose fields are at `spans`: the preset's, or 0."""
    return version.tokens if _edit(version, dialect_name, body, spans) else 0


def _edit(version: Version, dialect_name: str, body: bytes, spans: Mapping[str, Span]) -> tuple[str, bytes] | None:
    """Return the field that a preset goes into and its new value, or None where nothing is inserted."""
    name = "system" if dialect_name == "anthropic" else "messages" if "messages" in spans else "input"
    span = spans.get(name)
    value = body[span.start : span.end] if span else b""
    written = _with_block(version, value) if name == "system" else _with_message(version, name, value)
    return None if written is None else (name, written)


def _with_block(version: Version, system: bytes) -> bytes | None:
    if system in (b"", b"null", b'""'):
        return b"[" + version.block + b"]"
    if system.startswith(b'"'):
        if _HINT in system and _MARKED.search(msgspec.json.decode(system, type=str)):
            return None
        return b"[" + version.block + b',{"type":"text","text":' + system + b"}]"
    if not system.startswith(b"["):
        return None
    blocks = _ELEMENTS.decode(system)
    if _HINT in system and any(_marked(_part(block)) for block in blocks):
        return None
    at = _start(system)
    if not blocks:
        return system[:at] + version.block + system[at:]
    if _part(blocks[0]).text.startswith(_ATTRIBUTION):
        at += len(bytes(blocks[0]))
        return system[:at] + b"," + version.block + system[at:]
    return system[:at] + version.block + b"," + system[at:]


def _with_message(version: Version, name: str, messages: bytes) -> bytes | None:
    if name == "input" and messages.startswith(b'"'):
        return b"[" + _message(version, "system") + b',{"role":"user","content":' + messages + b"}]"
    if not messages.startswith(b"["):
        return None
    elements = _ELEMENTS.decode(messages)
    first = _part(elements[0]) if elements else _NO_PART
    if _HINT in messages:
        for element in elements:
            part = _part(element)
            if part.role not in ("system", "developer"):
                break
            if _marked(part):
                return None
    # A model that takes developer messages takes no system message beside them.
    message = _message(version, "developer" if first.role == "developer" else "system")
    at = _start(messages)
    return messages[:at] + message + (b"," if elements else b"") + messages[at:]


def _message(version: Version, role: str) -> bytes:
    return b'{"role":"' + role.encode() + b'","content":' + version.content + b"}"


def _part(text: msgspec.Raw) -> _Part:
    """Read an element as far as it matters here; one of an unknown shape says nothing."""
    try:
        return _PART.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return _NO_PART


def _marked(part: _Part) -> bool:
    texts = [part.text, *([part.content] if isinstance(part.content, str) else (inner.text for inner in part.content))]
    return any(_MARKED.search(text) for text in texts)


def _start(array: bytes) -> int:
    first = _FIRST.match(array)
    return first.end() if first else 0


def _moved(spans: Mapping[str, Span], name: str, length: int) -> dict[str, Span]:
    """Return where the fields stand after `splice.put` has given one of them a value of this length."""
    old = spans.get(name)
    if old is None:
        key = max(span.end for span in spans.values()) + 1
        start = key + len(name) + len('"":')
        return {**spans, name: Span(key, start, start + length)}
    by = length - (old.end - old.start)
    return {
        field: replace(span, end=span.end + by) if field == name else Span(span.key + by, span.start + by, span.end + by) if span.key > old.key else span
        for field, span in spans.items()
    }
