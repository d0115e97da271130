"""How a refusal is told, and how a fault of ours is not."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog
from graphql import GraphQLError, GraphQLSyntaxError, Source, parse
from strawberry.types.execution import ExecutionContext

from domain import errors
from domain.errors import Refusal
from models.enums import Resource, Scope
from schema.context import Context
from schema.errors import MASKED, refused, translate
from schema.user_errors import user_error
from tests.schema.serving import Served, served_schema

pytestmark = pytest.mark.anyio

PATH = ("limits", "0", "window")
TOLD = [
    (errors.NotFound("key", path=("id",)), "NotFoundError", "NOT_FOUND", ["input", "id"]),
    (errors.UnknownModel("No such model."), "NotFoundError", "NOT_FOUND", None),
    (errors.InvalidInput("Malformed.", path=PATH), "InvalidInputError", "INVALID", ["input", *PATH]),
    (errors.Unpriced("No price."), "InvalidInputError", "INVALID", None),
    (errors.Required("Needed.", path=("name",)), "InvalidInputError", "REQUIRED", ["input", "name"]),
    (errors.WiderThanCaller("Wider."), "InvalidInputError", "WIDER_THAN_CALLER", None),
    (errors.OutOfRange("Big.", minimum=1, maximum=9, too_large=True), "OutOfRangeError", "TOO_LARGE", None),
    (errors.OutOfRange("Small.", minimum=1, maximum=None, too_large=False), "OutOfRangeError", "TOO_SMALL", None),
    (errors.Taken("Taken.", suggestions=("b",)), "TakenError", "TAKEN", None),
    (errors.InvalidState("Gone.", state="revoked"), "InvalidStateError", "INVALID_STATE", None),
    (errors.IdempotencyConflict(), "InvalidInputError", "IDEMPOTENCY_CONFLICT", ["input", "idempotencyKey"]),
    (errors.QuotaReached("Full.", resource=Resource.APPS, limit=1, used=1), "QuotaExceededError", "QUOTA_EXCEEDED", None),
    (errors.InsufficientCredit("Poor.", available_microusd=1, required_microusd=2), "InsufficientCreditError", "INSUFFICIENT_CREDIT", None),
]


@pytest.mark.parametrize(("refusal", "kind", "code", "path"), TOLD, ids=[type(row[0]).__name__ for row in TOLD])
def test_a_refusal_that_can_be_repaired_is_a_user_error(refusal: Refusal, kind: str, code: str, path: list[str] | None) -> None:
    """Each has the type, code and path of the contract, and the domain's message."""
    told = user_error(refusal)
    assert told is not None
    assert (type(told).__name__, told.code.name, told.path, told.message) == (kind, code, path, refusal.message)


@pytest.mark.parametrize(
    ("refusal", "extensions"),
    [
        (errors.Unauthenticated(), {"code": "UNAUTHENTICATED"}),
        (errors.Forbidden("No."), {"code": "FORBIDDEN"}),
        (errors.NotOnThisRoute("No."), {"code": "FORBIDDEN"}),
        (errors.MissingScope(("KEYS_READ",)), {"code": "FORBIDDEN", "requiredScopes": ["KEYS_READ"]}),
        (errors.Unavailable(retry_after_seconds=3), {"code": "INTERNAL", "retryAfter": 3}),
        (errors.BoundReached("Full.", bound="day", resets_at=None), {"code": "RATE_LIMITED"}),
    ],
)
def test_a_refusal_that_cannot_be_repaired_stays_at_the_top(refusal: Refusal, extensions: dict[str, Any]) -> None:
    """What is forbidden, throttled or away is no user error, and keeps its message and typed facts."""
    assert user_error(refusal) is None
    told = translate(GraphQLError(refusal.message, path=["x"], original_error=refusal), executed=True, request_id="r")
    assert (told.message, told.extensions, told.path) == (refusal.message, extensions, ["x"])


def test_every_refusal_of_the_domain_is_told_in_one_of_the_two_ways() -> None:
    """A refusal that is added to the tree appears here; that of an earlier answer is inference's alone."""

    def tree(kind: type[Refusal]) -> set[type[Refusal]]:
        return {kind}.union(*(tree(each) for each in kind.__subclasses__() if each.__module__ == "domain.errors"))

    top = {errors.Unauthenticated, errors.Forbidden, errors.NotOnThisRoute, errors.MissingScope, errors.Unavailable, errors.BoundReached}
    assert tree(Refusal) - {Refusal, errors.UnknownAnswer} == top | {type(row[0]) for row in TOLD}


def test_a_bound_says_when_to_come_back() -> None:
    """`retryAfter` is in whole seconds, at least one."""
    soon = errors.BoundReached("Full.", bound="day", resets_at=datetime.now(UTC) + timedelta(hours=1))
    past = errors.BoundReached("Full.", bound="day", resets_at=datetime.now(UTC) - timedelta(hours=1))
    waits = [
        (translate(GraphQLError("x", original_error=each), executed=True, request_id="r").extensions or {})["retryAfter"]
        for each in (soon, past)
    ]
    assert waits[1] == 1
    assert 3_500 < waits[0] <= 3_600


@pytest.mark.parametrize("fault", [RuntimeError("postgresql://user:secret@db"), AssertionError("x"), TypeError("x"), KeyError("x")])
def test_a_fault_of_ours_is_masked_with_the_request_s_id(fault: Exception) -> None:
    """No text of an exception that we did not mean for clients reaches one."""
    told = translate(GraphQLError(str(fault), path=["usage"], original_error=fault), executed=True, request_id="req-7")
    assert (told.message, told.extensions) == (MASKED, {"code": "INTERNAL", "requestId": "req-7"})
    assert told.original_error is None


def test_errors_of_the_engine_get_the_contract_s_codes() -> None:
    """Parsing, validating and coercing variables are told apart; suggestions are taken out; a null that must not be is our fault."""
    syntax = GraphQLSyntaxError(Source("{"), 1, "Expected Name.")
    guess = GraphQLError("Cannot query field 'nam' on type 'Model'. Did you mean 'name'?")
    assert (translate(syntax, executed=False, request_id="r").extensions or {})["code"] == "GRAPHQL_PARSE_FAILED"
    told = translate(guess, executed=False, request_id="r")
    assert (told.message, told.extensions) == ("Cannot query field 'nam' on type 'Model'.", {"code": "GRAPHQL_VALIDATION_FAILED"})
    assert (translate(GraphQLError("Variable '$n' is bad."), executed=True, request_id="r").extensions or {})["code"] == "BAD_USER_INPUT"
    assert (translate(GraphQLError("Cannot return null.", path=["a"]), executed=True, request_id="r").extensions or {})[
        "code"
    ] == "INTERNAL"
    ours = refused("QUERY_TOO_COSTLY", "Dear.", cost=9)
    assert translate(ours, executed=True, request_id="r") is ours


def test_only_faults_of_ours_are_logged_and_never_the_document() -> None:
    """A flood of bad queries writes nothing; a fault is logged once with the request's ID and without what the client sent."""
    document = "query Canary { secretCanary }"
    execution = ExecutionContext(query=document, schema=served_schema(), allowed_operations=())
    execution.context = Context.__new__(Context)
    execution.context.request_id = "req-9"
    mistakes = [
        GraphQLError("Cannot query field 'secretCanary'.", nodes=parse(document).definitions[0]),
        refused("FORBIDDEN", "No."),
        GraphQLError("No.", path=["x"], original_error=errors.Unauthenticated()),
        GraphQLError("Variable '$secretCanary' is bad.", original_error=GraphQLError("bad")),
    ]
    with structlog.testing.capture_logs() as logs:
        served_schema().process_errors(mistakes, execution)
        assert logs == []
        served_schema().process_errors([GraphQLError("x", path=["usage", 0], original_error=RuntimeError("boom"))], execution)
    (line,) = logs
    assert (line["event"], line["request_id"], line["path"], line["log_level"]) == (
        "graphql field failed",
        "req-9",
        ["usage", "0"],
        "error",
    )
    assert "secretCanary" not in str(line)


async def test_user_errors_come_with_their_typed_facts(served: Served) -> None:
    """A careful client reads what it needs to repair its request; a plain one reads code, message and path."""
    owner = await served.owner()
    _, secret = await served.key(owner, scopes=frozenset({Scope.KEYS_READ, Scope.KEYS_WRITE}))
    document = """mutation M($input: ApiKeyCreateInput!) { apiKeyCreate(input: $input) { apiKey { id } secret userErrors {
      __typename code message path ... on OutOfRangeError { minimum maximum } ... on InvalidStateError { currentState } } } }"""
    cases: list[tuple[dict[str, Any], dict[str, Any]]] = [
        (
            {"name": "x" * 201},
            {"__typename": "OutOfRangeError", "code": "TOO_LARGE", "path": ["input", "name"], "minimum": 1, "maximum": 200},
        ),
        ({"expiresAt": "2020-01-01T00:00:00Z"}, {"__typename": "InvalidInputError", "code": "INVALID", "path": ["input", "expiresAt"]}),
        ({"scopes": ["OPERATOR"]}, {"__typename": "InvalidInputError", "code": "WIDER_THAN_CALLER", "path": ["input", "scopes"]}),
        (
            {"limits": [{"resource": "APPS", "window": "day", "limit": 1}]},
            {"__typename": "InvalidInputError", "code": "INVALID", "path": ["input", "limits", "0", "resource"]},
        ),
        (
            {"budgets": [{"window": "concurrent", "limit": 1}]},
            {"__typename": "InvalidInputError", "code": "INVALID", "path": ["input", "budgets", "0", "window"]},
        ),
        (
            {"allowedModels": ["echo", "ehco"]},
            {"__typename": "NotFoundError", "code": "NOT_FOUND", "path": ["input", "allowedModels", "1"]},
        ),
        (
            {"budgets": [{"window": "day", "limit": 1, "model": "ehco"}]},
            {"__typename": "NotFoundError", "code": "NOT_FOUND", "path": ["input", "budgets", "0", "model"]},
        ),
    ]
    for input_, told in cases:
        payload = (await served.ask(document, credential=secret, input=input_)).data["apiKeyCreate"]
        (error,) = payload["userErrors"]
        assert error.pop("message")
        assert (payload["apiKey"], payload["secret"], error) == (None, None, told)


async def test_an_idempotency_key_makes_one_key_and_refuses_another_input(served: Served) -> None:
    """F32: a retry returns the first key without its secret; the same idempotency key with another input is a conflict."""
    owner = await served.owner()
    document = 'mutation M($n: String) { apiKeyCreate(input: { name: $n, idempotencyKey: "once" }) { apiKey { id } secret userErrors { code path } } }'
    first = (await served.ask(document, credential=owner.session, n="a")).data["apiKeyCreate"]
    again = (await served.ask(document, credential=owner.session, n="a")).data["apiKeyCreate"]
    other = (await served.ask(document, credential=owner.session, n="b")).data["apiKeyCreate"]
    assert first["secret"]
    assert again == {"apiKey": first["apiKey"], "secret": None, "userErrors": []}
    assert other == {"apiKey": None, "secret": None, "userErrors": [{"code": "IDEMPOTENCY_CONFLICT", "path": ["input", "idempotencyKey"]}]}


async def test_one_failing_mutation_leaves_its_sibling_s_secret(served: Served) -> None:
    """Rule 3: the root field is nullable, so that a secret that is shown once is never lost to another field's refusal."""
    owner = await served.owner()
    answer = await served.ask(
        'mutation { a: apiKeyCreate(input: {}) { secret } b: creditsAdjust(input: { amount: 1, reason: "r", idempotencyKey: "k" }) { transfer { id } } }',
        credential=owner.session,
    )
    assert answer.body["data"]["a"]["secret"].startswith("tg_live_")
    assert (answer.body["data"]["b"], answer.codes) == (None, ["FORBIDDEN"])
