"""The load generator: kept connections, each with one request under way; every answer is compared byte for byte."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import httptools

from bench.answers import SCRIPTS, STAMP_DIGITS, TEXT, WHOLE, DialectName, unstamped

STALL_SECONDS = 60.0
"""A connection that hears nothing for this long counts as an error, and the run ends."""


@dataclass(slots=True)
class Tally:
    """What a run saw; latencies and delays in seconds."""

    answers: int = 0
    chunks: int = 0
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Expected:
    """What must come back: a whole answer, or a stream of so many chunks; byte for byte, or `rewritten`, with the same text in it."""

    dialect: DialectName
    chunks: int | None
    rewritten: bool = False

    @property
    def body(self) -> bytes:
        """All bytes of the answer, stamps emptied."""
        return WHOLE[self.dialect] if self.chunks is None else SCRIPTS[self.dialect].whole(self.chunks)


class _Connection(asyncio.Protocol):
    """Sends a request, checks the answer, and sends the next for as long as the run says so."""

    def __init__(self, request: bytes, expected: Expected, tally: Tally, go_on: Callable[[], bool], done: Callable[[], None]) -> None:
        self._request = request
        self._expected = expected.body
        self._streamed = expected.chunks is not None
        self._rewritten = expected.rewritten
        self._stamp_at = 0
        self._chunk_bytes = 0
        self._chunks = expected.chunks or 0
        if self._streamed:
            script = SCRIPTS[expected.dialect]
            self._chunk_bytes = script.chunk_bytes
            self._stamp_at = len(script.head) + len(script.before)
            self._chunk_ends = len(script.head) + script.chunk_bytes
        self._tally = tally
        self._go_on = go_on
        self._done = done
        self._finished = False
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's own class is no subclass of it
        self._send()

    def _send(self) -> None:
        assert self._transport is not None
        self._parser = httptools.HttpResponseParser(self)
        self._body = bytearray()
        self._seen = 0
        self._sent_at = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(type(error).__name__)

    def on_body(self, part: bytes) -> None:
        """Take a part of the body (called by the parser) and read the stamps of the chunks that are now whole."""
        self._body += part
        if self._streamed:
            arrived = time.monotonic_ns()
            while self._seen < self._chunks and len(self._body) >= self._chunk_ends + self._seen * self._chunk_bytes:
                start = self._stamp_at + self._seen * self._chunk_bytes
                stamp = bytes(self._body[start : start + STAMP_DIGITS])
                if stamp.isdigit():
                    self._tally.delays.append((arrived - int(stamp)) / 1e9)
                self._seen += 1

    def on_message_complete(self) -> None:
        """Check a whole answer (called by the parser), and go on."""
        status = self._parser.get_status_code()
        body = bytes(self._body)
        if status != 200:
            self._tally.errors[f"status {status}"] += 1
        elif (TEXT not in body) if self._rewritten else (unstamped(body) if self._streamed else body) != self._expected:
            self._tally.errors["wrong body"] += 1
        else:
            self._tally.answers += 1
            self._tally.chunks += self._chunks
            self._tally.latencies.append(time.perf_counter() - self._sent_at)
        keeps = self._parser.should_keep_alive()
        if not self._go_on():
            self._finish()
        elif keeps:
            # not from inside the parser, which is replaced
            asyncio.get_running_loop().call_soon(self._next)
        else:
            self._fail("connection not kept")

    def _next(self) -> None:
        if not self._finished:
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._finished:
            self._fail("connection lost" if exc is None else type(exc).__name__)

    def stall(self) -> None:
        """End a connection that hears nothing."""
        if not self._finished:
            self._fail("stalled")

    def _fail(self, what: str) -> None:
        self._tally.errors[what] += 1
        self._finish()

    def _finish(self) -> None:
        if not self._finished:
            self._finished = True
            assert self._transport is not None
            self._transport.close()
            self._done()


def http_request(port: int, path: str, body: bytes, secret: str | None) -> bytes:
    """Return the bytes of a POST as an SDK sends it."""
    credential = f"authorization: Bearer {secret}\r\n" if secret else ""
    return (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nuser-agent: bench\r\naccept: application/json\r\ncontent-type: application/json\r\n"
        f"{credential}content-length: {len(body)}\r\n\r\n"
    ).encode() + body


async def run(port: int, request: bytes, expected: Expected, *, connections: int, seconds: float) -> Tally:
    """Keep `connections` busy for `seconds`, wait for what is then under way, and return what was seen.

    Every request that was sent has been answered, or counted as an error, when this returns: nothing is left to be charged.
    """
    loop = asyncio.get_running_loop()
    tally = Tally()
    started = time.perf_counter()
    until = started + seconds
    left = connections
    finished = loop.create_future()

    def go_on() -> bool:
        return time.perf_counter() < until

    def done() -> None:
        nonlocal left
        left -= 1
        if not left and not finished.done():
            finished.set_result(None)

    async def connect() -> _Connection:
        _, protocol = await loop.create_connection(lambda: _Connection(request, expected, tally, go_on, done), "127.0.0.1", port)
        return protocol

    open_connections = [await connect() for _ in range(connections)]
    try:
        await asyncio.wait_for(asyncio.shield(finished), seconds + STALL_SECONDS)
    except TimeoutError:
        for connection in open_connections:
            connection.stall()
    tally.seconds = time.perf_counter() - started
    tally.latencies.sort()
    tally.delays.sort()
    return tally
