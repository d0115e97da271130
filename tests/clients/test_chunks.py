"""Chunks that go on as they came: what may, what may not, and that nothing is lost, doubled or moved, however the wire cuts them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from clients.chunks import FOLLOWING, Taken, skimmed
from clients.upstream import Broken, Upstreams
from tests.support.peers import Peer, Server

pytestmark = pytest.mark.anyio

START = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
PIECES = [b"a", b"text", b"x" * 15, b"x" * 16, b"odd", b"two", b"odd", b"odd", b"y" * 26, b"\r\n", b"3\r\n", b"0\r\n\r\n", b"last"]


@pytest.fixture(scope="module", params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    """Run every test on the standard loop and on the one that serves."""
    return "asyncio", {"use_uvloop": request.param}


@contextlib.asynccontextmanager
async def opened() -> AsyncIterator[Upstreams]:
    """A client, closed at the end."""
    upstreams = Upstreams()
    try:
        yield upstreams
    finally:
        await upstreams.close()


def chunk(piece: bytes, form: str = "%x") -> bytes:
    """Write a chunk, its size in the given form."""
    return (form % len(piece)).encode() + b"\r\n" + piece + b"\r\n"


@pytest.mark.parametrize(
    ("line", "following"),
    [
        *((b"1", 3), (b"a", 12), (b"A", 12), (b"00ff", 257), (b"ffff", 65537)),
        *((b"0", -1), (b"0000", -1), (b"10000", -1), (b"", -1), (b"5;a=b", -1), (b"5 ", -1), (b" 5", -1), (b"+5", -1), (b"-5", -1), (b"0x5", -1)),
        *((b"1_0", -1), (b"g", -1), (b"\xef\xbc\x95", -1), (b"5\n", -1)),
    ],
)
def test_only_a_plain_size_is_one(line: bytes, following: int) -> None:
    """The last chunk, extensions, and whatever Python but no other reader of HTTP takes for a number, are left to the parser; asked twice alike."""
    assert (FOLLOWING[line], FOLLOWING[line]) == (following, following)


def test_lines_that_an_upstream_invents_fill_no_memory() -> None:
    """Only sizes are kept, and of those no more than there are in a moderate number: the first line of a piece may be as long as the piece."""
    before = len(FOLLOWING)
    for number in range(6000):
        assert FOLLOWING[b"%d;" % number + b"x" * 1000] == -1
    assert len(FOLLOWING) == before
    for number in range(1, 6000):
        assert FOLLOWING[b"%x" % number] == number + 2
    assert len(FOLLOWING) <= 4096
    assert FOLLOWING[b"fedc"] == 0xFEDC + 2


def test_what_is_not_wanted_ends_a_run() -> None:
    """Whole chunks are read in order up to the first that is not wanted, or not whole."""
    seen: list[bytes] = []

    def skim(content: bytes) -> bool:
        seen.append(content)
        return content != b"no\r\n"

    whole = chunk(b"one") + chunk(b"two", "%04X")
    assert skimmed(whole + chunk(b"no") + chunk(b"three"), skim) == len(whole)
    assert seen == [b"one\r\n", b"two\r\n", b"no\r\n"]
    for rest in (b"", b"5", b"5\r\n", b"5\r\nthre", b"5\r\nthree", b"5\r\nthree\r", b"0\r\n\r\n", b"zz\r\n", b"5;a\r\nthree\r\n"):
        assert skimmed(whole + rest, skim) == len(whole)


@pytest.mark.parametrize(
    ("form", "size"),
    [*(("%x", size) for size in (1, 3, 7, 40, 10_000)), *((form, size) for form in ("%04X", "%05x", "%x;extension=1") for size in (5, 10_000))],
)
async def test_every_byte_goes_on_once_and_in_order(form: str, size: int) -> None:
    """F37: whatever is skimmed and whatever is not, and wherever the wire cuts, what goes on is the body, and what goes on as it came are its very chunks."""
    wire = b"".join(chunk(piece, form) for piece in PIECES) + b"0\r\n\r\n"

    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.say(START + chunk(b"first"))
        await go.wait()
        for begin in range(0, len(wire), size):
            await peer.say(wire[begin : begin + size])

    gone: list[bytes] = []
    passed: list[bytes] = []

    def sink(piece: bytes) -> Taken:
        gone.append(piece)
        return Taken.GO_ON

    def skim(content: bytes) -> bool:
        if content == b"odd\r\n" or not content.endswith(b"\r\n"):
            return False
        gone.append(content[:-2])
        return True

    go = asyncio.Event()
    async with Server(serve).listening() as url, opened() as upstreams, upstreams.post(url, [], b"{}") as response:
        assert await response.more() == b"first"
        asyncio.get_running_loop().call_soon(go.set)
        await response.flow(sink, (skim, passed.append))
        assert await response.more() == b""
    assert b"".join(gone) == b"".join(PIECES)
    assert all(run in wire for run in passed)
    if form not in ("%x", "%04X"):
        assert passed == []
    elif size > len(wire):
        assert passed[0] == b"".join(chunk(piece, form) for piece in PIECES[:4])


async def test_what_is_not_taken_waits_behind_what_went_on() -> None:
    """A reader that takes no more finds the next chunk where the last one that went on ended, though both came at once."""

    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.say(START + chunk(b"first"))
        await go.wait()
        await peer.say(chunk(b"one") + chunk(b"two") + chunk(b"stop") + chunk(b"three") + b"0\r\n\r\n")

    passed: list[bytes] = []

    def sink(piece: bytes) -> Taken:
        return Taken.NOT

    go = asyncio.Event()
    async with Server(serve).listening() as url, opened() as upstreams, upstreams.post(url, [], b"{}") as response:
        assert await response.more() == b"first"
        asyncio.get_running_loop().call_soon(go.set)
        await response.flow(sink, (lambda content: content != b"stop\r\n", passed.append))
        assert b"".join(passed) == chunk(b"one") + chunk(b"two")
        assert b"".join([piece async for piece in response]) == b"stopthree"


async def test_what_a_skimmer_raises_is_raised_to_the_reader() -> None:
    """A bug in whoever skims ends the answer, and not the process's other connections."""

    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.say(START + chunk(b"first"))
        await go.wait()
        await peer.say(chunk(b"one"))
        await peer.gone()

    def skim(content: bytes) -> bool:
        raise LookupError(content.decode())

    go = asyncio.Event()
    async with Server(serve).listening() as url, opened() as upstreams, upstreams.post(url, [], b"{}") as response:
        assert await response.more() == b"first"
        asyncio.get_running_loop().call_soon(go.set)
        await response.flow(lambda piece: Taken.GO_ON, (skim, lambda chunks: None))
        with pytest.raises(LookupError, match="one"):
            await response.more()


async def test_a_break_after_what_went_on_is_told() -> None:
    """An upstream that closes between two chunks broke off, though no parser saw the last of them."""

    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.say(START + chunk(b"first"))
        await go.wait()
        await peer.say(chunk(b"one"))

    passed: list[bytes] = []
    go = asyncio.Event()
    async with Server(serve).listening() as url, opened() as upstreams, upstreams.post(url, [], b"{}") as response:
        assert await response.more() == b"first"
        asyncio.get_running_loop().call_soon(go.set)
        await response.flow(lambda piece: Taken.NOT, (lambda content: True, passed.append))
        assert passed == [chunk(b"one")]
        with pytest.raises(Broken):
            await response.more()
