"""Proving an upstream with a tiny call: whether it is there, believes our key, and knows the model."""

import io
import json
import socket
import ssl
import time
import tomllib
import wave
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import click

from clients.upstream import BROKEN, Upstreams
from configuration import UpstreamEntry, load_configuration
from domain.serving.routing import Upstream, Waits
from runtime import upstream_of
from settings import Settings

PRICES = Path(__file__).parent / "prices.toml"
WAITS = Waits(connect_seconds=10, first_byte_seconds=30, idle_seconds=30)
LARGEST_ANSWER_BYTES = 1024 * 1024
KINDS = ("embeddings", "speech", "transcription")
"""What a model may do that holds no conversation."""
_BOUNDARY = "tallygate-check"


async def check(settings: Settings, name: str | None, model: str | None) -> bool:
    """Make one tiny call to each upstream, or to the one named, and print what came of it; True when all are well.

    It is made with the configured address and key, outside of the books: the provider bills it. Raises click.ClickException for an unknown name.
    """
    configuration = load_configuration(settings.config)
    if name is not None and name not in configuration.upstreams:
        raise click.ClickException(f"there is no upstream {name}; configured: {', '.join(configuration.upstreams) or 'none'}")
    chosen = {key: entry for key, entry in configuration.upstreams.items() if name in (None, key)}
    if not chosen:
        click.echo("  note  no upstream is configured: only the built-in model `echo` answers")
        return True
    clients = Upstreams()
    try:
        well = True
        for key, entry in chosen.items():
            upstream = upstream_of(key, entry, configuration.routing)
            fault, said = await _try(clients, upstream, entry, model or _model(upstream))
            click.echo(f"{'REPAIR' if fault else '    ok'}  {key}: {said}")
            well = well and not fault
        return well
    finally:
        await clients.close()


def _model(upstream: Upstream) -> str:
    """Return a model that the upstream serves: the first that it names, or the cheapest shipped one of its vendor."""
    if upstream.models:
        return next((model for model in upstream.models if _kind(model) is None), upstream.models[0])
    shipped = [entry for entry in _shipped().values() if entry.get("vendor") == upstream.vendor and _kind(entry["name"]) is None]
    return str(min(shipped, key=lambda entry: float(entry["usd_per_million"]["output"]))["name"])


@cache
def _shipped() -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in tomllib.loads(PRICES.read_text())["model"]}


def _kind(model: str) -> str | None:
    """Return what a shipped model does instead of holding a conversation; None for one that does, and for any that is not shipped."""
    capabilities = _shipped().get(model, {}).get("capabilities", ())
    return next((kind for kind in KINDS if kind in capabilities), None)


@dataclass(frozen=True, slots=True)
class _Call:
    """The tiny call that proves an upstream; `answer` names a field of a sound answer, None when it is no JSON."""

    path: str
    body: bytes
    answer: str | None
    content_type: str = "application/json"


def _call(upstream: Upstream, model: str, named: str) -> _Call:
    kind = _kind(model)
    if kind == "embeddings":
        return _Call("/v1/embeddings", _json(model=named, input="ok"), "data")
    if kind == "speech":
        return _Call("/v1/audio/speech", _json(model=named, input="ok", voice="alloy"), None)
    if kind == "transcription":
        return _Call("/v1/audio/transcriptions", _form(named), "text", f"multipart/form-data; boundary={_BOUNDARY}")
    if upstream.dialect == "anthropic":
        return _Call("/v1/messages", _json(model=named, messages=[{"role": "user", "content": "Say ok."}], max_tokens=16), "content")
    if upstream.forms is not None and "chat" not in upstream.forms:
        return _Call("/v1/responses", _json(model=named, input="Say ok.", max_output_tokens=16), "output")
    return _Call("/v1/chat/completions", _json(model=named, messages=[{"role": "user", "content": "Say ok."}], max_completion_tokens=16), "choices")


def _json(**fields: object) -> bytes:
    return json.dumps(fields).encode()


def _form(named: str) -> bytes:
    """Write a form with a second of silence."""
    silence = io.BytesIO()
    with wave.open(silence, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(8_000)
        file.writeframes(b"\x80" * 8_000)
    model = f'--{_BOUNDARY}\r\ncontent-disposition: form-data; name="model"\r\n\r\n{named}\r\n'
    head = f'--{_BOUNDARY}\r\ncontent-disposition: form-data; name="file"; filename="silence.wav"\r\ncontent-type: audio/wav\r\n\r\n'
    return model.encode() + head.encode() + silence.getvalue() + f"\r\n--{_BOUNDARY}--\r\n".encode()


async def _try(clients: Upstreams, upstream: Upstream, entry: UpstreamEntry, model: str) -> tuple[bool, str]:
    """Return whether something is at fault, and what to tell of it."""
    named = upstream.named(model)
    call = _call(upstream, model, named)
    headers = [(b"content-type", call.content_type.encode()), *([(b"anthropic-version", b"2023-06-01")] if upstream.dialect == "anthropic" else [])]
    if upstream.key is not None:
        secret = upstream.key.encode()
        headers.append((b"x-api-key", secret) if upstream.auth == "x-api-key" else (b"authorization", b"Bearer " + secret))
    begun = time.monotonic()
    try:
        async with clients.post(upstream.url + call.path, headers, call.body, WAITS) as response:
            answer = await response.read(LARGEST_ANSWER_BYTES) or b""
            status, wait = response.status, response.header(b"retry-after").decode("latin-1")
            kind = response.header(b"content-type").decode("latin-1").lower()
    except BROKEN as error:
        return True, _broken(error, upstream.url)
    milliseconds = int((time.monotonic() - begun) * 1000)
    key = entry.key_env or "no key is configured"
    try:
        told = json.loads(answer)
        error_ = told.get("error") or {}
        words = str(error_.get("code") or error_.get("type") or ""), str(error_.get("message") or "")
    except (ValueError, AttributeError):
        told, words = None, ("", "")
    sound = call.answer in told if isinstance(told, dict) else call.answer is None and bool(answer) and not kind.startswith(("text/", "application/json"))
    return _judged(status, sound, words, key, named, wait, milliseconds)


def _judged(status: int, sound: bool, words: tuple[str, str], key: str, model: str, wait: str, milliseconds: int) -> tuple[bool, str]:
    code, message = words
    if status == 200:
        if sound:
            return False, f"{model} answered in {milliseconds} ms"
        return True, "answers 200, but not in its dialect: is `dialect` right, and the address without /v1?"
    if code in ("insufficient_quota", "billing_error") or status == 402 or "credit balance" in message.lower():
        return True, f"the provider's account cannot pay ({status}): {message[:200]}"
    if status in (401, 403):
        return True, f"the key is not accepted ({status}): {key}"
    if status == 404:
        return True, f"the model {model} is not known there, or the address is wrong ({status}): {message[:200]}"
    if status == 429:
        return True, f"is at its rate limit ({status})" + (f"; it asks to come back in {wait} s" if wait else "")
    if 300 <= status < 400:
        return True, f"redirects ({status}), which is not followed: name the address itself"
    return True, f"answers {status}: {message[:200] or 'no reason given'}"


def _broken(error: BaseException, url: str) -> str:
    host = url.split("//", 1)[1]
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, socket.gaierror):
            return f"the name {host} cannot be found (DNS)"
        if isinstance(cause, ssl.SSLError):
            return f"{host} cannot be trusted, or speaks no TLS: {getattr(cause, 'verify_message', '') or cause.reason}"
        if isinstance(cause, ConnectionRefusedError):
            return f"nobody listens at {host}"
        cause = cause.__cause__ or cause.__context__
    return f"{host} did not answer in time" if isinstance(error, TimeoutError) else f"{host} broke off: {error or type(error).__name__}"
