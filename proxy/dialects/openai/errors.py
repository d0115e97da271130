"""Refusals in the shape of the Chat Completions API, with the statuses that its clients were measured to understand."""

import msgspec

from proxy import sse
from proxy.dialects import headers as fields
from proxy.dialects.base import Answer, Headers, Refusal, RefusalKind

_SHAPES: dict[RefusalKind, tuple[int, str, str | None]] = {
    RefusalKind.BAD_REQUEST: (400, "invalid_request_error", None),
    RefusalKind.UNKNOWN_ANSWER: (400, "invalid_request_error", "previous_response_not_found"),
    RefusalKind.UNAUTHENTICATED: (401, "invalid_request_error", "invalid_api_key"),
    RefusalKind.INSUFFICIENT_CREDIT: (402, "insufficient_quota", "insufficient_quota"),
    RefusalKind.FORBIDDEN: (403, "permission_error", "permission_denied"),
    RefusalKind.NOT_FOUND: (404, "invalid_request_error", "model_not_found"),
    RefusalKind.NOT_ALLOWED: (405, "invalid_request_error", "method_not_allowed"),
    RefusalKind.CONFLICT: (409, "invalid_request_error", "conflict"),
    RefusalKind.ANSWER_GONE: (409, "invalid_request_error", "answer_gone"),
    RefusalKind.MISMATCH: (422, "invalid_request_error", "idempotency_key_reused"),
    RefusalKind.TOO_LARGE: (413, "invalid_request_error", "request_too_large"),
    RefusalKind.RATE_LIMITED: (429, "rate_limit_error", "rate_limit_exceeded"),
    RefusalKind.QUOTA_EXHAUSTED: (429, "insufficient_quota", "insufficient_quota"),
    RefusalKind.NOT_SUPPORTED: (501, "invalid_request_error", "not_supported"),
    RefusalKind.OVERLOADED: (503, "server_error", "overloaded"),
    RefusalKind.UPSTREAM_FAILED: (502, "server_error", "upstream_failed"),
    RefusalKind.TIMED_OUT: (504, "server_error", "timeout"),
    RefusalKind.INTERNAL: (500, "server_error", "internal_error"),
}
_PASSED = frozenset({b"content-type", b"retry-after", b"retry-after-ms", b"x-should-retry"})


def refuse(refusal: Refusal) -> Answer:
    """Write a refusal; hopeless ones carry `x-should-retry: false`."""
    return Answer(_SHAPES[refusal.kind][0], fields.of_refusal(refusal), _body(refusal))


def event(refusal: Refusal) -> bytes:
    """Write a refusal as the error chunk that ends a stream."""
    return sse.event(_body(refusal))


def response_headers(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Choose what reaches the client of an upstream's answer; its limits and its organization are the operator's matter."""
    return fields.chosen(headers, _PASSED.__contains__)


def told(refusal: Refusal) -> dict[str, str | None]:
    """Write what stands under `error`."""
    _, kind, code = _SHAPES[refusal.kind]
    return {"message": refusal.message, "type": kind, "param": refusal.param, "code": code}


def _body(refusal: Refusal) -> bytes:
    return msgspec.json.encode({"error": told(refusal)})
