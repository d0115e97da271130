"""Requests of the Messages API."""

from functools import lru_cache

import msgspec

from proxy import splice
from proxy.dialects import headers as fields
from proxy.dialects.anthropic.usage import container_of
from proxy.dialects.base import Ask, BadRequest, Credential, Headers
from proxy.dialects.bodies import Body, identity
from proxy.dialects.counting import input_tokens
from proxy.dialects.numbers import word
from proxy.dialects.tool_names import aliases

OLDEST_VERSION = b"2023-06-01"
_PASSED = frozenset({b"accept", b"content-type", b"user-agent"})
_SECRETS = (b"key", b"token", b"auth", b"cookie")
_SHOWN = ("system", "tools", "output_config", "output_format")


def parse(body: bytes) -> Ask:
    """Read a request body; `max_tokens` may be 0, roles and unknown fields are the upstream's matter. Raises BadRequest and nothing else.

    A `container` of an earlier answer passes, where it is the workspace's own: what tools left in it is its workspace's alone.
    Source: the Messages API reference, versions 2023-06-01 and 2026-10-21.
    """
    read = Body(body)
    model = read.model()
    max_tokens = read.integer("max_tokens", 0)
    if max_tokens is None:
        raise BadRequest("max_tokens: Field required", "max_tokens")
    container = container_of(read.value("container"))
    end_user, conversation = _identities(read.mapping("metadata").get("user_id"))
    return Ask(
        model=model,
        streamed=read.boolean("stream"),
        input_tokens=_count(read),
        max_output_tokens=max_tokens,
        choices=1,
        include_usage=True,
        end_user=end_user,
        conversation=conversation,
        spans=read.spans,
        aliases=aliases(read.raw(("tools",))),
        names=() if container is None else (word(container) or "?",),  # what can be no id is one that nobody was given
        named_in="container",
        fast=read.value("speed") == "fast",
    )


def count(body: bytes) -> int:
    """Estimate the input tokens of a body of /v1/messages/count_tokens or /v1/messages. Raises BadRequest and nothing else."""
    return _count(Body(body))


def rewrite(body: bytes, ask: Ask, *, model: str | None = None, max_output_tokens: int | None = None) -> bytes:
    """Give the body with another model's name and a lower `max_tokens`; every other byte is the client's (F37)."""
    values: dict[str, bytes] = {}
    if model is not None and model != ask.model:
        values["model"] = msgspec.json.encode(model)
    if max_output_tokens is not None and ask.max_output_tokens is not None and max_output_tokens < ask.max_output_tokens:
        values["max_tokens"] = str(max_output_tokens).encode()
    return splice.put(body, values, ask.spans) if values else body


def request_headers(headers: Headers, credential: Credential | None) -> list[tuple[bytes, bytes]]:
    """Choose what goes upstream: version and betas word for word, the client's own name, no credential but ours.

    The API wants a version; a client that names none, as one of another dialect, gets the oldest that is served.
    """
    passed = fields.chosen(headers, _passes)
    if not any(name == b"anthropic-version" for name, _ in passed):
        passed.append((b"anthropic-version", OLDEST_VERSION))
    return fields.of_request(passed, credential)


@lru_cache(maxsize=1024)
def _passes(name: bytes) -> bool:
    if name.startswith(b"anthropic-"):
        return not any(word in name for word in _SECRETS)
    return name in _PASSED or name.startswith(b"x-stainless-")


def _count(read: Body) -> int:
    return input_tokens(read.messages(), read.raw(_SHOWN))


def _identities(user: object) -> tuple[str | None, str | None]:
    """Tell the end user and the conversation apart in what coding tools pack into `metadata.user_id`.

    Claude Code writes a JSON object with device_id, account_uuid and session_id; before, it wrote `user_..._session_...`.
    """
    if not isinstance(user, str):
        return None, None
    if user.startswith("{"):
        try:
            packed = msgspec.json.decode(user.encode())
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return identity(user), None
        person = packed.get("account_uuid") or packed.get("device_id") or user
        return identity(person) or identity(user), identity(packed.get("session_id"))
    person, mark, session = user.rpartition("_session_")
    return (identity(person), identity(session)) if mark and person.startswith("user_") else (identity(user), None)
