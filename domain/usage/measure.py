"""The measuring query: every number on usage comes from here, from one statement's snapshot, and is exact at any moment.

A stretch of time is read as cells for its whole quarters of an hour, the events that are queued and in no cell yet, and single events for
the edges that fall inside a quarter. What no cell holds (see `Question.level`) is read from single events throughout. A test compares all
of these with the plain sum of events, whatever the fold does meanwhile.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from domain.access.callers import Caller
from domain.errors import MissingScope, OutOfRange
from domain.usage import windows
from domain.usage.metrics import (
    COLUMNS,
    CREDIT_MICROUSD,
    MOST_SERIES,
    Detail,
    Dimension,
    Metric,
    Metrics,
    Question,
    Runs,
    UsageFilter,
    Values,
)
from domain.usage.sketches import added, quantiles
from domain.usage.windows import Granularity, Window, buckets
from models import database
from models.enums import Bucket, Scope

QUARTER = timedelta(minutes=15)
NIL = UUID(int=0)
"""What a cell says for no app or no key; for no model it says ''."""
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
HISTORY, WHOLE = -1, -2  # places of stretches beside the ones asked for: everything before them, and all of them in one
DAY = timedelta(days=1)

Stretch = tuple[datetime, datetime]
_Asked = tuple[int, datetime, datetime]


@dataclass(frozen=True, slots=True)
class Line:
    """What one combination of values used, in all and in each stretch; `other` is the folded rest, whose values are None."""

    values: Values
    other: bool
    whole_charge_microusd: int
    total: Metrics
    points: list[Metrics]

    @property
    def share(self) -> float | None:
        """Its part of what all lines, those left out too, were charged, 0 to 1; None when nothing was."""
        return self.total.charge_microusd / self.whole_charge_microusd if self.whole_charge_microusd else None


@dataclass(frozen=True, slots=True)
class Point:
    """Usage in one bucket."""

    bucket: windows.Bucket
    metrics: Metrics


@dataclass(frozen=True, slots=True)
class Group:
    """Usage that shares the same values."""

    values: Values
    other: bool
    metrics: Metrics
    share: float | None


@dataclass(frozen=True, slots=True)
class Series:
    """Usage of one value in buckets, oldest first, without gaps."""

    values: Values
    other: bool
    totals: Metrics
    points: list[Point]


async def totals(
    caller: Caller, window: Window, wanted: UsageFilter | None = None, details: frozenset[Detail] = frozenset()
) -> Metrics:
    """Return all usage of a window, zeros where there was none; for the window before ask with `window.previous`. Raises as `measure`."""
    lines = await measure(caller, [(window.start, window.end)], Question(filter=wanted or UsageFilter(), details=details))
    return lines[0].total


async def series(
    caller: Caller,
    window: Window,
    granularity: Granularity = Granularity.AUTO,
    wanted: UsageFilter | None = None,
    details: frozenset[Detail] = frozenset(),
) -> list[Point]:
    """Return the usage of a window in buckets, empty ones included; raises as `measure` and `windows.buckets`."""
    cut = buckets(window, granularity)
    lines = await measure(caller, _stretches(cut), Question(filter=wanted or UsageFilter(), details=details))
    return _points(cut, lines[0])


async def groups(caller: Caller, window: Window, question: Question) -> list[Group]:
    """Return the usage of a window by values, in the order asked for, the folded rest last; raises as `measure`."""
    if not question.by:
        raise OutOfRange("One to three dimensions.", minimum=1, maximum=3, too_large=False, path=("by",))
    lines = await measure(caller, [(window.start, window.end)], question)
    return [Group(line.values, line.other, line.total, line.share) for line in lines]


async def series_by(caller: Caller, window: Window, granularity: Granularity, question: Question) -> list[Series]:
    """Return one series for each of the largest values, 50 at most, or all; they have the same buckets. Raises as `measure` and `windows.buckets`."""
    if question.first is not None and question.first > MOST_SERIES:
        raise OutOfRange(f"At most {MOST_SERIES} series.", minimum=1, maximum=MOST_SERIES, too_large=True, path=("first",))
    cut = buckets(window, granularity)
    lines = await measure(caller, _stretches(cut), question)
    return [Series(line.values, line.other, line.total, _points(cut, line)) for line in lines]


async def freshness() -> datetime:
    """Return an instant before which everything recorded is in what is measured after this call.

    It is now, or the start of the oldest transaction under way: what that writes may bear an earlier instant than its commit.
    """
    fresh: datetime = await database.fetch_value(
        """
        SELECT least(statement_timestamp(), min(a.xact_start)) FROM pg_stat_activity a
         WHERE a.datname = current_database() AND a.usename = current_user AND a.pid <> pg_backend_pid()
        """
    )
    return fresh


async def measure(caller: Caller, stretches: Sequence[Stretch], question: Question) -> list[Line]:
    """Return what was used in stretches of time that do not overlap, oldest first, in one snapshot.

    Without dimensions there is exactly one line; with them one for each combination of values that has usage, in the order asked for.
    Raises MissingScope (USAGE_READ; USAGE_READ_ALL to see other people apart; OPERATOR to rank by what upstreams charged), InvalidInput
    and its kin for what cannot be asked.
    """
    workspace_id = caller.require(Scope.USAGE_READ)
    question.check()
    _check_sight(caller, question)
    statement = _Statement(workspace_id, stretches, question)
    rows = await database.fetch(statement.sql, *statement.arguments)
    return _lines(rows, len(stretches), question)


def _check_sight(caller: Caller, question: Question) -> None:
    if question.filter.everywhere:
        caller.require(Scope.OPERATOR)
    users = question.filter.users
    if Scope.USAGE_READ_ALL not in caller.scopes and (Dimension.USER in question.by or (users is not None and set(users) != {caller.user_id})):
        raise MissingScope((Scope.USAGE_READ_ALL.name,))
    if question.by and question.order_by in (Metric.UPSTREAM_COST, Metric.MARGIN):
        caller.require(Scope.OPERATOR)


# ── the statement ──

_NAMES: Mapping[Dimension, str] = {
    Dimension.MODEL: "model",
    Dimension.PROVIDER: "provider",
    Dimension.APP: "app_id",
    Dimension.API_KEY: "key_id",
    Dimension.USER: "user_id",
    Dimension.END_USER: "end_user",
    Dimension.CONVERSATION: "conversation",
    Dimension.WORKSPACE: "workspace_id",
    Dimension.PRESET: "preset",
    Dimension.API_NAME: "api_name",
    Dimension.ENDPOINT: "endpoint",
    Dimension.LANGUAGE: "language",
    Dimension.OUTCOME: "outcome",
    Dimension.HTTP_STATUS: "http_status",
}
_IDS = frozenset({Dimension.APP, Dimension.API_KEY, Dimension.USER, Dimension.WORKSPACE})
_RANKS: Mapping[Metric, str] = {
    Metric.REQUESTS: "sum(requests)",
    Metric.ERRORS: "sum(errors)",
    Metric.TOKENS: "sum(input_tokens + output_tokens + cache_read_tokens + cache_write_5m_tokens + cache_write_1h_tokens)",
    Metric.LIST_VALUE: "sum(list_microusd)",
    Metric.COST: "sum(charge_microusd)",
    Metric.UPSTREAM_COST: "sum(upstream_cost_picousd)",
    Metric.MARGIN: "sum(charge_microusd * 1000000 - upstream_cost_picousd)",
    Metric.CREDITS: "sum(list_microusd)",
    Metric.CHARACTERS: "sum(characters)",
    Metric.LINES: "sum(lines)",
    Metric.RUNS: "sum(requests + running + pending)",
    Metric.UNITS: "sum(units)",
}
_STANDS = ("succeeded", "cancelled", "running", "pending")
_DISTINCT: Mapping[Detail, tuple[int, str]] = {Detail.END_USERS: (0, "end_user"), Detail.CONVERSATIONS: (1, "conversation")}
"""Their number in `usage_person`, and their column of an event."""
_DURATIONS: Mapping[Detail, tuple[str, str]] = {Detail.LATENCY: ("latency", "latency_ms"), Detail.FIRST_TOKEN: ("first_token", "first_token_ms")}
"""Their sketch of a cell, and their column of an event."""
_OTHERS = {Detail.OTHER_BUCKETS: "other_buckets"}


@dataclass(slots=True)
class _Statement:
    """One question as SQL, values always as parameters."""

    workspace_id: UUID
    stretches: Sequence[Stretch]
    question: Question
    arguments: list[Any] = field(default_factory=list)
    sql: str = field(init=False)
    workspace: str = field(init=False)
    tag: str = field(init=False)
    first: str = field(init=False)
    given: dict[Dimension, str] = field(init=False)
    tags: list[tuple[str, str | None]] = field(init=False)
    end_user_ids: str = field(init=False)

    def __post_init__(self) -> None:
        question, level = self.question, self.question.level
        self.workspace = "" if question.filter.everywhere else self._parameter(self.workspace_id, "uuid")
        self.tag = self._parameter(question.tag, "text") if Dimension.TAG in question.by else ""
        self.first = self._parameter(_first(question), "bigint")
        self.given = {
            dimension: self._parameter(list(values), "uuid[]" if dimension in _IDS else "text[]")
            for dimension, values in question.filter.values().items()
        }
        self.tags = [
            (self._parameter(tag.name, "text"), None if tag.values is None else self._parameter(list(tag.values), "text[]"))
            for tag in question.filter.tags
        ]
        ids = question.filter.end_user_ids
        self.end_user_ids = "" if ids is None else self._parameter(list(ids), "uuid[]")
        asked = [(place, *stretch) for place, stretch in enumerate(self.stretches)]
        if question.wants(Detail.CREDITS) and self.stretches[0][0] > BEGINNING:
            asked.insert(0, (HISTORY, BEGINNING, self.stretches[0][0]))
        whole, edges = ([], asked) if level is None else _quarters(asked)
        runs = _runs(edges)
        picks = [self._cells(whole), self._queued(whole)] if whole else []
        picks += [self._single("usage_event e", run) for run in runs]
        if question.wants(Detail.RUNS):
            picks.append(self._open_calls([one for one in asked if one[0] >= 0]))
        apart = self._carried()
        picked = f"picked ({', '.join(('n', 'key', *COLUMNS, *_STANDS, *apart))}) AS (\n" + "\nUNION ALL\n".join(picks) + "\n)"
        parts = [picked, self._placed()]
        now = [one for one in asked if one[0] >= 0]
        for detail, (cells, events) in _DURATIONS.items():
            if detail in question.details:
                parts.append(self._durations(detail, cells, events, now))
        for detail, (kind, events) in _DISTINCT.items():
            if detail in question.details:
                parts.append(self._people(detail, kind, events, now))
        if Detail.OTHER_BUCKETS in question.details:
            parts.append(self._others())
        if Detail.CACHE_MISSES in question.details:
            parts.append(self._misses(now))
        self.sql = f"WITH {', '.join(parts)}\n{self._answer()}"

    def _of(self, alias: str) -> str:
        return f"{alias}.workspace_id = {self.workspace}" if self.workspace else "true"

    def _parameter(self, value: object, kind: str) -> str:
        self.arguments.append(value)
        return f"${len(self.arguments)}::{kind}"

    def _slots(self, at: str, asked: Sequence[_Asked]) -> tuple[str, str, str]:
        """Return the join, the condition and the place of a row by its time: a binary search among stretches in order.

        A join by range would compare every row with every stretch, and date_trunc in a zone costs more than all the rest.
        """
        places, starts, ends = (list(column) for column in zip(*asked, strict=True))
        inside = f"{at} >= {self._parameter(starts[0], 'timestamptz')} AND {at} < {self._parameter(ends[-1], 'timestamptz')}"
        if len(asked) == 1:
            return "", inside, str(places[0])
        join = f"CROSS JOIN LATERAL width_bucket({at}, {self._parameter(starts, 'timestamptz[]')}) AS slot"
        return join, f"{inside} AND {at} < ({self._parameter(ends, 'timestamptz[]')})[slot]", f"({self._parameter(places, 'int[]')})[slot]"

    def _column(self, dimension: Dimension, alias: str) -> str:
        if dimension is Dimension.TAG:
            return f"{alias}.tags ->> {self.tag}"
        if alias == "k" and dimension in (Dimension.OUTCOME, Dimension.HTTP_STATUS):
            return "NULL::text"
        column = f"{alias}.{'upstream' if alias == 'k' and dimension is Dimension.PROVIDER else _NAMES[dimension]}"
        if dimension is Dimension.MODEL:
            return f"nullif({column}, '')"
        if alias in ("c", "u") and dimension in (Dimension.APP, Dimension.API_KEY):
            return f"nullif({column}, '{NIL}')"
        return column

    def _key(self, alias: str) -> str:
        return f"ARRAY[{', '.join(f'({self._column(dimension, alias)})::text' for dimension in self.question.by)}]::text[]"

    def _matches(self, alias: str) -> str:
        clauses = []
        for dimension, values in self.given.items():
            column = self._column(dimension, alias)
            if dimension is Dimension.PRESET:
                clauses.append(f"({column} = ANY ({values}) OR split_part({column}, '@', 1) = ANY ({values}))")
            else:
                clauses.append(f"{column} = ANY ({values})")
        if self.end_user_ids:
            clauses.append(f"end_user_id_1({alias}.workspace_id, {alias}.app_id, {alias}.end_user) = ANY ({self.end_user_ids})")
        for name, given in self.tags:
            clauses.append(f"{alias}.tags ? {name}" if given is None else f"{alias}.tags ->> {name} = ANY ({given})")
        return "".join(f" AND {clause}" for clause in clauses)

    def _cells(self, whole: Sequence[_Asked]) -> str:
        join, inside, place = self._slots("c.at", whole)
        ended = ", ".join(f"sum(c.{outcome})" for outcome in _STANDS[:2])
        sums = ", ".join(f"sum(c.{column})" for column in COLUMNS)
        return f"""SELECT {place}, {self._key("c")}, {sums}, {ended}, 0, 0{self._apart(None)}
  FROM usage_cell c {join}
 WHERE {self._of("c")} AND c.level = {self.question.level} AND {inside}{self._matches("c")}
 GROUP BY 1, 2"""

    def _queued(self, whole: Sequence[_Asked]) -> str:
        return self._single(_QUEUED, whole, owner="q")

    def _single(self, source: str, asked: Sequence[_Asked], *, owner: str = "e") -> str:
        join, inside, place = self._slots("e.at", asked)
        columns = ", ".join(f"e.{column}" for column in COLUMNS)
        ended = ", ".join(f"CASE e.outcome WHEN '{outcome}' THEN e.requests ELSE 0 END" for outcome in _STANDS[:2])
        return f"""SELECT {place}, {self._key("e")}, {columns}, {ended}, 0, 0{self._apart("e")}
  FROM {source} {join}
 WHERE {self._of(owner)} AND {inside} AND e.mode = 'live'{self._matches("e")}"""

    def _open_calls(self, asked: Sequence[_Asked]) -> str:
        join, inside, place = self._slots("k.created_at", asked)
        zeros = ", ".join("0" for _ in (*COLUMNS, *_STANDS[:2]))
        return f"""SELECT {place}, {self._key("k")}, {zeros}, (h.progress IS NOT NULL)::int, (h.progress IS NULL)::int{self._apart(None)}
  FROM hold h JOIN "call" k ON k.workspace_id = h.workspace_id AND k.id = h.call_id {join}
 WHERE {self._of("h")} AND h.state = 'open' AND {inside} AND k.mode = 'live'{self._matches("k")}"""

    def _apart(self, alias: str | None) -> str:
        """What cannot be added up as it is, carried only when it is asked for."""
        return "".join(f", {f'{alias}.{name}' if alias else 'NULL::jsonb'} AS {name}" for name in self._carried())

    def _carried(self) -> list[str]:
        return [name for detail, name in _OTHERS.items() if detail in self.question.details]

    def _from_events(self, source: str, asked: Sequence[_Asked], columns: str, condition: str, *, owner: str = "e") -> str:
        join, inside, place = self._slots("e.at", asked)
        return f"""SELECT {place} AS n, {self._key("e")} AS key, {columns} FROM {source} {join}
 WHERE {self._of(owner)} AND {inside} AND e.mode = 'live' AND {condition}{self._matches("e")}"""

    def _durations(self, detail: Detail, cells: str, events: str, asked: Sequence[_Asked]) -> str:
        """Return a part of the statement: the sketch of a duration in each stretch of each line."""
        whole, edges = ([], asked) if self.question.level is None else _quarters(asked)
        columns, condition = f"sketch_bucket_1(e.{events}) AS bucket, 1::bigint AS quantity", f"e.{events} IS NOT NULL"
        picks = [self._from_events("usage_event e", run, columns, condition) for run in _runs(edges)]
        if whole:
            join, inside, place = self._slots("c.at", whole)
            picks.append(self._from_events(_QUEUED, whole, columns, condition, owner="q"))
            picks.append(
                f"""SELECT {place}, {self._key("c")}, s.e >> 40, sum(s.e & 1099511627775)::bigint
  FROM usage_cell c {join} CROSS JOIN LATERAL unnest(c.{cells}) AS s (e)
 WHERE {self._of("c")} AND c.level = {self.question.level} AND {inside}{self._matches("c")} GROUP BY 1, 2, 3"""
            )
        return f"""{detail.value}_sketch AS (
  SELECT x.n, x.place, jsonb_object_agg(x.bucket, x.quantity) AS told FROM (
    SELECT d.n, least(q.place, {self.first} + 1) AS place, d.bucket, sum(d.quantity) AS quantity
      FROM ({_united(picks)}) d JOIN placed q ON q.key = d.key GROUP BY 1, 2, 3) x GROUP BY 1, 2)"""

    def _people(self, detail: Detail, kind: int, events: str, asked: Sequence[_Asked]) -> str:
        """Return a part of the statement: how many different people each stretch of each line has, and all stretches together."""
        sets = [asked] if len(asked) == 1 else [asked, [(WHOLE, asked[0][1], asked[-1][2])]]
        columns, condition = f"person_1(e.workspace_id, e.{events}) AS person", f"e.{events} IS NOT NULL"
        picks = []
        for one in sets:
            whole, edges = _split(one, DAY) if self.question.people_by_day else ([], one)
            picks += [self._from_events("usage_event e", run, columns, condition) for run in _runs(edges)]
            if whole:
                join, inside, place = self._slots("(u.used_on::timestamp AT TIME ZONE 'UTC')", whole)
                days = [self._parameter(day.date(), "date") for day in (whole[0][1], whole[-1][2])]
                picks.append(self._from_events(_QUEUED, whole, columns, condition, owner="q"))
                picks.append(
                    f"""SELECT {place}, {self._key("u")}, u.person FROM usage_person u {join}
 WHERE {self._of("u")} AND u.kind = {kind} AND u.used_on >= {days[0]} AND u.used_on < {days[1]} AND {inside}{self._matches("u")}"""
                )
        return f"""{detail.value}_count AS (
  SELECT x.n, x.place, count(*) AS told FROM (
    SELECT DISTINCT d.n, least(q.place, {self.first} + 1) AS place, d.person FROM ({_united(picks)}) d JOIN placed q ON q.key = d.key) x GROUP BY 1, 2)"""

    def _others(self) -> str:
        return f"""other_buckets_sum AS (
  SELECT x.n, x.place, jsonb_object_agg(x.bucket, x.quantity) AS told FROM (
    SELECT p.n, least(q.place, {self.first} + 1) AS place, o.key AS bucket, sum(o.value::bigint) AS quantity
      FROM picked p JOIN placed q ON q.key = p.key CROSS JOIN LATERAL jsonb_each_text(p.other_buckets) o GROUP BY 1, 2, 3) x GROUP BY 1, 2)"""

    def _misses(self, asked: Sequence[_Asked]) -> str:
        """Return a part of the statement: what misses of the prompt cache cost in each stretch of each line; few calls have any."""
        source = "cache_miss m JOIN usage_event e ON e.workspace_id = m.workspace_id AND e.id = m.call_id"
        bounds = [self._parameter(instant, "timestamptz") for instant in (asked[0][1], asked[-1][2])]
        near = f"m.at >= {bounds[0]} AND m.at < {bounds[1]}"
        return f"""{_MISSES} AS (
  SELECT d.n, least(q.place, {self.first} + 1) AS place, sum(d.cost) AS told
    FROM ({self._from_events(source, asked, "m.cost_microusd AS cost", near, owner="m")}) d JOIN placed q ON q.key = d.key GROUP BY 1, 2)"""

    def _placed(self) -> str:
        direction = "ASC" if self.question.ascending else "DESC"
        if not self.question.by:
            return "placed AS (SELECT ARRAY[]::text[] AS key, 1::bigint AS place, 0 AS whole)"
        return (
            f"placed AS (SELECT key, row_number() OVER (ORDER BY {_RANKS[self.question.order_by]} {direction}, key) AS place, "
            "sum(sum(charge_microusd)) OVER () AS whole FROM picked WHERE n >= 0 GROUP BY key)"
        )

    def _answer(self) -> str:
        sums = ", ".join(f"sum(p.{column}) AS {column}" for column in (*COLUMNS, *_STANDS))
        beside = "(SELECT t.told FROM {0} t WHERE t.n = {1} AND t.place = g.place)"
        tables = [f"{detail.value}_sketch" for detail in _DURATIONS if detail in self.question.details]
        tables += [f"{name}_sum" for name in self._carried()]
        tables += [_MISSES] if Detail.CACHE_MISSES in self.question.details else []
        apart = "".join(f", {beside.format(table, 'g.n')} AS {table}" for table in tables)
        for detail in _DISTINCT:
            if detail in self.question.details:
                table = f"{detail.value}_count"
                apart += f", {beside.format(table, 'g.n')} AS {table}"
                apart += f", {beside.format(table, WHOLE if len(self.stretches) > 1 else 0)} AS {table}_whole"
        kept = "" if self.question.include_other else f" WHERE q.place <= {self.first}"
        return f"""SELECT g.*{apart} FROM (
  SELECT p.n, CASE WHEN q.place <= {self.first} THEN q.key END AS key, least(q.place, {self.first} + 1) AS place, max(q.whole) AS whole, {sums}
    FROM picked p JOIN placed q ON q.key = p.key{kept}
   GROUP BY 1, 2, 3) g ORDER BY 3, 1"""


_MISSES = "cache_miss_sum"
_QUEUED = "usage_pending q JOIN usage_event e ON e.workspace_id = q.workspace_id AND e.id = q.event_id"


def _united(picks: Sequence[str]) -> str:
    return "\nUNION ALL\n".join(picks)


def _first(question: Question) -> int:
    return sys.maxsize - 1 if question.first is None else question.first


def _quarters(asked: Sequence[_Asked]) -> tuple[list[_Asked], list[_Asked]]:
    return _split(asked, QUARTER)


def _split(asked: Sequence[_Asked], width: timedelta) -> tuple[list[_Asked], list[_Asked]]:
    """Split stretches into whole quarters of an hour, or days of UTC, and the edges beside them, both in order."""
    whole, edges = [], []
    for place, start, end in asked:
        first, last = start + (BEGINNING - start) % width, end - (end - BEGINNING) % width
        if first >= last:
            edges.append((place, start, end))
            continue
        whole.append((place, first, last))
        edges.extend((place, since, until) for since, until in ((start, first), (last, end)) if since < until)
    return whole, edges


def _runs(asked: Sequence[_Asked]) -> list[list[_Asked]]:
    """Group stretches in order that follow each other without a gap: each run is one look into the events' index by time."""
    runs: list[list[_Asked]] = []
    for one in asked:
        if runs and runs[-1][-1][2] == one[1]:
            runs[-1].append(one)
        else:
            runs.append([one])
    return runs


# ── the answer ──


def _lines(rows: Sequence[asyncpg.Record], count: int, question: Question) -> list[Line]:
    by_place: dict[int, dict[int, asyncpg.Record]] = {}
    for row in rows:
        by_place.setdefault(row["place"], {})[row["n"]] = row
    if not question.by:
        by_place.setdefault(1, {})
    lines = []
    for place, found in sorted(by_place.items()):
        other = place > _first(question)
        listed = int(found[HISTORY]["list_microusd"]) if HISTORY in found else 0
        origin, points = listed, []
        for n in range(count):
            before, listed = listed, listed + (int(found[n]["list_microusd"]) if n in found else 0)
            points.append(_metrics([found[n]] if n in found else [], question, before, listed))
        shown = [found[n] for n in range(count) if n in found]
        total = points[0] if count == 1 else _metrics(shown, question, origin, listed)
        key = None if other or not found else next(iter(found.values()))["key"]
        values = tuple(_value(dimension, None if key is None else key[index]) for index, dimension in enumerate(question.by))
        whole = int(next(iter(found.values()))["whole"]) if found else 0
        lines.append(Line(Values(question.by, values), other, whole if question.by else total.charge_microusd, total, points))
    return lines


def _metrics(rows: Sequence[asyncpg.Record], question: Question, before: int, after: int) -> Metrics:
    """Return what some stretches of one line add up to: one of them, or all that have anything."""
    sums = {column: sum(int(row[column]) for row in rows) for column in (*COLUMNS, *_STANDS)}
    succeeded, cancelled, running, pending = (sums.pop(name) for name in _STANDS)
    runs = Runs(succeeded, sums["requests"] - succeeded - cancelled, cancelled, running, pending)
    asked = question.details
    return Metrics(
        **sums,
        credits=after // CREDIT_MICROUSD - before // CREDIT_MICROUSD if Detail.CREDITS in asked else None,
        other_buckets=_other_buckets(rows) if Detail.OTHER_BUCKETS in asked else None,
        runs=runs if Detail.RUNS in asked else None,
        end_users=_people(rows, Detail.END_USERS) if Detail.END_USERS in asked else None,
        conversations=_people(rows, Detail.CONVERSATIONS) if Detail.CONVERSATIONS in asked else None,
        latency=quantiles(_told(rows, "latency_sketch")) if Detail.LATENCY in asked else None,
        first_token=quantiles(_told(rows, "first_token_sketch")) if Detail.FIRST_TOKEN in asked else None,
        cache_miss_microusd=sum(int(row[_MISSES] or 0) for row in rows) if Detail.CACHE_MISSES in asked else None,
    )


def _people(rows: Sequence[asyncpg.Record], detail: Detail) -> int:
    """People of one stretch, or of all of them, who may have come in several."""
    return int(rows[0][f"{detail.value}_count{'_whole' if len(rows) > 1 else ''}"] or 0) if rows else 0


def _told(rows: Sequence[asyncpg.Record], column: str) -> dict[int, int]:
    return added(msgspec.json.decode(row[column], type=dict[int, int]) for row in rows if row[column] is not None)


def _other_buckets(rows: Sequence[asyncpg.Record]) -> dict[Bucket, int]:
    total: dict[str, int] = {}
    for row in rows:
        for name, quantity in msgspec.json.decode(row["other_buckets_sum"] or "{}", type=dict[str, int]).items():
            total[name] = total.get(name, 0) + quantity
    return {Bucket(name): quantity for name, quantity in sorted(total.items()) if quantity}


def _value(dimension: Dimension, text: str | None) -> str | UUID | int | None:
    if text is None:
        return None
    if dimension in _IDS:
        return UUID(text)
    return int(text) if dimension is Dimension.HTTP_STATUS else text


def _stretches(cut: Sequence[windows.Bucket]) -> list[Stretch]:
    return [(bucket.start, bucket.end) for bucket in cut]


def _points(cut: Sequence[windows.Bucket], line: Line) -> list[Point]:
    return [Point(bucket, metrics) for bucket, metrics in zip(cut, line.points, strict=True)]
