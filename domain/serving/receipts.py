"""Receipts: everything about one call, read in one snapshot of the books: why this model, what each try used, which price made which charge, who paid."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from domain.access.callers import Actor, Caller
from domain.errors import NotFound
from domain.money.amounts import PICO_PER_MICRO
from domain.money.catalogue import Book, PriceVersion, QuoteLine, quote
from domain.money.ledger import TransferView
from models import database
from models.enums import ActorKind, ApiKeyMode, Bucket, HoldState, LedgerAccountKind, Scope, TokenCountSource, TransferKind, UsageOutcome

TOLD_WITHIN = timedelta(seconds=10)
"""How long the last byte of an answer waits for its settlement while the database is away."""

INTERRUPTED = "interrupted"
"""How a call ended, and the try that was under way, when its process went without a word."""


class CallState(StrEnum):
    """Where a call stands. One that admission refused leaves no trace but its answer."""

    REFUSED = "refused"
    ADMITTED = "admitted"
    RUNNING = "running"
    SETTLED = "settled"
    ABANDONED = "abandoned"


class ClampReason(StrEnum):
    """What bounded the output of a call."""

    BALANCE = "balance"
    BUDGET = "budget"
    QUOTA = "quota"
    CLIENT_TOKEN = "client_token"  # noqa: S105  # a kind of bound, no password


class FundingSource(StrEnum):
    """What pays for a call."""

    QUOTA = "quota"
    GRANT = "grant"
    CASH = "cash"
    WALLET = "wallet"


@dataclass(frozen=True, slots=True)
class Clamp:
    """What a call was lowered to, in output tokens over all its choices; `requested` is None where the client set no bound."""

    requested: int | None
    allowed: int
    reason: ClampReason


@dataclass(frozen=True, slots=True)
class ReceiptLine:
    """One bucket of a call at one price row: `quantity` times the row's price is `picousd`, exactly."""

    price: PriceVersion
    line: QuoteLine


@dataclass(frozen=True, slots=True)
class AttemptView:
    """One upstream try; `quantities` by bucket without zeros, `cost_picousd` is what the upstream charged (operators only)."""

    id: UUID
    call_id: UUID
    number: int
    upstream: str
    model: str
    reason: str
    outcome: UsageOutcome
    http_status: int | None
    error_code: str | None
    quantities: Mapping[Bucket, int]
    source: TokenCountSource
    charged: bool
    cost_picousd: int
    price_id: UUID | None
    started_at: datetime
    first_byte_at: datetime | None
    finished_at: datetime

    @property
    def cost_microusd(self) -> int:
        """What the upstream charged, a started microdollar counted whole."""
        return -(-self.cost_picousd // PICO_PER_MICRO)


@dataclass(frozen=True, slots=True)
class HoldView:
    """What was set aside, in microdollars: 0 for a quota, a free model or a test key."""

    amount_microusd: int
    extensions: int
    state: HoldState
    created_at: datetime
    expires_at: datetime
    closed_at: datetime | None


@dataclass(frozen=True, slots=True)
class Funding:
    """One source's part of a charge, what a late settlement gave back taken off; `transfer` is the first that took it.

    A quota pays in calls and tokens: its part is 0, and it has neither account nor transfer.
    """

    source: FundingSource
    amount_microusd: int
    account_id: UUID | None = None
    transfer: TransferView | None = None


@dataclass(frozen=True, slots=True)
class Timings:
    """When what happened; a later step is None until it happens, and for ever when it does not.

    `last_byte_at` is the settlement's instant, because the last byte leaves when that is durable, or TOLD_WITHIN after the
    upstream's end. `overhead_ms` is what passed between reading the request and asking the first upstream.
    """

    received_at: datetime
    admitted_at: datetime
    first_byte_at: datetime | None
    last_byte_at: datetime | None
    settled_at: datetime | None
    overhead_ms: float | None


@dataclass(frozen=True, slots=True)
class Receipt:
    """One call as the books have it; amounts in microdollars, or picodollars where named so.

    `lines` are what the winning attempt used at list price. The parts of `funding` add up to the charge less what was written off, which
    stands in `transfers`; `accounts` says of what kind theirs are. `upstream_cost_picousd` is for operators only.
    """

    call_id: UUID
    workspace_id: UUID
    key_id: UUID | None
    mode: ApiKeyMode
    endpoint: str
    streamed: bool
    state: CallState
    outcome: UsageOutcome | None
    http_status: int | None
    error_code: str | None
    requested_model: str
    admitted_model: str
    model: str | None
    model_reason: str | None
    preset: str | None
    clamp: Clamp | None
    attempts: tuple[AttemptView, ...]
    lines: tuple[ReceiptLine, ...]
    price: PriceVersion | None
    list_microusd: int
    markup: tuple[int, int] | None
    charge_microusd: int
    charge_picousd: int
    upstream_cost_picousd: int
    needs_review: bool
    idempotent: bool
    replays: int
    hold: HoldView
    funding: tuple[Funding, ...]
    transfers: tuple[TransferView, ...]
    accounts: Mapping[UUID, LedgerAccountKind]
    timings: Timings

    @property
    def upstream_cost_microusd(self) -> int:
        """What the upstreams charged, a started microdollar counted whole."""
        return -(-self.upstream_cost_picousd // PICO_PER_MICRO)


# Ownership is part of the statement: $3 sees all of the workspace, $4 is the calling key, $5 the signed-in person.
_SELECT = """
    SELECT c.id, c.workspace_id, c.key_id, c.mode, c.endpoint, c.streamed, c.requested_model, c.model AS admitted_model, c.preset, c.requested_max_output,
           c.granted_output, c.clamped, c.clamp_reason, c.route_reason, c.idempotent, c.created_at AS received_at,
           coalesce((SELECT r.replays FROM replay r WHERE r.workspace_id = c.workspace_id AND r.call_id = c.id), 0) AS replays,
           h.amount + coalesce((SELECT sum(p) FROM unnest(h.part_amounts) p), 0)::bigint AS amount, h.payer,
           h.extensions, h.state, h.progress, h.created_at AS admitted_at, h.expires_at, h.closed_at, h.charge_picousd, h.charge_microusd,
           e.model, e.outcome, e.http_status, e.error_code, e.latency_ms, e.price_id, e.token_source, e.needs_review,
           s.list_microusd, s.upstream_cost_picousd,
           (SELECT array_agg(ROW(a.id, a.number, a.upstream, a.model, a.outcome, a.http_status, a.error_code, a.usage, a.cost_picousd, a.started_at, a.first_byte_at,
                                 a.finished_at, a.reason, a.price_id, a.charged) ORDER BY a.number, a.id)
              FROM attempt a WHERE a.workspace_id = c.workspace_id AND a.call_id = c.id) AS attempts,
           (SELECT array_agg(ROW(t.id, t.workspace_id, t.kind, t.ref, t.amount, t.debit_id, t.credit_id, t.call_id, t.reason, t.actor_kind, t.actor_id,
                                 t.actor_name, t.created_at, d.kind, k.kind) ORDER BY t.id)
              FROM transfer t JOIN account d ON d.workspace_id = t.workspace_id AND d.id = t.debit_id
              JOIN account k ON k.workspace_id = t.workspace_id AND k.id = t.credit_id
             WHERE t.workspace_id = c.workspace_id AND t.call_id = c.id) AS transfers
      FROM "call" c
      JOIN hold h ON h.workspace_id = c.workspace_id AND h.call_id = c.id
      LEFT JOIN LATERAL (SELECT * FROM usage_event v WHERE v.workspace_id = c.workspace_id AND v.record_id = c.id AND v.kind IN ('call', 'late') AND v.requests > 0
                          ORDER BY v.created_at DESC, v.id DESC LIMIT 1) e ON true
      LEFT JOIN LATERAL (SELECT sum(v.list_microusd)::bigint AS list_microusd, sum(v.upstream_cost_picousd)::bigint AS upstream_cost_picousd FROM usage_event v
                          WHERE v.workspace_id = c.workspace_id AND v.record_id = c.id AND v.kind IN ('call', 'late')) s ON true
     WHERE c.workspace_id = $1 AND c.id = $2 AND ($3 OR c.key_id = $4 OR c.user_id = $5)
"""


async def find(caller: Caller, call_id: UUID, book: Book) -> Receipt:
    """Return the receipt of a call of the caller's workspace.

    Whoever has USAGE_READ_ALL sees every call, with USAGE_READ a person those of the own keys; the key that made a call always sees it.
    Raises NotFound for all others, and for a call that is not there.
    """
    everything = {Scope.USAGE_READ, Scope.USAGE_READ_ALL} <= caller.scopes
    person = caller.user_id if caller.key_id is None and Scope.USAGE_READ in caller.scopes else None
    row = await database.fetch_row(_SELECT, caller.workspace(), call_id, everything, caller.key_id, person)
    if row is None:
        raise NotFound("call", path=("id",))
    if row["price_id"] is not None and book.price_by_id(row["price_id"]) is None:
        await book.refresh()
    return _receipt(row, book)


async def of_attempt(caller: Caller, attempt_id: UUID, book: Book) -> tuple[Receipt, AttemptView]:
    """Return an upstream try of a call that the caller may see, with the call's receipt; raises NotFound."""
    call_id = await database.fetch_value("SELECT call_id FROM attempt WHERE workspace_id = $1 AND id = $2", caller.workspace(), attempt_id)
    if call_id is None:
        raise NotFound("attempt", path=("id",))
    receipt = await find(caller, call_id, book)
    return receipt, next(attempt for attempt in receipt.attempts if attempt.id == attempt_id)


@dataclass(frozen=True, slots=True)
class Used:
    """What an attempt used, as its row or its last sign of life has it."""

    quantities: dict[Bucket, int]
    service_tier: str | None = None
    geography: str | None = None
    others: tuple[tuple[UUID, dict[Bucket, int]], ...] = ()
    markup: tuple[int, int] | None = None


def _buckets(quantities: Mapping[str, Any]) -> dict[Bucket, int]:
    return {bucket: quantities[bucket.value] for bucket in Bucket if quantities.get(bucket.value)}


def used_of(usage: Mapping[str, Any]) -> Used:
    """Return what an attempt's row, or a hold's last sign of life, says."""
    others = tuple((UUID(part["price_id"]), _buckets(part["quantities"])) for part in usage.get("others") or ())
    markup = usage.get("markup")
    return Used(_buckets(usage.get("quantities", usage)), usage.get("service_tier"), usage.get("geography"), others, tuple(markup) if markup else None)


def _receipt(row: asyncpg.Record, book: Book) -> Receipt:
    settled = row["closed_at"] is not None
    tries = [(entry, used_of(msgspec.json.decode(entry[7]))) for entry in row["attempts"] or ()]
    # nobody saw the end of a swept call's last try; where its settlement came late, that try's own row stands beside the sweep's
    ended = [mine for entry, mine in tries if entry[6] != INTERRUPTED]
    used = ended[-1] if ended and row["error_code"] != INTERRUPTED else used_of(msgspec.json.decode(row["progress"]) if row["progress"] else {})
    price = book.price_by_id(row["price_id"]) if row["price_id"] else None
    attempts = tuple(_attempt(row, entry, mine.quantities) for entry, mine in tries)
    moved = [_moved(entry) for entry in row["transfers"] or ()]
    return Receipt(
        call_id=row["id"],
        workspace_id=row["workspace_id"],
        key_id=row["key_id"],
        mode=ApiKeyMode(row["mode"]),
        endpoint=row["endpoint"],
        streamed=row["streamed"],
        state=_state(row),
        outcome=UsageOutcome(row["outcome"]) if row["outcome"] else None,
        http_status=row["http_status"],
        error_code=row["error_code"],
        requested_model=row["requested_model"],
        admitted_model=row["admitted_model"],
        model=row["model"] if used.quantities else None,
        model_reason=row["route_reason"],
        preset=row["preset"],
        clamp=_clamp(row),
        attempts=attempts,
        lines=_lines(used, price, book) if settled and price is not None else (),
        price=price,
        list_microusd=row["list_microusd"] or 0,
        markup=used.markup,
        charge_microusd=row["charge_microusd"] or 0,
        charge_picousd=row["charge_picousd"] or 0,
        upstream_cost_picousd=row["upstream_cost_picousd"] or 0,
        needs_review=bool(row["needs_review"]),
        idempotent=row["idempotent"],
        replays=row["replays"],
        hold=HoldView(row["amount"], row["extensions"], HoldState(row["state"]), row["admitted_at"], row["expires_at"], row["closed_at"]),
        funding=(Funding(FundingSource.QUOTA, 0),) if row["payer"] == "quota" and used.quantities and settled else _funding(moved),
        transfers=tuple(each.transfer for each in moved),
        accounts={account_id: LedgerAccountKind(kind) for entry in row["transfers"] or () for account_id, kind in ((entry[5], entry[13]), (entry[6], entry[14]))},
        timings=_timings(row, attempts),
    )


def _state(row: asyncpg.Record) -> CallState:
    if row["state"] == HoldState.OPEN:
        return CallState.RUNNING if row["progress"] else CallState.ADMITTED
    return CallState.SETTLED if row["state"] == HoldState.SETTLED else CallState.ABANDONED


def _attempt(row: asyncpg.Record, entry: asyncpg.Record, quantities: Mapping[Bucket, int]) -> AttemptView:
    return AttemptView(
        id=entry[0],
        call_id=row["id"],
        number=entry[1],
        upstream=entry[2],
        model=entry[3],
        reason=entry[12],
        outcome=UsageOutcome(entry[4]),
        http_status=entry[5],
        error_code=entry[6],
        quantities=quantities,
        source=TokenCountSource(row["token_source"]) if entry[14] or entry[6] == INTERRUPTED else TokenCountSource.PROVIDER,
        charged=entry[14],
        cost_picousd=entry[8],
        price_id=entry[13],
        started_at=entry[9],
        first_byte_at=entry[10],
        finished_at=entry[11],
    )


def _clamp(row: asyncpg.Record) -> Clamp | None:
    if not row["clamped"]:
        return None
    return Clamp(row["requested_max_output"], row["granted_output"], ClampReason(row["clamp_reason"] or ClampReason.BALANCE))


def _lines(used: Used, price: PriceVersion, book: Book) -> tuple[ReceiptLine, ...]:
    """Quote again what the settlement quoted: versions never change, so that the lines are those that made the charge."""
    if not used.quantities:
        return ()
    quoted = quote(price, used.quantities | {Bucket.CALLS: 1}, service_tier=used.service_tier, geography=used.geography)
    lines = [ReceiptLine(price, line) for line in quoted.lines]
    for price_id, quantities in used.others:
        version = book.price_by_id(price_id) or price
        lines += [ReceiptLine(version, line) for line in quote(version, quantities, service_tier=None, geography=used.geography).lines]
    return tuple(lines)


_SOURCES = {LedgerAccountKind.CASH: FundingSource.CASH, LedgerAccountKind.GRANT: FundingSource.GRANT, LedgerAccountKind.WALLET: FundingSource.WALLET}


@dataclass(frozen=True, slots=True)
class _Moved:
    """A transfer of the call, and what it took from a payer: below zero where it gave back, None where no payer stood on either side."""

    transfer: TransferView
    source: FundingSource | None
    account_id: UUID
    taken_microusd: int


def _moved(entry: asyncpg.Record) -> _Moved:
    transfer = TransferView(
        id=entry[0],
        workspace_id=entry[1],
        kind=TransferKind(entry[2]),
        ref=entry[3],
        amount=entry[4],
        debit_id=entry[5],
        credit_id=entry[6],
        call_id=entry[7],
        reason=entry[8],
        actor=Actor(ActorKind(entry[9]), entry[10], entry[11]),
        created_at=entry[12],
    )
    debit, credit = _SOURCES.get(LedgerAccountKind(entry[13])), _SOURCES.get(LedgerAccountKind(entry[14]))
    if debit is not None:
        return _Moved(transfer, debit, transfer.debit_id, transfer.amount)
    return _Moved(transfer, credit, transfer.credit_id, -transfer.amount)


def _funding(moved: list[_Moved]) -> tuple[Funding, ...]:
    """Add up what each payer's account gave for the call's charge, in the order taken; corrections are no part of it."""
    parts: dict[UUID, Funding] = {}
    for each in moved:
        if each.source is None or each.transfer.kind not in (TransferKind.CHARGE, TransferKind.LATE):
            continue
        before = parts.get(each.account_id)
        amount = each.taken_microusd + (before.amount_microusd if before else 0)
        parts[each.account_id] = Funding(each.source, amount, each.account_id, before.transfer if before else each.transfer)
    return tuple(part for part in parts.values() if part.amount_microusd)


def _timings(row: asyncpg.Record, attempts: tuple[AttemptView, ...]) -> Timings:
    received, settled = row["received_at"], row["closed_at"]
    ended = received + timedelta(milliseconds=row["latency_ms"]) if row["latency_ms"] is not None else None
    told = settled is not None and ended is not None and row["outcome"] != UsageOutcome.CANCELLED
    last_byte = min(settled, ended + TOLD_WITHIN) if told and ended is not None else None
    first_byte = last_byte
    if last_byte is not None and row["streamed"] and row["http_status"] == 200 and attempts and attempts[-1].first_byte_at is not None:
        first_byte = attempts[-1].first_byte_at
    overhead = round((attempts[0].started_at - received).total_seconds() * 1000, 3) if attempts else None
    return Timings(received, row["admitted_at"], first_byte, last_byte, settled, overhead)
