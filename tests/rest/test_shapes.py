"""Every refusal of the domain in every shape, by exact status and body."""

import ast
import inspect
import json
from datetime import UTC, datetime

import pytest

from domain import errors
from domain.errors import Refusal
from models.enums import Resource
from rest.bodies import TooLarge, TooSlow
from rest.shapes import ANTHROPIC, OPENAI, PLAIN, TYPED, Failed, NotAllowed, Shape

NOW_SECONDS = 1_800_000_000.0
RESET = datetime.fromtimestamp(NOW_SECONDS + 61.5, UTC)

REFUSALS: list[tuple[Refusal, int, str]] = [
    (errors.Unauthenticated(), 401, "authentication_error"),
    (errors.Forbidden("no"), 403, "permission_error"),
    (errors.MissingScope(("KEYS_READ",)), 403, "permission_error"),
    (errors.NotOnThisRoute("no"), 403, "permission_error"),
    (errors.NotFound("key"), 404, "not_found_error"),
    (errors.InvalidInput("no"), 400, "invalid_request_error"),
    (errors.Required("no"), 400, "invalid_request_error"),
    (errors.OutOfRange("no", minimum=0, maximum=1, too_large=True), 400, "invalid_request_error"),
    (errors.WiderThanCaller("no"), 403, "permission_error"),
    (errors.Taken("no"), 409, "conflict_error"),
    (errors.InvalidState("no", state="revoked"), 409, "conflict_error"),
    (errors.IdempotencyConflict(), 422, "conflict_error"),
    (errors.InsufficientCredit("no", available_microusd=0, required_microusd=1), 402, "billing_error"),
    (errors.BoundReached("no", bound="b", resets_at=RESET), 429, "rate_limit_error"),
    (errors.QuotaReached("no", resource=Resource.APPS, limit=1, used=1), 429, "rate_limit_error"),
    (errors.UnknownModel("no"), 404, "not_found_error"),
    (errors.Unpriced("no"), 400, "invalid_request_error"),
    (errors.Unavailable(), 503, "overloaded_error"),
    (TooLarge(), 413, "request_too_large"),
    (TooSlow(), 408, "timeout_error"),
    (NotAllowed("PATCH", ("GET", "HEAD")), 405, "invalid_request_error"),
    (Failed(), 500, "api_error"),
]


def body(shape: Shape, refusal: Refusal) -> object:
    """Return what a shape writes, as a client reads it."""
    return json.loads(shape.write(refusal, "r-1").model_dump_json())


def test_every_refusal_is_tried_here() -> None:
    """A class that is added to the domain's tree is added to this file; that of an earlier answer is inference's alone."""
    tree = ast.parse(inspect.getsource(errors))
    assert {node.name for node in tree.body if isinstance(node, ast.ClassDef)} - {"Refusal", "UnknownAnswer"} <= {type(refusal).__name__ for refusal, _, _ in REFUSALS}


@pytest.mark.parametrize(("refusal", "status", "type_"), REFUSALS, ids=lambda value: type(value).__name__ if isinstance(value, Refusal) else None)
def test_a_refusal_in_every_shape(refusal: Refusal, status: int, type_: str) -> None:
    """Document 0 says a sentence, document 4 a type and a sentence, the dialects what their clients read."""
    message = refusal.message
    assert PLAIN.status(refusal) == (400 if isinstance(refusal, errors.Taken) else status)
    assert TYPED.status(refusal) == OPENAI.status(refusal) == status
    assert ANTHROPIC.status(refusal) == (529 if isinstance(refusal, errors.Unavailable) else status)
    assert body(PLAIN, refusal) == {"error": message}
    assert body(TYPED, refusal) == {"error": {"type": type_, "message": message}}
    assert body(ANTHROPIC, refusal) == {"type": "error", "error": {"type": type_, "message": message}, "request_id": "r-1"}
    written = body(OPENAI, refusal)
    assert isinstance(written, dict)
    assert {"message", "type", "param", "code"} == set(written["error"])
    assert written["error"]["message"] == message


def test_the_words_of_chat_completions() -> None:
    """Types and codes that its SDKs and tools look at; the parameter is the field at fault."""
    told = {type(refusal).__name__: OPENAI.write(refusal, "r").model_dump()["error"] for refusal, _, _ in REFUSALS}
    assert {name: (error["type"], error["code"]) for name, error in told.items() if error["code"] is not None} == {
        "Unauthenticated": ("invalid_request_error", "invalid_api_key"),
        "Forbidden": ("permission_error", "permission_denied"),
        "MissingScope": ("permission_error", "permission_denied"),
        "NotOnThisRoute": ("permission_error", "permission_denied"),
        "InsufficientCredit": ("insufficient_quota", "insufficient_quota"),
        "BoundReached": ("rate_limit_error", "rate_limit_exceeded"),
        "QuotaReached": ("rate_limit_error", "rate_limit_exceeded"),
        "UnknownModel": ("invalid_request_error", "model_not_found"),
        "Unavailable": ("server_error", "overloaded"),
        "Failed": ("server_error", "internal_error"),
    }
    assert body(OPENAI, errors.InvalidInput("no", path=("limit",))) == {
        "error": {"message": "no", "type": "invalid_request_error", "param": "limit", "code": None}
    }


def test_header_fields() -> None:
    """Who may come, how, and when again; a reset in 61.5 seconds is worth coming back for after 62."""

    def fields(shape: Shape, refusal: Refusal) -> dict[bytes, bytes]:
        return dict(shape.header_fields(refusal, now_seconds=NOW_SECONDS))

    assert fields(PLAIN, errors.Unauthenticated()) == {b"www-authenticate": b"Bearer"}
    assert fields(OPENAI, errors.Unauthenticated()) == {b"www-authenticate": b"Bearer", b"x-should-retry": b"false"}
    assert fields(ANTHROPIC, errors.Forbidden("no")) == {b"x-should-retry": b"false"}
    assert fields(TYPED, NotAllowed("PUT", ("DELETE", "GET", "HEAD"))) == {b"allow": b"DELETE, GET, HEAD"}
    assert fields(PLAIN, errors.Unavailable(retry_after_seconds=7)) == {b"retry-after": b"7"}
    assert fields(TYPED, errors.BoundReached("no", bound="b", resets_at=RESET)) == {b"retry-after": b"62"}
    assert fields(TYPED, errors.BoundReached("no", bound="b", resets_at=None)) == {}
    assert fields(PLAIN, errors.NotFound("key")) == {}
