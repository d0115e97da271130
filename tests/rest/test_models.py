"""GET /v1/models for the clients of both inference dialects, with their official SDKs and without."""

import anthropic
import httpx2
import openai
import pytest

from models.enums import ApiKeyKind, Scope
from tests.support.gateway import Gateway
from tests.support.world import Tenant, tenant

pytestmark = pytest.mark.anyio

OFFERED = ["auto", "claude-haiku-5-5", "claude-opus-5-5", "echo", "gpt-5.5"]
"""What the upstreams of the run's gateway answer, by name."""
MESSAGES = {"anthropic-version": "2023-06-01"}


def _openai(gateway: Gateway, of: Tenant) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=of.secret, max_retries=0)


def _anthropic(gateway: Gateway, of: Tenant) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=gateway.url, api_key=of.secret, max_retries=0, _strict_response_validation=True)


async def test_the_openai_sdk_lists_and_finds_models(gateway: Gateway) -> None:
    """Every offered model, in the SDK's own types."""
    mine = await tenant()
    async with _openai(gateway, mine) as client:
        listed = [model async for model in client.models.list()]
        found = await client.models.retrieve("echo")
        with pytest.raises(openai.NotFoundError) as refused:
            await client.models.retrieve("no-such-model")
    assert [model.id for model in listed] == OFFERED
    assert (found.id, found.object, found.owned_by) == ("echo", "model", "tallygate")
    assert isinstance(found.created, int)
    assert (refused.value.code, refused.value.type) == ("model_not_found", "invalid_request_error")


async def test_the_anthropic_sdk_pages_through_models(gateway: Gateway) -> None:
    """Pages of one, forwards, are every model once; the types are the SDK's, strictly; `x-api-key` is a credential here."""
    mine = await tenant()
    async with _anthropic(gateway, mine) as client:
        listed = [model async for model in client.models.list(limit=1)]
        backwards = await client.models.list(before_id="echo", limit=1)
        found = await client.models.retrieve("claude-opus-5-5")
        with pytest.raises(anthropic.NotFoundError) as refused:
            await client.models.retrieve("vendor/no-such-model")
    assert [model.id for model in listed] == OFFERED
    assert ([model.id for model in backwards.data], backwards.has_more) == (["claude-opus-5-5"], True)
    assert (found.display_name, found.lifecycle, found.max_input_tokens, found.max_tokens) == ("Claude Opus 5.5", "active", 1_000_000, 128_000)
    assert isinstance(refused.value.body, dict)
    assert refused.value.body["error"]["type"] == "not_found_error"
    assert refused.value.body["request_id"] == refused.value.request_id


async def test_a_row_satisfies_both_clients(client: httpx2.AsyncClient) -> None:
    """The rows are the same with and without `anthropic-version`; the envelope is that of the client's dialect."""
    mine = await tenant()
    plain = (await client.get("/v1/models", headers=mine.bearer)).json()
    page = (await client.get("/v1/models?limit=1000", headers={**mine.bearer, **MESSAGES})).json()
    assert set(plain) == {"object", "data"}
    assert plain["object"] == "list"
    assert page == {"data": plain["data"], "has_more": False, "first_id": OFFERED[0], "last_id": OFFERED[-1]}
    row = plain["data"][3]
    assert row["created_at"].endswith("Z")
    assert {name: value for name, value in row.items() if name not in ("created", "created_at")} == {
        "id": "echo",
        "object": "model",
        "owned_by": "tallygate",
        "type": "model",
        "display_name": "Echo (built in)",
        "lifecycle": "active",
        "retires_at": None,
        "max_input_tokens": 200_000,
        "max_tokens": 8192,
    }


async def test_every_key_sees_the_models(client: httpx2.AsyncClient) -> None:
    """A subscription key too, whatever its scopes, and a client whose bearer is of no use and whose `x-api-key` is right."""
    mine = await tenant(kind=ApiKeyKind.SUBSCRIPTION, scopes=frozenset({Scope.INFERENCE}))
    headers = {"Authorization": "Bearer something-else", "x-api-key": mine.secret}
    assert (await client.get("/v1/models", headers=headers)).status_code == 200


async def test_an_empty_page(client: httpx2.AsyncClient) -> None:
    """Past the end there is nothing: no ids, and no more."""
    mine = await tenant()
    page = await client.get("/v1/models?after_id=zzz", headers={**mine.bearer, **MESSAGES})
    assert page.json() == {"data": [], "has_more": False, "first_id": None, "last_id": None}


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "after_id=a&before_id=b", "after_id=%00"])
async def test_a_bad_page(client: httpx2.AsyncClient, query: str) -> None:
    """A page that cannot be is refused as the Messages API refuses."""
    mine = await tenant()
    refused = await client.get(f"/v1/models?{query}", headers={**mine.bearer, **MESSAGES})
    assert refused.status_code == 400
    assert set(refused.json()) == {"type", "error", "request_id"}
    assert (refused.json()["type"], refused.json()["error"]["type"]) == ("error", "invalid_request_error")
    assert refused.headers["request-id"] == refused.json()["request_id"]


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/echo"])
async def test_without_a_key(client: httpx2.AsyncClient, path: str) -> None:
    """Refused in the dialect of the client, with the header that keeps tools from trying again for minutes."""
    messages = await client.get(path, headers={**MESSAGES, "x-api-key": "tg_live_nonsense"})
    chat = await client.get(path)
    assert (messages.status_code, messages.json()["error"]["type"]) == (401, "authentication_error")
    assert (chat.status_code, set(chat.json()["error"]), chat.json()["error"]["code"]) == (401, {"message", "type", "param", "code"}, "invalid_api_key")
    assert [answer.headers["x-should-retry"] for answer in (messages, chat)] == ["false", "false"]
