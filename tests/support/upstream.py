"""A scriptable upstream over real HTTP: each request is answered by a script of the test, recorded, and watched to its end.

    async with serve() as upstream:
        upstream.script(status(529), stream(anthropic_stream()), stream(anthropic_stream(end=False), then=reset))

A script is an async function of an `Exchange`. Helpers below make the usual ones. Requests beyond the scripts given get the last one again.
"""

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class End(StrEnum):
    """How the connection of a request ended."""

    OPEN = "open"
    ANSWERED = "answered"
    CUT = "cut"
    CLIENT_CLOSED = "client_closed"


@dataclass(eq=False)
class Request:
    """A request as it came over the wire; header names in lower case, the body's bytes untouched.

    `client_closed` is set when the client closed the connection before the answer was whole; `finished` when the script is done,
    whatever the end. Both can be waited for.
    """

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes
    sent_bytes: int = 0
    end: End = End.OPEN
    client_closed: asyncio.Event = field(default_factory=asyncio.Event)
    finished: asyncio.Event = field(default_factory=asyncio.Event)

    def header(self, name: str) -> str | None:
        """Give a header field's value, or None."""
        return next((value for key, value in self.headers if key == name), None)


class Exchange:
    """One request and the means to answer it, byte by byte."""

    def __init__(self, request: Request, writer: asyncio.StreamWriter) -> None:
        self.request = request
        self._writer = writer

    async def head(self, status: int = 200, headers: Mapping[str, str] | None = None, content_type: str = "text/event-stream") -> None:
        """Send the status line and header fields; the body that follows is chunked."""
        fields = {"content-type": content_type, "transfer-encoding": "chunked", **(headers or {})}
        lines = [f"HTTP/1.1 {status} Scripted", *(f"{name}: {value}" for name, value in fields.items())]
        await self.raw("\r\n".join(lines).encode() + b"\r\n\r\n")

    async def send(self, data: bytes) -> None:
        """Send a part of the body at once, as one chunk."""
        if data:
            await self.raw(b"%x\r\n%b\r\n" % (len(data), data))

    async def end(self) -> None:
        """End the body properly."""
        await self.raw(b"0\r\n\r\n")
        self.request.end = End.ANSWERED

    async def raw(self, data: bytes) -> None:
        """Send bytes as they are. Raises ConnectionError when the client is gone."""
        if self.request.client_closed.is_set():
            raise ConnectionResetError
        self._writer.write(data)
        await self._writer.drain()
        self.request.sent_bytes += len(data)

    def cut(self, *, reset: bool = False) -> None:
        """Close the connection in the middle of the answer: with FIN, or with RST."""
        self.request.end = End.CUT
        if reset:
            raw_socket: socket.socket = self._writer.get_extra_info("socket")
            raw_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort() if reset else self._writer.close()


Script = Callable[[Exchange], Awaitable[None]]


class Upstream:
    """A running upstream: its base URL, its scripts, and what it has seen."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[Request] = []
        self._scripts: list[Script] = [status(500)]
        self._arrived = asyncio.Condition()

    def script(self, *scripts: Script) -> None:
        """Set the scripts of the next requests, in order; the last one stays for all that follow."""
        self._scripts = list(scripts)

    async def arrival(self, count: int = 1) -> Request:
        """Wait until `count` requests have come in all, and give the last of them."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self.requests) >= count)
        return self.requests[count - 1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            early = b""
            while (request := await _request(reader, early)) is not None:
                script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
                async with self._arrived:
                    self.requests.append(request)
                    self._arrived.notify_all()
                early = await _answer(script, Exchange(request, writer), reader)
                if request.end is not End.ANSWERED:
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:  # a cancelled one too: its client may be stopped, and would never be told
            writer.close()


@contextlib.asynccontextmanager
async def serve() -> AsyncIterator[Upstream]:
    """Run an upstream on a free port of the loopback in this event loop."""
    upstream = Upstream()
    connections: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(upstream._serve(reader, writer))
        connections.add(task)
        task.add_done_callback(connections.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0, limit=64 * 1024 * 1024)
    upstream.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield upstream
    finally:
        server.close()
        for task in list(connections):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


async def _answer(script: Script, exchange: Exchange, reader: asyncio.StreamReader) -> bytes:
    """Run a script; a client that closes meanwhile is noted at once, and ends it. Gives what was read of the next request."""
    request = exchange.request
    answering = asyncio.ensure_future(script(exchange))
    # A well-behaved client sends nothing before the answer ends: whatever ends this read before is the client leaving.
    watching = asyncio.ensure_future(reader.read(1))
    try:
        await asyncio.wait({answering, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done() or isinstance(answering.exception(), ConnectionError):
            request.end = End.CLIENT_CLOSED
            request.client_closed.set()
            return b""
        answering.result()
        return watching.result() if watching.done() else b""
    finally:
        answering.cancel()
        watching.cancel()
        await asyncio.gather(answering, watching, return_exceptions=True)
        request.finished.set()


async def _request(reader: asyncio.StreamReader, early: bytes) -> Request | None:
    try:
        head = early + await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = [(name.strip().lower(), value.strip()) for name, value in (line.split(":", 1) for line in lines)]
    fields = dict(headers)
    body = b""
    if fields.get("transfer-encoding") == "chunked":
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readuntil(b"\r\n")
    else:
        body = await reader.readexactly(int(fields.get("content-length", "0")))
    return Request(method, path, headers, body)


def status(code: int, error: object = None, headers: Mapping[str, str] | None = None) -> Script:
    """Answer with a status and a JSON error body (default: one in Anthropic's shape)."""
    body = {"type": "error", "error": {"type": "api_error", "message": f"scripted {code}"}} if error is None else error
    return whole(json.dumps(body).encode(), code, headers)


def whole(body: bytes, code: int = 200, headers: Mapping[str, str] | None = None) -> Script:
    """Answer with a whole JSON body, with its length."""

    async def script(exchange: Exchange) -> None:
        fields = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
        lines = [f"HTTP/1.1 {code} Scripted", *(f"{name}: {value}" for name, value in fields.items())]
        await exchange.raw("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        exchange.request.end = End.ANSWERED

    return script


def stream(parts: Iterable[bytes], *, pause_seconds: float = 0, then: Callable[[Exchange], Awaitable[None]] | None = None) -> Script:
    """Stream parts, one chunk each, with a pause before each; then end properly, or do `then` (`hang`, `cut`, `reset`) instead."""
    pieces = tuple(parts)

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        for piece in pieces:
            await asyncio.sleep(pause_seconds)
            await exchange.send(piece)
        await (exchange.end() if then is None else then(exchange))

    return script


def drip(data: bytes, *, size: int = 1) -> Script:
    """Stream a body in chunks of `size` bytes, each written on its own."""
    return stream(data[start : start + size] for start in range(0, len(data), size))


def endless(part: bytes) -> Script:
    """Stream the same part for as long as the client stays."""

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        while True:
            await exchange.send(part)
            await asyncio.sleep(0)

    return script


async def hang(exchange: Exchange) -> None:
    """Send nothing (more) until the client leaves. As a whole script: never a status line."""
    await asyncio.Event().wait()


async def cut(exchange: Exchange) -> None:
    """Close the connection in the middle. As a whole script: before the status line."""
    exchange.cut()


async def reset(exchange: Exchange) -> None:
    """Reset the connection in the middle. As a whole script: before the status line."""
    exchange.cut(reset=True)


def garbage(data: bytes = b"\x16\x03\x01 no HTTP\r\n\r\n") -> Script:
    """Answer with bytes that are no HTTP, and close."""

    async def script(exchange: Exchange) -> None:
        await exchange.raw(data)
        exchange.cut()

    return script


def held(parts: Iterable[bytes], release: asyncio.Event, rest: Iterable[bytes]) -> Script:
    """Stream parts, wait until the test sets `release`, stream the rest and end properly."""
    before, after = tuple(parts), tuple(rest)

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        for piece in before:
            await exchange.send(piece)
        await release.wait()
        for piece in after:
            await exchange.send(piece)
        await exchange.end()

    return script


def anthropic_stream(
    pieces: Iterable[str] = ("Hello", " world"),
    *,
    model: str = "claude-test",
    start_usage: object = None,
    end_usage: object = None,
    end: bool = True,
) -> list[bytes]:
    """Write a Messages stream, one event a part. `end_usage` is put in message_delta as given; `end=False` stops before message_delta."""
    none_cached = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    start = {"input_tokens": 25, **none_cached, "output_tokens": 1} if start_usage is None else start_usage
    final = {"output_tokens": 12} if end_usage is None else end_usage
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": model, "content": [], "stop_reason": None, "usage": start}
    events: list[dict[str, object]] = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}} for piece in pieces),
    ]
    if end:
        events += [
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": final},
            {"type": "message_stop"},
        ]
    return [anthropic_event(event) for event in events]


def anthropic_event(event: dict[str, object]) -> bytes:
    """Write one event of a Messages stream."""
    return f"event: {event['type']}\ndata: {json.dumps(event, separators=(',', ':'))}\n\n".encode()


def openai_stream(
    pieces: Iterable[str] = ("Hello", " world"),
    *,
    model: str = "gpt-test",
    usage: object = "default",
    end: bool = True,
) -> list[bytes]:
    """Write a Chat Completions stream, one chunk a part, as with include_usage.

    `usage=None` leaves the usage chunk out; `end=False` stops before the chunk that finishes.
    """
    numbers = {"prompt_tokens": 25, "completion_tokens": 12, "total_tokens": 37} if usage == "default" else usage
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1790000000, "model": model}

    def chunk(delta: dict[str, object], finish_reason: str | None = None) -> dict[str, object]:
        return {**head, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}], "usage": None}

    chunks = [chunk({"role": "assistant", "content": ""}), *(chunk({"content": piece}) for piece in pieces)]
    if end:
        chunks.append(chunk({}, "stop"))
        if numbers is not None:
            chunks.append({**head, "choices": [], "usage": numbers})
    parts = [openai_event(part) for part in chunks]
    return [*parts, b"data: [DONE]\n\n"] if end else parts


def openai_event(chunk: dict[str, object]) -> bytes:
    """Write one event of a Chat Completions stream."""
    return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"
