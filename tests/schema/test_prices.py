"""Prices that an operator enters over GraphQL: versions with rows, once for each key, refused when absurd."""

from datetime import UTC, datetime
from typing import Any

import pytest

from models import database
from models.ids import uuid7
from schema import ids
from tests.schema.serving import Served
from tests.schema.test_operations import answer, run

pytestmark = pytest.mark.anyio

CREATE = """
mutation Create($model: String!, $rows: [PriceRowInput!]!, $key: String!, $source: String! = "invoice 7", $upstream: ID, $from: DateTime) {
  priceCreate(input: { model: $model, rows: $rows, source: $source, idempotencyKey: $key, upstreamId: $upstream, effectiveFrom: $from }) {
    price {
      id model { name } inputUsdPerMillion outputUsdPerMillion source effectiveFrom createdBy { kind name }
      rows { bucket usd per aboveInputTokens serviceTier geography }
    }
    userErrors { __typename code path }
  }
}
"""
ROWS = [{"bucket": "UNCACHED_INPUT", "usd": "3"}, {"bucket": "OUTPUT", "usd": "15.5"}]


async def create(served: Served, credential: str, **variables: Any) -> Any:
    """The payload of priceCreate."""
    values = {"rows": ROWS, "key": uuid7().hex, **variables}
    return (await served.ask(CREATE, credential=credential, **values)).data["priceCreate"]


async def offered(served: Served) -> str:
    """A model of this test alone."""
    name = f"m-{uuid7().hex}"
    await served.offer(name, input_usd="1", output_usd="2")
    return name


async def versions(model: str) -> int:
    """How many versions of its price a model has."""
    return int(await database.fetch_value("SELECT count(*) FROM price WHERE model = $1", model))


async def test_a_price_is_entered_and_charged(served: Served) -> None:
    """The next call costs what the new version says, the call before keeps the version that it was charged at; who entered it is kept and audited."""
    boss, mine, model = await served.operator(), await served.owner(), await offered(served)
    await served.credit(mine, 50_000_000)
    _, secret = await served.key(mine)
    old = served.book.price(model, datetime.now(UTC))
    assert old is not None
    await served.call(secret, old, input_tokens=1000, output_tokens=1000)
    made = await create(served, boss, model=model)
    assert made["userErrors"] == []
    price = made["price"]
    assert (price["model"], price["source"], price["createdBy"]) == ({"name": model}, "invoice 7", {"kind": "OPERATOR", "name": "Otto Operator"})
    assert (price["inputUsdPerMillion"], price["outputUsdPerMillion"]) == ("3.00", "15.50")
    new = served.book.price(model, datetime.now(UTC))
    assert new is not None
    assert ids.encode("Price", new.id) == price["id"]
    await served.call(secret, new, input_tokens=1000, output_tokens=1000)
    charged = await database.fetch(
        "SELECT price_id, charge_microusd FROM usage_event WHERE workspace_id = $1 ORDER BY id", mine.workspace.id
    )
    assert [tuple(row) for row in charged] == [(old.id, 3000), (new.id, 18_500)]
    question = "query Q($id: ID!) { operator { auditEvents(first: 5, filter: { subjectId: $id }) { nodes { action workspace { id } changes } } } }"
    (event,) = (await served.ask(question, credential=boss, id=price["id"])).data["operator"]["auditEvents"]["nodes"]
    assert (event["action"], event["workspace"], event["changes"]["model"]) == ("price.create", None, [None, model])


async def test_the_contract_s_price_is_entered_once(served: Served) -> None:
    """Operator_Price: rows for tokens, searches by the thousand and long prompts; the same key and input return the same version, another input is refused."""
    boss = await served.operator()
    await served.offer("auto", input_usd="1", output_usd="2")
    first = (await run(served, "Operator_Price", boss))["priceCreate"]
    assert first["userErrors"] == []
    count = await versions("auto")
    assert (await run(served, "Operator_Price", await served.operator()))["priceCreate"] == first
    assert await versions("auto") == count
    refused = await create(served, boss, model="auto", key="p1")
    assert [error["code"] for error in refused["userErrors"]] == ["IDEMPOTENCY_CONFLICT"]
    question = "query Q($id: ID!) { node(id: $id) { ... on Price { rows { bucket usd per aboveInputTokens } } } }"
    rows = (await served.ask(question, credential=boss, id=first["price"]["id"])).data["node"]["rows"]
    assert sorted(map(str, rows)) == sorted(
        map(
            str,
            [
                {"bucket": "UNCACHED_INPUT", "usd": "3", "per": 1_000_000, "aboveInputTokens": None},
                {"bucket": "WEB_SEARCHES", "usd": "10", "per": 1000, "aboveInputTokens": None},
                {"bucket": "UNCACHED_INPUT", "usd": "6", "per": 1_000_000, "aboveInputTokens": 200_000},
            ],
        )
    )
    await served.offer("auto", input_usd="1", output_usd="2")


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"usd": "-1"}, "usd"),
        ({"usd": "0.0000001"}, "usd"),
        ({"usd": "1000001"}, "usd"),
        ({"per": 0}, "per"),
        ({"per": 7}, "usd"),
        ({"aboveInputTokens": 0}, "aboveInputTokens"),
        ({"aboveInputTokens": 9_007_199_254_740_991}, "aboveInputTokens"),
        ({"serviceTier": "x" * 65}, "serviceTier"),
        ({"geography": "e\nu"}, "geography"),
    ],
)
async def test_an_absurd_row_is_refused(served: Served, row: dict[str, Any], field: str) -> None:
    """F14: negative, inexact, sentinel-like and malformed prices are refused at their place, and nothing is entered."""
    boss, model = await served.operator(), await offered(served)
    refused = await create(served, boss, model=model, rows=[*ROWS[:1], {"bucket": "OUTPUT", "usd": "1", **row}])
    assert (refused["price"], refused["userErrors"]) == (None, [{"__typename": "InvalidInputError", "code": "INVALID", "path": ["input", "rows", "1", field]}])
    assert await versions(model) == 1


@pytest.mark.parametrize("usd", ["NaN", "Infinity", "1e3", "9" * 60, 1.5, True, None])
async def test_what_is_no_number_is_refused(served: Served, usd: object) -> None:
    """F14: what is no exact decimal does not pass the scalar."""
    boss, model = await served.operator(), await offered(served)
    variables: dict[str, Any] = {"model": model, "rows": [{"bucket": "OUTPUT", "usd": usd}], "key": uuid7().hex}
    assert (await served.ask(CREATE, credential=boss, **variables)).codes == ["BAD_USER_INPUT"]
    assert await versions(model) == 1


async def test_other_nonsense_is_refused(served: Served) -> None:
    """No rows, the same row twice (the standard tier is no tier), an unknown model or upstream, an empty source or key: refused, nothing entered."""
    boss, mine, model = await served.operator(), await served.owner(), await offered(served)
    for given, path in (
        ({"rows": []}, ["rows"]),
        ({"rows": [*ROWS, {**ROWS[0], "serviceTier": "standard"}]}, ["rows"]),
        ({"model": "nobody"}, ["model"]),
        ({"upstream": ids.encode("Upstream", "nobody")}, ["upstreamId"]),
        ({"upstream": "nonsense"}, ["upstreamId"]),
        ({"source": " "}, ["source"]),
        ({"key": ""}, ["idempotencyKey"]),
    ):
        refused = await create(served, boss, **{"model": model, **given})
        assert [error["path"] for error in refused["userErrors"]] == [["input", *path]]
    assert await versions(model) == 1
    assert (await answer(served, "Operator_Price", mine.session)).codes == ["FORBIDDEN"]


async def test_a_price_from_the_past_changes_no_charge(served: Served) -> None:
    """A version that began before others is entered in its place, and the newest still holds now."""
    boss, model = await served.operator(), await offered(served)
    held = served.book.price(model, datetime.now(UTC))
    made = await create(served, boss, model=model, **{"from": "2026-01-01T00:00:00Z"})
    assert (made["userErrors"], made["price"]["effectiveFrom"]) == ([], "2026-01-01T00:00:00.000Z")
    now = served.book.price(model, datetime.now(UTC))
    assert held is not None
    assert now is not None
    assert now.id == held.id
