"""Models and what they cost: one function for every price, integers in picodollars for a unit, versions that never change."""

from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any
from uuid import UUID

import msgspec

from domain import audit, idempotency
from domain.access.callers import Actor, Caller
from domain.errors import InvalidInput, NotFound
from domain.money.amounts import parse_decimal
from domain.money.markup import Rules
from domain.pages import Page, PageOf
from models import database
from models.enums import ActorKind, Bucket, ModelCapability, Scope
from models.ids import uuid7

PICO_PLACES = 12
MOST_FOUND = 256
MOST_ROWS = 200
LONGEST_SOURCE = 300
LONGEST_WORD = 64
DEAREST_TOKEN_USD = 1
DEAREST_USD = 100
"""No token costs a dollar and no other unit a hundred; more is a slip of the pen, and a long call of it would overflow."""
INPUT_BUCKETS = (Bucket.UNCACHED_INPUT, Bucket.CACHE_READ, Bucket.CACHE_WRITE_5M, Bucket.CACHE_WRITE_1H, Bucket.AUDIO_INPUT)
TOKEN_BUCKETS = (*INPUT_BUCKETS, Bucket.OUTPUT, Bucket.REASONING, Bucket.AUDIO_OUTPUT)
BUCKETS = tuple(Bucket)
_OUTPUT, _REASONING, _CALLS = Bucket.OUTPUT, Bucket.REASONING, Bucket.CALLS  # for every call: before Python 3.12 a member of an enum costs ten times what a name does
FAST_TIER = "fast"
"""The service tier of Anthropic's fast mode: only who asks for it is served in it, at twice the price."""
STANDARD_TIERS = (None, "", "standard", "default", "auto")
STANDARD_PLACES = (None, "", "global", "not_available")


@dataclass(frozen=True, slots=True)
class PriceRow:
    """One price: `picousd` for one unit; `usd` for `per` units is the same as it was written."""

    bucket: Bucket
    picousd: int
    usd: str
    per: int = 1_000_000
    above_input_tokens: int | None = None
    service_tier: str | None = None
    geography: str | None = None

    def fits(self, prompt_tokens: int, service_tier: str | None, geography: str | None) -> bool:
        """Tell whether the row may hold for a call."""
        return (
            (self.above_input_tokens is None or prompt_tokens > self.above_input_tokens)
            and (self.service_tier is None or self.service_tier == service_tier)
            and (self.geography is None or self.geography == geography)
        )

    @property
    def particularity(self) -> tuple[bool, bool, int]:
        """What makes one fitting row hold before another."""
        return (self.service_tier is not None, self.geography is not None, self.above_input_tokens or 0)


@dataclass(frozen=True, slots=True)
class PriceVersion:
    """An immutable version of a model's prices; `effective_until` is the next version's beginning."""

    id: UUID
    model: str
    upstream: str | None
    rows: tuple[PriceRow, ...]
    effective_from: datetime
    effective_until: datetime | None
    source: str
    creator: Actor
    created_at: datetime
    buckets: frozenset[Bucket] = field(init=False, compare=False, repr=False)
    levels: tuple[int, ...] = field(init=False, compare=False, repr=False)
    """The lengths of prompts above which other rows hold, ascending."""
    found: dict[Any, Any] = field(init=False, compare=False, repr=False, default_factory=dict)
    """What was looked up in the rows before: they never change, and every call asks the same of them."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "buckets", frozenset(row.bucket for row in self.rows))
        object.__setattr__(self, "levels", tuple(sorted({row.above_input_tokens for row in self.rows if row.above_input_tokens is not None})))

    def prices(self, bucket: Bucket) -> bool:
        """Tell whether a bucket has a row of its own."""
        return bucket in self.buckets

    def standard(self, bucket: Bucket) -> PriceRow | None:
        """Return the row of a bucket that holds when nothing is particular."""
        return next(
            (row for row in self.rows if row.bucket is bucket and row.above_input_tokens is None and row.service_tier is None and row.geography is None), None
        )

    def dearest(self, buckets: tuple[Bucket, ...], *, prompt_tokens: int, fast: bool = False) -> int:
        """Return the most that a unit of any of these buckets may cost, in picodollars, for a prompt of about this length.

        A prompt is counted by a heuristic before the call, so a long-context row counts when the prompt might reach it. Where a call will be
        served is not known before, and costs a tenth more at most: rows of a place do not count. Rows of the fast mode count for a call that asks for it.
        """
        reach = prompt_tokens + prompt_tokens // 2
        asked = (buckets, bisect_left(self.levels, reach), fast)
        dearest: int | None = self.found.get(asked)
        if dearest is None:
            fitting = (
                row
                for row in self.rows
                if row.geography is None and (fast or row.service_tier != FAST_TIER) and (row.above_input_tokens is None or reach > row.above_input_tokens)
            )
            dearest = self.found[asked] = max((row.picousd for row in fitting if row.bucket in buckets), default=0)
        return dearest

    def row_for(self, bucket: Bucket, prompt_tokens: int, tier: str | None, place: str | None) -> "tuple[PriceRow, bool]":
        """Return the row of a bucket that holds for a call, and whether it is the one that is meant."""
        asked = (bucket, bisect_left(self.levels, prompt_tokens), tier, place)
        found: tuple[PriceRow, bool] | None = self.found.get(asked)
        if found is None:
            found = _row_for(self, bucket, prompt_tokens, tier, place)
            if len(self.found) < MOST_FOUND:  # tiers and places are words of providers
                self.found[asked] = found
        return found


@dataclass(frozen=True, slots=True)
class ModelView:
    """A model as clients name it; `routes_to` names the models that a routing alias such as `auto` chooses from, and is empty for any other."""

    id: UUID
    name: str
    display_name: str
    aliases: tuple[str, ...]
    vendor: str | None
    context_window: int | None
    max_output_tokens: int | None
    capabilities: tuple[ModelCapability, ...]
    created_at: datetime
    retires_at: datetime | None
    routes_to: tuple[str, ...] = ()


class QuoteLine(msgspec.Struct, frozen=True):
    """What one bucket of a call costs."""

    bucket: Bucket
    quantity: int
    row: PriceRow
    picousd: int


class Quote(msgspec.Struct, frozen=True):
    """What a call costs: `needs_review` when a bucket had no row and was priced at the dearest one instead."""

    price_id: UUID | None
    lines: tuple[QuoteLine, ...]
    picousd: int
    needs_review: bool


FREE = Quote(price_id=None, lines=(), picousd=0, needs_review=False)


def quote(price: PriceVersion, quantities: Mapping[Bucket, int], *, service_tier: str | None, geography: str | None) -> Quote:
    """Price what a call used; the only place that multiplies.

    Reasoning is a part of output and costs apart only where it has a row. Tokens of a service tier or of a place have the rows of that tier
    and place; what is no token costs what it costs everywhere unless a row says otherwise. A bucket, tier or place without a row is priced
    at the dearest row that could be meant, and marked: never free by accident, and never at a cheaper price than the answer's own (F12, F13).
    """
    tier = None if service_tier in STANDARD_TIERS else service_tier
    place = None if geography in STANDARD_PLACES else geography
    amounts = dict(quantities)
    if _REASONING in amounts:
        reasoning = min(amounts[_REASONING], amounts.get(_OUTPUT, 0))
        if _REASONING in price.buckets:
            amounts[_OUTPUT] = amounts.get(_OUTPUT, 0) - reasoning
            amounts[_REASONING] = reasoning
        else:
            amounts[_REASONING] = 0
    if amounts.get(_CALLS) and _CALLS not in price.buckets:
        del amounts[_CALLS]
    used = [bucket for bucket in BUCKETS if bucket in amounts and amounts[bucket] > 0]
    prompt_tokens = sum([amounts[bucket] for bucket in used if bucket in INPUT_BUCKETS])
    lines, review, picousd = [], False, 0
    for bucket in used:
        quantity = amounts[bucket]
        row, exact = price.row_for(bucket, prompt_tokens, tier, place)
        review = review or not exact
        cost = quantity * row.picousd
        lines.append(QuoteLine(bucket, quantity, row, cost))
        picousd += cost
    return Quote(price_id=price.id, lines=tuple(lines), picousd=picousd, needs_review=review)


def _row_for(price: PriceVersion, bucket: Bucket, prompt_tokens: int, tier: str | None, place: str | None) -> tuple[PriceRow, bool]:
    """Return the row of a bucket that holds for a call, and whether it is the one that is meant."""
    of_bucket = [row for row in price.rows if row.bucket is bucket]
    fitting = [row for row in of_bucket if row.fits(prompt_tokens, tier, place)]
    above = max((row.above_input_tokens or 0 for row in fitting), default=0)
    exact = [
        row
        for row in fitting
        if bucket not in TOKEN_BUCKETS or (row.service_tier == tier and row.geography == place and (row.above_input_tokens or 0) == above)
    ]
    if exact:
        return max(exact, key=lambda row: row.particularity), True
    near = [row for row in fitting if row.service_tier == tier] if any(row.service_tier == tier for row in of_bucket) else []
    near += [row for row in fitting if above and row.above_input_tokens == above]
    dearest = near or of_bucket or [row for row in price.rows if row.bucket in TOKEN_BUCKETS] or list(price.rows)
    return max(dearest, key=lambda row: row.picousd), False


def make_row(
    bucket: Bucket,
    usd: str,
    per: int = 1_000_000,
    above_input_tokens: int | None = None,
    service_tier: str | None = None,
    geography: str | None = None,
    *,
    path: tuple[str, ...] = ("rows",),
) -> PriceRow:
    """Return a price row; raises InvalidInput for a negative, non-finite, absurd or inexact price."""
    if not 1 <= per <= 10**9:
        raise InvalidInput("`per` is 1 to a thousand million units.", path=(*path, "per"))
    try:
        scaled = parse_decimal(usd, places=PICO_PLACES)
    except ValueError as error:
        raise InvalidInput(f"This is no price: {error}.", path=(*path, "usd")) from None
    picousd, rest = divmod(scaled, per)
    dearest = DEAREST_TOKEN_USD if bucket in TOKEN_BUCKETS else DEAREST_USD
    if scaled < 0 or picousd > dearest * 10**PICO_PLACES:
        raise InvalidInput("A price is 0 or more, and sane.", path=(*path, "usd"))
    if rest:
        raise InvalidInput("A unit must cost a whole number of picodollars: at most 6 decimals for a million.", path=(*path, "usd"))
    if above_input_tokens is not None and not 1 <= above_input_tokens <= 10**9:
        raise InvalidInput("A long-context row begins above at least one token.", path=(*path, "aboveInputTokens"))
    return PriceRow(bucket, picousd, usd, per, above_input_tokens, service_tier, geography)


class Book:
    """Every model and price version, in memory, as of its last `refresh`."""

    def __init__(self) -> None:
        self._models: dict[str, ModelView] = {}
        self._names: dict[str, str] = {}
        self._prices: dict[tuple[str, str | None], list[PriceVersion]] = {}
        self._by_id: dict[UUID, PriceVersion] = {}
        self._stamp: tuple[Any, ...] | None = None
        self.markup = Rules()

    async def refresh(self) -> None:
        """Read what is new; two cheap statements when nothing is."""
        await self.markup.refresh()
        row = await database.fetch_row(
            """
            SELECT (SELECT count(*) FROM price) AS prices, (SELECT max(id::text) FROM price) AS newest,
                   (SELECT md5(string_agg(m::text, '' ORDER BY m.name)) FROM catalogue_model m) AS models
            """
        )
        assert row is not None
        stamp = tuple(row)
        if stamp == self._stamp:
            return
        models = [
            ModelView(
                id=row["id"],
                name=row["name"],
                display_name=row["display_name"],
                aliases=tuple(row["aliases"]),
                vendor=row["vendor"],
                context_window=row["context_window"],
                max_output_tokens=row["max_output_tokens"],
                capabilities=tuple(ModelCapability(name) for name in row["capabilities"]),
                created_at=row["created_at"],
                retires_at=row["retires_at"],
            )
            for row in await database.fetch("SELECT * FROM catalogue_model ORDER BY name")
        ]
        prices: dict[tuple[str, str | None], list[PriceVersion]] = {}
        for row in await database.fetch("SELECT * FROM price ORDER BY model, upstream, effective_from, id"):
            version = PriceVersion(
                id=row["id"],
                model=row["model"],
                upstream=row["upstream"],
                rows=tuple(_row(entry) for entry in msgspec.json.decode(row["rows"])),
                effective_from=row["effective_from"],
                effective_until=None,
                source=row["source"],
                creator=Actor(ActorKind(row["creator_kind"]), row["creator_id"], row["creator_name"]),
                created_at=row["created_at"],
            )
            prices.setdefault((version.model, version.upstream), []).append(version)
        self._prices = {key: _dated(versions) for key, versions in prices.items()}
        self._by_id = {version.id: version for versions in self._prices.values() for version in versions}
        self._models = {model.name: model for model in models}
        self._names = {alias: model.name for model in models for alias in model.aliases} | {model.name: model.name for model in models}
        self._stamp = stamp

    def models(self) -> list[ModelView]:
        """Return every model, by name."""
        return list(self._models.values())

    def find(self, name: str) -> ModelView | None:
        """Return the model of a name or alias; None when there is none."""
        return self._models.get(self._names.get(name, ""))

    def price(self, model: str, at: datetime, upstream: str | None = None) -> PriceVersion | None:
        """Return the version that holds at an instant: what customers pay, or what an upstream charges."""
        for version in reversed(self._prices.get((model, upstream), [])):
            if version.effective_from <= at:
                return version
        return None

    def price_by_id(self, price_id: UUID) -> PriceVersion | None:
        """Return a version by its id."""
        return self._by_id.get(price_id)

    def versions(self, model: str, page: Page) -> PageOf[PriceVersion]:
        """Return a page of a model's versions, newest first."""
        return paged(list(reversed(self._prices.get((model, None), []))), page)


def paged(rows: list[PriceVersion], page: Page) -> PageOf[PriceVersion]:
    """Return a page of versions that are in memory."""
    places = {version.id: index for index, version in enumerate(rows)}
    start = places.get(page.after, -1) + 1 if page.after else 0
    end = places.get(page.before, len(rows)) if page.before else len(rows)
    window = rows[start:end]
    items = window[-page.size :] if page.backwards else window[: page.size]
    return PageOf(items=items, has_next=bool(items) and items[-1] is not rows[-1], has_previous=bool(items) and items[0] is not rows[0])


def _row(entry: dict[str, Any]) -> PriceRow:
    return PriceRow(
        Bucket(entry["bucket"]), entry["picousd"], entry["usd"], entry["per"], entry["above_input_tokens"], entry["service_tier"], entry["geography"]
    )


def _dated(versions: list[PriceVersion]) -> list[PriceVersion]:
    ends: list[datetime | None] = [later.effective_from for _, later in pairwise(versions)]
    return [
        PriceVersion(v.id, v.model, v.upstream, v.rows, v.effective_from, end, v.source, v.creator, v.created_at)
        for v, end in zip(versions, [*ends, None], strict=True)
    ]


async def own_names(names: Collection[str]) -> dict[str, str]:
    """Return the own name of each model that is named by it or by an alias; names of no model are left out."""
    rows = await database.fetch(
        "SELECT n AS given, m.name FROM unnest($1::text[]) n JOIN catalogue_model m ON m.name = n OR n = ANY (m.aliases) ORDER BY m.name = n", sorted(names)
    )
    return {row["given"]: row["name"] for row in rows}


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model to offer, as a price file has it."""

    name: str
    display_name: str
    vendor: str | None
    rows: tuple[PriceRow, ...]
    aliases: tuple[str, ...] = ()
    context_window: int | None = None
    max_output_tokens: int | None = None
    capabilities: tuple[ModelCapability, ...] = (ModelCapability.STREAMING, ModelCapability.TOOLS)


async def enter(entry: ModelEntry, *, source: str, effective_from: datetime, actor: Actor, at: datetime) -> bool:
    """Offer a model, and enter its prices as a new version unless the newest one says the same; True when a version was entered.

    A version may begin now or later, never in the past: what was charged stays explained. Raises InvalidInput.
    """
    if not entry.rows:
        raise InvalidInput(f"{entry.name} has no price rows.", path=("rows",))
    if len({(row.bucket, row.above_input_tokens, row.service_tier, row.geography) for row in entry.rows}) != len(entry.rows):
        raise InvalidInput(f"{entry.name} prices the same thing twice.", path=("rows",))
    rows = msgspec.json.encode(sorted((msgspec.to_builtins(row) for row in entry.rows), key=str)).decode()
    async with database.transaction():
        await database.fetch("SELECT pg_advisory_xact_lock(hashtextextended('catalogue', 0))")
        await database.fetch(
            """
            INSERT INTO catalogue_model (id, name, display_name, aliases, vendor, context_window, max_output_tokens, capabilities, created_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
                ON CONFLICT (name) DO UPDATE SET display_name = excluded.display_name, aliases = excluded.aliases, vendor = excluded.vendor,
                   context_window = excluded.context_window, max_output_tokens = excluded.max_output_tokens, capabilities = excluded.capabilities
            """,
            uuid7(),
            entry.name,
            entry.display_name,
            list(entry.aliases),
            entry.vendor,
            entry.context_window,
            entry.max_output_tokens,
            [capability.value for capability in entry.capabilities],
            at,
        )
        same = await database.fetch_value(
            "SELECT rows = $2::jsonb FROM price WHERE model = $1 AND upstream IS NULL ORDER BY effective_from DESC, id DESC LIMIT 1", entry.name, rows
        )
        if same:
            return False
        await _insert(uuid7(), entry.name, None, rows, effective_from=max(effective_from, at), source=source, actor=actor, at=at)
    return True


async def _insert(price_id: UUID, model: str, upstream: str | None, rows: str, *, effective_from: datetime, source: str, actor: Actor, at: datetime) -> None:
    await database.fetch(
        """
        INSERT INTO price (id, model, upstream, rows, effective_from, source, creator_kind, creator_id, creator_name, created_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        """,
        price_id,
        model,
        upstream,
        rows,
        effective_from,
        source,
        actor.kind.value,
        actor.id,
        actor.name[:200],
        at,
    )
    if actor.kind is not ActorKind.SYSTEM:  # what is shipped is nobody's change
        told = {"model": model, "upstream": upstream, "rows": msgspec.json.decode(rows), "effectiveFrom": effective_from, "source": source}
        changes = {name: (None, value) for name, value in told.items() if value is not None}
        await audit.note(actor, "price.create", ("Price", price_id), changes, workspace_id=audit.SERVICE, at=at)


@dataclass(frozen=True, slots=True)
class NewPrice:
    """A price version to enter: what customers pay for a model, or what `upstream` charges for it; now when `effective_from` is None."""

    model: str
    rows: tuple[PriceRow, ...]
    source: str
    idempotency_key: str
    upstream: str | None = None
    effective_from: datetime | None = None


async def create(caller: Caller, new: NewPrice, book: Book) -> PriceVersion:
    """Enter a price version, once for each idempotency key; operators only.

    One that begins in the past changes no charge: what was charged stays explained by the version that it names. Raises NotFound for a
    model that is not offered, InvalidInput, IdempotencyConflict.
    """
    caller.require(Scope.OPERATOR)
    source = new.source.strip()
    if not 1 <= len(source) <= LONGEST_SOURCE or not source.isprintable():
        raise InvalidInput(f"Say in 1 to {LONGEST_SOURCE} characters where the price comes from.", path=("source",))
    if not 1 <= len(new.rows) <= MOST_ROWS:
        raise InvalidInput(f"A price has 1 to {MOST_ROWS} rows.", path=("rows",))
    if len({(row.bucket, row.above_input_tokens, row.service_tier, row.geography) for row in new.rows}) != len(new.rows):
        raise InvalidInput("The same thing is priced twice.", path=("rows",))
    for index, row in enumerate(new.rows):
        for name, word in (("serviceTier", row.service_tier), ("geography", row.geography)):
            if word is not None and not (len(word) <= LONGEST_WORD and word.isprintable()):
                raise InvalidInput(f"This has at most {LONGEST_WORD} printable characters.", path=("rows", str(index), name))
    await book.refresh()
    model = book.find(new.model)
    if model is None:
        raise NotFound("model", path=("model",))
    price_id, begins = uuid7(), new.effective_from or caller.at
    told = msgspec.to_builtins(sorted(new.rows, key=str))
    async with database.transaction():
        given = [model.name, new.upstream, told, source, new.effective_from]
        first = await idempotency.claim(audit.SERVICE, "priceCreate", new.idempotency_key, given, price_id)
        if first is None:
            rows = msgspec.json.encode(told).decode()
            await _insert(price_id, model.name, new.upstream, rows, effective_from=begins, source=source, actor=caller.actor, at=caller.at)
    await book.refresh()
    version = book.price_by_id(first or price_id)
    assert version is not None, "versions are never deleted"
    return version


def as_kept(row: PriceRow) -> PriceRow:
    """Return a row as calls ask for it: the standard tier and place are no particular ones."""
    tier = None if row.service_tier in STANDARD_TIERS else row.service_tier
    place = None if row.geography in STANDARD_PLACES else row.geography
    return PriceRow(row.bucket, row.picousd, row.usd, row.per, row.above_input_tokens, tier, place)


def entries_of(document: Mapping[str, Any]) -> Sequence[ModelEntry]:
    """Return the models of a price file: a table `model` for each, with its rows in dollars; raises InvalidInput naming the model.

    A `variant` is a second `usd_per_million` for a `service_tier`, a `geography`, prompts `above_input_tokens`, or several of these together.
    """
    entries = []
    for index, table in enumerate(document.get("model", [])):
        path = ("model", str(table.get("name", index)))
        try:
            rows = [make_row(Bucket(bucket), str(usd), path=path) for bucket, usd in table.get("usd_per_million", {}).items()]
            rows += [make_row(**{**row, "bucket": Bucket(row["bucket"]), "usd": str(row["usd"])}, path=path) for row in table.get("row", [])]
            for variant in table.get("variant", []):
                particular = {name: value for name, value in variant.items() if name != "usd_per_million"}
                rows += [make_row(Bucket(bucket), str(usd), **particular, path=path) for bucket, usd in variant["usd_per_million"].items()]
            entries.append(
                ModelEntry(
                    name=table["name"],
                    display_name=table.get("display_name", table["name"]),
                    vendor=table.get("vendor"),
                    rows=tuple(rows),
                    aliases=tuple(table.get("aliases", ())),
                    context_window=table.get("context_window"),
                    max_output_tokens=table.get("max_output_tokens"),
                    capabilities=tuple(ModelCapability(name) for name in table.get("capabilities", ("streaming", "tools"))),
                )
            )
        except (KeyError, ValueError, TypeError) as error:
            raise InvalidInput(f"The price file is malformed at {'.'.join(path)}: {error}.", path=path) from None
    return entries
