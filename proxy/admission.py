"""From a request's bytes to a call that is let in: parsed, routed, priced, counted, admitted."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import msgspec
from msgspec.structs import replace

from domain import errors
from domain.access import callers, client_tokens, secrets
from domain.access.callers import Whence
from domain.money.catalogue import ModelView
from domain.serving import kept_answers
from domain.serving.calls import Admitted, Opening
from domain.serving.routing import ECHO, Asked, Candidate, Plan
from models.database import CONTENDED, UNREACHABLE
from models.enums import ApiKeyMode
from proxy import features
from proxy.dialects.base import Ask, BadRequest, Dialect, Headers, Refusal, RefusalKind
from proxy.dialects.registry import DIALECTS
from proxy.presets.insertion import apply
from proxy.presets.registry import Version
from proxy.tags import tags_of
from proxy.translation.base import Translation
from proxy.translation.fitting import fitted
from proxy.translation.registry import between, reaches, said_as
from runtime import Runtime

PARSE_ASIDE_BYTES = 1024 * 1024
"""A larger body is parsed in a thread, so that it does not stop the streams of others."""
DEFAULT_OUTPUT_TOKENS = 32_000
"""The worst case of a model whose limit the catalogue does not know."""
WORTH_WAITING_SECONDS = 61
"""The SDKs of both vendors wait for up to a minute and try again by themselves; a longer refusal is told to people instead."""
MOST_OUTPUT_TOKENS = 10_000_000
"""The most that a client's own bound is taken for; no model says more in one answer."""


class Spoken(msgspec.Struct, frozen=True):
    """A request in the dialect of an upstream: the client's bytes, or their translation with what that says."""

    dialect: Dialect
    ask: Ask
    body: bytes
    translation: Translation | None


class Prepared(msgspec.Struct, frozen=True):
    """A call that was read, routed and priced: what the client asked, and what the first candidate of the plan is asked."""

    dialect: Dialect
    ask: Ask
    body: bytes
    plan: Plan
    first: Spoken
    opening: Opening
    preset: Version | None


class LetIn(Prepared, frozen=True):
    """A call that may go upstream, with what the relay needs."""

    admitted: Admitted

    async def spoken_to(self, candidate: Candidate) -> Spoken:
        """Return the request in the dialect of a candidate's upstream; raises BadRequest for what that cannot express, or has no price for."""
        upstream = candidate.upstream
        if not self.ask.sold(candidate.price.buckets):
            raise BadRequest("model: has no price for such a request", "model")
        translation = between(self.dialect, upstream.dialect, upstream.forms)
        if translation is not None and self.first.translation is translation and candidate.model is self.plan.candidates[0].model:
            return self.first
        return await _speak(self.dialect, self.ask, self.body, candidate)


@dataclass(frozen=True, slots=True)
class Road:
    """One inference path: its dialect, what it is called in the books, and the tool whose preset it applies.

    A generic road (`tool` is None) lets in pay-per-token keys only; a tool's road lets in every kind.
    """

    dialect: Dialect
    endpoint: str
    api_name: str
    tool: str | None = None


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What a request's header fields say, read once for all requests of a connection that have the same; its key is not yet proved."""

    road: Road
    secret: str
    fingerprint: str
    test: bool
    token: client_tokens.Claims | None
    headers: Headers
    preset: Version | None
    tags: Mapping[str, str] | None
    origin: str | None
    address: str | None
    language: str | None
    idempotency_key: str | None
    sent: dict[str, list[tuple[bytes, bytes]]]
    """The fields that go to an upstream, by its name, once they were chosen."""


class Arrival(msgspec.Struct, frozen=True):
    """A request as it came: read whole, its key not yet proved."""

    head: Head
    call_id: UUID
    request_id: str
    body: bytes


def head_of(
    road: Road, secret: str, headers: Headers, preset: Version | None, *, origin: str | None, address: str | None, language: str | None, idempotency_key: str | None
) -> Head:
    """Read what a request's header fields say, apart from who calls and what preset applies."""
    return Head(
        road=road,
        secret=secret,
        fingerprint=secrets.fingerprint(secret),
        test=secrets.mode(secret) is ApiKeyMode.TEST,
        token=client_tokens.claims_of(secret),
        headers=headers,
        preset=preset,
        tags=tags_of(headers),
        origin=origin,
        address=address,
        language=language,
        idempotency_key=idempotency_key,
        sent={},
    )


def top_up_url(runtime: Runtime, head: Head) -> str | None:
    """Return where credit is added by who called; a token's visitor cannot."""
    return None if head.token is not None else f"{runtime.settings.public_url.rstrip('/')}/billing"


async def let_in(runtime: Runtime, arrival: Arrival) -> LetIn:
    """Admit a request; raises BadRequest for a body that cannot be served, or a domain refusal."""
    call = await prepare(runtime, arrival)
    admitted = await runtime.calls.admit(call.opening)
    return LetIn(call.dialect, call.ask, call.body, call.plan, call.first, call.opening, call.preset, admitted)


async def prepare(runtime: Runtime, arrival: Arrival) -> Prepared:
    """Read, route and price a request; raises BadRequest for a body that cannot be served, or a domain refusal.

    A caller whose key is unknown learns nothing else about the request.
    """
    head, call_id, body = arrival.head, arrival.call_id, arrival.body
    road, secret, preset = head.road, head.secret, head.preset
    dialect = road.dialect
    now = runtime.clock()
    try:
        body, ask = await asyncio.to_thread(_read, dialect, body, preset) if len(body) > PARSE_ASIDE_BYTES else _read(dialect, body, preset)
        asked = _asked(dialect, body, ask, head, call_id)
        if asked.model in runtime.routes.routers:  # what the router chooses, and falls back to, is what the key may use
            asked = replace(asked, allowed=await _models_of(secret))
        plan = runtime.routes.plan(asked, now)
        if not ask.sold(plan.candidates[0].price.buckets):
            raise errors.Unpriced(f"The model `{plan.candidates[0].model.name}` has no price here for such a request, so it is not sold. Its operator can enter one.")
        spoken = await _speak(dialect, ask, body, plan.candidates[0])
        if ask.continues is not None or ask.names:
            plan = await _kept_plan(runtime, secret, ask, asked, now)
            spoken = await _speak(dialect, ask, body, plan.candidates[0])
    except (BadRequest, errors.Refusal):
        await prove(secret)
        raise
    first = plan.candidates[0]
    whole = max(most_output(candidate.model, ask) for candidate in plan.candidates) * max(ask.choices, 1)
    instalment = min(whole, runtime.settings.instalment_tokens) if ask.streamed else whole
    standing, markup = await runtime.calls.standings.of(head.fingerprint, head.token, {first.price.model, *(price.model for price in plan.fallback_prices)}, now)
    opening = Opening(
        id=call_id,
        fingerprint=head.fingerprint,
        road="generic" if road.tool is None else "tool",
        endpoint=road.endpoint,
        api_name=road.api_name,
        dialect=dialect.name,
        requested_model=ask.model,
        model=first.model.name,
        echo=all(candidate.upstream.name == ECHO for candidate in plan.candidates),
        upstream=first.upstream.name,
        price=first.price,
        fallbacks=plan.fallback_prices,
        markup=markup,
        standing=standing,
        route_reason=plan.why,
        besides=ask.besides,
        fast=ask.fast,
        idempotent=head.idempotency_key is not None,
        token=head.token,
        streamed=ask.streamed,
        input_tokens=ask.input_tokens,
        requested_max_output=ask.max_output_tokens,
        max_output_tokens=whole,
        instalment_tokens=instalment,
        created_at=now,
        end_user=ask.end_user,
        conversation=ask.conversation,
        preset=preset.name if preset else None,
        language=head.language,
        tags=head.tags,
        origin=head.origin,
        address=head.address,
    )
    return Prepared(dialect, ask, body, plan, spoken, opening, preset)


def most_output(model: ModelView, ask: Ask) -> int:
    """Return how many tokens of output a choice may have at most: the client's bound, never more than the model's."""
    largest = model.max_output_tokens
    return (largest or DEFAULT_OUTPUT_TOKENS) if ask.max_output_tokens is None else min(ask.max_output_tokens, largest or MOST_OUTPUT_TOKENS)


async def _models_of(secret: str) -> frozenset[str] | None:
    try:
        claims = client_tokens.claims_of(secret)
        return await (callers.models_of(secret) if claims is None else client_tokens.models_of(claims))
    except (*UNREACHABLE, *CONTENDED):
        raise errors.Unavailable from None


async def _kept_plan(runtime: Runtime, secret: str, ask: Ask, asked: Asked, now: datetime) -> Plan:
    """Return the plan of a call that names what a provider keeps: it goes where that is kept.

    Raises UnknownAnswer for an answer, and BadRequest for an item or a container, that another workspace was given, for providers tell the operator's
    customers not apart; BadRequest where no upstream that keeps it serves the model.
    """
    names = ask.names if ask.continues is None else (ask.continues, *ask.names)
    try:
        claims = client_tokens.claims_of(secret)
        workspace_id = (await callers.key_of(secret))[0] if claims is None else claims.workspace_id
        keepers = await kept_answers.keepers(workspace_id, names)
    except (*UNREACHABLE, *CONTENDED):
        raise errors.Unavailable from None
    unknown = next((name for name in names if name not in keepers), None)
    if unknown is not None and unknown == ask.continues:
        raise errors.UnknownAnswer(f"Previous response with id '{unknown}' not found.")
    if unknown is not None:
        raise BadRequest(f"{ask.named_in}: Item with id '{unknown}' not found.", ask.named_in)
    known = frozenset(upstream for upstream in keepers.values() if upstream is not None)
    try:
        return runtime.routes.plan(replace(asked, keepers=known or None), now)
    except errors.UnknownModel:
        field = ask.named_in if ask.continues is None else "previous_response_id"
        raise BadRequest(f"{field}: what it names is kept by a provider that does not serve `{ask.model}` here.", field) from None


def _asked(dialect: Dialect, body: bytes, ask: Ask, head: Head, call_id: UUID) -> Asked:
    preset = head.preset
    return Asked(
        model=ask.model if preset is None else preset.aliases.get(ask.model, ask.model),
        dialects=reaches(dialect.form),
        forms=said_as(dialect.form),
        input_tokens=ask.input_tokens,
        max_output_tokens=ask.max_output_tokens,
        look=lambda: features.needed(dialect.form, body, ask),
        stick=lambda: features.conversation(body, ask, head.secret),
        lot=call_id.bytes,
        echo_only=head.test,
    )


async def _speak(dialect: Dialect, ask: Ask, body: bytes, candidate: Candidate) -> Spoken:
    translation = between(dialect, candidate.upstream.dialect, candidate.upstream.forms)
    if translation is None:
        return Spoken(dialect, ask.priced(candidate.price.buckets), body, None)
    spoken = DIALECTS[translation.upstream]
    sent = await asyncio.to_thread(translation.request, body, max_output_tokens=most_output(candidate.model, ask))
    sent = fitted(sent, candidate.model.capabilities)
    return Spoken(spoken, spoken.parse(sent), sent, translation)


def _read(dialect: Dialect, body: bytes, preset: Version | None) -> tuple[bytes, Ask]:
    """Return the body with its preset, and what admission must know of it; raises BadRequest."""
    ask = dialect.parse(body)
    return (body, ask) if preset is None else apply(preset, dialect.name, body, ask)


async def choose(shown: Sequence[str], signing_secret: str | None = None) -> str:
    """Return the key of a request among the credentials that it shows; of two keys of ours, the first that works, because tools send both.

    Where `signing_secret` is given a client token is taken when there is no key, and its name is returned.

    Raises Unauthenticated when there is none. One key is not looked at further: admission does that.
    """
    if not shown:
        raise errors.Unauthenticated("Send a Tallygate API key, as `Authorization: Bearer` or `x-api-key`.")
    ours = [credential for credential in shown if secrets.well_formed(credential)]
    if not ours and signing_secret is not None and client_tokens.looks_like(shown[0]):
        return client_tokens.named(client_tokens.read(signing_secret, shown[0], datetime.now(UTC)))
    if not ours:
        raise errors.Unauthenticated("This API key is unknown, revoked or expired.")
    for secret in ours[:-1]:
        try:
            await prove(secret)
        except errors.Unauthenticated:
            continue
        return secret
    return ours[-1]


async def prove(secret: str, whence: Whence | None = None) -> None:
    """Raise Unauthenticated when a key does not work now: one indexed look, before anything is told or taken in.

    With `whence`, Forbidden when it may not be used from there. Raises Unavailable when the database is away.
    """
    try:
        claims = client_tokens.claims_of(secret)
        await (callers.prove_key(secret, whence) if claims is None else client_tokens.prove(claims, whence))
    except (*UNREACHABLE, *CONTENDED):
        raise errors.Unavailable from None


KINDS: tuple[tuple[type[errors.Refusal], RefusalKind], ...] = (
    (errors.Unauthenticated, RefusalKind.UNAUTHENTICATED),
    (errors.InsufficientCredit, RefusalKind.INSUFFICIENT_CREDIT),
    (errors.BoundReached, RefusalKind.QUOTA_EXHAUSTED),
    (errors.Forbidden, RefusalKind.FORBIDDEN),
    (errors.UnknownModel, RefusalKind.NOT_FOUND),
    (errors.UnknownAnswer, RefusalKind.UNKNOWN_ANSWER),
    (errors.NotFound, RefusalKind.NOT_FOUND),
    (errors.Unpriced, RefusalKind.BAD_REQUEST),
    (errors.InvalidInput, RefusalKind.BAD_REQUEST),
    (errors.Unavailable, RefusalKind.OVERLOADED),
)


def translated(refusal: errors.Refusal, request_id: str, *, now_seconds: float, top_up_url: str | None = None) -> Refusal:
    """Return a domain refusal as the dialects know it; who lacks credit is told where it is added, if anywhere."""
    kind = next((kind for type_, kind in KINDS if isinstance(refusal, type_)), RefusalKind.BAD_REQUEST)
    resets_at, retry_after = None, None
    if isinstance(refusal, errors.Unavailable):
        retry_after = refusal.retry_after_seconds
    elif isinstance(refusal, errors.BoundReached) and refusal.passes:  # when a call under way ends, which is long before the window does
        retry_after = 1
    elif isinstance(refusal, errors.BoundReached) and refusal.resets_at is not None:
        resets_at = refusal.resets_at
        retry_after = max(1, int(resets_at.timestamp() - now_seconds) + 1)
    if isinstance(refusal, errors.BoundReached) and retry_after is not None and retry_after <= WORTH_WAITING_SECONDS:
        kind = RefusalKind.RATE_LIMITED
    param = "model" if isinstance(refusal, errors.UnknownModel | errors.Unpriced) else None
    if isinstance(refusal, errors.UnknownAnswer):
        param = "previous_response_id"
    message = refusal.message
    if isinstance(refusal, errors.InsufficientCredit) and top_up_url is not None:
        message = f"{message.removesuffix('.')}: {top_up_url}"
    return Refusal(kind, message, request_id, param=param, retry_after_seconds=retry_after, resets_at=resets_at)
