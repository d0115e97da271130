"""The client of model providers, against servers that behave in every way that providers were seen to, on both event loops."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from clients.chunks import Taken
from clients.upstream import BROKEN, BUFFER_BYTES, LARGEST_HEAD_BYTES, STALE_SECONDS, Broken, Response, Upstreams
from tests.support.peers import Peer, Server

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
START = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
MOST = 1 << 30


@pytest.fixture(scope="module", params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    """Run every test on the standard loop and on the one that serves."""
    return "asyncio", {"use_uvloop": request.param}


@contextlib.asynccontextmanager
async def opened(**seconds: float) -> AsyncIterator[Upstreams]:
    """A client, closed at the end."""
    upstreams = Upstreams(**seconds)  # type: ignore[arg-type]  # every setting is a number but the one of TLS, which is tested apart
    try:
        yield upstreams
    finally:
        await upstreams.close()


async def asked(upstreams: Upstreams, url: str, body: bytes = b"{}", stale: Callable[[], None] | None = None) -> tuple[int, bytes | None]:
    """Ask once; give status and body."""
    async with upstreams.post(url, [(b"content-type", b"application/json")], body, stale=stale) as response:
        return response.status, await response.read(MOST)


async def always_ok(peer: Peer) -> None:
    """Answer every request."""
    while True:
        await peer.request()
        await peer.say(OK)


async def to_the_end(response: Response) -> None:
    """Read what is left."""
    async for _ in response:
        pass


# What arrives.


async def test_the_request_arrives_as_it_was_given() -> None:
    """Path, fields and body are the caller's; host and length are right, encoding is declined, nothing else is added."""
    seen: list[bytes] = []

    async def serve(peer: Peer) -> None:
        seen.append(await peer.request())
        await peer.say(OK)

    body = bytes(range(256)) * 40_000  # larger than every buffer
    async with Server(serve).listening() as url, opened() as upstreams, upstreams.post(f"{url}?beta=true", [(b"x-a", b"\xe9 1"), (b"x-a", b"2")], body) as response:
        assert (response.status, await response.read(MOST)) == (200, b"{}")
    authority = url.split("/")[2].encode()
    assert seen == [
        b"POST /v1/x?beta=true HTTP/1.1\r\nhost: " + authority + b"\r\naccept-encoding: identity\r\nx-a: \xe9 1\r\nx-a: 2\r\ncontent-length: 10240000\r\n\r\n" + body
    ]


@pytest.mark.parametrize("value", [b"a\r\nx-evil: 1", b"a\nb", b"a\rb", b"a\0b"])
async def test_a_field_of_two_lines_is_not_sent(value: bytes) -> None:
    """Nobody smuggles a second field, or a second request, into what goes upstream."""
    server = Server(always_ok)
    async with server.listening() as url, opened() as upstreams:
        with pytest.raises(ValueError, match="one line"):
            upstreams.post(url, [(b"x-a", value)], b"{}")
    assert server.connections == 0


ANSWERS = {
    "content-length": OK,
    "chunked": START + b"1\r\n{\r\n1;extension=1\r\n}\r\n0\r\ntrailer: 1\r\n\r\n",
    "close-delimited": b"HTTP/1.1 200 OK\r\n\r\n{}",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n{}",
    "interim first": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\ncontent-length: 9\r\n\r\n" + OK,
}


@pytest.mark.parametrize("pieces", [False, True], ids=["at once", "byte by byte"])
@pytest.mark.parametrize("form", ANSWERS)
async def test_every_framing_is_read(form: str, pieces: bool) -> None:
    """Lengths, chunks with extensions and trailers, an end by closing, interim answers before: the body is the body, however it is cut."""
    told = ANSWERS[form]

    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.say(*([told[at : at + 1] for at in range(len(told))] if pieces else [told]))

    async with Server(serve).listening() as url, opened() as upstreams, upstreams.post(url, [], b"{}") as response:
        assert response.status == 200
        assert not response.header(b"link")
        assert not response.header(b"trailer")
        assert await response.read(MOST) == b"{}"


async def test_an_answer_without_a_body_has_none() -> None:
    """A 204 ends with its header."""

    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.say(b"HTTP/1.1 204 No Content\r\n\r\n")
        await peer.gone()

    async with Server(serve).listening() as url, opened() as upstreams:
        assert await asked(upstreams, url) == (204, b"")


async def test_a_stream_is_given_piece_by_piece() -> None:
    """A piece is there as soon as it has come, before the next one is sent."""
    go = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.say(START, b"3\r\none\r\n")
        await go.wait()
        await peer.say(b"3\r\ntwo\r\n0\r\n\r\n")

    async with Server(serve).listening() as url, opened() as upstreams, upstreams.post(url, [], b"{}") as response:
        assert await anext(response) == b"one"
        go.set()
        assert [piece async for piece in response] == [b"two"]


async def test_pieces_are_handed_over_until_one_is_not_taken() -> None:
    """Each piece goes to the sink when it comes; what it does not take, and what follows the one at which it stops, is read; an end and a break are told."""
    steps = [asyncio.Event() for _ in range(5)]
    said = [b"one", b"two", b"no!", b"end", b"off"]

    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.say(START)
        for step, piece in zip(steps, said, strict=True):
            await step.wait()
            await peer.say(b"3\r\n" + piece + b"\r\n")
        await peer.say(b"zz" if broken else b"0\r\n\r\n")

    taken: list[bytes] = []

    def sink(piece: bytes) -> Taken:
        if piece == b"no!":
            return Taken.NOT
        taken.append(piece)
        if piece == b"end":
            return Taken.STOP
        steps[len(taken)].set()
        return Taken.GO_ON

    for broken in (False, True):
        for step in steps:
            step.clear()
        taken.clear()
        async with Server(serve).listening() as url, opened() as upstreams, upstreams.post(url, [], b"{}") as response:
            steps[0].set()
            await response.flow(sink)
            assert (taken, await response.more()) == ([b"one", b"two"], b"no!")
            steps[3].set()
            await response.flow(sink)
            assert taken == [b"one", b"two", b"end"]
            steps[4].set()
            assert await response.more() == b"off"
            await response.flow(sink)
            if broken:
                with pytest.raises(Broken):
                    await response.more()
            else:
                assert await response.more() == b""


async def test_what_a_sink_raises_is_raised_to_the_reader() -> None:
    """A bug in a sink ends the answer, and not the process's other connections."""

    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.say(START)
        await go.wait()
        await peer.say(b"3\r\none\r\n")
        await peer.gone()

    def sink(piece: bytes) -> Taken:
        raise LookupError(piece.decode())

    go = asyncio.Event()
    async with Server(serve).listening() as url, opened() as upstreams, upstreams.post(url, [], b"{}") as response:
        asyncio.get_running_loop().call_soon(go.set)
        await response.flow(sink)
        assert await response.more() == b"one"
        with pytest.raises(LookupError, match="one"):
            await response.more()


async def test_a_body_that_is_too_large_is_not_kept() -> None:
    """`read` gives up at its bound, whatever the upstream announces."""

    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.say(START, *[b"10000\r\n" + bytes(65536) + b"\r\n"] * 64)
        await peer.gone()

    async with Server(serve).listening() as url, opened() as upstreams, upstreams.post(url, [], b"{}") as response:
        assert await response.read(1_000_000) is None


async def test_a_body_of_the_very_bound_is_read() -> None:
    """The bound itself is allowed, one byte more is not."""
    async with Server(always_ok).listening() as url, opened() as upstreams:
        async with upstreams.post(url, [], b"{}") as response:
            assert await response.read(2) == b"{}"
        async with upstreams.post(url, [], b"{}") as response:
            assert await response.read(1) is None


# Connections.


async def test_a_connection_is_used_again() -> None:
    """A whole answer leaves its connection for the next call, also a stream whose end nobody read."""

    async def serve(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.say(START + b"2\r\n{}\r\n0\r\n\r\n")

    server = Server(serve)
    async with server.listening() as url, opened() as upstreams:
        for _ in range(3):
            assert await asked(upstreams, url) == (200, b"{}")
            async with upstreams.post(url, [], b"{}") as response:
                await anext(response)
    assert server.connections == 1


async def test_calls_at_once_have_a_connection_each() -> None:
    """No call waits for another."""
    together = asyncio.Barrier(20)

    async def serve(peer: Peer) -> None:
        while True:
            await peer.request()
            await together.wait()
            await peer.say(OK)

    server = Server(serve)
    async with server.listening() as url, opened() as upstreams:
        assert await asyncio.gather(*(asked(upstreams, url) for _ in range(20))) == [(200, b"{}")] * 20
    assert server.connections == 20


@pytest.mark.parametrize("told", [OK.replace(b"content-length", b"connection: close\r\ncontent-length"), ANSWERS["HTTP/1.0"], OK + OK, OK + b"\0"])
async def test_a_connection_that_is_not_clean_is_not_used_again(told: bytes) -> None:
    """One that the server closes, or on which more came than was asked for: nobody gets the answer to another's question."""

    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.say(told)
        await peer.gone()

    server = Server(serve)
    async with server.listening() as url, opened() as upstreams:
        assert await asked(upstreams, url) == (200, b"{}")
        assert await asked(upstreams, url) == (200, b"{}")
    assert server.connections == 2


async def test_a_connection_that_speaks_unasked_is_closed() -> None:
    """An answer that comes while nobody asks is thrown away with its connection."""
    late = asyncio.Event()
    closed = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.say(OK)
        if peer.number == 1:
            await late.wait()
            await peer.say(OK.replace(b"{}", b"[]"))
            await peer.gone()
            closed.set()

    server = Server(serve)
    async with server.listening() as url, opened() as upstreams:
        assert await asked(upstreams, url) == (200, b"{}")
        late.set()
        await closed.wait()
        assert await asked(upstreams, url) == (200, b"{}")
    assert server.connections == 2


@pytest.mark.parametrize("how", [Peer.close, Peer.reset])
@pytest.mark.parametrize("when", ["before", "with the request"])
async def test_a_kept_connection_that_the_server_gave_up_is_replaced(how: Callable[[Peer], None], when: str) -> None:
    """A server that closes an idle connection costs no call: neither when the close came before the request nor when they crossed.

    When they crossed, who called is told before the request is sent a second time.
    """
    closed = asyncio.Event()
    told: list[int] = []

    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.say(OK)
        if peer.number == 1:
            if when == "with the request":
                await peer.request()
            how(peer)
            closed.set()

    server = Server(serve)
    async with server.listening() as url, opened() as upstreams:
        assert await asked(upstreams, url) == (200, b"{}")
        if when == "before":
            await closed.wait()
            await asyncio.sleep(0.05)
        assert await asked(upstreams, url, stale=lambda: told.append(server.connections)) == (200, b"{}")
    assert server.connections == 2
    assert told == ([1] if when == "with the request" else [])


async def test_a_request_whose_first_sending_nobody_records_is_sent_once() -> None:
    """A kept connection that breaks under a request that had left is an error, where its caller keeps no record of a first sending."""
    requests: list[int] = []

    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.say(OK)
        await peer.request()
        requests.append(peer.number)

    async with Server(serve).listening() as url, opened() as upstreams:
        assert await asked(upstreams, url) == (200, b"{}")
        with pytest.raises(Broken):
            await asked(upstreams, url)
    assert requests == [1]


async def test_a_request_that_may_have_been_served_is_not_sent_again() -> None:
    """Not when the connection was new, not when a byte came, not when the server took its time: the provider may bill what it did not answer."""
    requests: list[tuple[int, int]] = []
    told: list[int] = []

    async def serve(peer: Peer) -> None:
        await peer.request()
        requests.append((peer.number, 1))
        if peer.number == 1:
            return  # a new connection, broken
        await peer.say(OK)
        await peer.request()
        requests.append((peer.number, 2))
        if peer.number == 2:
            await peer.say(b"H")  # a byte
        else:
            await asyncio.sleep(STALE_SECONDS + 0.2)  # long enough to have been served

    async with Server(serve).listening() as url, opened() as upstreams:
        with pytest.raises(Broken):
            await asked(upstreams, url)
        for _ in range(2):
            assert await asked(upstreams, url) == (200, b"{}")
            with pytest.raises(Broken):
                await asked(upstreams, url, stale=lambda: told.append(1))
    assert (requests, told) == ([(1, 1), (2, 1), (2, 2), (3, 1), (3, 2)], [])


async def test_an_old_connection_is_closed() -> None:
    """A connection that nobody needs is not kept for ever."""
    gone = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.say(OK)
        await peer.gone()
        gone.set()

    async with Server(serve).listening() as url, opened(kept_seconds=0.05) as upstreams:
        assert await asked(upstreams, url) == (200, b"{}")
        await gone.wait()


@pytest.mark.parametrize("how", ["cancel", "leave", "close"])
@pytest.mark.parametrize("when", ["before the header", "in the body"])
async def test_whoever_stops_closes_the_connection(how: str, when: str) -> None:
    """F33: a cancelled call, one that leaves early, and the end of the process end the connection, so that the provider stops its work too."""
    arrived, gone = asyncio.Event(), asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.request()
        if when == "in the body":
            await peer.say(START, b"2\r\n{}\r\n")
        arrived.set()
        await peer.gone()
        gone.set()

    async def ask(upstreams: Upstreams, url: str) -> None:
        async with upstreams.post(url, [], b"{}") as response:
            await anext(response)
            if how != "leave":
                await anext(response)

    async with Server(serve).listening() as url, opened() as upstreams:
        task = asyncio.create_task(ask(upstreams, url))
        await arrived.wait()
        await asyncio.sleep(0.05)
        if how == "close":
            await upstreams.close()
        elif how == "cancel" or when == "before the header":
            task.cancel()
        await gone.wait()
        await asyncio.gather(task, return_exceptions=True)
        assert task.done()


# What breaks.


HOSTILE = {
    "no byte": b"",
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "garbage": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "half a header": b"HTTP/1.1 200 OK\r\ncontent-le",
    "another protocol": b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}",
    "length and chunks": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "a negative length": b"HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\n{}",
    "another transfer encoding": b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n{}",
    "another content encoding": b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n\x1f\x8b",
    "a folded field": b"HTTP/1.1 200 OK\r\nx: a\r\n b\r\ncontent-length: 2\r\n\r\n{}",
    "an endless field": b"HTTP/1.1 200 OK\r\nx: " + b"a" * (4 * LARGEST_HEAD_BYTES),
    "endless fields": b"HTTP/1.1 200 OK\r\n" + b"x: a\r\n" * LARGEST_HEAD_BYTES,
    "endless interim answers": b"HTTP/1.1 103 Early Hints\r\n\r\n" * (LARGEST_HEAD_BYTES // 8),
}
CUT = {
    "a short body": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n{}",
    "a missing chunk": START + b"2\r\n{}\r\n",
    "half a chunk": START + b"2\r\n{}\r\n5\r\nabc",
    "a wrong chunk size": START + b"2\r\n{}\r\nzz\r\n",
    "an endless chunk size": START + b"2\r\n{}\r\n" + b"0" * (4 * LARGEST_HEAD_BYTES),
    "an endless extension": START + b"2\r\n{}\r\n1;" + b"a" * (4 * LARGEST_HEAD_BYTES),
    "endless trailers": START + b"2\r\n{}\r\n0\r\n" + b"x: a\r\n" * LARGEST_HEAD_BYTES,
}


@pytest.mark.parametrize("form", HOSTILE)
async def test_what_is_no_answer_is_broken(form: str) -> None:
    """Whatever is sent in place of an answer is one exception, and the memory that it takes is bounded."""

    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.say(HOSTILE[form])
        if len(HOSTILE[form]) > LARGEST_HEAD_BYTES:
            await peer.gone()

    async with Server(serve).listening() as url, opened() as upstreams:
        with pytest.raises(BROKEN):
            await asked(upstreams, url)


@pytest.mark.parametrize("form", CUT)
async def test_a_cut_body_is_no_whole_one(form: str) -> None:
    """What came is given, and then an exception, never a clean end."""

    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.say(CUT[form])
        if len(CUT[form]) > LARGEST_HEAD_BYTES:
            await peer.gone()

    async with Server(serve).listening() as url, opened() as upstreams, upstreams.post(url, [], b"{}") as response:
        given = await anext(response)
        assert given.startswith(b"{}")
        with pytest.raises(BROKEN):
            await to_the_end(response)


async def test_nobody_there_is_an_error_at_once() -> None:
    """A port where nobody listens, and a name that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    async with opened() as upstreams:
        for host in (f"127.0.0.1:{port}", "nobody.invalid"):
            with pytest.raises(OSError):  # noqa: PT011 — which of them is the system's matter
                await asked(upstreams, f"http://{host}/")


# What takes too long.


async def test_a_server_that_takes_no_connection_is_not_waited_for() -> None:
    """Connecting has a bound of its own."""
    with socket.socket() as full, contextlib.ExitStack() as stack:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):  # more than its queue has room for
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        await asyncio.sleep(0.1)
        async with opened(connect_seconds=0.2) as upstreams:
            with pytest.raises(TimeoutError):
                await asked(upstreams, f"http://127.0.0.1:{full.getsockname()[1]}/")


@pytest.mark.parametrize("told", [b"", b"HTTP/1.1 200 OK\r\n"])
async def test_a_server_that_does_not_answer_is_not_waited_for(told: bytes) -> None:
    """The header has a bound, however it drips."""

    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.say(told)
        await peer.gone()

    async with Server(serve).listening() as url, opened(first_byte_seconds=0.2) as upstreams:
        with pytest.raises(TimeoutError):
            await asked(upstreams, url)


async def test_a_stream_that_falls_silent_is_not_waited_for() -> None:
    """What came is given, then the wait has a bound."""

    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.say(START, b"2\r\n{}\r\n")
        await peer.gone()

    async with Server(serve).listening() as url, opened(between_bytes_seconds=0.2) as upstreams, upstreams.post(url, [], b"{}") as response:
        assert await anext(response) == b"{}"
        with pytest.raises(TimeoutError):
            await anext(response)


async def test_a_reader_that_is_slow_stops_the_upstream_and_not_the_call() -> None:
    """An upstream is read no faster than its reader takes the body, and the reader's time is not counted as the upstream's silence."""
    size = 64 * 1024 * 1024
    sent = 0

    async def serve(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        for _ in range(size // 65536):
            await peer.say(bytes(65536))
            sent += 65536

    async with Server(serve).listening() as url, opened(between_bytes_seconds=2.0) as upstreams, upstreams.post(url, [], b"{}") as response:
        largest = len(await anext(response))
        before = -1
        while sent != before:  # until nothing moves any more
            before = sent
            await asyncio.sleep(0.5)
        await asyncio.sleep(2.5)  # the bound on silence, and more
        assert sent < size // 2  # the rest is what the system's own buffers take
        got = largest
        async for piece in response:
            got += len(piece)
            largest = max(largest, len(piece))
        assert got == size
        assert largest <= 4 * BUFFER_BYTES
