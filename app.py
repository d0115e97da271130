"""The web process: settings, runtime, and one table of doors; the only file that knows every door."""

import asyncio
import contextlib
import gc
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from connections import CLIENT, Hosts, Proxies, guarded
from console.billing import Billing
from console.build import DIST
from console.client import routes as client_routes
from console.manual import routes as manual_routes
from console.page import Page
from exchanges import Door, Exchange, Field
from hosting.application import Hosting
from jobs.sweeps import sweeping
from jobs.worker import working
from models.ids import uuid7
from proxy.counts import CountTokens
from proxy.origins import Preflights
from proxy.paths import BASES, Courteous, greet, plain
from proxy.presets.registry import shown
from proxy.relay import Relay
from proxy.requests import Message, Receive, Scope, Send
from proxy.routes import COUNTS, PRESETS, ROADS, Inference
from resolvers.asking import Facilities
from rest.metrics import Counted
from rest.nowhere import nowhere, refused
from rest.routes import routes as rest_routes
from runtime import SIMULATOR_PATH, Runtime, addresses, open_runtime
from schema.build import build
from schema.throttle import Throttle
from schema.view import GraphQLView
from schema.view import routes as graphql_routes
from settings import VERSION, Settings

GRACE_SECONDS = 25


def routes(runtime: Runtime) -> list[BaseRoute]:
    """Return every path but the inference road's."""
    page = Page(DIST)
    facilities = Facilities(
        book=runtime.book,
        offered=runtime.routes.offered,
        find=runtime.routes.find,
        routes=runtime.routes,
        signing_secret=runtime.settings.secret.get_secret_value(),
        public_url=runtime.settings.public_url.rstrip("/"),
        version=VERSION,
        presets=shown(PRESETS),
        webhooks_private=runtime.settings.webhooks_private,
        payments=runtime.payments.processor if runtime.payments else None,
        store=runtime.store,
        addresses=runtime.addresses,
        bills=runtime.bills,
    )
    billing = Billing("Tallygate", simulated=runtime.payments is not None and runtime.payments.simulator is not None)
    view = GraphQLView(build(Throttle()), facilities, runtime.identify, lambda connection: str(connection.state.request_id))
    return [
        *graphql_routes(view),
        Route("/", _first_page),
        Route("/graphiql", page),
        Route("/graphiql/{path:path}", page),
        Route("/billing", billing.show),
        *manual_routes(),
        *client_routes(),
        *rest_routes(runtime, tuple(PRESETS)),
        *([Mount(SIMULATOR_PATH, runtime.payments.simulator)] if runtime.payments and runtime.payments.simulator else []),
    ]


async def _nothing_here(request: Request, _: Exception) -> Response:
    body, fields = nowhere(request.url.path, request.headers.raw, str(request.state.request_id))
    return Response(body, 404, headers=fields)


async def _refuse(scope: Scope, receive: Receive, send: Send, status: int, message: str) -> None:
    """Refuse what no door takes, in the words of the door that it came to."""
    body, fields = refused(str(scope["path"]), scope["headers"], str(uuid7()), status, message)
    headers = [(name.encode(), value.encode()) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, (b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})


async def _first_page(_: Request) -> Response:
    return RedirectResponse("graphiql", 303)


class Application:
    """Chooses the door by path: the inference road without a framework, the control plane through Starlette."""

    def __init__(self, runtime: Runtime, relay: Relay) -> None:
        self.inferring = Inference(relay)
        preflights, secret = Preflights(runtime.addresses), runtime.settings.secret.get_secret_value()
        doors = (
            (ROADS, Courteous(self.inferring, preflights=preflights)),
            (COUNTS, Courteous(CountTokens(PRESETS, runtime.counting, secret), preflights=preflights)),
            (BASES, Courteous(greet, "GET")),
        )
        self.inference = {path: Counted(door, path) for paths, door in doors for path in paths}
        self.hosting = hosting(runtime)
        self.covers = runtime.addresses.covers
        self.control = Starlette(routes=routes(runtime), exception_handlers={404: _nothing_here})
        self.control.router.redirect_slashes = False  # tools take a redirect for a failure

    def straight(self, target: bytes, fields: list[Field], client: str) -> Door | None:
        """Return the door of a plain POST that came whole to the inference road; None for everything else, which is served as ASGI has it."""
        path = target.partition(b"?")[0].decode("latin-1")
        if path not in ROADS or any(name == b"host" and self.covers(value.decode("latin-1")) for name, value in fields):
            return None
        take = self.inferring.straight(path, fields, client)
        if take is None:
            return None
        counted = self.inference[path]

        def door(exchange: Exchange) -> None:
            exchange.over = counted.began("POST")
            take(exchange)

        return door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request or a websocket; every answer carries a request id. What is below the domain of apps never reaches the API."""
        if scope["type"] in ("http", "websocket") and any(name == b"host" and self.covers(value.decode("latin-1")) for name, value in scope["headers"]):
            await self.hosting(scope, receive, send)
            return
        if scope["type"] == "http" and scope["path"] in self.inference:
            await self.inference[scope["path"]](scope, receive, send)
            return
        meant = plain(str(scope["path"]))
        if meant != scope["path"]:
            scope = {**scope, "path": meant}
            if scope["type"] == "http" and meant in self.inference:
                await self.inference[meant](scope, receive, send)
                return
        request_id = str(uuid7())
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        if CLIENT in state:  # a WebSocket behind a proxy
            scope["client"] = state[CLIENT]

        async def identified(message: Message) -> None:
            if message["type"] == "http.response.start" and not any(name.lower() == b"x-request-id" for name, _ in message["headers"]):
                message = {**message, "headers": [*message["headers"], (b"x-request-id", request_id.encode())]}
            await send(message)

        await self.control(scope, receive, identified)


class Server(uvicorn.Server):
    """Uvicorn that stops on SIGTERM and SIGINT without dying of them, and lets calls under way end well."""

    def __init__(self, config: uvicorn.Config, relay: Relay | None) -> None:
        super().__init__(config)
        self._relay = relay

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Ask for a stop on a signal; the process then closes what it holds, and leaves by itself."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_IGN)  # what is left is closing: a second signal must not cut it short

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no new connection, let streams end, settle them."""
        if self._relay is None:
            await super().shutdown(sockets)
            return
        closing = asyncio.create_task(self._relay.close())
        await super().shutdown(sockets)
        await closing


@contextlib.asynccontextmanager
async def application(settings: Settings) -> AsyncIterator[tuple[Application, Relay]]:
    """Open everything a web process holds, and give its application."""
    async with contextlib.AsyncExitStack() as stack:
        runtime = await stack.enter_async_context(open_runtime(settings, serving=True))
        await stack.enter_async_context(sweeping(runtime))
        if settings.worker == "inside":
            await stack.enter_async_context(working(runtime))
        relay = Relay(runtime)
        stack.push_async_callback(relay.close)
        yield Application(runtime, relay), relay


def hosting(runtime: Runtime) -> Hosting:
    """Return what serves apps."""
    public = urlsplit(runtime.settings.public_url)
    return Hosting(runtime.store, runtime.addresses, f"{public.scheme}://{public.netloc}", runtime.settings.public_url.rstrip("/"))


async def serve_apps(settings: Settings) -> None:
    """Serve apps and nothing else, until SIGTERM or SIGINT."""
    async with open_runtime(settings, serving=False) as runtime:
        await Server(uvicorn_config(hosting(runtime), settings), None).serve()


def uvicorn_config(app: Application | Hosting, settings: Settings) -> uvicorn.Config:
    """Return how we serve: httptools with our guards (connections.py), client addresses from nobody but trusted proxies, quiet logs."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        lifespan="off",
        http=guarded(
            Hosts((*settings.answered_hosts, f"*.{addresses(settings).domain}")),
            Proxies(settings.trusted_networks),
            _refuse,
            straight=app.straight if isinstance(app, Application) else None,
            at_once=app.hosting.at_once if isinstance(app, Application) else app.at_once,
        ),
        log_config=None,
        ws_max_size=256 * 1024,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=GRACE_SECONDS,
        backlog=2048,
    )


def spare_collections() -> None:
    """Take what the start has made, which lives as long as the process, out of garbage collection, and collect what calls leave less often.

    Measured: each full collection looked at all of it for 150 ms in which no stream moved, and collections took a third of the gateway's time.
    A call leaves nothing in circles.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT."""
    async with application(settings) as (app, relay):
        spare_collections()
        await Server(uvicorn_config(app, settings), relay).serve()
