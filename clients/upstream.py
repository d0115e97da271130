"""Model providers, over HTTP/1.1: kept connections, no cookies, no redirects, no decompression, and a bound on every wait.

A connection is an asyncio protocol with a parser, and no task, timer or stream object of its own: one look a second for all of them bounds every wait,
and a call costs a fraction of what a general client takes (`python -m bench.clients`).
"""

import asyncio
import select
import socket
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import cast

import aiohappyeyeballs
import httptools

from clients.chunks import FOLLOWING, GO_ON, Pass, Sink, Skim, skimmed
from clients.origins import Field, Origin, target_of
from domain.outside import before_calling
from domain.serving.routing import Waits

CONNECT_SECONDS = 10.0
FIRST_BYTE_SECONDS = 600.0
BETWEEN_BYTES_SECONDS = 300.0
KEPT_SECONDS = 15.0
"""How long a connection is kept for the next call: less than servers keep theirs, so that few are closed under our hands."""
STALE_SECONDS = 2.0
"""How soon after a request a kept connection breaks that the server had given up before: within one round trip. What breaks later may have been served."""
UNTOUCHED_SECONDS = 1.0
"""How long a connection was idle when it is looked at before its next use: whether the server has closed it meanwhile."""
NAMES_SECONDS = 60.0
OTHER_ADDRESS_SECONDS = 0.25
"""How long an address may stay silent before the next one of the same name is tried beside it (RFC 8305, section 5)."""
LARGEST_HEAD_BYTES = 128 * 1024
"""How much an upstream may send that is no body: status, header fields, chunk sizes, trailers."""
BUFFER_BYTES = 256 * 1024
"""How much of a body waits for a reader that is slow, before the upstream is read no further."""
ONE_PIECE_BYTES = 64 * 1024


class Broken(Exception):
    """An upstream that closed the connection, or that speaks no HTTP that can be relied on; the message says what, and nothing of a call."""


class _Closed(Broken):
    """A connection that was closed before a byte of the answer came."""


class _Unsent(_Closed):
    """A connection that was closed before a byte of the request left."""


BROKEN = (Broken, TimeoutError, OSError)
"""What a provider that is away, slow (TimeoutError) or broken raises."""


class Response:
    """An answer whose header has come; its body comes by `async for`, in pieces as they arrive, or whole by `read`.

    `headers` are in order, names in lower case. Both ways of reading raise one of BROKEN.
    """

    __slots__ = ("_connection", "headers", "status")

    def __init__(self, status: int, headers: list[Field], connection: "_Connection") -> None:
        self.status = status
        self.headers = headers
        self._connection = connection

    def header(self, name: bytes) -> bytes:
        """Return the first value of a field, empty when there is none; the name in lower case."""
        return next((value for field, value in self.headers if field == name), b"")

    async def read(self, most: int) -> bytes | None:
        """Return what is left of the body, or None when it has more bytes than `most`."""
        body = await self._connection.more()
        if self._connection.whole:
            return body if len(body) <= most else None
        parts, size = [body], len(body)
        while size <= most:
            part = await self._connection.more()
            if not part:
                return b"".join(parts)
            parts.append(part)
            size += len(part)
        return None

    async def flow(self, sink: Sink, direct: tuple[Skim, Pass] | None = None) -> None:
        """Hand each piece of the body over at the moment when it arrives, until one is not taken, or the last that is wanted was, or the body ends or breaks.

        Where the body is chunked, whole chunks are offered to the first of `direct`; what it reads goes to the second, as it came, and no further. What was
        not taken is read as before; an end and a break are told to who reads on. None of them may wait, and what they raise is raised to the reader.
        """
        await self._connection.flow(sink, direct)

    async def more(self) -> bytes:
        """Return the next piece of the body, empty at its end."""
        return await self._connection.more()

    def __aiter__(self) -> "Response":
        return self

    async def __anext__(self) -> bytes:
        data = await self._connection.more()
        if not data:
            raise StopAsyncIteration
        return data


class _Connection(asyncio.Protocol):
    """One connection, with at most one request under way."""

    def __init__(self, upstreams: "Upstreams", origin: Origin, loop: asyncio.AbstractEventLoop) -> None:
        self._upstreams = upstreams
        self._loop = loop
        self.origin = origin
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._first = self._between = 0.0
        self._reused = False
        self._lost = self._spoiled = False
        self._idle_at = 0.0
        self.asked = False
        self._paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._sink: Sink | None = None
        self._offered: tuple[Skim, Pass] | None = None
        self._direct: tuple[Skim, Pass] | None = None
        self._heard = False

    # A request.

    def ask(self, head: bytes, body: bytes, waits: Waits) -> "asyncio.Future[Response]":
        """Send a request; the answer is there when its header has come."""
        self._first, self._between = waits.first_byte_seconds, waits.idle_seconds
        self._answered: asyncio.Future[Response] = self._loop.create_future()
        self._fields: list[Field] = []
        self._parts: list[bytes] = []
        self._size = self._unmeant = 0
        self._error: Exception | None = None
        self._done = self._to_the_end = self._interim = self._chunk_over = self._between_chunks = False
        self._ask_at = self._heard_at = self._loop.time()
        self._heard = False
        self.asked = True
        if self._lost or self._transport is None:
            self._fail(_Unsent("the connection was closed"))
            return self._answered
        if len(body) <= ONE_PIECE_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)
        return self._answered

    @property
    def whole(self) -> bool:
        """Whether the body has come to its end, and all of it was taken."""
        return self._done and not self._parts

    @property
    def stale(self) -> bool:
        """Whether a kept connection broke so that the server cannot have begun to serve the request, as far as that can be told."""
        return self._reused and self._loop.time() - self._ask_at < STALE_SECONDS

    @property
    def usable(self) -> bool:
        """Whether the server still keeps an idle connection, as far as we can see from here."""
        if self._lost or self._spoiled or self._transport is None or self._transport.is_closing():
            return False
        if self._loop.time() - self._idle_at < UNTOUCHED_SECONDS:
            return True
        watch = select.poll()  # bytes or an end, which the loop has not come round to yet
        watch.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)
        return not watch.poll(0)

    def idle_since(self) -> float:
        """Return since when the connection is idle, by the loop's clock."""
        return self._idle_at

    async def more(self) -> bytes:
        """Return what has come of the body since the last time, waiting for something; empty at its end."""
        while True:
            if self._parts:
                parts = self._parts
                data = parts[0] if len(parts) == 1 else b"".join(parts)
                parts.clear()
                self._size = 0
                if self._paused and self._transport is not None and not self._lost:
                    self._paused = False
                    self._heard_at = self._loop.time()
                    self._transport.resume_reading()
                return data
            if self._error is not None:
                raise self._error
            if self._done:
                return b""
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    async def flow(self, sink: Sink, direct: tuple[Skim, Pass] | None) -> None:
        """Let what comes of the body go to a sink; return when there is something to read, or an end."""
        if self._parts or self._done or self._error is not None:
            return
        self._sink, self._waiter, self._offered = sink, self._loop.create_future(), direct
        self._direct = direct if self._between_chunks else None
        try:
            await self._waiter
        finally:
            self._sink = self._waiter = self._offered = self._direct = None

    def _hand_over(self, sink: Sink, parts: list[bytes]) -> None:
        try:
            taken = sink(parts[0] if len(parts) == 1 else b"".join(parts))
        except Exception as error:
            self._fail(error)
            return
        if taken:
            parts.clear()
            self._size = 0
        if taken is not GO_ON:
            self._sink = self._offered = None
            self._wake()

    def leave(self) -> None:
        """End the request: a connection whose answer was whole is kept, any other is closed, and with it what the upstream still does."""
        self.asked = False
        if self._done and self._error is None and not self._spoiled and not self._lost:
            if self._paused and self._transport is not None:
                self._transport.resume_reading()
                self._paused = False
            self._reused = True
            self._idle_at = self._loop.time()
            self._upstreams.keep(self)
        else:
            self.abort()

    def abort(self) -> None:
        """Close at once."""
        self._spoiled = True
        if self._transport is not None and not self._lost:
            self._transport.abort()

    def look(self, now: float) -> None:
        """End a wait that has become too long; called about once a second. A reader of ours that is slow is not the upstream's fault."""
        if self._done or self._error is not None:
            return
        if not self._answered.done():
            if now - self._ask_at > self._first:
                self._fail(TimeoutError())
        elif self._heard:
            self._heard, self._heard_at = False, now
        elif not self._paused and now - self._heard_at > self._between:
            self._fail(TimeoutError())

    def _fail(self, error: Exception) -> None:
        self._offered = self._direct = None
        if self._error is None:
            self._error = error
        if not self._answered.done():
            self._answered.set_exception(self._error)
        self._wake()
        self.abort()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class is no subclass of it

    def data_received(self, data: bytes) -> None:
        direct = self._direct
        if direct is not None:
            skim, let_pass = direct
            line, _, rest = data.partition(b"\r\n")
            try:
                if len(rest) == FOLLOWING[line]:
                    if skim(rest):
                        self._heard = True
                        let_pass(data)
                        return
                elif begun := skimmed(data, skim):
                    self._heard = True
                    let_pass(data[:begun])
                    data = data[begun:]
                    if not data:
                        return
            except Exception as error:
                self._fail(error)
                return
        if not self.asked:  # an idle connection has nothing to say
            self.abort()
            return
        if self._error is not None or self._spoiled:
            return
        self._heard_at = self._loop.time()
        self._unmeant += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if not self._done:
                self._fail(Broken("the upstream speaks no HTTP that can be relied on"))
                return
            self._spoiled = True  # what comes after the end harms only the connection
        if self._unmeant > LARGEST_HEAD_BYTES and not self._done and self._error is None:
            self._fail(Broken("the upstream's header is too large"))
            return
        self._between_chunks = self._chunk_over and data.endswith(b"\r\n")
        if self._sink is not None and self._parts:
            self._hand_over(self._sink, self._parts)
        self._direct = self._offered if self._between_chunks else None
        if self._size > BUFFER_BYTES and not self._paused and not self._done and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        if self._waiter is not None and (self._parts or self._done) and not self._waiter.done():
            self._waiter.set_result(None)

    def eof_received(self) -> None:
        self._ended()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._upstreams.forget(self)
        if self.asked and not self._done and self._error is None:
            if exc is None:
                self._ended()
            else:
                self._fail(_Closed("the connection was reset") if self._untouched else Broken("the connection was reset"))

    @property
    def _untouched(self) -> bool:
        """Whether not one byte of the answer has come."""
        return not self._answered.done() and not self._fields and not self._unmeant

    def _ended(self) -> None:
        """The upstream will send no more: the end of a body that has no other, and a break before any other's end."""
        if not self.asked or self._done or self._error is not None:
            self._spoiled = True
        elif self._to_the_end:
            self._done = self._spoiled = True
            self._wake()
        else:
            self._fail(_Closed("the upstream closed the connection") if self._untouched else Broken("the upstream broke off"))

    # What the parser calls. Nothing here may raise: the parser would wrap it.

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header field; trailers are nobody's."""
        if not self._answered.done():
            self._fields.append((name.lower(), value))

    def on_message_begin(self) -> None:
        """Begin an answer; a second one on a connection that answers one request is not ours."""
        if self._done:
            self._spoiled = True

    def on_headers_complete(self) -> None:
        """Give the answer to who asked; interim answers are not it (RFC 9110, section 15.2)."""
        if self._done or self._answered.done():
            return
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            self._interim = True
            if status == 101:
                self._fail(Broken("the upstream wants another protocol"))
            return
        self._interim = False
        framed = status in (204, 304)
        for name, value in self._fields:
            if name == b"content-length":
                framed = True
            elif name == b"transfer-encoding":
                if value.strip().lower() != b"chunked":
                    self._fail(Broken("the upstream's transfer encoding is unknown"))
                    return
                framed = True
            elif name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
                self._fail(Broken("the upstream encodes what was not to be encoded"))
                return
        self._to_the_end = not framed
        self._answered.set_result(Response(status, self._fields, self))

    def on_body(self, data: bytes) -> None:
        """Keep a piece of the body."""
        if self._answered.done() and not self._done:
            self._unmeant = 0
            self._parts.append(data)
            self._size += len(data)

    def on_chunk_header(self) -> None:
        """Begin a chunk."""
        self._chunk_over = False

    def on_chunk_complete(self) -> None:
        """End a chunk."""
        self._chunk_over = True

    def on_message_complete(self) -> None:
        """End the body."""
        self._chunk_over = False
        if self._interim:
            self._fields = []
        elif self._answered.done() and not self._done:
            self._done = True
            self._spoiled = self._spoiled or not self._parser.should_keep_alive()  # only known here


class _Exchange:
    """A request and its answer, as a context."""

    __slots__ = ("_body", "_connection", "_head", "_origin", "_stale", "_upstreams", "_waits")

    def __init__(self, upstreams: "Upstreams", origin: Origin, head: bytes, body: bytes, waits: Waits, stale: Callable[[], None] | None) -> None:
        self._stale = stale
        self._waits = waits
        self._upstreams = upstreams
        self._origin = origin
        self._head = head
        self._body = body
        self._connection: _Connection | None = None

    async def __aenter__(self) -> Response:
        kept = self._upstreams.kept(self._origin)
        if kept is not None:
            try:
                return await self._ask(kept)
            except _Unsent:
                pass  # nobody has heard of the request
            except _Closed:
                if self._stale is None or not kept.stale:
                    raise
                self._stale()
        # a new connection that breaks may have been served, and billed: it is not tried again
        return await self._ask(await self._upstreams.connect(self._origin, self._waits.connect_seconds))

    async def _ask(self, connection: _Connection) -> Response:
        self._connection = connection
        self._upstreams.busy.add(connection)
        try:
            return await connection.ask(self._head, self._body, self._waits)
        except BaseException:
            self._leave()
            raise

    def _leave(self) -> None:
        if self._connection is not None:
            self._upstreams.busy.discard(self._connection)
            self._connection.leave()
            self._connection = None

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._leave()


class Upstreams:
    """Sends requests to providers; opened once for a process, inside its loop. Times are in seconds.

    `tls` proves the providers' certificates; without one, by the system's authorities.
    """

    def __init__(
        self,
        *,
        connect_seconds: float = CONNECT_SECONDS,
        first_byte_seconds: float = FIRST_BYTE_SECONDS,
        between_bytes_seconds: float = BETWEEN_BYTES_SECONDS,
        kept_seconds: float = KEPT_SECONDS,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._waits = Waits(connect_seconds, first_byte_seconds, between_bytes_seconds)
        self.kept_seconds = kept_seconds
        self.busy: set[_Connection] = set()
        self._tls = tls
        self._idle: dict[Origin, deque[_Connection]] = {}
        self._names: dict[Origin, tuple[float, list[aiohappyeyeballs.AddrInfoType]]] = {}
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._look_every = max(min(1.0, first_byte_seconds / 4, between_bytes_seconds / 4, kept_seconds / 4), 0.01)
        self._looking = self._loop.call_later(self._look_every, self._look)

    def post(self, url: str, headers: Sequence[Field], body: bytes, waits: Waits | None = None, *, stale: Callable[[], None] | None = None) -> _Exchange:
        """Send a request, as a context that gives its answer when the header has come; leaving it closes what was not read.

        `waits` None takes the waits that this object was made with. They are looked at about once a second.

        `url` comes from configuration. `host`, `content-length` and `accept-encoding` are ours; `headers` must not have them. A kept connection that the
        server had closed is replaced once: when no byte of the request had left; or, where `stale` is given, when not a byte of an answer came, and so
        soon that the request was hardly served. `stale` is called before that second sending, to put the first on record, because nobody can prove that
        the server did not read it. Raises one of BROKEN, and ValueError for a header field of more than one line.
        """
        before_calling("an upstream")
        target = target_of(url)
        lines = [target.start]
        for name, value in headers:
            lines += (name, b": ", value, b"\r\n")
        lines.append(b"content-length: %d\r\n\r\n" % len(body))
        head = b"".join(lines)
        if head.count(b"\n") != len(headers) + 5 or head.count(b"\r") != len(headers) + 5 or b"\0" in head:
            raise ValueError("a header field has more than one line")
        return _Exchange(self, target.origin, head, body, waits or self._waits, stale)

    def kept(self, origin: Origin) -> _Connection | None:
        """Take the connection to an origin that was used last, if there is one; the others grow old, and are closed."""
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if connection.usable:
                return connection
            connection.abort()
        return None

    def keep(self, connection: _Connection) -> None:
        """Keep a connection for the next request."""
        if self._closed:
            connection.abort()
            return
        idle = self._idle.get(connection.origin)
        if idle is None:
            idle = self._idle[connection.origin] = deque()
        idle.append(connection)

    def forget(self, connection: _Connection) -> None:
        """Take note that a connection is closed."""
        if not connection.asked and (idle := self._idle.get(connection.origin)) is not None and connection in idle:
            idle.remove(connection)

    async def connect(self, origin: Origin, seconds: float) -> _Connection:
        """Open a connection, and prove whom it leads to; raises one of BROKEN."""
        try:
            async with asyncio.timeout(seconds):
                addresses = await self._addresses(origin)
                sock = await aiohappyeyeballs.start_connection(addresses, happy_eyeballs_delay=OTHER_ADDRESS_SECONDS, interleave=1, loop=self._loop)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                _, connection = await self._loop.create_connection(
                    lambda: _Connection(self, origin, self._loop),
                    sock=sock,
                    ssl=self._context() if origin.secure else None,
                    server_hostname=origin.host if origin.secure else None,
                )
                return connection
        except OSError:
            self._names.pop(origin, None)
            raise
        except UnicodeError:  # a label that no name may have
            raise Broken("the upstream has no name") from None

    async def _addresses(self, origin: Origin) -> list[aiohappyeyeballs.AddrInfoType]:
        known = self._names.get(origin)
        if known is not None and known[0] > self._loop.time():
            return known[1]
        found = cast(list[aiohappyeyeballs.AddrInfoType], await self._loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP))
        self._names[origin] = (self._loop.time() + NAMES_SECONDS, found)
        return found

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls

    def _look(self) -> None:
        now = self._loop.time()
        for connection in list(self.busy):
            connection.look(now)
        for origin, idle in list(self._idle.items()):
            while idle and now - idle[0].idle_since() > self.kept_seconds:
                idle.popleft().abort()
            if not idle:
                del self._idle[origin]
        self._looking = self._loop.call_later(self._look_every, self._look)

    async def close(self) -> None:
        """Close every connection."""
        self._closed = True
        self._looking.cancel()
        for connection in [*self.busy, *(connection for idle in self._idle.values() for connection in list(idle))]:
            connection.abort()
        self._idle.clear()
        await asyncio.sleep(0)
