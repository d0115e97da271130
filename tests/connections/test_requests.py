"""Requests that are not quite HTTP, as raw bytes to the run's gateway: each is refused or means one thing, and what follows it is no second request."""

import json

import pytest

from tests.connections.wire import request, send
from tests.support.gateway import Gateway
from tests.support.world import tenant

pytestmark = pytest.mark.anyio

HOST = b"Host: localhost\r\n"
CLOSE = b"Connection: close\r\n"
SECOND = b"GET /version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
"""What a front end that reads the body otherwise would take for the next client's request."""

SMUGGLING = {
    "length and coding": b"POST /v1/keys HTTP/1.1\r\n%bContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding and length": b"POST /v1/keys HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST /v1/keys HTTP/1.1\r\n%bContent-Length: 0\r\nContent-Length: 4\r\n\r\n",
    "two equal lengths": b"POST /v1/keys HTTP/1.1\r\n%bContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
    "a list of lengths": b"POST /v1/keys HTTP/1.1\r\n%bContent-Length: 0, 0\r\n\r\n",
    "a signed length": b"POST /v1/keys HTTP/1.1\r\n%bContent-Length: +0\r\n\r\n",
    "a negative length": b"POST /v1/keys HTTP/1.1\r\n%bContent-Length: -1\r\n\r\n",
    "a length in hex": b"POST /v1/keys HTTP/1.1\r\n%bContent-Length: 0x0\r\n\r\n",
    "an endless length": b"POST /v1/keys HTTP/1.1\r\n%bContent-Length: 99999999999999999999999\r\n\r\n",
    "two codings": b"POST /v1/keys HTTP/1.1\r\n%bTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": b"POST /v1/keys HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "an unknown coding": b"POST /v1/keys HTTP/1.1\r\n%bTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "identity": b"POST /v1/keys HTTP/1.1\r\n%bTransfer-Encoding: identity\r\n\r\n",
    "coding in 1.0": b"POST /v1/keys HTTP/1.0\r\n%bTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "space before the colon": b"POST /v1/keys HTTP/1.1\r\n%bTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a folded field": b"POST /v1/keys HTTP/1.1\r\n%bX-A: b\r\n Content-Length: 5\r\n\r\n",
    "a folded coding": b"POST /v1/keys HTTP/1.1\r\n%bTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "bare line feeds": b"POST /v1/keys HTTP/1.1\n%bContent-Length: 0\n\n",
    "a bare carriage return": b"POST /v1/keys HTTP/1.1\r\n%bX-A: b\rContent-Length: 5\r\n\r\n",
    "a NUL": b"POST /v1/keys HTTP/1.1\r\n%bX-A: b\x00c\r\n\r\n",
    "a chunk size with a sign": b"POST /v1/keys HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n+0\r\n\r\n",
    "a chunk size in 0x": b"POST /v1/keys HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n",
    "an endless chunk size": b"POST /v1/keys HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n\r\n",
    "a chunk size that ends in a line feed": b"POST /v1/keys HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n0\n\r\n",
    "a chunk that is longer than it says": b"POST /v1/keys HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
    "a line feed inside a chunk's extension": b"POST /v1/keys HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n0;a\nb\r\n\r\n",
    "a version that is none": b"POST /v1/keys HTTP/3.7\r\n%b\r\n",
    "no version": b"GET /v1/keys\r\n%b\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03%b\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n%b\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("shape", SMUGGLING)
async def test_smuggling_shapes_are_refused(gateway: Gateway, shape: str) -> None:
    """One refusal, then the connection is closed: what stands behind it is never answered as a request."""
    answer = await send(gateway.port, SMUGGLING[shape] % HOST + SECOND)
    assert answer.closed
    assert answer.statuses in ([400], []), answer.raw
    assert b"tallygate" not in answer.body


@pytest.mark.parametrize("shape", ["a chunk's extension", "a trailer", "capitals", "in two packets"])
async def test_sound_shapes_pass(gateway: Gateway, shape: str) -> None:
    """Chunks with an extension or a trailer, field names in capitals, and a head in pieces are HTTP, and mean what they say."""
    mine = await tenant()
    head = b"POST /v1/keys HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %b\r\nConnection: close\r\n" % mine.secret.encode()
    body = b'{"name": "sound"}'
    chunk = b"%x%b\r\n%b\r\n0\r\n%b\r\n" % (len(body), b";a=b" if shape == "a chunk's extension" else b"", body, b"X-T: 1\r\n" if shape == "a trailer" else b"")
    parts: tuple[bytes, ...] = (head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk,)
    if shape == "capitals":
        parts = (head.replace(b"Host", b"HOST") + b"CONTENT-LENGTH: %d\r\n\r\n%b" % (len(body), body),)
    if shape == "in two packets":
        parts = (head[:20], head[20:] + b"Content-Length: %d\r\n\r\n" % len(body), body[:4], body[4:])
    answer = await send(gateway.port, *parts, pause_seconds=0.05)
    assert answer.statuses == [201], answer.raw
    assert b'"name":"sound"' in answer.body


async def test_requests_in_a_row_are_answered_in_their_order(gateway: Gateway) -> None:
    """Two requests in one packet are two answers, in order."""
    answer = await send(gateway.port, request() + SECOND)
    assert answer.statuses == [200, 200]
    assert answer.raw.index(b'"ok"') < answer.raw.index(b'"tallygate"')


HOSTS = {
    "no Host": (b"", 400),
    "two": (b"Host: localhost\r\nHost: localhost\r\n", 400),
    "two different": (b"Host: localhost\r\nHost: evil.example\r\n", 400),
    "another's": (b"Host: evil.example\r\n", 421),
    "ours inside another's": (b"Host: localhost.evil.example\r\n", 421),
    "another's before an @": (b"Host: localhost@evil.example\r\n", 421),
    "a path": (b"Host: localhost/#@evil.example\r\n", 421),
    "empty": (b"Host:\r\n", 421),
    "a list": (b"Host: localhost, evil.example\r\n", 421),
    "an odd port": (b"Host: localhost:80x\r\n", 421),
    "localhost": (b"Host: localhost\r\n", 200),
    "localhost with a port": (b"Host: LOCALHOST:1234\r\n", 200),
    "with a dot": (b"Host: localhost.\r\n", 200),
    "an address": (b"Host: 192.0.2.7:8000\r\n", 200),
    "an address in brackets": (b"Host: [2001:db8::1]:8000\r\n", 200),
}


@pytest.mark.parametrize("given", HOSTS)
async def test_one_host_that_is_ours(gateway: Gateway, given: str) -> None:
    """Exactly one Host, and one of ours, by the address or the name; 400 for how many there are, 421 for whose it is."""
    fields, status = HOSTS[given]
    answer = await send(gateway.port, request(fields=fields + CLOSE))
    assert answer.statuses == [status], answer.raw


TARGETS = [b"http://localhost/healthz", b"//localhost:80@evil/../healthz\\x", b"*", b"localhost:443", b"healthz", b"?x", b"/%zz\xff"]


@pytest.mark.parametrize("target", TARGETS)
async def test_a_target_is_a_path(gateway: Gateway, target: bytes) -> None:
    """An absolute form, an authority, an asterisk and bytes that are no path are refused, or are a path that nobody has."""
    method = {b"*": b"OPTIONS", b"localhost:443": b"CONNECT"}.get(target, b"GET")
    answer = await send(gateway.port, request(method, target, HOST + CLOSE))
    assert answer.statuses in ([400], [404]), answer.raw
    if not target.startswith(b"/"):
        assert answer.statuses == [400]


async def test_heads_are_bounded(gateway: Gateway) -> None:
    """100 fields and 32 KiB pass, more is 431, whether it comes at once, as one line without an end, or a byte at a time; a long target is 414."""
    hundred = b"".join(b"X-%d: a\r\n" % number for number in range(98))
    assert (await send(gateway.port, request(fields=HOST + CLOSE + hundred))).statuses == [200]
    assert (await send(gateway.port, request(fields=HOST + CLOSE + hundred + b"X-More: a\r\n"))).statuses == [431]
    assert (await send(gateway.port, request(fields=HOST + CLOSE + b"X-Long: %b\r\n" % (b"a" * 31_000)))).statuses == [200]
    assert (await send(gateway.port, request(fields=HOST + CLOSE + b"X-Long: %b\r\n" % (b"a" * 40_000)))).statuses == [431]
    assert (await send(gateway.port, b"GET / HTTP/1.1\r\nX-Endless: " + b"a" * 20_000, b"a" * 20_000, pause_seconds=0.05)).statuses == [431]
    assert (await send(gateway.port, request(target=b"/healthz?" + b"a" * 9_000, fields=HOST + CLOSE))).statuses == [414]
    assert (await send(gateway.port, request(target=b"/healthz?" + b"a" * 8_000, fields=HOST + CLOSE))).statuses == [200]


@pytest.mark.parametrize(
    ("path", "fields", "keys"),
    [
        (b"/v1/messages", b"", {"type", "error", "request_id"}),
        (b"/v1/chat/completions", b"", {"error"}),
        (b"/tenant/keys", b"", {"error"}),
        (b"/v1/keys", b"", {"error"}),
        (b"/graphql", b"", {"error"}),
    ],
)
async def test_a_refusal_is_in_the_doors_shape(gateway: Gateway, path: bytes, fields: bytes, keys: set[str]) -> None:
    """Where the head can be read, a refusal is what this path's clients understand, carries a request id, and ends the connection."""
    answer = await send(gateway.port, request(b"POST", path, b"Host: evil.example\r\n" + fields + b"Content-Length: 2\r\n", b"{}"))
    assert (answer.statuses, answer.closed) == ([421], True)
    assert b"x-request-id: " in answer.raw
    assert set(json.loads(answer.body)) == keys


async def test_a_websocket_needs_one_host_that_is_ours_too(gateway: Gateway) -> None:
    """An upgrade under another's Host is 421; under ours it is a WebSocket."""
    key = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: graphql-transport-ws\r\n"
    fields = b"Upgrade: websocket\r\nConnection: Upgrade\r\n" + key
    refused = await send(gateway.port, request(target=b"/graphql", fields=b"Host: evil.example\r\n" + fields))
    assert refused.statuses == [421]
    answer = await send(gateway.port, request(target=b"/graphql", fields=HOST + fields), until_closed=False)
    assert answer.statuses == [101], answer.raw
