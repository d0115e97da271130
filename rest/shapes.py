"""How each document writes a refusal: the domain's tree, translated once for every shape."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from domain import errors
from domain.errors import Refusal
from domain.money.processor import ProcessorFailed
from rest.bodies import TooLarge, TooSlow
from rest.callers import Headers, header
from rest.fields import Told

Fields = list[tuple[bytes, bytes]]


class NotAllowed(Refusal):
    """The path exists, and not with this method; `methods` are those it has."""

    code = "method_not_allowed"
    status = 405

    def __init__(self, method: str, methods: tuple[str, ...]) -> None:
        super().__init__(f"{method[:20]} is not answered here.")
        self.methods = methods


class Failed(Refusal):
    """A bug of ours; the message tells no detail."""

    code = "internal"
    status = 500

    def __init__(self) -> None:
        super().__init__("The gateway failed. Its operator finds this request's id in the log.")


@dataclass(frozen=True, slots=True)
class Shape:
    """One way of writing a refusal: `write` takes it and the request's id, `schema` describes what it writes.

    `statuses` are those that differ from the domain's own, `kept_from_retrying` tells whether hopeless refusals carry `x-should-retry: false`.
    A shape that is `located` says where a bad value stood: its path then begins with `query` or `body`.
    """

    write: Callable[[Refusal, str], Told]
    schema: type[Told]
    statuses: Mapping[type[Refusal], int] = field(default_factory=dict)
    kept_from_retrying: bool = False
    located: bool = False

    def status(self, refusal: Refusal) -> int:
        """Return the status of a refusal: that of its nearest kin in `statuses`, or its own."""
        return next((self.statuses[kind] for kind in type(refusal).__mro__ if kind in self.statuses), refusal.status)

    def header_fields(self, refusal: Refusal, *, now_seconds: float) -> Fields:
        """Return the header fields that go with a refusal: who may come, how, and when again."""
        fields: Fields = []
        if isinstance(refusal, errors.Unauthenticated):
            fields.append((b"www-authenticate", b"Bearer"))
        if isinstance(refusal, NotAllowed):
            fields.append((b"allow", ", ".join(refusal.methods).encode()))
        if isinstance(refusal, errors.Unavailable):
            fields.append((b"retry-after", str(refusal.retry_after_seconds).encode()))
        if isinstance(refusal, errors.BoundReached) and refusal.resets_at is not None:
            fields.append((b"retry-after", str(max(1, math.ceil(refusal.resets_at.timestamp() - now_seconds))).encode()))
        if self.kept_from_retrying and refusal.status in (401, 402, 403):
            fields.append((b"x-should-retry", b"false"))
        return fields


# The words of the Messages API, which document 4 speaks elsewhere, for every branch of the tree; the nearest kin counts.
_TYPES: Mapping[type[Refusal], str] = {
    Refusal: "invalid_request_error",
    errors.Unauthenticated: "authentication_error",
    errors.Forbidden: "permission_error",
    errors.WiderThanCaller: "permission_error",
    errors.NotFound: "not_found_error",
    errors.UnknownModel: "not_found_error",
    errors.Taken: "conflict_error",
    errors.InvalidState: "conflict_error",
    errors.IdempotencyConflict: "conflict_error",
    errors.InsufficientCredit: "billing_error",
    errors.BoundReached: "rate_limit_error",
    errors.Unavailable: "overloaded_error",
    TooLarge: "request_too_large",
    TooSlow: "timeout_error",
    ProcessorFailed: "api_error",
    Failed: "api_error",
}
# Type and code of the Chat Completions API.
_OPENAI: Mapping[type[Refusal], tuple[str, str | None]] = {
    Refusal: ("invalid_request_error", None),
    errors.Unauthenticated: ("invalid_request_error", "invalid_api_key"),
    errors.Forbidden: ("permission_error", "permission_denied"),
    errors.UnknownModel: ("invalid_request_error", "model_not_found"),
    errors.InsufficientCredit: ("insufficient_quota", "insufficient_quota"),
    errors.BoundReached: ("rate_limit_error", "rate_limit_exceeded"),
    errors.Unavailable: ("server_error", "overloaded"),
    ProcessorFailed: ("server_error", "payment_failed"),
    Failed: ("server_error", "internal_error"),
}


def _type(refusal: Refusal) -> str:
    return next(_TYPES[kind] for kind in type(refusal).__mro__ if kind in _TYPES)


class PlainError(Told):
    """The error of document 0."""

    error: str


class TypedFault(Told):
    """What went wrong."""

    type: str
    message: str


class TypedError(Told):
    """The error of document 4's tenant routes."""

    error: TypedFault


class AnthropicError(Told):
    """The error of the Messages API."""

    type: Literal["error"]
    error: TypedFault
    request_id: str


class OpenAIFault(Told):
    """What went wrong, as the Chat Completions API says it."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(Told):
    """The error of the Chat Completions API."""

    error: OpenAIFault


class FieldFault(Told):
    """What is wrong with one value: where it stands, in words, and its kind."""

    loc: list[str]
    msg: str
    type: str


class ListedError(Told):
    """The error of documents 2 and 3: a list for values that are wrong, a sentence otherwise."""

    detail: list[FieldFault] | str


class AnswerMeta(Told):
    """The request's id, and when it was answered."""

    request_id: str
    timestamp: datetime


class EnvelopedError(ListedError):
    """The error of document 1: that of document 2 in the envelope of every answer."""

    meta: AnswerMeta


def meta(request_id: str) -> AnswerMeta:
    """Return document 1's envelope of an answer given now."""
    return AnswerMeta(request_id=request_id, timestamp=datetime.now(UTC).replace(microsecond=0))


def _plain(refusal: Refusal, request_id: str) -> PlainError:
    return PlainError(error=refusal.message)


def _typed(refusal: Refusal, request_id: str) -> TypedError:
    return TypedError(error=TypedFault(type=_type(refusal), message=refusal.message))


def _anthropic(refusal: Refusal, request_id: str) -> AnthropicError:
    return AnthropicError(type="error", error=TypedFault(type=_type(refusal), message=refusal.message), request_id=request_id)


def _openai(refusal: Refusal, request_id: str) -> OpenAIError:
    type_, code = next(_OPENAI[kind] for kind in type(refusal).__mro__ if kind in _OPENAI)
    param = refusal.path[0] if refusal.path else None
    return OpenAIError(error=OpenAIFault(message=refusal.message, type=type_, param=param, code=code))


def _detail(refusal: Refusal) -> list[FieldFault] | str:
    if not isinstance(refusal, errors.InvalidInput) or isinstance(refusal, errors.WiderThanCaller):
        return refusal.message
    return [FieldFault(loc=list(refusal.path or ()), msg=refusal.message, type="missing" if isinstance(refusal, errors.Required) else refusal.code)]


def _listed(refusal: Refusal, request_id: str) -> ListedError:
    return ListedError(detail=_detail(refusal))


def _enveloped(refusal: Refusal, request_id: str) -> EnvelopedError:
    return EnvelopedError(detail=_detail(refusal), meta=meta(request_id))


_UNPROCESSABLE: Mapping[type[Refusal], int] = {errors.InvalidInput: 422, errors.WiderThanCaller: 403}

PLAIN = Shape(_plain, PlainError, statuses={errors.Taken: 400})
TYPED = Shape(_typed, TypedError)
ANTHROPIC = Shape(_anthropic, AnthropicError, statuses={errors.Unavailable: 529}, kept_from_retrying=True)
OPENAI = Shape(_openai, OpenAIError, kept_from_retrying=True)
LISTED = Shape(_listed, ListedError, statuses=_UNPROCESSABLE, located=True)
ENVELOPED = Shape(_enveloped, EnvelopedError, statuses=_UNPROCESSABLE, located=True)


def of_dialect(headers: Headers) -> Shape:
    """Return how the client of an inference dialect reads a refusal: every one of the Messages API says which version it speaks."""
    return ANTHROPIC if header(headers, b"anthropic-version") is not None else OPENAI
