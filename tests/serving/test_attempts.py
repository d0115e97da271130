"""A call of several tries: its hold covers the dearest candidate, the one that answered is charged, and every try keeps its own cost."""

from datetime import UTC, datetime, timedelta

import msgspec
from msgspec.structs import replace

from domain.money.catalogue import make_row
from domain.serving.calls import AttemptMade, Consumption
from models import database
from models.enums import Bucket, UsageOutcome
from models.ids import uuid7
from tests.money.own_books import OwnBooks
from tests.serving.openings import calls, ending, listed, opening, priced, used
from tests.support.world import tenant


def test_a_hold_covers_the_dearest_candidate_of_the_route(own: OwnBooks) -> None:
    """With candidates at 1 and 2 dollars a million in, and 8 and 4 out, 10 tokens in and 100 out hold 20 + 800 micros: each rate's dearest."""

    async def work() -> None:
        mine = await tenant(credit_microusd=1000)
        first, second = priced("first", uncached_input="1", output="8"), priced("second", uncached_input="2", output="4")
        process = calls(own.book)
        admitted = await process.admit(opening(mine.secret, first, input_tokens=10, max_output=100, fallbacks=(second,)))
        assert admitted.hold_microusd == 820
        settled = await process.settle(replace(ending(admitted, second, used(10, 100)), provider="other"))
        assert settled.charge_microusd == 420
        row = await database.fetch_row("SELECT model, provider, price_id FROM usage_event WHERE id = $1", admitted.call_id)
        assert row is not None
        assert tuple(row) == ("second", "other", second.id)
        await own.sound()

    own.run(work())


def test_every_attempt_keeps_its_usage_and_its_cost_at_its_upstreams_price(own: OwnBooks) -> None:
    """F17: a failed try that used 7 tokens of input and the one that answered cost what their upstreams charge; only the answer is charged to the customer."""

    async def work() -> None:
        mine, price = await tenant(credit_microusd=10_000), listed(own.book, "echo")
        rows = [make_row(Bucket.UNCACHED_INPUT, "0.25"), make_row(Bucket.OUTPUT, "0.5")]
        cheaper = uuid7()
        await database.fetch(
            """
            INSERT INTO price (id, model, upstream, rows, effective_from, source, creator_kind, creator_name, created_at)
            VALUES ($1, 'echo', 'cheaper', $2, $3, 'invoice', 'system', 'tests', $3)
            """,
            cheaper,
            msgspec.json.encode([msgspec.to_builtins(row) for row in rows]).decode(),
            datetime.now(UTC) - timedelta(seconds=1),
        )
        await own.book.refresh()
        process = calls(own.book)
        admitted = await process.admit(opening(mine.secret, price, input_tokens=10, max_output=100))
        now = datetime.now(UTC)
        failed = AttemptMade(
            uuid7(), 1, "listed", "up-a", UsageOutcome.FAILED, 529, "upstream_529", now, None, now, consumption=Consumption(quantities={"uncached_input": 7})
        )
        answered = AttemptMade(uuid7(), 2, "cheaper", "up-b", UsageOutcome.SUCCEEDED, 200, None, now, now, now, reason="fallback")
        settled = await process.settle(replace(ending(admitted, price, used(10, 20)), provider="cheaper", attempts=(failed, answered)))
        assert settled.charge_microusd == 50
        attempts = await database.fetch("SELECT number, upstream, model, usage, cost_picousd FROM attempt WHERE call_id = $1 ORDER BY number", admitted.call_id)
        assert [(a["number"], a["upstream"], a["model"], msgspec.json.decode(a["usage"]), a["cost_picousd"]) for a in attempts] == [
            (1, "listed", "up-a", {"uncached_input": 7}, 7_000_000),
            (2, "cheaper", "up-b", {"uncached_input": 10, "output": 20}, 10 * 250_000 + 20 * 500_000),
        ]
        cost = await database.fetch_value("SELECT upstream_cost_picousd FROM usage_event WHERE id = $1", admitted.call_id)
        assert cost == 7_000_000 + 12_500_000
        await own.sound()

    own.run(work())
