"""Errors of the Messages API in the shape of Chat Completions."""

import msgspec

_CODES = {
    "authentication_error": "invalid_api_key",
    "billing_error": "insufficient_quota",
    "permission_error": "permission_denied",
    "not_found_error": "model_not_found",
    "request_too_large": "request_too_large",
    "rate_limit_error": "rate_limit_exceeded",
    "overloaded_error": "overloaded",
    "timeout_error": "timeout",
}
_TYPES = {
    "invalid_request_error": "invalid_request_error",
    "authentication_error": "invalid_request_error",
    "billing_error": "insufficient_quota",
    "permission_error": "permission_error",
    "not_found_error": "invalid_request_error",
    "conflict_error": "invalid_request_error",
    "request_too_large": "invalid_request_error",
    "rate_limit_error": "rate_limit_error",
}
TOO_LONG = "prompt is too long"


def error(status: int, body: bytes, request_id: str) -> bytes:
    """Translate an error body; its message is kept word for word, one about length gets the code that clients look for."""
    try:
        decoded = msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        decoded = None
    told = decoded.get("error") if isinstance(decoded, dict) else None
    fallback = "invalid_request_error" if status < 500 else "api_error"
    return event_body(told, f"The provider answered with status {status}.", fallback)


def event_body(told: object, fallback_message: str = "The provider broke off.", fallback_kind: str = "api_error") -> bytes:
    """Translate what stands under `error`, in a body or in a stream; it has the same shape in both."""
    values = told if isinstance(told, dict) else {"message": told}
    kind = values.get("type") if isinstance(values.get("type"), str) else fallback_kind
    message = values.get("message")
    text = message if isinstance(message, str) and message else fallback_message
    code = "context_length_exceeded" if text.startswith(TOO_LONG) else _CODES.get(str(kind))
    return msgspec.json.encode({"error": {"message": text, "type": _TYPES.get(str(kind), "server_error"), "param": None, "code": code}})
