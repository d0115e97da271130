"""The mock upstream: fixed answers in both dialects at a cost of some microseconds, so that what is measured is the gateway.

`python -m bench.mock PORT [CERTIFICATE]` serves 127.0.0.1:PORT until it is stopped, over TLS if it has a certificate (a PEM file with its key).
It reads HTTP/1.1 with `content-length`, keeps connections alive, and checks nothing: what arrived is the business of whoever sent it.
"""

import asyncio
import ssl
import sys
import time
from typing import cast

import uvloop

from bench.answers import PATHS, SCRIPTS, STAMP_DIGITS, WHOLE, DialectName, Script, asked_stream

_BY_PATH: dict[bytes, DialectName] = {path.encode(): name for name, path in PATHS.items()}
_WHOLE = {
    name: b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\nrequest-id: req_bench\r\n\r\n%b" % (len(body), body)
    for name, body in WHOLE.items()
}
_STREAM_START = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\nrequest-id: req_bench\r\n\r\n"


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class _Stream:
    """One stream on its way: a chunk at each of its instants, one system call each; what is late is sent at once."""

    def __init__(self, transport: asyncio.WriteTransport, script: Script, chunks: int, apart_ms: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._left = chunks
        self._apart_seconds = apart_ms / 1000
        self._due = self._loop.time()
        self._prefix = b"%x\r\n%b" % (script.chunk_bytes, script.before)
        self._suffix = script.after + b"\r\n"
        self._end = _framed(script.tail) + b"0\r\n\r\n"
        transport.write(_STREAM_START + _framed(script.head))
        self._wait()

    def _wait(self) -> None:
        if self._apart_seconds:
            self._due += self._apart_seconds
            self._loop.call_at(self._due, self._tick)
        else:
            self._loop.call_soon(self._tick)

    def _tick(self) -> None:
        if self._transport.is_closing():
            return
        if self._left:
            self._left -= 1
            self._transport.write(b"%b%0*d%b" % (self._prefix, STAMP_DIGITS, time.monotonic_ns(), self._suffix))
            self._wait()
        else:
            self._transport.write(self._end)


class Mock(asyncio.Protocol):
    """One connection; requests come one after the other."""

    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport | None = None
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's own class is no subclass of it

    def data_received(self, data: bytes) -> None:
        """Answer each request that is whole."""
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._buffer[: end + 2])
            at = head.lower().find(b"\r\ncontent-length:")
            length = int(head[at + 17 : head.index(b"\r\n", at + 2)]) if at >= 0 else 0
            if len(self._buffer) < end + 4 + length:
                return
            body = bytes(self._buffer[end + 4 : end + 4 + min(length, 100)])
            del self._buffer[: end + 4 + length]
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        assert self._transport is not None
        dialect = _BY_PATH.get(head.split(b" ", 2)[1])
        if dialect is None:
            self._transport.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
            return
        asked = asked_stream(body)
        if asked is None:
            self._transport.write(_WHOLE[dialect])
        else:
            _Stream(self._transport, SCRIPTS[dialect], *asked)


async def _serve(port: int, certificate: str | None = None) -> None:
    tls = None
    if certificate is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate)
    server = await asyncio.get_running_loop().create_server(Mock, "127.0.0.1", port, backlog=2048, ssl=tls)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), *sys.argv[2:]))
