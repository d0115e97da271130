"""Alerts and webhooks over GraphQL: the contract's operations, as they are written there, with real data."""

from typing import Any

import pytest

from domain import webhooks
from models import database
from models.enums import Scope
from schema import ids
from tests.schema.serving import Owner, Served
from tests.schema.test_operations import documents, run

pytestmark = pytest.mark.anyio


async def hook(served: Served, owner: Owner) -> tuple[str, str]:
    """Make the endpoint of WebhookCreate; return its ID and its secret."""
    made = (await run(served, "WebhookCreate", owner.session))["webhookEndpointCreate"]
    assert made["userErrors"] == []
    return made["webhookEndpoint"]["id"], made["secret"]


async def test_an_endpoint_lives_its_life(served: Served) -> None:
    """WebhookCreate, WebhookUpdate, WebhookRotate, WebhookDelete: the secret is shown when it is made, and another one when it is rotated."""
    owner = await served.owner()
    key, secret = await hook(served, owner)
    assert secret.startswith("whsec_")
    changed = (await run(served, "WebhookUpdate", owner.session, id=key))["webhookEndpointUpdate"]
    assert changed == {"webhookEndpoint": {"enabled": False}, "userErrors": []}
    rotated = (await run(served, "WebhookRotate", owner.session, id=key))["webhookEndpointRotate"]
    assert rotated["webhookEndpoint"] == {"id": key}
    assert rotated["secret"].startswith("whsec_")
    assert rotated["secret"] != secret
    (listed,) = (await served.ask("{ webhookEndpoints { id url events enabled } }", credential=owner.session)).data["webhookEndpoints"]
    assert listed == {"id": key, "url": "https://example.com/hook", "events": ["alert.fired"], "enabled": False}
    for name in ("url", "enabled"):
        cleared = f'mutation {{ told: webhookEndpointUpdate(input: {{ id: "{key}", {name}: null, events: null }}) {{ userErrors {{ code path }} }} }}'
        assert (await served.ask(cleared, credential=owner.session)).data["told"] == {"userErrors": [{"code": "REQUIRED", "path": ["input", name]}]}
    assert (await served.ask("{ webhookEndpoints { id url events enabled } }", credential=owner.session)).data["webhookEndpoints"] == [listed]
    gone = (await run(served, "WebhookDelete", owner.session, id=key))["webhookEndpointDelete"]
    assert gone == {"deletedWebhookEndpointId": key, "userErrors": []}
    again = (await run(served, "WebhookDelete", owner.session, id=key))["webhookEndpointDelete"]
    assert [error["code"] for error in again["userErrors"]] == ["NOT_FOUND"]


async def test_a_rule_lives_its_life(served: Served) -> None:
    """AlertCreate, AlertUpdate, Alerts and AlertDelete: a rule is made, told, changed to another metric, and gone."""
    owner = await served.owner()
    key, _ = await hook(served, owner)
    made = (await run(served, "AlertCreate", owner.session, hook=key))["alertRuleCreate"]
    assert made["userErrors"] == []
    rule = made["alertRule"]["id"]
    whole = documents()["Alerts"]
    shown = (await served.ask(whole, credential=owner.session)).data
    workspace = {"__typename": "Workspace", "id": ids.encode("Workspace", owner.workspace.id)}
    assert shown["alertRules"] == [
        {
            "id": rule,
            "name": "spend",
            "subject": workspace,
            "metric": "SPEND",
            "amount": {"usd": "20.00"},
            "count": None,
            "window": "day",
            "webhookEndpoint": {"url": "https://example.com/hook"},
            "emails": ["ops@example.com"],
            "enabled": True,
            "lastFiredAt": None,
        }
    ]
    assert shown["webhookEndpoints"] == [
        {"id": key, "url": "https://example.com/hook", "events": ["alert.fired"], "enabled": True, "deliveries": {"nodes": []}}
    ]
    assert shown["service"]["webhookEvents"] == ["alert.fired", "top_up.fulfilled"]
    changed = (await run(served, "AlertUpdate", owner.session, id=rule))["alertRuleUpdate"]
    assert changed == {"alertRule": {"metric": "BUDGET_PERCENT", "count": 80}, "userErrors": []}
    gone = (await run(served, "AlertDelete", owner.session, id=rule))["alertRuleDelete"]
    assert gone == {"deletedAlertRuleId": rule, "userErrors": []}
    assert (await served.ask(whole, credential=owner.session)).data["alertRules"] == []


async def failed_delivery(owner: Owner, endpoint: str) -> str:
    """Let an event happen, and its delivery fail for good; return the delivery's ID."""
    async with database.transaction():
        await webhooks.tell(owner.workspace.id, webhooks.ALERT_FIRED, {"value": 1}, at=owner.caller.at)
    key = ids.uuid_of("WebhookEndpoint", endpoint)
    row = await database.fetch_row(
        "UPDATE webhook_delivery SET status = 'failed', tries = 10, http_status = 503, failure_code = 'http_status', failure = 'No.', next_try_at = NULL"
        " WHERE endpoint_id = $1 RETURNING id",
        key,
    )
    assert row is not None
    return str(ids.encode("WebhookDelivery", row["id"]))


async def test_a_failed_delivery_is_shown_and_replayed(served: Served) -> None:
    """Alerts lists failed deliveries with their reason; WebhookReplay makes a new one that waits, under the same event ID."""
    owner = await served.owner()
    key, _ = await hook(served, owner)
    failed = await failed_delivery(owner, key)
    shown = (await served.ask(documents()["Alerts"], credential=owner.session)).data
    (delivery,) = shown["webhookEndpoints"][0]["deliveries"]["nodes"]
    assert delivery == {
        "id": failed,
        "event": "alert.fired",
        "eventId": delivery["eventId"],
        "payload": {"type": "alert.fired", "timestamp": delivery["payload"]["timestamp"], "data": {"value": 1}},
        "status": "FAILED",
        "tries": 10,
        "httpStatus": 503,
        "failure": {"message": "No."},
        "nextTryAt": None,
        "deliveredAt": None,
    }
    replayed = (await run(served, "WebhookReplay", owner.session, id=failed))["webhookDeliveryReplay"]
    assert replayed["userErrors"] == []
    assert replayed["webhookDelivery"]["status"] == "PENDING"
    assert replayed["webhookDelivery"]["id"] != failed
    question = "query Q($ids: [ID!]!) { nodes(ids: $ids) { __typename id ... on WebhookDelivery { eventId endpoint { id } } } }"
    both = (await served.ask(question, credential=owner.session, ids=[failed, replayed["webhookDelivery"]["id"]])).data["nodes"]
    assert [(each["__typename"], each["eventId"], each["endpoint"]) for each in both] == [("WebhookDelivery", delivery["eventId"], {"id": key})] * 2
    counted = "{ webhookEndpoints { deliveries(first: 1) { totalCount pageInfo { hasNextPage } nodes { id } } } }"
    page = (await served.ask(counted, credential=owner.session)).data["webhookEndpoints"][0]["deliveries"]
    assert page == {"totalCount": 2, "pageInfo": {"hasNextPage": True}, "nodes": [{"id": replayed["webhookDelivery"]["id"]}]}


async def test_a_stranger_sees_and_changes_nothing(served: Served) -> None:
    """Another workspace's rules, endpoints and deliveries do not exist for a caller, whatever it knows of their IDs."""
    owner, stranger = await served.owner(), await served.owner()
    key, _ = await hook(served, owner)
    rule = (await run(served, "AlertCreate", owner.session, hook=key))["alertRuleCreate"]["alertRule"]["id"]
    delivery = await failed_delivery(owner, key)
    attempts = [
        ("AlertUpdate", rule, "alertRuleUpdate"),
        ("AlertDelete", rule, "alertRuleDelete"),
        ("WebhookUpdate", key, "webhookEndpointUpdate"),
        ("WebhookRotate", key, "webhookEndpointRotate"),
        ("WebhookDelete", key, "webhookEndpointDelete"),
        ("WebhookReplay", delivery, "webhookDeliveryReplay"),
    ]
    for operation, each, payload in attempts:
        answered = (await run(served, operation, stranger.session, id=each))[payload]
        assert [error["code"] for error in answered["userErrors"]] == ["NOT_FOUND"]
    theirs = (await run(served, "AlertCreate", stranger.session, hook=key))["alertRuleCreate"]
    assert [(error["code"], error["path"]) for error in theirs["userErrors"]] == [("NOT_FOUND", ["input", "webhookEndpointId"])]
    question = "query Q($ids: [ID!]!) { nodes(ids: $ids) { id } alertRules { id } webhookEndpoints { id } }"
    seen = (await served.ask(question, credential=stranger.session, ids=[rule, key, delivery])).data
    assert seen == {"nodes": [None, None, None], "alertRules": [], "webhookEndpoints": []}


async def test_scopes_guard_alerts(served: Served) -> None:
    """A key without ALERTS_READ and ALERTS_WRITE neither reads nor writes them."""
    owner = await served.owner()
    _, secret = await served.key(owner, scopes=frozenset({Scope.USAGE_READ}))
    asked = await served.ask("{ alertRules { id } }", credential=secret)
    assert asked.codes == ["FORBIDDEN"]
    written = await served.ask(documents()["WebhookCreate"], credential=secret)
    assert written.codes == ["FORBIDDEN"]
    assert (await served.ask("{ webhookEndpoints { id } }", credential=owner.session)).data == {"webhookEndpoints": []}


@pytest.mark.parametrize(
    ("given", "code", "path"),
    [
        ({"name": "a", "threshold": {"spend": 0}}, "TOO_SMALL", ["input", "threshold"]),
        ({"name": "a", "threshold": {"budgetPercent": 5000}}, "TOO_LARGE", ["input", "threshold"]),
        ({"name": "a", "threshold": {"balance": 5}, "window": "day"}, "INVALID", ["input", "window"]),
        ({"name": "a", "threshold": {"spend": 5}, "emails": ["nobody@"]}, None, None),
        ({"name": "a", "threshold": {"spend": 5}, "subjectId": "x"}, "NOT_FOUND", ["input", "subjectId"]),
        ({"name": "a", "threshold": {"spend": 5, "tokens": 5}}, None, None),
        ({"name": "a", "threshold": {}}, None, None),
    ],
)
async def test_bad_rules_are_told_in_the_payload_or_refused(served: Served, given: dict[str, Any], code: str | None, path: list[str] | None) -> None:
    """What a caller can repair is in `userErrors` with its path; what is no value of its type is refused before; nothing is made."""
    owner = await served.owner()
    document = "mutation M($input: AlertRuleCreateInput!) { alertRuleCreate(input: $input) { alertRule { id } userErrors { code path } } }"
    answer = await served.ask(document, credential=owner.session, input=given)
    if code is None:
        assert answer.status == 400
    else:
        assert answer.data["alertRuleCreate"] == {"alertRule": None, "userErrors": [{"code": code, "path": path}]}
    assert (await served.ask("{ alertRules { id } }", credential=owner.session)).data == {"alertRules": []}


async def test_a_name_or_threshold_cannot_be_cleared(served: Served) -> None:
    """Null for what cannot be cleared is a user error, and the rule stays as it was; null for the endpoint takes it away."""
    owner = await served.owner()
    key, _ = await hook(served, owner)
    rule = (await run(served, "AlertCreate", owner.session, hook=key))["alertRuleCreate"]["alertRule"]["id"]
    document = (
        "mutation M($input: AlertRuleUpdateInput!) { alertRuleUpdate(input: $input) {"
        " alertRule { name amount { usd } webhookEndpoint { id } } userErrors { code path } } }"
    )
    for name in ("name", "threshold"):
        answered = (await served.ask(document, credential=owner.session, input={"id": rule, name: None})).data["alertRuleUpdate"]
        assert answered == {"alertRule": None, "userErrors": [{"code": "REQUIRED", "path": ["input", name]}]}
    cleared = (await served.ask(document, credential=owner.session, input={"id": rule, "webhookEndpointId": None})).data["alertRuleUpdate"]
    assert cleared == {"alertRule": {"name": "spend", "amount": {"usd": "20.00"}, "webhookEndpoint": None}, "userErrors": []}


async def test_a_rule_on_a_key_shows_the_key(served: Served) -> None:
    """A rule's subject is the key itself, for whoever may read keys."""
    owner = await served.owner()
    key, _ = await served.key(owner, name="watched")
    global_id = ids.encode("ApiKey", key.id)
    document = (
        "mutation M($input: AlertRuleCreateInput!) { alertRuleCreate(input: $input) {"
        " alertRule { window subject { id ... on ApiKey { name } } } userErrors { code path } } }"
    )
    given = {"name": "a", "threshold": {"errors": 3}, "window": "5h", "subjectId": global_id}
    made = (await served.ask(document, credential=owner.session, input=given)).data["alertRuleCreate"]
    assert made == {"alertRule": {"window": "5h", "subject": {"id": global_id, "name": "watched"}}, "userErrors": []}


async def test_a_rule_on_an_app_shows_the_app(served: Served) -> None:
    """A rule watches an app of the workspace; an app of another does not exist."""
    owner, stranger = await served.owner(), await served.owner()
    made = await served.ask(
        "mutation M($slug: Slug!) { appCreate(input: { slug: $slug, name: \"Watched\" }) { app { id } userErrors { code } } }",
        credential=owner.session,
        slug=f"a-{owner.workspace.id.hex[-20:]}",
    )
    app = made.data["appCreate"]["app"]["id"]
    document = (
        "mutation M($input: AlertRuleCreateInput!) { alertRuleCreate(input: $input) {"
        " alertRule { subject { id ... on App { name } } } userErrors { code path } } }"
    )
    given = {"name": "a", "threshold": {"spend": 3}, "subjectId": app}
    rule = (await served.ask(document, credential=owner.session, input=given)).data["alertRuleCreate"]
    assert rule == {"alertRule": {"subject": {"id": app, "name": "Watched"}}, "userErrors": []}
    foreign = (await served.ask(document, credential=stranger.session, input=given)).data["alertRuleCreate"]
    assert foreign == {"alertRule": None, "userErrors": [{"code": "NOT_FOUND", "path": ["input", "subjectId"]}]}
    await served.ask("mutation M($id: ID!) { appDelete(input: { id: $id }) { userErrors { code } } }", credential=owner.session, id=app)
    assert (await served.ask("{ alertRules { id } }", credential=owner.session)).data == {"alertRules": []}
