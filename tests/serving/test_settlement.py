"""Settlement: each call is charged once, exactly, and never more than is there; synchronous, because it turns the clock (see tests/money/own_books.py)."""

import asyncio
from typing import Any
from uuid import UUID

import msgspec
import pytest
from msgspec.structs import replace

from domain import errors
from domain.idempotency import LONGEST_KEY
from domain.money import ledger
from domain.serving import calls as serving
from domain.serving.calls import Consumption, Part
from models import database
from models.enums import Scope
from models.ids import uuid7
from tests.money.own_books import OwnBooks
from tests.serving.openings import calls, ending, listed, opening, priced, sign, used
from tests.support.world import TESTS, Tenant, operator_key, tenant


async def adjust(of: Tenant, amount_microusd: int) -> None:
    """Correct a workspace's cash as an operator."""
    await ledger.adjust(of.caller(Scope.OPERATOR), None, amount_microusd, "correction of the test", uuid7().hex)


async def moved(of: Tenant, call_id: UUID) -> list[tuple[str, str, str, int]]:
    """Return what moved for a call: kind, debited and credited account, microdollars."""
    rows = await database.fetch(
        """
        SELECT t.kind, d.kind AS debit, c.kind AS credit, t.amount FROM transfer t
          JOIN account d ON d.workspace_id = t.workspace_id AND d.id = t.debit_id JOIN account c ON c.workspace_id = t.workspace_id AND c.id = t.credit_id
         WHERE t.workspace_id = $1 AND t.call_id = $2 ORDER BY t.id
        """,
        of.workspace_id,
        call_id,
    )
    return [(row["kind"], row["debit"], row["credit"], row["amount"]) for row in rows]


def as_json(items: list[dict[str, Any]]) -> str:
    """Return items as a batch sends them."""
    return msgspec.json.encode([{**item, "n": place} for place, item in enumerate(items)]).decode()


def test_a_call_is_charged_once_however_often_it_is_settled(own: OwnBooks) -> None:
    """M3, F32: settlements of one call, again, at once and with other numbers, all answer the first charge, and one transfer moved it."""

    async def work() -> None:
        mine, price = await tenant(credit_microusd=1000), listed(own.book, "echo")
        process, other = calls(own.book), calls(own.book, batch=1)
        admitted = await process.admit(opening(mine.secret, price, input_tokens=10, max_output=100))
        first = await process.settle(ending(admitted, price, used(10, 7)))
        again = await asyncio.gather(*(one.settle(ending(admitted, price, used(10, extra))) for extra in range(5) for one in (process, other)))
        assert first.charge_microusd == 24
        assert first.available_microusd == 976
        assert {settled.charge_microusd for settled in again} == {24}
        assert await moved(mine, admitted.call_id) == [("charge", "cash", "revenue", 24)]
        balance = await mine.balance()
        assert (balance.balance, balance.held, balance.available) == (976, 0, 976)
        await own.sound()

    own.run(work())


def test_after_all_calls_end_nothing_is_held(own: OwnBooks) -> None:
    """F4: when 300 calls, some clamped, some streamed, some free of output, have all been settled, held is 0 and available is the ledger's balance."""

    async def work() -> None:
        mine, price = await tenant(credit_microusd=40_000), listed(own.book, "echo")
        process = calls(own.book, batch=17)
        asked = [opening(mine.secret, price, input_tokens=n % 13, max_output=n % 97, instalment=5 if n % 3 else None) for n in range(300)]
        admitted = await asyncio.gather(*(process.admit(one) for one in asked), return_exceptions=True)
        let_in = [answer for answer in admitted if not isinstance(answer, BaseException)]
        settled = await asyncio.gather(*(process.settle(ending(one, price, used(1, min(one.output_tokens, 3)))) for one in let_in))
        charged = sum(one.charge_microusd for one in settled)
        balance = await mine.balance()
        assert (balance.balance, balance.held, balance.available) == (40_000 - charged, 0, 40_000 - charged)
        await own.sound()

    own.run(work())


def test_a_settlement_never_takes_more_than_is_there(own: OwnBooks) -> None:
    """M6, F19: credit taken away between hold and settlement leaves the call charged in full, the balance at its floor, and the rest visibly written off."""

    async def work() -> None:
        mine, price = await tenant(credit_microusd=100), listed(own.book, "echo")
        process = calls(own.book)
        admitted = await process.admit(opening(mine.secret, price, input_tokens=20, max_output=30))
        await adjust(mine, -70)
        settled = await process.settle(ending(admitted, price, used(20, 30)))
        assert settled.charge_microusd == 80
        assert await moved(mine, admitted.call_id) == [("charge", "cash", "revenue", 30), ("write_off", "write_offs", "revenue", 50)]
        balance = await mine.balance()
        assert (balance.balance, balance.held, balance.available) == (0, 0, 0)
        await own.sound()

    own.run(work())


def test_the_next_credit_pays_a_debt_first(own: OwnBooks) -> None:
    """M8: a correction below zero lowers the floor with it; credit lifts it, and only what is above zero can be spent."""

    async def work() -> list[tuple[int, int]]:
        mine = await tenant(credit_microusd=100)
        seen = []
        for change in (-250, 100, 60, 5):
            await adjust(mine, change)
            balance = await mine.balance()
            floor = await database.fetch_value("SELECT floor FROM account WHERE workspace_id = $1 AND kind = 'cash'", mine.workspace_id)
            assert floor == min(0, balance.balance)
            seen.append((balance.balance, balance.available))
        await own.sound()
        return seen

    assert own.run(work()) == [(-150, 0), (-50, 0), (10, 10), (15, 15)]


def test_a_call_that_nobody_settles_ends_as_its_last_progress_says(own: OwnBooks) -> None:
    """M3, M4, F5: the sweep charges the last sign of life, marked as an estimate, and nothing for a call that gave none; no hold stays."""

    async def work() -> None:
        mine, price = await tenant(credit_microusd=1000), listed(own.book, "echo")
        process = calls(own.book)
        silent, alive = (opening(mine.secret, price, input_tokens=10, max_output=100) for _ in range(2))
        for one in (silent, alive):
            await process.admit(one)
        await process.keep(sign(alive, mine.workspace_id, used(10, 4)))
        await own.expire(silent.id, alive.id)
        assert await calls(own.book).sweep() == 2
        assert await moved(mine, alive.id) == [("charge", "cash", "revenue", 18)]
        assert await moved(mine, silent.id) == []
        rows = await database.fetch("SELECT record_id, token_source, outcome, error_code, charge_microusd FROM usage_event WHERE workspace_id = $1", mine.workspace_id)
        assert {row["record_id"]: tuple(row)[1:] for row in rows} == {
            alive.id: ("estimate", "failed", "interrupted", 18),
            silent.id: ("estimate", "failed", "interrupted", 0),
        }
        assert (await mine.balance()).held == 0
        await own.sound()

    own.run(work())


def test_a_sign_of_life_keeps_a_call_from_the_sweep(own: OwnBooks) -> None:
    """A hold that was renewed is not ended, also when the sweep found it expired just before."""

    async def work() -> None:
        mine, price = await tenant(credit_microusd=1000), listed(own.book, "echo")
        process = calls(own.book)
        asked = opening(mine.secret, price, input_tokens=10, max_output=100)
        admitted = await process.admit(asked)
        await own.expire(asked.id)
        await process.keep(sign(asked, mine.workspace_id, used(10, 4)))
        rows = await database.fetch("SELECT * FROM settle_4($1::json, true)", as_json([serving._settlement(ending(admitted, price, used(10, 4)), own.book, by="sweep")]))
        assert [row["result"] for row in rows] == ["alive"]
        assert await process.sweep() == 0
        assert (await mine.balance()).held == 210
        await process.settle(ending(admitted, price, used(10, 5)))
        await own.sound()

    own.run(work())


@pytest.mark.parametrize(("final", "balance"), [((10, 50), 890), ((10, 2), 986), ((10, 4), 982)])
def test_a_late_settlement_posts_the_difference(own: OwnBooks, final: tuple[int, int], balance: int) -> None:
    """A call that the sweep ended at 10 + 2 x 4 = 18 and that went on is charged its final numbers in all: more, less, or the same."""

    async def work() -> None:
        mine, price = await tenant(credit_microusd=1000), listed(own.book, "echo")
        process = calls(own.book)
        asked = opening(mine.secret, price, input_tokens=10, max_output=100)
        admitted = await process.admit(asked)
        await process.keep(sign(asked, mine.workspace_id, used(10, 4)))
        await own.expire(asked.id)
        await calls(own.book).sweep()
        for _ in range(2):
            await process.settle(ending(admitted, price, used(*final)))
        assert (await mine.balance()).balance == balance
        charged, output = await database.fetch_row(
            "SELECT sum(charge_microusd)::bigint, sum(output_tokens)::bigint FROM usage_event WHERE workspace_id = $1 AND record_id = $2", mine.workspace_id, asked.id
        ) or (0, 0)
        assert (charged, output) == (1000 - balance, final[1])
        await own.sound()

    own.run(work())


def test_a_late_settlement_gives_back_only_what_was_paid(own: OwnBooks) -> None:
    """A sweep that charged 210, of which 30 were there to pay and 180 were written off, is corrected to 50: the customer pays 30 of it, 20 are written off."""

    async def work() -> None:
        mine, price = await tenant(credit_microusd=300), listed(own.book, "echo")
        process = calls(own.book)
        asked = opening(mine.secret, price, input_tokens=10, max_output=100)
        admitted = await process.admit(asked)
        await process.keep(sign(asked, mine.workspace_id, used(10, 100)))
        await adjust(mine, -270)
        await own.expire(asked.id)
        await calls(own.book).sweep()
        assert (await mine.balance()).balance == 0
        assert [(await process.settle(ending(admitted, price, used(10, 20)))).charge_microusd for _ in range(2)] == [50, 50]
        assert (await mine.balance()).balance == 0
        assert await moved(mine, asked.id) == [
            ("charge", "cash", "revenue", 30),
            ("write_off", "write_offs", "revenue", 180),
            ("write_off", "revenue", "write_offs", 160),
        ]
        await own.sound()

    own.run(work())


def test_what_a_late_settlement_gives_back_pays_a_debt_first(own: OwnBooks) -> None:
    """M8: money that comes back to a workspace in debt lifts the floor, as any credit does: nothing of it can be spent below zero."""

    async def work() -> None:
        mine, price = await tenant(credit_microusd=300), listed(own.book, "echo")
        process = calls(own.book)
        asked = opening(mine.secret, price, input_tokens=10, max_output=100)
        admitted = await process.admit(asked)
        await process.keep(sign(asked, mine.workspace_id, used(10, 100)))
        await own.expire(asked.id)
        await calls(own.book).sweep()
        await adjust(mine, -140)
        await process.settle(ending(admitted, price, used(10, 80)))
        balance = await mine.balance()
        assert (balance.balance, balance.available) == (-10, 0)
        floor = await database.fetch_value("SELECT floor FROM account WHERE workspace_id = $1 AND kind = 'cash'", mine.workspace_id)
        assert floor == -10
        await own.sound()

    own.run(work())


@pytest.mark.parametrize("sweep_first", [True, False])
def test_a_settlement_that_meets_the_sweep_in_one_batch_counts(own: OwnBooks, sweep_first: bool) -> None:
    """When one statement carries both the sweep's estimate and the call's own end, the call's own end is the charge, in whatever order they stand."""

    async def work() -> None:
        mine, price = await tenant(credit_microusd=1000), listed(own.book, "echo")
        asked = opening(mine.secret, price, input_tokens=10, max_output=100)
        admitted = await calls(own.book).admit(asked)
        await own.expire(asked.id)
        swept = serving._settlement(ending(admitted, price, used(10, 1)), own.book, by="sweep")
        ended = serving._settlement(ending(admitted, price, used(10, 50)), own.book, by="settle")
        items = [swept, ended]
        rows = await database.fetch("SELECT * FROM settle_4($1::json, true)", as_json(items if sweep_first else items[::-1]))
        assert sorted(row["result"] for row in rows) == ["done", "settled"]
        assert {row["charge_microusd"] for row in rows} == {110}
        assert (await mine.balance()).balance == 890
        await own.sound()

    own.run(work())


def test_the_carry_of_a_workspace_is_exact(own: OwnBooks) -> None:
    """Section 3 of the money rules by hand: at 0.10 and 0.50 USD a million, one token in and none out is 100 000 picodollars.

    Nine such calls cost nothing each and carry 900 000; the tenth costs 1 microdollar and carries nothing. A call of 7 in and 5 out, 3 200 000
    picodollars, then costs 3 and carries 200 000, and the next of the same 3 and 400 000; in all 1 + 3 + 3 microdollars and 400 000 picodollars
    carried are the 7 400 000 picodollars that were used.
    """

    async def work() -> tuple[list[int], int, int]:
        mine, price = await tenant(credit_microusd=1000), listed(own.book, "claude-haiku-5-5")
        process, charges = calls(own.book), []
        for tokens in [(1, 0)] * 10 + [(7, 5)] * 2:
            admitted = await process.admit(opening(mine.secret, price, input_tokens=tokens[0], max_output=tokens[1]))
            charges.append((await process.settle(ending(admitted, price, used(*tokens)))).charge_microusd)
        balance = await mine.balance()
        await own.sound()
        return charges, balance.balance, balance.carry_picousd

    assert own.run(work()) == ([0] * 9 + [1, 3, 3], 993, 400_000)


def test_credit_is_given_once_for_each_reference(own: OwnBooks) -> None:
    """M1, M9: a reference that comes twice, or fifty times at once, is booked once; the same key with another amount is a conflict."""

    async def work() -> None:
        mine = await tenant()
        transfers = await asyncio.gather(*(ledger.give(mine.workspace_id, 5, "promotion", "spring", TESTS) for _ in range(50)))
        assert len({transfer.id for transfer in transfers}) == 1
        operator = mine.caller(Scope.OPERATOR)
        first = await asyncio.gather(*(ledger.adjust(operator, None, 7, "goodwill", "ticket-1") for _ in range(20)))
        assert len({transfer.id for transfer in first}) == 1
        with pytest.raises(errors.IdempotencyConflict):
            await ledger.adjust(operator, None, 8, "goodwill", "ticket-1")
        assert (await mine.balance()).balance == 12
        await own.sound()

    own.run(work())


def test_an_operators_key_of_another_workspace_may_adjust(own: OwnBooks) -> None:
    """The books name who corrected them: an adjustment of another workspace's cash has the operator as actor, and only operators may."""

    async def work() -> None:
        mine, theirs = await tenant(), await tenant()
        await operator_key(mine)
        transfer = await ledger.adjust(mine.caller(Scope.OPERATOR), theirs.workspace_id, -3, "chargeback", "k")
        assert (transfer.workspace_id, transfer.amount, transfer.actor.kind.value, transfer.reason) == (theirs.workspace_id, 3, "operator", "chargeback")
        assert (await theirs.balance()).balance == -3
        with pytest.raises(errors.MissingScope):
            await ledger.adjust(mine.caller(), None, 1, "mine", "k")

    own.run(work())


def test_a_hold_lives_from_when_its_lock_was_had(own: OwnBooks) -> None:
    """F5: an admission that waited for its account counts from the end of the wait: its hold is not half over, or over, when it begins."""

    async def work() -> None:
        mine, price, process = await tenant(credit_microusd=1000), listed(own.book, "echo"), calls(own.book)
        async with own.admin.transaction():
            await own.admin.execute("SELECT FROM account WHERE workspace_id = $1 FOR UPDATE", mine.workspace_id)
            admission = asyncio.create_task(process.admit(opening(mine.secret, price, input_tokens=10, max_output=5)))
            while not await own.admin.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pid <> pg_backend_pid())"):
                await asyncio.sleep(0.01)
            released_at = await own.admin.fetchval("SELECT clock_timestamp()")
        admitted = await admission
        assert await database.fetch_value("SELECT created_at FROM hold WHERE call_id = $1", admitted.call_id) >= released_at
        await process.settle(ending(admitted, price, used(1, 1)))

    own.run(work())


def test_a_price_for_each_call_is_charged(own: OwnBooks) -> None:
    """F13: a row of bucket `calls` is charged once for a call that delivered something, and not for one that did not."""

    async def work() -> None:
        mine, price, process = await tenant(credit_microusd=1000), priced("echo", uncached_input="1", output="2", calls="50"), calls(own.book)
        for consumption, charge in ((used(10, 5), 70), (Consumption(), 0)):
            admitted = await process.admit(opening(mine.secret, price, input_tokens=10, max_output=5))
            assert admitted.hold_microusd == 70
            assert (await process.settle(ending(admitted, price, consumption))).charge_microusd == charge
        await own.sound()

    own.run(work())


def test_what_another_model_did_costs_what_that_model_costs(own: OwnBooks) -> None:
    """M5, F13: parts of an answer that other models made are priced by their own versions; one without a price is priced as the call and marked."""

    async def work() -> None:
        mine, price, other, process = await tenant(credit_microusd=1000), listed(own.book, "echo"), listed(own.book, "claude-opus-5-5"), calls(own.book)
        for part, charge, review in ((Part(other.id, {"uncached_input": 10, "output": 1}), 80, False), (Part(price.id, {"output": 3}, unpriced=True), 26, True)):
            asked = opening(mine.secret, price, input_tokens=10, max_output=5)
            admitted = await process.admit(asked)
            consumption = replace(used(10, 5), others=(part,))
            await process.keep(sign(asked, mine.workspace_id, consumption))
            await process.settle(ending(admitted, price, consumption))
            row = await database.fetch_row("SELECT * FROM usage_event WHERE workspace_id = $1 AND id = $2", mine.workspace_id, asked.id)
            assert row is not None
            assert (row["charge_microusd"], row["needs_review"]) == (charge, review)
            assert row["units"] == row["input_tokens"] + row["output_tokens"] == 15 + sum(part.quantities.values())
        await own.sound()

    own.run(work())


def test_a_long_idempotency_key_is_kept_or_refused_by_name(own: OwnBooks) -> None:
    """M9: the longest key that is taken books an adjustment, once; a longer one is refused as such, and not by the database."""

    async def work() -> None:
        mine = await tenant()
        operator = mine.caller(Scope.OPERATOR)
        for _ in range(2):
            transfer = await ledger.adjust(operator, None, 7, "goodwill", "k" * LONGEST_KEY)
        assert transfer.amount == 7
        for key in ("k" * (LONGEST_KEY + 1), "", "nul\x00"):
            with pytest.raises(errors.InvalidInput) as refusal:
                await ledger.adjust(operator, None, 7, "goodwill", key)
            assert refusal.value.path == ("idempotencyKey",)
        assert (await mine.balance()).balance == 7

    own.run(work())


def test_progress_keeps_its_last_word(own: OwnBooks) -> None:
    """What a sign of life says is what a sweep reads: every field comes back as it was written."""

    async def work() -> None:
        mine, price = await tenant(credit_microusd=1000), listed(own.book, "echo")
        asked = opening(mine.secret, price, input_tokens=10, max_output=100)
        await calls(own.book).admit(asked)
        said = Consumption(model="echo", quantities={"output": 4}, service_tier="standard", geography="us", reported=True, characters=9, lines=2, first_token_ms=8)
        await calls(own.book).keep(sign(asked, mine.workspace_id, said))
        kept = await database.fetch_value("SELECT progress::text FROM hold WHERE workspace_id = $1 AND call_id = $2", mine.workspace_id, asked.id)
        assert msgspec.json.decode(kept, type=Consumption) == said

    own.run(work())
