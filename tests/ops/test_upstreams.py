"""`manage.py upstream check`: a tiny call to each upstream, and one clear sentence for each thing that can be wrong with it."""

import asyncio
import json
import os
from pathlib import Path

import pytest

from operations.upstreams import check
from settings import Settings
from tests.conftest import Suite
from tests.support import commands
from tests.support import upstream as scripted
from tests.support.calling import CLAUDE, GPT, WIRES, Wire
from tests.support.gateway import free_port
from tests.support.upstream import Script

pytestmark = pytest.mark.anyio


async def _check(suite: Suite, folder: Path, url: str, *arguments: str, dialect: str = "anthropic") -> tuple[int, str]:
    path = folder / "upstreams.toml"
    path.write_text(f'[upstreams.mine]\ndialect = "{dialect}"\nurl = "{url}"\nkey_env = "CHECKED_KEY"\nmodels = ["a-model"]\nrename = {{ "a-model" = "theirs" }}\n')
    environment = {"PATH": os.environ["PATH"], **suite.environment, "TALLYGATE_CONFIG": str(path), "CHECKED_KEY": "sk-canary-of-the-check"}
    done = await asyncio.to_thread(commands.run, environment, "upstream", "check", *arguments)
    told = done.output + done.errors
    assert "canary" not in told
    return done.code, told


@pytest.mark.parametrize("wire", WIRES, ids=[wire.name for wire in WIRES])
async def test_a_sound_upstream_is_proved_by_a_small_call(suite: Suite, tmp_path: Path, wire: Wire) -> None:
    """One request with our key, its own name of the model and 16 tokens at most; exit 0."""
    async with scripted.serve() as upstream:
        upstream.script(scripted.whole(wire.whole()))
        code, told = await _check(suite, tmp_path, upstream.url, dialect=wire.name)
        request = upstream.requests[0]
    assert (code, len(upstream.requests), request.path) == (0, 1, wire.path)
    assert "mine: theirs answered in" in told
    sent = json.loads(request.body)
    assert (sent["model"], sent.get("max_tokens", sent.get("max_completion_tokens"))) == ("theirs", 16)
    assert (request.header("x-api-key") if wire is CLAUDE else request.header("authorization")) in ("sk-canary-of-the-check", "Bearer sk-canary-of-the-check")


WITHOUT_CONVERSATION = {
    "chat after all": ('models = ["tts-1", "gpt-5.5"]', "/v1/chat/completions", "gpt-5.5", scripted.whole(GPT.whole())),
    "of the vendor": ("weight = 1", "/v1/chat/completions", "gpt-5.5", scripted.whole(GPT.whole())),
    "responses": ('models = ["gpt-5.5"]\nforms = ["responses"]', "/v1/responses", "gpt-5.5", scripted.whole(b'{"output": []}')),
    "embeddings": ('models = ["text-embedding-3-small"]', "/v1/embeddings", "text-embedding-3-small", scripted.whole(b'{"data": []}')),
    "speech": ('models = ["tts-1"]', "/v1/audio/speech", "tts-1", scripted.whole(b"ID3", headers={"content-type": "audio/mpeg"})),
    "transcription": ('models = ["whisper-1"]', "/v1/audio/transcriptions", "whisper-1", scripted.whole(b'{"text": ""}')),
}


@pytest.mark.parametrize("case", WITHOUT_CONVERSATION)
async def test_an_upstream_is_asked_for_what_it_does(suite: Suite, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    """A model that holds no conversation is asked for a vector, two letters of speech, a second of silence; an answer of another kind proves nothing."""
    entry, path, model, script = WITHOUT_CONVERSATION[case]
    async with scripted.serve() as upstream:
        file = tmp_path / "upstreams.toml"
        file.write_text(f'[upstreams.mine]\ndialect = "openai"\nurl = "{upstream.url}"\n{entry}\n')
        settings = Settings.model_validate({**suite.environment, "TALLYGATE_CONFIG": str(file)})
        upstream.script(script, scripted.whole(b'{"object": "else"}'))
        assert [await check(settings, None, None), await check(settings, "mine", None)] == [True, False]
        assert {(request.path, model.encode() in request.body) for request in upstream.requests} == {(path, True)}
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"    ok  mine: {model} answered in ")
    assert said[1].startswith("REPAIR  mine: answers 200, but not in its dialect")


FAULTS: dict[str, tuple[Script, str]] = {
    "key": (scripted.status(401), "the key is not accepted (401): CHECKED_KEY"),
    "model": (scripted.status(404), "the model theirs is not known there"),
    "limit": (scripted.status(429, headers={"retry-after": "7"}), "is at its rate limit (429); it asks to come back in 7 s"),
    "quota": (scripted.status(429, {"error": {"code": "insufficient_quota", "message": "You exceeded"}}), "the provider's account cannot pay (429)"),
    "broken": (scripted.status(500), "answers 500: scripted 500"),
    "redirect": (scripted.status(301), "redirects (301)"),
    "dialect": (scripted.whole(b"{}"), "not in its dialect"),
    "html": (scripted.whole(b"<html>"), "not in its dialect"),
    "cut": (scripted.cut, "broke off"),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_what_is_wrong_is_said_in_one_line(suite: Suite, tmp_path: Path, fault: str) -> None:
    """Exit 1, and the sentence that an operator can act on."""
    script, sentence = FAULTS[fault]
    async with scripted.serve() as upstream:
        upstream.script(script)
        code, told = await _check(suite, tmp_path, upstream.url, "mine", "--model", "a-model")
    assert code == 1
    assert sentence in told
    assert len(told.strip().splitlines()) == 1


async def test_an_address_that_leads_nowhere_is_named(suite: Suite, tmp_path: Path) -> None:
    """A name that there is not, nobody who listens, a server that speaks no TLS; and an upstream that is not configured."""
    code, told = await _check(suite, tmp_path, "http://no-such-name.invalid")
    assert (code, "no-such-name.invalid cannot be found (DNS)" in told) == (1, True)
    code, told = await _check(suite, tmp_path, f"http://127.0.0.1:{free_port()}")
    assert (code, "nobody listens" in told) == (1, True)
    async with scripted.serve() as upstream:
        upstream.script(scripted.whole(GPT.whole()))
        code, told = await _check(suite, tmp_path, upstream.url.replace("http:", "https:"))
        assert (code, "REPAIR  mine:" in told) == (1, True)
        code, told = await _check(suite, tmp_path, upstream.url, "other")
    assert (code, "there is no upstream other; configured: mine" in told) == (1, True)
