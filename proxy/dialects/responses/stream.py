"""Streams of the Responses API.

Named events with a running `sequence_number`: response.created, items and their deltas, and one of response.completed, response.incomplete
and response.failed, each with the whole response and its usage. `error` at any time; no `[DONE]`.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from proxy import sse
from proxy.dialects.base import Ask, Refusal, Skim, StreamError, Usage
from proxy.dialects.numbers import Unsound, doubtful, word
from proxy.dialects.openai.errors import told
from proxy.dialects.openai.stream import OPERATOR_ERRORS
from proxy.dialects.responses.usage import MOST_KEPT, beside, estimated, named, reported, searched, written
from proxy.dialects.stream import OPERATOR_ERROR_MESSAGE, LineMeter

CREATED_LIMIT_BYTES = 256 * 1024
"""How much of the first event is kept, to end the stream with what it says; a larger one is told by its id alone."""

_TEXTS = frozenset({"response.output_text.delta", "response.refusal.delta", "response.audio.transcript.delta"})
_TERMINAL = frozenset({"response.completed", "response.incomplete", "response.failed"})
_NOTHING = msgspec.Raw()


class _Event(msgspec.Struct):
    type: str = ""
    sequence_number: int = 0
    output_index: int = 0
    delta: Any = None
    item: Any = None
    response: msgspec.Raw = _NOTHING
    error: Any = None
    code: Any = None
    message: Any = None


class _MoreEvent(msgspec.Struct, gc=False):
    """As much of an event as tells whether it is more text."""

    type: str = ""
    sequence_number: int = 0
    output_index: int = 0
    delta: str = ""


_EVENT = msgspec.json.Decoder(_Event)
_MORE_EVENT = msgspec.json.Decoder(_MoreEvent)
_MORE = b"event: response.output_text.delta\ndata: "
_MORE_BYTES = len(_MORE)
_OBJECT = msgspec.json.Decoder(dict[str, Any])


class ResponsesMeter(LineMeter):
    """Reads a stream of the Responses API; see `proxy.dialects.base.Meter`."""

    def __init__(self, ask: Ask) -> None:
        super().__init__(ask)
        self._created: dict[str, Any] = {}
        self._last: dict[str, Any] = {}
        self._searches = 0
        self._items: list[dict[str, Any]] = []
        self._next_number = 0

    @property
    def usage(self) -> Usage:
        """What the answer used so far; nothing at all before something was delivered. A failed answer costs what it reports."""
        response = self._last or self._created
        return replace(self._used(response), kept=named(response, self._items or self._output()) if self.ask.kept else ())

    def _used(self, response: dict[str, Any]) -> Usage:
        model, tier = word(response.get("model")), word(response.get("service_tier"))
        nonsense = False
        if self._last:
            try:
                usage = reported(self._last.get("usage"), model, tier)
            except Unsound as fault:
                nonsense = doubtful(fault)
            else:
                told = beside(usage, self._output())
                return replace(told, web_searches=max(told.web_searches, self._searches))
        if not self.first_token_seen and not self.complete:
            return Usage()
        usage = estimated(None, model, tier, self.ask, self.delivered_characters)
        return replace(usage, web_searches=self._searches, doubtful=nonsense)

    def _output(self) -> list[dict[str, Any]]:
        """Give the items that the last event tells."""
        items = self._last.get("output")
        return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []

    def fail(self, refusal: Refusal) -> bytes:
        """Give the error event, which the SDKs raise, and the failed response after it, which Codex reads."""
        error = told(refusal)
        failed = {"status": "failed", "error": {"code": error["code"] or error["type"], "message": error["message"]}}
        return self._ending(self._event("error", code=error["code"], message=error["message"], param=error["param"], error=error) + self._end_as("failed", failed))

    def conclude(self) -> bytes:
        """End the response as one that has reached its token limit."""
        usage = self.usage
        told = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}, "usage": written(usage)}
        return self._ending(self._end_as("incomplete", told))

    def _end_as(self, status: str, values: Mapping[str, object]) -> bytes:
        known = self._created or {"id": "resp_concluded", "object": "response", "created_at": 0, "model": self.ask.model, "output": []}
        return self._event(f"response.{status}", response={**known, **values})

    def _event(self, kind: str, **values: object) -> bytes:
        number = self._next_number
        self._next_number += 1
        return sse.event(msgspec.json.encode({"type": kind, "sequence_number": number, **values}), kind)

    def _read_data(self, data: bytes) -> bytes:
        try:
            event = _EVENT.decode(data)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            self._read_odd(data)
            return data
        self._next_number = event.sequence_number + 1
        if isinstance(event.delta, str):
            if event.delta:
                self._read_delta(event.type, event.delta, event.output_index)
        elif event.type.startswith("response.output_item."):
            self._read_item(event.type, event.item)
        else:
            self._read_frame(event.type, bytes(event.response), event.error or {"code": event.code, "message": event.message})
        return data

    def _skimmer(self) -> Skim:
        decode, add = _MORE_EVENT.decode, self._text.add

        def skim(event: bytes) -> bool:
            if event[:_MORE_BYTES] != _MORE or event[-4:] != b"\n\n\r\n":
                return False
            try:
                told = decode(event[_MORE_BYTES:-4])
            except (msgspec.MsgspecError, ValueError, RecursionError):
                return False
            if told.type != "response.output_text.delta" or not told.delta:
                return False
            self._next_number = told.sequence_number + 1
            add(told.delta, told.output_index)
            return True

        return skim

    def _read_odd(self, data: bytes) -> None:
        """Read an event whose shape is not the known one for what matters to the books; what is no JSON object is passed over."""
        try:
            event = _OBJECT.decode(data)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return
        kind = event.get("type")
        if isinstance(kind, str):
            response = event.get("response")
            self._read_frame(kind, msgspec.json.encode(response) if isinstance(response, dict) else b"", event.get("error"))

    def _read_delta(self, kind: str, delta: str, index: int) -> None:
        if kind in _TEXTS:
            self._text.add(delta, index)
        elif kind != "response.audio.delta":
            self._other_characters += len(delta)
        self.first_token_seen = True

    def _read_item(self, kind: str, item: object) -> None:
        if isinstance(item, dict):
            self.first_token_seen = True
            if kind == "response.output_item.done":
                self._searches += item.get("type") == "web_search_call" and searched(item)
                if len(self._items) < MOST_KEPT:
                    self._items.append({"id": item.get("id")})

    def _read_frame(self, kind: str, response: bytes, error: object) -> None:
        if kind == "error":
            self._read_error(error)
        elif kind == "response.created":
            self._created = _object(response) if len(response) <= CREATED_LIMIT_BYTES else {}
        elif kind in _TERMINAL:
            self._last = _object(response) or {"status": kind.removeprefix("response.")}
            self.ended = True
            if kind == "response.failed":
                self._read_error(self._last.get("error"))
            else:
                self.complete = True

    def _read_error(self, error: object) -> None:
        values = error if isinstance(error, dict) else {"message": error}
        kinds = {word(values.get("type")), word(values.get("code"))}
        kind = next(iter(kinds & OPERATOR_ERRORS), None) or word(values.get("code")) or word(values.get("type")) or "server_error"
        self.error = StreamError(kind, str(values.get("message") or ""))
        self.ended = True
        if kind in OPERATOR_ERRORS:
            ours = {"message": OPERATOR_ERROR_MESSAGE, "type": "server_error", "param": None, "code": "upstream_failed"}
            failed = {"status": "failed", "error": {"code": ours["code"], "message": ours["message"]}}
            self._end_with(self._event("error", **{**ours, "type": "error"}, error=ours) + self._end_as("failed", failed))


def _object(text: bytes) -> dict[str, Any]:
    try:
        return _OBJECT.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return {}


def meter(ask: Ask) -> ResponsesMeter:
    """Make the meter of one streamed answer."""
    return ResponsesMeter(ask)
