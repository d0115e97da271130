"""The ledger: one function moves money, and a few read what moved. Nothing here is ever changed or taken back, only posted against."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final
from uuid import UUID, uuid5

import asyncpg

from domain import idempotency
from domain.access.callers import Actor, Caller
from domain.audit import SERVICE, note
from domain.errors import InsufficientCredit, InvalidInput, NotFound, OutOfRange
from domain.pages import Keyset, Page, PageOf, cut, following, newest_first
from models import database
from models.enums import ActorKind, LedgerAccountKind, Scope, TransferKind
from models.ids import uuid7

SPENDABLE = (LedgerAccountKind.CASH, LedgerAccountKind.GRANT, LedgerAccountKind.WALLET)
SERVICE_ACCOUNTS: Final = {uuid5(SERVICE, kind.value): kind for kind in LedgerAccountKind if kind not in SPENDABLE}
"""The service's accounts, which are the sums of all workspaces' accounts of a kind, by an id of their own."""
LARGEST_ADJUSTMENT_MICROUSD = 1_000_000_000_000
LONGEST_REASON = 500


@dataclass(frozen=True, slots=True)
class Balance:
    """A workspace's prepaid credit in microdollars: `available` is what can be spent, never below zero, and nothing while cash is owed.

    What a grant that is over leaves is no longer spent, and stays in `balance` until a job has booked it.
    """

    balance: int
    cash: int
    granted: int
    held: int
    available: int
    carry_picousd: int
    write_off_bound: int
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class AccountView:
    """An account; balance and floor are None-free only for spendable kinds, the others are summed from transfers."""

    id: UUID
    workspace_id: UUID
    kind: LedgerAccountKind
    balance: int
    held: int
    floor: int | None

    @property
    def name(self) -> str:
        """A name to show."""
        return self.kind.value.replace("_", " ").capitalize()


@dataclass(frozen=True, slots=True)
class TransferView:
    """One posting: `amount` microdollars, above zero, left `debit_id` and entered `credit_id`."""

    id: UUID
    workspace_id: UUID
    kind: TransferKind
    ref: str
    amount: int
    debit_id: UUID
    credit_id: UUID
    call_id: UUID | None
    reason: str | None
    actor: Actor
    created_at: datetime

    @property
    def idempotency_key(self) -> str:
        """Kind and reference in one: a fact that comes twice is booked once."""
        return f"{self.kind.value}:{self.ref}"


@dataclass(frozen=True, slots=True)
class Entry:
    """A transfer as an account, or the balance, sees it: what it added, and what there was after it."""

    transfer: TransferView
    change: int
    balance_after: int


@dataclass(frozen=True, slots=True)
class StatementFilter:
    """Narrows a statement; None matches all."""

    kinds: tuple[TransferKind, ...] | None = None
    start: datetime | None = None
    end: datetime | None = None


_COLUMNS = "t.id, t.workspace_id, t.kind, t.ref, t.amount, t.debit_id, t.credit_id, t.call_id, t.reason, t.actor_kind, t.actor_id, t.actor_name, t.created_at"


def _transfer(row: asyncpg.Record) -> TransferView:
    return TransferView(
        id=row["id"],
        workspace_id=row["workspace_id"],
        kind=TransferKind(row["kind"]),
        ref=row["ref"],
        amount=row["amount"],
        debit_id=row["debit_id"],
        credit_id=row["credit_id"],
        call_id=row["call_id"],
        reason=row["reason"],
        actor=Actor(ActorKind(row["actor_kind"]), row["actor_id"], row["actor_name"]),
        created_at=row["created_at"],
    )


async def post(
    workspace_id: UUID,
    kind: TransferKind,
    ref: str,
    *,
    debit: LedgerAccountKind,
    credit: LedgerAccountKind,
    amount_microusd: int,
    reason: str | None,
    actor: Actor,
    call_id: UUID | None = None,
    lower_floor: bool = False,
) -> TransferView:
    """Move an amount once for each (kind, ref): a repeat returns the first transfer.

    Raises InsufficientCredit when a spendable account would fall below its floor, unless `lower_floor`.
    """
    try:
        row = await database.fetch_row(
            "SELECT * FROM post_1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
            workspace_id,
            kind.value,
            ref,
            debit.value,
            credit.value,
            amount_microusd,
            lower_floor,
            reason,
            actor.kind.value,
            actor.id,
            actor.name[:200],
            call_id,
        )
    except asyncpg.PostgresError as error:
        if error.sqlstate != "P0402":
            raise
        raise InsufficientCredit("There is too little credit.", available_microusd=int(error.detail or 0), required_microusd=amount_microusd) from None
    assert row is not None
    return (await _transfers("t.workspace_id = $1 AND t.id = $2", workspace_id, row["transfer_id"]))[0]


async def charge(workspace_id: UUID, record_id: UUID, amount_microusd: int, *, app_id: UUID | None, granted: bool, actor: Actor) -> None:
    """Charge a record that was made by hand, once: grants by priority and expiry where `granted`, then cash. Raises InsufficientCredit, nothing moved."""
    try:
        await database.fetch(
            "SELECT charge_1($1, $2, $3, $4, $5, $6, $7, $8)",
            workspace_id,
            record_id,
            amount_microusd,
            app_id,
            granted,
            actor.kind.value,
            actor.id,
            actor.name[:200],
        )
    except asyncpg.PostgresError as error:
        if error.sqlstate != "P0402":
            raise
        raise InsufficientCredit("There is too little credit.", available_microusd=int(error.detail or 0), required_microusd=amount_microusd) from None


async def adjust(caller: Caller, workspace_id: UUID | None, amount_microusd: int, reason: str, idempotency_key: str) -> TransferView:
    """Correct a workspace's cash by hand: positive adds, negative takes away, below zero if need be.

    Operators only; the transfer names the actor and the reason. Raises NotFound, OutOfRange, InvalidInput, IdempotencyConflict.
    """
    own = caller.require(Scope.OPERATOR)
    target = workspace_id or own
    reason = check_reason(reason)
    if amount_microusd == 0 or abs(amount_microusd) > LARGEST_ADJUSTMENT_MICROUSD:
        raise OutOfRange(
            "An adjustment is at most a million dollars either way, and not zero.",
            minimum=-LARGEST_ADJUSTMENT_MICROUSD,
            maximum=LARGEST_ADJUSTMENT_MICROUSD,
            too_large=amount_microusd > 0,
            path=("amount",),
        )
    if not await database.fetch_value("SELECT EXISTS (SELECT FROM workspace WHERE id = $1)", target):
        raise NotFound("workspace", path=("workspaceId",))
    adds = amount_microusd > 0
    async with database.transaction():
        first = await idempotency.claim(target, "creditsAdjust", idempotency_key, [amount_microusd, reason], uuid7())
        transfer = await post(
            target,
            TransferKind.ADJUSTMENT,
            f"adjust:{idempotency_key}",
            debit=LedgerAccountKind.ADJUSTMENTS if adds else LedgerAccountKind.CASH,
            credit=LedgerAccountKind.CASH if adds else LedgerAccountKind.ADJUSTMENTS,
            amount_microusd=abs(amount_microusd),
            reason=reason,
            actor=caller.actor,
            lower_floor=True,
        )
        if first is None:
            told = {"amountMicroUsd": (None, amount_microusd)}
            await note(caller.actor, "credits.adjust", ("Transfer", transfer.id), told, workspace_id=target, at=caller.at, reason=reason)
        assert first is None or transfer.amount == abs(amount_microusd), "the same input under the same key is the same transfer"
    return transfer


async def give(workspace_id: UUID, amount_microusd: int, reason: str, ref: str, actor: Actor) -> TransferView:
    """Add credit to a workspace by a command; the same `ref` adds once. What a person gives stands in the audit log. Raises OutOfRange, InvalidInput."""
    if not 0 < amount_microusd <= LARGEST_ADJUSTMENT_MICROUSD:
        raise OutOfRange(
            "Credit is above zero and at most a million dollars.", minimum=1, maximum=LARGEST_ADJUSTMENT_MICROUSD, too_large=amount_microusd > 0, path=("amount",)
        )
    reason = check_reason(reason)
    async with database.transaction():
        await database.fetch("SELECT FROM account WHERE workspace_id = $1 AND kind = 'cash' FOR NO KEY UPDATE", workspace_id)
        again = await database.fetch_value(
            "SELECT EXISTS (SELECT FROM transfer WHERE workspace_id = $1 AND kind = $2 AND ref = $3)", workspace_id, TransferKind.ADJUSTMENT.value, f"give:{ref}"
        )
        transfer = await post(
            workspace_id,
            TransferKind.ADJUSTMENT,
            f"give:{ref}",
            debit=LedgerAccountKind.ADJUSTMENTS,
            credit=LedgerAccountKind.CASH,
            amount_microusd=amount_microusd,
            reason=reason,
            actor=actor,
        )
        if not again and actor.kind is ActorKind.OPERATOR:
            told = {"amountMicroUsd": (None, amount_microusd)}
            await note(actor, "credits.adjust", ("Transfer", transfer.id), told, workspace_id=workspace_id, at=transfer.created_at, reason=reason)
    return transfer


def check_reason(reason: str) -> str:
    """Return a reason without spaces around it; raises InvalidInput when there is none, or too much of it."""
    reason = reason.strip()
    if not 1 <= len(reason) <= LONGEST_REASON or "\x00" in reason:
        raise InvalidInput(f"A reason has 1 to {LONGEST_REASON} characters.", path=("reason",))
    return reason


async def balance(workspace_id: UUID) -> Balance:
    """Return a workspace's credit in one snapshot; the caller has been let in to see it."""
    row = await database.fetch_row(
        """
        SELECT sum(a.credits - a.debits)::bigint AS balance, coalesce(sum(a.credits - a.debits) FILTER (WHERE a.kind = 'cash'), 0)::bigint AS cash,
               coalesce(sum(a.credits - a.debits) FILTER (WHERE a.kind = 'grant'), 0)::bigint AS granted, sum(a.held)::bigint AS held,
               CASE WHEN bool_or(a.kind = 'cash' AND a.credits < a.debits) THEN 0
                    ELSE coalesce(greatest(sum(a.credits - a.debits - a.held)
                                           FILTER (WHERE g.id IS NULL OR g.closed_at IS NULL AND (g.expires_at IS NULL OR g.expires_at > clock_timestamp())), 0), 0)
               END::bigint AS available,
               max(a.carry_picousd) FILTER (WHERE a.kind = 'cash') AS carry_picousd,
               max(a.updated_at) AS updated_at,
               (SELECT coalesce(sum(h.amount), 0) FROM hold h WHERE h.workspace_id = $1 AND h.state = 'open')::bigint AS write_off_bound
          FROM account a LEFT JOIN credit_grant g ON g.workspace_id = a.workspace_id AND g.id = a.id
         WHERE a.workspace_id = $1 AND a.kind IN ('cash', 'grant')
        """,
        workspace_id,
    )
    if row is None or row["balance"] is None:
        raise NotFound("workspace")
    return Balance(**row)


async def statement(caller: Caller, page: Page, wanted: StatementFilter | None = None, *, account_id: UUID | None = None) -> PageOf[Entry]:
    """Return a page of what changed an account of the caller's, or where none is named the balance, newest first; it adds up to the balance."""
    workspace_id = caller.require(Scope.BILLING_READ)
    keyset = newest_first(page, column="t.id", offset=5)
    return cut(await _entries(workspace_id, await _looked_at(workspace_id, account_id), wanted or StatementFilter(), keyset), page)


async def _looked_at(workspace_id: UUID, account_id: UUID | None) -> list[UUID]:
    """The accounts of a statement: the one that is named, or all that make up the balance, those of grants that are used up too."""
    if account_id is not None:
        return [account_id]
    return [row["id"] for row in await database.fetch("SELECT id FROM account WHERE workspace_id = $1 AND kind IN ('cash', 'grant')", workspace_id)]


async def statement_count(caller: Caller, wanted: StatementFilter | None = None, *, account_id: UUID | None = None) -> int:
    """Return how many transfers the statement has."""
    workspace_id = caller.require(Scope.BILLING_READ)
    accounts_ = await _looked_at(workspace_id, account_id)
    return int(
        await database.fetch_value(f"SELECT count(*) FROM transfer t WHERE {_FILTER}", workspace_id, accounts_, *_filter_arguments(wanted or StatementFilter()))
    )


_NARROWED = """
    t.workspace_id = $1 AND ($3::text[] IS NULL OR t.kind = ANY ($3))
    AND ($4::timestamptz IS NULL OR t.created_at >= $4) AND ($5::timestamptz IS NULL OR t.created_at < $5)
"""
_FILTER = f"{_NARROWED} AND (t.debit_id = ANY ($2) OR t.credit_id = ANY ($2))"


def _filter_arguments(wanted: StatementFilter) -> tuple[list[str] | None, datetime | None, datetime | None]:
    return (None if wanted.kinds is None else [kind.value for kind in wanted.kinds], wanted.start, wanted.end)


async def _entries(workspace_id: UUID, accounts_: list[UUID], wanted: StatementFilter, keyset: Keyset) -> list[Entry]:
    # From each side of each account its part of the page, in the order of an index: whoever has a million transfers waits for a page no longer.
    part = f"SELECT t.* FROM transfer t WHERE {_NARROWED} {keyset.where}"
    rows = await database.fetch(
        f"""
        SELECT {_COLUMNS}, t.debit_balance_after, t.credit_balance_after FROM unnest($2::uuid[]) a (id) CROSS JOIN LATERAL (
               ({part} AND t.debit_id = a.id {keyset.order}) UNION ALL ({part} AND t.credit_id = a.id AND t.debit_id <> ALL ($2) {keyset.order})) t
         {keyset.order}
        """,
        workspace_id,
        accounts_,
        *_filter_arguments(wanted),
        *keyset.arguments,
    )
    if len(accounts_) == 1:
        (account_id,) = accounts_
        return [_entry(row, row["debit_id"] == account_id) for row in rows]
    after = await _balances_after(workspace_id, accounts_, [row["id"] for row in rows])
    return [replace(_entry(row, row["debit_id"] in accounts_), balance_after=after[row["id"]]) for row in rows]


def _entry(row: asyncpg.Record, taken: bool) -> Entry:
    if taken:
        return Entry(_transfer(row), -row["amount"], row["debit_balance_after"] or 0)
    return Entry(_transfer(row), row["amount"], row["credit_balance_after"] or 0)


async def _balances_after(workspace_id: UUID, accounts_: list[UUID], transfers: list[UUID]) -> dict[UUID, int]:
    """What accounts have together after each transfer: of each account the balance that its last transfer until then left."""
    rows = await database.fetch(
        """
        SELECT p.id, coalesce(sum(l.after), 0)::bigint AS after
          FROM unnest($2::uuid[]) p (id) CROSS JOIN unnest($3::uuid[]) a (id) LEFT JOIN LATERAL (
               SELECT x.after FROM (
                 (SELECT d.id, d.debit_balance_after AS after FROM transfer d WHERE d.workspace_id = $1 AND d.debit_id = a.id AND d.id <= p.id ORDER BY d.id DESC LIMIT 1)
                 UNION ALL
                 (SELECT c.id, c.credit_balance_after FROM transfer c WHERE c.workspace_id = $1 AND c.credit_id = a.id AND c.id <= p.id ORDER BY c.id DESC LIMIT 1)
               ) x ORDER BY x.id DESC LIMIT 1) l ON true
         GROUP BY p.id
        """,
        workspace_id,
        transfers,
        accounts_,
    )
    return {row["id"]: row["after"] for row in rows}


async def statement_after(caller: Caller, wanted: StatementFilter, last: UUID | None, most: int) -> list[Entry]:
    """Return the next `most` entries of the caller's statement after the transfer `last`, oldest first, for reading all of them."""
    workspace_id = caller.require(Scope.BILLING_READ)
    return await _entries(workspace_id, await _looked_at(workspace_id, None), wanted, following(last, most, column="t.id", offset=5))


async def find_transfers(caller: Caller, ids: Sequence[UUID]) -> dict[UUID, TransferView]:
    """Return those of the workspace's transfers that have these ids, by id."""
    workspace_id = caller.require(Scope.BILLING_READ)
    return {transfer.id: transfer for transfer in await _transfers("t.workspace_id = $1 AND t.id = ANY ($2)", workspace_id, list(ids))}


OF_PAYMENTS = (
    *(TransferKind.TOP_UP, TransferKind.REFUND, TransferKind.REFUND_FAILURE, TransferKind.DISPUTE, TransferKind.DISPUTE_REVERSAL, TransferKind.FEE),
)
"""Kinds that book what happened to a top-up at Stripe."""
# A transfer of a payment names, by its reference: the payment, a refund of ours or of Stripe's, a dispute and its balance transaction, or a balance
# transaction, which is entered beside what it moved.
_OF_TOP_UP = """
    SELECT t.id AS transfer_id, p.id AS top_up_id FROM transfer t JOIN top_up p ON p.workspace_id = t.workspace_id AND (
           (t.kind = 'top_up' AND t.ref = p.payment_id)
        OR (t.kind IN ('refund', 'refund_failure') AND EXISTS (SELECT FROM refund r WHERE r.workspace_id = t.workspace_id AND r.top_up_id = p.id
                AND t.ref IN (r.id::text, r.stripe_refund_id)))
        OR (t.kind IN ('dispute', 'dispute_reversal') AND EXISTS (SELECT FROM dispute d WHERE d.workspace_id = t.workspace_id AND d.top_up_id = p.id
                AND split_part(t.ref, ':', 1) = d.stripe_dispute_id))
        OR (t.kind = 'fee' AND EXISTS (SELECT FROM stripe_entry e WHERE e.workspace_id = t.workspace_id AND e.id = t.ref AND (e.transfer_ref = p.payment_id
                OR split_part(e.transfer_ref, ':', 1) IN (SELECT d.stripe_dispute_id FROM dispute d WHERE d.workspace_id = p.workspace_id AND d.top_up_id = p.id)))))
"""


async def top_ups_of(workspace_id: UUID, transfer_ids: Sequence[UUID]) -> dict[UUID, UUID]:
    """Return the top-up that each of these transfers books something of."""
    rows = await database.fetch(f"{_OF_TOP_UP} WHERE t.workspace_id = $1 AND t.id = ANY ($2)", workspace_id, list(transfer_ids))
    return {row["transfer_id"]: row["top_up_id"] for row in rows}


async def of_top_up(caller: Caller, top_up_id: UUID) -> list[TransferView]:
    """Return what moved for a top-up, oldest first."""
    workspace_id = caller.require(Scope.BILLING_READ)
    where = f"t.workspace_id = $1 AND t.kind = ANY ($3) AND t.id IN (SELECT o.transfer_id FROM ({_OF_TOP_UP} WHERE p.workspace_id = $1 AND p.id = $2) o) ORDER BY t.id"
    return await _transfers(where, workspace_id, top_up_id, [kind.value for kind in OF_PAYMENTS])


async def of_reference(workspace_id: UUID, kind: TransferKind, ref: str) -> TransferView:
    """Return the transfer of a kind and reference, which its caller has just posted or claimed."""
    return (await _transfers("t.workspace_id = $1 AND t.kind = $2 AND t.ref = $3", workspace_id, kind.value, ref))[0]


async def of_calls(caller: Caller, call_ids: Sequence[UUID]) -> dict[UUID, list[TransferView]]:
    """Return what moved for each call, oldest first, by the call's id."""
    found: dict[UUID, list[TransferView]] = {}
    for transfer in await _transfers("t.workspace_id = $1 AND t.call_id = ANY ($2) ORDER BY t.id", caller.workspace(), list(call_ids)):
        assert transfer.call_id is not None
        found.setdefault(transfer.call_id, []).append(transfer)
    return found


async def _transfers(where: str, *arguments: object) -> list[TransferView]:
    return [_transfer(row) for row in await database.fetch(f"SELECT {_COLUMNS} FROM transfer t WHERE {where}", *arguments)]


async def accounts(workspace_id: UUID, ids: Sequence[UUID] | None = None) -> list[AccountView]:
    """Return accounts of a workspace: those with these ids, or cash and those of grants that are not used up."""
    wanted = "a.kind IN ('cash', 'grant') AND (a.kind = 'cash' OR a.credits > a.debits)" if ids is None else "a.id = ANY ($2)"
    rows = await database.fetch(
        f"""
        SELECT a.id, a.workspace_id, a.kind, a.held, CASE WHEN a.kind IN ('cash', 'grant', 'wallet') THEN a.floor END AS floor,
               CASE WHEN a.kind IN ('cash', 'grant', 'wallet') THEN a.credits - a.debits
                    ELSE coalesce((SELECT sum(t.amount) FROM transfer t WHERE t.workspace_id = a.workspace_id AND t.credit_id = a.id), 0)
                       - coalesce((SELECT sum(t.amount) FROM transfer t WHERE t.workspace_id = a.workspace_id AND t.debit_id = a.id), 0) END::bigint AS balance
          FROM account a WHERE a.workspace_id = $1 AND {wanted} ORDER BY a.kind, a.id
        """,
        workspace_id,
        *([] if ids is None else [list(ids)]),
    )
    return [AccountView(**{**row, "kind": LedgerAccountKind(row["kind"])}) for row in rows]


async def service_accounts(caller: Caller) -> list[AccountView]:
    """Return the service's own accounts, each the sum of all workspaces' accounts of its kind; operators only."""
    caller.require(Scope.OPERATOR)
    rows = await database.fetch(
        """
        SELECT a.kind, sum(x.amount)::bigint AS balance
          FROM (SELECT workspace_id, credit_id AS account_id, amount FROM transfer UNION ALL SELECT workspace_id, debit_id, -amount FROM transfer) x
          JOIN account a ON a.workspace_id = x.workspace_id AND a.id = x.account_id WHERE a.kind = ANY ($1) GROUP BY a.kind
        """,
        [kind.value for kind in SERVICE_ACCOUNTS.values()],
    )
    sums = {row["kind"]: row["balance"] for row in rows}
    return [AccountView(id_, SERVICE, kind, sums.get(kind.value, 0), 0, None) for id_, kind in SERVICE_ACCOUNTS.items()]


@dataclass(frozen=True, slots=True)
class Broken:
    """One broken invariant of the books; `workspace_id` is None for what stands at Stripe alone."""

    broken: str
    workspace_id: UUID | None
    subject: str
    difference_microusd: int | None


async def audit() -> list[Broken]:
    """Return every broken invariant of the books, in one snapshot; a sound installation has none."""
    return [
        Broken(row["broken"], row["workspace_id"], row["subject"], None if row["difference_microusd"] is None else int(row["difference_microusd"]))
        for row in await database.fetch("SELECT * FROM audit")  # whose sums are numeric
    ]
