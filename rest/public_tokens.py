"""The one path that pages of other origins may call without a credential: client tokens of apps whose manifest switches them on."""

from collections.abc import Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from domain.access import client_tokens, public_tokens
from domain.access.public_tokens import PublicApp
from domain.errors import NotFound
from models.database import CONTENDED, UNREACHABLE
from rest.callers import Headers, header
from rest.client_tokens import MadeToken
from rest.doors import Ask, Document, Operation, Reply
from rest.fields import Nothing
from rest.shapes import PLAIN, PlainError
from runtime import Runtime

PATH = "/v1/apps/{appId}/tokens"
EXPOSED = b"x-request-id, retry-after, ratelimit, ratelimit-policy"
ALLOWED = b"content-type"
KEPT_SECONDS = b"600"


async def _make_token(ask: Ask[Nothing]) -> Reply:
    public = await public_tokens.of(ask.path["appId"], ask.runtime.addresses)
    origin = public.require(header(ask.headers, b"origin"))
    standing = await ask.runtime.minting.take(public_tokens.counted_as(public, ask.address))
    offered = frozenset(model.name for model in ask.runtime.routes.offered())
    made = await public_tokens.create(public, origin, ask.runtime.addresses, offered=offered, at=ask.runtime.clock())
    token = client_tokens.sign(ask.runtime.settings.secret.get_secret_value(), made)
    fields = () if standing is None else tuple(ask.runtime.minting.fields(standing))
    return Reply(200, MadeToken(token=token, expires_at=made.expires_at).model_dump_json(by_alias=True).encode(), fields=fields)


DOCUMENT = Document(
    name="Public tokens",
    shape=lambda headers: PLAIN,
    errors=PlainError,
    public=True,
    operations=(
        Operation(
            "POST", PATH, "A client token for a visitor of an app whose manifest says publicTokens.", Nothing, MadeToken, _make_token, refusals=(403, 404, 429)
        ),
    ),
)


class Shared:
    """Opens a door to the pages of an app's own origins, and to no others, whatever it answers."""

    def __init__(self, runtime: Runtime, door: ASGIApp) -> None:
        self._runtime = runtime
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, preflights among them."""
        fields = await self._fields(scope)
        if scope["method"] == "OPTIONS":
            await _answer(send, fields, preflight=header(scope["headers"], b"access-control-request-method") is not None)
            return

        async def opened(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *fields]}
            await send(message)

        await self._door(scope, receive, opened)

    async def _fields(self, scope: Scope) -> Sequence[tuple[bytes, bytes]]:
        headers: Headers = scope["headers"]
        varies = (b"vary", b"Origin")
        origin = header(headers, b"origin")
        if origin is None:
            return (varies,)
        try:
            public: PublicApp = await public_tokens.of(scope["path_params"]["appId"], self._runtime.addresses)
        except (NotFound, *UNREACHABLE, *CONTENDED):
            return (varies,)
        if origin not in public.origins:
            return (varies,)
        return (varies, (b"access-control-allow-origin", origin.encode("latin-1")), (b"access-control-expose-headers", EXPOSED))


async def _answer(send: Send, fields: Sequence[tuple[bytes, bytes]], *, preflight: bool) -> None:
    passes = len(fields) > 1
    told = [(b"allow", b"POST, OPTIONS"), *fields]
    if preflight and passes:
        told += [(b"access-control-allow-methods", b"POST"), (b"access-control-allow-headers", ALLOWED), (b"access-control-max-age", KEPT_SECONDS)]
    refused = preflight and not passes
    if refused:
        told.append((b"content-length", b"0"))
    await send({"type": "http.response.start", "status": 403 if refused else 204, "headers": told})
    await send({"type": "http.response.body", "body": b""})
