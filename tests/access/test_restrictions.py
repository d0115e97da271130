"""Where a key may be used from, at every door; and what names of models it may have (F28, F30)."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
import websockets.asyncio.client

from domain.access import keys
from domain.access.keys import KeyChanges, KeyView, NewKey
from domain.access.limits import BoundInput
from domain.errors import NotFound, WiderThanCaller
from models.enums import ApiKeyKind, ApiKeyMode, Measure, Scope
from tests.access.test_keys import calling
from tests.support.gateway import Gateway
from tests.support.world import Tenant, tenant

pytestmark = pytest.mark.anyio

ORIGIN = "https://app.example"
BODY = {"model": "echo", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
DOORS: dict[str, tuple[str, str, Any]] = {
    "inference": ("POST", "/v1/messages", BODY),
    "translated inference": ("POST", "/v1/chat/completions", BODY),
    "a tool's road": ("POST", "/claudecode/v1/messages", BODY),
    "counting": ("POST", "/v1/messages/count_tokens", BODY),
    "models": ("GET", "/v1/models", None),
    "document 0": ("GET", "/v1/keys", None),
    "document 1": ("GET", "/api/v1/usage/summary", None),
    "document 2": ("GET", "/v1/billing/usage", None),
    "document 4": ("GET", "/tenant/credits", None),
    "a write": ("POST", "/tenant/keys", {}),
    "GraphQL": ("POST", "/graphql", {"query": "{ viewer { name } }"}),
}


async def ask(gateway: Gateway, door: str, secret: str, **headers: str) -> httpx2.Response:
    """Ask at a door from this machine's own address."""
    method, path, body = DOORS[door]
    async with httpx2.AsyncClient(base_url=gateway.url, timeout=30) as client:
        return await client.request(method, path, json=body, headers={"authorization": f"Bearer {secret}"} | headers)


@pytest.mark.parametrize("door", DOORS)
async def test_a_key_is_refused_from_elsewhere(gateway: Gateway, door: str) -> None:
    """From another address, from another origin or from none, a key is 403 at every door, in its own shape, and nothing is made; from its own it works."""
    mine = await tenant(credit_microusd=1_000_000)
    _, elsewhere = await mine.mint(allowed_addresses=("203.0.113.0/24", "2001:db8::/32"))
    _, here = await mine.mint(allowed_addresses=("203.0.113.0/24", "127.0.0.0/8"))
    _, browser = await mine.mint(allowed_origins=(ORIGIN,))
    before = await keys.count(mine.caller())
    refused = [
        await ask(gateway, door, elsewhere),
        await ask(gateway, door, elsewhere, **{"x-forwarded-for": "203.0.113.7", "forwarded": "for=203.0.113.7"}),
        await ask(gateway, door, browser),
        await ask(gateway, door, browser, origin="https://evil.example"),
        await ask(gateway, door, browser, origin=ORIGIN + ".evil.example"),
    ]
    assert [answer.status_code for answer in refused] == [403] * 5, [answer.text for answer in refused]
    assert ["address" in answer.text for answer in refused] == [True, True, False, False, False]
    assert all("may not be used from this" in answer.text for answer in refused)
    assert await keys.count(mine.caller()) == before
    for answer in (await ask(gateway, door, here), await ask(gateway, door, browser, origin=ORIGIN)):
        assert answer.status_code in (200, 201), answer.text


async def test_a_websocket_is_refused_from_elsewhere(gateway: Gateway) -> None:
    """A credential in the first message counts from where the socket comes: from another address the connection is rejected."""
    mine = await tenant()
    _, elsewhere = await mine.mint(allowed_addresses=("203.0.113.0/24",))
    _, here = await mine.mint(allowed_addresses=("127.0.0.1",))
    for secret, accepted in ((elsewhere, False), (here, True)):
        async with websockets.asyncio.client.connect(f"{gateway.url.replace('http', 'ws')}/graphql", subprotocols=["graphql-transport-ws"]) as socket:  # type: ignore[list-item]  # a NewType of str
            await socket.send(json.dumps({"type": "connection_init", "payload": {"authorization": f"Bearer {secret}"}}))
            try:
                told = json.loads(await socket.recv())["type"]
            except websockets.exceptions.ConnectionClosed as closed:
                told = closed.rcvd.code if closed.rcvd else None
            assert told == ("connection_ack" if accepted else 4403)


async def test_an_alias_is_kept_as_the_models_own_name(gateway: Gateway) -> None:
    """A key that names an alias works for the model by every name, and is bounded by every name; one that names a model works by its alias."""
    mine = await tenant(credit_microusd=1_000_000)
    owner = mine.caller()
    bound = BoundInput(Measure.CALLS, "1m", 3, model="claude-haiku-4-5-20251001")
    key, _ = await keys.create(owner, NewKey(allowed_models=("claude-haiku-4-5-20251001", "claude-haiku-4-5", "echo"), limits=(bound,)))
    assert key.allowed_models == ("claude-haiku-4-5", "echo")
    changed = await keys.update(owner, key.id, KeyChanges(allowed_models=("claude-haiku-4-5-20251001",)))
    assert changed.allowed_models == ("claude-haiku-4-5",)


async def test_models_that_there_are_not_are_refused_by_the_domain(gateway: Gateway) -> None:
    """Wherever it is asked from: an unknown model in a restriction or a bound is not found, by its place; a router's name is one that is offered."""
    owner = (await tenant()).caller()
    for new, path in (
        (NewKey(allowed_models=("echo", "no-such")), ("allowedModels", "1")),
        (NewKey(budgets=(BoundInput(Measure.MONEY, "day", 1, model="no-such"),)), ("budgets", "0", "model")),
        (NewKey(limits=(BoundInput(Measure.CALLS, "day", 1), BoundInput(Measure.CALLS, "1m", 1, model="no-such"))), ("limits", "1", "model")),
    ):
        with pytest.raises(NotFound) as refused:
            await keys.create(owner, new)
        assert refused.value.path == path
    key, _ = await keys.create(owner, NewKey(allowed_models=("auto",)), offered=("auto",))
    assert key.allowed_models == ("auto",)
    with pytest.raises(NotFound):
        await keys.update(owner, key.id, KeyChanges(allowed_models=("no-such",)), offered=("auto",))
    assert (await keys.find(owner, key.id)).allowed_models == ("auto",)


async def _narrow(mine: Tenant) -> tuple[KeyView, str]:
    return await mine.mint(scopes=frozenset({Scope.KEYS_WRITE, Scope.KEYS_READ, Scope.INFERENCE}), allowed_models=("echo",))


@pytest.mark.parametrize("path", ["/v1/keys", "/tenant/keys"])
async def test_keys_of_any_kind_revoke_one_another(gateway: Gateway, path: str) -> None:
    """Documents 0 and 4 promise 204 to any key: a subscription's, a test key and one that expires revoke the workspace's other keys."""
    mine = await tenant()
    soon = datetime.now(UTC) + timedelta(hours=1)
    for new in ({"kind": ApiKeyKind.SUBSCRIPTION}, {"mode": ApiKeyMode.TEST}, {"expires_at": soon}):
        (target, _), (_, secret) = await mine.mint(), await mine.mint(**new)
        async with httpx2.AsyncClient(base_url=gateway.url, headers={"authorization": f"Bearer {secret}"}, timeout=60) as client:
            assert (await client.delete(f"{path}/{target.id}")).status_code == 204
        assert (await keys.find(mine.caller(), target.id)).revoked_at is not None


async def test_a_narrow_key_revokes_no_wider_one(gateway: Gateway) -> None:
    """A leaked key that may mint and revoke stops nobody who may do more; itself, and what is no wider, it revokes, as often as it likes."""
    mine = await tenant()
    (key, secret), (same, _) = await _narrow(mine), await _narrow(mine)
    with pytest.raises(WiderThanCaller):
        await keys.revoke(await calling(secret), mine.key.id)
    async with httpx2.AsyncClient(base_url=gateway.url, headers={"authorization": f"Bearer {secret}"}, timeout=60) as client:
        assert (await client.delete(f"/v1/keys/{mine.key.id}")).status_code == 403
        assert (await client.delete(f"/tenant/keys/{mine.key.id}")).status_code == 403
    assert (await keys.find(mine.caller(), mine.key.id)).revoked_at is None
    for _ in range(2):
        assert (await keys.revoke(await calling(secret), same.id)).revoked_at is not None
    assert (await keys.revoke(await calling(secret), key.id)).revoked_at is not None
