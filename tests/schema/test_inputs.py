"""An empty text in an input is a value that means nothing, and never an absent one: it is refused, and nothing is made."""

import json

import pytest

from domain.access import users
from models import database
from tests.schema.serving import Served

pytestmark = pytest.mark.anyio

REASON = 'reason: "r", idempotencyKey: "k"'
EMPTY = {
    "a token without its app": ('clientTokenCreate(input: { appId: "" })', "NOT_FOUND", "appId"),
    "tokens of no app": ('clientTokenRevoke(input: { appId: "" })', "NOT_FOUND", "appId"),
    "tokens of no end user": ('clientTokenRevoke(input: { endUserId: "" })', "NOT_FOUND", "endUserId"),
    "a key without its idempotency": ('apiKeyCreate(input: { idempotencyKey: "" })', "INVALID", "idempotencyKey"),
    "a budget of no model": ('workspaceUpdate(input: { budgets: [{ window: "day", limit: 5, model: "" }] })', "INVALID", "budgets"),
    "a limit of no model": ('workspaceUpdate(input: { limits: [{ resource: TOKENS, window: "day", limit: 5, model: "" }] })', "INVALID", "limits"),
    "a charge without its idempotency": (
        'usageRecordCreate(input: { apiName: "a", endpoint: "/a", units: 1, cost: 5, idempotencyKey: "" })',
        "INVALID",
        "idempotencyKey",
    ),
    "a charge of no key": ('usageRecordCreate(input: { apiName: "a", endpoint: "/a", units: 1, cost: 5, apiKeyId: "" })', "NOT_FOUND", "apiKeyId"),
    "a charge of no app": ('usageRecordCreate(input: { apiName: "a", endpoint: "/a", units: 1, cost: 5, appId: "" })', "NOT_FOUND", "appId"),
    "a charge of nobody": ('usageRecordCreate(input: { apiName: "a", endpoint: "/a", units: 1, cost: 5, userId: "" })', "NOT_FOUND", "userId"),
    "a rule on nothing": ('alertRuleCreate(input: { name: "a", threshold: { spend: 5 }, subjectId: "" })', "NOT_FOUND", "subjectId"),
    "an export without its idempotency": (
        'exportCreate(input: { source: { usageRecords: { range: { last: LAST_7_DAYS } } }, idempotencyKey: "" })',
        "INVALID",
        "idempotencyKey",
    ),
    "credit of no workspace": (f'creditsAdjust(input: {{ workspaceId: "", amount: 5, {REASON} }})', "NOT_FOUND", "workspaceId"),
    "a grant of no workspace": (f'grantCreate(input: {{ workspaceId: "", amount: 5, {REASON} }})', "NOT_FOUND", "workspaceId"),
    "markup of no model": ('markupRuleCreate(input: { model: "", numerator: 2, idempotencyKey: "k" })', "NOT_FOUND", "model"),
    "markup of no tier": ('markupRuleCreate(input: { tierId: "", numerator: 2, idempotencyKey: "k" })', "NOT_FOUND", "tierId"),
    "markup of no workspace": ('markupRuleCreate(input: { workspaceId: "", numerator: 2, idempotencyKey: "k" })', "NOT_FOUND", "workspaceId"),
    "markup of no app": ('markupRuleCreate(input: { appId: "", numerator: 2, idempotencyKey: "k" })', "NOT_FOUND", "appId"),
}
MADE = ("client_token", "api_key", "bound", "usage_event", "alert_rule", "export", "transfer")


@pytest.mark.parametrize("case", EMPTY)
async def test_an_empty_text_is_no_absent_one(served: Served, case: str) -> None:
    """Where an absent field means all of them, or nobody in particular, a variable that a program forgot to set does not: it is told, by the field's path."""
    mutation, code, field = EMPTY[case]
    owner = await served.owner()
    await users.make_operator(owner.user_id)
    rules = await database.fetch_value("SELECT count(*) FROM markup_rule")
    answer = await served.ask(f"mutation {{ told: {mutation} {{ userErrors {{ code path }} }} }}", credential=owner.session)
    (error,) = answer.data["told"]["userErrors"]
    assert (error["code"], error["path"][:2]) == (code, ["input", field]), json.dumps(answer.data)
    for table in MADE:
        assert await database.fetch_value(f"SELECT count(*) FROM {table} WHERE workspace_id = $1", owner.workspace.id) == 0, table
    assert await database.fetch_value("SELECT count(*) FROM markup_rule") == rules


async def test_no_name_is_no_name_to_keep(served: Served) -> None:
    """A rule cannot be given an empty name: it is refused, where the old one stayed without a word."""
    owner = await served.owner()
    made = (await served.ask('mutation { alertRuleCreate(input: { name: "spend", threshold: { spend: 5 } }) { alertRule { id } } }', credential=owner.session)).data
    asked = 'mutation ($id: ID!) { alertRuleUpdate(input: { id: $id, name: "" }) { alertRule { name } userErrors { code path } } }'
    told = (await served.ask(asked, credential=owner.session, id=made["alertRuleCreate"]["alertRule"]["id"])).data["alertRuleUpdate"]
    assert told == {"alertRule": None, "userErrors": [{"code": "INVALID", "path": ["input", "name"]}]}


@pytest.mark.parametrize(
    "field",
    [
        'apiKeys(filter: { nameContains: "\\u0000" }) { totalCount }',
        'auditEvents(filter: { actions: ["\\u0000"] }) { totalCount }',
        'auditEvents(filter: { actions: ["apiKey", "a\\u0000"] }) { nodes { id } }',
    ],
)
async def test_a_filter_with_a_zero_byte_is_bad_input(served: Served, field: str) -> None:
    """No text in the database has one, and asking for it is the caller's fault, not ours."""
    owner = await served.owner()
    answer = await served.ask(f"{{ told: {field} }}", credential=owner.session)
    assert answer.codes == ["BAD_USER_INPUT"]
