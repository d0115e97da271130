"""Document 0's apps, field for field, against a running gateway."""

import asyncio
from datetime import datetime
from uuid import uuid4

import httpx2
import pytest

from domain.apps import manifest
from models import database
from models.enums import Scope
from tests.support.world import tenant

pytestmark = pytest.mark.anyio


def fresh(stem: str = "app") -> str:
    """Return an id that nobody has taken."""
    return f"{stem}-{uuid4().hex[:12]}"


async def test_an_app_is_registered_shown_changed_and_deleted(client: httpx2.AsyncClient) -> None:
    """An app's life over the documented paths: 201, listed, shown with its manifest, changed, and 204; then it is 404."""
    mine, slug = await tenant(), fresh()
    made = await client.post("/v1/apps", json={"appId": slug, "name": "My app", "description": "It talks."}, headers=mine.bearer)
    assert made.status_code == 201
    body = made.json()
    assert set(body) == {"appId", "name", "createdAt", "updatedAt", "description", "manifest"}
    assert (body["appId"], body["name"], body["description"], body["manifest"]) == (slug, "My app", "It talks.", {})
    (listed,) = (await client.get("/v1/apps", headers=mine.bearer)).json()
    assert listed == {name: value for name, value in body.items() if name != "manifest"}

    wanted = {"entry": "app.html", "spaFallback": True, "theme": {"colour": "red", "n": 1.5}}
    changed = await client.put(f"/v1/apps/{slug}", json={"manifest": wanted, "name": "Renamed"}, headers=mine.bearer)
    assert changed.status_code == 200
    shown = (await client.get(f"/v1/apps/{slug}", headers=mine.bearer)).json()
    assert shown == changed.json()
    assert (shown["manifest"], shown["name"], shown["description"]) == (wanted, "Renamed", "It talks.")
    assert datetime.fromisoformat(shown["updatedAt"]) >= datetime.fromisoformat(shown["createdAt"])

    cleared = (await client.put(f"/v1/apps/{slug}", json={"description": None}, headers=mine.bearer)).json()
    assert "description" not in cleared
    assert (cleared["manifest"], cleared["name"]) == (wanted, "Renamed")

    deleted = await client.delete(f"/v1/apps/{slug}", headers=mine.bearer)
    assert (deleted.status_code, deleted.content) == (204, b"")
    for method in ("GET", "PUT", "DELETE"):
        assert (await client.request(method, f"/v1/apps/{slug}", headers=mine.bearer)).status_code == 404
    assert (await client.get("/v1/apps", headers=mine.bearer)).json() == []


async def test_an_app_is_registered_with_its_manifest(client: httpx2.AsyncClient) -> None:
    """The body may have the manifest that PUT takes, checked alike: a bad one, or public tokens from a key that may make none, registers nothing."""
    mine, slug = await tenant(), fresh()
    wanted = {"spaFallback": True, "publicTokens": True, "theme": {"n": 1.5}}
    _, secret = await mine.mint(scopes=frozenset({Scope.APPS_READ, Scope.APPS_WRITE}))
    refused = await client.post("/v1/apps", json={"appId": slug, "name": "x", "manifest": wanted}, headers={"Authorization": f"Bearer {secret}"})
    assert refused.status_code == 403, refused.text
    bad: object
    for bad in ({"entry": "../x"}, {"spaFallback": 1}, [], "x"):
        refused = await client.post("/v1/apps", json={"appId": slug, "name": "x", "manifest": bad}, headers=mine.bearer)
        assert (refused.status_code, set(refused.json())) == (400, {"error"})
    assert (await client.get("/v1/apps", headers=mine.bearer)).json() == []
    made = await client.post("/v1/apps", json={"appId": slug, "name": "x", "manifest": wanted}, headers=mine.bearer)
    assert (made.status_code, made.json()["manifest"]) == (201, wanted)
    row = await database.fetch_row("SELECT minter_kind, minter_id FROM app WHERE slug = $1", slug)
    assert row is not None
    assert tuple(row) == ("api_key", mine.key.id)


async def test_a_deleted_app_leaves_its_name_to_its_workspace(client: httpx2.AsyncClient) -> None:
    """Nobody else gets the name of a deleted app; its own workspace may take it again, for a new app."""
    mine, other, slug = await tenant(), await tenant(), fresh()
    first = (await client.post("/v1/apps", json={"appId": slug, "name": "One"}, headers=mine.bearer)).json()
    await client.put(f"/v1/apps/{slug}", json={"manifest": {"mine": 1}}, headers=mine.bearer)
    assert (await client.delete(f"/v1/apps/{slug}", headers=mine.bearer)).status_code == 204
    refused = await client.post("/v1/apps", json={"appId": slug, "name": "Squatter"}, headers=other.bearer)
    assert (refused.status_code, set(refused.json())) == (400, {"error"})
    again = (await client.post("/v1/apps", json={"appId": slug, "name": "Two"}, headers=mine.bearer)).json()
    assert (again["manifest"], again["name"]) == ({}, "Two")
    assert again["createdAt"] >= first["createdAt"]


@pytest.mark.parametrize(
    "app_id",
    ["", "ab", "a" * 51, "My-app", "my_app", "my--app", "-app", "app-", "my app", "my.app", "åpp", "app\n", "xn--app", "../app", "www", "api", "console", 5, None],
)
async def test_an_id_that_cannot_be(client: httpx2.AsyncClient, app_id: object) -> None:
    """A malformed or reserved id is 400 and makes nothing."""
    mine = await tenant()
    refused = await client.post("/v1/apps", json={"appId": app_id, "name": "x"}, headers=mine.bearer)
    assert (refused.status_code, set(refused.json())) == (400, {"error"})
    assert (await client.get("/v1/apps", headers=mine.bearer)).json() == []


@pytest.mark.parametrize("body", [{}, {"appId": "fine-name"}, {"name": "x"}, {"appId": "fine-name", "name": ""}, {"appId": "fine-name", "name": "x" * 201}, []])
async def test_a_body_that_cannot_be(client: httpx2.AsyncClient, body: object) -> None:
    """A missing or malformed field is 400 and makes nothing: the name stays free."""
    mine = await tenant()
    assert (await client.post("/v1/apps", json=body, headers=mine.bearer)).status_code == 400
    assert await database.fetch_value("SELECT count(*) FROM app_name WHERE slug = 'fine-name'") == 0


async def test_a_change_is_whole_or_not_at_all(client: httpx2.AsyncClient) -> None:
    """A manifest that does not fit, or a name that is none, changes nothing, and the answer names the place."""
    mine, slug = await tenant(), fresh()
    before = (await client.post("/v1/apps", json={"appId": slug, "name": "x"}, headers=mine.bearer)).json()
    for body, place in (
        ({"name": "y", "manifest": {"redirects": [{"from": "/a", "to": "//evil.example"}]}}, "manifest.redirects.0.to"),
        ({"name": "y", "manifest": {"headers": [{"path": "/", "set": {"set-cookie": "a=b"}}]}}, "set-cookie"),
        ({"name": "y", "manifest": [1]}, "manifest"),
        ({"description": "d", "name": ""}, "name"),
        ({"description": "d", "name": None}, "name"),
        ({"name": "y", "description": "x" * 2001}, "description"),
    ):
        refused = await client.put(f"/v1/apps/{slug}", json=body, headers=mine.bearer)
        assert refused.status_code == 400
        assert place in refused.json()["error"]
        assert (await client.get(f"/v1/apps/{slug}", headers=mine.bearer)).json() == before


async def test_who_may_do_what(client: httpx2.AsyncClient) -> None:
    """Another workspace's app is 403, nobody's is 404, and a key that only reads cannot change."""
    mine, other, slug = await tenant(), await tenant(), fresh()
    await client.post("/v1/apps", json={"appId": slug, "name": "x"}, headers=mine.bearer)
    before = (await client.get(f"/v1/apps/{slug}", headers=mine.bearer)).json()
    _, reading = await mine.mint(scopes=frozenset({Scope.APPS_READ}))
    for method in ("GET", "PUT", "DELETE"):
        assert (await client.request(method, f"/v1/apps/{slug}", headers=other.bearer)).status_code == 403
        assert (await client.request(method, f"/v1/apps/{fresh()}", headers=other.bearer)).status_code == 404
        only = await client.request(method, f"/v1/apps/{slug}", headers={"Authorization": f"Bearer {reading}"})
        assert only.status_code == (200 if method == "GET" else 403)
    assert (await client.get("/v1/apps", headers=other.bearer)).json() == []
    assert (await client.get(f"/v1/apps/{slug}", headers=mine.bearer)).json() == before


@pytest.mark.parametrize("name", ["%00", "my-app%00", "%ff", "My-App", "a" * 300])
async def test_a_name_that_cannot_be_is_nobodys(client: httpx2.AsyncClient, name: str) -> None:
    """404 on every path of an app, whatever its name in the address is made of, and to those who have no credential too."""
    mine = await tenant()
    for method, path in (("GET", ""), ("PUT", ""), ("DELETE", ""), ("POST", "/deploy"), ("GET", f"/deployments/{mine.workspace_id}")):
        answer = await client.request(method, f"/v1/apps/{name}{path}", json={} if method == "PUT" else None, headers=mine.bearer)
        assert (answer.status_code, set(answer.json())) == (404, {"error"}), (method, path, answer.text)
    anonymous = await client.post(f"/v1/apps/{name}/tokens", headers={"Origin": "https://a.example"})
    assert anonymous.status_code == 404, anonymous.text


async def test_one_of_many_takes_a_name(client: httpx2.AsyncClient) -> None:
    """Ten workspaces ask for one name at once: one has it, nine are told that it is taken."""
    slug, tenants = fresh(), [await tenant() for _ in range(10)]
    answers = await asyncio.gather(*(client.post("/v1/apps", json={"appId": slug, "name": "x"}, headers=each.bearer) for each in tenants))
    assert sorted(answer.status_code for answer in answers) == [201, *[400] * 9]
    assert await database.fetch_value("SELECT count(*) FROM app WHERE slug = $1", slug) == 1


async def test_the_schema_of_a_manifest_is_published(client: httpx2.AsyncClient) -> None:
    """Anybody can read the JSON Schema that manifests are checked against."""
    answer = await client.get(manifest.PATH)
    assert answer.headers["content-type"] == "application/schema+json"
    assert answer.json() == manifest.SCHEMA
