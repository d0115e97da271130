"""End users over GraphQL: whom tokens and calls name, and what is attributed to them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from models.enums import Scope
from schema import ids
from tests.schema.serving import Owner, Served
from tests.schema.test_apps import make
from tests.schema.test_operations import documents
from tests.usage.events import Event, write

pytestmark = pytest.mark.anyio

MINT = """mutation ($app: ID, $name: String) { clientTokenCreate(input: { appId: $app, endUserId: $name }) { token clientToken { id endUser { id externalId
  app { slug } } } userErrors { code path } } }"""
LIST = """query ($slug: Slug!, $first: Int, $after: String, $start: String) { app(slug: $slug) { endUsers(first: $first, after: $after, externalId: $start) { totalCount
  edges { cursor node { id externalId blockedAt firstSeenAt lastSeenAt app { slug } wallet { id } budgets { window } limits { window } } }
  pageInfo { hasNextPage } } } }"""
REVOKE = "mutation ($id: ID!) { clientTokenRevoke(input: { endUserId: $id }) { revokedCount userErrors { code path } } }"


async def minted(served: Served, owner: Owner, app_id: str | None, name: str) -> Any:
    """Make a token that names an end user; return it."""
    answer = (await served.ask(MINT, credential=owner.session, app=app_id, name=name)).data["clientTokenCreate"]
    assert answer["userErrors"] == []
    return answer["clientToken"]


async def listed(served: Served, owner: Owner, slug: str, **more: Any) -> Any:
    """An app's end users."""
    return (await served.ask(LIST, credential=owner.session, slug=slug, **({"first": 10} | more))).data["app"]["endUsers"]


async def test_a_token_that_names_an_end_user_brings_it_into_being_once(served: Served) -> None:
    """App.endUsers: one for each name, under its app, found by the start of its name, paged last seen first, and refetched by its own workspace alone."""
    owner, other = await served.owner(), await served.owner()
    (app_id, slug), (second_id, second) = await make(served, owner), await make(served, owner)
    for name in ("ann", "a%n", "bob", "ann"):
        token = await minted(served, owner, app_id, name)
    elsewhere = await minted(served, owner, second_id, "ann")
    nowhere = await minted(served, owner, None, "ann")
    assert len({each["endUser"]["id"] for each in (token, elsewhere, nowhere)}) == 3
    assert [each["endUser"]["app"] for each in (token, elsewhere, nowhere)] == [{"slug": slug}, {"slug": second}, None]

    page = await listed(served, owner, slug)
    assert page["totalCount"] == 3
    assert [edge["node"]["externalId"] for edge in page["edges"]] == ["bob", "a%n", "ann"]
    ann = page["edges"][2]["node"]
    assert ann == {
        "id": token["endUser"]["id"],
        "externalId": "ann",
        "blockedAt": None,
        "firstSeenAt": ann["firstSeenAt"],
        "lastSeenAt": None,
        "app": {"slug": slug},
        "wallet": None,
        "budgets": [],
        "limits": [],
    }
    first = await listed(served, owner, slug, first=2)
    assert first["pageInfo"] == {"hasNextPage": True}
    rest = await listed(served, owner, slug, first=2, after=first["edges"][1]["cursor"])
    assert [edge["node"]["externalId"] for edge in rest["edges"]] == ["ann"]
    for start, found in (("a", ["a%n", "ann"]), ("a%", ["a%n"]), ("ann", ["ann"]), ("_nn", []), ("x", [])):
        matched = await listed(served, owner, slug, start=start)
        assert ([edge["node"]["externalId"] for edge in matched["edges"]], matched["totalCount"]) == (found, len(found))

    again = "query ($id: ID!) { node(id: $id) { ... on EndUser { externalId } } }"
    assert (await served.ask(again, credential=owner.session, id=ann["id"])).data == {"node": {"externalId": "ann"}}
    assert (await served.ask(again, credential=other.session, id=ann["id"])).data == {"node": None}
    _, blind = await served.key(owner, scopes=frozenset({Scope.USAGE_READ}))
    assert (await served.ask(again, credential=blind, id=ann["id"])).data == {"node": None}


async def test_tokens_of_an_end_user_are_revoked_together(served: Served) -> None:
    """clientTokenRevoke by end user: its tokens under that app stop at once, those of others and of the same name elsewhere go on."""
    owner, other = await served.owner(), await served.owner()
    app_id, slug = await make(served, owner)
    ann = (await minted(served, owner, app_id, "ann"))["endUser"]["id"]
    for app, name in ((app_id, "ann"), (app_id, "bob"), (None, "ann")):
        await minted(served, owner, app, name)
    refused = (await served.ask(REVOKE, credential=other.session, id=ann)).data["clientTokenRevoke"]
    assert refused == {"revokedCount": None, "userErrors": [{"code": "NOT_FOUND", "path": ["input", "endUserId"]}]}
    for expected in (2, 0):
        assert (await served.ask(REVOKE, credential=owner.session, id=ann)).data["clientTokenRevoke"] == {"revokedCount": expected, "userErrors": []}
    left = (await served.ask("query ($slug: Slug!) { app(slug: $slug) { clientTokens { nodes { endUser { externalId } } } } }", credential=owner.session, slug=slug)).data
    assert left["app"]["clientTokens"]["nodes"] == [{"endUser": {"externalId": "bob"}}]


async def test_usage_is_attributed_to_end_users(served: Served) -> None:
    """UsageByTag, UsageFiltered, EndUser.usage and UsageFilter.endUsers: each end user's calls under its own app, to the microdollar."""
    owner, other = await served.owner(), await served.owner()
    (app_id, slug), (second_id, _) = await make(served, owner), await make(served, owner)
    first, second = ids.uuid_of("App", app_id), ids.uuid_of("App", second_id)
    token = await minted(served, owner, app_id, "ann")
    for app, name in ((app_id, "bob"), (second_id, "ann")):
        await minted(served, owner, app, name)
    now = datetime.now(UTC)
    token_id = ids.uuid_of("ClientToken", token["id"])
    core, other_team = {"team": "core"}, {"team": "other"}
    await write(
        owner.workspace.id,
        [
            Event(now, app_id=first, end_user="ann", client_token_id=token_id, charge_microusd=2_000, tags=core, preset="cursor@3", conversation="c1", needs_review=True),
            Event(now, app_id=first, end_user="ann", charge_microusd=300, tags=core),
            Event(now, app_id=first, end_user="bob", charge_microusd=40, tags=other_team),
            Event(now, app_id=second, end_user="ann", charge_microusd=5, tags=other_team),
            Event(now - timedelta(seconds=1), charge_microusd=1),
        ],
    )
    groups = (await served.ask(documents()["UsageByTag"], credential=owner.session)).data["usage"]["groups"]
    shown = [(each["dimensions"], each["metrics"]) for each in groups]
    assert [(of["tagValue"], (of["endUser"] or {}).get("externalId"), counted["requests"], counted["cost"]["usd"]) for of, counted in shown] == [
        ("core", "ann", 2, "0.0023"),
        ("other", "bob", 1, "0.00004"),
        ("other", "ann", 1, "0.000005"),
        (None, None, 1, "0.000001"),
    ]
    apart = """query { usage { groups(by: [APP, END_USER]) { dimensions { app { id } endUser { id app { id } } } metrics { cost { microUsd } } } } }"""
    told = (await served.ask(apart, credential=owner.session)).data["usage"]["groups"]
    assert [each["metrics"]["cost"]["microUsd"] for each in told] == [2_300, 40, 5, 1]
    assert [(each["dimensions"]["endUser"] or {}).get("app") for each in told] == [{"id": app_id}, {"id": app_id}, {"id": second_id}, None]

    (record,) = (await served.ask(documents()["UsageFiltered"], credential=owner.session)).data["usageRecords"]["nodes"]
    assert (record["endUser"], record["clientToken"], record["conversationId"]) == ({"externalId": "ann"}, {"id": token["id"]}, "c1")
    assert (await served.ask(documents()["UsageFiltered"], credential=other.session)).data["usageRecords"]["nodes"] == []

    ann = token["endUser"]["id"]
    report = """query ($ids: [ID!]) { usage(filter: { endUsers: $ids }) { rawCalls totals { cost { microUsd } requests uniqueEndUsers } }
      usageRecords(first: 10, filter: { usage: { endUsers: $ids } }) { totalCount } }"""
    for chosen, charged, requests in (([ann], 2_300, 2), ([told[1]["dimensions"]["endUser"]["id"], told[2]["dimensions"]["endUser"]["id"]], 45, 2), ([], 0, 0)):
        answer = (await served.ask(report, credential=owner.session, ids=chosen)).data
        assert answer["usage"]["rawCalls"] is True
        assert (answer["usage"]["totals"]["cost"]["microUsd"], answer["usage"]["totals"]["requests"]) == (charged, requests)
        assert answer["usageRecords"]["totalCount"] == requests
    assert (await served.ask(report, credential=other.session, ids=[ann])).data["usage"]["totals"]["requests"] == 0
    own = "query ($id: ID!) { node(id: $id) { ... on EndUser { usage { totals { cost { microUsd } requests } } } } }"
    assert (await served.ask(own, credential=owner.session, id=ann)).data["node"]["usage"]["totals"] == {"cost": {"microUsd": 2_300}, "requests": 2}
    page = await listed(served, owner, slug, start="ann")
    assert page["edges"][0]["node"]["id"] == ann


UPDATE = """mutation ($input: EndUserUpdateInput!) { endUserUpdate(input: $input) { endUser { blockedAt
  budgets { window limit { microUsd } spent { microUsd } model { name } } limits { resource window limit used } } userErrors { code path } } }"""


async def test_an_end_user_is_bounded_blocked_and_let_in_again(served: Served) -> None:
    """endUserUpdate and limitsReset: a list replaces the old one, an absent field stays, and what is refused changes nothing; only its own workspace may."""
    owner, other = await served.owner(), await served.owner()
    app_id, slug = await make(served, owner)
    ann = (await minted(served, owner, app_id, "ann"))["endUser"]["id"]

    async def update(of: str = owner.session, **changes: Any) -> Any:
        return (await served.ask(UPDATE, credential=of, input={"id": ann} | changes)).data["endUserUpdate"]

    budget = {"window": "day", "limit": {"microUsd": 5}, "spent": {"microUsd": 0}, "model": None}
    made = await update(budgets=[{"window": "day", "limit": 5}], limits=[{"resource": "API_CALLS", "window": "1m", "limit": 3}])
    assert made["userErrors"] == []
    assert made["endUser"] == {"blockedAt": None, "budgets": [budget], "limits": [{"resource": "API_CALLS", "window": "1m", "limit": 3, "used": 0}]}
    blocked = (await update(blocked=True, limits=[]))["endUser"]
    assert (blocked["blockedAt"] is not None, blocked["budgets"], blocked["limits"]) == (True, [budget], [])
    assert (await update(blocked=True))["endUser"] == blocked
    assert (await update(blocked=None))["endUser"] == blocked
    refused = [
        (await update(budgets=[{"window": "concurrent", "limit": 5}], blocked=False), "INVALID", ["input", "budgets", "0", "window"]),
        (await update(budgets=[{"window": "day", "limit": -1}]), "TOO_SMALL", ["input", "budgets", "0", "limit"]),
        (await update(limits=[{"resource": "APPS", "window": "day", "limit": 1}]), "INVALID", ["input", "limits", "0", "resource"]),
        (await update(budgets=[{"window": "day", "limit": 1, "model": "none-such"}]), "NOT_FOUND", ["input", "budgets", "0", "model"]),
        (await update(of=other.session, blocked=False), "NOT_FOUND", ["input", "id"]),
        (await update(id=app_id, blocked=False), "NOT_FOUND", ["input", "id"]),
    ]
    for answer, code, path in refused:
        assert (answer["endUser"], answer["userErrors"]) == (None, [{"code": code, "path": path}])
    _, blind = await served.key(owner, scopes=frozenset({Scope.APPS_READ}))
    assert (await served.ask(UPDATE, credential=blind, input={"id": ann, "blocked": False})).codes == ["FORBIDDEN"]
    reset = """mutation ($id: ID!) { limitsReset(input: { subjectId: $id, reason: "again" }) {
      subject { ... on EndUser { externalId } budgets { window } } userErrors { code } } }"""
    told = (await served.ask(reset, credential=owner.session, id=ann)).data["limitsReset"]
    assert told == {"subject": {"externalId": "ann", "budgets": [{"window": "day"}]}, "userErrors": []}
    page = await listed(served, owner, slug)
    assert (page["edges"][0]["node"]["blockedAt"], page["edges"][0]["node"]["budgets"]) == (blocked["blockedAt"], [{"window": "day"}])
    assert (await update(blocked=False))["endUser"]["blockedAt"] is None
    events = """query { auditEvents(first: 10, filter: { actions: ["endUser.update"] }) { nodes { subject { ... on EndUser { externalId } } } } }"""
    assert len((await served.ask(events, credential=owner.session)).data["auditEvents"]["nodes"]) == 5


async def test_an_end_user_is_forgotten(served: Served) -> None:
    """EndUserErase: the ID answers nothing any more, its tokens are over and its calls carry another name, with the app's numbers as they were; erasing
    again changes nothing, and a stranger's or a wrong ID is NOT_FOUND."""
    owner, other = await served.owner(), await served.owner()
    app_id, slug = await make(served, owner)
    erase = documents()["EndUserErase"]
    name = "jane.doe@example.test"
    end_user = (await minted(served, owner, app_id, name))["endUser"]["id"]
    at = datetime.now(UTC) - timedelta(minutes=5)
    await write(owner.workspace.id, [Event(at, end_user=name, app_id=ids.uuid_of("App", app_id), charge_microusd=7)])
    numbers = "query ($slug: Slug!) { app(slug: $slug) { usage { totals { requests cost { microUsd } uniqueEndUsers } } } }"
    before = (await served.ask(numbers, credential=owner.session, slug=slug)).data
    for asking, wrong in ((other, end_user), (owner, app_id)):
        refused = (await served.ask(erase, credential=asking.session, id=wrong)).data["endUserErase"]
        assert (refused["erasedEndUserId"], [error["code"] for error in refused["userErrors"]]) == (None, ["NOT_FOUND"])
        pointed = "mutation ($id: ID!) { endUserErase(input: { id: $id }) { userErrors { path } } }"
        told = (await served.ask(pointed, credential=asking.session, id=wrong)).data["endUserErase"]
        assert told == {"userErrors": [{"path": ["input", "id"]}]}
    for _ in range(2):
        answer = (await served.ask(erase, credential=owner.session, id=end_user)).data["endUserErase"]
        assert answer == {"erasedEndUserId": end_user, "userErrors": []}
    assert (await served.ask("query ($id: ID!) { node(id: $id) { id } }", credential=owner.session, id=end_user)).data == {"node": None}
    assert (await served.ask(numbers, credential=owner.session, slug=slug)).data == before
    (left,) = [edge["node"] for edge in (await listed(served, owner, slug))["edges"]]
    assert left["externalId"].startswith("erased-")
    assert left["blockedAt"] is not None
    revoked = (await served.ask(REVOKE, credential=owner.session, id=left["id"])).data["clientTokenRevoke"]
    assert revoked["revokedCount"] == 0
