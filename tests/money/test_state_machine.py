"""The ledger against a model of forty lines, in any order that Hypothesis can think of.

Synchronous, with a database and a loop of its own: see tests/money/own_books.py. The model decides call by call, in integers; the real books
decide in SQL. After every step both say the same, the audit is empty, and micros and carry are the picos that were used.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule, run_state_machine_as_test

from domain import errors
from domain.access import keys
from domain.access.keys import KeyChanges, KeyView
from domain.access.limits import BoundInput
from domain.money import catalogue, ledger
from domain.money.catalogue import ModelEntry, PriceVersion, make_row
from domain.serving.calls import Admitted, Opening
from models import database
from models.enums import ApiKeyMode, Bucket, Measure, Scope
from models.ids import uuid7
from tests.money.own_books import OwnBooks
from tests.serving.openings import calls, ending, listed, opening, sign, used
from tests.support.world import TESTS, Tenant, tenant

MICRO = 10**6
PHASES = (Phase.explicit, Phase.generate)
"""Not shrinking: a step is a few statements, and shrinking a failure would take longer than reading it."""
PRICES = {"echo": (10**6, 2 * 10**6), "claude-haiku-5-5": (200_000, 500_000), "gratis": (0, 0)}
"""The dearest token of input and of output, in picodollars: what a hold reckons with."""
CHARGES = {"echo": (10**6, 2 * 10**6), "claude-haiku-5-5": (100_000, 500_000), "gratis": (0, 0)}
"""What a plain token of input and of output costs."""

Key = Literal["plain", "budgeted", "testing"]


def up(picousd: int) -> int:
    """Return whole microdollars, rounded up."""
    return -(-picousd // MICRO)


@dataclass
class Budget:
    """A key's budget as the model knows it; it outlives the key, for the key's calls under way."""

    most: int
    spent: int = 0
    held: int = 0

    @property
    def left(self) -> int:
        """What may still be held; below zero when the budget was lowered below what is spent."""
        return self.most - self.spent - self.held


@dataclass
class Call:
    """One call as the model knows it."""

    asked: Opening
    admitted: Admitted
    key: Key
    model: str
    amount: int
    output: int
    budget: Budget | None
    progress: tuple[int, int] = (0, 0)
    state: Literal["open", "settled", "swept", "late"] = "open"
    charged_picousd: int = 0
    charged: int = 0
    written_off: int = 0

    @property
    def billed(self) -> bool:
        """Whether it touches money."""
        return self.key != "testing" and self.model != "gratis"


class Books(RuleBasedStateMachine):
    """One workspace: credit comes and goes, calls come, go on, end, end twice, are swept, and end late."""

    own: OwnBooks
    calls_made = Bundle("calls_made")

    @initialize(credit=st.integers(0, 6000), most=st.integers(0, 2000))
    def start(self, credit: int, most: int) -> None:
        """Make the workspace and its keys."""
        self.balance, self.held, self.picos, self.carry, self.micros, self.written_off = credit, 0, 0, 0, 0, 0
        self.budget = Budget(most)
        self.made: list[Call] = []
        self.own.run(self._start(credit))

    async def _start(self, credit: int) -> None:
        self.tenant: Tenant = await tenant(credit_microusd=credit)
        self.process = calls(self.own.book)
        self.keys: dict[Key, tuple[KeyView, str]] = {
            "plain": await self.tenant.mint(),
            "budgeted": await self.tenant.mint(budgets=(BoundInput(Measure.MONEY, "lifetime", self.budget.most),)),
            "testing": await self.tenant.mint(mode=ApiKeyMode.TEST),
        }

    @property
    def available(self) -> int:
        """What can be spent: a balance's floor is zero, or the debt itself."""
        return self.balance - self.held - min(0, self.balance)

    def price(self, model: str) -> PriceVersion:
        """Return the price of a model."""
        return listed(self.own.book, model)

    @rule(amount=st.integers(1, 3000))
    def give(self, amount: int) -> None:
        """Credit comes."""
        self.own.run(ledger.give(self.tenant.workspace_id, amount, "credit", uuid7().hex, TESTS))
        self.balance += amount

    @rule(amount=st.integers(-800, 800).filter(bool), again=st.booleans())
    def adjust(self, amount: int, again: bool) -> None:
        """An operator corrects the balance, below zero if need be; a repeat changes nothing."""
        token = uuid7().hex
        for _ in range(1 + again):
            self.own.run(ledger.adjust(self.tenant.caller(Scope.OPERATOR), None, amount, "correction", token))
        self.balance += amount

    @rule(
        target=calls_made,
        times=st.integers(1, 3),
        key=st.sampled_from(["plain", "plain", "plain", "budgeted", "budgeted", "testing"]),
        model=st.sampled_from(["echo", "echo", "claude-haiku-5-5", "claude-haiku-5-5", "gratis"]),
        input_tokens=st.integers(0, 60),
        max_output=st.integers(0, 200),
        instalment=st.none() | st.integers(0, 30),
    )
    def admit(self, times: int, key: Key, model: str, input_tokens: int, max_output: int, instalment: int | None) -> Any:
        """A few calls ask to be let in, and are, as far as there is money."""
        made = [self._admit(key, model, input_tokens, max_output, instalment) for _ in range(times)]
        return multiple(*(call for call in made if call is not None))

    def _admit(self, key: Key, model: str, input_tokens: int, max_output: int, instalment: int | None) -> Call | None:
        if key == "testing":
            model = "echo"
        first = max_output if instalment is None else min(instalment, max_output)
        asked = opening(self.keys[key][1], self.price(model), input_tokens=input_tokens, max_output=max_output, instalment=None if instalment is None else first)
        expected = self._decide(key, model, input_tokens, first)
        if isinstance(expected, type):
            with pytest.raises(expected):
                self.own.run(self.process.admit(asked))
            return None
        output, clamped = expected
        admitted = self.own.run(self.process.admit(asked))
        billed = key != "testing" and model != "gratis"
        amount = up(input_tokens * PRICES[model][0] + output * PRICES[model][1]) if billed else 0
        assert (admitted.output_tokens, admitted.clamped, admitted.hold_microusd) == (output, clamped, amount)
        call = Call(asked, admitted, key, model, amount, output, self.budget if key == "budgeted" else None)
        self.held += amount
        if call.budget is not None:
            call.budget.held += amount
        self.made.append(call)
        return call

    def _decide(self, key: Key, model: str, input_tokens: int, output: int) -> tuple[int, bool] | type[errors.Refusal]:
        each_in, each_out = PRICES[model]
        if key == "testing":
            return output, False
        if model == "gratis":
            return errors.InsufficientCredit if self.balance < 0 else (output, False)
        least = up(input_tokens * each_in + min(output, 1) * each_out)
        allowed = self.available
        if key == "budgeted":
            if self.budget.left < least:
                return errors.BoundReached
            allowed = min(allowed, self.budget.left)
        if up(input_tokens * each_in + output * each_out) <= allowed:
            return output, False
        if least > allowed:
            return errors.BoundReached if least <= self.balance - min(0, self.balance) else errors.InsufficientCredit
        return (allowed * MICRO - input_tokens * each_in) // each_out, True

    @rule(call=calls_made, done=st.tuples(st.integers(0, 80), st.integers(0, 250)), wanted=st.none() | st.integers(0, 300))
    def keep(self, call: Call, done: tuple[int, int], wanted: int | None) -> None:
        """A call gives a sign of life, and asks for more output; its hold grows as far as balance and budget allow."""
        covered = self.own.run(self.process.keep(sign(call.asked, self.tenant.workspace_id, used(*done), output_tokens=wanted)))
        if call.state != "open":
            assert covered is None
            return
        call.progress = done
        target = call.output if wanted is None else max(wanted, call.output)
        if call.billed and target > call.output:
            each_in, each_out = PRICES[call.model]
            room = max(self.available, 0)
            if call.budget is not None:
                room = min(room, max(call.budget.left, 0))
            target = max(min(target, ((call.amount + room) * MICRO - call.asked.input_tokens * each_in) // each_out), call.output)
            more = max(up(call.asked.input_tokens * each_in + target * each_out) - call.amount, 0) if target > call.output else 0
            call.amount += more
            self.held += more
            if call.budget is not None:
                call.budget.held += more
        call.output = target
        assert covered == target

    @rule(call=calls_made, done=st.tuples(st.integers(0, 80), st.integers(0, 250)), times=st.integers(1, 2))
    def settle(self, call: Call, done: tuple[int, int], times: int) -> None:
        """A call ends: for the first time, again, or after the sweep gave it up."""
        for _ in range(times):
            settled = self.own.run(self.process.settle(ending(call.admitted, self.price(call.model), used(*done))))
            if call.state in ("open", "swept"):
                self._end(call, done, "settled" if call.state == "open" else "late")
            assert settled.charge_microusd == call.charged

    @rule(
        call=calls_made,
        done=st.tuples(st.integers(0, 80), st.integers(0, 250)),
        drain=st.booleans(),
        late=st.none() | st.tuples(st.integers(0, 80), st.integers(0, 250)),
    )
    def sweep(self, call: Call, done: tuple[int, int], drain: bool, late: tuple[int, int] | None) -> None:
        """The call's process dies after a last sign of life, perhaps when the money has just gone, and somebody sweeps; its own end may come after all."""
        if call.state == "open" and drain:
            self.keep(call, done, None)
            if self.balance:
                self.adjust(-self.balance, again=False)
        self.own.run(self.own.expire(call.asked.id))
        assert self.own.run(calls(self.own.book).sweep()) == (call.state == "open")
        if call.state == "open":
            self._end(call, call.progress, "swept")
        if late is not None:
            self.the_books_say_the_same()
            self.settle(call, late, 1)

    def _end(self, call: Call, done: tuple[int, int], how: Literal["settled", "swept", "late"]) -> None:
        each_in, each_out = CHARGES[call.model]
        picos = 0 if call.key == "testing" else done[0] * each_in + done[1] * each_out
        difference = picos - call.charged_picousd
        charge, self.carry = divmod(self.carry + difference, MICRO)
        paid = min(charge, max(self.balance, 0)) if charge > 0 else min(0, charge + call.written_off)
        self.balance -= paid
        call.written_off += charge - paid
        self.written_off += charge - paid
        self.picos += difference
        self.micros += charge
        call.charged_picousd, call.charged, call.state = picos, call.charged + charge, how
        if how != "late":
            self.held -= call.amount
        if call.budget is not None:
            call.budget.held -= call.amount if how != "late" else 0
            call.budget.spent = max(call.budget.spent + charge, 0)

    @rule(key=st.sampled_from(["plain", "budgeted"]))
    def revoke(self, key: Key) -> None:
        """A key is revoked: its next call fails, its calls under way go on within its budget; another key takes its place, with a budget of its own."""
        view, secret = self.keys[key]
        self.own.run(keys.revoke(self.tenant.caller(), view.id))
        with pytest.raises(errors.Unauthenticated):
            self.own.run(self.process.admit(opening(secret, self.price("gratis"), input_tokens=0, max_output=0)))
        self.keys[key] = self.own.run(self.tenant.mint(budgets=(BoundInput(Measure.MONEY, "lifetime", self.budget.most),) if key == "budgeted" else ()))
        if key == "budgeted":
            self.budget = Budget(self.budget.most)

    @rule(most=st.integers(0, 1500))
    def change_budget(self, most: int) -> None:
        """The budget is raised or lowered, below what is spent too."""
        self.own.run(keys.update(self.tenant.caller(), self.keys["budgeted"][0].id, KeyChanges(budgets=(BoundInput(Measure.MONEY, "lifetime", most),))))
        self.budget.most = most

    @invariant()
    def the_books_say_the_same(self) -> None:
        """Balance, held, available, carry and write-offs are the model's; the audit finds nothing."""
        if hasattr(self, "tenant"):
            self.own.run(self._compare())

    async def _compare(self) -> None:
        balance = await self.tenant.balance()
        assert (balance.balance, balance.held, balance.available, balance.carry_picousd) == (self.balance, self.held, max(self.available, 0), self.carry)
        accounts = {account.kind.value: account.balance for account in await ledger.accounts(self.tenant.workspace_id, await self._account_ids())}
        assert sum(accounts.values()) == 0, "what leaves one account enters another"
        assert accounts["revenue"] == self.micros == self.picos // MICRO
        assert -accounts["write_offs"] == self.written_off
        assert self.micros * MICRO + self.carry == self.picos
        key, _ = self.keys["budgeted"]
        window = await database.fetch_row(
            "SELECT w.spent, w.held FROM bound b JOIN bound_window w USING (workspace_id) WHERE w.bound_id = b.id AND b.workspace_id = $1 AND b.subject_id = $2",
            self.tenant.workspace_id,
            key.id,
        )
        assert tuple(window or (0, 0)) == (self.budget.spent, self.budget.held)
        await self.own.sound()

    async def _account_ids(self) -> list[Any]:
        return [row["id"] for row in await database.fetch("SELECT id FROM account WHERE workspace_id = $1", self.tenant.workspace_id)]

    def teardown(self) -> None:
        """F4: when all that is open has ended, nothing is held and the whole balance can be spent."""
        if not hasattr(self, "tenant"):
            return
        for call in self.made:
            if call.state == "open":
                self.settle(call, (1, 1), 1)
        balance = self.own.run(self.tenant.balance())
        assert (balance.held, balance.available) == (0, max(balance.balance, 0))
        self.the_books_say_the_same()


async def offer_gratis(own: OwnBooks) -> None:
    """Offer a model that costs nothing."""
    now = datetime.now(UTC)
    rows = (make_row(Bucket.UNCACHED_INPUT, "0"), make_row(Bucket.OUTPUT, "0"))
    await catalogue.enter(ModelEntry("gratis", "Gratis", None, rows), source="tests", effective_from=now, actor=TESTS, at=now)
    await own.book.refresh()


@pytest.fixture
def machine(own: OwnBooks) -> Iterator[type[Books]]:
    """The machine over this module's own books."""
    own.run(offer_gratis(own))
    Books.own = own
    yield Books
    del Books.own


def test_no_order_of_events_breaks_the_books(machine: type[Books]) -> None:
    """M1 to M6: whatever order credit, corrections, calls, progress, ends, sweeps, late ends, revocations and budgets come in, the books are exact."""
    quick = settings(max_examples=18, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True, phases=PHASES)
    run_state_machine_as_test(machine, settings=quick)
