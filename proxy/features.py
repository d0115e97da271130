"""What the router may want to know of a request's body beyond what admission counts; read only where it decides something."""

import hashlib
import re

import msgspec

from domain.serving.routers import Features
from models.enums import ModelCapability
from proxy.dialects.base import Ask
from proxy.dialects.counting import MOST_COMMAS

_IMAGE = re.compile(rb'"type"\s*:\s*"(?:image|image_url|input_image|document|file|input_file)"')
_NOTHING = (b"", b"[]", b"null")
_PARTS = msgspec.json.Decoder(list[msgspec.Raw])
_ROLE = re.compile(rb'"role"\s*:\s*"user"')
_INPUTS = ("messages", "input")
_BEFORE = ("system", "instructions")
_KINDS = {"embeddings": ModelCapability.EMBEDDINGS, "speech": ModelCapability.SPEECH, "transcriptions": ModelCapability.TRANSCRIPTION}
LONGEST_LEAD_BYTES = 64 * 1024


def _value(body: bytes, ask: Ask, name: str) -> bytes:
    span = ask.spans.get(name)
    return b"" if span is None else body[span.start : span.end]


def needed(form: str, body: bytes, ask: Ask) -> Features:
    """Return what a request needs of a model: tools where it offers any, sight where a block of its messages is an image or a document."""
    if form in _KINDS:
        return Features(kind=_KINDS[form])
    return Features(
        tools=_value(body, ask, "tools").strip() not in _NOTHING,
        images=any(_IMAGE.search(_value(body, ask, name)) is not None for name in _INPUTS),
    )


def conversation(body: bytes, ask: Ask, secret: str) -> bytes | None:
    """Return what all turns of a conversation have in common and no other has: its caller with its id, or with how it begins; None when that is empty.

    A conversation that names no id begins with its system prompt and everything up to its first user message, which no later turn changes: the
    part of the prompt that a provider has cached.
    """
    digest = hashlib.blake2b(secret.encode(), digest_size=16)
    if ask.conversation is not None:
        digest.update(b"\0" + ask.conversation.encode())
        return digest.digest()
    lead = b"".join(_value(body, ask, name)[:LONGEST_LEAD_BYTES] for name in _BEFORE)
    for name in _INPUTS:
        lead += _first(_value(body, ask, name))
    if not lead:
        return None
    digest.update(b"\1" + lead)
    return digest.digest()


def _first(value: bytes) -> bytes:
    """Return the messages up to the first of a user, or a text as it is."""
    if not value.startswith(b"["):
        return value[:LONGEST_LEAD_BYTES]
    if value.count(b",") > MOST_COMMAS:
        return value[:LONGEST_LEAD_BYTES]
    try:
        messages = _PARTS.decode(value)
    except (msgspec.MsgspecError, RecursionError):
        return b""
    lead = b""
    for message in messages:
        lead += bytes(message)[:LONGEST_LEAD_BYTES]
        if _ROLE.search(bytes(message)):
            break
    return lead
