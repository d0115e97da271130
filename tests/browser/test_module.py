"""The JavaScript module in a real page, whose own back end makes its tokens: how it keeps them, and how it reads what streams."""

import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest

from domain.access import client_tokens
from domain.access.callers import Caller
from domain.apps import registry
from domain.apps.registry import AppChanges, AppView, NewApp
from embedded.processes import Kept
from tests.apps.deploying import fresh
from tests.support import upstream as scripted
from tests.support.chromium import Browser, Page, PageError
from tests.support.gateway import ROOT, Gateway, free_port
from tests.support.upstream import Upstream
from tests.support.world import Tenant, tenant

pytestmark = pytest.mark.anyio

SETUP = """
const module = await import("/tallygate.js");
Object.assign(globalThis, module);
globalThis.about = await (await fetch("/.well-known/tallygate.json")).json();
globalThis.CHAT = "/v1/chat/completions";
globalThis.hello = { model: "echo", max_tokens: 100, messages: [{ role: "user", content: "Hello" }] };
globalThis.counting = () => {
  const source = async () => { source.count += 1; return (await fetch("/token", { method: "POST" })).json(); };
  source.count = 0;
  return source;
};
globalThis.thrown = async (promise) => { try { await promise; return null; } catch (error) { return { ...error, name: error.name, message: error.message }; } };
globalThis.all = async (stream) => { const found = []; for await (const each of stream) found.push(each); return found; };
"""


@dataclass(frozen=True, slots=True)
class Site:
    """A page of an app with a back end of its own."""

    page: Page
    of: Tenant
    app: AppView

    async def run(self, body: str) -> object:
        """Run the body of an asynchronous function in the page, and return its value."""
        return await self.page.run(f"(async () => {{ {body} }})()")

    async def revoke(self) -> int:
        """Revoke every token of the app."""
        return await client_tokens.revoke_of_app(self.of.caller(), self.app.id)


@pytest.fixture(scope="session")
async def back_end(gateway: Gateway, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[str, Tenant, AppView]]:
    """The example's back end in a process of its own, for an app of a workspace with credit: its origin, the workspace, the app."""
    of, port = await tenant(credit_microusd=50_000_000), free_port()
    origin = f"http://localhost:{port}"
    made = await registry.create(of.caller(), NewApp(fresh(), "With a back end"))
    app = await registry.update(of.caller(), made.id, AppChanges(manifest={"allowedOrigins": [origin]}))
    environment = {"PATH": os.environ["PATH"], "TALLYGATE_BASE_URL": gateway.url, "TALLYGATE_API_KEY": of.secret, "APP_ID": app.slug, "PORT": str(port)}
    log = tmp_path_factory.mktemp("back-end") / "log"
    with log.open("wb") as output:
        started = Kept([sys.executable, ROOT / "examples" / "chat" / "back_end.py"], steps=(("TERM", 5.0),), env=environment, output=output, errors=output)
    async with httpx2.AsyncClient(timeout=60) as client:
        while True:
            assert started.poll() is None, Path(log).read_text()
            try:
                await client.get(origin)
                break
            except httpx2.TransportError:
                continue
    yield origin, of, app
    started.stop()


@pytest.fixture
async def site(browser: Browser, back_end: tuple[str, Tenant, AppView]) -> Site:
    """The back end's page with the module loaded."""
    origin, of, app = back_end
    opened = Site(await browser.open(f"{origin}/"), of, app)
    await opened.run(SETUP)
    return opened


async def test_the_chat_with_a_back_end(site: Site) -> None:
    """The same page works unchanged with tokens of its own back end, bound to the key that this holds, at an origin of the manifest."""
    await site.page.click("#message")
    await site.page.type("Hello back end")
    await site.page.press_enter()
    await site.page.until("document.querySelector('#talk .assistant')?.textContent === 'Hello back end'")
    caller = Caller(at=datetime.now(UTC), workspace_id=site.of.workspace_id, name="key", scopes=site.of.key.scopes, key_id=site.of.key.id)
    assert await client_tokens.revoke_of_key(caller, site.of.key.id) >= 1
    assert site.page.faults == []


async def test_calls_share_one_token(site: Site) -> None:
    """Twenty calls at once, and those after them, cost one token; a call's own header fields and status are what fetch gives."""
    told = await site.run("""
        const mint = counting(), tallygate = await connect({ tokens: mint });
        const answers = await Promise.all(Array.from({ length: 20 }, () => tallygate.post(CHAT, hello)));
        const response = await tallygate.fetch(CHAT, { method: "POST", body: JSON.stringify(hello), headers: { "content-type": "application/json" } });
        return [mint.count, new Set(answers.map((each) => each.choices[0].message.content)).size, response.status, response.headers.get("x-tallygate-model"),
                Number(response.headers.get("x-tallygate-charge-microusd")) > 0, response.headers.get("x-request-id") !== null];
    """)
    assert told == [1, 1, 200, "echo", True, True]


async def test_a_token_is_renewed_before_it_ends(site: Site) -> None:
    """Its last fifth is time to renew it, for which nobody waits; one that is over is waited for; a visitor's clock that is wrong changes nothing."""
    told = await site.run("""
        const real = Date.now;
        try {
          Date.now = () => real() + 9_000_000_000;  // more than three months fast, all along
          const mint = counting(), tallygate = new Tallygate(about.baseUrl, mint);
          const first = await tallygate.token(), found = [mint.count];
          Date.now = () => real() + 9_000_000_000 + 470_000;
          found.push(await tallygate.token() === first, mint.count);
          Date.now = () => real() + 9_000_000_000 + 490_000;
          found.push(await tallygate.token() === first, await tallygate.token() === first);
          while (await tallygate.token() === first) await new Promise((wake) => setTimeout(wake, 5));
          const second = await tallygate.token();
          found.push(mint.count);
          Date.now = () => real() + 9_000_000_000 + 490_000 + 599_000;
          const third = await tallygate.token();
          found.push(third !== second, mint.count, (await tallygate.post(CHAT, hello)).choices[0].message.content);
          return found;
        } finally { Date.now = real; }
    """)
    assert told == [1, True, 1, True, True, 2, True, 3, "Hello"]


async def test_a_refused_token_is_replaced_once(site: Site) -> None:
    """Calls whose token was revoked are sent again with one new token for all of them; a second 401 is the caller's to see."""
    await site.run("globalThis.mint = counting(); globalThis.tallygate = new Tallygate(about.baseUrl, mint); await tallygate.post(CHAT, hello);")
    assert await site.revoke() >= 1
    told = await site.run("""
        const answers = await Promise.all([1, 2, 3].map(() => tallygate.post(CHAT, hello)));
        return [answers.map((each) => each.choices[0].message.content), mint.count];
    """)
    assert told == [["Hello", "Hello", "Hello"], 2]
    await site.run("""
        const stale = await mint();
        globalThis.late = new Tallygate(about.baseUrl, async () => { late.count = (late.count ?? 0) + 1; return stale; });
    """)
    await site.revoke()
    told = await site.run("const error = await thrown(late.post(CHAT, hello)); return [error.name, error.status, error.type, error.requestId !== null, late.count];")
    assert told == ["TallygateError", 401, "invalid_request_error", True, 2]


async def test_refusals_of_the_mint(site: Site) -> None:
    """What the mint says is what the caller is told; after a Retry-After it is not asked again before that time, and a token that works goes on."""
    told = await site.run("""
        let count = 0;
        const busy = () => { count += 1; throw new TallygateError("Slow down.", { status: 429, retryAfterSeconds: 60 }); };
        const tallygate = new Tallygate(about.baseUrl, async () => busy());
        const errors = [await thrown(tallygate.token()), await thrown(tallygate.post(CHAT, hello))];
        const gone = await thrown(new Tallygate(about.baseUrl, "/nothing-here").token());
        const off = await thrown(connect({ baseUrl: about.baseUrl }).then((found) => found.token()));
        const left = new AbortController();
        left.abort();
        return [errors.map((each) => [each.status, each.message]), count, gone.status, off, (await thrown(tallygate.token({ signal: left.signal }))).name];
    """)
    assert told == [[[429, "Slow down."]] * 2, 1, 403, None, "AbortError"]


async def test_a_stream_and_its_receipt(site: Site) -> None:
    """Events of both dialects arrive parsed and in order, and the receipt before the end; a refusal before the stream is thrown with its facts."""
    told = await site.run("""
        const tallygate = await connect(), receipts = [];
        const chat = await all(tallygate.stream(CHAT, hello, { onReceipt: (each) => receipts.push(each) }));
        const messages = await all(tallygate.stream("/v1/messages", hello, { onReceipt: (each) => receipts.push(each) }));
        const bad = await thrown(all(tallygate.stream(CHAT, { model: "nobody", messages: [] })));
        return [chat.map((each) => each.choices[0]?.delta.content ?? "").join(""), messages.map((each) => each.delta?.text ?? "").join(""), messages.at(-1).type,
                receipts.map((each) => [each.model, each.charge_microusd > 0]), [bad.status, bad.requestId !== null]];
    """)
    assert told == ["Hello", "Hello", "message_stop", [["echo", True], ["echo", True]], [404, True]]


async def test_a_stream_that_ends_badly_or_early(site: Site, provider: Upstream) -> None:
    """An upstream that is cut in the middle is thrown as what the gateway says of it, after what came; whoever leaves the loop, or aborts, ends the call."""
    provider.script(scripted.stream(scripted.openai_stream(("Hello", " world"), end=False), then=scripted.cut))
    told = await site.run("""
        const tallygate = await connect(), found = [];
        const error = await thrown((async () => { for await (const each of tallygate.stream(CHAT, { ...hello, model: "gpt-5.5" })) found.push(each); })());
        return [found.map((each) => each.choices[0]?.delta.content ?? "").join(""), error.name, error.status, error.message.length > 10];
    """)
    assert told == ["Hello world", "TallygateError", 0, True]
    provider.script(scripted.stream(scripted.openai_stream(("Hello", " world"), end=False), then=scripted.hang))
    told = await site.run("""
        const tallygate = await connect(), leaving = new AbortController();
        for await (const each of tallygate.stream(CHAT, { ...hello, model: "gpt-5.5" })) break;
        const aborted = (async () => { for await (const each of tallygate.stream(CHAT, { ...hello, model: "gpt-5.5" }, { signal: leaving.signal })) leaving.abort(); })();
        return (await thrown(aborted)).name;
    """)
    assert told == "AbortError"


async def test_events_however_they_are_cut(site: Site) -> None:
    """The same events come out of an event stream cut at any byte, with any of the three line ends, comments, several data lines and letters of several
    bytes; one without its empty line is not given."""
    told = await site.run(r"""
        const written = (end) => "\ufeff: tallygate {}" + end + "event: a" + end + "data: é" + end + "data:  two🙂" + end + end + "id: 1" + end + "data" + end + end
          + "event: none" + end + end + ":" + end + "data: [1]" + end + "retry: 5" + end + end + "data: cut";
        const wanted = JSON.stringify([[{ event: "a", data: "é\n two🙂" }, { event: "message", data: "" }, { event: "message", data: "[1]" }], ["tallygate {}", ""]]);
        let wrong = 0, tried = 0;
        for (const end of ["\n", "\r\n", "\r"]) {
          const bytes = new TextEncoder().encode(written(end));
          const cuts = [[], ...Array.from(bytes.keys(), (place) => [place]), Array.from(bytes.keys())];
          for (const places of cuts) {
            const parts = [0, ...places].map((from, at) => bytes.slice(from, places[at] ?? bytes.length));
            const body = new ReadableStream({ start(to) { for (const part of parts) if (part.length) to.enqueue(part); to.close(); } });
            const comments = [];
            const found = await all(events(body, (comment) => comments.push(comment)));
            tried += 1;
            if (JSON.stringify([found, comments]) !== wanted) wrong += 1;
          }
        }
        return [wrong, tried > 200];
    """)
    assert told == [0, True]


async def test_a_token_goes_to_its_gateway_only(site: Site) -> None:
    """A path that would lead elsewhere is refused before anything is sent."""
    told = await site.run("""
        const mint = counting(), tallygate = new Tallygate(about.baseUrl, mint), found = [];
        for (const path of ["https://evil.example/", "//evil.example/", "v1/models", "@evil.example/"]) found.push((await thrown(tallygate.fetch(path))).name);
        return [found, mint.count];
    """)
    assert told == [["TypeError"] * 4, 0]
    with pytest.raises(PageError):
        await site.run("throw new Error('a fault of a page is a fault of its test')")
