"""The inference road's paths, as a plain ASGI application: no framework stands between a request and its relay."""

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from functools import partial
from uuid import UUID

import structlog

from domain import errors
from domain.access import client_tokens, secrets
from models.ids import uuid7
from proxy.admission import PARSE_ASIDE_BYTES, Arrival, Head, Road, choose, head_of, prove, translated
from proxy.dialects import anthropic, embeddings, openai, responses, speech, transcriptions
from proxy.dialects.base import Answer, BadRequest, Headers, Refusal, RefusalKind
from proxy.dialects.headers import credentials
from proxy.dialects.multipart import checked
from proxy.dry_runs import HEADER as DRY_RUN
from proxy.dry_runs import price, wanted
from proxy.idempotency import HEADER as IDEMPOTENCY
from proxy.origins import answered
from proxy.presets.registry import choice, chosen, load
from proxy.relay import Relay
from proxy.requests import CUT, ClientGone, Receive, Scope, Send, TooLarge, TooSlow, Wire, gone, read_body
from proxy.smoothing import Telling
from proxy.translation.responses_to_openai.request import as_chat

PRESETS = load()
COUNT = "/messages/count_tokens"


def _roads() -> dict[str, Road]:
    """Return every inference path, in the forms in which tools really build it from a base URL with and without `/v1`."""
    generic = (
        Road(anthropic, "/v1/messages", "messages"),
        Road(openai, "/v1/chat/completions", "chat"),
        Road(responses, "/v1/responses", "responses"),
        Road(embeddings, "/v1/embeddings", "embeddings"),
        Road(speech, "/v1/audio/speech", "speech"),
        Road(transcriptions, "/v1/audio/transcriptions", "transcriptions"),
    )
    roads = {path: road for road in generic for path in (road.endpoint, f"/v1{road.endpoint}", *_without_version(road))}
    for slug in PRESETS:
        for dialect, rest, api_name in ((anthropic, "/messages", "messages"), (openai, "/chat/completions", "chat")):
            road = Road(dialect, f"/{slug}/v1{rest}", api_name, tool=slug)
            roads |= {f"/{slug}{before}{rest}": road for before in ("/v1", "", "/v1/v1")}
    return roads


def _without_version(road: Road) -> tuple[str, ...]:
    """Return the path that OpenAI's SDKs build from a base URL without `/v1`; Anthropic's always say it themselves."""
    return () if road.dialect is anthropic else (road.endpoint.removeprefix("/v1"),)


ROADS: Mapping[str, Road] = _roads()
SHAPED: Mapping[str, Callable[[Headers, bytes], bytes]] = {
    "/v1/audio/transcriptions": checked,
    "/cursor/v1/chat/completions": lambda _, body: as_chat(body),
}
"""What is done with a body before it is read, by the road's name: checked against its header, or brought into the road's shape. Raises BadRequest."""
COUNTS = frozenset(f"{base}{COUNT}" for slug in ("", *(f"/{slug}" for slug in PRESETS)) for base in ({f"{slug}/v1", f"{slug}/v1/v1"} | ({slug} if slug else set())))
"""The paths that count tokens."""

IDEMPOTENCY_KEY = re.compile(r"[!-~](?:[ -~]{0,253}[!-~])?")
LANGUAGE = re.compile(r"[A-Za-z0-9-]{1,35}")
"""The shape of a language tag (RFC 5646, section 4.4.1: 35 characters are enough); what has another is not kept."""

log = structlog.get_logger()


class Inference:
    """Answers the paths of ROADS; one for a process, with its relay."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request of a road; `scope["path"]` decides, never a rebuilt URL."""
        road = ROADS[scope["path"]]
        call_id = uuid7()
        request_id = str(call_id)
        send = Telling(send)
        try:
            refusal = await self._serve(road, scope, receive, send, call_id)
        except ClientGone:
            return
        except Exception as error:
            log.exception("inference failed", request=request_id, error=type(error).__name__)
            refusal = Refusal(RefusalKind.INTERNAL, "The gateway failed. Its operator finds this request's id in the log.", request_id)
        if refusal is not None:
            await _answer(send, road.dialect.refuse(refusal), request_id)

    def straight(self, path: str, headers: list[tuple[bytes, bytes]], address: str) -> Callable[[Wire], None] | None:
        """Return what takes the requests to a road with these header fields that came whole; None where one of them asks for more than the plainest call."""
        road = ROADS[path]
        shown = credentials(headers)
        if len(shown) != 1 or not secrets.well_formed(shown[0]) or road.endpoint in SHAPED:
            return None
        found = {name: value.decode("latin-1") for name, value in headers if name in (b"origin", b"x-language", IDEMPOTENCY, DRY_RUN)}
        if IDEMPOTENCY in found or DRY_RUN in found or b"origin" in found:
            return None
        try:
            preset = chosen(PRESETS, road.tool, choice(headers)) if road.tool else None
        except BadRequest:
            return None
        language = found.get(b"x-language", "")
        head = head_of(
            road,
            shown[0],
            headers,
            preset,
            origin=None,
            address=address.partition("%")[0],
            language=language if LANGUAGE.fullmatch(language) else None,
            idempotency_key=None,
        )
        return partial(self._take, head)

    def _take(self, head: Head, wire: Wire) -> None:
        call_id = uuid7()
        wire.on_loss = self.relay.start(Arrival(head, call_id, str(call_id), wire.body), wire).client_left

    async def _serve(self, road: Road, scope: Scope, receive: Receive, send: Telling, call_id: UUID) -> Refusal | None:
        request_id = str(call_id)
        headers = scope["headers"]
        found = {name: value.decode("latin-1") for name, value in headers if name in (b"origin", b"x-language", IDEMPOTENCY)}
        origin = found.get(b"origin")
        if origin is not None:
            send.open(answered(headers, origin, self.relay.runtime.settings.secret.get_secret_value()))
        if scope["method"] != "POST":
            return Refusal(RefusalKind.NOT_ALLOWED, f"{scope['method'][:20]} is not answered here; send POST.", request_id)
        try:
            preset = chosen(PRESETS, road.tool, choice(headers)) if road.tool else None
            dry = any(name == DRY_RUN and wanted(value) for name, value in headers)
        except BadRequest as bad:
            return Refusal(RefusalKind.BAD_REQUEST, bad.message, request_id, param=bad.param)
        language = found.get(b"x-language", "")
        idempotency_key = found.get(IDEMPOTENCY)
        if idempotency_key is not None and not IDEMPOTENCY_KEY.fullmatch(idempotency_key):
            return Refusal(RefusalKind.BAD_REQUEST, "Idempotency-Key: has 1 to 255 printable ASCII characters", request_id)
        try:
            secret = await choose(credentials(headers), self.relay.runtime.settings.secret.get_secret_value())
            if idempotency_key is not None and client_tokens.claims_of(secret) is not None:
                return Refusal(RefusalKind.BAD_REQUEST, "Idempotency-Key: works with an API key, not with a client token", request_id)
            await send.smooth(self.relay.runtime.smoothing, secret)
            body = await read_body(scope, receive, lambda: prove(secret))
            if road.endpoint in SHAPED:
                body = await _shaped(road, headers, body, secret)
        except BadRequest as bad:
            return Refusal(RefusalKind.BAD_REQUEST, bad.message, request_id, param=bad.param)
        except TooLarge:
            return Refusal(RefusalKind.TOO_LARGE, "A request has at most 32 MiB.", request_id)
        except TooSlow:
            return Refusal(RefusalKind.TIMED_OUT, "The request did not come whole in time.", request_id)
        except errors.Refusal as refused:
            return translated(refused, request_id, now_seconds=time.time())
        client = scope.get("client")
        head = head_of(
            road,
            secret,
            headers,
            preset,
            origin=origin,
            address=client[0].partition("%")[0] if client else None,  # a link-local address comes with its interface, which is no part of it
            language=language if LANGUAGE.fullmatch(language) else None,
            idempotency_key=idempotency_key,
        )
        arrival = Arrival(head, call_id, request_id, body)
        if dry:
            return await self._dry_run(arrival, send)
        if await self._carry(arrival, receive, send):
            scope["extensions"][CUT]["cut"]()
        return None

    async def _dry_run(self, arrival: Arrival, send: Send) -> Refusal | None:
        """Price a request without making it."""
        try:
            answer = await price(self.relay.runtime, arrival)
        except BadRequest as bad:
            return Refusal(RefusalKind.BAD_REQUEST, bad.message, arrival.request_id, param=bad.param)
        except errors.Refusal as refused:
            return translated(refused, arrival.request_id, now_seconds=time.time())
        await _answer(send, answer, arrival.request_id)
        return None

    async def _carry(self, arrival: Arrival, receive: Receive, send: Send) -> bool:
        """Let the call go its way in its own task, and tell it when its client leaves; return when either has ended: whether the answer broke."""
        here = asyncio.current_task()
        assert here is not None
        waiting = True

        def over(_: "asyncio.Task[None]") -> None:
            if waiting:
                here.cancel()

        pump = self.relay.start(arrival, send)
        task = pump.task
        task.add_done_callback(over)
        try:
            await gone(receive)  # also when the answer is complete
        except asyncio.CancelledError:
            if not task.done():
                raise
            here.uncancel()
        finally:
            waiting = False
        pump.client_left()
        return pump.broken


async def _shaped(road: Road, headers: Headers, body: bytes, secret: str) -> bytes:
    try:
        shape = SHAPED[road.endpoint]
        return await asyncio.to_thread(shape, headers, body) if len(body) > PARSE_ASIDE_BYTES else shape(headers, body)
    except BadRequest:
        await prove(secret)  # who is not known learns nothing of it
        raise


async def _answer(send: Send, answer: Answer, request_id: str) -> None:
    headers = [*answer.headers, (b"x-request-id", request_id.encode()), (b"content-length", str(len(answer.body)).encode())]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
