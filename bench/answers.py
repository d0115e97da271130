"""What the mock upstream answers, byte for byte, and how the load generator knows that it got all of it.

A model's name says what comes back: `bench` a whole answer, `bench-100x10` a stream of 100 chunks, 10 ms apart. Every chunk of a stream has the same
length and carries the instant at which it was written, so that its delay can be read where it arrives.
"""

import re
from dataclasses import dataclass
from typing import Literal

from models.enums import Bucket

DialectName = Literal["openai", "anthropic"]
INPUT_TOKENS = 1201
OUTPUT_TOKENS = 307
USED = {Bucket.UNCACHED_INPUT: INPUT_TOKENS, Bucket.OUTPUT: OUTPUT_TOKENS}
PATHS: dict[DialectName, str] = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}
WHOLE_MODEL = "bench"
STAMP_DIGITS = 18
STAMP = b"0" * STAMP_DIGITS
_TEXT = "All happy families are alike; each unhappy family is unhappy in its own way. " * 8

TEXT = _TEXT.encode()
"""What the whole answer says."""

_OPENAI_WHOLE = (
    '{"id":"chatcmpl-bench","object":"chat.completion","created":1760000000,"model":"bench","choices":[{"index":0,"message":{"role":"assistant",'
    f'"content":"{_TEXT}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":{INPUT_TOKENS},"completion_tokens":{OUTPUT_TOKENS},'
    f'"total_tokens":{INPUT_TOKENS + OUTPUT_TOKENS}}}}}'
).encode()
_ANTHROPIC_WHOLE = (
    f'{{"id":"msg_bench","type":"message","role":"assistant","model":"bench","content":[{{"type":"text","text":"{_TEXT}"}}],"stop_reason":"end_turn",'
    f'"stop_sequence":null,"usage":{{"input_tokens":{INPUT_TOKENS},"output_tokens":{OUTPUT_TOKENS}}}}}'
).encode()
WHOLE: dict[DialectName, bytes] = {"openai": _OPENAI_WHOLE, "anthropic": _ANTHROPIC_WHOLE}

_OPENAI_CHUNK = '{"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1760000000,"model":"bench","choices":['


@dataclass(frozen=True, slots=True)
class Script:
    """A stream in four parts: what opens it, a chunk around its stamp, and what ends it."""

    head: bytes
    before: bytes
    after: bytes
    tail: bytes

    @property
    def chunk_bytes(self) -> int:
        """The length of every chunk."""
        return len(self.before) + STAMP_DIGITS + len(self.after)

    def whole(self, chunks: int) -> bytes:
        """Return all of a stream, with empty stamps."""
        return self.head + (self.before + STAMP + self.after) * chunks + self.tail


SCRIPTS: dict[DialectName, Script] = {
    "openai": Script(
        head=f'data: {_OPENAI_CHUNK}{{"index":0,"delta":{{"role":"assistant","content":""}},"finish_reason":null}}]}}\n\n'.encode(),
        before=f'data: {_OPENAI_CHUNK}{{"index":0,"delta":{{"content":" @'.encode(),
        after=b'"},"finish_reason":null}]}\n\n',
        tail=(
            f'data: {_OPENAI_CHUNK}{{"index":0,"delta":{{}},"finish_reason":"stop"}}]}}\n\n'
            f'data: {_OPENAI_CHUNK}],"usage":{{"prompt_tokens":{INPUT_TOKENS},"completion_tokens":{OUTPUT_TOKENS},'
            f'"total_tokens":{INPUT_TOKENS + OUTPUT_TOKENS}}}}}\n\n'
            "data: [DONE]\n\n"
        ).encode(),
    ),
    "anthropic": Script(
        head=(
            'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_bench","type":"message","role":"assistant","model":"bench","content":[],'
            f'"stop_reason":null,"stop_sequence":null,"usage":{{"input_tokens":{INPUT_TOKENS},"output_tokens":1}}}}}}\n\n'
            'event: content_block_start\ndata: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}\n\n'
        ).encode(),
        before=b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" @',
        after=b'"}}\n\n',
        tail=(
            'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
            'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},'
            f'"usage":{{"output_tokens":{OUTPUT_TOKENS}}}}}\n\n'
            'event: message_stop\ndata: {"type":"message_stop"}\n\n'
        ).encode(),
    ),
}

_STREAM_MODEL = re.compile(rb'"model":"bench-(\d+)x(\d+)"')
_TOLD = re.compile(rb"^: tallygate \{[^\n]*\}\n\n", re.MULTILINE)
_STAMPED = re.compile(rb" @\d{18}")


def stream_model(chunks: int, apart_ms: int) -> str:
    """Return the name of a model that streams so."""
    return f"bench-{chunks}x{apart_ms}"


def asked_stream(body: bytes) -> tuple[int, int] | None:
    """Return how many chunks a request asks for and how many milliseconds apart, None for a whole answer; looks at the first 100 bytes only."""
    found = _STREAM_MODEL.search(body, 0, 100)
    return (int(found[1]), int(found[2])) if found else None


def unstamped(body: bytes) -> bytes:
    """Return a stream with its stamps emptied, and without the comment that tells its charge, to be compared with `Script.whole`."""
    return _STAMPED.sub(b" @" + STAMP, _TOLD.sub(b"", body, count=1))


def request_body(dialect: DialectName, model: str, prompt_bytes: int, *, streamed: bool) -> bytes:
    """Return a request as an SDK writes it, with a prompt of about so many bytes; a stream asks for usage, so that no gateway need add anything."""
    words = ("The quick brown fox jumps over the lazy dog. " * (prompt_bytes // 45 + 1))[:prompt_bytes]
    options = ',"stream":true' + (',"stream_options":{"include_usage":true}' if dialect == "openai" else "") if streamed else ""
    asked = asked_stream(f'"model":"{model}"'.encode())
    bound = 512 if asked is None else max(512, 5 * asked[0])  # no less than what a chunk is counted as
    return f'{{"model":"{model}","max_tokens":{bound}{options},"messages":[{{"role":"user","content":"{words}"}}]}}'.encode()
