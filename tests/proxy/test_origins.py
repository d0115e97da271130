"""CORS on the inference roads: preflights pass for origins that somebody registered, answers are open to their token's origins alone (F39)."""

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx2
import jwt
import pytest

from domain.access import client_tokens
from domain.access.client_tokens import NewToken
from domain.apps import registry
from domain.apps.addresses import Addresses
from domain.apps.registry import AppChanges, AppView, NewApp
from models import database
from proxy.routes import COUNTS, ROADS
from tests.conftest import SECRET
from tests.proxy.test_client_tokens import BODY, as_key
from tests.support.gateway import Gateway
from tests.support.world import Tenant, broken, tenant

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"


def fresh() -> str:
    """An origin that nobody has registered yet."""
    return f"https://{uuid4().hex[:12]}.example"


def sites(client: httpx2.AsyncClient) -> Addresses:
    """Where the run's gateway serves apps."""
    return Addresses("http", "localhost", urlsplit(str(client.base_url)).port)


async def app_of(of: Tenant, **manifest: Any) -> AppView:
    """Register an app with a manifest."""
    app = await registry.create(of.caller(), NewApp(f"app-{uuid4().hex[:12]}", "App"))
    return await registry.update(of.caller(), app.id, AppChanges(manifest=manifest))


async def minted(of: Tenant, client: httpx2.AsyncClient, **new: Any) -> str:
    """Make a token as the workspace's key."""
    return client_tokens.sign(SECRET, await client_tokens.create(as_key(of), NewToken(**new), sites(client)))


@pytest.fixture
async def client(gateway: Gateway) -> AsyncIterator[httpx2.AsyncClient]:
    """A client without a credential."""
    async with httpx2.AsyncClient(base_url=gateway.url, timeout=30) as opened:
        yield opened


async def ask(client: httpx2.AsyncClient, method: str, path: str, origin: str | None, body: Any = None, **headers: str) -> httpx2.Response:
    """Send a request as a page of an origin does."""
    fields = ({} if origin is None else {"Origin": origin}) | {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.request(method, path, json=body, headers=fields)


async def preflight(client: httpx2.AsyncClient, origin: str, path: str = CHAT, **headers: str) -> httpx2.Response:
    """Ask as a browser does before it calls."""
    return await ask(client, "OPTIONS", path, origin, **({"Access_Control_Request_Method": "POST"} | headers))


def opened(answer: httpx2.Response) -> str | None:
    """Whose pages may read an answer; credentials are never part of it."""
    assert "access-control-allow-credentials" not in answer.headers
    assert "origin" in answer.headers["vary"].lower()
    return answer.headers.get("access-control-allow-origin")


async def test_who_passes_a_preflight(client: httpx2.AsyncClient) -> None:
    """An app's own origin, one of its manifest, one that a live token names; each for as long as that holds, on every inference path, and nobody else."""
    of = await tenant()
    listed, named = fresh(), fresh()
    app = await app_of(of, allowedOrigins=[listed])
    own = sites(client).origin(app.slug)
    for origin in (own, listed):
        answer = await preflight(client, origin, Access_Control_Request_Headers="authorization, content-type, x-stainless-lang")
        assert (answer.status_code, opened(answer)) == (204, origin)
        assert answer.headers["access-control-allow-methods"] == "POST"
        assert answer.headers["access-control-allow-headers"] == "authorization, content-type, x-stainless-lang"
        assert int(answer.headers["access-control-max-age"]) > 0
    for path in (*ROADS, *COUNTS):
        assert opened(await preflight(client, own, path)) == own
    assert opened(await preflight(client, named)) is None
    made = await client_tokens.create(as_key(of), NewToken(allowed_origins=(named,)), sites(client))
    assert opened(await preflight(client, named)) == named
    await client_tokens.revoke_one(of.caller(), made.id)
    assert opened(await preflight(client, named)) is None
    await registry.delete(of.caller(), app.id)
    strangers = (own, listed, fresh(), "null", f"{own}.evil.example", own.replace("http", "https"), sites(client).origin(f"{app.slug}--v1"), "https://a b", "")
    for origin in strangers:
        answer = await preflight(client, origin)
        assert (answer.status_code, opened(answer)) == (403, None), origin
    plain = await ask(client, "OPTIONS", CHAT, own)  # what is no preflight says what it said
    assert (plain.status_code, plain.headers["allow"]) == (204, "POST, HEAD, OPTIONS")


async def test_an_answer_obeys_its_token_alone(client: httpx2.AsyncClient) -> None:
    """An answer is open to the token's origins whatever any app has registered, streamed or not, with our fields to read; without Origin nothing is said."""
    of = await tenant(credit_microusd=1_000_000)
    registered, bound = fresh(), fresh()
    app = await app_of(of, allowedOrigins=[registered])
    token = await minted(of, client, app_id=app.id, allowed_origins=(bound,))
    for stream in (False, True):
        answer = await ask(client, "POST", CHAT, bound, BODY | {"stream": stream}, Authorization=f"Bearer {token}")
        assert (answer.status_code, opened(answer)) == (200, bound)
        exposed = set(answer.headers["access-control-expose-headers"].split(", "))
        assert {"x-request-id", "x-tallygate-model", "x-tallygate-charge-microusd", "x-tallygate-balance-microusd", "retry-after", "ratelimit"} <= exposed
    refused = await ask(client, "POST", CHAT, registered, BODY, Authorization=f"Bearer {token}")
    assert (refused.status_code, opened(refused)) == (403, None)
    silent = await ask(client, "POST", CHAT, None, BODY, Authorization=f"Bearer {of.secret}")
    assert silent.status_code == 200
    assert not {"vary", "access-control-allow-origin"} & set(silent.headers)
    anywhere = await minted(of, client)
    assert opened(await ask(client, "POST", CHAT, registered, BODY, Authorization=f"Bearer {anywhere}")) == registered
    assert opened(await ask(client, "POST", CHAT, "null", BODY, Authorization=f"Bearer {anywhere}")) is None
    assert await broken(of) == []


async def test_a_refusal_can_be_read(client: httpx2.AsyncClient) -> None:
    """Over, revoked, of an app that is switched off, malformed, too much, a wrong method: the page that holds the token reads why."""
    of = await tenant(credit_microusd=1_000_000)
    origin = fresh()
    app = await app_of(of)
    token = await minted(of, client, app_id=app.id, allowed_origins=(origin,), request_cap=1)

    async def refused(method: str = "POST", body: Any = BODY, token: str = token, path: str = CHAT, **headers: str) -> int:
        answer = await ask(client, method, path, origin, body, Authorization=f"Bearer {token}", **headers)
        assert opened(answer) == origin
        assert answer.json()["error"]["message"]
        return answer.status_code

    assert await refused(body={"model": "echo"}) == 400
    assert await refused("GET") == 405
    assert await refused(Idempotency_Key="k") == 400
    assert await refused(path="/cursor/v1/messages", x_tallygate_preset="cursor@999") == 400
    assert (await ask(client, "POST", CHAT, origin, BODY, Authorization=f"Bearer {token}")).status_code == 200
    assert await refused() == 429
    await registry.update(of.caller(), app.id, AppChanges(suspended=True))
    assert await refused() == 403
    assert await refused(path="/v1/messages/count_tokens") == 403
    await client_tokens.revoke_of_app(of.caller(), app.id)
    assert await refused() == 401
    said = jwt.decode(token, options={"verify_signature": False})
    over = jwt.encode(said | {"iat": said["iat"] - 1000, "exp": said["exp"] - 1000}, client_tokens.signing_key(SECRET), algorithm="HS256")
    assert await refused(token=over) == 401


async def test_keys_and_forgeries_open_nothing(client: httpx2.AsyncClient) -> None:
    """A key from a page keeps its own rule and is readable by no page; neither is what a forged token, none, or two credentials are answered."""
    of = await tenant(credit_microusd=1_000_000)
    origin, other = fresh(), fresh()
    await app_of(of, allowedOrigins=[origin])
    token = await minted(of, client, allowed_origins=(origin,))
    assert opened(await ask(client, "POST", CHAT, origin, BODY, Authorization=f"Bearer {of.secret}")) is None
    _, narrow = await of.mint(name="narrow", allowed_origins=(origin,))
    for whence, status in ((origin, 200), (other, 403)):
        answer = await ask(client, "POST", CHAT, whence, BODY, Authorization=f"Bearer {narrow}")
        assert (answer.status_code, opened(answer)) == (status, None)
    for shown in ({}, {"Authorization": f"Bearer {token[:-4]}AAAA"}, {"Authorization": "Bearer a.b.c"}, {"Authorization": f"Bearer {token}", "x_api_key": of.secret}):
        assert opened(await ask(client, "POST", CHAT, origin, BODY, **shown)) is None


async def test_tokens_count_tokens(client: httpx2.AsyncClient) -> None:
    """Counting takes a client token from its own origins, for nothing; from another 403."""
    of = await tenant()
    origin = fresh()
    token = await minted(of, client, allowed_origins=(origin,))
    answer = await ask(client, "POST", "/v1/messages/count_tokens", origin, BODY, Authorization=f"Bearer {token}")
    assert (answer.status_code, set(answer.json()), opened(answer)) == (200, {"input_tokens"}, origin)
    foreign = await ask(client, "POST", "/v1/messages/count_tokens", fresh(), BODY, Authorization=f"Bearer {token}")
    assert (foreign.status_code, opened(foreign)) == (403, None)
    assert await database.fetch_value('SELECT count(*) FROM "call" WHERE workspace_id = $1', of.workspace_id) == 0


async def test_the_control_plane_is_closed(client: httpx2.AsyncClient) -> None:
    """No page of another origin reads, or may call, anything that a key or a session opens."""
    of = await tenant()
    app = await app_of(of)
    own = sites(client).origin(app.slug)
    for method, path in (("GET", "/v1/apps"), ("POST", "/v1/client-tokens"), ("POST", "/graphql"), ("GET", "/v1/models"), ("GET", "/openapi.json"), ("GET", "/")):
        asked = await ask(client, "OPTIONS", path, own, Access_Control_Request_Method=method)
        answer = await ask(client, method, path, own, {} if method == "POST" else None, Authorization=f"Bearer {of.secret}")
        assert [each for each in (*asked.headers, *answer.headers) if each.startswith("access-control-")] == [], path
