"""Embeddings, speech and transcriptions through a running gateway: the official SDK, bytes as they are, and bills that are right."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import httpx2
import openai
import pytest

from models import database
from tests.conftest import PROVIDER_KEY, Suite
from tests.proxy.dialects.recordings_of_sound import form, wav
from tests.support import upstream as scripted
from tests.support.books import only_call, quiet, settled
from tests.support.calling import session
from tests.support.gateway import Gateway
from tests.support.upstream import Exchange, Script, Upstream
from tests.support.world import Tenant, tenant

pytestmark = pytest.mark.anyio

CREDIT = 1_000_000
CONFIGURATION = """
[upstreams.sounds]
dialect = "openai"
url = "{url}"
key_env = "SCRIPTED_KEY"
models = ["text-embedding-3-small", "tts-1", "tts-1-hd", "gpt-4o-mini-tts", "whisper-1", "gpt-4o-transcribe"]
rename = {{ "tts-1" = "tts-theirs", "whisper-1" = "whisper-theirs" }}

[upstreams.spare]
dialect = "openai"
url = "{url}"
key_env = "SCRIPTED_KEY"
models = ["tts-1-hd"]
priority = 1

[upstreams.messages]
dialect = "anthropic"
url = "{url}"
key_env = "SCRIPTED_KEY"
models = ["claude-opus-5-5"]
"""


@pytest.fixture(scope="module")
async def provider() -> AsyncIterator[Upstream]:
    """The scripted upstream of this file."""
    async with scripted.serve() as started:
        yield started


@pytest.fixture(scope="module")
async def gateway(books: Suite, provider: Upstream) -> AsyncIterator[Gateway]:
    """A gateway whose upstream has models of sound and vectors."""
    path = books.folder / "sounds.toml"
    path.write_text(CONFIGURATION.format(url=provider.url))
    started = Gateway({**books.environment, "TALLYGATE_CONFIG": str(path), "SCRIPTED_KEY": PROVIDER_KEY}, books.folder / "sounds.log")
    started.start()
    await started.ready()
    yield started
    assert started.terminate() == 0


def _client(gateway: Gateway, mine: Tenant) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=mine.secret, max_retries=0)


def _binary(body: bytes, content_type: str) -> Script:
    return scripted.whole(body, 200, {"content-type": content_type})


async def _characters(mine: Tenant) -> tuple[int, int]:
    row = await database.fetch_row("SELECT sum(characters) AS characters, sum(lines) AS lines FROM usage_event WHERE workspace_id = $1", mine.workspace_id)
    assert row is not None
    return int(row["characters"]), int(row["lines"])


async def _reviewed(mine: Tenant) -> int:
    return int(await database.fetch_value("SELECT count(*) FROM usage_event WHERE workspace_id = $1 AND needs_review", mine.workspace_id))


# `echo`, which anybody can try: 1 USD a million tokens in, 15 a million characters, 0.006 a minute.


async def test_the_sdk_embeds(gateway: Gateway) -> None:
    """`embeddings.create`, which asks for base64 by itself: two texts of 9 and 1 tokens cost 10 microdollars."""
    mine = await tenant(credit_microusd=CREDIT)
    async with _client(gateway, mine) as client:
        answer = await client.embeddings.create(model="echo", input=["Say this back to me, word for word.", "abc"])
    assert [len(each.embedding) for each in answer.data] == [8, 8]
    assert answer.usage.prompt_tokens == 10
    assert await quiet(mine) == CREDIT - 10


async def test_the_sdk_speaks(gateway: Gateway) -> None:
    """`audio.speech.create`: 1000 characters cost 15 000 microdollars; the text given is the metric, not the sound."""
    mine = await tenant(credit_microusd=CREDIT)
    text = "0123456789" * 99 + "end\nof it."
    async with _client(gateway, mine) as client:
        answer = await client.audio.speech.create(model="echo", voice="alloy", input=text)
        sound = answer.content
        async with client.audio.speech.with_streaming_response.create(model="echo", voice="alloy", input="abc", response_format="pcm") as opened:
            streamed = b"".join([part async for part in opened.iter_bytes()])
        events = await client.audio.speech.create(model="echo", voice="alloy", input="abc", response_format="pcm", stream_format="sse")
    assert (sound[:4], len(sound)) == (b"RIFF", 44 + 80 * 1000)
    assert streamed == b"\x80" * 240
    told = [json.loads(event[6:]) for event in events.content.split(b"\n\n") if event.startswith(b"data: ")]
    assert (b"".join(base64.b64decode(event["audio"]) for event in told[:-1]), told[-1]["type"]) == (streamed, "speech.audio.done")
    assert await quiet(mine) == CREDIT - 15_000 - 2 * 45
    assert await _characters(mine) == (1006, 4)


@pytest.mark.parametrize("wanted", ["json", "text", "srt", "vtt", "verbose_json"])
async def test_the_sdk_transcribes(gateway: Gateway, wanted: Any) -> None:
    """`audio.transcriptions.create` in every form: 3 seconds of a recording of 2.5 cost 300 microdollars."""
    mine = await tenant(credit_microusd=CREDIT)
    async with _client(gateway, mine) as client:
        answer = await client.audio.transcriptions.create(model="echo", file=("a.wav", wav(2.5)), response_format=wanted, prompt="Hello there")
    assert "Hello there" in (answer if isinstance(answer, str) else answer.text)
    assert await quiet(mine) == CREDIT - 300
    assert await _characters(mine) == (11, 1)


# A provider.


async def test_sound_passes_untouched(gateway: Gateway, provider: Upstream) -> None:
    """F37: every byte of a request but the model's name goes up as it came, and every byte of sound comes back; the type too."""
    mine = await tenant(credit_microusd=CREDIT)
    sound = bytes(range(256)) * 2000
    provider.requests.clear()
    provider.script(_binary(sound, "audio/mpeg"))
    body = b'{ "model":"tts-1","voice": {"id":"v"}, "input":"Gr\\u00fc\xc3\x9fe", "speed":1.0}'
    async with httpx2.AsyncClient(base_url=gateway.url, headers=mine.bearer, timeout=60) as client:
        answer = await client.post("/v1/audio/speech", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.headers["content-type"], answer.content) == (200, "audio/mpeg", sound)
    assert (provider.requests[0].path, provider.requests[0].body) == ("/v1/audio/speech", body.replace(b"tts-1", b"tts-theirs"))
    assert await quiet(mine) == CREDIT - 5 * 15


async def test_a_form_passes_untouched(gateway: Gateway, provider: Upstream) -> None:
    """F37: a form keeps its boundary, its fields and its file; only the model's name becomes the upstream's."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.requests.clear()
    provider.script(scripted.whole(json.dumps({"text": "Hi", "usage": {"type": "duration", "seconds": 7}}).encode()))
    recording = wav(1) + bytes(range(256)) * 1000
    filled = form(recording, boundary="x-y", model="whisper-1", language="de", temperature="0")
    async with httpx2.AsyncClient(base_url=gateway.url, headers=mine.bearer, timeout=60) as client:
        answer = await client.post("/v1/audio/transcriptions", content=filled, headers={"content-type": "multipart/form-data; boundary=x-y"})
    assert answer.json()["text"] == "Hi"
    assert provider.requests[0].body == filled.replace(b"\r\n\r\nwhisper-1\r\n", b"\r\n\r\nwhisper-theirs\r\n")
    assert provider.requests[0].header("content-type") == "multipart/form-data; boundary=x-y"
    assert await quiet(mine) == CREDIT - 700


TOKENS = {"type": "tokens", "input_tokens": 14, "input_token_details": {"text_tokens": 10, "audio_tokens": 4}, "output_tokens": 101, "total_tokens": 115}


async def test_tokens_of_a_transcription_are_charged_by_kind(gateway: Gateway, provider: Upstream) -> None:
    """10 tokens of text at 2.5, 4 of sound at 6 and 101 out at 10 USD a million are 1059 microdollars; streamed and whole alike."""
    mine = await tenant(credit_microusd=CREDIT)
    delta = b'data: {"type":"transcript.text.delta","delta":"Hi"}\n\n'
    done = b"data: " + json.dumps({"type": "transcript.text.done", "text": "Hi", "usage": TOKENS}).encode() + b"\n\n"
    provider.script(scripted.whole(json.dumps({"text": "Hi", "usage": TOKENS}).encode()), scripted.stream([delta, done]))
    async with _client(gateway, mine) as client:
        whole = await client.audio.transcriptions.create(model="gpt-4o-transcribe", file=("a.wav", wav(1)))
        assert whole.text == "Hi"
        stream = await client.audio.transcriptions.create(model="gpt-4o-transcribe", file=("a.wav", wav(1)), stream=True)
        kinds = [event.type async for event in stream]
    assert kinds == ["transcript.text.delta", "transcript.text.done"]
    assert await quiet(mine) == CREDIT - 2 * 1059


async def test_embeddings_of_a_provider(gateway: Gateway, provider: Upstream) -> None:
    """9 tokens at 0.02 USD a million are 180 000 picodollars: nothing yet, and carried; six such calls make the first microdollar."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.script(scripted.whole(json.dumps({"object": "list", "data": [], "model": "m", "usage": {"prompt_tokens": 9, "total_tokens": 9}}).encode()))
    async with httpx2.AsyncClient(base_url=gateway.url, headers=mine.bearer, timeout=60) as client:
        for _ in range(6):
            assert (await client.post("/v1/embeddings", json={"model": "text-embedding-3-small", "input": "hi"})).status_code == 200
    assert await quiet(mine) == CREDIT - 1


async def _cut(exchange: Exchange) -> None:
    await exchange.head(200, content_type="audio/mpeg")
    exchange.cut()


FAILURES: list[tuple[str, Script, int]] = [
    ("cut before any sound", _cut, 502),
    ("no sound", scripted.whole(b"<html>", headers={"content-type": "text/html"}), 502),
    ("refused", scripted.status(400, {"error": {"message": "Unknown voice", "type": "invalid_request_error"}}), 400),
    ("no key", scripted.status(401), 502),
    ("an error under 200", scripted.whole(b'{"error":{"message":"x"}}'), 502),
    ("nothing at all", scripted.whole(b""), 502),
    ("a reset", scripted.reset, 502),
]


@pytest.mark.parametrize(("name", "script", "status"), FAILURES, ids=[row[0] for row in FAILURES])
async def test_speech_that_fails_costs_nothing(gateway: Gateway, provider: Upstream, name: str, script: Script, status: int) -> None:
    """F4, F18: what fails before its first byte is told in OpenAI's words; the hold is released, and nothing charged."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.script(script)
    async with httpx2.AsyncClient(base_url=gateway.url, headers=mine.bearer, timeout=60) as client:
        answer = await client.post("/v1/audio/speech", json={"model": "tts-1", "input": "Hello", "voice": "alloy"})
    assert answer.status_code == status, answer.text
    assert (await settled(await only_call(mine))).outcome == "failed"
    assert await quiet(mine) == CREDIT


SOUND = [b"ID3\x04first", bytes(range(256)) * 300, b"\n\n", b"last"]


def _dripping(release: asyncio.Event, *, then: Script | None = None) -> Script:
    """Send the first piece, wait until the test has read it, and send the others; then end, or do `then`."""

    async def script(exchange: Exchange) -> None:
        await exchange.head(200, content_type="audio/mpeg")
        await exchange.send(SOUND[0])
        await release.wait()
        if then is not None:
            await then(exchange)
            return
        for piece in SOUND[1:]:
            await exchange.send(piece)
        await exchange.end()

    return script


KEYED = pytest.mark.parametrize("key", [{}, {"idempotency-key": "spoken"}], ids=["plain", "keyed"])


@KEYED
async def test_sound_comes_piece_by_piece(gateway: Gateway, provider: Upstream, key: dict[str, str]) -> None:
    """The first piece is with the client before the upstream sends the second: it waits for that. Headers tell id, model and route; 5 characters cost 75."""
    mine, go = await tenant(credit_microusd=CREDIT), asyncio.Event()
    provider.script(_dripping(go), scripted.status(500))
    body = {"model": "tts-1", "input": "Hello", "voice": "alloy"}
    async with session() as client:
        async with client.post(f"{gateway.url}/v1/audio/speech", json=body, headers=mine.bearer | key) as answer:
            assert await answer.content.readexactly(len(SOUND[0])) == SOUND[0]
            told = answer.headers
            assert (answer.status, told["content-type"], told["x-tallygate-model"], told["x-tallygate-route"]) == (200, "audio/mpeg", "tts-1", "named")
            assert (told["x-request-id"], told.get("content-length")) == (str(await only_call(mine)), None)
            go.set()
            assert await answer.read() == b"".join(SOUND[1:])
        assert await quiet(mine) == CREDIT - 75
        if key:
            async with client.post(f"{gateway.url}/v1/audio/speech", json=body, headers=mine.bearer | key) as again:
                assert (again.status, await again.read(), again.headers["content-type"]) == (200, b"".join(SOUND), "audio/mpeg")
                assert (again.headers["x-request-id"], again.headers["idempotent-replayed"]) == (told["x-request-id"], "true")
    line = await settled(await only_call(mine))
    assert (line.charge_microusd, line.outcome, line.token_source, line.events) == (75, "succeeded", "provider", 1)
    assert (await quiet(mine), await _characters(mine)) == (CREDIT - 75, (5, 1))


@KEYED
@pytest.mark.parametrize("end", [scripted.cut, scripted.reset], ids=["cut", "reset"])
async def test_half_a_recording_never_looks_whole(gateway: Gateway, provider: Upstream, key: dict[str, str], end: Script) -> None:
    """F16: what breaks after its first byte breaks for the client too; the characters are charged, once; a repeat is 409 and names the receipt."""
    mine, go = await tenant(credit_microusd=CREDIT), asyncio.Event()
    provider.requests.clear()
    provider.script(_dripping(go, then=end))
    body = {"model": "tts-1-hd", "input": "Hello", "voice": "alloy"}
    async with session() as client:
        async with client.post(f"{gateway.url}/v1/audio/speech", json=body, headers=mine.bearer | key) as answer:
            assert await answer.content.readexactly(len(SOUND[0])) == SOUND[0]
            go.set()
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()
        call = await only_call(mine)
        line = await settled(call)
        assert (line.charge_microusd, line.outcome, line.error_code, line.http_status) == (150, "failed", "upstream_cut", 200)
        if key:
            async with client.post(f"{gateway.url}/v1/audio/speech", json=body, headers=mine.bearer | key) as again:
                assert (again.status, str(call) in (await again.json())["error"]["message"]) == (409, True)
    assert len(provider.requests) == 1  # never another upstream after the first byte
    assert await quiet(mine) == CREDIT - 150


async def test_speech_falls_back_before_its_first_byte(gateway: Gateway, provider: Upstream) -> None:
    """F17: an upstream that begins and says nothing is followed by the next; one charge, two attempts, and the client sees nothing of it."""
    mine, go = await tenant(credit_microusd=CREDIT), asyncio.Event()
    go.set()
    provider.requests.clear()
    provider.script(_cut, _dripping(go))
    async with session() as client, client.post(f"{gateway.url}/v1/audio/speech", json={"model": "tts-1-hd", "input": "Hello"}, headers=mine.bearer) as answer:
        assert (answer.status, await answer.read(), answer.headers["x-tallygate-route"]) == (200, b"".join(SOUND), "named, fallback")
    call = await only_call(mine)
    assert (await settled(call)).outcome == "succeeded"
    made = await database.fetch("SELECT upstream, outcome FROM attempt WHERE call_id = $1 ORDER BY number", call)
    assert [(row["upstream"], row["outcome"]) for row in made] == [("sounds", "failed"), ("spare", "succeeded")]
    assert await quiet(mine) == CREDIT - 150


@pytest.mark.parametrize("model", ["tts-1", "gpt-4o-mini-tts"])
async def test_a_recording_that_never_ends_is_cut(gateway: Gateway, provider: Upstream, model: str) -> None:
    """F4: two characters take no half hour to say: the upstream is left, the client's connection cut, and nothing stays held."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.requests.clear()
    piece = bytes(256 * 1024)

    async def endless(exchange: Exchange) -> None:
        await exchange.head(200, content_type="audio/mpeg" if model == "tts-1" else "text/event-stream")
        told = piece if model == "tts-1" else _spoken({"type": "speech.audio.delta", "audio": base64.b64encode(piece).decode()})[0]
        while True:
            await exchange.send(told)

    provider.script(endless)
    async with session() as client:
        asking = client.post(f"{gateway.url}/v1/audio/speech", json={"model": model, "input": "Hi"}, headers=mine.bearer)
        async with asking as answer:
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()
    await provider.requests[0].client_closed.wait()
    line = await settled(await only_call(mine))
    assert (line.charge_microusd, line.outcome, line.error_code) == ({"tts-1": 30, "gpt-4o-mini-tts": 24}[model], "failed", "upstream_error")
    assert await quiet(mine) == CREDIT - line.charge_microusd


@pytest.mark.parametrize(("pieces", "charge"), [(1, 75), (0, 0)])
async def test_who_leaves_in_the_middle_pays_the_characters(gateway: Gateway, provider: Upstream, pieces: int, charge: int) -> None:
    """F5, F33: the upstream is left at once, and nothing stays held; before the first byte nothing is charged."""
    mine, never = await tenant(credit_microusd=CREDIT), asyncio.Event()
    provider.requests.clear()
    provider.script(_dripping(never) if pieces else scripted.hang)
    async with session() as client:
        asking = client.post(f"{gateway.url}/v1/audio/speech", json={"model": "tts-1", "input": "Hello"}, headers=mine.bearer)
        if pieces:
            answer = await asking
            assert await answer.content.readexactly(len(SOUND[0])) == SOUND[0]
            answer.close()
        else:
            task = asyncio.ensure_future(asking)
            await provider.arrival()
            task.cancel()
        await (await provider.arrival()).client_closed.wait()
    line = await settled(await only_call(mine))
    assert (line.charge_microusd, line.outcome, line.error_code) == (charge, "cancelled", "client_gone")
    assert await quiet(mine) == CREDIT - charge


def _spoken(*events: object) -> list[bytes]:
    return [b"data: " + json.dumps(event).encode() + b"\n\n" for event in events]


DELTA, SPOKEN = {"type": "speech.audio.delta", "audio": "SUQzBA=="}, {"type": "speech.audio.done", "usage": {"input_tokens": 14, "output_tokens": 101}}


async def test_a_model_priced_by_tokens_speaks_to_every_client(gateway: Gateway, provider: Upstream) -> None:
    """F13: `gpt-4o-mini-tts` tells its tokens in events only: the SDK gets the recording in them; 14 at 0.6 and 101 at 12 are 1220.4 microdollars a call."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.requests.clear()
    provider.script(scripted.stream(_spoken(DELTA, DELTA, SPOKEN)))
    async with _client(gateway, mine) as client:
        answer = await client.audio.speech.create(model="gpt-4o-mini-tts", voice="alloy", input="Hello", response_format="opus")
        assert (answer.content, answer.response.headers["content-type"]) == (b"ID3\4ID3\4", "audio/opus")
        events = await client.audio.speech.create(model="gpt-4o-mini-tts", voice="alloy", input="Hello", stream_format="sse")
    passed = events.content.split(b"\n\n")
    assert [json.loads(event[5:])["type"] for event in passed if event.startswith(b"data:")] == ["speech.audio.delta"] * 2 + ["speech.audio.done"]
    assert [json.loads(request.body)["stream_format"] for request in provider.requests] == ["sse", "sse"]
    assert await quiet(mine) == CREDIT - 2440  # 2440.8: the fraction is carried
    assert (await _characters(mine), await _reviewed(mine)) == ((10, 2), 0)


@pytest.mark.parametrize(("name", "parts"), [("cut", [DELTA]), ("untold", [DELTA, {"type": "speech.audio.done"}])])
async def test_tokens_that_are_not_told_are_marked(gateway: Gateway, provider: Upstream, name: str, parts: list[object]) -> None:
    """F13: without the last event's usage a token of sound for each of the 5 characters and the 2 tokens of text are charged, and a person is asked to look."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.script(scripted.stream(_spoken(*parts), then=scripted.cut if name == "cut" else None))
    async with session() as client, client.post(f"{gateway.url}/v1/audio/speech", json={"model": "gpt-4o-mini-tts", "input": "Hello"}, headers=mine.bearer) as answer:
        if name == "cut":
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()
        else:
            assert await answer.read() == b"ID3\4"
    assert (await settled(await only_call(mine))).token_source == "estimate"
    assert await quiet(mine) == CREDIT - 61  # 5 * 12 + 2 * 0.6
    assert await _reviewed(mine) == 1


async def test_an_upstream_that_sends_no_events_is_broken(gateway: Gateway, provider: Upstream) -> None:
    """Sound whose tokens nobody will tell is not sold: 502, and nothing charged. An error in the events, before any sound, is told as one."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.script(_binary(b"ID3", "audio/mpeg"), scripted.stream(_spoken({"error": {"message": "no", "code": "server_error"}})))
    async with session() as client:
        for _ in range(2):
            async with client.post(f"{gateway.url}/v1/audio/speech", json={"model": "gpt-4o-mini-tts", "input": "Hello"}, headers=mine.bearer) as answer:
                assert (answer.status, (await answer.json())["error"]["type"]) == (502, "server_error")
    assert await quiet(mine) == CREDIT


@pytest.mark.parametrize(("model", "least", "most"), [("tts-1", 75, 75), ("gpt-4o-mini-tts", 2, 122)])
async def test_a_dry_run_of_speech_counts_what_has_a_price(gateway: Gateway, model: str, least: int, most: int) -> None:
    """5 characters at 15; 2 tokens of text at 0.6 with no sound at least and 10 tokens of it at 12 at most."""
    mine = await tenant(credit_microusd=CREDIT)
    headers = mine.bearer | {"x-tallygate-dry-run": "true"}
    async with session() as client, client.post(f"{gateway.url}/v1/audio/speech", json={"model": model, "input": "Hello"}, headers=headers) as answer:
        assert (await answer.json())["cost_microusd"] == {"minimum": least, "maximum": most}
    assert await quiet(mine) == CREDIT


async def test_forms_are_refused_in_openai_s_shape(gateway: Gateway, provider: Upstream) -> None:
    """A form that cannot be read, or whose boundary is not its header's, is 400; without a key it is 401 whatever it is."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.requests.clear()
    good = form(wav(1), model="whisper-1")
    fields = {"content-type": "multipart/form-data; boundary=----b0undary"}
    async with httpx2.AsyncClient(base_url=gateway.url, timeout=60) as client:
        other = {"content-type": "multipart/form-data; boundary=x"}
        for body, header in ((b"", fields), (good[:-20], fields), (good, other), (b"{}", {"content-type": "application/json"})):
            refused = await client.post("/v1/audio/transcriptions", content=body, headers=header | mine.bearer)
            assert (refused.status_code, refused.json()["error"]["type"]) == (400, "invalid_request_error")
            assert (await client.post("/v1/audio/transcriptions", content=body, headers=header)).status_code == 401
        for path, body in (("/v1/embeddings", b"{}"), ("/v1/audio/speech", b'{"model":"tts-1","input":""}')):
            assert (await client.post(path, content=body, headers=mine.bearer)).status_code == 400
        for path in ("/v1/embeddings", "/v1/audio/speech", "/v1/audio/transcriptions"):
            assert (await client.get(path, headers=mine.bearer)).status_code == 405
    assert provider.requests == []
    assert await quiet(mine) == CREDIT


async def test_a_model_of_another_dialect_does_not_embed(gateway: Gateway, provider: Upstream) -> None:
    """What no translation can express is refused before any upstream hears of it."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.requests.clear()
    async with httpx2.AsyncClient(base_url=gateway.url, headers=mine.bearer, timeout=60) as client:
        embedded = await client.post("/v1/embeddings", json={"model": "claude-opus-5-5", "input": "hi"})
        spoken = await client.post("/v1/audio/speech", json={"model": "claude-opus-5-5", "input": "hi"})
    assert {embedded.status_code, spoken.status_code} <= {400, 404}
    assert provider.requests == []
    assert await quiet(mine) == CREDIT


@pytest.mark.parametrize(
    ("model", "path"),
    [("whisper-1", "audio/speech"), ("text-embedding-3-small", "audio/speech"), ("tts-1", "embeddings"), ("tts-1", "chat/completions"), ("whisper-1", "responses")],
)
async def test_what_a_model_has_no_price_for_is_not_sold(gateway: Gateway, provider: Upstream, model: str, path: str) -> None:
    """F13: what a call may cost must be known before: a model without a price for characters or sound does not speak, and so on; 400, and nobody is asked."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.requests.clear()
    body = {"model": model, "input": "x" * 1000, "messages": [{"role": "user", "content": "hi"}]}
    async with session() as client, client.post(f"{gateway.url}/v1/{path}", json=body, headers=mine.bearer) as refused:
        told = (await refused.json())["error"]
    assert (refused.status, told["type"], told["param"]) == (400, "invalid_request_error", "model")
    assert f"`{model}` has no price here for such a request" in told["message"]
    assert provider.requests == []
    assert await quiet(mine) == CREDIT


async def test_a_large_recording_passes(gateway: Gateway, provider: Upstream) -> None:
    """20 MB go up whole."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.requests.clear()
    provider.script(scripted.whole(json.dumps({"text": "Hi", "usage": {"type": "duration", "seconds": 1}}).encode()))
    large = form(wav(1) + bytes(20_000_000), model="whisper-1")
    fields = mine.bearer | {"content-type": "multipart/form-data; boundary=----b0undary"}
    async with httpx2.AsyncClient(base_url=gateway.url, headers=fields, timeout=60) as client:
        assert (await client.post("/v1/audio/transcriptions", content=large)).status_code == 200
        assert len(provider.requests[0].body) == len(large) + len("whisper-theirs") - len("whisper-1")
    assert await quiet(mine) == CREDIT - 100


async def test_what_it_may_cost_is_held_before(gateway: Gateway, provider: Upstream) -> None:
    """F1: characters and seconds are held for before any upstream hears of the call: who cannot pay for all of it is refused with 402."""
    mine = await tenant(credit_microusd=1_000)
    provider.requests.clear()
    async with httpx2.AsyncClient(base_url=gateway.url, headers=mine.bearer, timeout=60) as client:
        spoken = await client.post("/v1/audio/speech", json={"model": "tts-1", "input": "x" * 67, "voice": "alloy"})  # 1005 microdollars
        fields = {"content-type": "multipart/form-data; boundary=----b0undary"}
        written = await client.post("/v1/audio/transcriptions", content=form(wav(10.5), model="whisper-1"), headers=fields)  # 11 seconds: 1100
    for refused in (spoken, written):
        assert (refused.status_code, refused.json()["error"]["code"]) == (402, "insufficient_quota")
    assert provider.requests == []
    assert await quiet(mine) == 1_000


@pytest.mark.parametrize(
    ("report", "review"), [({"prompt_tokens": 9, "total_tokens": 9}, False), ({"prompt_tokens": -9}, True), ({"prompt_tokens": 10**9}, True), (None, False)]
)
async def test_nonsense_is_marked_for_a_look(gateway: Gateway, provider: Upstream, report: object, review: bool) -> None:
    """F14: a report that cannot be true is not charged by, and the record says that a person should look."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.script(scripted.whole(json.dumps({"object": "list", "data": [], "usage": report}).encode()))
    async with httpx2.AsyncClient(base_url=gateway.url, headers=mine.bearer, timeout=60) as client:
        assert (await client.post("/v1/embeddings", json={"model": "text-embedding-3-small", "input": "x" * 4000})).status_code == 200
    call = await only_call(mine)
    assert (await settled(call)).charge_microusd in (0, 20)  # 9 tokens, or the 1000 that were counted
    assert await database.fetch_value("SELECT needs_review FROM usage_event WHERE record_id = $1", call) is review
    assert await quiet(mine) >= CREDIT - 20
