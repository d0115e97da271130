"""Reports and the request log over GraphQL: what is selected is measured, in the zone asked for, and adds up."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from tortoise.connection import get_connection

from domain.money.catalogue import PriceVersion
from schema import ids
from tests.schema.serving import Owner, Served

pytestmark = pytest.mark.anyio

MILLION = 1_000_000


@pytest.fixture
async def spent(served: Served) -> tuple[Owner, str, PriceVersion, list[UUID]]:
    """An owner, a key, a price, and three calls: 1000 in and 100 out twice, and one that failed. A dollar a million in, ten out."""
    owner = await served.owner()
    await served.credit(owner, MILLION)
    _, secret = await served.key(owner)
    price = await served.offer(f"gamma-{owner.user_id.hex[-12:]}", input_usd="1", output_usd="10")
    calls = [await served.call(secret, price, input_tokens=1_000, output_tokens=100) for _ in range(2)]
    calls.append(await served.call(secret, price, input_tokens=1, output_tokens=1, failed=True))
    return owner, secret, price, calls


Spent = tuple[Owner, str, PriceVersion, list[UUID]]


async def usage(served: Served, owner: Owner, selection: str, arguments: str = "") -> Any:
    """A report."""
    return (await served.ask(f"{{ usage{arguments} {{ {selection} }} }}", credential=owner.session)).data["usage"]


async def test_everything_that_is_counted_is_exact(served: Served, spent: Spent) -> None:
    """Every sum and ratio of a report, from the same three calls."""
    owner, *_ = spent
    selection = """totals { requests errors errorRate tokens inputTokens outputTokens cacheReadTokens cacheWriteTokens cacheWrite1hTokens reasoningTokens
      cacheHitRate listValue { microUsd } cost { microUsd } platformCost { microUsd } characters lines charactersPerLine units credits
      runs { total completed failed cancelled running pending } uniqueEndUsers uniqueConversations latency { p50 } timeToFirstToken { p50 } }"""
    assert (await usage(served, owner, selection))["totals"] == {
        "requests": 3,
        "errors": 1,
        "errorRate": pytest.approx(1 / 3),
        "tokens": 2_200,
        "inputTokens": 2_000,
        "outputTokens": 200,
        "cacheReadTokens": 0,
        "cacheWriteTokens": 0,
        "cacheWrite1hTokens": 0,
        "reasoningTokens": 0,
        "cacheHitRate": 0.0,
        "listValue": {"microUsd": 4_000},
        "cost": {"microUsd": 4_000},
        "platformCost": {"microUsd": 4_000},
        "characters": 0,
        "lines": 0,
        "charactersPerLine": None,
        "units": 2_200,
        "credits": 0,
        "runs": {"total": 3, "completed": 2, "failed": 1, "cancelled": 0, "running": 0, "pending": 0},
        "uniqueEndUsers": 0,
        "uniqueConversations": 0,
        "latency": {"p50": pytest.approx(40, rel=0.025)},
        "timeToFirstToken": None,
    }


async def test_what_upstreams_charge_is_for_the_operator_s_eyes(served: Served, spent: Spent) -> None:
    """A workspace's owner gets FORBIDDEN on `upstreamCost` and `margin`, and the rest of the report whole."""
    owner, *_ = spent
    answer = await served.ask("{ usage { totals { requests upstreamCost { usd } margin { usd } } } }", credential=owner.session)
    assert answer.body["data"] == {"usage": {"totals": {"requests": 3, "upstreamCost": None, "margin": None}}}
    assert answer.codes == ["FORBIDDEN", "FORBIDDEN"]


@pytest.mark.parametrize(
    ("dimension", "field"),
    [("MODEL", "modelName"), ("PROVIDER", "provider"), ("ENDPOINT", "endpoint"), ("API_NAME", "apiName"), ("OUTCOME", "outcome")],
)
async def test_groups_split_the_totals(served: Served, spent: Spent, dimension: str, field: str) -> None:
    """Whatever the dimension, its groups add up to the totals, and only it is set; single calls are read where no roll-up holds it."""
    owner, _, price, _ = spent
    values = {
        "modelName": {price.model},
        "provider": {"acme"},
        "endpoint": {"/v1/messages"},
        "apiName": {"llm_query"},
        "outcome": {"SUCCEEDED", "FAILED"},
    }
    names = "modelName provider endpoint apiName outcome"
    found = await usage(
        served,
        owner,
        f"rawCalls totals {{ requests cost {{ microUsd }} }} "
        f"groups(by: [{dimension}]) {{ dimensions {{ {names} }} metrics {{ requests cost {{ microUsd }} }} share other }}",
    )
    assert {group["dimensions"][field] for group in found["groups"]} == values[field]
    assert {group["dimensions"][name] for group in found["groups"] for name in names.split() if name != field} == {None}
    assert sum(group["metrics"]["requests"] for group in found["groups"]) == found["totals"]["requests"] == 3
    assert sum(group["metrics"]["cost"]["microUsd"] for group in found["groups"]) == found["totals"]["cost"]["microUsd"] == 4_000
    assert sum(group["share"] for group in found["groups"]) == 1
    assert found["rawCalls"] is (dimension not in ("MODEL", "OUTCOME"))


async def test_groups_by_key_and_person_lead_to_them(served: Served, spent: Spent) -> None:
    """A dimension's value is the thing itself, loaded once for all groups."""
    owner, secret, price, _ = spent
    found = await usage(
        served, owner, "groups(by: [API_KEY, MODEL]) { dimensions { apiKey { suffix } model { name displayName } } metrics { requests } }"
    )
    assert found["groups"] == [
        {
            "dimensions": {"apiKey": {"suffix": secret[-4:]}, "model": {"name": price.model, "displayName": price.model.title()}},
            "metrics": {"requests": 3},
        }
    ]


@pytest.mark.parametrize(("zone", "buckets"), [("UTC", 7), ("America/New_York", 7), ("Asia/Kathmandu", 7)])
async def test_series_are_whole_local_days_and_add_up(served: Served, spent: Spent, zone: str, buckets: int) -> None:
    """F26: the last seven days are seven buckets in any zone, without gaps, and their sum is the total."""
    owner, *_ = spent
    found = await usage(
        served,
        owner,
        "start end timezone totals { tokens } "
        "series { start end label partial metrics { tokens } } "
        "seriesBy(dimension: MODEL) { points { metrics { tokens } } totals { tokens } }",
        f'(timezone: "{zone}")',
    )
    series = found["series"]
    assert (found["timezone"], len(series)) == (zone, buckets)
    assert (series[0]["start"], series[-1]["end"]) == (found["start"], found["end"])
    assert [bucket["start"] for bucket in series[1:]] == [bucket["end"] for bucket in series[:-1]]
    assert [bucket["partial"] for bucket in series] == [False] * 6 + [True]
    assert sum(bucket["metrics"]["tokens"] for bucket in series) == found["totals"]["tokens"] == 2_200
    assert [sum(point["metrics"]["tokens"] for point in line["points"]) for line in found["seriesBy"]] == [2_200]


async def test_the_window_before_is_for_comparison(served: Served, spent: Spent) -> None:
    """`previousTotals` is the window of equal length just before: empty here."""
    owner, *_ = spent
    found = await usage(
        served, owner, "label totals { requests } previousTotals { requests cost { usd } } freshAt", "(range: { last: LAST_30_DAYS })"
    )
    assert (found["label"], found["totals"], found["previousTotals"]) == (
        "Last 30 days",
        {"requests": 3},
        {"requests": 0, "cost": {"usd": "0.00"}},
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ('(range: { days: { first: "2026-02-02", last: "2026-02-01" } })', "The last day is not before the first."),
        ('(range: { between: { start: "2020-01-01T00:00:00Z", end: "2025-01-01T00:00:00Z" } })', "A window has 400 days at most."),
        ('(filter: { apiKeys: ["junk"] })', "The filter names something that is no ID of type ApiKey."),
    ],
)
async def test_a_window_or_filter_that_cannot_be_is_bad_input(served: Served, spent: Spent, arguments: str, message: str) -> None:
    """The domain's own words, at the top level, with the field null."""
    owner, *_ = spent
    answer = await served.ask(f"{{ usage{arguments} {{ label }} }}", credential=owner.session)
    assert (answer.codes, answer.body["data"]) == (["BAD_USER_INPUT"], {"usage": None})
    assert answer.body["errors"][0]["message"] == message


@pytest.mark.parametrize("range_", ["{}", "{ last: LAST_HOUR, billingPeriod: CURRENT }", "{ last: null }"])
async def test_exactly_one_way_names_a_window(served: Served, spent: Spent, range_: str) -> None:
    """`@oneOf`: none, two, or null is no request that can be run."""
    owner, *_ = spent
    answer = await served.ask(f"{{ usage(range: {range_}) {{ label }} }}", credential=owner.session)
    assert (answer.status, set(answer.codes)) == (400, {"GRAPHQL_VALIDATION_FAILED"})


async def test_the_request_log_shows_each_call(served: Served, spent: Spent) -> None:
    """Newest first, each with its tokens, cost, key, model and transfers; the charges add up to the ledger's."""
    owner, secret, price, calls = spent
    document = """{ usageRecords(first: 10) { totalCount nodes { id requestId apiName endpoint requestedModel provider streamed outcome httpStatus errorCode
      units tokens { input output total source } cost { microUsd } listValue { microUsd } latencyMs mode status needsReview tags { name } adjustments { reason }
      user { name } apiKey { suffix } model { name } transfers { kind amount { microUsd } } } } }"""
    log = (await served.ask(document, credential=owner.session)).data["usageRecords"]
    assert log["totalCount"] == 3
    assert [node["requestId"] for node in log["nodes"]] == [str(call) for call in reversed(calls)]
    failed, second, _ = log["nodes"]
    assert (failed["outcome"], failed["httpStatus"], failed["errorCode"], failed["tokens"], failed["cost"]) == (
        "FAILED",
        500,
        "upstream_error",
        None,
        {"microUsd": 0},
    )
    assert failed["transfers"] == []
    assert second == {
        "id": ids.encode("UsageRecord", calls[1]),
        "requestId": str(calls[1]),
        "apiName": "llm_query",
        "endpoint": "/v1/messages",
        "requestedModel": price.model,
        "provider": "acme",
        "streamed": True,
        "outcome": "SUCCEEDED",
        "httpStatus": 200,
        "errorCode": None,
        "units": 1_100,
        "tokens": {"input": 1_000, "output": 100, "total": 1_100, "source": "PROVIDER"},
        "cost": {"microUsd": 2_000},
        "listValue": {"microUsd": 2_000},
        "latencyMs": 40,
        "mode": "LIVE",
        "status": "ACTIVE",
        "needsReview": False,
        "tags": [],
        "adjustments": [],
        "user": {"name": "Olive Owner"},
        "apiKey": {"suffix": secret[-4:]},
        "model": {"name": price.model},
        "transfers": [{"kind": "CHARGE", "amount": {"microUsd": 2_000}}],
    }


@pytest.mark.parametrize(
    ("filter_", "count"),
    [
        ("{ outcomes: [FAILED] }", 1),
        ("{ outcomes: [SUCCEEDED, FAILED] }", 3),
        ("{ minimumCost: 2000 }", 2),
        ("{ minimumCost: 2001 }", 0),
        ("{ modes: [TEST] }", 0),
        ("{ statuses: [VOIDED] }", 0),
        ("{ needsReview: true }", 0),
        ('{ usage: { models: ["nothing"] } }', 0),
        ('{ usage: { endpoints: ["/v1/messages"] }, range: { last: LAST_HOUR } }', 3),
        ('{ requestId: "junk" }', 0),
    ],
)
async def test_the_request_log_is_narrowed(served: Served, spent: Spent, filter_: str, count: int) -> None:
    """Each filter keeps what it names, on the page and in the count."""
    owner, *_ = spent
    document = f"{{ usageRecords(filter: {filter_}) {{ totalCount nodes {{ id }} }} }}"
    log = (await served.ask(document, credential=owner.session)).data["usageRecords"]
    assert (log["totalCount"], len(log["nodes"])) == (count, count)


async def test_the_request_log_is_read_oldest_first_too(served: Served, spent: Spent) -> None:
    """The order is the caller's, and pages follow it."""
    owner, _, _, calls = spent
    document = "query Q($a: String) { usageRecords(first: 2, after: $a, orderBy: { field: CREATED_AT, direction: ASC }) { nodes { requestId } pageInfo { endCursor } } }"
    first = (await served.ask(document, credential=owner.session)).data["usageRecords"]
    second = (await served.ask(document, credential=owner.session, a=first["pageInfo"]["endCursor"])).data["usageRecords"]
    assert [node["requestId"] for node in first["nodes"] + second["nodes"]] == [str(call) for call in calls]


@contextlib.asynccontextmanager
async def statements() -> AsyncIterator[list[str]]:
    """The statements that the process runs meanwhile, on every connection of its pool; not the driver's own, which clean up and look up types."""
    seen: list[str] = []

    def note(query: Any) -> None:
        if not any(
            word in query.query for word in ("pg_advisory_unlock_all", "typeinfo_tree", "pg_catalog.pg_type", "current_setting('jit')")
        ):
            seen.append(query.query)

    client: Any = get_connection("default")  # the driver logs by connection only, and the pool has no way to name its own
    pool: Any = client._pool
    connections = [holder._con for holder in pool._holders if holder._con is not None]
    for connection in connections:
        connection.add_query_logger(note)
    try:
        yield seen
    finally:
        for connection in connections:
            connection.remove_query_logger(note)


async def test_a_list_costs_as_many_statements_as_its_first_row(served: Served, spent: Spent) -> None:
    """No N+1: what hangs on each of eight keys is loaded for all of them at once, its totals included, and an idle key has zeros."""
    owner, secret, *_ = spent
    for number in range(7):
        await served.key(owner, name=str(number))
    document = """query Q($n: Int) { apiKeys(first: $n) { nodes { suffix budgets { window } limits { window } createdBy { user { email } }
      usage { totals { requests cost { microUsd } credits runs { total } } } } } }"""
    await served.ask(document, credential=owner.session, n=8)  # opens as many connections as it needs, so that none of them is missed below
    counts = []
    for size in (1, 8):
        async with statements() as seen:
            found = (await served.ask(document, credential=owner.session, n=size)).data["apiKeys"]["nodes"]
        counts.append(len(seen))
        assert len(found) == size
    assert counts[0] == counts[1] == 7
    idle = {"requests": 0, "cost": {"microUsd": 0}, "credits": 0, "runs": {"total": 0}}
    busy = {"requests": 3, "cost": {"microUsd": 4_000}, "credits": 0, "runs": {"total": 3}}
    assert [node["usage"]["totals"] for node in found] == [idle] * 7 + [busy]
    assert found[-1]["suffix"] == secret[-4:]


async def test_a_key_s_report_is_that_key_s_only(served: Served, spent: Spent) -> None:
    """The report below a key has its calls, its groups and its series; a filter that names another key leaves nothing."""
    owner, secret, price, _ = spent
    other, quiet = await served.key(owner)
    document = """query Q($ids: [ID!]) { viewer { apiKey { usage { totals { requests } groups(by: [MODEL]) { dimensions { modelName } metrics { requests } }
      series { metrics { requests } } } elsewhere: usage(filter: { apiKeys: $ids }) { totals { requests } } } } }"""
    busy = (await served.ask(document, credential=secret, ids=[ids.encode("ApiKey", other.id)])).data["viewer"]["apiKey"]
    assert busy["usage"]["totals"] == {"requests": 3}
    assert busy["usage"]["groups"] == [{"dimensions": {"modelName": price.model}, "metrics": {"requests": 3}}]
    assert sum(bucket["metrics"]["requests"] for bucket in busy["usage"]["series"]) == 3
    assert busy["elsewhere"] == {"totals": {"requests": 0}}
    idle = (await served.ask(document, credential=quiet, ids=[ids.encode("ApiKey", other.id)])).data["viewer"]["apiKey"]
    assert (idle["usage"]["totals"], idle["usage"]["groups"]) == ({"requests": 0}, [])
