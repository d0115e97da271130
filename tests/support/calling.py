"""Calls of the inference road as bytes, in both dialects, with prices that make every charge a sum in the head."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp

from tests.support.upstream import Exchange, Script, anthropic_stream, openai_stream

Result = TypeVar("Result")
BOUND_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Wire:
    """A dialect as it stands on the wire, and what its scripted model costs, in microdollars for a token."""

    name: str
    path: str
    model: str
    input_microusd: int
    output_microusd: int
    end: bytes
    overloaded: int

    def body(self, text: str = "hi", *, stream: bool = True, model: str | None = None, **more: Any) -> bytes:
        """Write a request body; `more` are further fields of it."""
        fields = {"model": model or self.model, "max_tokens": 1000, "stream": stream, "messages": [{"role": "user", "content": text}], **more}
        return json.dumps({name: value for name, value in fields.items() if value is not None}, separators=(",", ":")).encode()

    def counted(self, body: bytes) -> int:
        """Count a request's input as admission does: a token for every four bytes of `messages` begun."""
        return -(-len(json.dumps(json.loads(body)["messages"], separators=(",", ":"))) // 4)

    def stream(self, pieces: Iterable[str] = ("Hello", " world"), **more: Any) -> list[bytes]:
        """Write a whole streamed answer, one event a part: 25 tokens in, 12 out unless `more` says otherwise."""
        return anthropic_stream(pieces, **more) if self.name == "anthropic" else openai_stream(pieces, **more)

    def begin(self, pieces: Iterable[str] = ("Hello", " world")) -> list[bytes]:
        """Write an answer's beginning: everything before the event that finishes it."""
        return self.stream(pieces, end=False)

    def rest(self, pieces: Iterable[str] = ("Hello", " world")) -> list[bytes]:
        """Write what follows `begin`."""
        return self.stream(pieces)[len(self.begin(pieces)) :]

    def whole(self, **usage: Any) -> bytes:
        """Write a whole answer that does not stream: 25 tokens in, 12 out unless `usage` says otherwise."""
        if self.name == "anthropic":
            numbers = {"input_tokens": 25, "output_tokens": 12} | usage
            content = [{"type": "text", "text": "Hello world"}]
            answer: dict[str, object] = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-test", "content": content}
            return json.dumps({**answer, "stop_reason": "end_turn", "stop_sequence": None, "usage": numbers}).encode()
        numbers = {"prompt_tokens": 25, "completion_tokens": 12, "total_tokens": 37} | usage
        choice = {"index": 0, "message": {"role": "assistant", "content": "Hello world"}, "finish_reason": "stop"}
        return json.dumps({"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-test", "choices": [choice], "usage": numbers}).encode()

    def price(self, input_tokens: int = 25, output_tokens: int = 12) -> int:
        """Return what this many tokens cost, in microdollars."""
        return input_tokens * self.input_microusd + output_tokens * self.output_microusd

    def refusal(self, body: bytes) -> tuple[str, str]:
        """Read an error body or event of this dialect; return its type and message, or fail."""
        told = json.loads(body)
        if self.name == "anthropic":
            assert told["type"] == "error"
        return str(told["error"]["type"]), str(told["error"]["message"])

    def error_event(self, stream: bytes) -> tuple[str, str]:
        """Read the event that a broken stream ends with; fails unless it is this dialect's error event and the last one."""
        last = stream.rstrip(b"\n").rsplit(b"\n\n", 1)[-1]
        lines = last.split(b"\n")
        if self.name == "anthropic":
            assert lines[0] == b"event: error", last
        assert lines[-1].startswith(b"data: "), last
        assert self.end not in stream
        return self.refusal(lines[-1][6:])


CLAUDE = Wire("anthropic", "/v1/messages", "claude-opus-5-5", 4, 20, b"message_stop", 529)
GPT = Wire("openai", "/v1/chat/completions", "gpt-5.5", 5, 30, b"[DONE]", 503)
WIRES = (CLAUDE, GPT)


@asynccontextmanager
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """Open a client that changes nothing of what it sends and gets, with as many connections as it likes."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout(total=BOUND_SECONDS)) as opened:
        yield opened


def bearer(secret: str) -> dict[str, str]:
    """Return the header fields of a call with a key."""
    return {"authorization": f"Bearer {secret}", "content-type": "application/json"}


_REMARK = re.compile(rb"^: tallygate (.*)\n(\n?)", re.MULTILINE)


def said(stream: bytes) -> bytes:
    """Return a stream without the gateway's closing remark: what the upstream said; fails unless there is exactly one remark."""
    without, count = _REMARK.subn(b"", stream)
    assert count == 1, stream[-400:]
    return without


def remark(stream: bytes) -> dict[str, Any]:
    """Return the gateway's closing remark of a stream: what the call cost."""
    found = _REMARK.search(stream)
    assert found is not None, stream[-400:]
    read: dict[str, Any] = json.loads(found[1])
    return read


def by_word(scripts: Mapping[str, Script]) -> Script:
    """Answer each request with the script whose name stands in its body as `<name>`, so that calls at once get what each asked for."""

    async def script(exchange: Exchange) -> None:
        found = re.search(rb"<([\w.-]+)>", exchange.request.body)
        assert found is not None
        await scripts[found[1].decode()](exchange)

    return script


async def until(look: Callable[[], Awaitable[Result]], what: str) -> Result:
    """Look again and again until the answer is true, and return it; AssertionError with `what` after BOUND_SECONDS."""
    seen: Any = None
    for _ in range(int(BOUND_SECONDS / 0.05)):
        seen = await look()
        if seen:
            return seen  # type: ignore[no-any-return]  # it is what `look` gave
        await asyncio.sleep(0.05)
    raise AssertionError(f"never seen: {what}; last: {seen!r}")
