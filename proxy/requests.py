"""Reading what a client sends on the inference road: a body within bounds, and whether the client is still there."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from domain.access.callers import Whence

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

CUT = "tallygate.cut"
"""The server's extension of ASGI that closes a connection in the middle of an answer, for which ASGI itself has no message."""
LARGEST_BODY_BYTES = 32 * 1024 * 1024
UNPROVED_BODY_BYTES = 64 * 1024
BODY_SECONDS = 60.0


class Wire(Protocol):
    """A client's connection while it waits for one answer: what is written goes out at once. Nothing is raised when the client is gone."""

    on_loss: Callable[[], None] | None
    """Called when the client leaves before the answer's end."""
    paused: bool
    """Whether the client takes less than it is given."""

    @property
    def body(self) -> bytes:
        """The whole body of the request."""

    async def drained(self) -> None:
        """Wait until the client takes more, or is gone."""

    def begin(self, status: int, fields: list[tuple[bytes, bytes]]) -> None:
        """Begin an answer whose length is not known."""

    def say(self, data: bytes, *, last: bool = False) -> None:
        """Write a part of the body, or the last."""

    @property
    def write(self) -> Callable[[bytes], None]:
        """Writes a chunk of the body with its size, as HTTP/1.1 has it, between `begin` and the last part."""

    def cut(self) -> None:
        """Close the connection in the middle of an answer."""

    def whole(self, status: int, fields: list[tuple[bytes, bytes]], body: bytes) -> None:
        """Write a whole answer."""


class ClientGone(Exception):
    """The client closed the connection before its request was whole."""


class TooLarge(Exception):
    """The body is over LARGEST_BODY_BYTES."""


class TooSlow(Exception):
    """The body did not come within BODY_SECONDS."""


async def read_body(scope: Scope, receive: Receive, prove: Callable[[], Awaitable[None]]) -> bytes:
    """Return the whole body.

    `prove` is awaited once before more than UNPROVED_BODY_BYTES are taken in, and may raise: nobody fills our memory without a key. Raises
    ClientGone, TooLarge and TooSlow.
    """
    length = next((value for name, value in scope["headers"] if name == b"content-length"), None)
    announced = int(length) if length is not None and length.isdigit() else 0
    if announced > LARGEST_BODY_BYTES:
        raise TooLarge
    proved = False
    if announced > UNPROVED_BODY_BYTES:
        await prove()
        proved = True
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                part = message.get("body", b"")
                size += len(part)
                if size > LARGEST_BODY_BYTES:
                    raise TooLarge
                parts.append(part)
                if not message.get("more_body", False):
                    return b"".join(parts) if len(parts) > 1 else parts[0]
                if size > UNPROVED_BODY_BYTES and not proved:
                    await prove()
                    proved = True
    except TimeoutError:
        raise TooSlow from None


def whence(scope: Scope) -> Whence:
    """Return where a request comes from; a link-local address comes with its interface, which is no part of it."""
    origin = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"origin"), None)
    client = scope.get("client")
    return Whence(origin, client[0].partition("%")[0] if client else None)


async def gone(receive: Receive) -> None:
    """Return when the client has closed its connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
