"""The forms in which clients really call: paths of every shape, a look before the first call, and APIs that their model's provider does not have."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from models import database
from models.enums import ApiKeyKind
from proxy.routes import PRESETS
from tests.conftest import PROVIDER_KEY, Suite
from tests.support import upstream as scripted
from tests.support.books import quiet
from tests.support.gateway import Gateway
from tests.support.upstream import Upstream, anthropic_stream, openai_stream
from tests.support.world import tenant

pytestmark = pytest.mark.anyio

CREDIT = 5_000_000
CONFIGURATION = """
[upstreams.chat-alone]
dialect = "openai"
url = "{url}"
key_env = "SCRIPTED_KEY"
models = ["gpt-5.5", "text-embedding-3-small"]
forms = ["chat"]

[upstreams.messages]
dialect = "anthropic"
url = "{url}"
key_env = "SCRIPTED_KEY"
models = ["claude-opus-5-5", "claude-haiku-4-5"]
"""


@pytest.fixture(scope="module")
async def provider() -> AsyncIterator[Upstream]:
    """The scripted upstream of this file."""
    async with scripted.serve() as started:
        yield started


@pytest.fixture(scope="module")
async def gateway(books: Suite, provider: Upstream) -> AsyncIterator[Gateway]:
    """A gateway with an OpenAI-compatible upstream that has chat alone, and one that speaks the Messages API."""
    path = books.folder / "forms.toml"
    path.write_text(CONFIGURATION.format(url=provider.url))
    started = Gateway({**books.environment, "TALLYGATE_CONFIG": str(path), "SCRIPTED_KEY": PROVIDER_KEY}, books.folder / "forms.log")
    started.start()
    await started.ready()
    yield started
    assert started.terminate() == 0


def _client(gateway: Gateway, secret: str, base: str = "/v1") -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=gateway.url + base, api_key=secret, max_retries=0)


# Responses in translation. GPT-5.5: 25 in at 5 and 12 out at 30 microdollars; Opus 5.5: at 4 and 20.

MODELS = [("gpt-5.5", openai_stream(), 25 * 5 + 12 * 30, "/v1/chat/completions"), ("claude-opus-5-5", anthropic_stream(), 25 * 4 + 12 * 20, "/v1/messages")]


@pytest.mark.parametrize(("model", "stream", "charge", "path"), MODELS, ids=[row[0] for row in MODELS])
async def test_responses_over_a_provider_that_has_none(gateway: Gateway, provider: Upstream, model: str, stream: list[bytes], charge: int, path: str) -> None:
    """The SDK's stream of responses is answered by a provider of chat or messages, in translation; its usage is charged at the model's price."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.requests.clear()
    provider.script(scripted.stream(stream))
    async with _client(gateway, mine.secret) as client, client.responses.stream(model=model, input="hi", instructions="Be brief.") as opened:
        kinds = [event.type async for event in opened]
        final = await opened.get_final_response()
    assert (final.output_text, final.status, kinds[-1]) == ("Hello world", "completed", "response.completed")
    assert final.usage is not None
    assert (final.usage.input_tokens, final.usage.output_tokens) == (25, 12)
    assert provider.requests[0].path == path
    assert b"Be brief." in provider.requests[0].body
    assert await quiet(mine) == CREDIT - charge


async def test_a_stream_in_translation_that_breaks_is_told(gateway: Gateway, provider: Upstream) -> None:
    """A cut upstream ends a translated stream of responses with an error that the SDK raises."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.script(scripted.stream(anthropic_stream(end=False), then=scripted.cut))
    async with _client(gateway, mine.secret) as client:
        stream = await client.responses.create(model="claude-opus-5-5", input="hi", stream=True)
        with pytest.raises(openai.APIError, match="The provider broke off"):
            [event async for event in stream]
    assert CREDIT - 1_000 < await quiet(mine) < CREDIT


@pytest.mark.parametrize("asked", [{"previous_response_id": "resp_1"}, {"tools": [{"type": "mcp", "server_label": "a", "server_url": "https://example.org"}]}])
@pytest.mark.parametrize("model", ["gpt-5.5", "claude-opus-5-5"])
async def test_what_a_provider_cannot_do_is_refused(gateway: Gateway, provider: Upstream, asked: dict[str, Any], model: str) -> None:
    """What no translation can keep as promised is 400, naming the field, before any upstream hears of it; nothing is held."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.requests.clear()
    async with _client(gateway, mine.secret) as client:
        with pytest.raises(openai.BadRequestError) as refused:
            await client.responses.create(model=model, input="hi", **asked)
    assert refused.value.param in asked
    assert provider.requests == []
    assert await quiet(mine) == CREDIT


async def test_a_server_of_chat_alone_embeds_nothing(gateway: Gateway, provider: Upstream) -> None:
    """`forms` says what a server has: a model is not found on the path of a form that its only server lacks."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.requests.clear()
    async with _client(gateway, mine.secret) as client:
        with pytest.raises(openai.NotFoundError):
            await client.embeddings.create(model="text-embedding-3-small", input="hi")
    assert provider.requests == []


# Cursor.


@pytest.mark.parametrize("model", ["gpt-5.5", "claude-opus-5-5"])
async def test_cursor_s_bodies_are_answered_as_chat(gateway: Gateway, provider: Upstream, model: str) -> None:
    """A Responses-shaped body on `/cursor/v1/chat/completions` is answered in chunks of chat, with the preset, and charged like any other."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.requests.clear()
    provider.script(scripted.stream(openai_stream() if model == "gpt-5.5" else anthropic_stream()))
    body = {
        "model": model,
        "input": [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}],
        "include": ["reasoning.encrypted_content"],
        "reasoning": {"effort": "low"},
        "text": {"verbosity": "low"},
        "tools": [{"type": "function", "name": "read", "parameters": {"type": "object"}, "strict": False}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    _, plan = await mine.mint(name="for the tool", kind=ApiKeyKind.PAY_PER_TOKEN)
    async with httpx2.AsyncClient(base_url=gateway.url, headers={"authorization": f"Bearer {plan}"}, timeout=60) as client:
        answer = await client.post("/cursor/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-preset"] == "cursor@1"
    chunks = [json.loads(line[6:]) for line in answer.text.split("\n") if line.startswith("data: {")]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"]) == "Hello world"
    assert chunks[-1]["usage"]["completion_tokens"] == 12
    assert answer.text.endswith("data: [DONE]\n\n")
    sent = json.loads(provider.requests[0].body)
    assert "input" not in sent
    assert await quiet(mine) < CREDIT


async def test_a_bad_body_of_cursor_s_is_told_to_who_is_known(gateway: Gateway) -> None:
    """What cannot be brought into shape is 400 in OpenAI's form; without a key it is 401."""
    mine = await tenant(credit_microusd=CREDIT)
    body = {"model": "echo", "input": [{"type": "item_reference", "id": "x"}]}
    async with httpx2.AsyncClient(base_url=gateway.url, timeout=60) as client:
        refused = await client.post("/cursor/v1/chat/completions", json=body, headers=mine.bearer)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "input")
        assert (await client.post("/cursor/v1/chat/completions", json=body)).status_code == 401


# Paths.

MESSAGES = {"model": "echo", "max_tokens": 50, "messages": [{"role": "user", "content": "hello there"}]}
FORMS = [
    *("/v1/messages", "/v1/messages/", "/v1/messages?beta=true", "/v1/v1/messages", "/claudecode/v1/messages/?beta=true", "/cline/messages", "/roocode/v1/v1/messages"),
    *("/v1/chat/completions", "/chat/completions", "/v1/chat/completions/", "/v1/v1/chat/completions", "/cline/v1/chat/completions", "/roocode/chat/completions"),
]


@pytest.mark.parametrize("path", FORMS)
async def test_every_form_of_a_path_is_answered(gateway: Gateway, path: str) -> None:
    """Clients append to their base URL in different ways; each way reaches the same road, without a redirect, which tools take for a failure."""
    mine = await tenant(credit_microusd=CREDIT)
    async with httpx2.AsyncClient(base_url=gateway.url, headers=mine.bearer, timeout=60) as client:
        answer = await client.post(path, json=MESSAGES)
    assert answer.status_code == 200, answer.text
    assert "hello there" in answer.text


@pytest.mark.parametrize("rest", ["/responses", "/embeddings"])
async def test_a_base_without_a_version_works(gateway: Gateway, rest: str) -> None:
    """OpenAI's SDK with a base URL that forgot `/v1` is understood."""
    mine = await tenant(credit_microusd=CREDIT)
    async with httpx2.AsyncClient(base_url=gateway.url, headers=mine.bearer, timeout=60) as client:
        assert (await client.post(rest, json={"model": "echo", "input": "hi"})).status_code == 200


BASES = ["/claudecode", "/claudecode/", "/claudecode/api/hello", "/claudecode/v1", "/cline/v1", "/v1", "/v1/", "/claudecode/v1/messages", "/v1/messages/count_tokens"]


@pytest.mark.parametrize("path", BASES)
async def test_a_look_before_the_first_call_is_answered(gateway: Gateway, path: str) -> None:
    """Claude Code sends HEAD to its base URL, and below it, without a key: 200 and nothing more; OPTIONS says what is answered."""
    async with httpx2.AsyncClient(base_url=gateway.url, timeout=60) as client:
        head = await client.head(path)
        options = await client.options(path)
    assert (head.status_code, head.content) == (200, b"")
    assert (options.status_code, options.content) == (204, b"")
    assert {"HEAD", "OPTIONS"} < set(options.headers["allow"].split(", "))
    assert head.headers["x-request-id"]


async def test_a_base_says_what_it_is(gateway: Gateway) -> None:
    """GET on a base URL tells that this is a gateway; POST to it is 405."""
    async with httpx2.AsyncClient(base_url=gateway.url, timeout=60) as client:
        assert (await client.get("/claudecode")).json()["service"] == "tallygate"
        assert (await client.post("/claudecode")).status_code == 405


MODEL_PATHS = [f"{base}{rest}" for base in ("", "/claudecode", "/cline", "/roocode", "/cursor") for rest in ("/v1/models", "/models", "/v1/v1/models", "/v1/models/")]


@pytest.mark.parametrize("path", MODEL_PATHS)
async def test_models_are_found_below_every_base(gateway: Gateway, path: str) -> None:
    """In OpenAI's shape, and with `anthropic-version` in pages of Anthropic's; one model by its name or its dated alias."""
    mine = await tenant()
    async with httpx2.AsyncClient(base_url=gateway.url, headers=mine.bearer, timeout=60) as client:
        listed = (await client.get(path)).json()
        assert listed["object"] == "list"
        assert {"gpt-5.5", "claude-haiku-4-5", "claude-haiku-4-5-20251001"} <= {row["id"] for row in listed["data"]}
        page = (await client.get(path, params={"limit": 2}, headers={"anthropic-version": "2023-06-01"})).json()
        assert (len(page["data"]), page["has_more"], page["last_id"]) == (2, True, page["data"][1]["id"])
        found = await client.get(f"{path.rstrip('/')}/claude-haiku-4-5-20251001")
        assert (found.status_code, found.json()["id"]) == (200, "claude-haiku-4-5-20251001")
        assert (await client.get(f"{path.rstrip('/')}/no-such-model")).status_code == 404
        assert (await client.get(path, headers={"authorization": "Bearer nobody"})).status_code == 401


async def test_a_dated_name_is_its_model(gateway: Gateway, provider: Upstream) -> None:
    """`claude-haiku-4-5-20251001` is Haiku 4.5, at its price: 25 in at 1 and 12 out at 5 microdollars."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.script(scripted.stream(anthropic_stream()))
    client = anthropic.AsyncAnthropic(base_url=f"{gateway.url}/claudecode", api_key=mine.secret, max_retries=0)
    async with client, client.messages.stream(model="claude-haiku-4-5-20251001", max_tokens=50, messages=[{"role": "user", "content": "hi"}]) as stream:
        assert await stream.get_final_text() == "Hello world"
    assert await quiet(mine) == CREDIT - 25 - 60


async def test_200_counts_at_once_leave_no_trace(gateway: Gateway) -> None:
    """Claude Code's `/context` counts in bursts: 200 at once are all answered, without credit, on every base, and nothing is written."""
    mine = await tenant()
    paths = ["/v1/messages/count_tokens", *(f"/{slug}/v1/messages/count_tokens?beta=true" for slug in PRESETS)]
    limits = httpx2.Limits(max_connections=100)  # a gateway gives up the oldest of more unfinished requests of one address
    async with httpx2.AsyncClient(base_url=gateway.url, headers=mine.bearer, limits=limits, timeout=60) as client:
        answers = await asyncio.gather(*(client.post(paths[number % len(paths)], json={**MESSAGES, "tools": []}) for number in range(200)))
    assert {answer.status_code for answer in answers} == {200}
    assert min(answer.json()["input_tokens"] for answer in answers) > 0
    row = await database.fetch_row(
        """
        SELECT (SELECT count(*) FROM "call" WHERE workspace_id = $1) AS calls, (SELECT count(*) FROM hold WHERE workspace_id = $1) AS holds,
               (SELECT count(*) FROM usage_event WHERE workspace_id = $1) AS events,
               (SELECT count(*) FROM api_key_secret WHERE workspace_id = $1 AND last_used_at IS NOT NULL) AS used
        """,
        mine.workspace_id,
    )
    assert row is not None
    assert dict(row) == {"calls": 0, "holds": 0, "events": 0, "used": 0}
