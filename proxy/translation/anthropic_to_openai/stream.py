"""Streams of Chat Completions as streams of the Messages API.

One block is open at a time there, while arguments of parallel calls may come interleaved here: the first unfinished block is written as it
comes, what belongs to later ones waits until it is complete.
"""

from collections import deque
from typing import Any

import msgspec

from proxy import sse
from proxy.dialects.base import Ask
from proxy.dialects.numbers import word
from proxy.translation.anthropic_to_openai.answer import made_id, message_id, shown, told_usage, tool_use
from proxy.translation.anthropic_to_openai.errors import event_body
from proxy.translation.anthropic_to_openai.stops import stop_reason
from proxy.translation.arguments import ObjectEnd, as_piece
from proxy.translation.events import EventTranslator
from proxy.translation.usage import as_anthropic, as_anthropic_delta

WAITING_LIMIT_CHARACTERS = 8 * 1024 * 1024
CALLS_LIMIT = 1024


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: Any = None


class _CallDelta(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct):
    content: Any = None
    refusal: Any = None
    tool_calls: list[_CallDelta] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    id: str | None = None
    model: str | None = None
    service_tier: str | None = None
    choices: list[_Choice] | None = None
    usage: Any = None
    error: Any = None


_CHUNK = msgspec.json.Decoder(_Chunk)


class _Text:
    """A text block that is or will be open."""

    complete = True
    """Text that comes after something else has begun is another block."""

    def __init__(self) -> None:
        self.waiting: list[str] = []
        self.open = False

    def start(self) -> dict[str, object] | None:
        return {"type": "text", "text": ""}

    def delta(self, piece: str) -> dict[str, object]:
        return {"type": "text_delta", "text": piece}


class _Call:
    """A tool call that is or will be open, or is over."""

    def __init__(self, fallback_id: str) -> None:
        self.waiting: list[str] = []
        self.open = False
        self.over = False
        self.superseded = False
        self.id: str | None = None
        self.name: str | None = None
        self._fallback_id = fallback_id
        self._end = ObjectEnd()

    @property
    def complete(self) -> bool:
        """Whether its arguments are a whole object, or its place was taken by another call."""
        return self._end.ended or self.superseded

    def add(self, piece: str) -> None:
        self.waiting.append(piece)
        self._end.feed(piece)

    def start(self) -> dict[str, object] | None:
        return None if self.name is None else tool_use(self.id or self._fallback_id, self.name, {})

    def delta(self, piece: str) -> dict[str, object]:
        return {"type": "input_json_delta", "partial_json": piece}


class ChatStreamTranslator(EventTranslator):
    """Translates one streamed completion; see `proxy.translation.base.StreamTranslator`.

    `message_start` carries the counted input, `message_delta` the usage that the upstream reports, or an estimate when it reports none.
    """

    def __init__(self, ask: Ask, created_seconds: int) -> None:
        super().__init__()
        self._ask = ask
        self._created_seconds = created_seconds
        self._started = False
        self._id: str | None = None
        self._model: str | None = None
        self._tier: str | None = None
        self._report: object = None
        self._finish_reason: str | None = None
        self._refused = False
        self._blocks = 0
        self._queue: deque[_Text | _Call] = deque()
        self._calls: dict[int, _Call] = {}
        self._calls_made = 0
        self._delivered_characters = 0
        self._waiting_characters = 0

    def _read_data(self, data: bytes) -> bytes:
        if data == b"[DONE]":
            return self._finish()
        try:
            chunk = _CHUNK.decode(data)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return self._fail("The provider sent something that cannot be read.")
        if chunk.error:
            self._ended = True
            return sse.event(event_body(chunk.error), "error")
        self._id = self._id or chunk.id
        self._model = self._model or word(chunk.model)
        self._tier = chunk.service_tier or self._tier
        self._report = chunk.usage or self._report
        written = b""
        for choice in chunk.choices or ():
            if choice.index == 0:
                written += self._start() + self._read_choice(choice)
            if self._ended:
                break
        return written

    def _read_choice(self, choice: _Choice) -> bytes:
        self._finish_reason = choice.finish_reason or self._finish_reason
        delta = choice.delta or _Delta()
        for piece in shown(delta.content):
            self._add_text(piece)
        if isinstance(delta.refusal, str) and delta.refusal:
            self._refused = True
            self._add_text(delta.refusal)
        for call in delta.tool_calls or ():
            if not self._add_call(call):
                return self._fail("The provider sent more arguments for a tool call that was complete.")
        if self._waiting_characters > WAITING_LIMIT_CHARACTERS or self._calls_made > CALLS_LIMIT:
            return self._fail("The provider sent more than can be put in order.")
        return self._flow()

    def _add_text(self, piece: str) -> None:
        if not piece:
            return
        last = self._queue[-1] if self._queue else None
        if not isinstance(last, _Text):
            last = _Text()
            self._queue.append(last)
        last.waiting.append(piece)
        self._count(piece)

    def _add_call(self, delta: _CallDelta) -> bool:
        """Add to a call; False when it is over. A new id under an old index is another call: some servers number every call 0."""
        index = delta.index or 0
        call = self._calls.get(index)
        if call is None or (delta.id and call.id and delta.id != call.id):
            if call is not None:
                call.superseded = True
            call = _Call(made_id(message_id(self._id, self._created_seconds), self._calls_made))
            self._calls[index] = call
            self._calls_made += 1
            self._queue.append(call)
        function = delta.function or _Function()
        call.id = call.id or delta.id or None
        call.name = call.name or self._ask.aliases.get(function.name or "", function.name) or None
        piece = as_piece(function.arguments)
        if call.over:
            return not piece.strip()
        if piece:
            call.add(piece)
            self._count(piece)
        return True

    def _count(self, piece: str) -> None:
        self._delivered_characters += len(piece)
        self._waiting_characters += len(piece)

    def _flow(self) -> bytes:
        """Write what may go out: the first block as far as it is there, and the next once that is complete."""
        written = b""
        while self._queue:
            written += self._write_first()
            first = self._queue[0]
            if not (first.open and first.complete and len(self._queue) > 1):
                break
            written += self._close_first()
        return written

    def _write_first(self) -> bytes:
        first = self._queue[0]
        written = b""
        if not first.open:
            block = first.start()
            if block is None:
                return b""
            first.open = True
            written = _event("content_block_start", index=self._blocks, content_block=block)
        if first.waiting:
            piece = "".join(first.waiting)
            first.waiting.clear()
            self._waiting_characters -= len(piece)
            written += _event("content_block_delta", index=self._blocks, delta=first.delta(piece))
        return written

    def _close_first(self) -> bytes:
        first = self._queue.popleft()
        if isinstance(first, _Call):
            first.over = True
        self._blocks += 1
        return _event("content_block_stop", index=self._blocks - 1)

    def _start(self) -> bytes:
        if self._started:
            return b""
        self._started = True
        usage = told_usage(self._report, self._model or self._ask.model, self._tier, self._ask, 0)
        message: dict[str, object] = {
            "id": message_id(self._id, self._created_seconds),
            "type": "message",
            "role": "assistant",
            "model": self._model or self._ask.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": as_anthropic(usage),
        }
        return _event("message_start", message=message) + _event("ping")

    def _finish(self) -> bytes:
        """End the message as a whole one."""
        written = self._start()
        while self._queue:
            written += self._write_first()
            if not self._queue[0].open:
                return written + self._fail("The provider sent a tool call without a name.")
            written += self._close_first()
        self._ended = True
        reason = stop_reason(self._finish_reason, called=bool(self._calls), refused=self._refused)
        usage = told_usage(self._report, self._model or self._ask.model, self._tier, self._ask, self._delivered_characters)
        delta = {"stop_reason": reason, "stop_sequence": None}
        return written + _event("message_delta", delta=delta, usage=as_anthropic_delta(usage)) + _event("message_stop")

    def _close(self) -> bytes:
        return self._finish() if self._finish_reason else self._fail("The provider broke off.")

    def _error(self, kind: str | None, message: str) -> bytes:
        return sse.event(event_body({"type": kind, "message": message}), "error")

    def _sign(self) -> bytes:
        return _event("ping") if self._started else sse.KEEP_ALIVE + b"\n"


def _event(kind: str, **values: object) -> bytes:
    return sse.event(msgspec.json.encode({"type": kind, **values}), kind)


def stream(ask: Ask, *, created_seconds: int) -> ChatStreamTranslator:
    """Make the translator of one streamed answer."""
    return ChatStreamTranslator(ask, created_seconds)
