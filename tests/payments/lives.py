"""Lives of payments: what a customer and a bank do, and what is heard of it."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from clients.stripe import Stripe
from domain import duties
from domain.money import events, topups
from domain.money.processor import Processor
from domain.money.topups import TopUpView
from embedded.stripe import payments as bank
from embedded.stripe.account import Account, Json
from embedded.stripe.server import Simulator
from models import database
from tests.support.world import Tenant, broken, tenant

CENT = 10_000


@dataclass
class Till:
    """A simulator, the client on it, and perhaps the database of a gateway that hears its events."""

    simulator: Simulator
    client: Stripe
    dsn: str | None = None

    @property
    def account(self) -> Account:
        """The simulated account."""
        return self.simulator.account

    async def begin(self, customer: Tenant, cents: int = 2_000, **more: Any) -> TopUpView:
        """Begin a top-up as a workspace's owner."""
        return await topups.begin(customer.caller(), self.client, cents * CENT, return_url="http://a.test/", idempotency_key=None, **more)

    async def bought(self, cents: int = 2_000) -> tuple[Tenant, TopUpView, str]:
        """A workspace whose top-up is paid at Stripe, and not heard of yet: with the payment's id."""
        customer = await tenant()
        top_up = await self.begin(customer, cents)
        return customer, top_up, bank.pay(self.account, str(top_up.session_id))["id"]

    async def hear(self, told: Iterable[Json] | None = None) -> None:
        """Deliver events and work them off: all that there are, in their order, when none are named."""
        for event in list(self.account.events if told is None else told):
            fact = events.read(json.dumps(event).encode(), live=False)
            if fact is not None:
                await events.receive(fact)
        await self.work()

    async def work(self, processor: Processor | None = None) -> None:
        """Work off the duties of events, as a worker does."""
        for row in await database.fetch("SELECT id FROM job WHERE kind = $1 AND status IN ('queued', 'running') ORDER BY id", events.STRIPE_EVENT):
            duty = await duties.claim(row["id"])
            if duty is not None:
                await events.apply(processor or self.client, duty)

    def moved(self) -> int:
        """What the balance transactions of the account add up to, in microdollars, before fees."""
        return sum(int(each["amount"]) for each in self.account.all("balance_transaction")) * CENT

    def fees(self) -> int:
        """What Stripe kept, in microdollars."""
        return sum(int(each["fee"]) for each in self.account.all("balance_transaction")) * CENT


@dataclass(frozen=True)
class Books:
    """What the books of a workspace say, without ids: equal lives have equal books."""

    transfers: tuple[tuple[str, int, str, str], ...]
    accounts: tuple[tuple[str, int], ...]
    top_ups: tuple[tuple[str, int | None], ...]
    refunds: tuple[tuple[str, int], ...]
    disputes: tuple[tuple[str, int], ...]
    entries: int
    frozen: bool


async def books(customer: Tenant) -> Books:
    """Read them; fails when the audit finds anything."""
    assert await broken(customer) == []
    workspace_id: UUID = customer.workspace_id
    transfers = await database.fetch(
        "SELECT t.kind, t.amount, d.kind AS debit, c.kind AS credit FROM transfer t JOIN account d ON d.workspace_id = t.workspace_id AND d.id = t.debit_id"
        " JOIN account c ON c.workspace_id = t.workspace_id AND c.id = t.credit_id WHERE t.workspace_id = $1",
        workspace_id,
    )
    totals: dict[str, int] = {}
    for row in transfers:
        totals[row["debit"]] = totals.get(row["debit"], 0) - row["amount"]
        totals[row["credit"]] = totals.get(row["credit"], 0) + row["amount"]
    return Books(
        tuple(sorted((row["kind"], row["amount"], row["debit"], row["credit"]) for row in transfers)),
        tuple(sorted(totals.items())),
        tuple(tuple(row) for row in await database.fetch("SELECT status, credited_microusd FROM top_up WHERE workspace_id = $1 ORDER BY id", workspace_id)),
        tuple(sorted(tuple(row) for row in await database.fetch("SELECT status, amount_microusd FROM refund WHERE workspace_id = $1", workspace_id))),
        tuple(sorted(tuple(row) for row in await database.fetch("SELECT status, amount_microusd FROM dispute WHERE workspace_id = $1", workspace_id))),
        await database.fetch_value("SELECT count(*) FROM stripe_entry WHERE workspace_id = $1", workspace_id),
        await database.fetch_value("SELECT frozen_at IS NOT NULL FROM workspace WHERE id = $1", workspace_id),
    )


def total(books_: Books, kind: str) -> int:
    """What an account's transfers add up to."""
    return dict(books_.accounts).get(kind, 0)
