"""The live request log: every record once, to those who may see it, whatever the order of commits."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from domain.errors import MissingScope, Unavailable
from domain.usage import feed, records
from domain.usage.feed import Feed
from domain.usage.metrics import TagFilter, UsageFilter
from domain.usage.records import RecordFilter, RecordView
from models.enums import ApiKeyMode, Scope, UsageOutcome, UsageRecordStatus
from tests.usage.events import Event, caller, write

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("shared_database")]


def now() -> datetime:
    """This instant."""
    return datetime.now(UTC)


async def followed(live: Feed, workspace: UUID, wanted: RecordFilter | None = None, **who: Any) -> tuple[AsyncGenerator[RecordView, None], "asyncio.Task[RecordView]"]:
    """A follower that is listening, and its first record."""
    stream = live.follow(caller(workspace, **who), wanted or RecordFilter())
    first = asyncio.create_task(anext(stream))
    before = len(live._subscribers)
    while len(live._subscribers) == before:
        await asyncio.sleep(0.01)
    return stream, first


async def test_records_are_told_once_and_in_order() -> None:
    """What was there before is not told; what is written afterwards is, each once, and the corrections of a record are no records."""
    workspace, live = uuid4(), Feed()
    await write(workspace, [Event(now())])
    stream, first = await followed(live, workspace)
    events = [Event(now(), charge_microusd=number) for number in range(3)]
    await write(workspace, [events[0]])
    await write(workspace, [Event(now(), record_id=events[0].id, kind="correction", charge_microusd=-1), *events[1:]])
    assert [(await first).id, (await anext(stream)).id, (await anext(stream)).id] == [event.id for event in events]
    last = Event(now())
    await write(workspace, [last])
    assert (await anext(stream)).id == last.id
    await stream.aclose()
    assert live._looking is None


async def test_a_commit_that_comes_late_is_told(shared_database: str) -> None:
    """A record whose transaction began before others and ends after them is told when it commits; nothing is told twice."""
    workspace, live = uuid4(), Feed()
    stream, first = await followed(live, workspace)
    slow = await asyncpg.connect(shared_database)
    async with slow.transaction():
        late = await slow.fetchval(
            """
            INSERT INTO usage_event (workspace_id, id, record_id, kind, mode, at, created_at, api_name, endpoint, streamed, outcome, requests, errors, units,
              input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, reasoning_tokens, characters, lines,
              charge_microusd, list_microusd, charge_picousd, list_picousd, upstream_cost_picousd, token_source, needs_review)
            SELECT $1, i, i, 'call', 'live', now(), now(), 'llm_query', '/x', false, 'succeeded', 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 'provider', false
              FROM uuidv7() i RETURNING id
            """,
            workspace,
        )
        quick = Event(now())
        await write(workspace, [quick])
        assert (await first).id == quick.id
        second = asyncio.create_task(anext(stream))
        await live._look()
        assert not second.done()
    assert (await second).id == late
    await live._look()
    assert next(iter(live._subscribers)).waiting.empty()
    await slow.close()
    await stream.aclose()


async def test_workspaces_and_members_are_kept_apart() -> None:
    """A follower hears its own workspace, and without USAGE_READ_ALL its own calls alone; without USAGE_READ it is refused."""
    mine, theirs, person, live = uuid4(), uuid4(), uuid4(), Feed()
    stream, first = await followed(live, mine)
    member, seen = await followed(live, mine, without={Scope.USAGE_READ_ALL}, user_id=person)
    own = Event(now(), user_id=person)
    await write(theirs, [Event(now(), user_id=person)])
    await write(mine, [other := Event(now(), user_id=uuid4()), own])
    assert {(await first).id, (await anext(stream)).id} == {other.id, own.id}
    assert (await seen).id == own.id
    await stream.aclose()
    await member.aclose()
    with pytest.raises(MissingScope):
        await anext(live.follow(caller(mine, without={Scope.USAGE_READ}), RecordFilter()))


async def test_one_who_does_not_listen_is_told_so_and_delays_nobody() -> None:
    """The queue of a follower that takes nothing ends with a clear refusal; others hear everything."""
    workspace, live = uuid4(), Feed()
    stream, first = await followed(live, workspace)
    lazy, unheard = await followed(live, workspace)
    await write(workspace, [Event(now())])
    await unheard
    total = feed.MOST_WAITING + 5
    heard = [await first]
    for start in range(0, total, 201):
        await write(workspace, [Event(now()) for _ in range(min(201, total - start))])
        heard += [await anext(stream) for _ in range(min(201, total - start))]
    assert len({record.id for record in heard}) == total + 1
    for _ in range(feed.MOST_WAITING):
        await anext(lazy)
    with pytest.raises(Unavailable):
        await anext(lazy)
    await stream.aclose()


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        (RecordFilter(), 2),
        (RecordFilter(modes=(ApiKeyMode.TEST,)), 1),
        (RecordFilter(statuses=(UsageRecordStatus.VOIDED,)), 0),
        (RecordFilter(needs_review=True), 1),
        (RecordFilter(minimum_charge_microusd=5), 1),
        (RecordFilter(request_id="junk"), 0),
        (RecordFilter(usage=UsageFilter(models=("atlas",))), 2),
        (RecordFilter(usage=UsageFilter(models=("atlas",), outcomes=(UsageOutcome.FAILED,))), 1),
        (RecordFilter(usage=UsageFilter(presets=("cursor",))), 1),
        (RecordFilter(usage=UsageFilter(presets=("cursor@2",))), 0),
        (RecordFilter(usage=UsageFilter(tags=(TagFilter("team"),))), 1),
        (RecordFilter(usage=UsageFilter(tags=(TagFilter("team", ("blue",)),))), 0),
        (RecordFilter(usage=UsageFilter(end_users=("ann",), conversations=("c1",), languages=("de",), providers=("echo",), endpoints=("/v1/messages",))), 1),
    ],
)
async def test_the_live_log_matches_as_the_list_does(wanted: RecordFilter, count: int) -> None:
    """The same filter keeps the same records, live and listed."""
    workspace = uuid4()
    events = [
        Event(now(), outcome="failed", needs_review=True, tags={"team": "red"}, charge_microusd=5),
        Event(now(), mode="test", preset="cursor@3", end_user="ann", conversation="c1", language="de"),
    ]
    await write(workspace, events)
    me = caller(workspace)
    views = (await records.find_many(me, [event.id for event in events])).values()
    assert sum(records.matches(me, wanted, view) for view in views) == count == await records.count(me, wanted)
