"""Refusals in the shape of the Messages API, with the statuses that its clients were measured to understand."""

import msgspec

from proxy import sse
from proxy.dialects import headers as fields
from proxy.dialects.base import Answer, Headers, Refusal, RefusalKind

# Claude Code takes eleven attempts at a plain 401 and loses the message; x-should-retry: false makes it one, and shows it.
_SHAPES: dict[RefusalKind, tuple[int, str]] = {
    RefusalKind.BAD_REQUEST: (400, "invalid_request_error"),
    RefusalKind.UNKNOWN_ANSWER: (400, "invalid_request_error"),
    RefusalKind.UNAUTHENTICATED: (401, "authentication_error"),
    RefusalKind.INSUFFICIENT_CREDIT: (402, "billing_error"),
    RefusalKind.FORBIDDEN: (403, "permission_error"),
    RefusalKind.NOT_FOUND: (404, "not_found_error"),
    RefusalKind.NOT_ALLOWED: (405, "invalid_request_error"),
    RefusalKind.CONFLICT: (409, "conflict_error"),
    RefusalKind.ANSWER_GONE: (409, "conflict_error"),
    RefusalKind.MISMATCH: (422, "invalid_request_error"),
    RefusalKind.TOO_LARGE: (413, "request_too_large"),
    RefusalKind.RATE_LIMITED: (429, "rate_limit_error"),
    RefusalKind.QUOTA_EXHAUSTED: (429, "billing_error"),
    RefusalKind.NOT_SUPPORTED: (501, "not_supported"),
    RefusalKind.OVERLOADED: (529, "overloaded_error"),
    RefusalKind.UPSTREAM_FAILED: (502, "api_error"),
    RefusalKind.TIMED_OUT: (504, "timeout_error"),
    RefusalKind.INTERNAL: (500, "api_error"),
}
_PASSED = frozenset({b"content-type", b"retry-after", b"x-should-retry"})


def refuse(refusal: Refusal) -> Answer:
    """Write a refusal; hopeless ones carry `x-should-retry: false`, and an exhausted quota the reset that Claude Code reads."""
    status, _ = _SHAPES[refusal.kind]
    answer_headers = fields.of_refusal(refusal)
    if refusal.kind is RefusalKind.QUOTA_EXHAUSTED and refusal.resets_at is not None:
        answer_headers += [
            (b"anthropic-ratelimit-unified-status", b"rejected"),
            (b"anthropic-ratelimit-unified-reset", str(int(refusal.resets_at.timestamp())).encode()),
        ]
    return Answer(status, answer_headers, _body(refusal))


def event(refusal: Refusal) -> bytes:
    """Write a refusal as the error event that ends a stream."""
    return sse.event(_body(refusal), "error")


def response_headers(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Choose what reaches the client of an upstream's answer; its limits and its organization are the operator's matter."""
    return fields.chosen(headers, _PASSED.__contains__)


def _body(refusal: Refusal) -> bytes:
    _, kind = _SHAPES[refusal.kind]
    return msgspec.json.encode({"type": "error", "error": {"type": kind, "message": refusal.message}, "request_id": refusal.request_id})
