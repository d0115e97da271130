"""Requests of the Chat Completions API."""

from functools import lru_cache

import msgspec

from models.enums import Bucket
from proxy import splice
from proxy.dialects import headers as fields
from proxy.dialects.base import Ask, Credential, Headers
from proxy.dialects.bodies import Body, identity
from proxy.dialects.counting import input_tokens

CHOICES_LIMIT = 128
_BOUNDS = ("max_completion_tokens", "max_tokens")
_SHOWN = ("tools", "functions", "response_format")
_PASSED = frozenset({b"accept", b"content-type", b"user-agent", b"openai-beta"})


def parse(body: bytes) -> Ask:
    """Read a request body; unknown fields are the upstream's matter. Raises BadRequest and nothing else.

    With `web_search_options` a model searches once, which no usage tells. With both `max_completion_tokens` and the older `max_tokens`, the
    larger is the bound that the upstream may honour.
    Source: the Chat Completions API reference.
    """
    read = Body(body)
    given = read.spans
    model = read.model()
    streamed = "stream" in given and read.boolean("stream")
    bounds = [bound for name in _BOUNDS if name in given and (bound := read.integer(name, 0)) is not None]
    tokens = _count(read)
    choices = 1 if "n" not in given else read.integer("n", 1, CHOICES_LIMIT) or 1
    include_usage = streamed and "stream_options" in given and _stream_options(read, body).boolean("include_usage")
    end_user = conversation = None
    if "safety_identifier" in given or "user" in given:
        end_user = identity(read.value("safety_identifier")) or identity(read.value("user"))
    if "metadata" in given:
        metadata = read.mapping("metadata")
        conversation = identity(metadata.get("conversation_id")) or identity(metadata.get("session_id"))
    besides = {Bucket.WEB_SEARCHES: 1} if "web_search_options" in given and read.value("web_search_options") is not None else {}
    return Ask(model, streamed, tokens, max(bounds, default=None), choices, include_usage, end_user, conversation, given, besides)


def count(body: bytes) -> int:
    """Estimate the input tokens of a body. Raises BadRequest and nothing else."""
    return _count(Body(body))


def rewrite(body: bytes, ask: Ask, *, model: str | None = None, max_output_tokens: int | None = None) -> bytes:
    """Give the body with another model's name, lower bounds of output, and usage asked for where it streams; other bytes are kept (F37).

    A bound is written into the fields that the client sent; into `max_completion_tokens` when it sent none.
    """
    values: dict[str, bytes] = {}
    if model is not None and model != ask.model:
        values["model"] = msgspec.json.encode(model)
    if max_output_tokens is not None:
        bound = str(max_output_tokens).encode()
        sent = {name: _integer(body, ask, name) for name in _BOUNDS if name in ask.spans}
        values.update((name, bound) for name, value in sent.items() if value is not None and value > max_output_tokens)
        if ask.max_output_tokens is None:
            values[_BOUNDS[0]] = bound
    if ask.streamed and not ask.include_usage:
        span = ask.spans.get("stream_options")
        options = body[span.start : span.end] if span else b"{}"
        values["stream_options"] = splice.put(b"{}" if options == b"null" else options, {"include_usage": b"true"})
    return splice.put(body, values, ask.spans) if values else body


def request_headers(headers: Headers, credential: Credential | None) -> list[tuple[bytes, bytes]]:
    """Choose what goes upstream: the client's own name and betas, no credential but ours, which is always a bearer."""
    return fields.of_request(fields.chosen(headers, _passes), None if credential is None else Credential("bearer", credential.secret))


@lru_cache(maxsize=1024)
def _passes(name: bytes) -> bool:
    return name in _PASSED or name.startswith(b"x-stainless-")


def _count(read: Body) -> int:
    return input_tokens(read.messages(), read.raw(_SHOWN))


def _stream_options(read: Body, body: bytes) -> Body:
    span = read.spans.get("stream_options")
    return Body(b"{}" if span is None or read.value("stream_options") is None else body[span.start : span.end])


def _integer(body: bytes, ask: Ask, name: str) -> int | None:
    span = ask.spans[name]
    return msgspec.json.decode(body[span.start : span.end], type=int | None)
