"""The operations of the contract, each as it is written there, over HTTP with real data."""

import itertools
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from graphql import FragmentDefinitionNode, FragmentSpreadNode, Node, OperationDefinitionNode, Visitor, parse, print_ast, visit

from domain.access.members import invitation_token
from models import database
from schema import ids
from tests.schema.serving import SIGNING_SECRET, Answer, Owner, Served

pytestmark = pytest.mark.anyio

OPERATIONS = Path(__file__).parents[1] / "contract" / "operations.graphql"
MILLION = 1_000_000


@cache
def documents() -> Mapping[str, str]:
    """Each operation of the contract with the fragments that it spreads."""
    parsed = parse(OPERATIONS.read_text(encoding="utf-8"))
    fragments = {node.name.value: node for node in parsed.definitions if isinstance(node, FragmentDefinitionNode)}

    def spread(node: Node) -> list[str]:
        found: list[str] = []

        class Spreads(Visitor):
            def enter_fragment_spread(self, spread: FragmentSpreadNode, *_: object) -> None:
                found.append(spread.name.value)

        visit(node, Spreads())
        return found

    return {
        node.name.value: "\n".join(print_ast(each) for each in (node, *(fragments[name] for name in dict.fromkeys(spread(node)))))
        for node in parsed.definitions
        if isinstance(node, OperationDefinitionNode) and node.name
    }


async def run(served: Served, name: str, credential: str, **variables: Any) -> Any:
    """The data of an operation of the contract."""
    return (await answer(served, name, credential, **variables)).data


async def answer(served: Served, name: str, credential: str, **variables: Any) -> Answer:
    """The answer to an operation of the contract."""
    return await served.ask(documents()[name], credential=credential, **variables)


def instant(text: str) -> datetime:
    """An instant as answers have it: UTC, milliseconds, a Z."""
    assert text.endswith("Z")
    assert len(text) == len("2026-11-21T20:48:00.123Z")
    return datetime.fromisoformat(text)


async def test_keys_are_made_listed_found_and_revoked(served: Served) -> None:
    """S0_KeyCreate, S0_Keys, S4_Key and S0_KeyDelete: the secret is shown once, only its hash stays, and revoking twice is no error."""
    owner = await served.owner()
    made = (await run(served, "S0_KeyCreate", owner.session))["apiKeyCreate"]
    assert made["userErrors"] == []
    assert made["secret"].startswith("tg_live_")
    assert made["apiKey"]["name"] == "ci"
    assert abs(instant(made["apiKey"]["createdAt"]) - datetime.now(UTC)) < timedelta(minutes=5)
    key_id, secret = made["apiKey"]["id"], made["secret"]

    (listed,) = (await run(served, "S0_Keys", owner.session))["apiKeys"]["nodes"]
    assert listed == {
        "id": key_id,
        "name": "ci",
        "createdAt": made["apiKey"]["createdAt"],
        "fingerprint": listed["fingerprint"],
        "status": "ACTIVE",
        "lastUsedAt": None,
        "suffix": secret[-4:],
    }
    assert len(listed["fingerprint"]) == 64
    assert secret not in str(listed)

    found = (await run(served, "S4_Key", owner.session, id=key_id))["node"]
    assert found["scopes"] == [
        "INFERENCE",
        "USAGE_READ",
        "USAGE_READ_ALL",
        "USAGE_WRITE",
        "KEYS_READ",
        "KEYS_WRITE",
        "CLIENT_TOKENS_WRITE",
        "APPS_READ",
        "APPS_WRITE",
        "BILLING_READ",
        "BILLING_WRITE",
    ]
    assert {name: value for name, value in found.items() if name != "scopes"} == {
        "id": key_id,
        "name": "ci",
        "kind": "PAY_PER_TOKEN",
        "status": "ACTIVE",
        "prefix": "tg_live_",
        "suffix": secret[-4:],
        "lastUsedAt": None,
        "expiresAt": None,
    }
    for _ in range(2):
        gone = (await run(served, "S0_KeyDelete", owner.session, id=key_id))["apiKeyRevoke"]
        assert gone == {"apiKey": {"status": "REVOKED"}, "userErrors": []}
    assert (await answer(served, "S0_Keys", secret)).status == 401


async def test_a_key_is_updated_with_bounds_that_read_back(served: Served) -> None:
    """KeyUpdate: what is absent stays, null clears, and a budget that was set is shown with nothing spent (F3)."""
    owner = await served.owner()
    key, _ = await served.key(owner, name="bounded")
    changed = (await run(served, "KeyUpdate", owner.session, id=ids.encode("ApiKey", key.id)))["apiKeyUpdate"]
    assert changed == {
        "apiKey": {
            "expiresAt": None,
            "budgets": [
                {
                    "window": "24h",
                    "limit": {"usd": "1.00"},
                    "per": "TOGETHER",
                    "model": None,
                    "spent": {"usd": "0.00"},
                    "held": {"usd": "0.00"},
                    "remaining": {"usd": "1.00"},
                    "percent": 0.0,
                    "startedAt": None,
                    "resetsAt": None,
                }
            ],
        },
        "userErrors": [],
    }
    kept = await served.ask(
        "query Q($id: ID!) { node(id: $id) { ... on ApiKey { name } } }", credential=owner.session, id=ids.encode("ApiKey", key.id)
    )
    assert kept.data == {"node": {"name": "bounded"}}


async def test_a_key_is_rotated_with_a_grace(served: Served) -> None:
    """KeyRotate: the key keeps its ID, shows both secrets, and the old one works until the grace ends (F29)."""
    owner = await served.owner()
    key, old = await served.key(owner)
    rotated = (await run(served, "KeyRotate", owner.session, id=ids.encode("ApiKey", key.id)))["apiKeyRotate"]
    new = rotated["secret"]
    assert (rotated["userErrors"], rotated["apiKey"]["suffix"]) == ([], new[-4:])
    newest, oldest = rotated["apiKey"]["secrets"]
    assert (newest["suffix"], newest["worksUntil"], oldest["suffix"]) == (new[-4:], None, old[-4:])
    assert abs(instant(oldest["worksUntil"]) - datetime.now(UTC) - timedelta(seconds=3600)) < timedelta(minutes=5)
    for secret in (old, new):
        assert (await run(served, "S0_Keys", secret))["apiKeys"]["nodes"][0]["suffix"] == new[-4:]


async def test_credit_is_adjusted_and_read_as_balance_and_statement(served: Served) -> None:
    """CreditsAdjust, S0_CreditsBalance, S4_Credits and S0_CreditsTransactions: exact money, and a retry books once."""
    operator = await served.operator()
    caller = await served.caller(operator)
    first = (await run(served, "CreditsAdjust", operator))["creditsAdjust"]
    again = (await run(served, "CreditsAdjust", operator))["creditsAdjust"]
    assert (
        first
        == again
        == {
            "transfer": {"id": first["transfer"]["id"], "amount": {"usd": "1.00"}},
            "credits": {"balance": {"usd": "-1.00"}},
            "userErrors": [],
        }
    )
    balance = (await run(served, "S0_CreditsBalance", operator))["credits"]
    assert balance["balance"] == {"microUsd": -MILLION, "usd": "-1.00"}
    assert (balance["held"], balance["available"]) == ({"usd": "0.00"}, {"usd": "0.00"})
    instant(balance["updatedAt"])
    assert (await run(served, "S4_Credits", operator))["credits"] == {
        "balance": {"microUsd": -MILLION},
        "available": {"microUsd": 0},
        "held": {"microUsd": 0},
    }
    (edge,) = (await run(served, "S0_CreditsTransactions", operator))["credits"]["transactions"]["edges"]
    assert edge["change"] == {"microUsd": -MILLION}
    assert edge["node"] == {
        "idempotencyKey": "adjustment:adjust:a7",
        "kind": "ADJUSTMENT",
        "reason": "typo",
        "usageRecord": None,
        "createdAt": edge["node"]["createdAt"],
    }
    assert caller.workspace_id is not None


async def test_calls_show_as_usage_statement_and_models(served: Served) -> None:
    """S0_UsageSummary, S0_UsageBreakdown, S0_UsageTimeSeries, S0_CreditsTransactions and S4_Models: the same calls, to the microdollar."""
    owner, price, other = await _spending(served)
    total, first, second = {"microUsd": 33_000 + 2_402}, {"microUsd": 33_000}, {"microUsd": 2_402}

    assert (await run(served, "S0_UsageSummary", owner.session))["usage"]["totals"] == {
        "requests": 3,
        "tokens": 5_600,
        "cost": total,
        "errors": 1,
    }
    groups = (await run(served, "S0_UsageBreakdown", owner.session))["usage"]["groups"]
    assert groups == [
        {"dimensions": {"modelName": price.model}, "metrics": {"requests": 2, "tokens": 5_000, "cost": first}},
        {"dimensions": {"modelName": other.model}, "metrics": {"requests": 1, "tokens": 600, "cost": second}},
    ]
    series = (await run(served, "S0_UsageTimeSeries", owner.session))["usage"]["series"]
    assert len(series) == 24
    assert [instant(later["start"]) - instant(earlier["start"]) for earlier, later in itertools.pairwise(series)] == [
        timedelta(hours=1)
    ] * 23
    assert sum(bucket["metrics"]["cost"]["microUsd"] for bucket in series) == total["microUsd"]
    assert [sum(bucket["metrics"][name] for bucket in series) for name in ("requests", "tokens", "errors")] == [3, 5_600, 1]

    edges = (await run(served, "S0_CreditsTransactions", owner.session))["credits"]["transactions"]["edges"]
    assert [edge["change"]["microUsd"] for edge in edges] == [-2_402, -33_000, 10 * MILLION]
    assert edges[1]["node"]["kind"] == "CHARGE"
    assert edges[1]["node"]["usageRecord"] == {"model": {"name": price.model}, "tokens": {"total": 5_000}}
    assert (await run(served, "S4_Credits", owner.session))["credits"]["balance"] == {"microUsd": 10 * MILLION - 35_402}

    models = {model["name"]: model for model in (await run(served, "S4_Models", owner.session))["models"]}
    assert models[price.model] == {
        "name": price.model,
        "displayName": price.model.title(),
        "aliases": [],
        "routing": False,
        "contextWindow": 200_000,
        "capabilities": ["STREAMING", "TOOLS"],
        "price": {"inputUsdPerMillion": "3.00", "outputUsdPerMillion": "15.00"},
    }
    assert models[other.model]["price"] == {"inputUsdPerMillion": "2.00", "outputUsdPerMillion": "8.50"}


async def _spending(served: Served) -> tuple[Owner, Any, Any]:
    """An owner with 10 dollars and three calls: 3500 in and 1500 out at 3 and 15 dollars, one that failed, and 415 in and 185 out at 2 and 8.50.

    They cost 33 000 microdollars, nothing, and 2402.5, of which the half waits in the carry.
    """
    owner = await served.owner()
    await served.credit(owner, 10 * MILLION)
    _, secret = await served.key(owner)
    price = await served.offer(f"alpha-{owner.user_id.hex[-12:]}", input_usd="3", output_usd="15")
    other = await served.offer(f"beta-{owner.user_id.hex[-12:]}", input_usd="2", output_usd="8.5")
    await served.call(secret, price, input_tokens=3_500, output_tokens=1_500)
    await served.call(secret, price, input_tokens=10, output_tokens=10, failed=True)
    await served.call(secret, other, input_tokens=415, output_tokens=185)
    return owner, price, other


async def test_people_are_invited_join_change_role_and_leave(served: Served) -> None:
    """MemberInvite, Members, InvitationAccept, MemberRole, MemberRemove and WorkspaceCreate: a person's way through a workspace."""
    owner = await served.owner(name="Olive Owner")
    invited = (await run(served, "MemberInvite", owner.session))["memberInvite"]
    assert invited["userErrors"] == []
    ends = instant(invited["member"]["invitationExpiresAt"])
    assert abs(ends - datetime.now(UTC) - timedelta(days=7)) < timedelta(minutes=5)

    people = await run(served, "Members", owner.session)
    assert people["workspace"]["name"] == "Olive Owner's lab"
    assert people["workspace"]["defaultTimezone"] == "UTC"
    assert people["viewer"] == {"role": "OWNER", "clientToken": None}
    first, second = people["workspace"]["members"]["nodes"]
    assert first["user"] == {"name": "Olive Owner", "email": owner.email}
    assert (first["role"], first["invitedBy"], first["invitationExpiresAt"]) == ("OWNER", None, None)
    instant(first["joinedAt"])
    assert second == {
        "id": invited["member"]["id"],
        "user": {"name": None, "email": "ada@example.com"},
        "role": "DEVELOPER",
        "invitedBy": {"name": "Olive Owner"},
        "invitationExpiresAt": invited["member"]["invitationExpiresAt"],
        "joinedAt": None,
    }

    ada = served.issuer.log_in("ada@example.com", "Ada")
    member_id = ids.uuid_of("Member", second["id"])
    assert member_id is not None
    accepted = await served.ask(documents()["InvitationAccept"].replace('"t"', f'"{await _token(member_id)}"'), credential=ada)
    assert accepted.data["invitationAccept"]["member"]["role"] == "DEVELOPER"
    instant(accepted.data["invitationAccept"]["member"]["joinedAt"])

    promoted = (await run(served, "MemberRole", owner.session, id=second["id"]))["memberUpdate"]
    assert promoted == {"member": {"role": "ADMIN"}, "userErrors": []}
    made = (await run(served, "WorkspaceCreate", ada))["workspaceCreate"]
    assert made["userErrors"] == []
    removed = (await run(served, "MemberRemove", owner.session, id=second["id"]))["memberRemove"]
    assert removed == {"removedMemberId": second["id"], "userErrors": []}
    assert len((await run(served, "Members", owner.session))["workspace"]["members"]["nodes"]) == 1
    assert (await run(served, "Members", ada))["workspace"]["name"] == "Lab"


async def _token(member_id: UUID) -> str:
    """The token in the mail of an invitation."""
    invited_at = await database.fetch_value("SELECT invited_at FROM member WHERE id = $1", member_id)
    return invitation_token(SIGNING_SECRET, member_id, invited_at)


async def test_nodes_are_refetched_in_the_order_asked(served: Served) -> None:
    """Refetch: Nodes by ID in order, null in the place of each that is missing, foreign or junk, for every type that has rows."""
    owner, price, _ = await _spending(served)
    stranger = await served.owner()
    key, _ = await served.key(owner)
    foreign, _ = await served.key(stranger)
    people = await run(served, "Members", owner.session)
    log = await served.ask("{ usageRecords(first: 1) { nodes { id transfers { id debit { id } } } } }", credential=owner.session)
    (record,) = log.data["usageRecords"]["nodes"]
    known = [
        (ids.encode("ApiKey", key.id), "ApiKey"),
        (ids.encode("Workspace", owner.workspace.id), "Workspace"),
        (ids.encode("User", owner.user_id), "User"),
        (people["workspace"]["members"]["nodes"][0]["id"], "Member"),
        (ids.encode("Model", price.model), "Model"),
        (ids.encode("Price", price.id), "Price"),
        (record["id"], "UsageRecord"),
        (record["transfers"][0]["id"], "Transfer"),
        (record["transfers"][0]["debit"]["id"], "LedgerAccount"),
    ]
    missing = [
        ids.encode("ApiKey", foreign.id),
        ids.encode("Workspace", stranger.workspace.id),
        ids.encode("User", stranger.user_id),
        ids.encode("Refund", key.id),
        ids.encode("ApiKey", "nonsense"),
        ids.encode("Nothing", key.id),
        "junk",
        "",
        "é",
    ]
    wanted = [each for pair in zip([each for each, _ in known], missing, strict=True) for each in pair]
    nodes = (await run(served, "Refetch", owner.session, ids=wanted))["nodes"]
    assert nodes[1::2] == [None] * len(missing)
    assert [(node["id"], node["__typename"]) for node in nodes[::2]] == known
    assert nodes[0]["budgets"] == []
    assert (await run(served, "Refetch", stranger.session, ids=[each for each, kind in known if kind not in ("Model", "Price")]))[
        "nodes"
    ] == [None] * 7


async def test_an_operator_corrects_and_sees_another_workspace_s_credit(served: Served) -> None:
    """CreditsAdjust with a workspace: the transfer, its accounts, the balance and the statement are that workspace's, never the operator's own."""
    operator, owner = await served.operator(), await served.owner()
    await served.credit(owner, 3 * MILLION)
    document = """mutation M($w: ID) { creditsAdjust(input: { workspaceId: $w, amount: 500000, reason: "sorry", idempotencyKey: "x1" }) {
      transfer { amount { microUsd } debit { kind } credit { kind balance { microUsd } } actor { kind name } }
      credits { balance { microUsd } accounts { kind balance { microUsd } } transactions(first: 5) { totalCount edges { change { microUsd } } } }
      userErrors { code path } } }"""
    made = (await served.ask(document, credential=operator, w=ids.encode("Workspace", owner.workspace.id))).data["creditsAdjust"]
    assert made == {
        "transfer": {
            "amount": {"microUsd": 500_000},
            "debit": {"kind": "ADJUSTMENTS"},
            "credit": {"kind": "CASH", "balance": {"microUsd": 3_500_000}},
            "actor": {"kind": "OPERATOR", "name": "Otto Operator"},
        },
        "credits": {
            "balance": {"microUsd": 3_500_000},
            "accounts": [{"kind": "CASH", "balance": {"microUsd": 3_500_000}}],
            "transactions": {"totalCount": 2, "edges": [{"change": {"microUsd": 500_000}}, {"change": {"microUsd": 3_000_000}}]},
        },
        "userErrors": [],
    }
    assert (await run(served, "S4_Credits", owner.session))["credits"]["balance"] == {"microUsd": 3_500_000}
    assert (await run(served, "S4_Credits", operator))["credits"]["balance"] == {"microUsd": 0}
    unknown = (await served.ask(document, credential=operator, w=ids.encode("Workspace", owner.user_id))).data["creditsAdjust"]
    assert (unknown["transfer"], unknown["userErrors"]) == (None, [{"code": "NOT_FOUND", "path": ["input", "workspaceId"]}])


async def test_an_operator_inside_another_workspace_refetches_it(served: Served) -> None:
    """With `X-Workspace-Id` an operator is in a workspace without being a member: it is shown, and found again by its ID."""
    operator, owner = await served.operator(), await served.owner()
    document = "query Q($id: ID!) { workspace { id } node(id: $id) { id } viewer { role } }"
    workspace_id = ids.encode("Workspace", owner.workspace.id)
    answer = await served.ask(document, credential=operator, workspace=owner.workspace.id, id=workspace_id)
    assert answer.data == {"workspace": {"id": workspace_id}, "node": {"id": workspace_id}, "viewer": {"role": "OWNER"}}


async def test_every_operation_that_the_issue_names_is_exercised_here() -> None:
    """The list of the issue, so that none is forgotten: each name stands in a call above."""
    named = [
        *("S0_Keys", "S0_KeyCreate", "S0_KeyDelete", "S0_CreditsBalance", "S0_CreditsTransactions", "S0_UsageSummary", "S0_UsageBreakdown"),
        *(
            "S0_UsageTimeSeries",
            "S4_Models",
            "S4_Key",
            "S4_Credits",
            "KeyUpdate",
            "KeyRotate",
            "Members",
            "MemberInvite",
            "InvitationAccept",
        ),
        *("MemberRole", "MemberRemove", "WorkspaceCreate", "CreditsAdjust", "Refetch"),
    ]
    text = Path(__file__).read_text(encoding="utf-8")
    assert [name for name in named if name not in documents() or text.count(f'"{name}"') < 2] == []
