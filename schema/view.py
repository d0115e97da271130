"""The HTTP and WebSocket face of GraphQL: GraphQL over HTTP (the media type's statuses, one strict body), graphql-sse, graphql-transport-ws."""

import datetime
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from json import JSONDecodeError
from typing import Any, Final, cast

import msgspec
import structlog
from cross_web import AsyncHTTPRequestAdapter, HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket
from strawberry.asgi import ASGIWebSocketAdapter, GraphQL
from strawberry.exceptions import ConnectionRejectionError
from strawberry.http import GraphQLHTTPResponse, GraphQLRequestData
from strawberry.subscriptions import GRAPHQL_SSE_PROTOCOL, GRAPHQL_TRANSPORT_WS_PROTOCOL
from strawberry.types import ExecutionResult
from strawberry.types.execution import SubscriptionExecutionResult
from strawberry.types.unset import UNSET, UnsetType

from domain import audit
from domain.access.callers import Caller, Whence
from domain.errors import Refusal, Unauthenticated
from resolvers.asking import Facilities
from schema.context import Context
from schema.engine import Contract
from schema.errors import MASKED, code_of, of_refusal

log = structlog.get_logger("tallygate.graphql")

JSON_TYPE: Final = "application/json"
RESPONSE_TYPE: Final = "application/graphql-response+json"
STREAM_TYPE: Final = "text/event-stream"
LARGEST_BODY_BYTES: Final = 256 * 1024
LARGEST_OPERATOR_BODY_BYTES: Final = 12 * 1024 * 1024
"""An operator sends a provider's bill of 10 MB."""
MOST_DRAINED_BYTES: Final = 1024 * 1024
"""A body that is too large is read away up to here, so that the client hears the answer instead of a broken connection."""
DEEPEST_BODY: Final = 64
STRAYS: Final = frozenset(map(chr, (0, *range(0xD800, 0xE000))))
"""What JSON can escape and neither UTF-8 nor Postgres can hold: NUL and lone surrogates."""

Identify = Callable[[str | None, str | None, Whence], Awaitable[Caller | None]]
"""A bearer credential and the `X-Workspace-Id` header to the caller: None without a credential, a Refusal for one that is not believed."""


class Refused(Exception):
    """A request that is no GraphQL request, with the status, code and headers that tell so."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None, code: str = "BAD_USER_INPUT") -> None:
        """Refuse with this status and message."""
        super().__init__(message)
        self.status, self.message, self.headers, self.code = status, message, headers, code


class Reply(Response):
    """What an answer will carry, gathered while the operation runs."""

    answer_type = JSON_TYPE


def parse_body(data: bytes | str) -> Any:
    """The JSON value. Raises JSONDecodeError for what RFC 8259 or Postgres cannot hold: bad UTF-8, NaN, lone surrogates, NUL, great depth."""
    try:
        text = data if isinstance(data, str) else data.decode("utf-8")
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise JSONDecodeError("The body is not valid JSON.", "", 0) from None
    waiting: list[tuple[Any, int]] = [(value, 1)]
    while waiting:
        part, depth = waiting.pop()
        if depth > DEEPEST_BODY:
            raise JSONDecodeError("The body is nested too deeply.", "", 0)
        if isinstance(part, str) and not STRAYS.isdisjoint(part):
            raise JSONDecodeError("The body holds a character that is no text.", "", 0)
        if isinstance(part, dict):
            waiting.extend((each, depth + 1) for pair in part.items() for each in pair)
        elif isinstance(part, list):
            waiting.extend((each, depth + 1) for each in part)
    return value


def _no_constant(name: str) -> None:
    raise ValueError(name)


def negotiate(accept: str | None) -> str | None:
    """The media type to answer in, None when the client takes none of ours. A tie goes to the type that came first, `*/*` to JSON."""
    best: tuple[float, str] | None = None
    for part in (accept or "*/*").split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        weight = next((_weight(each[2:]) for each in parameters if each.startswith("q=")), 1.0)
        charset = next((each[8:].strip('"') for each in parameters if each.startswith("charset=")), "utf-8")
        kind = {
            RESPONSE_TYPE: RESPONSE_TYPE,
            JSON_TYPE: JSON_TYPE,
            "application/*": JSON_TYPE,
            "*/*": JSON_TYPE,
            STREAM_TYPE: STREAM_TYPE,
        }.get(name)
        if kind and weight > 0 and charset == "utf-8" and (best is None or weight > best[0]):
            best = (weight, kind)
    return best[1] if best else None


def _weight(text: str) -> float:
    try:
        return min(1.0, max(0.0, float(text)))
    except ValueError:
        return 0.0


def bearer_of(header: str | None) -> str | None:
    """The credential of an Authorization header, None without one. Raises Unauthenticated for another scheme than Bearer."""
    if header is None:
        return None
    scheme, _, credential = header.strip().partition(" ")
    if scheme.lower() != "bearer" or not credential.strip():
        raise Unauthenticated
    return credential.strip()


class SocketMessages(ASGIWebSocketAdapter):
    """Lets only well-formed messages of the protocol through; anything else closes the connection with 4400."""

    async def iter_json(self, *, ignore_parsing_errors: bool = False) -> AsyncGenerator[object, None]:
        """The client's messages."""
        async for message in super().iter_json(ignore_parsing_errors=ignore_parsing_errors):
            yield message if _is_message(message) else {"type": "malformed"}


def _is_message(message: object) -> bool:
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        return False
    if message["type"] == "complete":
        return isinstance(message.get("id"), str)
    if message["type"] != "subscribe":
        return True
    payload = message.get("payload")
    return isinstance(message.get("id"), str) and isinstance(payload, dict) and fault_of(payload) is None


def fault_of(body: object) -> str | None:
    """What is wrong with a GraphQL request as parsed from JSON; None when its four members have the right types."""
    if not isinstance(body, dict):
        return "A GraphQL request is one JSON object; batches are not taken."
    if not isinstance(body.get("query"), str) and not isinstance(body.get("documentId"), str):
        return "`query` is needed, as a string."
    if not isinstance(body.get("operationName"), str | None):
        return "`operationName` is a string."
    if not isinstance(body.get("variables"), dict | None):
        return "`variables` is an object."
    if not isinstance(body.get("extensions"), dict | None):
        return "`extensions` is an object."
    return None


class GraphQLView(GraphQL[Context, None]):
    """`/graphql`. POST runs one operation; GET runs none, and leads a browser to the page.

    The answer is `application/graphql-response+json` with 400 for a request error when the client accepts that type, else
    `application/json` with 200 for whatever is well-formed. A used-up rate limit is 429 in both.
    """

    websocket_adapter_class = SocketMessages

    def __init__(
        self,
        schema: Contract,
        facilities: Facilities,
        identify: Identify,
        request_id: Callable[[Request | WebSocket], str],
        page: str = "/graphiql",
    ) -> None:
        """Serve `schema` to the callers that `identify` tells; a browser's GET goes to `page`."""
        super().__init__(
            schema,
            graphql_ide=None,
            allow_queries_via_get=False,
            subscription_protocols=[GRAPHQL_TRANSPORT_WS_PROTOCOL, GRAPHQL_SSE_PROTOCOL],
            connection_init_wait_timeout=datetime.timedelta(seconds=5),
            multipart_uploads_enabled=False,
            max_subscriptions_per_connection=10,
        )
        self._facilities = facilities
        self._identify = identify
        self._request_id = request_id
        self._page = page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request or hold one WebSocket."""
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        request = Request(scope, receive)
        response = await self._answer(request)
        response.headers.setdefault("x-request-id", self._request_id(request))
        response.headers.setdefault("cache-control", "no-store")
        response.headers.setdefault("x-content-type-options", "nosniff")
        response.headers.setdefault("vary", "Accept")
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        accept = request.headers.get("accept")
        if request.method == "GET" and "text/html" in (accept or ""):
            return RedirectResponse(self._page, status_code=303)
        answer_type = negotiate(accept) or JSON_TYPE
        try:
            if request.method != "POST":
                raise Refused(405, "Operations are sent by POST.", {"allow": "POST"})
            if negotiate(accept) is None:
                raise Refused(406, f"Answers are {RESPONSE_TYPE} or {JSON_TYPE}, in UTF-8.")
            if request.headers.get("content-encoding", "identity").lower() != "identity":
                raise Refused(415, "The body is taken as it is, without content encoding.")
            return await self.run(request)
        except Refusal as refusal:
            headers = {"www-authenticate": "Bearer"} if refusal.status == 401 else {}
            return self._refuse(request, answer_type, refusal.status, refusal.message, of_refusal(refusal), headers)
        except Refused as refused:
            return self._refuse(request, answer_type, refused.status, refused.message, {"code": refused.code}, refused.headers)
        except HTTPException as refused:
            return self._refuse(request, answer_type, refused.status_code, refused.reason, {"code": "BAD_USER_INPUT"})
        except Exception:
            log.exception("graphql request failed", request_id=self._request_id(request))
            return self._refuse(request, answer_type, 500, MASKED, {"code": "INTERNAL", "requestId": self._request_id(request)})

    def _refuse(
        self,
        request: Request,
        answer_type: str,
        status: int,
        message: str,
        extensions: Mapping[str, object],
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        body = {
            "errors": [{"message": message, "extensions": extensions}],
            "extensions": {"requestId": self._request_id(request)},
        }
        media_type = JSON_TYPE if answer_type == STREAM_TYPE else answer_type
        return Response(msgspec.json.encode(body), status, headers, f"{media_type}; charset=utf-8")

    async def get_context(self, request: Request | WebSocket, response: Response | WebSocket) -> Context:
        """Who calls, before anything is parsed."""
        authorization, workspace = request.headers.get("authorization"), request.headers.get("x-workspace-id")
        whence = Whence(request.headers.get("origin"), request.client.host.partition("%")[0] if request.client else None)
        over_socket = self.is_websocket_request(request)
        try:
            caller = await self._identify(bearer_of(authorization), workspace, whence)
        except Refusal:
            if not over_socket:
                raise
            caller = None  # the socket is accepted already: what it asks will be refused
        if caller is not None and caller.operator:
            request.state.largest_body = LARGEST_OPERATOR_BODY_BYTES
        audit.REQUEST.set(audit.Request(self._request_id(request), request.client.host if request.client else None))
        return Context(
            caller=caller,
            facilities=self._facilities,
            request_id=self._request_id(request),
            address=request.client.host if request.client else "",
            whence=whence,
            renew=self._renewal(authorization, workspace, whence)
            if over_socket or negotiate(request.headers.get("accept")) == STREAM_TYPE
            else None,
        )

    def _renewal(self, authorization: str | None, workspace: str | None, whence: Whence) -> Callable[[], Awaitable[Caller | None]]:
        async def renew() -> Caller | None:
            return await self._identify(bearer_of(authorization), workspace, whence)

        return renew

    async def on_ws_connect(self, context: Context) -> UnsetType:
        """Take the credential of a WebSocket client's first message: `authorization` and, if needed, `x-workspace-id`."""
        told = {name.lower(): value for name, value in (context.connection_params or {}).items() if isinstance(value, str)}
        if "authorization" in told:
            context.renew = self._renewal(told["authorization"], told.get("x-workspace-id"), context.whence)
            try:
                context.caller = await context.renew()
            except Refusal:
                raise ConnectionRejectionError from None
        return cast("UnsetType", UNSET)

    async def get_sub_response(self, request: Request | WebSocket) -> Response:
        """Begin the answer."""
        reply = Reply()
        reply.status_code = 200
        del reply.headers["content-length"]
        reply.answer_type = negotiate(request.headers.get("accept")) or JSON_TYPE
        return reply

    async def parse_http_body(self, request: AsyncHTTPRequestAdapter) -> GraphQLRequestData:
        """The request, from a JSON body of at most 256 KiB, or 12 MiB of an operator's."""
        kind, *parameters = (piece.strip().lower() for piece in (request.content_type or "").split(";"))
        charset = next((each[8:].strip('"') for each in parameters if each.startswith("charset=")), "utf-8")
        if kind != JSON_TYPE or charset not in ("utf-8", "utf8"):
            raise Refused(415, "The body is application/json in UTF-8.")
        try:
            body = parse_body(await self._read(request))
        except JSONDecodeError as error:
            raise Refused(400, error.msg) from None
        fault = fault_of(body)
        if fault:
            raise Refused(400, fault)
        if "query" not in body:
            raise Refused(400, "Documents are not kept here: send `query`.", code="PERSISTED_DOCUMENT_NOT_FOUND")
        streamed = negotiate(request.headers.get("accept")) == STREAM_TYPE
        return GraphQLRequestData(
            query=body["query"],
            variables=body.get("variables"),
            operation_name=body.get("operationName"),
            extensions=body.get("extensions"),
            protocol="sse" if streamed else "http",
        )

    @staticmethod
    async def _read(request: AsyncHTTPRequestAdapter) -> bytes:
        read, length = bytearray(), 0
        most = getattr(request._request.state, "largest_body", LARGEST_BODY_BYTES)  # type: ignore[attr-defined]  # as below
        source: Request = request._request  # type: ignore[attr-defined]  # the adapter offers no stream, and reading whole first has no bound
        try:
            async for chunk in source.stream():
                length += len(chunk)
                if length > max(MOST_DRAINED_BYTES, most):
                    break
                if length <= most:
                    read += chunk
        except ClientDisconnect:
            raise Refused(400, "The body did not arrive whole.") from None
        if length > most:
            raise Refused(413, f"The body is larger than {most // 1024} KiB.", {"connection": "close"})
        return bytes(read)

    async def execute_operation(
        self,
        request: Request,
        request_adapter: AsyncHTTPRequestAdapter,
        request_data: GraphQLRequestData | list[GraphQLRequestData],
        context: Context,
        root_value: None,
        sub_response: Response,
    ) -> ExecutionResult | list[ExecutionResult] | SubscriptionExecutionResult:
        """Run it, and let the answer's status tell what became of it."""
        result = await super().execute_operation(request, request_adapter, request_data, context, root_value, sub_response)
        if isinstance(result, ExecutionResult) and _is_request_error(result):
            if cast("Reply", sub_response).answer_type == RESPONSE_TYPE:
                sub_response.status_code = 400
            for error in result.errors or ():
                if code_of(error) == "RATE_LIMITED":
                    sub_response.status_code = 429
                    sub_response.headers["retry-after"] = str((error.extensions or {}).get("retryAfter"))
        return result

    async def process_result(self, request: Request, result: ExecutionResult) -> GraphQLHTTPResponse:
        """The body: without `data` when nothing was executed."""
        body = await super().process_result(request, result)
        if _is_request_error(result):
            body.pop("data", None)
        return body

    def create_response(self, response_data: GraphQLHTTPResponse | list[GraphQLHTTPResponse], sub_response: Response) -> Response:
        """The answer in the media type agreed on."""
        headers = {name: value for name, value in sub_response.headers.items() if name == "retry-after"}
        kind = cast("Reply", sub_response).answer_type
        return Response(self.encode_json(response_data), sub_response.status_code, headers, f"{kind}; charset=utf-8")

    def decode_json(self, data: str | bytes) -> object:
        """A WebSocket message, as strictly as a body."""
        if len(data) > LARGEST_BODY_BYTES:
            raise JSONDecodeError("The message is larger than 256 KiB.", "", 0)
        return parse_body(data)

    def encode_json(self, data: object) -> str:
        """Compact JSON."""
        return msgspec.json.encode(data).decode()


def _is_request_error(result: ExecutionResult) -> bool:
    return result.data is None and bool(result.errors) and all(error.path is None for error in result.errors or ())


def routes(view: GraphQLView, path: str = "/graphql") -> list[BaseRoute]:
    """The routes of GraphQL, for the one table of the web process: the view, its WebSocket, and the schema as text."""
    assert isinstance(view.schema, Contract)
    sdl = view.schema.sdl

    async def download(_: Request) -> Response:
        return PlainTextResponse(sdl, media_type="text/plain", headers={"cache-control": "public, max-age=300"})

    return [
        Route(f"{path}/schema.graphql", download, methods=["GET"]),
        Route(path, view),
        WebSocketRoute(path, view),
    ]
