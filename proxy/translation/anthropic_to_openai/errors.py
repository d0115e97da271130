"""Errors of Chat Completions in the shape of the Messages API."""

import msgspec

TOO_LONG = "prompt is too long: "
"""What Claude Code looks for in a message to make its conversation shorter and go on."""

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_WORDS = {
    "invalid_request_error": "invalid_request_error",
    "authentication_error": "authentication_error",
    "invalid_api_key": "authentication_error",
    "billing_error": "billing_error",
    "insufficient_quota": "billing_error",
    "permission_error": "permission_error",
    "not_found_error": "not_found_error",
    "model_not_found": "not_found_error",
    "rate_limit_error": "rate_limit_error",
    "rate_limit_exceeded": "rate_limit_error",
    "overloaded": "overloaded_error",
    "overloaded_error": "overloaded_error",
    "timeout": "timeout_error",
}


def error(status: int, body: bytes, request_id: str) -> bytes:
    """Translate an error body; its message is kept word for word, one about length gets the beginning that clients look for."""
    told = told_error(body)
    kind = _TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    message = message_of(told) or f"The provider answered with status {status}."
    return msgspec.json.encode({"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id})


def event_body(told: object) -> bytes:
    """Translate an error that came inside a stream."""
    message = message_of(told) or "The provider broke off."
    return msgspec.json.encode({"type": "error", "error": {"type": kind_of(told), "message": message}})


def told_error(body: bytes) -> object:
    """Give what stands under `error` in a body, or under nothing where servers write it flat; None when that cannot be read."""
    try:
        decoded = msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return decoded.get("error", decoded) if isinstance(decoded, dict) else None


def kind_of(told: object) -> str:
    """Give the error type that goes with what an upstream says of an error; `api_error` when it says nothing known."""
    words = [told.get("code"), told.get("type")] if isinstance(told, dict) else []
    return next((_WORDS[word] for word in words if isinstance(word, str) and word in _WORDS), "api_error")


def message_of(told: object) -> str:
    """Give the message of an error, empty when there is none."""
    if isinstance(told, str):
        return told
    if not isinstance(told, dict):
        return ""
    message = told.get("message")
    text = message if isinstance(message, str) else ""
    too_long = told.get("code") == "context_length_exceeded" and not text.startswith(TOO_LONG)
    return TOO_LONG + text if too_long else text
