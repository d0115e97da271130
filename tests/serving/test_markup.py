"""Markup: the most particular rule in force at admission makes the charge, once, exactly; the list value stays what it is."""

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from domain.access.actors import Actor
from domain.money.markup import RuleView
from models import database
from models.enums import ActorKind
from models.ids import uuid7
from schema import ids
from tests.money.own_books import OwnBooks
from tests.schema.serving import Served, running
from tests.schema.test_operations import answer, run
from tests.serving.openings import ending, opening, used

CREATE = """
mutation Create($n: Int!, $d: Int! = 1, $key: String!, $model: String, $place: ID, $tier: ID, $app: ID, $from: DateTime) {
  markupRuleCreate(input: {
    numerator: $n, denominator: $d, idempotencyKey: $key, model: $model, workspaceId: $place, tierId: $tier, appId: $app, effectiveFrom: $from
  }) { markupRule { id model { name } workspace { id } markup { numerator denominator } effectiveUntil } userErrors { code path } }
}
"""


async def create(served: Served, credential: str, **variables: Any) -> Any:
    """The payload of markupRuleCreate."""
    return (await served.ask(CREATE, credential=credential, **{"key": uuid7().hex, **variables})).data["markupRuleCreate"]


async def amounts(call_id: UUID) -> tuple[int, int]:
    """What a call is worth at list price, and what it was charged; microdollars."""
    row = await database.fetch_row("SELECT list_microusd, charge_microusd FROM usage_event WHERE record_id = $1", call_id)
    assert row is not None
    return row["list_microusd"], row["charge_microusd"]


@given(st.integers(0, 10**15), st.integers(0, 10**6), st.integers(1, 10**6))
def test_a_charge_is_the_nearest_picodollar(picousd: int, numerator: int, denominator: int) -> None:
    """The list value times the fraction, off by half a picodollar at most, and even where both are as near."""
    now = datetime.now(UTC)
    rule = RuleView(uuid7(), None, None, numerator, denominator, now, None, Actor(ActorKind.SYSTEM, None, "tests"), now)
    exact, charge = Fraction(picousd * numerator, denominator), rule.charge(picousd)
    assert abs(charge - exact) <= Fraction(1, 2)
    assert charge % 2 == 0 or abs(charge - exact) != Fraction(1, 2)


def test_the_most_particular_rule_makes_the_charge(own: OwnBooks) -> None:
    """Operator_Markup, Operator_Margins, Operator_MarkupEnd: a workspace's rule before a model's before all; list value and upstream cost stay; the
    receipt tells the fraction; an ended rule holds no more, and for the call before it still did."""

    async def story() -> None:
        async with running() as served:
            boss, mine, other = await served.operator(), await served.owner(), await served.owner()
            secrets = {}
            for owner in (mine, other):
                await served.credit(owner, 50_000_000)
                secrets[owner.session] = (await served.key(owner))[1]
            price = await served.offer("marked", input_usd="1", output_usd="2")
            plain = await served.call(secrets[mine.session], price, input_tokens=1000, output_tokens=1000)
            assert await amounts(plain) == (3000, 3000)
            everywhere = (await run(served, "Operator_Markup", boss))["markupRuleCreate"]
            assert everywhere["userErrors"] == []
            assert (await run(served, "Operator_Markup", boss))["markupRuleCreate"] == everywhere
            call = await served.call(secrets[mine.session], price, input_tokens=1000, output_tokens=1000)
            assert await amounts(call) == (3000, 3300)
            place = ids.encode("Workspace", mine.workspace.id)
            made = await create(served, boss, n=3, d=2, model="marked")
            assert (made["markupRule"]["model"], made["markupRule"]["workspace"]) == ({"name": "marked"}, None)
            asked = opening(secrets[other.session], price, input_tokens=1000, max_output=1000)
            let_in = await served.calls.admit(asked)
            await served.calls.settle(ending(let_in, price, used(1000, 1000)))
            question = "query Q($id: String!) { receipt(callId: $id) { listValue { microUsd } markup { numerator denominator } charge { microUsd } } }"
            told = (await served.ask(question, credential=other.session, id=str(asked.id))).data["receipt"]
            assert told == {"listValue": {"microUsd": 3000}, "markup": {"numerator": 3, "denominator": 2}, "charge": {"microUsd": 4500}}
            own_rule = (await create(served, boss, n=1, d=3, place=place))["markupRule"]
            assert (own_rule["workspace"], own_rule["markup"]) == ({"id": place}, {"numerator": 1, "denominator": 3})
            mine_now = await served.call(secrets[mine.session], price, input_tokens=1000, output_tokens=1000)
            theirs = await served.call(secrets[other.session], price, input_tokens=1000, output_tokens=1000)
            assert (await amounts(mine_now), await amounts(theirs)) == ((3000, 1000), (3000, 4500))
            later = (datetime.now(UTC) + timedelta(days=1)).isoformat().replace("+00:00", "Z")
            await create(served, boss, n=9, place=place, **{"from": later})
            ended = (await run(served, "Operator_MarkupEnd", boss, id=own_rule["id"]))["markupRuleEnd"]
            assert (ended["userErrors"], ended["markupRule"]["effectiveUntil"] is None) == ([], False)
            again = (await run(served, "Operator_MarkupEnd", boss, id=own_rule["id"]))["markupRuleEnd"]
            assert [error["code"] for error in again["userErrors"]] == ["INVALID_STATE"]
            after = await served.call(secrets[mine.session], price, input_tokens=1000, output_tokens=1000)
            assert await amounts(after) == (3000, 4500)
            told = (await run(served, "Operator_Margins", boss))["operator"]
            assert [rule["markup"]["numerator"] for rule in told["markupRules"]["nodes"]] == [9, 1, 3, 11]
            assert {rule["createdBy"]["name"] for rule in told["markupRules"]["nodes"]} == {"Otto Operator"}
            assert {group["metrics"]["listValue"]["usd"] for group in told["usage"]["groups"]} == {"0.012", "0.006"}
            await own.sound()

    own.run(story())


def test_a_hold_covers_the_dearest_rule(own: OwnBooks) -> None:
    """Who calls is learnt with the hold, so it covers every rule of the model; rules of other models, ended ones and those to come do not count."""

    async def story() -> None:
        async with running() as served:
            boss, mine = await served.operator(), await served.owner()
            for model in ("held", "dear"):
                await served.offer(model, input_usd="1", output_usd="2")
            factor, now = served.book.markup.dearest, datetime.now(UTC)
            before = factor({"held"}, now)
            workspace = ids.encode("Workspace", mine.workspace.id)
            await create(served, boss, n=50, model="held", place=workspace)
            await create(served, boss, n=60, model="dear")
            now = datetime.now(UTC)
            assert (factor({"held"}, now), factor({"held", "dear"}, now)) == (Fraction(50), Fraction(60))
            assert factor({"other"}, now) == before

    own.run(story())


def test_nonsense_is_refused(own: OwnBooks) -> None:
    """Negative, zero, absurd and past values, what is nowhere, and rules of a tier or an app: refused at their place, and no rule is made."""

    async def story() -> None:
        async with running() as served:
            boss, mine = await served.operator(), await served.owner()
            before = await database.fetch_value("SELECT count(*) FROM markup_rule")
            for given_, path in (
                ({"n": -1}, "numerator"),
                ({"n": 1_000_001}, "numerator"),
                ({"n": 101}, "numerator"),
                ({"n": 1, "d": 0}, "denominator"),
                ({"n": 1, "d": -5}, "denominator"),
                ({"n": 1, "model": "nobody"}, "model"),
                ({"n": 1, "place": ids.encode("Workspace", uuid7())}, "workspaceId"),
                ({"n": 1, "place": "nonsense"}, "workspaceId"),
                ({"n": 1, "tier": ids.encode("Tier", "pro")}, "tierId"),
                ({"n": 1, "app": ids.encode("App", uuid7())}, "appId"),
                ({"n": 1, "from": "2020-01-01T00:00:00Z"}, "effectiveFrom"),
                ({"n": 1, "key": ""}, "idempotencyKey"),
            ):
                refused = await create(served, boss, **given_)
                assert (refused["markupRule"], [error["path"] for error in refused["userErrors"]]) == (None, [["input", path]])
            assert (await run(served, "Operator_MarkupEnd", boss, id=ids.encode("MarkupRule", uuid7())))["markupRuleEnd"]["userErrors"][0]["code"] == "NOT_FOUND"
            assert (await answer(served, "Operator_Markup", mine.session)).codes == ["FORBIDDEN"]
            assert await database.fetch_value("SELECT count(*) FROM markup_rule") == before

    own.run(story())
