"""Counting a request's tokens without making it: free, answered here, of no trace in the books, as parallel as the client likes."""

import asyncio
import time

import msgspec
import structlog

from domain import errors
from domain.serving.smoothing import Smoother
from models.ids import uuid7
from proxy import splice
from proxy.admission import PARSE_ASIDE_BYTES, choose, prove, translated
from proxy.dialects import anthropic
from proxy.dialects.base import Answer, BadRequest, Dialect, Refusal, RefusalKind
from proxy.dialects.headers import credentials
from proxy.origins import answered
from proxy.presets.insertion import added_tokens
from proxy.presets.registry import ANSWER_HEADER, Presets, Version, choice, chosen
from proxy.requests import ClientGone, Receive, Scope, Send, TooLarge, TooSlow, read_body, whence
from proxy.smoothing import Telling

log = structlog.get_logger()


def counted(dialect: Dialect, body: bytes, version: Version | None) -> int:
    """Estimate the input tokens of a body with what a preset adds to it, as admission counts them; at least 1.

    The rule is in `proxy.dialects.counting`. Raises BadRequest and nothing else.
    """
    tokens = dialect.count(body)
    return tokens + added_tokens(version, dialect.name, body, splice.fields(body)) if version else tokens


class CountTokens:
    """Answers POST on paths that end in /messages/count_tokens, generic and of the tools, in the shape of the Messages API.

    Any key or client token that works may ask from where it may be used, whatever its kind, scopes, bounds and balance. A path's first segment
    names the preset that counts. `signing_secret` is what client tokens are signed with; without it there are none.
    """

    def __init__(self, presets: Presets, smoother: Smoother | None = None, signing_secret: str | None = None) -> None:
        self.presets = presets
        self.smoother = smoother
        self.signing_secret = signing_secret

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; `scope["path"]` decides, never a rebuilt URL."""
        request_id = str(uuid7())
        send = Telling(send)
        try:
            answer = await self._answer(scope, receive, send, request_id)
        except ClientGone:
            return
        except Exception as error:
            log.exception("counting failed", request=request_id, error=type(error).__name__)
            failed = Refusal(RefusalKind.INTERNAL, "The gateway failed. Its operator finds this request's id in the log.", request_id)
            answer = anthropic.refuse(failed)
        headers = [*answer.headers, (b"x-request-id", request_id.encode()), (b"content-length", str(len(answer.body)).encode())]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    async def _answer(self, scope: Scope, receive: Receive, send: Telling, request_id: str) -> Answer:
        try:
            return await self._count(scope, receive, send, request_id)
        except TooLarge:
            refusal = Refusal(RefusalKind.TOO_LARGE, "A request has at most 32 MiB.", request_id)
        except TooSlow:
            refusal = Refusal(RefusalKind.TIMED_OUT, "The request did not come whole in time.", request_id)
        except BadRequest as bad:
            refusal = Refusal(RefusalKind.BAD_REQUEST, bad.message, request_id, param=bad.param)
        except errors.Refusal as refused:
            refusal = translated(refused, request_id, now_seconds=time.time())
        return anthropic.refuse(refusal)

    async def _count(self, scope: Scope, receive: Receive, send: Telling, request_id: str) -> Answer:
        headers = scope["headers"]
        here = whence(scope)
        if here.origin is not None and self.signing_secret is not None:
            send.open(answered(headers, here.origin, self.signing_secret))
        if scope["method"] != "POST":
            return anthropic.refuse(Refusal(RefusalKind.NOT_ALLOWED, f"{scope['method'][:20]} is not answered here; send POST.", request_id))
        secret = await choose(credentials(headers), self.signing_secret)
        if self.smoother is not None:
            await send.smooth(self.smoother, secret)
        # Before anything is told, and before more than a little is taken in; a second look would cost what the first one did.
        await prove(secret, here)
        body = await read_body(scope, receive, _proved)
        slug = scope["path"].split("/")[1]
        version = chosen(self.presets, slug, choice(headers)) if slug in self.presets else None
        if len(body) > PARSE_ASIDE_BYTES:
            tokens = await asyncio.to_thread(counted, anthropic, body, version)
        else:
            tokens = counted(anthropic, body, version)
        named = [(ANSWER_HEADER, version.name.encode())] if version else []
        return Answer(200, [(b"content-type", b"application/json"), *named], msgspec.json.encode({"input_tokens": tokens}))


async def _proved() -> None:
    """Let a body of any size in: the key is proved already."""
