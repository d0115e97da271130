"""Whole lives of payments, told in every order, again and again, at once, with deaths in between: the same books, and Stripe's."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import pytest

from clients.stripe import Stripe
from domain import webhooks
from domain.access import workspaces
from domain.money import events, ledger, payments, renewals, tiers, topups
from domain.money.processor import EventFact, PaymentFact, ProcessorFailed, SessionFact
from domain.money.tiers import Tier
from domain.pages import Page
from embedded.stripe import payments as bank
from embedded.stripe.account import Account, Json
from embedded.stripe.server import Fault
from models import database
from models.enums import BillingCycle, LedgerAccountKind, Scope, TopUpStatus, TransferKind
from tests.payments.lives import CENT, Books, Till, books, total
from tests.support.world import TESTS, Tenant, tenant

pytestmark = pytest.mark.anyio

Life = Callable[[Account, str], str | None]


def _paid(account: Account, session: str) -> None:
    bank.pay(account, session)


def _refunded_in_parts(account: Account, session: str) -> None:
    payment = bank.pay(account, session)["id"]
    bank.create_refund(account, {"payment_intent": payment, "amount": 300})
    bank.create_refund(account, {"payment_intent": payment, "amount": 200})


def _refund_that_came_back(account: Account, session: str) -> None:
    payment = bank.pay(account, session)["id"]
    bank.create_refund(account, {"payment_intent": payment, "amount": 300})
    failed = bank.create_refund(account, {"payment_intent": payment, "amount": 500})
    bank.fail_refund(account, failed["id"])
    bank.create_refund(account, {"payment_intent": payment, "amount": 500})


def _disputed(account: Account, session: str) -> None:
    bank.open_dispute(account, bank.pay(account, session)["id"])


def _disputed_and_won(account: Account, session: str) -> None:
    payment = bank.pay(account, session)["id"]
    bank.create_refund(account, {"payment_intent": payment, "amount": 100})
    bank.close_dispute(account, bank.open_dispute(account, payment, cents=1_900)["id"], won=True)


def _disputed_and_lost(account: Account, session: str) -> None:
    bank.close_dispute(account, bank.open_dispute(account, bank.pay(account, session)["id"])["id"], won=False)


def _only_asked(account: Account, session: str) -> None:
    bank.close_dispute(account, bank.open_dispute(account, bank.pay(account, session)["id"], inquiry=True)["id"], won=True)


def _paid_days_later(account: Account, session: str) -> None:
    bank.finish(account, bank.pay(account, session, "6789")["id"], succeeded=True)


def _never_arrived(account: Account, session: str) -> None:
    bank.finish(account, bank.pay(account, session, "6789")["id"], succeeded=False)


def _declined_then_paid(account: Account, session: str) -> None:
    bank.pay(account, session, "0002")
    bank.pay(account, session, "4242")


def _expired(account: Account, session: str) -> None:
    bank.pay(account, session, "0002")
    bank.expire(account, session)


LIVES: dict[Callable[[Account, str], None], tuple[int, str, bool]] = {
    _paid: (2_000, "fulfilled", False),
    _refunded_in_parts: (1_500, "fulfilled", False),
    _refund_that_came_back: (1_200, "fulfilled", False),
    _disputed: (0, "fulfilled", True),
    _disputed_and_won: (1_900, "fulfilled", False),
    _disputed_and_lost: (0, "fulfilled", True),
    _only_asked: (2_000, "fulfilled", False),
    _paid_days_later: (2_000, "fulfilled", False),
    _never_arrived: (0, "failed", False),
    _declined_then_paid: (2_000, "fulfilled", False),
    _expired: (0, "expired", False),
}
"""Each life, and its end: cents of credit left, the top-up's status, whether spending is stopped."""
WHOLE = (_refund_that_came_back, _disputed_and_won, _never_arrived)
"""Lives that between them have every kind of event: these are told in more ways."""


async def _live(till: Till, life: Callable[[Account, str], None], told: Callable[[list[Json]], Awaitable[None]]) -> Books:
    till.account.events.clear()
    before, fees = till.moved(), till.fees()
    customer = await tenant()
    top_up = await till.begin(customer)
    life(till.account, str(top_up.session_id))
    await told(list(till.account.events))
    found = await books(customer)
    # F23: what is left is what Stripe moved, to the cent, and what Stripe kept stands beside it
    assert total(found, "cash") == till.moved() - before
    assert -total(found, "payments") - total(found, "disputes") == till.moved() - before - (till.fees() - fees)
    assert -total(found, "fees") == till.fees() - fees
    return found


@pytest.mark.parametrize("life", LIVES, ids=lambda life: life.__name__.strip("_"))
async def test_any_order_and_any_number_of_deliveries(till: Till, life: Callable[[Account, str], None]) -> None:
    """F21, F23: in order, shuffled with repeats a few at a time, or not at all but for the sweep: the same final books, which are Stripe's.

    The lives that have most kinds of events are also told backwards, one event at a time, by the last event alone, and found by catching up.
    """
    cents, status, frozen = LIVES[life]
    random_ = random.Random(life.__name__)
    wanted = await _live(till, life, till.hear)
    assert (total(wanted, "cash"), wanted.top_ups[0][0], wanted.frozen) == (cents * CENT, status, frozen)

    async def backwards(told: list[Json]) -> None:
        await till.hear(reversed(told))

    async def shuffled(told: list[Json]) -> None:
        many = told * 2
        random_.shuffle(many)
        while many:
            some = 1 if life in WHOLE else random_.randint(1, 4)
            await till.hear(many[:some])
            del many[:some]

    async def only_the_last(told: list[Json]) -> None:
        await till.hear(told[-1:])

    async def caught_up(told: list[Json]) -> None:
        await database.fetch("UPDATE clock SET done_at = done_at - interval '1 hour' WHERE name = $1", events.CATCH_UP)
        await events.catch_up(till.client, at=datetime.now(UTC))
        await till.work()

    async def swept(told: list[Json]) -> None:
        await database.fetch("UPDATE top_up SET look_at = clock_timestamp() WHERE look_at IS NOT NULL")
        while await payments.sweep(till.client):
            pass

    for told in (shuffled, swept, *((backwards, only_the_last, caught_up) if life in WHOLE else ())):
        assert await _live(till, life, told) == wanted, told.__name__


async def test_heard_while_it_happens(till: Till) -> None:
    """F21: an event that is worked off between any two steps of a life leaves the same books at its end."""

    def life(account: Account, session: str) -> list[Callable[[], object]]:
        payment: list[str] = []
        refund: list[str] = []
        dispute: list[str] = []
        return [
            lambda: payment.append(bank.pay(account, session, "6789")["id"]),
            lambda: bank.finish(account, payment[0], succeeded=True),
            lambda: refund.append(bank.create_refund(account, {"payment_intent": payment[0], "amount": 700})["id"]),
            lambda: bank.create_refund(account, {"payment_intent": payment[0], "amount": 100}),
            lambda: bank.fail_refund(account, refund[0]),
            lambda: dispute.append(bank.open_dispute(account, payment[0], cents=1_900)["id"]),
            lambda: bank.close_dispute(account, dispute[0], won=True),
        ]

    random_ = random.Random(7)
    found = []
    for chance in (0.0, 1.0, 0.3, 0.6):
        till.account.events.clear()
        customer = await tenant()
        top_up = await till.begin(customer)
        for step in life(till.account, str(top_up.session_id)):
            step()
            if random_.random() < chance:
                await till.hear(random_.sample(till.account.events, k=random_.randint(1, len(till.account.events))))
        await till.hear()
        found.append(await books(customer))
    assert total(found[0], "cash") == 1_900 * CENT
    assert all(each == found[0] for each in found)


def _facts(till: Till) -> list[EventFact]:
    facts = [EventFact(event["id"], event["type"], event["data"]["object"]["id"], None, False, datetime.now(UTC)) for event in till.account.events]
    return [fact for fact in facts if fact.type in events.TYPES]


async def test_fifty_deliveries_at_once_credit_once(till: Till) -> None:
    """F21: each event of a payment fifty times at once, worked off by several at once: one credit."""
    customer, _, _ = await till.bought()
    listened = _facts(till)
    taken = await asyncio.gather(*(events.receive(fact) for fact in listened * 50))
    assert sum(taken) == len(listened)
    await asyncio.gather(*(till.work() for _ in range(4)))
    found = await books(customer)
    assert found.top_ups == (("fulfilled", 2_000 * CENT),)
    assert [row[0] for row in found.transfers] == ["fee", "top_up"]


class Dying:
    """Stripe as a process sees it that dies at its n-th request: before it is sent, or after its answer is lost."""

    live = False

    def __init__(self, client: Stripe, dies_at: int, *, after: bool) -> None:
        self._client = client
        self._left = dies_at
        self._after = after

    def __getattr__(self, name: str) -> Callable[..., Awaitable[object]]:
        async def ask(*arguments: object, **named: object) -> object:
            self._left -= 1
            if self._left == 0 and not self._after:
                raise Died
            answer = await getattr(self._client, name)(*arguments, **named)
            if self._left == 0:
                raise Died
            return answer

        return ask


class Died(Exception):
    """The process is gone."""


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("dies_at", [1, 2, 3])
async def test_a_death_between_any_two_steps_of_a_beginning(till: Till, dies_at: int, after: bool) -> None:
    """A process that dies before or after any request of a beginning top-up leaves a row that the same key, or a sweep, goes on with: one session."""
    customer = await tenant()
    dying = Dying(till.client, dies_at, after=after)
    try:
        await topups.begin(customer.caller(), dying, 5_000_000, return_url="http://a.test/", idempotency_key="k")  # type: ignore[arg-type]  # it answers whatever the client does
        assert dies_at > 2, "a beginning asks for a customer and a session"
    except Died:
        pass
    await database.fetch("UPDATE top_up SET look_at = clock_timestamp() WHERE workspace_id = $1", customer.workspace_id)
    await payments.sweep(till.client)
    again = await topups.begin(customer.caller(), till.client, 5_000_000, return_url="http://a.test/", idempotency_key="k")
    assert again.session_url is not None
    assert again.session_id is not None
    mine = [each for each in till.account.all("checkout.session") if each["client_reference_id"] == str(again.id)]
    assert [each["id"] for each in mine] == [again.session_id]
    assert await database.fetch_value("SELECT count(*) FROM top_up WHERE workspace_id = $1", customer.workspace_id) == 1
    bank.pay(till.account, again.session_id)
    await till.hear()
    assert (await customer.balance()).cash == 5_000_000


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("dies_at", [1, 2])
async def test_a_death_between_any_two_steps_of_a_fulfilment(till: Till, dies_at: int, after: bool) -> None:
    """F22: the event is in the inbox, the process dies before it credits, and it is still credited, once."""
    customer, _, _ = await till.bought()
    for fact in _facts(till):
        await events.receive(fact)
    with pytest.raises(Died):
        await till.work(Dying(till.client, dies_at, after=after))  # type: ignore[arg-type]  # it answers whatever the client does
    assert (await customer.balance()).cash == 0
    await database.fetch("UPDATE job SET leased_until = NULL WHERE kind = $1 AND status = 'running'", events.STRIPE_EVENT)
    await till.work()
    await till.hear()
    assert (await customer.balance()).cash == 2_000 * CENT
    assert [row[0] for row in (await books(customer)).transfers] == ["fee", "top_up"]


async def test_a_look_that_was_overtaken_books_nothing(till: Till) -> None:
    """A slow look whose snapshot is older than what was booked meanwhile is thrown away, and looks again: nothing goes back."""
    customer, top_up, payment = await till.bought()
    entered, go_on = asyncio.Event(), asyncio.Event()

    class Slow(Stripe):
        async def find_payment(self, payment_id: str) -> PaymentFact | None:
            fact = await super().find_payment(payment_id)
            entered.set()
            await go_on.wait()
            return fact

    slow = Slow("sk_test_slow", till.simulator.url)
    looking = asyncio.create_task(payments.look(slow, top_up.workspace_id, top_up.id))
    await entered.wait()
    dispute = bank.open_dispute(till.account, payment)
    bank.close_dispute(till.account, dispute["id"], won=True)
    await till.hear()
    go_on.set()
    assert await looking
    await slow.close()
    found = await books(customer)
    assert found.disputes == (("won", 2_000 * CENT),)
    assert total(found, "cash") == 2_000 * CENT


async def test_another_currency_goes_to_suspense(till: Till) -> None:
    """What arrives in euros credits nobody: it stands in suspense, with its currency named, and a refund takes it out again."""
    customer = await tenant()
    top_up = await till.begin(customer)
    payment = bank.pay(till.account, str(top_up.session_id), currency="eur")["id"]
    await till.hear()
    assert (await customer.balance()).cash == 0
    found = await books(customer)
    assert (total(found, "suspense"), found.top_ups) == (2_000 * CENT, (("fulfilled", None),))
    reason = await database.fetch_value("SELECT reason FROM transfer WHERE workspace_id = $1 AND kind = 'top_up'", customer.workspace_id)
    assert reason == "2000 of the smallest unit of EUR"
    bank.create_refund(till.account, {"payment_intent": payment})
    await till.hear()
    assert total(await books(customer), "suspense") == 0


async def test_what_stripe_received_is_credited(till: Till) -> None:
    """The credit is what arrived, not what was asked for."""
    customer = await tenant()
    top_up = await till.begin(customer)
    bank.pay(till.account, str(top_up.session_id), cents=1_234)
    await till.hear()
    assert (await customer.balance()).cash == 1_234 * CENT
    assert (await topups.find(customer.workspace_id, top_up.id)).credited == 1_234 * CENT


async def _spend(customer: Tenant, microusd: int) -> None:
    """Take credit away as a charge would."""
    await ledger.post(
        customer.workspace_id,
        TransferKind.ADJUSTMENT,
        f"spent:{microusd}",
        debit=LedgerAccountKind.CASH,
        credit=LedgerAccountKind.ADJUSTMENTS,
        amount_microusd=microusd,
        reason="spent",
        actor=TESTS,
    )


async def test_a_dispute_books_below_zero_and_the_next_top_up_pays_it_first(till: Till) -> None:
    """F23: spent and then contested: the balance is below zero and spending stops; the next top-up pays the debt, and what is left can be spent."""
    customer, _, payment = await till.bought(2_000)
    await till.hear()
    await _spend(customer, 1_500 * CENT)
    bank.open_dispute(till.account, payment)
    await till.hear()
    balance = await customer.balance()
    assert (balance.cash, balance.available) == (-1_500 * CENT, 0)
    assert (await books(customer)).frozen
    second = await till.begin(customer, 1_000)
    bank.pay(till.account, str(second.session_id))
    await till.hear()
    balance = await customer.balance()
    assert (balance.cash, balance.available) == (-500 * CENT, 0)
    assert not (await books(customer)).frozen
    third = await till.begin(customer, 2_000)
    bank.pay(till.account, str(third.session_id))
    await till.hear()
    balance = await customer.balance()
    assert (balance.cash, balance.available) == (1_500 * CENT, 1_500 * CENT)
    assert not (await books(customer)).frozen


async def test_a_payment_that_names_another_s_top_up_credits_nobody(till: Till) -> None:
    """A payment of one customer whose metadata names another workspace's top-up is not booked, whoever says so."""
    victim = await tenant()
    top_up = await till.begin(victim)
    thief = await till.client.create_customer(victim.owner.user_id or victim.workspace_id)
    forged = bank.new_payment(till.account, 100_000, "usd", customer=thief, metadata={"top_up": str(top_up.id), "workspace": str(victim.workspace_id)})
    bank.succeed(till.account, forged, bank.charge(till.account, forged, bank.attach_card(till.account, thief, "4242"), status="pending"))
    await till.hear()
    assert (await victim.balance()).cash == 0
    bank.pay(till.account, str(top_up.session_id))
    await till.hear()
    assert (await victim.balance()).cash == 2_000 * CENT


async def test_a_customer_that_is_gone_at_stripe_is_made_anew(till: Till) -> None:
    """Deleted there, or made with the key of the test mode: each page is begun for another one; what the former one paid stays the workspace's."""
    customer, _, payment = await till.bought()
    await till.hear()
    former = await topups.customer_of(till.client, customer.workspace_id)
    del till.account.objects[former]
    await tiers.keep([Tier("small", "Small", "Tallygate", 1_000, BillingCycle.MONTHLY, 0, None, ())], at=datetime.now(UTC))
    begun = await asyncio.gather(*(till.begin(customer, 500) for _ in range(3)))
    second = await topups.customer_of(till.client, customer.workspace_id)
    assert {till.account.get("checkout.session", str(each.session_id))["customer"] for each in begun} == {second}
    assert [each["metadata"] for each in till.account.all("customer")] == [{"workspace": str(customer.workspace_id)}]
    del till.account.objects[second]
    page = await renewals.subscribe(customer.caller(), till.client, "small", return_url="http://a.test/", idempotency_key="k")
    assert (await renewals.subscribe(customer.caller(), till.client, "small", return_url="http://a.test/", idempotency_key="k")).id == page.id
    del till.account.objects[await topups.customer_of(till.client, customer.workspace_id)]
    assert await renewals.portal(customer.caller(), till.client, return_url="http://a.test/")
    bank.create_refund(till.account, {"payment_intent": payment, "amount": 300})
    bank.pay(till.account, str(begun[0].session_id))
    await till.hear()
    assert (await customer.balance()).cash == 2_200 * CENT
    found = await workspaces.page(customer.caller(Scope.OPERATOR), Page(1), former)
    assert [each.id for each in found.items] == [customer.workspace_id]


async def test_payments_that_are_not_ours_are_left_alone(till: Till) -> None:
    """The account may sell other things: their events are taken in, and lead to nothing."""
    other = bank.create_customer(till.account, {})
    payment = bank.new_payment(till.account, 5_000, "usd", customer=other["id"])
    bank.succeed(till.account, payment, bank.charge(till.account, payment, bank.attach_card(till.account, None, "4242"), status="pending"))
    bank.create_refund(till.account, {"payment_intent": payment["id"]})
    await till.hear()
    outcomes = await database.fetch("SELECT DISTINCT outcome FROM stripe_event WHERE id = ANY ($1)", [event["id"] for event in till.account.events])
    assert [row["outcome"] for row in outcomes] == ["not ours"]


async def test_stripe_away(till: Till) -> None:
    """Stripe fails for good: the caller is told to try again, the row stays, and the same key goes on with it."""
    customer = await tenant()
    till.simulator.faults.append(Fault("POST /v1/checkout/sessions", times=3))
    with pytest.raises(ProcessorFailed) as caught:
        await topups.begin(customer.caller(), till.client, 5_000_000, return_url="http://a.test/", idempotency_key="k")
    assert (caught.value.retryable, caught.value.status) == (True, 503)
    again = await topups.begin(customer.caller(), till.client, 5_000_000, return_url="http://a.test/", idempotency_key="k")
    assert again.status is TopUpStatus.OPEN
    assert again.session_url is not None


async def test_a_client_is_never_called_inside_a_transaction(till: Till) -> None:
    """Stripe's slowness must not become everybody's: the client raises when a transaction is open."""
    async with database.transaction():
        with pytest.raises(AssertionError, match="inside a database transaction"):
            await till.client.find_session("cs_test_x")


def test_a_session_fact_holds_no_secret() -> None:
    """What is passed around of a page is what is needed of it."""
    assert set(SessionFact.__slots__) == {
        *("id", "mode", "status", "url", "expires_at", "workspace_id", "subject", "customer_id", "payment_id", "subscription_id", "live"),
    }


async def test_a_paid_top_up_is_announced_once(till: Till) -> None:
    """`top_up.fulfilled` goes to the endpoints that want it, once, whatever is heard how often and at once, and whatever becomes of the payment later."""
    customer, top_up, payment = await till.bought()
    caller, secret = customer.caller(), "s" * 32
    wanted, _ = await webhooks.create(caller, "https://example.com/all", None, installation_secret=secret, private_allowed=True)
    await webhooks.create(caller, "https://example.com/alerts", ["alert.fired"], installation_secret=secret, private_allowed=True)
    told = list(till.account.events)
    await asyncio.gather(*(till.hear(told) for _ in range(4)))
    await till.hear([])
    bank.create_refund(till.account, {"payment_intent": payment, "amount": 300})
    await till.hear()
    rows = await database.fetch("SELECT endpoint_id, event, payload FROM webhook_delivery WHERE workspace_id = $1", customer.workspace_id)
    assert [(row["endpoint_id"], row["event"]) for row in rows] == [(wanted.id, "top_up.fulfilled")]
    about = {"id": str(top_up.id), "automatic": False, "credited_microusd": 20_000_000}
    assert json.loads(rows[0]["payload"])["data"] == {"workspace_id": str(customer.workspace_id), "top_up": about}
