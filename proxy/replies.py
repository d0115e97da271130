"""What one client hears: a head once, a body, an end; and whether it still listens."""

import time
from collections.abc import Callable

from proxy.dialects.base import Answer
from proxy.requests import Send, Wire

_OURS = frozenset((b"request-id", b"x-request-id", b"content-length"))


class Cut:
    """The end of an answer that broke and has no words to say so: its connection is closed where the client waits for more."""


CUT = Cut()


def _nobody() -> None:
    """Who is told of the loss of a client whose call is over."""


class Reply:
    """The client's side of a call, over its wire, or ASGI's `send`. Nothing is sent to a client that is gone, and nothing raised for it.

    `own` are the header fields of ours that every answer carries, `told` those of the try that answers; `on_loss` is called when a send finds the client gone.
    """

    def __init__(self, way: Wire | Send, request_id: str, on_loss: Callable[[], None]) -> None:
        self._wire: Wire | None = None
        if callable(way):
            self._send = way
        else:
            self._wire = way
        self._on_loss = on_loss
        self.own: list[tuple[bytes, bytes]] = [(b"x-request-id", request_id.encode()), (b"request-id", request_id.encode())]
        self.told: list[tuple[bytes, bytes]] = []
        self._status = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._limit: int | None = None
        self._recorded: bytearray | None = None
        self.here = True
        self.started = False
        self.ended = False
        self.sending_since: float | None = None
        self.sent_at = time.monotonic()
        self.said = False
        self.broken = False

    async def begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Send the head: these fields, and ours."""
        self.started = True
        given = [field for field in headers if field[0] not in (b"request-id", b"x-request-id")]
        self._status, self._headers = status, [*given, *self.own, *self.told]
        if self._wire is None:
            await self._put({"type": "http.response.start", "status": status, "headers": self._headers})
        elif self.here:
            self._wire.begin(status, self._headers)

    async def say(self, body: bytes, *, last: bool = False) -> None:
        """Send a part of the body, or the last."""
        self.ended = self.ended or last
        if self._recorded is not None and body:
            self._recorded += body
            if self._limit is not None and len(self._recorded) > self._limit:
                self._recorded = None
        wire = self._wire
        if wire is None:
            await self._put({"type": "http.response.body", "body": body, "more_body": not last})
        elif self.here:
            wire.say(body, last=last)
            self.sent_at = time.monotonic()
            if wire.paused and not last:
                self.sending_since = self.sent_at
                try:
                    await wire.drained()
                finally:
                    self.sending_since = None
                    self.sent_at = time.monotonic()

    @property
    def wire(self) -> Wire | None:
        """Where parts of the body may go out at once while the client is `here`, once the answer has begun; `said` is then to be set."""
        return self._wire if self.started and self._recorded is None else None

    def silent_since(self, now: float) -> float:
        """Return since when nothing was sent, as far as a look now and then can tell."""
        if self.said:
            self.said, self.sent_at = False, now
        return self.sent_at

    async def whole(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """Send a whole answer, with its length."""
        if self._wire is not None:
            self.started = self.ended = True
            self._status = status
            self._headers = [field for field in headers if field[0] not in _OURS]
            self._headers += self.own
            self._headers += self.told
            if self.here:
                self._wire.whole(status, self._headers, body)
            return
        length = (b"content-length", str(len(body)).encode())
        await self.begin(status, [*(field for field in headers if field[0] != b"content-length"), length])
        await self.say(body, last=True)

    def cut(self) -> None:
        """Close the connection, so that nobody takes what came for all of it; over ASGI, which has no way to, who serves the request does so when it is `broken`."""
        self.ended = self.broken = True
        if self._wire is not None and self.here:
            self._wire.cut()

    def record(self, limit: int) -> None:
        """Remember what is said from now on, whether or not the client still listens, up to `limit` bytes."""
        self._limit, self._recorded = limit, bytearray()

    def recorded(self, last: Answer | bytes | Cut) -> tuple[int, list[tuple[bytes, bytes]], bytes | None]:
        """Return status, header fields and body of what was said, with what is about to be said last; no body when it is too large, or was cut."""
        if isinstance(last, Cut):
            return self._status, self._headers, None
        if isinstance(last, Answer):
            status, headers, body = last.status, [*last.headers, *self.own, *self.told], last.body
        else:
            status, headers, body = self._status, self._headers, b"" if self._recorded is None else bytes(self._recorded) + last
        too_large = self._recorded is None or (self._limit is not None and len(body) > self._limit)
        return status, headers, None if too_large else body

    def over(self) -> None:
        """Nothing more is sent: forget whom to tell of a loss."""
        self._on_loss = _nobody

    async def _put(self, message: dict[str, object]) -> None:
        if not self.here:
            return
        self.sending_since = time.monotonic()
        try:
            await self._send(message)
        except OSError:
            self.here = False
            self._on_loss()
        finally:
            self.sending_since = None
            self.sent_at = time.monotonic()
