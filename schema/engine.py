"""How operations run: parsed and validated once, weighed every time, answered without our faults in them."""

import contextlib
import functools
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import structlog
from graphql import ExecutionResult as Executed
from graphql import GraphQLError, OperationDefinitionNode
from strawberry import Schema
from strawberry.extensions import AddValidationRules, MaskErrors, ParserCache, SchemaExtension, ValidationCache
from strawberry.types import ExecutionContext, ExecutionResult
from strawberry.types.execution import PreExecutionError

from domain.errors import Refusal
from schema.admission import MEMBER_COST, MOST_TOKENS, STRANGER_COST, Admission, Prices, operations_of
from schema.context import Context
from schema.errors import is_expected, of_refusal, refused, translate
from schema.throttle import Throttle

REMEMBERED_DOCUMENTS: Final = 256
RULES: Final = [Admission]

log = structlog.get_logger("tallygate.graphql")


class Parsing(ParserCache):
    """Parses a document once. A document that does not parse is left to the engine, whose error then passes through `Answering`."""

    def on_parse(self) -> Iterator[None]:
        """Look the document up, or parse it."""
        with contextlib.suppress(GraphQLError):
            self.execution_context.graphql_document = self.cached_parse_document(
                self.execution_context.query, **self.execution_context.parse_options
            )
        yield


class Answering(MaskErrors):
    """Tells errors as a client may see them: with a code, and without what is only ours to know."""

    def __init__(self) -> None:
        """Look at every error."""
        super().__init__(should_mask_error=lambda _: True)

    def anonymise_error(self, error: GraphQLError) -> GraphQLError:
        """Translate one error."""
        executed = not isinstance(self.execution_context.result, PreExecutionError)
        context: Context = self.execution_context.context
        return translate(error, executed=executed, request_id=context.request_id)


class Weighing(SchemaExtension):
    """Bounds the tokens, takes the operation's cost from its caller's rate limit, and gives back what was not needed."""

    def __init__(self, throttle: Throttle) -> None:
        """Take points from `throttle`."""
        self.throttle = throttle
        self.requested = 0
        self.actual = 0
        self.unused = 0

    def on_operation(self) -> Iterator[None]:
        """Bound the document's tokens before it is parsed."""
        self.execution_context.parse_options["max_tokens"] = MOST_TOKENS
        yield

    async def on_execute(self) -> AsyncIterator[None]:
        """Weigh the operation, and answer in its place when it is too costly or its caller's points are used up."""
        execution = self.execution_context
        context: Context = execution.context
        if context.renew is not None:
            try:
                context.caller = await context.renew()
            except Refusal as refusal:
                context.caller = None
                execution.result = ExecutionResult(data=None, errors=[GraphQLError(refusal.message, extensions=of_refusal(refusal))])
                yield
                return
        document = execution.graphql_document
        assert document is not None
        operation = _chosen(operations_of(document), execution.operation_name)
        prices = _prices(execution)
        self.requested = context.cost = max(1, prices.requested(operation, document, execution.variables or {}))
        most = STRANGER_COST if context.caller is None else MEMBER_COST
        if self.requested > most:
            message = f"The operation costs up to {self.requested} points; {most} are allowed. Ask for fewer items or fields at once."
            execution.result = ExecutionResult(data=None, errors=[refused("QUERY_TOO_COSTLY", message, cost=self.requested)])
            yield
            return
        context.taken = self.throttle.take(context.spender, self.requested, context.allowance)
        if context.taken.retry_after_seconds:
            wait = context.taken.retry_after_seconds
            message = f"The rate limit is used up; try again in {wait} s."
            execution.result = ExecutionResult(data=None, errors=[refused("RATE_LIMITED", message, retryAfter=wait)])
            yield
            return
        yield
        if isinstance(execution.result, Executed | ExecutionResult):
            self.actual = min(self.requested, max(1, prices.actual(operation, document, execution.result.data)))
            self.unused = self.requested - self.actual
            self.throttle.give_back(context.spender, self.unused, context.allowance)

    def get_results(self) -> dict[str, Any]:
        """The `extensions` of every answer: the request's ID, and what the operation has cost."""
        context: Context = self.execution_context.context
        taken = context.taken or self.throttle.take(context.spender, 0, context.allowance)
        return {
            "requestId": context.request_id,
            "cost": {
                "requestedQueryCost": self.requested,
                "actualQueryCost": self.actual,
                "throttleStatus": {
                    "maximumAvailable": taken.limit_points,
                    "currentlyAvailable": min(taken.limit_points, taken.remaining_points + self.unused),
                    "restoreRate": taken.restore_points,
                },
            },
        }


class Contract(Schema):
    """The served schema. Faults of ours are logged with the request's ID; documents, variables and clients' mistakes are not."""

    @functools.cached_property
    def prices(self) -> Prices:
        """What every field costs."""
        return Prices(self._schema)

    @functools.cached_property
    def sdl(self) -> str:
        """The schema as text, with its directives applied."""
        return self.as_str()

    def process_errors(self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None) -> None:
        """Log what is not the client's doing."""
        context: Context | None = execution_context.context if execution_context else None
        for error in errors:
            fault = error.original_error
            if is_expected(error) or (error.path is None and (fault is None or isinstance(fault, GraphQLError))):
                continue
            log.error(
                "graphql field failed",
                request_id=context.request_id if context else None,
                path=[str(part) for part in error.path or ()],
                exc_info=fault or error,
            )


def extensions(throttle: Throttle) -> list[Any]:
    """What every operation passes, outermost first. The rules are one shared list, so that the validation cache hits."""
    return [
        lambda: Weighing(throttle),
        Answering,
        lambda: AddValidationRules(list(RULES)),
        lambda: Parsing(maxsize=REMEMBERED_DOCUMENTS),
        lambda: ValidationCache(maxsize=REMEMBERED_DOCUMENTS),
    ]


def _chosen(operations: list[OperationDefinitionNode], name: str | None) -> OperationDefinitionNode:
    return next((operation for operation in operations if operation.name and operation.name.value == name), operations[0])


def _prices(execution: ExecutionContext) -> Prices:
    assert isinstance(execution.schema, Contract)
    return execution.schema.prices
