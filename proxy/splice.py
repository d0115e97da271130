"""Edits of single fields of a JSON object that leave every other byte as it was."""

import re
from collections.abc import Mapping

import msgspec

_KEY = re.compile(rb'[ \t\r\n]*+("[^"\\]*+(?:\\.[^"\\]*+)*+")[ \t\r\n]*+:[ \t\r\n]*+', re.DOTALL)
_COMMA_OR_BRACE = b",}"
MOST_FIELDS = 1_000
"""More fields than any request has: a walk over millions would keep everybody else waiting."""
MOST_PARTS = 1_000_000
"""More objects, arrays and fields than a prompt of a million tokens has, and two million of most; those quoted in its texts are counted too.

A decoder makes each a value of its own and lets nobody else run meanwhile: 32 MiB of `{},` would be 11 million, seconds and a gigabyte.
"""
_SMALL_BYTES = 1024 * 1024
"""What is no larger cannot have so many parts that it matters."""
_SPACE = re.compile(rb"[ \t\r\n]*+")
_RAW_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])


class NotAnObject(ValueError):
    """The text is no JSON object whose fields can be told apart; the message says why, in words a client may read."""


class Span(msgspec.Struct, frozen=True):
    """Where a field stands: its key starts at `key`, its value is `text[start:end]`; offsets in bytes."""

    key: int
    start: int
    end: int


def fields(text: bytes) -> dict[str, Span]:
    """Find the fields of a JSON object, in their order, without building their values; linear in the text.

    Raises NotAnObject when the text is not UTF-8, not one JSON object, nested too deeply, of more than MOST_FIELDS fields or MOST_PARTS parts, or names
    a field twice: two readers would then disagree on which one counts. Escaped keys are found under their plain name. The grammar is RFC 8259's.
    """
    if len(text) > _SMALL_BYTES and text.count(b"{") + text.count(b"[") + text.count(b":") > MOST_PARTS:
        raise NotAnObject(f"the text has more than {MOST_PARTS} objects, arrays and fields")
    try:
        text.decode()
        values = _RAW_FIELDS.decode(text)
    except UnicodeDecodeError:
        raise NotAnObject("the text is not UTF-8") from None
    except msgspec.ValidationError:
        raise NotAnObject("the text is not a JSON object") from None
    except msgspec.DecodeError as error:
        raise NotAnObject(f"the text is not JSON: {error}") from None
    except RecursionError:
        raise NotAnObject("the text is nested too deeply") from None
    if len(values) > MOST_FIELDS:
        raise NotAnObject(f"the object has more than {MOST_FIELDS} fields")
    # The decoder knows each value's text and, with no name twice, their order: only the keys between them are left to walk over.
    found: dict[str, Span] = {}
    position = text.index(b"{") + 1
    for name, raw in values.items():
        value = bytes(raw)
        key = _KEY.match(text, position)
        if key is None or not text.startswith(value, key.end()):
            raise NotAnObject("a field is named twice")
        end = after = key.end() + len(value)
        if text[end] not in _COMMA_OR_BRACE:
            after = _end_of_space(text, end)
            if text[after] not in _COMMA_OR_BRACE:
                raise NotAnObject("a field is named twice")
        found[name] = Span(key.start(1), key.end(), end)
        position = after + 1
    if found and text[position - 1 : position] != b"}":
        raise NotAnObject("a field is named twice")
    return found


def put(text: bytes, values: Mapping[str, bytes], spans: Mapping[str, Span] | None = None) -> bytes:
    """Give fields of a JSON object new values, each written as JSON; a field that is not there is added after the last.

    `spans` is what `fields(text)` found, when the caller has it already. Every byte outside the values is kept.
    Raises NotAnObject as `fields` does.
    """
    where = fields(text) if spans is None else spans
    edits = [(where[name].start, where[name].end, value) for name, value in values.items() if name in where]
    added = b",".join(msgspec.json.encode(name) + b":" + value for name, value in values.items() if name not in where)
    if added:
        last = max((span.end for span in where.values()), default=0)
        position = last or text.index(b"{") + 1
        edits.append((position, position, b"," + added if last else added))
    parts: list[bytes] = []
    done = 0
    for start, end, value in sorted(edits):
        parts += (text[done:start], value)
        done = end
    parts.append(text[done:])
    return b"".join(parts)


def drop(text: bytes, name: str) -> bytes:
    """Take a field, with one of the commas beside it, out of a JSON object; without such a field the text comes back as it was.

    Raises NotAnObject as `fields` does.
    """
    where = fields(text)
    if name not in where:
        return text
    names = list(where)
    order = names.index(name)
    span = where[name]
    if order:
        return text[: where[names[order - 1]].end] + text[span.end :]
    following = where[names[1]].key if len(names) > 1 else span.end
    return text[: span.key] + text[following:]


def _end_of_space(text: bytes, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position
