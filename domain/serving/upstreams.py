"""Upstreams as the operator sees them, and how the processes of an installation tell each other how upstreams are doing.

Every process writes what it knows every SHARE_SECONDS, and takes over the cool-downs that others decided: two processes agree within two rounds.
A row that has not been written for GONE_SECONDS is of a process that is gone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from domain.access.callers import Caller
from domain.money.catalogue import Book, PriceVersion
from domain.pages import Page, PageOf, cut, newest_first
from domain.serving import receipts
from domain.serving.health import Tally
from domain.serving.receipts import AttemptView, Receipt
from domain.serving.routing import Routes, Upstream
from models import database
from models.enums import Scope, UpstreamState, UsageOutcome

SHARE_SECONDS = 2.0
GONE_SECONDS = 15.0
MOST_SAMPLES = 200
"""Times to the first byte that a process tells of an upstream, the newest."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a try last failed."""

    code: str
    message: str
    retryable: bool


@dataclass(frozen=True, slots=True)
class ProviderLimit:
    """What a provider last said of one of its limits: `requests` or `tokens`."""

    resource: str
    most: int | None
    left: int
    resets_at: datetime


@dataclass(frozen=True, slots=True)
class UpstreamView:
    """An upstream and how it does, over all processes; addresses and keys are never told."""

    name: str
    dialect: str
    state: UpstreamState
    cools_down_until: datetime | None
    weight: int
    models: tuple[str, ...]
    calls_under_way: int
    tally: Tally
    last_failure: Failure | None
    last_failed_at: datetime | None
    limits: tuple[ProviderLimit, ...]


async def share(routes: Routes, process_id: UUID) -> None:
    """Write what this process knows, and take over the cool-downs of the others."""
    at = routes.clock()
    now = datetime.now(UTC)

    def instant(seconds: float) -> str:
        return (now + timedelta(seconds=seconds - at)).isoformat()

    told = []
    for name, health in routes.health.items():
        tally = health.tally(at)
        told.append(
            {
                "upstream": name,
                "calls_under_way": health.under_way,
                "cools_until": instant(health.cools_until) if health.cools_until > at else None,
                "tries": tally.tries,
                "failures": tally.failures,
                "first_byte_ms": tally.first_byte_ms[-MOST_SAMPLES:],
                "limits": [[limit.resource, limit.most, limit.left, instant(limit.resets_at)] for limit in health.limits.values() if limit.resets_at > at],
                "failed_at": instant(health.last.at) if health.last else None,
                "failure_code": health.last.code[:64] if health.last else None,
                "failure_message": health.last.message[:300] if health.last else None,
                "failure_retryable": health.last.retryable if health.last else None,
            }
        )
    if not told:
        return
    rows = await database.fetch(
        """
        WITH gone AS (
          DELETE FROM upstream_health WHERE seen_at < clock_timestamp() - make_interval(secs => $3)
        ), mine AS (
          INSERT INTO upstream_health (process_id, upstream, seen_at, calls_under_way, cools_until, tries, failures, first_byte_ms, limits, failed_at,
              failure_code, failure_message, failure_retryable)
          SELECT $1, t.upstream, clock_timestamp(), t.calls_under_way, t.cools_until, t.tries, t.failures, t.first_byte_ms, t.limits, t.failed_at,
              t.failure_code, t.failure_message, t.failure_retryable
            FROM jsonb_to_recordset($2::jsonb) AS t (upstream text, calls_under_way int, cools_until timestamptz, tries int, failures int, first_byte_ms int[],
              limits jsonb, failed_at timestamptz, failure_code text, failure_message text, failure_retryable boolean)
              ON CONFLICT (process_id, upstream) DO UPDATE SET seen_at = excluded.seen_at, calls_under_way = excluded.calls_under_way,
                 cools_until = excluded.cools_until, tries = excluded.tries, failures = excluded.failures, first_byte_ms = excluded.first_byte_ms,
                 limits = excluded.limits, failed_at = excluded.failed_at, failure_code = excluded.failure_code,
                 failure_message = excluded.failure_message, failure_retryable = excluded.failure_retryable
        )
        SELECT h.upstream, max(h.cools_until) AS cools_until FROM upstream_health h
         WHERE h.process_id <> $1 AND h.cools_until > clock_timestamp() AND h.seen_at > clock_timestamp() - make_interval(secs => $3) GROUP BY h.upstream
        """,
        process_id,
        msgspec.json.encode(told).decode(),
        GONE_SECONDS,
    )
    for row in rows:
        known = routes.health.get(row["upstream"])
        if known is not None:
            known.cool(at + (row["cools_until"] - now).total_seconds())


async def seen(caller: Caller, routes: Routes) -> list[UpstreamView]:
    """Return every configured upstream, in the order of the configuration, each name once. Needs OPERATOR."""
    caller.require(Scope.OPERATOR)
    rows = await database.fetch("SELECT * FROM upstream_health WHERE seen_at > clock_timestamp() - make_interval(secs => $1)", GONE_SECONDS)
    by_name: dict[str, list[asyncpg.Record]] = {}
    for row in rows:
        by_name.setdefault(row["upstream"], []).append(row)
    firsts = {upstream.name: upstream for upstream in reversed(routes.upstreams)}
    return [_view(upstream, by_name.get(name, []), routes) for name, upstream in reversed(firsts.items())]


def _view(upstream: Upstream, rows: Sequence[asyncpg.Record], routes: Routes) -> UpstreamView:
    now = datetime.now(UTC)
    cooling = max((row["cools_until"] for row in rows if row["cools_until"] is not None and row["cools_until"] > now), default=None)
    failed = max((row for row in rows if row["failed_at"] is not None), key=lambda row: row["failed_at"], default=None)
    tally = sum((Tally(row["tries"], row["failures"], tuple(row["first_byte_ms"])) for row in rows), Tally())
    state = UpstreamState.COOLING_DOWN if cooling else UpstreamState.HEALTHY
    return UpstreamView(
        name=upstream.name,
        dialect=upstream.dialect,
        state=state if upstream.enabled else UpstreamState.DISABLED,
        cools_down_until=cooling if upstream.enabled else None,
        weight=upstream.weight,
        models=tuple(model.name for model in routes.models if upstream.serves(model)),
        calls_under_way=sum(row["calls_under_way"] for row in rows),
        tally=tally,
        last_failure=Failure(failed["failure_code"], failed["failure_message"], failed["failure_retryable"]) if failed else None,
        last_failed_at=failed["failed_at"] if failed else None,
        limits=_limits(rows, now),
    )


def _limits(rows: Sequence[asyncpg.Record], now: datetime) -> tuple[ProviderLimit, ...]:
    """Return of each resource what the process that saw least of it left was told."""
    least: dict[str, ProviderLimit] = {}
    for row in rows:
        entries: list[tuple[Any, ...]] = msgspec.json.decode(row["limits"])
        for resource, most, left, resets_at in entries:
            limit = ProviderLimit(resource, most, left, datetime.fromisoformat(resets_at))
            if limit.resets_at > now and (resource not in least or left < least[resource].left):
                least[resource] = limit
    return tuple(least.values())


def prices(name: str, book: Book, at: datetime) -> list[PriceVersion]:
    """Return what an upstream charges for each model that has a price of its own there, newest version first."""
    found = [version for model in book.models() if (version := book.price(model.name, at, name)) is not None]
    return sorted(found, key=lambda version: (version.effective_from, version.id), reverse=True)


_OF_UPSTREAM = "FROM attempt a WHERE a.upstream = $1 AND ($2::text[] IS NULL OR a.outcome = ANY ($2))"


async def attempts(caller: Caller, name: str, page: Page, outcomes: tuple[UsageOutcome, ...] | None, book: Book) -> PageOf[tuple[Receipt, AttemptView]]:
    """Return a page of an upstream's tries, newest first, each with its call's receipt, over all workspaces. Needs OPERATOR."""
    caller.require(Scope.OPERATOR)
    keyset = newest_first(page, column="a.id", offset=2)
    wanted = None if outcomes is None else [outcome.value for outcome in outcomes]
    rows = await database.fetch(f"SELECT a.id, a.workspace_id, a.call_id {_OF_UPSTREAM} {keyset.where} {keyset.order}", name, wanted, *keyset.arguments)
    found = cut(list(rows), page)
    items = []
    for row in found.items:
        within = replace(caller, workspace_id=row["workspace_id"], scopes=caller.scopes | {Scope.USAGE_READ, Scope.USAGE_READ_ALL})
        receipt = await receipts.find(within, row["call_id"], book)
        items.append((receipt, next(attempt for attempt in receipt.attempts if attempt.id == row["id"])))
    return PageOf(items=items, has_next=found.has_next, has_previous=found.has_previous)


async def attempt_count(caller: Caller, name: str, outcomes: tuple[UsageOutcome, ...] | None) -> int:
    """Return how many tries an upstream has had. Needs OPERATOR."""
    caller.require(Scope.OPERATOR)
    wanted = None if outcomes is None else [outcome.value for outcome in outcomes]
    counted: int = await database.fetch_value(f"SELECT count(*) {_OF_UPSTREAM}", name, wanted)
    return counted
