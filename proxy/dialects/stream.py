"""What the meters of all dialects share: whole lines, holding back the end, and the size of what went by."""

from abc import ABC, abstractmethod
from enum import IntEnum

from proxy import sse
from proxy.dialects.base import Ask, Skim, StreamError
from proxy.dialects.text import TextSize

TAIL_LIMIT_BYTES = 256 * 1024
SSE = b"text/event-stream"
OPERATOR_ERROR_MESSAGE = "The provider did not serve the request."
"""What a client reads in place of an upstream's words about the operator's own account."""


_LINE_FEED = 10
_LINE_END_BYTES = 2
_TERMINAL_NAMES = (b"message_stop", b"error", b"response.completed", b"response.incomplete", b"response.failed")


class _Going(IntEnum):
    """What has gone out of the event that the client is in the middle of."""

    NOTHING = 0
    NO_DATA = 1
    DATA = 2
    UNFINISHED_LINE = 3


class LineMeter(ABC):
    """The part of a meter that is not about one wire format; see `proxy.dialects.base.Meter` for the promises.

    A subclass reads events' data in `_read_data`. Memory is bounded: one unfinished line, and at most `TAIL_LIMIT_BYTES` held back; what an
    upstream sends after its own end and beyond that is dropped.
    """

    events = True

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
        self._dropped = False
        self._going = _Going.NOTHING
        self._quick = True

    @property
    def skim(self) -> Skim | None:
        """How more text is read at the least cost, where the dialect knows a way, the answer has begun, and nothing odd is under way."""
        return self._skimmer() if self._quick and not self._dropped and self.first_token_seen else None

    def _skimmer(self) -> Skim | None:
        return None

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

    def content_type(self, told: bytes) -> bytes | None:
        """Give the type of a stream of events, where the upstream sends one."""
        return SSE + b"; charset=utf-8" if told.lower().startswith(SSE) else None

    def over(self) -> None:
        """Take note of the body's end, which says nothing: a stream of events is whole when its last event has come."""
        return

    def feed(self, chunk: bytes) -> bytes:
        """Take what the upstream sent; give what may be sent on now, the same object where nothing is held or changed."""
        # Nearly every chunk is whole events with nothing odd before it; most are one event of one line.
        if self._quick and chunk.endswith(b"\n\n"):
            if not self._dropped and chunk.startswith(b"data: {") and chunk.find(b"\n") == len(chunk) - 2:
                data = chunk[5:-2]
                read = self._read_data(data)
                if not self.ended:
                    return chunk if read is data else b"" if read is None else b"data:" + read + b"\n\n"
                self._hold(chunk)
                self._quick = False
                return b""
            passing, held = self._read(chunk)
            if passing is chunk:
                return chunk
            self._hold(held)
            self._sent(passing)
        else:
            passing = self._feed_odd(chunk)
        self._quick = not self.ended and not self._held and self._going is _Going.NOTHING and not self._buffer.within_line
        return passing

    def _feed_odd(self, chunk: bytes) -> bytes:
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
        self._hold(held)
        return self._sent(overlong + passing if overlong else passing)

    def tail(self) -> bytes:
        """Take what is held back, and a last line that has no end.

        A terminal event whose empty line has not come, because nobody waited for it, gets one: clients act on no event without it.
        """
        rest = self._buffer.rest()
        for part in self._read(rest) if rest and not self.ended else (rest,):
            self._hold(part)
        tail = bytes(self._held)
        self._held.clear()
        if self.ended and not tail.endswith((b"\n\n", b"\n\r\n")):
            tail += b"\n" if tail.endswith(b"\n") else b"\n\n"
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

    def _read(self, lines: bytes) -> tuple[bytes, bytes]:
        """Read whole lines; give those that may pass, and those to be held back, which are everything from the terminal event on.

        It looks for data lines instead of splitting: this runs for every chunk of every stream.
        """
        if self._dropped:
            self._dropped = False
            lines = lines[_empty_line_bytes(lines, 0) :]
        kept: list[bytes] = []
        copied = begun = position = 0
        while (found := lines.find(b"data:", position)) >= 0:
            if found and lines[found - 1] != _LINE_FEED:
                position = found + 5
                continue
            end = lines.find(b"\n", found)
            if end < 0:
                end = len(lines)
            data = lines[found + 5 : end]
            passing = self._read_data(data)
            if self.ended:
                start = _start_of_event(lines, begun, found)
                return (b"".join([*kept, lines[copied:start]]) if kept else lines[:start]), lines[start:]
            begun = position = end + 1
            if passing is None:
                kept.append(lines[copied:found])
                copied = begun + _empty_line_bytes(lines, begun)
                self._dropped = copied == begun >= len(lines)
            elif passing is not data:
                kept += (lines[copied : found + 5], passing)
                copied = end
        start = len(lines)
        if start - begun > _LINE_END_BYTES:
            name = lines.rfind(b"event:", begun)
            if name >= 0 and lines[name + 6 :].strip() in _TERMINAL_NAMES:
                start = name
        if kept:
            return b"".join([*kept, lines[copied:start]]), lines[start:]
        return lines[:start], lines[start:]

    @abstractmethod
    def _read_data(self, data: bytes) -> bytes | None:
        """Read the value of a data line; give it, the same object or another in its place, or None to drop its event."""


def _start_of_event(lines: bytes, begun: int, data: int) -> int:
    """Find where the event starts whose data line is at `data`, after what ends at `begun`: at its name, if that is here."""
    name = lines.rfind(b"event:", begun, data)
    starts_line = name >= 0 and (name == 0 or lines[name - 1] == _LINE_FEED)
    return name if starts_line and lines.count(b"\n", name, data) == 1 else data


def _empty_line_bytes(lines: bytes, position: int) -> int:
    if lines.startswith(b"\n", position):
        return 1
    return 2 if lines.startswith(b"\r\n", position) else 0
