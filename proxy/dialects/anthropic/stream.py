"""Streams of the Messages API.

Order: message_start, blocks, message_delta with cumulative usage, message_stop; `ping` and unknown events anywhere; `error` at any time.
"""

from typing import Any

import msgspec
from msgspec.structs import replace

from proxy import sse
from proxy.dialects.anthropic import errors
from proxy.dialects.anthropic.usage import container_of, estimated, merge, reported, uncharged
from proxy.dialects.base import Ask, Refusal, Skim, StreamError, Usage
from proxy.dialects.numbers import Unsound, doubtful, word
from proxy.dialects.stream import OPERATOR_ERROR_MESSAGE, LineMeter

# What an upstream says of the operator's account: it is not the customer's.
_OPERATOR_ERRORS = frozenset({"authentication_error", "billing_error", "permission_error"})
_OPEN_BLOCKS_LIMIT = 1024


class _Delta(msgspec.Struct):
    text: str | None = None
    partial_json: str | None = None
    thinking: str | None = None
    content: str | None = None
    stop_reason: str | None = None
    container: Any = None


class _Event(msgspec.Struct):
    type: str = ""
    index: int = 0
    delta: _Delta | None = None
    message: Any = None
    content_block: Any = None
    usage: Any = None
    error: Any = None


class _MoreDelta(msgspec.Struct, gc=False):
    text: str | None = None
    partial_json: str | None = None
    thinking: str | None = None
    content: str | None = None


class _MoreEvent(msgspec.Struct, gc=False):
    """As much of an event as tells whether it is more of what a model makes."""

    type: str = ""
    delta: _MoreDelta | None = None


_EVENT = msgspec.json.Decoder(_Event)
_MORE_EVENT = msgspec.json.Decoder(_MoreEvent)
_MORE = b"event: content_block_delta\ndata: "
_MORE_BYTES = len(_MORE)
_ANY_EVENT = msgspec.json.Decoder(dict[str, Any])


class AnthropicMeter(LineMeter):
    """Reads a stream of the Messages API; see `proxy.dialects.base.Meter`."""

    def __init__(self, ask: Ask) -> None:
        super().__init__(ask)
        self._report: dict[str, object] = {}
        self._model: str | None = None
        self._started = False
        self._final = False
        self._stop_reason: str | None = None
        self._container: str | None = None
        self._open_blocks: set[int] = set()
        self._searches = 0

    @property
    def usage(self) -> Usage:
        """What the answer used so far; nothing at all before the stream has started."""
        used = self._used()
        return used if self._container is None else replace(used, kept=(self._container,))

    def _used(self) -> Usage:
        if not (self._started or self.first_token_seen or self._final or self.complete):
            return Usage()
        nonsense = False
        if self._final and (self._stop_reason or self.complete):
            try:
                usage = reported(self._report, self._model)
            except Unsound as fault:
                nonsense = doubtful(fault)
            else:
                return uncharged(usage) if self._stop_reason == "refusal" and not self.delivered_characters else usage
        usage = estimated(self._report, self._model, self.ask, self.delivered_characters, self._searches)
        return replace(usage, doubtful=True) if nonsense else usage

    def fail(self, refusal: Refusal) -> bytes:
        """Give the error event after which no message_stop comes."""
        return self._ending(errors.event(refusal))

    def conclude(self) -> bytes:
        """Close the open blocks and end the message as one that has reached `max_tokens`."""
        usage = self.usage
        events = b""
        if not self._started:
            message = {"id": "msg_concluded", "type": "message", "role": "assistant", "model": self.ask.model, "content": []}
            counts = {"input_tokens": usage.input_tokens, "output_tokens": 0}
            events += _event("message_start", message={**message, "stop_reason": None, "stop_sequence": None, "usage": counts})
        for index in sorted(self._open_blocks):
            events += _event("content_block_stop", index=index)
        delta = {"stop_reason": "max_tokens", "stop_sequence": None}
        events += _event("message_delta", delta=delta, usage={"output_tokens": usage.output_tokens})
        return self._ending(events + _event("message_stop"))

    def _read_data(self, data: bytes) -> bytes:
        try:
            event = _EVENT.decode(data)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            self._read_odd(data)
            return data
        match event.type:
            case "content_block_delta":
                if event.delta is not None:
                    self._read_delta(event.delta)
            case "content_block_start":
                self._read_block(event.index, event.content_block)
            case "content_block_stop":
                self._open_blocks.discard(event.index)
            case "message_delta":
                if event.delta is not None and event.delta.stop_reason:
                    self._stop_reason = event.delta.stop_reason
                if event.delta is not None and event.delta.container is not None:
                    self._container = word(container_of(event.delta.container))
                self._read_usage(event.usage)
            case _:
                self._read_frame(event.type, event.message, event.error)
        return data

    def _skimmer(self) -> Skim:
        decode, add = _MORE_EVENT.decode, self._text.later

        def skim(event: bytes) -> bool:
            if event[:_MORE_BYTES] != _MORE or event[-4:] != b"\n\n\r\n":
                return False
            try:
                told = decode(event[_MORE_BYTES:-4])
            except (msgspec.MsgspecError, ValueError, RecursionError):
                return False
            delta = told.delta
            if delta is None or told.type != "content_block_delta":
                return False
            if text := delta.text:
                add(text)
            if other := delta.partial_json or delta.thinking or delta.content:
                self._other_characters += len(other)
            return True

        return skim

    def _read_odd(self, data: bytes) -> None:
        """Read an event whose shape is not the known one for what matters to the books; what is no JSON object is passed over."""
        try:
            event = _ANY_EVENT.decode(data)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return
        kind = event.get("type")
        delta = event.get("delta")
        if kind == "message_delta":
            if isinstance(delta, dict):
                self._stop_reason = word(delta.get("stop_reason")) or self._stop_reason
                self._container = word(container_of(delta.get("container"))) or self._container
            self._read_usage(event.get("usage"))
        elif isinstance(kind, str):
            self._read_frame(kind, event.get("message"), event.get("error"))

    def _read_delta(self, delta: _Delta) -> None:
        if delta.text:
            self._text.add(delta.text)
            self.first_token_seen = True
        other = delta.partial_json or delta.thinking or delta.content
        if other:
            self._other_characters += len(other)
            self.first_token_seen = True

    def _read_block(self, index: int, block: object) -> None:
        if len(self._open_blocks) < _OPEN_BLOCKS_LIMIT:
            self._open_blocks.add(index)
        if not isinstance(block, dict):
            return
        match block.get("type"):
            case "text":
                self._text.end_line()
                text = block.get("text")
                if isinstance(text, str) and text:
                    self._text.add(text)
                    self.first_token_seen = True
            case "server_tool_use":
                self._searches += block.get("name") == "web_search"
                self.first_token_seen = True
            case "tool_use" | "redacted_thinking":
                self.first_token_seen = True

    def _read_usage(self, usage: object) -> None:
        if isinstance(usage, dict):
            merge(self._report, usage)
            self._final = True

    def _read_frame(self, kind: str, message: object, error: object) -> None:
        match kind:
            case "message_start":
                self._started = True
                if isinstance(message, dict):
                    merge(self._report, message.get("usage"))
                    self._model = word(message.get("model"))
                    self._container = word(container_of(message.get("container")))
            case "message_stop":
                self.ended = self.complete = True
            case "error":
                told = error if isinstance(error, dict) else {}
                self.error = StreamError(word(told.get("type")) or "api_error", str(told.get("message") or ""))
                self.ended = True
                if self.error.type in _OPERATOR_ERRORS:
                    self._end_with(_event("error", error={"type": "api_error", "message": OPERATOR_ERROR_MESSAGE}))


def _event(kind: str, **values: object) -> bytes:
    return sse.event(msgspec.json.encode({"type": kind, **values}), kind)


def meter(ask: Ask) -> AnthropicMeter:
    """Make the meter of one streamed answer."""
    return AnthropicMeter(ask)
