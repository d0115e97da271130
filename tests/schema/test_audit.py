"""The audit log: every change leaves a trace in its own transaction, with who, what, when and why, and never a secret."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from graphql import build_schema

from domain import audit
from domain.access import keys
from domain.access.keys import NewKey
from models import database
from models.enums import Scope
from schema import ids
from tests.schema.serving import Owner, Served, served_schema
from tests.schema.test_operations import run

pytestmark = pytest.mark.anyio

LOG = """
query Log($filter: AuditEventFilter, $first: Int) {
  auditEvents(first: $first, filter: $filter) {
    totalCount pageInfo { hasNextPage }
    nodes { id action reason requestId address changes subject { __typename id } workspace { id } actor { kind name user { email } apiKey { suffix } } }
  }
}
"""


async def log(served: Served, credential: str, **variables: Any) -> Any:
    """A page of the log."""
    return (await served.ask(LOG, credential=credential, **variables)).data["auditEvents"]


async def test_a_key_s_life_is_traced(served: Served) -> None:
    """Creating, changing, rotating and revoking a key each leave one event with the fields that changed; a second revocation changes nothing."""
    owner = await served.owner()
    made = (await run(served, "S0_KeyCreate", owner.session))["apiKeyCreate"]
    key, secret = made["apiKey"]["id"], made["secret"]
    await run(served, "KeyUpdate", owner.session, id=key)
    rotated = (await run(served, "KeyRotate", owner.session, id=key))["apiKeyRotate"]["secret"]
    for _ in range(2):
        await run(served, "S0_KeyDelete", owner.session, id=key)
    told = await log(served, owner.session)
    assert [event["action"] for event in told["nodes"]] == ["apiKey.revoke", "apiKey.rotate", "apiKey.update", "apiKey.create"]
    assert told["totalCount"] == 4
    revoke, rotate, update, create = told["nodes"]
    assert {(event["subject"]["__typename"], event["subject"]["id"]) for event in told["nodes"]} == {("ApiKey", key)}
    assert {event["actor"]["kind"] for event in told["nodes"]} == {"USER"}
    assert {event["actor"]["user"]["email"] for event in told["nodes"]} == {owner.email}
    assert {event["workspace"]["id"] for event in told["nodes"]} == {ids.encode("Workspace", owner.workspace.id)}
    assert all(UUID(event["requestId"]) and event["address"] == "127.0.0.1" for event in told["nodes"])
    assert create["changes"]["name"] == [None, "ci"]
    assert update["changes"]["bounds"] == [[], [{"measure": "money", "window": "24h", "limit": 1_000_000, "per": "together", "model": None}]]
    assert rotate["changes"] == {"suffix": [secret[-4:], rotated[-4:]]}
    assert list(revoke["changes"]) == ["revokedAt"]
    assert secret not in json.dumps(told)
    assert rotated not in json.dumps(told)


async def test_the_contract_s_question_is_answered(served: Served) -> None:
    """AuditLog asks for a noun over a range: keys, and nothing else."""
    owner = await served.owner()
    key = (await run(served, "S0_KeyCreate", owner.session))["apiKeyCreate"]["apiKey"]
    await run(served, "WebhookCreate", owner.session)
    (event,) = (await run(served, "AuditLog", owner.session))["auditEvents"]["nodes"]
    assert UUID(event.pop("requestId"))
    assert {name: event["changes"][name] for name in ("name", "kind", "mode", "bounds")} == {
        "name": [None, "ci"], "kind": [None, "pay_per_token"], "mode": [None, "live"], "bounds": [None, []],
    }
    assert "inference" in event.pop("changes")["scopes"][1]
    assert event == {
        "action": "apiKey.create",
        "actor": {"kind": "USER", "name": "Olive Owner", "user": {"email": owner.email}, "apiKey": None},
        "subject": {"id": key["id"]},
        "reason": None,
        "address": "127.0.0.1",
        "createdAt": key["createdAt"],
    }


async def test_the_log_is_narrowed_and_paged(served: Served) -> None:
    """By name, noun, subject, actor and window; pages are keyset pages; what names nothing is refused."""
    owner = await served.owner()
    first = (await run(served, "S0_KeyCreate", owner.session))["apiKeyCreate"]["apiKey"]["id"]
    await run(served, "S0_KeyCreate", owner.session)
    await run(served, "WebhookCreate", owner.session)

    async def actions(**filter: Any) -> list[str]:
        return [event["action"] for event in (await log(served, owner.session, filter=filter))["nodes"]]

    assert await actions(actions=["webhookEndpoint"]) == ["webhookEndpoint.create"]
    assert await actions(actions=["apiKey.create"]) == ["apiKey.create"] * 2
    assert await actions(actions=["apiKey.rotate"]) == []
    assert await actions(subjectId=first) == ["apiKey.create"]
    assert len(await actions(actorId=ids.encode("User", owner.user_id))) == 3
    assert await actions(actorId=ids.encode("User", uuid4())) == []
    assert await actions(range={"between": {"start": "2020-01-01T00:00:00Z", "end": "2020-02-01T00:00:00Z"}}) == []
    assert len(await actions(range={"last": "LAST_24_HOURS"})) == 3
    page = await log(served, owner.session, first=2)
    assert (len(page["nodes"]), page["pageInfo"]["hasNextPage"]) == (2, True)
    for bad in ({"subjectId": "nonsense"}, {"actorId": first[:-2]}):
        assert (await served.ask(LOG, credential=owner.session, filter=bad)).codes == ["BAD_USER_INPUT"]


async def test_a_stranger_and_a_key_without_the_scope_see_nothing(served: Served) -> None:
    """The log is the workspace's, for AUDIT_READ; another workspace's event does not exist."""
    owner, stranger = await served.owner(), await served.owner()
    await run(served, "S0_KeyCreate", owner.session)
    (event,) = (await log(served, owner.session))["nodes"]
    assert (await log(served, stranger.session))["nodes"] == []
    question = "query Q($id: ID!) { node(id: $id) { id ... on AuditEvent { action } } }"
    assert (await served.ask(question, credential=stranger.session, id=event["id"])).data == {"node": None}
    assert (await served.ask(question, credential=owner.session, id=event["id"])).data == {"node": {"id": event["id"], "action": "apiKey.create"}}
    _, secret = await served.key(owner, scopes=frozenset({Scope.KEYS_READ}))
    assert (await served.ask(LOG, credential=secret)).codes == ["FORBIDDEN"]


async def test_a_change_that_is_rolled_back_leaves_no_trace(served: Served) -> None:
    """The event and the change share a transaction: both are there, or neither."""
    owner = await served.owner()
    async def lost() -> None:
        async with database.transaction():
            await keys.create(owner.caller, NewKey(name="lost"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await lost()
    assert (await log(served, owner.session))["nodes"] == []


async def test_a_refused_change_leaves_no_trace(served: Served) -> None:
    """What was refused did not happen, and the log says nothing of it."""
    owner = await served.owner()
    refused = (await run(served, "KeyUpdate", owner.session, id=ids.encode("ApiKey", uuid4())))["apiKeyUpdate"]
    assert [error["code"] for error in refused["userErrors"]] == ["NOT_FOUND"]
    assert (await log(served, owner.session))["nodes"] == []


async def test_people_are_traced(served: Served) -> None:
    """MemberInvite, MemberRole and MemberRemove: the address, the role before and after, the role that is gone."""
    owner = await served.owner()
    member = (await run(served, "MemberInvite", owner.session))["memberInvite"]["member"]["id"]
    await run(served, "MemberRole", owner.session, id=member)
    await run(served, "MemberRemove", owner.session, id=member)
    told = [(event["action"], event["changes"]) for event in (await log(served, owner.session))["nodes"]]
    assert told == [
        ("member.remove", {"role": ["admin", None]}),
        ("member.update", {"role": ["developer", "admin"]}),
        ("member.invite", {"email": [None, "ada@example.com"], "role": [None, "developer"]}),
    ]


async def test_money_moved_by_hand_has_its_reason(served: Served) -> None:
    """CreditsAdjust: the operator, the amount and the reason; repeated with the same key, it is one change."""
    operator = await served.operator()
    for _ in range(2):
        await run(served, "CreditsAdjust", operator)
    (event,) = (await log(served, operator))["nodes"]
    assert (event["action"], event["reason"], event["changes"]) == ("credits.adjust", "typo", {"amountMicroUsd": [None, -1_000_000]})
    assert event["actor"]["kind"] == "OPERATOR"


async def test_nothing_in_the_log_is_ever_changed(served: Served) -> None:
    """The database refuses to change, delete or truncate events, whoever asks."""
    owner = await served.owner()
    await run(served, "S0_KeyCreate", owner.session)
    for statement in ("UPDATE audit_event SET action = 'x'", "DELETE FROM audit_event"):
        with pytest.raises((asyncpg.ObjectNotInPrerequisiteStateError, asyncpg.InsufficientPrivilegeError)):
            await database.fetch(f"{statement} WHERE workspace_id = $1", owner.workspace.id)
    assert len((await log(served, owner.session))["nodes"]) == 1


async def test_an_event_outside_a_transaction_is_a_bug(served: Served) -> None:
    """An event that could be lost, or stand for nothing, is not written."""
    owner: Owner = await served.owner()
    with pytest.raises(AssertionError):
        await audit.note(owner.caller.actor, "x.y", None, workspace_id=owner.workspace.id, at=datetime.now(UTC))


def test_a_difference_names_what_changed() -> None:
    """Equal fields are left out; what was made has no old values, what is gone no new ones."""
    assert audit.difference({"a": 1, "b": 2}, {"a": 1, "b": 3}) == {"b": (2, 3)}
    assert audit.difference(None, {"a": 1, "b": None}) == {"a": (None, 1)}
    assert audit.difference({"a": 1}, None) == {"a": (1, None)}


NAMED_OTHERWISE = {
    "creditsAdjust": "credits.adjust",
    "creditsCheckoutCreate": "topUp.create",
    "invitationAccept": "invitation.accept",
    "limitsReset": "limits.reset",
    "subscriptionCheckoutCreate": "subscription.checkout",
    "billingPortalCreate": "billing.portal",
    "topUpRefund": "topUp.refund",
}
"""Mutations whose trace is named after what they change."""


def test_every_mutation_leaves_a_trace() -> None:
    """For each mutation that is served, the domain writes an event named `noun.verb` after it."""
    written = {
        action
        for path in (Path(__file__).parents[2] / "domain").rglob("*.py")
        for action in re.findall(r'"([a-z][A-Za-z]*\.[a-z][A-Za-z]*)"', path.read_text(encoding="utf-8"))
    }
    missing = []
    for name in build_schema(served_schema().sdl).mutation_type.fields:  # type: ignore[union-attr]  # there are mutations
        noun, verb = re.fullmatch(r"(.+)([A-Z][a-z]+)", name).groups()  # type: ignore[union-attr]  # the house rules name them so
        if NAMED_OTHERWISE.get(name, f"{noun}.{verb.lower()}") not in written:
            missing.append(name)
    assert missing == []
