"""Records by hand, the activity chart, and reports of one person, model or of everything, over GraphQL with real data."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from graphql import FragmentDefinitionNode, OperationDefinitionNode, parse, print_ast

from domain.access import users
from domain.usage import rollups
from domain.usage.metrics import COLUMNS, TOKENS
from schema import ids
from tests.schema.serving import Owner, Served
from tests.usage.events import Event, backdated, write

pytestmark = pytest.mark.anyio

CONTRACT = parse((Path(__file__).parent.parent / "contract" / "operations.graphql").read_text(encoding="utf-8"))


def operation(name: str) -> str:
    """One operation of the contract, with the fragments that it uses."""
    texts: dict[str, str] = {}
    for node in CONTRACT.definitions:
        if isinstance(node, OperationDefinitionNode | FragmentDefinitionNode) and node.name:
            texts[node.name.value] = print_ast(node)
    wanted, text = [name], ""
    while wanted:
        added = texts.pop(wanted.pop(), "")
        text += added + "\n"
        wanted += [spread for spread in re.findall(r"\.\.\.(\w+)", added) if spread in texts]
    return text


@pytest.fixture
async def owner(served: Served) -> Owner:
    """Somebody with a dollar of credit."""
    made = await served.owner()
    await served.credit(made, 1_000_000)
    return made


async def create(served: Served, credential: str, **changes: Any) -> Any:
    """Make a record by hand, and return the payload."""
    document = """mutation M($input: UsageRecordCreateInput!) { usageRecordCreate(input: $input) { usageRecord { id requestId user { id } apiName endpoint units
      cost { microUsd usd } listValue { microUsd } apiKey { suffix } status createdAt mode adjustments { reason } transfers { kind amount { microUsd } } }
      userErrors { code message path } } }"""
    input_ = {"apiName": "llm_query", "endpoint": "/chat", "units": 346, "cost": 4_300} | changes
    return (await served.ask(document, credential=credential, input=input_)).data["usageRecordCreate"]


async def test_the_contract_s_create(served: Served, owner: Owner) -> None:
    """The operation of the contract answers with the record, charged; a repeat of its idempotency key is the same record."""
    first = (await served.ask(operation("S3_Create"), credential=owner.session)).data["usageRecordCreate"]
    again = (await served.ask(operation("S3_Create"), credential=owner.session)).data["usageRecordCreate"]
    assert first == again
    assert first["userErrors"] == []
    record = first["usageRecord"]
    assert (record["units"], record["cost"], record["status"], record["apiKey"]) == (346, {"usd": "0.0043"}, "ACTIVE", None)
    assert record["user"] == {"id": ids.encode("User", owner.user_id)}
    listed = (await served.ask(operation("S3_List"), credential=owner.session)).data["usageRecords"]
    assert (listed["totalCount"], [node["id"] for node in listed["nodes"]]) == (1, [record["id"]])
    mine = (await served.ask(operation("S3_ByUser"), credential=owner.session, user=record["user"]["id"])).data["usageRecords"]
    assert mine == {"nodes": [{"id": record["id"]}]}


async def test_the_log_in_every_order(served: Served, owner: Owner) -> None:
    """`orderBy` sorts by when a call began, by cost and by latency, both ways, with cursors that go on where a page ended."""
    at = datetime.now(UTC) - timedelta(minutes=5)
    facts = [(at + timedelta(seconds=place), cost, ms) for place, (cost, ms) in enumerate(((30, 100), (10, 300), (20, 200)))]
    await write(owner.workspace.id, [Event(when, id=backdated(when), charge_microusd=cost, latency_ms=ms) for when, cost, ms in facts])
    document = """query Q($order: UsageRecordOrder!, $after: String) { usageRecords(first: 2, after: $after, orderBy: $order) {
      nodes { cost { microUsd } } pageInfo { endCursor hasNextPage } } }"""
    for field, costs in (("CREATED_AT", [30, 10, 20]), ("COST", [10, 20, 30]), ("LATENCY", [30, 20, 10])):
        for direction, wanted in (("ASC", costs), ("DESC", costs[::-1])):
            order = {"field": field, "direction": direction}
            first = (await served.ask(document, credential=owner.session, order=order)).data["usageRecords"]
            rest = (await served.ask(document, credential=owner.session, order=order, after=first["pageInfo"]["endCursor"])).data["usageRecords"]
            assert [node["cost"]["microUsd"] for node in (*first["nodes"], *rest["nodes"])] == wanted
            assert (first["pageInfo"]["hasNextPage"], rest["pageInfo"]["hasNextPage"]) == (True, False)


async def test_a_correction_and_a_void(served: Served, owner: Owner) -> None:
    """Adjusting keeps the old values visible and moves the difference; voiding gives back all and takes the record out of every total."""
    operator = await served.operator()
    record = (await create(served, owner.session))["usageRecord"]
    assert record["transfers"] == [{"kind": "CHARGE", "amount": {"microUsd": 4_300}}]
    adjusted = (await served.ask(operation("S3_Update"), credential=operator, id=record["id"])).data["usageRecordAdjust"]
    assert adjusted == {"usageRecord": {"status": "REFUNDED"}, "userErrors": []}
    one = (await served.ask(operation("S3_One"), credential=owner.session, id=record["id"])).data["node"]
    assert (one["units"], one["cost"]) == (0, {"usd": "0.00"})
    assert [(each["reason"], each["unitsDelta"], each["costDelta"]["usd"], each["actor"]["name"]) for each in one["adjustments"]] == [
        ("refund", -346, "-0.0043", "Otto Operator")
    ]
    for _ in range(2):
        voided = (await served.ask(operation("S3_Delete"), credential=operator, id=record["id"])).data["usageRecordVoid"]
        assert voided == {"usageRecord": {"status": "VOIDED"}, "userErrors": []}
    refused = (await served.ask(operation("S3_Update"), credential=operator, id=record["id"])).data["usageRecordAdjust"]
    assert [error["code"] for error in refused["userErrors"]] == ["INVALID_STATE"]
    totals = (await served.ask("{ usage { totals { requests cost { microUsd } } } credits { balance { microUsd } } }", credential=owner.session)).data
    assert totals == {"usage": {"totals": {"requests": 0, "cost": {"microUsd": 0}}}, "credits": {"balance": {"microUsd": 1_000_000}}}


@pytest.mark.parametrize(
    ("changes", "code", "path"),
    [
        ({"cost": 1_000_001}, "INSUFFICIENT_CREDIT", None),
        ({"cost": -1}, "TOO_SMALL", ["input", "cost"]),
        ({"units": -1}, "TOO_SMALL", ["input", "units"]),
        ({"apiName": ""}, "TOO_SMALL", ["input", "apiName"]),
        ({"endpoint": "x" * 101}, "TOO_LARGE", ["input", "endpoint"]),
        ({"apiKeyId": "junk"}, "NOT_FOUND", ["input", "apiKeyId"]),
        ({"apiKeyId": ids.encode("ApiKey", uuid4())}, "NOT_FOUND", ["input", "apiKeyId"]),
        ({"appId": ids.encode("App", uuid4())}, "NOT_FOUND", ["input", "appId"]),
        ({"createdAt": "1969-01-01T00:00:00Z"}, "INVALID", ["input", "createdAt"]),
        ({"createdAt": "2999-01-01T00:00:00Z"}, "INVALID", ["input", "createdAt"]),
        ({"idempotencyKey": "x" * 241}, "INVALID", ["input", "idempotencyKey"]),
    ],
)
async def test_what_cannot_be_made(served: Served, owner: Owner, changes: dict[str, Any], code: str, path: list[str] | None) -> None:
    """The caller can repair it, and nothing was made."""
    payload = await create(served, owner.session, **changes)
    assert payload["usageRecord"] is None
    assert [(error["code"], error["path"]) for error in payload["userErrors"]] == [(code, path)]
    assert (await served.ask("{ usageRecords { totalCount } credits { balance { microUsd } } }", credential=owner.session)).data == {
        "usageRecords": {"totalCount": 0},
        "credits": {"balance": {"microUsd": 1_000_000}},
    }


async def test_a_record_of_the_past_stands_on_its_day(served: Served, owner: Owner) -> None:
    """A backdated record is found by its own time, in a report and in the log."""
    record = (await create(served, owner.session, createdAt="2024-02-29T12:00:00Z"))["usageRecord"]
    assert record["createdAt"].startswith("2024-02-29T12:00:00")
    document = """{ usage(range: { days: { first: "2024-02-29", last: "2024-02-29" } }) { totals { cost { microUsd } } }
      usageRecords(filter: { range: { days: { first: "2024-02-29", last: "2024-02-29" } } }) { totalCount } }"""
    assert (await served.ask(document, credential=owner.session)).data == {
        "usage": {"totals": {"cost": {"microUsd": 4_300}}},
        "usageRecords": {"totalCount": 1},
    }


async def test_only_an_operator_corrects_and_speaks_for_others(served: Served, owner: Owner) -> None:
    """A customer gets FORBIDDEN, and the books stay as they were; another person is the operator's to name."""
    record = (await create(served, owner.session))["usageRecord"]
    for name in ("S3_Update", "S3_Delete"):
        answer = await served.ask(operation(name), credential=owner.session, id=record["id"])
        assert answer.codes == ["FORBIDDEN"]
    other = await served.owner(name="Nina Neighbour")
    document = "mutation M($input: UsageRecordCreateInput!) { usageRecordCreate(input: $input) { usageRecord { id } } }"
    input_ = {"apiName": "x", "endpoint": "/x", "units": 0, "cost": 0, "userId": ids.encode("User", other.user_id)}
    answer = await served.ask(document, credential=owner.session, input=input_)
    assert answer.codes == ["FORBIDDEN"]


async def test_the_activity_chart(served: Served, owner: Owner) -> None:
    """Bars of the view's own window whatever the range, their sum, mean and highest; null where all are zero."""
    now = datetime.now(UTC)
    await write(owner.workspace.id, [Event(at=now, lines=30, characters=90), Event(at=now - timedelta(days=300), lines=4)])
    document = """query Q($view: ActivityView!, $metric: UsageMetric!) { usage(range: { last: LAST_HOUR }) { activity(view: $view, metric: $metric) {
      view bucketUnit rangeLabel total average buckets { label start end partial metrics { lines runs { total } } } peak { value bucket { label } } } } }"""

    async def chart(view: str, metric: str) -> Any:
        return (await served.ask(document, credential=owner.session, view=view, metric=metric)).data["usage"]["activity"]

    daily = await chart("DAILY", "LINES")
    assert (daily["view"], daily["bucketUnit"], daily["rangeLabel"], daily["total"], daily["average"]) == ("DAILY", "DAY", "Last 7 days", 30, 4.3)
    assert (len(daily["buckets"]), [bucket["partial"] for bucket in daily["buckets"]]) == (7, [False] * 6 + [True])
    assert daily["peak"] == {"value": 30, "bucket": {"label": f"{now:%Y-%m-%d}"}}
    monthly = await chart("MONTHLY", "RUNS")
    assert (len(monthly["buckets"]), monthly["total"], monthly["average"], monthly["peak"]["value"]) == (12, 2, 0.2, 1)
    weekly = await chart("WEEKLY", "CREDITS")
    assert (len(weekly["buckets"]), weekly["total"], weekly["peak"]) == (12, 0, None)
    refused = await served.ask(document, credential=owner.session, view="DAILY", metric="MARGIN")
    assert refused.codes == ["FORBIDDEN"]


async def test_a_report_of_a_person_and_of_a_model(served: Served, owner: Owner) -> None:
    """`usage` below a person or a model is theirs only; another person's needs the scope."""
    model = f"m-{uuid4().hex[:8]}"
    price = await served.offer(model, input_usd="1", output_usd="2")
    now = datetime.now(UTC)
    await write(owner.workspace.id, [Event(at=now, user_id=owner.user_id, model=price.model, input_tokens=5), Event(at=now, model="other", input_tokens=7)])
    document = """query Q($name: String!) { viewer { user { usage { totals { inputTokens } } } } model(name: $name) { usage { totals { inputTokens }
      elsewhere: groups(by: [MODEL]) { dimensions { modelName } } } none: usage(filter: { models: ["other"] }) { totals { inputTokens } } } }"""
    found = (await served.ask(document, credential=owner.session, name=model)).data
    assert found["viewer"]["user"]["usage"]["totals"] == {"inputTokens": 5}
    assert found["model"] == {
        "usage": {"totals": {"inputTokens": 5}, "elsewhere": [{"dimensions": {"modelName": model}}]},
        "none": {"totals": {"inputTokens": 0}},
    }


async def test_a_report_of_everything_is_the_operator_s(served: Served, owner: Owner) -> None:
    """All workspaces together, split by workspace with their margins; nobody else may ask."""
    provider = f"p-{uuid4().hex}"
    other = await served.owner()
    now = datetime.now(UTC)
    await write(owner.workspace.id, [Event(at=now, provider=provider, charge_microusd=50, upstream_cost_picousd=20_000_000)])
    await write(other.workspace.id, [Event(at=now, provider=provider, charge_microusd=5, upstream_cost_picousd=20_000_000)])
    document = """query Q($p: String!) { operator { usage(filter: { providers: [$p] }) { totals { requests margin { microUsd } }
      groups(by: [WORKSPACE], orderBy: { metric: MARGIN, direction: ASC }) { dimensions { workspace { id } } metrics { margin { microUsd } } } } } }"""
    found = (await served.ask(document, credential=await served.operator(), p=provider)).data["operator"]["usage"]
    assert found["totals"] == {"requests": 2, "margin": {"microUsd": 15}}
    assert [(group["dimensions"]["workspace"]["id"], group["metrics"]["margin"]["microUsd"]) for group in found["groups"]] == [
        (ids.encode("Workspace", other.workspace.id), -15),
        (ids.encode("Workspace", owner.workspace.id), 30),
    ]
    assert (await served.ask(document, credential=owner.session, p=provider)).codes == ["FORBIDDEN"]


async def test_each_number_alone_is_what_it_is_among_all(served: Served) -> None:
    """Only what is selected is added up: whatever is selected alone, in totals, groups, series and charts, says what it says beside everything else."""
    mine, now = await served.owner(), datetime.now(UTC)
    await users.make_operator(mine.user_id)
    counts: dict[str, Any] = {name: 3 + 2 * place for place, name in enumerate(COLUMNS)}
    await write(mine.workspace.id, [Event(at=now, language="de", conversation="one", latency_ms=40, **counts)])
    await rollups.fold_all()
    await write(mine.workspace.id, [Event(at=now, language="fr", conversation="two", latency_ms=40, **counts)])
    below = {"RunCounts": "{ total failed }", "Money": "{ microUsd }", "Quantiles": "{ p50 }", "BucketQuantity": "{ bucket quantity }"}
    fields = (await served.ask('{ __type(name: "UsageMetrics") { fields { name type { name ofType { name ofType { ofType { name } } } } } } }')).data["__type"]["fields"]
    kinds = {field["name"]: re.findall(r"'name': '(\w+)'", str(field["type"]))[-1] for field in fields}
    selections = {name: f"{name} {below.get(kind, '')}" for name, kind in kinds.items()}

    async def said(selection: str, more: str = "") -> dict[str, Any]:
        groups = f"groups(by: [LANGUAGE], first: 3, orderBy: {{ metric: LINES, direction: DESC }}) {{ metrics {{ {selection} }} share }}"
        document = f"{{ usage {{ totals {{ {selection} }} {groups} {more} }} }}"
        found: dict[str, Any] = (await served.ask(document, credential=mine.session)).data["usage"]
        return found

    whole = await said(" ".join(selections.values()))
    assert whole["totals"]["tokens"] == 2 * sum(counts[name] for name in TOKENS)
    assert whole["totals"]["margin"] == {"microUsd": 2 * counts["charge_microusd"] - 1}
    for name, selection in selections.items():
        alone = await said(selection)
        assert alone["totals"] == {name: whole["totals"][name]}
        assert alone["groups"] == [{"metrics": {name: group["metrics"][name]}, "share": 0.5} for group in whole["groups"]]
    charts = await said("lines", "series { metrics { cost { microUsd } } } activity(metric: UNITS) { total buckets { metrics { errors } } }")
    assert sum(bucket["metrics"]["cost"]["microUsd"] for bucket in charts["series"]) == 2 * counts["charge_microusd"]
    assert charts["activity"]["total"] == 2 * counts["units"]
    assert sum(bucket["metrics"]["errors"] for bucket in charts["activity"]["buckets"]) == 2 * counts["errors"]


async def test_what_is_no_token_is_counted_by_its_bucket(served: Served, owner: Owner) -> None:
    """`otherBuckets` adds up what calls used besides tokens, below any group."""
    now = datetime.now(UTC)
    await write(
        owner.workspace.id,
        [Event(at=now, model="a", other_buckets={"characters": 7, "seconds": 2}), Event(at=now, model="b", other_buckets={"characters": 3}), Event(at=now, model="b")],
    )
    found = (
        await served.ask(
            "{ usage { totals { otherBuckets { bucket quantity } } groups(by: [MODEL], first: 1, includeOther: true, orderBy: { metric: REQUESTS, direction: DESC }) "
            "{ other metrics { otherBuckets { bucket quantity } } } } }",
            credential=owner.session,
        )
    ).data["usage"]
    assert found["totals"]["otherBuckets"] == [{"bucket": "CHARACTERS", "quantity": 10}, {"bucket": "SECONDS", "quantity": 2}]
    assert [group["metrics"]["otherBuckets"] for group in found["groups"]] == [
        [{"bucket": "CHARACTERS", "quantity": 3}],
        [{"bucket": "CHARACTERS", "quantity": 7}, {"bucket": "SECONDS", "quantity": 2}],
    ]
