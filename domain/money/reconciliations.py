"""Reconciliation: what our attempts say that a provider costs, beside what the provider bills, and what is booked once somebody accepts the difference."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final
from uuid import UUID

import asyncpg
import msgspec

from domain import audit, duties, idempotency
from domain.access.actors import Actor
from domain.access.callers import Caller
from domain.duties import Duty
from domain.errors import InvalidInput, InvalidState, NotFound, Refusal
from domain.money import bills, ledger
from domain.money.amounts import PICO_PER_MICRO
from domain.money.bills import TOTAL, BillLine, Bills, canonical
from domain.money.catalogue import Book
from domain.money.ledger import TransferView, check_reason
from domain.pages import Page, PageOf, cut, newest_first
from models import database
from models.enums import ActorKind, JobStatus, LedgerAccountKind, Scope, TransferKind
from models.ids import uuid7

DUTY: Final = "reconciliation"
USAGE_API = "usage API"
LONGEST_PROVIDER, LONGEST_SOURCE = 100, 300
LONGEST_PERIOD = timedelta(days=366)
MOST_LINES = 500
MOST_TRIES = 5
FIRST_YEAR = 2020
MARGIN = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class NewReconciliation:
    """A bill to compare: of `provider`, an upstream's name or a dialect that stands for all its upstreams, as CSV, or read from its cost API when None."""

    provider: str
    start: datetime
    end: datetime | None
    bill: str | None
    source: str | None
    idempotency_key: str


@dataclass(frozen=True, slots=True)
class ReconciliationView:
    """A reconciliation as it stands; amounts in microdollars. `transfer` is the workspace and id of what was booked on approval, None for no difference."""

    id: UUID
    provider: str
    source: str
    start: datetime
    end: datetime
    computed_microusd: int
    billed_microusd: int
    coverage: float
    creator: Actor
    approver: Actor | None
    approved_at: datetime | None
    transfer: tuple[UUID, UUID] | None
    status: JobStatus
    progress: float | None
    failure: str | None
    created_at: datetime
    finished_at: datetime | None

    @property
    def difference_microusd(self) -> int:
        """What was billed more than computed."""
        return self.billed_microusd - self.computed_microusd


@dataclass(frozen=True, slots=True)
class LineView:
    """One item, on one day where the bill splits by day; in microdollars, the nearest."""

    item: str
    used_on: date | None
    computed_microusd: int
    billed_microusd: int


_COLUMNS = (
    "id, provider, source, starts_at, ends_at, computed_microusd, billed_microusd, coverage, creator_kind, creator_id, creator_name, approver_kind, approver_id,"
    " approver_name, approved_at, transfer_workspace_id, transfer_id, status, progress, failure, created_at, finished_at"
)
_PLAIN = (
    *("id", "provider", "source", "computed_microusd", "billed_microusd", "coverage"),
    *("approved_at", "progress", "failure", "created_at", "finished_at"),
)


def _view(row: asyncpg.Record) -> ReconciliationView:
    return ReconciliationView(
        **{name: row[name] for name in _PLAIN},
        start=row["starts_at"],
        end=row["ends_at"],
        creator=Actor(ActorKind(row["creator_kind"]), row["creator_id"], row["creator_name"]),
        approver=Actor(ActorKind(row["approver_kind"]), row["approver_id"], row["approver_name"]) if row["approver_kind"] else None,
        transfer=(row["transfer_workspace_id"], row["transfer_id"]) if row["transfer_id"] else None,
        status=JobStatus(row["status"]),
    )


async def create(caller: Caller, new: NewReconciliation, upstreams: Iterable[tuple[str, str]], sources: Bills | None) -> ReconciliationView:
    """Queue a comparison, once for each idempotency key; operators only. `upstreams` are the names and dialects of those configured.

    Raises InvalidInput for a period, a provider or a bill that cannot be read, naming the bill's line, IdempotencyConflict.
    """
    caller.require(Scope.OPERATOR)
    provider, end = new.provider.strip(), caller.at if new.end is None else new.end
    if not 1 <= len(provider) <= LONGEST_PROVIDER or not provider.isprintable():
        raise InvalidInput(f"A provider has 1 to {LONGEST_PROVIDER} printable characters.", path=("provider",))
    if new.start.year < FIRST_YEAR or new.start >= end or end - new.start > LONGEST_PERIOD:
        raise InvalidInput(f"A bill's period begins in {FIRST_YEAR} or later and before its end, and has at most {LONGEST_PERIOD.days} days.", path=("range", "start"))
    source = (new.source or "").strip() or (USAGE_API if new.bill is None else "CSV")
    if len(source) > LONGEST_SOURCE or not source.isprintable():
        raise InvalidInput(f"A source has at most {LONGEST_SOURCE} printable characters.", path=("source",))
    names = await _upstreams(provider, list(upstreams), new.start, end)
    lines = None
    if new.bill is not None:
        lines = await asyncio.to_thread(bills.parse, new.bill, new.start, end)
    elif sources is None or not sources.knows(provider):
        raise InvalidInput("There is no admin key for this provider's cost API here (`bill_key_env`): send the bill as CSV.", path=("bill",))
    elif any(each.astimezone(UTC).timetz().replace(tzinfo=None) != datetime.min.time() for each in (new.start, end)):
        raise InvalidInput("Cost APIs tell whole days of UTC: let the period begin and end at midnight.", path=("range",))
    reconciliation_id = uuid7()
    async with database.transaction():
        given = [provider, new.start, new.end, None if lines is None else msgspec.to_builtins(lines), new.source]
        first = await idempotency.claim(audit.SERVICE, "reconciliationCreate", new.idempotency_key, given, reconciliation_id)
        if first is not None:
            return await find(caller, first)
        await database.fetch(
            """
            INSERT INTO reconciliation (id, provider, upstreams, source, starts_at, ends_at, bill, computed_microusd, billed_microusd, coverage, creator_kind,
                                        creator_id, creator_name, status, progress, created_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, 0, 0, 0, $8, $9, $10, 'queued', 0, $11)
            """,
            reconciliation_id,
            provider,
            names,
            source,
            new.start,
            end,
            None if lines is None else msgspec.json.encode(lines).decode(),
            caller.actor.kind.value,
            caller.actor.id,
            caller.actor.name[:200],
            caller.at,
        )
        await duties.owe(DUTY, {"reconciliation_id": str(reconciliation_id)}, workspace_id=None, at=caller.at)
        told = {"provider": (None, provider), "source": (None, source), "start": (None, new.start), "end": (None, end)}
        await audit.note(caller.actor, "reconciliation.create", ("Reconciliation", reconciliation_id), told, workspace_id=audit.SERVICE, at=caller.at)
    return await find(caller, reconciliation_id)


async def _upstreams(provider: str, configured: list[tuple[str, str]], start: datetime, end: datetime) -> list[str]:
    """The upstreams that a provider bills: the one of its name, those of its dialect, or one that is configured no more but was called."""
    names = [name for name, _ in configured if name == provider] or [name for name, dialect in configured if dialect == provider]
    if names:
        return sorted(set(names))
    called = "SELECT EXISTS (SELECT FROM attempt WHERE upstream = $1 AND id >= $2 AND id < $3)"
    if not await database.fetch_value(called, provider, _edge(start, -MARGIN), _edge(end, MARGIN)):
        raise NotFound("provider", path=("provider",))
    return [provider]


async def approve(caller: Caller, reconciliation_id: UUID, reason: str) -> ReconciliationView:
    """Accept a difference and book it between the service's accounts, in the books of the approver's workspace; doing it twice books it once.

    Operators only. Raises NotFound, InvalidInput for a bad reason, InvalidState for one that is not computed, or whose period was approved before.
    """
    own = caller.require(Scope.OPERATOR)
    reason = check_reason(reason)
    async with database.transaction():
        await database.fetch("SELECT pg_advisory_xact_lock(hashtextextended('reconciliation', 0))")
        of = await find(caller, reconciliation_id)
        if of.approved_at is not None:
            return of
        if of.status is not JobStatus.SUCCEEDED:
            raise InvalidState("It is not computed: there is no difference yet that could be accepted.", state=of.status.value, path=("id",))
        overlaps = """
            SELECT EXISTS (SELECT FROM reconciliation r JOIN reconciliation mine ON mine.id = $1
                            WHERE r.approved_at IS NOT NULL AND r.upstreams && mine.upstreams AND r.starts_at < mine.ends_at AND mine.starts_at < r.ends_at)
        """
        if await database.fetch_value(overlaps, reconciliation_id):
            message = "A bill of this provider for a part of this period was approved before: its difference would be booked twice."
            raise InvalidState(message, state="approved", path=("id",))
        transfer = await _book(own, of, reason, caller.actor)
        await database.fetch(
            """
            UPDATE reconciliation SET approved_at = $2, approver_kind = $3, approver_id = $4, approver_name = $5, transfer_workspace_id = $6, transfer_id = $7
             WHERE id = $1
            """,
            reconciliation_id,
            caller.at,
            caller.actor.kind.value,
            caller.actor.id,
            caller.actor.name[:200],
            transfer.workspace_id if transfer else None,
            transfer.id if transfer else None,
        )
        told = {"differenceMicroUsd": (None, of.difference_microusd)}
        subject = ("Reconciliation", reconciliation_id)
        await audit.note(caller.actor, "reconciliation.approve", subject, told, workspace_id=audit.SERVICE, at=caller.at, reason=reason)
    return await find(caller, reconciliation_id)


async def _book(workspace_id: UUID, of: ReconciliationView, reason: str, actor: Actor) -> TransferView | None:
    """Billed more than computed is a cost that no customer bears: out of `write_offs` into `adjustments`; billed less goes back."""
    if of.difference_microusd == 0:
        return None
    more = of.difference_microusd > 0
    return await ledger.post(
        workspace_id,
        TransferKind.ADJUSTMENT,
        f"reconciliation:{of.id}",
        debit=LedgerAccountKind.WRITE_OFFS if more else LedgerAccountKind.ADJUSTMENTS,
        credit=LedgerAccountKind.ADJUSTMENTS if more else LedgerAccountKind.WRITE_OFFS,
        amount_microusd=abs(of.difference_microusd),
        reason=reason,
        actor=actor,
    )


async def find(caller: Caller, reconciliation_id: UUID) -> ReconciliationView:
    """Return one; operators only. Raises NotFound."""
    caller.require(Scope.OPERATOR)
    row = await database.fetch_row(f"SELECT {_COLUMNS} FROM reconciliation WHERE id = $1", reconciliation_id)
    if row is None:
        raise NotFound("reconciliation", path=("id",))
    return _view(row)


async def page(caller: Caller, page: Page) -> PageOf[ReconciliationView]:
    """Return a page of them, newest first; operators only."""
    caller.require(Scope.OPERATOR)
    keyset = newest_first(page, offset=0)
    rows = await database.fetch(f"SELECT {_COLUMNS} FROM reconciliation WHERE true {keyset.where} {keyset.order}", *keyset.arguments)
    return cut([_view(row) for row in rows], page)


async def count(caller: Caller) -> int:
    """Return how many there are; operators only."""
    caller.require(Scope.OPERATOR)
    return int(await database.fetch_value("SELECT count(*) FROM reconciliation"))


async def lines(caller: Caller, reconciliation_id: UUID, most: int) -> list[LineView]:
    """Return the lines, the largest difference first; operators only. Raises InvalidInput for `most` outside of 1 to 500."""
    caller.require(Scope.OPERATOR)
    if not 1 <= most <= MOST_LINES:
        raise InvalidInput(f"At most {MOST_LINES} lines are shown.", path=("first",))
    rows = await database.fetch(
        "SELECT item, used_on, computed_picousd, billed_picousd FROM reconciliation_line WHERE reconciliation_id = $1 ORDER BY position LIMIT $2",
        reconciliation_id,
        most,
    )
    return [LineView(row["item"], row["used_on"], micros(row["computed_picousd"]), micros(row["billed_picousd"])) for row in rows]


def micros(picousd: int) -> int:
    """Return picodollars as the nearest whole microdollars, half to even."""
    whole, rest = divmod(picousd, PICO_PER_MICRO)
    return whole + (rest * 2 > PICO_PER_MICRO or (rest * 2 == PICO_PER_MICRO and whole % 2 == 1))


# The work.


async def compare(duty: Duty, book: Book, sources: Bills) -> None:
    """Read the bill where it is not there yet, and compare it; run twice, the second finds it done. A refusal ends it, anything else is tried again."""
    reconciliation_id = UUID(duty.payload["reconciliation_id"])
    row = await database.fetch_row(
        """
        UPDATE reconciliation SET status = 'running' WHERE id = $1 AND status IN ('queued', 'running') RETURNING provider, upstreams, starts_at, ends_at, bill
        """,
        reconciliation_id,
    )
    if row is None:
        await duties.done(duty)
        return
    try:
        if row["bill"] is not None:
            billed = msgspec.json.decode(row["bill"], type=list[BillLine])
        elif sources.knows(row["provider"]):
            billed = await sources.read(row["provider"], row["starts_at"], row["ends_at"])
        else:
            raise InvalidInput("The worker that took it has no admin key for this provider's cost API (`bill_key_env`).", path=("provider",))
        await _compare(duty, reconciliation_id, row, billed, book)
    except Exception as error:
        refused = isinstance(error, Refusal) and error.status < 500
        if not refused and duty.tries < MOST_TRIES:
            raise
        message = error.message if isinstance(error, Refusal) else f"{type(error).__name__} at the last of {MOST_TRIES} tries."
        async with database.transaction():
            if await duties.done(duty):
                await database.fetch(
                    "UPDATE reconciliation SET status = 'failed', failure = $2, finished_at = clock_timestamp() WHERE id = $1", reconciliation_id, message[:300]
                )


async def _compare(duty: Duty, reconciliation_id: UUID, row: asyncpg.Record, billed: list[BillLine], book: Book) -> None:
    async with database.transaction():
        await duties.extend(duty)
        await database.fetch("SELECT set_config('statement_timeout', '30min', true)")
        attempts = await database.fetch(
            """
            SELECT a.model, (a.started_at AT TIME ZONE 'UTC')::date AS used_on, sum(a.cost_picousd) AS picousd FROM attempt a
             WHERE a.id >= $1 AND a.id < $2 AND a.upstream = ANY ($3) AND a.started_at >= $4 AND a.started_at < $5 GROUP BY 1, 2
            """,
            _edge(row["starts_at"], -MARGIN),
            _edge(row["ends_at"], MARGIN),
            row["upstreams"],
            row["starts_at"],
            row["ends_at"],
        )
        computed = [BillLine(each["model"], each["used_on"], int(each["picousd"])) for each in attempts]
        compared = side_by_side(billed, computed, _same_models(book))
        if not await duties.done(duty):
            return
        await database.fetch(
            """
            INSERT INTO reconciliation_line (reconciliation_id, position, item, used_on, computed_picousd, billed_picousd)
            SELECT $1, x.* FROM unnest($2::int[], $3::text[], $4::date[], $5::bigint[], $6::bigint[]) x
            """,
            reconciliation_id,
            list(range(len(compared))),
            [line.item for line in compared],
            [line.used_on for line in compared],
            [line.computed for line in compared],
            [line.billed for line in compared],
        )
        await database.fetch(
            """
            UPDATE reconciliation SET status = 'succeeded', progress = 1, finished_at = clock_timestamp(), computed_microusd = $2, billed_microusd = $3, coverage = $4
             WHERE id = $1
            """,
            reconciliation_id,
            micros(sum(line.computed for line in compared)),
            micros(sum(line.billed for line in compared)),
            coverage(compared),
        )


@dataclass(frozen=True, slots=True)
class Compared:
    """An item, on a day where the bill has days, as we and as the provider reckon it; picodollars."""

    item: str
    used_on: date | None
    computed: int
    billed: int


def side_by_side(billed: list[BillLine], computed: list[BillLine], same: dict[str, str]) -> list[Compared]:
    """Return what is on the bill or ought to be, the largest difference first; `same` gives the one name of a model's many."""
    by_day = any(line.used_on is not None for line in billed)
    whole = bool(billed) and all(line.item == TOTAL for line in billed)
    sums: dict[tuple[str, date | None], list[int]] = {}
    names: dict[tuple[str, date | None], str] = {}
    for place, lines_ in ((1, billed), (0, computed)):
        for line in lines_:
            name = canonical(TOTAL if whole else line.item)
            key = (same.get(name, name), line.used_on if by_day else None)
            names.setdefault(key, TOTAL if whole else line.item)
            sums.setdefault(key, [0, 0])[place] += line.picousd
    found = [Compared(names[key], key[1], *both) for key, both in sums.items() if both != [0, 0]]
    return sorted(found, key=lambda line: (-abs(line.billed - line.computed), line.item, line.used_on or date.min))


def coverage(compared: Iterable[Compared]) -> float:
    """Return the part of a bill that attempts explain, 0 to 1: on each line as much as was computed, and no more than was billed; 1 for no bill."""
    billed = explained = 0
    for line in compared:
        billed += max(line.billed, 0)
        explained += max(min(line.computed, line.billed), 0)
    return explained / billed if billed else 1.0


def _same_models(book: Book) -> dict[str, str]:
    return {canonical(name): canonical(model.name) for model in book.models() for name in (*model.aliases, model.display_name, model.name)}


def _edge(at: datetime, margin: timedelta) -> UUID:
    """The least id of an instant: an attempt's id is minted a little before or after its time is taken."""
    return UUID(int=max(int((at + margin).timestamp() * 1000), 0) << 80)

