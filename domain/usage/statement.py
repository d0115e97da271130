"""One question on usage as one SQL statement: spans and cells for what is whole, single events for what is not, all in one snapshot.

A stretch of time is cut into whole days of UTC, whole hours, quarters of an hour and the edges inside a quarter. Days and hours that are
closed are read as spans, those that are not as their cells, edges as events, and everywhere the events that are in no cell yet. Until when a
workspace is closed is looked up before: it only ever moves on, cells stay when they are summed up, and what is folded goes into both. So whatever
the fold and the closing do meanwhile, nothing is counted twice.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from domain.usage.metrics import COLUMNS, COLUMNS_OF, NOTHING_BUT, Detail, Dimension, Metric, Question

QUARTER, HOUR, DAY = timedelta(minutes=15), timedelta(hours=1), timedelta(days=1)
NIL = UUID(int=0)
"""What a cell says for no app or no key; for no model it says ''."""
BEGINNING, END = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)
HISTORY, WHOLE = -1, -2  # places of stretches beside the ones asked for: everything before them, and all of them in one

Stretch = tuple[datetime, datetime]
Asked = tuple[int, datetime, datetime]
"""A stretch with its place in the answer."""


@dataclass(frozen=True, slots=True)
class Closed:
    """Until when the cells of a workspace are summed up in spans: of days until a midnight of UTC, of hours until an hour."""

    days_until: datetime = BEGINNING
    hours_until: datetime = BEGINNING


@dataclass(frozen=True, slots=True)
class Parts:
    """Stretches cut by what answers for them, each list in order of time: spans of days and of hours, cells, single events."""

    days: list[Asked]
    hours: list[Asked]
    cells: list[Asked]
    edges: list[Asked]

    @classmethod
    def of(cls, asked: Sequence[Asked], closed: Closed) -> "Parts":
        """Cut stretches: the widest that fits in the middle, narrower ones towards both ends and where less is closed."""
        stored, edges = split(asked, QUARTER)
        days, rest = split(stored, DAY, until=closed.days_until)
        hours, cells = split(rest, HOUR, until=closed.hours_until)
        return cls(days, hours, cells, edges)

    @property
    def stored(self) -> list[Asked]:
        """What spans and cells answer, in order of time."""
        return sorted((*self.days, *self.hours, *self.cells), key=lambda one: one[1])


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
IDS = frozenset({Dimension.APP, Dimension.API_KEY, Dimension.USER, Dimension.WORKSPACE})
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
STANDS = ("succeeded", "cancelled", "running", "pending")
DISTINCT: Mapping[Detail, tuple[int, str]] = {Detail.END_USERS: (0, "end_user"), Detail.CONVERSATIONS: (1, "conversation")}
"""Their number in `usage_person`, and their column of an event."""
DURATIONS: Mapping[Detail, tuple[str, str]] = {Detail.LATENCY: ("latency", "latency_ms"), Detail.FIRST_TOKEN: ("first_token", "first_token_ms")}
"""Their sketch of a cell, and their column of an event."""
_OTHERS = {Detail.OTHER_BUCKETS: "other_buckets"}


@dataclass(slots=True)
class Statement:
    """One question as SQL, values always as parameters. `closed` is the workspace's own; None where all workspaces are asked about."""

    workspace_id: UUID
    stretches: Sequence[Stretch]
    question: Question
    closed: Closed | None
    arguments: list[Any] = field(default_factory=list)
    sql: str = field(init=False)
    workspace: str = field(init=False)
    tag: str = field(init=False)
    first: str = field(init=False)
    given: dict[Dimension, str] = field(init=False)
    tags: list[tuple[str, str | None]] = field(init=False)
    end_user_ids: str = field(init=False)
    columns: tuple[str, ...] = field(init=False)
    stands: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        question, level = self.question, self.question.level
        needed = question.columns.union(*(COLUMNS_OF[metric] for metric in self._needed()))
        self.columns = tuple(column for column in COLUMNS if column in needed)
        self.stands = STANDS if question.wants(Detail.RUNS) else ()
        self.workspace = "" if question.filter.everywhere else self._parameter(self.workspace_id, "uuid")
        self.tag = self._parameter(question.tag, "text") if Dimension.TAG in question.by else ""
        self.first = self._parameter(first_of(question), "bigint")
        self.given = {
            dimension: self._parameter(list(values), "uuid[]" if dimension in IDS else "text[]")
            for dimension, values in question.filter.values().items()
        }
        self.tags = [
            (self._parameter(tag.name, "text"), None if tag.values is None else self._parameter(list(tag.values), "text[]"))
            for tag in question.filter.tags
        ]
        ids = question.filter.end_user_ids
        self.end_user_ids = "" if ids is None else self._parameter(list(ids), "uuid[]")
        now = [(place, *stretch) for place, stretch in enumerate(self.stretches)]
        before = [(HISTORY, BEGINNING, now[0][1])] if question.wants(Detail.CREDITS) and now[0][1] > BEGINNING else []
        parts = self._parts(now if level is None else [*before, *now])
        picks = self._sums(parts)
        if parts.stored:
            picks.append(self._single(self._queue(parts.stored), parts.stored, owner="q"))
        picks += [self._single("usage_event e", run) for run in runs(parts.edges)]
        if level is None and before:
            picks.append(self._single("usage_event e", before, counted=("list_microusd",)))
        if level is not None and parts.edges:
            quarter, gone = "date_bin('15 minutes', e.at, 'epoch')", f"e.at < {self._gone('e')}"
            picks.append(self._single(self._queue(parts.edges), parts.edges, owner="q", at=quarter, condition=gone))
        if question.wants(Detail.RUNS):
            picks.append(self._open_calls(now))
        apart = self._carried()
        picked = f"picked ({', '.join(('n', 'key', *self.summed, *apart))}) AS (\n{_united(picks)}\n)"
        named = [picked, self._placed()]
        for detail, (cells, events) in DURATIONS.items():
            if detail in question.details:
                named.append(self._durations(detail, cells, events, now))
        for detail, (kind, events) in DISTINCT.items():
            if detail in question.details:
                named.append(self._people(detail, kind, events, now))
        if Detail.OTHER_BUCKETS in question.details:
            named.append(self._others())
        if Detail.CACHE_MISSES in question.details:
            named.append(self._misses(now))
        self.sql = f"WITH {', '.join(named)}\n{self._answer()}"

    @property
    def summed(self) -> tuple[str, ...]:
        """What is added up: in the answer's rows after stretch, key, place, and what all lines were charged."""
        return *self.columns, *self.stands

    def _needed(self) -> list[Metric]:
        """Return what must be added up whatever was selected: for the order and the shares of groups, and for details."""
        needed = [self.question.order_by, Metric.COST] if self.question.by else []
        return needed + [metric for metric, details in NOTHING_BUT.items() if not self.question.details.isdisjoint(details)]

    def _parts(self, asked: Sequence[Asked]) -> Parts:
        if self.question.level is None:
            return Parts([], [], [], list(asked))
        return Parts.of(asked, self.closed or Closed(END, END))

    def _of(self, alias: str) -> str:
        return f"{alias}.workspace_id = {self.workspace}" if self.workspace and alias != "q" else "true"

    def _queue(self, asked: Sequence[Asked]) -> str:
        """Return a source of events that are in no cell yet, of these stretches at least; alias `e`."""
        since, until = self._parameter(asked[0][1], "timestamptz"), self._parameter(asked[-1][2] + QUARTER, "timestamptz")
        return f"queued_1({self.workspace or 'NULL::uuid'}, {since}, {until}) e"

    def _parameter(self, value: object, kind: str) -> str:
        self.arguments.append(value)
        return f"${len(self.arguments)}::{kind}"

    def _slots(self, at: str, asked: Sequence[Asked]) -> tuple[str, str, str]:
        """Return the join, the condition and the place of a row by its time: a binary search among stretches in order.

        A join by range would compare every row with every stretch, and date_trunc in a zone costs more than all the rest.
        """
        places, starts, ends = (list(column) for column in zip(*asked, strict=True))
        inside = f"{at} >= {self._parameter(starts[0], 'timestamptz')} AND {at} < {self._parameter(ends[-1], 'timestamptz')}"
        if len(asked) == 1:
            return "", inside, str(places[0])
        join = f"CROSS JOIN LATERAL width_bucket({at}, {self._parameter(starts, 'timestamptz[]')}) AS slot"
        return join, f"{inside} AND {at} < ({self._parameter(ends, 'timestamptz[]')})[slot]", f"({self._parameter(places, 'int[]')})[slot]"

    @staticmethod
    def _name(dimension: Dimension, alias: str) -> str:
        """Return the column of a dimension; a cell or span of a language says it where those of a model say the model."""
        return _NAMES[Dimension.MODEL if alias == "c" and dimension is Dimension.LANGUAGE else dimension]

    def _column(self, dimension: Dimension, alias: str) -> str:
        if dimension is Dimension.TAG:
            return f"{alias}.tags ->> {self.tag}"
        if alias == "k" and dimension in (Dimension.OUTCOME, Dimension.HTTP_STATUS):
            return "NULL::text"
        column = f"{alias}.{'upstream' if alias == 'k' and dimension is Dimension.PROVIDER else self._name(dimension, alias)}"
        if dimension in (Dimension.MODEL, Dimension.LANGUAGE):
            return f"nullif({column}, '')"
        if alias in ("c", "u") and dimension in (Dimension.APP, Dimension.API_KEY):
            return f"nullif({column}, '{NIL}')"
        return column

    def _key(self, alias: str) -> str:
        return f"ARRAY[{', '.join(f'({self._column(dimension, alias)})::text' for dimension in self.question.by)}]::text[]"

    def _columns(self, alias: str) -> str:
        """Return what rows of one key have in common, for grouping them: columns as they are, which is quicker than by the key made of them."""
        return "".join(f", {self._column(one, alias) if one is Dimension.TAG else f'{alias}.{self._name(one, alias)}'}" for one in self.question.by)

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

    def _sums(self, parts: Parts) -> list[str]:
        told = [_sum(f"c.{column}") for column in (*self.columns, *self.stands[:2])]
        return self._stored(parts, _listed([*told, *self._under_way("0", "0"), *self._apart(None)]))

    def _stored(self, parts: Parts, columns: str, *, of: str = "", group: str = "") -> list[str]:
        """Return what spans and cells say; where all workspaces are asked about, each as far as it is closed itself."""
        picks: list[str] = []
        if self.question.level is None:
            return picks
        level = f"c.level = {self.question.level}"

        def scan(source: str, condition: str, asked: Sequence[Asked]) -> None:
            if asked:
                picks.append(self._scan(source, f"{level}{condition}", asked, columns, of, group))

        scan("usage_span c", " AND c.hours = 24", parts.days)
        scan("usage_span c", " AND c.hours = 1", parts.hours)
        scan("usage_cell c", "", parts.cells)
        if self.closed is None:
            scan("usage_span c", f" AND c.hours = 1 AND c.at >= {self._until('s.days_until')}", parts.days)
            scan("usage_cell c", f" AND c.at >= {self._until('greatest(s.days_until, s.hours_until)')}", parts.days)
            scan("usage_cell c", f" AND c.at >= {self._until('s.hours_until')}", parts.hours)
        # of time whose calls are gone, a quarter counts where it begins
        scan("usage_cell c", f" AND c.at < {self._gone('c')}", parts.edges)
        return picks

    @staticmethod
    def _until(instant: str) -> str:
        """Return until when the cells of a cell's own workspace are summed up in spans, at the earliest 1970."""
        return f"coalesce((SELECT {instant} FROM usage_closing s WHERE s.workspace_id = c.workspace_id), 'epoch')"

    def _gone(self, alias: str) -> str:
        """Return until when single calls are gone: from then on they are read, before it their cells are."""
        return f"coalesce((SELECT max(r.before) FROM usage_retired r WHERE r.workspace_id = {self.workspace or f'{alias}.workspace_id'}), 'epoch')"

    def _scan(self, source: str, condition: str, asked: Sequence[Asked], columns: str, of: str, group: str) -> str:
        """Return a pick of cells or spans with their place and key first: one look into the index for each run of stretches without a gap."""
        between = runs(asked)
        groups = self._columns("c") + group
        if len(between) == 1:
            join, inside, place = self._slots("c.at", asked)
            return f"""SELECT {place} AS n, {self._key("c")} AS key{columns} FROM {source} {join}{of}
 WHERE {self._of("c")} AND {condition} AND {inside}{self._matches("c")} GROUP BY 1{groups}"""
        places, starts = [place for place, _, _ in asked], [start for _, start, _ in asked]
        since, until = [run[0][1] for run in between], [run[-1][2] for run in between]
        place = f"({self._parameter(places, 'int[]')})[width_bucket(c.at, {self._parameter(starts, 'timestamptz[]')})]"
        return f"""SELECT x.* FROM unnest({self._parameter(since, "timestamptz[]")}, {self._parameter(until, "timestamptz[]")}) AS r (since, until)
 CROSS JOIN LATERAL (SELECT {place} AS n, {self._key("c")} AS key{columns} FROM {source}{of}
 WHERE {self._of("c")} AND {condition} AND c.at >= r.since AND c.at < r.until{self._matches("c")} GROUP BY 1{groups}) x"""

    def _single(
        self, source: str, asked: Sequence[Asked], *, owner: str = "e", at: str = "e.at", condition: str = "", counted: Sequence[str] | None = None
    ) -> str:
        join, inside, place = self._slots(at, asked)
        there = condition or ("true" if owner == "q" else f"e.at >= {self._gone('e')}")
        summed = not self._carried()  # before they are passed on: millions of calls may come down to a few rows
        columns = {column: f"e.{column}" for column in self.columns}
        columns |= {name: f"CASE e.outcome WHEN '{name}' THEN e.requests ELSE 0 END" for name in self.stands[:2]}
        told = ["0" if counted is not None and name not in counted else _sum(column) if summed else column for name, column in columns.items()]
        return f"""SELECT {place} AS n, {self._key("e")} AS key{_listed([*told, *self._under_way("0", "0"), *self._apart("e")])}
  FROM {source} {join}
 WHERE {self._of(owner)} AND {inside} AND {there} AND e.mode = 'live'{self._matches("e")}{f" GROUP BY 1{self._columns('e')}" if summed else ""}"""

    def _open_calls(self, asked: Sequence[Asked]) -> str:
        join, inside, place = self._slots("k.created_at", asked)
        zeros = ["0" for _ in (*self.columns, *self.stands[:2])]
        stand = self._under_way("(h.progress IS NOT NULL)::int", "(h.progress IS NULL)::int")
        return f"""SELECT {place}, {self._key("k")}{_listed([*zeros, *stand, *self._apart(None)])}
  FROM hold h JOIN "call" k ON k.workspace_id = h.workspace_id AND k.id = h.call_id {join}
 WHERE {self._of("h")} AND h.state = 'open' AND {inside} AND k.mode = 'live'{self._matches("k")}"""

    def _under_way(self, running: str, pending: str) -> list[str]:
        return [running, pending] if self.stands else []

    def _apart(self, alias: str | None) -> list[str]:
        """What cannot be added up as it is, carried only when it is asked for."""
        return [f"{f'{alias}.{name}' if alias else 'NULL::jsonb'} AS {name}" for name in self._carried()]

    def _carried(self) -> list[str]:
        return [name for detail, name in _OTHERS.items() if detail in self.question.details]

    def _from_events(self, source: str, asked: Sequence[Asked], columns: str, condition: str, *, owner: str = "e") -> str:
        join, inside, place = self._slots("e.at", asked)
        there = f"e.at >= {self._gone('e')}" if owner == "e" else "true"
        return f"""SELECT {place} AS n, {self._key("e")} AS key{_listed([columns])} FROM {source} {join}
 WHERE {self._of(owner)} AND {inside} AND {there} AND e.mode = 'live' AND {condition}{self._matches("e")}"""

    def _durations(self, detail: Detail, cells: str, events: str, asked: list[Asked]) -> str:
        """Return a part of the statement: the sketch of a duration in each stretch of each line."""
        parts = self._parts(asked)
        columns, condition = f"sketch_bucket_1(e.{events}) AS bucket, 1::bigint AS quantity", f"e.{events} IS NOT NULL"
        picks = [self._from_events("usage_event e", run, columns, condition) for run in runs(parts.edges)]
        if self.question.level is not None:
            if parts.stored:
                picks.append(self._from_events(self._queue(parts.stored), parts.stored, columns, condition, owner="q"))
            told = "s.e >> 40 AS bucket, sum(s.e & 1099511627775)::bigint AS quantity"
            picks += self._stored(parts, _listed([told]), of=f" CROSS JOIN LATERAL unnest(c.{cells}) AS s (e)", group=", 3")
        return f"""{detail.value}_sketch AS MATERIALIZED (
  SELECT x.n, x.place, jsonb_object_agg(x.bucket, x.quantity) AS told FROM (
    SELECT d.n, least(q.place, {self.first} + 1) AS place, d.bucket, sum(d.quantity) AS quantity
      FROM ({_united(picks)}) d JOIN placed q ON q.key = d.key GROUP BY 1, 2, 3) x GROUP BY 1, 2)"""

    def _people(self, detail: Detail, kind: int, events: str, asked: Sequence[Asked]) -> str:
        """Return parts of the statement: how many different people each stretch of each line has, and all stretches together.

        Sets of whole days are united as bitmaps; who comes from single events is counted when its number is in none of them, and where a stretch has no
        set at all, without looking for a number.
        """
        wanted = [asked] if len(asked) == 1 else [asked, [(WHOLE, asked[0][1], asked[-1][2])]]
        columns, condition = f"e.workspace_id, person_1(e.workspace_id, e.{events}) AS person", f"e.{events} IS NOT NULL"
        singles, sets = [], []
        for one in wanted:
            whole, edges = split(one, DAY) if self.question.people_by_day else ([], list(one))
            singles += [self._from_events("usage_event e", run, columns, condition) for run in runs(edges)]
            if whole:
                singles.append(self._from_events(self._queue(whole), whole, columns, condition, owner="q"))
                sets.append(self._set(kind, whole, "true"))
            if edges and self.question.people_by_day:  # of time whose calls are gone, a day's people count where it begins
                sets.append(self._set(kind, edges, f"(u.used_on::timestamp AT TIME ZONE 'UTC') < {self._gone('u')}"))
        name, folded = detail.value, f"least(q.place, {self.first} + 1) AS place"
        if not sets:
            return f"""{name}_count AS MATERIALIZED (
  SELECT x.n, x.place, count(*) AS told FROM (
    SELECT DISTINCT d.n, {folded}, d.person FROM ({_united(singles)}) d JOIN placed q ON q.key = d.key) x GROUP BY 1, 2)"""
        return f"""{name}_set AS MATERIALIZED (
  SELECT d.n, {folded}, d.workspace_id, d.part, bit_or(d.people) AS people FROM ({_united(sets)}) d JOIN placed q ON q.key = d.key GROUP BY 1, 2, 3, 4),
{name}_some AS MATERIALIZED (SELECT DISTINCT t.n, t.place, t.workspace_id FROM {name}_set t),
{name}_single AS MATERIALIZED (
  SELECT DISTINCT d.n, {folded}, d.workspace_id, d.person FROM ({_united(singles)}) d JOIN placed q ON q.key = d.key),
{name}_count AS MATERIALIZED (
  SELECT x.n, x.place, sum(x.told)::bigint AS told FROM (
    SELECT t.n, t.place, bit_count(t.people) AS told FROM {name}_set t
    UNION ALL
    SELECT i.n, i.place, count(*) FROM {name}_single i LEFT JOIN {name}_some o ON o.n = i.n AND o.place = i.place AND o.workspace_id = i.workspace_id
     WHERE o.n IS NULL GROUP BY 1, 2
    UNION ALL
    SELECT i.n, i.place, 1 FROM {name}_single i JOIN {name}_some o ON o.n = i.n AND o.place = i.place AND o.workspace_id = i.workspace_id
      LEFT JOIN usage_name m ON m.workspace_id = i.workspace_id AND m.kind = {kind} AND m.person = i.person
      LEFT JOIN {name}_set t ON t.n = i.n AND t.place = i.place AND t.workspace_id = i.workspace_id AND t.part = m.number >> 15
     WHERE t.people IS NULL OR get_bit(t.people, m.number & 32767) = 0) x GROUP BY 1, 2)"""

    def _set(self, kind: int, asked: Sequence[Asked], condition: str) -> str:
        days = [self._parameter(day, "date") for day in (asked[0][1].date(), asked[-1][2].date())]
        join, inside, place = self._slots("(u.used_on::timestamp AT TIME ZONE 'UTC')", asked)
        return f"""SELECT {place} AS n, {self._key("u")} AS key, u.workspace_id, u.part, u.people FROM usage_people u {join}
 WHERE {self._of("u")} AND u.kind = {kind} AND u.used_on >= {days[0]} AND u.used_on <= {days[1]} AND {inside} AND {condition}{self._matches("u")}"""

    def _others(self) -> str:
        return f"""other_buckets_sum AS MATERIALIZED (
  SELECT x.n, x.place, jsonb_object_agg(x.bucket, x.quantity) AS told FROM (
    SELECT p.n, least(q.place, {self.first} + 1) AS place, o.key AS bucket, sum(o.value::bigint) AS quantity
      FROM picked p JOIN placed q ON q.key = p.key CROSS JOIN LATERAL jsonb_each_text(p.other_buckets) o GROUP BY 1, 2, 3) x GROUP BY 1, 2)"""

    def _misses(self, asked: Sequence[Asked]) -> str:
        """Return a part of the statement: what misses of the prompt cache cost in each stretch of each line; few calls have any."""
        source = "cache_miss m JOIN usage_event e ON e.workspace_id = m.workspace_id AND e.id = m.call_id"
        bounds = [self._parameter(instant, "timestamptz") for instant in (asked[0][1], asked[-1][2])]
        near = f"m.at >= {bounds[0]} AND m.at < {bounds[1]}"
        return f"""{MISSES} AS MATERIALIZED (
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
        sums = _listed([f"{_sum(f'p.{column}')} AS {column}" for column in self.summed])
        tables = [(f"{detail.value}_sketch", "") for detail in DURATIONS if detail in self.question.details]
        tables += [(f"{name}_sum", "") for name in self._carried()]
        tables += [(MISSES, "")] if Detail.CACHE_MISSES in self.question.details else []
        for detail in DISTINCT:
            if detail in self.question.details:
                tables += [(f"{detail.value}_count", ""), (f"{detail.value}_count", "_whole")]
        apart = "".join(f", {table}{part}.told AS {table}{part}" for table, part in tables)
        whole = WHOLE if len(self.stretches) > 1 else 0
        joins = "".join(
            f"\n LEFT JOIN {table} AS {table}{part} ON {table}{part}.n = {whole if part else 'g.n'} AND {table}{part}.place = g.place" for table, part in tables
        )
        kept = "" if self.question.include_other else f" WHERE q.place <= {self.first}"
        return f"""SELECT g.*{apart} FROM (
  SELECT p.n, CASE WHEN q.place <= {self.first} THEN q.key END AS key, least(q.place, {self.first} + 1) AS place, max(q.whole) AS whole{sums}
    FROM picked p JOIN placed q ON q.key = p.key{kept}
   GROUP BY 1, 2, 3) g{joins} ORDER BY 3, 1"""


MISSES = "cache_miss_sum"


def _sum(column: str) -> str:
    """Return a sum as a whole number of 64 bits, which is quicker to add up and to read than any other; picodollars may be more than that holds."""
    return f"sum({column})" if column.endswith("picousd") else f"sum({column})::bigint"


def _listed(columns: Sequence[str]) -> str:
    return "".join(f", {column}" for column in columns)


def _united(picks: Sequence[str]) -> str:
    return "\nUNION ALL\n".join(picks)


def first_of(question: Question) -> int:
    return sys.maxsize - 1 if question.first is None else question.first


def split(asked: Sequence[Asked], width: timedelta, until: datetime | None = None) -> tuple[list[Asked], list[Asked]]:
    """Split stretches into what is whole in quarters of an hour, hours or days of UTC, and before `until`, and the edges beside it, both in order."""
    whole, edges = [], []
    for place, start, end in asked:
        first, last = start + (BEGINNING - start) % width, end - (end - BEGINNING) % width
        if until is not None:
            last = min(last, until)
        if first >= last:
            edges.append((place, start, end))
            continue
        whole.append((place, first, last))
        edges.extend((place, *beside) for beside in ((start, first), (last, end)) if beside[0] < beside[1])
    return whole, edges


def runs(asked: Sequence[Asked]) -> list[list[Asked]]:
    """Group stretches in order that follow each other without a gap: each run is one look into the events' index by time."""
    found: list[list[Asked]] = []
    for one in asked:
        if found and found[-1][-1][2] == one[1]:
            found[-1].append(one)
        else:
            found.append([one])
    return found
