"""What the meters of all dialects share: whole lines, holding back the end, and the size of what went by."""

from abc import ABC, abstractmethod
from enum import IntEnum

from proxy import sse
from proxy.dialects.base import Ask, StreamError
from proxy.dialects.text import TextSize

TAIL_LIMIT_BYTES = 256 * 1024
OPERATOR_ERROR_MESSAGE = "The provider did not serve the request."
"""What a client reads in place of an upstream's words about the operator's own account."""


class _Going(IntEnum):
    """What has gone out of the event that the client is in the middle of."""

    NOTHING = 0
    NO_DATA = 1
    DATA = 2
    UNFINISHED_LINE = 3


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
        self._sealed = False
        self._going = _Going.NOTHING

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
            self._hold(self._buffer.rest())
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
        if self._going is _Going.UNFINISHED_LINE:
            return b""
        return sse.KEEP_ALIVE + b"\n" if self._going is _Going.NOTHING else sse.KEEP_ALIVE

    def _sent(self, data: bytes) -> bytes:
        if data.endswith(b"\n\n"):
            self._going = _Going.NOTHING
        elif data:
            self._follow(data)
        return data

    def _follow(self, data: bytes) -> None:
        *lines, unfinished = data.split(b"\n")
        for line in lines:
            if self._going is _Going.UNFINISHED_LINE:
                self._going = _Going.DATA
            elif not line.strip():
                self._going = _Going.NOTHING
            elif line.startswith(b"data"):
                self._going = _Going.DATA
            else:
                self._going = max(self._going, _Going.NO_DATA)
        if unfinished:
            self._going = _Going.UNFINISHED_LINE

    def _hold(self, data: bytes) -> None:
        if not self._sealed and len(self._held) + len(data) <= TAIL_LIMIT_BYTES:
            self._held += data

    def _end_with(self, event: bytes) -> None:
        """Let an event of ours be the end, in place of everything that was or would be held back."""
        self._held[:] = event
        self._sealed = True

    def _ending(self, events: bytes) -> bytes:
        """Give events of ours that end the stream in place of the upstream's.

        An event whose data has gone out is ended first. One with only a name is taken over: some clients fail on an event without data.
        """
        self._held.clear()
        self._buffer.rest()
        ended_first = {_Going.DATA: b"\n", _Going.UNFINISHED_LINE: b"\n\n"}
        return ended_first.get(self._going, b"") + events

    @abstractmethod
    def _read(self, lines: bytes) -> tuple[bytes, bytes]:
        """Read whole lines; give those that may pass, and those to be held back, which are everything from the terminal event on."""
