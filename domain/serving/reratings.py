"""Re-rating: calls looked at again with a corrected price, and, once that is approved, the differences posted; what was charged first stays as it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import asyncpg
import msgspec

from domain import audit, duties, idempotency
from domain.access.actors import Actor
from domain.access.callers import Caller
from domain.duties import Duty
from domain.errors import InvalidInput, InvalidState, NotFound
from domain.money.amounts import PICO_PER_MICRO
from domain.money.catalogue import Book, PriceVersion
from domain.money.ledger import check_reason
from domain.money.markup import Standing, multiplied
from domain.pages import Page, PageOf, cut, newest_first
from domain.serving.calls import LARGEST_CHARGE_PICOUSD, Consumption, Part, reckon
from domain.serving.receipts import Used, used_of
from models import database
from models.enums import ActorKind, ApiKeyKind, Bucket, JobStatus, Scope
from models.ids import instant, uuid7

PREVIEW: Final = "rerating_preview"
APPLY: Final = "rerating_apply"
CALLS_AT_ONCE = 500
POSTED_AT_ONCE = 50
"""A workspace's money lock is held for as long as these take."""
MOST_LINES = 500
MOST_TRIES = 5
FIRST_YEAR = 2020
MARGIN = timedelta(minutes=5)
_BUCKETS = {
    "input_tokens": Bucket.UNCACHED_INPUT,
    "output_tokens": Bucket.OUTPUT,
    "cache_read_tokens": Bucket.CACHE_READ,
    "cache_write_5m_tokens": Bucket.CACHE_WRITE_5M,
    "cache_write_1h_tokens": Bucket.CACHE_WRITE_1H,
    "reasoning_tokens": Bucket.REASONING,
}


@dataclass(frozen=True, slots=True)
class NewRerating:
    """Which calls to look at: those made from `start` until before `end`, the price version's own time where they are None; in one workspace, or all."""

    price_id: UUID
    reason: str
    idempotency_key: str
    start: datetime | None = None
    end: datetime | None = None
    workspace_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class ReratingView:
    """A re-rating as it stands. `calls`, `credited_microusd` and `charged_microusd` are the preview's, less what applying skipped."""

    id: UUID
    price_id: UUID
    start: datetime
    end: datetime
    reason: str
    calls: int
    credited_microusd: int
    charged_microusd: int
    creator: Actor
    applier: Actor | None
    status: JobStatus
    progress: float | None
    failure: str | None
    created_at: datetime
    previewed_at: datetime | None
    applied_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class LineView:
    """What a re-rating means for one workspace, in microdollars, over the calls whose charge changes."""

    workspace_id: UUID
    calls: int
    before_microusd: int
    after_microusd: int


_COLUMNS = (
    "id, price_id, starts_at, ends_at, reason, calls, credited_microusd, charged_microusd, creator_kind, creator_id, creator_name, applier_kind, applier_id,"
    " applier_name, status, progress, failure, created_at, previewed_at, applied_at, finished_at"
)
_PLAIN = (
    *("id", "price_id", "reason", "calls", "credited_microusd", "charged_microusd"),
    *("progress", "failure", "created_at", "previewed_at", "applied_at", "finished_at"),
)


def _view(row: asyncpg.Record) -> ReratingView:
    return ReratingView(
        **{name: row[name] for name in _PLAIN},
        start=row["starts_at"],
        end=row["ends_at"],
        creator=Actor(ActorKind(row["creator_kind"]), row["creator_id"], row["creator_name"]),
        applier=Actor(ActorKind(row["applier_kind"]), row["applier_id"], row["applier_name"]) if row["applier_kind"] else None,
        status=JobStatus(row["status"]),
    )


async def create(caller: Caller, new: NewRerating, book: Book) -> ReratingView:
    """Queue the preview of a re-rating, once for each idempotency key; nothing is posted. Operators only.

    Raises NotFound for the price or the workspace, InvalidInput for a range that is empty or in the future, or for what an upstream charges,
    which no customer pays, IdempotencyConflict.
    """
    caller.require(Scope.OPERATOR)
    reason = check_reason(new.reason)
    price = await _version(book, new.price_id)
    if price is None:
        raise NotFound("price", path=("priceId",))
    if price.upstream is not None:
        raise InvalidInput("This is what an upstream charges: no customer paid it, and no call is rated by it.", path=("priceId",))
    start, end = _range(caller, new, price)
    if new.workspace_id is not None and not await database.fetch_value("SELECT EXISTS (SELECT FROM workspace WHERE id = $1)", new.workspace_id):
        raise NotFound("workspace", path=("workspaceId",))
    rerating_id = uuid7()
    async with database.transaction():
        given = [new.price_id, reason, new.start, new.end, new.workspace_id]
        first = await idempotency.claim(audit.SERVICE, "reratingCreate", new.idempotency_key, given, rerating_id)
        if first is not None:
            return await find(caller, first)
        await database.fetch(
            """
            INSERT INTO rerating (id, price_id, only_workspace_id, starts_at, ends_at, reason, creator_kind, creator_id, creator_name, status, progress,
                                  calls, credited_microusd, charged_microusd, created_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'queued', 0, 0, 0, 0, $10)
            """,
            rerating_id,
            new.price_id,
            new.workspace_id,
            start,
            end,
            reason,
            caller.actor.kind.value,
            caller.actor.id,
            caller.actor.name[:200],
            caller.at,
        )
        await duties.owe(PREVIEW, {"rerating_id": str(rerating_id)}, workspace_id=None, at=caller.at)
        told = {"priceId": new.price_id, "model": price.model, "start": start, "end": end, "workspaceId": new.workspace_id}
        await _note(caller, "rerating.create", rerating_id, told, reason)
    return await find(caller, rerating_id)


def _range(caller: Caller, new: NewRerating, price: PriceVersion) -> tuple[datetime, datetime]:
    if new.start is None:
        start, end = price.effective_from, min(price.effective_until or caller.at, caller.at)
        if start >= end:
            raise InvalidInput("This version does not hold yet; name the calls' range to rate earlier ones by it.", path=("range",))
        return start, end
    end = caller.at if new.end is None else new.end
    if new.start.year < FIRST_YEAR or new.start >= end:
        raise InvalidInput(f"A range begins in {FIRST_YEAR} or later, and before its end.", path=("range", "start"))
    if end > caller.at:
        raise InvalidInput("Calls that are yet to come are charged by the price that will hold.", path=("range", "end"))
    return new.start, end


async def apply(caller: Caller, rerating_id: UUID) -> ReratingView:
    """Queue the posting of what a preview found; doing it twice posts once, and one that failed half-way goes on where it stopped. Operators only.

    Raises NotFound, InvalidState for one whose preview is not there.
    """
    caller.require(Scope.OPERATOR)
    async with database.transaction():
        row = await database.fetch_row("SELECT status, previewed_at, apply_asked_at FROM rerating WHERE id = $1 FOR NO KEY UPDATE", rerating_id)
        if row is None:
            raise NotFound("rerating", path=("id",))
        if row["previewed_at"] is None:
            raise InvalidState("Its preview is not finished: there is nothing yet that could be approved.", state=row["status"], path=("id",))
        if row["apply_asked_at"] is None or row["status"] == JobStatus.FAILED:
            await database.fetch(
                """
                UPDATE rerating SET status = 'queued', progress = 0, failure = NULL, finished_at = NULL, apply_asked_at = $2,
                       applier_kind = $3, applier_id = $4, applier_name = $5 WHERE id = $1
                """,
                rerating_id,
                caller.at,
                caller.actor.kind.value,
                caller.actor.id,
                caller.actor.name[:200],
            )
            await duties.owe(APPLY, {"rerating_id": str(rerating_id)}, workspace_id=None, at=caller.at)
            await _note(caller, "rerating.apply", rerating_id, {"status": JobStatus.QUEUED.value}, None)
    return await find(caller, rerating_id)


async def _note(caller: Caller, action: str, rerating_id: UUID, told: dict[str, Any], reason: str | None) -> None:
    changes = {name: (None, value) for name, value in told.items() if value is not None}
    await audit.note(caller.actor, action, ("Rerating", rerating_id), changes, workspace_id=audit.SERVICE, at=caller.at, reason=reason)


async def find(caller: Caller, rerating_id: UUID) -> ReratingView:
    """Return one; operators only. Raises NotFound."""
    caller.require(Scope.OPERATOR)
    row = await database.fetch_row(f"SELECT {_COLUMNS} FROM rerating WHERE id = $1", rerating_id)
    if row is None:
        raise NotFound("rerating", path=("id",))
    return _view(row)


async def page(caller: Caller, page: Page) -> PageOf[ReratingView]:
    """Return a page of them, newest first; operators only."""
    caller.require(Scope.OPERATOR)
    keyset = newest_first(page, offset=0)
    rows = await database.fetch(f"SELECT {_COLUMNS} FROM rerating WHERE true {keyset.where} {keyset.order}", *keyset.arguments)
    return cut([_view(row) for row in rows], page)


async def count(caller: Caller) -> int:
    """Return how many there are; operators only."""
    caller.require(Scope.OPERATOR)
    return int(await database.fetch_value("SELECT count(*) FROM rerating"))


async def lines(caller: Caller, rerating_id: UUID, most: int) -> list[LineView]:
    """Return the workspaces whose charges change, the largest difference first; operators only. Raises InvalidInput for `most` outside of 1 to 500."""
    caller.require(Scope.OPERATOR)
    if not 1 <= most <= MOST_LINES:
        raise InvalidInput(f"At most {MOST_LINES} lines are shown.", path=("first",))
    rows = await database.fetch(
        """
        SELECT workspace_id, calls, before_microusd, after_microusd FROM rerating_line
         WHERE rerating_id = $1 AND calls > 0 ORDER BY abs(after_microusd - before_microusd) DESC, workspace_id LIMIT $2
        """,
        rerating_id,
        most,
    )
    return [LineView(**row) for row in rows]


# The work.


async def preview(duty: Duty, book: Book) -> None:
    """Look at every call of the range, some in each transaction, and go on where a run before this one stopped."""
    rerating_id = UUID(duty.payload["rerating_id"])
    row = await database.fetch_row(
        "UPDATE rerating SET status = 'running' WHERE id = $1 AND previewed_at IS NULL RETURNING price_id, only_workspace_id, starts_at, ends_at", rerating_id
    )
    if row is None:
        await duties.done(duty)
        return
    price = await _version(book, row["price_id"])
    assert price is not None, "a re-rating names a price version, and versions are never deleted"
    look = _Look(duty, book, price, rerating_id, row["only_workspace_id"], row["starts_at"], row["ends_at"])
    try:
        while await look.on():
            pass
    except Exception as error:
        await _give_up(duty, rerating_id, error)


async def post(duty: Duty) -> None:
    """Post what the preview found, some calls of one workspace in each transaction, and go on where a run before this one stopped."""
    rerating_id = UUID(duty.payload["rerating_id"])
    row = await database.fetch_row(
        f"UPDATE rerating SET status = 'running' WHERE id = $1 AND apply_asked_at IS NOT NULL AND applied_at IS NULL RETURNING {_COLUMNS}", rerating_id
    )
    if row is None:
        await duties.done(duty)
        return
    try:
        while await _post_some(duty, _view(row)):
            pass
    except Exception as error:
        await _give_up(duty, rerating_id, error)


async def _give_up(duty: Duty, rerating_id: UUID, error: Exception) -> None:
    """Let the worker try again, or, at the last try, say that it failed; a worker that took over has the word."""
    if isinstance(error, duties.TakenOver):
        return
    if duty.tries < MOST_TRIES:
        raise error
    async with database.transaction():
        if await duties.done(duty):
            await database.fetch(
                "UPDATE rerating SET status = 'failed', failure = $2, finished_at = clock_timestamp() WHERE id = $1",
                rerating_id,
                f"{type(error).__name__} at the last of {MOST_TRIES} tries; what was posted before it stays posted.",
            )
    raise error


async def _post_some(duty: Duty, of: ReratingView) -> bool:
    actor = of.applier
    assert actor is not None, "whoever approved it is written with the approval"
    async with database.transaction():
        await duties.extend(duty)
        rows = await database.fetch(
            """
            SELECT c.workspace_id, c.record_id FROM rerated_call c
             WHERE c.rerating_id = $1 AND c.state = 'open' ORDER BY c.workspace_id, c.record_id LIMIT $2
            """,
            of.id,
            POSTED_AT_ONCE,
        )
        if not rows:
            if await duties.done(duty):
                await database.fetch(
                    "UPDATE rerating SET status = 'succeeded', progress = 1, applied_at = clock_timestamp(), finished_at = clock_timestamp() WHERE id = $1", of.id
                )
            return False
        workspace_id = rows[0]["workspace_id"]
        for row in rows:
            if row["workspace_id"] == workspace_id:
                await database.fetch_value(
                    "SELECT rerate_2($1, $2, $3, $4, $5, $6, $7, $8, $9)",
                    workspace_id,
                    of.id,
                    row["record_id"],
                    uuid7(),
                    of.price_id,
                    of.reason,
                    actor.kind.value,
                    actor.id,
                    actor.name[:200],
                )
        await database.fetch(
            """
            UPDATE rerating SET progress = (SELECT count(*) FILTER (WHERE c.workspace_id <= $2)::float8 / count(*) FROM rerating_line c WHERE c.rerating_id = $1) * 0.99
             WHERE id = $1
            """,
            of.id,
            workspace_id,
        )
    return True


async def _version(book: Book, price_id: UUID) -> PriceVersion | None:
    price = book.price_by_id(price_id)
    if price is None:
        await book.refresh()
        price = book.price_by_id(price_id)
    return price


# A call that somebody corrected by hand stays as that person said, and one that is voided stays voided. One that was swept may be settled late for a
# while; until that is past, it is left alone. What a call was rated at last is what the last re-rating of it that was posted says, exactly.
_CALLS = """
    SELECT e.id AS record_id, h.payer, h.progress, h.closed_by, c.key_kind, c.app_id, a.usage, l.price_id, l.error_code, l.input_tokens, l.output_tokens,
           l.cache_read_tokens, l.cache_write_5m_tokens, l.cache_write_1h_tokens, l.reasoning_tokens, l.other_buckets, s.events, s.charge_microusd, s.list_microusd,
           coalesce(r.charge_picousd, s.charge_picousd) AS charge_picousd, coalesce(r.list_picousd, s.list_picousd) AS list_picousd
      FROM usage_event e
      JOIN hold h ON h.workspace_id = e.workspace_id AND h.call_id = e.id
      JOIN "call" c ON c.workspace_id = e.workspace_id AND c.id = e.id
      CROSS JOIN LATERAL (SELECT v.* FROM usage_event v
                           WHERE v.workspace_id = e.workspace_id AND v.record_id = e.id AND (v.id = e.id OR v.id <> v.record_id)
                             AND v.kind IN ('call', 'late') AND v.requests > 0 ORDER BY v.created_at DESC, v.id DESC LIMIT 1) l
      LEFT JOIN LATERAL (SELECT t.usage FROM attempt t WHERE t.workspace_id = e.workspace_id AND t.call_id = e.id AND t.charged ORDER BY t.number DESC LIMIT 1) a ON true
      LEFT JOIN LATERAL (SELECT x.charge_picousd, x.list_picousd FROM rerated_call x
                          WHERE x.workspace_id = e.workspace_id AND x.record_id = e.id AND x.state = 'posted' ORDER BY x.posted_at DESC LIMIT 1) r ON true
      CROSS JOIN LATERAL (SELECT count(*)::int AS events, sum(v.charge_microusd)::bigint AS charge_microusd, sum(v.list_microusd)::bigint AS list_microusd,
                                 bool_or(v.kind = 'void') AS voided,
                                 (sum(v.charge_picousd) FILTER (WHERE v.kind IN ('call', 'late')))::bigint AS charge_picousd,
                                 (sum(v.list_picousd) FILTER (WHERE v.kind IN ('call', 'late')))::bigint AS list_picousd,
                                 bool_or(v.kind = 'correction' AND v.charge_microusd <> 0 AND NOT EXISTS (SELECT FROM rerated_call x WHERE x.workspace_id = e.workspace_id
                                   AND x.record_id = e.id AND x.state = 'posted' AND x.event_id = v.id)) AS by_hand
                            FROM usage_event v WHERE v.workspace_id = e.workspace_id AND v.record_id = e.id AND (v.id = e.id OR v.id <> v.record_id)) s
     WHERE e.workspace_id = $1 AND e.id > $2 AND e.id < $3 AND e.kind = 'call' AND e.mode = 'live' AND e.at >= $4 AND e.at < $5
       AND (l.price_id IN (SELECT p.id FROM price p WHERE p.model = $6 AND p.upstream IS NULL) OR a.usage ? 'others' OR h.progress ? 'others')
       AND NOT s.voided AND NOT s.by_hand AND (h.closed_by <> 'sweep' OR h.closed_at < clock_timestamp() - interval '1 hour')
     ORDER BY e.id LIMIT $7
"""


@dataclass(slots=True)
class _Look:
    """One run of a preview."""

    duty: Duty
    book: Book
    price: PriceVersion
    rerating_id: UUID
    only: UUID | None
    start: datetime
    end: datetime

    async def on(self) -> bool:
        """Look at the next calls, in a transaction of their own; False when there were none left."""
        async with database.transaction():
            await duties.extend(self.duty)
            row = await database.fetch_row("SELECT at_workspace, at_record FROM rerating WHERE id = $1 FOR NO KEY UPDATE", self.rerating_id)
            assert row is not None
            workspace_id, after = row["at_workspace"], row["at_record"]
            if after is None:
                workspace_id = await self._next(workspace_id)
                after = _edge(self.start, -MARGIN)
            if workspace_id is None:
                await self._finish()
                return False
            found = await database.fetch(
                _CALLS, workspace_id, after, _edge(self.end, MARGIN), self.start, self.end, self.price.model, CALLS_AT_ONCE
            )
            await self._keep(workspace_id, found)
            more = len(found) == CALLS_AT_ONCE
            await database.fetch(
                """
                UPDATE rerating SET at_workspace = $2, at_record = $3,
                       progress = (SELECT count(*) FILTER (WHERE w.id < $2)::float8 / greatest(count(*), 1) FROM workspace w) * 0.99 WHERE id = $1
                """,
                self.rerating_id,
                workspace_id,
                found[-1]["record_id"] if more else None,
            )
        return True

    async def _next(self, workspace_id: UUID | None) -> UUID | None:
        if self.only is not None:
            return self.only if workspace_id is None else None
        found: UUID | None = await database.fetch_value(
            "SELECT e.workspace_id FROM usage_event e WHERE e.workspace_id > $1 AND e.id > $2 AND e.id < $3 ORDER BY e.workspace_id LIMIT 1",
            workspace_id or UUID(int=0),
            _edge(self.start, -MARGIN),
            _edge(self.end, MARGIN),
        )
        return found

    async def _finish(self) -> None:
        if await duties.done(self.duty):
            await database.fetch(
                "UPDATE rerating SET status = 'succeeded', progress = 1, previewed_at = clock_timestamp(), finished_at = clock_timestamp() WHERE id = $1",
                self.rerating_id,
            )

    async def _keep(self, workspace_id: UUID, rows: Sequence[asyncpg.Record]) -> None:
        """Keep the calls that change. Whole microdollars are made of the sum, call by call, so that what is lost is below one, once for each workspace."""
        line = await database.fetch_row(
            "SELECT charge_rest_picousd, list_rest_picousd FROM rerating_line WHERE workspace_id = $1 AND rerating_id = $2", workspace_id, self.rerating_id
        )
        charge_rest, list_rest = (line["charge_rest_picousd"], line["list_rest_picousd"]) if line else (0, 0)
        kept = []
        for row in rows:
            list_picousd, charge_picousd = self._rate(workspace_id, row)
            charge_change, list_change = charge_picousd - row["charge_picousd"], list_picousd - row["list_picousd"]
            if (charge_change, list_change) == (0, 0):
                continue
            # what a record was charged is off its picodollars by a carry: it gives back what it has, and the next one the rest
            change = max((charge_rest + charge_change) // PICO_PER_MICRO, -row["charge_microusd"])
            list_whole = max((list_rest + list_change) // PICO_PER_MICRO, -row["list_microusd"])
            charge_rest += charge_change - change * PICO_PER_MICRO
            list_rest += list_change - list_whole * PICO_PER_MICRO
            kept.append((row["record_id"], row["events"], row["charge_microusd"], change, list_whole, charge_picousd, list_picousd, charge_change != 0))
        if not kept:
            return
        paid = [each for each in kept if each[7]]
        before, change_ = sum(each[2] for each in paid), sum(each[3] for each in paid)
        await database.fetch(
            """
            INSERT INTO rerating_line (workspace_id, rerating_id, calls, before_microusd, after_microusd, charge_rest_picousd, list_rest_picousd)
            VALUES ($1, $2, $3, $4, $5, $6, $7)
                ON CONFLICT (workspace_id, rerating_id) DO UPDATE SET calls = rerating_line.calls + excluded.calls,
                   before_microusd = rerating_line.before_microusd + excluded.before_microusd, after_microusd = rerating_line.after_microusd + excluded.after_microusd,
                   charge_rest_picousd = excluded.charge_rest_picousd, list_rest_picousd = excluded.list_rest_picousd
            """,
            workspace_id,
            self.rerating_id,
            len(paid),
            before,
            before + change_,
            charge_rest,
            list_rest,
        )
        await database.fetch(
            """
            INSERT INTO rerated_call (workspace_id, rerating_id, record_id, events, before_microusd, change_microusd, list_change_microusd, charge_picousd, list_picousd,
                                      charge_differs, state)
            SELECT $1, $2, x.*, 'open' FROM unnest($3::uuid[], $4::int[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bool[]) x
            """,
            workspace_id,
            self.rerating_id,
            *(list(column) for column in zip(*kept, strict=True)),
        )
        await database.fetch(
            "UPDATE rerating SET calls = calls + $2, credited_microusd = credited_microusd + $3, charged_microusd = charged_microusd + $4 WHERE id = $1",
            self.rerating_id,
            len(paid),
            sum(max(-each[3], 0) for each in kept),
            sum(max(each[3], 0) for each in kept),
        )

    def _rate(self, workspace_id: UUID, row: asyncpg.Record) -> tuple[int, int]:
        """Return list value and charge as they should have been, in picodollars: quoted as the settlement quotes, at the corrected price."""
        used = _used(row)
        listed = self.book.price_by_id(row["price_id"]) or self.price
        consumption = Consumption(
            quantities={bucket.value: quantity for bucket, quantity in used.quantities.items()},
            service_tier=used.service_tier,
            geography=used.geography,
            others=tuple(Part(self._corrected(price_id), {bucket.value: n for bucket, n in quantities.items()}) for price_id, quantities in used.others),
        )
        price = self.price if listed.model == self.price.model else listed
        list_picousd = reckon(self.book, consumption, price).picousd
        if row["payer"] == "quota" or (row["key_kind"] == ApiKeyKind.SUBSCRIPTION and row["payer"] != "cash"):
            return list_picousd, 0
        if used.markup is not None:
            numerator, denominator = used.markup
        elif row["usage"] is not None:  # whoever settled it found no rule
            numerator, denominator = 1, 1
        else:
            rule = self.book.markup.in_force(listed.model, Standing(workspace_id, app_id=row["app_id"]), instant(row["record_id"]))
            numerator, denominator = (rule.numerator, rule.denominator) if rule else (1, 1)
        return list_picousd, min(multiplied(list_picousd, numerator, denominator), LARGEST_CHARGE_PICOUSD)

    def _corrected(self, price_id: UUID) -> UUID:
        version = self.book.price_by_id(price_id)
        return self.price.id if version is not None and version.model == self.price.model else price_id


def _used(row: asyncpg.Record) -> Used:
    """What made the charge: the attempt that answered, or the last sign of life of a call that was swept, or the record's own columns."""
    if row["usage"] is not None:
        return used_of(msgspec.json.decode(row["usage"]))
    if row["progress"] is not None and row["error_code"] == "interrupted":
        return used_of(msgspec.json.decode(row["progress"]))
    quantities = {bucket: row[name] for name, bucket in _BUCKETS.items() if row[name]}
    others = msgspec.json.decode(row["other_buckets"]) if row["other_buckets"] else {}
    return Used(quantities | {Bucket(name): quantity for name, quantity in others.items() if quantity})


def _edge(at: datetime, margin: timedelta) -> UUID:
    """The least id of an instant: a call's id is minted a little before or after its time is taken."""
    return UUID(int=max(int((at + margin).timestamp() * 1000), 0) << 80)
