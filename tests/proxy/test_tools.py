"""The roads of the coding tools: their paths in every form that clients build, their presets, and who is let in."""

import anthropic
import httpx2
import pytest

from models import database
from models.enums import ApiKeyKind
from proxy.routes import PRESETS
from tests.support.gateway import Gateway
from tests.support.world import broken, tenant

pytestmark = pytest.mark.anyio

SLUGS = sorted(PRESETS)
BODY = {"model": "echo", "max_tokens": 50, "messages": [{"role": "user", "content": "hello there"}]}


@pytest.mark.parametrize("slug", SLUGS)
async def test_a_tool_calls_over_the_sdk_and_pays_for_its_preset(gateway: Gateway, slug: str) -> None:
    """The official SDK with the tool's base URL gets an answer; the preset is named in a header and on the call, and its text is charged as input."""
    mine = await tenant(credit_microusd=1_000_000)
    async with anthropic.AsyncAnthropic(base_url=f"{gateway.url}/{slug}", api_key=mine.secret, max_retries=0) as client:
        raw = await client.messages.with_raw_response.create(**BODY)  # type: ignore[call-overload]  # a plain dictionary of its arguments
        answer = await raw.parse()
    preset = PRESETS[slug].current
    assert raw.headers["x-preset"] == preset.name == f"{slug}@1"
    # echo counts one token for every four code points begun, over the text of the system prompt and all messages together
    tokens = -(-(len(preset.text) + len("hello there")) // 4)
    assert answer.content[0].text == "hello there"
    assert answer.usage.input_tokens == tokens
    assert (await mine.balance()).balance == 1_000_000 - tokens - 2 * 3
    row = await database.fetch_row('SELECT preset, endpoint FROM "call" WHERE workspace_id = $1', mine.workspace_id)
    assert row is not None
    assert dict(row) == {"preset": f"{slug}@1", "endpoint": f"/{slug}/v1/messages"}
    assert await broken(mine) == []


@pytest.mark.parametrize("path", ["/claudecode/v1/messages?beta=true", "/cline/messages", "/roocode/v1/v1/messages", "/cursor/v1/messages", "/v1/v1/messages"])
async def test_every_form_of_a_path_is_answered(gateway: Gateway, path: str) -> None:
    """Clients append to their base URL in different ways; each way reaches the same road."""
    mine = await tenant(credit_microusd=1_000_000)
    async with httpx2.AsyncClient(base_url=gateway.url, timeout=60) as client:
        answer = await client.post(path, json=BODY, headers={"x-api-key": mine.secret})
    assert answer.status_code == 200, answer.text
    assert answer.json()["content"][0]["text"] == "hello there"


async def test_a_preset_is_skipped_or_chosen_by_header(gateway: Gateway) -> None:
    """`x-tallygate-preset: none` sends the request as it is; an unknown version is refused and costs nothing."""
    mine = await tenant(credit_microusd=1_000_000)
    async with httpx2.AsyncClient(base_url=gateway.url, headers=mine.bearer, timeout=60) as client:
        plain = await client.post("/cline/v1/messages", json=BODY, headers={"x-tallygate-preset": "none"})
        assert "x-preset" not in plain.headers
        assert plain.json()["usage"]["input_tokens"] == 3
        assert (await client.post("/cline/v1/messages", json=BODY, headers={"x-tallygate-preset": "cline@1"})).headers["x-preset"] == "cline@1"
        wrong = await client.post("/cline/v1/messages", json=BODY, headers={"x-tallygate-preset": "cline@99"})
    assert (wrong.status_code, wrong.json()["error"]["type"]) == (400, "invalid_request_error")


async def test_cursor_speaks_chat_completions_too(gateway: Gateway) -> None:
    """`/cursor/v1/chat/completions` gets the preset as a first message."""
    mine = await tenant(credit_microusd=1_000_000)
    async with httpx2.AsyncClient(base_url=gateway.url, headers=mine.bearer, timeout=60) as client:
        answer = await client.post("/cursor/v1/chat/completions", json={"model": "echo", "messages": BODY["messages"]})
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-preset"] == "cursor@1"
    assert answer.json()["choices"][0]["message"]["content"] == "hello there"


async def test_a_subscription_key_is_told_what_it_lacks(gateway: Gateway) -> None:
    """F25: a subscription key without a subscription never spends cash: 429 that no client repeats on tool roads, 403 on generic ones; nothing moves."""
    mine = await tenant(credit_microusd=1_000_000)
    _, secret = await mine.mint(name="plan", kind=ApiKeyKind.SUBSCRIPTION)
    async with httpx2.AsyncClient(base_url=gateway.url, headers={"authorization": f"Bearer {secret}"}, timeout=60) as client:
        refused = await client.post("/claudecode/v1/messages", json=BODY)
        generic = await client.post("/v1/messages", json=BODY)
    assert (refused.status_code, refused.json()["error"]["type"], refused.headers["x-should-retry"]) == (429, "billing_error", "false")
    assert "no subscription" in refused.json()["error"]["message"]
    assert (generic.status_code, generic.json()["error"]["type"]) == (403, "permission_error")
    assert (await mine.balance()).balance == 1_000_000
    assert await database.fetch_value('SELECT count(*) FROM "call" WHERE workspace_id = $1', mine.workspace_id) == 0


@pytest.mark.parametrize("base", ["", "/claudecode"])
async def test_models_and_counts_are_below_a_tools_base_url(gateway: Gateway, base: str) -> None:
    """A tool finds models and token counts below its own base URL; a count is free and leaves no row."""
    mine = await tenant()
    async with httpx2.AsyncClient(base_url=gateway.url, headers=mine.bearer, timeout=60) as client:
        models = await client.get(f"{base}/v1/models")
        assert "echo" in [model["id"] for model in models.json()["data"]]
        counted = await client.post(f"{base}/v1/messages/count_tokens", json={"model": "echo", "messages": BODY["messages"]})
    assert counted.status_code == 200, counted.text
    assert counted.json()["input_tokens"] > (PRESETS["claudecode"].current.tokens if base else 0)
    assert await database.fetch_value('SELECT count(*) FROM "call" WHERE workspace_id = $1', mine.workspace_id) == 0
