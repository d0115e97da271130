"""Usage events written as a settlement writes them, and the plain sum of events that every report must equal."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from hypothesis import strategies as st

from domain.access.callers import Caller
from domain.usage.metrics import COLUMNS, Metrics
from models import database
from models.enums import Scope
from models.ids import uuid7

MODELS = ("atlas", "boreas", None)
KEYS = (UUID(int=11), UUID(int=12), None)
APPS = (UUID(int=21), None)
END_USERS = ("ann", "bob", None)
OUTCOMES = ("succeeded", "failed", "cancelled")


@dataclass(frozen=True)
class Event:
    """One event; what is not named is as a plain call has it."""

    at: datetime
    id: UUID = field(default_factory=uuid7)
    record_id: UUID | None = None
    kind: str = "call"
    mode: str = "live"
    key_id: UUID | None = None
    user_id: UUID | None = None
    app_id: UUID | None = None
    end_user: str | None = None
    conversation: str | None = None
    language: str | None = None
    tags: dict[str, str] | None = None
    endpoint: str = "/v1/messages"
    preset: str | None = None
    model: str | None = "atlas"
    provider: str | None = "echo"
    outcome: str = "succeeded"
    http_status: int | None = 200
    requests: int = 1
    errors: int = 0
    units: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    reasoning_tokens: int = 0
    other_buckets: dict[str, int] | None = None
    characters: int = 0
    lines: int = 0
    charge_microusd: int = 0
    list_microusd: int = 0
    upstream_cost_picousd: int = 0
    latency_ms: int | None = None
    first_token_ms: int | None = None
    token_source: str = "provider"
    needs_review: bool = False
    reason: str | None = None
    actor_kind: str | None = None
    actor_name: str | None = None
    client_token_id: UUID | None = None
    wallet_microusd: int = 0


def caller(workspace_id: UUID, *, at: datetime | None = None, without: Iterable[Scope] = (), **changes: Any) -> Caller:
    """A caller of the workspace with every scope but `without`."""
    return Caller(at=at or datetime.now(UTC), workspace_id=workspace_id, name="tester", scopes=frozenset(Scope) - frozenset(without), **changes)


async def write(workspace_id: UUID, events: Iterable[Event], *, queued: bool = True) -> None:
    """Write events and their places in the queue in one transaction, as a settlement does; test events are not queued."""
    async with database.transaction():
        for event in events:
            values = {one.name: getattr(event, one.name) for one in fields(event)}
            values |= {
                "workspace_id": workspace_id,
                "record_id": event.record_id or event.id,
                "created_at": datetime.now(UTC),
                "tags": None if event.tags is None else json.dumps(event.tags),
                "other_buckets": None if event.other_buckets is None else json.dumps(event.other_buckets),
                "api_name": "llm_query",
                "streamed": event.first_token_ms is not None,
                "charge_picousd": event.charge_microusd * 1_000_000,
                "list_picousd": event.list_microusd * 1_000_000,
                "requested_model": event.model,
            }
            places = ", ".join(f"${index}" for index in range(1, len(values) + 1))
            await database.fetch(f"INSERT INTO usage_event ({', '.join(values)}) VALUES ({places})", *values.values())
            if queued and event.mode == "live":
                await database.fetch("INSERT INTO usage_pending (workspace_id, event_id) VALUES ($1, $2)", workspace_id, event.id)


def added(events: Iterable[Event], where: Callable[[Event], bool] = lambda event: True) -> Metrics:
    """The plain sum of live events: what any report of them must say."""
    counted = [event for event in events if event.mode == "live" and where(event)]
    return Metrics(**{name: sum(getattr(event, name) for event in counted) for name in COLUMNS})


def backdated(at: datetime) -> UUID:
    """A record's id, minted from its own time."""
    return uuid7(int(at.timestamp() * 1000))


def events(start: datetime, end: datetime) -> st.SearchStrategy[Event]:
    """Events between two instants, often on a quarter of an hour or beside one; differences of late and voided ones are below zero."""
    count = st.integers(min_value=-3, max_value=1000)
    instants = st.datetimes(start.replace(tzinfo=None), end.replace(tzinfo=None), timezones=st.just(UTC)).flatmap(
        lambda at: st.sampled_from([at, at.replace(minute=at.minute // 15 * 15, second=0, microsecond=0)])
    )
    return st.builds(
        Event,
        at=instants.map(lambda at: max(at, start)),
        mode=st.sampled_from(["live", "live", "live", "test"]),
        key_id=st.sampled_from(KEYS),
        app_id=st.sampled_from(APPS),
        end_user=st.sampled_from(END_USERS),
        model=st.sampled_from(MODELS),
        language=st.sampled_from([None, "de", "fr"]),
        outcome=st.sampled_from(OUTCOMES),
        requests=st.integers(0, 1),
        **{name: count for name in COLUMNS if name != "requests"},
    )
