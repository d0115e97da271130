"""OpenAI Speech: text in, sound out, charged by the characters of the text or by tokens of sound, as the model is priced.

An answer is the bytes of a recording, which pass as they come, or with `stream_format: "sse"` a stream of events. Only the last event tells tokens:
where a model is priced by nothing else, events are asked for, and the client that did not ask for them gets the recording that they carry.
"""

import binascii
import re
from collections.abc import Collection
from typing import Any, Self

import msgspec
from msgspec.structs import replace

from models.enums import Bucket
from proxy import splice, sse
from proxy.dialects.base import Ask, BadRequest, Meter, Reading, Refusal, StreamError, Usage
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

__all__ = ["count", "form", "meter", "name", "parse", "read", "refuse", "request_headers", "response_headers", "rewrite", "upstream_path"]

AUDIO_TOKENS_PER_BYTE = 2
"""More than a byte of UTF-8 comes to when it is spoken, whatever the script, for a model that charges tokens of sound: what is held, never what is charged."""
TYPES = {"mp3": b"audio/mpeg", "opus": b"audio/opus", "aac": b"audio/aac", "flac": b"audio/flac", "wav": b"audio/wav", "pcm": b"audio/pcm"}
"""What a recording is called, by the format that was asked for; `mp3` where none was."""
LEAST_BOUND_BYTES = 4 * 1024 * 1024
MOST_BYTES_PER_CHARACTER = 256 * 1024
"""A second of the finest sound: no character takes longer to say. A recording that goes on beyond that will never end."""
LEAD_BYTES = 64
"""How much of an answer is looked at, to tell an error in JSON from sound."""
ENDLESS = StreamError("server_error", "The sound does not end.")
_ERROR = re.compile(rb'\s*\{\s*"error"')
_NO_SOUND = (b"application/json", b"application/problem+json", b"text/")


class SpeechAsk(Ask, frozen=True):
    """What is asked to be spoken: the size of the text, in code points and in lines, and the `format` of the sound.

    `events` tells whether the client asked for events. The model is priced `by_characters`, `by_tokens` of sound, or both.
    """

    characters: int = 0
    lines: int = 0
    format: str = "mp3"
    events: bool = False
    by_characters: bool = True
    by_tokens: bool = True

    @property
    def most_bytes(self) -> int:
        """How large a recording of the text may become."""
        return LEAST_BOUND_BYTES + self.characters * MOST_BYTES_PER_CHARACTER

    def priced(self, buckets: Collection[Bucket]) -> Self:
        """Return the same as it is put to a model that has prices for these buckets; one that has neither is asked as one that charges characters."""
        by_tokens = Bucket.AUDIO_OUTPUT in buckets
        return replace(self, by_characters=Bucket.CHARACTERS in buckets or not by_tokens, by_tokens=by_tokens)

    @property
    def told_by_events(self) -> bool:
        """Whether only events tell what the answer costs."""
        return self.by_tokens and not self.by_characters


class _Event(msgspec.Struct):
    type: str = ""
    audio: Any = None
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
    wanted = read_body.value("response_format")
    return SpeechAsk(
        model=model,
        streamed=True,
        input_tokens=_count(read_body),
        max_output_tokens=0,
        choices=1,
        include_usage=True,
        end_user=identity(read_body.value("user")),
        conversation=None,
        spans=read_body.spans,
        besides={Bucket.CHARACTERS: size.characters, Bucket.AUDIO_OUTPUT: len(text.encode(errors="replace")) * AUDIO_TOKENS_PER_BYTE},
        needs=((Bucket.CHARACTERS, Bucket.AUDIO_OUTPUT),),
        characters=size.characters,
        lines=size.lines,
        format=wanted if isinstance(wanted, str) else "mp3",
        events=read_body.value("stream_format") == "sse",
    )


def count(body: bytes) -> int:
    """Estimate the input tokens of a body. Raises BadRequest and nothing else."""
    return _count(Body(body))


def rewrite(body: bytes, ask: Ask, *, model: str | None = None, max_output_tokens: int | None = None) -> bytes:
    """Give the body with another model's name, and events asked for where only they tell the price; every other byte is the client's (F37)."""
    values = {}
    if model is not None and model != ask.model:
        values["model"] = msgspec.json.encode(model)
    if isinstance(ask, SpeechAsk) and ask.told_by_events and not ask.events:
        values["stream_format"] = b'"sse"'
    return splice.put(body, values, ask.spans) if values else body


def read(body: bytes, ask: Ask) -> Reading:
    """Read a whole answer that came with status 200: bytes that are not looked into; never raises. An error body is no answer (F18)."""
    if not body or _ERROR.match(body) or not isinstance(ask, SpeechAsk):
        return Reading(Usage(), 0, 0, complete=False)
    return Reading(Usage(characters=ask.characters, reported=True), ask.characters, ask.lines, complete=True)


class SpeechMeter(LineMeter):
    """Reads a stream of `speech.audio.delta` and one `speech.audio.done`; see `proxy.dialects.base.Meter`.

    Tokens are charged where the model has a price for them and the last event tells them; otherwise, and for a stream that breaks, the characters of the
    text, which are known before. For a model that is priced by tokens alone they are estimated then, and marked.
    """

    ask: SpeechAsk

    def __init__(self, ask: SpeechAsk) -> None:
        super().__init__(ask)
        self._report: object = None

    @property
    def usage(self) -> Usage:
        """What the answer used so far; nothing before any sound has come."""
        ask, nonsense = self.ask, False
        if ask.by_tokens:
            try:
                report = self._report
                if not isinstance(report, dict) or report.get("input_tokens") is None or report.get("output_tokens") is None:
                    raise Unsound("usage")
                given, made = count_of(report, "input_tokens"), count_of(report, "output_tokens")
                return Usage(input_tokens=given, audio_output_tokens=made, reported=True)
            except Unsound as fault:
                nonsense = doubtful(fault)
        if not self.first_token_seen:
            return Usage(doubtful=nonsense)
        if ask.told_by_events:
            return Usage(input_tokens=ask.input_tokens, audio_output_tokens=ask.characters, doubtful=True)
        return Usage(characters=ask.characters, reported=True, doubtful=nonsense)

    @property
    def characters(self) -> int:
        """Code points of the text that is spoken, once sound has come."""
        return self.ask.characters if self.first_token_seen else 0

    @property
    def lines(self) -> int:
        """Lines of the text that is spoken, once sound has come."""
        return self.ask.lines if self.first_token_seen else 0

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
            self._hear(event.audio)
        elif event.type == "speech.audio.done":
            self._report = event.usage
            self.first_token_seen = self.ended = self.complete = True
        elif event.error or event.type == "error":
            told = event.error if isinstance(event.error, dict) else {"message": event.error}
            self.error = StreamError(word(told.get("code")) or word(told.get("type")) or "server_error", str(told.get("message") or ""))
            self.ended = True
        return data

    def _hear(self, sound: object) -> None:
        """Take a piece of sound, which a client of events reads by itself."""


class _Recording:
    """What meters have in common whose client gets bytes and no events."""

    events = False
    skim = None

    def keep_alive(self) -> bytes:
        """Give nothing: a recording has no room for a remark."""
        return b""

    def fail(self, refusal: Refusal) -> bytes:
        """Give nothing: a recording has no words for a failure."""
        return b""

    def conclude(self) -> bytes:
        """Give nothing: what a recording may cost is held for before it begins."""
        return b""


class CarriedMeter(_Recording, SpeechMeter):
    """Reads the same events, and lets out the recording that they carry."""

    def __init__(self, ask: SpeechAsk) -> None:
        super().__init__(ask)
        self._sound = bytearray()
        self._left = ask.most_bytes

    def content_type(self, told: bytes) -> bytes | None:
        """Give the type of the recording, where the upstream sends events."""
        return None if super().content_type(told) is None else TYPES.get(self.ask.format, b"application/octet-stream")

    def feed(self, chunk: bytes) -> bytes:
        """Take what the upstream sent; give the sound in it."""
        super().feed(chunk)
        if self._buffer.overlong:
            self._unreadable()
        sound = bytes(self._sound)
        self._sound.clear()
        self._left -= len(sound)
        if self._left < 0:
            self.error, self.ended = ENDLESS, True
        return sound

    def tail(self) -> bytes:
        """Give nothing: the sound has passed before."""
        return b""

    def _hear(self, sound: object) -> None:
        try:
            self._sound += binascii.a2b_base64(sound if isinstance(sound, str) else "=", strict_mode=True)
        except ValueError:
            self._unreadable()

    def _unreadable(self) -> None:
        self.error, self.ended = StreamError("server_error", "The sound cannot be read."), True


class SoundMeter(_Recording):
    """Lets a recording pass as it comes; see `proxy.dialects.base.Meter`.

    All characters of the text are charged once its first byte has come. An error in JSON is no recording (F18).
    """

    def __init__(self, ask: SpeechAsk) -> None:
        self.ask = ask
        self.ended = self.complete = self.first_token_seen = False
        self.error: StreamError | None = None
        self._lead = b""
        self._left = ask.most_bytes

    def content_type(self, told: bytes) -> bytes | None:
        """Give the type as the upstream tells it; that of a text is no recording's."""
        return None if told.strip().lower().startswith(_NO_SOUND) else told or b"application/octet-stream"

    def feed(self, chunk: bytes) -> bytes:
        """Take what the upstream sent; give it, the same object from the second time on."""
        if self.ended:
            return b""
        self._left -= len(chunk)
        if self._left < 0:
            self.error, self.ended = ENDLESS, True
        if self.first_token_seen:
            return chunk
        lead = self._lead + chunk
        if _ERROR.match(lead):
            self.error, self.ended, lead = StreamError("server_error", "An error came in place of sound."), True, b""
        elif len(lead) >= LEAD_BYTES or lead.lstrip()[:1] not in (b"", b"{"):
            self.first_token_seen, self._lead = True, b""
            return lead
        self._lead = lead
        return b""

    def over(self) -> None:
        """Take note that the recording came to its proper end; nothing at all is none."""
        self.complete = self.first_token_seen = not self.ended and (self.first_token_seen or bool(self._lead))

    def tail(self) -> bytes:
        """Take what is held back: a recording of a few bytes."""
        lead, self._lead = self._lead, b""
        return lead

    @property
    def usage(self) -> Usage:
        """What the answer used so far; nothing before any sound has come."""
        return Usage(characters=self.characters, reported=self.first_token_seen)

    @property
    def characters(self) -> int:
        """Code points of the text that is spoken, once sound has come."""
        return self.ask.characters if self.first_token_seen else 0

    @property
    def lines(self) -> int:
        """Lines of the text that is spoken, once sound has come."""
        return self.ask.lines if self.first_token_seen else 0


def meter(ask: Ask) -> Meter:
    """Make the meter of one answer."""
    assert isinstance(ask, SpeechAsk), "what `parse` read"
    if ask.events:
        return SpeechMeter(ask)
    return CarriedMeter(ask) if ask.told_by_events else SoundMeter(ask)


def _count(read_body: Body) -> int:
    return max(1, output_tokens(sum(len(text) for text in map(read_body.value, ("input", "instructions")) if isinstance(text, str))))
