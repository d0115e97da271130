"""Pieces of a body that are handed over as they come, and chunks as they stand on the wire (RFC 9112, section 7.1)."""

import re
from collections.abc import Callable
from enum import IntEnum


class Taken(IntEnum):
    """What became of a piece of a body that was handed over."""

    NOT = 0
    """It waits to be read."""
    GO_ON = 1
    """It was taken, and the next may be handed over."""
    STOP = 2
    """It was taken; what follows waits to be read."""


GO_ON = Taken.GO_ON
Sink = Callable[[bytes], Taken]

Skim = Callable[[bytes], bool]
"""Reads what stands behind the first line of a chunk, which should be what is in it and a line's end; false when it wants it another way, and has not read it."""
Pass = Callable[[bytes], None]
"""Takes chunks that were skimmed, as they stand on the wire."""

_PLAIN = re.compile(rb"[0-9A-Fa-f]{1,4}")
_MOST_KNOWN = 4096
_CARE = -1


class _Following(dict[bytes, int]):
    """How many bytes follow the first line of a chunk: what is in it, and a line's end. Kept by the line, without its end.

    Less than 0 for what has to be read with care: the last chunk, an extension, more than 64 KiB, and what is no size.
    """

    def __missing__(self, line: bytes) -> int:
        if not _PLAIN.fullmatch(line):  # may be as long as all that came
            return _CARE
        size = int(line, 16)
        following = size + 2 if size else _CARE
        if len(self) < _MOST_KNOWN:  # an upstream writes the lines: they must not choose our memory
            self[line] = following
        return following


FOLLOWING = _Following()


def skimmed(data: bytes, skim: Skim) -> int:
    """Offer the whole chunks that data begins with, one after the other; return how many bytes of it were read."""
    begun = 0
    while (head := data.find(b"\r\n", begun, begun + 6)) > 0:
        following = FOLLOWING[data[begun:head]]
        end = head + 2 + following
        if following < 0 or end > len(data) or not skim(data[head + 2 : end]):
            break
        begun = end
    return begun
