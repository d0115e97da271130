"""Streams of the Chat Completions API.

Chunks, then one with usage and no choices, then `[DONE]`. Seen besides: usage on the chunk that finishes, cumulative usage on every
chunk, a first chunk without choices (Azure), comments, no `[DONE]`.
"""

import re
from typing import Any

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from proxy import splice, sse
from proxy.dialects.base import Ask, Refusal, Skim, StreamError, Usage
from proxy.dialects.numbers import Unsound, doubtful, word
from proxy.dialects.openai import errors
from proxy.dialects.openai.request import CHOICES_LIMIT
from proxy.dialects.openai.usage import estimated, hidden_characters, reported, searched, shown, written
from proxy.dialects.stream import OPERATOR_ERROR_MESSAGE, LineMeter

OPERATOR_ERRORS = frozenset({"authentication_error", "permission_error", "insufficient_quota", "invalid_api_key", "billing_error"})
"""What an upstream says of the operator's account: it is not the customer's."""

_STATUSES = {"401": "authentication_error", "402": "billing_error", "403": "permission_error"}
_NULL_USAGE = re.compile(rb',\s*"usage"\s*:\s*null|"usage"\s*:\s*null\s*,?')


class _Function(msgspec.Struct):
    arguments: str | None = None


class _ToolCall(msgspec.Struct):
    function: _Function | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None
    audio: Any = None
    function_call: Any = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    id: str | None = None
    created: int | None = None
    model: str | None = None
    service_tier: str | None = None
    choices: list[_Choice] | None = None
    usage: Any = UNSET
    error: Any = None
    prompt_filter_results: Any = None


class _TextDelta(msgspec.Struct, gc=False):
    content: str | None = None


class _TextChoice(msgspec.Struct, gc=False):
    index: int = 0
    delta: _TextDelta | None = None
    finish_reason: str | None = None


class _TextChunk(msgspec.Struct, gc=False):
    """As much of a chunk as tells whether it is nothing but text."""

    choices: list[_TextChoice] | None = None
    model: str | None = None
    service_tier: str | None = None
    usage: Any = UNSET
    error: Any = None


_CHUNK = msgspec.json.Decoder(_Chunk)
_TEXT_CHUNK = msgspec.json.Decoder(_TextChunk)
_ANY_CHUNK = msgspec.json.Decoder(dict[str, Any])


class OpenAIMeter(LineMeter):
    """Reads a stream of the Chat Completions API; see `proxy.dialects.base.Meter`.

    When the client did not ask for usage, which we always do, the chunk that has only usage and every null `usage` field are taken out:
    clients index `choices[0]`. Nothing else ever changes.
    """

    def __init__(self, ask: Ask) -> None:
        super().__init__(ask)
        self._report: object = None
        self._id: str | None = None
        self._created: int | None = None
        self._model: str | None = None
        self._tier: str | None = None
        self._seen: set[int] = set()
        self._finished: set[int] = set()

    @property
    def usage(self) -> Usage:
        """What the answer used so far; nothing at all before something was delivered."""
        nonsense = False
        if self.complete:
            try:
                return searched(reported(self._report, self._model, self._tier), self.ask)
            except Unsound as fault:
                nonsense = doubtful(fault)
        elif not self.first_token_seen and self._report is None:
            return Usage()
        usage = estimated(self._report, self._model, self._tier, self.ask, self.delivered_characters)
        return searched(replace(usage, doubtful=True) if nonsense else usage, self.ask)

    def fail(self, refusal: Refusal) -> bytes:
        """Give the error chunk after which no `[DONE]` comes."""
        return self._ending(errors.event(refusal))

    def conclude(self) -> bytes:
        """Finish every open choice as one that has reached its token limit, show usage to who asked, and end the stream."""
        unfinished = sorted((self._seen or {0}) - self._finished)
        events = b"".join(self._chunk([{"index": index, "delta": {}, "finish_reason": "length"}]) for index in unfinished)
        if self.ask.include_usage:
            events += self._chunk([], usage=written(self.usage))
        return self._ending(events + sse.event(b"[DONE]"))

    def _chunk(self, choices: list[dict[str, object]], **more: object) -> bytes:
        head = {"id": self._id or "chatcmpl-concluded", "object": "chat.completion.chunk", "created": self._created or 0}
        return sse.event(msgspec.json.encode({**head, "model": self._model or self.ask.model, "choices": choices, **more}))

    def _read_data(self, data: bytes) -> bytes | None:
        try:
            chunk = _CHUNK.decode(data)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return self._read_odd(data)
        choices = chunk.choices
        if choices:
            choice = choices[0]
            plain = choice.index == 0 and choice.finish_reason is None and chunk.usage is UNSET and chunk.error is None and 0 in self._seen
            if plain and len(choices) == 1 and chunk.model == self._model and chunk.service_tier == self._tier and (delta := choice.delta) and delta.content:
                self._text.add(delta.content)  # as nearly every one is: some text of the only answer
                self.first_token_seen = True
                return data
            for choice in choices:
                delta = choice.delta
                if delta is not None:
                    self._read_delta(choice.index, delta)
                self._read_choice(choice.index, choice.finish_reason)
        if self._id is None:
            self._id, self._created = chunk.id, chunk.created
        self._model = chunk.model or self._model
        self._tier = chunk.service_tier or self._tier
        if chunk.error:
            self._read_error(chunk.error)
        if chunk.usage is UNSET:
            return data
        return self._read_usage(data, chunk.usage, bool(chunk.choices or chunk.prompt_filter_results))

    def _skimmer(self) -> Skim | None:
        if 0 not in self._seen:
            return None
        decode, add, model, tier = _TEXT_CHUNK.decode, self._text.later, self._model, self._tier

        def skim(event: bytes) -> bool:
            if event[:6] != b"data: " or event[-4:] != b"\n\n\r\n":
                return False
            try:
                chunk = decode(event[6:-4])
            except (msgspec.MsgspecError, ValueError, RecursionError):
                return False
            choices = chunk.choices
            if not choices or len(choices) != 1 or chunk.usage is not UNSET or chunk.error is not None or chunk.model != model or chunk.service_tier != tier:
                return False
            choice = choices[0]
            if choice.index or choice.finish_reason is not None or choice.delta is None or not (text := choice.delta.content):
                return False
            add(text)
            return True

        return skim

    def _read_odd(self, data: bytes) -> bytes | None:
        """Read data whose shape is not the known one for what matters to the books; what is no JSON object passes."""
        if data.strip() == b"[DONE]":
            self.ended = self.complete = True
            return data
        try:
            chunk = _ANY_CHUNK.decode(data)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return data
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if not isinstance(choice, dict):
                continue
            index = choice.get("index")
            number = index if isinstance(index, int) else 0
            delta = choice.get("delta")
            if isinstance(delta, dict):
                for piece in shown(delta):
                    self._text.add(piece, number)
                self._other_characters += hidden_characters(delta)
                self.first_token_seen = self.first_token_seen or self.delivered_characters > 0
            self._read_choice(number, word(choice.get("finish_reason")))
        if chunk.get("error"):
            self._read_error(chunk["error"])
        return self._read_usage(data, chunk["usage"], bool(choices)) if "usage" in chunk else data

    def _read_delta(self, index: int, delta: _Delta) -> None:
        text = delta.content or delta.refusal
        if text:
            self._text.add(text, index)
            self.first_token_seen = True
            return
        thought = delta.reasoning_content or delta.reasoning
        if thought:
            self._other_characters += len(thought)
            self.first_token_seen = True
        if delta.tool_calls:
            self._other_characters += sum(len(call.function.arguments or "") for call in delta.tool_calls if call.function)
            self.first_token_seen = True
        if delta.audio is not None or delta.function_call is not None:
            rare = {"audio": delta.audio, "function_call": delta.function_call}
            for piece in shown(rare):
                self._text.add(piece, index)
            self._other_characters += hidden_characters(rare)
            self.first_token_seen = True

    def _read_choice(self, index: int, finish_reason: str | None) -> None:
        if len(self._seen) < CHOICES_LIMIT:
            self._seen.add(index)
        if finish_reason and index in self._seen:
            self._finished.add(index)
            self.complete = self.complete or len(self._finished) >= self.ask.choices

    def _read_usage(self, data: bytes, report: object, says_more: bool) -> bytes | None:
        """Note a report; give the data as a client who did not ask for it may see it."""
        if report is not None:
            self._report = report
            if not says_more and self._finished:
                self.complete = True
        if self.ask.include_usage:
            return data
        if report is not None:
            return data if says_more else None
        if data.count(b'"usage"') == 1:
            plain = data.replace(b',"usage":null', b"", 1)
            return plain if len(plain) != len(data) else _NULL_USAGE.sub(b"", data, count=1)
        try:
            return splice.drop(data, "usage")
        except splice.NotAnObject:
            return data

    def _read_error(self, error: object) -> None:
        told = error if isinstance(error, dict) else {"message": error}
        kinds = {word(told.get("type")), word(told.get("code")), _STATUSES.get(str(told.get("code")))}
        kind = next(iter(kinds & OPERATOR_ERRORS), None) or word(told.get("type")) or word(told.get("code")) or "server_error"
        self.error = StreamError(kind, str(told.get("message") or ""))
        self.ended = True
        if kind in OPERATOR_ERRORS:
            ours = {"message": OPERATOR_ERROR_MESSAGE, "type": "server_error", "param": None, "code": "upstream_failed"}
            self._end_with(sse.event(msgspec.json.encode({"error": ours})))


def meter(ask: Ask) -> OpenAIMeter:
    """Make the meter of one streamed answer."""
    return OpenAIMeter(ask)
