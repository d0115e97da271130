"""Grants, quotas, wallets and cash together, in any order that Hypothesis can think of, killed processes included: the audit stays empty.

Synchronous, with a database and a loop of its own: see tests/money/own_books.py. There is no model of who pays what (the single rules have their own
tests); after every step the whole audit is empty, no wallet is below what it holds, and a wallet is exactly what was moved in, less what usage says.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from domain import errors
from domain.access import end_users
from domain.access.end_users import EndUserChanges
from domain.access.limits import BoundInput
from domain.apps import registry
from domain.apps.registry import AppChanges
from domain.money import grants
from domain.serving.calls import Admitted, Opening
from domain.usage import corrections, rollups
from models import database
from models.enums import ApiKeyKind, LimitPer, Measure, Scope
from tests.money.own_books import OwnBooks
from tests.serving.openings import calls, ending, listed, opening, sign, used
from tests.serving.test_grants import given
from tests.serving.test_wallets import Shop, shop
from tests.support.world import subscribed

PHASES = (Phase.explicit, Phase.generate)
MODELS = ("echo", "claude-haiku-5-5")

Who = Literal["token", "key", "subscription"]


@dataclass
class Call:
    """One call that was let in."""

    asked: Opening
    admitted: Admitted
    state: Literal["open", "swept", "over"] = "open"


class Payers(RuleBasedStateMachine):
    """One workspace that resells, subscribes and has promotional credit."""

    own: OwnBooks

    @initialize(credit=st.integers(0, 3000), wallet=st.integers(1, 800), markup=st.sampled_from(["1", "1.25", "0.5", "2.000001", "0"]), overage=st.booleans())
    def start(self, credit: int, wallet: int, markup: str, overage: bool) -> None:
        """Make the workspace, its app, its end user and its keys."""
        self.calls: list[Call] = []
        self.own.run(self._start(credit + wallet, wallet, markup, overage))

    async def _start(self, credit: int, wallet: int, markup: str, overage: bool) -> None:
        self.shop: Shop = await shop(credit=credit, wallet=wallet, markup=markup)
        self.moved = wallet
        mine = self.shop.tenant
        await subscribed(mine, [{"resource": "tokens", "window": "24h", "limit": 400}, {"resource": "credits", "window": "5h", "limit": 1}])
        await database.fetch("UPDATE workspace SET overage_allowed = $2 WHERE id = $1", mine.workspace_id, overage)
        _, self.subscription = await mine.mint(kind=ApiKeyKind.SUBSCRIPTION)
        bounds = (BoundInput(Measure.TOKENS, "day", 4000, LimitPer.END_USER), BoundInput(Measure.CALLS, "1h", 40, LimitPer.TOGETHER, "echo"))
        await registry.update(mine.caller(), self.shop.app_id, AppChanges(limits=bounds))
        self.processes = [calls(self.own.book), calls(self.own.book, batch=2), calls(self.own.book, batch=1)]

    def _asks(self, who: Who, models: tuple[str, ...], input_tokens: int, max_output: int, instalment: int | None) -> Opening:
        first, *others = (listed(self.own.book, model) for model in models)
        more: dict[str, Any] = {"input_tokens": input_tokens, "max_output": max_output, "instalment": instalment, "fallbacks": tuple(others)}
        if others:
            more["requested_model"] = "auto"
        if who == "token":
            return self.shop.asks(self.own, **(more | {"price": first}))
        if who == "subscription":
            return opening(self.subscription, first, road="tool", endpoint="/cursor/v1/messages", **more)
        return opening(self.shop.tenant.secret, first, end_user="ann", **more)

    @rule(
        wanted=st.lists(
            st.tuples(
                st.sampled_from(["token", "token", "key", "subscription"]),
                st.sampled_from([("echo",), ("claude-haiku-5-5", "echo"), ("echo", "claude-haiku-5-5")]),
                st.integers(1, 120),
                st.integers(0, 150),
                st.none() | st.integers(1, 30),
            ),
            min_size=1,
            max_size=6,
        ),
        ends=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 150), st.integers(0, 200), st.sampled_from(MODELS)), max_size=3),
        move=st.integers(-300, 300),
    )
    def at_once(self, wanted: list[Any], ends: list[tuple[int, int, int, str]], move: int) -> None:
        """Calls come and end over three processes while credit moves, all at once."""

        async def work() -> None:
            asked = [self._asks(*each) for each in wanted]
            admissions = [self.processes[n % 3].admit(one) for n, one in enumerate(asked)]
            settlements = [self._settle(place, input_tokens, output, model) for place, input_tokens, output, model in ends]
            answers: list[Any] = await asyncio.gather(*admissions, *settlements, self._move(move), return_exceptions=True)
            for one, answer in zip(asked, answers, strict=False):
                if isinstance(answer, Admitted):
                    self.calls.append(Call(one, answer))
                else:
                    assert isinstance(answer, errors.Refusal), answer
            for answer in answers[len(asked) :]:
                assert not isinstance(answer, BaseException), answer

        self.own.run(work())

    async def _move(self, amount: int) -> None:
        if amount:
            try:
                await self.shop.fill(amount)
            except errors.InsufficientCredit:
                return
            self.moved += amount

    async def _settle(self, place: int, input_tokens: int, output: int, model: str) -> None:
        if not self.calls:
            return
        call = self.calls[place % len(self.calls)]
        await self.processes[place % 3].settle(ending(call.admitted, listed(self.own.book, model), used(input_tokens, output)))
        call.state = "over"

    @precondition(lambda self: bool(self.calls))
    @rule(place=st.integers(0, 30), input_tokens=st.integers(0, 100), output=st.integers(0, 200), wanted=st.none() | st.integers(0, 300))
    def keep(self, place: int, input_tokens: int, output: int, wanted: int | None) -> None:
        """A call gives a sign of life, and may want more room."""
        if self.calls:
            call = self.calls[place % len(self.calls)]
            self.own.run(self.processes[0].keep(sign(call.asked, self.shop.tenant.workspace_id, used(input_tokens, output), output_tokens=wanted)))

    @precondition(lambda self: bool(self.calls))
    @rule(places=st.sets(st.integers(0, 30), min_size=1, max_size=4))
    def kill(self, places: set[int]) -> None:
        """The process of some calls dies: another one sweeps what they held."""
        chosen = [self.calls[place % len(self.calls)] for place in places if self.calls]
        if any(call.state == "open" for call in chosen):

            async def work() -> None:
                await self.own.expire(*(call.asked.id for call in chosen if call.state == "open"))
                await asyncio.gather(*(process.sweep() for process in self.processes))

            self.own.run(work())
            for call in chosen:
                call.state = "swept" if call.state == "open" else call.state

    @rule(amount=st.integers(1, 300), models=st.sampled_from([None, ("echo",), MODELS, ("auto",)]), for_app=st.booleans())
    def give(self, amount: int, models: tuple[str, ...] | None, for_app: bool) -> None:
        """Promotional credit comes."""
        apps = (self.shop.app_id,) if for_app else None
        known = None if models == ("auto",) else models
        self.own.run(given(self.shop.tenant, amount, models=known, apps=apps, expires_at=datetime.now(UTC) + timedelta(days=1)))

    @precondition(lambda self: bool(self.calls))
    @rule()
    def expire_grants(self) -> None:
        """All promotional credit runs out of time."""

        async def work() -> None:
            over = "UPDATE credit_grant SET expires_at = clock_timestamp() WHERE workspace_id = $1 AND closed_at IS NULL"
            await self.own.admin.execute(over, self.shop.tenant.workspace_id)
            await grants.sweep()

        self.own.run(work())

    @precondition(lambda self: bool(self.calls))
    @rule(place=st.integers(0, 30), charge=st.integers(0, 500), void=st.booleans())
    def correct(self, place: int, charge: int, void: bool) -> None:
        """An operator corrects or voids what a call cost."""
        over = [call for call in self.calls if call.state == "over"]
        if over:
            operator, record = self.shop.tenant.caller(Scope.OPERATOR), over[place % len(over)].asked.id

            async def work() -> None:
                try:
                    if void:
                        await corrections.void(operator, record, "wrong")
                    else:
                        await corrections.adjust(operator, record, units=None, charge_microusd=charge, reason="wrong")
                except errors.InvalidState:
                    pass

            self.own.run(work())

    @rule(markup=st.sampled_from(["1", "1.5", "0.25", "0"]), blocked=st.booleans())
    def change(self, markup: str, blocked: bool) -> None:
        """The maker changes the markup, and blocks the end user or lets it in."""
        caller = self.shop.tenant.caller()
        self.own.run(registry.update(caller, self.shop.app_id, AppChanges(wallet_markup=Decimal(markup))))
        self.own.run(end_users.update(caller, self.shop.end_user_id, EndUserChanges(blocked=blocked)))

    @precondition(lambda self: bool(self.calls))
    @rule()
    def fold(self) -> None:
        """What is queued goes to its cells."""
        self.own.run(rollups.fold_all())

    @invariant()
    def the_books_are_sound(self) -> None:
        """The audit is empty, and the wallet is what was moved less what usage says that it paid."""
        if hasattr(self, "shop"):
            self.own.run(self._sound())

    async def _sound(self) -> None:
        await self.own.sound()
        wallet, held, _, cash_held = await self.shop.stands()
        assert 0 <= held <= wallet
        assert cash_held >= 0
        paid = await database.fetch_value("SELECT coalesce(sum(wallet_microusd), 0) FROM usage_event WHERE workspace_id = $1", self.shop.tenant.workspace_id)
        assert wallet == self.moved - int(paid)

    def teardown(self) -> None:
        """When all calls have ended nothing is held."""
        if hasattr(self, "shop"):
            for place in range(len(self.calls)):
                self.own.run(self._settle(place, 1, 1, "echo"))
            _, held, _, cash_held = self.own.run(self.shop.stands())
            assert (held, cash_held) == (0, 0)
            self.own.run(self._sound())


@pytest.fixture
def machine(own: OwnBooks) -> Iterator[type[Payers]]:
    """The machine over this module's own books."""
    Payers.own = own
    yield Payers
    del Payers.own


def test_no_order_of_payers_breaks_the_books(machine: type[Payers]) -> None:
    """F1, F4, F5, F20: grants, quotas, overage, wallets, cash, corrections, kills and late ends in any interleaving; after each step the audit is empty."""
    quick = settings(max_examples=6, stateful_step_count=16, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True, phases=PHASES)
    run_state_machine_as_test(machine, settings=quick)
