"""Stripe's own list of what moved on our balance, kept beside the books, so that the audit can hold each against the other, both ways."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import asyncpg
import structlog

from domain import audit
from domain.access.callers import Actor
from domain.errors import InvalidState, NotFound, Refusal
from domain.money import events, ledger
from domain.money.processor import MICROUSD_PER_CENT, EntryFact, Processor
from models import database

READ: Final = "stripe_entries"
"""The clock of how far the list is read; and below, of where the reading began: what was before is another's business."""
BEGAN: Final = "stripe_entries_from"
READ_SECONDS = 300
OVERLAP = timedelta(hours=1)
THOROUGH = timedelta(days=3)
"""How far the nightly look goes back, for what Stripe may have listed late."""
AT_ONCE = timedelta(days=1)
MOST_LOOKS = 50
MOST_LISTED = 1000

OWN: Final = {
    "payout": "money sent to the bank",
    "payout_cancel": "a payout that was cancelled",
    "payout_failure": "a payout that came back",
    "payout_minimum_balance_hold": "kept back from a payout",
    "payout_minimum_balance_release": "kept back from a payout until now",
    "topup": "money sent from the bank",
    "topup_reversal": "money sent from the bank, taken back",
    "stripe_fee": "a fee of the account's, of no one payment",
    "stripe_fx_fee": "a fee for changing currency",
    "tax_fee": "tax on Stripe's fees",
    "reserve_transaction": "kept in reserve, or let go of it",
    "reserved_funds": "kept in reserve, or let go of it",
    "reserve_hold": "kept in reserve",
    "reserve_release": "let go of the reserve",
    "payment_network_reserve_hold": "kept in reserve",
    "payment_network_reserve_release": "let go of the reserve",
}
"""Types of balance transactions that are between Stripe and whoever runs this installation, and no customer's: no transfer books them.

Source: docs.stripe.com/reports/balance-transaction-types.
"""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ListedEntry:
    """A balance transaction as Stripe lists it, in microdollars, with how it is accounted for: by a transfer, or by an explanation; else by nothing."""

    id: str
    type: str
    category: str
    source: str | None
    currency: str
    amount: int
    fee: int
    created_at: datetime
    transfer: str | None
    explanation: str | None
    explained_by: str | None


async def read(processor: Processor, *, at: datetime, again: timedelta = OVERLAP) -> int:
    """Read the list from where it was read to, and what came late in the stretch `again` before; returns how many entries were new.

    What no transfer books yet is looked at, so that money whose event was never heard is booked. Safe to repeat, and to stop half-way.
    """
    start = await _begin(at, again)
    new = 0
    while True:
        last = at - start <= AT_ONCE
        listed = await processor.entries_between(start, None if last else start + AT_ONCE)
        new += await _keep(listed, at if last else start + AT_ONCE)
        if last:
            break
        start += AT_ONCE
    await _look(processor, at)
    return new


async def read_sometimes(processor: Processor, *, at: datetime) -> int:
    """Read the list when nobody has for READ_SECONDS; returns how many entries were new."""
    read_at = await database.fetch_value("SELECT done_at FROM clock WHERE name = $1", READ)
    if read_at is not None and at - read_at < timedelta(seconds=READ_SECONDS):
        return 0
    return await read(processor, at=at)


async def _begin(at: datetime, again: timedelta) -> datetime:
    """Where to read from: what came late is read again, but nothing from before our own dealings with Stripe began."""
    earliest = await database.fetch_value("SELECT least(min(created_at), $1) FROM (SELECT created_at FROM stripe_entry UNION ALL SELECT created_at FROM top_up) x", at)
    await database.fetch("INSERT INTO clock (name, done_at) VALUES ($1, $2) ON CONFLICT DO NOTHING", BEGAN, earliest)
    clocks = {row["name"]: row["done_at"] for row in await database.fetch("SELECT name, done_at FROM clock WHERE name = ANY ($1)", [READ, BEGAN])}
    began: datetime = clocks[BEGAN]
    return max(began, clocks[READ] - again) if READ in clocks else began


async def _keep(listed: Sequence[EntryFact], read_to: datetime) -> int:
    async with database.transaction():
        rows = await database.fetch(
            """
            INSERT INTO listed_entry (id, type, category, source, currency, amount_microusd, fee_microusd, created_at, explanation)
            SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::bigint[], $8::timestamptz[], $9::text[])
                ON CONFLICT DO NOTHING RETURNING id
            """,
            [entry.id for entry in listed],
            [entry.type for entry in listed],
            [entry.category for entry in listed],
            [entry.source for entry in listed],
            [entry.currency for entry in listed],
            [entry.cents * MICROUSD_PER_CENT for entry in listed],
            [entry.fee_cents * MICROUSD_PER_CENT for entry in listed],
            [entry.created_at for entry in listed],
            [OWN.get(entry.type) for entry in listed],
        )
        await database.fetch(
            "INSERT INTO clock (name, done_at) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET done_at = greatest(clock.done_at, excluded.done_at)", READ, read_to
        )
    return len(rows)


_UNBOOKED = "l.explanation IS NULL AND NOT EXISTS (SELECT FROM stripe_entry e WHERE e.id = l.id)"


async def _look(processor: Processor, at: datetime) -> None:
    """Look at what stands behind entries that nothing accounts for: the third way to hear of money, after its event and the list of events."""
    rows = await database.fetch(
        f"""
        UPDATE listed_entry l SET looked_at = $1::timestamptz
          FROM (SELECT id FROM listed_entry l WHERE {_UNBOOKED} AND source IS NOT NULL AND created_at > $1::timestamptz - $2::interval
                   AND (looked_at IS NULL OR looked_at < $1::timestamptz - interval '1 hour')
                 ORDER BY looked_at NULLS FIRST, created_at LIMIT $3 FOR UPDATE SKIP LOCKED) due
         WHERE l.id = due.id RETURNING l.id, l.source
        """,
        at,
        THOROUGH,
        MOST_LOOKS,
    )
    for row in rows:
        try:
            await events.look_at(processor, "balance", row["source"], None, at)
        except Refusal as refusal:
            log.warning("an entry of Stripe's list could not be looked at", entry=row["id"], reason=refusal.message)


async def listed(most: int, *, unexplained: bool = False) -> list[ListedEntry]:
    """Return entries of Stripe's list, newest first: all, or those that neither a transfer nor an explanation accounts for."""
    rows = await database.fetch(
        f"""
        SELECT l.id, l.type, l.category, l.source, l.currency, l.amount_microusd AS amount, l.fee_microusd AS fee, l.created_at,
               (SELECT e.transfer_kind || ':' || e.transfer_ref FROM stripe_entry e WHERE e.id = l.id) AS transfer, l.explanation, l.explained_by
          FROM listed_entry l WHERE NOT $2 OR {_UNBOOKED} ORDER BY l.created_at DESC, l.id DESC LIMIT $1
        """,
        min(most, MOST_LISTED),
        unexplained,
    )
    return [_view(row) for row in rows]


def _view(row: asyncpg.Record) -> ListedEntry:
    return ListedEntry(**row)


async def explain(actor: Actor, entry_id: str, reason: str, *, at: datetime) -> None:
    """Account for an entry that is none of our customers', in an operator's words, which the audit then takes for it.

    Raises NotFound, InvalidInput for no reason, InvalidState for one that is accounted for.
    """
    reason = ledger.check_reason(reason)
    async with database.transaction():
        row = await database.fetch_row(
            f"UPDATE listed_entry l SET explanation = $2, explained_by = $3 WHERE l.id = $1 AND {_UNBOOKED} RETURNING l.id", entry_id, reason, actor.name[:200]
        )
        if row is None:
            if not await database.fetch_value("SELECT EXISTS (SELECT FROM listed_entry WHERE id = $1)", entry_id):
                raise NotFound("balance transaction", path=("id",))
            raise InvalidState("It is accounted for already.", state="accounted for", path=("id",))
        await audit.note(actor, "stripe.explain", None, {"balanceTransaction": (None, entry_id)}, workspace_id=audit.SERVICE, at=at, reason=reason)
