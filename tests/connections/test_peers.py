"""Clients that are slow, on a server with short deadlines: each is given up, and those that behave beside them are not."""

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn

from connections import MOST_WAITING_OF_AN_ADDRESS, YOUNG_SECONDS, Hosts, Proxies, guarded
from tests.connections.wire import Answer, request, send

pytestmark = pytest.mark.anyio

SECONDS = {"head": 1.5, "body": 2.0, "unread": 2.0}
CLOSE = b"Host: localhost\r\nConnection: close\r\n"
LARGE = 64 * 1024 * 1024


@dataclass
class Seen:
    """What a door saw: the path, the client, and whether it left before its request was whole."""

    paths: list[str] = field(default_factory=list)
    clients: list[str] = field(default_factory=list)
    left: int = 0


@dataclass
class Door:
    """A running server, and what its only door saw."""

    port: int
    seen: Seen


@contextlib.asynccontextmanager
async def door(*networks: str) -> AsyncIterator[Door]:
    """Serve one door that reads a body and says `ok`, or on /large 64 MiB, behind the guards, with short deadlines."""
    seen = Seen()

    async def app(scope: Any, receive: Any, sending: Any) -> None:
        seen.paths.append(scope["path"])
        seen.clients.append(scope["client"][0])
        if scope["path"] != "/deaf":
            while (message := await receive()).get("more_body"):
                pass
            if message["type"] == "http.disconnect":
                seen.left += 1
                return
        body = b"x" * LARGE if scope["path"] == "/large" else b"ok"
        await sending({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(body)).encode())]})
        await sending({"type": "http.response.body", "body": body})

    async def refuse(scope: Any, receive: Any, sending: Any, status: int, message: str) -> None:
        await sending({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
        await sending({"type": "http.response.body"})

    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    protocol = guarded(Hosts(()), Proxies([ipaddress.ip_network(network) for network in networks]), refuse, seconds=SECONDS)
    server = uvicorn.Server(uvicorn.Config(app, http=protocol, ws="none", lifespan="off", log_config=None, access_log=False, proxy_headers=False))
    serving = asyncio.create_task(server.serve([listening]))
    try:
        yield Door(listening.getsockname()[1], seen)
    finally:
        server.should_exit = True
        await serving


async def _drip(port: int, beginning: bytes) -> Answer:
    """Send the beginning of a request at once, and then one byte at a time, for ever if need be."""
    return await send(port, beginning, *[b"a"] * 1000, pause_seconds=0.2)


async def test_slow_heads_and_bodies_are_given_up() -> None:
    """Silence, half a head, a head byte by byte, blank lines, half a body, a body byte by byte, one behind an early answer: closed, every one."""
    body = request(b"POST", b"/", b"Host: localhost\r\nContent-Length: 5000\r\n")
    async with door() as server:
        silent, half_head, head, blank, half_body, dripped, chunked, deaf, again = await asyncio.gather(
            send(server.port),
            send(server.port, b"GET / HTTP/1.1\r\nHost: loc"),
            _drip(server.port, b"GET / HTTP/1.1\r\nHost: localhost\r\nX-A: "),
            send(server.port, *[b"\r\n"] * 100, pause_seconds=0.1),
            send(server.port, body, b"abc"),
            _drip(server.port, body),
            _drip(server.port, request(b"POST", b"/", b"Host: localhost\r\nTransfer-Encoding: chunked\r\n", b"fff\r\n")),
            _drip(server.port, request(b"POST", b"/deaf", b"Host: localhost\r\nContent-Length: 5000\r\n")),
            send(server.port, request(fields=b"Host: localhost\r\n"), b"GET / HT", pause_seconds=0.3),
        )
        assert (silent.statuses, half_head.statuses) == ([], [408])
        assert head.closed  # who still writes may not see why
        assert (blank.statuses, half_body.statuses, dripped.statuses, chunked.statuses) == ([], [], [], [])
        assert deaf.closed
        assert again.statuses == [200, 408]
        assert server.seen.left == 3
        assert (await send(server.port, request(fields=CLOSE))).statuses == [200]


async def test_a_client_that_reads_nothing_is_given_up() -> None:
    """64 MiB that nobody takes are dropped, and the door hears of it."""
    async with door() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
        writer.write(request(target=b"/large", fields=b"Host: localhost\r\n"))
        await writer.drain()
        await asyncio.sleep(SECONDS["unread"] + 3)
        taken = 0
        with contextlib.suppress(ConnectionError):
            while chunk := await reader.read(65536):
                taken += len(chunk)
        assert taken < LARGE
        writer.close()


async def test_one_that_behaves_keeps_its_connection() -> None:
    """Requests with pauses longer than the deadline of a head, and an answer that takes its time, are nobody's fault."""
    async with door() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for _ in range(2):
            writer.write(request(fields=b"Host: localhost\r\n"))
            assert await reader.readuntil(b"ok")
            await asyncio.sleep(SECONDS["head"] + 1.5)
        writer.write(request(fields=CLOSE))
        assert (await reader.read()).endswith(b"ok")
        writer.close()


async def test_half_open_connections_of_one_address_are_bounded() -> None:
    """Beyond the bound the oldest goes, once it has had its time; a burst of whole requests is no attack, however large.

    Nor are 200 connections that are opened at once and ask only when all of them stand: each gets its answer.
    """
    async with door() as server:
        answers = await asyncio.gather(*(send(server.port, request(fields=CLOSE)) for _ in range(2 * MOST_WAITING_OF_AN_ADDRESS)))
        assert {tuple(answer.statuses) for answer in answers} == {(200,)}
        farm = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(200)]
        await asyncio.sleep(YOUNG_SECONDS + 0.1)
        for _, writer in farm:
            writer.write(request(fields=CLOSE))
        for reader, writer in farm:
            assert (await reader.read()).endswith(b"ok")
            writer.close()
        slow = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(MOST_WAITING_OF_AN_ADDRESS)]
        await asyncio.sleep(YOUNG_SECONDS + 0.1)
        late = await asyncio.open_connection("127.0.0.1", server.port)
        assert await slow[0][0].read() == b""
        late[1].write(request(fields=CLOSE))
        assert (await late[0].read()).endswith(b"ok")
        for _, writer in (*slow, late):
            writer.close()


async def test_forwarded_addresses_are_believed_from_proxies_only() -> None:
    """The same fields: from a proxy that the operator named, the client's address; from anybody else, the peer's own."""
    fields = CLOSE + b"X-Forwarded-For: 198.51.100.1, 203.0.113.9\r\n"
    async with door("127.0.0.0/8") as behind, door() as before:
        for server in (behind, before):
            assert (await send(server.port, request(fields=fields))).statuses == [200]
        assert (behind.seen.clients, before.seen.clients) == (["203.0.113.9"], ["127.0.0.1"])
