"""Every ID that the schema takes, as another workspace's: found by walking the schema, so that a field that is added is tried too (F30)."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from graphql import (
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLList,
    GraphQLObjectType,
    build_schema,
    get_named_type,
    get_nullable_type,
    is_required_input_field,
)

from domain.apps import deployments
from domain.apps.deployments import NewFile
from models import database
from models.enums import Scope
from schema import ids
from tests.rest.test_strangers import TABLES
from tests.schema.serving import Owner, Served, served_schema
from tests.schema.test_access import _sample
from tests.schema.test_apps import make
from tests.usage.events import Event, write

pytestmark = pytest.mark.anyio

SHARED = {"tierId", "priceId", "upstreamId"}
"""IDs of what belongs to the installation, not to a workspace."""

REAL: dict[str, dict[str, Any]] = {"DeploymentCreateInput": {"files": [{"path": "a.html", "bytes": 1, "sha256": "0" * 64}]}}
"""Input that is looked at before the ID is."""
BY_THE_STORE = {"deploymentFinalize.id"}
"""What needs a store of files, which these tests serve without; `tests/rest/test_deployments.py` tries it as a stranger."""


@dataclass
class Victim:
    """A workspace with something of every kind; `ids` are its global IDs, and `canary` stands in every name of it."""

    owner: Owner
    canary: str
    ids: dict[str, str]


def taking_ids() -> Iterator[tuple[str, str, GraphQLInputObjectType]]:
    """Every mutation that takes an ID, with the name of its input's field."""
    schema = build_schema(served_schema().sdl)
    mutation = schema.type_map["Mutation"]
    assert isinstance(mutation, GraphQLObjectType)
    for name, field in mutation.fields.items():
        kind = get_named_type(field.args["input"].type)
        assert isinstance(kind, GraphQLInputObjectType)
        for argument, each in kind.fields.items():
            if get_named_type(each.type).name == "ID" and argument not in SHARED:
                yield name, argument, kind


TAKING = {f"{name}.{argument}": (name, argument, kind) for name, argument, kind in taking_ids()}


def filled(kind: GraphQLInputObjectType, argument: str, foreign: str) -> dict[str, Any]:
    """The least input that a mutation accepts, with the foreign ID in its place."""
    wanted: GraphQLInputType = get_nullable_type(kind.fields[argument].type)
    value: Any = [foreign] if isinstance(wanted, GraphQLList) else foreign
    if kind.is_one_of:
        return {argument: value}
    needed = {name: _sample(field.type) for name, field in kind.fields.items() if is_required_input_field(field)}
    return {**needed, **REAL.get(kind.name, {}), argument: value}


async def digest(of: Owner) -> str:
    """A fingerprint of everything that a workspace has."""
    parts = []
    for table in TABLES:
        column = "id" if table == "workspace" else "workspace_id"
        sql = f"SELECT coalesce(string_agg(to_jsonb(t)::text, '' ORDER BY to_jsonb(t)::text), '') FROM \"{table}\" t WHERE {column} = $1"
        parts.append(await database.fetch_value(sql, of.workspace.id))
    return hashlib.sha256("".join(parts).encode()).hexdigest()


@pytest.fixture(scope="module")
async def victim(served: Served) -> Victim:
    """Somebody with a key, an app with a deployment, a token, a call, credit, an endpoint of webhooks, a rule of alerts and an export."""
    canary = f"Canary{uuid4().hex[:10]}"
    owner = await served.owner(name=canary)
    key, _ = await served.key(owner, name=canary)
    await served.credit(owner, 1_000_000)
    app, _ = await make(served, owner, slug=f"{canary.lower()}-app")
    record = Event(datetime.now(UTC), key_id=key.id, user_id=owner.user_id, app_id=ids.uuid_of("App", app), end_user=canary, charge_microusd=5)
    await write(owner.workspace.id, [record])

    async def run(document: str, **variables: Any) -> Any:
        return (await served.ask(document, credential=owner.session, **variables)).data

    await run(f'mutation ($id: ID!) {{ appUpdate(input: {{ id: $id, name: "{canary}" }}) {{ userErrors {{ code }} }} }}', id=app)
    app_id = ids.uuid_of("App", app)
    assert app_id is not None
    await deployments.create(owner.caller, app_id, [NewFile(f"{canary}.html", 1, "0" * 64)])
    await run("mutation ($id: ID!) { clientTokenCreate(input: { appId: $id }) { userErrors { code } } }", id=app)
    await run(f'mutation {{ webhookEndpointCreate(input: {{ url: "https://{canary.lower()}.example/", events: ["alert.fired"] }}) {{ userErrors {{ code }} }} }}')
    found: dict[str, str] = {"Workspace": ids.encode("Workspace", owner.workspace.id), "User": ids.encode("User", owner.user_id), "App": app}
    found["ApiKey"] = ids.encode("ApiKey", key.id)
    found["UsageRecord"] = ids.encode("UsageRecord", record.id)
    for kind, table in (("Member", "member"), ("Deployment", "deployment"), ("ClientToken", "client_token"), ("WebhookEndpoint", "webhook_endpoint")):
        found[kind] = ids.encode(kind, await database.fetch_value(f"SELECT id FROM {table} WHERE workspace_id = $1 LIMIT 1", owner.workspace.id))
    return Victim(owner, canary, found)


@pytest.mark.parametrize("place", sorted(TAKING.keys() - BY_THE_STORE))
async def test_no_mutation_takes_what_is_another_s(served: Served, victim: Victim, place: str) -> None:
    """With any ID of the victim's, where its kind fits and where it does not, a mutation is refused, tells nothing, and changes nothing."""
    name, argument, kind = TAKING[place]
    stranger = await served.owner()
    before = await digest(victim.owner)
    aliases = {f"a{number}": (what, foreign) for number, (what, foreign) in enumerate(victim.ids.items())}
    declared = ", ".join(f"${alias}: {kind.name}!" for alias in aliases)
    calls = " ".join(f"{alias}: {name}(input: ${alias}) {{ userErrors {{ code message }} }}" for alias in aliases)
    variables: Any = {alias: filled(kind, argument, foreign) for alias, (_, foreign) in aliases.items()}
    answer = await served.ask(f"mutation ({declared}) {{ {calls} }}", credential=stranger.session, **variables)
    data = answer.body["data"]
    assert victim.canary.lower() not in str(answer.body).lower()
    refused = {error["path"][0] for error in answer.body.get("errors", []) if error["extensions"]["code"] in ("FORBIDDEN", "NOT_FOUND")}
    for alias, (what, _) in aliases.items():
        if data[alias] is None:
            assert alias in refused, (what, answer.body.get("errors"))
        else:
            assert [error["code"] for error in data[alias]["userErrors"]] == ["NOT_FOUND"], (what, data[alias])
    assert await digest(victim.owner) == before


async def test_nothing_is_read_by_another_s_id(served: Served, victim: Victim) -> None:
    """No Node is found by a foreign ID, alone or among others, and a report narrowed to foreign things is empty."""
    stranger = await served.owner()
    listed = list(victim.ids.values())
    many = await served.ask("query ($ids: [ID!]!) { nodes(ids: $ids) { id __typename } }", credential=stranger.session, ids=listed)
    assert many.data["nodes"] == [None] * len(listed)
    narrowed = {"apps": [victim.ids["App"]], "apiKeys": [victim.ids["ApiKey"]], "users": [victim.ids["User"]]}
    for field, values in narrowed.items():
        document = f"""query ($ids: [ID!]!) {{ usage(filter: {{ {field}: $ids }}) {{ totals {{ requests }} groups(by: [APP]) {{ metrics {{ requests }} }} }}
          usageRecords(first: 5, filter: {{ usage: {{ {field}: $ids }} }}) {{ totalCount nodes {{ id }} }} }}"""
        answer = await served.ask(document, credential=stranger.session, ids=values)
        assert answer.data == {"usage": {"totals": {"requests": 0}, "groups": []}, "usageRecords": {"totalCount": 0, "nodes": []}}
    by_slug = await served.ask("query ($slug: Slug!) { app(slug: $slug) { id } }", credential=stranger.session, slug=f"{victim.canary.lower()}-app")
    assert by_slug.data == {"app": None}


async def test_a_key_of_every_scope_but_the_operator_s_finds_nothing_either(served: Served, victim: Victim) -> None:
    """A key of another workspace is as much a stranger as a person."""
    stranger = await served.owner()
    _, secret = await served.key(stranger, scopes=frozenset(Scope) - {Scope.OPERATOR})
    many = await served.ask("query ($ids: [ID!]!) { nodes(ids: $ids) { id } }", credential=secret, ids=list(victim.ids.values()))
    assert many.data["nodes"] == [None] * len(victim.ids)
