"""Answers that a provider keeps: a call goes on from its own workspace's, and from nobody else's."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from domain.serving import kept_answers
from models import database
from tests.conftest import Suite
from tests.proxy.dialects import recordings as recorded
from tests.proxy.dialects.recordings import events as anthropic_events
from tests.proxy.dialects.responses_recordings import CREATED, deltas, events, message, report, response
from tests.support import upstream as scripted
from tests.support.gateway import Gateway
from tests.support.upstream import Upstream
from tests.support.world import Tenant, tenant

pytestmark = pytest.mark.anyio


async def _ask(gateway: Gateway, of: Tenant, **more: Any) -> httpx2.Response:
    async with httpx2.AsyncClient(base_url=gateway.url, headers=of.bearer, timeout=60) as client:
        return await client.post("/v1/responses", json={"model": "gpt-5.5", "input": "hi", "max_output_tokens": 100} | more)


def _named(answer: str, *, streamed: bool, item: str | None = None) -> scripted.Script:
    told = message("ok") | {"id": item or f"msg_{answer}"}
    whole = response(id=answer, output=[told], usage=report())
    if not streamed:
        return scripted.whole(json.dumps(whole).encode())
    created: tuple[str, dict[str, object]] = ("response.created", {"response": response("in_progress", id=answer)})
    ended: tuple[str, dict[str, object]] = ("response.output_item.done", {"output_index": 0, "item": told})
    return scripted.stream(events(created, *CREATED[1:], *deltas("ok"), ended, ("response.completed", {"response": whole})))


def _ran_in(container: object, *, streamed: bool) -> scripted.Script:
    told = {"id": container, "expires_at": "2026-11-22T12:00:00Z", "skills": None}
    usage = {"input_tokens": 8, "output_tokens": 3}
    if not streamed:
        message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-opus-5-5", "content": [{"type": "text", "text": "ok"}]}
        return scripted.whole(json.dumps({**message, "stop_reason": "end_turn", "stop_sequence": None, "usage": usage, "container": told}).encode())
    delta: dict[str, object] = {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None, "container": told}, "usage": usage}
    return scripted.stream([anthropic_events(recorded.start(usage), *recorded.text_block("ok"), delta, {"type": "message_stop"})])


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_call_goes_on_from_its_own_workspaces_answers(gateway: Gateway, provider: Upstream, streamed: bool) -> None:
    """Whole or streamed, its id may be named from then on; by another workspace it is as unknown as one that nobody was given, and no upstream hears of it."""
    mine, other = await tenant(credit_microusd=5_000_000), await tenant(credit_microusd=5_000_000)
    answer = f"resp_{uuid4().hex}"
    provider.script(_named(answer, streamed=streamed))
    assert (await _ask(gateway, mine, stream=streamed)).status_code == 200
    assert (await _ask(gateway, mine, stream=streamed, previous_response_id=answer)).status_code == 200
    assert json.loads(provider.requests[-1].body)["previous_response_id"] == answer
    heard = len(provider.requests)
    for of, named in ((other, answer), (mine, "resp_of_nobody"), (mine, "\u0000")):
        refused = await _ask(gateway, of, previous_response_id=named)
        error = refused.json()["error"]
        assert refused.status_code == 400
        assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", "previous_response_id", "previous_response_not_found")
        assert error["message"].startswith("Previous response with id '")
    assert len(provider.requests) == heard
    assert (await other.balance()).held == 0


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_call_names_items_of_its_own_workspaces_answers(gateway: Gateway, provider: Upstream, streamed: bool) -> None:
    """F30: as the AI SDK does with every tool's step. Another workspace's item is as unknown as one that nobody was given, and no upstream hears of it."""
    mine, other = await tenant(credit_microusd=5_000_000), await tenant(credit_microusd=5_000_000)
    item = f"msg_{uuid4().hex}"
    provider.script(_named(f"resp_{uuid4().hex}", streamed=streamed, item=item))
    assert (await _ask(gateway, mine, stream=streamed)).status_code == 200
    named = [{"type": "item_reference", "id": item}, {"role": "user", "content": "go on"}]
    assert (await _ask(gateway, mine, stream=streamed, input=named)).status_code == 200
    assert json.loads(provider.requests[-1].body)["input"] == named
    heard = len(provider.requests)
    for of, asked in ((other, named), (other, [{"id": item}]), (mine, [*named, {"type": "item_reference", "id": "rs_of_nobody"}])):
        refused = await _ask(gateway, of, input=asked)
        error = refused.json()["error"]
        assert (refused.status_code, error["type"], error["param"]) == (400, "invalid_request_error", "input")
        assert error["message"] == f"input: Item with id '{item if of is other else 'rs_of_nobody'}' not found."
    assert len(provider.requests) == heard
    assert (await other.balance()).held == 0


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_call_runs_in_containers_of_its_own_workspace(gateway: Gateway, provider: Upstream, streamed: bool) -> None:
    """F30: what tools left in a container of Anthropic's is its workspace's alone; by its id, or in an object beside skills."""
    mine, other = await tenant(credit_microusd=5_000_000), await tenant(credit_microusd=5_000_000)
    container = f"container_{uuid4().hex}"
    provider.script(_ran_in(7, streamed=streamed), _ran_in(container, streamed=streamed))
    asked: dict[str, Any] = {"model": "claude-opus-5-5", "max_tokens": 100, "stream": streamed, "messages": [{"role": "user", "content": "run"}]}
    async with httpx2.AsyncClient(base_url=gateway.url, timeout=60) as client:
        own: tuple[object, ...] = ({"skills": []}, None, container, {"id": container})
        for named in own:
            assert (await client.post("/v1/messages", json=asked | {"container": named}, headers=mine.bearer)).status_code == 200
        heard = len(provider.requests)
        for of, foreign in ((other, container), (other, {"id": container, "skills": []}), (mine, "container_of_nobody"), (mine, 7)):
            refused = await client.post("/v1/messages", json=asked | {"container": foreign}, headers=of.bearer)
            assert (refused.status_code, refused.json()["error"]["type"]) == (400, "invalid_request_error")
            assert refused.json()["error"]["message"].startswith("container: Item with id '")
    assert len(provider.requests) == heard == 4
    assert (await other.balance()).held == 0


async def test_what_the_provider_does_not_keep_is_not_remembered(gateway: Gateway, provider: Upstream) -> None:
    """With `store: false` there is nothing to go on from, and no row is written; without a working key nothing is told."""
    mine = await tenant(credit_microusd=5_000_000)
    answer = f"resp_{uuid4().hex}"
    provider.script(_named(answer, streamed=False))
    assert (await _ask(gateway, mine, store=False)).status_code == 200
    assert await kept_answers.keepers(mine.workspace_id, [answer, f"msg_{answer}"]) == {}
    async with httpx2.AsyncClient(base_url=gateway.url, timeout=60) as client:
        asked = {"model": "gpt-5.5", "input": "a", "previous_response_id": answer}
        refused = await client.post("/v1/responses", json=asked, headers={"authorization": "Bearer tg_live_x"})
    assert refused.status_code == 401


async def test_they_are_forgotten_when_no_provider_keeps_them(books: Suite) -> None:
    """After sixty days the row goes; a younger one stays. The provider's id itself is not stored."""
    mine = await tenant()
    for answer, days in (("resp_old", 61), ("resp_young", 59)):  # each row is pushed back alone: the one before is older already
        await kept_answers.keep(mine.workspace_id, [answer], "openai")
        statement = "UPDATE kept_answer SET created_at = $2 WHERE workspace_id = $1 AND created_at > clock_timestamp() - interval '1 day'"
        await database.fetch(statement, mine.workspace_id, datetime.now(UTC) - timedelta(days=days))
    await kept_answers.forget()
    assert await kept_answers.keepers(mine.workspace_id, ["resp_young", "resp_old"]) == {"resp_young": "openai"}
    rows = await database.fetch("SELECT k::text AS told FROM kept_answer k WHERE workspace_id = $1", mine.workspace_id)
    assert not any("resp_" in row["told"] for row in rows)
