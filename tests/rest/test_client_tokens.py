"""Document 0's client tokens, field for field, against a running gateway."""

from datetime import UTC, datetime
from uuid import uuid4

import httpx2
import jwt
import pytest

from domain.access import client_tokens
from domain.errors import Unauthenticated
from models import database
from tests.conftest import SECRET
from tests.support.world import Tenant, tenant

pytestmark = pytest.mark.anyio


async def registered(client: httpx2.AsyncClient, of: Tenant) -> str:
    """Register an app; return its id."""
    slug = f"app-{uuid4().hex[:12]}"
    assert (await client.post("/v1/apps", json={"appId": slug, "name": "App"}, headers=of.bearer)).status_code == 201
    return slug


async def test_a_token_is_made_for_an_app(client: httpx2.AsyncClient) -> None:
    """200 with exactly `token` and `expiresAt`: ten minutes, the app's own origin and those of its manifest, its models and its caps."""
    mine = await tenant()
    slug = await registered(client, mine)
    manifest = {"allowedOrigins": ["https://chat.example"], "models": ["echo"], "caps": {"spendCapMicrousd": 5000, "requestCap": 7}}
    assert (await client.put(f"/v1/apps/{slug}", json={"manifest": manifest}, headers=mine.bearer)).status_code == 200
    made = await client.post("/v1/client-tokens", json={"appId": slug}, headers=mine.bearer)
    assert made.status_code == 200, made.text
    assert set(made.json()) == {"token", "expiresAt"}
    said = client_tokens.read(SECRET, made.json()["token"], datetime.now(UTC))
    assert said.workspace_id == mine.workspace_id
    row = await database.fetch_row("SELECT * FROM client_token WHERE workspace_id = $1 AND id = $2", mine.workspace_id, said.id)
    assert row is not None
    assert row["key_id"] == mine.key.id
    assert row["allowed_origins"][0].partition("://")[2].startswith(f"{slug}.")
    assert row["allowed_origins"][1:] == ["https://chat.example"]
    assert (row["allowed_models"], row["spend_cap"], row["request_cap"]) == (["echo"], 5000, 7)
    assert (row["expires_at"] - row["created_at"]).total_seconds() == 600
    assert datetime.fromisoformat(made.json()["expiresAt"]) == row["expires_at"]
    bare = await client.post("/v1/client-tokens", json={}, headers=mine.bearer)
    assert bare.status_code == 200


async def test_a_token_is_narrower_than_its_app_by_request(client: httpx2.AsyncClient) -> None:
    """The body may say what `clientTokenCreate` says; what is out of range or wider than the key is 400 or 403, and makes no token."""
    mine = await tenant()
    slug = await registered(client, mine)
    said = {"endUserId": "ann", "allowedOrigins": ["https://a.example"], "allowedModels": ["echo"], "expiresInSeconds": 300, "spendCapMicrousd": 9, "requestCap": 2}
    made = await client.post("/v1/client-tokens", json={"appId": slug, **said}, headers=mine.bearer)
    assert made.status_code == 200, made.text
    token_id = client_tokens.read(SECRET, made.json()["token"], datetime.now(UTC)).id
    row = await database.fetch_row("SELECT * FROM client_token WHERE workspace_id = $1 AND id = $2", mine.workspace_id, token_id)
    assert row is not None
    assert (row["end_user"], row["allowed_origins"], row["allowed_models"]) == ("ann", ["https://a.example"], ["echo"])
    assert (row["spend_cap"], row["request_cap"], (row["expires_at"] - row["created_at"]).total_seconds()) == (9, 2, 300)
    bad = ({"expiresInSeconds": 299}, {"expiresInSeconds": 901}, {"expiresInSeconds": "300"}, {"spendCapMicrousd": -1}, {"spendCapMicrousd": 0.5}, {"requestCap": 0})
    for wrong in (*bad, {"allowedModels": "echo"}, {"allowedOrigins": ["nowhere"]}, {"endUserId": ""}):
        refused = await client.post("/v1/client-tokens", json={"appId": slug, **wrong}, headers=mine.bearer)
        assert (refused.status_code, set(refused.json())) == (400, {"error"}), (wrong, refused.text)
    assert await database.fetch_value("SELECT count(*) FROM client_token WHERE workspace_id = $1", mine.workspace_id) == 1


async def test_no_token_may_do_more_than_the_manifest_says(client: httpx2.AsyncClient) -> None:
    """`caps` are what one token may do at most: a request for more has the manifest's, one for less its own."""
    mine = await tenant()
    slug = await registered(client, mine)
    manifest = {"caps": {"spendCapMicrousd": 5000, "requestCap": 7}}
    assert (await client.put(f"/v1/apps/{slug}", json={"manifest": manifest}, headers=mine.bearer)).status_code == 200
    for asked, kept in (((5001, 8), (5000, 7)), ((4999, 6), (4999, 6)), ((None, 100), (5000, 7)), ((0, None), (0, 7))):
        body = {"appId": slug, "spendCapMicrousd": asked[0], "requestCap": asked[1]}
        made = await client.post("/v1/client-tokens", json=body, headers=mine.bearer)
        assert made.status_code == 200, made.text
        token_id = client_tokens.read(SECRET, made.json()["token"], datetime.now(UTC)).id
        row = await database.fetch_row("SELECT spend_cap, request_cap FROM client_token WHERE workspace_id = $1 AND id = $2", mine.workspace_id, token_id)
        assert tuple(row or ()) == kept


async def test_an_app_that_is_not_mine(client: httpx2.AsyncClient) -> None:
    """An unknown app and another's are 404 alike, a wrong type 400, and no token is made."""
    mine, other = await tenant(), await tenant()
    theirs = await registered(client, other)
    for app_id in (theirs, f"none-{uuid4().hex[:12]}", ""):
        refused = await client.post("/v1/client-tokens", json={"appId": app_id}, headers=mine.bearer)
        assert (refused.status_code, set(refused.json())) == (404, {"error"})
    assert (await client.post("/v1/client-tokens", json={"appId": 7}, headers=mine.bearer)).status_code == 400
    assert await database.fetch_value("SELECT count(*) FROM client_token WHERE workspace_id = $1", mine.workspace_id) == 0


async def test_a_token_is_no_key(client: httpx2.AsyncClient) -> None:
    """A token opens no documented path: it can neither make another nor read anything."""
    mine = await tenant()
    token = (await client.post("/v1/client-tokens", json={}, headers=mine.bearer)).json()["token"]
    for method, path in (("POST", "/v1/client-tokens"), ("GET", "/v1/keys"), ("GET", "/v1/apps"), ("GET", "/v1/credits/balance")):
        assert (await client.request(method, path, headers={"Authorization": f"Bearer {token}"})).status_code == 401


async def test_what_a_token_may_say(client: httpx2.AsyncClient) -> None:
    """Only our signature, audience and issuer are believed, in time, with one algorithm, and never for longer than fifteen minutes."""
    mine = await tenant()
    token = (await client.post("/v1/client-tokens", json={}, headers=mine.bearer)).json()["token"]
    now = datetime.now(UTC)
    said = jwt.decode(token, options={"verify_signature": False})
    client_tokens.read(SECRET, token, now)
    key = client_tokens.signing_key(SECRET)
    forged = [
        jwt.encode(said, "another key of thirty-two bytes or more", algorithm="HS256"),
        jwt.encode(said, SECRET, algorithm="HS256"),
        jwt.encode(said, "", algorithm="none"),
        *(
            jwt.encode(said | change, key, algorithm="HS256")
            for change in (
                *({"exp": said["iat"] + 901}, {"exp": said["iat"] - 1}, {"exp": 10**400}, {"exp": "1"}, {"iat": 1, "exp": 2}),
                *({"aud": "another"}, {"iss": "another"}, {"jti": "x"}, {"sub": ""}),
            )
        ),
        token[:-2],
        "",
        "a.b.c",
    ]
    for each in forged:
        with pytest.raises(Unauthenticated):
            client_tokens.read(SECRET, each, now)
