"""Group commit decides nothing that single calls would decide otherwise; synchronous, because Hypothesis runs it (see tests/money/own_books.py)."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from domain import errors
from domain.access.limits import BoundInput
from domain.money import grants, ledger, subscriptions, tiers
from domain.money.grants import NewGrant
from domain.money.tiers import tiers_of
from domain.serving.calls import Admitted, Opening
from models import database
from models.enums import ApiKeyKind, ApiKeyMode, LimitPer, Measure, Scope
from models.ids import uuid7
from tests.money.own_books import OwnBooks
from tests.serving.openings import calls, ending, listed, opening, priced, sign, used
from tests.support.world import Tenant, tenant

FEW = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
LIMITS = (("tokens", "24h", 200), ("api_calls", "5h", 9), ("credits", "24h", 1), ("conversations", "24h", 1))
TIER = {"slug": "even", "name": "Even", "price_cents": 0, "limits": [{"resource": r, "window": w, "limit": most} for r, w, most in LIMITS]}
GRATIS = priced("gratis", uncached_input="0", output="0")


@dataclass(frozen=True, slots=True)
class Plan:
    """One call of a stream of them: which workspace and key, what it asks for, and how it ends."""

    place: int
    key: int
    model: str
    input_tokens: int
    max_output: int
    instalment: int | None
    end_user: str | None


PLANS = st.lists(
    st.builds(
        Plan,
        place=st.integers(0, 1),
        key=st.integers(0, 4),
        model=st.sampled_from(["echo", "echo", "claude-haiku-5-5", "gratis"]),
        input_tokens=st.integers(0, 40),
        max_output=st.integers(0, 60),
        instalment=st.none() | st.integers(0, 20),
        end_user=st.sampled_from([None, "ann", "bob"]),
    ),
    min_size=1,
    max_size=25,
)


async def stage(own: OwnBooks, credits: list[int]) -> tuple[list[Tenant], list[list[str]]]:
    """Make two workspaces with five keys each: one free, one with a budget, one with limits, one for tests, one of a subscription.

    The first workspace allows overage, and the second has grants, which pay before its cash.
    """
    tenants = [await tenant(credit_microusd=credit) for credit in credits]
    await tiers.keep(tiers_of({"tier": [TIER]}), at=datetime.now(UTC))
    await subscriptions.allow_overage(tenants[0].caller(), True)
    for amount, priority in ((40, 5), (25, 1)):
        await grants.create(tenants[1].caller(Scope.OPERATOR), tenants[1].workspace_id, NewGrant(amount, "launch", f"g{priority}", priority=priority))
    secrets = []
    for mine in tenants:
        budgets = (BoundInput(Measure.MONEY, "day", 120), BoundInput(Measure.MONEY, "5h", 50, LimitPer.END_USER))
        limits = (BoundInput(Measure.TOKENS, "day", 150), BoundInput(Measure.CALLS, "1h", 6), BoundInput(Measure.CONCURRENT, "concurrent", 4))
        _, budgeted = await mine.mint(budgets=budgets)
        _, limited = await mine.mint(limits=limits)
        _, testing = await mine.mint(mode=ApiKeyMode.TEST)
        _, subscribed = await mine.mint(kind=ApiKeyKind.SUBSCRIPTION)
        await subscriptions.grant(mine.caller(Scope.OPERATOR), mine.workspace_id, "even", "for the test", idempotency_key="s")
        secrets.append([mine.secret, budgeted, limited, testing, subscribed])
    return tenants, secrets


def asked_of(own: OwnBooks, secrets: list[list[str]], plans: list[Plan]) -> list[Opening]:
    """Make the calls of a plan."""
    prices = {"echo": listed(own.book, "echo"), "claude-haiku-5-5": listed(own.book, "claude-haiku-5-5"), "gratis": GRATIS}
    return [
        opening(
            secrets[plan.place][plan.key],
            prices[plan.model],
            input_tokens=plan.input_tokens,
            max_output=plan.max_output,
            instalment=None if plan.instalment is None else min(plan.instalment, plan.max_output),
            end_user=plan.end_user,
            conversation=plan.end_user,
            **({"road": "tool", "endpoint": "/cursor/v1/messages"} if plan.key == 4 else {}),
        )
        for plan in plans
    ]


def verdict(answer: Admitted | BaseException) -> tuple[Any, ...]:
    """Return what a caller hears, without identities and instants."""
    if isinstance(answer, Admitted):
        return ("admitted", answer.hold_microusd, answer.output_tokens, answer.clamped, answer.payer)
    if isinstance(answer, errors.InsufficientCredit):
        return ("insufficient", answer.available_microusd, answer.required_microusd)
    if isinstance(answer, errors.BoundReached):
        return ("bound", answer.bound, answer.passes)
    assert isinstance(answer, errors.Refusal), answer
    return (type(answer).__name__,)


async def state(of: Tenant) -> tuple[Any, ...]:
    """Return all that the books say of a workspace, without identities and instants."""
    account = await database.fetch_row(
        "SELECT credits, debits, held, floor, version, carry_picousd, list_carry_picousd FROM account WHERE workspace_id = $1 AND kind = 'cash'", of.workspace_id
    )
    windows = await database.fetch(
        """
        SELECT b.measure, b."window", w.scope, w.spent, w.held, w.started_at IS NULL AS fresh FROM bound_window w
          JOIN bound b ON b.workspace_id = w.workspace_id AND b.id = w.bound_id WHERE w.workspace_id = $1 ORDER BY 1, 2, 3
        """,
        of.workspace_id,
    )
    given = await database.fetch(
        """
        SELECT g.priority, a.credits, a.debits, a.held FROM credit_grant g JOIN account a ON a.workspace_id = g.workspace_id AND a.id = g.id
         WHERE g.workspace_id = $1 ORDER BY 1
        """,
        of.workspace_id,
    )
    return (tuple(account or ()), [tuple(row) for row in windows], [tuple(row) for row in given])


async def flows(of: Tenant, ids: list[UUID]) -> list[tuple[int, str, int, bool]]:
    """Return what moved for calls: which call, kind, microdollars, whether the balance gave or the write-offs did."""
    rows = await database.fetch(
        """
        SELECT t.call_id, t.kind, t.amount, d.kind IN ('cash', 'write_offs') AS given FROM transfer t
          JOIN account d ON d.workspace_id = t.workspace_id AND d.id = t.debit_id WHERE t.workspace_id = $1 AND t.call_id IS NOT NULL
        """,
        of.workspace_id,
    )
    return sorted((ids.index(row["call_id"]), row["kind"], row["amount"], row["given"]) for row in rows)


@FEW
@given(plans=PLANS, credits=st.tuples(st.integers(0, 400), st.integers(0, 4000)), cuts=st.sampled_from([2, 7, 500]))
@example(plans=[Plan(0, 0, "echo", 7, 0, None, None)] * 20, credits=(100, 0), cuts=500)
@example(plans=[Plan(0, 2, "echo", 7, 60, None, None)] * 8, credits=(4000, 0), cuts=500)
@example(plans=[Plan(0, 4, "echo", 7, 20, None, "ann"), Plan(1, 4, "echo", 7, 20, 5, "bob"), Plan(1, 0, "echo", 7, 20, 5, None)] * 6, credits=(90, 30), cuts=500)
def test_admissions_in_batches_are_those_of_single_calls(own: OwnBooks, plans: list[Plan], credits: tuple[int, int], cuts: int) -> None:
    """The same calls in the same order get the same verdicts, the same holds and leave the same state, one by one and in batches."""

    async def admit(batch: int) -> tuple[list[Any], list[Any]]:
        tenants, secrets = await stage(own, list(credits))
        process = calls(own.book, batch=batch)
        asked = asked_of(own, secrets, plans)
        if batch == 1:
            heard: list[Any] = [(await asyncio.gather(process.admit(one), return_exceptions=True))[0] for one in asked]
        else:
            heard = await asyncio.gather(*(process.admit(one) for one in asked), return_exceptions=True)
        return [verdict(answer) for answer in heard], [await state(mine) for mine in tenants]

    async def work() -> None:
        assert await admit(cuts) == await admit(1)
        await own.sound()

    own.run(work())


ENDS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60), st.sampled_from(["settle", "settle", "swept", "late"])), min_size=1, max_size=14)


@FEW
@given(ends=ENDS, credit=st.integers(0, 300), debt=st.integers(0, 900), model=st.sampled_from(["echo", "claude-haiku-5-5"]))
@example(ends=[(60, 60, "settle"), (5, 0, "late"), (4, 4, "settle")], credit=100, debt=90, model="echo")
@example(ends=[(5, 0, "late"), (5, 0, "late"), (9, 9, "settle")], credit=0, debt=700, model="echo")
def test_settlements_in_batches_are_those_of_single_calls(own: OwnBooks, ends: list[tuple[int, int, str]], credit: int, debt: int, model: str) -> None:
    """The same ends in the same order charge, write off, give back and carry the same, one by one and in one statement.

    Among them are calls that the sweep ended by an estimate before, and a workspace that a correction has put into debt.
    """

    async def settle(batch: int) -> tuple[list[int], Any, list[Any]]:
        mine = await tenant(credit_microusd=credit + 200 * len(ends))
        price, process = listed(own.book, model), calls(own.book, batch=batch)
        asked = [opening(mine.secret, price, input_tokens=10, max_output=60) for _ in ends]
        admitted = [await process.admit(one) for one in asked]
        for one, (_, _, how) in zip(asked, ends, strict=True):
            if how != "settle":
                await process.keep(sign(one, mine.workspace_id, used(20, 20)))
        gone = credit + 200 * len(ends) - 100 + debt
        await ledger.adjust(mine.caller(Scope.OPERATOR), None, -gone, "chargeback", uuid7().hex)
        await own.expire(*(one.id for one, (_, _, how) in zip(asked, ends, strict=True) if how != "settle"))
        await calls(own.book, batch=1).sweep()
        final = [ending(one, price, used(spent, put_out)) for one, (spent, put_out, how) in zip(admitted, ends, strict=True) if how != "swept"]
        if batch == 1:
            settled = [await process.settle(one) for one in final]
        else:
            settled = await asyncio.gather(*(process.settle(one) for one in final))
        return [one.charge_microusd for one in settled], await state(mine), await flows(mine, [one.id for one in asked])

    async def work() -> None:
        assert await settle(500) == await settle(1)
        await own.sound()

    own.run(work())
