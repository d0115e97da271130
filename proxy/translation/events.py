"""What the translators of streams share: data out of chunks cut anywhere, one end, and signs of life for what is left out."""

from abc import ABC, abstractmethod

from proxy import sse

PING_EVENTS = 32
"""So many events in a row that leave no trace for the client bring one sign of life: reasoning may take minutes, and clients give up."""


class EventTranslator(ABC):
    """The part of a translator that is not about one direction; see `proxy.translation.base.StreamTranslator` for the promises.

    Memory is bounded by one unfinished line and what a subclass buffers.
    """

    def __init__(self) -> None:
        self._buffer = sse.LineBuffer()
        self._ended = False
        self.failed = False
        self._silent_events = 0

    def feed(self, chunk: bytes) -> bytes:
        """Take what the upstream sent; give the events that are complete by now."""
        if self._ended:
            return b""
        overlong, lines = self._buffer.feed(chunk)
        if overlong:
            return self._fail("The provider sent a line that is too long.")
        return self._read_lines(lines)

    def end(self) -> bytes:
        """Give the end of the stream."""
        written = self._read_lines(self._buffer.rest()) if not self._ended else b""
        return written if self._ended else written + self._close()

    def _read_lines(self, lines: bytes) -> bytes:
        written: list[bytes] = []
        for line in lines.split(b"\n"):
            if line.startswith(b":"):
                written.append(self._sign())
                continue
            data = sse.data_of(line)
            if not data:
                continue
            events = self._read_data(data)
            self._silent_events = 0 if events else self._silent_events + 1
            if self._silent_events == PING_EVENTS and not self._ended:
                self._silent_events = 0
                events = self._sign()
            written.append(events)
            if self._ended:
                self._buffer.rest()
                break
        return b"".join(written)

    def _fail(self, message: str) -> bytes:
        """End the stream with an error of ours."""
        self._ended = self.failed = True
        return self._error(None, message)

    @abstractmethod
    def _read_data(self, data: bytes) -> bytes:
        """Read the value of a data line; give the events that it makes."""

    @abstractmethod
    def _close(self) -> bytes:
        """Give the end, or the error, of a stream that its upstream has closed without a terminal event."""

    @abstractmethod
    def _error(self, kind: str | None, message: str) -> bytes:
        """Write the error event; `kind` is the upstream's word for it."""

    @abstractmethod
    def _sign(self) -> bytes:
        """Write what tells the client that the stream lives."""
