"""Streams of Chat Completions as streams of the Responses API.

Items may be open side by side there, each with its own number: pieces are told as they come, and every item is ended before the response is.
"""

from typing import Any

import msgspec

from proxy import sse
from proxy.dialects.base import Ask
from proxy.dialects.numbers import word
from proxy.translation.arguments import as_piece
from proxy.translation.events import EventTranslator
from proxy.translation.responses_to_openai.answer import begun, call_item, message_item, response_id, text_part, texts, told_usage, whole

TEXT_LIMIT_CHARACTERS = 16 * 1024 * 1024
ITEMS_LIMIT = 1024


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: Any = None


class _Custom(msgspec.Struct):
    name: str | None = None
    input: Any = None


class _CallDelta(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None
    custom: _Custom | None = None


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


class _Words:
    """The item of what the model says; a refusal is a part of its own."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self.refusal: list[str] = []
        self.parts: list[str] = []


class _Call:
    """The item of a tool call."""

    def __init__(self, place: int, delta: _CallDelta) -> None:
        self.place = place
        self.custom = delta.custom is not None
        self.id = delta.id or f"call_{place}"
        self.told_id = delta.id
        self.name = (delta.custom.name if delta.custom else delta.function.name if delta.function else None) or ""
        self.given: list[str] = []


class ResponseStreamTranslator(EventTranslator):
    """Translates one streamed completion; see `proxy.translation.base.StreamTranslator`."""

    def __init__(self, ask: Ask, created_seconds: int) -> None:
        super().__init__()
        self._ask = ask
        self._created_seconds = created_seconds
        self._id = response_id(None, created_seconds)
        self._model = ask.model
        self._tier: str | None = None
        self._report: object = None
        self._finish_reason: str | None = None
        self._started = False
        self._number = 0
        self._items: list[_Words | _Call] = []
        self._calls: dict[int, tuple[int, _Call]] = {}
        self._words: tuple[int, _Words] | None = None
        self._characters = 0

    def _read_data(self, data: bytes) -> bytes:
        if data == b"[DONE]":
            return self._finish()
        try:
            chunk = _CHUNK.decode(data)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return self._fail("The provider sent something that cannot be read.")
        if chunk.error:
            told = chunk.error if isinstance(chunk.error, dict) else {"message": chunk.error}
            self._ended = True
            return self._error(word(told.get("code")) or word(told.get("type")), str(told.get("message") or "The provider broke off."))
        self._tier = word(chunk.service_tier) or self._tier
        self._report = chunk.usage or self._report
        written = b""
        for choice in chunk.choices or ():
            if choice.index == 0:
                written += self._start(chunk) + self._read_choice(choice)
            if self._ended:
                break
        return written

    def _start(self, chunk: _Chunk | None) -> bytes:
        if self._started:
            return b""
        self._started = True
        if chunk is not None:
            self._id = response_id(chunk.id, self._created_seconds)
            self._model = word(chunk.model) or self._model
        head = begun(self._id, self._model, self._created_seconds)
        return self._event("response.created", response=head) + self._event("response.in_progress", response=head)

    def _read_choice(self, choice: _Choice) -> bytes:
        self._finish_reason = choice.finish_reason or self._finish_reason
        delta = choice.delta or _Delta()
        written = b"".join(self._say(piece, "output_text") for piece in texts(delta.content) if piece)
        if isinstance(delta.refusal, str) and delta.refusal:
            written += self._say(delta.refusal, "refusal")
        for call in delta.tool_calls or ():
            written += self._read_call(call)
        if self._characters > TEXT_LIMIT_CHARACTERS or len(self._items) > ITEMS_LIMIT:
            return written + self._fail("The provider sent more than can be kept.")
        return written

    def _say(self, piece: str, kind: str) -> bytes:
        written = b""
        if self._words is None:
            self._words = len(self._items), _Words()
            self._items.append(self._words[1])
            item = {**message_item(self._id, "", None, "in_progress"), "content": []}
            written = self._event("response.output_item.added", output_index=self._words[0], item=item)
        index, words = self._words
        if kind not in words.parts:
            words.parts.append(kind)
            part = text_part("") if kind == "output_text" else {"type": "refusal", "refusal": ""}
            written += self._event("response.content_part.added", **self._within(index, words, kind), part=part)
        (words.text if kind == "output_text" else words.refusal).append(piece)
        self._characters += len(piece)
        more: dict[str, Any] = {"logprobs": []} if kind == "output_text" else {}
        return written + self._event(f"response.{kind}.delta", **self._within(index, words, kind), delta=piece, **more)

    def _within(self, index: int, words: _Words, kind: str) -> dict[str, Any]:
        return {"item_id": message_item(self._id, "", None)["id"], "output_index": index, "content_index": words.parts.index(kind)}

    def _read_call(self, delta: _CallDelta) -> bytes:
        """Add to a call. A new id under an old index is another call: some servers number every call 0."""
        number = delta.index or 0
        found = self._calls.get(number)
        written = b""
        if found is None or (delta.id and found[1].told_id and delta.id != found[1].told_id):
            found = len(self._items), _Call(sum(isinstance(item, _Call) for item in self._items), delta)
            self._calls[number] = found
            self._items.append(found[1])
            written = self._event("response.output_item.added", output_index=found[0], item=self._item(found[1], "in_progress"))
        index, call = found
        piece = as_piece(delta.custom.input if delta.custom else delta.function.arguments if delta.function else None)
        if piece:
            call.given.append(piece)
            self._characters += len(piece)
            kind = "custom_tool_call_input" if call.custom else "function_call_arguments"
            written += self._event(f"response.{kind}.delta", item_id=self._item(call)["id"], output_index=index, delta=piece)
        return written

    def _item(self, item: _Words | _Call, status: str = "completed") -> dict[str, Any]:
        if isinstance(item, _Words):
            return message_item(self._id, "".join(item.text), "".join(item.refusal) or None, status)
        given = "".join(item.given) if status == "completed" else ""
        return call_item(self._id, item.place, item.id, item.name, given, custom=item.custom, namespaces=self._ask.namespaces, status=status)

    def _end_item(self, index: int, item: _Words | _Call) -> bytes:
        whole_item = self._item(item)
        written = b""
        if isinstance(item, _Words):
            for kind in item.parts:
                within = self._within(index, item, kind)
                text = "".join(item.text if kind == "output_text" else item.refusal)
                part = text_part(text) if kind == "output_text" else {"type": "refusal", "refusal": text}
                said: dict[str, Any] = {"text": text, "logprobs": []} if kind == "output_text" else {"refusal": text}
                written += self._event(f"response.{kind}.done", **within, **said) + self._event("response.content_part.done", **within, part=part)
        else:
            kind, name = ("custom_tool_call_input", "input") if item.custom else ("function_call_arguments", "arguments")
            written += self._event(f"response.{kind}.done", item_id=whole_item["id"], output_index=index, **{name: whole_item[name]})
        return written + self._event("response.output_item.done", output_index=index, item=whole_item)

    def _finish(self) -> bytes:
        """End the response as a whole one."""
        written = self._start(None) + b"".join(self._end_item(index, item) for index, item in enumerate(self._items))
        self._ended = True
        usage = told_usage(self._report, self._model, self._tier, self._ask, self._characters)
        output = [self._item(item) for item in self._items]
        told = whole(self._id, self._model, self._tier, self._created_seconds, self._finish_reason, output, usage)
        return written + self._event(f"response.{told['status']}", response=told)

    def _close(self) -> bytes:
        return self._finish() if self._finish_reason else self._fail("The provider broke off.")

    def _error(self, kind: str | None, message: str) -> bytes:
        code = kind or "server_error"
        error = {"type": "server_error", "code": code, "message": message, "param": None}
        failed = {**begun(self._id, self._model, self._created_seconds), "status": "failed", "error": {"code": code, "message": message}}
        return self._event("error", code=code, message=message, param=None, error=error) + self._event("response.failed", response=failed)

    def _sign(self) -> bytes:
        return sse.KEEP_ALIVE + b"\n"

    def _event(self, kind: str, **values: object) -> bytes:
        number = self._number
        self._number += 1
        return sse.event(msgspec.json.encode({"type": kind, "sequence_number": number, **values}), kind)


def stream(ask: Ask, *, created_seconds: int) -> ResponseStreamTranslator:
    """Make the translator of one streamed answer."""
    return ResponseStreamTranslator(ask, created_seconds)
