"""What an operation may ask for: bounds of its shape and cost, told before it runs, in time that grows with the document only."""

import pytest
from graphql import build_schema, get_introspection_query, parse, validate
from strawberry.extensions.validation_cache import _get_validate_cache

from schema.admission import MEMBER_COST, STRANGER_COST, operations_of, shape_of
from schema.admission import fragments_of as fragments
from schema.engine import REMEMBERED_DOCUMENTS
from schema.throttle import STRANGERS
from tests.schema.serving import CLOCK, Served, served_schema
from tests.schema.test_operations import documents

pytestmark = pytest.mark.anyio

BOMB = (
    "{ ...f0 } "
    + " ".join(f"fragment f{n} on Query {{ ...f{n + 1} ...f{n + 1} }}" for n in range(60))
    + " fragment f60 on Query { a: __typename }"
)


def remembered() -> tuple[int, int]:
    """How often a validation was found, and how often it was not."""
    info = _get_validate_cache(REMEMBERED_DOCUMENTS).cache_info()  # type: ignore[attr-defined]  # it is an lru_cache, typed as a function
    return info.hits, info.misses


def cost(document: str, **variables: object) -> int:
    """The most that a document's first operation can cost."""
    parsed = parse(document)
    return served_schema().prices.requested(operations_of(parsed)[0], parsed, variables)


async def test_a_fragment_bomb_is_refused_after_one_visit_of_each_fragment(served: Served) -> None:
    """2^60 fields from 61 fragments: measured in one pass (Strawberry's own limiters would take years), refused with the count's ceiling."""
    document = parse(BOMB)
    shape = shape_of(operations_of(document)[0], fragments(document))
    assert (shape.depth, shape.fields, shape.aliases) == (1, 10**9, 10**9)
    answer = await served.ask(BOMB)
    assert (answer.status, answer.codes[0]) == (400, "GRAPHQL_VALIDATION_FAILED")


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ("{ node(id: 1) " + "{ ... on ApiKey { createdBy { apiKey " * 8 + "{ id }" + " } } }" * 8 + " }", "levels deep; 16 are allowed"),
        ("{ " + "a: __typename " * 501 + "}", "selects 501 fields; 500 are allowed"),
        ("{ " + " ".join(f"a{n}: __typename" for n in range(31)) + " }", "uses 31 aliases; 30 are allowed"),
        ("{ __typename " + "@include(if: true) " * 21 + "}", "more than 20 directives"),
        (" ".join(f"query Q{n} {{ __typename }}" for n in range(11)), "holds 11 operations; 10 are allowed"),
        ("{ " + "__typename " * 2000 + "}", "tokens"),
        ("{ ...a } fragment a on Query { ...b } fragment b on Query { ...a }", "within itself"),
        ("{ ...unknown }", "Unknown fragment"),
    ],
    ids=["depth", "fields", "aliases", "directives", "operations", "tokens", "cycle", "unknown fragment"],
)
async def test_a_document_beyond_a_bound_is_refused_with_the_bound(served: Served, document: str, says: str) -> None:
    """Each bound is told with what is allowed, before anything runs."""
    owner = await served.owner()
    answer = await served.ask(document, credential=owner.session, operation="Q0" if "Q0" in document else None)
    assert answer.status == 400
    assert any(says in error["message"] for error in answer.body["errors"]), answer.body
    assert answer.codes[0] in ("GRAPHQL_VALIDATION_FAILED", "GRAPHQL_PARSE_FAILED")


@pytest.mark.parametrize(
    ("document", "variables", "points"),
    [
        ("{ __typename }", {}, 0),
        ("{ viewer { role } }", {}, 1),
        ("{ apiKeys { nodes { id } } }", {}, 1 + 20),
        ("{ apiKeys(first: 100) { nodes { id secrets { suffix } } } }", {}, 1 + 100 * (1 + 10)),
        ("{ apiKeys(first: 5) { edges { node { id } } pageInfo { hasNextPage } } }", {}, 1 + 5 * 2 + 1),
        ("query Q($n: Int) { apiKeys(last: $n) { nodes { id } } }", {"n": 7}, 1 + 7),
        ("query Q($n: Int = 9) { apiKeys(last: $n) { nodes { id } } }", {}, 1 + 9),
        ("{ credits { transactions(first: 50) { totalCount edges { node { id } } } } }", {}, 1 + 1 + 5 + 50 * 2),
        ("{ credits { ...t } } fragment t on CreditAccount { transactions(first: 3) { nodes { amount { usd } } } }", {}, 1 + 1 + 3 * 2),
        ("{ __schema { types { name } } }", {}, 100),
        ('mutation { apiKeyRevoke(input: { id: "x" }) { apiKey { id } userErrors { code } } }', {}, 10 + 1 + 1 + 10),
    ],
)
def test_an_object_costs_a_point_a_list_its_length_a_mutation_ten_and_weights_are_added(
    document: str, variables: dict[str, object], points: int
) -> None:
    """Cost is arithmetic over the contract's `@cost` and `@listSize`, with the page size that arguments, variables and defaults ask for."""
    assert cost(document, **variables) == points


def test_no_operation_of_the_contract_is_too_costly() -> None:
    """Whoever writes an operation as the contract does is not told that it costs too much."""
    schema = build_schema(served_schema().sdl)
    known = {name: document for name, document in documents().items() if not validate(schema, parse(document))}
    assert {name: cost(document) for name, document in known.items() if cost(document) > MEMBER_COST} == {}
    assert len(known) > 90


async def test_an_operation_above_its_caller_s_bound_is_too_costly(served: Served) -> None:
    """A member may spend 10 000 points on one operation, a stranger 500; the refusal tells the cost."""
    owner = await served.owner()
    dear = "{ apiKeys(first: 100) { nodes { secrets { suffix } budgets { window } limits { window } scopes allowedModels { id prices(first: 100) { nodes { id } } } } } }"
    answer = await served.ask(dear, credential=owner.session)
    assert (answer.status, answer.codes) == (400, ["QUERY_TOO_COSTLY"])
    assert answer.body["errors"][0]["extensions"]["cost"] == cost(dear) > MEMBER_COST
    middling = "{ models { prices(first: 100) { nodes { id } } } }"
    assert STRANGER_COST < cost(middling) < MEMBER_COST
    assert (await served.ask(middling)).codes == ["QUERY_TOO_COSTLY"]
    assert "errors" not in (await served.ask(middling, credential=owner.session)).body


async def test_every_answer_tells_its_cost_and_what_is_not_needed_comes_back(served: Served) -> None:
    """`extensions.cost` has the points asked for and those spent on the items that there were; `rateLimit` tells the same from inside."""
    owner = await served.owner()
    await served.key(owner)
    CLOCK.seconds += 1000
    answer = await served.ask(
        "{ apiKeys(first: 50) { nodes { id } } rateLimit { cost limit remaining restoreRate } }", credential=owner.session
    )
    spent = answer.body["extensions"]["cost"]
    assert spent == {
        "requestedQueryCost": 52,
        "actualQueryCost": 3,
        "throttleStatus": {"maximumAvailable": 20_000, "currentlyAvailable": 20_000 - 3, "restoreRate": 500.0},
    }
    assert answer.data["rateLimit"] == {"cost": 52, "limit": 20_000, "remaining": 20_000 - 52, "restoreRate": 500.0}


async def test_a_used_up_rate_limit_is_429_until_it_refills(served: Served) -> None:
    """A stranger's address has a bucket of its own; when it is empty the answer is 429 with Retry-After, in both media types."""
    CLOCK.seconds += 1000
    introspection = "{ " + " ".join(f"s{n}: __schema {{ queryType {{ name }} }}" for n in range(5)) + " }"
    for _ in range(STRANGERS.limit_points // 500):
        assert (await served.ask(introspection)).status == 200
    new, old = await served.ask(introspection), await served.ask(introspection, accept="application/json")
    assert (new.status, old.status, new.codes, old.codes) == (429, 429, ["RATE_LIMITED"], ["RATE_LIMITED"])
    assert new.body["errors"][0]["extensions"]["retryAfter"] == 10
    assert new.headers["retry-after"] == "10"
    CLOCK.seconds += 10
    assert (await served.ask(introspection)).status == 200
    CLOCK.seconds += 1000


async def test_the_standard_introspection_query_is_let_in_for_strangers(served: Served) -> None:
    """The schema is public documentation: tools introspect it without a credential."""
    CLOCK.seconds += 1000
    answer = await served.ask(get_introspection_query(specified_by_url=True, input_value_deprecation=True, schema_description=True))
    assert answer.data["__schema"]["queryType"]["name"] == "Query"


async def test_a_document_is_parsed_and_validated_once(served: Served) -> None:
    """The rules are the same objects for every request, so the second request with a document finds its validation remembered."""
    document = "query Once { viewer { role } }"
    await served.ask(document)
    before = remembered()
    await served.ask(document)
    after = remembered()
    assert (after[0] - before[0], after[1] - before[1]) == (1, 0)
