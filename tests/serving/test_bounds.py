"""Budgets and limits: what was set is read back, and what exceeds it is refused; synchronous, because it turns the clock (see tests/money/own_books.py)."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from domain import errors
from domain.access import keys, limits
from domain.access.keys import KeyChanges
from domain.access.limits import BoundInput
from domain.money import ledger
from domain.money.amounts import LARGEST_MICROUSD
from domain.serving.calls import Admitted
from models import database
from models.enums import LimitPer, Measure, SubjectKind
from models.ids import uuid7
from tests.money.own_books import OwnBooks
from tests.serving.openings import calls, ending, listed, opening, sign, used
from tests.support.world import TESTS, Tenant, tenant

ROLLING = ("90s", "1m", "5h", "24h", "7d")
CALENDAR = ("day", "week", "month", "billing_period", "lifetime")


async def bounds(of: Tenant, subject: Any) -> list[limits.BoundView]:
    """Return the bounds of a subject as they are shown."""
    return (await limits.of_subjects(of.workspace_id, [subject])).get(subject, [])


@pytest.mark.parametrize("window", [*ROLLING, *CALENDAR])
@pytest.mark.parametrize("measure", [Measure.MONEY, Measure.CALLS, Measure.TOKENS])
def test_a_bound_is_kept_in_every_window(own: OwnBooks, measure: Measure, window: str) -> None:
    """F3: a key's bound is created, read back, filled to the brim, and refuses the next call, which holds nothing; another key goes on."""

    async def work() -> None:
        mine, price, process = await tenant(credit_microusd=100_000), listed(own.book, "echo"), calls(own.book)
        most = {Measure.MONEY: 40, Measure.CALLS: 2, Measure.TOKENS: 30}[measure]
        bound = BoundInput(measure, window, most)
        key, secret = await mine.mint(**{"budgets" if measure is Measure.MONEY else "limits": (bound,)})
        shown = (await bounds(mine, key.id))[0]
        assert (shown.measure, shown.window, shown.most, shown.spent, shown.held) == (measure, window, most, 0, 0)
        for _ in range(2):
            admitted = await process.admit(opening(secret, price, input_tokens=10, max_output=5))
            await process.settle(ending(admitted, price, used(10, 5)))
        shown = (await bounds(mine, key.id))[0]
        assert (shown.spent, shown.held) == (most, 0)
        assert (shown.ends_at is None) == (window == "lifetime")
        with pytest.raises(errors.BoundReached) as refusal:
            await process.admit(opening(secret, price, input_tokens=10, max_output=5))
        assert refusal.value.bound == f"{measure.value} in {window}"
        assert refusal.value.resets_at == shown.ends_at
        assert (await mine.balance()).held == 0
        await process.admit(opening(mine.secret, price, input_tokens=10, max_output=5))
        await own.sound()

    own.run(work())


@pytest.mark.parametrize("window", ["90s", "5h", "day", "month"])
def test_a_window_that_is_over_starts_empty_in_every_process(own: OwnBooks, window: str) -> None:
    """F7: after a reset the first call on any process is admitted, the window begins anew with it, and its bound is exact again."""

    async def work() -> None:
        mine, price = await tenant(credit_microusd=100_000), listed(own.book, "echo")
        key, secret = await mine.mint(budgets=(BoundInput(Measure.MONEY, window, 20),))
        first, second = calls(own.book), calls(own.book)
        asked = {"input_tokens": 10, "max_output": 5}
        await first.settle(ending(await first.admit(opening(secret, price, **asked)), price, used(10, 5)))
        with pytest.raises(errors.BoundReached):
            await second.admit(opening(secret, price, **asked))
        await own.end_windows(mine.workspace_id)
        assert (await bounds(mine, key.id))[0].spent == 0
        before = datetime.now(UTC)
        admitted = await second.admit(opening(secret, price, **asked))
        shown = (await bounds(mine, key.id))[0]
        assert (shown.spent, shown.held) == (0, 20)
        assert shown.started_at is not None
        assert shown.ends_at is not None
        if window in ROLLING:
            assert shown.started_at >= before - timedelta(seconds=1)
            assert shown.ends_at - shown.started_at == {"90s": timedelta(seconds=90), "5h": timedelta(hours=5)}[window]
        with pytest.raises(errors.BoundReached):
            await first.admit(opening(secret, price, **asked))
        await first.settle(ending(admitted, price, used(10, 1)))
        shown = (await bounds(mine, key.id))[0]
        assert (shown.spent, shown.held) == (12, 0)
        await own.sound()

    own.run(work())


def test_a_stream_may_grow_into_a_window_that_began_anew(own: OwnBooks) -> None:
    """F7: a call that goes on past the end of its budget's window is not stopped by what was spent in the window before."""

    async def work() -> None:
        mine, price, process = await tenant(credit_microusd=100_000), listed(own.book, "echo"), calls(own.book)
        _, secret = await mine.mint(budgets=(BoundInput(Measure.MONEY, "1m", 100),))
        spent = await process.admit(opening(secret, price, input_tokens=10, max_output=35))
        await process.settle(ending(spent, price, used(10, 35)))
        stream = opening(secret, price, input_tokens=2, max_output=30, instalment=5)
        await process.admit(stream)
        assert await process.keep(sign(stream, mine.workspace_id, used(2, 5), output_tokens=10)) == 9
        await own.end_windows(mine.workspace_id)
        assert await process.keep(sign(stream, mine.workspace_id, used(2, 5), output_tokens=30)) == 30
        await own.sound()

    own.run(work())


@pytest.mark.parametrize("most", [None, LARGEST_MICROUSD])
def test_a_stream_grows_however_large_its_budget_or_balance(own: OwnBooks, most: int | None) -> None:
    """F3, F4: a budget that means "as good as none", or a balance of ten million dollars, is more picodollars than 63 bits hold, and grows a hold all the same."""

    async def work() -> None:
        mine, price, process = await tenant(credit_microusd=100_000), listed(own.book, "echo"), calls(own.book)
        _, secret = await mine.mint(budgets=() if most is None else (BoundInput(Measure.MONEY, "day", most),))
        if most is None:
            for part in range(10):
                await ledger.give(mine.workspace_id, 10**12, "a tenth of ten million dollars", f"rich:{mine.workspace_id}:{part}", TESTS)
        stream = opening(secret, price, input_tokens=2, max_output=30, instalment=5)
        await process.admit(stream)
        assert await process.keep(sign(stream, mine.workspace_id, used(2, 5), output_tokens=30)) == 30
        await own.sound()

    own.run(work())


def test_calendar_windows_follow_the_workspaces_zone(own: OwnBooks) -> None:
    """F26: `day` begins at the workspace's midnight, `week` on its Monday, `month` on its first, also where the offset has quarters and on the day the clocks change."""

    async def work() -> list[tuple[str, str]]:
        cases = [
            ("Asia/Kathmandu", "day", "2026-11-21T20:00:00Z"),
            ("America/New_York", "day", "2026-03-08T12:00:00Z"),
            ("Europe/Berlin", "week", "2026-10-25T23:30:00Z"),
            ("Pacific/Kiritimati", "month", "2026-12-31T11:00:00Z"),
            ("UTC", "billing_period", "2026-02-28T23:59:59Z"),
        ]
        rows = [await database.fetch_row("SELECT * FROM window_1($2, $1, $3)", zone, window, datetime.fromisoformat(at)) for zone, window, at in cases]
        return [(row["begins"].isoformat(), row["ends"].isoformat()) for row in rows if row is not None]

    assert own.run(work()) == [
        ("2026-11-21T18:15:00+00:00", "2026-11-22T18:15:00+00:00"),
        ("2026-03-08T05:00:00+00:00", "2026-03-09T04:00:00+00:00"),
        ("2026-10-25T23:00:00+00:00", "2026-11-01T23:00:00+00:00"),
        ("2026-12-31T10:00:00+00:00", "2027-01-31T10:00:00+00:00"),
        ("2026-02-01T00:00:00+00:00", "2026-03-01T00:00:00+00:00"),
    ]


def test_only_so_many_calls_are_under_way_at_once(own: OwnBooks) -> None:
    """F8: of 60 calls at once over three processes a limit of 5 concurrent ones lets in 5; each end, settled or swept, makes room for one more."""

    async def work() -> None:
        mine, price = await tenant(credit_microusd=100_000), listed(own.book, "echo")
        _, secret = await mine.mint(limits=(BoundInput(Measure.CONCURRENT, "concurrent", 5),))
        processes = [calls(own.book), calls(own.book, batch=7), calls(own.book, batch=1)]
        heard = await asyncio.gather(*(processes[n % 3].admit(opening(secret, price, input_tokens=1, max_output=1)) for n in range(60)), return_exceptions=True)
        under_way = [answer for answer in heard if isinstance(answer, Admitted)]
        assert len(under_way) == 5
        assert {type(answer) for answer in heard} == {Admitted, errors.BoundReached}
        await processes[0].settle(ending(under_way[0], price, used(1, 1)))
        await own.expire(under_way[1].call_id)
        await processes[0].sweep()
        for _ in range(2):
            await processes[1].admit(opening(secret, price, input_tokens=1, max_output=1))
        with pytest.raises(errors.BoundReached) as refusal:
            await processes[2].admit(opening(secret, price, input_tokens=1, max_output=1))
        assert refusal.value.resets_at is None
        await own.sound()

    own.run(work())


def test_several_processes_share_a_limit_exactly(own: OwnBooks) -> None:
    """F8: three processes with a limit of 50 calls an hour between them let in exactly 50 of 300 calls at once."""

    async def work() -> None:
        mine, price = await tenant(credit_microusd=100_000), listed(own.book, "echo")
        _, secret = await mine.mint(limits=(BoundInput(Measure.CALLS, "1h", 50),))
        processes = [calls(own.book), calls(own.book, batch=7), calls(own.book, batch=1)]
        heard = await asyncio.gather(*(processes[n % 3].admit(opening(secret, price, input_tokens=1, max_output=1)) for n in range(300)), return_exceptions=True)
        assert sum(isinstance(answer, Admitted) for answer in heard) == 50
        await own.sound()

    own.run(work())


def test_the_first_call_of_an_unknown_end_user_meets_the_bound(own: OwnBooks) -> None:
    """F2: a bound on each end user holds from an end user's very first call, 30 at once, and each end user has one of their own."""

    async def work() -> None:
        mine, price, process = await tenant(credit_microusd=100_000), listed(own.book, "echo"), calls(own.book)
        key, secret = await mine.mint(budgets=(BoundInput(Measure.MONEY, "day", 9, LimitPer.END_USER),))
        asked = [opening(secret, price, input_tokens=3, max_output=0, end_user=f"user-{n % 3}") for n in range(30)]
        heard = await asyncio.gather(*(process.admit(one) for one in asked), return_exceptions=True)
        let_in = [one.end_user for one, answer in zip(asked, heard, strict=True) if isinstance(answer, Admitted)]
        assert {user: let_in.count(user) for user in set(let_in)} == {"user-0": 3, "user-1": 3, "user-2": 3}
        assert (await bounds(mine, key.id))[0].spent is None
        await own.sound()

    own.run(work())


def test_a_bound_counts_what_it_names(own: OwnBooks) -> None:
    """A bound on a model counts that model's calls alone; one on an address, each address; one on the workspace, every key's; one on a member, their keys'."""

    async def work() -> None:
        mine, price, process = await tenant(credit_microusd=100_000), listed(own.book, "echo"), calls(own.book)
        _, modelled = await mine.mint(limits=(BoundInput(Measure.CALLS, "day", 1, model="gpt-5.5"),))
        await process.admit(opening(modelled, price, input_tokens=1, max_output=0))
        await process.admit(opening(modelled, listed(own.book, "gpt-5.5"), input_tokens=1, max_output=0))
        await process.admit(opening(modelled, price, input_tokens=1, max_output=0))
        with pytest.raises(errors.BoundReached):
            await process.admit(opening(modelled, listed(own.book, "gpt-5.5"), input_tokens=1, max_output=0))

        _, addressed = await mine.mint(limits=(BoundInput(Measure.CALLS, "day", 1, LimitPer.ADDRESS),))
        for address in ("203.0.113.1", "203.0.113.2"):
            await process.admit(opening(addressed, price, input_tokens=1, max_output=0, address=address))
        with pytest.raises(errors.BoundReached):
            await process.admit(opening(addressed, price, input_tokens=1, max_output=0, address="203.0.113.1"))

        member = await database.fetch_value("SELECT id FROM member WHERE workspace_id = $1", mine.workspace_id)
        for kind, subject in ((SubjectKind.MEMBER, member), (SubjectKind.WORKSPACE, mine.workspace_id)):
            theirs = mine if kind is SubjectKind.MEMBER else await tenant(credit_microusd=1000)
            async with database.transaction():
                bound = (BoundInput(Measure.CALLS, "lifetime", 1),)
                await limits.replace(theirs.workspace_id, kind, subject if theirs is mine else theirs.workspace_id, (Measure.CALLS,), bound, at=datetime.now(UTC))
            _, other = await theirs.mint()
            await process.admit(opening(theirs.secret, price, input_tokens=1, max_output=0))
            with pytest.raises(errors.BoundReached):
                await process.admit(opening(other, price, input_tokens=1, max_output=0))
        await own.sound()

    own.run(work())


def test_a_bound_that_changes_keeps_what_was_spent(own: OwnBooks) -> None:
    """F3: a budget raised lets more in, lowered below what is spent lets nothing in, removed lets all in; calls under way in between end with nothing held."""

    async def work() -> None:
        mine, price, process = await tenant(credit_microusd=100_000), listed(own.book, "echo"), calls(own.book)
        key, secret = await mine.mint(budgets=(BoundInput(Measure.MONEY, "month", 10),))
        under_way = [await process.admit(opening(secret, price, input_tokens=10, max_output=0))]

        async def change(*budgets: BoundInput) -> None:
            await keys.update(mine.caller(), key.id, KeyChanges(budgets=budgets))

        await change(BoundInput(Measure.MONEY, "month", 25))
        under_way.append(await process.admit(opening(secret, price, input_tokens=10, max_output=0)))
        await change(BoundInput(Measure.MONEY, "month", 5))
        with pytest.raises(errors.BoundReached):
            await process.admit(opening(secret, price, input_tokens=1, max_output=0))
        shown = (await bounds(mine, key.id))[0]
        assert (shown.most, shown.spent, shown.held) == (5, 0, 20)
        await change()
        assert await bounds(mine, key.id) == []
        under_way.append(await process.admit(opening(secret, price, input_tokens=50, max_output=0)))
        await asyncio.gather(*(process.settle(ending(one, price, used(1, 0))) for one in under_way))
        assert await database.fetch_value("SELECT sum(held) FROM bound_window WHERE workspace_id = $1", mine.workspace_id) == 0
        assert (await mine.balance()).held == 0
        await own.sound()

    own.run(work())


def test_a_bound_clamps_before_it_refuses(own: OwnBooks) -> None:
    """A budget or token limit that has room for some output gives that much: 5 + 2 x 7 = 19 of 20 microdollars, 5 + 8 of 13 tokens."""

    async def work() -> None:
        mine, price, process = await tenant(credit_microusd=100_000), listed(own.book, "echo"), calls(own.book)
        _, budgeted = await mine.mint(budgets=(BoundInput(Measure.MONEY, "day", 20),))
        _, limited = await mine.mint(limits=(BoundInput(Measure.TOKENS, "day", 13),))
        first = await process.admit(opening(budgeted, price, input_tokens=5, max_output=100))
        second = await process.admit(opening(limited, price, input_tokens=5, max_output=100))
        assert (first.output_tokens, first.hold_microusd, first.clamped) == (7, 19, True)
        assert (second.output_tokens, second.hold_microusd, second.clamped) == (8, 21, True)
        await own.sound()

    own.run(work())


def test_a_late_settlement_corrects_what_a_token_limit_has_counted(own: OwnBooks) -> None:
    """A swept call counts its estimate; its own end, coming late, makes it the real number, up or down."""

    async def work() -> None:
        mine, price, process = await tenant(credit_microusd=100_000), listed(own.book, "echo"), calls(own.book)
        key, secret = await mine.mint(limits=(BoundInput(Measure.TOKENS, "day", 1000),))
        for estimate, final in ((4, 50), (90, 2)):
            asked = opening(secret, price, input_tokens=10, max_output=100)
            admitted = await process.admit(asked)
            before = (await bounds(mine, key.id))[0].spent or 0
            await process.keep(sign(asked, mine.workspace_id, used(10, estimate)))
            await own.expire(asked.id)
            await process.sweep()
            assert (await bounds(mine, key.id))[0].spent == before + 10 + estimate
            await process.settle(ending(admitted, price, used(10, final)))
            assert (await bounds(mine, key.id))[0].spent == before + 10 + final
        await own.sound()

    own.run(work())


def test_what_cannot_be_kept_is_not_taken() -> None:
    """Malformed bounds are refused by name: unknown windows, concurrency with a window, negative or absurd numbers, the same window twice, too many."""
    refused: list[tuple[tuple[BoundInput, ...], type[errors.Refusal], tuple[str, ...]]] = [
        ((BoundInput(Measure.MONEY, "fortnight", 1),), errors.InvalidInput, ("budgets", "0", "window")),
        ((BoundInput(Measure.MONEY, "0s", 1),), errors.InvalidInput, ("budgets", "0", "window")),
        ((BoundInput(Measure.MONEY, "401d", 1),), errors.InvalidInput, ("budgets", "0", "window")),
        ((BoundInput(Measure.CONCURRENT, "day", 1),), errors.InvalidInput, ("budgets", "0", "window")),
        ((BoundInput(Measure.CALLS, "concurrent", 1),), errors.InvalidInput, ("budgets", "0", "window")),
        ((BoundInput(Measure.MONEY, "day", -1),), errors.OutOfRange, ("budgets", "0", "limit")),
        ((BoundInput(Measure.MONEY, "day", 2**53),), errors.OutOfRange, ("budgets", "0", "limit")),
        ((BoundInput(Measure.MONEY, "day", 1, model=""),), errors.InvalidInput, ("budgets", "0", "model")),
        ((BoundInput(Measure.MONEY, "day", 1), BoundInput(Measure.MONEY, "day", 2)), errors.InvalidInput, ("budgets", "1", "window")),
        (tuple(BoundInput(Measure.MONEY, f"{n}d", 1) for n in range(1, 22)), errors.OutOfRange, ("budgets",)),
    ]
    for bounds_, kind, path in refused:
        with pytest.raises(kind) as refusal:
            limits.check(bounds_, path="budgets")
        assert refusal.value.path == path


def test_a_workspace_never_sees_anothers_bounds(own: OwnBooks) -> None:
    """F30: a subject of another workspace, or one that does not exist, has no bounds here."""

    async def work() -> None:
        mine, theirs = await tenant(), await tenant()
        key, _ = await theirs.mint(budgets=(BoundInput(Measure.MONEY, "day", 1),))
        assert await bounds(mine, key.id) == []
        assert await bounds(mine, uuid7()) == []

    own.run(work())
