"""The life of a call in the books: admitted with a hold, kept alive, settled once, and swept when nobody settled it."""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from datetime import datetime
from fractions import Fraction
from typing import Any, Literal
from uuid import UUID

import asyncpg
import msgspec
import structlog
from msgspec.structs import replace

from domain import errors
from domain.access.client_tokens import Claims
from domain.money.catalogue import FREE, INPUT_BUCKETS, Book, PriceVersion, Quote, quote
from domain.money.markup import LIST, RuleView, Standing, most
from domain.serving.batches import Answer, Batch, Item, statement
from domain.serving.refusals import refusal_of
from domain.serving.standings import Standings, markup_kept, rule_of
from models import database
from models.database import CONTENDED, UNREACHABLE
from models.enums import Bucket, TokenCountSource, UsageOutcome
from models.ids import instant, uuid7

SWEEP_AT_ONCE = 200
_CALLS = (Bucket.CALLS,)
_ONE_CALL = {Bucket.CALLS: 1}
_OUTPUT = (Bucket.OUTPUT, Bucket.REASONING, Bucket.AUDIO_OUTPUT)
TOKENS = (*INPUT_BUCKETS, Bucket.OUTPUT, Bucket.AUDIO_OUTPUT)
_TOKENS = frozenset(TOKENS)
SLOWEST_RETRY_SECONDS = 5.0
LARGEST_CHARGE_PICOUSD = 10**15
"""No call costs a thousand dollars: a provider that reports more reports nonsense, which must neither keep the books from closing nor overflow a cell."""
LARGEST_COUNT = 10**8
"""No call uses a hundred million of anything; what is reported beyond that is cut, for the same reason."""

log = structlog.get_logger()


class Opening(msgspec.Struct, frozen=True):
    """A call that asks to be let in.

    `max_output_tokens` is the most it may put out over all its choices, `instalment_tokens` how much of that is held at first. `price` is that of
    the first candidate of its route, `fallbacks` those of the others: the hold covers the dearest. `route_reason` says why this model and upstream.
    `besides` is the most that it may use of what is no counted token, by its bucket: characters of speech, seconds of a recording.
    """

    id: UUID
    fingerprint: str
    road: Literal["generic", "tool"]
    endpoint: str
    api_name: str
    dialect: str
    requested_model: str
    model: str
    echo: bool
    upstream: str
    price: PriceVersion
    streamed: bool
    input_tokens: int
    requested_max_output: int | None
    max_output_tokens: int
    instalment_tokens: int
    created_at: datetime
    end_user: str | None = None
    conversation: str | None = None
    language: str | None = None
    tags: Mapping[str, str] | None = None
    preset: str | None = None
    origin: str | None = None
    address: str | None = None
    fallbacks: tuple[PriceVersion, ...] = ()
    route_reason: str | None = None
    besides: Mapping[Bucket, int] = msgspec.field(default_factory=dict)
    app_id: UUID | None = None
    idempotent: bool = False
    token: Claims | None = None
    markup: Fraction = LIST
    fast: bool = False
    standing: Standing | None = None

    @property
    def input_picousd(self) -> int:
        """The most that the counted input, and what is used besides, may cost at any candidate."""
        tokens, dearest = self.input_tokens, 0
        for price in (self.price, *self.fallbacks):
            amount = tokens * price.dearest(INPUT_BUCKETS, prompt_tokens=tokens, fast=self.fast) + price.dearest(_CALLS, prompt_tokens=tokens)
            for bucket, besides in self.besides.items():
                amount += besides * price.dearest((bucket,), prompt_tokens=tokens)
            dearest = max(dearest, amount)
        return most(dearest, self.markup)

    @property
    def output_picousd(self) -> int:
        """The most that a token of output may cost at any candidate."""
        tokens = self.input_tokens
        return most(max([price.dearest(_OUTPUT, prompt_tokens=tokens, fast=self.fast) for price in (self.price, *self.fallbacks)]), self.markup)


class Admitted(msgspec.Struct, frozen=True):
    """A call that was let in: its hold is durable, and covers `output_tokens`. `payer` is `cash`, `quota`, `wallet`, or None for a call that costs
    nothing.
    """

    call_id: UUID
    workspace_id: UUID
    key_id: UUID
    hold_microusd: int
    output_tokens: int
    clamped: bool
    payer: str | None = None


class Part(msgspec.Struct, frozen=True):
    """What another model than the call's own did for its answer, priced by its own version; `unpriced` when that is only the call's, for want of one."""

    price_id: UUID
    quantities: dict[str, int]
    unpriced: bool = False


class Consumption(msgspec.Struct, frozen=True):
    """What a call has used so far: kept with its hold every two seconds, and final at its settlement.

    `doubtful` when the provider's report was nonsense, or names something that has no bucket here: a person should look. `kept` are the provider's ids
    of an answer that it keeps, of that answer's items, and of a container that it ran in, `cost_picousd` what it says that it bills for all of it.
    """

    model: str | None = None
    quantities: dict[str, int] = msgspec.field(default_factory=dict)
    service_tier: str | None = None
    geography: str | None = None
    reported: bool = False
    characters: int = 0
    lines: int = 0
    first_token_ms: int | None = None
    others: tuple[Part, ...] = ()
    doubtful: bool = False
    kept: tuple[str, ...] = ()
    cost_picousd: int | None = None

    @property
    def totals(self) -> Mapping[str, int]:
        """How much of each bucket was used, by all models together."""
        if not self.others:
            return self.quantities
        totals = dict(self.quantities)
        for part in self.others:
            for bucket, quantity in part.quantities.items():
                totals[bucket] = totals.get(bucket, 0) + quantity
        return totals

    def amount(self, bucket: Bucket) -> int:
        """How much of a bucket was used, by all models together."""
        return self.totals.get(bucket, 0)

    @property
    def tokens(self) -> int:
        """All tokens: input, output, cache reads and writes, audio."""
        totals = self.totals
        return sum(totals.get(bucket, 0) for bucket in TOKENS)


class AttemptMade(msgspec.Struct, frozen=True):
    """One upstream try, over.

    `model` is the upstream's own name. `reason` is why this upstream: `first`, `weight`, `sticky`, `fallback`. `price` is the list price of its
    model and `consumption` what it used, both None for those of its call: the last attempt is the one that answered.
    """

    id: UUID
    number: int
    upstream: str
    model: str
    outcome: UsageOutcome
    http_status: int | None
    error_code: str | None
    started_at: datetime
    first_byte_at: datetime | None
    finished_at: datetime
    reason: str = "first"
    price: PriceVersion | None = None
    consumption: Consumption | None = None


class Ending(msgspec.Struct, frozen=True):
    """How a call ended: everything that its settlement records.

    `model`, `provider` and `price` are those of the attempt that answered, which is charged; `attempts` are all, the last of them that one. A sweep
    knows only those before it.
    """

    workspace_id: UUID
    call_id: UUID
    model: str
    provider: str
    price: PriceVersion
    consumption: Consumption
    outcome: UsageOutcome
    http_status: int | None
    error_code: str | None
    latency_ms: int | None
    attempts: tuple[AttemptMade, ...] = ()
    standing: Standing | None = None

    def quote(self, book: Book) -> Quote:
        """Price what was used, at list price."""
        return reckon(book, self.consumption, self.price)


def reckon(book: Book, used: Consumption, price: PriceVersion, *, upstream: str | None = None, at: datetime | None = None) -> Quote:
    """Price a consumption: at list price, or at what `upstream` charges `at` an instant, as far as the book knows that.

    What used nothing is no call, and costs nothing; every part costs what its own model costs. An amount beyond all reason is cut and marked.
    """
    if not used.quantities:
        return FREE

    def own(version: PriceVersion) -> PriceVersion:
        return version if upstream is None or at is None else book.price(version.model, at, upstream) or version

    first = own(price)
    listed = quote(first, _buckets(used.quantities) | _ONE_CALL, service_tier=used.service_tier, geography=used.geography)
    if not used.others and not used.doubtful and listed.picousd <= LARGEST_CHARGE_PICOUSD:
        return listed
    lines = [listed]
    for part in used.others:
        lines.append(quote(own(book.price_by_id(part.price_id) or price), _buckets(part.quantities), service_tier=None, geography=used.geography))
    picousd = sum(line.picousd for line in lines)
    review = picousd > LARGEST_CHARGE_PICOUSD or used.doubtful or any(line.needs_review for line in lines) or any(part.unpriced for part in used.others)
    return Quote(first.id, tuple(row for line in lines for row in line.lines), min(picousd, LARGEST_CHARGE_PICOUSD), review)


class Settled(msgspec.Struct, frozen=True):
    """A call whose charge is booked, in microdollars."""

    charge_microusd: int
    available_microusd: int | None


class Sign(msgspec.Struct, frozen=True):
    """A sign of life of a call: how far it is, who answers it, and for how many output tokens its hold should be good.

    `model`, `upstream` and `price` are those of the candidate that is tried now, `failed` the tries before it: what the sweep goes by.
    """

    workspace_id: UUID
    call_id: UUID
    model: str
    upstream: str
    price: PriceVersion
    failed: tuple[AttemptMade, ...]
    consumption: Consumption
    output_tokens: int | None
    input_tokens: int
    input_picousd: int
    output_picousd: int
    standing: Standing | None = None


class Calls:
    """The books of one process's calls: admissions, signs of life and settlements, each committed in groups."""

    def __init__(self, book: Book, *, batch: int, hold_seconds: int) -> None:
        self._book = book
        self._hold_seconds = hold_seconds
        self._admissions = Batch(statement("SELECT * FROM admit_6($1::json, $2)"), most=batch, says="verdict")
        self._settlements = Batch(statement("SELECT * FROM settle_4($1::json, $2)"), most=batch)
        self._signs = Batch(statement("SELECT *, $2::boolean AS waited FROM progress_3($1::jsonb)"), most=batch)
        self._aside: set[asyncio.Task[Any]] = set()
        self.standings = Standings(book.markup)

    async def admit(self, opening: Opening) -> Admitted:
        """Let a call in: prove its key, set aside what it may cost, and make the record and its hold durable.

        An admission whose client left while it was under way is released at once. Raises Unauthenticated, Forbidden and its kin,
        InsufficientCredit, BoundReached, or Unavailable when the database is away.
        """
        item = self.admission(opening)
        first = self._admissions.enqueue(item)
        try:
            row = await first.future
        except asyncio.CancelledError:
            self._spawn(self._release(self._answered(first.again(), item), opening))
            raise
        except (*UNREACHABLE, *CONTENDED):
            row = await self._admitted_after_all(first.future, item, opening)
        return admitted_of(row, opening)

    async def _admitted_after_all(self, first: "asyncio.Future[Answer]", item: Item, opening: Opening) -> Answer:
        submission = asyncio.ensure_future(self._answered(first, item))
        try:
            return await asyncio.shield(submission)
        except asyncio.CancelledError:
            self._spawn(self._release(submission, opening))
            raise

    async def _answered(self, first: "asyncio.Future[Answer]", item: Item) -> Answer:
        """Wait for an admission's answer, and ask again where that broke."""
        try:
            return await first
        except UNREACHABLE:
            try:  # the connection broke, and the commit may have arrived: ask again with the same id, once
                return await self._admissions.submit({**item, "again": True})
            except (*UNREACHABLE, *CONTENDED):
                raise errors.Unavailable from None
        except CONTENDED:  # others held the account for longer than any statement waits; nothing was written
            raise errors.Unavailable from None

    def admission(self, opening: Opening) -> Item:
        """Return a call as the statement that admits reads it."""
        return {
            "id": opening.id,
            "hash": opening.fingerprint,
            "road": opening.road,
            "echo": opening.echo,
            "candidates": [opening.model] if not opening.fallbacks else list(dict.fromkeys([opening.model, *[price.model for price in opening.fallbacks]])),
            "requested_model": opening.requested_model,
            "origin": opening.origin,
            "address": opening.address,
            "instalment": opening.instalment_tokens,
            "max_output": opening.max_output_tokens,
            "input_tokens": opening.input_tokens,
            "input_picousd": opening.input_picousd,
            "output_picousd": opening.output_picousd,
            "end_user": opening.end_user,
            "conversation": opening.conversation,
            "language": opening.language,
            "tags": opening.tags,
            "api_name": opening.api_name,
            "endpoint": opening.endpoint,
            "dialect": opening.dialect,
            "preset": opening.preset,
            "upstream": opening.upstream,
            "price_id": opening.price.id,
            "streamed": opening.streamed,
            "requested_max_output": opening.requested_max_output,
            "route_reason": None if opening.route_reason is None else opening.route_reason[:200],
            "app_id": opening.app_id,
            **({} if opening.token is None else {"client_token_id": opening.token.id, "token_workspace_id": opening.token.workspace_id}),
            "idempotent": opening.idempotent,
            "created_at": opening.created_at,
            "hold_seconds": self._hold_seconds,
        }

    async def _release(self, submission: Awaitable[Answer], opening: Opening) -> None:
        try:
            admitted = admitted_of(await submission, opening)
        except (errors.Refusal, *UNREACHABLE):
            return
        await self.settle(
            Ending(
                workspace_id=admitted.workspace_id,
                call_id=admitted.call_id,
                model=opening.model,
                provider=opening.upstream,
                price=opening.price,
                consumption=Consumption(),
                outcome=UsageOutcome.CANCELLED,
                http_status=None,
                error_code="client_gone",
                latency_ms=None,
            )
        )

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._aside.add(task)
        task.add_done_callback(self._aside.discard)

    async def keep(self, sign: Sign) -> int | None:
        """Keep a sign of life; return for how many output tokens the hold is good now, or None when it is closed.

        Raises what the database raised: a sign may be lost, the next one says more.
        """
        row = await self._signs.submit(
            {
                "workspace_id": sign.workspace_id,
                "call_id": sign.call_id,
                "progress": _progress(sign, self._book) if sign.consumption.quantities or sign.failed else None,
                "hold_seconds": self._hold_seconds,
                "output": sign.output_tokens,
                "input_tokens": sign.input_tokens,
                "input_picousd": sign.input_picousd,
                "output_picousd": sign.output_picousd,
            }
        )
        return None if row["result"] == "closed" else int(row["output"])

    async def settle(self, ending: Ending) -> Settled:
        """Close a call's hold and charge it; tried until the database is back, so whoever waits bounds the wait, and does not cancel the try.

        Safe to send again: the first settlement counts.
        """
        delay = 0.05
        while True:
            try:
                row = await self._settlements.submit(_settlement(ending, self._book, by="settle"))
            except (*UNREACHABLE, *CONTENDED) as error:
                log.warning("settlement waits for the database", call=str(ending.call_id), error=type(error).__name__)
                await asyncio.sleep(delay)
                delay = min(delay * 2, SLOWEST_RETRY_SECONDS)
            else:
                return Settled(charge_microusd=row["charge_microusd"] or 0, available_microusd=row["available_microusd"])

    async def sweep(self) -> int:
        """End calls whose holds are past their expiry as their last sign of life says; return how many were ended.

        Nobody settled them: their process died, or lost the database. What they used is estimated from the last progress; without any,
        nothing is charged. Any process may do so at any time.
        """
        rows = await database.fetch(
            """
            SELECT h.workspace_id, h.call_id, h.progress, h.progress_at, c.model, c.upstream, c.price_id FROM hold h
              JOIN "call" c ON c.workspace_id = h.workspace_id AND c.id = h.call_id
             WHERE h.state = 'open' AND h.expires_at < clock_timestamp() ORDER BY h.expires_at LIMIT $1
            """,
            SWEEP_AT_ONCE,
        )
        ended = 0
        for row in rows:
            try:
                ended += await self._end(row)
            except (*UNREACHABLE, *CONTENDED):
                raise
            except Exception as error:  # one that cannot be read keeps no other from its end; the audit shows it for as long as it stays
                log.exception("expired hold cannot be ended", call=str(row["call_id"]), error=type(error).__name__)
        return ended

    async def _end(self, row: asyncpg.Record) -> bool:
        progress: dict[str, Any] = msgspec.json.decode(row["progress"]) if row["progress"] else {}
        by = progress.get("by") or {"model": row["model"], "upstream": row["upstream"], "price_id": str(row["price_id"])}
        price = await self._price(by["price_id"])
        assert price is not None, "a call names a price version, and versions are never deleted"
        failed = [await self._attempt(kept) for kept in progress.get("failed", ())]
        began = failed[-1].finished_at if failed else instant(row["call_id"])
        # the try that was under way, as far as anybody knows: its upstream may have billed it
        number, reason, finished = len(failed) + 1, "fallback" if failed else "first", max(row["progress_at"] or began, began)
        cut = AttemptMade(uuid7(), number, by["upstream"], by["model"], UsageOutcome.FAILED, None, "interrupted", began, None, finished, reason=reason)
        ending = Ending(
            workspace_id=row["workspace_id"],
            call_id=row["call_id"],
            model=by["model"],
            provider=by["upstream"],
            price=price,
            consumption=msgspec.convert(progress, Consumption),
            outcome=UsageOutcome.FAILED,
            http_status=None,
            error_code="interrupted",
            latency_ms=None,
            attempts=(*failed, cut),
            standing=msgspec.convert(progress["standing"], Standing) if progress.get("standing") else None,
        )
        answer = await self._settlements.submit(_settlement(ending, self._book, by="sweep"))
        return bool(answer["result"] == "settled")

    async def _attempt(self, kept: dict[str, Any]) -> AttemptMade:
        made = msgspec.convert(kept["attempt"], AttemptMade)
        return replace(made, price=await self._price(kept["price_id"]), consumption=msgspec.convert(kept["used"], Consumption))

    async def _price(self, price_id: str) -> PriceVersion | None:
        price = self._book.price_by_id(UUID(price_id))
        if price is None:
            await self._book.refresh()
            price = self._book.price_by_id(UUID(price_id))
        return price

    async def close(self) -> None:
        """Wait for releases that are still under way."""
        if self._aside:
            await asyncio.wait(self._aside, timeout=10)


_BUCKETS = {bucket.value: bucket for bucket in Bucket}
_COLUMNS = (
    *(("input_tokens", Bucket.UNCACHED_INPUT), ("output_tokens", Bucket.OUTPUT), ("cache_read_tokens", Bucket.CACHE_READ)),
    *(("cache_write_5m_tokens", Bucket.CACHE_WRITE_5M), ("cache_write_1h_tokens", Bucket.CACHE_WRITE_1H), ("reasoning_tokens", Bucket.REASONING)),
)
"""The buckets that have a column of their own."""
_NAMED = frozenset(bucket for _, bucket in _COLUMNS)
_SOURCES = (TokenCountSource.ESTIMATE, TokenCountSource.PROVIDER)


def _buckets(quantities: Mapping[str, int]) -> dict[Bucket, int]:
    return {_BUCKETS[bucket]: quantity for bucket, quantity in quantities.items() if quantity}


def _progress(sign: Sign, book: Book) -> dict[str, Any]:
    """Return what is kept with a hold: what was used, by whom and for whom, and how the tries before went."""
    failed = [
        {
            "attempt": msgspec.to_builtins(replace(made, price=None, consumption=None)),
            "price_id": (made.price or sign.price).id,
            "used": made.consumption or Consumption(),
        }
        for made in sign.failed
    ]
    by = {"model": sign.model, "upstream": sign.upstream, "price_id": sign.price.id}
    kept: dict[str, Any] = msgspec.to_builtins(sign.consumption) | msgspec.to_builtins({"by": by, "failed": failed})
    return kept | markup_kept(book, sign.price, sign.workspace_id, sign.standing, sign.call_id)


def _settlement(ending: Ending, book: Book, *, by: Literal["settle", "sweep"]) -> Item:
    priced = ending.quote(book)
    used = ending.consumption
    amounts = {bucket: quantity if quantity < LARGEST_COUNT else LARGEST_COUNT for bucket, quantity in used.totals.items() if quantity}
    costs = [_cost(book, made, ending, priced) for made in ending.attempts]
    upstream_cost_picousd = sum([cost.picousd for cost in costs])
    unseen = not ending.attempts
    if unseen and used.cost_picousd is not None:
        upstream_cost_picousd += min(used.cost_picousd, LARGEST_CHARGE_PICOUSD)
    elif unseen:  # nobody saw how its last try went
        upstream_cost_picousd += reckon(book, used, ending.price, upstream=ending.provider, at=instant(ending.call_id)).picousd
    rule = rule_of(book, ending.price, ending.workspace_id, ending.standing, ending.call_id)
    return {
        "workspace_id": ending.workspace_id,
        "call_id": ending.call_id,
        "by": by,
        "delivered": bool(used.quantities),
        "charge_picousd": priced.picousd if rule is None else min(rule.charge(priced.picousd), LARGEST_CHARGE_PICOUSD),
        "list_picousd": priced.picousd,
        "upstream_cost_picousd": upstream_cost_picousd,
        "price_id": ending.price.id,
        "model": ending.model,
        "provider": ending.provider,
        "outcome": ending.outcome,
        "http_status": ending.http_status,
        "error_code": ending.error_code,
        "tokens": sum([amounts[bucket] for bucket in amounts if bucket in _TOKENS]),
        **{column: amounts.get(bucket, 0) for column, bucket in _COLUMNS},
        "other_buckets": {bucket: quantity for bucket, quantity in amounts.items() if bucket not in _NAMED} or None,
        "characters": used.characters,
        "lines": used.lines,
        "latency_ms": ending.latency_ms,
        "first_token_ms": used.first_token_ms,
        "token_source": _SOURCES[used.reported and by == "settle"],
        "needs_review": priced.needs_review,
        "attempts": [
            _attempt(attempt, cost, ending, rule, charged=by == "settle" and attempt is ending.attempts[-1]) for attempt, cost in zip(ending.attempts, costs, strict=True)
        ],
    }


def _used(attempt: AttemptMade, ending: Ending) -> Consumption:
    """What an attempt used: by itself, or, the last one, as the call's answer."""
    if attempt.consumption is not None:
        return attempt.consumption
    return ending.consumption if attempt is ending.attempts[-1] else Consumption()


def _cost(book: Book, made: AttemptMade, ending: Ending, priced: Quote) -> Quote:
    """What an attempt costs its upstream: what that says itself, or as priced; where the book knows no price of the upstream's own, the answer's is the call's."""
    used, price = _used(made, ending), made.price or ending.price
    if used.cost_picousd is not None:
        return replace(priced if used is ending.consumption else FREE, picousd=min(used.cost_picousd, LARGEST_CHARGE_PICOUSD))
    if used is ending.consumption and price is ending.price and not used.others and book.price(price.model, made.started_at, made.upstream) is None:
        return priced
    return reckon(book, used, price, upstream=made.upstream, at=made.started_at)


def _attempt(attempt: AttemptMade, cost: Quote, ending: Ending, rule: RuleView | None, *, charged: bool) -> Item:
    used = _used(attempt, ending)
    return {
        "id": attempt.id,
        "number": attempt.number,
        "upstream": attempt.upstream,
        "model": attempt.model,
        "outcome": attempt.outcome,
        "http_status": attempt.http_status,
        "error_code": attempt.error_code,
        "reason": attempt.reason,
        "usage": _usage(used) | ({"markup": [rule.numerator, rule.denominator]} if rule and charged else {}),
        "cost_picousd": cost.picousd,
        "price_id": cost.price_id,
        "charged": bool(used.quantities) and charged,
        "started_at": attempt.started_at,
        "first_byte_at": attempt.first_byte_at,
        "finished_at": attempt.finished_at,
    }


def _usage(used: Consumption) -> dict[str, Any]:
    """Return what an attempt's row keeps: quantities by bucket, and what else chose the price, where anything did; a receipt quotes it again."""
    others = [{"price_id": part.price_id, "quantities": part.quantities} for part in used.others]
    more = {"service_tier": used.service_tier, "geography": used.geography, "others": others}
    return used.quantities | {name: value for name, value in more.items() if value}


def admitted_of(row: Answer, opening: Opening) -> Admitted:
    verdict = row["verdict"]
    if verdict == "admitted":
        return Admitted(opening.id, row["workspace_id"], row["key_id"], row["hold_microusd"], row["output"], row["clamped"], row["payer"])
    raise refusal_of(row)


def counted(quantities: Sequence[tuple[Bucket, int]]) -> dict[str, int]:
    """Return quantities as a consumption keeps them: by bucket's value, without zeros."""
    return {str(bucket): quantity for bucket, quantity in quantities if quantity}
