"""Numbers on this process for Prometheus: requests answered and under way. Labels are ours alone, so that no client can make new ones."""

import hmac
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from domain.errors import Unauthenticated
from domain.money import books
from rest.callers import credentials
from rest.doors import Ask, Document, Operation, Reply
from rest.fields import Nothing
from rest.shapes import PLAIN, PlainError
from runtime import Runtime

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
OTHER = "other"
UNANSWERED = "none"

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
REQUESTS = Counter("tallygate_requests", "Requests that are over; status `none` when the client left first.", ("method", "path", "status"), registry=REGISTRY)
BOOKS = Gauge("tallygate_books_broken", "Rows that break a check of the books, as the last nightly look found; alarm on any above 0.", ("check",), registry=REGISTRY)
BOOKS_CHECKED = Gauge("tallygate_books_checked_timestamp_seconds", "When the books were last looked at; alarm when it is older than two days.", registry=REGISTRY)
COMPARED = Gauge("tallygate_usage_compared_timestamp_seconds", "When cells were last compared with events; alarm when it is older than two days.", registry=REGISTRY)
IN_FLIGHT = Gauge("tallygate_requests_in_flight", "Requests that are under way.", registry=REGISTRY)


class Counted:
    """An ASGI application whose requests are counted under `path`, which is a pattern and never what a client wrote."""

    under_way = 0
    """How many requests are under way in this process, through any of these."""

    def __init__(self, app: ASGIApp, path: str) -> None:
        self._app = app
        self._path = path
        self._over: dict[tuple[str, str], Counter] = {}
        self._of_post = partial(self._ended, "POST")

    def began(self, method: str) -> Callable[[int | None], None]:
        """Count a request that does not come through here; return what is told its status when it is over, None when its client left first."""
        Counted.under_way += 1
        return self._of_post if method == "POST" else partial(self._ended, method)

    def _ended(self, method: str, status: int | None) -> None:
        Counted.under_way -= 1
        self._count(method, UNANSWERED if status is None else str(status))

    def _count(self, method: str, status: str) -> None:
        of = method if method in METHODS else OTHER, status
        over = self._over.get(of)
        if over is None:  # finding a counter by its labels costs more than counting
            over = self._over[of] = REQUESTS.labels(of[0], self._path, status)
        over.inc()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, and count it when it is over, however it ends."""
        status = UNANSWERED

        def noting(message: Message) -> Awaitable[None]:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            return send(message)

        Counted.under_way += 1
        try:
            await self._app(scope, receive, noting)
        finally:
            Counted.under_way -= 1
            self._count(scope["method"], status)


IN_FLIGHT.set_function(lambda: Counted.under_way)


def document(runtime: Runtime) -> Document | None:
    """Return the operation that shows the numbers to who has the token; None where no token is set."""
    wanted = runtime.settings.metrics_token
    if wanted is None:
        return None
    token = wanted.get_secret_value().encode()

    async def show(ask: Ask[Nothing]) -> Reply:
        if not any(hmac.compare_digest(credential.encode(), token) for credential in credentials(ask.headers, api_key_field=False)):
            raise Unauthenticated
        for check in await books.kept():
            BOOKS.labels(check.name).set(check.broken)
            (COMPARED if check.name == books.COMPARISON else BOOKS_CHECKED).set(check.checked_at.timestamp())
        return Reply(200, generate_latest(REGISTRY), CONTENT_TYPE_LATEST.encode())

    return Document(
        name="Metrics",
        shape=lambda headers: PLAIN,
        errors=PlainError,
        public=True,
        operations=(Operation("GET", "/metrics", "Numbers on this process for Prometheus.", Nothing, Any, show),),
    )
