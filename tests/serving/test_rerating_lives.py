"""Any life of calls, corrected prices, re-ratings, corrections, voids and credit leaves the books sound at every step, and every charge as a simple model says."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from domain import duties
from domain.errors import InvalidState
from domain.money import catalogue, grants, ledger
from domain.money.catalogue import ModelEntry, NewPrice, PriceVersion, make_row
from domain.money.grants import NewGrant
from domain.serving import reratings
from domain.serving.calls import Calls
from domain.serving.reratings import NewRerating
from domain.usage import corrections, rollups
from models import database
from models.enums import Bucket, Scope
from models.ids import uuid7
from tests.money.own_books import OwnBooks
from tests.serving.openings import ending, opening, used
from tests.support.world import TESTS, Tenant, tenant

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("call"), st.integers(1, 900)),
        st.tuples(st.just("preview"), st.integers(0, 6)),
        st.tuples(st.just("apply"), st.integers(0, 3)),
        st.tuples(st.just("adjust"), st.integers(0, 9)),
        st.tuples(st.just("void"), st.integers(0, 9)),
        st.tuples(st.just("grant"), st.integers(1, 900)),
        st.tuples(st.just("expire"), st.just(0)),
        st.tuples(st.just("credit"), st.integers(1, 900)),
    ),
    min_size=4,
    max_size=14,
)


@dataclass
class Record:
    """A call as the model has it: its charge and list value in microdollars, and how often anything changed it."""

    tokens: int
    charge: int
    listed: int
    changes: int = 0
    settled_by_hand: bool = False


@dataclass
class Life:
    """A workspace, its calls, and the previews made so far: what each would charge whom, as the calls were."""

    own: OwnBooks
    mine: Tenant
    process: Calls
    price: PriceVersion
    calls: dict[UUID, Record] = field(default_factory=dict)
    previews: list[tuple[UUID, dict[UUID, tuple[int, int]]]] = field(default_factory=list)
    applied: set[int] = field(default_factory=set)

    async def step(self, what: str, number: int) -> None:
        """Do one thing, in the books and in the model."""
        await getattr(self, f"_{what}")(number)
        await self.own.sound()

    def _nth(self, number: int) -> tuple[UUID, Record] | None:
        return list(self.calls.items())[number % len(self.calls)] if self.calls else None

    async def _call(self, tokens: int) -> None:
        await ledger.give(self.mine.workspace_id, tokens, "enough", uuid7().hex, TESTS)
        asked = opening(self.mine.secret, self.price, input_tokens=tokens, max_output=0)
        await self.process.settle(ending(await self.process.admit(asked), self.price, used(tokens, 0)))
        self.calls[asked.id] = Record(tokens, tokens, tokens)

    async def _preview(self, usd: int) -> None:
        caller = self.mine.caller(Scope.OPERATOR)
        rows = (make_row(Bucket.UNCACHED_INPUT, str(usd)),)
        price = await catalogue.create(caller, NewPrice(self.price.model, rows, "corrected", uuid7().hex), self.own.book)
        made = await reratings.create(caller, NewRerating(price.id, "wrong", uuid7().hex, start=caller.at - timedelta(days=1)), self.own.book)
        await self._work()
        found = {
            key: (usd * each.tokens, each.changes)
            for key, each in self.calls.items()
            if not each.settled_by_hand and (each.charge, each.listed) != (usd * each.tokens,) * 2
        }
        told = await reratings.find(caller, made.id)
        assert told.calls == len(found)
        assert told.charged_microusd - told.credited_microusd == sum(target - self.calls[key].charge for key, (target, _) in found.items())
        self.previews.append((made.id, found))

    async def _apply(self, number: int) -> None:
        if not self.previews:
            return
        place = number % len(self.previews)
        rerating_id, found = self.previews[place]
        await reratings.apply(self.mine.caller(Scope.OPERATOR), rerating_id)
        await self._work()
        if place in self.applied:
            return
        self.applied.add(place)
        for key, (target, changes) in found.items():
            each = self.calls[key]
            if each.changes == changes:
                each.charge = each.listed = target
                each.changes += 1

    async def _adjust(self, number: int) -> None:
        named = self._nth(number)
        if named is None:
            return
        await ledger.give(self.mine.workspace_id, number * 100 + 1, "enough", uuid7().hex, TESTS)
        try:
            await corrections.adjust(self.mine.caller(Scope.OPERATOR), named[0], units=None, charge_microusd=number * 100, reason="agreed")
        except InvalidState:  # voided
            return
        if named[1].charge != number * 100:
            named[1].charge, named[1].settled_by_hand = number * 100, True
            named[1].changes += 1

    async def _void(self, number: int) -> None:
        named = self._nth(number)
        if named is not None:
            await corrections.void(self.mine.caller(Scope.OPERATOR), named[0], "a duplicate")
            named[1].charge, named[1].listed, named[1].settled_by_hand = 0, 0, True
            named[1].changes += 1

    async def _grant(self, amount: int) -> None:
        new = NewGrant(amount, "a gift", uuid7().hex, expires_at=datetime.now(UTC) + timedelta(days=1))
        await grants.create(self.mine.caller(Scope.OPERATOR), self.mine.workspace_id, new)

    async def _expire(self, _: int) -> None:
        past = "clock_timestamp() - interval '2 hours'"
        await self.own.admin.execute(f"UPDATE credit_grant SET expires_at = {past} WHERE workspace_id = $1", self.mine.workspace_id)
        await grants.sweep()

    async def _credit(self, amount: int) -> None:
        await ledger.give(self.mine.workspace_id, amount, "credit", uuid7().hex, TESTS)

    async def _work(self) -> None:
        for row in await database.fetch("SELECT id FROM job WHERE status = 'queued' AND kind = ANY ($1) ORDER BY created_at", [reratings.PREVIEW, reratings.APPLY]):
            duty = await duties.claim(row["id"])
            assert duty is not None
            await (reratings.preview(duty, self.own.book) if duty.kind == reratings.PREVIEW else reratings.post(duty))

    async def check(self) -> None:
        """Compare every record with the model, before and after the fold."""
        rows = await database.fetch(
            "SELECT record_id, sum(charge_microusd)::bigint AS charge, sum(list_microusd)::bigint AS listed FROM usage_event WHERE workspace_id = $1 GROUP BY 1",
            self.mine.workspace_id,
        )
        assert {row["record_id"]: (row["charge"], row["listed"]) for row in rows} == {key: (each.charge, each.listed) for key, each in self.calls.items()}
        moved = await database.fetch_value(
            """
            SELECT coalesce(sum(CASE WHEN a.id = t.credit_id THEN t.amount ELSE -t.amount END), 0)::bigint FROM transfer t
              JOIN account a ON a.workspace_id = t.workspace_id AND a.id IN (t.debit_id, t.credit_id) AND a.kind = 'revenue' WHERE t.workspace_id = $1
            """,
            self.mine.workspace_id,
        )
        assert moved == sum(each.charge for each in self.calls.values())
        while await rollups.fold():
            pass
        await self.own.sound()


async def _live(own: OwnBooks, steps: list[tuple[str, int]]) -> None:
    now = datetime.now(UTC)
    name = f"life-{uuid7().hex[-12:]}"
    entry: Any = ModelEntry(name=name, display_name=name, vendor=None, rows=(make_row(Bucket.UNCACHED_INPUT, "1"),))
    await catalogue.enter(entry, source="tests", effective_from=now, actor=TESTS, at=now)
    await own.book.refresh()
    price = own.book.price(name, datetime.now(UTC))
    assert price is not None
    life = Life(own, await tenant(), Calls(own.book, batch=1, hold_seconds=60), price)
    for what, number in steps:
        await life.step(what, number)
    await life.check()


@settings(max_examples=12, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate), suppress_health_check=list(HealthCheck))
@given(STEPS)
def test_any_life_leaves_the_books_sound(own: OwnBooks, steps: list[tuple[str, int]]) -> None:
    """Interleaved as they come: no charge is corrected twice, none is lost, and every payer's account is what its transfers say."""
    own.run(_live(own, steps))
