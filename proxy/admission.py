"""From a request's bytes to a call that is let in: parsed, routed, priced, counted, admitted."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from domain import errors
from domain.access import callers, secrets
from domain.money.catalogue import PriceVersion
from domain.serving.calls import Admitted, Opening
from domain.serving.routing import Route
from models.database import CONTENDED, UNREACHABLE
from proxy.dialects.base import Ask, BadRequest, Dialect, Refusal, RefusalKind
from proxy.dialects.registry import DIALECTS
from proxy.presets.insertion import apply
from proxy.presets.registry import Version
from proxy.translation.base import Translation
from proxy.translation.registry import TRANSLATIONS
from runtime import Runtime

PARSE_ASIDE_BYTES = 1024 * 1024
"""A larger body is parsed in a thread, so that it does not stop the streams of others."""
DEFAULT_OUTPUT_TOKENS = 32_000
"""The worst case of a model whose limit the catalogue does not know."""
WORTH_WAITING_SECONDS = 61
"""The SDKs of both vendors wait for up to a minute and try again by themselves; a longer refusal is told to people instead."""
MOST_OUTPUT_TOKENS = 10_000_000
"""The most that a client's own bound is taken for; no model says more in one answer."""


@dataclass(frozen=True, slots=True)
class LetIn:
    """A call that may go upstream, with what the relay needs.

    `ask` is what the client asked; `sent_ask` and `body` are what the upstream is asked, the same unless `translation` stands between them.
    """

    ask: Ask
    sent_ask: Ask
    body: bytes
    translation: Translation | None
    opening: Opening
    admitted: Admitted
    route: Route
    price: PriceVersion
    preset: Version | None


@dataclass(frozen=True, slots=True)
class Road:
    """One inference path: its dialect, what it is called in the books, and the tool whose preset it applies.

    A generic road (`tool` is None) lets in pay-per-token keys only; a tool's road lets in every kind.
    """

    dialect: Dialect
    endpoint: str
    api_name: str
    tool: str | None = None


async def let_in(
    runtime: Runtime, road: Road, call_id: UUID, secret: str, body: bytes, preset: Version | None, *, origin: str | None, address: str | None, language: str | None
) -> LetIn:
    """Admit a request; raises BadRequest for a body that cannot be served, or a domain refusal.

    A caller whose key is unknown learns nothing else about the request.
    """
    dialect = road.dialect
    now = runtime.clock()
    try:
        body, ask = await asyncio.to_thread(_read, dialect, body, preset) if len(body) > PARSE_ASIDE_BYTES else _read(dialect, body, preset)
        route = runtime.routes.find(ask.model, dialect.name)
        price = runtime.book.price(route.model.name, now)
        if price is None:
            raise errors.Unpriced(f"The model `{route.model.name}` has no price here, so it is not sold. Its operator can enter one.")
        largest = route.model.max_output_tokens
        each = (largest or DEFAULT_OUTPUT_TOKENS) if ask.max_output_tokens is None else min(ask.max_output_tokens, largest or MOST_OUTPUT_TOKENS)
        translation = None if route.upstream.dialect == dialect.name else TRANSLATIONS[dialect.name, route.upstream.dialect]
        sent, sent_ask = body, ask
        if translation is not None:
            sent = await asyncio.to_thread(translation.request, body, max_output_tokens=each)
            sent_ask = DIALECTS[route.upstream.dialect].parse(sent)
    except (BadRequest, errors.Refusal):
        await prove(secret)
        raise
    whole = each * max(ask.choices, 1)
    instalment = min(whole, runtime.settings.instalment_tokens) if ask.streamed else whole
    opening = Opening(
        id=call_id,
        fingerprint=secrets.fingerprint(secret),
        road="generic" if road.tool is None else "tool",
        endpoint=road.endpoint,
        api_name=road.api_name,
        dialect=dialect.name,
        requested_model=ask.model,
        model=route.model.name,
        echo=route.upstream.name == "echo",
        upstream=route.upstream.name,
        price=price,
        streamed=ask.streamed,
        input_tokens=ask.input_tokens,
        requested_max_output=ask.max_output_tokens,
        max_output_tokens=whole,
        instalment_tokens=instalment,
        created_at=now,
        end_user=ask.end_user,
        conversation=ask.conversation,
        preset=preset.name if preset else None,
        language=language,
        origin=origin,
        address=address,
    )
    admitted = await runtime.calls.admit(opening)
    return LetIn(ask, sent_ask, sent, translation, opening, admitted, route, price, preset)


def _read(dialect: Dialect, body: bytes, preset: Version | None) -> tuple[bytes, Ask]:
    """Return the body with its preset, and what admission must know of it; raises BadRequest."""
    ask = dialect.parse(body)
    return (body, ask) if preset is None else apply(preset, dialect.name, body, ask)


async def choose(shown: Sequence[str]) -> str:
    """Return the key of a request among the credentials that it shows; of two keys of ours, the first that works, because tools send both.

    Raises Unauthenticated when there is none. One key is not looked at further: admission does that.
    """
    if not shown:
        raise errors.Unauthenticated("Send a Tallygate API key, as `Authorization: Bearer` or `x-api-key`.")
    ours = [credential for credential in shown if secrets.well_formed(credential)]
    if not ours:
        raise errors.Unauthenticated("This API key is unknown, revoked or expired.")
    for secret in ours[:-1]:
        try:
            await prove(secret)
        except errors.Unauthenticated:
            continue
        return secret
    return ours[-1]


async def prove(secret: str) -> None:
    """Raise Unauthenticated when a key does not work now: one indexed look, before anything is told or taken in.

    Raises Unavailable when the database is away.
    """
    try:
        await callers.prove_key(secret)
    except (*UNREACHABLE, *CONTENDED):
        raise errors.Unavailable from None


KINDS: tuple[tuple[type[errors.Refusal], RefusalKind], ...] = (
    (errors.Unauthenticated, RefusalKind.UNAUTHENTICATED),
    (errors.InsufficientCredit, RefusalKind.INSUFFICIENT_CREDIT),
    (errors.BoundReached, RefusalKind.QUOTA_EXHAUSTED),
    (errors.Forbidden, RefusalKind.FORBIDDEN),
    (errors.UnknownModel, RefusalKind.NOT_FOUND),
    (errors.NotFound, RefusalKind.NOT_FOUND),
    (errors.Unpriced, RefusalKind.BAD_REQUEST),
    (errors.InvalidInput, RefusalKind.BAD_REQUEST),
    (errors.Unavailable, RefusalKind.OVERLOADED),
)


def translated(refusal: errors.Refusal, request_id: str, *, now_seconds: float) -> Refusal:
    """Return a domain refusal as the dialects know it."""
    kind = next((kind for type_, kind in KINDS if isinstance(refusal, type_)), RefusalKind.BAD_REQUEST)
    resets_at = refusal.resets_at if isinstance(refusal, errors.BoundReached) else None
    retry_after = None
    if isinstance(refusal, errors.Unavailable):
        retry_after = refusal.retry_after_seconds
    elif resets_at is not None:
        retry_after = max(1, int(resets_at.timestamp() - now_seconds) + 1)
    elif isinstance(refusal, errors.BoundReached) and refusal.passes:
        retry_after = 1
    if isinstance(refusal, errors.BoundReached) and retry_after is not None and retry_after <= WORTH_WAITING_SECONDS:
        kind = RefusalKind.RATE_LIMITED
    param = "model" if isinstance(refusal, errors.UnknownModel | errors.Unpriced) else None
    return Refusal(kind, refusal.message, request_id, param=param, retry_after_seconds=retry_after, resets_at=resets_at)
