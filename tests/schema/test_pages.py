"""Pages of lists that grow: Relay's arguments, opaque cursors, and rows that come and go between pages."""

from typing import Any

import pytest

from schema import ids
from tests.schema.serving import Owner, Served

pytestmark = pytest.mark.anyio

KEYS = """query Q($first: Int, $after: String, $last: Int, $before: String) {
  apiKeys(first: $first, after: $after, last: $last, before: $before) {
    totalCount edges { cursor node { name } } nodes { name } pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}"""


async def page(served: Served, owner: Owner, **arguments: Any) -> Any:
    """A page of an owner's keys."""
    return (await served.ask(KEYS, credential=owner.session, **arguments)).data["apiKeys"]


def names(found: Any) -> list[str]:
    """The names on a page, from its edges; its nodes say the same."""
    assert [edge["node"] for edge in found["edges"]] == found["nodes"]
    return [node["name"] for node in found["nodes"]]


async def test_pages_follow_each_other_both_ways(served: Served) -> None:
    """Forward and backward pages cover the list once, in its order; page information tells both ends and the count is of the whole."""
    owner = await served.owner()
    for number in range(5):
        await served.key(owner, name=str(number))
    first = await page(served, owner, first=2)
    assert (names(first), first["totalCount"]) == (["4", "3"], 5)
    assert (first["pageInfo"]["hasNextPage"], first["pageInfo"]["hasPreviousPage"]) == (True, False)
    second = await page(served, owner, first=2, after=first["pageInfo"]["endCursor"])
    third = await page(served, owner, first=2, after=second["pageInfo"]["endCursor"])
    assert (names(second), names(third)) == (["2", "1"], ["0"])
    assert (third["pageInfo"]["hasNextPage"], third["pageInfo"]["hasPreviousPage"]) == (False, True)
    back = await page(served, owner, last=2, before=third["pageInfo"]["startCursor"])
    assert (names(back), back["pageInfo"]["hasPreviousPage"]) == (["2", "1"], True)
    assert names(await page(served, owner, last=2)) == ["1", "0"]
    assert names(await page(served, owner)) == ["4", "3", "2", "1", "0"]


async def test_an_empty_list_is_a_page_without_cursors(served: Served) -> None:
    """No rows, no cursors, nothing before or after."""
    owner = await served.owner()
    assert await page(served, owner, first=10) == {
        "totalCount": 0,
        "edges": [],
        "nodes": [],
        "pageInfo": {"hasNextPage": False, "hasPreviousPage": False, "startCursor": None, "endCursor": None},
    }


async def test_pages_stay_right_while_rows_are_added_and_taken_out(served: Served) -> None:
    """F40: rows that come after the first page was read neither repeat nor skip others, and the row of a cursor may be gone."""
    owner = await served.owner()
    for number in range(4):
        await served.ask(
            "mutation M($e: EmailAddress!) { memberInvite(input: { email: $e, role: VIEWER }) { member { id } } }",
            credential=owner.session,
            e=f"p{number}-{owner.user_id.hex}@people.test",
        )
    document = """query Q($first: Int, $after: String) {
      workspace { members(first: $first, after: $after) { nodes { id user { email } } pageInfo { endCursor hasNextPage } } }
    }"""
    first = (await served.ask(document, credential=owner.session, first=3)).data["workspace"]["members"]
    last_seen = first["nodes"][-1]["id"]
    await served.ask(
        "mutation M($id: ID!) { memberRemove(input: { id: $id }) { removedMemberId } }", credential=owner.session, id=last_seen
    )
    await served.ask(
        "mutation M($e: EmailAddress!) { memberInvite(input: { email: $e, role: VIEWER }) { member { id } } }",
        credential=owner.session,
        e=f"p9-{owner.user_id.hex}@people.test",
    )
    rest = (await served.ask(document, credential=owner.session, first=3, after=first["pageInfo"]["endCursor"])).data["workspace"][
        "members"
    ]
    assert [node["user"]["email"][:2] for node in first["nodes"][1:] + rest["nodes"]] == ["p0", "p1", "p2", "p3", "p9"]
    assert rest["pageInfo"]["hasNextPage"] is False


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"first": 0}, "`first` is 1 to 100."),
        ({"first": 101}, "`first` is 1 to 100."),
        ({"first": -1}, "`first` is 1 to 100."),
        ({"last": 101}, "`last` is 1 to 100."),
        ({"first": 1, "last": 1}, "Ask for `first` or for `last`, not for both."),
        ({"after": "junk"}, "`after` is no cursor of this list."),
        ({"after": ""}, "`after` is no cursor of this list."),
        ({"before": ids.encode("MemberCursor", "0190b6c0-0000-7000-8000-000000000000")}, "`before` is no cursor of this list."),
        ({"after": ids.encode("ApiKeyCursor", "1")}, "`after` is no cursor of this list."),
    ],
)
async def test_a_page_that_cannot_be_is_bad_input_with_the_reason(served: Served, arguments: dict[str, Any], says: str) -> None:
    """F40: sizes outside of 1 to 100, both ends at once, and cursors of other lists are refused in words, never with a fault of ours."""
    owner = await served.owner()
    answer = await served.ask(KEYS, credential=owner.session, **arguments)
    assert (answer.codes, answer.body["data"]) == (["BAD_USER_INPUT"], {"apiKeys": None})
    assert answer.body["errors"][0]["message"] == says


async def test_prices_are_paged_in_the_book(served: Served) -> None:
    """A model's price versions are a connection too, newest first, for strangers as well."""
    price = await served.offer(f"paged-{ids.encode('X', 1)}", input_usd="1", output_usd="2")
    newer = await served.offer(price.model, input_usd="1.5", output_usd="2")
    document = "query Q($n: String!, $a: String) { model(name: $n) { prices(first: 1, after: $a) { totalCount nodes { id } pageInfo { endCursor hasNextPage } } } }"
    first = (await served.ask(document, n=price.model)).data["model"]["prices"]
    assert (first["totalCount"], first["nodes"], first["pageInfo"]["hasNextPage"]) == (2, [{"id": ids.encode("Price", newer.id)}], True)
    second = (await served.ask(document, n=price.model, a=first["pageInfo"]["endCursor"])).data["model"]["prices"]
    assert (second["nodes"], second["pageInfo"]["hasNextPage"]) == ([{"id": ids.encode("Price", price.id)}], False)
