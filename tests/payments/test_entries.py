"""Stripe's balance transactions against our transfers, both ways: each kind of mismatch is an alarm, and the alarm goes when it is accounted for."""

from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from domain.access.callers import Actor
from domain.errors import InvalidInput, InvalidState, NotFound
from domain.money import books, entries, ledger, payments
from embedded.stripe import payments as bank
from jobs.books import look
from models import database
from models.enums import ActorKind, LedgerAccountKind, TransferKind
from models.ids import uuid7
from tests.payments.conftest import BOOKS
from tests.payments.lives import CENT, Till
from tests.support.servers import Servers
from tests.support.world import TESTS, Tenant, tenant

pytestmark = pytest.mark.anyio

OTTO = Actor(ActorKind.OPERATOR, None, "otto")
HALF_AN_HOUR = 1800


@pytest.fixture(autouse=True)
async def half_an_hour_ago(till: Till) -> None:
    """Stripe's clock is half an hour late, so that what happens there is old enough to be missed; what other tests left is explained."""
    till.account.offset_seconds = -HALF_AN_HOUR
    await database.fetch("UPDATE listed_entry SET explanation = 'of another test' WHERE explanation IS NULL")
    for name in (entries.READ, entries.BEGAN):
        await database.fetch(
            "INSERT INTO clock (name, done_at) VALUES ($1, clock_timestamp() - interval '2 hours') ON CONFLICT (name) DO UPDATE SET done_at = excluded.done_at", name
        )


async def read(till: Till, *, minutes_later: int = 0) -> int:
    """Read Stripe's list as of now, or later, when more of our transfers are old enough to be missed."""
    return await entries.read(till.client, at=datetime.now(UTC) + timedelta(minutes=minutes_later))


async def alarms(*customers: Tenant) -> dict[str, list[tuple[str, int | None]]]:
    """What the audit says of Stripe and of these workspaces: check, subject, difference."""
    found: dict[str, list[tuple[str, int | None]]] = {}
    mine = {customer.workspace_id for customer in customers} | {None}
    for row in await ledger.audit():
        if row.workspace_id in mine:
            found.setdefault(books.named(row.broken)[0], []).append((row.subject, row.difference_microusd))
    return found


async def test_a_whole_life_is_in_both(till: Till) -> None:
    """Paid, refunded in part, disputed and won, with every fee: Stripe's list and the transfers are the same, and each entry names its transfer."""
    customer, _, payment = await till.bought()
    bank.create_refund(till.account, {"payment_intent": payment, "amount": 300})
    bank.close_dispute(till.account, bank.open_dispute(till.account, payment, cents=1_700)["id"], won=True)
    await till.hear()
    assert await read(till, minutes_later=20) == 4
    assert await alarms(customer) == {}
    told = {entry.category: entry for entry in await entries.listed(4)}
    assert {name: (entry.amount, entry.fee, (entry.transfer or "").split(":")[0]) for name, entry in told.items()} == {
        "charge": (2_000 * CENT, 88 * CENT, "top_up"),
        "refund": (-300 * CENT, 0, "refund"),
        "dispute": (-1_700 * CENT, 1_500 * CENT, "dispute"),
        "dispute_reversal": (1_700 * CENT, 0, "dispute_reversal"),
    }
    assert await read(till) == 0, "read again, nothing is new"


async def test_more_than_a_page_and_more_than_a_day(till: Till) -> None:
    """Every entry is read, however many pages and days they are; payouts and the account's own fees explain themselves."""
    till.account.offset_seconds = -3 * 86400
    for clock in (entries.READ, entries.BEGAN):
        await database.fetch("UPDATE clock SET done_at = clock_timestamp() - interval '4 days' WHERE name = $1", clock)
    made = {bank.pay_out(till.account, cents)["balance_transaction"] for cents in range(1, 131)}
    till.account.offset_seconds = -HALF_AN_HOUR
    fee = bank.charge_account(till.account, 700)["id"]
    assert await read(till) == 131
    kept = {entry.id: entry for entry in await entries.listed(200)}
    assert set(kept) >= made | {fee}
    assert {kept[each].explanation for each in made} == {"money sent to the bank"}
    assert kept[fee].explanation == "a fee of the account's, of no one payment"
    assert await alarms() == {}


async def test_money_whose_event_was_never_heard_is_booked(till: Till) -> None:
    """The list is the third way to hear of a payment: what stands behind an entry that nothing books is looked at, and booked."""
    customer, _, _ = await till.bought()
    assert (await customer.balance()).cash == 0
    await read(till)
    assert (await customer.balance()).cash == 2_000 * CENT
    assert await alarms(customer) == {}


async def test_a_charge_made_outside(till: Till) -> None:
    """What somebody charges in Stripe's dashboard is in no transfer: told with its id and amount, until an operator explains it, which is audited."""
    other = bank.create_customer(till.account, {})
    payment = bank.new_payment(till.account, 5_000, "usd", customer=other["id"])
    bank.succeed(till.account, payment, bank.charge(till.account, payment, bank.attach_card(till.account, None, "4242"), status="pending"))
    charge = till.account.get("charge", payment["latest_charge"])
    entry_id = charge["balance_transaction"]
    await read(till)
    assert await alarms() == {"stripe_entries_have_transfers": [(f"{entry_id} charge of {charge['id']}", 5_000 * CENT)]}
    report = {check.name: check for check in (await books.check()).checks}
    assert report["stripe_entries_have_transfers"].examples[0] == f"stripe {entry_id} charge of {charge['id']}"
    await look(till.client, at=datetime.now(UTC))
    assert [each.broken for each in await books.kept() if each.name == "stripe_entries_have_transfers"] == [1]
    assert [entry.id for entry in await entries.listed(10, unexplained=True)] == [entry_id]
    with pytest.raises(InvalidInput):
        await entries.explain(OTTO, entry_id, " ", at=datetime.now(UTC))
    with pytest.raises(NotFound):
        await entries.explain(OTTO, "txn_unknown", "a shirt", at=datetime.now(UTC))
    await entries.explain(OTTO, entry_id, "a shirt", at=datetime.now(UTC))
    with pytest.raises(InvalidState):
        await entries.explain(OTTO, entry_id, "two shirts", at=datetime.now(UTC))
    assert await alarms() == {}
    event = await database.fetch_row("SELECT actor_name, reason, changes FROM audit_event WHERE action = 'stripe.explain' ORDER BY id DESC LIMIT 1")
    assert event is not None
    assert (event["actor_name"], event["reason"], event["changes"]) == ("otto", "a shirt", f'{{"balanceTransaction": [null, "{entry_id}"]}}')


async def test_an_entry_that_is_seconds_old_is_no_alarm(till: Till) -> None:
    """What has just happened at Stripe may be on its way to us."""
    till.account.offset_seconds = 0
    bank.balance_transaction(till.account, "charge", "ch_unknown", 5_000, 0, "usd")
    await read(till)
    assert await alarms() == {}


async def test_a_transfer_that_stripe_never_made(till: Till) -> None:
    """A top-up booked by whatever mistake, with no balance transaction: told with its id, once it is old enough; young, it is not."""
    customer = await tenant()
    wrong = await ledger.post(
        customer.workspace_id,
        TransferKind.TOP_UP,
        f"pi_{uuid7().hex}",
        debit=LedgerAccountKind.PAYMENTS,
        credit=LedgerAccountKind.CASH,
        amount_microusd=7_000_000,
        reason=None,
        actor=TESTS,
    )
    await read(till)
    assert await alarms(customer) == {}
    await read(till, minutes_later=20)
    assert await alarms(customer) == {"transfers_have_stripe_entries": [(f"{wrong.id} top_up {wrong.ref}", 7_000_000)]}


async def test_an_entry_that_comes_late(till: Till) -> None:
    """Booked before Stripe made its balance transaction: missed while it is not there, and sound as soon as it is."""
    customer, top_up, payment = await till.bought()
    charge = till.account.get("charge", till.account.get("payment_intent", payment)["latest_charge"])
    entry = till.account.objects.pop(charge["balance_transaction"])
    charge["balance_transaction"] = None
    await till.hear()
    await read(till, minutes_later=20)
    assert list(await alarms(customer)) == ["transfers_have_stripe_entries"]
    charge["balance_transaction"], till.account.objects[entry["id"]] = entry["id"], entry
    await payments.look(till.client, customer.workspace_id, top_up.id)
    await read(till, minutes_later=20)
    assert await alarms(customer) == {}


async def test_an_entry_that_stripe_does_not_list(till: Till) -> None:
    """A transfer and its fee that name a balance transaction which Stripe's list lacks are told, both; listed at last, they are sound."""
    customer, _, _ = await till.bought()
    await till.hear()
    entry = next(till.account.all("balance_transaction"))
    del till.account.objects[entry["id"]]
    await read(till, minutes_later=20)
    found = await alarms(customer)
    assert [difference for _, difference in found.pop("transfers_have_stripe_entries")] == [2_000 * CENT, 88 * CENT]
    assert found == {}
    till.account.objects[entry["id"]] = entry
    await read(till, minutes_later=20)
    assert await alarms(customer) == {}


async def test_amounts_and_fees_that_differ(till: Till, servers: Servers) -> None:
    """Another amount, and another fee, in Stripe's list than was booked: each told with the ids and by how much, gone when they agree."""
    customer, _, _ = await till.bought()
    await till.hear()
    await read(till)
    entry_id = next(till.account.all("balance_transaction"))["id"]
    transfer = await database.fetch_value("SELECT id FROM transfer WHERE workspace_id = $1 AND kind = 'top_up'", customer.workspace_id)
    change = "UPDATE listed_entry SET amount_microusd = amount_microusd + $2, fee_microusd = fee_microusd + $3 WHERE id = $1"
    await database.fetch(change, entry_id, -100 * CENT, 5 * CENT)
    assert await alarms(customer) == {
        "transfers_equal_stripe": [(f"{transfer} top_up {entry_id}", 100 * CENT)],
        "fees_equal_stripe": [(entry_id, -5 * CENT)],
    }
    await database.fetch(change, entry_id, 100 * CENT, -5 * CENT)
    assert await alarms(customer) == {}
    admin = await asyncpg.connect(servers.admin_dsn(BOOKS))
    try:  # a fee that was never booked
        await admin.execute("SET session_replication_role = replica")
        gone = await admin.fetchrow("DELETE FROM transfer WHERE workspace_id = $1 AND kind = 'fee' RETURNING *", customer.workspace_id)
        assert gone is not None
        assert await alarms(customer) == {"fees_equal_stripe": [(entry_id, -88 * CENT)]}
        places = ", ".join(f"${n}" for n in range(1, len(gone) + 1))
        await admin.execute(f"INSERT INTO transfer ({', '.join(gone.keys())}) VALUES ({places})", *gone.values())
    finally:
        await admin.close()
    assert await alarms(customer) == {}


async def test_a_refund_that_stripe_would_not_make(till: Till) -> None:
    """Booked, refused by Stripe and booked back: no entry is missed; another currency's payment is compared by its entry alone."""
    customer = await tenant()
    top_up = await till.begin(customer)
    bank.pay(till.account, str(top_up.session_id), currency="eur")
    await till.hear()
    for kind, debit, credit in (
        (TransferKind.REFUND, LedgerAccountKind.SUSPENSE, LedgerAccountKind.PAYMENTS),
        (TransferKind.REFUND_FAILURE, LedgerAccountKind.PAYMENTS, LedgerAccountKind.SUSPENSE),
    ):
        await ledger.post(customer.workspace_id, kind, "r1", debit=debit, credit=credit, amount_microusd=100, reason=None, actor=TESTS)
    await read(till, minutes_later=20)
    assert await alarms(customer) == {}


async def test_a_list_that_nobody_reads_is_an_alarm(till: Till, servers: Servers) -> None:
    """Payments a day old that Stripe's list was never held against are told: payments were switched off, or the reading fails."""
    customer, _, _ = await till.bought()
    await till.hear()
    await read(till)
    admin = await asyncpg.connect(servers.admin_dsn(BOOKS))
    try:
        await admin.execute("SET session_replication_role = replica")
        age = "UPDATE transfer SET created_at = created_at + $2::interval WHERE workspace_id = $1"
        await database.fetch("UPDATE clock SET done_at = clock_timestamp() - interval '3 days' WHERE name = $1", entries.READ)
        await admin.execute(age, customer.workspace_id, timedelta(days=-2))
        assert [name for name in await alarms() if name == "stripe_entries_are_read"] == ["stripe_entries_are_read"]
        await read(till)
        assert "stripe_entries_are_read" not in await alarms()
        await admin.execute(age, customer.workspace_id, timedelta(days=2))
    finally:
        await admin.close()
