"""Chunks of an HTTP/1.1 body as they stand on the wire (RFC 9112, section 7.1)."""

import re

_PLAIN = re.compile(rb"[0-9A-Fa-f]{1,4}")
_MOST_KNOWN = 4096


class Sizes(dict[bytes, int]):
    """How many bytes a chunk has, by its line of the size without the line's end.

    0 is what has to be read with care: the last chunk, an extension, more than 64 KiB, and what is no size.
    """

    def __missing__(self, line: bytes) -> int:
        size = int(line, 16) if _PLAIN.fullmatch(line) else 0
        if len(self) < _MOST_KNOWN:  # an upstream writes the lines: they must not choose our memory
            self[line] = size
        return size
