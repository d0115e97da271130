"""Whether the books are sound: every invariant that the view `audit` looks at, by name, in one answer."""

import re
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from domain.access.callers import Caller
from domain.money import ledger
from domain.money.ledger import Broken
from models import database
from models.enums import Scope

MOST_EXAMPLES = 10

CHECKS: Final = {
    "balance is not the sum of its transfers": ("balance_equals_transfers", "Every balance is the sum of its transfers."),
    "transfers do not sum to zero": ("transfers_sum_to_zero", "What leaves one account enters another: all transfers sum to zero."),
    "balance is below its floor": ("balance_above_floor", "No balance is below its floor."),
    "balance after a transfer does not follow from the one before": ("running_balances_chain", "Every transfer's balance follows from the one before."),
    "transfers of an account have a gap": ("transfers_without_gaps", "The transfers of an account are numbered without a gap."),
    "held is not the sum of open holds": ("held_equals_open_holds", "What an account holds is the sum of its open holds."),
    "a quota's call was charged": ("quota_calls_cost_nothing", "A call that a quota paid costs nothing."),
    "a grant is not its account": ("grants_equal_accounts", "Every grant is what its account was given."),
    "a grant that is over still holds credit": ("expired_grants_are_empty", "A grant that is over holds no credit."),
    "a bound holds other than its open calls": ("bounds_equal_open_calls", "What a bound holds is the sum of its open calls."),
    "hold is open long past its expiry": ("no_hold_past_expiry", "No hold is open long past its expiry."),
    "closed hold without a usage event": ("closed_holds_have_usage", "Every closed hold has a usage event."),
    "call without a hold": ("calls_have_holds", "Every call has a hold."),
    "charge of a record is not what its transfers moved": ("usage_equals_charges", "What usage records were charged is what their transfers moved."),
    "what wallets paid is not what their transfers moved": ("wallet_costs_equal_transfers", "What usage records say wallets paid is what their transfers moved."),
    "a wallet is no account of its end user's alone": ("wallets_have_one_owner", "Every wallet is the account of one end user."),
    "micros and carry are not the picos charged": ("micros_and_carry_equal_picos", "Microdollars and carry are exactly the picodollars charged."),
    "cells and pending events are not the events": ("rollups_equal_usage", "The rollups are what their events add up to."),
    "stripe's entry is in no transfer": ("stripe_entries_have_transfers", "Every balance transaction of Stripe's is in a transfer, or explained."),
    "transfer is in no entry of stripe's": ("transfers_have_stripe_entries", "Every transfer of money at Stripe is in a balance transaction of Stripe's."),
    "transfer is not what stripe moved": ("transfers_equal_stripe", "Transfers are what Stripe moved, to the cent."),
    "fee is not what stripe kept": ("fees_equal_stripe", "Booked fees are what Stripe kept, to the cent."),
    "stripe's entries are not read": ("stripe_entries_are_read", "Stripe's balance transactions were read when there was a payment."),
}
"""What the view says of a broken row, and the check's stable name and promise."""
COMPARISON: Final = "usage_cells_equal_events"
"""The check that reads every event, and is made by a job of its own at night."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must hold; `difference_microusd` is by how much it is broken in all, without signs."""

    name: str
    description: str
    broken: int
    difference_microusd: int
    examples: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """Whether it holds."""
        return self.broken == 0


@dataclass(frozen=True, slots=True)
class Report:
    """Every check, as of one snapshot."""

    checked_at: datetime
    checks: tuple[Check, ...]

    @property
    def sound(self) -> bool:
        """Whether every check holds."""
        return all(check.sound for check in self.checks)


def named(broken: str) -> tuple[str, str]:
    """Return a check's name and promise for what the view says; one that is new is shown under its own words, never left out."""
    return CHECKS.get(broken) or (re.sub(r"[^a-z0-9]+", "_", broken.lower()).strip("_"), f"Nowhere: {broken}.")


async def check() -> Report:
    """Look at the books of the whole installation now, in one snapshot; dear, for operators and the nightly job."""
    rows: dict[str, list[Broken]] = defaultdict(list)
    async with database.transaction():
        await database.fetch("SELECT set_config('statement_timeout', '30min', true)")
        for row in await ledger.audit():
            rows[row.broken].append(row)
    checks = [
        Check(
            *named(broken),
            broken=len(rows[broken]),
            difference_microusd=sum(abs(row.difference_microusd or 0) for row in rows[broken]),
            examples=tuple(f"{row.workspace_id or 'stripe'} {row.subject}" for row in rows[broken][:MOST_EXAMPLES]),
        )
        for broken in (*CHECKS, *(broken for broken in rows if broken not in CHECKS))
    ]
    return Report(datetime.now(UTC), tuple(checks))


async def report(caller: Caller) -> Report:
    """Look at the books now, and tell what the last comparison of cells with events found; operators only."""
    caller.require(Scope.OPERATOR)
    found = await check()
    row = await database.fetch_row("SELECT broken, difference, checked_at FROM books_check WHERE name = $1", COMPARISON)
    if row is None:
        return found
    promise = f"Cells, spans and people are what all events add up to, as compared at {row['checked_at']:%Y-%m-%dT%H:%M:%SZ}."
    return Report(found.checked_at, (*found.checks, Check(COMPARISON, promise, row["broken"], row["difference"], ())))


async def keep(found: Report) -> None:
    """Remember a report, so that every process can show what the last one said."""
    await database.fetch(
        """
        INSERT INTO books_check (name, broken, difference, checked_at)
        SELECT x.name, x.broken, x.difference, $4 FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS x (name, broken, difference)
            ON CONFLICT (name) DO UPDATE SET broken = excluded.broken, difference = excluded.difference, checked_at = excluded.checked_at
        """,
        [each.name for each in found.checks],
        [each.broken for each in found.checks],
        [each.difference_microusd for each in found.checks],
        found.checked_at,
    )


@dataclass(frozen=True, slots=True)
class Kept:
    """What the last report said of one check."""

    name: str
    broken: int
    checked_at: datetime


async def kept() -> list[Kept]:
    """Return what the last report said, by name; empty before the first."""
    return [Kept(**row) for row in await database.fetch("SELECT name, broken, checked_at FROM books_check ORDER BY name")]
