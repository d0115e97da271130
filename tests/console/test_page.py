"""The door of /graphiql, over a real socket: paths reach it exactly as a client wrote them."""

import gzip
import http.client
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route

from console.page import Page

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; "
    "connect-src 'self'; worker-src 'self' blob:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
INDEX = b'<!doctype html><script type="module" src="/graphiql/assets/index-a1.js"></script>'
SCRIPT = b"console.log('built');\n" * 100


@dataclass(frozen=True)
class Answer:
    """One HTTP answer, its body undecoded."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Site:
    """A running server of the page, and the folder that it serves."""

    port: int
    dist: Path

    def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """Send one request with the path exactly as given; underscores in header names stand for hyphens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
            response = connection.getresponse()
            return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
        finally:
            connection.close()

    def build(self) -> None:
        """Put a small finished build into the folder."""
        assets = self.dist / "assets"
        assets.mkdir(parents=True)
        (assets / "index-a1.js").write_bytes(SCRIPT)
        (assets / "index-a1.js.br").write_bytes(b"brotli bytes")
        (assets / "index-a1.js.gz").write_bytes(gzip.compress(SCRIPT))
        (assets / "plain-b2.css").write_bytes(b"a{}")
        (self.dist / "index.html").write_bytes(INDEX)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    dist = tmp_path / "dist"
    page = Page(dist)
    app = Starlette(routes=[Route("/graphiql", page), Route("/graphiql/{path:path}", page)])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="off", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    yield Site(server.servers[0].sockets[0].getsockname()[1], dist)
    server.should_exit = True
    thread.join()


def test_before_the_build_the_page_says_that_the_api_is_served_and_how_the_page_is_built(site: Site) -> None:
    """Until there is a build, /graphiql is a notice that needs no script, is never cached and looks again by itself."""
    answer = site.ask("/graphiql")
    text = answer.body.decode()
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert "The API is being served." in text
    assert "/graphql" in text
    assert "python -m console.build" in text
    assert '<meta http-equiv="refresh" content="5">' in text
    assert "<script" not in text
    assert "The last attempt" not in text


def test_a_recorded_failure_is_shown_as_text(site: Site) -> None:
    """The sentence that the build left is shown, and nothing in it is taken for markup."""
    site.dist.mkdir()
    (site.dist / "failure.txt").write_text("The packages could not be installed: <b>offline</b>.")
    text = site.ask("/graphiql").body.decode()
    assert "The last attempt to build the page failed." in text
    assert "The packages could not be installed: &lt;b&gt;offline&lt;/b&gt;." in text


def test_a_finished_build_appears_without_a_restart(site: Site) -> None:
    """The server that showed the notice serves the built page once it is there, at both spellings of its path, to be asked for again."""
    assert b"not built yet" in site.ask("/graphiql").body
    site.build()
    for path in ("/graphiql", "/graphiql/", "/graphiql?query=1"):
        answer = site.ask(path)
        assert (answer.status, answer.body) == (200, INDEX)
        assert answer.headers["cache-control"] == "no-cache"
        assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"


def test_an_old_page_stays_while_a_failure_is_recorded(site: Site) -> None:
    """A failed rebuild does not take the working page away."""
    site.build()
    (site.dist / "failure.txt").write_text("Vite could not build the page: exit status 1.")
    assert site.ask("/graphiql").body == INDEX


@pytest.mark.parametrize(
    ("accept_encoding", "encoding", "body"),
    [
        ("gzip, deflate, br", "br", b"brotli bytes"),
        ("BR;q=0.1", "br", b"brotli bytes"),
        ("gzip", "gzip", None),
        ("br;q=0, gzip;q=0.5", "gzip", None),
        ("br; q=0.000, gzip;q=0", None, SCRIPT),
        ("identity", None, SCRIPT),
        ("", None, SCRIPT),
    ],
)
def test_assets_are_immutable_and_come_in_the_best_encoding_accepted(
    site: Site, accept_encoding: str, encoding: str | None, body: bytes | None
) -> None:
    """A hashed asset is cached for a year, keeps its own type whatever its encoding, and never comes in one that the client refused."""
    site.build()
    answer = site.ask("/graphiql/assets/index-a1.js", accept_encoding=accept_encoding)
    assert answer.status == 200
    assert answer.headers.get("content-encoding") == encoding
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["vary"] == "accept-encoding"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert (gzip.decompress(answer.body) if body is None else answer.body) == (SCRIPT if body is None else body)


def test_an_asset_that_was_not_compressed_comes_as_it_is(site: Site) -> None:
    """Small assets have no compressed variants and are served plain."""
    site.build()
    answer = site.ask("/graphiql/assets/plain-b2.css", accept_encoding="br, gzip")
    assert (answer.status, answer.body) == (200, b"a{}")
    assert "content-encoding" not in answer.headers
    assert answer.headers["content-type"] == "text/css; charset=utf-8"


@pytest.mark.parametrize("path", ["/graphiql", "/graphiql/assets/index-a1.js"])
def test_head_answers_as_get_without_a_body(site: Site, path: str) -> None:
    """HEAD has the status and the length of GET and no body, before the build and after it."""
    for built in (False, True):
        if built:
            site.build()
        get, head = site.ask(path), site.ask(path, "HEAD")
        assert head.status == get.status
        assert head.headers["content-length"] == str(len(get.body))
        assert head.body == b""


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_other_methods_are_refused(site: Site, method: str) -> None:
    """The page is only read."""
    answer = site.ask("/graphiql", method)
    assert answer.status == 405
    assert answer.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    "path",
    [
        "/graphiql/assets/../index.html",
        "/graphiql/assets/../../secret.js",
        "/graphiql/assets/..%2f..%2fsecret.js",
        "/graphiql/assets/%2e%2e/%2e%2e/secret.js",
        "/graphiql/assets/..%5c..%5csecret.js",
        "/graphiql/assets//etc/passwd",
        "/graphiql/assets/%00index-a1.js",
        "/graphiql/assets/index-a1.js%0a",
        "/graphiql/assets/.hidden.js",
        "/graphiql/assets/index-a1.js.br",
        "/graphiql/assets/notes.txt",
        "/graphiql/assets/folder.js",
        "/graphiql/assets/missing-c3.js",
        "/graphiql/assets/",
        "/graphiql/index.html",
        "/graphiql/build.json",
        "/graphiql/build.log",
        "/graphiql/../graphiql",
    ],
)
def test_nothing_but_built_assets_can_be_named(site: Site, path: str) -> None:
    """No spelling of a path reaches a file outside the assets, a hidden one, a compressed one by itself, or the build's own records."""
    site.build()
    (site.dist.parent / "secret.js").write_text("secret")
    (site.dist / "build.json").write_text("secret")
    (site.dist / "build.log").write_text("secret")
    (site.dist / "assets" / ".hidden.js").write_text("secret")
    (site.dist / "assets" / "notes.txt").write_text("secret")
    (site.dist / "assets" / "folder.js").mkdir()
    answer = site.ask(path)
    assert answer.status == 404
    assert b"secret" not in answer.body
