"""Re-rating: a corrected price is tried on the calls that were charged at a wrong one; once approved, each payer gets back, or pays, exactly the difference."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from domain import duties
from domain.access.callers import Caller
from domain.money import grants
from domain.money.catalogue import PriceVersion
from domain.money.grants import NewGrant
from domain.serving import reratings
from domain.usage import corrections, measure, rollups
from domain.usage.windows import RelativeRange, resolve
from models import database
from models.enums import Bucket
from models.ids import uuid7
from schema import ids
from tests.conftest import environment_of
from tests.money.own_books import OwnBooks
from tests.schema.serving import Owner, Served, running
from tests.schema.test_operations import answer, run
from tests.serving.openings import ending, opening, sign, used
from tests.support.calling import until
from tests.support.gateway import ROOT
from tests.support.servers import Servers

WORK = {reratings.PREVIEW, reratings.APPLY}


async def work(served: Served) -> int:
    """Do what is queued, as a worker does; returns how many jobs that were."""
    rows = await database.fetch("SELECT id, kind FROM job WHERE status = 'queued' AND kind = ANY ($1) ORDER BY created_at, id", list(WORK))
    for row in rows:
        duty = await duties.claim(row["id"])
        assert duty is not None
        await (reratings.preview(duty, served.book) if duty.kind == reratings.PREVIEW else reratings.post(duty))
    return len(rows)


@dataclass
class Shop:
    """A served installation with an operator, and a model that was offered at a wrong price."""

    served: Served
    boss: str
    caller: Caller
    wrong: PriceVersion

    async def customer(self, credit: int) -> tuple[Owner, str]:
        """An owner with credit, and a key."""
        owner = await self.served.owner()
        if credit:
            await self.served.credit(owner, credit)
        return owner, (await self.served.key(owner))[1]

    async def correct(self, *, input_usd: str, output_usd: str, place: int = 1) -> str:
        """Enter a version that should have held since the wrong one, so many milliseconds after it; returns its id."""
        ask = """
        mutation P($model: String!, $rows: [PriceRowInput!]!, $begins: DateTime!, $key: String!) {
          priceCreate(input: { model: $model, rows: $rows, source: "corrected", effectiveFrom: $begins, idempotencyKey: $key }) { price { id } userErrors { code } } }
        """
        rows = [{"bucket": Bucket.UNCACHED_INPUT.name, "usd": input_usd}, {"bucket": Bucket.OUTPUT.name, "usd": output_usd}]
        since = (self.wrong.effective_from + timedelta(milliseconds=place)).isoformat().replace("+00:00", "Z")
        made = (await self.served.ask(ask, credential=self.boss, model=self.wrong.model, rows=rows, key=uuid7().hex, begins=since)).data["priceCreate"]
        assert made["userErrors"] == []
        return str(made["price"]["id"])

    async def create(self, price: str, **more: Any) -> Any:
        """The payload of reratingCreate."""
        ask = """
        mutation R($price: ID!, $range: InstantRange, $place: ID, $reason: String! = "wrong row", $key: String!) {
          reratingCreate(input: { priceId: $price, range: $range, workspaceId: $place, reason: $reason, idempotencyKey: $key }) {
            rerating { id status } userErrors { code path } } }
        """
        return (await self.served.ask(ask, credential=self.boss, price=price, **{"key": uuid7().hex, **more})).data["reratingCreate"]

    async def previewed(self, price: str, **more: Any) -> Any:
        """A re-rating whose preview is there, as Operator_Reratings tells it."""
        made = await self.create(price, **more)
        assert made["userErrors"] == []
        await work(self.served)
        return await self.told(made["rerating"]["id"])

    async def told(self, rerating: str) -> Any:
        """A re-rating as Operator_Reratings tells it."""
        nodes = (await run(self.served, "Operator_Reratings", self.boss))["operator"]["reratings"]["nodes"]
        return next(node for node in nodes if node["id"] == rerating)

    async def applied(self, rerating: str) -> Any:
        """A re-rating, approved and posted."""
        answered = (await run(self.served, "Operator_RerateApply", self.boss, id=rerating))["reratingApply"]
        assert answered["userErrors"] == []
        await work(self.served)
        return await self.told(rerating)


async def shop(served: Served, name: str, *, input_usd: str = "3", output_usd: str = "6") -> Shop:
    """A model at a price of its own, and an operator."""
    boss = await served.operator()
    return Shop(served, boss, await served.caller(boss), await served.offer(name, input_usd=input_usd, output_usd=output_usd))


async def money(workspace_id: UUID) -> dict[str, int]:
    """What each kind of account of a workspace has, by its transfers; kinds without any are left out."""
    rows = await database.fetch(
        """
        SELECT a.kind, sum(x.amount)::bigint AS amount FROM (SELECT workspace_id, credit_id AS id, amount FROM transfer
                 UNION ALL SELECT workspace_id, debit_id, -amount FROM transfer) x
          JOIN account a ON a.workspace_id = x.workspace_id AND a.id = x.id WHERE a.workspace_id = $1 GROUP BY a.kind
        """,
        workspace_id,
    )
    return {row["kind"]: row["amount"] for row in rows}


async def record(record_id: UUID) -> tuple[int, int]:
    """List value and charge of a record, over all its events."""
    row = await database.fetch_row("SELECT sum(list_microusd)::bigint AS l, sum(charge_microusd)::bigint AS c FROM usage_event WHERE record_id = $1", record_id)
    assert row is not None
    return row["l"], row["c"]


def lines_of(told: Any) -> list[tuple[str, int, str, str]]:
    """The lines of a re-rating, without their type names."""
    return [(line["workspace"]["name"], line["calls"], line["before"]["usd"], line["after"]["usd"]) for line in told["lines"]]


def test_a_corrected_price_gives_back_what_was_too_much(own: OwnBooks) -> None:
    """Operator_Rerate, Operator_Reratings, Operator_RerateApply: a preview that moves nothing, then entries beside what was charged; nothing twice."""

    async def story() -> None:
        async with running() as served:
            it = await shop(served, "dear")
            other = await served.offer("untouched", input_usd="1", output_usd="1")
            mine, secret = await it.customer(1_000_000)
            yours, your_secret = await it.customer(1_000_000)
            first = await served.call(secret, it.wrong, input_tokens=1000, output_tokens=500)
            second = await served.call(secret, it.wrong, input_tokens=2000, output_tokens=0)
            third = await served.call(your_secret, it.wrong, input_tokens=10_000, output_tokens=1000)
            await served.call(secret, other, input_tokens=5000, output_tokens=0)
            await served.call(secret, it.wrong, input_tokens=10, output_tokens=10, failed=True)
            price = await it.correct(input_usd="1", output_usd="6")

            asked = (await run(served, "Operator_Rerate", it.boss, price=price))["reratingCreate"]
            assert (asked["userErrors"], asked["rerating"]["status"]) == ([], "QUEUED")
            assert (await run(served, "Operator_Rerate", it.boss, price=price))["reratingCreate"] == asked
            early = (await run(served, "Operator_RerateApply", it.boss, id=asked["rerating"]["id"]))["reratingApply"]
            assert [error["code"] for error in early["userErrors"]] == ["INVALID_STATE"]
            assert await work(served) == 1
            told = await it.told(asked["rerating"]["id"])
            assert (told["price"]["id"], told["reason"], told["status"], told["progress"]) == (price, "wrong row", "SUCCEEDED", 1.0)
            assert (told["calls"], told["credited"], told["charged"]) == (3, {"usd": "0.026"}, {"usd": "0.00"})
            assert lines_of(told) == [("Olive Owner's lab", 1, "0.036", "0.016"), ("Olive Owner's lab", 2, "0.012", "0.006")]
            assert (told["appliedAt"], told["appliedBy"]) == (None, None)
            assert await record(first) == (6000, 6000)
            await own.sound()

            done = await it.applied(told["id"])
            assert (done["status"], done["appliedAt"] is None, done["appliedBy"]) == ("SUCCEEDED", False, {"name": "Otto Operator"})
            assert {name: done[name] for name in ("calls", "credited", "charged", "lines")} == {name: told[name] for name in ("calls", "credited", "charged", "lines")}
            assert [await record(each) for each in (first, second, third)] == [(4000, 4000), (2000, 2000), (16_000, 16_000)]
            assert (await money(mine.workspace.id))["cash"] == 1_000_000 - 4000 - 2000 - 5000
            assert (await money(yours.workspace.id))["cash"] == 1_000_000 - 16_000
            await own.sound()

            again = (await run(served, "Operator_RerateApply", it.boss, id=told["id"]))["reratingApply"]
            assert (again["userErrors"], again["rerating"]["appliedAt"], await work(served)) == ([], done["appliedAt"], 0)
            anew = await it.previewed(price)
            assert (anew["calls"], anew["lines"]) == (0, [])

            moved = await database.fetch("SELECT kind, amount, reason, actor_kind, actor_name FROM transfer WHERE call_id = $1 ORDER BY id", third)
            assert [tuple(row) for row in moved] == [("charge", 36_000, None, "system", "settlement"), ("correction", 20_000, "wrong row", "operator", "Otto Operator")]
            question = """
            query Q($id: String!) {
              receipt(callId: $id) { charge { microUsd } usageRecord { cost { microUsd } adjustments { reason costDelta { microUsd } actor { name } } } }
            }
            """
            receipt = (await served.ask(question, credential=yours.session, id=str(third))).data["receipt"]
            assert receipt == {
                "charge": {"microUsd": 36_000},
                "usageRecord": {
                    "cost": {"microUsd": 16_000},
                    "adjustments": [{"reason": "wrong row", "costDelta": {"microUsd": -20_000}, "actor": {"name": "Otto Operator"}}],
                },
            }
            window = resolve(RelativeRange.LAST_24_HOURS, "UTC", datetime.now(UTC))
            before = await measure.totals(yours.caller, window)
            assert (before.charge_microusd, before.list_microusd, before.requests) == (16_000, 16_000, 1)
            while await rollups.fold():
                pass
            assert await measure.totals(yours.caller, window) == before
            await own.sound()

    own.run(story())


def test_what_is_dearer_takes_what_is_free_and_the_rest_is_written_off(own: OwnBooks) -> None:
    """A customer who was charged too little pays up to the balance, less what calls under way hold; the floor never moves."""

    async def story() -> None:
        async with running() as served:
            it = await shop(served, "cheap", input_usd="1", output_usd="1")
            rich, rich_secret = await it.customer(1_000_000)
            poor, poor_secret = await it.customer(12_000)
            call = await served.call(rich_secret, it.wrong, input_tokens=4000, output_tokens=0)
            short = await served.call(poor_secret, it.wrong, input_tokens=4000, output_tokens=0)
            under_way = opening(poor_secret, it.wrong, input_tokens=2000, max_output=1000)
            let_in = await served.calls.admit(under_way)
            price = await it.correct(input_usd="3", output_usd="1")
            told = await it.previewed(price)
            assert (told["calls"], told["credited"], told["charged"]) == (2, {"usd": "0.00"}, {"usd": "0.016"})
            await it.applied(told["id"])
            assert (await money(rich.workspace.id))["cash"] == 1_000_000 - 12_000
            assert await money(poor.workspace.id) == {"adjustments": -12_000, "cash": 12_000 - 4000 - 5000, "revenue": 12_000, "write_offs": -3000}
            assert [await record(call), await record(short)] == [(12_000, 12_000), (12_000, 12_000)]
            kinds = await database.fetch("SELECT kind, amount, reason FROM transfer WHERE call_id = $1 ORDER BY id", short)
            assert [tuple(row) for row in kinds] == [("charge", 4000, None), ("correction", 5000, "wrong row"), ("write_off", 3000, "wrong row")]
            await served.calls.settle(ending(let_in, it.wrong, used(2000, 1000)))
            assert (await money(poor.workspace.id))["cash"] == 0
            await own.sound()
            # and back again: what was written off is nobody's to get back
            back = await it.previewed(await it.correct(input_usd="1", output_usd="1", place=2))
            await it.applied(back["id"])
            assert await money(poor.workspace.id) == {"adjustments": -12_000, "cash": 5000, "revenue": 7000, "write_offs": 0}
            await own.sound()

    own.run(story())


def test_each_payer_gets_back_what_it_paid(own: OwnBooks) -> None:
    """Cash first, then the grants, the last that paid before the first; what an expired grant would get goes to cash, a revoked one's to promotions."""

    async def story() -> None:
        async with running() as served:
            it = await shop(served, "granted", input_usd="10", output_usd="1")
            mine, secret = await it.customer(5000)
            now = datetime.now(UTC)
            gifts = [NewGrant(3000, "a gift", uuid7().hex, priority=place, expires_at=now + timedelta(days=place + 1)) for place in range(3)]
            given = [await grants.create(it.caller, mine.workspace.id, gift) for gift in gifts]
            call = await served.call(secret, it.wrong, input_tokens=1200, output_tokens=0)  # 12 000: three grants of 3000, and 3000 of cash

            async def left() -> list[int]:
                rows = await database.fetch("SELECT id, credits - debits AS left FROM account WHERE workspace_id = $1", mine.workspace.id)
                found = {row["id"]: row["left"] for row in rows}
                return [found[grant.id] for grant in given]

            assert ((await money(mine.workspace.id))["cash"], await left()) == (2000, [0, 0, 0])
            told = await it.previewed(await it.correct(input_usd="6", output_usd="1"))
            await it.applied(told["id"])
            assert ((await money(mine.workspace.id))["cash"], await left()) == (5000, [0, 0, 1800])
            await own.sound()
            await own.admin.execute("UPDATE credit_grant SET expires_at = clock_timestamp() - interval '2 hours' WHERE id = $1", given[2].id)
            await grants.sweep()
            await grants.revoke(it.caller, given[1].id, "a mistake")
            told = await it.previewed(await it.correct(input_usd="1", output_usd="1", place=2))
            await it.applied(told["id"])
            # 6000 more: 1200 that the expired one still had paid go to cash, 3000 to the revoked one, 1800 to the first
            assert ((await money(mine.workspace.id))["cash"], await left()) == (6200, [1800, 3000, 0])
            await grants.sweep()
            assert ((await money(mine.workspace.id))["cash"], await left()) == (6200, [1800, 0, 0])
            assert await record(call) == (1200, 1200)
            await own.sound()
            await corrections.void(it.caller, call, "never mind")
            await grants.sweep()
            assert (await record(call))[1] == 0
            await own.sound()

    own.run(story())


def test_what_was_settled_by_hand_stays_so(own: OwnBooks) -> None:
    """A record that is voided, or whose charge a person set, is left alone, before the preview and after it; units that were corrected change nothing."""

    async def story() -> None:
        async with running() as served:
            it = await shop(served, "handmade")
            mine, secret = await it.customer(1_000_000)
            calls = [await served.call(secret, it.wrong, input_tokens=1000, output_tokens=0) for _ in range(6)]
            await corrections.void(it.caller, calls[0], "a duplicate")
            await corrections.adjust(it.caller, calls[1], units=None, charge_microusd=2900, reason="agreed")
            await corrections.adjust(it.caller, calls[2], units=7, charge_microusd=None, reason="counted again")
            told = await it.previewed(await it.correct(input_usd="1", output_usd="6"))
            assert (told["calls"], told["credited"]["usd"]) == (4, "0.008")
            await corrections.void(it.caller, calls[3], "a duplicate")
            await corrections.adjust(it.caller, calls[4], units=None, charge_microusd=2500, reason="agreed")
            done = await it.applied(told["id"])
            assert (done["calls"], done["credited"]["usd"], lines_of(done)) == (2, "0.004", [("Olive Owner's lab", 2, "0.006", "0.002")])
            assert [(await record(call))[1] for call in calls] == [0, 2900, 1000, 0, 2500, 1000]
            states = await database.fetch("SELECT state FROM rerated_call WHERE workspace_id = $1 ORDER BY record_id", mine.workspace.id)
            assert [row["state"] for row in states] == ["posted", "skipped", "skipped", "posted"]
            await corrections.void(it.caller, calls[5], "never mind")
            assert (await record(calls[5]))[1] == 0
            assert (await money(mine.workspace.id))["cash"] == 1_000_000 - 2900 - 1000 - 2500
            await own.sound()

    own.run(story())


def test_two_previews_of_the_same_calls_never_correct_twice(own: OwnBooks) -> None:
    """Approved one after the other, the second finds each call changed and leaves it; a third, made after, does what is still to do."""

    async def story() -> None:
        async with running() as served:
            it = await shop(served, "twice")
            mine, secret = await it.customer(1_000_000)
            call = await served.call(secret, it.wrong, input_tokens=1000, output_tokens=0)
            two, one = await it.correct(input_usd="2", output_usd="6"), await it.correct(input_usd="1", output_usd="6", place=2)
            whole = {"start": (datetime.now(UTC) - timedelta(hours=2)).isoformat().replace("+00:00", "Z")}
            first, second = await it.previewed(two, range=whole), await it.previewed(one, range=whole)
            await it.applied(first["id"])
            done = await it.applied(second["id"])
            assert (done["calls"], done["credited"]["usd"], await record(call)) == (0, "0.00", (2000, 2000))
            third = await it.previewed(one, range=whole)
            await it.applied(third["id"])
            assert (third["credited"]["usd"], await record(call)) == ("0.001", (1000, 1000))
            assert (await money(mine.workspace.id))["cash"] == 999_000
            await own.sound()

    own.run(story())


def test_fractions_of_a_microdollar_add_up(own: OwnBooks) -> None:
    """Ten calls that each differ by four tenths of a microdollar make four; a price of nothing gives back every microdollar that was charged."""

    async def story() -> None:
        async with running() as served:
            it = await shop(served, "fractions", input_usd="0.7", output_usd="1")
            mine, secret = await it.customer(1_000_000)
            for _ in range(10):
                await served.call(secret, it.wrong, input_tokens=1, output_tokens=0)
            told = await it.previewed(await it.correct(input_usd="0.3", output_usd="1"))
            assert (told["calls"], told["credited"], lines_of(told)) == (10, {"usd": "0.000004"}, [("Olive Owner's lab", 10, "0.000007", "0.000003")])
            await it.applied(told["id"])
            await own.sound()
            assert (await it.previewed(told["price"]["id"]))["calls"] == 0
            free = await it.previewed(await it.correct(input_usd="0", output_usd="1", place=2))
            await it.applied(free["id"])
            assert (await money(mine.workspace.id))["cash"] == 1_000_000
            await own.sound()

    own.run(story())


def test_the_markup_of_a_call_is_applied_to_its_corrected_list_value(own: OwnBooks) -> None:
    """The fraction that made the charge makes the corrected one, though another holds now; tiers of service and swept calls are quoted as they were."""

    async def story() -> None:
        async with running() as served:
            it = await shop(served, "marked", input_usd="2", output_usd="2")
            _, secret = await it.customer(1_000_000)
            make = """
            mutation M($n: Int!, $key: String!) {
              markupRuleCreate(input: { numerator: $n, denominator: 2, model: "marked", idempotencyKey: $key }) { markupRule { id } }
            }
            """
            rule = (await served.ask(make, credential=it.boss, n=3, key=uuid7().hex)).data["markupRuleCreate"]["markupRule"]["id"]
            asked = opening(secret, it.wrong, input_tokens=1000, max_output=1000)
            let_in = await served.calls.admit(asked)
            await served.calls.settle(ending(let_in, it.wrong, used(1000, 0)))
            lost = opening(secret, it.wrong, input_tokens=1000, max_output=1000)
            left = await served.calls.admit(lost)
            await served.calls.keep(sign(lost, left.workspace_id, used(500, 0)))
            await own.expire(lost.id)
            assert await served.calls.sweep() == 1
            await run(served, "Operator_MarkupEnd", it.boss, id=rule)
            await served.ask(make, credential=it.boss, n=9, key=uuid7().hex)
            assert [await record(asked.id), await record(lost.id)] == [(2000, 3000), (1000, 1500)]
            price = await it.correct(input_usd="1", output_usd="2")
            young = await it.previewed(price)
            assert lines_of(young) == [("Olive Owner's lab", 1, "0.003", "0.0015")]  # the swept one may still be settled late
            await own.admin.execute("SET session_replication_role = replica")  # a closed hold never changes: the clock is turned behind the trigger's back
            await own.admin.execute("UPDATE hold SET closed_at = closed_at - interval '2 hours' WHERE call_id = $1", lost.id)
            await own.admin.execute("RESET session_replication_role")
            told = await it.previewed(price)
            await it.applied(told["id"])
            assert [await record(asked.id), await record(lost.id)] == [(1000, 1500), (500, 750)]
            await own.sound()

    own.run(story())


def test_a_worker_that_is_killed_half_way_loses_and_doubles_nothing(own: OwnBooks, servers: Servers, tmp_path: Path) -> None:
    """kill -9 between two workspaces, in the middle of a transaction: what was committed stays, the rest is posted by the next worker, once (F5)."""

    async def story() -> None:
        async with running() as served:
            it = await shop(served, "killed", input_usd="3", output_usd="1")
            customers = [await it.customer(1_000_000) for _ in range(2)]
            for _, secret in customers:
                for _ in range(3):
                    await served.call(secret, it.wrong, input_tokens=1000, output_tokens=0)
            told = await it.previewed(await it.correct(input_usd="1", output_usd="1"))
            assert (await run(served, "Operator_RerateApply", it.boss, id=told["id"]))["reratingApply"]["userErrors"] == []
            job_id = await database.fetch_value("SELECT id FROM job WHERE kind = $1 AND status = 'queued'", reratings.APPLY)
            look = "SELECT workspace_id, record_id, state FROM rerated_call WHERE rerating_id = $1 ORDER BY workspace_id, record_id"
            rows = await database.fetch(look, ids.uuid_of("Rerating", told["id"]))
            redis = f"{servers.redis_url}?db=6"  # workers of other databases share the server, and would take the ids away
            environment = environment_of(servers, own.name, tmp_path) | {"PATH": os.environ.get("PATH", ""), "REDIS_URL": redis}
            async with own.admin.transaction():
                await own.admin.execute("SELECT FROM rerated_call WHERE record_id = $1 FOR UPDATE", rows[4]["record_id"])
                with (tmp_path / "worker.log").open("ab") as log:
                    worker = subprocess.Popen([sys.executable, "-m", "manage", "worker"], cwd=ROOT, env=environment, stdout=log, stderr=log)

                async def stuck() -> bool:
                    waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%rerate_2%'"
                    return bool(await database.fetch_value(waits))

                try:
                    await until(stuck, "the worker in the middle of the second workspace")
                finally:
                    worker.send_signal(signal.SIGKILL)
                    worker.wait()
            rows = await database.fetch(look, ids.uuid_of("Rerating", told["id"]))
            assert [row["state"] for row in rows] == ["posted"] * 3 + ["open"] * 3
            half = await it.told(told["id"])
            assert (half["status"], half["appliedAt"]) == ("RUNNING", None)
            assert await duties.claim(job_id) is None  # the dead one's lease
            await own.admin.execute("UPDATE job SET leased_until = clock_timestamp() WHERE id = $1", job_id)
            duty = await duties.claim(job_id)
            assert duty is not None
            await reratings.post(duty)
            done = await it.told(told["id"])
            assert (done["status"], done["calls"], done["credited"]["usd"], done["appliedAt"] is None) == ("SUCCEEDED", 6, "0.012", False)
            for owner, _ in customers:
                assert (await money(owner.workspace.id))["cash"] == 1_000_000 - 3000
            assert await duties.claim(job_id) is None
            await own.sound()

    own.run(story())


def test_nonsense_is_refused(own: OwnBooks) -> None:
    """A price of an upstream's, of nowhere, a range that is empty or to come, a workspace of nowhere, no reason, a customer: refused, nothing made."""

    async def story() -> None:
        async with running() as served:
            it = await shop(served, "refused")
            mine, _ = await it.customer(0)
            price = await it.correct(input_usd="1", output_usd="1")
            cost = uuid7()
            columns = "rows, effective_from, source, creator_kind, creator_id, creator_name, created_at"
            await own.admin.execute(f"INSERT INTO price (id, model, upstream, {columns}) SELECT $1, model, 'acme', {columns} FROM price WHERE id = $2", cost, it.wrong.id)
            before = await database.fetch_value("SELECT count(*) FROM rerating")
            day = {"start": "2026-01-01T00:00:00Z", "end": "2026-01-02T00:00:00Z"}
            bad: list[tuple[dict[str, Any], list[str]]] = [
                ({"price": ids.encode("Price", uuid7())}, ["input", "priceId"]),
                ({"price": "nonsense"}, ["input", "priceId"]),
                ({"price": ids.encode("Price", cost)}, ["input", "priceId"]),
                ({"range": {**day, "end": day["start"]}}, ["input", "range", "start"]),
                ({"range": {**day, "end": "2100-01-01T00:00:00Z"}}, ["input", "range", "end"]),
                ({"range": {"start": "1999-01-01T00:00:00Z"}}, ["input", "range", "start"]),
                ({"place": ids.encode("Workspace", uuid7())}, ["input", "workspaceId"]),
                ({"place": "nonsense"}, ["input", "workspaceId"]),
                ({"reason": " "}, ["input", "reason"]),
                ({"key": ""}, ["input", "idempotencyKey"]),
            ]
            for given, path in bad:
                refused = await it.create(**{"price": price, **given})
                assert (refused["rerating"], [error["path"] for error in refused["userErrors"]]) == (None, [path])
            key = uuid7().hex
            assert (await it.create(price, key=key))["userErrors"] == []
            assert [error["code"] for error in (await it.create(price, key=key, reason="another"))["userErrors"]] == ["IDEMPOTENCY_CONFLICT"]
            assert (await answer(served, "Operator_Rerate", mine.session, price=price)).codes == ["FORBIDDEN"]
            assert (await answer(served, "Operator_RerateApply", mine.session, id=ids.encode("Rerating", uuid7()))).codes == ["FORBIDDEN"]
            unknown = (await run(served, "Operator_RerateApply", it.boss, id=ids.encode("Rerating", uuid7())))["reratingApply"]
            assert [error["code"] for error in unknown["userErrors"]] == ["NOT_FOUND"]
            assert await database.fetch_value("SELECT count(*) FROM rerating") == before + 1
            await work(served)
            (node,) = (await served.ask("{ operator { reratings(first: 1) { nodes { id } } } }", credential=it.boss)).data["operator"]["reratings"]["nodes"]
            question = "query Q($id: ID!) { node(id: $id) { ... on Rerating { reason } } }"
            assert (await served.ask(question, credential=it.boss, id=node["id"])).data == {"node": {"reason": "wrong row"}}
            assert (await served.ask(question, credential=mine.session, id=node["id"])).data == {"node": None}

    own.run(story())
