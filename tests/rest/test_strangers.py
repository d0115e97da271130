"""Every documented operation as callers that must be refused: nobody, strangers, and keys that lack the scope. Nothing changes (F30)."""

import dataclasses
import hashlib
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from domain.access import secrets
from domain.access.callers import WORKSPACE_SCOPES
from domain.apps import deployments, registry
from domain.apps.deployments import NewFile
from domain.apps.registry import NewApp
from models import database
from models.enums import ApiKeyMode, Scope
from proxy.routes import PRESETS
from rest import inference
from rest.doors import Document, Operation
from rest.routes import PUBLISHED
from tests.apps.deploying import zip_of
from tests.support.world import Tenant, operator_key, tenant
from tests.usage.events import Event, write

pytestmark = pytest.mark.anyio

OPERATIONS = [pytest.param(document, operation, id=f"{operation.method} {operation.path}") for document in PUBLISHED for operation in document.operations]
NEEDS: dict[str, Scope | None] = {
    "GET /health/books": Scope.OPERATOR,
    "GET /v1/usage/summary": Scope.USAGE_READ,
    "GET /v1/usage/breakdown": Scope.USAGE_READ,
    "GET /v1/usage/app-breakdown": Scope.USAGE_READ,
    "GET /v1/usage/time-series": Scope.USAGE_READ,
    "GET /v1/usage/model-time-series": Scope.USAGE_READ,
    "GET /api/v1/usage/summary": Scope.USAGE_READ,
    "GET /api/v1/usage/by-language": Scope.USAGE_READ,
    "GET /api/v1/usage/activity": Scope.USAGE_READ,
    "GET /v1/billing/usage": Scope.USAGE_READ,
    "GET /v1/billing/usage/chart": Scope.USAGE_READ,
    "GET /tenant/usage": Scope.USAGE_READ,
    "POST /usage": Scope.USAGE_WRITE,
    "GET /usage": Scope.USAGE_READ,
    "GET /usage/user/{user_id}": Scope.USAGE_READ,
    "GET /usage/{usage_id}": Scope.USAGE_READ,
    "PUT /usage/{usage_id}": Scope.OPERATOR,
    "DELETE /usage/{usage_id}": Scope.OPERATOR,
    "GET /v1/keys": Scope.KEYS_READ,
    "POST /v1/keys": Scope.KEYS_WRITE,
    "DELETE /v1/keys/{id}": Scope.KEYS_WRITE,
    "GET /v1/credits/balance": Scope.BILLING_READ,
    "GET /v1/credits/transactions": Scope.BILLING_READ,
    "POST /v1/credits/checkout": Scope.BILLING_WRITE,
    "POST /tenant/billing/topup": Scope.BILLING_WRITE,
    "POST /tenant/billing/checkout": Scope.BILLING_WRITE,
    "POST /tenant/billing/portal": Scope.BILLING_WRITE,
    "GET /v1/billing": Scope.BILLING_READ,
    "GET /v1/billing/trial-status": Scope.BILLING_READ,
    "GET /v1/apps": Scope.APPS_READ,
    "POST /v1/apps": Scope.APPS_WRITE,
    "GET /v1/apps/{appId}": Scope.APPS_READ,
    "PUT /v1/apps/{appId}": Scope.APPS_WRITE,
    "DELETE /v1/apps/{appId}": Scope.APPS_WRITE,
    "POST /v1/apps/{appId}/deploy": Scope.APPS_WRITE,
    "GET /v1/apps/{appId}/deployments/{deploymentId}": Scope.APPS_READ,
    "GET /tenant/keys": Scope.KEYS_READ,
    "POST /tenant/keys": Scope.KEYS_WRITE,
    "GET /tenant/keys/{id}": Scope.KEYS_READ,
    "DELETE /tenant/keys/{id}": Scope.KEYS_WRITE,
    "GET /tenant/credits": Scope.BILLING_READ,
    "GET /tenant/subscription": Scope.BILLING_READ,
    "GET /v1/models": None,
    "GET /v1/models/{id:path}": None,
    "POST /v1/client-tokens": Scope.CLIENT_TOKENS_WRITE,
    "GET /v1/receipts/{id}": None,
}
"""The scope of every operation; None where any key may come. One that is missing here fails these tests."""
BODIES: dict[str, Callable[[], dict[str, Any]]] = {
    "POST /v1/apps": lambda: {"appId": f"app-{uuid4().hex}", "name": "x"},
    "POST /usage": lambda: {"api_name": "llm_query", "endpoint": "/chat", "units_used": 1, "cost_usd": 0, "api_key_used": "pk_live_abc123"},
    "PUT /usage/{usage_id}": lambda: {"units_used": 1},
    "POST /v1/credits/checkout": lambda: {"amountUsd": 10},
    "POST /tenant/billing/topup": lambda: {"amount_usd": 10},
    "POST /tenant/billing/checkout": lambda: {"tier": "pro"},
}
"""The bodies of operations that answer nothing without one."""
SEES = {
    "/v1/billing": frozenset({Scope.USAGE_READ}),
    "/usage/{usage_id}": frozenset({Scope.USAGE_READ_ALL}),
    "/v1/keys/{id}": WORKSPACE_SCOPES,
    "/tenant/keys/{id}": WORKSPACE_SCOPES,
}
"""What a key needs besides: to see the record of another key, and to revoke one that may do as much."""
APPS = ("app", "app_name", "deployment", "deployed_file", "blob")
TABLES = ("workspace", "member", "api_key", "api_key_secret", "account", "transfer", "hold", "call", "usage_event", "bound", "client_token", "job", "top_up", *APPS)


@pytest.fixture
async def victim() -> Tenant:
    """A workspace with something to lose: credit, a key, an app, and a usage record with the key's id."""
    of = await tenant(credit_microusd=1_000_000)
    app = await registry.create(of.caller(), NewApp(app_of(of), "Something to lose"))
    await deployments.create(of.caller(), app.id, [NewFile("index.html", 1, "0" * 64)])
    await write(of.workspace_id, [Event(at=datetime.now(UTC), id=of.key.id, key_id=of.key.id, user_id=of.owner.user_id)])
    return of


async def deployment_of(of: Tenant) -> str:
    """Return the id of a deployment of the victim's app, which waits for its file."""
    found = await database.fetch_value("SELECT id::text FROM deployment WHERE workspace_id = $1", of.workspace_id)
    return str(found)


def app_of(of: Tenant) -> str:
    """Return the id of the victim's app."""
    return f"of-{of.workspace_id}"


async def digest(of: Tenant) -> str:
    """Return a fingerprint of everything that a workspace has; that a key was used is no change."""
    parts = []
    for table in TABLES:
        column = "id" if table == "workspace" else "workspace_id"
        sql = f'SELECT coalesce(string_agg((to_jsonb(t) - \'last_used_at\')::text, \'\' ORDER BY to_jsonb(t)::text), \'\') FROM "{table}" t WHERE {column} = $1'
        parts.append(await database.fetch_value(sql, of.workspace_id))
    return hashlib.sha256("".join(parts).encode()).hexdigest()


async def ask(client: httpx2.AsyncClient, operation: Operation[Any], headers: dict[str, str] | httpx2.Headers, victim: Tenant, query: str = "") -> httpx2.Response:
    """Ask for an operation on the victim's things."""
    path = operation.path.replace("{id:path}", "echo").replace("{id}", str(victim.key.id))
    path = path.replace("{appId}", app_of(victim)).replace("{deploymentId}", await deployment_of(victim))
    path = path.replace("{usage_id}", str(victim.key.id)).replace("{user_id}", str(victim.owner.user_id))
    body = BODIES.get(f"{operation.method} {operation.path}", dict)()
    if operation.takes:
        return await client.request(operation.method, f"{path}{query}", headers=headers, content=zip_of({"index.html": uuid4().bytes}))
    return await client.request(operation.method, f"{path}{query}", headers=headers, json=body or None)


def in_shape(document: Document, answer: httpx2.Response) -> bool:
    """Tell whether a refusal is written as its document writes refusals."""
    return any(_fits(schema, answer.json()) for schema in _models(document.errors))


def _models(errors: Any) -> Iterator[Any]:
    yield from getattr(errors, "__args__", (errors,))


def _fits(schema: Any, body: object) -> bool:
    return isinstance(body, dict) and set(body) == set(schema.model_fields) and schema.model_validate(body) is not None


def test_every_operation_is_tried() -> None:
    """The table of scopes names every operation that is served, and no other."""
    assert set(NEEDS) == {f"{operation.method} {operation.path}" for document in PUBLISHED for operation in document.operations}


async def test_every_route_of_the_served_description(client: httpx2.AsyncClient, victim: Tenant) -> None:
    """What the description guards is what these tests try, all of it; what it leaves open tells nobody anything of the victim, and changes nothing."""
    described = (await client.get("/openapi.json")).json()["paths"]
    every = {f"{method.upper()} {path}": told for path, methods in described.items() for method, told in methods.items()}
    guarded = {name for name, told in every.items() if told["security"]}
    road = {f"POST {path}" for path in inference.paths(tuple(PRESETS))}
    assert guarded - road == {re.sub(r":\w+}", "}", name) for name in NEEDS}
    before = await digest(victim)
    for name in guarded & road:  # the inference road, which has tests of its own for what it tells whom
        for headers in ({}, {"Authorization": f"Bearer {victim.secret[:-1]}"}):
            assert (await client.post(name.removeprefix("POST "), headers=headers, json={})).status_code == 401, name
    for name in every.keys() - guarded:
        method, path = name.split(" ")
        path = re.sub(r"{\w+}", app_of(victim), path)
        for headers in ({}, (await tenant()).bearer):
            answer = await client.request(method, path, headers=headers, json={} if method in ("POST", "PUT") else None)
            assert answer.status_code < 500, name
            for told in (str(victim.key.id), str(victim.owner.user_id), victim.owner_email, "Something to lose"):
                assert told not in answer.text, name
    assert await digest(victim) == before


@pytest.mark.parametrize(("document", "operation"), OPERATIONS)
async def test_nobody(client: httpx2.AsyncClient, document: Document, operation: Operation[Any], victim: Tenant) -> None:
    """Without a credential, and with every kind of bad one, the answer is 401 in the document's shape."""
    before = await digest(victim)
    cut, unknown = victim.secret[:-1], secrets.make(ApiKeyMode.LIVE)
    assert (await ask(client, operation, httpx2.Headers(), victim)).status_code == 401
    for authorization in ("Bearer", "Basic dTpw", victim.secret, f"Bearer {cut}", f"Bearer {unknown}", "Bearer a.b.c", "Bearer \xff", f"Bearer {cut} {unknown}"):
        headers = httpx2.Headers({b"authorization": authorization.encode("latin-1")})
        refused = await ask(client, operation, headers, victim)
        assert refused.status_code == 401, authorization
        assert in_shape(document, refused), authorization
        assert refused.headers["x-request-id"]
    refused = await ask(client, operation, httpx2.Headers(), victim, query=f"?api_key={victim.secret}&access_token={victim.secret}")
    assert refused.status_code == 401
    assert await digest(victim) == before


@pytest.mark.parametrize(("document", "operation"), OPERATIONS)
async def test_a_revoked_key(client: httpx2.AsyncClient, document: Document, operation: Operation[Any], victim: Tenant) -> None:
    """A key that was revoked a moment ago is nobody (F28)."""
    key, secret = await victim.mint()
    assert (await client.delete(f"/tenant/keys/{key.id}", headers=victim.bearer)).status_code == 204
    before = await digest(victim)
    refused = await ask(client, operation, {"Authorization": f"Bearer {secret}"}, victim)
    assert refused.status_code == 401
    assert in_shape(document, refused)
    assert await digest(victim) == before


@pytest.mark.parametrize(("document", "operation"), OPERATIONS)
async def test_a_stranger(client: httpx2.AsyncClient, document: Document, operation: Operation[Any], victim: Tenant) -> None:
    """Another workspace's key gets nothing of the victim's, whether it names its id or its workspace, and changes nothing there."""
    stranger = await tenant()
    before = await digest(victim)
    answer = await ask(client, operation, stranger.bearer, victim)
    if "{id}" in operation.path:
        assert answer.status_code == (204 if operation.path.startswith("/v1/keys") else 404)
    if "{appId}" in operation.path:
        assert answer.status_code == 403
    if "{usage_id}" in operation.path:
        assert answer.status_code == (404 if operation.method == "GET" else 403)
    if "{user_id}" in operation.path:
        assert answer.status_code == 403
    assert str(victim.key.id) not in answer.text
    assert str(victim.workspace_id) not in answer.text
    for named in (str(victim.workspace_id), "00000000-0000-7000-8000-000000000000", "nonsense", ""):
        refused = await ask(client, operation, {**stranger.bearer, "X-Workspace-Id": named}, victim)
        assert refused.status_code == 403, named
        assert in_shape(document, refused), named
    assert await digest(victim) == before


@pytest.mark.parametrize(("document", "operation"), OPERATIONS)
async def test_a_key_that_lacks_the_scope(client: httpx2.AsyncClient, document: Document, operation: Operation[Any], victim: Tenant) -> None:
    """With every scope but the needed one it is 403, and the message names the scope; with that one alone it is let in."""
    needed = NEEDS[f"{operation.method} {operation.path}"]
    _, bare = await victim.mint(scopes=frozenset[Scope]())
    before = await digest(victim)
    if needed is None:
        expected = 404 if operation.path == "/v1/receipts/{id}" else 200  # a key's id is no call's
        assert (await ask(client, operation, {"Authorization": f"Bearer {bare}"}, victim)).status_code == expected
        return
    _, lacking = await victim.mint(scopes=victim.key.scopes - {needed})
    before = await digest(victim)
    for secret in (bare, lacking):
        refused = await ask(client, operation, {"Authorization": f"Bearer {secret}"}, victim)
        assert refused.status_code == 403
        assert in_shape(document, refused)
        assert needed.name in refused.text
    assert await digest(victim) == before
    enough = await operator_key(victim) if needed is Scope.OPERATOR else (await victim.mint(scopes=SEES.get(operation.path, frozenset()) | {needed}))[1]
    assert (await ask(client, operation, {"Authorization": f"Bearer {enough}"}, victim)).status_code == operation.status


async def test_a_method_that_is_not_there(client: httpx2.AsyncClient, victim: Tenant) -> None:
    """405 in the document's shape, naming the methods that there are, and nothing is done."""
    before = await digest(victim)
    for document in PUBLISHED:
        methods: dict[str, set[str]] = {}
        for operation in document.operations:
            methods.setdefault(operation.path, set()).add(operation.method)
        for path, there in methods.items():
            for method in {"GET", "POST", "PUT", "PATCH", "DELETE"} - there:
                refused = await ask(client, dataclasses.replace(document.operations[0], method=method, path=path), victim.bearer, victim)
                assert refused.status_code == 405, (method, path)
                assert set(refused.headers["allow"].split(", ")) == there | ({"HEAD"} if "GET" in there else set())
                assert in_shape(document, refused)
    assert await digest(victim) == before
