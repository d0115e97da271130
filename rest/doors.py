"""A documented operation as a value, and the door that answers it: read the input, know the caller, make one domain call, name the answer."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic

import structlog
from pydantic import TypeAdapter
from starlette.types import Receive, Scope, Send

from domain import audit, errors
from domain.access.callers import Caller
from domain.errors import Refusal
from models.database import CONTENDED, UNREACHABLE
from models.ids import uuid7
from rest import bodies, callers
from rest.bodies import ClientGone, Given
from rest.callers import Headers
from rest.shapes import Failed, Fields, NotAllowed, Shape
from runtime import Runtime

WITH_BODY = ("POST", "PUT", "PATCH")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Ask(Generic[Given]):
    """One request to an operation; `who` is None on a public one only, `path` holds the parts of the path that vary.

    `receive` gives the body to an operation that `takes` one as it comes; `address` is the client's, where it is known.
    """

    runtime: Runtime
    who: Caller | None
    given: Given
    path: Mapping[str, str]
    headers: Headers
    request_id: str
    receive: Receive | None = None
    address: str | None = None

    @property
    def idempotency_key(self) -> str | None:
        """The client's name for what is to be done once, however often it asks."""
        return callers.header(self.headers, b"idempotency-key")

    @property
    def caller(self) -> Caller:
        """Who calls an operation that is not public."""
        assert self.who is not None, "a public operation asks for no caller"
        return self.who


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that is written already."""

    status: int
    body: bytes
    media_type: bytes = b"application/json"
    fields: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Operation(Generic[Given]):
    """One method of one path, with everything that serving and describing it needs.

    `given` describes the body (POST, PUT) or the query parameters, `result` the answer of `status`, None for no body. `refusals` are the
    statuses that it may answer besides those of every operation. `takes` names the media types of a body that the operation reads itself.
    """

    method: str
    path: str
    summary: str
    given: type[Given]
    result: Any
    answer: Callable[[Ask[Given]], Awaitable[Any]]
    status: int = 200
    refusals: tuple[int, ...] = ()
    takes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Document:
    """Operations that belong together: one published document, with its own way of writing a refusal.

    `shape` chooses that way by the request's header fields, `errors` describes all that it may write. A `public` document asks for no
    credential; `api_key_field` tells whether `x-api-key` is one.
    """

    name: str
    shape: Callable[[Headers], Shape]
    errors: Any
    operations: tuple[Operation[Any], ...]
    public: bool = False
    api_key_field: bool = False

    def doors(self, runtime: Runtime) -> dict[str, "Door"]:
        """Return one door for each path."""
        paths: dict[str, list[Operation[Any]]] = {}
        for operation in self.operations:
            paths.setdefault(operation.path, []).append(operation)
        return {path: Door(runtime, self, operations) for path, operations in paths.items()}


class Door:
    """Answers one path, as a plain ASGI application; every answer carries the request's id, and none is ever cached for another caller."""

    def __init__(self, runtime: Runtime, document: Document, operations: Sequence[Operation[Any]]) -> None:
        self._runtime = runtime
        self._document = document
        self._operations = {operation.method: operation for operation in operations}
        self._writers = {operation.method: TypeAdapter[Any](operation.result) for operation in operations}
        self._methods = tuple(sorted({*self._operations, *(("HEAD",) if "GET" in self._operations else ())}))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request_id = scope.get("state", {}).get("request_id") or str(uuid7())
        headers: Headers = scope["headers"]
        client = scope.get("client")
        audit.REQUEST.set(audit.Request(request_id, client[0] if client else None))
        try:
            reply, fields = await self._answer(scope, receive, headers, request_id)
        except ClientGone:
            return
        except Refusal as refusal:
            reply, fields = self._refused(refusal, headers, request_id)
        except (*UNREACHABLE, *CONTENDED) as error:
            log.warning("database away", request=request_id, path=scope["path"], error=type(error).__name__)
            reply, fields = self._refused(errors.Unavailable(), headers, request_id)
        except Exception as error:
            log.exception("request failed", request=request_id, path=scope["path"], error=type(error).__name__)
            reply, fields = self._refused(Failed(), headers, request_id)
        fields += [(b"x-request-id", request_id.encode()), (b"request-id", request_id.encode()), (b"cache-control", b"no-store")]
        if reply.body:
            fields += [(b"content-type", reply.media_type), (b"content-length", str(len(reply.body)).encode())]
        await send({"type": "http.response.start", "status": reply.status, "headers": fields})
        await send({"type": "http.response.body", "body": reply.body})

    async def _answer(self, scope: Scope, receive: Receive, headers: Headers, request_id: str) -> tuple[Reply, Fields]:
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        operation = self._operations.get(method)
        if operation is None:
            raise NotAllowed(scope["method"], self._methods)
        who = None if self._document.public else await callers.known(self._runtime, headers, scope.get("client"), api_key_field=self._document.api_key_field)
        body = await bodies.read(scope, receive) if method in WITH_BODY and not operation.takes else None
        try:
            given = bodies.from_query(operation.given, scope["query_string"]) if body is None else bodies.from_body(operation.given, body)
            address = callers.whence(headers, scope.get("client")).address
            told = await operation.answer(Ask(self._runtime, who, given, scope["path_params"], headers, request_id, receive, address))
        except errors.InvalidInput as refusal:
            if self._document.shape(headers).located:
                path = tuple(refusal.path or ())
                refusal.path = ("header", "Idempotency-Key") if path == ("idempotencyKey",) else ("query" if body is None else "body", *path)
            raise
        if isinstance(told, Reply):
            return told, list(told.fields)
        written = b"" if operation.result is None else self._writers[method].dump_json(told, by_alias=True)
        return Reply(operation.status, written), []

    def _refused(self, refusal: Refusal, headers: Headers, request_id: str) -> tuple[Reply, Fields]:
        shape = self._document.shape(headers)
        body = shape.write(refusal, request_id).model_dump_json().encode()
        return Reply(shape.status(refusal), body), shape.header_fields(refusal, now_seconds=time.time())
