"""End users' wallets: they pay their end users' calls, with the app's markup, and can never be overdrawn; synchronous, because it ends holds early."""

import asyncio
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest

from domain import errors
from domain.access import client_tokens, end_users
from domain.access.client_tokens import Claims, NewToken
from domain.access.end_users import EndUserChanges
from domain.access.limits import BoundInput
from domain.apps import registry, wallets
from domain.apps.addresses import Addresses
from domain.apps.registry import AppChanges, NewApp
from domain.money import ledger
from domain.serving.calls import Admitted, Opening
from domain.usage import corrections
from models import database
from models.enums import LimitPer, Measure, Scope
from models.ids import uuid7
from tests.money.own_books import OwnBooks
from tests.serving.openings import calls, ending, listed, opening, sign, used
from tests.support.world import Tenant, tenant

SITES = Addresses("http", "localhost", 8000)
ORIGIN = "https://shop.example"


@dataclass(frozen=True)
class Shop:
    """A workspace with an app that resells, and one end user's token."""

    tenant: Tenant
    app_id: UUID
    claims: Claims
    name: str = "ann"

    @property
    def end_user_id(self) -> UUID:
        """The end user of the token."""
        return end_users.id_of(self.tenant.workspace_id, self.app_id, self.name)

    async def fill(self, amount: int) -> None:
        """Move credit into the wallet, or out of it."""
        await wallets.adjust(self.tenant.caller(), self.app_id, self.name, amount, None, uuid7().hex)

    async def stands(self) -> tuple[int, int, int, int]:
        """Wallet's balance and hold, cash's balance and hold."""
        row = await database.fetch_row(
            """
            SELECT w.credits - w.debits AS wallet, w.held AS held, c.credits - c.debits AS cash, c.held AS cash_held FROM end_user u
              JOIN account w ON w.workspace_id = u.workspace_id AND w.id = u.wallet_id JOIN account c ON c.workspace_id = u.workspace_id AND c.kind = 'cash'
             WHERE u.workspace_id = $1 AND u.id = $2
            """,
            self.tenant.workspace_id,
            self.end_user_id,
        )
        assert row is not None
        return row["wallet"], row["held"], row["cash"], row["cash_held"]

    async def moved(self, call_id: UUID) -> list[tuple[str, str, str, int]]:
        """What moved for a call: kind, from, to, microdollars."""
        rows = await database.fetch(
            """
            SELECT t.kind, d.kind AS debit, c.kind AS credit, t.amount FROM transfer t
              JOIN account d ON d.workspace_id = t.workspace_id AND d.id = t.debit_id JOIN account c ON c.workspace_id = t.workspace_id AND c.id = t.credit_id
             WHERE t.workspace_id = $1 AND t.call_id = $2 ORDER BY t.id
            """,
            self.tenant.workspace_id,
            call_id,
        )
        return [(row["kind"], row["debit"], row["credit"], row["amount"]) for row in rows]

    async def told(self, call_id: UUID) -> tuple[int, int]:
        """What usage says that a call cost, and what the wallet paid."""
        row = await database.fetch_row(
            "SELECT sum(charge_microusd)::bigint AS charge, sum(wallet_microusd)::bigint AS wallet FROM usage_event WHERE workspace_id = $1 AND record_id = $2",
            self.tenant.workspace_id,
            call_id,
        )
        assert row is not None
        return row["charge"], row["wallet"]

    def asks(self, own: OwnBooks, **more: Any) -> Opening:
        """A call with the token: a microdollar for a token of input, two for one of output."""
        values: dict[str, Any] = {"input_tokens": 10, "max_output": 0, "token": self.claims, "origin": ORIGIN} | more
        price = values.pop("price", None) or listed(own.book, "echo")
        return opening(client_tokens.named(self.claims), price, **values)


async def shop(*, credit: int = 1000, wallet: int = 0, markup: str = "1", name: str | None = "ann", **new: Any) -> Shop:
    """Make one."""
    of = await tenant(credit_microusd=credit, **new)
    app = await registry.create(of.caller(), NewApp(f"app-{uuid4().hex[:12]}", "App"))
    await registry.update(of.caller(), app.id, AppChanges(wallet_markup=Decimal(markup), budgets=(), limits=()))
    made = await client_tokens.create(of.caller(), NewToken(app_id=app.id, end_user=name, allowed_origins=(ORIGIN,)), SITES)
    found = Shop(of, app.id, Claims(made.id, of.workspace_id), name or "ann")
    if wallet:
        await found.fill(wallet)
    return found


@pytest.mark.parametrize(
    ("markup", "held", "moved", "stands", "paid"),
    [
        ("1", (130, 0), [("charge", "wallet", "revenue", 100)], (900, 0, 0, 0), 100),
        ("1.25", (163, 0), [("charge", "wallet", "revenue", 100), ("wallet", "wallet", "cash", 25)], (875, 0, 25, 0), 125),
        ("0.333333", (44, 87), [("charge", "wallet", "revenue", 33), ("charge", "cash", "revenue", 67)], (967, 0, 133, 0), 33),
        ("0", (0, 130), [("charge", "cash", "revenue", 100)], (1000, 0, 100, 0), 0),
    ],
)
def test_a_wallet_pays_the_charge_times_the_markup(
    own: OwnBooks, markup: str, held: tuple[int, int], moved: list[Any], stands: tuple[int, ...], paid: int
) -> None:
    """A charge of 100 costs the wallet 100 x markup; what is over is the maker's margin, what lacks is the maker's own; holds are split alike."""

    async def work() -> None:
        cash = 200 if Decimal(markup) < 1 else 0
        mine, process = await shop(credit=1000 + cash, wallet=1000, markup=markup), calls(own.book)
        admitted = await process.admit(mine.asks(own, input_tokens=100, max_output=15))
        assert (admitted.hold_microusd, admitted.payer, admitted.output_tokens) == (130, "wallet", 15)
        assert await mine.stands() == (1000, held[0], cash, held[1])
        await registry.update(mine.tenant.caller(), mine.app_id, AppChanges(wallet_markup=Decimal(3)))  # under way it pays what it was let in for
        settled = await process.settle(ending(admitted, listed(own.book, "echo"), used(100, 0)))
        assert (settled.charge_microusd, settled.available_microusd) == (paid, stands[0])
        assert await mine.stands() == stands
        assert await mine.moved(admitted.call_id) == moved
        assert await mine.told(admitted.call_id) == (100, paid)
        await own.sound()

    own.run(work())


def test_many_calls_at_once_never_overdraw_a_wallet(own: OwnBooks) -> None:
    """F1: 64 calls at once of 7, at 8.75 each, on a wallet of 126 over three processes: exactly 14 are let in, whatever cash there is, and the rest waits."""

    async def work() -> None:
        mine, price = await shop(credit=100_000, wallet=126, markup="1.25"), listed(own.book, "echo")
        processes = [calls(own.book), calls(own.book, batch=3), calls(own.book, batch=1)]
        asked = [mine.asks(own, input_tokens=7) for _ in range(64)]
        heard: list[Any] = await asyncio.gather(*(processes[n % 3].admit(one) for n, one in enumerate(asked)), return_exceptions=True)
        admitted = [answer for answer in heard if isinstance(answer, Admitted)]
        assert len(admitted) == 14  # each holds ceil(8.75) = 9
        assert await mine.stands() == (126, 126, 100_000 - 126, 0)
        assert all(isinstance(answer, errors.BoundReached) and answer.passes for answer in heard if answer not in admitted)
        with pytest.raises(errors.InsufficientCredit) as taken:
            await mine.fill(-1)
        assert taken.value.available_microusd == 0
        for process in processes:
            await asyncio.gather(*(process.settle(ending(one, price, used(7, 0))) for one in admitted))
        assert await mine.stands() == (0, 0, 100_000 - 126 + 14 * 2, 0)
        with pytest.raises(errors.InsufficientCredit) as refused:
            await processes[0].admit(mine.asks(own, input_tokens=7))
        assert (refused.value.available_microusd, refused.value.required_microusd) == (0, 9)
        await own.sound()

    own.run(work())


def test_an_answer_is_clamped_to_what_the_wallet_affords(own: OwnBooks) -> None:
    """A wallet of 50 at 1.25 affords a charge of 40: 10 of input and 15 tokens of output; below the input it is refused, and cash never steps in."""

    async def work() -> None:
        mine, process = await shop(wallet=50, markup="1.25"), calls(own.book)
        admitted = await process.admit(mine.asks(own, max_output=100))
        assert (admitted.hold_microusd, admitted.output_tokens, admitted.clamped) == (40, 15, True)
        await process.settle(ending(admitted, listed(own.book, "echo"), used(10, 11)))
        assert await mine.stands() == (10, 0, 950 + 8, 0)
        with pytest.raises(errors.InsufficientCredit) as refused:
            await process.admit(mine.asks(own))
        assert (refused.value.available_microusd, refused.value.required_microusd) == (10, 13)
        await own.sound()

    own.run(work())


def test_a_part_that_the_workspace_lacks_is_told_as_its_own(own: OwnBooks) -> None:
    """At half the price cash holds the other half; where cash is short the refusal says what charge both could pay."""

    async def work() -> None:
        mine, process = await shop(credit=103, wallet=100, markup="0.5"), calls(own.book)
        with pytest.raises(errors.InsufficientCredit) as refused:
            await process.admit(mine.asks(own))
        assert (refused.value.available_microusd, refused.value.required_microusd) == (6, 10)
        admitted = await process.admit(mine.asks(own, input_tokens=6))
        assert await mine.stands() == (100, 3, 3, 3)
        await process.settle(ending(admitted, listed(own.book, "echo"), used(5, 0)))
        assert await mine.stands() == (97, 0, 1, 0)  # 2.5 is 3
        await own.sound()

    own.run(work())


def test_a_charge_beyond_the_hold_is_cashs_and_leaves_other_holds_alone(own: OwnBooks) -> None:
    """A call that used more than it held takes what no other call holds of its wallet, cash pays the rest of the charge, and nothing goes below zero."""

    async def work() -> None:
        mine, process = await shop(wallet=50), calls(own.book)
        first, second = [await process.admit(mine.asks(own, input_tokens=20)) for _ in range(2)]
        await process.settle(ending(first, listed(own.book, "echo"), used(60, 0)))
        assert await mine.moved(first.call_id) == [("charge", "wallet", "revenue", 30), ("charge", "cash", "revenue", 30)]
        assert await mine.stands() == (20, 20, 920, 0)
        await process.settle(ending(second, listed(own.book, "echo"), used(20, 0)))
        assert await mine.stands() == (0, 0, 920, 0)
        assert (await mine.told(first.call_id), await mine.told(second.call_id)) == ((60, 30), (20, 20))
        await own.sound()

    own.run(work())


def test_a_stream_grows_as_far_as_its_wallet(own: OwnBooks) -> None:
    """F35: an instalment of 10 + 2 x 20 at 1.25 grows with the stream, by what the wallet has and no further, whatever is in cash."""

    async def work() -> None:
        mine, process = await shop(wallet=100, markup="1.25"), calls(own.book)
        asked = mine.asks(own, max_output=1000, instalment=20)
        admitted = await process.admit(asked)
        assert await mine.stands() == (100, 63, 900, 0)
        for wanted, covered, held in ((30, 30, 88), (500, 35, 100), (36, 35, 100)):
            assert await process.keep(sign(asked, mine.tenant.workspace_id, used(10, 5), output_tokens=wanted)) == covered
            assert await mine.stands() == (100, held, 900, 0)
        await process.settle(ending(admitted, listed(own.book, "echo"), used(10, 35)))
        assert await mine.stands() == (0, 0, 920, 0)
        await own.sound()

    own.run(work())


@pytest.mark.parametrize(
    ("markup", "late", "stands", "paid"),
    [("1.25", 60, (25, 0, 915, 0), (60, 75)), ("1.25", 10, (87, 0, 903, 0), (10, 13)), ("0.5", 10, (95, 0, 895, 0), (10, 5)), ("1.25", 90, (0, 0, 910, 0), (90, 100))],
)
def test_a_call_that_ends_after_its_sweep_pays_the_difference(own: OwnBooks, markup: str, late: int, stands: tuple[int, ...], paid: tuple[int, int]) -> None:
    """F11: a killed process's call is swept at 40, and ends late at more or less: the wallet has paid the markup of the whole, as far as it reaches."""

    async def work() -> None:
        mine, process = await shop(wallet=100, markup=markup), calls(own.book)
        asked = mine.asks(own, input_tokens=50)
        admitted = await process.admit(asked)
        await process.keep(sign(asked, mine.tenant.workspace_id, used(40, 0)))
        await own.expire(asked.id)
        assert await process.sweep() == 1
        share = int(40 * Decimal(markup))
        assert await mine.stands() == (100 - share, 0, 900 + share - 40, 0)
        for _ in range(2):
            await process.settle(ending(admitted, listed(own.book, "echo"), used(late, 0)))
        assert await mine.stands() == stands
        assert await mine.told(asked.id) == paid
        await own.sound()

    own.run(work())


@pytest.mark.parametrize("markup", ["1.25", "1", "0.5"])
def test_a_correction_gives_a_wallet_back_what_it_paid_too_much(own: OwnBooks, markup: str) -> None:
    """Corrected to half, the wallet has paid half, margin included; dearer is cash's; voided, everybody has what they had."""

    async def work() -> None:
        mine, process = await shop(wallet=500, markup=markup), calls(own.book)
        admitted = await process.admit(mine.asks(own, input_tokens=100))
        await process.settle(ending(admitted, listed(own.book, "echo"), used(100, 0)))
        operator = mine.tenant.caller(Scope.OPERATOR)
        share = Decimal(markup)
        for charge, wallet in ((40, int(40 * share)), (100, int(40 * share)), (20, int(20 * share))):
            await corrections.adjust(operator, admitted.call_id, units=None, charge_microusd=charge, reason="wrong")
            assert await mine.told(admitted.call_id) == (charge, wallet)
            assert await mine.stands() == (500 - wallet, 0, 500 + wallet - charge, 0)
            await own.sound()
        await corrections.void(operator, admitted.call_id, "wrong")
        assert await mine.stands() == (500, 0, 500, 0)
        assert await mine.told(admitted.call_id) == (0, 0)
        await own.sound()

    own.run(work())


RERATED = """
WITH r AS (
  INSERT INTO rerating (id, price_id, starts_at, ends_at, reason, creator_kind, creator_name, status, calls, credited_microusd, charged_microusd, created_at)
  SELECT $1, p.id, now() - interval '1 day', now(), 'wrong row', 'system', 'tests', 'succeeded', 1, 0, 0, now() FROM price p LIMIT 1 RETURNING id
), l AS (
  INSERT INTO rerating_line (rerating_id, workspace_id, calls, before_microusd, after_microusd, charge_rest_picousd, list_rest_picousd)
  SELECT r.id, $2, 1, $4::bigint, $4::bigint + $5::bigint, 0, 0 FROM r RETURNING rerating_id
)
INSERT INTO rerated_call (record_id, workspace_id, rerating_id, events, before_microusd, change_microusd, list_change_microusd, charge_picousd, list_picousd,
                          charge_differs, state)
SELECT $3, $2, l.rerating_id, 1, $4::bigint, $5::bigint, $5::bigint, 0, 0, true, 'open' FROM l
"""


@pytest.mark.parametrize(
    ("markup", "change", "stands", "paid"),
    [
        ("1.25", -40, (425, 0, 515, 0), 75),
        ("1", -40, (440, 0, 500, 0), 60),
        ("0.5", -40, (470, 0, 470, 0), 30),
        ("1.25", 40, (375, 0, 485, 0), 125),
        ("0.5", 40, (450, 0, 410, 0), 50),
    ],
)
def test_a_corrected_price_gives_a_wallet_back_its_part(own: OwnBooks, markup: str, change: int, stands: tuple[int, ...], paid: int) -> None:
    """Re-rated from 100 to 60, the wallet has paid 60 times the markup; what is dearer is cash's."""

    async def work() -> None:
        mine, process = await shop(wallet=500, markup=markup), calls(own.book)
        admitted = await process.admit(mine.asks(own, input_tokens=100))
        await process.settle(ending(admitted, listed(own.book, "echo"), used(100, 0)))
        rerating, event = uuid7(), uuid7()
        await own.admin.execute(RERATED, rerating, mine.tenant.workspace_id, admitted.call_id, 100, change)
        for said in ("posted", "done"):
            statement = "SELECT rerate_2($1, $2, $3, $4, $5, 'wrong row', 'system', NULL, 'tests')"
            assert await database.fetch_value(statement, mine.tenant.workspace_id, rerating, admitted.call_id, event, listed(own.book, "echo").id) == said
        assert await mine.stands() == stands
        assert await mine.told(admitted.call_id) == (100 + change, paid)
        await own.sound()

    own.run(work())


def test_only_a_token_that_names_the_end_user_opens_its_wallet(own: OwnBooks) -> None:
    """A key, and a token of nobody in particular, are paid by cash whatever name their body says: a visitor cannot spend another's wallet."""

    async def work() -> None:
        mine, process = await shop(wallet=100), calls(own.book)
        anyones = await client_tokens.create(mine.tenant.caller(), NewToken(app_id=mine.app_id, allowed_origins=(ORIGIN,)), SITES)
        claims = Claims(anyones.id, mine.tenant.workspace_id)
        others = [
            opening(mine.tenant.secret, listed(own.book, "echo"), input_tokens=10, max_output=0, end_user="ann"),
            opening(client_tokens.named(claims), listed(own.book, "echo"), input_tokens=10, max_output=0, end_user="ann", token=claims, origin=ORIGIN),
        ]
        for asked in others:
            admitted = await process.admit(asked)
            assert admitted.payer == "cash"
            settled = await process.settle(ending(admitted, listed(own.book, "echo"), used(10, 0)))
            assert settled.available_microusd == (None if asked.token else 890)  # a browser does not learn what its maker has
        assert await mine.stands() == (100, 0, 880, 0)
        await ledger.adjust(mine.tenant.caller(Scope.OPERATOR), None, -877, "spent", "spent")
        with pytest.raises(errors.InsufficientCredit) as refused:
            await process.admit(others[1])
        assert (refused.value.available_microusd, refused.value.required_microusd) == (0, 0)  # nor when it is too little
        assert "3" not in refused.value.message
        page = await database.fetch("SELECT app_id, last_seen_at IS NULL AS unseen FROM end_user WHERE workspace_id = $1 ORDER BY app_id", mine.tenant.workspace_id)
        assert [(row["app_id"], row["unseen"]) for row in page] == [(mine.app_id, False), (None, False)]
        await own.sound()

    own.run(work())


def test_a_blocked_end_user_is_refused_at_once(own: OwnBooks) -> None:
    """The very next call is refused in every process, by token or by name, and let in again by the next after that; nothing is kept of a refused call."""

    async def work() -> None:
        mine, processes = await shop(), [calls(own.book), calls(own.book, batch=1)]
        caller, price = mine.tenant.caller(), listed(own.book, "echo")
        for process in processes:
            await process.settle(ending(await process.admit(mine.asks(own)), price, used(10, 0)))
        for blocked in (True, True, False, True):
            view = await end_users.update(caller, mine.end_user_id, EndUserChanges(blocked=blocked))
            assert (view.blocked_at is not None) is blocked
            for process in processes:
                if blocked:
                    with pytest.raises(errors.Forbidden, match="blocked"):
                        await process.admit(mine.asks(own))
                else:
                    await process.settle(ending(await process.admit(mine.asks(own)), price, used(10, 0)))
        assert await database.fetch_value('SELECT count(*) FROM "call" WHERE workspace_id = $1', mine.tenant.workspace_id) == 4
        by_key = opening(mine.tenant.secret, price, input_tokens=10, max_output=0, end_user="ann")
        await processes[0].settle(ending(await processes[0].admit(by_key), price, used(10, 0)))  # the same name under no app is another end user
        await end_users.update(caller, end_users.id_of(mine.tenant.workspace_id, None, "ann"), EndUserChanges(blocked=True))
        with pytest.raises(errors.Forbidden, match="blocked"):
            await processes[0].admit(opening(mine.tenant.secret, price, input_tokens=10, max_output=0, end_user="ann"))
        await processes[0].admit(opening(mine.tenant.secret, price, input_tokens=10, max_output=0, end_user="bob"))
        await own.sound()

    own.run(work())


def test_bounds_of_an_end_user_and_of_an_app_hold_for_tokens(own: OwnBooks) -> None:
    """An end user's own budget, the app's budget for each end user and its limit for each address, each refuses the first call beyond it."""

    async def work() -> None:
        mine, process, price = await shop(), calls(own.book), listed(own.book, "echo")
        caller = mine.tenant.caller()

        async def ask(of: Shop, address: str = "192.0.2.1") -> None:
            await process.settle(ending(await process.admit(of.asks(own, address=address)), price, used(10, 0)))

        made = await client_tokens.create(caller, NewToken(app_id=mine.app_id, end_user="bob", allowed_origins=(ORIGIN,)), SITES)
        bob = Shop(mine.tenant, mine.app_id, Claims(made.id, mine.tenant.workspace_id), "bob")
        await end_users.update(caller, mine.end_user_id, EndUserChanges(budgets=(BoundInput(Measure.MONEY, "day", 15),)))
        await ask(mine)
        with pytest.raises(errors.BoundReached) as refused:
            await ask(mine)
        assert refused.value.bound == "money in day"
        await ask(bob)
        await end_users.update(caller, mine.end_user_id, EndUserChanges(budgets=()))
        app_budget = (BoundInput(Measure.MONEY, "day", 20, LimitPer.END_USER),)
        await registry.update(caller, mine.app_id, AppChanges(budgets=app_budget, limits=(BoundInput(Measure.CALLS, "1m", 3, LimitPer.ADDRESS),)))
        for _ in range(2):
            await ask(mine)
        with pytest.raises(errors.BoundReached):
            await ask(mine)
        await ask(bob)
        with pytest.raises(errors.BoundReached) as crowded:
            await ask(bob)
        assert crowded.value.bound == "calls in 1m"
        await ask(bob, "192.0.2.2")
        await own.sound()

    own.run(work())
