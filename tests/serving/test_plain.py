"""What the statements of the hot path spare changes nothing: they decide and write as those before, which they leave all that is unusual to."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from domain.access.limits import BoundInput
from domain.serving import calls as serving
from domain.serving.calls import Admitted, Opening
from models import database
from models.enums import Measure
from tests.money.own_books import OwnBooks
from tests.serving.openings import calls, ending, listed, opening, used
from tests.serving.test_equivalence import PLANS, Plan, asked_of, stage, state
from tests.support.world import Tenant, tenant

FEW = settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
BEFORE = ("SELECT * FROM admit_5($1::jsonb, true)", "SELECT * FROM settle_3($1::jsonb, true)")
NOW = ("SELECT * FROM admit_6($1::json, true)", "SELECT * FROM settle_4($1::json, true)")
IDENTITIES = (
    *("id", "call_id", "record_id", "workspace_id", "key_id", "user_id", "account_id", "part_ids", "bound_ids"),
    *("debit_id", "credit_id", "price_id", "event_id", "app_id", "actor_id", "ref"),
)
INSTANTS = (
    *("created_at", "at", "expires_at", "closed_at", "started_at", "first_byte_at", "finished_at", "resets_at"),
    *("first_seen_at", "last_seen_at", "updated_at"),
)
UNTOLD = ("available_microusd",)
"""Heard by nobody who is let in, and of a whole group or of a call, as the statement goes about it."""
TABLES = ('"call"', "hold", "usage_event", "attempt", "transfer", "end_user")


def as_json(items: list[dict[str, Any]]) -> str:
    """Return JSON text, as the batches send it: each item with its place."""
    return msgspec.json.encode([{**item, "n": place} for place, item in enumerate(items)]).decode()


async def written(of: Tenant) -> list[tuple[str, list[str]]]:
    """Return all rows of a workspace's calls, without identities and instants."""
    found = []
    for table in TABLES:
        sql = f"SELECT to_jsonb(x) - $2::text[] AS row FROM {table} x WHERE workspace_id = $1"
        rows = await database.fetch(sql, of.workspace_id, [*IDENTITIES, *INSTANTS])
        found.append((table, sorted(json.dumps(json.loads(row["row"]), sort_keys=True) for row in rows)))
    pending = await database.fetch_value("SELECT count(*) FROM usage_pending WHERE workspace_id = $1", of.workspace_id)
    return [*found, ("usage_pending", [str(pending)])]


def told(rows: Any) -> list[dict[str, Any]]:
    """Return a statement's answers, without identities and instants."""
    return [{name: value for name, value in dict(row).items() if name not in (*IDENTITIES, *INSTANTS, *UNTOLD)} for row in rows]


@FEW
@given(
    plans=PLANS,
    credits=st.tuples(st.integers(0, 900), st.integers(0, 4000)),
    spent=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 60)), min_size=1, max_size=5),
)
@example(plans=[Plan(0, key, "echo", 7, 9, None, user) for key in (0, 1, 2, 3) for user in ("ann", "bob", None)], credits=(4000, 0), spent=[(7, 9), (0, 0), (7, 1)])
@example(plans=[Plan(place, key, model, 7, 9, 4, None) for place in (0, 1) for key in (4, 0, 1, 2) for model in ("echo", "gratis")], credits=(4000, 50), spent=[(7, 40)])
def test_what_is_plain_is_decided_and_written_as_everything_was(own: OwnBooks, plans: list[Plan], credits: tuple[int, int], spent: list[tuple[int, int]]) -> None:
    """One group of calls, plain and unusual, of two workspaces and five kinds of key: the same answers and rows by the statements of today and by those before."""

    async def run(admit: str, settle: str) -> list[Any]:
        tenants, secrets = await stage(own, list(credits))
        asked: list[Opening] = asked_of(own, secrets, plans)
        process = calls(own.book)
        rows = await database.fetch(admit, as_json([process.admission(one) for one in asked]))
        heard: list[Any] = [told(rows), [await state(mine) for mine in tenants], [await written(mine) for mine in tenants]]
        ends = []
        for place, (one, row) in enumerate(zip(asked, rows, strict=True)):
            if row["verdict"] == "admitted":
                admitted = Admitted(one.id, row["workspace_id"], row["key_id"], row["hold_microusd"], row["output"], row["clamped"], row["payer"])
                ends.append(serving._settlement(ending(admitted, one.price, used(*spent[place % len(spent)])), own.book, by="settle"))
        if ends:
            for _ in range(2):  # the second time each is done
                heard.append(told(await database.fetch(settle, as_json(ends))))
        return [*heard, [await state(mine) for mine in tenants], [await written(mine) for mine in tenants]]

    async def work() -> None:
        assert await run(*NOW) == await run(*BEFORE)
        await own.sound()

    own.run(work())


@pytest.mark.parametrize("model", ["echo", "claude-haiku-5-5"])
def test_a_bound_of_one_model_keeps_what_its_model_used(own: OwnBooks, model: str) -> None:
    """A bound of a model that another model answered for takes back all that it held, its count of calls too; its own model's it keeps."""

    async def work() -> None:
        mine, process = await tenant(credit_microusd=100_000), calls(own.book)
        spans = {Measure.TOKENS: "day", Measure.CALLS: "day", Measure.CONCURRENT: "concurrent"}
        limits = tuple(BoundInput(measure, span, 1000, model="echo") for measure, span in spans.items())
        _, secret = await mine.mint(budgets=(BoundInput(Measure.MONEY, "day", 1000, model="echo"),), limits=limits)
        price = listed(own.book, "echo")
        asked = opening(secret, price, input_tokens=10, max_output=5, requested_model="claude-haiku-5-5", fallbacks=(listed(own.book, model),))
        admitted = await process.admit(asked)
        await process.settle(ending(admitted, listed(own.book, model), used(10, 5)))
        rows = await database.fetch(
            """
            SELECT b.measure, w.spent, w.held FROM bound_window w JOIN bound b ON b.workspace_id = w.workspace_id AND b.id = w.bound_id
             WHERE w.workspace_id = $1
            """,
            mine.workspace_id,
        )
        kept = {row["measure"]: (row["spent"], row["held"]) for row in rows}
        spent = {"money": 20, "tokens": 15, "calls": 1, "concurrent": 0} if model == "echo" else dict.fromkeys(("money", "tokens", "calls", "concurrent"), 0)
        assert kept == {measure: (amount, 0) for measure, amount in spent.items()}
        await own.sound()

    own.run(work())


def test_an_admission_reads_the_bounds_of_its_own_subjects_alone(own: OwnBooks) -> None:
    """However many keys and tokens of a workspace have bounds, an admission reads those of its own key."""

    async def work() -> None:
        mine, process = await tenant(credit_microusd=100_000), calls(own.book)
        _, secret = await mine.mint(limits=(BoundInput(Measure.CALLS, "day", 9), BoundInput(Measure.TOKENS, "day", 900)))
        await database.fetch(
            """
            INSERT INTO bound (workspace_id, id, subject_kind, subject_id, measure, "window", most, per, position, created_at)
            SELECT $1, uuidv7(), 'client_token', uuidv7(), 'calls', 'day', 1, 'together', 0, now() FROM generate_series(1, 300)
            """,
            mine.workspace_id,
        )
        await own.admin.execute("ANALYZE bound")  # a plan from when the table was small reads all of it
        item = process.admission(opening(secret, listed(own.book, "echo"), input_tokens=10, max_output=5))
        read = "SELECT idx_tup_fetch + seq_tup_read FROM pg_stat_xact_user_tables WHERE relname = 'bound'"
        async with database.transaction():
            before = await database.fetch_value(read)
            rows = await database.fetch(NOW[0], as_json([item]))
            after = await database.fetch_value(read)
        assert [row["verdict"] for row in rows] == ["admitted"]
        assert after - before < 20  # its two, more than once: to look, to prove the windows that are made for them, to watch a budget
        await own.sound()

    own.run(work())
