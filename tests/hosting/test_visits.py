"""Visitors of deployed apps, over HTTP, with the `Host` that a browser sends."""

import asyncio
import gzip
from uuid import UUID, uuid4

import brotli
import httpx2
import pytest

from tests.apps.deploying import deploy, make_app
from tests.support.gateway import Gateway
from tests.support.world import Tenant, tenant

pytestmark = pytest.mark.anyio

SCRIPT = b"console.log('one')\n" * 200
SITE = {
    "index.html": b"<h1>home</h1>",
    "about.html": b"<h1>about</h1>",
    "docs/index.html": b"<h1>docs</h1>",
    "404.html": b"<h1>lost</h1>",
    "assets/app-1a2b3c4d.js": SCRIPT,
    "plain.css": b"a{}",
    "photo.png": bytes(range(256)) * 40,
    "data.unknown": b"?",
    "\u00e9 t\u00e9/\U0001f642.txt": "h\u00e9".encode(),
}


async def visit(client: httpx2.AsyncClient, host: str, path: str = "/", method: str = "GET", **headers: str) -> httpx2.Response:
    """Ask an app for a path, exactly as it is written."""
    fields = {"Host": f"{host}.localhost:8000", "Accept-Encoding": "identity", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return await client.request(method, path, headers=fields)


async def deployed(client: httpx2.AsyncClient, manifest: object = None) -> tuple[Tenant, str]:
    """Deploy the site, with a manifest."""
    mine = await tenant()
    slug = await make_app(client, mine)
    if manifest is not None:
        assert (await client.put(f"/v1/apps/{slug}", json={"manifest": manifest}, headers=mine.bearer)).status_code == 200
    assert (await deploy(client, mine, slug, SITE)).status_code == 200
    return mine, slug


@pytest.fixture(scope="module")
async def slug(gateway: Gateway) -> str:
    """The site, deployed once for all who only read it."""
    async with httpx2.AsyncClient(base_url=gateway.url, timeout=30) as client:
        return (await deployed(client))[1]


async def test_files_and_their_types(client: httpx2.AsyncClient, slug: str) -> None:
    """Every file is served with its own type, never guessed by the browser, with a strict policy on pages and no cookie anywhere."""
    for path, media_type, content in (
        ("/", "text/html; charset=utf-8", SITE["index.html"]),
        ("/index.html", "text/html; charset=utf-8", SITE["index.html"]),
        ("/about", "text/html; charset=utf-8", SITE["about.html"]),
        ("/docs/", "text/html; charset=utf-8", SITE["docs/index.html"]),
        ("/assets/app-1a2b3c4d.js", "text/javascript; charset=utf-8", SCRIPT),
        ("/plain.css?v=2", "text/css; charset=utf-8", SITE["plain.css"]),
        ("/photo.png", "image/png", SITE["photo.png"]),
        ("/data.unknown", "application/octet-stream", b"?"),
        ("/%C3%A9%20t%C3%A9/%F0%9F%99%82.txt", "text/plain; charset=utf-8", "h\u00e9".encode()),
    ):
        answer = await visit(client, slug, path)
        assert (answer.status_code, answer.headers["content-type"], answer.content) == (200, media_type, content), path
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "set-cookie" not in answer.headers
        assert answer.headers["x-request-id"]
        page = media_type.startswith("text/html")
        assert ("content-security-policy" in answer.headers) is page
        head = await visit(client, slug, path, "HEAD")
        assert (head.status_code, head.content) == (200, b"")
        assert {name: value for name, value in head.headers.items() if name not in ("x-request-id", "date")} == {
            name: value for name, value in answer.headers.items() if name not in ("x-request-id", "date")
        }
    policy = (await visit(client, slug)).headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assert f"connect-src 'self' {str(client.base_url).rstrip('/')};" in policy
    for path, place in (("/docs", "/docs/"), ("/docs?code=a%2Fb&state=1", "/docs/?code=a%2Fb&state=1")):  # as a provider sends somebody back
        moved = await visit(client, slug, path)
        assert (moved.status_code, moved.headers["location"]) == (308, place)


async def test_what_is_not_there(client: httpx2.AsyncClient, slug: str) -> None:
    """A path without a file is 404 with the app's own page; so are other apps, other versions, and what no app can be called."""
    lost = await visit(client, slug, "/nothing/here.html")
    assert (lost.status_code, lost.content) == (404, SITE["404.html"])
    for host in (f"no-{uuid4().hex[:8]}", f"{slug}--v2", f"{slug}--v0", f"{slug}--v01", f"a.{slug}", f"{slug}--v1--v1", f"{slug}-"):
        assert (await visit(client, host)).status_code == 404, host
    mine = await tenant()
    empty = await make_app(client, mine)
    assert (await visit(client, empty)).status_code == 404
    assert (await visit(client, slug.upper())).status_code == 200


async def test_the_api_is_not_on_an_app_s_origin(client: httpx2.AsyncClient) -> None:
    """An app's origin has nothing of the API, the console or the manual, whatever the credential; and the API's has no app."""
    mine, slug = await deployed(client)
    for path in ("/v1/apps", "/graphql", "/graphiql", "/healthz", "/openapi.json", "/v1/messages", "/docs/quickstart"):
        answer = await visit(client, slug, path, Authorization=mine.bearer["Authorization"])
        assert answer.status_code == 404, path
        assert answer.content == SITE["404.html"]
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        refused = await visit(client, slug, "/v1/messages", method, Authorization=mine.bearer["Authorization"])
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
    assert (await client.get("/assets/app-1a2b3c4d.js")).status_code == 404


async def test_what_browsers_keep(client: httpx2.AsyncClient, slug: str) -> None:
    """A file named after its content is kept for a year, everything else is asked for again; what has not changed is 304."""
    hashed = await visit(client, slug, "/assets/app-1a2b3c4d.js")
    assert hashed.headers["cache-control"] == "public, max-age=31536000, immutable"
    for path in ("/", "/plain.css", "/photo.png"):
        answer = await visit(client, slug, path)
        assert answer.headers["cache-control"] == "public, max-age=0, must-revalidate"
        for tag in (answer.headers["etag"], f'"x", W/{answer.headers["etag"]}', "*"):
            same = await visit(client, slug, path, If_None_Match=tag)
            assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", answer.headers["etag"])
        assert (await visit(client, slug, path, If_None_Match='"other"')).status_code == 200


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ("br", "br"),
        ("gzip", "gzip"),
        ("gzip, deflate, br, zstd", "br"),
        ("br;q=0, gzip;q=0.5", "gzip"),
        ("br;q=0.1, gzip;q=0.9", "gzip"),
        ("*", "br"),
        ("identity", None),
        ("br;q=0", None),
        ("gzip;q=0.1, identity", None),
        ("deflate", None),
        ("", None),
        ("br;q=x", None),
    ],
)
async def test_compression_is_negotiated(client: httpx2.AsyncClient, slug: str, accepted: str, encoding: str | None) -> None:
    """The smallest encoding that the client takes is sent as it was made when it was deployed; each has a tag of its own."""
    request = client.build_request("GET", "/assets/app-1a2b3c4d.js", headers={"Host": f"{slug}.localhost", "Accept-Encoding": accepted})
    answer = await client.send(request, stream=True)
    raw = b"".join([piece async for piece in answer.aiter_raw()])
    assert answer.headers.get("content-encoding") == encoding
    assert answer.headers["vary"] == "accept-encoding"
    assert {None: lambda b: b, "br": brotli.decompress, "gzip": gzip.decompress}[encoding](raw) == SCRIPT
    assert int(answer.headers["content-length"]) == len(raw)
    assert answer.headers["etag"].endswith({None: '"', "br": '-br"', "gzip": '-gzip"'}[encoding])
    await answer.aclose()


@pytest.mark.parametrize(
    ("asked", "status", "start", "end"),
    [
        ("bytes=0-9", 206, 0, 10),
        ("bytes=10-", 206, 10, 10240),
        ("bytes=-5", 206, 10235, 10240),
        ("bytes=10000-99999", 206, 10000, 10240),
        ("bytes=-99999", 206, 0, 10240),
        ("bytes=10240-", 416, 0, 0),
        ("bytes=-0", 416, 0, 0),
        ("bytes=9-5", 200, 0, 10240),
        ("bytes=0-1,3-4", 200, 0, 10240),
        ("lines=0-1", 200, 0, 10240),
        ("bytes=-", 200, 0, 10240),
        ("bytes=a-b", 200, 0, 10240),
    ],
)
async def test_a_part_of_a_file(client: httpx2.AsyncClient, slug: str, asked: str, status: int, start: int, end: int) -> None:
    """Ranges are answered as RFC 9110 says; what is not understood gets the whole."""
    answer = await visit(client, slug, "/photo.png", Range=asked)
    assert answer.status_code == status
    assert answer.content == SITE["photo.png"][start:end]
    if status == 206:
        assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/10240"
    if status == 416:
        assert answer.headers["content-range"] == "bytes */10240"
    stale = await visit(client, slug, "/photo.png", Range=asked, If_Range='"old"')
    assert (stale.status_code, stale.content) == (200, SITE["photo.png"])


async def test_the_manifest_rules(client: httpx2.AsyncClient) -> None:
    """Fallback, redirects, headers, entry and 404 page are as the manifest says, from the moment it is changed."""
    manifest = {
        "entry": "about.html",
        "spaFallback": True,
        "notFound": "plain.css",
        "headers": [
            {"path": "/assets/*", "set": {"cache-control": "no-store", "x-mine": "1"}},
            {"path": "/", "set": {"content-security-policy": "default-src 'none'"}},
        ],
        "redirects": [
            {"from": "/old/*", "to": "/new/*", "status": 308},
            {"from": "/gone", "to": "https://example.com/there"},
            {"from": "/any/*", "to": "/*"},
            {"from": "/part", "to": "/app#part"},
            {"from": "/own", "to": "/app?mine=1"},
        ],
    }
    mine, slug = await deployed(client, manifest)
    root = await visit(client, slug)
    assert (root.content, root.headers["content-security-policy"]) == (SITE["about.html"], "default-src 'none'")
    deep = await visit(client, slug, "/users/7")
    assert (deep.status_code, deep.content) == (200, SITE["about.html"])
    missing = await visit(client, slug, "/users/7.js")
    assert (missing.status_code, missing.content) == (404, SITE["plain.css"])
    script = await visit(client, slug, "/assets/app-1a2b3c4d.js")
    assert (script.headers["cache-control"], script.headers["x-mine"]) == ("no-store", "1")
    for path, status, place in (
        ("/old/a/b?x=1", 308, "/new/a/b?x=1"),
        ("/gone", 307, "https://example.com/there"),
        ("/part?x=1", 307, "/app?x=1#part"),
        ("/own?x=1", 307, "/app?mine=1"),
        ("/old/%0d%0aset-cookie:a", 400, None),
        ("/old/%C3%A9", 308, "/new/%C3%A9"),
    ):
        moved = await visit(client, slug, path)
        assert (moved.status_code, moved.headers.get("location")) == (status, place)
    assert (await visit(client, slug, "/any//evil.example")).headers.get("location") is None
    await client.put(f"/v1/apps/{slug}", json={"manifest": {}}, headers=mine.bearer)
    assert (await visit(client, slug)).content == SITE["index.html"]
    assert (await visit(client, slug, "/users/7")).status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        *("/../secret", "/%2e%2e/secret", "/a/%2e%2e/index.html", "//evil.example/", "/docs//", "/index.html%00", "/a%2fb", "/a%5cb"),
        *("/a\\b", "/%zz", "/%ff", "/./index.html", "/%0a"),
    ],
)
async def test_a_path_that_confuses(gateway: Gateway, client: httpx2.AsyncClient, slug: str, path: str) -> None:
    """A path that another server could read another way is 400 or 404, and never a file."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {slug}.localhost\r\nConnection: close\r\n\r\n".encode())
    head = await reader.readline()
    assert head.split()[1] in (b"400", b"404")
    writer.close()


async def test_hosts_that_confuse(gateway: Gateway, client: httpx2.AsyncClient) -> None:
    """Two hosts, a host in the target, an unknown one: never another's files, and an app's name anywhere keeps the API away."""
    mine, slug = await deployed(client)
    for lines, statuses in (
        (f"GET / HTTP/1.1\r\nHost: {slug}.localhost\r\nHost: 127.0.0.1\r\n", (b"400",)),
        (f"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: {slug}.localhost\r\n", (b"400",)),
        (f"GET /v1/apps HTTP/1.1\r\nHost: {slug}.localhost.:8000\r\nAuthorization: {mine.bearer['Authorization']}\r\n", (b"404",)),
        (f"GET /v1/apps HTTP/1.1\r\nHost: x@{slug}.localhost\r\nAuthorization: {mine.bearer['Authorization']}\r\n", (b"400", b"404", b"421")),
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(f"{lines}Connection: close\r\n\r\n".encode())
        assert (await reader.readline()).split()[1] in statuses, lines
        writer.close()


async def test_versions_rollback_kill_and_deletion_are_seen_at_once(client: httpx2.AsyncClient) -> None:
    """The next request sees a switch, a rollback, the kill switch and a deletion; a version's own address stays what it was."""
    mine, slug = await deployed(client)
    await deploy(client, mine, slug, {"index.html": b"two"})
    assert (await visit(client, slug)).content == b"two"
    assert (await visit(client, f"{slug}--v1")).content == SITE["index.html"]
    old = await visit(client, f"{slug}--v1", "/plain.css")
    assert (old.headers["x-robots-tag"], old.headers["cache-control"]) == ("noindex", "public, max-age=31536000, immutable")
    assert (await visit(client, slug, "/assets/app-1a2b3c4d.js")).content == SCRIPT  # a page from before may still want it
    assert (await visit(client, slug, "/plain.css")).status_code == 404
    document = "query ($slug: Slug!) { app(slug: $slug) { id deployments(first: 5) { nodes { id version live } } } }"

    async def graphql(text: str, **variables: object) -> dict[str, object]:
        answer = (await client.post("/graphql", json={"query": text, "variables": variables}, headers=mine.bearer)).json()
        assert "errors" not in answer, answer
        data: dict[str, object] = answer["data"]
        return data

    app: dict[str, object] = (await graphql(document, slug=slug))["app"]  # type: ignore[assignment]  # as the document asks
    (_, first) = app["deployments"]["nodes"]  # type: ignore[index]  # as above
    back = "mutation ($id: ID!) { deploymentRollback(input: { id: $id }) { app { liveDeployment { version url } } userErrors { code } } }"
    done = await graphql(back, id=first["id"])
    assert done["deploymentRollback"]["app"]["liveDeployment"]["version"] == 1  # type: ignore[index]  # as above
    assert (await visit(client, slug)).content == SITE["index.html"]
    switch = "mutation ($id: ID!, $on: Boolean!) { appUpdate(input: { id: $id, suspended: $on }) { userErrors { code } } }"
    await graphql(switch, id=app["id"], on=True)
    assert [(await visit(client, host)).status_code for host in (slug, f"{slug}--v1")] == [503, 503]
    await graphql(switch, id=app["id"], on=False)
    assert (await visit(client, slug)).status_code == 200
    assert (await client.delete(f"/v1/apps/{slug}", headers=mine.bearer)).status_code == 204
    assert [(await visit(client, host)).status_code for host in (slug, f"{slug}--v1")] == [404, 404]


async def test_what_was_answered_before_is_answered_again_alike(client: httpx2.AsyncClient, slug: str, gateway: Gateway) -> None:
    """The second answer to the same question, which leaves without a door, is the first but for its id; so for HEAD, 304, each coding, and pipelined."""
    for path, headers in (
        ("/", {}),
        ("/assets/app-1a2b3c4d.js", {"Accept_Encoding": "br"}),
        ("/assets/app-1a2b3c4d.js", {"Accept_Encoding": "gzip"}),
        ("/assets/app-1a2b3c4d.js", {}),
        ("/photo.png?v=1", {"If_None_Match": "*"}),
    ):
        first, second = await visit(client, slug, path, **headers), await visit(client, slug, path, **headers)
        assert (second.status_code, second.content) == (first.status_code, first.content)
        before, after = ([field for field in answer.headers.multi_items() if field[0] not in ("x-request-id", "date")] for answer in (first, second))
        assert after == before
        assert second.headers["x-request-id"] != first.headers["x-request-id"]
        assert UUID(second.headers["x-request-id"]).version == 7
        head = await visit(client, slug, path, "HEAD", **headers)
        assert (head.status_code, head.content, head.headers["etag"]) == (first.status_code, b"", first.headers["etag"])
        part = await visit(client, slug, path, Range="bytes=0-0", **headers)
        assert part.status_code == (304 if first.status_code == 304 else 206)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    one = f"GET / HTTP/1.1\r\nHost: {slug}.localhost:8000\r\nAccept-Encoding: identity\r\n"
    writer.write(f"{one}\r\n{one}\r\n{one}Connection: close\r\n\r\n".encode())
    assert (await reader.read()).count(SITE["index.html"]) == 3
    writer.close()


async def test_an_address_that_was_answered_is_not_answered_for_another_host(client: httpx2.AsyncClient) -> None:
    """What is known for one app's origin is nothing to another's, to a version's or to the API's."""
    mine, slug = await deployed(client)
    other = await make_app(client, mine)
    await deploy(client, mine, other, {"index.html": b"other"})
    for _ in range(2):
        assert (await visit(client, slug)).content == SITE["index.html"]
        assert (await visit(client, other)).content == b"other"
        assert (await visit(client, f"{slug}--v1")).headers["x-robots-tag"] == "noindex"
        assert (await client.get("/", follow_redirects=False)).status_code == 303


async def test_a_page_is_told_where_the_gateway_is(client: httpx2.AsyncClient) -> None:
    """`/.well-known/tallygate.json` says id, base address and where tokens are had, null unless the manifest has them public; a file of the app's own wins."""
    base = str(client.base_url).rstrip("/")
    for manifest in ({}, {"publicTokens": True}):
        mine, slug = await deployed(client, manifest)
        tokens = f"{base}/v1/apps/{slug}/tokens" if manifest else None
        answer = await visit(client, slug, "/.well-known/tallygate.json")
        assert (answer.status_code, answer.json()) == (200, {"appId": slug, "baseUrl": base, "tokens": tokens})
        assert (answer.headers["content-type"], answer.headers["cache-control"]) == ("application/json", "no-cache")
    assert (await deploy(client, mine, slug, {"index.html": b"x", ".well-known/tallygate.json": b"{}"})).status_code == 200
    assert (await visit(client, slug, "/.well-known/tallygate.json")).content == b"{}"


async def test_an_app_that_is_registered_again_counts_its_versions_on(client: httpx2.AsyncClient) -> None:
    """What a version's address showed may be kept for a year, so that no later app of the name has that address: it is nothing's, and the next version is."""
    mine, slug = await deployed(client)
    first = await visit(client, f"{slug}--v1", "/plain.css")
    assert (first.status_code, first.headers["cache-control"]) == (200, "public, max-age=31536000, immutable")
    assert (await client.delete(f"/v1/apps/{slug}", headers=mine.bearer)).status_code == 204
    assert (await client.post("/v1/apps", json={"appId": slug, "name": "Again"}, headers=mine.bearer)).status_code == 201
    again = await deploy(client, mine, slug, {**SITE, "plain.css": b"b{}"})
    assert (again.status_code, again.json()["version"]) == (200, 2)
    assert (await visit(client, f"{slug}--v1", "/plain.css")).status_code == 404
    assert (await visit(client, f"{slug}--v2", "/plain.css")).content == b"b{}"
    assert (await visit(client, slug, "/plain.css")).content == b"b{}"
