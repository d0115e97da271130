"""How a refusal is told: as a user error in a payload, or at the top level with a code."""

import datetime
import math
import re
from typing import Final

from graphql import GraphQLError, GraphQLSyntaxError

from domain.errors import BoundReached, MissingScope, Refusal, Unavailable

CODES_BY_STATUS: Final = {401: "UNAUTHENTICATED", 403: "FORBIDDEN", 429: "RATE_LIMITED"}
SUGGESTION: Final = re.compile(r" Did you mean .*\?\Z", re.DOTALL)
MASKED: Final = "Something went wrong on our side. The request ID finds it in the log."


def refused(code: str, message: str, **facts: object) -> GraphQLError:
    """A top-level error with `extensions.code` and further typed facts beside it."""
    return GraphQLError(message, extensions={"code": code, **facts})


def unacceptable(message: str) -> GraphQLError:
    """A top-level BAD_USER_INPUT: an argument whose type is right and whose value is not."""
    return refused("BAD_USER_INPUT", message)


def code_of(error: GraphQLError) -> str | None:
    """The `extensions.code` of an error of ours, None for any other."""
    code = (error.extensions or {}).get("code")
    return code if isinstance(code, str) else None


def is_expected(error: GraphQLError) -> bool:
    """Whether an error that a resolver raised is an answer, and not a fault of ours to be logged."""
    return code_of(error) is not None or isinstance(error.original_error, Refusal)


def translate(error: GraphQLError, *, executed: bool, request_id: str) -> GraphQLError:
    """The error as a client may see it.

    `executed` tells a fault of the variables from one of the document. Anything that is no refusal and has no code of ours is masked as
    INTERNAL. Suggestions of names are taken out.
    """
    if code_of(error) is not None:
        return error
    refusal = error.original_error
    if isinstance(refusal, Refusal):
        return _located(error, refusal.message, of_refusal(refusal))
    if error.path is not None or (refusal is not None and not isinstance(refusal, GraphQLError)):
        return _located(error, MASKED, {"code": "INTERNAL", "requestId": request_id})
    code = "BAD_USER_INPUT" if executed else "GRAPHQL_VALIDATION_FAILED"
    if isinstance(error, GraphQLSyntaxError):
        code = "GRAPHQL_PARSE_FAILED"
    return _located(error, SUGGESTION.sub("", error.message), {"code": code})


def of_refusal(refusal: Refusal) -> dict[str, object]:
    """The `extensions` of a top-level error that tells a refusal: its code and its typed facts."""
    if isinstance(refusal, MissingScope):
        return {"code": "FORBIDDEN", "requiredScopes": list(refusal.scopes)}
    if isinstance(refusal, BoundReached) and refusal.resets_at is not None:
        wait = (refusal.resets_at - datetime.datetime.now(datetime.UTC)).total_seconds()
        return {"code": "RATE_LIMITED", "retryAfter": max(1, math.ceil(wait))}
    if isinstance(refusal, Unavailable):
        return {"code": "INTERNAL", "retryAfter": refusal.retry_after_seconds}
    return {"code": CODES_BY_STATUS.get(refusal.status, "BAD_USER_INPUT")}


def _located(error: GraphQLError, message: str, extensions: dict[str, object]) -> GraphQLError:
    return GraphQLError(message, nodes=error.nodes, source=error.source, positions=error.positions, path=error.path, extensions=extensions)
