"""Streams of the Messages API as streams of Chat Completions."""

from typing import Any

import msgspec

from proxy import sse
from proxy.dialects.anthropic.usage import merge
from proxy.dialects.base import Ask
from proxy.dialects.numbers import word
from proxy.translation.arguments import as_text
from proxy.translation.events import EventTranslator
from proxy.translation.openai_to_anthropic.answer import completion_id, told_usage
from proxy.translation.openai_to_anthropic.errors import event_body
from proxy.translation.openai_to_anthropic.stops import finish_reason

OPEN_CALLS_LIMIT = 1024
_NOTHING = msgspec.Raw()


class _Block(msgspec.Struct):
    type: str = ""
    text: str | None = None
    id: str | None = None
    name: str | None = None
    input: msgspec.Raw = _NOTHING


class _Delta(msgspec.Struct):
    type: str = ""
    text: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None


class _Message(msgspec.Struct):
    id: str | None = None
    model: str | None = None
    usage: Any = None


class _Event(msgspec.Struct):
    type: str = ""
    index: int = 0
    message: _Message | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: Any = None
    error: Any = None


_EVENT = msgspec.json.Decoder(_Event)
_ANY_EVENT = msgspec.json.Decoder(dict[str, Any])
_KNOWN = frozenset(
    {"message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta", "message_stop", "error"}
)


class _Call:
    """A tool call that is open: its number among the calls, and what stands for its arguments when none come."""

    def __init__(self, number: int, whole: str) -> None:
        self.number = number
        self.whole = whole
        self.told = False


class MessageStreamTranslator(EventTranslator):
    """Translates one streamed answer; see `proxy.translation.base.StreamTranslator`.

    The usage chunk, and `usage: null` on the others, come only when the client asked. Calls are numbered from 0, whatever their blocks'
    numbers; a call without arguments gets `{}`, for an empty text is no JSON.
    """

    def __init__(self, ask: Ask, created_seconds: int) -> None:
        super().__init__()
        self._ask = ask
        self._created_seconds = created_seconds
        self._started = False
        self._id = completion_id(None, created_seconds)
        self._model = ask.model
        self._report: dict[str, object] = {}
        self._stop_reason: str | None = None
        self._open: dict[int, _Call] = {}
        self._calls = 0

    def _read_data(self, data: bytes) -> bytes:
        try:
            event = _EVENT.decode(data)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return b"" if _is_unknown(data) else self._fail("The provider sent something that cannot be read.")
        match event.type:
            case "content_block_delta":
                return self._read_delta(event.index, event.delta or _Delta())
            case "content_block_start":
                return self._read_block(event.index, event.content_block or _Block())
            case "content_block_stop":
                return self._close_call(event.index)
            case "message_start":
                return self._read_start(event.message or _Message())
            case "message_delta":
                merge(self._report, event.usage)
                self._stop_reason = (event.delta.stop_reason if event.delta else None) or self._stop_reason
                return b""
            case "message_stop":
                return self._finish()
            case "error":
                self._ended = True
                return sse.event(event_body(event.error))
            case _:
                return self._sign() if event.type == "ping" else b""

    def _read_start(self, message: _Message) -> bytes:
        self._id = completion_id(message.id, self._created_seconds)
        self._model = word(message.model) or self._model
        merge(self._report, message.usage)
        return self._start()

    def _start(self) -> bytes:
        if self._started:
            return b""
        self._started = True
        return self._delta({"role": "assistant", "content": "", "refusal": None})

    def _read_block(self, index: int, block: _Block) -> bytes:
        if block.type == "text":
            return self._start() + (self._delta({"content": block.text}) if block.text else b"")
        if block.type != "tool_use":
            return b""
        if len(self._open) >= OPEN_CALLS_LIMIT:
            return self._fail("The provider sent more than can be put in order.")
        call = _Call(self._calls, as_text(block.input))
        self._calls += 1
        self._open[index] = call
        function = {"name": block.name or "", "arguments": ""}
        told = {"index": call.number, "id": block.id or "", "type": "function", "function": function}
        return self._start() + self._delta({"tool_calls": [told]})

    def _read_delta(self, index: int, delta: _Delta) -> bytes:
        if delta.text:
            return self._start() + self._delta({"content": delta.text})
        call = self._open.get(index)
        if call is None or not delta.partial_json:
            return b""
        call.told = True
        return self._arguments(call, delta.partial_json)

    def _close_call(self, index: int) -> bytes:
        call = self._open.pop(index, None)
        return b"" if call is None or call.told else self._arguments(call, call.whole)

    def _arguments(self, call: _Call, piece: str) -> bytes:
        return self._delta({"tool_calls": [{"index": call.number, "function": {"arguments": piece}}]})

    def _finish(self) -> bytes:
        """End the completion as a whole one."""
        written = self._start() + b"".join(self._close_call(index) for index in sorted(self._open))
        self._ended = True
        written += self._delta({}, finish_reason(self._stop_reason))
        usage = told_usage(self._report, self._model) if self._ask.include_usage else None
        if usage is not None:
            written += self._chunk([], usage)
        return written + sse.event(b"[DONE]")

    def _delta(self, delta: dict[str, object], reason: str | None = None) -> bytes:
        return self._chunk([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}], None)

    def _chunk(self, choices: list[dict[str, object]], usage: dict[str, object] | None) -> bytes:
        chunk: dict[str, object] = {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": self._created_seconds,
            "model": self._model,
            "choices": choices,
        }
        return sse.event(msgspec.json.encode({**chunk, "usage": usage} if self._ask.include_usage else chunk))

    def _close(self) -> bytes:
        return self._finish() if self._stop_reason else self._fail("The provider broke off.")

    def _error(self, kind: str | None, message: str) -> bytes:
        return sse.event(event_body({"type": kind, "message": message}))

    def _sign(self) -> bytes:
        return sse.KEEP_ALIVE + b"\n"


def _is_unknown(data: bytes) -> bool:
    """Tell whether an event of another shape is one of those that are still to be invented, and of no matter."""
    try:
        kind = _ANY_EVENT.decode(data).get("type")
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False
    return isinstance(kind, str) and kind not in _KNOWN


def stream(ask: Ask, *, created_seconds: int) -> MessageStreamTranslator:
    """Make the translator of one streamed answer."""
    return MessageStreamTranslator(ask, created_seconds)
