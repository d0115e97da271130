"""Smoothing at the doors of the inference road: one request of a key is counted once, and every answer tells where the key stands."""

import math
import time
from collections.abc import Awaitable, Sequence

from domain.access import secrets
from domain.errors import BoundReached
from domain.serving.smoothing import Smoother, Standing
from proxy.requests import Message, Send


async def count(smoother: Smoother, fingerprint: str, own: list[tuple[bytes, bytes]]) -> None:
    """Count a request with a key, and add to `own` what its answer tells of that; raises BoundReached when it comes too soon."""
    if smoother.rate is None:
        return
    try:
        standing = await smoother.take(fingerprint)
    except BoundReached as refused:
        wait_seconds = refused.resets_at.timestamp() - time.time() if refused.resets_at else 1
        own += smoother.fields(Standing(0, max(1, math.ceil(wait_seconds))))
        raise
    if standing is not None:
        own += smoother.fields(standing)


class Telling:
    """A `send` that puts RateLimit fields on the answer, once the request was counted, and those of CORS."""

    __slots__ = ("_fields", "_opened", "_send")

    def __init__(self, send: Send) -> None:
        self._send = send
        self._opened: Sequence[tuple[bytes, bytes]] = ()
        self._fields: Sequence[tuple[bytes, bytes]] = ()

    def __call__(self, message: Message) -> Awaitable[None]:
        """Send a message of an answer."""
        if self._fields and message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *self._fields]}
        return self._send(message)

    def open(self, fields: Sequence[tuple[bytes, bytes]]) -> None:
        """Put these fields on the answer besides: whose pages may read it."""
        self._opened = self._fields = fields

    async def smooth(self, smoother: Smoother, secret: str) -> None:
        """Count a request with a key; raises BoundReached when it comes too soon. What cannot be a key is not counted: it is refused anyway."""
        if smoother.rate is None or not secrets.well_formed(secret):
            return
        fields: list[tuple[bytes, bytes]] = []
        try:
            await count(smoother, secrets.fingerprint(secret), fields)
        finally:
            self._fields = [*self._opened, *fields]
