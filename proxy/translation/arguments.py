"""Arguments of tool calls: text in one dialect, an object in the other."""

import re

import msgspec

INVALID = "INVALID_JSON"
"""The key under which a text that is no JSON object stands in an object, as the vendor's page on fine-grained tool streaming advises."""

_MARK = re.compile(r'["\\{}\[\]]')
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


def as_object(text: str) -> msgspec.Raw:
    """Give arguments as a JSON object, byte for byte where they are one; nothing is the empty object."""
    if not text.strip():
        return msgspec.Raw(b"{}")
    try:
        _OBJECT.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return msgspec.Raw(msgspec.json.encode({INVALID: text}))
    return msgspec.Raw(text.encode())


def as_text(value: msgspec.Raw) -> str:
    """Give a JSON value as it was written; nothing is the empty object."""
    return bytes(value).decode() or "{}"


def as_piece(value: object) -> str:
    """Give arguments as a server sent them: a text, or where it sends the object itself, that object's text."""
    if isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode() if isinstance(value, dict) else ""


class ObjectEnd:
    """Finds where a JSON object ends that comes in pieces, without building it; linear in the text."""

    __slots__ = ("_depth", "_escaped", "_in_string", "ended")

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self.ended = False

    def feed(self, piece: str) -> None:
        """Take the next piece; `ended` is True from the last brace on."""
        skipped = 0 if self._escaped else -1
        self._escaped = False
        for match in _MARK.finditer(piece):
            position = match.start()
            if position == skipped:
                continue
            mark = match[0]
            if self._in_string:
                if mark == "\\":
                    skipped = position + 1
                    self._escaped = skipped == len(piece)
                elif mark == '"':
                    self._in_string = False
            elif mark == '"':
                self._in_string = True
            elif mark in "{[":
                self._depth += 1
            elif mark in "}]":
                self._depth -= 1
                self.ended = self.ended or self._depth <= 0
