"""Reconciliation: a provider's bill beside what our attempts cost, the difference booked once somebody accepts it; operations over HTTP with real data."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

from clients.bills import Account, Bills
from domain import duties
from domain.money import reconciliations
from models import database
from models.ids import uuid7
from schema import ids
from tests.money.own_books import OwnBooks
from tests.schema.serving import Served, running
from tests.schema.test_operations import answer, run
from tests.serving.openings import ending, opening, used

CREATE = """
mutation C($provider: String! = "echo", $range: InstantRange!, $bill: String, $source: String, $key: String!) {
  reconciliationCreate(input: { provider: $provider, range: $range, bill: $bill, source: $source, idempotencyKey: $key }) {
    reconciliation { id status source } userErrors { code path message } } }
"""


async def work(sources: Bills, served: Served) -> None:
    """Do what is queued, as a worker does."""
    for row in await database.fetch("SELECT id FROM job WHERE status = 'queued' AND kind = $1 ORDER BY created_at", reconciliations.DUTY):
        duty = await duties.claim(row["id"])
        assert duty is not None
        await reconciliations.compare(duty, served.book, sources)


async def told(served: Served, boss: str, global_id: str) -> Any:
    """A reconciliation as Operator_Reconciliations tells it."""
    nodes = (await run(served, "Operator_Reconciliations", boss))["operator"]["reconciliations"]["nodes"]
    return next(node for node in nodes if node["id"] == global_id)


def span(days: int = 0) -> dict[str, str]:
    """Today in UTC, and so many days before."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return {name: each.isoformat().replace("+00:00", "Z") for name, each in (("start", today - timedelta(days=days)), ("end", today + timedelta(days=1)))}


def adjusting(accounts: list[dict[str, Any]]) -> dict[str, int]:
    """What the two accounts of an adjustment have, in microdollars."""
    return {each["kind"]: each["balance"]["microUsd"] for each in accounts if each["kind"] in ("ADJUSTMENTS", "WRITE_OFFS")}


ACCOUNTS = "{ operator { ledgerAccounts { kind balance { microUsd } } } }"


def test_a_bill_is_compared_approved_and_booked_once(own: OwnBooks) -> None:
    """Operator_Reconciliations, Operator_ReconcileApprove: computed, billed, difference and coverage to the microdollar; the same period is booked once."""

    async def story() -> None:
        sources = Bills({})
        async with running() as served:
            boss, mine = await served.operator(), await served.owner()
            await served.credit(mine, 1_000_000)
            secret = (await served.key(mine))[1]
            price = await served.offer("billed", input_usd="1", output_usd="2")
            for amount in (1000, 2000):
                let_in = await served.calls.admit(opening(secret, price, input_tokens=amount, max_output=100))
                await served.calls.settle(ending(let_in, price, used(amount, 100)))
            day = datetime.now(UTC).date()
            bill = f"model,date,cost_usd\nBilled,{day},0.003\nbilled-20260807,{day},0.0008\nweb_search,{day},0.01\n"
            key = uuid7().hex
            ask: dict[str, Any] = {"range": span(), "bill": bill, "source": "october.csv", "key": key}
            made = (await served.ask(CREATE, credential=boss, **ask)).data["reconciliationCreate"]
            assert (made["userErrors"], made["reconciliation"]["status"], made["reconciliation"]["source"]) == ([], "QUEUED", "october.csv")
            assert (await served.ask(CREATE, credential=boss, **ask)).data["reconciliationCreate"] == made
            other = (await served.ask(CREATE, credential=boss, **(ask | {"bill": bill + f"more,{day},1\n"}))).data["reconciliationCreate"]
            assert [error["code"] for error in other["userErrors"]] == ["IDEMPOTENCY_CONFLICT"]
            key_ = made["reconciliation"]["id"]
            early = (await run(served, "Operator_ReconcileApprove", boss, id=key_))["reconciliationApprove"]
            assert [error["code"] for error in early["userErrors"]] == ["INVALID_STATE"]
            await work(sources, served)
            seen = await told(served, boss, key_)
            assert (seen["provider"], seen["source"]) == ("echo", "october.csv")
            assert (seen["computed"]["usd"], seen["billed"]["usd"], seen["difference"]["usd"]) == ("0.0034", "0.0138", "0.0104")
            assert seen["coverage"] == 34 / 138
            lines = [(line["item"], line["usedOn"], line["computed"]["usd"], line["billed"]["usd"], line["difference"]["usd"]) for line in seen["lines"]]
            assert lines == [("web_search", str(day), "0.00", "0.01", "0.01"), ("Billed", str(day), "0.0034", "0.0038", "0.0004")]
            assert (seen["transfers"], seen["approvedBy"], seen["approvedAt"]) == ([], None, None)
            before = adjusting((await served.ask(ACCOUNTS, credential=boss)).data["operator"]["ledgerAccounts"])
            approved = (await run(served, "Operator_ReconcileApprove", boss, id=key_))["reconciliationApprove"]
            assert (approved["userErrors"], len(approved["reconciliation"]["transfers"])) == ([], 1)
            assert (await run(served, "Operator_ReconcileApprove", boss, id=key_))["reconciliationApprove"] == approved
            after = adjusting((await served.ask(ACCOUNTS, credential=boss)).data["operator"]["ledgerAccounts"])
            assert {kind: after[kind] - before[kind] for kind in after} == {"ADJUSTMENTS": 10_400, "WRITE_OFFS": -10_400}
            seen = await told(served, boss, key_)
            assert (seen["approvedBy"], seen["transfers"]) == ({"name": "Otto Operator"}, approved["reconciliation"]["transfers"])
            question = "query Q($id: ID!) { node(id: $id) { ... on Reconciliation { transfers { kind amount { microUsd } reason actor { name } debit { kind } } } } }"
            (booked,) = (await served.ask(question, credential=boss, id=key_)).data["node"]["transfers"]
            assert booked == {
                "kind": "ADJUSTMENT",
                "amount": {"microUsd": 10_400},
                "reason": "rounding",
                "actor": {"name": "Otto Operator"},
                "debit": {"kind": "WRITE_OFFS"},
            }
            assert (await served.ask(question, credential=mine.session, id=key_)).data == {"node": None}
            again = (await served.ask(CREATE, credential=boss, **(ask | {"key": uuid7().hex, "range": span(3)}))).data["reconciliationCreate"]["reconciliation"]["id"]
            await work(sources, served)
            refused = (await run(served, "Operator_ReconcileApprove", boss, id=again))["reconciliationApprove"]
            assert [error["code"] for error in refused["userErrors"]] == ["INVALID_STATE"]
            await own.sound()

    own.run(story())


@dataclass
class Provider:
    """A provider's cost API, as Anthropic and OpenAI document theirs, in two pages; it knows one admin key."""

    url: str = ""
    asked: list[dict[str, str]] = field(default_factory=list)
    status: int = 200
    currency: str = "USD"
    day: datetime = datetime(2026, 10, 1, tzinfo=UTC)

    async def anthropic(self, request: web.Request) -> web.Response:
        """`GET /v1/organizations/cost_report`: strings of cents."""
        if request.headers.get("x-api-key") != "sk-admin" or self.status != 200:
            return web.json_response({"type": "error"}, status=401 if self.status == 200 else self.status)
        self.asked.append(dict(request.query))
        second = "page" in request.query
        day = self.day + timedelta(days=1 if second else 0)
        costs = [("123.45", "claude-opus-5-5-20260807", "tokens"), ("0.55", "claude-opus-5-5-20260807", "tokens")] if not second else [("1", None, "web_search")]
        results = [{"amount": amount, "currency": self.currency, "model": model, "cost_type": kind, "description": "…"} for amount, model, kind in costs]
        bucket = {"starting_at": day.isoformat().replace("+00:00", "Z"), "ending_at": (day + timedelta(days=1)).isoformat(), "results": results}
        return web.json_response({"data": [bucket], "has_more": not second, "next_page": None if second else "page_2"})

    async def openai(self, request: web.Request) -> web.Response:
        """`GET /v1/organization/costs`: numbers of dollars."""
        if request.headers.get("authorization") != "Bearer sk-admin":
            return web.json_response({"error": {}}, status=401)
        self.asked.append(dict(request.query))
        start = int(self.day.timestamp())
        result = {"object": "organization.costs.result", "amount": {"value": 0.06, "currency": "usd"}, "line_item": "gpt-5.5-2026-08-07, input"}
        bucket = {"object": "bucket", "start_time": start, "end_time": start + 86_400, "results": [result]}
        return web.json_response({"object": "page", "data": [bucket], "has_more": False, "next_page": None})


@asynccontextmanager
async def provider() -> AsyncIterator[Provider]:
    """Serve it."""
    one = Provider()
    app = web.Application()
    app.router.add_get("/v1/organizations/cost_report", one.anthropic)
    app.router.add_get("/v1/organization/costs", one.openai)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    one.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield one
    finally:
        await runner.cleanup()


def test_a_bill_is_read_from_the_provider(own: OwnBooks) -> None:
    """Operator_Reconcile names no bill: the provider's cost API tells it, page by page, with the admin key; what it will not tell ends the comparison."""

    async def story() -> None:
        async with provider() as there:
            sources = Bills({"anthropic": Account("anthropic", there.url, "sk-admin"), "openai-eu": Account("openai", there.url, "sk-admin")})
            async with running(bills=sources, upstreams=("anthropic", "openai-eu")) as served:
                boss = await served.operator()
                made = (await run(served, "Operator_Reconcile", boss))["reconciliationCreate"]
                assert made["userErrors"] == []
                await work(sources, served)
                seen = await told(served, boss, made["reconciliation"]["id"])
                assert (seen["source"], seen["start"], seen["end"]) == ("usage API", "2026-10-01T00:00:00.000Z", "2026-11-01T00:00:00.000Z")
                assert (seen["computed"]["usd"], seen["billed"]["usd"], seen["coverage"]) == ("0.00", "1.25", 0.0)
                assert [(line["item"], line["usedOn"], line["billed"]["usd"]) for line in seen["lines"]] == [
                    ("claude-opus-5-5-20260807", "2026-10-01", "1.24"),
                    ("web_search", "2026-10-02", "0.01"),
                ]
                assert there.asked[0] == {
                    "starting_at": "2026-10-01T00:00:00Z",
                    "ending_at": "2026-11-01T00:00:00Z",
                    "bucket_width": "1d",
                    "group_by[]": "description",
                    "limit": "31",
                }
                assert there.asked[1]["page"] == "page_2"
                month = {"start": "2026-10-01T00:00:00Z", "end": "2026-11-01T00:00:00Z"}

                async def asked(name: str, **wanted: Any) -> Any:
                    variables = {"provider": name, "range": month, "key": uuid7().hex} | wanted
                    return (await served.ask(CREATE, credential=boss, **variables)).data["reconciliationCreate"]

                by_dialect = await asked("openai")
                await work(sources, served)
                assert (await told(served, boss, by_dialect["reconciliation"]["id"]))["lines"][0]["billed"]["usd"] == "0.06"
                part = await asked("anthropic", range={**month, "start": "2026-10-01T12:00:00Z"})
                assert [error["path"] for error in part["userErrors"]] == [["input", "range"]]
                faults: list[tuple[str, Any, str]] = [
                    ("status", 403, "answered 403"),
                    ("currency", "EUR", "bills in 'EUR'"),
                    ("day", datetime(2026, 9, 1, tzinfo=UTC), "outside of the period"),
                ]
                for name, value, why in faults:
                    setattr(there, name, value)
                    failed = (await asked("anthropic"))["reconciliation"]["id"]
                    await work(sources, served)
                    question = "query Q($id: ID!) { node(id: $id) { ... on Reconciliation { status failure { message } finishedAt } } }"
                    node = (await served.ask(question, credential=boss, id=failed)).data["node"]
                    assert (node["status"], why in node["failure"]["message"], node["finishedAt"] is None) == ("FAILED", True, False)
                    refused = (await run(served, "Operator_ReconcileApprove", boss, id=failed))["reconciliationApprove"]
                    assert [error["code"] for error in refused["userErrors"]] == ["INVALID_STATE"]
                    there.status, there.currency, there.day = 200, "USD", datetime(2026, 10, 1, tzinfo=UTC)
                await own.sound()

    own.run(story())


def test_nonsense_is_refused(own: OwnBooks) -> None:
    """A provider of nowhere, an empty or endless period, a bill that cannot be read, none without a key for it, a customer: refused, nothing made."""

    async def story() -> None:
        async with running(upstreams=("acme",)) as served:
            boss, mine = await served.operator(), await served.owner()
            before = await database.fetch_value("SELECT count(*) FROM reconciliation")
            good: dict[str, Any] = {"provider": "acme", "range": span(), "bill": "model,cost_usd\nm,1\n"}
            bad: list[tuple[dict[str, Any], list[str]]] = [
                ({"provider": "nobody"}, ["input", "provider"]),
                ({"provider": " "}, ["input", "provider"]),
                ({"range": {"start": span()["start"], "end": span()["start"]}}, ["input", "range", "start"]),
                ({"range": {"start": "2019-01-01T00:00:00Z", "end": "2019-02-01T00:00:00Z"}}, ["input", "range", "start"]),
                ({"range": span(400)}, ["input", "range", "start"]),
                ({"bill": ""}, ["input", "bill"]),
                ({"bill": "model,cost_usd\nm,-\n"}, ["input", "bill"]),
                ({"bill": None}, ["input", "bill"]),
                ({"source": "x" * 301}, ["input", "source"]),
                ({"key": ""}, ["input", "idempotencyKey"]),
            ]
            for given, path in bad:
                refused = (await served.ask(CREATE, credential=boss, **({"key": uuid7().hex} | good | given))).data["reconciliationCreate"]
                assert (refused["reconciliation"], [error["path"] for error in refused["userErrors"]]) == (None, [path])
            assert (await served.ask(CREATE, credential=mine.session, key=uuid7().hex, **good)).codes == ["FORBIDDEN"]
            assert (await answer(served, "Operator_ReconcileApprove", mine.session, id=ids.encode("Reconciliation", uuid7()))).codes == ["FORBIDDEN"]
            unknown = (await run(served, "Operator_ReconcileApprove", boss, id=ids.encode("Reconciliation", uuid7())))["reconciliationApprove"]
            assert [error["code"] for error in unknown["userErrors"]] == ["NOT_FOUND"]
            assert await database.fetch_value("SELECT count(*) FROM reconciliation") == before
            large = "model,cost_usd\n" + "m,0.01\n" * 100_000
            taken = (await served.ask(CREATE, credential=boss, key=uuid7().hex, **(good | {"bill": large}))).data["reconciliationCreate"]
            assert taken["userErrors"] == []
            await work(Bills({}), served)
            assert (await told(served, boss, taken["reconciliation"]["id"]))["billed"] == {"usd": "1000.00"}
            assert (await served.ask(CREATE, credential=mine.session, key=uuid7().hex, **(good | {"bill": large}))).status == 413

    own.run(story())
