"""The mutations of the people who run the service; `schema/mutation.py` is made of them."""

from typing import Annotated

import strawberry
from strawberry import field

from domain.errors import NotFound
from models.enums import Scope
from resolvers import catalogue, markup
from resolvers import operator as resolvers
from schema import ids
from schema.apps_roots import guarded, row
from schema.catalogue import Price, PriceCreateInput
from schema.context import Info
from schema.fields import resolved
from schema.markup import MarkupRule, MarkupRuleCreateInput, MarkupRuleEndInput
from schema.operator import BackgroundJob
from schema.user_errors import UserError


@strawberry.input(description="Input of jobRetry.")
class JobRetryInput:
    """As the contract has it."""

    job_id: str = field(description="The queue's own ID of the job.")


@strawberry.type(description="Result of jobRetry.")
class JobRetryPayload:
    """As the contract has it."""

    job: BackgroundJob | None = field(description="The job, queued again.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


@strawberry.type(description="Result of priceCreate.")
class PriceCreatePayload:
    """As the contract has it."""

    price: Price | None = field(description="The price version.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


@strawberry.type(description="Result of markupRuleCreate.")
class MarkupRuleCreatePayload:
    """As the contract has it."""

    markup_rule: MarkupRule | None = field(description="The rule.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


@strawberry.type(description="Result of markupRuleEnd.")
class MarkupRuleEndPayload:
    """As the contract has it."""

    markup_rule: MarkupRule | None = field(description="The rule.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


@strawberry.type
class OperatorMutations:
    """Writes to the service itself."""

    @resolved("Run a failed background job again. Requires scope `OPERATOR`.", extensions=guarded(JobRetryPayload, Scope.OPERATOR))
    async def job_retry(
        self, info: Info, input: Annotated[JobRetryInput, strawberry.argument(description="The job.")]
    ) -> JobRetryPayload | None:
        """Queue it."""
        job_id = ids.parse_uuid(input.job_id)
        if job_id is None:
            raise NotFound("job", path=("jobId",))
        return JobRetryPayload(job=BackgroundJob.of(await resolvers.retry(info.context, job_id)))

    @resolved("Enter a price version. Requires scope `OPERATOR`.", extensions=guarded(PriceCreatePayload, Scope.OPERATOR))
    async def price_create(
        self, info: Info, input: Annotated[PriceCreateInput, strawberry.argument(description="The price.")]
    ) -> PriceCreatePayload | None:
        """Enter it."""
        return PriceCreatePayload(price=Price.of(await catalogue.create_price(info.context, input.new())))

    @resolved("Make a markup rule. Requires scope `OPERATOR`.", extensions=guarded(MarkupRuleCreatePayload, Scope.OPERATOR))
    async def markup_rule_create(
        self, info: Info, input: Annotated[MarkupRuleCreateInput, strawberry.argument(description="The rule.")]
    ) -> MarkupRuleCreatePayload | None:
        """Make it."""
        return MarkupRuleCreatePayload(markup_rule=MarkupRule.of(await markup.create(info.context, input.new())))

    @resolved("End a markup rule. Requires scope `OPERATOR`.", extensions=guarded(MarkupRuleEndPayload, Scope.OPERATOR))
    async def markup_rule_end(
        self, info: Info, input: Annotated[MarkupRuleEndInput, strawberry.argument(description="The rule.")]
    ) -> MarkupRuleEndPayload | None:
        """End it."""
        rule_id = row("MarkupRule", input.id, "markup rule", "id")
        return MarkupRuleEndPayload(markup_rule=MarkupRule.of(await markup.end(info.context, rule_id, input.effective_until or None)))
