"""What `echo` answers on OpenAI's other APIs: responses, embeddings, speech and transcriptions, countable by hand like the rest of it.

Embeddings have `DIMENSIONS` numbers made of a digest of the text; integers in an input are tokens. Speech is silence, a hundredth of a
second for every character. A transcription says its prompt, or how long the recording is, and counts its seconds begun.
"""

import base64
import hashlib
import io
import json
import re
import struct
import uuid
import wave
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

DIMENSIONS = 8
SAMPLES_PER_CHARACTER = 80
PIECE_BYTES = 8_000
LONGEST_SPEECH_CHARACTERS = 4_096
MOST_DIMENSIONS = 3_072
MOST_INPUTS = 2_048
"""As at OpenAI: a caller says little, and gets no more than a little."""
SAMPLES_PER_SECOND = 8_000
_BOUNDARY = re.compile(rb'boundary="?([^";,]+)"?', re.IGNORECASE)
_NAME = re.compile(rb'name="([^"]*)"')


class Said(NamedTuple):
    """An answer of the model, as the Responses API needs it; `tool` is the name of the tool it calls, with `text` as arguments."""

    model: str
    input_tokens: int
    output_tokens: int
    text: str
    pieces: Iterable[str]
    tool: str | None
    cut: bool
    created: int


def conversation(asked: dict[str, Any]) -> dict[str, Any]:
    """Give a Responses request as one with messages, which the rest of `echo` reads; raises KeyError for one that names an answer of before."""
    if asked.get("previous_response_id"):
        raise KeyError("previous_response_id")
    given = asked["input"]
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    messages = [{"role": item.get("role", "tool"), "content": item.get("content") or item.get("output") or item.get("arguments") or ""} for item in items]
    return {**asked, "system": asked.get("instructions"), "messages": messages, "max_tokens": asked.get("max_output_tokens")}


def response(asked: dict[str, Any], said: Said) -> tuple[dict[str, Any], Iterator[bytes]]:
    """Give the answer of the Responses API, and the same as a stream of events."""
    head = {"id": f"resp_{uuid.uuid4().hex}", "object": "response", "created_at": said.created, "model": said.model, "service_tier": "default"}
    fixed = {
        "error": None,
        "instructions": asked.get("instructions"),
        "max_output_tokens": asked.get("max_output_tokens"),
        "metadata": asked.get("metadata") or {},
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "store": False,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": asked.get("tools") or [],
        "top_p": 1.0,
    }
    usage = {
        "input_tokens": said.input_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": said.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": said.input_tokens + said.output_tokens,
    }
    part: dict[str, Any] = {"type": "output_text", "text": said.text, "annotations": [], "logprobs": []}
    item: dict[str, Any] = {"id": f"msg_{uuid.uuid4().hex}", "type": "message", "status": "completed", "role": "assistant", "content": [part]}
    begun: dict[str, Any] = {**item, "status": "in_progress", "content": []}
    if said.tool:
        item = {"id": f"fc_{uuid.uuid4().hex}", "type": "function_call", "status": "completed", "call_id": f"call_{uuid.uuid4().hex}", "name": said.tool}
        begun, item = {**item, "status": "in_progress", "arguments": ""}, {**item, "arguments": said.text}
    status = "incomplete" if said.cut else "completed"
    ended = {"status": status, "incomplete_details": {"reason": "max_output_tokens"} if said.cut else None, "output": [item], "usage": usage}
    whole = {**head, **fixed, **ended}

    def values() -> Iterator[tuple[str, dict[str, Any]]]:
        early = {"response": {**head, **fixed, "status": "in_progress", "incomplete_details": None, "output": [], "usage": None}}
        place = {"item_id": item["id"], "output_index": 0}
        yield "response.created", early
        yield "response.in_progress", early
        yield "response.output_item.added", {"output_index": 0, "item": begun}
        if said.tool:
            for piece in said.pieces:
                yield "response.function_call_arguments.delta", {**place, "delta": piece}
            yield "response.function_call_arguments.done", {**place, "arguments": said.text}
        else:
            within = {**place, "content_index": 0}
            yield "response.content_part.added", {**within, "part": {**part, "text": ""}}
            for piece in said.pieces:
                yield "response.output_text.delta", {**within, "delta": piece, "logprobs": []}
            yield "response.output_text.done", {**within, "text": said.text, "logprobs": []}
            yield "response.content_part.done", {**within, "part": part}
        yield "response.output_item.done", {"output_index": 0, "item": item}
        yield f"response.{status}", {"response": whole}

    events = (_event(kind, number, more) for number, (kind, more) in enumerate(values()))
    return whole, events


def embeddings(asked: dict[str, Any]) -> dict[str, Any]:
    """Give an embedding of each input; raises ValueError, TypeError or KeyError for what is no input."""
    given = asked["input"]
    inputs = given if isinstance(given, list) and given and not isinstance(given[0], int) else [given]
    tokens = sum(len(each) if isinstance(each, list) else -(-len(each) // 4) for each in inputs)
    wide = int(asked.get("dimensions") or DIMENSIONS)
    if not 0 < wide <= MOST_DIMENSIONS or len(inputs) > MOST_INPUTS:
        raise ValueError("more than is given for nothing")
    rows = []
    for index, each in enumerate(inputs):
        digest = hashlib.shake_256(json.dumps(each).encode()).digest(wide)
        numbers = [(byte - 127.5) / 127.5 for byte in digest]
        packed: Any = base64.b64encode(struct.pack(f"<{wide}f", *numbers)).decode() if asked.get("encoding_format") == "base64" else numbers
        rows.append({"object": "embedding", "index": index, "embedding": packed})
    return {"object": "list", "data": rows, "model": asked["model"], "usage": {"prompt_tokens": max(1, tokens), "total_tokens": max(1, tokens)}}


def speech(asked: dict[str, Any]) -> tuple[bytes, bytes]:
    """Give silence as long as the text, as WAV, as bare samples, or as events that carry either; and its content type.

    Raises KeyError, TypeError or ValueError for what is no text, or too long a one.
    """
    if asked.get("stream_format") == "sse":
        _, sound = speech({name: value for name, value in asked.items() if name != "stream_format"})
        pieces = [sound[start : start + PIECE_BYTES] for start in range(0, len(sound), PIECE_BYTES)]
        tokens = {"input_tokens": -(-len(str(asked["input"])) // 4), "output_tokens": len(str(asked["input"]))}
        told: list[dict[str, Any]] = [{"type": "speech.audio.delta", "audio": base64.b64encode(piece).decode()} for piece in pieces]
        told.append({"type": "speech.audio.done", "usage": tokens | {"total_tokens": sum(tokens.values())}})
        return b"text/event-stream", b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in told)
    if len(str(asked["input"])) > LONGEST_SPEECH_CHARACTERS:
        raise ValueError("longer than OpenAI takes")
    silence = b"\x80" * (SAMPLES_PER_CHARACTER * len(str(asked["input"])))
    if asked.get("response_format") == "pcm":
        return b"audio/pcm", silence
    written = io.BytesIO()
    with wave.open(written, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(SAMPLES_PER_SECOND)
        file.writeframes(silence)
    return b"audio/wav", written.getvalue()


def transcription(content_type: bytes, body: bytes) -> tuple[bytes, bytes]:
    """Give the transcription of a multipart body, and its content type; raises ValueError for what is none."""
    fields = _fields(content_type, body)
    seconds = _seconds(fields["file"])
    text = fields.get("prompt", b"").decode() or f"{seconds} seconds"
    usage = {"type": "duration", "seconds": seconds}
    match fields.get("response_format", b"json"):
        case b"text":
            return b"text/plain; charset=utf-8", text.encode() + b"\n"
        case b"srt":
            return b"text/plain; charset=utf-8", f"1\n00:00:00,000 --> {_clock(seconds, ',')}\n{text}\n".encode()
        case b"vtt":
            return b"text/plain; charset=utf-8", f"WEBVTT\n\n00:00:00.000 --> {_clock(seconds, '.')}\n{text}\n".encode()
        case b"verbose_json":
            told = {"task": "transcribe", "language": "english", "duration": float(seconds), "text": text, "segments": [], "usage": usage}
            return b"application/json", json.dumps(told).encode()
        case _:
            return b"application/json", json.dumps({"text": text, "usage": usage}).encode()


def _clock(seconds: int, mark: str) -> str:
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{mark}000"


def _seconds(recording: bytes) -> int:
    try:
        with wave.open(io.BytesIO(recording)) as file:
            return int(-(-file.getnframes() // file.getframerate()))
    except (wave.Error, EOFError, ZeroDivisionError):
        return -(-len(recording) // SAMPLES_PER_SECOND)


def _fields(content_type: bytes, body: bytes) -> dict[str, bytes]:
    boundary = _BOUNDARY.search(content_type)
    if boundary is None:
        raise ValueError("no boundary")
    found = {}
    for part in body.split(b"--" + boundary[1])[1:-1]:
        head, _, value = part.partition(b"\r\n\r\n")
        name = _NAME.search(head)
        if name is not None:
            found[name[1].decode()] = value.removesuffix(b"\r\n")
    if "file" not in found or "model" not in found:
        raise ValueError("no file or no model")
    return found


def _event(kind: str, number: int, values: dict[str, Any]) -> bytes:
    event = {"type": kind, "sequence_number": number, **values}
    return f"event: {kind}\ndata: ".encode() + json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
