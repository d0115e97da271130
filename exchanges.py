"""Requests that a door takes straight from their connection: whole, without ASGI, a task or a queue between the bytes and who answers them."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE
from uvicorn.server import ServerState

Field = tuple[bytes, bytes]
Door = Callable[["Exchange"], None]
"""Takes a request that came whole; it never raises, and ends the exchange later."""


class Connection(Protocol):
    """What an exchange needs of the connection that it came on."""

    transport: asyncio.Transport
    server_state: ServerState

    def on_response_complete(self) -> None:
        """Go on to the next request."""


class _Deaf:
    """What uvicorn sets to wake the reader of a body, for a request that has none."""

    def set(self) -> None:
        """Wake nobody."""


_DEAF = _Deaf()


class _Dates:
    """The status lines of answers, each with the header fields of every answer, which change once a second."""

    def __init__(self) -> None:
        self._fields: list[Field] | None = None
        self._heads: dict[int, bytes] = {}

    def head(self, status: int, fields: list[Field]) -> bytes:
        """Return the beginning of an answer."""
        if fields is not self._fields:
            self._fields, self._heads = fields, {}
        head = self._heads.get(status)
        if head is None:
            head = self._heads[status] = STATUS_LINE[status] + b"".join(b"%b: %b\r\n" % field for field in fields)
        return head


_DATES = _Dates()


class Exchange:
    """A request that came whole and its answer, without ASGI between connection and door: the answer is written as it is given.

    What is written after the client has gone goes nowhere. `paused` tells that the client takes less than it is given: whoever has more waits for
    `drained`. `on_loss` is called when the client leaves before the answer's end, `over`
    once, with the answer's status, or None when there was none.
    """

    __slots__ = (
        *("_connection", "_status", "body", "disconnected", "door", "flow", "keep_alive", "message_event", "more_body"),
        *("on_loss", "over", "paused", "response_complete", "response_started", "write"),
    )

    def __init__(self, connection: Connection, flow: FlowControl, door: Door, *, keep_alive: bool) -> None:
        self._connection = connection
        self._status: int | None = None
        self.flow = flow
        self.door = door
        self.write = connection.transport.write
        self.body = b""
        self.on_loss: Callable[[], None] | None = None
        self.paused = flow.write_paused
        self.over: Callable[[int | None], None] | None = None
        # what uvicorn looks at
        self.keep_alive = keep_alive
        self.disconnected = self.response_started = self.response_complete = False
        self.more_body = True
        self.message_event = _DEAF

    async def drained(self) -> None:
        """Wait until the client takes more, or is gone."""
        await self.flow.drain()

    def begin(self, status: int, fields: list[Field]) -> None:
        """Begin an answer whose length is not known."""
        if not self.disconnected:
            self.write(self._head(status, fields, b"transfer-encoding: chunked\r\n\r\n"))

    def say(self, data: bytes, *, last: bool = False) -> None:
        """Write a part of the body, or the last."""
        if self.disconnected or self.response_complete:
            return
        if data:
            self.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data) if last else b"%x\r\n%b\r\n" % (len(data), data))
        elif last:
            self.write(b"0\r\n\r\n")
        if last:
            self._end()

    def cut(self) -> None:
        """Close the connection in the middle of an answer, after what was written; the client sees that the answer is not whole."""
        self.on_loss = None
        if not self.disconnected and not self.response_complete:
            self._connection.transport.close()

    def whole(self, status: int, fields: list[Field], body: bytes) -> None:
        """Write a whole answer."""
        if not self.disconnected:
            self.write(self._head(status, fields, b"content-length: %d\r\n\r\n" % len(body)) + body)
            self._end()

    def _head(self, status: int, fields: list[Field], framing: bytes) -> bytes:
        self.response_started, self._status = True, status
        parts = [_DATES.head(status, self._connection.server_state.default_headers)]
        for name, value in fields:
            parts += (name, b": ", value, b"\r\n")
        parts.append(framing if self.keep_alive else b"connection: close\r\n" + framing)
        head = b"".join(parts)
        lines = parts[0].count(b"\n") + len(fields) + framing.count(b"\n") + (not self.keep_alive)
        if head.count(b"\n") != lines or head.count(b"\r") != lines or b"\0" in head:
            raise ValueError("a header field has more than one line")
        return head

    def _end(self) -> None:
        self.response_complete = True
        self._leave()
        if not self.keep_alive:
            self._connection.transport.close()
        self._connection.on_response_complete()

    def lost(self) -> None:
        """Take note that the client is gone."""
        self.disconnected, self.paused = True, False
        if not self.response_complete and self.on_loss is not None:
            self.on_loss()
        self._leave()

    def _leave(self) -> None:
        over, self.over, self.on_loss = self.over, None, None
        if over is not None:
            over(self._status)
