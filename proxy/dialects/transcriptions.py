"""OpenAI Transcriptions: a recording in, text out, charged by seconds or by tokens, as the answer says.

The request is multipart/form-data; an answer is JSON, plain text, or a stream of events. Plain text tells no usage: then the recording's own
header does, or the last time stamp of subtitles.
"""

import math
import re
from typing import Any

import msgspec

from models.enums import Bucket
from proxy import sse
from proxy.dialects.base import COUNT_LIMIT, MODEL_LIMIT_CHARACTERS, Ask, BadRequest, Reading, Refusal, StreamError, Usage
from proxy.dialects.counting import output_tokens
from proxy.dialects.durations import at_most, seconds
from proxy.dialects.multipart import Field, fields
from proxy.dialects.numbers import Nonsense, Unsound, doubtful, part, word
from proxy.dialects.numbers import count as count_of
from proxy.dialects.openai import errors
from proxy.dialects.openai.errors import refuse, response_headers
from proxy.dialects.openai.request import request_headers
from proxy.dialects.stream import LineMeter
from proxy.dialects.text import TextSize

name = "openai"
form = "transcriptions"
upstream_path = "/v1/audio/transcriptions"

__all__ = ["count", "form", "meter", "name", "parse", "read", "refuse", "request_headers", "response_headers", "rewrite", "upstream_path"]

AUDIO_TOKENS_PER_SECOND = 10
"""What providers that charge tokens count for a second of speech: what is held, never what is charged."""
TEXT_TOKENS_PER_SECOND = 8
CHARACTERS_PER_SECOND = 30
"""More than anybody says in a second, in both."""
_ONCE = ("model", "file", "response_format", "stream", "prompt")
_PLAIN = frozenset({"text", "srt", "vtt"})
_WHISPER = "whisper"
_TIMES = re.compile(r"-->\s*(?:(\d+):)?(\d+):(\d+)[.,](\d+)")
_SUBTITLE_FRAME = re.compile(r"^(?:WEBVTT.*|\d+|.*-->.*)?$")


class RecordingAsk(Ask, frozen=True):
    """What is asked to be written down: the length in seconds, None when the recording does not tell it, and how the text is wanted."""

    seconds: int | None = None
    response_format: str = "json"


class _Event(msgspec.Struct):
    type: str = ""
    delta: Any = None
    usage: Any = None
    error: Any = None


_EVENT = msgspec.json.Decoder(_Event)


def parse(body: bytes) -> RecordingAsk:
    """Read a form; fields that are not known are the upstream's matter. Raises BadRequest and nothing else.

    `stream` is heeded except for Whisper models, which answer whole whatever it says. Source: the Transcriptions API reference.
    """
    form_fields = _once(body)
    file = form_fields.get("file")
    if file is None:
        raise BadRequest("file: Field required", "file")
    if not file.is_file:
        raise BadRequest("file: Input should be a file", "file")
    model = _text(body, form_fields, "model")
    if not 0 < len(model) <= MODEL_LIMIT_CHARACTERS or not model.isprintable():
        raise BadRequest("model: Input should be the name of a model", "model")
    recording = body[file.start : file.end]
    most = at_most(recording)
    return RecordingAsk(
        model=model,
        streamed=_text(body, form_fields, "stream").lower() in ("true", "1") and not model.startswith(_WHISPER),
        input_tokens=max(1, output_tokens(len(_text(body, form_fields, "prompt"))) + most * AUDIO_TOKENS_PER_SECOND),
        max_output_tokens=most * TEXT_TOKENS_PER_SECOND,
        choices=1,
        include_usage=True,
        end_user=None,
        conversation=None,
        spans={},
        besides={Bucket.SECONDS: most},
        needs=((Bucket.SECONDS, Bucket.AUDIO_INPUT),),
        seconds=seconds(recording),
        response_format=_text(body, form_fields, "response_format") or "json",
    )


def count(body: bytes) -> int:
    """Estimate the input tokens of a body. Raises BadRequest and nothing else."""
    return parse(body).input_tokens


def rewrite(body: bytes, ask: Ask, *, model: str | None = None, max_output_tokens: int | None = None) -> bytes:
    """Give the form with another model's name; every other byte is the client's (F37). There is no bound of output."""
    if model is None or model == ask.model:
        return body
    field = _once(body)["model"]
    return body[: field.start] + model.encode() + body[field.end :]


def read(body: bytes, ask: Ask) -> Reading:
    """Read a whole answer that came with status 200; never raises.

    Seconds come from its usage, or its `duration`, or the recording's own header, or the last time stamp; without any of these they are the
    most that the recording may have, and a person looks at it.
    """
    if not isinstance(ask, RecordingAsk):
        return Reading(Usage(), 0, 0, complete=False)
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        answer = None
    size = TextSize()
    if isinstance(answer, dict) and ask.response_format not in _PLAIN:
        text = answer.get("text")
        if not isinstance(text, str):
            return Reading(Usage(), 0, 0, complete=False)
        size.add(text)
        return Reading(_usage(answer.get("usage"), answer.get("duration"), ask, size.characters), size.characters, size.lines, complete=True)
    if ask.response_format not in _PLAIN or (isinstance(answer, dict) and "error" in answer):
        return Reading(Usage(), 0, 0, complete=False)
    text = body.decode("utf-8", "replace")
    stamps = [int(hours or 0) * 3600 + int(minutes) * 60 + int(whole) + bool(int(rest)) for hours, minutes, whole, rest in _TIMES.findall(text)]
    shown = text.rstrip("\n") if not stamps else "\n".join(line for line in text.splitlines() if not _SUBTITLE_FRAME.match(line))
    size.add(shown)
    return Reading(_measured(ask, size.characters, max(stamps, default=None)), size.characters, size.lines, complete=True)


def _usage(report: object, duration: object, ask: RecordingAsk, characters: int) -> Usage:
    try:
        return _reported(report, duration)
    except Unsound as fault:
        usage = _measured(ask, characters)
        return usage if not doubtful(fault) else Usage(seconds=usage.seconds, doubtful=True)


def _reported(report: object, duration: object) -> Usage:
    """Read a report, or else a duration. Raises Unsound when there is neither, and Nonsense when a number is none."""
    if isinstance(report, dict) and report.get("type") == "tokens":
        details = part(report, "input_token_details")
        given = count_of(report, "input_tokens")
        sound = min(count_of(details, "audio_tokens"), given) if details else given
        return Usage(input_tokens=given - sound, audio_input_tokens=sound, output_tokens=count_of(report, "output_tokens"), reported=True)
    if isinstance(report, dict) and report.get("seconds") is not None:
        return Usage(seconds=_whole_seconds(report["seconds"]), reported=True)
    if duration is not None:
        return Usage(seconds=_whole_seconds(duration), reported=True)
    raise Unsound("usage")


def _whole_seconds(value: object) -> int:
    """Round a length up to whole seconds; some servers write it as a text."""
    try:
        length = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        length = math.nan
    if not 0 <= length <= COUNT_LIMIT:
        raise Nonsense("seconds")
    return math.ceil(length)


def _measured(ask: RecordingAsk, characters: int, stamped: int | None = None) -> Usage:
    """Estimate the seconds of an answer without usage: a header may lie, so they are never fewer than its text takes to be said."""
    said = -(-characters // CHARACTERS_PER_SECOND)
    known = [length for length in (ask.seconds, stamped) if length is not None]
    return Usage(seconds=max(*known, said)) if known else Usage(seconds=max(ask.besides[Bucket.SECONDS], said), doubtful=True)


class TranscriptMeter(LineMeter):
    """Reads a stream of `transcript.text.delta` and one `transcript.text.done` with usage; see `proxy.dialects.base.Meter`.

    A stream that breaks is charged as its report says; without one, the recording as it was counted and the text that came.
    """

    def __init__(self, ask: Ask) -> None:
        super().__init__(ask)
        self._report: object = None

    @property
    def usage(self) -> Usage:
        """What the answer used so far; nothing before any text has come."""
        nonsense = False
        try:
            return _reported(self._report, None)
        except Unsound as fault:
            nonsense = doubtful(fault)
        if not self.first_token_seen:
            return Usage()
        length = self.ask.seconds if isinstance(self.ask, RecordingAsk) else None
        sound = self.ask.input_tokens if length is None else length * AUDIO_TOKENS_PER_SECOND
        return Usage(audio_input_tokens=sound, output_tokens=output_tokens(self.delivered_characters), doubtful=nonsense)

    def fail(self, refusal: Refusal) -> bytes:
        """Give the error event after which no `transcript.text.done` comes."""
        return self._ending(errors.event(refusal))

    def conclude(self) -> bytes:
        """End the stream as one that is whole; its text is what came."""
        return self._ending(sse.event(b'{"type":"transcript.text.done","text":""}'))

    def _read_data(self, data: bytes) -> bytes:
        try:
            event = _EVENT.decode(data)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return data
        if event.type == "transcript.text.delta" and isinstance(event.delta, str):
            self._text.add(event.delta)
            self.first_token_seen = True
        elif event.type == "transcript.text.done":
            self._report = event.usage
            self.first_token_seen = self.ended = self.complete = True
        elif event.error or event.type == "error":
            told = event.error if isinstance(event.error, dict) else {"message": event.error}
            self.error = StreamError(word(told.get("code")) or word(told.get("type")) or "server_error", str(told.get("message") or ""))
            self.ended = True
        return data


def meter(ask: Ask) -> TranscriptMeter:
    """Make the meter of one streamed answer."""
    return TranscriptMeter(ask)


def _once(body: bytes) -> dict[str, Field]:
    """Find the fields that matter here; raises BadRequest for one that is there twice, of which two readers may take different ones."""
    found: dict[str, Field] = {}
    for field in fields(body):
        if field.name in found and field.name in _ONCE:
            raise BadRequest(f"{field.name}: the field is there twice", field.name)
        found[field.name] = field
    if "model" not in found:
        raise BadRequest("model: Field required", "model")
    return found


def _text(body: bytes, form_fields: dict[str, Field], field_name: str) -> str:
    field = form_fields.get(field_name)
    try:
        return body[field.start : field.end].decode().strip() if field else ""
    except UnicodeDecodeError:
        raise BadRequest(f"{field_name}: Input should be text", field_name) from None
