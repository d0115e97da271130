"""What a client's connection may do before a door hears of it: deadlines, bounds, one Host, whose word on addresses is believed.

Uvicorn's httptools protocol refuses what is no HTTP; this adds what it lets pass (measured: no Host or two, absolute-form targets, headers of any
size, peers that never end a request, `Transfer-Encoding` beside `Content-Length`).
"""

import asyncio
import ipaddress
import json
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from exchanges import Door, Exchange, Field

HEADER_SECONDS: Final = 10.0
"""How long a request's head may take, from its first byte, or from the connection's beginning."""
BODY_SECONDS: Final = 75.0
"""How long a body may take; the doors answer earlier that they wait no longer, this ends what they do not read."""
UNREAD_SECONDS: Final = 150.0
"""How long a client may take nothing of what is written to it; the inference road gives it up earlier."""
MOST_HEADERS: Final = 100
LARGEST_HEAD_BYTES: Final = 32 * 1024
LARGEST_TARGET_BYTES: Final = 8 * 1024
LARGEST_JOINED_BYTES: Final = 64 * 1024
"""The largest body that is copied behind its head: writing two pieces costs more."""
LARGEST_STRAIGHT_BODY_BYTES: Final = 64 * 1024
"""The largest body that is taken in for a door before it hears of the request: as much as is taken from anybody without proof."""
MOST_WAITING_OF_AN_ADDRESS: Final = 256
"""How many connections of one address may be without a whole request, however old: a farm of builds behind one address opens hundreds at once, and a
busy machine takes more than a second to hear them all. Beyond that the oldest goes, once it has had YOUNG_SECONDS."""
YOUNG_SECONDS: Final = 1.0
LOOK_SECONDS: Final = 1.0

SECONDS: Final = {"head": HEADER_SECONDS, "body": BODY_SECONDS, "unread": UNREAD_SECONDS}
CLIENT: Final = "tallygate.client"
"""Where the state of a WebSocket's scope holds the client, whom its own protocol does not know behind a proxy."""

Scope = dict[str, Any]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Refuse = Callable[[Scope, Any, Any, int, str], Awaitable[None]]
"""Answers a request that has a head with a status and a sentence, in the shape of the door that it came to."""
AtOnce = Callable[[bytes, bytes, list[Field]], tuple[bytes, bytes] | None]
"""Gives the answer to a GET or HEAD without a body, by method, target and header fields: a head without an end, and a body; None for most."""
Straight = Callable[[bytes, list[Field], str], Door | None]
"""Finds the door of a POST's target, header fields (without `content-length`) and client that is entered without ASGI; None for every other."""

_HOST = re.compile(rb"(?P<name>[a-z0-9]([a-z0-9_.-]{0,251}[a-z0-9])?\.?|\[[0-9a-f:.]{2,45}\])(:[0-9]{1,5})?", re.IGNORECASE)
_LENGTH = re.compile(rb"[0-9]{1,15}")


class Hosts:
    """The names under which this installation may be addressed.

    An address is always one: whoever rebinds a name to us cannot make a browser send an address. `localhost` is, too. `*.example.com` names all
    names below it, `*` every name.
    """

    def __init__(self, names: Iterable[str]) -> None:
        listed = [name.lower().rstrip(".") for name in names]
        self._names = frozenset(listed)
        self._below = tuple(name[1:] for name in listed if name.startswith("*."))

    def admits(self, host: bytes) -> bool:
        """Tell whether a Host field, with or without a port, names this installation."""
        found = _HOST.fullmatch(host)
        if found is None:
            return False
        name = found["name"].decode().lower().rstrip(".")
        return (
            name in self._names
            or name == "localhost"
            or _address(name.strip("[]")) is not None
            or "*" in self._names
            or (bool(self._below) and name.endswith(self._below))
        )


class Proxies:
    """The peers whose word on a client's address is believed: none, unless the operator names them."""

    def __init__(self, networks: Sequence[Network]) -> None:
        self._networks = tuple(networks)

    def trusts(self, address: str) -> bool:
        """Tell whether an address belongs to a proxy of ours."""
        if not self._networks:
            return False
        parsed = _address(address)
        return parsed is not None and any(parsed in network for network in self._networks if network.version == parsed.version)

    def client(self, peer: str, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """Return the client's address as a trusted peer tells it, or the peer's own.

        Each proxy appends whom it heard from, so the list is read from its end as long as proxies of ours wrote it. A peer that sends both fields, `Forwarded`
        (RFC 7239) and `X-Forwarded-For`, is believed only where both say the same: one of them came from somebody else.
        """
        plain = [value.decode("latin-1") for name, value in headers if name == b"x-forwarded-for"]
        standard = [value.decode("latin-1") for name, value in headers if name == b"forwarded"]
        told = []
        if plain:
            told.append(self._nearest(peer, [entry for line in plain for entry in line.split(",")]))
        if standard:
            told.append(self._nearest(peer, [_for(entry) for line in standard for entry in line.split(",")]))
        return told[0] if told and told[0] == told[-1] else peer

    def _nearest(self, peer: str, entries: list[str]) -> str:
        believed = peer
        for entry in reversed(entries):
            address = _address(_without_port(entry))
            if address is None:
                break
            believed = str(address)
            if not self.trusts(believed):
                break
        return believed


def _for(entry: str) -> str:
    for pair in entry.split(";"):
        name, _, value = pair.strip().partition("=")
        if name.strip().lower() == "for":
            return value.strip().strip('"')
    return ""


def _without_port(entry: str) -> str:
    entry = entry.strip()
    if entry.startswith("["):
        return entry[1:].partition("]")[0]
    return entry.partition(":")[0] if entry.count(":") == 1 else entry


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        parsed = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return parsed.ipv4_mapped or parsed if isinstance(parsed, ipaddress.IPv6Address) else parsed


class Waiting:
    """The connections of a process that owe something: a head, a body, or taking what was written. One look a second for all of them.

    Those of one address are counted while they owe a head or a body, because that is how few addresses hold many connections.
    """

    def __init__(self) -> None:
        self._until: dict[Connection, tuple[float, float, bool]] = {}
        self._of_address: dict[str, dict[Connection, float]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def owes(self, connection: "Connection", seconds: float, *, counted: bool) -> None:
        """Note that a connection has this long to do what it owes; what it owed before is forgotten."""
        now = time.monotonic()
        self._until[connection] = (now + seconds, now, counted)
        if counted and connection.address is not None:
            alike = self._of_address.setdefault(connection.address, {})
            alike.setdefault(connection, now)
            if len(alike) > MOST_WAITING_OF_AN_ADDRESS:
                oldest, since = next(iter(alike.items()))
                if now - since >= YOUNG_SECONDS:
                    oldest.give_up()
        if self._timer is None:
            self._timer = connection.loop.call_later(LOOK_SECONDS, self._look, connection.loop)

    def done(self, connection: "Connection") -> None:
        """Note that a connection owes nothing."""
        if self._until.pop(connection, None) is None:
            return
        alike = self._of_address.get(connection.address or "")
        if alike is not None and alike.pop(connection, None) is not None and not alike:
            del self._of_address[connection.address or ""]

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = time.monotonic()
        for connection in [connection for connection, (until, _, _) in self._until.items() if until <= now]:
            connection.give_up()
        self._timer = loop.call_later(LOOK_SECONDS, self._look, loop) if self._until else None


class Connection(HttpToolsProtocol):
    """One connection of a client; `guarded` makes the class that a server uses, with its hosts, proxies, way of refusing, and doors without ASGI."""

    hosts: Hosts
    proxies: Proxies
    refuse: Refuse
    waiting: Waiting
    seconds: Mapping[str, float]
    straight: Straight | None
    at_once: AtOnce | None

    address: str | None = None
    _exchange: Exchange | None = None
    _answered = False
    _idle_since: float | None = None
    _known: tuple[bytes, list[Field], Door] | None = None
    _trusted = False
    _in_head = False
    _in_body = False
    _stalled = False
    _owed: tuple[str, int] | None = None
    _requests = 0
    _head_bytes = 0
    _refused: tuple[int, str] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Begin to wait for the first request's head."""
        super().connection_made(transport)
        if self.client is not None:
            address = _address(self.client[0])
            peer = str(address) if address is not None else self.client[0]
            self.client = (peer, self.client[1])
            self._trusted = self.proxies.trusts(peer)
            self.address = None if self._trusted else peer  # a proxy speaks for many
        self._note()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self.waiting.done(self)
        self._known = None
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None
        super().connection_lost(exc)
        if self._exchange is not None:
            exchange, self._exchange = self._exchange, None
            exchange.lost()

    # How long an idle connection is kept: one timer that looks again when there was a request meanwhile, and not one for each request.

    def _unset_keepalive_if_required(self) -> None:
        self._idle_since = None

    def on_response_complete(self) -> None:
        """Go on to the next request, or wait for one."""
        self._exchange = None
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
            return
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self._look_idle)

    def _look_idle(self) -> None:
        self.timeout_keep_alive_task = None
        if self._idle_since is None or self.transport.is_closing():
            return
        rest = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if rest > 0:
            self.timeout_keep_alive_task = self.loop.call_later(rest, self._look_idle)
        else:
            self.transport.close()

    def give_up(self) -> None:
        """End a connection that did not do in time what it owed; what of a request is there, is dropped."""
        self.waiting.done(self)
        if self._in_head and not self._stalled and not self.transport.is_closing():
            self._answer(408, "The head of the request did not come whole in time.")
        else:
            self.transport.abort()

    def _note(self) -> None:
        """Tell what is owed now, when that is something else than before; a request that comes whole at once never owes anything."""
        kind = None
        if self._stalled:
            kind = "unread"
        elif self._in_head:
            kind = "head"
        elif self._in_body:
            kind = "body"
        elif (self.cycle is None or self.cycle.response_complete) and self._idle_since is None:
            kind = "head"  # nothing yet, or bytes that begin nothing
        owed = None if kind is None else (kind, self._requests)
        if owed == self._owed:
            return
        self._owed = owed
        if kind is None:
            self.waiting.done(self)
        else:
            self.waiting.owes(self, self.seconds[kind], counted=kind != "unread")

    def data_received(self, data: bytes) -> None:
        """Feed the parser; then see whether something of a request is still to come."""
        self._unset_keepalive_if_required()
        if self.transport.is_closing():
            return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._upgrade()
            return
        except httptools.HttpParserError:
            self._answer(*(self._refused or (400, "This is no request of HTTP/1.1.")))
            return
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > LARGEST_HEAD_BYTES:
                self._answer(431, f"The head of a request has at most {LARGEST_HEAD_BYTES // 1024} KiB.")
                return
        self._note()

    def _upgrade(self) -> None:
        if not self._should_upgrade():
            self._note()  # another protocol is never taken: the request is answered as it stands
        elif self._refused is not None:
            self._answer(*self._refused)
        else:
            self.waiting.done(self)
            self.app_state = {**self.app_state, CLIENT: self.scope["client"]}
            self.handle_websocket_upgrade()

    def _answer(self, status: int, message: str) -> None:
        """Answer on the wire, where no request is that a door could answer, and close."""
        self.waiting.done(self)
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if cycle.response_started or self.pipeline or not self._in_body:
                self.transport.abort()  # the answer of a request before is under way: words of ours would be taken for it
                return
            cycle.disconnected = True  # this very request broke off in its body: its door hears that the client is gone
            cycle.message_event.set()
        body = json.dumps({"error": message}).encode()
        head = b"content-type: application/json\r\ncache-control: no-store\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[status] + head + body)
        self.transport.close()

    # Callbacks of the parser.

    def on_message_begin(self) -> None:
        """A head begins."""
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        self._requests += 1
        self._in_head, self._in_body, self._refused = True, False, None
        self._head_bytes = self._count = self._size = 0

    def on_url(self, url: bytes) -> None:
        """A part of the target."""
        super().on_url(url)
        if len(self.url) > LARGEST_TARGET_BYTES:
            self._stop(414, f"The target of a request has at most {LARGEST_TARGET_BYTES // 1024} KiB.")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header field."""
        name = name.lower()
        self.headers.append((name, value))
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self._count += 1
        self._size += len(name) + len(value) + 4
        if self._count > MOST_HEADERS or self._size > LARGEST_HEAD_BYTES:
            self._stop(431, f"A request has at most {MOST_HEADERS} header fields, of {LARGEST_HEAD_BYTES // 1024} KiB in all.")

    def _stop(self, status: int, message: str) -> None:
        self._refused = (status, message)
        raise ValueError(message)  # the parser stops, and says so to `data_received`

    def on_headers_complete(self) -> None:
        """The head is whole: look at what the parser lets pass, then let a door have it, or the refusal."""
        self._in_head, self._in_body = False, True
        if self.at_once is not None and self._answers_at_once(self.at_once):
            return
        if self.straight is not None and self._goes_straight():
            return
        self._begin_scope()
        self._refused = self._fault()
        if self._trusted and self.client is not None:
            self.scope["client"] = (self.proxies.client(self.client[0], self.headers), 0)
        if self._refused is None or (self.parser.should_upgrade() and self._should_upgrade()):
            super().on_headers_complete()
            return
        status, message = self._refused
        door, refuse = self.app, self.refuse

        async def refusing(scope: Any, receive: Any, send: Any) -> None:
            await refuse(scope, receive, send, status, message)

        if not self.url.startswith(b"/"):
            self.url = b"/"  # whatever else it is, no door has it
        self.app = refusing
        try:
            super().on_headers_complete()
        finally:
            self.app = door
        self.cycle.keep_alive = False

    def _begin_scope(self) -> None:
        url, expect, headers = self.url, self.expect_100_continue, self.headers
        super().on_message_begin()  # makes the scope, around a list of its own
        self.url, self.expect_100_continue, self.headers = url, expect, headers
        self.scope["headers"] = headers
        self.scope.setdefault("extensions", {})["tallygate.cut"] = {"cut": self.cut}

    def cut(self) -> None:
        """Close after what was written, in the middle of an answer."""
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
        self.transport.close()

    def _answers_at_once(self, at_once: AtOnce) -> bool:
        """Write the answer to a request where there is one already, given before to the same head by the long way, which has proved it."""
        parser, cycle, method = self.parser, self.cycle, self.parser.get_method()
        if (cycle is not None and not cycle.response_complete) or self._stalled or method not in (b"GET", b"HEAD"):
            return False
        found = at_once(method, self.url, self.headers)
        if found is None or parser.get_http_version() != "1.1" or not parser.should_keep_alive():
            return False
        head, body = found
        head = b"".join((head, *(b"%b: %b\r\n" % field for field in self.server_state.default_headers), b"\r\n"))
        if len(body) <= LARGEST_JOINED_BYTES:
            self.transport.write(head + body)
        else:
            self.transport.writelines((head, body))
        self._answered = True
        return True

    def _goes_straight(self) -> bool:
        """Let a door have the request without ASGI, where there is one for it and the request is of the plainest shape; anything unusual takes the long way.

        A connection's requests mostly differ in their bodies alone, so that what was found for a head is kept for the next with the same fields.
        """
        parser, cycle, straight = self.parser, self.cycle, self.straight
        assert straight is not None
        if (cycle is not None and not cycle.response_complete) or self.expect_100_continue or parser.get_method() != b"POST":
            return False
        fields = [field for field in self.headers if field[0] != b"content-length"]
        if len(fields) != len(self.headers) - 1 or parser.should_upgrade() or parser.get_http_version() != "1.1":
            return False
        length = next(value for name, value in self.headers if name == b"content-length")
        if not _LENGTH.fullmatch(length) or int(length) > LARGEST_STRAIGHT_BODY_BYTES:
            return False
        known = self._known
        if known is None or known[0] != self.url or known[1] != fields:
            self._known = None
            if self._fault() is not None or self.client is None:
                return False
            door = straight(self.url, fields, self.proxies.client(self.client[0], fields) if self._trusted else self.client[0])
            if door is None:
                return False
            known = self._known = (self.url, fields, door)
        self._exchange = Exchange(self, self.flow, known[2], keep_alive=parser.should_keep_alive())
        self.cycle = self._exchange  # type: ignore[assignment]  # it has what uvicorn looks at in a cycle
        return True

    def on_body(self, body: bytes) -> None:
        """A part of a body."""
        exchange = self._exchange
        if exchange is not None and exchange.more_body:
            exchange.body = exchange.body + body if exchange.body else body
        else:
            super().on_body(body)

    def _fault(self) -> tuple[int, str] | None:
        hosts, lengths, codings = [], [], []
        for name, value in self.headers:
            if name == b"host":
                hosts.append(value)
            elif name == b"content-length":
                lengths.append(value)
            elif name == b"transfer-encoding":
                codings.append(value.strip().lower())
        if self.parser.get_http_version() not in ("1.0", "1.1"):
            return 400, "This is no request of HTTP/1.1."
        if not self.url.startswith(b"/"):
            return 400, "The target of a request is a path here, and begins with a slash."
        if len(hosts) != 1:
            return 400, "A request has exactly one Host field."
        if lengths and (codings or len(lengths) > 1 or not _LENGTH.fullmatch(lengths[0])):
            return 400, "The length of the body is told in one way, by one number."
        if codings and (codings != [b"chunked"] or self.parser.get_http_version() != "1.1"):
            return 400, "The only transfer coding here is `chunked`, once."
        if not self.hosts.admits(hosts[0]):
            return 421, "This server does not answer under that Host. Its operator names those that it answers under in TALLYGATE_HOSTS."
        return None

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._in_body = False
        if self._answered:
            self._answered = False
            self.on_response_complete()
            return
        exchange = self._exchange
        if exchange is not None and exchange.more_body:
            exchange.more_body = False
            exchange.door(exchange)
        else:
            super().on_message_complete()

    # What the transport says of the other direction.

    def pause_writing(self) -> None:
        """The client takes nothing any more."""
        super().pause_writing()
        self._stalled = True
        if self._exchange is not None:
            self._exchange.paused = True
        self._note()

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        self._stalled = False
        if self._exchange is not None:
            self._exchange.paused = False
        self._note()


def guarded(
    hosts: Hosts,
    proxies: Proxies,
    refuse: Refuse,
    *,
    straight: Straight | None = None,
    at_once: AtOnce | None = None,
    seconds: Mapping[str, float] = SECONDS,
) -> type[Connection]:
    """Return the protocol of a server that answers under `hosts`, believes `proxies`, refuses by `refuse`, and has the doors of `straight` besides.

    What `at_once` has an answer for goes through no door. `seconds` are the deadlines of a head, of a body, and for a client that takes nothing.
    """
    own = {
        "hosts": hosts,
        "proxies": proxies,
        "refuse": staticmethod(refuse),
        "waiting": Waiting(),
        "seconds": seconds,
        "straight": None if straight is None else staticmethod(straight),
        "at_once": None if at_once is None else staticmethod(at_once),
    }
    return type("GuardedConnection", (Connection,), own)
