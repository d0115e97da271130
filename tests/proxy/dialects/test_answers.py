"""Whole answers, refusals and header fields."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from proxy.dialects import anthropic, openai
from proxy.dialects.base import Credential, Dialect, Reading, Refusal, RefusalKind, Usage
from proxy.dialects.headers import credentials
from proxy.dialects.registry import DIALECTS
from proxy.dialects.statuses import refused_as
from tests.proxy.dialects.recordings import anthropic_ask, openai_ask

BOTH = pytest.mark.parametrize("dialect", list(DIALECTS.values()), ids=list(DIALECTS))


def test_anthropic_whole_answer() -> None:
    """A whole message is read by the same rules as a stream; each text block begins a line of its own."""
    message = {
        "type": "message",
        "model": "claude-sonnet-5-5",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "x"},
            {"type": "text", "text": "a\nb"},
            {"type": "text", "text": "c\n"},
            {"type": "tool_use", "name": "f", "input": {"x": 1}},
        ],
        "stop_reason": "tool_use",
        "usage": {
            "input_tokens": 10,
            "cache_read_input_tokens": 20,
            "cache_creation_input_tokens": 30,
            "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
            "output_tokens": 40,
            "output_tokens_details": {"thinking_tokens": 5},
        },
    }
    usage = Usage(10, 20, 10, 20, 40, 5, model="claude-sonnet-5-5", reported=True)
    assert anthropic.read(json.dumps(message).encode(), anthropic_ask()) == Reading(usage, 5, 3, complete=True)
    del message["usage"]
    estimated = anthropic.read(json.dumps(message).encode(), anthropic_ask()).usage
    assert estimated == Usage(input_tokens=8, output_tokens=4, model="claude-sonnet-5-5")  # (2 + 5 + 7) / 4, begun


@pytest.mark.parametrize(
    ("total", "five", "hour", "expected"),
    [
        (30, 10, 20, (10, 20)),
        (50, 10, 20, (30, 20)),
        (15, 10, 20, (10, 5)),
        (0, 10, 20, (0, 0)),
        (None, 10, 20, (10, 20)),
        (7, 0, 0, (7, 0)),
    ],
)
def test_cache_writes_never_exceed_their_total(total: int | None, five: int, hour: int, expected: tuple[int, int]) -> None:
    """F10: the two lifetimes add up to the total; the part that is not told apart is 5m; a zero total is zero."""
    split = {"ephemeral_5m_input_tokens": five, "ephemeral_1h_input_tokens": hour}
    usage = {"input_tokens": 1, "output_tokens": 1, "cache_creation_input_tokens": total, "cache_creation": split}
    read = anthropic.read(json.dumps({"content": [], "usage": usage}).encode(), anthropic_ask()).usage
    assert (read.cache_write_5m_tokens, read.cache_write_1h_tokens) == expected


def test_openai_whole_answer() -> None:
    """A whole completion is read by the same rules as a stream; details beyond their total are cut to it."""
    completion: dict[str, object] = {
        "model": "gpt-5.5",
        "service_tier": "priority",
        "choices": [
            {"index": 0, "message": {"content": "a\nb", "reasoning_content": "hm"}},
            {"index": 1, "message": {"content": None, "tool_calls": [{"function": {"name": "f", "arguments": '{"x":1}'}}]}},
        ],
        "usage": {"prompt_tokens": 10, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 11, "audio_tokens": 5}},
    }
    usage = Usage(cache_read_tokens=10, output_tokens=4, model="gpt-5.5", service_tier="priority", reported=True)
    assert openai.read(json.dumps(completion).encode(), openai_ask()) == Reading(usage, 3, 2, complete=True)
    completion["usage"] = None
    estimated = openai.read(json.dumps(completion).encode(), openai_ask()).usage
    assert estimated == Usage(input_tokens=8, output_tokens=3, model="gpt-5.5", service_tier="priority")  # (3 + 2 + 7) / 4


@BOTH
@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"error":{"message":"x"}}', b"\xff", b"[" * 300_000])
def test_what_is_no_answer_costs_nothing(dialect: Dialect, body: bytes) -> None:
    """F18: an error body or garbage under status 200 is not complete, and has no usage."""
    assert dialect.read(body, anthropic_ask()) == Reading(Usage(), 0, 0, complete=False)


REFUSALS: Any = [
    ("bad_request", 400, "invalid_request_error", 400, "invalid_request_error", None, False),
    ("unknown_answer", 400, "invalid_request_error", 400, "invalid_request_error", "previous_response_not_found", False),
    ("unauthenticated", 401, "authentication_error", 401, "invalid_request_error", "invalid_api_key", True),
    ("insufficient_credit", 402, "billing_error", 402, "insufficient_quota", "insufficient_quota", True),
    ("forbidden", 403, "permission_error", 403, "permission_error", "permission_denied", True),
    ("not_found", 404, "not_found_error", 404, "invalid_request_error", "model_not_found", False),
    ("not_allowed", 405, "invalid_request_error", 405, "invalid_request_error", "method_not_allowed", False),
    ("conflict", 409, "conflict_error", 409, "invalid_request_error", "conflict", False),
    ("answer_gone", 409, "conflict_error", 409, "invalid_request_error", "answer_gone", True),
    ("mismatch", 422, "invalid_request_error", 422, "invalid_request_error", "idempotency_key_reused", True),
    ("too_large", 413, "request_too_large", 413, "invalid_request_error", "request_too_large", False),
    ("rate_limited", 429, "rate_limit_error", 429, "rate_limit_error", "rate_limit_exceeded", False),
    ("quota_exhausted", 429, "billing_error", 429, "insufficient_quota", "insufficient_quota", True),
    ("not_supported", 501, "not_supported", 501, "invalid_request_error", "not_supported", True),
    ("overloaded", 529, "overloaded_error", 503, "server_error", "overloaded", False),
    ("upstream_failed", 502, "api_error", 502, "server_error", "upstream_failed", False),
    ("timed_out", 504, "timeout_error", 504, "server_error", "timeout", False),
    ("internal", 500, "api_error", 500, "server_error", "internal_error", False),
]


def test_every_refusal_has_a_shape() -> None:
    """The table below names every kind there is."""
    assert [row[0] for row in REFUSALS] == list(RefusalKind)


@pytest.mark.parametrize(("kind", "status", "type_", "chat_status", "chat_type", "chat_code", "hopeless"), REFUSALS)
def test_refusals(kind: str, status: int, type_: str, chat_status: int, chat_type: str, chat_code: str | None, hopeless: bool) -> None:
    """Each refusal has the status, body and retry header that the clients of its dialect were measured to understand."""
    refusal = Refusal(RefusalKind(kind), 'Say "why".', "req_1", param="model", retry_after_seconds=30)
    answer = anthropic.refuse(refusal)
    assert (answer.status, json.loads(answer.body)) == (
        status,
        {"type": "error", "error": {"type": type_, "message": 'Say "why".'}, "request_id": "req_1"},
    )
    chat = openai.refuse(refusal)
    assert (chat.status, json.loads(chat.body)) == (
        chat_status,
        {"error": {"message": 'Say "why".', "type": chat_type, "param": "model", "code": chat_code}},
    )
    for written in (answer, chat):
        fields = dict(written.headers)
        assert (fields[b"content-type"], fields[b"request-id"], fields[b"retry-after"]) == (b"application/json", b"req_1", b"30")
        assert fields.get(b"x-should-retry") == (b"false" if hopeless else None)


def test_a_spent_quota_names_its_reset() -> None:
    """A spent quota tells the instant of its reset in the fields that Claude Code reads."""
    resets_at = datetime(2026, 11, 22, tzinfo=UTC)
    headers = dict(anthropic.refuse(Refusal(RefusalKind.QUOTA_EXHAUSTED, "m", "r", resets_at=resets_at)).headers)
    assert headers[b"anthropic-ratelimit-unified-reset"] == b"1795305600"
    assert headers[b"anthropic-ratelimit-unified-status"] == b"rejected"


CLIENT = [
    (b"host", b"gateway"),
    (b"authorization", b"Bearer tg_live_secret"),
    (b"x-api-key", b"tg_live_other"),
    (b"anthropic-api-key", b"secret"),
    (b"cookie", b"a=b"),
    (b"content-length", b"7"),
    (b"accept-encoding", b"gzip"),
    (b"connection", b"keep-alive, X-Stainless-Lang"),
    (b"x-stainless-lang", b"python"),
    (b"x-stainless-os", b"Linux"),
    (b"anthropic-version", b"2026-10-21"),
    (b"anthropic-beta", b"a,b"),
    (b"anthropic-beta", b"c\r\nx: y"),
    (b"user-agent", b"claude-cli/2.1.330"),
    (b"x-claude-code-session-id", b"s"),
    (b"x-app", b"cli"),
    (b"idempotency-key", b"i"),
    (b"x-forwarded-for", b"1.2.3.4"),
    (b"Content-Type", b"application/json"),
]


def test_request_headers() -> None:
    """Version and betas go up word for word; no credential, hop, cookie or tool's own field does; a broken value does not."""
    assert anthropic.request_headers(CLIENT, Credential("x-api-key", "sk-up")) == [
        (b"x-stainless-os", b"Linux"),
        (b"anthropic-version", b"2026-10-21"),
        (b"anthropic-beta", b"a,b"),
        (b"user-agent", b"claude-cli/2.1.330"),
        (b"content-type", b"application/json"),
        (b"x-api-key", b"sk-up"),
    ]
    assert openai.request_headers(CLIENT, Credential("x-api-key", "sk-up")) == [
        (b"x-stainless-os", b"Linux"),
        (b"user-agent", b"claude-cli/2.1.330"),
        (b"content-type", b"application/json"),
        (b"authorization", b"Bearer sk-up"),
    ]
    least = [(b"anthropic-version", b"2023-06-01"), (b"content-type", b"application/json")]
    assert anthropic.request_headers([], Credential("bearer", "sk-up")) == [*least, (b"authorization", b"Bearer sk-up")]
    assert anthropic.request_headers([], None) == least


@BOTH
def test_response_headers(dialect: Dialect) -> None:
    """Of an upstream's answer the client sees its type and when to retry, never its limits, organization, cookies or encoding."""
    upstream = [
        (b"Content-Type", b"text/event-stream"),
        (b"retry-after", b"3"),
        (b"x-should-retry", b"true"),
        (b"request-id", b"req_upstream"),
        (b"anthropic-organization-id", b"org"),
        (b"anthropic-ratelimit-tokens-remaining", b"1"),
        (b"x-ratelimit-remaining-tokens", b"1"),
        (b"openai-organization", b"org"),
        (b"set-cookie", b"a=b"),
        (b"content-encoding", b"gzip"),
        (b"transfer-encoding", b"chunked"),
    ]
    assert dialect.response_headers(upstream) == [
        (b"content-type", b"text/event-stream"),
        (b"retry-after", b"3"),
        (b"x-should-retry", b"true"),
    ]


def test_credentials_of_a_client() -> None:
    """Both header fields are read on every route, bearer first, each value once."""
    assert credentials(CLIENT) == ["tg_live_secret", "tg_live_other"]
    assert credentials([(b"authorization", b"bearer  k "), (b"x-api-key", b"k"), (b"authorization", b"Basic eA==")]) == ["k"]
    assert credentials([]) == []


def test_a_credential_does_not_print() -> None:
    """The printed form of an upstream's credential lacks the secret."""
    assert "sk-up" not in repr(Credential("bearer", "sk-up"))


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((status, None) for status in (400, 404, 409, 413, 422, 429)),
        *((status, RefusalKind.UPSTREAM_FAILED) for status in (301, 401, 402, 403, 405, 418, 500, 501, 502, 599)),
        *((status, RefusalKind.OVERLOADED) for status in (503, 529)),
        *((status, RefusalKind.TIMED_OUT) for status in (408, 504)),
    ],
)
def test_upstream_statuses(status: int, kind: RefusalKind | None) -> None:
    """Model errors pass as they are; the operator's troubles never become the customer's 401, 402 or 403."""
    assert refused_as(status) is kind
