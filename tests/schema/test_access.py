"""Who may read and do what: no field of the roots is open by accident, and nothing is shown across workspaces."""

from collections.abc import Iterator
from typing import Any

import pytest
from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLInterfaceType,
    GraphQLList,
    GraphQLObjectType,
    build_schema,
    get_named_type,
    get_nullable_type,
    is_required_argument,
    is_required_input_field,
)

from models.enums import Role, Scope
from schema import ids
from schema.access import Requires, SignedIn
from schema.query import PUBLIC
from tests.schema.serving import Owner, Served, served_schema

pytestmark = pytest.mark.anyio


def guards(type_name: str) -> dict[str, list[Any]]:
    """The guards of every field of a root, by its name."""
    definition = served_schema().get_type_by_name(type_name)
    convert = served_schema().config.name_converter.get_graphql_name
    fields: Any = getattr(definition, "fields", ())
    return {convert(field): [each for each in field.extensions if isinstance(each, Requires | SignedIn)] for field in fields}


def test_every_field_of_the_roots_is_guarded_or_listed_as_public() -> None:
    """Default deny: a field without a guard is served only when the list of public ones names it, and the list names no guarded one."""
    queries, mutations = guards("Query"), guards("Mutation")
    assert {name for name, found in queries.items() if not found} == PUBLIC
    assert {name for name, found in mutations.items() if not found} == set()
    assert {name for name, found in mutations.items() if isinstance(found[0], SignedIn)} == {"workspaceCreate", "invitationAccept"}


def test_the_directive_and_the_check_name_the_same_scopes() -> None:
    """What `@requiresScopes` shows is what is checked, on every field of every type."""
    from schema.directives import RequiresScopes

    for kind in served_schema()._schema.type_map.values():
        if not isinstance(kind, GraphQLObjectType) or kind.name.startswith("__") or kind.name == "Subscription":
            continue  # a stream checks for as long as it runs; tests/schema/test_live.py and test_exports.py show it
        definition: Any = served_schema().get_type_by_name(kind.name)
        for field in definition.fields:
            checked = [list(each.scopes) for each in field.extensions if isinstance(each, Requires)]
            shown = [each.scopes for each in field.directives if isinstance(each, RequiresScopes)]
            assert checked == shown, f"{kind.name}.{field.name}"


CALLS = {
    "usage": ("{ usage { label } }", Scope.USAGE_READ),
    "usageRecords": ("{ usageRecords { pageInfo { hasNextPage } } }", Scope.USAGE_READ),
    "receipt": ('{ receipt(callId: "x") { callId } }', Scope.USAGE_READ),
    "apiKeys": ("{ apiKeys { pageInfo { hasNextPage } } }", Scope.KEYS_READ),
    "credits": ("{ credits { balance { usd } } }", Scope.BILLING_READ),
    "apiKeyCreate": ("mutation { apiKeyCreate(input: {}) { apiKey { id } } }", Scope.KEYS_WRITE),
    "apiKeyUpdate": ('mutation { apiKeyUpdate(input: { id: "x" }) { apiKey { id } } }', Scope.KEYS_WRITE),
    "apiKeyRotate": ('mutation { apiKeyRotate(input: { id: "x" }) { apiKey { id } } }', Scope.KEYS_WRITE),
    "apiKeyRevoke": ('mutation { apiKeyRevoke(input: { id: "x" }) { apiKey { id } } }', Scope.KEYS_WRITE),
    "creditsAdjust": (
        'mutation { creditsAdjust(input: { amount: 1, reason: "r", idempotencyKey: "k" }) { transfer { id } } }',
        Scope.OPERATOR,
    ),
    "memberInvite": ('mutation { memberInvite(input: { email: "a@b.test", role: VIEWER }) { member { id } } }', Scope.MEMBERS_WRITE),
    "memberUpdate": ('mutation { memberUpdate(input: { id: "x" }) { member { id } } }', Scope.MEMBERS_WRITE),
    "memberRemove": ('mutation { memberRemove(input: { id: "x" }) { removedMemberId } }', Scope.MEMBERS_WRITE),
}


def _sample(wanted: GraphQLInputType) -> Any:
    """The least that a type accepts."""
    kind: Any = get_nullable_type(wanted)
    if isinstance(kind, GraphQLList):
        return [_sample(kind.of_type)]
    if isinstance(kind, GraphQLEnumType):
        return next(iter(kind.values))
    if isinstance(kind, GraphQLInputObjectType):
        needed = {name: field.type for name, field in kind.fields.items() if is_required_input_field(field)}
        if kind.is_one_of:
            name, field = next(iter(kind.fields.items()))
            needed = {name: field.type}
        return {name: _sample(type_) for name, type_ in needed.items()}
    texts = {"URL": "https://example.com/", "EmailAddress": "a@b.test", "TimeZone": "UTC", "Window": "day", "Slug": "some-app", "Decimal": "1", "JSON": {}}
    numbers = {"Int": 1, "Float": 1.0, "SafeInt": 1, "MicroUsd": 1, "Boolean": True}
    instants = {"DateTime": "2030-01-01T00:00:00Z", "Date": "2030-01-01"}
    return (texts | numbers | instants).get(kind.name, "x")


def _generated(root: str) -> Iterator[tuple[str, Scope, str, dict[str, Any]]]:
    """For every guarded field of a root: its scope, a document that selects its type's name, and the least variables."""
    schema = build_schema(served_schema().sdl)
    kind = schema.type_map[root]
    assert isinstance(kind, GraphQLObjectType)
    for name, found in guards(root).items():
        if not found or not isinstance(found[0], Requires):
            continue
        field = kind.fields[name]
        needed = {argument: each.type for argument, each in field.args.items() if is_required_argument(each)}
        declared = ", ".join(f"${argument}: {type_}" for argument, type_ in needed.items())
        passed = ", ".join(f"{argument}: ${argument}" for argument in needed)
        selected = " { __typename }" if isinstance(get_named_type(field.type), GraphQLObjectType | GraphQLInterfaceType) else ""
        head = ("query" if root == "Query" else "mutation") + " Q" + (f"({declared})" if declared else "")
        call = name + (f"({passed})" if passed else "") + selected
        yield name, found[0].scopes[0], f"{head} {{ {call} }}", {argument: _sample(type_) for argument, type_ in needed.items()}


GENERATED = {
    name: (scope, document, variables)
    for root in ("Query", "Mutation")
    for name, scope, document, variables in _generated(root)
    if name not in CALLS
}


@pytest.mark.parametrize("name", GENERATED)
async def test_every_other_guarded_field_refuses_them_too(served: Served, name: str) -> None:
    """F30: the same for every guarded field that the matrix does not spell out, with the least input that its types accept."""
    scope, document, variables = GENERATED[name]
    owner = await served.owner()
    _, secret = await served.key(owner, scopes=frozenset(Scope) - {scope, Scope.OPERATOR})
    assert (await served.ask(document, **variables)).codes == ["UNAUTHENTICATED"]
    lacking = await served.ask(document, credential=secret, **variables)
    assert lacking.codes == ["FORBIDDEN"]
    assert lacking.body["errors"][0]["extensions"]["requiredScopes"] == [scope.name]


BY_A_PERSON = {
    "workspaceCreate": 'mutation { workspaceCreate(input: { name: "W" }) { workspace { id } } }',
    "invitationAccept": 'mutation { invitationAccept(input: { token: "t" }) { member { id } } }',
}


def test_the_matrix_below_has_every_guarded_field() -> None:
    """A field that is added is added to the matrix."""
    guarded = {name for name, found in (guards("Query") | guards("Mutation")).items() if found}
    assert guarded == set(CALLS) | set(GENERATED) | set(BY_A_PERSON)


@pytest.mark.parametrize("name", CALLS)
async def test_a_guarded_field_refuses_strangers_and_credentials_without_its_scope(served: Served, name: str) -> None:
    """F30: without a credential UNAUTHENTICATED, without the scope FORBIDDEN with `requiredScopes`; the rest of the answer stays whole."""
    document, scope = CALLS[name]
    owner = await served.owner()
    _, secret = await served.key(owner, scopes=frozenset(Scope) - {scope, Scope.OPERATOR})
    stranger = await served.ask(document)
    assert (stranger.status, stranger.codes, stranger.body["data"]) == (200, ["UNAUTHENTICATED"], {name: None})
    lacking = await served.ask(document, credential=secret)
    assert (lacking.status, lacking.codes, lacking.body["data"]) == (200, ["FORBIDDEN"], {name: None})
    assert lacking.body["errors"][0]["extensions"]["requiredScopes"] == [scope.name]
    if not document.startswith("mutation"):
        beside = await served.ask("{ viewer { role } " + document.removeprefix("{"), credential=secret)
        assert beside.body["data"] == {"viewer": {"role": "DEVELOPER"}, name: None}


@pytest.mark.parametrize("name", BY_A_PERSON)
async def test_a_person_s_own_step_is_refused_to_keys_and_strangers(served: Served, name: str) -> None:
    """Making a workspace and taking an invitation need a signed-in person, which no key is."""
    owner = await served.owner()
    _, secret = await served.key(owner)
    assert (await served.ask(BY_A_PERSON[name])).codes == ["UNAUTHENTICATED"]
    assert (await served.ask(BY_A_PERSON[name], credential=secret)).codes == ["FORBIDDEN"]


async def test_public_fields_answer_strangers_and_show_nothing_of_anybody(served: Served) -> None:
    """Without a credential the service, the models and the rate limit are shown; the viewer, the workspace and all Nodes are null."""
    owner = await served.owner()
    document = "query Q($id: ID!) { viewer { role } workspace { id } node(id: $id) { id } nodes(ids: [$id]) { id } service { version } rateLimit { cost } }"
    answer = await served.ask(document, id=ids.encode("Workspace", owner.workspace.id))
    assert answer.data == {
        "viewer": None,
        "workspace": None,
        "node": None,
        "nodes": [None],
        "service": {"version": "1.2.3"},
        "rateLimit": {"cost": answer.body["extensions"]["cost"]["requestedQueryCost"]},
    }


async def test_nothing_is_read_or_changed_across_workspaces(served: Served) -> None:
    """F30: with another workspace's IDs every mutation says NOT_FOUND, as for junk, and filters by them find nothing."""
    mine, theirs = await served.owner(), await served.owner()
    key, _ = await served.key(theirs)
    member = (await served.ask("{ workspace { members { nodes { id } } } }", credential=theirs.session)).data["workspace"]["members"][
        "nodes"
    ][0]["id"]
    for foreign in (ids.encode("ApiKey", key.id), ids.encode("Member", key.id), "junk"):
        for name in ("apiKeyUpdate", "apiKeyRotate", "apiKeyRevoke"):
            assert await _errors(served, mine, name, foreign) == [("NotFoundError", "NOT_FOUND", ["input", "id"])]
    for foreign in (member, "junk"):
        for name in ("memberUpdate", "memberRemove"):
            extra = ", role: VIEWER" if name == "memberUpdate" else ""
            assert await _errors(served, mine, name, foreign, extra) == [("NotFoundError", "NOT_FOUND", ["input", "id"])]
    report = await served.ask(
        "query Q($id: ID!) { usage(filter: { apiKeys: [$id] }) { totals { requests } } }",
        credential=mine.session,
        id=ids.encode("ApiKey", key.id),
    )
    assert report.data == {"usage": {"totals": {"requests": 0}}}


async def _errors(served: Served, owner: Owner, name: str, row: str, extra: str = "") -> list[tuple[str, str, list[str] | None]]:
    document = f"mutation M($id: ID!) {{ {name}(input: {{ id: $id{extra} }}) {{ userErrors {{ __typename code path }} }} }}"
    answer = await served.ask(document, credential=owner.session, id=row)
    return [(error["__typename"], error["code"], error["path"]) for error in answer.data[name]["userErrors"]]


async def test_a_workspace_is_chosen_by_its_header_and_only_by_its_members(served: Served) -> None:
    """`X-Workspace-Id` switches a person between workspaces; another's is refused with 403 before anything runs."""
    mine, theirs = await served.owner(name="Mia"), await served.owner()
    made = (await served.ask('mutation { workspaceCreate(input: { name: "Second" }) { workspace { id } } }', credential=mine.session)).data
    second = ids.uuid_of("Workspace", made["workspaceCreate"]["workspace"]["id"])
    document = "{ workspace { name } viewer { workspaces { name } user { name } apiKey { id } scopes } }"
    first = await served.ask(document, credential=mine.session)
    switched = await served.ask(document, credential=mine.session, workspace=second)
    assert (first.data["workspace"]["name"], switched.data["workspace"]["name"]) == ("Mia's lab", "Second")
    assert switched.data["viewer"]["workspaces"] == [{"name": "Mia's lab"}, {"name": "Second"}]
    assert (switched.data["viewer"]["user"], switched.data["viewer"]["apiKey"]) == ({"name": "Mia"}, None)
    foreign = await served.ask(document, credential=mine.session, workspace=theirs.workspace.id)
    assert (foreign.status, foreign.codes, "data" in foreign.body) == (403, ["FORBIDDEN"], False)


async def test_another_workspace_of_the_viewer_shows_its_name_and_not_its_money(served: Served) -> None:
    """The list of workspaces to switch to is no way around switching: people, money and usage are shown for the current one only."""
    mine = await served.owner()
    await served.ask('mutation { workspaceCreate(input: { name: "Second" }) { workspace { id } } }', credential=mine.session)
    answer = await served.ask(
        "{ viewer { workspaces { credits { balance { usd } } members { nodes { id } } usage { label } } } }", credential=mine.session
    )
    current, other = answer.data["viewer"]["workspaces"]
    assert current["credits"] == {"balance": {"usd": "0.00"}}
    assert other == {"credits": None, "members": None, "usage": None}


async def test_addresses_are_shown_to_those_who_may_see_members_and_to_oneself(served: Served) -> None:
    """A key without MEMBERS_READ learns from an actor no more than its name."""
    owner = await served.owner(name="Nadia")
    _, secret = await served.key(owner, scopes=frozenset({Scope.KEYS_READ}))
    document = "{ apiKeys { nodes { createdBy { kind name user { email } apiKey { id } } } } }"
    by_key = (await served.ask(document, credential=secret)).data["apiKeys"]["nodes"][0]["createdBy"]
    by_owner = (await served.ask(document, credential=owner.session)).data["apiKeys"]["nodes"][0]["createdBy"]
    assert by_key == {"kind": "USER", "name": "Nadia", "user": None, "apiKey": None}
    assert by_owner == {"kind": "USER", "name": "Nadia", "user": {"email": owner.email}, "apiKey": None}


async def test_a_viewer_reads_and_does_not_write(served: Served) -> None:
    """A role is its scopes: a viewer sees keys and credit, and makes and changes nothing."""
    from domain.access import members
    from tests.schema.serving import SIGNING_SECRET
    from tests.schema.test_operations import _token

    owner = await served.owner()
    invited = await members.invite(owner.caller, f"{owner.user_id.hex}@viewer.test", Role.VIEWER)
    session = served.issuer.log_in(f"{owner.user_id.hex}@viewer.test", "Vic")
    assert (await served.ask("{ viewer { role } }", credential=session)).data == {"viewer": {"role": "VIEWER"}}
    await members.accept(await served.caller(session), await _token(invited.id), SIGNING_SECRET)
    answer = await served.ask(
        "{ apiKeys { nodes { id } } credits { balance { usd } } workspace { members { totalCount } } viewer { role } }", credential=session
    )
    assert answer.data["viewer"] == {"role": "VIEWER"}
    assert answer.data["workspace"] == {"members": {"totalCount": 2}}
    refused = await served.ask("mutation { apiKeyCreate(input: {}) { apiKey { id } } }", credential=session)
    assert refused.codes == ["FORBIDDEN"]
