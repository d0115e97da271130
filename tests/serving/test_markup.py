"""Markup: the most particular rule in force at admission makes the charge, once, exactly; the list value stays what it is."""

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from domain.access.actors import Actor
from domain.access.secrets import fingerprint
from domain.apps import registry
from domain.apps.registry import NewApp
from domain.money import tiers
from domain.money.markup import RuleView, Standing
from models import database
from models.enums import ActorKind
from models.ids import uuid7
from schema import ids
from tests.money.own_books import OwnBooks
from tests.schema.serving import Served, running
from tests.schema.test_operations import answer, run
from tests.serving.openings import ending, opening, sign, used

NOBODY = Actor(ActorKind.SYSTEM, None, "tests")
CREATE = """
mutation Create($n: Int!, $d: Int! = 1, $key: String!, $model: String, $place: ID, $tier: ID, $app: ID, $from: DateTime) {
  markupRuleCreate(input: {
    numerator: $n, denominator: $d, idempotencyKey: $key, model: $model, workspaceId: $place, tierId: $tier, appId: $app, effectiveFrom: $from
  }) { markupRule { id model { name } workspace { id } tier { slug } app { slug } markup { numerator denominator } effectiveUntil } userErrors { code path } }
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
    one = RuleView(uuid7(), None, None, None, None, numerator, denominator, now, None, NOBODY, now)
    exact, charge = Fraction(picousd * numerator, denominator), one.charge(picousd)
    assert abs(charge - exact) <= Fraction(1, 2)
    assert charge % 2 == 0 or abs(charge - exact) != Fraction(1, 2)


def test_the_most_particular_rule_makes_the_charge(own: OwnBooks) -> None:
    """Operator_Markup, Operator_Margins, Operator_MarkupEnd: a workspace's rule before a model's before all; list value and upstream cost stay; the
    receipt tells the fraction; an ended rule holds no more, and for the call before it still did."""

    async def story() -> None:
        async with running() as served:
            boss, mine, other = await served.operator(), await served.owner(name="Mia"), await served.owner(name="Noa")
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
            tier = (await tiers.listed())[0].slug
            shown = await registry.create(other.caller, NewApp(f"app-{uuid7().hex[-12:]}", "App"))
            both = await create(served, boss, n=2, tier=ids.encode("Tier", tier), app=ids.encode("App", shown.id))
            assert (both["markupRule"]["tier"], both["markupRule"]["app"], both["markupRule"]["workspace"]) == ({"slug": tier}, {"slug": shown.slug}, None)
            later = (datetime.now(UTC) + timedelta(days=1)).isoformat().replace("+00:00", "Z")
            await create(served, boss, n=9, place=place, **{"from": later})
            ended = (await run(served, "Operator_MarkupEnd", boss, id=own_rule["id"]))["markupRuleEnd"]
            assert (ended["userErrors"], ended["markupRule"]["effectiveUntil"] is None) == ([], False)
            again = (await run(served, "Operator_MarkupEnd", boss, id=own_rule["id"]))["markupRuleEnd"]
            assert [error["code"] for error in again["userErrors"]] == ["INVALID_STATE"]
            after = await served.call(secrets[mine.session], price, input_tokens=1000, output_tokens=1000)
            assert await amounts(after) == (3000, 4500)
            told = (await run(served, "Operator_Margins", boss))["operator"]
            assert [rule["markup"]["numerator"] for rule in told["markupRules"]["nodes"]] == [9, 2, 1, 3, 11]
            assert {rule["createdBy"]["name"] for rule in told["markupRules"]["nodes"]} == {"Otto Operator"}
            assert [rule["app"] for rule in told["markupRules"]["nodes"]] == [None, {"slug": shown.slug}, None, None, None]
            assert [rule["tier"] for rule in told["markupRules"]["nodes"]] == [None, {"slug": tier}, None, None, None]
            assert [rule["effectiveUntil"] is None for rule in told["markupRules"]["nodes"]] == [True, True, False, True, True]
            margins = [
                (group["dimensions"]["workspace"]["name"], group["dimensions"]["modelName"], *(value["usd"] for value in group["metrics"].values()))
                for group in told["usage"]["groups"]
                if group["dimensions"]["modelName"] == "marked"
            ]
            assert margins == [("Mia's lab", "marked", "0.012", "0.0118", "0.012", "-0.0002"), ("Noa's lab", "marked", "0.006", "0.009", "0.006", "0.003")]
            given = (await run(served, "SubscriptionGrant", boss, w=place, tier=ids.encode("Tier", tier)))["subscriptionGrant"]
            assert given["userErrors"] == []
            question = """{ operator { usage { groups(by: [WORKSPACE], orderBy: { metric: MARGIN, direction: ASC }) {
                dimensions { workspace { name billing { tier { slug } } } } metrics { margin { usd } } } } } }"""
            groups = (await served.ask(question, credential=boss)).data["operator"]["usage"]["groups"]
            by_tier = [(group["dimensions"]["workspace"]["billing"]["tier"], group["metrics"]["margin"]["usd"]) for group in groups]
            assert by_tier == [({"slug": tier}, "-0.0002"), (None, "0.003")]
            await own.sound()

    own.run(story())


def rule(place: int, **scope: Any) -> RuleView:
    """A rule that holds since so many days ago."""
    since = datetime.now(UTC) - timedelta(days=place)
    none: dict[str, Any] = {"model": None, "workspace_id": None, "tier": None, "app_id": None}
    return RuleView(id=uuid7(), numerator=place, denominator=1, effective_from=since, effective_until=None, creator=NOBODY, created_at=since, **(none | scope))


def test_the_order_of_rules() -> None:
    """App before workspace before tier before model, whatever else the rules name; among equals, the newer."""
    workspace, app = uuid7(), uuid7()
    standing = Standing(workspace, frozenset({"pro", "team"}), app)
    ordered = [
        rule(1, app_id=app, model="m"),
        rule(2, app_id=app),
        rule(1, workspace_id=workspace, tier="pro", model="m"),
        rule(1, workspace_id=workspace, model="m"),
        rule(2, workspace_id=workspace),
        rule(1, tier="team", model="m"),
        rule(2, tier="pro", model="m"),
        rule(1, tier="pro"),
        rule(1, model="m"),
        rule(1),
        rule(9),
    ]
    assert sorted(ordered, key=lambda each: each.particularity, reverse=True) == ordered
    assert all(each.fits(standing) for each in ordered)
    assert [each.fits(Standing(workspace)) for each in ordered] == [False, False, False, True, True, False, False, False, True, True, True]
    assert [each.fits(Standing(uuid7(), frozenset({"team"}))) for each in ordered] == [False] * 5 + [True, False, False, True, True, True]


def test_a_swept_call_is_charged_by_the_rule_that_held_for_it(own: OwnBooks) -> None:
    """Who called is kept with the signs of life: the sweep of another process charges by the rule of the call's tier, though that is over."""

    async def story() -> None:
        async with running() as served:
            boss, mine = await served.operator(), await served.owner()
            await served.credit(mine, 1_000_000)
            secret = (await served.key(mine))[1]
            price = await served.offer("swept", input_usd="1", output_usd="2")
            await create(served, boss, n=3, model="swept", place=ids.encode("Workspace", mine.workspace.id))
            standing, factor = await served.calls.standings.of(fingerprint(secret), None, {"swept"}, datetime.now(UTC))
            assert (standing, factor) == (Standing(mine.workspace.id), Fraction(3))
            unknown = await served.calls.standings.of(fingerprint("tg_live_nobody"), None, {"swept"}, datetime.now(UTC))
            assert unknown == (None, served.book.markup.factor({"swept"}, Standing(uuid7()), datetime.now(UTC)))
            asked = opening(secret, price, input_tokens=1000, max_output=100, standing=Standing(mine.workspace.id, frozenset({"gone"})), markup=Fraction(5))
            let_in = await served.calls.admit(asked)
            assert let_in.hold_microusd == (1000 + 200) * 5
            view = rule(5, tier="gone", workspace_id=mine.workspace.id)
            columns = "id, tier, workspace_id, numerator, denominator, creator_kind, creator_name, effective_from, created_at"
            gone = {"slug": "gone", "name": "Gone", "price_cents": 100, "limits": [{"resource": "tokens", "window": "24h", "limit": 1000}]}
            await tiers.keep([*(await tiers.listed()), *tiers.tiers_of({"tier": [gone]})], at=datetime.now(UTC))
            values = (view.id, view.workspace_id, view.effective_from)
            await database.fetch(f"INSERT INTO markup_rule ({columns}) VALUES ($1, 'gone', $2, 5, 1, 'system', 'tests', $3, $3)", *values)
            await served.book.refresh()
            await served.calls.keep(sign(asked, let_in.workspace_id, used(1000, 50)))
            await own.expire(asked.id)
            assert await served.calls.sweep() == 1
            assert await amounts(asked.id) == (1100, 5500)
            question = "query Q($id: String!) { receipt(callId: $id) { markup { numerator denominator } } }"
            assert (await served.ask(question, credential=mine.session, id=str(asked.id))).data == {"receipt": {"markup": {"numerator": 5, "denominator": 1}}}
            await own.sound()

    own.run(story())


def test_nonsense_is_refused(own: OwnBooks) -> None:
    """Negative, zero, absurd and past values, what is nowhere, and an app of another workspace than the rule's: refused at their place, and no rule is made."""

    async def story() -> None:
        async with running() as served:
            boss, mine, other = await served.operator(), await served.owner(), await served.owner()
            before = await database.fetch_value("SELECT count(*) FROM markup_rule")
            app = ids.encode("App", (await registry.create(other.caller, NewApp(f"app-{uuid7().hex[-12:]}", "App"))).id)
            for given_, path in (
                ({"n": -1}, "numerator"),
                ({"n": 1_000_001}, "numerator"),
                ({"n": 101}, "numerator"),
                ({"n": 1, "d": 0}, "denominator"),
                ({"n": 1, "d": -5}, "denominator"),
                ({"n": 1, "model": "nobody"}, "model"),
                ({"n": 1, "place": ids.encode("Workspace", uuid7())}, "workspaceId"),
                ({"n": 1, "place": "nonsense"}, "workspaceId"),
                ({"n": 1, "tier": ids.encode("Tier", "nobody-s")}, "tierId"),
                ({"n": 1, "tier": "nonsense"}, "tierId"),
                ({"n": 1, "app": ids.encode("App", uuid7())}, "appId"),
                ({"n": 1, "app": "nonsense"}, "appId"),
                ({"n": 1, "app": app, "place": ids.encode("Workspace", mine.workspace.id)}, "appId"),
                ({"n": 1, "from": "2020-01-01T00:00:00Z"}, "effectiveFrom"),
                ({"n": 1, "key": ""}, "idempotencyKey"),
            ):
                refused = await create(served, boss, **given_)
                assert (refused["markupRule"], [error["path"] for error in refused["userErrors"]]) == (None, [["input", path]])
            assert (await run(served, "Operator_MarkupEnd", boss, id=ids.encode("MarkupRule", uuid7())))["markupRuleEnd"]["userErrors"][0]["code"] == "NOT_FOUND"
            assert (await answer(served, "Operator_Markup", mine.session)).codes == ["FORBIDDEN"]
            assert await database.fetch_value("SELECT count(*) FROM markup_rule") == before

    own.run(story())
