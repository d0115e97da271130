"""Several upstreams behind one name: who is asked, who is asked next, what each try leaves in the books, and what a customer never hears."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest

from domain.access import keys
from domain.access.keys import NewKey
from domain.money import catalogue
from domain.money.catalogue import ModelEntry, make_row
from models import database
from models.enums import ApiKeyMode, Bucket, ModelCapability
from tests.conftest import PROVIDER_KEY, Suite
from tests.support import upstream as scripted
from tests.support.books import calls_of, only_call, quiet, settled
from tests.support.calling import CLAUDE, GPT, bearer, said, session, until
from tests.support.gateway import Gateway, free_port
from tests.support.upstream import Exchange, Script, Upstream
from tests.support.world import TESTS, Tenant, tenant

pytestmark = pytest.mark.anyio

CREDIT = 10_000_000
ERROR_FIRST = scripted.stream([scripted.anthropic_event({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})])


def _told(status: int, **error: object) -> Script:
    return scripted.status(status, {"type": "error", "error": {"message": "of the operator", **error}})


FAULTS: dict[str, Script] = {
    "529": scripted.status(529),
    "503": scripted.status(503),
    "500": scripted.status(500),
    "429": scripted.status(429, headers={"retry-after": "30"}),
    "401": scripted.status(401),
    "402": scripted.status(402),
    "403": scripted.status(403),
    "404": scripted.status(404),
    "quota": _told(429, type="insufficient_quota", code="insufficient_quota"),
    "unpaid": _told(400, type="invalid_request_error", message="Your credit balance is too low to access the Anthropic API."),
    "fin": scripted.cut,
    "rst": scripted.reset,
    "garbage": scripted.garbage(),
    "silence": scripted.hang,
    "html": scripted.whole(b"<html>", headers={"content-type": "text/html"}),
    "error-first": ERROR_FIRST,
    "empty": scripted.stream([]),
    "cut-head": scripted.garbage(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"),
}
NEVER_IN_WHOLE = ("error-first", "empty", "cut-head")
OWN = ("stays", "refuses", "moves", "sticky", "kept", "adds-up", "dear", "probe", "bounded", "dialects", "waits", "hostile", "leaves")
"""A pair of upstreams and a model of its own for each test, because health is remembered."""


def _pair(name: str) -> str:
    second = {"sticky": "", "kept": "", "dialects": 'dialect = "openai"'}.get(name, "priority = 1")
    if name == "dialects":
        second += "\npriority = 1"
    first = {"bounded": "requests_per_minute = 1", "waits": "first_byte_seconds = 0.2"}.get(name, "first_byte_seconds = 1.0")
    dialect = "" if 'dialect = "openai"' in second else 'dialect = "anthropic"'
    pair = f"""
[upstreams.{name}-left]
dialect = "anthropic"
url = "{{left}}"
key_env = "SCRIPTED_KEY"
models = ["routed-{name}"]
rename = {{{{ "routed-{name}" = "left-{name}" }}}}
{first}
"""
    return pair + (
        ""
        if name == "bounded"
        else f"""
[upstreams.{name}-right]
{dialect}
url = "{{right}}"
key_env = "SCRIPTED_KEY"
models = ["routed-{name}"]
rename = {{{{ "routed-{name}" = "right-{name}" }}}}
{second}
"""
    )


CONFIGURATION = (
    "".join(_pair(name) for name in (*FAULTS, *OWN))
    + """
[upstreams.away]
dialect = "anthropic"
url = "http://127.0.0.1:{closed}"
models = ["routed-away"]

[upstreams.not-away]
dialect = "anthropic"
url = "{right}"
models = ["routed-away"]
priority = 1

[upstreams.cheap]
dialect = "anthropic"
url = "{left}"
models = ["claude-haiku-5-5"]

[[routers]]
name = "cheap-first"
targets = [{{ model = "claude-haiku-5-5" }}, {{ model = "routed-dear" }}]
"""
)


class Pair:
    """The two providers, and the gateway before them."""

    def __init__(self, gateway: Gateway, left: Upstream, right: Upstream) -> None:
        self.gateway, self.left, self.right = gateway, left, right

    async def ask(self, mine: Tenant, body: bytes, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Make a call of the Messages API; its status, header fields and body."""
        async with session() as client, client.post(self.gateway.url + CLAUDE.path, data=body, headers=bearer(mine.secret) | headers) as response:
            return response.status, {name.lower(): value for name, value in response.headers.items()}, await response.read()


@pytest.fixture(scope="module")
async def _routed(books: Suite) -> AsyncIterator[Pair]:
    async with scripted.serve() as left, scripted.serve() as right:
        for name in (*FAULTS, *OWN, "away"):
            rows = tuple(make_row(bucket, usd) for bucket, usd in ((Bucket.UNCACHED_INPUT, "4"), (Bucket.OUTPUT, "20")))
            entry = ModelEntry(f"routed-{name}", f"Routed {name}", "tests", rows, context_window=100_000, max_output_tokens=8000, capabilities=(ModelCapability.TOOLS,))
            await catalogue.enter(entry, source="tests", effective_from=datetime.now(UTC), actor=TESTS, at=datetime.now(UTC))
        path = books.folder / "routed.toml"
        path.write_text(CONFIGURATION.format(left=left.url, right=right.url, closed=free_port()))
        gateway = Gateway({**books.environment, "TALLYGATE_CONFIG": str(path), "SCRIPTED_KEY": PROVIDER_KEY}, books.folder / "routed.log")
        gateway.start()
        await gateway.ready()
        yield Pair(gateway, left, right)
        assert gateway.terminate() == 0, gateway.log.read_text(errors="replace")[-4000:]


@pytest.fixture
def routed(_routed: Pair) -> Pair:
    """Two providers that have seen nothing yet, and serve nothing."""
    for upstream in (_routed.left, _routed.right):
        upstream.requests.clear()
        upstream.script(scripted.status(500))
    return _routed


async def _attempts(mine: Tenant) -> list[dict[str, Any]]:
    return [dict(row) for row in await database.fetch("SELECT * FROM attempt WHERE workspace_id = $1 ORDER BY call_id, number", mine.workspace_id)]


# The next candidate.


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_try_that_fails_before_its_first_byte_is_followed_by_another(routed: Pair, fault: str, stream: bool) -> None:
    """F17, P2: whatever the first upstream does, the second answers; one hold, one charge, two attempts, and each upstream asked at most once."""
    if not stream and fault in NEVER_IN_WHOLE:
        return
    mine = await tenant(credit_microusd=CREDIT)
    routed.left.script(FAULTS[fault])
    routed.right.script(scripted.stream(CLAUDE.stream()) if stream else scripted.whole(CLAUDE.whole()))
    status, _, body = await routed.ask(mine, CLAUDE.body(model=f"routed-{fault}", stream=stream))
    assert status == 200, body
    assert (said(body) if stream else body) == (b"".join(CLAUDE.stream()) if stream else CLAUDE.whole())
    booked = await settled(await only_call(mine))
    assert (booked.charge_microusd, booked.outcome, booked.http_status, booked.error_code) == (CLAUDE.price(), "succeeded", 200, None)
    assert await quiet(mine) == CREDIT - CLAUDE.price()
    made = await _attempts(mine)
    assert [(row["number"], row["outcome"]) for row in made][-1] == (len(made), "succeeded")
    if made[0]["upstream"] == f"{fault}-left":  # by the second run of a fault it may be cooling down, and is then not asked at all
        stale = [row for row in made if row["error_code"] == "stale_connection"]  # each sending is an attempt of its own
        assert len(made) - len(stale) == 2
        assert (made[0]["outcome"], made[0]["cost_picousd"], made[0]["usage"]) == ("failed", 0, "{}")
        assert json.loads(routed.left.requests[0].body)["model"] == f"left-{fault}"
    # a kept connection that breaks at once, without a byte, counts as one that had been given up before: the request is sent again, once
    assert len(routed.left.requests) - (len(made) - 1) in ((-1, 0, 1) if fault in ("fin", "rst") else (0,))
    assert len(routed.right.requests) == 1
    assert (made[-1]["model"], made[-1]["cost_picousd"]) == (f"right-{fault}", CLAUDE.price() * 1_000_000)


async def test_an_upstream_that_nobody_listens_at_is_passed_over(routed: Pair) -> None:
    """A refused connection costs nothing but its attempt row, which has no first byte."""
    mine = await tenant(credit_microusd=CREDIT)
    routed.right.script(scripted.whole(CLAUDE.whole()))
    assert (await routed.ask(mine, CLAUDE.body(model="routed-away", stream=False)))[0] == 200
    first, second = await _attempts(mine)
    assert (first["upstream"], first["error_code"], first["first_byte_at"], second["upstream"]) == ("away", "upstream_broken", None, "not-away")


async def test_there_is_no_other_try_after_the_first_byte(routed: Pair) -> None:
    """P2: a stream that breaks after a word ends with an error event; the second upstream hears nothing, so nobody bills twice."""
    mine = await tenant(credit_microusd=CREDIT)
    routed.left.script(scripted.stream(CLAUDE.begin(), then=scripted.cut))
    _, _, body = await routed.ask(mine, CLAUDE.body(model="routed-stays"))
    CLAUDE.error_event(body)
    assert routed.right.requests == []
    booked = await settled(await only_call(mine))
    assert (booked.charge_microusd, booked.error_code) == (CLAUDE.price(25, 3), "upstream_cut")
    assert [row["number"] for row in await _attempts(mine)] == [1]


@pytest.mark.parametrize("code", [400, 409, 413, 422])
async def test_what_the_client_got_wrong_is_wrong_everywhere(routed: Pair, code: int) -> None:
    """A refusal of the request itself goes to the client byte for byte, and to no second upstream."""
    mine = await tenant(credit_microusd=CREDIT)
    told = b'{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long"}}'
    routed.left.script(scripted.whole(told, code))
    status, _, body = await routed.ask(mine, CLAUDE.body(model="routed-refuses"))
    assert (status, body) == (code, told)
    assert routed.right.requests == []


OPERATORS = ("401", "402", "403", "quota", "unpaid")


@pytest.mark.parametrize("fault", OPERATORS)
async def test_the_operators_account_is_never_the_customers(gateway: Gateway, provider: Upstream, fault: str) -> None:
    """A wrong key, an unpaid bill, a quota used up at the provider: with no other upstream, 502 in the dialect, not a word of the provider's."""
    for wire in (CLAUDE, GPT):
        mine = await tenant(credit_microusd=CREDIT)
        provider.script(FAULTS[fault])
        async with session() as client, client.post(gateway.url + wire.path, data=wire.body(), headers=bearer(mine.secret)) as response:
            body = await response.read()
            assert response.status == 502
        kind, message = wire.refusal(body)
        assert kind in ("api_error", "server_error")
        assert not any(word in message.lower() for word in ("scripted", "operator", "credit", "quota", "key"))
        assert await quiet(mine) == CREDIT


async def test_when_every_try_fails_the_last_answer_is_the_answer(routed: Pair) -> None:
    """Two upstreams, both at fault: the client is told of one overload, the books of two tries."""
    mine = await tenant(credit_microusd=CREDIT)
    routed.left.script(scripted.status(500))
    routed.right.script(scripted.status(529))
    status, _, body = await routed.ask(mine, CLAUDE.body(model="routed-moves"))
    assert status == 529
    CLAUDE.refusal(body)
    made = await _attempts(mine)
    assert [(row["number"], row["outcome"], row["http_status"], row["error_code"]) for row in made] == [
        (1, "failed", 500, "upstream_500"),
        (2, "failed", 529, "upstream_529"),
    ]
    assert await quiet(mine) == CREDIT


async def test_the_next_candidate_may_speak_another_dialect(routed: Pair) -> None:
    """The first upstream speaks Messages, the second Chat Completions: the client hears its own dialect either way."""
    mine = await tenant(credit_microusd=CREDIT)
    routed.left.script(scripted.status(500))
    routed.right.script(scripted.stream(GPT.stream()))
    status, _, body = await routed.ask(mine, CLAUDE.body(model="routed-dialects"))
    assert status == 200
    assert b"event: message_stop" in body
    assert b"Hello" in body
    assert routed.right.requests[0].path == "/v1/chat/completions"
    assert (await settled(await only_call(mine))).charge_microusd == CLAUDE.price()


async def test_a_client_that_leaves_before_the_first_byte_pays_nothing_and_moves_nobody(routed: Pair) -> None:
    """F16, F33: gone while the first upstream is silent: that connection is closed, no other is opened, the hold is released."""
    mine = await tenant(credit_microusd=CREDIT)
    routed.left.script(scripted.hang)
    async with session() as client:
        asking = asyncio.ensure_future(client.post(routed.gateway.url + CLAUDE.path, data=CLAUDE.body(model="routed-leaves"), headers=bearer(mine.secret)))
        request = await routed.left.arrival()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    await request.client_closed.wait()
    booked = await settled(await only_call(mine))
    assert (booked.outcome, booked.charge_microusd) == ("cancelled", 0)
    assert routed.right.requests == []
    assert await quiet(mine) == CREDIT


# Health.


async def test_a_provider_that_asks_to_be_left_alone_is_and_then_proves_itself(routed: Pair) -> None:
    """After a 429 with `retry-after` calls go right at once; when the second is over one goes left again, and its success keeps the next there."""
    mine = await tenant(credit_microusd=CREDIT)
    routed.left.script(scripted.status(429, headers={"retry-after": "1"}), scripted.whole(CLAUDE.whole()))
    routed.right.script(scripted.whole(CLAUDE.whole()))
    body = CLAUDE.body(model="routed-probe", stream=False)
    for _ in range(2):
        assert (await routed.ask(mine, body))[0] == 200
    assert (len(routed.left.requests), len(routed.right.requests)) == (1, 2)

    async def back() -> bool:
        await routed.ask(mine, body)
        return len(routed.left.requests) > 1

    await until(back, "a probe")
    seen = len(routed.right.requests)
    await routed.ask(mine, body)
    assert len(routed.right.requests) == seen


async def test_conversations_stay_where_their_cache_is(routed: Pair) -> None:
    """Two equal upstreams: each of twelve conversations is served by one of them in all its turns, named or told by how it begins; both serve some."""
    mine = await tenant(credit_microusd=CREDIT)
    for upstream in (routed.left, routed.right):
        upstream.script(scripted.whole(CLAUDE.whole()))
    homes: Counter[str] = Counter()
    for number in range(12):
        named: dict[str, object] = {"metadata": {"user_id": f"user_x_session_{number}"}} if number % 2 else {}
        turns = [{"role": "user", "content": f"Question {number}"}]
        seen: set[str] = set()
        for turn in range(3):
            before = len(routed.left.requests)
            body = json.dumps({"model": "routed-sticky", "max_tokens": 9, "messages": turns, **named}).encode()
            assert (await routed.ask(mine, body))[0] == 200
            seen.add("left" if len(routed.left.requests) > before else "right")
            turns = [*turns, {"role": "assistant", "content": "Hello world"}, {"role": "user", "content": f"And {turn}?"}]
        assert len(seen) == 1
        homes.update(seen)
    assert set(homes) == {"left", "right"}


async def test_a_call_goes_where_what_it_names_is_kept(routed: Pair) -> None:
    """Of two equal accounts, the one that gave the container is asked, however the conversation begins; for a model that it does not serve nobody is."""
    mine = await tenant(credit_microusd=CREDIT)
    homes: set[str] = set()
    for number in range(64):  # each conversation draws its account by lot: after these both have had some
        container = f"container_{uuid4().hex}"
        told = json.loads(CLAUDE.whole()) | {"container": {"id": container, "expires_at": "2026-11-22T12:00:00Z"}}
        routed.left.script(scripted.whole(json.dumps(told).encode()))
        routed.right.script(scripted.whole(json.dumps(told).encode()))
        seen = set()
        namings: tuple[dict[str, object], ...] = ({}, {"container": container}, {"container": {"id": container}})
        for turn, named in enumerate(namings):
            before = len(routed.left.requests)
            turns = [{"role": "user", "content": f"Question {number}.{turn}?"}]
            assert (await routed.ask(mine, json.dumps({"model": "routed-kept", "max_tokens": 9, "messages": turns, **named}).encode()))[0] == 200
            seen.add("left" if len(routed.left.requests) > before else "right")
        assert len(seen) == 1
        homes.update(seen)
        heard = len(routed.left.requests), len(routed.right.requests)
        status, _, refused = await routed.ask(mine, json.dumps({"model": "routed-stays", "max_tokens": 9, "messages": turns, "container": container}).encode())
        assert (status, json.loads(refused)["error"]["message"]) == (400, "container: what it names is kept by a provider that does not serve `routed-stays` here.")
        assert (len(routed.left.requests), len(routed.right.requests)) == heard
        if len(homes) == 2:
            break
    assert homes == {"left", "right"}


async def test_the_operators_own_bound_refuses_before_the_books_hear_of_it(routed: Pair) -> None:
    """One call a minute and no other upstream: the second is refused as overload, with when to come back, and leaves no call and no hold."""
    mine = await tenant(credit_microusd=CREDIT)
    routed.left.script(scripted.whole(CLAUDE.whole()))
    body = CLAUDE.body(model="routed-bounded", stream=False)
    assert (await routed.ask(mine, body))[0] == 200
    status, headers, told = await routed.ask(mine, body)
    assert (status, len(routed.left.requests), len(await calls_of(mine))) == (529, 1, 1)
    assert 1 <= int(headers["retry-after"]) <= 60
    CLAUDE.refusal(told)


async def test_waits_are_each_upstreams_own(routed: Pair) -> None:
    """An upstream with a fifth of a second to its first byte is given up after it, and not after the 600 seconds of the others."""
    mine = await tenant(credit_microusd=CREDIT)
    routed.left.script(scripted.hang)
    routed.right.script(scripted.whole(CLAUDE.whole()))
    assert (await routed.ask(mine, CLAUDE.body(model="routed-waits", stream=False)))[0] == 200
    first = (await _attempts(mine))[0]
    assert (first["error_code"], first["http_status"]) == ("upstream_timeout", 504)
    await routed.left.requests[0].client_closed.wait()


async def test_nothing_of_a_client_chooses_an_upstream(routed: Pair) -> None:
    """Host, forwarding fields, and every field of a body that other gateways read an address from: the configured upstream is asked, alone."""
    mine = await tenant(credit_microusd=CREDIT)
    routed.left.script(scripted.whole(CLAUDE.whole()))
    address = f"{routed.right.url}/v1"
    fields: dict[str, Any] = dict.fromkeys(("api_base", "base_url", "upstream", "url", "custom_llm_provider", "provider", "route", "target"), address)
    names = ("x-upstream", "x-target-url", "x-base-url", "x-forwarded-host", "x-original-url", "x-portkey-custom-host", "forwarded")
    headers: dict[str, str] = dict.fromkeys(names, address)
    status, _, _ = await routed.ask(mine, CLAUDE.body(model="routed-hostile", stream=False, **fields), **headers)
    assert status == 200
    assert (len(routed.left.requests), routed.right.requests) == (1, [])
    for name in ("hostile-right", address, "routed-hostile@right", "../routed-hostile"):
        assert (await routed.ask(mine, CLAUDE.body(model=name)))[0] == 404
    assert routed.right.requests == []


# What it costs.


async def test_the_hold_covers_the_dearest_candidate(routed: Pair) -> None:
    """A router of Haiku and a dear model: the hold is good for the dear one, the charge is Haiku's when Haiku answers, the dear one's when that does."""
    mine = await tenant(credit_microusd=CREDIT)
    body = CLAUDE.body(model="cheap-first", stream=False)
    routed.left.script(scripted.whole(CLAUDE.whole()))
    _, _, _ = await routed.ask(mine, body)
    first = await only_call(mine)
    routed.left.script(scripted.status(500))
    routed.right.script(scripted.whole(CLAUDE.whole()))
    assert (await routed.ask(mine, body))[0] == 200
    rows = await database.fetch("SELECT call_id, amount FROM hold WHERE workspace_id = $1 ORDER BY call_id", mine.workspace_id)
    assert [row["amount"] for row in rows] == [CLAUDE.counted(body) * 4 + 1000 * 20] * 2
    booked = [await settled(row["call_id"]) for row in rows]
    assert rows[0]["call_id"] == first
    assert [(line.model, line.charge_microusd) for line in booked] == [("claude-haiku-5-5", 8), ("routed-dear", CLAUDE.price())]
    made = [(row["upstream"], row["number"]) for row in await _attempts(mine)]
    assert made == [("cheap", 1), ("cheap", 1), ("dear-left", 2), ("dear-right", 3)]
    requested = await database.fetch_value("SELECT array_agg(DISTINCT requested_model) FROM usage_event WHERE workspace_id = $1", mine.workspace_id)
    assert requested == ["cheap-first"]


async def test_attempts_add_up_to_what_providers_bill(routed: Pair) -> None:
    """F17: forty calls over faults of every kind: the attempts' cost is the sum of what both providers served, to the last picodollar."""
    mine = await tenant(credit_microusd=CREDIT)
    billed: list[int] = []

    def serves(output_tokens: int) -> Script:
        async def script(exchange: Exchange) -> None:
            billed.append(25 * 4_000_000 + output_tokens * 20_000_000)
            await scripted.whole(CLAUDE.whole(output_tokens=output_tokens))(exchange)

        return script

    faults = [scripted.status(500), scripted.cut, scripted.garbage(), scripted.reset]
    routed.left.script(*(script for number in range(20) for script in (faults[number % 4], serves(number + 1))))
    routed.right.script(*(serves(100 + number) for number in range(40)))
    body = CLAUDE.body(model="routed-adds-up", stream=False)
    for _ in range(40):
        assert (await routed.ask(mine, body))[0] == 200
    await quiet(mine)
    cost, charge = (
        await database.fetch_value("SELECT sum(cost_picousd)::numeric FROM attempt WHERE workspace_id = $1", mine.workspace_id),
        await database.fetch_value("SELECT sum(charge_microusd)::numeric FROM usage_event WHERE workspace_id = $1", mine.workspace_id),
    )
    assert cost == Decimal(sum(billed))
    assert charge == Decimal(sum(billed)) / 1_000_000
    assert len(await calls_of(mine)) == 40


# Logical models.


async def test_auto_answers_with_the_cheapest_model_that_is_served(gateway: Gateway, provider: Upstream) -> None:
    """`auto` of the run's gateway is Haiku: that name goes upstream, its price is charged, and the record keeps both names."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.script(scripted.whole(CLAUDE.whole(input_tokens=1000, output_tokens=100)))
    async with session() as client:
        async with client.post(gateway.url + CLAUDE.path, data=CLAUDE.body(model="auto", stream=False, max_tokens=90_000), headers=bearer(mine.secret)) as response:
            assert response.status == 200
        asked = json.loads(provider.requests[0].body)
        assert (asked["model"], asked["max_tokens"]) == ("claude-haiku-5-5", 64_000)
        assert (await settled(await only_call(mine))).charge_microusd == 100 + 50
        async with client.get(f"{gateway.url}/v1/models", headers=bearer(mine.secret)) as response:
            assert "auto" in [row["id"] for row in (await response.json())["data"]]
        row = await database.fetch_row("SELECT requested_model, model FROM usage_event WHERE workspace_id = $1", mine.workspace_id)
        assert row is not None
        assert tuple(row) == ("auto", "claude-haiku-5-5")
        query = '{ model(name: "auto") { routing vendor routesTo { name } prices(first: 5) { nodes { id } } } models { name routing } }'
        async with client.post(f"{gateway.url}/graphql", json={"query": query}) as response:
            data = (await response.json())["data"]
    assert data["model"] == {
        "routing": True,
        "vendor": None,
        "routesTo": [{"name": "claude-haiku-5-5"}, {"name": "claude-opus-5-5"}, {"name": "gpt-5.5"}],
        "prices": {"nodes": []},
    }
    assert data["models"][0] == {"name": "auto", "routing": True}


async def test_auto_of_a_test_key_is_echo(gateway: Gateway) -> None:
    """A test key reaches `echo` and nothing else, so that code which asks for `auto` can be tried for free."""
    mine = await tenant(mode=ApiKeyMode.TEST)
    async with session() as client, client.post(gateway.url + GPT.path, data=GPT.body("Say it.", model="auto", stream=False), headers=bearer(mine.secret)) as response:
        assert response.status == 200
        assert (await response.json())["choices"][0]["message"]["content"] == "Say it."


async def test_a_key_may_be_held_to_a_logical_name(gateway: Gateway, provider: Upstream) -> None:
    """A key that may only use `auto` gets whatever that chooses, and is refused that same model by its own name."""
    mine = await tenant(credit_microusd=CREDIT)
    _, secret = await keys.create(mine.caller(), NewKey(name="auto only", allowed_models=("auto",)), offered=("auto",))
    assert secret is not None
    provider.script(scripted.whole(CLAUDE.whole()))
    async with session() as client:
        for model, expected in (("auto", 200), ("claude-haiku-5-5", 403)):
            async with client.post(gateway.url + CLAUDE.path, data=CLAUDE.body(model=model, stream=False), headers=bearer(secret)) as response:
                assert response.status == expected


async def test_a_router_chooses_and_falls_back_within_the_keys_models(gateway: Gateway, provider: Upstream) -> None:
    """A key held to Opus that asks for `auto` gets Opus, although Haiku is cheaper, and no other model when that fails; one held to nothing served gets 403."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.script(scripted.status(500), scripted.whole(CLAUDE.whole()))
    for models, expected in ((("claude-opus-5-5",), 502), (("claude-opus-5-5",), 200), (("claude-fable-5-2",), 403)):
        _, secret = await mine.mint(name=f"held to {models}", allowed_models=models)
        async with session() as client, client.post(gateway.url + CLAUDE.path, data=CLAUDE.body(model="auto", stream=False), headers=bearer(secret)) as response:
            assert response.status == expected
    assert {json.loads(request.body)["model"] for request in provider.requests} == {"claude-opus-5-5"}
    assert len(provider.requests) == 2
