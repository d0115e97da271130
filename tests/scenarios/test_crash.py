"""A gateway that is killed with -9 while calls are under way loses no money and invents none (M4, F5, F20).

One process is killed once while calls stand at six points, in both dialects; another process over the same database then ends what the
killed one left. Every test looks at one promise of what came out.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import uuid4

import aiohttp
import asyncpg
import pytest

from domain.access import client_tokens, secrets
from domain.access.client_tokens import NewToken
from domain.apps import registry, wallets
from domain.apps.addresses import Addresses
from domain.apps.registry import AppChanges, NewApp
from domain.money import grants, ledger
from domain.money.catalogue import Book
from domain.money.grants import NewGrant
from domain.serving.calls import Calls, Opening
from models import database
from models.enums import ApiKeyKind, Scope
from models.ids import uuid7
from tests.conftest import SECRET
from tests.support import upstream as scripted
from tests.support.books import books_of, line, only_call, open_holds, progress_of, quiet, settled
from tests.support.calling import WIRES, Wire, bearer, by_word, session, until
from tests.support.gateway import Gateway
from tests.support.installation import Installation, installation
from tests.support.servers import Servers
from tests.support.upstream import Request, Script
from tests.support.world import Tenant, subscribed, tenant

pytestmark = pytest.mark.anyio

CREDIT = 1_000_000
ORIGIN = "https://shop.example"
POINTS = ("after_admit", "first_byte", "mid_stream", "before_settle", "inside_settle", "after_settle")
PAYERS = ("wallet", "grant", "quota")
PAID_AT = ("after_admit", "mid_stream")
WALLET = CREDIT // 2
EACH = pytest.mark.parametrize("wire", WIRES, ids=[wire.name for wire in WIRES])


@dataclass
class Call:
    """One call at one point: who makes it, and what its client has seen so far."""

    wire: Wire
    word: str
    tenant: Tenant
    seen: bytearray = field(default_factory=bytearray)
    started: asyncio.Event = field(default_factory=asyncio.Event)
    task: "asyncio.Task[None] | None" = None
    progress: dict[str, Any] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    road: str = ""

    @property
    def body(self) -> bytes:
        """The request: its text names the script that answers it."""
        return self.wire.body(f"<{self.word}>")

    def price_of_progress(self) -> int:
        """Return what the kept progress costs, in microdollars."""
        kept = (self.progress or {}).get("quantities", {})
        assert set(kept) <= {"uncached_input", "output"}
        return self.wire.price(kept.get("uncached_input", 0), kept.get("output", 0))


@dataclass
class Aftermath:
    """What a kill left behind, after another process has ended it."""

    over: Installation
    calls: dict[tuple[str, str], Call]
    gateway: Gateway


async def _read(client: aiohttp.ClientSession, gateway: Gateway, call: Call) -> None:
    """Make a call and read until it ends or breaks."""
    try:
        async with client.post(gateway.url + call.road + call.wire.path, data=call.body, headers=bearer(call.tenant.secret) | call.headers) as response:
            async for part in response.content.iter_any():
                call.seen += part
                call.started.set()
    except aiohttp.ClientError:
        pass


def _held(wire: Wire, go: asyncio.Event) -> Script:
    """Stream the beginning, and the rest when the test says so."""
    return scripted.held(wire.begin(), go, wire.rest())


def _first_only(wire: Wire) -> Script:
    return scripted.stream(wire.begin()[:1], then=scripted.hang)


async def _paid_by(payer: str, wire: Wire, point: str) -> Call:
    """Make a call that its end user's wallet, a grant or a quota pays, and nothing else could."""
    call = Call(wire, f"{point}-{payer}", await tenant(credit_microusd=CREDIT if payer == "wallet" else 0))
    mine = call.tenant
    if payer == "wallet":
        app = await registry.create(mine.caller(), NewApp(f"app-{uuid4().hex[:12]}", "App"))
        await registry.update(mine.caller(), app.id, AppChanges(wallet_markup=Decimal("1.25")))
        await wallets.adjust(mine.caller(), app.id, "ann", WALLET, None, "fill")
        made = await client_tokens.create(mine.caller(), NewToken(app_id=app.id, end_user="ann", allowed_origins=(ORIGIN,)), Addresses("http", "localhost", 8000))
        call.headers = {"authorization": f"Bearer {client_tokens.sign(SECRET, made)}", "origin": ORIGIN}
    elif payer == "grant":
        await grants.create(mine.caller(Scope.OPERATOR), mine.workspace_id, NewGrant(CREDIT, "launch", idempotency_key="launch"))
    else:
        await subscribed(mine, [{"resource": "tokens", "window": "24h", "limit": CREDIT}])
        _, secret = await mine.mint(kind=ApiKeyKind.SUBSCRIPTION)
        call.headers, call.road = bearer(secret), "/cline"
    return call


async def _kept_progress(call: Call) -> bool:
    kept = await progress_of(await only_call(call.tenant))
    return kept is not None and kept["quantities"].get("output") == 3


async def _waiting_settlements(admin: asyncpg.Connection) -> int:
    count: int = await admin.fetchval("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%settle_4(%' AND state = 'active' AND wait_event_type = 'Lock'")
    return count


async def _running_settlements(admin: asyncpg.Connection) -> int:
    count: int = await admin.fetchval("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%settle_4(%' AND state = 'active' AND pid <> pg_backend_pid()")
    return count


@pytest.fixture(scope="module")
async def aftermath(servers: Servers, template: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Aftermath]:
    """Bring calls to every point, kill the gateway, and let another one clear up."""
    servers.create_database("crash", template=template)
    async with (
        installation(servers, "crash", tmp_path_factory.mktemp("crash")) as over,
        books_of(over.dsn),
        over.superuser() as admin,
        session() as client,
    ):
        go: dict[str, asyncio.Event] = {point: asyncio.Event() for point in ("before_settle", "inside_settle")}
        scripts: dict[str, Script] = {}
        calls: dict[tuple[str, str], Call] = {}
        for wire in WIRES:
            made: dict[str, Script] = {
                "after_admit": scripted.hang,
                "first_byte": _first_only(wire),
                "mid_stream": scripted.stream(wire.begin(), then=scripted.hang),
                "before_settle": _held(wire, go["before_settle"]),
                "inside_settle": _held(wire, go["inside_settle"]),
                "after_settle": scripted.stream(wire.stream()),
            }
            for point in POINTS:
                scripts[f"{point}-{wire.name}"] = made[point]
                calls[wire.name, point] = Call(wire, f"{point}-{wire.name}", await tenant(credit_microusd=CREDIT))
        for payer in PAYERS:
            for point in PAID_AT:
                scripts[f"{point}-{payer}"] = scripts[f"{point}-{WIRES[0].name}"]
                calls[payer, point] = await _paid_by(payer, WIRES[0], point)
        over.upstream.script(by_word(scripts))
        gateway = await over.gateway()

        def at(point: str) -> list[Call]:
            return [call for (_, where), call in calls.items() if where == point]

        def begin(point: str) -> None:
            for call in at(point):
                call.task = asyncio.create_task(_read(client, gateway, call))

        async def asked(call: Call) -> Request | None:
            return next((request for request in over.upstream.requests if f"<{call.word}>".encode() in request.body), None)

        begin("after_settle")
        for call in at("after_settle"):
            assert call.task is not None
            await call.task
        for point in ("after_admit", "mid_stream", "before_settle", "inside_settle"):
            begin(point)
        for call in at("after_admit"):
            await until(partial(asked, call), "the upstream asked")
        for point in ("mid_stream", "before_settle", "inside_settle"):
            for call in at(point):
                await call.started.wait()
                await until(partial(_kept_progress, call), "progress of the two pieces kept")
        locked = admin.transaction()
        await locked.start()
        workspaces = [call.tenant.workspace_id for call in at("inside_settle")]
        await admin.fetch("SELECT FROM account WHERE kind = 'cash' AND workspace_id = ANY ($1) FOR NO KEY UPDATE", workspaces)
        os.kill(gateway.pid, signal.SIGSTOP)  # it meets both ends in one moment, so that both settlements are in one statement
        go["inside_settle"].set()
        for call in at("inside_settle"):
            request = await asked(call)
            assert request is not None
            await request.finished.wait()
        os.kill(gateway.pid, signal.SIGCONT)
        async with over.superuser() as watch:
            # one statement of settlements is under way at a time, so while it waits for our lock every later one waits in the process
            await until(lambda: _waiting_settlements(watch), "a settlement inside its statement")
            go["before_settle"].set()
            for call in at("before_settle"):
                request = await asked(call)
                assert request is not None
                await request.finished.wait()
            begin("first_byte")
            for call in at("first_byte"):
                await call.started.wait()
            gateway.kill()
            for call in calls.values():
                assert call.task is not None
                await call.task
                call.progress = await progress_of(await only_call(call.tenant))
            assert await open_holds() == 10 + len(PAYERS) * len(PAID_AT)
            await locked.rollback()

            async def statement_is_over() -> bool:
                return await _running_settlements(watch) == 0

            await until(statement_is_over, "the killed process's statement over")
        second = await over.gateway()

        async def no_hold_is_open() -> bool:
            return await open_holds() == 0

        await until(no_hold_is_open, "every hold closed")
        yield Aftermath(over, calls, second)


async def _outcome(aftermath: Aftermath, wire: Wire, point: str) -> tuple[Call, Any]:
    call = aftermath.calls[wire.name, point]
    booked = await settled(await only_call(call.tenant))
    assert await quiet(call.tenant) == CREDIT - booked.charge_microusd
    return call, booked


@EACH
async def test_after_admit_nothing_is_charged(aftermath: Aftermath, wire: Wire) -> None:
    """The upstream had the request and had answered nothing: the hold is released, the call is on record as failed, the charge is 0."""
    async with books_of(aftermath.over.dsn):
        call, booked = await _outcome(aftermath, wire, "after_admit")
        assert (booked.charge_microusd, booked.outcome, booked.error_code, booked.output_tokens) == (0, "failed", "interrupted", 0)
        assert bytes(call.seen) == b""


@EACH
async def test_at_the_first_byte_the_last_progress_is_charged(aftermath: Aftermath, wire: Wire) -> None:
    """The client had seen a first event: what was kept of it is charged and marked an estimate; nothing was, and nothing is."""
    async with books_of(aftermath.over.dsn):
        call, booked = await _outcome(aftermath, wire, "first_byte")
        assert (booked.charge_microusd, booked.token_source) == (call.price_of_progress(), "estimate")
        assert booked.charge_microusd <= wire.price(25, 1)
        assert call.wire.end not in call.seen


@EACH
async def test_in_mid_stream_the_kept_progress_is_charged(aftermath: Aftermath, wire: Wire) -> None:
    """Two pieces were delivered more than 2 s before the kill: all of them is charged, as an estimate, and the stream had no clean end."""
    async with books_of(aftermath.over.dsn):
        call, booked = await _outcome(aftermath, wire, "mid_stream")
        counted = 25 if wire.name == "anthropic" else wire.counted(call.body)
        assert (booked.input_tokens, booked.output_tokens, booked.token_source, booked.outcome) == (counted, 3, "estimate", "failed")
        assert booked.charge_microusd == wire.price(counted, 3) == call.price_of_progress()
        assert booked.model == wire.model
        assert b"Hello" in call.seen
        assert wire.end not in call.seen


@EACH
async def test_before_settle_only_what_followed_the_last_progress_is_missing(aftermath: Aftermath, wire: Wire) -> None:
    """The answer was whole and its settlement not yet sent: the last progress is charged as an estimate, and the client never saw an end."""
    async with books_of(aftermath.over.dsn):
        call, booked = await _outcome(aftermath, wire, "before_settle")
        assert booked.charge_microusd == call.price_of_progress() > 0
        assert (booked.output_tokens, booked.token_source) == (3, "estimate")
        assert wire.end not in call.seen


@EACH
async def test_inside_settle_the_statement_counts_once(aftermath: Aftermath, wire: Wire) -> None:
    """The statement was with the database when its process died: it is carried out whole, the sweep adds nothing, the client saw no end."""
    async with books_of(aftermath.over.dsn):
        call, booked = await _outcome(aftermath, wire, "inside_settle")
        assert (booked.charge_microusd, booked.token_source, booked.events) == (wire.price(), "provider", 1)
        assert wire.end not in call.seen


@EACH
async def test_after_settle_nothing_changes(aftermath: Aftermath, wire: Wire) -> None:
    """The client had seen the end: its charge was booked by then, and is booked once."""
    async with books_of(aftermath.over.dsn):
        call, booked = await _outcome(aftermath, wire, "after_settle")
        assert (booked.charge_microusd, booked.token_source, booked.outcome, booked.events) == (wire.price(), "provider", "succeeded", 1)
        assert wire.end in call.seen


@pytest.mark.parametrize("point", PAID_AT)
async def test_every_payer_keeps_what_was_not_used(aftermath: Aftermath, point: str) -> None:
    """F20: a wallet, a grant and a quota of a killed process's calls hold nothing afterwards, and have paid for the kept progress and no more."""
    async with books_of(aftermath.over.dsn):
        for payer in PAYERS:
            call = aftermath.calls[payer, point]
            booked = await settled(await only_call(call.tenant))
            used = call.price_of_progress()
            assert (used > 0) is (point == "mid_stream")
            assert booked.charge_microusd == (0 if payer == "quota" else used)
            rows = await database.fetch("SELECT kind, (credits - debits)::bigint AS balance, held FROM account WHERE workspace_id = $1", call.tenant.workspace_id)
            stands = {row["kind"]: row["balance"] for row in rows if row["kind"] in ("cash", "grant", "wallet")}
            assert all(row["held"] == 0 for row in rows)
            paid = (used * 5 + 2) // 4
            expected = {
                "wallet": {"cash": CREDIT - WALLET + paid - used, "wallet": WALLET - paid},
                "grant": {"cash": 0, "grant": CREDIT - used},
                "quota": {"cash": 0},
            }
            assert stands == expected[payer]
            windows = await database.fetch("SELECT spent, held FROM bound_window WHERE workspace_id = $1", call.tenant.workspace_id)
            assert all(row["held"] == 0 for row in windows)
            if payer == "quota":
                tokens = sum((call.progress or {}).get("quantities", {}).values())
                assert [row["spent"] for row in windows] == [tokens]


async def test_the_books_are_sound(aftermath: Aftermath) -> None:
    """M4, F20: audit is empty, each upstream request has its call, each call one closed hold, one event and at most one charge."""
    async with books_of(aftermath.over.dsn):
        assert await ledger.audit() == []
        calls = await database.fetch_value('SELECT count(*) FROM "call"')
        assert calls == len(aftermath.over.upstream.requests) == 2 * len(POINTS) + len(PAYERS) * len(PAID_AT)
        assert await database.fetch_value("SELECT count(*) FROM hold WHERE state IN ('settled', 'released') AND closed_at IS NOT NULL") == calls
        assert await database.fetch_value("SELECT count(*) FROM usage_event") == calls
        doubled = await database.fetch("SELECT call_id FROM transfer WHERE kind IN ('charge', 'late') GROUP BY workspace_id, call_id HAVING count(*) > 1")
        assert doubled == []


async def test_a_new_connection_that_the_provider_cuts_is_not_tried_again(aftermath: Aftermath) -> None:
    """The provider may have done the work, and bill it: it is asked once, and the client decides whether to ask again."""
    over = aftermath.over
    over.upstream.script(scripted.cut)
    async with books_of(over.dsn), session() as client:
        for wire in WIRES:
            mine = await tenant(credit_microusd=CREDIT)
            before = len(over.upstream.requests)
            async with client.post(aftermath.gateway.url + wire.path, data=wire.body(), headers=bearer(mine.secret)) as response:
                assert response.status == 502
            assert len(over.upstream.requests) == before + 1
            assert await quiet(mine) == CREDIT


@EACH
async def test_the_next_process_serves(aftermath: Aftermath, wire: Wire) -> None:
    """What was killed leaves nothing in the way: the same key calls again, and is charged in full."""
    call = aftermath.calls[wire.name, "after_settle"]
    aftermath.over.upstream.script(scripted.stream(wire.stream()))
    async with books_of(aftermath.over.dsn), session() as client:
        before = await quiet(call.tenant)
        async with client.post(aftermath.gateway.url + wire.path, data=call.body, headers=bearer(call.tenant.secret)) as response:
            assert wire.end in await response.read()
            request_id = response.headers["x-request-id"]
        assert (await settled(request_id)).charge_microusd == wire.price() == before - await quiet(call.tenant)


async def test_a_call_that_outlives_its_hold_is_charged_the_difference(aftermath: Aftermath) -> None:
    """A process that hangs is swept by another one; when it wakes and its stream ends, the difference is posted, and the sum is the full price."""
    over = aftermath.over
    go = asyncio.Event()
    async with books_of(over.dsn), session() as client:
        late = [Call(wire, f"late-{wire.name}", await tenant(credit_microusd=CREDIT)) for wire in WIRES]
        over.upstream.script(by_word({call.word: _held(call.wire, go) for call in late}))
        sleeper = await over.gateway()
        for call in late:
            call.task = asyncio.create_task(_read(client, sleeper, call))
        for call in late:
            await call.started.wait()
            await until(partial(_kept_progress, call), "progress of the two pieces kept")
        os.kill(sleeper.pid, signal.SIGSTOP)
        try:
            for call in late:
                swept = await settled(await only_call(call.tenant))
                assert (swept.output_tokens, swept.token_source, swept.error_code) == (3, "estimate", "interrupted")
        finally:
            os.kill(sleeper.pid, signal.SIGCONT)
        go.set()
        for call in late:
            assert call.task is not None
            await call.task
            assert call.wire.end in call.seen
            await until(partial(_is_late, call), "a late settlement")
            booked = await settled(await only_call(call.tenant))
            assert (booked.charge_microusd, booked.input_tokens, booked.output_tokens, booked.outcome) == (call.wire.price(), 25, 12, "succeeded")
            assert await quiet(call.tenant) == CREDIT - call.wire.price()
        sleeper.terminate()


async def _is_late(call: Call) -> bool:
    found = await line(await only_call(call.tenant))
    return found is not None and found.events > 1


async def test_many_sweeps_at_once_end_each_hold_once(aftermath: Aftermath) -> None:
    """Any number of processes may sweep at any time: of four, one ends the hold; a progress that cannot be read keeps no other from its end."""
    async with books_of(aftermath.over.dsn):
        book = Book()
        await book.refresh()
        sweepers = [Calls(book, batch=500, hold_seconds=3600) for _ in range(4)]
        poisoned, sound = await tenant(credit_microusd=CREDIT), await tenant(credit_microusd=CREDIT)
        ids = [(await sweepers[0].admit(_opening(book, mine))).call_id for mine in (poisoned, sound)]
        await database.fetch("UPDATE hold SET progress = '{\"quantities\": 7}' WHERE call_id = $1", ids[0])
        await database.fetch("UPDATE hold SET expires_at = clock_timestamp() - interval '1 second' WHERE call_id = ANY ($1)", ids)
        await asyncio.gather(*(sweeper.sweep() for sweeper in sweepers))
        booked = await settled(ids[1])
        assert (booked.charge_microusd, booked.events, booked.error_code) == (0, 1, "interrupted")
        assert await line(ids[0]) is None
        await database.fetch("UPDATE hold SET progress = NULL WHERE call_id = $1", ids[0])
        assert (await settled(ids[0])).charge_microusd == 0
        assert await quiet(poisoned) == await quiet(sound) == CREDIT


def _opening(book: Book, mine: Tenant) -> Opening:
    now = datetime.now(UTC)
    price = book.price("echo", now)
    assert price is not None
    return Opening(
        id=uuid7(),
        fingerprint=secrets.fingerprint(mine.secret),
        road="generic",
        endpoint="/v1/messages",
        api_name="messages",
        dialect="anthropic",
        requested_model="echo",
        model="echo",
        echo=True,
        upstream="echo",
        price=price,
        streamed=True,
        input_tokens=10,
        requested_max_output=100,
        max_output_tokens=100,
        instalment_tokens=100,
        created_at=now,
    )
