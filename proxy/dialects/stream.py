"""What the meters of all dialects share: whole lines, holding back the end, and the size of what went by."""

from abc import ABC, abstractmethod

from proxy import sse
from proxy.dialects.base import Ask, StreamError
from proxy.dialects.text import TextSize

TAIL_LIMIT_BYTES = 256 * 1024
OPERATOR_ERROR_MESSAGE = "The provider did not serve the request."
"""What a client reads in place of an upstream's words about the operator's own account."""


class LineMeter(ABC):
    """The part of a meter that is not about one wire format; see `proxy.dialects.base.Meter` for the promises.

    A subclass reads whole lines in `_read`. Memory is bounded: one unfinished line, and at most `TAIL_LIMIT_BYTES` held back; what an
    upstream sends after its own end and beyond that is dropped.
    """

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self.ended = False
        self.complete = False
        self.error: StreamError | None = None
        self.first_token_seen = False
        self._text = TextSize()
        self._other_characters = 0
        self._buffer = sse.LineBuffer()
        self._held = bytearray()
        self._last = b"\n\n"

    @property
    def characters(self) -> int:
        """Code points of answer text so far."""
        return self._text.characters

    @property
    def lines(self) -> int:
        """Lines of answer text so far."""
        return self._text.lines

    @property
    def delivered_characters(self) -> int:
        """Code points of everything that a model made so far: text, reasoning, tool arguments."""
        return self._text.characters + self._other_characters

    def feed(self, chunk: bytes) -> bytes:
        """Take what the upstream sent; give what may be sent on now, the same object where nothing is held or changed."""
        if self.ended:
            self._hold(chunk)
            return b""
        overlong, lines = self._buffer.feed(chunk)
        if self._held:
            self._hold(overlong)
            for part in self._read(lines) if lines else ():
                self._hold(part)
            return b""
        if not lines:
            return self._sent(overlong)
        passing, held = self._read(lines)
        if held:
            self._hold(held)
        return self._sent(overlong + passing if overlong else passing)

    def tail(self) -> bytes:
        """Take what is held back, and a last line that has no end."""
        rest = self._buffer.rest()
        for part in self._read(rest) if rest and not self.ended else (rest,):
            self._hold(part)
        tail = bytes(self._held)
        self._held.clear()
        return tail

    def keep_alive(self) -> bytes:
        """Give a comment, which clients ignore, even between the lines of an event; nothing inside an overlong line."""
        if not self._last.endswith(b"\n"):
            return b""
        return sse.KEEP_ALIVE + b"\n" if self._between_events() else sse.KEEP_ALIVE

    def _sent(self, data: bytes) -> bytes:
        if data:
            self._last = data if len(data) > 2 else self._last[-3:] + data
        return data

    def _hold(self, data: bytes) -> None:
        if len(self._held) + len(data) <= TAIL_LIMIT_BYTES:
            self._held += data

    def _between_events(self) -> bool:
        return self._last.endswith((b"\n\n", b"\n\r\n"))

    def _ending(self, events: bytes) -> bytes:
        """Give events of ours that end the stream in place of the upstream's, after an event that has gone out but for its empty line."""
        self._held.clear()
        self._buffer.rest()
        if self._between_events():
            return events
        return (b"\n" if self._last.endswith(b"\n") else b"\n\n") + events

    @abstractmethod
    def _read(self, lines: bytes) -> tuple[bytes, bytes]:
        """Read whole lines; give those that may pass, and those to be held back, which are everything from the terminal event on."""
