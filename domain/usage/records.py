"""The request log: single metered calls and records made by hand, each the sum of its events."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from domain.access.callers import Actor, Caller
from domain.access.end_users import id_of
from domain.errors import MissingScope, NotFound
from domain.pages import Page, PageOf, cut, following, newest_first, oldest_first
from domain.usage.bounded import bounded
from domain.usage.metrics import EVERYTHING, Dimension, UsageFilter
from domain.usage.windows import Window
from models import database
from models.enums import ActorKind, ApiKeyMode, Scope, TokenCountSource, UsageEventKind, UsageOutcome, UsageRecordStatus

SLACK = timedelta(days=1)
"""A record's id is minted within moments of its time; with this much room the id's index finds a window."""


@dataclass(frozen=True, slots=True)
class RecordFilter:
    """Narrows the request log; None matches all, and `statuses` only those that are active.

    `request_id` is the call's `X-Request-Id`; whatever is none matches nothing. `minimum_charge_microusd` is inclusive.
    """

    window: Window | None = None
    usage: UsageFilter = EVERYTHING
    modes: tuple[ApiKeyMode, ...] | None = None
    statuses: tuple[UsageRecordStatus, ...] | None = None
    request_id: str | None = None
    needs_review: bool | None = None
    minimum_charge_microusd: int | None = None


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of one call by kind; no token is in two, except that reasoning is a part of output."""

    input: int
    output: int
    cache_read: int
    cache_write_5m: int
    cache_write_1h: int
    reasoning: int
    source: TokenCountSource

    @property
    def total(self) -> int:
        """Input, output, cache reads and cache writes."""
        return self.input + self.output + self.cache_read + self.cache_write_5m + self.cache_write_1h


@dataclass(frozen=True, slots=True)
class RecordView:
    """One record as it stands after everything that changed it; numbers of a voided one are zero.

    `at` is when the call began, `recorded_at` when it was settled. `price_id` and attempts are the receipt's matter.
    """

    id: UUID
    workspace_id: UUID
    kind: UsageEventKind
    mode: ApiKeyMode
    at: datetime
    recorded_at: datetime
    key_id: UUID | None
    user_id: UUID | None
    client_token_id: UUID | None
    app_id: UUID | None
    end_user: str | None
    conversation: str | None
    language: str | None
    tags: dict[str, str]
    api_name: str
    endpoint: str
    preset: str | None
    requested_model: str | None
    model: str | None
    provider: str | None
    streamed: bool
    outcome: UsageOutcome
    http_status: int | None
    error_code: str | None
    units: int
    tokens: Tokens | None
    characters: int
    lines: int
    charge_microusd: int
    list_microusd: int
    upstream_cost_picousd: int
    price_id: UUID | None
    latency_ms: int | None
    first_token_ms: int | None
    needs_review: bool
    api_key_used: str | None
    status: UsageRecordStatus

    @property
    def request_id(self) -> str | None:
        """The `X-Request-Id` of the call, which is its id; None for a record made by hand."""
        return None if self.kind is UsageEventKind.MANUAL else str(self.id)

    @property
    def end_user_id(self) -> UUID | None:
        """The end user that it was made for, when it names one."""
        return None if self.end_user is None else id_of(self.workspace_id, self.app_id, self.end_user)

    @property
    def upstream_cost_microusd(self) -> int:
        """What upstreams charged, a started microdollar counted whole; operators only."""
        return -(-self.upstream_cost_picousd // 1_000_000)


@dataclass(frozen=True, slots=True)
class Adjustment:
    """One correction of a record, or its voiding: what it added."""

    id: UUID
    record_id: UUID
    kind: UsageEventKind
    created_at: datetime
    actor: Actor
    reason: str
    units: int
    charge_microusd: int


# The first event has the record's id and says who called; the last settlement says how it ended; the sum of all is what it used. Few records
# have more events than the first: an index of those alone makes looking for them cheap, one by one for a page, all at once for a count.
_CHANGES = """
    SELECT e.workspace_id, e.record_id, sum(e.units)::bigint AS units, sum(e.input_tokens)::bigint AS input, sum(e.output_tokens)::bigint AS output,
           sum(e.cache_read_tokens)::bigint AS cache_read, sum(e.cache_write_5m_tokens)::bigint AS cache_write_5m,
           sum(e.cache_write_1h_tokens)::bigint AS cache_write_1h, sum(e.reasoning_tokens)::bigint AS reasoning, sum(e.characters)::bigint AS characters,
           sum(e.lines)::bigint AS lines, sum(e.charge_microusd)::bigint AS charge_microusd, sum(e.list_microusd)::bigint AS list_microusd,
           sum(e.upstream_cost_picousd) AS upstream_cost_picousd, bool_or(e.kind = 'void') AS voided,
           coalesce(sum(e.charge_microusd) FILTER (WHERE e.kind = 'correction'), 0) < 0 AS given_back
      FROM usage_event e WHERE {} AND e.id <> e.record_id GROUP BY e.workspace_id, e.record_id
"""
_LAST = """
    SELECT DISTINCT ON (e.workspace_id, e.record_id) * FROM usage_event e WHERE {} AND e.id <> e.record_id AND e.kind = 'late'
     ORDER BY e.workspace_id, e.record_id, e.created_at DESC, e.id DESC
"""
_OF_ONE = "e.workspace_id = f.workspace_id AND e.record_id = f.id"
_FROM_EACH = f"FROM usage_event f LEFT JOIN LATERAL ({_CHANGES.format(_OF_ONE)}) s ON true LEFT JOIN LATERAL ({_LAST.format(_OF_ONE)}) l ON true"
_OF_ALL = "e.workspace_id = $1"
_FROM_ALL = (
    f"FROM usage_event f LEFT JOIN ({_CHANGES.format(_OF_ALL)}) s ON s.workspace_id = f.workspace_id AND s.record_id = f.id "
    f"LEFT JOIN ({_LAST.format(_OF_ALL)}) l ON l.workspace_id = f.workspace_id AND l.record_id = f.id"
)


def _ended(name: str) -> str:
    return f"CASE WHEN l.id IS NULL THEN f.{name} ELSE l.{name} END"


def _summed(name: str, column: str = "") -> str:
    return f"f.{column or name} + coalesce(s.{name}, 0)"


_FIRST = "f.kind IN ('call', 'manual')"
"""What tells a record from its changes: `f.id = f.record_id` does too, but Postgres takes that for rare, and would sort a whole log to show a page of it."""
_ACTIVE = f"(s.voided OR (s.given_back AND {_summed('charge_microusd')} = 0)) IS NOT TRUE"
_STATUS = f"CASE WHEN s.voided THEN 'voided' WHEN s.given_back AND {_summed('charge_microusd')} = 0 THEN 'refunded' ELSE 'active' END"
_SUMS = {
    "units": "units",
    "input": "input_tokens",
    "output": "output_tokens",
    "cache_read": "cache_read_tokens",
    "cache_write_5m": "cache_write_5m_tokens",
    "cache_write_1h": "cache_write_1h_tokens",
    "reasoning": "reasoning_tokens",
    "characters": "characters",
    "lines": "lines",
    "charge_microusd": "charge_microusd",
    "list_microusd": "list_microusd",
    "upstream_cost_picousd": "upstream_cost_picousd",
}
_ENDS = ("language", "model", "provider", "outcome", "http_status", "error_code", "token_source", "price_id", "latency_ms", "first_token_ms", "needs_review")
_COLUMNS = ", ".join(
    (
        "f.id, f.workspace_id, f.kind, f.mode, f.at, f.created_at AS recorded_at, f.key_id, f.user_id, f.client_token_id, f.app_id, f.end_user, f.conversation",
        "f.tags, f.api_name, f.endpoint, f.preset, f.requested_model, f.streamed, f.api_key_used",
        *(f"{_summed(name, column)} AS {name}" for name, column in _SUMS.items()),
        *(f"{_ended(name)} AS {name}" for name in _ENDS),
        f"{_STATUS} AS status",
    )
)
_NAMES = {
    Dimension.MODEL: _ended("model"),
    Dimension.PROVIDER: _ended("provider"),
    Dimension.APP: "f.app_id",
    Dimension.API_KEY: "f.key_id",
    Dimension.USER: "f.user_id",
    Dimension.END_USER: "f.end_user",
    Dimension.CONVERSATION: "f.conversation",
    Dimension.PRESET: "f.preset",
    Dimension.API_NAME: "f.api_name",
    Dimension.ENDPOINT: "f.endpoint",
    Dimension.LANGUAGE: _ended("language"),
    Dimension.OUTCOME: _ended("outcome"),
}


_ATTRIBUTES = {
    Dimension.MODEL: "model",
    Dimension.PROVIDER: "provider",
    Dimension.APP: "app_id",
    Dimension.API_KEY: "key_id",
    Dimension.USER: "user_id",
    Dimension.END_USER: "end_user",
    Dimension.CONVERSATION: "conversation",
    Dimension.PRESET: "preset",
    Dimension.API_NAME: "api_name",
    Dimension.ENDPOINT: "endpoint",
    Dimension.LANGUAGE: "language",
    Dimension.OUTCOME: "outcome",
}


class Order(StrEnum):
    """What the request log can be sorted by; a record without a latency stands before all that have one."""

    CREATED_AT = "created_at"
    COST = "cost"
    LATENCY = "latency"


_RANKS = {Order.COST: f"({_summed('charge_microusd')})", Order.LATENCY: f"coalesce({_ended('latency_ms')}, -1)"}


async def page(
    caller: Caller, page: Page, wanted: RecordFilter | None = None, *, ascending: bool = False, order: Order = Order.CREATED_AT
) -> PageOf[RecordView]:
    """Return a page of records that the caller may see, newest, dearest or slowest first unless `ascending`; records that are equal, by id.

    A record stands where what it costs now puts it, corrections included. By cost and latency all records that match are looked at: narrow them by
    a window. Needs USAGE_READ; without USAGE_READ_ALL a person sees calls of the own keys, and a key its own. Raises MissingScope, and InvalidInput, also
    for what reads too much.
    """
    where, arguments = _where(caller, wanted or RecordFilter())
    if order is not Order.CREATED_AT:
        return await _ranked(page, _RANKS[order], where, arguments, ascending=ascending)
    keyset = (oldest_first if ascending else newest_first)(page, column="f.id", offset=len(arguments))
    with bounded():
        rows = await database.fetch(f"SELECT {_COLUMNS} {_FROM_EACH} {where} {keyset.where} {keyset.order}", *arguments, *keyset.arguments)
    return cut([_view(row) for row in rows], page)


async def _ranked(page: Page, rank: str, where: str, arguments: list[Any], *, ascending: bool) -> PageOf[RecordView]:
    clauses = ""
    for bound, past in ((page.after, ">" if ascending else "<"), (page.before, "<" if ascending else ">")):
        if bound is not None:
            arguments.append(bound)
            clauses += f" AND ({rank}, f.id) {past} (SELECT {rank}, f.id {_FROM_EACH} WHERE f.workspace_id = $1 AND f.id = ${len(arguments)})"
    way = "ASC" if ascending != page.backwards else "DESC"
    statement = f"""
        WITH ranked AS MATERIALIZED (
          SELECT f.workspace_id, f.id, {rank} AS rank {_FROM_ALL} {where}{clauses} ORDER BY 3 {way}, f.id {way} LIMIT {page.size + 1}
        )
        SELECT {_COLUMNS} {_FROM_EACH} JOIN ranked r ON r.workspace_id = f.workspace_id AND r.id = f.id ORDER BY r.rank {way}, f.id {way}
    """
    with bounded():
        rows = await database.fetch(statement, *arguments)
    return cut([_view(row) for row in rows], page)


async def after(caller: Caller, wanted: RecordFilter, last: UUID | None, most: int) -> list[RecordView]:
    """Return the next `most` records after the record `last`, oldest first, for reading all of them; raises as `page`."""
    where, arguments = _where(caller, wanted)
    keyset = following(last, most, column="f.id", offset=len(arguments))
    return [_view(row) for row in await database.fetch(f"SELECT {_COLUMNS} {_FROM_EACH} {where} {keyset.where} {keyset.order}", *arguments, *keyset.arguments)]


def seen(caller: Caller, wanted: RecordFilter, workspace_id: str, record_id: str) -> tuple[str, list[Any]]:
    """Return a condition in SQL, and its arguments, that holds for columns that name a record which the caller may see and which matches; raises as `page`."""
    where, arguments = _where(caller, wanted)
    return f"EXISTS (SELECT {_FROM_EACH} {where} AND f.workspace_id = {workspace_id} AND f.id = {record_id})", arguments


async def count(caller: Caller, wanted: RecordFilter | None = None) -> int:
    """Return how many records match; raises as `page`."""
    where, arguments = _where(caller, wanted or RecordFilter())
    with bounded():
        return int(await database.fetch_value(f"SELECT count(*) {_FROM_ALL} {where}", *arguments))


async def find_many(caller: Caller, ids: Sequence[UUID]) -> dict[UUID, RecordView]:
    """Return those records with these ids that the caller may see, whatever their status, by id."""
    where, arguments = _where(caller, RecordFilter(statuses=tuple(UsageRecordStatus)))
    rows = await database.fetch(f"SELECT {_COLUMNS} {_FROM_EACH} {where} AND f.id = ANY (${len(arguments) + 1})", *arguments, list(ids))
    return {row["id"]: _view(row) for row in rows}


async def find(caller: Caller, record_id: UUID) -> RecordView:
    """Return one record; raises NotFound for one that the caller may not see too."""
    found = await find_many(caller, [record_id])
    if record_id not in found:
        raise NotFound("usage record", path=("id",))
    return found[record_id]


async def of_workspace(workspace_id: UUID, record_id: UUID) -> RecordView:
    """Return a record of a workspace, for who has been let in already; raises NotFound."""
    row = await database.fetch_row(f"SELECT {_COLUMNS} {_FROM_EACH} WHERE f.workspace_id = $1 AND f.id = $2 AND {_FIRST}", workspace_id, record_id)
    if row is None:
        raise NotFound("usage record", path=("id",))
    return _view(row)


async def workspace_of(caller: Caller, record_id: UUID) -> UUID:
    """Return the workspace of a record: the caller's own, or any for an operator. Raises NotFound."""
    found: UUID | None = await database.fetch_value(
        """
        SELECT w.id FROM workspace w
         WHERE (w.id = $1 OR $3) AND EXISTS (SELECT FROM usage_event e WHERE e.workspace_id = w.id AND e.id = $2 AND e.record_id = $2) LIMIT 1
        """,
        caller.workspace(),
        record_id,
        caller.operator,
    )
    if found is None:
        raise NotFound("usage record", path=("id",))
    return found


async def person_of(caller: Caller) -> UUID | None:
    """Return the person behind a caller: itself, or who made the calling key; None for a key that no person made."""
    if caller.key_id is None:
        return caller.user_id
    person: UUID | None = await database.fetch_value("SELECT creator_id FROM api_key WHERE id = $1 AND creator_kind = 'user'", caller.key_id)
    return person


async def listed(caller: Caller, *, skip: int, limit: int, user_id: UUID | None = None) -> list[RecordView]:
    """Return records by offset, newest first, whatever their status: of the caller's workspace, of all workspaces, last written first, for an operator.

    With `user_id` only that person's. What others may see is as for `page`.
    """
    caller.require(Scope.USAGE_READ)
    if caller.operator:
        where, arguments = f"WHERE {_FIRST}", list[Any]()
    else:
        where, arguments = _where(caller, RecordFilter(statuses=tuple(UsageRecordStatus)))
    if user_id is not None:
        arguments.append(user_id)
        where += f" AND f.user_id = ${len(arguments)}"
    order = "f.created_at DESC, f.id DESC" if caller.operator else "f.id DESC"  # there is an index of ids for each workspace, one of writing for all
    page = f"ORDER BY {order} LIMIT ${len(arguments) + 1} OFFSET ${len(arguments) + 2}"
    rows = await database.fetch(f"SELECT {_COLUMNS} {_FROM_EACH} {where} {page}", *arguments, limit, skip)
    return [_view(row) for row in rows]


async def made_since(workspace_ids: Sequence[UUID], since: datetime) -> list[RecordView]:
    """Return records of these workspaces that were written at `since` or later, oldest first, for who has been let in already."""
    rows = await database.fetch(
        f"SELECT {_COLUMNS} {_FROM_EACH} WHERE f.workspace_id = ANY ($1) AND f.created_at >= $2 AND {_FIRST} ORDER BY f.created_at, f.id",
        list(workspace_ids),
        since,
    )
    return [_view(row) for row in rows]


def matches(caller: Caller, wanted: RecordFilter, record: RecordView) -> bool:
    """Tell whether a record of the caller's workspace may be seen by the caller and matches, as `page` would; windows count for nothing."""
    if Scope.USAGE_READ_ALL not in caller.scopes and (record.key_id != caller.key_id if caller.key_id is not None else record.user_id != caller.user_id):
        return False
    statuses = (UsageRecordStatus.ACTIVE,) if wanted.statuses is None else wanted.statuses
    return (
        record.status in statuses
        and (wanted.modes is None or record.mode in wanted.modes)
        and (wanted.request_id is None or record.request_id == wanted.request_id)
        and (wanted.needs_review is None or record.needs_review is wanted.needs_review)
        and (wanted.minimum_charge_microusd is None or record.charge_microusd >= wanted.minimum_charge_microusd)
        and all(_has(record, dimension, values) for dimension, values in wanted.usage.values().items())
        and (wanted.usage.end_user_ids is None or record.end_user_id in wanted.usage.end_user_ids)
        and all(tag.name in record.tags and (tag.values is None or record.tags[tag.name] in tag.values) for tag in wanted.usage.tags)
    )


def _has(record: RecordView, dimension: Dimension, values: Sequence[str | UUID]) -> bool:
    value = getattr(record, _ATTRIBUTES[dimension])
    return value in values or (dimension is Dimension.PRESET and isinstance(value, str) and value.split("@")[0] in values)


async def keys_used(found: Sequence[RecordView]) -> dict[UUID, str]:
    """Return how the keys of records are told without being usable, by the key's id: prefix and last characters of the newest secret."""
    rows = await database.fetch(
        """
        SELECT DISTINCT ON (key_id) key_id, prefix, suffix FROM api_key_secret WHERE workspace_id = ANY ($1) AND key_id = ANY ($2)
         ORDER BY key_id, created_at DESC
        """,
        list({record.workspace_id for record in found}),
        list({record.key_id for record in found if record.key_id is not None}),
    )
    return {row["key_id"]: f"{row['prefix']}…{row['suffix']}" for row in rows}


async def adjustments(caller: Caller, record_ids: Sequence[UUID]) -> dict[UUID, list[Adjustment]]:
    """Return what was changed afterwards of records that the caller may see, oldest first, by the record's id."""
    own, arguments = _own(caller, [caller.require(Scope.USAGE_READ), list(record_ids)])
    rows = await database.fetch(
        f"""
        SELECT a.id, a.record_id, a.kind, a.created_at, a.actor_kind, a.actor_id, a.actor_name, a.reason, a.units, a.charge_microusd
          FROM usage_event f JOIN usage_event a ON a.workspace_id = f.workspace_id AND a.record_id = f.id AND a.kind IN ('correction', 'void')
         WHERE f.workspace_id = $1 AND f.id = ANY ($2) AND {_FIRST} {own}
         ORDER BY a.created_at, a.id
        """,
        *arguments,
    )
    found: dict[UUID, list[Adjustment]] = {}
    for row in rows:
        found.setdefault(row["record_id"], []).append(
            Adjustment(
                id=row["id"],
                record_id=row["record_id"],
                kind=UsageEventKind(row["kind"]),
                created_at=row["created_at"],
                actor=Actor(ActorKind(row["actor_kind"] or ActorKind.SYSTEM), row["actor_id"], row["actor_name"] or "system"),
                reason=row["reason"] or "",
                units=row["units"],
                charge_microusd=row["charge_microusd"],
            )
        )
    return found


def _own(caller: Caller, arguments: list[Any]) -> tuple[str, list[Any]]:
    """Add the clause that shows members only their own; a member's keys are the member's."""
    if Scope.USAGE_READ_ALL in caller.scopes:
        return "", arguments
    if caller.key_id is not None:
        return f" AND f.key_id = ${len(arguments) + 1}", [*arguments, caller.key_id]
    return f" AND f.user_id = ${len(arguments) + 1}", [*arguments, caller.user_id]


def _where(caller: Caller, wanted: RecordFilter) -> tuple[str, list[Any]]:
    own, arguments = _own(caller, [caller.require(Scope.USAGE_READ)])
    ours = "$1::uuid IS NOT NULL" if wanted.usage.everywhere else "f.workspace_id = $1"
    if wanted.usage.everywhere:
        caller.require(Scope.OPERATOR)
    clauses = f"WHERE {ours} AND {_FIRST} {own}"
    users = wanted.usage.users
    if users is not None and Scope.USAGE_READ_ALL not in caller.scopes and set(users) != {caller.user_id}:
        raise MissingScope((Scope.USAGE_READ_ALL.name,))

    def add(clause: str, value: object) -> None:
        nonlocal clauses
        arguments.append(value)
        clauses += f" AND {clause.format(f'${len(arguments)}')}"

    statuses = (UsageRecordStatus.ACTIVE,) if wanted.statuses is None else wanted.statuses
    if statuses == (UsageRecordStatus.ACTIVE,):
        clauses += f" AND {_ACTIVE}"
    elif set(statuses) != set(UsageRecordStatus):
        add(f"{_STATUS} = ANY ({{0}}::text[])", [status.value for status in statuses])
    for dimension, values in wanted.usage.values().items():
        name = _NAMES[dimension]
        if dimension is Dimension.PRESET:
            add(f"({name} = ANY ({{0}}::text[]) OR split_part({name}, '@', 1) = ANY ({{0}}::text[]))", list(values))
        else:
            kind = "uuid[]" if dimension in (Dimension.APP, Dimension.API_KEY, Dimension.USER) else "text[]"
            add(f"{name} = ANY ({{0}}::{kind})", list(values))
    if wanted.usage.end_user_ids is not None:
        add("end_user_id_1(f.workspace_id, f.app_id, f.end_user) = ANY ({0}::uuid[])", list(wanted.usage.end_user_ids))
    for tag in wanted.usage.tags:
        add("f.tags ? {0}::text", tag.name)
        if tag.values is not None:
            name = f"${len(arguments)}::text"
            add(f"f.tags ->> {name} = ANY ({{0}}::text[])", list(tag.values))
    if wanted.window is not None:
        add("f.at >= {0}", wanted.window.start)
        add("f.at < {0}", wanted.window.end)
        add("f.id >= uuid_at({0})", wanted.window.start - SLACK)
        add("f.id < uuid_at({0})", wanted.window.end + SLACK)
    if wanted.modes is not None:
        add("f.mode = ANY ({0}::text[])", [mode.value for mode in wanted.modes])
    if wanted.request_id is not None:
        add("f.id = {0} AND f.kind = 'call'", _call_id(wanted.request_id))
    if wanted.needs_review is not None:
        add(f"{_ended('needs_review')} = {{0}}", wanted.needs_review)
    if wanted.minimum_charge_microusd is not None:
        add(f"{_summed('charge_microusd')} >= {{0}}", wanted.minimum_charge_microusd)
    return clauses, arguments


def _call_id(request_id: str) -> UUID | None:
    try:
        return UUID(request_id)
    except ValueError:
        return None


def _view(row: asyncpg.Record) -> RecordView:
    tokens = Tokens(
        row["input"],
        row["output"],
        row["cache_read"],
        row["cache_write_5m"],
        row["cache_write_1h"],
        row["reasoning"],
        TokenCountSource(row["token_source"]),
    )
    return RecordView(
        id=row["id"],
        workspace_id=row["workspace_id"],
        kind=UsageEventKind(row["kind"]),
        mode=ApiKeyMode(row["mode"]),
        at=row["at"],
        recorded_at=row["recorded_at"],
        key_id=row["key_id"],
        user_id=row["user_id"],
        client_token_id=row["client_token_id"],
        app_id=row["app_id"],
        end_user=row["end_user"],
        conversation=row["conversation"],
        language=row["language"],
        tags=msgspec.json.decode(row["tags"], type=dict[str, str] | None) or {} if row["tags"] else {},
        api_name=row["api_name"],
        endpoint=row["endpoint"],
        preset=row["preset"],
        requested_model=row["requested_model"],
        model=row["model"],
        provider=row["provider"],
        streamed=row["streamed"],
        outcome=UsageOutcome(row["outcome"]),
        http_status=row["http_status"],
        error_code=row["error_code"],
        units=row["units"],
        tokens=tokens if tokens.total else None,
        characters=row["characters"],
        lines=row["lines"],
        charge_microusd=row["charge_microusd"],
        list_microusd=row["list_microusd"],
        upstream_cost_picousd=int(row["upstream_cost_picousd"]),
        price_id=row["price_id"],
        latency_ms=row["latency_ms"],
        first_token_ms=row["first_token_ms"],
        needs_review=row["needs_review"],
        api_key_used=row["api_key_used"],
        status=UsageRecordStatus(row["status"]),
    )
