"""A request's prompt as the cache doctor sees it: digests, and never the text."""

import hashlib
import re
from collections.abc import Iterator

import msgspec

from domain.serving.calls import Ending
from domain.usage.cache_doctor import Turn
from domain.usage.prompts import LEAST_TOKENS, Mark, Prompt, Reply
from models.enums import Bucket, PromptPart, UsageOutcome
from proxy.admission import LetIn
from proxy.dialects.base import Ask

DIGEST_BYTES = 8
FORMS = frozenset({"messages", "chat", "responses"})
SYSTEM = {"messages": "system", "responses": "instructions"}
SAID = {"messages": "messages", "chat": "messages", "responses": "input"}
STEERING = ("tool_choice", "thinking")
"""What Anthropic takes to change the messages of a prompt, though it is none of them."""
INSTRUCTIONS = frozenset({"system", "developer"})

_ELEMENTS = msgspec.json.Decoder(list[msgspec.Raw])
_NAMED = b'"cache_control"'
_MARKER = re.compile(_NAMED + rb"\s*+:\s*+(?:\{[^{}]*+\}|null)\s*+")
_LONE = re.compile(rb'(\{\s*+"role"\s*+:\s*+"\w++"\s*+,\s*+"content"\s*+:\s*+)\[\s*+\{\s*+"type"\s*+:\s*+"text"\s*+,\s*+"text"\s*+:\s*+')
_LONE_END = re.compile(rb"\s*+\}\s*+\]\s*+\}")
_BLOCK = b'{"type"'
"""How a block begins; inside a text the quotes are escaped."""


class _Said(msgspec.Struct):
    role: str = ""


_PROMPT = (Bucket.UNCACHED_INPUT, Bucket.CACHE_READ, Bucket.CACHE_WRITE_5M, Bucket.CACHE_WRITE_1H)
_ROLE = msgspec.json.Decoder(_Said)


def turn_of(call: LetIn, ending: Ending) -> Turn | None:
    """Return a call that is over as the doctor takes it; None for one that no prompt cache has to do with, or whose answer did not say."""
    used, ask = ending.consumption, call.ask
    amounts = [used.quantities.get(bucket, 0) for bucket in _PROMPT]
    if sum(amounts) < LEAST_TOKENS or not used.reported or ending.outcome is not UsageOutcome.SUCCEEDED or not ending.attempts or call.opening.echo:
        return None
    form = call.dialect.form
    if form not in FORMS or "previous_response_id" in ask.spans or not ending.price.prices(Bucket.CACHE_READ):
        return None
    last = ending.attempts[-1]
    candidate = next((one for one in call.plan.candidates if one.upstream.name == ending.provider), call.plan.candidates[0])
    reply = Reply(
        call_id=ending.call_id,
        began_at=call.opening.created_at,
        ready_at=last.first_byte_at or last.finished_at,
        model=ending.model,
        upstream=ending.provider,
        automatic=candidate.upstream.dialect != "anthropic",
        fresh_tokens=amounts[0],
        read_tokens=amounts[1],
        written_tokens=amounts[2] + amounts[3],
    )
    return Turn(
        workspace_id=ending.workspace_id,
        key_id=call.admitted.key_id,
        conversation=ask.conversation,
        reply=reply,
        price=ending.price,
        used=used,
        paid=call.admitted.payer == "cash",
        size_bytes=len(call.body),
        read=lambda salt: read(form, call.body, ask, salt),
        standing=ending.standing,
    )


def read(form: str, body: bytes, ask: Ask, salt: bytes) -> Prompt | None:
    """Return the prompt of a body that was parsed before; None where it has no messages that can be told apart. Linear in the body.

    Where a client says what is to be cached moves from turn to turn and is no part of the prompt; nor is whether a lone text is written as itself or
    as a list of one, which tools do for the sake of it.
    """
    marked = "cache_control" in ask.spans
    rolling = hashlib.sha256(salt)
    marks: list[Mark] = []
    size = 0
    alone: dict[PromptPart, bytes] = {}
    try:
        parts = dict(_parts(form, body, ask))
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    for part in PromptPart:
        apart = hashlib.sha256(salt + part.value.encode())
        rolling.update(b"\0" + part.value.encode())
        if part is PromptPart.MESSAGES and form == "messages":
            for name in STEERING:
                rolling.update(b"\0" + _value(body, ask, name))
        for index, raw in enumerate(parts[part]):
            element = raw
            if _NAMED in element:
                element = _unmarked(element)
                marked = marked or len(element) < len(raw)
            if part is not PromptPart.TOOLS:
                element = _plain(element)
            head = b"\1%d:" % len(element)
            rolling.update(head)
            rolling.update(element)
            if part is not PromptPart.MESSAGES or not index:
                apart.update(head)
                apart.update(element)
            size += len(element)
            marks.append(Mark(part, index, size, rolling.copy().digest()[:DIGEST_BYTES]))
        alone[part] = apart.digest()[:DIGEST_BYTES]
    if not parts[PromptPart.MESSAGES]:
        return None
    return Prompt(alone[PromptPart.TOOLS], alone[PromptPart.SYSTEM], alone[PromptPart.MESSAGES], marked, tuple(marks))


def _unmarked(element: bytes) -> bytes:
    """Return an element without its cache breakpoints, each with one of the commas beside it; inside a text the quotes are escaped, and none is found."""
    pieces: list[bytes] = []
    begin, at = 0, element.find(_NAMED)
    while at >= 0:
        marker = _MARKER.match(element, at)
        if marker is None:
            at = element.find(_NAMED, at + 1)
            continue
        end, go_on = at, marker.end()
        while end > begin and element[end - 1] in b" \t\r\n":
            end -= 1
        if end > begin and element[end - 1] == ord(","):
            end -= 1
        elif element.startswith(b",", go_on):
            go_on += 1
        pieces.append(element[begin:end])
        begin, at = go_on, element.find(_NAMED, go_on)
    return b"".join([*pieces, element[begin:]])


def _plain(element: bytes) -> bytes:
    """Return a message whose content is a list of one text with that text as its content; any other as it is."""
    begun = _LONE.match(element)
    end = element.rfind(b'"') + 1
    if begun is None or _LONE_END.fullmatch(element, end) is None or element.count(_BLOCK) != 1:
        return element
    return begun[1] + element[begun.end() : end] + b"}"


def _value(body: bytes, ask: Ask, name: str) -> bytes:
    span = ask.spans.get(name)
    return b"" if span is None else body[span.start : span.end]


def _parts(form: str, body: bytes, ask: Ask) -> Iterator[tuple[PromptPart, list[bytes]]]:
    yield PromptPart.TOOLS, _elements(_value(body, ask, "tools"))
    said = _elements(_value(body, ask, SAID[form]))
    system = _elements(_value(body, ask, SYSTEM[form])) if form in SYSTEM else []
    leading = 0
    if form != "messages":
        while leading < len(said) and _role(said[leading]) in INSTRUCTIONS:
            leading += 1
    yield PromptPart.SYSTEM, system + said[:leading]
    yield PromptPart.MESSAGES, said[leading:]


def _elements(value: bytes) -> list[bytes]:
    """Return the elements of an array as they are written; anything else is one element, and null is none."""
    if not value or value == b"null":
        return []
    return [bytes(raw) for raw in _ELEMENTS.decode(value)] if value.startswith(b"[") else [value]


def _role(element: bytes) -> str:
    return _ROLE.decode(element).role if element.startswith(b"{") else ""
