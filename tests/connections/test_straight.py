"""Requests that a door takes without ASGI: only the plainest, each answered once and in order, and told when its client leaves."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn

from connections import LARGEST_STRAIGHT_BODY_BYTES, Hosts, Proxies, guarded
from exchanges import Door, Exchange, Field
from tests.connections.wire import request, send

pytestmark = pytest.mark.anyio

PLAIN = b"Host: localhost\r\nContent-Length: %d\r\n"
CLOSE = b"Connection: close\r\n"


@dataclass
class Seen:
    """A running server with one straight door at /straight: what it was asked, what it answered, and what went the long way."""

    port: int = 0
    heads: list[list[Field]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    long_way: list[str] = field(default_factory=list)
    over: list[int | None] = field(default_factory=list)
    lost: int = 0
    taken: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)


@contextlib.asynccontextmanager
async def door() -> AsyncIterator[Seen]:
    """Serve /straight without ASGI, which says what it was sent, after `go_on` where that is `wait`, and everything else through ASGI."""
    seen = Seen()
    running: set[asyncio.Task[None]] = set()

    def lost() -> None:
        seen.lost += 1

    async def answer(exchange: Exchange) -> None:
        if exchange.body == b"wait":
            seen.taken.set()
            await seen.go_on.wait()
        if exchange.body == b"stream":
            exchange.begin(200, [(b"x-kind", b"stream")])
            exchange.say(b"one,")
            exchange.say(b"")
            exchange.say(b"two", last=True)
        elif exchange.body == b"split":
            with pytest.raises(ValueError, match="more than one line"):
                exchange.whole(200, [(b"x-kind", b"a\r\nx-other: b")], b"")
            exchange.whole(500, [], b"refused")
        else:
            exchange.whole(200, [(b"x-kind", b"whole")], b"<" + exchange.body + b">")

    def take(exchange: Exchange) -> None:
        seen.bodies.append(exchange.body)
        exchange.on_loss, exchange.over = lost, seen.over.append
        task = asyncio.create_task(answer(exchange))
        running.add(task)
        task.add_done_callback(running.discard)

    def straight(target: bytes, fields: list[Field], client: str) -> Door | None:
        assert client == "127.0.0.1"
        if target.partition(b"?")[0] != b"/straight":
            return None
        seen.heads.append(fields)
        return take

    async def app(scope: Any, receive: Any, sending: Any) -> None:
        seen.long_way.append(scope["path"])
        while (await receive()).get("more_body"):
            pass
        await sending({"type": "http.response.start", "status": 202, "headers": [(b"content-length", b"4")]})
        await sending({"type": "http.response.body", "body": b"long"})

    async def refuse(scope: Any, receive: Any, sending: Any, status: int, message: str) -> None:
        await sending({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
        await sending({"type": "http.response.body"})

    listening = socket.create_server(("127.0.0.1", 0))
    protocol = guarded(Hosts(()), Proxies([]), refuse, straight=straight)
    server = uvicorn.Server(uvicorn.Config(app, http=protocol, ws="none", lifespan="off", log_config=None, access_log=False, proxy_headers=False))
    serving = asyncio.create_task(server.serve([listening]))
    seen.port = listening.getsockname()[1]
    try:
        yield seen
    finally:
        server.should_exit = True
        await serving
        await asyncio.gather(*running)


def post(body: bytes, fields: bytes = b"", target: bytes = b"/straight?beta=true") -> bytes:
    """Write a POST."""
    return request(b"POST", target, PLAIN % len(body) + fields, body)


async def test_a_request_in_pieces_comes_whole() -> None:
    """A head and a body that come in three pieces are one request, and its answer has its length and our fields."""
    async with door() as seen:
        sent = post(b"hello", CLOSE)
        answer = await send(seen.port, sent[:20], sent[20:-3], sent[-3:], pause_seconds=0.01)
        assert (seen.bodies, seen.long_way, seen.over) == ([b"hello"], [], [200])
        assert answer.raw.startswith(b"HTTP/1.1 200 OK\r\ndate: ")
        assert answer.raw.endswith(b"x-kind: whole\r\nconnection: close\r\ncontent-length: 7\r\n\r\n<hello>")


async def test_one_after_another_on_a_kept_connection() -> None:
    """Two requests with the same fields and other bodies are looked up once, another field anew; each is over with its status."""
    async with door() as seen:
        reader, writer = await asyncio.open_connection("127.0.0.1", seen.port)
        for body, expected in ((b"a", b"<a>"), (b"stream", b"one,\r\n3\r\ntwo\r\n0\r\n\r\n"), (b"split", b"refused")):
            writer.write(post(body))
            head = await reader.readuntil(b"\r\n\r\n")
            assert (b"transfer-encoding: chunked" in head) == (body == b"stream")
            assert (await reader.readuntil(expected)).endswith(expected)
        writer.write(post(b"b", b"X-Other: 1\r\n" + CLOSE))
        assert (await reader.read()).endswith(b"connection: close\r\ncontent-length: 3\r\n\r\n<b>")
        writer.close()
        assert len(seen.heads) == 2
        assert seen.heads[0] == [(b"host", b"localhost")]
        assert (seen.over, seen.lost) == ([200, 200, 500, 200], 0)


@pytest.mark.parametrize(
    ("sent", "statuses"),
    [
        (request(b"GET", b"/straight", b"Host: localhost\r\n" + CLOSE), [202]),
        (post(b"x", CLOSE, b"/other"), [202]),
        (post(b"x" * (LARGEST_STRAIGHT_BODY_BYTES + 1), CLOSE), [202]),
        (post(b"x", CLOSE + b"Expect: 100-continue\r\n"), [100, 202]),
        (request(b"POST", b"/straight", b"Host: localhost\r\nTransfer-Encoding: chunked\r\n" + CLOSE, b"1\r\nx\r\n0\r\n\r\n"), [202]),
        (post(b"x", CLOSE).replace(b"HTTP/1.1", b"HTTP/1.0"), [202]),
        (post(b"x", CLOSE + b"Content-Length: 1\r\n"), [400]),
        (post(b"x", CLOSE + b"Transfer-Encoding: chunked\r\n"), [400]),
        (post(b"x", CLOSE + b"Host: localhost\r\n"), [400]),
        (post(b"x", CLOSE).replace(b"localhost", b"elsewhere.test"), [421]),
    ],
    ids=["no POST", "another path", "large", "expects", "chunked", "1.0", "two lengths", "length and coding", "two hosts", "another host"],
)
async def test_everything_unusual_takes_the_long_way(sent: bytes, statuses: list[int]) -> None:
    """What is no plain POST of a small body is ASGI's, or refused, as if there were no straight door."""
    async with door() as seen:
        answer = await send(seen.port, sent)
        assert (answer.statuses, seen.bodies) == (statuses, [])


async def test_what_is_sent_ahead_waits_its_turn() -> None:
    """A second request behind one that is not answered yet is answered after it, by the long way, and the first is not lost for it."""
    async with door() as seen:
        reader, writer = await asyncio.open_connection("127.0.0.1", seen.port)
        writer.write(post(b"wait") + post(b"second", CLOSE))
        await seen.taken.wait()
        assert not seen.long_way
        seen.go_on.set()
        raw = await reader.read()
        writer.close()
        assert raw.index(b"<wait>") < raw.index(b"202 Accepted")
        assert (seen.bodies, seen.long_way, seen.lost, seen.over) == ([b"wait"], ["/straight"], 0, [200])


async def test_a_client_that_leaves_is_told_of_once() -> None:
    """The door hears that its client is gone, the request is over without a status, and what is written afterwards goes nowhere."""
    async with door() as seen:
        _, writer = await asyncio.open_connection("127.0.0.1", seen.port)
        writer.write(post(b"wait"))
        await seen.taken.wait()
        writer.close()
        while not seen.lost:
            await asyncio.sleep(0.01)
        seen.go_on.set()
        await asyncio.sleep(0.01)
        assert (seen.lost, seen.over) == (1, [None])
