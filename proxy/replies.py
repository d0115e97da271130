"""What one client hears: a head once, a body, an end; and whether it still listens."""

import time
from collections.abc import Callable

from proxy.requests import Send


class Reply:
    """The client's side of a call, over ASGI's `send`. Nothing is sent to a client that is gone, and nothing raised for it.

    `own` are the header fields of ours that every answer carries; `on_loss` is called when a send finds the client gone.
    """

    def __init__(self, send: Send, request_id: str, on_loss: Callable[[], None]) -> None:
        self._send = send
        self._on_loss = on_loss
        self.own: list[tuple[bytes, bytes]] = [(b"x-request-id", request_id.encode()), (b"request-id", request_id.encode())]
        self.here = True
        self.started = False
        self.ended = False
        self.sending_since: float | None = None
        self.sent_at = time.monotonic()

    async def begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Send the head: these fields, and ours."""
        self.started = True
        given = [field for field in headers if field[0] not in (b"request-id", b"x-request-id")]
        await self._put({"type": "http.response.start", "status": status, "headers": [*given, *self.own]})

    async def say(self, body: bytes, *, last: bool = False) -> None:
        """Send a part of the body, or the last."""
        self.ended = self.ended or last
        await self._put({"type": "http.response.body", "body": body, "more_body": not last})

    async def whole(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """Send a whole answer, with its length."""
        length = (b"content-length", str(len(body)).encode())
        await self.begin(status, [*(field for field in headers if field[0] != b"content-length"), length])
        await self.say(body, last=True)

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
