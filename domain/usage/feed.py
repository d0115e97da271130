"""The request log as it is written: one look at the database for all subscribers of a process, and a queue for each of them."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import structlog

from domain.access.callers import Caller
from domain.errors import Unavailable
from domain.usage import measure, records
from domain.usage.records import RecordFilter, RecordView
from models.database import CONTENDED, UNREACHABLE
from models.enums import Scope

LOOK_SECONDS = 0.5
MOST_WAITING = 1_000
"""A subscriber that has not taken so many records is told that it fell behind, and loses its place."""

log = structlog.get_logger()


@dataclass(eq=False)
class _Subscriber:
    caller: Caller
    workspace_id: UUID
    wanted: RecordFilter
    waiting: asyncio.Queue[RecordView | None] = field(default_factory=lambda: asyncio.Queue(MOST_WAITING + 1))


class Feed:
    """Hands new records to whoever follows them, in the order of their writing; each once, and only to those who may see it.

    A look begins at an instant before which every transaction has ended, so that a record whose commit came late is seen by a later look: what
    goes wrong delays, and loses nothing. What was handed on since that instant is remembered by its id.
    """

    def __init__(self) -> None:
        self._subscribers: set[_Subscriber] = set()
        self._seen: dict[UUID, datetime] = {}
        self._since: datetime | None = None
        self._looking: asyncio.Task[None] | None = None

    async def follow(self, caller: Caller, wanted: RecordFilter) -> AsyncGenerator[RecordView, None]:
        """Yield records that are made from now on, match, and may be seen by the caller; the filter's window counts for nothing.

        Raises MissingScope at once, and Unavailable, as its last act, to a follower that takes records too slowly.
        """
        workspace_id = caller.require(Scope.USAGE_READ)
        if self._since is None:
            self._since = await measure.freshness()
        self._remember(await records.made_since([workspace_id], self._since))
        subscriber = _Subscriber(caller, workspace_id, wanted)
        self._subscribers.add(subscriber)
        if self._looking is None:
            self._looking = asyncio.create_task(self._look_again())
        try:
            while True:
                record = await subscriber.waiting.get()
                if record is None:
                    raise Unavailable(f"More than {MOST_WAITING} records were waiting: this stream fell behind. Subscribe anew, and list what came meanwhile.")
                yield record
        finally:
            self._subscribers.discard(subscriber)
            if not self._subscribers and self._looking is not None:
                self._looking.cancel()
                self._looking, self._since = None, None
                self._seen.clear()

    async def _look_again(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self._look()
            except (*UNREACHABLE, *CONTENDED) as error:
                log.warning("live records put off", error=type(error).__name__)
            except Exception as error:
                log.exception("live records failed", error=type(error).__name__)

    async def _look(self) -> None:
        assert self._since is not None
        fresh = await measure.freshness()
        found = await records.made_since(list({subscriber.workspace_id for subscriber in self._subscribers}), self._since)
        new = [record for record in found if record.id not in self._seen]
        self._remember(new)
        for record in new:
            for subscriber in self._subscribers:
                if record.workspace_id == subscriber.workspace_id and records.matches(subscriber.caller, subscriber.wanted, record):
                    self._hand(subscriber, record)
        self._since = max(self._since, fresh)
        self._seen = {record_id: at for record_id, at in self._seen.items() if at >= self._since}

    def _hand(self, subscriber: _Subscriber, record: RecordView) -> None:
        if subscriber.waiting.qsize() < MOST_WAITING:
            subscriber.waiting.put_nowait(record)
        elif not subscriber.waiting.full():
            subscriber.waiting.put_nowait(None)  # the last place is kept for the end

    def _remember(self, found: list[RecordView]) -> None:
        self._seen |= {record.id: record.recorded_at for record in found}
