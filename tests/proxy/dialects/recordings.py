"""Streams and answers in the shapes that providers send, shortened, each with its usage worked out by hand."""

import json
from dataclasses import dataclass

from proxy.dialects import anthropic, openai
from proxy.dialects.base import Ask, Usage


def anthropic_ask(**more: object) -> Ask:
    """Read a small streaming request; its input is counted as 8 tokens."""
    body = {"model": "claude-asked", "max_tokens": 1000, "messages": [{"role": "user", "content": "Hi"}], "stream": True, **more}
    return anthropic.parse(json.dumps(body, separators=(",", ":")).encode())


def openai_ask(include_usage: bool = True, **more: object) -> Ask:
    """Read a small streaming request; its input is counted as 8 tokens."""
    body = {"model": "gpt-asked", "messages": [{"role": "user", "content": "Hi"}], "stream": True, **more}
    return openai.parse(json.dumps({**body, "stream_options": {"include_usage": include_usage}}, separators=(",", ":")).encode())


def events(*values: dict[str, object]) -> bytes:
    """Write events of the Messages API."""
    return b"".join(f"event: {value['type']}\ndata: {json.dumps(value)}\n\n".encode() for value in values)


def chunks(*values: dict[str, object], done: bool = True) -> bytes:
    """Write chunks of the Chat Completions API, compact as OpenAI does."""
    parts = [f"data: {json.dumps(value, separators=(',', ':'))}\n\n".encode() for value in values]
    return b"".join(parts) + (b"data: [DONE]\n\n" if done else b"")


def start(usage: object, model: str = "claude-opus-5-5") -> dict[str, object]:
    """Begin a message."""
    message: dict[str, object] = {"id": "msg_01", "type": "message", "role": "assistant", "model": model, "content": []}
    return {"type": "message_start", "message": {**message, "stop_reason": None, "stop_sequence": None, "usage": usage}}


def text_block(*pieces: str, index: int = 0) -> list[dict[str, object]]:
    """Give the events of a text block."""
    return [
        {"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": ""}},
        *({"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": piece}} for piece in pieces),
        {"type": "content_block_stop", "index": index},
    ]


def finish(usage: object, stop_reason: str = "end_turn") -> list[dict[str, object]]:
    """End a message."""
    return [
        {"type": "message_delta", "delta": {"stop_reason": stop_reason, "stop_sequence": None}, "usage": usage},
        {"type": "message_stop"},
    ]


def chunk(content: str | None = None, finish_reason: str | None = None, index: int = 0, **more: object) -> dict[str, object]:
    """Give a chunk with one choice."""
    choice = {"index": index, "delta": {} if content is None else {"content": content}, "logprobs": None, "finish_reason": finish_reason}
    return {**HEAD, "choices": [choice], **more}


HEAD: dict[str, object] = {
    "id": "chatcmpl-9",
    "object": "chat.completion.chunk",
    "created": 1790000000,
    "model": "gpt-5.5-2026-04-23",
    "service_tier": "default",
    "system_fingerprint": "fp_1",
}


@dataclass(frozen=True)
class Recording:
    """A whole stream, the usage in it, and the size of its text."""

    name: str
    stream: bytes
    usage: Usage
    characters: int
    lines: int


_PLAIN = {
    "input_tokens": 25,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
    "output_tokens": 1,
    "service_tier": "standard",
    "inference_geo": "us",
}
_SPLIT = {
    "input_tokens": 3,
    "cache_creation_input_tokens": 700,
    "cache_read_input_tokens": 12000,
    "cache_creation": {"ephemeral_5m_input_tokens": 200, "ephemeral_1h_input_tokens": 500},
    "output_tokens": 2,
    "service_tier": "priority",
    "speed": "fast",
}


def _block(index: int, block: dict[str, object]) -> dict[str, object]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def _call(*calls: dict[str, object]) -> dict[str, object]:
    return {**HEAD, "choices": [{"index": 0, "delta": {"tool_calls": list(calls)}, "finish_reason": None}]}


def _counts(input_tokens: int, output_tokens: int, cache_read: int = 0, cache_write: int = 0) -> dict[str, object]:
    return {
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "cache_read_input_tokens": cache_read,
        "cache_creation_input_tokens": cache_write,
    }


ANTHROPIC = [
    Recording(
        "plain",
        events(start(_PLAIN), {"type": "ping"}, *text_block("Hello", " wörld\n", "2"), *finish({"output_tokens": 15})),
        Usage(input_tokens=25, output_tokens=15, model="claude-opus-5-5", service_tier="standard", geography="us", reported=True),
        13,
        2,
    ),
    Recording(
        # The delta repeats the totals: 700 written of which 500 are 1h, so 200 are 5m; nothing is added to the start's numbers.
        "cache writes of both lifetimes",
        events(start(_SPLIT), *text_block("ok"), *finish(_counts(3, 40, 12000, 700))),
        Usage(
            input_tokens=3,
            cache_read_tokens=12000,
            cache_write_5m_tokens=200,
            cache_write_1h_tokens=500,
            output_tokens=40,
            model="claude-opus-5-5",
            service_tier="fast",
            speed="fast",
            reported=True,
        ),
        2,
        1,
    ),
    Recording(
        # The vendor's example: input grows from 2679 to 10682 with the search results, cumulative; the later write total 900 is 400 above
        # the split, and those 400 are 5m. A zero replaces: the cache read of the start is gone.
        "web search",
        events(
            start({**_SPLIT, "input_tokens": 2679, "cache_read_input_tokens": 50, "cache_creation_input_tokens": 500}),
            _block(0, {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}),
            {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": '{"query":"x"}'}},
            {"type": "content_block_stop", "index": 0},
            _block(1, {"type": "web_search_tool_result", "tool_use_id": "s", "content": []}),
            {"type": "content_block_stop", "index": 1},
            *text_block("a\n", index=2),
            *text_block("b", index=3),
            *finish({**_counts(10682, 510, 0, 900), "server_tool_use": {"web_search_requests": 1, "web_fetch_requests": 0}}),
        ),
        Usage(
            input_tokens=10682,
            cache_write_5m_tokens=400,
            cache_write_1h_tokens=500,
            output_tokens=510,
            web_searches=1,
            model="claude-opus-5-5",
            service_tier="fast",
            speed="fast",
            reported=True,
        ),
        3,
        2,
    ),
    Recording(
        # Two cumulative deltas: the second replaces the first. Thinking is inside the output.
        "thinking and two deltas",
        events(
            start(_PLAIN),
            {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hmm"}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "EqQB"}},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": None}, "usage": {"output_tokens": 30}},
            *text_block("x", index=1),
            *finish({"output_tokens": 44, "output_tokens_details": {"thinking_tokens": 29}, "input_tokens": None}),
        ),
        Usage(
            input_tokens=25,
            output_tokens=44,
            reasoning_tokens=29,
            model="claude-opus-5-5",
            service_tier="standard",
            geography="us",
            reported=True,
        ),
        1,
        1,
    ),
    Recording(
        # Top level 100 in, 20 out; the compaction's 3000 in, 400 out come on top; the advisor is priced apart; messages are inside.
        "iterations",
        events(
            start(_PLAIN),
            *text_block("done"),
            *finish(
                {
                    **_counts(100, 20),
                    "iterations": [
                        {"type": "compaction", **_counts(3000, 400, 10, 5)},
                        {"type": "message", **_counts(100, 20)},
                        {"type": "advisor_message", "model": "claude-fable-5-2", **_counts(900, 70)},
                    ],
                }
            ),
        ),
        Usage(
            input_tokens=3100,
            cache_read_tokens=10,
            cache_write_5m_tokens=5,
            output_tokens=420,
            model="claude-opus-5-5",
            service_tier="standard",
            geography="us",
            reported=True,
            others=(Usage(input_tokens=900, output_tokens=70, model="claude-fable-5-2", reported=True),),
        ),
        4,
        1,
    ),
    Recording(
        "fallback model",
        events(
            start(_PLAIN),
            *text_block("ok"),
            *finish({"output_tokens": 6, "iterations": [{"type": "fallback_message", "model": "claude-haiku-5-5", **_counts(25, 6)}]}),
        ),
        Usage(input_tokens=25, output_tokens=6, model="claude-haiku-5-5", service_tier="standard", geography="us", reported=True),
        2,
        1,
    ),
    Recording(
        "refusal without content is not charged",
        events(start(_PLAIN), *finish({"output_tokens": 7}, "refusal")),
        Usage(model="claude-opus-5-5", service_tier="standard", geography="us", reported=True),
        0,
        0,
    ),
    Recording(
        "refusal in mid-stream is charged",
        events(start(_PLAIN), *text_block("I "), *finish({"output_tokens": 7}, "refusal")),
        Usage(input_tokens=25, output_tokens=7, model="claude-opus-5-5", service_tier="standard", geography="us", reported=True),
        2,
        1,
    ),
    Recording(
        "no event names, CRLF, comments and unknown events",
        b": hello\r\n\r\n"
        + events(start(_PLAIN), {"type": "novelty", "delta": 7}, *text_block("Hi"), *finish({"output_tokens": 3})).replace(b"\n", b"\r\n"),
        Usage(input_tokens=25, output_tokens=3, model="claude-opus-5-5", service_tier="standard", geography="us", reported=True),
        2,
        1,
    ),
]

_REPORT = {
    "prompt_tokens": 2006,
    "completion_tokens": 300,
    "total_tokens": 2306,
    "prompt_tokens_details": {"cached_tokens": 1920, "cache_write_tokens": 64, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 128, "audio_tokens": 0, "rejected_prediction_tokens": 10},
}
_SMALL = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}

OPENAI = [
    Recording(
        # 2006 - 1920 read - 64 written = 22.
        "usage chunk",
        chunks(
            chunk("", usage=None),
            chunk("Hel", usage=None),
            chunk("lo\n", usage=None),
            chunk(None, "stop", usage=None),
            {**HEAD, "choices": [], "usage": _REPORT},
        ),
        Usage(
            input_tokens=22,
            cache_read_tokens=1920,
            cache_write_5m_tokens=64,
            output_tokens=300,
            reasoning_tokens=128,
            model="gpt-5.5-2026-04-23",
            service_tier="default",
            reported=True,
        ),
        6,
        1,
    ),
    Recording(
        # 100 - 30 audio in; 80 - 60 audio out.
        "audio",
        chunks(
            chunk(None),
            {**HEAD, "choices": [{"index": 0, "delta": {"audio": {"transcript": "Hey"}}, "finish_reason": None}]},
            chunk(None, "stop"),
            {
                **HEAD,
                "choices": [],
                "usage": {
                    "prompt_tokens": 100,
                    "completion_tokens": 80,
                    "prompt_tokens_details": {"audio_tokens": 30},
                    "completion_tokens_details": {"audio_tokens": 60},
                },
            },
        ),
        Usage(
            input_tokens=70,
            output_tokens=20,
            audio_input_tokens=30,
            audio_output_tokens=60,
            model="gpt-5.5-2026-04-23",
            service_tier="default",
            reported=True,
        ),
        3,
        1,
    ),
    Recording(
        "usage on the chunk that finishes, no [DONE]",
        chunks(chunk("a"), chunk("b", "stop", usage=_SMALL), done=False),
        Usage(input_tokens=9, output_tokens=2, model="gpt-5.5-2026-04-23", service_tier="default", reported=True),
        2,
        1,
    ),
    Recording(
        "cumulative usage on every chunk: the last wins",
        chunks(
            chunk("a", usage={**_SMALL, "completion_tokens": 1}),
            chunk("b", usage=_SMALL),
            chunk(None, "stop", usage={**_SMALL, "completion_tokens": 3}),
        ),
        Usage(input_tokens=9, output_tokens=3, model="gpt-5.5-2026-04-23", service_tier="default", reported=True),
        2,
        1,
    ),
    Recording(
        "Azure's first chunk without choices, OpenRouter's comments",
        b": OPENROUTER PROCESSING\n\n"
        + chunks(
            {"choices": [], "created": 0, "id": "", "model": "", "object": "", "prompt_filter_results": [{"prompt_index": 0}]},
            chunk("a"),
            chunk(None, "stop"),
            {**HEAD, "choices": [], "usage": _SMALL},
        ),
        Usage(input_tokens=9, output_tokens=2, model="gpt-5.5-2026-04-23", service_tier="default", reported=True),
        1,
        1,
    ),
    Recording(
        "reasoning and interleaved tool calls",
        chunks(
            {**HEAD, "choices": [{"index": 0, "delta": {"reasoning_content": "hm"}, "finish_reason": None}]},
            _call({"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}),
            _call({"index": 1, "id": "d", "type": "function", "function": {"name": "g", "arguments": ""}}),
            _call({"index": 0, "function": {"arguments": "{"}}, {"index": 1, "function": {"arguments": "{}"}}),
            _call({"index": 0, "function": {"arguments": "}"}}),
            chunk(None, "tool_calls"),
            {**HEAD, "choices": [], "usage": _SMALL, "service_tier": "flex"},
        ),
        Usage(input_tokens=9, output_tokens=2, model="gpt-5.5-2026-04-23", service_tier="flex", reported=True),
        0,
        0,
    ),
    Recording(
        # Two texts interleaved: "a\nb" and "c" are three lines.
        "two choices",
        chunks(
            chunk("a\n", index=0),
            chunk("c", index=1),
            chunk("b", index=0),
            chunk(None, "stop", index=1),
            chunk(None, "stop", index=0),
            {**HEAD, "choices": [], "usage": _SMALL},
        ),
        Usage(input_tokens=9, output_tokens=2, model="gpt-5.5-2026-04-23", service_tier="default", reported=True),
        4,
        3,
    ),
]
