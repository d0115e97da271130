"""The request log: every record is the sum of its events, is listed once, and is seen by those who may."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from domain.access.callers import Actor
from domain.errors import InvalidInput, MissingScope, NotFound
from domain.pages import Page
from domain.usage import measure, records
from domain.usage.metrics import TagFilter, UsageFilter
from domain.usage.records import RecordFilter, Tokens
from domain.usage.windows import Between, resolve
from models.enums import ActorKind, ApiKeyMode, Scope, TokenCountSource, UsageEventKind, UsageOutcome, UsageRecordStatus
from tests.usage.events import Event, backdated, caller, write

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("shared_database")]

NOW = datetime(2026, 11, 8, 14, 37, 12, tzinfo=UTC)
EVERY = tuple(UsageRecordStatus)


def call(minutes: float, **fields: object) -> Event:
    """A call some minutes ago, whose id is of its time."""
    at = NOW - timedelta(minutes=minutes)
    return Event(at, id=backdated(at), **fields)  # type: ignore[arg-type]  # the fields of an event


async def test_a_record_as_it_was_called_and_as_it_ended() -> None:
    """Everything that was said at admission and at settlement is there; the request's id is the call's."""
    workspace, key, person = uuid4(), uuid4(), uuid4()
    event = call(
        3,
        key_id=key,
        user_id=person,
        end_user="ann",
        conversation="c1",
        language="de",
        tags={"team": "red"},
        preset="cursor@3",
        model="atlas",
        provider="echo",
        units=36,
        input_tokens=10,
        output_tokens=20,
        cache_read_tokens=3,
        cache_write_5m_tokens=2,
        cache_write_1h_tokens=1,
        reasoning_tokens=5,
        characters=80,
        lines=2,
        charge_microusd=1234,
        list_microusd=2000,
        upstream_cost_picousd=1_000_000_001,
        latency_ms=900,
        first_token_ms=100,
    )
    await write(workspace, [event])
    record = await records.find(caller(workspace), event.id)
    assert (record.id, record.request_id, record.kind, record.status) == (event.id, str(event.id), UsageEventKind.CALL, UsageRecordStatus.ACTIVE)
    assert (record.at, record.key_id, record.user_id, record.app_id) == (event.at, key, person, None)
    assert (record.end_user, record.conversation, record.language, record.tags) == ("ann", "c1", "de", {"team": "red"})
    assert (record.endpoint, record.preset, record.requested_model, record.model, record.provider) == ("/v1/messages", "cursor@3", "atlas", "atlas", "echo")
    assert (record.outcome, record.http_status, record.error_code, record.mode) == (UsageOutcome.SUCCEEDED, 200, None, ApiKeyMode.LIVE)
    assert (record.units, record.characters, record.lines, record.streamed) == (36, 80, 2, True)
    assert record.tokens == Tokens(10, 20, 3, 2, 1, 5, TokenCountSource.PROVIDER)
    assert record.tokens.total == 36
    assert (record.charge_microusd, record.list_microusd, record.upstream_cost_microusd) == (1234, 2000, 1001)
    assert (record.latency_ms, record.first_token_ms, record.needs_review) == (900, 100, False)


async def test_a_record_is_the_sum_of_its_events() -> None:
    """A late settlement adds its difference and says how the call ended; the log's charges are the report's (F27)."""
    workspace = uuid4()
    me = caller(workspace)
    swept = call(9, charge_microusd=100, output_tokens=4, outcome="failed", errors=1, token_source="estimate", http_status=None)
    other = call(5, charge_microusd=7)
    await write(workspace, [swept, other])
    await write(
        workspace,
        [Event(swept.at, record_id=swept.id, kind="late", requests=0, errors=-1, charge_microusd=20, output_tokens=1, latency_ms=80, model="boreas")],
    )
    page = await records.page(me, Page())
    assert [(one.id, one.charge_microusd, one.model, one.outcome) for one in page.items] == [
        (other.id, 7, "atlas", UsageOutcome.SUCCEEDED),
        (swept.id, 120, "boreas", UsageOutcome.SUCCEEDED),
    ]
    assert page.items[1].tokens == Tokens(0, 5, 0, 0, 0, 0, TokenCountSource.PROVIDER)
    assert (page.items[0].tokens, page.items[1].latency_ms) == (None, 80)
    assert await records.count(me) == 2
    totals = await measure.totals(me, resolve(Between(NOW - timedelta(hours=1), NOW), "UTC", NOW))
    assert (totals.charge_microusd, totals.requests, totals.errors) == (127, 2, 0)
    assert await records.adjustments(me, [swept.id, other.id]) == {}


async def test_corrections_and_voids() -> None:
    """A record whose charge was given back is REFUNDED, a voided one VOIDED with zeros; only active ones are listed unless asked for."""
    workspace = uuid4()
    me = caller(workspace)
    active, lowered, refunded, voided, free = (call(minutes, charge_microusd=charge, units=3) for minutes, charge in ((5, 10), (4, 10), (3, 10), (2, 10), (1, 0)))
    actor = {"actor_kind": "operator", "actor_name": "Ophelia"}
    await write(workspace, [active, lowered, refunded, voided, free])
    await write(
        workspace,
        [
            Event(lowered.at, record_id=lowered.id, kind="correction", requests=0, units=-1, charge_microusd=-4, reason="too much", **actor),  # type: ignore[arg-type]  # two texts
            Event(refunded.at, record_id=refunded.id, kind="correction", requests=0, units=-3, charge_microusd=-10, reason="ours", **actor),  # type: ignore[arg-type]  # two texts
            Event(voided.at, record_id=voided.id, kind="void", requests=-1, units=-3, charge_microusd=-10, reason="twice", **actor),  # type: ignore[arg-type]  # two texts
        ],
    )
    assert [one.id for one in (await records.page(me, Page())).items] == [free.id, lowered.id, active.id]
    everything = (await records.page(me, Page(), RecordFilter(statuses=EVERY))).items
    assert [(one.status.name, one.charge_microusd, one.units) for one in everything] == [
        ("ACTIVE", 0, 3),
        ("VOIDED", 0, 0),
        ("REFUNDED", 0, 0),
        ("ACTIVE", 6, 2),
        ("ACTIVE", 10, 3),
    ]
    assert [one.id for one in (await records.page(me, Page(), RecordFilter(statuses=(UsageRecordStatus.REFUNDED,)))).items] == [refunded.id]
    changes = await records.adjustments(me, [active.id, lowered.id, voided.id])
    assert {record: [(one.kind.value, one.actor, one.reason, one.units, one.charge_microusd) for one in found] for record, found in changes.items()} == {
        lowered.id: [("correction", Actor(ActorKind.OPERATOR, None, "Ophelia"), "too much", -1, -4)],
        voided.id: [("void", Actor(ActorKind.OPERATOR, None, "Ophelia"), "twice", -3, -10)],
    }


async def test_pages_meet_without_gap_while_records_are_added() -> None:
    """F40: Walking the log forwards, backwards and upwards shows each record once, and a record that arrives meanwhile moves none of them."""
    workspace = uuid4()
    me = caller(workspace)
    calls = [call(minutes) for minutes in range(7, 0, -1)]
    await write(workspace, calls)
    newest = [event.id for event in reversed(calls)]
    first = await records.page(me, Page(size=3))
    assert ([one.id for one in first.items], first.has_next, first.has_previous) == (newest[:3], True, False)
    await write(workspace, [call(0)])
    second = await records.page(me, Page(size=3, after=first.items[-1].id))
    assert ([one.id for one in second.items], second.has_next, second.has_previous) == (newest[3:6], True, True)
    third = await records.page(me, Page(size=3, after=second.items[-1].id))
    assert ([one.id for one in third.items], third.has_next) == (newest[6:], False)
    back = await records.page(me, Page(size=3, before=third.items[0].id, backwards=True))
    assert [one.id for one in back.items] == newest[3:6]
    upwards = await records.page(me, Page(size=4), ascending=True)
    assert [one.id for one in upwards.items] == newest[:-5:-1]


async def test_the_log_by_cost_and_by_latency() -> None:
    """F40: By cost and by latency, both ways, in pages of any size, each record stands once and where what it costs after its corrections puts it; equal
    ones by id, and those without a latency before all others."""
    workspace = uuid4()
    me = caller(workspace)
    facts = [(5, 300), (9, None), (5, 100), (0, 300), (7, 0), (5, 200), (9, 50)]
    calls = [call(len(facts) - place, charge_microusd=charge, latency_ms=latency) for place, (charge, latency) in enumerate(facts)]
    await write(workspace, calls)
    await write(workspace, [Event(calls[4].at, record_id=calls[4].id, kind="correction", requests=0, charge_microusd=-6, reason="too much", actor_name="O")])
    await write(workspace, [Event(calls[3].at, record_id=calls[3].id, kind="late", requests=0, charge_microusd=6, latency_ms=120)])
    by_cost, by_latency = [4, 0, 2, 5, 3, 1, 6], [1, 4, 6, 2, 3, 5, 0]
    for order, places in ((records.Order.COST, by_cost), (records.Order.LATENCY, by_latency)):
        wanted = [calls[place].id for place in places]
        for ascending in (True, False):
            shown = wanted if ascending else wanted[::-1]
            for size in (1, 2, 3, 7):
                found: list[UUID] = []
                page = await records.page(me, Page(size=size), order=order, ascending=ascending)
                while True:
                    found += [one.id for one in page.items]
                    assert page.has_next == (len(found) < len(shown))
                    if not page.has_next:
                        break
                    page = await records.page(me, Page(size=size, after=found[-1]), order=order, ascending=ascending)
                assert found == shown
            back = await records.page(me, Page(size=3, before=shown[5], backwards=True), order=order, ascending=ascending)
            assert [one.id for one in back.items] == shown[2:5]


async def test_filters() -> None:
    """Each filter matches exactly its records; test calls are listed; what is no request id matches nothing."""
    workspace, key, app = uuid4(), uuid4(), uuid4()
    me = caller(workspace)
    plain = call(50, charge_microusd=3)
    keyed = call(40, key_id=key, app_id=app, model="boreas", outcome="failed", errors=1, needs_review=True)
    tested = call(30, mode="test", preset="cursor@3", end_user="ann")
    tagged = call(20, tags={"team": "red", "n": "1"}, charge_microusd=2, language="de")
    old = call(60 * 24 * 40, charge_microusd=9)
    await write(workspace, [plain, keyed, tested, tagged, old])

    async def found(**wanted: object) -> list[UUID]:
        filtered = RecordFilter(**wanted)  # type: ignore[arg-type]  # its fields
        page = await records.page(me, Page(), filtered)
        assert await records.count(me, filtered) == len(page.items)
        return [one.id for one in page.items]

    assert await found() == [tagged.id, tested.id, keyed.id, plain.id, old.id]
    assert await found(window=resolve(Between(NOW - timedelta(minutes=50), NOW - timedelta(minutes=20)), "UTC", NOW)) == [tested.id, keyed.id, plain.id]
    assert await found(modes=(ApiKeyMode.TEST,)) == [tested.id]
    assert await found(usage=UsageFilter(api_keys=(key,), apps=(app,))) == [keyed.id]
    assert await found(usage=UsageFilter(models=("boreas", "x"))) == [keyed.id]
    assert await found(usage=UsageFilter(outcomes=(UsageOutcome.FAILED,))) == [keyed.id]
    assert await found(usage=UsageFilter(presets=("cursor",))) == [tested.id]
    assert await found(usage=UsageFilter(end_users=("ann",), languages=("de",))) == []
    assert await found(usage=UsageFilter(tags=(TagFilter("team"), TagFilter("n", ("1", "2"))))) == [tagged.id]
    assert await found(needs_review=True) == [keyed.id]
    assert await found(minimum_charge_microusd=3) == [plain.id, old.id]
    assert await found(request_id=str(plain.id)) == [plain.id]
    assert await found(request_id="req_123") == []
    assert await found(statuses=()) == []
    with pytest.raises(InvalidInput):
        await found(usage=UsageFilter(models=("\x00",)))


async def test_a_record_made_by_hand_has_no_request() -> None:
    """A backdated record stands where its own time puts it, and no request id finds it."""
    workspace = uuid4()
    me = caller(workspace)
    manual = call(60 * 24 * 100, kind="manual", token_source="manual", charge_microusd=5)
    await write(workspace, [call(1), manual])
    page = await records.page(me, Page())
    assert (page.items[-1].id, page.items[-1].request_id) == (manual.id, None)
    assert (await records.page(me, Page(), RecordFilter(request_id=str(manual.id)))).items == []


async def test_members_see_their_own() -> None:
    """Without USAGE_READ_ALL a person sees calls of the own keys and a key its own calls; others are not found, and another workspace's never."""
    workspace, person, key = uuid4(), uuid4(), uuid4()
    mine, by_key, others = call(3, user_id=person), call(2, user_id=person, key_id=key), call(1, user_id=uuid4(), key_id=uuid4())
    await write(workspace, [mine, by_key, others])
    correction = Event(others.at, record_id=others.id, kind="correction", requests=0, reason="x", actor_kind="operator", actor_name="Ophelia")
    await write(workspace, [correction])
    member = caller(workspace, without=[Scope.USAGE_READ_ALL], user_id=person)
    narrow = caller(workspace, without=[Scope.USAGE_READ_ALL], key_id=key)
    assert [one.id for one in (await records.page(member, Page())).items] == [by_key.id, mine.id]
    assert [one.id for one in (await records.page(narrow, Page())).items] == [by_key.id]
    assert await records.count(member) == 2
    assert await records.adjustments(member, [others.id]) == {}
    for stranger in (member, caller(uuid4())):
        with pytest.raises(NotFound):
            await records.find(stranger, others.id)
    assert await records.find_many(caller(uuid4()), [mine.id]) == {}
    assert [one.id for one in (await records.page(caller(uuid4()), Page())).items] == []
    with pytest.raises(MissingScope):
        await records.page(member, Page(), RecordFilter(usage=UsageFilter(users=(uuid4(),))))
    with pytest.raises(MissingScope):
        await records.page(caller(workspace, without=[Scope.USAGE_READ]), Page())


async def test_an_event_is_no_record() -> None:
    """The id of a late or correcting event finds nothing: it is a part of its record."""
    workspace = uuid4()
    first = call(2)
    late = Event(first.at, record_id=first.id, kind="late", requests=0)
    await write(workspace, [first, late])
    assert list(await records.find_many(caller(workspace), [first.id, late.id])) == [first.id]
