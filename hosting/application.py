"""The hosting: answers visitors of apps, each app on its own origin. It knows no credential, sets no cookie, and has nothing of the API."""

import http
import random
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from uuid import UUID

import structlog

from domain.apps import sites
from domain.apps.addresses import Addresses, Site
from domain.apps.blobs import Blob, Store
from domain.apps.sites import Served, SiteFile, Sites
from domain.errors import Unavailable
from hosting import answers
from hosting.answers import Answer, Fields, Rules
from models.database import CONTENDED, UNREACHABLE
from models.ids import uuid7

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
K = TypeVar("K")
V = TypeVar("V")

MOST_TABLES = 500
MOST_FILES = 200_000
"""How many files of how many deployments are known by heart; a deployment never changes."""
CACHE_BYTES = 64 * 1024 * 1024
MOST_READY = 20_000
READY_BYTES = 32 * 1024 * 1024
MOST_RULES = 500
PLAIN: Fields = [
    (b"content-type", b"text/plain; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]

STATUS_LINES = {status: f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}\r\n".encode() for status in (200, 304)}
SLOW = frozenset({b"range", b"content-length", b"transfer-encoding", b"expect", b"upgrade", b"connection"})
"""Fields of a request that is never answered at once."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Ready:
    """An answer that was given before: to whom nothing has changed since, it is given again."""

    site: Site
    served: Served
    head: bytes
    body: bytes


class Lately(Generic[K, V]):
    """The values used last, up to a number and a weight."""

    def __init__(self, most: int, heaviest: int) -> None:
        self._most, self._heaviest, self._weight = most, heaviest, 0
        self._kept: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def get(self, key: K) -> V | None:
        """Return a value and remember that it was used."""
        found = self._kept.get(key)
        if found is None:
            return None
        self._kept.move_to_end(key)
        return found[0]

    def put(self, key: K, value: V, weight: int) -> None:
        """Keep a value in the place of those that were not used for the longest time."""
        if key in self._kept:
            self._weight -= self._kept.pop(key)[1]
        self._kept[key] = (value, weight)
        self._weight += weight
        while self._kept and (len(self._kept) > self._most or self._weight > self._heaviest):
            self._weight -= self._kept.popitem(last=False)[1][1]


@dataclass(slots=True)
class Question:
    """What a request turned out to ask for, and what that showed."""

    site: Site | None = None
    served: Served | None = None


class Hosting:
    """The ASGI application; `api` is the origin of the gateway, which pages may call, and `base_url` its address."""

    def __init__(self, store: Store, addresses: Addresses, api: str, base_url: str) -> None:
        self._store = store
        self._addresses = addresses
        self._api = api
        self._base_url = base_url
        self._sites = Sites()
        self._tables: Lately[UUID, dict[str, SiteFile]] = Lately(MOST_TABLES, MOST_FILES)
        self._content: Lately[tuple[UUID, str | None], bytes] = Lately(100_000, CACHE_BYTES)
        self._rules: Lately[tuple[str, str], Rules] = Lately(MOST_RULES, 1 << 62)
        self._ready: Lately[tuple[bytes, bytes, bytes | None, bytes | None], Ready] = Lately(MOST_READY, READY_BYTES)
        self._always: Fields = [(b"strict-transport-security", b"max-age=31536000")] if addresses.scheme == "https" else []

    def at_once(self, method: bytes, target: bytes, fields: Fields) -> tuple[bytes, bytes] | None:
        """Return the answer to a request without a body, its head without an end, and its body; None where it has to be looked for.

        It is one that the application gave before to the same question, while the app shows what it showed then.
        """
        host = accepted = unless = None
        for name, value in fields:
            if name == b"host":
                if host is not None:
                    return None
                host = value
            elif name == b"accept-encoding":
                accepted = value
            elif name == b"if-none-match":
                unless = value
            elif name in SLOW and (name != b"connection" or value.lower() != b"keep-alive"):
                return None
        if host is None:
            return None
        ready = self._ready.get((host, target, accepted, unless))
        if ready is None or self._sites.known(ready.site) is not ready.served:
            return None
        return b"%bx-request-id: %b\r\n" % (ready.head, _request_id()), ready.body if method == b"GET" else b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; a websocket is refused."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        question = Question()
        try:
            found = await self._answer(scope, headers, question)
        except (*UNREACHABLE, *CONTENDED) as error:
            log.warning("hosting without its database", error=type(error).__name__)
            found = _plain(503, "This app cannot be served right now.", (b"retry-after", b"2"))
        lasting = [*found.fields, *self._always]
        fields = [*lasting, (b"x-request-id", str(uuid7()).encode())]
        if found.blob is None:
            if found.status == 304:
                self._keep(scope, headers, question, found.status, lasting, b"")
            if found.status not in (304, 416):
                fields.append((b"content-length", str(len(found.text)).encode()))
            await send({"type": "http.response.start", "status": found.status, "headers": fields})
            await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else found.text})
            return
        if scope["method"] == "HEAD":
            await send({"type": "http.response.start", "status": found.status, "headers": fields})
            await send({"type": "http.response.body", "body": b""})
            return
        content = await self._send(found, found.blob, fields, send)
        if content is not None and found.status == 200 and b"range" not in headers:
            self._keep(scope, headers, question, found.status, lasting, content)

    def _keep(self, scope: Scope, headers: dict[bytes, bytes], question: Question, status: int, fields: Fields, body: bytes) -> None:
        """Keep an answer for those who ask the same."""
        if question.site is None or question.served is None:
            return
        target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        head = STATUS_LINES[status] + b"".join(b"%b: %b\r\n" % field for field in fields)
        key = (headers[b"host"], target, headers.get(b"accept-encoding"), headers.get(b"if-none-match"))
        self._ready.put(key, Ready(question.site, question.served, head, body), len(head) + len(body) + sum(len(part or b"") for part in key) + 500)

    async def _answer(self, scope: Scope, headers: dict[bytes, bytes], question: Question) -> Answer:
        if sum(name == b"host" for name, _ in scope["headers"]) != 1:
            return _plain(400, "A request names one host.")
        if scope["method"] not in ("GET", "HEAD"):
            return _plain(405, "Files are read with GET.", (b"allow", b"GET, HEAD"))
        site = self._addresses.site(headers[b"host"].decode("latin-1"))
        served = None if site is None else await self._sites.find(site)
        if site is None or served is None:
            return _plain(404, "There is no app here.")
        if served.suspended:
            return _plain(503, "This app is suspended.")
        if served.deployment_id is None:
            return _plain(404, "Nothing is deployed here yet.")
        question.site, question.served = site, served
        found = await self._of_site(scope, headers, site, served, served.deployment_id)
        if found.status == 404:  # a page of a version that another process made live a moment ago may have named it
            newest = await self._sites.look(site)
            if newest is not None and newest is not served and newest.deployment_id is not None and not newest.suspended:
                question.served = newest
                return await self._of_site(scope, headers, site, newest, newest.deployment_id)
        return found

    async def _of_site(self, scope: Scope, headers: dict[bytes, bytes], site: Site, served: Served, deployment_id: UUID) -> Answer:
        raw = scope.get("raw_path") or scope["path"].encode()
        path = answers.path_of(raw.partition(b"?")[0])
        if path is None:
            return _plain(400, "This path is malformed.")
        rules = self._rules.get((served.slug, served.manifest))
        if rules is None:
            rules = Rules(served.slug, sites.manifest_of(served), self._api, self._base_url)
            self._rules.put((served.slug, served.manifest), rules, 1)
        moved = rules.redirect(path, scope["query_string"])
        if moved is not None:
            return moved
        files = self._tables.get(deployment_id)
        if files is None:
            files = await sites.files_of(served)
            self._tables.put(deployment_id, files, len(files))
        file, status, place = answers.choose(files, rules, path)
        if status == 404 and path == answers.ABOUT:
            fields = [*rules.fields(path, document=False), (b"content-type", b"application/json"), (b"cache-control", b"no-cache")]
            return Answer(200, fields, text=rules.about)
        if place is not None:
            there = answers.with_query(place, scope["query_string"]).encode("latin-1")
            return Answer(status, [(b"location", there), (b"cache-control", b"no-cache"), (b"x-content-type-options", b"nosniff")])
        if status == 404 and site.version is None and answers.is_hashed(path):
            earlier = await sites.earlier_file(served, path[1:])
            if earlier is not None:
                file, status = earlier, 200
        if file is None:
            return _plain(404, "There is nothing at this address.")
        found = answers.answer(file, status, rules, path, headers, version=site.version is not None)
        if site.version is not None:
            found.fields.append((b"x-robots-tag", b"noindex"))
        return found

    async def _send(self, found: Answer, blob: Blob, fields: Fields, send: Send) -> bytes | None:
        """Send content: small content in one piece from memory, which is returned, large content piece by piece from the store."""
        start = {"type": "http.response.start", "status": found.status, "headers": fields}
        key = (blob.id, found.encoding)
        content = self._content.get(key)
        if content is None and found.end <= answers.LARGEST_IN_MEMORY_BYTES and blob.bytes <= answers.LARGEST_IN_MEMORY_BYTES:
            try:
                content = await self._store.get(blob.key(found.encoding))
            except Unavailable:
                content = None
            if content is None:
                await _refuse(send)
                return None
            self._content.put(key, content, len(content))
        if content is not None:
            await send(start)
            await send({"type": "http.response.body", "body": content[found.start : found.end]})
            return content
        began = False
        try:
            async for piece in self._store.stream(blob.key(found.encoding), found.start, found.end):
                if not began:
                    await send(start)
                    began = True
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        except Unavailable:
            if began:
                raise  # the connection is cut: whoever reads sees that the body is not whole
            await _refuse(send)
            return None
        await send({"type": "http.response.body", "body": b""})
        return None


def _request_id() -> bytes:
    """Return an id as `uuid7` makes them, at a tenth of its cost: nothing depends on its being hard to guess."""
    now = time.time_ns() // 1_000_000
    chance = random.getrandbits(74)
    return b"%08x-%04x-7%03x-%04x-%012x" % (now >> 16 & 0xFFFF_FFFF, now & 0xFFFF, chance >> 62, 0x8000 | chance >> 48 & 0x3FFF, chance & 0xFFFF_FFFF_FFFF)


async def _refuse(send: Send) -> None:
    refusal = _plain(503, "This file cannot be read right now.", (b"retry-after", b"2"))
    await send({"type": "http.response.start", "status": 503, "headers": [*refusal.fields, (b"content-length", str(len(refusal.text)).encode())]})
    await send({"type": "http.response.body", "body": refusal.text})


def _plain(status: int, text: str, *fields: tuple[bytes, bytes]) -> Answer:
    return Answer(status, [*PLAIN, *fields], text=f"{text}\n".encode())
