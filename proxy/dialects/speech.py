"""OpenAI Speech: text in, sound out, charged by the characters of the text.

An answer is the bytes of a recording, or with `stream_format: "sse"` a stream of events whose last one may tell tokens, which are charged then.
"""

from typing import Any

import msgspec

from models.enums import Bucket
from proxy import splice, sse
from proxy.dialects.base import Ask, BadRequest, Reading, Refusal, StreamError, Usage
from proxy.dialects.bodies import Body, identity
from proxy.dialects.counting import output_tokens
from proxy.dialects.numbers import Unsound, doubtful, word
from proxy.dialects.numbers import count as count_of
from proxy.dialects.openai import errors
from proxy.dialects.openai.errors import refuse, response_headers
from proxy.dialects.openai.request import request_headers
from proxy.dialects.stream import LineMeter
from proxy.dialects.text import TextSize

name = "openai"
form = "speech"
upstream_path = "/v1/audio/speech"
stream_type = "text/event-stream"

__all__ = ["count", "form", "meter", "name", "parse", "read", "refuse", "request_headers", "response_headers", "rewrite", "stream_type", "upstream_path"]

AUDIO_TOKENS_PER_CHARACTER = 2
"""More than a character of speech comes to, for a model that charges tokens of sound: what is held, never what is charged."""


class SpeechAsk(Ask, frozen=True):
    """What is asked to be spoken: the size of the text, in code points and in lines."""

    characters: int = 0
    lines: int = 0


class _Event(msgspec.Struct):
    type: str = ""
    usage: Any = None
    error: Any = None


_EVENT = msgspec.json.Decoder(_Event)


def parse(body: bytes) -> SpeechAsk:
    """Read a request body; unknown fields are the upstream's matter. Raises BadRequest and nothing else.

    Source: the Speech API reference.
    """
    read_body = Body(body)
    model = read_body.model()
    text = read_body.value("input")
    if not isinstance(text, str) or not text:
        raise BadRequest("input: Input should be the text to be spoken", "input")
    size = TextSize()
    size.add(text)
    return SpeechAsk(
        model=model,
        streamed=read_body.value("stream_format") == "sse",
        input_tokens=_count(read_body),
        max_output_tokens=0,
        choices=1,
        include_usage=True,
        end_user=identity(read_body.value("user")),
        conversation=None,
        spans=read_body.spans,
        besides={Bucket.CHARACTERS: size.characters, Bucket.AUDIO_OUTPUT: size.characters * AUDIO_TOKENS_PER_CHARACTER},
        characters=size.characters,
        lines=size.lines,
    )


def count(body: bytes) -> int:
    """Estimate the input tokens of a body. Raises BadRequest and nothing else."""
    return _count(Body(body))


def rewrite(body: bytes, ask: Ask, *, model: str | None = None, max_output_tokens: int | None = None) -> bytes:
    """Give the body with another model's name; every other byte is the client's (F37). There is no bound of output."""
    return splice.put(body, {"model": msgspec.json.encode(model)}, ask.spans) if model is not None and model != ask.model else body


def read(body: bytes, ask: Ask) -> Reading:
    """Read a whole answer that came with status 200: bytes that are not looked into; never raises. An error body is no answer (F18)."""
    if not body or body.lstrip()[:8] == b'{"error"' or not isinstance(ask, SpeechAsk):
        return Reading(Usage(), 0, 0, complete=False)
    return Reading(Usage(characters=ask.characters, reported=True), ask.characters, ask.lines, complete=True)


class SpeechMeter(LineMeter):
    """Reads a stream of `speech.audio.delta` and one `speech.audio.done`; see `proxy.dialects.base.Meter`.

    Tokens are charged where the last event tells them; otherwise, and for a stream that breaks, the characters of the text.
    """

    def __init__(self, ask: Ask) -> None:
        super().__init__(ask)
        self._report: object = None

    @property
    def usage(self) -> Usage:
        """What the answer used so far; nothing before any sound has come."""
        nonsense = False
        try:
            report = self._report
            if not isinstance(report, dict) or report.get("input_tokens") is None or report.get("output_tokens") is None:
                raise Unsound("usage")
            given, made = count_of(report, "input_tokens"), count_of(report, "output_tokens")
            return Usage(input_tokens=given, audio_output_tokens=made, reported=True)
        except Unsound as fault:
            nonsense = doubtful(fault)
        characters = self.ask.characters if self.first_token_seen and isinstance(self.ask, SpeechAsk) else 0
        return Usage(characters=characters, reported=self.complete and bool(characters), doubtful=nonsense)

    @property
    def characters(self) -> int:
        """Code points of the text that is spoken, once sound has come."""
        return self.ask.characters if self.first_token_seen and isinstance(self.ask, SpeechAsk) else 0

    @property
    def lines(self) -> int:
        """Lines of the text that is spoken, once sound has come."""
        return self.ask.lines if self.first_token_seen and isinstance(self.ask, SpeechAsk) else 0

    def fail(self, refusal: Refusal) -> bytes:
        """Give the error event after which no `speech.audio.done` comes."""
        return self._ending(errors.event(refusal))

    def conclude(self) -> bytes:
        """End the stream as one that is whole."""
        return self._ending(sse.event(b'{"type":"speech.audio.done"}'))

    def _read_data(self, data: bytes) -> bytes:
        try:
            event = _EVENT.decode(data)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return data
        if event.type == "speech.audio.delta":
            self.first_token_seen = True
        elif event.type == "speech.audio.done":
            self._report = event.usage
            self.first_token_seen = self.ended = self.complete = True
        elif event.error or event.type == "error":
            told = event.error if isinstance(event.error, dict) else {"message": event.error}
            self.error = StreamError(word(told.get("code")) or word(told.get("type")) or "server_error", str(told.get("message") or ""))
            self.ended = True
        return data


def meter(ask: Ask) -> SpeechMeter:
    """Make the meter of one streamed answer."""
    return SpeechMeter(ask)


def _count(read_body: Body) -> int:
    return max(1, output_tokens(sum(len(text) for text in map(read_body.value, ("input", "instructions")) if isinstance(text, str))))
