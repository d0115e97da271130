"""Apps over GraphQL: the operations of the contract, and what they refuse."""

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from domain.access import workspaces
from models import database
from models.enums import Role, Scope
from schema import ids
from tests.schema.serving import Owner, Served
from tests.schema.test_operations import documents, run

pytestmark = pytest.mark.anyio

SHOW = """query ($slug: Slug!) { app(slug: $slug) { id slug name description manifest suspendedAt walletMarkup url createdBy { kind name }
  budgets { window limit { microUsd } per } limits { resource window limit per } } }"""


def fresh() -> str:
    """A handle that nobody has taken."""
    return f"app-{uuid4().hex[:12]}"


async def make(served: Served, owner: Owner, slug: str | None = None) -> tuple[str, str]:
    """Register an app; return its ID and its slug."""
    slug = slug or fresh()
    document = "mutation ($slug: Slug!) { appCreate(input: { slug: $slug, name: \"App\" }) { app { id } userErrors { message } } }"
    answer = (await served.ask(document, credential=owner.session, slug=slug)).data["appCreate"]
    assert answer["userErrors"] == []
    return answer["app"]["id"], slug


async def shown(served: Served, owner: Owner, slug: str) -> Any:
    """An app as its owner sees it."""
    return (await served.ask(SHOW, credential=owner.session, slug=slug)).data["app"]


async def test_an_app_is_registered_listed_shown_changed_and_deleted(served: Served) -> None:
    """S0_AppCreate, S0_Apps, S0_App, S0_AppUpdate, S0_AppDelete: the name is the first comer's, and a second one is told free names."""
    owner, other = await served.owner(), await served.owner()
    made = (await run(served, "S0_AppCreate", owner.session))["appCreate"]
    assert made["userErrors"] == []
    assert made["app"]["slug"] == "my-app"
    refused = (await run(served, "S0_AppCreate", other.session))["appCreate"]
    assert refused["app"] is None
    assert refused["userErrors"] == [{"code": "TAKEN", "message": "The id my-app is taken.", "suggestions": ["my-app-app", "my-app-2", "my-app-3"]}]

    (listed,) = (await run(served, "S0_Apps", owner.session))["apps"]["nodes"]
    assert (listed["slug"], listed["name"], listed["description"]) == ("my-app", "My app", None)
    found = (await run(served, "S0_App", owner.session))["app"]
    assert found == listed | {"manifest": {}, "url": None}
    assert (await run(served, "S0_App", other.session))["app"] is None
    assert (await run(served, "S0_Apps", other.session))["apps"]["nodes"] == []

    changed = (await run(served, "S0_AppUpdate", owner.session, id=made["app"]["id"]))["appUpdate"]
    assert changed["userErrors"] == []
    after = (await run(served, "S0_App", owner.session))["app"]
    assert (after["name"], after["manifest"], after["updatedAt"]) == ("New", {"entry": "index.html"}, changed["app"]["updatedAt"])

    for _ in range(2):  # the second finds nothing any more
        gone = (await run(served, "S0_AppDelete", owner.session, id=made["app"]["id"]))["appDelete"]
        assert gone["deletedAppId"] == (made["app"]["id"] if not gone["userErrors"] else None)
    assert gone["userErrors"][0]["code"] == "NOT_FOUND"
    assert (await run(served, "S0_App", owner.session))["app"] is None
    await database.fetch("UPDATE app_name SET slug = $1 WHERE slug = 'my-app'", fresh())  # for other tests of the contract's own text


async def test_caps_are_on_by_default_and_can_be_set(served: Served) -> None:
    """AppCaps: a new app has a daily cap and a limit for each address; the owner's own lists replace them, and are read back as set (F3)."""
    owner = await served.owner()
    app_id, slug = await make(served, owner)
    before = await shown(served, owner, slug)
    assert before["budgets"] == [{"window": "day", "limit": {"microUsd": 5_000_000}, "per": "TOGETHER"}]
    assert before["limits"] == [{"resource": "API_CALLS", "window": "1m", "limit": 60, "per": "ADDRESS"}]
    assert before["walletMarkup"] == "1"
    answer = (await run(served, "AppCaps", owner.session, id=app_id))["appUpdate"]
    assert answer == {"app": {"walletMarkup": "1.25"}, "userErrors": []}
    after = await shown(served, owner, slug)
    assert after["budgets"] == [
        {"window": "day", "limit": {"microUsd": 5_000_000}, "per": "TOGETHER"},
        {"window": "day", "limit": {"microUsd": 200_000}, "per": "END_USER"},
    ]
    assert after["limits"] == [{"resource": "API_CALLS", "window": "1m", "limit": 20, "per": "ADDRESS"}]


async def test_the_kill_switch(served: Served) -> None:
    """AppKill: the switch is told with its instant, which a second turn does not move, and it can be turned back."""
    owner = await served.owner()
    app_id, slug = await make(served, owner)
    first = (await run(served, "AppKill", owner.session, id=app_id))["appUpdate"]
    assert first["userErrors"] == []
    assert (await run(served, "AppKill", owner.session, id=app_id))["appUpdate"]["app"] == first["app"]
    assert (await shown(served, owner, slug))["suspendedAt"] == first["app"]["suspendedAt"]
    document = "mutation ($id: ID!) { appUpdate(input: { id: $id, suspended: false }) { app { suspendedAt } } }"
    assert (await served.ask(document, credential=owner.session, id=app_id)).data["appUpdate"]["app"]["suspendedAt"] is None


async def test_an_app_is_given_away(served: Served) -> None:
    """AppTransfer: to a workspace that the caller manages, with its name and bounds; the old workspace has nothing of it any more."""
    owner, other = await served.owner(), await served.owner()
    app_id, slug = await make(served, owner)
    document = "mutation { workspaceCreate(input: { name: \"Second\" }) { workspace { id } } }"
    to = (await served.ask(document, credential=owner.session)).data["workspaceCreate"]["workspace"]["id"]
    moved = (await run(served, "AppTransfer", owner.session, id=app_id, to=to))["appTransfer"]
    assert moved == {"app": {"slug": slug}, "userErrors": []}
    assert await shown(served, owner, slug) is None
    there = await served.ask(SHOW, credential=owner.session, workspace=workspaces.parse_id(to), slug=slug)
    assert there.data["app"]["id"] == app_id
    assert there.data["app"]["budgets"] == [{"window": "day", "limit": {"microUsd": 5_000_000}, "per": "TOGETHER"}]

    kept, _ = await make(served, owner)
    foreign = ids.encode("Workspace", other.workspace.id)
    for target in (foreign, ids.encode("Workspace", uuid4()), "nonsense"):
        refused = (await run(served, "AppTransfer", owner.session, id=kept, to=target))["appTransfer"]
        assert (refused["app"], [error["code"] for error in refused["userErrors"]]) == (None, ["NOT_FOUND"])
    now = datetime.now(UTC)
    await database.fetch(
        "INSERT INTO member (workspace_id, id, user_id, role, joined_at, created_at) VALUES ($1, uuidv7(), $2, $3, $4, $4)",
        other.workspace.id,
        owner.user_id,
        Role.DEVELOPER.value,
        now,
    )
    refused = (await run(served, "AppTransfer", owner.session, id=kept, to=foreign))["appTransfer"]
    assert [error["code"] for error in refused["userErrors"]] == ["NOT_FOUND"]
    _, secret = await served.key(owner)
    answer = await served.ask(documents()["AppTransfer"], credential=secret, id=kept, to=to)
    assert answer.codes == ["FORBIDDEN"]


async def test_a_stranger_changes_nothing(served: Served) -> None:
    """Another workspace's app is not there to be found, changed, given away or deleted (F30)."""
    owner, stranger = await served.owner(), await served.owner()
    app_id, slug = await make(served, owner)
    before = await shown(served, owner, slug)
    mine = ids.encode("Workspace", stranger.workspace.id)
    assert (await served.ask("query ($id: ID!) { node(id: $id) { id } }", credential=stranger.session, id=app_id)).data["node"] is None
    for name, field in (("S0_AppUpdate", "appUpdate"), ("S0_AppDelete", "appDelete"), ("AppKill", "appUpdate"), ("AppCaps", "appUpdate")):
        refused = (await run(served, name, stranger.session, id=app_id))[field]
        assert [error["code"] for error in refused["userErrors"]] == ["NOT_FOUND"]
    refused = (await run(served, "AppTransfer", stranger.session, id=app_id, to=mine))["appTransfer"]
    assert [error["code"] for error in refused["userErrors"]] == ["NOT_FOUND"]
    assert await shown(served, owner, slug) == before
    _, reading = await served.key(owner, scopes=frozenset({Scope.APPS_READ}))
    answer = await served.ask(documents()["AppKill"], credential=reading, id=app_id)
    assert answer.codes == ["FORBIDDEN"]


async def test_faults_are_named_where_they_lie(served: Served) -> None:
    """An error's path leads into the manifest, to the bound, or to the markup, and nothing is changed."""
    owner = await served.owner()
    app_id, slug = await make(served, owner)
    before = await shown(served, owner, slug)
    document = "mutation ($input: AppUpdateInput!) { appUpdate(input: $input) { app { id } userErrors { code path } } }"
    for changes, code, path in (
        ({"manifest": {"caps": {"requestCap": 0}}}, "INVALID", ["input", "manifest", "caps", "requestCap"]),
        ({"manifest": "x"}, "INVALID", ["input", "manifest"]),
        ({"walletMarkup": "-1"}, "TOO_SMALL", ["input", "walletMarkup"]),
        ({"walletMarkup": "1.0000001"}, "INVALID", ["input", "walletMarkup"]),
        ({"budgets": [{"window": "day", "limit": 1, "model": "no-such-model"}]}, "NOT_FOUND", ["input", "budgets", "0", "model"]),
        ({"limits": [{"resource": "MEMBERS", "window": "day", "limit": 1}]}, "INVALID", ["input", "limits", "0", "resource"]),
        ({"name": None}, "TOO_SMALL", ["input", "name"]),
    ):
        answer = await served.ask(document, credential=owner.session, input={"id": app_id, "name": "changed", **changes})
        assert answer.data["appUpdate"] == {"app": None, "userErrors": [{"code": code, "path": path}]}
    assert await shown(served, owner, slug) == before


async def test_pages_of_apps(served: Served) -> None:
    """A list of apps goes through every order, forwards and backwards, without a gap or a repeat."""
    owner = await served.owner()
    made = [(await make(served, owner))[0] for _ in range(5)]
    await run(served, "S0_AppUpdate", owner.session, id=made[1])
    document = """query ($first: Int, $last: Int, $after: String, $before: String, $order: AppOrder!) {
      apps(first: $first, last: $last, after: $after, before: $before, orderBy: $order) { totalCount nodes { id } pageInfo { hasNextPage endCursor startCursor } } }"""
    orders = {
        ("CREATED_AT", "ASC"): made,
        ("CREATED_AT", "DESC"): made[::-1],
        ("UPDATED_AT", "DESC"): [made[1], made[4], made[3], made[2], made[0]],
    }
    for (field, direction), expected in orders.items():
        order = {"field": field, "direction": direction}
        found: list[str] = []
        after = None
        while True:
            page = (await served.ask(document, credential=owner.session, first=2, after=after, order=order)).data["apps"]
            assert page["totalCount"] == 5
            found += [node["id"] for node in page["nodes"]]
            after = page["pageInfo"]["endCursor"]
            if not page["pageInfo"]["hasNextPage"]:
                break
        assert found == expected
        tail = (await served.ask(document, credential=owner.session, last=2, order=order)).data["apps"]
        assert [node["id"] for node in tail["nodes"]] == expected[-2:]
        before = tail["pageInfo"]["startCursor"]
        front = (await served.ask(document, credential=owner.session, last=2, before=before, order=order)).data["apps"]
        assert [node["id"] for node in front["nodes"]] == expected[1:3]
