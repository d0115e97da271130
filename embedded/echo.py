"""The built-in model `echo`: an upstream over HTTP that answers with the last user text, in both dialects, streaming or not.

Its counts are simple enough to check a charge by hand: input is one token for every four code points begun, over the text of the system
prompt and of all messages together, and at least 1; output is one token for every four code points begun of what it answers. An answer
longer than the request's token limit is cut to four code points for each token of it. Where tools are offered and the last user text is
`tool:<name> <json object>` with the name of one of them, the answer is a call of that tool, and the object as written is what is counted.
Chat completions with `n` say the same answer that many times, and count its tokens as often. What it answers on OpenAI's other APIs is in
`embedded.echo_more`.
"""

import asyncio
import contextlib
import json
import re
import socket
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any

import uvicorn

from embedded import echo_more

CHARACTERS_PER_TOKEN = 4
PIECE_CHARACTERS = 16
BODY_LIMIT_BYTES = 64 * 1024 * 1024
SLICE_BYTES = 16 * 1024
MOST_OUTPUT_TOKENS = 8192
"""As the shipped catalogue says: nobody gets many times what they sent."""
CREATED = 1_790_000_000
"""The `created` of every answer, in seconds of Unix time: the same request gives the same answer, its id aside."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_TOOL_CALL = re.compile(r"tool:(\S+) (.*)", re.DOTALL)


def tokens(characters: int) -> int:
    """Count tokens as `echo` does: one for every `CHARACTERS_PER_TOKEN` code points begun."""
    return -(-characters // CHARACTERS_PER_TOKEN)


@dataclass(frozen=True, slots=True)
class _Reply:
    """What `echo` says before it has a dialect; `tool` is the name of the tool it calls, with `text` as arguments."""

    model: str
    input_tokens: int
    text: str
    tool: str | None
    cut: bool
    choices: int

    @property
    def output_tokens(self) -> int:
        return tokens(len(self.text))

    def pieces(self) -> Iterator[str]:
        return (self.text[start : start + PIECE_CHARACTERS] for start in range(0, len(self.text), PIECE_CHARACTERS))


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer POST on the paths of both dialects (ASGI); 400 for what is no such request, 404 for any other path."""
    if scope["type"] != "http":
        return
    answers = {"/v1/messages": _messages, "/v1/chat/completions": _chat, "/v1/responses": _responses}.get(scope["path"])
    body = await _body(receive)
    if scope["path"] in _PLAIN and scope["method"] == "POST":
        try:
            content_type, whole = _PLAIN[scope["path"]](dict(scope["headers"]).get(b"content-type", b""), body)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            await _send_json(send, 400, _error(_chat, "invalid_request_error", "The request cannot be read."))
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", content_type)]})
        for start in range(0, len(whole), SLICE_BYTES):
            await send({"type": "http.response.body", "body": whole[start : start + SLICE_BYTES], "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        return
    if answers is None or scope["method"] != "POST":
        await _send_json(send, 404, _error(answers, "not_found_error", "There is nothing here."))
        return
    try:
        asked = json.loads(body)
        reply = _reply(echo_more.conversation(asked) if answers is _responses else asked)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        await _send_json(send, 400, _error(answers, "invalid_request_error", "The request cannot be read."))
        return
    told, events = answers(asked, reply)
    if not asked.get("stream"):
        await _send_json(send, 200, told)
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream; charset=utf-8")]})
    for event in events:
        await send({"type": "http.response.body", "body": event, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


@contextlib.asynccontextmanager
async def serve() -> AsyncIterator[str]:
    """Serve `echo` on a free port of the loopback in this event loop, and give its base URL, without a path; stopped at the end.

    Raises OSError when the loopback cannot be listened on.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    server = _Server(uvicorn.Config(app, lifespan="off", ws="none", log_config=None, access_log=False, timeout_graceful_shutdown=1))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        while not server.started and not serving.done():
            await asyncio.sleep(0.005)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving
        listener.close()


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the process that this server is a guest of."""
        yield


def _reply(asked: dict[str, Any]) -> _Reply:
    messages = asked["messages"]
    texts = [_text(asked.get("system"))] + [_text(message["content"]) for message in messages]
    last = next((_text(message["content"]) for message in reversed(messages) if message["role"] == "user"), "")
    offered = {(tool.get("function") or tool).get("name") for tool in asked.get("tools") or ()}
    call = _TOOL_CALL.fullmatch(last)
    tool = None
    if call and call[1] in offered and _is_object(call[2]):
        tool, last = call[1], call[2]
    limit = asked.get("max_tokens") if asked.get("max_completion_tokens") is None else asked["max_completion_tokens"]
    answer = last[: max(0, MOST_OUTPUT_TOKENS if limit is None else min(limit, MOST_OUTPUT_TOKENS)) * CHARACTERS_PER_TOKEN]
    return _Reply(str(asked["model"]), max(1, tokens(sum(map(len, texts)))), answer, tool, answer != last, max(1, int(asked.get("n") or 1)))


def _error(answers: object, kind: str, message: str) -> dict[str, Any]:
    if answers in (_chat, _responses):
        return {"error": {"message": message, "type": kind, "param": None, "code": None}}
    return {"type": "error", "error": {"type": kind, "message": message}}


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, dict):
        return _text(content.get("text") or content.get("content"))
    return "".join(map(_text, content)) if isinstance(content, list) else ""


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _messages(asked: dict[str, Any], reply: _Reply) -> tuple[dict[str, Any], Iterator[bytes]]:
    usage = {
        "input_tokens": reply.input_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": reply.output_tokens,
        "service_tier": "standard",
    }
    reason = "max_tokens" if reply.cut else "tool_use" if reply.tool else "end_turn"
    block: dict[str, Any] = {"type": "text", "text": reply.text}
    empty: dict[str, Any] = {"type": "text", "text": ""}
    if reply.tool:
        called = {"type": "tool_use", "id": f"toolu_{uuid.uuid4().hex}", "name": reply.tool}
        block, empty = {**called, "input": {} if reply.cut else json.loads(reply.text)}, {**called, "input": {}}
    message = {"id": f"msg_{uuid.uuid4().hex}", "type": "message", "role": "assistant", "model": reply.model}
    ended = {"stop_reason": reason, "stop_sequence": None}

    def events() -> Iterator[bytes]:
        begun = {"stop_reason": None, "stop_sequence": None, "usage": {**usage, "output_tokens": min(1, reply.output_tokens)}}
        yield _event("message_start", message={**message, "content": [], **begun})
        yield _event("content_block_start", index=0, content_block=empty)
        yield _event("ping")
        for piece in reply.pieces():
            delta = {"type": "input_json_delta", "partial_json": piece} if reply.tool else {"type": "text_delta", "text": piece}
            yield _event("content_block_delta", index=0, delta=delta)
        yield _event("content_block_stop", index=0)
        yield _event("message_delta", delta=ended, usage={"input_tokens": reply.input_tokens, "output_tokens": reply.output_tokens})
        yield _event("message_stop")

    return {**message, "content": [block], **ended, "usage": usage}, events()


def _chat(asked: dict[str, Any], reply: _Reply) -> tuple[dict[str, Any], Iterator[bytes]]:
    usage = {
        "prompt_tokens": reply.input_tokens,
        "completion_tokens": reply.output_tokens * reply.choices,
        "total_tokens": reply.input_tokens + reply.output_tokens * reply.choices,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }
    reason = "length" if reply.cut else "tool_calls" if reply.tool else "stop"
    head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": CREATED, "model": reply.model, "service_tier": "default"}
    call = {"id": f"call_{uuid.uuid4().hex}", "type": "function", "function": {"name": reply.tool, "arguments": reply.text}}
    said: dict[str, Any] = {"content": None, "tool_calls": [call]} if reply.tool else {"content": reply.text}
    message = {"role": "assistant", **said, "refusal": None}
    shows_usage = bool((asked.get("stream_options") or {}).get("include_usage"))

    def chunk(index: int, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        null_usage = {"usage": None} if shows_usage else {}
        return _data({**head, "object": "chat.completion.chunk", "choices": [choice], **null_usage})

    def events() -> Iterator[bytes]:
        first = {"index": 0, **call, "function": {"name": reply.tool, "arguments": ""}}
        for index in range(reply.choices):
            yield chunk(index, {"role": "assistant", "content": None, "tool_calls": [first]} if reply.tool else {"role": "assistant", "content": ""})
            for piece in reply.pieces():
                yield chunk(index, {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} if reply.tool else {"content": piece})
            yield chunk(index, {}, reason)
        if shows_usage:
            yield _data({**head, "object": "chat.completion.chunk", "choices": [], "usage": usage})
        yield b"data: [DONE]\n\n"

    choices = [{"index": index, "message": message, "logprobs": None, "finish_reason": reason} for index in range(reply.choices)]
    return {**head, "object": "chat.completion", "choices": choices, "usage": usage}, events()


def _responses(asked: dict[str, Any], reply: _Reply) -> tuple[dict[str, Any], Iterator[bytes]]:
    said = echo_more.Said(reply.model, reply.input_tokens, reply.output_tokens, reply.text, reply.pieces(), reply.tool, reply.cut, CREATED)
    return echo_more.response(asked, said)


_PLAIN: dict[str, Callable[[bytes, bytes], tuple[bytes, bytes]]] = {
    "/v1/embeddings": lambda _, body: (b"application/json", json.dumps(echo_more.embeddings(json.loads(body))).encode()),
    "/v1/audio/speech": lambda _, body: echo_more.speech(json.loads(body)),
    "/v1/audio/transcriptions": echo_more.transcription,
}


def _event(kind: str, **values: object) -> bytes:
    return f"event: {kind}\n".encode() + _data({"type": kind, **values})


def _data(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


async def _body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request" or len(body) > BODY_LIMIT_BYTES:
            return b""
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)


async def _send_json(send: Send, status: int, value: dict[str, Any]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(value, ensure_ascii=False).encode()})
